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
//! its way to it.
//!
//! What no node has any more is *lost*, and no waiting brings it back. The commit points to where it was all the same: so all
//! else is stored, the file keeps its size and its other parts, whoever reads the lost one is told, here and elsewhere, and a
//! collector finds that a block is missing, and brings it back if it can. Only the file's own sync and close say that it
//! is not stored, for as long as that part is neither written anew nor cut off, and so does the end of the mount. Each of these looks
//! again first, now and then: what somebody has by now, as one who was taken for gone and came back, is fetched and stored anew, and is
//! lost no more.
//!
//! Doubt lasts as long as the process: it costs work for what is pointed to anew, and that is little. What is open here and was
//! removed elsewhere is nobody's promise: what of it was there when doubt arose is read for as long as it is to be had.
//!
//! Not here: who waits for whom ([`super::session`], [`super::fence`]). Why it is enough: `docs/collection.md`.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dht::{Address, GetError};

use super::Volume;
use super::session::Standing;
use super::state::{Change, State, Step};
use crate::errno::Errno;
use crate::format::{Key, Pointer};
use crate::operations::Inode;

/// How often it is looked whether somebody has what was lost: each part costs a question to all nodes.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// So many parts at once: what a sync waits for beside its own.
const LOOKED_FOR_MAX: usize = 16;

/// See the file's header.
#[derive(Default, Debug)]
pub(crate) struct Doubt {
    /// What was stored for roots up to this one; 0: there is no doubt.
    up_to: u64,
    /// Inodes that were open here without being in the tree any more.
    ghosts: HashSet<u64>,
    /// Frames that were to be stored from here and that nobody has any more, or had not when they were last asked for.
    lost: BTreeMap<Key, Pointer>,
    /// The files that this was told of.
    told: HashSet<u64>,
    /// When it was last looked whether somebody has what was lost.
    looked_at: Option<Instant>,
    /// From where on it is looked next.
    look_from: Option<Key>,
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

    /// Nobody has this frame any more. Returns whether that is to be told: once of each file.
    fn on_lost(&mut self, key: &Key, pointer: &Pointer) -> bool {
        self.lost.insert(key.clone(), *pointer);
        key.owner().is_some_and(|inode| self.told.insert(inode))
    }

    fn is_lost(&self, key: &Key, pointer: &Pointer) -> bool {
        self.lost.get(key) == Some(pointer)
    }

    /// What is lost of `inode`, or of all.
    fn lost_of(&self, inode: Option<u64>) -> Vec<(Key, Pointer)> {
        let is_meant = |key: &Key| inode.is_none() || key.owner() == inode;
        let lost = self.lost.iter().filter(|(key, _)| is_meant(key));
        lost.map(|(key, pointer)| (key.clone(), *pointer)).collect()
    }

