//! Whether the nodes hold all that the drive needs, before anything more is deleted.
//!
//! What the root reaches is never deleted. Should it be all the same, by a fault, the nodes serve it until the time of grace is over,
//! and repair it no more: everything looks well, and then it is gone. So each run looks first, and takes back what it finds.
//! What is not even hidden on any node is lost, or on nodes that do not answer.

use std::collections::BTreeSet;

use dht::Address;
use filesystem::volume::Roots;

use super::marks::Marks;
use super::sweep::{Sweep, Unknown};
use crate::errors::Failure;

/// With so many missing, something else is wrong than one collection; the next run goes on with the rest.
const MISSING_MAX: usize = 1 << 16;

/// Says that blocks are missing, if any are, and what to do about it.
///
/// # Errors
/// `Failure::Garbage` if any are.
pub(super) fn tell(missing: &BTreeSet<Address>, advice: &str) -> Result<(), Failure> {
    let count = missing.len();
    if count == 0 {
        return Ok(());
    }
    let reason = format!(
        "{count} blocks that are needed are listed by no node that answers, and files that have a part there may not be \
         readable: {advice}"
    );
    Err(Failure::Garbage { reason })
}

impl Sweep<'_> {
    /// Finds what `roots` reach and no node lists; returns with it what the nodes list, unless that is too much for one set.
    pub(super) fn look_for_needed(
        &self,
        roots: &Roots,
    ) -> Result<(Option<Marks>, BTreeSet<Address>), Unknown> {
        let mut missing = BTreeSet::new();
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
                if is_within && !held.contains(address) && missing.len() < MISSING_MAX {
                    missing.insert(*address);
                }
            })?;
            first += count;
            if first == 256 {
                self.drop_listed(&mut missing)?;
                return Ok(((count == 256).then_some(held), missing));
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
