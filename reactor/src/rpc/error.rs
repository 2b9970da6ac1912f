//! How a call can fail, sorted by who must act.
//!
//! What it is not: how a connection fails; a call only learns that it has ([`CallError::Closed`]).

use crate::rpc::{MESSAGE_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};
use std::fmt::Debug;

/// Why a call gave no response. `E` is the method's own error type.
///
/// Whether the callee *did* what was asked is known only for `Remote`, `NotSent`, `UnknownMethod`, `Overloaded`,
/// `Denied` and `Malformed` (where the sender decides by `E`, and the rest mean it did not). After any
/// other, ask again with a request that may be applied twice.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError<E> {
    /// The handler answered with its own error.
    #[error("the peer refused: {0:?}")]
    Remote(E),
    /// The connection is closed, and nothing of the call has left: the peer has not heard of it.
    #[error(
        "the connection to the peer is closed and the call was not sent: connect again, or ask another peer"
    )]
    NotSent,
    /// The connection went while the call was in flight.
    #[error("the connection to the peer closed before it answered: connect again, or ask another peer")]
    Closed,
    /// No answer within the caller's time; the callee was told to stop.
    #[error("the peer did not answer in time: try again later, or ask another peer")]
    TimedOut,
    /// The callee ended the handler before it answered: it is stopping, or its own deadline passed.
    #[error("the peer gave up the call: ask another peer")]
    Cancelled,
    /// The callee has too much to do for us already, or for all its peers. It has done nothing for this call.
    #[error("the peer has too many calls in hand, ours or others': wait a moment and try again")]
    Overloaded,
    /// The handler panicked: a bug at the callee, whose log has the message.
    #[error("the peer's handler panicked: see its log")]
    Panicked,
    /// The callee knows no such method, or no calls of its kind.
    #[error("the peer does not know this method: it runs another version")]
    UnknownMethod,
    /// An interceptor, here or at the callee, refused the caller. Nothing was done.
    #[error("the call was denied: {0}")]
    Denied(String),
    /// The connection went while a call that may not be repeated was in flight: whether it was done is not known.
    /// Only a reconnecting client says so; the next call finds a new connection.
    #[error("the connection was lost while the call was in flight: ask what became of it, then call again")]
    Disconnected,
    /// The request is larger than a call may carry (then it was not sent), or the reply is, or is longer than its
    /// method says.
    #[error(
        "a message takes at most {MESSAGE_SIZE_BYTES_MAX} bytes and a payload {PAYLOAD_SIZE_BYTES_MAX}, \
         and a reply what its method allows: split it"
    )]
    TooLarge,
    /// One side could not read what the other wrote.
    #[error("the call could not be read ({0}): check that both sides run compatible versions")]
    Malformed(String),
}

impl<E> CallError<E> {
    /// Turns the method's own error into another, and leaves the rest alone.
    pub fn map_remote<F>(self, f: impl FnOnce(E) -> F) -> CallError<F> {
        match self {
            CallError::Remote(error) => CallError::Remote(f(error)),
            CallError::NotSent => CallError::NotSent,
            CallError::Closed => CallError::Closed,
            CallError::TimedOut => CallError::TimedOut,
            CallError::Cancelled => CallError::Cancelled,
            CallError::Overloaded => CallError::Overloaded,
            CallError::Panicked => CallError::Panicked,
            CallError::UnknownMethod => CallError::UnknownMethod,
            CallError::Denied(reason) => CallError::Denied(reason),
            CallError::Disconnected => CallError::Disconnected,
            CallError::TooLarge => CallError::TooLarge,
            CallError::Malformed(reason) => CallError::Malformed(reason),
        }
    }
}
