//! What a volume knows in memory: the committed root, and the changes on top of it.
//!
//! Three layers answer every question, newest first: the *active* delta takes new changes; the *committing* one, if there
//! is one, is being written and does not change; below is the tree. A removal in an upper layer hides what is below.
//!
//! **Nothing here suspends.** A file operation is one call of a closure over this state. If it needs a node or a frame
//! that is not in memory it returns [`Stop`] before it changes anything; the caller fetches and calls again. So every
//! operation is atomic for every other coroutine and for a commit, with no lock at all; and it never waits if all is here.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use dht::HeaderHash;

use super::aliases::Aliases;
use super::born::{Born, random_start};
use super::cause::Cause;
use super::doubt::Doubt;
use super::durability::Durability;
use super::passed::Passed;
use super::recent::RecentRecords;
use super::values::decode_value;
use crate::access::Charter;
use crate::cache::{Cache, NumberMap};
use crate::errno::Errno;
use crate::format::{
    EntryRecord, InodeRecord, Key, KeyBytes, NAME_HASH_BITS, ObjectChanges, ObjectRecord, Orphan, Pointer,
    SessionRecord, SnapshotRecord, Truncation, WriterRecord,
};
use crate::operations::{FileKind, Inode, NAME_SIZE_MAX, Time};
use crate::tree::cursor;

/// How long what is open here without a name is ours, if we do not say so again: an hour, so that a machine may sleep a
/// little, and what a dead one had open is not kept for long.
pub(crate) const ORPHAN_LEASE_SECONDS: i64 = 3600;

/// What one key is changed to.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Removed,
    Inode(InodeRecord),
    Entry(EntryRecord),
    /// A frame's plaintext; what is missing up to the frame's or the file's end is zeros.
    Frame(Bytes),
    /// A frame that is stored. Only found in the tree.
    Stored(Pointer),
    Xattr(Bytes),
    Orphan(Orphan),
    Truncation(Truncation),
    Snapshot(SnapshotRecord),
    Writer(WriterRecord),
    /// Only found in the tree: commits keep it.
    Object(ObjectRecord),
    Session(SessionRecord),
}

