//! What is changed and has no close is in the journal when it is answered, whoever else is there: a process that is killed then
//! loses nothing of it, nor of what was done before it.
//!
//! What went wrong: only a close wrote to the journal. A rename, a removal, a new name, a mode, a length was in memory alone
//! for up to a second after it was answered.

mod common;

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use dht::{
    Address, BlockStore, GetError, HeaderHash, OwnerTag, PutError, ReadError, Record, RegisterAddress,
    SwapError, Usage,
};
use filesystem::operations::{AllocateMode, FileKind, RenameFlags, SetAttributes, Sharing, XattrMode};
use filesystem::{Attributes, Inode, Operations, Options, Volume};

fn options_with(author: &str, journal: &Path, write_back: bool) -> Options {
    let mut options = options(author);
    options.journal_directory = Some(journal.into());
    options.write_back = write_back;
    options.watch_interval = Some(Duration::from_millis(100));
    options.sync_patience = Duration::from_secs(60);
    options
}

/// The nodes as they are, which take nothing: who is looked at here must not publish what another still changes.
struct Frozen(Rc<TestStore>);

impl BlockStore for Frozen {
    fn tag(&self) -> OwnerTag {
        self.0.tag()
    }

    fn put(&self, _: Bytes) -> Result<Address, PutError> {
        Err(PutError::NoQuorum { durable: 0, needed: 1, reason: "they are frozen".into() })
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        self.0.memory.get(address, range)
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        self.0.memory.read(register)
    }

    fn compare_and_swap(
        &self,
        _: &RegisterAddress,
        _: Option<HeaderHash>,
        _: Bytes,
    ) -> Result<Record, SwapError> {
        Err(SwapError::Unknown { reason: "they are frozen".into() })
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        self.0.memory.usage()
    }
}

/// What the next start shows if the process is killed now, and the machine runs on.
fn after_a_kill(store: &Rc<TestStore>, journal: &Path) -> Vec<String> {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(journal).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let mut options = options("first");
    options.journal_directory = Some(copy.path().into());
    let volume = Volume::open(Rc::new(Frozen(store.clone())), keys(store), options).unwrap();
    let shown = seen(&volume, ROOT);
    volume.give_up();
    let _ = volume.close();
    shown
}

/// All that can be seen from the root on.
fn seen(volume: &Volume, directory: Inode) -> Vec<String> {
    let mut all = Vec::new();
    for name in names(volume, directory) {
        let found = volume.lookup(directory, name.as_bytes()).unwrap();
        let xattr = volume.get_xattr(found.inode, b"user.note").ok();
        let Attributes { kind, mode, nlink, size, blocks_512, mtime, .. } = found;
        all.push(format!("{name}: {kind:?} {mode:o} {nlink} {size} {blocks_512} {mtime:?} {xattr:?}"));
        match kind {
            FileKind::Directory => all.extend(seen(volume, found.inode)),
            FileKind::Regular => {
                all.push(format!("{}", blake3::hash(&read_file(volume, found.inode))));
            }
            _ => {}
        }
    }
    all
}

