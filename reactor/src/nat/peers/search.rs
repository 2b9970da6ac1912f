//! The search for a way through a router that lends another port for each destination, where the other side's router lets in
//! only what was asked for: no address that one of the two could name leads to the other.
//!
//! One side opens many sockets, each of which sends to where the other is seen, so that its router lends as many ports. The
//! other sends to ports of that router, and after some hundred has hit one that leads to a socket. Every other one is next to that which
//! a relay sees, going outward: a router that lends them in sequence has lent the next ones, and one that has a block for each
//! customer lends out of that. The rest is drawn at random, and where the router draws them the former are as good as any: of
//! 64,512 ports 160 are open, so that 2,000 packets miss all of them once in 140 tries. That socket is the peer's from then on,
//! an [`Outlet`], and has the address tried as any other.
//!
//! Which side is which, two relays tell: who is seen alike by both draws, who is not opens. Whoever has one relay does both.
//!
//! What it costs is bounded: [`AT_ONCE`] searches at a time, each of [`SOCKETS`] sockets and [`DRAWN_MAX`] packets of some 60 bytes to the one address
//! that a peer names and that is no neighbour's, [`DRAWN_EACH_MINUTE`] to all together, and each search for a peer that was in vain
//! doubles the pause to the next.
//!
//! Two such routers are brought together where both lend the next port each time (`prediction.rs`), which is tried first.
//!
//! What it is not: the choice of a path. Where both draw their ports there is none: both would have to guess.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use super::core::Core;
use super::message::{Message, SessionTag};
use super::prediction::{self, bind_towards};
use crate::cell::RefCell;
use crate::coroutine::{Builder, JoinHandle};
use crate::net::UdpSocket;
use crate::net::quic::routes::Routes;
use crate::sync::Waiters;
use crate::{now, random, scope, sleep};

/// What the first rounds are left before a search begins: some round trips.
const BEGINS_AFTER: Duration = Duration::from_secs(1);
/// How long one takes at most.
const LASTS_MAX: Duration = Duration::from_secs(10);

/// Searches at once: both sides have to be at it at the same time. And as many answers, so that peers who have us guess take no
/// search its turn.
const AT_ONCE: usize = 4;
/// Sockets that one side opens, for each: 640 at most, and some hundred for guesses. Where the kernel gives a process 1,024 descriptors and it needs more than the
/// rest for itself, it has to ask for more, as `storage-node` does.
const SOCKETS: usize = 160;
/// They are opened so many at a time, so that no router's queue overflows.
const OPENED_AT_ONCE: usize = 32;
/// Packets that the other side sends at once, and the pause behind them: 200 a second.
const DRAWN_AT_ONCE: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// And in all.
const DRAWN_MAX: usize = 2_000;
/// Whoever is searched for, the process sends no more in a minute, nor in answer to whoever has us guess, which takes nothing from
/// our own searches: any member can name any address for its router's.
const DRAWN_EACH_MINUTE: [usize; 2] = [4_000, 2_000];
/// Routers lend no ports below.
const PORT_MIN: u16 = 1_024;

/// Peers that wait for their search, and as many for an answer; more try again in a later round.
const WAITING_MAX: usize = 16;
/// Sockets that are peers' own.
const OUTLETS_MAX: usize = 64;
/// Of those, one peer's: the ports of a router that let something through at the same time. Who names another each time has no more.
const OUTLETS_EACH_MAX: usize = 8;

/// QUIC's datagrams, and what the kernel has joined of them is not joined here.
const DATAGRAM_BYTES: usize = 2 << 10;

/// A socket of one peer's own, by which an address of it is reached.
struct Outlet {
    /// The peer's.
    number: u64,
    socket: Rc<UdpSocket>,
    /// Takes what comes there; none while that begins.
    receiving: Option<JoinHandle<()>>,
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.receiving.iter().for_each(JoinHandle::terminate);
    }
}

/// Why a peer's turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// We search a way to it.
    Search,
    /// It has named a port that it is to be lent (`prediction.rs`).
    Answer,
}

/// Those that were found, and who waits for a search.
pub(super) struct Search {
    outlets: RefCell<BTreeMap<SocketAddr, Outlet>>,
    waiting: RefCell<VecDeque<(u64, Reason)>>,
    wanted: Waiters,
    /// Wakes who waits for a peer to name a port.
    pub(super) guessed: Waiters,
    /// When the minute began, and what was drawn in it, for either reason.
    drawn: [Cell<(Option<Instant>, usize)>; 2],
}

