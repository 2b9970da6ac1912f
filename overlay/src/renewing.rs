//! Renewed passports on their way: kept on disk, in force for who is connected, and handed on.
//!
//! Whoever learns of one hands it to all nodes that are connected, and to its holder; those who meet compare their books
//! by a digest in the hello, and hand each other what is there (`session.rs`). So it reaches all who reach anybody.
//!
//! Not here: what is kept ([`crate::renewal`]).

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::PublicKey;
use reactor::rpc::Connection;

use crate::admission::Admitted;
use crate::handing_over::until_taken;
use crate::message::{Renew, RenewRefused};
use crate::passport::Passport;
use crate::peers::{Peers, Role};
use crate::renewal::Renewals;
use crate::state::State;

/// How long a peer may take to keep passports: a flush of its disk, and some round trips.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Passports in one call: 14 KiB.
const PASSPORTS_PER_CALL: usize = 64;

/// Takes the passports that were kept by an earlier run. A damaged book is a book that is not there: whoever lacks a passport is
/// given it again.
///
/// # Suspends
/// While they are read.
pub(crate) fn load(path: &Path, network: &PublicKey, peers: &Peers, renewals: &Renewals) {
    let owned = path.to_owned();
    let taken = reactor::offload(move || Renewals::load(&owned)).map_err(|error| error.to_string());
    let taken = taken.and_then(|kept| {
        let now = reactor::wall_clock();
        renewals.take(kept, network, &peers.revocations(), now).map_err(|error| error.to_string())
    });
    if let Err(error) = taken {
        tracing::warn!(path = %path.display(), error, "renewed passports can't be read; going on without");
    }
}

/// Takes passports that somebody brought, and has them on disk then.
///
/// # Errors
/// Those of [`Renewals::take`]; `NotKept` if they can't be written down: they are in force all the same.
///
/// # Suspends
/// Until they are on disk.
pub(crate) fn take(state: &Rc<State>, passports: Vec<Passport>) -> Result<(), RenewRefused> {
    let credentials = &state.credentials;
    let revoked = state.peers.revocations();
    let now = reactor::wall_clock();
    let news = credentials.renewals.take(passports, &credentials.network, &revoked, now)?;
    for passport in &news {
        state.peers.renew(passport);
        if passport.holder() == credentials.own {
            tracing::info!("our passport was renewed");
        }
    }
    if !news.is_empty() {
        for (key, connection) in state.pool.one_of_each() {
            let Some(peer) = state.peers.get(&key) else { continue };
            let its_own = |passport: &&Passport| peer.role == Role::Storage || passport.holder() == key;
            let concern: Vec<Passport> = news.iter().filter(its_own).cloned().collect();
            hand_over(state, connection, concern);
        }
    }
    keep(state)
}

/// Hands the peer at the other end of a new connection what it may not have.
pub(crate) fn greet(state: &Rc<State>, connection: &Connection, admitted: &Admitted) {
    let renewals = &state.credentials.renewals;
    if admitted.peer.role == Role::Storage && admitted.renewals != renewals.digest() {
        hand_over(state, connection.clone(), renewals.all());
    } else if admitted.is_renewed {
        hand_over(state, connection.clone(), vec![admitted.passport.clone()]);
    }
}

/// In the background, until it has them or is gone.
fn hand_over(state: &Rc<State>, connection: Connection, passports: Vec<Passport>) {
    if passports.is_empty() {
        return;
    }
    until_taken(state, connection, "renewed passports", move |connection| {
        for some in passports.chunks(PASSPORTS_PER_CALL) {
            let taken = connection.call::<Renew>(&some.to_vec(), Bytes::new(), HAND_OVER_TIMEOUT);
            taken.map_err(|error| error.to_string())?;
        }
        Ok(())
    });
}

/// Writes the book down, if it has changed.
fn keep(state: &Rc<State>) -> Result<(), RenewRefused> {
    let Some((path, kept)) = &state.kept_renewals else { return Ok(()) };
    // One at a time, and the newest: who waited may find that it is there.
    let mut kept = kept.lock();
    let renewals = &state.credentials.renewals;
    let (digest, all) = (renewals.digest(), renewals.all());
    if digest != *kept {
        let path = path.clone();
        reactor::offload(move || Renewals::save(&path, &all))
            .map_err(|error| RenewRefused::NotKept(error.to_string()))?;
        *kept = digest;
    }
    Ok(())
}
