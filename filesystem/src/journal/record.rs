//! The bytes of a journal file: a header, then groups of records. Pure; see [`super`] for what the journal is.
//!
//! Header: `"hyphaj6\n", register 32, size u16, the file's key sealed to us, BLAKE3 of all that 8`. Then records
//! `size u32, sealed`, whose nonce is their index. A record's plaintext: `1` if it ends its group else `0`, then items
//! `kind u8, key size u16, value size u32, key, value`; see [`Item`].
//!
//! A header whose checksum is wrong was cut off before anything in the file was acknowledged: that is *torn*, as is a file
//! of zeros. One whose checksum is right and that our key does not open belongs to somebody else.

use std::ops::Range;

use bytes::Bytes;
use dht::{HeaderHash, PublicKey, Record, RegisterAddress};
use reactor::crypto::{X25519Secret, seal};

use crate::chunk::{Binding, ChunkKind, open_with_nonce_in_place, seal_with_nonce_into};
use crate::format::{Key, Pointer, VolumeId};

/// A record is bound to no volume's id: its file's key is its own, and the file says which register it belongs to.
const BINDING: Binding = Binding { kind: ChunkKind::Journal, volume: VolumeId([0; 16]) };
const MAGIC: &[u8; 8] = b"hyphaj6\n";
/// Bases have no version in these, and no roots are told; the rest is the same.
const EARLIER_MAGIC: &[u8; 8] = b"hyphaj5\n";
/// A record is cut when it passes this; bounds what a reader allocates.
pub(super) const RECORD_SIZE: usize = 1024 * 1024;
/// One item is a frame or an extended attribute at the most, so a record stays far below this.
pub(super) const RECORD_SIZE_LIMIT: usize = 2 * RECORD_SIZE;
/// More than any header has: a sealed key is some eighty bytes.
pub(super) const HEADER_SIZE_LIMIT: usize = 1024;

/// What a record holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// Whose changes follow, and that they are all there are: what earlier files hold is superseded.
    /// The volume's id is what its blocks are read with, where nobody has a root of it.
    Snapshot { session: [u8; 8], device: u64, volume: VolumeId },
    /// The root that changes after `number` are based on, and its version or one below that; 0 in files of earlier versions. Told
    /// also in advance, before a commit up to `number` is published: if it went through, this is its root.
    Base { number: u64, version: u64, tree: Option<Pointer> },
    /// The changes that follow are in the writer's delta of this number, or in an earlier one.
    Delta(u64),
    /// A key's new value, encoded as in a leaf.
    Set(Key, Bytes),
    /// A key is gone.
    Removed(Key),
    /// Inodes with these numbers are made in the delta: no tree before it has them.
    Born(Range<u64>),
    /// The root that the last base names, as the register had it: what a drive can be opened by without the nodes.
    Root(Record),
}

