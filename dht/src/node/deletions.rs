//! A node's part in deletions: what its owners said of blocks, and when their bytes go.
//!
//! What was said last about a block lies in the store under the block's address, as a *tombstone* if the block is to
//! go and as a *reprieve* if it is to stay; it is durable before it is acknowledged, and neighbours compare both as they
//! compare blocks. A tombstone's block is refused to whoever puts it and offered to nobody, but it is read until its
//! retention is over.
//!
//! **A put and a deletion at once.** Whoever was told that a block is stored must find it. So a put looks for a
//! deletion twice, before it writes and after that is durable; a deletion is announced in memory before it looks how old
//! the node's copy is; and a copy that is put again is written again with its new time, unless it is new. Whichever
//! comes second sees the other.
//!
//! Not here: what the statements prove ([`crate::block::deletion`]).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use reactor::serialization::{Versioned, from_envelope, to_envelope};
use reactor::sync::Signal;
use serde::{Deserialize, Serialize};

use super::{Node, block_key, refusal_of};
use crate::address::{Address, OwnerTag};
use crate::block::deletion::{LIFETIME_SECONDS, OwnersWord, Verdict};
use crate::block::immutable::{UnknownForm, content_length, decode_tail, tail_start};
use crate::block::mutable::Invalid;
use crate::message::{
    BLOCKS_LISTED_MAX, Family, HeldBlock, ListBlocksRequest, ListBlocksResponse, Refusal, WORDS_MAX,
};
use crate::store::{Key, Kind, PutOptions, StoreError, Ticket};

/// Clocks may differ by so much: a wrong time zone, and then some.
const CLOCK_DIFFERENCE_MS: u64 = 24 * 3600 * 1000;

/// A block that is put again is written again if its copy is older than this: a minute's tries cost one write.
const FRESH_SECONDS: u64 = 60;

/// Keys looked at between two yields, where each is read.
const BATCH: usize = 64;

/// What an owner said, as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Told {
    /// When this node heard it, in seconds since 1970.
    received_seconds: u64,
    word: OwnersWord,
}

impl Versioned for Told {
    const TYPE_NAME: &'static str = "hypha tombstone";
    const VERSION: u32 = 1;
}

impl Told {
    /// When the block's bytes go, in seconds since 1970; `None` if they stay.
    fn due_seconds(&self) -> Option<u64> {
        match self.word.deletion.verdict {
            Verdict::Delete { retention_seconds, .. } => {
                Some(self.received_seconds.saturating_add(retention_seconds.into()))
            }
            Verdict::Keep => None,
        }
    }
}

/// What a node remembers of deletions beside its store.
#[derive(Default)]
pub(super) struct Deletions {
    /// Blocks about which something is being decided, by one at a time.
    deciding: RefCell<BTreeSet<Address>>,
    decided: Signal,
    /// Blocks whose bytes go, and when.
    due: RefCell<BTreeSet<(u64, Address)>>,
}

/// Announces that something is being decided about a block, while it lives.
struct Deciding<'a> {
    of: &'a Deletions,
    address: Address,
}

impl Deletions {
    /// Waits until nobody else decides about the block.
    fn decide(&self, address: Address) -> Deciding<'_> {
        while !self.deciding.borrow_mut().insert(address) {
            self.decided.wait();
        }
        Deciding { of: self, address }
    }
}

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        self.of.deciding.borrow_mut().remove(&self.address);
        self.of.decided.notify_all();
    }
}

fn tombstone_key(address: &Address) -> Key {
    Key::new(Kind::TOMBSTONE, address.0)
}

fn reprieve_key(address: &Address) -> Key {
    Key::new(Kind::REPRIEVE, address.0)
}

/// The time as nodes tell it, in milliseconds since 1970.
fn now_ms() -> u64 {
    reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

/// The time as blocks carry it, in seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    now_ms() / 1000
}

