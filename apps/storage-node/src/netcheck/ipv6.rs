//! Whether IPv6 works, by what was reached by it: an address and a route say little, since the network behind them may lead nowhere.
//!
//! Pure. What it is not: a question to anybody outside the network of members.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use reactor::net::is_of_the_internet;
use serde::Serialize;

/// Whether this machine's packets get to others by IPv6, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ipv6 {
    /// Somebody was reached by it.
    Works,
    /// A relay that says that it has it was asked, and nothing came back.
    NoAnswer,
    /// There is a way out by it, and nobody to be asked.
    NotTried,
    /// There is no way out by it.
    None,
}

impl Ipv6 {
    /// An address of the internet: whether there is a way there is asked, and nobody is sent anything.
    pub(super) const SOMEBODY: SocketAddr =
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1), 9, 0, 0));

    /// What was found: of relays, where they are and whether they have answered, and where nodes were reached. Who is in this
    /// machine's own network, or on it, says nothing.
    pub(super) fn found(
        has_way: bool,
        mut relays: impl Iterator<Item = (SocketAddr, bool)> + Clone,
        mut reached: impl Iterator<Item = SocketAddr>,
    ) -> Ipv6 {
        let is_by_v6 = |address: SocketAddr| address.is_ipv6() && is_of_the_internet(address.ip());
        let has_relay = relays.clone().any(|(address, _)| is_by_v6(address));
        if reached.any(is_by_v6) || relays.any(|(address, answers)| answers && is_by_v6(address)) {
            return Ipv6::Works;
        }
        match (has_way, has_relay) {
            (true, false) => Ipv6::NotTried,
            (true, true) => Ipv6::NoAnswer,
            (false, _) => Ipv6::None,
        }
    }

    pub(super) fn in_words(self) -> &'static str {
        match self {
            Ipv6::Works => "IPv6 gets out and back too",
            Ipv6::NoAnswer => "there is a way out by IPv6, and no relay answers by it",
            Ipv6::NotTried => "there is a way out by IPv6, and nobody to try it with",
            Ipv6::None => "no IPv6",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_where_somebody_was_reached_by_it_and_a_way_out_alone_says_little() {
        let outside = "[2a00::2]:4701";
        for (has_way, relays, reached, expected) in [
            (false, &[][..], &[][..], Ipv6::None),
            (true, &[], &[], Ipv6::NotTried),
            (true, &[("11.0.0.10:443", true)], &[], Ipv6::NotTried),
            (true, &[(outside, false)], &[], Ipv6::NoAnswer),
            (true, &[(outside, false), (outside, true)], &[], Ipv6::Works),
            (true, &[], &["192.168.1.2:9", outside], Ipv6::Works),
            // In one's own network, and on one's own machine.
            (true, &[], &["[fd00::1]:9", "[::1]:9"], Ipv6::NotTried),
        ] {
            let asked = relays.iter().map(|(address, answers)| (address.parse().unwrap(), *answers));
            let reached = reached.iter().map(|address| address.parse().unwrap());
            assert_eq!(Ipv6::found(has_way, asked, reached), expected, "{has_way} {relays:?}");
        }
    }
}
