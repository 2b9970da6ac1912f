//! A program is told that a file is renamed, removed, made, linked or cut, and the next moment the drive's process is killed:
//! it is so, and whatever the program did before it too.
//!
//! What went wrong: what was closed was in the journal before the close returned, and what has no close was nowhere for up to
//! a second. SQLite commits by removing its rollback journal, and asks for no `fsync` of the directory after it by default:
//! one acknowledged commit in seventeen was undone by a kill.
//!
//! Two programs change names, each in a directory of its own, and close and sync nothing. The drive's process is killed at a
//! random moment. Mounted again, the drive shows what each was told, to the step: with the one that was under way, or
//! without. `HYPHA_SEED` replays the choices (not the scheduler's).

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use common::random::Random;
use common::running::Running;
use common::{Place, fuse_is_usable, loud};

const KILLS: u64 = 8;
const PROGRAMS: u64 = 2;
/// A program has done so much before the moment of the kill is drawn.
const STEPS_MIN: usize = 30;
const NAMES_MAX: usize = 40;

/// What a name leads to: a file by its number in [`Program::files`].
#[derive(Clone, Debug)]
enum Node {
    Directory,
    Link(String),
    File(usize),
}

#[derive(Clone, Debug)]
enum Step {
    Make(String, u32),
    MakeDirectory(String),
    MakeLink(String, String),
    GiveName(String, String),
    Rename(String, String),
    Remove(String),
    RemoveDirectory(String),
    SetLength(usize, u64),
    SetMode(String, u32),
}

/// What a program was told.
#[derive(Clone, Default)]
struct Told {
    names: BTreeMap<String, Node>,
    /// Length and mode.
    files: Vec<(u64, u32)>,
}

impl Told {
    fn on(&mut self, step: &Step) {
        match step.clone() {
            Step::Make(name, mode) => {
                self.names.insert(name, Node::File(self.files.len()));
                self.files.push((0, mode));
            }
            Step::MakeDirectory(name) => drop(self.names.insert(name, Node::Directory)),
            Step::MakeLink(name, target) => drop(self.names.insert(name, Node::Link(target))),
            Step::GiveName(old, new) => drop(self.names.insert(new, self.names[&old].clone())),
            Step::Rename(old, new) => match (&self.names[&old], self.names.get(&new)) {
                // Of two names of one file both stay.
                (Node::File(one), Some(Node::File(other))) if one == other => {}
                _ => {
                    let node = self.names.remove(&old).unwrap();
                    self.names.insert(new, node);
                }
            },
            Step::Remove(name) | Step::RemoveDirectory(name) => drop(self.names.remove(&name)),
            Step::SetLength(file, length) => self.files[file].0 = length,
            Step::SetMode(name, mode) => {
                if let Node::File(file) = self.names[&name] {
                    self.files[file].1 = mode;
                }
            }
        }
    }

    /// What a listing shows of it.
    fn shown(&self) -> BTreeMap<String, String> {
        let show = |node: &Node| match node {
            Node::Directory => "a directory".to_owned(),
            Node::Link(target) => format!("a link to {target}"),
            Node::File(file) => format!("{} bytes, mode {:o}", self.files[*file].0, self.files[*file].1),
        };
        self.names.iter().map(|(name, node)| (name.clone(), show(node))).collect()
    }
}

fn found(directory: &Path) -> BTreeMap<String, String> {
    let show = |path: &Path| {
        let metadata = fs::symlink_metadata(path).unwrap();
        match fs::read_link(path) {
            Ok(target) => format!("a link to {}", target.display()),
            Err(_) if metadata.is_dir() => "a directory".to_owned(),
            Err(_) => format!("{} bytes, mode {:o}", metadata.len(), metadata.mode() & 0o7777),
        }
    };
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    let entries = entries.map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), show(&entry.path()))).collect()
}

struct Program {
    directory: PathBuf,
    random: Random,
    told: Told,
    number: u64,
    /// Each file stays open: to close it would keep all that was done before.
    open: Vec<File>,
}

impl Program {
    fn new(directory: PathBuf, random: Random) -> Program {
        Program { directory, random, told: Told::default(), number: 0, open: Vec::new() }
    }

    fn name(&mut self) -> String {
        self.number += 1;
        format!("name-{}", self.number)
    }

    fn one(&mut self, is_wanted: impl Fn(&Node) -> bool) -> Option<(String, Node)> {
        let all: Vec<_> = self.told.names.iter().filter(|(_, node)| is_wanted(node)).collect();
        let at = self.random.below(all.len().max(1) as u64) as usize;
        all.get(at).map(|(name, node)| ((*name).clone(), (*node).clone()))
    }

