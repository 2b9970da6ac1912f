//! One state of the groups of several: of two registers, or of one that is lost and what lists of spaces say of it. Pure.
//!
//! Whatever is in doubt lets nobody in: who is left out is told, and put in again by a word of the owner's.

use std::collections::BTreeSet;

use dht::RegisterAddress;
use reactor::crypto::PublicKey;

use super::{GROUPS_MAX, Group, GroupId, Groups, GroupsError};

/// So many changes of a group there are never in one register.
const FAR: u64 = 1 << 32;
/// Whom a space's list has by a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBy {
    /// The group.
    pub id: GroupId,
    /// The state of it that the list was made by.
    pub epoch: u64,
    /// Those who are on it by this group; who is there by his name, or another one, alone is not: that says nothing of this one.
    pub people: BTreeSet<PublicKey>,
}

/// What is not in groups that were made of several states.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// A member or a group is in a group by one of the states, and not by another one.
    Member {
        /// What he, or it, is called.
        who: String,
        /// What the group is called.
        group: String,
    },
    /// There is no room for a group.
    Group(String),
    /// There is no room for the note that a space names a group.
    Space {
        /// Where it was put.
        path: String,
        /// What the group is called.
        group: String,
    },
}

impl Groups {
    /// Takes in what `others` has that this has not, which was another register's. In a group that both have are those who are in it in
    /// both: which of the two states is the newer one their epochs do not say, and whoever was taken out on one side is not in again by
    /// the other. A name that both have for different groups is this one's. Returns what was left out.
    pub fn take_in(&mut self, others: &Groups) -> Vec<LeftOut> {
        let (before, mut out) = (self.clone(), Vec::new());
        for other in &others.groups {
            let Some(at) = self.groups.iter().position(|group| group.id == other.id) else { continue };
            let mine = &before.groups[at];
            for key in mine.people.iter().filter(|key| !other.people.contains(key)) {
                out.push(before.left_out(key, mine));
            }
            for key in other.people.iter().filter(|key| !mine.people.contains(key)) {
                out.push(others.left_out(key, mine));
            }
            let inner_of = |one: &Group, two: &Group, of: &Groups| -> Vec<LeftOut> {
                let alone = one.groups.iter().filter(|id| !two.groups.contains(id));
                let named = alone.filter_map(|id| of.get(*id));
                let out =
                    named.map(|inner| LeftOut::Member { who: inner.name.clone(), group: mine.name.clone() });
                out.collect()
            };
            out.extend(inner_of(mine, other, &before));
            out.extend(inner_of(other, mine, others));
            self.groups[at].people.retain(|key| other.people.contains(key));
            self.groups[at].groups.retain(|id| other.groups.contains(id));
        }
        self.prune();
        // Inner ones first. What has no room is left out: a group by which somebody would be in another is none of those.
        let mut missing: Vec<&Group> =
            others.groups.iter().filter(|other| before.get(other.id).is_none()).collect();
        while !missing.is_empty() {
            let waits = |group: &Group| missing.iter().any(|inner| group.groups.contains(&inner.id));
            let at = missing.iter().position(|group| !waits(group)).unwrap_or_default();
            let other = missing.remove(at);
            if self.try_change(|groups| groups.take_in_one(other, others)).is_err() {
                out.push(LeftOut::Group(other.name.clone()));
            }
        }
        for (other, space) in
            others.groups.iter().flat_map(|other| other.spaces.iter().map(move |s| (other, s)))
        {
            let Some(group) = self.get(other.id) else { continue };
            let left_out = LeftOut::Space { path: space.path.clone(), group: group.name.clone() };
            let (register, ids) = (RegisterAddress(space.register), [other.id].into());
            if self.name(&register, &space.path, &ids).is_err() {
                out.push(left_out);
            }
        }
        self.rise_above(&before);
        self.rise_above(others);
        out
    }

    fn left_out(&self, key: &PublicKey, group: &Group) -> LeftOut {
        let who = self.person(key).map_or_else(String::new, |person| person.name.clone());
        LeftOut::Member { who, group: group.name.clone() }
    }

    /// Takes in a group that this has not, with those in it.
    fn take_in_one(&mut self, other: &Group, others: &Groups) -> Result<(), GroupsError> {
        let mut taken = other.clone();
        taken.groups.retain(|inner| self.get(*inner).is_some());
        let names = std::iter::once(other.name.clone())
            .chain((2_u32..).map(|number| format!("{}-{number}", other.name)));
        let is_free = |name: &String| self.called(name).is_none();
        taken.name = names.take(GROUPS_MAX + 2).find(is_free).ok_or(GroupsError::TooMany)?;
        for key in &other.people {
            let person = others.person(key).ok_or(GroupsError::Missing)?;
            if self.person(key).is_none() {
                self.people.push(person.clone());
            }
        }
        self.groups.push(taken);
        Ok(())
    }

    /// Has each group's epoch be above that of a state in which others were in it, and not below that of one in which the same were.
    fn rise_above(&mut self, state: &Groups) {
        let people: Vec<_> = self.groups.iter().map(|group| self.people_of(group.id)).collect();
        for (group, people) in self.groups.iter_mut().zip(people) {
            let Some(then) = state.get(group.id) else { continue };
            let is_other = state.people_of(group.id) != people;
            group.epoch = group.epoch.max(then.epoch.saturating_add(u64::from(is_other)));
        }
    }

    /// Has each group that changed since then have an epoch that no other register's state of it has: whoever goes by that one makes no
    /// list any more that would bring somebody back, until the two are put together.
    pub fn rise_far(&mut self, before: &Groups) {
        for group in &mut self.groups {
            if before.get(group.id).is_none_or(|then| then.epoch != group.epoch) {
                group.epoch = group.epoch.saturating_add(FAR);
            }
        }
    }

    /// Has each group, of which lists stand for states that are not known here, be only whom all of these lists have by it: so nobody
    /// is in it again who was taken out. Its epoch is above those states'. Each list is looked at by what is known before any of them
    /// narrows anything. Returns who was left out.
    pub fn narrow(&mut self, lists: &[ListedBy]) -> Vec<LeftOut> {
        let before = self.clone();
        let is_newer = |list: &ListedBy| before.get(list.id).is_some_and(|group| group.epoch < list.epoch);
        self.narrow_by(lists.iter().filter(|list| is_newer(list)))
    }

    /// As [`narrow`](Groups::narrow), by all of these lists, whatever states they stand for: where two registers counted these, which of
    /// them is the newer one no number says.
    pub fn narrow_by_all(&mut self, lists: &[ListedBy]) -> Vec<LeftOut> {
        self.narrow_by(lists.iter())
    }

    fn narrow_by<'a>(&mut self, lists: impl Iterator<Item = &'a ListedBy>) -> Vec<LeftOut> {
        let (before, mut left_out) = (self.clone(), Vec::new());
        for list in lists {
            let within = before.within(&[list.id]);
            for group in self.groups.iter_mut().filter(|group| within.contains(&group.id)) {
                for key in group.people.iter().filter(|key| !list.people.contains(key)) {
                    left_out.push(before.left_out(key, group));
                }
                group.people.retain(|key| list.people.contains(key));
                if group.id == list.id {
                    group.epoch = group.epoch.max(list.epoch.saturating_add(1));
                }
            }
        }
        self.prune();
        self.rise_above(&before);
        left_out
    }
}
