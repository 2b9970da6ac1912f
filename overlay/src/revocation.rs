//! Who is a member no more, on the owner's word.
//!
//! One list for the whole network, signed by the owner and numbered: every node keeps the newest that it has seen, on disk,
//! and refuses an older one, so that nobody brings a revoked key back by replaying what was true before. Who meets says
//! which number it has, and who has the newer list hands it over (`session.rs`): a node that was away learns it from the
//! first that it meets.
//!
//! A key that stands in it opens nothing, nor does a passport that it signed. A ticket's key may stand in it too.
//! The list only ever grows in practice: a passport without an end stays revoked for ever. So it is bounded.
//!
//! What else the owner says to all nodes goes the same way, in the same list: for how long they keep what is deleted, whoever
//! says that it may go.
//!
//! Not here: cutting those off that are connected (`state.rs`), and what nodes make of a retention, which is the block store's.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature};
use reactor::serialization::{from_bytes, to_bytes};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::passport::{Passport, PassportError, seconds_since_1970};

/// Keys that a list names. 42 KiB, which travel once to each node for each change.
pub const REVOKED_MAX: usize = 1024;

/// Most bytes of an encoded list.
pub const REVOCATIONS_BYTES_MAX: usize = 64 * 1024;

/// A key that was revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// Which.
    pub key: PublicKey,
    /// When: seconds since 1970, by the owner's clock.
    pub since: u64,
}

/// The list. The empty one, version 0, is nobody's word, and what everybody begins with.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Revocations {
    version: u64,
    revoked: Vec<Revoked>,
    #[serde(default)]
    retention_seconds: Option<u32>,
    signature: Option<Signature>,
}

/// Why a list is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RevocationsError {
    /// The owner did not sign it.
    #[error("the network's owner did not sign the list of the revoked")]
    Forged,
    /// It names too many.
    #[error(
        "a list of the revoked names at most {REVOKED_MAX} keys: make a new network, and invite those who stay"
    )]
    TooLong,
    /// It does not decode.
    #[error("this is no list of the revoked: it is damaged, or of another version")]
    Malformed,
}

