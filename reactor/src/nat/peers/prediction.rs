//! Has two peers meet whose routers both lend another port for each destination, in sequence: what each side looks at, tells, and
//! then sends. `sequence.rs` decides which ports.
//!
//! Whoever searches (`search.rs`) looks at its own router first, and if that lends ports in sequence names one to the peer, over
//! the relay. The peer does the same then, whether it searches or not. As soon as a side has told and heard it opens its
//! sockets, so both do no further apart than a packet takes over the relay; each asks some times, since the first to ask finds
//! the other's router closed. Where the peer names none, its router is of another kind, and the search goes on as for those.
//!
//! What a peer can make us do: once in some seconds, and ever more seldom where nothing comes of it, [`SEEN`] questions to our
//! relays, then [`WAVES`] packets of some 60 bytes by each of [`SOCKETS`] sockets to the address that it says is its router's and
//! that is no neighbour's, [`TRIES`] times, all within what a process sends in a minute to whomever it answers
//! (`Search::may_draw`).
//!
//! What it is not: of use behind routers that count for each inside port apart: new sockets tell nothing of theirs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::core::Core;
use super::message::Message;
use super::paths::may_lend_ports;
use super::search::{Reason, Shown, await_peer};
use super::sequence::{SEEN, SOCKETS, Sequence};
use super::table::Peer;
use crate::cell::RefCell;
use crate::nat::relay::Sender;
use crate::nat::stun::{self, Timing};
use crate::net::UdpSocket;
use crate::{now, scope, sleep};

/// How often both sides look, tell, and open: others may have taken more ports than were reckoned with, or a packet was lost.
const TRIES: usize = 3;

/// How long a relay may take to say where a socket is seen. It is asked once: another packet might be lent another port.
const LOOKS: Timing = Timing { first: Duration::from_millis(700), tries: 1, last: 1 };

/// How long the peer may take to name its port: it looks first, and its word comes over the relay.
const NAMES_WITHIN: Duration = Duration::from_millis(1_000);

/// How often each socket asks the peer, and how far apart.
const WAVES: usize = 8;
const WAVES_APART: Duration = Duration::from_millis(100);
/// The last of them is waited for so long.
const ANSWERS_WITHIN: Duration = Duration::from_millis(400);

/// Says that ports are being guessed for a peer, until it is dropped.
struct AtIt<'a> {
    core: &'a Core,
    number: u64,
}

impl AtIt<'_> {
    /// Waits until nobody else is at it for that peer; `None` where there is no such peer.
    fn begin(core: &Core, number: u64) -> Option<AtIt<'_>> {
        while std::mem::replace(&mut core.table.borrow_mut().peer(number)?.guesses.is_at_it, true) {
            sleep(WAVES_APART);
        }
        Some(AtIt { core, number })
    }
}

impl Drop for AtIt<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.core.table.borrow_mut().peer(self.number) {
            peer.guesses.is_at_it = false;
        }
    }
}

/// Tries to meet the peer of that number by ports that both routers are about to lend; the reason is an answer if the peer has named
/// one already. Whether it has named any: its router is such a one too, and no other search leads to it.
pub(super) fn meet(core: &Rc<Core>, number: u64, reason: Reason) -> bool {
    let Some(_at_it) = AtIt::begin(core, number) else { return false };
    let mut has_named = false;
    if core.searched_address(number).is_some() {
        // None is in use: what an earlier try has left leads nowhere.
        core.search.close(number);
    }
    for _ in 0..TRIES {
        let Some(to) = core.searched_address(number) else { return true };
        let Some(ours) = look(core, to, reason) else { return has_named };
        core.name_guess(number, ours, reason == Reason::Answer);
        let heard = core.search.guessed.wait(Some(now() + NAMES_WITHIN), || core.take_guess(number));
        let Ok(theirs) = heard else { return has_named };
        tracing::debug!("a peer is expected at {theirs}, and we at {ours}");
        has_named = true;
        open_all(core, number, theirs, reason);
    }
    has_named
}

