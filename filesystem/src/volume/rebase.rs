//! What happens when another writer was first, or is seen to have written: taking their root over.
//!
//! First the nodes that the merge will look at are fetched, level by level and in parallel; then it is worked out (see
//! [`super::merge`]) while changes wait, and put in place in one step. A walk over both trees that skips what they share
//! finds what programs here have open although it is removed there ([`super::ghosts`]); another, what the kernel must
//! forget ([`super::news`]).

use bytes::Bytes;
use dht::{HeaderHash, Record};
use reactor::crypto::random_bytes;

use super::Volume;
use super::born::random_start;
use super::fetch::CachedNodes;
use super::ghosts::Returned;
use super::merge::{Merged, sides::Side};
use super::state::{Delta, State, Step, Stop};
use crate::access::Root;
use crate::cache::NumberMap;
use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key, Pointer, Shown, Truncation, WriterRecord};
use crate::operations::Time;
use crate::tree::Nodes;
use crate::tree::difference::{Difference, Differing};

/// What theirs has done to inodes that the kernel refers to.
#[derive(Default)]
struct Under {
    /// They are gone.
    removed: Vec<u64>,
    /// They have lost a name that they had, or other programs may open them now.
    moved: Vec<u64>,
    /// They were gone, and are back.
    returned: Returned,
}

impl State {
    /// Puts a merge in place: the tree is `tree` from now on, which is what `header` names, and our changes are the
    /// merged ones. If it stops for something that is missing, nothing has changed.
    ///
    /// `truncations` are those that are under way in `tree`, `returned` the ghosts that have names there.
    fn adopt(
        &mut self,
        merged: &Merged,
        tree: Option<Pointer>,
        header: HeaderHash,
        truncations: &NumberMap<u64, Truncation>,
        returned: &Returned,
    ) -> Step<()> {
        let number = self.active.number;
        let mut born = self.active.born.clone();
        self.committing.iter().for_each(|delta| born.add_all(&delta.born));
        merged.known.iter().for_each(|inode| born.remove(*inode));
        // Nothing counts as swept any more: another writer may have given the file its name back.
        let active = std::mem::replace(&mut self.active, Delta { number, born, ..Delta::default() });
        let dead = std::mem::take(&mut self.truncations);
        let before = (self.tree, self.header, self.committing.take(), active);
        self.tree = tree;
        self.header = Some(header);
        for (key, change) in &merged.changes {
            self.set(key.clone(), change.clone());
        }
        self.take_truncations(truncations.clone());
        for (inode, only) in before.2.iter().flat_map(|delta| &delta.appended).chain(&before.3.appended) {
            *self.active.appended.entry(*inode).or_insert(true) &= only;
        }
        for (inode, pieces) in &merged.appended {
            self.active.appended.remove(inode);
            let appended = pieces.iter().try_for_each(|piece| self.append_anywhere(*inode, piece));
            if let Err(stop) = appended {
                (self.tree, self.header, self.committing, self.active) = before;
                self.truncations = dead;
                return Err(stop);
            }
        }
        for (theirs, ours) in &merged.forked {
            self.active.appended.remove(theirs);
            // What was open here was ours.
            if let Some(count) = self.references.remove(theirs) {
                self.references.insert(*ours, count);
                self.aliases.exchange(*theirs, *ours);
            }
        }
        for (from, to) in &merged.united {
            if let Some(count) = self.references.remove(from) {
                *self.references.entry(*to).or_insert(0) += count;
                self.aliases.unite(*from, *to);
            }
        }
        self.part_from_ghosts(returned, &dead);
        // What is cut off a ghost is on record in no tree that follows.
        let ghosts = &self.ghosts;
        self.truncations.extend(dead.into_iter().filter(|(inode, _)| ghosts.contains_key(inode)));
        self.reclaim.extend(&merged.reclaim);
        Ok(())
    }

    /// Appends, and removes first what of theirs is dead there: nobody else could, while changes wait for the merge.
    fn append_anywhere(&mut self, inode: u64, piece: &[u8]) -> Step<()> {
        loop {
            match self.append_accepted(inode, piece, false) {
                Err(Stop::Dead(..)) => drop(self.remove_dead(inode)?),
                other => return other.map(drop),
            }
        }
    }
}

