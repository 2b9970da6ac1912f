//! Connections to peers by their ids, wherever they are: over a relay at once, and directly as soon as there is a way.
//!
//! [`Peers::connect`] takes an id and gives a QUIC [`Connection`], which goes over a relay that both use. Meanwhile the two
//! tell each other their addresses and try them, both at once; when one has answered the connection takes that way, and goes
//! back to the relay when it fails. Nothing that is written is lost by it, since QUIC sends again what a path swallowed.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::rc::Rc;
//! use reactor::crypto::Identity;
//! use reactor::nat::PeerId;
//! use reactor::nat::peers::{Peers, RelayAt};
//! use reactor::nat::relay::{Relay, RelayLimits};
//! use reactor::net::{Duplex, TcpListener};
//!
//! reactor::run(|| {
//!     let [third, alice, bob] = [0, 1, 2].map(|_| Rc::new(Identity::generate()));
//!     let listener = TcpListener::bind("127.0.0.1:0").unwrap();
//!     let at = RelayAt::new(listener.local_addr().unwrap(), third.public_key().into());
//!     let relay = Relay::new(&third, |_: PeerId, _: &[u8]| true, RelayLimits::default());
//!     let serving = reactor::spawn(move || relay.serve(&listener));
//!
//!     let [near, far] = [&alice, &bob].map(|identity| Peers::bind("127.0.0.1:0".parse().unwrap(), identity).unwrap());
//!     near.add_relay(at.clone());
//!     far.add_relay(at);
//!     let answering = reactor::spawn(move || {
//!         let connection = far.accept().unwrap();
//!         let mut stream = connection.accept().unwrap();
//!         let mut question = String::new();
//!         stream.read_to_string(&mut question).unwrap();
//!         stream.write_all(question.to_uppercase().as_bytes()).unwrap();
//!         stream.end().unwrap();
//!         let _ = connection.accept(); // until the other closes it
//!     });
//!     let connection = near.connect(bob.public_key().into()).unwrap();
//!     let mut stream = connection.open().unwrap();
//!     stream.write_all(b"hello").unwrap();
//!     stream.end().unwrap();
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).unwrap();
//!     assert_eq!(answer, "HELLO");
//!     connection.close();
//!     answering.join().unwrap();
//!     serving.terminate();
//! });
//! ```
//!
//! What is believed: the handshake of the connection, which runs end to end, says who the peer is. What tells of ways is
//! sealed under keys that come out of that connection, so that neither a relay nor who sees packets can name an address,
//! answer a probe, or have an old packet count again. An address is used when it has answered, and so nobody is sent more
//! than some small packets who has not.
//!
//! Layers: `message.rs` is the codec and `paths.rs` decides for one peer, both pure; `table.rs` knows who is who; `core.rs`
//! joins them with the endpoint (`net/quic/routes.rs`) and the relays; `search.rs` looks for ways that no address leads to, and
//! `prediction.rs` for those between routers that lend ports in sequence (`sequence.rs`, pure); `opening.rs` (pure) and `tcp.rs`
//! have both connect by TCP at once, where no datagram passes; `moves.rs` hears when this machine has another address, and
//! `machine.rs` chooses which of its addresses peers are told; this file has the flow.
//!
//! What being idle costs: a relay is asked whether it is there each 15 s and where we are each 25 s; a direct path carries a
//! ping and QUIC's own keep-alive from each side each 15 s, some 130 KB an hour with their answers. A peer that is only
//! reached over the relay is tried once a minute; connected to by TCP (`opening.rs`) in pauses that double from 30 s up to an hour,
//! each time with some fifty packets at most; and searched (`search.rs`) in such pauses too, of which the first four are alike, each time
//! with up to 150 KB. A connection by TCP is asked for a sign each 15 s, as one to a relay is.
//!
//! What it is not: several paths at once, or the choice of relays: two who use none in common don't find each other.

mod core;
mod keep_relay;
mod machine;
mod message;
mod moves;
mod naming;
mod opening;
mod paths;
mod prediction;
mod search;
mod sequence;
mod table;
mod tcp;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use self::core::Core;
use self::message::Session;
pub use self::message::{CANDIDATES_MAX, Message, TCP_CANDIDATES_MAX};
use crate::cell::RefCell;
use crate::clock::deadline_after;
use crate::coroutine::{Builder, JoinHandle};
use crate::crypto::Identity;
use crate::nat::PeerId;
use crate::nat::relay::Seat;
use crate::net::quic::{Connection, Endpoint, WeakConnection};
use crate::net::tls::HANDSHAKE_TIMEOUT;

