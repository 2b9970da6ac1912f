//! What a client of the model does: the decisions of [`crate::register`], a message at a time.

use std::collections::VecDeque;

use super::model::{
    Answer, Entries, Fault, Message, Operation, Request, Value, World, content, seal_of, sealed,
};
use super::model_lists::Proposal;
use super::{Accepted, Accepting, Ballot, Preparing, Proposer, ProposerId, Reading, Start, Verdict};
use crate::block::proposal::InForce;
use crate::register::lists::Met;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Phase {
    Idle,
    /// The number of the read, how many members are behind, and what the others said.
    Reading(u8, usize, Reading<Value>, Met<Value>),
    Preparing(Ballot, Preparing<Value>, Met<Value>),
    Accepting(Ballot, Ballot, Value, Accepting),
    /// The first value of the next epoch is on its way to its members.
    Installing(Ballot, Value, Accepting),
}

impl Phase {
    /// The ballot that is out.
    pub(super) fn ballot(&self) -> Option<Ballot> {
        match self {
            Phase::Idle | Phase::Reading(..) => None,
            Phase::Preparing(ballot, ..) | Phase::Accepting(ballot, ..) | Phase::Installing(ballot, ..) => {
                Some(*ballot)
            }
        }
    }

    /// Whether a member has had a part in it.
    pub(super) fn has_heard(&self, acceptor: usize) -> bool {
        match self {
            Phase::Idle => false,
            Phase::Reading(_, _, reading, _) => reading.has_heard(acceptor),
            Phase::Preparing(_, preparing, _) => preparing.has_heard(acceptor),
            Phase::Accepting(_, _, _, accepting) | Phase::Installing(_, _, accepting) => {
                accepting.has_heard(acceptor)
            }
        }
    }

    /// Whether an answer still says something.
    pub(super) fn waits_for(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Read(at, ..) => matches!(self, Phase::Reading(number, ..) if number == at),
            Answer::Promise(at, _)
            | Answer::Accepted(at, _)
            | Answer::Conflict(at, _)
            | Answer::Behind(at)
            | Answer::NotAllowed(at, _)
            | Answer::Moved(at, _) => self.ballot() == Some(*at),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Client {
    proposer: Proposer<Value>,
    pub(super) epoch: u64,
    pub(super) script: VecDeque<Operation>,
    pub(super) attempts_left: u8,
    reads: u8,
    pub(super) phase: Phase,
    /// What was acknowledged to anyone before the current operation began.
    floor: Entries,
    /// The last value that it knows to be chosen: its writes expect this one, as swaps do.
    base: Entries,
    /// Who may not write settles a read by delivering the latest proposal again.
    pub(super) is_writer: bool,
    /// The newest list of writers that it has met, and that of which it knows that it is in force, by whose word.
    pub(super) list: u64,
    pub(super) in_force: Option<(InForce, Option<usize>)>,
}

impl Client {
    pub(super) fn new(number: u8, script: &[Operation], attempts: u8) -> Client {
        Client {
            proposer: Proposer::new(ProposerId([number; 16])),
            epoch: 0,
            script: script.iter().copied().collect(),
            attempts_left: attempts,
            reads: 0,
            phase: Phase::Idle,
            floor: vec![],
            base: vec![],
            is_writer: script.iter().any(|operation| *operation != Operation::Read),
            list: 0,
            in_force: None,
        }
    }

    pub(super) fn crash(&mut self, number: u8) {
        self.proposer = Proposer::new(ProposerId([number; 16]));
        (self.epoch, self.phase, self.base) = (0, Phase::Idle, vec![]);
        (self.list, self.in_force) = (0, None);
    }

    fn follow(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.proposer.enter(epoch);
            self.in_force = None;
            self.phase = Phase::Idle;
            if let Some(Operation::Move(_)) = self.script.front() {
                // Somebody has moved it: what this mover had decided on is past.
                self.script.pop_front();
            }
        }
    }
}

impl World {
    fn send(&mut self, client: usize, epoch: u64, request: &Request) {
        for acceptor in self.members(epoch).to_vec() {
            self.network.insert(Message::Request { client, acceptor, request: request.clone() });
        }
    }