impl Volume {
    /// Takes another writer's root over and puts our changes on top of it; nothing of them is lost. If it fails, all is
    /// as before.
    ///
    /// # Suspends
    ///
    /// While nodes of both trees are fetched. Changes wait meanwhile.
    pub(super) fn rebase(&self, root: &Root, record: &Record) -> Result<(), Errno> {
        self.check_charter(root)?;
        let closed = self.gate.close();
        let base = self.state.borrow().tree;
        let keys: Vec<Bytes> = {
            let state = self.state.borrow();
            let committing = state.committing.iter().flat_map(|delta| delta.changes.keys());
            let mut keys: Vec<Bytes> = committing
                .chain(state.active.changes.keys())
                .map(|key| Bytes::copy_from_slice(&key.encode()))
                .collect();
            keys.sort_unstable();
            keys
        };
        let compared =
            [base, root.tree].into_iter().flatten().try_for_each(|tree| self.prefetch(tree, &keys));
        let Under { removed, moved, returned } = match compared
            .and_then(|()| self.changed_under_us(base, root.tree))
        {
            // The nodes answer, and do not have what we stand on, or some of theirs: it was collected as garbage while we were
            // away, or it is lost. What is to be put on theirs needs it, and there is nothing.
            Err(Errno::EIO) if !self.state.borrow().has_changes() => {
                tracing::warn!(
                    "what this mount shows can't be compared with the drive as it is now: a part of either can't be read (it was \
                         collected as garbage while this mount was away, or is lost). It goes on with the drive as it is now; \
                         what is open here and was removed may not be readable any more"
                );
                self.missing_under_us(root.tree)?
            }
            under => under?,
        };
        let merged = self.merge(root.tree, Time::now())?;
        let truncations = self.read_truncations(root.tree)?;
        let sessions = self.sessions_in(root.tree)?;
        let written = self.written_by(root.tree, self.options.device)?;
        let dead = self.state.borrow().truncations.clone();
        let standing = self.lease.session.borrow().standing(&sessions);
        let charter = self.charter_after(root);
        self.step(|state| state.adopt(&merged, root.tree, record.header_hash, &truncations, &returned))?;
        self.base_on(record);
        // From here to the end of the block nothing suspends: what is in the active delta now is not committed before it is
        // known whether it is in doubt.
        self.on_sessions(sessions);
        self.on_heard_of(root);
        {
            let mut state = self.state.borrow_mut();
            let is_ahead = |written: WriterRecord| {
                written.session == self.session && written.delta > state.durability.newest()
            };
            if written.is_some_and(is_ahead) {
                // This is a copy of a mount that ran on, and the numbers that come next are its.
                state.next_inode = random_start();
                state.session = u64::from_le_bytes(random_bytes());
            }
            state.keep_ghosts(&removed, base, &dead);
            let (ours, theirs) = (state.charter.let_through(), root.charter.let_through());
            let State { doubt, ghosts, active, .. } = &mut *state;
            if doubt.on_root(ours, theirs, standing) {
                doubt.on_ghosts(ghosts.keys().copied());
                if active.changes.values().any(|change| doubt.of(change).is_some()) {
                    tracing::warn!(
                        "garbage was collected while the drive did not know of this mount: what it has yet to publish, and \
                         points to what was stored before, is stored anew"
                    );
                }
            }
            state.moved.extend(moved);
            state.charter = charter;
            state.objects = root.objects.clone();
        }
        drop(closed);
        tell_of_conflicts(&merged, &root.author);
        self.news.push((base, root.tree), merged.invalidations);
        // What was waiting has moved to the active delta, and stands on another root than the journal says.
        if let Some(journal) = &self.journal {
            journal.on_rebased();
        }
        {
            let mut state = self.state.borrow_mut();
            let newest = state.durability.newest();
            state.durability.want(newest);
        }
        self.after_removal();
        self.heed_collection();
        Ok(())
    }

