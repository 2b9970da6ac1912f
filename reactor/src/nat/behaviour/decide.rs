//! What the answers say about the router: functions of addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What a router's choice depends on, in the words of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// Not on the other end: everybody sees the same port, or gets in.
    Independent,
    /// On the other end's address.
    Address,
    /// On the other end's address and port: each conversation is one of its own.
    AddressAndPort,
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dependence::Independent => "endpoint independent",
            Dependence::Address => "address dependent",
            Dependence::AddressAndPort => "address and port dependent",
        })
    }
}

/// Where packets of one socket seemed to come from, to one of several servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who was asked.
    pub by: SocketAddr,
    /// What it answered.
    pub mapped: SocketAddr,
}

/// What the outside port depends on, by what several servers saw of one socket: two addresses of one server, or two
/// servers that have nothing to do with each other.
///
/// `None` where they do not suffice: all alike, and all from one address. Where they differ and no address was asked at two
/// of its ports, the worse is taken.
///
/// # Source
/// RFC 5780, section 4.3.
pub fn mapping_of(seen: &[Seen]) -> Option<Dependence> {
    let pairs =
        || seen.iter().enumerate().flat_map(|(at, one)| seen[at + 1..].iter().map(move |other| (one, other)));
    let differ = |(one, other): (&Seen, &Seen)| one.mapped != other.mapped;
    let is_of_one_address = |(one, other): (&Seen, &Seen)| one.by.ip() == other.by.ip() && one.by != other.by;
    if !pairs().any(differ) {
        return pairs().any(|(one, other)| one.by.ip() != other.by.ip()).then_some(Dependence::Independent);
    }
    let mut of_one_address = pairs().filter(|pair| is_of_one_address(*pair)).peekable();
    let is_known_to_ignore_ports = of_one_address.peek().is_some() && !of_one_address.any(differ);
    Some(if is_known_to_ignore_ports { Dependence::Address } else { Dependence::AddressAndPort })
}

/// Whom the router lets in, by which answers came to a socket that had sent to one place only.
///
/// # Source
/// RFC 5780, section 4.4.
pub fn filtering_of(from_another_address: bool, from_another_port: bool) -> Dependence {
    match (from_another_address, from_another_port) {
        (true, _) => Dependence::Independent,
        (false, true) => Dependence::Address,
        (false, false) => Dependence::AddressAndPort,
    }
}

/// Whether a server's other address is one that may be asked: at another address and port, of the same family, and not
/// within our own network. A server could name anybody, and we would send there.
pub(super) fn may_be_asked(server: SocketAddr, other: SocketAddr) -> bool {
    let (ip, own) = (other.ip().to_canonical(), server.ip().to_canonical());
    may_be_sent_to(server, other)
        && ip != own
        && ip.is_ipv4() == own.is_ipv4()
        && other.port() != server.port()
}

/// Whether an address that the server told may get a packet of ours: not one within our own network, when the server is
/// outside of it.
pub(super) fn may_be_sent_to(server: SocketAddr, told: SocketAddr) -> bool {
    !is_inside(told.ip().to_canonical()) || is_inside(server.ip().to_canonical())
}

/// Whether an address is of this machine or of its site, and so means another place to the server than to us.
fn is_inside(ip: IpAddr) -> bool {
    match ip {
        // 100.64.0.0/10 is a provider's own, behind which its customers share addresses (RFC 6598).
        IpAddr::V4(ip) => {
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(by: &str, port: u16) -> Seen {
        Seen { by: by.parse().unwrap(), mapped: SocketAddr::new("203.0.113.7".parse().unwrap(), port) }
    }

    #[test]
    fn the_three_mappings_of_rfc_5780() {
        let all = |ports: [u16; 3]| {
            let [a, b, c] = ports;
            mapping_of(&[seen("192.0.2.1:1", a), seen("192.0.2.2:1", b), seen("192.0.2.2:2", c)])
        };
        assert_eq!(all([5, 5, 5]), Some(Dependence::Independent));
        assert_eq!(all([5, 6, 6]), Some(Dependence::Address));
        assert_eq!(all([5, 6, 7]), Some(Dependence::AddressAndPort));
        // The same port again after another one is no independence.
        assert_eq!(all([5, 6, 5]), Some(Dependence::AddressAndPort));
        assert_eq!(all([5, 5, 6]), Some(Dependence::AddressAndPort));
    }

    #[test]
    fn two_servers_that_are_strangers_tell_easy_from_hard() {
        assert_eq!(
            mapping_of(&[seen("192.0.2.1:1", 5), seen("198.51.100.1:9", 5)]),
            Some(Dependence::Independent)
        );
        assert_eq!(
            mapping_of(&[seen("192.0.2.1:1", 5), seen("198.51.100.1:9", 6)]),
            Some(Dependence::AddressAndPort)
        );
    }

    #[test]
    fn one_address_alone_proves_no_independence() {
        assert_eq!(mapping_of(&[]), None);
        assert_eq!(mapping_of(&[seen("192.0.2.1:1", 5)]), None);
        assert_eq!(mapping_of(&[seen("192.0.2.1:1", 5), seen("192.0.2.1:2", 5)]), None);
        assert_eq!(
            mapping_of(&[seen("192.0.2.1:1", 5), seen("192.0.2.1:2", 6)]),
            Some(Dependence::AddressAndPort)
        );
    }

    #[test]
    fn the_three_filterings() {
        assert_eq!(filtering_of(true, true), Dependence::Independent);
        // The answer from the other port was lost.
        assert_eq!(filtering_of(true, false), Dependence::Independent);
        assert_eq!(filtering_of(false, true), Dependence::Address);
        assert_eq!(filtering_of(false, false), Dependence::AddressAndPort);
    }

    #[test]
    fn a_server_cannot_send_us_into_our_own_network_or_to_itself() {
        let may = |server: &str, other: &str| may_be_asked(server.parse().unwrap(), other.parse().unwrap());
        assert!(may("192.0.2.1:3478", "192.0.2.2:3479"));
        assert!(may("127.0.0.1:3478", "127.0.0.2:3479") && may("10.0.0.1:1", "192.168.0.1:2"));
        for other in [
            "192.0.2.1:3479",
            "192.0.2.2:3478",
            "127.0.0.1:22",
            "192.168.1.1:53",
            "169.254.0.1:5",
            "100.64.0.1:5",
            "100.127.255.255:5",
            "[2001:db8::2]:3479",
            "[::ffff:10.0.0.1]:5",
        ] {
            assert!(!may("192.0.2.1:3478", other), "{other}");
        }
        let sent = |server: &str, told: &str| may_be_sent_to(server.parse().unwrap(), told.parse().unwrap());
        assert!(sent("192.0.2.1:3478", "203.0.113.7:5") && sent("10.0.0.1:3478", "192.168.1.5:5"));
        assert!(!sent("192.0.2.1:3478", "127.0.0.1:5") && !sent("192.0.2.1:3478", "[::ffff:192.168.1.5]:5"));
        assert!(!may("[2001:db8::1]:1", "[::1]:2") && !may("[2001:db8::1]:1", "[fd00::1]:2"));
    }
}
