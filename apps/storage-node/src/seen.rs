//! What this machine has seen of the volume's register, kept from one run to the next.
//!
//! Nodes can be restored from yesterday's copy, or lie together: then all of them agree on an older root, and only
//! somebody who saw the newer one can tell. So a client keeps the highest version that it saw, with the hash of what it
//! was, in `seen.json` of its directory, and refuses anything older at the next start. It is written a moment after the
//! commits, since a mark that is some seconds old still tells yesterday from today, and at every orderly end.
//!
//! With it goes who keeps the register, if it was moved: whoever was away for long may find none of those whom
//! `network.json` names. An older state may be accepted, but never that the register is kept by whom the owner replaced.
//! It goes into the home's `network.json` as well, or its roll for a space, with which other machines begin. Both are on disk before an opening
//! or a command that found others to keep the register succeeds; a drive that runs writes down what it follows within seconds.
//!
//! Several processes may share the file: each only ever raises what is there. Not here: how an older state is
//! recognised, which is the DHT's work.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use dht::block::configuration::Configuration;
use dht::block::signed::Signed;
use dht::{Client, HeaderHash, RegisterAddress};
use filesystem::disk_cache::KeptRoot;
use overlay::Node;
use reactor::JoinHandle;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::home::Home;
use crate::network::Hex;
use crate::roll::Roll;
use crate::volume;

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
    /// Who keeps it, as bytes of `dht::Signed<Configuration>`; `None` for those whom the genesis record names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<Kept>,
}

/// A configuration in the file. One that can't be read makes the file unreadable: it must not pass for none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    signed: Hex<Vec<u8>>,
    epoch: u64,
}

