//! What a client knows of one register, from one operation to the next.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use reactor::crypto::PublicKey;

use crate::block::configuration::{Configuration, Membership};
use crate::block::mutable::{AccessList, Genesis, Invalid, Signed, SignedRecord};
use crate::block::proposal::{Proposal, Proposed};
use crate::block_store::{HeaderHash, ReadError, RegisterAddress};
use crate::links::Failure;
use crate::message::RegisterView;
use crate::paxos::{Proposer, ProposerId};

/// How far above all writers' rounds we go for somebody whom we do not take for one. Far more than anybody writes while a
/// member is away, and so little that no honest member refuses us for it (`node::stored_register::ROUND_JUMP_MAX`).
const STRANGER_LEAD_MAX: u64 = 1 << 20;

/// What a client knows of one register.
pub(crate) struct State {
    pub(super) membership: Membership,
    pub(super) register: RegisterAddress,
    pub(super) proposer: Proposer<Proposed>,
    /// The last value whose signatures were verified.
    verified: Option<Proposed>,
    /// The newest list of writers that anybody showed, chosen or not.
    list: Option<Signed<AccessList>>,
    seen: Rc<Seen>,
    /// The highest round of anybody's whom we take for a writer.
    believed_round: u64,
    /// How often in a row somebody else's ballot was higher.
    pub(super) preemptions: u32,
    /// The value that the present epoch begins with, if somebody of the epoch before showed it: see
    /// [`State::look_for_sealed`].
    pub(super) sealed: Option<SignedRecord>,
    /// When the nodes around were asked who keeps the register, for want of a quorum.
    pub(super) looked_at: Option<Instant>,
}

/// What this client has seen of a register, here or in an earlier run, and never goes back behind.
#[derive(Default)]
pub(crate) struct Seen {
    value: Cell<Option<(u64, HeaderHash)>>,
    configuration: RefCell<Option<Signed<Configuration>>>,
}

impl Seen {
    /// The newest chosen value.
    pub(crate) fn value(&self) -> Option<(u64, HeaderHash)> {
        self.value.get()
    }

    pub(crate) fn raise(&self, version: u64, hash: HeaderHash) {
        if self.value().is_none_or(|(seen, _)| seen < version) {
            self.value.set(Some((version, hash)));
        }
    }

    /// Who keeps the register, if it was ever moved.
    pub(crate) fn configuration(&self) -> Option<Signed<Configuration>> {
        self.configuration.borrow().clone()
    }
}

impl State {
    pub(crate) fn new(genesis: Signed<Genesis>, proposer: ProposerId, seen: Rc<Seen>) -> State {
        let (register, proposer) = (genesis.register(), Proposer::new(proposer));
        let membership = genesis.into();
        State {
            membership,
            register,
            proposer,
            verified: None,
            list: None,
            seen,
            believed_round: 0,
            preemptions: 0,
            sealed: None,
            looked_at: None,
        }
    }

    /// Takes it that the register is kept by others since, by its owner's word. Says whether that is news.
    pub(crate) fn follow(&mut self, configuration: &Signed<Configuration>) -> Result<bool, Invalid> {
        configuration.verify(&self.membership.genesis)?;
        if configuration.epoch <= self.membership.epoch() {
            return Ok(false);
        }
        tracing::info!(register = %self.register, epoch = configuration.epoch, "the register has moved");
        self.membership = self.membership.followed_by(configuration.clone());
        self.proposer.enter(configuration.epoch);
        self.preemptions = 0;
        *self.seen.configuration.borrow_mut() = Some(configuration.clone());
        Ok(true)
    }

    /// Keeps what a member of the epoch before has, if it is the value that the present one begins with. A mover may have
    /// died before any member was given it, or those who were may have died since: then it is to be given from here.
    pub(super) fn look_for_sealed(&mut self, view: &RegisterView) {
        let Some(configuration) = &self.membership.configuration else { return };
        if let Some(accepted) = &view.accepted
            && accepted.proposal.ballot.epoch < configuration.epoch
            && accepted.record.hash() == configuration.value
            && accepted.record.verify(&self.membership.genesis, None).is_ok()
        {
            self.sealed = Some(accepted.record.clone());
        }
    }

    /// The value that the present epoch begins with, if it is known.
    pub(super) fn first_value(&self) -> Option<&SignedRecord> {
        let configuration = self.membership.configuration.as_ref()?;
        self.sealed.as_ref().filter(|record| record.hash() == configuration.value)
    }

