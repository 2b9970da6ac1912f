//! Reaching members by their ids, where their addresses can't be dialled: over a relay of the network at once, and directly as
//! soon as the routers between allow it.
//!
//! The carrier is [`reactor::nat::peers`]. This file decides for a member which relays it keeps (by `relays.rs`), shows them its
//! passport, and makes a dial and an arrival look as over TCP: a stream, on which both sides say hello as on any other
//! (`dial.rs`, `listener.rs`). So there is one identity and one admission, whatever carries it.
//!
//! A relay is a member that we have met, that is not revoked, and that says of itself that it relays: nobody else's word makes
//! it one, or says where it is. Nodes are found by their ids, and name in their records the relays over which, by their keys.
//! Clients, of which there may be several processes with one key, only call.
//!
//! The socket is bound to all addresses of this machine, of both families, so that two who have IPv6, or a network in common, meet
//! by that whichever way leads to the relay; where a node was told at which address to listen, it has that one only, and none
//! while this machine does not have it.
//!
//! Whoever knows of no relay has no socket for this and pays nothing; nor does a node that listens to its own machine only,
//! while the relays are elsewhere.
//!
//! What it is not: the relay (`relaying.rs`), nor a judgement of who may come in.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::nat::peers::{Path, Peers as Carrier, RelayAt, RelayKey};
use reactor::net::{UdpSocket, all_addresses, is_of_the_internet, quic};

use crate::contact::Contact;
use crate::dial::{DIAL_TIMEOUT, Places};
use crate::join::Bootstrap;
use crate::listener;
use crate::peers::{Role, Whereabouts};
use crate::record::Relay;
use crate::relays::{self, Line};
use crate::state::State;
use crate::stating;

/// Relays that are kept for those whom we seek over them, beside those over which we are found: as many as a few peers name.
const KEPT_MAX: usize = 16;

/// A relay over which we sought somebody, or were found, is kept for so long after that, and for as long as it is of use.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// How long the last words to our peers may take when we stop: a round trip over a relay, and one that is lost.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a member has for this; empty until it knows of a relay.
#[derive(Default)]
pub(crate) struct Reach {
    begun: RefCell<Option<Begun>>,
    /// Whether nobody has said at which address we are to listen.
    is_unbound: Cell<bool>,
    /// How the connections to the relays that we know stand.
    lines: RefCell<BTreeMap<PublicKey, Line>>,
    /// Who is no member any more though its key is on no list: whoever let it in is.
    turned_out: RefCell<BTreeSet<PublicKey>>,
}

struct Begun {
    carrier: Rc<Carrier>,
    /// Where the router maps its socket to.
    mapped: Option<SocketAddr>,
    kept: Vec<Kept>,
    /// Whether one of those that were kept is on another machine.
    is_for_others: bool,
    accepting: Option<JoinHandle<()>>,
}

struct Kept {
    relay: Relay,
    key: RelayKey,
    /// Whether we are to be found over it.
    is_chosen: bool,
    added_at: Instant,
    used_at: Instant,
}