/// Where a relay is, and who.
#[derive(Clone, Debug)]
pub struct RelayAt {
    /// Where it takes its clients, by TCP. It is asked for our own address too, by STUN at the UDP port of that number.
    pub address: SocketAddr,
    /// Who it has to prove to be.
    pub id: PeerId,
    /// What it is shown to let us in.
    pub credential: Vec<u8>,
}

impl RelayAt {
    /// A relay that asks for no credential.
    pub fn new(address: SocketAddr, id: PeerId) -> RelayAt {
        RelayAt { address, id, credential: Vec::new() }
    }
}

/// A relay that is kept, to its [`Peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayKey(usize);

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Over a relay.
    Relayed,
    /// Without one.
    Direct {
        /// Over what.
        transport: Transport,
        /// Where it is, as we see it.
        address: SocketAddr,
        /// To there and back; zero where it is not known yet.
        round_trip: Duration,
    },
}

/// What carries datagrams to a peer without a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A socket that both routers let through.
    Udp,
    /// A connection that both sides have begun at once, where UDP does not pass.
    Tcp,
}

/// The way that a connection takes, which may change. It keeps neither the connection nor the [`Peers`].
pub struct Way {
    core: Weak<Core>,
    address: SocketAddr,
    connection: WeakConnection,
}

impl Way {
    /// What it is now; `None` when the connection is gone. Never suspends.
    pub fn path(&self) -> Option<Path> {
        self.core.upgrade().filter(|_| self.connection.is_up())?.path_at(self.address)
    }
}

/// An endpoint whose peers are known by their ids; see the module. The connections that it made last as long as it does.
pub struct Peers {
    endpoint: Endpoint,
    identity: Rc<Identity>,
    /// Which of our seats we take at relays.
    seat: u64,
    core: Rc<Core>,
    probing: JoinHandle<()>,
    searching: JoinHandle<()>,
    opening: JoinHandle<()>,
    moving: JoinHandle<()>,
    /// Those who keep a relay, by its number.
    keepers: RefCell<BTreeMap<usize, JoinHandle<()>>>,
}

impl Peers {
    /// Binds a UDP socket to `address`, for direct paths; the port may be 0 for any. It connects and accepts as `identity`.
    ///
    /// Bound to all addresses ([`all_addresses`](crate::net::all_addresses)) it is reached by each of this machine's, and peers are
    /// told of those too, as they are at the time; at one address it has that one only.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    ///
    /// # Suspends
    /// Never.
    pub fn bind(address: SocketAddr, identity: &Rc<Identity>) -> io::Result<Peers> {
        Peers::seated(address, identity, Seat::known(identity.public_key().into()))
    }

    /// As [`Peers::bind`], for who only calls: nobody finds it by its id, and other processes of the same identity may be at
    /// work beside it.
    ///
    /// # Errors
    /// As [`Peers::bind`].
    ///
    /// # Suspends
    /// Never.
    pub fn caller(address: SocketAddr, identity: &Rc<Identity>) -> io::Result<Peers> {
        Peers::seated(address, identity, Seat::drawn(identity.public_key().into()))
    }

    fn seated(address: SocketAddr, identity: &Rc<Identity>, seat: Seat) -> io::Result<Peers> {
        let endpoint = Endpoint::bind(address, identity)?;
        let bound = endpoint.local_addr()?;
        let core = Rc::new(Core::new());
        core.set_endpoint(endpoint.downgrade());
        endpoint.set_routes(core.clone());
        let probing = {
            let core = core.clone();
            Builder::new().name("peers").spawn(move || core.probe()).map_err(io::Error::other)?
        };
        let searching = {
            let core = core.clone();
            Builder::new().name("search").spawn(move || search::run(&core)).map_err(io::Error::other)?
        };
        let opening = {
            let (core, identity) = (core.clone(), identity.clone());
            let run = move || tcp::run(&core, &identity, seat);
            Builder::new().name("openings").spawn(run).map_err(io::Error::other)?
        };
        let moving = {
            let core = core.clone();
            let watch = move || moves::watch(&core, bound);
            Builder::new().name("moves").spawn(watch).map_err(io::Error::other)?
        };
        if bound.ip().is_loopback() {
            // There is nothing to be found out.
            core.add_own(bound);
        }
        let (identity, seat) = (identity.clone(), seat.number);
        Ok(Peers {
            endpoint,
            identity,
            seat,
            core,
            probing,
            searching,
            opening,
            moving,
            keepers: RefCell::default(),
        })
    }

