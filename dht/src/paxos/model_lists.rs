//! Who may write, in the model of [`super::model`].
//!
//! The owner, who is client 0, changes the list of writers with a value: each odd list puts out the one writer [`GONE`],
//! each even one lets it in again. What a node does about lists is as in [`crate::node`], what a client does as in
//! [`crate::register`], whose rules it shares ([`Met`](crate::register::lists::Met)). Once a quorum knows that it is out, that
//! writer takes no step of the protocol any more: it signs what it likes, as long as a member takes it, which is one that
//! was cut off meanwhile.

use std::cmp::Reverse;

use super::model::{Entries, Fault, Value, World, content};
use super::model_client::Client;
use super::{Accepted, Acceptor, Ballot, ProposerId};
use crate::block::proposal::InForce;
use crate::register::lists::Lists;

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
        self.acceptors[index] = Acceptor { promised: next, accepted: Some(Accepted { ballot: at, value }) };
        self.known_lists[index] = list;
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
        let made_by = |ballot: &Ballot| {
            let with_value = self.accepts.values().find(|proposal| proposal.next == *ballot);
            self.prepares.get(ballot).or(with_value).or(self.accepts.get(ballot)).map(|of| of.list)
        };
        if known < said.list
            && promised.epoch == said.since.epoch
            && made_by(&promised).is_some_and(|list| said.voids_what_is_made_by(list, promised))
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
