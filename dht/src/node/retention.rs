//! For how long a node keeps what is deleted, whoever says that it may go: what the network's owner has it promise.
//!
//! The owner says it in his list for all nodes ([`overlay::Revocations`]), and nobody else can. A writer's key that was stolen, or the
//! key of who owns the blocks, hides a block; its bytes stay for so long, counted from when *this* node heard the word, by its own
//! clock. So no word that says how old it is, and none that asks for less, shortens anything. In the same time a keeper of a register
//! keeps what its values were ([`super::past`]).
//!
//! **A longer retention is in force at once, a shorter one only when the former one is over**: whoever has the owner's key for a
//! while cannot have at once what he could not have without it. A node keeps on its disk what it has promised, so a restart
//! shortens nothing. What was deleted before stays as it was promised then: its tombstone says for how long.
//!
//! Not here: what a node does with deleted blocks ([`super::deletions`]).

use bytes::Bytes;
use reactor::serialization::{Versioned, from_envelope, to_envelope};
use reactor::sync::Mutex;
use serde::{Deserialize, Serialize};

use super::deletions::now_seconds;
use super::{Gate, Node, refusal_of};
use crate::block::deletion::RETENTION_SECONDS_MAX;
use crate::message::Refusal;
use crate::store::{Key, Kind, PutOptions, StoreError};

/// What a node promises whose network's owner has never said anything: long enough to be back from a journey, and less than a
/// collector asks for by itself.
pub const DEFAULT_SECONDS: u32 = 7 * 24 * 3600;

/// Where a node notes what it has promised.
const NOTE: Key = Key::new(Kind::NOTE, *b"hypha retention promised by node");

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
}

/// What a node remembers of it beside its store: whether it has looked there, and what it found or has promised since.
pub(super) struct Promised(Mutex<Option<Option<Promise>>>);

impl Default for Promised {
    fn default() -> Promised {
        Promised(Mutex::new(None))
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
        let promise = self.promised_retention()?;
        let wanted = || self.wanted_retention().unwrap_or(DEFAULT_SECONDS);
        let promise = promise.unwrap_or_else(|| Promise { seconds: wanted(), next: None });
        Ok((promise.seconds, promise.next))
    }

    fn promised_retention(&self) -> Result<Option<Promise>, Refusal> {
        let mut known = self.promised.0.lock();
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
        Ok(found)
    }

    fn note_retention(&self, wanted: u32) -> Result<Promise, Refusal> {
        let mut known = self.promised.0.lock();
        let before = self.load_promise(&mut known)?;
        let promise = Promise::heard(before, wanted, now_seconds());
        // Who promises nothing, and has promised nothing, is bound by nothing.
        if before != Some(promise) && (before.is_some() || promise.seconds > 0) {
            // Nothing can be deleted without it.
            let options = PutOptions { may_use_reserve: true, ..PutOptions::default() };
            let put = || self.store.enqueue_with(&NOTE, to_envelope(&promise).into(), options)?.wait();
            reactor::uninterruptible(put).map_err(refusal_of)?;
            *known = Some(Some(promise));
        }
        Ok(promise)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use overlay::NodeId;

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
