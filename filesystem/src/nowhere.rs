//! A store that has nothing and reaches nobody: what is read through a cache before it comes from this machine or not at all.

use std::ops::Range;

use bytes::Bytes;
use dht::block_store::{
    BlockStore, GetError, HeaderHash, Outage, PutError, Reach, ReadError, Record, RegisterAddress, SwapError,
    Usage,
};
use dht::{Address, OwnerTag};

/// See the file's header.
pub struct Nowhere {
    /// Whose blocks are asked for.
    pub tag: OwnerTag,
}

fn unread() -> ReadError {
    ReadError::NoQuorum { answers: 0, needed: 1, reason: "nobody is asked".into() }
}

impl BlockStore for Nowhere {
    fn tag(&self) -> OwnerTag {
        self.tag
    }

    fn put(&self, _: Bytes) -> Result<Address, PutError> {
        Err(PutError::NoQuorum { durable: 0, needed: 1, reason: "nobody is asked".into() })
    }

    fn get(&self, address: &Address, _: Option<Range<u32>>) -> Result<Bytes, GetError> {
        Err(GetError::NotHere(*address))
    }

    fn outage(&self) -> Option<Outage> {
        Some(Outage { since: reactor::now(), is_long: true })
    }

    fn reach(&self, _: &RegisterAddress) -> Reach {
        Reach::Nobody
    }

    fn read(&self, _: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        Err(unread())
    }

    fn compare_and_swap(
        &self,
        _: &RegisterAddress,
        _: Option<HeaderHash>,
        _: Bytes,
    ) -> Result<Record, SwapError> {
        Err(SwapError::Read(unread()))
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        Err(unread())
    }
}
