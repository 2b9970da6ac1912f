//! Is what we have the newest? Asked where a program may rely on the answer: at an open, an append, a name that is missing.
//!
//! The watcher takes others' roots over within about a second; close-to-open wants certainty at a moment. One question to
//! the register serves all that wait when it is asked; who comes later waits for the next one, since the answer to an
//! earlier question may be older than what it has to see. When the nodes can't be reached, what is here is all there is,
//! and nobody waits for more until the watcher reaches them again: after two seconds without a quorum at hand already, so that
//! an open right then, or while two pings are lost, may miss what another has just closed.

use std::cell::Cell;
use std::time::Duration;

use reactor::sync::Signal;

use super::Volume;
use crate::operations::Operations;

/// How long a question may take, with the taking over of a root that it finds. Whoever asks is a program in `open`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions asked and answered.
#[derive(Default)]
pub(super) struct Freshness {
    begun: Cell<u64>,
    answered: Cell<u64>,
    is_asking: Cell<bool>,
    answer: Signal,
    /// The last question had no answer.
    unreachable: Cell<bool>,
}

impl Freshness {
    /// Whether the last question had no answer.
    pub(super) fn is_unreachable(&self) -> bool {
        self.unreachable.get()
    }

    /// Too few of its nodes are there for the register to answer.
    pub(super) fn note_unreachable(&self) {
        self.unreachable.set(true);
    }

    /// The register answered somebody.
    pub(super) fn note_reachable(&self) {
        self.unreachable.set(false);
    }
}

/// One question under way: whoever waits goes on when it ends, however it does.
struct Question<'a>(&'a Freshness);

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.0.is_asking.set(false);
        self.0.answer.notify_all();
    }
}

impl Volume {
    /// Takes over what others have stored by now. Returns whether there was anything.
    ///
    /// # Suspends
    ///
    /// For a read of the register, and for the nodes of a newer tree; at most for a stated patience. Never while nobody else
    /// writes.
    pub(super) fn refresh(&self) -> bool {
        if self.sharing().is_alone() || self.freshness.unreachable.get() || self.is_away() {
            return false;
        }
        let before = self.version.get();
        self.ask_anew();
        // Another may have been alone since we were struck out, and have closed what it has not published.
        if !self.freshness.unreachable.get() && self.wait_until_settled() {
            self.ask_anew();
        }
        self.version.get() != before
    }

    /// Asks the register a question that begins now, or waits for one that another asks.
    fn ask_anew(&self) {
        let freshness = &self.freshness;
        let needed = freshness.begun.get() + 1;
        while freshness.answered.get() < needed {
            if freshness.is_asking.get() {
                freshness.answer.wait();
                continue;
            }
            let number = freshness.begun.get() + 1;
            freshness.begun.set(number);
            freshness.is_asking.set(true);
            let question = Question(freshness);
            if reactor::timeout(PATIENCE, || self.ask()).is_err() {
                tracing::debug!(
                    "whether other mounts changed anything is not known now: the nodes do not answer"
                );
                freshness.unreachable.set(true);
            }
            freshness.answered.set(number);
            drop(question);
        }
    }

    /// Reads the register, and waits until what it names is ours, or taken over.
    fn ask(&self) {
        match self.read_root() {
            Ok(Some(record)) => {
                let version = record.version;
                if version > self.version.get() {
                    self.offer(record);
                }
                // A commit of ours may be what the register names, or what comes first: the committer tells of both.
                while self.version.get() < version {
                    self.progress.wait();
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "the register can't be read");
                self.freshness.unreachable.set(true);
            }
        }
    }
}
