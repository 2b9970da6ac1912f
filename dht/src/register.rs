//! Reading and swapping registers: the flow around [`crate::paxos`].
//!
//! One operation at a time for each register and client, so that a client never competes with itself. A round asks all
//! members at once and goes on with a quorum. Lost rounds are repeated after a pause with jitter, which doubles, until
//! [`OPERATION_TIMEOUT`].
//!
//! A swap whose outcome was unclear is cleared up by the next round: it finds either our own record, or its successor,
//! or another record of the same version, which proves that ours will never be chosen.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::crypto::{Identity, PublicKey, random_bytes};
use reactor::sync::{Receiver, channel};

use crate::block::mutable::{AccessList, Genesis, SignedRecord};
use crate::block_store::{HeaderHash, PutError, ReadError, Record, RegisterAddress, SwapError};
use crate::links::{Failure, Links};
use crate::message::{Accept, AcceptRequest, Prepare, PrepareRequest, ReadRegister, Refusal, RegisterView};
use crate::paxos::{Accepted, Accepting, Ballot, Preparing, Proposer, ProposerId, Reading, Start, Verdict};

/// A register's messages are small; a node whose disk takes longer than this is as good as dead.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// After this, an operation is given up with an error that says what is missing.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// The first pause after a lost round; it doubles up to [`BACKOFF_MAX`]. About one round trip with its two syncs.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How long a read with a quorum that disagrees waits for the last members before it writes back.
const AGREEMENT_WAIT: Duration = Duration::from_millis(20);

/// Contacts asked for a register whose members are not known yet.
const DISCOVERY_WIDTH: usize = 16;

/// What a client knows of one register.
pub(crate) struct State {
    genesis: Option<Genesis>,
    creation: Option<([u8; 32], AccessList)>,
    proposer: Proposer<SignedRecord>,
    /// The last record whose signatures were verified.
    verified: Option<SignedRecord>,
    /// The newest chosen value that this client has seen.
    seen: Option<(u64, HeaderHash)>,
}

impl State {
    pub(crate) fn new(proposer: ProposerId) -> State {
        State { genesis: None, creation: None, proposer: Proposer::new(proposer), verified: None, seen: None }
    }

    /// Prepares for creating the register.
    pub(crate) fn prepare_creation(&mut self, owner: &Identity, salt: [u8; 32], writers: Vec<PublicKey>) {
        let register = RegisterAddress::of(&owner.public_key(), &salt);
        self.creation = Some((salt, AccessList::sign(owner, &register, 0, writers)));
    }

    /// Raises the high-water mark to what was seen in an earlier run.
    pub(crate) fn expect_at_least(&mut self, version: u64, hash: HeaderHash) {
        if self.seen.is_none_or(|(seen, _)| seen < version) {
            self.seen = Some((version, hash));
        }
    }

    /// Verifies a record, with a signature checked only once.
    fn check(&mut self, genesis: &Genesis, record: &SignedRecord) -> Result<(), Failure> {
        if self.verified.as_ref() == Some(record) {
            return Ok(());
        }
        let known = self.verified.as_ref().map(|verified| &verified.access);
        record.verify(genesis, known).map_err(|invalid| Failure::Lied(invalid.to_string()))?;
        self.verified = Some(record.clone());
        Ok(())
    }

    /// Enters a chosen value.
    fn saw(&mut self, register: &RegisterAddress, chosen: Option<&SignedRecord>) -> Result<(), ReadError> {
        let found = chosen.map_or(0, |record| record.header.version);
        if let Some((seen, hash)) = self.seen
            && (found < seen || (found == seen && chosen.map(SignedRecord::hash) != Some(hash)))
        {
            return Err(ReadError::RolledBack { register: *register, seen, found });
        }
        if let Some(record) = chosen {
            self.seen = Some((found, record.hash()));
        }
        Ok(())
    }
}

/// How a round can fail to reach a quorum.
#[derive(Default)]
struct Lost {
    /// Members who promised somebody a higher ballot.
    conflicts: usize,
    /// Members who accepted, though too few.
    accepted: usize,
    /// Members of whom nobody knows what they did: they did not answer, or not yet.
    unknown: usize,
    refusal: Option<Refusal>,
    reason: Option<String>,
}

