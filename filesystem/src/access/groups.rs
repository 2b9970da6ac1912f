//! The groups of a drive's owner: who is in which, and which spaces name them.
//!
//! All groups of a drive are one record in one register, which nobody but the drive's owner writes. So a name is one group's, no
//! group is in itself by a detour, and none is deleted while another has it, also where two of the owner's machines change them at
//! once: one swap wins, and the other is told. (A register for each group would let each of two machines put one group into the
//! other.) The register's versions number the record, and who has seen one takes none that is older.
//!
//! A group has an *epoch*, which rises with each change of who is in it, be that by a group within it. A space's list names the
//! group with the epoch that it was expanded by (`list`): nodes and readers go by members, and know nothing of groups.
//!
//! Not here: the bytes (`encoding`), and how the register is found and written.

mod encoding;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dht::RegisterAddress;
use dht::block::mutable::Genesis;
use dht::block::signed::Signed;
use reactor::crypto::PublicKey;
use reactor::crypto::hash::sha3_256;

use super::root::{Charter, Extension};
use crate::format::printable;

/// The extension of a drive's root that says which register it is.
pub(super) const KIND: u16 = 4;

/// So many groups a drive has at most.
pub const GROUPS_MAX: usize = 64;
/// So many people are in a group at most, those of groups within it among them: as many as a space has beside its owner.
pub const PEOPLE_MAX: usize = 64;
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
    #[error("at most {GROUPS_MAX} groups fit: delete one first")]
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

/// Who is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InGroup {
    /// This user.
    Person(PublicKey),
    /// Whoever is in this group.
    Group(u32),
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
    pub id: u32,
    /// Rises when who is in it changes.
    pub epoch: u64,
    /// What it is called.
    pub name: String,
    /// Who is in it by himself.
    pub people: Vec<PublicKey>,
    /// The groups that are in it.
    pub groups: Vec<u32>,
    /// The spaces that name it: all of them, and perhaps one that was to.
    pub spaces: Vec<Named>,
}

/// See the file's header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// That of the next one.
    next: u32,
    groups: Vec<Group>,
}

impl Groups {
    /// All of them, in the order in which they were made.
    pub fn all(&self) -> &[Group] {
        &self.groups
    }

