//! File content in frames of 32 KiB, as a volume keeps it: reads share them, holes have none.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use filesystem::operations::Attributes;

pub(crate) const FRAME_BYTES: usize = 32 * 1024;

/// A kept frame, or zeros.
pub(crate) fn frame(frames: &BTreeMap<u64, Bytes>, index: u64) -> Bytes {
    static ZEROS: [u8; FRAME_BYTES] = [0; FRAME_BYTES];
    frames.get(&index).cloned().unwrap_or(Bytes::from_static(&ZEROS))
}

pub(crate) fn change_frame(frames: &mut BTreeMap<u64, Bytes>, index: u64, start: usize, data: &[u8]) {
    let changed = if data.len() == FRAME_BYTES {
        Bytes::copy_from_slice(data)
    } else {
        // Whatever else holds the frame (a reply under way) keeps the old bytes.
        let old = frames.remove(&index);
        let mut bytes = match old.map(Bytes::try_into_mut) {
            Some(Ok(bytes)) => bytes,
            Some(Err(shared)) => BytesMut::from(&shared[..]),
            None => BytesMut::zeroed(FRAME_BYTES),
        };
        bytes[start..start + data.len()].copy_from_slice(data);
        bytes.freeze()
    };
    frames.insert(index, changed);
}

/// Calls `each` with (frame, start within it, length) for every frame that a range touches.
pub(crate) fn split(offset: u64, length: u64, mut each: impl FnMut(u64, usize, usize)) {
    let mut position = offset;
    let end = offset + length;
    while position < end {
        let start = (position % FRAME_BYTES as u64) as usize;
        let length = (FRAME_BYTES - start).min((end - position) as usize);
        each(position / FRAME_BYTES as u64, start, length);
        position += length as u64;
    }
}

pub(crate) fn zero(attributes: &Attributes, frames: &mut BTreeMap<u64, Bytes>, offset: u64, length: u64) {
    let length = length.min(attributes.size.saturating_sub(offset));
    split(offset, length, |index, start, length| {
        if length == FRAME_BYTES {
            frames.remove(&index);
        } else if frames.contains_key(&index) {
            change_frame(frames, index, start, &vec![0; length]);
        }
    });
}

pub(crate) fn resize(attributes: &mut Attributes, frames: &mut BTreeMap<u64, Bytes>, size: u64) {
    if size < attributes.size {
        zero(attributes, frames, size, attributes.size - size);
    }
    attributes.size = size;
    attributes.blocks_512 = frames.len() as u64 * (FRAME_BYTES as u64 / 512);
}