impl Reach {
    /// Nobody has said at which address we are to listen: we may be reached at any.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn unbind(&self) {
        self.is_unbound.set(true);
    }

    /// Whether there is any relay over which the holder of that key may be sought.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn may_lead_to(&self, key: &PublicKey, places: &Places) -> bool {
        let named = named_by(key, places);
        // A relay that is at no other is found by its address only: whoever can't dial that is not at it either.
        let is_anywhere = !named.is_empty() || !places.is_relay;
        is_anywhere
            && (!named.is_empty() || self.begun.borrow().as_ref().is_some_and(|begun| !begun.kept.is_empty()))
    }

    /// Opens a stream to the member with that key, over the relays that its record names, or ours if it names none.
    ///
    /// # Errors
    /// `NotFound` if it is at none of them; `NotConnected` if none can be reached; those of the carrier.
    ///
    /// # Suspends
    /// For two round trips over a relay, and three more to one that was not kept before; put a timeout around it.
    pub(crate) fn dial(
        &self,
        state: &Rc<State>,
        key: &PublicKey,
        places: &Places,
    ) -> io::Result<(quic::Stream, Whereabouts)> {
        let (carrier, keys, patience) = {
            let (now, named) = (reactor::now(), named_by(key, places));
            let wanted: Vec<Relay> =
                known(state).into_values().filter(|relay| named.contains(&relay.public_key)).collect();
            self.keep(state, &wanted, false, now)?;
            let mut begun = self.begun.borrow_mut();
            let no_relay = || io::Error::new(ErrorKind::NotConnected, "no relay of the network is known");
            let begun = begun.as_mut().ok_or_else(no_relay)?;
            let is_named = |kept: &&mut Kept| named.contains(&kept.relay.public_key);
            let keys: Vec<RelayKey> =
                begun.kept.iter_mut().filter(is_named).map(|kept| kept.use_at(now)).collect();
            let ours = || begun.kept.iter().map(|kept| kept.key).collect();
            let keys = if keys.is_empty() { ours() } else { keys };
            let added = begun.kept.iter().filter(|kept| keys.contains(&kept.key)).map(|kept| kept.added_at);
            let patience = added.max().map(|added| added + DIAL_TIMEOUT);
            (begun.carrier.clone(), keys, patience)
        };
        // One that has been tried for so long is not waited for: whoever calls a node that is down hears so at once.
        let is_up = keys.iter().any(|key| carrier.is_connected_to(*key));
        let patience = patience.filter(|until| is_up || reactor::now() < *until);
        let no_relay = || io::Error::new(ErrorKind::NotConnected, "no relay that leads there is reached");
        let until = patience.ok_or_else(no_relay)?;
        carrier.wait_for_any(&keys, until)?;
        let stream = loop {
            let down: Vec<RelayKey> =
                keys.iter().filter(|key| !carrier.is_connected_to(**key)).copied().collect();
            match carrier.connect_at((*key).into(), &keys) {
                // It may be at one that is still being connected.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    carrier.wait_for_any(&down, until).map_err(|_| error)?;
                }
                connected => break connected?.open()?,
            }
        };
        let whereabouts = whereabouts(&carrier, stream.connection());
        Ok((stream, whereabouts))
    }

    /// Keeps the relays that we are to be found over, as far as they are known by now, and says in our record when that
    /// changes.
    ///
    /// # Suspends
    /// Until our record is on disk, if it changes.
    pub(crate) fn tend(&self, state: &Rc<State>) {
        let now = reactor::now();
        self.let_go_of_the_revoked(state);
        let is_of_no_use = |begun: &mut Begun| begun.is_broken() || begun.has_moved();
        let useless = self.begun.borrow_mut().take_if(is_of_no_use);
        if let Some(Begun { accepting: Some(accepting), .. }) = useless {
            // Another socket takes its place, and nobody comes by this one any more.
            accepting.terminate();
        }
        let chosen = self.choose(state, now);
        let relays: Vec<Relay> = chosen.iter().map(|(relay, _)| relay.clone()).collect();
        if let Err(error) = self.keep(state, &relays, true, now) {
            tracing::debug!(%error, "relays can't be used");
        }
        if let Some(begun) = self.begun.borrow_mut().as_mut() {
            begun.look_after(&relays, now);
        }
        state.peers.look();
        state.port_mapping.look(state);
        state.relaying.get().into_iter().for_each(|relaying| relaying.look_at_clients(state));
        let Some(own) = state.credentials.records.own() else { return };
        let said = &own.statement().relays;
        // Nobody can be told while none is up; but no word of ours goes on naming who is no member.
        let mut named = relays::to_be_named(&chosen).unwrap_or_else(|| said.clone());
        named.retain(|key| *key != state.credentials.own && self.is_member(state, key));
        named.sort();
        if named != *said {
            stating::restate(state, |says| says.relays = named);
        }
    }

    /// Takes nobody of these for a relay any more, who were cut off.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn turn_out(&self, keys: &[PublicKey]) {
        self.turned_out.borrow_mut().extend(keys);
    }

    fn is_member(&self, state: &State, relay: &PublicKey) -> bool {
        !state.peers.is_revoked(relay) && !self.turned_out.borrow().contains(relay)
    }

    /// Lets go of relays that are members no more: they see who talks with whom.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn let_go_of_the_revoked(&self, state: &State) {
        if let Some(Begun { carrier, kept, .. }) = self.begun.borrow_mut().as_mut() {
            kept.retain(|kept| {
                let is_member = self.is_member(state, &kept.relay.public_key);
                if !is_member {
                    carrier.remove_relay(kept.key);
                }
                is_member
            });
        }
    }

    /// The relays over which we are to be found, and how the connection to each stands.
    fn choose(&self, state: &State, now: Instant) -> Vec<(Relay, Line)> {
        let begun = self.begun.borrow();
        let is_up = |relay: &Relay| {
            let Begun { carrier, kept, .. } = begun.as_ref()?;
            kept.iter().find(|kept| kept.relay == *relay).map(|kept| carrier.is_connected_to(kept.key))
        };
        let (known, mut lines) = (known(state), self.lines.borrow_mut());
        let line_of = |relay: &Relay| {
            let before = lines.get(&relay.public_key).copied().unwrap_or(Line::Untried);
            before.found(is_up(relay), now)
        };
        let known: Vec<(Relay, Line)> =
            known.into_values().map(|relay| (relay.clone(), line_of(&relay))).collect();
        *lines = known.iter().map(|(relay, line)| (relay.public_key, *line)).collect();
        relays::to_be_kept(&state.own_id, known)
    }

    /// Has those relays kept, as far as there is room for those that are not chosen.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn keep(
        &self,
        state: &Rc<State>,
        relays: &[Relay],
        are_chosen: bool,
        now: Instant,
    ) -> io::Result<()> {
        let Some(first) = relays.first() else { return Ok(()) };
        if state.stopping.get() {
            return Err(io::Error::new(ErrorKind::NotConnected, "this node is stopping"));
        }
        if self.begun.borrow().is_none() {
            let begun = Begun::new(state, first.address, self.is_unbound.get())?;
            if state.relaying.get().is_some() {
                begun.carrier.endpoint().answer_stun();
            }
            self.begun.replace(Some(begun));
        }
        if let Some(begun) = self.begun.borrow_mut().as_mut() {
            relays.iter().for_each(|relay| begun.keep(state, relay, are_chosen, now));
        }
        state.port_mapping.look(state);
        Ok(())
    }

    /// Answers who asks where its packets come from, at the port of that number; whether that is the one that we have.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn answer_stun(&self, port: u16) -> bool {
        self.begun.borrow().as_ref().is_some_and(|begun| {
            let endpoint = begun.carrier.endpoint();
            endpoint.answer_stun();
            endpoint.local_addr().is_ok_and(|bound| bound.port() == port)
        })
    }

    /// Where the socket is bound by which members are reached by their ids, if there is one and a relay on another machine was
    /// ever kept: by those on this one nobody comes from outside.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn bound_for_others(&self) -> Option<SocketAddr> {
        let begun = self.begun.borrow();
        let begun = begun.as_ref().filter(|begun| begun.is_for_others)?;
        begun.carrier.endpoint().local_addr().ok()
    }

    /// The addresses of the internet at which relays see us.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn seen_from_outside(&self) -> Vec<Ipv4Addr> {
        let found =
            self.begun.borrow().as_ref().map_or_else(Vec::new, |begun| begun.carrier.addresses_found());
        let outside = |address: SocketAddr| match address.ip().to_canonical() {
            IpAddr::V4(ip) if is_of_the_internet(ip.into()) => Some(ip),
            _ => None,
        };
        found.into_iter().filter_map(outside).collect()
    }

    /// Members are told that the router maps the socket there, or nowhere.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn set_mapped(&self, mapped: Option<SocketAddr>) {
        let mut begun = self.begun.borrow_mut();
        let Some(begun) = begun.as_mut().filter(|begun| begun.mapped != mapped) else { return };
        if let Some(before) = std::mem::replace(&mut begun.mapped, mapped) {
            begun.carrier.remove_address(before);
        }
        if let Some(mapped) = mapped {
            begun.carrier.add_address(mapped);
        }
    }

    /// Accepts nobody any more.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn begin_stop(&self) {
        if let Some(accepting) = self.begun.borrow().as_ref().and_then(|begun| begun.accepting.as_ref()) {
            accepting.terminate();
        }
    }

    /// Tells the peers whose connections were closed, and lets go of everything.
    ///
    /// # Suspends
    /// At most for [`CLOSE_TIMEOUT`].
    pub(crate) fn close(&self) {
        let begun = self.begun.borrow_mut().take();
        let Some(Begun { carrier, accepting, .. }) = begun else { return };
        if let Some(accepting) = accepting {
            accepting.terminate();
            let _ = accepting.join();
        }
        // Somebody who still dials holds it, and is about to be terminated.
        if let Ok(carrier) = Rc::try_unwrap(carrier) {
            let _ = reactor::timeout(CLOSE_TIMEOUT, || carrier.close());
        }
    }
}

