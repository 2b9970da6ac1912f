//! What an endpoint, its relays and the prober share: where each packet goes, and what each control packet changes.
//!
//! Nothing here suspends. Packets come in from the endpoint's coroutine and from those of the relays, and leave by its socket
//! or a relay's outbox.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::machine::TriedAgain;
use super::message::{Message, SessionTag};
use super::search::Search;
use super::table::{Link, Peer, SIGN_WITHIN, Table};
use super::tcp::Openings;
use super::{Path, RelayKey, naming};
use crate::cell::RefCell;
use crate::clock::now;
use crate::nat::PeerId;
use crate::nat::relay::{DATAGRAM_BYTES_MAX, Seat, Sender};
use crate::net::quic::routes::{Routes, virtual_address, virtual_number};
use crate::net::quic::{Connection, WeakEndpoint};
use crate::random;
use crate::sync::Waiters;

/// When a peer is looked at again that was not admitted: layers above ask for proof within some seconds, or close.
const NOT_ADMITTED_FOR: Duration = Duration::from_secs(10);

pub(super) struct Core {
    pub(super) table: RefCell<Table>,
    /// The relays that are kept, by their order; `None` while one is not connected.
    relays: RefCell<Vec<Option<Sender>>>,
    /// Who waits for one to be connected.
    pub(super) relay_up: Waiters,
    endpoint: OnceCell<WeakEndpoint>,
    /// Our addresses: by the relay through which they were learnt, and under `usize::MAX` those that we were told.
    pub(super) own: RefCell<BTreeMap<usize, Vec<SocketAddr>>>,
    /// Those of this machine's interfaces, if the socket is bound to all of them (`machine.rs`).
    pub(super) machine: RefCell<Vec<SocketAddr>>,
    pub(super) tried_again: RefCell<TriedAgain>,
    /// Wakes the prober; `told` is that, for who comes before it waits.
    work: Waiters,
    told: Cell<bool>,
    pub(super) search: Search,
    pub(super) openings: Openings,
    /// Who waits for another path.
    pub(super) path_changed: Waiters,
}

impl Core {
    pub(super) fn new() -> Core {
        Core {
            table: RefCell::default(),
            relays: RefCell::default(),
            relay_up: Waiters::new(&"a relay"),
            endpoint: OnceCell::new(),
            own: RefCell::default(),
            machine: RefCell::default(),
            tried_again: RefCell::default(),
            work: Waiters::new(&"the next probe"),
            told: Cell::new(false),
            search: Search::new(),
            openings: Openings::new(),
            path_changed: Waiters::new(&"another path to a peer"),
        }
    }

    pub(super) fn set_endpoint(&self, endpoint: WeakEndpoint) {
        assert!(self.endpoint.set(endpoint).is_ok(), "it has one endpoint");
    }

    pub(super) fn endpoint(&self) -> &WeakEndpoint {
        self.endpoint.get().expect("it is set before anything comes")
    }

    pub(super) fn tell(&self) {
        self.told.set(true);
        self.work.wake_all();
    }

    /// The connections to relays that stand.
    pub(super) fn relays_up(&self) -> Vec<Sender> {
        self.relays.borrow().iter().flatten().filter(|relay| relay.is_up()).cloned().collect()
    }

    /// A place for another relay, of that number.
    pub(super) fn add_relay(&self, number: usize) {
        let mut relays = self.relays.borrow_mut();
        let count = relays.len().max(number + 1);
        relays.resize(count, None);
    }

    pub(super) fn remove_relay(&self, number: usize) {
        self.own.borrow_mut().remove(&number);
        // Its number may be another's next.
        self.table.borrow_mut().forget_relay(number);
        self.set_relay(number, None);
    }

    pub(super) fn set_relay(&self, relay: usize, sender: Option<Sender>) {
        let is_lost = sender.is_none();
        let before = std::mem::replace(&mut self.relays.borrow_mut()[relay], sender);
        if is_lost && before.is_none() {
            return;
        }
        self.look_again(relay);
        self.relay_up.wake_all();
        self.start_over();
        if is_lost {
            self.ping_relayed();
        }
    }

    /// Whoever was not at that relay may come to it while it is not connected; and where no other is left that could have
    /// a peer, those that had not are asked again.
    fn look_again(&self, relay: usize) {
        let mut table = self.table.borrow_mut();
        for number in table.numbers() {
            let Some(peer) = table.peer(number) else { continue };
            peer.absent_at.remove(&relay);
            if self.relay_of(peer).is_none() {
                peer.absent_at.clear();
            }
        }
    }

    /// What was sent over the relay that is lost may not have arrived: over another it is sent again.
    fn ping_relayed(&self) {
        let mut table = self.table.borrow_mut();
        for number in table.numbers() {
            if let Some(peer) = table.peer(number).filter(|peer| peer.paths.route().is_none()) {
                peer.links.iter().for_each(|link| link.connection.ping());
            }
        }
    }