/// What is known of our own router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// It shows us alike to all.
    Alike,
    /// It shows each another port.
    Each,
    /// There are not two to compare.
    Unknown,
}

impl Shown {
    /// What relays have told: for each, our own address and that which it sees.
    pub(super) fn of<'a>(told: impl Iterator<Item = &'a [SocketAddr]>) -> Shown {
        let mut seen = told.filter_map(|own| own.get(1));
        let Some(first) = seen.next() else { return Shown::Unknown };
        let others: Vec<&SocketAddr> = seen.filter(|other| other.is_ipv4() == first.is_ipv4()).collect();
        match &others[..] {
            [] => Shown::Unknown,
            others if others.iter().all(|other| *other == first) => Shown::Alike,
            _ => Shown::Each,
        }
    }
}

impl Search {
    pub(super) fn new() -> Search {
        Search {
            outlets: RefCell::default(),
            waiting: RefCell::default(),
            wanted: Waiters::new(&"a peer to search a way to"),
            guessed: Waiters::new(&"the port that a peer is lent next"),
            drawn: Default::default(),
        }
    }

    /// Has a way to the peer of that number searched, when its turn comes.
    pub(super) fn ask_for(&self, number: u64) {
        self.put(number, Reason::Search);
    }

    /// Has a port guessed for the peer of that number, which has named one to us.
    pub(super) fn ask_to_answer(&self, number: u64) {
        self.put(number, Reason::Answer);
    }

    fn put(&self, number: u64, reason: Reason) {
        let mut waiting = self.waiting.borrow_mut();
        let alike = waiting.iter().filter(|(_, other)| *other == reason).count();
        if alike < WAITING_MAX && !waiting.contains(&(number, reason)) {
            waiting.push_back((number, reason));
            self.wanted.wake_all();
        }
    }

    /// Whether so many packets more may go to ports that are drawn, or guessed.
    pub(super) fn may_draw(&self, reason: Reason, count: usize, now: Instant) -> bool {
        let counted = &self.drawn[reason as usize];
        let (begun, drawn) = match counted.get() {
            (Some(begun), drawn) if now < begun + Duration::from_secs(60) => (begun, drawn),
            _ => (now, 0),
        };
        let may = drawn + count <= DRAWN_EACH_MINUTE[reason as usize];
        counted.set((Some(begun), drawn + if may { count } else { 0 }));
        may
    }

    /// Sends by the socket of its own that the address has; whether it has one. What finds no room there is lost.
    pub(super) fn send(&self, packet: &[u8], to: SocketAddr) -> bool {
        let outlets = self.outlets.borrow();
        let Some(outlet) = outlets.get(&to) else { return false };
        if let Err(error) = outlet.socket.try_send_to(packet, to) {
            tracing::trace!("a packet to {to} is lost: {error}");
        }
        true
    }

    /// Whether a peer may have one more socket of its own.
    fn has_room(&self, number: u64) -> bool {
        let outlets = self.outlets.borrow();
        let of_it = outlets.values().filter(|outlet| outlet.number == number).count();
        outlets.len() < OUTLETS_MAX && of_it < OUTLETS_EACH_MAX
    }

    /// Closes the sockets of a peer.
    pub(super) fn close(&self, number: u64) {
        self.outlets.borrow_mut().retain(|_, outlet| outlet.number != number);
    }

    /// Closes all.
    pub(super) fn end(&self) {
        drop(self.outlets.take());
    }
}

impl Core {
    /// Where the router of a peer is who has connections, and no direct path.
    pub(super) fn searched_address(&self, number: u64) -> Option<SocketAddr> {
        let mut table = self.table.borrow_mut();
        table.peer(number).filter(|peer| peer.is_up())?.paths.searched()
    }

    /// What our router does, as far as relays have told.
    pub(super) fn shown(&self) -> Shown {
        let own = self.own.borrow();
        Shown::of(own.iter().filter(|(relay, _)| **relay != usize::MAX).map(|(_, told)| &told[..]))
    }

    /// A ping to a peer, for wherever it is sent to.
    pub(super) fn ping_for(&self, number: u64) -> Option<Vec<u8>> {
        let ping = Message::Ping { transaction: random::number(), padding: 0 };
        let mut table = self.table.borrow_mut();
        Some(table.peer(number)?.links.last_mut()?.session.seal(&ping))
    }

