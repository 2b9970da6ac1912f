//! The [`Operations`] of a mount, each one step over the state.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Volume;
use super::content::{Part, ReadPlan, push_slice};
use super::holes::Seek;
use super::lease;
use super::names::NewNode;
use super::state::Change;
use crate::errno::Errno;
use crate::format::Key;
use crate::operations::{
    AllocateMode, Attributes, Credentials, DirectoryEntry, FileKind, Inode, Invalidation, NAME_SIZE_MAX,
    Operations, ReadBytes, RenameFlags, SetAttributes, Sharing, Statistics, Whence, XattrMode,
};

/// The unit of `df`'s block counts.
const STATISTICS_BLOCK_SIZE: u64 = 4096;
/// What a change without content takes on the nodes: some entries of leaves that are written anyway.
const SMALL_CHANGE_BYTES: usize = 512;

impl Volume {
    /// Returns what a plan says is to be read.
    fn read_planned(
        &self,
        plan: impl FnMut(&mut super::State) -> super::Step<ReadPlan>,
    ) -> Result<ReadBytes, Errno> {
        let plan = self.step(plan)?;
        if !plan.ahead.is_empty() {
            self.fetch_ahead(plan.ahead);
        }
        let wanted: SmallVec<[_; 4]> = plan
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Stored { piece, .. } => Some(**piece),
                Part::Ready(_) => None,
            })
            .collect();
        let mut fetched = match wanted.is_empty() {
            true => Vec::new(),
            false => self.fetch_pieces(&wanted)?,
        }
        .into_iter();
        let mut bytes = ReadBytes::new();
        for part in plan.parts {
            match part {
                Part::Ready(slice) => bytes.push(slice),
                Part::Stored { start, size, .. } => {
                    push_slice(&mut bytes, &fetched.next().ok_or(Errno::EIO)?, start, size);
                }
            }
        }
        Ok(bytes)
    }

    /// Reads as [`read`](Operations::read) does, by the number that the tree has.
    pub(super) fn read_content(&self, inode: u64, offset: u64, size: u32) -> Result<ReadBytes, Errno> {
        self.read_planned(|state| state.read(inode, offset, size))
    }

    /// Returns attributes as the kernel knows their inode.
    fn shown(&self, mut attributes: Attributes) -> Attributes {
        attributes.inode = self.number(attributes.inode);
        attributes
    }

    pub(super) fn number(&self, inode: Inode) -> Inode {
        Inode(self.state.borrow().aliases.number(inode.0))
    }
}

impl Operations for Volume {
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attributes, Errno> {
        let found = match self.step(|state| state.lookup(state.at(parent), name)) {
            // Another mount may have just made it.
            Err(Errno::ENOENT) if self.refresh() => self.step(|state| state.lookup(state.at(parent), name)),
            found => found,
        };
        let found = found?;
        self.state.borrow_mut().moved.remove(&found.inode.0);
        Ok(self.shown(found))
    }

    fn remember(&self, inode: Inode) {
        let mut state = self.state.borrow_mut();
        let inode = state.at(inode);
        *state.references.entry(inode).or_insert(0) += 1;
    }

    fn forget(&self, number: Inode, count: u64) {
        let mut state = self.state.borrow_mut();
        let inode = state.at(number);
        let Some(references) = state.references.get_mut(&inode) else { return };
        *references = references.saturating_sub(count);
        if *references > 0 {
            return;
        }
        state.references.remove(&inode);
        state.unclosed.remove(&number);
        state.moved.remove(&inode);
        if state.ghosts.remove(&inode).is_some() {
            // It says what is cut off the ghost, not off what the tree may have under this number.
            state.truncations.remove(&inode);
        }
        // Removed inodes are in a delta or on the list of orphans; most that are forgotten are neither.
        let removed =
            |change: Option<&Change>| matches!(change, Some(Change::Inode(record)) if record.nlink == 0);
        let key = Key::Inode(inode);
        let is_removed = match state.active.changes.get(&key) {
            Some(change) => removed(Some(change)),
            None => match &state.committing {
                Some(delta) if delta.changes.contains_key(&key) => removed(delta.changes.get(&key)),
                // Not changed lately: the tree knows, if its leaf is here; else the next mount cleans up.
                _ => matches!(state.get_stored(&key), Ok(Some(Change::Inode(record))) if record.nlink == 0),
            },
        };
        if is_removed {
            state.reclaim.push_back(inode);
            drop(state);
            self.reclaim.notify_all();
        }
    }

