//! What we say of ourselves: kept on disk, told to whoever is connected, and never taken back by a clock.
//!
//! A record's version only ever grows, also where the clock was put back: the last record is on disk before anybody hears of
//! it, and the next one follows it. Who lost that file is reminded by the first that knows better, since what it says now is
//! older than what it said: it shows its own signature for that, and the next record follows that one.
//!
//! Who stopped because another process has the same key keeps the other's word beside its own, and does not start again, whether the
//! other can be found then or not, before the owner says so ([`accept_copy`]). Each start of whoever is started again
//! by itself would serve, and promise, until it is told once more.
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
use serde::{Deserialize, Serialize};

use crate::admission::Credentials;
use crate::contact::{Addresses, Introduction};
use crate::files;
use crate::handing_over::until_taken;
use crate::life::{Life, LifeWord};
use crate::message::Introduce;
use crate::record::{NodeRecord, RECORD_BYTES_MAX, RecordError, SignedRecord, Statement};
use crate::records::Standing;
use crate::state::State;
use crate::twin;

/// How long a peer may take to note a record.
const TELL_TIMEOUT: Duration = Duration::from_secs(4);

/// How often each of two that both go on has the last word, at most: each would follow the other's at once, without end.
const TURN: Duration = Duration::from_secs(60);

/// Most bytes of the file: two records and their signatures.
const FILE_BYTES_MAX: u64 = 2 * (RECORD_BYTES_MAX as u64 + 128);

/// The file.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// What this node said last.
    said: Option<SignedRecord>,
    /// The word of another process with its key, for which it stopped.
    copy: Option<SignedRecord>,
    /// The owner has the next start go on beside any.
    is_accepted: bool,
}

/// What a node knows of its past.
#[derive(Default)]
pub(crate) struct Last {
    /// What it said last.
    pub(crate) said: Option<NodeRecord>,
    /// What another process with its key said, for which it stopped then.
    pub(crate) copy: Option<NodeRecord>,
    /// The owner has it start although there may be another.
    pub(crate) is_accepted: bool,
}

/// What a node said last, as far as that was kept.
///
/// # Suspends
/// For the disk.
pub(crate) fn last(own: &PublicKey, network: &PublicKey, path: Option<&PathBuf>) -> Last {
    path.and_then(|path| load(path, own, network)).unwrap_or_default()
}

