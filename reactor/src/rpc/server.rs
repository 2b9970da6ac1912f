//! Serving whoever connects, at bounded cost.
//!
//! A client is a stranger until its handshake is done: it has one of few places, for a short time, and costs no more
//! than the handshake does. Then its connection is counted in all and by address ([`Gate`]), what it causes is charged
//! to its [`budget`](super::budget), and what all of them cause together to the [`Pool`](super::Pool) of the server's
//! [`Config`].
//!
//! What it is not: a judgement of who may call what. The handshake says who comes, the service's interceptors the rest.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use super::{Config, Connection, Service};
use crate::Builder;
use crate::cell::RefCell;
use crate::coroutine::JoinHandle;
use crate::net::{Duplex, Gate, GateLimits, Guest, TcpListener, TcpStream};
use crate::seldom::warn_seldom;

/// The pause after a failed accept: something must be freed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server gives its clients at most.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// How many may come in. The default is 4,096 connections, of them 1,024 from one address; and 256 strangers, of
    /// them 64 from one address.
    pub gate: GateLimits,
    /// How long a handshake may take: the default of 5 s is two round trips and some lost packets.
    pub handshake_time: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        let gate = GateLimits {
            connections: 4_096,
            connections_per_address: 1_024,
            strangers: 256,
            strangers_per_address: 64,
        };
        ServerLimits { gate, handshake_time: Duration::from_secs(5) }
    }
}

/// A service and its limits; [`Server::start`] makes it serve.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use std::time::Duration;
/// use reactor::net::{TcpListener, TcpStream};
/// use reactor::rpc::{Config, Connection, Server, Service};
///
/// reactor::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0").unwrap();
///     let address = listener.local_addr().unwrap();
///     // Over plain TCP nothing is to be proved; see `reactor::net::tls` for handshakes.
///     let server = Server::new(Rc::new(Service::new())).start(listener, |stream, _address| Ok(stream));
///     let stream = TcpStream::connect(address).unwrap();
///     let client = Connection::start(stream, Service::none(), Config::default());
///     server.drain(Duration::from_secs(1));
///     client.wait_closed();
/// });
/// ```
#[derive(Debug)]
pub struct Server {
    service: Rc<Service>,
    config: Config,
    limits: ServerLimits,
}

/// A server that runs. Dropping it stops the server at once; see [`ServerHandle::drain`] for a better end.
#[must_use = "dropping it stops the server"]
pub struct ServerHandle {
    serving: Rc<Serving>,
    acceptor: JoinHandle<()>,
    address: Option<SocketAddr>,
}

struct Serving {
    server: Server,
    gate: Gate,
    clients: RefCell<Slab<Client>>,
}

/// A client, from its handshake on.
#[derive(Default)]
struct Client {
    connection: Option<Connection>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// A server of `service` with default settings.
    pub fn new(service: Rc<Service>) -> Server {
        Server { service, config: Config::default(), limits: ServerLimits::default() }
    }

    /// With other settings for its connections.
    #[must_use]
    pub fn config(self, config: Config) -> Server {
        Server { config, ..self }
    }

    /// With other limits.
    #[must_use]
    pub fn limits(self, limits: ServerLimits) -> Server {
        Server { limits, ..self }
    }

    /// Serves those who connect to `listener` and finish `handshake`, on coroutines of its own.
    ///
    /// # Panics
    /// Outside [`crate::run`], or when no more coroutines can be had.
    pub fn start<D: Duplex>(
        self,
        listener: TcpListener,
        handshake: impl Fn(TcpStream, SocketAddr) -> io::Result<D> + 'static,
    ) -> ServerHandle {
        let gate = Gate::new(self.limits.gate);
        let serving = Rc::new(Serving { server: self, gate, clients: RefCell::default() });
        let (accepting, address) = (serving.clone(), listener.local_addr().ok());
        let acceptor = crate::spawn(move || accept(&accepting, &listener, &Rc::new(handshake)));
        ServerHandle { serving, acceptor, address }
    }
}

impl ServerHandle {
    /// Takes no more clients, asks those there are to begin no more calls, and ends their connections when what is in
    /// flight is done, or after `patience`.
    ///
    /// # Suspends
    /// Until all connections are closed.
    pub fn drain(&self, patience: Duration) {
        self.acceptor.terminate();
        let connections: Vec<Connection> = self
            .serving
            .clients
            .borrow()
            .iter()
            .filter_map(|(_, client)| client.connection.clone())
            .collect();
        crate::scope(|s| {
            for connection in &connections {
                s.spawn(|| connection.drain(patience));
            }
        });
        self.stop();
    }

    /// Ends the server and all its connections.
    pub fn stop(&self) {
        self.acceptor.terminate();
        for (_, client) in &*self.serving.clients.borrow() {
            if let Some(connection) = &client.connection {
                connection.close();
            }
            if let Some(task) = &client.task {
                task.terminate();
            }
        }
    }

    /// Where it listens, if the listener could say.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Connections there are now, strangers among them.
    pub fn connection_count(&self) -> usize {
        self.serving.gate.connection_count()
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Accepts until terminated.
fn accept<D: Duplex>(
    serving: &Rc<Serving>,
    listener: &TcpListener,
    handshake: &Rc<impl Fn(TcpStream, SocketAddr) -> io::Result<D> + 'static>,
) {
    loop {
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                warn_seldom!(%error, "accepting a connection failed");
                crate::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let Some(guest) = serving.gate.knock(Some(address.ip())) else {
            tracing::debug!(%address, "turned away: too many connections");
            continue;
        };
        let place =
            Place { serving: serving.clone(), key: serving.clients.borrow_mut().insert(Client::default()) };
        let (key, handshake) = (place.key, handshake.clone());
        let task = Builder::new()
            .name("rpc server")
            .spawn(move || place.serve(guest, || handshake(stream, address), address));
        match task {
            Ok(task) => {
                if let Some(client) = serving.clients.borrow_mut().get_mut(key)
                    && !task.is_finished()
                {
                    client.task = Some(task);
                }
            }
            Err(error) => warn_seldom!(%address, %error, "turned away"),
        }
    }
}

/// A client's place in the list, which it leaves however it ends.
struct Place {
    serving: Rc<Serving>,
    key: usize,
}

impl Place {
    fn serve<D: Duplex>(&self, mut guest: Guest, open: impl FnOnce() -> io::Result<D>, address: SocketAddr) {
        let Server { service, config, limits } = &self.serving.server;
        let stream = match crate::timeout(limits.handshake_time, open) {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "a handshake failed"),
            Err(_) => return tracing::debug!(%address, "a handshake took too long"),
        };
        guest.admit();
        let connection = Connection::start(stream, service.clone(), config.clone());
        if let Some(client) = self.serving.clients.borrow_mut().get_mut(self.key) {
            client.connection = Some(connection.clone());
        }
        let reason = connection.wait_closed();
        tracing::debug!(%address, %reason, "a client's connection ended");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = self.serving.clients.borrow_mut().try_remove(self.key);
        drop(removed);
    }
}
