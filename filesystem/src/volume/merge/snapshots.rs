//! Snapshots in a merge: all of both sides stay, and no two have one name. One that a policy took stays away if its name is
//! taken: the other is of the same hour or day.
//!
//! Each has a number of its own that nobody else draws, so two never meet in one key. Ours are not published yet, which is
//! the moment to give another name to one whose name is taken: from then on it never changes.

use std::collections::BTreeSet;

use super::Merge;
use crate::errno::Errno;
use crate::format::{Key, SnapshotOrigin};
use crate::volume::snapshots::{free_name, snapshot_range};
use crate::volume::state::Change;

impl Merge<'_> {
    pub(super) fn snapshots(&mut self) -> Result<(), Errno> {
        let ours: Vec<(Key, Change)> = (self.ours.iter())
            .filter(|(key, _)| matches!(key, Key::Snapshot(_)))
            .map(|(key, change)| (key.clone(), change.clone()))
            .collect();
        if ours.is_empty() {
            return Ok(());
        }
        let mut names = BTreeSet::new();
        let mut theirs = BTreeSet::new();
        let mut scan = self.theirs.scan(snapshot_range());
        while let Some((key, change)) = scan.next()? {
            let is_removed = matches!(self.ours.get(&key), Some(Change::Removed));
            if let Change::Snapshot(record) = change
                && !is_removed
            {
                names.insert(record.name);
            }
            theirs.insert(key);
        }
        for (key, change) in ours {
            match change {
                Change::Removed if theirs.contains(&key) => drop(self.result.insert(key, Change::Removed)),
                // It is there already: we published it, and the answer was lost.
                Change::Snapshot(_) if theirs.contains(&key) => {}
                // Another mount has taken the one that was due.
                Change::Snapshot(record)
                    if record.origin == SnapshotOrigin::Policy && names.contains(&record.name) => {}
                Change::Snapshot(mut record) => {
                    record.name = free_name(&record.name, |name| names.contains(name));
                    names.insert(record.name.clone());
                    self.result.insert(key, Change::Snapshot(record));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
