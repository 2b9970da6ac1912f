//! A machine without its nodes, which begins by a root that it has kept.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use dht::{
    Address, BlockStore, GetError, HeaderHash, OwnerTag, PutError, ReadError, Record, RegisterAddress,
    SwapError, Usage,
};
use reactor::cell::RefCell;

use super::TestStore;

/// The nodes as a machine has them that has kept an old root, and reaches none.
pub(crate) struct Kept {
    store: Rc<TestStore>,
    /// What is kept, until the nodes are back.
    pub(crate) root: RefCell<Option<Record>>,
}

impl BlockStore for Kept {
    fn tag(&self) -> OwnerTag {
        self.store.tag()
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        self.store.put(content)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        self.store.get(address, range)
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        let kept = self.root.borrow().clone();
        kept.map_or_else(|| self.store.read(register), |root| Ok(Some(root)))
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        if self.root.borrow().is_some() {
            return Err(SwapError::Unknown { reason: "nobody answers".into() });
        }
        self.store.compare_and_swap(register, expected, payload)
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        self.store.usage()
    }
}

impl Kept {
    pub(crate) fn new(store: &Rc<TestStore>, root: Option<Record>) -> Rc<Kept> {
        Rc::new(Kept { store: store.clone(), root: RefCell::new(root) })
    }
}
