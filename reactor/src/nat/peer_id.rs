//! Who a peer is, wherever it is.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

use crate::crypto::{ParseKeyError, PublicKey};
use crate::net::tls::Expect;

/// The SHA3-256 of a peer's public key, which its handshake proves. Shown as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

impl PeerId {
    /// What a handshake with this peer has to prove.
    pub const fn expected(self) -> Expect {
        Expect::Fingerprint(self.0)
    }
}

impl From<PublicKey> for PeerId {
    fn from(key: PublicKey) -> PeerId {
        PeerId(key.fingerprint())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl FromStr for PeerId {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<PeerId, ParseKeyError> {
        // Written as a key is.
        text.parse().map(|key: PublicKey| PeerId(*key.as_bytes()))
    }
}