    /// Another writer may have given the volume features meanwhile that we do not know.
    fn check_charter(&self, root: &Root) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        if root.charter.volume != state.charter.volume {
            tracing::error!("the register holds another volume than the one that was opened: open it anew");
            return Err(Errno::EIO);
        }
        let flags = root.charter.features.unwritable();
        if flags == 0 {
            return Ok(());
        }
        state.read_only = true;
        if state.committing.is_none() && state.active.changes.is_empty() {
            tracing::warn!(
                "a newer version gave the volume features (flags {flags:#x}) that forbid us to write"
            );
            return Ok(());
        }
        tracing::error!(
            "a newer version gave the volume features (flags {flags:#x}) that forbid us to write: what is not \
             stored yet cannot be; copy it elsewhere before this mount ends"
        );
        Err(Errno::EROFS)
    }

    /// Fetches the nodes on the paths to `keys`, which are ascending.
    fn prefetch(&self, tree: Pointer, keys: &[Bytes]) -> Result<(), Errno> {
        let mut level = vec![(tree, 0..keys.len())];
        while !level.is_empty() {
            let pointers: Vec<Pointer> = level.iter().map(|(pointer, _)| *pointer).collect();
            let nodes = CachedNodes(self).fetch(&pointers)?;
            let mut next = Vec::new();
            for (node, (_, range)) in nodes.into_iter().zip(level) {
                let mut at = range.start;
                while node.level() > 0 && at < range.end {
                    let index = node.child_index(&keys[at]);
                    let count = match index + 1 < node.len() {
                        true => keys[at..range.end]
                            .partition_point(|key| key.as_ref() < node.key(index + 1))
                            .max(1),
                        false => range.end - at,
                    };
                    if let Some(child) = node.child(index) {
                        next.push((child, at..at + count));
                    }
                    at += count;
                }
            }
            level = next;
        }
        Ok(())
    }

    /// Returns what theirs has done to inodes that the kernel refers to.
    fn changed_under_us(&self, base: Option<Pointer>, theirs: Option<Pointer>) -> Result<Under, Errno> {
        let mut under = Under::default();
        let is_known = |inode: &u64| self.state.borrow().references.contains_key(inode);
        let mut walk = Difference::new(base, theirs, &Key::Inode(1));
        while let Some(differing) = walk.next(&CachedNodes(self))? {
            let Differing { key, left, right } = differing;
            match Key::decode(&key) {
                Some(Key::Inode(inode)) => {
                    let rights = |record: &Bytes| {
                        InodeRecord::decode(record).map(|record| (record.mode, record.uid, record.gid))
                    };
                    if is_known(&inode) && left.as_ref().and_then(rights) != right.as_ref().and_then(rights) {
                        under.moved.push(inode);
                    }
                    match right {
                        Some(theirs) => self.note_returned(inode, &theirs, &mut under.returned)?,
                        None if is_known(&inode) => under.removed.push(inode),
                        None => {}
                    }
                }
                Some(Key::Entry(..)) => {
                    let named = left.as_ref().and_then(EntryRecord::decode).map(|entry| entry.inode);
                    under.moved.extend(named.filter(is_known));
                }
                _ => {}
            }
        }
        Ok(under)
    }

    /// As [`Volume::changed_under_us`], where it is not known what there was: all may have changed.
    fn missing_under_us(&self, theirs: Option<Pointer>) -> Result<Under, Errno> {
        let mut under = Under::default();
        let theirs = Side::new(self, theirs);
        let known: Vec<u64> = self.state.borrow().references.keys().copied().collect();
        for inode in known {
            let is_ghost = self.state.borrow().ghosts.contains_key(&inode);
            match theirs.record(inode)? {
                // Its own tree is older still.
                Some(record) if is_ghost && record.nlink > 0 => under.returned.same.push(inode),
                Some(_) => under.moved.push(inode),
                None => under.removed.push(inode),
            }
        }
        Ok(under)
    }

    /// Hands a root that the register names to the committer, which takes it over if it is another writer's.
    pub(super) fn offer(&self, record: Record) {
        if let Ok(root) = self.open_newer(&record) {
            *self.newer.borrow_mut() = Some((root, record));
            self.work.notify_all();
        }
    }

    /// Takes over what the watcher saw, if it is still news. The committer calls it: only it changes the tree.
    pub(super) fn take_newer(&self) -> Result<(), Errno> {
        let newer = self.newer.borrow_mut().take();
        match newer {
            Some((root, record)) if record.version > self.version.get() => {
                self.rebase(&root, &record)?;
                self.stand_on(&record);
                self.progress.notify_all();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Of how many copies each is told: what was done offline may be in conflict by the ten thousands.
const CONFLICTS_TOLD_MAX: usize = 20;

/// Tells of the copies that were made of what both sides had changed: whoever does not list the directory would not hear of them.
fn tell_of_conflicts(merged: &Merged, author: &str) {
    let more = merged.conflicts.len().saturating_sub(CONFLICTS_TOLD_MAX);
    for (name, copy) in merged.conflicts.iter().take(CONFLICTS_TOLD_MAX) {
        tracing::warn!(
            "{:?} was changed here and elsewhere (the drive was last stored by {}): what was made of it here is {:?}, beside it",
            Shown::of(name),
            Shown::of(author),
            Shown::of(copy)
        );
    }
    if more > 0 {
        tracing::warn!("{more} more were changed here and elsewhere: look for \"(conflict\" in names");
    }
}
