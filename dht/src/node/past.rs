//! What the values of a register were: what a writer's key that was stolen does not take away.
//!
//! Whoever may write may write anything, and the newest value is all that a register is. So its keepers keep beside it some of
//! those that were the newest within the retention ([`super::retention`]): the blocks that such a value reaches are on the nodes as
//! long, whoever deleted them since, and its owner goes back to it by a swap like any other.
//!
//! **Which ones, a writer has no say in.** Of each *slot*, a thousandth of the retention by this node's clock, which is ten minutes of a
//! week, the last value is kept that was accepted in it. Beside it those between which another writer came, as far as `turns` says:
//! the one right before an attack, and the first of the attack. However many commits somebody makes, and in whichever ballots and
//! versions, what was the newest at the end of a slot before his first is kept for the whole retention, and of what the register's
//! owner stored what was the newest a part of a slot before; and their count has a bound. Whoever prepares for it may have what
//! other writers committed in the same slot before be lost.
//!
//! It costs one more write for each slot in which something was accepted, or some where several write. If the disk does not take
//! that, the new value is refused: so a full disk loses none either.
//!
//! Values are kept as their writers signed them, with the list of writers that they went by: any reader can verify them. When
//! one was accepted, this node says, and nobody else can tell. What it took no part in it keeps by the word of others, beside its own
//! (`learned`). Not here: which of them a reader wants.

pub(crate) mod learned;
pub(super) mod turns;

use reactor::serialization::{Versioned, from_envelope, to_envelope};
use serde::{Deserialize, Serialize};

use super::deletions::now_seconds;
use super::stored_register::StoredRegister;
use super::{Node, refusal_of};
use crate::block::mutable::SignedRecord;
use crate::block_store::RegisterAddress;
use crate::message::{PastEntry, Refusal};
use crate::store::{Key, Kind, PutOptions, StoreError};
use turns::{IN_SLOT_MAX, Turns};

/// How many values one answer lists: some 150 bytes each, and a read of the disk.
pub const PAST_LISTED_MAX: usize = 128;

/// Into how many slots the retention is cut: a value of each, of some 2 KiB if they are a drive's roots, is 2 MiB. Where the owner and
/// another write in turns all the time there are up to 35, which is 70 MiB.
const SLOT_COUNT: u64 = 1008;

/// How many are kept of one register at most, however the clock goes.
pub(crate) const KEPT_MAX: usize = IN_SLOT_MAX * SLOT_COUNT as usize + 16;

/// Times that are looked at at once for one that is free; and how many values are read to see whether one is there already.
const RUN_BATCH: usize = 64;
const READ_MAX: usize = 32;

/// Keys looked at between two yields.
const BATCH: usize = 256;

/// How many bytes of a register's address its values' keys begin with; the time follows.
const PREFIX_BYTES: usize = 24;

/// A value as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// When it was accepted, at the latest: of what was learned others may say two times, and then it lies under both.
    since_seconds: u64,
    record: SignedRecord,
    /// See [`PastEntry::is_proved`].
    #[serde(default)]
    is_proved: bool,
}

impl Versioned for Kept {
    const TYPE_NAME: &'static str = "hypha past value";
    const VERSION: u32 = 1;
}

/// How long a slot is.
fn slot_seconds(retention_seconds: u32) -> u64 {
    u64::from(retention_seconds).div_ceil(SLOT_COUNT).max(1)
}

/// Of the values that were accepted at `times`, in order, the last of which was replaced at `now`: those that need not be kept any more.
/// None within the retention as long as there are no more than may be: what was kept in shorter slots, under a retention that was
/// shorter, stays when that becomes longer, as it does when somebody has seen an attack. Beyond that first what is neither of the first
/// ones nor the last of a slot, as between those writers took turns.
fn superfluous(times: &[u64], now: u64, retention_seconds: u32) -> Vec<u64> {
    let begin = now.saturating_sub(retention_seconds.into());
    let slot = |time: &u64| time / slot_seconds(retention_seconds);
    let is_over = |index: usize| times.get(index + 1).copied().unwrap_or(now) < begin;
    let is_between = |index: usize| {
        let before = index.checked_sub(IN_SLOT_MAX).map(|index| slot(&times[index]));
        let here = Some(slot(&times[index]));
        before == here && times.get(index + 1).map(slot) == here
    };
    let (over, left): (Vec<usize>, Vec<usize>) = (0..times.len()).partition(|index| is_over(*index));
    let excess = left.len().saturating_sub(KEPT_MAX);
    let mut gone = over;
    if excess > 0 {
        let (between, others): (Vec<usize>, Vec<usize>) =
            left.into_iter().partition(|index| is_between(*index));
        gone.extend(between.into_iter().chain(others).take(excess));
        gone.sort_unstable();
    }
    gone.into_iter().map(|index| times[index]).collect()
}

fn key(register: &RegisterAddress, since_seconds: u64) -> Key {
    key_in(Kind::PAST, register, since_seconds)
}

