//! Whether what this mount holds pointers to may have been deleted.
//!
//! A collector of garbage waits for every session that the tree has. So whoever's record stayed there, be it as a lost one's,
//! from before he took hold of a pointer until the root that he goes on from, need not doubt it. Nobody else can tell: a
//! mount whose record others removed while it lived, one that was started from what is here while the nodes were away, a
//! virtual machine that was put back to an earlier moment, what a journal held when its session was forgotten, or when somebody
//! made a backup of it.
//!
//! They find out by one thing: the root that they go on from has let a collection through that theirs had not, and they
//! are not in its tree, or their record there has cleared the way for what they never heard of. A journal that is replayed is
//! always taken for one of these. From then on everything that was stored for a root up to that collection is *in doubt*, and a commit
//! that points to it anew does not: it fetches the content, from the cache or from the nodes, which keep what is deleted for
//! a time of grace, and stores it under a new address. To look whether it is there would not do: the collector may be on
//! its way to it. What cannot be had holds up the commit with an error, and so the sync, the close and the end of the mount
//! say that not everything is stored, and the journal keeps it.
//!
//! Doubt lasts as long as the process: it costs work for what is pointed to anew, and that is little. What is open here and was
//! removed elsewhere is nobody's promise: what of it was there when doubt arose is read for as long as it is to be had.
//!
//! Not here: who waits for whom ([`super::session`], [`super::fence`]). Why it is enough: `docs/collection.md`.

use std::cell::Cell;
use std::collections::HashSet;

use bytes::Bytes;

use super::Volume;
use super::session::Standing;
use super::state::Change;
use crate::errno::Errno;
use crate::format::{Key, Pointer};
use crate::operations::Inode;

/// See the file's header.
#[derive(Default, Debug)]
pub(crate) struct Doubt {
    /// What was stored for roots up to this one; 0: there is no doubt.
    up_to: u64,
    /// Inodes that were open here without being in the tree any more.
    ghosts: HashSet<u64>,
    /// Something of what is to be stored was not to be had.
    is_stuck: Cell<bool>,
    /// That was told.
    is_told: Cell<bool>,
}

impl Doubt {
    /// Our own root has let collections through up to `ours`, the one that is gone on from up to `theirs`, and its tree says
    /// this of our session. Returns whether there is more reason to doubt what was held before.
    pub(crate) fn on_root(&mut self, ours: u64, theirs: u64, standing: Standing) -> bool {
        let up_to = match standing {
            Standing::Absent if theirs > ours => theirs,
            // Whatever was let through yet: with our next commit the record says what we know.
            Standing::PutBack { cleared } => theirs.max(cleared),
            Standing::Absent | Standing::Known => return false,
        };
        self.up_to = self.up_to.max(up_to);
        true
    }

    /// What a journal held is taken up, on a root that has let collections through up to `theirs`. Nobody knows for how long
    /// it has lain there, or where: what a session in the tree keeps for it is none the worse for being stored anew.
    pub(crate) fn on_replay(&mut self, theirs: u64) {
        self.up_to = self.up_to.max(theirs);
    }

    /// These were open here without being in the tree when doubt arose.
    pub(crate) fn on_ghosts(&mut self, ghosts: impl Iterator<Item = u64>) {
        self.ghosts.extend(ghosts);
    }

    /// These have names again.
    pub(crate) fn on_return(&mut self, inode: u64) {
        self.ghosts.remove(&inode);
    }

    /// Whether nobody has kept what is open here of `inode`.
    pub(crate) fn has_ghost(&self, inode: u64) -> bool {
        self.ghosts.contains(&inode)
    }

    /// Everything was published: all of it was to be had.
    pub(crate) fn on_published(&self) {
        self.is_told.set(false);
        self.is_stuck.set(false);
    }

    /// What is to be stored is not what it was: a merge may have dropped what was not to be had.
    pub(crate) fn on_other_changes(&self) {
        self.is_stuck.set(false);
    }

    /// Something is not to be had. Returns whether that was told already.
    fn on_missing(&self) -> bool {
        self.is_stuck.set(true);
        self.is_told.replace(true)
    }

