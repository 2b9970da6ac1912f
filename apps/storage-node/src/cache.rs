//! The cache on this machine's disk: where it is, how much it may take, and what `status` says of it.
//!
//! All mounts of a home share the one in `HOME/cache`; a mount with a directory of its own has its own. It goes by what was
//! said last, which it remembers. `mount` has one unless told otherwise. `up` has none unless told: its nodes are on this
//! disk already, and what its own node holds is never kept twice. Not here: how it works (`filesystem::disk_cache`).

mod offline;

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dht::block_store::Record;
use dht::{BlockStore, Client, RegisterAddress};
use filesystem::access::VolumeKeys;
use filesystem::disk_cache::{CachedStore, DiskCache, Figures, KeptRoot, PinningStore, SIZE_BYTES_MIN};
use filesystem::volume::{OpenError, Options};
use filesystem::{Errno, Volume};
use overlay::Node;
use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::derive::derive;
use serde::{Deserialize, Serialize};

use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::identity::Member;
use crate::output;
use crate::progress::human_bytes;
use offline::Offline;

/// As much as a machine of today spares without a word.
const USUAL_BYTES_MAX: u64 = 2 << 30;
/// And of a small disk no more than this part of what is free.
const USUAL_SHARE: u64 = 10;
/// How old what `status` reads may be.
const TELL_INTERVAL: Duration = Duration::from_secs(2);

/// What a view of the drive remembers: some nodes of the tree, so that each file does not begin at the root.
const VIEW_BYTES: usize = 4 << 20;
/// How long a view waits for a node: what it reads is nobody's to wait for.
const VIEW_PATIENCE: Duration = Duration::from_secs(10);

const UNITS: [(&str, u64); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

/// What the cache may take, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        if text == "0" {
            return Ok(Size(0));
        }
        let bytes = bytes_of(text).map_err(|why| format!("{why}, or 0 for none"))?;
        if bytes < SIZE_BYTES_MIN {
            return Err(format!("a cache has {} or more, or 0 for none", human_bytes(SIZE_BYTES_MIN)));
        }
        Ok(Size(bytes))
    }
}

/// The number of bytes that people write as 500MiB.
///
/// # Errors
/// What to write instead.
pub(crate) fn bytes_of(text: &str) -> Result<u64, &'static str> {
    let how = || "say it as in 500MiB or 2GiB";
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(how)?;
    let number: u64 = text[..text.len() - unit.0.len()].parse().map_err(|_| how())?;
    number.checked_mul(1 << unit.1).ok_or("that is too much: say less")
}

/// `cache.json` of the cache's directory: what was said last.
#[derive(Serialize, Deserialize)]
struct Settings {
    bound_bytes: u64,
}

impl Kind for Settings {
    const KIND: &'static str = "hypha cache";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

/// `cache-figures.json` of a client's directory: what its drive's cache did since the drive's start.
#[derive(Serialize, Deserialize)]
struct Told {
    hits: u64,
    misses: u64,
    bound_bytes: u64,
    offline: Option<Offline>,
}

impl Kind for Told {
    const KIND: &'static str = "hypha cache figures";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

fn directory_in(base: &Path) -> PathBuf {
    base.join("cache")
}

fn told_in(client: &Path) -> PathBuf {
    client.join("cache-figures.json")
}

/// How large a cache is that nobody ever said anything about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usual {
    /// There is none.
    None,
    /// As the next, if there has been one.
    AsBefore,
    /// 2 GiB, or a tenth of what is free or already in it.
    ShareOfTheDisk,
}

/// A cache that is to be opened. Plain data, so that it can go where the reactor runs.
pub(crate) struct Plan {
    directory: PathBuf,
    /// Where what it does is told; nowhere for a command.
    client: Option<PathBuf>,
    bound_bytes: u64,
}

impl Plan {
    /// Decides about the cache in `base`, for the drive with the client's directory `client` if
    /// there is one, and remembers what was `asked`.
    ///
    /// # Errors
    /// Those of the file system and of [`files::load`].
    pub(crate) fn make(
        base: &Path,
        client: Option<&Path>,
        asked: Option<Size>,
        usual: Usual,
    ) -> Result<Plan, Failure> {
        let directory = directory_in(base);
        let file = directory.join("cache.json");
        let bound_bytes = match (asked, files::load::<Settings>(&file)) {
            (Some(Size(bound_bytes)), _) => {
                files::private_directory(&directory)?;
                files::save(&file, &Settings { bound_bytes })?;
                bound_bytes
            }
            (None, Ok(settings)) => settings.bound_bytes,
            (None, Err(failure)) => {
                let is_missing =
                    matches!(&failure, Failure::File { source, .. } if source.kind() == ErrorKind::NotFound);
                if !is_missing {
                    // A cache stops nobody from reaching the files.
                    output::warn(format_args!(
                        "{failure}; how large the cache may be is forgotten: say it again with --cache"
                    ));
                }
                match usual {
                    Usual::None => 0,
                    Usual::AsBefore if !directory.is_dir() => 0,
                    Usual::AsBefore | Usual::ShareOfTheDisk => {
                        files::private_directory(&directory)?;
                        // On a full disk nothing is taken in, and what is there is what a drive starts by without the nodes.
                        let least = if has_roots_in(&directory) { SIZE_BYTES_MIN } else { 0 };
                        share_of_the_disk(&directory).max(least)
                    }
                }
            }
        };
        Ok(Plan { directory, client: client.map(Path::to_owned), bound_bytes })
    }

