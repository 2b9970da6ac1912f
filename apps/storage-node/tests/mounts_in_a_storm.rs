//! Several mounts of one drive, random programs on all of them, and processes that are stopped and killed: afterwards all
//! mounts show the same, and every version of every file is accounted for (see `common::history`).
//!
//! One thread makes all changes, one after the other, each on one mount and through real system calls. What is at once is
//! what the mounts have not told each other yet: files stay open, most changes are synced late, and a stopped process
//! knows nothing of what the others do meanwhile. `HYPHA_SEED` replays the same operations (not the same moments);
//! `HYPHA_STORM_MINUTES` makes it long.

mod common;
mod storm;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::history::{Content, History};
use common::random::Random;
use common::running::{Running, kill_hard, signal};
use common::{Place, fuse_is_usable, loud, text};
use rustix::process::Signal;
use storm::tree::{Tree, is_file, is_harmless, tree};

/// For merges that follow each other on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(180);
/// Changes of one storm, between two calms.
const STEP_COUNT: usize = 300;
/// What all storms of the suite may take together, on a machine that is busy: the first goes to its end in any case.
const SHORT: Duration = Duration::from_secs(20);
const DIRECTORIES: [&str; 4] = ["", "a", "b", "a/c"];
const NAME_COUNT: u64 = 3;
const LOG: &str = "log";

/// The numbers that one step is made of: always as many, so that a seed makes the same steps whatever comes of them.
struct Step {
    mount: u64,
    kind: u64,
    event: u64,
    places: [u64; 4],
    handle: u64,
    offset: u64,
    size: u64,
    pause: u64,
}

impl Step {
    fn draw(random: &mut Random) -> Step {
        Step {
            mount: random.next(),
            kind: random.below(100),
            event: random.below(400),
            places: [random.next(), random.next(), random.next(), random.next()],
            handle: random.next(),
            offset: random.next(),
            size: random.next(),
            pause: random.below(20),
        }
    }
}

/// A program's open file.
struct Open {
    mount: usize,
    path: PathBuf,
    file: File,
    /// What it made and has not synced.
    made: Vec<Content>,
}

struct Mounted {
    drive: PathBuf,
    /// `None` is the one in `up`, which is not killed: it has the node.
    process: Option<Running>,
    stopped_until: Option<usize>,
    log: Option<File>,
    /// Lines that it appended: all, and how many of them are synced.
    lines: Vec<String>,
    synced_lines: usize,
    syncs: Vec<JoinHandle<()>>,
}

struct Storm {
    home: PathBuf,
    mounts: Vec<Mounted>,
    open: Vec<Open>,
    history: History,
    /// Every path that a program of ours gave a version.
    paths: HashMap<Content, Vec<String>>,
    trace: Vec<String>,
    killed_lines: Vec<String>,
    /// The last step, and when it began: whoever hangs is told.
    watched: Arc<Mutex<Watched>>,
    /// In the last calm.
    conflict_count: usize,
    up: Running,
    _place: Place,
}

/// When a step began, which, and the processes that know why it does not end.
type Watched = (Instant, String, Vec<u32>);

/// Ends the story with a word, and a dump of every process, where a step hangs: no step waits that long for anything.
fn watch(watched: Arc<Mutex<Watched>>) {
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            let (since, step, pids) = watched.lock().unwrap().clone();
            if since.elapsed() < 2 * SOON {
                continue;
            }
            loud(&format!("HANGS: {step}"));
            for pid in pids {
                signal(pid, Signal::USR2);
                thread::sleep(Duration::from_secs(5));
                kill_hard(pid);
            }
            thread::sleep(Duration::from_secs(60));
            std::process::exit(1);
        }
    });
}

#[test]
fn mounts_agree_after_a_storm_and_every_version_is_accounted_for() {
    if !fuse_is_usable("mounts_agree_after_a_storm_and_every_version_is_accounted_for") {
        return;
    }
    let mut random = Random::announced("mounts_in_a_storm");
    let minutes: Option<u64> =
        std::env::var("HYPHA_STORM_MINUTES").ok().map(|text| text.parse().expect("a number of minutes"));
    let until = Instant::now() + minutes.map_or(SHORT, |minutes| Duration::from_secs(60 * minutes));
    let watched = Arc::new(Mutex::new((Instant::now(), String::new(), Vec::new())));
    watch(watched.clone());
    let mut number = 0;
    for mount_count in [2, 3].into_iter().cycle() {
        let mut storm = Storm::begin(mount_count, &watched);
        // A drive sees several storms, for what one leaves behind meets the next.
        for _ in 0..if minutes.is_some() { 4 } else { 1 } {
            let started = Instant::now();
            storm.run(&mut random);
            storm.calm();
            number += 1;
            loud(&format!(
                "storm {number} on {mount_count} mounts: {}, {} conflict copies, {:.0} s",
                storm.history.summary(),
                storm.conflict_count,
                started.elapsed().as_secs_f64()
            ));
            storm.clear();
        }
        storm.end();
        if number > 1 && Instant::now() > until {
            return;
        }
    }
}

