//! Who may write, in the model of [`super::model`].
//!
//! The owner, who is client 0, changes the list of writers with a value: each odd list puts out the one writer [`GONE`],
//! each even one lets it in again. What a node does about lists is as in [`crate::node`], what a client does as in
//! [`crate::register`], whose rules it shares ([`Met`](crate::register::lists::Met)). Once a quorum knows that it is out, that
//! writer takes no step of the protocol any more: it signs what it likes, as long as a member takes it, which is one that
//! was cut off meanwhile.

use std::cmp::Reverse;

use super::model::{Entries, Fault, Message, Value, World, content, seal_of};
use super::model_client::{Client, Phase};
use super::{Accepted, Acceptor, Ballot, ProposerId};
use crate::block::proposal::InForce;
use crate::register::lists::{Lists, Met};

/// The client that lists of writers put out.
pub(super) const GONE: usize = 2;

/// As many as there are numbers for.
const TRAPS_MAX: u8 = 12;

/// Proposers from here on are those of traps.
const TRAPPER: u8 = 0xe0;

/// Whether a list names a client.
pub(super) fn names(list: u64, client: usize) -> bool {
    client != GONE || list.is_multiple_of(2)
}

/// What a client signs: under one ballot, once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Proposal {
    /// What is proposed; `None` to prepare the ballot.
    pub(super) entries: Option<Entries>,
    /// The ballot that is to be prepared with it.
    pub(super) next: Ballot,
    pub(super) by: usize,
    pub(super) list: u64,
    pub(super) in_force: Option<InForce>,
}

/// Whether an acceptor has what [`GONE`] signed while it was out.
pub(super) fn is_trapped(acceptor: &Acceptor<Value>) -> bool {
    acceptor.accepted.as_ref().is_some_and(|accepted| accepted.ballot.proposer.0[0] >= TRAPPER)
}

/// What a client knows of lists, as [`crate::register`] would ask it.
pub(super) struct Known<'a> {
    pub(super) list: u64,
    pub(super) in_force: Option<InForce>,
    pub(super) world: &'a World,
}

impl Lists<Value> for Known<'_> {
    fn ballot(&self, value: &Value) -> Ballot {
        value.at
    }

    fn puts_out(&self, value: &Value) -> bool {
        let by = self.world.accepts[&value.at].by;
        if self.list <= value.list {
            return !names(value.list, by);
        }
        let wrote = self.world.wrote(content(&value.entries));
        [by, wrote].into_iter().any(|client| !names(self.list, client))
    }

    fn voids(&self, value: &Value) -> bool {
        let made_by = self.world.accepts[&value.at].list;
        self.in_force.is_some_and(|in_force| in_force.voids_what_is_made_by(made_by, value.at))
    }
}

impl World {
    /// Who made the last write of a value.
    pub(super) fn wrote(&self, entries: &[u8]) -> usize {
        entries.last().and_then(|id| self.writers.get(id)).copied().unwrap_or(0)
    }

    /// The list that a value came with, or that one before it came with.
    pub(super) fn list_of(&self, entries: &[u8]) -> u64 {
        entries.iter().filter_map(|id| self.lists.get(id)).copied().max().unwrap_or(0)
    }

    /// The list by which [`GONE`] can have a member of the newest epoch accept something, though it has no way back: a quorum
    /// knows that a list which puts it out is in force. The member was cut off in this epoch, or has yet to be given its first
    /// value.
    pub(super) fn may_trap(&self, index: usize, fault: Fault) -> Option<u64> {
        let epoch = self.acceptors.iter().map(Acceptor::epoch).max()?;
        let (acceptor, known) = (&self.acceptors[index], self.known_lists[index]);
        let (_, first) = self.beginning(epoch);
        let is_in = acceptor.epoch() == epoch
            && acceptor.accepted.as_ref().is_some_and(|accepted| accepted.ballot.epoch == epoch);
        let is_awaited = acceptor.epoch() < epoch && self.members(epoch).contains(&index);
        let list = if is_awaited && fault != Fault::NoFirstList { known.max(first) } else { known };
        let voids = |said: u64| said > list && !names(said, GONE);
        let says = |member: &&usize| {
            let accepted = self.acceptors[**member].accepted.as_ref().filter(|of| of.ballot.epoch == epoch);
            let said = accepted.and_then(|accepted| self.accepts[&accepted.ballot].in_force);
            said.is_some_and(|said| voids(said.list))
        };
        let is_out =
            voids(first) || self.members(epoch).iter().filter(says).count() >= self.quorum(epoch).needed;
        let newest = self.known_lists.iter().copied().max().unwrap_or(0);
        let may = self.traps < TRAPS_MAX
            && (is_in || is_awaited)
            && is_out
            && !names(newest, GONE)
            && names(list, GONE);
        may.then_some(list)
    }

