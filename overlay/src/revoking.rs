//! A newer list of the revoked: in force at once, kept on disk, and handed on.
//!
//! Whoever is on it loses its rights between two instructions, then its connections, its place at our relay if we are one, its
//! office as a relay of ours, and its place in the routing table.
//! Everybody who is connected is handed the list; who was away is handed it when it is met again (`session.rs`), so that
//! it reaches all who reach anybody.
//!
//! Not here: what a list is ([`crate::revocation`]).

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::PublicKey;
use reactor::rpc::Connection;

use crate::handing_over::until_taken;
use crate::message::{Revoke, RevokeRefused};
use crate::node_id::NodeId;
use crate::peers::Peers;
use crate::revocation::Revocations;
use crate::state::State;

/// How long a peer may take to keep a list: a flush of its disk, and some round trips.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes the list that was kept by an earlier run. A damaged list must not pass for none: the first to come would be who was revoked.
///
/// # Errors
/// If it can't be read, or is damaged.
///
/// # Suspends
/// While it is read.
pub(crate) fn load(path: &Path, network: &PublicKey, peers: &Peers) -> io::Result<()> {
    let (owned, network) = (path.to_owned(), *network);
    peers.revoke(reactor::offload(move || Revocations::load(&owned, &network))?);
    Ok(())
}

/// Takes a list that somebody brought; returns the hash of the one that is kept then, which may be another.
///
/// # Errors
/// `List` if it is not the owner's, `NotKept` if it can't be written down; it is in force all the same.
///
/// # Suspends
/// Until it is on disk.
pub(crate) fn take(state: &Rc<State>, newer: Revocations) -> Result<[u8; 32], RevokeRefused> {
    newer.verify(&state.credentials.network).map_err(RevokeRefused::List)?;
    let cut = state.peers.revoke(newer);
    let is_newer = cut.is_some();
    if let Some(connected) = cut {
        let list = state.peers.revocations();
        tracing::info!(version = list.version(), cut = connected.len(), "members were revoked");
        state.credentials.renewals.forget(&list, reactor::wall_clock());
        state.reach.turn_out(&connected);
        state.reach.let_go_of_the_revoked(state);
        for key in list.revoked().iter().map(|revoked| revoked.key).chain(connected) {
            state.pool.cut(&key);
            state.relaying.get().into_iter().for_each(|relaying| relaying.dismiss(&key));
            state.change_table(|table, _| table.remove(&NodeId::of(&key)));
        }
        for (_, connection) in state.pool.one_of_each() {
            hand_over(state, connection);
        }
    }
    // First: whoever brought it may give up meanwhile, and nobody would bring it again.
    let kept = keep(state);
    if is_newer {
        // Nobody is to be sent to a relay by our word that is no member.
        state.reach.tend(state);
    }
    kept
}

/// Hands our list to the peer at the other end, in the background, until it has it or is gone.
pub(crate) fn hand_over(state: &Rc<State>, connection: Connection) {
    let peers = state.peers.clone();
    until_taken(state, connection, "the list of the revoked", move |connection| {
        let taken = connection.call::<Revoke>(&peers.revocations(), Bytes::new(), HAND_OVER_TIMEOUT);
        taken.map(|_| ()).map_err(|error| error.to_string())
    });
}

/// Writes the list down, if what is there is older.
fn keep(state: &Rc<State>) -> Result<[u8; 32], RevokeRefused> {
    let Some((path, kept)) = &state.kept_revocations else { return Ok(state.peers.revocations().hash()) };
    // One at a time, and the newest: who waited may find that it is there.
    let mut kept = kept.lock();
    let list = state.peers.revocations();
    let (version, hash) = (list.version(), list.hash());
    if version > *kept {
        let path = path.clone();
        reactor::offload(move || list.save(&path))
            .map_err(|error| RevokeRefused::NotKept(error.to_string()))?;
        *kept = version;
    }
    Ok(hash)
}
