//! Which objects a tree reaches: those that its nodes and its files' frames lie in, and those of its snapshots.
//!
//! Whoever collects garbage must miss none, so this looks at every node, and stops at anything that it does not know
//! rather than passing over it: what a later version keeps in the tree may point to objects too.
//!
//! The trees of snapshots share most of their nodes with the newest tree and with each other, so what lies below an inner
//! node is looked at once, whichever tree has it. Records of snapshots in a snapshot's own tree lead nowhere: some of
//! those have been deleted since.
//!
//! Memory is a path of nodes, a handful of siblings, and some forty bytes for each inner node, of which there is one for a
//! hundred leaves. Not here: which trees are in use.

use std::collections::HashSet;
use std::rc::Rc;

use super::Nodes;
use super::node::Node;
use crate::format::{Key, Pointer, SnapshotRecord};

/// Siblings that are fetched together: they lie in few objects, and a leaf takes some 20 KiB.
const FETCHED_TOGETHER: usize = 16;

/// Before a frame's bytes that lie in the leaf itself.
const INLINE: u8 = 2;

/// Why it is not known what a tree reaches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreached<E> {
    /// A node could not be had.
    #[error("a part of the tree cannot be read ({0})")]
    Node(E),
    /// A node of a snapshot's tree could not be had.
    #[error(
        "a part of the snapshot {name:?} cannot be read ({error}): what else there is can be collected once that snapshot is \
         deleted"
    )]
    Snapshot {
        /// The snapshot's name.
        name: String,
        /// Why not.
        error: E,
    },
    /// It holds something of a later version.
    #[error(
        "the volume holds records that this version does not know: use the newer version that wrote them"
    )]
    Unknown,
    /// It holds something that no commit wrote.
    #[error("a part of the tree is malformed")]
    Malformed,
}

/// Visits the object of each node and each frame of the trees at `roots` and of the trees of their snapshots, some of them
/// many times.
///
/// # Errors
///
/// [`Unreached`]; what was visited then is not all.
///
/// # Suspends
///
/// While nodes are fetched.
pub fn reachable_objects<N: Nodes>(
    roots: &[Pointer],
    nodes: &N,
    visit: &mut impl FnMut(&[u8; 32]),
) -> Result<(), Unreached<N::Error>> {
    let mut walk = Walk { visit, passed: HashSet::new(), snapshots: Vec::new() };
    for root in roots {
        walk.tree(root, nodes)?;
    }
    for (name, snapshot) in std::mem::take(&mut walk.snapshots) {
        walk.tree(&snapshot, nodes).map_err(|error| match error {
            Unreached::Node(error) => Unreached::Snapshot { name, error },
            error => error,
        })?;
        walk.snapshots.clear();
    }
    Ok(())
}

struct Walk<'a, V> {
    visit: &'a mut V,
    /// Inner nodes that were looked at, by object and offset.
    passed: HashSet<([u8; 32], u32)>,
    /// The snapshots that the tree's leaves name, and their trees.
    snapshots: Vec<(String, Pointer)>,
}

impl<V: FnMut(&[u8; 32])> Walk<'_, V> {
    fn tree<N: Nodes>(&mut self, root: &Pointer, nodes: &N) -> Result<(), Unreached<N::Error>> {
        let mut waiting = vec![(vec![*root], None)];
        while let Some((pointers, level)) = waiting.pop() {
            pointers.iter().for_each(|pointer| (self.visit)(&pointer.address));
            let fetched = nodes.fetch(&pointers).map_err(Unreached::Node)?;
            for (pointer, node) in pointers.iter().zip(fetched) {
                if level.is_some_and(|level| node.level() != level) {
                    return Err(Unreached::Malformed);
                }
                let Some(below) = node.level().checked_sub(1) else {
                    self.leaf(&node)?;
                    continue;
                };
                if !self.passed.insert((pointer.address, pointer.offset)) {
                    continue;
                }
                let children = (0..node.len()).map(|index| node.child(index).ok_or(Unreached::Malformed));
                let children: Vec<Pointer> = children.collect::<Result<_, _>>()?;
                let groups = children.chunks(FETCHED_TOGETHER).rev();
                waiting.extend(groups.map(|group| (group.to_vec(), Some(below))));
            }
        }
        Ok(())
    }

    fn leaf<E>(&mut self, node: &Rc<Node>) -> Result<(), Unreached<E>> {
        for index in 0..node.len() {
            let (key, value) = (node.key(index), node.value(index));
            if Key::is_of_unknown_kind(key) {
                return Err(Unreached::Unknown);
            }
            // Each kind by its name: whoever adds one has to say here whether it holds pointers.
            match Key::decode(&node.shared_key(index)).ok_or(Unreached::Malformed)? {
                Key::Extent(..) if value.first() == Some(&INLINE) => {}
                Key::Extent(..) => {
                    let pointer = Pointer::decode(value, node.home()).ok_or(Unreached::Malformed)?;
                    (self.visit)(&pointer.address);
                }
                Key::Snapshot(_) => {
                    let record = SnapshotRecord::decode(value).ok_or(Unreached::Malformed)?;
                    self.snapshots.push((record.name, record.tree));
                }
                Key::Writer(_)
                | Key::Orphan(_)
                | Key::Truncation(_)
                | Key::Object(_)
                | Key::Session(_)
                | Key::Inode(_)
                | Key::Xattr(..)
                | Key::Entry(..) => {}
            }
        }
        Ok(())
    }
}
