//! A hundred SIGKILLs under load, and nothing that `fsync` acknowledged is lost: neither bytes nor names.
//!
//! Two writers create, overwrite, rename and remove files, and note in a ledger what was acknowledged before the next
//! kill. The processes die at random moments, in two set-ups:
//! - everything under `up`: its process (the drive and node 1) dies and takes its nodes along, or one of its nodes
//!   dies and `up` starts it again;
//! - each node and the mount by itself: any one of the four dies, and is started again.
//!
//! One node is down at a time, since three replicas promise no more. Whenever the drive is mounted again it is held
//! to the ledger. `HYPHA_SEED` replays the choices (not the scheduler's), `HYPHA_KILLS` sets how many.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::random::Random;
use common::running::{Running, kill_hard};
use common::{Place, fuse_is_usable, loud, text};

const KILLS: u64 = 100;
const WRITERS: u64 = 2;
/// How many entries of the ledger are read at each mount; the last mount reads all.
const SAMPLE: usize = 40;

/// What the drive must show.
#[derive(Default)]
struct Ledger {
    /// Acknowledged: the file's name, and the number that its content follows from.
    kept: BTreeMap<String, u64>,
    /// Acknowledged removals and old names.
    gone: BTreeSet<String>,
    /// How many acknowledgements there were in all.
    count: u64,
}

impl Ledger {
    fn keep(&mut self, name: &str, number: u64) {
        self.gone.remove(name);
        self.kept.insert(name.to_owned(), number);
        self.count += 1;
    }

    fn lose(&mut self, name: &str) {
        self.kept.remove(name);
        self.gone.insert(name.to_owned());
        self.count += 1;
    }

    /// Neither is certain until the next acknowledgement.
    fn doubt(&mut self, name: &str) {
        self.kept.remove(name);
        self.gone.remove(name);
    }
}

/// The content with this number: it cannot be taken for another's.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random::from_seed(number);
    let length = match random.below(10) {
        0 => 0,
        1 => 200_000 + random.below(200_000),
        2..5 => random.below(40_000),
        _ => random.below(3_000),
    };
    random.bytes(length as usize)
}

/// Writes until the drive is gone or `stop` is set.
fn write(
    drive: &Path,
    ledger: &Mutex<Ledger>,
    stop: &AtomicBool,
    writer: u64,
    mut number: u64,
) -> io::Result<()> {
    let directory = drive.join(format!("writer-{writer}"));
    fs::create_dir_all(&directory)?;
    let sync_directory = || File::open(&directory)?.sync_all();
    let mut random = Random::from_seed(number);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let own = format!("writer-{writer}/");
        let known: Vec<(String, u64)> = {
            let ledger = ledger.lock().unwrap();
            let of_ours = ledger.kept.range(own.clone()..).take_while(|(name, _)| name.starts_with(&own));
            of_ours.map(|(name, number)| (name.clone(), *number)).collect()
        };
        let old = (!known.is_empty()).then(|| known[random.below(known.len() as u64) as usize].clone());
        match (random.below(8), old) {
            (0, Some((name, kept))) => {
                let new = format!("{own}renamed-{number}");
                ledger.lock().unwrap().doubt(&name);
                fs::rename(drive.join(&name), drive.join(&new))?;
                sync_directory()?;
                let mut ledger = ledger.lock().unwrap();
                ledger.lose(&name);
                ledger.keep(&new, kept);
            }
            (1, Some((name, _))) => {
                ledger.lock().unwrap().doubt(&name);
                fs::remove_file(drive.join(&name))?;
                sync_directory()?;
                ledger.lock().unwrap().lose(&name);
            }
            (2, Some((name, _))) => {
                ledger.lock().unwrap().doubt(&name);
                write_file(&drive.join(&name), number)?;
                ledger.lock().unwrap().keep(&name, number);
            }
            _ => {
                let name = format!("{own}file-{number}");
                write_file(&drive.join(&name), number)?;
                ledger.lock().unwrap().keep(&name, number);
            }
        }
    }
    Ok(())
}

fn write_file(path: &Path, number: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&content(number))?;
    file.sync_all()
}

/// Writers at work on one mount.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<io::Result<()>>>,
}

impl Load {
    fn start(drive: &Path, ledger: &Arc<Mutex<Ledger>>, round: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |writer| {
            let (drive, ledger, stop) = (drive.to_owned(), ledger.clone(), stop.clone());
            // Numbers never repeat: a round has room for a million.
            thread::spawn(move || {
                write(&drive, &ledger, &stop, writer, (round * WRITERS + writer + 1) * 1_000_000)
            })
        };
        let writers = (0..WRITERS).map(start).collect();
        Load { stop, writers }
    }

    /// The drive is there, so the writers must have met no error.
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer
                .join()
                .unwrap()
                .expect("an error on a drive that no kill has touched, with a quorum of nodes up");
        }
    }

    /// The drive is gone: the writers must notice, and not hang.
    fn interrupted(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            let _ = writer.join().unwrap();
        }
    }
}

