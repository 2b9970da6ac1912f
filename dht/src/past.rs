//! What a register's values were, as far as nodes keep them: the means of whoever goes back.
//!
//! All nodes are asked, and not only those that keep the register now: who kept it before has what it was. A value is its writer's
//! word, and verified as any other. *When* it was the newest, each node says of itself, by its own clock; a node that lies can hide
//! values, and show such as a writer signed and nobody chose. So it is told how many nodes say the same.
//!
//! Not here: which values a node keeps ([`crate::node::past`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::crypto::PublicKey;

use crate::block::mutable::{Genesis, Signed, SignedRecord};
use crate::block_store::{HeaderHash, ReadError, Record, RegisterAddress};
use crate::client::Client;
use crate::links::{Failure, Links};
use crate::message::{ListPast, NodeRetention, PastEntry, ReadPast, Retention};
use crate::node::past::PAST_LISTED_MAX;

/// A page of a list takes a node some milliseconds, and a second on a cold disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Pages that are asked for of one node: more than one that tells the truth has.
const PAGES_MAX: usize = 64;

/// A value that a register had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Its number.
    pub version: u64,
    /// What tells it from another of that number.
    pub header_hash: HeaderHash,
    /// Who signed it, as the nodes say: [`Client::read_past`] verifies it.
    pub writer: PublicKey,
    /// Since when it was the newest, in seconds since 1970: the median of what the nodes say by their clocks, and of two the later; no
    /// earlier than any of a lower version.
    pub since_seconds: u64,
    /// Which nodes show it, and under which time.
    shown_by: Vec<(Contact, u64)>,
}

impl Past {
    /// How many nodes show it.
    pub fn node_count(&self) -> usize {
        self.shown_by.len()
    }
}

/// Puts together what nodes show, the oldest first.
fn together(shown: Vec<(Contact, Vec<PastEntry>)>) -> Vec<Past> {
    let mut values: BTreeMap<(u64, [u8; 32]), Past> = BTreeMap::new();
    for (node, entries) in shown {
        for entry in entries {
            let PastEntry { since_seconds, version, header_hash, writer } = entry;
            let new = || Past { version, header_hash, writer, since_seconds, shown_by: Vec::new() };
            let value = values.entry((version, header_hash.0)).or_insert_with(new);
            if value.shown_by.last().is_none_or(|(last, _)| last.id != node.id) {
                value.shown_by.push((node.clone(), since_seconds));
            }
        }
    }
    // Numbers are signed, times are not: one node's word decides none of them where three speak.
    let mut values: Vec<Past> = values.into_values().collect();
    let mut latest = 0;
    for value in &mut values {
        let mut said: Vec<u64> = value.shown_by.iter().map(|(_, since_seconds)| *since_seconds).collect();
        said.sort_unstable();
        latest = latest.max(said[said.len() / 2]);
        value.since_seconds = latest;
    }
    values
}