    /// Verifies a value and by whose word it was accepted, with a signature checked only once.
    pub(super) fn check(&mut self, proposed: &Proposed) -> Result<(), Failure> {
        if proposed.proposal.ballot.epoch != self.membership.epoch() {
            return Err(Failure::Lied("it showed a value of another replica set".into()));
        }
        if self.verified.as_ref() == Some(proposed) {
            return Ok(());
        }
        proposed
            .verify(&self.membership.genesis, self.list.as_ref())
            .map_err(|invalid| Failure::Lied(invalid.to_string()))?;
        self.verify(proposed.clone());
        Ok(())
    }

    /// Takes a value for verified.
    pub(super) fn verify(&mut self, proposed: Proposed) {
        if proposed.list_serial() > self.list.as_ref().map_or(0, |list| list.serial) {
            self.list = proposed.list().cloned();
        }
        if AccessList::names(self.list.as_ref(), &self.membership.genesis, &proposed.proposal.writer) {
            self.believed_round = self.believed_round.max(proposed.proposal.ballot.round);
        }
        self.verified = Some(proposed);
    }

    /// The newest list of writers that anybody showed: the owner's word, whatever became of the value that it came with.
    pub(super) fn list(&self) -> Option<&Signed<AccessList>> {
        self.list.as_ref()
    }

    /// Takes it that a ballot was promised, if somebody who may write asked for it: a member that lies must not drive
    /// our ballots up until honest members refuse them.
    ///
    /// Whom we do not take for a writer may have been one when an honest member promised him something. He is not believed
    /// (the error says so), and gone above all the same, as long as that is not far from where those are whom we believe.
    pub(super) fn believe(&mut self, epoch: u64, promise: &Signed<Proposal>) -> Result<(), Invalid> {
        if promise.promises().epoch != epoch {
            return Err(Invalid::Epoch);
        }
        if promise.register != self.register {
            return Err(Invalid::WrongRegister);
        }
        promise.verify_by(&promise.writer)?;
        let is_believed = self.allows(&promise.writer);
        if is_believed {
            self.believed_round = self.believed_round.max(promise.promises().round);
        } else if promise.promises().round > self.believed_round.saturating_add(STRANGER_LEAD_MAX) {
            return Err(Invalid::NotAWriter);
        }
        // 1, 2, 4, ... rounds: soon more than a busy writer goes up while we are on our way.
        let lead = 1 << self.preemptions.min(super::PREEMPTION_LEAD_MAX);
        self.proposer.on_conflict(promise.promises(), lead);
        if is_believed { Ok(()) } else { Err(Invalid::NotAWriter) }
    }

    /// Who may write beside the owner, as far as we know.
    pub(crate) fn writers(&self) -> &[PublicKey] {
        let list = self.verified.as_ref().and_then(Proposed::list);
        list.map_or(&self.membership.genesis.writers, |list| &list.writers)
    }

    /// Whether `key` may write, as far as we know.
    pub(super) fn allows(&self, key: &PublicKey) -> bool {
        let list = self.verified.as_ref().and_then(Proposed::list);
        AccessList::names(list, &self.membership.genesis, key)
    }

    /// Enters a chosen value, or refuses one that is older than what was seen before.
    pub(super) fn saw(&mut self, chosen: Option<&SignedRecord>) -> Result<(), ReadError> {
        self.refuse_older(chosen)?;
        if let Some(record) = chosen {
            self.seen.raise(record.header.version, record.hash());
        }
        Ok(())
    }

    /// Refuses a value that is older than what was seen before, another of the same version, or one that does not follow it
    /// as far as can be told: chosen values are one line, and each names some of those before it.
    pub(super) fn refuse_older(&self, value: Option<&SignedRecord>) -> Result<(), ReadError> {
        let Some((seen, hash)) = self.seen.value() else { return Ok(()) };
        let found = value.map_or(0, |record| record.header.version);
        let of_seen = value.and_then(|record| record.hash_of(seen));
        match of_seen {
            _ if found < seen => Err(ReadError::RolledBack { register: self.register, seen, found }),
            Some(other) if other != hash => match found == seen {
                true => Err(ReadError::RolledBack { register: self.register, seen, found }),
                false => Err(ReadError::Forked { register: self.register, seen, found }),
            },
            _ => Ok(()),
        }
    }
}
