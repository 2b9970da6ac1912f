//! A node's part in immutable blocks: storing, serving, doubting and listing them.

use std::ops::Range;

use bytes::Bytes;
use overlay::NodeId;

use super::deletions::now_seconds;
use super::{Node, block_key, refusal_of};
use crate::address::{
    Address, BLOCK_SIZE_BYTES_MAX, OwnerTag, RangeError, address_and_groups, covering_groups,
    covering_slices, prove_range,
};
use crate::block::immutable::{
    Trailer, UnknownForm, bare_trailer, content_length, decode, decode_trailer, trailer,
};
use crate::message::{
    DigestsRequest, Family, GetBlockResponse, KEYS_PER_ANSWER_MAX, ListKeysRequest, ListKeysResponse,
    ListedKey, PutBlockRequest, Refusal,
};
use crate::paxos::Ballot;
use crate::store::{Gather, Key, Kind, PutOptions, StoreError, Ticket};

/// Keys looked at between two yields: a batch takes some 100 us.
const BATCH: usize = 1024;

impl Node {
    /// Checks a block and hands it to the local store; it is durable once the ticket says so.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Only while too much is waiting for the disk.
    pub fn enqueue_block(&self, request: &PutBlockRequest, content: Bytes) -> Result<Ticket, Refusal> {
        if content.is_empty() || content.len() > BLOCK_SIZE_BYTES_MAX {
            return Err(Refusal::Size);
        }
        let now = now_seconds();
        let put_seconds = request.put_seconds.map_or(now, |put_seconds| put_seconds.min(now));
        let (address, trailer) = trailer(&request.tag, &content, put_seconds);
        if request.address != address {
            return Err(Refusal::Misnamed);
        }
        self.write_block(&address, content, trailer, request.may_use_reserve)
    }

    fn write_block(
        &self,
        address: &Address,
        content: Bytes,
        trailer: Bytes,
        may_use_reserve: bool,
    ) -> Result<Ticket, Refusal> {
        self.refuse_if_withdrawn()?;
        let value: Gather = [content, trailer].into_iter().collect();
        let options = PutOptions { may_use_reserve, ..PutOptions::default() };
        self.store.enqueue_with(&block_key(address), value, options).map_err(refusal_of)
    }