fn key_in(kind: Kind, register: &RegisterAddress, since_seconds: u64) -> Key {
    let mut address = register.0;
    address[PREFIX_BYTES..].copy_from_slice(&since_seconds.to_be_bytes());
    Key::new(kind, address)
}

fn time_of(key: &Key) -> u64 {
    let (_, time) = key.address.split_last_chunk::<8>().expect("an address is longer");
    u64::from_be_bytes(*time)
}

impl Node {
    /// Keeps the value that `next` takes the place of, if it is to be kept, before it is gone; `next` says what is to be kept of what
    /// follows.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk, once for each slot.
    pub(super) fn keep_past(
        &self,
        register: &RegisterAddress,
        before: Option<&StoredRegister>,
        next: &mut StoredRegister,
    ) -> Result<(), Refusal> {
        let Some((since, accepted)) = before.and_then(StoredRegister::value_since) else {
            next.turns = Turns::default();
            return Ok(());
        };
        let Some((_, newer)) = next.value_since() else { return Ok(()) };
        if newer.record.hash() == accepted.record.hash() {
            return Ok(());
        }
        let retention = self.promise_retention()?;
        if retention == 0 {
            return Ok(());
        }
        let (now, slot) = (now_seconds(), slot_seconds(retention));
        let owner = next.membership.genesis.owner;
        let mut turns = next.turns.clone();
        let is_of_turn = turns.take(&accepted.record, &newer.record, &owner, now, slot);
        next.turns = turns;
        let is_last_of_slot = since / slot != now / slot;
        if !is_last_of_slot && !is_of_turn {
            return Ok(());
        }
        if let Some(second) = self.free_second(register, since, &accepted.record)? {
            let kept = Kept { since_seconds: since, record: accepted.record.clone(), is_proved: false };
            // It keeps somebody from taking things away, and there are few of them.
            let options = PutOptions { may_use_reserve: true, ..PutOptions::default() };
            let key = key(register, second);
            let put = || self.store.enqueue_with(&key, to_envelope(&kept).into(), options)?.wait();
            reactor::uninterruptible(put).map_err(refusal_of)?;
        }
        for time in superfluous(&self.past_times(register, 0, usize::MAX), now, retention) {
            // If one is there for longer, no harm is done.
            drop(self.store.enqueue_remove(&key(register, time)));
        }
        self.forget_learned(register, now, retention)
    }

    /// The first second from `since` on under which nothing is kept: whoever commits in the same one takes away nothing that is kept of
    /// others, nor does a clock that was set back. `None` if that is kept already.
    fn free_second(
        &self,
        register: &RegisterAddress,
        since: u64,
        record: &SignedRecord,
    ) -> Result<Option<u64>, Refusal> {
        let (mut free, mut reads_left) = (since, READ_MAX);
        loop {
            let taken = self.all_times(register, free, RUN_BATCH);
            let is_whole = taken.len() == RUN_BATCH;
            for taken in taken {
                if taken != free {
                    return Ok(Some(free));
                }
                // Who asks knows as a rule that it is not. Whoever claims that all was in one second has nobody read all for each.
                let is_read = reads_left > 0;
                reads_left -= usize::from(is_read);
                let kept = is_read.then(|| self.read_kept(register, taken)).transpose()?.flatten();
                if kept.is_some_and(|kept| kept.record.hash() == record.hash()) {
                    return Ok(None);
                }
                free = taken.saturating_add(1);
            }
            if !is_whole || free == u64::MAX {
                return Ok(Some(free));
            }
        }
    }

    /// When the values were accepted that are kept of a register, from that time on, the oldest first.
    fn past_times(&self, register: &RegisterAddress, from_seconds: u64, count_max: usize) -> Vec<u64> {
        self.times_in(Kind::PAST, register, from_seconds, count_max)
    }

    fn times_in(
        &self,
        kind: Kind,
        register: &RegisterAddress,
        from_seconds: u64,
        count_max: usize,
    ) -> Vec<u64> {
        let count_max = count_max.min(2 * KEPT_MAX);
        let is_its =
            |key: &&Key| key.kind == kind && key.address[..PREFIX_BYTES] == register.0[..PREFIX_BYTES];
        let mut times = Vec::new();
        let mut from = Some(key_in(kind, register, from_seconds));
        // What others have follows: no more of that is read than a batch.
        while let Some(start) = from.take().filter(|_| times.len() < count_max) {
            let wanted = BATCH.min(count_max - times.len());
            let keys = self.store.keys(&start, wanted);
            let before = times.len();
            times.extend(keys.iter().take_while(is_its).map(time_of));
            if times.len() - before == wanted {
                from = keys.last().and_then(Key::next);
            }
        }
        times
    }

    /// As `past_times`, those that others tell as well.
    fn all_times(&self, register: &RegisterAddress, from_seconds: u64, count_max: usize) -> Vec<u64> {
        let mut times = self.past_times(register, from_seconds, count_max);
        times.extend(self.times_in(Kind::LEARNED_PAST, register, from_seconds, count_max));
        times.sort_unstable();
        times.dedup();
        times.truncate(count_max);
        times
    }

