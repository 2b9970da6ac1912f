//! Passports that the owner renewed, and who has which.
//!
//! A member's passport ends, so that nobody stays a member because he was forgotten. Long before that the owner's running
//! process signs another one. A passport is no secret and opens nothing without its holder's key, so every node keeps the
//! newest of every member on disk, and whoever proves a key is let in by the newest that either side has of it: a member
//! that was away until the one in its key file had expired comes in at the first node that has its new one, and is handed
//! that there.
//!
//! Only what the owner himself signed is kept, as long as it is good. Of two passports of one holder that which is good for
//! longer is the newer.
//! Nobody is a member less by an entry here that is missing, damaged or old: he has to be given his passport again.
//!
//! Not here: how they spread (`renewing.rs`), and when one is renewed, which is the owner's affair.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::crypto::hash::sha3_256;
use reactor::serialization::{from_bytes, to_bytes};

use crate::files;
use crate::message::RenewRefused;
use crate::passport::{Passport, PassportError};
use crate::revocation::Revocations;

/// Members whose passports are kept: as many as a list of the revoked names.
pub const RENEWALS_MAX: usize = 1024;

/// Most bytes of the file: a passport of one link takes some 220.
const FILE_BYTES_MAX: u64 = 512 * 1024;

/// What tells one book from another; travels in every hello.
pub(crate) type Digest = [u8; 8];

/// The newest passport of each member whose was renewed. Clones are the same book.
#[derive(Clone, Debug, Default)]
pub struct Renewals {
    kept: Rc<RefCell<BTreeMap<PublicKey, Passport>>>,
}

impl Renewals {
    /// An empty book.
    pub fn new() -> Renewals {
        Renewals::default()
    }

    /// The newest passport of whoever shows `shown`, that one included. One that is not good at `now` takes no other's place:
    /// the owner's clock may have been ahead when it was signed.
    pub fn newest(&self, shown: &Passport, now: SystemTime) -> Passport {
        match self.kept.borrow().get(&shown.holder()) {
            Some(kept) if kept.is_newer_than(shown) && kept.is_open(now) => kept.clone(),
            _ => shown.clone(),
        }
    }

    /// Forgets whom `revoked` names, and what is not good at `now`: two books become equal only if neither has what the other
    /// refuses.
    pub(crate) fn forget(&self, revoked: &Revocations, now: SystemTime) {
        self.kept.borrow_mut().retain(|_, passport| passport.is_open(now) && revoked.admit(passport).is_ok());
    }

    /// Keeps those of `passports` that are good and newer than what is known of their holders, and returns them. What is no
    /// good any more, or not yet by our clock, is left out: whoever brings it has a longer memory, or another clock.
    ///
    /// # Errors
    /// `NotTheOwners` or `TooMany`; nothing is kept then.
    pub fn take(
        &self,
        passports: Vec<Passport>,
        network: &PublicKey,
        revoked: &Revocations,
        now: SystemTime,
    ) -> Result<Vec<Passport>, RenewRefused> {
        self.forget(revoked, now);
        let mut kept = self.kept.borrow_mut();
        let mut news = Vec::new();
        for passport in passports {
            // What is known is not verified again: it is offered at every meeting.
            let is_news = kept.get(&passport.holder()).is_none_or(|known| passport.is_newer_than(known));
            if !is_news || revoked.admit(&passport).is_err() {
                continue;
            }
            match passport.verify(network, &passport.holder(), now) {
                Ok(_) if passport.is_the_owners_word() => news.push(passport),
                Err(PassportError::Expired { .. } | PassportError::NotYetValid { .. }) => {}
                _ => return Err(RenewRefused::NotTheOwners),
            }
        }
        let mut next = kept.clone();
        next.extend(news.iter().map(|passport| (passport.holder(), passport.clone())));
        if next.len() > RENEWALS_MAX {
            return Err(RenewRefused::TooMany);
        }
        *kept = next;
        Ok(news)
    }