    fn attributes(&self, inode: Inode) -> Result<Attributes, Errno> {
        self.step(|state| Ok(state.record(state.at(inode))?.attributes(inode.0)))
    }

    fn set_attributes(&self, inode: Inode, changes: &SetAttributes) -> Result<Attributes, Errno> {
        // What is cut to nothing, as a rule by `O_TRUNC`, is about to be written.
        let is_closed_later = changes.size == Some(0) || self.is_being_written(inode);
        let attributes = self.change_inode(inode, |state, inode| state.set_attributes(inode, changes))?;
        if changes.size == Some(0) {
            self.note_unclosed(inode);
        }
        self.after_removal();
        self.publish_unless_closed_later(is_closed_later)?;
        Ok(self.shown(attributes))
    }

    fn make_node(
        &self,
        parent: Inode,
        name: &[u8],
        kind: FileKind,
        mode: u32,
        rdev: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        if matches!(kind, FileKind::Directory | FileKind::Symlink) {
            return Err(Errno::EINVAL);
        }
        self.make_room(SMALL_CHANGE_BYTES)?;
        let node = NewNode { kind, mode, rdev, target: &[] };
        let made = self.change(|state| state.make(state.at(parent), name, &node, credentials))?;
        let is_closed_later = kind == FileKind::Regular;
        if is_closed_later {
            self.note_unclosed(made.inode);
        }
        self.publish_unless_closed_later(is_closed_later)?;
        Ok(made)
    }

    fn make_unnamed(
        &self,
        directory: Inode,
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        self.make_room(SMALL_CHANGE_BYTES)?;
        self.change(|state| state.make_unnamed(state.at(directory), mode, credentials))
    }

    fn make_directory(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        self.make_room(SMALL_CHANGE_BYTES)?;
        let node = NewNode { kind: FileKind::Directory, mode, rdev: 0, target: &[] };
        let made = self.change(|state| state.make(state.at(parent), name, &node, credentials))?;
        self.publish_changes()?;
        Ok(made)
    }

