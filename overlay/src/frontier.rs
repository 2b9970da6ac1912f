//! The state of one lookup: candidates by distance to the target, who was asked, who answered.
//!
//! The rule: ask the nearest candidate that was not asked yet, at most [`ALPHA`] at a time, until the `count` nearest
//! that have not failed have all answered. `count` is what the caller needs (say, three replicas), not `K`: in
//! simulation stopping there took a third of the calls.
//!
//! Hedging: a contact that exceeds its patience (a small multiple of its usual round trip) no longer counts as one of
//! the `ALPHA`, nor as one of the `count` while further candidates can be asked. So a dead contact delays the others
//! by its patience, not by its timeout; but as long as its call runs the lookup is not over, because it may be closest.
//!
//! A node that moved is named by some at the old place and by others under its newer record: it is asked again at the new one.
//!
//! Pure: it is told the time, and told the answers. The loop that asks is in `lookup.rs`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::contact::Contact;
use crate::k_bucket::K;
use crate::node_id::{Distance, NodeId};

/// Questions in flight. Three, as in the paper: more made lookups hardly faster in simulation.
pub const ALPHA: usize = 3;
/// Candidates kept, the nearest: a liar's endless answers cost no more than this.
pub const CANDIDATES_MAX: usize = 8 * K;
/// Contacts asked in one lookup. Honest networks of a million nodes need some twenty.
pub const QUESTIONS_MAX: usize = 96;

/// Candidates of one lookup.
#[derive(Debug)]
pub struct Frontier {
    target: NodeId,
    own: NodeId,
    count: usize,
    /// Nearest first.
    candidates: Vec<Candidate>,
    /// Everyone who ever was a candidate: one that was dropped or failed does not come back.
    known: HashSet<NodeId>,
    asked_count: usize,
}

#[derive(Debug)]
struct Candidate {
    distance: Distance,
    contact: Contact,
    /// Answers it took to hear of it.
    hops: u32,
    state: State,
    /// Somebody named it under a newer record after it had been asked.
    is_renewed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Asked { patience_ends: Instant },
    Answered,
    Failed,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this contact.
    Ask(Contact),
    /// Wait for an answer or a failure, and no longer than until then.
    Wait(Option<Instant>),
    /// The lookup is over.
    Done,
}

impl Frontier {
    /// A lookup by `own` for the `count` nodes nearest to `target`, starting from `seeds`.
    pub fn new(own: NodeId, target: NodeId, count: usize, seeds: Vec<Contact>) -> Frontier {
        let known = HashSet::from([own]);
        let mut frontier = Frontier { target, own, count, candidates: Vec::new(), known, asked_count: 0 };
        for seed in seeds {
            frontier.add(seed, 0);
        }
        frontier
    }

    /// Says what to do at `now`. After `Ask` call [`on_asked`](Frontier::on_asked), then this again.
    pub fn step(&self, now: Instant) -> Step {
        let mut asked_count = 0;
        let mut next_hedge: Option<Instant> = None;
        for candidate in &self.candidates {
            if let State::Asked { patience_ends } = candidate.state
                && now < patience_ends
            {
                asked_count += 1;
                next_hedge = Some(next_hedge.map_or(patience_ends, |earlier| earlier.min(patience_ends)));
            }
        }
        let (mut within, mut is_pending) = (0, false);
        for candidate in &self.candidates {
            if within == self.count {
                break;
            }
            match candidate.state {
                State::Failed => {}
                State::Answered => within += 1,
                State::Asked { patience_ends } => {
                    is_pending = true;
                    within += usize::from(now < patience_ends);
                }
                State::Waiting if self.asked_count >= QUESTIONS_MAX => {}
                State::Waiting if asked_count < ALPHA => return Step::Ask(candidate.contact.clone()),
                State::Waiting => return Step::Wait(next_hedge),
            }
        }
        if is_pending { Step::Wait(next_hedge) } else { Step::Done }
    }

    /// Notes that `id` was asked at `now`, and for how long that is nothing unusual.
    pub fn on_asked(&mut self, id: &NodeId, patience: Duration, now: Instant) {
        self.asked_count += 1;
        if let Some(candidate) = self.set_state(id, State::Asked { patience_ends: now + patience }) {
            candidate.is_renewed = false;
        }
    }

    /// Notes the contacts that `id` answered with. Of a longer answer than `K`, or than are looked for, the rest is ignored.
    pub fn on_answer(&mut self, id: &NodeId, contacts: Vec<Contact>) {
        let hops = self.set_state(id, State::Answered).map_or(0, |candidate| candidate.hops) + 1;
        for contact in contacts.into_iter().take(self.count.max(K)) {
            self.add(contact, hops);
        }
    }