impl Storm {
    fn begin(mount_count: usize, watched: &Arc<Mutex<Watched>>) -> Storm {
        let place = Place::new("storm");
        let home = place.join("home");
        let drive = place.join("drive-0");
        let up = Running::up(&home, &drive, 1);
        let mut storm = Storm {
            home,
            mounts: vec![Mounted::new(drive, None)],
            open: Vec::new(),
            history: History::default(),
            paths: HashMap::new(),
            trace: Vec::new(),
            killed_lines: Vec::new(),
            watched: watched.clone(),
            conflict_count: 0,
            up,
            _place: place,
        };
        for number in 1..mount_count {
            let drive = storm._place.join(&format!("drive-{number}"));
            let process = storm.mount(&drive);
            storm.mounts.push(Mounted::new(drive, Some(process)));
        }
        storm
    }

    fn mount(&self, drive: &Path) -> Running {
        Running::start(&["mount", "--home", text(&self.home), text(drive)], "the drive is")
    }

    fn run(&mut self, random: &mut Random) {
        for directory in &DIRECTORIES[1..] {
            fs::create_dir(self.mounts[0].drive.join(directory)).unwrap();
        }
        for number in 0..STEP_COUNT {
            let step = Step::draw(random);
            for at in 0..self.mounts.len() {
                if self.mounts[at].stopped_until.is_some_and(|until| number >= until) {
                    self.go_on(at);
                }
            }
            // Also so that the clock that stamps files tells this step from the one before it.
            thread::sleep(Duration::from_millis(if step.pause == 0 { step.size % 600 } else { 6 }));
            let count = self.mounts.len();
            let mut mount = step.mount as usize % count;
            while self.mounts[mount].stopped_until.is_some() {
                mount = (mount + 1) % count;
            }
            self.trace.push(format!("{number} on mount {mount}"));
            self.event(mount, number, &step);
            if self.mounts[mount].stopped_until.is_none()
                && let Err(error) = self.change(mount, &step)
            {
                assert!(is_harmless(&error), "{}", self.failed(&format!("step {number}: {error}")));
                self.note(&format!("{error}"));
            }
        }
    }

    fn event(&mut self, at: usize, number: usize, step: &Step) {
        match step.event {
            0..16 => self.sync(at),
            16..32 => {
                // The driver goes on meanwhile.
                let drive = self.mounts[at].drive.clone();
                self.mounts[at].syncs.push(thread::spawn(move || {
                    let _ = File::open(drive).and_then(|drive| drive.sync_all());
                }));
            }
            32..60 if at > 0 => {
                self.note("stopped");
                let process = self.mounts[at].process.as_ref().unwrap();
                signal(process.pid(), Signal::STOP);
                self.mounts[at].stopped_until = Some(number + 4 + step.size as usize % 30);
            }
            60..63 if at > 0 => self.kill(at),
            _ => {}
        }
    }

    fn go_on(&mut self, at: usize) {
        self.mounts[at].stopped_until = None;
        signal(self.mounts[at].process.as_ref().unwrap().pid(), Signal::CONT);
    }

    fn kill(&mut self, at: usize) {
        self.note("killed");
        let mut process = self.mounts[at].process.take().unwrap();
        kill_hard(process.pid());
        process.wait(SOON).expect("it is killed");
        self.history.killed(at);
        self.open.retain(|open| open.mount != at);
        let mount = &mut self.mounts[at];
        mount.log = None;
        self.killed_lines.extend(mount.lines.drain(mount.synced_lines..));
        mount.syncs.drain(..).for_each(|sync| sync.join().unwrap());
        // A new process first closes the files that this one has open, which waits for whoever is stopped.
        for at in 0..self.mounts.len() {
            if self.mounts[at].stopped_until.take().is_some() && self.mounts[at].process.is_some() {
                self.go_on(at);
            }
        }
        let process = self.mount(&self.mounts[at].drive);
        self.mounts[at].process = Some(process);
    }

    fn sync(&mut self, at: usize) {
        self.note("sync");
        let drive = File::open(&self.mounts[at].drive).unwrap();
        drive.sync_all().unwrap_or_else(|error| panic!("{}", self.failed(&format!("sync: {error}"))));
        self.history.all_acknowledged(at);
        self.open.iter_mut().filter(|open| open.mount == at).for_each(|open| open.made.clear());
        self.mounts[at].synced_lines = self.mounts[at].lines.len();
    }

