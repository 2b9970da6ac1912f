//! What a handler knows about the call that it answers, beside the request, and what it says beside the response.
//!
//! What it is not: the request itself, which is the method's.

use std::fmt;
use std::rc::Weak;
use std::time::{Duration, Instant};

use super::Connection;
use super::connection::Handle;
use super::metadata::{Metadata, MetadataError, ReplyMetadata, ServiceName};
use crate::crypto::PublicKey;
use crate::net::Draining;

/// What a handler knows about the call beside its request.
#[derive(Clone, Default)]
pub struct CallContext {
    /// Who calls, as their handshake proved; `None` over a stream that proves nothing.
    pub peer: Option<PublicKey>,
    /// When the caller stops waiting, on our clock.
    pub deadline: Option<Instant>,
    /// What the caller has sent along.
    pub metadata: Metadata,
    pub(super) service: ServiceName,
    pub(super) answer: ReplyMetadata,
    pub(super) connection: Weak<Handle>,
    pub(super) draining: Draining,
}

impl CallContext {
    /// How long the caller still waits: the time to give to calls made on its behalf.
    pub fn time_left(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(crate::now()))
    }

    /// The name by which the caller has named the service; empty if it named none.
    pub fn service(&self) -> &str {
        self.service.as_str()
    }

    /// Sends a pair back beside the response or error, in place of one with the same key. A caller of a version before 3
    /// does not get it, and neither does one whose handler is ended before it answers.
    ///
    /// # Errors
    /// [`MetadataError`] if the key is none, or all pairs would take too much; those before stay.
    ///
    /// # Examples
    /// ```
    /// use reactor::rpc::{CallContext, MetadataError};
    ///
    /// /// Tells the caller which of its requests this was.
    /// fn name_request(context: &CallContext) -> Result<(), MetadataError> {
    ///     let id = context.metadata.get_text("request-id").unwrap_or("none");
    ///     context.answer_with("request-id", id)
    /// }
    /// # name_request(&CallContext::default()).unwrap();
    /// ```
    pub fn answer_with(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        self.answer.set(key, value)
    }

    /// What is to be sent back beside the response or error, as it is now.
    pub fn answer_metadata(&self) -> Metadata {
        self.answer.get()
    }

    /// Tells when the connection begins no more calls: because our server drains, the peer does, or it is closed. What
    /// never ends by itself (a stream of news) comes to its end then, or it is ended when the time for draining is over.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use reactor::rpc::CallContext;
    ///
    /// /// Tells how often a second has passed, until the connection drains.
    /// fn count_seconds(context: &CallContext) -> u32 {
    ///     let mut seconds = 0;
    ///     while reactor::select(&[context.draining(), &reactor::after(Duration::from_secs(1))]) == 1 {
    ///         seconds += 1;
    ///     }
    ///     seconds
    /// }
    /// ```
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// The connection that the call came over, to call back on; `None` if there is none, or if everyone has
    /// let go of it.
    pub fn connection(&self) -> Option<Connection> {
        Connection::upgrade(&self.connection)
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext").field("peer", &self.peer).field("deadline", &self.deadline).finish()
    }
}
