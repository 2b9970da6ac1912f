//! What the stories of QUIC need: two endpoints over loopback, and a connection between them.

#![allow(dead_code, reason = "each story uses its part")]

use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::net::quic::{Connection, Endpoint, Stream};
use reactor::net::tls::Expect;
use reactor::spawn;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// For what must come: a hang becomes a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn bind(identity: &Rc<Identity>) -> Endpoint {
    Endpoint::bind("127.0.0.1:0".parse().unwrap(), identity).unwrap()
}

pub(crate) fn identity() -> Rc<Identity> {
    Rc::new(Identity::generate())
}

/// Two endpoints and a connection between them, as each end has it.
pub(crate) struct Pair {
    pub(crate) near: Connection,
    pub(crate) far: Connection,
    pub(crate) client: Endpoint,
    pub(crate) _server: Rc<Endpoint>,
}

pub(crate) fn pair() -> Pair {
    let (own, other) = (identity(), identity());
    let (client, server) = (bind(&own), Rc::new(bind(&other)));
    let address = server.local_addr().unwrap();
    let accepting = spawn({
        let server = server.clone();
        move || server.accept().unwrap()
    });
    let near = client.connect(address, Expect::Key(other.public_key())).unwrap();
    let far = accepting.join().unwrap();
    assert_eq!((near.peer(), far.peer()), (other.public_key(), own.public_key()));
    Pair { near, far, client, _server: server }
}

/// A stream, as each end has it; the first byte has been read.
pub(crate) fn streams(pair: &Pair) -> (Stream, Stream) {
    let mut near = pair.near.open().unwrap();
    near.write_all(b"!").unwrap();
    let mut far = pair.far.accept().unwrap();
    far.read_exact(&mut [0]).unwrap();
    (near, far)
}

pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}
