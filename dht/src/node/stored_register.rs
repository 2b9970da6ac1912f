//! What a node keeps of one register, and what may be done to it. Pure.
//!
//! A node takes part in one epoch of a register at a time. It comes to a later one only with a value, in one write: see
//! [`crate::paxos::acceptor`]. Of a register that others keep now it keeps who they are, for good: a member of an earlier
//! epoch that forgot that it had been one would vote there again. And it keeps the last value that it had, since it takes
//! anybody's word for it that others have it: the owner signs who they are before they do.
//!
//! Not here: reading and writing it ([`super::registers`]).

use overlay::NodeId;
use reactor::serialization::{Content, EnvelopeError, Versioned, from_envelope};
use serde::{Deserialize, Serialize};

use crate::block::configuration::Membership;
use crate::block::mutable::{AccessList, Genesis, Invalid, Signed};
use crate::block::proposal::{Proposal, Proposed};
use crate::message::{Refusal, RegisterView};
use crate::node::past::turns::Turns;
use crate::paxos::{Accepted, Acceptor, Ballot, Rejected};

/// How far a ballot may be ahead of what was promised. Writers count up by a few; without this bound one of them could
/// use up all rounds at once and so stop the register for good.
const ROUND_JUMP_MAX: u64 = 1 << 32;

/// How far a value's number may be beyond that of what was accepted before. A node that was away may have missed some; without
/// this bound a writer could use up all numbers at once, and nobody's value could follow his.
const VERSION_JUMP_MAX: u64 = 1 << 32;

/// What a node keeps of a register: this, in an envelope, is the stored value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredRegister {
    /// Who the members are. The node itself need not be one any more.
    pub membership: Membership,
    /// The proposal that asked for what is promised.
    pub promise: Option<Signed<Proposal>>,
    /// What was promised and accepted.
    pub acceptor: Acceptor<Proposed>,
    /// The newest list of writers that was heard of, while nothing is accepted that could be kept under it.
    pub list: Option<Signed<AccessList>>,
    /// When this node came to have the value that it has, in seconds since 1970 by its own clock.
    #[serde(default)]
    pub since_seconds: u64,
    /// Which turns of its writers are kept, of its past.
    #[serde(default)]
    pub turns: Turns,
}

impl Versioned for StoredRegister {
    const TYPE_NAME: &'static str = "hypha stored register";
    const VERSION: u32 = 6;
    const READABLE_SINCE: u32 = 6;

    fn upgrade(version: u32, content: Content<'_>) -> Result<StoredRegister, EnvelopeError> {
        match version {
            // Nobody learned anything again then, and up to 4 each signature was of one statement.
            3..=5 => content.decode(),
            _ => Err(content.too_old()),
        }
    }
}

impl StoredRegister {
    /// Reads a stored value.
    ///
    /// # Errors
    /// If it is not one, or one that only a newer program may touch.
    pub fn decode(bytes: &[u8]) -> Result<StoredRegister, EnvelopeError> {
        from_envelope(bytes)
    }

    /// Of a register that the node hears of for the first time.
    pub(super) fn unheard(genesis: Signed<Genesis>) -> StoredRegister {
        StoredRegister {
            membership: genesis.into(),
            promise: None,
            acceptor: Acceptor::default(),
            list: None,
            since_seconds: 0,
            turns: Turns::default(),
        }
    }

    /// The value that it has, and since when; `None` if that is none.
    pub(super) fn value_since(&self) -> Option<(u64, &Proposed)> {
        self.acceptor.accepted.as_ref().map(|accepted| (self.since_seconds, &accepted.value))
    }

    /// Notes that it has the value that it has since `now`, unless `before` had it.
    pub(super) fn note_since(&mut self, before: Option<&StoredRegister>, now_seconds: u64) {
        let hash = |state: &StoredRegister| state.value_since().map(|(_, value)| value.record.hash());
        match before {
            Some(before) if hash(before) == hash(self) => self.since_seconds = before.since_seconds,
            _ => self.since_seconds = now_seconds,
        }
    }

    /// The same, kept by others since.
    pub(super) fn retired(mut self, membership: Membership) -> StoredRegister {
        self.acceptor.retire(membership.epoch());
        StoredRegister { membership, promise: None, ..self }
    }

    /// As others are shown it.
    pub(super) fn view(&self) -> RegisterView {
        RegisterView {
            membership: self.membership.clone(),
            promise: self.promise.clone(),
            accepted: self.proposed(),
            learned: self.acceptor.learned,
        }
    }

    /// Checks that `own` may be asked what `asked` is about: as a member of the epoch in which it is, or of a later one that
    /// the owner has signed.
    pub(super) fn admit(&self, own: &NodeId, asked: &Membership) -> Result<(), Refusal> {
        let (here, there) = (self.membership.epoch(), asked.epoch());
        if there < here
            && let Some(configuration) = &self.membership.configuration
        {
            return Err(Refusal::Moved { configuration: configuration.clone() });
        }
        if *asked != self.membership {
            // One configuration for an epoch: a second one is nobody's to sign.
            if there == here {
                return Err(Invalid::Members.into());
            }
            asked.verify()?;
        }
        asked.index_of(own).map(drop).ok_or(Refusal::NotAMember)
    }

