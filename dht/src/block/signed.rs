//! Something signed: bytes and a signature over them, and what the bytes say.
//!
//! What is signed is one byte string, an envelope that names its type, its version and who may read it
//! ([`reactor::serialization::to_envelope`]). It travels and is stored as it was signed, and is decoded from there. So a
//! later version may add fields, and whoever does not know them still verifies the signature, hashes to the same
//! address, and hands on every byte; one that changes what older programs would have to understand says so, and they
//! refuse it. Signing a list of decoded fields instead would allow none of that: a field that the reader drops breaks
//! the signature.
//!
//! The hash covers a domain and the bytes, whose envelope names the type, so that no statement is taken for another.
//!
//! Not here: whose key has to have signed, which each type says itself.

use std::cell::OnceCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use bytes::Bytes;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature};
use reactor::serialization::{EnvelopeError, Versioned, from_bytes, from_envelope, to_bytes, to_envelope};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::mutable::Invalid;

/// A `T` and a signature over the bytes that say it. Holding one proves that the bytes decode, not that the signature
/// holds: see [`Signed::verify_by`].
///
/// Cheap to clone, and one word wide: records are nested, and are decoded on small stacks.
pub struct Signed<T>(Rc<Content<T>>);

struct Content<T> {
    encoded: Bytes,
    /// That of `encoded`, from when it was first asked for: one swap asks a dozen times.
    hash: OnceCell<[u8; 32]>,
    signature: Signature,
    statement: T,
}

/// The two parts as they travel.
#[derive(Serialize, Deserialize)]
struct Parts {
    encoded: Bytes,
    signature: Signature,
}

impl<T: Versioned> Signed<T> {
    /// Signs `statement`.
    pub fn sign(signer: &Identity, statement: T) -> Signed<T> {
        let encoded = Bytes::from(to_envelope(&statement));
        Signed::sign_encoded(signer, encoded, statement)
    }

    /// Signs `encoded`, which says `statement` and perhaps more.
    pub(super) fn sign_encoded(signer: &Identity, encoded: Bytes, statement: T) -> Signed<T> {
        let hash = hash(&encoded);
        let signature = signer.sign(&hash);
        Signed(Rc::new(Content { encoded, hash: hash.into(), signature, statement }))
    }

    /// Takes what was signed elsewhere, without looking at the signature.
    ///
    /// # Errors
    /// [`EnvelopeError`] if the bytes are no `T` that this program may read.
    pub fn from_parts(encoded: Bytes, signature: Signature) -> Result<Signed<T>, EnvelopeError> {
        let statement = from_envelope(&encoded)?;
        Ok(Signed(Rc::new(Content { encoded, hash: OnceCell::new(), signature, statement })))
    }

    /// Reads what [`Signed::to_bytes`] wrote.
    ///
    /// # Errors
    /// As [`Signed::from_parts`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Signed<T>, EnvelopeError> {
        let Parts { encoded, signature } = from_bytes(bytes)?;
        Signed::from_parts(encoded, signature)
    }
}

impl<T> Signed<T> {
    /// Bytes and signature in one, for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(&Parts { encoded: self.0.encoded.clone(), signature: self.0.signature })
    }

    /// The bytes that are signed.
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    /// What is signed: the statement's identity.
    pub fn hash(&self) -> [u8; 32] {
        *self.0.hash.get_or_init(|| hash(&self.0.encoded))
    }

    /// Whether `signer` signed it.
    ///
    /// # Errors
    /// [`Invalid::Signature`].
    pub fn verify_by(&self, signer: &PublicKey) -> Result<(), Invalid> {
        signer.verify(&self.hash(), &self.0.signature).map_err(|_| Invalid::Signature)
    }
}

fn hash(encoded: &[u8]) -> [u8; 32] {
    sha3_256(&[b"hypha signed 1", encoded])
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Signed(self.0.clone())
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.statement
    }
}

/// Equal bytes say equal things; the signature counts too, so that what was verified once need not be again.
impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.signature == other.0.signature && self.0.encoded == other.0.encoded
    }
}

impl<T> Eq for Signed<T> {}

impl<T: fmt::Debug> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signed").field(&self.0.statement).finish()
    }
}

impl<T> Serialize for Signed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Parts { encoded: self.0.encoded.clone(), signature: self.0.signature }.serialize(serializer)
    }
}

impl<'de, T: Versioned> Deserialize<'de> for Signed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { encoded, signature } = Parts::deserialize(deserializer)?;
        Signed::from_parts(encoded, signature).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Old {
        amount: u32,
    }

    impl Versioned for Old {
        const TYPE_NAME: &'static str = "test";
        const VERSION: u32 = 1;
    }

    #[derive(Serialize, Deserialize)]
    struct New<const SINCE: u32> {
        amount: u32,
        colour: String,
    }

    impl<const SINCE: u32> Versioned for New<SINCE> {
        const TYPE_NAME: &'static str = "test";
        const VERSION: u32 = 2;
        const READABLE_SINCE: u32 = SINCE;
    }

    #[test]
    fn a_later_versions_field_is_not_known_and_yet_signed_and_kept() {
        let signer = Identity::from_seed(&[1; 32]);
        let new = Signed::sign(&signer, New::<1> { amount: 7, colour: "red".into() });
        let seen: Signed<Old> = from_bytes(&to_bytes(&new)).unwrap();
        assert_eq!(*seen, Old { amount: 7 });
        assert_eq!(seen.verify_by(&signer.public_key()), Ok(()));
        assert_eq!(seen.hash(), new.hash());
        assert_eq!(Signed::<New<1>>::from_bytes(&seen.to_bytes()).unwrap().colour, "red");
    }

    #[test]
    fn what_an_older_program_would_have_to_understand_it_refuses() {
        let signer = Identity::from_seed(&[1; 32]);
        let new = Signed::sign(&signer, New::<2> { amount: 7, colour: "red".into() });
        assert!(matches!(Signed::<Old>::from_bytes(&new.to_bytes()), Err(EnvelopeError::TooNew { .. })));
    }

    #[test]
    fn no_byte_can_be_changed_after_signing() {
        let signer = Identity::from_seed(&[1; 32]);
        let signed = Signed::sign(&signer, Old { amount: 7 });
        for index in 0..signed.0.encoded.len() {
            let mut encoded = signed.0.encoded.to_vec();
            encoded[index] ^= 1;
            if let Ok(changed) = Signed::<Old>::from_parts(encoded.into(), signed.0.signature) {
                assert_eq!(changed.verify_by(&signer.public_key()), Err(Invalid::Signature));
            }
        }
    }
}