impl Lost {
    fn enter<V>(&mut self, proposer: &mut Proposer<V>, failure: Failure)
    where
        V: Clone,
    {
        match failure {
            Failure::Refused(Refusal::Conflict { promised }) => {
                self.conflicts += 1;
                proposer.on_conflict(promised);
            }
            Failure::Refused(refusal) => {
                self.reason = Some(refusal.to_string());
                self.refusal = Some(refusal);
            }
            failure => {
                self.unknown += 1;
                self.reason = Some(failure.to_string());
            }
        }
    }

    fn reason(&self) -> String {
        self.reason.clone().unwrap_or_else(|| "other writers were faster every time".into())
    }

    /// Whether somebody may have accepted what was proposed.
    fn may_have_accepted(&self) -> bool {
        self.accepted > 0 || self.unknown > 0
    }

    /// Whether trying again is pointless.
    fn is_final(&self) -> bool {
        self.conflicts == 0
            && matches!(
                self.refusal,
                Some(
                    Refusal::Full
                        | Refusal::NotAllowed(_)
                        | Refusal::Invalid(_)
                        | Refusal::NotAMember
                        | Refusal::OtherGenesis { .. }
                )
            )
    }
}

/// One operation on one register.
pub(crate) struct Operation<'a, O> {
    pub(crate) links: &'a Rc<Links<O>>,
    pub(crate) register: RegisterAddress,
    pub(crate) state: &'a mut State,
    deadline: Instant,
    pause: Duration,
}