    /// All that are kept.
    pub fn all(&self) -> Vec<Passport> {
        self.kept.borrow().values().cloned().collect()
    }

    /// The same for two books with the same passports.
    pub(crate) fn digest(&self) -> Digest {
        let kept = self.kept.borrow();
        let serials: Vec<u8> = kept.values().flat_map(Passport::fingerprint).collect();
        let [a, b, c, d, e, f, g, h, ..] = sha3_256(&[b"hypha renewals 1", &serials]);
        [a, b, c, d, e, f, g, h]
    }

    /// Reads the passports at `path` into the book; that there is no file means none. Blocks: call it through
    /// `reactor::offload`, and [`take`](Renewals::take) what it returns.
    ///
    /// # Errors
    /// If it can't be read, or is no such file.
    pub fn load(path: &Path) -> io::Result<Vec<Passport>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }

    /// Replaces the file at `path` by these passports, durably, whole or not at all. Blocks.
    ///
    /// # Errors
    /// If the directory can't be written to; the old file is then untouched.
    pub fn save(path: &Path, passports: &[Passport]) -> io::Result<()> {
        files::replace(path, &to_bytes(&passports))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reactor::crypto::Identity;

    use super::*;
    use crate::passport::Rights;

    const DAY: Duration = Duration::from_secs(86_400);

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    /// One that is good until `days` after the beginning of time.
    fn passport(issuer: u8, holder: u8, days: u32) -> Passport {
        let expires = SystemTime::UNIX_EPOCH + DAY * days;
        Passport::issue(&identity(issuer), identity(holder).public_key(), Rights::CLIENT, Some(expires))
    }

    fn take(book: &Renewals, passports: Vec<Passport>, days: u32) -> Result<Vec<Passport>, RenewRefused> {
        let now = SystemTime::UNIX_EPOCH + DAY * days;
        book.take(passports, &identity(1).public_key(), &Revocations::default(), now)
    }

    #[test]
    fn the_newest_of_each_holder_counts_in_whatever_order_they_come() {
        let (old, new, other) = (passport(1, 2, 30), passport(1, 2, 60), passport(1, 3, 40));
        let (book, second) = (Renewals::new(), Renewals::new());
        assert_eq!(take(&book, vec![new.clone()], 1), Ok(vec![new.clone()]));
        assert_eq!(take(&book, vec![old.clone(), other.clone()], 1), Ok(vec![other.clone()]));
        assert_eq!(take(&second, vec![old.clone()], 1), Ok(vec![old.clone()]));
        assert_ne!(book.digest(), second.digest());
        take(&second, book.all(), 1).unwrap();
        assert_eq!(book.digest(), second.digest());
        let now = SystemTime::UNIX_EPOCH + DAY;
        assert_eq!((book.newest(&old, now), second.newest(&new, now)), (new.clone(), new));
        let newest = book.newest(&passport(1, 3, 90), now);
        assert_eq!(newest.expires(), Some(SystemTime::UNIX_EPOCH + DAY * 90));
    }

    #[test]
    fn a_passport_of_a_clock_that_was_ahead_keeps_none_out_that_is_good() {
        let from = |days: u32, until: u32| {
            let (from, until) = (SystemTime::UNIX_EPOCH + DAY * days, SystemTime::UNIX_EPOCH + DAY * until);
            Passport::issue_from(&identity(1), identity(2).public_key(), Rights::CLIENT, from, Some(until))
        };
        let (ahead, good) = (from(365, 545), from(1, 181));
        let book = Renewals::new();
        take(&book, vec![ahead.clone()], 365).unwrap();
        assert_eq!(book.newest(&good, SystemTime::UNIX_EPOCH + DAY * 365), ahead);
        // The clock is put right.
        assert_eq!(book.newest(&good, SystemTime::UNIX_EPOCH + DAY * 2), good);
        assert_eq!(take(&book, vec![good.clone()], 2), Ok(vec![good.clone()]));
        assert_eq!(book.all(), [good]);
    }

    #[test]
    fn books_become_equal_though_somebody_was_removed_or_a_passport_is_over() {
        let (over, good, removed) = (passport(1, 2, 30), passport(1, 3, 90), passport(1, 4, 90));
        let (here, there) = (Renewals::new(), Renewals::new());
        take(&here, vec![over, good.clone(), removed], 1).unwrap();
        take(&there, vec![good], 1).unwrap();
        let revoked = Revocations::default();
        let revoked = revoked.with(&identity(1), [identity(4).public_key()], SystemTime::UNIX_EPOCH).unwrap();
        let (network, now) = (identity(1).public_key(), SystemTime::UNIX_EPOCH + DAY * 31);
        assert_eq!(here.take(there.all(), &network, &revoked, now), Ok(vec![]));
        assert_eq!(here.digest(), there.digest());
    }

    #[test]
    fn only_what_the_owner_signed_for_a_member_is_kept() {
        let book = Renewals::new();
        let mut rights = Rights::CLIENT;
        rights.invite = true;
        let delegate = Passport::issue(&identity(1), identity(2).public_key(), rights, None);
        let delegated =
            delegate.delegate(&identity(2), identity(3).public_key(), Rights::CLIENT, None).unwrap();
        let own = Passport::of_owner(identity(1).public_key());
        for foreign in [delegated, own, passport(4, 2, 30)] {
            assert_eq!(take(&book, vec![passport(1, 3, 30), foreign], 1), Err(RenewRefused::NotTheOwners));
        }
        assert!(book.all().is_empty(), "all or none");
        // Somebody remembers what is over; that does not keep us from the rest.
        let (over, good, removed) = (passport(1, 2, 30), passport(1, 3, 90), passport(1, 4, 90));
        let revoked = Revocations::default();
        let revoked = revoked.with(&identity(1), [identity(4).public_key()], SystemTime::UNIX_EPOCH).unwrap();
        let (network, now) = (identity(1).public_key(), SystemTime::UNIX_EPOCH + DAY * 31);
        assert_eq!(book.take(vec![over, good.clone(), removed], &network, &revoked, now), Ok(vec![good]));
    }

    #[test]
    fn a_full_book_forgets_who_is_no_member_and_nobody_else() {
        let book = Renewals::new();
        let until = |number: u32, days: u32| {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&(number + 1).to_be_bytes());
            let holder = Identity::from_seed(&seed).public_key();
            let expires = SystemTime::UNIX_EPOCH + DAY * days;
            Passport::issue(&identity(1), holder, Rights::CLIENT, Some(expires))
        };
        let full: Vec<Passport> =
            (0..RENEWALS_MAX as u32).map(|number| until(number, if number == 7 { 10 } else { 90 })).collect();
        take(&book, full.clone(), 1).unwrap();
        let late = until(5000, 90);
        assert_eq!(take(&book, vec![late.clone()], 1), Err(RenewRefused::TooMany));
        assert_eq!(take(&book, vec![late.clone()], 20), Ok(vec![late.clone()]));
        let holders: Vec<PublicKey> = book.all().iter().map(Passport::holder).collect();
        assert_eq!(holders.len(), RENEWALS_MAX);
        assert!(holders.contains(&late.holder()) && !holders.contains(&full[7].holder()));
        let bytes = to_bytes(&book.all());
        assert!(bytes.len() as u64 <= FILE_BYTES_MAX, "{}", bytes.len());
    }

    #[test]
    fn a_book_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("renewals");
        assert_eq!(Renewals::load(&path).unwrap(), []);
        let passports = vec![passport(1, 2, 30), passport(1, 3, 30)];
        Renewals::save(&path, &passports).unwrap();
        assert_eq!(Renewals::load(&path).unwrap(), passports);
        std::fs::write(&path, "nothing of ours").unwrap();
        assert!(Renewals::load(&path).is_err());
    }
}
