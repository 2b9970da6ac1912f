//! A model of whole registers: real acceptors and proposers, a network that loses, repeats and reorders, and a
//! checker. Driven in `model_test`.
//!
//! A value is the list of writes that led to it, so "chosen values form one chain" reads: of two chosen values one is
//! a prefix of the other. Messages are never taken out of the network: delivering one twice is a duplicate, never
//! delivering it is a loss, and any order is possible. A crash between persisting and answering is the loss of the
//! answer; a crash before persisting is the loss of the request: acceptors here are exactly what is on disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Accepted, Accepting, Acceptor, Ballot, Preparing, Proposer, ProposerId, Quorum, Reading};
use super::{Rejected, Start, Verdict};

pub(super) type Value = Vec<u8>;

impl super::Value for Value {
    type Identity = Value;

    fn identity(&self) -> Value {
        self.clone()
    }

    /// As for records: a later one, a sibling, or the predecessor.
    fn may_replace(&self, accepted: &Value) -> bool {
        match self.len() {
            length if length > accepted.len() => true,
            length if length == accepted.len() => {
                self.split_last().map(|s| s.1) == accepted.split_last().map(|s| s.1)
            }
            length if length + 1 == accepted.len() => accepted.starts_with(self),
            _ => false,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Request {
    Prepare(Ballot),
    Accept(Ballot, Value, Ballot),
    Read(u8),
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Answer {
    Promise(Ballot, Option<(Ballot, Value)>),
    Accepted(Ballot, Ballot),
    Conflict(Ballot, Ballot),
    Read(u8, Option<(Ballot, Value)>),
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Message {
    Request { client: usize, acceptor: usize, request: Request },
    Answer { client: usize, acceptor: usize, answer: Answer },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Operation {
    Write(u8),
    Read,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Phase {
    Idle,
    Reading(u8, Reading<Value>),
    Preparing(Ballot, Preparing<Value>),
    Accepting(Ballot, Ballot, Value, Accepting),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Client {
    proposer: Proposer<Value>,
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    NoWriteBack,
    ForgetfulAcceptor,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct World {
    acceptors: Vec<Acceptor<Value>>,
    pub(super) clients: Vec<Client>,
    pub(super) network: BTreeSet<Message>,
    votes: BTreeSet<(Ballot, Value, usize)>,
    /// What was proposed under each ballot, and which ballot was to be prepared with it: what the signatures hold together.
    proposals: BTreeMap<Ballot, (Value, Ballot)>,
    pub(super) acknowledged: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Begin(usize),
    GiveUpWaiting(usize),
    Deliver(Message),
    Forget(usize),
}

impl World {
    pub(super) fn new(acceptor_count: usize, scripts: &[&[Operation]], attempts: u8) -> World {
        let client = |(index, script): (usize, &&[Operation])| Client {
            proposer: Proposer::new(ProposerId([index as u8 + 1; 16])),
            script: script.iter().copied().collect(),
            attempts_left: attempts,
            reads: 0,
            phase: Phase::Idle,
            floor: vec![],
            base: vec![],
            may_write: script.iter().any(|operation| matches!(operation, Operation::Write(_))),
        };
        World {
            acceptors: vec![Acceptor::default(); acceptor_count],
            clients: scripts.iter().enumerate().map(client).collect(),
            network: BTreeSet::new(),
            votes: BTreeSet::new(),
            proposals: BTreeMap::new(),
            acknowledged: vec![],
        }
    }

    fn quorum(&self) -> Quorum {
        Quorum::majority(self.acceptors.len())
    }

    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, client) in self.clients.iter().enumerate() {
            match &client.phase {
                Phase::Idle if !client.script.is_empty() && client.attempts_left > 0 => {
                    actions.push(Action::Begin(index));
                }
                Phase::Idle => {}
                Phase::Reading(_, reading) if !reading.has_quorum() => {}
                _ => actions.push(Action::GiveUpWaiting(index)),
            }
        }
        actions.extend(self.network.iter().cloned().map(Action::Deliver));
        actions
    }

    pub(super) fn apply(&mut self, action: &Action, fault: Fault) -> Result<(), String> {
        match action {
            Action::Begin(client) => self.begin(*client),
            Action::GiveUpWaiting(client) => self.give_up(*client, fault)?,
            Action::Forget(acceptor) => self.acceptors[*acceptor] = Acceptor::default(),
            Action::Deliver(Message::Request { client, acceptor, request }) => {
                let answer = self.serve(*acceptor, request)?;
                self.network.insert(Message::Answer { client: *client, acceptor: *acceptor, answer });
            }
            Action::Deliver(Message::Answer { client, acceptor, answer }) => {
                self.hear(*client, *acceptor, answer)?
            }
        }
        Ok(())
    }

    fn broadcast(&mut self, client: usize, request: Request) {
        for acceptor in 0..self.acceptors.len() {
            self.network.insert(Message::Request { client, acceptor, request: request.clone() });
        }
    }

    fn begin(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.attempts_left -= 1;
        client.floor = self.acknowledged.clone();
        match client.script[0] {
            Operation::Read => {
                client.reads += 1;
                let number = client.reads;
                client.phase = Phase::Reading(number, Reading::new(Quorum::majority(self.acceptors.len())));
                self.broadcast(index, Request::Read(number));
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
        }
    }

    fn prepare(&mut self, index: usize, ballot: Ballot) {
        self.clients[index].phase = Phase::Preparing(ballot, Preparing::new(self.quorum()));
        self.broadcast(index, Request::Prepare(ballot));
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
        let accepting = Accepting::new(self.quorum(), next);
        self.clients[index].phase = Phase::Accepting(ballot, next, value.clone(), accepting);
        self.broadcast(index, Request::Accept(ballot, value, next));
    }

    fn give_up(&mut self, index: usize, fault: Fault) -> Result<(), String> {
        let phase = std::mem::replace(&mut self.clients[index].phase, Phase::Idle);
        let Phase::Reading(_, reading) = phase else { return Ok(()) };
        if fault == Fault::NoWriteBack {
            // What a careless reader does: believe the highest ballot it has heard of.
            let mut preparing = Preparing::new(self.quorum());
            for (acceptor, answer) in reading.answers().iter().enumerate() {
                preparing.on_promise(acceptor, answer.clone());
            }
            let Verdict::Done(value) = preparing.verdict() else { return Ok(()) };
            return self.finish(index, value.unwrap_or_default());
        }
        if !self.clients[index].may_write {
            let Some(ballot) = reading.latest().map(|latest| latest.ballot) else { return Ok(()) };
            let (value, next) = self.proposals[&ballot].clone();
            self.accept(index, ballot, value, next);
            return Ok(());
        }
        let ballot = self.clients[index].proposer.next_ballot();
        self.prepare(index, ballot);
        Ok(())
    }

    fn serve(&mut self, index: usize, request: &Request) -> Result<Answer, String> {
        let acceptor = &mut self.acceptors[index];
        let before = acceptor.promised;
        let shown = |acceptor: &Acceptor<Value>| acceptor.accepted.clone().map(|a| (a.ballot, a.value));
        let answer = match request {
            Request::Prepare(ballot) => match acceptor.on_prepare(*ballot) {
                Ok(()) => Answer::Promise(*ballot, shown(acceptor)),
                Err(rejected) => refuse(*ballot, rejected)?,
            },
            Request::Accept(ballot, value, next) => {
                match acceptor.on_accept(*ballot, value.clone(), Some(*next)) {
                    Ok(promised) => {
                        self.votes.insert((*ballot, value.clone(), index));
                        Answer::Accepted(*ballot, promised)
                    }
                    Err(rejected) => refuse(*ballot, rejected)?,
                }
            }
            Request::Read(number) => Answer::Read(*number, shown(acceptor)),
        };
        if self.acceptors[index].promised < before {
            return Err(format!("acceptor {index} took a promise back"));
        }
        self.check_chain()?;
        Ok(answer)
    }

    fn hear(&mut self, index: usize, acceptor: usize, answer: &Answer) -> Result<(), String> {
        let as_accepted =
            |shown: &Option<(Ballot, Value)>| shown.clone().map(|(ballot, value)| Accepted { ballot, value });
        let client = &mut self.clients[index];
        match (&mut client.phase, answer) {
            (Phase::Reading(number, reading), Answer::Read(answered, shown)) if number == answered => {
                reading.on_answer(acceptor, as_accepted(shown));
                if let Verdict::Done(value) = reading.verdict() {
                    return self.finish(index, value.unwrap_or_default());
                }
            }
            (Phase::Preparing(ballot, preparing), Answer::Promise(promised, shown)) if ballot == promised => {
                preparing.on_promise(acceptor, as_accepted(shown));
                if let Verdict::Done(value) = preparing.verdict() {
                    let ballot = *ballot;
                    let append = match client.script[0] {
                        Operation::Write(id) => Some(id),
                        Operation::Read => None,
                    };
                    self.propose(index, ballot, value.unwrap_or_default(), append);
                }
            }
            (Phase::Accepting(ballot, next, value, accepting), Answer::Accepted(at, promised))
                if ballot == at =>
            {
                accepting.on_accepted(acceptor, *promised);
                if let Verdict::Done(prepared) = accepting.verdict() {
                    if prepared && client.proposer.is_mine(*next) {
                        client.proposer.on_prepared(*next, value.clone());
                    }
                    let value = value.clone();
                    return self.finish(index, value);
                }
            }
            (Phase::Preparing(ballot, preparing), Answer::Conflict(at, promised)) if ballot == at => {
                client.proposer.on_conflict(*promised, 0);
                preparing.on_loss(acceptor);
                if preparing.verdict() == Verdict::Failed {
                    client.phase = Phase::Idle;
                }
            }
            (Phase::Accepting(ballot, _, _, accepting), Answer::Conflict(at, promised)) if ballot == at => {
                client.proposer.on_conflict(*promised, 0);
                accepting.on_loss(acceptor);
                if accepting.verdict() == Verdict::Failed {
                    client.phase = Phase::Idle;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, index: usize, value: Value) -> Result<(), String> {
        let client = &mut self.clients[index];
        let operation = *client.script.front().expect("an operation is under way");
        client.phase = Phase::Idle;
        client.base = value.clone();
        // A swap that met another value than it expected has made that one chosen, and tries again on top of it.
        if !matches!(operation, Operation::Write(id) if !value.contains(&id)) {
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

    /// Takes out of the network what can change nothing any more, so that equal situations are equal states.
    pub(super) fn tidy(&mut self) {
        let (clients, acceptors) = (&self.clients, &self.acceptors);
        self.network.retain(|message| match message {
            Message::Answer { client, answer, .. } => match (&clients[*client].phase, answer) {
                (Phase::Reading(number, _), Answer::Read(at, _)) => number == at,
                (Phase::Preparing(ballot, _), Answer::Promise(at, _) | Answer::Conflict(at, _))
                | (Phase::Accepting(ballot, ..), Answer::Accepted(at, _) | Answer::Conflict(at, _)) => {
                    ballot == at
                }
                _ => false,
            },
            Message::Request { client, acceptor, request } => match (&clients[*client].phase, request) {
                (Phase::Reading(number, _), Request::Read(at)) => number == at,
                (_, Request::Read(_)) => false,
                (Phase::Preparing(ballot, _), Request::Prepare(at)) if ballot == at => true,
                (Phase::Accepting(ballot, ..), Request::Accept(at, ..)) if ballot == at => true,
                (_, Request::Prepare(at) | Request::Accept(at, ..)) => *at >= acceptors[*acceptor].promised,
            },
        });
    }

    /// Of any two values that a quorum ever accepted under one ballot each, one is a prefix of the other.
    fn check_chain(&self) -> Result<(), String> {
        let votes: Vec<_> = self.votes.iter().collect();
        let mut longest: &[u8] = &[];
        for same in votes.chunk_by(|a, b| a.0 == b.0) {
            if same.iter().any(|vote| vote.1 != same[0].1) {
                return Err(format!("two values under {:?}", same[0].0));
            }
            if same.len() < self.quorum().needed {
                continue;
            }
            let value = &same[0].1[..];
            let (short, long) = if value.len() < longest.len() { (value, longest) } else { (longest, value) };
            if !long.starts_with(short) {
                return Err(format!("chosen values {short:?} and {long:?} fork"));
            }
            longest = long;
        }
        Ok(())
    }
}

/// What honest proposers and acceptors never see is a broken invariant, wherever it shows.
fn refuse(ballot: Ballot, rejected: Rejected) -> Result<Answer, String> {
    match rejected {
        Rejected::Conflict { promised } => Ok(Answer::Conflict(ballot, promised)),
        Rejected::Equivocation => Err(format!("two values were proposed under {ballot:?}")),
        Rejected::Unchained => Err(format!("what was proposed under {ballot:?} leaves the chain")),
    }
}
