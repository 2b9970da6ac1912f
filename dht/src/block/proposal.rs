//! What a writer signs to take part in a register's rounds, and a record with the proposal under which it was accepted.
//!
//! Paxos trusts whoever sends an accept to have prepared it. Here a storage node may be the sender, and storage nodes
//! are trusted with nothing: so prepares and accepts are signed by somebody who may write, over the register, the
//! ballot and the value's hash. A node can deliver a proposal again, to a member that missed it, which Paxos allows at
//! any time; it can't make one, so it can neither put an old record under a new ballot nor keep writers out by promising
//! ballots that nobody asked for. And a writer who signs two values under one ballot has left the proof.
//!
//! A record may come with a [`Seal`], which ends the epoch with it. Whoever may write may propose it (and has to, where it
//! was accepted before), but only the owner can have signed it.
//!
//! A list of writers takes part in none of this: it is the owner's word, whether the record with which it came was chosen
//! or not. So whoever meets a newer list than a record's passes the record on **under** the newer one, beside it, and no
//! acceptor and no writer ever goes back to an older one. That a list reached too few acceptors to be chosen is then no reason to
//! refuse anything, and that one was chosen can't be undone by a record from before it.
//!
//! **A list is in force** once a value was chosen under it: from then on a quorum of the acceptors knows it, and whoever
//! prepares a higher ballot meets one of them before a quorum has promised him anything. So nobody who takes these steps
//! makes a proposal without that list any more, under any higher ballot ([`InForce::voids`]); and whoever was put out with it
//! has no quorum left that would take one. Who knows that a list is in force says so with what he proposes, and is
//! believed: then what a member that was cut off was made to promise and accept since without the list binds it no more. The
//! lists from before an epoch are its owner's word ([`crate::block::configuration`]).
//!
//! Not here: what the proposals come to ([`crate::paxos`]).

use reactor::crypto::{Identity, PublicKey};
use reactor::serialization::Versioned;
use serde::{Deserialize, Serialize};

use super::configuration::Seal;
use super::genesis::Genesis;
use super::mutable::{AccessList, Invalid, SignedRecord};
use super::signed::Signed;
use crate::block_store::{HeaderHash, RegisterAddress};
use crate::paxos::{Accepted, Ballot, Value};

/// See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Which register.
    pub register: RegisterAddress,
    /// Under which ballot.
    pub ballot: Ballot,
    /// What is to be accepted; `None` to prepare the ballot.
    pub value: Option<HeaderHash>,
    /// The seal that comes with it, if it is to end the epoch.
    #[serde(with = "serde_bytes")]
    pub seal: Option<[u8; 32]>,
    /// The ballot to prepare in the same breath.
    pub next: Option<Ballot>,
    /// The number of the list of writers that its writer went by: no list that came into force before he prepared the
    /// ballot is newer.
    pub list: u64,
    /// The newest list of writers of which its writer knows that it is in force: that one, or one before it.
    pub in_force: Option<InForce>,
    /// Who proposes, and signs.
    pub writer: PublicKey,
}

impl Versioned for Proposal {
    const TYPE_NAME: &'static str = "hypha proposal";
    const VERSION: u32 = 3;
    const READABLE_SINCE: u32 = 3;
}

/// By which list of writers a proposal is made, as its writer signs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// See [`Proposal::list`].
    pub list: u64,
    /// See [`Proposal::in_force`].
    pub in_force: Option<InForce>,
}

impl Proposal {
    /// Prepares `ballot`, by the list of the genesis record.
    pub fn prepare(writer: &Identity, register: RegisterAddress, ballot: Ballot) -> Signed<Proposal> {
        Proposal::prepare_by(writer, register, ballot, Standing::default())
    }

    /// Prepares `ballot`.
    pub fn prepare_by(
        writer: &Identity,
        register: RegisterAddress,
        ballot: Ballot,
        standing: Standing,
    ) -> Signed<Proposal> {
        let (list, in_force) = (standing.list, standing.in_force);
        let (value, seal, next) = (None, None, None);
        let proposal =
            Proposal { register, ballot, value, seal, next, list, in_force, writer: writer.public_key() };
        Signed::sign(writer, proposal)
    }

    /// Which list it says is in force.
    pub fn says_in_force(&self) -> Option<InForce> {
        let is_meant = |said: &InForce| {
            said.since.epoch == self.ballot.epoch && said.since < self.ballot && said.list <= self.list
        };
        self.in_force.filter(is_meant)
    }

