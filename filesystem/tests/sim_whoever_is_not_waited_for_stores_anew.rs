//! A collector of garbage waits for every mount that the drive knows of. These it does not wait for: one that its owner forgot
//! while it lived, one that never got to say that it is there, and a journal whose session was forgotten. Each of them has
//! pointers to what was deleted.
//!
//! Once they published those and said that everything is stored. Now they store it anew, from their cache or from the nodes,
//! which keep what is deleted for a time of grace; and where it is gone they say of that file that it is not stored. For a while
//! they stored nothing more then, of any file: a database beside it saw each of its syncs fail.

mod sim;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use dht::{Address, BlockStore};
use filesystem::operations::{Credentials, FileKind};
use filesystem::volume::Standing;
use filesystem::{Ending, Errno, Inode, Operations, Options, Volume, VolumeKeys};
use reactor::crypto::X25519Secret;
use reactor::sim::{Host, SimConfig, World, check};

use sim::store::Cloud;

const USER: Credentials = Credentials { uid: 1000, gid: 1000, umask: 0 };
const LARGE: usize = 128 << 20;
/// Less than the file.
const SMALL: usize = 256 << 10;

/// What is in the way of whoever was not waited for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Case {
    /// The nodes have what was deleted: the time of grace is not over.
    Grace,
    /// They have not, but its memory has.
    Cached,
    /// Nobody has.
    Gone,
}

impl Case {
    fn cache_bytes(self) -> usize {
        if self == Case::Cached { LARGE } else { SMALL }
    }
}

#[derive(Clone)]
struct Story {
    cloud: Rc<Cloud>,
    keys: VolumeKeys,
    hosts: [Host; 3],
}

fn content() -> Vec<u8> {
    (0..4u32 << 20).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn options(machine: usize, cache_bytes: usize) -> Options {
    let mut options = Options::default();
    options.author = format!("machine {machine}");
    options.device = machine as u64 + 1;
    options.sync_patience = Duration::from_secs(20);
    options.watch_interval = Some(Duration::from_secs(1));
    options.cache_bytes = cache_bytes;
    options
}

fn write_large(volume: &Volume) -> Inode {
    write_as(volume, b"large", &content())
}

fn write_as(volume: &Volume, name: &[u8], content: &[u8]) -> Inode {
    let made = volume.make_node(Inode::ROOT, name, FileKind::Regular, 0o644, 0, &USER);
    let file = made.expect("it is made").inode;
    volume.write(file, 0, content, false).expect("it is written");
    file
}

fn read(volume: &Volume, file: Inode) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::new();
    loop {
        let pieces = volume.read(file, content.len() as u64, 128 << 10)?;
        let before = content.len();
        content.extend(pieces.iter().flat_map(|piece| piece.iter().copied()));
        if content.len() == before {
            return Ok(content);
        }
    }
}

fn wait_for(stage: &Cell<u32>, wanted: u32) {
    while stage.get() < wanted {
        reactor::sleep(Duration::from_millis(100));
    }
}

impl Story {
    fn begin(world: &World, has_file: bool) -> Story {
        let cloud = Cloud::new(world);
        let register = cloud.memory.new_register([7; 32]);
        let keys = VolumeKeys { register, secret: X25519Secret::from_bytes(&[9; 32]), readers: Vec::new() };
        let hosts = [0, 1, 2].map(|machine| world.host(&format!("machine-{machine}")));
        let story = Story { cloud, keys, hosts };
        story.on(1, move |story| {
            let (store, keys) = (story.cloud.reach(1), story.keys.clone());
            let volume = Volume::create(store, keys, options(1, LARGE), (1000, 1000)).expect("a volume");
            if has_file {
                write_large(&volume);
            }
            volume.close().stored().expect("nothing is left");
        });
        story
    }

    /// Runs `main` on a machine, to its end.
    fn on(&self, machine: usize, main: impl FnOnce(Story) + 'static) {
        let story = self.clone();
        self.hosts[machine].start(move || main(story)).wait();
    }

    /// The mount that nobody waits for.
    fn open(&self, case: Case) -> Rc<Volume> {
        let mut options = options(0, case.cache_bytes());
        options.journal_directory = Some("/home/journal".into());
        Volume::open(self.cloud.reach(0), self.keys.clone(), options).expect("it opens")
    }

    fn mute(&self, is_mute: bool) {
        match is_mute {
            true => self.cloud.mute.borrow_mut().insert(0),
            false => self.cloud.mute.borrow_mut().remove(&0),
        };
    }