impl<O: Overlay + 'static> Client<O> {
    /// Lists what a register's values were, as far as nodes keep them, the oldest first, and what it is now. Returns with it how many
    /// nodes answered.
    ///
    /// # Errors
    /// [`ReadError::NoQuorum`] if no node answers.
    ///
    /// # Suspends
    /// Until all have answered, or not.
    pub fn past(&self, register: &RegisterAddress) -> Result<(Vec<Past>, usize), ReadError> {
        let (shown, reason) = self.ask_all(|links, contact| list(links, contact, register));
        let answers = shown.len();
        match answers {
            0 => Err(ReadError::NoQuorum { answers, needed: 1, reason }),
            _ => Ok((together(shown), answers)),
        }
    }

    /// Reads a value that the register had, from whichever node shows it, and verifies it.
    ///
    /// # Errors
    /// [`ReadError`]: none of them has it any more, or what they show does not verify.
    ///
    /// # Suspends
    /// Until one has shown it.
    pub fn read_past(&self, register: &RegisterAddress, past: &Past) -> Result<Record, ReadError> {
        let genesis = self.membership(register)?.genesis;
        let mut reason = String::new();
        for (contact, since_seconds) in &past.shown_by {
            match show(self.links(), contact, register, *since_seconds) {
                Ok(Some(record)) if is_it(&record, past, &genesis) => return Ok(record.to_record()),
                Ok(Some(_)) => reason = format!("{contact} shows another value, or one that nobody signed"),
                Ok(None) => reason = format!("{contact} has it no more"),
                Err(failure) => reason = failure.to_string(),
            }
        }
        Err(ReadError::NoQuorum { answers: 0, needed: 1, reason })
    }

    /// For how long each node keeps what is deleted, as it says; and how many do not answer.
    ///
    /// # Suspends
    /// Until all have answered, or not.
    pub fn retentions(&self) -> (Vec<Retention>, usize) {
        let known = self.known_nodes().len();
        let (said, _) = self.ask_all(|links, contact| match links.local(&contact.id) {
            Some(node) => {
                let (seconds, shorter) = node.retention().map_err(Failure::Refused)?;
                Ok(Retention { seconds, shorter, held_bytes: node.held_bytes() })
            }
            None => {
                links.call::<NodeRetention>(contact, &(), Bytes::new(), CALL_TIMEOUT).map(|(said, _)| said)
            }
        });
        let silent = known.saturating_sub(said.len());
        (said.into_iter().map(|(_, said)| said).collect(), silent)
    }

    /// Asks all nodes at once; returns what those say that answer, in the order of their ids, and why the last failed that did not.
    fn ask_all<T>(
        &self,
        ask: impl Fn(&Links<O>, &Contact) -> Result<T, Failure>,
    ) -> (Vec<(Contact, T)>, String) {
        let nodes: Vec<Contact> = self.known_nodes().into_values().collect();
        let said: RefCell<BTreeMap<NodeId, (Contact, T)>> = RefCell::default();
        let reason = RefCell::new("no node is known".to_owned());
        reactor::scope(|scope| {
            for contact in &nodes {
                let (said, reason, ask) = (&said, &reason, &ask);
                scope.spawn(move || match ask(self.links(), contact) {
                    Ok(answer) => drop(said.borrow_mut().insert(contact.id, (contact.clone(), answer))),
                    Err(failure) => drop(reason.replace(failure.to_string())),
                });
            }
        });
        (said.into_inner().into_values().collect(), reason.into_inner())
    }
}

/// Whether it is the value that was listed, and its writer's word.
fn is_it(record: &SignedRecord, past: &Past, genesis: &Signed<Genesis>) -> bool {
    record.hash() == past.header_hash
        && record.header.version == past.version
        && record.verify(genesis, None).is_ok()
}

fn list<O: Overlay>(
    links: &Links<O>,
    contact: &Contact,
    register: &RegisterAddress,
) -> Result<Vec<PastEntry>, Failure> {
    let mut entries: Vec<PastEntry> = Vec::new();
    let mut from_seconds = 0;
    for _ in 0..PAGES_MAX {
        let page = match links.local(&contact.id) {
            Some(node) => node.list_past(register, from_seconds).map_err(Failure::Refused)?,
            None => {
                let asked = (*register, from_seconds);
                links.call::<ListPast>(contact, &asked, Bytes::new(), CALL_TIMEOUT)?.0
            }
        };
        if page.len() > PAST_LISTED_MAX {
            return Err(Failure::Lied("its list is too long".into()));
        }
        let is_in_order = page.is_sorted_by_key(|entry| entry.since_seconds);
        let (first, last) = (page.first().cloned(), page.last().map(|entry| entry.since_seconds));
        if !is_in_order || first.is_some_and(|first| first.since_seconds < from_seconds) {
            return Err(Failure::Lied("its list goes in circles".into()));
        }
        entries.extend(page);
        // What can't be read is left out of a page, so a short one need not be the last.
        match last.and_then(|last| last.checked_add(1)) {
            Some(next) => from_seconds = next,
            None => return Ok(entries),
        }
    }
    Ok(entries)
}

