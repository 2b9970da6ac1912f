//! Who may read and write a space, since when and by whose word: a list that the space's owner signs.
//!
//! It says what was changed, oldest first, so that it is its own log; who may do what now follows from it. It lies in the space's
//! root, where those who read the space see it and nobody else, and it changes with the root's readers and the register's
//! writers in one value. So whoever opens the root can tell a reader whom the owner let in from one whom a writer planted.
//!
//! An extension of kind 3: `Signed<AccessList>` as bytes. Each list has a number one above that of the list before; the owner's
//! home keeps the newest that it made, and goes on from no older one.
//!
//! A group (`groups`) is on it with the epoch that it was expanded by, and its people are on it as if each had been named: so nodes and
//! readers trust nobody new. What somebody may do he may by his own name, by groups, or both; it is the most of these.
//!
//! Not here: that writers obey it, which the nodes see to by the register's list.

use bytes::Bytes;
use dht::RegisterAddress;
use dht::block::signed::Signed;
use reactor::crypto::{PublicKey, X25519Public};
use reactor::serialization::{Content, EnvelopeError, Versioned};
use serde::{Deserialize, Serialize};

use super::groups::GroupId;
use super::root::{Charter, Extension, Features};
use crate::format::printable;

pub(super) const KIND: u16 = 3;

/// The owner, and 64 others: their names and sealed keys leave most of a register's 64 KiB to the root.
pub const PEOPLE_MAX: usize = 65;
/// So many changes are remembered, or fewer, where they would take more than 24 KiB.
pub const CHANGES_MAX: usize = 128;
/// Bytes that they take at most, of a register's 64 KiB. Those who may do something take less, were each name the longest, and each of
/// them in as many groups as are on the list.
const CHANGES_SIZE_MAX: usize = 24 * 1024;
/// So many groups may be on a space's list.
pub const LISTED_GROUPS_MAX: usize = 8;
/// The longest path that a space is put at, in bytes.
pub const PATH_SIZE_MAX: usize = 4096;
/// Bytes of a name that are kept.
const NAME_SIZE_MAX: usize = 64;

/// What somebody may do in a space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Access {
    /// Nothing any more.
    None,
    /// Read it.
    Read,
    /// Read and change it.
    Write,
}

/// That somebody may do something else from a moment on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessChange {
    /// Who it is.
    pub key: PublicKey,
    /// What the space's root is sealed to for them.
    #[serde(with = "serde_bytes")]
    pub sealing_key: [u8; 32],
    /// What they were called then.
    pub name: String,
    /// What they may do from then on.
    pub access: Access,
    /// What of that by their own name.
    pub own: Access,
    /// By which groups of the list, by their ids, in order.
    pub by: Vec<GroupId>,
    /// When that was, in seconds since 1970, by the clock of the owner's machine.
    pub at: u64,
}

impl AccessChange {
    /// Whether both say that the same may be done, and by what.
    fn says_as(&self, other: &AccessChange) -> bool {
        (self.access, self.own, &self.by) == (other.access, other.own, &other.by)
    }

    /// Bytes that it takes at most: two keys, the fields' names and what numbers and words take, a name, and groups.
    fn size(&self) -> usize {
        136 + self.name.len() + 9 * self.by.len()
    }
}

/// That a group's people may do something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedGroup {
    /// Which group of the owner's.
    pub id: GroupId,
    /// What it was called then.
    pub name: String,
    /// Which of its states the list stands for.
    pub epoch: u64,
    /// What whoever is in it may do, unless he may read only anyway.
    pub access: Access,
}

/// See the file's header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessList {
    /// Whose register's list it is.
    #[serde(with = "serde_bytes")]
    pub register: [u8; 32],
    /// Where its owner put it, within the drive: so that nobody takes one space for another.
    pub path: String,
    /// One more than that of the list before.
    pub number: u64,
    /// The last of them, oldest first; among them the last one of everybody who may do something.
    pub changes: Vec<AccessChange>,
    /// The groups that are on it, in the order of their ids.
    pub groups: Vec<ListedGroup>,
}