    /// Returns what it may take; 0 for none.
    pub(crate) fn bound_bytes(&self) -> u64 {
        self.bound_bytes
    }

    /// Opens it, unless there is to be none.
    ///
    /// # Suspends
    /// While it is listed.
    pub(crate) fn open(&self, user: &Member) -> Option<Rc<Cache>> {
        // A smaller bound than anybody can ask for is a disk with next to nothing free.
        if self.bound_bytes < SIZE_BYTES_MIN {
            return None;
        }
        let key = derive::<32>(&*user.identity.seed(), b"", &[b"hypha disk cache 1"]);
        // Commands have a file among them: the one that ends last writes what it saw.
        let name = self
            .client
            .as_deref()
            .and_then(Path::file_name)
            .map_or("command".into(), |name| name.to_string_lossy());
        let disk = DiskCache::open(&self.directory, &name, *key, self.bound_bytes);
        let drive = Drive { root: RefCell::new(None), volume: RefCell::new(Weak::new()) };
        let drive = Rc::new(drive);
        let (telling, watched, client) = (disk.clone(), drive.clone(), self.client.clone());
        let teller = client.map(|client| {
            reactor::spawn(move || {
                let mut told = None;
                loop {
                    let news = (telling.figures(), watched.offline());
                    if told.replace(news) != Some(news) {
                        let client = client.clone();
                        reactor::offload(move || tell(&client, news.0, news.1));
                    }
                    reactor::sleep(TELL_INTERVAL);
                }
            })
        });
        Some(Rc::new(Cache {
            disk,
            drive,
            directory: self.directory.clone(),
            client: self.client.clone(),
            teller,
            opened: RefCell::new(None),
        }))
    }
}

/// Opens a volume through a cache, by what the nodes say of its root, or, where no quorum of them answers, by the first of `starts` of which
/// enough is here: a command may have seen a newer state than a mount has fetched. That they are away may be known already. What waits
/// in a journal was made on a root that the journal has: by none that is older it is opened.
///
/// # Errors
/// Those of `open`.
///
/// # Suspends
/// As `open` does.
pub(crate) fn open_by(
    client: &Client<Rc<Node>>,
    root: &Rc<KeptRoot>,
    starts: Vec<Record>,
    are_away: bool,
    mut open: impl FnMut(Rc<CachedStore>) -> Result<Rc<Volume>, OpenError>,
) -> Result<Rc<Volume>, OpenError> {
    let nodes: Rc<dyn BlockStore> = Rc::new(client.clone());
    let without = |start| Rc::new(CachedStore::without_nodes(nodes.clone(), root.clone(), start));
    let first = starts.first().cloned();
    let mut starts = starts.into_iter();
    let mut opened = match first {
        Some(start) if are_away => {
            starts.next();
            open(without(start))
        }
        // It comes again without them: this try may have been by what they said, before they went.
        first => open(Rc::new(CachedStore::new(nodes.clone(), root.clone(), first))),
    };
    loop {
        let is_silence = |errno: &Errno| matches!(*errno, Errno::ETIMEDOUT | Errno::EHOSTUNREACH);
        let start = match &opened {
            Err(_) if root.offline_for().is_none() => return opened,
            Err(OpenError::Tree(_)) => starts.next(),
            Err(OpenError::JournalBase { errno, .. }) if is_silence(errno) => starts.next(),
            Err(OpenError::JournalAhead { root: Some(own), .. }) => {
                // Nodes that have an older one were set back: this one was seen here.
                return match client.expect_at_least(root.register(), own.version, own.header_hash) {
                    Ok(()) => open(without((**own).clone())),
                    Err(_) => opened,
                };
            }
            _ => None,
        };
        match start {
            Some(start) => opened = open(without(start)),
            None => return opened,
        }
    }
}

/// As [`Cache::open_view`], of any volume that is open through a cache.
///
/// # Errors
/// As there.
///
/// # Suspends
/// As there.
pub(crate) fn view_of(
    store: Rc<CachedStore>,
    keys: VolumeKeys,
) -> Result<(Rc<Volume>, Rc<PinningStore>), Failure> {
    let store = Rc::new(PinningStore::new(store));
    let mut options = Options::default();
    (options.read_only, options.cache_bytes, options.sync_patience) = (true, VIEW_BYTES, VIEW_PATIENCE);
    let failed = |error: OpenError| Failure::Volume { reason: error.to_string() };
    Ok((Volume::open(store.clone(), keys, options).map_err(failed)?, store))
}

fn has_roots_in(directory: &Path) -> bool {
    let mut names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    names.any(|entry| entry.file_name().to_string_lossy().starts_with("root-"))
}

fn share_of_the_disk(directory: &Path) -> u64 {
    let free = rustix::fs::statvfs(directory).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    ((free + disk_bytes(directory)) / USUAL_SHARE).min(USUAL_BYTES_MAX)
}

/// What a directory takes on the disk, with all that is in it.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::symlink_metadata(directory).map_or(0, |metadata| metadata.blocks() * 512);
    let within = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = within.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => disk_bytes(&entry.path()),
        _ => entry.metadata().map_or(0, |metadata| metadata.blocks() * 512),
    });
    own + sizes.sum::<u64>()
}

