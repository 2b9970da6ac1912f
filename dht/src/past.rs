//! What a register's values were, as far as nodes keep them: the means of whoever goes back.
//!
//! All nodes are asked, and not only those that keep the register now: who kept it before has what it was. A value is its writer's
//! word, and verified as any other. *When* it was the newest, each node says of itself, by its own clock (`values`); a node that lies
//! can hide values, and show such as a writer signed and nobody chose. So it is told how many nodes say the same.
//!
//! Not here: which values a node keeps ([`crate::node::past`]).

mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::cell::RefCell;

use crate::block::mutable::{Genesis, Signed, SignedRecord};
use crate::block_store::{BlockStore, HeaderHash, ReadError, Record, RegisterAddress};
use crate::client::Client;
use crate::links::{Failure, Links};
use crate::message::{ListPast, NodeRetention, PastEntry, ReadPast, Retention};
use crate::node::past::PAST_LISTED_MAX;

use values::Shown;
pub use values::{At, Past, Values};

/// A page of a list takes a node some milliseconds, and a second on a cold disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Pages that are asked for of one node: more than one that tells the truth has.
const PAGES_MAX: usize = 64;

/// For how long one node is asked for its list, and for as long again for what no other node shows: of a thousand values each takes
/// milliseconds, and over a bad line a tenth of a second.
const NODE_LIMIT: Duration = Duration::from_secs(120);

/// How many values a node may have forgotten between its list and a look at them: as its time comes, each is.
const FORGOTTEN_MAX: usize = 4;

