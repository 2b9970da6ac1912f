//! Whether the nodes hold all that the drive needs, before anything more is deleted.
//!
//! What the root reaches is never deleted. Should it be all the same, by a fault, the nodes serve it until the time of grace is over,
//! and repair it no more: everything looks well, and then it is gone. So each run looks first, and takes back what it finds.
//! What is not even hidden on any node is lost, or on nodes that do not answer.

use std::collections::BTreeSet;
use std::fmt;

use dht::Address;
use filesystem::volume::Roots;

use super::marks::Marks;
use super::sweep::{Sweep, Unknown};
use crate::errors::Failure;

/// So many are looked for at once, some MiB of them: the rest after those.
const MISSING_MAX: usize = 1 << 16;

/// Blocks that are needed, and that no node lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// These.
    pub(super) blocks: BTreeSet<Address>,
    /// And others, which were not looked for.
    pub(super) are_more: bool,
}

impl Missing {
    /// Whether nothing is.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && !self.are_more
    }

    fn add(&mut self, address: &Address, max: usize) {
        if self.blocks.len() < max {
            self.blocks.insert(*address);
        } else {
            self.are_more |= !self.blocks.contains(address);
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.blocks.len();
        match (count, self.are_more) {
            (1, false) => write!(f, "1 block"),
            (_, false) => write!(f, "{count} blocks"),
            (_, true) => write!(f, "{count} blocks or more"),
        }
    }
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What the nodes list, unless that is too much for one set.
    pub(super) listed: Option<Marks>,
    /// What is missing of which that was not known.
    pub(super) missing: Missing,
    /// And of what was known to be.
    pub(super) still: BTreeSet<Address>,
}

/// Has all be taken back that `look` finds missing, beside what it is told of, until all that is left was asked for in vain.
pub(super) fn take_all_back<E>(
    max: usize,
    mut look: impl FnMut(&BTreeSet<Address>) -> Result<Looked, E>,
    mut ask: impl FnMut(&BTreeSet<Address>) -> Result<(), E>,
) -> Result<Missing, E> {
    let mut asked = BTreeSet::new();
    loop {
        let Looked { missing, still, .. } = look(&asked)?;
        if missing.is_empty() || still.len() >= max {
            return Ok(Missing { blocks: still, are_more: !missing.is_empty() });
        }
        ask(&missing.blocks)?;
        asked = still;
        asked.extend(missing.blocks);
    }
}

/// Says that blocks are missing, if any are, and what to do about it.
///
/// # Errors
/// `Failure::Garbage` if any are.
pub(super) fn tell(missing: &Missing, advice: &str) -> Result<(), Failure> {
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "{missing} that the drive needs: listed by no node that answers, and files that have a part there may not be readable: {advice}"
    );
    Err(Failure::Garbage { reason })
}

impl Sweep<'_> {
    /// Takes back what was deleted of what `roots` reach. Returns what no node has that answers.
    pub(super) fn take_all_back(&self, roots: &Roots) -> Result<Missing, Unknown> {
        let look = |asked: &BTreeSet<Address>| self.look_for_needed(roots, asked);
        let ask = |missing: &BTreeSet<Address>| {
            self.bar.set_message(format!("taking back {} blocks", missing.len()));
            self.store.take_back(&self.census, missing, &self.speaker)?;
            Ok(())
        };
        take_all_back(MISSING_MAX, look, ask)
    }

    /// Finds what `roots` reach and no node lists, apart from what is `known` to be missing.
    pub(super) fn look_for_needed(
        &self,
        roots: &Roots,
        known: &BTreeSet<Address>,
    ) -> Result<Looked, Unknown> {
        let mut looked = Looked::default();
        let (mut first, mut count) = (0, 256);
        loop {
            let range = first..first + count;
            let mut held = Marks::new(range.clone());
            for byte in range.clone() {
                self.store.list_held(&self.census, byte as u8)?.keys().for_each(|address| held.add(address));
            }
            if count > 1 && held.is_full() {
                count /= 2;
                continue;
            }
            let held = held.finish();
            self.volume.visit_reachable(roots, &mut |address| {
                let is_within = range.contains(&usize::from(address.0[0]));
                if !is_within || held.contains(address) {
                    return;
                }
                if known.contains(address) {
                    looked.still.insert(*address);
                } else {
                    looked.missing.add(address, MISSING_MAX);
                }
            })?;
            first += count;
            if first == 256 {
                self.drop_listed(&mut looked.missing.blocks)?;
                self.drop_listed(&mut looked.still)?;
                looked.listed = (count == 256).then_some(held);
                return Ok(looked);
            }
        }
    }

    /// Looks again: what goes from one node to another may have been on neither list.
    fn drop_listed(&self, missing: &mut BTreeSet<Address>) -> Result<(), Unknown> {
        let first_bytes: BTreeSet<u8> = missing.iter().map(|address| address.0[0]).collect();
        for first in first_bytes {
            let listed = self.store.list_held(&self.census, first)?;
            missing.retain(|address| !listed.contains_key(address));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use reactor::cell::RefCell;

    use super::*;

    fn address(number: u32) -> Address {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Address(bytes)
    }

    /// Takes back what can be, of as many that were deleted, `max` at a time; returns what is missing in the end and what was asked for.
    fn story(deleted: u32, is_lost: fn(u32) -> bool, max: usize) -> (Missing, usize) {
        let away: RefCell<BTreeSet<Address>> = RefCell::new((0..deleted).map(address).collect());
        let mut asked = 0;
        let look = |known: &BTreeSet<Address>| {
            let mut looked = Looked::default();
            for address in away.borrow().iter() {
                if known.contains(address) {
                    looked.still.insert(*address);
                } else {
                    looked.missing.add(address, max);
                }
            }
            Ok::<_, ()>(looked)
        };
        let ask = |missing: &BTreeSet<Address>| {
            asked += missing.len();
            let number = |address: &Address| u32::from_be_bytes(*address.0.first_chunk().unwrap());
            away.borrow_mut().retain(|address| !missing.contains(address) || is_lost(number(address)));
            Ok(())
        };
        let missing = take_all_back(max, look, ask).unwrap();
        (missing, asked)
    }

    #[test]
    fn what_was_deleted_is_taken_back_however_much_it_is_and_only_what_is_gone_is_said_to_be() {
        for deleted in [0, 1, 99, 100, 101, 200, 1000] {
            assert_eq!(story(deleted, |_| false, 100), (Missing::default(), deleted as usize), "{deleted}");
            let (missing, asked) = story(deleted, |number| number % 50 == 7, 100);
            let lost = (0..deleted).filter(|number| number % 50 == 7).map(address).collect();
            assert_eq!((missing, asked), (Missing { blocks: lost, are_more: false }, deleted as usize));
        }
    }

    #[test]
    fn where_more_are_gone_than_it_looks_for_it_says_so() {
        let (missing, asked) = story(1000, |_| true, 100);
        assert_eq!((missing.to_string().as_str(), asked), ("100 blocks or more", 100));
        let (missing, _) = story(100, |_| true, 100);
        assert_eq!(missing.to_string(), "100 blocks");
        assert_eq!(story(1, |_| true, 100).0.to_string(), "1 block");
    }
}
