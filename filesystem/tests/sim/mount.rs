//! One machine with the volume mounted: programs on it create, overwrite, save by renaming, move, remove and sync, and
//! somebody unmounts now and then. The journal is on the machine's simulated disk.
//!
//! Each change is told to the history with what the machine saw in its place. A step that reads and then changes may be
//! overtaken by another machine's commit in between; the volume's version tells, and then nothing is claimed of it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use dht::{BlockStore, RegisterAddress};
use filesystem::operations::{Credentials, FileKind, RenameFlags, SetAttributes, Time};
use filesystem::{Ending, Errno, Inode, Operations, Options, Volume, VolumeKeys};
use reactor::cell::RefCell;
use reactor::crypto::X25519Secret;
use reactor::sim::{Host, Running, World};

use super::contents::{CLASSES, Token, content, length};
use super::history::{History, Unacknowledged};
use super::network::Cluster;
use super::store::Cloud;
use super::tree::{Held, held};

const USER: Credentials = Credentials { uid: 1000, gid: 1000, umask: 0 };
const NAMES: [&str; 5] = ["a.txt", "b.txt", "c.txt", "d", "e.tar.gz"];

/// What keeps the blocks.
#[derive(Clone)]
pub(crate) enum Backing {
    /// A model of the DHT that loses answers.
    Model(Rc<Cloud>, RegisterAddress),
    /// Nodes.
    Nodes(Rc<Cluster>),
}

impl Backing {
    pub(crate) fn register(&self) -> RegisterAddress {
        match self {
            Backing::Model(_, register) => *register,
            Backing::Nodes(cluster) => cluster.register(),
        }
    }

    /// Connects the calling process, which is `machine`'s.
    fn connect(&self, machine: usize) -> Rc<dyn BlockStore> {
        match self {
            Backing::Model(cloud, _) => cloud.reach(machine),
            Backing::Nodes(cluster) => cluster.connect(machine),
        }
    }
}

/// See the file's header.
#[derive(Clone)]
pub(crate) struct Mount {
    pub(crate) number: usize,
    pub(crate) host: Host,
    pub(crate) world: World,
    pub(crate) backing: Backing,
    /// What `sync` promises, the journal keeps.
    pub(crate) write_back: bool,
    /// Its own disk has failed or been full: calls may say so.
    pub(crate) had_bad_disk: Rc<Cell<bool>>,
    /// The process that has it mounted.
    pub(crate) running: Rc<RefCell<Option<Running>>>,
    pub(crate) history: Rc<RefCell<History>>,
    /// Steps that are still to be done, over all lives.
    pub(crate) steps_left: Rc<Cell<u32>>,
    /// It has done all and is closed.
    pub(crate) is_done: Rc<Cell<bool>>,
}

/// A file as a program finds it before it changes it.
struct Seen {
    inode: Inode,
    token: Option<Token>,
    size: u64,
    /// The root that it was seen in.
    version: u64,
}

impl Mount {
    pub(crate) fn keys(&self) -> VolumeKeys {
        VolumeKeys {
            register: self.backing.register(),
            secret: X25519Secret::from_bytes(&[9; 32]),
            readers: Vec::new(),
        }
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::default();
        options.author = format!("machine {}", self.number);
        options.device = self.number as u64 + 1;
        options.journal_directory = Some("/home/journal".into());
        options.write_back = self.write_back;
        options.sync_patience = Duration::from_secs(8);
        options.watch_interval = Some(Duration::from_secs(1));
        // Small enough that files are fetched again, and that commits overlap changes.
        options.cache_bytes = 256 << 10;
        options.dirty_bytes_max = 2 << 20;
        options
    }

    /// Opens the volume, for as long as it takes.
    pub(crate) fn open(&self) -> Rc<Volume> {
        let store = self.backing.connect(self.number);
        loop {
            match Volume::open(store.clone(), self.keys(), self.options()) {
                Ok(volume) => return volume,
                Err(error) => {
                    self.world.tell(|| format!("machine {} cannot open: {error}", self.number));
                    reactor::sleep(Duration::from_secs(2));
                }
            }
        }
    }

    /// The hash of the root as it is stored.
    pub(crate) fn root(&self) -> [u8; 32] {
        let record = self.backing.connect(self.number).read(&self.backing.register()).expect("it reads");
        *blake3::hash(&record.expect("there is one").payload).as_bytes()
    }

    /// Starts a process that mounts, unless there is one or all is done.
    pub(crate) fn start(&self) {
        if self.is_done.get() || self.running.borrow().as_ref().is_some_and(Running::is_running) {
            return;
        }
        let of_life = self.clone();
        *self.running.borrow_mut() = Some(self.host.start(move || of_life.live()));
    }

