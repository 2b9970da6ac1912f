//! Whom a list is for: members by their own names, and groups, which are expanded to members.
//!
//! What somebody may do is the most of what his name and each of his groups say; by groups no more than reading for who joined as a
//! reader, from whom the nodes take nothing anyway. That, and what roots are sealed to for him, the groups say, so that each of the
//! owner's machines makes the same list of them.
//!
//! Not here: who is in a group (`filesystem::access::groups`), and how that is known (`groups`).

use std::collections::BTreeSet;

use filesystem::access::groups::{GroupId, Groups, Person};
use filesystem::access::list::{Access, AccessChange, AccessList, ListedGroup};
use overlay::invitation::InvitedAs;
use reactor::crypto::PublicKey;

use crate::network::Hex;
use crate::roll::{Allowed, AllowedGroup, LetIn, Listed, Roll, SpaceEntry};

/// Who may do something in a space, beside its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Guests {
    pub(crate) people: Vec<Allowed>,
    pub(crate) groups: Vec<AllowedGroup>,
}

impl From<Vec<Allowed>> for Guests {
    fn from(people: Vec<Allowed>) -> Guests {
        Guests { people, groups: Vec::new() }
    }
}

impl Guests {
    /// Whom a list is for that was signed.
    pub(super) fn of(list: &AccessList, owner: &PublicKey) -> Guests {
        let named = |change: &&AccessChange| change.key != *owner && change.own != Access::None;
        let people = list.present().filter(named);
        let people = people.map(|change| allowed(&change.key, change.own)).collect();
        let group =
            |group: &ListedGroup| AllowedGroup { id: group.id, may_write: group.access == Access::Write };
        Guests { people, groups: list.groups.iter().map(group).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.people.is_empty() && self.groups.is_empty()
    }

    /// Those who write, each by his own name. No group: that it is still on the list nothing proves, nor who in it only reads.
    pub(super) fn that_write(mut self) -> Guests {
        self.people.retain(|allowed| allowed.may_write);
        self.groups.clear();
        self
    }

    /// These, and `more`, which says of whom both have what he may do.
    pub(super) fn with(mut self, more: &Guests) -> Guests {
        self.people.retain(|known| more.people.iter().all(|new| new.key != known.key));
        self.groups.retain(|known| more.groups.iter().all(|new| new.id != known.id));
        self.people.extend_from_slice(&more.people);
        self.groups.extend_from_slice(&more.groups);
        self
    }
}

impl Listed {
    /// What a list says.
    pub(super) fn of(list: &AccessList, owner: &PublicKey) -> Listed {
        let others = list.present().filter(|change| change.key != *owner);
        Listed {
            people: others.map(|change| allowed(&change.key, change.access)).collect(),
            groups: list.groups.iter().map(|group| (group.id, group.epoch)).collect(),
        }
    }
}

impl From<&LetIn> for Person {
    fn from(member: &LetIn) -> Person {
        let (key, sealing_key, name) = (member.public_key(), member.sealing_key.0, member.name.clone());
        Person { key, sealing_key, may_write: member.role == InvitedAs::Writer, name }
    }
}

impl SpaceEntry {
    /// The groups that its list names, or is to name, or may name still, as far as this home knows.
    pub(crate) fn names(&self) -> BTreeSet<GroupId> {
        let listed = self.listed.groups.iter().map(|(id, _)| *id);
        self.groups
            .iter()
            .map(|allowed| allowed.id)
            .chain(self.leaving_groups.iter().copied())
            .chain(listed)
            .collect()
    }

    /// Nobody is in it, nor is to be off it.
    pub(crate) fn nobody(&mut self) {
        self.people.clear();
        self.groups.clear();
        self.leaving.clear();
        self.leaving_groups.clear();
        self.listed = Listed::default();
    }
}

impl Roll {
    /// Which epochs of groups lists have that this home knows, of whatever space.
    pub(super) fn groups_listed(&self) -> impl Iterator<Item = (GroupId, u64)> {
        self.spaces.iter().flat_map(|space| space.listed.groups.iter().copied())
    }
}

fn allowed(key: &PublicKey, access: Access) -> Allowed {
    Allowed { key: Hex(*key.as_bytes()), may_write: access == Access::Write }
}

fn access(may_write: bool) -> Access {
    if may_write { Access::Write } else { Access::Read }
}

/// What somebody may do, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) access: Access,
    pub(super) own: Access,
    pub(super) by: Vec<GroupId>,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing { access: Access::None, own: Access::None, by: Vec::new() }
    }
}

