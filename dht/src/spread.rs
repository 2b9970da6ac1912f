//! Seeing to it that each block is on enough nodes without one of them, so that this one may be taken away.
//!
//! Repair makes the copies that are missing once a node is gone; until it has, the next death counts double. Here they are
//! made beforehand, and that they are there is not inferred from who should have them: every node that stays is asked what it
//! has. A new copy counts once its node has acknowledged it as durable and, asked again, says that it has it.
//!
//! What is put while this goes on may be put on the node that leaves: as any block it is on a quorum, so on another too.
//! Who has turned the node out goes over it once more.
//!
//! Not here: registers, which their owner moves ([`crate::keepers`]); turning a node out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::cell::RefCell;

use crate::address::Address;
use crate::block_store::BlockStore;
use crate::client::Client;
use crate::collect::{Census, CensusError};
use crate::links::Failure;
use crate::message::{GetBlockResponse, HasBlocks, PutBlock, PutBlockRequest};
use crate::placement;
use crate::replicate::{BLOCK_CALL_TIMEOUT, GetJob};

/// Nobody's clock matters here.
const ANY_CLOCK: Duration = Duration::MAX;

/// Blocks that are copied at once: drives go on meanwhile.
const COPIES_AT_ONCE: usize = 4;

/// Why a node can't be done without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpreadError {
    /// What the nodes hold is not known.
    #[error(transparent)]
    Unknown(#[from] CensusError),
    /// A node that is to stay does not answer, so that what it holds is not known.
    #[error("{0} does not answer, and what it holds is not known")]
    Silent(NodeId),
    /// Too few nodes would be left for the copies.
    #[error("{staying} nodes would be left, and each block is to be on {copies}")]
    TooFew {
        /// How many would be left.
        staying: usize,
        /// How many copies there are to be.
        copies: usize,
    },
    /// The copies could not be made.
    #[error("{count} blocks have too few copies on the other nodes: {reason}")]
    Thin {
        /// How many blocks.
        count: u64,
        /// What went wrong with one of them.
        reason: String,
    },
}

/// What was looked at, and done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// Blocks that the nodes hold.
    pub blocks: u64,
    /// Blocks of which copies were made.
    pub copied: u64,
    /// Whether the node that leaves answered: what it alone had is not known otherwise.
    pub was_asked: bool,
}

/// A block of which the nodes that stay have too few copies.
struct Thin {
    address: Address,
    holders: Vec<Contact>,
    /// How many copies are missing.
    missing: usize,
    /// When its youngest copy was put, by the word of those who hold it.
    put_seconds: u64,
}