impl Change {
    /// What it is for whoever waits until it is stored: that nodes have been sent a part, and only where is held here, is no less.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let sent = if let Change::Stored(pointer) = self { u64::from(pointer.size) } else { 0 };
        self.size_bytes() as u64 + sent
    }

    pub(crate) fn size_bytes(&self) -> usize {
        // Key, tree slot and record: about this much.
        160 + match self {
            Change::Frame(bytes) | Change::Xattr(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// Changes that one commit will publish together.
#[derive(Default, Clone, Debug)]
pub(crate) struct Delta {
    pub(crate) changes: BTreeMap<Key, Change>,
    pub(crate) size_bytes: usize,
    /// The number of its newest change.
    pub(crate) number: u64,
    /// Of each file whose content is changed here, whether all of it was appended with `O_APPEND`: then, and only then, a merge moves it
    /// behind what another appended.
    pub(crate) appended: HashMap<u64, bool>,
    /// The inodes that were made in it: no tree has them.
    pub(crate) born: Born,
    /// The inodes of which it takes away what is left: they had neither a name nor a reference any more, and up to this number
    /// that is told.
    pub(crate) swept: BTreeMap<u64, u64>,
}

impl Delta {
    pub(crate) fn insert(&mut self, key: Key, change: Change) {
        self.size_bytes += change.size_bytes();
        if let Some(old) = self.changes.insert(key, change) {
            self.size_bytes -= old.size_bytes();
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Change> {
        let old = self.changes.remove(key)?;
        self.size_bytes -= old.size_bytes();
        Some(old)
    }
}

/// Why an operation on the state did not go through; it has changed nothing.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The answer is this error.
    Errno(Errno),
    /// Fetch this node and ask again.
    Node(Box<Pointer>),
    /// Fetch this frame and ask again.
    Frame(Box<Pointer>),
    /// A merge is under way: wait for its end and ask again.
    Merging,
    /// Remove the dead frames of this inode below this one, and ask again.
    Dead(u64, u64),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}

impl From<cursor::Stop> for Stop {
    fn from(stop: cursor::Stop) -> Stop {
        match stop {
            cursor::Stop::Missing(pointer) => Stop::Node(pointer),
            cursor::Stop::Malformed => Stop::Errno(Errno::EIO),
        }
    }
}

pub(crate) type Step<T> = Result<T, Stop>;

/// A root that may have been published: no answer has come yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) number: u64,
    pub(crate) tree: Option<Pointer>,
}

/// See the file's header.
pub(crate) struct State {
    pub(crate) tree: Option<Pointer>,
    /// What the records of objects in `tree` do not say yet.
    pub(crate) objects: ObjectChanges,
    /// The register's value that `tree` came from.
    pub(crate) header: Option<HeaderHash>,
    /// What each root repeats.
    pub(crate) charter: Charter,
    pub(crate) active: Delta,
    pub(crate) committing: Option<Rc<Delta>>,
    pub(crate) cache: Cache,
    /// The kernel's references.
    pub(crate) references: NumberMap<u64, u64>,
    /// Of these it may know a name that leads elsewhere now, or old rights: another mount changed them.
    pub(crate) moved: HashSet<u64>,
    /// The regular files, as the kernel numbers them, that were made or written since a descriptor of theirs was closed last.
    pub(crate) unclosed: HashSet<Inode>,
    /// Inodes without names and references, to be removed.
    pub(crate) reclaim: VecDeque<u64>,
    /// The truncations that are under way, as their records have it.
    pub(crate) truncations: NumberMap<u64, Truncation>,
    /// Where each recently read file was read up to.
    pub(crate) read_positions: HashMap<u64, super::content::ReadPosition>,
    pub(crate) durability: Durability,
    /// The commit that is being published.
    pub(crate) attempt: Option<Attempt>,
    /// Counts changes.
    edits: u64,
    passed: Passed,
    recent: RecentRecords,
    /// The number of the next inode that is made.
    pub(crate) next_inode: u64,
    /// It was told that another has the number of one.
    pub(crate) is_number_told: Cell<bool>,
    pub(crate) device: u64,
    /// Who changes content here, as its versions say: one opening of the volume.
    pub(crate) session: u64,
    /// The greatest count that it gave to a version: it gives none twice, whatever a merge makes of a file meanwhile.
    pub(crate) content_counter: u64,
    pub(crate) read_only: bool,
    /// Why nothing is taken from this user any more, if so.
    pub(crate) shut: Option<Cause>,
    /// Which inodes the kernel knows under other numbers.
    pub(crate) aliases: Aliases,
    /// What others removed and is open here, with the tree that still has it.
    pub(crate) ghosts: NumberMap<u64, Pointer>,
    /// What may have been deleted of what is in all these.
    pub(crate) doubt: Doubt,
}

impl State {
    pub(crate) fn new(
        cache_size_bytes: usize,
        charter: Charter,
        (device, session): (u64, u64),
        durability: Durability,
    ) -> State {
        State {
            tree: None,
            objects: ObjectChanges::default(),
            header: None,
            charter,
            active: Delta::default(),
            committing: None,
            cache: Cache::new(cache_size_bytes),
            references: NumberMap::default(),
            moved: HashSet::new(),
            unclosed: HashSet::new(),
            reclaim: VecDeque::new(),
            truncations: NumberMap::default(),
            read_positions: HashMap::new(),
            durability,
            attempt: None,
            edits: 0,
            passed: Passed::default(),
            recent: RecentRecords::default(),
            next_inode: random_start(),
            is_number_told: Cell::new(false),
            device,
            session,
            content_counter: 0,
            read_only: false,
            shut: None,
            aliases: Aliases::default(),
            ghosts: NumberMap::default(),
            doubt: Doubt::default(),
        }
    }

    /// Returns the inode that the kernel means.
    pub(crate) fn at(&self, number: Inode) -> u64 {
        self.aliases.inode(number.0)
    }

    /// Returns the bytes that wait for a commit.
    pub(crate) fn dirty_bytes(&self) -> usize {
        self.active.size_bytes + self.committing.as_ref().map_or(0, |delta| delta.size_bytes)
    }

    /// Whether there are changes that are not committed.
    pub(crate) fn has_changes(&self) -> bool {
        let committing = self.committing.as_ref().is_some_and(|delta| !delta.changes.is_empty());
        committing || !self.active.changes.is_empty()
    }

    /// Counts the changes since the volume was opened.
    pub(crate) fn edits(&self) -> u64 {
        self.edits
    }

    /// Changes `key` in the active delta.
    pub(crate) fn set(&mut self, key: Key, change: Change) {
        self.active.number = self.durability.on_change(&key);
        self.edits += 1;
        self.active.insert(key, change);
    }

    /// As [`State::set`], of what the journal has. How a content came to be changed it does not say: not by appending alone, for all that
    /// is known, whatever comes behind it now.
    pub(crate) fn set_replayed(&mut self, key: Key, change: Change) {
        if let (Key::Inode(inode), Change::Inode(_)) = (&key, &change) {
            self.active.appended.insert(*inode, false);
        }
        self.set(key, change);
    }

    /// Takes the active delta away to be committed; new changes go to the next.
    pub(crate) fn take_delta(&mut self) -> Rc<Delta> {
        debug_assert!(self.committing.is_none(), "one commit at a time");
        // Its own number, even if it is a delta that was given back: each root names another.
        let number = self.durability.draw();
        let delta = Rc::new(Delta { number, ..std::mem::take(&mut self.active) });
        self.committing = Some(delta.clone());
        delta
    }

    /// Puts what was to be committed back below the newer changes: nothing of it was published.
    pub(crate) fn give_back(&mut self) {
        let Some(delta) = self.committing.take() else { return };
        let newer = std::mem::replace(&mut self.active, Rc::unwrap_or_clone(delta));
        self.active.number = newer.number.max(self.active.number);
        for (key, change) in newer.changes {
            self.active.insert(key, change);
        }
        for (inode, only) in newer.appended {
            *self.active.appended.entry(inode).or_insert(true) &= only;
        }
        self.active.born.add_all(&newer.born);
        for (inode, told) in newer.swept {
            self.active.swept.entry(inode).or_insert(told);
        }
    }

    pub(crate) fn set_record(&mut self, inode: u64, record: InodeRecord) {
        self.set(Key::Inode(inode), Change::Inode(record));
    }

    /// Returns what `key` is in the layer that knows it first; `None` if it is nowhere.
    pub(crate) fn get(&mut self, key: &Key) -> Step<Option<Change>> {
        let change = self
            .active
            .changes
            .get(key)
            .or_else(|| self.committing.as_ref().and_then(|delta| delta.changes.get(key)));
        match change {
            Some(Change::Removed) => Ok(None),
            Some(change) => Ok(Some(change.clone())),
            None => self.get_stored(key),
        }
    }

    /// Returns what `key` is in the tree.
    pub(crate) fn get_stored(&mut self, key: &Key) -> Step<Option<Change>> {
        let Some(tree) = self.tree_of(key) else { return Ok(None) };
        self.get_in(&tree, key)
    }

    /// Returns what `key` is in the tree at `tree`.
    pub(crate) fn get_in(&mut self, tree: &Pointer, key: &Key) -> Step<Option<Change>> {
        if let Key::Inode(inode) = key
            && let Some(record) = self.recent.get(tree, *inode)
        {
            return Ok(Some(Change::Inode(record.clone())));
        }
        let cache = &mut self.cache;
        let found = cursor::get(tree, &key.encode(), |pointer| cache.node(pointer))?;
        let value = found.map(|found| decode_value(key, &found)).transpose()?;
        if let (Key::Inode(inode), Some(Change::Inode(record))) = (key, &value) {
            self.recent.remember(tree, *inode, record);
        }
        Ok(value)
    }

    /// Returns the first key in `from..end` that is not removed, with its value.
    ///
    /// Keys that are removed, and not yet from the tree, are passed over. Where that stops for a node, the next try goes on
    /// from there: else a run of them whose leaves do not fit the cache would never be passed.
    pub(crate) fn next(&mut self, from: &Key, end: &Key) -> Step<Option<(Key, Change)>> {
        let start = from;
        let mut from = self.passed.reached(self.edits, self.tree, start).unwrap_or(start).clone();
        loop {
            if from >= *end {
                return Ok(None);
            }
            if self.is_removed(&from) {
                from = from.successor();
                continue;
            }
            let range = || from.clone()..end.clone();
            let active = self.active.changes.range(range()).next();
            let committing = self.committing.as_ref().and_then(|delta| delta.changes.range(range()).next());
            let upper = match (active, committing) {
                (Some(a), Some(c)) => Some(if c.0 < a.0 { c } else { a }),
                (a, c) => a.or(c),
            };
            let upper = upper.map(|(key, change)| (key.clone(), change.clone()));
            let stored = match self.tree_of(&from).map(|tree| self.next_in(&tree, &from, end)) {
                None => None,
                Some(Ok(stored)) => stored,
                Some(Err(stop)) => {
                    if from != *start {
                        self.passed.note(self.edits, self.tree, start.clone(), from);
                    }
                    return Err(stop);
                }
            };
            match (upper, stored) {
                (None, stored) => return Ok(stored),
                (Some((key, _)), Some(stored)) if stored.0 < key => return Ok(Some(stored)),
                (Some((key, Change::Removed)), _) => from = key.successor(),
                (upper, _) => return Ok(upper),
            }
        }
    }

    fn is_removed(&self, key: &Key) -> bool {
        let change = self.active.changes.get(key);
        let change = change.or_else(|| self.committing.as_ref().and_then(|delta| delta.changes.get(key)));
        matches!(change, Some(Change::Removed))
    }

    /// Returns the first key in `from..end` of the tree at `tree`.
    pub(crate) fn next_in(&mut self, tree: &Pointer, from: &Key, end: &Key) -> Step<Option<(Key, Change)>> {
        let cache = &mut self.cache;
        let mut from = from.encode();
        let end = end.encode();
        loop {
            let Some(found) = cursor::first_in(tree, &from, &end, |pointer| cache.node(pointer))? else {
                return Ok(None);
            };
            let bytes = found.key();
            if Key::is_of_unknown_kind(&bytes) {
                // A later version's: it stays where it is, and is none of ours.
                from = KeyBytes::from_slice(&bytes);
                from.push(0);
                continue;
            }
            let key = Key::decode(&bytes).ok_or(Errno::EIO)?;
            let value = decode_value(&key, &found)?;
            return Ok(Some((key, value)));
        }
    }

    /// Returns an inode's record.
    pub(crate) fn record(&mut self, inode: u64) -> Step<InodeRecord> {
        match self.get(&Key::Inode(inode))? {
            Some(Change::Inode(mut record)) => {
                if self.ghosts.contains_key(&inode) {
                    record.nlink = 0;
                }
                Ok(record)
            }
            None => Err(Errno::ENOENT.into()),
            Some(_) => Err(Errno::EIO.into()),
        }
    }

    /// Returns the record of a directory that is not removed.
    pub(crate) fn directory(&mut self, inode: u64) -> Step<InodeRecord> {
        let record = self.record(inode)?;
        if record.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        if record.nlink == 0 { Err(Errno::ENOENT.into()) } else { Ok(record) }
    }

    /// Returns the key of `name` in `directory`.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG`; `EINVAL` for what is no name.
    pub(crate) fn entry_key(&self, directory: u64, name: &[u8]) -> Result<Key, Errno> {
        if name.len() > NAME_SIZE_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err(Errno::EINVAL);
        }
        Ok(Key::Entry(directory, self.name_hash(name), Bytes::copy_from_slice(name)))
    }

    fn name_hash(&self, name: &[u8]) -> u64 {
        let hash = blake3::keyed_hash(&self.charter.name_key, name);
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> (64 - NAME_HASH_BITS)
    }

    /// Returns what a key made by [`State::entry_key`] names.
    pub(crate) fn entry(&mut self, key: &Key) -> Step<Option<EntryRecord>> {
        match self.get(key)? {
            None => Ok(None),
            Some(Change::Entry(entry)) => Ok(Some(entry)),
            Some(_) => Err(Errno::EIO.into()),
        }
    }

    /// As [`State::entry`], for what is to be used: it has to be there, and of a kind that this version knows.
    pub(crate) fn known_entry(&mut self, key: &Key) -> Step<EntryRecord> {
        let entry = self.entry(key)?.ok_or(Errno::ENOENT)?;
        // A link to another volume, say: whatever we did to it would be wrong.
        if entry.kind == FileKind::Unknown { Err(Errno::EOPNOTSUPP.into()) } else { Ok(entry) }
    }

    /// Why nothing is taken, where the last try failed with `errno`.
    pub(crate) fn cause(&self, errno: Errno) -> Cause {
        self.shut.unwrap_or_else(|| Cause::of(errno))
    }

    /// Refuses changes on a volume that takes none, also those that would make room.
    pub(crate) fn changeable(&self) -> Result<(), Errno> {
        match (self.shut, self.read_only) {
            (Some(cause), _) => Err(cause.errno()),
            (None, true) => Err(Errno::EROFS),
            _ => Ok(()),
        }
    }

    /// Refuses changes on a volume that can't take them.
    pub(crate) fn writable(&self) -> Result<(), Errno> {
        self.changeable()?;
        match self.durability.trouble() {
            Some(trouble) if trouble.errno == Errno::ENOSPC => Err(Errno::ENOSPC),
            _ => Ok(()),
        }
    }

    /// Returns the record of what is open here without a name since `since`.
    pub(crate) fn orphan_record(&self, since: Time) -> Orphan {
        let lease_seconds = Time::now().seconds + ORPHAN_LEASE_SECONDS;
        Orphan { device: self.device, since_seconds: since.seconds, lease_seconds }
    }

    /// Notes that `inode` lost its last name: it lives as long as the kernel refers to it.
    pub(crate) fn orphan(&mut self, inode: u64, now: Time) {
        self.set(Key::Orphan(inode), Change::Orphan(self.orphan_record(now)));
        if !self.references.contains_key(&inode) {
            self.reclaim.push_back(inode);
        }
    }
}

/// Returns the range of a directory's entries.
pub(crate) fn entry_range(directory: u64) -> (Key, Key) {
    (Key::Entry(directory, 0, Bytes::new()), Key::Entry(directory, u64::MAX, Bytes::new()))
}

/// Returns the range of a file's frames from `first` on.
pub(crate) fn extent_range(inode: u64, first: u64) -> (Key, Key) {
    (Key::Extent(inode, first), Key::Extent(inode, u64::MAX))
}

/// Returns the range of a node's extended attributes.
pub(crate) fn xattr_range(inode: u64) -> (Key, Key) {
    (Key::Xattr(inode, Bytes::new()), Key::Entry(inode, 0, Bytes::new()))
}
