//! Numbers of inodes that were drawn here, and that no tree has yet.
//!
//! A mount numbers what it makes from a random start on, one after the other, so that two mounts do not meet and inodes that
//! are made together lie together. It asks nobody which numbers are free: that is a leaf at a random place of the tree, and a
//! mount whose nodes are away would have to have it to make a file. Where `N` inodes were ever made, in the course of `M`
//! mounts, it is by some `N M / 2^62` that two of them got one number: 10^-9 for ten million files and hundreds of mounts.
//! That is found out, and an error: a commit looks into the leaves that it will write to, and a merge into the other's. Only
//! copies of one mount that runs, as of a virtual machine with its memory, meet for certain: whichever hears that its session
//! has published what it does not know goes on from another number.
//!
//! For the same reason no tree is asked what such an inode is or has: until the delta that it is made in is published, none
//! has it. The delta says which those are, and the journal does.

use std::ops::Range;

use reactor::crypto::random_bytes;

use super::Volume;
use super::state::{State, Step};
use crate::errno::Errno;
use crate::format::{Key, Pointer};

/// Where numbers begin: above the root directory's, and so far below 2^63, from where on others are (see
/// [`crate::past`]), that no mount gets there.
pub(super) fn random_start() -> u64 {
    (u64::from_le_bytes(random_bytes()) >> 2) + 2
}

/// See the file's header. A few runs, ascending: a mount makes one longer, and journals of mounts before it left others.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Born(Vec<Range<u64>>);

impl Born {
    pub(crate) fn contains(&self, inode: u64) -> bool {
        self.0.iter().any(|run| run.contains(&inode))
    }

    pub(crate) fn add(&mut self, inode: u64) {
        match self.0.last_mut() {
            Some(run) if run.end == inode => run.end += 1,
            _ => self.add_run(inode..inode + 1),
        }
    }

    pub(crate) fn add_run(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        self.0.push(run);
        self.0.sort_unstable_by_key(|run| run.start);
        self.0.dedup_by(|next, run| {
            let meets = next.start <= run.end;
            if meets {
                run.end = run.end.max(next.end);
            }
            meets
        });
    }

    pub(crate) fn add_all(&mut self, other: &Born) {
        other.0.iter().for_each(|run| self.add_run(run.clone()));
    }

    /// A tree has it.
    pub(crate) fn remove(&mut self, inode: u64) {
        let Some(index) = self.0.iter().position(|run| run.contains(&inode)) else { return };
        let run = self.0.remove(index);
        self.add_run(run.start..inode);
        self.add_run(inode + 1..run.end);
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }
}

impl State {
    /// Draws a number that no inode of this volume has, as far as chance goes.
    pub(crate) fn draw_inode(&mut self) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.active.born.add(inode);
        inode
    }

    /// Whether no tree has anything of `inode`.
    pub(super) fn is_born(&self, inode: u64) -> bool {
        let is_born = |born: &Born| !born.0.is_empty() && born.contains(inode);
        is_born(&self.active.born) || self.committing.as_ref().is_some_and(|delta| is_born(&delta.born))
    }

    /// Returns the first inode in `run` that the tree at `tree` has.
    fn first_of(&mut self, tree: &Pointer, run: &Range<u64>) -> Step<Option<u64>> {
        let found = self.next_in(tree, &Key::Inode(run.start), &Key::Inode(run.end))?;
        Ok(found.and_then(|(key, _)| key.owner()))
    }
}

impl Volume {
    /// Refuses to publish inodes under numbers that others in the tree have.
    ///
    /// # Errors
    ///
    /// `EIO` if there are such; why the tree can't be read.
    ///
    /// # Suspends
    ///
    /// While the leaves are fetched in which they will lie.
    pub(super) fn check_numbers(&self, born: &Born) -> Result<(), Errno> {
        let Some(tree) = self.state.borrow().tree else { return Ok(()) };
        for run in born.runs() {
            if let Some(inode) = self.step(|state| state.first_of(&tree, run))? {
                self.tell_of_number(inode);
                return Err(Errno::EIO);
            }
        }
        Ok(())
    }