fn tell(client: &Path, figures: Figures, offline: Option<Offline>) {
    let Figures { hits, misses, bound_bytes, .. } = figures;
    if let Err(error) = files::save(&told_in(client), &Told { hits, misses, bound_bytes, offline }) {
        tracing::debug!(%error, "what the cache did could not be written down");
    }
}

/// The drive whose cache it is, once it is open.
struct Drive {
    root: RefCell<Option<Rc<KeptRoot>>>,
    volume: RefCell<Weak<Volume>>,
}

impl Drive {
    fn offline(&self) -> Option<Offline> {
        let root = self.root.borrow().clone()?;
        let for_s = root.offline_for()?.as_secs();
        // Before it is open nobody knows what waits.
        let volume = self.volume.borrow().upgrade()?;
        Some(Offline::new(for_s, volume.pending(), now_s()))
    }
}

/// The wall clock, in seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A drive's cache.
pub(crate) struct Cache {
    disk: Rc<DiskCache>,
    drive: Rc<Drive>,
    directory: PathBuf,
    client: Option<PathBuf>,
    teller: Option<JoinHandle<()>>,
    /// The drive's store and keys, once it is opened.
    opened: RefCell<Option<(Rc<CachedStore>, VolumeKeys)>>,
}

impl Cache {
    /// The cache itself.
    pub(crate) fn disk(&self) -> &Rc<DiskCache> {
        &self.disk
    }

    /// Begins to keep the newest root of a volume, the drive or a space in it, which people know as `what`.
    pub(crate) fn root(&self, register: &RegisterAddress, what: impl Into<String>) -> Rc<KeptRoot> {
        self.disk.root(register, what)
    }

    /// What is put before its store is the drive's.
    pub(crate) fn is_drives(&self, root: Rc<KeptRoot>, store: Rc<CachedStore>, keys: &VolumeKeys) {
        *self.drive.root.borrow_mut() = Some(root);
        *self.opened.borrow_mut() = Some((store, keys.clone()));
    }

    /// For how long no quorum of the drive's nodes has answered, if it is offline.
    pub(crate) fn offline_for(&self) -> Option<Duration> {
        self.drive.root.borrow().as_ref()?.offline_for()
    }

    /// Opens the drive once more, for reading, with no memory: what is read of it is pinned.
    ///
    /// # Errors
    /// `Failure::Volume` if its root cannot be read.
    ///
    /// # Suspends
    /// Until it is open.
    pub(crate) fn open_view(&self) -> Result<(Rc<Volume>, Rc<PinningStore>), Failure> {
        let opened = self.opened.borrow().clone();
        let (store, keys) = opened.ok_or_else(|| Failure::Internal("the drive is not open yet".into()))?;
        view_of(store, keys)
    }

    /// Whether anything was kept that a drive could be opened by without the nodes.
    pub(crate) fn has_roots(&self) -> bool {
        has_roots_in(&self.directory)
    }

