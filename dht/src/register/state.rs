//! What a client knows of one register, from one operation to the next.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use reactor::cell::RefCell;
use reactor::crypto::{PublicKey, random_bytes};

use super::lists::Known;
use crate::block::configuration::{Configuration, Membership};
use crate::block::mutable::{AccessList, Genesis, Invalid, Signed, SignedRecord};
use crate::block::proposal::{InForce, Proposal, Proposed, Standing};
use crate::block_store::{HeaderHash, ReadError, RegisterAddress};
use crate::links::Failure;
use crate::message::RegisterView;
use crate::paxos::{Ballot, Proposer, ProposerId};

/// How far above all writers' rounds we go for somebody whom we do not take for one. Far more than anybody writes while a
/// member is away, and so little that no honest member refuses us for it (`node::stored_register::ROUND_JUMP_MAX`).
const STRANGER_LEAD_MAX: u64 = 1 << 20;

/// How far our rounds are above all writers' before they begin anew, when those turn out to be the work of somebody who is none
/// any more: half of what honest members refuse us for. An honest writer's are never so far above the others'.
const OUTSIDER_LEAD_MAX: u64 = 1 << 31;

/// What a client knows of one register.
pub(crate) struct State {
    pub(super) membership: Membership,
    pub(super) register: RegisterAddress,
    pub(super) proposer: Proposer<Proposed>,
    /// The last value whose signatures were verified.
    verified: Option<Proposed>,
    /// The newest list of writers that anybody showed, chosen or not.
    list: Option<Signed<AccessList>>,
    /// The newest list of which we know that it is in force in this epoch, and who says so if we did not see it ourselves.
    in_force: Option<(InForce, Option<PublicKey>)>,
    seen: Rc<Seen>,
    /// The highest round of each whom we take for a writer.
    believed_rounds: BTreeMap<PublicKey, u64>,
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
            in_force: None,
            seen,
            believed_rounds: BTreeMap::new(),
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
        self.membership = self.membership.followed_by(configuration.clone());
        tracing::info!(register = %self.register, epoch = configuration.epoch, "the register has moved");
        self.proposer.enter(configuration.epoch);
        self.in_force = None;
        self.preemptions = 0;
        *self.seen.configuration.borrow_mut() = Some(configuration.clone());
        Ok(true)
    }

    /// Keeps what a member of the epoch before has, if it is the value that the present one begins with. A mover may have
    /// died before any member was given it, or those who were may have died since: then it is to be given from here.
    ///
    /// Whichever list of writers it shows is the owner's word, in whatever epoch.
    pub(super) fn look_for_sealed(&mut self, view: &RegisterView) {
        if let Some(list) = view.accepted.as_ref().and_then(Proposed::list)
            && list.serial > self.list_serial()
            && list.verify(&self.membership.genesis).is_ok()
        {
            self.list = Some(list.clone());
            self.on_newer_list();
        }
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
        if proposed.proposal.list < self.membership.first_list() {
            return Err(Failure::Lied(
                "it showed a value by a list of writers from before the register moved".into(),
            ));
        }
        proposed
            .verify(&self.membership.genesis, self.list.as_ref())
            .map_err(|invalid| Failure::Lied(invalid.to_string()))?;
        self.verify(proposed.clone());
        Ok(())
    }

    /// Takes a value for verified.
    pub(super) fn verify(&mut self, proposed: Proposed) {
        let is_newer = proposed.list_serial() > self.list_serial();
        if is_newer {
            self.list = proposed.list().cloned();
        }
        let writer = proposed.proposal.writer;
        if self.allows(&writer) {
            self.believe_round(writer, proposed.proposal.ballot.round);
        }
        if is_newer {
            self.on_newer_list();
        }
        if let Some(in_force) = proposed.proposal.says_in_force() {
            self.note_in_force(in_force, Some(writer));
        }
        self.verified = Some(proposed);
    }

    /// A newer list of writers was met. Whom that puts out may have sent our ballots so far up, by what a member promised him, that
    /// the others refuse them: then they begin anew where those are who may write, as another proposer's.
    fn on_newer_list(&mut self) {
        let Some(list) = &self.list else { return };
        let is_out = |writer: &PublicKey| !AccessList::names(Some(list), &self.membership.genesis, writer);
        let rounds = self.believed_rounds.iter().filter(|(writer, _)| !is_out(writer));
        let round = rounds.map(|(_, round)| *round).max().unwrap_or(0);
        if self.proposer.highest().round > round.saturating_add(OUTSIDER_LEAD_MAX) {
            self.believed_rounds.retain(|_, believed| *believed <= round);
            let floor = Ballot { round, ..Ballot::first(self.membership.epoch()) };
            self.proposer = Proposer::above(ProposerId(random_bytes()), floor);
        }
    }

    fn believe_round(&mut self, writer: PublicKey, round: u64) {
        let known = self.believed_rounds.entry(writer).or_default();
        *known = round.max(*known);
    }

    /// The highest round of anybody's whom we take for a writer.
    fn believed_round(&self) -> u64 {
        self.believed_rounds.values().copied().max().unwrap_or(0)
    }

    /// Takes it that a quorum accepted this, which we proposed. Nobody can have without the list by which it was.
    pub(super) fn chosen_by_quorum(&mut self, chosen: &Proposed) {
        let Proposal { list, ballot, .. } = *chosen.proposal;
        self.note_in_force(InForce { list, since: ballot }, None);
    }

    /// What we have seen ourselves counts for more than what somebody says, and so does a newer list.
    fn note_in_force(&mut self, said: InForce, by: Option<PublicKey>) {
        let order = |in_force: InForce, is_seen: bool| (in_force.list, is_seen, Reverse(in_force.since));
        let known = self.in_force().zip(self.in_force.map(|(_, by)| by.is_none()));
        let is_news = known.is_none_or(|(known, is_seen)| order(known, is_seen) < order(said, by.is_none()));
        if is_news && said.list > 0 && said.since.epoch == self.membership.epoch() {
            self.in_force = Some((said, by));
        }
    }

    /// The newest list that is known to be in force in this epoch, if by others' word then of somebody who may write still.
    pub(super) fn in_force(&self) -> Option<InForce> {
        let (in_force, by) = self.in_force?;
        by.is_none_or(|writer| self.allows(&writer)).then_some(in_force)
    }

    /// The number of the newest list of writers that anybody showed.
    pub(super) fn list_serial(&self) -> u64 {
        self.list.as_ref().map_or(0, |list| list.serial)
    }

    /// What a proposal under `ballot` says that is made by the list of that number, or prepares by it.
    pub(super) fn standing(&self, list: u64, ballot: Ballot) -> Standing {
        let in_force = self.in_force().filter(|known| known.list <= list && known.since < ballot);
        Standing { list, in_force }
    }

    /// The newest list of writers that anybody showed: the owner's word, whatever became of the value that it came with.
    pub(super) fn list(&self) -> Option<&Signed<AccessList>> {
        self.list.as_ref()
    }

    /// What we know of the register's lists of writers.
    pub(super) fn lists(&self) -> Known<'_> {
        Known { genesis: &self.membership.genesis, list: self.list(), in_force: self.in_force() }
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
            self.believe_round(promise.writer, promise.promises().round);
        } else if promise.promises().round > self.believed_round().saturating_add(STRANGER_LEAD_MAX) {
            return Err(Invalid::NotAWriter);
        }
        // 1, 2, 4, ... rounds: soon more than a busy writer goes up while we are on our way.
        let lead = 1 << self.preemptions.min(super::PREEMPTION_LEAD_MAX);
        self.proposer.on_conflict(promise.promises(), lead);
        if is_believed { Ok(()) } else { Err(Invalid::NotAWriter) }
    }

    /// Who may write beside the owner, by the newest list that was met.
    pub(crate) fn writers(&self) -> &[PublicKey] {
        self.list.as_ref().map_or(&self.membership.genesis.writers, |list| &list.writers)
    }

    /// Whether `key` may write, by the newest list that was met.
    pub(super) fn allows(&self, key: &PublicKey) -> bool {
        AccessList::names(self.list.as_ref(), &self.membership.genesis, key)
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