impl<'a, O: Overlay + 'static> Operation<'a, O> {
    pub(crate) fn new(links: &'a Rc<Links<O>>, register: RegisterAddress, state: &'a mut State) -> Self {
        let deadline = reactor::now() + OPERATION_TIMEOUT;
        Operation { links, register, state, deadline, pause: BACKOFF_MIN }
    }

    /// Waits before the next round; false if there is no time for one.
    fn back_off(&mut self) -> bool {
        if reactor::now() + self.pause >= self.deadline {
            return false;
        }
        reactor::sleep(self.pause.mul_f64(jitter()));
        self.pause = (self.pause * 2).min(BACKOFF_MAX);
        true
    }

    pub(crate) fn read(&mut self) -> Result<Option<Record>, ReadError> {
        let Some(genesis) = self.genesis()? else {
            self.state.saw(&self.register, None)?;
            return Ok(None);
        };
        loop {
            let (chosen, answers, reason) = self.read_round(&genesis);
            let chosen = match chosen {
                Some(chosen) => Ok(chosen),
                None if answers >= genesis.quorum().needed => {
                    self.settle(&genesis).map_err(|lost| lost.reason())
                }
                None => Err(reason),
            };
            match chosen {
                Ok(chosen) => {
                    self.state.saw(&self.register, chosen.as_ref())?;
                    return Ok(chosen.map(|record| record.to_record()));
                }
                Err(reason) => {
                    if !self.back_off() {
                        return Err(ReadError::NoQuorum { answers, needed: genesis.quorum().needed, reason });
                    }
                }
            }
        }
    }

    /// Swaps if the value is the expected one. `ready` is asked right before the new value is proposed: nothing
    /// suspends between it and our own node's taking the proposal.
    pub(crate) fn swap(
        &mut self,
        identity: &Identity,
        expected: Option<HeaderHash>,
        payload: &Bytes,
        ready: &dyn Fn() -> Result<(), PutError>,
    ) -> Result<Record, SwapError> {
        let genesis = self.genesis_or_create(identity)?;
        let mut sent: Option<SignedRecord> = None;
        // Whether an acceptor may have our record from a lost round.
        let mut doubtful = false;
        loop {
            let (ballot, current) = match self.state.proposer.begin() {
                Start::Accept { ballot, current } if Some(current.hash()) == expected => {
                    (ballot, Some(current))
                }
                Start::Accept { .. } => continue,
                Start::Prepare(ballot) => match self.prepare_round(&genesis, ballot) {
                    Ok(current) => (ballot, current),
                    Err(lost) => {
                        self.again(&lost, doubtful)?;
                        continue;
                    }
                },
            };
            if let Some((seen, _)) = self.state.seen
                && current.as_ref().map_or(0, |record| record.header.version) < seen
            {
                self.state.saw(&self.register, current.as_ref())?;
            }
            let hash = current.as_ref().map(SignedRecord::hash);
            let record = if hash == expected {
                match &sent {
                    Some(sent) => sent.clone(),
                    None => {
                        let record = self.sign(identity, current.as_ref(), payload)?;
                        sent = Some(record.clone());
                        record
                    }
                }
            } else {
                // Somebody else's, or ours from a round before: chosen or not, it is what the register has now.
                match current {
                    Some(current) => current,
                    None => return Err(SwapError::Lost(None)),
                }
            };
            ready()?;
            match self.accept_round(&genesis, ballot, &record) {
                Ok(()) => {
                    self.state.saw(&self.register, Some(&record))?;
                    return outcome(&record, sent.as_ref(), doubtful);
                }
                Err(lost) => {
                    doubtful |= sent.as_ref() == Some(&record) && lost.may_have_accepted();
                    self.again(&lost, doubtful)?;
                }
            }
        }
    }

    /// After a lost round: pauses, or ends the operation.
    fn again(&mut self, lost: &Lost, doubtful: bool) -> Result<(), SwapError> {
        // What may be half done is worth clearing up even if a member refuses for good.
        let pointless = lost.is_final() && !doubtful;
        if !pointless && self.back_off() {
            return Ok(());
        }
        Err(match &lost.refusal {
            _ if doubtful => SwapError::Unknown { reason: lost.reason() },
            Some(Refusal::Full) => SwapError::Full,
            Some(refusal) if pointless => SwapError::Refused(refusal.to_string()),
            _ => {
                let needed = self.state.genesis.as_ref().map_or(0, |genesis| genesis.quorum().needed);
                let answers = lost.conflicts + lost.accepted;
                SwapError::Read(ReadError::NoQuorum { answers, needed, reason: lost.reason() })
            }
        })
    }

    fn sign(
        &self,
        identity: &Identity,
        current: Option<&SignedRecord>,
        payload: &Bytes,
    ) -> Result<SignedRecord, SwapError> {
        let access = match (current, &self.state.creation) {
            (Some(current), _) => current.access.clone(),
            (None, Some((_, access))) => access.clone(),
            (None, None) => return Err(SwapError::NoSuchRegister(self.register)),
        };
        Ok(SignedRecord::sign(identity, self.register, current, access, payload.clone()))
    }

    /// Makes what a quorum has, but not under one ballot, chosen: a write-back.
    fn settle(&mut self, genesis: &Genesis) -> Result<Option<SignedRecord>, Lost> {
        self.state.proposer.forget();
        let ballot = self.state.proposer.next_ballot();
        let current = self.prepare_round(genesis, ballot)?;
        if let Some(record) = &current {
            self.accept_round(genesis, ballot, record)?;
        }
        Ok(current)
    }

    fn prepare_round(&mut self, genesis: &Genesis, ballot: Ballot) -> Result<Option<SignedRecord>, Lost> {
        let mut round = Preparing::new(genesis.quorum());
        let mut lost = Lost::default();
        let request = Rc::new(PrepareRequest { genesis: genesis.clone(), ballot });
        let answers = self.ask(
            genesis,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.prepare(None, &request.genesis, ballot).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<Prepare>(contact, &request, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        loop {
            match round.verdict() {
                Verdict::Done(current) => return Ok(current),
                Verdict::Failed => return Err(lost),
                Verdict::Pending => {}
            }
            let Ok((index, answer)) = answers.recv() else { return Err(lost) };
            match answer.and_then(|accepted| self.checked(genesis, accepted)) {
                Ok(accepted) => round.on_promise(index, accepted),
                Err(failure) => {
                    round.on_loss(index);
                    lost.enter(&mut self.state.proposer, failure);
                }
            }
        }
    }

    fn accept_round(&mut self, genesis: &Genesis, ballot: Ballot, record: &SignedRecord) -> Result<(), Lost> {
        let next = self.state.proposer.next_ballot();
        let mut round = Accepting::new(genesis.quorum(), next);
        let mut lost = Lost::default();
        let request = Rc::new(AcceptRequest {
            genesis: genesis.clone(),
            ballot,
            next: Some(next),
            record: record.clone(),
        });
        let answers = self.ask(
            genesis,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.accept(None, (*request).clone()).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<Accept>(contact, &request, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        loop {
            match round.verdict() {
                Verdict::Done(prepared) => {
                    if prepared {
                        self.state.proposer.on_prepared(next, record.clone());
                    }
                    self.state.verified = Some(record.clone());
                    return Ok(());
                }
                Verdict::Failed | Verdict::Pending => {}
            }
            let next_answer = match round.verdict() {
                // Lost; but if it is certain that nobody has accepted, the caller can simply try again.
                Verdict::Failed => match reactor::timeout(AGREEMENT_WAIT, || answers.recv()) {
                    Ok(answer) => answer,
                    Err(_) => {
                        lost.unknown += 1;
                        return Err(lost);
                    }
                },
                _ => answers.recv(),
            };
            // The channel closes once everyone has answered.
            let Ok((index, answer)) = next_answer else { return Err(lost) };
            match answer {
                Ok(promised) => {
                    lost.accepted += 1;
                    round.on_accepted(index, promised);
                }
                Err(failure) => {
                    round.on_loss(index);
                    lost.enter(&mut self.state.proposer, failure);
                }
            }
        }
    }

    /// The value that a quorum agrees on, if it does; how many answered; and what the last failure was.
    fn read_round(&mut self, genesis: &Genesis) -> (Option<Option<SignedRecord>>, usize, String) {
        let mut round = Reading::new(genesis.quorum());
        let mut reason = "no member is known".to_owned();
        let register = self.register;
        let answers = self.ask(
            genesis,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.read_register(&register).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<ReadRegister>(contact, &register, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        loop {
            match round.verdict() {
                Verdict::Done(chosen) => return (Some(chosen), round.answer_count(), reason),
                Verdict::Failed => return (None, round.answer_count(), reason),
                Verdict::Pending => {}
            }
            let next = if round.has_quorum() {
                reactor::timeout(AGREEMENT_WAIT, || answers.recv()).ok()
            } else {
                Some(answers.recv())
            };
            let Some(Ok((index, answer))) = next else { return (None, round.answer_count(), reason) };
            let accepted = answer.and_then(|view| match view {
                Some(view) if view.genesis != *genesis => {
                    Err(Failure::Lied("it names other members than the genesis record".into()))
                }
                view => self.checked(genesis, view.and_then(|view| view.accepted)),
            });
            match accepted {
                Ok(accepted) => round.on_answer(index, accepted),
                Err(failure) => {
                    round.on_loss(index);
                    reason = failure.to_string();
                }
            }
        }
    }

    fn checked(
        &mut self,
        genesis: &Genesis,
        accepted: Option<Accepted<SignedRecord>>,
    ) -> Result<Option<Accepted<SignedRecord>>, Failure> {
        if let Some(accepted) = &accepted {
            self.state.check(genesis, &accepted.value)?;
        }
        Ok(accepted)
    }

    /// Asks every member that may be alive; the others are entered as lost at once.
    fn ask<T: 'static>(
        &self,
        genesis: &Genesis,
        mut on_loss: impl FnMut(usize),
        call: impl Fn(&Links<O>, &Member) -> Result<T, Failure> + 'static,
    ) -> Receiver<(usize, Result<T, Failure>)> {
        let members = self.members(genesis);
        let (sender, answers) = channel(genesis.members.len());
        if let [Some(own @ Member::Own(_))] = &members[..] {
            // A network of one: no coroutine, no waiting for anyone but the disk.
            drop(sender.try_send((0, call(self.links, own))));
            return answers;
        }
        let call = Rc::new(call);
        let mut order: Vec<usize> = (0..members.len()).collect();
        // Others first: their requests are on the way while our own disk works.
        order.sort_by_key(|&index| matches!(members[index], Some(Member::Own(_))));
        for index in order {
            let Some(member) = members[index].clone() else {
                on_loss(index);
                continue;
            };
            let (links, call, sender) = (self.links.clone(), call.clone(), sender.clone());
            drop(reactor::spawn(move || drop(sender.try_send((index, call(&links, &member))))));
        }
        answers
    }

    /// Where the members are. Those that the overlay holds for dead are left out, unless there is no quorum without.
    fn members(&self, genesis: &Genesis) -> Vec<Option<Member>> {
        let near = self.links.closest(self.register.0, DISCOVERY_WIDTH);
        let find = |id: &NodeId| match self.links.local(id) {
            Some(node) => Some(Member::Own(node.clone())),
            None => near.iter().find(|contact| contact.id == *id).cloned().map(Member::Other),
        };
        let mut members: Vec<_> = genesis.members.iter().map(find).collect();
        if members.iter().flatten().count() < genesis.quorum().needed {
            for (member, id) in members.iter_mut().zip(&genesis.members) {
                if member.is_none() {
                    let known = self.links.last_known(id);
                    let found = || self.links.closest(id.0, 1).into_iter().find(|contact| contact.id == *id);
                    *member = known.or_else(found).map(Member::Other);
                }
            }
        }
        members
    }

    /// The register's genesis record, from memory or from whoever is near; `None` if the register does not exist.
    fn genesis(&mut self) -> Result<Option<Genesis>, ReadError> {
        loop {
            if self.state.genesis.is_some() {
                return Ok(self.state.genesis.clone());
            }
            let needed = self.links.write_quorum();
            let (absent, reason) = match self.discover() {
                Ok(genesis) => {
                    self.state.genesis = Some(genesis);
                    continue;
                }
                Err(tally) => tally,
            };
            if absent >= needed {
                return Ok(None);
            }
            if !self.back_off() {
                return Err(ReadError::NoQuorum { answers: absent, needed, reason });
            }
        }
    }

    /// Asks the nodes near the register for its genesis record; else says how many know of none.
    fn discover(&self) -> Result<Genesis, (usize, String)> {
        let contacts = self.links.closest(self.register.0, DISCOVERY_WIDTH);
        let (sender, answers) = channel(contacts.len().max(1));
        let mut reason = "no node is known".to_owned();
        let count = contacts.len();
        for contact in contacts {
            let (links, sender, register) = (self.links.clone(), sender.clone(), self.register);
            drop(reactor::spawn(move || {
                let answer = match links.local(&contact.id) {
                    Some(node) => node.read_register(&register).map_err(Failure::Refused),
                    None => links
                        .call::<ReadRegister>(&contact, &register, Bytes::new(), CALL_TIMEOUT)
                        .map(|(answer, _)| answer),
                };
                drop(sender.try_send(answer));
            }));
        }
        drop(sender);
        let mut absent = 0;
        // All near ones know of none: enough answered. A few do not answer: a quorum of the nearest must.
        for _ in 0..count {
            let Ok(answer): Result<Result<Option<RegisterView>, Failure>, _> = answers.recv() else { break };
            match answer {
                Ok(Some(view)) if view.genesis.verify(&self.register).is_ok() => return Ok(view.genesis),
                Ok(Some(_)) => reason = "a node sent a genesis record that does not verify".into(),
                Ok(None) => absent += 1,
                Err(failure) => reason = failure.to_string(),
            }
            if absent >= self.links.write_quorum() && self.links.replicas >= count {
                break;
            }
        }
        Err((absent, reason))
    }

    fn genesis_or_create(&mut self, identity: &Identity) -> Result<Genesis, SwapError> {
        if let Some(genesis) = self.genesis()? {
            return Ok(genesis);
        }
        let Some((salt, _)) = self.state.creation else {
            return Err(SwapError::NoSuchRegister(self.register));
        };
        loop {
            let nearest = self.links.closest(self.register.0, self.links.replicas);
            if nearest.len() == self.links.replicas {
                let genesis =
                    Genesis::sign(identity, salt, nearest.iter().map(|contact| contact.id).collect());
                self.state.genesis = Some(genesis.clone());
                return Ok(genesis);
            }
            if !self.back_off() {
                return Err(SwapError::NotEnoughNodes { known: nearest.len(), needed: self.links.replicas });
            }
        }
    }
}

#[derive(Clone)]
enum Member {
    Own(Rc<crate::node::Node>),
    Other(Contact),
}

/// What the choice of `chosen` means for the swap that `sent` a record.
fn outcome(chosen: &SignedRecord, sent: Option<&SignedRecord>, doubtful: bool) -> Result<Record, SwapError> {
    let lost = || Err(SwapError::Lost(Some(chosen.to_record())));
    let Some(sent) = sent else { return lost() };
    let (mine, theirs) = (sent.hash(), chosen.hash());
    if theirs == mine || chosen.header.previous == Some(mine) {
        return Ok(sent.to_record());
    }
    if !doubtful || chosen.header.version <= sent.header.version {
        // Nobody has it; or, one version, one value: ours was not chosen and will not be.
        return lost();
    }
    Err(SwapError::Unknown { reason: "other writers have gone on meanwhile".into() })
}

/// A random fraction, so that two writers who met once do not meet again.
fn jitter() -> f64 {
    f64::from(u32::from_le_bytes(random_bytes())) / f64::from(u32::MAX)
}
