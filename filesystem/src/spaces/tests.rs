//! A drive with a space, over stores in memory.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use dht::MemoryBlockStore;
use dht::block::mutable::Genesis;
use overlay::NodeId;
use reactor::crypto::{Identity, X25519Secret};
use reactor::sync::Signal;

use super::*;
use crate::VolumeKeys;
use crate::format::SnapshotOrigin;
use crate::operations::{Credentials, FileKind, Invalidation, RenameFlags, Time};
use crate::volume::Options;

const ROOT: Inode = Inode::ROOT;
const CREDENTIALS: Credentials = Credentials { uid: 0, gid: 0, umask: 0 };

fn created() -> (Rc<MemoryBlockStore>, VolumeKeys, Rc<Volume>) {
    let store = Rc::new(MemoryBlockStore::new());
    let register = store.new_register([1; 32]);
    let keys = VolumeKeys { register, secret: X25519Secret::generate(), readers: Vec::new() };
    let options = Options { watch_interval: Some(Duration::from_millis(10)), ..Options::default() };
    let volume = Volume::create(store.clone(), keys.clone(), options, (0, 0)).unwrap();
    (store, keys, volume)
}

/// Opens one volume, or refuses, once it is let.
struct Door {
    volume: Rc<Volume>,
    answer: Cell<Result<(), Errno>>,
    is_held: Cell<bool>,
    let_go: Signal,
    count: Cell<u32>,
}

impl SpaceOpener for Door {
    fn owner(&self) -> PublicKey {
        Identity::from_seed(&[1; 32]).public_key()
    }

    fn open(&self, _: &SpaceLink, name: &[u8]) -> Result<Rc<Volume>, Errno> {
        if name != b"space" {
            return Err(Errno::EACCES);
        }
        self.count.set(self.count.get() + 1);
        while self.is_held.get() {
            self.let_go.wait();
        }
        self.answer.get().map(|()| self.volume.clone())
    }
}

struct Story {
    store: Rc<MemoryBlockStore>,
    keys: VolumeKeys,
    drive: Rc<Volume>,
    link: Vec<u8>,
    door: Rc<Door>,
    shown: Rc<WithSpaces>,
}

fn story(answer: Result<(), Errno>) -> Story {
    let (_, _, drive) = created();
    let (store, keys, volume) = created();
    let owner = Identity::from_seed(&[1; 32]);
    let genesis = Genesis::sign(&owner, [2; 32], vec![NodeId([3; 32])], Vec::new());
    let link = SpaceLink::new(genesis).encode();
    drive.make_link("space", &link).unwrap();
    drive.make_directory(ROOT, b"plain", 0o755, &CREDENTIALS).unwrap();
    let door = Rc::new(Door {
        volume,
        answer: Cell::new(answer),
        is_held: Cell::new(false),
        let_go: Signal::new(),
        count: Cell::new(0),
    });
    let shown = WithSpaces::over(drive.clone(), drive.clone(), None, door.clone());
    Story { store, keys, drive, link: link.to_vec(), door, shown }
}

impl Story {
    fn end(self) {
        self.shown.end();
        self.door.volume.close().stored().unwrap();
        self.drive.close().stored().unwrap();
        // What is left is told, and then it is over.
        while self.shown.next_invalidation().is_some() {}
    }
}