impl Node {
    /// Does what an owner says now: what is taken is durable.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::TooYoung`], or that of the store.
    ///
    /// # Suspends
    /// For the disk.
    pub fn hear(&self, word: &OwnersWord) -> Result<(), Refusal> {
        word.verify()?;
        if word.deletion.said_ms.abs_diff(now_ms()) > CLOCK_DIFFERENCE_MS {
            return Err(Invalid::Time.into());
        }
        self.obey(word)
    }

    /// As [`Node::hear`], of several at once, which share a sync of the disk.
    ///
    /// # Suspends
    /// As [`Node::hear`].
    pub(crate) fn hear_all(&self, words: &[OwnersWord]) -> Vec<Result<(), Refusal>> {
        let outcomes = RefCell::new(vec![Err(Refusal::NotFound); words.len()]);
        reactor::scope(|scope| {
            for (index, word) in words.iter().enumerate() {
                let outcomes = &outcomes;
                scope.spawn(move || {
                    let outcome = self.hear(word);
                    outcomes.borrow_mut()[index] = outcome;
                });
            }
        });
        outcomes.into_inner()
    }

    /// As [`Node::hear`], for what was said a while ago and another node passes on.
    ///
    /// # Errors
    /// As [`Node::hear`].
    ///
    /// # Suspends
    /// As [`Node::hear`].
    pub(crate) fn learn(&self, word: &OwnersWord) -> Result<(), Refusal> {
        word.verify()?;
        let (said_ms, now_ms) = (word.deletion.said_ms, now_ms());
        if said_ms > now_ms + CLOCK_DIFFERENCE_MS || is_over(said_ms, now_ms) {
            return Err(Invalid::Time.into());
        }
        self.obey(word)
    }

    fn obey(&self, word: &OwnersWord) -> Result<(), Refusal> {
        let (address, tag) = (word.deletion.address, word.tag());
        let deciding = self.deletions.decide(address);
        let held = self.held(&address)?;
        if held.is_some_and(|(_, of)| of != tag) {
            return Err(Invalid::NotGranted.into());
        }
        if let Some(known) = self.told(&address)? {
            let is_same_owner = known.word.tag() == tag;
            if is_same_owner && known.word.deletion.said_ms >= word.deletion.said_ms {
                return Ok(());
            }
            // With no block to prove whose it is, the first who spoke is believed; a block of another sets that right.
            if !is_same_owner && held.is_none() {
                return Err(Invalid::NotGranted.into());
            }
        }
        let (key, other) = match word.deletion.verdict {
            Verdict::Delete { put_before_seconds, .. } => {
                if let Some((put_seconds, _)) = held.filter(|(put, _)| *put >= put_before_seconds) {
                    return Err(Refusal::TooYoung { put_seconds });
                }
                (tombstone_key(&address), reprieve_key(&address))
            }
            Verdict::Keep => (reprieve_key(&address), tombstone_key(&address)),
        };
        let told = Told { received_seconds: now_seconds(), word: word.clone() };
        // Only what frees something may take what is kept back for that.
        let options = PutOptions { may_use_reserve: held.is_some(), ..PutOptions::default() };
        // Not interrupted: what is due must not fall behind the disk.
        reactor::uninterruptible(|| -> Result<(), StoreError> {
            let mut last = self.store.enqueue_with(&key, to_envelope(&told).into(), options)?;
            if self.store.contains(&other) {
                last = self.store.enqueue_remove(&other)?;
            }
            last.wait()?;
            if let Some(due) = told.due_seconds() {
                self.deletions.due.borrow_mut().insert((due, address));
            }
            Ok(())
        })
        .map_err(refusal_of)?;
        drop(deciding);
        match told.due_seconds() {
            Some(due) if due <= now_seconds() => self.remove_due(&address),
            _ => Ok(()),
        }
    }

    /// When the node's copy of a block was put, and whose it is.
    fn held(&self, address: &Address) -> Result<Option<(u64, OwnerTag)>, Refusal> {
        let key = block_key(address);
        let Some(length) = self.store.length(&key) else { return Ok(None) };
        match self.store.get(&key, Some(tail_start(length)..length)) {
            Ok(Some(tail)) => Ok(decode_tail(&tail).ok()),
            // A copy that can't be read is none.
            Ok(None) | Err(StoreError::Damaged(_)) => Ok(None),
            Err(error) => Err(refusal_of(error)),
        }
    }