    /// One life: does what steps are left, then makes all durable and closes.
    fn live(&self) {
        let mut volume = self.open();
        let mut unacknowledged = Unacknowledged::default();
        while self.steps_left.get() > 0 {
            self.steps_left.set(self.steps_left.get() - 1);
            reactor::sleep(Duration::from_millis(u64::from(self.world.choose(700))));
            if self.world.choose(12) == 11 {
                self.unmount(&volume, std::mem::take(&mut unacknowledged));
                volume = self.open();
            } else if let Err(errno) = self.step(&volume, &mut unacknowledged) {
                self.world.tell(|| format!("machine {}: {errno}", self.number));
                let may_fail = errno != Errno::EIO || self.had_bad_disk.get();
                assert!(may_fail, "nothing is damaged, and a call says that something is");
            }
        }
        while let Err(errno) = volume.sync(None, false) {
            self.world.tell(|| format!("machine {} cannot sync: {errno}", self.number));
            reactor::sleep(Duration::from_secs(1));
        }
        self.history.borrow_mut().acknowledge(unacknowledged, self.committed(&volume));
        while !self.unmount(&volume, Unacknowledged::default()) {
            volume = self.open();
        }
        self.is_done.set(true);
    }

    /// Closes, at times without patience; whether the nodes have everything. What waits in the journal is promised too.
    fn unmount(&self, volume: &Rc<Volume>, unacknowledged: Unacknowledged) -> bool {
        if self.world.choose(4) == 3 {
            let of_user = volume.clone();
            let patience = Duration::from_millis(u64::from(self.world.choose(3000)));
            reactor::spawn(move || {
                reactor::sleep(patience);
                of_user.give_up();
            });
        }
        let ending = volume.close();
        self.world.tell(|| format!("machine {} unmounts ({unacknowledged:?}): {ending}", self.number));
        match ending {
            Ending::Stored => {
                self.history.borrow_mut().acknowledge(unacknowledged, Some(volume.version()));
            }
            Ending::InJournal { .. } => self.history.borrow_mut().acknowledge(unacknowledged, None),
            // It was said.
            Ending::Damaged { .. }
            | Ending::JournalDamaged { .. }
            | Ending::Undone { .. }
            | Ending::Lost { .. } => {}
        }
        ending == Ending::Stored
    }

    /// The root that holds all that was synced, if that is known.
    fn committed(&self, volume: &Volume) -> Option<u64> {
        (!self.write_back).then(|| volume.version())
    }

    fn choose<T: Copy>(&self, from: &[T]) -> T {
        from[self.world.choose(from.len() as u32) as usize]
    }

    /// A directory and a name in it.
    fn place(&self, volume: &Volume) -> Result<(Inode, String, &'static str), Errno> {
        let (directory, path) = match self.world.choose(3) {
            0 => (Inode::ROOT, ""),
            1 => (volume.lookup(Inode::ROOT, b"left")?.inode, "/left"),
            _ => (volume.lookup(Inode::ROOT, b"right")?.inode, "/right"),
        };
        let name = self.choose(&NAMES);
        Ok((directory, format!("{path}/{name}"), name))
    }

