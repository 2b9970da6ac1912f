//! A node's part in registers: an acceptor for each, on disk before it speaks.
//!
//! One request at a time for each register, so that an answer never shows what is not durable yet. If the disk
//! refuses, memory stays as it was: the request has not happened.

use std::collections::HashMap;
use std::rc::Rc;

use overlay::NodeId;
use reactor::cell::RefCell;
use reactor::serialization::{EnvelopeError, to_envelope};
use reactor::sync::Mutex;

use super::deletions::now_seconds;
use super::relearning::DAMAGED_MAX;
use super::stored_register::{StoredRegister, check_ballots, check_version};
use super::{Node, refusal_of};
use crate::block::configuration::{Configuration, Membership};
use crate::block::mutable::{AccessList, Genesis, Invalid, Signed, SignedRecord};
use crate::block::proposal::Proposed;
use crate::block_store::RegisterAddress;
use crate::message::{
    AcceptRequest, ListedKey, PrepareRequest, REGISTER_REPLY_BYTES_MAX, Refusal, RegisterView,
};
use crate::paxos::Ballot;
use crate::store::{Key, Kind, PutOptions, StoreError};

/// How many registers' states are kept in memory; further ones are read from disk when asked for.
const CACHED_MAX: usize = 1024;

/// What a node must have room for to be given a register: a value for some writes in a row, until older ones are compacted.
const ROOM_BYTES: u64 = 16 * REGISTER_REPLY_BYTES_MAX as u64;

/// `None` inside: not read from disk yet, or not there.
type Slot = Rc<Mutex<Option<StoredRegister>>>;

#[derive(Default)]
pub(super) struct Registers {
    slots: RefCell<HashMap<RegisterAddress, Slot>>,
}

