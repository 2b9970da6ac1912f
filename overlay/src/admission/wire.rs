//! The messages of the exchange, and how they lie on the stream.
//!
//! Not here: who is admitted, and why not.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use reactor::rpc::read_message;
use reactor::serialization::to_bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{AdmissionError, HELLO_BYTES_MAX, PROTOCOL_VERSIONS, Refusal, Versions};
use crate::invitation::Letter;
use crate::passport::Passport;
use crate::peers::Role;
use crate::record::SignedRecord;
use crate::revocation::Revocations;

/// Only ever append, with `#[serde(default)]`.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) versions: Versions,
    pub(super) features: u64,
    pub(super) passport: Passport,
    pub(super) role: Role,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) revocations: u64,
    pub(super) renewals: [u8; 8],
    #[serde(default)]
    pub(super) record: Option<SignedRecord>,
}

/// What every hello of any release begins with.
#[derive(Deserialize)]
struct AnyHello {
    versions: Versions,
}

/// An opening of which no more is understood than which versions are spoken.
#[derive(Deserialize)]
enum AnyOpening {
    Hello(AnyHello),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Opening {
    Hello(Box<Hello>),
    Letter(Box<Letter>),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Welcome(Box<Hello>),
    Refused(Refusal),
    Removed(Revocations),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Verdict {
    Accepted,
    Refused(Refusal),
}

/// Reads what somebody at the door begins with; or says why it is refused unread: it is the hello of a release with which we
/// have no version in common.
///
/// # Errors
/// If the stream breaks, or no such thing comes.
pub(super) fn receive_opening(stream: &mut impl Read) -> Result<Result<Opening, Refusal>, AdmissionError> {
    let body = receive_bytes(stream, HELLO_BYTES_MAX)?;
    if let Ok(opening) = read_message(&body) {
        return Ok(Ok(opening));
    }
    match read_message(&body) {
        Ok(AnyOpening::Hello(AnyHello { versions })) if PROTOCOL_VERSIONS.common(versions).is_none() => {
            Ok(Err(Refusal::Version { ours: PROTOCOL_VERSIONS, theirs: versions }))
        }
        _ => Err(AdmissionError::Malformed),
    }
}

pub(super) fn send(stream: &mut impl Write, message: &impl Serialize, bytes_max: usize) -> io::Result<()> {
    let body = to_bytes(message);
    assert!(body.len() <= bytes_max, "our own message is {} bytes long", body.len());
    // One write, one TLS record.
    let mut bytes = (body.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes)?;
    stream.flush()
}

pub(super) fn receive<T: DeserializeOwned>(
    stream: &mut impl Read,
    bytes_max: usize,
) -> Result<T, AdmissionError> {
    read_message(&receive_bytes(stream, bytes_max)?).map_err(|_| AdmissionError::Malformed)
}

fn receive_bytes(stream: &mut impl Read, bytes_max: usize) -> Result<Vec<u8>, AdmissionError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > bytes_max {
        return Err(AdmissionError::Malformed);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}
