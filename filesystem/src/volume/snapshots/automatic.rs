//! Snapshots that are taken by themselves: by the mounts, as the drive's policy says.
//!
//! The policy is an extended attribute of the root, `user.hypha.snapshots`: so it is the drive's, every mount honours it, and
//! two that change it at once are merged like anything else. Which snapshot is due says `policy`; names follow from the
//! calendar, so where two mounts take one at once a merge keeps the first. Whoever writes takes it; a mount that only reads
//! leaves that to others for a while, as a commit costs a lone writer its lease for a moment. A drive that has not changed
//! since the last one gets none. Only what a policy has taken goes by it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::policy::SnapshotPolicy;
use super::{Snapshot, SnapshotError};
use crate::errno::Errno;
use crate::format::{Key, SnapshotOrigin};
use crate::operations::{Inode, Operations, Time, XattrMode};
use crate::tree::difference::Difference;
use crate::volume::Volume;
use crate::volume::fetch::CachedNodes;
use crate::volume::state::Change;

/// The attribute's name.
pub(in crate::volume) const NAME: &[u8] = b"user.hypha.snapshots";
/// How often it is looked whether one is due: nothing is asked for that, unless one is.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait after a failure: the nodes may be away for long.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// How far a slot has to be gone before a mount takes its snapshot that has written nothing: a dozen looks of one that has.
const OTHERS_SECONDS: i64 = 60;

impl Volume {
    /// Returns what the drive's policy says; `None` if it has none.
    ///
    /// # Errors
    ///
    /// If the tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn snapshot_policy(&self) -> Result<Option<SnapshotPolicy>, Errno> {
        match self.get_xattr(Inode::ROOT, NAME) {
            // What cannot be read was refused when it was set, or is a later version's.
            Ok(value) => Ok(std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok())),
            Err(Errno::ENODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Gives the drive a policy, or none.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Volume`]; then it may still come.
    ///
    /// # Suspends
    ///
    /// Until a quorum has it.
    pub fn set_snapshot_policy(&self, policy: Option<&SnapshotPolicy>) -> Result<(), SnapshotError> {
        match policy {
            Some(policy) => {
                self.set_xattr(Inode::ROOT, NAME, policy.to_string().as_bytes(), XattrMode::Set)?
            }
            None => match self.remove_xattr(Inode::ROOT, NAME) {
                Ok(()) | Err(Errno::ENODATA) => {}
                Err(errno) => return Err(errno.into()),
            },
        }
        Ok(self.sync(None, false)?)
    }

    /// Takes snapshots, and deletes those that it took, as the policy says, for as long as it is let.
    ///
    /// # Suspends
    ///
    /// Always: it is for a coroutine of its own, which may be terminated at any time.
    pub fn keep_snapshots(&self) {
        let mut edits = self.edits();
        let mut is_told = false;
        loop {
            reactor::sleep(LOOK_INTERVAL);
            if self.options.read_only || self.is_away() {
                continue;
            }
            let has_written = self.edits() != edits;
            match self.look_for_due(Time::now().seconds, has_written) {
                Ok(is_taken) => {
                    is_told = false;
                    edits = if is_taken { self.edits() } else { edits };
                }
                Err(error) => {
                    // One line when it begins: it is tried again for as long as it takes.
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "the snapshot that is due is not taken now; it is tried again");
                    }
                    reactor::sleep(RETRY_INTERVAL);
                }
            }
        }
    }

    fn edits(&self) -> u64 {
        self.state.borrow().edits()
    }

    /// Takes the snapshot that is due at `now`, in seconds since 1970, if the drive has changed; then those go that are not
    /// kept any more. Returns whether one was taken.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`].
    ///
    /// # Suspends
    ///
    /// While nodes are fetched, and until a quorum has it.
    pub fn look_for_due(&self, now: i64, has_written: bool) -> Result<bool, SnapshotError> {
        let Some(policy) = self.snapshot_policy()? else { return Ok(false) };
        let snapshots = self.snapshots()?;
        let names: BTreeSet<&str> = snapshots.iter().map(|snapshot| snapshot.record.name.as_str()).collect();
        let Some((name, begin)) = policy.due(now, &names) else { return Ok(false) };
        if !has_written && now < begin.saturating_add(OTHERS_SECONDS) {
            return Ok(false);
        }
        let is_automatic = |snapshot: &&Snapshot| snapshot.record.origin == SnapshotOrigin::Policy;
        if let Some(last) = snapshots.iter().rfind(is_automatic) {
            self.sync_all()?;
            let tree = self.state.borrow().tree;
            let mut walk = Difference::new(Some(last.record.tree), tree, &Key::Inode(Inode::ROOT.0));
            if walk.next(&CachedNodes(self))?.is_none() {
                return Ok(false);
            }
        }
        let taken = Time { seconds: now, nanoseconds: 0 };
        match self.take_snapshot_at(taken, Some(&name), SnapshotOrigin::Policy) {
            Ok(_) => {}
            // Another mount's is there: then its deletions are, too.
            Err(SnapshotError::Taken { .. } | SnapshotError::Missing { .. }) => return Ok(true),
            Err(error) => return Err(error),
        }
        self.expire(&policy)?;
        Ok(true)
    }

    /// Deletes what a policy has taken and does not keep any more.
    fn expire(&self, policy: &SnapshotPolicy) -> Result<(), SnapshotError> {
        let number = self.change_step(|state| {
            let mut snapshots = state.snapshots()?;
            snapshots.retain(|snapshot| snapshot.record.origin == SnapshotOrigin::Policy);
            let taken: Vec<i64> = snapshots.iter().map(|snapshot| snapshot.record.taken.seconds).collect();
            let expired = policy.expired(&taken);
            for at in &expired {
                state.set(Key::Snapshot(snapshots[*at].id), Change::Removed);
            }
            Ok((!expired.is_empty()).then(|| state.durability.newest()))
        })?;
        match number {
            Some(number) => Ok(self.sync_to(number)?),
            None => Ok(()),
        }
    }
}