impl<O: Overlay + 'static> Client<O> {
    /// Copies each block of this client's tag until as many nodes have it as a block has copies, `leaving` not counted.
    /// Those of `staying` must answer. Tells `progress` now and then. That it returns means that it is so for every block
    /// that was there when it began; to interrupt it and begin again is no harm.
    ///
    /// # Errors
    /// [`SpreadError`]; the copies that were made stay.
    ///
    /// # Suspends
    /// Until then: blocks are listed at some ten thousand a second, and copied as fast as the nodes go.
    pub fn spread_without(
        &self,
        leaving: &NodeId,
        staying: &[NodeId],
        progress: impl Fn(&Spread),
    ) -> Result<Spread, SpreadError> {
        let census = self.census(ANY_CLOCK)?;
        let stay: Vec<Contact> =
            census.nodes().iter().filter(|contact| contact.id != *leaving).cloned().collect();
        if let Some(silent) = staying.iter().find(|id| stay.iter().all(|contact| contact.id != **id)) {
            return Err(SpreadError::Silent(*silent));
        }
        let copies = self.links().replicas;
        if stay.len() < copies {
            return Err(SpreadError::TooFew { staying: stay.len(), copies });
        }
        let was_asked = census.nodes().iter().any(|contact| contact.id == *leaving);
        let mut spread = Spread { was_asked, ..Spread::default() };
        let (mut count, mut reason) = (0, String::new());
        for first in 0..=u8::MAX {
            let (held, thin) = self.thin(&census, first, leaving)?;
            spread.blocks += held;
            let mut failed = BTreeMap::new();
            for (address, outcome) in self.thicken(&stay, &thin) {
                match outcome {
                    Ok(()) => spread.copied += 1,
                    Err(failure) => drop(failed.insert(address, failure)),
                }
            }
            if !failed.is_empty() {
                // What was deleted meanwhile is on no list any more; that somebody says so of a block is no proof.
                let (_, still) = self.thin(&census, first, leaving)?;
                for failure in still.iter().filter_map(|block| failed.remove(&block.address)) {
                    (count, reason) = (count + 1, failure);
                }
            }
            progress(&spread);
        }
        match count {
            0 => Ok(spread),
            count => Err(SpreadError::Thin { count, reason }),
        }
    }

    /// How many blocks there are whose address begins with `first`, and those that have too few copies without `leaving`.
    fn thin(&self, census: &Census, first: u8, leaving: &NodeId) -> Result<(u64, Vec<Thin>), CensusError> {
        let held = self.list_held(census, first)?;
        census.refuse_fallen_out()?;
        let copies = self.links().replicas;
        let thin = held.iter().filter_map(|(address, found)| {
            let holders: Vec<Contact> = census.holders(found).cloned().collect();
            let missing =
                copies.saturating_sub(holders.iter().filter(|holder| holder.id != *leaving).count());
            let put_seconds = found.put_seconds;
            (missing > 0).then_some(Thin { address: *address, holders, missing, put_seconds })
        });
        Ok((held.len() as u64, thin.collect()))
    }

    fn thicken(&self, stay: &[Contact], thin: &[Thin]) -> Vec<(Address, Result<(), String>)> {
        let (next, outcomes) = (Cell::new(0), RefCell::new(Vec::new()));
        reactor::scope(|scope| {
            for _ in 0..COPIES_AT_ONCE.min(thin.len()) {
                scope.spawn(|| {
                    while next.get() < thin.len() {
                        let block = &thin[next.replace(next.get() + 1)];
                        let outcome = self.copy(stay, block);
                        outcomes.borrow_mut().push((block.address, outcome));
                    }
                });
            }
        });
        outcomes.into_inner()
    }

    /// Puts a block on the first of those that stay and lack it, in the order of those that stay, as old as its youngest copy.
    /// Whoever refuses it, for whatever reason, has no copy.
    fn copy(&self, stay: &[Contact], block: &Thin) -> Result<(), String> {
        let Thin { address, holders, missing, put_seconds } = block;
        let (proof, content) = self.fetch_any(holders, address)?;
        let request = PutBlockRequest {
            put_seconds: Some(proof.put_seconds.max(*put_seconds)),
            ..PutBlockRequest::new(*address, proof.tag)
        };
        let mut others = placement::order(&NodeId(address.0), stay);
        others.retain(|node| holders.iter().all(|holder| holder.id != node.id));
        let (mut made, mut reason) = (0, "no further node is there".to_owned());
        for node in &others {
            match self.give(node, &request, &content) {
                Ok(()) => made += 1,
                Err(failure) => reason = failure.to_string(),
            }
            if made == *missing {
                return Ok(());
            }
        }
        Err(format!("{address}: {reason}"))
    }

    /// Reads a block from one of those who hold it.
    fn fetch_any(&self, holders: &[Contact], address: &Address) -> Result<(GetBlockResponse, Bytes), String> {
        let mut reason = format!("{address}: nobody has it");
        for holder in holders {
            match self.fetch_from(holder, address) {
                Ok(found) => return Ok(found),
                Err(failure) => reason = format!("{address}: {failure}"),
            }
        }
        Err(reason)
    }

    fn fetch_from(&self, holder: &Contact, address: &Address) -> Result<(GetBlockResponse, Bytes), Failure> {
        let links = self.links().clone();
        if let Some(local) = links.local(&holder.id) {
            return local.serve_block(address, None).map_err(Failure::Refused);
        }
        let (contact, tag) = (holder.clone(), Some(self.tag()));
        GetJob { links, contact, address: *address, tag, range: None }.run()
    }

    /// Has a node keep a block, and asks it whether it does.
    fn give(&self, node: &Contact, request: &PutBlockRequest, content: &Bytes) -> Result<(), Failure> {
        let (links, address) = (self.links(), request.address);
        let has = match links.local(&node.id) {
            Some(local) => {
                local.put_block_of(request, content).map_err(Failure::Refused)?;
                local.has_block(&address)
            }
            None => {
                links.call::<PutBlock>(node, request, content.clone(), BLOCK_CALL_TIMEOUT)?;
                let asked = vec![address];
                let (has, _) = links.call::<HasBlocks>(node, &asked, Bytes::new(), BLOCK_CALL_TIMEOUT)?;
                has == [true]
            }
        };
        if has { Ok(()) } else { Err(Failure::Lied(format!("{node} took a block and does not have it"))) }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use reactor::crypto::Identity;

    use super::*;
    use crate::block::deletion::{Speaker, Verdict};
    use crate::testing::{FakeNetwork, Mood};

    fn contents(count: u32) -> Vec<Bytes> {
        (0..count).map(|number| Bytes::from(number.to_le_bytes().repeat(50))).collect()
    }

    #[test]
    fn without_the_node_that_leaves_every_block_is_on_as_many_nodes_as_before() {
        reactor::run(|| {
            let network = FakeNetwork::new(6, 3, 1);
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            let addresses = network.put_long_ago(&client, contents(60));
            let leaving = network.nodes[2].contact.id;
            let others: Vec<NodeId> =
                network.nodes.iter().map(|node| node.contact.id).filter(|id| *id != leaving).collect();
            let copies_without = |address: &Address| {
                let has = |node: &&crate::testing::FakeNode| node.node().has_block(address);
                network.nodes.iter().filter(|node| node.contact.id != leaving).filter(has).count()
            };
            assert!(addresses.iter().any(|address| copies_without(address) < 3));
            let spread = client.spread_without(&leaving, &others, |_| {}).unwrap();
            assert!(spread.blocks == 60 && spread.copied > 0, "{spread:?}");
            assert!(addresses.iter().all(|address| copies_without(address) >= 3));
            // Nothing is left to do, and it is gone without anybody noticing.
            assert_eq!(client.spread_without(&leaving, &others, |_| {}).unwrap().copied, 0);
            network.nodes[2].mood.set(Mood::Dead);
            let spread = client.spread_without(&leaving, &others, |_| {}).unwrap();
            assert_eq!(spread, Spread { blocks: 60, copied: 0, was_asked: false });
        });
    }

    #[test]
    fn what_only_the_leaving_node_has_is_copied_and_what_nobody_takes_is_told() {
        reactor::run(|| {
            let network = FakeNetwork::new(4, 3, 1);
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            let content = Bytes::from_static(b"the only copy");
            let address = Address::of(&client.tag(), &content);
            let only = &network.nodes[0];
            only.node().put_block(&address, &client.tag(), content).unwrap();
            let broken = &network.nodes[3].memory;
            broken.fail_after(Some(0));
            let spread = || client.spread_without(&only.contact.id, &[], |_| {});
            let refused = spread();
            assert!(matches!(refused, Err(SpreadError::Thin { count: 1, .. })), "{refused:?}");
            broken.fail_after(None);
            assert_eq!(spread(), Ok(Spread { blocks: 1, copied: 1, was_asked: true }));
            assert!(network.nodes[1..].iter().all(|node| node.node().has_block(&address)));
        });
    }

    #[test]
    fn a_node_is_not_done_without_while_another_is_silent_or_too_few_would_be_left() {
        reactor::run(|| {
            let network = FakeNetwork::new(4, 3, 1);
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            let id = |index: usize| network.nodes[index].contact.id;
            network.nodes[3].mood.set(Mood::Dead);
            let silent = client.spread_without(&id(0), &[id(1), id(2), id(3)], |_| {});
            assert_eq!(silent, Err(SpreadError::Silent(id(3))));
            let few = client.spread_without(&id(0), &[id(1), id(2)], |_| {});
            assert_eq!(few, Err(SpreadError::TooFew { staying: 2, copies: 3 }));
        });
    }

    #[test]
    fn what_was_put_again_after_it_was_deleted_is_copied_as_young_as_it_is_and_a_refusal_is_no_copy() {
        reactor::run(|| {
            let network = FakeNetwork::new(4, 3, 1);
            let (owner, salt) = (Rc::new(Identity::from_seed(&[1; 32])), [2; 32]);
            let client = network.client_with(&owner, crate::owner_tag(&owner.public_key(), &salt));
            let content = Bytes::from_static(b"put again");
            let address = Address::of(&client.tag(), &content);
            let put = |index: usize, put_seconds| {
                let request = PutBlockRequest { put_seconds, ..PutBlockRequest::new(address, client.tag()) };
                network.nodes[index].node().put_block_of(&request, &content).unwrap();
            };
            put(0, Some(1000));
            put(1, Some(1000));
            // The first is away while the block is deleted. It answers before the one with the young copy does.
            let delete_without_the_first = |address: Address| {
                network.nodes[0].mood.set(Mood::Dead);
                let census = client.census(Duration::from_secs(60)).unwrap();
                let mut held = client.list_held(&census, address.0[0]).unwrap();
                held.retain(|other, _| *other == address);
                let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt, grant: None };
                let verdict = Verdict::Delete { put_before_seconds: 2000, retention_seconds: 0 };
                let held: Vec<_> = held.into_iter().collect();
                assert_eq!(client.tell(&census, &held, &speaker, verdict).deleted, 1);
                network.nodes[0].mood.set(Mood::Well);
            };
            delete_without_the_first(address);
            put(1, None);
            network.nodes[1].delay.set(Duration::from_millis(20));
            let leaving = network.nodes[1].contact.id;
            let spread = client.spread_without(&leaving, &[], |_| {});
            assert_eq!(spread, Ok(Spread { blocks: 1, copied: 1, was_asked: true }));
            assert!(network.nodes[2..].iter().all(|node| node.node().has_block(&address)));
            // And one that all others say is deleted has too few copies for as long as somebody has it.
            let content = Bytes::from_static(b"old");
            let address = Address::of(&client.tag(), &content);
            let request =
                PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, client.tag()) };
            for node in &network.nodes[..2] {
                node.node().put_block_of(&request, &content).unwrap();
            }
            delete_without_the_first(address);
            let spread = client.spread_without(&leaving, &[], |_| {});
            assert!(matches!(&spread, Err(SpreadError::Thin { count: 1, .. })), "{spread:?}");
        });
    }
}