impl Versioned for AccessList {
    const TYPE_NAME: &'static str = "hypha space list";
    /// 2: there are groups.
    const VERSION: u32 = 2;
    /// A program that knows of no groups finds whoever is in them on the list as if each had been named: it obeys the list, and shows it. What
    /// it must not do is to say the next one, which would name them all; a root whose list has groups says so ([`Features::GROUPS`]).
    const READABLE_SINCE: u32 = 1;

    fn upgrade(version: u32, content: Content<'_>) -> Result<AccessList, EnvelopeError> {
        #[derive(Deserialize)]
        struct Change {
            key: PublicKey,
            #[serde(with = "serde_bytes")]
            sealing_key: [u8; 32],
            name: String,
            access: Access,
            at: u64,
        }
        #[derive(Deserialize)]
        struct List {
            #[serde(with = "serde_bytes")]
            register: [u8; 32],
            path: String,
            number: u64,
            changes: Vec<Change>,
        }
        if version != 1 {
            return Err(content.too_old());
        }
        let List { register, path, number, changes } = content.decode()?;
        let change = |Change { key, sealing_key, name, access, at }| AccessChange {
            key,
            sealing_key,
            name,
            access,
            own: access,
            by: Vec::new(),
            at,
        };
        let changes = changes.into_iter().map(change).collect();
        Ok(AccessList { register, path, number, changes, groups: Vec::new() })
    }
}

/// Too many would be on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "at most {} others may be on a space's list, and {LISTED_GROUPS_MAX} groups: take some off first",
    PEOPLE_MAX - 1
)]
pub struct TooMany;