#[test]
fn a_space_is_a_directory_with_numbers_of_its_own_and_a_border() {
    reactor::run(|| {
        let story = story(Ok(()));
        let shown = &story.shown;
        let space = shown.lookup(ROOT, b"space").unwrap();
        assert!(SPACES.has(space.inode) && space.kind == FileKind::Directory && space.mode == 0o755);
        shown.remember(space.inode);
        let file = shown.make_node(space.inode, b"file", FileKind::Regular, 0o644, 0, &CREDENTIALS).unwrap();
        shown.remember(file.inode);
        shown.write(file.inode, 0, b"words", false).unwrap();
        assert_eq!(shown.read(file.inode, 0, 9).unwrap().concat(), b"words");
        assert_eq!(shown.lookup(space.inode, b"file").unwrap().inode, file.inode);
        assert_eq!(shown.attributes(file.inode).unwrap().inode, file.inode);
        assert_eq!(shown.lookup(space.inode, b"..").unwrap().inode, ROOT);
        assert_eq!(shown.attributes(space.inode).unwrap().inode, space.inode);
        // Neither is in the other's volume.
        assert_eq!(story.drive.lookup(ROOT, b"file"), Err(Errno::ENOENT));
        assert!(story.door.volume.lookup(ROOT, b"file").is_ok());

        let listed = shown.read_directory(ROOT, 0, 100, true).unwrap();
        let entry = listed.iter().find(|entry| entry.name == "space").unwrap();
        assert_eq!((entry.kind, entry.inode), (FileKind::Directory, space.inode));
        let within = shown.read_directory(space.inode, 0, 100, true).unwrap();
        let named = |name: &str| within.iter().find(|entry| entry.name == name).unwrap().inode;
        assert_eq!((named("file"), named("..")), (file.inode, ROOT));

        let flags = RenameFlags::default();
        let plain = shown.lookup(ROOT, b"plain").unwrap().inode;
        let over = [
            shown.rename(space.inode, b"file", ROOT, b"file", flags),
            shown.rename(ROOT, b"plain", space.inode, b"plain", flags),
            shown.link(file.inode, plain, b"file").map(drop),
        ];
        assert_eq!(over, [Err(Errno::EXDEV); 3]);
        let of_its_name = [
            shown.rename(ROOT, b"space", ROOT, b"other", flags),
            shown.rename(ROOT, b"plain", ROOT, b"space", flags),
            shown.remove_directory(ROOT, b"space"),
            shown.unlink(ROOT, b"space"),
        ];
        assert_eq!(of_its_name, [Err(Errno::EBUSY); 4]);
        let taken = shown.make_directory(ROOT, b"space", 0o755, &CREDENTIALS);
        assert_eq!(taken, Err(Errno::EEXIST));
        shown.rename(space.inode, b"file", space.inode, b"moved", flags).unwrap();
        shown.sync(None, false).unwrap();
        assert_eq!(story.door.volume.pending().bytes, 0);
        assert_eq!(story.door.count.get(), 1, "it is opened once");
        story.end();
    });
}

#[test]
fn a_space_has_a_past_of_its_own() {
    reactor::run(|| {
        let story = story(Ok(()));
        let shown = &story.shown;
        let space = shown.lookup(ROOT, b"space").unwrap();
        shown.remember(space.inode);
        let file = shown.make_node(space.inode, b"file", FileKind::Regular, 0o644, 0, &CREDENTIALS).unwrap();
        shown.remember(file.inode);
        assert_eq!(shown.lookup(space.inode, b".snapshots"), Err(Errno::ENOENT));
        shown.write(file.inode, 0, b"then", false).unwrap();
        story.door.volume.take_snapshot(Some("before"), SnapshotOrigin::Asked).unwrap();
        shown.write(file.inode, 0, b"here", false).unwrap();
        let look = |parent: Inode, name: &[u8]| {
            let found = shown.lookup(parent, name).unwrap().inode;
            shown.remember(found);
            found
        };
        let snapshots = look(space.inode, b".snapshots");
        assert!(SPACES.has(snapshots) && shown.kept_seconds(snapshots) == 0);
        let listed = shown.read_directory(snapshots, 0, 10, true).unwrap();
        assert_eq!(
            listed.iter().map(|entry| &*entry.name).collect::<Vec<_>>(),
            [&b"."[..], b"..", b"before"]
        );
        assert_eq!(listed[1].inode, space.inode);
        let before = look(snapshots, b"before");
        assert_eq!(listed[2].inode, before);
        let old = look(before, b"file");
        assert_ne!(old, file.inode);
        assert_eq!(shown.read(old, 0, 9).unwrap().concat(), b"then");
        assert_eq!(shown.read(file.inode, 0, 9).unwrap().concat(), b"here");
        assert_eq!(shown.write(old, 0, b"no", false), Err(Errno::EROFS));
        assert_eq!(shown.lookup(before, b"..").unwrap().inode, snapshots);
        // The drive has none.
        assert_eq!(shown.lookup(ROOT, b".snapshots"), Err(Errno::ENOENT));
        story.end();
    });
}

/// It synced the drive alone, and said that all was stored.
#[test]
fn a_sync_of_the_mountpoint_takes_what_lies_in_spaces_too() {
    reactor::run(|| {
        let story = story(Ok(()));
        let shown = &story.shown;
        let space = shown.lookup(ROOT, b"space").unwrap();
        shown.remember(space.inode);
        let file = shown.make_node(space.inode, b"file", FileKind::Regular, 0o644, 0, &CREDENTIALS).unwrap();
        shown.remember(file.inode);
        shown.write(file.inode, 0, b"words", false).unwrap();
        assert_ne!(story.door.volume.pending().file_count, 0);
        shown.sync(Some(ROOT), false).unwrap();
        assert_eq!(story.door.volume.pending().file_count, 0);
        story.end();
    });
}