    fn make_symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        self.make_room(SMALL_CHANGE_BYTES)?;
        let node = NewNode { kind: FileKind::Symlink, mode: 0o777, rdev: 0, target };
        // The umask is not for symlinks.
        let credentials = Credentials { umask: 0, ..*credentials };
        let made = self.change(|state| state.make(state.at(parent), name, &node, &credentials))?;
        self.publish_changes()?;
        Ok(made)
    }

    fn read_symlink(&self, inode: Inode) -> Result<Bytes, Errno> {
        self.step(|state| state.read_symlink(state.at(inode)))
    }

    fn link(&self, inode: Inode, new_parent: Inode, new_name: &[u8]) -> Result<Attributes, Errno> {
        self.make_room(SMALL_CHANGE_BYTES)?;
        let linked =
            self.change_inode(inode, |state, inode| state.link(inode, state.at(new_parent), new_name))?;
        self.publish_changes()?;
        Ok(self.shown(linked))
    }

    fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        self.refuse_change_if_shut()?;
        self.look_before_removal();
        self.change(|state| state.unlink(state.at(parent), name))?;
        self.after_removal();
        self.publish_changes()?;
        Ok(())
    }

    fn remove_directory(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        self.refuse_change_if_shut()?;
        self.look_before_removal();
        self.change(|state| state.remove_directory(state.at(parent), name))?;
        self.after_removal();
        self.publish_changes()?;
        Ok(())
    }

    fn rename(
        &self,
        parent: Inode,
        name: &[u8],
        new_parent: Inode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        self.change(|state| state.rename(state.at(parent), name, state.at(new_parent), new_name, flags))?;
        self.after_removal();
        self.publish_changes()?;
        Ok(())
    }

    fn read(&self, inode: Inode, offset: u64, size: u32) -> Result<ReadBytes, Errno> {
        self.read_planned(|state| state.read(state.at(inode), offset, size))
    }

    fn write(&self, inode: Inode, offset: u64, data: &[u8], clear_set_ids: bool) -> Result<(), Errno> {
        self.make_room(data.len())?;
        self.change_inode(inode, |state, inode| state.write(inode, offset, data, clear_set_ids))?;
        self.note_unclosed(inode);
        Ok(())
    }

    fn append(&self, inode: Inode, data: &[u8], clear_set_ids: bool) -> Result<u64, Errno> {
        self.refuse_change_if_shut()?;
        self.refresh();
        self.make_room(data.len())?;
        let offset = self.change_inode(inode, |state, inode| state.append(inode, data, clear_set_ids))?;
        self.note_unclosed(inode);
        Ok(offset)
    }

    fn open(&self, inode: Inode) -> Result<(), Errno> {
        let has_news = self.refresh() || self.has_invalidations();
        let is_moved = {
            let mut state = self.state.borrow_mut();
            let inode = state.at(inode);
            state.moved.remove(&inode)
        };
        match self.step(|state| state.record(state.at(inode))) {
            Ok(record) if !is_moved && (record.nlink > 0 || !has_news) => Ok(()),
            // Another mount has removed it, or renamed it, or put another file in its place, as editors do; or it may be
            // opened by others than the kernel knows. The kernel looks again.
            Ok(_) | Err(Errno::ENOENT) => Err(Errno::ESTALE),
            Err(errno) => Err(errno),
        }
    }

    fn flush(&self, inode: Inode) -> Result<(), Errno> {
        self.look_for_lost(Some(inode), false);
        self.state.borrow_mut().unclosed.remove(&inode);
        let number = self.dirty_delta(inode);
        if number == 0 {
            return Ok(());
        }
        self.refuse_if_shut(number)?;
        match self.sharing() {
            Sharing::WithOthers => {
                self.sync_closed(number)?;
                // Another that believes that it is alone would not look.
                self.wait_until_settled();
            }
            Sharing::Leased => self.note_closed(number)?,
            // It will be tried again, but not be said again: whoever closes a file should know.
            Sharing::Alone => {
                let trouble = self.state.borrow().durability.trouble();
                trouble.map_or(Ok(()), |trouble| Err(trouble.errno))?;
            }
        }
        self.refuse_if_lost(Some(inode))
    }

    fn read_directory(
        &self,
        inode: Inode,
        cookie: u64,
        count_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirectoryEntry>, Errno> {
        let mut entries = self.step(|state| state.list(state.at(inode), cookie, count_max))?;
        for entry in &mut entries {
            entry.inode = self.number(entry.inode);
        }
        if with_attributes {
            for entry in entries.iter_mut().filter(|entry| !matches!(entry.name.as_ref(), b"." | b"..")) {
                // It may have been removed while another's attributes were fetched; it may be damaged, not be here, or of
                // a kind that only a later version knows. Whoever asks for it by name hears of that, the others are listed.
                entry.attributes = match self.attributes(entry.inode) {
                    Err(Errno::ENOENT | Errno::EIO | Errno::EHOSTUNREACH) => None,
                    attributes => Some(attributes?),
                };
            }
        }
        Ok(entries)
    }

    fn sync(&self, inode: Option<Inode>, _data_only: bool) -> Result<(), Errno> {
        self.look_for_lost(inode.filter(|inode| *inode != Inode::ROOT), false);
        self.refuse_if_undone()?;
        match inode {
            // `fsync` of the mountpoint stands for `syncfs`, which the kernel does not pass on.
            None | Some(Inode::ROOT) => {
                let newest = self.state.borrow().durability.newest();
                self.sync_or_say_that_nobody_answers(newest)?;
                self.refuse_if_lost(None)?;
            }
            Some(file) => {
                let number = self.dirty_delta(file);
                if number > 0 {
                    self.sync_or_say_that_nobody_answers(number)?;
                }
                self.refuse_if_lost(inode)?;
                if number == 0 {
                    return Ok(());
                }
            }
        }
        self.wait_until_settled();
        self.refuse_if_undone()
    }

    fn allocate(&self, inode: Inode, mode: AllocateMode, offset: u64, length: u64) -> Result<(), Errno> {
        self.refuse_change_if_shut()?;
        if !mode.punch_hole && !mode.zero_range {
            let free = self.statistics()?.free_block_count * STATISTICS_BLOCK_SIZE;
            // What is there already needs no room, and an overestimate refuses only what nearly fills the drive.
            let allocated = self.attributes(inode)?.blocks_512 * 512;
            if length.saturating_sub(allocated) > free {
                return Err(Errno::ENOSPC);
            }
        }
        self.make_room(SMALL_CHANGE_BYTES)?;
        self.change_inode(inode, |state, inode| state.allocate(inode, mode, offset, length))?;
        self.note_unclosed(inode);
        self.after_removal();
        self.publish_unless_closed_later(true)
    }

    fn seek(&self, inode: Inode, mut offset: u64, whence: Whence) -> Result<u64, Errno> {
        loop {
            match self.step(|state| state.seek(state.at(inode), offset, whence))? {
                Seek::Found(offset) => return Ok(offset),
                Seek::NotBefore(next) => offset = next,
            }
            reactor::yield_now();
        }
    }

    fn statistics(&self) -> Result<Statistics, Errno> {
        let usage = match (self.store.usage(), self.last_usage.get()) {
            (Ok(usage), _) => usage,
            // `df` and every program that looks for room before it writes go on while nodes are away.
            (Err(error), Some(usage)) => {
                tracing::debug!(%error, "the store's usage is not known: showing the last");
                usage
            }
            (Err(error), None) => {
                tracing::debug!(%error, "the store's usage is not known");
                return Err(Errno::ETIMEDOUT);
            }
        };
        self.last_usage.set(Some(usage));
        let free = usage.total_bytes.saturating_sub(usage.used_bytes) / STATISTICS_BLOCK_SIZE;
        Ok(Statistics {
            block_size: STATISTICS_BLOCK_SIZE as u32,
            block_count: usage.total_bytes / STATISTICS_BLOCK_SIZE,
            free_block_count: free,
            // A file takes some hundred bytes: what limits their number is space.
            inode_count: usage.total_bytes / STATISTICS_BLOCK_SIZE,
            free_inode_count: free,
            name_size_max: NAME_SIZE_MAX as u32,
        })
    }

    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Bytes, Errno> {
        self.step(|state| state.get_xattr(state.at(inode), name))
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        self.make_room(SMALL_CHANGE_BYTES + value.len())?;
        let is_closed_later = self.is_being_written(inode);
        self.change_inode(inode, |state, inode| state.set_xattr(inode, name, value, mode))?;
        self.publish_unless_closed_later(is_closed_later)?;
        Ok(())
    }

    fn list_xattr(&self, inode: Inode) -> Result<Vec<Bytes>, Errno> {
        self.step(|state| state.list_xattr(state.at(inode)))
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), Errno> {
        self.change_inode(inode, |state, inode| state.remove_xattr(inode, name))?;
        self.publish_changes()?;
        Ok(())
    }

    fn sharing(&self) -> Sharing {
        match self.options.watch_interval {
            Some(_) if self.is_shut() => Sharing::WithOthers,
            Some(_) => match self.lease.session.borrow().alone_for(lease::now()) {
                Some(left) if left >= Duration::from_secs(1) => Sharing::Leased,
                _ => Sharing::WithOthers,
            },
            None => Sharing::Alone,
        }
    }

    fn has_invalidations(&self) -> bool {
        !self.news.is_empty()
    }

    fn next_invalidation(&self) -> Option<Invalidation> {
        self.next_news()
    }
}