    /// Keeps a connection to that relay from now on, so that peers who use it too are reached and reach us. Never suspends.
    ///
    /// # Panics
    /// When there is no memory for another coroutine.
    pub fn add_relay(&self, relay: RelayAt) -> RelayKey {
        let credential = relay.credential.clone();
        self.add_relay_shown(relay, move || credential.clone())
    }

    /// As [`Peers::add_relay`], and what the relay is shown is asked for at each connection to it: a passport may have been
    /// renewed. `credential` must not suspend.
    ///
    /// # Panics
    /// As [`Peers::add_relay`].
    pub fn add_relay_shown(&self, relay: RelayAt, credential: impl Fn() -> Vec<u8> + 'static) -> RelayKey {
        let number = {
            let keepers = self.keepers.borrow();
            (0..).find(|number| !keepers.contains_key(number)).expect("there are fewer than numbers")
        };
        self.core.add_relay(number);
        let (core, identity, seat) = (self.core.clone(), self.identity.clone(), self.seat);
        let lane = self.endpoint.lane(crate::net::quic::Share::StunAnswers);
        let port = self.endpoint.local_addr().map_or(0, |address| address.port());
        let keeping =
            move || keep_relay::keep(&core, number, (&relay, &credential), (&identity, seat), (&lane, port));
        let task = Builder::new().name("relay keeper").spawn(keeping);
        self.keepers.borrow_mut().insert(number, task.unwrap_or_else(|error| panic!("{error}")));
        RelayKey(number)
    }

    /// Lets go of a relay; peers who were reached over it are reached over another, or not at all. Never suspends.
    pub fn remove_relay(&self, relay: RelayKey) {
        if let Some(keeper) = self.keepers.borrow_mut().remove(&relay.0) {
            keeper.terminate();
            self.core.remove_relay(relay.0);
        }
    }

    /// Whether a relay is connected now. Never suspends.
    pub fn is_connected_to(&self, relay: RelayKey) -> bool {
        self.core.has_relay_of(&[relay])
    }

    /// Whether a connection goes over a relay, or would if its direct way failed: it is not to be let go. Never suspends.
    pub fn uses(&self, relay: RelayKey) -> bool {
        self.core.uses(relay)
    }

    /// Tells peers of an address at which we can be reached, beside those that are found out. Never suspends.
    pub fn add_address(&self, address: SocketAddr) {
        self.core.add_own(address);
    }

    /// Tells peers of it no more. Never suspends.
    pub fn remove_address(&self, address: SocketAddr) {
        self.core.remove_own(address);
    }

    /// The addresses of ours that were found out: those of this machine by which relays are reached, and those at which the
    /// relays see it. Never suspends.
    pub fn addresses_found(&self) -> Vec<SocketAddr> {
        let own = self.core.own.borrow();
        own.iter()
            .filter(|(relay, _)| **relay != usize::MAX)
            .flat_map(|(_, found)| found.iter().copied())
            .collect()
    }

    /// Connects to a peer, over a relay that it uses too.
    ///
    /// # Errors
    /// `NotConnected` when no relay can be reached; `NotFound` when none of ours knows the peer; `QuotaExceeded` when there are
    /// too many peers; otherwise as [`Endpoint::connect`].
    ///
    /// # Suspends
    /// For a round trip over the relay; while no relay is connected up to [`HANDSHAKE_TIMEOUT`] more.
    pub fn connect(&self, peer: PeerId) -> io::Result<Connection> {
        self.connect_at(peer, &[])
    }

    /// As [`Peers::connect`], to a peer who is said to be at the `named` relays: those are tried first.
    ///
    /// # Errors
    /// As [`Peers::connect`].
    ///
    /// # Suspends
    /// As [`Peers::connect`], and for a round trip more to each relay that does not know it.
    pub fn connect_at(&self, peer: PeerId, named: &[RelayKey]) -> io::Result<Connection> {
        self.wait_relay(deadline_after(HANDSHAKE_TIMEOUT))?;
        let no_room =
            || io::Error::new(ErrorKind::QuotaExceeded, "too many peers are known: close some connections");
        let address = self.core.address_of(peer, named).ok_or_else(no_room)?;
        let connection = self.endpoint.dial(address, peer.expected())?;
        if !self.core.attach(&connection, true) {
            // It was forgotten meanwhile, and what is sent to it would lead nowhere.
            connection.close();
            return Err(no_room());
        }
        Ok(connection)
    }

