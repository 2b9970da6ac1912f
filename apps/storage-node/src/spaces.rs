//! The spaces of a mounted drive: their volumes are opened when they are looked up, and end with the drive.
//!
//! A space is opened as the drive is: with a journal of its own, in the directory of the drive's client, with a mark of what was
//! seen of it, and for reading only where its list says so. What the drive's process says at its end it says of all of them.
//!
//! Only those spaces are followed to that the drive's owner made: whoever may write to the drive can put any link into it.
//! Not here: how a space shows in the drive (`filesystem::spaces`), and who may do what in it (`space_lists`).

mod known;
mod refusal;
mod rights;
mod waiting;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use dht::block_store::{Reach, Record};
use dht::{BlockStore, ReadError, RegisterAddress};
use filesystem::access::list::{Access, Found};
use filesystem::access::{Root, RootError, SpaceLink, VolumeKeys, open_root};
use filesystem::disk_cache::CachedStore;
use filesystem::format::Shown;
use filesystem::spaces::{SpaceOpener, WithSpaces};
use filesystem::volume::{Cause, Pending, Volume};
use filesystem::{Errno, OpenError};
use overlay::Node;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::sync::Signal;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, open_by};
use crate::client;
use crate::client_directory::{self, ClientDirectory};
use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::identity::Member;
use crate::network::{Hex, Network};
use crate::output::say;
use crate::seen::Seen;
use crate::volume::{Keep, Opening};
use crate::waits;
use known::read_space_file;
pub(crate) use known::{forget, known, membership, open_own};
use refusal::{Refused, away, not_its_name, not_of_that_name, not_opened, not_read};
pub(crate) use waiting::{left_in, put_in_what_is_left};

/// What a space's volume keeps in memory of what it read, and as much of what is not stored yet.
const MEMORY_BYTES: usize = 32 << 20;

/// What all spaces of a drive keep together, as much as the drive itself: 2 MiB each where there are as many as a mount shows. Their
/// snapshots, where somebody looks into them, take an eighth of that each.
const MEMORY_OF_ALL_BYTES: usize = 128 << 20;

/// How long a space's root is waited for by who has looked up its name.
const READ_LIMIT: Duration = Duration::from_secs(5);

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
    /// Where blocks of theirs are kept as well.
    pub(crate) cache: Option<Rc<Cache>>,
    pub(crate) state: State,
}

/// What there is of spaces that were opened.
#[derive(Default)]
pub(crate) struct State {
    is_removed: Cell<bool>,
    is_given_up: Cell<bool>,
    opened: RefCell<Vec<Opened>>,
    /// Those that are to be open though nobody looks into them, and what they are called.
    wanted: RefCell<BTreeMap<RegisterAddress, (SpaceLink, String)>>,
    wants: Signal,
    /// What was said of which: it would be said again at each look.
    told: RefCell<BTreeSet<(RegisterAddress, String)>>,
    /// Why those could not be opened that were tried last, by their registers.
    refused: RefCell<BTreeMap<RegisterAddress, Cause>>,
}

impl State {
    /// Of a user who may have been removed already.
    pub(crate) fn new(is_removed: bool) -> State {
        State { is_removed: Cell::new(is_removed), ..State::default() }
    }
}

struct Opened {
    name: String,
    volume: Rc<Volume>,
    /// What it is read through, where there is a cache.
    cached: Option<Cached>,
    /// What was said last of why nothing is taken in it.
    told: Cell<Option<Cause>>,
    /// This user could write to it once since it was opened.
    was_writer: Cell<bool>,
    /// Dropped once the volume is closed.
    _seen: Option<Seen>,
    directory: ClientDirectory,
    /// Something waits in its journal that this user may not write any more.
    waits: bool,
}

/// A space that is open through a cache.
#[derive(Clone)]
pub(crate) struct Cached {
    pub(crate) volume: Rc<Volume>,
    pub(crate) store: Rc<CachedStore>,
    pub(crate) keys: VolumeKeys,
}

impl SpaceOpener for Spaces {
    fn owner(&self) -> PublicKey {
        self.network.volume_owner()
    }

