//! Which of two addresses of a peer is better, and what an address tells of what stands before it. Pure.
//!
//! One in a network that both are in is better than IPv6, which no router translates, and that is better than what a router lends
//! (RFC 8445, section 5.1.2, in spirit): as long as it takes not much longer, since all interfaces of a machine are tried, and one
//! may be a tunnel.
//!
//! What it is not: a choice of what is tried, which is all.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A difference that nobody notices, whatever one is several times as much as: in one network all takes less than a millisecond.
const UNNOTICED: Duration = Duration::from_millis(10);

/// Those of one's own network come first: nearer, and no router has to be asked.
pub(in super::super) fn is_near(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// How good a kind of address is to be reached by, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// In a network, or a machine, that both are in.
    Near,
    /// As the machine has it, and no router keeps in mind whose it is.
    V6,
    /// Of a router's, most often.
    V4,
}

impl Rank {
    fn of(address: SocketAddr) -> Rank {
        match address.ip() {
            ip if ip.is_loopback() || is_near(address) => Rank::Near,
            IpAddr::V6(_) => Rank::V6,
            IpAddr::V4(_) => Rank::V4,
        }
    }

    /// A worse one has to be so many times as fast to be as good.
    fn is_worth(self) -> u32 {
        match self {
            Rank::Near => 4,
            Rank::V6 => 2,
            Rank::V4 => 1,
        }
    }
}

/// Whether an address is to be taken in place of the one that is in use, by what a packet takes to each and back. Not for a little:
/// each change costs the connection what it knows of the way.
pub(super) fn is_better(
    (address, takes): (SocketAddr, Duration),
    (chosen, other): (SocketAddr, Duration),
) -> bool {
    let (rank, of_chosen) = (Rank::of(address), Rank::of(chosen));
    match rank.cmp(&of_chosen) {
        Ordering::Less => takes <= other.saturating_mul(rank.is_worth()) + UNNOTICED,
        Ordering::Equal => takes < other / 2,
        Ordering::Greater => takes.saturating_mul(2 * of_chosen.is_worth()) + UNNOTICED < other,
    }
}

/// Whether a router of that address may be one that lends ports: nobody's own, and no provider's inside (RFC 6598). By IPv6
/// there are none.
pub(in super::super) fn may_lend_ports(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            !is_near(address) && !ip.is_loopback() && !is_shared
        }
        IpAddr::V6(_) => false,
    }
}