impl AccessList {
    /// The list of a new space at `path`, on which nobody is.
    pub fn new(register: RegisterAddress, path: &str) -> AccessList {
        AccessList {
            register: register.0,
            path: path.into(),
            number: 0,
            changes: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// The last change of each who may do something, in the order of these changes.
    pub fn present(&self) -> impl Iterator<Item = &AccessChange> {
        let is_last =
            |at: usize, key: &PublicKey| self.changes[at + 1..].iter().all(|later| later.key != *key);
        let last = self.changes.iter().enumerate().filter(move |(at, change)| is_last(*at, &change.key));
        last.map(|(_, change)| change).filter(|change| change.access != Access::None)
    }

    /// What the space is called in the directory that it was put into; that is never changed.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// What `key` may do.
    pub fn access_of(&self, key: &PublicKey) -> Access {
        self.last_of(key).map_or(Access::None, |change| change.access)
    }

    /// What whoever reads it with `sealing_key` may do.
    pub fn access_by(&self, sealing_key: &X25519Public) -> Access {
        let of_key = |change: &&AccessChange| change.sealing_key == *sealing_key.as_bytes();
        self.present().filter(of_key).map(|change| change.access).max().unwrap_or(Access::None)
    }

    /// Whether `key` was ever on it, as far as it remembers.
    pub fn knows(&self, key: &PublicKey) -> bool {
        self.changes.iter().any(|change| change.key == *key)
    }

    fn last_of(&self, key: &PublicKey) -> Option<&AccessChange> {
        self.changes.iter().rev().find(|change| change.key == *key)
    }

    /// What the groups are called by which somebody is on it.
    pub fn names_of<'a>(&'a self, change: &'a AccessChange) -> impl Iterator<Item = &'a str> {
        let groups = self.groups.iter().filter(|group| change.by.contains(&group.id));
        groups.map(|group| group.name.as_str())
    }

    /// The last change of each of whom this says something else than `before` does. Two changes may be alike to the second, so that they
    /// do not tell.
    pub fn changed_since(&self, before: &AccessList) -> Vec<AccessChange> {
        let is_last = |at: usize, change: &AccessChange| {
            self.changes[at + 1..].iter().all(|later| later.key != change.key)
        };
        let is_news = |change: &AccessChange| match before.last_of(&change.key) {
            Some(known) => !known.says_as(change),
            None => change.access != Access::None,
        };
        let changes = self.changes.iter().enumerate();
        let changed = changes.filter(|(at, change)| is_last(*at, change) && is_news(change));
        changed.map(|(_, change)| change.clone()).collect()
    }

    /// Adds a change, unless that changes nothing. The number stays: a list that is another one gets another.
    ///
    /// # Errors
    ///
    /// [`TooMany`]; then nothing was added.
    pub fn change(&mut self, mut change: AccessChange) -> Result<(), TooMany> {
        match self.last_of(&change.key) {
            Some(known) if known.says_as(&change) => return Ok(()),
            None if change.access == Access::None => return Ok(()),
            _ => {}
        }
        let is_new = self.access_of(&change.key) == Access::None;
        if is_new && change.access != Access::None && self.present().count() >= PEOPLE_MAX {
            return Err(TooMany);
        }
        change.name.truncate(change.name.floor_char_boundary(NAME_SIZE_MAX));
        self.changes.push(change);
        self.forget_oldest();
        Ok(())
    }

    /// Forgets changes that say nothing of now, the oldest first, until it is bounded: fewer may do something than are remembered.
    fn forget_oldest(&mut self) {
        let is_too_long = |changes: &[AccessChange]| {
            let size: usize = changes.iter().map(AccessChange::size).sum();
            changes.len() > CHANGES_MAX || size > CHANGES_SIZE_MAX
        };
        while is_too_long(&self.changes) {
            let is_past = |at: usize| {
                let change = &self.changes[at];
                let is_last = self.changes[at + 1..].iter().all(|later| later.key != change.key);
                !is_last || change.access == Access::None
            };
            let Some(at) = (0..self.changes.len() - 1).find(|at| is_past(*at)) else { return };
            self.changes.remove(at);
        }
    }

    /// To whom the space's root is sealed.
    pub fn readers(&self) -> Vec<X25519Public> {
        self.present().map(|change| X25519Public::from_bytes(change.sealing_key)).collect()
    }

    /// Who may write, beside `owner`.
    pub fn writers(&self, owner: &PublicKey) -> Vec<PublicKey> {
        let writers = self.present().filter(|change| change.access == Access::Write && change.key != *owner);
        writers.map(|change| change.key).collect()
    }
}

/// What a root says of who may do what.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// This; `Signed::verify_by` the owner, and of this register.
    List(Signed<AccessList>),
    /// Nothing: it is no space's, or its making was cut short.
    Nothing,
    /// Something that the owner did not sign for this space: a writer put it there.
    Forged,
}

pub(super) fn decode(value: &[u8]) -> Option<Signed<AccessList>> {
    let list = Signed::<AccessList>::from_bytes(value).ok()?;
    let is_bounded = list.changes.len() <= CHANGES_MAX
        && list.path.len() <= PATH_SIZE_MAX
        && list.groups.len() <= LISTED_GROUPS_MAX
        && list.changes.iter().all(|change| change.by.len() <= LISTED_GROUPS_MAX)
        && list.present().count() <= PEOPLE_MAX;
    let is_printable = |name: &str| name.len() <= NAME_SIZE_MAX && printable(name) == name;
    let mut names =
        list.changes.iter().map(|change| &change.name).chain(list.groups.iter().map(|group| &group.name));
    (is_bounded && names.all(|name| is_printable(name))).then_some(list)
}

impl Charter {
    /// The list that `owner` signed for the space in `register`.
    pub fn access_list(&self, owner: &PublicKey, register: &RegisterAddress) -> Found {
        let Some(extension) = self.extensions.iter().find(|extension| extension.kind == KIND) else {
            return Found::Nothing;
        };
        let list = decode(&extension.value).filter(|list| list.register == register.0);
        match list.filter(|list| list.verify_by(owner).is_ok()) {
            Some(list) => Found::List(list),
            None => Found::Forged,
        }
    }

