//! Reading and swapping registers: the flow around [`crate::paxos`].
//!
//! One operation at a time for each register and client, so that a client never competes with itself. A round asks all
//! members at once and goes on with a quorum. Lost rounds are repeated after a pause with jitter, which doubles, until
//! [`OPERATION_TIMEOUT`].
//!
//! A register may have been moved to other nodes since this client heard of it last: whoever shows the owner's word for
//! that is followed, and the operation goes on there. (`moving` has how a register is moved, `members` how it is found.)
//!
//! Which list of writers is in force is the owner's word, not the members' choice: every proposal and every new record goes
//! under the newest list that was met (`lists`).
//!
//! A swap whose outcome was unclear is cleared up by the next round: it finds either our own record, or its successor,
//! or another record of the same version, which proves that ours will never be chosen.

pub(crate) mod lists;
mod members;
mod moving;
mod rounds;
mod state;

use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use overlay::Overlay;
use reactor::crypto::{Identity, PublicKey, random_bytes};

use crate::block::configuration::{Membership, Seal};
use crate::block::draft::Draft;
use crate::block::mutable::{AccessList, Signed, SignedRecord};
use crate::block::proposal::Proposed;
use crate::block_store::{HeaderHash, PutError, ReadError, Record, SwapError};
use crate::links::Links;
use crate::message::Refusal;
use crate::paxos::{Ballot, Start};

pub use moving::MoveError;
use rounds::Lost;
pub(crate) use state::{Seen, State};

/// A register's messages are small; a node whose disk takes longer than this is as good as dead.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// After this, an operation is given up with an error that says what is missing.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// The first pause after a lost round; it doubles up to [`BACKOFF_MAX`]. About one round trip with its two syncs.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Ballots go ahead of a busy writer's by at most 2 to this.
const PREEMPTION_LEAD_MAX: u32 = 10;

/// How long a read with a quorum that disagrees waits for the last members before it writes back.
const AGREEMENT_WAIT: Duration = Duration::from_millis(20);

/// Contacts looked at for a register's members before those are looked up one by one, and asked who they are if too few of
/// those that are known answer.
const NEAR_COUNT: usize = 16;

/// How rarely the nodes around are asked who keeps a register: that is up to [`NEAR_COUNT`] calls.
const LOOK_AROUND_PAUSE: Duration = Duration::from_secs(2);

/// What becomes of the list of those who may write beside the owner.
pub type WritersChange<'a> = &'a dyn Fn(&mut Vec<PublicKey>);

/// One operation on one register.
pub(crate) struct Operation<'a, O> {
    pub(crate) links: &'a Rc<Links<O>>,
    identity: &'a Identity,
    pub(crate) state: &'a mut State,
    /// Comes into force with the value that is swapped in; only the owner's does.
    writers_change: Option<WritersChange<'a>>,
    deadline: Instant,
    pause: Duration,
}