    /// The roots that a volume may be opened by without the nodes, the newest first. The others are for where not all of that is here; one
    /// that is older than what this machine has seen is told to be. From the nodes nothing older is taken for new in any case. Where an
    /// older state is accepted, what was kept is forgotten.
    ///
    /// # Errors
    /// `Failure::Internal` if the register is not open in `client`.
    ///
    /// # Suspends
    /// While it is read.
    pub(crate) fn starts(
        &self,
        client: &Client<Rc<Node>>,
        root: &KeptRoot,
        accept_rollback: bool,
    ) -> Result<Vec<Record>, Failure> {
        let register = root.register();
        if accept_rollback {
            self.disk.forget_roots(register);
        }
        let kept = root.kept();
        let Some(newest) = kept.first() else { return Ok(kept) };
        if let Some((version, header_hash)) = client.seen(register) {
            root.note_known(version);
            // Of two that have one version it is the one that was seen.
            let is_that = |kept: &Record| kept.version != version || kept.header_hash == header_hash;
            if newest.version <= version {
                return Ok(kept.into_iter().filter(is_that).collect());
            }
        }
        // It was seen, whether or not there was time to write that down: nothing older may be taken for the newest.
        client
            .expect_at_least(register, newest.version, newest.header_hash)
            .map_err(|error| Failure::Internal(error.to_string()))?;
        Ok(kept)
    }

    /// Has `status` say what of `volume` waits while it is offline.
    pub(crate) fn tell_of(&self, volume: &Rc<Volume>) {
        *self.drive.volume.borrow_mut() = Rc::downgrade(volume);
    }

    /// Lets others have it, once the drive's volume is closed.
    ///
    /// # Suspends
    /// While the last blocks are taken in; some seconds at most.
    pub(crate) fn close(&self) {
        self.disk.close();
        self.teller.iter().for_each(JoinHandle::terminate);
        if let Some(client) = self.client.clone() {
            let figures = self.disk.figures();
            reactor::offload(move || tell(&client, figures, None));
        }
    }
}

/// What `status` says of the cache.
#[derive(Debug, Serialize)]
pub(crate) struct CacheStatus {
    /// What it takes on the disk.
    size_bytes: u64,
    /// What it may take, as its last drive had it.
    bound_bytes: u64,
    /// Reads that it answered, of all clients since the last start of each.
    hits: u64,
    /// Reads of theirs that went to the nodes.
    misses: u64,
    /// Drives that no node answers.
    offline: Vec<Offline>,
}

impl CacheStatus {
    /// That of the cache in `base`; `None` if there never was one.
    pub(crate) fn of(base: &Path) -> Option<CacheStatus> {
        let directory = directory_in(base);
        let clients = ClientDirectory::all(base);
        let told: Vec<Told> = clients.filter_map(|client| files::load(&told_in(&client)).ok()).collect();
        let said =
            files::load::<Settings>(&directory.join("cache.json")).ok().map(|settings| settings.bound_bytes);
        let bound_bytes = said.or_else(|| told.iter().map(|told| told.bound_bytes).max())?;
        Some(CacheStatus {
            size_bytes: disk_bytes(&directory),
            bound_bytes,
            hits: told.iter().map(|told| told.hits).sum(),
            misses: told.iter().map(|told| told.misses).sum(),
            offline: told
                .iter()
                .filter_map(|told| told.offline)
                // Of a drive that was killed meanwhile nothing is known.
                .filter(|offline| offline.is_of_now(now_s()))
                .collect(),
        })
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, bound) = (human_bytes(self.size_bytes), human_bytes(self.bound_bytes));
        write!(
            f,
            "cache {size} of {bound}, {} reads answered by it, {} by the nodes",
            self.hits, self.misses
        )?;
        self.offline.iter().try_for_each(|offline| write!(f, "\n{offline}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them_and_too_small_ones_are_refused() {
        for (text, size) in
            [("0", 0), ("8MiB", 8 << 20), ("2GiB", 2 << 30), ("1TiB", 1 << 40), ("9000KiB", 9000 << 10)]
        {
            assert_eq!(text.parse(), Ok(Size(size)), "{text}");
        }
        for wrong in ["", "2", "GiB", "2GB", "-1GiB", "2 GiB", "7MiB", "1KiB", "99999999999999TiB", "é"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_was_said_last_is_remembered_and_none_is_none() {
        let base = tempfile::tempdir().unwrap();
        let bound = |asked, usual| Plan::make(base.path(), None, asked, usual).unwrap().bound_bytes();
        assert_eq!((bound(None, Usual::None), bound(None, Usual::AsBefore)), (0, 0));
        assert!((1..=USUAL_BYTES_MAX).contains(&bound(None, Usual::ShareOfTheDisk)));
        assert_eq!(bound(Some(Size(9 << 20)), Usual::None), 9 << 20);
        assert_eq!(bound(None, Usual::None), 9 << 20);
        assert_eq!(bound(None, Usual::ShareOfTheDisk), 9 << 20);
        assert_eq!(bound(Some(Size(0)), Usual::ShareOfTheDisk), 0);
        assert_eq!(bound(None, Usual::ShareOfTheDisk), 0);
        std::fs::write(directory_in(base.path()).join("cache.json"), "{ half").unwrap();
        assert!(
            (1..=USUAL_BYTES_MAX).contains(&bound(None, Usual::ShareOfTheDisk)),
            "nor is that the end of it"
        );
    }
}
