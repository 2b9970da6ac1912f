//! A name in a directory: which inode it names, and of what kind that is.
//!
//! `inode u64, kind u8`, and what later versions add. Kinds 1 to 7 are those of [`FileKind`]; 8 is a link to another volume, a
//! space, which this volume treats as it does a kind that this version does not know: that is listed by its name and left alone;
//! it never makes a directory unreadable. What follows the kind is kept, also when the name moves.

use bytes::Bytes;

use crate::operations::FileKind;

/// The kind of a link to another volume.
const LINK: u8 = 8;

/// A name's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryRecord {
    /// What it names.
    pub inode: u64,
    /// What that is; [`FileKind::Unknown`] if a later version knows.
    pub kind: FileKind,
    /// What follows the kind; if that is unknown, its byte comes first.
    pub rest: Bytes,
}

impl EntryRecord {
    /// A name of `inode`, as this version writes it.
    pub fn new(inode: u64, kind: FileKind) -> EntryRecord {
        EntryRecord { inode, kind, rest: Bytes::new() }
    }

    /// A name of the volume that `link` leads to.
    pub fn to_volume(inode: u64, link: &[u8]) -> EntryRecord {
        EntryRecord { inode, kind: FileKind::Unknown, rest: [&[LINK], link].concat().into() }
    }

    /// The link, if it is a name of another volume.
    pub fn link(&self) -> Option<Bytes> {
        let is_link = self.kind == FileKind::Unknown && self.rest.first() == Some(&LINK);
        is_link.then(|| self.rest.slice(1..))
    }

    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.inode.to_le_bytes());
        if self.kind != FileKind::Unknown {
            out.push(self.kind as u8);
        }
        out.extend_from_slice(&self.rest);
    }

    /// Reads a record; what it does not know shares `bytes`.
    pub fn decode(bytes: &Bytes) -> Option<EntryRecord> {
        let inode = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        let (kind, rest_at) = match FileKind::from_byte(*bytes.get(8)?) {
            Some(kind) => (kind, 9),
            None => (FileKind::Unknown, 8),
        };
        // No slice of nothing: it would keep the whole node alive.
        let rest = if bytes.len() == rest_at { Bytes::new() } else { bytes.slice(rest_at..) };
        Some(EntryRecord { inode, kind, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_wrote_is_written_back() {
        for kind in [2, 8, 200] {
            for tail in [&b""[..], b"later"] {
                let bytes = Bytes::from([&7u64.to_le_bytes()[..], &[kind], tail].concat());
                let read = EntryRecord::decode(&bytes).unwrap();
                assert_eq!(read.inode, 7);
                assert_eq!(read.kind == FileKind::Unknown, kind > 7);
                assert_eq!(read.link(), (kind == 8).then_some(Bytes::from_static(tail)));
                let mut written = Vec::new();
                read.encode(&mut written);
                assert_eq!(written, bytes);
            }
        }
        assert_eq!(EntryRecord::decode(&Bytes::from_static(&[1; 8])), None);
        let mut written = Vec::new();
        EntryRecord::to_volume(7, b"there").encode(&mut written);
        assert_eq!(EntryRecord::decode(&written.into()).unwrap().link().unwrap(), "there");
    }
}
