//! How a member is connected, and where it is seen.
//!
//! By TCP that is an address for good. Who is reached by its id is reached over a relay now and directly then, so that it is
//! looked up whenever somebody asks.
//!
//! What it is not: where a node says that it is, which is in its record.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use reactor::crypto::PublicKey;
use reactor::nat::peers::{Path, Transport};
use serde::{Deserialize, Serialize};

/// How a member is connected; what carries more comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// One side could dial the other.
    Direct,
    /// Directly, where neither could: both routers were made to let the other's packets in.
    Punched,
    /// The same by TCP, where UDP does not pass: both connected at once.
    #[serde(rename = "punched-tcp")]
    PunchedTcp,
    /// Over a relay.
    Relayed,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Direct => "directly",
            How::Punched => "through its router",
            How::PunchedTcp => "through its router, by TCP",
            How::Relayed => "over a relay",
        })
    }
}

/// Where a member is that is connected.
#[derive(Clone)]
pub enum Whereabouts {
    /// It dialled from there, or was dialled at, by TCP.
    At(SocketAddr),
    /// It is reached by its id, and how, changes while it is.
    ById(Rc<dyn Fn() -> Path>),
}

impl From<SocketAddr> for Whereabouts {
    fn from(address: SocketAddr) -> Whereabouts {
        Whereabouts::At(address)
    }
}

impl Whereabouts {
    /// How it is reached now, and at which address unless that is the relay's affair.
    pub(crate) fn now(&self) -> (How, Option<SocketAddr>) {
        match self {
            Whereabouts::At(address) => (How::Direct, Some(*address)),
            Whereabouts::ById(path) => match path() {
                Path::Direct { transport: Transport::Udp, address, .. } => (How::Punched, Some(address)),
                Path::Direct { transport: Transport::Tcp, address, .. } => (How::PunchedTcp, Some(address)),
                Path::Relayed => (How::Relayed, None),
            },
        }
    }
}

/// When and where a member was here last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sighting {
    /// Who.
    pub key: PublicKey,
    /// How it is connected, or was when it left.
    pub how: How,
    /// Where it is seen; `None` where only a relay sees it.
    pub address: Option<SocketAddr>,
    /// Seconds since it left; 0 for one that is here.
    pub seconds_ago: u64,
}
