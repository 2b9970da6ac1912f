//! Who may read a volume, and the root record that only they can open.
//!
//! The register's payload is the one thing that names the tree. Its body is sealed under a key that one writer's session
//! draws at random, and that key is sealed to each reader's X25519 key, once a session, because X25519 costs more than
//! all else in a small commit. The readers are listed in the body, so that whoever writes next seals to all of them.
//! Who may *write* is the register's access list, which the store checks; it is no concern of this file.
//!
//! Payload: `1, reader count u16, (size u16, sealed session key) for each, nonce 12, sealed body`. Body: `1, commit id 16,
//! seconds i64, nanoseconds u32, name key 32, author size u8, author, reader count u16, X25519 keys, tree`, where the tree
//! is a pointer or nothing. The body is padded to a size class.

use bytes::Bytes;
use dht::RegisterAddress;
use reactor::crypto::{X25519Public, X25519Secret, random_bytes, seal};

use crate::chunk::{ChunkKind, open_with_nonce_in_place, seal_with_nonce_into, sealed_size};
use crate::format::Pointer;
use crate::operations::Time;

/// How many may read a volume: their sealed keys and their names in the body fit a register's 64 KiB.
pub const READER_COUNT_MAX: usize = 256;
/// Bytes of an author's name that are kept.
pub const AUTHOR_SIZE_MAX: usize = 64;

/// What it takes to find and read a volume.
#[derive(Clone)]
pub struct VolumeKeys {
    /// The register that holds the root, open in the store.
    pub register: RegisterAddress,
    /// Our secret, under which the root is sealed to us.
    pub secret: X25519Secret,
    /// Who else may read, when the volume is created.
    pub readers: Vec<X25519Public>,
}

/// A volume's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// The tree, or `None` if it is empty.
    pub tree: Option<Pointer>,
    /// Random: tells one's own commit from another's.
    pub commit: [u8; 16],
    /// When.
    pub time: Time,
    /// Who.
    pub author: String,
    /// The key under which names are hashed, so that nobody outside can choose names that collide.
    pub name_key: [u8; 32],
    /// Who may read.
    pub readers: Vec<X25519Public>,
}

/// Why a root record does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The bytes are not what this version writes.
    #[error("the volume's root record is malformed: it was written by a newer version, or is no volume's")]
    Malformed,
    /// Our key opens none of the sealed keys.
    #[error("the volume is not readable with this identity: ask a reader of it to add you")]
    NotAReader,
}

/// Seals roots for one session.
pub struct RootSealer {
    session_key: [u8; 32],
    sealed_for: Vec<X25519Public>,
    header: Vec<u8>,
}

impl RootSealer {
    /// Draws a session key.
    pub fn new() -> RootSealer {
        RootSealer { session_key: random_bytes(), sealed_for: Vec::new(), header: Vec::new() }
    }

    /// Returns the register's payload for `root`.
    pub fn seal(&mut self, root: &Root) -> Bytes {
        let readers = &root.readers[..root.readers.len().min(READER_COUNT_MAX)];
        if self.header.is_empty() || self.sealed_for != readers {
            // A new list gets a new key: whoever left it must not read what comes.
            self.session_key = random_bytes();
            self.header = vec![1];
            self.header.extend_from_slice(&(readers.len() as u16).to_le_bytes());
            for reader in readers {
                let sealed = seal::seal_to(reader, &self.session_key);
                self.header.extend_from_slice(&(sealed.len() as u16).to_le_bytes());
                self.header.extend_from_slice(&sealed);
            }
            self.sealed_for = readers.to_vec();
        }
        let mut body = Vec::with_capacity(512);
        body.push(1);
        body.extend_from_slice(&root.commit);
        body.extend_from_slice(&root.time.seconds.to_le_bytes());
        body.extend_from_slice(&root.time.nanoseconds.to_le_bytes());
        body.extend_from_slice(&root.name_key);
        let author = &root.author.as_bytes()[..root.author.floor_char_boundary(AUTHOR_SIZE_MAX)];
        body.push(author.len() as u8);
        body.extend_from_slice(author);
        body.extend_from_slice(&(readers.len() as u16).to_le_bytes());
        for reader in readers {
            body.extend_from_slice(reader.as_bytes());
        }
        if let Some(tree) = &root.tree {
            tree.encode(false, &mut body);
        }
        // A session's roots share a key: 96 random bits repeat with probability 2^-32 after 2^32 commits.
        let nonce: [u8; 12] = random_bytes();
        let mut payload = Vec::with_capacity(self.header.len() + 12 + sealed_size(body.len()));
        payload.extend_from_slice(&self.header);
        payload.extend_from_slice(&nonce);
        seal_with_nonce_into(&mut payload, ChunkKind::Root, &body, &self.session_key, &nonce);
        Bytes::from(payload)
    }
}

