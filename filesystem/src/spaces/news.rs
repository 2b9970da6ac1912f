//! What several volumes tell one kernel: one queue, and a coroutine for each volume that passes on what it tells.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::sync::Signal;

use crate::operations::{Inode, Invalidation, Operations};

/// So much waits here; what is more waits in the volumes, which make it short if need be.
const WAITING_MAX: usize = 64;

/// How a volume's number shows to the kernel.
pub(super) type NumberOf = Box<dyn Fn(Inode) -> Inode>;

/// See the file's header.
#[derive(Default)]
pub(super) struct News {
    waiting: RefCell<VecDeque<Invalidation>>,
    /// There is more, or less, or it is over.
    changed: Signal,
    is_over: Cell<bool>,
}

impl News {
    /// Whether something waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// The next piece; `None` once it is over.
    ///
    /// # Suspends
    ///
    /// Until there is one.
    pub(super) fn next(&self) -> Option<Invalidation> {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            if next.is_some() {
                self.changed.notify_all();
                return next;
            }
            if self.is_over.get() {
                return None;
            }
            self.changed.wait();
        }
    }

    /// Nobody tells anything more.
    pub(super) fn end(&self) {
        self.is_over.set(true);
        self.changed.notify_all();
    }

    fn push(&self, piece: Invalidation) {
        while self.waiting.borrow().len() >= WAITING_MAX && !self.is_over.get() {
            self.changed.wait();
        }
        self.waiting.borrow_mut().push_back(piece);
        self.changed.notify_all();
    }
}

/// Passes on what `from` tells, by the numbers that the kernel has if it knows it by others, until it is closed or terminated.
pub(super) fn pass_on(
    news: Rc<News>,
    from: Rc<dyn Operations>,
    number_of: Option<NumberOf>,
) -> JoinHandle<()> {
    reactor::spawn(move || {
        let number_of = |inode| number_of.as_ref().map_or(inode, |number_of| number_of(inode));
        while let Some(piece) = from.next_invalidation() {
            news.push(match piece {
                Invalidation::Inode(inode) => Invalidation::Inode(number_of(inode)),
                Invalidation::Entry(directory, name) => Invalidation::Entry(number_of(directory), name),
            });
        }
    })
}