    /// The one with this id.
    pub fn get(&self, id: u32) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }

    /// The one with this name.
    pub fn called(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Whether a group with this id was made at all, be it deleted since.
    pub fn was_made(&self, id: u32) -> bool {
        id < self.next
    }

    /// Whoever is in a group, by whatever groups in it.
    pub fn people_of(&self, id: u32) -> BTreeSet<PublicKey> {
        let within = self.within(&[id]);
        let groups = self.groups.iter().filter(|group| within.contains(&group.id));
        groups.flat_map(|group| group.people.iter().copied()).collect()
    }

    /// These groups, and all groups that are in them, by whatever way.
    fn within(&self, ids: &[u32]) -> BTreeSet<u32> {
        let (mut found, mut next) = (BTreeSet::new(), ids.to_vec());
        while let Some(id) = next.pop() {
            if found.insert(id) {
                next.extend(self.get(id).into_iter().flat_map(|group| &group.groups));
            }
        }
        found
    }

    /// The group, and all groups that it is in, by whatever way: those whom a change of it changes.
    pub fn around(&self, id: u32) -> BTreeSet<u32> {
        self.groups
            .iter()
            .map(|group| group.id)
            .filter(|outer| self.within(&[*outer]).contains(&id))
            .collect()
    }

    /// The spaces that a change of a group concerns.
    pub fn reached_by(&self, id: u32) -> BTreeMap<[u8; 32], String> {
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
    pub fn create(&mut self, name: &str) -> Result<u32, GroupsError> {
        self.try_change(|groups| {
            if groups.called(name).is_some() {
                return Err(GroupsError::Taken(name.into()));
            }
            let id = groups.next;
            groups.next = id.checked_add(1).ok_or(GroupsError::TooMany)?;
            let (people, within, spaces) = (Vec::new(), Vec::new(), Vec::new());
            groups.groups.push(Group { id, epoch: 1, name: name.into(), people, groups: within, spaces });
            Ok(id)
        })
    }

    /// Deletes a group that nothing names.
    ///
    /// # Errors
    /// [`GroupsError::InUse`].
    pub fn delete(&mut self, id: u32) -> Result<(), GroupsError> {
        let group = self.get(id).ok_or(GroupsError::Missing)?;
        let outer = self.groups.iter().filter(|outer| outer.groups.contains(&id));
        let spaces = group.spaces.iter().map(|space| format!("the space {}", space.path));
        let by: Vec<String> = spaces.chain(outer.map(|outer| format!("the group {}", outer.name))).collect();
        if !by.is_empty() {
            return Err(GroupsError::InUse { name: group.name.clone(), by });
        }
        self.groups.retain(|group| group.id != id);
        Ok(())
    }

    /// Puts somebody into a group. Whether he was not in it by himself.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub fn add(&mut self, id: u32, who: InGroup) -> Result<bool, GroupsError> {
        self.try_change(|groups| {
            let group = groups.get_mut(id)?;
            let is_new = match who {
                InGroup::Person(key) if !group.people.contains(&key) => {
                    group.people.push(key);
                    true
                }
                InGroup::Group(inner) if !group.groups.contains(&inner) => {
                    group.groups.push(inner);
                    true
                }
                _ => false,
            };
            if let InGroup::Group(inner) = who
                && groups.get(inner).is_none()
            {
                return Err(GroupsError::Missing);
            }
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
    pub fn remove(&mut self, id: u32, who: InGroup) -> Result<bool, GroupsError> {
        let group = self.get_mut(id)?;
        let before = group.people.len() + group.groups.len();
        match who {
            InGroup::Person(key) => group.people.retain(|known| *known != key),
            InGroup::Group(inner) => group.groups.retain(|known| *known != inner),
        }
        let is_out = group.people.len() + group.groups.len() < before;
        if is_out {
            self.rise(id);
        }
        Ok(is_out)
    }

    /// Takes whoever `is_gone` out of all groups. Whether anybody was in one.
    pub fn forget(&mut self, is_gone: impl Fn(&PublicKey) -> bool) -> bool {
        let with: Vec<u32> = self
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
        !with.is_empty()
    }

    /// Notes that exactly `ids` are named by the list of a space. Whether that is news.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub fn named_by(
        &mut self,
        register: &RegisterAddress,
        path: &str,
        ids: &BTreeSet<u32>,
    ) -> Result<bool, GroupsError> {
        self.try_change(|groups| {
            let mut is_news = false;
            let from = path.ceil_char_boundary(path.len().saturating_sub(PATH_SIZE_MAX));
            for group in &mut groups.groups {
                let known = group.spaces.iter().any(|space| space.register == register.0);
                match ids.contains(&group.id) {
                    true if !known => {
                        group.spaces.push(Named { register: register.0, path: path[from..].into() });
                    }
                    false if known => group.spaces.retain(|space| space.register != register.0),
                    _ => continue,
                }
                is_news = true;
            }
            Ok(is_news)
        })
    }

    fn get_mut(&mut self, id: u32) -> Result<&mut Group, GroupsError> {
        self.groups.iter_mut().find(|group| group.id == id).ok_or(GroupsError::Missing)
    }

    /// Who is in a group, and in those around it, has changed.
    fn rise(&mut self, id: u32) {
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
        if self.groups.len() > GROUPS_MAX {
            return Err(GroupsError::TooMany);
        }
        for (at, group) in self.groups.iter().enumerate() {
            let is_twice = |other: &Group| other.id == group.id || other.name == group.name;
            if self.groups[..at].iter().any(is_twice) || group.id >= self.next {
                return Err(GroupsError::Taken(group.name.clone()));
            }
            if !is_name(&group.name) {
                return Err(GroupsError::Name);
            }
            let is_crowded = group.people.len() > PEOPLE_MAX
                || group.groups.len() > GROUPS_IN_MAX
                || group.spaces.len() > SPACES_MAX;
            if is_crowded || self.people_of(group.id).len() > PEOPLE_MAX {
                return Err(GroupsError::Crowded(group.name.clone()));
            }
            if group.groups.iter().any(|inner| self.get(*inner).is_none()) {
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
    fn depth(&self, id: u32, known: &mut BTreeMap<u32, usize>) -> usize {
        if let Some(depth) = known.get(&id) {
            return *depth;
        }
        let inner = self.get(id).map_or(&[][..], |group| &group.groups);
        let depth = 1 + inner.iter().map(|inner| self.depth(*inner, known)).max().unwrap_or(0);
        known.insert(id, depth);
        depth
    }
}

/// Whether it can be a group's name: it is shown as it is, and said on command lines.
pub fn is_name(name: &str) -> bool {
    let is_plain = printable(name) == name && !name.contains(char::is_whitespace);
    !name.is_empty() && name.len() <= NAME_SIZE_MAX && is_plain
}

/// The salt of the register that has the groups of the drive with this salt: no other register of its owner's passes for it.
pub fn salt(drive: &[u8; 32]) -> [u8; 32] {
    sha3_256(&[b"hypha groups", drive])
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
        let is_its = genesis.owner == *owner && genesis.salt == salt(drive) && genesis.writers.is_empty();
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
