//! What a file holds: as programs see it, and as the disk would after a crash. Pure.
//!
//! The kernel keeps writes in its page cache and brings them to the disk when it likes, so after a crash each write
//! since the last sync may be there, or not, or be torn between two sectors.

/// What a disk writes as one: none of it or all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// A change that has not been synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Write { offset: usize, len: usize },
    SetLen(usize),
}

/// What becomes of a change in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The kernel had brought it to the disk.
    Kept,
    /// It is gone.
    Lost,
    /// Of the sectors that it touches so many are there, the first ones.
    Torn(usize),
}

/// A file's bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

impl Content {
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// The bytes from `offset` on, at most `len` of them.
    pub(crate) fn read(&self, offset: u64, len: usize) -> &[u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.live.len());
        &self.live[start..self.live.len().min(start.saturating_add(len))]
    }

    /// Writes as the kernel does: a gap before it reads as zeros.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.live, offset, bytes);
        self.changes.push(Change::Write { offset, len: bytes.len() });
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        self.live.resize(len, 0);
        self.changes.push(Change::SetLen(len));
    }

    /// Brings everything to the disk.
    pub(crate) fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            self.apply(change, usize::MAX);
        }
        // A write that a later truncation cut had nothing left to copy: the lengths settle it.
        self.durable.resize(self.live.len(), 0);
    }

    /// A sync failed: the kernel forgets that the changes were not written, and never tries again.
    pub(crate) fn sync_failed(&mut self) {
        self.changes.clear();
    }

    /// Changes that a crash may undo.
    pub(crate) fn unsynced_count(&self) -> usize {
        self.changes.len()
    }

    /// Bytes that the change of this index writes.
    pub(crate) fn unsynced_sectors(&self, index: usize) -> usize {
        match self.changes[index] {
            Change::Write { offset, len } if len > 0 => {
                (offset + len - 1) / SECTOR_BYTES - offset / SECTOR_BYTES + 1
            }
            _ => 1,
        }
    }

    /// The power goes: each unsynced change has its fate, in their order.
    pub(crate) fn crash(&mut self, fates: impl IntoIterator<Item = Fate>) {
        let changes = std::mem::take(&mut self.changes);
        for (change, fate) in changes.into_iter().zip(fates) {
            match fate {
                Fate::Kept => self.apply(change, usize::MAX),
                Fate::Lost => {}
                Fate::Torn(sectors) => self.apply(change, sectors),
            }
        }
        self.live.clone_from(&self.durable);
    }

    /// Copies what the change wrote to the disk, or the first of its sectors.
    fn apply(&mut self, change: Change, sectors: usize) {
        match change {
            Change::SetLen(len) => self.durable.resize(len, 0),
            Change::Write { offset, len } => {
                let boundary = (offset / SECTOR_BYTES).saturating_add(sectors).saturating_mul(SECTOR_BYTES);
                // What a later change has overwritten in the cache goes to the disk as it is now.
                let end = (offset + len).min(boundary).min(self.live.len());
                if offset < end {
                    let bytes = self.live[offset..end].to_vec();
                    put(&mut self.durable, offset, &bytes);
                }
            }
        }
    }
}

fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_crash_undoes_what_was_not_synced_and_nothing_else() {
        let mut content = Content::default();
        content.write(0, b"synced");
        content.sync();
        content.write(6, b" and not");
        assert_eq!(content.read(0, 100), b"synced and not");
        content.crash([Fate::Lost]);
        assert_eq!(content.read(0, 100), b"synced");
        content.write(2, b"xx");
        content.crash([Fate::Kept]);
        assert_eq!(content.read(0, 100), b"syxxed");
    }

    #[test]
    fn a_torn_write_ends_at_a_sector() {
        let mut content = Content::default();
        content.write(0, &[1; 1000]);
        content.sync();
        content.write(100, &[2; 900]);
        assert_eq!(content.unsynced_sectors(0), 2);
        content.crash([Fate::Torn(1)]);
        let expected: Vec<u8> = [vec![1; 100], vec![2; 412], vec![1; 488]].concat();
        assert_eq!(content.read(0, 2000), expected);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next() {
        let mut content = Content::default();
        content.write(0, b"old");
        content.sync();
        content.write(0, b"new");
        content.sync_failed();
        content.write(3, b"er");
        assert_eq!(content.read(0, 10), b"newer");
        content.crash([Fate::Kept]);
        assert_eq!(content.read(0, 10), b"older");
    }

    proptest! {
        #[test]
        fn synced_content_survives_every_crash(
            writes in prop::collection::vec((0usize..2000, 1usize..1500, any::<u8>(), any::<bool>()), 0..12),
            fates in prop::collection::vec(0usize..5, 0..12),
        ) {
            let mut content = Content::default();
            let mut model = Vec::new();
            for &(offset, len, byte, truncate) in &writes {
                if truncate {
                    content.set_len(len);
                    model.resize(len, 0);
                } else {
                    content.write(offset, &vec![byte; len]);
                    put(&mut model, offset, &vec![byte; len]);
                }
            }
            prop_assert_eq!(content.read(0, usize::MAX), &model[..]);
            content.sync();
            content.crash([]);
            prop_assert_eq!(content.read(0, usize::MAX), &model[..]);
            // Unsynced, every byte is an old one or a new one.
            let new = vec![255; 3000];
            content.write(0, &new);
            content.crash(fates.into_iter().map(Fate::Torn).chain([Fate::Lost]).take(1));
            for (at, byte) in content.read(0, usize::MAX).iter().enumerate() {
                prop_assert!(*byte == 255 || model.get(at) == Some(byte));
            }
        }
    }
}
