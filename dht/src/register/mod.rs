//! Reading and swapping registers: the flow around [`crate::paxos`].
//!
//! One operation at a time for each register and client, so that a client never competes with itself. A round asks all
//! members at once and goes on with a quorum. Lost rounds are repeated after a pause with jitter, which doubles, until
//! [`OPERATION_TIMEOUT`].
//!
//! A swap whose outcome was unclear is cleared up by the next round: it finds either our own record, or its successor,
//! or another record of the same version, which proves that ours will never be chosen.

mod members;
mod rounds;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlay::Overlay;
use reactor::crypto::{Identity, PublicKey, random_bytes};

use crate::block::mutable::{Genesis, Invalid, Signed, SignedRecord};
use crate::block::proposal::{Proposal, Proposed};
use crate::block_store::{HeaderHash, PutError, ReadError, Record, RegisterAddress, SwapError};
use crate::links::{Failure, Links};
use crate::message::Refusal;
use crate::paxos::{Ballot, Proposer, ProposerId, Start};

use rounds::Lost;

/// A register's messages are small; a node whose disk takes longer than this is as good as dead.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// After this, an operation is given up with an error that says what is missing.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// The first pause after a lost round; it doubles up to [`BACKOFF_MAX`]. About one round trip with its two syncs.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Ballots go ahead of a busy writer's by at most 2 to this.
const PREEMPTION_LEAD_MAX: u32 = 10;

/// How long a read with a quorum that disagrees waits for the last members before it writes back.
const AGREEMENT_WAIT: Duration = Duration::from_millis(20);

/// Contacts looked at for a register's members before those are looked up one by one.
const NEAR_COUNT: usize = 16;

/// What a client knows of one register.
pub(crate) struct State {
    genesis: Signed<Genesis>,
    register: RegisterAddress,
    proposer: Proposer<Proposed>,
    /// The last value whose signatures were verified.
    verified: Option<Proposed>,
    seen: Rc<HighWater>,
    /// How often in a row somebody else's ballot was higher.
    preemptions: u32,
}

/// The newest chosen value that this client has seen, here or in an earlier run.
#[derive(Default)]
pub(crate) struct HighWater(Cell<Option<(u64, HeaderHash)>>);

impl HighWater {
    pub(crate) fn get(&self) -> Option<(u64, HeaderHash)> {
        self.0.get()
    }

    pub(crate) fn raise(&self, version: u64, hash: HeaderHash) {
        if self.get().is_none_or(|(seen, _)| seen < version) {
            self.0.set(Some((version, hash)));
        }
    }
}

impl State {
    pub(crate) fn new(genesis: Signed<Genesis>, proposer: ProposerId, seen: Rc<HighWater>) -> State {
        let (register, proposer) = (genesis.register(), Proposer::new(proposer));
        State { genesis, register, proposer, verified: None, seen, preemptions: 0 }
    }

    /// Verifies a value and by whose word it was accepted, with a signature checked only once.
    fn check(&mut self, proposed: &Proposed) -> Result<(), Failure> {
        if self.verified.as_ref() == Some(proposed) {
            return Ok(());
        }
        let known = self.verified.as_ref().and_then(|verified| verified.record.access.as_ref());
        proposed.verify(&self.genesis, known).map_err(|invalid| Failure::Lied(invalid.to_string()))?;
        self.verified = Some(proposed.clone());
        Ok(())
    }

    /// Takes it that a ballot was promised, if somebody who may write asked for it: a member that lies must not drive
    /// our ballots up until honest members refuse them.
    fn believe(&mut self, promise: &Signed<Proposal>) -> Result<(), Invalid> {
        if promise.register != self.register {
            return Err(Invalid::WrongRegister);
        }
        if !self.allows(&promise.writer) {
            return Err(Invalid::NotAWriter);
        }
        promise.verify_by(&promise.writer)?;
        // 1, 2, 4, ... rounds: soon more than a busy writer goes up while we are on our way.
        let lead = 1 << self.preemptions.min(PREEMPTION_LEAD_MAX);
        self.proposer.on_conflict(promise.promises(), lead);
        Ok(())
    }

    /// Whether `key` may write, as far as we know.
    fn allows(&self, key: &PublicKey) -> bool {
        match &self.verified {
            Some(verified) => verified.record.allows(&self.genesis, key),
            None => *key == self.genesis.owner || self.genesis.writers.contains(key),
        }
    }

