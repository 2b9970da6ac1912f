//! A mounted volume: state in memory, a committer in the background, and the store below.
//!
//! Three kinds of coroutines share one `State`: whoever calls an operation, the committer, and the reclaimer of removed
//! files. An operation is one step that never suspends, repeated after each fetch until nothing is missing
//! (`Volume::step`); the committer takes a delta away whole and works on it while new changes go to the next. The parts:
//!
//! - `state`: the layers and how to look through them, `values`: what lies in their leaves; `names`, `content`, `holes`,
//!   `xattr`, `frame_size`: operations as steps over it; `truncation`, `reclaim`: removing what is large, step by step;
//! - `durability`: which changes are durable, and where; `sync`: making them so, and waiting for it; `room`: waiting before
//!   a change until there is a place for it;
//! - `fetch`: chunks into the cache; `commit`: deltas into the store, their `frames` first, and what becomes of `objects`;
//!   `rebase`: what happens when another writer was first, with `race`, which keeps that short, `merge`, which decides, `gate`,
//!   which keeps changes out meanwhile, and `aliases`, for files that became two;
//!   `freshness`: is there anything newer? `news`: what the kernel must forget then;
//! - `session`: whether this mount is the only one, which decides how much of that is needed; `lease`: how it finds out;
//! - `born`: the numbers of what is made here; `orphans`: what is open without a name here; `ghosts`: what is open here and others removed;
//! - `away`: whether the nodes are, and what is kept then;
//! - `cause`: why a volume takes nothing; `shut`: what it does where that is for good;
//! - `ending`: what becomes of changes when the volume is closed; `replay`: what an earlier ending left; `left`: the same, without
//!   the drive;
//! - `snapshots`: trees that are remembered; `links`: names of other volumes;
//! - `collect`: what must not be deleted from the nodes; `fence`: what a mount does for whoever deletes; `doubt`: what it does
//!   where nobody waited for it;
//! - `operations`: the [`Operations`](crate::Operations) that a mount calls.
//!
//! Not here: permissions (the kernel checks them), and placement and replication (the store's business).

mod aliases;
mod away;
mod born;
mod cause;
mod changing;
mod collect;
mod commit;
mod content;
mod doubt;
mod durability;
mod ending;
mod features;
mod fence;
mod fetch;
mod frame_size;
mod frames;
mod freshness;
mod gate;
mod ghosts;
mod holes;
mod lease;
mod left;
mod links;
mod listing;
mod merge;
mod names;
mod news;
mod objects;
mod operations;
mod options;
mod orphans;
mod passed;
mod race;
mod rebase;
mod recent;
mod reclaim;
mod replay;
mod room;
mod session;
mod shut;
mod snapshots;
mod state;
mod swept;
mod sync;
mod truncation;
mod undone;
mod values;
mod xattr;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use dht::{BlockStore, HeaderHash, Record};
use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::random_bytes;
use reactor::sync::Signal;

use crate::access::{Charter, Features, Root, RootSealer, VolumeKeys, open_root};
use crate::cache::Cached;
use crate::chunk::Buffers;
use crate::errno::Errno;
use crate::format::{InodeRecord, Label, ObjectChanges, Pointer, VolumeId};
use crate::journal::Journal;
use crate::operations::{FileKind, Inode, Time};
pub use cause::Cause;
pub use collect::{CollectError, Fence, Roots, Standing, Waiting};
pub use ending::{Ending, Pending};
pub use left::{Left, LeftBehind, LeftPath};
pub use links::{LinkError, Place};
pub use options::{OpenError, Options};
pub use snapshots::{
    FileState, PathChange, PathState, RestoreError, Restored, Snapshot, SnapshotError, SnapshotPolicy,
};
use state::{State, Step, Stop};

