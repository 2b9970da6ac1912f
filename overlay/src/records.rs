//! The newest record of each node that we have heard of.
//!
//! Records come with every hello and every answer of a lookup, again and again the same ones: what is here was verified once,
//! and is known again by its bytes. An older one is as good as none, whoever brings it.
//!
//! Anybody can make keys and sign records with them, so the book has a bound, and what was learned first is forgotten first.
//! That costs a verification, and no knowledge: whoever is in the routing table has its record there.
//!
//! Pure. Not here: what a record says ([`crate::record`]).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use reactor::cell::RefCell;
use reactor::crypto::PublicKey;

use crate::contact::{Contact, Introduction};
use crate::record::{NodeRecord, RecordError, SignedRecord};

/// Records kept, of half a KiB each.
pub const RECORDS_MAX: usize = 2048;

/// What a record is to whoever is shown it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Newer than what was known.
    News,
    /// The one that was known.
    Known,
    /// Older than what was known.
    Stale,
}

/// The newest records of a network's nodes. Clones are the same book.
#[derive(Clone, Debug)]
pub struct Records {
    network: PublicKey,
    book: Rc<RefCell<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    own: Option<Arc<NodeRecord>>,
    kept: BTreeMap<PublicKey, Kept>,
    learned_count: u64,
}

#[derive(Debug)]
struct Kept {
    record: Arc<NodeRecord>,
    /// How many had been learned before it.
    number: u64,
}

impl Records {
    /// An empty book of the network of this owner.
    pub fn new(network: PublicKey) -> Records {
        Records { network, book: Rc::default() }
    }

    /// What we say of ourselves; none of a client.
    pub fn own(&self) -> Option<Arc<NodeRecord>> {
        self.book.borrow().own.clone()
    }

    /// From now on we say this of ourselves.
    pub(crate) fn set_own(&self, record: Arc<NodeRecord>) {
        self.book.borrow_mut().own = Some(record);
    }

    /// The newest record of the holder of `key`.
    pub fn of(&self, key: &PublicKey) -> Option<Arc<NodeRecord>> {
        self.book.borrow().kept.get(key).map(|kept| kept.record.clone())
    }

    /// Keeps what is said of `holder`, if it is its own word and newer than what is known. Returns the newest, and what
    /// that which was said is beside it.
    ///
    /// # Errors
    /// [`RecordError`]; nothing is kept then.
    pub fn take(
        &self,
        holder: &PublicKey,
        said: &SignedRecord,
    ) -> Result<(Arc<NodeRecord>, Standing), RecordError> {
        let (newest, standing) = self.compare(holder, said)?;
        if standing == Standing::News {
            self.book.borrow_mut().keep(newest.clone());
        }
        Ok((newest, standing))
    }

    /// As [`take`](Records::take), and keeps nothing.
    fn compare(
        &self,
        holder: &PublicKey,
        said: &SignedRecord,
    ) -> Result<(Arc<NodeRecord>, Standing), RecordError> {
        let known = self.of(holder);
        if let Some(known) = &known {
            if known.signed() == said {
                return Ok((known.clone(), Standing::Known));
            }
            // Not worth a look at its signature: nothing comes of it either way.
            if said.claimed_version()? < known.version() {
                return Ok((known.clone(), Standing::Stale));
            }
        }
        let record = Arc::new(said.verify(holder, &self.network)?);
        if let Some(known) = known.filter(|known| !record.is_newer_than(known)) {
            return Ok((known, Standing::Stale));
        }
        Ok((record, Standing::News))
    }

    /// As [`meet`](Records::meet), of somebody who may never have been there: what is said of him is used and not kept, or who
    /// makes up nodes would have the book forget those that there are.
    pub fn hear_of(&self, introduction: &Introduction) -> Contact {
        let addresses = introduction.addresses.iter().copied();
        let contact = self.newest(Contact::new(introduction.public_key, addresses));
        let said = introduction.record.as_ref().map(|said| self.compare(&introduction.public_key, said));
        said.and_then(Result::ok).map(|(record, _)| record).into_iter().fold(contact, Contact::with_record)
    }

