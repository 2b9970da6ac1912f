//! Having each space whose list names a group say who is in that now.
//!
//! One after the other, and what fails of one holds up none of the others. What is done is said as it is done, so that whoever cuts it
//! short knows where it was.

use std::collections::BTreeMap;

use filesystem::format::printable_path;
use overlay::Revocations;

use crate::errors::Failure;
use crate::output::say;
use crate::roll::{Roll, SpaceEntry};
use crate::share;
use crate::sharing::Sharer;
use crate::space_lists::{PATIENCE, reason_of, settle_one};

/// Has the spaces in these registers, which are at these paths, say it.
///
/// # Errors
/// `Failure::Group` with those that do not say it, as far as is known, and why.
///
/// # Suspends
/// Until all say it, or it is known which do not.
pub(super) fn bring(sharer: &Sharer<'_>, reached: &BTreeMap<[u8; 32], String>) -> Result<(), Failure> {
    let home = sharer.home.clone();
    let roll = reactor::offload(move || Roll::read(&home))?;
    let until = reactor::now() + PATIENCE;
    let mut left = Vec::new();
    let mut done = 0_usize;
    for (register, path) in reached {
        let path = printable_path(path);
        let is_it =
            |space: &&SpaceEntry| space.genesis().is_ok_and(|genesis| genesis.register().0 == *register);
        let Some(space) = roll.spaces.iter().find(is_it) else {
            left.push(format!(
                "{path} (another copy of this home made it: `share {path}` here, or `up` there, does it)"
            ));
            continue;
        };
        match settle_one(sharer, space, &Revocations::default(), until) {
            Ok(published) => {
                done += 1;
                let changed = published.map(|published| (published.list, published.changed));
                match &changed {
                    Some((list, changed)) if !changed.is_empty() => share::tell(&path, list, changed),
                    _ => {}
                }
                say(format_args!("{path}: its list says so ({done} of {})", reached.len()));
            }
            Err(failure) => left.push(format!("{path} ({})", reason_of(&failure))),
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::Group {
        reason: format!(
            "the group is changed, and of {} spaces that name it {} do not say so yet: whoever was removed may still read what is \
             written there, and whoever was added not yet: {}",
            reached.len(),
            left.len(),
            left.join(", ")
        ),
        advice: "say it again, which goes on with it; `up` and `mount` of this home do so, too",
    })
}
