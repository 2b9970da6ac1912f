//! AES-256-GCM: how content is kept from whoever stores it.
//!
//! A [`Key`] is 32 random bytes, wiped when dropped. Encryption happens in place: a block of a megabyte is
//! never copied to be sealed. The caller chooses the nonce, and the rule is absolute: **one nonce, one
//! message, per key**. Two messages under one nonce reveal their XOR and let anyone forge a third. The
//! simplest way to keep the rule is a fresh key per block (as the filesystem does) with a constant nonce.
//!
//! The cipher is ring's, which TLS uses too: on a processor with vector AES it seals 64 KiB in a quarter of the
//! time that the `aes-gcm` crate takes (24 against 87 us, measured side by side). Its expanded key lives on the
//! stack for the length of a call, and is not wiped from there; the key itself is.
//!
//! What it is not: key management. Where a key is kept and who gets it is decided by the caller; a key
//! reaches a person through [`crate::crypto::seal`].

use crate::crypto::random_bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What encryption adds: GCM's full tag. Shorter tags are allowed by the standard, and forged sooner.
pub const OVERHEAD_BYTES: usize = 16;

/// The nonce of GCM's fast path (NIST SP 800-38D, section 5.2.1.1).
pub const NONCE_SIZE_BYTES: usize = 12;

/// An AES-256 key. Whoever holds it reads everything sealed under it.
///
/// Serializable because keys travel inside messages that are themselves sealed (a parent node of the tree
/// holds its children's keys): whoever serializes one has to wipe the bytes that it is written to. Two are compared in a time
/// that does not depend on them.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct Key(#[serde(with = "serde_bytes")] [u8; 32]);

impl Key {
    /// A new key from the operating system's randomness.
    pub fn random() -> Key {
        Key(random_bytes())
    }

    /// The key with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// The secret bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key, ready for several messages; see [`Cipher`].
    pub fn cipher(&self) -> Cipher {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).expect("a key of AES-256 is 32 bytes long");
        // "Less safe" because the caller chooses the nonce, as this module's own interface has it.
        Cipher(LessSafeKey::new(key))
    }
}

/// An expanded [`Key`], for whoever seals or opens several messages under one.
///
/// Not to be kept: what it holds is not wiped.
pub struct Cipher(LessSafeKey);

impl Cipher {
    /// As [`encrypt_detached`].
    ///
    /// # Panics
    /// As there.
    pub fn encrypt_detached(
        &self,
        nonce: &[u8; 12],
        associated_data: &[u8],
        buffer: &mut [u8],
    ) -> [u8; OVERHEAD_BYTES] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated_data), buffer);
        let tag = tag.expect("a buffer in memory is within GCM's limit of 64 GiB");
        tag.as_ref().try_into().expect("GCM's tag is 16 bytes long")
    }

    /// As [`decrypt_detached`].
    ///
    /// # Errors
    /// As there.
    pub fn decrypt_detached(
        &self,
        nonce: &[u8; 12],
        associated_data: &[u8],
        buffer: &mut [u8],
        tag: &[u8; OVERHEAD_BYTES],
    ) -> Result<(), DecryptError> {
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(associated_data));
        let opened = self.0.open_in_place_separate_tag(nonce, aad, (*tag).into(), buffer, 0..);
        opened.map(|_| ()).map_err(|_| DecryptError)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(secret)")
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        super::equal(self.0, other.0)
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// The bytes were not sealed by this key, nonce and associated data, or were changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content does not verify under its key: it was damaged or replaced; fetch another replica")]
pub struct DecryptError;

/// Encrypts `buffer` in place and appends the tag ([`OVERHEAD_BYTES`]).
///
/// `associated_data` is authenticated but not stored: bind a block to its place with it.
///
/// # Panics
/// If `buffer` is longer than 64 GiB, GCM's limit.
pub fn encrypt_in_place(key: &Key, nonce: &[u8; 12], associated_data: &[u8], buffer: &mut Vec<u8>) {
    buffer.reserve_exact(OVERHEAD_BYTES);
    let tag = encrypt_detached(key, nonce, associated_data, buffer);
    buffer.extend_from_slice(&tag);
}

