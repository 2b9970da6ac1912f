//! Are the nodes away? And what becomes of changes while they are.
//!
//! Twice a second it is looked who can be reached, which asks nobody. Where no quorum of those that keep the root could be at
//! any look for a while, and nothing was stored meanwhile, the nodes are *away*, until a quorum can be reached: waits for
//! them end, and what was changed is in the journal before it is answered, or the answer says that it is not. What was
//! answered before that was known goes there too. That is looked at each time anew and not done once when they go: so no
//! moment can be missed, and a journal that fails is tried again.
//!
//! Before it is certain it is in *doubt*: too few can be reached, or whoever asked the register had no answer, or the store
//! refuses something. Whoever waits for nodes waits on then, but what is changed and has no close is journaled already, and
//! so is, at the next look, what was changed before, unless it is much.
//!
//! Not here: what a cache on the disk makes of the same silence (`silence.rs`, which also says from when on it is one).

use std::cell::Cell;
use std::time::{Duration, Instant};

use dht::{Reach, ReadError, Record};
use reactor::cell::RefCell;
use reactor::sync::Signal;

use super::Volume;
use super::lease::LONG;
use crate::errno::Errno;
use crate::silence::{AWAY_AFTER, RESTART_MAX};

/// How often it is looked who can be reached.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A journal that took nothing is tried again after a pause, which grows: each try of a full disk fills and empties it.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(64);
/// What is journaled at the first sign that the nodes may be away: what has no close, some thousand names. A large copy that
/// is under way would go through the journal at each hiccup of a line.
const DOUBT_SIZE_MAX: usize = 8 << 20;
/// How long the register is waited for once too few of its nodes can be reached. A node that is dialled and lives answers by
/// then; programs that open files wait.
const LACKING_LIMIT: Duration = Duration::from_secs(2);
/// How often whoever waits for the register looks whether enough can be reached.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);
/// Who has waited for the register for so long has somebody find out whether its nodes are there at all: it is many round
/// trips, and a connection whose other end was stopped or cut off says nothing by itself. But not while something is being
/// stored: then that has no answer either, and somebody is asked for it.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// What is known of the nodes.
#[derive(Default)]
pub(super) struct Nodes {
    /// Since when too few could be reached, at each look.
    lacking_since: Cell<Option<Instant>>,
    /// When the store took something last.
    stored_at: Cell<Option<Instant>>,
    /// The journal took nothing at the last try, which was told.
    has_no_journal: Cell<bool>,
}

impl Nodes {
    /// The store took something.
    pub(super) fn note_stored(&self) {
        self.stored_at.set(Some(reactor::now()));
    }
}

impl Volume {
    /// Whether it is known that the nodes take nothing: for longer than a line falters, though a node may yet be restarted.
    pub(super) fn is_away(&self) -> bool {
        let now = reactor::now();
        let is_long = |since: Instant| now.saturating_duration_since(since) >= AWAY_AFTER;
        let lacks = self.nodes.lacking_since.get().is_some_and(is_long)
            && self.store.reach(&self.keys.register) != Reach::Quorum;
        // Of a line that is full it may look as if nobody were there.
        let has_stored = self.nodes.stored_at.get().is_some_and(|at| !is_long(at));
        (lacks || self.store.is_offline()) && !has_stored
    }

    /// Whether a fetch that found nobody is not worth another try. A node that is being restarted should cost a pause and not an
    /// error, so who reads soon after the nodes have gone waits, and hours later nobody does. Nor does a merge, which keeps
    /// changes out.
    pub(super) fn is_away_for_reading(&self) -> bool {
        let of_store = self.store.outage();
        // One outage, and one age: whoever noticed it first.
        let since =
            of_store.map(|outage| outage.since).into_iter().chain(self.nodes.lacking_since.get()).min();
        let is_restart =
            since.is_some_and(|since| reactor::now().saturating_duration_since(since) < RESTART_MAX);
        let is_old = of_store.is_some_and(|outage| outage.is_long) || !is_restart;
        self.is_away() && (is_old || !self.gate.is_open())
    }

