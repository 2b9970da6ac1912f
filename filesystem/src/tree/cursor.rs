//! Finding keys in a tree that is only partly in memory.
//!
//! A lookup descends through the nodes that `find` returns. Where one is missing it stops and returns the pointer; the
//! caller fetches it and asks again. It changes nothing and it never waits.

use std::rc::Rc;

use bytes::Bytes;

use super::node::Node;
use crate::format::Pointer;

/// What a lookup stopped for.
#[derive(Debug, Clone)]
pub enum Stop {
    /// This node is not in memory.
    Missing(Box<Pointer>),
    /// A node does not have its parent's level less one: the store holds something that no commit wrote.
    Malformed,
}

/// An entry of a leaf.
#[derive(Debug)]
pub struct Found {
    /// The leaf.
    pub node: Rc<Node>,
    /// Where in it.
    pub index: usize,
}

impl Found {
    /// Returns the entry's key.
    pub fn key(&self) -> Bytes {
        self.node.shared_key(self.index)
    }
}

fn descend(
    root: &Pointer,
    find: &mut impl FnMut(&Pointer) -> Option<Rc<Node>>,
    mut choose: impl FnMut(&Rc<Node>) -> usize,
) -> Result<Rc<Node>, Stop> {
    let mut node = find(root).ok_or_else(|| Stop::Missing(Box::new(*root)))?;
    while node.level() > 0 {
        let pointer = node.child(choose(&node)).ok_or(Stop::Malformed)?;
        let child = find(&pointer).ok_or_else(|| Stop::Missing(Box::new(pointer)))?;
        if child.level() + 1 != node.level() {
            return Err(Stop::Malformed);
        }
        node = child;
    }
    Ok(node)
}

/// Finds `key`.
///
/// # Errors
///
/// [`Stop`], see there.
pub fn get(
    root: &Pointer,
    key: &[u8],
    mut find: impl FnMut(&Pointer) -> Option<Rc<Node>>,
) -> Result<Option<Found>, Stop> {
    let node = descend(root, &mut find, |node| node.child_index(key))?;
    Ok(node.search(key).ok().map(|index| Found { node, index }))
}

/// Finds the first key at or after `key` and before `end`. A leaf that can have none of these is not looked at.
///
/// # Errors
///
/// [`Stop`], see there.
pub fn first_in(
    root: &Pointer,
    key: &[u8],
    end: &[u8],
    mut find: impl FnMut(&Pointer) -> Option<Rc<Node>>,
) -> Result<Option<Found>, Stop> {
    // The leaf that should hold `key` may end before it; then the next leaf's first key is the one, and where that
    // leaf starts stands in the nodes above.
    let mut next_leaf: Option<Bytes> = None;
    let node = descend(root, &mut find, |node| {
        let index = node.child_index(key);
        if index + 1 < node.len() {
            next_leaf = Some(node.shared_key(index + 1));
        }
        index
    })?;
    let index = node.search(key).unwrap_or_else(|index| index);
    let found = match next_leaf {
        _ if index < node.len() => Found { node, index },
        // A leaf is never empty but for the root, so this descends once more at most.
        Some(start) if start.as_ref() > key && start.as_ref() < end => first_of_leaf(root, &start, find)?,
        _ => return Ok(None),
    };
    Ok(Some(found).filter(|found| found.node.key(found.index) < end))
}

fn first_of_leaf(
    root: &Pointer,
    start: &[u8],
    mut find: impl FnMut(&Pointer) -> Option<Rc<Node>>,
) -> Result<Found, Stop> {
    let node = descend(root, &mut find, |node| node.child_index(start))?;
    let index = node.search(start).unwrap_or_else(|index| index);
    // Separators may be lower than the leaf's first key, never higher.
    if index < node.len() { Ok(Found { node, index }) } else { Err(Stop::Malformed) }
}
