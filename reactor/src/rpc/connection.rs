//! One connection to a peer, as its users hold it.
//!
//! A reader takes frames apart and starts a coroutine per request; a writer gathers what is queued into as few
//! writes as there can be; a housekeeper follows the connection's life, pings a silent peer and buries a dead one.
//! They are in `flow.rs` and `life.rs`, what they share in `shared.rs`.
//!
//! Memory per connection is bounded: what the peer causes by its budget (`budget.rs`), and what we say of our own
//! accord by `QUEUE_BYTES_MAX`, above which calls and senders wait before they add to the queue. The reader never waits
//! for room, for then two peers could wait for each other.
//!
//! What it is not: a pool. A connection that is closed stays closed; see [`Reconnecting`](super::Reconnecting).

use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::frame::FrameError;
use super::interceptor::Interceptor;
use super::shared::{Phase, Shared};
use super::stream::{StreamCall, StreamMethod};
use super::{CallError, CallOptions, Method, Pool, REQUEST_SIZE_BYTES_MAX, Service, call, flow, life};
use crate::crypto::PublicKey;
use crate::net::Duplex;

/// What a [`pair`] holds in each direction: a writer's whole batch, as a socket would take.
const PAIR_CAPACITY_BYTES: usize = 512 << 10;

/// How a connection is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// A peer that has been silent for this long is asked whether it lives. The default of 5 s is a third of
    /// `dead_after`, so a lost ping does not kill, and well below the 30 s after which NATs forget a flow.
    pub ping_after: Duration,
    /// A peer from which nothing has come for this long is dead. So is one for which something waits all this time, and
    /// which takes less than 64 KiB of it, or less than a fortieth: however slow the line, what it takes counts, and not
    /// how long one write lasts. The default is 15 s.
    pub dead_after: Duration,
    /// The longest request, message and payload together, that this end takes for a method that says nothing of it
    /// ([`Method::REQUEST_SIZE_BYTES_MAX`]); a longer one is answered [`CallError::RequestTooLarge`] before anything of
    /// it is held. The default is all that a call may carry.
    pub request_bytes_max: usize,
    /// What the peers of this and other connections may hold together, beyond a share of each. The default is one pool
    /// for the whole reactor.
    pub pool: Pool,
    /// Stand around every call made on this connection; see [`Config::around`].
    pub interceptors: Interceptors,
}

/// What stands around the calls of a connection, in order.
#[derive(Clone, Default)]
pub struct Interceptors(pub(super) Vec<Rc<dyn Interceptor>>);

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interceptors", self.0.len())
    }
}

impl Config {
    /// Puts an interceptor around the calls that are made on the connection; the one added first is outermost. Of a
    /// call that streams it sees the opening.
    #[must_use]
    pub fn around(mut self, interceptor: impl Interceptor + 'static) -> Config {
        self.interceptors.0.push(Rc::new(interceptor));
        self
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ping_after: Duration::from_secs(5),
            dead_after: Duration::from_secs(15),
            request_bytes_max: REQUEST_SIZE_BYTES_MAX,
            pool: Pool::default(),
            interceptors: Interceptors::default(),
        }
    }
}

/// Why a connection is closed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// We closed it, or dropped the last handle.
    #[error("we closed the connection")]
    Local,
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Remote,
    /// Nothing came for `Config::dead_after`, not even an answer to a ping.
    #[error("the peer has fallen silent: it crashed, or the network is cut")]
    Silent,
    /// The peer takes nothing of what we send, or too little of what it has asked for; see [`Config::dead_after`].
    #[error("the peer has stopped reading, or reads next to nothing of what waits for it")]
    Stuck,
    /// The peer asks and calls it off again, thousands of times a second, and lets next to nothing be answered.
    #[error("the peer calls off what it asks for, more often than is borne")]
    Fickle,
    /// The stream failed.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The peer sent what is no frame, or broke the rules.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] FrameError),
}

impl From<std::io::Error> for CloseReason {
    fn from(error: std::io::Error) -> CloseReason {
        CloseReason::Broken(error.to_string())
    }
}

/// A connection to a peer. Clones are the same connection; when the last one is dropped, it closes.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use std::time::Duration;
/// use bytes::Bytes;
/// use reactor::rpc::{Config, Connection, Method, Service};
///
/// struct Greet;
/// impl Method for Greet {
///     const ID: u32 = 1;
///     const NAME: &'static str = "greet";
///     type Request = String;
///     type Response = String;
///     type Error = ();
/// }
///
/// reactor::run(|| {
///     let mut service = Service::new();
///     service.on::<Greet>(|_context, name, payload| Ok((format!("hello {name}"), payload)));
///     let (here, there) = reactor::net::pipe(1 << 16);
///     let _server = Connection::start(there, Rc::new(service), Config::default());
///     let client = Connection::start(here, Service::none(), Config::default());
///     let answer = client.call::<Greet>(&"world".into(), Bytes::new(), Duration::from_secs(1));
///     assert_eq!(answer.unwrap().0, "hello world");
/// });
/// ```
#[derive(Clone)]
pub struct Connection(Rc<Handle>);

