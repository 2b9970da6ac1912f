//! The simulated disk, through the production interface: a crash loses what was not synced and nothing else, a name
//! needs its directory synced, a replaced file is the old or the new one, and disks are full or fail.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use reactor::fs::{self, File, OpenOptions};
use reactor::sim::{self, DiskFaults, SimConfig, World};
use reactor::sleep;

const FOREVER: Duration = Duration::from_secs(3600);

#[test]
fn a_crash_loses_exactly_what_was_not_synced() {
    let kinds = std::sync::Mutex::new(std::collections::BTreeSet::new());
    sim::check(&SimConfig::default(), 0..200, |world| {
        let host = world.host("a");
        let written = Rc::new(Cell::new(false));
        let done = written.clone();
        host.start(move || {
            let file = OpenOptions::new().read(true).write(true).create(true).open("/log").unwrap();
            fs::sync_dir("/").unwrap();
            file.write_all_at(&[1; 2000], 0).unwrap();
            file.sync_data().unwrap();
            file.write_all_at(&[2; 2000], 1000).unwrap();
            fs::write("/other", b"x").unwrap();
            done.set(true);
            sleep(FOREVER);
        });
        while !written.get() {
            sleep(Duration::from_millis(1));
        }
        host.crash();
        let after = host.start(move || {
            let content = fs::read("/log", 10_000).unwrap();
            assert_eq!(content[..1000], [1; 1000], "synced, and not written since");
            // 1024 is the first sector's end in what was not synced.
            let new = content[1000..].iter().take_while(|byte| **byte == 2).count();
            let expected: Vec<u8> = match new {
                0 => vec![1; 2000],
                2000 => [vec![1; 1000], vec![2; 2000]].concat(),
                torn => {
                    assert_eq!((1000 + torn) % 512, 0, "torn between two sectors");
                    let mut expected = [vec![1; 1000], vec![2; torn]].concat();
                    expected.resize(expected.len().max(2000), 1);
                    expected
                }
            };
            assert_eq!(content, expected);
            let other = fs::read("/other", 10);
            assert!(other.is_ok() || other.unwrap_err().kind() == ErrorKind::NotFound);
        });
        after.wait();
        kinds.lock().unwrap().insert(world.trace_hash());
    });
    assert!(kinds.into_inner().unwrap().len() > 10, "crashes differ");
}

#[reactor::test(seeds = 0..20)]
fn a_killed_process_loses_nothing_that_it_wrote(world: &World) {
    let host = world.host("a");
    host.start(|| {
        fs::write("/file", b"not synced").unwrap();
        sleep(FOREVER);
    });
    sleep(Duration::from_secs(1));
    host.kill();
    host.start(|| assert_eq!(fs::read("/file", 100).unwrap(), b"not synced")).wait();
}

#[reactor::test(seeds = 0..300)]
fn a_file_that_is_replaced_atomically_is_the_old_or_the_new_after_a_crash_at_any_point(world: &World) {
    let host = world.host("a");
    host.start(|| fs::write_atomically("/state", [1; 1500], 0o600).unwrap()).wait();
    let acknowledged = Rc::new(Cell::new(1u8));
    let latest = acknowledged.clone();
    host.start(move || {
        for version in 2..6 {
            fs::write_atomically("/state", [version; 1500], 0o600).unwrap();
            latest.set(version);
        }
        sleep(FOREVER);
    });
    sleep(Duration::from_micros(u64::from(world.choose(40_000))));
    host.crash();
    let acknowledged = acknowledged.get();
    host.start(move || {
        let content = fs::read("/state", 10_000).unwrap();
        assert!(content.len() == 1500 && content.iter().all(|byte| *byte == content[0]), "torn");
        let version = content[0];
        assert!(version == acknowledged || version == acknowledged + 1, "{version}, not {acknowledged}");
    })
    .wait();
}

#[test]
fn a_program_that_forgets_to_sync_is_found_out_and_its_story_says_so() {
    let careless = |world: &sim::World| {
        let host = world.host("node-3");
        host.start(|| {
            fs::write("/saved", b"important").unwrap();
            fs::sync_dir("/").unwrap();
        })
        .wait();
        host.crash();
        host.start(|| assert_eq!(fs::read("/saved", 100).unwrap(), b"important", "lost")).wait();
    };
    let failure = sim::find_failure(&SimConfig::default(), 0..100, careless).expect("a crash shows it");
    println!("{failure}");
    assert!(failure.message.contains("lost"), "{failure}");
    assert!(failure.story.contains("node-3 crashes: 1 unsynced writes lost, 0 torn"), "{failure}");
    assert_eq!(failure.fault_count(), 1, "{failure}");
}