    /// Collects garbage, and forgets who does not answer; the nodes keep what is deleted if `has_grace`.
    fn collect(&self, has_grace: bool) {
        self.on(2, move |story| {
            let mut reading = options(2, LARGE);
            reading.read_only = true;
            let volume = Volume::open(story.cloud.reach(2), story.keys.clone(), reading).expect("it opens");
            let listed: BTreeSet<Address> =
                story.cloud.memory.blocks().into_iter().map(|(address, _)| address).collect();
            let fence = volume.begin_collection().expect("a mark");
            let roots = loop {
                match volume.look_at_collection(&fence).expect("nobody else collects") {
                    Standing::Clear(roots) => break roots,
                    Standing::Waits { waiting, .. } => {
                        let silent: Vec<u64> = waiting.iter().map(|waiting| waiting.session).collect();
                        story.forget(&silent);
                    }
                }
            };
            let mut reached = BTreeSet::new();
            let mut visit = |address: &Address| {
                reached.insert(*address);
            };
            volume.visit_reachable(&roots, &mut visit).expect("it is read");
            let is_garbage = |address: &Address| {
                listed.contains(address) && !reached.contains(address) && !roots.keep(address)
            };
            if !has_grace {
                story.cloud.memory.retain(|address| !is_garbage(address));
            }
        });
    }

    fn forget(&self, silent: &[u64]) {
        let (store, keys) = (self.cloud.reach(3), self.keys.clone());
        let helper = Volume::open(store, keys, options(3, LARGE)).expect("it opens");
        assert_eq!(helper.count_out(silent), Ok(Vec::new()), "nobody answers");
        helper.forget_sessions(silent, &[]).expect("they are forgotten");
        helper.close().stored().expect("nothing is left");
    }

    /// What the mount said at its end is true, whatever is deleted now.
    fn judge(&self, case: Case, ending: &Ending) {
        if case == Case::Gone {
            assert!(matches!(ending, Ending::InJournal { .. }), "{ending}");
            return;
        }
        assert_eq!(*ending, Ending::Stored);
        self.collect(false);
        self.on(1, |story| {
            let (store, keys) = (story.cloud.reach(1), story.keys.clone());
            let volume = Volume::open(store, keys, options(1, LARGE)).expect("it opens");
            // A file that others removed comes back under a name that says so.
            let entries = volume.read_directory(Inode::ROOT, 0, 64, false).expect("it lists");
            let large = entries.iter().find(|entry| entry.name.starts_with(b"large"));
            let large = large.unwrap_or_else(|| panic!("it is not among {entries:?}")).inode;
            assert!(read(&volume, large).expect("all of it is there")[1..] == content()[1..]);
            volume.close().stored().expect("nothing is left");
        });
    }

    /// Only the part that is gone is missing, on another mount too.
    fn judge_damaged(&self) {
        self.on(1, |story| {
            let (store, keys) = (story.cloud.reach(1), story.keys.clone());
            let volume = Volume::open(store, keys, options(1, LARGE)).expect("it opens");
            let file = |name: &[u8]| volume.lookup(Inode::ROOT, name).expect("it is there");
            assert_eq!(read(&volume, file(b"beside").inode).as_deref(), Ok(b"content".as_slice()));
            assert_eq!(file(b"large").size, content().len() as u64);
            assert_eq!(read(&volume, file(b"large").inode), Err(Errno::EIO));
            volume.unlink(Inode::ROOT, b"large").expect("it is removed");
            volume.close().stored().expect("nothing is left");
        });
    }
}

/// What is gone is said to be, and the journal has what is left of it before anybody closes anything.
fn judge_sync(case: Case, volume: &Volume, stored: Result<(), Errno>) {
    if case != Case::Gone {
        return assert_eq!(stored, Ok(()));
    }
    assert_eq!(stored, Err(Errno::EIO));
    reactor::sleep(Duration::from_secs(4));
    assert_eq!(volume.pending().memory_bytes, 0);
}

/// What is gone is said of its file alone, at each sync, until it is written anew.
fn judge_file(volume: &Volume, is_written_anew: bool) {
    let [large, beside] = [b"large".as_slice(), b"beside"]
        .map(|name| volume.lookup(Inode::ROOT, name).expect("it is there").inode);
    assert_eq!(volume.sync(None, false), Err(Errno::EIO), "not all is stored");
    volume.write(beside, 0, b"content", false).expect("it is written");
    assert_eq!(volume.flush(beside), Ok(()));
    assert_eq!(volume.sync(Some(beside), false), Ok(()));
    for _ in 0..2 {
        assert_eq!(volume.sync(Some(large), false), Err(Errno::EIO));
    }
    volume.write(large, 0, b"!", false).expect_err("a part of its frame is gone");
    if is_written_anew {
        volume.write(large, 0, &content(), false).expect("it is written");
        assert_eq!(volume.sync(Some(large), false), Ok(()));
        assert_eq!(volume.sync(None, false), Ok(()));
    }
}

