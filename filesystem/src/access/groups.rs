//! The groups of a drive's owner: who is in which, and which spaces name them.
//!
//! All groups of a drive are one record in one register, which nobody but the drive's owner writes. So a name is one group's, no
//! group is in itself by a detour, and none is deleted while another has it, also where two of the owner's machines change them at
//! once: one swap wins, and the other is told. (A register for each group would let each of two machines put one group into the
//! other.) The register's versions number the record, and who has seen one takes none that is older.
//!
//! It has of each person in a group what a list needs to name him, so that two machines of the owner's make the same list of it, also
//! where one of them has never heard of that member.
//!
//! A group's id is drawn at random. So where a drive came to have two such registers, by a writer who took away which is which, no group
//! of the one passes for one of the other.
//!
//! A group has an *epoch*, which rises with each change of who is in it, be that by a group within it. A space's list names the
//! group with the epoch that it was expanded by (`list`): nodes and readers go by members, and know nothing of groups.
//!
//! Not here: the bytes (`encoding`), making one state of several (`restoring`), and how the register is found and written.

mod encoding;
mod restoring;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dht::RegisterAddress;
use dht::block::mutable::Genesis;
use dht::block::signed::Signed;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{PublicKey, random_bytes};
use serde::{Deserialize, Serialize};

pub use restoring::{LeftOut, ListedBy};

use super::root::{Charter, Extension};
use crate::format::printable;

/// The extension of a drive's root that says which register it is.
pub(super) const KIND: u16 = 4;

/// So many groups a drive has at most.
pub const GROUPS_MAX: usize = 64;
/// So many people are in a group at most, those of groups within it among them: as many as a space has beside its owner.
pub const PEOPLE_MAX: usize = 64;
/// So many people are in all groups together at most.
const PEOPLE_IN_ALL_MAX: usize = 512;
/// Bytes of a person's name that are kept: as many as a list keeps.
const PERSON_NAME_SIZE_MAX: usize = 64;
/// So many groups are in a group at most, without those in them.
const GROUPS_IN_MAX: usize = 16;
/// A group is at most so deep: with groups in it that have none it is 2.
const DEPTH_MAX: usize = 8;
/// So many spaces name a group at most: as many as a mount shows.
const SPACES_MAX: usize = 64;
/// Bytes of a name.
pub const NAME_SIZE_MAX: usize = 56;
/// Bytes of a space's path that are remembered, of its end.
const PATH_SIZE_MAX: usize = 255;
/// What the record takes at most: the register's value has 64 KiB, and sealing takes some.
pub const SIZE_MAX: usize = 60 * 1024;

/// Why groups are not changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupsError {
    /// There are enough.
    #[error("at most {GROUPS_MAX} groups with {PEOPLE_IN_ALL_MAX} people in all fit: delete one first")]
    TooMany,
    /// The name is another one's.
    #[error("there is a group called {0} already")]
    Taken(String),
    /// It can't be a name.
    #[error("a group's name has 1 to {NAME_SIZE_MAX} bytes: letters, digits and @._-")]
    Name,
    /// No such group.
    #[error("there is no such group any more")]
    Missing,
    /// It would be in itself.
    #[error("{0} would be in itself")]
    Cycle(String),
    /// Too many within each other.
    #[error("groups are at most {DEPTH_MAX} deep in each other")]
    Deep,
    /// Too many in it.
    #[error(
        "{0} would have too many in it: {PEOPLE_MAX} people, those of groups in it among them, and {GROUPS_IN_MAX} groups are the most"
    )]
    Crowded(String),
    /// Too many spaces name it.
    #[error("{0} would be named by more than {SPACES_MAX} spaces")]
    Widespread(String),
    /// It is named by others.
    #[error("{name} is named by {}", .by.join(", "))]
    InUse {
        /// The group.
        name: String,
        /// Spaces and groups.
        by: Vec<String>,
    },
    /// It does not fit.
    #[error("all groups together would take more than {SIZE_MAX} bytes")]
    Size,
}

/// Which group: drawn at random, so that it is never another one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupId(pub u64);

/// Somebody who is in a group: what a list has to say of him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who it is.
    pub key: PublicKey,
    /// What the roots of spaces are sealed to for him.
    pub sealing_key: [u8; 32],
    /// Whether nodes take anything from him: who joined as a reader only reads, whatever groups he is in.
    pub may_write: bool,
    /// What he is called.
    pub name: String,
}

