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

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::core::Core;
use super::message::CANDIDATES_MAX;
use super::paths::Paths;
use crate::net::{OwnAddress, is_of_the_internet, own_addresses, source_towards};
use crate::now;

/// The part of an address of IPv6 that is its network's, whatever the prefix: networks are given out so (RFC 4291, section 2.5.1).
const NETWORK_MASK: u128 = !(u64::MAX as u128);

/// Somebody in a network of IPv6, whom nobody has to be: it is asked how one would send there.
const SOMEBODY: u128 = 0x5a5a_5a5a_5a5a_5a5a;

/// At least so long from one time that peers are tried again since this machine has another address to the next: where containers
/// come and go, addresses do five times a second. What is not tried at once is told at the next round of itself.
const TRIED_AGAIN_EACH: Duration = Duration::from_secs(10);

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
        let chosen = chosen(&all, bound.is_ipv6(), source);
        let addresses: Vec<SocketAddr> = chosen.iter().map(|ip| SocketAddr::new(*ip, bound.port())).collect();
        let earlier = self.machine.replace(addresses.clone());
        if earlier == addresses {
            return;
        }
        tracing::debug!("this machine is at {addresses:?}");
        let follows = follows(&earlier, &addresses, &mut self.tried_again.borrow_mut(), now());
        if follows.doubts {
            self.on_each(Paths::doubt);
        }
        match follows.tries {
            Tries::Nothing => {}
            Tries::Round => self.on_each(Paths::start_over),
            Tries::All => self.start_over(),
        }
        self.tell();
    }
}

/// When peers were last tried again for an address of the internet, and for any other.
#[derive(Default)]
pub(super) struct TriedAgain([Option<Instant>; 2]);

/// What follows from the addresses that this machine has now.
#[derive(Debug, PartialEq, Eq)]
struct Follows {
    /// What goes directly may have left from one that is gone.
    doubts: bool,
    tries: Tries,
}

#[derive(Debug, PartialEq, Eq)]
enum Tries {
    Nothing,
    /// A round, in which all addresses are told.
    Round,
    /// And what was given up, or searched in vain, since the internet may reach us by another way.
    All,
}

/// Pure.
fn follows(earlier: &[SocketAddr], now_at: &[SocketAddr], tried: &mut TriedAgain, now: Instant) -> Follows {
    let doubts = earlier.iter().any(|gone| !now_at.contains(gone));
    let new: Vec<IpAddr> = now_at.iter().filter(|at| !earlier.contains(at)).map(SocketAddr::ip).collect();
    let is_global = new.iter().any(|ip| is_of_the_internet(*ip));
    let last = &mut tried.0[usize::from(is_global)];
    let is_early = last.is_some_and(|last| now < last + TRIED_AGAIN_EACH);
    if new.is_empty() || is_early {
        return Follows { doubts, tries: Tries::Nothing };
    }
    *last = Some(now);
    Follows { doubts, tries: if is_global { Tries::All } else { Tries::Round } }
}

/// The addresses that peers are told, the best first, and no more than they are told. `source` says from which one packets would leave
/// for there; of each network it is asked once.
fn chosen(all: &[OwnAddress], has_v6: bool, source: impl Fn(IpAddr) -> Option<IpAddr>) -> Vec<IpAddr> {
    let is_of_use =
        |own: &&OwnAddress| own.is_usable() && !own.is_secondary() && (has_v6 || own.ip.is_ipv4());
    let mut usable: Vec<&OwnAddress> = all.iter().filter(is_of_use).collect();
    // By IPv6 the two may be anywhere; and the first interfaces are a machine's own, those behind them made by programs.
    usable.sort_by_key(|own| (!(own.ip.is_ipv6() && is_of_the_internet(own.ip)), own.interface));
    let network = |own: &OwnAddress| (own.interface, network_of(own.ip));
    let (mut chosen, mut looked_at): (Vec<IpAddr>, BTreeSet<_>) = Default::default();
    for own in &usable {
        if chosen.len() == CANDIDATES_MAX {
            break;
        }
        let meant = match own.ip {
            IpAddr::V4(_) => own.ip,
            IpAddr::V6(_) if !looked_at.insert(network(own)) => continue,
            IpAddr::V6(ip) => {
                let beside: Vec<&OwnAddress> =
                    usable.iter().filter(|other| network(other) == network(own)).copied().collect();
                meant_of(&beside, ip, &source)
            }
        };
        if !chosen.contains(&meant) {
            chosen.push(meant);
        }
    }
    chosen
}

