//! What a generated client calls through: a connection, a reconnecting one, or what its user puts around them.
//!
//! What it is not: typed. The client knows the methods; a caller carries whichever it is given.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::frame::Priority;
use super::stream::{StreamCall, StreamMethod};
use super::{CallError, Connection, Metadata, Method, ReplyMetadata, ServiceName, Tried};

/// Bytes that travel beside a message, as they are.
pub type Payload = Bytes;

/// How long a call takes at most whose options don't say.
pub const CALL_TIME: Duration = Duration::from_secs(10);

/// How a call is made.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use reactor::rpc::{CallContext, CallOptions, Metadata, Never, ReplyMetadata, Service, pair};
///
/// reactor::service! {
///     trait Clock = "clock" version 1, client ClockClient {
///         fn tick(&self) -> Result<u64, Never> = 1 as Tick;
///     }
/// }
///
/// struct Tower;
/// impl Clock for Tower {
///     fn tick(&self, call: &CallContext) -> Result<u64, Never> {
///         // What the caller sent along comes back, with something of our own.
///         let id = call.metadata.get_text("request-id").unwrap_or("none");
///         call.answer_with("request-id", id).expect("it came in metadata, so it fits");
///         call.answer_with("served-by", "tower").expect("it is short");
///         Ok(7)
///     }
/// }
///
/// reactor::run(|| {
///     let mut service = Service::new();
///     Rc::new(Tower).serve_on(&mut service);
///     let (near, _far) = pair(Service::none(), Rc::new(service));
///     let heard = ReplyMetadata::new();
///     let metadata = Metadata::new().with("request-id", "r-17").expect("it is short");
///     let options = CallOptions::default().metadata(metadata).hear(&heard);
///     assert_eq!(ClockClient::new(near).with(options).tick(), Ok(7));
///     assert_eq!(heard.get().get_text("request-id"), Some("r-17"));
///     assert_eq!(heard.get().get_text("served-by"), Some("tower"));
/// });
/// ```
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// How long the caller waits; the callee is told, and stops then too. `None` is [`CALL_TIME`] for a call, and for one
    /// that streams [`CALL_TIME`] to begin and no end: a stream lasts as long as both ends want it.
    pub timeout: Option<Duration>,
    /// What the call and its answer rank as when the line is busy.
    pub priority: Priority,
    /// The longest reply, message and payload together, that the caller takes, if that is less than the method's: a longer
    /// one becomes [`CallError::TooLarge`] before anything of it is held.
    pub reply_bytes_max: Option<usize>,
    /// What the callee is sent along. The first call with metadata on a connection waits until the ends know of each other,
    /// which takes a round trip; a peer that can't read it is not asked ([`CallError::Unsupported`]).
    pub metadata: Metadata,
    /// Where what the callee sends back along is put, when it has answered.
    pub reply_metadata: Option<ReplyMetadata>,
    /// Which of the services that share the connection is called; see [`Named`](super::Named).
    pub service: ServiceName,
    /// Which of several peers have been asked already, where a call is tried more than once: others are asked first.
    pub tried: Option<Tried>,
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

    /// The same options with metadata for the callee.
    #[must_use]
    pub fn metadata(self, metadata: Metadata) -> CallOptions {
        CallOptions { metadata, ..self }
    }

    /// The same options with a place for the callee's metadata.
    #[must_use]
    pub fn hear(self, place: &ReplyMetadata) -> CallOptions {
        CallOptions { reply_metadata: Some(place.clone()), ..self }
    }

    /// The same options with a bound for the reply, message and payload together.
    #[must_use]
    pub fn replies_up_to(self, bytes: usize) -> CallOptions {
        CallOptions { reply_bytes_max: Some(bytes), ..self }
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

    /// Whether a call would be sent at once, as far as is known. Never suspends.
    fn is_ready(&self) -> bool {
        true
    }
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

    fn is_ready(&self) -> bool {
        !self.is_closed()
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

    fn is_ready(&self) -> bool {
        (**self).is_ready()
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

    fn is_ready(&self) -> bool {
        (**self).is_ready()
    }
}
