//! Finding members in one's own network, where nobody knows any more where they are: by packets to a group (`beacon.rs`).
//!
//! A storage node that listens to others says each minute that it is there, and more often after its start and while it has met
//! nobody. Who is a client asks, while it has met nobody, and those who are there answer it alone. Whoever hears of a member that
//! he is not in touch with goes there, and comes in as by any other way. So members find each other whose addresses have changed
//! since they met, without anything outside.
//!
//! What a network of strangers can do with it: learn that this program runs on this machine, since the packets go to a group and a
//! port of its own; not whose it is, nor by the packets themselves in which network. What it can make us do is bounded, and
//! nothing is done about packets of other networks than those that this machine is in, or about one that was sent again, save for
//! who has its sender's address and only where neither it nor a later one was heard (`heard.rs`). An answer is no longer than what
//! asks for it, and goes to a member's address.
//!
//! What it is not: a way beyond one's own network (packets to the group are not passed on), or for IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::net::tls::Expect;
use reactor::net::{BindOptions, Interface, LocalNetwork, UdpSocket};

use crate::beacon::{BEACON_BYTES_MAX, Beacon};
use crate::dial::{self, Dialled};
use crate::heard::Heard;
use crate::node_id::NodeId;
use crate::peers::Role;
use crate::session::Session;
use crate::state::State;

/// The group: of those that are for one's own site (RFC 2365).
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 72, 121);

/// And its port.
const PORT: u16 = 4_700;

/// How often a node says that it is there, in the end: whoever missed the packets of a start meets it within so long.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The same while nobody is met.
const SAY_ALONE: Duration = Duration::from_secs(15);

/// The pause behind the first packet, which doubles.
const SAY_FIRST: Duration = Duration::from_secs(2);

/// A client that reaches somebody by what it knows needs to ask nobody: that takes no longer than so.
const ASK_AFTER: Duration = Duration::from_millis(400);

/// The pause behind a failure: there may be no network yet.
const AGAIN: Duration = Duration::from_secs(30);

/// Takes part, as long as it is not terminated.
///
/// # Suspends
/// Always.
pub(crate) fn run(state: &Rc<State>) {
    loop {
        if let Err(error) = take_part(state) {
            tracing::debug!(%error, "members in this network are not looked for");
        }
        reactor::sleep(AGAIN);
    }
}

fn take_part(state: &Rc<State>) -> io::Result<()> {
    // Other programs of ours on this machine hear the group too.
    let options = BindOptions { reuse_address: true, ..BindOptions::default() };
    let own = listening(state);
    // Who listens at one address is to be dialled there.
    let from = own.map_or(Ipv4Addr::UNSPECIFIED, |own| *own.ip());
    let talk = Talk {
        state,
        own,
        ear: UdpSocket::bind_with(SocketAddr::from((GROUP, PORT)), &options)?,
        mouth: UdpSocket::bind(SocketAddr::from((from, 0)))?,
        networks: RefCell::default(),
        heard: RefCell::new(Heard::by(state.credentials.own)),
    };
    reactor::scope(|s| {
        let hearing = [&talk.ear, &talk.mouth].map(|socket| s.spawn(|| talk.hear(socket)));
        let said = talk.say();
        hearing.iter().for_each(|hearing| hearing.terminate());
        said
    })
}

/// Where we listen to others, if we do.
fn listening(state: &State) -> Option<SocketAddrV4> {
    match state.credentials.addresses.first()? {
        // At all addresses, of both families.
        SocketAddr::V6(own) if state.credentials.role == Role::Storage && own.ip().is_unspecified() => {
            Some(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, own.port()))
        }
        SocketAddr::V4(own) if state.credentials.role == Role::Storage && !own.ip().is_loopback() => {
            Some(*own)
        }
        _ => None,
    }
}

/// What takes part.
struct Talk<'a> {
    state: &'a Rc<State>,
    own: Option<SocketAddrV4>,
    /// Hears the group.
    ear: UdpSocket,
    /// Sends, and hears who answers.
    mouth: UdpSocket,
    /// Those that this machine was in when it was looked last.
    networks: RefCell<Vec<LocalNetwork>>,
    heard: RefCell<Heard>,
}