/// It stores much; its swaps do not arrive; its owner has it forgotten and what it has stored deleted.
fn forgotten_while_it_stores(world: &World, case: Case, ends: bool) {
    let story = Story::begin(world, false);
    let (stage, ending) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let (of_mount, at, end) = (story.clone(), stage.clone(), ending.clone());
    let mount = story.hosts[0].start(move || {
        let mut volume = of_mount.open(case);
        of_mount.mute(true);
        write_large(&volume);
        write_as(&volume, b"beside", b"nothing");
        assert!(volume.sync(None, false).is_err(), "what is stored is named nowhere");
        if ends {
            // Until then the journal has the content as well. What is put on top of another's root it has anew, and where that lies.
            of_mount.on(1, |story| {
                let (store, keys) = (story.cloud.reach(1), story.keys.clone());
                let volume = Volume::open(store, keys, options(1, LARGE)).expect("it opens");
                write_as(&volume, b"of another", b"meanwhile");
                volume.close().stored().expect("nothing is left");
            });
            while volume.lookup(Inode::ROOT, b"of another").is_err() {
                reactor::sleep(Duration::from_millis(100));
            }
            volume.give_up();
            assert!(matches!(volume.close(), Ending::InJournal { .. }));
        }
        at.set(1);
        wait_for(&at, 2);
        of_mount.mute(false);
        if ends {
            volume = of_mount.open(case);
        }
        match case {
            Case::Gone => judge_file(&volume, !ends),
            _ => assert_eq!(volume.sync(None, false), Ok(())),
        }
        end.set(Some(volume.close()));
    });
    wait_for(&stage, 1);
    story.collect(case == Case::Grace);
    stage.set(2);
    mount.wait();
    let ending = ending.take().expect("it has ended");
    if case == Case::Gone && ends {
        assert_eq!(ending, Ending::Damaged { file_count: 1 });
        story.judge_damaged();
    } else {
        // What was gone was written anew.
        story.judge(if case == Case::Gone { Case::Cached } else { case }, &ending);
    }
}

#[test]
fn a_mount_that_was_forgotten_while_it_stores_publishes_nothing_that_was_deleted() {
    check(&SimConfig::default(), sim::seeds(2), |world| {
        for case in [Case::Grace, Case::Cached, Case::Gone] {
            forgotten_while_it_stores(world, case, false);
        }
    });
}

#[test]
fn nor_does_a_journal_whose_session_was_forgotten() {
    check(&SimConfig::default(), sim::seeds(2), |world| {
        for case in [Case::Grace, Case::Gone] {
            forgotten_while_it_stores(world, case, true);
        }
    });
}

/// It is served from the root that it found, and changes what others remove; the drive has never heard of it.
fn served_without_being_known(world: &World, case: Case) {
    let story = Story::begin(world, true);
    let (stage, ending) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let (of_mount, at, end) = (story.clone(), stage.clone(), ending.clone());
    let mount = story.hosts[0].start(move || {
        of_mount.mute(true);
        let volume = of_mount.open(case);
        let large = volume.lookup(Inode::ROOT, b"large").expect("it is there").inode;
        assert!(read(&volume, large).expect("it reads") == content());
        volume.write(large, 0, b"!", false).expect("it is written");
        of_mount.cloud.cut(0, true);
        at.set(1);
        wait_for(&at, 2);
        of_mount.cloud.cut(0, false);
        of_mount.mute(false);
        let stored = volume.sync(None, false);
        judge_sync(case, &volume, stored);
        end.set(Some(volume.close()));
    });
    wait_for(&stage, 1);
    story.on(1, |story| {
        let (store, keys) = (story.cloud.reach(1), story.keys.clone());
        let volume = Volume::open(store, keys, options(1, LARGE)).expect("it opens");
        volume.unlink(Inode::ROOT, b"large").expect("it is removed");
        volume.close().stored().expect("nothing is left");
    });
    story.collect(case == Case::Grace);
    stage.set(2);
    mount.wait();
    story.judge(case, &ending.take().expect("it has ended"));
}

