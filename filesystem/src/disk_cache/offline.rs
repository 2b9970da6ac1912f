//! What a drive needs where no node answers: the newest root, kept; and whether any node does.

use std::time::{Duration, Instant};

use dht::block_store::{Outage, Record, RegisterAddress};

use super::{DiskCache, roots};
use crate::silence::RESTART_MAX;

impl DiskCache {
    /// Returns the newest root of `register` that any client of this cache has kept.
    ///
    /// # Suspends
    ///
    /// While the files are read.
    pub fn kept_root(&self, register: &RegisterAddress) -> Option<Record> {
        roots::newest(&self.directory, &self.key, register).unwrap_or_default()
    }

    /// Makes the newest root that was seen durable here, and says whether it is as new as `version`. It is to be so before
    /// that version is written down as seen: what is older than that will never be used.
    ///
    /// # Suspends
    ///
    /// Until it is durable.
    pub fn keep_root(&self, version: u64) -> bool {
        let newest = self.newest.borrow().clone();
        let Some((register, record)) = newest.filter(|(_, record)| record.version >= version) else {
            return false;
        };
        if record.version > self.saved_version.get() && !self.is_off.get() {
            match roots::save(&self.directory, &self.client, &self.key, &register, &record) {
                Ok(()) => self.saved_version.set(record.version),
                Err(error) => self.fail(&error),
            }
        }
        true
    }

    /// Removes every root that was kept: an older state was accepted.
    ///
    /// # Suspends
    ///
    /// Until they are gone.
    pub fn forget_roots(&self) {
        if let Err(error) = roots::forget(&self.directory) {
            self.fail(&error);
        }
    }

    /// Returns for how long no quorum of the drive's nodes has answered, if that is long enough to be called offline: by the clock on
    /// the wall, for people. What is decided by it counts waking time only, see `silence.rs`.
    pub fn offline_for(&self) -> Option<Duration> {
        let since = self.silence.borrow().offline_since()?;
        Some(self.told_since(since))
    }

    fn told_since(&self, since: Instant) -> Duration {
        let slept = reactor::slept().saturating_sub(self.slept_before.get());
        reactor::now().saturating_duration_since(since) + slept
    }

    pub(super) fn outage(&self) -> Option<Outage> {
        let silence = self.silence.borrow();
        let is_long = silence.is_long(reactor::now());
        silence.offline_since().map(|since| Outage { since, is_long })
    }

    /// The nodes serve this user no more: nobody asks them before it is offline, or says again that it is.
    pub fn on_removed(&self) {
        self.note_opened_without();
    }

    /// No node answers, and the drive goes on without them.
    pub(super) fn note_opened_without(&self) {
        self.silence.borrow_mut().on_opened_without(reactor::now());
        self.slept_before.set(reactor::slept());
    }

    pub(super) fn note_root(&self, register: &RegisterAddress, record: &Record) {
        let mut newest = self.newest.borrow_mut();
        if newest.as_ref().is_none_or(|(_, known)| known.version < record.version) {
            *newest = Some((*register, record.clone()));
        }
    }

    pub(super) fn note_answer(&self) {
        if let Some(since) = self.silence.borrow_mut().on_answer() {
            let seconds = self.told_since(since).as_secs();
            tracing::warn!("nodes answer again, after {seconds} s: what was written meanwhile goes to them");
        }
    }

    /// Somebody looked whether a quorum can be reached.
    pub(super) fn note_look(&self, is_quorum: bool) {
        let becomes = self.silence.borrow_mut().on_look(is_quorum, reactor::now());
        self.tell_offline(becomes);
    }

    /// A question for the root had no answer, from anybody.
    pub(super) fn note_unanswered(&self) {
        let becomes = self.silence.borrow_mut().on_unanswered(reactor::now());
        self.tell_offline(becomes);
    }

    fn tell_offline(&self, becomes: bool) {
        if becomes {
            self.slept_before.set(reactor::slept());
            tracing::warn!(
                "too few of the nodes that keep the drive answer, or they do not serve this user: the drive is offline; what its \
                 cache has is readable, as new as it was seen last, what it has not is waited for until they have been away for {} s, \
                 since they may be restarting, and what is written waits on this machine",
                RESTART_MAX.as_secs()
            );
        }
    }
}
