//! Having each space whose list names a group say who is in that now.
//!
//! One after the other, and what fails of one holds up none of the others. What is done is said as it is done, so that whoever cuts it
//! short knows where it was.

use std::collections::BTreeMap;

use dht::RegisterAddress;
use filesystem::access::groups::{GroupId, Groups};
use filesystem::format::printable_path;
use overlay::Revocations;

use crate::errors::Failure;
use crate::output::say;
use crate::roll::{Roll, SpaceEntry};
use crate::share;
use crate::sharing::Sharer;
use crate::space_lists::{self, PATIENCE, Seal, Turn, reason_of, settle_one};

/// A space of this home, once it was looked at.
pub(super) struct Looked {
    space: SpaceEntry,
    register: RegisterAddress,
    /// Whether what its root says now is known.
    is_read: bool,
    is_given_up: bool,
}

impl Looked {
    pub(super) fn register(&self) -> RegisterAddress {
        self.register
    }

    pub(super) fn path(&self) -> &str {
        &self.space.path
    }

    /// As it is shown.
    pub(super) fn shown(&self) -> String {
        printable_path(&self.space.path)
    }

    /// Whether it names a group; `None` if that is not known, for it does not as far as this home knows.
    pub(super) fn names(&self, id: GroupId) -> Option<bool> {
        let does = !self.is_given_up && self.space.names().contains(&id);
        (does || self.is_read).then_some(does)
    }
}

/// Looks at all spaces of this home that are there, as far as it knows, or that are noted to name a group: another machine of the owner's
/// may have had their lists name it. The roll has what they say then.
///
/// # Errors
/// Those of the home's files.
///
/// # Suspends
/// While they are read.
pub(super) fn look(sharer: &Sharer<'_>, turn: &Turn, id: GroupId) -> Result<Vec<Looked>, Failure> {
    let read = || {
        let home = sharer.home.clone();
        reactor::offload(move || Roll::read(&home))
    };
    let roll = read()?;
    let noted = roll.groups_known()?.reached_by(id);
    let mut looked = Vec::new();
    for space in &roll.spaces {
        let Ok(genesis) = space.genesis() else { continue };
        let register = genesis.register();
        if space.is_given_up && !noted.contains_key(&register.0) {
            continue;
        }
        let seal = space_lists::learn(sharer, turn, &genesis);
        // What one of its writers has sealed says nothing of its list.
        let is_read = matches!(seal, Ok(Seal::Ours | Seal::GivenUp));
        let is_given_up = matches!(seal, Ok(Seal::GivenUp));
        looked.push(Looked { space: space.clone(), register, is_read, is_given_up });
    }
    let roll = read()?;
    for Looked { space, .. } in &mut looked {
        if let Some(now) = roll.spaces.iter().find(|now| now.genesis == space.genesis) {
            *space = now.clone();
        }
    }
    Ok(looked)
}

/// The spaces that a change of a group concerns: that are noted to name it, or one that it is in, and that do as far as this home knows.
pub(super) fn reached(roll: &Roll, groups: &Groups, id: GroupId) -> BTreeMap<[u8; 32], String> {
    let (mut reached, around) = (groups.reached_by(id), groups.around(id));
    for space in &roll.spaces {
        let Ok(genesis) = space.genesis() else { continue };
        if space.is_given_up {
            // It is noted still, and nobody is in it.
            reached.remove(&genesis.register().0);
        } else if !space.names().is_disjoint(&around) {
            reached.insert(genesis.register().0, space.path.clone());
        }
    }
    reached
}

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
                let Some(published) = published else {
                    say(format_args!(
                        "{path}: nobody is in it, for it was given up, or its making was cut short ({done} of {})",
                        reached.len()
                    ));
                    continue;
                };
                if !published.changed.is_empty() {
                    share::tell(&path, &published.list, &published.changed);
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
            "what is in the groups is said, and of {} spaces that name it {} do not say so yet: whoever was removed may still read what is \
             written there, and whoever was added not yet: {}",
            reached.len(),
            left.len(),
            left.join(", ")
        ),
        advice: "say it again, which goes on with it; `up` and `mount` of this home do so, too",
    })
}