    /// Whether a packet names a session of that peer's.
    fn is_of(&self, number: u64, packet: &[u8]) -> bool {
        SessionTag::of(packet).and_then(|tag| self.table.borrow().by_session(tag)) == Some(number)
    }

    /// A datagram has come by a socket of its sender's own.
    fn on_outlet(&self, from: SocketAddr, datagram: &[u8]) {
        if self.on_packet(Some(from), None, datagram) {
            return;
        }
        let sender = self.arrival(from);
        sender.into_iter().for_each(|sender| self.endpoint().on_datagram(sender, datagram));
    }
}

/// Searches for those who are asked for, a few at a time, until it is terminated.
pub(super) fn run(core: &Rc<Core>) {
    let active = &[Reason::Search, Reason::Answer].map(|_| Cell::new(0));
    scope(|s| {
        loop {
            let next = || {
                let mut waiting = core.search.waiting.borrow_mut();
                let has_room = |(_, reason): &(u64, Reason)| active[*reason as usize].get() < AT_ONCE;
                let at = waiting.iter().position(has_room)?;
                waiting.remove(at)
            };
            let Ok((number, reason)) = core.search.wanted.wait(None, next) else { return };
            let active = &active[reason as usize];
            active.set(active.get() + 1);
            let searching = s.try_spawn(move || {
                match reason {
                    Reason::Search => {
                        sleep(BEGINS_AFTER);
                        search(core, number);
                    }
                    Reason::Answer => {
                        prediction::meet(core, number, Reason::Answer);
                    }
                }
                active.set(active.get() - 1);
                core.search.wanted.wake_all();
            });
            if searching.is_err() {
                active.set(active.get() - 1);
            }
        }
    });
}

fn search(core: &Rc<Core>, number: u64) {
    if core.searched_address(number).is_none() {
        return;
    }
    core.search.close(number);
    if core.search.outlets.borrow().len() >= OUTLETS_MAX {
        return;
    }
    // Before others are lent, which would be taken out of the sequence.
    if prediction::meet(core, number, Reason::Search) {
        return;
    }
    let Some(to) = core.searched_address(number) else { return };
    let (until, shown) = (now() + LASTS_MAX, core.shown());
    tracing::debug!("a way to {to} is searched; our router shows us: {shown:?}");
    let is_over = || now() >= until || core.searched_address(number).is_none();
    scope(|s| {
        let mut opened = 0;
        let mut drawn = 0;
        while !is_over() {
            if shown != Shown::Alike && opened < SOCKETS {
                // Where there is no room for so many, fewer have to do.
                let begun = (0..OPENED_AT_ONCE).map(|_| s.try_spawn(|| open(core, number, to, until)));
                opened += begun.filter(Result::is_ok).count();
            }
            let may_draw = || drawn < DRAWN_MAX && core.search.may_draw(Reason::Search, DRAWN_AT_ONCE, now());
            if shown != Shown::Each && may_draw() {
                for _ in 0..DRAWN_AT_ONCE {
                    let port = port_to_try(drawn, to.port(), random::number());
                    drawn += 1;
                    if let Some(ping) = core.ping_for(number) {
                        core.endpoint().send_to(&ping, SocketAddr::new(to.ip(), port));
                    }
                }
            }
            sleep(PAUSE);
        }
        s.terminate_children();
    });
}

/// Which port of a router is tried after `count` others, where a relay sees `seen`.
fn port_to_try(count: usize, seen: u16, random: u64) -> u16 {
    let (nth, is_drawn) = (count / 4 + 1, count % 2 == 1);
    let near =
        if count.is_multiple_of(4) { usize::from(seen) + nth } else { usize::from(seen).wrapping_sub(nth) };
    let is_port = (usize::from(PORT_MIN)..=usize::from(u16::MAX)).contains(&near);
    if is_port && !is_drawn {
        return near as u16;
    }
    let span = u64::from(u16::MAX - PORT_MIN) + 1;
    PORT_MIN + (random % span) as u16
}

/// Opens one socket, asks the peer by it, and makes it the peer's when something of it has come.
fn open(core: &Rc<Core>, number: u64, to: SocketAddr, until: Instant) {
    let Ok(socket) = bind_towards(to) else { return };
    let Some(ping) = core.ping_for(number) else { return };
    if socket.try_send_to(&ping, to).is_ok() {
        await_peer(core, number, to, &Rc::new(socket), until);
    }
}

