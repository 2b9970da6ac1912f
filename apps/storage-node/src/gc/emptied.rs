//! `emptied.json` of a home: of which removed spaces the nodes held nothing any more, so that not every `gc` asks all of them, 256 times
//! each, for every space that there ever was.
//!
//! A node that was away then may have some of it still: so it is looked at again seldom. What is noted is of one word of the owner's:
//! a space that was brought back, and removed again, has another. Two runs at once may lose each other's notes, which costs a look.

use std::path::PathBuf;
use std::rc::Rc;

use dht::{BlockStore, Client as Store, RegisterAddress};
use overlay::Node;
use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::home::Home;
use crate::network::Hex;
use crate::volume;

/// How long it is not looked at again: a month, in seconds.
const SELDOM_SECONDS: u64 = 30 * 24 * 3600;

/// A removed space of which nothing was held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Emptied {
    register: Hex<[u8; 32]>,
    /// The number of the owner's word in its place.
    version: u64,
    /// When that was found, in seconds since 1970; 0 before it is.
    #[serde(default)]
    seconds: u64,
}

impl Emptied {
    /// By the word that stands in the register's place now.
    ///
    /// # Errors
    /// `Failure::Volume` if no quorum tells.
    ///
    /// # Suspends
    /// Until one has.
    pub(super) fn by(store: &Store<Rc<Node>>, register: RegisterAddress) -> Result<Emptied, Failure> {
        let newest = store.read(&register).map_err(|error| volume::failed(error.to_string()))?;
        let version = newest.map_or(0, |newest| newest.version);
        Ok(Emptied { register: Hex(register.0), version, seconds: 0 })
    }

    fn is_of(&self, other: &Emptied) -> bool {
        (self.register.0, self.version) == (other.register.0, other.version)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    spaces: Vec<Emptied>,
}

impl Kind for Content {
    const KIND: &'static str = "hypha emptied spaces";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

fn path(home: &Home) -> PathBuf {
    home.path().join("emptied.json")
}

/// What can't be read is looked for anew.
fn load(home: &Home) -> Content {
    files::load(&path(home)).unwrap_or_default()
}

/// Whether nothing was held of `space`, not long before `now_seconds`.
pub(super) fn is_noted(home: &Home, space: &Emptied, now_seconds: u64) -> bool {
    let is_recent = |seconds: u64| now_seconds.checked_sub(seconds).is_some_and(|ago| ago < SELDOM_SECONDS);
    load(home).spaces.iter().any(|noted| noted.is_of(space) && is_recent(noted.seconds))
}

/// Notes that nothing is held of `space` at `now_seconds`.
///
/// # Errors
/// If the file can't be written.
pub(super) fn note(home: &Home, space: Emptied, now_seconds: u64) -> Result<(), Failure> {
    let mut content = load(home);
    content.spaces.retain(|noted| noted.register.0 != space.register.0);
    content.spaces.push(Emptied { seconds: now_seconds, ..space });
    files::save(&path(home), &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_empty_is_looked_at_again_after_a_month_or_once_it_was_brought_back() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let of = |number: u8, version| Emptied { register: Hex([number; 32]), version, seconds: 0 };
        let begin = 1_800_000_000;
        assert!(!is_noted(&home, &of(1, 7), begin));
        note(&home, of(1, 7), begin).unwrap();
        note(&home, of(2, 3), begin).unwrap();
        for space in [of(1, 7), of(2, 3)] {
            assert!(is_noted(&home, &space, begin) && is_noted(&home, &space, begin + SELDOM_SECONDS - 1));
            assert!(!is_noted(&home, &space, begin + SELDOM_SECONDS), "a node may be back that was away");
            assert!(!is_noted(&home, &space, begin - 1), "the clock was ahead when it was noted");
        }
        assert!(!is_noted(&home, &of(1, 9), begin), "it was brought back, and removed again");
        note(&home, of(1, 9), begin).unwrap();
        assert!(is_noted(&home, &of(1, 9), begin) && !is_noted(&home, &of(1, 7), begin));
        std::fs::write(path(&home), "half a fi").unwrap();
        assert!(!is_noted(&home, &of(2, 3), begin), "what cannot be read is looked for anew");
        note(&home, of(2, 3), begin).unwrap();
        assert!(is_noted(&home, &of(2, 3), begin));
    }
}