    /// Whether it says of the very list by which it is made that it is in force.
    pub fn puts_its_list_in_force(&self) -> bool {
        self.says_in_force().is_some_and(|said| said.list == self.list)
    }

    /// The ballot that is promised once this was heeded.
    pub fn promises(&self) -> Ballot {
        self.next.unwrap_or(self.ballot).max(self.ballot)
    }
}

/// That a quorum of an epoch's members accepted a value under a list of writers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct InForce {
    /// The list's number.
    pub list: u64,
    /// Under this ballot.
    pub since: Ballot,
}

impl InForce {
    /// Whether what `proposal` proposes was chosen by nobody and never will be: nobody makes it who has prepared its ballot,
    /// and no quorum takes it.
    pub fn voids(&self, proposal: &Proposal) -> bool {
        self.voids_what_is_made_by(proposal.list, proposal.ballot)
    }

    /// Whether the ballot that was promised for the sake of `proposal` is one under which nothing will be chosen.
    pub fn voids_promise_of(&self, proposal: &Proposal) -> bool {
        self.voids_what_is_made_by(proposal.list, proposal.promises())
    }

    pub(crate) fn voids_what_is_made_by(&self, list: u64, ballot: Ballot) -> bool {
        list < self.list && ballot.epoch == self.since.epoch && ballot > self.since
    }
}

/// A record and the proposal under which it is accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposed {
    /// Under which ballot, by whose word.
    pub proposal: Signed<Proposal>,
    /// The value.
    pub record: SignedRecord,
    /// A newer list of writers than the record's, if one was met on the way: who may propose and write from now on.
    pub list: Option<Signed<AccessList>>,
    /// What ends the epoch with it.
    pub seal: Option<Signed<Seal>>,
}

impl Proposed {
    /// Proposes `record` under `ballot`, and prepares `next`.
    pub fn sign(writer: &Identity, ballot: Ballot, record: SignedRecord, next: Option<Ballot>) -> Proposed {
        Proposed::sign_with(writer, ballot, record, None, next)
    }

    /// As [`Proposed::sign`], with the seal that is to end the epoch, if there is one.
    pub fn sign_with(
        writer: &Identity,
        ballot: Ballot,
        record: SignedRecord,
        seal: Option<Signed<Seal>>,
        next: Option<Ballot>,
    ) -> Proposed {
        Proposed::sign_under(writer, ballot, record, seal, next, None, None)
    }

    /// As [`Proposed::sign_with`], under `list` if that is newer than the record's. `in_force` says which list is.
    pub fn sign_under(
        writer: &Identity,
        ballot: Ballot,
        record: SignedRecord,
        seal: Option<Signed<Seal>>,
        next: Option<Ballot>,
        list: Option<&Signed<AccessList>>,
        in_force: Option<InForce>,
    ) -> Proposed {
        let list = list.filter(|list| list.serial > record.access_serial()).cloned();
        let proposal = Proposal {
            register: record.header.address,
            ballot,
            value: Some(record.hash()),
            seal: seal.as_ref().map(Signed::hash),
            next,
            list: list.as_ref().map_or(record.access_serial(), |list| list.serial),
            in_force,
            writer: writer.public_key(),
        };
        Proposed { proposal: Signed::sign(writer, proposal), record, list, seal }
    }

    /// The same under `list`, if that is newer than the one that it is under.
    pub fn under(self, list: Option<&Signed<AccessList>>) -> Proposed {
        match list {
            Some(list) if list.serial > self.list_serial() => Proposed { list: Some(list.clone()), ..self },
            _ => self,
        }
    }

    /// The list of writers that it is under; `None` for the one that the genesis names.
    pub fn list(&self) -> Option<&Signed<AccessList>> {
        self.list.as_ref().or(self.record.access.as_ref())
    }

    /// That list's number.
    pub fn list_serial(&self) -> u64 {
        self.list().map_or(0, |list| list.serial)
    }

    /// Whether `key` may write, by the list that it is under.
    pub fn allows(&self, genesis: &Genesis, key: &PublicKey) -> bool {
        AccessList::names(self.list(), genesis, key)
    }