/// Makes a socket the peer's when something of it has come there from that address.
pub(super) fn await_peer(
    core: &Rc<Core>,
    number: u64,
    to: SocketAddr,
    socket: &Rc<UdpSocket>,
    until: Instant,
) {
    socket.set_read_deadline(Some(until));
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((size, from)) if from == to && core.is_of(number, &buffer[..size]) => {
                socket.set_read_deadline(None);
                if adopt(core, number, to, socket.clone()) {
                    core.on_outlet(to, &buffer[..size]);
                }
                return;
            }
            // A read that need not wait looks at no deadline, and others may send here as long as they like.
            Ok(_) if now() < until => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// The socket is the peer's from now on, unless another was faster; whether the address has one.
fn adopt(core: &Rc<Core>, number: u64, to: SocketAddr, socket: Rc<UdpSocket>) -> bool {
    let outlets = &core.search.outlets;
    if outlets.borrow().contains_key(&to) {
        return true;
    }
    if !core.search.has_room(number) {
        return false;
    }
    outlets.borrow_mut().insert(to, Outlet { number, socket: socket.clone(), receiving: None });
    tracing::debug!("{to} is reached by a socket of its own");
    // It begins at once, and what it takes may be answered by that very socket: nothing is borrowed here.
    let weak = Rc::downgrade(core);
    let receiving = Builder::new().name("outlet").spawn(move || receive(&weak, &socket, to));
    let mut outlets = outlets.borrow_mut();
    match (receiving, outlets.get_mut(&to)) {
        (Ok(receiving), Some(outlet)) => outlet.receiving = Some(receiving),
        (Ok(receiving), None) => receiving.terminate(),
        (Err(_), _) => drop(outlets.remove(&to)),
    }
    outlets.contains_key(&to)
}

/// Takes what comes by a peer's own socket, until that is closed.
fn receive(core: &Weak<Core>, socket: &UdpSocket, expected: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    while let Ok((size, from)) = socket.recv_from(&mut buffer) {
        let Some(core) = core.upgrade() else { return };
        if from == expected {
            core.on_outlet(from, &buffer[..size]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_are_searched_for_little_is_drawn_in_a_minute() {
        let (search, begun) = (Search::new(), Instant::now());
        let drawn_at = |reason, now| {
            (0..10_000).filter(|_| search.may_draw(reason, DRAWN_AT_ONCE, now)).count() * DRAWN_AT_ONCE
        };
        for reason in [Reason::Answer, Reason::Search] {
            let most = DRAWN_EACH_MINUTE[reason as usize];
            assert_eq!(drawn_at(reason, begun), most, "the one takes nothing from the other");
            assert_eq!(drawn_at(reason, begun + Duration::from_secs(59)), 0);
            assert_eq!(drawn_at(reason, begun + Duration::from_secs(60)), most);
        }
    }

    #[test]
    fn however_many_have_us_guess_a_search_of_our_own_gets_its_turn() {
        let search = Search::new();
        (0..10 * WAITING_MAX as u64).for_each(|number| search.ask_to_answer(number));
        search.ask_for(7);
        let waiting = search.waiting.borrow();
        assert_eq!((waiting.len(), waiting.back()), (WAITING_MAX + 1, Some(&(7, Reason::Search))));
    }

    #[test]
    fn ports_next_to_the_one_that_is_seen_are_tried_outward_between_others() {
        let tried: Vec<u16> = (0..8).map(|count| port_to_try(count, 40_000, 7)).collect();
        assert_eq!(tried, [40_001, 1_031, 39_999, 1_031, 40_002, 1_031, 39_998, 1_031]);
        for (count, seen) in [(0, u16::MAX), (2, PORT_MIN), (2, 0), (DRAWN_MAX, 1), (DRAWN_MAX + 2, 1)] {
            assert!(port_to_try(count, seen, u64::MAX) >= PORT_MIN);
        }
    }

    #[test]
    fn two_relays_tell_what_the_router_does() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [host, seen, other] = ["192.168.1.2:9", "203.0.113.1:9", "203.0.113.1:10"].map(at);
        let shown = |told: &[&[SocketAddr]]| Shown::of(told.iter().copied());
        assert_eq!(shown(&[]), Shown::Unknown);
        assert_eq!(shown(&[&[host], &[host, seen]]), Shown::Unknown, "one has not answered");
        assert_eq!(shown(&[&[host, seen], &[host, seen]]), Shown::Alike);
        assert_eq!(shown(&[&[host, seen], &[host, other]]), Shown::Each);
        assert_eq!(shown(&[&[host, seen], &[host, at("[2001:db8::1]:9")]]), Shown::Unknown, "another family");
    }
}
