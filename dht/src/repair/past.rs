//! Learning what registers were, as others keep it: when this node comes to keep one, when it has lost what it knew, and once at
//! each start.
//!
//! Those are asked who keep the register and who kept it in the epoch before; whose word counts is said in [`crate::past`]. As long
//! as one of them does not answer, or shows what counts as told by too few, they are asked again, ever more rarely: who does not
//! answer may be gone for good, and others may have yet to learn themselves.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overlay::{Contact, NodeId, Overlay};
use reactor::cell::RefCell;

use super::{FULL_PAUSE_MAX, RETRY_PAUSE, Repair};
use crate::block::configuration::Membership;
use crate::block::mutable::{Genesis, Signed, SignedRecord};
use crate::block_store::{HeaderHash, RegisterAddress};
use crate::message::{PastEntry, Refusal};
use crate::node::deletions::now_seconds;
use crate::node::past::learned::Known;
use crate::past::agreed::{self, Told};
use crate::past::{is_it, list, show};
use crate::store::{Key, Kind};

/// Registers that are looked at between two looks at the store.
const BATCH: usize = 256;

/// How many are kept of one register at a time that one node alone shows and what came after them proves. Slots end for one node a
/// moment before they do for others, so there are some; and a node that lies has as many as there were commits. Whoever has taken one
/// over by that alone says so, and counts for nobody as one more who tells it.
const PROVED_MAX: usize = 32;

/// What comes after a value: as far as it is here already, under which time.
enum Successor {
    Kept(u64),
    Fetched(SignedRecord),
}

/// Room for what there is to learn of a register.
struct Room {
    count: usize,
    bytes: u64,
}

/// What came of learning a value.
enum Learned {
    /// It is kept, and shown under this second.
    Under(u64),
    /// It has so many bytes.
    TooLarge(u64),
    /// Nobody shows it now, or there is no room.
    Not,
}

/// In an order of which each beginning has some from everywhere.
fn evenly(indexes: &[usize]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..indexes.len()).collect();
    places.sort_unstable_by_key(|place| place.reverse_bits());
    places.into_iter().map(|place| indexes[place]).collect()
}

/// When to ask again what a register was.
struct Again {
    at: Instant,
    pause: Duration,
}

