//! TLS over any [`Duplex`](super::Duplex): between peers who know each other by key, and with certificates.
//!
//! - [`connect`] and [`accept`]: TLS 1.3 where each side *is* its Ed25519 key; see `raw_public_key.rs` for who is
//!   trusted. No names, no issuers, no resumption.
//! - [`Client`] and [`Server`]: the web's TLS, 1.3 and 1.2, with certificates, names (SNI), protocols (ALPN) and
//!   resumption; the client trusts the platform's roots or ones it is given, the server's certificates are reloaded
//!   without dropping a connection.
//!
//! All give a [`TlsStream`]. An end without `close_notify` is an error on read, [`Truncated`], so a cut connection is
//! never taken for a finished one.
//!
//! rustls does the protocol, with `ring`'s ciphers. What it is not: early data (it can be replayed), client
//! certificates, revocation lists, or a certificate authority's client (ACME).

mod certificate;
mod client;
pub(in crate::net) mod error;
mod flusher;
mod peer;
pub(in crate::net) mod raw_public_key;
mod server;
mod stream;
mod wall_clock;

use std::time::Duration;

pub use certificate::Certificate;
pub use client::Client;
pub use error::Truncated;
pub use peer::{Expect, accept, accept_speaking, connect, connect_speaking};
pub use raw_public_key::PROTOCOL;
pub use server::Server;
pub use stream::{ByCertificate, CertifiedStream, Proof, TlsStream, Version};

/// How long a handshake may take: two round trips over the slowest of links (a second each, with loss), and
/// short enough that a silent client does not hold a descriptor for long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
