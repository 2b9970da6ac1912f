//! From a directory, in whatever state a crash left it, to an index and a segment to write to.
//!
//! Blocking code, for a thread of the pool. First every segment's version is looked at, so that a store of a later
//! program is left as it is. For every segment the checkpoint is taken if it is sound; otherwise the segment is
//! scanned. A torn tail is cut off at once and for good; a checkpoint that was missing is made. A segment in which
//! damage was found, or word of what earlier damage may have hidden, is not written to any more.

use super::{
    Damage, StoreError,
    active::Active,
    checkpoint::{self, Listing},
    device::{Disk, DiskFile, Opening},
    directory::Directory,
    format::{self, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError},
    incarnation::{self, Incarnation},
    index::Index,
    reached::{Reached, ReachedFile},
    reserve::Reserve,
    scan::{self, Durable, Scanned},
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
    pub(crate) reached: ReachedFile,
    pub(crate) reserve: Reserve,
    pub(crate) recovery: Recovery,
    pub(crate) incarnation: Incarnation,
}

/// Locks and reads a store, making it if there is none.
pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path, reserve_bytes: u64) -> Result<Opened, StoreError> {
    let directory = Arc::new(Directory::open(disk, path)?);
    let mut segments = directory.segments()?;
    let headers = read_headers(&directory, &mut segments)?;
    let salt = find_salt(&directory, &headers)?;
    let reached_file = ReachedFile::open(&directory, salt);
    let reached = reached_file.read();
    let mut recovery = Recovery { segment_count: segments.len(), ..Recovery::default() };
    let mut listings = Vec::with_capacity(segments.len() + 1);
    let mut active = None;
    let mut last_end = None;
    let mut sequence_max = 0;
    for (n, segment) in segments.iter().copied().enumerate() {
        let is_last = n + 1 == segments.len();
        // One that was begun after the last is gone, with what it held.
        let gone = reached.filter(|reached| is_last && reached.segment > segment);
        if let Some(listing) = read_checkpoint(&directory, segment, salt).filter(|_| gone.is_none()) {
            last_end = Some((segment, listing.end));
            listings.push((segment, listing, true));
            continue;
        }
        recovery.scanned_count += 1;
        let (file, mut scanned) = scan_segment(&directory, segment, salt, durable(&headers, n, reached))?;
        scanned.damages.extend(gone.map(|gone| Damage {
            key: None,
            segment,
            offset_bytes: u64::from(scanned.end),
            length_bytes: u64::from(gone.end),
            sequence_max: u64::MAX,
        }));
        sequence_max = sequence_max.max(scanned.sequence_max);
        // Cut for good, whatever else is wrong with the segment: what is torn may never come back. But what the disk
        // does not give out today is not thrown away.
        if scanned.torn_bytes > 0 && !scanned.is_unreadable {
            let cut = file.set_length(u64::from(scanned.end)).and_then(|()| file.sync_all());
            cut.map_err(|error| StoreError::io("cut", directory.segment_path(segment), error))?;
        }
        let is_own = matches!(&headers[n].1, Ok(header) if (header.segment, header.salt) == (segment, salt));
        let is_whole = is_own && scanned.damages.is_empty() && !scanned.is_kept;
        if is_last {
            recovery.torn_bytes = scanned.torn_bytes;
        }
        // What is gone stays said by the segment that is begun now: a checkpoint may be lost, and the word beside is written anew.
        let reached_here = reached.filter(|reached| is_last && reached.segment == segment);
        let end = scanned.end.max(reached_here.map_or(0, |reached| reached.end));
        last_end = Some((segment, end.saturating_add(gone.map_or(0, |gone| gone.end))));
        recovery.damages.extend(scanned.damages.iter().cloned());
        let (unlisted, is_unreadable) = (std::mem::take(&mut scanned.unlisted), scanned.is_unreadable);
        let listing = Listing::from(scanned);
        // A segment that is written to keeps account of its records only: the doubt that an older one left in it is
        // kept by the checkpoint that a closed segment gets.
        let is_sound = is_whole && listing.holes.is_empty();
        let synced = file.sync_all();
        if is_last && is_sound {
            synced.map_err(|error| StoreError::io("sync", directory.segment_path(segment), error))?;
            // One that was removed after it could not be begun must not come back and say where this one ended.
            directory.sync()?;
            active = Some(Active::new(segment, file, listing.end, listing.entries.clone(), unlisted));
        } else if !is_unreadable {
            synced.map_err(|error| StoreError::io("sync", directory.segment_path(segment), error))?;
            // Only a help for the next start; a full disk may refuse it.
            let _ = directory.write_checkpoint(segment, &checkpoint::encode(segment, salt, &listing));
        }
        let is_active = active.is_some();
        listings.push((segment, listing, !is_active));
    }
    let active = match active {
        Some(active) => active,
        None => {
            let active = Active::begin(&directory, salt, last_end).map_err(|(_, error)| error)?;
            let empty = Listing { end: SEGMENT_HEADER_BYTES as u32, ..Listing::default() };
            listings.push((active.number, empty, false));
            active
        }
    };
    reached_file.write(Reached { segment: active.number, end: active.end });
    let index = Index::build(listings, sequence_max);
    // Damage of what has long been replaced is none; and what a hole may have hidden is known only now.
    let known = index.damages();
    let place = |damage: &Damage| (damage.key, damage.segment, damage.offset_bytes);
    recovery.damages.retain(|damage| damage.key.is_none() || known.iter().any(|k| place(k) == place(damage)));
    for damage in recovery.damages.iter_mut().filter(|damage| damage.key.is_none()) {
        damage.sequence_max = damage.sequence_max.min(index.sequence_max());
    }
    let incarnation = incarnation::open(&directory, salt)?;
    let reserve = Reserve::open(directory.clone(), reserve_bytes);
    Ok(Opened { directory, salt, index, active, reached: reached_file, reserve, recovery, incarnation })
}

