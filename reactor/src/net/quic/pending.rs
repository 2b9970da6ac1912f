//! Clients that nobody has accepted yet: how many, and how many of one address or peer. Pure.
//!
//! Without a bound for each address one client with many handshakes would keep all others out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::routes::virtual_number;
use super::{PENDING_MAX, PENDING_PER_ADDRESS_MAX, PENDING_PER_PEER_MAX, PENDING_RELAYED_MAX};

/// Where a client comes from, as far as it counts: of IPv6 the 64 bits of its network, since the rest is its own choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin(IpAddr);

impl Origin {
    pub(super) fn of(ip: IpAddr) -> Origin {
        Origin(match ip.to_canonical() {
            // A peer each.
            ip if virtual_number(ip).is_some() => ip,
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
            ip => ip,
        })
    }
}

impl Origin {
    fn is_relayed(self) -> bool {
        virtual_number(self.0).is_some()
    }

    /// How many of them there may be.
    fn share(self) -> usize {
        if self.is_relayed() { PENDING_PER_PEER_MAX } else { PENDING_PER_ADDRESS_MAX }
    }
}

#[derive(Default)]
pub(super) struct Pending {
    by_origin: BTreeMap<Origin, usize>,
    count: usize,
    relayed_count: usize,
}

impl Pending {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Counts another one; `false` where there is no place for it.
    pub(super) fn begin(&mut self, origin: Origin) -> bool {
        let of_origin = self.by_origin.get(&origin).copied().unwrap_or(0);
        let is_relayed = origin.is_relayed();
        let has_place = self.count < PENDING_MAX
            && of_origin < origin.share()
            && !(is_relayed && self.relayed_count >= PENDING_RELAYED_MAX);
        if has_place {
            self.count += 1;
            self.relayed_count += usize::from(is_relayed);
            self.by_origin.insert(origin, of_origin + 1);
        }
        has_place
    }

    /// One that began has been accepted, or is gone.
    pub(super) fn end(&mut self, origin: Origin) {
        let Some(of_origin) = self.by_origin.get_mut(&origin) else { return };
        self.count -= 1;
        self.relayed_count -= usize::from(origin.is_relayed());
        *of_origin -= 1;
        if *of_origin == 0 {
            self.by_origin.remove(&origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::virtual_address;
    use super::*;

    #[test]
    fn one_address_cannot_take_the_places_of_all() {
        let mut pending = Pending::default();
        let (one, other) = (Origin::of([192, 0, 2, 1].into()), Origin::of([192, 0, 2, 2].into()));
        let begun = (0..PENDING_MAX).filter(|_| pending.begin(one)).count();
        assert_eq!((begun, pending.count()), (PENDING_PER_ADDRESS_MAX, PENDING_PER_ADDRESS_MAX));
        assert!(pending.begin(other));
        pending.end(one);
        assert!(pending.begin(one) && !pending.begin(one));
    }

    #[test]
    fn many_addresses_get_no_more_than_all_places_and_leave_nothing_behind() {
        let mut pending = Pending::default();
        let origins: Vec<Origin> = (0..=255).map(|last| Origin::of([192, 0, 2, last].into())).collect();
        let begun =
            origins.iter().cycle().take(2 * PENDING_MAX).filter(|origin| pending.begin(**origin)).count();
        assert_eq!(begun, PENDING_MAX);
        origins.iter().for_each(|origin| pending.end(*origin));
        assert!(pending.count() == 0 && pending.by_origin.is_empty());
    }

    #[test]
    fn a_relay_that_makes_peers_up_leaves_room_for_others() {
        let mut pending = Pending::default();
        let relayed: Vec<Origin> =
            (0..1_000).map(|number| Origin::of(virtual_address(number).ip())).collect();
        assert_eq!(relayed.iter().filter(|origin| pending.begin(**origin)).count(), PENDING_RELAYED_MAX);
        assert!(pending.begin(Origin::of([192, 0, 2, 1].into())));
        pending.end(relayed[0]);
        assert!(pending.begin(relayed[999]) && !pending.begin(relayed[998]));
        // Nor do few who come again and again take them all.
        let mut pending = Pending::default();
        let few = relayed.iter().take(4).cycle().take(4 * PENDING_RELAYED_MAX);
        let begun = few.filter(|origin| pending.begin(**origin)).count();
        assert_eq!(begun, 4 * PENDING_PER_PEER_MAX);
        assert!(pending.begin(relayed[4]));
    }

    #[test]
    fn a_network_of_ipv6_is_one_origin() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
    }
}