    /// Waits until a relay is connected, so that peers can reach us.
    ///
    /// # Errors
    /// `NotConnected` at the deadline.
    ///
    /// # Suspends
    /// Until then.
    pub fn wait_relay(&self, deadline: Instant) -> io::Result<()> {
        let waited = self.core.relay_up.wait(Some(deadline), || self.core.has_relay().then_some(()));
        waited.map_err(|_| no_relay())
    }

    /// Waits until one of these relays is connected.
    ///
    /// # Errors
    /// `NotConnected` at the deadline.
    ///
    /// # Suspends
    /// Until then.
    pub fn wait_for_any(&self, relays: &[RelayKey], deadline: Instant) -> io::Result<()> {
        let is_up = || self.core.has_relay_of(relays).then_some(());
        self.core.relay_up.wait(Some(deadline), is_up).map_err(|_| no_relay())
    }

    /// The next connection that a peer made. It is told at once where we are, whoever it is: where not everybody who has a key may
    /// know that, use [`Peers::accept_stranger`].
    ///
    /// # Errors
    /// As [`Endpoint::accept`].
    ///
    /// # Suspends
    /// Until there is one.
    pub fn accept(&self) -> io::Result<Connection> {
        let connection = self.accept_stranger()?;
        self.admit(&connection);
        Ok(connection)
    }

    /// As [`Peers::accept`], and the connection stays on the relay until it is [admitted](Peers::admit): the peer is told none of our
    /// addresses, and nothing is sent to those that it names.
    ///
    /// # Errors
    /// As [`Endpoint::accept`].
    ///
    /// # Suspends
    /// Until there is one.
    pub fn accept_stranger(&self) -> io::Result<Connection> {
        loop {
            let connection = self.endpoint.accept()?;
            if self.core.attach(&connection, false) {
                return Ok(connection);
            }
            // A relay has lied, or it was dialled by our address, which stands for nobody.
            tracing::debug!("{} came under no name, or under another's", PeerId::from(connection.peer()));
            connection.close();
        }
    }

    /// The peer at the other end of a connection has shown that it may know where we are: direct ways to it are looked for from now
    /// on. Never suspends.
    pub fn admit(&self, connection: &Connection) {
        self.core.admit(connection);
    }

    /// How the peer that is found by that id is reached now; `None` without a connection to it. Never suspends.
    pub fn path(&self, peer: PeerId) -> Option<Path> {
        self.core.path(peer)
    }

    /// The way to the peer at the other end of a connection, whether it is found by its id or has called. Never suspends.
    pub fn way_of(&self, connection: &Connection) -> Way {
        let (core, connection_of) = (Rc::downgrade(&self.core), connection.downgrade());
        Way { core, address: connection.remote_addr(), connection: connection_of }
    }

    /// Waits until a peer is reached as is `wanted`.
    ///
    /// # Errors
    /// `TimedOut` at the deadline.
    ///
    /// # Suspends
    /// Until then.
    pub fn wait_path(
        &self,
        peer: PeerId,
        deadline: Instant,
        wanted: impl Fn(Option<Path>) -> bool,
    ) -> io::Result<Option<Path>> {
        self.core.path_changed.wait(Some(deadline), || Some(self.path(peer)).filter(|path| wanted(*path)))
    }

    /// Closes all connections, and tells their peers. Streams that were ended before are delivered first, as by
    /// [`Endpoint::close`].
    ///
    /// # Suspends
    /// Until the last one is gone.
    pub fn close(self) {
        self.endpoint.finish();
    }

    /// The endpoint below, for its address and to answer STUN. It accepts through [`Peers::accept`] only.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.probing.terminate();
        self.searching.terminate();
        self.opening.terminate();
        self.moving.terminate();
        self.core.search.end();
        self.keepers.take().values().for_each(JoinHandle::terminate);
    }
}

fn no_relay() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "no relay is reached: look at this machine's network")
}

/// The keys of what travels beside a connection.
fn session_of(connection: &Connection) -> Session {
    Session::new(&connection.export(b"EXPORTER-reactor-peer-paths-2"), connection.is_dialled())
}