    /// Whether somebody has a hand in it whom the newest list does not name, be that `known` or the one that it is under.
    ///
    /// Who proposes another's record under the newest list has met that, and answers for the record. Who has not met it
    /// may have been shown a record that nobody is to have any more: then its writer has to be on the newest list too.
    pub fn is_off_the_list(&self, genesis: &Genesis, known: Option<&Signed<AccessList>>) -> bool {
        let proposer = &self.proposal.writer;
        if known.map_or(0, |known| known.serial) <= self.list_serial() {
            return !self.allows(genesis, proposer);
        }
        [proposer, &self.record.header.writer].into_iter().any(|key| !AccessList::names(known, genesis, key))
    }

    /// Checks everything that can be checked without knowing other records.
    ///
    /// Its proposer was on the record's list or is on that which it is under: an acceptor that kept the record under a list of
    /// its own shows it so, though who proposed it then is not on that one.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(
        &self,
        genesis: &Signed<Genesis>,
        known_list: Option<&Signed<AccessList>>,
    ) -> Result<(), Invalid> {
        self.record.verify(genesis, known_list)?;
        if let Some(list) = &self.list {
            if list.serial <= self.record.access_serial() {
                return Err(Invalid::Access);
            }
            if known_list != Some(list) {
                list.verify(genesis)?;
            }
        }
        // Whoever delivers it may have met a newer list; an older one would be less than its writer went by.
        if self.proposal.list > self.list_serial() {
            return Err(Invalid::Access);
        }
        if self.proposal.register != self.record.header.address {
            return Err(Invalid::WrongRegister);
        }
        if self.proposal.value != Some(self.record.hash()) {
            return Err(Invalid::Proposal);
        }
        if self.proposal.seal != self.seal.as_ref().map(Signed::hash) {
            return Err(Invalid::Proposal);
        }
        if let Some(seal) = &self.seal {
            seal.verify(genesis, self.proposal.ballot.epoch, self.record.hash())?;
            // Whoever has it chosen is to show that list to the members that it names.
            if seal.next.list > self.list_serial() {
                return Err(Invalid::Access);
            }
        }
        let proposer = &self.proposal.writer;
        // Who says that he went by a list is on it.
        let is_on_it = self.allows(genesis, proposer);
        if !is_on_it && (self.proposal.list == self.list_serial() || !self.record.allows(genesis, proposer)) {
            return Err(Invalid::NotAWriter);
        }
        let header = &self.record.header;
        if *proposer == header.writer && self.proposal.shares_signature_with(header) {
            // Looked at with the record.
            return Ok(());
        }
        self.proposal.verify_by(proposer)
    }

    /// As the acceptors' answers have it.
    pub fn into_accepted(self) -> Accepted<Proposed> {
        Accepted { ballot: self.proposal.ballot, value: self }
    }
}

impl Proposed {
    /// Where it is in the chain of values, and what is before it. A seal takes the place of a successor of what it seals.
    fn place(&self) -> (u64, Option<HeaderHash>) {
        let header = &self.record.header;
        match self.seal {
            None => (header.version, header.previous),
            Some(_) => (header.version.saturating_add(1), Some(self.record.hash())),
        }
    }
}

impl Value for Proposed {
    type Identity = (HeaderHash, Option<[u8; 32]>);

    fn identity(&self) -> Self::Identity {
        (self.record.hash(), self.seal.as_ref().map(Signed::hash))
    }

