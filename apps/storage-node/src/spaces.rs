//! The spaces of a mounted drive: their volumes are opened when they are looked up, and end with the drive.
//!
//! A space is opened as the drive is: with a journal of its own, in the directory of the drive's client, with a mark of what was
//! seen of it, and for reading only where its list says so. What the drive's process says at its end it says of all of them.
//!
//! Only those spaces are followed to that the drive's owner made: whoever may write to the drive can put any link into it.
//! Not here: how a space shows in the drive (`filesystem::spaces`), and who may do what in it (`space_lists`).

mod refusal;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use dht::block::configuration::Membership;
use dht::block::mutable::{Genesis, Signed};
use dht::block_store::Reach;
use dht::{BlockStore, RegisterAddress};
use filesystem::access::list::Found;
use filesystem::access::{Root, SpaceLink, VolumeKeys, open_root};
use filesystem::format::printable;
use filesystem::spaces::{SpaceOpener, WithSpaces};
use filesystem::volume::{Pending, Volume};
use filesystem::{Errno, OpenError};
use overlay::Node;
use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::client;
use crate::client_directory::{self, ClientDirectory};
use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::home::Home;
use crate::identity::Member;
use crate::network::{Hex, Network};
use crate::outcome::Outcome;
use crate::output::say;
use crate::roll::Roll;
use crate::seen::{self, Seen};
use crate::volume::{Keep, Opening};
use refusal::{Refused, not_its_name, not_of_that_name, not_opened, not_read};

/// What a space's volume keeps in memory of what it read, and of what is not stored yet: a drive may have many.
const MEMORY_BYTES: usize = 32 << 20;

/// How long a space's root is waited for by who has looked up its name.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// How often it is tried to put in what waits for a space that can't be opened.
const WAITING_INTERVAL: Duration = Duration::from_secs(30);

/// `space.json` in a space's directory: where what waits in its journal belongs.
#[derive(Serialize, Deserialize)]
struct SpaceFile {
    /// As bytes, of `dht::Signed<Genesis>`.
    genesis: Hex<Vec<u8>>,
    /// What it is called, to the byte: by the list of its owner's, when it was opened first.
    name: String,
}

impl Kind for SpaceFile {
    const KIND: &'static str = "hypha space";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
    const PRIVATE: bool = true;
}

/// What it takes to open spaces.
pub(crate) struct Spaces {
    pub(crate) overlay: Rc<Node>,
    pub(crate) local: Option<Rc<dht::Node>>,
    pub(crate) network: Network,
    pub(crate) user: Member,
    /// The directory of the drive's client.
    pub(crate) directory: PathBuf,
    pub(crate) seen_directory: Option<PathBuf>,
    pub(crate) keep: Keep,
    pub(crate) accept_rollback: bool,
    pub(crate) state: State,
}

/// What there is of spaces that were opened.
#[derive(Default)]
pub(crate) struct State {
    is_removed: Cell<bool>,
    is_given_up: Cell<bool>,
    opened: RefCell<Vec<Opened>>,
    /// What was said of which: it would be said again at each look.
    told: RefCell<BTreeSet<(RegisterAddress, String)>>,
}

struct Opened {
    volume: Rc<Volume>,
    /// Dropped once the volume is closed.
    _seen: Option<Seen>,
    directory: ClientDirectory,
    /// Something waits in its journal that this user may not write any more.
    waits: bool,
}

impl SpaceOpener for Spaces {
    fn owner(&self) -> PublicKey {
        self.network.volume_owner()
    }

    fn open(&self, link: &SpaceLink, name: &[u8]) -> Result<Rc<Volume>, Errno> {
        // What the owner calls a space is text, so none is called anything else.
        let opened = std::str::from_utf8(name).map_err(|_| not_its_name());
        opened.and_then(|name| self.try_open(link, name)).map_err(|Refused(errno, reason)| {
            let name = printable(&String::from_utf8_lossy(name));
            self.tell(link, format!("the space {name} is not shown: {reason}"));
            errno
        })
    }
}

