//! Who may read a volume, and the root record that only they can open.
//!
//! The register's payload is the one thing that names the tree. Its body is sealed under a key that one writer's session
//! draws at random, and that key is sealed to each reader's X25519 key, once a session, because X25519 costs more than
//! all else in a small commit. The readers are listed in the body, so that whoever writes next seals to all of them.
//! Who may *write* is the register's access list, which the store checks; it is no concern of this file.
//!
//! Payload: `3, volume id 16, reader count u16, (size u16, sealed session key) for each, nonce 12, sealed body`. The body
//! is a [`Root`], sealed as a chunk is: padded to a size class, and bound to the format, its kind and the volume.

pub(crate) mod collection;
pub mod groups;
mod link;
pub mod list;
mod root;
pub mod sharing;

use bytes::Bytes;
use dht::RegisterAddress;
use reactor::crypto::{X25519Public, X25519Secret, random_bytes, seal};

use crate::chunk::{Binding, ChunkKind, open_with_nonce_in_place, seal_with_nonce_into, sealed_size};
use crate::format::VolumeId;
pub use link::{LINK_SIZE_MAX, SpaceLink};
use root::Reader;
#[cfg(test)]
pub(crate) use root::example;
pub use root::{Charter, Extension, Features, Root};

/// The payload's form.
const VERSION: u8 = 3;

/// How many may read a volume: their sealed keys and their names in the body fit a register's 64 KiB.
pub const READER_COUNT_MAX: usize = 256;
/// Bytes of an author's name that are kept.
pub const AUTHOR_SIZE_MAX: usize = 64;

/// What stands in the place of the root of a volume that its owner gave up: it opens to nobody. No root begins so. That it is the owner's
/// word, and no other writer's, says who signed the register's value.
pub const GIVEN_UP: &[u8] = b"hypha: this space was given up by its owner";

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

/// Why a root record does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The bytes are not what this version writes.
    #[error("the volume's root record is malformed: it was written by a newer version, or is no volume's")]
    Malformed,
    /// The volume uses features that this version does not know and must not touch.
    #[error(
        "the volume uses features that this version does not know (flags {flags:#x}): \
         use the newer version that wrote it; nothing was changed"
    )]
    Newer {
        /// The unknown ones.
        flags: u64,
    },
    /// The root was made for another version of the register.
    #[error(
        "the register's version {found} holds a root that was made for version {made_for}: \
         a writer put an old root back; do not write until the owner has looked"
    )]
    Misplaced {
        /// Which version it was made for.
        made_for: u64,
        /// Which version it was found in.
        found: u64,
    },
    /// Our key opens none of the sealed keys.
    #[error("the volume is not readable with this identity: ask a reader of it to add you")]
    NotAReader,
    /// It says [`GIVEN_UP`].
    #[error("it was given up, and opens to nobody any more")]
    GivenUp,
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
        let charter = &root.charter;
        let readers = &charter.readers[..charter.readers.len().min(READER_COUNT_MAX)];
        if self.header.is_empty() || self.sealed_for != readers {
            // A new list gets a new key: whoever left it must not read what comes.
            self.session_key = random_bytes();
            self.header = vec![VERSION];
            self.header.extend_from_slice(&charter.volume.0);
            self.header.extend_from_slice(&(readers.len() as u16).to_le_bytes());
            for reader in readers {
                let sealed = seal::seal_to(reader, &self.session_key);
                self.header.extend_from_slice(&(sealed.len() as u16).to_le_bytes());
                self.header.extend_from_slice(&sealed);
            }
            self.sealed_for = readers.to_vec();
        }
        let mut body = Vec::with_capacity(512);
        root.encode(&mut body);
        // A session's roots share a key: 96 random bits repeat with probability 2^-32 after 2^32 commits.
        let nonce: [u8; 12] = random_bytes();
        let mut payload = Vec::with_capacity(self.header.len() + 12 + sealed_size(body.len()));
        payload.extend_from_slice(&self.header);
        payload.extend_from_slice(&nonce);
        seal_with_nonce_into(&mut payload, &binding(charter.volume), &body, &self.session_key, &nonce);
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

fn binding(volume: VolumeId) -> Binding {
    Binding { kind: ChunkKind::Root, volume }
}

/// Opens the payload of the register's version `version`.
///
/// # Errors
///
/// [`RootError`], see there.
pub fn open_root(payload: &[u8], version: u64, secret: &X25519Secret) -> Result<Root, RootError> {
    if payload == GIVEN_UP {
        return Err(RootError::GivenUp);
    }
    let mut reader = Reader(payload);
    if reader.take(1) != Some(&[VERSION]) {
        return Err(RootError::Malformed);
    }
    let volume = VolumeId(reader.array().ok_or(RootError::Malformed)?);
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
    let size = open_with_nonce_in_place(&binding(volume), &mut body, &session_key, &nonce)
        .map_err(|_| RootError::Malformed)?;
    let root = Root::decode(&body[..size])?;
    if root.charter.volume != volume {
        return Err(RootError::Malformed);
    }
    match root.version {
        made_for if made_for != version => Err(RootError::Misplaced { made_for, found: version }),
        _ => Ok(root),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_opens_the_root_and_nobody_else() {
        let (first, second, stranger) =
            (X25519Secret::generate(), X25519Secret::generate(), X25519Secret::generate());
        let root = example(vec![first.public(), second.public()]);
        let mut sealer = RootSealer::new();
        let payload = sealer.seal(&root);
        assert_eq!(open_root(&payload, 15, &first).unwrap(), root);
        assert_eq!(open_root(&payload, 15, &second).unwrap(), root);
        assert_eq!(open_root(&payload, 15, &stranger), Err(RootError::NotAReader));
        assert_ne!(sealer.seal(&root), payload, "no nonce is used twice");
    }

    #[test]
    fn a_root_opens_only_in_its_place() {
        let secret = X25519Secret::generate();
        let payload = RootSealer::new().seal(&example(vec![secret.public()]));
        let misplaced = RootError::Misplaced { made_for: 15, found: 16 };
        assert_eq!(open_root(&payload, 16, &secret), Err(misplaced));
    }

    #[test]
    fn a_flipped_or_missing_byte_is_an_error() {
        let secret = X25519Secret::generate();
        let payload = RootSealer::new().seal(&example(vec![secret.public()]));
        for at in 0..payload.len() {
            let mut flipped = payload.to_vec();
            flipped[at] ^= 1;
            assert!(open_root(&flipped, 15, &secret).is_err(), "byte {at}");
            assert!(open_root(&payload[..at], 15, &secret).is_err(), "cut at {at}");
        }
    }
}