    /// The writer that was put out signs a value far ahead, under a ballot far ahead, and a promise beyond that.
    pub(super) fn trap(&mut self, index: usize, fault: Fault) {
        let Some(list) = self.may_trap(index, fault) else { return };
        let epoch = self.acceptors.iter().map(Acceptor::epoch).max().unwrap_or(0);
        let promised = self.acceptors[index].promised.max(Ballot::first(epoch));
        let accepted = self.acceptors[index].accepted.clone().filter(|of| of.ballot.epoch == epoch);
        self.traps += 1;
        let proposer = ProposerId([TRAPPER | self.traps; 16]);
        let ahead = |rounds| Ballot { round: promised.round + rounds, proposer, ..promised };
        let (at, next, id) = (ahead(50), ahead(100), 0xd0 | self.traps);
        let mut entries = match accepted {
            Some(accepted) => content(&accepted.value.entries).to_vec(),
            None => self.beginning(epoch).0.clone(),
        };
        match self.traps % 3 {
            0 => entries.push(id),
            1 => entries.extend([id; 4]),
            // An old value again.
            _ => {}
        }
        self.writers.insert(id, GONE);
        let proposal = Proposal { entries: Some(entries.clone()), next, by: GONE, list, in_force: None };
        self.accepts.insert(at, proposal);
        self.votes.insert((at, entries.clone(), index));
        let value = Value { entries, list, at };
        let accepted = Some(Accepted { ballot: at, value });
        self.acceptors[index] = Acceptor { promised: next, accepted, learned: None };
        self.known_lists[index] = list;
    }

    /// The proposal for whose sake a ballot was promised.
    fn asked_for(&self, promised: Ballot) -> Option<&Proposal> {
        let with_value = self.accepts.values().find(|proposal| proposal.next == promised);
        self.prepares.get(&promised).or(with_value).or(self.accepts.get(&promised))
    }

    /// A member of the newest epoch loses its disk, and learns from the others, as [`crate::repair`] has it. The rounds that it
    /// had a part in are over by then. Nothing happens if too few can tell.
    pub(super) fn relearn(&mut self, index: usize, fault: Fault) {
        let epoch = self.acceptors.iter().map(Acceptor::epoch).max().unwrap_or(0);
        let (members, quorum) = (self.members(epoch).to_vec(), self.quorum(epoch));
        let is_there = |other: &&usize| {
            let view = &self.acceptors[**other];
            let accepted = view.accepted.as_ref().map(|accepted| accepted.ballot.epoch);
            **other != index && view.epoch() == epoch && (epoch == 0 || accepted == Some(epoch))
        };
        let others = members.iter().filter(is_there);
        let (views, known_lists): (Vec<Acceptor<Value>>, Vec<u64>) =
            others.map(|other| (self.acceptors[*other].clone(), self.known_lists[*other])).unzip();
        if !members.contains(&index) || views.len() < quorum.members - quorum.needed + 1 {
            return;
        }
        let mut met = Met::new(quorum);
        for (other, view) in views.iter().enumerate() {
            met.enter(other, view.accepted.as_ref().map(|accepted| &accepted.value));
        }
        let values = || views.iter().filter_map(|view| Some(&view.accepted.as_ref()?.value));
        let list = values().map(|value| value.list).max().unwrap_or(0);
        let said = values().map(|value| &self.accepts[&value.at]).filter(|of| names(list, of.by));
        let in_force = said.filter_map(|of| of.in_force).max_by_key(|said| said.list);
        let latest = values().max_by_key(|value| value.at).cloned();
        let decided = latest.map(|latest| met.decide(latest, &Known { list, in_force, world: self }));
        let newest = Known { list, in_force, world: self };
        let is_off = |value: &Value| newest.puts_out(&Value { list, ..value.clone() });
        if decided.as_ref().is_some_and(|value| seal_of(&value.entries).is_some() || is_off(value)) {
            return;
        }
        let vote = |accepted: &Accepted<Value>| (accepted.ballot, accepted.value.entries.clone());
        let accepted = decided.map(|value| Accepted { ballot: value.at, value: Value { list, ..value } });
        let votes =
            views.iter().filter(|view| view.learned.is_none()).filter_map(|view| view.accepted.as_ref());
        let holders = votes.filter(|other| Some(vote(other)) == accepted.as_ref().map(vote)).count();
        let at = accepted.as_ref().map_or(Ballot::ZERO, |accepted| accepted.ballot);
        let mut promised = accepted.as_ref().map_or(Ballot::first(epoch), |of| self.accepts[&of.ballot].next);
        let mut floor = views.iter().filter_map(|view| view.learned).max().unwrap_or(at);
        for (view, known) in views.iter().zip(known_lists) {
            let Some(of) = self.asked_for(view.promised) else { continue };
            let is_void = in_force.is_some_and(|said| said.voids_what_is_made_by(of.list, view.promised));
            let is_named = names(known, of.by) || names(list, of.by);
            let is_its_own = accepted.is_some() && view.promised == self.accepts[&at].next;
            if is_void || !is_named || is_its_own {
                continue;
            }
            if view.promised > at && !names(list, of.by) {
                return;
            }
            floor = floor.max(view.promised);
            promised = promised.max(view.promised);
        }
        let mut relearned = Acceptor::relearned(quorum, promised, accepted, floor, holders);
        if fault == Fault::VotesForLearned {
            relearned.learned = None;
        }
        self.acceptors[index] = relearned;
        self.known_lists[index] = list;
        for client in self.clients.iter_mut().filter(|client| client.phase.has_heard(index)) {
            client.phase = Phase::Idle;
        }
        // What it accepted, and too few others did by then, nobody counts any more.
        let votes = self.votes.clone();
        let count = |vote: &(Ballot, Entries, usize)| {
            votes.iter().filter(|other| (other.0, &other.1) == (vote.0, &vote.1)).count()
        };
        self.votes.retain(|vote| vote.2 != index || count(vote) >= quorum.needed);
        self.network
            .retain(|message| !matches!(message, Message::Answer { acceptor, .. } if *acceptor == index));
    }

