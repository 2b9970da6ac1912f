//! What differs between two trees, in the order of keys, with memory for a path only.
//!
//! Both trees are walked at once; a subtree that they share is passed over without a look. What is expanded next is
//! whichever subtree may hold the lower key, so that equal subtrees meet however the nodes around them were split. The
//! cost is the nodes that differ, and those above them. It remembers where it is, so a walk may take as long as its user.

use std::rc::Rc;

use bytes::Bytes;

use super::Nodes;
use super::node::Node;
use crate::format::{Key, KeyBytes, Pointer};

/// A key whose values differ.
#[derive(Debug)]
pub struct Differing {
    /// The key's bytes.
    pub key: Bytes,
    /// Its value on the left, if it is there.
    pub left: Option<Bytes>,
    /// Its value on the right, if it is there.
    pub right: Option<Bytes>,
}

#[derive(Debug)]
enum Item {
    /// All keys in it are at `low` or above.
    Subtree {
        pointer: Pointer,
        low: Bytes,
        level: Option<u8>,
    },
    Entry {
        key: Bytes,
        value: Bytes,
    },
}

/// A walk; see the file's header.
#[derive(Debug)]
pub struct Difference {
    /// What is left on each side, the next last.
    sides: [Vec<Item>; 2],
    /// What lies below is passed over.
    from: KeyBytes,
}

/// What to do next.
enum Turn {
    PassOver,
    Expand([bool; 2]),
    /// Take the entry of these sides.
    Take([bool; 2]),
}

impl Difference {
    /// Begins at `from` in two trees.
    pub fn new(left: Option<Pointer>, right: Option<Pointer>, from: &Key) -> Difference {
        let side = |root: Option<Pointer>| {
            root.map(|pointer| Item::Subtree { pointer, low: Bytes::new(), level: None })
                .into_iter()
                .collect()
        };
        Difference { sides: [side(left), side(right)], from: from.encode() }
    }

    /// Returns the next key that differs.
    ///
    /// # Errors
    ///
    /// That of the nodes; the walk may be asked again, and goes on where it was.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn next<N: Nodes>(&mut self, nodes: &N) -> Result<Option<Differing>, N::Error> {
        loop {
            let Some(turn) = self.turn() else { return Ok(None) };
            match turn {
                Turn::PassOver => self.sides.iter_mut().for_each(|side| drop(side.pop())),
                Turn::Expand(which) => self.expand(which, nodes)?,
                Turn::Take(which) => {
                    let mut taken = [None, None];
                    for ((side, taken), wanted) in self.sides.iter_mut().zip(&mut taken).zip(which) {
                        if wanted && let Some(Item::Entry { key, value }) = side.pop() {
                            *taken = Some((key, value));
                        }
                    }
                    let [left, right] = taken;
                    let key = left.as_ref().or(right.as_ref()).map(|(key, _)| key.clone());
                    let (left, right) = (left.map(|(_, value)| value), right.map(|(_, value)| value));
                    if let Some(key) = key.filter(|_| left != right) {
                        return Ok(Some(Differing { key, left, right }));
                    }
                }
            }
        }
    }

    fn turn(&self) -> Option<Turn> {
        let [left, right] = [self.sides[0].last(), self.sides[1].last()];
        Some(match (left, right) {
            (None, None) => return None,
            (Some(Item::Subtree { .. }), None) => Turn::Expand([true, false]),
            (None, Some(Item::Subtree { .. })) => Turn::Expand([false, true]),
            (Some(Item::Entry { .. }), None) => Turn::Take([true, false]),
            (None, Some(Item::Entry { .. })) => Turn::Take([false, true]),
            (Some(Item::Entry { key: left, .. }), Some(Item::Entry { key: right, .. })) => {
                Turn::Take([left <= right, right <= left])
            }
            (Some(Item::Entry { key, .. }), Some(Item::Subtree { low, .. })) if key < low => {
                Turn::Take([true, false])
            }
            (Some(Item::Entry { .. }), Some(Item::Subtree { .. })) => Turn::Expand([false, true]),
            (Some(Item::Subtree { low, .. }), Some(Item::Entry { key, .. })) if key < low => {
                Turn::Take([false, true])
            }
            (Some(Item::Subtree { .. }), Some(Item::Entry { .. })) => Turn::Expand([true, false]),
            (
                Some(Item::Subtree { pointer: a, low: low_a, level: level_a }),
                Some(Item::Subtree { pointer: b, low: low_b, level: level_b }),
            ) => {
                if a == b {
                    Turn::PassOver
                } else if low_a != low_b {
                    Turn::Expand([low_a < low_b, low_b < low_a])
                } else {
                    // Of one level both: nodes that they share below meet then.
                    Turn::Expand([level_a >= level_b, level_b >= level_a])
                }
            }
        })
    }

    fn expand<N: Nodes>(&mut self, which: [bool; 2], nodes: &N) -> Result<(), N::Error> {
        let wanted: Vec<Pointer> = (self.sides.iter().zip(which))
            .filter_map(|(side, wanted)| match side.last() {
                Some(Item::Subtree { pointer, .. }) if wanted => Some(*pointer),
                _ => None,
            })
            .collect();
        let fetched = nodes.fetch(&wanted)?;
        if let [left, right] = fetched.as_slice() {
            nodes.fetch(&unshared(left, right))?;
        }
        let mut fetched = fetched.into_iter();
        for (side, _) in self.sides.iter_mut().zip(which).filter(|(_, wanted)| *wanted) {
            side.pop();
            if let Some(node) = fetched.next() {
                let first = match node.level() {
                    0 => node.search(&self.from).unwrap_or_else(|index| index),
                    _ => node.child_index(&self.from),
                };
                side.extend((first..node.len()).rev().filter_map(|index| item(&node, index)));
            }
        }
        Ok(())
    }
}

fn item(node: &Rc<Node>, index: usize) -> Option<Item> {
    let key = node.shared_key(index);
    Some(match node.level().checked_sub(1) {
        None => Item::Entry { key, value: node.shared_value(index) },
        level => Item::Subtree { pointer: node.child(index)?, low: key, level },
    })
}

/// Returns the children that only one of two nodes has: all of them will be looked at, so they are fetched together.
fn unshared(left: &Node, right: &Node) -> Vec<Pointer> {
    let children = |node: &Node| -> Vec<Pointer> {
        if node.level() == 0 {
            Vec::new()
        } else {
            (0..node.len()).filter_map(|index| node.child(index)).collect()
        }
    };
    let (left, right) = (children(left), children(right));
    let only = |these: &[Pointer], those: &[Pointer]| -> Vec<Pointer> {
        let those: std::collections::HashSet<_> = those.iter().collect();
        these.iter().filter(|pointer| !those.contains(pointer)).copied().collect()
    };
    [only(&left, &right), only(&right, &left)].concat()
}
