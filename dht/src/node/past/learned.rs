//! What the values of a register were by the word of the others that keep or kept it: what a node took no part in, or has lost.
//!
//! Whoever comes to keep a register, in the place of one that leaves, would otherwise know nothing from before, and with the last of
//! those who knew it the past would be gone. What is learned lies beside what the node accepted itself, and takes nothing of that
//! away: of how many there are for a slot others have seen to already, so these are not thinned out here. So whoever lies about when
//! something was pushes nothing out. They go as the retention goes by, and have bounds of their own.
//!
//! Not here: whose word counts ([`crate::past`]), and asking them ([`crate::repair`]).

use std::collections::{BTreeMap, BTreeSet};

use reactor::serialization::to_envelope;

use super::{BATCH, KEPT_MAX, Kept, PREFIX_BYTES, key_in, time_of};
use crate::block::mutable::SignedRecord;
use crate::block_store::{HeaderHash, RegisterAddress};
use crate::message::Refusal;
use crate::node::deletions::now_seconds;
use crate::node::stored_register::StoredRegister;
use crate::node::{Node, refusal_of};
use crate::store::{Key, Kind};

/// How many are learned of one register at most: as many as one that keeps it has of its own, and half as many again, since no two
/// have quite the same.
pub(crate) const LEARNED_MAX: usize = KEPT_MAX + KEPT_MAX / 2;

/// How many bytes of one register: of a drive's roots, of some 2 KiB, as many as there may be.
pub(crate) const LEARNED_BYTES_MAX: u64 = 40 << 20;

/// Which of the values that were learned under `learned` times need not be kept any more; `all` are the times of all that is kept, in
/// order, and of what the register is now.
fn over(learned: &[u64], all: &[u64], begin: u64) -> Vec<u64> {
    let next = |time: u64| all.get(all.partition_point(|other| *other <= time));
    learned.iter().copied().filter(|time| next(*time).is_some_and(|next| *next < begin)).collect()
}

impl Node {
    /// Asks repair to ask others what a register was.
    pub(crate) fn want_past(&self, register: &RegisterAddress) {
        self.wanted_past.borrow_mut().insert(*register);
        self.wanted_past_signal.notify_all();
    }

    /// Takes the registers of which repair was asked to learn what they were.
    pub(crate) fn take_wanted_past(&self) -> BTreeSet<RegisterAddress> {
        std::mem::take(&mut *self.wanted_past.borrow_mut())
    }

    /// Waits until repair is asked what a register was.
    pub(crate) fn wait_for_wanted_past(&self) {
        if self.wanted_past.borrow().is_empty() {
            self.wanted_past_signal.wait();
        }
    }

    /// Which values of a register this node can show, and under which time: what it keeps, whoever says so, and what it is now.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk.
    pub(crate) fn known_past(
        &self,
        register: &RegisterAddress,
    ) -> Result<BTreeMap<HeaderHash, u64>, Refusal> {
        let mut known = BTreeMap::new();
        for time in self.all_times(register, 0, usize::MAX) {
            known.extend(self.read_kept(register, time)?.map(|record| (record.hash(), time)));
        }
        known.extend(self.accepted_since(register)?.map(|(since, record)| (record.hash(), since)));
        Ok(known)
    }

    /// Room for what there is to learn of a register yet: values, and bytes.
    pub(crate) fn room_to_learn(&self, register: &RegisterAddress) -> (usize, u64) {
        let times = self.times_in(Kind::LEARNED_PAST, register, 0, usize::MAX);
        let length =
            |time: &u64| self.store.length(&key_in(Kind::LEARNED_PAST, register, *time)).unwrap_or(0);
        let bytes: u64 = times.iter().map(|time| u64::from(length(time))).sum();
        (LEARNED_MAX.saturating_sub(times.len()), LEARNED_BYTES_MAX.saturating_sub(bytes))
    }

