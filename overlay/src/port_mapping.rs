//! Having the router let members in: the port where we listen, which then stands in our record, and that of the socket by which
//! members are reached by their ids, which they are told of as of our other addresses.
//!
//! The carrier is [`reactor::nat::mapping`]. This file says which ports of ours are to be mapped, what others see of our address,
//! and who is told what comes of it. The port where we listen is mapped from the start, also where there is no relay: it may be the
//! only way in. The other is once a relay on another machine is known, also for who listens to this machine only: by that relay
//! others reach him. Nothing is mapped for who does neither.
//!
//! An outside address is told when the relays that see us agree with the router about it, or when none has said where it sees us
//! within [`SEEN_WITHIN`]: then nobody can be sent there who would not have been told by the router's word alone.
//!
//! What it is not: a way in for strangers. Who comes by a mapped port is asked for its passport as anywhere.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::crypto::hash::sha3_256;
use reactor::nat::mapping::{Gateway, Mapper, Mapping, Port, Transport, Why, Wish};
use reactor::net::is_of_the_internet;

use crate::peers::Role;
use crate::state::State;
use crate::stating;

/// How long the word of a relay is waited for, once the router has mapped a port: a connection to it, and a question by UDP.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked for meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// See the module; empty for who maps nothing.
#[derive(Default)]
pub(crate) struct PortMapping {
    mapper: RefCell<Option<Rc<Mapper>>>,
    wishes: RefCell<Vec<Wish>>,
    /// Since when there is something to be told, and no relay has said where it sees us.
    unseen_since: Cell<Option<Instant>>,
    /// What our record says of it.
    listed: Cell<Option<SocketAddr>>,
}

impl PortMapping {
    /// What is mapped of our ports, and why not; nothing before ports are mapped, or for who has none. Never suspends.
    pub(crate) fn report(&self) -> Vec<(Port, Result<Mapping, Why>)> {
        let mapper = self.mapper.borrow();
        let wishes = self.wishes.borrow();
        let each =
            |mapper: &Rc<Mapper>| wishes.iter().map(|wish| (wish.port, mapper.mapping(wish.port))).collect();
        mapper.as_ref().map_or_else(Vec::new, each)
    }

    /// Our ports may be others now, or relays see us elsewhere. Never suspends.
    pub(crate) fn look(&self, state: &State) {
        let Some(mapper) = self.mapper.borrow().clone() else { return };
        let seen = state.reach.seen_from_outside();
        if !seen.is_empty() {
            // Where no relay is left, what they saw last is as good.
            mapper.seen_from_outside(seen);
        }
        let wishes = wishes(state);
        if *self.wishes.borrow() != wishes {
            mapper.wish(&wishes);
            self.wishes.replace(wishes);
        }
    }

    /// Gives up what is mapped.
    ///
    /// # Suspends
    /// Until the router was told, for two seconds at most; not at all if nobody has mapped ports.
    pub(crate) fn close(&self) {
        // Nobody else has it any more: the coroutine has ended.
        if let Some(mapper) = self.mapper.take().and_then(Rc::into_inner) {
            mapper.close();
        }
    }
}

/// Maps our ports, as long as it is not terminated.
///
/// # Suspends
/// Always.
pub(crate) fn run(state: &Rc<State>) {
    let mapping = &state.port_mapping;
    let mapper = Rc::new(Mapper::start(secret(&state.identity), Gateway::of_this_machine));
    mapping.mapper.replace(Some(mapper.clone()));
    loop {
        mapping.look(state);
        let version = mapper.version();
        // What changes is noticed by those who look at the relays (`reach.rs`).
        let is_told = tell(state, &mapper);
        mapper.wait_changed(version, (!is_told).then(|| reactor::now() + LOOK_AGAIN));
    }
}

/// Has others know what is mapped; whether that can wait for the next change.
///
/// # Suspends
/// Until our record is on disk, if it changes.
fn tell(state: &Rc<State>, mapper: &Mapper) -> bool {
    let mapping = &state.port_mapping;
    let is_seen = !state.reach.seen_from_outside().is_empty();
    let wishes = mapping.wishes.borrow().clone();
    let mapped = |transport| {
        let port = wishes.iter().map(|wish| wish.port).find(|port| port.transport == transport)?;
        mapper.mapping(port).ok().map(|mapping| SocketAddr::V4(mapping.external))
    };
    let (by_id, listed) = (mapped(Transport::Udp), mapped(Transport::Tcp));
    if !is_seen && state.reach.bound_for_others().is_some() && (by_id.is_some() || listed.is_some()) {
        let now = reactor::now();
        let since = mapping.unseen_since.get().unwrap_or(now);
        mapping.unseen_since.set(Some(since));
        if now < since + SEEN_WITHIN {
            return false;
        }
    } else {
        mapping.unseen_since.set(None);
    }
    state.reach.set_mapped(by_id);
    let before = mapping.listed.replace(listed);
    if before != listed {
        let own = state.credentials.addresses.clone();
        stating::restate(state, |says| {
            // Last: who is near reaches us better by our own, and a relay is at the first.
            says.addresses.retain(|address| before != Some(*address) || own.contains(address));
            says.addresses.extend(listed.filter(|listed| !says.addresses.contains(listed)));
        });
    }
    true
}

/// The ports that are of use to others.
fn wishes(state: &State) -> Vec<Wish> {
    let listening = state.credentials.addresses.first().filter(|_| state.credentials.role == Role::Storage);
    let by_id = state.reach.bound_for_others();
    let all = [(Transport::Tcp, listening.copied()), (Transport::Udp, by_id)];
    all.into_iter().filter_map(|(transport, bound)| wish(transport, bound?)).collect()
}

fn wish(transport: Transport, bound: SocketAddr) -> Option<Wish> {
    let ip = match bound.ip() {
        IpAddr::V4(ip) => ip,
        // At all addresses, of both families.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(_) => return None,
    };
    let port = Port { transport, number: bound.port() };
    let is_reached = !ip.is_loopback() && !is_of_the_internet(ip.into());
    is_reached.then_some(Wish { port, bound: Some(ip).filter(|ip| !ip.is_unspecified()) })
}

/// What the router knows us by, at each start: whoever has our key could have it, and nobody else.
fn secret(identity: &Identity) -> [u8; 32] {
    let signed = identity.sign(b"hypha port mapping secret 1: never shown to anybody");
    sha3_256(&[signed.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_this_machine_or_of_the_internet_needs_no_mapping() {
        let wished = |text: &str| wish(Transport::Tcp, text.parse().unwrap());
        for none in ["127.0.0.1:4701", "11.0.0.10:4701", "[fd00::1]:4701", "[::1]:4701"] {
            assert_eq!(wished(none), None, "{none}");
        }
        let port = Port { transport: Transport::Tcp, number: 4701 };
        assert_eq!(wished("192.168.1.11:4701"), Some(Wish { port, bound: Some([192, 168, 1, 11].into()) }));
        for all in ["0.0.0.0:4701", "[::]:4701"] {
            assert_eq!(wished(all), Some(Wish::any(port)));
        }
    }

    #[test]
    fn the_secret_is_the_same_each_time_and_every_members_own() {
        let of = |number| secret(&Identity::from_seed(&[number; 32]));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