    pub(super) fn begin(&mut self, index: usize, fault: Fault) -> Result<(), String> {
        let epoch = self.clients[index].epoch;
        let quorum = self.quorum(epoch);
        let client = &mut self.clients[index];
        client.attempts_left -= 1;
        client.floor = self.acknowledged.clone();
        let operation = client.script[0];
        if operation == Operation::Read {
            client.reads += 1;
            let number = client.reads;
            client.phase = Phase::Reading(number, 0, Reading::new(quorum), Met::new(quorum));
            self.send(index, epoch, &Request::Read(number));
            return Ok(());
        }
        let start = match client.proposer.begin() {
            // Promised before a newer list was met.
            Start::Accept { current, .. } if self.accepts[&current.at].list < client.list => {
                Start::Prepare(client.proposer.next_ballot())
            }
            start => start,
        };
        match (operation, start) {
            (_, Start::Prepare(ballot)) => self.prepare(index, ballot),
            (Operation::Read, _) => {}
            (Operation::Write(_) | Operation::Lists(_), Start::Accept { ballot, current }) => {
                if current.entries == self.clients[index].base {
                    self.propose(index, ballot, current.entries, Some(operation));
                } else {
                    let ballot = self.clients[index].proposer.next_ballot();
                    self.prepare(index, ballot);
                }
            }
            (Operation::Move(set), Start::Accept { ballot, current }) => {
                let entries = current.entries;
                if seal_of(&entries).is_some() {
                    self.propose(index, ballot, entries, None);
                } else if fault == Fault::NoSeal {
                    return self.install(index, (set as usize, self.clients[index].list), entries);
                } else {
                    let entries = sealed(entries, set as usize, self.clients[index].list);
                    self.propose(index, ballot, entries, None);
                }
            }
        }
        Ok(())
    }

    fn prepare(&mut self, index: usize, ballot: Ballot) {
        let quorum = self.quorum(ballot.epoch);
        let client = &mut self.clients[index];
        let list = client.list;
        let in_force = client.in_force().filter(|known| known.list <= list && known.since < ballot);
        client.phase = Phase::Preparing(ballot, Preparing::new(quorum), Met::new(quorum));
        self.prepares.insert(ballot, Proposal { entries: None, next: ballot, by: index, list, in_force });
        self.send(index, ballot.epoch, &Request::Prepare(ballot));
    }

    fn propose(&mut self, index: usize, ballot: Ballot, mut entries: Entries, append: Option<Operation>) {
        if let Some(Operation::Write(id) | Operation::Lists(id)) = append
            && !entries.contains(&id)
            && entries == self.clients[index].base
        {
            entries.push(id);
            self.writers.insert(id, index);
            if let Some(Operation::Lists(_)) = append {
                let number = self.clients[index].list + 1;
                self.lists.entry(id).or_insert(number);
            }
        }
        let list = self.clients[index].list.max(self.list_of(&entries));
        let client = &mut self.clients[index];
        let in_force = client.in_force().filter(|known| known.list <= list && known.since < ballot);
        let next = client.proposer.next_ballot();
        let proposal = Proposal { entries: Some(entries.clone()), next, by: index, list, in_force };
        self.accepts.insert(ballot, proposal);
        self.accept(index, Value { entries, list, at: ballot });
    }

    fn accept(&mut self, index: usize, value: Value) {
        let (ballot, next) = (value.at, self.accepts[&value.at].next);
        let accepting = Accepting::new(self.quorum(ballot.epoch), next);
        self.clients[index].phase = Phase::Accepting(ballot, next, value.clone(), accepting);
        self.send(index, ballot.epoch, &Request::Accept(ballot, value, next));
    }

    /// The epoch has ended with `entries`: the members of the next are given it.
    fn install(&mut self, index: usize, seal: (usize, u64), entries: Entries) -> Result<(), String> {
        let ballot = Ballot::first(self.clients[index].epoch + 1);
        self.sign(ballot.epoch, seal.0, &entries, seal.1)?;
        let list = self.list_of(&entries).max(self.clients[index].list);
        let proposal =
            Proposal { entries: Some(entries.clone()), next: ballot, by: index, list, in_force: None };
        self.accepts.insert(ballot, proposal);
        let value = Value { entries, list, at: ballot };
        let accepting = Accepting::new(self.quorum(ballot.epoch), ballot);
        self.clients[index].phase = Phase::Installing(ballot, value.clone(), accepting);
        self.send(index, ballot.epoch, &Request::Accept(ballot, value, ballot));
        Ok(())
    }