/// Closes the connection when the last user lets go; the coroutines hold [`Shared`] only.
pub(super) struct Handle {
    shared: Rc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

impl Connection {
    /// Starts speaking RPC on `stream`. `service` answers the peer's calls.
    ///
    /// # Panics
    /// Outside `reactor::run`, or when no more coroutines can be had.
    ///
    /// # Suspends
    /// Never; failures show as a closed connection.
    pub fn start(stream: impl Duplex, service: Rc<Service>, config: Config) -> Connection {
        let shared = Rc::new(Shared::new(stream, service, config));
        let handle = Rc::new(Handle { shared: shared.clone() });
        *shared.handle.borrow_mut() = Rc::downgrade(&handle);
        for body in [life::live, flow::write, flow::read] {
            shared.clone().run_task(body);
        }
        Connection(handle)
    }

    /// Calls `M` at the peer and waits for its answer.
    ///
    /// The payload travels as it is, beside the request. If the caller is terminated, or its time is over, the
    /// peer is told and ends the handler.
    ///
    /// # Errors
    /// [`CallError`] says who must act.
    ///
    /// # Suspends
    /// Until the answer is there, or `timeout` is over; first for its turn, if too much is in flight already.
    pub fn call<M: Method>(
        &self,
        request: &M::Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), CallError<M::Error>> {
        self.call_with_options::<M>(request, payload, &CallOptions::timeout(timeout))
    }

    /// As [`Connection::call`], with all options.
    ///
    /// # Errors
    /// [`CallError`] says who must act.
    ///
    /// # Suspends
    /// As [`Connection::call`].
    pub fn call_with_options<M: Method>(
        &self,
        request: &M::Request,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<(M::Response, Bytes), CallError<M::Error>> {
        call::call::<M>(&self.0.shared, request, payload, options)
    }

    /// Opens a call of `M`, which streams.
    ///
    /// # Errors
    /// [`CallError`] says who must act; `UnknownMethod` if the peer is of a version that knows no streams.
    ///
    /// # Suspends
    /// Until the call may begin: right at the start of a connection for a round trip, and while
    /// [`STREAMS_MAX`](super::STREAMS_MAX) of them are open.
    pub fn open<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>> {
        call::open::<M>(self, request, options)
    }

    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.0.shared
    }

    /// The key that the peer proved to hold, where the stream proves one.
    pub fn peer(&self) -> Option<PublicKey> {
        self.0.shared.peer
    }

    /// Closes the connection: what is queued still leaves (for a second at most), calls in flight fail with
    /// [`CallError::Closed`] (with [`CallError::NotSent`] if nothing of them has left), and the peer's calls in hand are
    /// ended. Never suspends.
    pub fn close(&self) {
        self.0.shared.begin_close();
    }

    /// Closes the connection when all that is in flight in both directions is done, or after `patience`. The peer is
    /// asked to begin no more calls, and new ones here fail with [`CallError::NotSent`].
    ///
    /// # Suspends
    /// Until the connection is closed.
    pub fn drain(&self, patience: Duration) {
        self.0.shared.begin_drain(Some(crate::now() + patience), CloseReason::Local);
        self.0.shared.closed.wait();
    }

    /// Whether the connection is closed, or about to be. Calls fail at once then.
    pub fn is_closed(&self) -> bool {
        self.0.shared.phase.get() != Phase::Open
    }

    /// Why it is closed; `None` while it is not.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.shared.reason.borrow().clone()
    }

    /// Waits until the connection is closed, and says why.
    ///
    /// # Suspends
    /// Until then.
    pub fn wait_closed(&self) -> CloseReason {
        self.0.shared.closed.wait();
        self.close_reason().unwrap_or(CloseReason::Local)
    }

    /// Waits until the connection takes no new calls: it drains, or is closed.
    ///
    /// # Suspends
    /// Until then.
    pub fn wait_unusable(&self) {
        self.0.shared.unusable.wait();
    }

    /// Whether both are handles of one connection.
    pub fn is_same(&self, other: &Connection) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// How many calls are in flight: ours at the peer, and the peer's here.
    pub fn calls_in_flight(&self) -> (usize, usize) {
        (self.0.shared.outgoing.borrow().count(), self.0.shared.budget.borrow().count())
    }

    /// The connection that `handle` belongs to, while someone holds it.
    pub(super) fn upgrade(handle: &Weak<Handle>) -> Option<Connection> {
        handle.upgrade().map(Connection)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.0.shared;
        f.debug_struct("Connection").field("peer", &shared.peer).field("phase", &shared.phase.get()).finish()
    }
}

/// Two connections joined in memory, the first answering with `near`, the second with `far`: for tests, and for a
/// service in the same process that is to be called as a remote one would be.
///
/// # Panics
/// Outside `reactor::run`.
pub fn pair(near: Rc<Service>, far: Rc<Service>) -> (Connection, Connection) {
    let (one, other) = crate::net::pipe(PAIR_CAPACITY_BYTES);
    let far = Connection::start(other, far, Config::default());
    (Connection::start(one, near, Config::default()), far)
}
