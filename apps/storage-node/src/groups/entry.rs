//! What the roll says of the groups.
//!
//! It has the newest state of their register that this home has seen, so that the home's lists are made without asking anybody, and
//! none that is older is taken for new.

use std::cmp::Reverse;

use dht::block::configuration::Configuration;
use dht::block::mutable::{Genesis, Signed};
use dht::{HeaderHash, Record};
use filesystem::access::groups::Groups;

use crate::errors::Failure;
use crate::network::Hex;
use crate::roll::{GroupsEntry, Roll};
use crate::volume;

impl Roll {
    /// The groups, as this home knows them.
    ///
    /// # Errors
    /// `Failure::Volume` if the roll is damaged there.
    pub(crate) fn groups_known(&self) -> Result<Groups, Failure> {
        self.groups.as_ref().map_or_else(|| Ok(Groups::default()), GroupsEntry::known)
    }

    /// Whether a group has this name, as far as this home knows.
    pub(crate) fn has_group_called(&self, name: &str) -> bool {
        self.groups_known().is_ok_and(|groups| groups.called(name).is_some())
    }

    /// Has it say which register has the groups, unless it has seen what is in another one.
    pub(super) fn finds_groups(&mut self, genesis: &Signed<Genesis>) {
        let bytes = genesis.to_bytes();
        if self.groups.as_ref().is_none_or(|known| known.version == 0 && known.genesis.0 != bytes) {
            self.groups = Some(GroupsEntry::new(genesis));
        }
    }

    /// Has it say what the register was found to be, if that is news.
    pub(super) fn saw_groups(&mut self, record: &Record, groups: &Groups) {
        if let Some(entry) = &mut self.groups
            && entry.version < record.version
        {
            entry.version = record.version;
            entry.header_hash = Hex(record.header_hash.0);
            entry.content = Hex(groups.encode());
        }
    }
}

impl GroupsEntry {
    /// Of a register of which nothing is known.
    pub(super) fn new(genesis: &Signed<Genesis>) -> GroupsEntry {
        GroupsEntry {
            genesis: Hex(genesis.to_bytes()),
            configuration: None,
            version: 0,
            header_hash: Hex([0; 32]),
            content: Hex(Groups::default().encode()),
        }
    }

    /// The record that made their register.
    ///
    /// # Errors
    /// `Failure::Volume` if the roll is damaged there.
    pub(crate) fn genesis(&self) -> Result<Signed<Genesis>, Failure> {
        Signed::from_bytes(&self.genesis.0)
            .map_err(|error| volume::failed(format!("the roll does not say where the groups are: {error}")))
    }

    /// Who keeps it since it was moved last.
    ///
    /// # Errors
    /// As [`GroupsEntry::genesis`].
    pub(crate) fn configuration(&self) -> Result<Option<Signed<Configuration>>, Failure> {
        let known = self.configuration.as_ref().map(|bytes| Signed::from_bytes(&bytes.0)).transpose();
        known.map_err(|error| volume::failed(format!("the roll does not say who keeps the groups: {error}")))
    }

    /// The groups, as this home knows them.
    ///
    /// # Errors
    /// As [`GroupsEntry::genesis`].
    pub(super) fn known(&self) -> Result<Groups, Failure> {
        Groups::decode(&self.content.0).ok_or_else(|| {
            volume::failed("the roll does not say who is in which group: it is damaged".into())
        })
    }

    /// The newest version that was seen.
    pub(super) fn seen(&self) -> Option<(u64, HeaderHash)> {
        (self.version > 0).then_some((self.version, HeaderHash(self.header_hash.0)))
    }

    /// Takes over what another copy of the home says.
    ///
    /// # Errors
    /// As [`GroupsEntry::genesis`].
    pub(crate) fn merge(&mut self, other: GroupsEntry) -> Result<(), Failure> {
        let other_configuration = other.configuration()?;
        let (one, two) = (self.configuration()?, other_configuration);
        let is_same = self.genesis == other.genesis;
        // The same one is taken on either side. Of two registers that is one in which there is something; which of them counts the drive's
        // root says, and whoever has the other one is told.
        let rank = |entry: &GroupsEntry| match is_same {
            true => (entry.version, Reverse(entry.header_hash.0.to_vec())),
            false => (entry.version.min(1), Reverse(entry.genesis.0.clone())),
        };
        let is_other = rank(self) < rank(&other);
        let newest = match (one, two) {
            (Some(one), Some(two)) if is_same => Some(if one.epoch < two.epoch { two } else { one }),
            (one, two) if is_same => one.or(two),
            (one, two) => {
                if is_other {
                    two
                } else {
                    one
                }
            }
        };
        if is_other {
            *self = other;
        }
        self.configuration = newest.map(|newest| Hex(newest.to_bytes()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use overlay::NodeId;
    use reactor::crypto::Identity;

    use super::*;

    #[test]
    fn the_newest_state_that_was_seen_is_kept_whatever_comes_after_it() {
        let owner = Identity::from_seed(&[1; 32]);
        let genesis = |salt| Genesis::sign(&owner, [salt; 32], vec![NodeId([1; 32])], Vec::new());
        let record = |version: u64| Record {
            version,
            payload: Bytes::new(),
            header_hash: HeaderHash([version as u8; 32]),
            writer: owner.public_key(),
        };
        let mut family = Groups::default();
        family.create("family").unwrap();
        let mut roll = Roll::default();
        roll.finds_groups(&genesis(6));
        roll.finds_groups(&genesis(5));
        assert_eq!(roll.groups.as_ref().unwrap().genesis().unwrap(), genesis(5), "nothing was in the other");
        assert_eq!((roll.groups.as_ref().unwrap().seen(), roll.has_group_called("family")), (None, false));
        roll.saw_groups(&record(3), &family);
        roll.saw_groups(&record(2), &Groups::default());
        assert!(roll.has_group_called("family"));
        roll.finds_groups(&genesis(6));
        let seen = roll.groups.clone().unwrap();
        assert_eq!(seen.seen(), Some((3, HeaderHash([3; 32]))));
        // Two copies of a home say the same in either order.
        let mut older = Roll::default();
        older.finds_groups(&genesis(5));
        for (mut one, other) in
            [(seen.clone(), older.groups.clone().unwrap()), (older.groups.unwrap(), seen.clone())]
        {
            one.merge(other).unwrap();
            assert_eq!(one, seen);
        }
        let mut elsewhere = Roll::default();
        elsewhere.finds_groups(&genesis(6));
        let elsewhere = elsewhere.groups.unwrap();
        let merged = |mut one: GroupsEntry, other: &GroupsEntry| {
            one.merge(other.clone()).unwrap();
            one
        };
        // Whichever way round their bytes are, what is known stays; and a fork is the same one on either side.
        for genesis in [genesis(4), genesis(6), genesis(7)] {
            let empty = GroupsEntry::new(&genesis);
            assert_eq!((merged(seen.clone(), &empty), merged(empty, &seen)), (seen.clone(), seen.clone()));
        }
        let forked = GroupsEntry { header_hash: Hex([9; 32]), ..seen.clone() };
        let full = GroupsEntry { version: 9, ..elsewhere };
        for other in [&forked, &full] {
            assert_eq!(merged(seen.clone(), other), merged(other.clone(), &seen));
        }
    }
}
