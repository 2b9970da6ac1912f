//! What waits in a journal, opened for reading without the drive: so that it can be had where the nodes do not take it any more.
//!
//! A journal has the changes, and says on which tree they were made and how that is read. So nobody has to be asked for a root, or
//! for leave: what was made here is in it, save what had been sent to nodes by then, and of a file that was there before what of it
//! was changed. The rest of such a file, and the names of what was there before, are in the tree: they are read from whatever store is
//! at hand, as far as
//! that has them. What it has not is said, and nothing is made up for it.
//!
//! The journal may be in use meanwhile, and is left as it is. Of what was being published when a drive was killed it cannot be
//! known here whether a root has it: that is taken for waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dht::BlockStore;

use super::ending::{changed, waiting};
use super::replay::Left as Replayed;
use super::state::{Change, entry_range};
use super::{Options, Volume};
use crate::access::{Charter, Features, VolumeKeys};
use crate::errno::Errno;
use crate::format::{Key, VolumeId};
use crate::journal::{Item, Journal, JournalError};
use crate::operations::{FileKind, Inode, NAME_SIZE_MAX, ReadBytes, Time};

/// What is kept of the tree that was read.
const CACHE_BYTES: usize = 16 << 20;
/// How often it is looked again where whoever uses the journal has just replaced a file of it.
const LOOK_COUNT: usize = 5;
/// A path that is deeper than this is a hostile writer's.
const DEPTH_MAX: usize = 4096;

/// Where something was, within its volume.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LeftPath {
    /// The names from the top down.
    pub names: Vec<Bytes>,
    /// They begin at the top: else what is above the first of them is not known here.
    pub is_whole: bool,
}

/// A file or a directory that waits in a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    /// What it is.
    pub kind: FileKind,
    /// Its number, by which it is read.
    pub inode: Inode,
    /// Its names; none if they are not known here.
    pub paths: Vec<LeftPath>,
    /// Bytes of content.
    pub size_bytes: u64,
    /// The size in which its content is stored, and so in which parts of it may be missing.
    pub frame_size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Its time of modification.
    pub modified: Time,
    /// When it was last changed here.
    pub changed: Time,
    /// It was there before, and got a name here: of such a directory only what was changed in it waits.
    pub is_renamed: bool,
    /// What of it was cut off before is known; else parts that read as content may be none any more.
    pub is_certain: bool,
}

/// What waits in one journal.
pub struct LeftBehind {
    volume: Rc<Volume>,
    /// What waits, in the order of its paths.
    pub all: Vec<Left>,
    /// Names that were removed, or had been renamed.
    pub gone: Vec<LeftPath>,
    /// How much of the journal could not be read: parts of files of it, or things of which nothing more than their number is known.
    pub unread: usize,
}

impl LeftBehind {
    /// Opens what waits in the journal in `directory`, whoever uses it; `None` if nothing does. What `store` has of the tree
    /// below is read from there.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    ///
    /// # Suspends
    ///
    /// While the journal, and some of the tree, is read.
    pub fn open(
        store: Rc<dyn BlockStore>,
        keys: VolumeKeys,
        directory: &Path,
    ) -> Result<Option<LeftBehind>, JournalError> {
        let (replayed, unread) = read(directory, &keys)?;
        if replayed.delta.changes.is_empty() && unread == 0 {
            return Ok(None);
        }
        let charter = Charter {
            volume: replayed.volume.unwrap_or(VolumeId([0; 16])),
            created: Time::now(),
            // Names are found by going through them.
            name_key: [0; 32],
            features: Features::default(),
            readers: Vec::new(),
            extensions: Vec::new(),
        };
        let base = replayed.base().and_then(|base| base.tree);
        // Whoever reads this has waited enough: what the store does not give at once is said to be missing.
        let options = Options {
            cache_bytes: CACHE_BYTES,
            sync_patience: Duration::ZERO,
            read_only: true,
            ..Options::default()
        };
        let volume = match Volume::new(store, keys, options, charter, base) {
            Ok(volume) => volume,
            // It has no journal, which is all that could fail.
            Err(_) => return Ok(None),
        };
        {
            let mut state = volume.state.borrow_mut();
            for (key, change) in replayed.delta.changes {
                state.set(key, change);
            }
            state.active.born = replayed.delta.born;
        }
        let truncations = volume.read_truncations(base);
        let knows_truncations = truncations.is_ok();
        volume.state.borrow_mut().take_truncations(truncations.unwrap_or_default());
        let (mut all, gone, unknown) = volume.left();
        for one in &mut all {
            one.is_certain = knows_truncations || volume.has_all_of(one);
        }
        Ok(Some(LeftBehind { volume, all, gone, unread: unread + unknown }))
    }

