//! Who may read and write the drive, beside the user whose it is.
//!
//! Two lists say so, and one swap of the drive's root changes both: the root names its readers and is sealed to them
//! (`filesystem::access::sharing`), and the register's access list names its writers, whom the nodes obey. Only the owner of
//! the volume signs that list, so only his home shares the drive.
//!
//! **Whoever takes somebody off says who stays, and not who goes.** Whoever writes may put keys on the list of readers, so
//! that one from which a key was struck may have another of the same person's. The roll says who stays. But the list of
//! writers is signed by the owner, so one who is on it, is not revoked and not on the roll was let in by another copy of the
//! owner's home, and this one's roll is older: then only those are taken off who are meant, and that is said.
//!
//! Not here: what anybody may do on the nodes, which passports say.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, Client, Record, RegisterAddress};
use filesystem::access::sharing::{ReadersChange, change_readers, put_back};
use filesystem::access::{Charter, Root, VolumeKeys, open_root};
use overlay::invitation::InvitedAs;
use overlay::{Node, Revocations};
use reactor::cell::RefCell;
use reactor::crypto::{PublicKey, X25519Public};

use crate::client_directory;
use crate::errors::Failure;
use crate::home::Home;
use crate::identity::Member;
use crate::network::{Hex, Network};
use crate::roll::{LetIn, Roll};
use crate::seen;
use crate::volume;

/// How long it is asked who keeps the root of the drive by now.
const KEEPERS_LIMIT: Duration = Duration::from_secs(5);

/// What it takes to share the drive.
pub(crate) struct Sharer<'a> {
    pub(crate) home: &'a Home,
    pub(crate) network: &'a Network,
    pub(crate) store: &'a Client<Rc<Node>>,
    pub(crate) user: &'a Member,
}

/// What the drive is to be again, and what keeps what it is.
type Back<'a> = (&'a Root, &'a dyn Fn(&Record) -> Result<(), Failure>);

/// Who was on one of the lists and is not to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Intruder {
    /// A member: its key, and its name.
    Member(Hex<[u8; 32]>, String),
    /// A key that the roll does not have.
    Unknown(String),
}

impl Intruder {
    /// Whether it is this member.
    pub(crate) fn is(&self, member: &LetIn) -> bool {
        matches!(self, Intruder::Member(key, _) if *key == member.key)
    }
}

impl fmt::Display for Intruder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Intruder::Member(_, name) => {
                write!(f, "{name}, whom the owner did not let in or has removed since,")
            }
            Intruder::Unknown(key) => write!(f, "the key {key}, which nobody on this home's roll has,"),
        }
    }
}