impl<'a, O: Overlay + 'static> Operation<'a, O> {
    pub(crate) fn new(links: &'a Rc<Links<O>>, identity: &'a Identity, state: &'a mut State) -> Self {
        let deadline = reactor::now() + OPERATION_TIMEOUT;
        state.preemptions = 0;
        Operation { links, identity, state, writers_change: None, deadline, pause: BACKOFF_MIN }
    }

    /// Has the swap change who may write, too.
    pub(crate) fn changing_writers(self, change: WritersChange<'a>) -> Self {
        Operation { writers_change: Some(change), ..self }
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
        self.read_signed().map(|chosen| chosen.map(|record| record.to_record()))
    }

    /// As [`Operation::read`], with all that its writer signed.
    pub(crate) fn read_signed(&mut self) -> Result<Option<SignedRecord>, ReadError> {
        loop {
            let membership = self.state.membership.clone();
            let answers = self.read_round(&membership);
            if self.has_left(&membership) {
                continue;
            }
            let needed = membership.quorum().needed;
            let (count, mut reason) = (answers.count, answers.reason);
            let settled = match answers.chosen {
                Some(chosen) => Ok(chosen),
                None if count >= needed => self.settle(&membership, answers.latest)?,
                None if count + answers.behind >= needed => self.bring_up(&membership, answers.latest)?,
                None => Err(Lost::because(reason.clone())),
            };
            match settled {
                // The register may have gone on elsewhere since.
                Ok(Some(sealed)) if sealed.seal.is_some() => match self.finish_move(&membership, &sealed) {
                    Ok(()) => continue,
                    Err(_) if self.look_around(&membership) => continue,
                    Err(lost) => reason = lost.reason(),
                },
                Ok(chosen) => {
                    let chosen = chosen.map(|proposed| proposed.record);
                    self.state.saw(chosen.as_ref())?;
                    return Ok(chosen);
                }
                Err(_) if self.has_left(&membership) => continue,
                Err(lost) => reason = lost.reason(),
            }
            if count < needed && self.look_around(&membership) {
                continue;
            }
            if !self.back_off() {
                return Err(ReadError::NoQuorum { answers: count, needed, reason });
            }
        }
    }

    /// Whether the register was found to be kept by others than `membership` names.
    fn has_left(&self, membership: &Membership) -> bool {
        self.state.membership.epoch() > membership.epoch()
    }

    /// Makes what a quorum has, but not under one ballot, chosen: a write-back. Who may not write delivers the latest
    /// proposal again instead of making one.
    ///
    /// What is older than what was seen before is not made chosen once more.
    fn settle(
        &mut self,
        membership: &Membership,
        latest: Option<Proposed>,
    ) -> Result<Result<Option<Proposed>, Lost>, ReadError> {
        if !self.state.allows(&self.identity.public_key()) {
            return self.bring_up(membership, latest);
        }
        self.state.proposer.forget();
        let ballot = self.state.proposer.next_ballot();
        let (ballot, current) = match self.prepare_round(membership, ballot) {
            Ok(prepared) => prepared,
            Err(lost) => return Ok(Err(lost)),
        };
        self.state.refuse_older(current.as_ref().map(|current| &current.record))?;
        let Some(current) = current else { return Ok(Ok(None)) };
        let proposed = self.propose(ballot, current);
        Ok(self.accept_round(membership, &proposed).map(|()| Some(proposed)))
    }

    /// Has all members that can be reached accept what is chosen once more: also one that learned it again, and does not vote for it
    /// until then.
    pub(crate) fn write_back(&mut self) -> Result<(), ReadError> {
        let membership = self.state.membership.clone();
        let answers = self.read_round(&membership);
        // If it comes to nothing, whoever asks again finds it as it was.
        let _ = self.settle(&membership, answers.latest)?;
        Ok(())
    }

    /// Delivers the latest proposal again, to members that missed it or that have yet to be given a first value. If nobody
    /// has that, those who kept the register before still do.
    fn bring_up(
        &mut self,
        membership: &Membership,
        latest: Option<Proposed>,
    ) -> Result<Result<Option<Proposed>, Lost>, ReadError> {
        let may_write = self.state.allows(&self.identity.public_key());
        let first = self.state.first_value().filter(|_| may_write);
        let first = first.map(|first| self.first(membership, first.clone()));
        // What somebody made whom the newest list puts out is for a round to judge that knows of it: it is handed to nobody.
        // What was sealed is chosen, whoever wrote it.
        let sealed = membership.configuration.as_ref().map(|configuration| configuration.value);
        let is_first = |latest: &Proposed| {
            latest.proposal.ballot == Ballot::first(membership.epoch())
                && Some(latest.record.hash()) == sealed
        };
        let is_on = |latest: &Proposed| {
            is_first(latest) || !latest.is_off_the_list(&membership.genesis, self.state.list())
        };
        let Some(latest) = latest.filter(is_on).or(first) else {
            let reason = "the nodes have yet to be given a value of somebody's who may write";
            return Ok(Err(Lost::because(reason.into())));
        };
        self.state.refuse_older(Some(&latest.record))?;
        // Whoever missed the newest list is to have that too.
        let latest = latest.under(self.state.list());
        Ok(self.accept_round(membership, &latest).map(|()| Some(latest)))
    }

    /// Proposes a value again under another ballot, and under the newest list of writers that was met.
    fn propose(&mut self, ballot: Ballot, value: Proposed) -> Proposed {
        self.propose_record(ballot, value.record, value.seal)
    }

    fn propose_record(
        &mut self,
        ballot: Ballot,
        record: SignedRecord,
        seal: Option<Signed<Seal>>,
    ) -> Proposed {
        let next = Some(self.state.proposer.next_ballot());
        let list = record.access_serial().max(self.state.list_serial());
        let in_force = self.state.standing(list, ballot).in_force;
        Proposed::sign_under(self.identity, ballot, record, seal, next, self.state.list(), in_force)
    }

    /// As `propose_record`, of a record that is signed in the same breath.
    fn propose_new(&mut self, ballot: Ballot, draft: Draft) -> Proposed {
        let next = Some(self.state.proposer.next_ballot());
        let list = draft.access_serial().max(self.state.list_serial());
        let in_force = self.state.standing(list, ballot).in_force;
        draft.propose(self.identity, ballot, next, self.state.list(), in_force)
    }

    /// Begins an attempt. A ballot that was promised before a newer list of writers was met is used up with that.
    fn begin(&mut self) -> Start<Proposed> {
        match self.state.proposer.begin() {
            Start::Accept { current, .. } if current.proposal.list < self.state.list_serial() => {
                Start::Prepare(self.state.proposer.next_ballot())
            }
            start => start,
        }
    }

    /// Has what was chosen just now chosen once more, by a proposal that says that its list is in force: until one does,
    /// a member that missed it can be made to undo it by somebody whom it puts out (`lists`). Where that fails, the next
    /// write does it.
    fn put_in_force(&mut self, membership: &Membership) {
        let prepared = match self.begin() {
            Start::Accept { ballot, current } => Ok((ballot, Some(current))),
            Start::Prepare(ballot) => self.prepare_round(membership, ballot),
        };
        let is_done = match prepared {
            // Somebody is moving the register, to an epoch that begins with the list.
            Ok((_, Some(current))) if current.seal.is_some() => true,
            Ok((ballot, Some(current))) if self.state.refuse_older(Some(&current.record)).is_ok() => {
                let proposed = self.propose(ballot, current);
                self.accept_round(membership, &proposed).is_ok()
            }
            _ => false,
        };
        if !is_done {
            tracing::debug!(register = %self.state.register, "a list of writers is chosen, and no more than that");
        }
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
        loop {
            let membership = self.state.membership.clone();
            let (ballot, current) = match self.begin() {
                // What we remember of our last turn may be older than what we have read since: then the nodes are asked.
                Start::Accept { ballot, current }
                    if Some(current.record.hash()) == expected
                        && self.state.refuse_older(Some(&current.record)).is_ok() =>
                {
                    (ballot, Some(current))
                }
                Start::Accept { .. } => continue,
                Start::Prepare(ballot) => match self.prepare_round(&membership, ballot) {
                    Ok(prepared) => prepared,
                    Err(lost) => {
                        // Only met somebody: go above them at once. They have a round trip to finish in.
                        let retry_at_once = lost.conflicts > 0 && self.state.preemptions == 0;
                        self.again(&membership, &lost, sent.is_doubtful, retry_at_once)?;
                        continue;
                    }
                },
            };
            self.state.refuse_older(current.as_ref().map(|current| &current.record))?;
            let current = match current {
                // Somebody is moving the register: nothing else may follow here, and ours comes after it.
                Some(sealed) if sealed.seal.is_some() => {
                    if let Err(lost) = self.seal(&membership, ballot, sealed) {
                        self.again(&membership, &lost, sent.is_doubtful, false)?;
                    }
                    continue;
                }
                current => current.map(|current| current.record),
            };
            let is_expected = current.as_ref().map(SignedRecord::hash) == expected;
            let proposed = match (&sent.record, current) {
                (None, current) if is_expected => {
                    let draft = self.draft(current.as_ref(), payload);
                    let proposed = self.propose_new(ballot, draft);
                    sent.record = Some(proposed.record.clone());
                    proposed
                }
                (Some(record), _) if is_expected => self.propose_record(ballot, record.clone(), None),
                // Somebody else's, or ours from a round before: chosen or not, it is what the register has now.
                (_, Some(current)) => self.propose_record(ballot, current, None),
                (_, None) => return Err(SwapError::Lost(None)),
            };
            ready()?;
            match self.accept_round(&membership, &proposed) {
                Ok(()) => {
                    self.state.saw(Some(&proposed.record))?;
                    let is_newer = proposed.proposal.list > membership.first_list();
                    if is_newer && !proposed.proposal.puts_its_list_in_force() {
                        self.put_in_force(&membership);
                    }
                    return sent.outcome(&proposed.record);
                }
                Err(lost) => {
                    // By hash: an earlier swap may have signed the same record beside another proposal.
                    let is_ours =
                        sent.record.as_ref().is_some_and(|sent| sent.hash() == proposed.record.hash());
                    sent.is_doubtful |= is_ours && lost.may_have_accepted();
                    // We had the ballot and lost it: somebody waits for a turn, so it is theirs.
                    self.again(&membership, &lost, sent.is_doubtful, false)?;
                }
            }
        }
    }

    /// After a lost round: pauses, or ends the operation.
    fn again(
        &mut self,
        membership: &Membership,
        lost: &Lost,
        is_doubtful: bool,
        at_once: bool,
    ) -> Result<(), SwapError> {
        if self.has_left(membership) {
            return Ok(());
        }
        if lost.conflicts > 0 {
            self.state.preemptions += 1;
        }
        if lost.behind > 0 {
            let answers = self.read_round(membership);
            if !self.has_left(membership) && self.bring_up(membership, answers.latest)?.is_ok() {
                return Ok(());
            }
        }
        if lost.conflicts + lost.accepted == 0 && self.look_around(membership) {
            return Ok(());
        }
        // What may be half done is worth clearing up even if a member refuses for good.
        let pointless = lost.is_final() && !is_doubtful && !self.may_be_behind(membership, lost);
        if !pointless && (at_once || self.back_off()) {
            if lost.stranger || matches!(lost.refusal, Some(Refusal::Bounds(_))) {
                // Perhaps the owner let somebody in, or put out whoever sent us that far up: the newest record's list tells.
                self.read_round(membership);
            }
            return Ok(());
        }
        Err(match &lost.refusal {
            Some(Refusal::Full) if !lost.is_for_silence(&membership.quorum()) => SwapError::Full,
            Some(refusal) if pointless && *refusal != Refusal::Full => {
                SwapError::Refused(refusal.to_string())
            }
            _ => {
                let needed = membership.quorum().needed;
                let answers = lost.conflicts + lost.accepted;
                SwapError::Read(ReadError::NoQuorum { answers, needed, reason: lost.reason() })
            }
        })
    }

    /// Whether those who say that we may not write are too few to keep us from it, and we are on the newest list all the same.
    /// They may go by a list that was not chosen, or have yet to hear of one.
    fn may_be_behind(&mut self, membership: &Membership, lost: &Lost) -> bool {
        let quorum = membership.quorum();
        if lost.not_allowed == 0 || lost.not_allowed > quorum.members - quorum.needed {
            return false;
        }
        self.read_round(membership);
        self.state.allows(&self.identity.public_key())
    }

    fn draft(&self, current: Option<&SignedRecord>, payload: &Bytes) -> Draft {
        // The newest that was met: one that was not chosen is the owner's word all the same.
        let mut access = self.state.list().cloned();
        if let Some(change) = self.writers_change {
            let mut writers =
                access.as_ref().map_or(&self.state.membership.genesis.writers, |list| &list.writers).clone();
            change(&mut writers);
            let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let serial = AccessList::serial_after(self.state.list_serial(), now);
            access = Some(AccessList::sign(self.identity, self.state.register, serial, writers));
        }
        let writer = self.identity.public_key();
        Draft::new(writer, self.state.register, current, access, payload.clone())
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
