//! A node's part in registers: an acceptor for each, on disk before it speaks.
//!
//! One request at a time for each register, so that an answer never shows what is not durable yet. If the disk
//! refuses, memory stays as it was: the request has not happened.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use overlay::NodeId;
use reactor::crypto::PublicKey;
use reactor::serialization::{EnvelopeError, Versioned, from_envelope, to_envelope};
use reactor::sync::Mutex;
use serde::{Deserialize, Serialize};

use super::{Node, refusal_of};
use crate::block::mutable::{Genesis, Invalid, Signed, SignedRecord};
use crate::block::proposal::{Proposal, Proposed};
use crate::block_store::RegisterAddress;
use crate::message::{AcceptRequest, ListedKey, PrepareRequest, Refusal, RegisterView};
use crate::paxos::{Acceptor, Ballot, Rejected};
use crate::store::{Key, Kind, PutOptions, StoreError};

/// How many registers' states are kept in memory; further ones are read from disk when asked for.
const CACHED_MAX: usize = 1024;

/// How far a ballot may be ahead of what was promised. Writers count up by a few; without this bound one of them could
/// use up all rounds at once and so stop the register for good.
const ROUND_JUMP_MAX: u64 = 1 << 32;

/// What a node keeps of a register: this, in an envelope, is the stored value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredRegister {
    /// Who the members are.
    pub genesis: Signed<Genesis>,
    /// The proposal that asked for what is promised.
    pub promise: Option<Signed<Proposal>>,
    /// What was promised and accepted.
    pub acceptor: Acceptor<Proposed>,
}

impl Versioned for StoredRegister {
    const TYPE_NAME: &'static str = "hypha stored register";
    const VERSION: u32 = 1;
}

impl StoredRegister {
    /// Reads a stored value.
    ///
    /// # Errors
    /// If it is not one, or one that only a newer program may touch.
    pub fn decode(bytes: &[u8]) -> Result<StoredRegister, EnvelopeError> {
        from_envelope(bytes)
    }

    fn proposed(&self) -> Option<Proposed> {
        self.acceptor.accepted.as_ref().map(|accepted| accepted.value.clone())
    }

    fn keep_promise_of(&mut self, proposal: &Signed<Proposal>) {
        if proposal.promises() == self.acceptor.promised {
            self.promise = Some(proposal.clone());
        }
    }

    /// What to answer when the acceptor refuses.
    fn refusal(&self, rejected: Rejected) -> Refusal {
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
            // What was promised or accepted came with a proposal, or this is not our record.
            (Rejected::Conflict { .. } | Rejected::Equivocation, ..) => Refusal::Damaged,
        }
    }
}

/// `None` inside: not read from disk yet, or not there.
type Slot = Rc<Mutex<Option<StoredRegister>>>;

#[derive(Default)]
pub(super) struct Registers {
    slots: RefCell<HashMap<RegisterAddress, Slot>>,
}

impl Registers {
    fn slot(&self, register: &RegisterAddress) -> Slot {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= CACHED_MAX {
            // Whoever works with a slot holds a clone of it; the others can be read again.
            slots.retain(|_, slot| Rc::strong_count(slot) > 1);
        }
        slots.entry(*register).or_insert_with(|| Rc::new(Mutex::new(None))).clone()
    }
}

impl Node {
    /// Phase 1: promises the proposal's ballot and returns what was accepted so far.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] shows the proposal whose ballot is to be exceeded.
    ///
    /// # Suspends
    /// Until the promise is durable.
    pub fn prepare(&self, request: PrepareRequest) -> Result<Option<Proposed>, Refusal> {
        let PrepareRequest { genesis, proposal } = request;
        let register = genesis.register();
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        self.load_or_relearn(&genesis, &mut state)?;
        let mut next = self.state_for(&genesis, state.as_ref())?;
        check_ballots(&next, &proposal)?;
        if proposal.register != register || proposal.value.is_some() || proposal.next.is_some() {
            return Err(Invalid::Proposal.into());
        }
        let accepted = next.acceptor.accepted.as_ref().map(|accepted| &accepted.value.record);
        if !may_write(&genesis, accepted, &proposal.writer) {
            return Err(Refusal::NotAllowed("the register's access list does not name the writer".into()));
        }
        if next.promise.as_ref() != Some(&proposal) {
            proposal.verify_by(&proposal.writer)?;
        }
        match next.acceptor.on_prepare(proposal.ballot) {
            Ok(()) => {}
            Err(rejected) => return Err(next.refusal(rejected)),
        }
        next.keep_promise_of(&proposal);
        if state.as_ref() != Some(&next) {
            self.persist(&register, &mut state, next)?;
        }
        Ok(state.as_ref().and_then(StoredRegister::proposed))
    }