#[test]
fn what_cannot_be_opened_is_a_shut_directory_until_it_can() {
    reactor::run(|| {
        let story = story(Err(Errno::EACCES));
        let shown = &story.shown;
        let shut = shown.lookup(ROOT, b"space").unwrap();
        shown.remember(shut.inode);
        assert_eq!((shut.mode, shut.kind, shut.uid), (0, FileKind::Directory, 0));
        assert_eq!(shown.kept_seconds(shut.inode), 0);
        let refused = [
            shown.lookup(shut.inode, b"file").map(drop),
            shown.read_directory(shut.inode, 0, 10, false).map(drop),
            shown.make_directory(shut.inode, b"new", 0o755, &CREDENTIALS).map(drop),
            shown.rename(shut.inode, b"a", ROOT, b"a", RenameFlags::default()),
        ];
        assert_eq!(refused, [Err(Errno::EACCES); 4]);
        assert_eq!(shown.lookup(shut.inode, b".").unwrap().mode, 0);
        assert_eq!(shown.list_xattr(shut.inode), Ok(Vec::new()));
        // Nobody asks the nodes again for each of these.
        assert_eq!(story.door.count.get(), 1);
        story.door.answer.set(Ok(()));
        let opened = reactor::timeout(Duration::from_secs(60), || {
            while shown.attributes(shut.inode).unwrap().mode == 0 {
                reactor::sleep(Duration::from_millis(50));
            }
        });
        assert!(opened.is_ok() && shown.lookup(shut.inode, b"file") == Err(Errno::ENOENT));
        shown.forget(shut.inode, 1);
        story.end();
    });
}

#[test]
fn a_link_that_leads_nowhere_is_left_alone() {
    reactor::run(|| {
        let story = story(Ok(()));
        story.drive.make_link("nonsense", b"nonsense").unwrap();
        // However many of these somebody puts there, none takes the place of a space.
        let stranger = Identity::from_seed(&[9; 32]);
        for number in 0..SPACE_COUNT_MAX + 1 {
            let genesis = Genesis::sign(&stranger, [number as u8; 32], vec![NodeId([3; 32])], Vec::new());
            let name = format!("strange {number}");
            story.drive.make_link(&name, &SpaceLink::new(genesis).encode()).unwrap();
            assert_eq!(story.shown.lookup(ROOT, name.as_bytes()), Err(Errno::EOPNOTSUPP));
        }
        assert!(story.shown.lookup(ROOT, b"space").is_ok());
        assert_eq!(story.shown.lookup(ROOT, b"nonsense"), Err(Errno::EOPNOTSUPP));
        assert_eq!(story.shown.unlink(ROOT, b"nonsense"), Err(Errno::EOPNOTSUPP));
        let listed = story.shown.read_directory(ROOT, 0, 100, false).unwrap();
        let entry = listed.iter().find(|entry| entry.name == "nonsense").unwrap();
        assert_eq!(entry.kind, FileKind::Unknown);
        story.end();
    });
}

#[test]
fn a_space_shows_at_its_own_name_and_a_link_to_it_at_another_neither_shows_nor_shuts_it() {
    reactor::run(|| {
        for is_first in [true, false] {
            let story = story(Ok(()));
            let shown = &story.shown;
            if !is_first {
                assert_eq!(shown.lookup(ROOT, b"space").unwrap().mode, 0o755);
            }
            // However many somebody puts there.
            let names: Vec<String> =
                (0..NAME_COUNT_MAX + 2).map(|number| format!("decoy {number}")).collect();
            for name in &names {
                story.drive.make_link(name, &story.link).unwrap();
            }
            let _ = shown.read_directory(ROOT, 0, 100, true).unwrap();
            let is_shut = |name: &String| match shown.lookup(ROOT, name.as_bytes()) {
                Ok(found) => {
                    found.mode == 0 && shown.lookup(found.inode, b"file").map(drop) == Err(Errno::EACCES)
                }
                other => other == Err(Errno::EACCES),
            };
            assert!(names.iter().all(is_shut));
            assert_eq!(shown.lookup(ROOT, b"space").unwrap().mode, 0o755);
            assert!(names.iter().all(is_shut));
            assert_eq!(story.door.count.get(), 1);
            story.end();
        }
    });
}

/// A drive that shows its snapshots too.
fn with_its_past(story: &Story) -> Rc<WithSpaces> {
    let past = Rc::new(WithPast::new(story.drive.clone()));
    WithSpaces::new(story.drive.clone(), past, story.door.clone())
}

/// Looks a path up as the kernel does, and keeps what it leads to.
fn look(shown: &WithSpaces, path: &str) -> Result<Attributes, Errno> {
    let mut found = shown.attributes(ROOT)?;
    for part in path.split('/') {
        found = shown.lookup(found.inode, part.as_bytes())?;
        shown.remember(found.inode);
    }
    Ok(found)
}