/// A mounted volume; see the file's header. It is used through [`Operations`](crate::Operations).
pub struct Volume {
    /// For the coroutines that it starts.
    me: Weak<Volume>,
    store: Rc<dyn BlockStore>,
    keys: VolumeKeys,
    options: Options,
    state: RefCell<State>,
    in_flight: fetch::InFlight,
    /// What its commits are sealed in.
    buffers: Buffers,
    gate: gate::Gate,
    /// Uncommitted bytes at which writers have to wait now.
    dirty_bytes_max: Cell<usize>,
    sealer: RefCell<RootSealer>,
    /// Random: tells our commits from others'.
    session: [u8; 8],
    journal: Option<Journal>,
    /// The committer has something to do.
    work: Signal,
    /// The store took something, or did not.
    progress: Signal,
    race: race::Race,
    space: room::Space,
    closing: Cell<bool>,
    /// Nobody is to wait for the store any more.
    gives_up: Cell<bool>,
    reclaim: Signal,
    /// The version of the root that the state is based on.
    version: Cell<u64>,
    /// That root, where it is known.
    stands_on: RefCell<Option<Record>>,
    /// A root that the watcher saw.
    newer: RefCell<Option<(Root, Record)>>,
    freshness: freshness::Freshness,
    lease: lease::Lease,
    /// The number of the newest list that a root had of who may do what.
    list_number: Cell<u64>,
    /// How many have pointers in their hands.
    holds: Cell<usize>,
    /// What the commit that is being published points to anew, though it was stored before a collection began.
    kept: RefCell<BTreeSet<[u8; 8]>>,
    /// The store's last word on how full it is.
    last_usage: Cell<Option<dht::Usage>>,
    news: news::News,
    background: RefCell<Vec<JoinHandle<()>>>,
    committer: RefCell<Option<JoinHandle<()>>>,
    nodes: away::Nodes,
    /// The session whose journal this one began with, and the last of its deltas that was in that.
    begun_with: Cell<([u8; 8], u64)>,
    /// Where the files of an earlier mount's journal are that could not be read to their end.
    damaged_journal: RefCell<Option<PathBuf>>,
    /// Whether the nodes have what they had taken.
    standing: undone::Standing,
    /// Look at the register and after the nodes, until everything is stored.
    watchers: RefCell<Vec<JoinHandle<()>>>,
}

impl Volume {
    /// Makes an empty volume in a register without a value, owned by `uid` and `gid`, and opens it.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    ///
    /// # Suspends
    ///
    /// Until the root is durable, and as [`open`](Volume::open).
    pub fn create(
        store: Rc<dyn BlockStore>,
        keys: VolumeKeys,
        options: Options,
        (uid, gid): (u32, u32),
    ) -> Result<Rc<Volume>, OpenError> {
        if store.read(&keys.register)?.is_some() {
            return Err(OpenError::Exists);
        }
        let own = keys.secret.public();
        let mut readers = vec![own];
        readers.extend(keys.readers.iter().filter(|reader| **reader != own));
        let charter = Charter {
            volume: VolumeId(random_bytes()),
            created: Time::now(),
            name_key: random_bytes(),
            features: Features::default(),
            readers,
            extensions: Vec::new(),
        };
        let volume = Volume::new(store, keys, options, charter, None)?;
        // What another volume did not get stored is not for this one, and not to be lost either.
        if let Some(journal) = &volume.journal {
            journal.refuse_leftovers()?;
        }
        let now = Time::now();
        volume.state.borrow_mut().set_record(
            Inode::ROOT.0,
            InodeRecord {
                mode: 0o755,
                uid,
                gid,
                parent: Inode::ROOT.0,
                ..InodeRecord::new(FileKind::Directory, now)
            },
        );
        // Before anything runs in the background: whoever is second must not merge into the other's volume.
        match reactor::timeout(volume.options.sync_patience, || volume.commit()) {
            Ok(Ok(())) => {
                volume.begin_session(session::Present::new());
                volume.start();
                volume.enter();
                Ok(volume)
            }
            Ok(Err(Errno::EEXIST)) => Err(OpenError::Exists),
            Ok(Err(errno)) => Err(OpenError::Tree(errno)),
            Err(_) => Err(OpenError::Tree(volume.trouble())),
        }
    }

