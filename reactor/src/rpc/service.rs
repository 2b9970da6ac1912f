//! The handlers of one side, by method.
//!
//! A [`Service`] is a table from method numbers to closures, filled at the start and then shared by every
//! connection. [`Service::dispatch`] takes bytes and gives bytes, so a simulated network can call it without
//! a socket; [`Service::call_local`] is the typed form of that.
//!
//! What it is not: concurrency. Who calls `dispatch` decides on which coroutine the handler runs.

use crate::crypto::PublicKey;
use crate::net::Draining;
use crate::rpc::connection::Handle;
use crate::rpc::interceptor::{self, CallInfo, Interceptor};
use crate::rpc::shared::Shared;
use crate::rpc::stream::{Stream, StreamMethod, StreamReceiver, StreamSender};
use crate::rpc::{CallError, Connection, MESSAGE_SIZE_BYTES_MAX, Method, PAYLOAD_SIZE_BYTES_MAX, tolerant};
use crate::serialization;
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

type Handler = Box<dyn Fn(&CallContext, &[u8], Bytes) -> Reply>;
type StreamHandler = Box<dyn Fn(&CallContext, &[u8], Ends) -> Reply>;

/// Both streams of a call, for its handler.
pub(super) struct Ends {
    pub(super) shared: Rc<Shared>,
    pub(super) stream: Rc<Stream>,
}

/// What a handler knows about the call beside its request.
#[derive(Clone, Default)]
pub struct CallContext {
    /// Who calls, as their handshake proved; `None` over a stream that proves nothing.
    pub peer: Option<PublicKey>,
    /// When the caller stops waiting, on our clock.
    pub deadline: Option<Instant>,
    pub(super) connection: Weak<Handle>,
    pub(super) draining: Draining,
}

impl CallContext {
    /// How long the caller still waits: the time to give to calls made on its behalf.
    pub fn time_left(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(crate::now()))
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
    /// The response exceeds what a call may carry.
    TooLarge,
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
    /// The connection is gone. Never sent.
    Closed,
    /// The caller's time was over. Never sent.
    TimedOut,
}

/// The handlers of one side.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use reactor::rpc::{CallContext, CallError, Method, Service};
/// struct Half;
/// impl Method for Half {
///     const ID: u32 = 1;
///     const NAME: &'static str = "half";
///     type Request = u32;
///     type Response = u32;
///     type Error = String;
/// }
/// let mut service = Service::new();
/// service.on::<Half>(|_context, number, _payload| match number % 2 {
///     0 => Ok((number / 2, Bytes::new())),
///     _ => Err("odd".to_owned()),
/// });
/// let context = CallContext::default();
/// assert_eq!(service.call_local::<Half>(&context, &8, Bytes::new()).unwrap().0, 4);
/// let refused = service.call_local::<Half>(&context, &7, Bytes::new());
/// assert_eq!(refused, Err(CallError::Remote("odd".to_owned())));
/// ```
#[derive(Default)]
pub struct Service {
    handlers: HashMap<u32, Entered>,
    interceptors: Vec<Rc<dyn Interceptor>>,
}

/// A method and its handler.
struct Entered {
    name: &'static str,
    inline: bool,
    reply_bytes_max: usize,
    run: Run,
}

enum Run {
    Once(Handler),
    Streaming(StreamHandler),
}

impl Service {
    /// A service that knows no method.
    pub fn new() -> Service {
        Service::default()
    }

    /// Handles `M` with `handler`, which runs on a coroutine of its own and may suspend. If the caller gives
    /// up, that coroutine is terminated.
    ///
    /// # Panics
    /// If the number is taken: two methods share an id.
    pub fn on<M: Method>(
        &mut self,
        handler: impl Fn(&CallContext, M::Request, Bytes) -> Result<(M::Response, Bytes), M::Error> + 'static,
    ) -> &mut Service {
        let run = move |context: &CallContext, request: &[u8], payload: Bytes| {
            let request = match tolerant::from_bytes::<M::Request>(request) {
                Ok(request) => request,
                Err(error) => return Reply::Malformed(format!("the request of {}: {error}", M::NAME)),
            };
            Reply::of::<M>(handler(context, request, payload))
        };
        self.enter::<M>(Run::Once(Box::new(run)))
    }

    /// Handles a method that streams. The streams end when the handler returns; see [`Service::on`] for the rest.
    ///
    /// # Panics
    /// If the number is taken: two methods share an id.
    pub fn on_stream<M: StreamMethod>(
        &mut self,
        handler: impl Fn(
            &CallContext,
            M::Request,
            StreamReceiver<M::Up>,
            StreamSender<M::Down>,
        ) -> Result<M::Response, M::Error>
        + 'static,
    ) -> &mut Service {
        let run = move |context: &CallContext, request: &[u8], ends: Ends| {
            let request = match tolerant::from_bytes::<M::Request>(request) {
                Ok(request) => request,
                Err(error) => return Reply::Malformed(format!("the request of {}: {error}", M::NAME)),
            };
            let up = StreamReceiver::new(ends.shared.clone(), ends.stream.clone());
            let down = StreamSender::new(ends.shared, ends.stream);
            let result = handler(context, request, up, down);
            Reply::of::<M>(result.map(|response| (response, Bytes::new())))
        };
        self.enter::<M>(Run::Streaming(Box::new(run)))
    }

    /// Puts an interceptor around every call that this service answers; the one added first is outermost.
    pub fn around(&mut self, interceptor: impl Interceptor + 'static) -> &mut Service {
        self.interceptors.push(Rc::new(interceptor));
        self
    }

