//! What can go wrong with a connection, in the words of this layer.

use std::io::{self, ErrorKind};

use quinn_proto::{ConnectionError, TransportErrorCode};

/// TLS's alert `access_denied`: what rustls makes of a verifier that holds the peer for another.
const ACCESS_DENIED: u8 = 49;

/// Why a connection is gone. Kept, since everybody who still uses it is told the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    kind: ErrorKind,
    reason: String,
}

impl Lost {
    pub(super) fn new(kind: ErrorKind, reason: impl Into<String>) -> Lost {
        Lost { kind, reason: reason.into() }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.reason.clone())
    }
}

impl From<ConnectionError> for Lost {
    fn from(error: ConnectionError) -> Lost {
        match error {
            ConnectionError::TransportError(error)
                if error.code == TransportErrorCode::crypto(ACCESS_DENIED) =>
            {
                let reason = "the peer proved another key than the one that was dialled: its address is stale, or taken";
                Lost::new(ErrorKind::InvalidData, reason)
            }
            ConnectionError::TransportError(error) => {
                Lost::new(ErrorKind::InvalidData, format!("QUIC: {error}"))
            }
            ConnectionError::VersionMismatch => Lost::new(
                ErrorKind::InvalidData,
                "the peer speaks another version of QUIC: bring the older of the two up to date",
            ),
            ConnectionError::ConnectionClosed(close) => {
                Lost::new(ErrorKind::ConnectionAborted, format!("the peer broke the connection off: {close}"))
            }
            ConnectionError::ApplicationClosed(_) => {
                Lost::new(ErrorKind::ConnectionAborted, "the peer closed the connection")
            }
            ConnectionError::Reset => Lost::new(
                ErrorKind::ConnectionReset,
                "the peer knows nothing of the connection: it was restarted",
            ),
            ConnectionError::TimedOut => {
                Lost::new(ErrorKind::TimedOut, "nothing was heard of the peer for too long")
            }
            ConnectionError::LocallyClosed => {
                Lost::new(ErrorKind::NotConnected, "the connection was closed here")
            }
            ConnectionError::CidsExhausted => {
                Lost::new(ErrorKind::QuotaExceeded, "the endpoint has too many connections: close some")
            }
        }
    }
}
