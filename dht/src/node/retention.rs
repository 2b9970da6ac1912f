//! For how long a node keeps what is deleted, whoever says that it may go: what the network's owner has it promise.
//!
//! The owner says it in his list for all nodes ([`overlay::Revocations`]), and nobody else can. A writer's key that was stolen, or the
//! key of who owns the blocks, hides a block; its bytes stay for so long, counted from when *this* node heard the word, by its own
//! clock. So no word that says how old it is, and none that asks for less, shortens anything. In the same time a keeper of a register
//! keeps what its values were ([`super::past`]).
//!
//! **A longer retention is in force at once, a shorter one only when the former one is over**: whoever has the owner's key for a
//! while cannot have at once what he could not have without it. A node keeps on its disk what it has promised, so a restart
//! shortens nothing. What was deleted before stays as it was promised then: its tombstone says for how long. A node that has
//! promised nothing yet is bound by what the others have promised as if it had been there: else the past would be shorter on
//! whoever takes their place. One of three that lies binds nobody by more; and as one that is new may know of few at first, nothing
//! that it hears is noted before it has been there for some moments, or has heard three. Of one or two, the longest binds: nobody can
//! tell which of them lies.
//!
//! Not here: what a node does with deleted blocks ([`super::deletions`]).

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use reactor::serialization::{Versioned, from_envelope, to_envelope};
use reactor::sync::Mutex;
use serde::{Deserialize, Serialize};

use super::deletions::now_seconds;
use super::{Gate, Node, refusal_of};
use crate::block::deletion::RETENTION_SECONDS_MAX;
use crate::message::{Refusal, Retention};
use crate::store::{Key, Kind, PutOptions, StoreError};

/// What a node promises whose network's owner has never said anything: long enough to be back from a journey, and less than a
/// collector asks for by itself.
pub const DEFAULT_SECONDS: u32 = 7 * 24 * 3600;

/// Where a node notes what it has promised.
const NOTE: Key = Key::new(Kind::NOTE, *b"hypha retention promised by node");

/// Of so many one may lie, and binds nobody by more.
const ENOUGH: usize = 3;

/// For how long a node that is new asks the others again and again.
const NEW_FOR: Duration = Duration::from_secs(20);

/// What a node has promised. Pure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Promise {
    /// For how long it keeps what is deleted now.
    seconds: u32,
    /// A shorter time that the owner wants, and when that comes into force, in seconds since 1970.
    next: Option<(u32, u64)>,
}

impl Versioned for Promise {
    const TYPE_NAME: &'static str = "hypha retention";
    const VERSION: u32 = 1;
}

impl Promise {
    /// What is promised from now on, if the owner wants `wanted`.
    pub(super) fn heard(before: Option<Promise>, wanted: u32, now_seconds: u64) -> Promise {
        let wanted = wanted.min(RETENTION_SECONDS_MAX);
        let (seconds, next) = match before {
            None => (wanted, None),
            Some(Promise { next: Some((shorter, from)), .. }) if from <= now_seconds => (shorter, None),
            Some(Promise { seconds, next }) => (seconds, next),
        };
        if wanted >= seconds {
            return Promise { seconds: wanted, next: None };
        }
        // One that was said again goes on as it was; another one begins anew.
        let next = next.filter(|(shorter, _)| *shorter == wanted);
        let from_seconds = now_seconds.saturating_add(seconds.into());
        Promise { seconds, next: next.or(Some((wanted, from_seconds))) }
    }

    /// What binds a node that comes to others who have promised this; `None` if none of them has promised anything.
    fn of_others(others: &[Retention], now_seconds: u64) -> Option<Promise> {
        let mut said: Vec<&Retention> = others.iter().filter(|said| said.is_promised).collect();
        said.sort_unstable_by_key(|said| std::cmp::Reverse(said.seconds));
        // One of three may say anything, and the next longest is what somebody says who tells the truth, or less.
        let longest = said.get(usize::from(said.len() >= ENOUGH))?;
        let seconds = longest.seconds.min(RETENTION_SECONDS_MAX);
        let over_at = now_seconds.saturating_add(seconds.into());
        let shorter = said.iter().filter(|said| said.seconds >= seconds).filter_map(|said| said.shorter);
        let shorter = shorter.filter(|(shorter, from)| *shorter < seconds && *from <= over_at);
        Some(Promise { seconds, next: shorter.max_by_key(|(_, from)| *from) })
    }
}

