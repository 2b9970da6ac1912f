//! Several mounts of one drive, random programs on all of them, and processes that are stopped and killed: afterwards all
//! mounts show the same, and every version of every file is accounted for (see `common::history`).
//!
//! One thread makes all changes, one after the other, each on one mount and through real system calls. What is at once is
//! what the mounts have not told each other yet: files stay open, most changes are synced late, and a stopped process
//! knows nothing of what the others do meanwhile. `HYPHA_SEED` replays the same operations (not the same moments);
//! `HYPHA_STORM_MINUTES` makes it long.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::history::{Content, History};
use common::random::Random;
use common::running::{Running, kill_hard, signal};
use common::{Place, fuse_is_usable, loud, text};
use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

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

type Tree = BTreeMap<String, (u32, u64, Content)>;

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

    /// A name, most often one of a few; else one that is there, conflict copies among them. Relative to the drive.
    fn pick(&self, at: usize, place: u64) -> String {
        let directory = DIRECTORIES[(place >> 8) as usize % DIRECTORIES.len()];
        let mut name = format!("n{}.txt", (place >> 16) % NAME_COUNT);
        if place.is_multiple_of(6) {
            let mut names: Vec<String> = fs::read_dir(self.mounts[at].drive.join(directory))
                .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
                .unwrap_or_default();
            names.retain(|name| !name.starts_with(LOG));
            names.sort();
            if !names.is_empty() {
                name = names.swap_remove((place >> 16) as usize % names.len());
            }
        }
        if directory.is_empty() { name } else { format!("{directory}/{name}") }
    }

    fn change(&mut self, at: usize, step: &Step) -> io::Result<()> {
        let path = self.pick(at, step.places[0]);
        let other = self.pick(at, step.places[1]);
        match step.kind {
            0..14 => self.create(at, &path, step),
            14..22 => self.open(at, &path).map(drop),
            22..58 => self.edit(at, &path, step),
            58..65 => self.sync_file(at, step),
            65..72 => self.close(at, step),
            72..79 => self.save(at, &path, step),
            79..84 => self.rename(at, &other, &path),
            84..89 => self.unlink(at, &path),
            89..91 => {
                self.note(&format!("link {other} as {path}"));
                let drive = &self.mounts[at].drive;
                fs::hard_link(drive.join(&other), drive.join(&path))
            }
            91..94 => {
                let directory = DIRECTORIES[1 + step.places[0] as usize % 3];
                self.note(&format!("mkdir {directory}"));
                fs::create_dir(self.mounts[at].drive.join(directory))
            }
            94 => {
                let directory = DIRECTORIES[1 + step.places[0] as usize % 3];
                self.note(&format!("rmdir {directory}"));
                fs::remove_dir(self.mounts[at].drive.join(directory))
            }
            95..99 => self.append(at, step),
            _ => {
                self.note(&format!("chmod {path}"));
                let mode = 0o600 + step.size as u32 % 0o100;
                fs::set_permissions(self.mounts[at].drive.join(&path), Permissions::from_mode(mode))
            }
        }
    }

    /// Bytes that no other file begins with, and some more.
    fn fresh(&mut self, step: &Step) -> Content {
        let more = if step.size.is_multiple_of(16) { 100_000 } else { 3_000 };
        let mut content = self.history.token().to_vec();
        content.resize(17 + (step.offset % more) as usize, 1);
        content
    }

    fn create(&mut self, at: usize, path: &str, step: &Step) -> io::Result<()> {
        self.note(&format!("create {path}"));
        let place = self.mounts[at].drive.join(path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&place)?;
        let content = self.fresh(step);
        file.write_all_at(&content, 0)?;
        // What another mount made there meanwhile may be the file now, with this in it.
        let made = read(&file)?;
        let what = self.trace.last().unwrap().clone();
        assert!(made == content, "{}", self.failed("a new file shows something else than what was written"));
        self.history.made(at, made.clone(), &what);
        self.knows(&made, path);
        self.open.push(Open { mount: at, path: path.into(), file, made: vec![made] });
        Ok(())
    }

    fn knows(&mut self, content: &Content, path: &str) {
        self.paths.entry(content.clone()).or_default().push(path.to_owned());
    }

    fn open(&mut self, at: usize, path: &str) -> io::Result<usize> {
        self.note(&format!("open {path}"));
        let place = self.mounts[at].drive.join(path);
        let file = OpenOptions::new().read(true).write(true).open(&place)?;
        self.open.push(Open { mount: at, path: path.into(), file, made: Vec::new() });
        Ok(self.open.len() - 1)
    }

    /// One of the open files of a mount.
    fn choose(&self, at: usize, step: &Step) -> Option<usize> {
        let of_it: Vec<usize> = (0..self.open.len()).filter(|index| self.open[*index].mount == at).collect();
        of_it.get(step.handle as usize % of_it.len().max(1)).copied()
    }

    fn edit(&mut self, at: usize, path: &str, step: &Step) -> io::Result<()> {
        let index = match self.choose(at, step) {
            Some(index) => index,
            None => self.open(at, path)?,
        };
        let size = read(&self.open[index].file)?.len() as u64;
        let token = self.history.token();
        let offset = if step.places[2].is_multiple_of(4) { 0 } else { step.offset % (size + 2_000) };
        self.apply(
            index,
            &format!("write at {offset}"),
            |file| file.write_all_at(&token, offset),
            |old| write_at(old, offset as usize, &token),
        )?;
        // What is cut or punched begins with a token of its own, so that it is no version that was there before.
        let size = 17 + step.size % (size + 100);
        match step.places[2] % 16 {
            0 => self.apply(
                index,
                &format!("cut to {size}"),
                |file| file.set_len(size),
                |old| {
                    let mut new = old.clone();
                    new.resize(size as usize, 0);
                    new
                },
            ),
            4 => {
                let (start, end) = (size, size + 1 + step.offset % 50_000);
                let punch = |file: &File| {
                    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    Ok(rustix::fs::fallocate(file, how, start, end - start)?)
                };
                self.apply(index, &format!("punch {start}..{end}"), punch, |old| {
                    let mut new = old.clone();
                    let end = new.len().min(end as usize);
                    if (start as usize) < end {
                        new[start as usize..end].fill(0);
                    }
                    new
                })
            }
            _ => Ok(()),
        }
    }

    /// Changes an open file, and notes what that made of it.
    fn apply(
        &mut self,
        index: usize,
        words: &str,
        change: impl Fn(&File) -> io::Result<()>,
        apply: impl Fn(&Content) -> Content,
    ) -> io::Result<()> {
        let (at, path) = (self.open[index].mount, self.open[index].path.display().to_string());
        self.note(&format!("{words} of {path}"));
        let file = &self.open[index].file;
        let saw = read(file)?;
        change(file)?;
        let new = read(file)?;
        let is_named = now(file)?.0 > 0;
        let what = format!("{} ({words})", self.trace.last().unwrap());
        if let Err(wrong) = self.history.changed(at, &saw, &new, &what, apply) {
            panic!("{}", self.failed(&wrong));
        }
        self.knows(&new, &path);
        if is_named {
            self.open[index].made.push(new);
        } else {
            // Another's removal came first: what is written to a file without a name goes with it.
            self.history.removed(new);
        }
        Ok(())
    }

    fn sync_file(&mut self, at: usize, step: &Step) -> io::Result<()> {
        let Some(index) = self.choose(at, step) else { return Ok(()) };
        self.note(&format!("fsync {}", self.open[index].path.display()));
        let open = &mut self.open[index];
        open.file.sync_all()?;
        self.history.acknowledged(&std::mem::take(&mut open.made));
        Ok(())
    }

    fn close(&mut self, at: usize, step: &Step) -> io::Result<()> {
        let Some(index) = self.choose(at, step) else { return Ok(()) };
        self.note(&format!("close {}", self.open[index].path.display()));
        let open = self.open.swap_remove(index);
        // The node is never away: it succeeds.
        drop(open.file);
        self.history.acknowledged(&open.made);
        Ok(())
    }

    /// As editors do.
    fn save(&mut self, at: usize, path: &str, step: &Step) -> io::Result<()> {
        self.note("save");
        let temporary = format!("saving-{}.txt", step.size % 4);
        self.create(at, &temporary, step)?;
        let open = self.open.pop().unwrap();
        self.history.acknowledged(&open.made);
        drop(open);
        self.rename(at, &temporary, path)
    }

    fn rename(&mut self, at: usize, from: &str, to: &str) -> io::Result<()> {
        self.note(&format!("rename {from} to {to}"));
        let drive = self.mounts[at].drive.clone();
        if let Ok(content) = fs::read(drive.join(from)) {
            self.knows(&content, to);
        }
        self.superseding(at, to, || fs::rename(drive.join(from), drive.join(to)))
    }

    fn unlink(&mut self, at: usize, path: &str) -> io::Result<()> {
        self.note(&format!("unlink {path}"));
        let place = self.mounts[at].drive.join(path);
        self.superseding(at, path, || fs::remove_file(&place))
    }

    /// Removes or replaces what `path` names. What that was shows the file that is open meanwhile: it has no name any
    /// more, since this step.
    fn superseding(
        &mut self,
        at: usize,
        path: &str,
        remove: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let target = File::open(self.mounts[at].drive.join(path));
        let is_file = |file: &File| file.metadata().is_ok_and(|metadata| metadata.is_file());
        let target = target.ok().filter(is_file);
        let start = clock_gettime(ClockId::RealtimeCoarse);
        remove()?;
        let Some(target) = target else { return Ok(()) };
        let (names, changed) = now(&target)?;
        if names == 0 && changed >= (start.tv_sec, start.tv_nsec) {
            let content = read(&target)?;
            self.history.removed(content);
        } else {
            // One of several names; or a merge put another mount's file under that name just before.
            self.note("perhaps of something else");
            let paths = &self.paths;
            let has_path = |known: &Vec<String>| known.iter().any(|known| known == path);
            self.history.perhaps_removed(|content| paths.get(content).is_some_and(has_path));
            let content = read(&target)?;
            self.history.perhaps_removed(|other| *other == content);
        }
        Ok(())
    }

    fn append(&mut self, at: usize, step: &Step) -> io::Result<()> {
        self.note("append");
        let mount = &mut self.mounts[at];
        let place = mount.drive.join(LOG);
        let log = match &mut mount.log {
            Some(log) => log,
            none => none.insert(OpenOptions::new().append(true).create(true).open(place)?),
        };
        let line = format!("{at} {} {}\n", mount.lines.len(), "x".repeat(step.size as usize % 900));
        log.write_all(line.as_bytes())?;
        mount.lines.push(line);
        if step.offset.is_multiple_of(4) {
            log.sync_all()?;
            mount.synced_lines = mount.lines.len();
        }
        Ok(())
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

/// What a program is told when another was there first, or the name is of another kind.
fn is_harmless(error: &io::Error) -> bool {
    use rustix::io::Errno as E;
    let errnos = [E::NOENT, E::EXIST, E::NOTEMPTY, E::ISDIR, E::NOTDIR, E::STALE, E::PERM, E::INVAL]
        .map(E::raw_os_error);
    error.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
}

fn is_file(mode: u32) -> bool {
    mode & 0o170_000 == 0o100_000
}

/// All that a file holds, past the kernel's cache: what a merge brought in, and no page from before it.
fn read(file: &File) -> io::Result<Content> {
    // A read past the cache believes the size that the kernel knows.
    now(file)?;
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT)?;
    let mut content = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let size = file.read_at(&mut piece, content.len() as u64)?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(&piece[..size]);
    }
    rustix::fs::fcntl_setfl(file, flags)?;
    Ok(content)
}

