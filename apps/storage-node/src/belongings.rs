//! What an owner needs again who has nothing but his key: which network it is, the user's key, and who was let in.
//!
//! This is what nodes keep for him, sealed (`overlay::keepsake`). It says nothing that nodes can tell better: where they
//! are, which passports they have. Who was removed they tell too, but one that is behind would have a member back by that; so
//! that is here as well. It changes when somebody joins or goes or other nodes keep the drive's root, and at few other times.
//!
//! There may be two copies of an owner's home, each with a roll of its own. What both say is put together so that nobody is
//! lost, in whatever order that is done. Not here: how it gets to the nodes and back (`keeping`, `recover`).

use std::cmp::Ordering;
use std::collections::BTreeSet;

use dht::block::configuration::Configuration;
use dht::block::signed::Signed;
use overlay::Revocations;
use reactor::crypto::{Identity, PublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::errors::Failure;
use crate::network::{Hex, Network, VolumeEntry};
use crate::roll::{LetIn, Roll, SpaceEntry};
use crate::volume;

/// Raised when an older program could misread it; 2: the roll has spaces, which a program that knows of none would drop; 3: groups.
const VERSION: u32 = 3;

/// See the file's header. Shown to nobody: it holds the user's seed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Belongings {
    version: u32,
    /// Without addresses.
    pub(crate) network: Network,
    user: Hex<[u8; 32]>,
    /// Without passports: whoever has the owner's key signs others.
    pub(crate) roll: Roll,
    /// Whoever is on the list of the revoked, by key.
    #[serde(default)]
    removed: BTreeSet<Hex<[u8; 32]>>,
}

impl Belongings {
    /// What a home has, at the time `now` in seconds since 1970.
    pub(crate) fn of(
        network: &Network,
        user: &Identity,
        roll: &Roll,
        revoked: &Revocations,
        now: u64,
    ) -> Belongings {
        let (mut network, mut roll) = (network.clone(), roll.clone());
        network.nodes.iter_mut().for_each(|node| node.address = None);
        roll.members.iter_mut().for_each(|member| member.passport = None);
        roll.forget_old_tickets(now);
        let removed = revoked.revoked().iter().map(|entry| Hex(*entry.key.as_bytes())).collect();
        let mut belongings = Belongings { version: VERSION, network, user: Hex(*user.seed()), roll, removed };
        belongings.put_in_order();
        belongings
    }

    /// These, and what `others` say beside; of what both say, these, but for what only ever grows.
    ///
    /// # Errors
    /// `Failure::Volume` if they do not say who keeps the drive's root.
    pub(crate) fn with(mut self, others: Belongings, now: u64) -> Result<Belongings, Failure> {
        if let VolumeEntry::Created { configuration: Some(newest), .. } = &others.network.volume
            && let Ok(newest) = Signed::<Configuration>::from_bytes(&newest.0)
        {
            volume::describe(&mut self.network, &newest)?;
        }
        for other in others.roll.members {
            match self.roll.members.iter_mut().find(|member| member.key == other.key) {
                Some(known) => {
                    let may_be_on_drive = known.may_be_on_drive || other.may_be_on_drive;
                    // Both may have answered one letter: whichever of the two is taken is the same on either side.
                    if (other.since, other.number, &other.name) < (known.since, known.number, &known.name) {
                        *known = LetIn { passport: None, ..other };
                    }
                    known.may_be_on_drive = may_be_on_drive;
                }
                None => self.roll.members.push(LetIn { passport: None, ..other }),
            }
        }
        for other in others.roll.invitations {
            if self.roll.invitations.iter().all(|known| known.ticket != other.ticket) {
                self.roll.invitations.push(other);
            }
        }
        for other in others.roll.spaces {
            let newest = other.configuration()?;
            match self.roll.spaces.iter_mut().find(|space| space.genesis.0 == other.genesis.0) {
                Some(known) => known.merge(other),
                None => self.roll.spaces.push(other),
            }
            if let Some(newest) = newest {
                self.roll.describe(&newest);
            }
        }
        if let Some(other) = others.roll.groups {
            match &mut self.roll.groups {
                Some(known) => known.merge(other)?,
                none => *none = Some(other),
            }
        }
        self.roll.forget_old_tickets(now);
        self.removed.extend(others.removed);
        self.put_in_order();
        Ok(self)
    }

