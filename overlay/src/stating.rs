//! What we say of ourselves: kept on disk, told to whoever is connected, and never taken back by a clock.
//!
//! A record's version only ever grows, also where the clock was put back: the last record is on disk before anybody hears of
//! it, and the next one follows it. Who lost that file is reminded by the first that knows better, since what it says now is
//! older than what it said: it shows its own signature for that, and the next record follows that one. What is shown so may be by
//! somebody else who has the key: `signers.rs` tells.
//!
//! Who stopped because another process has the same key keeps the other's word beside its own, and does not start again, whether the
//! other can be found then or not, before the owner says so ([`accept_copy`]). Each start of whoever is started again
//! by itself would serve, and promise, until it is told once more. So a file that can't be read is no reason to start as if nobody had
//! been found.
//!
//! Not here: what a record is ([`crate::record`]), and what is known of others ([`crate::records`]).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use reactor::crypto::{Identity, PublicKey};
use reactor::rpc::Connection;
use reactor::serialization::{from_bytes, to_bytes};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::admission::Credentials;
use crate::contact::{Addresses, Introduction};
use crate::files;
use crate::handing_over::until_taken;
use crate::life::{Life, LifeWord};
use crate::message::Introduce;
use crate::record::{NodeRecord, RECORD_BYTES_MAX, RecordError, SignedRecord, Statement, version_after};
use crate::records::Standing;
use crate::signers::{self, Above, Author};
use crate::state::State;
use crate::twin;

/// How long a peer may take to note a record.
const TELL_TIMEOUT: Duration = Duration::from_secs(4);

/// Most bytes of the file: two records and their signatures, and what tells them apart.
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

/// As much of it as is sure whatever a record looks like.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "said")]
    _said: Option<IgnoredAny>,
    copy: Option<IgnoredAny>,
    is_accepted: bool,
}

/// What a node knows of its past.
#[derive(Default)]
pub(crate) struct Last {
    /// What it said last.
    pub(crate) said: Option<NodeRecord>,
    /// It stopped for another process with its key.
    pub(crate) has_stopped: bool,
    /// What that said, if it is readable.
    pub(crate) copy: Option<NodeRecord>,
    /// The owner has it start although there may be another.
    pub(crate) is_accepted: bool,
}

/// What a node said last; nothing if it never said anything.
///
/// # Errors
/// If that can't be read, or is damaged: it may be that this node had stopped.
///
/// # Suspends
/// For the disk.
pub(crate) fn last(own: &PublicKey, network: &PublicKey, path: Option<&PathBuf>) -> io::Result<Last> {
    path.map_or_else(|| Ok(Last::default()), |path| load(path, own, network))
}

/// Has the next start of the node whose record is kept at `path` go on although another process was found, or is found then, that
/// has its key: the owner has seen to that one, or knows that it is none of his. That next process stops for no other. Nobody else may
/// have the home meanwhile: whoever runs there writes the file too.
///
/// # Errors
/// If it can't be kept. A file that is damaged says nothing any more.
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
    let said = last.said.as_ref().map(NodeRecord::version);
    // The highest is said anew: by nobody is anything newer taken.
    let version = version_after(said.unwrap_or(0), now_ms()).or(said).unwrap_or(0);
    let word = |body: &[u8]| Some(life.word(network, &identity.public_key(), body, None));
    let next = NodeRecord::sign_in(identity, network, version, statement, word);
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
    let Some(own) = state.credentials.records.own() else { return };
    say(state, Some(Above::of(copy, &own, Author::Twin)), Some(copy), |_| {});
}

