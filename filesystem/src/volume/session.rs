//! Whether this mount is the only one that writes, and for how long it may rely on that: the decision, and nothing else.
//!
//! Each mount that may write is a *session*: a record in the tree, which changes as the tree does, by a compare-and-swap on
//! the root. So no two sessions can both believe that there is no other: whoever swaps has seen the root before, and
//! nobody needs to talk to anybody but the register.
//!
//! - A session is `Alone` only where the tree has no other, and acts so for [`LEASE`] less [`MARGIN`] from the beginning of
//!   its last look at the register, or its last swap, that showed none. It looks about each second, so this ends only when
//!   the nodes are away, or when it sleeps.
//! - A newcomer adds itself as `Shared`. If another is `Alone`, it waits until that one's record says otherwise, or until
//!   [`LEASE`] has passed on its own clock since its swap was acknowledged: no look that shows no newcomer began later, so
//!   by then the other's time is over, whatever became of it. It then strikes the other out.
//! - The holder, when it sees a newcomer, is with others from that moment on; then commits what is dirty; the commit that
//!   holds all of it says `Shared`. While that takes long, it *nods* (see [`super::lease`]), and the newcomer waits on.
//! - Whoever would be `Alone` but for one that is silent asks: a number in its record, which a live session repeats in its
//!   own. Who does not, for [`SILENCE`], is struck out. A session that finds itself struck out enters again.
//!
//! One that is struck out is not forgotten, if it has a journal: its record says `Lost`, which is as good as none for all of
//! the above, and stays until it is back, or a mount that has its journal has published what is in that, or its owner says
//! that it never comes back. One that has no journal has nothing that could come back: its record goes. And a session says
//! which collection of garbage it has cleared the way for: a collector waits for all of them, the lost ones too (see
//! `docs/collection.md`; who finds that his record is gone goes by [`super::doubt`]). Only of a user who may not write any more
//! it waits for none: such a record goes at once, whatever it says, for nobody takes anything from him who could rely on it.
//!
//! Clocks need not agree on the time, only run alike: within [`MARGIN`] over [`LEASE`]. Times here include those in which
//! the machine slept; they cannot include those in which it was paused from outside, as a virtual machine is for a snapshot
//! or while it moves to another host. One that was alone when it was paused for longer than [`LEASE`] believes for up to that
//! long that it still is: until its next look, which comes within a second.
//!
//! Not here: reading and writing. This is plain data, told what was seen, and when.

mod changes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use changes::{is_lost, is_same_but_lost};

use crate::format::{Label, SessionRecord, SessionState};

/// How long a look that shows no other session is good for: some tries at a look, and as long as a newcomer waits at most
/// for one that was killed.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// By how much sooner the holder ends: clocks differ by less in a lease, and a request is answered within it.
pub(crate) const MARGIN: Duration = Duration::from_secs(1);
/// After how long without a sign of life another is asked for one: answers cost both a commit.
const ASK_AFTER: Duration = Duration::from_secs(30);
/// How long one that was asked may take. Longer than nodes that restart, so that nobody is struck out for that.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// The sessions in a tree.
pub(crate) type Present = BTreeMap<u64, SessionRecord>;

/// What the records become; `None`: there is none any more.
pub(crate) type Changes = BTreeMap<u64, Option<SessionRecord>>;

/// What a commit is to do about the sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Intent {
    /// Add this one.
    Enter,
    /// Say that this one is with others. The commit has all that it did before it was.
    Share,
    /// Say that this one is alone.
    BeAlone,
    /// Ask the others whether they are there.
    Ask,
    /// Say that this one is.
    Answer,
    /// Count these as lost, unless they gave a sign of life since.
    Strike(Present),
    /// Remove this one.
    Leave,
}

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It announces nothing: a reader, or nobody else can be there.
    Silent,
    /// It is not in the tree, and is to be.
    Out,
    /// It is in the tree, and waits for one that is alone, of which it heard then.
    Entering { heard: Instant },
    /// It is with others.
    Shared,
    /// It is alone, as far as it knows until then.
    Alone { until: Instant },
    /// Its record says that it is alone, and it is not.
    Yielding,
    /// It serves nobody any more, and is not to be in the tree.
    Leaving,
}