/// Who is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InGroup {
    /// This user.
    Person(Person),
    /// Whoever is in this group.
    Group(GroupId),
}

/// That a space's list names a group, or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The register of the space's root.
    pub register: [u8; 32],
    /// Where it was put; of a long path the end.
    pub path: String,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Never another one's.
    pub id: GroupId,
    /// Rises when who is in it changes.
    pub epoch: u64,
    /// What it is called.
    pub name: String,
    /// Who is in it by himself.
    pub people: Vec<PublicKey>,
    /// The groups that are in it.
    pub groups: Vec<GroupId>,
    /// The spaces that name it: all of them, and perhaps one that was to.
    pub spaces: Vec<Named>,
}

/// See the file's header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// Whoever is in any.
    people: Vec<Person>,
    groups: Vec<Group>,
}

impl Groups {
    /// All of them, in the order in which they were made.
    pub fn all(&self) -> &[Group] {
        &self.groups
    }

    /// The one with this id.
    pub fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }

    /// The one with this name.
    pub fn called(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Whoever is in any group.
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// Who has this key and is in any group.
    pub fn person(&self, key: &PublicKey) -> Option<&Person> {
        self.people.iter().find(|person| person.key == *key)
    }

    /// Whoever is in a group, by whatever groups in it.
    pub fn people_of(&self, id: GroupId) -> BTreeSet<PublicKey> {
        let within = self.within(&[id]);
        let groups = self.groups.iter().filter(|group| within.contains(&group.id));
        groups.flat_map(|group| group.people.iter().copied()).collect()
    }

    /// These groups, and all groups that are in them, by whatever way.
    fn within(&self, ids: &[GroupId]) -> BTreeSet<GroupId> {
        let (mut found, mut next) = (BTreeSet::new(), ids.to_vec());
        while let Some(id) = next.pop() {
            if found.insert(id) {
                next.extend(self.get(id).into_iter().flat_map(|group| &group.groups));
            }
        }
        found
    }

    /// The group, and all groups that it is in, by whatever way: those whom a change of it changes.
    pub fn around(&self, id: GroupId) -> BTreeSet<GroupId> {
        self.groups
            .iter()
            .map(|group| group.id)
            .filter(|outer| self.within(&[*outer]).contains(&id))
            .collect()
    }

    /// The spaces that a change of a group concerns.
    pub fn reached_by(&self, id: GroupId) -> BTreeMap<[u8; 32], String> {
        let around = self.around(id);
        let groups = self.groups.iter().filter(|group| around.contains(&group.id));
        groups
            .flat_map(|group| group.spaces.iter().map(|space| (space.register, space.path.clone())))
            .collect()
    }

    /// Makes a group with nobody in it.
    ///
    /// # Errors
    /// [`GroupsError`]; then nothing was changed, as with all that follow.
    pub fn create(&mut self, name: &str) -> Result<GroupId, GroupsError> {
        self.try_change(|groups| {
            if groups.called(name).is_some() {
                return Err(GroupsError::Taken(name.into()));
            }
            let id = GroupId(u64::from_le_bytes(random_bytes()));
            let (people, within, spaces) = (Vec::new(), Vec::new(), Vec::new());
            groups.groups.push(Group { id, epoch: 1, name: name.into(), people, groups: within, spaces });
            Ok(id)
        })
    }

    /// Deletes a group that nothing names.
    ///
    /// # Errors
    /// [`GroupsError::InUse`].
    pub fn delete(&mut self, id: GroupId) -> Result<(), GroupsError> {
        let group = self.get(id).ok_or(GroupsError::Missing)?;
        let outer = self.groups.iter().filter(|outer| outer.groups.contains(&id));
        let spaces = group.spaces.iter().map(|space| format!("the space {}", space.path));
        let by: Vec<String> = spaces.chain(outer.map(|outer| format!("the group {}", outer.name))).collect();
        if !by.is_empty() {
            return Err(GroupsError::InUse { name: group.name.clone(), by });
        }
        self.groups.retain(|group| group.id != id);
        self.prune();
        Ok(())
    }

    /// Puts somebody into a group. Whether he was not in it by himself.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub fn add(&mut self, id: GroupId, who: &InGroup) -> Result<bool, GroupsError> {
        self.try_change(|groups| {
            if let InGroup::Person(person) = who
                && groups.person(&person.key).is_none()
            {
                let mut person = person.clone();
                person.name.truncate(person.name.floor_char_boundary(PERSON_NAME_SIZE_MAX));
                groups.people.push(person);
            }
            if let InGroup::Group(inner) = who
                && groups.get(*inner).is_none()
            {
                return Err(GroupsError::Missing);
            }
            let group = groups.get_mut(id)?;
            let is_new = match who {
                InGroup::Person(Person { key, .. }) if !group.people.contains(key) => {
                    group.people.push(*key);
                    true
                }
                InGroup::Group(inner) if !group.groups.contains(inner) => {
                    group.groups.push(*inner);
                    true
                }
                _ => false,
            };
            if is_new {
                groups.rise(id);
            }
            Ok(is_new)
        })
    }

    /// Takes somebody out of a group. Whether he was in it by himself.
    ///
    /// # Errors
    /// [`GroupsError::Missing`].
    pub fn remove(&mut self, id: GroupId, who: &InGroup) -> Result<bool, GroupsError> {
        let group = self.get_mut(id)?;
        let before = group.people.len() + group.groups.len();
        match who {
            InGroup::Person(Person { key, .. }) => group.people.retain(|known| known != key),
            InGroup::Group(inner) => group.groups.retain(|known| known != inner),
        }
        let is_out = group.people.len() + group.groups.len() < before;
        if is_out {
            self.rise(id);
            self.prune();
        }
        Ok(is_out)
    }

    /// Takes whoever `is_gone` out of all groups. Whether anybody was in one.
    pub fn forget(&mut self, is_gone: impl Fn(&PublicKey) -> bool) -> bool {
        let with: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|group| group.people.iter().any(&is_gone))
            .map(|group| group.id)
            .collect();
        for id in &with {
            if let Ok(group) = self.get_mut(*id) {
                group.people.retain(|key| !is_gone(key));
            }
            self.rise(*id);
        }
        self.prune();
        !with.is_empty()
    }

    /// Notes that the list of a space names these groups, beside those that it is noted to name. Whether that is news.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub fn name(
        &mut self,
        register: &RegisterAddress,
        path: &str,
        ids: &BTreeSet<GroupId>,
    ) -> Result<bool, GroupsError> {
        self.try_change(|groups| {
            let mut is_news = false;
            let from = path.ceil_char_boundary(path.len().saturating_sub(PATH_SIZE_MAX));
            for id in ids {
                let group = groups.get_mut(*id)?;
                if group.spaces.iter().all(|space| space.register != register.0) {
                    group.spaces.push(Named { register: register.0, path: path[from..].into() });
                    is_news = true;
                }
            }
            Ok(is_news)
        })
    }

    /// Notes that the list of a space names these groups no more. Whether that is news.
    pub fn unname(&mut self, register: &RegisterAddress, ids: &BTreeSet<GroupId>) -> bool {
        let mut is_news = false;
        for group in self.groups.iter_mut().filter(|group| ids.contains(&group.id)) {
            let before = group.spaces.len();
            group.spaces.retain(|space| space.register != register.0);
            is_news |= group.spaces.len() < before;
        }
        is_news
    }

    /// Forgets who is in no group any more.
    fn prune(&mut self) {
        let groups = &self.groups;
        self.people.retain(|person| groups.iter().any(|group| group.people.contains(&person.key)));
    }

    fn get_mut(&mut self, id: GroupId) -> Result<&mut Group, GroupsError> {
        self.groups.iter_mut().find(|group| group.id == id).ok_or(GroupsError::Missing)
    }

    /// Who is in a group, and in those around it, has changed.
    fn rise(&mut self, id: GroupId) {
        let around = self.around(id);
        for group in self.groups.iter_mut().filter(|group| around.contains(&group.id)) {
            group.epoch = group.epoch.saturating_add(1);
        }
    }

    fn try_change<T>(
        &mut self,
        change: impl FnOnce(&mut Groups) -> Result<T, GroupsError>,
    ) -> Result<T, GroupsError> {
        let mut changed = self.clone();
        let result = change(&mut changed)?;
        changed.check()?;
        *self = changed;
        Ok(result)
    }

    /// Whether it is what may be: bounded, and no group in itself.
    fn check(&self) -> Result<(), GroupsError> {
        if self.groups.len() > GROUPS_MAX || self.people.len() > PEOPLE_IN_ALL_MAX {
            return Err(GroupsError::TooMany);
        }
        let is_in_one = |person: &Person| self.groups.iter().any(|group| group.people.contains(&person.key));
        for (at, person) in self.people.iter().enumerate() {
            let is_twice = self.people[..at].iter().any(|other| other.key == person.key);
            let is_shown =
                person.name.len() <= PERSON_NAME_SIZE_MAX && printable(&person.name) == person.name;
            if is_twice || !is_shown || !is_in_one(person) {
                return Err(GroupsError::Name);
            }
        }
        for (at, group) in self.groups.iter().enumerate() {
            let is_twice = |other: &Group| other.id == group.id || other.name == group.name;
            if self.groups[..at].iter().any(is_twice) || group.epoch == 0 {
                return Err(GroupsError::Taken(group.name.clone()));
            }
            if !is_name(&group.name) {
                return Err(GroupsError::Name);
            }
            if group.spaces.len() > SPACES_MAX {
                return Err(GroupsError::Widespread(group.name.clone()));
            }
            let is_crowded = group.people.len() > PEOPLE_MAX || group.groups.len() > GROUPS_IN_MAX;
            if is_crowded || self.people_of(group.id).len() > PEOPLE_MAX {
                return Err(GroupsError::Crowded(group.name.clone()));
            }
            let is_known = |key: &PublicKey| self.person(key).is_some();
            if group.groups.iter().any(|inner| self.get(*inner).is_none())
                || !group.people.iter().all(is_known)
            {
                return Err(GroupsError::Missing);
            }
            if self.within(&group.groups).contains(&group.id) {
                return Err(GroupsError::Cycle(group.name.clone()));
            }
        }
        let mut depths = BTreeMap::new();
        if self.groups.iter().any(|group| self.depth(group.id, &mut depths) > DEPTH_MAX) {
            return Err(GroupsError::Deep);
        }
        match self.encode().len() {
            ..=SIZE_MAX => Ok(()),
            _ => Err(GroupsError::Size),
        }
    }

    /// How deep a group is that is not in itself. Each is looked at once: there may be many ways to one.
    fn depth(&self, id: GroupId, known: &mut BTreeMap<GroupId, usize>) -> usize {
        if let Some(depth) = known.get(&id) {
            return *depth;
        }
        let inner = self.get(id).map_or(&[][..], |group| &group.groups);
        let depth = 1 + inner.iter().map(|inner| self.depth(*inner, known)).max().unwrap_or(0);
        known.insert(id, depth);
        depth
    }
}