    /// Whether it may be that the nodes take nothing.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.nodes.lacking_since.get().is_some()
            || self.freshness.is_unreachable()
            || self.state.borrow().durability.trouble().is_some()
            || self.is_away()
    }

    /// Looks now and then whether the nodes are away, and keeps what is changed while they are, or may be.
    pub(super) fn look_after_nodes(&self) {
        let (mut retry_at, mut pause) = (reactor::now(), Duration::ZERO);
        loop {
            reactor::sleep(LOOK_INTERVAL);
            let since = match self.store.reach(&self.keys.register) {
                Reach::Quorum => None,
                Reach::Some | Reach::Nobody => self.nodes.lacking_since.get().or(Some(reactor::now())),
            };
            self.nodes.lacking_since.set(since);
            if self.is_away() {
                // Whoever waits for them looks again, and may need the journal more.
                self.progress.notify_all();
                self.lease.changed.notify_all();
            }
            let is_little = || self.state.borrow().dirty_bytes() <= DOUBT_SIZE_MAX;
            let is_kept_now = self.has_trouble_for(LONG) || (self.is_in_doubt() && is_little());
            if is_kept_now && reactor::now() >= retry_at {
                let is_kept = self.put_into_journal().is_ok();
                pause = if is_kept { Duration::ZERO } else { (2 * pause).clamp(RETRY_MIN, RETRY_MAX) };
                retry_at = reactor::now() + pause;
            }
        }
    }

    fn put_into_journal(&self) -> Result<(), Errno> {
        if self.journal.is_none() {
            return Ok(());
        }
        let newest = self.state.borrow().durability.newest_change();
        self.sync_to_journal(newest)
    }

    /// Has everything that was changed outlive this process and a power cut, where there is a journal.
    ///
    /// # Errors
    ///
    /// `ENOSPC` or `EIO` of the journal's disk, where the nodes are away, or have not answered to what they are given for some
    /// time; as [`Volume::sync_closed`] else: what was changed is shown here, and may yet be stored, but is in memory only.
    ///
    /// # Suspends
    ///
    /// Until it is in the journal, or, where that fails, with the nodes.
    pub(super) fn keep_changes(&self) -> Result<(), Errno> {
        let newest = self.state.borrow().durability.newest_change();
        match self.put_into_journal() {
            Err(errno) if self.is_away() || self.is_unanswered() => Err(errno),
            Err(_) => self.sync_closed(newest),
            Ok(()) => Ok(()),
        }
    }

    /// Whether nodes that can be reached have not answered to what is to be stored for some time: those whose disks hang.
    fn is_unanswered(&self) -> bool {
        let durability = &self.state.borrow().durability;
        durability.trouble().is_some_and(|trouble| trouble.errno == Errno::ETIMEDOUT)
            && durability.trouble_age(reactor::now()).is_some_and(|age| age > LONG)
    }

    /// Tells, once, that the journal takes nothing, and that it does again.
    pub(super) fn note_journal(&self, failure: Option<&dyn std::fmt::Display>) {
        match (failure, self.nodes.has_no_journal.replace(failure.is_some())) {
            (Some(error), false) => tracing::error!(
                %error,
                "the journal fails: what the nodes do not take is in memory only, and tried again"
            ),
            (None, true) => {
                tracing::warn!("the journal takes changes again: what the nodes do not take is in it")
            }
            _ => {}
        }
    }

    /// Reads the register for as long as that takes, but not for long while too few of its nodes can be reached, nor once nobody
    /// waits for them any more.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: those of the store, and `NoQuorum` then.
    ///
    /// # Suspends
    ///
    /// Until it is read, or that is known.
    pub(super) fn read_root(&self) -> Result<Option<Record>, ReadError> {
        let read = self.ask_for_root();
        read.as_ref().err().into_iter().for_each(|error| self.note_root(error));
        read
    }

    fn ask_for_root(&self) -> Result<Option<Record>, ReadError> {
        let register = &self.keys.register;
        if self.gives_up.get() {
            return Err(unread("nobody waits for the nodes any more"));
        }
        // Offline, it is the store that waits for no longer than makes sense.
        if self.store.is_offline() {
            return self.store.read(register);
        }
        let (answer, answered) = (RefCell::new(None), Signal::new());
        let ask = || {
            let read = self.store.read(register);
            *answer.borrow_mut() = Some(read);
            answered.notify_all();
        };
        reactor::scope(|s| {
            let Ok(question) = s.try_spawn(ask) else {
                // No stack is left: nobody can wait beside it.
                return ask();
            };
            let (mut lacking_since, mut waits_since) = (None, reactor::now());
            // The question runs only while this coroutine waits, so no answer slips in between look and wait.
            while answer.borrow().is_none() {
                if self.gives_up.get() {
                    question.terminate();
                    break;
                }
                let now = reactor::now();
                match self.store.reach(register) {
                    Reach::Quorum => {
                        lacking_since = None;
                        // A line that takes what we store may be so full that a question takes a second, and whoever doubts a
                        // node ends all that is on its way to it.
                        if self.state.borrow().committing.is_some() {
                            waits_since = now;
                        } else if now.saturating_duration_since(waits_since) >= DOUBT_AFTER {
                            waits_since = now;
                            self.store.doubt(register);
                        }
                    }
                    Reach::Some | Reach::Nobody => {
                        let since = *lacking_since.get_or_insert(now);
                        if now.saturating_duration_since(since) >= LACKING_LIMIT {
                            question.terminate();
                            break;
                        }
                    }
                }
                let _ = reactor::timeout(WAIT_INTERVAL, || answered.wait());
            }
        });
        answer.into_inner().unwrap_or_else(|| Err(unread("too few of the nodes that keep it can be reached")))
    }
}

fn unread(reason: &str) -> ReadError {
    ReadError::NoQuorum { answers: 0, needed: 1, reason: reason.into() }
}
