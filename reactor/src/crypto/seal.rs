//! How a secret reaches one person: sealed to their X25519 key, by anyone, readable by them alone.
//!
//! A fresh key pair is made for every message; the Diffie-Hellman secret between it and the recipient's
//! key, with both public keys, goes through HKDF-SHA256 into an AES-256-GCM key that is used once. It is
//! the "sealed box" of NaCl with this project's ciphers. Volume keys are shared this way.
//!
//! The sealed form is `ephemeral public key (32) | ciphertext | tag (16)`.
//!
//! What it is not: a proof of who sent it. Anyone can seal; sign the sealed bytes if the sender matters.

use crate::crypto::aead::{self, Key};
use crate::crypto::derive::derive;
use crate::crypto::random_bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// What sealing adds: the ephemeral public key and the tag.
pub const OVERHEAD_BYTES: usize = 32 + aead::OVERHEAD_BYTES;

/// Separates these keys from any other use of HKDF over an X25519 secret.
const SEAL_INFO: &[u8] = b"hypha sealed box: x25519, hkdf-sha256, aes-256-gcm, v1";

/// The key is used for one message only, so its nonce may be constant.
const NONCE: [u8; 12] = [0; 12];

/// The secret half: holding it means being able to open what was sealed to [`X25519Secret::public`].
/// Wiped when dropped.
#[derive(Clone)]
pub struct X25519Secret(StaticSecret);

impl X25519Secret {
    /// A new secret from the operating system's randomness.
    pub fn generate() -> X25519Secret {
        X25519Secret::from_bytes(&Zeroizing::new(random_bytes()))
    }

    /// The secret with these bytes (clamped as RFC 7748 asks when it is used).
    pub fn from_bytes(bytes: &[u8; 32]) -> X25519Secret {
        X25519Secret(StaticSecret::from(*bytes))
    }

    /// The half that others may know.
    pub fn public(&self) -> X25519Public {
        X25519Public(PublicKey::from(&self.0).to_bytes())
    }
}

/// Its only field is wiped.
impl ZeroizeOnDrop for X25519Secret {}

impl fmt::Debug for X25519Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X25519Secret(of {:?})", self.public())
    }
}

/// The public half. Any 32 bytes are one; whoever publishes a degenerate key publishes what is sealed to it,
/// exactly as if they had published their secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct X25519Public(#[serde(with = "serde_bytes")] [u8; 32]);

impl X25519Public {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> X25519Public {
        X25519Public(bytes)
    }

    /// The 32 bytes of RFC 7748.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for X25519Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X25519Public({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// The sealed bytes cannot be opened with this secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this was not sealed to our key, or was damaged: ask its author to share it again")]
pub struct OpenError;

/// Seals `plaintext` to the holder of `recipient`'s secret; the result is [`OVERHEAD_BYTES`] longer.
pub fn seal_to(recipient: &X25519Public, plaintext: &[u8]) -> Vec<u8> {
    let ephemeral = X25519Secret::generate();
    let ephemeral_public = ephemeral.public();
    let shared = ephemeral.0.diffie_hellman(&PublicKey::from(recipient.0));
    let key = one_time_key(&shared, &ephemeral_public, recipient);

    let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    sealed.extend_from_slice(&ephemeral_public.0);
    sealed.extend_from_slice(plaintext);
    let tag = aead::encrypt_detached(&key, &NONCE, b"", &mut sealed[32..]);
    sealed.extend_from_slice(&tag);
    sealed
}

/// Opens what [`seal_to`] made for the public half of `secret`. The result is wiped when dropped.
///
/// # Errors
/// [`OpenError`] if it was sealed to someone else, cut, or changed.
pub fn open(secret: &X25519Secret, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (ephemeral, ciphertext) = sealed.split_first_chunk::<32>().ok_or(OpenError)?;
    let ephemeral = X25519Public(*ephemeral);
    let shared = secret.0.diffie_hellman(&PublicKey::from(ephemeral.0));
    // An all-zero secret comes from a degenerate point that an honest sender never makes.
    if !shared.was_contributory() {
        return Err(OpenError);
    }
    let key = one_time_key(&shared, &ephemeral, &secret.public());
    let mut content = Zeroizing::new(ciphertext.to_vec());
    aead::decrypt_in_place(&key, &NONCE, b"", &mut content).map_err(|_| OpenError)?;
    Ok(content)
}

fn one_time_key(shared: &SharedSecret, ephemeral: &X25519Public, recipient: &X25519Public) -> Key {
    // Both public keys take part, so that a sealed message fits one recipient and one ephemeral key only.
    Key::from_bytes(*derive(shared.as_bytes(), b"", &[SEAL_INFO, &ephemeral.0, &recipient.0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn hex(text: &str) -> [u8; 32] {
        HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_key_exchange_of_rfc_7748_holds() {
        // Section 6.1.
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        let (alice, bob) = (X25519Secret::from_bytes(&alice), X25519Secret::from_bytes(&bob));
        assert_eq!(alice.public().0, hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        assert_eq!(bob.public().0, hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let theirs = PublicKey::from(bob.public().0);
        assert_eq!(alice.0.diffie_hellman(&theirs).to_bytes(), shared);
    }

    #[test]
    fn only_the_recipient_opens_what_was_sealed() {
        let recipient = X25519Secret::generate();
        let sealed = seal_to(&recipient.public(), b"the volume's key");
        assert_eq!(sealed.len(), 16 + OVERHEAD_BYTES);
        assert_eq!(&**open(&recipient, &sealed).unwrap(), b"the volume's key");
        assert_eq!(open(&X25519Secret::generate(), &sealed).unwrap_err(), OpenError);
    }

    #[test]
    fn the_same_secret_sealed_twice_looks_different() {
        let recipient = X25519Secret::generate().public();
        assert_ne!(seal_to(&recipient, b"same"), seal_to(&recipient, b"same"));
    }

    #[test]
    fn a_degenerate_ephemeral_key_is_refused() {
        let recipient = X25519Secret::generate();
        let mut sealed = seal_to(&recipient.public(), b"x");
        sealed[..32].fill(0);
        assert_eq!(open(&recipient, &sealed).unwrap_err(), OpenError);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damage_and_truncation_are_refused(
            plain in prop::collection::vec(any::<u8>(), 0..100), at: prop::sample::Index,
            bit in 0u8..8, cut: prop::sample::Index,
        ) {
            let recipient = X25519Secret::generate();
            let sealed = seal_to(&recipient.public(), &plain);
            // RFC 7748 ignores the top bit of a public key; our key derivation hashes it all the same.
            let mut damaged = sealed.clone();
            damaged[at.index(sealed.len())] ^= 1 << bit;
            prop_assert!(open(&recipient, &damaged).is_err());
            prop_assert!(open(&recipient, &sealed[..cut.index(sealed.len())]).is_err());
        }

        #[test]
        fn random_bytes_never_open(bytes: Vec<u8>) {
            prop_assert!(open(&X25519Secret::generate(), &bytes).is_err());
        }
    }
}