/// Guests, with those who are in their groups.
#[derive(Debug)]
pub(crate) struct Expanded {
    people: Vec<Allowed>,
    /// In the order of their ids.
    groups: Vec<(ListedGroup, BTreeSet<PublicKey>)>,
    /// Whoever is in one of them.
    in_groups: Vec<Person>,
}

impl Expanded {
    /// A group that is not there has nobody; see [`behind`].
    pub(crate) fn of(guests: &Guests, known: &Groups) -> Expanded {
        let expanded = |allowed: &AllowedGroup| {
            let group = known.get(allowed.id)?;
            let (id, name, epoch) = (group.id, group.name.clone(), group.epoch);
            let listed = ListedGroup { id, name, epoch, access: access(allowed.may_write) };
            Some((listed, known.people_of(id)))
        };
        let mut groups: Vec<_> = guests.groups.iter().filter_map(expanded).collect();
        groups.sort_by_key(|(group, _)| group.id);
        let is_in = |person: &&Person| groups.iter().any(|(_, people)| people.contains(&person.key));
        let in_groups = known.people().iter().filter(is_in).cloned().collect();
        Expanded { people: guests.people.clone(), groups, in_groups }
    }

    /// Whoever is in one of the groups.
    pub(super) fn in_groups(&self) -> &[Person] {
        &self.in_groups
    }

    /// How many these are, whoever of them is a member.
    pub(crate) fn count(&self) -> usize {
        let named = self.people.iter().map(|allowed| PublicKey::from_bytes(allowed.key.0));
        let grouped = self.groups.iter().flat_map(|(_, people)| people.iter().copied());
        named.chain(grouped).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn standing(&self, key: &PublicKey) -> Standing {
        let named = self.people.iter().find(|allowed| allowed.key.0 == *key.as_bytes());
        let own = named.map_or(Access::None, |allowed| access(allowed.may_write));
        let with: Vec<&ListedGroup> =
            self.groups.iter().filter(|(_, people)| people.contains(key)).map(|(group, _)| group).collect();
        let most = with.iter().map(|group| group.access).max().unwrap_or(Access::None);
        let only_reads = self.in_groups.iter().any(|person| person.key == *key && !person.may_write);
        let by_groups = if only_reads { most.min(Access::Read) } else { most };
        Standing { access: own.max(by_groups), own, by: with.into_iter().map(|group| group.id).collect() }
    }

    pub(super) fn listed_groups(&self) -> Vec<ListedGroup> {
        self.groups.iter().map(|(group, _)| group.clone()).collect()
    }
}

/// The first group that a list is to be for of which `groups` do not have so new a state as is known of from lists, or that they do not have
/// at all: whoever went by them would let somebody in again, or lock whoever is in it out. `listed` are all that are known, with their
/// epochs. What is taken off a list is none that it is to be for.
pub(crate) fn behind(
    wished: &Guests,
    listed: impl IntoIterator<Item = (GroupId, u64)>,
    groups: &Groups,
) -> Option<GroupId> {
    let listed: Vec<(GroupId, u64)> = listed.into_iter().collect();
    let is_behind = |allowed: &&AllowedGroup| {
        let newest = listed.iter().filter(|(id, _)| *id == allowed.id).map(|(_, epoch)| *epoch).max();
        groups.get(allowed.id).is_none_or(|group| newest.is_some_and(|newest| group.epoch < newest))
    };
    wished.groups.iter().find(is_behind).map(|allowed| allowed.id)
}

#[cfg(test)]
mod tests {
    use dht::block::mutable::Genesis;
    use filesystem::access::groups::InGroup;
    use overlay::NodeId;
    use reactor::crypto::Identity;