    /// What was said last about a block.
    fn told(&self, address: &Address) -> Result<Option<Told>, Refusal> {
        let read = |key: Key| match self.store.get(&key, None) {
            Ok(Some(bytes)) => from_envelope::<Told>(&bytes)
                .map(Some)
                .map_err(|error| Refusal::Store(format!("what is stored of a deletion: {error}"))),
            // The others know.
            Ok(None) | Err(StoreError::Damaged(_)) => Ok(None),
            Err(error) => Err(refusal_of(error)),
        };
        // There are both only after a crash between writing one and removing the other.
        let both = [read(tombstone_key(address))?, read(reprieve_key(address))?];
        Ok(both.into_iter().flatten().max_by_key(|told| told.word.deletion.said_ms))
    }

    /// What owners said of blocks, for another node.
    ///
    /// # Errors
    /// [`Refusal::Bounds`], or that of the store.
    ///
    /// # Suspends
    /// For the disk.
    pub fn words(&self, addresses: &[Address]) -> Result<Vec<Option<OwnersWord>>, Refusal> {
        if addresses.len() > WORDS_MAX {
            return Err(Refusal::Bounds(format!("at most {WORDS_MAX} addresses")));
        }
        let words = addresses.iter().map(|address| Ok(self.told(address)?.map(|told| told.word)));
        words.collect()
    }

    /// Whether this node was told so of a block. Never suspends.
    pub(crate) fn has_word(&self, family: Family, address: &Address) -> bool {
        match family {
            Family::Deletions => self.store.contains(&tombstone_key(address)),
            Family::Reprieves => self.store.contains(&reprieve_key(address)),
            Family::Blocks | Family::Registers => false,
        }
    }

    /// Whether a block was deleted, or is about to be. Never suspends.
    pub(crate) fn is_deleted(&self, address: &Address) -> bool {
        self.deletions.deciding.borrow().contains(address) || self.store.contains(&tombstone_key(address))
    }

    /// Begins a put: returns the ticket of a copy that need not be written again.
    ///
    /// # Errors
    /// [`Refusal::Deleted`].
    ///
    /// # Suspends
    /// For the disk, where there is a copy already.
    pub(crate) fn begin_put(&self, address: &Address, tag: &OwnerTag) -> Result<Option<Ticket>, Refusal> {
        if self.is_deleted(address) {
            match self.told(address)? {
                // Somebody said so who can't have known: the block proves whose it is.
                Some(told) if told.word.tag() != *tag => {
                    self.store.remove(&tombstone_key(address)).map_err(refusal_of)?;
                }
                _ => return Err(Refusal::Deleted),
            }
        }
        let Some(ticket) = self.stored_block(address) else { return Ok(None) };
        let put_seconds = self.held(address)?.map_or(0, |(put_seconds, _)| put_seconds);
        Ok((put_seconds.saturating_add(FRESH_SECONDS) > now_seconds()).then_some(ticket))
    }

    /// Ends a put, whose block is durable: says whether it is to stay.
    ///
    /// # Errors
    /// [`Refusal::Deleted`].
    pub(crate) fn end_put(&self, address: &Address) -> Result<(), Refusal> {
        if !self.is_deleted(address) {
            return Ok(());
        }
        // The deletion may have found nothing to remove.
        self.deletions.due.borrow_mut().insert((0, *address));
        Err(Refusal::Deleted)
    }

    /// Removes the blocks whose retention is over.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk.
    pub fn remove_all_due(&self) -> Result<(), Refusal> {
        loop {
            let first = self.deletions.due.borrow().first().copied();
            match first {
                Some((due, address)) if due <= now_seconds() => self.remove_due(&address)?,
                _ => return Ok(()),
            }
        }
    }

