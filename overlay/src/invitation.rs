//! How a stranger becomes a member: the owner's invitation, the stranger's letter, the owner's reply.
//!
//! Whoever is invited makes its own key, and nobody but the owner signs passports. So three signed things travel, and the
//! nodes are no more than letter boxes:
//!
//! - the [`Invitation`], signed by the owner: whoever holds the *ticket's* key may name a member, in this role, until then.
//! - the [`Letter`], signed with the ticket's key: this key is to be the member; and with that key: it agrees, so that
//!   nobody is entered, and later removed, who did not ask. Neither secret leaves the stranger: a node that passes the
//!   letter on learns nothing with which it could name somebody else, or the same by another ticket.
//! - the [`Reply`], signed by the owner, to just this letter: the passport, and what else the newcomer has to know; or why
//!   not. A node can withhold it, and can't make one.
//!
//! How often a ticket may be used, the owner alone counts: two nodes that can't reach each other could not.
//!
//! Not here: how an invitation is written in one line ([`crate::ticket`]), and who keeps letters where ([`crate::letterbox`]).

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature};
use serde::{Deserialize, Serialize};

use crate::passport::{Passport, Rights, seconds_since_1970};

/// Bytes of a newcomer's name that are kept: it is for people, in a list.
pub const NAME_BYTES_MAX: usize = 64;

/// Most bytes of what a reply says beside the passport: a network's description with a hundred nodes.
pub const NOTES_BYTES_MAX: usize = 24 * 1024;

/// What somebody is invited as.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvitedAs {
    /// A storage node.
    Node,
    /// Reads and writes the drive.
    Writer,
    /// Reads the drive.
    Reader,
}

impl InvitedAs {
    /// What it may do on the network's nodes.
    pub fn rights(self) -> Rights {
        match self {
            InvitedAs::Node => Rights::NODE,
            InvitedAs::Writer => Rights::CLIENT,
            InvitedAs::Reader => Rights::READER,
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            InvitedAs::Node => 0,
            InvitedAs::Writer => 1,
            InvitedAs::Reader => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<InvitedAs> {
        [InvitedAs::Node, InvitedAs::Writer, InvitedAs::Reader].into_iter().find(|role| role.code() == code)
    }
}

impl fmt::Display for InvitedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvitedAs::Node => "node",
            InvitedAs::Writer => "writer",
            InvitedAs::Reader => "reader",
        })
    }
}

/// Why nobody is let in on a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Declined {
    /// It is for another network.
    #[error("the ticket is for another network")]
    WrongNetwork,
    /// A signature does not verify.
    #[error("the ticket was tampered with: a signature in it is wrong")]
    Forged,
    /// Its time is over.
    #[error("the ticket has expired: ask for a new one")]
    Expired,
    /// It was used as often as it may be.
    #[error(
        "the ticket has been used already: ask for a new one, and for who used this one if it was not you"
    )]
    Used,
    /// The owner's home does not know it.
    #[error(
        "the home that answers has not made this ticket: it may have been put back from an older copy; ask for a new one"
    )]
    Unknown,
    /// The owner took it back.
    #[error("the ticket was revoked: ask for a new one")]
    Revoked,
    /// The node has too many letters.
    #[error("the node has too many letters to pass on: try again in a minute")]
    Busy,
}

/// The owner's word that whoever holds a ticket's key may name members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// The owner, which names the network.
    pub network: PublicKey,
    /// The ticket's key: it signs one letter for each member.
    pub ticket: PublicKey,
    /// What they become.
    pub role: InvitedAs,
    /// How many members it may name.
    pub uses: u16,
    /// Seconds since 1970.
    pub expires: u64,
    pub(crate) signature: Signature,
}

impl Invitation {
    /// Signs the invitation for the holder of `ticket`.
    pub fn sign(
        owner: &Identity,
        ticket: PublicKey,
        role: InvitedAs,
        uses: u16,
        expires: SystemTime,
    ) -> Invitation {
        // The signature is not part of the digest, so any will do until the real one is known.
        let mut invitation = Invitation {
            network: owner.public_key(),
            ticket,
            role,
            uses,
            expires: seconds_since_1970(expires),
            signature: owner.sign(&[]),
        };
        invitation.signature = owner.sign(&invitation.digest());
        invitation
    }

    /// Whether the owner said so, and still stands by it at `now`.
    ///
    /// # Errors
    /// `Forged` or `Expired`.
    pub fn verify(&self, now: SystemTime) -> Result<(), Declined> {
        self.network.verify(&self.digest(), &self.signature).map_err(|_| Declined::Forged)?;
        if self.expires <= seconds_since_1970(now) { Err(Declined::Expired) } else { Ok(()) }
    }