    /// Reads a part of a file.
    ///
    /// # Errors
    ///
    /// `EHOSTUNREACH`, `ETIMEDOUT` or `EIO` if not all of it can be had.
    ///
    /// # Suspends
    ///
    /// While it is read.
    pub fn read(&self, inode: Inode, offset: u64, size: u32) -> Result<ReadBytes, Errno> {
        self.volume.read_content(inode.0, offset, size)
    }

    /// Reads where a symbolic link leads.
    ///
    /// # Errors
    ///
    /// As [`LeftBehind::read`].
    ///
    /// # Suspends
    ///
    /// While it is read.
    pub fn read_symlink(&self, inode: Inode) -> Result<Bytes, Errno> {
        self.volume.step(|state| state.read_symlink(inode.0))
    }

    /// How much waits: bytes of changes, and how many files and directories these are about, removed ones too. The same as the end of
    /// the mount told.
    pub fn amount(&self) -> (u64, u64) {
        let state = self.volume.state.borrow();
        waiting(state.active.changes.iter(), |inode| state.active.born.contains(inode))
    }

    /// Whether anything with extended attributes waits: they are not shown here.
    pub fn has_attributes(&self) -> bool {
        let state = self.volume.state.borrow();
        state
            .active
            .changes
            .iter()
            .any(|(key, change)| matches!((key, change), (Key::Xattr(..), Change::Xattr(_))))
    }
}

/// Reads a journal that others may be writing.
fn read(directory: &Path, keys: &VolumeKeys) -> Result<(Replayed, usize), JournalError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let journal = Journal::look(directory, keys)?;
        // What a root has for certain is known only at the end: hence twice.
        let (mut published, mut left) = (Published::default(), Replayed::default());
        let replayed = replay(&journal, |item| published.take(&item))
            .and_then(|()| replay(&journal, |item| left.take(item, published.number)));
        match replayed {
            // It was replaced by a newer one.
            Err(JournalError::Io(_, error))
                if error.kind() == io::ErrorKind::NotFound && tries < LOOK_COUNT => {}
            Err(error) => return Err(error),
            // Of a file that is not there it is known only to whoever has a root whether it has served.
            Ok(()) => {
                let is_cut = journal.unread() == 0 && journal.lacking().is_some_and(|lacking| lacking.is_cut);
                return Ok((left, journal.unread() + usize::from(is_cut)));
            }
        }
    }
}

fn replay(journal: &Journal, mut take: impl FnMut(Item)) -> Result<(), JournalError> {
    journal.replay(|items| {
        items.into_iter().for_each(&mut take);
        Ok(())
    })
}

/// Up to which number a root has what the last session in a journal changed.
#[derive(Default)]
struct Published {
    number: u64,
    /// The item before was a base: one that follows it is of a root that was only announced.
    follows_base: bool,
}

impl Published {
    fn take(&mut self, item: &Item) {
        let follows_base = std::mem::replace(&mut self.follows_base, matches!(item, Item::Base { .. }));
        match item {
            Item::Snapshot { .. } => self.number = 0,
            Item::Base { number, .. } if !follows_base => self.number = self.number.max(*number),
            _ => {}
        }
    }
}

impl Volume {
    /// Returns what is changed, what names are gone, and of how many things nothing can be said.
    fn left(&self) -> (Vec<Left>, Vec<LeftPath>, usize) {
        let mut named: BTreeMap<u64, Vec<(u64, Bytes)>> = BTreeMap::new();
        let (mut gone, mut inodes) = (Vec::new(), BTreeSet::new());
        {
            let state = self.state.borrow();
            let changes = &state.active.changes;
            let is_born = |inode| state.active.born.contains(inode);
            inodes.extend(changed(changes.keys(), is_born));
            for (key, change) in changes {
                match (key, change) {
                    (Key::Entry(directory, _, name), Change::Entry(entry)) => {
                        inodes.insert(entry.inode);
                        named.entry(entry.inode).or_default().push((*directory, name.clone()));
                    }
                    (Key::Entry(directory, _, name), Change::Removed) => {
                        gone.push((*directory, name.clone()))
                    }
                    _ => {}
                }
            }
        }
        let mut paths = Paths { volume: self, named, known: HashMap::new() };
        let (mut all, mut unknown) = (Vec::new(), 0);
        for inode in inodes {
            match self.left_of(inode, &mut paths) {
                Ok(left) => all.extend(left),
                Err(_) => unknown += 1,
            }
        }
        all.sort_by(|one: &Left, other| one.paths.cmp(&other.paths));
        let gone: BTreeSet<_> =
            gone.into_iter().map(|(directory, name)| paths.below(directory, name)).collect();
        (all, gone.into_iter().collect(), unknown)
    }

