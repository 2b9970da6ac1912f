//! What the owner needs again on a machine that has nothing but his key: sealed to himself, kept by every node.
//!
//! The key of a network's owner can be carried on paper; who belongs to his network and which nodes keep its drive can't.
//! So he seals that under a key that follows from his own, numbers and signs it, and gives it to the nodes, each of which keeps
//! the newest that it has seen and refuses an older one. Whoever holds the owner's key and reaches one member gets it back.
//! Nodes and other members see how large it is and when it changes, and can neither read nor make one.
//!
//! Two copies of the owner's home may seal one number each: of these the one with the greater hash is the newer, everywhere.
//! One that a node holds back, or an older one in its place, is not noticed by who asks that node alone.
//!
//! Not here: what is in it, how it spreads, and how what two copies say becomes one, which is the program's affair.

use bytes::Bytes;
use reactor::crypto::aead::{self, Key};
use reactor::crypto::derive::derive;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature, random_bytes};
use reactor::serialization::{from_bytes, to_bytes};
use serde::{Deserialize, Serialize};

/// Most bytes of what is sealed: a thousand members at half a KiB each, and room for as much again.
pub const CONTENT_BYTES_MAX: usize = 1 << 20;

/// Most bytes of an encoded keepsake.
pub const KEEPSAKE_BYTES_MAX: usize = CONTENT_BYTES_MAX + 1024;

const SALT_SIZE_BYTES: usize = 32;

/// Each salt makes a key of its own, which seals once: so the nonce may be constant.
const NONCE: [u8; aead::NONCE_SIZE_BYTES] = [0; aead::NONCE_SIZE_BYTES];

/// The owner's sealed and signed record of his network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Keepsake {
    version: u64,
    salt: Bytes,
    sealed: Bytes,
    signature: Signature,
}

/// What orders the keepsakes of one network: by number, and by hash where two have one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Counts the owner's changes. 0 is before the first.
    pub version: u64,
    hash: [u8; 32],
}

/// Why a keepsake is not taken or opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeepsakeError {
    /// The owner did not sign it, or it is sealed under another key than his.
    #[error("this is not what the network's owner signed and sealed")]
    Forged,
    /// More than nodes keep.
    #[error("what is to be kept for the owner is longer than {CONTENT_BYTES_MAX} bytes")]
    TooLong,
    /// It does not decode.
    #[error("this is nothing that is kept for an owner: it is damaged, or of another version")]
    Malformed,
}

impl Keepsake {
    /// Seals `content` as the owner's number `version`.
    ///
    /// # Errors
    /// `TooLong`.
    pub fn seal(owner: &Identity, version: u64, content: &[u8]) -> Result<Keepsake, KeepsakeError> {
        if content.len() > CONTENT_BYTES_MAX {
            return Err(KeepsakeError::TooLong);
        }
        let network = owner.public_key();
        let salt = random_bytes::<SALT_SIZE_BYTES>();
        let mut sealed = Vec::with_capacity(content.len() + aead::OVERHEAD_BYTES);
        sealed.extend_from_slice(content);
        aead::encrypt_in_place(&key(owner, &salt), &NONCE, &associated_data(&network, version), &mut sealed);
        let signature = owner.sign(&digest(&network, version, &salt, &sealed));
        Ok(Keepsake { version, salt: Bytes::copy_from_slice(&salt), sealed: sealed.into(), signature })
    }

    /// Opens it with the owner's key.
    ///
    /// # Errors
    /// `Forged` if it is not this owner's.
    pub fn open(&self, owner: &Identity) -> Result<Vec<u8>, KeepsakeError> {
        let network = owner.public_key();
        self.verify(&network)?;
        let mut content = self.sealed.to_vec();
        let bound_to = associated_data(&network, self.version);
        aead::decrypt_in_place(&key(owner, &self.salt), &NONCE, &bound_to, &mut content)
            .map_err(|_| KeepsakeError::Forged)?;
        Ok(content)
    }

