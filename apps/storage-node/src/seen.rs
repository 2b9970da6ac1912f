//! What this machine has seen of the volume's register, kept from one run to the next.
//!
//! Nodes can be restored from yesterday's copy, or lie together: then all of them agree on an older root, and only
//! somebody who saw the newer one can tell. So a client keeps the highest version that it saw, with the hash of what it
//! was, in `seen.json` of its directory, and refuses anything older at the next start. It is written a moment after the
//! commits, since a mark that is some seconds old still tells yesterday from today, and at every orderly end.
//!
//! Several processes may share the file: each only ever raises what is there. Not here: how an older state is
//! recognised, which is the DHT's work.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use dht::{Client, HeaderHash, RegisterAddress};
use filesystem::DiskCache;
use overlay::Node;
use reactor::JoinHandle;
use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::network::Hex;

/// How often a new mark is written, at most.
const SAVE_INTERVAL: Duration = Duration::from_secs(2);

/// `seen.json` of a client's directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Marks {
    registers: Vec<Mark>,
}

/// The highest version of one register that was seen, and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    register: Hex<[u8; 32]>,
    version: u64,
    header_hash: Hex<[u8; 32]>,
}

impl Kind for Marks {
    const KIND: &'static str = "hypha seen";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

impl Marks {
    fn of(&self, register: &RegisterAddress) -> Option<&Mark> {
        self.registers.iter().find(|mark| mark.register.0 == register.0)
    }

    /// Raises a register's mark, or with `replace` sets it whatever it was. Says whether that changed anything.
    fn enter(&mut self, mark: Mark, replace: bool) -> bool {
        match self.registers.iter_mut().find(|known| known.register == mark.register) {
            Some(known) if replace && *known != mark => *known = mark,
            Some(known) if known.version < mark.version => *known = mark,
            Some(_) => return false,
            None => self.registers.push(mark),
        }
        true
    }
}

/// Keeps a register's mark on disk for as long as it lives, and writes it a last time when it is dropped.
pub(crate) struct Seen {
    keeper: Rc<Keeper>,
    saver: JoinHandle<()>,
}

struct Keeper {
    client: Client<Rc<Node>>,
    register: RegisterAddress,
    directory: PathBuf,
    saved_version: Cell<u64>,
    /// An older state was accepted: the first mark replaces a higher one.
    replaces: Cell<bool>,
    /// Where the state itself is kept that the mark speaks of.
    roots: Option<Rc<DiskCache>>,
}

impl Seen {
    /// Tells the client what earlier runs saw, unless an older state is to be accepted, and keeps watch from now on.
    ///
    /// # Errors
    /// Those of [`files::load`]: a damaged mark must not pass for none.
    pub(crate) fn recall(
        client: &Client<Rc<Node>>,
        register: RegisterAddress,
        directory: &Path,
        accept_rollback: bool,
        roots: Option<Rc<DiskCache>>,
    ) -> Result<Seen, Failure> {
        if let Some(mark) = load(directory)?.of(&register)
            && !accept_rollback
        {
            client
                .expect_at_least(&register, mark.version, HeaderHash(mark.header_hash.0))
                .map_err(|error| Failure::Internal(error.to_string()))?;
        }
        let keeper = Rc::new(Keeper {
            client: client.clone(),
            register,
            directory: directory.into(),
            saved_version: Cell::new(0),
            replaces: Cell::new(accept_rollback),
            roots,
        });
        let saving = keeper.clone();
        let saver = reactor::spawn(move || {
            loop {
                reactor::sleep(SAVE_INTERVAL);
                if let Some((mark, replaces)) = saving.news() {
                    // First what a start without the nodes needs: with a mark that is ahead of it there would be none.
                    if saving.roots.as_ref().is_some_and(|roots| !roots.keep_root(mark.version)) {
                        continue;
                    }
                    let directory = saving.directory.clone();
                    saving.note(reactor::offload(move || save(&directory, mark, replaces)));
                }
            }
        });
        Ok(Seen { keeper, saver })
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.saver.terminate();
        if let Some((mark, replaces)) = self.keeper.news() {
            self.keeper.note(save(&self.keeper.directory, mark, replaces));
        }
    }
}

impl Keeper {
    /// A mark that is not on disk yet, and whether it replaces a higher one.
    fn news(&self) -> Option<(Mark, bool)> {
        let (version, header_hash) = self.client.seen(&self.register)?;
        let mark = Mark { register: Hex(self.register.0), version, header_hash: Hex(header_hash.0) };
        (version > self.saved_version.get() || self.replaces.get()).then_some((mark, self.replaces.get()))
    }

    fn note(&self, saved: Result<u64, Failure>) {
        match saved {
            Ok(version) => {
                self.saved_version.set(version);
                self.replaces.set(false);
            }
            Err(error) => {
                tracing::warn!(%error, "which version of the volume was seen could not be written down")
            }
        }
    }
}

fn load(directory: &Path) -> Result<Marks, Failure> {
    match files::load(&directory.join("seen.json")) {
        Err(Failure::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Marks::default())
        }
        other => other,
    }
}

/// Writes a mark beside what others have written meanwhile; returns its version.
fn save(directory: &Path, mark: Mark, replaces: bool) -> Result<u64, Failure> {
    files::private_directory(directory)?;
    let failed = |error| Failure::file(directory, error);
    // Held until the file is written: two that read, raise and write at once would lose one of the two.
    let lock = File::open(directory).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut marks = load(directory)?;
    let version = mark.version;
    if marks.enter(mark, replaces) {
        files::save(&directory.join("seen.json"), &marks)?;
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(register: u8, version: u64, hash: u8) -> Mark {
        Mark { register: Hex([register; 32]), version, header_hash: Hex([hash; 32]) }
    }

    #[test]
    fn a_mark_is_only_ever_raised_unless_the_older_state_was_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let of = |register| load(path).unwrap().of(&RegisterAddress([register; 32])).cloned();
        assert_eq!(of(1), None);
        save(path, mark(1, 7, 7), false).unwrap();
        save(path, mark(2, 1, 1), false).unwrap();
        save(path, mark(1, 6, 6), false).unwrap();
        assert_eq!(of(1), Some(mark(1, 7, 7)));
        save(path, mark(1, 3, 3), true).unwrap();
        assert_eq!((of(1), of(2)), (Some(mark(1, 3, 3)), Some(mark(2, 1, 1))));
    }

    #[test]
    fn a_damaged_mark_does_not_pass_for_none() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("seen.json"), "{}").unwrap();
        assert!(matches!(load(directory.path()), Err(Failure::Damaged { .. })));
    }
}