impl Sharer<'_> {
    /// Lets `member` read the drive, and write to it if it is a writer.
    ///
    /// # Errors
    /// `Failure::Sharing`, or those of the network's description.
    ///
    /// # Suspends
    /// Until the drive's root says so.
    pub(crate) fn let_in(&self, member: &LetIn) -> Result<(), Failure> {
        let keys = self.keys()?;
        let (key, sealing_key) = keys_of(member);
        let may_write = member.role == InvitedAs::Writer;
        let read = |charter: &mut Charter| {
            enter(&mut charter.readers, sealing_key);
            let writers = self.store.writers(&keys.register).map_err(|error| error.to_string())?;
            Ok(may_write && !writers.contains(&key))
        };
        let write = |writers: &mut Vec<PublicKey>| {
            if may_write {
                enter(writers, key);
            }
        };
        self.change(&keys, &read, &write)
    }

    /// Takes whoever is revoked off the drive, and those whom nobody let in, under a new key. Says who these were. The root is
    /// written anew in any case: a swap that let somebody in may be undecided yet, and a newer value decides it.
    ///
    /// # Errors
    /// `Failure::Sharing`, or those of the home's files.
    ///
    /// # Suspends
    /// Until the drive's root says so.
    pub(crate) fn put_out(&self, revoked: &Revocations) -> Result<TakenOff, Failure> {
        self.say_who_stays(revoked, None)
    }

    /// Has the drive's root say which register has the groups, if it says none, or `instead_of`: so there is one, also where two of the
    /// owner's machines make it at once. Returns the one that it says then.
    ///
    /// # Errors
    /// `Failure::Sharing`.
    ///
    /// # Suspends
    /// Until the drive's root says so.
    pub(crate) fn name_groups(
        &self,
        genesis: &Signed<Genesis>,
        instead_of: Option<RegisterAddress>,
    ) -> Result<Signed<Genesis>, Failure> {
        let (keys, said) = (self.keys_as_seen()?, RefCell::new(genesis.clone()));
        let (owner, salt) = (self.network.volume_owner(), &self.network.volume_salt.0);
        let name = |charter: &mut Charter| {
            let known = charter.groups(&owner, salt).filter(|known| Some(known.register()) != instead_of);
            let is_new = known.is_none();
            if is_new {
                charter.set_groups(genesis);
            }
            said.replace(known.unwrap_or_else(|| genesis.clone()));
            Ok(is_new)
        };
        self.change(&keys, &name, &|_| {})?;
        Ok(said.into_inner())
    }

    /// Which register has the groups, as the drive's root says.
    ///
    /// # Errors
    /// `Failure::Sharing` if that can't be read.
    ///
    /// # Suspends
    /// While it is read.
    pub(crate) fn groups_named(&self) -> Result<Option<Signed<Genesis>>, Failure> {
        let failed = |reason: String| Failure::Sharing { reason };
        let keys = self.keys_as_seen()?;
        let record = self.store.read(&keys.register).map_err(|error| failed(error.to_string()))?;
        let Some(record) = record else { return Ok(None) };
        let root = open_root(&record.payload, record.version, &keys.secret);
        let charter = root.map_err(|error| failed(error.to_string()))?.charter;
        Ok(charter.groups(&self.network.volume_owner(), &self.network.volume_salt.0))
    }

    /// As [`Sharer::keys`], for what an older root than this home has seen would say wrong: that there are no groups.
    fn keys_as_seen(&self) -> Result<VolumeKeys, Failure> {
        let keys = self.keys()?;
        if let Some((version, hash)) =
            seen::newest(&client_directory::first(self.home.path()), &keys.register)?
        {
            let expecting = self.store.expect_at_least(&keys.register, version, hash);
            expecting.map_err(|error| Failure::Sharing { reason: error.to_string() })?;
        }
        Ok(keys)
    }

    /// Makes a register of the owner's where the drive's root is by now: whoever had that moved elsewhere does not look for each other one.
    ///
    /// # Errors
    /// `Failure::NoNode`, or those of the network's description.
    ///
    /// # Suspends
    /// While it is asked who keeps the drive's root.
    pub(crate) fn new_register(&self, salt: [u8; 32]) -> Result<Signed<Genesis>, Failure> {
        let mut keepers = volume::keepers(self.network, Some(&client_directory::first(self.home.path())))?;
        keepers.follow(self.store, KEEPERS_LIMIT);
        let members = keepers.members().to_vec();
        let made = self.store.create_register_on(salt, Vec::new(), members);
        made.map_err(|error| Failure::NoNode { reason: error.to_string() })
    }

    /// Puts the tree of `past` in the place of the drive's newest one, whatever stands there now; with those who stay, as
    /// [`Sharer::put_out`] has it.
    ///
    /// # Errors
    /// `Failure::Sharing`, or those of the home's files.
    ///
    /// # Suspends
    /// Until the drive's root says so.
    pub(crate) fn put_back(
        &self,
        past: &Root,
        keep: &dyn Fn(&Record) -> Result<(), Failure>,
        revoked: &Revocations,
    ) -> Result<TakenOff, Failure> {
        self.say_who_stays(revoked, Some((past, keep)))
    }

    fn say_who_stays(&self, revoked: &Revocations, back: Option<Back<'_>>) -> Result<TakenOff, Failure> {
        let keys = self.keys()?;
        let named = RefCell::new(Named::default());
        // Asked after the root was read and before it is swapped: a removal in between has the swap fail, and this asked again.
        let read = |charter: &mut Charter| {
            let readers = &mut charter.readers;
            let (home, network) = (self.home.clone(), self.network.clone());
            let both = move || Ok::<_, Failure>((Roll::read(&home)?, home.revocations(&network)?));
            let (roll, kept) = reactor::offload(both).map_err(|failure| failure.to_string())?;
            let is_revoked = |key: &PublicKey| kept.contains(key) || revoked.contains(key);
            let writers = self.store.writers(&keys.register).map_err(|error| error.to_string())?;
            let own = keys.secret.public();
            let others: Vec<X25519Public> = readers.iter().filter(|key| **key != own).copied().collect();
            let now = Named::of(&roll, is_revoked, &others, &writers);
            *readers = [own].into_iter().chain(now.readers.iter().copied()).collect();
            named.replace(now);
            Ok(true)
        };
        let write = |writers: &mut Vec<PublicKey>| writers.clone_from(&named.borrow().writers);
        match back {
            None => self.change(&keys, &read, &write)?,
            Some((past, keep)) => {
                let keep = |newest: &Record| keep(newest).map_err(|failure| failure.to_string());
                let swap = |expected, payload| {
                    self.store.swap_with_writers(&keys.register, Some(expected), &payload, &write)
                };
                let groups = self.groups_known()?;
                // The list of then is the one that is changed: what a thief put there since is none of whom anybody let in.
                let of_then = |charter: &mut Charter, newest: Option<&Charter>| {
                    // Where the groups are is no part of what the drive was.
                    let (owner, salt) = (self.network.volume_owner(), &self.network.volume_salt.0);
                    let named = newest.and_then(|newest| newest.groups(&owner, salt));
                    if let Some(genesis) = named.as_ref().or(groups.as_ref()) {
                        charter.set_groups(genesis);
                    }
                    read(charter).map(drop)
                };
                put_back(self.store, &keys, &self.user.author, past, &keep, &of_then, &swap)
                    .map_err(|error| Failure::Sharing { reason: error.to_string() })?;
            }
        }
        Ok(named.into_inner().beside)
    }

    /// Which register has the groups, as far as this home knows.
    fn groups_known(&self) -> Result<Option<Signed<Genesis>>, Failure> {
        let home = self.home.clone();
        let known = reactor::offload(move || Roll::read(&home))?.groups;
        known.map(|entry| entry.genesis()).transpose()
    }

    /// What it takes to find and read the drive, as this home knows who keeps its root.
    pub(crate) fn keys(&self) -> Result<VolumeKeys, Failure> {
        let seen = client_directory::first(self.home.path());
        volume::keys(self.store, &volume::keepers(self.network, Some(&seen))?, self.user)
    }

    fn change(
        &self,
        keys: &VolumeKeys,
        read: ReadersChange<'_>,
        write: &dyn Fn(&mut Vec<PublicKey>),
    ) -> Result<(), Failure> {
        let swap =
            |expected, payload| self.store.swap_with_writers(&keys.register, Some(expected), &payload, write);
        change_readers(self.store, keys, &self.user.author, read, &swap)
            .map_err(|error| Failure::Sharing { reason: error.to_string() })
    }
}

