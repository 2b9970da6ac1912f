//! Whether this network's router lets members in: by a port of this command's own, which is given back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use reactor::nat::mapping::{Gateway, Mapper, Mapping, Port, Transport, Why, Wish};
use reactor::net::UdpSocket;
use serde::Serialize;

use crate::cli::MappingOption;

/// The longest that it takes to learn that a router speaks none of the protocols: 2 s each for PCP and NAT-PMP, and as much for
/// a search by UPnP; its calls take longer where the router is slow.
const LIMIT: Duration = Duration::from_secs(8);

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct MappingCheck {
    /// Whether the router lets members in that come from outside.
    pub(super) works: bool,
    /// `PCP`, `NAT-PMP` or `UPnP`.
    protocol: Option<String>,
    /// Where it mapped a port of this machine's to.
    external: Option<SocketAddrV4>,
    /// For how long, before it is renewed; none with `works` for as long as it is not given back.
    lifetime_s: Option<u64>,
    /// Why not.
    why: Option<String>,
}

impl MappingCheck {
    fn of(outcome: Result<Mapping, String>) -> MappingCheck {
        match outcome {
            Ok(Mapping { external, protocol, lifetime_s }) => MappingCheck {
                works: true,
                protocol: Some(protocol.to_string()),
                external: Some(external),
                lifetime_s,
                why: None,
            },
            Err(why) => MappingCheck {
                works: false,
                protocol: None,
                external: None,
                lifetime_s: None,
                why: Some(why),
            },
        }
    }

    /// For people.
    pub(super) fn in_words(&self) -> String {
        let (Some(protocol), Some(external)) = (&self.protocol, self.external) else {
            return format!("no, {}", self.why.as_deref().unwrap_or("and nothing says why"));
        };
        let long = self
            .lifetime_s
            .map_or("until it is given back".into(), |seconds| format!("{} min at a time", seconds / 60));
        format!("by {protocol}, as {external}, {long}")
    }
}

/// A mapping that is being tried.
pub(super) struct Trial {
    port: Port,
    mapper: Mapper,
    /// Its port is what is mapped.
    _socket: UdpSocket,
}

impl Trial {
    /// Begins to ask the router for one, if it may be asked. `is_elsewhere` says whether there is a node on another machine. What
    /// was begun is to be ended. Never suspends.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn begin(mapping: MappingOption, is_elsewhere: bool) -> Result<Trial, String> {
        if !mapping.is_on() {
            return Err("the router is not asked (--no-port-mapping)".into());
        }
        if !is_elsewhere {
            return Err("the router is not asked, since all nodes are on this machine".into());
        }
        let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
            .map_err(|error| error.to_string())?;
        let number = socket.local_addr().map_err(|error| error.to_string())?.port();
        let port = Port { transport: Transport::Udp, number };
        let mapper = Mapper::start(reactor::crypto::random_bytes(), Gateway::of_this_machine);
        mapper.wish(&[Wish::any(port)]);
        Ok(Trial { port, mapper, _socket: socket })
    }

    /// Waits until it is known what the router says, which is looked at again when it is known where others see us.
    ///
    /// # Suspends
    /// Until then, or for [`LIMIT`] since `began`.
    pub(super) fn wait(&self, began: Instant) {
        let _: Result<Mapping, Why> = self.mapper.settled(self.port, began + LIMIT);
    }

    /// What came of it, now that it is known where relays see this machine.
    ///
    /// # Suspends
    /// Until the port is given back, for two seconds at most.
    pub(super) fn end(self, seen_as: &[SocketAddr]) -> Result<Mapping, String> {
        let seen = seen_as.iter().filter_map(|seen| match seen.ip().to_canonical() {
            IpAddr::V4(seen) => Some(seen),
            IpAddr::V6(_) => None,
        });
        self.mapper.seen_from_outside(seen.collect());
        let outcome = self.mapper.mapping(self.port).map_err(|why| why.to_string());
        self.mapper.close();
        outcome
    }
}

/// What a trial found.
///
/// # Suspends
/// As [`Trial::end`].
pub(super) fn outcome(trial: Result<Trial, String>, seen_as: &[SocketAddr]) -> MappingCheck {
    MappingCheck::of(trial.and_then(|trial| trial.end(seen_as)))
}

#[cfg(test)]
mod tests {
    use reactor::nat::mapping::Protocol;

    use super::*;

    #[test]
    fn it_says_by_what_and_for_how_long_or_why_not() {
        let external = "11.0.1.2:4701".parse().unwrap();
        let mapping = Mapping { external, protocol: Protocol::NatPmp, lifetime_s: Some(3_600) };
        assert_eq!(
            MappingCheck::of(Ok(mapping)).in_words(),
            "by NAT-PMP, as 11.0.1.2:4701, 60 min at a time"
        );
        let why = Why::Private { protocol: Protocol::Pcp, external: Ipv4Addr::new(100, 64, 0, 2) };
        let words = MappingCheck::of(Err(why.to_string())).in_words();
        assert!(
            words.starts_with(
                "no, the router has no address of the internet itself (by PCP it says 100.64.0.2)"
            ),
            "{words}"
        );
    }
}