type Header = Result<SegmentHeader, (SegmentHeaderError, Vec<u8>)>;

/// Reads all segments' headers. A newest segment that was only being made is removed.
///
/// # Errors
///
/// [`StoreError::Unknown`] if any of them is of another version: what it holds is not ours to judge.
fn read_headers(directory: &Directory, segments: &mut Vec<u32>) -> Result<Vec<(u32, Header)>, StoreError> {
    let mut headers = Vec::with_capacity(segments.len());
    for segment in segments.iter().copied() {
        let path = directory.segment_path(segment);
        let header = read_header(directory, segment)?;
        if let Err((SegmentHeaderError::Version(version), _)) = header {
            let reason = SegmentHeaderError::Version(version).to_string();
            return Err(StoreError::Unknown { path, reason });
        }
        headers.push((segment, header));
    }
    if let Some((last, Err(_))) = headers.last() {
        let last = *last;
        let length = directory.open_segment(last, Opening::Read).and_then(|file| file.length_bytes());
        let length =
            length.map_err(|error| StoreError::io("look at", directory.segment_path(last), error))?;
        if length <= SEGMENT_HEADER_BYTES as u64 {
            directory.delete(last)?;
            headers.pop();
            segments.pop();
        }
    }
    Ok(headers)
}

/// Takes the salt from any segment's header.
fn find_salt(directory: &Directory, headers: &[(u32, Header)]) -> Result<u64, StoreError> {
    let sound = headers.iter().find_map(|(_, header)| header.as_ref().ok());
    let flipped = || {
        let damaged = headers.iter().filter_map(|(_, header)| header.as_ref().err());
        damaged.filter_map(|(_, bytes)| format::decode_flipped_segment_header(bytes)).next()
    };
    match (sound.copied().or_else(flipped), headers.first()) {
        (Some(header), _) => Ok(header.salt),
        (None, Some((segment, Err((fault, _))))) => {
            let (path, reason) = (directory.segment_path(*segment), fault.to_string());
            Err(StoreError::Unknown { path, reason })
        }
        _ => Ok(u64::from_le_bytes(reactor::crypto::random_bytes())),
    }
}

/// How much of the `n`-th segment was durable, as far as the segments after it tell, and for the last one the word beside them.
/// There may be several that were begun after it, of attempts that failed and left a header behind; it only grew between
/// them.
fn durable(headers: &[(u32, Header)], n: usize, reached: Option<Reached>) -> Durable {
    let segment = headers[n].0;
    let later = &headers[n + 1..];
    let ends = later.iter().filter_map(|(_, header)| match header {
        Ok(SegmentHeader { previous: Some((previous, end)), .. }) if *previous == segment => Some(*end),
        _ => None,
    });
    match ends.max() {
        Some(end) => Durable::UpTo(end),
        None if later.is_empty() => match reached {
            Some(reached) if reached.segment == segment => Durable::AtLeast(reached.end),
            Some(reached) if reached.segment > segment => Durable::Whole,
            _ => Durable::Unknown,
        },
        None => Durable::Whole,
    }
}

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
    durable: Durable,
) -> Result<(Arc<dyn DiskFile>, Scanned), StoreError> {
    let path = directory.segment_path(segment);
    let file = directory.open_segment(segment, Opening::Write);
    let file = file.map_err(|error| StoreError::io("open", &path, error))?;
    let scanned = scan::scan(&*file, salt, segment, durable);
    let scanned = scanned.map_err(|error| StoreError::io("read", &path, error))?;
    if scanned.is_foreign {
        let reason =
            "a later version of this program has written to it what this one may not touch: use that";
        return Err(StoreError::Unknown { path, reason: reason.into() });
    }
    Ok((file, scanned))
}

/// What a sealed segment that ends at `end` holds: its checkpoint, or else a scan.
pub(crate) fn read_listing(
    directory: &Directory,
    segment: u32,
    salt: u64,
    end: u32,
) -> Result<Listing, StoreError> {
    match read_checkpoint(directory, segment, salt) {
        Some(listing) => Ok(listing),
        None => Ok(scan_segment(directory, segment, salt, Durable::UpTo(end))?.1.into()),
    }
}