    pub(super) fn give_up(&mut self, index: usize, fault: Fault) -> Result<(), String> {
        let phase = std::mem::replace(&mut self.clients[index].phase, Phase::Idle);
        let epoch = self.clients[index].epoch;
        let (reading, met) = match phase {
            Phase::Reading(_, _, reading, met) => (reading, met),
            Phase::Preparing(ballot, preparing, met) => {
                // Nobody else answers.
                if let Verdict::Done(Some(latest)) = preparing.verdict() {
                    let latest = met.decide(latest, &self.known(index, fault));
                    self.on_prepared(index, ballot, latest.entries, fault);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        if fault == Fault::NoWriteBack {
            // What a careless reader does: believe the highest ballot it has heard of.
            let mut preparing = Preparing::new(self.quorum(epoch));
            for (acceptor, answer) in reading.answers().iter().enumerate() {
                preparing.on_promise(acceptor, answer.clone());
            }
            let Verdict::Done(value) = preparing.verdict() else { return Ok(()) };
            return self.conclude(index, value.unwrap_or_default().entries);
        }
        if !self.clients[index].may_write(index) || !reading.has_quorum() {
            let Some(latest) = reading.latest() else { return Ok(()) };
            let latest = met.decide(latest.value.clone(), &self.known(index, fault));
            self.accept(index, latest);
            return Ok(());
        }
        let ballot = self.clients[index].proposer.next_ballot();
        self.prepare(index, ballot);
        Ok(())
    }

    pub(super) fn hear(
        &mut self,
        index: usize,
        acceptor: usize,
        answer: &Answer,
        fault: Fault,
    ) -> Result<(), String> {
        let as_accepted =
            |shown: &Option<Value>| shown.clone().map(|value| Accepted { ballot: value.at, value });
        if !self.clients[index].phase.waits_for(answer) {
            return Ok(());
        }
        if let Answer::Promise(_, shown) = answer {
            self.meet_list(index, shown);
        }
        if let Answer::Read(_, epoch, shown, _) = answer
            && *epoch == self.clients[index].epoch
        {
            self.meet_list(index, shown);
        }
        let client = &mut self.clients[index];
        match (&mut client.phase, answer) {
            (_, Answer::Moved(_, epoch)) => client.follow(*epoch),
            (Phase::Reading(_, behind, reading, met), Answer::Read(_, epoch, shown, is_learned)) => {
                if *epoch > client.epoch {
                    client.follow(*epoch);
                } else if *epoch < client.epoch || (*epoch > 0 && shown.is_none()) {
                    *behind += 1;
                    reading.on_loss(acceptor);
                } else {
                    met.enter(acceptor, shown.as_ref());
                    match as_accepted(shown) {
                        Some(learned) if *is_learned => reading.on_learned(acceptor, learned),
                        accepted => reading.on_answer(acceptor, accepted),
                    }
                    if let Verdict::Done(value) = reading.verdict() {
                        return self.conclude(index, value.unwrap_or_default().entries);
                    }
                }
            }
            (Phase::Preparing(ballot, preparing, met), Answer::Promise(_, shown)) => {
                met.enter(acceptor, shown.as_ref());
                preparing.on_promise(acceptor, as_accepted(shown));
                if let Verdict::Done(value) = preparing.verdict() {
                    let (ballot, met) = (*ballot, met.clone());
                    let known = self.known(index, fault);
                    match value {
                        None => self.on_prepared(index, ballot, vec![], fault),
                        Some(latest) if met.is_in_doubt(&latest, &known) => {}
                        Some(latest) => {
                            let entries = met.decide(latest, &known).entries;
                            self.on_prepared(index, ballot, entries, fault);
                        }
                    }
                }
            }
            (Phase::Accepting(_, next, value, accepting), Answer::Accepted(_, promised)) => {
                accepting.on_accepted(acceptor, *promised);
                if let Verdict::Done(prepared) = accepting.verdict() {
                    if prepared && client.proposer.is_mine(*next) {
                        client.proposer.on_prepared(*next, value.clone());
                    }
                    let value = value.clone();
                    self.enter_chosen(index, &value);
                    return self.conclude(index, value.entries);
                }
            }
            (Phase::Installing(ballot, value, accepting), Answer::Accepted(_, promised)) => {
                accepting.on_accepted(acceptor, *promised);
                if let Verdict::Done(_) = accepting.verdict() {
                    let (epoch, value) = (ballot.epoch, value.clone());
                    client.base = value.entries;
                    client.follow(epoch);
                    self.send(index, epoch - 1, &Request::Retire(epoch));
                    let next = self.members(epoch).to_vec();
                    self.network.retain(|message| {
                        !matches!(message, Message::Request { acceptor, request: Request::Retire(at), .. }
                            if *at == epoch && next.contains(acceptor))
                    });
                }
            }
            // It goes on there already.
            (Phase::Installing(ballot, ..), Answer::Conflict(..)) => {
                let epoch = ballot.epoch;
                client.follow(epoch);
            }
            (
                Phase::Preparing(_, preparing, _),
                Answer::Conflict(..) | Answer::Behind(_) | Answer::NotAllowed(..),
            ) => {
                preparing.on_loss(acceptor);
                let is_lost = preparing.verdict() == Verdict::Failed;
                client.meet(answer, is_lost);
            }
            (Phase::Accepting(_, _, _, accepting), Answer::Conflict(..) | Answer::NotAllowed(..)) => {
                accepting.on_loss(acceptor);
                let is_lost = accepting.verdict() == Verdict::Failed;
                client.meet(answer, is_lost);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_prepared(&mut self, index: usize, ballot: Ballot, entries: Entries, fault: Fault) {
        if self.prepares[&ballot].list < self.clients[index].list {
            let ballot = self.clients[index].proposer.next_ballot();
            return self.prepare(index, ballot);
        }
        match self.clients[index].script[0] {
            // Somebody is moving the register: nothing else may follow here.
            _ if seal_of(&entries).is_some() => self.propose(index, ballot, entries, None),
            // What is not known to be chosen may not be sealed.
            Operation::Move(set) if fault == Fault::SealsUnchosen => {
                let entries = sealed(entries, set as usize, self.clients[index].list);
                self.propose(index, ballot, entries, None);
            }
            operation @ (Operation::Write(_) | Operation::Lists(_)) => {
                self.propose(index, ballot, entries, Some(operation));
            }
            Operation::Read | Operation::Move(_) => self.propose(index, ballot, entries, None),
        }
    }

    /// `value` is chosen.
    fn conclude(&mut self, index: usize, value: Entries) -> Result<(), String> {
        if let Some(seal) = seal_of(&value) {
            if self.clients[index].may_write(index) {
                return self.install(index, seal, content(&value).to_vec());
            }
            // Who may not write waits until somebody has.
            self.clients[index].phase = Phase::Idle;
            return Ok(());
        }
        let client = &mut self.clients[index];
        let operation = *client.script.front().expect("an operation is under way");
        client.phase = Phase::Idle;
        client.base = value.clone();
        // A swap that met another value than it expected has made that one chosen, and tries again on top of it.
        let is_done = match operation {
            Operation::Write(id) | Operation::Lists(id) => value.contains(&id),
            Operation::Read => true,
            Operation::Move(_) => false,
        };
        if is_done {
            client.script.pop_front();
        }
        if !value.starts_with(&client.floor) {
            return Err(format!(
                "client {index} got {value:?} from {operation:?}, but {:?} was acknowledged before it began",
                client.floor
            ));
        }
        if value.len() > self.acknowledged.len() {
            self.acknowledged = value;
        }
        Ok(())
    }
}

impl Client {
    /// A member refused; `is_lost` if there is no quorum any more.
    fn meet(&mut self, answer: &Answer, is_lost: bool) {
        if let Answer::Conflict(_, promised) = answer {
            self.proposer.on_conflict(*promised, 0);
        }
        if is_lost {
            self.phase = Phase::Idle;
        }
    }
}
