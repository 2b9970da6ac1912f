//! What the kernel must forget since others wrote, worked out while it is told.
//!
//! A list of all that differs between two trees could be as long as the volume. So what waits is pairs of trees, and the
//! walk over a pair goes on each time the kernel has taken the last piece: nothing is dropped however much it is. If pairs
//! gather faster than they are told, they become one pair from the first tree to the last, which covers them all. If a
//! walk cannot go on, everything that the kernel refers to is told instead.

use std::cell::Cell;
use std::collections::VecDeque;

use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::sync::Signal;

use super::Volume;
use super::fetch::CachedNodes;
use crate::format::{Key, Pointer, SnapshotRecord};
use crate::operations::{Inode, Invalidation};
use crate::past;
use crate::tree::difference::{Difference, Differing};

/// So many pairs of trees wait before they become one.
const PAIR_COUNT_MAX: usize = 16;
/// So many single pieces wait before everything is told instead: some megabytes of names.
const SINGLE_COUNT_MAX: usize = 100_000;

enum Item {
    Single(Invalidation),
    /// All that differs between two trees.
    Between(Box<(Option<Pointer>, Option<Pointer>)>),
    /// All that the kernel refers to.
    Everything,
}

/// See the file's header.
#[derive(Default)]
pub(super) struct News {
    queue: RefCell<VecDeque<Item>>,
    walk: RefCell<Option<Difference>>,
    /// Whether a walk is under way, also while it is out of its place.
    is_walking: Cell<bool>,
    /// Of an inode that has many keys only the first is told.
    last: Cell<Option<u64>>,
    /// What is to be told next.
    held: RefCell<Option<Invalidation>>,
    pub(super) arrived: Signal,
}

impl News {
    /// Whether there is something that the kernel has not been told.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty() && !self.is_walking.get() && self.held.borrow().is_none()
    }

    /// Queues what differs between two trees, and some single pieces.
    pub(super) fn push(
        &self,
        (from, to): (Option<Pointer>, Option<Pointer>),
        singles: impl IntoIterator<Item = Invalidation>,
    ) {
        let mut queue = self.queue.borrow_mut();
        queue.extend(singles.into_iter().map(Item::Single));
        if from != to {
            queue.push_back(Item::Between(Box::new((from, to))));
        }
        shorten(&mut queue);
        drop(queue);
        self.arrived.notify_all();
    }

    /// What a key that differs means to the kernel, by the numbers of the tree; `None` if it was told already.
    fn piece_of(&self, key: &Bytes) -> Option<Invalidation> {
        let (inode, entry) = match Key::decode(key)? {
            Key::Entry(directory, _, name) => (directory, Some(Invalidation::Entry(Inode(directory), name))),
            Key::Inode(inode) | Key::Extent(inode, _) | Key::Xattr(inode, _) => (inode, None),
            Key::Orphan(_)
            | Key::Truncation(_)
            | Key::Writer(_)
            | Key::Object(_)
            | Key::Snapshot(_)
            | Key::Session(_) => {
                return None;
            }
        };
        if self.last.replace(Some(inode)) == Some(inode) {
            return entry;
        }
        // A directory before its names: the kernel keeps listings too, and where it does not know a name yet it does not
        // see that the name makes one stale. The directory's own record need not differ.
        *self.held.borrow_mut() = entry;
        Some(Invalidation::Inode(Inode(inode)))
    }

    /// What a snapshot that came or went means to the kernel: another list, and another answer to its name.
    fn piece_of_snapshot(&self, differing: &Differing) -> Option<Invalidation> {
        let Key::Snapshot(_) = Key::decode(&differing.key)? else { return None };
        let record = SnapshotRecord::decode(differing.left.as_ref().or(differing.right.as_ref())?)?;
        *self.held.borrow_mut() = Some(Invalidation::Entry(past::DIRECTORY, record.name.into()));
        Some(Invalidation::Inode(past::DIRECTORY))
    }

    fn everything(&self) {
        let mut queue = self.queue.borrow_mut();
        queue.clear();
        queue.push_back(Item::Everything);
    }
}

fn shorten(queue: &mut VecDeque<Item>) {
    let between = |item: &Item| matches!(item, Item::Between(..));
    let pairs = queue.iter().filter(|item| between(item)).count();
    if queue.len() - pairs > SINGLE_COUNT_MAX {
        queue.clear();
        queue.push_back(Item::Everything);
    } else if pairs > PAIR_COUNT_MAX {
        let mut ends = queue.iter().filter_map(|item| match item {
            Item::Between(trees) => Some(**trees),
            _ => None,
        });
        if let (Some((from, _)), Some((_, to))) = (ends.next(), ends.next_back()) {
            queue.retain(|item| !between(item));
            queue.push_back(Item::Between(Box::new((from, to))));
        }
    }
}

