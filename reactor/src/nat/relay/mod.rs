//! Relaying: two who can't reach each other talk through a third whom both can.
//!
//! A relay is any peer with an address that all can dial. Its clients keep a TLS connection to it, in which each proves
//! who it is by its key, and send it datagrams for peers that they name by their ids; it passes on to each client what is
//! for it, under the id that the sender proved. A peer may be at work in several processes, each with a [`Seat`] of its own.
//! What is inside is sealed end to end (QUIC, in [`Peers`](super::peers::Peers)): the relay can drop, delay, repeat and count,
//! and neither read nor forge.
//!
//! ```
//! use std::rc::Rc;
//! use reactor::crypto::Identity;
//! use reactor::nat::PeerId;
//! use reactor::nat::relay::{self, Event, Relay, RelayLimits};
//! use reactor::net::TcpListener;
//! use reactor::net::tls::Expect;
//!
//! reactor::run(|| {
//!     let [third, alice, bob] = [0, 1, 2].map(|_| Rc::new(Identity::generate()));
//!     let listener = TcpListener::bind("127.0.0.1:0").unwrap();
//!     let address = listener.local_addr().unwrap();
//!     let relay = Relay::new(&third, |_: PeerId, _: &[u8]| true, RelayLimits::default());
//!     let serving = reactor::spawn(move || relay.serve(&listener));
//!
//!     let expect = Expect::Key(third.public_key());
//!     let (to_bob, _from) = relay::connect(address, expect, &alice, b"").unwrap();
//!     let (_to, mut from_alice) = relay::connect(address, expect, &bob, b"").unwrap();
//!     assert!(to_bob.send(PeerId::from(bob.public_key()), b"hello"));
//!     let came = from_alice.receive().unwrap();
//!     assert_eq!(came, Event::Datagram { from: PeerId::from(alice.public_key()).into(), bytes: b"hello".to_vec() });
//!     serving.terminate();
//! });
//! ```
//!
//! Layers: `frame.rs` and `seat.rs` are the codec and `switch.rs` decides, both pure; `server.rs` and `client.rs` send and receive.
//!
//! The same frames over the same kind of line carry datagrams between two peers whose TCP has met (`peers/tcp.rs`), with nobody in
//! between.
//!
//! What it is not: TURN (RFC 8656), which lends addresses to whoever has a password, nor a store: what can't be passed on
//! now is dropped.

mod client;
mod frame;
mod seat;
mod server;
mod switch;

use std::time::Duration;

pub use client::{Event, Receiver, Sender, connect};
pub(in crate::nat) use client::{connect_in, over};
pub use frame::{CREDENTIAL_BYTES_MAX, DATAGRAM_BYTES_MAX, Decoder, Frame, FrameError, Refusal};
pub use seat::Seat;
pub use server::{Admission, Relay, RelayLimits};
pub use switch::Quota;

/// What a relay's clients say that they speak, when TLS shakes hands, so that a relay may share a port with other services.
pub const PROTOCOL: &str = "hypha-relay/2";

/// How often a client says that it is there, when it says nothing else: as often as QUIC does, for the same routers.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// After this silence the other side is gone: two lost questions, and the answer's way.
pub const SILENCE_MAX: Duration = Duration::from_secs(40);

/// A relay that has said nothing for so long is asked for a sign with what is sent to it next: who uses it is not to wait for
/// [`SILENCE_MAX`] when it dies.
const DOUBT_AFTER: Duration = Duration::from_secs(2);

/// And so long that may take: behind [`UNSENT_BYTES_MAX`] on a line of 100 kbit/s.
const SIGN_WITHIN: Duration = Duration::from_secs(6);

/// The same between two peers: a relay is there for them if the other is only slow.
const LINE_SIGN_WITHIN: Duration = Duration::from_secs(3);

/// What TLS and TCP are given ahead of what the line takes: all else waits where it can still be counted and dropped.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// Bytes of one write, and of one read: some forty full datagrams.
const BATCH_BYTES: usize = 64 << 10;