    pub(super) fn has_relay(&self) -> bool {
        self.relays.borrow().iter().flatten().any(Sender::is_up)
    }

    pub(super) fn has_relay_of(&self, some: &[RelayKey]) -> bool {
        let relays = self.relays.borrow();
        some.iter().any(|key| relays.get(key.0).and_then(Option::as_ref).is_some_and(Sender::is_up))
    }

    /// Our addresses, as learnt through that relay.
    pub(super) fn set_own(&self, relay: usize, addresses: Vec<SocketAddr>) {
        let earlier = self.own.borrow_mut().insert(relay, addresses.clone());
        if earlier.as_ref() != Some(&addresses) {
            self.start_over();
        }
    }

    pub(super) fn add_own(&self, address: SocketAddr) {
        self.own.borrow_mut().entry(usize::MAX).or_default().push(address);
        self.start_over();
    }

    pub(super) fn remove_own(&self, address: SocketAddr) {
        self.own.borrow_mut().entry(usize::MAX).or_default().retain(|own| *own != address);
    }

    /// Something has changed here: what was given up is tried again.
    pub(super) fn start_over(&self) {
        let now = now();
        let mut table = self.table.borrow_mut();
        for number in table.numbers() {
            if let Some(peer) = table.peer(number).filter(|peer| !peer.links.is_empty()) {
                peer.paths.search_anew();
                peer.paths.start_over(now);
                peer.opening.start_over();
                peer.guesses.start_over();
                table.set_due(number, Some(now));
            }
        }
        drop(table);
        self.tell();
    }

    /// Whether a connection goes over that relay, or would if there were no direct way.
    pub(super) fn uses(&self, relay: RelayKey) -> bool {
        self.table.borrow().uses(relay.0)
    }

    /// The virtual address of a peer who is to be dialled, and is said to be at the `named` relays; `None` where there are too
    /// many.
    pub(super) fn address_of(&self, id: PeerId, named: &[RelayKey]) -> Option<SocketAddr> {
        let mut table = self.table.borrow_mut();
        let number = table.number_of(id.into(), now())?;
        if let Some(peer) = table.peer(number) {
            peer.named = named.iter().map(|key| key.0).collect();
            if !peer.is_up() && !named.is_empty() {
                // Where it was heard once says less.
                peer.relay = None;
            }
            // It may have come since to a relay that did not know it.
            peer.absent_at.clear();
        }
        Some(virtual_address(number))
    }

    /// Takes a connection whose handshake is done; whether it is with whom its address stands for. A relay may have lied.
    pub(super) fn attach(&self, connection: &Connection, is_admitted: bool) -> bool {
        let id = PeerId::from(connection.peer());
        let mut table = self.table.borrow_mut();
        let address = connection.remote_addr();
        if table.by_virtual(address).is_none_or(|peer| peer.seat.peer != id) {
            return false;
        }
        let number = virtual_number(address.ip()).expect("it was just found by that");
        let (session, connection) = (super::session_of(connection), connection.downgrade());
        let early = table.attach(number, Link { session, connection, is_admitted, early: None }, now());
        drop(table);
        if let Some(early) = early {
            self.on_packet(None, None, &early);
        }
        self.tell();
        self.path_changed.wake_all();
        true
    }

    /// How a peer is reached; `None` without a connection to it.
    pub(super) fn path(&self, id: PeerId) -> Option<Path> {
        self.table.borrow().by_id(id)?.path()
    }

    /// How the peer of that virtual address is reached.
    pub(super) fn path_at(&self, address: SocketAddr) -> Option<Path> {
        self.table.borrow_mut().by_virtual(address)?.path()
    }

    /// The relay over which a peer is sent something: where it was last heard, where it is said to be, or any where it may be.
    pub(super) fn relay_of(&self, peer: &Peer) -> Option<(usize, Sender)> {
        let relays = self.relays.borrow();
        let said =
            peer.relay.into_iter().chain(peer.named.iter().copied()).filter(|relay| *relay < relays.len());
        let all = said.chain(0..relays.len());
        let mut up = all.filter_map(|relay| Some((relay, relays[relay].clone().filter(Sender::is_up)?)));
        up.find(|(relay, _)| !peer.absent_at.contains(relay))
    }

    /// The relays over which a peer is sent something now. One that is being dialled is sought at all that it is said to be at: one
    /// of them may say nothing.
    fn relays_of(&self, peer: &Peer) -> Vec<Sender> {
        let relays = self.relays.borrow();
        let named = peer.named.iter().filter(|relay| !peer.absent_at.contains(relay));
        let named = named.filter_map(|relay| relays.get(*relay)?.clone().filter(Sender::is_up));
        let named: Vec<Sender> =
            if peer.relay.is_none() && !peer.is_up() { named.collect() } else { Vec::new() };
        drop(relays);
        if named.is_empty() {
            self.relay_of(peer).map(|(_, relay)| relay).into_iter().collect()
        } else {
            named
        }
    }

