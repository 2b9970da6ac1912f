//! Reading a segment from its first byte to its last usable one, whatever state it is in.
//!
//! Used when a segment has no usable checkpoint: the one that was being written when the process died, and any whose
//! checkpoint is damaged. Three things are told apart:
//!
//! - what the last crash tore: everything from the first bad record on that nothing proves to have been durable.
//!   No write there was ever acknowledged, and the order of writes says that nothing after a hole may be kept;
//! - damage: a bad record before the watermark, or a place that the disk cannot read. It is reported, named by the
//!   log's own lists if its header is gone (`contents.rs`), and what follows is kept;
//! - the end.
//!
//! It decides and reads, and changes nothing.

use super::{
    Damage, Key, contents,
    device::DiskFile,
    format::{
        self, ALIGNMENT_BYTES, FLAG_COPY, FLAGS_TO_UNDERSTAND, Place, RECORD_HEADER_BYTES, RecordHeader,
        SEGMENT_HEADER_BYTES, Shape,
    },
    window::Window,
};
use std::{collections::HashSet, io};

/// Something that is read at offsets.
pub trait Source {
    /// How long it is.
    fn length_bytes(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for dyn DiskFile {
    fn length_bytes(&self) -> io::Result<u64> {
        DiskFile::length_bytes(self)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        DiskFile::read_at(self, buffer, offset)
    }
}

impl Source for [u8] {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = self.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// How much of a segment is known to have been durable before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// Nothing: it is the newest. Its own records say.
    Unknown,
    /// All of it: another was begun after it.
    Whole,
    /// Just so much: the segment after it says so, and nothing behind that is part of the log.
    UpTo(u32),
    /// So much, and perhaps more: it is the newest, and word of it was left beside it (`reached.rs`).
    AtLeast(u32),
}

/// One record that counts, as a scan or a checkpoint lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Whose record it is.
    pub key: Key,
    /// What it says; `Lost` where the record is damaged.
    pub shape: Shape,
    /// How new it is.
    pub sequence: u64,
    /// Where its header lies.
    pub offset: u32,
    /// How long its value is.
    pub length: u32,
    /// How many records of this key the segment holds; the others are older.
    pub count: u32,
    /// Whose value it is, as the node numbers its owners.
    pub owner: u32,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The segment.
    pub segment: u32,
    /// The records, in their order in the segment, each with a count of 1.
    pub records: Vec<Listed>,
    /// What is damaged, in order; those with a key are listed among the records as lost, too. A hole's newest sequence
    /// is `u64::MAX` where the segment does not tell.
    pub damages: Vec<Damage>,
    /// Where the next record goes: behind the last one that counts.
    pub end: u32,
    /// How many bytes behind `end` are torn, and to be cut off.
    pub torn_bytes: u64,
    /// The greatest sequence of any record that could be read, torn ones included.
    pub sequence_max: u64,
    /// What no list in the segment names, in order, and the last list itself.
    pub unlisted: Vec<Listed>,
    /// Whether there are records of unknown shapes.
    pub is_kept: bool,
    /// Whether a record has a flag that must be understood, and is not.
    pub is_foreign: bool,
    /// Whether the disk could not read some of it.
    pub is_unreadable: bool,
}

enum Found {
    Good(RecordHeader),
    /// The header (or its one-bit repair) tells whose record it is, the rest of it is bad.
    Bad(RecordHeader),
    /// No header for this many bytes.
    Hole(u64),
}

/// Scans a segment.
///
/// # Errors
///
/// Only what reading raises, but for places that the disk cannot read; no content is an error.
pub fn scan<S: Source + ?Sized>(
    source: &S,
    salt: u64,
    segment: u32,
    durable: Durable,
) -> io::Result<Scanned> {
    let whole_length = source.length_bytes()?.min(u64::from(u32::MAX));
    let (length, mut watermark) = match durable {
        Durable::Unknown => (whole_length, 0),
        Durable::Whole => (whole_length, whole_length),
        Durable::UpTo(end) => (whole_length.min(u64::from(end)), u64::from(end)),
        Durable::AtLeast(end) => (whole_length, u64::from(end)),
    };
    let mut window = Window::new(source, length);
    let mut scanned = Scanned { segment, end: SEGMENT_HEADER_BYTES as u32, ..Scanned::default() };
    let mut notes = Notes::default();
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    while offset < length {
        let (header, is_good, size) = match look(&mut window, Place { salt, segment, offset: offset as u32 })?
        {
            Found::Good(header) => (Some(header), true, header.size_bytes()),
            Found::Bad(header) => (Some(header), false, header.size_bytes()),
            Found::Hole(size) => (None, false, size),
        };
        watermark = watermark.max(header.map_or(0, |header| u64::from(header.watermark)));
        let record = header.filter(|header| header.shape != Shape::Mark);
        if !is_good {
            let length_bytes = size.min(length - offset);
            let key = record.filter(|record| is_keyed(record.shape)).map(|record| record.key);
            // A list or a void that is damaged takes no record with it.
            let is_of_none = |record: &RecordHeader| matches!(record.shape, Shape::Contents | Shape::Void);
            let sequence_max = match &record {
                Some(record) if is_of_none(record) => 0,
                Some(record) => record.sequence,
                None => u64::MAX,
            };
            scanned.damages.push(Damage { key, segment, offset_bytes: offset, length_bytes, sequence_max });
            notes.before.push(scanned.records.len());
        }
        if let Some(header) = record {
            notes.record(&mut scanned, &mut window, &header, offset as u32, is_good)?;
        }
        // A good mark is no obstacle: the next record is written over it.
        if record.is_some() || !is_good {
            scanned.end = (offset + size).min(length) as u32;
        }
        offset += size;
    }
    // What cannot be read was not torn by a crash: whatever it held may have been acknowledged.
    watermark = watermark.max(window.unreadable_end());
    scanned.is_unreadable = window.unreadable_end() > 0;
    if let Some(first) = scanned.damages.iter().position(|damage| damage.offset_bytes >= watermark) {
        scanned.end = scanned.damages[first].offset_bytes as u32;
        scanned.records.truncate(notes.before[first]);
        scanned.damages.truncate(first);
    }
    if watermark > length {
        let (offset_bytes, length_bytes) = (length, watermark - length);
        let sequence_max = u64::MAX;
        scanned.damages.push(Damage { key: None, segment, offset_bytes, length_bytes, sequence_max });
    }
    scanned.torn_bytes = whole_length.saturating_sub(u64::from(scanned.end));
    notes.explain(&mut scanned);
    Ok(scanned)
}

fn is_keyed(shape: Shape) -> bool {
    matches!(shape, Shape::Value | Shape::Tombstone | Shape::Lost)
}

/// What is noted on the way for what can be decided only at the end.
#[derive(Default)]
struct Notes {
    /// For each damage, how many records come before it: whether it is damage or torn is known only at the end.
    before: Vec<usize>,
    /// Offset and sequence of all sound records that are no copies.
    fresh: Vec<(u64, u64)>,
    /// Where the lists lie, and what they name.
    lists: Vec<(Listed, Vec<Listed>)>,
}

impl Notes {
    fn record<S: Source + ?Sized>(
        &mut self,
        scanned: &mut Scanned,
        window: &mut Window<'_, S>,
        header: &RecordHeader,
        offset: u32,
        is_good: bool,
    ) -> io::Result<()> {
        let RecordHeader { shape, key, sequence, length, owner, flags, .. } = *header;
        scanned.is_foreign |= flags & FLAGS_TO_UNDERSTAND != 0;
        scanned.sequence_max = scanned.sequence_max.max(sequence);
        let listed = Listed { key, shape, sequence, offset, length, count: 1, owner };
        match shape {
            Shape::Contents if is_good => {
                let start = u64::from(offset) + format::value_offset(length) as u64;
                let value = window.at(start, length as usize)?;
                self.lists.push((listed, contents::decode(value).collect()));
            }
            Shape::Contents | Shape::Void | Shape::Mark => {}
            Shape::Other(_) => scanned.is_kept = true,
            Shape::Value | Shape::Tombstone | Shape::Lost | Shape::Hidden => {
                let shape = if is_good { shape } else { Shape::Lost };
                // A hidden record that is bad itself remains a damage of unknown key.
                if is_good || is_keyed(listed.shape) {
                    scanned.records.push(Listed { shape, ..listed });
                }
                if is_good && flags & FLAG_COPY == 0 && shape != Shape::Hidden {
                    self.fresh.push((u64::from(offset), sequence));
                }
            }
        }
        Ok(())
    }

