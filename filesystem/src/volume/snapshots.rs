//! Snapshots: trees that were the volume's once, and are remembered under a name.
//!
//! Nothing is copied. A snapshot is a record in the newest tree that points to an older one, and that older tree shares all
//! that has not changed since. What is to be in a snapshot is committed first, then the record, in the next
//! commit; and the tree that it names is the one which that commit follows, whoever was there in between. So it is a state
//! that the volume was in, whole, and it is never known to an unpublished record alone.
//!
//! `view` shows one as a volume of its own; `changes` tells two apart, and `versions` what a path was in each, for which
//! `names` finds paths; `restore` brings things back, by a `copy` that shares their content; `policy` says which are
//! taken by themselves, and `automatic` takes them. Not here: what two mounts' snapshots become that meet (`merge::snapshots`),
//! and what keeps alive what they point to (`tree::reachable`).

pub(super) mod automatic;
mod changes;
mod copy;
mod names;
pub(super) mod policy;
mod restore;
mod versions;
mod view;

use std::collections::BTreeSet;

pub use changes::{PathChange, PathState};
pub use policy::SnapshotPolicy;
pub use restore::{RestoreError, Restored};
pub use versions::FileState;

use super::Volume;
use super::state::{Change, State, Step};
use crate::access::AUTHOR_SIZE_MAX;
use crate::calendar::Civil;
use crate::errno::Errno;
use crate::format::{Key, SNAPSHOT_NAME_SIZE_MAX, SnapshotOrigin, SnapshotRecord, check_snapshot_name};
use crate::operations::{Invalidation, Time};
use crate::past;

/// Whoever lists snapshots reads all of them: some hundred leaves.
const SNAPSHOT_COUNT_MAX: usize = 4096;

/// A snapshot of the volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Its number, which no other has.
    pub id: u64,
    /// What is recorded of it.
    pub record: SnapshotRecord,
}

/// Why a snapshot was not made, found or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The name can't be one.
    #[error("{name:?} cannot be a snapshot's name: {reason}")]
    Name {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is one of that name.
    #[error("there is a snapshot {name:?} already, taken by {author} at {when} (UTC)", when = Civil::of(taken.seconds))]
    Taken {
        /// The name.
        name: String,
        /// Who took it.
        author: String,
        /// When.
        taken: Time,
    },
    /// There is none of that name.
    #[error("there is no snapshot {name:?}")]
    Missing {
        /// What was asked for.
        name: String,
    },
    /// There are as many as there may be.
    #[error("there are {SNAPSHOT_COUNT_MAX} snapshots already: delete some")]
    TooMany,
    /// Whether other mounts have changed something can't be known now.
    #[error("the nodes do not say what the drive holds now, and which snapshots there are")]
    Unreachable,
    /// The volume can't be read or changed.
    #[error("the nodes do not take or give what is needed ({0})")]
    Volume(#[from] Errno),
}

/// Returns the name of a snapshot that was given none: its time, in UTC, as a file's name may have it everywhere.
fn name_of_time(taken: Time) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(taken.seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}.{minute:02}.{second:02}Z")
}

/// Returns `name`, or if it is taken `name-2`, `name-3` and so on.
pub(super) fn free_name(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2u32..).map(|number| {
        let suffix = format!("-{number}");
        let stem = &name[..name.floor_char_boundary(SNAPSHOT_NAME_SIZE_MAX - suffix.len())];
        format!("{stem}{suffix}")
    });
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    // There are fewer snapshots than numbers.
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

/// Returns the range of all snapshots.
pub(super) fn snapshot_range() -> (Key, Key) {
    (Key::Snapshot(0), Key::Snapshot(u64::MAX))
}

impl State {
    /// Returns all snapshots, in the order of their numbers.
    pub(super) fn snapshots(&mut self) -> Step<Vec<Snapshot>> {
        let (mut from, end) = snapshot_range();
        let mut snapshots = Vec::new();
        while let Some((key, change)) = self.next(&from, &end)? {
            from = key.successor();
            if let (Key::Snapshot(id), Change::Snapshot(record)) = (key, change) {
                snapshots.push(Snapshot { id, record });
            }
        }
        Ok(snapshots)
    }
}

impl Volume {
    /// Takes a snapshot of all that was closed or synced here, and at any other mount, before this is called. Without a
    /// name it is named by its time; where another mount has just given the same name, the one that comes second is
    /// `name-2`.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]. After [`SnapshotError::Volume`] the snapshot may still come.
    ///
    /// # Suspends
    ///
    /// Until a quorum has it.
    pub fn take_snapshot(
        &self,
        name: Option<&str>,
        origin: SnapshotOrigin,
    ) -> Result<Snapshot, SnapshotError> {
        self.take_snapshot_at(Time::now(), name, origin)
    }

