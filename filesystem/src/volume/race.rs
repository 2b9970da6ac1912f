//! The race for the root: that whoever has much to commit is not kept out by one who commits little all the time.
//!
//! Each commit is a compare-and-swap on the root that it was made on. One who syncs a small file in a loop is through again
//! before another has read what changed, merged and written its nodes. So whoever lost twice *claims* the root: it swaps it
//! for one that names the same tree, which takes no reading and no writing, and so wins soon. The others lose to that once,
//! see what it is by the tree that did not change (each commit changes the tree, if only its writer's record; a nod does
//! not, and says that it is one), and give way: they wait for the next root, but no longer than a claim may take. It is
//! politeness and no lock: whoever does not see it, or does not wait, costs another try and nothing else.

use std::cell::Cell;
use std::time::Duration;

use dht::{HeaderHash, SwapError};
use reactor::crypto::random_bytes;

use super::Volume;
use super::lease::is_nod;
use crate::access::{Charter, Root, open_root};
use crate::errno::Errno;
use crate::format::Pointer;
use crate::operations::Time;

/// Losing once is chance.
const LOSSES_BEFORE_CLAIM: u32 = 2;
/// A claim may lose to commits that were on their way already; more often something else is wrong.
const CLAIM_TRIES: usize = 16;
/// How long others give way: enough for reading and writing the nodes of a large commit over a slow line.
const CLAIM_DURATION: Duration = Duration::from_secs(2);
/// How often they look whether the claim was used.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How our commits fare.
#[derive(Default)]
pub(super) struct Race {
    losses: Cell<u32>,
    has_claim: Cell<bool>,
}

impl Race {
    pub(super) fn on_won(&self) {
        self.losses.set(0);
        self.has_claim.set(false);
    }

    pub(super) fn on_lost(&self) {
        self.losses.set(self.losses.get() + 1);
        self.has_claim.set(false);
    }

    /// Whether others publish too: our last try was too late.
    pub(super) fn is_contended(&self) -> bool {
        self.losses.get() > 0
    }

    /// Whether it is time to claim the root.
    pub(super) fn wants_claim(&self) -> bool {
        self.losses.get() >= LOSSES_BEFORE_CLAIM && !self.has_claim.get()
    }
}

/// Whether `root` claims what was published as `header`, with that tree and charter. A nod asks nobody to wait.
fn claims(root: &Root, header: Option<HeaderHash>, tree: Option<Pointer>, charter: &Charter) -> bool {
    let follows = root.previous.is_some() && root.previous == header;
    follows && root.tree == tree && root.charter == *charter && !is_nod(root)
}

impl Volume {
    /// Claims the root, and puts our changes on top of it: the next commit has the way to itself.
    ///
    /// # Errors
    ///
    /// Those of the rebase. A claim that fails is none: the next commit is a try like any other.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub(super) fn claim(&self) -> Result<(), Errno> {
        self.race.has_claim.set(true);
        let Ok(Some(mut newest)) = self.store.read(&self.keys.register) else { return Ok(()) };
        for _ in 0..CLAIM_TRIES {
            let Ok(root) = open_root(&newest.payload, newest.version, &self.keys.secret) else {
                return Err(Errno::EIO);
            };
            if root.charter.features.unwritable() != 0 {
                // Not ours to write any more: the next commit finds that out, and says so.
                return Ok(());
            }
            let claim = Root {
                charter: self.charter_after(&root),
                version: newest.version + 1,
                previous: Some(newest.header_hash),
                commit: random_bytes(),
                time: Time::now(),
                author: self.options.author.clone(),
                ..root
            };
            let payload = self.sealer.borrow_mut().seal(&claim);
            match self.store.compare_and_swap(&self.keys.register, Some(newest.header_hash), payload) {
                Ok(record) => {
                    self.rebase(&claim, &record)?;
                    self.stand_on(&record);
                    self.progress.notify_all();
                    return Ok(());
                }
                Err(SwapError::Lost(Some(record))) => newest = record,
                Err(error) => {
                    tracing::debug!(%error, "the root is not claimed");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether a root that follows the one we know is a claim.
    pub(super) fn is_claim(&self, root: &Root) -> bool {
        let state = self.state.borrow();
        claims(root, state.header, state.tree, &state.charter)
    }

    /// Lets another writer who claimed the root go first.
    ///
    /// # Suspends
    ///
    /// Until it has, or took too long.
    pub(super) fn give_way(&self) {
        let until = reactor::now() + CLAIM_DURATION;
        while reactor::now() < until {
            reactor::sleep(LOOK_INTERVAL);
            match self.store.read(&self.keys.register) {
                Ok(Some(record)) if record.version == self.version.get() => {}
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::example;
    use crate::volume::commit::commit_id;
    use crate::volume::lease::NOD;

    #[test]
    fn a_claim_changes_nothing_and_a_nod_is_none() {
        let claim = example(Vec::new());
        let claims = |root: &Root| claims(root, claim.previous, claim.tree, &claim.charter);
        assert!(claims(&claim));
        assert!(!claims(&Root { tree: None, ..claim.clone() }), "a commit");
        assert!(!claims(&Root { previous: None, ..claim.clone() }), "it follows another");
        let nod = Root { commit: commit_id([5; 8], NOD), ..claim.clone() };
        assert!(!claims(&nod), "nobody waits for a nod's next root");
    }
}