    /// Puts `list` in the place of the one before, and its readers in that of those before. If groups are on it the features say so.
    pub fn set_access_list(&mut self, list: &Signed<AccessList>) {
        self.features.read_compatible &= !Features::GROUPS;
        if !list.groups.is_empty() {
            self.features.read_compatible |= Features::GROUPS;
        }
        self.extensions.retain(|extension| extension.kind != KIND);
        self.extensions.push(Extension { kind: KIND, value: Bytes::from(list.to_bytes()) });
        self.readers = list.readers();
    }

    /// Has who may do what be what `newest` says of it: a volume that goes back to what it was lets nobody in again by that.
    pub fn take_access_of(&mut self, newest: &Charter) {
        self.extensions.retain(|extension| extension.kind != KIND);
        let list = newest.extensions.iter().filter(|extension| extension.kind == KIND);
        self.extensions.extend(list.cloned());
        self.readers.clone_from(&newest.readers);
        self.features.read_compatible &= !Features::GROUPS;
        self.features.read_compatible |= newest.features.read_compatible & Features::GROUPS;
    }
}

#[cfg(test)]
mod tests {
    use reactor::crypto::Identity;

    use super::*;
    use crate::access::root::example;

    const REGISTER: RegisterAddress = RegisterAddress([9; 32]);

    fn who(number: u8) -> PublicKey {
        Identity::from_seed(&[number; 32]).public_key()
    }

    fn may(number: u8, access: Access, at: u64) -> AccessChange {
        let (key, sealing_key) = (who(number), [number; 32]);
        AccessChange {
            key,
            sealing_key,
            name: format!("no {number}"),
            access,
            own: access,
            by: Vec::new(),
            at,
        }
    }

