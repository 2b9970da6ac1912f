//! The message: a header of 20 bytes and attributes of a kind, a length and a value, padded to four bytes each.
//!
//! ```text
//!  0               2               4               8                              20
//!  | class, method | length        | 21 12 a4 42   | transaction                   | attributes ...
//! ```
//!
//! Parsing checks the frame of every attribute once, so that whatever reads them afterwards can't run out of bytes; it
//! borrows from the datagram and allocates nothing.

use std::net::SocketAddr;

use super::attribute::{Change, Kind, canonical, decode_address, decode_error, mask};
use super::integrity::{self, Key};
use crate::random;

/// The size of the header.
pub const HEADER_BYTES: usize = 20;

/// The size of an attribute's kind and length.
pub(super) const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// Tells STUN from RFC 3489's, and from other protocols.
pub(super) const MAGIC_COOKIE: u32 = 0x2112_a442;

/// The one method that we speak: "where do my packets seem to come from?"
pub const BINDING: u16 = 1;

/// Names a request, and the answer to it: 96 bits that who does not see the packets can't guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    /// A new one, from [`random::fill`].
    pub fn random() -> TransactionId {
        let mut bytes = [0; 12];
        random::fill(&mut bytes);
        TransactionId(bytes)
    }
}

/// What a message is: two bits of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// The answer to a request that was granted.
    Success,
    /// The answer to one that was not.
    Error,
}

/// Why a datagram is no STUN message of ours to read. Whoever gets one drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is another protocol's.
    #[error("not a STUN message")]
    NotStun,
    /// Its length is not that of the datagram, or an attribute's is not what is left.
    #[error("the lengths in the STUN message do not fit together")]
    Length,
    /// It has a checksum, and that is wrong or stands before other attributes.
    #[error("the fingerprint of the STUN message is wrong")]
    Fingerprint,
}

/// Whether a datagram looks like STUN by its first eight bytes: two zero bits and the cookie (RFC 9443 tells it from
/// QUIC by the first byte alone, which is 0 to 3).
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_BYTES && datagram[0] < 4 && datagram[4..8] == MAGIC_COOKIE.to_be_bytes()
}

/// A message, checked, in the datagram that it came in.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: u16,
    transaction: TransactionId,
    /// Where the first signature stands; what follows it but a signature or a checksum does not count.
    signed_size: usize,
}