    /// A relay has brought a datagram from who proved that id to it.
    pub(super) fn on_relayed(&self, relay: usize, from: Seat, bytes: &[u8]) {
        let number = self.table.borrow_mut().on_relayed(from, relay, now());
        let Some(number) = number else { return };
        if let Some(tag) = SessionTag::of(bytes) {
            if self.table.borrow().by_session(tag).is_some() {
                self.on_packet(None, None, bytes);
            } else {
                self.table.borrow_mut().on_early(number, bytes);
            }
        } else {
            self.endpoint().on_datagram(virtual_address(number), bytes);
        }
    }

    /// A relay says that a peer is not there.
    pub(super) fn on_absent(&self, relay: usize, seat: Seat) {
        let mut table = self.table.borrow_mut();
        // Of whom we know nothing, we have sent nothing to.
        let Some(number) = table.known_number(seat) else { return };
        let Some(peer) = table.peer(number) else { return };
        if !peer.absent_at.insert(relay) {
            // It has said so: nobody is sent anything for its saying so again.
            return;
        }
        let other = self.relay_of(peer);
        if let Some((number, other)) = &other
            && !peer.named.contains(number)
            && !peer.unanswered.is_empty()
        {
            // QUIC would send it again in a second: at the next relay it can be at once.
            other.send(seat, &peer.unanswered);
        }
        let is_nowhere = other.is_none();
        if is_nowhere {
            // It may have come by the next try.
            peer.absent_at.clear();
            peer.unanswered = Vec::new();
        }
        drop(table);
        if is_nowhere {
            let reason = "no relay of ours knows the peer: it is offline, or uses other relays";
            self.endpoint().on_unreachable(virtual_address(number), reason);
        }
    }

    /// A packet about paths, directly or over a relay; whether it is one. `to` is the address of ours that it was sent to, where
    /// there may be several.
    pub(super) fn on_packet(&self, from: Option<SocketAddr>, to: Option<IpAddr>, packet: &[u8]) -> bool {
        let now = now();
        let mut table = self.table.borrow_mut();
        let Some(tag) = SessionTag::of(packet) else { return false };
        let Some(number) = table.by_session(tag) else { return false };
        let Some(peer) = table.peer(number) else { return false };
        // By any of its connections, as all are of one key.
        let is_admitted = peer.is_admitted();
        let Some(link) = peer.links.iter_mut().find(|link| link.session.tag() == tag) else { return false };
        let Some(message) = link.session.open(packet) else { return true };
        if !is_admitted {
            // It is not answered, and nothing is sent where it says that it is: the last that it said of that is looked at then.
            if matches!(message, Message::Candidates { .. }) {
                link.early = Some(message);
            }
            return true;
        }
        let before = peer.paths.route();
        match (message, from) {
            (Message::Ping { transaction, padding }, Some(from)) => {
                let pong = link.session.seal(&Message::Pong { transaction, padding });
                peer.paths.on_ping(from, now);
                table.on_sealed(number, from, false);
                self.send_directly(&pong, from, to);
            }
            (Message::Pong { transaction, .. }, Some(from)) => {
                if peer.paths.on_pong(from, transaction, now) {
                    table.on_sealed(number, from, true);
                }
            }
            (Message::Candidates { has_heard, udp, tcp }, _) => {
                self.on_candidates(peer, (has_heard, &udp, &tcp), now);
            }
            (Message::Guess { at, is_answer }, _) => self.on_guess(peer, number, at, is_answer),
            // Over a relay there is nothing to be asked.
            (Message::Ping { .. } | Message::Pong { .. }, None) => {}
        }
        self.after(&mut table, number, before);
        drop(table);
        self.tell();
        true
    }

    /// What a change of the paths of a peer entails.
    fn after(&self, table: &mut Table, number: u64, before: Option<SocketAddr>) {
        let Some(peer) = table.peer(number) else { return };
        if peer.paths.route() != before {
            let (id, route) = (peer.seat.peer, peer.paths.route());
            tracing::debug!("{id} is reached by {route:?} now, and was by {before:?}");
            let is_better = route.is_some();
            peer.on_route(now());
            for link in &peer.links {
                if is_better { link.connection.on_better_path() } else { link.connection.ping() }
            }
            if is_better {
                peer.guesses.start_over();
                // Nothing waits there behind what was lost.
                peer.line = None;
            }
            self.path_changed.wake_all();
        }
        if let Some((from, towards)) = peer.opening.take_begun() {
            self.openings.ask_for(number, from, towards);
        }
        let mut due = peer.paths.next_due();
        if peer.paths.route().is_some()
            && peer.links.iter().any(|link| link.connection.waiting_since().is_some())
        {
            // Whether it gets its sign is looked at now and then.
            due = due.into_iter().chain([now() + SIGN_WITHIN / 4]).min();
        }
        table.set_due(number, due);
    }

