//! Which of two processes that have one node's key began later, and which of them is to stop.
//!
//! A *life* is one process of a node, from its start to its end. It makes a key pair of its own when it begins, keeps that in memory
//! alone, and signs with it, beside the node's key, what it says of itself as a life:
//!
//! ```text
//! key        the life's own
//! after      the lives before it, newest first, as its home knew them when it began: never changed while it lives
//! beside     a life whose word it has seen, as another process's; zero for nobody
//! age        how long it had lived when it first saw that, in milliseconds that it was awake
//! last       whether it stops for that one, and this is the last that it says
//! signature  the life's, over SHA3-256("hypha life 2", network, node, body of the record, all of these; `last` only if it is so)
//! ```
//!
//! A life is named by the first sixteen bytes of its key: who makes keys until one has the name of another's life has 2^128 to make. Its
//! word is good beside the very body that it was signed for: who has the node's key puts it on nothing that he wrote.
//!
//! **What can be known of two that are there at once, and who stops.** No wall clock says it: that of a machine without a battery says
//! 1970, and that of a thief whatever he likes.
//!
//! 1. *By descent.* If one began from what the other signed, it is the later: all that its store has the other's store had, but for
//!    what was stored since. It stops. It believes that the other is there by the other's signature alone, which is made with a key
//!    that only that process has: whoever has stolen the key of the node, and so all that lies in its home, can't pass for an ancestor.
//! 2. *Where neither began from the other*, two homes went apart before: from a backup, or as the original was started again beside its
//!    copy. Which has more of what was stored nobody can say, and either has something that the other lacks. All that is known without
//!    a clock is how long each has been awake. So the one that has been there for a shorter time stops, if it has only just begun
//!    ([`SETTLED`]): it has called little stored, and it is as if it had not been started. Of two that have just begun, side by side,
//!    the younger one, or by their names one of them.
//! 3. *Where neither has just begun* none stops: age is only said, and a thief says what he likes. That two are there is told
//!    instead, by both, until somebody looks. So whoever has the key of one node stops its original by nothing, but for the first
//!    minutes after its start; and then the original says so, and the owner can have it go on.
//!
//! Who serves because the owner said so although there is another ([`Life::begin`]) stops for nobody; that is for one life, and whoever
//! begins from its word is its descendant, as of any.
//!
//! Whose word names nobody may be a thief, and can be known by no signature for one that is there: `signers.rs` tells when it is.
//!
//! Pure. Not here: who finds whom, and what is done then (`twin.rs`).

use std::time::{Duration, Instant};

use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature};
use reactor::serialization::to_bytes;
use serde::{Deserialize, Serialize};

/// Lives before its own that each one signs: as often may a copy be started before it meets its original, and still be known as its
/// copy. A record has room for no more.
pub const AFTER_MAX: usize = 4;

/// Who has lived for so long stops for nobody but an ancestor: neighbours tell within seconds, or a minute where they were away, so that
/// two that share any have found each other by then.
pub const SETTLED: Duration = Duration::from_secs(600);

/// The age of who was told by the owner to serve beside another.
const BY_THE_OWNER: u64 = u64::MAX;

/// What names a life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LifeName(#[serde(with = "serde_bytes")] [u8; 16]);

impl LifeName {
    /// No life's.
    const NOBODY: LifeName = LifeName([0; 16]);

    fn of(key: &PublicKey) -> LifeName {
        let (first, _) = key.as_bytes().split_first_chunk().expect("a key has 32 bytes");
        LifeName(*first)
    }
}

/// One process of a node, as it knows itself.
#[derive(Debug)]
pub struct Life {
    identity: Identity,
    after: Vec<LifeName>,
    began: Instant,
    is_accepted: bool,
}

/// What a life says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LifeWord {
    key: PublicKey,
    after: Vec<LifeName>,
    beside: LifeName,
    age_ms: u64,
    signature: Signature,
    /// An earlier release does not say so.
    #[serde(default)]
    is_last: bool,
}

/// Which of two lives is to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stops {
    /// The one that asks.
    We,
    /// The other one.
    They,
    /// None, by what can be known.
    Nobody,
}

