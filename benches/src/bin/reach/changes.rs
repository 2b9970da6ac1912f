//! A drive that is written while the ways to its nodes change: what becomes of what was acknowledged, and how long it stands.
//!
//! One writes on its drive, numbered small files each with an fsync and large ones in steps; a node and a second drive are behind
//! another router, three nodes and two relays outside. After each change it is told how long the slowest fsync took and how
//! the two were reached; at the end every file that was acknowledged is read on the other drive, and whatever is missing or
//! other than it was written is a failure. Times are told, and nothing fails by them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::random::Random;
use benches::table::Table;
use clap::ValueEnum;

use crate::nat_lab::{Kind, Lab, PUBLIC, Site};
use crate::network::Network;

/// Bytes of a small file, and of a step of a large one.
const SMALL_BYTES: usize = 8_000;
const STEP_BYTES: usize = 64 << 10;
/// Steps of a large file.
const STEPS: usize = 128;
/// Between two writes: the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(20);
/// How long it is looked on before the first change, and how long the other drive may take to see what was written.
const SETTLES: Duration = Duration::from_secs(5);
const SEEN_WITHIN: Duration = Duration::from_secs(90);

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Change {
    /// The writer's router forgets all that it lent.
    Flush,
    /// It gets another address.
    Move,
    /// No UDP for 20 s.
    Udp,
    /// Nothing at all for 10 s.
    Cut,
    /// A relay falls silent for 25 s, and then the other one.
    Silence,
    /// A relay is killed, and started again, and then the other one.
    Kill,
    /// The direct way answers and carries nothing for 25 s.
    Drop,
}

impl Change {
    /// Has it happen, and heal; how long it lasted, and is looked on afterwards.
    fn happen(self, network: &mut Network<'_>) -> io::Result<Duration> {
        let (lab, wait) = (network.lab, |seconds| thread::sleep(Duration::from_secs(seconds)));
        let begun = Instant::now();
        let looked_on = match self {
            Change::Flush => {
                lab.flush(0);
                20
            }
            Change::Move => {
                lab.move_site(0);
                25
            }
            Change::Udp => {
                lab.block_udp(0, true);
                wait(20);
                lab.block_udp(0, false);
                20
            }
            Change::Cut => {
                lab.cut(0, true);
                wait(10);
                lab.cut(0, false);
                30
            }
            Change::Silence => {
                for address in [PUBLIC[1], PUBLIC[2]] {
                    lab.silence(address, true);
                    wait(25);
                    lab.silence(address, false);
                    wait(10);
                }
                0
            }
            Change::Kill => {
                for name in RELAYS {
                    network.kill(name);
                    wait(15);
                    network.run_node("pub", name)?;
                    wait(10);
                }
                0
            }
            Change::Drop => {
                lab.pass_small_only(0, 1, true);
                wait(25);
                lab.pass_small_only(0, 1, false);
                65
            }
        };
        let lasted = begun.elapsed();
        wait(looked_on);
        Ok(lasted)
    }
}

const RELAYS: [&str; 2] = ["relay-1", "relay-2"];