    pub(super) fn proposed(&self) -> Option<Proposed> {
        self.acceptor.accepted.as_ref().map(|accepted| accepted.value.clone())
    }

    pub(super) fn keep_promise_of(&mut self, proposal: &Signed<Proposal>) {
        if proposal.promises() == self.acceptor.promised {
            self.promise = Some(proposal.clone());
        }
    }

    /// The newest list of writers that was heard of.
    pub(super) fn list(&self) -> Option<&Signed<AccessList>> {
        match &self.acceptor.accepted {
            Some(accepted) => accepted.value.list(),
            None => self.list.as_ref(),
        }
    }

    /// Its number.
    pub(super) fn list_serial(&self) -> u64 {
        self.list().map_or(0, |list| list.serial)
    }

    /// Learns from `proposal`, whose list is the newest, that it is in force: takes back what was promised without it under
    /// higher ballots.
    ///
    /// Whatever this acceptor promised before it heard of the list, it promised to proposals without it. So of those that
    /// bind it still, none is above the ballot since which the list is in force. Once it knows the list it promises
    /// to others too, and then it takes nothing back.
    pub(super) fn take_back_promise(&mut self, proposal: &Proposal) {
        let Some(in_force) = proposal.says_in_force() else { return };
        let is_void = |promise: &Signed<Proposal>| in_force.voids_promise_of(promise);
        if self.list_serial() < in_force.list
            && self.acceptor.epoch() == in_force.since.epoch
            && self.promise.as_ref().is_some_and(is_void)
        {
            self.acceptor.promised = in_force.since;
        }
    }

    /// Likewise, what was accepted: nothing has to follow it.
    pub(super) fn drop_void(&mut self, proposal: &Proposal) {
        let Some(in_force) = proposal.says_in_force() else { return };
        self.acceptor.accepted.take_if(|accepted| in_force.voids(&accepted.value.proposal));
    }

    /// Lets go of what was accepted in an epoch before this one, which begins with what was chosen last in that: whatever does
    /// not lead there was chosen by nobody.
    pub(super) fn drop_former(&mut self, epoch: u64) {
        self.acceptor.accepted.take_if(|accepted| accepted.ballot.epoch < epoch);
    }

    /// Whether to go by `list` without a new ballot. Not so if a later one was promised to somebody whom it puts out: from who
    /// goes by the list nothing is taken back any more, so that promise would hold for good.
    pub(super) fn may_go_by(&self, list: Option<&Signed<AccessList>>) -> bool {
        let accepted = self.acceptor.accepted.as_ref().map_or(Ballot::ZERO, |accepted| accepted.ballot);
        let is_off = |promise: &Signed<Proposal>| {
            promise.promises() > accepted
                && !AccessList::names(list, &self.membership.genesis, &promise.writer)
        };
        !self.promise.as_ref().is_some_and(is_off)
    }

    /// Goes by `list` from now on, if that is newer.
    pub(super) fn go_by(&mut self, list: Option<&Signed<AccessList>>) {
        match self.acceptor.accepted.take() {
            Some(Accepted { ballot, value }) => {
                self.acceptor.accepted = Some(Accepted { ballot, value: value.under(list) });
            }
            None if list.map_or(0, |list| list.serial) > self.list_serial() => self.list = list.cloned(),
            None => {}
        }
    }

    /// What to answer when the acceptor refuses.
    pub(super) fn refusal(&self, rejected: Rejected) -> Refusal {
        let accepted = self.acceptor.accepted.as_ref().map(|accepted| &accepted.value.proposal);
        match (rejected, &self.promise, accepted) {
            (Rejected::Conflict { .. }, Some(promise), _) => Refusal::Conflict { promise: promise.clone() },
            (Rejected::Equivocation, _, Some(accepted)) => {
                tracing::error!(
                    register = %accepted.register, writer = %accepted.writer,
                    "a writer proposed two values in one round: its key is misused"
                );
                Refusal::Equivocation { accepted: accepted.clone() }
            }
            (Rejected::Unchained, ..) => Invalid::Chain.into(),
            (Rejected::Behind, ..) => Refusal::Behind,
            (Rejected::Past, ..) => Invalid::Epoch.into(),
            // What was promised or accepted came with a proposal, or this is not our record.
            (Rejected::Conflict { .. } | Rejected::Equivocation, ..) => Refusal::Damaged,
        }
    }
}

/// Checks that a value's number is not too far ahead of what the node has accepted: in the first epoch, where it may have
/// nothing yet, ahead of the beginning.
pub(super) fn check_version(
    state: &StoredRegister,
    asked: &Membership,
    proposed: &Proposed,
) -> Result<(), Refusal> {
    let before = match &state.acceptor.accepted {
        Some(accepted) => accepted.value.record.header.version,
        None if asked.epoch() == 0 => 0,
        None => return Ok(()),
    };
    match proposed.record.header.version > before.saturating_add(VERSION_JUMP_MAX) {
        true => Err(Refusal::Bounds(format!("a value is at most {VERSION_JUMP_MAX} versions ahead"))),
        false => Ok(()),
    }
}

