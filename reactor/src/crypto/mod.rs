//! Cryptography, thinly: who someone is ([`identity`]), how a secret reaches one person ([`seal`]), how
//! bulk content is kept from everyone else ([`aead`]), and the hash of names ([`hash`]).
//!
//! Every primitive comes from a maintained crate (`ed25519-dalek`, `x25519-dalek`, `ring`, `hkdf`,
//! `sha2`, `sha3`); this module only fixes which one is used for what, the order of the bytes, and that
//! secrets are wiped when dropped. All randomness comes from the operating system (in a simulation, from its seed).
//!
//! What it is not: a place for protocols. TLS lives in [`crate::net::tls`], block formats in the DHT and
//! the filesystem.

pub mod aead;
pub mod hash;
pub mod identity;
pub mod seal;

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

#[cfg(test)]
mod tests {
    #[test]
    fn random_bytes_differ_from_call_to_call() {
        assert_ne!(super::random_bytes::<32>(), super::random_bytes::<32>());
    }
}