    /// Notes that `id` could not be asked, or did not answer.
    pub fn on_failed(&mut self, id: &NodeId) {
        if let Some(candidate) = self.set_state(id, State::Failed)
            && candidate.is_renewed
        {
            candidate.state = State::Waiting;
        }
    }

    /// The nearest contacts that answered, nearest first, at most `count`.
    pub fn closest(&self) -> Vec<Contact> {
        let answered = self.candidates.iter().filter(|candidate| candidate.state == State::Answered);
        answered.take(self.count).map(|candidate| candidate.contact.clone()).collect()
    }

    /// How many were asked.
    pub fn asked_count(&self) -> usize {
        self.asked_count
    }

    /// The longest chain of answers that led to one of the closest: 1 if a seed's own answer or a seed sufficed.
    pub fn hops(&self) -> u32 {
        let answered = self.candidates.iter().filter(|candidate| candidate.state == State::Answered);
        answered.take(self.count).map(|candidate| candidate.hops.max(1)).max().unwrap_or(0)
    }

    fn add(&mut self, contact: Contact, hops: u32) {
        if contact.id == self.own {
            return;
        }
        if !self.known.insert(contact.id) {
            self.renew(contact);
            return;
        }
        let distance = contact.id.distance(&self.target);
        let index = self.candidates.partition_point(|candidate| candidate.distance < distance);
        let candidate = Candidate { distance, contact, hops, state: State::Waiting, is_renewed: false };
        self.candidates.insert(index, candidate);
        if self.candidates.len() > CANDIDATES_MAX
            && let Some(farthest) =
                self.candidates.iter().rposition(|candidate| candidate.state == State::Waiting)
        {
            self.candidates.remove(farthest);
        }
    }

    /// A known candidate is named again. Each newer record is worth one more question, if the last one failed.
    fn renew(&mut self, contact: Contact) {
        let known = self.candidates.iter_mut().find(|candidate| candidate.contact.id == contact.id);
        let Some(candidate) = known.filter(|known| contact.is_newer_than(&known.contact)) else { return };
        candidate.contact = contact;
        match candidate.state {
            State::Failed => candidate.state = State::Waiting,
            State::Asked { .. } => candidate.is_renewed = true,
            State::Waiting | State::Answered => {}
        }
    }