    fn digest(&self) -> [u8; 32] {
        sha3_256(&[
            b"hypha invitation 1",
            self.network.as_bytes(),
            self.ticket.as_bytes(),
            &[self.role.code()],
            &self.uses.to_be_bytes(),
            &self.expires.to_be_bytes(),
        ])
    }
}

/// A stranger's request to be made a member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Letter {
    /// By what it may ask.
    pub invitation: Invitation,
    /// The key that is to be the member.
    pub holder: PublicKey,
    /// The X25519 key that what only it may read is sealed to.
    #[serde(with = "serde_bytes")]
    pub sealing_key: [u8; 32],
    /// What people call it.
    pub name: String,
    /// By the ticket's key: it may ask.
    proof: Signature,
    /// By the holder's: it does.
    consent: Signature,
}

impl Letter {
    /// Names `holder`, with the ticket's secret key and its own. A name that is too long is cut.
    pub fn sign(ticket: &Identity, invitation: Invitation, holder: &Identity, name: &str) -> Letter {
        let name = name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
        let mut letter = Letter {
            invitation,
            holder: holder.public_key(),
            sealing_key: *holder.sealing_key().public().as_bytes(),
            name,
            proof: ticket.sign(&[]),
            consent: holder.sign(&[]),
        };
        let digest = letter.digest();
        (letter.proof, letter.consent) = (ticket.sign(&digest), holder.sign(&digest));
        letter
    }

    /// Whether the letter is good in `network` at `now`. Whether the ticket was used before, it does not tell.
    ///
    /// # Errors
    /// `WrongNetwork`, `Forged` or `Expired`.
    pub fn verify(&self, network: &PublicKey, now: SystemTime) -> Result<(), Declined> {
        if self.invitation.network != *network {
            return Err(Declined::WrongNetwork);
        }
        if self.name.len() > NAME_BYTES_MAX {
            return Err(Declined::Forged);
        }
        let digest = self.digest();
        let signatures = [(&self.invitation.ticket, &self.proof), (&self.holder, &self.consent)];
        if signatures.into_iter().any(|(key, signature)| key.verify(&digest, signature).is_err()) {
            return Err(Declined::Forged);
        }
        self.invitation.verify(now)
    }

    /// What names the letter, and what the ticket's key and the holder's sign.
    pub fn digest(&self) -> [u8; 32] {
        sha3_256(&[
            b"hypha letter 1",
            &self.invitation.digest(),
            self.holder.as_bytes(),
            &self.sealing_key,
            self.name.as_bytes(),
        ])
    }
}

/// What the owner says to a letter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// The holder is a member.
    Welcome {
        /// What opens the network.
        passport: Passport,
        /// What else it has to know; the overlay does not look into it.
        notes: Bytes,
    },
    /// It is not to be one.
    Declined(Declined),
}

/// The owner's answer to one letter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Which letter.
    #[serde(with = "serde_bytes")]
    letter: [u8; 32],
    /// What is said to it.
    pub verdict: Verdict,
    signature: Signature,
}

impl Reply {
    /// Answers `letter`.
    ///
    /// # Panics
    /// If the notes are longer than [`NOTES_BYTES_MAX`].
    pub fn sign(owner: &Identity, letter: &Letter, verdict: Verdict) -> Reply {
        if let Verdict::Welcome { notes, .. } = &verdict {
            assert!(notes.len() <= NOTES_BYTES_MAX, "the notes are {} bytes long", notes.len());
        }
        let letter = letter.digest();
        let signature = owner.sign(&Reply::digest(&letter, &verdict));
        Reply { letter, verdict, signature }
    }

    /// Whether it is the owner of `network` who answers `letter`.
    pub fn answers(&self, letter: &Letter, network: &PublicKey) -> bool {
        let is_small = match &self.verdict {
            Verdict::Welcome { notes, .. } => notes.len() <= NOTES_BYTES_MAX,
            Verdict::Declined(_) => true,
        };
        is_small
            && self.letter == letter.digest()
            && network.verify(&Reply::digest(&self.letter, &self.verdict), &self.signature).is_ok()
    }

    fn digest(letter: &[u8; 32], verdict: &Verdict) -> [u8; 32] {
        let said = match verdict {
            Verdict::Welcome { passport, notes } => {
                sha3_256(&[b"welcome", &sha3_256(&[&passport.to_bytes()]), notes])
            }
            Verdict::Declined(why) => sha3_256(&[b"declined", &reactor::serialization::to_bytes(why)]),
        };
        sha3_256(&[b"hypha reply 1", letter, &said])
    }
}