    /// Stores a block that this process has named and whose trailer it has made, and checks nothing.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn store_block(
        &self,
        request: &PutBlockRequest,
        content: &Bytes,
        trailer: &Bytes,
    ) -> Result<(), Refusal> {
        let write =
            || self.write_block(&request.address, content.clone(), trailer.clone(), request.may_use_reserve);
        self.noting(request, || self.keep(request, write))
    }

    /// Has a block durable, by a copy that is there or by writing it; again, if a removal comes between.
    fn keep(
        &self,
        request: &PutBlockRequest,
        write: impl Fn() -> Result<Ticket, Refusal>,
    ) -> Result<(), Refusal> {
        loop {
            let ticket = match self.begin_put(request)? {
                // It may be on its way to the disk still.
                Some(ticket) => ticket,
                None => write()?,
            };
            ticket.wait().map_err(refusal_of)?;
            if self.is_put(&request.address) {
                return Ok(());
            }
        }
    }

    /// As `put`, and notes what follows from it: that there is a block for others, or that there was no room. That there is room for
    /// a smaller one, or for one that was here already, says nothing of that.
    fn noting(
        &self,
        request: &PutBlockRequest,
        put: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let stored = put();
        if stored.is_ok() {
            self.note_stored(&NodeId(request.address.0));
        }
        if stored == Err(Refusal::Full) {
            self.note_full(reactor::now());
        }
        stored
    }

    /// Hands over a block that this process has named, without hashing it again: for a network of one. Whoever waits for
    /// the ticket asks [`Node::is_put`] before it relies on the block.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// While too much is waiting for the disk, or where there is a copy already.
    pub(crate) fn enqueue_named(
        &self,
        request: &PutBlockRequest,
        content: &Bytes,
    ) -> Result<Ticket, Refusal> {
        match self.begin_put(request)? {
            Some(ticket) => Ok(ticket),
            None => self.write_named(request, content),
        }
    }

    fn write_named(&self, request: &PutBlockRequest, content: &Bytes) -> Result<Ticket, Refusal> {
        let (address, tag) = (&request.address, &request.tag);
        if content.is_empty() || content.len() > BLOCK_SIZE_BYTES_MAX {
            return Err(Refusal::Size);
        }
        debug_assert!(address.names(tag, content), "{address} does not name its content");
        let trailer = bare_trailer(tag, content.len(), now_seconds());
        self.write_block(address, content.clone(), trailer, request.may_use_reserve)
    }

    /// Stores a block that this process has named: for a network of one.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn store_named(&self, request: &PutBlockRequest, content: &Bytes) -> Result<(), Refusal> {
        self.keep(request, || self.write_named(request, content))
    }

    /// Checks and stores a new block.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub fn put_block(&self, address: &Address, tag: &OwnerTag, content: Bytes) -> Result<(), Refusal> {
        self.put_block_of(&PutBlockRequest::new(*address, *tag), &content)
    }

    /// Checks and stores a block. One that was put a moment ago is not written again.
    ///
    /// # Errors
    /// [`Refusal`].
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn put_block_of(&self, request: &PutBlockRequest, content: &Bytes) -> Result<(), Refusal> {
        // What need not be written is not hashed below.
        if self.has_block(&request.address) && !request.address.names(&request.tag, content) {
            return Err(Refusal::Misnamed);
        }
        self.noting(request, || self.keep(request, || self.enqueue_block(request, content.clone())))
    }

    /// Whether the local store has the block, as far as it knows.
    pub fn has_block(&self, address: &Address) -> bool {
        self.store.contains(&block_key(address))
    }

    /// The ticket of a block that the local store has or is about to have; done if it is durable.
    pub(crate) fn stored_block(&self, address: &Address) -> Option<Ticket> {
        self.store.stored(&block_key(address))
    }

    /// A block's content, or a range of it, from the local store. What was damaged on disk is not served: the store
    /// checks what it reads, and the block is put on the list of what repair fetches.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], `Outside`, `Damaged`.
    ///
    /// # Suspends
    /// For the disk, if the content is not in memory.
    pub fn get_block(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, Refusal> {
        let length = self.block_length(address)?;
        let range = match range {
            None => 0..length,
            Some(range) if range.start < range.end && range.end <= length => range,
            Some(_) => return Err(Refusal::Outside { length }),
        };
        self.read_stored(address, range)
    }

    /// What a reader elsewhere needs to verify a block, or a range of it.
    ///
    /// # Errors
    /// As [`Node::get_block`].
    ///
    /// # Suspends
    /// As [`Node::get_block`].
    pub fn serve_block(
        &self,
        address: &Address,
        range: Option<Range<u32>>,
    ) -> Result<(GetBlockResponse, Bytes), Refusal> {
        let length = self.block_length(address)?;
        let outside = |_: RangeError| Refusal::Outside { length };
        let groups = range.as_ref().map_or(Ok(0..length), |range| covering_groups(length, range));
        let groups = groups.map_err(outside)?;
        let content = self.read_stored(address, groups.clone())?;
        let stored = self.store.length(&block_key(address)).ok_or(Refusal::NotFound)?;
        let tail = self.read_stored(address, length..stored)?;
        let Trailer { put_seconds, tag, hashes } =
            decode_trailer(&tail).map_err(|UnknownForm| self.lose_block(address))?;
        self.served.set(self.served.get() + 1);
        let answer = |proof| GetBlockResponse { tag, put_seconds, length, proof };
        let Some(range) = range else { return Ok((answer(Vec::new()), content)) };
        let hashes = match hashes {
            Some(hashes) => hashes,
            // Left out when it was stored, since nobody was to ask: one pass over the block for whoever does.
            None => address_and_groups(&tag, &self.read_stored(address, 0..length)?).1,
        };
        let covered = covering_slices(length, &range).map_err(outside)?;
        let proof = prove_range(&tag, length, &covered, &content, &hashes);
        let within = (covered.start - groups.start) as usize..(covered.end - groups.start) as usize;
        Ok((answer(proof), content.slice(within)))
    }

    /// Rereads a block that somebody found wrong, or missing where it should be. If it is, drops it and asks repair for
    /// another copy.
    ///
    /// # Errors
    /// If the store fails otherwise.
    ///
    /// # Suspends
    /// For the disk.
    pub fn suspect_block(&self, address: &Address) -> Result<bool, Refusal> {
        match self.store.get(&block_key(address), None) {
            Ok(None) => {
                if self.is_responsible(&NodeId(address.0)) {
                    self.want(*address);
                }
                Ok(false)
            }
            Ok(Some(stored)) if decode(address, stored.clone()).is_ok() => Ok(false),
            Ok(Some(_)) | Err(StoreError::Damaged(_)) => {
                self.lose_block(address);
                Ok(true)
            }
            Err(error) => Err(refusal_of(error)),
        }
    }

    fn block_length(&self, address: &Address) -> Result<u32, Refusal> {
        let stored = self.store.length(&block_key(address)).ok_or(Refusal::NotFound)?;
        content_length(stored).map_err(|UnknownForm| self.lose_block(address))
    }

    fn read_stored(&self, address: &Address, range: Range<u32>) -> Result<Bytes, Refusal> {
        match self.store.get(&block_key(address), Some(range)) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Refusal::NotFound),
            Err(StoreError::Damaged(_)) => Err(self.lose_block(address)),
            Err(error) => Err(refusal_of(error)),
        }
    }

    /// Drops a damaged copy and has repair fetch another.
    fn lose_block(&self, address: &Address) -> Refusal {
        tracing::warn!(%address, "a stored block is damaged; it will be fetched from another node");
        // Somebody may be putting it again right now. Nobody waits for the removal: if it does not become durable, the next
        // reader finds the damage again.
        if self.stored_block(address).is_none_or(|ticket| ticket.is_done()) {
            drop(self.store.enqueue_remove(&block_key(address)));
        }
        self.want(*address);
        Refusal::Damaged
    }

    /// One number for each first byte of an address; equal where this node and the asker hold the same keys of
    /// those that both should hold.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// It lets others run every thousand keys.
    pub fn digests(&self, request: &DigestsRequest) -> Result<Vec<u64>, Refusal> {
        let mut digests = vec![0u64; 256];
        let mut from = Some([0; 32]);
        while let Some(start) = from {
            let (keys, next) = self.shared_keys(request, start, [0xff; 32], BATCH)?;
            for key in keys {
                let digest = &mut digests[key.address[0] as usize];
                // A sum does not depend on the order; addresses are hashes already, and a liar only fools itself.
                *digest = digest.wrapping_add(number_of(&key));
            }
            from = next;
            reactor::yield_now();
        }
        Ok(digests)
    }

    /// Keys in a range of addresses that this node holds and the asker should.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// It lets others run every thousand keys.
    pub fn list_keys(&self, request: &ListKeysRequest) -> Result<ListKeysResponse, Refusal> {
        let mut keys = Vec::new();
        let mut next = Some(request.from);
        while let Some(start) = next
            && keys.len() + BATCH <= KEYS_PER_ANSWER_MAX
        {
            let (more, rest) = self.shared_keys(&request.of, start, request.to, BATCH)?;
            keys.extend(more);
            next = rest;
            reactor::yield_now();
        }
        Ok(ListKeysResponse { keys, next })
    }

    fn shared_keys(
        &self,
        request: &DigestsRequest,
        from: [u8; 32],
        to: [u8; 32],
        count_max: usize,
    ) -> Result<(Vec<ListedKey>, Option<[u8; 32]>), Refusal> {
        let kind = match request.family {
            Family::Blocks => Kind::BLOCK,
            Family::Registers => Kind::REGISTER,
            Family::Deletions => Kind::TOMBSTONE,
            Family::Reprieves => Kind::REPRIEVE,
        };
        let found = self.store.keys(&Key::new(kind, from), count_max);
        let ended = found.len() < count_max;
        let in_range: Vec<Key> =
            found.into_iter().take_while(|key| key.kind == kind && key.address <= to).collect();
        let last = in_range.last().copied();
        let next = if ended || in_range.len() < count_max { None } else { last.and_then(|key| key.next()) };
        let next = next.filter(|key| key.kind == kind && key.address <= to).map(|key| key.address);
        let mut keys = Vec::with_capacity(in_range.len());
        for key in in_range {
            let position = NodeId(key.address);
            match request.family {
                Family::Blocks | Family::Deletions | Family::Reprieves => {
                    // A deleted block is as good as gone, though its bytes may be there.
                    let is_dead = request.family == Family::Blocks && self.is_dead(&Address(key.address))?;
                    if !is_dead && self.shares_with(&request.asker, &position) {
                        keys.push(ListedKey { address: key.address, ballot: Ballot::ZERO });
                    }
                }
                Family::Registers => keys.extend(self.list_register(&key.address, &request.asker)?),
            }
        }
        Ok((keys, next))
    }
}

fn number_of(key: &ListedKey) -> u64 {
    let (words, _) = key.address.as_chunks::<8>();
    let (proposer, _) = key.ballot.proposer.0.as_chunks::<8>();
    u64::from_le_bytes(words[1])
        .wrapping_add(key.ballot.round.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(u64::from_le_bytes(proposer[0]))
}