/// Holds the drive to the ledger, all of it or a sample.
fn check(drive: &Path, ledger: &Mutex<Ledger>, random: &mut Random, all: bool) {
    let ledger = ledger.lock().unwrap();
    let share = |count: usize| if all { 1 } else { (count / SAMPLE).max(1) as u64 };
    for (name, number) in &ledger.kept {
        if random.one_in(share(ledger.kept.len())) {
            let found =
                fs::read(drive.join(name)).unwrap_or_else(|error| panic!("{name} was acknowledged: {error}"));
            assert!(found == content(*number), "{name} has other bytes than were acknowledged");
        }
    }
    for name in &ledger.gone {
        if random.one_in(share(ledger.gone.len())) {
            let found = fs::symlink_metadata(drive.join(name));
            assert!(found.is_err(), "{name} is back, though its removal was acknowledged");
        }
    }
}

/// A drive, its ledger, and how many kills it has to live through; each set-up has its own, so that both run at once.
struct Story {
    place: Place,
    ledger: Arc<Mutex<Ledger>>,
    random: Random,
    kills: u64,
    started: Instant,
}

impl Story {
    fn begin(name: &str, share_percent: u64) -> Option<Story> {
        if !fuse_is_usable(name) {
            return None;
        }
        let kills = std::env::var("HYPHA_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS);
        Some(Story {
            place: Place::new(name),
            ledger: Arc::default(),
            random: Random::announced(name),
            kills: kills * share_percent / 100,
            started: Instant::now(),
        })
    }

    /// Holds the drive to the whole ledger.
    fn end(mut self, name: &str) {
        let up = Running::up(&self.place.join("home"), &self.place.join("drive"), 3);
        check(&self.place.join("drive"), &self.ledger, &mut self.random, true);
        assert!(up.stop().success());
        let ledger = self.ledger.lock().unwrap();
        loud(&format!(
            "{name}: {} kills, {} acknowledgements, {} files kept, {:?}",
            self.kills,
            ledger.count,
            ledger.kept.len(),
            self.started.elapsed()
        ));
        assert!(ledger.count > self.kills, "hardly any load: {} acknowledgements", ledger.count);
    }
}

#[test]
fn forty_kills_of_what_up_runs_lose_nothing_that_fsync_acknowledged() {
    let name = "hundred-kills-under-up";
    let Some(mut story) = Story::begin(name, 40) else { return };
    let (home, drive) = (story.place.join("home"), story.place.join("drive"));
    kill_under_up(&home, &drive, &story.ledger, &mut story.random, story.kills);
    story.end(name);
}

#[test]
fn sixty_kills_one_by_one_lose_nothing_that_fsync_acknowledged() {
    let name = "hundred-kills-one-by-one";
    let Some(mut story) = Story::begin(name, 60) else { return };
    let (home, drive) = (story.place.join("home"), story.place.join("drive"));
    assert!(Running::up(&home, &drive, 3).stop().success());
    kill_one_by_one(&home, &drive, &story.ledger, &mut story.random, story.kills);
    story.end(name);
}

/// Sleeps for a random moment: long enough for some commits, short enough to hit one.
fn moment(random: &mut Random) {
    thread::sleep(Duration::from_millis(20 + random.below(300)));
}

fn kill_under_up(home: &Path, drive: &Path, ledger: &Arc<Mutex<Ledger>>, random: &mut Random, kills: u64) {
    let mut done = 0;
    while done < kills {
        let mut up = Running::up(home, drive, 3);
        check(drive, ledger, random, false);
        let load = Load::start(drive, ledger, done);
        loop {
            moment(random);
            done += 1;
            if random.one_in(2) || done == kills {
                up.kill();
                load.interrupted();
                break;
            }
            let number = 2 + random.below(2) as u16;
            kill_hard(up.node_pid(number).expect("up tells the processes of its nodes"));
            let back = up.wait_for(&format!("  node {number} "), Duration::from_secs(30));
            assert!(back, "node {number} was not started again: {}", up.drain());
        }
    }
}

fn kill_one_by_one(home: &Path, drive: &Path, ledger: &Arc<Mutex<Ledger>>, random: &mut Random, kills: u64) {
    let node = |number: u64| {
        let home = home.join(format!("nodes/{number}"));
        Running::start(&["run", "--home", text(&home)], "listening on")
    };
    let mount = || Running::start(&["mount", "--home", text(home), text(drive)], "the drive is");
    let mut nodes: Vec<Running> = (1..=3).map(node).collect();
    let mut mounted = mount();
    let mut load = Load::start(drive, ledger, 1000);
    for kill in 0..kills {
        moment(random);
        match random.below(5) {
            victim @ 0..3 => {
                nodes.remove(victim as usize).kill();
                moment(random);
                nodes.insert(victim as usize, node(victim + 1));
            }
            _ => {
                mounted.kill();
                load.interrupted();
                mounted = mount();
                check(drive, ledger, random, false);
                load = Load::start(drive, ledger, 1001 + kill);
            }
        }
    }
    load.finish();
    assert!(mounted.stop().success());
    for node in nodes {
        assert!(node.stop().success());
    }
}