/// How many names a file has, and when that or anything else of it last changed; asked of the mount, not of the kernel.
fn now(file: &File) -> io::Result<(u32, (i64, i64))> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let found = rustix::fs::statx(file, "", flags, StatxFlags::BASIC_STATS)?;
    Ok((found.stx_nlink, (found.stx_ctime.tv_sec, i64::from(found.stx_ctime.tv_nsec))))
}

fn write_at(old: &Content, offset: usize, data: &[u8]) -> Content {
    let mut new = old.clone();
    new.resize(new.len().max(offset + data.len()), 0);
    new[offset..offset + data.len()].copy_from_slice(data);
    new
}

/// Everything below a drive: mode, links, content. How many names each file has is counted, and compared.
fn tree(drive: &Path) -> io::Result<Tree> {
    let mut found = Tree::new();
    let mut names: HashMap<u64, (u64, u64, String)> = HashMap::new();
    let mut todo = vec![(drive.to_owned(), String::new())];
    while let Some((directory, path)) = todo.pop() {
        let mut directory_count = 0;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = format!("{path}{}", entry.file_name().to_string_lossy());
            let metadata = fs::symlink_metadata(entry.path())?;
            let content = match metadata.is_file() {
                true => fs::read(entry.path())?,
                false => Content::new(),
            };
            if metadata.is_dir() {
                directory_count += 1;
                todo.push((entry.path(), format!("{path}/")));
            } else {
                names.entry(metadata.ino()).or_insert((metadata.nlink(), 0, path.clone())).1 += 1;
            }
            found.insert(path, (metadata.mode(), metadata.nlink(), content));
        }
        let links = fs::symlink_metadata(&directory)?.nlink();
        if links != 2 + directory_count {
            return Err(io::Error::other(format!(
                "{path:?} has {links} links and {directory_count} directories"
            )));
        }
    }
    match names.into_values().find(|(links, names, _)| links != names) {
        Some((links, names, path)) => {
            Err(io::Error::other(format!("{path} has {links} links and {names} names")))
        }
        None => Ok(found),
    }
}