/// What was acknowledged, and how long each fsync took.
#[derive(Default)]
struct Written {
    /// Each file with what tells its content.
    files: BTreeMap<PathBuf, u64>,
    /// When each began, and how long it took.
    took: Vec<(Instant, Duration)>,
    refused: Vec<(Instant, String)>,
    /// When the writer's program took another way to the node behind the other router.
    ways: Vec<(Instant, &'static str)>,
}

/// Has everything change in turn, and prints the table; whether nothing was lost.
pub(crate) fn run(program: &Path, kinds: [Kind; 2], only: &[String]) -> io::Result<bool> {
    let [one, other] = kinds.map(Site::from);
    let lab = Lab::new("c", &[one, other, other]);
    let mut network = Network::found(&lab, program, 3, false)?;
    network.add_node("pub", RELAYS[0], Some(PUBLIC[1]))?;
    network.add_node("pub", RELAYS[1], Some(PUBLIC[2]))?;
    network.add_node("host1", "node", None)?;
    let [near, far] = ["near", "far"].map(|name| network.path(&format!("drive-{name}")));
    network.add_writer("host0", "near", Some(&near))?;
    network.add_writer("host2", "far", Some(&far))?;
    let changes = changes_named(only)?;
    let (written, is_over) = (Mutex::new(Written::default()), AtomicBool::new(false));
    let heading =
        ["what changes", "lasts s", "files", "slowest fsync s", "refused", "ways of the writer, after s"];
    let mut table = Table::new(&heading);
    let log = network.log("near");
    thread::scope(|s| -> io::Result<()> {
        s.spawn(|| watch(&log, &written, &is_over));
        s.spawn(|| write_small(&near, &written, &is_over));
        s.spawn(|| write_large(&near, &written, &is_over));
        let result = changes.iter().try_for_each(|change| {
            thread::sleep(SETTLES);
            let begun = Instant::now();
            let lasted = change.happen(&mut network)?;
            let written = written.lock().expect("nobody panics with it");
            table.row(written.row(&format!("{change:?}").to_lowercase(), begun, lasted));
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        result
    })?;
    println!("{table}");
    let written = written.into_inner().expect("nobody panics with it");
    if let Some((_, why)) = written.refused.first() {
        println!("the first that was refused: {why}");
    }
    let lost: Vec<String> =
        written.files.iter().filter_map(|(path, sum)| differs(&far.join(path), sum)).collect();
    println!("{} files were acknowledged; lost or changed: {}", written.files.len(), lost.len());
    lost.iter().take(10).for_each(|lost| println!("  {lost}"));
    Ok(lost.is_empty())
}

impl Written {
    /// What is told of a change.
    fn row(&self, name: &str, begun: Instant, lasted: Duration) -> Vec<String> {
        let took =
            self.took.iter().filter(|(at, took)| *at + *took >= begun).map(|(_, took)| took.as_secs_f64());
        let ways = self.ways.iter().filter(|(at, _)| *at >= begun);
        let ways = ways.map(|(at, way)| format!("{way} {:.1}", (*at - begun).as_secs_f64()));
        vec![
            name.to_owned(),
            format!("{:.1}", lasted.as_secs_f64()),
            took.clone().count().to_string(),
            format!("{:.2}", took.fold(0.0, f64::max)),
            self.refused.iter().filter(|(at, _)| *at >= begun).count().to_string(),
            ways.collect::<Vec<_>>().join(", "),
        ]
    }
}

fn changes_named(names: &[String]) -> io::Result<Vec<Change>> {
    let all = Change::value_variants();
    let change = |name: &String| Change::from_str(name, true).map_err(io::Error::other);
    if names.is_empty() { Ok(all.to_vec()) } else { names.iter().map(change).collect() }
}

/// Notes when the writer's program says that it reaches the other by another way.
fn watch(log: &Path, written: &Mutex<Written>, is_over: &AtomicBool) {
    let mut known = 0;
    while !is_over.load(Ordering::Relaxed) {
        let said = fs::read_to_string(log).unwrap_or_default();
        let ways = said.lines().filter_map(|line| line.split_once("is reached by "));
        let ways = ways.map(|(_, rest)| if rest.starts_with("Some") { "direct" } else { "relay" });
        let new: Vec<&str> = ways.skip(known).collect();
        known += new.len();
        let now = Instant::now();
        written.lock().expect("nobody panics with it").ways.extend(new.into_iter().map(|way| (now, way)));
        thread::sleep(PAUSE);
    }
}

fn write_small(drive: &Path, written: &Mutex<Written>, is_over: &AtomicBool) {
    write_numbered(drive, "small", written, is_over, |file, number| {
        let content: Vec<u8> = format!("{number};").bytes().cycle().take(SMALL_BYTES).collect();
        file.write_all(&content)?;
        Ok(sum(&content))
    });
}

fn write_large(drive: &Path, written: &Mutex<Written>, is_over: &AtomicBool) {
    write_numbered(drive, "large", written, is_over, |file, number| {
        let mut all = Vec::new();
        for step in 0..STEPS {
            let random = Random::new(number as u64, step as u64);
            let content: Vec<u8> = (0..STEP_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
            file.write_all(&content)?;
            all.extend(content);
            thread::sleep(PAUSE);
        }
        Ok(sum(&all))
    });
}

/// Writes one file after another, and notes those whose fsync said that they are kept.
fn write_numbered(
    drive: &Path,
    directory: &str,
    written: &Mutex<Written>,
    is_over: &AtomicBool,
    write: impl Fn(&mut File, usize) -> io::Result<u64>,
) {
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        let path = Path::new(directory).join(number.to_string());
        let mut asked = Instant::now();
        let result = fs::create_dir_all(drive.join(directory)).and_then(|()| {
            let mut file = File::create(drive.join(&path))?;
            let sum = write(&mut file, number)?;
            asked = Instant::now();
            file.sync_all()?;
            Ok(sum)
        });
        let mut written = written.lock().expect("nobody panics with it");
        match result {
            Ok(sum) => {
                written.files.insert(path, sum);
                written.took.push((asked, asked.elapsed()));
            }
            Err(error) => written.refused.push((Instant::now(), format!("{directory}: {error}"))),
        }
        drop(written);
        number += 1;
        thread::sleep(PAUSE);
    }
}

/// What is wrong with a file that was acknowledged, seen from the other drive.
fn differs(path: &Path, expected: &u64) -> Option<String> {
    let begun = Instant::now();
    loop {
        let read = fs::read(path).map(|content| sum(&content));
        if read.as_ref().is_ok_and(|sum| sum == expected) {
            return None;
        }
        if begun.elapsed() > SEEN_WITHIN {
            return Some(format!("{}: {read:?}", path.display()));
        }
        thread::sleep(PAUSE);
    }
}

/// Tells contents apart.
fn sum(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
