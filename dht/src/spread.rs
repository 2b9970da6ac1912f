//! Seeing to it that each block is on enough nodes without one of them, so that this one may be taken away.
//!
//! Repair makes the copies that are missing once a node is gone; until it has, the next death counts double. Here they are
//! made beforehand, and that they are there is not inferred from who should have them: every node that stays is asked what it
//! has. A new copy counts once its node has acknowledged it as durable and, asked again, says that it has it.
//!
//! What was deleted and is kept for the retention is copied as well, with the word by which it was: else whoever has emptied one node after
//! the other would find no block of what the drive was.
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

use crate::address::{Address, OwnerTag};
use crate::block::deletion::{OwnersWord, Verdict};
use crate::block_store::BlockStore;
use crate::client::Client;
use crate::collect::{Census, CensusError, Deleted};
use crate::links::Failure;
use crate::message::{
    GetBlockResponse, HasBlocks, ListBlocks, ListBlocksRequest, PutBlock, PutBlockRequest, Refusal, Words,
};
use crate::node::deletions::{now_seconds, word_key};
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
    /// Blocks that were deleted, and that nodes keep yet.
    pub kept: u64,
    /// Blocks of which copies were made, of both.
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
    /// None of them has it but as one that was deleted.
    is_deleted: bool,
    /// For how long they keep it then.
    kept_seconds: u32,
}

