//! STUN (RFC 8489): "where do my packets seem to come from?"
//!
//! The client sends a *binding request* with 96 random bits in it; the server writes into its answer the address that
//! the request came from, which is the outside one where a router translates. The address is stored XORed, since some
//! routers rewrite any four bytes that look like an address of theirs.
//!
//! ```
//! use reactor::nat::stun::{self, Timing};
//! use reactor::net::UdpSocket;
//!
//! reactor::run(|| {
//!     let server = UdpSocket::bind("127.0.0.1:0").unwrap();
//!     let address = server.local_addr().unwrap();
//!     let serving = reactor::spawn(move || stun::serve(&server));
//!
//!     let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
//!     let answer = stun::ask(&socket, address, Timing::default()).unwrap();
//!     assert_eq!(answer.mapped, socket.local_addr().unwrap()); // nothing translates on the way
//!     serving.terminate();
//! });
//! ```
//!
//! Layers: `message.rs`, `attribute.rs`, `build.rs` and `integrity.rs` are the codec, pure and bounded by the datagram;
//! `retransmission.rs` and `server.rs` decide; `client.rs` and `serve.rs` send and receive.
//!
//! What may be believed: an answer names the request's 96 bits and comes from where the request went, so that only who
//! sees our packets can forge one. Who does can also rewrite them: a mapped address is a hint where to be reached, and
//! proves nothing.
//!
//! Signatures ([`Key`]) are for two who share a secret, as the ends of an ICE session do; what is asked of a public server
//! carries none, and what it answers would prove nothing more by one.
//!
//! What it is not: TURN, ICE, STUN over TCP, or the long-term credentials, whose key is an MD5 that nothing here makes
//! (who has made it may pass it to [`Message::is_signed_by`]).

mod attribute;
mod build;
mod client;
mod integrity;
mod message;
mod retransmission;
mod serve;
mod server;
#[cfg(test)]
mod vectors;

pub(crate) use attribute::is_of_one_machine;
pub use attribute::{Change, Kind};
pub use build::Builder;
pub use client::{Answer, AskError, Datagrams, Question, ask, ask_for};
pub use integrity::Key;
pub use message::{BINDING, Class, HEADER_BYTES, Message, ParseError, TransactionId, is_stun};
pub use retransmission::Timing;
pub use serve::{DiscoveryServer, serve};
pub use server::{AMPLIFICATION_MAX, Origins, Place, answer};
