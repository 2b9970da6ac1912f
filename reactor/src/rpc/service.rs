//! The handlers of one side, by method.
//!
//! A [`Service`] is a table from method numbers to closures, filled at the start and then shared by every
//! connection. [`Service::dispatch`] takes bytes and gives bytes, so a simulated network can call it without
//! a socket; [`Service::call_local`] is the typed form of that.
//!
//! What it is not: concurrency. Who calls `dispatch` decides on which coroutine the handler runs.

use crate::rpc::interceptor::{self, CallInfo, Interceptor};
use crate::rpc::metadata::ServiceName;
use crate::rpc::shared::Shared;
use crate::rpc::stream::{Stream, StreamMethod, StreamReceiver, StreamSender};
use crate::rpc::{CallContext, CallError, Method, Reply, tolerant};
use crate::serialization;
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::rc::Rc;

type Handler = Box<dyn Fn(&CallContext, &[u8], Bytes) -> Reply>;
type StreamHandler = Box<dyn Fn(&CallContext, &[u8], Ends) -> Reply>;

/// Both streams of a call, for its handler.
pub(super) struct Ends {
    pub(super) shared: Rc<Shared>,
    pub(super) stream: Rc<Stream>,
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
    /// Those that share the connection, by name.
    named: HashMap<ServiceName, Rc<Service>>,
    interceptors: Vec<Rc<dyn Interceptor>>,
}

/// A method and its handler.
struct Entered {
    name: &'static str,
    inline: bool,
    sizes: Sizes,
    run: Run,
}

/// What the calls of a method may take.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// What the connection allows, if the method does not say.
    pub(super) request_bytes_max: Option<usize>,
    pub(super) reply_bytes_max: usize,
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

    /// Lets another service share the connection under a name, by which callers ask for it: see
    /// [`Named`](crate::rpc::Named). Its methods have numbers of their own, and what stands around this service stands
    /// around that one's calls too, outside of its own interceptors.
    ///
    /// # Panics
    /// If the name is taken, or is that of this service itself (the empty one), or the other shares its own connections.
    pub fn share(&mut self, name: ServiceName, service: Rc<Service>) -> &mut Service {
        assert!(!name.is_own(), "a service that shares a connection needs a name");
        assert!(service.named.is_empty(), "a service that shares a connection has none that share its own");
        assert!(!self.named.contains_key(&name), "two services share the name {name:?}");
        self.named.insert(name, service);
        self
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
                sizes: Sizes {
                    request_bytes_max: M::REQUEST_SIZE_BYTES_MAX,
                    reply_bytes_max: M::REPLY_SIZE_BYTES_MAX,
                },
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
            service: context.service(),
            metadata: &context.metadata,
            peer: context.peer.as_ref(),
            deadline: context.deadline,
            request_bytes: bytes,
        }
    }

    /// The service of a name: this one, or one that shares its connections.
    fn of(&self, name: &ServiceName) -> Option<&Service> {
        match name.is_own() {
            true => Some(self),
            false => self.named.get(name).map(|service| &**service),
        }
    }

    /// Runs `innermost` with the interceptors of this service around it, and with those of the one that answers.
    fn intercepted(
        &self,
        answers: &Service,
        info: &CallInfo<'_>,
        innermost: &mut dyn FnMut() -> Reply,
    ) -> Reply {
        let inner: &[_] = if info.service.is_empty() { &[] } else { &answers.interceptors };
        interceptor::around(&self.interceptors, info, &mut || interceptor::around(inner, info, innermost))
    }

    fn is_bare(&self, answers: &Service) -> bool {
        self.interceptors.is_empty() && answers.interceptors.is_empty()
    }

    /// Runs the handler of `method` on the calling coroutine, of this service or of the one that the context names.
    ///
    /// # Panics
    /// With the handler.
    ///
    /// # Suspends
    /// As long as the handler does.
    pub fn dispatch(&self, context: &CallContext, method: u32, request: &[u8], payload: Bytes) -> Reply {
        let Some(answers) = self.of(&context.service) else { return Reply::UnknownService };
        let run = |payload| match answers.handlers.get(&method) {
            Some(Entered { run: Run::Once(handler), .. }) => handler(context, request, payload),
            Some(_) | None => Reply::UnknownMethod,
        };
        if self.is_bare(answers) {
            return run(payload);
        }
        let info = answers.info(context, method, request.len() + payload.len());
        self.intercepted(answers, &info, &mut || run(payload.clone()))
    }

    /// Runs the handler of a method that streams, as [`Service::dispatch`] does the others.
    pub(super) fn dispatch_stream(
        &self,
        context: &CallContext,
        method: u32,
        request: &[u8],
        ends: &dyn Fn() -> Ends,
    ) -> Reply {
        let Some(answers) = self.of(&context.service) else { return Reply::UnknownService };
        let mut run = || match answers.handlers.get(&method) {
            Some(Entered { run: Run::Streaming(handler), .. }) => handler(context, request, ends()),
            Some(_) | None => Reply::UnknownMethod,
        };
        if self.is_bare(answers) {
            return run();
        }
        self.intercepted(answers, &answers.info(context, method, request.len()), &mut run)
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
        if !super::is_request_allowed::<M>(request.len(), payload.len()) {
            return Err(CallError::RequestTooLarge);
        }
        self.dispatch(context, M::ID, &request, payload).decode::<M>()
    }

    /// The name of a method that this service handles.
    pub fn name_of(&self, method: u32) -> Option<&'static str> {
        self.handlers.get(&method).map(|entered| entered.name)
    }

    /// The same of the service of that name.
    pub(super) fn name_in(&self, service: &ServiceName, method: u32) -> Option<&'static str> {
        self.of(service)?.name_of(method)
    }

    /// What calls of `method` may take in the service of that name; `None` if there is no such service.
    pub(super) fn sizes_of(&self, service: &ServiceName, method: u32) -> Option<Sizes> {
        let unknown = Sizes { request_bytes_max: None, reply_bytes_max: 0 };
        Some(self.of(service)?.handlers.get(&method).map_or(unknown, |entered| entered.sizes))
    }

    /// Whether `method` is answered without ever waiting: its handler is [`Method::INLINE`], or there is none.
    pub(super) fn is_inline(&self, service: &ServiceName, method: u32) -> bool {
        let entered = self.of(service).and_then(|service| service.handlers.get(&method));
        entered.is_none_or(|entered| entered.inline)
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
    use crate::rpc::{MESSAGE_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};

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
        assert_eq!(echo().call_local::<Echo>(&context, &long, Bytes::new()), Err(CallError::RequestTooLarge));
        let payload = Bytes::from(vec![0; PAYLOAD_SIZE_BYTES_MAX + 1]);
        assert_eq!(
            echo().call_local::<Echo>(&context, &String::new(), payload),
            Err(CallError::RequestTooLarge)
        );
    }

    #[test]
    #[should_panic(expected = "share the method id")]
    fn two_methods_with_one_id_are_a_bug() {
        echo().on::<Echo>(|_, text, payload| Ok((text, payload)));
    }
}
