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
use reactor::crypto::{Identity, random_bytes};

use crate::block::mutable::{Genesis, Signed, SignedRecord};
use crate::block_store::{HeaderHash, PutError, ReadError, Record, RegisterAddress, SwapError};
use crate::links::{Failure, Links};
use crate::message::Refusal;
use crate::paxos::{Proposer, ProposerId, Start};

use rounds::Lost;

/// A register's messages are small; a node whose disk takes longer than this is as good as dead.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// After this, an operation is given up with an error that says what is missing.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// The first pause after a lost round; it doubles up to [`BACKOFF_MAX`]. About one round trip with its two syncs.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How long a read with a quorum that disagrees waits for the last members before it writes back.
const AGREEMENT_WAIT: Duration = Duration::from_millis(20);

/// Contacts looked at for a register's members before those are looked up one by one.
const NEAR_COUNT: usize = 16;

/// What a client knows of one register.
pub(crate) struct State {
    genesis: Signed<Genesis>,
    register: RegisterAddress,
    proposer: Proposer<SignedRecord>,
    /// The last record whose signatures were verified.
    verified: Option<SignedRecord>,
    seen: Rc<HighWater>,
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
        State { genesis, register, proposer, verified: None, seen }
    }

    /// Verifies a record, with a signature checked only once.
    fn check(&mut self, record: &SignedRecord) -> Result<(), Failure> {
        if self.verified.as_ref() == Some(record) {
            return Ok(());
        }
        let known = self.verified.as_ref().and_then(|verified| verified.access.as_ref());
        record.verify(&self.genesis, known).map_err(|invalid| Failure::Lied(invalid.to_string()))?;
        self.verified = Some(record.clone());
        Ok(())
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
    pub(crate) state: &'a mut State,
    deadline: Instant,
    pause: Duration,
}

impl<'a, O: Overlay + 'static> Operation<'a, O> {
    pub(crate) fn new(links: &'a Rc<Links<O>>, state: &'a mut State) -> Self {
        let deadline = reactor::now() + OPERATION_TIMEOUT;
        Operation { links, state, deadline, pause: BACKOFF_MIN }
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
                    self.state.saw(chosen.as_ref())?;
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
        let genesis = self.state.genesis.clone();
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
            self.state.refuse_older(current.as_ref())?;
            let hash = current.as_ref().map(SignedRecord::hash);
            let record = if hash == expected {
                match &sent {
                    Some(sent) => sent.clone(),
                    None => {
                        let record = self.sign(identity, current.as_ref(), payload);
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
                    self.state.saw(Some(&record))?;
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
                let needed = self.state.genesis.quorum().needed;
                let answers = lost.conflicts + lost.accepted;
                SwapError::Read(ReadError::NoQuorum { answers, needed, reason: lost.reason() })
            }
        })
    }

    fn sign(&self, identity: &Identity, current: Option<&SignedRecord>, payload: &Bytes) -> SignedRecord {
        let access = current.and_then(|current| current.access.clone());
        SignedRecord::sign(identity, self.state.register, current, access, payload.clone())
    }

    /// Makes what a quorum has, but not under one ballot, chosen: a write-back.
    fn settle(&mut self, genesis: &Signed<Genesis>) -> Result<Option<SignedRecord>, Lost> {
        self.state.proposer.forget();
        let ballot = self.state.proposer.next_ballot();
        let current = self.prepare_round(genesis, ballot)?;
        // What is older than what was seen before is not made chosen once more: the caller says what it is.
        if let Some(record) = &current
            && self.state.refuse_older(Some(record)).is_ok()
        {
            self.accept_round(genesis, ballot, record)?;
        }
        Ok(current)
    }
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
