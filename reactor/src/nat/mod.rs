//! Getting through routers that translate addresses: what one's address looks like from outside, and what the router
//! between does with packets.
//!
//! A home router lends a machine an outside port for each conversation (a *mapping*) and lets in what it takes for
//! answers (its *filter*). Two machines behind such routers can talk directly when each learns the outside address that
//! the other was lent, and both send at once. So it begins with a question to a server outside, "where do my packets seem
//! to come from?":
//!
//! - [`stun`] asks that question and answers it (RFC 8489).
//! - [`behaviour`] puts it in several ways, to learn how the router decides (RFC 5780).
//! - [`relay`] is where two talk who have no way to each other yet, or never will.
//! - [`mapping`] has the router let in what comes to a port (PCP, NAT-PMP, UPnP).
//! - [`peers`] connects to a peer by its id, over a relay at once and directly as soon as it can.
//!
//! What it is not: an identity. Whoever sits on the path may say what they like about addresses; who a peer is, its
//! handshake proves ([`crate::net::tls`]).

mod address;
pub mod behaviour;
#[cfg(feature = "http")]
pub mod mapping;
mod peer_id;
pub mod peers;
pub mod relay;
pub mod stun;

pub use peer_id::PeerId;