    /// As a node's, by `StoredRegister::take_back_promise`. Of every promise here the list is that of the proposal with the ballot.
    pub(super) fn take_back(
        &mut self,
        index: usize,
        by: &Proposal,
        known: u64,
        fault: Fault,
        floor: &mut Ballot,
    ) {
        let promised = self.acceptors[index].promised;
        let Some(said) = by.in_force.filter(|_| fault != Fault::NoForce) else { return };
        if known < said.list
            && promised.epoch == said.since.epoch
            && self.asked_for(promised).is_some_and(|of| said.voids_what_is_made_by(of.list, promised))
        {
            self.acceptors[index].promised = said.since;
            *floor = said.since;
        }
    }

    /// What the rounds' rules say of lists, as this client knows them.
    pub(super) fn known(&self, index: usize, fault: Fault) -> Known<'_> {
        let client = &self.clients[index];
        let in_force = client.in_force().filter(|_| fault != Fault::NoForce);
        Known { list: client.list, in_force, world: self }
    }

    /// A client is shown what a member has accepted.
    pub(super) fn meet_list(&mut self, index: usize, shown: &Option<Value>) {
        let Some(shown) = shown else { return };
        let client = &mut self.clients[index];
        client.list = client.list.max(shown.list);
        let proposal = &self.accepts[&shown.at];
        if let Some(said) = proposal.in_force {
            client.note_in_force(said, Some(proposal.by));
        }
    }

    pub(super) fn enter_chosen(&mut self, index: usize, chosen: &Value) {
        let Proposal { list, by, .. } = self.accepts[&chosen.at];
        let client = &mut self.clients[index];
        client.list = client.list.max(chosen.list);
        if by == index {
            client.note_in_force(InForce { list, since: chosen.at }, None);
        }
    }
}

impl Client {
    pub(super) fn may_write(&self, index: usize) -> bool {
        self.is_writer && names(self.list, index)
    }

    pub(super) fn in_force(&self) -> Option<InForce> {
        let (in_force, by) = self.in_force?;
        by.is_none_or(|by| names(self.list, by)).then_some(in_force)
    }

    pub(super) fn note_in_force(&mut self, said: InForce, by: Option<usize>) {
        let order = |in_force: InForce, is_seen: bool| (in_force.list, is_seen, Reverse(in_force.since));
        let known = self.in_force().zip(self.in_force.map(|(_, by)| by.is_none()));
        let is_news = known.is_none_or(|(known, is_seen)| order(known, is_seen) < order(said, by.is_none()));
        if is_news && said.list > 0 && said.since.epoch == self.epoch {
            self.in_force = Some((said, by));
        }
    }
}