/// Says what `change` makes of what we say, and what follows what is `above`; for the last time if there is a `copy` for which we stop.
fn say(
    state: &Rc<State>,
    above: Option<Above>,
    copy: Option<&NodeRecord>,
    change: impl FnOnce(&mut Statement),
) {
    let records = &state.credentials.records;
    // One at a time: the next begins with what this one leaves.
    let _turn = state.stating.lock();
    // The last is said beside the other's word; and when we have gone the home is somebody else's.
    if copy.is_none() && (state.twins.is_to_stop() || state.stopping.get()) {
        return;
    }
    let Some(own) = records.own() else { return };
    let mut statement = own.statement().clone();
    change(&mut statement);
    let newer = above.and_then(|above| above.version).filter(|above| *above >= own.version());
    let (life, said_beside) = (&state.twins.life, own.life().and_then(LifeWord::beside));
    // Once said it is said again: whoever is named so may hear only the last.
    let seen = above.and_then(|above| above.beside).filter(|seen| *seen != life.name());
    let beside = seen.or(said_beside);
    if newer.is_none() && statement == *own.statement() && beside == said_beside && copy.is_none() {
        return;
    }
    let beside_at = beside.map(|beside| (beside, state.twins.age_beside(beside)));
    let Credentials { network, own: key, .. } = &state.credentials;
    let Some(version) = version_after(newer.unwrap_or(own.version()), now_ms()) else {
        // One that is as high is nobody's news; it is kept that we stop all the same.
        if copy.is_some() {
            keep(state.kept_record.as_ref(), &own, copy);
        }
        return;
    };
    let word = |body: &[u8]| match copy {
        Some(_) => Some(life.last_word(network, key, body, beside_at)),
        None => Some(life.word(network, key, body, beside_at)),
    };
    let next = NodeRecord::sign_in(&state.identity, network, version, statement, word);
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

/// We are shown what stands in our name: if it is newer than what we say, what we say is said again, above that; and who else signs
/// with our key is told, as soon as that is known.
fn exceed(state: &Rc<State>, shown: &SignedRecord) -> Result<(), RecordError> {
    let Some(own) = state.credentials.records.own() else { return Ok(()) };
    if *shown == *own.signed() || state.twins.is_to_stop() {
        return Ok(());
    }
    let shown = shown.verify(&state.credentials.own, &state.credentials.network)?;
    let Some(author) = signers::author(&shown, &own, &state.twins.life) else { return Ok(()) };
    if author == Author::Twin {
        twin::on_found(state, &shown);
        if state.twins.is_to_stop() {
            return Ok(());
        }
    } else if state.twins.signers.borrow().is_by_another(author) {
        twin::on_another(state, &shown);
    }
    let is_newer = shown.is_newer_than(&own);
    // It has to hear of us too, if it has not.
    let has_heard = shown.life().map(LifeWord::name) == own.life().and_then(LifeWord::beside);
    if is_newer || (author == Author::Twin && !has_heard) {
        tracing::warn!(
            version = shown.version(),
            "what this node says of itself was older than what stands in its name: was its home put back, or does somebody else have its key?"
        );
        answer(state, Above::of(&shown, &own, author));
    }
    Ok(())
}

/// Says what we say again, above that, at once or when it is our turn; if that is on its way already, it follows this too.
fn answer(state: &Rc<State>, above: Above) {
    if !state.twins.signers.borrow_mut().on_shown(above) {
        return;
    }
    let answering = Answering(Rc::downgrade(state));
    // At the limit of coroutines nothing is said now: we are shown it again.
    let _ = reactor::Builder::new().span(tracing::Span::none()).spawn(move || answering.go_on());
}

/// Whoever says what is to follow what was shown; when it is dropped, somebody else may.
struct Answering(Weak<State>);

impl Answering {
    fn go_on(&self) {
        while let Some(state) = self.0.upgrade().filter(|state| !state.stopping.get()) {
            let pause = state.twins.signers.borrow_mut().pause(reactor::now());
            if !pause.is_zero() {
                drop(state);
                reactor::sleep(pause);
                continue;
            }
            let Some(above) = state.twins.signers.borrow_mut().take() else { return };
            say(&state, Some(above), None, |_| {});
            let Some(own) = state.credentials.records.own() else { return };
            if !state.twins.signers.borrow_mut().on_said(above, own.version()) {
                return;
            }
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(state) = self.0.upgrade() {
            state.twins.signers.borrow_mut().end();
        }
    }
}

/// Waits until nothing is being written of what we say, when we stop: the next process of our home writes the same file.
///
/// # Suspends
/// For the disk.
pub(crate) fn finish(state: &State) {
    drop(state.stating.lock());
}

fn now_ms() -> u64 {
    since_1970(reactor::wall_clock())
}

fn since_1970(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// What was kept last; nothing if there is no file.
fn load(path: &Path, own: &PublicKey, network: &PublicKey) -> io::Result<Last> {
    let owned = path.to_owned();
    match reactor::offload(move || read(&owned)) {
        Ok(bytes) => parse(&bytes, own, network),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Last::default()),
        Err(error) => Err(error),
    }
}

/// What a file says. Of what is not ours, or of another release, it counts that it is there: whoever knows what we said reminds us, but
/// nobody of whom we stopped for.
fn parse(bytes: &[u8], own: &PublicKey, network: &PublicKey) -> io::Result<Last> {
    let verified = |said: SignedRecord| match said.verify(own, network) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(%error, "what is kept of what this node said is of no use; going on without");
            None
        }
    };
    if let Ok(Kept { said, copy, is_accepted }) = from_bytes(bytes) {
        let has_stopped = copy.is_some();
        return Ok(Last {
            said: said.and_then(verified),
            has_stopped,
            copy: copy.and_then(verified),
            is_accepted,
        });
    }
    let outline: Outline =
        from_bytes(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))?;
    tracing::warn!("what is kept of what this node said is of another release; going on without");
    Ok(Last { has_stopped: outline.copy.is_some(), is_accepted: outline.is_accepted, ..Last::default() })
}

/// Blocks.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Has a record on disk before anybody hears of it; and beside it the word of another process, if we stop for that.
fn keep(path: Option<&PathBuf>, record: &NodeRecord, copy: Option<&NodeRecord>) {
    let Some(path) = path.cloned() else { return };
    let signed = |record: &NodeRecord| record.signed().clone();
    let kept = Kept { said: Some(signed(record)), copy: copy.map(signed), is_accepted: false };
    let shown = path.display().to_string();
    if let Err(error) = reactor::offload(move || files::replace(&path, &to_bytes(&kept))) {
        // What others know of us goes on growing by the clock, or by their reminding us.
        tracing::warn!(path = shown, %error, "what this node says of itself could not be kept");
    }
}