    /// One order, so that the same things are the same bytes.
    fn put_in_order(&mut self) {
        self.roll.members.sort_by_key(|member| (member.since, member.key.0));
        self.roll.invitations.sort_by_key(|ticket| (ticket.issued, ticket.ticket.0));
        self.roll.spaces.sort_by(|one, other| one.genesis.0.cmp(&other.genesis.0));
        for space in &mut self.roll.spaces {
            space.leaving.sort_by_key(|key| key.0);
            space.leaving_groups.sort_unstable();
        }
    }

    /// The user's key.
    pub(crate) fn user(&self) -> Identity {
        Identity::from_seed(&self.user.0)
    }

    /// The keys of whoever was removed.
    pub(crate) fn removed(&self) -> Vec<PublicKey> {
        self.removed.iter().map(|key| PublicKey::from_bytes(key.0)).collect()
    }

    /// As bytes, to be sealed.
    ///
    /// # Errors
    /// `Failure::Internal`.
    pub(crate) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        serde_json::to_vec(self).map(Zeroizing::new).map_err(|error| Failure::Internal(error.to_string()))
    }

    /// Reads what [`Belongings::to_bytes`] wrote.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Belongings, String> {
        let belongings: Belongings = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match belongings.version > VERSION {
            true => Err("a newer storage-node wrote it: use that".into()),
            false => Ok(belongings),
        }
    }
}