impl Registers {
    pub(super) fn slot(&self, register: &RegisterAddress) -> Slot {
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
    /// Who proposes by a newer list of writers than this node knows shows it, and the node goes by that from then on. If it is
    /// said to be in force, what this node was made to promise without it binds it no more.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] shows the proposal whose ballot is to be exceeded, [`Refusal::Moved`] who keeps the register now;
    /// [`Refusal::Behind`] asks for the value first.
    ///
    /// # Suspends
    /// Until the promise is durable.
    pub fn prepare(&self, request: PrepareRequest) -> Result<Option<Proposed>, Refusal> {
        let PrepareRequest { membership, proposal, list } = request;
        let (register, genesis) = (membership.register(), &membership.genesis);
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        self.load_or_relearn(&membership, &mut state)?;
        let mut next = self.state_for(&membership, state.as_ref())?;
        check_ballots(&next, &membership, &proposal)?;
        if proposal.register != register || proposal.value.is_some() || proposal.next.is_some() {
            return Err(Invalid::Proposal.into());
        }
        let list = list.filter(|list| list.serial > next.list_serial());
        if let Some(list) = &list {
            list.verify(genesis)?;
        }
        let newest = list.as_ref().or(next.list());
        if proposal.list > newest.map_or(0, |newest| newest.serial) {
            return Err(Invalid::Access.into());
        }
        if !AccessList::names(newest, genesis, &proposal.writer) {
            return Err(Refusal::NotAllowed("the register's access list does not name the writer".into()));
        }
        if next.promise.as_ref() != Some(&proposal) {
            proposal.verify_by(&proposal.writer)?;
        }
        next.take_back_promise(&proposal);
        match next.acceptor.on_prepare(proposal.ballot) {
            Ok(()) => {}
            Err(rejected) => return Err(next.refusal(rejected)),
        }
        next.keep_promise_of(&proposal);
        next.go_by(list.as_ref());
        if state.as_ref() != Some(&next) {
            self.persist(&register, &mut state, next)?;
        }
        Ok(state.as_ref().and_then(StoredRegister::proposed))
    }

    /// Phase 2: accepts a record, by the word of a writer that the newest list of writers allows. It does not matter who
    /// delivers it. Returns what is promised now.
    ///
    /// **No acceptor goes back to an older list.** A record with an older one than this node has heard of, it keeps under the
    /// newer one. Somebody whom that does not name neither proposes here nor, by the hand of a writer that has yet to hear of the
    /// list, has his records proposed. That a list was not chosen makes no acceptor useless all the same: it takes what those
    /// on the list propose of their own, and everything else from whoever has met it and so shows the list with the record.
    ///
    /// One of a later epoch, whose configuration the owner has signed, makes this node a member of that; what it was in the
    /// epochs before is over with the same write.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub fn accept(&self, request: AcceptRequest) -> Result<Ballot, Refusal> {
        self.accept_checked(request, |genesis, proposed, known| {
            proposed.verify(genesis, known.and_then(Proposed::list))
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
        let AcceptRequest { membership, proposed } = request;
        let register = membership.register();
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        self.load_or_relearn(&membership, &mut state)?;
        let mut next = self.state_for(&membership, state.as_ref())?;
        let proposal = proposed.proposal.clone();
        check_ballots(&next, &membership, &proposal)?;
        check_version(&next, &membership, &proposed)?;
        let known = next.acceptor.accepted.as_ref().map(|accepted| &accepted.value);
        if known != Some(&proposed) {
            check(&membership.genesis, &proposed, known)?;
        }
        let list = next.list().cloned();
        // What was sealed is chosen, whatever was on its way beside it.
        let is_first = membership.epoch() > 0 && proposal.ballot == Ballot::first(membership.epoch());
        if !is_first && proposed.is_off_the_list(&membership.genesis, list.as_ref()) {
            return Err(Refusal::NotAllowed("the owner's newest list does not name its writer".into()));
        }
        let proposed = proposed.under(list.as_ref());
        let with_list = proposed.list().cloned();
        next.take_back_promise(&proposal);
        next.drop_void(&proposal);
        if is_first {
            next.drop_former(membership.epoch());
        }
        let before = next.acceptor.promised;
        let promised = match next.acceptor.on_accept(proposal.ballot, proposed, proposal.next) {
            Ok(promised) => promised,
            Err(rejected) => return Err(next.refusal(rejected)),
        };
        // What it has accepted already may come again, under a newer list.
        if next.may_go_by(with_list.as_ref()) {
            next.go_by(with_list.as_ref());
        }
        next.membership = membership;
        if promised != before {
            next.keep_promise_of(&proposal);
        }
        next.note_since(state.as_ref(), now_seconds());
        self.keep_past(&register, state.as_ref(), &mut next)?;
        let before = state.as_ref().map_or(0, |state| state.membership.epoch());
        let has_begun = next.membership.epoch() > before;
        if state.as_ref() != Some(&next) {
            self.persist(&register, &mut state, next)?;
        }
        if has_begun {
            // Whoever did not keep it before knows nothing from before; nor, of some of it, whoever was away.
            self.want_past(&register);
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
        Ok(state.as_ref().map(StoredRegister::view))
    }

    /// The value that this node has accepted, and since when by its own clock, in seconds since 1970.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// While a write to this register is on its way to the disk.
    pub(super) fn accepted_since(
        &self,
        register: &RegisterAddress,
    ) -> Result<Option<(u64, SignedRecord)>, Refusal> {
        let slot = self.registers.slot(register);
        let mut state = slot.lock();
        self.load(register, &mut state)?;
        let accepted = state.as_ref().and_then(StoredRegister::value_since);
        Ok(accepted.map(|(since, value)| (since, value.record.clone())))
    }

    /// Says whether this node could become a member of a register, or remain one.
    ///
    /// # Errors
    /// [`Refusal::Full`], `Store`, `Damaged`, or `Amnesiac`: why not, or not yet.
    ///
    /// # Suspends
    /// As [`Node::read_register`].
    pub fn can_keep(&self, register: &RegisterAddress) -> Result<(), Refusal> {
        if let Some(error) = self.store.failure() {
            return Err(refusal_of(error));
        }
        let space = self.space();
        if space.free_bytes.min(space.device_free_bytes) < ROOM_BYTES {
            return Err(Refusal::Full);
        }
        self.read_register(register).map(drop)
    }

    /// Takes it that the register is kept by those of `membership` since. A node that is not one of them takes part in nothing
    /// from then on, and says who they are.
    ///
    /// # Errors
    /// [`Refusal::Behind`] if this node is one of them, and has no value of that epoch yet; [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub fn retire(&self, membership: &Membership) -> Result<(), Refusal> {
        let register = membership.register();
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        if let Err(refusal) = self.load(&register, &mut state) {
            // Whoever lost what it knew of it, and kept it once, is to know who does now: it may keep it again then.
            let is_former = |configuration: &Signed<Configuration>| configuration.former.contains(&self.own);
            if membership.configuration.as_ref().is_some_and(is_former) && membership.verify().is_ok() {
                self.want_register(membership);
            }
            return Err(refusal);
        }
        // Of what it never heard it keeps nothing: any owner could have it keep something.
        let Some(known) = state.as_ref() else { return Ok(()) };
        if known.membership.epoch() >= membership.epoch() {
            return Ok(());
        }
        membership.verify()?;
        if membership.index_of(&self.own).is_some() {
            return Err(Refusal::Behind);
        }
        let next = known.clone().retired(membership.clone());
        self.persist(&register, &mut state, next)
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
        if view.membership.index_of(asker).is_none() || view.membership.index_of(&self.own).is_none() {
            return Ok(None);
        }
        let ballot = view.accepted.map_or(Ballot::ZERO, |accepted| accepted.proposal.ballot);
        Ok(Some(ListedKey { address: *address, ballot }))
    }

    pub(super) fn load(
        &self,
        register: &RegisterAddress,
        state: &mut Option<StoredRegister>,
    ) -> Result<(), Refusal> {
        if state.is_some() {
            return Ok(());
        }
        let key = Key::new(Kind::REGISTER, register.0);
        // What the store has of it, be that nothing, may be older than what this acceptor has promised.
        if self.store.is_suspect(&key) {
            return Err(self.damaged(register));
        }
        let stored = match self.store.get(&key, None) {
            Ok(None) if self.is_amnesiac.get() => return Err(Refusal::Amnesiac),
            Ok(None) => return Ok(()),
            Ok(Some(stored)) => stored,
            // An acceptor that starts afresh breaks its promises: this one must stay silent, for good if need be.
            Err(StoreError::Damaged(_)) => return Err(self.damaged(register)),
            Err(error) => return Err(refusal_of(error)),
        };
        let decoded = StoredRegister::decode(&stored).map_err(|error| match error {
            // All that is wrong with it is the program: nothing is learned over it.
            EnvelopeError::TooOld { .. } | EnvelopeError::TooNew { .. } => Refusal::Store(error.to_string()),
            _ => self.damaged(register),
        })?;
        *state = Some(decoded);
        Ok(())
    }

    /// What this node kept of a register it has no more; when that was found is remembered. While the log has a hole all that
    /// is absent counts as damaged, whatever anybody asks for: so of many it is not.
    fn damaged(&self, register: &RegisterAddress) -> Refusal {
        let mut since = self.damaged_since.borrow_mut();
        if since.len() < DAMAGED_MAX {
            since.entry(*register).or_insert_with(reactor::now);
        }
        Refusal::Damaged
    }

    /// As `load`; what this node may have forgotten is put on the list of what repair learns again from the others.
    fn load_or_relearn(
        &self,
        membership: &Membership,
        state: &mut Option<StoredRegister>,
    ) -> Result<(), Refusal> {
        let loaded = self.load(&membership.register(), state);
        if let Err(Refusal::Amnesiac | Refusal::Damaged) = loaded {
            membership.verify()?;
            membership.index_of(&self.own).ok_or(Refusal::NotAMember)?;
            self.want_register(membership);
        }
        loaded
    }

    /// The state to change: a copy of the current one, or a new one if the register names us.
    fn state_for(
        &self,
        asked: &Membership,
        state: Option<&StoredRegister>,
    ) -> Result<StoredRegister, Refusal> {
        match state {
            Some(state) => state.admit(&self.own, asked).map(|()| state.clone()),
            None => {
                asked.verify()?;
                asked.index_of(&self.own).ok_or(Refusal::NotAMember)?;
                Ok(StoredRegister::unheard(asked.genesis.clone()))
            }
        }
    }

    pub(super) fn persist(
        &self,
        register: &RegisterAddress,
        state: &mut Option<StoredRegister>,
        next: StoredRegister,
    ) -> Result<(), Refusal> {
        self.refuse_if_withdrawn()?;
        let key = Key::new(Kind::REGISTER, register.0);
        // Not interrupted: memory must not fall behind the disk if the caller gives up while we wait for it.
        // What is chosen may be a removal, which nobody here can tell: so it may use what is kept back for those. A register's
        // records replace each other, and take no space in the end. One more register does: whoever may write makes as many
        // as he likes.
        let options = PutOptions { may_use_reserve: state.is_some(), ..PutOptions::default() };
        let put = || self.store.enqueue_with(&key, to_envelope(&next).into(), options)?.wait();
        reactor::uninterruptible(put).map_err(refusal_of)?;
        *state = Some(next);
        Ok(())
    }
}