impl Revocations {
    /// The list that follows all of `lists`: whoever is on any of them is on it, and `keys` beside. A home that was put back
    /// from a copy may have signed another list of a number that the nodes know: nobody comes back by that.
    ///
    /// # Errors
    /// `TooLong`.
    pub fn following<'a>(
        lists: impl IntoIterator<Item = &'a Revocations>,
        owner: &Identity,
        keys: impl IntoIterator<Item = PublicKey>,
        now: SystemTime,
    ) -> Result<Revocations, RevocationsError> {
        let mut all = Revocations::default();
        for list in lists {
            // The newer word; of two of one number the one that keeps for longer.
            if (list.version, list.retention_seconds) > (all.version, all.retention_seconds) {
                all.retention_seconds = list.retention_seconds;
            }
            all.version = all.version.max(list.version);
            for entry in &list.revoked {
                if !all.contains(&entry.key) {
                    all.revoked.push(*entry);
                }
            }
        }
        all.with(owner, keys, now)
    }

    /// The list that follows this one: with `keys` beside those that are on it.
    ///
    /// # Errors
    /// `TooLong`.
    pub fn with(
        &self,
        owner: &Identity,
        keys: impl IntoIterator<Item = PublicKey>,
        now: SystemTime,
    ) -> Result<Revocations, RevocationsError> {
        let mut revoked = self.revoked.clone();
        for key in keys {
            if !revoked.iter().any(|entry| entry.key == key) {
                revoked.push(Revoked { key, since: seconds_since_1970(now) });
            }
        }
        if revoked.len() > REVOKED_MAX {
            return Err(RevocationsError::TooLong);
        }
        Ok(self.followed_by(owner, revoked, self.retention_seconds))
    }

    /// The list that follows this one, of the same keys: from now on nodes keep what is deleted for so long at least.
    pub fn with_retention(&self, owner: &Identity, retention_seconds: u32) -> Revocations {
        self.followed_by(owner, self.revoked.clone(), Some(retention_seconds))
    }

    fn followed_by(
        &self,
        owner: &Identity,
        revoked: Vec<Revoked>,
        retention_seconds: Option<u32>,
    ) -> Revocations {
        let mut next = Revocations { version: self.version + 1, revoked, retention_seconds, signature: None };
        next.signature = Some(owner.sign(&next.digest(&owner.public_key())));
        next
    }

    /// For how long nodes are to keep what is deleted, at least; `None` if the owner has never said so.
    pub fn retention_seconds(&self) -> Option<u32> {
        self.retention_seconds
    }

    /// Counts the owner's changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What tells it from any other list, of the same number too.
    pub fn hash(&self) -> [u8; 32] {
        sha3_256(&[b"hypha revocations", &self.to_bytes()])
    }

    /// Everybody on it, in the order in which they were put there.
    pub fn revoked(&self) -> &[Revoked] {
        &self.revoked
    }

    /// Whether a key is on it.
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.revoked.iter().any(|entry| entry.key == *key)
    }

    /// Whether a passport is good as far as this list goes: neither its holder is on it, nor one who signed it.
    ///
    /// # Errors
    /// `Revoked`.
    pub fn admit(&self, passport: &Passport) -> Result<(), PassportError> {
        match passport.holders().position(|holder| self.contains(&holder)) {
            Some(link) => Err(PassportError::Revoked { link: link as u32 }),
            None => Ok(()),
        }
    }

    /// Whether it is the word of `network`'s owner.
    ///
    /// # Errors
    /// `Forged` or `TooLong`.
    pub fn verify(&self, network: &PublicKey) -> Result<(), RevocationsError> {
        if self.revoked.len() > REVOKED_MAX {
            return Err(RevocationsError::TooLong);
        }
        match &self.signature {
            None if *self == Revocations::default() => Ok(()),
            None => Err(RevocationsError::Forged),
            Some(signature) => {
                network.verify(&self.digest(network), signature).map_err(|_| RevocationsError::Forged)
            }
        }
    }

    fn digest(&self, network: &PublicKey) -> [u8; 32] {
        let mut entries = Vec::with_capacity(self.revoked.len() * 40);
        for Revoked { key, since } in &self.revoked {
            entries.extend_from_slice(key.as_bytes());
            entries.extend_from_slice(&since.to_be_bytes());
        }
        let version = self.version.to_be_bytes();
        match self.retention_seconds {
            None => sha3_256(&[b"hypha revocations 1", network.as_bytes(), &version, &entries]),
            Some(seconds) => {
                let said = seconds.to_be_bytes();
                sha3_256(&[b"hypha revocations 2", network.as_bytes(), &version, &said, &entries])
            }
        }
    }

    /// The list as bytes, to be stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Reads what [`to_bytes`](Revocations::to_bytes) wrote. Verifies nothing.
    ///
    /// # Errors
    /// `Malformed` or `TooLong`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Revocations, RevocationsError> {
        if bytes.len() > REVOCATIONS_BYTES_MAX {
            return Err(RevocationsError::TooLong);
        }
        from_bytes(bytes).map_err(|_| RevocationsError::Malformed)
    }

    /// Reads the list at `path`; that there is none means the empty one. Blocks: call it through `reactor::offload`.
    ///
    /// # Errors
    /// If it can't be read, or is not the word of `network`'s owner.
    pub fn load(path: &Path, network: &PublicKey) -> io::Result<Revocations> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Revocations::default()),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(REVOCATIONS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        let list = Revocations::from_bytes(&bytes).and_then(|list| list.verify(network).map(|()| list));
        list.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Replaces the list at `path`, durably, whole or not at all. Blocks: call it through `reactor::offload`.
    ///
    /// # Errors
    /// If the directory can't be written to; the old file is then untouched.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        files::replace(path, &self.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::WELCOME_BYTES_MAX;
    use crate::passport::Rights;

    /// What stands around a list in an answer.
    const ANSWER_AROUND_BYTES_MAX: usize = 64;

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn list(numbers: &[u8]) -> Revocations {
        let keys = numbers.iter().map(|number| identity(*number).public_key());
        Revocations::default().with(&identity(1), keys, SystemTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_list_is_the_owners_word_for_one_network() {
        let first = list(&[3]);
        let second = first.with(&identity(1), [identity(4).public_key()], SystemTime::now()).unwrap();
        assert_eq!((first.version(), second.version(), second.revoked().len()), (1, 2, 2));
        let network = identity(1).public_key();
        for list in [&Revocations::default(), &first, &second] {
            assert_eq!(list.verify(&network), Ok(()));
            assert_eq!(Revocations::from_bytes(&list.to_bytes()).as_ref(), Ok(list));
        }
        assert_eq!(first.verify(&identity(2).public_key()), Err(RevocationsError::Forged));
        let forgeries = [
            Revocations { version: 9, ..first.clone() },
            Revocations { revoked: vec![], ..second.clone() },
            Revocations { signature: None, ..first.clone() },
            Revocations { version: 1, ..Revocations::default() },
            Revocations { retention_seconds: Some(0), ..Revocations::default() },
            Revocations { retention_seconds: Some(0), ..first.clone() },
            Revocations { retention_seconds: None, ..first.with_retention(&identity(1), 5) },
        ];
        for forged in forgeries {
            assert_eq!(forged.verify(&network), Err(RevocationsError::Forged), "{forged:?}");
        }
    }

    #[test]
    fn two_lists_of_one_number_become_one_that_forgets_nobody() {
        let (nodes, copy) = (list(&[3]), list(&[4]));
        assert_eq!((nodes.version(), copy.version()), (1, 1));
        assert_ne!(nodes.hash(), copy.hash());
        let keys = [identity(5).public_key()];
        let both = Revocations::following([&nodes, &copy], &identity(1), keys, SystemTime::now()).unwrap();
        assert_eq!((both.version(), both.revoked().len()), (2, 3));
        assert_eq!(both.verify(&identity(1).public_key()), Ok(()));
        assert!([3, 4, 5].iter().all(|number| both.contains(&identity(*number).public_key())));
    }

    #[test]
    fn a_retention_stays_until_the_owner_says_another_and_of_two_at_once_the_longer_holds() {
        let (owner, now) = (identity(1), SystemTime::UNIX_EPOCH);
        let week = list(&[3]).with_retention(&owner, 7);
        assert_eq!((week.retention_seconds(), week.version(), week.revoked().len()), (Some(7), 2, 1));
        assert_eq!(week.verify(&owner.public_key()), Ok(()));
        let removed = week.with(&owner, [identity(4).public_key()], now).unwrap();
        assert_eq!(removed.retention_seconds(), Some(7));
        let follow = |lists: [&Revocations; 2]| {
            Revocations::following(lists, &owner, [], now).unwrap().retention_seconds()
        };
        // A copy of the owner's home that is older, or was asked at the same time.
        assert_eq!(follow([&week, &list(&[4])]), Some(7));
        assert_eq!(follow([&list(&[4]).with_retention(&owner, 1), &week]), Some(7));
        assert_eq!(follow([&week, &removed.with_retention(&owner, 1)]), Some(1));
    }

    #[test]
    fn who_was_invited_by_the_revoked_is_out_as_well() {
        let (owner, delegate, guest) = (identity(1), identity(3), identity(4).public_key());
        let first = Passport::issue(&owner, delegate.public_key(), Rights::ALL, None);
        let second = first.delegate(&delegate, guest, Rights::CLIENT, None).unwrap();
        let direct = Passport::issue(&owner, guest, Rights::CLIENT, None);
        assert_eq!(list(&[3]).admit(&first), Err(PassportError::Revoked { link: 0 }));
        assert_eq!(list(&[3]).admit(&second), Err(PassportError::Revoked { link: 0 }));
        assert_eq!(list(&[4]).admit(&second), Err(PassportError::Revoked { link: 1 }));
        assert_eq!(list(&[3]).admit(&direct), Ok(()));
        assert_eq!(list(&[4]).admit(&first), Ok(()));
    }

    #[test]
    fn the_longest_list_fits_its_bound_and_a_longer_one_is_refused() {
        let key = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            PublicKey::from_bytes(bytes)
        };
        let full = (0..REVOKED_MAX as u32).map(key);
        let full = Revocations::default().with(&identity(1), full, SystemTime::now()).unwrap();
        assert!(full.to_bytes().len() <= REVOCATIONS_BYTES_MAX);
        // Whoever is removed is shown it in place of a welcome, and what is longer than that is not sent.
        let most = full.to_bytes().len() + ANSWER_AROUND_BYTES_MAX;
        assert!(most <= WELCOME_BYTES_MAX, "{most}");
        let longer = full.with(&identity(1), [key(u32::MAX)], SystemTime::now());
        assert_eq!(longer, Err(RevocationsError::TooLong));
        assert!(full.with(&identity(1), [key(0)], SystemTime::now()).is_ok(), "nobody is on it twice");
    }

    #[test]
    fn a_list_outlives_the_process_and_a_damaged_one_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (path, network) = (directory.path().join("revoked"), identity(1).public_key());
        assert_eq!(Revocations::load(&path, &network).unwrap(), Revocations::default());
        list(&[3]).save(&path).unwrap();
        assert_eq!(Revocations::load(&path, &network).unwrap(), list(&[3]));
        std::fs::write(&path, b"nothing of ours").unwrap();
        assert!(Revocations::load(&path, &network).is_err());
    }
}