    /// Tells, once, that two mounts gave one number away.
    pub(super) fn tell_of_number(&self, inode: u64) {
        if !self.state.borrow().is_number_told.replace(true) {
            tracing::error!(
                inode,
                "a file that was made here has the number of another in the drive: by chance, or two copies of this very \
                 mount run. Nothing more is stored from here, and the journal keeps what it has. Copy what you need from \
                 this mount to another place, end it, move its journal away and start anew"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use dht::{BlockStore, MemoryBlockStore};
    use reactor::crypto::X25519Secret;

    use super::*;
    use crate::access::VolumeKeys;
    use crate::operations::{Credentials, FileKind, Inode, Operations};
    use crate::volume::Options;

    fn runs(born: &Born) -> Vec<(u64, u64)> {
        born.runs().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn numbers_in_a_row_are_one_run_and_runs_that_meet_become_one() {
        let mut born = Born::default();
        (5..9).for_each(|inode| born.add(inode));
        assert_eq!(runs(&born), [(5, 9)]);
        born.add(3);
        born.add_run(20..30);
        assert_eq!(runs(&born), [(3, 4), (5, 9), (20, 30)]);
        born.add(4);
        assert_eq!(runs(&born), [(3, 9), (20, 30)]);
        born.add_run(7..25);
        born.add_run(40..40);
        assert_eq!(runs(&born), [(3, 30)]);
        assert!(born.contains(3) && born.contains(29) && !born.contains(30) && !born.contains(2));
    }

    #[test]
    fn what_a_tree_has_is_taken_out() {
        let mut born = Born::default();
        born.add_run(3..9);
        born.remove(5);
        assert_eq!(runs(&born), [(3, 5), (6, 9)]);
        [3, 8, 100].into_iter().for_each(|inode| born.remove(inode));
        assert_eq!(runs(&born), [(4, 5), (6, 8)]);
        born.remove(4);
        let mut other = Born::default();
        other.add_run(8..10);
        born.add_all(&other);
        assert_eq!(runs(&born), [(6, 10)]);
    }

    #[test]
    fn numbers_begin_above_the_root_and_far_below_those_of_snapshots() {
        for _ in 0..1000 {
            assert!((2..(1 << 62) + 2).contains(&random_start()));
        }
    }

    #[test]
    fn a_number_that_another_mount_gave_away_is_refused_and_overwrites_nothing() {
        let user = Credentials { uid: 1000, gid: 1000, umask: 0 };
        reactor::run(move || {
            let store = Rc::new(MemoryBlockStore::new());
            let register = store.new_register([7; 32]);
            let secret = X25519Secret::from_bytes(&[9; 32]);
            let keys = VolumeKeys { register, secret, readers: Vec::new() };
            let options = || Options { sync_patience: std::time::Duration::ZERO, ..Options::default() };
            let volume = Volume::create(store.clone(), keys.clone(), options(), (1000, 1000)).unwrap();
            let make = |volume: &Volume, name: &[u8]| {
                let made = volume.make_node(Inode::ROOT, name, FileKind::Regular, 0o640, 0, &user).unwrap();
                volume.write(made.inode, 0, name, false).unwrap();
                made.inode
            };
            let first = make(&volume, b"first");
            make(&volume, b"second");
            volume.close().stored().unwrap();

            let volume = Volume::open(store.clone(), keys.clone(), options()).unwrap();
            volume.state.borrow_mut().next_inode = first.0 - 1;
            make(&volume, b"before");
            make(&volume, b"the same");
            let before = store.read(&register).unwrap();
            assert!(volume.close().stored().is_err());
            assert_eq!(store.read(&register).unwrap().map(|it| it.version), before.map(|it| it.version));

            let volume = Volume::open(store, keys, options()).unwrap();
            let read = volume.read(first, 0, 100).unwrap().concat();
            assert_eq!(read, b"first");
        });
    }
}
