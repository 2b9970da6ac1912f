//! A model of whole registers: real acceptors and proposers, a network that loses, repeats and reorders, and a
//! checker. Driven in `model_test`; what clients do is in `model_client`, who may write in `model_lists`.
//!
//! A value is the list of writes that led to it, so "chosen values form one chain" reads: of two chosen values one is
//! a prefix of the other. A seal is one more entry, which names the next set of members. Messages are never taken out of the
//! network: delivering one twice is a duplicate, never delivering it is a loss, and any order is possible. A crash between
//! persisting and answering is the loss of the answer; a crash before persisting is the loss of the request: acceptors here
//! are exactly what is on disk. A client that crashes knows of no epoch but the first when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::model_client::{Client, Phase};
use super::model_lists::{Known, Proposal, is_trapped, names};
use super::{Accepted, Acceptor, Ballot, Quorum, Rejected};
use crate::block::proposal::InForce;
use crate::register::lists::Lists as _;

/// What a member has accepted, and under which ballot and list of writers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub(super) struct Value {
    pub(super) entries: Entries,
    pub(super) list: u64,
    pub(super) at: Ballot,
}

/// The writes that led to a value.
pub(super) type Entries = Vec<u8>;

/// Entries from here on, as many as there are pairs of them, are seals: the number of the newest list of writers, and that of the
/// set of members that comes next.
const SEAL: u8 = 0x40;
const SETS: u8 = 4;
const SEALED_LISTS: u64 = 16;

pub(super) fn sealed(mut entries: Entries, set: usize, list: u64) -> Entries {
    assert!(list < SEALED_LISTS && set < SETS.into(), "there are numbers for no more");
    entries.push(SEAL + SETS * list as u8 + set as u8);
    entries
}

/// The set that a value names, and the list, if it is a seal.
pub(super) fn seal_of(entries: &[u8]) -> Option<(usize, u64)> {
    let seal = entries.last()?.checked_sub(SEAL)?;
    let (set, list) = (seal % SETS, u64::from(seal / SETS));
    (list < SEALED_LISTS).then_some((set.into(), list))
}

/// The value without its seal.
pub(super) fn content(entries: &[u8]) -> &[u8] {
    if seal_of(entries).is_some() { &entries[..entries.len() - 1] } else { entries }
}

impl super::Value for Value {
    type Identity = Entries;

    fn identity(&self) -> Entries {
        self.entries.clone()
    }

