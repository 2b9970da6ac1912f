//! The server: a coroutine for each connection, and one that keeps house.
//!
//! Handlers are ordinary functions that read the request's body and return a response. They may wait for anything;
//! other connections are served meanwhile. A handler whose client's connection breaks is terminated, wherever it waits
//! (see also [`Limits::half_closed_time`]); what must be done nevertheless it does in [`crate::uninterruptible`].

mod accept;
mod answered;
mod attendance;
mod compress;
mod connection;
mod date;
mod exchange;
mod layers;
mod limits;
mod patience;
mod router;
mod send;
mod wire;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use slab::Slab;

pub(super) use self::compress::accepts_coding;
#[cfg(feature = "websocket")]
pub(super) use self::connection::{LINGER_BYTES_MAX, LINGER_TIME};

pub use self::accept::{Listen, Secured};
pub use self::answered::Answered;
pub use self::layers::{Group, Next};
pub use self::limits::Limits;
pub(super) use self::router::Params;
pub use self::send::BodyWriter;
pub(super) use self::wire::Farewell;
pub use self::wire::{RequestBody, Upgraded};

use self::answered::OnAnswer;
use self::attendance::Attendance;
use self::date::Date;
use self::layers::Layer;
use self::patience::{CoarseClock, Patience};
use self::router::{Handler, Router};
use self::wire::Vitals;
use super::{Request, Response};
use crate::cell::RefCell;
use crate::coroutine::{Builder, Cut, JoinHandle};
use crate::net::{Draining, Duplex, Gate, GateLimits, Guest};
use crate::seldom::warn_seldom;
use crate::sync::{Barrier, Signal};

/// How long a connection that rests between two requests is kept when the server drains: a request that was on its
/// way when we decided to stop is still answered.
const DRAIN_IDLE_TIME: Duration = Duration::from_millis(250);

/// Routes and limits; [`Server::start`] makes it serve.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::http::{Method, Request, Response, Server};
/// use reactor::net::TcpListener;
///
/// fn greet(request: &mut Request<'_>) -> Response {
///     let name = request.param("name").unwrap_or_default();
///     format!("hello, {name}\n").into()
/// }
///
/// reactor::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0").unwrap();
///     let server = Server::new()
///         .route(Method::GET, "/hello/{name}", greet)
///         .route(Method::POST, "/length", |request| -> std::io::Result<Response> {
///             let body = request.read_body(1 << 20)?;
///             Ok(body.len().to_string().into())
///         })
///         .start(listener);
///     server.drain(Duration::from_secs(1));
/// });
/// ```
#[derive(Default)]
pub struct Server {
    router: Router,
    fallback: Option<Handler>,
    layers: Vec<Layer>,
    limits: Limits,
    on_answer: Option<OnAnswer>,
}

/// What a server's coroutines have in common.
pub(super) struct Shared {
    router: Router,
    fallback: Option<Handler>,
    layers: Vec<Layer>,
    limits: Limits,
    on_answer: Option<OnAnswer>,
    date: Date,
    /// Begins when the server drains, or is stopped.
    draining: Draining,
    clock: Rc<CoarseClock>,
    accepting: Patience,
    /// Opens when nobody is accepted any more; then it is told here why, if that was a failure.
    accepted_last: Barrier,
    accept_failure: RefCell<Option<io::Error>>,
    connections: RefCell<Slab<Member>>,
    gate: Gate,
    ended: Signal,
}

/// A connection, as the server sees it.
struct Member {
    vitals: Rc<Vitals>,
    coroutine: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that knows no path.
    pub fn new() -> Server {
        Server::default()
    }

