//! The roll: who was invited, and who was let in.
//!
//! It lies in the home that holds the owner's key, since only there is anybody let in; that it lies in one place is what
//! makes "this ticket is good once" true. Several processes of that home may change it, one at a time, each change whole
//! and on disk before anybody hears of it.
//!
//! What a letter is worth is decided here, on plain data; who asks the nodes for letters is in `admitting`.

use std::io;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use filesystem::access::groups::GroupId;
use overlay::invitation::{Declined, Invitation, InvitedAs, Letter};
use overlay::passport::CLOCK_SKEW_MAX;
use overlay::{Passport, Revocations};
use reactor::crypto::{Identity, PublicKey};
use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::home::{Home, Lock};
use crate::identity;
use crate::member_name;
use crate::network::{Hex, Network};

/// How long another process may have the roll: it writes one small file.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// A ticket is forgotten this long after it expired: until then who tries it hears that, and not that it is unknown.
const EXPIRED_LIFETIME_SECONDS: u64 = 30 * 24 * 3600;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a member's passport is good. An owner who does not come by for so long loses his members until he does, so it is
/// long; what a removal takes back it takes back at once.
const PASSPORT_LIFETIME: Duration = DAY.saturating_mul(180);
/// A passport of this age is renewed: five months are left in which its holder and the new one meet.
const RENEW_AFTER: Duration = DAY.saturating_mul(30);

/// `members/roll.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roll {
    pub(crate) invitations: Vec<Invited>,
    pub(crate) members: Vec<LetIn>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) spaces: Vec<SpaceEntry>,
    /// Once there was a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) groups: Option<GroupsEntry>,
}

/// The groups of the drive, as this home knows them, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupsEntry {
    /// The record that made their register, as bytes of `dht::Signed<Genesis>`.
    pub(crate) genesis: Hex<Vec<u8>>,
    /// Who keeps it since it was moved last, as bytes of `dht::Signed<Configuration>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) configuration: Option<Hex<Vec<u8>>>,
    /// The newest of its versions that was seen, and what it was: nothing older is taken. 0: none.
    pub(crate) version: u64,
    pub(crate) header_hash: Hex<[u8; 32]>,
    /// As bytes of `filesystem::access::groups::Groups`.
    pub(crate) content: Hex<Vec<u8>>,
}

/// A directory of the drive that is a space of its own, and who may do what in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpaceEntry {
    /// The record that made its register, as bytes of `dht::Signed<Genesis>`.
    pub(crate) genesis: Hex<Vec<u8>>,
    /// Where it was put; it may have been moved with a directory above it.
    pub(crate) path: String,
    /// Whether its link is there: a making that was cut short before is gone on with.
    pub(crate) is_linked: bool,
    /// Who keeps its root since it was moved last, as bytes of `dht::Signed<Configuration>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) configuration: Option<Hex<Vec<u8>>>,
    /// The number of the last list that was signed for it.
    pub(crate) number: u64,
    /// Who may do something in it by his own name, beside the owner.
    pub(crate) people: Vec<Allowed>,
    /// Whose people may do something in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<AllowedGroup>,
    /// Who was taken off, and may be on its list still: until its root is known to say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) leaving: Vec<Hex<[u8; 32]>>,
    /// Groups likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) leaving_groups: Vec<GroupId>,
    /// What the newest list says that this home knows.
    #[serde(default)]
    pub(crate) listed: Listed,
    /// Its writers are off and nobody opens it any more: one of them had sealed it to others than its owner.
    #[serde(default)]
    pub(crate) is_given_up: bool,
}

/// What a member may do in a space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allowed {
    pub(crate) key: Hex<[u8; 32]>,
    pub(crate) may_write: bool,
}

/// What the people of a group may do in a space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AllowedGroup {
    pub(crate) id: GroupId,
    pub(crate) may_write: bool,
}

/// Who is on a space's list beside the owner, once its groups are expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) people: Vec<Allowed>,
    /// The groups, and which epoch of each.
    pub(crate) groups: Vec<(GroupId, u64)>,
}

/// A ticket that was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invited {
    pub(crate) ticket: Hex<[u8; 32]>,
    pub(crate) role: InvitedAs,
    pub(crate) uses: u16,
    /// Seconds since 1970, as all times here.
    pub(crate) issued: u64,
    pub(crate) expires: u64,
}

