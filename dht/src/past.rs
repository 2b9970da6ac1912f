//! What a register's values were, as far as nodes keep them: the means of whoever goes back.
//!
//! All nodes are asked, and not only those that keep the register now: who kept it before has what it was. A value is its writer's
//! word, and verified as any other. *When* it was the newest, each node says of itself, by its own clock (`values`); a node that lies
//! can hide values, and show such as a writer signed and nobody chose. So it is told how many nodes say the same.
//!
//! Not here: which values a node keeps ([`crate::node::past`]), and learns from others ([`crate::repair`]).

pub(crate) mod agreed;
mod listed;
mod staying;
mod values;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::cell::RefCell;

use crate::block::mutable::{Genesis, Signed, SignedRecord};
use crate::block_store::{BlockStore, HeaderHash, ReadError, Record, RegisterAddress};
use crate::client::Client;
use crate::links::{Failure, Links};
use crate::message::{NodeRetention, PastEntry, ReadPast, Retention};

pub(crate) use listed::list;
use listed::{Gap, Listed};
pub use staying::{Staying, Thin};
use values::Shown;
pub use values::{At, LeftOut, Of, Past, Values};

/// A page of a list takes a node some milliseconds, and a second on a cold disk: one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// For how long one node is asked for its list, and for as long again for what no other node shows; and by how much longer for each page
/// that it has answered, and each value that it has shown: who keeps much and goes on answering is waited for. That is 25 minutes at
/// most, and 40 for what it alone shows.
const NODE_LIMIT: Duration = Duration::from_secs(120);
const PAGE_LIMIT: Duration = Duration::from_millis(1500);
const VALUE_LIMIT: Duration = Duration::from_millis(20);

/// Of what one node alone shows, values that it is asked for at once: of two thousand over a line of a second they take two minutes, of
/// some 2 KiB each.
const SHOWN_AT_ONCE: usize = 16;

/// How many values a node may have forgotten between its list and a look at them, beside the oldest: as its time comes, each is, and it
/// is these that it forgets first.
const FORGOTTEN_MAX: usize = 4;