/// Once the space was open, any link to it in a snapshot of the drive showed it.
#[test]
fn a_space_shows_at_its_own_name_in_snapshots_too() {
    reactor::run(|| {
        let story = story(Ok(()));
        story.drive.make_link("press", &story.link).unwrap();
        story.door.volume.make_directory(ROOT, b"wages", 0o755, &CREDENTIALS).unwrap();
        for volume in [&story.drive, &story.door.volume] {
            volume.take_snapshot(Some("before"), SnapshotOrigin::Asked).unwrap();
        }
        for is_first in [true, false] {
            let shown = with_its_past(&story);
            let is_shut = || match look(&shown, ".snapshots/before/press") {
                Ok(found) => found.mode == 0,
                other => other == Err(Errno::EACCES),
            };
            assert!(!is_first || is_shut());
            assert!(look(&shown, "space/wages").is_ok());
            assert!(is_shut());
            assert_eq!(look(&shown, ".snapshots/before/press/wages"), Err(Errno::EACCES));
            assert!(look(&shown, ".snapshots/before/space/wages").is_ok());
            assert!(is_shut());
            shown.end();
            while shown.next_invalidation().is_some() {}
        }
        story.end();
    });
}

/// Of the same name was enough: what was copied out of the drive's snapshot of Friday had the space as of Monday.
#[test]
fn a_snapshot_of_the_drive_shows_no_space_as_of_another_time() {
    reactor::run(|| {
        let story = story(Ok(()));
        let shown = with_its_past(&story);
        story.door.volume.make_directory(ROOT, b"monday", 0o755, &CREDENTIALS).unwrap();
        let monday = story.door.volume.take_snapshot(Some("before"), SnapshotOrigin::Asked).unwrap();
        while Time::now() <= monday.record.taken {
            reactor::sleep(Duration::from_millis(1));
        }
        story.drive.take_snapshot(Some("before"), SnapshotOrigin::Asked).unwrap();
        let path = ".snapshots/before/space";
        assert_eq!(look(&shown, path), Err(Errno::ENODATA));
        assert!(look(&shown, "space/.snapshots/before/monday").is_ok());
        story.door.volume.delete_snapshot("before").unwrap();
        story.door.volume.take_snapshot(Some("before"), SnapshotOrigin::Asked).unwrap();
        assert!(look(&shown, &format!("{path}/monday")).is_ok());
        shown.end();
        while shown.next_invalidation().is_some() {}
        story.end();
    });
}

#[test]
fn an_end_that_is_given_up_waits_for_no_opening() {
    reactor::run(|| {
        let story = story(Ok(()));
        story.door.is_held.set(true);
        let shown = story.shown.clone();
        let asking = reactor::spawn(move || shown.lookup(ROOT, b"space").map(|found| found.mode));
        reactor::sleep(Duration::from_millis(20));
        let shown = story.shown.clone();
        let ending = reactor::spawn(move || shown.end());
        reactor::sleep(Duration::from_millis(20));
        assert!(!ending.is_finished());
        // The door is never let go.
        story.shown.give_up();
        ending.join().unwrap();
        assert_eq!(asking.join().unwrap(), Ok(0));
        story.end();
    });
}

#[test]
fn who_asks_meanwhile_waits_for_one_opening_and_who_is_interrupted_does_not_stop_it() {
    reactor::run(|| {
        let story = story(Ok(()));
        story.door.is_held.set(true);
        let look = || {
            let shown = story.shown.clone();
            reactor::spawn(move || shown.lookup(ROOT, b"space").map(|found| found.mode))
        };
        let (first, second) = (look(), look());
        reactor::sleep(Duration::from_millis(20));
        first.terminate();
        assert!(first.join().is_err());
        story.door.is_held.set(false);
        story.door.let_go.notify_all();
        assert_eq!(second.join().unwrap(), Ok(0o755));
        assert_eq!(story.door.count.get(), 1);
        story.end();
    });
}

#[test]
fn what_others_change_in_a_space_is_told_by_the_numbers_that_the_kernel_has() {
    reactor::run(|| {
        let story = story(Ok(()));
        let space = story.shown.lookup(ROOT, b"space").unwrap();
        story.shown.remember(space.inode);
        story.shown.sync(None, false).unwrap();
        let other = Volume::open(story.store.clone(), story.keys.clone(), Options::default()).unwrap();
        other.make_directory(ROOT, b"theirs", 0o755, &CREDENTIALS).unwrap();
        other.close().stored().unwrap();
        let told = reactor::timeout(Duration::from_secs(60), || {
            let name = Bytes::from_static(b"theirs");
            loop {
                match story.shown.next_invalidation() {
                    Some(Invalidation::Entry(directory, found)) if found == name => return directory,
                    Some(_) => {}
                    None => panic!("it is not over"),
                }
            }
        });
        assert_eq!(told.ok(), Some(space.inode));
        assert!(story.shown.lookup(space.inode, b"theirs").is_ok());
        story.end();
    });
}
