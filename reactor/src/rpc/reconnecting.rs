//! A client that outlives its connections: it dials again, with growing pauses, and calls wait for it.
//!
//! One coroutine keeps a connection: it dials, waits until that connection takes no new calls, and dials again. A call
//! takes the connection there is, or waits for the next until its deadline. If the connection goes while a call is in
//! flight, nobody here knows what the peer has done, so the caller is told ([`CallError::Disconnected`]); only a call of
//! which nothing had left, or of a method that is declared idempotent, is asked again, within its time. A peer that drains is left at once, and the
//! calls in flight there go on.
//!
//! What it is not: a pool, or a choice among peers. It dials what it is told to.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::call::deadline_of;
use super::stream::{StreamCall, StreamMethod};
use super::{CallError, CallOptions, Caller, Connection, Method, Payload};
use crate::cell::RefCell;
use crate::coroutine::JoinHandle;
use crate::sync::Signal;
use crate::{Backoff, Builder};

/// The pause behind the first failure, before it is doubled: a restart of the peer takes longer.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// A peer that is back is found within this time and [`DIAL_MAX`]; until then each client knocks twice a minute or more.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A dial may take this long: a network that swallows what is sent to it must not keep us from trying again.
const DIAL_MAX: Duration = Duration::from_secs(20);
/// A connection that lived this long was a good one: what comes after it is a first failure again.
const LIVED_WELL: Duration = Duration::from_secs(10);

/// Calls a peer over one connection after another; see the module. Clones are the same client, and when the last is
/// dropped, the connection closes.
///
/// # Examples
/// ```
/// use reactor::net::TcpStream;
/// use reactor::rpc::{Config, Connection, Reconnecting, Service};
///
/// reactor::run(|| {
///     let client = Reconnecting::start(|| {
///         let stream = TcpStream::connect("127.0.0.1:9")?;
///         Ok(Connection::start(stream, Service::none(), Config::default()))
///     });
///     assert!(!client.is_connected());
/// });
/// ```
#[derive(Clone)]
pub struct Reconnecting(Rc<Client>);

struct Client {
    shared: Rc<Shared>,
    keeper: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    connection: RefCell<Option<Connection>>,
    changed: Signal,
    dial_count: Cell<u64>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.keeper.terminate();
        self.shared.connection.take();
    }
}

impl Reconnecting {
    /// Starts to keep a connection, with pauses from 50 ms to 30 s between dials that fail.
    ///
    /// # Panics
    /// Outside `reactor::run`, or when no more coroutines can be had.
    pub fn start(dial: impl Fn() -> io::Result<Connection> + 'static) -> Reconnecting {
        Reconnecting::with_backoff(Backoff::new(PAUSE_FIRST, PAUSE_MAX), dial)
    }

    /// As [`Reconnecting::start`], with other pauses.
    ///
    /// # Panics
    /// As there.
    pub fn with_backoff(
        backoff: Backoff,
        dial: impl Fn() -> io::Result<Connection> + 'static,
    ) -> Reconnecting {
        let shared = Rc::<Shared>::default();
        let kept = shared.clone();
        let keeper = Builder::new().name("rpc reconnecting").spawn(move || keep(&kept, backoff, &dial));
        let keeper = keeper.unwrap_or_else(|error| panic!("{error}"));
        Reconnecting(Rc::new(Client { shared, keeper }))
    }

    /// Whether there is a connection that takes calls.
    pub fn is_connected(&self) -> bool {
        self.0.shared.current().is_some()
    }

    /// How often the peer was dialled, successfully or not.
    pub fn dial_count(&self) -> u64 {
        self.0.shared.dial_count.get()
    }

    /// Runs `call` on a connection that takes calls, with the time that is left, again and again while that is right to do.
    fn run<T, E>(
        &self,
        options: &CallOptions,
        idempotent: bool,
        mut call: impl FnMut(&Connection, Duration) -> Result<T, CallError<E>>,
    ) -> Result<T, CallError<E>> {
        let deadline = deadline_of(options);
        loop {
            let connection = self.0.shared.wait_for_connection(deadline).ok_or(CallError::TimedOut)?;
            let result = call(&connection, deadline.saturating_duration_since(crate::now()));
            let again = match &result {
                Err(CallError::NotSent) => true,
                Err(CallError::Closed) if !idempotent => return Err(CallError::Disconnected),
                Err(CallError::Closed) => true,
                // A peer that drains has done nothing; another connection may find one that does.
                Err(CallError::Overloaded) => connection.is_closed(),
                _ => false,
            };
            if !again {
                return result;
            }
            self.0.shared.forget(&connection);
        }
    }
}

impl Shared {
    fn current(&self) -> Option<Connection> {
        self.connection.borrow().clone().filter(|connection| !connection.is_closed())
    }

    /// Lets go of a connection that takes no calls.
    fn forget(&self, connection: &Connection) {
        let mut current = self.connection.borrow_mut();
        let gone = current.take_if(|current| current.is_same(connection));
        drop(current);
        drop(gone);
    }

    fn wait_for_connection(&self, deadline: Instant) -> Option<Connection> {
        if let Some(connection) = self.current() {
            return Some(connection);
        }
        let wait = || loop {
            self.changed.wait();
            if let Some(connection) = self.current() {
                return connection;
            }
        };
        crate::timeout(deadline.saturating_duration_since(crate::now()), wait).ok()
    }
}

/// Keeps a connection, for ever.
fn keep(shared: &Shared, mut backoff: Backoff, dial: &dyn Fn() -> io::Result<Connection>) {
    loop {
        shared.dial_count.set(shared.dial_count.get() + 1);
        let began = crate::now();
        match crate::timeout(DIAL_MAX, dial).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(connection) => {
                *shared.connection.borrow_mut() = Some(connection.clone());
                shared.changed.notify_all();
                connection.wait_unusable();
                tracing::debug!(reason = ?connection.close_reason(), "a connection takes no more calls");
                shared.forget(&connection);
            }
            Err(error) => tracing::debug!(%error, "a dial failed"),
        }
        if crate::now() - began >= LIVED_WELL {
            backoff.reset();
        }
        backoff.wait();
    }
}

impl Caller for Reconnecting {
    fn call_with<M: Method>(
        &self,
        request: &M::Request,
        payload: Payload,
        options: &CallOptions,
    ) -> Result<(M::Response, Payload), CallError<M::Error>> {
        self.run(options, M::IDEMPOTENT, |connection, left| {
            let options = CallOptions { timeout: Some(left), ..options.clone() };
            connection.call_with_options::<M>(request, payload.clone(), &options)
        })
    }

    fn open_with<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>> {
        // What fails before it was sent says so, whatever the method. It may have been sent, and be given up again, if an
        // interceptor fails behind it; what fails later is told by the call's end.
        self.run(options, M::IDEMPOTENT, |connection, left| {
            let options = CallOptions { timeout: options.timeout.map(|_| left), ..options.clone() };
            connection.open::<M>(request, &options)
        })
    }

    fn is_ready(&self) -> bool {
        self.is_connected()
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting").field("connection", &self.0.shared.connection.borrow()).finish()
    }
}