    /// Enters a chosen value, or refuses one that is older than what was seen before.
    fn saw(&mut self, chosen: Option<&SignedRecord>) -> Result<(), ReadError> {
        self.refuse_older(chosen)?;
        if let Some(record) = chosen {
            self.seen.raise(record.header.version, record.hash());
        }
        Ok(())
    }

    /// Refuses a value that is older than what was seen before, or another of the same version.
    fn refuse_older(&self, value: Option<&SignedRecord>) -> Result<(), ReadError> {
        let found = value.map_or(0, |record| record.header.version);
        if let Some((seen, hash)) = self.seen.get()
            && (found < seen || (found == seen && value.map(SignedRecord::hash) != Some(hash)))
        {
            return Err(ReadError::RolledBack { register: self.register, seen, found });
        }
        Ok(())
    }
}

/// One operation on one register.
pub(crate) struct Operation<'a, O> {
    pub(crate) links: &'a Rc<Links<O>>,
    identity: &'a Identity,
    pub(crate) state: &'a mut State,
    deadline: Instant,
    pause: Duration,
}

impl<'a, O: Overlay + 'static> Operation<'a, O> {
    pub(crate) fn new(links: &'a Rc<Links<O>>, identity: &'a Identity, state: &'a mut State) -> Self {
        let deadline = reactor::now() + OPERATION_TIMEOUT;
        state.preemptions = 0;
        Operation { links, identity, state, deadline, pause: BACKOFF_MIN }
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
        let genesis = self.state.genesis.clone();
        loop {
            let answers = self.read_round(&genesis);
            let chosen = match answers.chosen {
                Some(chosen) => Ok(chosen),
                None if answers.count >= genesis.quorum().needed => self.settle(&genesis, answers.latest)?,
                None => Err(answers.reason),
            };
            match chosen {
                Ok(chosen) => {
                    let chosen = chosen.map(|proposed| proposed.record);
                    self.state.saw(chosen.as_ref())?;
                    return Ok(chosen.map(|record| record.to_record()));
                }
                Err(reason) => {
                    if !self.back_off() {
                        let (answers, needed) = (answers.count, genesis.quorum().needed);
                        return Err(ReadError::NoQuorum { answers, needed, reason });
                    }
                }
            }
        }
    }

    /// Makes what a quorum has, but not under one ballot, chosen: a write-back. Who may not write delivers the latest
    /// proposal again instead of making one.
    ///
    /// What is older than what was seen before is not made chosen once more.
    fn settle(
        &mut self,
        genesis: &Signed<Genesis>,
        latest: Option<Proposed>,
    ) -> Result<Result<Option<Proposed>, String>, ReadError> {
        if !self.state.allows(&self.identity.public_key()) {
            let Some(latest) = latest else { return Ok(Err("the nodes disagree".into())) };
            self.state.refuse_older(Some(&latest.record))?;
            let delivered = self.accept_round(genesis, &latest);
            return Ok(delivered.map(|()| Some(latest)).map_err(|lost| lost.reason()));
        }
        self.state.proposer.forget();
        let ballot = self.state.proposer.next_ballot();
        let current = match self.prepare_round(genesis, ballot) {
            Ok(current) => current,
            Err(lost) => return Ok(Err(lost.reason())),
        };
        let record = current.map(|current| current.record);
        self.state.refuse_older(record.as_ref())?;
        let Some(record) = record else { return Ok(Ok(None)) };
        let proposed = self.propose(ballot, record);
        Ok(self.accept_round(genesis, &proposed).map(|()| Some(proposed)).map_err(|lost| lost.reason()))
    }

    fn propose(&mut self, ballot: Ballot, record: SignedRecord) -> Proposed {
        let next = self.state.proposer.next_ballot();
        Proposed::sign(self.identity, ballot, record, Some(next))
    }

    /// Swaps if the value is the expected one. `ready` is asked right before the new value is proposed: nothing
    /// suspends between it and our own node's taking the proposal.
    pub(crate) fn swap(
        &mut self,
        expected: Option<HeaderHash>,
        payload: &Bytes,
        ready: &dyn Fn() -> Result<(), PutError>,
    ) -> Result<Record, SwapError> {
        let mut sent = Sent::default();
        // Once somebody may have our record, no failure says that nothing was changed.
        self.try_swap(expected, payload, ready, &mut sent).map_err(|error| match error {
            error @ (SwapError::Lost(_) | SwapError::Unknown { .. }) => error,
            error if sent.is_doubtful => SwapError::Unknown { reason: error.to_string() },
            error => error,
        })
    }

    fn try_swap(
        &mut self,
        expected: Option<HeaderHash>,
        payload: &Bytes,
        ready: &dyn Fn() -> Result<(), PutError>,
        sent: &mut Sent,
    ) -> Result<Record, SwapError> {
        let genesis = self.state.genesis.clone();
        loop {
            let (ballot, current) = match self.state.proposer.begin() {
                // What we remember of our last turn may be older than what we have read since: then the nodes are asked.
                Start::Accept { ballot, current }
                    if Some(current.record.hash()) == expected
                        && self.state.refuse_older(Some(&current.record)).is_ok() =>
                {
                    (ballot, Some(current.record))
                }
                Start::Accept { .. } => continue,
                Start::Prepare(ballot) => match self.prepare_round(&genesis, ballot) {
                    Ok(current) => (ballot, current.map(|current| current.record)),
                    Err(lost) => {
                        // Only met somebody: go above them at once. They have a round trip to finish in.
                        let retry_at_once = lost.conflicts > 0 && self.state.preemptions == 0;
                        self.again(&genesis, &lost, sent.is_doubtful, retry_at_once)?;
                        continue;
                    }
                },
            };
            self.state.refuse_older(current.as_ref())?;
            let record = if current.as_ref().map(SignedRecord::hash) == expected {
                sent.record.get_or_insert_with(|| self.sign(current.as_ref(), payload)).clone()
            } else {
                // Somebody else's, or ours from a round before: chosen or not, it is what the register has now.
                match current {
                    Some(current) => current,
                    None => return Err(SwapError::Lost(None)),
                }
            };
            let proposed = self.propose(ballot, record);
            ready()?;
            match self.accept_round(&genesis, &proposed) {
                Ok(()) => {
                    self.state.saw(Some(&proposed.record))?;
                    return sent.outcome(&proposed.record);
                }
                Err(lost) => {
                    sent.is_doubtful |=
                        sent.record.as_ref() == Some(&proposed.record) && lost.may_have_accepted();
                    // We had the ballot and lost it: somebody waits for a turn, so it is theirs.
                    self.again(&genesis, &lost, sent.is_doubtful, false)?;
                }
            }
        }
    }

    /// After a lost round: pauses, or ends the operation.
    fn again(
        &mut self,
        genesis: &Signed<Genesis>,
        lost: &Lost,
        is_doubtful: bool,
        at_once: bool,
    ) -> Result<(), SwapError> {
        if lost.conflicts > 0 {
            self.state.preemptions += 1;
        }
        // What may be half done is worth clearing up even if a member refuses for good.
        let pointless = lost.is_final() && !is_doubtful;
        if !pointless && (at_once || self.back_off()) {
            if lost.stranger {
                // Perhaps the owner let somebody in: the newest record's list tells.
                self.read_round(genesis);
            }
            return Ok(());
        }
        Err(match &lost.refusal {
            Some(Refusal::Full) => SwapError::Full,
            Some(refusal) if pointless => SwapError::Refused(refusal.to_string()),
            _ => {
                let needed = self.state.genesis.quorum().needed;
                let answers = lost.conflicts + lost.accepted;
                SwapError::Read(ReadError::NoQuorum { answers, needed, reason: lost.reason() })
            }
        })
    }

    fn sign(&self, current: Option<&SignedRecord>, payload: &Bytes) -> SignedRecord {
        let access = current.and_then(|current| current.access.clone());
        SignedRecord::sign(self.identity, self.state.register, current, access, payload.clone())
    }
}

/// What a swap has sent.
#[derive(Default)]
struct Sent {
    record: Option<SignedRecord>,
    /// Whether an acceptor may have it from a lost round.
    is_doubtful: bool,
}

impl Sent {
    /// What the choice of `chosen` means for the swap.
    fn outcome(&self, chosen: &SignedRecord) -> Result<Record, SwapError> {
        let lost = || Err(SwapError::Lost(Some(chosen.to_record())));
        let Some(sent) = &self.record else { return lost() };
        let mine = sent.hash();
        if chosen.hash() == mine || chosen.ancestors().any(|ancestor| *ancestor == mine) {
            return Ok(sent.to_record());
        }
        let remembered = chosen.ancestors().count() as u64;
        if !self.is_doubtful || chosen.header.version.saturating_sub(remembered) <= sent.header.version {
            // Nobody has it; or, one version, one value: another stands where ours would, so ours never will.
            return lost();
        }
        Err(SwapError::Unknown { reason: "too many other writers have gone on meanwhile".into() })
    }
}

/// A random fraction, so that two writers who met once do not meet again.
fn jitter() -> f64 {
    f64::from(u32::from_le_bytes(random_bytes())) / f64::from(u32::MAX)
}
