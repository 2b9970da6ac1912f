//! Files in a merge: content goes whole to one side or the other, and what has no name is kept as long as it is open.

use super::Merge;
use super::records::{Content, is_content_changed};
use super::sides::record_of;
use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key, Orphan};
use crate::operations::{FileKind, Time};
use crate::volume::state::{Change, extent_range, xattr_range};

/// Appended bytes are read in pieces of this size: what one frame request brings.
const PIECE_SIZE: u64 = 1024 * 1024;

impl Merge<'_> {
    /// Decides what becomes of our content of a file: where theirs changed too it goes to a file of its own, and where
    /// theirs removed the file it gets a name again.
    pub(super) fn split(&mut self, inode: u64) -> Result<(), Errno> {
        let Some(ours) = record_of(self.ours.get(&Key::Inode(inode))) else { return Ok(()) };
        if ours.kind != FileKind::Regular {
            return Ok(());
        }
        let base = self.base.record(inode)?;
        let stored = self.theirs.record(inode)?;
        match Content::of(Some(&ours), base.as_ref(), stored.as_ref()) {
            Content::Theirs => Ok(()),
            Content::Both => {
                let is_named = stored.is_some_and(|stored| stored.nlink > 0);
                match (self.only_appended.get(&inode), &base) {
                    (Some(true), Some(base)) if is_named && ours.nlink > 0 => {
                        self.append(inode, base.size, ours.size)?
                    }
                    _ => self.fork(inode, ours)?,
                }
                // What is left of the inode is theirs alone.
                self.forget_changes(inode);
                Ok(())
            }
            // Removed by both, and open on both sides: from here on it is two files.
            Content::Ours if ours.nlink == 0 => match (base, stored) {
                (Some(base), Some(stored)) if base.nlink > 0 && stored.nlink == 0 => {
                    self.fork(inode, ours)?;
                    self.forget_changes(inode);
                    Ok(())
                }
                _ => Ok(()),
            },
            Content::Ours => {
                let theirs =
                    stored.filter(|stored| stored.nlink > 0).map_or(0, |stored| i64::from(stored.nlink));
                let names = theirs + self.names.get(&inode).copied().unwrap_or(0);
                if names > 0 || base.is_none() {
                    return Ok(());
                }
                // They removed it, and our acknowledged writes have no name any more.
                let key = self.name_of_lost(inode, &ours)?;
                self.apply(&key, Some(EntryRecord::new(inode, ours.kind)))
            }
        }
    }

    /// Keeps what we appended, to be appended to theirs.
    fn append(&mut self, inode: u64, from: u64, end: u64) -> Result<(), Errno> {
        let mut pieces = Vec::new();
        let mut at = from;
        while at < end {
            let size = PIECE_SIZE.min(end - at);
            pieces.extend(self.volume.read_content(inode, at, size as u32)?);
            at += size;
        }
        self.merged.appended.push((inode, pieces));
        Ok(())
    }

    /// Makes our state of a file a new file of ours.
    ///
    /// Only keys are copied: what is stored is shared.
    fn fork(&mut self, inode: u64, ours: InodeRecord) -> Result<(), Errno> {
        if ours.nlink == 0 && !self.is_referenced(inode) {
            return Ok(());
        }
        let new = self.volume.state.borrow_mut().draw_inode();
        let copied = self.content_of(inode, new)?;
        self.ours.extend(copied);
        let mut record = ours;
        if record.nlink == 0 {
            let orphan = self.orphan(record.ctime);
            self.ours.insert(Key::Orphan(new), Change::Orphan(orphan));
        } else {
            let key = self.name_of_lost(inode, &record)?;
            if let Key::Entry(directory, ..) = &key {
                record.parent = *directory;
            }
            record.nlink = 1;
            self.apply(&key, Some(EntryRecord::new(new, record.kind)))?;
        }
        self.ours.insert(Key::Inode(new), Change::Inode(record));
        self.merged.forked.push((inode, new));
        Ok(())
    }

    /// Returns our whole state of an inode's content and extended attributes, as changes of `to`.
    fn content_of(&self, inode: u64, to: u64) -> Result<Vec<(Key, Change)>, Errno> {
        let mut all = Vec::new();
        for range in [xattr_range(inode), extent_range(inode, 0)] {
            let mut scan = self.base.scan(range);
            while let Some((key, change)) = scan.next()? {
                if !self.ours.contains_key(&key) {
                    all.push((key.moved(to), change));
                }
            }
        }
        let truncation = Key::Truncation(inode);
        if !self.ours.contains_key(&truncation)
            && let Some(change) = self.base.get(&truncation)?
        {
            all.push((truncation.moved(to), change));
        }
        let ours = self.ours.range(Key::Inode(inode)..=Key::Extent(inode, u64::MAX));
        let ours = ours.chain(self.ours.get_key_value(&truncation));
        all.extend(
            ours.filter(|(key, change)| is_content(key) && !matches!(change, Change::Removed))
                .map(|(key, change)| (key.moved(to), change.clone())),
        );
        Ok(all)
    }

    /// Brings an inode that theirs does not have to our whole state of it.
    pub(super) fn copy_content(&mut self, inode: u64) -> Result<(), Errno> {
        let content = self.content_of(inode, inode)?;
        self.result.extend(content);
        Ok(())
    }

    /// Puts our changes of an inode on theirs: extended attributes always, content only if theirs is the base's.
    pub(super) fn keep_changes(
        &mut self,
        inode: u64,
        content: Content,
        base: Option<&InodeRecord>,
        stored: Option<&InodeRecord>,
    ) {
        // Pieces of a truncation that goes on come without a change of the record.
        let with_content =
            content == Content::Ours || stored.is_some_and(|stored| !is_content_changed(base, stored));
        let ours = self.ours.range(Key::Inode(inode)..=Key::Extent(inode, u64::MAX));
        let ours = ours.chain(self.ours.get_key_value(&Key::Truncation(inode)));
        let kept = ours.filter(|(key, _)| match key {
            Key::Xattr(..) => true,
            key => with_content && is_content(key),
        });
        self.result.extend(kept.map(|(key, change)| (key.clone(), change.clone())));
    }

    fn forget_changes(&mut self, inode: u64) {
        let range = Key::Inode(inode)..=Key::Extent(inode, u64::MAX);
        let keys: Vec<Key> = self.ours.range(range).map(|(key, _)| key.clone()).collect();
        for key in keys.into_iter().chain([Key::Truncation(inode), Key::Orphan(inode)]) {
            self.ours.remove(&key);
        }
    }

    fn orphan(&self, since: Time) -> Orphan {
        self.volume.state.borrow().orphan_record(since)
    }

    /// Nobody names it: it lives on only where it is open.
    pub(super) fn without_name(
        &mut self,
        inode: u64,
        ours: Option<Change>,
        base: Option<InodeRecord>,
        stored: Option<InodeRecord>,
    ) -> Result<(), Errno> {
        let key = Key::Orphan(inode);
        let kept_by_them = self.theirs.get(&key)?;
        let is_theirs =
            |orphan: &Change| matches!(orphan, Change::Orphan(orphan) if orphan.device != self.device);
        if kept_by_them.as_ref().is_some_and(is_theirs)
            && !is_same_orphan(&kept_by_them, &self.base.get(&key)?)
        {
            // Removed and open there: they know when it goes.
            return Ok(());
        }
        match (ours, stored) {
            // It is nowhere, and nobody here has it open.
            (_, None) if !self.is_referenced(inode) => {}
            (Some(Change::Inode(mut record)), None) => {
                record.nlink = 0;
                self.copy_content(inode)?;
                self.result.insert(key, Change::Orphan(self.orphan(record.ctime)));
                self.result.insert(Key::Inode(inode), Change::Inode(record));
            }
            (_, None) => {}
            (Some(Change::Removed), Some(_)) => self.remove(inode)?,
            (Some(Change::Inode(mut record)), Some(stored)) => {
                let content = Content::of(Some(&record), base.as_ref(), Some(&stored));
                self.keep_changes(inode, content, base.as_ref(), Some(&stored));
                record.nlink = 0;
                self.keep_orphan(inode, record);
            }
            (_, Some(mut record)) => {
                record.nlink = 0;
                self.keep_orphan(inode, record);
            }
        }
        Ok(())
    }

    fn keep_orphan(&mut self, inode: u64, record: InodeRecord) {
        self.result.insert(Key::Orphan(inode), Change::Orphan(self.orphan(record.ctime)));
        self.result.insert(Key::Inode(inode), Change::Inode(record));
        if !self.is_referenced(inode) {
            self.merged.reclaim.push(inode);
        }
    }

    /// Removes all of an inode that we removed, and what they added to it meanwhile.
    fn remove(&mut self, inode: u64) -> Result<(), Errno> {
        let ours = self.ours.range(Key::Inode(inode)..=Key::Extent(inode, u64::MAX));
        let ours = ours.filter(|(key, _)| !matches!(key, Key::Entry(..)));
        let removed: Vec<(Key, Change)> = ours.map(|(key, change)| (key.clone(), change.clone())).collect();
        self.result.extend(removed);
        let mut attributes = self.theirs.scan(xattr_range(inode));
        while let Some((key, _)) = attributes.next()? {
            self.result.insert(key, Change::Removed);
        }
        for key in [Key::Orphan(inode), Key::Truncation(inode)] {
            if self.theirs.get(&key)?.is_some() {
                self.result.insert(key, Change::Removed);
            }
        }
        Ok(())
    }
}

fn is_same_orphan(theirs: &Option<Change>, base: &Option<Change>) -> bool {
    matches!((theirs, base), (Some(Change::Orphan(theirs)), Some(Change::Orphan(base))) if theirs == base)
}

/// Whether a key belongs to what a file holds, rather than to its record or its names.
fn is_content(key: &Key) -> bool {
    matches!(key, Key::Xattr(..) | Key::Extent(..) | Key::Truncation(_))
}
