//! What a generated client calls through: a connection, a reconnecting one, or what its user puts around them.
//!
//! What it is not: typed. The client knows the methods; a caller carries whichever it is given.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::frame::Priority;
use super::stream::{StreamCall, StreamMethod};
use super::{CallError, Connection, Method};

/// Bytes that travel beside a message, as they are.
pub type Payload = Bytes;

/// How long a call takes at most whose options don't say.
pub const CALL_TIME: Duration = Duration::from_secs(10);

/// How a call is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// How long the caller waits; the callee is told, and stops then too. `None` is [`CALL_TIME`] for a call, and for one
    /// that streams [`CALL_TIME`] to begin and no end: a stream lasts as long as both ends want it.
    pub timeout: Option<Duration>,
    /// What the call and its answer rank as when the line is busy.
    pub priority: Priority,
}

impl CallOptions {
    /// The default options with this time to wait.
    pub fn timeout(timeout: Duration) -> CallOptions {
        CallOptions { timeout: Some(timeout), ..CallOptions::default() }
    }

    /// The same options with another priority.
    #[must_use]
    pub fn priority(self, priority: Priority) -> CallOptions {
        CallOptions { priority, ..self }
    }
}

/// Carries calls to a peer.
pub trait Caller {
    /// Calls `M`; see [`Connection::call`].
    ///
    /// # Errors
    /// [`CallError`] says who must act.
    ///
    /// # Suspends
    /// Until the answer is there, or the time is over.
    fn call_with<M: Method>(
        &self,
        request: &M::Request,
        payload: Payload,
        options: &CallOptions,
    ) -> Result<(M::Response, Payload), CallError<M::Error>>;

    /// Opens a call that streams; see [`Connection::open`].
    ///
    /// # Errors
    /// [`CallError`] says who must act.
    ///
    /// # Suspends
    /// Until the call may begin.
    fn open_with<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>>;
}

impl Caller for Connection {
    fn call_with<M: Method>(
        &self,
        request: &M::Request,
        payload: Payload,
        options: &CallOptions,
    ) -> Result<(M::Response, Payload), CallError<M::Error>> {
        self.call_with_options::<M>(request, payload, options)
    }

    fn open_with<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>> {
        self.open::<M>(request, options)
    }
}

impl<C: Caller> Caller for Rc<C> {
    fn call_with<M: Method>(
        &self,
        request: &M::Request,
        payload: Payload,
        options: &CallOptions,
    ) -> Result<(M::Response, Payload), CallError<M::Error>> {
        (**self).call_with::<M>(request, payload, options)
    }

    fn open_with<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>> {
        (**self).open_with::<M>(request, options)
    }
}

impl<C: Caller> Caller for &C {
    fn call_with<M: Method>(
        &self,
        request: &M::Request,
        payload: Payload,
        options: &CallOptions,
    ) -> Result<(M::Response, Payload), CallError<M::Error>> {
        (**self).call_with::<M>(request, payload, options)
    }

    fn open_with<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>> {
        (**self).open_with::<M>(request, options)
    }
}