    /// Whether it is the word of `network`'s owner.
    ///
    /// # Errors
    /// `Forged` or `TooLong`.
    pub fn verify(&self, network: &PublicKey) -> Result<(), KeepsakeError> {
        if self.sealed.len() > CONTENT_BYTES_MAX + aead::OVERHEAD_BYTES || self.salt.len() != SALT_SIZE_BYTES
        {
            return Err(KeepsakeError::TooLong);
        }
        let digest = digest(network, self.version, &self.salt, &self.sealed);
        network.verify(&digest, &self.signature).map_err(|_| KeepsakeError::Forged)
    }

    /// What orders it among others.
    pub fn stamp(&self) -> Stamp {
        let hash = sha3_256(&[b"hypha keepsake: stamp 1", &self.salt, &self.sealed]);
        Stamp { version: self.version, hash }
    }

    /// As bytes, to be stored and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Reads what [`to_bytes`](Keepsake::to_bytes) wrote. Verifies nothing.
    ///
    /// # Errors
    /// `Malformed` or `TooLong`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Keepsake, KeepsakeError> {
        if bytes.len() > KEEPSAKE_BYTES_MAX {
            return Err(KeepsakeError::TooLong);
        }
        from_bytes(bytes).map_err(|_| KeepsakeError::Malformed)
    }
}

fn key(owner: &Identity, salt: &[u8]) -> Key {
    Key::from_bytes(*derive(&*owner.seed(), salt, &[b"hypha keepsake: aes-256-gcm key, v1"]))
}

fn associated_data(network: &PublicKey, version: u64) -> [u8; 32] {
    sha3_256(&[b"hypha keepsake: sealed 1", network.as_bytes(), &version.to_be_bytes()])
}

fn digest(network: &PublicKey, version: u64, salt: &[u8], sealed: &[u8]) -> [u8; 32] {
    let content = sha3_256(&[b"hypha keepsake: content 1", salt, sealed]);
    sha3_256(&[b"hypha keepsake 1", network.as_bytes(), &version.to_be_bytes(), &content])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    #[test]
    fn only_the_owners_key_opens_what_the_owner_sealed() {
        let kept = Keepsake::seal(&owner(1), 7, b"who belongs to it").unwrap();
        assert_eq!(Keepsake::from_bytes(&kept.to_bytes()).as_ref(), Ok(&kept));
        assert_eq!(kept.open(&owner(1)).unwrap(), b"who belongs to it");
        assert_eq!(kept.open(&owner(2)), Err(KeepsakeError::Forged));
        assert_eq!(kept.verify(&owner(2).public_key()), Err(KeepsakeError::Forged));
        assert!(!kept.to_bytes().windows(7).any(|window| window == b"belongs"));
    }

    #[test]
    fn a_changed_keepsake_is_nobodys_word() {
        let kept = Keepsake::seal(&owner(1), 7, b"x").unwrap();
        let network = owner(1).public_key();
        let bytes = kept.to_bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let taken = Keepsake::from_bytes(&changed).and_then(|kept| kept.verify(&network));
            assert!(taken.is_err(), "byte {at}");
        }
        let renumbered = Keepsake { version: 8, ..kept };
        assert_eq!(renumbered.verify(&network), Err(KeepsakeError::Forged));
    }

    #[test]
    fn keepsakes_have_one_order_whoever_compares_them() {
        let [first, second] = [0, 1].map(|_| Keepsake::seal(&owner(1), 7, b"x").unwrap());
        assert_ne!(first.stamp(), second.stamp(), "one salt each");
        let later = Keepsake::seal(&owner(1), 8, b"x").unwrap();
        assert!(later.stamp() > first.stamp() && later.stamp() > second.stamp());
        assert!(Stamp::default() < first.stamp());
    }

    #[test]
    fn the_longest_fits_its_bound_and_a_longer_one_is_refused() {
        let longest = Keepsake::seal(&owner(1), u64::MAX, &vec![0; CONTENT_BYTES_MAX]).unwrap();
        assert!(longest.to_bytes().len() <= KEEPSAKE_BYTES_MAX);
        assert!(longest.open(&owner(1)).is_ok());
        let longer = Keepsake::seal(&owner(1), 1, &vec![0; CONTENT_BYTES_MAX + 1]);
        assert_eq!(longer, Err(KeepsakeError::TooLong));
        assert_eq!(Keepsake::from_bytes(&vec![0; KEEPSAKE_BYTES_MAX + 1]), Err(KeepsakeError::TooLong));
    }
}
