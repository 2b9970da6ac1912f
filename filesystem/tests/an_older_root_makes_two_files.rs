//! A machine that begins without its nodes, at a root that lacks what it published itself just before it died: what it writes then and
//! what it had written are two contents of a file, and both are there in the end.
//!
//! What went wrong: contents were told apart by the device that made them and a count. From the older root the same device counted the same
//! way again; so that what was closed offline passed for what the nodes had already, and was dropped without a word, or was put
//! together with it.

mod common;

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use common::*;
use dht::{
    Address, BlockStore, GetError, HeaderHash, OwnerTag, PutError, ReadError, Record, RegisterAddress,
    SwapError, Usage,
};
use filesystem::{Operations, Volume};
use reactor::cell::RefCell;

/// The nodes as a machine has them that has kept an old root, and reaches none.
struct Kept {
    store: Rc<TestStore>,
    /// What is kept, until the nodes are back.
    root: RefCell<Option<Record>>,
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

/// Writes in place so many times, of which nothing is a part of what another side writes.
fn write(volume: &Volume, side: u8, times: usize) {
    let file = volume.lookup(ROOT, b"file").unwrap().inode;
    for at in 0..times {
        // A frame of its own each.
        volume.write(file, (at as u64) << 16, &[side; 100], false).unwrap();
    }
}

fn expected(side: u8, times: usize) -> Vec<u8> {
    let mut content = vec![b'.'; 300_000];
    for at in 0..times {
        content[at << 16..][..100].fill(side);
    }
    content
}

#[test]
fn what_was_published_and_what_was_written_without_it_are_both_kept() {
    for (online, offline) in [(1, 1), (1, 2), (2, 1), (3, 3)] {
        reactor::run(move || {
            let store = TestStore::new();
            create(&store).close().stored().unwrap();
            let before = open(&store, "laptop");
            write_file(&before, ROOT, "file", &expected(b'.', 0));
            before.close().stored().unwrap();
            let root = store.read(&keys(&store).register).unwrap();

            let published = open(&store, "laptop");
            write(&published, b'a', online);
            published.close().stored().unwrap();

            let kept = Rc::new(Kept { store: store.clone(), root: RefCell::new(root) });
            let laptop = Volume::open(kept.clone(), keys(&store), options("laptop")).unwrap();
            write(&laptop, b'b', offline);
            kept.root.replace(None);
            laptop.close().stored().unwrap();

            let after = open(&store, "reader");
            let mut contents: Vec<Vec<u8>> = names(&after, ROOT)
                .iter()
                .map(|name| read_file(&after, after.lookup(ROOT, name.as_bytes()).unwrap().inode))
                .collect();
            contents.sort();
            let context = format!("{online} changes published, {offline} without the nodes");
            assert_eq!(contents.len(), 2, "{context}");
            assert!(
                contents[0] == expected(b'a', online) || contents[1] == expected(b'a', online),
                "{context}"
            );
            assert!(
                contents[0] == expected(b'b', offline) || contents[1] == expected(b'b', offline),
                "{context}"
            );
            after.close().stored().unwrap();
        });
    }
}