impl SpaceEntry {
    /// Takes over what another copy of the home says of the same space, but for who keeps its root.
    fn merge(&mut self, other: SpaceEntry) {
        let is_linked = self.is_linked || other.is_linked;
        // With a later list it is given up no more; should it be, its register says so.
        let is_given_up = match self.number.cmp(&other.number) {
            Ordering::Less => other.is_given_up,
            Ordering::Greater => self.is_given_up,
            Ordering::Equal => self.is_given_up || other.is_given_up,
        };
        // Of two lists the newer one: who was taken off by it stays off. Of one, who is being taken off by either goes.
        if self.number < other.number {
            let configuration = self.configuration.take();
            *self = SpaceEntry { configuration, ..other };
        } else if self.number == other.number {
            self.leaving.extend(other.leaving);
            self.leaving.sort_by_key(|key| key.0);
            self.leaving.dedup();
            self.leaving_groups.extend(other.leaving_groups);
            self.leaving_groups.sort_unstable();
            self.leaving_groups.dedup();
        }
        if is_given_up {
            self.nobody();
        }
        let (leaving, groups) = (&self.leaving, &self.leaving_groups);
        self.people.retain(|allowed| !leaving.contains(&allowed.key));
        self.groups.retain(|allowed| !groups.contains(&allowed.id));
        (self.is_linked, self.is_given_up) = (is_linked, is_given_up);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use overlay::invitation::InvitedAs;

    use super::*;
    use crate::identity::Founding;
    use crate::network::NodeEntry;
    use crate::roll::{Allowed, Invited, Listed};

    fn member(number: u8, may_be_on_drive: bool) -> LetIn {
        LetIn {
            key: Hex([number; 32]),
            sealing_key: Hex([number; 32]),
            name: "ann".into(),
            role: InvitedAs::Writer,
            since: 9,
            ticket: Hex([number; 32]),
            number: None,
            may_be_on_drive,
            passport: Some(Hex(vec![1])),
        }
    }

    fn ticket(number: u8, expires: u64) -> Invited {
        Invited { ticket: Hex([number; 32]), role: InvitedAs::Writer, uses: 1, issued: 0, expires }
    }

    fn network() -> Network {
        let founding = Founding::new();
        let address = Some("127.0.0.1:1".parse().unwrap());
        founding.network(vec![NodeEntry { number: 1, public_key: founding.node_key().1, address }])
    }

    #[test]
    fn what_two_copies_of_a_home_say_becomes_one_in_either_order() {
        let (network, user) = (network(), Identity::from_seed(&[1; 32]));
        let key = |number: u8| Identity::from_seed(&[number; 32]).public_key();
        let of = |members: &[LetIn], tickets: &[Invited], removed: u8| {
            let roll = Roll { members: members.to_vec(), invitations: tickets.to_vec(), ..Roll::default() };
            let revoked = Revocations::default().with(&user, [key(removed)], SystemTime::now()).unwrap();
            Belongings::of(&network, &user, &roll, &revoked, 0)
        };
        let here = || of(&[member(3, false), member(1, true)], &[ticket(1, 50)], 5);
        let there = || {
            let members = [member(2, true), LetIn { since: 8, ..member(3, true) }];
            of(&members, &[ticket(2, 50), ticket(1, 50)], 6)
        };
        let both = here().with(there(), 0).unwrap();
        let keys: Vec<u8> = both.roll.members.iter().map(|member| member.key.0[0]).collect();
        assert_eq!(keys, [3, 1, 2], "by when they came, as the earlier account has it");
        assert!(both.roll.members.iter().all(|member| member.may_be_on_drive && member.passport.is_none()));
        assert_eq!(both.roll.invitations.len(), 2);
        assert!(both.removed().len() == 2 && [5, 6].map(key).iter().all(|key| both.removed().contains(key)));
        let bytes = both.to_bytes().unwrap();
        assert_eq!(there().with(here(), 0).unwrap().to_bytes().unwrap(), bytes);
        assert_eq!(here().with(both, 0).unwrap().to_bytes().unwrap(), bytes, "and then it stays");
    }

    #[test]
    fn it_says_nothing_that_the_nodes_say_and_nothing_of_tickets_long_over() {
        let (network, user) = (network(), Identity::from_seed(&[1; 32]));
        let roll =
            Roll { members: vec![member(1, true)], invitations: vec![ticket(1, 5)], ..Roll::default() };
        let bytes =
            Belongings::of(&network, &user, &roll, &Revocations::default(), 40 * 86_400).to_bytes().unwrap();
        let read = Belongings::from_bytes(&bytes).unwrap();
        assert!(read.network.addresses().is_empty() && read.roll.invitations.is_empty());
        assert_eq!(read.roll.members[0].passport, None);
        assert_eq!((read.network.owner, read.user), (network.owner, Hex([1; 32])));
    }

    #[test]
    fn what_a_newer_program_wrote_is_not_guessed_at() {
        let (network, user) = (network(), Identity::from_seed(&[1; 32]));
        let mut newer = Belongings::of(&network, &user, &Roll::default(), &Revocations::default(), 0);
        newer.version += 1;
        assert!(Belongings::from_bytes(&newer.to_bytes().unwrap()).is_err());
        assert!(Belongings::from_bytes(b"{}").is_err());
    }

    #[test]
    fn who_is_being_taken_off_a_space_and_that_it_was_given_up_is_forgotten_by_no_copy() {
        let allowed = |number: u8| Allowed { key: Hex([number; 32]), may_write: true };
        let space = |number, people: &[u8], leaving: &[u8], is_given_up| SpaceEntry {
            genesis: Hex(vec![1]),
            path: "band".into(),
            is_linked: true,
            configuration: None,
            number,
            people: people.iter().copied().map(allowed).collect(),
            groups: Vec::new(),
            leaving: leaving.iter().map(|number| Hex([*number; 32])).collect(),
            leaving_groups: Vec::new(),
            listed: Listed::default(),
            is_given_up,
        };
        let merged = |mut one: SpaceEntry, other: &SpaceEntry| {
            one.merge(other.clone());
            one
        };
        let both = |one: SpaceEntry, other: SpaceEntry| {
            let merged = [merged(one.clone(), &other), merged(other, &one)];
            assert_eq!(merged[0], merged[1], "in either order");
            merged[0].clone()
        };
        assert_eq!(
            both(space(3, &[7], &[8], false), space(3, &[7, 8], &[], false)),
            space(3, &[7], &[8], false)
        );
        assert_eq!(
            both(space(3, &[7], &[8], false), space(4, &[7, 8], &[], false)),
            space(4, &[7, 8], &[], false)
        );
        assert_eq!(both(space(3, &[], &[], true), space(3, &[7], &[8], false)), space(3, &[], &[], true));
        // It was put back since.
        let again = space(4, &[7], &[8], false);
        assert_eq!(both(space(3, &[], &[], true), again.clone()), again);
    }
}