/// Checks that a proposal's ballots are of the epoch in which it is made, and not too far ahead; and that an epoch's first
/// value is the one that was sealed. No value goes by a list of writers that is older than the one that the epoch began with.
pub(super) fn check_ballots(
    state: &StoredRegister,
    asked: &Membership,
    proposal: &Proposal,
) -> Result<(), Refusal> {
    let ballots = [Some(proposal.ballot), proposal.next];
    if ballots.iter().flatten().any(|ballot| ballot.epoch != asked.epoch()) {
        return Err(Invalid::Epoch.into());
    }
    if let Some(configuration) = &asked.configuration
        && proposal.ballot == Ballot::first(configuration.epoch)
        && proposal.value != Some(configuration.value)
    {
        return Err(Invalid::Epoch.into());
    }
    if proposal.value.is_some() && proposal.list < asked.first_list() {
        return Err(Invalid::Access.into());
    }
    let promised = state.acceptor.promised.max(Ballot::first(asked.epoch()));
    if proposal.promises().round > promised.round.saturating_add(ROUND_JUMP_MAX) {
        return Err(Refusal::Bounds(format!("a ballot is at most {ROUND_JUMP_MAX} rounds ahead")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reactor::crypto::Identity;
    use reactor::serialization::to_envelope;

    use super::*;
    use crate::block::draft::Draft;

    /// As version 3 had it: nobody learned anything again.
    #[derive(Serialize, Deserialize)]
    struct Third {
        membership: Membership,
        promise: Option<Signed<Proposal>>,
        acceptor: ThirdAcceptor,
        list: Option<Signed<AccessList>>,
    }

    #[derive(Serialize, Deserialize)]
    struct ThirdAcceptor {
        promised: Ballot,
        accepted: Option<Accepted<Proposed>>,
    }

    impl Versioned for Third {
        const TYPE_NAME: &'static str = StoredRegister::TYPE_NAME;
        const VERSION: u32 = 3;
        const READABLE_SINCE: u32 = 3;
    }

    #[test]
    fn what_is_signed_together_is_kept_so_and_no_older_program_touches_it() {
        let owner = Identity::from_seed(&[1; 32]);
        let genesis = Genesis::sign(&owner, [5; 32], vec![NodeId([1; 32])], vec![]);
        let ballot = Ballot::first(0);
        let draft = Draft::new(owner.public_key(), genesis.register(), None, None, Bytes::from_static(b"1"));
        let together = draft.propose(&owner, ballot, None, None, None);
        let alone = Proposed::sign(&owner, ballot, together.record.clone(), None);
        for value in [together, alone] {
            let accepted = Some(Accepted { ballot, value: value.clone() });
            let acceptor = Acceptor { promised: ballot, accepted, ..Acceptor::default() };
            let promise = Some(value.proposal.clone());
            let kept = StoredRegister { acceptor, promise, ..StoredRegister::unheard(genesis.clone()) };
            let mut bytes = to_envelope(&kept);
            let read = StoredRegister::decode(&bytes).unwrap();
            assert_eq!(read, kept);
            assert_eq!(read.proposed().unwrap().verify(&genesis, None), Ok(()));
            assert_eq!(read.promise.unwrap().verify_by(&owner.public_key()), Ok(()));
            let at = bytes.windows(8).position(|bytes| bytes == b"register").unwrap() + 8;
            assert_eq!(bytes[at..at + 2], [6, 6], "the program of before knows 5, and leaves it alone");
            bytes[at..at + 2].copy_from_slice(&[4, 4]);
            assert_eq!(StoredRegister::decode(&bytes).unwrap(), kept);
        }
    }

    #[test]
    fn what_the_version_before_kept_is_read_and_an_older_one_is_not_taken_for_damaged() {
        let owner = Identity::from_seed(&[1; 32]);
        let genesis = Genesis::sign(&owner, [5; 32], vec![NodeId([1; 32])], vec![]);
        let promised = Ballot::first(7);
        let third = Third {
            membership: genesis.clone().into(),
            promise: None,
            acceptor: ThirdAcceptor { promised, accepted: None },
            list: None,
        };
        let read = StoredRegister::decode(&to_envelope(&third)).unwrap();
        let acceptor = Acceptor { promised, ..Acceptor::default() };
        assert_eq!(read, StoredRegister { acceptor, ..StoredRegister::unheard(genesis) });
        let mut second = to_envelope(&third);
        // The versions follow the name.
        let at = second.windows(8).position(|bytes| bytes == b"register").unwrap() + 8;
        assert_eq!(second[at..at + 2], [3, 3]);
        second[at..at + 2].copy_from_slice(&[2, 2]);
        assert!(matches!(StoredRegister::decode(&second), Err(EnvelopeError::TooOld { version: 2, .. })));
    }
}
