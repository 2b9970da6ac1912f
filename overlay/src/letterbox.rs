//! The letters that strangers left with a node, and the owner's replies, until they are fetched.
//!
//! Nothing here lasts: the stranger brings its letter again every second until it has its reply, so that what a restart
//! forgets is there again a second later, and what nobody asks for any more makes room. Pure: told the time.
//!
//! Not here: whether a letter is good ([`crate::invitation`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reactor::crypto::PublicKey;

use crate::invitation::{Declined, Letter, Reply};

/// Letters kept at a time. Each takes half a KiB, and its reply at most some 25.
pub const LETTERS_MAX: usize = 64;

/// Of those, by one ticket: its holder might name any number of keys, and others want to be heard too.
pub const LETTERS_PER_TICKET_MAX: usize = 8;

/// How long a letter is kept after its sender asked last.
pub const LETTER_LIFETIME: Duration = Duration::from_secs(60);

/// See the [module](self).
#[derive(Default)]
pub struct Letterbox {
    slots: BTreeMap<PublicKey, Slot>,
}

struct Slot {
    letter: Letter,
    reply: Option<Reply>,
    asked: Instant,
}

impl Letterbox {
    /// Takes a letter that was verified, or finds the one that is there; returns the reply if it has come.
    ///
    /// # Errors
    /// `Busy` if there is no room for it.
    pub fn bring(&mut self, letter: Letter, now: Instant) -> Result<Option<Reply>, Declined> {
        self.slots.retain(|_, slot| now.saturating_duration_since(slot.asked) < LETTER_LIFETIME);
        if let Some(slot) = self.slots.get_mut(&letter.holder)
            && slot.letter == letter
        {
            slot.asked = now;
            return Ok(slot.reply.clone());
        }
        let ticket = letter.invitation.ticket;
        let others = self
            .slots
            .values()
            .filter(|slot| slot.letter.invitation.ticket == ticket && slot.letter.holder != letter.holder);
        if self.slots.len() >= LETTERS_MAX || others.count() >= LETTERS_PER_TICKET_MAX {
            return Err(Declined::Busy);
        }
        self.slots.insert(letter.holder, Slot { letter, reply: None, asked: now });
        Ok(None)
    }

    /// The letters that wait for a reply.
    pub fn waiting(&self, now: Instant) -> Vec<Letter> {
        let is_alive = |slot: &&Slot| now.saturating_duration_since(slot.asked) < LETTER_LIFETIME;
        let waiting = self.slots.values().filter(|slot| slot.reply.is_none()).filter(is_alive);
        waiting.map(|slot| slot.letter.clone()).collect()
    }

    /// Keeps the reply of `network`'s owner for whoever brought the letter; says whether it answers one that is here.
    pub fn reply(&mut self, reply: &Reply, network: &PublicKey) -> bool {
        let answered = self.slots.values_mut().find(|slot| reply.answers(&slot.letter, network));
        answered.map(|slot| slot.reply = Some(reply.clone())).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invitation::{Invitation, InvitedAs, Verdict};
    use reactor::crypto::Identity;
    use std::time::SystemTime;

    fn letter(ticket: u8, holder: u8) -> Letter {
        let (owner, ticket) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[ticket; 32]));
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
        let invitation = Invitation::sign(&owner, ticket.public_key(), InvitedAs::Node, 1, expires);
        Letter::sign(&ticket, invitation, &Identity::from_seed(&[holder; 32]), "")
    }

    #[test]
    fn a_reply_waits_for_whoever_brought_the_letter() {
        let (mut letterbox, now) = (Letterbox::default(), Instant::now());
        let owner = Identity::from_seed(&[1; 32]);
        assert_eq!(letterbox.bring(letter(2, 3), now), Ok(None));
        assert_eq!(letterbox.waiting(now), [letter(2, 3)]);
        let declined =
            |signer: &Identity| Reply::sign(signer, &letter(2, 3), Verdict::Declined(Declined::Used));
        assert!(!letterbox.reply(&declined(&Identity::from_seed(&[2; 32])), &owner.public_key()));
        assert!(letterbox.reply(&declined(&owner), &owner.public_key()));
        assert!(letterbox.waiting(now).is_empty());
        assert_eq!(letterbox.bring(letter(2, 3), now), Ok(Some(declined(&owner))));
        assert_eq!(letterbox.bring(letter(2, 4), now), Ok(None));
    }

    #[test]
    fn a_ticket_takes_its_share_and_time_makes_room() {
        let (mut letterbox, now) = (Letterbox::default(), Instant::now());
        for holder in 0..LETTERS_PER_TICKET_MAX as u8 {
            assert_eq!(letterbox.bring(letter(2, holder), now), Ok(None));
        }
        assert_eq!(letterbox.bring(letter(2, 200), now), Err(Declined::Busy));
        assert_eq!(letterbox.bring(letter(3, 200), now), Ok(None));
        let later = now + LETTER_LIFETIME;
        assert!(letterbox.waiting(later).is_empty());
        assert_eq!(letterbox.bring(letter(2, 201), later), Ok(None));
        assert_eq!(letterbox.slots.len(), 1);
    }
}
