//! Which objects a tree reaches: those that its nodes and its files' frames lie in.
//!
//! Whoever collects garbage must miss none, so this looks at every node, and stops at anything that it does not know
//! rather than passing over it: what a later version keeps in the tree may point to objects too.
//!
//! Memory is a path of nodes and a handful of siblings. Not here: which trees are in use.

use std::rc::Rc;

use super::Nodes;
use super::node::Node;
use crate::format::{Key, Pointer};

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
    /// It holds something of a later version.
    #[error(
        "the volume holds records that this version does not know: use the newer version that wrote them"
    )]
    Unknown,
    /// It holds something that no commit wrote.
    #[error("a part of the tree is malformed")]
    Malformed,
}

/// Visits the object of each node and each frame of the tree at `root`, some of them many times.
///
/// # Errors
///
/// [`Unreached`]; what was visited then is not all.
///
/// # Suspends
///
/// While nodes are fetched.
pub fn reachable_objects<N: Nodes>(
    root: &Pointer,
    nodes: &N,
    visit: &mut impl FnMut(&[u8; 32]),
) -> Result<(), Unreached<N::Error>> {
    let mut waiting = vec![(vec![*root], None)];
    while let Some((pointers, level)) = waiting.pop() {
        pointers.iter().for_each(|pointer| visit(&pointer.address));
        for node in nodes.fetch(&pointers).map_err(Unreached::Node)? {
            if level.is_some_and(|level| node.level() != level) {
                return Err(Unreached::Malformed);
            }
            match node.level().checked_sub(1) {
                Some(below) => {
                    let children = (0..node.len()).map(|index| node.child(index).ok_or(Unreached::Malformed));
                    let children: Vec<Pointer> = children.collect::<Result<_, _>>()?;
                    let groups = children.chunks(FETCHED_TOGETHER).rev();
                    waiting.extend(groups.map(|group| (group.to_vec(), Some(below))));
                }
                None => visit_leaf(&node, visit)?,
            }
        }
    }
    Ok(())
}

fn visit_leaf<E>(node: &Rc<Node>, visit: &mut impl FnMut(&[u8; 32])) -> Result<(), Unreached<E>> {
    for index in 0..node.len() {
        let (key, value) = (node.key(index), node.value(index));
        if Key::is_of_unknown_kind(key) {
            return Err(Unreached::Unknown);
        }
        if Key::may_hold_pointer(key) && value.first() != Some(&INLINE) {
            let pointer = Pointer::decode(value, node.home()).ok_or(Unreached::Malformed)?;
            visit(&pointer.address);
        }
    }
    Ok(())
}
