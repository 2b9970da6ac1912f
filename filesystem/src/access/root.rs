//! A root, byte by byte: what a volume is, and which tree it holds now.
//!
//! Body, numbers little-endian: `"hyphavol", version u16, compatible u64, read-compatible u64, incompatible u64`, and from
//! here on as the features say: `volume id 16, register version u64, previous header 32, created 12, commit id 16, time 12,
//! name key 32, author size u8, author, reader count u16, X25519 keys, tree size u16, tree, objects` (see
//! [`ObjectChanges`]), then extensions `type u16, size u32, value` up to the end. A time is `seconds i64, nanoseconds u32`;
//! the tree is a pointer, or nothing.
//!
//! The feature flags come first, and are looked at before anything behind them: a later version may change all of that.
//! An extension says nothing that must be understood; a writer keeps those that it does not know, and their order.

use bytes::Bytes;
use dht::HeaderHash;
use reactor::crypto::X25519Public;

use super::{AUTHOR_SIZE_MAX, READER_COUNT_MAX, RootError};
use crate::format::{ObjectChanges, Pointer, VolumeId, printable};
use crate::operations::Time;

const MAGIC: &[u8; 8] = b"hyphavol";
const VERSION: u16 = 3;

/// Which features a volume uses, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Whoever does not know them may read and write all the same.
    pub compatible: u64,
    /// Whoever does not know them may read, and must not write.
    pub read_compatible: u64,
    /// Whoever does not know them must leave the volume alone.
    pub incompatible: u64,
}

impl Features {
    /// Incompatible: frames are, or were, sealed in segments, and pointers to them have several tags.
    pub const SEGMENTS: u64 = 0x1;
    /// Incompatible: there are, or were, snapshots. Whoever does not follow their records to the trees that they name takes
    /// for garbage what lies there.
    pub const SNAPSHOTS: u64 = 0x4;
    /// Read-compatible: garbage is, or was, collected. Whoever writes without heeding a collection that is under way may
    /// point to what it deletes.
    pub const COLLECTED: u64 = 0x2;
    /// Read-compatible: the list of this space has groups. Whoever says the next one without knowing them names whoever is in them, so that
    /// nobody is off it who is taken out of a group.
    pub const GROUPS: u64 = 0x4;
    /// What this version knows.
    pub const KNOWN: Features = Features {
        compatible: 0,
        read_compatible: Features::COLLECTED | Features::GROUPS,
        incompatible: Features::SEGMENTS | Features::SNAPSHOTS,
    };

    /// Returns those that forbid this version to read.
    pub fn unreadable(&self) -> u64 {
        self.incompatible & !Features::KNOWN.incompatible
    }

    /// Returns those that forbid this version to write.
    pub fn unwritable(&self) -> u64 {
        self.read_compatible & !Features::KNOWN.read_compatible
    }
}

/// Something that a later version added to the root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extension {
    /// What it is.
    pub kind: u16,
    /// Its bytes.
    pub value: Bytes,
}

/// What a volume is: each root repeats it from the one before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charter {
    /// Random: everything sealed in the volume is bound to it.
    pub volume: VolumeId,
    /// When the volume was made.
    pub created: Time,
    /// The key under which names are hashed, so that nobody outside can choose names that collide.
    pub name_key: [u8; 32],
    /// What it takes to read and to write it.
    pub features: Features,
    /// Who may read.
    pub readers: Vec<X25519Public>,
    /// What a later version added.
    pub extensions: Vec<Extension>,
}

/// A volume's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// What the volume is.
    pub charter: Charter,
    /// The register's version that it was made for: moved to another, it does not open.
    pub version: u64,
    /// The register's value that it followed; `None` for the first.
    pub previous: Option<HeaderHash>,
    /// The tree, or `None` if it is empty.
    pub tree: Option<Pointer>,
    /// What the tree's records of objects do not say yet.
    pub objects: ObjectChanges,
    /// Random: tells one's own commit from another's.
    pub commit: [u8; 16],
    /// When.
    pub time: Time,
    /// Who.
    pub author: String,
}

fn put_time(time: Time, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanoseconds.to_le_bytes());
}

impl Root {
    /// Writes the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let charter = &self.charter;
        let features = &charter.features;
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for flags in [features.compatible, features.read_compatible, features.incompatible] {
            out.extend_from_slice(&flags.to_le_bytes());
        }
        out.extend_from_slice(&charter.volume.0);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.previous.map_or([0; 32], |header| header.0));
        put_time(charter.created, out);
        out.extend_from_slice(&self.commit);
        put_time(self.time, out);
        out.extend_from_slice(&charter.name_key);
        let author = &self.author.as_bytes()[..self.author.floor_char_boundary(AUTHOR_SIZE_MAX)];
        out.push(author.len() as u8);
        out.extend_from_slice(author);
        let readers = &charter.readers[..charter.readers.len().min(READER_COUNT_MAX)];
        out.extend_from_slice(&(readers.len() as u16).to_le_bytes());
        for reader in readers {
            out.extend_from_slice(reader.as_bytes());
        }
        let mut tree = Vec::new();
        if let Some(pointer) = &self.tree {
            pointer.encode(false, &mut tree);
        }
        out.extend_from_slice(&(tree.len() as u16).to_le_bytes());
        out.extend_from_slice(&tree);
        self.objects.encode(out);
        for extension in &charter.extensions {
            out.extend_from_slice(&extension.kind.to_le_bytes());
            out.extend_from_slice(&(extension.value.len() as u32).to_le_bytes());
            out.extend_from_slice(&extension.value);
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`RootError::Newer`] and [`RootError::Malformed`].
    pub fn decode(body: &[u8]) -> Result<Root, RootError> {
        let mut reader = Reader(body);
        let features = decode_features(&mut reader).ok_or(RootError::Malformed)?;
        match features.unreadable() {
            0 => decode_rest(reader, features).ok_or(RootError::Malformed),
            flags => Err(RootError::Newer { flags }),
        }
    }
}