impl Spaces {
    fn tell(&self, link: &SpaceLink, words: String) {
        if self.state.told.borrow_mut().insert((link.register(), words.clone())) {
            say(words);
        }
    }

    fn try_open(&self, link: &SpaceLink, name: &str) -> Result<Rc<Volume>, Refused> {
        if link.owner() != self.network.volume_owner() || link.genesis().salt == self.network.volume_salt.0 {
            let reason = "it is no space of this drive's: somebody who may write to the drive put it there";
            return Err(Refused(Errno::EACCES, reason.into()));
        }
        let damaged = |failure: Failure| Refused(Errno::EIO, failure.to_string());
        let genesis = link.genesis();
        let (overlay, local) = (self.overlay.clone(), self.local.clone());
        let store = client::space_store(overlay, local, &self.network, &self.user, genesis);
        let membership = membership(genesis, self.seen_directory.as_deref()).map_err(damaged)?;
        let register =
            store.open_register(membership).map_err(|error| Refused(Errno::EIO, error.to_string()))?;
        let recall =
            |directory: &PathBuf| Seen::recall(&store, register, directory, self.accept_rollback, None);
        let seen = self.seen_directory.as_ref().map(recall).transpose().map_err(damaged)?;
        // Whoever lists the drive without a node at hand is not to wait for each space in it.
        let away = || Refused(Errno::EHOSTUNREACH, "the nodes that keep it do not answer".into());
        if store.reach(&register) == Reach::Nobody {
            return Err(away());
        }
        let read = reactor::timeout(READ_LIMIT, || store.read(&register));
        let record = read.map_err(|_| away())?.map_err(not_read)?;
        let record = record.ok_or_else(|| Refused(Errno::EIO, "the nodes have nothing of it".into()))?;
        let secret = self.user.identity.sealing_key();
        let root = open_root(&record.payload, record.version, &secret).map_err(not_opened)?;
        self.look_at_list(link, name, &root)?;
        let writers = store.writers(&register).map_err(not_read)?;
        let own = self.user.identity.public_key();
        let may_write = self.user.passport.rights().write && (own == link.owner() || writers.contains(&own));
        let directory = self.take_directory(link, name).map_err(damaged)?;
        let waits = !may_write && directory.has_journal();
        if waits {
            let place = directory.path().display().to_string();
            self.tell(
                link,
                format!(
                    "this user may not write to the space {} any more: what was written there before and is not stored waits in {place}",
                    printable(name)
                ),
            );
        }
        let opening = Opening {
            directory: &directory,
            seen_directory: self.seen_directory.as_deref(),
            keep: self.keep,
            accept_rollback: self.accept_rollback,
            cache: None,
            is_removed: self.state.is_removed.get(),
        };
        let mut options = opening.options(may_write);
        options.list_decides = true;
        (options.cache_bytes, options.dirty_bytes_max) = (MEMORY_BYTES, MEMORY_BYTES);
        let keys = VolumeKeys { register, secret, readers: Vec::new() };
        let volume = Volume::open(Rc::new(store), keys, options).map_err(|error| match error {
            OpenError::Read(error) => not_read(error),
            OpenError::Root(error) => not_opened(error),
            other => Refused(Errno::EIO, other.to_string()),
        })?;
        if let Some(Err(failure)) = seen.as_ref().map(Seen::remember_keepers) {
            // Nothing was written yet.
            let _ = volume.close();
            return Err(damaged(failure));
        }
        let opened = Opened { volume: volume.clone(), _seen: seen, directory, waits };
        self.state.opened.borrow_mut().push(opened);
        // What was said to all that was open while this was opened.
        if self.state.is_removed.get() {
            volume.on_removed();
        }
        if self.state.is_given_up.get() {
            volume.give_up();
        }
        Ok(volume)
    }

