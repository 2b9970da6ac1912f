//! What was begun for the drive and for each space in it, and is not known to have come to its end.
//!
//! A command that takes or deletes a snapshot of the drive does so of one volume after the other, and can be killed in between. It
//! writes down in the home what it is about to do, and strikes it out once it is done: said again, it goes on with the rest. Where
//! nothing is written down, a name that is taken is somebody else's, or of another day, and nothing is done under it.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files::{self, Kind};

/// So many are remembered; beyond that the oldest are forgotten.
const BEGUN_MAX: usize = 64;

/// What is done under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) name: String,
    pub(super) is_deletion: bool,
}

/// `snapshots-begun.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Unfinished {
    begun: Vec<Begun>,
}

impl Kind for Unfinished {
    const KIND: &'static str = "hypha snapshots begun";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
    const PRIVATE: bool = true;
}

/// Changes the file, one process at a time.
fn change<T>(base: &Path, with: impl FnOnce(&mut Vec<Begun>) -> T) -> Result<T, Failure> {
    let failed = |error| Failure::file(base, error);
    let lock = File::open(base).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let file = base.join("snapshots-begun.json");
    let mut unfinished: Unfinished = match files::load(&file) {
        Err(Failure::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Unfinished::default()
        }
        other => other?,
    };
    let before = unfinished.begun.clone();
    let result = with(&mut unfinished.begun);
    if unfinished.begun != before {
        files::save(&file, &unfinished)?;
    }
    Ok(result)
}

/// Whether it was begun before.
///
/// # Errors
/// Those of the home's files.
pub(super) fn is_begun(base: &Path, what: &Begun) -> Result<bool, Failure> {
    change(base, |begun| begun.contains(what))
}

/// Writes down that it is begun.
///
/// # Errors
/// Those of the home's files.
pub(super) fn begin(base: &Path, what: &Begun) -> Result<(), Failure> {
    change(base, |begun| {
        begun.retain(|other| other != what);
        begun.push(what.clone());
        let surplus = begun.len().saturating_sub(BEGUN_MAX);
        begun.drain(..surplus);
    })
}

/// Strikes it out.
///
/// # Errors
/// Those of the home's files.
pub(super) fn end(base: &Path, what: &Begun) -> Result<(), Failure> {
    change(base, |begun| begun.retain(|other| other != what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_short_is_known_until_it_is_done() {
        let base = tempfile::tempdir().unwrap();
        let what = |name: &str, is_deletion| Begun { name: name.into(), is_deletion };
        let is_begun = |what: Begun| is_begun(base.path(), &what).unwrap();
        assert!(!is_begun(what("a", false)));
        begin(base.path(), &what("a", false)).unwrap();
        assert!(is_begun(what("a", false)) && !is_begun(what("a", true)), "to delete it is another thing");
        end(base.path(), &what("a", false)).unwrap();
        assert!(!is_begun(what("a", false)));
        for number in 0..100 {
            begin(base.path(), &what(&number.to_string(), false)).unwrap();
        }
        assert!(is_begun(what("99", false)) && !is_begun(what("1", false)), "the oldest are forgotten");
    }
}