    /// Phase 2: accepts a record, by the word of a writer that the record's own access list allows. It does not matter who
    /// delivers it. Returns what is promised now.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub fn accept(&self, request: AcceptRequest) -> Result<Ballot, Refusal> {
        self.accept_checked(request, |genesis, proposed, known| {
            proposed.verify(genesis, known.and_then(|known| known.record.access.as_ref()))
        })
    }

    /// As [`Node::accept`], of what this process signed itself or has verified.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn accept_own(&self, request: AcceptRequest) -> Result<Ballot, Refusal> {
        self.accept_checked(request, |_, _, _| Ok(()))
    }

    fn accept_checked(
        &self,
        request: AcceptRequest,
        check: impl FnOnce(&Signed<Genesis>, &Proposed, Option<&Proposed>) -> Result<(), Invalid>,
    ) -> Result<Ballot, Refusal> {
        let AcceptRequest { genesis, proposed } = request;
        let register = genesis.register();
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        self.load_or_relearn(&genesis, &mut state)?;
        let mut next = self.state_for(&genesis, state.as_ref())?;
        let proposal = proposed.proposal.clone();
        check_ballots(&next, &proposal)?;
        let known = next.acceptor.accepted.as_ref().map(|accepted| &accepted.value);
        if known != Some(&proposed) {
            check(&genesis, &proposed, known)?;
        }
        if known.is_some_and(|known| known.record.access_serial() > proposed.record.access_serial()) {
            // The owner has changed the list since. Safe, and enough to keep a writer out that was taken off it.
            return Err(Refusal::NotAllowed("the record carries an older access list".into()));
        }
        let before = next.acceptor.promised;
        let promised = match next.acceptor.on_accept(proposal.ballot, proposed, proposal.next) {
            Ok(promised) => promised,
            Err(rejected) => return Err(next.refusal(rejected)),
        };
        if promised != before {
            next.keep_promise_of(&proposal);
        }
        if state.as_ref() != Some(&next) {
            self.persist(&register, &mut state, next)?;
        }
        Ok(promised)
    }

    /// What this node has accepted, durably.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// While a write to this register is on its way to the disk.
    pub fn read_register(&self, register: &RegisterAddress) -> Result<Option<RegisterView>, Refusal> {
        let slot = self.registers.slot(register);
        let mut state = slot.lock();
        self.load(register, &mut state)?;
        Ok(state.as_ref().map(|state| RegisterView {
            genesis: state.genesis.clone(),
            promise: state.promise.clone(),
            accepted: state.proposed(),
        }))
    }

    /// Lists a register if `asker` is one of its members.
    pub(super) fn list_register(
        &self,
        address: &[u8; 32],
        asker: &NodeId,
    ) -> Result<Option<ListedKey>, Refusal> {
        let view = match self.read_register(&RegisterAddress(*address)) {
            // Silent about this one only.
            Err(Refusal::Damaged | Refusal::Amnesiac) => return Ok(None),
            view => view?,
        };
        let Some(view) = view else { return Ok(None) };
        if view.genesis.index_of(asker).is_none() || view.genesis.index_of(&self.own).is_none() {
            return Ok(None);
        }
        let ballot = view.accepted.map_or(Ballot::ZERO, |accepted| accepted.proposal.ballot);
        Ok(Some(ListedKey { address: *address, ballot }))
    }

    fn load(&self, register: &RegisterAddress, state: &mut Option<StoredRegister>) -> Result<(), Refusal> {
        if state.is_some() {
            return Ok(());
        }
        let key = Key::new(Kind::REGISTER, register.0);
        // What the store has of it, be that nothing, may be older than what this acceptor has promised.
        if self.store.is_suspect(&key) {
            return Err(Refusal::Damaged);
        }
        let stored = match self.store.get(&key, None) {
            Ok(None) if self.is_amnesiac.get() => return Err(Refusal::Amnesiac),
            Ok(None) => return Ok(()),
            Ok(Some(stored)) => stored,
            // An acceptor that starts afresh breaks its promises: this one must stay silent, for good if need be.
            Err(StoreError::Damaged(_)) => return Err(Refusal::Damaged),
            Err(error) => return Err(refusal_of(error)),
        };
        let decoded = StoredRegister::decode(&stored).map_err(|_| Refusal::Damaged)?;
        *state = Some(decoded);
        Ok(())
    }

    /// As `load`; what this node may have forgotten is put on the list of what repair learns again from the others.
    fn load_or_relearn(
        &self,
        genesis: &Signed<Genesis>,
        state: &mut Option<StoredRegister>,
    ) -> Result<(), Refusal> {
        let loaded = self.load(&genesis.register(), state);
        if let Err(Refusal::Amnesiac | Refusal::Damaged) = loaded {
            genesis.verify()?;
            genesis.index_of(&self.own).ok_or(Refusal::NotAMember)?;
            self.want_register(genesis);
        }
        loaded
    }

    /// Takes the state of a register that this node has lost from what enough of the others say. From then on it votes.
    ///
    /// # Errors
    /// [`Refusal`] if what they say does not verify, or the store fails.
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn relearn(
        &self,
        genesis: &Signed<Genesis>,
        promises: Vec<Signed<Proposal>>,
        accepted: Option<Proposed>,
    ) -> Result<(), Refusal> {
        let register = genesis.register();
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        match self.load(&register, &mut state) {
            Err(Refusal::Amnesiac | Refusal::Damaged) => {}
            other => return other,
        }
        let mut next = self.state_for(genesis, None)?;
        if let Some(accepted) = accepted {
            accepted.verify(genesis, None)?;
            next.acceptor.promised = accepted.proposal.promises();
            next.promise = Some(accepted.proposal.clone());
            next.acceptor.accepted = Some(accepted.into_accepted());
        }
        let record = next.proposed().map(|proposed| proposed.record);
        for promise in promises {
            // One that no writer signed binds nobody.
            let is_true = promise.register == register
                && may_write(genesis, record.as_ref(), &promise.writer)
                && promise.verify_by(&promise.writer).is_ok();
            if is_true && promise.promises() > next.acceptor.promised {
                next.acceptor.promised = promise.promises();
                next.promise = Some(promise);
            }
        }
        self.persist(&register, &mut state, next)
    }

    /// The state to change: a copy of the current one, or a new one if the genesis record names us. There is one genesis
    /// to an address, so a known register's need not be looked at.
    fn state_for(
        &self,
        genesis: &Signed<Genesis>,
        state: Option<&StoredRegister>,
    ) -> Result<StoredRegister, Refusal> {
        match state {
            Some(state) => Ok(state.clone()),
            None => {
                genesis.verify()?;
                genesis.index_of(&self.own).ok_or(Refusal::NotAMember)?;
                Ok(StoredRegister { genesis: genesis.clone(), promise: None, acceptor: Acceptor::default() })
            }
        }
    }

    fn persist(
        &self,
        register: &RegisterAddress,
        state: &mut Option<StoredRegister>,
        next: StoredRegister,
    ) -> Result<(), Refusal> {
        let key = Key::new(Kind::REGISTER, register.0);
        // Not interrupted: memory must not fall behind the disk if the caller gives up while we wait for it.
        // What is chosen may be a removal, which nobody here can tell: so it may always use what is kept back for those.
        // A register's records replace each other, and take no space in the end.
        let options = PutOptions { may_use_reserve: true, ..PutOptions::default() };
        let put = || self.store.enqueue_with(&key, to_envelope(&next).into(), options)?.wait();
        reactor::uninterruptible(put).map_err(refusal_of)?;
        *state = Some(next);
        Ok(())
    }
}

/// Whether `key` may write, by the list that was accepted last.
fn may_write(genesis: &Genesis, accepted: Option<&SignedRecord>, key: &PublicKey) -> bool {
    match accepted {
        Some(record) => record.allows(genesis, key),
        None => *key == genesis.owner || genesis.writers.contains(key),
    }
}

fn check_ballots(state: &StoredRegister, proposal: &Proposal) -> Result<(), Refusal> {
    let ballots = [Some(proposal.ballot), proposal.next];
    if ballots.iter().flatten().any(|ballot| ballot.epoch != Ballot::ZERO.epoch) {
        return Err(Refusal::Bounds("the register has had one replica set only, of epoch 0".into()));
    }
    if proposal.promises().round > state.acceptor.promised.round.saturating_add(ROUND_JUMP_MAX) {
        return Err(Refusal::Bounds(format!("a ballot is at most {ROUND_JUMP_MAX} rounds ahead")));
    }
    Ok(())
}