impl From<&Signed<Configuration>> for Kept {
    fn from(configuration: &Signed<Configuration>) -> Kept {
        Kept { signed: Hex(configuration.to_bytes()), epoch: configuration.epoch }
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.signed.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kept, D::Error> {
        let bytes = Hex::<Vec<u8>>::deserialize(deserializer)?;
        Signed::from_bytes(&bytes.0).map(|configuration| Kept::from(&configuration)).map_err(D::Error::custom)
    }
}

impl Mark {
    fn epoch(&self) -> u64 {
        self.configuration.as_ref().map_or(0, |kept| kept.epoch)
    }
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
    fn enter(&mut self, mut mark: Mark, replace: bool) -> bool {
        let Some(known) = self.registers.iter_mut().find(|known| known.register == mark.register) else {
            self.registers.push(mark);
            return true;
        };
        // Each of the two goes its own way up.
        if known.epoch() > mark.epoch() {
            mark.configuration.clone_from(&known.configuration);
        }
        if known.version >= mark.version && !replace {
            (mark.version, mark.header_hash) = (known.version, known.header_hash.clone());
        }
        let is_news = *known != mark;
        *known = mark;
        is_news
    }
}

/// Keeps a register's mark on disk for as long as it lives, and writes it a last time when it is dropped.
pub(crate) struct Seen {
    keeper: Rc<Keeper>,
    saver: JoinHandle<()>,
}

/// What is kept of one register.
pub(crate) struct Keeper {
    client: Client<Rc<Node>>,
    register: RegisterAddress,
    directory: PathBuf,
    saved_version: Cell<u64>,
    saved_epoch: Cell<u64>,
    /// An older state was accepted: the first mark replaces a higher one.
    replaces: Cell<bool>,
    /// Where the state itself is kept that the mark speaks of.
    root: Option<Rc<KeptRoot>>,
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
        root: Option<Rc<KeptRoot>>,
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
            saved_epoch: Cell::new(0),
            replaces: Cell::new(accept_rollback),
            root,
        });
        let saving = keeper.clone();
        let saver = reactor::spawn(move || {
            loop {
                reactor::sleep(SAVE_INTERVAL);
                if let Some((mark, replaces)) = saving.news() {
                    // First what a start without the nodes needs: with a mark that is ahead of it that is told to be older.
                    if saving.root.as_ref().is_some_and(|root| !root.keep(mark.version)) {
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

impl Seen {
    /// As [`Keeper::remember_keepers`].
    ///
    /// # Errors
    /// `Failure::KeepersNotKept`.
    pub(crate) fn remember_keepers(&self) -> Result<(), Failure> {
        self.keeper.remember_keepers()
    }

    /// What is kept, for those who work on the register meanwhile.
    pub(crate) fn keeper(&self) -> Rc<Keeper> {
        self.keeper.clone()
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
    /// Who has the register open.
    pub(crate) fn client(&self) -> &Client<Rc<Node>> {
        &self.client
    }

    /// Which register it is.
    pub(crate) fn register(&self) -> &RegisterAddress {
        &self.register
    }

    /// Has it on disk who keeps the register, if that is not what is there.
    ///
    /// # Errors
    /// `Failure::KeepersNotKept`.
    pub(crate) fn remember_keepers(&self) -> Result<(), Failure> {
        let Some((mark, replaces)) = self.news() else { return Ok(()) };
        if mark.epoch() <= self.saved_epoch.get() {
            return Ok(());
        }
        let directory = self.directory.clone();
        let saved = reactor::offload(move || save(&directory, mark, replaces));
        let saved = saved.map_err(|failure| Failure::KeepersNotKept { reason: failure.to_string() })?;
        self.note(Ok(saved));
        Ok(())
    }

    /// A mark that is not on disk yet, and whether it replaces a higher one.
    fn news(&self) -> Option<(Mark, bool)> {
        let (version, header_hash) = self.client.seen(&self.register)?;
        let configuration = self.client.membership(&self.register).ok()?.configuration;
        let mark = Mark {
            register: Hex(self.register.0),
            version,
            header_hash: Hex(header_hash.0),
            configuration: configuration.as_ref().map(Kept::from),
        };
        let is_news = version > self.saved_version.get() || mark.epoch() > self.saved_epoch.get();
        (is_news || self.replaces.get()).then_some((mark, self.replaces.get()))
    }

    fn note(&self, saved: Result<(u64, u64), Failure>) {
        match saved {
            Ok((version, epoch)) => {
                self.saved_version.set(version);
                self.saved_epoch.set(epoch);
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

/// Who keeps a register, as earlier runs have seen.
///
/// # Errors
/// Those of [`files::load`].
pub(crate) fn configuration(
    directory: &Path,
    register: &RegisterAddress,
) -> Result<Option<Signed<Configuration>>, Failure> {
    let marks = load(directory)?;
    let kept = marks.of(register).and_then(|mark| mark.configuration.as_ref());
    kept.map(|kept| Signed::from_bytes(&kept.signed.0))
        .transpose()
        .map_err(|error| Failure::damaged(&directory.join("seen.json"), error))
}

/// The newest of a register that earlier runs have seen, as far as that was written down.
///
/// # Errors
/// Those of [`files::load`].
pub(crate) fn newest(
    directory: &Path,
    register: &RegisterAddress,
) -> Result<Option<(u64, HeaderHash)>, Failure> {
    Ok(load(directory)?.of(register).map(|mark| (mark.version, HeaderHash(mark.header_hash.0))))
}

/// Writes a mark beside what others have written meanwhile, and who keeps the register into the home that the directory is
/// in; returns its version, and the epoch of who keeps the register.
fn save(directory: &Path, mark: Mark, replaces: bool) -> Result<(u64, u64), Failure> {
    files::private_directory(directory)?;
    let failed = |error| Failure::file(directory, error);
    // Held until the file is written: two that read, raise and write at once would lose one of the two.
    let lock = File::open(directory).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut marks = load(directory)?;
    let saved = (mark.version, mark.epoch());
    let configuration = mark.configuration.clone();
    if marks.enter(mark, replaces) {
        files::save(&directory.join("seen.json"), &marks)?;
    }
    if let (Some(kept), Some(home)) = (configuration, Home::around(directory)) {
        let newest = Signed::from_bytes(&kept.signed.0)
            .map_err(|error| Failure::damaged(&directory.join("seen.json"), error))?;
        let mut network = home.network()?;
        if volume::describe(&mut network, &newest)? {
            home.save_network(&network)?;
        }
        // Of a space its owner's roll says it, and nobody else's home has one.
        if home.members_directory().exists() {
            Roll::change(&home, |roll| {
                roll.describe(&newest);
                Ok(())
            })?;
        }
    }
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overlay::NodeId;
    use reactor::crypto::Identity;

    fn mark(register: u8, version: u64, hash: u8) -> Mark {
        Mark { register: Hex([register; 32]), version, header_hash: Hex([hash; 32]), configuration: None }
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
    fn who_keeps_a_register_is_never_forgotten_whatever_state_is_accepted() {
        let owner = Identity::from_seed(&[1; 32]);
        let kept_by = |epoch| {
            let members = vec![NodeId([1; 32])];
            let (register, value) = (RegisterAddress([1; 32]), HeaderHash([2; 32]));
            let former = vec![];
            let configuration = Configuration { register, epoch, members, quorum: 1, former, value, list: 0 };
            Some(Kept::from(&Signed::sign(&owner, configuration)))
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let known = || {
            let configuration = configuration(path, &RegisterAddress([1; 32])).unwrap();
            let version = load(path).unwrap().of(&RegisterAddress([1; 32])).unwrap().version;
            (version, configuration.map_or(0, |configuration| configuration.epoch))
        };
        save(path, mark(1, 7, 7), false).unwrap();
        save(path, Mark { configuration: kept_by(2), ..mark(1, 5, 5) }, false).unwrap();
        assert_eq!(known(), (7, 2));
        save(path, Mark { configuration: kept_by(1), ..mark(1, 9, 9) }, false).unwrap();
        assert_eq!(known(), (9, 2));
        save(path, mark(1, 3, 3), true).unwrap();
        assert_eq!(known(), (3, 2));
        // Nor for a digit that went wrong.
        let file = path.join("seen.json");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("\"configuration\": \"", "\"configuration\": \"ff")).unwrap();
        let damaged = configuration(path, &RegisterAddress([1; 32]));
        assert!(matches!(damaged, Err(Failure::Damaged { .. })), "{damaged:?}");
    }

    #[test]
    fn a_damaged_mark_does_not_pass_for_none() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("seen.json"), "{}").unwrap();
        assert!(matches!(load(directory.path()), Err(Failure::Damaged { .. })));
    }
}
