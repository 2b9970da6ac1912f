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
//! Two statements of one moment may share a signature ([`Signed::sign_together`]), which costs more than all else in a small
//! swap: what is signed then is a hash of both hashes, and each carries the other's. So each still proves itself alone, to
//! whoever never sees the other. Whoever sees one learns the other's hash, and no more.
//!
//! So one statement may have several signatures: whether two are the same one says their hash.
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
    /// The hash of the statement that was signed with it.
    beside: Option<[u8; 32]>,
    statement: T,
}

/// As it travels.
#[derive(Serialize, Deserialize)]
struct Parts {
    encoded: Bytes,
    signature: Signature,
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
    beside: Option<[u8; 32]>,
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
        Signed(Rc::new(Content { encoded, hash: hash.into(), signature, beside: None, statement }))
    }

    /// Signs `statement`, and what `second` makes of its hash, with one signature.
    pub fn sign_together<U: Versioned>(
        signer: &Identity,
        statement: T,
        second: impl FnOnce([u8; 32]) -> U,
    ) -> (Signed<T>, Signed<U>) {
        let encoded = Bytes::from(to_envelope(&statement));
        let first_hash = hash(&encoded);
        let second = second(first_hash);
        let second_encoded = Bytes::from(to_envelope(&second));
        let second_hash = hash(&second_encoded);
        let signature = signer.sign(&pair_hash(&first_hash, &second_hash));
        let first =
            Content { encoded, hash: first_hash.into(), signature, beside: Some(second_hash), statement };
        let second = Content {
            encoded: second_encoded,
            hash: second_hash.into(),
            signature,
            beside: Some(first_hash),
            statement: second,
        };
        (Signed(Rc::new(first)), Signed(Rc::new(second)))
    }

    fn decode(parts: Parts) -> Result<Signed<T>, EnvelopeError> {
        let Parts { encoded, signature, beside } = parts;
        let statement = from_envelope(&encoded)?;
        Ok(Signed(Rc::new(Content { encoded, hash: OnceCell::new(), signature, beside, statement })))
    }

    /// Reads what [`Signed::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`EnvelopeError`] if the bytes are no `T` that this program may read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Signed<T>, EnvelopeError> {
        Signed::decode(from_bytes(bytes)?)
    }
}

impl<T> Signed<T> {
    /// Bytes and signature in one, for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(&self.parts())
    }

    fn parts(&self) -> Parts {
        let Content { encoded, signature, beside, .. } = &*self.0;
        Parts { encoded: encoded.clone(), signature: *signature, beside: *beside }
    }

    /// The bytes that are signed.
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    /// The statement's identity: what is signed, alone or with another's.
    pub fn hash(&self) -> [u8; 32] {
        *self.0.hash.get_or_init(|| hash(&self.0.encoded))
    }

    /// Whether `signer` signed it.
    ///
    /// # Errors
    /// [`Invalid::Signature`].
    pub fn verify_by(&self, signer: &PublicKey) -> Result<(), Invalid> {
        signer.verify(&self.signed_hash(), &self.0.signature).map_err(|_| Invalid::Signature)
    }

    /// Whether the two have one signature, over the same: whose the one is, his is the other.
    pub fn shares_signature_with<U>(&self, other: &Signed<U>) -> bool {
        self.0.signature == other.0.signature && self.signed_hash() == other.signed_hash()
    }

    fn signed_hash(&self) -> [u8; 32] {
        self.0.beside.map_or(self.hash(), |beside| pair_hash(&self.hash(), &beside))
    }
}

/// That of two statements, in no order: neither says anything about the other.
fn pair_hash(one: &[u8; 32], other: &[u8; 32]) -> [u8; 32] {
    sha3_256(&[b"hypha signed pair 1", one.min(other), one.max(other)])
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
        let (one, other) = (&*self.0, &*other.0);
        one.signature == other.signature && one.beside == other.beside && one.encoded == other.encoded
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
        self.parts().serialize(serializer)
    }
}

impl<'de, T: Versioned> Deserialize<'de> for Signed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Signed::decode(Parts::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::genesis::Genesis;

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
            if let Ok(changed) = Signed::<Old>::decode(Parts { encoded: encoded.into(), ..signed.parts() }) {
                assert_eq!(changed.verify_by(&signer.public_key()), Err(Invalid::Signature));
            }
        }
    }

    #[test]
    fn of_two_that_share_a_signature_neither_passes_for_the_others_type() {
        let signer = Identity::from_seed(&[1; 32]);
        let genesis = Genesis::sign(&signer, [5; 32], vec![], vec![]);
        let (one, other) = Signed::sign_together(&signer, Old { amount: 7 }, |_| (*genesis).clone());
        assert_eq!(other.verify_by(&signer.public_key()), Ok(()));
        let exchanged = Signed::<Genesis>::decode(one.parts());
        assert!(matches!(exchanged, Err(EnvelopeError::OtherType { .. })), "{exchanged:?}");
        assert!(matches!(Signed::<Old>::decode(other.parts()), Err(EnvelopeError::OtherType { .. })));
    }

    #[test]
    fn of_two_that_share_a_signature_each_proves_itself_alone_and_nothing_else() {
        let (signer, stranger) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let mut told = None;
        let (one, other) = Signed::sign_together(&signer, Old { amount: 7 }, |hash| {
            told = Some(hash);
            Old { amount: 8 }
        });
        assert_eq!(told, Some(one.hash()));
        assert_eq!(
            one.hash(),
            Signed::sign(&signer, Old { amount: 7 }).hash(),
            "alone or not, it is the same"
        );
        assert!(one.shares_signature_with(&other) && other.shares_signature_with(&one));
        for signed in [&one, &other] {
            let travelled: Signed<Old> = from_bytes(&to_bytes(signed)).unwrap();
            assert_eq!(travelled, *signed);
            assert_eq!(travelled.verify_by(&signer.public_key()), Ok(()));
            assert_eq!(travelled.verify_by(&stranger.public_key()), Err(Invalid::Signature));
        }
        // Not without the other's hash, nor with a third's, nor for a third.
        let third = Signed::sign(&signer, Old { amount: 9 });
        for forged in [
            Parts { beside: None, ..one.parts() },
            Parts { beside: Some(third.hash()), ..one.parts() },
            Parts { encoded: third.encoded().clone(), ..one.parts() },
            Parts { beside: one.parts().beside, ..third.parts() },
        ] {
            let forged = Signed::<Old>::decode(forged).unwrap();
            assert_eq!(forged.verify_by(&signer.public_key()), Err(Invalid::Signature));
            assert!(!forged.shares_signature_with(&one) && !forged.shares_signature_with(&other));
        }
    }
}
