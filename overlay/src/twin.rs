//! Whether another process serves with our key already.
//!
//! A node is one store: what it has promised and what it holds lies there. Where a copy of its home is started beside it, two
//! stores answer for one node, and what is written to the one the other has never heard of; each of them says in good faith that
//! it is stored. So before a node serves anybody it looks where it said last that it was: if somebody proves our key
//! there, it does not start. Its own listener cannot be taken for that, since nobody answers there yet.
//!
//! Not here: a copy that runs where we never said that we were. Its words are seen later, as later ones of our own
//! ([`crate::stating`]).

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::net::TcpStream;
use reactor::net::tls::{self, Expect};

/// How long somebody may take to prove it: as long as any dial, for a machine that is busy. It delays who was in another network
/// before, which drops what we send there; elsewhere nobody listening is told at once.
const PROOF_TIMEOUT: Duration = crate::dial::DIAL_TIMEOUT;

/// Looks at all of `places` at once whether somebody there has our key; returns where.
///
/// # Suspends
/// At most [`PROOF_TIMEOUT`].
pub(crate) fn find(identity: &Identity, places: &[SocketAddr]) -> Option<SocketAddr> {
    let (identity, found) = (Rc::new(identity.clone()), Cell::new(None));
    reactor::scope(|s| {
        for &place in places {
            let (identity, found) = (&identity, &found);
            s.spawn(move || {
                let proof = || -> std::io::Result<()> {
                    let stream = TcpStream::connect_one(place)?;
                    tls::connect(stream, identity, Expect::Key(identity.public_key())).map(drop)
                };
                if matches!(reactor::timeout(PROOF_TIMEOUT, proof), Ok(Ok(()))) {
                    found.set(Some(place));
                }
            });
        }
    });
    found.get()
}