    fn note(&mut self, words: &str) {
        self.trace.last_mut().unwrap().push_str(&format!("; {words}"));
        *self.watched.lock().unwrap() = (Instant::now(), self.trace.last().unwrap().clone(), self.pids());
    }

    fn pids(&self) -> Vec<u32> {
        let mounts = self.mounts.iter().filter_map(|mount| mount.process.as_ref());
        mounts.chain([&self.up]).map(Running::pid).collect()
    }

    fn failed(&self, words: &str) -> String {
        format!("{words}\nthe steps:\n{}", self.trace.join("\n"))
    }

    /// Lets the mounts tell each other everything, and checks what is there then.
    fn calm(&mut self) {
        self.trace.push("the calm".into());
        for at in 0..self.mounts.len() {
            if self.mounts[at].stopped_until.is_some() {
                self.go_on(at);
            }
        }
        self.open.clear();
        for at in 0..self.mounts.len() {
            self.mounts[at].log = None;
            self.sync(at);
            let syncs = std::mem::take(&mut self.mounts[at].syncs);
            syncs.into_iter().for_each(|sync| sync.join().unwrap());
        }
        let found = self.agreed();
        self.conflict_count = found.keys().filter(|path| path.contains(" (conflict, ")).count();
        // One that has seen nothing of it all.
        let cold = self._place.join("cold");
        let process = self.mount(&cold);
        assert!(tree(&cold).unwrap() == found, "{}", self.failed("a new mount shows something else"));
        assert!(process.stop().success());
        let files = found.iter().filter(|(path, (mode, ..))| is_file(*mode) && !path.starts_with(LOG));
        let files: Vec<_> = files.map(|(path, (.., content))| (path, content)).collect();
        if let Err(wrong) = self.history.check(files) {
            panic!("{}", self.failed(&wrong));
        }
        self.check_log(&found);
    }

    /// The tree that all mounts show, once they do.
    fn agreed(&mut self) -> Tree {
        let until = Instant::now() + SOON;
        loop {
            // Twice: what the first round merges is for the second to tell.
            for at in [0, 1].into_iter().flat_map(|_| 0..self.mounts.len()).collect::<Vec<_>>() {
                self.sync(at);
            }
            let trees: Vec<io::Result<Tree>> = self.mounts.iter().map(|mount| tree(&mount.drive)).collect();
            let is_agreed = trees.iter().all(|tree| matches!((tree, &trees[0]), (Ok(a), Ok(b)) if a == b));
            if is_agreed {
                return trees.into_iter().next().unwrap().unwrap();
            }
            if Instant::now() > until {
                let shown = trees.iter().map(|tree| match tree {
                    Err(error) => error.to_string(),
                    Ok(tree) => tree
                        .iter()
                        .map(|(path, (mode, links, content))| {
                            format!("{path} {mode:o} {links} {} {:?}\n", content.len(), content.get(..8))
                        })
                        .collect(),
                });
                let shown = shown.collect::<Vec<String>>().join("---\n");
                panic!("{}", self.failed(&format!("the mounts do not agree:\n{shown}")));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn check_log(&self, found: &Tree) {
        let logs = found.iter().filter(|(path, _)| path.starts_with(LOG));
        let mut there: HashMap<&str, usize> = HashMap::new();
        let text: Vec<String> =
            logs.map(|(_, (.., content))| String::from_utf8_lossy(content).into_owned()).collect();
        for line in text.iter().flat_map(|text| text.split_inclusive('\n')) {
            *there.entry(line).or_default() += 1;
        }
        for line in self.mounts.iter().flat_map(|mount| &mount.lines) {
            let count = there.remove(line.as_str());
            assert!(count == Some(1), "{}", self.failed(&format!("{count:?} times in the log: {line:.30}")));
        }
        for (line, _) in there {
            let is_known = self.killed_lines.iter().any(|known| known == line);
            assert!(is_known, "{}", self.failed(&format!("nobody appended {line:.30}")));
        }
    }

    /// Removes everything, for the next storm.
    fn clear(&mut self) {
        for entry in fs::read_dir(&self.mounts[0].drive).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        assert!(self.agreed().is_empty());
        self.history = History::default();
        self.paths.clear();
        self.trace.clear();
        self.trace.push("after an earlier storm".into());
        self.killed_lines.clear();
        for mount in &mut self.mounts {
            mount.lines.clear();
            mount.synced_lines = 0;
        }
    }

    fn end(mut self) {
        for mount in self.mounts.drain(..) {
            if let Some(process) = mount.process {
                assert!(process.stop().success());
            }
        }
        assert!(self.up.stop().success());
    }
}

impl Mounted {
    fn new(drive: PathBuf, process: Option<Running>) -> Mounted {
        Mounted {
            drive,
            process,
            stopped_until: None,
            log: None,
            lines: Vec::new(),
            synced_lines: 0,
            syncs: Vec::new(),
        }
    }
}