fn decode_features(reader: &mut Reader<'_>) -> Option<Features> {
    if reader.take(MAGIC.len())? != MAGIC || reader.u16()? != VERSION {
        return None;
    }
    Some(Features { compatible: reader.u64()?, read_compatible: reader.u64()?, incompatible: reader.u64()? })
}

fn decode_rest(mut reader: Reader<'_>, features: Features) -> Option<Root> {
    let volume = VolumeId(reader.array()?);
    let version = reader.u64()?;
    let previous = Some(reader.array()?).filter(|header| *header != [0; 32]).map(HeaderHash);
    let created = reader.time()?;
    let commit = reader.array()?;
    let time = reader.time()?;
    let name_key = reader.array()?;
    let author_size = usize::from(reader.take(1)?[0]);
    if author_size > AUTHOR_SIZE_MAX {
        return None;
    }
    let author = printable(std::str::from_utf8(reader.take(author_size)?).ok()?);
    let count = usize::from(reader.u16()?);
    if count > READER_COUNT_MAX {
        return None;
    }
    let readers =
        (0..count).map(|_| Some(X25519Public::from_bytes(reader.array()?))).collect::<Option<_>>()?;
    let tree_size = usize::from(reader.u16()?);
    let tree = match reader.take(tree_size)? {
        [] => None,
        bytes => Some(Pointer::decode(bytes, &[0; 32])?),
    };
    let objects;
    (objects, reader.0) = ObjectChanges::decode(reader.0)?;
    let mut extensions = Vec::new();
    while !reader.0.is_empty() {
        let kind = reader.u16()?;
        let size = u32::from_le_bytes(reader.array()?) as usize;
        extensions.push(Extension { kind, value: Bytes::copy_from_slice(reader.take(size)?) });
    }
    let charter = Charter { volume, created, name_key, features, readers, extensions };
    Some(Root { charter, version, previous, tree, objects, commit, time, author })
}

/// Takes fields from the front of bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Time> {
        let seconds = i64::from_le_bytes(self.array()?);
        let nanoseconds = u32::from_le_bytes(self.array()?).min(999_999_999);
        Some(Time { seconds, nanoseconds })
    }
}

/// A root with something in each field, for tests.
#[cfg(test)]
pub(crate) fn example(readers: Vec<X25519Public>) -> Root {
    Root {
        charter: Charter {
            volume: VolumeId([10; 16]),
            created: Time { seconds: 11, nanoseconds: 12 },
            name_key: [8; 32],
            features: Features { compatible: 13, read_compatible: 14, incompatible: 0 },
            readers,
            extensions: vec![
                Extension { kind: 900, value: Bytes::from_static(b"of later years") },
                Extension { kind: 901, value: Bytes::new() },
            ],
        },
        version: 15,
        previous: Some(HeaderHash([16; 32])),
        tree: Some(Pointer::example([1; 32], 2, 320)),
        objects: {
            let mut objects = ObjectChanges::default();
            objects.add(&Pointer::example([1; 32], 2, 320));
            objects.remove(&Pointer::example([2; 32], 0, 64));
            objects
        },
        commit: [5; 16],
        time: Time { seconds: 6, nanoseconds: 7 },
        author: "äuthor".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_added_is_read_and_written_back() {
        let root = example(vec![X25519Public::from_bytes([9; 32])]);
        let mut bytes = Vec::new();
        root.encode(&mut bytes);
        let read = Root::decode(&bytes).unwrap();
        assert_eq!(read, root);
        let mut written = Vec::new();
        read.encode(&mut written);
        assert_eq!(written, bytes);
    }

    #[test]
    fn flags_that_forbid_reading_are_seen_whatever_follows_them() {
        let mut bytes = Vec::new();
        example(Vec::new()).encode(&mut bytes);
        bytes.truncate(34);
        bytes[33] = 0x40;
        bytes.extend_from_slice(b"another layout");
        assert_eq!(Root::decode(&bytes), Err(RootError::Newer { flags: 0x40 << 56 }));
    }

    #[test]
    fn no_part_of_a_root_is_one() {
        let mut bytes = Vec::new();
        let mut root = example(vec![X25519Public::from_bytes([9; 32])]);
        root.charter.extensions.clear();
        root.encode(&mut bytes);
        for size in 0..bytes.len() {
            assert_eq!(Root::decode(&bytes[..size]), Err(RootError::Malformed), "{size}");
        }
    }
}