/// Where we are seen soon by whom some new sockets ask, if our router lends ports in sequence.
fn look(core: &Core, peer: SocketAddr, reason: Reason) -> Option<SocketAddr> {
    if core.shown() == Shown::Alike || !core.search.may_draw(reason, SEEN, now()) {
        return None;
    }
    let relays = core.relays_up();
    let relays = relays.iter().filter_map(|relay| Sender::peer_addr(relay).ok());
    let relays: Vec<SocketAddr> =
        relays.filter(|at| at.ip().to_canonical().is_ipv4() == peer.is_ipv4()).collect();
    let sockets: Vec<UdpSocket> = (0..SEEN).filter_map(|_| bind_towards(*relays.first()?).ok()).collect();
    // In the order in which they have asked, which is that of the ports.
    let seen = RefCell::new(Vec::new());
    scope(|s| {
        for (nth, socket) in sockets.iter().enumerate() {
            // Two relays where there are two: a router may lend a port for each address, and not for each port.
            let (relay, seen) = (relays[nth % relays.len()], &seen);
            let looking = s.try_spawn(move || {
                let own = socket.local_addr().map_or(0, |own| own.port());
                let place = {
                    let mut seen = seen.borrow_mut();
                    seen.push((None, own));
                    seen.len() - 1
                };
                if let Ok(answer) = stun::ask(socket, relay, LOOKS) {
                    let mapped = SocketAddr::new(answer.mapped.ip().to_canonical(), answer.mapped.port());
                    seen.borrow_mut()[place].0 = Some(mapped);
                }
            });
            if looking.is_err() {
                return;
            }
        }
    });
    let seen = seen.into_inner();
    let outside = seen.iter().find_map(|(seen, _)| *seen)?.ip();
    Some(SocketAddr::new(outside, Sequence::of(&seen)?.port_ahead()?))
}

/// Opens the sockets that all ask the peer at that address, until there is a way or time is over.
fn open_all(core: &Rc<Core>, number: u64, to: SocketAddr, reason: Reason) {
    let until = now() + WAVES_APART * WAVES as u32 + ANSWERS_WITHIN;
    let sockets: Vec<Rc<UdpSocket>> =
        (0..SOCKETS).filter_map(|_| bind_towards(to).ok().map(Rc::new)).collect();
    scope(|s| {
        for socket in &sockets {
            let socket = socket.clone();
            if s.try_spawn(move || await_peer(core, number, to, &socket, until)).is_err() {
                break;
            }
        }
        let mut waves = 0;
        while now() < until && core.searched_address(number).is_some() {
            if waves < WAVES && core.search.may_draw(reason, SOCKETS, now()) {
                for socket in &sockets {
                    let ping = core.ping_for(number);
                    // What finds no room is lost: there are more waves.
                    let _ = ping.map(|ping| socket.try_send_to(&ping, to));
                }
            }
            waves += 1;
            sleep(WAVES_APART);
        }
        s.terminate_children();
    });
}

/// A socket of any port, by which such an address can be reached.
pub(super) fn bind_towards(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind(SocketAddr::new(any, 0))
}

impl Core {
    /// A peer expects to be seen there. Ours is named where a way is missing only, and to nobody who names a neighbour's.
    pub(super) fn on_guess(&self, peer: &mut Peer, number: u64, at: SocketAddr, is_answer: bool) {
        let has_way = peer.line().is_some() || peer.paths.route().is_some();
        let [at] = self.usable(&[at])[..] else { return };
        // What is to be guessed is a port, and of the router where it is searched.
        let is_its_router = peer.paths.searched().is_some_and(|router| router.ip() == at.ip());
        if has_way || !may_lend_ports(at) || !is_its_router {
            return;
        }
        if peer.guesses.on_named(at, is_answer, now()) {
            self.search.ask_to_answer(number);
        }
        self.search.guessed.wake_all();
    }

    /// Tells a peer where we expect to be seen by it.
    fn name_guess(&self, number: u64, at: SocketAddr, is_answer: bool) {
        let mut table = self.table.borrow_mut();
        let Some(peer) = table.peer(number) else { return };
        let relay = self.relay_of(peer);
        if let (Some((_, relay)), Some(link)) = (relay, peer.links.last_mut()) {
            relay.send(peer.seat, &link.session.seal(&Message::Guess { at, is_answer }));
        }
    }

    fn take_guess(&self, number: u64) -> Option<SocketAddr> {
        self.table.borrow_mut().peer(number)?.guesses.take(now())
    }
}