/// Which of the addresses of one network of IPv6 is meant; `first` is one of them.
fn meant_of(beside: &[&OwnAddress], first: Ipv6Addr, source: impl Fn(IpAddr) -> Option<IpAddr>) -> IpAddr {
    if beside.len() == 1 {
        return first.into();
    }
    let somebody = Ipv6Addr::from_bits(first.to_bits() & NETWORK_MASK | SOMEBODY);
    let left = source(somebody.into()).filter(|left| beside.iter().any(|other| other.ip == *left));
    // Where the kernel has no way there, as temporary ones are meant.
    let temporary = || beside.iter().find(|other| other.is_temporary()).map(|other| other.ip);
    left.or_else(temporary).unwrap_or(first.into())
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
        chosen(all, true, source).iter().map(IpAddr::to_string).collect()
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

    #[test]
    fn however_many_addresses_there_are_the_kernel_is_asked_of_few_networks() {
        let asked = std::cell::Cell::new(0);
        let count = |_| {
            asked.set(asked.get() + 1);
            None
        };
        // Many in one network, and two in each of many.
        let one: Vec<OwnAddress> = (0..250).map(|host| own(&format!("2a00::{host:x}"), 2, 0)).collect();
        assert_eq!((chosen_of(&one, count), asked.take()), (vec!["2a00::".to_owned()], 1));
        let many: Vec<OwnAddress> =
            (0..250).map(|host| own(&format!("2a00:0:0:{:x}::{host:x}", host / 2), 2, 0)).collect();
        assert_eq!((chosen_of(&many, count).len(), asked.take()), (CANDIDATES_MAX, CANDIDATES_MAX));
        let v4: Vec<OwnAddress> = (0..250).map(|host| own(&format!("10.0.{host}.1"), 2, 0)).collect();
        assert_eq!((chosen_of(&v4, count).len(), asked.take()), (CANDIDATES_MAX, 0));
        assert!(chosen(&one, false, count).is_empty(), "of no family that it is bound to");
    }

    #[test]
    fn what_was_searched_in_vain_is_tried_anew_for_an_address_of_the_internet_only_and_nothing_too_often() {
        let [home, global, container, other] = ["192.168.1.2", "2a00::7", "172.18.0.1", "172.19.0.1"]
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 9));
        let (mut tried, start) = (TriedAgain::default(), now());
        let mut at = |earlier: &[SocketAddr], now_at: &[SocketAddr], ms: u64| {
            let follows = follows(earlier, now_at, &mut tried, start + Duration::from_millis(ms));
            (follows.doubts, follows.tries)
        };
        assert_eq!(at(&[home], &[home, container], 0), (false, Tries::Round));
        // The next ones come at once, and go.
        assert_eq!(at(&[home, container], &[home, container, other], 200), (false, Tries::Nothing));
        assert_eq!(at(&[home, container, other], &[home, container], 400), (true, Tries::Nothing));
        assert_eq!(at(&[home, container], &[global, home, container], 600), (false, Tries::All));
        assert_eq!(at(&[home], &[global, home], 9_999), (false, Tries::Nothing));
        assert_eq!(at(&[home], &[home, other], 10_001), (false, Tries::Round));
        assert_eq!(at(&[home], &[global], 10_601), (true, Tries::All));
        assert_eq!(at(&[home, global], &[global, home], 99_999), (false, Tries::Nothing), "another order");
    }
}
