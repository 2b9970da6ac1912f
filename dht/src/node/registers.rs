//! A node's part in registers: an acceptor for each, on disk before it speaks.
//!
//! One request at a time for each register, so that an answer never shows what is not durable yet. If the disk
//! refuses, memory stays as it was: the request has not happened.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use overlay::NodeId;
use reactor::crypto::PublicKey;
use reactor::serialization::{DecodeError, from_bytes, to_bytes};
use reactor::sync::Mutex;
use serde::{Deserialize, Serialize};

use super::{Node, refusal_of};
use crate::block::mutable::{Genesis, Signed, SignedRecord};
use crate::block_store::RegisterAddress;
use crate::message::{AcceptRequest, ListedKey, Refusal, RegisterView};
use crate::paxos::{Accepted, Acceptor, Ballot, Conflict};
use crate::store::{Key, Kind, StoreError};

/// How many registers' states are kept in memory; further ones are read from disk when asked for.
const CACHED_MAX: usize = 1024;

/// How far a ballot may be ahead of what was promised. Writers count up by a few; without this bound one member that
/// lies could use up all rounds at once and so stop the register for good.
const ROUND_JUMP_MAX: u64 = 1 << 32;

/// What a node keeps of a register: this, as MessagePack, is the stored value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredRegister {
    /// Who the members are.
    pub genesis: Signed<Genesis>,
    /// What was promised and accepted.
    pub acceptor: Acceptor<SignedRecord>,
}

impl StoredRegister {
    /// Reads a stored value.
    ///
    /// # Errors
    /// If it is not one.
    pub fn decode(bytes: &[u8]) -> Result<StoredRegister, DecodeError> {
        from_bytes(bytes)
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
    /// Phase 1: promises `ballot` and returns what was accepted so far. `caller` is `None` for this process itself.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] names the ballot to exceed.
    ///
    /// # Suspends
    /// Until the promise is durable.
    pub fn prepare(
        &self,
        caller: Option<&PublicKey>,
        genesis: &Signed<Genesis>,
        ballot: Ballot,
    ) -> Result<Option<Accepted<SignedRecord>>, Refusal> {
        let register = genesis.register();
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        self.load(&register, &mut state)?;
        let mut next = self.state_for(genesis, state.as_ref())?;
        check_round(&next, ballot)?;
        let accepted = next.acceptor.accepted.as_ref();
        self.check_writer(caller, genesis, accepted.map(|accepted| &accepted.value))?;
        next.acceptor.on_prepare(ballot).map_err(|Conflict { promised }| Refusal::Conflict { promised })?;
        if state.as_ref() != Some(&next) {
            self.persist(&register, &mut state, next)?;
        }
        Ok(state.as_ref().and_then(|state| state.acceptor.accepted.clone()))
    }

    /// Phase 2: accepts a record that verifies. Returns what is promised now. `caller` is `None` for this process.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub fn accept(&self, caller: Option<&PublicKey>, request: AcceptRequest) -> Result<Ballot, Refusal> {
        let AcceptRequest { genesis, ballot, next: next_ballot, record } = request;
        let register = genesis.register();
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        self.load(&register, &mut state)?;
        let mut next = self.state_for(&genesis, state.as_ref())?;
        check_round(&next, next_ballot.unwrap_or(ballot).max(ballot))?;
        let known = next.acceptor.accepted.as_ref().map(|accepted| &accepted.value);
        // This process signed what it hands over itself, or has verified it.
        if caller.is_some() && known != Some(&record) {
            record.verify(&genesis, known.and_then(|known| known.access.as_ref()))?;
        }
        if known.is_some_and(|known| known.access_serial() > record.access_serial()) {
            // The owner has changed the list since. Safe, and enough to keep a writer out that was taken off it.
            return Err(Refusal::NotAllowed("the record carries an older access list".into()));
        }
        self.check_writer(caller, &genesis, Some(&record))?;
        let promised = next
            .acceptor
            .on_accept(ballot, record, next_ballot)
            .map_err(|Conflict { promised }| Refusal::Conflict { promised })?;
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
            accepted: state.acceptor.accepted.clone(),
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
            Err(Refusal::Damaged) => return Ok(None),
            view => view?,
        };
        let Some(view) = view else { return Ok(None) };
        if view.genesis.index_of(asker).is_none() || view.genesis.index_of(&self.own).is_none() {
            return Ok(None);
        }
        let ballot = view.accepted.map_or(Ballot::ZERO, |accepted| accepted.ballot);
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
                Ok(StoredRegister { genesis: genesis.clone(), acceptor: Acceptor::default() })
            }
        }
    }

    /// Only the owner, its writers, and storage nodes (which repair, and in whose processes writers live) may take part
    /// in rounds: anyone else could propose an old record again and so undo a new one.
    fn check_writer(
        &self,
        caller: Option<&PublicKey>,
        genesis: &Signed<Genesis>,
        record: Option<&SignedRecord>,
    ) -> Result<(), Refusal> {
        let Some(caller) = caller else { return Ok(()) };
        let allowed = record.map_or(*caller == genesis.owner || genesis.writers.contains(caller), |r| {
            r.allows(genesis, caller)
        }) || genesis.index_of(&NodeId::of(caller)).is_some()
            || self.is_storage_node(caller);
        if allowed {
            Ok(())
        } else {
            Err(Refusal::NotAllowed("the register's access list does not name the caller".into()))
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
        reactor::uninterruptible(|| self.store.put(&key, to_bytes(&next).into())).map_err(refusal_of)?;
        *state = Some(next);
        Ok(())
    }
}

fn check_round(state: &StoredRegister, ballot: Ballot) -> Result<(), Refusal> {
    if ballot.round > state.acceptor.promised.round.saturating_add(ROUND_JUMP_MAX) {
        return Err(Refusal::Bounds(format!("a ballot is at most {ROUND_JUMP_MAX} rounds ahead")));
    }
    Ok(())
}