    use super::super::tests::{key, member, people};
    use super::*;

    #[test]
    fn what_somebody_may_do_is_the_most_of_what_his_name_and_his_groups_say() {
        let mut groups = Groups::default();
        let [family, club] = ["family", "club"].map(|name| groups.create(name).unwrap());
        for (id, who) in [(family, 2), (family, 3), (club, 3), (club, 4)] {
            groups.add(id, &InGroup::Person((&member(who)).into())).unwrap();
        }
        let by = |id, may_write| AllowedGroup { id, may_write };
        let guests = Guests {
            people: people(&[(2, true), (3, false)]),
            groups: vec![by(club, true), by(family, false)],
        };
        let expanded = Expanded::of(&guests, &groups);
        let of = |who| {
            let Standing { access, own, by } = expanded.standing(&key(who));
            (access, own, by)
        };
        assert_eq!(of(2), (Access::Write, Access::Write, vec![family]));
        assert_eq!(
            of(3),
            (
                Access::Write,
                Access::Read,
                [family, club].into_iter().collect::<BTreeSet<_>>().into_iter().collect()
            )
        );
        assert_eq!(of(4), (Access::Write, Access::None, vec![club]));
        assert_eq!(of(5), (Access::None, Access::None, vec![]));
        assert_eq!(expanded.count(), 3);
        let reader = LetIn { role: InvitedAs::Reader, ..member(5) };
        groups.add(club, &InGroup::Person((&reader).into())).unwrap();
        let with_a_reader = Expanded::of(&guests, &groups);
        assert_eq!(
            with_a_reader.standing(&key(5)).access,
            Access::Read,
            "also where the roll does not have him"
        );
        // Nothing proves that a group is on the list still, nor who in it only reads.
        assert_eq!(guests.clone().that_write(), Guests { people: people(&[(2, true)]), groups: Vec::new() });
        let more = Guests { people: people(&[(2, false)]), groups: vec![by(family, true)] };
        let both = guests.with(&more);
        assert_eq!(both.people, people(&[(3, false), (2, false)]));
        assert_eq!(both.groups, [by(club, true), by(family, true)]);
    }

    #[test]
    fn groups_that_are_behind_a_list_are_told_and_let_nobody_in_again() {
        let mut groups = Groups::default();
        let family = groups.create("family").unwrap();
        let person = InGroup::Person((&member(2)).into());
        groups.add(family, &person).unwrap();
        let older = groups.clone();
        groups.remove(family, &person).unwrap();
        let guests =
            Guests { people: Vec::new(), groups: vec![AllowedGroup { id: family, may_write: true }] };
        let epoch = |groups: &Groups| groups.get(family).unwrap().epoch;
        let (then, now) = ((family, epoch(&older)), (family, epoch(&groups)));
        // The list that is gone on from may be an older one, or none: what the newest said that this home knows counts as well.
        assert_eq!(behind(&guests, [then, now], &older), Some(family));
        assert_eq!((behind(&guests, [then], &older), behind(&guests, [then, now], &groups)), (None, None));
        // Nor need it be of this space: whoever was taken out does not come in by another one.
        let mut roll = Roll::default();
        for (salt, listed) in [(5, then), (6, now)] {
            let owner = Identity::from_seed(&[1; 32]);
            let genesis = Genesis::sign(&owner, [salt; 32], vec![NodeId([1; 32])], Vec::new());
            roll.space_or_new(&genesis, "docs").listed.groups = vec![listed];
        }
        assert_eq!(behind(&guests, roll.groups_listed(), &older), Some(family));
        // A group that this home has not heard of, of whatever register, is told as well; unless it is taken off.
        assert_eq!(behind(&guests, [], &Groups::default()), Some(family));
        assert_eq!(behind(&Guests::default(), [now], &Groups::default()), None);
        groups.delete(family).unwrap();
        assert_eq!(behind(&guests, [now], &groups), Some(family));
        assert_eq!(Expanded::of(&guests, &groups).count(), 0);
    }
}
