//! Who keeps a register, after those whom its genesis names.
//!
//! A [`Configuration`] is one epoch's replica set, signed by the register's **owner and nobody else**: a storage node that
//! could name the next members would take the register over with its friends, and a writer could roll it back with his.
//! It is signed in two steps, as two statements of the same content:
//!
//! - the [`Seal`] is what the owner *wants*: it is proposed in the epoch that it is to end, together with the last value,
//!   which it names. It means nothing until it is chosen, and is void once another value was.
//! - the [`Configuration`] says that the seal *was chosen*. With it alone the members of earlier epochs refuse to go on, and
//!   point there; whoever was away for long follows it without asking any of them. Everything in it comes from the seal
//!   that was chosen, so two movers sign the same bytes, and there is one configuration for an epoch.
//!
//! It also says which list of writers was the newest when the epoch was to begin: nothing is accepted in it that goes by an older one.
//! So its members need not have heard of a removal from before it, and whoever was removed has nothing accepted by one that was
//! given nothing yet.
//!
//! A [`Membership`] is the genesis with the newest configuration that somebody knows: what requests carry, what nodes keep
//! and what clients persist. It needs no chain of those between: each of them was signed by the same owner, and the number
//! of the epoch orders them.
//!
//! Not here: how a seal is chosen ([`crate::paxos`]), and who decides that a register should move.

use std::ops::Deref;

use bytes::Bytes;
use overlay::NodeId;
use reactor::crypto::Identity;
use reactor::serialization::{Versioned, from_envelope, to_envelope};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::genesis::{Genesis, check_members};
use super::mutable::Invalid;
use super::signed::Signed;
use crate::block_store::{HeaderHash, RegisterAddress};
use crate::paxos::Quorum;
use crate::paxos::quorum::MEMBER_COUNT_MAX;

/// See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// Which register.
    pub register: RegisterAddress,
    /// Counts the register's replica sets; the genesis record's is 0.
    pub epoch: u64,
    /// The replica set.
    pub members: Vec<NodeId>,
    /// How many of them make a quorum.
    pub quorum: u8,
    /// Those of the epoch before: they have the value until a quorum of the members was given it.
    pub former: Vec<NodeId>,
    /// The value that the epoch begins with: the last one of the epoch before.
    pub value: HeaderHash,
    /// The number of the list of writers that its owner went by: what goes by an older one is refused in this epoch.
    pub list: u64,
}

impl Versioned for Configuration {
    const TYPE_NAME: &'static str = "hypha configuration";
    const VERSION: u32 = 2;
    const READABLE_SINCE: u32 = 2;
}

impl Configuration {
    fn check(&self, genesis: &Signed<Genesis>) -> Result<(), Invalid> {
        if self.register != genesis.register() {
            return Err(Invalid::WrongRegister);
        }
        if self.epoch == 0 {
            return Err(Invalid::Epoch);
        }
        if self.former.len() > MEMBER_COUNT_MAX {
            return Err(Invalid::Members);
        }
        check_members(&self.members, self.quorum)
    }
}

impl Signed<Configuration> {
    /// Checks everything that can be checked.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(&self, genesis: &Signed<Genesis>) -> Result<(), Invalid> {
        self.check(genesis)?;
        self.verify_by(&genesis.owner)
    }
}

/// See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seal {
    /// What begins once this is chosen.
    pub next: Wanted,
}

/// A configuration as it is to be signed, byte for byte: programs of two releases that meet one seal must sign the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    encoded: Bytes,
    configuration: Configuration,
}

impl From<Configuration> for Wanted {
    fn from(configuration: Configuration) -> Wanted {
        Wanted { encoded: to_envelope(&configuration).into(), configuration }
    }
}

impl Deref for Wanted {
    type Target = Configuration;

    fn deref(&self) -> &Configuration {
        &self.configuration
    }
}

impl Serialize for Wanted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.encoded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Wanted, D::Error> {
        let encoded = Bytes::deserialize(deserializer)?;
        let configuration = from_envelope(&encoded).map_err(de::Error::custom)?;
        Ok(Wanted { encoded, configuration })
    }
}

impl Versioned for Seal {
    const TYPE_NAME: &'static str = "hypha seal";
    const VERSION: u32 = 1;
}

impl Seal {
    /// Wants the epoch after `membership`'s, which has `value` now, to be kept by `members`, with majorities as quorums. `list`
    /// is the number of the newest list of writers.
    pub fn sign(
        owner: &Identity,
        membership: &Membership,
        members: Vec<NodeId>,
        value: HeaderHash,
        list: u64,
    ) -> Signed<Seal> {
        let quorum = (members.len() / 2 + 1) as u8;
        let (register, epoch) = (membership.register(), membership.epoch() + 1);
        let former = membership.members().to_vec();
        let next = Configuration { register, epoch, members, quorum, former, value, list };
        Signed::sign(owner, Seal { next: next.into() })
    }
}

impl Signed<Seal> {
    /// Checks that it may end `epoch`, whose last value is `value`.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(&self, genesis: &Signed<Genesis>, epoch: u64, value: HeaderHash) -> Result<(), Invalid> {
        self.next.check(genesis)?;
        if self.next.epoch.checked_sub(1) != Some(epoch) || self.next.value != value {
            return Err(Invalid::Epoch);
        }
        self.verify_by(&genesis.owner)
    }

    /// Says, once the seal was **chosen**, that it was.
    pub fn chosen(&self, owner: &Identity) -> Signed<Configuration> {
        Signed::sign_encoded(owner, self.next.encoded.clone(), self.next.configuration.clone())
    }
}