/// What a tree says of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It has it, be it as a lost one.
    Known,
    Absent,
    /// It has it, and says that the way is cleared for what this session never heard of: the virtual machine was put back to
    /// an earlier moment, and what was done in its name is yet to be done here.
    PutBack {
        cleared: u64,
    },
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    device: u64,
    since_seconds: i64,
    label: Label,
    member: [u8; 32],
    phase: Phase,
    /// The sessions in the tree that we stand on.
    present: Present,
    /// Those in it that were struck out.
    lost: Present,
    /// The collection that the way is to be cleared for; 0: none. All that is needed for that is in the next commit that begins.
    collection: u64,
    /// The same, of the commit that is under way.
    clearing: u64,
    /// The highest that any commit of ours may have said.
    cleared_max: u64,
    /// When each of the others gave its last sign of life.
    heard: BTreeMap<u64, Instant>,
    /// When our last question was in the tree.
    asked: Option<Instant>,
    /// We committed something since: only who has something to do needs to know who is there.
    has_worked: bool,
    /// A root that is yet to be taken over has other sessions.
    has_seen_other: bool,
    /// Sessions that are over for certain: what they left is in our journal.
    over: Vec<u64>,
    /// What this one has yet to publish may come back after its end.
    has_journal: bool,
    /// Sessions that give no sign of life, somebody says.
    doubted: Vec<u64>,
    /// Sessions that never come back, somebody says.
    forgotten: Vec<u64>,
    /// Sessions of users from whom the nodes take nothing any more, somebody says, as they were when that was seen.
    shut_out: Present,
}

impl Session {
    /// A session that announces nothing yet.
    pub(crate) fn new(
        id: [u8; 8],
        device: u64,
        since_seconds: i64,
        has_journal: bool,
        (label, member): (Label, [u8; 32]),
    ) -> Session {
        Session {
            id: u64::from_le_bytes(id),
            device,
            since_seconds,
            label,
            member,
            phase: Phase::Silent,
            present: Present::new(),
            lost: Present::new(),
            collection: 0,
            clearing: 0,
            cleared_max: 0,
            heard: BTreeMap::new(),
            asked: None,
            has_worked: false,
            has_seen_other: false,
            over: Vec::new(),
            has_journal,
            doubted: Vec::new(),
            forgotten: Vec::new(),
            shut_out: Present::new(),
        }
    }

    /// From now on it wants to be in the tree, in the place of those that are `over`.
    pub(crate) fn announce(&mut self, over: &[[u8; 8]]) {
        self.phase = Phase::Out;
        self.over = over.iter().map(|id| u64::from_le_bytes(*id)).collect();
    }

    pub(crate) fn is_announced(&self) -> bool {
        self.phase != Phase::Silent
    }

    /// From now on it wants to be out of it.
    pub(crate) fn leave(&mut self) {
        if self.phase != Phase::Silent {
            // What is on its way may yet put it there.
            self.phase = Phase::Leaving;
        }
    }

    /// These give no sign of life, somebody says: they are asked for one at once, and struck out if they give none.
    pub(crate) fn count_out(&mut self, sessions: &[u64]) {
        self.doubted.extend_from_slice(sessions);
    }

    /// Those of `sessions` that are in the tree, and not struck out.
    pub(crate) fn present_of(&self, sessions: &[u64]) -> Vec<u64> {
        sessions.iter().copied().filter(|id| self.present.contains_key(id)).collect()
    }

    /// Whether one that is there has answered what it was asked.
    pub(crate) fn has_answered(&self, id: u64) -> bool {
        let asks = self.mine().map_or(0, |mine| mine.asks);
        self.asked.is_some() && self.present.get(&id).is_some_and(|record| record.heard >= asks)
    }

    /// These never come back, somebody says: the records of those of them that are lost are to be taken out of the tree.
    pub(crate) fn forget(&mut self, sessions: &[u64]) {
        self.forgotten.extend_from_slice(sessions);
    }

    /// The nodes take nothing any more from the users of these, somebody says: so they rely on nothing, and these records are to be
    /// taken out of the tree. One that says something else by then is another's word: its user may write again.
    pub(crate) fn shut_out(&mut self, sessions: Present) {
        self.shut_out.extend(sessions);
    }

