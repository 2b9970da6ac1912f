//! Whom a list is for: members by their own names, and groups, which are expanded to members.
//!
//! What somebody may do is the most of what his name and each of his groups say, and no more than reading for who joined as a reader:
//! from him the nodes take nothing anyway.
//!
//! Not here: who is in a group (`filesystem::access::groups`), and how that is known (`groups`).

use std::collections::BTreeSet;

use filesystem::access::groups::Groups;
use filesystem::access::list::{Access, AccessChange, AccessList, ListedGroup};
use overlay::invitation::InvitedAs;
use reactor::crypto::PublicKey;

use crate::network::Hex;
use crate::roll::{Allowed, AllowedGroup, LetIn, Listed, SpaceEntry};

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

    pub(super) fn that_write(mut self) -> Guests {
        self.people.retain(|allowed| allowed.may_write);
        self.groups.retain(|allowed| allowed.may_write);
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

impl SpaceEntry {
    /// Nobody is in it, nor is to be off it.
    pub(crate) fn nobody(&mut self) {
        self.people.clear();
        self.groups.clear();
        self.leaving.clear();
        self.leaving_groups.clear();
        self.listed = Listed::default();
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
    pub(super) by: Vec<u32>,
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
}

impl Expanded {
    /// A group that was deleted has nobody.
    pub(crate) fn of(guests: &Guests, groups: &Groups) -> Expanded {
        let expanded = |allowed: &AllowedGroup| {
            let group = groups.get(allowed.id)?;
            let (id, name, epoch) = (group.id, group.name.clone(), group.epoch);
            let listed = ListedGroup { id, name, epoch, access: access(allowed.may_write) };
            Some((listed, groups.people_of(id)))
        };
        let mut groups: Vec<_> = guests.groups.iter().filter_map(expanded).collect();
        groups.sort_by_key(|(group, _)| group.id);
        Expanded { people: guests.people.clone(), groups }
    }

    /// How many these are, whoever of them is a member.
    pub(crate) fn count(&self) -> usize {
        let named = self.people.iter().map(|allowed| PublicKey::from_bytes(allowed.key.0));
        let grouped = self.groups.iter().flat_map(|(_, people)| people.iter().copied());
        named.chain(grouped).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn standing(&self, key: &PublicKey, member: Option<&LetIn>) -> Standing {
        let named = self.people.iter().find(|allowed| allowed.key.0 == *key.as_bytes());
        let own = named.map_or(Access::None, |allowed| access(allowed.may_write));
        let with: Vec<&ListedGroup> =
            self.groups.iter().filter(|(_, people)| people.contains(key)).map(|(group, _)| group).collect();
        let most = with.iter().map(|group| group.access).max().unwrap_or(Access::None).max(own);
        let is_reader = member.is_some_and(|member| member.role == InvitedAs::Reader);
        Standing {
            access: if is_reader { most.min(Access::Read) } else { most },
            own,
            by: with.into_iter().map(|group| group.id).collect(),
        }
    }

    pub(super) fn listed_groups(&self) -> Vec<ListedGroup> {
        self.groups.iter().map(|(group, _)| group.clone()).collect()
    }
}

/// Which group of a list is one that these groups are behind of: whoever went by them would let somebody in again.
pub(crate) fn stale(list: &AccessList, groups: &Groups) -> Option<String> {
    let is_behind = |listed: &&ListedGroup| match groups.get(listed.id) {
        Some(group) => group.epoch < listed.epoch,
        None => !groups.was_made(listed.id),
    };
    list.groups.iter().find(is_behind).map(|group| group.name.clone())
}

#[cfg(test)]
mod tests {
    use filesystem::access::groups::InGroup;

    use super::super::tests::{key, member, people};
    use super::*;

    #[test]
    fn what_somebody_may_do_is_the_most_of_what_his_name_and_his_groups_say() {
        let mut groups = Groups::default();
        let [family, club] = ["family", "club"].map(|name| groups.create(name).unwrap());
        for (id, who) in [(family, 2), (family, 3), (club, 3), (club, 4)] {
            groups.add(id, InGroup::Person(key(who))).unwrap();
        }
        let by = |id, may_write| AllowedGroup { id, may_write };
        let guests = Guests {
            people: people(&[(2, true), (3, false)]),
            groups: vec![by(club, true), by(family, false)],
        };
        let expanded = Expanded::of(&guests, &groups);
        let of = |who| {
            let Standing { access, own, by } = expanded.standing(&key(who), Some(&member(who)));
            (access, own, by)
        };
        assert_eq!(of(2), (Access::Write, Access::Write, vec![family]));
        assert_eq!(of(3), (Access::Write, Access::Read, vec![family, club]));
        assert_eq!(of(4), (Access::Write, Access::None, vec![club]));
        assert_eq!(of(5), (Access::None, Access::None, vec![]));
        assert_eq!(expanded.count(), 3);
        let reader = LetIn { role: InvitedAs::Reader, ..member(4) };
        assert_eq!(expanded.standing(&key(4), Some(&reader)).access, Access::Read);
        assert_eq!(guests.clone().that_write().groups, [by(club, true)]);
        let more = Guests { people: people(&[(2, false)]), groups: vec![by(family, true)] };
        let both = guests.with(&more);
        assert_eq!(both.people, people(&[(3, false), (2, false)]));
        assert_eq!(both.groups, [by(club, true), by(family, true)]);
    }

    #[test]
    fn groups_that_are_behind_a_list_are_told_and_let_nobody_in_again() {
        let mut groups = Groups::default();
        let family = groups.create("family").unwrap();
        groups.add(family, InGroup::Person(key(2))).unwrap();
        let older = groups.clone();
        groups.remove(family, InGroup::Person(key(2))).unwrap();
        let guests =
            Guests { people: Vec::new(), groups: vec![AllowedGroup { id: family, may_write: true }] };
        let mut list = AccessList::new(dht::RegisterAddress([9; 32]), "docs");
        list.groups = Expanded::of(&guests, &groups).listed_groups();
        assert_eq!((stale(&list, &groups), stale(&list, &older)), (None, Some("family".into())));
        // It never heard of any; and one that was deleted since is nobody's.
        assert!(stale(&list, &Groups::default()).is_some());
        groups.delete(family).unwrap();
        assert_eq!(stale(&list, &groups), None);
        assert_eq!(Expanded::of(&guests, &groups).count(), 0);
    }
}