impl Life {
    /// One that begins `now`, from what its home says that it said last, with a key pair that was made for it alone. `is_accepted` if
    /// the owner has it serve although there is another.
    pub fn begin(identity: Identity, last: Option<&LifeWord>, is_accepted: bool, now: Instant) -> Life {
        let after = last.into_iter().flat_map(|last| [last.name()].into_iter().chain(last.after.clone()));
        Life { identity, after: after.take(AFTER_MAX).collect(), began: now, is_accepted }
    }

    /// What names it.
    pub fn name(&self) -> LifeName {
        LifeName::of(&self.identity.public_key())
    }

    /// Whether it began from what that life signed.
    pub fn is_after(&self, other: LifeName) -> bool {
        self.after.contains(&other)
    }

    /// How long it has lived, as it says that to others.
    pub fn age_ms(&self, now: Instant) -> u64 {
        match self.is_accepted {
            true => BY_THE_OWNER,
            false => now.saturating_duration_since(self.began).as_millis() as u64,
        }
    }

    /// Signs what it says of itself beside this body of a record: beside whom it is, and how old it was when it first saw that.
    pub fn word(
        &self,
        network: &PublicKey,
        node: &PublicKey,
        body: &[u8],
        beside: Option<(LifeName, u64)>,
    ) -> LifeWord {
        self.sign(network, node, body, beside, false)
    }

    /// The same, as the last that it says: it stops for whom it is beside.
    pub fn last_word(
        &self,
        network: &PublicKey,
        node: &PublicKey,
        body: &[u8],
        beside: Option<(LifeName, u64)>,
    ) -> LifeWord {
        self.sign(network, node, body, beside, true)
    }

    fn sign(
        &self,
        network: &PublicKey,
        node: &PublicKey,
        body: &[u8],
        beside: Option<(LifeName, u64)>,
        is_last: bool,
    ) -> LifeWord {
        let alone = (LifeName::NOBODY, if self.is_accepted { BY_THE_OWNER } else { 0 });
        let (beside, age_ms) = beside.unwrap_or(alone);
        let key = self.identity.public_key();
        let says = Says { after: &self.after, beside, age_ms, is_last };
        let signature = self.identity.sign(&digest(network, node, body, &key, says));
        LifeWord { key, after: self.after.clone(), beside, age_ms, signature, is_last }
    }
}

impl LifeWord {
    /// Whether a life signed it, for this body of a record of `node` in `network`.
    pub(crate) fn is_good(&self, network: &PublicKey, node: &PublicKey, body: &[u8]) -> bool {
        let &LifeWord { key, ref after, beside, age_ms, ref signature, is_last } = self;
        let says = Says { after, beside, age_ms, is_last };
        after.len() <= AFTER_MAX && key.verify(&digest(network, node, body, &key, says), signature).is_ok()
    }

    /// What names the life.
    pub fn name(&self) -> LifeName {
        LifeName::of(&self.key)
    }

    /// The life that it has seen beside itself.
    pub fn beside(&self) -> Option<LifeName> {
        (self.beside != LifeName::NOBODY).then_some(self.beside)
    }

    /// Whether it stops for whom it is beside, and says nothing more.
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// Whether it began from what that life signed.
    pub fn is_after(&self, other: LifeName) -> bool {
        self.after.contains(&other)
    }

    /// Whether this is another life than the one of that name, and has seen what that one signed: both are there, then, or this
    /// one was when the other was.
    pub fn is_beside(&self, other: LifeName) -> bool {
        other != LifeName::NOBODY && self.name() != other && (self.beside == other || self.is_after(other))
    }
}

/// Which of two lives is to stop, as one of them sees it: its own word, which names `other`, and the word of `other`, which
/// [`is_beside`](LifeWord::is_beside) it. The other one comes to the same, by the same two words.
pub fn who_stops(own: &LifeWord, other: &LifeWord) -> Stops {
    let descended = match (own.is_after(other.name()), other.is_after(own.name())) {
        (true, false) => Some((own, Stops::We)),
        (false, true) => Some((other, Stops::They)),
        // Both is nothing that an honest process signs.
        (true, true) => return Stops::Nobody,
        (false, false) => None,
    };
    if let Some((later, stops)) = descended {
        return if later.age_ms == BY_THE_OWNER { Stops::Nobody } else { stops };
    }
    let age = |life: &LifeWord| (life.age_ms, life.name());
    let (younger, stops) = if age(own) < age(other) { (own, Stops::We) } else { (other, Stops::They) };
    if u128::from(younger.age_ms) < SETTLED.as_millis() { stops } else { Stops::Nobody }
}

