//! The newest segment: the one that is written to.
//!
//! Each segment says in its header where the one before it ended, so that what a crash or a failing disk left behind
//! that end never counts, even if it could not be cut off.

use super::{
    Key, StoreError,
    checkpoint::Listing,
    device::{DiskFile, Opening, write_all},
    directory::Directory,
    format::{self, SEGMENT_HEADER_BYTES, SegmentHeader},
    scan::{Listed, Scanned},
};
use std::{
    collections::HashMap,
    io::{self, IoSlice},
    sync::Arc,
};

/// The newest segment.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next record goes. Everything before it is durable.
    pub(crate) end: u32,
    pub(crate) listed: HashMap<Key, Listed>,
    /// Records that no contents record names yet, in order.
    pub(crate) unlisted: Vec<Listed>,
}

impl Active {
    pub(crate) fn new(
        number: u32,
        file: Arc<dyn DiskFile>,
        end: u32,
        entries: Vec<Listed>,
        unlisted: Vec<Listed>,
    ) -> Active {
        let listed = entries.into_iter().map(|entry| (entry.key, entry)).collect();
        Active { number, file, end, listed, unlisted }
    }

    /// Makes the file of a new, empty segment, durably, after the one of this number and end.
    ///
    /// An error comes with whether the new segment's header may be on the disk all the same. Then it says for good
    /// where the one before it ended, and that one must not grow any more.
    pub(crate) fn begin(
        directory: &Directory,
        salt: u64,
        previous: Option<(u32, u32)>,
    ) -> Result<Active, (bool, StoreError)> {
        let mut number = previous.map_or(0, |(number, _)| number + 1);
        let file = loop {
            match directory.open_segment(number, Opening::New) {
                // Left by an attempt that failed half-way, and could not be removed then.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                file => break file,
            }
        };
        let path = directory.segment_path(number);
        let fail = |error| StoreError::io("begin", &path, error);
        let begin = || {
            let file = file.map_err(|error| (false, fail(error)))?;
            let header = format::encode_segment_header(&SegmentHeader { segment: number, salt, previous });
            // A part of a header is none.
            write_all(&*file, &mut [IoSlice::new(&header)], 0).map_err(|(_, error)| (false, fail(error)))?;
            file.sync_all().map_err(|error| (true, fail(error)))?;
            directory.sync().map_err(|error| (true, error))?;
            Ok(file)
        };
        match begin() {
            Ok(file) => {
                let end = SEGMENT_HEADER_BYTES as u32;
                Ok(Active::new(number, file, end, Vec::new(), Vec::new()))
            }
            Err(error) => {
                let _ = directory.disk().remove(&path);
                Err(error)
            }
        }
    }

    /// Cuts off whatever lies behind the last good record.
    pub(crate) fn cut(&self) -> io::Result<()> {
        self.file.set_length(u64::from(self.end))
    }

    pub(crate) fn listing(&self) -> Listing {
        let records = self.listed.values().copied().collect();
        Listing::from(Scanned { records, end: self.end, ..Scanned::default() })
    }
}