/// What a node remembers of it beside its store.
pub(super) struct Promised {
    /// Whether it has looked there, and what it found or has promised since.
    own: Mutex<Option<Option<Promise>>>,
    /// What others had promised when it came to them.
    others: Cell<Option<Promise>>,
    /// Of how many that is what they had promised.
    heard: Cell<usize>,
    /// Nothing was promised before this process began, and it is not known yet what others had.
    is_new: Cell<bool>,
}

impl Default for Promised {
    fn default() -> Promised {
        Promised {
            own: Mutex::new(None),
            others: Cell::new(None),
            heard: Cell::new(0),
            is_new: Cell::new(false),
        }
    }
}

impl Node {
    /// Says, in a network in which no owner speaks, for how long deleted blocks are kept: not at all, unless somebody says so.
    pub fn say_retention(&self, seconds: u32) {
        self.said_retention.set(seconds);
    }

    /// What the network's owner says.
    fn wanted_retention(&self) -> Option<u32> {
        match &self.gate {
            Gate::Open => Some(self.said_retention.get()),
            Gate::Passports(peers) => peers.retention_seconds(),
        }
    }

    /// For how long this node keeps what is deleted now, in seconds. From then on it is bound by it, also by the default.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk: the first time, and when something has changed.
    pub(super) fn promise_retention(&self) -> Result<u32, Refusal> {
        self.note_retention(self.wanted_retention().unwrap_or(DEFAULT_SECONDS)).map(|promise| promise.seconds)
    }

    /// Looks whether the owner has said something else: so that a shorter time is in force as soon as it may be.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk: the first time, and when something has changed.
    pub(crate) fn look_at_retention(&self) -> Result<(), Refusal> {
        // As long as nobody has said anything, nothing is promised before something is deleted: the word may be on its way.
        self.wanted_retention().map_or(Ok(()), |wanted| self.note_retention(wanted).map(drop))
    }

    /// For how long this node keeps what is deleted, in seconds, as far as it has promised anything or knows what is wanted; and
    /// with that, when a shorter time comes into force that the owner has asked for, in seconds since 1970.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk: the first time, and when something has changed.
    pub fn retention(&self) -> Result<(u32, Option<(u32, u64)>), Refusal> {
        self.look_at_retention()?;
        let known = [self.promised.others.get(), self.promised_retention()?];
        let promise = known.into_iter().flatten().max_by_key(|promise| promise.seconds);
        let wanted = || self.wanted_retention().unwrap_or(DEFAULT_SECONDS);
        let promise = promise.unwrap_or_else(|| Promise { seconds: wanted(), next: None });
        Ok((promise.seconds, promise.next))
    }

    /// Whether this node has promised anything, durably, by what it knows of the others: what a new one says binds no other.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk, the first time.
    pub(crate) fn has_promised_retention(&self) -> Result<bool, Refusal> {
        Ok(self.promised_retention()?.is_some() && !self.promised.is_new.get())
    }

    /// Whether it is to be asked what others have promised, since this node had promised nothing before it was started.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk, the first time.
    pub(crate) fn is_to_ask_for_retention(&self) -> Result<bool, Refusal> {
        self.promised_retention()?;
        Ok(self.promised.is_new.get())
    }

    /// Is bound by what others have promised, as it has promised nothing before them; `is_all` if all others said it. In its first
    /// moments it may know of some only, so then it is to ask again.
    pub(crate) fn hear_retentions(&self, others: &[Retention], is_all: bool) {
        let promise = Promise::of_others(others, now_seconds());
        let count = others.iter().filter(|said| said.is_promised).count();
        // What more of them say takes the place of what fewer said, one of whom may have lied.
        let is_of_as_many = count == self.promised.heard.get();
        let known = self.promised.others.get().filter(|_| is_of_as_many);
        if count >= self.promised.heard.get() {
            self.promised.heard.set(count);
            let promise = [promise, known].into_iter().flatten().max_by_key(|promise| promise.seconds);
            self.promised.others.set(promise);
        }
        // One that never answers keeps nobody from having been there for a while.
        let age = reactor::now().saturating_duration_since(self.started);
        self.promised.is_new.set(age < NEW_FOR || (!is_all && age < 10 * NEW_FOR));
    }

