//! A newer list of the revoked: in force at once, kept on disk, and handed on.
//!
//! Whoever is on it loses its rights between two instructions, then its connections and its place in the routing table.
//! Everybody who is connected is handed the list; who was away is handed it when it is met again (`session.rs`), so that
//! it reaches all who reach anybody.
//!
//! Not here: what a list is ([`crate::revocation`]).

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::rpc::Connection;

use crate::message::{Revoke, RevokeRefused};
use crate::node_id::NodeId;
use crate::revocation::Revocations;
use crate::state::State;

/// How long a peer may take to keep a list: a flush of its disk, and some round trips.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// The first pause before a peer that did not take the list is handed it again; it doubles.
const HAND_OVER_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest: nodes are to refuse the revoked within a minute.
const HAND_OVER_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Takes a list that somebody brought; returns the hash of the one that is kept then, which may be another.
///
/// # Errors
/// `List` if it is not the owner's, `NotKept` if it can't be written down; it is in force all the same.
///
/// # Suspends
/// Until it is on disk.
pub(crate) fn take(state: &Rc<State>, newer: Revocations) -> Result<[u8; 32], RevokeRefused> {
    newer.verify(&state.credentials.network).map_err(RevokeRefused::List)?;
    if let Some(connected) = state.peers.revoke(newer) {
        let list = state.peers.revocations();
        tracing::info!(version = list.version(), cut = connected.len(), "members were revoked");
        for key in list.revoked().iter().map(|revoked| revoked.key).chain(connected) {
            state.pool.cut(&key);
            state.change_table(|table, _| table.remove(&NodeId::of(&key)));
        }
        for connection in state.pool.one_of_each() {
            hand_over(state, connection);
        }
    }
    keep(state)
}

/// Hands our list to the peer at the other end, in the background, until it has it or is gone.
pub(crate) fn hand_over(state: &Rc<State>, connection: Connection) {
    let state = state.clone();
    // At the limit of coroutines it is not handed over now; when the two meet again it is.
    let spawned = reactor::Builder::new().spawn(move || {
        let mut pause = HAND_OVER_PAUSE_MIN;
        // One that was stopped, or whose disk is full, may have room or be awake later.
        while !state.stopping.get() && !connection.is_closed() {
            let list = state.peers.revocations();
            match connection.call::<Revoke>(&list, Bytes::new(), HAND_OVER_TIMEOUT) {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "a peer did not take the list of the revoked"),
            }
            reactor::sleep(pause);
            pause = (pause * 2).min(HAND_OVER_PAUSE_MAX);
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "a peer is not told who was revoked before it is met again");
    }
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
