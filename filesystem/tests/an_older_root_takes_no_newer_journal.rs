//! A machine is killed a moment after a commit, and begins without its nodes: the root that it has kept is older than the one which
//! its journal's changes were made on.
//!
//! What went wrong: the replay put them on top of that root all the same, as if it were the newer one. So what the root
//! in between had made was taken for removed by somebody, and what it had changed for changed back: files that were removed were there
//! again, modes were lost, and a file was put together from two states. And the journal was written anew by that.

mod common;

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use common::kept::Kept;
use common::*;
use dht::BlockStore;
use filesystem::operations::{FileKind, RenameFlags, SetAttributes};
use filesystem::{Ending, Inode, OpenError, Operations, Options, Volume};

fn options_with(journal: &Path) -> Options {
    let mut options = options("laptop");
    options.journal_directory = Some(journal.into());
    options.write_back = true;
    options.commit_interval = Duration::from_millis(10);
    options.sync_patience = Duration::from_millis(100);
    options
}

/// All that is to be seen: names, what they are, their modes and contents.
fn seen(volume: &Rc<Volume>) -> Vec<(String, FileKind, u32, u32, Vec<u8>)> {
    let shown = |name: String| {
        let found = volume.lookup(ROOT, name.as_bytes()).unwrap();
        let is_file = found.kind == FileKind::Regular;
        let content = if is_file { read_file(volume, found.inode) } else { Vec::new() };
        (name, found.kind, found.mode, found.nlink, content)
    };
    names(volume, ROOT).into_iter().map(shown).collect()
}

fn set_mode(volume: &Volume, inode: Inode, mode: u32) {
    let change = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
    volume.set_attributes(inode, &change).unwrap();
}

fn copied(journal: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(journal).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn a_journal_is_put_on_the_root_that_it_stands_on_or_on_a_newer_one() {
    reactor::run(|| {
        let (store, directory) = (TestStore::new(), tempfile::tempdir().unwrap());
        create(&store).close().stored().unwrap();
        let volume = Volume::open(store.clone(), keys(&store), options_with(directory.path())).unwrap();
        let in_place = write_file(&volume, ROOT, "in place", &[b'.'; 300_000]);
        let appended = write_file(&volume, ROOT, "appended", b"one ");
        let settled = || {
            while volume.pending().bytes > 0 {
                reactor::sleep(Duration::from_millis(5));
            }
            store.read(&keys(&store).register).unwrap().unwrap()
        };
        let older = settled();

        // What is committed, and of which no root is kept.
        write_file(&volume, ROOT, "lock", b"");
        let made = write_file(&volume, ROOT, "made", b"made");
        volume.make_directory(ROOT, b"directory", 0o755, &USER).unwrap();
        write_file(&volume, ROOT, "from", b"moved");
        volume.write(in_place, 1 << 16, &[b'a'; 100], false).unwrap();
        volume.write(appended, 4, b"two ", false).unwrap();
        let newer = settled();
        assert!(newer.version > older.version);

        // What only the journal has.
        store.budget.set(0);
        volume.unlink(ROOT, b"lock").unwrap();
        set_mode(&volume, made, 0o600);
        volume.remove_directory(ROOT, b"directory").unwrap();
        volume.rename(ROOT, b"from", ROOT, b"to", RenameFlags::default()).unwrap();
        volume.write(in_place, 3 << 16, &[b'b'; 100], false).unwrap();
        volume.write(appended, 8, b"three", false).unwrap();
        volume.sync(None, false).unwrap();
        let expected = seen(&volume);
        let journal = copied(directory.path());
        let before = journal_files(journal.path()).len();
        assert_eq!(before, 1);

        let open = |root| Volume::open(Kept::new(&store, root), keys(&store), options_with(journal.path()));
        let own = match open(Some(older.clone())).map(drop) {
            Err(OpenError::JournalAhead { base, found, root: Some(own), .. }) => {
                assert_eq!((base, found, &*own), (newer.version, older.version, &newer));
                *own
            }
            other => panic!("{other:?}"),
        };
        // Without the nodes, and once they are back.
        for root in [Some(own), None] {
            let volume = open(root).unwrap();
            assert_eq!(seen(&volume), expected);
            volume.give_up();
            assert!(matches!(volume.close(), Ending::InJournal { .. }));
        }
        store.budget.set(u64::MAX);
        open(None).unwrap().close().stored().unwrap();
        let reader = common::open(&store, "reader");
        assert_eq!(seen(&reader), expected);

        // Whoever accepted an older state goes on from that, with what can be had of the journal.
        let mut accepting = options_with(directory.path());
        accepting.journal_directory = Some(copied(directory.path()).keep());
        let place = accepting.journal_directory.clone().unwrap();
        accepting.accept_older = true;
        let volume = Volume::open(Kept::new(&store, Some(older)), keys(&store), accepting).unwrap();
        volume.give_up();
        let _ = volume.close();
        std::fs::remove_dir_all(place).unwrap();
    });
}
