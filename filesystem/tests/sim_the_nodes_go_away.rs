//! From one moment to the next a machine reaches no node, is killed some time later, and starts again: what was answered is
//! there, and what could not be kept was not said to be.
//!
//! Once a rename or a new directory was in memory only until the next close; a close and an `fsync` that waited when the nodes
//! went waited for half a minute, and what they wrote was in memory only after that too; a mode that was changed after a
//! close was kept by nobody; and where the journal's disk was full a rename was answered as if it had been kept.

mod sim;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use filesystem::operations::{FileKind, RenameFlags, SetAttributes};
use filesystem::{Ending, Errno, Inode, Operations, Volume};
use reactor::sim::{DiskFaults, SimConfig, World, check};

use sim::pair::{Pair, USER, close_file, found};
use sim::tree::read;

/// Longer than it takes until it is known that the nodes are away.
const KNOWN: Duration = Duration::from_secs(7);
/// Shorter than that.
const SOON_KEPT: Duration = Duration::from_secs(2);
/// Far shorter than the patience with nodes that take nothing, which is ten minutes in these stories.
const SOON: Duration = Duration::from_secs(10);

/// Runs `acts` on a machine that has the volume mounted, beside another if `is_shared`, and kills it right after; then has
/// `looks` look at what it finds once it is started again, and at what the other finds.
fn killed_after(world: &World, is_shared: bool, acts: fn(&Pair, &Volume), looks: fn(&Volume)) {
    let pair = Pair::begin(world);
    if is_shared {
        let is_there = Rc::new(Cell::new(false));
        let (of_other, there) = (pair.clone(), is_there.clone());
        pair.hosts[1].start(move || {
            let _volume = of_other.open(1);
            there.set(true);
            reactor::sleep(Duration::from_secs(3600));
        });
        wait_until(|| is_there.get());
    }
    let is_done = Rc::new(Cell::new(false));
    let (of_machine, done) = (pair.clone(), is_done.clone());
    let killed = pair.hosts[0].start(move || {
        let volume = of_machine.open(0);
        assert_eq!(volume.sharing().is_alone(), !is_shared);
        acts(&of_machine, &volume);
        done.set(true);
        reactor::sleep(Duration::from_secs(3600));
    });
    wait_until(|| is_done.get() || !killed.is_running());
    assert!(is_done.get(), "it failed");
    pair.hosts.iter().for_each(|host| host.kill());
    pair.cloud.cut(0, false);
    pair.cloud.full.set(false);
    pair.cloud.mute.borrow_mut().clear();
    for machine in [0, 1] {
        pair.on(machine, move |pair| {
            let volume = pair.open(machine);
            looks(&volume);
            volume.close().stored().expect("nothing is left");
        });
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        reactor::sleep(Duration::from_millis(10));
    }
}

fn stored(volume: &Volume) {
    wait_until(|| volume.pending().bytes == 0);
}

fn journal_bytes() -> u64 {
    let entries = reactor::fs::read_dir("/home/journal").expect("it lists");
    let sizes = entries.map(|entry| {
        let path = Path::new("/home/journal").join(entry.expect("it lists").name);
        reactor::fs::metadata(path).map_or(0, |metadata| metadata.len_bytes)
    });
    sizes.sum()
}

fn make_directory(volume: &Volume, name: &[u8]) -> Result<(), Errno> {
    volume.make_directory(Inode::ROOT, name, 0o755, &USER).map(drop)
}

fn rename(volume: &Volume, from: &[u8], to: &[u8]) -> Result<(), Errno> {
    volume.rename(Inode::ROOT, from, Inode::ROOT, to, RenameFlags::default())
}

fn change_mode(volume: &Volume, name: &[u8], mode: u32) {
    let inode = volume.lookup(Inode::ROOT, name).expect("it is there").inode;
    let changes = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
    volume.set_attributes(inode, &changes).expect("its mode is changed");
}

fn mode_of(volume: &Volume, name: &[u8]) -> u32 {
    volume.lookup(Inode::ROOT, name).expect("it is there").mode
}

#[test]
fn what_has_no_close_and_was_answered_right_before_is_there() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let acts = |pair: &Pair, volume: &Volume| {
            stored(volume);
            rename(volume, b"file", b"renamed").expect("it is renamed");
            make_directory(volume, b"made").expect("it is made");
            pair.cloud.cut(0, true);
            reactor::sleep(KNOWN);
        };
        killed_after(world, false, acts, |volume| {
            assert_eq!(found(volume, b"renamed"), "old");
            assert_eq!(volume.lookup(Inode::ROOT, b"file"), Err(Errno::ENOENT));
            assert!(volume.lookup(Inode::ROOT, b"made").is_ok());
        });
    });
}