    fn open(&self, link: &SpaceLink, name: &[u8]) -> Result<Rc<Volume>, Errno> {
        let opened = self.try_open_named(link, name);
        let cause = opened.as_ref().err().map(|refused| refused.cause);
        match cause {
            Some(cause) => self.state.refused.borrow_mut().insert(link.register(), cause),
            None => self.state.refused.borrow_mut().remove(&link.register()),
        };
        opened.map_err(|Refused { errno, reason, .. }| {
            let name = Shown::of(name);
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

    /// Opens the space that `link` leads to, which lies at `path`, for a command.
    ///
    /// # Errors
    /// `Failure::Space`.
    ///
    /// # Suspends
    /// Until it is open.
    pub(crate) fn open_for_command(
        &self,
        link: &SpaceLink,
        name: &[u8],
        path: &[u8],
    ) -> Result<Rc<Volume>, Failure> {
        self.try_open_named(link, name).map_err(|Refused { reason, is_gone, .. }| match is_gone {
            true => Failure::SpaceGone { path: Shown::of(path) },
            false => Failure::Space {
                reason: format!("the space {} cannot be opened: {reason}", Shown::of(path)),
                advice: "`storage-node access DIR` says who may do what in it",
            },
        })
    }

    fn try_open_named(&self, link: &SpaceLink, name: &[u8]) -> Result<Rc<Volume>, Refused> {
        // What the owner calls a space is text, so none is called anything else.
        let name = std::str::from_utf8(name).map_err(|_| not_its_name())?;
        self.try_open(link, name)
    }

    fn try_open(&self, link: &SpaceLink, name: &str) -> Result<Rc<Volume>, Refused> {
        if self.state.is_removed.get() {
            return Err(Refused::of(Cause::Removed, "this user was removed from the network"));
        }
        if link.owner() != self.network.volume_owner() || link.genesis().salt == self.network.volume_salt.0 {
            let reason = "it is no space of this drive's: somebody who may write to the drive put it there";
            return Err(Refused::new(Errno::EACCES, reason));
        }
        let damaged = |failure: Failure| Refused::new(Errno::EIO, failure.to_string());
        let genesis = link.genesis();
        let (overlay, local) = (self.overlay.clone(), self.local.clone());
        let store = client::space_store(overlay, local, &self.network, &self.user, genesis);
        let membership = membership(genesis, self.seen_directory.as_deref()).map_err(damaged)?;
        let register =
            store.open_register(membership).map_err(|error| Refused::new(Errno::EIO, error.to_string()))?;
        let kept =
            self.cache.as_ref().map(|cache| cache.root(&register, format!("the space {}", Shown::of(name))));
        let recall = |directory: &PathBuf| {
            Seen::recall(&store, register, directory, self.accept_rollback, kept.clone())
        };
        let seen = self.seen_directory.as_ref().map(recall).transpose().map_err(damaged)?;
        let mut starts = match (&self.cache, &kept) {
            (Some(cache), Some(root)) => cache.starts(&store, root, self.accept_rollback).map_err(damaged)?,
            _ => Vec::new(),
        };
        // What a command says, it says of the nodes.
        if self.keep == Keep::Nothing {
            starts.clear();
        }
        let read = self.read_root(&store, &register, !starts.is_empty())?;
        let is_offline = read.is_none();
        let record = read.or_else(|| starts.first().cloned()).ok_or_else(away)?;
        let secret = self.user.identity.sealing_key();
        let root = open_root(&record.payload, record.version, &secret).map_err(|error| match error {
            // Any writer can say so: it is no word of the owner's.
            RootError::GivenUp if record.writer != link.owner() => not_opened(RootError::NotAReader),
            error => not_opened(error),
        })?;
        self.look_at_list(link, name, &root)?;
        let writers = store.writers(&register).map_err(not_read)?;
        let own = self.user.identity.public_key();
        let by_list = match root.charter.access_list(&link.owner(), &register) {
            Found::List(list) => list.access_by(&secret.public()),
            Found::Nothing | Found::Forged => Access::None,
        };
        // The nodes know who may write; without them the list does that was seen last.
        let is_writer =
            own == link.owner() || writers.contains(&own) || (is_offline && by_list == Access::Write);
        let may_write = self.user.passport.rights().write && is_writer;
        let directory = self.take_directory(link, name).map_err(damaged)?;
        let waits = !may_write && directory.has_journal();
        // Who may only read by the owner's list is a writer as soon as that says so, without a mount anew: until then the volume
        // refuses by it.
        let may_become_writer = self.user.passport.rights().write && by_list == Access::Read && !waits;
        if waits {
            waits::note(directory.path(), Some(Cause::ReadsOnly));
            let place = directory.path().display().to_string();
            self.tell(
                link,
                format!(
                    "this user may not write to the space {} any more: what was written there before and is not stored waits in \
                     {place}; {}",
                    Shown::of(name),
                    waits::way_out(&self.directory)
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
        let mut options = opening.options(&self.user, may_write || may_become_writer);
        options.list_of = Some(link.owner());
        (options.cache_bytes, options.dirty_bytes_max) = (MEMORY_BYTES, MEMORY_BYTES);
        let keys = VolumeKeys { register, secret, readers: Vec::new() };
        let client = store.clone();
        let nodes: Rc<dyn BlockStore> = Rc::new(store);
        let mut through = None;
        let opened = match kept {
            None => Volume::open(nodes, keys, options),
            Some(root) => {
                let starts = if is_offline { starts } else { Vec::new() };
                open_by(&client, &root, starts, is_offline, |store| {
                    through = Some((store.clone(), keys.clone()));
                    Volume::open(store, keys.clone(), options.clone())
                })
            }
        };
        let volume = opened.map_err(|error| match error {
            OpenError::Read(error) => not_read(error),
            OpenError::Root(error) => not_opened(error),
            other => Refused::new(Errno::EIO, other.to_string()),
        })?;
        if let Some(Err(failure)) = seen.as_ref().map(Seen::remember_keepers) {
            // Nothing was written yet.
            let _ = volume.close();
            return Err(damaged(failure));
        }
        // That he may only read is no news to somebody who could only read when he opened it.
        let told = Cell::new(volume.shut_for().filter(|cause| *cause == Cause::ReadsOnly));
        let (name, was_writer) = (name.to_owned(), Cell::new(may_write));
        let cached = through.map(|(store, keys)| Cached { volume: volume.clone(), store, keys });
        let opened =
            Opened { name, volume: volume.clone(), cached, told, was_writer, _seen: seen, directory, waits };
        self.state.opened.borrow_mut().push(opened);
        let volumes = self.volumes();
        volumes.iter().for_each(|volume| volume.set_memory_max(memory_of_each(volumes.len())));
        // What was said to all that was open while this was opened.
        if self.state.is_removed.get() {
            volume.on_removed();
        }
        if self.state.is_given_up.get() {
            volume.give_up();
        }
        Ok(volume)
    }

    /// What the nodes have of its root; `None` where no quorum of them answers and it `may_do_without`.
    fn read_root(
        &self,
        store: &dht::Client<Rc<Node>>,
        register: &RegisterAddress,
        may_do_without: bool,
    ) -> Result<Option<Record>, Refused> {
        // Whoever lists the drive without a node at hand is not to wait for each space in it.
        let read = match store.reach(register) {
            Reach::Nobody => return if may_do_without { Ok(None) } else { Err(away()) },
            _ => reactor::timeout(READ_LIMIT, || store.read(register)),
        };
        match read {
            Err(_) | Ok(Err(ReadError::NoQuorum { .. })) if may_do_without => Ok(None),
            Err(_) => Err(away()),
            Ok(Err(error)) => Err(not_read(error)),
            Ok(Ok(Some(record))) => Ok(Some(record)),
            Ok(Ok(None)) => Err(Refused::new(Errno::EIO, "the nodes have nothing of it")),
        }
    }

    /// Looks whether it is the space that its owner put there, and says who reads it beside those whom he let in.
    fn look_at_list(&self, link: &SpaceLink, name: &str, root: &Root) -> Result<(), Refused> {
        let found = root.charter.access_list(&link.owner(), &link.register());
        let file = client_directory::of_space(&self.directory, &link.register()).join("space.json");
        let known = reactor::offload(move || files::load::<SpaceFile>(&file).ok().map(|file| file.name));
        if let Some(reason) = not_of_that_name(&found, name, known.as_deref()) {
            return Err(Refused::new(Errno::EACCES, reason));
        }
        let Found::List(list) = found else {
            self.tell(
                link,
                format!(
                    "the list of who may do what in the space {} is not its owner's: one of its writers changed it",
                    Shown::of(name)
                ),
            );
            return Ok(());
        };
        let known = list.readers();
        if root.charter.readers.iter().any(|reader| !known.contains(reader)) {
            let name = Shown::of(name);
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

    /// What the space that `link` leads to is read through, if it is open; else it will be opened, as `name`.
    pub(crate) fn cached(&self, link: &SpaceLink, name: &str) -> Option<Cached> {
        let register = link.register();
        let opened = self.state.opened.borrow();
        let found = opened.iter().find_map(|opened| {
            opened.cached.as_ref().filter(|cached| cached.keys.register == register).cloned()
        });
        if found.is_none() {
            self.state.wanted.borrow_mut().insert(register, (link.clone(), name.to_owned()));
            self.state.wants.notify_all();
        }
        found
    }

    /// Opens those that somebody wants to be open, in the drive that shows them, for as long as it runs.
    ///
    /// # Suspends
    /// Until it is terminated.
    pub(crate) fn open_what_is_wanted(&self, drive: &WithSpaces) {
        loop {
            let wanted = std::mem::take(&mut *self.state.wanted.borrow_mut());
            if wanted.is_empty() {
                self.state.wants.wait();
            }
            for (link, name) in wanted.into_values() {
                // Why not is told where it is refused; who wants it asks again.
                let _ = drive.open_space(&link, name.as_bytes());
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
}

/// What each of so many spaces keeps in memory.
fn memory_of_each(count: usize) -> usize {
    (MEMORY_OF_ALL_BYTES / count.max(1)).min(MEMORY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spaces_together_keep_no_more_than_one_drive_does() {
        assert_eq!([1, 4, 5].map(memory_of_each), [32 << 20, 32 << 20, (128 << 20) / 5]);
        for count in 1..=64 {
            let each = memory_of_each(count);
            assert!(count * each <= MEMORY_OF_ALL_BYTES && each >= 2 << 20, "{count}");
        }
    }
}