    fn enter<M: Method>(&mut self, run: Run) -> &mut Service {
        match self.handlers.entry(M::ID) {
            Entry::Vacant(entry) => entry.insert(Entered {
                name: M::NAME,
                inline: M::INLINE,
                reply_bytes_max: M::REPLY_SIZE_BYTES_MAX,
                run,
            }),
            Entry::Occupied(entry) => {
                panic!("{} and {} share the method id {:#06x}", entry.get().name, M::NAME, M::ID)
            }
        };
        self
    }

    fn info<'a>(&self, context: &'a CallContext, method: u32, bytes: usize) -> CallInfo<'a> {
        CallInfo {
            method,
            name: self.name_of(method).unwrap_or("an unknown method"),
            peer: context.peer.as_ref(),
            deadline: context.deadline,
            request_bytes: bytes,
        }
    }

    /// Runs the handler of `method` on the calling coroutine.
    ///
    /// # Panics
    /// With the handler.
    ///
    /// # Suspends
    /// As long as the handler does.
    pub fn dispatch(&self, context: &CallContext, method: u32, request: &[u8], payload: Bytes) -> Reply {
        let run = |payload| match self.handlers.get(&method) {
            Some(Entered { run: Run::Once(handler), .. }) => handler(context, request, payload),
            Some(_) | None => Reply::UnknownMethod,
        };
        if self.interceptors.is_empty() {
            return run(payload);
        }
        let info = self.info(context, method, request.len() + payload.len());
        interceptor::around(&self.interceptors, &info, &mut || run(payload.clone()))
    }

    /// Runs the handler of a method that streams, as [`Service::dispatch`] does the others.
    pub(super) fn dispatch_stream(
        &self,
        context: &CallContext,
        method: u32,
        request: &[u8],
        ends: &dyn Fn() -> Ends,
    ) -> Reply {
        let mut run = || match self.handlers.get(&method) {
            Some(Entered { run: Run::Streaming(handler), .. }) => handler(context, request, ends()),
            Some(_) | None => Reply::UnknownMethod,
        };
        if self.interceptors.is_empty() {
            return run();
        }
        interceptor::around(&self.interceptors, &self.info(context, method, request.len()), &mut run)
    }

    /// Calls a handler of this service as a peer would, without a connection: encodes, dispatches, decodes.
    ///
    /// # Errors
    /// As a remote call, without the failures of a network.
    ///
    /// # Suspends
    /// As long as the handler does.
    pub fn call_local<M: Method>(
        &self,
        context: &CallContext,
        request: &M::Request,
        payload: Bytes,
    ) -> Result<(M::Response, Bytes), CallError<M::Error>> {
        let request = serialization::to_bytes(request);
        if request.len() > MESSAGE_SIZE_BYTES_MAX || payload.len() > PAYLOAD_SIZE_BYTES_MAX {
            return Err(CallError::TooLarge);
        }
        self.dispatch(context, M::ID, &request, payload).decode::<M>()
    }

    /// The name of a method that this service handles.
    pub fn name_of(&self, method: u32) -> Option<&'static str> {
        self.handlers.get(&method).map(|entered| entered.name)
    }

    /// The longest reply of `method`.
    pub fn reply_bytes_max(&self, method: u32) -> usize {
        self.handlers.get(&method).map_or(0, |entered| entered.reply_bytes_max)
    }

    /// Whether `method` is answered without ever waiting: its handler is [`Method::INLINE`], or there is none.
    pub fn is_inline(&self, method: u32) -> bool {
        self.handlers.get(&method).is_none_or(|entered| entered.inline)
    }
}

impl Reply {
    /// What a handler came to, encoded.
    fn of<M: Method>(result: Result<(M::Response, Bytes), M::Error>) -> Reply {
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
            Reply::TooLarge => Err(CallError::TooLarge),
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

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext").field("peer", &self.peer).field("deadline", &self.deadline).finish()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.values().map(|entered| entered.name)).finish()
    }
}

/// A service for one end of a connection that only calls.
impl Service {
    /// A shared service that knows no method.
    pub fn none() -> Rc<Service> {
        Rc::new(Service::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;
    impl Method for Echo {
        const ID: u32 = 9;
        const NAME: &'static str = "echo";
        type Request = String;
        type Response = String;
        type Error = ();
    }

    fn echo() -> Service {
        let mut service = Service::new();
        service.on::<Echo>(|_, text, payload| Ok((text, payload)));
        service
    }

    #[test]
    fn a_local_call_carries_message_and_payload() {
        let payload = Bytes::from_static(b"beside");
        let answer = echo().call_local::<Echo>(&CallContext::default(), &"hi".into(), payload.clone());
        assert_eq!(answer, Ok(("hi".to_owned(), payload)));
    }

    #[test]
    fn an_unknown_method_and_an_unreadable_request_are_answered() {
        let context = CallContext::default();
        assert_eq!(echo().dispatch(&context, 8, b"", Bytes::new()), Reply::UnknownMethod);
        assert!(matches!(echo().dispatch(&context, 9, b"\xc1", Bytes::new()), Reply::Malformed(_)));
    }

    #[test]
    fn what_is_too_large_is_refused_on_either_way() {
        let context = CallContext::default();
        let long = "x".repeat(MESSAGE_SIZE_BYTES_MAX);
        assert_eq!(echo().call_local::<Echo>(&context, &long, Bytes::new()), Err(CallError::TooLarge));
        let payload = Bytes::from(vec![0; PAYLOAD_SIZE_BYTES_MAX + 1]);
        assert_eq!(echo().call_local::<Echo>(&context, &String::new(), payload), Err(CallError::TooLarge));
    }

    #[test]
    #[should_panic(expected = "share the method id")]
    fn two_methods_with_one_id_are_a_bug() {
        echo().on::<Echo>(|_, text, payload| Ok((text, payload)));
    }
}