/// What a node answers somebody who brings a letter. Travels outside RPC, as the exchange of passports does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The owner has yet to answer: come again.
    Waiting,
    /// The owner's reply.
    Replied(Reply),
    /// The node does not pass it on.
    Declined(Declined),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn story() -> (Identity, Identity, Letter) {
        let (owner, ticket, holder) =
            (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]), Identity::from_seed(&[3; 32]));
        let invitation = Invitation::sign(
            &owner,
            ticket.public_key(),
            InvitedAs::Reader,
            1,
            SystemTime::UNIX_EPOCH + HOUR,
        );
        let letter = Letter::sign(&ticket, invitation, &holder, "a laptop");
        (owner, ticket, letter)
    }

    #[test]
    fn a_letter_is_good_until_its_ticket_expires() {
        let (owner, _, letter) = story();
        let network = owner.public_key();
        assert_eq!(letter.verify(&network, SystemTime::UNIX_EPOCH), Ok(()));
        assert_eq!(letter.verify(&network, SystemTime::UNIX_EPOCH + HOUR), Err(Declined::Expired));
        let other = Identity::from_seed(&[9; 32]).public_key();
        assert_eq!(letter.verify(&other, SystemTime::UNIX_EPOCH), Err(Declined::WrongNetwork));
    }

    #[test]
    fn who_passes_a_letter_on_cannot_change_it() {
        let (owner, _, letter) = story();
        let thief = Identity::from_seed(&[9; 32]);
        let changes: [fn(&mut Letter, &Identity); 6] = [
            |letter, thief| letter.holder = thief.public_key(),
            |letter, thief| letter.sealing_key = *thief.sealing_key().public().as_bytes(),
            |letter, _| letter.name.push('s'),
            |letter, _| letter.invitation.role = InvitedAs::Writer,
            |letter, _| letter.invitation.uses = 2,
            |letter, _| letter.invitation.expires = u64::MAX,
        ];
        for change in changes {
            let mut changed = letter.clone();
            change(&mut changed, &thief);
            assert_eq!(
                changed.verify(&owner.public_key(), SystemTime::UNIX_EPOCH),
                Err(Declined::Forged),
                "{changed:?}"
            );
        }
    }

    #[test]
    fn a_ticket_names_nobody_who_does_not_agree() {
        let (owner, ticket, letter) = story();
        let forger = Identity::from_seed(&[9; 32]);
        // Whoever has a ticket of his own names a key that he saw elsewhere: a node's, or that of another guest.
        let mut named = Letter::sign(&ticket, letter.invitation.clone(), &forger, "bob");
        named.holder = letter.holder;
        named.proof = ticket.sign(&named.digest());
        for consent in [forger.sign(&named.digest()), ticket.sign(&named.digest()), letter.consent] {
            let named = Letter { consent, ..named.clone() };
            assert_eq!(
                named.verify(&owner.public_key(), SystemTime::UNIX_EPOCH),
                Err(Declined::Forged),
                "{named:?}"
            );
        }
    }

    #[test]
    fn only_the_owner_invites_and_only_the_owner_replies() {
        let (owner, ticket, letter) = story();
        let network = owner.public_key();
        // The ticket's holder invites himself, for longer.
        let own = Invitation {
            network,
            ..Invitation::sign(&ticket, ticket.public_key(), InvitedAs::Node, 9, SystemTime::now())
        };
        assert_eq!(own.verify(SystemTime::UNIX_EPOCH), Err(Declined::Forged));
        let said = Verdict::Declined(Declined::Used);
        assert!(Reply::sign(&owner, &letter, said.clone()).answers(&letter, &network));
        assert!(!Reply::sign(&ticket, &letter, said.clone()).answers(&letter, &network));
        let mut other = letter.clone();
        other.name.push('s');
        assert!(!Reply::sign(&owner, &other, said).answers(&letter, &network));
    }

    #[test]
    fn a_reply_says_what_it_was_signed_for() {
        let (owner, _, letter) = story();
        let passport = Passport::issue(&owner, letter.holder, Rights::READER, None);
        let verdict = Verdict::Welcome { passport, notes: Bytes::from_static(b"notes") };
        let reply = Reply::sign(&owner, &letter, verdict);
        assert!(reply.answers(&letter, &owner.public_key()));
        for verdict in [
            Verdict::Declined(Declined::Used),
            Verdict::Welcome {
                passport: Passport::of_owner(owner.public_key()),
                notes: Bytes::from_static(b"notes"),
            },
        ] {
            assert!(!Reply { verdict, ..reply.clone() }.answers(&letter, &owner.public_key()));
        }
    }
}