    /// Names what lies in holes, as far as lists do; bounds what the others may hide; and finds what is in no list.
    fn explain(self, scanned: &mut Scanned) {
        let Notes { fresh, lists, .. } = self;
        let lists: Vec<_> = lists.into_iter().filter(|(list, _)| list.offset < scanned.end).collect();
        let mut named: Vec<Listed> = lists.iter().flat_map(|(_, named)| named.iter().copied()).collect();
        named.sort_unstable_by_key(|listed| listed.offset);
        named.dedup_by_key(|listed| listed.offset);
        let mut damages = Vec::with_capacity(scanned.damages.len());
        for mut damage in std::mem::take(&mut scanned.damages) {
            if damage.key.is_some() || damage.sequence_max == 0 {
                damages.extend(Some(damage).filter(|damage| damage.key.is_some()));
                continue;
            }
            // Sequences of fresh records only grow, and copies are older than any fresh one that follows.
            let end = damage.offset_bytes + damage.length_bytes;
            let next = fresh.partition_point(|(offset, _)| *offset < end);
            if let Some((_, sequence)) = fresh.get(next) {
                damage.sequence_max = damage.sequence_max.min(sequence.saturating_sub(1));
            }
            let (lost, holes) = contents::explain(&damage, &named);
            damages.extend(lost.iter().map(|lost| Damage {
                key: Some(lost.key),
                offset_bytes: u64::from(lost.offset),
                length_bytes: contents::end_of(lost) - u64::from(lost.offset),
                sequence_max: lost.sequence,
                ..damage.clone()
            }));
            damages.extend(holes);
            scanned.records.extend(lost);
        }
        scanned.damages = damages;
        scanned.records.sort_by_key(|record| record.offset);
        let named: HashSet<u32> = named.iter().map(|listed| listed.offset).collect();
        let mut unlisted = scanned.records.clone();
        unlisted.extend(lists.iter().map(|(list, _)| *list));
        unlisted.retain(|listed| !named.contains(&listed.offset));
        unlisted.sort_unstable_by_key(|listed| listed.offset);
        scanned.unlisted = unlisted;
    }
}

fn look<S: Source + ?Sized>(window: &mut Window<'_, S>, place: Place) -> io::Result<Found> {
    let offset = u64::from(place.offset);
    let bytes = window.at(offset, RECORD_HEADER_BYTES)?;
    if let Some(header) = format::decode_record_header(place, bytes) {
        if header.shape == Shape::Void {
            return Ok(Found::Good(header));
        }
        let body = format::record_bytes(header.length) - RECORD_HEADER_BYTES;
        let bytes = window.at(offset + RECORD_HEADER_BYTES as u64, body)?;
        let whole = bytes.len() == body && format::verify_body(&header, bytes);
        return Ok(if whole { Found::Good(header) } else { Found::Bad(header) });
    }
    if let Some(header) = format::decode_flipped_record_header(place, bytes) {
        return Ok(Found::Bad(header));
    }
    let mut next = offset;
    loop {
        next += ALIGNMENT_BYTES as u64;
        let bytes = window.at(next, RECORD_HEADER_BYTES)?;
        let place = Place { offset: next as u32, ..place };
        if bytes.is_empty() || format::decode_record_header(place, bytes).is_some() {
            return Ok(Found::Hole(next.min(window.length()) - offset));
        }
    }
}

#[cfg(test)]
mod tests;
