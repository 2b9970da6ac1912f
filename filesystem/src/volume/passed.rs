//! Runs of removed keys that a scan has passed: what it need not look at again when it begins anew.
//!
//! Only a hint: it is forgotten as soon as anything changes, and scans are right without it.

use std::collections::BTreeMap;

use crate::format::{Key, Pointer};

/// Runs remembered: as many as one step finds keys, twice.
const RUN_COUNT_MAX: usize = 1024;

/// See the file's header.
#[derive(Default, Debug)]
pub(crate) struct Passed {
    /// The state that the runs were seen in: how many changes there were, and on top of which tree.
    state: (u64, Option<Pointer>),
    /// From where on nothing is there, and up to where.
    runs: BTreeMap<Key, Key>,
}

impl Passed {
    /// Returns how far a scan from `start` got before, in this very state.
    pub(crate) fn reached(&self, edits: u64, tree: Option<Pointer>, start: &Key) -> Option<&Key> {
        if self.runs.is_empty() || self.state != (edits, tree) {
            return None;
        }
        self.runs.get(start)
    }

    /// Notes that a scan from `start` found nothing below `reached`.
    pub(crate) fn note(&mut self, edits: u64, tree: Option<Pointer>, start: Key, reached: Key) {
        if self.state != (edits, tree) || self.runs.len() >= RUN_COUNT_MAX {
            self.runs.clear();
            self.state = (edits, tree);
        }
        self.runs.insert(start, reached);
    }
}
