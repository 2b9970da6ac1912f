//! Which inodes the kernel knows under other numbers than the tree.
//!
//! When a merge makes two files of one, programs here that have it open go on with the content that they wrote to, and so
//! do pages that the kernel has yet to hand over: were they to land in the other writer's file, it would become a
//! mixture of both. The kernel knows an open file by its number only. So from then on *its* number means our file, which
//! has a new number in the tree, and the new number means the other's: the two are exchanged, at this mount and as long
//! as it lives. So it is with what others removed while it is open here, once it is changed or there is another file under
//! its number (see [`super::ghosts`]). A directory that became one with another's answers to both numbers.
//!
//! Every number that comes from the kernel passes through [`Aliases::inode`], every one that goes to it through
//! [`Aliases::number`]. There is an entry for each file that became two, or was removed and changed: as many as such
//! conflicts in the life of a mount.

use crate::cache::NumberMap;

/// See the file's header.
#[derive(Default, Debug)]
pub(crate) struct Aliases {
    inodes: NumberMap<u64, u64>,
    numbers: NumberMap<u64, u64>,
}

impl Aliases {
    /// Returns the inode that the kernel means by `number`.
    pub(crate) fn inode(&self, number: u64) -> u64 {
        if self.inodes.is_empty() { number } else { self.inodes.get(&number).copied().unwrap_or(number) }
    }

    /// Returns the number that the kernel knows `inode` by.
    pub(crate) fn number(&self, inode: u64) -> u64 {
        if self.numbers.is_empty() { inode } else { self.numbers.get(&inode).copied().unwrap_or(inode) }
    }

    /// What the kernel knew as `theirs` is `ours` from now on, a new inode, and the other way round.
    pub(crate) fn exchange(&mut self, theirs: u64, ours: u64) {
        let number = self.number(theirs);
        // A directory may answer to another number as well.
        self.inodes.values_mut().filter(|inode| **inode == theirs).for_each(|inode| *inode = ours);
        for (number, inode) in [(number, ours), (ours, theirs)] {
            self.inodes.insert(number, inode);
            self.numbers.insert(inode, number);
        }
    }

    /// What the kernel knows as `from` is `to` from now on, beside what it knows as `to`.
    pub(crate) fn unite(&mut self, from: u64, to: u64) {
        self.inodes.insert(self.number(from), to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_stays_ours_however_often_it_becomes_two() {
        let mut aliases = Aliases::default();
        aliases.exchange(10, 20);
        assert_eq!((aliases.inode(10), aliases.inode(20)), (20, 10));
        assert_eq!((aliases.number(20), aliases.number(10)), (10, 20));
        // Theirs, which the kernel knows as 20 since, becomes two again; and then ours.
        aliases.exchange(10, 30);
        aliases.exchange(20, 40);
        for (number, inode) in [(20, 30), (30, 10), (10, 40), (40, 20), (50, 50)] {
            assert_eq!((aliases.inode(number), aliases.number(inode)), (inode, number));
        }
    }

    #[test]
    fn a_directory_answers_to_both_numbers() {
        let mut aliases = Aliases::default();
        aliases.unite(5, 6);
        assert_eq!((aliases.inode(5), aliases.inode(6), aliases.number(6)), (6, 6, 6));
        // As it does when another mount has removed it and it goes on under a number of its own.
        aliases.exchange(6, 7);
        assert_eq!((aliases.inode(5), aliases.inode(6), aliases.number(7)), (7, 7, 6));
    }
}
