//! What has no name and is open: who may remove it, and when.
//!
//! An inode that loses its last name while a program here has it open is an *orphan* of this mount: a record says so, with
//! a lease that this mount renews as long as it has it open. What a mount of this device left behind when it crashed is
//! removed at the next opening; what another device's mount did, once its lease has run out. Nobody removes what somebody
//! else may still have open, neither at a `forget` nor at a close.

use std::time::Duration;

use super::Volume;
use super::state::{Change, ORPHAN_LEASE_SECONDS, State, Step};
use crate::errno::Errno;
use crate::format::{Key, Orphan};
use crate::operations::Time;

/// A lease is renewed after a third of it, so that two tries may fail.
const RENEWAL_SECONDS: i64 = ORPHAN_LEASE_SECONDS / 3;
/// Two machines' clocks may differ by so much: an hour is what a wrong time zone makes.
const CLOCK_DIFFERENCE_SECONDS: i64 = 3600;

fn is_over(orphan: &Orphan, now_seconds: i64) -> bool {
    now_seconds > orphan.lease_seconds.saturating_add(CLOCK_DIFFERENCE_SECONDS)
}

fn is_to_be_renewed(orphan: &Orphan, now_seconds: i64) -> bool {
    orphan.lease_seconds < now_seconds + ORPHAN_LEASE_SECONDS - RENEWAL_SECONDS / 2
}

impl State {
    /// Whether a mount elsewhere may have `inode` open.
    pub(super) fn is_kept_elsewhere(&mut self, inode: u64) -> Step<bool> {
        Ok(match self.get(&Key::Orphan(inode))? {
            Some(Change::Orphan(orphan)) => {
                orphan.device != self.device && !is_over(&orphan, Time::now().seconds)
            }
            _ => false,
        })
    }
}

impl Volume {
    /// Returns the next orphan from `from` on.
    fn next_orphan(&self, from: u64) -> Result<Option<(u64, Orphan)>, Errno> {
        let found = self.step(|state| state.next(&Key::Orphan(from), &Key::Orphan(u64::MAX)))?;
        Ok(match found {
            Some((Key::Orphan(inode), Change::Orphan(orphan))) => Some((inode, orphan)),
            _ => None,
        })
    }

    /// Queues what a crashed mount of this device left open, and what others did whose leases have run out.
    ///
    /// # Suspends
    ///
    /// While the list is read.
    pub(super) fn find_orphans(&self) -> Result<(), Errno> {
        let now = Time::now().seconds;
        let mut from = 0;
        while let Some((inode, orphan)) = self.next_orphan(from)? {
            from = inode + 1;
            let mut state = self.state.borrow_mut();
            let is_ours = orphan.device == state.device && !state.references.contains_key(&inode);
            if is_ours || is_over(&orphan, now) {
                state.reclaim.push_back(inode);
            }
        }
        Ok(())
    }

    /// Renews the leases of what is open here, and removes what nobody has open any more, now and then.
    pub(super) fn keep_orphans(&self) {
        loop {
            reactor::sleep(Duration::from_secs(RENEWAL_SECONDS as u64));
            if let Err(errno) = self.renew_orphans().and_then(|()| self.find_orphans()) {
                tracing::warn!(%errno, "the list of removed files that are open cannot be read now");
            }
            if !self.state.borrow().reclaim.is_empty() {
                self.reclaim.notify_all();
            }
        }
    }

    fn renew_orphans(&self) -> Result<(), Errno> {
        let now = Time::now().seconds;
        let mut from = 0;
        while let Some((inode, orphan)) = self.next_orphan(from)? {
            from = inode + 1;
            if orphan.device != self.options.device || !is_to_be_renewed(&orphan, now) {
                continue;
            }
            self.change_step(|state| {
                let key = Key::Orphan(inode);
                if state.references.contains_key(&inode) && state.get(&key)?.is_some() {
                    let lease_seconds = now + ORPHAN_LEASE_SECONDS;
                    state.set(key, Change::Orphan(Orphan { lease_seconds, ..orphan }));
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_long_before_anybody_takes_it_for_over() {
        let begun = 1_000_000;
        let orphan = Orphan { device: 1, since_seconds: begun, lease_seconds: begun + ORPHAN_LEASE_SECONDS };
        assert!(!is_to_be_renewed(&orphan, begun));
        assert!(is_to_be_renewed(&orphan, begun + RENEWAL_SECONDS), "at the first look");
        for missed in 1..3 {
            assert!(!is_over(&orphan, begun + missed * RENEWAL_SECONDS + CLOCK_DIFFERENCE_SECONDS));
        }
        assert!(is_over(&orphan, begun + ORPHAN_LEASE_SECONDS + CLOCK_DIFFERENCE_SECONDS + 1));
    }
}
