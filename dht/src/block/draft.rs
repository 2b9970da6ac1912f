//! A record that nobody has signed yet.
//!
//! A signature costs more than all else in a small swap. So a new record and the proposal under which it is sent are signed
//! together, with one; what was signed before, by whomever, is proposed again with a proposal that is signed alone
//! ([`Proposed::sign_under`]). Both verify alike, and each without the other.
//!
//! Not here: what the two say ([`super::mutable`], [`super::proposal`]).

use bytes::Bytes;
use reactor::crypto::{Identity, PublicKey};

use super::mutable::{ANCESTOR_COUNT_MAX, AccessList, Header, SignedRecord, payload_hash};
use super::proposal::{InForce, Proposal, Proposed};
use super::signed::Signed;
use crate::block_store::{HeaderHash, RegisterAddress};
use crate::paxos::Ballot;

/// See the [module](self).
pub(crate) struct Draft {
    header: Header,
    access: Option<Signed<AccessList>>,
    payload: Bytes,
}

impl Draft {
    /// The successor of `previous`, or the first value. `access` is the list in force from now on.
    pub(crate) fn new(
        writer: PublicKey,
        address: RegisterAddress,
        previous: Option<&SignedRecord>,
        access: Option<Signed<AccessList>>,
        payload: Bytes,
    ) -> Draft {
        let ancestors = previous.map_or(Vec::new(), |previous| previous.ancestors().copied().collect());
        let header = Header {
            address,
            earlier: ancestors.into_iter().take(ANCESTOR_COUNT_MAX - 1).collect(),
            version: previous.map_or(0, |previous| previous.header.version) + 1,
            previous: previous.map(SignedRecord::hash),
            access: access.as_ref().map(Signed::hash),
            writer,
            payload_hash: payload_hash(&payload),
            length_bytes: payload.len() as u32,
        };
        Draft { header, access, payload }
    }

    /// The number of the access list that it carries.
    pub(crate) fn access_serial(&self) -> u64 {
        self.access.as_ref().map_or(0, |access| access.serial)
    }

    /// Signs it alone.
    pub(crate) fn sign(self, writer: &Identity) -> SignedRecord {
        let Draft { header, access, payload } = self;
        debug_assert_eq!(header.writer, writer.public_key());
        SignedRecord { header: Signed::sign(writer, header), access, payload }
    }

    /// Signs it with the proposal that it be accepted under `ballot`, otherwise as [`Proposed::sign_under`].
    pub(crate) fn propose(
        self,
        writer: &Identity,
        ballot: Ballot,
        next: Option<Ballot>,
        list: Option<&Signed<AccessList>>,
        in_force: Option<InForce>,
    ) -> Proposed {
        let serial = self.access_serial();
        let list = list.filter(|list| list.serial > serial).cloned();
        let Draft { header, access, payload } = self;
        debug_assert_eq!(header.writer, writer.public_key());
        let register = header.address;
        let (header, proposal) = Signed::sign_together(writer, header, |hash| Proposal {
            register,
            ballot,
            value: Some(HeaderHash(hash)),
            seal: None,
            next,
            list: list.as_ref().map_or(serial, |list| list.serial),
            in_force,
            writer: writer.public_key(),
        });
        Proposed { proposal, record: SignedRecord { header, access, payload }, list, seal: None }
    }
}

#[cfg(test)]
mod tests {
    use overlay::NodeId;

    use super::*;
    use crate::block::mutable::{Genesis, Invalid};

    fn ballot(round: u64) -> Ballot {
        Ballot { round, ..Ballot::ZERO }
    }

    #[test]
    fn a_record_and_its_proposal_that_share_a_signature_verify_and_part() {
        let [owner, writer, node] = [1, 2, 7].map(|seed| Identity::from_seed(&[seed; 32]));
        let genesis = Genesis::sign(&owner, [5; 32], vec![NodeId([1; 32])], vec![writer.public_key()]);
        let before = SignedRecord::sign(&owner, genesis.register(), None, None, Bytes::new());
        let draft = |payload: &'static [u8]| {
            let (writer, payload) = (writer.public_key(), Bytes::from_static(payload));
            Draft::new(writer, genesis.register(), Some(&before), None, payload)
        };
        let propose = |payload| draft(payload).propose(&writer, ballot(1), Some(ballot(2)), None, None);
        let new = propose(b"new");
        assert!(new.proposal.shares_signature_with(&new.record.header));
        assert_eq!(new.verify(&genesis, None), Ok(()));
        // Another proposes the record again, and the proposal is a promise.
        let again = Proposed::sign(&owner, ballot(5), new.record.clone(), None);
        assert_eq!(again.verify(&genesis, None), Ok(()));
        assert_eq!(new.proposal.verify_by(&writer.public_key()), Ok(()));
        // Signed beside another proposal it is the same record.
        let later = draft(b"new").propose(&writer, ballot(3), None, None, None).record;
        assert!(later != new.record && later.hash() == new.record.hash());
        // Neither goes with what the other was not signed with.
        let mixed = Proposed { proposal: propose(b"other").proposal, ..new.clone() };
        assert_eq!(mixed.verify(&genesis, None), Err(Invalid::Proposal));
        // Two that a node has signed with one signature do not vouch for each other, nor for what the writer has signed.
        let (header, proposal) =
            Signed::sign_together(&node, draft(b"new").header, |_| (*new.proposal).clone());
        assert!(proposal.shares_signature_with(&header));
        let forged =
            Proposed { proposal, record: SignedRecord { header, ..new.record.clone() }, ..new.clone() };
        assert_eq!(forged.verify(&genesis, None), Err(Invalid::Signature));
        let claimed = Proposed { proposal: forged.proposal, ..new.clone() };
        assert_eq!(claimed.verify(&genesis, None), Err(Invalid::Signature));
        // The writer's signature is no word of another writer, nor is it one for another value.
        let header = || (*new.record.header).clone();
        for (proposal, refusal) in [
            (Proposal { writer: owner.public_key(), ..(*new.proposal).clone() }, Invalid::Signature),
            (Proposal { value: Some(HeaderHash([7; 32])), ..(*new.proposal).clone() }, Invalid::Proposal),
            (Proposal { list: 1, ..(*new.proposal).clone() }, Invalid::Access),
        ] {
            let (header, proposal) = Signed::sign_together(&writer, header(), |_| proposal);
            let record = SignedRecord { header, ..new.record.clone() };
            let mixed = Proposed { proposal, record, ..new.clone() };
            assert!(mixed.proposal.shares_signature_with(&mixed.record.header));
            assert_eq!(mixed.verify(&genesis, None), Err(refusal));
        }
    }
}
