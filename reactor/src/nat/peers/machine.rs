//! Which of this machine's own addresses peers are told: two who have IPv6 meet by it though they know one relay by IPv4 only,
//! and two in one network by another interface than that which leads to the relay.
//!
//! Of each network it is the address from which packets leave: a firewall lets in what answers those, and nothing that is sent
//! to another. So the kernel's own choice (RFC 6724) is asked for, which prefers temporary addresses of IPv6 (RFC 8981)
//! where the machine is set up so; others are told to nobody then.
//!
//! Who is admitted learns by it in which networks this machine is (`Peers::admit`), and nobody else does: what is told is sealed.
//!
//! What it is not: the order in which they are tried, which is all at once, or that in which they are preferred (`paths.rs`).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::core::Core;
use super::message::CANDIDATES_MAX;
use crate::net::{OwnAddress, is_of_the_internet, own_addresses, source_towards};

/// The part of an address of IPv6 that is its network's, whatever the prefix: networks are given out so (RFC 4291, section 2.5.1).
const NETWORK_MASK: u128 = !(u64::MAX as u128);

/// Somebody in a network of IPv6, whom nobody has to be: it is asked how one would send there.
const SOMEBODY: u128 = 0x5a5a_5a5a_5a5a_5a5a;

impl Core {
    /// Finds out at which addresses this machine is now, if the endpoint is bound to all of them, and has peers told.
    pub(super) fn learn_machine(&self, bound: SocketAddr) {
        if !bound.ip().is_unspecified() {
            return;
        }
        let all = match own_addresses() {
            Ok(all) => all,
            Err(error) => return tracing::debug!("this machine's addresses are not known: {error}"),
        };
        let source = |there| source_towards(SocketAddr::new(there, 9)).ok();
        let mut chosen = chosen(&all, source);
        chosen.retain(|ip| bound.is_ipv6() || ip.is_ipv4());
        chosen.truncate(CANDIDATES_MAX);
        let addresses: Vec<SocketAddr> = chosen.iter().map(|ip| SocketAddr::new(*ip, bound.port())).collect();
        let earlier = self.machine.replace(addresses.clone());
        if earlier.iter().any(|gone| !addresses.contains(gone)) {
            self.doubt_direct_ways();
        }
        if earlier != addresses {
            tracing::debug!("this machine is at {addresses:?}");
            self.start_over();
        }
    }
}

/// The addresses that peers are told, the best first. `source` says from which one packets would leave for there.
fn chosen(all: &[OwnAddress], source: impl Fn(IpAddr) -> Option<IpAddr>) -> Vec<IpAddr> {
    let usable: Vec<&OwnAddress> = all.iter().filter(|own| own.is_usable() && !own.is_secondary()).collect();
    let mut chosen: Vec<&OwnAddress> = Vec::new();
    for own in &usable {
        let network = |other: &OwnAddress| (other.interface, network_of(other.ip));
        let beside = || usable.iter().filter(|other| network(other) == network(own));
        let is_meant = match own.ip {
            IpAddr::V6(ip) if beside().count() > 1 => {
                let somebody = Ipv6Addr::from_bits(ip.to_bits() & NETWORK_MASK | SOMEBODY);
                // Where the kernel has no way there, as temporary ones are meant.
                let left = source(somebody.into()).filter(|left| beside().any(|other| other.ip == *left));
                let temporary = || beside().find(|other| other.is_temporary()).or(beside().next());
                left.or_else(|| temporary().map(|other| other.ip)) == Some(own.ip)
            }
            _ => true,
        };
        if is_meant && !chosen.iter().any(|other| other.ip == own.ip) {
            chosen.push(own);
        }
    }
    // By IPv6 the two may be anywhere; and the first interfaces are a machine's own, those behind them made by programs.
    chosen.sort_by_key(|own| (!(own.ip.is_ipv6() && is_of_the_internet(own.ip)), own.interface));
    chosen.iter().map(|own| own.ip).collect()
}

fn network_of(ip: IpAddr) -> Option<u128> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip.to_bits() & NETWORK_MASK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPORARY: u32 = 0x01;
    const TENTATIVE: u32 = 0x40;

    fn own(ip: &str, interface: u32, flags: u32) -> OwnAddress {
        OwnAddress { ip: ip.parse().unwrap(), interface, prefix_bits: 64, flags, scope: 0 }
    }

    /// A kernel that sends from the address given, and nowhere else.
    fn sending_from(ip: &str) -> impl Fn(IpAddr) -> Option<IpAddr> {
        let ip: IpAddr = ip.parse().unwrap();
        move |there| (network_of(there) == network_of(ip)).then_some(ip)
    }

    fn chosen_of(all: &[OwnAddress], source: impl Fn(IpAddr) -> Option<IpAddr>) -> Vec<String> {
        chosen(all, source).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn addresses_of_all_interfaces_are_told_of_ipv6_in_the_internet_first() {
        let all = [
            own("127.0.0.1", 1, 0),
            own("::1", 1, 0),
            own("172.17.0.1", 9, 0),
            own("192.168.1.2", 2, 0),
            own("192.168.1.3", 2, TEMPORARY), // of IPv4 that is a second one in the same network
            own("fe80::7", 2, 0),
            own("fd00::7", 2, 0),
            own("2a00::7", 2, 0),
            own("2a00:0:0:1::7", 3, TENTATIVE),
            own("10.7.0.1", 3, 0),
        ];
        let none = |_| None;
        assert_eq!(chosen_of(&all, none), ["2a00::7", "192.168.1.2", "fd00::7", "10.7.0.1", "172.17.0.1"]);
        assert!(chosen_of(&[], none).is_empty());
    }

    #[test]
    fn of_each_network_of_ipv6_the_address_is_told_from_which_packets_leave() {
        let (stable, temporary, other) = ("2a00::7", "2a00::1234", "fd00::7");
        let all = [own(stable, 2, 0), own(temporary, 2, TEMPORARY), own(other, 2, 0)];
        assert_eq!(chosen_of(&all, sending_from(temporary)), [temporary, other]);
        assert_eq!(chosen_of(&all, sending_from(stable)), [stable, other], "it is set up so");
        assert_eq!(chosen_of(&all, |_| None), [temporary, other], "nobody knows by whom to be followed");
        // Whatever the kernel says, it is one of those that there are.
        assert_eq!(chosen_of(&all, sending_from("2a00::99")), [temporary, other]);
        // In the same network by two interfaces, each is a way.
        let both = [own(stable, 2, 0), own(temporary, 3, 0)];
        assert_eq!(chosen_of(&both, sending_from(stable)), [stable, temporary]);
    }
}
