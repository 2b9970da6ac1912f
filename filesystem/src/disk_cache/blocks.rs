//! A store of blocks with a cache on the disk before it, and with nothing of its register: a space's.
//!
//! The cache is the drive's, whose root it keeps and whose nodes' silence it notes ([`super::CachedStore`]). Of the spaces in it
//! it has the blocks alone: a space is not opened without its nodes, but what was read or written of it is on this machine then, for
//! whoever has to get it out.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use dht::block_store::{
    BlockStore, GetError, HeaderHash, Outage, PutError, Reach, ReadError, Record, RegisterAddress, SwapError,
    Usage,
};
use dht::{Address, OwnerTag};

use super::DiskCache;

/// See the file's header.
pub struct CachedBlocks {
    below: Rc<dyn BlockStore>,
    cache: Rc<DiskCache>,
}

impl CachedBlocks {
    /// Puts `cache` before `below`.
    pub fn new(below: Rc<dyn BlockStore>, cache: Rc<DiskCache>) -> CachedBlocks {
        CachedBlocks { below, cache }
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

impl BlockStore for CachedBlocks {
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
        let Some(range) = range.clone().filter(|_| !self.below.is_at_hand(address)) else {
            return self.below.get(address, range);
        };
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

    fn outage(&self) -> Option<Outage> {
        self.below.outage()
    }

    fn reach(&self, register: &RegisterAddress) -> Reach {
        self.below.reach(register)
    }

    fn doubt(&self, register: &RegisterAddress) {
        self.below.doubt(register);
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