#[test]
fn what_has_no_close_is_kept_as_soon_as_they_may_be_away_or_take_nothing() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let goes = |pair: &Pair, volume: &Volume| {
            stored(volume);
            make_directory(volume, b"made").expect("it is made");
            pair.cloud.cut(0, true);
            reactor::sleep(SOON_KEPT);
        };
        let refuses = |pair: &Pair, volume: &Volume| {
            stored(volume);
            make_directory(volume, b"made").expect("it is made");
            pair.cloud.full.set(true);
            wait_until(|| volume.pending().trouble.is_some());
            reactor::sleep(SOON_KEPT);
            assert_eq!(volume.pending().memory_bytes, 0);
        };
        for acts in [goes as fn(&Pair, &Volume), refuses] {
            killed_after(world, false, acts, |volume| {
                assert!(volume.lookup(Inode::ROOT, b"made").is_ok());
            });
        }
    });
}

#[test]
fn who_reads_while_a_node_is_restarted_waits_and_hours_later_nobody_does() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let pair = Pair::begin(world);
        pair.on(0, |pair| {
            let large = vec![b'x'; 100_000];
            let volume = pair.open(0);
            close_file(&volume, b"large", &large).expect("it is closed");
            volume.close().stored().expect("nothing is left");
            let volume = pair.open(0);
            let inode = volume.lookup(Inode::ROOT, b"large").expect("it is there").inode;
            pair.cloud.cut(0, true);
            reactor::sleep(KNOWN);
            let waited = reactor::scope(|scope| {
                let reading = scope.spawn(|| read(&volume, inode));
                reactor::sleep(KNOWN);
                pair.cloud.cut(0, false);
                reading.join().expect("it ends")
            });
            assert_eq!(waited, Ok(large));
            volume.close().stored().expect("nothing is left");
            let volume = pair.open(0);
            pair.cloud.cut(0, true);
            reactor::sleep(Duration::from_secs(3600));
            let failed = reactor::timeout(SOON, || read(&volume, inode));
            assert_eq!(failed.expect("it ends"), Err(Errno::EHOSTUNREACH));
        });
    });
}

#[test]
fn nobody_doubts_the_nodes_over_a_line_that_is_busy_storing() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let pair = Pair::begin(world);
        pair.on(0, |pair| {
            let volume = pair.open(0);
            stored(&volume);
            pair.cloud.slow.borrow_mut().insert(0, Duration::from_secs(5));
            let inode = volume.lookup(Inode::ROOT, b"file").expect("it is there").inode;
            volume.write(inode, 0, &vec![7; 4 << 20], false).expect("it is written");
            reactor::scope(|scope| {
                let synced = scope.spawn(|| volume.sync(Some(inode), false));
                reactor::sleep(Duration::from_secs(1));
                pair.cloud.lag.set(Duration::from_secs(2));
                synced.join().expect("it ends").expect("all of it is taken");
            });
            assert_eq!(pair.cloud.doubt_count.get(), 0);
            reactor::sleep(SOON);
            assert!(pair.cloud.doubt_count.get() > 0, "it is asked where nothing else would find it out");
        });
    });
}

#[test]
fn what_is_done_without_a_close_while_they_are_away_is_there_at_once() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let acts = |pair: &Pair, volume: &Volume| {
            close_file(volume, b"removed", b"").expect("it is closed");
            stored(volume);
            pair.cloud.cut(0, true);
            reactor::sleep(KNOWN);
            rename(volume, b"file", b"renamed").expect("it is renamed");
            volume.unlink(Inode::ROOT, b"removed").expect("it is removed");
            let kind = FileKind::Regular;
            volume.make_node(Inode::ROOT, b"empty", kind, 0o644, 0, &USER).expect("it is made");
        };
        for is_shared in [false, true] {
            killed_after(world, is_shared, acts, |volume| {
                assert_eq!(found(volume, b"renamed"), "old");
                assert_eq!(found(volume, b"empty"), "");
                assert_eq!(volume.lookup(Inode::ROOT, b"removed"), Err(Errno::ENOENT));
            });
        }
    });
}

#[test]
fn a_close_that_waits_when_they_go_is_kept_and_ends() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let acts = |pair: &Pair, volume: &Volume| {
            stored(volume);
            pair.cloud.cut(0, true);
            let closed = reactor::timeout(SOON, || close_file(volume, b"file", b"new"));
            closed.expect("it ends").expect("it is closed");
            let again = reactor::timeout(SOON, || close_file(volume, b"another", b"new"));
            again.expect("it ends").expect("it is closed");
        };
        killed_after(world, true, acts, |volume| {
            assert_eq!(found(volume, b"file"), "new");
            assert_eq!(found(volume, b"another"), "new");
        });
    });
}

