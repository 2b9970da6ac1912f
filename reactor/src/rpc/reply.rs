//! What a call comes to, as bytes: between handlers and the line, and through interceptors.
//!
//! What it is not: typed. [`Reply::decode`] makes it so for the caller.

use bytes::Bytes;

use super::{CallError, Fate, MESSAGE_SIZE_BYTES_MAX, Method, PAYLOAD_SIZE_BYTES_MAX, tolerant};
use crate::serialization;

/// What a dispatched call came to, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The method's response, and the payload beside it.
    Response(Vec<u8>, Bytes),
    /// The method's own error.
    Error(Vec<u8>),
    /// Nobody handles this number.
    UnknownMethod,
    /// The request could not be read.
    Malformed(String),
    /// No service of the name that the call gives.
    UnknownService,
    /// The response exceeds what a call may carry.
    TooLarge,
    /// The request is longer than the method, or this end, takes; nothing was done.
    RequestTooLarge,
    /// The handler was ended before it answered.
    Cancelled,
    /// The handler panicked.
    Panicked,
    /// The peer has more in flight than we allow; nothing was done.
    Overloaded,
    /// An interceptor refused the caller, and says why.
    Denied(String),
    /// The connection was gone before anything of the call had left. Never sent.
    NotSent,
    /// The peer cannot read this of what the call has. Never sent.
    Unsupported(&'static str),
    /// The connection is gone. Never sent.
    Closed,
    /// The caller's time was over. Never sent.
    TimedOut,
}

impl Reply {
    /// What a handler came to, encoded.
    pub(super) fn of<M: Method>(result: Result<(M::Response, Bytes), M::Error>) -> Reply {
        let (is_response, message, payload) = match result {
            Ok((response, payload)) => (true, serialization::to_bytes(&response), payload),
            Err(error) => (false, serialization::to_bytes(&error), Bytes::new()),
        };
        let bytes = message.len() + payload.len();
        if bytes > M::REPLY_SIZE_BYTES_MAX {
            let (method, max) = (M::NAME, M::REPLY_SIZE_BYTES_MAX);
            tracing::error!(method, bytes, max, "an RPC handler's reply is longer than its method says");
            return Reply::TooLarge;
        }
        match is_response {
            _ if message.len() > MESSAGE_SIZE_BYTES_MAX => Reply::TooLarge,
            _ if payload.len() > PAYLOAD_SIZE_BYTES_MAX => Reply::TooLarge,
            true => Reply::Response(message, payload),
            false => Reply::Error(message),
        }
    }

    /// How many bytes it takes to send, header aside.
    pub fn size_bytes(&self) -> usize {
        match self {
            Reply::Response(message, payload) => message.len() + payload.len(),
            Reply::Error(message) => message.len(),
            Reply::Malformed(reason) | Reply::Denied(reason) => reason.len(),
            _ => 0,
        }
    }

    /// What is known of the call that came to this; see [`CallError::fate`].
    pub(super) fn fate(&self) -> Fate {
        match self {
            Reply::NotSent | Reply::Overloaded => Fate::NotDone,
            Reply::Closed | Reply::TimedOut | Reply::Cancelled => Fate::Unknown,
            Reply::Response(..)
            | Reply::Error(_)
            | Reply::UnknownMethod
            | Reply::Malformed(_)
            | Reply::UnknownService
            | Reply::TooLarge
            | Reply::RequestTooLarge
            | Reply::Panicked
            | Reply::Denied(_)
            | Reply::Unsupported(_) => Fate::Answered,
        }
    }

    /// Reads the reply as one to `M`.
    ///
    /// # Errors
    /// What the reply says, or [`CallError::Malformed`] if it cannot be read.
    pub fn decode<M: Method>(self) -> Result<(M::Response, Bytes), CallError<M::Error>> {
        let unreadable = |error: serialization::DecodeError| {
            CallError::Malformed(format!("the response of {}: {error}", M::NAME))
        };
        match self {
            Reply::Response(message, payload) => {
                Ok((tolerant::from_bytes(&message).map_err(unreadable)?, payload))
            }
            Reply::Error(message) => {
                Err(CallError::Remote(tolerant::from_bytes(&message).map_err(unreadable)?))
            }
            Reply::UnknownMethod => Err(CallError::UnknownMethod),
            Reply::Malformed(reason) => Err(CallError::Malformed(reason)),
            Reply::UnknownService => Err(CallError::UnknownService),
            Reply::Unsupported(what) => Err(CallError::Unsupported(what)),
            Reply::TooLarge => Err(CallError::TooLarge),
            Reply::RequestTooLarge => Err(CallError::RequestTooLarge),
            Reply::Cancelled => Err(CallError::Cancelled),
            Reply::Panicked => Err(CallError::Panicked),
            Reply::Overloaded => Err(CallError::Overloaded),
            Reply::Denied(reason) => Err(CallError::Denied(reason)),
            Reply::NotSent => Err(CallError::NotSent),
            Reply::Closed => Err(CallError::Closed),
            Reply::TimedOut => Err(CallError::TimedOut),
        }
    }
}
