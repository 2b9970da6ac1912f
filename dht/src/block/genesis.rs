//! The record with which an owner creates a register, and which is its identity.
//!
//! A register's address is the hash of its genesis: two geneses are two registers, and nobody can be shown another's
//! members for the register they mean. Whoever refers to a register therefore holds the genesis itself, so that who
//! keeps it is never a matter of asking around, and "nobody near knows of it" never passes for "it does not exist".
//! The owner persists it before the first value is proposed.
//!
//! Not here: how a register's members change later, which is a new [configuration](super::configuration) and not a new
//! genesis.

use overlay::NodeId;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey};
use reactor::serialization::Versioned;
use serde::{Deserialize, Serialize};

use super::mutable::{Invalid, WRITER_COUNT_MAX};
use super::signed::Signed;
use crate::block_store::RegisterAddress;
use crate::paxos::Quorum;
use crate::paxos::quorum::MEMBER_COUNT_MAX;

/// See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Genesis {
    /// Whose register it is, and who signs this.
    pub owner: PublicKey,
    /// Random, so that no two of an owner's registers are one.
    #[serde(with = "serde_bytes")]
    pub salt: [u8; 32],
    /// The first replica set.
    pub members: Vec<NodeId>,
    /// How many of them make a quorum, for reading and for writing.
    pub quorum: u8,
    /// Who may write, beside the owner, until the owner signs an access list.
    pub writers: Vec<PublicKey>,
}

impl Versioned for Genesis {
    const TYPE_NAME: &'static str = "hypha genesis";
    const VERSION: u32 = 1;
}

impl Genesis {
    /// Creates a register of `owner` on `members`, with majorities as quorums.
    pub fn sign(
        owner: &Identity,
        salt: [u8; 32],
        members: Vec<NodeId>,
        writers: Vec<PublicKey>,
    ) -> Signed<Genesis> {
        let quorum = (members.len() / 2 + 1) as u8;
        Signed::sign(owner, Genesis { owner: owner.public_key(), salt, members, quorum, writers })
    }

    /// Where in the space of node ids a register is, whose members are yet to be chosen: its address hashes them.
    pub fn place(owner: &PublicKey, salt: &[u8; 32]) -> NodeId {
        NodeId(sha3_256(&[b"hypha register place", owner.as_bytes(), salt]))
    }

    /// How many members there are, and how many must agree.
    pub fn quorum(&self) -> Quorum {
        Quorum { members: self.members.len(), needed: self.quorum as usize }
    }

    /// The place of `node` among the members.
    pub fn index_of(&self, node: &NodeId) -> Option<usize> {
        self.members.iter().position(|member| member == node)
    }
}

impl Signed<Genesis> {
    /// The register that this creates.
    pub fn register(&self) -> RegisterAddress {
        RegisterAddress(sha3_256(&[b"hypha register 2", self.encoded()]))
    }

    /// Checks everything that can be checked.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(&self) -> Result<(), Invalid> {
        check_members(&self.members, self.quorum)?;
        if self.writers.len() > WRITER_COUNT_MAX {
            return Err(Invalid::TooManyWriters);
        }
        self.verify_by(&self.owner)
    }
}

/// Checks that a replica set is one: no member twice, and no two quorums without a common member.
pub(crate) fn check_members(members: &[NodeId], quorum: u8) -> Result<(), Invalid> {
    let (count, needed) = (members.len(), quorum as usize);
    if count == 0 || count > MEMBER_COUNT_MAX || needed > count || 2 * needed <= count {
        return Err(Invalid::Members);
    }
    if (1..count).any(|index| members[..index].contains(&members[index])) {
        return Err(Invalid::Members);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(index: usize) -> NodeId {
        NodeId([index as u8; 32])
    }

    #[test]
    fn two_geneses_are_two_registers() {
        let owner = Identity::from_seed(&[1; 32]);
        let sign = |salt, members| Genesis::sign(&owner, [salt; 32], members, vec![]).register();
        let first = sign(5, vec![node(1), node(2), node(3)]);
        assert_eq!(first, sign(5, vec![node(1), node(2), node(3)]));
        assert_ne!(first, sign(6, vec![node(1), node(2), node(3)]));
        assert_ne!(first, sign(5, vec![node(1), node(2), node(4)]));
    }

    #[test]
    fn an_impossible_member_set_is_refused_even_if_signed() {
        let owner = Identity::from_seed(&[1; 32]);
        let sets = [vec![], vec![node(1), node(1)], (0..17).map(node).collect()];
        for members in sets {
            assert_eq!(Genesis::sign(&owner, [5; 32], members, vec![]).verify(), Err(Invalid::Members));
        }
        let mut genesis = (*Genesis::sign(&owner, [5; 32], vec![node(1), node(2)], vec![])).clone();
        genesis.quorum = 1;
        assert_eq!(Signed::sign(&owner, genesis).verify(), Err(Invalid::Members));
    }

    #[test]
    fn nobody_makes_a_register_in_anothers_name() {
        let (owner, stranger) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let genesis = (*Genesis::sign(&owner, [5; 32], vec![node(1)], vec![])).clone();
        assert_eq!(Signed::sign(&owner, genesis.clone()).verify(), Ok(()));
        assert_eq!(Signed::sign(&stranger, genesis).verify(), Err(Invalid::Signature));
    }
}
