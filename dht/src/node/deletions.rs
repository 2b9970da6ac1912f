//! A node's part in deletions: what owners said of blocks, and when their bytes go.
//!
//! What an owner said last about a block lies in the store, as a *tombstone* if the block is to go and as a *reprieve* if it
//! is to stay; it is durable before it is acknowledged, and neighbours compare both as they compare blocks. The key says
//! of which block and of which tag, so that what one says hides nothing from another: a block's tag is proved by its
//! address, and only the word of that tag counts.
//!
//! **A tombstone covers what was put before its time.** Such a copy is *dead*: it is offered to nobody, repaired by nobody, and
//! goes when its retention is over, that of the word or the network's ([`super::retention`]), whichever is longer; one that another node hands on is refused. A copy that a client puts is put now, whatever was
//! there before, so it lives: whoever was told that a block is stored finds it, and who lacks it fetches it.
//!
//! **A put and a removal at once.** A removal is announced in memory before it looks at what it removes. A put looks
//! again when its block is durable, waits for what was announced, and writes the block once more if it is gone. A copy
//! that is there already has its time written anew, unless that is as good as now.
//!
//! Not here: what the statements prove ([`crate::block::deletion`]); keeping what others kept of deleted blocks (`kept_deleted`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use overlay::NodeId;
use reactor::cell::RefCell;
use reactor::crypto::hash::sha3_256;
use reactor::serialization::{Content, EnvelopeError, Versioned, from_envelope, to_envelope};
use reactor::sync::Signal;
use serde::{Deserialize, Serialize};

use super::{Node, block_key, refusal_of};
use crate::address::{Address, OwnerTag};
use crate::block::deletion::{Deletion, FRESH_SECONDS, LIFETIME_SECONDS, OwnersWord, Verdict};
use crate::block::immutable::{UnknownForm, content_length, decode_tail, tail_start};
use crate::block::mutable::Invalid;
use crate::message::{
    BLOCKS_LISTED_MAX, Family, HeldBlock, ListBlocksRequest, ListBlocksResponse, PutBlockRequest, Refusal,
    WORDS_MAX, WordKey,
};
use crate::store::{Key, Kind, PutOptions, StoreError, Ticket};

/// What is said now may come from a clock that is behind by so much: a wrong time zone, and then some.
pub(super) const CLOCK_BEHIND_MS: u64 = 24 * 3600 * 1000;

/// A clock that is ahead makes a statement that outlives later ones, so it may be less so.
pub(super) const CLOCK_AHEAD_MS: u64 = 5 * 60 * 1000;

/// Keys looked at between two yields, where each is read.
const BATCH: usize = 64;

/// What an owner said, as it lies in the store.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    /// When this node heard it, in seconds since 1970.
    pub(super) received_seconds: u64,
    /// For how long this node keeps what it deletes by it at least, whatever the word says: what it had promised then.
    #[serde(default)]
    pub(super) kept_seconds: u32,
    pub(super) word: OwnersWord,
}

impl Versioned for Told {
    const TYPE_NAME: &'static str = "hypha tombstone";
    const VERSION: u32 = 2;

    fn upgrade(version: u32, content: Content<'_>) -> Result<Told, EnvelopeError> {
        match version {
            // Nothing was promised then.
            1 => content.decode(),
            _ => Err(content.too_old()),
        }
    }
}

impl Told {
    /// When the bytes of a copy go that was put then, in seconds since 1970; `None` if they stay.
    pub(super) fn due_seconds(&self, put_seconds: u64) -> Option<u64> {
        match self.word.deletion.verdict {
            Verdict::Delete { retention_seconds, .. } if self.word.deletion.verdict.covers(put_seconds) => {
                Some(self.received_seconds.saturating_add(retention_seconds.max(self.kept_seconds).into()))
            }
            _ => None,
        }
    }
}

/// What a node holds of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    put_seconds: u64,
    tag: OwnerTag,
    /// Its content's length, as far as that can be told.
    length: u32,
}

/// What a node remembers of deletions beside its store.
#[derive(Default)]
pub(super) struct Deletions {
    /// Blocks about which something is being decided, by one at a time.
    deciding: RefCell<BTreeSet<Address>>,
    decided: Signal,
    due: RefCell<Due>,
}