    fn promised_retention(&self) -> Result<Option<Promise>, Refusal> {
        let mut known = self.promised.own.lock();
        self.load_promise(&mut known)
    }

    fn load_promise(&self, known: &mut Option<Option<Promise>>) -> Result<Option<Promise>, Refusal> {
        if let Some(known) = known {
            return Ok(*known);
        }
        let stored = match self.store.get(&NOTE, None) {
            // What it promised is lost, as blocks may be.
            Err(StoreError::Damaged(_)) => None,
            stored => stored.map_err(refusal_of)?,
        };
        let decode = |bytes: Bytes| from_envelope(&bytes);
        let found = stored.map(decode).transpose();
        let found =
            found.map_err(|error| Refusal::Store(format!("the retention that was promised: {error}")))?;
        *known = Some(found);
        self.promised.is_new.set(found.is_none());
        Ok(found)
    }

    fn note_retention(&self, wanted: u32) -> Result<Promise, Refusal> {
        let mut known = self.promised.own.lock();
        let before = self.load_promise(&mut known)?;
        // What it said itself in its first moments takes nothing of that away.
        let others = self.promised.others.get();
        let bound = [before, others].into_iter().flatten().max_by_key(|promise| promise.seconds);
        let promise = Promise::heard(bound, wanted, now_seconds());
        // What few say may have to give way to what more of them say.
        let age = reactor::now().saturating_duration_since(self.started);
        let is_early = age < NEW_FOR && self.promised.heard.get() < ENOUGH;
        if others.is_some() && self.promised.is_new.get() && is_early {
            return Ok(promise);
        }
        // Who promises nothing, and has promised nothing, is bound by nothing.
        if before != Some(promise) && (before.is_some() || promise.seconds > 0) {
            // Nothing can be deleted without it.
            let options = PutOptions { may_use_reserve: true, ..PutOptions::default() };
            let put = || self.store.enqueue_with(&NOTE, to_envelope(&promise).into(), options)?.wait();
            reactor::uninterruptible(put).map_err(refusal_of)?;
            *known = Some(Some(promise));
        }
        // It is in that, as far as it binds.
        self.promised.others.set(None);
        Ok(promise)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use overlay::NodeId;
    use reactor::sim::{self, SimConfig};

    use super::*;
    use crate::store::{MemoryStore, Store};

    const WEEK: u32 = 7 * 24 * 3600;
    const DAY: u32 = 24 * 3600;

    fn at(before: Promise, wanted: u32, now: u64) -> Promise {
        Promise::heard(Some(before), wanted, now)
    }

    #[test]
    fn a_longer_time_holds_at_once_and_a_shorter_one_when_the_longer_is_over() {
        let first = Promise::heard(None, DAY, 1000);
        assert_eq!(first, Promise { seconds: DAY, next: None });
        let longer = at(first, WEEK, 2000);
        assert_eq!(longer, Promise { seconds: WEEK, next: None });
        let over = 5000 + u64::from(WEEK);
        let shorter = at(longer, 0, 5000);
        assert_eq!(shorter, Promise { seconds: WEEK, next: Some((0, over)) });
        // However often it is said, and whatever is said meanwhile.
        assert_eq!(at(shorter, 0, 9000), shorter);
        assert_eq!(at(at(shorter, DAY, 9000), 0, 9001).next, Some((0, 9001 + u64::from(WEEK))));
        assert_eq!(at(shorter, WEEK, over - 1), longer, "the owner took it back in time");
        assert_eq!(at(shorter, 0, over - 1), shorter);
        assert_eq!(at(shorter, 0, over), Promise { seconds: 0, next: None });
        assert_eq!(at(shorter, WEEK, over), longer);
        assert_eq!(Promise::heard(None, u32::MAX, 0).seconds, RETENTION_SECONDS_MAX);
    }

    /// A new node, and with it whoever replaced nodes by new ones, went by the shorter one at once.
    #[test]
    fn who_comes_later_is_bound_by_what_the_others_have_promised_and_one_of_three_binds_nobody() {
        let says = |seconds, shorter| Retention { seconds, shorter, held_bytes: 0, is_promised: true };
        let over = 1000 + u64::from(WEEK);
        let theirs = says(WEEK, Some((DAY, over)));
        let (liar, short) = (says(10 * WEEK, None), says(0, None));
        let of = |others: &[Retention]| Promise::of_others(others, 2000);
        let bound = Some(Promise { seconds: WEEK, next: Some((DAY, over)) });
        assert_eq!(of(&[theirs, theirs, liar]), bound);
        assert_eq!(of(&[short, theirs, theirs]), bound);
        assert_eq!(of(&[theirs]), bound);
        let silent = Retention { is_promised: false, ..theirs };
        assert_eq!(of(&[silent]), None, "it has promised nothing");
        let lies = says(WEEK, Some((0, u64::MAX)));
        assert_eq!(of(&[lies, theirs, theirs]), bound);

        sim::run(1, SimConfig::default(), |_| {
            let node = Node::new(NodeId([1; 32]), Rc::new(MemoryStore::new()), Gate::Open, 3);
            node.say_retention(DAY);
            assert_eq!(node.promise_retention(), Ok(DAY), "it has met nobody yet");
            assert_eq!(node.is_to_ask_for_retention(), Ok(true));
            let from = now_seconds() + 5000;
            node.hear_retentions(&[says(WEEK, Some((DAY, from)))], true);
            assert_eq!(node.retention(), Ok((WEEK, Some((DAY, from)))));
            assert_eq!(node.is_to_ask_for_retention(), Ok(true), "it may know of few of them yet");
            assert!(!node.say_for_how_long().unwrap().is_promised);
            reactor::sleep(NEW_FOR);
            node.hear_retentions(&[says(DAY, None)], true);
            assert_eq!(node.is_to_ask_for_retention(), Ok(false));
            assert!(node.say_for_how_long().unwrap().is_promised);
            assert_eq!(node.retention(), Ok((WEEK, Some((DAY, from)))));
            reactor::sleep(Duration::from_secs(5001));
            assert_eq!(node.promise_retention(), Ok(DAY));
        });
    }

    #[test]
    fn whom_a_new_node_hears_first_does_not_bind_it_once_it_hears_more() {
        sim::run(1, SimConfig::default(), |_| {
            let says = |seconds| Retention { seconds, shorter: None, held_bytes: 0, is_promised: true };
            let (liar, honest) = (says(10 * WEEK), says(WEEK));
            let store: Rc<dyn Store> = Rc::new(MemoryStore::new());
            let start = || {
                let node = Node::new(NodeId([1; 32]), store.clone(), Gate::Open, 3);
                node.say_retention(WEEK);
                node
            };
            let node = start();
            assert_eq!(node.is_to_ask_for_retention(), Ok(true));
            node.hear_retentions(&[liar], true);
            assert_eq!(node.promise_retention(), Ok(10 * WEEK), "until it knows more");
            node.hear_retentions(&[liar, honest, honest], true);
            assert_eq!(node.promise_retention(), Ok(WEEK));
            node.hear_retentions(&[liar], false);
            assert_eq!(node.promise_retention(), Ok(WEEK), "fewer answered");
            reactor::sleep(2 * NEW_FOR);
            node.hear_retentions(&[liar, honest, honest], true);
            assert_eq!(node.promise_retention(), Ok(WEEK));
            assert!(node.say_for_how_long().unwrap().is_promised);
            assert_eq!(start().promise_retention(), Ok(WEEK));
        });
    }

    #[test]
    fn what_was_promised_outlives_the_process() {
        reactor::run(|| {
            let store: Rc<dyn Store> = Rc::new(MemoryStore::new());
            let node = |wanted| {
                let node = Node::new(NodeId([1; 32]), store.clone(), Gate::Open, 3);
                node.say_retention(wanted);
                node
            };
            assert_eq!(node(WEEK).promise_retention(), Ok(WEEK));
            let again = node(0);
            assert_eq!(again.promise_retention(), Ok(WEEK));
            let (seconds, next) = again.retention().unwrap();
            assert_eq!((seconds, next.map(|(shorter, _)| shorter)), (WEEK, Some(0)));
            assert_eq!(node(0).retention().unwrap(), (seconds, next), "a restart begins nothing anew");
            assert_eq!(node(2 * WEEK).promise_retention(), Ok(2 * WEEK));
        });
    }
}
