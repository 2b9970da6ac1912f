//! Who someone is: an Ed25519 key pair, and the public half that everyone else knows them by.
//!
//! A node and a user are each one [`Identity`]. Its seed is the only thing worth keeping; everything else
//! (the public key, the sealing key) follows from it. A [`PublicKey`] is 32 bytes that *claim* to be a
//! point: nothing is checked until a signature is verified under it, so that tables and messages may hold
//! keys without paying for a decompression each.
//!
//! Verification is strict (RFC 8032 with small-order keys and malleable encodings refused): a signature
//! that one replica accepts must be accepted by every other.
//!
//! What it is not: permission. A passport, in the overlay, says what a key may do.

use crate::crypto::derive::derive;
use crate::crypto::hash::sha3_256_plain;
use crate::crypto::{random_bytes, seal::X25519Secret};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// What separates the sealing key from any other key that may one day be derived from the same seed.
const SEALING_KEY_INFO: &[u8] = b"hypha identity: x25519 sealing key, v1";

/// An Ed25519 key pair: holding one means being able to act as its public key.
///
/// The secret half is wiped from memory when the value is dropped. There is no `Serialize`: write
/// [`Identity::seed`] to a file of mode 0600 and nowhere else.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// Makes a new identity from the operating system's randomness.
    pub fn generate() -> Identity {
        Identity::from_seed(&Zeroizing::new(random_bytes()))
    }

    /// The identity that this 32-byte seed stands for; the same seed always gives the same one.
    pub fn from_seed(seed: &[u8; 32]) -> Identity {
        Identity { key: SigningKey::from_bytes(seed) }
    }

    /// The secret from which this identity can be made again.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    /// Signs `message`.
    ///
    /// Ed25519 has no domain separation: begin every kind of message with a constant of its own, or a
    /// signature given for one purpose can be shown for another.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.key.sign(message).to_bytes())
    }

    /// The X25519 key to which others seal secrets for this identity.
    ///
    /// Derived from the seed by HKDF-SHA256, so that one stored secret serves both; it is not the Ed25519
    /// scalar in another form, so neither key's use says anything about the other.
    pub fn sealing_key(&self) -> X25519Secret {
        X25519Secret::from_bytes(&derive(self.key.as_bytes(), b"", &[SEALING_KEY_INFO]))
    }
}

/// Its only field is wiped.
impl ZeroizeOnDrop for Identity {}

impl fmt::Debug for Identity {
    /// The public half only: a secret must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public_key())
    }
}

/// 32 bytes that stand for someone's Ed25519 public key. Shown as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(#[serde(with = "serde_bytes")] [u8; 32]);

impl PublicKey {
    /// Takes the bytes at their word; [`PublicKey::verify`] refuses what is no good key.
    pub const fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// The 32 bytes of RFC 8032.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` was made over `message` by the holder of this key.
    ///
    /// # Errors
    /// [`BadSignature`] if not, or if these bytes are no usable key: drop the message, its sender is
    /// broken or hostile.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0))
            .map_err(|_| BadSignature)
    }

    /// The bare SHA3-256 of the key: what a node's id is, and what a dialler checks.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha3_256_plain(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<PublicKey, ParseKeyError> {
        let bytes = HEXLOWER.decode(text.to_ascii_lowercase().as_bytes()).map_err(|_| ParseKeyError)?;
        bytes.try_into().map(PublicKey).map_err(|_| ParseKeyError)
    }
}

/// An Ed25519 signature: 64 bytes, good or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature(#[serde(with = "serde_bytes")] [u8; 64]);

impl Signature {
    /// Takes the bytes at their word.
    pub const fn from_bytes(bytes: [u8; 64]) -> Signature {
        Signature(bytes)
    }

    /// The 64 bytes of RFC 8032.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}..)", HEXLOWER.encode(&self.0[..8]))
    }
}

/// The signature is not this key's over this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not belong to this key and message: refuse whatever it came with")]
pub struct BadSignature;

/// The text is not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key is written as 64 hexadecimal digits: check that it was copied whole")]
pub struct ParseKeyError;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_vectors_of_rfc_8032_hold() {
        // Section 7.1, tests 1 to 3: seed, public key, message, signature.
        let vectors: [(&str, &str, &[u8], &str); 3] = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                b"",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &[0x72],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                &[0xaf, 0x82],
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (seed, public, message, signature) in vectors {
            let identity = Identity::from_seed(&hex(seed));
            assert_eq!(identity.public_key().to_string(), public);
            let made = identity.sign(message);
            assert_eq!(made.as_bytes(), &hex::<64>(signature));
            assert_eq!(identity.public_key().verify(message, &made), Ok(()));
        }
    }

    #[test]
    fn a_changed_message_signature_or_key_does_not_verify() {
        let identity = Identity::generate();
        let signature = identity.sign(b"pay ten");
        let public = identity.public_key();
        assert_eq!(public.verify(b"pay one", &signature), Err(BadSignature));
        for bit in [0, 255, 256, 511] {
            let mut bytes = *signature.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(public.verify(b"pay ten", &Signature::from_bytes(bytes)), Err(BadSignature));
        }
        assert_eq!(Identity::generate().public_key().verify(b"pay ten", &signature), Err(BadSignature));
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // The identity point: under it, lax verification accepts one signature for every message.
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let verdict = PublicKey::from_bytes(weak).verify(b"anything", &Signature::from_bytes(signature));
        assert_eq!(verdict, Err(BadSignature));
    }

    #[test]
    fn a_key_reads_back_from_its_text_and_its_message() {
        let key = Identity::generate().public_key();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.to_string().to_uppercase().parse(), Ok(key));
        assert_eq!("abc".parse::<PublicKey>(), Err(ParseKeyError));
        let bytes = crate::serialization::to_bytes(&key);
        assert_eq!(bytes.len(), 34, "a key travels as 32 bytes and a header of two");
        assert_eq!(crate::serialization::from_bytes::<PublicKey>(&bytes).unwrap(), key);
    }

    #[test]
    fn the_seed_gives_the_same_identity_and_sealing_key_again() {
        let first = Identity::generate();
        let second = Identity::from_seed(&first.seed());
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(first.sealing_key().public(), second.sealing_key().public());
        assert_ne!(first.sealing_key().public(), Identity::generate().sealing_key().public());
        assert!(!format!("{first:?}").contains(&HEXLOWER.encode(&*first.seed())));
    }

    proptest! {
        #[test]
        fn random_keys_and_signatures_never_panic_nor_verify(
            key: [u8; 32], front: [u8; 32], back: [u8; 32], message: Vec<u8>,
        ) {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&front);
            signature[32..].copy_from_slice(&back);
            let verdict = PublicKey::from_bytes(key).verify(&message, &Signature::from_bytes(signature));
            prop_assert_eq!(verdict, Err(BadSignature));
        }
    }
}
