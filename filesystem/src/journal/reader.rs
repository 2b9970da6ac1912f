//! A journal file's records, read one by one. Which of them are of whole groups, the caller finds out.

use std::io;
use std::path::Path;

use reactor::fs::File;

use super::record::{HEADER_SIZE_LIMIT, Header, Item, RECORD_SIZE_LIMIT, open_header, open_record};
use super::{Journal, JournalError};

/// Reads a file's records one by one.
pub(super) struct Reader {
    file: File,
    key: [u8; 32],
    /// How many records were read.
    pub(super) record_count: u64,
    /// Where the next record begins.
    pub(super) offset: u64,
    /// It ended with a record that is all there, and is not what was written.
    pub(super) is_damaged: bool,
}

impl Reader {
    /// Opens a file; `None` if it is torn before its first record.
    pub(super) fn open(journal: &Journal, path: &Path) -> Result<Option<Reader>, JournalError> {
        let file = File::open(path).map_err(|error| journal.error(error))?;
        let start = read_at(&file, 0, HEADER_SIZE_LIMIT).map_err(|error| journal.error(error))?;
        match open_header(&start, &journal.register, &journal.secret) {
            Header::Ours(key, size) => {
                Ok(Some(Reader { file, key, record_count: 0, offset: size as u64, is_damaged: false }))
            }
            Header::Torn => {
                // What a crash leaves is shorter, or zeros: this was followed by records.
                if start.len() == HEADER_SIZE_LIMIT && start.iter().any(|byte| *byte != 0) {
                    journal.note_unread();
                }
                Ok(None)
            }
            Header::Foreign => Err(JournalError::Foreign(path.to_owned())),
            Header::OtherVersion => Err(JournalError::OtherVersion(path.to_owned())),
        }
    }

    /// Returns the next record's items, and whether it ends a group; `None` at the end, or where the file is torn.
    pub(super) fn next(&mut self, journal: &Journal) -> Result<Option<(Vec<Item>, bool)>, JournalError> {
        let read = |offset, size| read_at(&self.file, offset, size).map_err(|error| journal.error(error));
        let size = read(self.offset, 4)?;
        let Ok(size) = <[u8; 4]>::try_from(size.as_slice()) else { return Ok(None) };
        let size = u32::from_le_bytes(size) as usize;
        if size > RECORD_SIZE_LIMIT {
            self.is_damaged = true;
            return Ok(None);
        }
        let sealed = read(self.offset + 4, size)?;
        if sealed.len() < size {
            return Ok(None);
        }
        let Some(record) = open_record(&sealed, &self.key, self.record_count) else {
            self.is_damaged = sealed.iter().any(|byte| *byte != 0);
            return Ok(None);
        };
        self.record_count += 1;
        self.offset += 4 + sealed.len() as u64;
        Ok(Some(record))
    }
}

/// Reads `size` bytes, or what there is.
fn read_at(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut have = 0;
    while have < size {
        match file.read_at(&mut bytes[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}
