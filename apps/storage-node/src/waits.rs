//! Why what waits in a journal does: a note beside it, for whoever asks later.
//!
//! `waits.json` in the directory of a client, or of one of its spaces. It is written where it is known: when a drive ends, and
//! when it hears that this user may not write any more. Of a drive that was killed it says what was so before. It is a word for
//! people, so that it can't be written fails nothing.

use std::path::Path;

use filesystem::volume::Cause;
use serde::{Deserialize, Serialize};

use crate::cache::now_s;
use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::home::Home;

/// See the file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waits {
    /// Why the nodes do not take it.
    pub(crate) cause: Cause,
    /// Since when that is known, in seconds since 1970.
    pub(crate) since_s: u64,
}

impl Kind for Waits {
    const KIND: &'static str = "hypha waits";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

impl Waits {
    /// What is noted in `directory`.
    pub(crate) fn read(directory: &Path) -> Option<Waits> {
        files::load(&directory.join("waits.json")).ok()
    }
}

/// How to get at what waits in the journals of the client with this directory.
pub(crate) fn way_out(client: &Path) -> String {
    let place = match Home::around(client) {
        Some(home) => format!("--home {}", home.path().display()),
        None => format!("--directory {}", client.display()),
    };
    format!(
        "`storage-node journal {place}` lists it, and `storage-node journal export DIR {place}` writes what can be had of it into a \
         directory"
    )
}

/// Notes in `directory` why what waits there does, or that nothing does.
pub(crate) fn note(directory: &Path, cause: Option<Cause>) {
    let file = directory.join("waits.json");
    let known = Waits::read(directory);
    let noted = match cause {
        Some(cause) if known.is_some_and(|known| known.cause == cause) => Ok(()),
        Some(cause) => files::save(&file, &Waits { cause, since_s: now_s() }),
        None if known.is_some() => std::fs::remove_file(&file).map_err(|error| Failure::file(&file, error)),
        None => Ok(()),
    };
    if let Err(failure) = noted {
        tracing::debug!(%failure, "why something waits is not noted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_leads_to_where_it_waits() {
        let place = tempfile::tempdir().unwrap();
        let client = place.path().join("client");
        assert!(way_out(&client).contains(&format!("export DIR --directory {}", client.display())));
        std::fs::write(place.path().join("network.json"), "").unwrap();
        assert!(way_out(&client).contains(&format!("export DIR --home {}`", place.path().display())));
    }

    #[test]
    fn what_is_noted_is_since_it_was_noted_first() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(Waits::read(place.path()), None);
        note(place.path(), Some(Cause::Away));
        let file = place.path().join("waits.json");
        files::save(&file, &Waits { cause: Cause::Away, since_s: 5 }).unwrap();
        note(place.path(), Some(Cause::Away));
        assert_eq!(Waits::read(place.path()), Some(Waits { cause: Cause::Away, since_s: 5 }));
        note(place.path(), Some(Cause::Removed));
        assert_eq!(Waits::read(place.path()).unwrap().cause, Cause::Removed);
        note(place.path(), None);
        note(place.path(), None);
        assert_eq!(Waits::read(place.path()), None);
    }
}
