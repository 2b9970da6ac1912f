//! The word that whoever one works for comes to an end, as those hear it who work.
//!
//! What it is not: the end itself. Who does not listen goes on, and is terminated when the time for it is over.

use std::fmt;
use std::rc::Rc;

use crate::select::{Selectable, source::Source};
use crate::sync::{Barrier, WaitList};

/// Tells when a server or a connection begins to drain: it takes nothing new, and waits for a while for what is under way.
/// Work that never ends by itself, or that takes long, comes to its end then.
///
/// It is one of the things that [`select`](crate::select) waits for. Clones tell the same. The default never drains.
#[derive(Clone)]
pub struct Draining(Rc<Barrier>);

impl Draining {
    pub(crate) fn new() -> Draining {
        Draining(Rc::new(Barrier::new(false)))
    }

    /// It begins, and does not end any more.
    pub(crate) fn begin(&self) {
        self.0.open();
    }

    /// Whether it has begun. Never suspends.
    pub fn has_begun(&self) -> bool {
        self.0.is_open()
    }

    /// Waits until it begins.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn wait(&self) {
        self.0.wait();
    }
}

impl Default for Draining {
    fn default() -> Draining {
        Draining::new()
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Draining").field(&self.has_begun()).finish()
    }
}

/// Ready when it has begun.
impl Source for Draining {
    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        self.0.rows(row);
    }
}

impl Selectable for Draining {}