impl<O: Overlay + 'static> Client<O> {
    /// Lists what a register's values were, as far as nodes keep them, the oldest first, and what it is now.
    ///
    /// What one node alone shows is read from it and verified, and if that fails nothing that it says counts. So one that lies shows
    /// nothing but what a writer signed. What it does not show in time does not count either, and is told.
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
        let (listed, reason) = self.ask_all(|links, contact| list(links, contact, register));
        if listed.is_empty() {
            return Err(ReadError::NoQuorum { answers: 0, needed: 1, reason });
        }
        let late = |(contact, listed): &(Contact, Listed)| {
            let Gap { from_seconds, until_seconds, reason } = listed.gap.clone()?;
            let of = Of::Within { from_seconds, until_seconds };
            Some(LeftOut { contact: contact.clone(), of, reason })
        };
        let mut left_out: Vec<LeftOut> = listed.iter().filter_map(late).collect();
        let mut shown = listed.into_iter().map(|(contact, listed)| (contact, listed.entries)).collect();
        left_out.extend(self.leave_out(register, &genesis, &mut shown));
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
    ) -> Vec<LeftOut> {
        // If one alone speaks, nobody is deceived by more than that.
        if shown.iter().filter(|(_, entries)| !entries.is_empty()).count() < 2 {
            return Vec::new();
        }
        let lone = values::lone(shown);
        let looked: RefCell<BTreeMap<usize, Result<Looked, Failure>>> = RefCell::default();
        reactor::scope(|scope| {
            for (node, (shown, lone)) in shown.iter().zip(lone).enumerate() {
                let looked = &looked;
                scope.spawn(move || {
                    let found = verify(self.links(), register, genesis, shown, lone);
                    looked.borrow_mut().insert(node, found);
                });
            }
        });
        let mut looked = looked.into_inner();
        let (mut left_out, mut kept) = (Vec::new(), Vec::new());
        for (node, (contact, entries)) in std::mem::take(shown).into_iter().enumerate() {
            match looked.remove(&node) {
                Some(Err(failure)) => {
                    left_out.push(LeftOut { contact, of: Of::All, reason: failure.to_string() })
                }
                Some(Ok(Looked { unseen, absent, reason })) => {
                    let is_there = |index: &usize| !absent.contains(index) && !unseen.contains(index);
                    let there = entries.into_iter().enumerate().filter(|(index, _)| is_there(index));
                    kept.push((contact.clone(), there.map(|(_, entry)| entry).collect()));
                    if let Some(reason) = reason {
                        left_out.push(LeftOut { contact, of: Of::Lone(unseen.len()), reason });
                    }
                }
                // Whoever is done with has an entry.
                None => kept.push((contact, entries)),
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
            Some(node) => node.say_for_how_long().map_err(Failure::Refused),
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
pub(crate) fn is_it(
    record: &SignedRecord,
    version: u64,
    header_hash: &HeaderHash,
    genesis: &Signed<Genesis>,
) -> bool {
    record.hash() == *header_hash && record.header.version == version && record.verify(genesis, None).is_ok()
}

/// What came of a look at what one node alone lists, by the places in its list.
#[derive(Default)]
struct Looked {
    /// It has these no more.
    absent: BTreeSet<usize>,
    /// These it did not show in time.
    unseen: BTreeSet<usize>,
    /// Why.
    reason: Option<String>,
}

/// Has a node show those of its entries whose places are `lone`, the newest first, some at once. One that is slow, or is not there any more,
/// does not lie.
fn verify<O: Overlay>(
    links: &Links<O>,
    register: &RegisterAddress,
    genesis: &Signed<Genesis>,
    (contact, entries): &Shown,
    lone: Vec<usize>,
) -> Result<Looked, Failure> {
    let began = reactor::now();
    let looked: RefCell<Looked> = RefCell::default();
    let (seen, lie): (RefCell<BTreeSet<usize>>, RefCell<Option<Failure>>) = Default::default();
    let next = Cell::new(0);
    let look = |index: usize| {
        let entry = &entries[index];
        let PastEntry { since_seconds, version, header_hash, writer, .. } = entry;
        match show(links, contact, register, *since_seconds) {
            Ok(Some(record))
                if is_it(&record, *version, header_hash, genesis) && record.header.writer == *writer =>
            {
                seen.borrow_mut().insert(index);
            }
            // Something newer may have come, and what it has now may share its second with what it had before.
            Ok(record) if record.is_none() || index + 1 == entries.len() => {
                looked.borrow_mut().absent.insert(index);
            }
            Ok(_) => {
                lie.borrow_mut().get_or_insert(Failure::Lied("it lists what nobody signed".into()));
            }
            Err(failure @ Failure::Lied(_)) => drop(lie.borrow_mut().get_or_insert(failure)),
            Err(failure) => drop(looked.borrow_mut().reason.get_or_insert(failure.to_string())),
        }
    };
    reactor::scope(|scope| {
        for _ in 0..SHOWN_AT_ONCE.min(lone.len()) {
            scope.spawn(|| {
                let goes_on = || lie.borrow().is_none() && looked.borrow().reason.is_none();
                while let Some(index) = lone.iter().rev().nth(next.get()).filter(|_| goes_on()) {
                    next.set(next.get() + 1);
                    let shown = seen.borrow().len();
                    match why_late(began, VALUE_LIMIT, shown) {
                        None => look(*index),
                        Some(late) => drop(looked.borrow_mut().reason.get_or_insert(late)),
                    }
                }
            });
        }
    });
    if let Some(lie) = lie.into_inner() {
        return Err(lie);
    }
    let (mut looked, seen) = (looked.into_inner(), seen.into_inner());
    let is_newer =
        |index: &&usize| seen.first().is_none_or(|oldest| *index > oldest) && **index + 1 < entries.len();
    if looked.absent.iter().filter(is_newer).count() > FORGOTTEN_MAX {
        return Err(Failure::Lied("it lists what it does not have".into()));
    }
    looked.unseen =
        lone.into_iter().filter(|index| !seen.contains(index) && !looked.absent.contains(index)).collect();
    Ok(looked)
}

/// Nobody waits longer for one node that has answered so much.
fn why_late(began: Instant, of_each: Duration, answered: usize) -> Option<String> {
    let limit = NODE_LIMIT + of_each.saturating_mul(answered as u32);
    let is_late = reactor::now().saturating_duration_since(began) > limit;
    is_late.then(|| format!("it was not through in {} s", limit.as_secs()))
}

pub(crate) fn show<O: Overlay>(
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

    use super::{At, Client, Genesis, Of, Past, Record, RegisterAddress, Values};
    use crate::BlockStore;
    use crate::block::mutable::{Signed, SignedRecord};
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
            let named: Vec<_> = past.left_out.iter().map(|left| (left.contact.id, left.of)).collect();
            assert_eq!((named, past.answers), (vec![(liar.contact.id, Of::All)], 3));
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

    const ALONE: usize = 400;

    /// Has one node of `network` show many values that no other one does, as one that is left of those that kept the register once.
    fn keep_alone(network: &FakeNetwork, genesis: &Signed<Genesis>, register: &RegisterAddress) -> usize {
        let owner = Identity::from_seed(&[1; 32]);
        let keeper =
            network.nodes.iter().position(|fake| genesis.index_of(&fake.contact.id) == Some(0)).unwrap();
        for second in 1..=ALONE as u64 {
            let payload = second.to_le_bytes().to_vec().into();
            let record = SignedRecord::sign(&owner, *register, None, None, payload);
            network.nodes[keeper].node().put_past(register, second, record);
        }
        keeper
    }

    /// One after the other they took it more than two minutes, so it was called a liar, and what it alone kept was not to be had.
    #[test]
    fn a_node_far_away_that_has_much_to_show_is_no_liar() {
        sim::run(1, SimConfig::default(), |_| {
            let (network, client, genesis, _) = six_values();
            let register = genesis.register();
            let keeper = keep_alone(&network, &genesis, &register);
            network.nodes[keeper].delay.set(super::Duration::from_secs(1));
            let past = client.past(&register).unwrap();
            assert_eq!((past.left_out, past.answers), (vec![], 4));
            let alone = |value: &&Past| value.version == 1 && value.node_count() == 1;
            assert_eq!(past.values.iter().filter(alone).count(), ALONE);

            // One that is slower still has its time, and what it did not show in it is told.
            network.nodes[keeper].delay.set(super::Duration::from_secs(10));
            let past = client.past(&register).unwrap();
            let [left] = &past.left_out[..] else { panic!("{:?}", past.left_out) };
            let Of::Lone(unseen) = left.of else { panic!("{left:?}") };
            assert_eq!((left.contact.id, past.answers), (network.nodes[keeper].contact.id, 4));
            assert!((100..300).contains(&unseen), "{unseen}");
        });
    }

    /// What went wrong: as many as a writer may have kept were listed by nobody in two minutes, and nothing of what came counted.
    #[test]
    fn one_that_keeps_much_is_listed_to_its_end_and_of_one_that_is_too_slow_the_newest_is_had() {
        const COUNT: u64 = 20_000;
        sim::run(1, SimConfig::default(), |_| {
            let (network, client, genesis, _) = six_values();
            let register = genesis.register();
            let keeper =
                network.nodes.iter().find(|fake| genesis.index_of(&fake.contact.id) == Some(0)).unwrap();
            let record =
                SignedRecord::sign(&Identity::from_seed(&[1; 32]), register, None, None, Bytes::new());
            let first = crate::node::deletions::now_seconds() - 6 * 3600 - 30 * COUNT;
            for number in 0..COUNT {
                keeper.node().put_past(&register, first + 30 * number, record.clone());
            }
            let list = || super::listed::list(client.links(), &keeper.contact, &register).unwrap();
            let times = |listed: &super::Listed| -> Vec<u64> {
                listed.entries.iter().map(|entry| entry.since_seconds).collect()
            };
            keeper.delay.set(super::Duration::from_secs(1));
            let whole = list();
            assert!(whole.gap.is_none(), "{:?}", whole.gap);
            assert!(times(&whole).is_sorted() && whole.entries.len() == COUNT as usize + 6);

            keeper.delay.set(super::Duration::from_secs(10));
            let part = list();
            let gap = part.gap.clone().unwrap();
            let (all, times) = (times(&whole), times(&part));
            assert!(times.is_sorted() && (1000..3000).contains(&times.len()), "{}", times.len());
            let outside = |time: &u64| !(gap.from_seconds..gap.until_seconds).contains(time);
            let had: Vec<u64> = times.into_iter().filter(outside).collect();
            assert_eq!(had, all.into_iter().filter(outside).collect::<Vec<_>>());
            assert!(had.len() > 500);
        });
    }

    #[test]
    fn what_a_node_forgets_while_it_is_asked_makes_it_no_liar_and_gaps_do() {
        sim::run(1, SimConfig::default(), |_| {
            for (gone, is_liar) in [(1..=60, false), (60..=120, true)] {
                let (network, client, genesis, _) = six_values();
                let register = genesis.register();
                let keeper = keep_alone(&network, &genesis, &register);
                network.nodes[keeper].delay.set(super::Duration::from_secs(1));
                let node = network.nodes[keeper].node();
                let calls = network.clone();
                let forgets = reactor::spawn(move || {
                    // It has listed them by then, and shown none.
                    while calls.calls_of("dht.read_past") == 0 {
                        reactor::sleep(super::Duration::from_millis(100));
                    }
                    gone.for_each(|second| node.forget_one(&register, second));
                });
                let past = client.past(&register).unwrap();
                forgets.join().unwrap();
                let lies: Vec<_> = past.left_out.iter().map(|left| left.of).collect();
                assert_eq!(lies, if is_liar { vec![Of::All] } else { vec![] });
            }
        });
    }
}
