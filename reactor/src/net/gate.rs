//! Who may come in: connections counted in all and by the address they come from, before they are admitted and after.
//!
//! A server that counts in all only is locked by one client that takes all places. Here each address has a share, and
//! those who have yet to prove who they are (a handshake, a password) a number of places of their own: strangers cannot
//! keep out those who are known.
//!
//! What it is not: a limit on what a connection costs once it is in, or on how long it may stay outside.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// How many may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// Connections at once.
    pub connections: usize,
    /// Of these, from one address, or from one /64 of IPv6, which is what one customer of a provider has.
    pub connections_per_address: usize,
    /// Connections at once that have not been admitted.
    pub strangers: usize,
    /// Of these, from one address.
    pub strangers_per_address: usize,
}

impl GateLimits {
    /// No limits: to be filled in.
    pub const UNBOUNDED: GateLimits = GateLimits {
        connections: usize::MAX,
        connections_per_address: usize::MAX,
        strangers: usize::MAX,
        strangers_per_address: usize::MAX,
    };
}

/// Counts those who are in. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Rc<Book>);

#[derive(Debug)]
struct Book {
    limits: GateLimits,
    all: Cell<Counts>,
    by_address: RefCell<BTreeMap<IpAddr, Counts>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    connections: usize,
    strangers: usize,
}

/// A connection's place. It is a stranger's until [`Guest::admit`], and given back when dropped.
#[derive(Debug)]
pub struct Guest {
    gate: Gate,
    address: Option<IpAddr>,
    is_stranger: bool,
}

impl Gate {
    /// A gate with nobody inside.
    pub fn new(limits: GateLimits) -> Gate {
        let (all, by_address) = (Cell::default(), RefCell::default());
        Gate(Rc::new(Book { limits, all, by_address }))
    }

    /// Lets a stranger in, if there is a place. One whose address is not known (a Unix socket's) counts in all only.
    pub fn knock(&self, address: Option<IpAddr>) -> Option<Guest> {
        let Book { limits, all, by_address } = &*self.0;
        let address = address.map(one_owner);
        let here = address.and_then(|address| by_address.borrow().get(&address).copied()).unwrap_or_default();
        let in_all = all.get();
        let has_place = in_all.connections < limits.connections
            && in_all.strangers < limits.strangers
            && here.connections < limits.connections_per_address
            && here.strangers < limits.strangers_per_address;
        has_place.then(|| {
            self.count(address, |counts| {
                counts.connections += 1;
                counts.strangers += 1;
            });
            Guest { gate: self.clone(), address, is_stranger: true }
        })
    }

    /// How many are in, strangers among them.
    pub fn connection_count(&self) -> usize {
        self.0.all.get().connections
    }

    fn count(&self, address: Option<IpAddr>, change: impl Fn(&mut Counts)) {
        let mut all = self.0.all.get();
        change(&mut all);
        self.0.all.set(all);
        let Some(address) = address else { return };
        let mut by_address = self.0.by_address.borrow_mut();
        let here = by_address.entry(address).or_default();
        change(here);
        if *here == Counts::default() {
            by_address.remove(&address);
        }
    }
}

impl Guest {
    /// It has proved who it is: its place among the strangers is free.
    pub fn admit(&mut self) {
        if std::mem::replace(&mut self.is_stranger, false) {
            self.gate.count(self.address, |counts| counts.strangers -= 1);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.admit();
        self.gate.count(self.address, |counts| counts.connections -= 1);
    }
}

/// What belongs to one owner: an address of IPv4, 2^64 of IPv6.
fn one_owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn one_address_cannot_take_the_places_of_all() {
        let gate =
            Gate::new(GateLimits { connections: 4, connections_per_address: 2, ..GateLimits::UNBOUNDED });
        let mut guests =
            vec![gate.knock(ip("192.0.2.1")).unwrap(), gate.knock(ip("::ffff:192.0.2.1")).unwrap()];
        assert!(gate.knock(ip("192.0.2.1")).is_none(), "however it is written");
        guests.push(gate.knock(ip("2001:db8:0:1::1")).unwrap());
        guests.push(gate.knock(ip("2001:db8:0:1:ffff::9")).unwrap());
        assert!(gate.knock(ip("2001:db8:0:2::1")).is_none(), "it is full");
        assert!(gate.knock(None).is_none());
        guests.clear();
        assert_eq!(gate.connection_count(), 0);
        assert!(gate.0.by_address.borrow().is_empty(), "nothing is kept of those who have gone");
    }

    #[test]
    fn strangers_leave_the_places_of_those_who_are_known() {
        let limits = GateLimits { strangers: 3, strangers_per_address: 2, ..GateLimits::UNBOUNDED };
        let gate = Gate::new(limits);
        let mut first = gate.knock(ip("192.0.2.1")).unwrap();
        let _second = gate.knock(ip("192.0.2.1")).unwrap();
        assert!(gate.knock(ip("192.0.2.1")).is_none());
        first.admit();
        first.admit();
        let _third = gate.knock(ip("192.0.2.1")).unwrap();
        let fourth = gate.knock(ip("192.0.2.2")).unwrap();
        assert!(gate.knock(ip("192.0.2.3")).is_none());
        drop(fourth);
        assert!(gate.knock(ip("192.0.2.3")).is_some());
    }
}
