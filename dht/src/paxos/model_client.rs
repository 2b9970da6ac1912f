//! What a client of the model does: the decisions of [`crate::register`], a message at a time.

use std::collections::VecDeque;

use super::model::{Answer, Fault, Message, Operation, Request, Value, World, content, seal_of, sealed};
use super::{Accepted, Accepting, Ballot, Preparing, Proposer, ProposerId, Reading, Start, Verdict};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Phase {
    Idle,
    /// The number of the read, how many members are behind, and what the others said.
    Reading(u8, usize, Reading<Value>),
    Preparing(Ballot, Preparing<Value>),
    Accepting(Ballot, Ballot, Value, Accepting),
    /// The first value of the next epoch is on its way to its members.
    Installing(Ballot, Value, Accepting),
}

impl Phase {
    /// The ballot that is out.
    pub(super) fn ballot(&self) -> Option<Ballot> {
        match self {
            Phase::Idle | Phase::Reading(..) => None,
            Phase::Preparing(ballot, _) | Phase::Accepting(ballot, ..) | Phase::Installing(ballot, ..) => {
                Some(*ballot)
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
    floor: Value,
    /// The last value that it knows to be chosen: its writes expect this one, as swaps do.
    base: Value,
    /// Who may not write settles a read by delivering the latest proposal again.
    may_write: bool,
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
            may_write: script.iter().any(|operation| *operation != Operation::Read),
        }
    }

    pub(super) fn crash(&mut self, number: u8) {
        self.proposer = Proposer::new(ProposerId([number; 16]));
        (self.epoch, self.phase, self.base) = (0, Phase::Idle, vec![]);
    }

    fn follow(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.proposer.enter(epoch);
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
        match client.script[0] {
            Operation::Read => {
                client.reads += 1;
                let number = client.reads;
                client.phase = Phase::Reading(number, 0, Reading::new(quorum));
                self.send(index, epoch, &Request::Read(number));
            }
            Operation::Write(id) => match client.proposer.begin() {
                Start::Prepare(ballot) => self.prepare(index, ballot),
                Start::Accept { ballot, current } if current == client.base => {
                    self.propose(index, ballot, current, Some(id));
                }
                Start::Accept { .. } => {
                    let ballot = client.proposer.next_ballot();
                    self.prepare(index, ballot);
                }
            },
            Operation::Move(set) => match client.proposer.begin() {
                Start::Prepare(ballot) => self.prepare(index, ballot),
                Start::Accept { ballot, current } if seal_of(&current).is_some() => {
                    self.propose(index, ballot, current, None);
                }
                Start::Accept { current, .. } if fault == Fault::NoSeal => {
                    return self.install(index, set as usize, current);
                }
                Start::Accept { ballot, current } => {
                    self.propose(index, ballot, sealed(current, set as usize), None);
                }
            },
        }
        Ok(())
    }

    fn prepare(&mut self, index: usize, ballot: Ballot) {
        self.clients[index].phase = Phase::Preparing(ballot, Preparing::new(self.quorum(ballot.epoch)));
        self.send(index, ballot.epoch, &Request::Prepare(ballot));
    }

    fn propose(&mut self, index: usize, ballot: Ballot, mut value: Value, append: Option<u8>) {
        if let Some(id) = append
            && !value.contains(&id)
            && value == self.clients[index].base
        {
            value.push(id);
        }
        let next = self.clients[index].proposer.next_ballot();
        self.proposals.insert(ballot, (value.clone(), next));
        self.accept(index, ballot, value, next);
    }

    fn accept(&mut self, index: usize, ballot: Ballot, value: Value, next: Ballot) {
        let accepting = Accepting::new(self.quorum(ballot.epoch), next);
        self.clients[index].phase = Phase::Accepting(ballot, next, value.clone(), accepting);
        self.send(index, ballot.epoch, &Request::Accept(ballot, value, next));
    }

    /// The epoch has ended with `value`: the members of the next are given it.
    fn install(&mut self, index: usize, set: usize, value: Value) -> Result<(), String> {
        let ballot = Ballot::first(self.clients[index].epoch + 1);
        self.sign(ballot.epoch, set, &value)?;
        self.proposals.insert(ballot, (value.clone(), ballot));
        let accepting = Accepting::new(self.quorum(ballot.epoch), ballot);
        self.clients[index].phase = Phase::Installing(ballot, value.clone(), accepting);
        self.send(index, ballot.epoch, &Request::Accept(ballot, value, ballot));
        Ok(())
    }

    pub(super) fn give_up(&mut self, index: usize, fault: Fault) -> Result<(), String> {
        let phase = std::mem::replace(&mut self.clients[index].phase, Phase::Idle);
        let Phase::Reading(_, _, reading) = phase else { return Ok(()) };
        let epoch = self.clients[index].epoch;
        if fault == Fault::NoWriteBack {
            // What a careless reader does: believe the highest ballot it has heard of.
            let mut preparing = Preparing::new(self.quorum(epoch));
            for (acceptor, answer) in reading.answers().iter().enumerate() {
                preparing.on_promise(acceptor, answer.clone());
            }
            let Verdict::Done(value) = preparing.verdict() else { return Ok(()) };
            return self.conclude(index, value.unwrap_or_default());
        }
        if !self.clients[index].may_write || !reading.has_quorum() {
            let Some(ballot) = reading.latest().map(|latest| latest.ballot) else { return Ok(()) };
            let (value, next) = self.proposals[&ballot].clone();
            self.accept(index, ballot, value, next);
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
            |shown: &Option<(Ballot, Value)>| shown.clone().map(|(ballot, value)| Accepted { ballot, value });
        let client = &mut self.clients[index];
        if !client.phase.waits_for(answer) {
            return Ok(());
        }
        match (&mut client.phase, answer) {
            (_, Answer::Moved(_, epoch)) => client.follow(*epoch),
            (Phase::Reading(_, behind, reading), Answer::Read(_, epoch, shown)) => {
                if *epoch > client.epoch {
                    client.follow(*epoch);
                } else if *epoch < client.epoch || (*epoch > 0 && shown.is_none()) {
                    *behind += 1;
                    reading.on_loss(acceptor);
                } else {
                    reading.on_answer(acceptor, as_accepted(shown));
                    if let Verdict::Done(value) = reading.verdict() {
                        return self.conclude(index, value.unwrap_or_default());
                    }
                }
            }
            (Phase::Preparing(ballot, preparing), Answer::Promise(_, shown)) => {
                preparing.on_promise(acceptor, as_accepted(shown));
                if let Verdict::Done(value) = preparing.verdict() {
                    let (ballot, value) = (*ballot, value.unwrap_or_default());
                    self.on_prepared(index, ballot, value, fault);
                }
            }
            (Phase::Accepting(_, next, value, accepting), Answer::Accepted(_, promised)) => {
                accepting.on_accepted(acceptor, *promised);
                if let Verdict::Done(prepared) = accepting.verdict() {
                    if prepared && client.proposer.is_mine(*next) {
                        client.proposer.on_prepared(*next, value.clone());
                    }
                    let value = value.clone();
                    return self.conclude(index, value);
                }
            }
            (Phase::Installing(ballot, value, accepting), Answer::Accepted(_, promised)) => {
                accepting.on_accepted(acceptor, *promised);
                if let Verdict::Done(_) = accepting.verdict() {
                    let (epoch, value) = (ballot.epoch, value.clone());
                    client.base = value;
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
            (Phase::Preparing(_, preparing), Answer::Conflict(..) | Answer::Behind(_)) => {
                preparing.on_loss(acceptor);
                let is_lost = preparing.verdict() == Verdict::Failed;
                client.meet(answer, is_lost);
            }
            (Phase::Accepting(_, _, _, accepting), Answer::Conflict(..)) => {
                accepting.on_loss(acceptor);
                let is_lost = accepting.verdict() == Verdict::Failed;
                client.meet(answer, is_lost);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_prepared(&mut self, index: usize, ballot: Ballot, value: Value, fault: Fault) {
        match self.clients[index].script[0] {
            // Somebody is moving the register: nothing else may follow here.
            _ if seal_of(&value).is_some() => self.propose(index, ballot, value, None),
            // What is not known to be chosen may not be sealed.
            Operation::Move(set) if fault == Fault::SealsUnchosen => {
                self.propose(index, ballot, sealed(value, set as usize), None);
            }
            Operation::Write(id) => self.propose(index, ballot, value, Some(id)),
            Operation::Read | Operation::Move(_) => self.propose(index, ballot, value, None),
        }
    }

    /// `value` is chosen.
    fn conclude(&mut self, index: usize, value: Value) -> Result<(), String> {
        if let Some(set) = seal_of(&value) {
            if self.clients[index].may_write {
                return self.install(index, set, content(&value).to_vec());
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
            Operation::Write(id) => value.contains(&id),
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