impl<'a> Message<'a> {
    /// Reads the datagram as one message.
    ///
    /// # Errors
    /// When it is none, or an attribute's frame or the checksum is wrong. Values are looked at by who asks for them.
    pub fn parse(datagram: &'a [u8]) -> Result<Message<'a>, ParseError> {
        if !is_stun(datagram) {
            return Err(ParseError::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        if datagram.len() != HEADER_BYTES + length || length % 4 != 0 {
            return Err(ParseError::Length);
        }
        let (class, method) = split_type(u16::from_be_bytes([datagram[0], datagram[1]]));
        let transaction = TransactionId(datagram[8..HEADER_BYTES].try_into().expect("twelve bytes"));
        let mut signed_size = datagram.len();
        let mut at = HEADER_BYTES;
        while at < datagram.len() {
            let (kind, value, next) = attribute_at(datagram, at).ok_or(ParseError::Length)?;
            match kind {
                Kind::MESSAGE_INTEGRITY | Kind::MESSAGE_INTEGRITY_SHA256 => signed_size = signed_size.min(at),
                Kind::FINGERPRINT => {
                    let is_right = next == datagram.len() && value == integrity::checksum(&datagram[..at]);
                    if !is_right {
                        return Err(ParseError::Fingerprint);
                    }
                    signed_size = signed_size.min(at);
                }
                _ => {}
            }
            at = next;
        }
        Ok(Message { bytes: datagram, class, method, transaction, signed_size })
    }

    /// Request, indication, success or error.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What it is about: [`BINDING`], or something that is not ours to answer.
    pub fn method(&self) -> u16 {
        self.method
    }

    /// The request that it is, or answers.
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// The attributes in their order, without signatures and checksum, and without what follows a signature, which nobody
    /// vouches for (RFC 8489, section 14.5).
    pub fn attributes(&self) -> impl Iterator<Item = (Kind, &'a [u8])> + use<'a> {
        let bytes = &self.bytes[..self.signed_size];
        let mut at = HEADER_BYTES;
        std::iter::from_fn(move || {
            let (kind, value, next) = attribute_at(bytes, at)?;
            at = next;
            Some((kind, value))
        })
    }

    /// The value of the first attribute of a kind; others of the same kind do not count.
    pub fn find(&self, kind: Kind) -> Option<&'a [u8]> {
        self.attributes().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The address in an attribute that holds one as it is.
    pub fn address(&self, kind: Kind) -> Option<SocketAddr> {
        decode_address(self.find(kind)?).map(canonical)
    }

    /// The address that the request came from, as the server saw it: XORed, or from an older server in the clear.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        match self.find(Kind::XOR_MAPPED_ADDRESS) {
            Some(value) => decode_address(value).map(|address| canonical(mask(address, &self.transaction))),
            None => self.address(Kind::MAPPED_ADDRESS),
        }
    }

    /// What was wrong with the request, as HTTP counts such things; of an error only.
    pub fn error_code(&self) -> Option<u16> {
        decode_error(self.find(Kind::ERROR_CODE)?)
    }

    /// From where the answer is wanted: [`Change::NONE`] where nothing is said. `None` if it can't be read.
    pub fn change(&self) -> Option<Change> {
        match self.find(Kind::CHANGE_REQUEST) {
            Some(value) => Change::decode(value),
            None => Some(Change::NONE),
        }
    }

    /// Whether the message carries a signature by `key`, and all of [`Message::attributes`] is under it. Compares in
    /// constant time.
    pub fn is_signed_by(&self, key: &Key<'_>) -> bool {
        let mut at = self.signed_size;
        // SHA1's may be followed by SHA256's; whatever else follows a signature is nobody's (RFC 8489, section 14.5 f.).
        while let Some((kind, value, next)) = attribute_at(self.bytes, at) {
            if kind == key.kind() {
                return key.verify(&self.bytes[..at], value);
            }
            if kind != Kind::MESSAGE_INTEGRITY {
                return false;
            }
            at = next;
        }
        false
    }
}

/// The attribute at `at`: its kind, its value, and where the next begins. `None` at the end and where its frame goes
/// beyond it.
fn attribute_at(bytes: &[u8], at: usize) -> Option<(Kind, &[u8], usize)> {
    let (&[k1, k0, l1, l0], rest) = bytes.get(at..)?.split_first_chunk::<ATTRIBUTE_HEADER_BYTES>()?;
    let size = usize::from(u16::from_be_bytes([l1, l0]));
    let value = rest.get(..size)?;
    let padded = size.next_multiple_of(4);
    (padded <= rest.len())
        .then(|| (Kind(u16::from_be_bytes([k1, k0])), value, at + ATTRIBUTE_HEADER_BYTES + padded))
}

/// The class and the method, whose bits are interleaved for RFC 3489's sake (RFC 8489, section 5).
fn split_type(bits: u16) -> (Class, u16) {
    let class = match (bits & 0x100 != 0, bits & 0x10 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    };
    (class, bits & 0xf | (bits & 0xe0) >> 1 | (bits & 0x3e00) >> 2)
}

/// As [`split_type`], the other way.
pub(super) fn join_type(class: Class, method: u16) -> u16 {
    let class = match class {
        Class::Request => 0,
        Class::Indication => 0x10,
        Class::Success => 0x100,
        Class::Error => 0x110,
    };
    class | method & 0xf | (method & 0x70) << 1 | (method & 0xf80) << 2
}

#[cfg(test)]
mod tests {
    use super::super::Builder;
    use super::*;

    #[test]
    fn every_type_comes_back_and_none_looks_like_another_protocol() {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            for method in 0..0x1000 {
                let bits = join_type(class, method);
                assert!(bits < 0x4000);
                assert_eq!(split_type(bits), (class, method));
            }
        }
    }

    #[test]
    fn a_message_that_is_cut_or_stretched_is_refused_at_every_byte() {
        let whole = Builder::new(Class::Request, BINDING, TransactionId([1; 12]))
            .attribute(Kind::SOFTWARE, b"seven b")
            .attribute(Kind::CHANGE_REQUEST, &Change::BOTH.encode())
            .fingerprint()
            .finish();
        assert!(Message::parse(&whole).is_ok());
        for size in 0..whole.len() {
            assert!(Message::parse(&whole[..size]).is_err(), "{size} bytes");
        }
        assert_eq!(Message::parse(&[&whole[..], &[0; 4]].concat()).unwrap_err(), ParseError::Length);
    }

    #[test]
    fn an_attribute_longer_than_what_is_left_is_refused() {
        let mut message = Builder::new(Class::Request, BINDING, TransactionId([1; 12]))
            .attribute(Kind::SOFTWARE, b"four")
            .finish();
        for (size, fits) in [(4, true), (3, true), (1, true), (5, false), (0xffff, false)] {
            message[HEADER_BYTES + 2..HEADER_BYTES + 4].copy_from_slice(&u16::to_be_bytes(size));
            assert_eq!(Message::parse(&message).is_ok(), fits, "{size}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_seen_by_the_fingerprint_or_the_frame() {
        let whole = Builder::new(Class::Success, BINDING, TransactionId([9; 12]))
            .mapped_address("192.0.2.1:5".parse().unwrap())
            .fingerprint()
            .finish();
        for bit in 0..whole.len() * 8 {
            let mut broken = whole.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            // A checksum that is no longer called one is an attribute that may be passed over, or must be understood.
            let found = Message::parse(&broken);
            let renamed = found.is_ok_and(|message| message.attributes().count() == 2);
            assert!(Message::parse(&broken).is_err() || renamed, "bit {bit}");
        }
    }

    #[test]
    fn what_follows_a_signature_does_not_count() {
        let key = Key::sha1(b"secret");
        let signed = Builder::new(Class::Success, BINDING, TransactionId([2; 12]))
            .attribute(Kind::SOFTWARE, b"true")
            .sign(&key)
            .mapped_address("203.0.113.9:9".parse().unwrap())
            .finish();
        let message = Message::parse(&signed).unwrap();
        assert!(message.is_signed_by(&key));
        assert!(
            !message.is_signed_by(&Key::sha1(b"other")) && !message.is_signed_by(&Key::sha256(b"secret"))
        );
        assert_eq!(message.mapped_address(), None);
        assert_eq!(message.attributes().count(), 1);
    }

    #[test]
    fn a_signature_behind_something_else_is_nobodys() {
        let (one, two) = (Key::sha1(b"one"), Key::sha256(b"two"));
        let start = || Builder::new(Class::Success, BINDING, TransactionId([2; 12]));
        let holds = |message: Builder| {
            let bytes = message.finish();
            let message = Message::parse(&bytes).unwrap();
            (message.is_signed_by(&one), message.is_signed_by(&two))
        };
        assert_eq!(holds(start().sign(&one).sign(&two)), (true, true));
        assert_eq!(holds(start().sign(&two).sign(&one)), (false, true));
        assert_eq!(holds(start().sign(&one).attribute(Kind::SOFTWARE, b"junk").sign(&two)), (true, false));
    }

    #[test]
    fn of_two_attributes_of_a_kind_the_first_counts() {
        let (first, second) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let message = Builder::new(Class::Success, BINDING, TransactionId([3; 12]))
            .mapped_address(first)
            .mapped_address(second)
            .finish();
        assert_eq!(Message::parse(&message).unwrap().mapped_address(), Some(first));
    }
}