    /// By the socket that the address has of its own, or the endpoint's; from `own`, if that matters.
    fn send_directly(&self, packet: &[u8], to: SocketAddr, own: Option<IpAddr>) {
        if !self.search.send(packet, to) {
            match own {
                Some(own) => self.endpoint().send_from(own, packet, to),
                None => self.endpoint().send_to(packet, to),
            }
        }
    }

    /// All that the prober does: it looks at each peer when its time has come, until it is terminated.
    pub(super) fn probe(&self) {
        loop {
            let next = self.table.borrow_mut().take_due(now());
            match next {
                Some(number) => {
                    self.look_at(number);
                    crate::coroutine::pass();
                }
                None => {
                    let due = self.table.borrow().next_due();
                    // Its time has come, or it was told.
                    let _ = self.work.wait(due, || self.told.take().then_some(()));
                }
            }
        }
    }

    fn look_at(&self, number: u64) {
        let now = now();
        let mut table = self.table.borrow_mut();
        table.detach(number);
        let Some(peer) = table.peer(number) else { return };
        if peer.links.is_empty() {
            self.search.close(number);
            self.path_changed.wake_all();
            return;
        }
        if !peer.is_admitted() {
            // It may be gone by then.
            return table.set_due(number, Some(now + NOT_ADMITTED_FOR));
        }
        let before = peer.paths.route();
        peer.paths.on_time(now);
        if peer.carries_nothing(now) {
            peer.paths.on_carries_nothing(now);
        }
        let begins = peer.paths.begin_round(now);
        let probes = peer.paths.probes(now, random::number);
        if peer.line().is_none() && peer.paths.wants_search(now) {
            self.search.ask_for(number);
        }
        if begins {
            self.name_ours(peer, now);
        }
        let [is_in_the_open_by_v4, is_in_the_open_by_v6] = {
            // What we were told ourselves may be a router's.
            let own = self.own.borrow();
            let found = || own.iter().filter(|(relay, _)| **relay != usize::MAX).map(|(_, own)| own);
            [true, false].map(|is_v4| naming::is_in_the_open(found(), is_v4))
        };
        let Some(link) = peer.links.last_mut() else { return };
        for probe in probes {
            let ping = Message::Ping { transaction: probe.transaction, padding: probe.padding };
            let ping = link.session.seal(&ping);
            let is_in_the_open = if probe.to.is_ipv4() { is_in_the_open_by_v4 } else { is_in_the_open_by_v6 };
            match probe.hops {
                Some(_) if is_in_the_open => {}
                Some(hops) => self.endpoint().send_near(&ping, probe.to, hops),
                None => self.send_directly(&ping, probe.to, None),
            }
        }
        self.after(&mut table, number, before);
    }
}

impl Routes for Core {
    fn arrival(&self, from: SocketAddr) -> Option<SocketAddr> {
        self.table.borrow_mut().arrival(from, now())
    }

    fn departure(&self, to: SocketAddr, datagrams: &[u8], segment: usize) -> Option<SocketAddr> {
        let now = now();
        let mut table = self.table.borrow_mut();
        let peer = table.by_virtual(to)?;
        if let Some(direct) = peer.paths.route() {
            if peer.paths.on_sent(now)
                && let Some(number) = virtual_number(to.ip())
            {
                let due = peer.paths.next_due();
                table.set_due(number, due);
                drop(table);
                self.tell();
            }
            let mut each = datagrams.chunks(segment.max(1));
            let has_outlet = each.next().is_some_and(|first| self.search.send(first, direct));
            return if has_outlet {
                for datagram in each {
                    self.search.send(datagram, direct);
                }
                None
            } else {
                Some(direct)
            };
        }
        if let Some(line) = peer.line() {
            for datagram in datagrams.chunks(segment.max(1)).filter(|part| part.len() <= DATAGRAM_BYTES_MAX) {
                line.sender.send(peer.seat, datagram);
            }
            return None;
        }
        let relays = self.relays_of(peer);
        for datagram in datagrams.chunks(segment.max(1)).filter(|part| part.len() <= DATAGRAM_BYTES_MAX) {
            for relay in &relays {
                relay.send(peer.seat, datagram);
            }
            if !peer.is_up() {
                peer.unanswered = datagram.into();
            }
        }
        None
    }

    fn on_control(&self, from: SocketAddr, to: Option<IpAddr>, packet: &[u8]) -> bool {
        self.on_packet(Some(from), to, packet)
    }
}