impl<O: Overlay + 'static> Repair<O> {
    /// Learns what registers were, as often as there is reason to, for ever.
    pub(super) fn learn_pasts(&self) {
        self.want_all_pasts();
        let mut pending: BTreeMap<RegisterAddress, Again> = BTreeMap::new();
        loop {
            let next = pending.values().map(|again| again.at).min();
            match next {
                Some(at) => {
                    let pause = at.saturating_duration_since(reactor::now());
                    let _is_asked = reactor::timeout(pause, || self.node.wait_for_wanted_past()).is_ok();
                }
                None => self.node.wait_for_wanted_past(),
            }
            let now = reactor::now();
            for register in self.node.take_wanted_past() {
                pending.insert(register, Again { at: now, pause: RETRY_PAUSE });
            }
            let due: Vec<RegisterAddress> =
                pending.iter().filter(|(_, again)| again.at <= now).map(|(register, _)| *register).collect();
            for register in due {
                let is_done = self.learn_past(&register);
                match pending.get_mut(&register) {
                    Some(again) if !is_done => {
                        again.at = reactor::now() + again.pause;
                        again.pause = (again.pause * 2).min(FULL_PAUSE_MAX);
                    }
                    _ => drop(pending.remove(&register)),
                }
            }
        }
    }

    /// What was asked for before this process began, and what others had then that do not answer now, is not known.
    fn want_all_pasts(&self) {
        let mut from = Some(Key::first(Kind::REGISTER));
        while let Some(start) = from {
            let keys = self.node.store().keys(&start, BATCH);
            for key in keys.iter().filter(|key| key.kind == Kind::REGISTER) {
                self.node.want_past(&RegisterAddress(key.address));
            }
            from = keys.last().and_then(Key::next).filter(|key| key.kind == Kind::REGISTER);
            reactor::yield_now();
        }
    }

    /// Learns what a register was, as far as others tell it who keep it or kept it. Says whether there is nothing to be asked for
    /// again.
    pub(crate) fn learn_past(&self, register: &RegisterAddress) -> bool {
        let view = match self.node.read_register(register) {
            Ok(Some(view)) if view.membership.index_of(&self.node.own()).is_some() => view,
            // It keeps it no more; or has yet to be told again what it is, and then this is asked for as well.
            Ok(_) | Err(Refusal::Amnesiac | Refusal::Damaged) => return true,
            Err(_) => return false,
        };
        // What has yet to be given to this node is no past.
        let Some(accepted) = view.accepted else { return false };
        match self.try_to_learn_past(register, &view.membership, &accepted.record) {
            Ok(is_done) => is_done,
            Err(refusal) => {
                tracing::warn!(%register, "can't keep what a register was: {refusal}");
                false
            }
        }
    }

    fn try_to_learn_past(
        &self,
        register: &RegisterAddress,
        membership: &Membership,
        newest: &SignedRecord,
    ) -> Result<bool, Refusal> {
        let retention = self.node.retention()?.0;
        if retention == 0 {
            return Ok(true);
        }
        let (shown, is_complete) = self.ask_for_past(register, membership);
        // As many liars as a quorum can do without.
        let quorum = membership.quorum();
        let needed = quorum.members - quorum.needed + 1;
        let now = now_seconds();
        let newest = (newest.header.version, newest.hash());
        let is_past = |value: &Told| value.version < newest.0 || (value.version, value.header_hash) == newest;
        let mut told = agreed::agreed(&shown, needed, now);
        told.retain(is_past);
        let over = agreed::over(&told, now.saturating_sub(retention.into()));
        let known = self.node.known_past(register)?;
        let (count, bytes) = self.node.room_to_learn(register);
        let mut room = Room { count, bytes };
        let (mut left, mut alone) = (0, 0);
        // What is agreed on comes first: of what one shows alone it may show any number.
        let mut had: BTreeMap<usize, u64> = BTreeMap::new();
        let mut missing = Vec::new();
        for (index, value) in told.iter().enumerate().filter(|(_, value)| value.is_agreed) {
            match known.get(&value.header_hash) {
                _ if over.contains(&index) => {}
                Some(Known { since_seconds: since, is_proved }) => {
                    let mut since = *since;
                    if *is_proved {
                        since = self.node.agree_on_past(register, since, &value.times)?;
                    }
                    // What it is now this node may have been given only when it came to keep it.
                    if let [told] = value.times[..] {
                        self.node.learn_since(register, &value.header_hash, told)?;
                    }
                    had.insert(index, since);
                }
                None => missing.push(index),
            }
        }
        // Those that take more than their share of the room wait until the others have theirs: whoever pads what he writes keeps
        // nothing out that was before. And where there is too little, none lacks all that is old, or all that is new.
        let share = room.bytes / (missing.len() as u64).max(1);
        let (known_before, mut large) = (had.len(), Vec::new());
        for index in evenly(&missing) {
            match self.learn_told(register, &membership.genesis, &told[index], share, &mut room)? {
                Learned::Under(second) => drop(had.insert(index, second)),
                Learned::TooLarge(length) => large.push((index, length)),
                Learned::Not => left += 1,
            }
        }
        for (index, length) in large {
            let is_room = room.bytes >= length;
            let told = is_room
                .then(|| self.learn_told(register, &membership.genesis, &told[index], u64::MAX, &mut room));
            match told.transpose()? {
                Some(Learned::Under(second)) => drop(had.insert(index, second)),
                _ => left += 1,
            }
        }
        let mut learned = had.len() - known_before;
        let agreed = told.iter().filter(|value| value.is_agreed).map(|value| value.header_hash).collect();
        let mut proved_max = PROVED_MAX.saturating_sub(self.node.count_of_lone(register, &known, &agreed));
        // The one after it that counts, and since when that is at the latest.
        let mut successor: Option<(Successor, u64)> = None;
        for (index, value) in told.iter().enumerate().rev().filter(|(index, _)| !over.contains(index)) {
            if value.is_agreed {
                if let (Some(second), Some(until)) = (had.get(&index), value.times.last()) {
                    successor = Some((Successor::Kept(*second), *until));
                }
                continue;
            }
            if known.contains_key(&value.header_hash) {
                continue;
            }
            let before = successor
                .as_mut()
                .and_then(|(successor, _)| self.hash_before(register, successor, value.version));
            let is_proved = before == Some(value.header_hash) && proved_max > 0;
            let Some((_, until)) = successor.as_ref().filter(|_| is_proved) else {
                // Another one may have yet to learn it.
                alone += 1;
                continue;
            };
            // What its one witness says of when that was counts for nothing.
            let proved = Told { times: vec![until.saturating_sub(1)], ..value.clone() };
            match self.learn_told(register, &membership.genesis, &proved, u64::MAX, &mut room)? {
                Learned::Under(second) => {
                    (proved_max, learned) = (proved_max - 1, learned + 1);
                    successor = Some((Successor::Kept(second), proved.times[0]));
                }
                _ => left += 1,
            }
        }
        if learned > 0 || left > 0 {
            tracing::info!(%register, learned, left, "learned from the others what a register was");
        }
        Ok(is_complete && left == 0 && alone == 0)
    }

    /// Fetches a value of at most `length_max` bytes, and keeps it under its times, if there is room.
    fn learn_told(
        &self,
        register: &RegisterAddress,
        genesis: &Signed<Genesis>,
        value: &Told,
        length_max: u64,
        room: &mut Room,
    ) -> Result<Learned, Refusal> {
        if room.count < value.times.len() {
            return Ok(Learned::Not);
        }
        let Some(record) = self.fetch_past(register, genesis, value) else { return Ok(Learned::Not) };
        let length = record.payload.len() as u64;
        if length > length_max {
            return Ok(Learned::TooLarge(length));
        }
        let Some(latest) = value.times.last().filter(|_| length <= room.bytes) else {
            return Ok(Learned::Not);
        };
        let mut second = *latest;
        for since in &value.times {
            second = self.node.learn_past(register, *since, *latest, &record, !value.is_agreed)?;
        }
        (room.count, room.bytes) = (room.count - value.times.len(), room.bytes - length);
        Ok(Learned::Under(second))
    }

    /// Which value was the one of a version, by the word of what came after it.
    fn hash_before(
        &self,
        register: &RegisterAddress,
        successor: &mut Successor,
        version: u64,
    ) -> Option<HeaderHash> {
        if let Successor::Kept(since) = *successor {
            *successor = Successor::Fetched(self.node.read_past(register, since).ok().flatten()?);
        }
        match successor {
            Successor::Fetched(record) => record.hash_of(version),
            Successor::Kept(_) => None,
        }
    }

    /// What those who keep a register, and those who kept it in the epoch before, show of what it was; and whether all did.
    fn ask_for_past(
        &self,
        register: &RegisterAddress,
        membership: &Membership,
    ) -> (Vec<(NodeId, Vec<PastEntry>)>, bool) {
        let former = membership.configuration.iter().flat_map(|configuration| &configuration.former);
        let others: BTreeSet<NodeId> =
            membership.members().iter().chain(former).copied().filter(|id| *id != self.node.own()).collect();
        let shown: RefCell<Vec<(NodeId, Vec<PastEntry>)>> = RefCell::default();
        let are_whole = Cell::new(true);
        reactor::scope(|scope| {
            for id in &others {
                let (shown, are_whole) = (&shown, &are_whole);
                scope.spawn(move || {
                    let Some(contact) = self.contact_of(id) else { return };
                    match list(&self.links, &contact, register) {
                        Ok(listed) => {
                            if let Some(gap) = listed.gap {
                                are_whole.set(false);
                                tracing::debug!(%register, node = %contact, "it does not tell all of what it was: {gap:?}");
                            }
                            shown.borrow_mut().push((*id, listed.entries));
                        }
                        Err(failure) => {
                            tracing::debug!(%register, node = %contact, "it does not tell what it was: {failure}");
                        }
                    }
                });
            }
        });
        let shown = shown.into_inner();
        let is_complete = shown.len() == others.len() && are_whole.get();
        (shown, is_complete)
    }

    fn contact_of(&self, id: &NodeId) -> Option<Contact> {
        let nearest = self.links.closest(id.0, 1).into_iter().find(|contact| contact.id == *id);
        nearest.or_else(|| self.links.last_known(id))
    }

    /// A value that others show, verified; `None` if nobody shows it now.
    fn fetch_past(
        &self,
        register: &RegisterAddress,
        genesis: &Signed<Genesis>,
        value: &Told,
    ) -> Option<SignedRecord> {
        for (id, since_seconds) in &value.shown_by {
            let Some(contact) = self.contact_of(id) else { continue };
            match show(&self.links, &contact, register, *since_seconds) {
                Ok(Some(record)) if is_it(&record, value.version, &value.header_hash, genesis) => {
                    self.rest(record.payload.len());
                    return Some(record);
                }
                Ok(Some(_)) => {
                    tracing::warn!(%register, node = %contact, "it shows of a register what it did not list, or nobody signed");
                }
                Ok(None) => {}
                Err(failure) => {
                    tracing::debug!(%register, node = %contact, "can't learn what a register was: {failure}");
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn what_comes_first_is_from_everywhere() {
        let indexes: Vec<usize> = (100..1100).collect();
        let order = evenly(&indexes);
        for count in [10, 100, 500] {
            let mut first: Vec<usize> = order[..count].to_vec();
            first.sort_unstable();
            let gap = first.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(first[0] == 100 && gap <= 2 * 1000 / count, "{gap} of {count}");
        }
        let mut all = order;
        all.sort_unstable();
        assert_eq!(all, indexes);
    }
}