    /// As for records: a later one, a sibling, or the predecessor.
    fn may_replace(&self, accepted: &Value) -> bool {
        let (new, old) = (&self.entries, &accepted.entries);
        match new.len() {
            length if length > old.len() => true,
            length if length == old.len() => new.split_last().map(|s| s.1) == old.split_last().map(|s| s.1),
            length if length + 1 == old.len() => old.starts_with(new),
            _ => false,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Request {
    Prepare(Ballot),
    Accept(Ballot, Value, Ballot),
    Read(u8),
    Retire(u64),
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Answer {
    Promise(Ballot, Option<Value>),
    Accepted(Ballot, Ballot),
    Conflict(Ballot, Ballot),
    Behind(Ballot),
    Moved(Ballot, u64),
    /// In which epoch it is, what it has accepted, and whether it has that only from others.
    Read(u8, u64, Option<Value>, bool),
    /// Its list does not name the writer.
    NotAllowed(Ballot, u64),
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Message {
    Request { client: usize, acceptor: usize, request: Request },
    Answer { client: usize, acceptor: usize, answer: Answer },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Operation {
    Write(u8),
    /// As a write, with the next list of writers.
    Lists(u8),
    Read,
    /// To the set of members of this number.
    Move(u8),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    NoWriteBack,
    ForgetfulAcceptor,
    /// A mover gives the next members the value without ending the epoch before.
    NoSeal,
    /// A mover puts a seal on what a prepare showed it, chosen or not.
    SealsUnchosen,
    /// A member that was not given the epoch's first value yet promises that it has accepted nothing.
    VotesBehind,
    /// Nobody heeds that a list is said to be in force.
    NoForce,
    /// Nobody heeds which list an epoch began with.
    NoFirstList,
    /// What an acceptor has learned since it lost its disk, it takes for accepted.
    VotesForLearned,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct World {
    pub(super) acceptors: Vec<Acceptor<Value>>,
    pub(super) clients: Vec<Client>,
    pub(super) network: BTreeSet<Message>,
    pub(super) votes: BTreeSet<(Ballot, Entries, usize)>,
    /// What was proposed under each ballot, and what it was prepared by.
    pub(super) accepts: BTreeMap<Ballot, Proposal>,
    pub(super) prepares: BTreeMap<Ballot, Proposal>,
    /// Who made each write.
    pub(super) writers: BTreeMap<u8, usize>,
    /// The writes that came with a list of writers, and its number.
    pub(super) lists: BTreeMap<u8, u64>,
    /// The sets of members that there can be.
    sets: Rc<[Vec<usize>]>,
    /// What the owner has signed: the set of each epoch, and the value and the list that it begins with.
    configurations: BTreeMap<u64, (usize, Entries, u64)>,
    pub(super) acknowledged: Entries,
    /// The newest list that each acceptor has heard of.
    pub(super) known_lists: Vec<u64>,
    /// How often [`GONE`] signed what it liked.
    pub(super) traps: u8,
    /// How many clients have begun afresh; each is another proposer.
    pub(super) lives: u8,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Begin(usize),
    GiveUpWaiting(usize),
    Deliver(Message),
    /// An acceptor loses its disk.
    Forget(usize),
    /// Likewise, and it learns from the others what it may have known.
    Relearn(usize),
    /// A client dies and comes back.
    Crash(usize),
    /// The writer that was put out has a member accept what it likes.
    Trap(usize),
}

impl World {
    /// Of the first of `sets` as the first epoch's members.
    pub(super) fn new(sets: &[&[usize]], scripts: &[&[Operation]], attempts: u8) -> World {
        let acceptor_count = sets.iter().copied().flatten().max().map_or(0, |last| last + 1);
        let clients = scripts.iter().enumerate();
        World {
            acceptors: vec![Acceptor::default(); acceptor_count],
            clients: clients.map(|(index, script)| Client::new(index as u8 + 1, script, attempts)).collect(),
            network: BTreeSet::new(),
            votes: BTreeSet::new(),
            accepts: BTreeMap::new(),
            prepares: BTreeMap::new(),
            writers: BTreeMap::new(),
            lists: BTreeMap::new(),
            sets: sets.iter().map(|set| set.to_vec()).collect(),
            configurations: BTreeMap::from([(0, (0, vec![], 0))]),
            acknowledged: vec![],
            known_lists: vec![0; acceptor_count],
            traps: 0,
            lives: scripts.len() as u8,
        }
    }

    pub(super) fn members(&self, epoch: u64) -> &[usize] {
        &self.sets[self.configurations[&epoch].0]
    }

    pub(super) fn quorum(&self, epoch: u64) -> Quorum {
        Quorum::majority(self.members(epoch).len())
    }

    /// The value and the list that an epoch begins with.
    pub(super) fn beginning(&self, epoch: u64) -> (&Entries, u64) {
        let (_, value, list) = &self.configurations[&epoch];
        (value, *list)
    }

    /// The owner signs who keeps the register from an epoch on, and what that begins with.
    pub(super) fn sign(&mut self, epoch: u64, set: usize, value: &[u8], list: u64) -> Result<(), String> {
        let signed = (set, value.to_vec(), list);
        let known = self.configurations.entry(epoch).or_insert_with(|| signed.clone());
        if *known == signed { Ok(()) } else { Err(format!("two configurations for epoch {epoch}")) }
    }

    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, client) in self.clients.iter().enumerate() {
            match &client.phase {
                Phase::Idle if !client.script.is_empty() && client.attempts_left > 0 => {
                    actions.push(Action::Begin(index));
                }
                Phase::Idle => {}
                Phase::Reading(_, behind, reading, _)
                    if reading.answer_count() + behind < self.quorum(client.epoch).needed => {}
                _ => actions.push(Action::GiveUpWaiting(index)),
            }
        }
        actions.extend(self.network.iter().cloned().map(Action::Deliver));
        actions
    }

    pub(super) fn apply(&mut self, action: &Action, fault: Fault) -> Result<(), String> {
        match action {
            Action::Begin(client) => self.begin(*client, fault)?,
            Action::GiveUpWaiting(client) => self.give_up(*client, fault)?,
            Action::Forget(acceptor) => self.acceptors[*acceptor] = Acceptor::default(),
            Action::Relearn(acceptor) => self.relearn(*acceptor, fault),
            Action::Trap(acceptor) => self.trap(*acceptor, fault),
            Action::Crash(client) => {
                self.lives += 1;
                let life = self.lives;
                self.clients[*client].crash(life);
            }
            Action::Deliver(Message::Request { client, acceptor, request }) => {
                if let Some(answer) = self.serve(*acceptor, request, fault)? {
                    self.network.insert(Message::Answer { client: *client, acceptor: *acceptor, answer });
                }
            }
            Action::Deliver(Message::Answer { client, acceptor, answer }) => {
                self.hear(*client, *acceptor, answer, fault)?
            }
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, request: &Request, fault: Fault) -> Result<Option<Answer>, String> {
        let acceptor = &mut self.acceptors[index];
        let mut before = acceptor.promised;
        let shown = |acceptor: &Acceptor<Value>| acceptor.accepted.clone().map(|accepted| accepted.value);
        if let Request::Prepare(ballot) = request
            && fault == Fault::VotesBehind
            && ballot.epoch > acceptor.epoch()
        {
            *acceptor = Acceptor { promised: Ballot::first(ballot.epoch), ..Acceptor::default() };
        }
        let known = self.known_lists[index];
        let answer = match request {
            Request::Prepare(ballot) => {
                let proposal = self.prepares[ballot].clone();
                if !names(known.max(proposal.list), proposal.by) {
                    return Ok(Some(Answer::NotAllowed(*ballot, known)));
                }
                self.take_back(index, &proposal, known, fault, &mut before);
                let acceptor = &mut self.acceptors[index];
                Some(match acceptor.on_prepare(*ballot) {
                    Ok(()) => {
                        let list = known.max(proposal.list);
                        self.known_lists[index] = list;
                        acceptor.accepted.iter_mut().for_each(|accepted| accepted.value.list = list);
                        Answer::Promise(*ballot, shown(acceptor))
                    }
                    Err(rejected) => refuse(*ballot, acceptor.epoch(), rejected)?,
                })
            }
            Request::Accept(ballot, value, next) => {
                let proposal = self.accepts[ballot].clone();
                let newest = Known { list: known, in_force: None, world: self };
                let is_older = fault != Fault::NoFirstList && proposal.list < self.beginning(ballot.epoch).1;
                if ballot.round > 0 && newest.puts_out(value) || is_older {
                    return Ok(Some(Answer::NotAllowed(*ballot, known)));
                }
                self.take_back(index, &proposal, known, fault, &mut before);
                let voids = |accepted: &mut Accepted<Value>| {
                    let of = &self.accepts[&accepted.ballot];
                    let voids = |said: InForce| said.voids_what_is_made_by(of.list, accepted.ballot);
                    let is_former = ballot.round == 0 && accepted.ballot.epoch < ballot.epoch;
                    is_former || fault != Fault::NoForce && proposal.in_force.is_some_and(voids)
                };
                let acceptor = &mut self.acceptors[index];
                acceptor.accepted.take_if(voids);
                let value = Value { list: known.max(value.list), ..value.clone() };
                let list = value.list;
                Some(match acceptor.on_accept(*ballot, value.clone(), Some(*next)) {
                    Ok(promised) => {
                        self.known_lists[index] = list;
                        self.votes.insert((*ballot, value.entries, index));
                        Answer::Accepted(*ballot, promised)
                    }
                    // It has what does not lead there, and nobody told it yet that this is void.
                    Err(Rejected::Unchained) if is_trapped(acceptor) => Answer::NotAllowed(*ballot, known),
                    Err(rejected) => refuse(*ballot, acceptor.epoch(), rejected)?,
                })
            }
            Request::Read(number) => {
                Some(Answer::Read(*number, acceptor.epoch(), shown(acceptor), acceptor.learned.is_some()))
            }
            Request::Retire(epoch) => {
                acceptor.retire(*epoch);
                None
            }
        };
        if self.acceptors[index].promised < before {
            return Err(format!("acceptor {index} took a promise back"));
        }
        self.check_chain()?;
        Ok(answer)
    }

    /// Takes out of the network what can change nothing any more, so that equal situations are equal states.
    pub(super) fn tidy(&mut self) {
        let (clients, acceptors) = (&self.clients, &self.acceptors);
        self.network.retain(|message| match message {
            Message::Answer { client, answer, .. } => clients[*client].phase.waits_for(answer),
            Message::Request { client, acceptor, request } => match (&clients[*client].phase, request) {
                (Phase::Reading(number, ..), Request::Read(at)) => number == at,
                (_, Request::Read(_)) => false,
                (_, Request::Retire(epoch)) => *epoch > acceptors[*acceptor].epoch(),
                (phase, Request::Prepare(at) | Request::Accept(at, ..)) => {
                    phase.ballot() == Some(*at) || *at >= acceptors[*acceptor].promised
                }
            },
        });
    }

    /// Of any two values that a quorum ever accepted under one ballot each, one is a prefix of the other; and after a seal
    /// its epoch chooses nothing else.
    fn check_chain(&self) -> Result<(), String> {
        let votes: Vec<_> = self.votes.iter().collect();
        let mut longest: &[u8] = &[];
        let mut seal: Option<(u64, &[u8])> = None;
        for same in votes.chunk_by(|a, b| a.0 == b.0) {
            if same.iter().any(|vote| vote.1 != same[0].1) {
                return Err(format!("two values under {:?}", same[0].0));
            }
            let epoch = same[0].0.epoch;
            if same.len() < self.quorum(epoch).needed {
                continue;
            }
            let chosen = &same[0].1[..];
            if seal.is_some_and(|(sealed, by)| sealed == epoch && by != chosen) {
                return Err(format!("epoch {epoch} chose {chosen:?} after its seal"));
            }
            if seal_of(chosen).is_some() {
                seal = Some((epoch, chosen));
            }
            let value = content(chosen);
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
fn refuse(ballot: Ballot, epoch: u64, rejected: Rejected) -> Result<Answer, String> {
    match rejected {
        Rejected::Conflict { promised } => Ok(Answer::Conflict(ballot, promised)),
        Rejected::Past => Ok(Answer::Moved(ballot, epoch)),
        Rejected::Behind => Ok(Answer::Behind(ballot)),
        Rejected::Equivocation => Err(format!("two values were proposed under {ballot:?}")),
        Rejected::Unchained => Err(format!("what was proposed under {ballot:?} leaves the chain")),
    }
}