    /// Which of what is lost, of `inode` or of all, it is to be looked for at `now`: a few at a time, and not all the time.
    fn next_to_look_for(&mut self, inode: Option<u64>, now: Instant, insists: bool) -> Vec<(Key, Pointer)> {
        let is_soon = |at: Instant| now.saturating_duration_since(at) < LOOK_PAUSE;
        if !insists && self.looked_at.is_some_and(is_soon) {
            return Vec::new();
        }
        let mut lost = self.lost_of(inode);
        let from = lost.iter().position(|(key, _)| Some(key) >= self.look_from.as_ref()).unwrap_or(0);
        lost.rotate_left(from);
        if !insists {
            lost.truncate(LOOKED_FOR_MAX);
        }
        if let Some((last, _)) = lost.last() {
            (self.looked_at, self.look_from) = (Some(now), Some(last.successor()));
        }
        lost
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

impl State {
    /// Whether a file that has a name is still without this frame.
    fn lacks(&mut self, key: &Key, pointer: &Pointer) -> Step<bool> {
        let Key::Extent(inode, frame) = key else { return Ok(false) };
        if self.is_dead(*inode, *frame) {
            return Ok(false);
        }
        if !matches!(self.get(key)?, Some(Change::Stored(now)) if now == *pointer) {
            return Ok(false);
        }
        Ok(matches!(self.get(&Key::Inode(*inode))?, Some(Change::Inode(record)) if record.nlink > 0))
    }
}

impl Volume {
    /// Returns the content of a frame that is in doubt; `None` if it is lost, which is told.
    ///
    /// # Errors
    ///
    /// Why it can't be had now, though somebody may have it.
    ///
    /// # Suspends
    ///
    /// While it is fetched.
    pub(super) fn content_in_doubt(&self, key: &Key, pointer: &Pointer) -> Result<Option<Bytes>, Errno> {
        if self.state.borrow().doubt.is_lost(key, pointer) {
            return Ok(None);
        }
        match self.fetch_frame(pointer) {
            Err(Errno::EIO) if self.is_nowhere(pointer) => {
                if self.state.borrow_mut().doubt.on_lost(key, pointer) {
                    let inode = key.owner().map(|inode| self.number(Inode(inode)).0);
                    tracing::error!(
                        inode,
                        "garbage was collected while the drive did not know of this mount, and a part of a file that was not \
                         stored yet is gone (`find . -inum` says which): whoever reads that part is told so, and whoever syncs \
                         or closes the file after a change. All else is stored. Write the file anew from where it came from, \
                         or remove it"
                    );
                }
                Ok(None)
            }
            content => content.map(Some),
        }
    }

    /// Whether all nodes that could have it say that they have not: a copy that is damaged, or a node that is silent, says
    /// nothing of the others.
    fn is_nowhere(&self, pointer: &Pointer) -> bool {
        let range = pointer.offset..pointer.offset + pointer.length;
        matches!(self.store.get(&Address(pointer.address), Some(range)), Err(GetError::NotFound(_)))
    }

    /// Looks whether somebody has by now what was lost of `inode`, or of all, and takes it up again: it is stored anew then, like
    /// anything that is changed, since where it lies it may yet be deleted. Whoever `insists` looks for all of it, and at once.
    ///
    /// # Suspends
    ///
    /// While it is looked for, and fetched.
    pub(super) fn look_for_lost(&self, inode: Option<Inode>, insists: bool) {
        let looked_for = {
            let mut state = self.state.borrow_mut();
            if state.read_only || state.shut.is_some() || state.doubt.lost.is_empty() {
                return;
            }
            let inode = inode.map(|inode| state.at(inode));
            state.doubt.next_to_look_for(inode, reactor::now(), insists)
        };
        let mut count = 0;
        for (key, pointer) in looked_for {
            let range = pointer.offset..pointer.offset + pointer.length;
            match self.store.get(&Address(pointer.address), Some(range)) {
                Ok(_) => {}
                // Nor can it be known of the others now.
                Err(GetError::Unreachable { .. } | GetError::NotHere(_)) => break,
                Err(_) => continue,
            }
            let Ok(content) = self.fetch_frame(&pointer) else { continue };
            let taken = self.change_step(|state| {
                let is_lacking = state.lacks(&key, &pointer)?;
                if is_lacking {
                    state.set(key.clone(), Change::Frame(content.clone()));
                }
                Ok(is_lacking)
            });
            count += usize::from(taken == Ok(true));
            if taken.is_ok() {
                self.state.borrow_mut().doubt.lost.remove(&key);
            }
        }
        if count > 0 {
            tracing::warn!(count, "parts of files that no node had are there again: they are stored anew");
        }
    }

    /// Whether nothing is lost of `inode`, or of any file, that was to be stored from here.
    ///
    /// # Errors
    ///
    /// `EIO` if something is.
    ///
    /// # Suspends
    ///
    /// While it is looked whether it was written anew.
    pub(super) fn refuse_if_lost(&self, inode: Option<Inode>) -> Result<(), Errno> {
        if self.lost_files(inode) == 0 { Ok(()) } else { Err(Errno::EIO) }
    }

    /// How many files have lost a part that was to be stored from here: whether `inode` has, or of all.
    ///
    /// # Suspends
    ///
    /// While it is looked whether it was written anew.
    pub(super) fn lost_files(&self, inode: Option<Inode>) -> u64 {
        let lost = {
            let state = self.state.borrow();
            state.doubt.lost_of(inode.map(|inode| state.at(inode)))
        };
        let mut files = HashSet::new();
        for (key, pointer) in lost {
            // What can't be read now has not been seen to be replaced.
            if self.step(|state| state.lacks(&key, &pointer)).unwrap_or(true) {
                files.extend(key.owner());
            } else {
                self.state.borrow_mut().doubt.lost.remove(&key);
            }
        }
        files.len() as u64
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
    fn what_is_lost_is_lost_of_its_file_alone_and_told_once() {
        let mut doubt = Doubt::default();
        let pointer = |byte| Pointer::example([byte; 32], 2, 300);
        assert!(doubt.on_lost(&Key::Extent(7, 1), &pointer(1)));
        assert!(!doubt.on_lost(&Key::Extent(7, 2), &pointer(2)), "of this file it was told");
        assert!(doubt.on_lost(&Key::Extent(8, 1), &pointer(3)));
        assert!(doubt.is_lost(&Key::Extent(7, 1), &pointer(1)));
        assert!(!doubt.is_lost(&Key::Extent(7, 1), &pointer(2)), "another is there now");
        assert_eq!(doubt.lost_of(Some(8)), [(Key::Extent(8, 1), pointer(3))]);
        assert!(doubt.lost_of(Some(9)).is_empty());
        assert_eq!(doubt.lost_of(None).len(), 3);
    }

    #[test]
    fn what_was_lost_is_looked_for_again_some_of_it_at_a_time_and_not_at_each_sync() {
        let (mut doubt, start) = (Doubt::default(), Instant::now());
        let lost = 2 * LOOKED_FOR_MAX as u64 + 1;
        for frame in 0..lost {
            doubt.on_lost(&Key::Extent(7, frame), &Pointer::example([1; 32], 2, 300));
        }
        doubt.on_lost(&Key::Extent(9, 0), &Pointer::example([2; 32], 2, 300));
        let mut seen = HashSet::new();
        for round in 0..3 {
            let now = start + LOOK_PAUSE * round;
            let looked_for = doubt.next_to_look_for(Some(7), now, false);
            assert!(looked_for.len() <= LOOKED_FOR_MAX);
            seen.extend(looked_for.into_iter().map(|(key, _)| key));
            assert!(
                doubt.next_to_look_for(None, now + LOOK_PAUSE / 2, false).is_empty(),
                "it was looked a moment ago"
            );
        }
        assert_eq!(seen.len() as u64, lost, "all come to their turn");
        assert_eq!(doubt.next_to_look_for(None, start, true).len() as u64, lost + 1, "at the end all of it");
        assert_eq!(doubt.next_to_look_for(Some(9), start + LOOK_PAUSE * 9, false).len(), 1);
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
