//! What we say of ourselves: kept on disk, told to whoever is connected, and never taken back by a clock.
//!
//! A record's version only ever grows, also where the clock was put back: the last record is on disk before anybody hears of
//! it, and the next one follows it. Who lost that file is reminded by the first that knows better, since what it says now is
//! older than what it said: it shows its own signature for that, and the next record follows that one.
//!
//! Not here: what a record is ([`crate::record`]), and what is known of others ([`crate::records`]).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use reactor::crypto::{Identity, PublicKey};
use reactor::rpc::Connection;
use reactor::serialization::{from_bytes, to_bytes};

use crate::contact::{Addresses, Introduction};
use crate::files;
use crate::handing_over::until_taken;
use crate::message::Introduce;
use crate::record::{Life, NodeRecord, RECORD_BYTES_MAX, RecordError, SignedRecord, Statement};
use crate::records::Standing;
use crate::state::State;
use crate::twin;

/// How long a peer may take to note a record.
const TELL_TIMEOUT: Duration = Duration::from_secs(4);

/// Most bytes of the file: a record and its signature.
const FILE_BYTES_MAX: u64 = RECORD_BYTES_MAX as u64 + 128;

/// What a node said last, as far as that was kept.
///
/// # Suspends
/// For the disk.
pub(crate) fn last(own: &PublicKey, network: &PublicKey, path: Option<&PathBuf>) -> Option<NodeRecord> {
    path.and_then(|path| load(path, own, network))
}

/// What a node says when it starts, which is newer than what it said last, and on disk then.
///
/// # Suspends
/// For the disk.
pub(crate) fn first(
    identity: &Identity,
    network: &PublicKey,
    path: Option<&PathBuf>,
    last: Option<NodeRecord>,
    statement: Statement,
) -> Arc<NodeRecord> {
    // What was said last is by an earlier life, or by whom this home is a copy of: who said it, if it lives, knows by that of us.
    let beside = last.as_ref().map(|last| last.life().nonce);
    let version = version_after(last.as_ref());
    let next = NodeRecord::sign_in(identity, network, version, statement, begin(), beside);
    keep(path, &next);
    Arc::new(next)
}

/// A life that begins now.
fn begin() -> Life {
    let began = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    Life { began_ms: began.as_millis() as u64, nonce: reactor::random::number().max(1) }
}

/// Says something else of ourselves from now on, if `change` changes anything.
///
/// # Suspends
/// Until it is on disk; others are told in the background.
pub(crate) fn restate(state: &Rc<State>, change: impl FnOnce(&mut Statement)) {
    say(state, None, change);
}

/// Says what `change` makes of what we say, under a version above that of `above`.
fn say(state: &Rc<State>, above: Option<&NodeRecord>, change: impl FnOnce(&mut Statement)) {
    let records = &state.credentials.records;
    // One at a time: the next begins with what this one leaves.
    let _turn = state.stating.lock();
    // What is kept by then is the other's word.
    if state.twins.is_to_stop() {
        return;
    }
    let Some(own) = records.own() else { return };
    let mut statement = own.statement().clone();
    change(&mut statement);
    let newest = above.filter(|above| above.is_newer_than(&own));
    // Once said it is said again: whoever is named so may hear only the last.
    let beside = above.map(|above| above.life().nonce).or(own.beside());
    let next = NodeRecord::sign_in(
        &state.identity,
        &state.credentials.network,
        version_after(Some(newest.unwrap_or(&own))),
        statement,
        own.life(),
        beside,
    );
    if newest.is_none() && next.statement() == own.statement() && next.beside() == own.beside() {
        return;
    }
    keep(state.kept_record.as_ref(), &next);
    records.set_own(Arc::new(next));
    for (_, connection) in state.pool.one_of_each() {
        tell(state, connection);
    }
}

/// Tells a peer what we say of ourselves, in the background, until it knows or is gone.
fn tell(state: &Rc<State>, connection: Connection) {
    let speaker = state.clone();
    until_taken(state, connection, "our record", move |connection| {
        // What we say by then: it may have changed since.
        let Some(own) = speaker.credentials.records.own() else { return Ok(()) };
        if let Some(newer) = introduce(connection, &own)? {
            exceed(&speaker, &newer).map_err(|error| error.to_string())?;
        }
        Ok(())
    });
}