    fn set_state(&mut self, id: &NodeId, state: State) -> Option<&mut Candidate> {
        let candidate = self.candidates.iter_mut().find(|candidate| candidate.contact.id == *id)?;
        candidate.state = state;
        Some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{contact_at, contact_with_record};

    const TARGET: NodeId = NodeId([0; 32]);
    const OWN: NodeId = NodeId([0xff; 32]);
    const PATIENCE: Duration = Duration::from_millis(100);

    /// The contact at distance `number` from the target.
    fn at(number: u8) -> Contact {
        let mut id = [0; 32];
        id[0] = number;
        contact_at(NodeId(id), "127.0.0.1:7000")
    }

    fn contacts(numbers: impl IntoIterator<Item = u8>) -> Vec<Contact> {
        numbers.into_iter().map(at).collect()
    }

    fn frontier(count: usize, seeds: impl IntoIterator<Item = u8>) -> Frontier {
        Frontier::new(OWN, TARGET, count, contacts(seeds))
    }

    /// Asks whomever it wants to ask at `now`, and returns them.
    fn ask_all(frontier: &mut Frontier, now: Instant) -> Vec<Contact> {
        let mut asked = Vec::new();
        while let Step::Ask(contact) = frontier.step(now) {
            frontier.on_asked(&contact.id, PATIENCE, now);
            asked.push(contact);
        }
        asked
    }

    #[test]
    fn the_nearest_alpha_are_asked_first() {
        let now = Instant::now();
        let mut frontier = frontier(8, [9, 5, 7, 3, 8]);
        assert_eq!(ask_all(&mut frontier, now), contacts([3, 5, 7]));
        assert_eq!(frontier.step(now), Step::Wait(Some(now + PATIENCE)));
        frontier.on_answer(&at(5).id, contacts([1, 2]));
        assert_eq!(ask_all(&mut frontier, now), contacts([1]));
    }

    #[test]
    fn it_ends_when_the_count_closest_have_answered() {
        let now = Instant::now();
        let mut frontier = frontier(2, [4, 5, 6, 7]);
        assert_eq!(ask_all(&mut frontier, now), contacts([4, 5]));
        frontier.on_answer(&at(4).id, vec![]);
        assert_ne!(frontier.step(now), Step::Done);
        frontier.on_answer(&at(5).id, contacts([9]));
        assert_eq!(frontier.step(now), Step::Done);
        assert_eq!(frontier.closest(), contacts([4, 5]));
        assert_eq!((frontier.asked_count(), frontier.hops()), (2, 1));
    }

    #[test]
    fn a_nearer_contact_in_the_last_answer_prolongs_it() {
        let now = Instant::now();
        let mut frontier = frontier(1, [4]);
        ask_all(&mut frontier, now);
        frontier.on_answer(&at(4).id, contacts([2]));
        assert_eq!(ask_all(&mut frontier, now), contacts([2]));
        frontier.on_answer(&at(2).id, contacts([4]));
        assert_eq!(frontier.step(now), Step::Done);
        assert_eq!(frontier.closest(), contacts([2]));
    }

    #[test]
    fn a_failed_contact_makes_room_for_the_next() {
        let now = Instant::now();
        let mut frontier = frontier(1, [4, 5]);
        assert_eq!(ask_all(&mut frontier, now), contacts([4]));
        frontier.on_failed(&at(4).id);
        assert_eq!(ask_all(&mut frontier, now), contacts([5]));
        frontier.on_answer(&at(5).id, contacts([4]));
        assert_eq!(frontier.step(now), Step::Done, "a failed contact does not come back");
        assert_eq!(frontier.closest(), contacts([5]));
    }

    #[test]
    fn a_node_that_moved_is_asked_again_where_its_newer_record_says() {
        let now = Instant::now();
        let said = |version| contact_with_record(1, version, &format!("127.0.0.1:{version}"));
        let nearer = contact_at(said(1).id, "127.0.0.1:1");
        let mut frontier = Frontier::new(OWN, said(1).id, 1, vec![nearer.clone(), at(4)]);
        assert_eq!(ask_all(&mut frontier, now), [nearer]);
        frontier.on_failed(&said(1).id);
        assert_eq!(ask_all(&mut frontier, now), [at(4)]);
        frontier.on_answer(&at(4).id, vec![said(2)]);
        // While it is asked there, somebody says that it has moved on.
        assert_eq!(ask_all(&mut frontier, now), [said(2)]);
        frontier.on_answer(&at(4).id, vec![said(3), said(1)]);
        frontier.on_failed(&said(1).id);
        assert_eq!(ask_all(&mut frontier, now), [said(3)]);
        frontier.on_failed(&said(1).id);
        frontier.on_answer(&at(4).id, vec![said(3)]);
        assert!(ask_all(&mut frontier, now).is_empty(), "that was tried");
    }

    #[test]
    fn a_silent_contact_is_hedged_after_its_patience_and_waited_for() {
        let now = Instant::now();
        let mut frontier = frontier(1, [4, 5]);
        assert_eq!(ask_all(&mut frontier, now), contacts([4]));
        let later = now + PATIENCE;
        assert_eq!(ask_all(&mut frontier, later), contacts([5]));
        frontier.on_answer(&at(5).id, vec![]);
        assert_eq!(frontier.step(later), Step::Wait(None), "the silent one may still be closest");
        frontier.on_answer(&at(4).id, vec![]);
        assert_eq!(frontier.step(later), Step::Done);
        assert_eq!(frontier.closest(), contacts([4]));
    }

    #[test]
    fn nobody_to_ask_is_a_lookup_that_found_nobody() {
        let frontier = frontier(3, []);
        assert_eq!(frontier.step(Instant::now()), Step::Done);
        assert!(frontier.closest().is_empty());
    }

    #[test]
    fn we_are_never_a_candidate() {
        let mut frontier = Frontier::new(at(1).id, TARGET, 3, contacts([1, 2]));
        assert_eq!(ask_all(&mut frontier, Instant::now()), contacts([2]));
    }

    #[test]
    fn a_liars_endless_answers_are_bounded() {
        let now = Instant::now();
        let mut frontier = frontier(3, [200]);
        let mut number = 0u32;
        while let Step::Ask(contact) = frontier.step(now) {
            frontier.on_asked(&contact.id, PATIENCE, now);
            let nearer = (0..1000).map(|_| {
                number += 1;
                let mut id = [0; 32];
                id[..4].copy_from_slice(&(0x4000_0000 - number).to_be_bytes());
                contact_at(NodeId(id), "127.0.0.1:7000")
            });
            frontier.on_answer(&contact.id, nearer.collect());
        }
        assert_eq!(frontier.step(now), Step::Done);
        assert!(frontier.asked_count() <= QUESTIONS_MAX && frontier.candidates.len() <= CANDIDATES_MAX);
    }
}