    #[test]
    fn who_may_do_what_is_what_was_said_of_them_last() {
        let mut list = AccessList::new(REGISTER, "a/docs");
        for change in [
            may(1, Access::Write, 1),
            may(2, Access::Read, 2),
            may(3, Access::Write, 3),
            may(2, Access::Write, 4),
            may(3, Access::None, 5),
            may(2, Access::Write, 6),
            may(4, Access::None, 7),
        ] {
            list.change(change).unwrap();
        }
        assert_eq!(list.changes.len(), 5, "what changes nothing is no change");
        assert_eq!(list.present().map(|change| change.at).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(list.readers(), [[1; 32], [2; 32]].map(X25519Public::from_bytes));
        assert_eq!(list.writers(&who(1)), [who(2)]);
        assert!(list.knows(&who(3)) && !list.knows(&who(4)));
        assert_eq!(list.name(), "docs");
    }

    #[test]
    fn what_a_list_changed_is_told_though_all_was_said_before_in_the_same_second() {
        let mut list = AccessList::new(REGISTER, "a/docs");
        for access in [Access::Write, Access::None, Access::Write] {
            list.change(may(2, access, 7)).unwrap();
        }
        let before = list.clone();
        assert_eq!(list.changed_since(&before), []);
        list.change(may(2, Access::None, 7)).unwrap();
        list.change(may(3, Access::Read, 7)).unwrap();
        assert_eq!(list.changed_since(&before), [may(2, Access::None, 7), may(3, Access::Read, 7)]);
    }

    #[test]
    fn a_list_stays_bounded_and_forgets_nobody_who_may_do_something() {
        let mut list = AccessList::new(REGISTER, "a/docs");
        list.change(may(0, Access::Write, 0)).unwrap();
        for number in 1..PEOPLE_MAX as u8 {
            list.change(may(number, Access::Read, 1)).unwrap();
        }
        assert_eq!(list.change(may(250, Access::Read, 1)), Err(TooMany));
        for at in 2..1000 {
            let access = if at % 2 == 0 { Access::None } else { Access::Write };
            list.change(may(7, access, at)).unwrap();
            assert!(list.changes.len() <= CHANGES_MAX);
            assert_eq!(list.access_of(&who(7)), access);
        }
        assert_eq!(list.present().count(), PEOPLE_MAX);
        assert_eq!(list.changes.last().unwrap().at, 999);
        let owner = Identity::from_seed(&[0; 32]);
        let bytes = Signed::sign(&owner, list).to_bytes();
        assert!(bytes.len() < 20 * 1024 && decode(&bytes).is_some(), "{}", bytes.len());
    }

    #[test]
    fn by_which_groups_somebody_is_on_it_is_a_change_of_its_own_and_the_list_stays_small() {
        let mut list = AccessList::new(REGISTER, "a/docs");
        let by = |number, own, by: &[u64], at| {
            let access = if by.is_empty() { own } else { Access::Write };
            AccessChange { own, by: by.iter().copied().map(GroupId).collect(), ..may(number, access, at) }
        };
        list.change(by(1, Access::Write, &[], 1)).unwrap();
        list.change(by(1, Access::Write, &[], 2)).unwrap();
        list.change(by(1, Access::Write, &[3], 3)).unwrap();
        list.change(by(1, Access::None, &[3], 4)).unwrap();
        assert_eq!(list.changes.iter().map(|change| change.at).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(list.access_of(&who(1)), Access::Write);
        let group = |id| ListedGroup {
            id: GroupId(id),
            name: "g".repeat(56),
            epoch: u64::MAX,
            access: Access::Write,
        };
        list.groups = (1..=LISTED_GROUPS_MAX as u64).map(|id| group(u64::MAX - id)).collect();
        list.changes.clear();
        for own in [Access::Read, Access::None] {
            for number in 0..PEOPLE_MAX as u8 {
                let ids: Vec<u64> = list.groups.iter().map(|group| group.id.0).collect();
                let change =
                    AccessChange { name: "n".repeat(NAME_SIZE_MAX), ..by(number, own, &ids, u64::MAX) };
                list.change(change).unwrap();
            }
        }
        assert!((PEOPLE_MAX..CHANGES_MAX).contains(&list.changes.len()), "{}", list.changes.len());
        assert!(
            list.present().count() == PEOPLE_MAX && list.present().all(|change| change.own == Access::None)
        );
        // With all that may be beside it the root fits its register.
        list.path = "p".repeat(PATH_SIZE_MAX);
        let owner = Identity::from_seed(&[0; 32]);
        let signed = Signed::sign(&owner, list.clone());
        let bytes = signed.to_bytes();
        assert!(bytes.len() < CHANGES_SIZE_MAX + PATH_SIZE_MAX + 2048, "{}", bytes.len());
        assert!(decode(&bytes).is_some());
        let secrets = (0..PEOPLE_MAX).map(|_| reactor::crypto::X25519Secret::generate().public()).collect();
        let mut root = example(secrets);
        for number in 0..=u8::MAX {
            root.objects.add(&crate::format::Pointer::example([number; 32], 2, 320));
        }
        root.charter.extensions.push(Extension { kind: KIND, value: bytes.into() });
        root.charter.extensions.push(Extension { kind: 1, value: vec![0; 9 * 1024].into() });
        let sealed = crate::access::RootSealer::new().seal(&root);
        assert!(sealed.len() <= 64 * 1024, "{}", sealed.len());
        list.groups.push(group(1));
        assert!(decode(&Signed::sign(&owner, list).to_bytes()).is_none());
    }

    /// As a version without groups has it.
    #[derive(Serialize, Deserialize)]
    struct Change {
        key: PublicKey,
        #[serde(with = "serde_bytes")]
        sealing_key: [u8; 32],
        name: String,
        access: Access,
        at: u64,
    }

    #[derive(Serialize, Deserialize)]
    struct List {
        #[serde(with = "serde_bytes")]
        register: [u8; 32],
        path: String,
        number: u64,
        changes: Vec<Change>,
    }

    impl Versioned for List {
        const TYPE_NAME: &'static str = "hypha space list";
        const VERSION: u32 = 1;
    }

    #[test]
    fn a_version_without_groups_obeys_a_list_with_some_and_is_kept_from_writing_its_root() {
        let owner = Identity::from_seed(&[0; 32]);
        let mut list = AccessList::new(REGISTER, "a/docs");
        list.change(AccessChange { own: Access::None, by: vec![GroupId(7)], ..may(2, Access::Read, 3) })
            .unwrap();
        list.number = 4;
        let mut charter = example(Vec::new()).charter;
        let forbids = |charter: &Charter| charter.features.read_compatible & Features::GROUPS != 0;
        charter.features.read_compatible = 0;
        let without = Signed::sign(&owner, list.clone());
        charter.set_access_list(&without);
        assert!(!forbids(&charter), "as long as no group is on it, whoever knows none may say the next one");
        list.groups = vec![ListedGroup { id: GroupId(7), name: "g".into(), epoch: 1, access: Access::Read }];
        let with = Signed::sign(&owner, list.clone());
        for signed in [&without, &with] {
            let read = Signed::<List>::from_bytes(&signed.to_bytes()).unwrap();
            assert!(read.verify_by(&owner.public_key()).is_ok());
            let on_it: Vec<_> = read.changes.iter().map(|change| (change.key, change.access)).collect();
            assert_eq!((read.number, on_it), (4, vec![(who(2), Access::Read)]));
        }
        charter.set_access_list(&with);
        assert!(forbids(&charter));
        // With the list it goes into a root that is put back, and goes with it.
        let mut past = example(Vec::new()).charter;
        past.features.read_compatible = 0;
        past.take_access_of(&charter);
        assert!(forbids(&past));
        charter.set_access_list(&without);
        past.take_access_of(&charter);
        assert!(!forbids(&charter) && !forbids(&past));
    }

    #[test]
    fn what_a_version_without_groups_signed_is_each_ones_own_access() {
        let AccessChange { key, sealing_key, name, access, at, .. } = may(2, Access::Read, 7);
        let changes = vec![Change { key, sealing_key, name, access, at }];
        let list = List { register: REGISTER.0, path: "a/docs".into(), number: 3, changes };
        let owner = Identity::from_seed(&[0; 32]);
        let read = decode(&Signed::sign(&owner, list).to_bytes()).unwrap();
        assert!(read.verify_by(&owner.public_key()).is_ok());
        assert_eq!((read.number, &read.changes, read.groups.len()), (3, &vec![may(2, Access::Read, 7)], 0));
    }

    #[test]
    fn a_list_is_the_owners_word_for_one_space_or_it_is_told() {
        let (owner, writer) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let mut charter = example(Vec::new()).charter;
        let others = charter.extensions.clone();
        assert_eq!(charter.access_list(&owner.public_key(), &REGISTER), Found::Nothing);
        let mut list = AccessList::new(REGISTER, "a/docs");
        list.change(may(1, Access::Write, 1)).unwrap();
        let signed = Signed::sign(&owner, list.clone());
        charter.set_access_list(&signed);
        charter.set_access_list(&signed);
        assert_eq!(charter.extensions.len(), others.len() + 1);
        assert_eq!(charter.readers, list.readers());
        assert_eq!(charter.access_list(&owner.public_key(), &REGISTER), Found::List(signed));
        let elsewhere = RegisterAddress([8; 32]);
        assert_eq!(charter.access_list(&owner.public_key(), &elsewhere), Found::Forged);
        charter.set_access_list(&Signed::sign(&writer, list.clone()));
        assert_eq!(charter.access_list(&owner.public_key(), &REGISTER), Found::Forged);
        // Names are shown to people.
        list.changes[0].name = "a\u{1b}[2Jb".into();
        charter.set_access_list(&Signed::sign(&owner, list));
        assert_eq!(charter.access_list(&owner.public_key(), &REGISTER), Found::Forged);
    }
}