impl Item {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut buffer = Vec::new();
        let (kind, key, value): (u8, &[u8], &[u8]) = match self {
            Item::Snapshot { session, device, volume } => {
                buffer.extend_from_slice(&device.to_le_bytes());
                buffer.extend_from_slice(&volume.0);
                (0, session, &buffer)
            }
            Item::Base { number, version, tree } => {
                if let Some(tree) = tree {
                    tree.encode(false, &mut buffer);
                }
                (1, &[number.to_le_bytes(), version.to_le_bytes()].concat(), &buffer)
            }
            Item::Set(key, value) => (2, &key.encode(), value),
            Item::Removed(key) => (3, &key.encode(), &[]),
            Item::Delta(number) => (4, &number.to_le_bytes(), &[]),
            Item::Born(run) => (5, &run.start.to_le_bytes(), &run.end.to_le_bytes()),
            Item::Root(record) => {
                buffer.extend_from_slice(&record.header_hash.0);
                buffer.extend_from_slice(record.writer.as_bytes());
                buffer.extend_from_slice(&record.payload);
                (6, &record.version.to_le_bytes(), &buffer)
            }
        };
        out.push(kind);
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }

    fn decode(bytes: &mut Bytes) -> Option<Item> {
        let header: [u8; 7] = bytes.get(..7)?.try_into().ok()?;
        let key_size = usize::from(u16::from_le_bytes([header[1], header[2]]));
        let value_size = u32::from_le_bytes([header[3], header[4], header[5], header[6]]) as usize;
        if bytes.len() < 7 + key_size + value_size {
            return None;
        }
        let _ = bytes.split_to(7);
        let key = bytes.split_to(key_size);
        let value = bytes.split_to(value_size);
        let number = |bytes: &Bytes| Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?));
        match header[0] {
            0 => {
                let (device, volume) = value.split_first_chunk::<8>()?;
                Some(Item::Snapshot {
                    session: key.as_ref().try_into().ok()?,
                    device: u64::from_le_bytes(*device),
                    volume: VolumeId(volume.try_into().ok()?),
                })
            }
            1 => Some(Item::Base {
                number: number(&key.slice(..key.len().min(8)))?,
                version: if key.len() == 8 { 0 } else { number(&key.slice(8..))? },
                tree: if value.is_empty() { None } else { Some(Pointer::decode(&value, &[0; 32])?) },
            }),
            2 => Some(Item::Set(Key::decode(&key)?, value)),
            3 => Some(Item::Removed(Key::decode(&key)?)),
            4 => Some(Item::Delta(number(&key)?)),
            5 => Some(Item::Born(number(&key)?..number(&value)?)),
            6 => {
                let (header_hash, rest) = value.split_first_chunk::<32>()?;
                let (writer, _) = rest.split_first_chunk::<32>()?;
                Some(Item::Root(Record {
                    version: number(&key)?,
                    payload: value.slice(64..),
                    header_hash: HeaderHash(*header_hash),
                    writer: PublicKey::from_bytes(*writer),
                }))
            }
            _ => None,
        }
    }
}

/// Returns a file's header; `key` is what its records are sealed under.
pub(super) fn header(register: &RegisterAddress, secret: &X25519Secret, key: &[u8; 32]) -> Vec<u8> {
    let sealed = seal::seal_to(&secret.public(), key);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&register.0);
    bytes.extend_from_slice(&(sealed.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&sealed);
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut checksum = [0; 8];
    checksum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    checksum
}

/// What the beginning of a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// Ours: the key of its records, and where they begin.
    Ours([u8; 32], usize),
    /// Cut off before anything in the file was acknowledged.
    Torn,
    /// Another identity's or another volume's.
    Foreign,
    /// Another version's.
    OtherVersion,
}

/// Reads a header from the first bytes of a file.
pub(super) fn open_header(bytes: &[u8], register: &RegisterAddress, secret: &X25519Secret) -> Header {
    let size_at = MAGIC.len() + 32;
    if let Some([b'h', b'y', b'p', b'h', b'a', b'j', b'0'..=b'9', b'\n']) = bytes.first_chunk()
        && !is_known(bytes)
    {
        return Header::OtherVersion;
    }
    let Some(size) = bytes.get(size_at..size_at + 2) else { return Header::Torn };
    let end = size_at + 2 + usize::from(u16::from_le_bytes([size[0], size[1]]));
    let Some(found) = bytes.get(end..end + 8) else { return Header::Torn };
    if !is_known(bytes) || checksum(&bytes[..end]) != found {
        return Header::Torn;
    }
    if bytes[MAGIC.len()..size_at] != register.0 {
        return Header::Foreign;
    }
    match seal::open(secret, &bytes[size_at + 2..end]).ok().and_then(|key| key.as_slice().try_into().ok()) {
        Some(key) => Header::Ours(key, end + 8),
        None => Header::Foreign,
    }
}

fn is_known(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || bytes.starts_with(EARLIER_MAGIC)
}

fn nonce(record: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&record.to_le_bytes());
    nonce
}

/// Cuts a group's items into sealed records.
pub(super) struct Records<'a, I: Iterator<Item = Item>> {
    items: std::iter::Peekable<I>,
    key: &'a [u8; 32],
    next_record: &'a mut u64,
}