/// Who else went with those who were meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TakenOff {
    /// These, whom the roll does not name.
    Intruders(Vec<Intruder>),
    /// Nobody: another copy of the owner's home has let somebody in whom this one's roll lacks, so that a reader whom nobody
    /// let in can't be told from one of its.
    Unknown,
}

/// Whom the lists are to name beside the owner.
#[derive(Debug)]
struct Named {
    readers: Vec<X25519Public>,
    writers: Vec<PublicKey>,
    beside: TakenOff,
}

impl Default for Named {
    fn default() -> Named {
        Named { readers: Vec::new(), writers: Vec::new(), beside: TakenOff::Unknown }
    }
}

impl Named {
    /// What becomes of the lists that the root has.
    fn of(
        roll: &Roll,
        is_revoked: impl Fn(&PublicKey) -> bool,
        readers: &[X25519Public],
        writers: &[PublicKey],
    ) -> Named {
        let is_known = |writer: &PublicKey| roll.members.iter().any(|member| member.public_key() == *writer);
        if writers.iter().all(|writer| is_known(writer) || is_revoked(writer)) {
            let mut named = Named::by(roll, is_revoked);
            named.beside = TakenOff::Intruders(named.intruders(roll, readers, writers));
            return named;
        }
        let is_out = |member: &&LetIn| !member.may_be_on_drive || is_revoked(&member.public_key());
        let out: Vec<_> = roll.members.iter().filter(is_out).map(keys_of).collect();
        Named {
            readers: readers.iter().filter(|key| out.iter().all(|(_, out)| out != *key)).copied().collect(),
            writers: writers
                .iter()
                .filter(|key| !is_revoked(key) && out.iter().all(|(out, _)| out != *key))
                .copied()
                .collect(),
            beside: TakenOff::Unknown,
        }
    }

    fn by(roll: &Roll, is_revoked: impl Fn(&PublicKey) -> bool) -> Named {
        let mut named = Named::default();
        for member in &roll.members {
            let (key, sealing_key) = keys_of(member);
            if member.role == InvitedAs::Node || !member.may_be_on_drive || is_revoked(&key) {
                continue;
            }
            enter(&mut named.readers, sealing_key);
            if member.role == InvitedAs::Writer {
                enter(&mut named.writers, key);
            }
        }
        named
    }

