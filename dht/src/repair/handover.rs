//! Giving blocks to those who are responsible for them.
//!
//! Every round looks through the keys that this node holds and is not responsible for, asks those who are whether they
//! have them, and puts what they lack. Where one of those has no room, the next in the order takes it; so a node whose disk is
//! full, or smaller than it says, keeps no block from having its copies, and whoever holds one with it sees to that as well.
//! What all of them have is remembered, so that it is asked for again only when who is near changes, or what counts of what they
//! say, or who is full.
//!
//! Not here: dropping what was handed over. A surplus copy costs room, and a dropped one may have been the last.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};

use super::{COMPARE_TIMEOUT, Repair, Report};
use crate::address::Address;
use crate::links::Failure;
use crate::message::{HandWords, HasBlocks, PutBlock, PutBlockRequest, Refusal};
use crate::placement::SPARES;
use crate::store::{Key, Kind};

/// Keys offered at once: an offer is 8 KiB.
const BATCH: usize = 256;

/// Keys remembered as handed over, 32 bytes each; further ones are offered again in every round.
const HANDED_OVER_MAX: usize = 1 << 20;

/// What those responsible are known to have.
#[derive(Default)]
pub(super) struct HandedOver {
    view: u64,
    full: BTreeSet<NodeId>,
    addresses: HashSet<Address>,
    /// Of some of them, there are fewer copies than there should be: nobody had room, or somebody takes them for deleted and shows
    /// no word for it.
    has_homeless: bool,
}

/// How handing over goes in one round.
struct Offering<'a> {
    neighbours: &'a [Contact],
    /// Who has no room.
    full: BTreeSet<NodeId>,
    /// All that was offered is where it belongs.
    is_done: bool,
}

/// What came of giving a block to somebody who lacks it.
enum Given {
    Taken,
    /// He has no room.
    Full,
    /// He says that it is deleted, and shows no word for it.
    Denied,
    /// He may take it another time.
    Failed,
}