/// What a life says beside a body.
#[derive(Clone, Copy)]
struct Says<'a> {
    after: &'a [LifeName],
    beside: LifeName,
    age_ms: u64,
    is_last: bool,
}

fn digest(network: &PublicKey, node: &PublicKey, body: &[u8], key: &PublicKey, says: Says<'_>) -> [u8; 32] {
    let Says { after, beside, age_ms, is_last } = says;
    let says = match is_last {
        true => to_bytes(&(after, beside, age_ms, true)),
        // As before there was a last one.
        false => to_bytes(&(after, beside, age_ms)),
    };
    let body = sha3_256(&[body]);
    sha3_256(&[b"hypha life 2", network.as_bytes(), node.as_bytes(), &body, key.as_bytes(), &says])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What else the record says.
    const BODY: &[u8] = b"a body";

    fn key(number: u8) -> PublicKey {
        Identity::from_seed(&[number; 32]).public_key()
    }

    /// What `life` says that has seen `other`, at that age.
    fn word(life: &Life, other: &Life, age_s: u64) -> LifeWord {
        life.word(&key(1), &key(2), BODY, Some((other.name(), age_s * 1000)))
    }

    fn alone(life: &Life) -> LifeWord {
        life.word(&key(1), &key(2), BODY, None)
    }

    fn begin(last: Option<&Life>) -> Life {
        Life::begin(Identity::generate(), last.map(alone).as_ref(), false, Instant::now())
    }

    /// As each of two sees it that have seen each other at these ages.
    fn judged(one: (&Life, u64), other: (&Life, u64)) -> (Stops, Stops) {
        let (first, second) = (word(one.0, other.0, one.1), word(other.0, one.0, other.1));
        assert!(first.is_beside(other.0.name()) && second.is_beside(one.0.name()));
        (who_stops(&first, &second), who_stops(&second, &first))
    }

    const LATE: u64 = 100_000;

    #[test]
    fn a_copy_whose_clock_is_behind_does_not_stop_the_original() {
        let original = begin(None);
        // It says that it has been there for a day, or was there for a minute before it met anybody.
        for (age_of_copy, age_of_original) in [(86_400, 5), (60, LATE), (0, 0)] {
            let copy = begin(Some(&original));
            assert_eq!(judged((&original, age_of_original), (&copy, age_of_copy)), (Stops::They, Stops::We));
        }
        // Before it has heard of the original, which it names as the one that it began from.
        let copy = begin(Some(&original));
        assert!(alone(&copy).is_beside(original.name()));
        assert_eq!(who_stops(&word(&original, &copy, 3), &alone(&copy)), Stops::They);
    }

    #[test]
    fn who_was_started_a_few_times_before_it_met_its_ancestor_is_still_the_later_one() {
        let original = begin(None);
        let mut copy = begin(Some(&original));
        for _ in 1..AFTER_MAX {
            assert_eq!(judged((&original, 5), (&copy, LATE)), (Stops::They, Stops::We));
            copy = begin(Some(&copy));
        }
        assert_eq!(judged((&original, 5), (&copy, LATE)), (Stops::They, Stops::We));
        // Then it is not known any more, and only who has just begun stops.
        let copy = begin(Some(&copy));
        assert_eq!(judged((&original, LATE), (&copy, LATE)), (Stops::Nobody, Stops::Nobody));
        assert_eq!(judged((&original, LATE), (&copy, 1)), (Stops::They, Stops::We));
    }

    #[test]
    fn of_two_that_began_from_one_backup_exactly_one_stops_if_either_has_just_begun() {
        let backup = begin(None);
        let (one, other) = (begin(Some(&backup)), begin(Some(&backup)));
        assert_eq!(judged((&one, 9), (&other, 5)), (Stops::They, Stops::We));
        assert_eq!(judged((&one, LATE), (&other, 599)), (Stops::They, Stops::We));
        let (first, second) = judged((&one, 7), (&other, 7));
        assert!(first != second && first != Stops::Nobody && second != Stops::Nobody);
        // None of the two stops where both have been there for long, whatever is said.
        for age_s in [600, LATE, u64::MAX / 1000] {
            assert_eq!(judged((&one, LATE), (&other, age_s)), (Stops::Nobody, Stops::Nobody));
        }
    }

    #[test]
    fn a_thief_of_the_nodes_key_is_nobodys_ancestor() {
        let ancestor = begin(None);
        let original = begin(Some(&ancestor));
        // He has all that lies in the home, also the words that were signed, but not the key of a life that is over.
        let thief = begin(None);
        let mut forged = word(&thief, &original, LATE);
        forged.key = alone(&ancestor).key;
        assert!(forged.is_beside(original.name()) && !forged.is_good(&key(1), &key(2), BODY));
        let named_nobody = alone(&ancestor);
        assert!(!named_nobody.is_beside(original.name()), "what it did sign names nobody that came later");
        // As a life of his own he is as old as he likes, and the original goes on.
        assert_eq!(judged((&original, 600), (&thief, LATE)).0, Stops::Nobody);
        let descendant = begin(Some(&original));
        assert_eq!(judged((&original, 5), (&descendant, LATE)).0, Stops::They);
        // Who signs that it is after and before us is no honest process.
        let mut both = begin(Some(&original));
        let of_thief = begin(Some(&both));
        both.after.insert(0, of_thief.name());
        assert_eq!(judged((&both, 5), (&of_thief, LATE)), (Stops::Nobody, Stops::Nobody));
    }

    #[test]
    fn who_serves_because_the_owner_said_so_stops_for_nobody() {
        let original = begin(None);
        let accepted = Life::begin(Identity::generate(), Some(&alone(&original)), true, Instant::now());
        let age_s = accepted.age_ms(Instant::now()) / 1000;
        assert_eq!(accepted.age_ms(Instant::now()), BY_THE_OWNER);
        let said = accepted.word(&key(1), &key(2), BODY, Some((original.name(), BY_THE_OWNER)));
        assert_eq!(who_stops(&word(&original, &accepted, LATE), &said), Stops::Nobody);
        assert_eq!(who_stops(&said, &word(&original, &accepted, LATE)), Stops::Nobody);
        assert_eq!(who_stops(&word(&original, &accepted, LATE), &alone(&accepted)), Stops::Nobody);
        // Another one that has just begun stops for it.
        let sibling = begin(None);
        assert_eq!(judged((&sibling, 5), (&accepted, age_s)), (Stops::We, Stops::They));
    }

    #[test]
    fn what_a_life_signs_is_good_in_its_record_and_nowhere_else() {
        let (ancestor, other) = (begin(None), begin(None));
        let life = begin(Some(&ancestor));
        let said = word(&life, &other, 5);
        assert!(said.is_good(&key(1), &key(2), BODY));
        assert!(!said.is_good(&key(2), &key(2), BODY) && !said.is_good(&key(1), &key(3), BODY));
        assert!(!said.is_good(&key(1), &key(2), b"another"));
        let changes: [fn(&mut LifeWord); 5] = [
            |said| said.is_last ^= true,
            |said| said.after.clear(),
            |said| said.beside.0[15] ^= 1,
            |said| said.age_ms += 1,
            |said| said.after.extend([LifeName([9; 16]); AFTER_MAX]),
        ];
        for change in changes {
            let mut changed = said.clone();
            change(&mut changed);
            assert!(!changed.is_good(&key(1), &key(2), BODY));
        }
        assert!(!said.is_beside(life.name()), "nobody is beside himself");
        let mut last = life.last_word(&key(1), &key(2), BODY, Some((other.name(), 5000)));
        assert!(last.is_last() && last.is_good(&key(1), &key(2), BODY));
        last.is_last = false;
        assert!(!last.is_good(&key(1), &key(2), BODY), "nor is it taken away");
    }
}