impl<O: Overlay + 'static> Client<O> {
    /// Lists what a register's values were, as far as nodes keep them, the oldest first, and what it is now.
    ///
    /// What one node alone shows is read from it and verified, and if that fails nothing that it says counts. So one that lies shows
    /// nothing but what a writer signed.
    ///
    /// # Errors
    /// [`ReadError::NoQuorum`] if no node answers.
    ///
    /// # Suspends
    /// Until all have answered, or not.
    pub fn past(&self, register: &RegisterAddress) -> Result<Values, ReadError> {
        let genesis = self.membership(register)?.genesis;
        // Before they are asked: what comes meanwhile is no past.
        let newest = self.read(register);
        let (mut shown, reason) = self.ask_all(|links, contact| list(links, contact, register));
        if shown.is_empty() {
            return Err(ReadError::NoQuorum { answers: 0, needed: 1, reason });
        }
        let left_out = self.leave_out(register, &genesis, &mut shown);
        let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        let of = newest.as_ref().ok().and_then(Option::as_ref);
        let values = values::together(&shown, of, now.as_secs());
        Ok(Values { values, newest, answers: shown.len(), left_out })
    }

    /// Has each node show what it alone lists. Takes out those that do not, and returns who they are and why.
    fn leave_out(
        &self,
        register: &RegisterAddress,
        genesis: &Signed<Genesis>,
        shown: &mut Vec<Shown>,
    ) -> Vec<(Contact, String)> {
        // If one alone speaks, nobody is deceived by more than that.
        if shown.iter().filter(|(_, entries)| !entries.is_empty()).count() < 2 {
            return Vec::new();
        }
        let lone = values::lone(shown);
        let wrong: RefCell<BTreeMap<usize, String>> = RefCell::default();
        let gone: RefCell<BTreeMap<usize, BTreeSet<usize>>> = RefCell::default();
        reactor::scope(|scope| {
            for (node, (shown, lone)) in shown.iter().zip(lone).enumerate() {
                let (wrong, gone) = (&wrong, &gone);
                scope.spawn(move || {
                    let mut absent = BTreeSet::new();
                    let verified = verify(self.links(), register, genesis, shown, &lone, &mut absent);
                    if let Err(failure) = verified {
                        wrong.borrow_mut().insert(node, failure.to_string());
                    }
                    gone.borrow_mut().insert(node, absent);
                });
            }
        });
        let (wrong, gone) = (wrong.into_inner(), gone.into_inner());
        let mut left_out = Vec::new();
        let mut kept = Vec::new();
        for (node, (contact, entries)) in std::mem::take(shown).into_iter().enumerate() {
            match wrong.get(&node) {
                Some(reason) => left_out.push((contact, reason.clone())),
                None => {
                    let is_there = |index: &usize| !gone.get(&node).is_some_and(|gone| gone.contains(index));
                    let entries = entries.into_iter().enumerate().filter(|(index, _)| is_there(index));
                    kept.push((contact, entries.map(|(_, entry)| entry).collect()));
                }
            }
        }
        *shown = kept;
        left_out
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
                Ok(Some(record)) if is_it(&record, past.version, &past.header_hash, &genesis) => {
                    return Ok(record.to_record());
                }
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
fn is_it(record: &SignedRecord, version: u64, header_hash: &HeaderHash, genesis: &Signed<Genesis>) -> bool {
    record.hash() == *header_hash && record.header.version == version && record.verify(genesis, None).is_ok()
}

/// Has a node show those of its entries whose places are `lone`. Enters into `absent` those that it has forgotten since.
fn verify<O: Overlay>(
    links: &Links<O>,
    register: &RegisterAddress,
    genesis: &Signed<Genesis>,
    (contact, entries): &Shown,
    lone: &[usize],
    absent: &mut BTreeSet<usize>,
) -> Result<(), Failure> {
    let began = reactor::now();
    for index in lone {
        let PastEntry { since_seconds, version, header_hash, writer } = &entries[*index];
        let record = show(links, contact, register, *since_seconds)?;
        // Something newer may have come, and what it has now may share its second with what it had before.
        let is_last = *index + 1 == entries.len();
        match record {
            Some(record)
                if is_it(&record, *version, header_hash, genesis) && record.header.writer == *writer => {}
            record if is_last || (record.is_none() && absent.len() < FORGOTTEN_MAX) => {
                absent.insert(*index);
            }
            None => return Err(Failure::Lied("it lists what it does not have".into())),
            Some(_) => return Err(Failure::Lied("it lists what nobody signed".into())),
        }
        refuse_late(began)?;
    }
    Ok(())
}

/// Nobody waits longer for one node.
fn refuse_late(began: Instant) -> Result<(), Failure> {
    match reactor::now().saturating_duration_since(began) > NODE_LIMIT {
        true => Err(Failure::Lied(format!("it is not through in {} s", NODE_LIMIT.as_secs()))),
        false => Ok(()),
    }
}

fn list<O: Overlay>(
    links: &Links<O>,
    contact: &Contact,
    register: &RegisterAddress,
) -> Result<Vec<PastEntry>, Failure> {
    let began = reactor::now();
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
        // What it has now is the last, and from an earlier time if its clock was set back.
        let kept = &page[..page.len().saturating_sub(1)];
        let is_in_order = kept.is_sorted_by_key(|entry| entry.since_seconds);
        if !is_in_order || kept.first().is_some_and(|first| first.since_seconds < from_seconds) {
            return Err(Failure::Lied("its list goes in circles".into()));
        }
        let last = page.iter().map(|entry| entry.since_seconds).max();
        entries.extend(page);
        // What can't be read is left out of a page, so a short one need not be the last.
        match last.and_then(|last| last.checked_add(1)) {
            Some(next) if next > from_seconds => from_seconds = next,
            Some(_) => return Err(Failure::Lied("its list goes in circles".into())),
            None => return Ok(entries),
        }
        refuse_late(began)?;
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

    use super::{At, Client, Genesis, Record, Values};
    use crate::BlockStore;
    use crate::block::mutable::Signed;
    use crate::testing::{FakeNetwork, FakeOverlay, Mood};

    /// A network that keeps what was for a week, and a register that had six values in it, an hour each.
    fn six_values() -> (Rc<FakeNetwork>, Client<FakeOverlay>, Signed<Genesis>, Vec<Record>) {
        let network = FakeNetwork::new(4, 3, 1);
        network.nodes.iter().for_each(|fake| fake.node().say_retention(7 * 24 * 3600));
        let owner = Rc::new(Identity::from_seed(&[1; 32]));
        let client = network.client(&owner);
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let mut values = Vec::new();
        for number in 0..6u8 {
            let expected = values.last().map(|last: &Record| last.header_hash);
            values.push(client.compare_and_swap(&register, expected, vec![number].into()).unwrap());
            reactor::sleep(super::Duration::from_secs(3600));
        }
        (network, client, genesis, values)
    }

    #[test]
    fn what_a_register_was_is_read_from_who_kept_it_and_no_lie_of_one_of_them_is_believed() {
        sim::run(1, SimConfig::default(), |_| {
            let (network, client, genesis, values) = six_values();
            let register = genesis.register();
            let keeper =
                network.nodes.iter().position(|fake| genesis.index_of(&fake.contact.id) == Some(0)).unwrap();
            // One of them has others' values under the times of these.
            let liar = network.nodes[keeper].node();
            for entry in liar.list_past(&register, 0).unwrap() {
                let mut record = liar.read_past(&register, entry.since_seconds).unwrap().unwrap();
                record.payload = Bytes::from_static(b"forged");
                liar.put_past(&register, entry.since_seconds, record);
            }
            let Values { values: past, answers, left_out, .. } = client.past(&register).unwrap();
            assert_eq!((answers, left_out), (4, vec![]), "nothing that it lists is wrong");
            let read: Vec<_> = past.iter().map(|value| client.read_past(&register, value).unwrap()).collect();
            assert_eq!(read, values, "the newest too");
            assert!(past.is_sorted_by_key(|value| value.since_seconds));
            assert!(past.iter().all(|value| value.node_count() >= 2), "{past:?}");
            // Those who are away are done without.
            let others = network.nodes.iter().enumerate().filter(|(index, _)| *index != keeper);
            others.for_each(|(_, fake)| fake.mood.set(Mood::Dead));
            let Values { values: past, answers, .. } = client.past(&register).unwrap();
            assert_eq!((past.len(), answers), (6, 1));
            assert!(past.iter().all(|value| client.read_past(&register, value).is_err()), "nobody signed it");
        });
    }

    #[test]
    fn one_that_invents_values_hides_none_and_is_told_by_name() {
        sim::run(1, SimConfig::default(), |_| {
            let (network, client, genesis, values) = six_values();
            let register = genesis.register();
            let liar =
                network.nodes.iter().find(|fake| genesis.index_of(&fake.contact.id) == Some(0)).unwrap();
            let honest = client.past(&register).unwrap();
            // Beside each it has another one of that number, and one that is from tomorrow.
            let stranger = Identity::from_seed(&[9; 32]);
            let node = liar.node();
            for entry in node.list_past(&register, 0).unwrap() {
                let mut record = node.read_past(&register, entry.since_seconds).unwrap().unwrap();
                let mut header = (*record.header).clone();
                header.payload_hash = [0xff; 32];
                record.header = Signed::sign(&stranger, header);
                node.put_past(&register, entry.since_seconds + 1, record.clone());
                node.put_past(&register, entry.since_seconds + 24 * 3600, record);
            }
            let past = client.past(&register).unwrap();
            let named: Vec<_> = past.left_out.iter().map(|(node, _)| node.id).collect();
            assert_eq!((named, past.answers), (vec![liar.contact.id], 3));
            let hashes =
                |values: &Values| -> Vec<_> { values.values.iter().map(|value| value.header_hash).collect() };
            assert_eq!(hashes(&past), hashes(&honest));
            for (value, record) in past.values.iter().zip(&values) {
                assert_eq!(client.read_past(&register, value).as_ref(), Ok(record));
                let At::Was(was) = past.at(value.since_seconds + 1000) else { panic!("{value:?}") };
                assert_eq!(was.header_hash, value.header_hash);
            }
        });
    }
}