    /// Whether the tree has none of those that are to be taken out.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.to_forget().next().is_none()
    }

    fn to_forget(&self) -> impl Iterator<Item = u64> {
        let lost = self.lost.keys().filter(|id| self.forgotten.contains(id));
        let known = self.others().chain(self.lost.iter().map(|(id, record)| (*id, record)));
        let is_shut_out = |(id, record): &(u64, &SessionRecord)| {
            *id != self.id && self.shut_out.get(id).is_some_and(|seen| is_same_but_lost(seen, record))
        };
        lost.copied().chain(known.filter(is_shut_out).map(|(id, _)| id))
    }

    /// Those in the tree that are over for certain, oldest first.
    pub(crate) fn over(&self) -> Vec<[u8; 8]> {
        let is_there = |id: &&u64| self.present.contains_key(id) || self.lost.contains_key(id);
        self.over.iter().filter(is_there).map(|id| id.to_le_bytes()).collect()
    }

    /// Whether the tree does not say yet that this one has cleared the way for the collection that began with `version`.
    pub(crate) fn is_to_clear(&self, version: u64) -> bool {
        let mine = self.mine().or_else(|| self.lost.get(&self.id));
        mine.is_some_and(|mine| mine.cleared < version)
    }

    /// The collection that the way is cleared for by the next commit; 0: there is none.
    pub(crate) fn collection(&self) -> u64 {
        self.collection
    }

    /// A commit begins, of all that there is to commit.
    pub(crate) fn on_commit(&mut self) {
        self.clearing = self.collection;
        self.cleared_max = self.cleared_max.max(self.clearing);
    }

    /// What a tree with these sessions says of this one. It is to be asked of each, before a commit is made on it.
    pub(crate) fn standing(&self, present: &Present) -> Standing {
        match present.get(&self.id) {
            None => Standing::Absent,
            Some(mine) if mine.cleared > self.cleared_max => Standing::PutBack { cleared: mine.cleared },
            Some(_) => Standing::Known,
        }
    }

    /// Whether it is to be in the tree, for as long as it has something to store, and is not.
    pub(crate) fn is_absent(&self) -> bool {
        self.phase != Phase::Silent && self.mine().is_none()
    }

    /// With the next commit that begins nothing is needed any more that is older than `collection` and not in its tree.
    pub(crate) fn on_collection(&mut self, collection: u64) {
        self.collection = collection;
    }

    fn mine(&self) -> Option<&SessionRecord> {
        self.present.get(&self.id)
    }

    fn others(&self) -> impl Iterator<Item = (u64, &SessionRecord)> {
        self.present.iter().filter(|(id, _)| **id != self.id).map(|(id, record)| (*id, record))
    }

    fn holders(&self) -> Present {
        let is_holder = |(_, record): &(u64, &SessionRecord)| record.state == SessionState::Alone;
        self.others().filter(is_holder).map(|(id, record)| (id, *record)).collect()
    }

    /// For how long from `now` nobody else publishes anything, or relies on what we published.
    pub(crate) fn alone_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            // A tree that says so, and no look yet, is good for no time at all.
            Phase::Alone { until } => until.checked_duration_since(now).filter(|left| !left.is_zero()),
            _ => None,
        }
    }

    /// Whether nobody else relies on being alone: what others closed is published.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Out => false,
            Phase::Entering { heard } => now >= heard + LEASE,
            _ => true,
        }
    }

    /// Whether it waits for another that is alone, and that gives signs of life or will be silent for long enough.
    pub(crate) fn is_entering(&self) -> bool {
        matches!(self.phase, Phase::Entering { .. })
    }

    /// Whether another waits for us: our record says that we are alone, and we are not. Also while we leave.
    pub(crate) fn is_waited_for(&self) -> bool {
        let is_alone = self.mine().is_some_and(|mine| mine.state == SessionState::Alone);
        is_alone && (self.has_seen_other || self.others().next().is_some())
    }

    /// The sessions in the tree are `present`, as of `now`, by our commit or another's.
    pub(crate) fn on_tree(&mut self, mut present: Present, now: Instant) {
        // Whoever is back was not over: the note beside a copy of its journal said so.
        self.over.retain(|id| !self.lost.contains_key(id) || present.get(id).is_none_or(is_lost));
        self.lost = present.extract_if(.., |_, record| is_lost(record)).collect();
        for (id, record) in &present {
            if *id != self.id && self.present.get(id) != Some(record) {
                self.heard.insert(*id, now);
            }
        }
        self.heard.retain(|id, _| present.contains_key(id));
        self.present = present;
        self.has_seen_other = false;
        let mine = self.mine().map(|mine| mine.state);
        let is_only = self.others().next().is_none();
        let waits = !self.holders().is_empty();
        self.phase = match (mine, self.phase) {
            (_, Phase::Silent | Phase::Leaving) => self.phase,
            (None, _) => Phase::Out,
            (Some(SessionState::Alone), Phase::Alone { until }) if is_only => Phase::Alone { until },
            // A look, or the swap that said so, tells until when.
            (Some(SessionState::Alone), _) if is_only => Phase::Alone { until: now },
            (Some(SessionState::Alone), _) => Phase::Yielding,
            (Some(SessionState::Shared), Phase::Out) if waits => Phase::Entering { heard: now },
            (Some(SessionState::Shared), Phase::Entering { heard }) if waits => Phase::Entering { heard },
            (Some(SessionState::Shared | SessionState::Lost), _) => Phase::Shared,
        };
    }

    /// The register held no root that we do not know at some moment after `begun`.
    pub(crate) fn on_look(&mut self, begun: Instant) {
        if let Phase::Alone { until } = &mut self.phase {
            *until = (*until).max(begun + LEASE - MARGIN);
        }
    }

    /// Our commit, which began then, is published; `has_changes` if it was about files.
    pub(crate) fn on_committed(
        &mut self,
        changes: &Changes,
        has_changes: bool,
        begun: Instant,
        now: Instant,
    ) {
        let mut present = self.present.clone();
        present.extend(&self.lost);
        for (id, record) in changes {
            match record {
                Some(record) => present.insert(*id, *record),
                None => {
                    // Should it be there again, it was not over.
                    self.over.retain(|over| over != id);
                    present.remove(id)
                }
            };
        }
        let asks = |present: &Present| present.get(&self.id).map_or(0, |mine| mine.asks);
        let is_question = asks(&present) > asks(&self.present);
        self.has_worked = (self.has_worked && !is_question) || has_changes;
        if is_question {
            self.asked = Some(now);
        }
        self.on_tree(present, now);
        self.on_look(begun);
    }

    /// A root that is not ours, and is yet to be taken over, holds these.
    pub(crate) fn on_ahead(&mut self, present: &Present) {
        let is_there = |(_, record): &(&u64, &SessionRecord)| !is_lost(record);
        let mut there = present.iter().filter(is_there).map(|(id, _)| *id);
        let is_only = there.next() == Some(self.id) && there.next().is_none();
        self.has_seen_other = !is_only;
        if matches!(self.phase, Phase::Alone { .. }) && !is_only {
            self.phase = Phase::Yielding;
        }
    }

    /// Session `id` published a root.
    pub(crate) fn on_heard(&mut self, id: [u8; 8], now: Instant) {
        let id = u64::from_le_bytes(id);
        if let Some(heard) = self.heard.get_mut(&id) {
            *heard = now;
        }
        if let Phase::Entering { heard } = &mut self.phase
            && self.present.get(&id).is_some_and(|record| record.state == SessionState::Alone)
        {
            *heard = now;
        }
    }

    /// Returns what the next commit is to do about sessions, be it about files or not.
    pub(crate) fn wants(&self, now: Instant) -> Option<Intent> {
        let has_question = || {
            self.mine().is_some_and(|mine| {
                mine.cleared < self.collection || self.others().any(|(_, other)| other.asks > mine.heard)
            })
        };
        match self.phase {
            Phase::Silent => None,
            Phase::Out => Some(Intent::Enter),
            Phase::Leaving => self.mine().or_else(|| self.lost.get(&self.id)).map(|_| Intent::Leave),
            Phase::Yielding => Some(Intent::Share),
            _ if !self.over().is_empty() || !self.has_forgotten() => Some(Intent::Enter),
            Phase::Entering { heard } if now >= heard + LEASE => Some(Intent::Strike(self.holders())),
            Phase::Shared if self.others().next().is_none() => Some(Intent::BeAlone),
            Phase::Shared => self.wants_of_silent(now).or_else(|| has_question().then_some(Intent::Answer)),
            Phase::Entering { .. } | Phase::Alone { .. } => has_question().then_some(Intent::Answer),
        }
    }

    /// What to do about others that give no sign of life, if anything.
    fn wants_of_silent(&self, now: Instant) -> Option<Intent> {
        let mine = self.mine()?;
        let unanswered: Present = self
            .others()
            .filter(|(id, other)| {
                other.heard < mine.asks && (self.doubted.is_empty() || self.doubted.contains(id))
            })
            .map(|(id, record)| (id, *record))
            .collect();
        match self.asked {
            Some(asked) if !unanswered.is_empty() => {
                (now >= asked + SILENCE).then_some(Intent::Strike(unanswered))
            }
            _ => {
                let is_silent = |heard: &Instant| now >= *heard + ASK_AFTER;
                let is_doubted = self.asked.is_none() && !self.present_of(&self.doubted).is_empty();
                let wants = is_doubted || (self.has_worked && self.heard.values().any(is_silent));
                wants.then_some(Intent::Ask)
            }
        }
    }
}

#[cfg(test)]
mod tests;
