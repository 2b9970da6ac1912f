//! Making messages.

use std::net::SocketAddr;

use super::attribute::{Change, Kind, encode_address, encode_error, mask};
use super::integrity::{self, Key};
use super::message::{Class, HEADER_BYTES, MAGIC_COOKIE, TransactionId, join_type};

/// A message in the making. The header's length is right after each step, since signature and checksum cover it.
#[derive(Clone, Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    transaction: TransactionId,
}

impl Builder {
    /// A message without attributes.
    ///
    /// # Panics
    /// If `method` has more than twelve bits.
    pub fn new(class: Class, method: u16, transaction: TransactionId) -> Builder {
        assert!(method < 0x1000, "a method has twelve bits");
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(join_type(class, method).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.extend(transaction.0);
        Builder { bytes, transaction }
    }

    /// Adds an attribute.
    ///
    /// # Panics
    /// If the message gets longer than the 65,535 bytes that its header can say.
    #[must_use]
    pub fn attribute(mut self, kind: Kind, value: &[u8]) -> Builder {
        self.push(kind, value);
        self
    }

    /// Adds the address that a request came from, XORed.
    #[must_use]
    pub fn mapped_address(self, address: SocketAddr) -> Builder {
        let masked = mask(address, &self.transaction);
        self.attribute(Kind::XOR_MAPPED_ADDRESS, &encode_address(masked))
    }

    /// Adds an address as it is.
    #[must_use]
    pub fn address(self, kind: Kind, address: SocketAddr) -> Builder {
        self.attribute(kind, &encode_address(address))
    }

    /// Asks for an answer from elsewhere.
    #[must_use]
    pub fn change(self, change: Change) -> Builder {
        self.attribute(Kind::CHANGE_REQUEST, &change.encode())
    }

    /// Adds a code, and a text for people.
    ///
    /// # Panics
    /// If the code is not one from 300 to 699; as [`Builder::attribute`].
    #[must_use]
    pub fn error(self, code: u16, reason: &str) -> Builder {
        assert!((300..=699).contains(&code), "{code} is no code of an error");
        self.attribute(Kind::ERROR_CODE, &encode_error(code, reason))
    }

    /// Adds the kinds that were not understood.
    ///
    /// # Panics
    /// As [`Builder::attribute`].
    #[must_use]
    pub fn unknown_attributes(self, kinds: &[Kind]) -> Builder {
        let value: Vec<u8> = kinds.iter().flat_map(|kind| kind.0.to_be_bytes()).collect();
        self.attribute(Kind::UNKNOWN_ATTRIBUTES, &value)
    }

    /// Signs all so far. Nothing but SHA256's signature and the checksum may follow.
    ///
    /// # Panics
    /// As [`Builder::attribute`].
    #[must_use]
    pub fn sign(mut self, key: &Key<'_>) -> Builder {
        let signature = key.sign(&self.bytes);
        self.push(key.kind(), &signature);
        self
    }

    /// Adds the checksum, which has to be the last.
    ///
    /// # Panics
    /// As [`Builder::attribute`].
    #[must_use]
    pub fn fingerprint(mut self) -> Builder {
        let checksum = integrity::checksum(&self.bytes);
        self.push(Kind::FINGERPRINT, &checksum);
        self
    }

    /// How long the message is by now, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The message as a datagram.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn push(&mut self, kind: Kind, value: &[u8]) {
        self.bytes.extend(kind.0.to_be_bytes());
        self.bytes.extend((value.len() as u16).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = u16::try_from(self.bytes.len() - HEADER_BYTES).expect("a message is below 64 KiB");
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}