/// Who keeps a register, as far as somebody knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// What the register is.
    pub genesis: Signed<Genesis>,
    /// Who keeps it now; `None` while that is those whom the genesis names.
    pub configuration: Option<Signed<Configuration>>,
}

impl From<Signed<Genesis>> for Membership {
    fn from(genesis: Signed<Genesis>) -> Membership {
        Membership { genesis, configuration: None }
    }
}

impl Membership {
    /// The register.
    pub fn register(&self) -> RegisterAddress {
        self.genesis.register()
    }

    /// Which of the register's replica sets this is.
    pub fn epoch(&self) -> u64 {
        self.configuration.as_ref().map_or(0, |configuration| configuration.epoch)
    }

    /// The number of the list of writers that the epoch began with: nothing goes by an older one in it.
    pub fn first_list(&self) -> u64 {
        self.configuration.as_ref().map_or(0, |configuration| configuration.list)
    }

    /// The members.
    pub fn members(&self) -> &[NodeId] {
        self.configuration.as_ref().map_or(&self.genesis.members, |configuration| &configuration.members)
    }

    /// How many members there are, and how many must agree.
    pub fn quorum(&self) -> Quorum {
        match &self.configuration {
            None => self.genesis.quorum(),
            Some(configuration) => {
                Quorum { members: configuration.members.len(), needed: configuration.quorum as usize }
            }
        }
    }

    /// The place of `node` among the members.
    pub fn index_of(&self, node: &NodeId) -> Option<usize> {
        self.members().iter().position(|member| member == node)
    }

    /// The same register, kept by other members since.
    pub fn followed_by(&self, configuration: Signed<Configuration>) -> Membership {
        Membership { genesis: self.genesis.clone(), configuration: Some(configuration) }
    }

    /// Checks everything that can be checked.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(&self) -> Result<(), Invalid> {
        self.genesis.verify()?;
        self.configuration.as_ref().map_or(Ok(()), |configuration| configuration.verify(&self.genesis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(index: u8) -> NodeId {
        NodeId([index; 32])
    }

    fn story() -> (Identity, Membership) {
        let owner = Identity::from_seed(&[1; 32]);
        let genesis = Genesis::sign(&owner, [5; 32], (1..4).map(node).collect(), vec![]);
        (owner, genesis.into())
    }

    const VALUE: HeaderHash = HeaderHash([7; 32]);

    #[derive(Serialize, Deserialize)]
    struct Later {
        #[serde(flatten)]
        inner: Configuration,
        colour: String,
    }

    impl Versioned for Later {
        const TYPE_NAME: &'static str = Configuration::TYPE_NAME;
        const VERSION: u32 = 3;
        const READABLE_SINCE: u32 = 2;
    }

    #[test]
    fn nobody_but_the_owner_names_the_next_members() {
        let (owner, first) = story();
        let writer = Identity::from_seed(&[2; 32]);
        let friends: Vec<NodeId> = (6..9).map(node).collect();
        for (signer, outcome) in [(&owner, Ok(())), (&writer, Err(Invalid::Signature))] {
            let seal = Seal::sign(signer, &first, friends.clone(), VALUE, 0);
            assert_eq!(seal.verify(&first.genesis, 0, VALUE), outcome);
            let moved = first.followed_by(seal.chosen(signer));
            assert_eq!(moved.verify(), outcome);
            assert_eq!(
                (moved.epoch(), moved.members(), moved.register()),
                (1, &friends[..], first.register())
            );
        }
        // Nor does what the owner wanted pass for what was chosen: the two are different statements.
        let seal = Seal::sign(&owner, &first, friends, VALUE, 0);
        assert_ne!(seal.hash(), seal.chosen(&owner).hash());
        assert!(Signed::<Configuration>::from_bytes(&seal.to_bytes()).is_err());
    }

    #[test]
    fn a_seal_is_for_one_value_of_one_epoch_of_one_register() {
        let (owner, first) = story();
        let seal = Seal::sign(&owner, &first, vec![node(1)], VALUE, 0);
        assert_eq!(seal.verify(&first.genesis, 1, VALUE), Err(Invalid::Epoch));
        assert_eq!(seal.verify(&first.genesis, 0, HeaderHash([8; 32])), Err(Invalid::Epoch));
        let other = Genesis::sign(&owner, [6; 32], vec![node(1)], vec![]);
        assert_eq!(seal.verify(&other, 0, VALUE), Err(Invalid::WrongRegister));
        assert_eq!(seal.chosen(&owner).verify(&other), Err(Invalid::WrongRegister));
        let nowhere = Seal::sign(&owner, &first, vec![], VALUE, 0);
        assert_eq!(nowhere.verify(&first.genesis, 0, VALUE), Err(Invalid::Members));
        let again = Configuration { epoch: 0, ..(*seal.next).clone() };
        assert_eq!(Signed::sign(&owner, again).verify(&first.genesis), Err(Invalid::Epoch));
    }

    #[test]
    fn two_movers_who_meet_one_seal_sign_the_same_bytes() {
        let (owner, first) = story();
        let seal = Seal::sign(&owner, &first, vec![node(4), node(2)], VALUE, 0);
        let again = Identity::from_seed(&owner.seed());
        assert_eq!(seal.chosen(&owner), seal.chosen(&again));
        // Also where one of them is of a later release, whose configurations say more than the other knows.
        let later = Later { inner: (*seal.next).clone(), colour: "red".into() };
        let encoded = Bytes::from(to_envelope(&later));
        let next = Wanted { configuration: from_envelope(&encoded).unwrap(), encoded: encoded.clone() };
        let seal = Signed::sign(&owner, Seal { next });
        let seal = Signed::<Seal>::from_bytes(&seal.to_bytes()).unwrap();
        assert_eq!(seal.chosen(&again).encoded(), &encoded);
    }
}