    /// Looks whether it is the space that its owner put there, and says who reads it beside those whom he let in.
    fn look_at_list(&self, link: &SpaceLink, name: &str, root: &Root) -> Result<(), Refused> {
        let found = root.charter.access_list(&link.owner(), &link.register());
        let file = client_directory::of_space(&self.directory, &link.register()).join("space.json");
        let known = reactor::offload(move || files::load::<SpaceFile>(&file).ok().map(|file| file.name));
        if let Some(reason) = not_of_that_name(&found, name, known.as_deref()) {
            return Err(Refused(Errno::EACCES, reason));
        }
        let Found::List(list) = found else {
            self.tell(
                link,
                format!(
                    "the list of who may do what in the space {} is not its owner's: one of its writers changed it",
                    printable(name)
                ),
            );
            return Ok(());
        };
        let known = list.readers();
        if root.charter.readers.iter().any(|reader| !known.contains(reader)) {
            let name = printable(name);
            self.tell(link, format!("the space {name} is read by somebody whom its owner did not let in"));
        }
        Ok(())
    }

    fn take_directory(&self, link: &SpaceLink, name: &str) -> Result<ClientDirectory, Failure> {
        let path = client_directory::of_space(&self.directory, &link.register());
        let file = SpaceFile { genesis: Hex(link.genesis().to_bytes()), name: name.into() };
        reactor::offload(move || {
            let directory = ClientDirectory::take(&path)?;
            let known = path.join("space.json");
            if !known.exists() {
                files::save(&known, &file)?;
            }
            Ok(directory)
        })
    }

    /// Opens those spaces for which something waits in the journal of an earlier run, in the drive that shows them. What
    /// can't be put in stays there, is told, and is tried again.
    ///
    /// # Suspends
    /// Until they are open.
    pub(crate) fn open_what_waits(&self, drive: &WithSpaces) {
        loop {
            let is_left = Cell::new(false);
            self.each_that_waits(|link, name, path| {
                if let Err(errno) = drive.open_space(link, name.as_bytes()) {
                    is_left.set(true);
                    let (name, place) = (printable(name), path.display());
                    self.tell(
                        link,
                        format!("what was written to the space {name} waits in {place}: {errno}"),
                    );
                }
            });
            if !is_left.get() {
                return;
            }
            reactor::sleep(WAITING_INTERVAL);
        }
    }

    fn each_that_waits(&self, work: impl Fn(&SpaceLink, &str, &Path)) {
        for path in client_directory::spaces_left_in(&self.directory) {
            let file: Result<SpaceFile, _> = files::load(&path.join("space.json"));
            let found = file.and_then(|SpaceFile { genesis, name }| {
                let genesis = Signed::<Genesis>::from_bytes(&genesis.0)
                    .map_err(|error| Failure::damaged(&path.join("space.json"), error))?;
                Ok((SpaceLink::new(genesis), name))
            });
            match found {
                Ok((link, name)) => work(&link, &name, &path),
                Err(failure) => say(format_args!("what waits in {}: {failure}", path.display())),
            }
        }
    }

    fn volumes(&self) -> Vec<Rc<Volume>> {
        self.state.opened.borrow().iter().map(|opened| opened.volume.clone()).collect()
    }

    /// What no quorum holds yet of `drive`, and of all that is open in it.
    pub(crate) fn pending_with(&self, drive: Pending) -> Pending {
        self.volumes().iter().map(|volume| volume.pending()).fold(drive, |mut sum, more| {
            sum.bytes += more.bytes;
            sum.file_count += more.file_count;
            sum.memory_bytes += more.memory_bytes;
            sum.memory_file_count += more.memory_file_count;
            sum.trouble = sum.trouble.or(more.trouble);
            sum
        })
    }

    /// As [`Volume::give_up`].
    pub(crate) fn give_up(&self) {
        self.state.is_given_up.set(true);
        self.volumes().iter().for_each(|volume| volume.give_up());
    }