/// Has the next start of the node whose record is kept at `path` go on although another process was found, or is found then, that
/// has its key: the owner has seen to that one, or knows that it is none of his. That next process stops for no other.
///
/// # Errors
/// If it can't be kept. A file that says nothing is none.
///
/// # Suspends
/// For the disk.
pub fn accept_copy(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    reactor::offload(move || {
        let kept = match read(&path) {
            Ok(bytes) => from_bytes::<Kept>(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        files::replace(&path, &to_bytes(&Kept { is_accepted: true, ..kept }))
    })
}

/// What a node says when it starts, which is newer than what it said last, and on disk then.
///
/// # Suspends
/// For the disk.
pub(crate) fn first(
    identity: &Identity,
    network: &PublicKey,
    path: Option<&PathBuf>,
    last: &Last,
    life: &Life,
    statement: Statement,
) -> Arc<NodeRecord> {
    // It names the life that it began from: who said that, if it lives, knows by this one of us.
    let version = version_after(last.said.as_ref());
    let word = life.word(network, &identity.public_key(), version, None);
    let next = NodeRecord::sign_in(identity, network, version, statement, Some(word));
    keep(path, &next, None);
    Arc::new(next)
}

/// Says something else of ourselves from now on, if `change` changes anything.
///
/// # Suspends
/// Until it is on disk; others are told in the background.
pub(crate) fn restate(state: &Rc<State>, change: impl FnOnce(&mut Statement)) {
    say(state, None, None, change);
}

/// Says for the last time what we say, now beside `copy`, for which we stop: our home keeps both.
///
/// # Suspends
/// Until it is on disk.
pub(crate) fn say_last(state: &Rc<State>, copy: &NodeRecord) {
    say(state, Some(copy), Some(copy), |_| {});
}

/// Says what `change` makes of what we say, under a version above that of `above`; for the last time if there is a `copy` for which we
/// stop.
fn say(
    state: &Rc<State>,
    above: Option<&NodeRecord>,
    copy: Option<&NodeRecord>,
    change: impl FnOnce(&mut Statement),
) {
    let records = &state.credentials.records;
    // One at a time: the next begins with what this one leaves.
    let _turn = state.stating.lock();
    // The last is said beside the other's word.
    if state.twins.is_to_stop() && copy.is_none() {
        return;
    }
    let Some(own) = records.own() else { return };
    let mut statement = own.statement().clone();
    change(&mut statement);
    let newest = above.filter(|above| above.is_newer_than(&own));
    let (life, said_beside) = (&state.twins.life, own.life().and_then(LifeWord::beside));
    // Once said it is said again: whoever is named so may hear only the last.
    let seen = above.and_then(NodeRecord::life).map(LifeWord::nonce).filter(|seen| *seen != life.nonce());
    let beside = seen.or(said_beside);
    let version = version_after(Some(newest.unwrap_or(&own)));
    let beside_at = beside.map(|beside| (beside, state.twins.age_beside(beside)));
    let Credentials { network, own: key, .. } = &state.credentials;
    let word = life.word(network, key, version, beside_at);
    let next = NodeRecord::sign_in(&state.identity, network, version, statement, Some(word));
    let is_said = newest.is_none() && next.statement() == own.statement() && beside == said_beside;
    if is_said && copy.is_none() {
        return;
    }
    keep(state.kept_record.as_ref(), &next, copy);
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
    let is_two = said.life().is_some_and(|life| life.is_beside(state.twins.life.nonce()));
    if is_two {
        twin::on_found(state, &said);
        if state.twins.is_to_stop() {
            return Ok(());
        }
    }
    // It has to hear of us too, if it has not.
    let has_heard = said.life().map(LifeWord::nonce) == own.life().and_then(LifeWord::beside);
    if is_two && has_heard && state.twins.is_undecided() {
        if said.is_newer_than(&own) {
            exceed_in_turn(state, said.clone());
        }
    } else if said.is_newer_than(&own) || (is_two && !has_heard) {
        tracing::warn!(
            version = said.version(),
            "what this node says of itself was older than what it had said: was its home put back, or does a copy of it run?"
        );
        say(state, Some(&said), None, |_| {});
    }
    Ok(())
}

/// Says what we say again after what another process says that goes on, as we do: not at once, and only once for all that it says until
/// then.
fn exceed_in_turn(state: &Rc<State>, said: NodeRecord) {
    if state.twins.is_waiting_its_turn.replace(true) {
        return;
    }
    let speaker = Rc::downgrade(state);
    let spawned = reactor::Builder::new().spawn(move || {
        reactor::sleep(TURN);
        let Some(state) = speaker.upgrade() else { return };
        state.twins.is_waiting_its_turn.set(false);
        if !state.stopping.get() {
            say(&state, Some(&said), None, |_| {});
        }
    });
    if spawned.is_err() {
        state.twins.is_waiting_its_turn.set(false);
    }
}

/// The time in milliseconds, or one more than the last where the clock says less.
fn version_after(last: Option<&NodeRecord>) -> u64 {
    let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    last.map_or(now, |last| now.max(last.version().saturating_add(1)))
}

/// What was kept last; none if there is nothing that we signed. Whoever knows better reminds us.
fn load(path: &Path, own: &PublicKey, network: &PublicKey) -> Option<Last> {
    let owned = path.to_owned();
    let bytes = match reactor::offload(move || read(&owned)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what this node said of itself can't be read");
            return None;
        }
    };
    let verified = |said: Option<SignedRecord>| said.map(|said| said.verify(own, network)).transpose();
    let last = from_bytes::<Kept>(&bytes).ok().and_then(|Kept { said, copy, is_accepted }| {
        Some(Last { said: verified(said).ok()?, copy: verified(copy).ok()?, is_accepted })
    });
    if last.is_none() {
        tracing::warn!(path = %path.display(), "what this node said of itself is damaged; going on without");
    }
    last
}

/// Blocks.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Has a record on disk before anybody hears of it; and beside it the word of another process, if we stop for that.
pub(crate) fn keep(path: Option<&PathBuf>, record: &NodeRecord, copy: Option<&NodeRecord>) {
    let Some(path) = path.cloned() else { return };
    let signed = |record: &NodeRecord| record.signed().clone();
    let kept = Kept { said: Some(signed(record)), copy: copy.map(signed), is_accepted: false };
    let shown = path.display().to_string();
    if let Err(error) = reactor::offload(move || files::replace(&path, &to_bytes(&kept))) {
        // What others know of us goes on growing by the clock, or by their reminding us.
        tracing::warn!(path = shown, %error, "what this node says of itself could not be kept");
    }
}