    /// A writer signs the successor only of a value that it knows to be chosen. So whoever accepted version v has its
    /// word that v - 1 was, and every later ballot proposes v - 1, or a successor of it. Likewise from one epoch to the next,
    /// which goes on from what was sealed.
    fn may_replace(&self, accepted: &Proposed) -> bool {
        let ((new, new_previous), (old, old_previous)) = (self.place(), accepted.place());
        match new {
            place if place > old => true,
            place if place == old => new_previous == old_previous,
            place if place + 1 == old => self.seal.is_none() && Some(self.record.hash()) == old_previous,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::configuration::Membership;
    use bytes::Bytes;
    use overlay::NodeId;

    struct Story {
        writer: Identity,
        genesis: Signed<Genesis>,
        records: Vec<SignedRecord>,
    }

    fn story() -> Story {
        let writer = Identity::from_seed(&[2; 32]);
        let owner = Identity::from_seed(&[1; 32]);
        let genesis = Genesis::sign(&owner, [5; 32], vec![NodeId([1; 32])], vec![writer.public_key()]);
        let mut records = Vec::new();
        for number in 0..4u8 {
            let next =
                SignedRecord::sign(&writer, genesis.register(), records.last(), None, vec![number].into());
            records.push(next);
        }
        Story { writer, genesis, records }
    }

    fn ballot(round: u64) -> Ballot {
        Ballot { round, ..Ballot::ZERO }
    }

    #[test]
    fn a_record_under_another_ballot_than_its_writer_signed_is_refused() {
        let story = story();
        let old = Proposed::sign(&story.writer, ballot(1), story.records[0].clone(), None);
        let new = Proposed::sign(&story.writer, ballot(9), story.records[3].clone(), None);
        assert_eq!(old.verify(&story.genesis, None), Ok(()));
        let mixed = Proposed { proposal: new.proposal.clone(), ..old.clone() };
        assert_eq!(mixed.verify(&story.genesis, None), Err(Invalid::Proposal));
        let prepared = Proposal::prepare(&story.writer, story.genesis.register(), ballot(9));
        let mixed = Proposed { proposal: prepared, ..old.clone() };
        assert_eq!(mixed.verify(&story.genesis, None), Err(Invalid::Proposal));
        let node = Identity::from_seed(&[7; 32]);
        let made = Proposed::sign(&node, ballot(9), old.record.clone(), None);
        assert_eq!(made.verify(&story.genesis, None), Err(Invalid::NotAWriter));
        let claimed = Proposal { ballot: ballot(9), ..(*old.proposal).clone() };
        let forged = Proposed { proposal: Signed::sign(&node, claimed), ..old };
        assert_eq!(forged.verify(&story.genesis, None), Err(Invalid::Signature));
    }

    #[test]
    fn only_what_continues_the_chain_may_replace() {
        let story = story();
        let of = |record: &SignedRecord| Proposed::sign(&story.writer, ballot(1), record.clone(), None);
        let all: Vec<_> = story.records.iter().map(of).collect();
        let sibling = |of_record: &SignedRecord| {
            let address = story.genesis.register();
            of(&SignedRecord::sign(&story.writer, address, Some(of_record), None, Bytes::from_static(b"x")))
        };
        // On top of version 3: itself, its sibling, its predecessor, and whatever is later.
        assert!(all[2].may_replace(&all[2]));
        assert!(sibling(&story.records[1]).may_replace(&all[2]));
        assert!(all[1].may_replace(&all[2]));
        assert!(all[3].may_replace(&all[2]));
        // Not what is older, nor another past.
        assert!(!all[0].may_replace(&all[2]));
        assert!(!sibling(&story.records[0]).may_replace(&all[2]));
        assert!(!sibling(&sibling(&story.records[0]).record).may_replace(&all[2]));
    }

    #[test]
    fn a_seal_stands_where_a_successor_would_and_is_its_owners() {
        let story = story();
        let owner = Identity::from_seed(&[1; 32]);
        let membership = Membership::from(story.genesis.clone());
        let (record, members) = (story.records[2].clone(), vec![NodeId([2; 32])]);
        let seal_by = |who: &Identity, record: &SignedRecord| {
            Seal::sign(who, &membership, members.clone(), record.hash(), 0)
        };
        let propose = |seal| Proposed::sign_with(&story.writer, ballot(4), record.clone(), Some(seal), None);
        let sealed = propose(seal_by(&owner, &record));
        // Any writer may propose the owner's seal, none his own, nor one for another value, nor without saying so.
        assert_eq!(sealed.verify(&story.genesis, None), Ok(()));
        let forged = propose(seal_by(&story.writer, &record));
        assert_eq!(forged.verify(&story.genesis, None), Err(Invalid::Signature));
        let other = propose(seal_by(&owner, &story.records[1]));
        assert_eq!(other.verify(&story.genesis, None), Err(Invalid::Epoch));
        for mixed in [None, Some(seal_by(&owner, &story.records[1]))] {
            let mixed = Proposed { seal: mixed, ..sealed.clone() };
            assert_eq!(mixed.verify(&story.genesis, None), Err(Invalid::Proposal));
        }
        let of = |record: &SignedRecord| Proposed::sign(&story.writer, ballot(1), record.clone(), None);
        // On top of the seal of version 3: itself, the value that it seals, and what came instead of it.
        assert!(sealed.may_replace(&sealed) && sealed.may_replace(&of(&story.records[2])));
        assert!(of(&story.records[2]).may_replace(&sealed));
        assert!(of(&story.records[3]).may_replace(&sealed) && sealed.may_replace(&of(&story.records[3])));
        assert!(!of(&story.records[1]).may_replace(&sealed));
        assert_ne!(sealed.identity(), of(&story.records[2]).identity());
    }
}
