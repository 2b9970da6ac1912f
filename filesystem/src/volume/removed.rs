//! A user who was removed from the network: nothing is stored any more, and nobody waits for it or is told that it was.
//!
//! What was written before and no quorum has goes to the journal and stays there; what is on this machine stays readable,
//! so that it can be copied elsewhere. It is for whoever opened the volume to know that it is so, and not only that the nodes
//! are silent: it is for good.

use super::Volume;
use crate::access::RootError;
use crate::errno::Errno;

impl Volume {
    /// This user is no member any more. From here on each change, and each wait for the nodes, fails with `EKEYREVOKED` at
    /// once.
    pub fn on_removed(&self) {
        let mut state = self.state.borrow_mut();
        state.is_removed = true;
        state.durability.on_failed(Errno::EKEYREVOKED, reactor::now());
        drop(state);
        self.give_up();
    }

    /// A newer root does not open: where the volume's list decides, this user was taken off it.
    pub(super) fn on_unopened(&self, error: &RootError) {
        if self.options.list_decides && *error == RootError::NotAReader && !self.is_removed() {
            tracing::warn!("this user was taken off the list of a space: nothing is stored in it any more");
            self.on_removed();
        }
    }

    /// Whether [`Volume::on_removed`] was called.
    pub(super) fn is_removed(&self) -> bool {
        self.state.borrow().is_removed
    }

    /// Refuses to say that changes up to `number` are safe, and keeps them in the journal.
    ///
    /// # Errors
    ///
    /// `EKEYREVOKED` for who was removed, if there are such changes.
    ///
    /// # Suspends
    ///
    /// While the journal is written.
    pub(super) fn refuse_if_removed(&self, number: u64) -> Result<(), Errno> {
        if !self.is_removed() || self.state.borrow().durability.is_committed(number) {
            return Ok(());
        }
        // What is said is worse.
        let _ = self.sync_to_journal(number);
        Err(Errno::EKEYREVOKED)
    }
}