    /// `None` if it is gone.
    fn left_of(&self, inode: u64, paths: &mut Paths<'_>) -> Result<Option<Left>, Errno> {
        let record = match self.step(|state| state.record(inode)) {
            Err(Errno::ENOENT) => return Ok(None),
            record => record?,
        };
        if record.nlink == 0 {
            return Ok(None);
        }
        Ok(Some(Left {
            kind: record.kind,
            inode: Inode(inode),
            paths: paths.of(inode, record.parent),
            size_bytes: if record.kind == FileKind::Regular { record.size } else { 0 },
            frame_size_bytes: record.frame_size(),
            mode: record.mode,
            modified: record.mtime,
            changed: record.ctime,
            is_renamed: paths.named.contains_key(&inode) && !self.state.borrow().active.born.contains(inode),
            is_certain: true,
        }))
    }

    /// Whether the tree is asked for nothing of a file's content.
    fn has_all_of(&self, one: &Left) -> bool {
        let state = self.state.borrow();
        let end = one.size_bytes.div_ceil(one.frame_size_bytes);
        let changed = state.active.changes.range(Key::Extent(one.inode.0, 0)..Key::Extent(one.inode.0, end));
        state.active.born.contains(one.inode.0) || changed.count() as u64 == end
    }
}

/// Finds out what things are called.
struct Paths<'a> {
    volume: &'a Volume,
    /// The names that were given here.
    named: BTreeMap<u64, Vec<(u64, Bytes)>>,
    /// Of directories.
    known: HashMap<u64, LeftPath>,
}

impl Paths<'_> {
    /// The names of what was last named in `parent`.
    fn of(&mut self, inode: u64, parent: u64) -> Vec<LeftPath> {
        if inode == Inode::ROOT.0 {
            return vec![LeftPath { names: Vec::new(), is_whole: true }];
        }
        let names = match self.named.get(&inode) {
            Some(names) => names.clone(),
            None => self.name_in(parent, inode).map(|name| (parent, name)).into_iter().collect(),
        };
        let is_name = |(_, name): &(u64, Bytes)| is_name(name);
        names.into_iter().filter(is_name).map(|(directory, name)| self.below(directory, name)).collect()
    }

    /// The path of `name` in a directory.
    fn below(&mut self, directory: u64, name: Bytes) -> LeftPath {
        let mut path = self.of_directory(directory);
        path.names.push(name);
        path
    }

    fn of_directory(&mut self, directory: u64) -> LeftPath {
        let (mut above, mut seen) = (directory, HashSet::new());
        // From it up to one whose path is known.
        let mut names = Vec::new();
        let mut found = loop {
            if above == Inode::ROOT.0 {
                break LeftPath { names: Vec::new(), is_whole: true };
            }
            if let Some(known) = self.known.get(&above) {
                break known.clone();
            }
            let found = self.name_of_directory(above);
            let is_lost = !seen.insert(above) || names.len() >= DEPTH_MAX;
            match found.filter(|(_, name)| !is_lost && is_name(name)) {
                Some((parent, name)) => {
                    names.push(name);
                    above = parent;
                }
                None => break LeftPath { names: Vec::new(), is_whole: false },
            }
        };
        found.names.extend(names.into_iter().rev());
        self.known.insert(directory, found.clone());
        found
    }

    /// The directory that a directory is in, and its name there.
    fn name_of_directory(&self, inode: u64) -> Option<(u64, Bytes)> {
        if let Some(name) = self.named.get(&inode).and_then(|names| names.first()) {
            return Some(name.clone());
        }
        let parent = self.volume.step(|state| state.record(inode)).ok()?.parent;
        Some((parent, self.name_in(parent, inode)?))
    }

    /// What `inode` is called in a directory, if that can be read.
    fn name_in(&self, directory: u64, inode: u64) -> Option<Bytes> {
        let (mut from, end) = entry_range(directory);
        while let Ok(Some((key, change))) = self.volume.step(|state| state.next(&from, &end)) {
            from = key.successor();
            if let (Key::Entry(_, _, name), Change::Entry(entry)) = (key, change)
                && entry.inode == inode
            {
                return Some(name);
            }
        }
        None
    }
}

/// Whether it is a name that a file can have: whoever writes the volume says what is in it.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_SIZE_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}
