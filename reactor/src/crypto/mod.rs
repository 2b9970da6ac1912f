//! Cryptography, thinly: who someone is ([`identity`]), how a secret reaches one person ([`seal`]), how
//! bulk content is kept from everyone else ([`aead`]), how one secret gives many keys ([`derive`](mod@derive)), how a
//! secret is kept under a password ([`key_file`]), and the hash of names ([`hash`]).
//!
//! Every primitive comes from a maintained crate (`ed25519-dalek`, `x25519-dalek`, `ring`, `hkdf`,
//! `sha2`, `sha3`, `argon2`, `subtle`); this module only fixes which one is used for what, the order of the bytes, and that
//! secrets are wiped when dropped. All randomness comes from the operating system (in a simulation, from its seed).
//!
//! What it is not: a place for protocols. TLS lives in [`crate::net::tls`], block formats in the DHT and
//! the filesystem.

pub mod aead;
pub mod derive;
pub mod hash;
pub mod identity;
pub mod key_file;
pub mod seal;
#[cfg(test)]
mod vectors;

use subtle::ConstantTimeEq;

pub use identity::{BadSignature, Identity, ParseKeyError, PublicKey, Signature};
pub use seal::{OpenError, X25519Public, X25519Secret};

/// Fills an array with randomness: see [`crate::random`].
///
/// # Panics
/// If the operating system has no randomness to give. Nothing safe can be done without it, and a guess
/// would be worse than a stop.
///
/// # Suspends
/// Never.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    crate::random::fill(&mut bytes);
    bytes
}

/// Whether two secrets are the same, in a time that depends on their lengths alone.
///
/// For tokens, passwords and codes that a stranger may guess: `==` ends at the first byte that differs, so that the time
/// which a refusal takes tells how much of a guess was right. What need not be secret is the length.
///
/// # Suspends
/// Never.
///
/// # Examples
///
/// ```
/// let token = "9f86d081884c7d65";
/// assert!(reactor::crypto::equal(token, "9f86d081884c7d65"));
/// assert!(!reactor::crypto::equal(token, "9f86d081884c7d66"));
/// assert!(!reactor::crypto::equal(token, ""));
/// ```
pub fn equal(a: impl AsRef<[u8]>, b: impl AsRef<[u8]>) -> bool {
    a.as_ref().ct_eq(b.as_ref()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::ZeroizeOnDrop;

    #[test]
    fn every_secret_is_wiped_when_dropped() {
        // Holds if it compiles: each type's promise, or its only field's.
        fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<aead::Key>();
        is_wiped::<Identity>();
        is_wiped::<ed25519_dalek::SigningKey>();
        is_wiped::<X25519Secret>();
        is_wiped::<x25519_dalek::StaticSecret>();
        is_wiped::<x25519_dalek::SharedSecret>();
        is_wiped::<sha2::Sha256>();
        is_wiped::<zeroize::Zeroizing<[u8; 32]>>();
    }

    #[test]
    fn no_secret_shows_itself_in_a_log() {
        let bytes = [0xab; 32];
        let shown = [
            format!("{:?}", aead::Key::from_bytes(bytes)),
            format!("{:?}", Identity::from_seed(&bytes)),
            format!("{:#?}", Identity::from_seed(&bytes)),
            format!("{:?}", X25519Secret::from_bytes(&bytes)),
            format!("{:?}", Identity::from_seed(&bytes).sealing_key()),
        ];
        for text in shown {
            // Neither in hexadecimal nor as a list of numbers.
            assert!(!text.to_lowercase().contains("abab") && !text.contains("171, "), "{text}");
        }
    }

    #[test]
    fn secrets_are_the_same_only_if_every_byte_is() {
        let (one, mut other) = ([7; 32], [7; 32]);
        assert!(equal(one, other) && aead::Key::from_bytes(one) == aead::Key::from_bytes(other));
        assert!(!equal(one, &other[..31]));
        for at in 0..32 {
            other[at] ^= 1;
            assert!(!equal(one, other) && aead::Key::from_bytes(one) != aead::Key::from_bytes(other));
            other[at] ^= 1;
        }
    }

    #[test]
    fn random_bytes_differ_from_call_to_call() {
        assert_ne!(super::random_bytes::<32>(), super::random_bytes::<32>());
    }
}