fn show<O: Overlay>(
    links: &Links<O>,
    contact: &Contact,
    register: &RegisterAddress,
    since_seconds: u64,
) -> Result<Option<SignedRecord>, Failure> {
    match links.local(&contact.id) {
        Some(node) => node.read_past(register, since_seconds).map_err(Failure::Refused),
        None => {
            let asked = (*register, since_seconds);
            links.call::<ReadPast>(contact, &asked, Bytes::new(), CALL_TIMEOUT).map(|(record, _)| record)
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reactor::crypto::Identity;
    use reactor::sim::{self, SimConfig};
    use std::rc::Rc;

    use crate::BlockStore;
    use crate::testing::{FakeNetwork, Mood};

    #[test]
    fn one_node_alone_says_of_no_value_when_it_was_the_newest() {
        let contact = |number: u8| overlay::Contact::new(Identity::from_seed(&[number; 32]).public_key(), []);
        let entry = |version: u64, since_seconds| super::PastEntry {
            since_seconds,
            version,
            header_hash: crate::HeaderHash([version as u8; 32]),
            writer: Identity::from_seed(&[9; 32]).public_key(),
        };
        let honest = vec![entry(1, 100), entry(2, 200), entry(3, 300)];
        let early = vec![entry(1, 1), entry(2, 2), entry(3, 3)];
        let shown = vec![(contact(1), early), (contact(2), honest.clone()), (contact(3), honest.clone())];
        let times = |values: Vec<super::Past>| -> Vec<u64> {
            values.iter().map(|value| value.since_seconds).collect()
        };
        assert_eq!(times(super::together(shown)), [100, 200, 300]);
        // A clock that was put back makes no later value an earlier one.
        let back = vec![entry(1, 100), entry(2, 50)];
        assert_eq!(times(super::together(vec![(contact(2), back)])), [100, 100]);
    }

    #[test]
    fn what_a_register_was_is_read_from_who_kept_it_and_no_lie_of_one_of_them_is_believed() {
        sim::run(1, SimConfig::default(), |_| {
            let network = FakeNetwork::new(4, 3, 1);
            network.nodes.iter().for_each(|fake| fake.node.borrow().say_retention(7 * 24 * 3600));
            let owner = Rc::new(Identity::from_seed(&[1; 32]));
            let client = network.client(&owner);
            let genesis = client.create_register([1; 32], vec![]).unwrap();
            let register = genesis.register();
            let mut values = Vec::new();
            for number in 0..6u8 {
                let expected = values.last().map(|last: &crate::Record| last.header_hash);
                values.push(client.compare_and_swap(&register, expected, vec![number].into()).unwrap());
                reactor::sleep(super::Duration::from_secs(3600));
            }
            let keeper =
                network.nodes.iter().position(|fake| genesis.index_of(&fake.contact.id) == Some(0)).unwrap();
            // One of them has others' values under the times of these.
            let liar = network.nodes[keeper].node.borrow().clone();
            for entry in liar.list_past(&register, 0).unwrap() {
                let mut record = liar.read_past(&register, entry.since_seconds).unwrap().unwrap();
                record.payload = Bytes::from_static(b"forged");
                liar.put_past(&register, entry.since_seconds, record);
            }
            let (past, answers) = client.past(&register).unwrap();
            assert_eq!(answers, 4);
            let read: Vec<_> = past.iter().map(|value| client.read_past(&register, value).unwrap()).collect();
            assert_eq!(read, values, "the newest too");
            assert!(past.is_sorted_by_key(|value| value.since_seconds));
            assert!(past.iter().all(|value| value.node_count() >= 2), "{past:?}");
            // Those who are away are done without.
            let others = network.nodes.iter().enumerate().filter(|(index, _)| *index != keeper);
            others.for_each(|(_, fake)| fake.mood.set(Mood::Dead));
            let (past, answers) = client.past(&register).unwrap();
            assert_eq!((past.len(), answers), (6, 1));
            assert!(past.iter().all(|value| client.read_past(&register, value).is_err()), "nobody signed it");
        });
    }
}
