//! A [`BlockStore`] over hash maps, for the tests of what lies above.
//!
//! It never suspends, keeps everything until it is dropped, and checks sizes and names as the real one does. Its
//! registers have no signatures: one identity writes them all. Share it as `Rc<MemoryBlockStore>` between "machines".

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::crypto::hash::sha3_256;

use crate::address::{Address, BLOCK_SIZE_BYTES_MAX, OwnerTag};
use crate::block_store::{
    BlockStore, GetError, HeaderHash, PAYLOAD_SIZE_BYTES_MAX, PutError, ReadError, Record, RegisterAddress,
    SwapError, Usage,
};

/// See the [module](self).
#[derive(Debug)]
pub struct MemoryBlockStore {
    identity: PublicKey,
    blocks: RefCell<HashMap<Address, Bytes>>,
    registers: RefCell<HashMap<RegisterAddress, Option<Record>>>,
    capacity_bytes: Cell<u64>,
    used_bytes: Cell<u64>,
}

impl Default for MemoryBlockStore {
    fn default() -> Self {
        MemoryBlockStore::new()
    }
}

impl MemoryBlockStore {
    /// An empty store of 1 TiB.
    pub fn new() -> MemoryBlockStore {
        MemoryBlockStore {
            identity: PublicKey::from_bytes([0x1d; 32]),
            blocks: RefCell::default(),
            registers: RefCell::default(),
            capacity_bytes: Cell::new(1 << 40),
            used_bytes: Cell::new(0),
        }
    }

    /// A register without a value, named by `salt`, that everybody with this store may write.
    pub fn new_register(&self, salt: [u8; 32]) -> RegisterAddress {
        let register = RegisterAddress(sha3_256(&[b"hypha register in memory", &salt]));
        self.registers.borrow_mut().entry(register).or_default();
        register
    }

    /// From now on refuses what would exceed `capacity_bytes`: for tests of a full disk.
    pub fn set_capacity_bytes(&self, capacity_bytes: u64) {
        self.capacity_bytes.set(capacity_bytes);
    }

    /// All blocks, for tests that search them for plaintext.
    pub fn blocks(&self) -> Vec<(Address, Bytes)> {
        self.blocks.borrow().iter().map(|(address, content)| (*address, content.clone())).collect()
    }

    /// Drops the blocks that `keep` does not want, as garbage collection does.
    pub fn retain(&self, keep: impl Fn(&Address) -> bool) {
        self.blocks.borrow_mut().retain(|address, _| keep(address));
        let blocks = self.blocks.borrow();
        self.used_bytes.set(blocks.values().map(|content| content.len() as u64).sum());
    }

    /// Replaces a block's content, whatever its address says: for tests of damage.
    pub fn corrupt(&self, address: &Address, content: Bytes) {
        self.blocks.borrow_mut().insert(*address, content);
    }
}

impl BlockStore for MemoryBlockStore {
    fn tag(&self) -> OwnerTag {
        OwnerTag([0x7a; 32])
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        if content.is_empty() || content.len() > BLOCK_SIZE_BYTES_MAX {
            return Err(PutError::Size { size: content.len(), max: BLOCK_SIZE_BYTES_MAX });
        }
        let address = Address::of(&self.tag(), &content);
        let mut blocks = self.blocks.borrow_mut();
        if blocks.contains_key(&address) {
            return Ok(address);
        }
        let used_bytes = self.used_bytes.get() + content.len() as u64;
        if used_bytes > self.capacity_bytes.get() {
            return Err(PutError::Full { full: 1 });
        }
        self.used_bytes.set(used_bytes);
        // The caller's may lie in a larger buffer, which somebody waits for.
        blocks.insert(address, Bytes::copy_from_slice(&content));
        Ok(address)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        let content = self.blocks.borrow().get(address).cloned().ok_or(GetError::NotFound(*address))?;
        if !address.names(&self.tag(), &content) {
            return Err(GetError::Corrupt { address: *address, liars: 1 });
        }
        let Some(range) = range else { return Ok(content) };
        if range.start >= range.end || range.end as usize > content.len() {
            return Err(GetError::OutOfRange {
                start: range.start,
                end: range.end,
                length: content.len() as u32,
            });
        }
        Ok(content.slice(range.start as usize..range.end as usize))
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        self.registers.borrow().get(register).cloned().ok_or(ReadError::NotOpen(*register))
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        if payload.len() > PAYLOAD_SIZE_BYTES_MAX {
            return Err(SwapError::Size { size: payload.len(), max: PAYLOAD_SIZE_BYTES_MAX });
        }
        let mut registers = self.registers.borrow_mut();
        let current = registers.get_mut(register).ok_or(ReadError::NotOpen(*register))?;
        if current.as_ref().map(|record| record.header_hash) != expected {
            return Err(SwapError::Lost(current.clone()));
        }
        let version = current.as_ref().map_or(0, |record| record.version) + 1;
        let hash = blake3::Hasher::new()
            .update(&register.0)
            .update(&version.to_le_bytes())
            .update(&expected.map_or([0; 32], |hash| hash.0))
            .update(&payload)
            .finalize();
        let record =
            Record { version, payload, header_hash: HeaderHash(*hash.as_bytes()), writer: self.identity };
        *current = Some(record.clone());
        Ok(record)
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        Ok(Usage {
            used_bytes: self.used_bytes.get(),
            total_bytes: self.capacity_bytes.get(),
            block_count: self.blocks.borrow().len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_swaps_that_expect_the_same_value_the_second_loses_and_sees_the_winner() {
        let store = MemoryBlockStore::new();
        let register = store.new_register([1; 32]);
        assert_eq!(store.read(&register), Ok(None));
        let first = store.compare_and_swap(&register, None, Bytes::from_static(b"one")).unwrap();
        let lost = store.compare_and_swap(&register, None, Bytes::from_static(b"two"));
        assert_eq!(lost, Err(SwapError::Lost(Some(first.clone()))));
        let second =
            store.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"two")).unwrap();
        assert_eq!((second.version, store.read(&register)), (2, Ok(Some(second.clone()))));
    }

    #[test]
    fn publish_refuses_a_block_under_another_name() {
        let store = MemoryBlockStore::new();
        let register = store.new_register([1; 32]);
        let block = Bytes::from_static(b"block");
        let address = Address::of(&store.tag(), &block);
        let wrong = store.publish(vec![(Address([0; 32]), block.clone())], &register, None, Bytes::new());
        assert_eq!(wrong, Err(SwapError::Put(PutError::Misnamed(Address([0; 32])))));
        assert_eq!(store.read(&register), Ok(None));
        store.publish(vec![(address, block.clone())], &register, None, Bytes::new()).unwrap();
        assert_eq!(store.get(&address, Some(1..3)).unwrap(), block.slice(1..3));
    }

    #[test]
    fn a_full_store_refuses_blocks_and_keeps_serving() {
        let store = MemoryBlockStore::new();
        let address = store.put(Bytes::from_static(b"fits")).unwrap();
        store.set_capacity_bytes(5);
        assert_eq!(store.put(Bytes::from_static(b"does not")), Err(PutError::Full { full: 1 }));
        assert_eq!(store.get(&address, None).unwrap(), "fits");
    }
}