/// Somebody who joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LetIn {
    pub(crate) key: Hex<[u8; 32]>,
    /// What the drive's root is sealed to for it.
    pub(crate) sealing_key: Hex<[u8; 32]>,
    /// What it is called: its own word, as far as nobody else has it (`member_name`).
    pub(crate) name: String,
    pub(crate) role: InvitedAs,
    pub(crate) since: u64,
    /// By which ticket.
    pub(crate) ticket: Hex<[u8; 32]>,
    /// A node's number.
    pub(crate) number: Option<u16>,
    /// Whether the drive's root may name it: true from before it is put there until it is known to be off.
    pub(crate) may_be_on_drive: bool,
    /// The newest that was signed for it.
    pub(crate) passport: Option<Hex<Vec<u8>>>,
}

impl Kind for Roll {
    const KIND: &'static str = "hypha members";
    /// 3: it has spaces, and who is leaving them or that they were given up, which a program that knows of none would drop; 4: groups.
    const VERSION: u32 = 4;
    const SECRET: bool = false;
}

impl Roll {
    /// Reads it; a home that has none has let nobody in. Blocks.
    ///
    /// # Errors
    /// Those of [`files::load`].
    pub(crate) fn read(home: &Home) -> Result<Roll, Failure> {
        match files::load(&home.members_directory().join("roll.json")) {
            Err(Failure::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Roll::default())
            }
            other => other,
        }
    }

    /// Changes it while no other process does, and has it on disk then. If `change` fails nothing is changed. Blocks.
    ///
    /// # Errors
    /// Those of `change`, `Failure::Locked` if another process does not let go of it, or those of the files.
    pub(crate) fn change<T>(
        home: &Home,
        change: impl FnOnce(&mut Roll) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let directory = home.members_directory();
        files::private_directory(&directory)?;
        let until = Instant::now() + LOCK_PATIENCE;
        let _lock = loop {
            match Lock::take(&directory) {
                Err(Failure::Locked { .. }) if Instant::now() < until => {
                    thread::sleep(Duration::from_millis(10));
                }
                other => break other?,
            }
        };
        let before = Roll::read(home)?;
        let mut roll = before.clone();
        let result = change(&mut roll)?;
        if roll != before {
            files::save(&directory.join("roll.json"), &roll)?;
        }
        Ok(result)
    }

    /// The roll of the owner's home, once the passports that are due are signed. Blocks.
    ///
    /// # Errors
    /// As [`Roll::change`], or those of the owner's key and of the list of the revoked.
    pub(crate) fn renewed(home: &Home, network: &Network, now: SystemTime) -> Result<Roll, Failure> {
        let roll = Roll::read(home)?;
        if !roll.has_due_passports(&home.revocations(network)?, now) {
            return Ok(roll);
        }
        Roll::change(home, |roll| {
            roll.renew_passports(&identity::owner(home)?, &home.revocations(network)?, now);
            Ok(roll.clone())
        })
    }

    /// Enters a ticket that is about to be given out, and forgets those that are long over.
    pub(crate) fn invited(&mut self, invitation: &Invitation, now: u64) {
        self.forget_old_tickets(now);
        self.invitations.push(Invited {
            ticket: Hex(*invitation.ticket.as_bytes()),
            role: invitation.role,
            uses: invitation.uses,
            issued: now,
            expires: invitation.expires,
        });
    }

    /// Forgets tickets that are long over.
    pub(crate) fn forget_old_tickets(&mut self, now: u64) {
        self.invitations.retain(|known| known.expires.saturating_add(EXPIRED_LIFETIME_SECONDS) > now);
    }

    /// Whether this ticket was given out here.
    pub(crate) fn knows(&self, ticket: &PublicKey) -> bool {
        self.invitations.iter().any(|invited| invited.ticket.0 == *ticket.as_bytes())
    }

    /// Whether anybody may have to be answered or let onto the drive.
    pub(crate) fn expects_somebody(&self, now: u64) -> bool {
        self.invitations.iter().any(|invited| invited.expires.saturating_add(3600) > now)
    }

    /// Notes whether the drive's root may name a member.
    pub(crate) fn on_drive(&mut self, key: &Hex<[u8; 32]>, may_be: bool) {
        let entries = self.members.iter_mut().filter(|entry| entry.key == *key);
        entries.for_each(|entry| entry.may_be_on_drive = may_be);
    }

    /// The members who were removed, and who are not known to be off the drive.
    pub(crate) fn left_on_drive(&self, revoked: &Revocations) -> Vec<LetIn> {
        let is_left = |member: &&LetIn| member.may_be_on_drive && revoked.contains(&member.public_key());
        self.members.iter().filter(is_left).cloned().collect()
    }

    /// How often a ticket was used.
    pub(crate) fn uses_of(&self, ticket: &Hex<[u8; 32]>) -> usize {
        self.members.iter().filter(|member| member.ticket == *ticket).count()
    }

    /// The tickets by which somebody may still come.
    pub(crate) fn open_tickets<'a>(
        &'a self,
        revoked: &'a Revocations,
        now: u64,
    ) -> impl Iterator<Item = &'a Invited> {
        self.invitations.iter().filter(move |ticket| {
            let used = self.uses_of(&ticket.ticket) >= usize::from(ticket.uses);
            ticket.expires > now && !used && !revoked.contains(&PublicKey::from_bytes(ticket.ticket.0))
        })
    }

    /// Whether a member who is not revoked has no passport, or one that is to be renewed.
    fn has_due_passports(&self, revoked: &Revocations, now: SystemTime) -> bool {
        self.members.iter().any(|member| member.is_due(now) && !revoked.contains(&member.public_key()))
    }

    /// Signs a new passport for every member who is not revoked and has none, or one that is to be renewed.
    pub(crate) fn renew_passports(&mut self, owner: &Identity, revoked: &Revocations, now: SystemTime) {
        let due = self.members.iter_mut().filter(|member| member.is_due(now));
        for member in due.filter(|member| !revoked.contains(&member.public_key())) {
            let until = now.checked_add(PASSPORT_LIFETIME);
            let rights = member.role.rights();
            let passport = Passport::issue_from(owner, member.public_key(), rights, now, until);
            member.passport = Some(Hex(passport.to_bytes()));
        }
    }

    /// The newest passports of those who are not revoked.
    pub(crate) fn passports(&self, revoked: &Revocations) -> Vec<Passport> {
        let members = self.members.iter().filter(|member| !revoked.contains(&member.public_key()));
        members.filter_map(LetIn::passport).collect()
    }

    /// `wanted`, or what tells it from those who have it: people remove by name whom they mean. Who was removed has none any more: it
    /// is the name of whoever comes back.
    fn a_free_name(&self, wanted: &str, revoked: &Revocations) -> String {
        let has =
            |member: &LetIn, name: &String| member.name == *name && !revoked.contains(&member.public_key());
        let is_free = |name: &String| {
            !self.members.iter().any(|member| has(member, name)) && !self.has_group_called(name)
        };
        let others = (2_u32..).map(|number| format!("{wanted}-{number}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(others);
        names.find(is_free).expect("there are fewer members than numbers")
    }

    /// Enters who wrote a letter that was verified, or finds the entry that an earlier copy of it made.
    ///
    /// # Errors
    /// Why it is not let in.
    pub(crate) fn admit(
        &mut self,
        letter: &Letter,
        network: &Network,
        revoked: &Revocations,
        now: u64,
    ) -> Result<LetIn, Declined> {
        let Invitation { ticket, role, uses, .. } = letter.invitation;
        if revoked.contains(&ticket) || revoked.contains(&letter.holder) {
            return Err(Declined::Revoked);
        }
        let (key, ticket) = (Hex(*letter.holder.as_bytes()), Hex(*ticket.as_bytes()));
        if let Some(known) = self.members.iter().find(|member| member.key == key && member.ticket == ticket) {
            return Ok(known.clone());
        }
        // Nobody is entered under a key whose removal would hit others: those of the network's beginning, whose holders
        // may have found a ticket, or what is sealed to another member, which a letter can't prove to be its writer's.
        let is_anothers = |member: &LetIn| member.sealing_key.0 == letter.sealing_key && member.key != key;
        if network.founding_keys().any(|own| own.0 == key.0) || self.members.iter().any(is_anothers) {
            return Err(Declined::Forged);
        }
        // A home that was put back from an older copy does not know how often it was used.
        if !self.knows(&letter.invitation.ticket) {
            return Err(Declined::Unknown);
        }
        // A key is one member: another ticket does not make it another thing.
        if self.members.iter().any(|member| member.key == key) || self.uses_of(&ticket) >= usize::from(uses) {
            return Err(Declined::Used);
        }
        let numbers = network.nodes.iter().map(|node| node.number);
        let highest =
            numbers.chain(self.members.iter().filter_map(|member| member.number)).max().unwrap_or(0);
        let member = LetIn {
            key,
            sealing_key: Hex(letter.sealing_key),
            name: self.a_free_name(&member_name::of_newcomer(&letter.name, &letter.holder), revoked),
            role,
            since: now,
            ticket,
            number: (role == InvitedAs::Node).then(|| highest.saturating_add(1)),
            may_be_on_drive: false,
            passport: None,
        };
        self.members.push(member.clone());
        Ok(member)
    }
}

impl LetIn {
    /// Its key.
    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.0)
    }

    /// The newest passport that was signed for it.
    pub(crate) fn passport(&self) -> Option<Passport> {
        Passport::from_bytes(&self.passport.as_ref()?.0).ok()
    }

    /// Also if it is of a later day than this: the clock was wrong then.
    fn is_due(&self, now: SystemTime) -> bool {
        let signed = self.passport().map(|passport| passport.not_before());
        signed.is_none_or(|signed| signed > now + CLOCK_SKEW_MAX || now >= signed + RENEW_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Founding;

    fn letter(ticket: u8, holder: u8, uses: u16) -> Letter {
        let (owner, ticket) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[ticket; 32]));
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
        let invitation = Invitation::sign(&owner, ticket.public_key(), InvitedAs::Node, uses, expires);
        Letter::sign(&ticket, invitation, &Identity::from_seed(&[holder; 32]), "a\u{1b}[2Jb")
    }

    #[test]
    fn a_ticket_is_good_as_often_as_it_says_and_asking_again_is_not_using_it() {
        let (mut roll, none) = (Roll::default(), Revocations::default());
        let network = Founding::new().network(Vec::new());
        assert_eq!(roll.admit(&letter(2, 10, 2), &network, &none, 7), Err(Declined::Unknown));
        roll.invited(&letter(2, 10, 2).invitation, 7);
        roll.invited(&letter(3, 10, 2).invitation, 7);
        let first = roll.admit(&letter(2, 10, 2), &network, &none, 7).unwrap();
        assert_eq!((first.number, first.name.as_str(), first.since), (Some(1), "a??2Jb", 7));
        assert_eq!(roll.admit(&letter(2, 10, 2), &network, &none, 8), Ok(first));
        let second = roll.admit(&letter(2, 11, 2), &network, &none, 8).unwrap();
        assert_eq!((second.number, second.name.as_str()), (Some(2), "a??2Jb-2"), "one name, one member");
        assert_eq!(roll.admit(&letter(2, 12, 2), &network, &none, 8), Err(Declined::Used));
        assert!(roll.admit(&letter(2, 10, 2), &network, &none, 9).is_ok(), "who is in is in");
        assert_eq!(
            roll.admit(&letter(3, 10, 2), &network, &none, 8),
            Err(Declined::Used),
            "one key, one member"
        );
    }

    #[test]
    fn who_comes_back_after_a_removal_has_the_name_that_he_had() {
        let (mut roll, none) = (Roll::default(), Revocations::default());
        let network = Founding::new().network(Vec::new());
        roll.invited(&letter(2, 10, 9).invitation, 7);
        let removed = roll.admit(&letter(2, 10, 9), &network, &none, 7).unwrap();
        let owner = Identity::from_seed(&[1; 32]);
        let revoked = none.with(&owner, [removed.public_key()], SystemTime::now()).unwrap();
        let back = roll.admit(&letter(2, 11, 9), &network, &revoked, 8).unwrap();
        assert_eq!(back.name, removed.name, "a removal by this name is to hit who is there");
        assert_eq!(roll.admit(&letter(2, 12, 9), &network, &revoked, 8).unwrap().name, "a??2Jb-2");
    }

    #[test]
    fn a_revoked_ticket_lets_nobody_in_and_a_revoked_member_stays_out() {
        let mut roll = Roll::default();
        let network = Founding::new().network(Vec::new());
        let owner = Identity::from_seed(&[1; 32]);
        let key = |number: u8| Identity::from_seed(&[number; 32]).public_key();
        let revoked = Revocations::default().with(&owner, [key(2), key(10)], SystemTime::now()).unwrap();
        for letter in [letter(2, 11, 1), letter(3, 10, 1)] {
            assert_eq!(roll.admit(&letter, &network, &revoked, 7), Err(Declined::Revoked));
        }
        assert_eq!(roll, Roll::default());
    }

    #[test]
    fn nobody_is_entered_under_a_key_whose_removal_would_hit_others() {
        let (mut roll, none) = (Roll::default(), Revocations::default());
        let mut network = Founding::new().network(Vec::new());
        roll.invited(&letter(2, 10, 9).invitation, 7);
        network.volume_owner = Hex(*Identity::from_seed(&[10; 32]).public_key().as_bytes());
        assert_eq!(roll.admit(&letter(2, 10, 9), &network, &none, 7), Err(Declined::Forged));
        let ann = letter(2, 11, 9);
        assert!(roll.admit(&ann, &network, &none, 7).is_ok());
        let mut anns_sealing_key = letter(2, 12, 9);
        anns_sealing_key.sealing_key = ann.sealing_key;
        assert_eq!(roll.admit(&anns_sealing_key, &network, &none, 7), Err(Declined::Forged));
        assert!(roll.admit(&letter(2, 12, 9), &network, &none, 7).is_ok());
    }

    #[test]
    fn a_passport_is_renewed_while_it_is_good_and_never_for_who_was_removed() {
        let (mut roll, none) = (Roll::default(), Revocations::default());
        let (network, owner) = (Founding::new().network(Vec::new()), Identity::from_seed(&[1; 32]));
        roll.invited(&letter(2, 10, 2).invitation, 7);
        roll.admit(&letter(2, 10, 2), &network, &none, 7).unwrap();
        roll.admit(&letter(2, 11, 2), &network, &none, 7).unwrap();
        let removed = none.with(&owner, [roll.members[1].public_key()], SystemTime::now()).unwrap();
        let start = SystemTime::UNIX_EPOCH + DAY * 1000;
        assert!(roll.has_due_passports(&removed, start));
        roll.renew_passports(&owner, &removed, start);
        let [first] = roll.passports(&removed).try_into().unwrap();
        let opens = |passport: &Passport, at| passport.verify(&owner.public_key(), &passport.holder(), at);
        assert_eq!(opens(&first, start), Ok(roll.members[0].role.rights()));
        assert!(roll.members[1].passport.is_none());
        // Not each second, and long before it ends.
        let soon = start + RENEW_AFTER - DAY;
        assert!(!roll.has_due_passports(&removed, soon));
        let before = roll.clone();
        roll.renew_passports(&owner, &removed, soon);
        assert_eq!(roll, before);
        let later = start + RENEW_AFTER;
        assert!(opens(&first, later + RENEW_AFTER).is_ok() && roll.has_due_passports(&removed, later));
        roll.renew_passports(&owner, &removed, later);
        let [second] = roll.passports(&removed).try_into().unwrap();
        assert!(second.is_newer_than(&first) && opens(&second, start + PASSPORT_LIFETIME).is_ok());
        // The clock is put right, and was a year ahead.
        assert!(roll.has_due_passports(&removed, start - DAY));
    }

    #[test]
    fn a_change_is_whole_and_kept_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let invitation = letter(2, 10, 1).invitation;
        Roll::change(&home, |roll| {
            roll.invited(&invitation, 5);
            Ok(())
        })
        .unwrap();
        let failed: Result<(), _> = Roll::change(&home, |roll| {
            roll.invitations.clear();
            Err(Failure::NoHome)
        });
        assert!(failed.is_err());
        let roll = Roll::read(&home).unwrap();
        assert_eq!((roll.invitations.len(), roll.invitations[0].issued), (1, 5));
        assert!(roll.expects_somebody(5) && !roll.expects_somebody(1_000_000));
    }
}