type Change = (&'static str, fn(&Volume, Inode));

fn set(volume: &Volume, file: Inode, change: impl FnOnce(&mut SetAttributes)) {
    let mut changes = SetAttributes::default();
    change(&mut changes);
    volume.set_attributes(file, &changes).unwrap();
}

/// Each on top of those before; `file` is open and written, and nobody closes it.
fn changes() -> Vec<Change> {
    vec![
        ("make a directory", |volume, _| {
            volume.make_directory(ROOT, b"d", 0o755, &USER).unwrap();
        }),
        ("make a file", |volume, _| {
            make_file(volume, ROOT, "other");
        }),
        ("make a link", |volume, _| {
            volume.make_symlink(ROOT, b"l", b"where", &USER).unwrap();
        }),
        ("give a name", |volume, file| {
            volume.link(file, ROOT, b"second").unwrap();
        }),
        ("rename", |volume, _| {
            volume.rename(ROOT, b"second", ROOT, b"third", RenameFlags::default()).unwrap()
        }),
        ("rename over another", |volume, _| {
            volume.write(volume.lookup(ROOT, b"other").unwrap().inode, 0, b"new", false).unwrap();
            volume.rename(ROOT, b"other", ROOT, b"third", RenameFlags::default()).unwrap();
        }),
        ("cut", |volume, file| set(volume, file, |changes| changes.size = Some(3))),
        ("lengthen", |volume, file| set(volume, file, |changes| changes.size = Some(70_000))),
        ("empty", |volume, file| set(volume, file, |changes| changes.size = Some(0))),
        ("allocate", |volume, file| volume.allocate(file, AllocateMode::default(), 0, 5000).unwrap()),
        ("change the mode", |volume, file| set(volume, file, |changes| changes.mode = Some(0o600))),
        ("set an attribute", |volume, file| {
            volume.set_xattr(file, b"user.note", b"x", XattrMode::Set).unwrap();
        }),
        ("remove an attribute", |volume, file| volume.remove_xattr(file, b"user.note").unwrap()),
        ("remove a file", |volume, _| volume.unlink(ROOT, b"third").unwrap()),
        ("remove a directory", |volume, _| volume.remove_directory(ROOT, b"d").unwrap()),
    ]
}

fn story(write_back: bool, sharing: Sharing) {
    reactor::run(|| {
        let store = TestStore::new();
        let journal = tempfile::tempdir().unwrap();
        let options = options_with("first", journal.path(), write_back);
        let volume = Volume::create(store.clone(), keys(&store), options, (0, 0)).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let other = (sharing == Sharing::WithOthers).then(|| {
            let options = options_with("second", elsewhere.path(), write_back);
            Volume::open(store.clone(), keys(&store), options).unwrap()
        });
        while volume.sharing() != sharing {
            reactor::sleep(Duration::from_millis(20));
        }
        let file = write_file(&volume, ROOT, "file", b"written and open");
        for (name, change) in changes() {
            change(&volume, file);
            assert_eq!(volume.sharing(), sharing);
            let found = after_a_kill(&store, journal.path());
            assert_eq!(found, seen(&volume, ROOT), "after this was answered: {name}");
        }
        if let Some(other) = other {
            let _ = other.close();
        }
        volume.close().stored().unwrap();
    });
}

#[test]
fn where_nobody_else_is() {
    story(false, Sharing::Leased);
}

#[test]
fn with_write_back() {
    story(true, Sharing::Leased);
}

#[test]
fn beside_another_mount() {
    story(false, Sharing::WithOthers);
}

#[test]
fn beside_another_mount_with_write_back() {
    story(true, Sharing::WithOthers);
}

#[test]
fn what_neither_the_nodes_nor_the_journal_take_is_not_said_to_be_done() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let mut options = options_with("first", directory.path(), false);
        options.sync_patience = Duration::from_millis(300);
        let volume = Volume::create(store.clone(), keys(&store), options, (0, 0)).unwrap();
        let file = write_file(&volume, ROOT, "old", b"content");
        volume.sync(None, false).unwrap();
        store.budget.set(0);
        let moved = directory.path().with_extension("away");
        std::fs::rename(directory.path(), &moved).unwrap();
        volume.write(file, 0, b"changed", false).unwrap();
        // From here on it is in doubt whether the nodes take anything, and not yet known.
        volume.sync(Some(file), false).unwrap_err();
        let rename = || volume.rename(ROOT, b"old", ROOT, b"new", RenameFlags::default());
        rename().expect_err("it is in memory only");
        std::fs::rename(&moved, directory.path()).unwrap();
        volume.rename(ROOT, b"new", ROOT, b"newer", RenameFlags::default()).unwrap();
        assert!(after_a_kill(&store, directory.path())[0].starts_with("newer: "));
        volume.give_up();
        let _ = volume.close();
    });
}
