//! The local journal of write-back mode: what `fsync` acknowledged and no quorum holds yet.
//!
//! One file for each delta, named by its number, in a directory of its own; when the delta is committed its file goes.
//! A file is append-only: a header, then groups of records, each group the keys that changed since the last one with
//! their values of now. A group counts only if its last record is there and verifies, so a torn end loses nothing that
//! was acknowledged. Everything is encrypted: a file's key is random, and sealed to our own X25519 key in its header.
//!
//! File: `"hyphaj1\n", size u16, sealed key`, then records `size u32, sealed`, whose nonce is their index. A record's
//! plaintext: `1` if it ends its group else `0`, then items `kind u8, key size u16, value size u32, key, value`; see
//! [`Item`]. Blocking calls go to a helper thread.
//!
//! It is no log of operations: replaying it sets keys, however often it is done.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dht::{HeaderHash, RegisterAddress};
use reactor::crypto::{X25519Secret, random_bytes, seal};
use reactor::offload;
use reactor::sync::Mutex;

use crate::access::VolumeKeys;
use crate::chunk::{Binding, ChunkKind, open_with_nonce_in_place, seal_with_nonce_into};
use crate::format::{Key, Pointer, VolumeId};

/// A record is bound to no volume's id: its file's key is its own, and the file says which register it belongs to.
const BINDING: Binding = Binding { kind: ChunkKind::Journal, volume: VolumeId([0; 16]) };
const MAGIC: &[u8; 8] = b"hyphaj1\n";
/// A record is cut when it passes this; bounds what a reader allocates.
const RECORD_SIZE: usize = 1024 * 1024;
const RECORD_SIZE_LIMIT: usize = 2 * RECORD_SIZE;

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The directory can't be read or written.
    #[error("the journal in {0} cannot be used: {1}; check the directory's permissions and space")]
    Io(PathBuf, #[source] io::Error),
    /// The file belongs to another volume or another user's key.
    #[error(
        "the journal file {0} was written by another identity or for another volume: move it away to go on without it"
    )]
    Foreign(PathBuf),
}

/// What a record holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// Which delta of which session and volume this is.
    Identity { session: [u8; 8], number: u64, register: RegisterAddress },
    /// The root that the changes are based on.
    Base { header: HeaderHash, tree: Option<Pointer> },
    /// A key's new value, encoded as in a leaf.
    Set(Key, Bytes),
    /// A key is gone.
    Removed(Key),
}

impl Item {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut pointer = Vec::new();
        let (kind, key, value): (u8, &[u8], &[u8]) = match self {
            Item::Identity { session, number, register } => {
                pointer.extend_from_slice(&number.to_le_bytes());
                pointer.extend_from_slice(&register.0);
                (0, session, &pointer)
            }
            Item::Base { header, tree } => {
                if let Some(tree) = tree {
                    tree.encode(false, &mut pointer);
                }
                (1, &header.0, &pointer)
            }
            Item::Set(key, value) => (2, &key.encode(), value),
            Item::Removed(key) => (3, &key.encode(), &[]),
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
        match header[0] {
            0 => Some(Item::Identity {
                session: key.as_ref().try_into().ok()?,
                number: u64::from_le_bytes(value.get(..8)?.try_into().ok()?),
                register: RegisterAddress(value.get(8..)?.try_into().ok()?),
            }),
            1 => Some(Item::Base {
                header: HeaderHash(key.as_ref().try_into().ok()?),
                tree: if value.is_empty() { None } else { Some(Pointer::decode(&value, &[0; 32])?) },
            }),
            2 => Some(Item::Set(Key::decode(&key)?, value)),
            3 => Some(Item::Removed(Key::decode(&key)?)),
            _ => None,
        }
    }
}

/// One file, read back.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) session: [u8; 8],
    pub(crate) number: u64,
    pub(crate) base: Option<(HeaderHash, Option<Pointer>)>,
    /// `None`: removed.
    pub(crate) changes: BTreeMap<Key, Option<Bytes>>,
}

/// An open file.
struct Open {
    file: Arc<File>,
    number: u64,
    key: [u8; 32],
    record_count: u64,
}

/// The journal of one mounted volume.
pub(crate) struct Journal {
    directory: PathBuf,
    secret: X25519Secret,
    register: RegisterAddress,
    /// One group is written at a time; who waits meanwhile shares the next.
    pub(crate) turn: Mutex<()>,
    open: RefCell<Option<Open>>,
    /// A write failed: what follows a torn record could not be read back.
    pub(crate) broken: Cell<bool>,
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("journal-{number:016x}"))
}

fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("journal-"));
        numbers.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Journal {
    pub(crate) fn new(directory: PathBuf, keys: &VolumeKeys) -> Journal {
        Journal {
            directory,
            secret: keys.secret.clone(),
            register: keys.register,
            turn: Mutex::new(()),
            open: RefCell::new(None),
            broken: Cell::new(false),
        }
    }

    fn error(&self, error: io::Error) -> JournalError {
        JournalError::Io(self.directory.clone(), error)
    }

    /// Reads all files, oldest first, and returns the highest number with them.
    ///
    /// # Suspends
    ///
    /// While they are read.
    pub(crate) fn read(&self) -> Result<(Vec<Replay>, u64), JournalError> {
        let directory = self.directory.clone();
        let files = offload(move || {
            std::fs::create_dir_all(&directory)?;
            let numbers = numbers(&directory)?;
            numbers
                .into_iter()
                .map(|n| Ok((n, std::fs::read(path_of(&directory, n))?)))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|error| self.error(error))?;
        let mut replays = Vec::new();
        let mut highest = 0;
        for (number, bytes) in files {
            highest = number;
            match parse(bytes, &self.secret) {
                Parsed::File(key, groups) => replays.extend(self.replay(number, groups, &key)?),
                // Cut off before its first group was durable: nothing in it was acknowledged.
                Parsed::Torn => {}
                Parsed::Foreign => return Err(JournalError::Foreign(path_of(&self.directory, number))),
            }
        }
        Ok((replays, highest))
    }

    fn replay(&self, number: u64, items: Vec<Item>, _key: &[u8; 32]) -> Result<Option<Replay>, JournalError> {
        let mut replay = Replay { session: [0; 8], number, base: None, changes: BTreeMap::new() };
        if items.is_empty() {
            return Ok(None);
        }
        for item in items {
            match item {
                Item::Identity { register, .. } if register != self.register => {
                    return Err(JournalError::Foreign(path_of(&self.directory, number)));
                }
                Item::Identity { session, .. } => replay.session = session,
                Item::Base { header, tree } => replay.base = Some((header, tree)),
                Item::Set(key, value) => drop(replay.changes.insert(key, Some(value))),
                Item::Removed(key) => drop(replay.changes.insert(key, None)),
            }
        }
        Ok(Some(replay))
    }

    /// Whether the next group for delta `number` starts a file.
    pub(crate) fn starts_file(&self, number: u64) -> bool {
        self.open.borrow().as_ref().is_none_or(|open| open.number != number)
    }

    /// Appends one group to the file of delta `number`; the first one starts the file. Callers hold the `turn`.
    ///
    /// # Suspends
    ///
    /// Until it is durable.
    pub(crate) fn append(&self, number: u64, items: &[Item]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        let new = self.starts_file(number);
        if new {
            let key: [u8; 32] = random_bytes();
            let sealed = seal::seal_to(&self.secret.public(), &key);
            bytes.extend_from_slice(MAGIC);
            bytes.extend_from_slice(&(sealed.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&sealed);
            let (directory, path) = (self.directory.clone(), path_of(&self.directory, number));
            let file = offload(move || {
                let file = File::create(path)?;
                File::open(directory)?.sync_all()?;
                Ok(file)
            })
            .map_err(|error| self.error(error))?;
            *self.open.borrow_mut() = Some(Open { file: Arc::new(file), number, key, record_count: 0 });
        }
        let file = {
            let mut open = self.open.borrow_mut();
            let Some(open) = open.as_mut() else { return Ok(()) };
            seal_group(items, open, &mut bytes);
            open.file.clone()
        };
        let result = offload(move || {
            (&*file).write_all(&bytes)?;
            file.sync_data()
        });
        result.map_err(|error| {
            self.broken.set(true);
            self.error(error)
        })
    }

    /// Removes the files of all deltas up to `number`: they are committed.
    ///
    /// # Suspends
    ///
    /// While they are removed.
    pub(crate) fn truncate(&self, number: u64) {
        let directory = self.directory.clone();
        let result = offload(move || -> io::Result<()> {
            for old in numbers(&directory)?.into_iter().filter(|old| *old <= number) {
                std::fs::remove_file(path_of(&directory, old))?;
            }
            Ok(())
        });
        if let Err(error) = result {
            // Replaying what is committed is harmless.
            tracing::warn!(%error, "old journal files are not removed");
        }
    }
}

fn nonce(record: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&record.to_le_bytes());
    nonce
}

fn seal_group(items: &[Item], open: &mut Open, out: &mut Vec<u8>) {
    let mut plain = vec![0];
    let mut rest = items.iter().peekable();
    while let Some(item) = rest.next() {
        item.encode(&mut plain);
        let last = rest.peek().is_none();
        if last || plain.len() >= RECORD_SIZE {
            plain[0] = u8::from(last);
            let size_at = out.len();
            out.extend_from_slice(&[0; 4]);
            seal_with_nonce_into(out, &BINDING, &plain, &open.key, &nonce(open.record_count));
            let size = (out.len() - size_at - 4) as u32;
            out[size_at..size_at + 4].copy_from_slice(&size.to_le_bytes());
            open.record_count += 1;
            plain.truncate(1);
        }
    }
}

enum Parsed {
    File([u8; 32], Vec<Item>),
    Torn,
    Foreign,
}

/// Reads a file's complete groups.
fn parse(bytes: Vec<u8>, secret: &X25519Secret) -> Parsed {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        let torn = bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes);
        return if torn { Parsed::Torn } else { Parsed::Foreign };
    };
    let Some((size, rest)) = rest.split_at_checked(2) else { return Parsed::Torn };
    let size = usize::from(u16::from_le_bytes([size[0], size[1]]));
    let Some((sealed, mut rest)) = rest.split_at_checked(size) else { return Parsed::Torn };
    let Some(key) = seal::open(secret, sealed).ok().and_then(|key| <[u8; 32]>::try_from(key.as_slice()).ok())
    else {
        return Parsed::Foreign;
    };
    let (mut items, mut group) = (Vec::new(), Vec::new());
    for record in 0.. {
        let Some((size, after)) = rest.split_at_checked(4) else { break };
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        if size > RECORD_SIZE_LIMIT {
            break;
        }
        let Some((sealed, after)) = after.split_at_checked(size) else { break };
        rest = after;
        let mut plain = sealed.to_vec();
        let Ok(size) = open_with_nonce_in_place(&BINDING, &mut plain, &key, &nonce(record)) else {
            break;
        };
        plain.truncate(size);
        let mut plain = Bytes::from(plain);
        if plain.is_empty() {
            break;
        }
        let ends_group = plain.split_to(1)[0] == 1;
        while !plain.is_empty() {
            match Item::decode(&mut plain) {
                Some(item) => group.push(item),
                None => return Parsed::File(key, items),
            }
        }
        if ends_group {
            items.append(&mut group);
        }
    }
    Parsed::File(key, items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(directory: &Path) -> Journal {
        let secret = X25519Secret::from_bytes(&[3; 32]);
        Journal::new(
            directory.into(),
            &VolumeKeys { register: RegisterAddress([1; 32]), secret, readers: Vec::new() },
        )
    }

    fn group(number: u8) -> Vec<Item> {
        let identity = Item::Identity { session: [7; 8], number: 5, register: RegisterAddress([1; 32]) };
        vec![
            identity,
            Item::Set(Key::Extent(1, u64::from(number)), Bytes::from(vec![number; 30_000])),
            Item::Removed(Key::Inode(u64::from(number))),
        ]
    }

    #[test]
    fn groups_come_back_and_a_torn_end_loses_only_the_last() {
        reactor::run(|| {
            let directory = tempfile::tempdir().unwrap();
            let journal = journal(directory.path());
            journal.read().unwrap();
            journal.append(5, &group(1)).unwrap();
            journal.append(5, &group(2)).unwrap();
            let path = path_of(directory.path(), 5);
            let whole = std::fs::read(&path).unwrap();
            assert!(!whole.windows(8).any(|window| window == [1; 8]), "encrypted at rest");
            let (replays, highest) = journal.read().unwrap();
            assert_eq!((replays[0].changes.len(), replays[0].session, highest), (4, [7; 8], 5));
            for cut in [0, 5, 9, 60, 200, whole.len() / 2 + 200, whole.len() - 1] {
                std::fs::write(&path, &whole[..cut]).unwrap();
                let changes = journal.read().unwrap().0.first().map_or(0, |replay| replay.changes.len());
                assert_eq!(changes, if cut > whole.len() / 2 + 100 { 2 } else { 0 }, "cut at {cut}");
            }
            for at in [120, whole.len() - 50] {
                let mut flipped = whole.clone();
                flipped[at] ^= 4;
                std::fs::write(&path, flipped).unwrap();
                assert!(journal.read().map_or(0, |read| read.0.first().map_or(0, |r| r.changes.len())) < 4);
            }
            journal.truncate(5);
            assert!(journal.read().unwrap().0.is_empty());
        });
    }

    #[test]
    fn anothers_journal_is_not_replayed() {
        reactor::run(|| {
            let directory = tempfile::tempdir().unwrap();
            let journal = journal(directory.path());
            journal.append(1, &group(1)).unwrap();
            let mut keys = VolumeKeys {
                register: RegisterAddress([1; 32]),
                secret: X25519Secret::from_bytes(&[4; 32]),
                readers: Vec::new(),
            };
            assert!(matches!(
                Journal::new(directory.path().into(), &keys).read(),
                Err(JournalError::Foreign(_))
            ));
            keys.secret = X25519Secret::from_bytes(&[3; 32]);
            keys.register = RegisterAddress([2; 32]);
            assert!(matches!(
                Journal::new(directory.path().into(), &keys).read(),
                Err(JournalError::Foreign(_))
            ));
        });
    }
}