/// Tells everybody who is connected what we say of ourselves.
///
/// # Suspends
/// Until everybody knows, or can't be told.
pub(crate) fn say_to_all(state: &Rc<State>) {
    let Some(own) = state.credentials.records.own() else { return };
    reactor::scope(|s| {
        for (_, connection) in state.pool.one_of_each() {
            let own = &own;
            s.spawn(move || introduce(&connection, own).map(drop));
        }
    });
}

/// Shows a node on all its connections what is said in its name: where several processes have its key, each has one, and only one
/// of them says it.
pub(crate) fn show_itself(state: &Rc<State>, said: &Arc<NodeRecord>, told_by_itself: bool) {
    let connections = state.pool.all_of(said.holder());
    // Who told it and is alone knows it.
    if told_by_itself && connections.len() < 2 {
        return;
    }
    for connection in connections {
        remind(state, connection, said.clone());
    }
}

/// Shows a peer what it said of itself after what it says now, in the background, until it knows or is gone.
pub(crate) fn remind(state: &Rc<State>, connection: Connection, said: Arc<NodeRecord>) {
    until_taken(state, connection, "its own record", move |connection| {
        introduce(connection, &said).map(drop)
    });
}

fn introduce(connection: &Connection, record: &NodeRecord) -> Result<Option<SignedRecord>, String> {
    let addresses = Addresses::new();
    let introduction =
        Introduction { public_key: *record.holder(), addresses, record: Some(record.signed().clone()) };
    let answer = connection.call::<Introduce>(&introduction, Bytes::new(), TELL_TIMEOUT);
    answer.map(|(newer, _)| newer).map_err(|error| error.to_string())
}

/// Takes what a peer says of a node, that one or another; returns what is known here if that is newer.
///
/// # Errors
/// [`RecordError`].
///
/// # Suspends
/// For the disk, if it is a later word of our own that we had forgotten.
pub(crate) fn on_introduced(
    state: &Rc<State>,
    node: &Introduction,
) -> Result<Option<SignedRecord>, RecordError> {
    let Some(said) = &node.record else { return Ok(None) };
    if node.public_key == state.credentials.own {
        return exceed(state, said).map(|()| None);
    }
    let (newest, standing) = state.credentials.records.take(&node.public_key, said)?;
    state.note(&newest, true);
    Ok((standing == Standing::Stale).then(|| newest.signed().clone()))
}

/// We are shown what we said of ourselves: if it is later than what we say, what we say is said again, later than that. If another
/// process said it, and had seen what this one says, we are two.
fn exceed(state: &Rc<State>, said: &SignedRecord) -> Result<(), RecordError> {
    let Some(own) = state.credentials.records.own() else { return Ok(()) };
    if *said == *own.signed() || state.twins.is_to_stop() {
        return Ok(());
    }
    let said = said.verify(&state.credentials.own, &state.credentials.network)?;
    let is_two = said.is_beside(own.life());
    // It has to hear of us too, if it has not.
    if said.is_newer_than(&own) || (is_two && own.beside() != Some(said.life().nonce)) {
        tracing::warn!(
            version = said.version(),
            "what this node says of itself was older than what it had said: was its home put back, or does a copy of it run?"
        );
        say(state, Some(&said), |_| {});
    }
    if is_two {
        twin::on_found(state, &said);
    }
    Ok(())
}

/// The time in milliseconds, or one more than the last where the clock says less.
fn version_after(last: Option<&NodeRecord>) -> u64 {
    let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    last.map_or(now, |last| now.max(last.version().saturating_add(1)))
}

/// What was kept last; none if there is nothing that we signed. Whoever knows better reminds us.
fn load(path: &Path, own: &PublicKey, network: &PublicKey) -> Option<NodeRecord> {
    let owned = path.to_owned();
    let read = move || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(owned)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = match reactor::offload(read) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what this node said of itself can't be read");
            return None;
        }
    };
    let record = from_bytes::<SignedRecord>(&bytes).ok().and_then(|said| said.verify(own, network).ok());
    if record.is_none() {
        tracing::warn!(path = %path.display(), "what this node said of itself is damaged; going on without");
    }
    record
}

/// Has a record on disk before anybody hears of it.
pub(crate) fn keep(path: Option<&PathBuf>, record: &NodeRecord) {
    let Some(path) = path.cloned() else { return };
    let (shown, bytes) = (path.display().to_string(), to_bytes(record.signed()));
    if let Err(error) = reactor::offload(move || files::replace(&path, &bytes)) {
        // What others know of us goes on growing by the clock, or by their reminding us.
        tracing::warn!(path = shown, %error, "what this node says of itself could not be kept");
    }
}