impl Begun {
    /// Binds a socket from which a relay at `towards` could be asked where we are, and has others accepted there.
    fn new(state: &Rc<State>, towards: SocketAddr, is_unbound: bool) -> io::Result<Begun> {
        let own = state.credentials.addresses.first().copied();
        let places = places::to_bind(own, is_unbound, towards.ip().is_loopback(), all_addresses);
        let calls_only = state.credentials.role == Role::Client;
        let mut bound = Err(ErrorKind::AddrNotAvailable.into());
        for place in places {
            bound = match calls_only {
                true => Carrier::caller(place, &state.identity),
                false => Carrier::bind(place, &state.identity),
            };
            if bound.is_ok() {
                break;
            }
        }
        let carrier = Rc::new(bound?);
        if let Ok(address) = carrier.endpoint().local_addr() {
            tracing::info!(%address, "bound to reach members by their ids, and be reached");
        }
        let accepting = (!calls_only).then(|| {
            let (state, carrier) = (state.clone(), carrier.clone());
            reactor::spawn(move || listener::accept_by_id(&state, &carrier))
        });
        Ok(Begun { carrier, mapped: None, kept: Vec::new(), is_for_others: false, accepting })
    }

    /// Whether its socket has failed.
    fn is_broken(&self) -> bool {
        self.accepting.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Whether its socket is bound to an address that this machine has no more: nothing leaves from there.
    fn has_moved(&self) -> bool {
        let Ok(bound) = self.carrier.endpoint().local_addr() else { return false };
        let again = UdpSocket::bind(SocketAddr::new(bound.ip(), 0));
        again.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
    }

    fn keep(&mut self, state: &Rc<State>, relay: &Relay, is_chosen: bool, now: Instant) {
        if !state.reach.is_member(state, &relay.public_key) {
            return;
        }
        if let Some(index) = self.kept.iter().position(|kept| kept.relay.public_key == relay.public_key) {
            if self.kept[index].relay == *relay {
                self.kept[index].is_chosen |= is_chosen;
                self.kept[index].use_at(now);
                return;
            }
            // It has moved.
            self.carrier.remove_relay(self.kept.remove(index).key);
        }
        if !is_chosen && !self.make_room(now) {
            tracing::debug!(key = %relay.public_key, "a relay is not kept: too many are in use");
            return;
        }
        let state = Rc::downgrade(state);
        let newest_passport = move || {
            state.upgrade().map_or_else(Vec::new, |state| state.credentials.newest_passport().to_bytes())
        };
        let (address, id) = (relay.address, relay.public_key.into());
        let key = self.carrier.add_relay_shown(RelayAt::new(address, id), newest_passport);
        self.is_for_others |= !address.ip().is_loopback();
        self.kept.push(Kept { relay: relay.clone(), key, is_chosen, added_at: now, used_at: now });
    }

    /// Lets go of the relay that was used longest ago, if there are too many; whether there is room then. Those over which we
    /// are found stay, and those over which somebody is reached, or being dialled.
    fn make_room(&mut self, now: Instant) -> bool {
        let others = self.kept.iter().enumerate().filter(|(_, kept)| !kept.is_chosen);
        if others.clone().count() < KEPT_MAX {
            return true;
        }
        let carrier = &self.carrier;
        let idle = others.filter(|(_, kept)| now >= kept.used_at + DIAL_TIMEOUT && !carrier.uses(kept.key));
        let Some(index) = idle.min_by_key(|(_, kept)| kept.used_at).map(|(index, _)| index) else {
            return false;
        };
        self.carrier.remove_relay(self.kept.remove(index).key);
        true
    }

    /// Lets go of the relays that nobody needs.
    fn look_after(&mut self, chosen: &[Relay], now: Instant) {
        let carrier = &self.carrier;
        self.kept.retain_mut(|kept| {
            kept.is_chosen = chosen.contains(&kept.relay);
            let kept_for = if carrier.is_connected_to(kept.key) { KEPT_FOR } else { DIAL_TIMEOUT };
            let is_needed = kept.is_chosen || now < kept.used_at + kept_for || carrier.uses(kept.key);
            if !is_needed {
                carrier.remove_relay(kept.key);
            }
            is_needed
        });
    }
}

impl Kept {
    fn use_at(&mut self, now: Instant) -> RelayKey {
        self.used_at = now;
        self.key
    }
}

/// Where the peer at the other end of a connection of the carrier is, whenever that is asked; and when it has gone, where it was.
pub(crate) fn whereabouts(carrier: &Carrier, connection: &quic::Connection) -> Whereabouts {
    let way = carrier.way_of(connection);
    let last = Cell::new(way.path().unwrap_or(Path::Relayed));
    Whereabouts::ById(Rc::new(move || {
        last.set(way.path().unwrap_or(last.get()));
        last.get()
    }))
}

/// The relays at which the holder of that key says it is, apart from itself.
fn named_by(key: &PublicKey, places: &Places) -> Vec<PublicKey> {
    places.relays.iter().filter(|relay| *relay != key).copied().collect()
}

/// The relays that there are for us: members that were met, here or by an earlier run, and say of themselves that they relay.
fn known(state: &State) -> BTreeMap<PublicKey, Relay> {
    let own = &state.credentials.addresses;
    let is_of_this_machine = !own.is_empty() && own.iter().all(|own| own.ip().is_loopback());
    // Another machine's own address means nobody here.
    let is_of_no_machine = |own: &SocketAddr| !own.ip().is_loopback() && !own.ip().is_unspecified();
    let is_of_the_network = !own.is_empty() && own.iter().all(is_of_no_machine);
    let is_for_us = |relay: &Relay| {
        let is_out_of_reach =
            if relay.address.ip().is_loopback() { is_of_the_network } else { is_of_this_machine };
        state.reach.is_member(state, &relay.public_key) && !is_out_of_reach
    };
    let ways = state.ways.borrow().all();
    let remembered = ways.into_iter().filter_map(|way| match way {
        Bootstrap::Contact(contact) => Some(state.newest(&contact)),
        Bootstrap::Address(_) => None,
    });
    let mut relays: Vec<Relay> = remembered.filter_map(|contact| contact.as_relay()).collect();
    // What is in the table is newer.
    let table = state.table.borrow();
    relays.extend(table.entries().filter_map(|entry| Contact::as_relay(&entry.contact)));
    relays.extend(state.relaying.get().map(|relaying| relaying.described().clone()));
    relays.into_iter().filter(is_for_us).map(|relay| (relay.public_key, relay)).collect()
}

mod places;
#[cfg(test)]
mod tests;
