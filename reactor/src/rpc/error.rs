//! How a call can fail, sorted by who must act.
//!
//! What it is not: how a connection fails; a call only learns that it has ([`CallError::Closed`]).

use crate::rpc::{MESSAGE_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};
use std::fmt::Debug;

/// Why a call gave no response. `E` is the method's own error type.
///
/// Whether the callee *did* what was asked is known only for `Remote` (where the sender decides by `E`), and for `NotSent`,
/// `UnknownMethod`, `UnknownService`, `Unsupported`, `Overloaded`, `Denied` and `RequestTooLarge`, which mean it did not.
/// After any other, ask again with a request that may be applied twice; [`CallError::fate`] says so as a value.
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
    /// An interceptor, here or at the callee, refused the caller. Nothing was done. Of the callee's words those that would end a
    /// line, or that a terminal obeys, are written out as `\n` and `\u{1b}`.
    #[error("the call was denied: {0}")]
    Denied(String),
    /// The connection went while a call that may not be repeated was in flight: whether it was done is not known.
    /// Only a reconnecting client says so; the next call finds a new connection.
    #[error("the connection was lost while the call was in flight: ask what became of it, then call again")]
    Disconnected,
    /// The callee has no service of the name that the call gives. Nothing was done.
    #[error("the peer has no service of this name: check the name, and the peer's version")]
    UnknownService,
    /// The peer's version cannot carry what the call has: metadata, or a service's name. Nothing was sent.
    #[error("the peer's version of RPC carries no {0}: call without, or have it updated")]
    Unsupported(&'static str),
    /// The reply is larger than a call may carry, than its method says, or than the caller takes.
    #[error(
        "the reply is longer than its method or its caller allows: ask for less at once, or allow more (a message takes \
         at most {MESSAGE_SIZE_BYTES_MAX} bytes and a payload {PAYLOAD_SIZE_BYTES_MAX})"
    )]
    TooLarge,
    /// The request is larger than a call may carry, than its method says, or than the callee takes. Nothing was done.
    #[error(
        "the request is longer than its method or the peer allows, and nothing was done: split it (a message takes at \
         most {MESSAGE_SIZE_BYTES_MAX} bytes and a payload {PAYLOAD_SIZE_BYTES_MAX})"
    )]
    RequestTooLarge,
    /// One side could not read what the other wrote; the callee's words as in [`CallError::Denied`].
    #[error("the call could not be read ({0}): check that both sides run compatible versions")]
    Malformed(String),
}

/// What is known of a call that failed, for whoever thinks of asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The callee has said what there is to say; asked again it would say the same.
    Answered,
    /// Nothing was done, and it may go better another time, or elsewhere.
    NotDone,
    /// It may have been done, or not.
    Unknown,
}

impl<E> CallError<E> {
    /// What is known of the call.
    ///
    /// # Examples
    /// ```
    /// use reactor::rpc::{CallError, Fate};
    /// assert_eq!(CallError::<()>::NotSent.fate(), Fate::NotDone);
    /// assert_eq!(CallError::<()>::TimedOut.fate(), Fate::Unknown);
    /// assert_eq!(CallError::Remote("no").fate(), Fate::Answered);
    /// ```
    pub fn fate(&self) -> Fate {
        match self {
            CallError::NotSent | CallError::Overloaded => Fate::NotDone,
            CallError::Closed | CallError::Disconnected | CallError::TimedOut | CallError::Cancelled => {
                Fate::Unknown
            }
            CallError::Remote(_)
            | CallError::Panicked
            | CallError::UnknownMethod
            | CallError::UnknownService
            | CallError::Unsupported(_)
            | CallError::Denied(_)
            | CallError::TooLarge
            | CallError::RequestTooLarge
            | CallError::Malformed(_) => Fate::Answered,
        }
    }

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
            CallError::UnknownService => CallError::UnknownService,
            CallError::Unsupported(what) => CallError::Unsupported(what),
            CallError::TooLarge => CallError::TooLarge,
            CallError::RequestTooLarge => CallError::RequestTooLarge,
            CallError::Malformed(reason) => CallError::Malformed(reason),
        }
    }
}