/// Whether it can be a group's name: it is shown as it is, and said on command lines. Letters are those of any writing, and names are
/// compared to the byte, as those of members and spaces are: two may look alike.
pub fn is_name(name: &str) -> bool {
    let is_plain = printable(name) == name && !name.contains(char::is_whitespace);
    !name.is_empty() && name.len() <= NAME_SIZE_MAX && is_plain
}

/// A salt for a register that is to have the groups of the drive with this salt: its first half says so, and no other register of its
/// owner's passes for it. The rest is random, so that one that is lost can be followed by another on the same nodes.
pub fn new_salt(drive: &[u8; 32]) -> [u8; 32] {
    let (mut salt, random) = (sha3_256(&[b"hypha groups", drive]), random_bytes::<16>());
    salt[16..].copy_from_slice(&random);
    salt
}

fn is_salt(salt: &[u8; 32], drive: &[u8; 32]) -> bool {
    salt[..16] == sha3_256(&[b"hypha groups", drive])[..16]
}

/// Whether this version knows how an extension of this kind is encoded.
pub(super) fn is_known(value: &[u8]) -> bool {
    Signed::<Genesis>::from_bytes(value).is_ok()
}

impl Charter {
    /// Which register has the groups of the drive whose root this is: with this owner, and this salt.
    pub fn groups(&self, owner: &PublicKey, drive: &[u8; 32]) -> Option<Signed<Genesis>> {
        let extension = self.extensions.iter().find(|extension| extension.kind == KIND)?;
        let genesis = Signed::<Genesis>::from_bytes(&extension.value).ok()?;
        let is_its = genesis.owner == *owner && is_salt(&genesis.salt, drive) && genesis.writers.is_empty();
        (is_its && genesis.verify().is_ok()).then_some(genesis)
    }

    /// Says which register has them.
    pub fn set_groups(&mut self, genesis: &Signed<Genesis>) {
        self.extensions.retain(|extension| extension.kind != KIND);
        self.extensions.push(Extension { kind: KIND, value: Bytes::from(genesis.to_bytes()) });
    }
}

#[cfg(test)]
mod tests;
