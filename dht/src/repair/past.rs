//! Learning what registers were, as others keep it: when this node comes to keep one, when it has lost what it knew, and once at
//! each start.
//!
//! Those are asked who keep the register and who kept it in the epoch before; whose word counts is said in [`crate::past`]. As long
//! as one of them does not answer, or shows what counts as told by too few, they are asked again, ever more rarely: who does not
//! answer may be gone for good, and others may have yet to learn themselves.

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
use crate::past::agreed::{self, Told};
use crate::past::{is_it, list, show};
use crate::store::{Key, Kind};

/// Registers that are looked at between two looks at the store.
const BATCH: usize = 256;

/// What comes after a value: as far as it is here already, under which time.
enum Successor {
    Kept(u64),
    Fetched(SignedRecord),
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
        let (mut count, mut bytes) = self.node.room_to_learn(register);
        let (mut learned, mut left, mut alone) = (0, 0, 0);
        // The one after it that counts, and from when that is.
        let mut successor: Option<(Successor, u64)> = None;
        for (_, value) in told.iter().enumerate().rev().filter(|(index, _)| !over.contains(index)) {
            let known_since = known.get(&value.header_hash);
            let mut times = value.times.clone();
            if !value.is_agreed {
                if known_since.is_some() {
                    continue;
                }
                let before = successor
                    .as_mut()
                    .and_then(|(successor, _)| self.hash_before(register, successor, value.version));
                let is_proved = before == Some(value.header_hash);
                let Some((_, until)) = successor.as_ref().filter(|_| is_proved) else {
                    // Another one may have yet to learn it.
                    alone += 1;
                    continue;
                };
                // What has one word only is from before what proves it.
                times = vec![times[0].min(*until)];
            }
            let until = times[0];
            let found = match known_since {
                Some(since) => {
                    // What it is now this node may have been given only when it came to keep it.
                    if let [since] = times[..] {
                        self.node.learn_since(register, &value.header_hash, since)?;
                    }
                    Successor::Kept(*since)
                }
                None => {
                    let record = self.fetch_past(register, &membership.genesis, value);
                    let length = record.as_ref().map_or(0, |record| record.payload.len() as u64);
                    let Some(record) = record.filter(|_| count >= times.len() && bytes >= length) else {
                        left += 1;
                        continue;
                    };
                    for since in &times {
                        self.node.learn_past(register, *since, &record)?;
                    }
                    (count, bytes, learned) = (count - times.len(), bytes - length, learned + 1);
                    Successor::Fetched(record)
                }
            };
            successor = Some((found, until));
        }
        if learned > 0 || left > 0 {
            tracing::info!(%register, learned, left, "learned from the others what a register was");
        }
        Ok(is_complete && left == 0 && alone == 0)
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
        reactor::scope(|scope| {
            for id in &others {
                let shown = &shown;
                scope.spawn(move || {
                    let Some(contact) = self.contact_of(id) else { return };
                    match list(&self.links, &contact, register) {
                        Ok(entries) => shown.borrow_mut().push((*id, entries)),
                        Err(failure) => {
                            tracing::debug!(%register, node = %contact, "it does not tell what it was: {failure}");
                        }
                    }
                });
            }
        });
        let shown = shown.into_inner();
        let is_complete = shown.len() == others.len();
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
