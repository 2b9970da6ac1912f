//! A turn at saying who may do what: one process of a home has it at a time.
//!
//! Commands change the roll and a space's root one after the other, and `up` has the root say what the roll says. Between its look at
//! the roll and what it makes of it no command may come, or it would put somebody back whom that took off.
//!
//! Not here: other copies of the home, which are told by the numbers of their lists.

use std::time::{Duration, Instant};

use crate::errors::Failure;
use crate::files;
use crate::home::{Home, Lock};

/// How long another process may have it: it asks the nodes for two or three things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it is free.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Turn {
    _lock: Lock,
}

impl Turn {
    /// Takes it.
    ///
    /// # Errors
    /// `Failure::Space` if another process does not let go of it, or those of the files.
    ///
    /// # Suspends
    /// Until it is free.
    pub(crate) fn take(home: &Home) -> Result<Turn, Failure> {
        Turn::by(home, reactor::now() + PATIENCE).map_err(|failure| match failure {
            Failure::Locked { holder, .. } => Failure::Space {
                reason: format!("process {holder} is just changing who may do what in a space"),
                advice: "let it end, and say it again",
            },
            other => other,
        })
    }

    /// Takes it if it is free by then.
    ///
    /// # Errors
    /// `Failure::Locked` if another process has it, or those of the files.
    ///
    /// # Suspends
    /// Until it is free.
    pub(crate) fn by(home: &Home, until: Instant) -> Result<Turn, Failure> {
        let directory = home.members_directory().join("spaces");
        loop {
            let directory = directory.clone();
            let taken = reactor::offload(move || {
                files::private_directory(&directory)?;
                Lock::take(&directory)
            });
            match taken {
                Ok(lock) => return Ok(Turn { _lock: lock }),
                Err(Failure::Locked { .. }) if reactor::now() < until => reactor::sleep(LOOK_INTERVAL),
                Err(other) => return Err(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_of(directory: &tempfile::TempDir) -> Home {
        Home::locate(Some(directory.path())).unwrap()
    }

    #[test]
    fn one_process_at_a_time_has_a_turn_and_the_next_one_waits_for_it() {
        reactor::run(|| {
            let directory = tempfile::tempdir().unwrap();
            let home = home_of(&directory);
            let first = Turn::take(&home).unwrap();
            let next = reactor::spawn(move || Turn::take(&home).is_ok());
            reactor::sleep(LOOK_INTERVAL * 5);
            assert!(!next.is_finished());
            let busy = Turn::by(&home_of(&directory), reactor::now());
            assert!(matches!(busy, Err(Failure::Locked { .. })), "who has other work does not wait");
            drop(first);
            assert!(next.join().unwrap());
        });
    }
}