    /// Who of those found on the lists is not to be there.
    fn intruders(&self, roll: &Roll, readers: &[X25519Public], writers: &[PublicKey]) -> Vec<Intruder> {
        let mut found: Vec<Intruder> = Vec::new();
        let mut meet = |known: Option<&LetIn>, key: String| {
            let member = known.map(|member| Intruder::Member(member.key.clone(), member.name.clone()));
            let intruder = member.unwrap_or(Intruder::Unknown(key));
            enter(&mut found, intruder);
        };
        for key in readers.iter().filter(|key| !self.readers.contains(key)) {
            let known = roll.members.iter().find(|member| keys_of(member).1 == *key);
            meet(known, Hex(*key.as_bytes()).to_string());
        }
        for key in writers.iter().filter(|key| !self.writers.contains(key)) {
            meet(roll.members.iter().find(|member| keys_of(member).0 == *key), key.to_string());
        }
        found
    }
}

fn keys_of(member: &LetIn) -> (PublicKey, X25519Public) {
    let Hex(sealing_key) = member.sealing_key;
    (member.public_key(), X25519Public::from_bytes(sealing_key))
}

fn enter<T: PartialEq>(list: &mut Vec<T>, one: T) {
    if !list.contains(&one) {
        list.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8, role: InvitedAs, may_be_on_drive: bool) -> LetIn {
        let identity = reactor::crypto::Identity::from_seed(&[number; 32]);
        LetIn {
            key: Hex(*identity.public_key().as_bytes()),
            sealing_key: Hex([number; 32]),
            name: format!("member {number}"),
            role,
            since: 0,
            ticket: Hex([9; 32]),
            number: None,
            may_be_on_drive,
            passport: None,
        }
    }

    #[test]
    fn the_roll_says_who_stays_on_the_drive_and_a_planted_key_goes() {
        let (reader, writer) = (member(1, InvitedAs::Reader, true), member(2, InvitedAs::Writer, true));
        let (removed, revoked) = (member(3, InvitedAs::Writer, false), member(4, InvitedAs::Writer, true));
        let node = member(5, InvitedAs::Node, true);
        let roll = Roll {
            members: [&reader, &writer, &removed, &revoked, &node].map(Clone::clone).to_vec(),
            ..Roll::default()
        };
        let named = Named::by(&roll, |key| *key == revoked.public_key());
        let sealing_keys =
            |members: &[&LetIn]| members.iter().map(|member| keys_of(member).1).collect::<Vec<_>>();
        assert_eq!(named.readers, sealing_keys(&[&reader, &writer]));
        assert_eq!(named.writers, [writer.public_key()]);
        assert_eq!(named.intruders(&roll, &named.readers, &named.writers), []);
        // A key that a writer planted; one who was removed and is back; a reader who would write.
        let planted = X25519Public::from_bytes([77; 32]);
        let mut readers = sealing_keys(&[&reader, &removed]);
        readers.push(planted);
        let is_revoked = |key: &PublicKey| *key == revoked.public_key();
        let named = Named::of(&roll, is_revoked, &readers, &[removed.public_key(), reader.public_key()]);
        assert_eq!(
            (named.readers, named.writers),
            (sealing_keys(&[&reader, &writer]), vec![writer.public_key()])
        );
        let TakenOff::Intruders(found) = named.beside else { panic!("the roll has everybody") };
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].is(&removed) && found[2].is(&reader));
        assert_eq!(found[1], Intruder::Unknown(Hex([77; 32]).to_string()));
    }

    #[test]
    fn a_copy_of_the_home_with_an_older_roll_takes_off_nobody_but_whom_it_removes() {
        let (reader, writer) = (member(1, InvitedAs::Reader, true), member(2, InvitedAs::Writer, true));
        let elsewhere = member(3, InvitedAs::Writer, true);
        let roll = Roll { members: vec![reader.clone(), writer.clone()], ..Roll::default() };
        let all = [&reader, &writer, &elsewhere];
        let readers: Vec<_> = all.iter().map(|member| keys_of(member).1).collect();
        let writers = [writer.public_key(), elsewhere.public_key()];
        let named = Named::of(&roll, |key| *key == writer.public_key(), &readers, &writers);
        assert_eq!(named.readers, [readers[0], readers[2]]);
        assert_eq!(named.writers, [elsewhere.public_key()]);
        assert_eq!(named.beside, TakenOff::Unknown);
        // Revoked by the other copy: the list of the revoked says so everywhere.
        let named = Named::of(&roll, |key| *key == elsewhere.public_key(), &readers, &writers);
        assert_eq!(named.writers, [writer.public_key()]);
        assert!(matches!(named.beside, TakenOff::Intruders(_)));
    }
}