    fn next(&mut self) -> Step {
        let is_file = |node: &Node| matches!(node, Node::File(_));
        let is_directory = |node: &Node| matches!(node, Node::Directory);
        let new = self.name();
        // None that a umask would change.
        let mode = [0o400, 0o440, 0o444, 0o600, 0o640, 0o644][self.number as usize % 6];
        let choice = self.random.below(if self.told.names.len() < NAMES_MAX { 13 } else { 8 });
        let one = match choice {
            4 | 7 => self.one(is_directory),
            0..=3 => self.one(|node| !is_directory(node)),
            _ => self.one(is_file),
        };
        match (choice, one) {
            (0, Some((old, _))) => Step::Rename(old, new),
            (1, Some((old, _))) => match self.one(|node| !is_directory(node)) {
                Some((over, _)) => Step::Rename(old, over),
                None => Step::Rename(old, new),
            },
            (2 | 3, Some((old, _))) => Step::Remove(old),
            (4, Some((old, _))) => Step::RemoveDirectory(old),
            (5, Some((_, Node::File(file)))) => Step::SetLength(file, self.number * 100),
            (6, Some((name, _))) => Step::SetMode(name, mode),
            (7, Some((old, _))) => Step::Rename(old, new),
            (8, _) => Step::MakeDirectory(new),
            (9, _) => Step::MakeLink(new.clone(), format!("where {new} leads")),
            (10, Some((old, _))) => Step::GiveName(old, new),
            _ => Step::Make(new, mode),
        }
    }

    fn take(&mut self, step: &Step) -> io::Result<()> {
        let at = |name: &String| self.directory.join(name);
        match step {
            Step::Make(name, mode) => {
                let file = OpenOptions::new().write(true).create_new(true).mode(*mode).open(at(name))?;
                self.open.push(file);
                Ok(())
            }
            Step::MakeDirectory(name) => fs::create_dir(at(name)),
            Step::MakeLink(name, target) => symlink(target, at(name)),
            Step::GiveName(old, new) => fs::hard_link(at(old), at(new)),
            Step::Rename(old, new) => fs::rename(at(old), at(new)),
            Step::Remove(name) => fs::remove_file(at(name)),
            Step::RemoveDirectory(name) => fs::remove_dir(at(name)),
            Step::SetLength(file, length) => self.open[*file].set_len(*length),
            Step::SetMode(name, mode) => fs::set_permissions(at(name), Permissions::from_mode(*mode)),
        }
    }

    /// Goes on until the drive is gone; returns the step that was under way.
    fn run(mut self, warm: &Sender<()>) -> (Program, Step) {
        for count in 1.. {
            let step = self.next();
            if let Err(error) = self.take(&step) {
                let is_gone = matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::ConnectionAborted);
                assert!(is_gone, "{step:?}: {error}");
                return (self, step);
            }
            self.told.on(&step);
            if count == STEPS_MIN {
                warm.send(()).unwrap();
            }
        }
        unreachable!("the drive is killed")
    }
}

#[test]
fn what_a_program_was_told_of_its_files_is_so_after_a_kill_of_the_mount() {
    let name = "what_a_program_was_told_of_its_files_is_so_after_a_kill_of_the_mount";
    if !fuse_is_usable(name) {
        return;
    }
    let mut random = Random::announced(name);
    let place = Place::new("names-outlive");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let mut steps = 0;
    let mut kept = BTreeMap::new();
    let mut up = Running::up(&home, &drive, 1);
    for kill in 1..=KILLS {
        let (warm, is_warm) = channel();
        let start = |program: u64| {
            let directory = drive.join(format!("{kill}-{program}"));
            fs::create_dir(&directory).unwrap();
            let (program, warm) = (Program::new(directory, Random::from_seed(random.next())), warm.clone());
            thread::spawn(move || program.run(&warm))
        };
        let programs: Vec<_> = (0..PROGRAMS).map(start).collect();
        drop(warm);
        (0..PROGRAMS).for_each(|_| is_warm.recv().unwrap());
        thread::sleep(Duration::from_millis(random.below(400)));
        up.kill();
        let ended: Vec<_> = programs.into_iter().map(|program| program.join().unwrap()).collect();
        up = Running::up(&home, &drive, 1);
        for (program, under_way) in ended {
            steps += program.number;
            let (found, mut told) = (found(&program.directory), program.told);
            let before = told.shown();
            told.on(&under_way);
            assert!(
                found == before || found == told.shown(),
                "kill {kill}: after {} steps, with {under_way:?} under way, {} shows {found:#?}\nand not {before:#?}",
                program.number,
                program.directory.display()
            );
            kept.insert(program.directory, found);
        }
    }
    for (directory, expected) in kept {
        assert_eq!(found(&directory), expected, "{} was right before", directory.display());
    }
    assert!(up.stop().success());
    loud(&format!("{KILLS} kills, {steps} steps"));
}
