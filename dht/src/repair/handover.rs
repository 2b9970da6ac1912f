//! Giving blocks to those who are responsible for them.
//!
//! Every round looks through the keys that this node holds and is not responsible for, asks those who are whether they
//! have them, and puts what they lack. What all of them have is remembered, so that it is asked for again only when who
//! is near changes.
//!
//! Not here: dropping what was handed over. A surplus copy costs room, and a dropped one may have been the last.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};

use super::{COMPARE_TIMEOUT, Repair, Report};
use crate::address::Address;
use crate::links::Failure;
use crate::message::{HandWords, HasBlocks, PutBlock, PutBlockRequest, Refusal};
use crate::placement;
use crate::store::{Key, Kind};

/// Keys offered at once: an offer is 8 KiB.
const BATCH: usize = 256;

/// Keys remembered as handed over, 32 bytes each; further ones are offered again in every round.
const HANDED_OVER_MAX: usize = 1 << 20;

/// What those responsible are known to have.
#[derive(Default)]
pub(super) struct HandedOver {
    near: Vec<NodeId>,
    addresses: HashSet<Address>,
}

impl<O: Overlay + 'static> Repair<O> {
    /// Offers what this node holds for others to those others.
    pub(super) fn hand_over(&self, neighbours: &[Contact], report: &mut Report) {
        let near: Vec<NodeId> = neighbours.iter().map(|contact| contact.id).collect();
        if self.handed_over.borrow().near != near {
            *self.handed_over.borrow_mut() = HandedOver { near, addresses: HashSet::new() };
        }
        let own = self.node.own();
        let mut from = Some(Key::first(Kind::BLOCK));
        while let Some(start) = from {
            let keys = self.node.store().keys(&start, BATCH);
            let surplus: Vec<Address> = keys
                .iter()
                .filter(|key| key.kind == Kind::BLOCK)
                .map(|key| Address(key.address))
                .filter(|address| !self.node.is_responsible(&own, &NodeId(address.0)))
                .filter(|address| !self.node.is_dead(address).unwrap_or(true))
                .filter(|address| !self.handed_over.borrow().addresses.contains(address))
                .collect();
            self.offer(&surplus, report);
            from = keys.last().and_then(Key::next).filter(|key| key.kind == Kind::BLOCK);
            reactor::yield_now();
        }
    }

    fn offer(&self, blocks: &[Address], report: &mut Report) {
        let mut offers: BTreeMap<NodeId, (Contact, Vec<Address>)> = BTreeMap::new();
        for address in blocks {
            let nearest = self.links.closest(address.0, self.links.replicas);
            for contact in placement::responsible(&nearest, self.links.replicas) {
                if contact.id != self.node.own() {
                    let offer = offers.entry(contact.id).or_insert_with(|| (contact.clone(), Vec::new()));
                    offer.1.push(*address);
                }
            }
        }
        let mut refused: HashSet<Address> = HashSet::new();
        for (contact, addresses) in offers.values() {
            let lacking =
                match self.links.call::<HasBlocks>(contact, addresses, Bytes::new(), COMPARE_TIMEOUT) {
                    Ok((has, _)) if has.len() == addresses.len() => addresses
                        .iter()
                        .zip(has)
                        .filter(|(_, has)| !has)
                        .map(|(address, _)| *address)
                        .collect(),
                    _ => {
                        refused.extend(addresses);
                        Vec::new()
                    }
                };
            for (index, address) in lacking.iter().enumerate() {
                match self.give(contact, address) {
                    Ok(()) => report.handed_over += 1,
                    Err(failure) => {
                        tracing::debug!(%address, node = %contact, "can't hand over a block: {failure}");
                        refused.insert(*address);
                        if failure == Failure::Refused(Refusal::Full) {
                            refused.extend(&lacking[index..]);
                            break;
                        }
                    }
                }
            }
        }
        report.missing += refused.len();
        let mut known = self.handed_over.borrow_mut();
        if known.addresses.len() < HANDED_OVER_MAX {
            known.addresses.extend(blocks.iter().filter(|address| !refused.contains(address)));
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
