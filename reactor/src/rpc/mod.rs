//! Calls between peers: typed, many at once over one connection, in both directions.
//!
//! A [`Method`] names a request, a response and an error type; serde and MessagePack carry them. A
//! [`Service`] holds the handlers. Either end of a connection may call the other, any number of calls are in
//! flight together, and answers come in any order. A payload of bytes travels beside the message: it is never
//! encoded again, and a large one is cut into parts so that a small call need not wait behind it.
//!
//! The layers, each in its file: `frame` is bytes and `metadata` what stands before a message (pure), `budget` bounds what the peer may cost (pure), `outbox` decides
//! what is sent next (pure), `calls` pairs answers with calls (pure), `service` finds and runs the handler, `flow` is the loops of a reader, a
//! writer and a housekeeper, each a coroutine, `shared` is what they share, and `connection` what users hold.
//!
//! A call carries [`Metadata`] both ways, and may name one of several services that share the connection ([`Named`]).
//!
//! Around a connection go, each a [`Caller`] that calls through another: [`Reconnecting`] dials again, [`Balanced`] spreads
//! calls over several peers, [`Retrying`] asks again, or a second peer beside the first, as a [`RetryPolicy`] says.
//!
//! What it is not: discovery, or trust. Who the peer is comes from the stream below it (see [`crate::net::tls`]); which
//! peers there are is the overlay's business.

pub mod balance;
mod balanced;
pub mod budget;
mod call;
mod caller;
pub mod calls;
pub mod connection;
mod context;
pub mod error;
mod flags;
mod flow;
pub mod frame;
pub mod hello;
mod input;
mod interceptor;
mod life;
mod line;
pub mod metadata;
mod named;
mod never;
pub mod outbox;
mod progress;
mod reconnecting;
mod reply;
pub mod retry;
mod retrying;
mod schema;
mod serve;
mod server;
pub mod service;
mod service_macro;
mod shared;
mod stream;
mod tolerant;
pub mod window;

pub use balance::EjectPolicy;
pub use balanced::{Balanced, PeerState, Tried};
pub use budget::Pool;
pub use caller::{CALL_TIME, CallOptions, Caller, Payload};
pub use connection::{CloseReason, Config, Connection, Interceptors, pair};
pub use context::CallContext;
pub use error::{CallError, Fate};
#[doc(hidden)]
pub use flags::Flags;
pub use frame::Priority;
pub use interceptor::{CallInfo, Interceptor};
pub use metadata::{METADATA_SIZE_BYTES_MAX, Metadata, MetadataError, ReplyMetadata, ServiceName};
pub use named::Named;
pub use never::Never;
pub use reconnecting::Reconnecting;
pub use reply::Reply;
pub use retry::{HedgePolicy, RetryBudget, RetryPolicy};
pub use retrying::Retrying;
pub use schema::{MethodSchema, Schema};
pub use server::{Server, ServerHandle, ServerLimits};
pub use service::Service;
pub use stream::{StreamCall, StreamMethod, StreamReceiver, StreamSender};
pub use tolerant::from_bytes as read_message;
pub use window::{Broken, STREAMS_MAX, Stopped};

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// The longest encoded request, response or error: lookups and consensus records take some kilobytes;
/// content belongs into the payload, which is not encoded.
pub const MESSAGE_SIZE_BYTES_MAX: usize = 1 << 20;

/// The longest payload: a stored object is at most 1 MiB and its envelope, and four of them fit.
pub const PAYLOAD_SIZE_BYTES_MAX: usize = 4 << 20;

/// The longest reply, message and payload together, of a method that says nothing of it: a full part of a payload, and
/// a message of some kilobytes.
pub const REPLY_SIZE_BYTES_DEFAULT: usize = 72 << 10;

/// The longest request, message and payload together: all that a call may carry.
pub const REQUEST_SIZE_BYTES_MAX: usize = MESSAGE_SIZE_BYTES_MAX + PAYLOAD_SIZE_BYTES_MAX;

/// Whether a request of these sizes may be sent at all.
fn is_request_allowed<M: Method>(message_bytes: usize, payload_bytes: usize) -> bool {
    message_bytes <= MESSAGE_SIZE_BYTES_MAX
        && payload_bytes <= PAYLOAD_SIZE_BYTES_MAX
        && message_bytes + payload_bytes <= M::REQUEST_SIZE_BYTES_MAX.unwrap_or(REQUEST_SIZE_BYTES_MAX)
}

/// A procedure that a peer can call.
///
/// # Examples
/// ```
/// use reactor::rpc::Method;
/// struct Add;
/// impl Method for Add {
///     const ID: u32 = 0x0700;
///     const NAME: &'static str = "calculator.add";
///     type Request = (i64, i64);
///     type Response = i64;
///     type Error = String;
/// }
/// ```
pub trait Method: 'static {
    /// What stands for the method on the wire: never reuse a number.
    const ID: u32;
    /// What stands for it in logs and errors.
    const NAME: &'static str;
    /// Whether the handler never suspends, and so may run on the connection's reader: it saves a coroutine. One that
    /// suspends all the same keeps every later frame of its connection waiting, and its caller can't end it.
    const INLINE: bool = false;
    /// Whether doing it twice does no more than doing it once: then a call that was cut off may be repeated.
    const IDEMPOTENT: bool = false;
    /// The longest request, message and payload together, if it is not what the callee's [`Config`] takes: more of it or
    /// less. Either end refuses a longer one ([`CallError::RequestTooLarge`]), the callee before it holds any of it.
    const REQUEST_SIZE_BYTES_MAX: Option<usize> = None;
    /// The longest reply, message and payload together. Both ends reserve as much for each call that is in flight, so
    /// say what is needed: with the default a peer may have 256 calls in flight, and with 1 MiB some 30. A longer
    /// reply becomes [`CallError::TooLarge`].
    const REPLY_SIZE_BYTES_MAX: usize = REPLY_SIZE_BYTES_DEFAULT;
    /// What the caller says.
    type Request: Serialize + DeserializeOwned;
    /// What the callee answers.
    type Response: Serialize + DeserializeOwned;
    /// How the callee refuses.
    type Error: Serialize + DeserializeOwned + Debug;
}