    /// Opens the volume that the register names, replays the journal if there is one, and cleans up after crashes.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    ///
    /// # Suspends
    ///
    /// While the root is read, and until another mount that has the volume for itself has stored what it closed, or has
    /// been silent for some seconds.
    pub fn open(
        store: Rc<dyn BlockStore>,
        keys: VolumeKeys,
        mut options: Options,
    ) -> Result<Rc<Volume>, OpenError> {
        let record = store.read(&keys.register)?.ok_or(OpenError::Missing)?;
        let root = open_root(&record.payload, record.version, &keys.secret)?;
        let unwritable = root.charter.features.unwritable();
        if unwritable != 0 && !options.read_only {
            // What waits there can't be put in, and an end that passes it over would claim that everything is stored.
            if let Some(directory) = &options.journal_directory {
                let waits = |_| OpenError::JournalWaits { directory: directory.clone(), flags: unwritable };
                Journal::open(directory.clone(), &keys)?.refuse_leftovers().map_err(waits)?;
            }
            tracing::warn!(
                "the volume uses features that this version does not know (flags {unwritable:#x}): it is opened \
                 for reading only; use the newer version to change it"
            );
            options.read_only = true;
        }
        let volume = Volume::new(store, keys, options, root.charter.clone(), root.tree)?;
        if volume.options.removed {
            volume.on_removed();
        }
        {
            let mut state = volume.state.borrow_mut();
            state.header = Some(record.header_hash);
            state.objects = root.objects.clone();
        }
        volume.base_on(&record);
        // An unreadable tree should fail here and not at the first `ls`.
        volume.step(|state| state.record(Inode::ROOT.0)).map_err(OpenError::Tree)?;
        volume.obey_list(&root);
        let replayed = volume.replay_journal(&root, &record)?;
        let tree = volume.state.borrow().tree;
        let truncations = volume.read_truncations(tree).map_err(OpenError::Tree)?;
        volume.state.borrow_mut().take_truncations(truncations);
        if !volume.options.read_only {
            volume.find_orphans().map_err(OpenError::Tree)?;
        }
        let tree = volume.state.borrow().tree;
        let present = volume.sessions_in(tree).map_err(OpenError::Tree)?;
        // Before this nothing of the journal's is changed: where something is missing, it is opened anew, by another root.
        volume.take_journal(replayed)?;
        // Not after it starts: it may have gone on from a newer one by then.
        volume.stand_on(&record);
        volume.begin_session(present);
        volume.heed_collection();
        volume.start();
        volume.enter();
        Ok(volume)
    }

    /// Notes that all that is asked is answered from the root of this version, and whatever was changed since. Never suspends.
    fn stand_on(&self, record: &Record) {
        self.base_on(record);
        self.store.on_taken_over(&self.keys.register, record.version);
    }

    /// Notes which root the state is based on: at once, for the journal is told it. Never suspends.
    fn base_on(&self, record: &Record) {
        self.version.set(record.version);
        *self.stands_on.borrow_mut() = Some(record.clone());
    }

    fn new(
        store: Rc<dyn BlockStore>,
        keys: VolumeKeys,
        options: Options,
        charter: Charter,
        tree: Option<Pointer>,
    ) -> Result<Rc<Volume>, OpenError> {
        // A reader has nothing to make durable.
        let directory = options.journal_directory.clone().filter(|_| !options.read_only);
        let journal = directory.map(|directory| Journal::open(directory, &keys)).transpose()?;
        let durability =
            durability::Durability::new(journal.is_some(), options.write_back && journal.is_some());
        let (session, device): ([u8; 8], u64) = (random_bytes(), options.device);
        let label = Label::new(format!("{} {}", options.author, options.place).trim_end());
        let member = options.member.as_ref().map_or([0; 32], |member| *member.as_bytes());
        let lease = lease::Lease::new(session, device, journal.is_some(), (label, member));
        let mut state =
            State::new(options.cache_bytes, charter, (device, u64::from_le_bytes(session)), durability);
        state.tree = tree;
        state.read_only = options.read_only;
        Ok(Rc::new_cyclic(|me| Volume {
            me: me.clone(),
            store,
            keys,
            dirty_bytes_max: Cell::new(options.dirty_bytes_max),
            options,
            state: RefCell::new(state),
            in_flight: fetch::InFlight::default(),
            buffers: Buffers::default(),
            gate: gate::Gate::default(),
            sealer: RefCell::new(RootSealer::new()),
            session,
            journal,
            work: Signal::new(),
            progress: Signal::new(),
            race: race::Race::default(),
            space: room::Space::default(),
            closing: Cell::new(false),
            gives_up: Cell::new(false),
            reclaim: Signal::new(),
            version: Cell::new(0),
            stands_on: RefCell::new(None),
            newer: RefCell::new(None),
            freshness: freshness::Freshness::default(),
            lease,
            list_number: Cell::new(0),
            holds: Cell::new(0),
            kept: RefCell::default(),
            last_usage: Cell::new(None),
            news: news::News::default(),
            background: RefCell::new(Vec::new()),
            committer: RefCell::new(None),
            nodes: away::Nodes::default(),
            begun_with: Cell::default(),
            damaged_journal: RefCell::default(),
            standing: undone::Standing::default(),
            watchers: RefCell::default(),
        }))
    }