/// It has nothing to publish, sleeps, and what it stands on is deleted: it shows the drive as it is once it is awake.
fn asleep_with_nothing_to_publish(world: &World, reads_only: bool) {
    let story = Story::begin(world, true);
    let stage = Rc::new(Cell::new(0));
    let (of_mount, at) = (story.clone(), stage.clone());
    story.on(1, |story| change_names(&story, "before"));
    let mount = story.hosts[0].start(move || {
        of_mount.mute(!reads_only);
        let mut options = options(0, SMALL);
        options.read_only = reads_only;
        let (store, keys) = (of_mount.cloud.reach(0), of_mount.keys.clone());
        let volume = Volume::open(store, keys, options).expect("it opens");
        let large = volume.lookup(Inode::ROOT, b"large").expect("it is there").inode;
        // Nothing of the tree stays in memory.
        assert!(read(&volume, large).expect("it reads") == content());
        of_mount.cloud.cut(0, true);
        at.set(1);
        wait_for(&at, 2);
        of_mount.cloud.cut(0, false);
        of_mount.mute(false);
        let is_there = |name: &[u8]| volume.lookup(Inode::ROOT, name).is_ok();
        let follows = || {
            while !is_there(b"after 7") || is_there(b"large") || is_there(b"before 7") {
                reactor::sleep(Duration::from_millis(100));
            }
        };
        reactor::timeout(Duration::from_secs(120), follows).expect("it shows what there is");
        if !reads_only {
            let made = volume.make_node(Inode::ROOT, b"mine", FileKind::Regular, 0o644, 0, &USER);
            made.expect("it is made");
        }
        volume.close().stored().expect("nothing is left");
    });
    wait_for(&stage, 1);
    story.on(1, |story| change_names(&story, "after"));
    story.collect(false);
    stage.set(2);
    mount.wait();
    assert_eq!(stage.get(), 2);
}

/// Replaces all files by as many others: enough for some leaves.
fn change_names(story: &Story, name: &str) {
    let (store, keys) = (story.cloud.reach(1), story.keys.clone());
    let volume = Volume::open(store, keys, options(1, LARGE)).expect("it opens");
    let is_second = name == "after";
    if is_second {
        volume.unlink(Inode::ROOT, b"large").expect("it is removed");
    }
    for number in 0..300 {
        if is_second {
            let old = format!("before {number}");
            volume.unlink(Inode::ROOT, old.as_bytes()).expect("it is removed");
        }
        let new = format!("{name} {number}");
        let made = volume.make_node(Inode::ROOT, new.as_bytes(), FileKind::Regular, 0o644, 0, &USER);
        made.expect("it is made");
    }
    volume.close().stored().expect("nothing is left");
}

#[test]
fn one_that_has_nothing_to_publish_shows_the_drive_as_it_is_when_what_it_stood_on_is_gone() {
    check(&SimConfig::default(), sim::seeds(2), |world| {
        for reads_only in [true, false] {
            asleep_with_nothing_to_publish(world, reads_only);
        }
    });
}

#[test]
fn nor_does_one_that_the_drive_never_heard_of() {
    check(&SimConfig::default(), sim::seeds(2), |world| {
        for case in [Case::Grace, Case::Cached, Case::Gone] {
            served_without_being_known(world, case);
        }
    });
}

/// What no node had any more was lost for as long as the process lived, though the nodes that had it came back.
fn lost_until_somebody_comes_back_with_it(world: &World) {
    let story = Story::begin(world, false);
    let (stage, ending) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let (of_mount, at, end) = (story.clone(), stage.clone(), ending.clone());
    let mount = story.hosts[0].start(move || {
        let volume = of_mount.open(Case::Gone);
        of_mount.mute(true);
        let large = write_large(&volume);
        assert!(volume.sync(None, false).is_err(), "what is stored is named nowhere");
        at.set(1);
        wait_for(&at, 2);
        of_mount.mute(false);
        assert_eq!(volume.sync(None, false), Err(Errno::EIO));
        at.set(3);
        wait_for(&at, 4);
        // It is looked for now and then only, and a few parts at a time.
        for _ in 0..600 {
            if volume.sync(Some(large), false).is_ok() {
                break;
            }
            reactor::sleep(Duration::from_secs(1));
        }
        assert_eq!(volume.sync(None, false), Ok(()));
        end.set(Some(volume.close()));
    });
    wait_for(&stage, 1);
    let before = story.cloud.memory.blocks();
    story.collect(false);
    stage.set(2);
    wait_for(&stage, 3);
    for (address, content) in before {
        story.cloud.memory.put_named(&address, content).expect("it has room");
    }
    stage.set(4);
    mount.wait();
    // Where it lay it is deleted again, and all of it is there.
    story.judge(Case::Cached, &ending.take().expect("it has ended"));
}

#[test]
fn what_was_lost_is_stored_anew_once_somebody_comes_back_with_it() {
    check(&SimConfig::default(), sim::seeds(2), lost_until_somebody_comes_back_with_it);
}