impl<O: Overlay + 'static> Repair<O> {
    /// Offers what this node holds for others to those others, of whom some are known to be `full`.
    pub(super) fn hand_over(
        &self,
        neighbours: &[Contact],
        view: u64,
        full: BTreeSet<NodeId>,
        report: &mut Report,
    ) {
        {
            let mut known = self.handed_over.borrow_mut();
            if known.view != view || known.full != full {
                *known = HandedOver { view, full: full.clone(), ..HandedOver::default() };
            }
        }
        let mut offering = Offering { neighbours, full, is_done: true };
        let version = self.node.surplus_version();
        let mut from = Some(Key::first(Kind::BLOCK));
        while let Some(start) = from {
            let keys = self.node.store().keys(&start, BATCH);
            let theirs: Vec<Address> = keys
                .iter()
                .filter(|key| key.kind == Kind::BLOCK)
                .map(|key| Address(key.address))
                .filter(|address| {
                    let key = NodeId(address.0);
                    !self.node.is_responsible(&key) || self.has_full_keeper(&key, &offering.full)
                })
                .filter(|address| !self.node.is_dead(address).unwrap_or(true))
                .filter(|address| !self.handed_over.borrow().addresses.contains(address))
                .collect();
            self.offer(&theirs, &mut offering, report);
            from = keys.last().and_then(Key::next).filter(|key| key.kind == Kind::BLOCK);
            reactor::yield_now();
        }
        let is_done = offering.is_done && !self.handed_over.borrow().has_homeless;
        self.node.set_handed_over(is_done.then_some(view), version);
    }

    /// Whether somebody who is to keep this has no room, where everybody is known.
    fn has_full_keeper(&self, key: &NodeId, full: &BTreeSet<NodeId>) -> bool {
        let order = || self.node.order(key).unwrap_or_default();
        !full.is_empty() && order().iter().take(self.links.replicas).any(|id| full.contains(id))
    }

    /// Those who are to keep a block, and then those who take their places.
    fn in_order(&self, address: &Address, neighbours: &[Contact]) -> Vec<Contact> {
        match self.node.order(&NodeId(address.0)) {
            Some(order) => {
                let contact = |id: &NodeId| neighbours.iter().find(|contact| contact.id == *id).cloned();
                order.iter().filter_map(contact).collect()
            }
            None => self.links.closest(address.0, self.links.replicas + SPARES),
        }
    }

    fn offer(&self, blocks: &[Address], offering: &mut Offering<'_>, report: &mut Report) {
        let mut offers: BTreeMap<NodeId, (Contact, Vec<Address>)> = BTreeMap::new();
        let mut spares: BTreeMap<Address, Vec<Contact>> = BTreeMap::new();
        for address in blocks {
            let mut keepers = self.in_order(address, offering.neighbours);
            spares.insert(*address, keepers.split_off(keepers.len().min(self.links.replicas)));
            for contact in keepers.into_iter().filter(|contact| contact.id != self.node.own()) {
                let offer = offers.entry(contact.id).or_insert_with(|| (contact, Vec::new()));
                offer.1.push(*address);
            }
        }
        let mut refused: HashSet<Address> = HashSet::new();
        // Of which blocks as many keepers have no room.
        let mut homeless: BTreeMap<Address, usize> = BTreeMap::new();
        let mut are_denied = false;
        for (contact, addresses) in offers.values() {
            let Ok(lacking) = self.lacked_by(contact, addresses) else {
                refused.extend(addresses);
                continue;
            };
            for address in lacking {
                match self.try_to_give(contact, &address, offering, report) {
                    Given::Taken => {}
                    Given::Full => *homeless.entry(address).or_default() += 1,
                    Given::Denied => are_denied = true,
                    Given::Failed => {
                        refused.insert(address);
                    }
                }
            }
        }
        let homeless = self.stand_in(homeless, &spares, &mut refused, offering, report);
        report.missing += refused.len();
        offering.is_done &= refused.is_empty();
        let mut known = self.handed_over.borrow_mut();
        // Nobody is asked again before somebody else is full, or there: not for want of room, nor by who denies it as often as he is
        // asked.
        known.has_homeless |= homeless > 0 || are_denied;
        if known.addresses.len() < HANDED_OVER_MAX {
            known.addresses.extend(blocks.iter().filter(|address| !refused.contains(address)));
        }
    }

    fn lacked_by(&self, contact: &Contact, addresses: &Vec<Address>) -> Result<Vec<Address>, Failure> {
        let (has, _) = self.links.call::<HasBlocks>(contact, addresses, Bytes::new(), COMPARE_TIMEOUT)?;
        if has.len() != addresses.len() {
            return Err(Failure::Lied("a list of the wrong length".into()));
        }
        Ok(addresses.iter().zip(has).filter(|(_, has)| !has).map(|(address, _)| *address).collect())
    }

    /// Has blocks on as many of their `spares` as they have keepers without room. Returns how many still lack somebody; where a spare
    /// failed that may take it another time, the block is `refused`.
    fn stand_in(
        &self,
        mut homeless: BTreeMap<Address, usize>,
        spares: &BTreeMap<Address, Vec<Contact>>,
        refused: &mut HashSet<Address>,
        offering: &mut Offering<'_>,
        report: &mut Report,
    ) -> usize {
        let most = homeless.keys().map(|address| spares[address].len()).max().unwrap_or(0);
        for place in 0..most {
            let mut offers: BTreeMap<NodeId, (Contact, Vec<Address>)> = BTreeMap::new();
            for (address, count) in &mut homeless {
                match spares[address].get(place).filter(|_| *count > 0) {
                    Some(contact) if contact.id == self.node.own() => *count -= 1,
                    Some(contact) if !offering.full.contains(&contact.id) => {
                        let offer = offers.entry(contact.id).or_insert_with(|| (contact.clone(), Vec::new()));
                        offer.1.push(*address);
                    }
                    _ => {}
                }
            }
            for (contact, addresses) in offers.values() {
                let Ok(lacking) = self.lacked_by(contact, addresses) else {
                    refused.extend(addresses);
                    continue;
                };
                for address in addresses {
                    let has_it = !lacking.contains(address);
                    let given = if has_it {
                        Given::Taken
                    } else {
                        self.try_to_give(contact, address, offering, report)
                    };
                    match (given, homeless.get_mut(address)) {
                        (Given::Taken, Some(count)) => *count -= 1,
                        (Given::Failed, _) => {
                            refused.insert(*address);
                        }
                        _ => {}
                    }
                }
            }
        }
        homeless.values().filter(|count| **count > 0).count()
    }

    /// Gives a block to somebody who lacks it, unless he has no room.
    fn try_to_give(
        &self,
        contact: &Contact,
        address: &Address,
        offering: &mut Offering<'_>,
        report: &mut Report,
    ) -> Given {
        if offering.full.contains(&contact.id) {
            return Given::Full;
        }
        match self.give(contact, address) {
            Ok(()) => {
                report.handed_over += 1;
                Given::Taken
            }
            Err(Failure::Refused(Refusal::Full)) => {
                offering.full.insert(contact.id);
                Given::Full
            }
            Err(Failure::Refused(Refusal::Deleted)) => Given::Denied,
            Err(failure) => {
                tracing::debug!(%address, node = %contact, "can't hand over a block: {failure}");
                Given::Failed
            }
        }
    }

    fn give(&self, contact: &Contact, address: &Address) -> Result<(), Failure> {
        let (proof, content) = self.node.serve_block(address, None).map_err(Failure::Refused)?;
        let key = self.node.word_key(address, &proof.tag);
        // What its owner said of it goes before it: who heard less than we did may think that it is gone.
        let words: Vec<_> =
            self.node.words(&[key]).map_err(Failure::Refused)?.into_iter().flatten().collect();
        if !words.is_empty() {
            let heard = self.links.call::<HandWords>(contact, &words, Bytes::new(), COMPARE_TIMEOUT);
            if let Err(failure) = heard {
                // Too old by its clock, say. What it makes of the block it says itself.
                tracing::debug!(node = %contact.id, %failure, "an owner's word was not taken");
            }
        }
        let length = content.len();
        let put_seconds = Some(proof.put_seconds);
        let request = PutBlockRequest { put_seconds, ..PutBlockRequest::new(*address, proof.tag) };
        match self.links.call::<PutBlock>(contact, &request, content, COMPARE_TIMEOUT) {
            // While we were away.
            Err(Failure::Refused(Refusal::Deleted)) => {
                self.rest(length);
                self.fetch_words(contact, &[key])?;
                // Whoever shows no word that it is gone by is not believed.
                match self.node.is_dead(address) {
                    Ok(true) => Ok(()),
                    _ => Err(Failure::Refused(Refusal::Deleted)),
                }
            }
            given => {
                self.rest(length);
                given.map(drop)
            }
        }
    }
}