#[test]
fn a_disk_is_full_or_fails_as_told() {
    sim::run(1, SimConfig::default(), |world| {
        let host = world.host("a");
        host.set_disk_faults(DiskFaults { capacity_bytes: Some(1000), ..DiskFaults::default() });
        host.start(|| {
            let error = fs::write("/large", [0; 2000]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            assert_eq!(fs::metadata("/large").unwrap().len_bytes, 1000, "as much as there was room for");
        })
        .wait();
        host.set_disk_faults(DiskFaults { sync_error: 1.0, ..DiskFaults::default() });
        host.start(|| {
            let file = File::create("/unlucky").unwrap();
            file.write_all_at(b"x", 0).unwrap();
            assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(5));
        })
        .wait();
        host.set_disk_faults(DiskFaults { read_error: 1.0, ..DiskFaults::default() });
        host.start(|| assert_eq!(fs::read("/unlucky", 10).unwrap_err().raw_os_error(), Some(5))).wait();
    });
}

#[test]
fn directories_are_listed_and_locks_end_with_their_process() {
    sim::run(1, SimConfig::default(), |world| {
        let host = world.host("a");
        host.start(|| {
            fs::create_dir_all("/d/e").unwrap();
            for n in 0..40 {
                fs::write(format!("/d/{n:02}"), []).unwrap();
            }
            let mut names: Vec<_> = fs::read_dir("/d").unwrap().map(|entry| entry.unwrap().name).collect();
            names.sort();
            assert_eq!(names.len(), 41);
            let found =
                fs::walk("/d").filter(|entry| entry.as_ref().is_ok_and(|entry| entry.depth == 1)).count();
            assert_eq!(found, 41);
            let file = File::open("/d/00").unwrap();
            assert!(file.try_lock().unwrap());
            assert!(!File::open("/d/00").unwrap().try_lock().unwrap());
            sleep(FOREVER);
        });
        sleep(Duration::from_secs(1));
        host.kill();
        host.start(|| assert!(File::open("/d/00").unwrap().try_lock().unwrap())).wait();
    });
}

#[test]
fn the_power_goes_at_every_change_of_the_disk_that_is_named() {
    let outcomes = |count: u32| {
        sim::run(u64::from(count), SimConfig::default(), move |world| {
            let host = world.host("a");
            let durable = Rc::new(Cell::new(false));
            let done = durable.clone();
            host.crash_at_disk_change(count);
            let life = host.start(move || {
                let file = File::create("/log").unwrap();
                fs::sync_dir("/").unwrap();
                file.write_durably_at(vec![1; 2000].into(), 0).unwrap();
                done.set(true);
            });
            life.wait();
            assert_eq!(host.is_up(), durable.get(), "either it got to its end, or the power went");
            let is_durable = durable.get();
            host.crash();
            host.start(move || {
                let there = fs::read("/log", 10_000);
                assert!(!is_durable || there.unwrap() == [1; 2000]);
            })
            .wait();
            is_durable
        })
    };
    // Made, its directory synced, written, synced: any of the four may be the last thing that happens.
    assert_eq!((0..6).map(outcomes).collect::<Vec<_>>(), [false, false, false, false, true, true]);
}

#[test]
fn a_machine_whose_wall_clock_jumps_measures_time_as_before() {
    sim::run(1, SimConfig::default(), |world| {
        let (host, day) = (world.host("a"), Duration::from_secs(86_400));
        let before = reactor::wall_clock();
        for (behind, expected) in [(false, before + day), (true, before - day)] {
            host.set_clock(day, behind);
            host.start(move || {
                assert_eq!((reactor::wall_clock(), reactor::file_clock()), (expected, expected));
                let began = reactor::now();
                sleep(Duration::ZERO);
                assert_eq!(reactor::now(), began);
            })
            .wait();
        }
        assert_eq!(reactor::wall_clock(), before, "the others' clocks are right");
    });
}
