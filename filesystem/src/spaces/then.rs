//! What a space was, where a snapshot of the drive has its name: the space's own snapshot that was taken along with it, if it has one.
//!
//! `snapshot` takes one of the drive and of each space under the same name, and whoever looks into `.snapshots/NAME`, or copies it, expects
//! what was there: so one of that name that was taken at another time is none (`SnapshotRecord::is_along_with`). It is the same as the space
//! shows in its own `.snapshots`, by other numbers: a directory that the kernel knows by one number has one place. Where the space has no
//! such snapshot, its name is there and everything in it is `ENODATA`. At another name than it has now it is refused (`EACCES`), as in the drive.

use std::cell::Cell;
use std::rc::Rc;

use super::WithSpaces;
use super::table::Space;
use crate::access::SpaceLink;
use crate::errno::Errno;
use crate::numbers::PAST;
use crate::operations::{Attributes, Inode};
use crate::volume::Snapshot;

/// As many of these as are remembered: two spaces in each of a year's daily snapshots. What is looked up anew is found anew.
const COUNT_MAX: usize = 1024;

/// A space in a snapshot of the drive.
pub(super) struct Then {
    pub(super) space: Rc<Space>,
    /// The drive's.
    snapshot: Snapshot,
    /// The directory of the drive's snapshot that it was found in.
    pub(super) above: Cell<Inode>,
    /// Its top, by the number that the space has for it.
    pub(super) top: Cell<Option<Inode>>,
}

impl WithSpaces {
    /// By which tree's number a space in the past is known: the same on each machine.
    fn number_then(space: &Space, snapshot: &Snapshot) -> u64 {
        let hash = blake3::keyed_hash(&space.link.register().0, &snapshot.id.to_le_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ space.number
    }

    /// The tree of the space that `name` in a directory of a snapshot is a link to, if it is one.
    pub(super) fn linked_then(&self, parent: Inode, name: &[u8]) -> Result<Option<u64>, Errno> {
        let Some(past) = self.past.as_ref().filter(|_| PAST.has(parent)) else { return Ok(None) };
        let Some((link, snapshot)) = past.link_then(parent, name)? else { return Ok(None) };
        let Some(link) = SpaceLink::decode(&link, &self.opener.owner()) else { return Ok(None) };
        // As live: whoever writes the drive can have had a link at any name when the snapshot was taken.
        let space = self.space(link, Inode::ROOT, name)?;
        let number = WithSpaces::number_then(&space, &snapshot);
        let mut thens = self.thens.borrow_mut();
        match thens.get(&number) {
            // Two of which the numbers are alike: nobody makes them by accident.
            Some(then) if then.space.number != space.number || then.snapshot.id != snapshot.id => {
                return Err(Errno::EIO);
            }
            Some(then) if Rc::ptr_eq(&then.space, &space) => then.above.set(parent),
            known => {
                if known.is_none() && thens.len() >= COUNT_MAX {
                    thens.pop_first();
                }
                let then = Then { space, snapshot, above: Cell::new(parent), top: Cell::new(None) };
                thens.insert(number, Rc::new(then));
            }
        }
        Ok(Some(number))
    }

    /// Shows the top of a space in the past.
    ///
    /// # Errors
    ///
    /// `ENODATA` if it has no snapshot that was taken along with the drive's; why it can't be opened.
    pub(super) fn show_then(&self, tree: u64) -> Result<Attributes, Errno> {
        let then = self.thens.borrow().get(&tree).cloned().ok_or(Errno::ESTALE)?;
        let top = self.volume_of(&then.space)?.along_with(&then.snapshot.record)?;
        then.top.set(Some(top.inode));
        Ok(self.show(tree, top))
    }

    /// What is above the top of a space in the past, if `inode` is that.
    pub(super) fn above_then(&self, tree: u64, inode: Inode) -> Option<Inode> {
        let thens = self.thens.borrow();
        let then = thens.get(&tree)?;
        (then.top.get() == Some(inode)).then(|| then.above.get())
    }
}
