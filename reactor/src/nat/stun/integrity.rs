//! The signature by a shared key (HMAC), and the checksum that tells STUN from other protocols.
//!
//! Both cover the message up to themselves, with the length in the header as if they were its last attribute: so a
//! message is signed first and then gets its checksum, and each step can be checked by itself.

use ring::hmac;

use super::attribute::Kind;
use super::message::{ATTRIBUTE_HEADER_BYTES, HEADER_BYTES};

/// Makes the checksum differ from the CRC that another protocol may carry at the same place: "STUN".
const FINGERPRINT_MASK: u32 = 0x5354_554e;

/// What a message is signed by: a shared secret, and the hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    secret: &'a [u8],
    kind: Kind,
}

impl<'a> Key<'a> {
    /// By HMAC-SHA1, which all implementations know, and which is not known to be weak.
    pub const fn sha1(secret: &'a [u8]) -> Key<'a> {
        Key { secret, kind: Kind::MESSAGE_INTEGRITY }
    }

    /// By HMAC-SHA256, in full length; truncated signatures are not taken.
    pub const fn sha256(secret: &'a [u8]) -> Key<'a> {
        Key { secret, kind: Kind::MESSAGE_INTEGRITY_SHA256 }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    fn key(&self) -> hmac::Key {
        let hash = match self.kind {
            Kind::MESSAGE_INTEGRITY => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            _ => hmac::HMAC_SHA256,
        };
        hmac::Key::new(hash, self.secret)
    }

    fn signature_size(&self) -> usize {
        if self.kind == Kind::MESSAGE_INTEGRITY { 20 } else { 32 }
    }

    /// The signature of a message that ends where the signature will stand.
    pub(super) fn sign(&self, unsigned: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key());
        for part in with_length(unsigned, self.signature_size()) {
            context.update(&part);
        }
        context.sign().as_ref().to_vec()
    }

    pub(super) fn verify(&self, unsigned: &[u8], signature: &[u8]) -> bool {
        let message = with_length(unsigned, self.signature_size()).concat();
        signature.len() == self.signature_size() && hmac::verify(&self.key(), &message, signature).is_ok()
    }
}

/// The checksum of a message that ends where the checksum will stand.
pub(super) fn checksum(message: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    for part in with_length(message, 4) {
        crc.update(&part);
    }
    (crc.sum() ^ FINGERPRINT_MASK).to_be_bytes()
}

/// The message in parts, with the length that it has when an attribute of `size` bytes has been added.
fn with_length(message: &[u8], size: usize) -> [std::borrow::Cow<'_, [u8]>; 3] {
    // Of what is read it fits, being a part of a datagram; of what is made, adding the attribute panics otherwise.
    let length = (message.len() - HEADER_BYTES + ATTRIBUTE_HEADER_BYTES + size) as u16;
    [message[..2].into(), length.to_be_bytes().to_vec().into(), message[4..].into()]
}
