//! By which numbers the kernel knows what lies in other trees than the drive's: in snapshots, and in spaces.
//!
//! A file has its number in each snapshot that has it, and a space's files have numbers that whoever writes there chose. So the
//! kernel needs one for each pair of tree and number. The drive's live inodes stay below 2^63; those here lie above: of snapshots
//! in the lower half of that, of spaces in the upper one. A number follows from its pair, so that it is the same whenever it is
//! asked for: `find` and `diff` compare them, and an archiver knows by them which names are one file. Should two pairs ever want
//! the same number while the kernel refers to one, the other takes the next.
//!
//! There is an entry for what the kernel refers to, and for what the last answer showed it: it says at once, before
//! anything else is asked, which of that it keeps.

use std::collections::HashMap;

use crate::operations::{DirectoryEntry, Inode};

/// The bits in which the numbers of one range differ.
const MASK: u64 = (1 << 62) - 1;

/// A range of numbers that no live inode has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range(u64);

/// What lies in snapshots.
pub(crate) const PAST: Range = Range(0b10 << 62);
/// What lies in spaces.
pub(crate) const SPACES: Range = Range(0b11 << 62);

impl Range {
    /// Its first number, which `Numbers` gives to nothing.
    pub(crate) const fn first(self) -> Inode {
        Inode(self.0)
    }

    /// Whether the kernel means something of this range by `inode`.
    pub(crate) const fn has(self, inode: Inode) -> bool {
        inode.0 & !MASK == self.0
    }
}

/// A file or directory of another tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Node {
    /// Which tree it is: a snapshot's number, or a space's.
    pub(crate) tree: u64,
    /// What that tree knows it by.
    pub(crate) inode: Inode,
}

/// See the file's header.
pub(crate) struct Numbers {
    range: Range,
    /// What the kernel refers to, and how often.
    known: HashMap<u64, (Node, u64)>,
    /// What the last answer shows.
    shown: HashMap<u64, Node>,
}

impl Numbers {
    /// Those of a range, of which the kernel refers to none yet.
    pub(crate) fn new(range: Range) -> Numbers {
        Numbers { range, known: HashMap::new(), shown: HashMap::new() }
    }

    /// Begins another answer.
    pub(crate) fn begin_answer(&mut self) {
        self.shown.clear();
    }

    /// Returns the number of a node that is listed only.
    pub(crate) fn of(&self, node: Node) -> Inode {
        let first = self.range.0;
        let mut number = first | mixed(node) & MASK;
        let is_free = |number: u64| {
            let other = self.known.get(&number).map(|(other, _)| other).or_else(|| self.shown.get(&number));
            number != first && other.is_none_or(|other| *other == node)
        };
        while !is_free(number) {
            number = first | number.wrapping_add(1) & MASK;
        }
        Inode(number)
    }

    /// Returns the number of a node that the answer shows.
    pub(crate) fn show(&mut self, node: Node) -> Inode {
        let number = self.of(node);
        self.shown.insert(number.0, node);
        number
    }

    /// Begins another answer, which lists the directory `listed`: puts our numbers in place of its tree's. `above` is what
    /// `..` means in that tree's root.
    pub(crate) fn list(&mut self, listed: Node, above: Inode, entries: &mut [DirectoryEntry]) {
        self.begin_answer();
        for entry in entries {
            if listed.inode == Inode::ROOT && entry.name.as_ref() == b".." {
                entry.inode = above;
                continue;
            }
            let node = Node { tree: listed.tree, inode: entry.inode };
            entry.inode = match &mut entry.attributes {
                None => self.of(node),
                Some(attributes) => {
                    attributes.inode = self.show(node);
                    attributes.inode
                }
            };
        }
    }

    /// Counts a reference to what the last answer showed.
    pub(crate) fn remember(&mut self, number: Inode) {
        if let Some((_, count)) = self.known.get_mut(&number.0) {
            *count += 1;
        } else if let Some(node) = self.shown.get(&number.0) {
            self.known.insert(number.0, (*node, 1));
        }
    }

    /// Takes references back.
    pub(crate) fn forget(&mut self, number: Inode, count: u64) {
        if let Some((_, left)) = self.known.get_mut(&number.0) {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.known.remove(&number.0);
            }
        }
    }

    /// Returns what the kernel means.
    pub(crate) fn node(&self, number: Inode) -> Option<Node> {
        let known = self.known.get(&number.0).map(|(node, _)| *node);
        known.or_else(|| self.shown.get(&number.0).copied())
    }
}

/// Spreads pairs over all numbers (Steele and others' splitmix, a bijection for one tree).
fn mixed(node: Node) -> u64 {
    let mut bits = node.inode.0.wrapping_add(node.tree.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::FileKind;

    fn node(tree: u64, inode: u64) -> Node {
        Node { tree, inode: Inode(inode) }
    }

    #[test]
    fn a_node_has_one_number_that_no_live_inode_has() {
        let mut numbers = Numbers::new(PAST);
        let first = numbers.show(node(7, 1));
        assert!(PAST.has(first) && !SPACES.has(first) && first != PAST.first());
        let other = Numbers::new(SPACES).show(node(7, 1));
        assert!(SPACES.has(other) && !PAST.has(other) && !PAST.has(Inode(u64::MAX >> 1)));
        assert_eq!(numbers.of(node(7, 1)), first);
        assert_ne!(numbers.of(node(8, 1)), first);
        assert_ne!(numbers.of(node(7, 2)), first);
        assert_eq!(numbers.node(first), Some(node(7, 1)));
        assert_eq!(Numbers::new(PAST).of(node(7, 1)), first, "also after a restart");
    }

    #[test]
    fn what_the_kernel_keeps_is_known_until_it_gives_it_back() {
        let mut numbers = Numbers::new(PAST);
        let number = numbers.show(node(7, 1));
        numbers.remember(number);
        numbers.begin_answer();
        let listed = numbers.show(node(7, 2));
        numbers.remember(number);
        numbers.begin_answer();
        assert_eq!(numbers.node(listed), None, "it was not kept");
        numbers.forget(number, 1);
        assert_eq!(numbers.node(number), Some(node(7, 1)));
        numbers.forget(number, 1);
        assert_eq!(numbers.node(number), None);
        numbers.forget(number, 1);
    }

    #[test]
    fn a_listing_has_our_numbers_and_the_way_up_from_a_root_leaves_the_tree() {
        let mut numbers = Numbers::new(SPACES);
        let entry = |name: &'static str, inode| DirectoryEntry {
            name: name.into(),
            inode: Inode(inode),
            kind: FileKind::Directory,
            cookie: 1,
            attributes: None,
        };
        let listing = || [entry("..", 1), entry("below", 2)];
        let above = Inode(99);
        for (listed, up) in [(1, above), (2, numbers.of(node(7, 1)))] {
            let mut entries = listing();
            numbers.list(node(7, listed), above, &mut entries);
            assert_eq!(entries.map(|entry| entry.inode), [up, numbers.of(node(7, 2))]);
        }
    }

    #[test]
    fn two_that_want_one_number_get_two() {
        let mut numbers = Numbers::new(PAST);
        let number = numbers.of(node(7, 1));
        numbers.known.insert(number.0, (node(9, 9), 1));
        let other = numbers.show(node(7, 1));
        assert_ne!(other, number);
        numbers.remember(other);
        numbers.begin_answer();
        assert_eq!(numbers.node(other), Some(node(7, 1)));
        assert_eq!(numbers.node(number), Some(node(9, 9)));
    }
}
