//! A store with a cache on the disk before it: what it answers came from either, and is verified in both cases.
//!
//! Ranges that were read are kept, and blocks that were written, whole: who writes a file reads it soon. What this process's
//! own node holds is on this disk already, and is not kept a second time.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use dht::block_store::{
    BlockStore, GetError, HeaderHash, PutError, ReadError, Record, RegisterAddress, SwapError, Usage,
};
use dht::{Address, OwnerTag};

use super::DiskCache;

/// A store behind a cache.
pub struct CachedStore {
    below: Rc<dyn BlockStore>,
    cache: Rc<DiskCache>,
}

impl CachedStore {
    /// Puts `cache` before `below`.
    pub fn new(below: Rc<dyn BlockStore>, cache: Rc<DiskCache>) -> CachedStore {
        CachedStore { below, cache }
    }

    fn keep(&self, address: &Address, start: u32, bytes: &Bytes) {
        if !self.below.is_at_hand(address) {
            self.cache.offer(address, start, bytes);
        }
    }

    fn keep_all<T, E>(&self, stored: Result<T, E>, blocks: &[(Address, Bytes)]) -> Result<T, E> {
        if stored.is_ok() {
            blocks.iter().for_each(|(address, content)| self.keep(address, 0, content));
        }
        stored
    }
}

impl BlockStore for CachedStore {
    fn tag(&self) -> OwnerTag {
        self.below.tag()
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        let address = self.below.put(content.clone())?;
        self.keep(&address, 0, &content);
        Ok(address)
    }

    fn put_named(&self, address: &Address, content: Bytes) -> Result<(), PutError> {
        self.below.put_named(address, content.clone())?;
        self.keep(address, 0, &content);
        Ok(())
    }

    fn put_many(&self, contents: Vec<Bytes>) -> Result<Vec<Address>, PutError> {
        let addresses = self.below.put_many(contents.clone())?;
        addresses.iter().zip(&contents).for_each(|(address, content)| self.keep(address, 0, content));
        Ok(addresses)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        // The whole of a block whose length nobody here knows: not how a volume reads.
        let Some(range) = range else { return self.below.get(address, None) };
        if self.below.is_at_hand(address) {
            return self.below.get(address, Some(range));
        }
        if let Some(bytes) = self.cache.get(address, &range) {
            return Ok(bytes);
        }
        let bytes = self.below.get(address, Some(range.clone()))?;
        self.keep(address, range.start, &bytes);
        Ok(bytes)
    }

    fn is_at_hand(&self, address: &Address) -> bool {
        self.below.is_at_hand(address)
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        self.below.read(register)
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.below.compare_and_swap(register, expected, payload)
    }

    fn publish(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.keep_all(self.below.publish(blocks.clone(), register, expected, payload), &blocks)
    }

    fn publish_freeing(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.keep_all(self.below.publish_freeing(blocks.clone(), register, expected, payload), &blocks)
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        self.below.usage()
    }
}