    /// Whom somebody names, under the newest record that is known here, the one that comes with it included. A record that is
    /// refused takes nothing from its node: who brought it may have made it up.
    pub fn meet(&self, introduction: &Introduction) -> Contact {
        if let Some(said) = &introduction.record
            && let Err(error) = self.take(&introduction.public_key, said)
        {
            tracing::debug!(key = %introduction.public_key, %error, "a node's record is refused");
        }
        let addresses = introduction.addresses.iter().copied();
        self.newest(Contact::new(introduction.public_key, addresses))
    }

    /// The same contact under the newest record that is known here.
    pub fn newest(&self, contact: Contact) -> Contact {
        match self.of(&contact.public_key) {
            Some(record) => contact.with_record(record),
            None => contact,
        }
    }
}

impl Book {
    fn keep(&mut self, record: Arc<NodeRecord>) {
        let number = self.learned_count;
        self.learned_count += 1;
        self.kept.insert(*record.holder(), Kept { record, number });
        if self.kept.len() > RECORDS_MAX
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, kept)| kept.number).map(|(key, _)| *key)
        {
            self.kept.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Statement;
    use reactor::crypto::Identity;

    fn identity(number: u32) -> Identity {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Identity::from_seed(&seed)
    }

    fn book() -> Records {
        Records::new(identity(1).public_key())
    }

    fn record(number: u32, version: u64) -> NodeRecord {
        let port = 1000 + version as u16;
        let addresses = [([192, 0, 2, 7], port).into()].into_iter().collect();
        let statement = Statement { addresses, ..Statement::default() };
        NodeRecord::sign(&identity(number), &identity(1).public_key(), version, statement)
    }

    #[test]
    fn the_newest_counts_in_whatever_order_they_come() {
        let book = book();
        let key = identity(2).public_key();
        for (version, newest, standing) in [
            (5, 5, Standing::News),
            (4, 5, Standing::Stale),
            (5, 5, Standing::Known),
            (7, 7, Standing::News),
            (5, 7, Standing::Stale),
        ] {
            let (known, found) = book.take(&key, record(2, version).signed()).unwrap();
            assert_eq!((known.version(), found), (newest, standing));
        }
    }

    #[test]
    fn a_forged_record_takes_nothing_from_its_node() {
        let book = book();
        let (node, liar) = (identity(2).public_key(), record(3, 9));
        book.take(&node, record(2, 5).signed()).unwrap();
        assert_eq!(book.take(&node, liar.signed()), Err(RecordError::Forged));
        let elsewhere = Statement { release: "x".into(), ..Statement::default() };
        let elsewhere = NodeRecord::sign(&identity(2), &identity(9).public_key(), 9, elsewhere);
        assert_eq!(book.take(&node, elsewhere.signed()), Err(RecordError::Forged));
        let addresses = ["192.0.2.9:1".parse().unwrap()].into_iter().collect();
        let introduction = Introduction { public_key: node, addresses, record: Some(liar.signed().clone()) };
        let met = book.meet(&introduction);
        assert_eq!(met.record().unwrap().version(), 5);
        assert_eq!(book.hear_of(&introduction), met);
        // Where it says that it is, and then where somebody else says so.
        assert_eq!(met.addresses[..], ["192.0.2.7:1005".parse().unwrap(), "192.0.2.9:1".parse().unwrap()]);
    }

    #[test]
    fn a_full_book_forgets_what_it_learned_first() {
        let book = book();
        let last = 10 + RECORDS_MAX as u32;
        for number in 10..=last {
            book.take(&identity(number).public_key(), record(number, 1).signed()).unwrap();
        }
        assert_eq!(book.book.borrow().kept.len(), RECORDS_MAX);
        assert!(book.of(&identity(10).public_key()).is_none());
        // Of a node that is only heard of, nothing is kept, and nobody is forgotten for it.
        let stranger = Contact::new(identity(5).public_key(), []).with_record(Arc::new(record(5, 1)));
        assert_eq!(book.hear_of(&Introduction::from(&stranger)), stranger);
        assert!(
            book.of(&identity(5).public_key()).is_none() && book.of(&identity(11).public_key()).is_some()
        );
        assert!(book.of(&identity(last).public_key()).is_some());
    }
}