    /// Keeps a value that a register had from that time on, by the word of others; the caller has verified it, and that there is room.
    ///
    /// # Errors
    /// If the store fails, or is full: what others have is no reason to take what is kept back.
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn learn_past(
        &self,
        register: &RegisterAddress,
        since_seconds: u64,
        record: &SignedRecord,
    ) -> Result<(), Refusal> {
        self.refuse_if_withdrawn()?;
        // Not while something is accepted, whose predecessor may be about to be kept under this second.
        let slot = self.registers.slot(register);
        let _state = slot.lock();
        let Some(second) = self.free_second(register, since_seconds, record)? else { return Ok(()) };
        let kept = Kept { since_seconds, record: record.clone() };
        let key = key_in(Kind::LEARNED_PAST, register, second);
        let put = || self.store.enqueue(&key, to_envelope(&kept).into())?.wait();
        reactor::uninterruptible(put).map_err(refusal_of)
    }

    /// Takes it that a register has been what it is since that time, by the word of others, if it still is that and this node came to
    /// have it only later.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn learn_since(
        &self,
        register: &RegisterAddress,
        of: &HeaderHash,
        since_seconds: u64,
    ) -> Result<(), Refusal> {
        let slot = self.registers.slot(register);
        let mut state = slot.lock();
        self.load(register, &mut state)?;
        let is_it = |state: &&StoredRegister| {
            state
                .value_since()
                .is_some_and(|(since, value)| since > since_seconds && value.record.hash() == *of)
        };
        let Some(known) = state.as_ref().filter(is_it) else { return Ok(()) };
        let next = StoredRegister { since_seconds, ..known.clone() };
        self.persist(register, &mut state, next)
    }

    /// Forgets what was learned of a register and was replaced longer ago than the retention.
    pub(super) fn forget_learned(&self, register: &RegisterAddress, now: u64, retention_seconds: u32) {
        let learned = self.times_in(Kind::LEARNED_PAST, register, 0, usize::MAX);
        if learned.is_empty() {
            return;
        }
        let mut all = self.all_times(register, 0, usize::MAX);
        all.push(now);
        for time in over(&learned, &all, now.saturating_sub(retention_seconds.into())) {
            // If one is there for longer, no harm is done.
            drop(self.store.enqueue_remove(&key_in(Kind::LEARNED_PAST, register, time)));
        }
    }

    /// As `forget_learned`, of all registers: also of those in which nothing is accepted any more, of which the last value stays.
    pub(super) fn forget_all_learned(&self) -> Result<(), Refusal> {
        let begin = now_seconds().saturating_sub(self.retention()?.0.into());
        let mut from = Some(Key::first(Kind::LEARNED_PAST));
        while let Some(start) = from {
            let found = self.store.keys(&start, 1);
            let Some(first) = found.first().filter(|key| key.kind == Kind::LEARNED_PAST) else { break };
            // Its values' keys tell no more of a register than this; what it is now has a time as well, which they go without.
            let register = RegisterAddress(first.address);
            let learned = self.times_in(Kind::LEARNED_PAST, &register, 0, usize::MAX);
            let all = self.all_times(&register, 0, usize::MAX);
            for some in over(&learned, &all, begin).chunks(BATCH) {
                for time in some {
                    let key = key_in(Kind::LEARNED_PAST, &register, *time);
                    self.store.remove(&key).map_err(refusal_of)?;
                }
                reactor::yield_now();
            }
            let mut last = *first;
            last.address[PREFIX_BYTES..].fill(0xff);
            debug_assert!(time_of(&last) == u64::MAX);
            from = last.next();
            reactor::yield_now();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_goes_when_what_followed_it_is_older_than_the_retention_whoever_said_so() {
        assert_eq!(over(&[10, 30], &[10, 20, 30, 100], 21), [10]);
        assert!(over(&[10, 30], &[10, 20, 30, 100], 20).is_empty(), "the second was that until just then");
        assert_eq!(over(&[10, 30], &[10, 20, 30], 1000), [10], "of what it was last nobody says until when");
        assert_eq!(over(&[10, 30], &[10, 20, 30, 100], 1000), [10, 30]);
    }
}