impl Volume {
    /// Returns the next piece of news by the numbers that the kernel knows, or `None` once the volume is closed.
    ///
    /// # Suspends
    ///
    /// Until there is one, and while nodes are fetched.
    pub(super) fn next_news(&self) -> Option<Invalidation> {
        let news = &self.news;
        if let Some(piece) = news.held.borrow_mut().take() {
            return Some(self.numbered(piece));
        }
        loop {
            // Nobody borrows it while it walks: one asks at a time.
            let walk = news.walk.borrow_mut().take();
            if let Some(mut walk) = walk {
                match walk.next(&CachedNodes(self)) {
                    Ok(None) => news.is_walking.set(false),
                    Ok(Some(differing)) => {
                        *news.walk.borrow_mut() = Some(walk);
                        let snapshot = news.piece_of_snapshot(&differing);
                        if let Some(piece) = snapshot.or_else(|| news.piece_of(&differing.key)) {
                            return Some(self.numbered(piece));
                        }
                    }
                    Err(errno) => {
                        tracing::warn!(%errno, "what others changed cannot be read: the kernel is told to forget all");
                        news.is_walking.set(false);
                        news.everything();
                    }
                }
                continue;
            }
            let next = news.queue.borrow_mut().pop_front();
            match next {
                Some(Item::Single(piece)) => return Some(self.numbered(piece)),
                Some(Item::Between(trees)) => {
                    let (from, to) = *trees;
                    news.is_walking.set(true);
                    news.last.set(None);
                    *news.walk.borrow_mut() = Some(Difference::new(from, to, &Key::Snapshot(0)));
                }
                // Names are kept for a second at most where others write; attributes and content until told.
                Some(Item::Everything) => {
                    let references = self.state.borrow().references.keys().copied().collect::<Vec<u64>>();
                    let pieces =
                        references.into_iter().map(|inode| Item::Single(Invalidation::Inode(Inode(inode))));
                    let mut queue = news.queue.borrow_mut();
                    for piece in pieces {
                        queue.push_front(piece);
                    }
                }
                None if self.closing.get() => return None,
                None => news.arrived.wait(),
            }
        }
    }

    /// Returns a piece of news by the numbers that the kernel knows.
    fn numbered(&self, piece: Invalidation) -> Invalidation {
        match piece {
            Invalidation::Inode(inode) => Invalidation::Inode(self.number(inode)),
            Invalidation::Entry(directory, name) => Invalidation::Entry(self.number(directory), name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(number: u8) -> Option<Pointer> {
        Some(Pointer::example([number; 32], 0, 100))
    }

    #[test]
    fn pairs_that_gather_become_one_that_covers_them() {
        let news = News::default();
        for number in 0..100 {
            let single = Invalidation::Inode(Inode(u64::from(number)));
            news.push((tree(number), tree(number + 1)), [single]);
        }
        let queue = news.queue.borrow();
        let pairs: Vec<_> = (queue.iter())
            .filter_map(|item| match item {
                Item::Between(trees) => Some(**trees),
                _ => None,
            })
            .collect();
        assert!(pairs.len() <= PAIR_COUNT_MAX);
        assert_eq!((pairs[0].0, pairs[pairs.len() - 1].1), (tree(0), tree(100)));
        assert!(pairs.windows(2).all(|pair| pair[0].1 == pair[1].0), "without a gap");
        assert_eq!(queue.len() - pairs.len(), 100, "and no single piece is lost");
    }

    #[test]
    fn a_directory_is_told_before_the_first_of_its_names() {
        let news = News::default();
        let mut told = Vec::new();
        let entry = |directory, name: &'static str| Key::Entry(directory, 7, name.into());
        let keys = [
            Key::Inode(1),
            entry(1, "a"),
            entry(2, "b"),
            entry(2, "c"),
            Key::Extent(3, 0),
            Key::Extent(3, 1),
        ];
        for key in keys {
            told.extend(news.piece_of(&Bytes::copy_from_slice(&key.encode())));
            told.extend(news.held.borrow_mut().take());
        }
        let inode = |number| Invalidation::Inode(Inode(number));
        let name = |directory, name: &'static str| Invalidation::Entry(Inode(directory), name.into());
        assert_eq!(told, [inode(1), name(1, "a"), inode(2), name(2, "b"), name(2, "c"), inode(3)]);
    }

    #[test]
    fn too_many_single_pieces_become_everything() {
        let news = News::default();
        let pieces = (0..=SINGLE_COUNT_MAX as u64).map(|inode| Invalidation::Inode(Inode(inode)));
        news.push((None, None), pieces);
        assert!(matches!(news.queue.borrow().front(), Some(Item::Everything)));
        assert_eq!(news.queue.borrow().len(), 1);
    }
}
