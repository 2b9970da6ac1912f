//! Between peers: both sides show bare keys and nothing else.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::error::tls_error;
use super::raw_public_key::{PROTOCOL, client_config, decode_key, server_config};
use super::stream::{TlsStream, shake_hands};
use crate::crypto::{Identity, PublicKey};
use crate::net::Duplex;

/// Whom a client will talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The holder of this key.
    Key(PublicKey),
    /// The holder of a key with this SHA3-256, which is what a node's id is.
    Fingerprint([u8; 32]),
    /// Anyone; [`TlsStream::peer`] then tells whom. For a first contact of which only the address is known.
    Any,
}

/// Shakes hands as the client.
///
/// # Errors
/// `InvalidData` if the peer is not the one expected or does not speak our TLS; `TimedOut` after
/// [`super::HANDSHAKE_TIMEOUT`]; `UnexpectedEof` if the peer hangs up, as it does on a client that it can't read.
///
/// # Suspends
/// For a round trip.
pub fn connect<S: Duplex>(stream: S, identity: &Rc<Identity>, expect: Expect) -> io::Result<TlsStream<S>> {
    connect_speaking(stream, identity, expect, PROTOCOL)
}

/// As [`connect`], for who speaks another `protocol` inside than [`PROTOCOL`]; whoever accepts has to know it (ALPN, RFC 7301).
///
/// # Errors
/// As [`connect`]; `InvalidData` too if the peer does not speak it.
///
/// # Suspends
/// For a round trip.
pub fn connect_speaking<S: Duplex>(
    stream: S,
    identity: &Rc<Identity>,
    expect: Expect,
    protocol: &str,
) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from("peer").expect("a constant that parses");
    let mut config = client_config(identity, expect).map_err(tls_error)?;
    config.alpn_protocols = vec![protocol.into()];
    let tls = ClientConnection::new(Arc::new(config), name).map_err(tls_error)?;
    shake_hands(stream, tls.into(), proved_key)
}

/// Shakes hands as the server; any client that proves a key is let in.
///
/// # Errors
/// As [`connect`].
///
/// # Suspends
/// For a round trip and a half.
pub fn accept<S: Duplex>(stream: S, identity: &Rc<Identity>) -> io::Result<TlsStream<S>> {
    accept_speaking(stream, identity, &[PROTOCOL])
}

/// As [`accept`], for one listener that serves several protocols: [`TlsStream::alpn`] says which of `protocols` the client
/// speaks.
///
/// # Errors
/// As [`accept`]; `InvalidData` too if the client speaks none of them.
///
/// # Suspends
/// For a round trip and a half.
pub fn accept_speaking<S: Duplex>(
    stream: S,
    identity: &Rc<Identity>,
    protocols: &[&str],
) -> io::Result<TlsStream<S>> {
    let mut config = server_config(identity).map_err(tls_error)?;
    config.alpn_protocols = protocols.iter().map(|protocol| (*protocol).into()).collect();
    let tls = ServerConnection::new(Arc::new(config)).map_err(tls_error)?;
    shake_hands(stream, tls.into(), proved_key)
}

fn proved_key(tls: &Connection) -> io::Result<PublicKey> {
    let key = tls.peer_certificates().and_then(<[_]>::first);
    let key = key.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the peer showed no key"))?;
    decode_key(key).map_err(tls_error)
}