/// What there is of blocks whose addresses begin alike.
struct Looked {
    blocks: u64,
    kept: u64,
    thin: Vec<Thin>,
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
            let Looked { blocks, kept, thin } = self.thin(&census, first, leaving)?;
            (spread.blocks, spread.kept) = (spread.blocks + blocks, spread.kept + kept);
            let mut failed = BTreeMap::new();
            for (address, outcome) in self.thicken(&stay, &thin) {
                match outcome {
                    Ok(is_copied) => spread.copied += u64::from(is_copied),
                    Err(failure) => drop(failed.insert(address, failure)),
                }
            }
            if !failed.is_empty() {
                // What was deleted meanwhile is on no list any more; that somebody says so of a block is no proof.
                let still = self.thin(&census, first, leaving)?.thin;
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
    fn thin(&self, census: &Census, first: u8, leaving: &NodeId) -> Result<Looked, CensusError> {
        let held = self.list_all(census, first, Deleted::Listed)?;
        census.refuse_fallen_out()?;
        let copies = self.links().replicas;
        let mut looked = Looked { blocks: 0, kept: 0, thin: Vec::new() };
        for (address, found) in &held {
            let living: Vec<Contact> = census.holders(found).cloned().collect();
            // One that somebody has and nobody deleted there is to be where it belongs, whatever others were told of it.
            let is_deleted = living.is_empty();
            let holders = if is_deleted { census.dead_holders(found).cloned().collect() } else { living };
            *(if is_deleted { &mut looked.kept } else { &mut looked.blocks }) += 1;
            let staying = holders.iter().filter(|holder| holder.id != *leaving).count();
            let (missing, put_seconds) = (copies.saturating_sub(staying), found.put_seconds);
            if missing > 0 {
                let kept_seconds = found.kept_seconds;
                looked.thin.push(Thin {
                    address: *address,
                    holders,
                    missing,
                    put_seconds,
                    is_deleted,
                    kept_seconds,
                });
            }
        }
        Ok(looked)
    }

    fn thicken(&self, stay: &[Contact], thin: &[Thin]) -> Vec<(Address, Result<bool, String>)> {
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
    /// Whoever refuses it, for whatever reason, has no copy. A deleted one whose time is over needs none, though somebody who heard
    /// of it late keeps it yet. Says whether any was made.
    fn copy(&self, stay: &[Contact], block: &Thin) -> Result<bool, String> {
        let Thin { address, holders, missing, put_seconds, is_deleted, kept_seconds } = block;
        let (proof, content, deleted_by) = self.fetch_any(holders, address, *is_deleted)?;
        let request = PutBlockRequest {
            put_seconds: Some(proof.put_seconds.max(*put_seconds)),
            deleted_by,
            kept_seconds: *kept_seconds,
            ..PutBlockRequest::new(*address, proof.tag)
        };
        let is_over = request.deleted_by.as_ref().is_some_and(|word| is_over(word, *kept_seconds));
        let living = PutBlockRequest { deleted_by: None, kept_seconds: 0, ..request.clone() };
        let mut others = placement::order(&NodeId(address.0), stay);
        others.retain(|node| holders.iter().all(|holder| holder.id != node.id));
        let (mut made, mut needs_none, mut reason) = (0, false, "no further node is there".to_owned());
        for node in &others {
            let given = match self.give(node, &request, &content) {
                // Its owner has taken back there what those that have it were told: so it is to live, and they have all there is of
                // it. What nobody took is no copy, whatever is said of it.
                Err(Failure::Refused(Refusal::Superseded)) if *is_deleted => {
                    self.give(node, &living, &content)
                }
                given => given,
            };
            match given {
                Ok(()) => made += 1,
                // One alone may say so of anything: the word that is handed on has to say it as well.
                Err(Failure::Refused(Refusal::Over)) if is_over => needs_none = true,
                Err(failure) => reason = failure.to_string(),
            }
            if made == *missing {
                return Ok(true);
            }
        }
        if needs_none { Ok(made > 0) } else { Err(format!("{address}: {reason}")) }
    }

    /// Reads a block from one of those who hold it; with the word by which it was, if it is deleted.
    fn fetch_any(
        &self,
        holders: &[Contact],
        address: &Address,
        is_deleted: bool,
    ) -> Result<(GetBlockResponse, Bytes, Option<OwnersWord>), String> {
        let mut reason = format!("{address}: nobody has it");
        for holder in holders {
            let found = self.fetch_from(holder, address).and_then(|(proof, content)| {
                let word = is_deleted.then(|| self.word_of(holder, address, &proof.tag)).transpose()?;
                Ok((proof, content, word))
            });
            match found {
                Ok(found) => return Ok(found),
                Err(failure) => reason = format!("{address}: {failure}"),
            }
        }
        Err(reason)
    }

    /// By which word a block was deleted that a node keeps yet.
    fn word_of(&self, holder: &Contact, address: &Address, tag: &OwnerTag) -> Result<OwnersWord, Failure> {
        let links = self.links();
        let keys = vec![word_key(address, tag)];
        let words = match links.local(&holder.id) {
            Some(local) => local.words(&keys).map_err(Failure::Refused)?,
            None => links.call::<Words>(holder, &keys, Bytes::new(), BLOCK_CALL_TIMEOUT)?.0,
        };
        let word = words.into_iter().next().flatten();
        word.ok_or_else(|| Failure::Lied(format!("{holder} shows no word by which it was deleted")))
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
                match &request.deleted_by {
                    Some(word) => local.keep_deleted(request, word, content),
                    None => local.put_block_of(request, content),
                }
                .map_err(Failure::Refused)?;
                local.has_block(&address)
            }
            None => {
                links.call::<PutBlock>(node, request, content.clone(), BLOCK_CALL_TIMEOUT)?;
                match &request.deleted_by {
                    // As one that is deleted it is as good as none to who asks for it.
                    Some(_) => {
                        let (from, to, tag) = (address, address, request.tag);
                        let asked = ListBlocksRequest { tag, from, to, with_deleted: true };
                        let (page, _) =
                            links.call::<ListBlocks>(node, &asked, Bytes::new(), BLOCK_CALL_TIMEOUT)?;
                        page.blocks.iter().any(|held| held.address == address)
                    }
                    None => {
                        let asked = vec![address];
                        let (has, _) =
                            links.call::<HasBlocks>(node, &asked, Bytes::new(), BLOCK_CALL_TIMEOUT)?;
                        has == [true]
                    }
                }
            }
        };
        if has { Ok(()) } else { Err(Failure::Lied(format!("{node} took a block and does not have it"))) }
    }
}

/// Whether the time is over of what was deleted by that word, for who heard it when it was said, and keeps it for so long.
fn is_over(word: &OwnersWord, kept_seconds: u32) -> bool {
    let kept_seconds = match word.deletion.verdict {
        Verdict::Delete { retention_seconds, .. } => retention_seconds.max(kept_seconds),
        Verdict::Keep => return false,
    };
    (word.deletion.said_ms / 1000).saturating_add(kept_seconds.into()) <= now_seconds()
}

#[cfg(test)]
mod tests;