    /// As [`Volume::take_snapshot`], where it is `taken` now.
    fn take_snapshot_at(
        &self,
        taken: Time,
        name: Option<&str>,
        origin: SnapshotOrigin,
    ) -> Result<Snapshot, SnapshotError> {
        if let Some(name) = name {
            let wrong = |reason| SnapshotError::Name { name: name.into(), reason };
            check_snapshot_name(name).map_err(wrong)?;
        }
        self.sync_all()?;
        self.refresh();
        if self.freshness.is_unreachable() {
            return Err(SnapshotError::Unreachable);
        }
        let id = draw_id();
        let number = self.change_step(|state| {
            let by = (self.version.get(), self.options.author.as_str());
            state.add_snapshot(id, name, (origin, taken), by)
        })??;
        self.sync_to(number)?;
        // A merge may have given it another name.
        let taken = self.step(|state| state.get(&Key::Snapshot(id)))?;
        match taken {
            Some(Change::Snapshot(record)) => {
                self.tell_of_snapshot(&record.name);
                Ok(Snapshot { id, record })
            }
            _ => Err(SnapshotError::Missing { name: name.unwrap_or_default().into() }),
        }
    }

    /// Returns all snapshots, the oldest first.
    ///
    /// # Errors
    ///
    /// If the tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, Errno> {
        let mut snapshots = self.step(State::snapshots)?;
        // Clocks of several machines may disagree, versions do not.
        snapshots.sort_by_key(|snapshot| (snapshot.record.version, snapshot.record.taken, snapshot.id));
        Ok(snapshots)
    }

    /// Deletes the snapshot of that name. What it alone has is garbage from then on.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]. After [`SnapshotError::Volume`] it may still go.
    ///
    /// # Suspends
    ///
    /// Until a quorum has it no more.
    pub fn delete_snapshot(&self, name: &str) -> Result<(), SnapshotError> {
        self.refresh();
        let number = self.change_step(|state| {
            state.changeable()?;
            let mut snapshots = state.snapshots()?.into_iter();
            Ok(snapshots.find(|snapshot| snapshot.record.name == name).map(|snapshot| {
                state.set(Key::Snapshot(snapshot.id), Change::Removed);
                state.durability.newest()
            }))
        })?;
        match number {
            Some(number) => {
                self.tell_of_snapshot(name);
                Ok(self.sync_to(number)?)
            }
            None if self.freshness.is_unreachable() => Err(SnapshotError::Unreachable),
            None => Err(SnapshotError::Missing { name: name.into() }),
        }
    }

    /// Returns a record as the next root is to have it: of the tree that this root follows.
    pub(super) fn following(&self, record: &SnapshotRecord) -> Change {
        let tree = self.state.borrow().tree.unwrap_or(record.tree);
        Change::Snapshot(SnapshotRecord { tree, version: self.version.get(), ..record.clone() })
    }

    /// Has the kernel look again for a snapshot that was taken or deleted here.
    fn tell_of_snapshot(&self, name: &str) {
        let name = name.to_owned().into();
        let pieces = [Invalidation::Inode(past::DIRECTORY), Invalidation::Entry(past::DIRECTORY, name)];
        self.news.push((None, None), pieces);
    }
}

impl State {
    /// Remembers the tree that is published, and returns the number of the change.
    fn add_snapshot(
        &mut self,
        id: u64,
        name: Option<&str>,
        (origin, taken): (SnapshotOrigin, Time),
        (version, author): (u64, &str),
    ) -> Step<Result<u64, SnapshotError>> {
        self.writable()?;
        let Some(tree) = self.tree else { return Err(Errno::EIO.into()) };
        let before = self.snapshots()?;
        if before.len() >= SNAPSHOT_COUNT_MAX {
            return Ok(Err(SnapshotError::TooMany));
        }
        if let Some(other) = before.iter().find(|other| Some(other.record.name.as_str()) == name) {
            let SnapshotRecord { name, author, taken, .. } = other.record.clone();
            return Ok(Err(SnapshotError::Taken { name, author, taken }));
        }
        let author = author[..author.floor_char_boundary(AUTHOR_SIZE_MAX)].to_owned();
        let names: BTreeSet<&str> = before.iter().map(|snapshot| snapshot.record.name.as_str()).collect();
        let name = match name {
            Some(name) => name.to_owned(),
            None => free_name(&name_of_time(taken), |name| names.contains(name)),
        };
        let record = SnapshotRecord { tree, version, taken, origin, author, name };
        self.set(Key::Snapshot(id), Change::Snapshot(record));
        Ok(Ok(self.durability.newest()))
    }
}

/// Draws a number: neither 0 nor more than 62 bits, so that a listing's cookies can be made of it.
fn draw_id() -> u64 {
    (u64::from_le_bytes(reactor::crypto::random_bytes()) >> 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_without_a_name_is_named_by_its_time() {
        let name = name_of_time(Time { seconds: 1_795_355_999, nanoseconds: 5 });
        assert_eq!(name, "2026-11-22T13.59.59Z");
        assert_eq!(check_snapshot_name(&name), Ok(()));
    }

    #[test]
    fn a_name_that_is_taken_is_numbered_and_still_fits() {
        let taken = ["a", "a-2", "b"];
        let free = |name: &str| free_name(name, |name| taken.contains(&name));
        assert_eq!([free("a"), free("b"), free("c")], ["a-3", "b-2", "c"]);
        let long = "ä".repeat(SNAPSHOT_NAME_SIZE_MAX / 2);
        let second = free_name(&long, |name| name == long);
        assert!(second.ends_with("ä-2"), "{second}");
        assert_eq!(check_snapshot_name(&second), Ok(()));
    }
}