    /// Answers requests of `method` for paths like `pattern` with `handler`. HEAD is answered by GET's handler,
    /// OPTIONS by the methods there are, another method with 405.
    ///
    /// A handler is terminated, at whatever call it suspends in, when its client's connection breaks: what must be done to its
    /// end it does in [`crate::uninterruptible`].
    ///
    /// A `{name}` in the pattern stands for one segment, `{*name}` at its end for all the rest.
    ///
    /// # Panics
    ///
    /// If the pattern is malformed, or is there already.
    pub fn route<R: Into<Response>>(
        mut self,
        method: Method,
        pattern: &str,
        handler: impl for<'r> Fn(&mut Request<'r>) -> R + 'static,
    ) -> Server {
        self.router.add(method, pattern, Rc::new(move |request: &mut Request<'_>| handler(request).into()));
        self
    }

    /// Answers what no route is there for, instead of 404.
    pub fn fallback<R: Into<Response>>(
        mut self,
        handler: impl for<'r> Fn(&mut Request<'r>) -> R + 'static,
    ) -> Server {
        self.fallback = Some(Rc::new(move |request: &mut Request<'_>| handler(request).into()));
        self
    }

    /// Adds the routes of a group, each with the group's layers around it.
    ///
    /// # Panics
    ///
    /// As [`Server::route`] does.
    pub fn group(mut self, group: Group) -> Server {
        for (method, pattern, handler) in group.into_routes() {
            self.router.add(method, &pattern, handler);
        }
        self
    }

    /// Puts a layer around everything that this server answers, inside of those before it: 404 and 405 too, but not what
    /// is no request.
    ///
    /// # Examples
    ///
    /// ```
    /// use reactor::http::{Next, Request, Response, Server};
    ///
    /// fn log(request: &mut Request<'_>, next: Next<'_>) -> Response {
    ///     let begun = reactor::now();
    ///     let response = next.run(request);
    ///     let took = reactor::now() - begun;
    ///     println!("{} {} {} {took:?}", request.method(), request.path(), response.status_code());
    ///     response
    /// }
    /// let server = Server::new().layer(log);
    /// ```
    pub fn layer<R: Into<Response>>(
        mut self,
        function: impl Fn(&mut Request<'_>, Next<'_>) -> R + 'static,
    ) -> Server {
        self.layers.push(layers::layer(function));
        self
    }

    /// Calls `tell` for each request when its answer has been handed over, or has broken off: an access log, a counter.
    ///
    /// `tell` runs between two requests of the connection: what it does delays the next one, and it should not suspend.
    /// The last one that was set is called.
    ///
    /// # Examples
    ///
    /// ```
    /// use reactor::http::{Answered, Server};
    /// let server = Server::new().on_answer(|answered: &Answered<'_>| println!("{answered}"));
    /// ```
    pub fn on_answer(mut self, tell: impl Fn(&Answered<'_>) + 'static) -> Server {
        self.on_answer = Some(Rc::new(tell));
        self
    }

    /// With other limits.
    pub fn limits(mut self, limits: Limits) -> Server {
        self.limits = limits;
        self
    }

    /// Serves those who connect to `listener`, on coroutines of its own, until it is drained or stopped.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`].
    pub fn start<L: Listen>(self, listener: L) -> ServerHandle {
        let clock = Rc::new(CoarseClock::new(self.limits.tick()));
        let shared = Rc::new(Shared {
            router: self.router,
            fallback: self.fallback,
            layers: self.layers,
            limits: self.limits,
            on_answer: self.on_answer,
            date: Date::new(),
            draining: Draining::new(),
            accepting: Patience::new(&clock),
            clock,
            accepted_last: Barrier::new(false),
            accept_failure: RefCell::default(),
            gate: Gate::new(GateLimits {
                connections: self.limits.connections,
                connections_per_address: self.limits.connections_per_address,
                strangers: self.limits.handshakes,
                strangers_per_address: self.limits.handshakes_per_address,
            }),
            connections: RefCell::default(),
            ended: Signal::new(),
        });
        let acceptor = {
            let shared = shared.clone();
            crate::spawn(move || {
                let over = OpenAfter(&shared.accepted_last);
                // The listener is gone when it is told that nobody is accepted any more.
                let result = accept::run(&shared, &Rc::new(listener));
                *shared.accept_failure.borrow_mut() = result.err();
                drop(over);
            })
        };
        let housekeeper = {
            let shared = shared.clone();
            crate::spawn(move || keep_house(&shared))
        };
        ServerHandle { shared, acceptor, housekeeper }
    }

    /// As [`Server::start`], and waits until the listener fails, which it does not in practice.
    ///
    /// # Errors
    ///
    /// The listener's.
    ///
    /// # Suspends
    ///
    /// For good.
    pub fn serve<L: Listen>(self, listener: L) -> io::Result<()> {
        self.start(listener).wait()
    }
}

/// A server that runs. Dropping it stops the server at once; see [`ServerHandle::drain`] for a better end.
#[must_use = "dropping it stops the server"]
pub struct ServerHandle {
    shared: Rc<Shared>,
    acceptor: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
}

impl ServerHandle {
    /// Stops to accept, tells clients to leave, waits for those that are being answered, and ends the rest after
    /// `limit`. How many had to be ended.
    ///
    /// A request that reached us before is answered. Clients learn with their answer that the connection ends; one
    /// that rests between requests is let go after a quarter of a second. Handlers hear of it by [`Request::draining`], and
    /// WebSockets are closed with 1001: they end when their clients have answered that.
    ///
    /// # Suspends
    ///
    /// Until all have left, `limit` at the most.
    pub fn drain(&self, limit: Duration) -> usize {
        let shared = &self.shared;
        shared.draining.begin();
        for (_, Member { vitals, .. }) in &*shared.connections.borrow() {
            vitals.talking.expire();
        }
        shared.accepting.expire();
        let _ = crate::timeout(limit, || {
            shared.accepted_last.wait();
            crate::sleep(DRAIN_IDLE_TIME);
            for (_, Member { vitals, .. }) in &*shared.connections.borrow() {
                if vitals.idle.get() {
                    vitals.reading.expire();
                }
            }
            while !shared.connections.borrow().is_empty() {
                shared.ended.wait();
            }
        });
        let left = shared.connections.borrow().len();
        self.stop();
        left
    }

    /// Ends the server and all its connections at once.
    pub fn stop(&self) {
        self.shared.draining.begin();
        self.acceptor.terminate();
        self.housekeeper.terminate();
        for (_, Member { coroutine, .. }) in &*self.shared.connections.borrow() {
            if let Some(connection) = coroutine {
                connection.terminate();
            }
        }
    }

    /// Waits until the server no longer accepts.
    ///
    /// # Errors
    ///
    /// The listener's, if that was why; told once.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn wait(&self) -> io::Result<()> {
        self.shared.accepted_last.wait();
        self.shared.accept_failure.take().map_or(Ok(()), Err)
    }

    /// Connections there are now.
    pub fn connection_count(&self) -> usize {
        self.shared.connections.borrow().len()
    }
}

/// Opens a barrier however its coroutine ends.
struct OpenAfter<'a>(&'a Barrier);

impl Drop for OpenAfter<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ends waits whose time is over, and keeps the clock.
fn keep_house(shared: &Shared) {
    let started = crate::now();
    loop {
        crate::sleep(shared.limits.tick());
        shared.clock.set(crate::now() - started);
        shared.date.update();
        let now_ms = shared.clock.now_ms();
        for (_, Member { vitals, coroutine }) in &*shared.connections.borrow() {
            vitals.reading.check();
            vitals.writing.check();
            let is_waiting = vitals.reading.is_waiting() || vitals.writing.is_waiting();
            let limit = shared.limits.half_closed_time;
            if let Some(connection) = coroutine
                && vitals.attendance.has_left(now_ms, is_waiting, limit)
            {
                connection.cut_to(vitals.attendance.leaving);
            }
        }
    }
}

/// Starts a coroutine for a connection, whose stream `open` makes; false if no more coroutines can be had.
fn start_connection<S: Duplex>(
    shared: &Rc<Shared>,
    peer: Option<SocketAddr>,
    mut guest: Guest,
    open: impl FnOnce() -> io::Result<S> + 'static,
) -> bool {
    let vitals = Rc::new(Vitals {
        attendance: Attendance::new(),
        reading: Patience::new(&shared.clock),
        writing: Patience::new(&shared.clock),
        talking: Rc::new(Patience::new(&shared.clock)),
        idle: Cell::new(false),
    });
    let key = shared.connections.borrow_mut().insert(Member { vitals: vitals.clone(), coroutine: None });
    let place = Place { shared: shared.clone(), key };
    let spawned = Builder::new().name("http connection").spawn(move || {
        let shared = &*place.shared;
        let run = || {
            let stream = open()?;
            guest.admit();
            connection::serve(shared, &vitals, &stream, peer)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("an HTTP connection broke: {error}"),
            Err(unwinding) if unwinding.is::<Cut>() => resume_unwind(unwinding),
            // A body that was being written: nothing can be told to the client but the end.
            Err(_panic) => tracing::error!("an HTTP connection's coroutine panicked"),
        }
    });
    match spawned {
        Ok(handle) => {
            if let Some(member) = shared.connections.borrow_mut().get_mut(key)
                && !handle.is_finished()
            {
                member.coroutine = Some(handle);
            }
            true
        }
        Err(error) => {
            warn_seldom!("a client was refused: {error}");
            false
        }
    }
}

/// A connection's place in the list, which it leaves however it ends.
struct Place {
    shared: Rc<Shared>,
    key: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = self.shared.connections.borrow_mut().try_remove(self.key);
        drop(removed);
        self.shared.ended.notify_all();
    }
}