    fn remove_due(&self, address: &Address) -> Result<(), Refusal> {
        let _deciding = self.deletions.decide(*address);
        // It may have been spoken about again meanwhile.
        let due = self.told(address)?.and_then(|told| told.due_seconds());
        self.deletions.due.borrow_mut().retain(|(_, of)| of != address);
        let Some(due) = due else { return Ok(()) };
        if due > now_seconds() {
            self.deletions.due.borrow_mut().insert((due, *address));
            return Ok(());
        }
        if self.store.contains(&block_key(address)) {
            self.store.remove(&block_key(address)).map_err(refusal_of)?;
        }
        Ok(())
    }

    /// Finds the deleted blocks whose bytes are still there: once, at a start.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// It lets others run now and then.
    pub fn find_due(&self) -> Result<(), Refusal> {
        self.each_of_kind(Kind::TOMBSTONE, |address| {
            if !self.store.contains(&block_key(address)) {
                return Ok(());
            }
            match self.told(address)?.and_then(|told| told.due_seconds()) {
                Some(due) => drop(self.deletions.due.borrow_mut().insert((due, *address))),
                // A crash came between the reprieve and the tombstone's removal.
                None => self.store.remove(&tombstone_key(address)).map_err(refusal_of)?,
            }
            Ok(())
        })
    }

    /// Forgets what was said so long ago that it means nothing any more.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// It lets others run now and then.
    pub fn forget_old_words(&self) -> Result<(), Refusal> {
        for kind in [Kind::TOMBSTONE, Kind::REPRIEVE] {
            self.each_of_kind(kind, |address| {
                let said = self.told(address)?.map(|told| told.word.deletion.said_ms);
                let is_needed = kind == Kind::TOMBSTONE && self.store.contains(&block_key(address));
                if !is_needed && said.is_some_and(|said_ms| is_over(said_ms, now_ms())) {
                    self.store.remove(&Key::new(kind, address.0)).map_err(refusal_of)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn each_of_kind(
        &self,
        kind: Kind,
        mut visit: impl FnMut(&Address) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut from = Some(Key::first(kind));
        while let Some(start) = from {
            let keys = self.store.keys(&start, BATCH);
            for key in keys.iter().filter(|key| key.kind == kind) {
                visit(&Address(key.address))?;
            }
            from = keys.last().and_then(Key::next).filter(|key| key.kind == kind);
            reactor::yield_now();
        }
        Ok(())
    }

    /// Lists the blocks of one tag.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk; it lets others run now and then.
    pub fn list_blocks(&self, request: &ListBlocksRequest) -> Result<ListBlocksResponse, Refusal> {
        let mut blocks = Vec::new();
        let mut next = Some(request.from);
        let mut looked_at = 0;
        while let Some(from) = next
            && looked_at < BLOCKS_LISTED_MAX
        {
            let keys = self.store.keys(&block_key(&from), BATCH);
            let is_within = |key: &&Key| key.kind == Kind::BLOCK && key.address <= request.to.0;
            for key in keys.iter().take_while(is_within) {
                blocks.extend(self.list_block(&Address(key.address), &request.tag)?);
            }
            looked_at += keys.len();
            let last = keys.last().filter(|_| keys.len() == BATCH).and_then(Key::next);
            next = last.filter(|key| is_within(&key)).map(|key| Address(key.address));
            reactor::yield_now();
        }
        Ok(ListBlocksResponse { blocks, next, now_seconds: now_seconds() })
    }

    fn list_block(&self, address: &Address, tag: &OwnerTag) -> Result<Option<HeldBlock>, Refusal> {
        let Some(stored) = self.store.length(&block_key(address)) else { return Ok(None) };
        let held = self.held(address)?.filter(|(_, of)| of == tag && !self.is_deleted(address));
        Ok(held.and_then(|(put_seconds, _)| {
            let length = content_length(stored).map_err(|UnknownForm| ()).ok()?;
            Some(HeldBlock { address: *address, length, put_seconds })
        }))
    }
}

fn is_over(said_ms: u64, now_ms: u64) -> bool {
    said_ms.saturating_add(LIFETIME_SECONDS * 1000) < now_ms
}

#[cfg(test)]
mod tests;