impl Talk<'_> {
    /// Says what there is to be said, to each network that this machine is in.
    fn say(&self) -> io::Result<()> {
        if self.own.is_none() {
            reactor::sleep(ASK_AFTER);
        }
        let mut pause = SAY_FIRST;
        loop {
            let is_alone = self.state.table.borrow().live_count() == 0;
            self.look_around()?;
            if self.own.is_some() || is_alone {
                self.say_to_all();
            }
            reactor::sleep(pause);
            pause = (pause * 2).min(if is_alone { SAY_ALONE } else { SAY_EVERY });
        }
    }

    fn look_around(&self) -> io::Result<()> {
        let networks = LocalNetwork::all()?;
        for interface in interfaces(&networks, |_| true) {
            // It may be in it already.
            let _ = self.ear.join_group(GROUP, interface);
        }
        self.networks.replace(networks);
        Ok(())
    }

    fn say_to_all(&self) {
        // Nobody elsewhere could dial it.
        let listens_there = |network: &LocalNetwork| {
            self.own.is_none_or(|own| own.ip().is_unspecified() || network.contains(*own.ip()))
        };
        let told = interfaces(&self.networks.borrow(), listens_there);
        for interface in told {
            if let Err(error) = self.say_by(interface) {
                tracing::trace!(%error, ?interface, "this network is not told");
            }
        }
    }

    fn say_by(&self, interface: Interface) -> io::Result<()> {
        let group = SocketAddr::from((GROUP, PORT));
        let packet = self.packet(group, Some(interface))?;
        self.mouth.set_group_interface(interface)?;
        self.mouth.try_send_to(&packet, group).map(drop)
    }

    /// What we have to say, as it leaves for there.
    fn packet(&self, to: SocketAddr, interface: Option<Interface>) -> io::Result<Vec<u8>> {
        let address = match self.own {
            Some(own) if !own.ip().is_unspecified() => *own.ip(),
            _ => own_address_towards(to, interface)?,
        };
        let passport = self.state.credentials.newest_passport();
        let since_1970 = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let port = self.own.map(|own| own.port());
        let beacon = Beacon { passport, port, address, at_ms };
        Ok(beacon.seal(&self.state.identity, &self.state.credentials.network))
    }

    /// Takes what comes to a socket.
    fn hear(&self, socket: &UdpSocket) {
        // One more, to tell a longer one.
        let mut buffer = [0; BEACON_BYTES_MAX + 1];
        loop {
            let Ok((size, from)) = socket.recv_from(&mut buffer) else {
                // An interface may have gone, and is back in a while.
                reactor::sleep(AGAIN);
                continue;
            };
            let may = self.heard.borrow_mut().may_read(reactor::now());
            if let Err(until) = may {
                reactor::sleep_until(until);
                continue;
            }
            if self.is_of_our_networks(from) {
                self.on_packet(&buffer[..size], from);
            }
        }
    }

    /// Whether a packet from there was sent within a network that this machine is in.
    fn is_of_our_networks(&self, from: SocketAddr) -> bool {
        let IpAddr::V4(from) = from.ip().to_canonical() else { return false };
        let is_near = || self.networks.borrow().iter().any(|network| network.contains(from));
        if is_near() {
            return true;
        }
        // It may be in another since it was looked last.
        let may_look = self.heard.borrow_mut().may_look(reactor::now());
        may_look && self.look_around().is_ok() && is_near()
    }

    fn on_packet(&self, packet: &[u8], from: SocketAddr) {
        let (state, now) = (self.state, reactor::now());
        let may_be_checked = |beacon: &Beacon| self.heard.borrow_mut().may_check(beacon, from, now);
        let opened = Beacon::open_if(packet, &state.credentials.network, may_be_checked);
        let Some(beacon) = opened else { return };
        let key = beacon.passport.holder();
        let Ok((_, rights)) = state.credentials.verdict(&beacon.passport, &key) else { return };
        if state.stopping.get() {
            return;
        }
        self.heard.borrow_mut().on_said(&beacon, now);
        // What is decided is decided before anything is done: what is done may let the other socket's listener run.
        match beacon.port {
            Some(port) => {
                let is_wanted = rights.store && !is_in_touch(state, &key);
                let may_dial = is_wanted && self.heard.borrow_mut().may_dial(&beacon, now);
                if may_dial {
                    meet(state, key, SocketAddr::from((beacon.address, port)));
                }
            }
            None => {
                let may_answer = self.own.is_some() && self.heard.borrow_mut().may_answer(&beacon, now);
                if may_answer && let Ok(packet) = self.packet(from, None) {
                    let _ = self.mouth.try_send_to(&packet, from);
                }
            }
        }
    }
}

/// The interfaces of those networks, each once.
fn interfaces(networks: &[LocalNetwork], is_meant: impl Fn(&LocalNetwork) -> bool) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> =
        networks.iter().filter(|network| is_meant(network)).map(|network| network.interface).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    interfaces
}

/// The address of ours from which packets for there leave, by that interface where it is a group. Sends nothing.
fn own_address_towards(to: SocketAddr, interface: Option<Interface>) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    if let Some(interface) = interface {
        socket.set_group_interface(interface)?;
    }
    socket.connect(to)?;
    match socket.local_addr()? {
        SocketAddr::V4(own) if !own.ip().is_unspecified() => Ok(*own.ip()),
        _ => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

fn is_in_touch(state: &State, key: &PublicKey) -> bool {
    let table = state.table.borrow();
    state.pool.is_connected(key) || table.get(&NodeId::of(key)).is_some_and(|entry| entry.is_live())
}

/// Goes to a member there, in the background, wherever else it is said to be.
fn meet(state: &Rc<State>, key: PublicKey, address: SocketAddr) {
    let state = state.clone();
    // At the limit of coroutines it is heard of again.
    let _ =
        reactor::Builder::new().spawn(move || match dial::dial_address(&state, Expect::Key(key), address) {
            Ok(Dialled { stream, admitted, whereabouts }) => {
                tracing::info!(%address, id = ?NodeId::of(&key), "a member was found in this network");
                Session::begin(&state, stream, admitted, whereabouts).watch();
            }
            Err(error) => tracing::debug!(%error, "heard of in this network, and not met"),
        });
}
