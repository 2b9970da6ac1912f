//! Trees against maps, and what a merge touches.

use std::collections::{BTreeMap, HashMap};

use dht::{Address, OwnerTag};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reactor::cell::RefCell;

use super::*;
use crate::chunk::{Binding, open_run};
use crate::format::VolumeId;
use crate::tree::cursor;

const VOLUME: VolumeId = VolumeId([6; 16]);

#[derive(Default)]
struct Objects {
    objects: RefCell<HashMap<[u8; 32], Bytes>>,
    fetched: RefCell<usize>,
    nodes: RefCell<HashMap<Pointer, Rc<Node>>>,
}

impl Nodes for Objects {
    type Error = std::convert::Infallible;

    fn fetch(&self, pointers: &[Pointer]) -> Result<Vec<Rc<Node>>, Self::Error> {
        *self.fetched.borrow_mut() += pointers.len();
        Ok(pointers.iter().map(|pointer| self.load(pointer)).collect())
    }
}

impl Objects {
    fn load(&self, pointer: &Pointer) -> Rc<Node> {
        if let Some(node) = self.nodes.borrow().get(pointer) {
            return node.clone();
        }
        let object = self.objects.borrow()[&pointer.address].clone();
        let binding = Binding { kind: ChunkKind::Node, volume: VOLUME };
        let bytes = open_run(&binding, object, 0, &[(*pointer).into()]).unwrap().remove(0);
        let node = Rc::new(Node::decode(bytes, pointer.address).unwrap());
        self.nodes.borrow_mut().insert(*pointer, node.clone());
        node
    }

    fn commit(&self, root: Option<Pointer>, changes: &[Change]) -> Option<Pointer> {
        let mut packer = Packer::new(OwnerTag([1; 32]), VOLUME, 1);
        let merged = merge(self, root, changes, &mut packer).unwrap();
        packer.close();
        for (Address(address), object) in packer.take_ready() {
            self.objects.borrow_mut().insert(address, object);
        }
        merged.root.map(|root| match root {
            Value::Chunk(location) => packer.pointer(&location),
            Value::Pointer(pointer) => pointer,
            Value::Raw(_) => unreachable!("a root is a pointer"),
        })
    }

    fn all(&self, root: Option<Pointer>) -> Vec<(Bytes, Bytes)> {
        let mut all = Vec::new();
        let Some(root) = root else { return all };
        let mut key = Bytes::new();
        let find = |pointer: &Pointer| Some(self.load(pointer));
        while let Some(found) = cursor::first_in(&root, &key, &[0xff; 300], find).unwrap() {
            all.push((found.key(), found.node.shared_value(found.index)));
            let mut next = found.key().to_vec();
            next.push(0);
            key = Bytes::from(next);
        }
        all
    }
}

#[test]
fn random_batches_leave_the_tree_equal_to_a_map() {
    let seed = crate::seed_for_test();
    let mut random = StdRng::seed_from_u64(seed);
    let objects = Objects::default();
    let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut root = None;
    for round in 0..60 {
        let mut batch: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        let removals = if round % 7 == 6 { 0.95 } else { 0.3 };
        for _ in 0..random.random_range(1..600) {
            let key = Bytes::from(format!("\x01key{:05}", random.random_range(0..3000)));
            let size = if random.random_bool(0.01) { 9000 } else { random.random_range(0..300) };
            let value = (!random.random_bool(removals)).then(|| Bytes::from(vec![random.random(); size]));
            batch.insert(key, value);
        }
        let changes: Vec<Change> = batch
            .iter()
            .map(|(key, value)| Change { key: key.clone(), value: value.clone().map(Value::Raw) })
            .collect();
        root = objects.commit(root, &changes);
        for (key, value) in batch {
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        let expected: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        assert!(objects.all(root) == expected, "round {round}, HYPHA_SEED={seed}");
    }
    let clear: Vec<Change> = model.keys().map(|key| Change { key: key.clone(), value: None }).collect();
    assert_eq!(objects.commit(root, &clear), None);
}

#[test]
fn a_single_change_in_a_large_tree_touches_one_path() {
    let objects = Objects::default();
    let changes: Vec<Change> = (0..20_000)
        .map(|index| Change {
            key: Bytes::from(format!("key{index:06}")),
            value: Some(Value::Raw(Bytes::from_static(
                b"a value of some length, as an inode's is, or nearly so",
            ))),
        })
        .collect();
    let root = objects.commit(None, &changes);
    *objects.fetched.borrow_mut() = 0;
    let before = objects.objects.borrow().len();
    let change =
        Change { key: Bytes::from_static(b"key010000"), value: Some(Value::Raw(Bytes::from_static(b"new"))) };
    let new_root = objects.commit(root, &[change]);
    assert_ne!(root, new_root);
    assert!(*objects.fetched.borrow() <= 3, "{} nodes read", objects.fetched.borrow());
    assert_eq!(objects.objects.borrow().len(), before + 1, "leaf, parent and root share one object");
}

#[test]
fn removing_what_is_not_there_changes_nothing() {
    let objects = Objects::default();
    let value = Some(Value::Raw(Bytes::from_static(b"1")));
    let root = objects.commit(None, &[Change { key: Bytes::from_static(b"a"), value }]);
    assert_eq!(objects.commit(root, &[Change { key: Bytes::from_static(b"b"), value: None }]), root);
}
