//! What a space was, where a snapshot of the drive has its name: the space's own snapshot of that name, if it has one.
//!
//! `snapshot` takes one of the drive and of each space under the same name, and whoever looks into `.snapshots/NAME`, or copies it, expects
//! what was there. It is the same as the space shows in its own `.snapshots`, by other numbers: a directory that the kernel knows by one
//! number has one place. Where the space has no such snapshot, its name is there and everything in it is `ENODATA`. At another name than it has now it
//! is refused (`EACCES`), as in the drive.

use std::cell::Cell;
use std::rc::Rc;

use super::WithSpaces;
use super::table::Space;
use crate::access::SpaceLink;
use crate::errno::Errno;
use crate::numbers::PAST;
use crate::operations::{Attributes, FileKind, Inode, Operations};

/// A name of the directory that shows a volume's snapshots.
const SNAPSHOTS: &[u8] = b".snapshots";
/// As many of these as are remembered: two spaces in each of a year's daily snapshots. What is looked up anew is found anew.
const COUNT_MAX: usize = 1024;

/// A space in a snapshot of the drive.
pub(super) struct Then {
    pub(super) space: Rc<Space>,
    /// The snapshot's name.
    snapshot: String,
    /// The directory of the drive's snapshot that it was found in.
    pub(super) above: Cell<Inode>,
    /// Its top, by the number that the space has for it.
    pub(super) top: Cell<Option<Inode>>,
}

impl WithSpaces {
    /// By which tree's number a space in the past is known: the same on each machine.
    fn number_then(space: &Space, snapshot: &str) -> u64 {
        let hash = blake3::keyed_hash(&space.link.register().0, snapshot.as_bytes());
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
            Some(then) if then.space.number == space.number && then.snapshot == snapshot => {
                then.above.set(parent);
            }
            // Two of which the numbers are alike: nobody makes them by accident.
            Some(_) => return Err(Errno::EIO),
            None => {
                if thens.len() >= COUNT_MAX {
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
    /// `ENODATA` if it has no snapshot of that name; why it can't be opened.
    pub(super) fn show_then(&self, tree: u64) -> Result<Attributes, Errno> {
        let then = self.thens.borrow().get(&tree).cloned().ok_or(Errno::ESTALE)?;
        let volume = self.volume_of(&then.space)?;
        let missing = |errno| if errno == Errno::ENOENT { Errno::ENODATA } else { errno };
        let snapshots = volume.lookup(Inode::ROOT, SNAPSHOTS).map_err(missing)?;
        let top = volume.lookup(snapshots.inode, then.snapshot.as_bytes()).map_err(missing)?;
        if top.kind != FileKind::Directory {
            return Err(Errno::ENODATA);
        }
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