    fn start(self: &Rc<Self>) {
        let (committer, ticker, reclaimer, keeper) = (self.clone(), self.clone(), self.clone(), self.clone());
        *self.committer.borrow_mut() = Some(reactor::spawn(move || committer.commit_loop()));
        let mut background = self.background.borrow_mut();
        background.push(reactor::spawn(move || ticker.tick()));
        background.push(reactor::spawn(move || reclaimer.reclaim_loop()));
        if !self.options.read_only {
            background.push(reactor::spawn(move || keeper.keep_orphans()));
        }
        if let Some(interval) = self.options.watch_interval {
            let (watcher, guard) = (self.clone(), self.clone());
            let mut watchers = self.watchers.borrow_mut();
            watchers.push(reactor::spawn(move || watcher.watch(interval)));
            watchers.push(reactor::spawn(move || guard.look_after_nodes()));
        }
    }

    /// Runs one operation on the state, and again after each fetch until nothing is missing.
    ///
    /// # Suspends
    ///
    /// Only if something is missing.
    fn step<T>(&self, mut operation: impl FnMut(&mut State) -> Step<T>) -> Result<T, Errno> {
        // What was fetched for this operation stays alive, and in the cache's newest part, until it is through.
        loop {
            let stop = match operation(&mut self.state.borrow_mut()) {
                Ok(value) => return Ok(value),
                Err(stop) => stop,
            };
            match stop {
                Stop::Errno(errno) => return Err(errno),
                Stop::Merging => self.gate.wait(),
                Stop::Dead(inode, below) => self.remove_dead(inode, below)?,
                Stop::Node(pointer) => drop(self.fetch_node(&pointer)?),
                Stop::Frame(pointer) => {
                    let frame = self.fetch_frame(&pointer)?;
                    // A cache that is too small for one frame would loop for ever: the newest always stays.
                    self.state.borrow_mut().cache.insert(*pointer, Cached::Frame(frame));
                }
            }
        }
    }

    /// Starts a commit when enough has gathered.
    fn after_change(&self) {
        let mut state = self.state.borrow_mut();
        if state.active.size_bytes > self.dirty_bytes_max.get() / 4 {
            let newest = state.durability.newest();
            if state.durability.want(newest) {
                drop(state);
                self.work.notify_all();
            }
        }
    }

    /// Commits what has waited for an interval.
    fn tick(&self) {
        loop {
            reactor::sleep(self.options.commit_interval);
            let mut state = self.state.borrow_mut();
            let newest = state.durability.newest();
            if !state.active.changes.is_empty() && state.durability.want(newest) {
                drop(state);
                self.work.notify_all();
            }
        }
    }

    /// Returns the register's value that the state is based on.
    fn header(&self) -> Option<HeaderHash> {
        self.state.borrow().header
    }

    fn seal_root(&self, tree: Option<Pointer>, objects: ObjectChanges, commit: [u8; 16]) -> Bytes {
        let state = self.state.borrow();
        let mut charter = state.charter.clone();
        charter.keep(&self.kept.borrow());
        let root = Root {
            charter,
            version: self.version.get() + 1,
            previous: state.header,
            tree,
            objects,
            commit,
            time: Time::now(),
            author: self.options.author.clone(),
        };
        drop(state);
        self.sealer.borrow_mut().seal(&root)
    }
}