    /// Forgets what was replaced longer ago than the retention, also of registers in which nothing is accepted any more: of
    /// these the last one stays.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk; it lets others run now and then.
    pub fn forget_past(&self) -> Result<(), Refusal> {
        let begin = now_seconds().saturating_sub(self.retention()?.0.into());
        let (mut from, mut before) = (Some(Key::first(Kind::PAST)), None::<Key>);
        while let Some(start) = from {
            let keys = self.store.keys(&start, BATCH);
            for key in keys.iter().filter(|key| key.kind == Kind::PAST) {
                let is_of_one = |before: &Key| before.address[..PREFIX_BYTES] == key.address[..PREFIX_BYTES];
                if let Some(before) = before.filter(is_of_one)
                    && time_of(key) < begin
                {
                    self.store.remove(&before).map_err(refusal_of)?;
                }
                before = Some(*key);
            }
            from = keys.last().and_then(Key::next).filter(|key| key.kind == Kind::PAST);
            reactor::yield_now();
        }
        self.forget_all_learned()
    }

    /// Lists what a register's values were that this node accepted at that time or later, the oldest first, and last the one that it
    /// has now, which is from an earlier time if the clock was set back: at most [`PAST_LISTED_MAX`]. What can't be read is left
    /// out, and nothing that can be is behind an empty list.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk, and while a write to this register is on its way there.
    pub fn list_past(
        &self,
        register: &RegisterAddress,
        from_seconds: u64,
    ) -> Result<Vec<PastEntry>, Refusal> {
        let entry = |since_seconds: u64, record: &SignedRecord, is_proved: bool| PastEntry {
            since_seconds,
            version: record.header.version,
            header_hash: record.hash(),
            writer: record.header.writer,
            is_proved,
        };
        let mut listed = Vec::new();
        let (mut from, mut is_last_page) = (Some(from_seconds), true);
        while let Some(start) = from.take().filter(|_| listed.is_empty()) {
            let mut times = self.all_times(register, start, PAST_LISTED_MAX);
            is_last_page = times.len() < PAST_LISTED_MAX;
            if !is_last_page {
                // So that the last page has one of them: whoever gets that asks for no more.
                times.pop();
                from = times.last().and_then(|last| last.checked_add(1));
            }
            for time in times {
                let kept = self.read_kept(register, time)?;
                listed.extend(kept.map(|kept| entry(time, &kept.record, kept.is_proved)));
            }
        }
        // What has yet to be learned again, or is damaged, hides nothing of what was.
        if is_last_page && let Ok(Some((since, record))) = self.accepted_since(register) {
            // Else whoever asks has had it.
            if since >= from_seconds || !listed.is_empty() {
                listed.push(entry(since, &record, false));
            }
        }
        Ok(listed)
    }

    /// The value that was accepted then, if it is kept or is the one that this node has now. Of two of one second that is the earlier.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk, and while a write to this register is on its way there.
    pub fn read_past(
        &self,
        register: &RegisterAddress,
        since_seconds: u64,
    ) -> Result<Option<SignedRecord>, Refusal> {
        if let Some(kept) = self.read_kept(register, since_seconds)? {
            return Ok(Some(kept.record));
        }
        let accepted = self.accepted_since(register).ok().flatten();
        Ok(accepted.filter(|(since, _)| *since == since_seconds).map(|(_, record)| record))
    }

    fn read_kept(&self, register: &RegisterAddress, since_seconds: u64) -> Result<Option<Kept>, Refusal> {
        for kind in [Kind::PAST, Kind::LEARNED_PAST] {
            let kept = self.read_in(kind, register, since_seconds)?;
            let kept = kept.filter(|kept| kept.record.header.address == *register);
            if kept.is_some() {
                return Ok(kept);
            }
        }
        Ok(None)
    }

    fn read_in(&self, kind: Kind, register: &RegisterAddress, time: u64) -> Result<Option<Kept>, Refusal> {
        let stored = match self.store.get(&key_in(kind, register, time), None) {
            Err(StoreError::Damaged(_)) => None,
            stored => stored.map_err(refusal_of)?,
        };
        Ok(stored.and_then(|bytes| from_envelope(&bytes).ok()))
    }
}

#[cfg(test)]
impl Node {
    /// Has it show another value.
    pub(crate) fn put_past(&self, register: &RegisterAddress, since_seconds: u64, record: SignedRecord) {
        let kept = Kept { since_seconds, record, is_proved: false };
        self.store.put(&key(register, since_seconds), to_envelope(&kept).into()).unwrap();
    }

    /// Has it forget one.
    pub(crate) fn forget_one(&self, register: &RegisterAddress, since_seconds: u64) {
        self.store.remove(&key(register, since_seconds)).unwrap();
    }
}

#[cfg(test)]
mod tests;
