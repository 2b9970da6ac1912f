//! QUIC (RFC 9000) between peers who know each other by key: many streams over one UDP socket.
//!
//! For where TCP does not reach: a UDP socket can be punched through routers, and a connection survives that one of its
//! ends moves to another address. Where TCP does reach it moves more at less cost ([`crate::net::tls`]). Who a peer is,
//! is proved the same way over both: by its bare key, and by one verifier.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::rc::Rc;
//! use reactor::crypto::Identity;
//! use reactor::net::{Duplex, quic::Endpoint, tls::Expect};
//!
//! reactor::run(|| {
//!     let (alice, bob) = (Rc::new(Identity::generate()), Rc::new(Identity::generate()));
//!     let listener = Endpoint::bind("127.0.0.1:0".parse().unwrap(), &bob).unwrap();
//!     let address = listener.local_addr().unwrap();
//!     let serving = reactor::spawn(move || {
//!         let connection = listener.accept().unwrap();
//!         let mut stream = connection.accept().unwrap();
//!         let mut question = String::new();
//!         stream.read_to_string(&mut question).unwrap();
//!         stream.write_all(question.to_uppercase().as_bytes()).unwrap();
//!         stream.end().unwrap();
//!     });
//!
//!     let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), &alice).unwrap();
//!     let connection = endpoint.connect(address, Expect::Key(bob.public_key())).unwrap();
//!     let mut stream = connection.open().unwrap();
//!     stream.write_all(b"hello").unwrap();
//!     stream.end().unwrap();
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).unwrap();
//!     assert_eq!(answer, "HELLO");
//!     serving.join().unwrap();
//! });
//! ```
//!
//! A [`Stream`] is read and written as a TCP stream is, with deadlines, and each direction ends apart. What differs:
//! dropping one that was not ended *resets* it, so that a peer never takes a part for the whole.
//!
//! The protocol is quinn-proto's, which touches neither socket nor clock; its system calls are quinn-udp's. One coroutine
//! a socket moves everything (`driver.rs`); time and randomness are the reactor's, so that all of it runs in
//! [`crate::sim`] too. STUN and packets of our own share the socket, told apart by the first byte ([`Lane`]).
//!
//! What a stranger can cost: towards an address that is not proved, three bytes for each that came (RFC 9000, section
//! 8.1); [`PENDING_MAX`] connections that nobody has accepted yet, [`PENDING_PER_ADDRESS_MAX`] of one address, beyond a quarter of which a client has to prove its
//! address first, and 256 KiB of what each of them sent; and of each connection that was accepted, 8 MiB of what was not
//! read and 8 MiB of what was not acknowledged. An endpoint that accepts nobody is an [`Endpoint::client`].
//!
//! What it is not: HTTP/3, 0-RTT (which can be replayed), datagrams, streams of one direction, or several paths at once.

mod answers;
mod config;
mod connection;
mod driver;
mod endpoint;
mod error;
mod lane;
mod pending;
mod progress;
pub(crate) mod routes;
mod stream;
mod wire;

use std::time::Duration;

pub use connection::Connection;
pub(crate) use connection::WeakConnection;
pub use endpoint::Endpoint;
pub(crate) use endpoint::WeakEndpoint;
pub use lane::{Lane, Share};
pub use stream::Stream;

/// Connections of clients that shake hands, within [`HANDSHAKE_TIMEOUT`](crate::net::tls::HANDSHAKE_TIMEOUT), or wait to
/// be accepted. More are not answered: they try again.
pub const PENDING_MAX: usize = 256;

/// The same of one address: some peers behind one router, and no way for one to keep the others out.
pub const PENDING_PER_ADDRESS_MAX: usize = 32;

/// With so many of them a client has to prove its address, by a token that is sent there, before it costs us a handshake.
const RETRY_ABOVE: usize = PENDING_MAX / 4;

/// The same of all that come over relays, whose word is all there is for who they are: a relay that makes peers up leaves
/// room for others.
const PENDING_RELAYED_MAX: usize = PENDING_MAX / 2;

/// The same of one peer that comes over a relay: two who dial each other at once, and again. An address costs something, an
/// id nothing, so few of them must not take all the places.
const PENDING_PER_PEER_MAX: usize = 4;

/// Bytes that an address may be sent for each that came from it, as long as it has proved nothing (RFC 9000, section 8.1).
const UNPROVED_FACTOR: usize = 3;

/// How long what was ended is still being delivered when nobody holds the connection any more: some retransmissions over
/// a slow path, and no longer than a peer that is gone may cost us.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