    fn see(&self, volume: &Volume, directory: Inode, name: &str) -> Result<Option<Seen>, Errno> {
        loop {
            let version = volume.version();
            let attributes = match volume.lookup(directory, name.as_bytes()) {
                Ok(attributes) => attributes,
                Err(Errno::ENOENT) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            if attributes.kind == FileKind::Directory {
                return Err(Errno::EISDIR);
            }
            let token = match held(volume, name, attributes.inode)? {
                Held::Content(token) => Some(token),
                _ => None,
            };
            // Another machine's commit came between the name and the content: look again.
            if volume.version() == version {
                return Ok(Some(Seen { inode: attributes.inode, token, size: attributes.size, version }));
            }
        }
    }

    /// Tells the history what became of what was seen; `new` is in its place, or nothing is.
    fn settle(&self, volume: &Volume, seen: &Seen, new: Option<Token>, unacknowledged: &mut Unacknowledged) {
        let mut history = self.history.borrow_mut();
        let is_as_seen = volume.version() == seen.version;
        match (new, seen.token) {
            (Some(new), _) if !is_as_seen => history.replaced_unseen(new),
            (Some(new), Some(token)) => history.replaced(token, new),
            (None, _) if !is_as_seen => history.removed_unseen(),
            (None, Some(token)) => history.removed(token, unacknowledged),
            (_, None) => {}
        }
    }

    fn step(&self, volume: &Volume, unacknowledged: &mut Unacknowledged) -> Result<(), Errno> {
        let number = self.number;
        match self.world.choose(12) {
            0..=3 => self.overwrite(volume, unacknowledged),
            4 | 5 => self.save_by_rename(volume, unacknowledged),
            6 => self.rename(volume, unacknowledged),
            7 => {
                let (directory, path, name) = self.place(volume)?;
                let Some(seen) = self.see(volume, directory, name)? else { return Ok(()) };
                self.world.tell(|| format!("machine {number} removes {path} ({:?})", seen.token));
                let result = volume.unlink(directory, name.as_bytes());
                self.settle(volume, &seen, None, unacknowledged);
                result
            }
            8 => {
                let (directory, path, name) = self.place(volume)?;
                let Some(seen) = self.see(volume, directory, name)? else { return Ok(()) };
                self.world.tell(|| format!("machine {number} touches {path}"));
                if let Some(token) = seen.token {
                    self.history.borrow_mut().kept(token, unacknowledged);
                }
                let mtime = Time { seconds: i64::from(self.world.choose(1000)), nanoseconds: 0 };
                let changes = SetAttributes { mtime: Some(mtime), ..SetAttributes::default() };
                volume.set_attributes(seen.inode, &changes).map(drop)
            }
            _ => {
                let promised = std::mem::take(unacknowledged);
                let result = volume.sync(None, false);
                match result {
                    Ok(()) => {
                        if !promised.is_empty() {
                            self.world.tell(|| format!("machine {number} has synced {promised:?}"));
                        }
                        self.history.borrow_mut().acknowledge(promised, self.committed(volume));
                    }
                    Err(_) => unacknowledged.join(promised),
                }
                result
            }
        }
    }

    /// Overwrites a file in place with something that is not shorter, in one call; or creates it.
    fn overwrite(&self, volume: &Volume, unacknowledged: &mut Unacknowledged) -> Result<(), Errno> {
        let (directory, path, name) = self.place(volume)?;
        let seen = match self.see(volume, directory, name)? {
            Some(seen) => seen,
            None => {
                let version = volume.version();
                let made =
                    volume.make_node(directory, name.as_bytes(), FileKind::Regular, 0o644, 0, &USER)?;
                Seen { inode: made.inode, token: None, size: 0, version }
            }
        };
        let classes: Vec<u8> = (0..CLASSES as u8).filter(|class| length(*class) >= seen.size).collect();
        if classes.is_empty() {
            return Ok(());
        }
        let class = self.choose(&classes);
        let token = self.history.borrow_mut().write(self.number, volume.version(), unacknowledged);
        self.world
            .tell(|| format!("machine {} writes {token:?} over {:?} in {path}", self.number, seen.token));
        let result = volume.write(seen.inode, 0, &content(token, class), false);
        self.settle(volume, &seen, Some(token), unacknowledged);
        result.inspect_err(|_| unacknowledged.retract(token))
    }

    /// Writes another file and renames it over, as editors do.
    fn save_by_rename(&self, volume: &Volume, unacknowledged: &mut Unacknowledged) -> Result<(), Errno> {
        let (directory, path, name) = self.place(volume)?;
        let class = self.world.choose(CLASSES) as u8;
        let temporary = format!(".{}.{}.swp", self.number, self.steps_left.get());
        let made = volume.make_node(directory, temporary.as_bytes(), FileKind::Regular, 0o644, 0, &USER)?;
        let token = self.history.borrow_mut().write(self.number, volume.version(), unacknowledged);
        let written = volume.write(made.inode, 0, &content(token, class), false);
        written.inspect_err(|_| unacknowledged.retract(token))?;
        let seen = self.see(volume, directory, name)?;
        self.world.tell(|| {
            let before = seen.as_ref().and_then(|seen| seen.token);
            format!("machine {} saves {token:?} over {before:?} in {path}", self.number)
        });
        let version = volume.version();
        let result = volume.rename(
            directory,
            temporary.as_bytes(),
            directory,
            name.as_bytes(),
            RenameFlags::default(),
        );
        match seen {
            Some(seen) => self.settle(volume, &seen, Some(token), unacknowledged),
            None if volume.version() != version => self.history.borrow_mut().replaced_unseen(token),
            None => {}
        }
        result
    }

    fn rename(&self, volume: &Volume, unacknowledged: &mut Unacknowledged) -> Result<(), Errno> {
        let (from, from_path, name) = self.place(volume)?;
        let (to, to_path, new_name) = self.place(volume)?;
        let Some(seen) = self.see(volume, from, name)? else { return Ok(()) };
        let over = self.see(volume, to, new_name)?;
        if over.as_ref().is_some_and(|over| over.inode == seen.inode) {
            return Ok(());
        }
        self.world.tell(|| format!("machine {} renames {from_path} to {to_path}", self.number));
        if let Some(token) = seen.token {
            self.history.borrow_mut().kept(token, unacknowledged);
        }
        let result = volume.rename(from, name.as_bytes(), to, new_name.as_bytes(), RenameFlags::default());
        if volume.version() != seen.version {
            self.history.borrow_mut().removed_unseen();
        } else if let Some(over) = over.and_then(|over| over.token) {
            self.history.borrow_mut().renamed_over(over);
        }
        result
    }
}
