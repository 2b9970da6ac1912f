//! From a directory, in whatever state a crash left it, to an index and a segment to write to.
//!
//! Blocking code, for a thread of the pool. For every segment the checkpoint is taken if it is sound; otherwise the
//! segment is scanned. Only the newest segment can have a torn tail, which is cut off; a checkpoint that was missing
//! is made. A segment in which damage was found is not written to any more.

use super::{
    Damage, StoreError,
    checkpoint::{self, Listing},
    device::{Disk, DiskFile, Opening},
    directory::Directory,
    format::{self, SEGMENT_HEADER_BYTES, SegmentHeaderError},
    index::Index,
    reserve::Reserve,
    scan,
    writer::Active,
};
use std::{io, path::Path, sync::Arc};

/// The longest checkpoint that is read: that of a segment of nothing but empty records, twice over.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 32;

/// What opening a store found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// How many segments there are.
    pub segment_count: usize,
    /// How many of them had to be scanned for want of a sound checkpoint; one, the newest, always is.
    pub scanned_count: usize,
    /// Bytes of unacknowledged writes that the last crash tore and that were cut off.
    pub torn_bytes: u64,
    /// Damage that scanning found.
    pub damages: Vec<Damage>,
}

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) directory: Arc<Directory>,
    pub(crate) salt: u64,
    pub(crate) index: Index,
    pub(crate) active: Active,
    pub(crate) reserve: Reserve,
    pub(crate) recovery: Recovery,
}

/// Locks and reads a store, making it if there is none.
pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Opened, StoreError> {
    let directory = Arc::new(Directory::open(disk, path)?);
    let mut segments = directory.segments()?;
    let salt = find_salt(&directory, &mut segments)?;
    let mut recovery = Recovery { segment_count: segments.len(), ..Recovery::default() };
    let mut listings = Vec::with_capacity(segments.len() + 1);
    let mut active = None;
    for (n, segment) in segments.iter().copied().enumerate() {
        let is_last = n + 1 == segments.len();
        let checkpoint = read_checkpoint(&directory, segment, salt);
        if let Some(listing) = checkpoint {
            listings.push((segment, listing, true));
            continue;
        }
        recovery.scanned_count += 1;
        let (file, scanned, is_sound) = scan_segment(&directory, segment, salt, is_last)?;
        recovery.damages.extend(scanned.damages.iter().cloned());
        let (end, torn_bytes, is_sound) =
            (scanned.end, scanned.torn_bytes, is_sound && scanned.damages.is_empty());
        let listing = Listing::from(scanned);
        if is_last && is_sound {
            recovery.torn_bytes = torn_bytes;
            let cut = file.set_length(u64::from(end)).and_then(|()| file.sync_all());
            cut.map_err(|error| StoreError::io("cut", directory.segment_path(segment), error))?;
            active = Some(Active::new(segment, file, end, listing.entries.clone()));
        } else {
            file.sync_all()
                .map_err(|error| StoreError::io("sync", directory.segment_path(segment), error))?;
            // Only a help for the next start; a full disk may refuse it.
            let _ = directory.write_checkpoint(segment, &checkpoint::encode(segment, salt, &listing));
        }
        let is_active = active.is_some();
        listings.push((segment, listing, !is_active));
    }
    let active = match active {
        Some(active) => active,
        None => {
            let number = segments.last().map_or(0, |last| last + 1);
            let active = Active::begin(&directory, number, salt)?;
            listings.push((
                number,
                Listing { end: SEGMENT_HEADER_BYTES as u32, ..Listing::default() },
                false,
            ));
            active
        }
    };
    let reserve = Reserve::open(directory.clone());
    Ok(Opened { directory, salt, index: Index::build(listings), active, reserve, recovery })
}

/// Reads the salt from any segment's header. A newest segment that was only being made is removed.
fn find_salt(directory: &Directory, segments: &mut Vec<u32>) -> Result<u64, StoreError> {
    if let Some(last) = segments.last().copied() {
        let path = directory.segment_path(last);
        let header = read_header(directory, last)?;
        let length = directory.open_segment(last, Opening::Read).and_then(|file| file.length_bytes());
        let length = length.map_err(|error| StoreError::io("look at", &path, error))?;
        if header.is_err() && length <= SEGMENT_HEADER_BYTES as u64 {
            directory.delete(last)?;
            segments.pop();
        }
    }
    let mut first_fault = None;
    let mut flipped = None;
    for segment in segments.iter() {
        let path = directory.segment_path(*segment);
        match read_header(directory, *segment)? {
            Ok((_, salt)) => return Ok(salt),
            Err((SegmentHeaderError::Version(version), _)) => {
                let reason = SegmentHeaderError::Version(version).to_string();
                return Err(StoreError::Unknown { path, reason });
            }
            Err((fault, bytes)) => {
                flipped = flipped.or_else(|| format::decode_flipped_segment_header(&bytes));
                first_fault.get_or_insert((path, fault));
            }
        }
    }
    match (first_fault, flipped) {
        (_, Some((_, salt))) => Ok(salt),
        (Some((path, fault)), None) => Err(StoreError::Unknown { path, reason: fault.to_string() }),
        (None, None) => Ok(u64::from_le_bytes(reactor::crypto::random_bytes())),
    }
}

type Header = Result<(u32, u64), (SegmentHeaderError, Vec<u8>)>;

fn read_header(directory: &Directory, segment: u32) -> Result<Header, StoreError> {
    let read = || {
        let file = directory.open_segment(segment, Opening::Read)?;
        read_start(&*file, SEGMENT_HEADER_BYTES as u64)
    };
    let bytes = read().map_err(|error| StoreError::io("read", directory.segment_path(segment), error))?;
    Ok(format::decode_segment_header(&bytes).map_err(|fault| (fault, bytes)))
}

/// A file's first bytes, up to `count_max` of them.
fn read_start(file: &dyn DiskFile, count_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.length_bytes()?.min(count_max) as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A segment's checkpoint, if it is sound and speaks of no more than the segment has.
fn read_checkpoint(directory: &Directory, segment: u32, salt: u64) -> Option<Listing> {
    let file = directory.disk().open(&directory.checkpoint_path(segment), Opening::Read).ok()?;
    let bytes = read_start(&*file, CHECKPOINT_BYTES_MAX).ok()?;
    let listing = checkpoint::decode(segment, salt, &bytes)?;
    let length = directory.open_segment(segment, Opening::Read).ok()?.length_bytes().ok()?;
    (u64::from(listing.end) <= length).then_some(listing)
}

fn scan_segment(
    directory: &Directory,
    segment: u32,
    salt: u64,
    is_last: bool,
) -> Result<(Arc<dyn DiskFile>, scan::Scanned, bool), StoreError> {
    let path = directory.segment_path(segment);
    let file = directory.open_segment(segment, Opening::Write);
    let file = file.map_err(|error| StoreError::io("open", &path, error))?;
    let is_sound = read_header(directory, segment)?.is_ok_and(|header| header == (segment, salt));
    let scanned = scan::scan(&*file, salt, segment, is_last);
    Ok((file, scanned.map_err(|error| StoreError::io("read", &path, error))?, is_sound))
}

/// What a sealed segment holds: its checkpoint, or else a scan.
pub(crate) fn read_listing(directory: &Directory, segment: u32, salt: u64) -> Result<Listing, StoreError> {
    match read_checkpoint(directory, segment, salt) {
        Some(listing) => Ok(listing),
        None => Ok(scan_segment(directory, segment, salt, false)?.1.into()),
    }
}