/// Encrypts `buffer` in place and returns the tag, for formats that gather their parts.
///
/// # Panics
/// If `buffer` is longer than 64 GiB, GCM's limit.
pub fn encrypt_detached(key: &Key, nonce: &[u8; 12], associated_data: &[u8], buffer: &mut [u8]) -> [u8; 16] {
    key.cipher().encrypt_detached(nonce, associated_data, buffer)
}

/// Decrypts what [`encrypt_in_place`] made, and cuts the tag off.
///
/// # Errors
/// [`DecryptError`] if it does not verify; what `buffer` then holds is worth nothing, and nothing of the
/// plaintext.
pub fn decrypt_in_place(
    key: &Key,
    nonce: &[u8; 12],
    associated_data: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), DecryptError> {
    let length = buffer.len().checked_sub(OVERHEAD_BYTES).ok_or(DecryptError)?;
    let (content, tag) = buffer.split_at_mut(length);
    let tag: [u8; 16] = (&*tag).try_into().map_err(|_| DecryptError)?;
    decrypt_detached(key, nonce, associated_data, content, &tag)?;
    buffer.truncate(length);
    Ok(())
}

/// Decrypts `buffer` in place if `tag` proves it untouched.
///
/// # Errors
/// [`DecryptError`] if it does not verify; what `buffer` then holds is worth nothing.
pub fn decrypt_detached(
    key: &Key,
    nonce: &[u8; 12],
    associated_data: &[u8],
    buffer: &mut [u8],
    tag: &[u8; 16],
) -> Result<(), DecryptError> {
    key.cipher().decrypt_detached(nonce, associated_data, buffer, tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_vectors_of_nist_gcm_hold() {
        // McGrew & Viega, "The Galois/Counter Mode of Operation", appendix B, cases 13 to 16 (AES-256).
        let long_key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
        let zeros = "0".repeat(64);
        let plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
        let cipher = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
        let cases = [
            (&zeros[..], "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
            (
                &zeros[..],
                "000000000000000000000000",
                "",
                "00000000000000000000000000000000",
                "cea7403d4d606b6e074ec5d3baf39d18",
                "d0d1c8a799996bf0265b98b5d48ab919",
            ),
            (long_key, "cafebabefacedbaddecaf888", "", plain, cipher, "b094dac5d93471bdec1a502270e3cc6c"),
            (
                long_key,
                "cafebabefacedbaddecaf888",
                "feedfacedeadbeeffeedfacedeadbeefabaddad2",
                &plain[..120],
                &cipher[..120],
                "76fc6ece0f4e1768cddf8853bb2d551b",
            ),
        ];
        for (key, nonce, aad, plain, cipher, tag) in cases {
            let key = Key::from_bytes(hex(key).try_into().unwrap());
            let nonce: [u8; 12] = hex(nonce).try_into().unwrap();
            let mut buffer = hex(plain);
            encrypt_in_place(&key, &nonce, &hex(aad), &mut buffer);
            assert_eq!(HEXLOWER.encode(&buffer), format!("{cipher}{tag}"));
            decrypt_in_place(&key, &nonce, &hex(aad), &mut buffer).unwrap();
            assert_eq!(HEXLOWER.encode(&buffer), plain);
        }
    }

    #[test]
    fn a_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", Key::random()), "Key(secret)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_flipped_bit_is_refused_and_reveals_nothing(
            plain in prop::collection::vec(any::<u8>(), 0..300), aad: Vec<u8>,
            position: prop::sample::Index, bit in 0u8..8,
        ) {
            let (key, nonce) = (Key::random(), random_bytes());
            let mut sealed = plain.clone();
            encrypt_in_place(&key, &nonce, &aad, &mut sealed);
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD_BYTES);
            let mut damaged = sealed.clone();
            damaged[position.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(decrypt_in_place(&key, &nonce, &aad, &mut damaged), Err(DecryptError));
            prop_assert!(plain.len() < 16 || !damaged.starts_with(&plain[..16]), "plaintext leaked");
            decrypt_in_place(&key, &nonce, &aad, &mut sealed).unwrap();
            prop_assert_eq!(plain, sealed);
        }

        #[test]
        fn random_bytes_of_any_length_are_refused(mut bytes: Vec<u8>) {
            let refused = decrypt_in_place(&Key::random(), &[0; 12], b"", &mut bytes);
            prop_assert_eq!(refused, Err(DecryptError));
        }
    }
}
