//! Who may come in: connections counted in all and by the address they come from, before they are admitted and after.
//!
//! A server that counts in all only is locked by one client that takes all places. Here each address has a share, and
//! those who have yet to prove who they are (a handshake, a password) a number of places of their own: strangers cannot
//! keep out those who are known. Where connections come from no address, over a relay say, but under keys that they have
//! proved, each key has the share.
//!
//! What it is not: a limit on what a connection costs once it is in, or on how long it may stay outside.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use crate::cell::RefCell;

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

/// Counts those who are in, by their addresses or by something else that tells one owner from another. Clones are the same
/// gate.
#[derive(Clone, Debug)]
pub struct Gate<Owner: Ord + Copy = IpAddr>(Rc<Book<Owner>>);

#[derive(Debug)]
struct Book<Owner> {
    limits: GateLimits,
    all: Cell<Counts>,
    by_owner: RefCell<BTreeMap<Owner, Counts>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    connections: usize,
    strangers: usize,
}

/// A connection's place. It is a stranger's until [`Guest::admit`], and given back when dropped.
#[derive(Debug)]
pub struct Guest<Owner: Ord + Copy = IpAddr> {
    gate: Gate<Owner>,
    owner: Option<Owner>,
    is_stranger: bool,
}

impl Gate {
    /// A gate with nobody inside, which counts by addresses.
    pub fn new(limits: GateLimits) -> Gate {
        Gate::of_owners(limits)
    }

    /// Lets a stranger in, if there is a place. One whose address is not known (a Unix socket's) counts in all only.
    pub fn knock(&self, address: Option<IpAddr>) -> Option<Guest> {
        self.knock_as(address.map(one_owner))
    }
}

impl<Owner: Ord + Copy> Gate<Owner> {
    /// A gate with nobody inside. An owner has what `limits` give to an address.
    pub fn of_owners(limits: GateLimits) -> Gate<Owner> {
        let (all, by_owner) = (Cell::default(), RefCell::default());
        Gate(Rc::new(Book { limits, all, by_owner }))
    }

    /// Lets a stranger in, if there is a place. One whose owner is not known counts in all only.
    pub fn knock_as(&self, owner: Option<Owner>) -> Option<Guest<Owner>> {
        let Book { limits, all, by_owner } = &*self.0;
        let here = owner.and_then(|owner| by_owner.borrow().get(&owner).copied()).unwrap_or_default();
        let in_all = all.get();
        let has_place = in_all.connections < limits.connections
            && in_all.strangers < limits.strangers
            && here.connections < limits.connections_per_address
            && here.strangers < limits.strangers_per_address;
        has_place.then(|| {
            self.count(owner, |counts| {
                counts.connections += 1;
                counts.strangers += 1;
            });
            Guest { gate: self.clone(), owner, is_stranger: true }
        })
    }

    /// How many are in, strangers among them.
    pub fn connection_count(&self) -> usize {
        self.0.all.get().connections
    }

    fn count(&self, owner: Option<Owner>, change: impl Fn(&mut Counts)) {
        let mut all = self.0.all.get();
        change(&mut all);
        self.0.all.set(all);
        let Some(owner) = owner else { return };
        let mut by_owner = self.0.by_owner.borrow_mut();
        let here = by_owner.entry(owner).or_default();
        change(here);
        if *here == Counts::default() {
            by_owner.remove(&owner);
        }
    }
}

impl<Owner: Ord + Copy> Guest<Owner> {
    /// It has proved who it is: its place among the strangers is free.
    pub fn admit(&mut self) {
        if std::mem::replace(&mut self.is_stranger, false) {
            self.gate.count(self.owner, |counts| counts.strangers -= 1);
        }
    }
}

impl<Owner: Ord + Copy> Drop for Guest<Owner> {
    fn drop(&mut self) {
        self.admit();
        self.gate.count(self.owner, |counts| counts.connections -= 1);
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
        assert!(gate.0.by_owner.borrow().is_empty(), "nothing is kept of those who have gone");
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

    #[test]
    fn who_comes_under_a_key_has_the_share_of_that_key() {
        let limits = GateLimits { strangers: 4, strangers_per_address: 3, ..GateLimits::UNBOUNDED };
        let gate: Gate<[u8; 32]> = Gate::of_owners(limits);
        let _three = [(); 3].map(|()| gate.knock_as(Some([1; 32])).unwrap());
        assert!(gate.knock_as(Some([1; 32])).is_none());
        let _other = gate.knock_as(Some([2; 32])).unwrap();
        assert!(gate.knock_as(Some([3; 32])).is_none(), "the strangers' places are taken");
    }
}