    /// As [`Volume::on_removed`].
    pub(crate) fn on_removed(&self) {
        self.state.is_removed.set(true);
        self.volumes().iter().for_each(|volume| volume.on_removed());
    }

    /// Closes all that was opened, and says how that went. Nothing is asked of any of them any more.
    ///
    /// # Suspends
    /// Until everything is stored, or it is known that it can't be.
    pub(crate) fn close(&self) -> Outcome {
        let volumes = self.volumes();
        let ended = reactor::scope(|scope| {
            let closing: Vec<_> = volumes.iter().map(|volume| scope.spawn(|| volume.close())).collect();
            closing.into_iter().map(|closing| closing.join().ok()).collect::<Vec<_>>()
        });
        let outcome = ended.into_iter().fold(Outcome::Stored, |outcome, ending| {
            outcome.with(match ending {
                Some(ending) => Outcome::of(ending, &self.directory),
                None => Outcome::CutOff { reason: "the end of a space was cut short".into() },
            })
        });
        // What an earlier run left, and this one could not open.
        let opened = self.state.opened.take();
        let is_ours =
            |path: &PathBuf| opened.iter().any(|opened| !opened.waits && opened.directory.path() == path);
        let left = client_directory::spaces_left_in(&self.directory).filter(|path| !is_ours(path));
        left.fold(outcome, |outcome, path| {
            outcome.with(Outcome::InJournal {
                bytes: bytes_in(&path.join("journal")),
                file_count: 1,
                cause: "a space can't be opened".into(),
                directory: self.directory.clone(),
                cut_off: None,
            })
        })
    }
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Who keeps a space's root: those whom the genesis record names, or, if this machine has seen that since, whoever was put in
/// their place.
///
/// # Errors
/// `Failure::Volume`, or those of what was seen.
pub(crate) fn membership(
    genesis: &Signed<Genesis>,
    seen_directory: Option<&Path>,
) -> Result<Membership, Failure> {
    let register = genesis.register();
    let (mut seen, mut described) = (None, None);
    if let Some(directory) = seen_directory {
        seen = seen::configuration(directory, &register)?;
        if let Some(home) = Home::around(directory) {
            let spaces = Roll::read(&home)?.spaces;
            let space =
                spaces.iter().find(|space| space.genesis().is_ok_and(|known| known.register() == register));
            described = space.map(|space| space.configuration()).transpose()?.flatten();
        }
    }
    let membership = match [seen, described].into_iter().flatten().max_by_key(|newest| newest.epoch) {
        Some(newest) => Membership::from(genesis.clone()).followed_by(newest),
        None => genesis.clone().into(),
    };
    membership.verify().map_err(|error| crate::volume::failed(error.to_string()))?;
    Ok(membership)
}

/// Puts in what the client in `directory`, which is gone, left in the journals of its spaces. What can't be put in stays there
/// for the next start, and is told.
///
/// # Suspends
/// Until all of it is on the nodes, or it is known that it can't be.
pub(crate) fn put_in_what_is_left(
    overlay: &Rc<Node>,
    network: &Network,
    user: &Member,
    directory: &Path,
    seen_directory: PathBuf,
) {
    if client_directory::spaces_left_in(directory).next().is_none() {
        return;
    }
    let spaces = Spaces {
        overlay: overlay.clone(),
        local: None,
        network: network.clone(),
        user: user.clone(),
        directory: directory.into(),
        seen_directory: Some(seen_directory),
        keep: Keep::Rest,
        accept_rollback: false,
        state: State::default(),
    };
    spaces.each_that_waits(|link, name, _| drop(spaces.open(link, name.as_bytes())));
    match spaces.close() {
        Outcome::Stored => {
            say(format_args!("what a killed drive had left for spaces in {} is stored", directory.display()))
        }
        other => tracing::warn!("{other}"),
    }
}