/// Blocks whose bytes go, and when; each once.
#[derive(Default)]
struct Due {
    times: BTreeMap<Address, (u64, u32)>,
    order: BTreeSet<(u64, Address)>,
    /// Their lengths together.
    bytes: u64,
}

impl Due {
    /// A block of that length goes at that time, or stays.
    fn set(&mut self, address: Address, length: u32, due_seconds: Option<u64>) {
        if let Some((before, length)) = self.times.remove(&address) {
            self.order.remove(&(before, address));
            self.bytes -= u64::from(length);
        }
        if let Some(due_seconds) = due_seconds {
            self.times.insert(address, (due_seconds, length));
            self.order.insert((due_seconds, address));
            self.bytes += u64::from(length);
        }
    }
}

/// Announces that something is being decided about a block, while it lives.
pub(super) struct Deciding<'a> {
    of: &'a Deletions,
    address: Address,
}

impl Deletions {
    /// Notes that a block of that length goes at that time.
    pub(super) fn note_due(&self, address: Address, length: u32, due_seconds: u64) {
        self.due.borrow_mut().set(address, length, Some(due_seconds));
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.due.borrow().bytes
    }

    fn wait_for(&self, address: &Address) {
        while self.deciding.borrow().contains(address) {
            self.decided.wait();
        }
    }

    /// Waits until nobody else decides about the block.
    pub(super) fn decide(&self, address: Address) -> Deciding<'_> {
        self.wait_for(&address);
        self.deciding.borrow_mut().insert(address);
        Deciding { of: self, address }
    }
}

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        self.of.deciding.borrow_mut().remove(&self.address);
        self.of.decided.notify_all();
    }
}

/// Where what the owner of `tag` said about a block is kept: near the block's own address, as placement goes.
pub(crate) fn word_key(address: &Address, tag: &OwnerTag) -> WordKey {
    let mut key = sha3_256(&[b"hypha word", &address.0, &tag.0]);
    key[..16].copy_from_slice(&address.0[..16]);
    WordKey(key)
}

fn kind_of(verdict: Verdict) -> Kind {
    match verdict {
        Verdict::Delete { .. } => Kind::TOMBSTONE,
        Verdict::Keep => Kind::REPRIEVE,
    }
}

/// Of two statements by one tag's speakers the greater holds: the owner's over a writer's, then the later one, and of two
/// at once the one that keeps.
pub(super) fn rank(deletion: &Deletion) -> (bool, u64, bool) {
    (deletion.signer == deletion.owner, deletion.said_ms, deletion.verdict == Verdict::Keep)
}