    /// Whether something that is to be stored is not to be had any more: nothing more is stored then.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.get()
    }

    /// What must not be pointed to anew, if that is what `change` does.
    pub(crate) fn of(&self, change: &Change) -> Option<Pointer> {
        match change {
            // A birth of 0 says nothing.
            Change::Stored(pointer) if self.up_to > 0 && pointer.birth <= self.up_to => Some(*pointer),
            _ => None,
        }
    }
}

impl Volume {
    /// Returns the content of a frame that is in doubt.
    ///
    /// # Errors
    ///
    /// `EIO` if nobody has it any more.
    ///
    /// # Suspends
    ///
    /// While it is fetched.
    pub(super) fn content_in_doubt(&self, key: &Key, pointer: &Pointer) -> Result<Bytes, Errno> {
        let fetched = self.fetch_frames(&[*pointer]);
        let fetched = fetched.and_then(|frames| frames.into_iter().next().ok_or(Errno::EIO));
        if let Err(errno) = &fetched
            // The nodes are away, or were a moment ago: that is no answer.
            && !matches!(*errno, Errno::ETIMEDOUT | Errno::EHOSTUNREACH)
            && !self.state.borrow().doubt.on_missing()
        {
            let inode = key.owner().map(|inode| self.number(Inode(inode)).0);
            tracing::error!(
                %errno,
                inode,
                "garbage was collected while the drive did not know of this mount, and a part of a file that is not \
                 stored yet is gone (`find . -inum` says which): nothing more is stored from here, and the journal keeps \
                 what it has. Copy what you need from this mount to another place, end it, move its journal away and start \
                 anew"
            );
        }
        fetched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(birth: u64) -> Change {
        Change::Stored(Pointer { birth, ..Pointer::example([1; 32], 2, 300) })
    }

    fn doubts(doubt: &Doubt) -> Vec<u64> {
        (0..9).filter(|birth| doubt.of(&stored(*birth)).is_some()).collect()
    }

    #[test]
    fn whoever_was_waited_for_doubts_nothing_and_all_others_what_is_older() {
        let mut doubt = Doubt::default();
        assert!(!doubt.on_root(0, 0, Standing::Absent), "nothing was ever collected");
        assert!(!doubt.on_root(5, 5, Standing::Absent), "nothing since");
        assert!(!doubt.on_root(0, 5, Standing::Known), "it was waited for");
        assert!(doubts(&doubt).is_empty());
        assert!(doubt.on_root(2, 5, Standing::Absent));
        assert_eq!(doubts(&doubt), [0, 1, 2, 3, 4, 5]);
        assert!(!doubt.on_root(5, 7, Standing::Known));
        assert_eq!(doubts(&doubt), [0, 1, 2, 3, 4, 5], "for good, and no more");
        doubt.on_replay(3);
        assert_eq!(doubts(&doubt), [0, 1, 2, 3, 4, 5]);
        doubt.on_replay(7);
        assert_eq!(doubts(&doubt), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(doubt.of(&Change::Frame(Bytes::new())).is_none() && doubt.of(&Change::Removed).is_none());
    }

    #[test]
    fn what_a_merge_may_have_dropped_stops_nothing_and_is_told_once() {
        let doubt = Doubt::default();
        assert!(!doubt.on_missing() && doubt.is_stuck());
        doubt.on_other_changes();
        assert!(!doubt.is_stuck());
        assert!(doubt.on_missing() && doubt.is_stuck(), "it is still there");
        doubt.on_published();
        assert!(!doubt.is_stuck() && !doubt.on_missing());
    }

    #[test]
    fn one_that_was_put_back_doubts_what_was_cleared_in_its_name_before_that_is_let_through() {
        let mut doubt = Doubt::default();
        assert!(doubt.on_root(0, 0, Standing::PutBack { cleared: 4 }));
        // By now its own commit has said the same, and it is known.
        assert!(!doubt.on_root(0, 4, Standing::Known));
        assert_eq!(doubts(&doubt), [0, 1, 2, 3, 4]);
    }
}