impl<'a, I: Iterator<Item = Item>> Records<'a, I> {
    pub(super) fn new(items: I, key: &'a [u8; 32], next_record: &'a mut u64) -> Records<'a, I> {
        Records { items: items.peekable(), key, next_record }
    }

    /// Appends the next record to `out`. Returns whether there was one.
    pub(super) fn next_into(&mut self, out: &mut Vec<u8>) -> bool {
        let mut plain = vec![0];
        while plain.len() < RECORD_SIZE
            && let Some(item) = self.items.next()
        {
            item.encode(&mut plain);
        }
        if plain.len() == 1 {
            return false;
        }
        plain[0] = u8::from(self.items.peek().is_none());
        let size_at = out.len();
        out.extend_from_slice(&[0; 4]);
        seal_with_nonce_into(out, &BINDING, &plain, self.key, &nonce(*self.next_record));
        let size = (out.len() - size_at - 4) as u32;
        out[size_at..size_at + 4].copy_from_slice(&size.to_le_bytes());
        *self.next_record += 1;
        true
    }
}

/// Opens record `index`. Returns its items, and whether it ends its group; `None` if it is damaged or torn.
pub(super) fn open_record(sealed: &[u8], key: &[u8; 32], index: u64) -> Option<(Vec<Item>, bool)> {
    let mut plain = sealed.to_vec();
    let size = open_with_nonce_in_place(&BINDING, &mut plain, key, &nonce(index)).ok()?;
    plain.truncate(size);
    let mut plain = Bytes::from(plain);
    if plain.is_empty() {
        return None;
    }
    let ends_group = plain.split_to(1)[0] == 1;
    let mut items = Vec::new();
    while !plain.is_empty() {
        items.push(Item::decode(&mut plain)?);
    }
    Some((items, ends_group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_header_is_torn_and_anothers_is_foreign() {
        let (register, secret) = (RegisterAddress([1; 32]), X25519Secret::from_bytes(&[3; 32]));
        let whole = header(&register, &secret, &[7; 32]);
        assert!(whole.len() <= HEADER_SIZE_LIMIT);
        assert_eq!(open_header(&whole, &register, &secret), Header::Ours([7; 32], whole.len()));
        for cut in 0..whole.len() {
            assert_eq!(open_header(&whole[..cut], &register, &secret), Header::Torn, "cut at {cut}");
            // As a file system leaves it that extended the file and lost the data.
            let mut zeros = whole[..cut].to_vec();
            zeros.resize(4096, 0);
            assert_eq!(open_header(&zeros, &register, &secret), Header::Torn, "zeros from {cut}");
        }
        let other = X25519Secret::from_bytes(&[4; 32]);
        assert_eq!(open_header(&whole, &register, &other), Header::Foreign);
        assert_eq!(open_header(&whole, &RegisterAddress([2; 32]), &secret), Header::Foreign);
        assert_eq!(open_header(b"hyphaj1\n and more", &register, &secret), Header::OtherVersion);
    }

    #[test]
    fn a_base_of_an_earlier_version_says_no_version() {
        let mut bytes = Bytes::from_static(&[1, 8, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Item::decode(&mut bytes), Some(Item::Base { number: 7, version: 0, tree: None }));
        let mut cut = Bytes::from_static(&[1, 9, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Item::decode(&mut cut), None);
    }

    #[test]
    fn items_survive_a_record() {
        let pointer = Pointer::example([5; 32], 1, 104);
        let items = vec![
            Item::Snapshot { session: [7; 8], device: 9, volume: VolumeId([5; 16]) },
            Item::Base { number: 3, version: 8, tree: Some(pointer) },
            Item::Base { number: 4, version: 0, tree: None },
            Item::Root(Record {
                version: 8,
                payload: Bytes::from_static(b"a root"),
                header_hash: HeaderHash([3; 32]),
                writer: PublicKey::from_bytes([4; 32]),
            }),
            Item::Delta(5),
            Item::Set(Key::Inode(1), Bytes::from_static(b"value")),
            Item::Removed(Key::Inode(2)),
            Item::Born(7..9),
        ];
        let (mut out, mut next) = (Vec::new(), 0);
        let mut records = Records::new(items.clone().into_iter(), &[8; 32], &mut next);
        assert!(records.next_into(&mut out) && !records.next_into(&mut out));
        assert_eq!(open_record(&out[4..], &[8; 32], 0), Some((items, true)));
        assert_eq!(open_record(&out[4..], &[8; 32], 1), None, "a record elsewhere is none");
        assert_eq!(next, 1);
    }
}
