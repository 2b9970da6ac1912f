//! Having a router let in what comes to some ports of ours: PCP, NAT-PMP, and UPnP.
//!
//! A router that maps a port sends on to it whatever comes to an outside port of its own: who is behind one that would show each
//! peer another port can be reached then as if it were outside. [`Mapper`] keeps such mappings for as long as it is kept itself:
//!
//! ```no_run
//! use std::time::Duration;
//! use reactor::nat::mapping::{Gateway, Mapper, Port, Transport, Wish};
//! use reactor::net::UdpSocket;
//!
//! reactor::run(|| {
//!     let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
//!     let port = Port { transport: Transport::Udp, number: socket.local_addr().unwrap().port() };
//!     let mapper = Mapper::start([7; 32], Gateway::of_this_machine);
//!     mapper.wish(&[Wish::any(port)]);
//!     match mapper.settled(port, reactor::now() + Duration::from_secs(10)) {
//!         Ok(mapping) => println!("others reach us at {}, by {}", mapping.external, mapping.protocol),
//!         Err(why) => println!("no mapping: {why}"),
//!     }
//!     mapper.close();
//! });
//! ```
//!
//! A mapping is asked for again at half its life; the router is asked each minute whether it still is the one that it was, and
//! when it has begun anew, so do the mappings. A network that is changed for another is noticed when the kernel says so, or within a
//! minute. At an orderly end the mappings are given up, with whatever the router may have kept of earlier ones.
//!
//! What is believed: nothing that a router says is proved. Its answers count if they come from its address, to the port of a
//! socket that asked it, with the nonce where there is one; they are no longer than a packet, or 64 KiB of HTTP. An outside
//! address is told only if it is of the internet, and if it is one of those at which others see us, where somebody does
//! ([`Mapper::seen_from_outside`]): so neither a second router before the first, nor one that lies, has anybody sent elsewhere. No
//! lease is believed for longer than an hour.
//!
//! Layers: `pcp.rs`, `nat_pmp.rs`, `ssdp.rs`, `igd.rs`, `xml.rs`, `epoch.rs`, `lease.rs` and `ports.rs` are pure; `ask.rs`, `upnp.rs` and
//! `router.rs` talk to a router; `keeper.rs` is the one coroutine.
//!
//! What being idle costs: a packet to the router and one back, each minute; by UPnP two calls for each mapping.
//!
//! What it is not: pinholes for IPv6, or the router of a provider behind the first.

mod ask;
mod epoch;
mod gateway;
pub mod igd;
mod keeper;
mod lease;
pub mod nat_pmp;
pub mod pcp;
mod ports;
mod router;
pub mod ssdp;
mod upnp;
mod xml;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

pub use self::gateway::{Gateway, default_route};
pub use self::keeper::{Mapper, Wish};
use crate::net::is_of_the_internet;

/// By what packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

impl Transport {
    /// Its number (IANA's registry of protocols).
    fn number(self) -> u8 {
        match self {
            Transport::Udp => 17,
            Transport::Tcp => 6,
        }
    }

    fn of(number: u8) -> Option<Transport> {
        [Transport::Udp, Transport::Tcp].into_iter().find(|transport| transport.number() == number)
    }

    fn name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        }
    }
}

/// A port of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// By what packets come to it.
    pub transport: Transport,
    /// Its number.
    pub number: u16,
}

/// How a router was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// UPnP's Internet Gateway Device.
    Upnp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Pcp => "PCP",
            Protocol::NatPmp => "NAT-PMP",
            Protocol::Upnp => "UPnP",
        })
    }
}

/// A mapping that is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where others reach the port.
    pub external: SocketAddrV4,
    /// How it was asked for.
    pub protocol: Protocol,
    /// For how many seconds it was granted, before which it is renewed; `None` for one that lasts until it is deleted.
    pub lifetime_s: Option<u64>,
}

/// Why a port has no mapping that others could be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The router has not answered yet.
    #[error("the router has not answered yet")]
    Untried,
    /// There is no default route.
    #[error("this machine has no router (no IPv4 default route)")]
    NoRouter,
    /// There is no translation to get through.
    #[error("this machine has an address of the internet itself, so there is nothing to be mapped")]
    NotNeeded,
    /// The port's socket is bound to an address that the router does not know.
    #[error("what is to be reached is bound to another network than the router's")]
    OtherNetwork,
    /// It speaks none of the protocols.
    #[error("the router answers neither PCP, NAT-PMP nor UPnP: look whether its settings forbid them")]
    Silent,
    /// It refuses.
    #[error("the router refuses by {protocol}, with code {code}: look at its settings")]
    Refused {
        /// How it was asked.
        protocol: Protocol,
        /// What it answered.
        code: u16,
    },
    /// It grants it for so short that it is of no use.
    #[error("the router grants a mapping by {protocol}, for less than half a minute")]
    TooShort {
        /// How it was asked.
        protocol: Protocol,
    },
    /// Its own address is none of the internet's.
    #[error(
        "the router has no address of the internet itself (by {protocol} it says {external}): behind it is another one, perhaps \
         the provider's, and a mapping would lead nowhere"
    )]
    Private {
        /// How it was asked.
        protocol: Protocol,
        /// What it says is its outside address.
        external: Ipv4Addr,
    },
    /// Others see us elsewhere.
    #[error(
        "the router says that it is {external} outside, and others see this machine at {seen}: behind it is another one, or it is \
         mistaken"
    )]
    Disagrees {
        /// What it says is its outside address.
        external: Ipv4Addr,
        /// Where others see us.
        seen: Ipv4Addr,
    },
}

impl Why {
    /// The one of two that says more.
    fn or(self, other: Why) -> Why {
        let weight = |why: &Why| match why {
            Why::Untried => 0,
            Why::Silent => 1,
            Why::NoRouter | Why::NotNeeded | Why::OtherNetwork => 2,
            Why::Refused { .. } => 3,
            Why::TooShort { .. } => 4,
            Why::Private { .. } | Why::Disagrees { .. } => 5,
        };
        if weight(&other) > weight(&self) { other } else { self }
    }
}

/// The outside address of a router, if it is one.
fn usable(protocol: Protocol, external: Ipv4Addr) -> Result<Ipv4Addr, Why> {
    if is_of_the_internet(external.into()) { Ok(external) } else { Err(Why::Private { protocol, external }) }
}