/// The time as nodes tell it, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
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
    /// [`Refusal::Invalid`], [`Refusal::TooYoung`], [`Refusal::Superseded`], [`Refusal::NotFound`] if the block is none of
    /// this node's concern, or that of the store.
    ///
    /// # Suspends
    /// For the disk.
    pub fn hear(&self, word: &OwnersWord) -> Result<(), Refusal> {
        word.verify()?;
        let (said_ms, now_ms) = (word.deletion.said_ms, now_ms());
        if said_ms > now_ms + CLOCK_AHEAD_MS || said_ms.saturating_add(CLOCK_BEHIND_MS) < now_ms {
            return Err(Invalid::Time.into());
        }
        if word.grant.as_ref().is_some_and(|grant| grant.until_seconds < now_ms / 1000) {
            return Err(Invalid::NotGranted.into());
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
        if said_ms > now_ms + CLOCK_AHEAD_MS || is_over(said_ms, now_ms) {
            return Err(Invalid::Time.into());
        }
        self.obey(word)
    }

    fn obey(&self, word: &OwnersWord) -> Result<(), Refusal> {
        let deletion = &word.deletion;
        let (address, tag) = (deletion.address, word.tag());
        let deciding = self.deletions.decide(address);
        let held = self.held(&address)?;
        if held.is_some_and(|held| held.tag != tag) {
            return Err(Invalid::NotGranted.into());
        }
        if held.is_none() && !self.is_responsible(&NodeId(address.0)) {
            return Err(Refusal::NotFound);
        }
        let key = word_key(&address, &tag);
        if let Some(known) = self.told(&key)? {
            let known = &known.word.deletion;
            if known.encoded() == deletion.encoded() {
                return Ok(());
            }
            if rank(known) >= rank(deletion) {
                return Err(Refusal::Superseded);
            }
        }
        if let Some(held) = held
            .filter(|held| deletion.verdict != Verdict::Keep && !deletion.verdict.covers(held.put_seconds))
        {
            return Err(Refusal::TooYoung { put_seconds: held.put_seconds });
        }
        let kept_seconds = match deletion.verdict {
            Verdict::Delete { .. } => self.promise_retention()?,
            Verdict::Keep => 0,
        };
        let told = Told { received_seconds: now_seconds(), kept_seconds, word: word.clone() };
        let kind = kind_of(deletion.verdict);
        let other = if kind == Kind::TOMBSTONE { Kind::REPRIEVE } else { Kind::TOMBSTONE };
        // Only what frees something, or replaces what was said, may take what is kept back for that.
        let has_other = self.store.contains(&key.in_kind(other));
        let options = PutOptions { may_use_reserve: held.is_some() || has_other, ..PutOptions::default() };
        // Not interrupted: what is due must not fall behind the disk.
        reactor::uninterruptible(|| -> Result<(), StoreError> {
            self.store.enqueue_with(&key.in_kind(kind), to_envelope(&told).into(), options)?.wait()?;
            if let Some(held) = held {
                let due = told.due_seconds(held.put_seconds);
                self.deletions.due.borrow_mut().set(address, held.length, due);
            }
            // Durable by now is what takes its place.
            if has_other { self.store.remove(&key.in_kind(other)) } else { Ok(()) }
        })
        .map_err(refusal_of)?;
        drop(deciding);
        match held.and_then(|held| told.due_seconds(held.put_seconds)) {
            Some(due) if due <= now_seconds() => self.remove_due(&address),
            _ => Ok(()),
        }
    }

    /// What the node holds of a block.
    pub(super) fn held(&self, address: &Address) -> Result<Option<Held>, Refusal> {
        let key = block_key(address);
        let Some(length) = self.store.length(&key) else { return Ok(None) };
        match self.store.get(&key, Some(tail_start(length)..length)) {
            Ok(Some(tail)) => Ok(decode_tail(&tail).ok().map(|(put_seconds, tag)| Held {
                put_seconds,
                tag,
                length: content_length(length).unwrap_or(0),
            })),
            // A copy that can't be read is none.
            Ok(None) | Err(StoreError::Damaged(_)) => Ok(None),
            Err(error) => Err(refusal_of(error)),
        }
    }

    /// What was said last of a block by the speakers of a tag.
    pub(super) fn told(&self, key: &WordKey) -> Result<Option<Told>, Refusal> {
        let read = |kind: Kind| match self.store.get(&key.in_kind(kind), None) {
            Ok(Some(bytes)) => from_envelope::<Told>(&bytes)
                .map(Some)
                .map_err(|error| Refusal::Store(format!("what is stored of a deletion: {error}"))),
            // The others know.
            Ok(None) | Err(StoreError::Damaged(_)) => Ok(None),
            Err(error) => Err(refusal_of(error)),
        };
        // There are both only after a crash between writing one and removing the other.
        let both = [read(Kind::TOMBSTONE)?, read(Kind::REPRIEVE)?];
        Ok(both.into_iter().flatten().max_by_key(|told| rank(&told.word.deletion)))
    }

    /// What owners said, for another node.
    ///
    /// # Errors
    /// [`Refusal::Bounds`], or that of the store.
    ///
    /// # Suspends
    /// For the disk.
    pub fn words(&self, keys: &[WordKey]) -> Result<Vec<Option<OwnersWord>>, Refusal> {
        if keys.len() > WORDS_MAX {
            return Err(Refusal::Bounds(format!("at most {WORDS_MAX} keys")));
        }
        keys.iter().map(|key| Ok(self.told(key)?.map(|told| told.word))).collect()
    }

    /// Where what the owner of `tag` said about a block is kept.
    pub(crate) fn word_key(&self, address: &Address, tag: &OwnerTag) -> WordKey {
        word_key(address, tag)
    }

    /// Whether this node was told so of a block. Never suspends.
    pub(crate) fn has_word(&self, family: Family, key: &WordKey) -> bool {
        match family {
            Family::Deletions => self.store.contains(&key.in_kind(Kind::TOMBSTONE)),
            Family::Reprieves => self.store.contains(&key.in_kind(Kind::REPRIEVE)),
            Family::Blocks | Family::Registers => false,
        }
    }

    /// Whether what the node holds of a block is dead: deleted, though its bytes may still be there.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk, but only where somebody has spoken about a block of that name.
    pub(crate) fn is_dead(&self, address: &Address) -> Result<bool, Refusal> {
        let mut first = Key::new(Kind::TOMBSTONE, [0; 32]);
        first.address[..16].copy_from_slice(&address.0[..16]);
        let found = self.store.keys(&first, 1);
        if !found.first().is_some_and(|key| key.kind == first.kind && key.address[..16] == address.0[..16]) {
            return Ok(false);
        }
        let Some(held) = self.held(address)? else { return Ok(false) };
        self.is_covered(address, &held.tag, held.put_seconds)
    }

    /// Whether a copy that was put then is to go.
    fn is_covered(&self, address: &Address, tag: &OwnerTag, put_seconds: u64) -> Result<bool, Refusal> {
        let told = self.told(&word_key(address, tag))?;
        Ok(told.is_some_and(|told| told.due_seconds(put_seconds).is_some()))
    }

    /// Begins a put: returns the ticket of a copy that need not be written again.
    ///
    /// # Errors
    /// [`Refusal::Deleted`] if another node hands on a copy that is dead.
    ///
    /// # Suspends
    /// While something is decided about the block; for the disk, where there is a copy already.
    pub(crate) fn begin_put(&self, request: &PutBlockRequest) -> Result<Option<Ticket>, Refusal> {
        let (address, tag) = (&request.address, &request.tag);
        self.deletions.wait_for(address);
        if let Some(put_seconds) = request.put_seconds
            && self.is_covered(address, tag, put_seconds)?
        {
            return Err(Refusal::Deleted);
        }
        let Some(ticket) = self.stored_block(address) else { return Ok(None) };
        let held = self.held(address)?.filter(|held| held.tag == *tag);
        Ok(held.and_then(|held| {
            let is_fresh = held.put_seconds.saturating_add(FRESH_SECONDS) > now_seconds();
            // What is handed on makes no copy younger, and none older.
            let is_enough = is_fresh || request.put_seconds.is_some_and(|put| put <= held.put_seconds);
            is_enough.then_some(ticket)
        }))
    }

    /// Ends a put, whose block was durable: false if a removal came between, and it has to begin again.
    pub(crate) fn is_put(&self, address: &Address) -> bool {
        !self.deletions.deciding.borrow().contains(address) && self.store.contains(&block_key(address))
    }

    /// Removes the blocks whose retention is over. One that can't be removed now is tried again the next time.
    ///
    /// # Errors
    /// The last that the store failed with.
    ///
    /// # Suspends
    /// For the disk.
    pub fn remove_all_due(&self) -> Result<(), Refusal> {
        let now = now_seconds();
        let due: Vec<Address> = {
            let due = self.deletions.due.borrow();
            due.order.iter().take_while(|(time, _)| *time <= now).map(|(_, address)| *address).collect()
        };
        due.iter().map(|address| self.remove_due(address)).fold(Ok(()), Result::and)
    }

    fn remove_due(&self, address: &Address) -> Result<(), Refusal> {
        let _deciding = self.deletions.decide(*address);
        let due_of = |held: Held| {
            let told = self.told(&word_key(address, &held.tag))?;
            Ok::<_, Refusal>(told.and_then(|told| told.due_seconds(held.put_seconds)))
        };
        // It may have been put or spoken about again meanwhile.
        let held = self.held(address)?;
        let due = held.map(due_of).transpose()?.flatten();
        let length = held.map_or(0, |held| held.length);
        if due.is_some_and(|due| due <= now_seconds()) {
            self.store.remove(&block_key(address)).map_err(refusal_of)?;
            self.deletions.due.borrow_mut().set(*address, length, None);
        } else {
            self.deletions.due.borrow_mut().set(*address, length, due);
        }
        Ok(())
    }

    /// Finds the deleted blocks whose bytes are still there, and tidies up after a crash: once, at a start.
    ///
    /// # Errors
    /// The last that the store failed with.
    ///
    /// # Suspends
    /// It lets others run now and then.
    pub fn find_due(&self) -> Result<(), Refusal> {
        self.each_word(Kind::TOMBSTONE, |key| {
            let Some(told) = self.told(key)? else { return Ok(()) };
            let address = told.word.deletion.address;
            let _deciding = self.deletions.decide(address);
            // Nobody speaks meanwhile.
            let Some(told) = self.told(key)? else { return Ok(()) };
            if told.word.deletion.verdict == Verdict::Keep {
                return self.store.remove(&key.in_kind(Kind::TOMBSTONE)).map_err(refusal_of);
            }
            if let Some(held) = self.held(&address)?.filter(|held| held.tag == told.word.tag()) {
                let due = told.due_seconds(held.put_seconds);
                self.deletions.due.borrow_mut().set(address, held.length, due);
            }
            Ok(())
        })
    }

    /// Forgets what was said so long ago that it means nothing any more.
    ///
    /// # Errors
    /// The last that the store failed with.
    ///
    /// # Suspends
    /// It lets others run now and then.
    pub fn forget_old_words(&self) -> Result<(), Refusal> {
        for kind in [Kind::TOMBSTONE, Kind::REPRIEVE] {
            self.each_word(kind, |key| {
                let Some(told) = self.told(key)? else { return Ok(()) };
                let _deciding = self.deletions.decide(told.word.deletion.address);
                let Some(told) = self.told(key)? else { return Ok(()) };
                let deletion = &told.word.deletion;
                if is_over(deletion.said_ms, now_ms()) && !self.is_dead(&deletion.address)? {
                    self.store.remove(&key.in_kind(kind)).map_err(refusal_of)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn each_word(
        &self,
        kind: Kind,
        mut visit: impl FnMut(&WordKey) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut outcome = Ok(());
        let mut from = Some(Key::first(kind));
        while let Some(start) = from {
            let keys = self.store.keys(&start, BATCH);
            for key in keys.iter().filter(|key| key.kind == kind) {
                // One that can't be read must not hide the others.
                outcome = outcome.and(visit(&WordKey(key.address)));
            }
            from = keys.last().and_then(Key::next).filter(|key| key.kind == kind);
            reactor::yield_now();
        }
        outcome
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
                blocks.extend(self.list_block(&Address(key.address), request)?);
            }
            looked_at += keys.len();
            let last = keys.last().filter(|_| keys.len() == BATCH).and_then(Key::next);
            next = last.filter(|key| is_within(&key)).map(|key| Address(key.address));
            reactor::yield_now();
        }
        Ok(ListBlocksResponse { blocks, next, now_seconds: now_seconds() })
    }

    fn list_block(
        &self,
        address: &Address,
        request: &ListBlocksRequest,
    ) -> Result<Option<HeldBlock>, Refusal> {
        let Some(stored) = self.store.length(&block_key(address)) else { return Ok(None) };
        let Some(held) = self.held(address)?.filter(|held| held.tag == request.tag) else { return Ok(None) };
        let is_deleted = self.is_dead(address)?;
        if is_deleted && !request.with_deleted {
            return Ok(None);
        }
        let told = is_deleted.then(|| self.told(&word_key(address, &held.tag))).transpose()?.flatten();
        let kept_seconds = told.map_or(0, |told| told.kept_seconds);
        let length = content_length(stored).map_err(|UnknownForm| ()).ok();
        let put_seconds = held.put_seconds;
        Ok(length.map(|length| HeldBlock {
            address: *address,
            length,
            put_seconds,
            is_deleted,
            kept_seconds,
        }))
    }
}

pub(super) fn is_over(said_ms: u64, now_ms: u64) -> bool {
    said_ms.saturating_add(LIFETIME_SECONDS * 1000) < now_ms
}

#[cfg(test)]
mod tests;
