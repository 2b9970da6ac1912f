//! Values as they lie in a leaf, read and written: which record belongs to which kind of key.
//!
//! The records themselves are [`crate::format`]'s. Nothing here looks at the tree.

use bytes::Bytes;

use super::state::{Change, Step, Stop};
use crate::errno::Errno;
use crate::format::{
    EntryRecord, FRAME_SIZE_MAX, InodeRecord, Key, ObjectRecord, Orphan, Pointer, SessionRecord,
    SnapshotRecord, Truncation, WriterRecord,
};
use crate::tree::cursor;

/// Before an extended attribute's value: what a later version stores otherwise begins otherwise.
const XATTR_VERSION: u8 = 1;

/// Reads a value that was found in the tree.
pub(super) fn decode_value(key: &Key, found: &cursor::Found) -> Step<Change> {
    let value = decode_raw(key, &found.node.shared_value(found.index), found.node.home());
    value.ok_or(Stop::Errno(Errno::EIO))
}

/// Reads a value as it lies in a leaf of the object `home`.
pub(crate) fn decode_raw(key: &Key, raw: &Bytes, home: &[u8; 32]) -> Option<Change> {
    match key {
        Key::Inode(_) => InodeRecord::decode(raw).map(Change::Inode),
        Key::Entry(..) => EntryRecord::decode(raw).map(Change::Entry),
        Key::Extent(..) => match raw.first() {
            // What is longer is no frame: a write into it would make another that no object takes.
            Some(2) => Some(raw.slice(1..)).filter(|frame| frame.len() <= FRAME_SIZE_MAX).map(Change::Frame),
            _ => Pointer::decode(raw, home)
                .filter(|pointer| pointer.size as usize <= FRAME_SIZE_MAX)
                .map(Change::Stored),
        },
        Key::Xattr(..) => (raw.first() == Some(&XATTR_VERSION)).then(|| Change::Xattr(raw.slice(1..))),
        Key::Orphan(_) => Orphan::decode(raw).map(Change::Orphan),
        Key::Truncation(_) => Truncation::decode(raw).map(Change::Truncation),
        Key::Snapshot(_) => SnapshotRecord::decode(raw).map(Change::Snapshot),
        Key::Writer(_) => WriterRecord::decode(raw).map(Change::Writer),
        Key::Object(_) => ObjectRecord::decode(raw).map(Change::Object),
        Key::Session(_) => SessionRecord::decode(raw).map(Change::Session),
    }
}

/// Appends a value as it lies in a leaf; a frame's only if it is tiny.
pub(crate) fn encode_value(change: &Change, out: &mut Vec<u8>) {
    match change {
        Change::Removed => {}
        Change::Inode(record) => record.encode(out),
        Change::Entry(entry) => entry.encode(out),
        Change::Frame(bytes) => {
            out.push(2);
            out.extend_from_slice(bytes);
        }
        Change::Stored(pointer) => pointer.encode(false, out),
        Change::Xattr(bytes) => {
            out.push(XATTR_VERSION);
            out.extend_from_slice(bytes);
        }
        Change::Orphan(orphan) => orphan.encode(out),
        Change::Truncation(truncation) => truncation.encode(out),
        Change::Snapshot(snapshot) => snapshot.encode(out),
        Change::Writer(writer) => writer.encode(out),
        Change::Object(object) => object.encode(out),
        Change::Session(session) => session.encode(out),
    }
}