#[test]
fn an_fsync_that_waits_when_they_go_says_that_no_quorum_has_it_and_keeps_it() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let acts = |pair: &Pair, volume: &Volume| {
            stored(volume);
            pair.cloud.cut(0, true);
            let inode = volume.lookup(Inode::ROOT, b"file").expect("it is there").inode;
            volume.write(inode, 0, b"new", false).expect("it is written");
            for _ in 0..2 {
                let synced = reactor::timeout(SOON, || volume.sync(Some(inode), false));
                assert_eq!(synced.expect("it ends"), Err(Errno::ETIMEDOUT));
            }
        };
        for is_shared in [false, true] {
            killed_after(world, is_shared, acts, |volume| assert_eq!(found(volume, b"file"), "new"));
        }
    });
}

#[test]
fn an_fsync_over_a_line_so_full_that_nobody_seems_to_be_there_waits_on() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let acts = |pair: &Pair, volume: &Volume| {
            stored(volume);
            pair.cloud.slow.borrow_mut().insert(0, Duration::from_secs(2));
            pair.cloud.blind.borrow_mut().insert(0);
            let inode = volume.lookup(Inode::ROOT, b"file").expect("it is there").inode;
            for megabyte in 0..4u64 {
                let content = vec![megabyte as u8; 1 << 20];
                volume.write(inode, megabyte << 20, &content, false).expect("it is written");
            }
            volume.sync(Some(inode), false).expect("all of it is taken, bit by bit");
            assert_eq!(volume.pending().bytes, 0);
        };
        killed_after(world, false, acts, |volume| {
            assert_eq!(volume.lookup(Inode::ROOT, b"file").expect("it is there").size, 4 << 20);
        });
    });
}

#[test]
fn a_mode_that_is_changed_after_a_close_that_no_node_has_yet_is_kept() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let acts = |pair: &Pair, volume: &Volume| {
            stored(volume);
            pair.cloud.cut(0, true);
            reactor::sleep(KNOWN);
            close_file(volume, b"file", b"new").expect("it is closed");
            // They are there again, and the commit has not got through yet.
            pair.cloud.mute.borrow_mut().insert(0);
            pair.cloud.cut(0, false);
            reactor::sleep(Duration::from_secs(4));
            change_mode(volume, b"file", 0o600);
        };
        killed_after(world, true, acts, |volume| {
            assert_eq!(found(volume, b"file"), "new");
            assert_eq!(mode_of(volume, b"file"), 0o600);
        });
    });
}

#[test]
fn where_the_journal_fails_too_nothing_is_said_to_be_kept_until_it_is() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let acts = |pair: &Pair, volume: &Volume| {
            stored(volume);
            pair.cloud.cut(0, true);
            reactor::sleep(KNOWN);
            let full = DiskFaults { capacity_bytes: Some(100_000), ..DiskFaults::default() };
            pair.hosts[0].set_disk_faults(full);
            let large: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
            assert_eq!(close_file(volume, b"large", &large), Err(Errno::ENOSPC));
            assert_eq!(make_directory(volume, b"made"), Err(Errno::ENOSPC));
            assert_eq!(rename(volume, b"file", b"renamed"), Err(Errno::ENOSPC));
            assert!(volume.pending().memory_bytes > 3_000_000);
            // What was written of it in vain does not keep the disk full.
            let is_empty = || wait_until(|| journal_bytes() < 10_000);
            reactor::timeout(SOON, is_empty).expect("it is given back");
            // What is shown all the same is kept as soon as there is room.
            pair.hosts[0].set_disk_faults(DiskFaults::default());
            let is_kept = || wait_until(|| volume.pending().memory_bytes == 0);
            reactor::timeout(SOON, is_kept).expect("it is kept");
        };
        killed_after(world, false, acts, |volume| {
            assert_eq!(found(volume, b"renamed"), "old");
            assert!(volume.lookup(Inode::ROOT, b"made").is_ok());
            assert_eq!(volume.lookup(Inode::ROOT, b"large").expect("it is there").size, 3_000_000);
        });
    });
}

#[test]
fn who_is_unmounted_without_them_waits_for_nobody() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let acts = |pair: &Pair, volume: &Volume| {
            stored(volume);
            pair.cloud.cut(0, true);
            reactor::sleep(KNOWN);
            close_file(volume, b"file", b"new").expect("it is closed");
            let ending = reactor::timeout(SOON, || volume.close()).expect("it ends");
            assert!(matches!(ending, Ending::InJournal { .. }), "{ending}");
        };
        killed_after(world, false, acts, |volume| assert_eq!(found(volume, b"file"), "new"));
    });
}