impl Default for RootSealer {
    fn default() -> Self {
        RootSealer::new()
    }
}

impl Drop for RootSealer {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.session_key);
    }
}

/// Opens a register's payload.
///
/// # Errors
///
/// [`RootError`], see there.
pub fn open_root(payload: &[u8], secret: &X25519Secret) -> Result<Root, RootError> {
    let mut reader = Reader(payload);
    if reader.take(1) != Some(&[1]) {
        return Err(RootError::Malformed);
    }
    let count = usize::from(reader.u16().ok_or(RootError::Malformed)?);
    if count > READER_COUNT_MAX {
        return Err(RootError::Malformed);
    }
    let mut session_key = None;
    for _ in 0..count {
        let size = usize::from(reader.u16().ok_or(RootError::Malformed)?);
        let sealed = reader.take(size).ok_or(RootError::Malformed)?;
        if session_key.is_none() {
            session_key =
                seal::open(secret, sealed).ok().and_then(|key| <[u8; 32]>::try_from(key.as_slice()).ok());
        }
    }
    let session_key = session_key.ok_or(RootError::NotAReader)?;
    let nonce: [u8; 12] = reader.array().ok_or(RootError::Malformed)?;
    let mut body = reader.0.to_vec();
    let size = open_with_nonce_in_place(ChunkKind::Root, &mut body, &session_key, &nonce)
        .map_err(|_| RootError::Malformed)?;
    decode_body(&body[..size]).ok_or(RootError::Malformed)
}

fn decode_body(body: &[u8]) -> Option<Root> {
    let mut reader = Reader(body);
    if reader.take(1)? != [1] {
        return None;
    }
    let commit = reader.array()?;
    let seconds = i64::from_le_bytes(reader.array()?);
    let nanoseconds = u32::from_le_bytes(reader.array()?).min(999_999_999);
    let name_key = reader.array()?;
    let author_size = usize::from(reader.take(1)?[0]);
    let author = String::from_utf8(reader.take(author_size)?.to_vec()).ok()?;
    let count = usize::from(reader.u16()?);
    if count > READER_COUNT_MAX {
        return None;
    }
    let readers =
        (0..count).map(|_| Some(X25519Public::from_bytes(reader.array()?))).collect::<Option<_>>()?;
    let tree = match reader.0 {
        [] => None,
        bytes => Some(Pointer::decode(bytes, &[0; 32])?),
    };
    Some(Root { tree, commit, time: Time { seconds, nanoseconds }, author, name_key, readers })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(readers: Vec<X25519Public>) -> Root {
        Root {
            tree: Some(Pointer { address: [1; 32], offset: 2, length: 300, key: [4; 32] }),
            commit: [5; 16],
            time: Time { seconds: 6, nanoseconds: 7 },
            author: "äuthor".into(),
            name_key: [8; 32],
            readers,
        }
    }

    #[test]
    fn every_reader_opens_the_root_and_nobody_else() {
        let (first, second, stranger) =
            (X25519Secret::generate(), X25519Secret::generate(), X25519Secret::generate());
        let root = root(vec![first.public(), second.public()]);
        let mut sealer = RootSealer::new();
        let payload = sealer.seal(&root);
        assert_eq!(open_root(&payload, &first).unwrap(), root);
        assert_eq!(open_root(&payload, &second).unwrap(), root);
        assert_eq!(open_root(&payload, &stranger), Err(RootError::NotAReader));
        assert_ne!(sealer.seal(&root), payload, "no nonce is used twice");
    }

    #[test]
    fn a_flipped_or_missing_byte_is_an_error() {
        let secret = X25519Secret::generate();
        let payload = RootSealer::new().seal(&root(vec![secret.public()]));
        for at in 0..payload.len() {
            let mut flipped = payload.to_vec();
            flipped[at] ^= 1;
            assert!(open_root(&flipped, &secret).is_err(), "byte {at}");
            assert!(open_root(&payload[..at], &secret).is_err(), "cut at {at}");
        }
    }
}
