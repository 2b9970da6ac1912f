//! What the values of a register were by the word of the others that keep or kept it: what a node took no part in, or has lost.
//!
//! Whoever comes to keep a register, in the place of one that leaves, would otherwise know nothing from before, and with the last of
//! those who knew it the past would be gone. What is learned lies beside what the node accepted itself, and takes nothing of that
//! away: of how many there are for a slot others have seen to already, so these are not thinned out here. So whoever lies about when
//! something was pushes nothing out. They go as the retention goes by, and have bounds of their own: one ends with a later *version*, at
//! the latest time that is said of that, since a time that one alone may have made up would end what was there much longer.
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

/// How many bytes of one register: of a drive's roots, of some 2 KiB, as many as there are where two write in turns all the time.
pub(crate) const LEARNED_BYTES_MAX: u64 = 96 << 20;

/// Where a value is that this node can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Under which time.
    pub(crate) since_seconds: u64,
    /// See [`PastEntry::is_proved`](crate::message::PastEntry::is_proved).
    pub(crate) is_proved: bool,
}

/// What is kept of a register from before the retention began.
struct Aged {
    /// Under which time it lies.
    key: u64,
    version: u64,
    /// When it was accepted at the latest, by what anybody says who may be right.
    latest: u64,
}

/// Which of what is kept need not be kept any more: what was followed before the retention began, by something of which nobody who
/// may be right says that it came later. What lies between two of them by its time only ends neither.
fn over(aged: &[Aged], begin: u64) -> Vec<u64> {
    let followed = aged.iter().filter(|one| one.latest < begin).map(|one| one.version).max();
    let is_over = |one: &&Aged| followed.is_some_and(|followed| one.version < followed);
    aged.iter().filter(is_over).map(|one| one.key).collect()
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
    ) -> Result<BTreeMap<HeaderHash, Known>, Refusal> {
        let mut known = BTreeMap::new();
        for since_seconds in self.all_times(register, 0, usize::MAX) {
            let Some(Kept { record, is_proved, .. }) = self.read_kept(register, since_seconds)? else {
                continue;
            };
            known.insert(record.hash(), Known { since_seconds, is_proved });
        }
        if let Some((since_seconds, record)) = self.accepted_since(register)? {
            known.insert(record.hash(), Known { since_seconds, is_proved: false });
        }
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

    /// How many of `known` are kept by the word of others and are none of `agreed`.
    pub(crate) fn count_of_lone(
        &self,
        register: &RegisterAddress,
        known: &BTreeMap<HeaderHash, Known>,
        agreed: &BTreeSet<HeaderHash>,
    ) -> usize {
        let learned: BTreeSet<u64> =
            self.times_in(Kind::LEARNED_PAST, register, 0, usize::MAX).into_iter().collect();
        let is_lone = |(hash, known): &(&HeaderHash, &Known)| {
            learned.contains(&known.since_seconds) && !agreed.contains(hash)
        };
        known.iter().filter(is_lone).count()
    }

    /// Keeps a value that a register had from that time on, by the word of others, who say nothing later of it than
    /// `latest_seconds`; the caller has verified it, and that there is room. If it `is_proved` only, that is shown as well. Returns the
    /// second under which it is shown.
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
        latest_seconds: u64,
        record: &SignedRecord,
        is_proved: bool,
    ) -> Result<u64, Refusal> {
        self.refuse_if_withdrawn()?;
        // Not while something is accepted, whose predecessor may be about to be kept under this second.
        let slot = self.registers.slot(register);
        let _state = slot.lock();
        let Some(second) = self.free_second(register, since_seconds, record)? else {
            return Ok(since_seconds);
        };
        let kept = Kept { since_seconds: latest_seconds, record: record.clone(), is_proved };
        let key = key_in(Kind::LEARNED_PAST, register, second);
        let put = || self.store.enqueue(&key, to_envelope(&kept).into())?.wait();
        reactor::uninterruptible(put).map_err(refusal_of)?;
        Ok(second)
    }

    /// Takes it that a value that was only proved counts: as many have said so since as count. From then on it is shown under the
    /// `times` that they say, one or two, and no more as from right before what came after it. Returns the last second under which it is shown.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn agree_on_past(
        &self,
        register: &RegisterAddress,
        since_seconds: u64,
        times: &[u64],
    ) -> Result<u64, Refusal> {
        self.refuse_if_withdrawn()?;
        let slot = self.registers.slot(register);
        let _state = slot.lock();
        let Some(kept) = self.read_in(Kind::LEARNED_PAST, register, since_seconds)? else {
            return Ok(since_seconds);
        };
        let latest = times.last().copied().unwrap_or(since_seconds);
        let kept = Kept { is_proved: false, since_seconds: latest, ..kept };
        let (mut second, mut stays) = (since_seconds, times.is_empty());
        for time in times {
            // Where it is kept from then on already, that may be under this very second.
            second = self.free_second(register, *time, &kept.record)?.unwrap_or(since_seconds);
            stays |= second == since_seconds;
            let key = key_in(Kind::LEARNED_PAST, register, second);
            let put = || self.store.enqueue(&key, to_envelope(&kept).into())?.wait();
            reactor::uninterruptible(put).map_err(refusal_of)?;
        }
        if !stays {
            self.store.remove(&key_in(Kind::LEARNED_PAST, register, since_seconds)).map_err(refusal_of)?;
        }
        Ok(second)
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

    /// Under which times something was learned of a register that was replaced before the retention began.
    fn learned_over(&self, register: &RegisterAddress, begin: u64) -> Result<Vec<u64>, Refusal> {
        let aged_in = |kind| {
            let times = self.times_in(kind, register, 0, usize::MAX);
            times.into_iter().take_while(|time| *time < begin).collect::<Vec<u64>>()
        };
        let learned = aged_in(Kind::LEARNED_PAST);
        let mut aged = Vec::new();
        if learned.is_empty() {
            return Ok(Vec::new());
        }
        for (kind, times) in [(Kind::PAST, aged_in(Kind::PAST)), (Kind::LEARNED_PAST, learned.clone())] {
            for key in times {
                aged.push(match self.read_in(kind, register, key)? {
                    Some(Kept { since_seconds, record, .. }) => {
                        Aged { key, version: record.header.version, latest: since_seconds.max(key) }
                    }
                    // It is shown to nobody, and goes with the first that does.
                    None => Aged { key, version: 0, latest: u64::MAX },
                });
            }
        }
        let learned: BTreeSet<u64> = learned.into_iter().collect();
        Ok(over(&aged, begin).into_iter().filter(|time| learned.contains(time)).collect())
    }

    /// Forgets what was learned of a register and was replaced longer ago than the retention.
    pub(super) fn forget_learned(
        &self,
        register: &RegisterAddress,
        now: u64,
        retention_seconds: u32,
    ) -> Result<(), Refusal> {
        for time in self.learned_over(register, now.saturating_sub(retention_seconds.into()))? {
            // If one is there for longer, no harm is done.
            drop(self.store.enqueue_remove(&key_in(Kind::LEARNED_PAST, register, time)));
        }
        Ok(())
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
            for some in self.learned_over(&register, begin)?.chunks(BATCH) {
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

    fn over_of(kept: &[(u64, u64, u64)], begin: u64) -> Vec<u64> {
        let aged: Vec<Aged> =
            kept.iter().map(|&(key, version, latest)| Aged { key, version, latest }).collect();
        over(&aged, begin)
    }

    #[test]
    fn what_is_kept_goes_when_what_followed_it_is_older_than_the_retention() {
        assert_eq!(over_of(&[(10, 1, 10), (20, 2, 20), (30, 3, 30)], 21), [10]);
        assert!(over_of(&[(10, 1, 10), (20, 2, 20)], 20).is_empty(), "the first was that until just then");
        assert_eq!(
            over_of(&[(10, 1, 10), (20, 2, 20)], 1000),
            [10],
            "of what it was last nobody says until when"
        );
    }

    #[test]
    fn neither_the_earlier_of_two_times_nor_an_earlier_version_under_a_later_one_ends_what_was_there() {
        let disputed = [(10, 1, 10), (11, 2, 500), (500, 2, 500)];
        assert!(over_of(&disputed, 400).is_empty());
        assert_eq!(over_of(&disputed, 501), [10]);
        assert_eq!(over_of(&[(10, 1, 10), (20, 3, 20), (30, 2, 30)], 100), [10, 30]);
        assert_eq!(over_of(&[(5, 0, u64::MAX), (10, 1, 10)], 11), [5], "it can't be read");
    }
}
