//! A mount is killed (SIGKILL, or out of memory) while programs work in a directory that another mount changes as well.
//!
//! The thread that tells the kernel what is stale then waits, in the kernel, for the lock of that directory. A program holds
//! it, and waits for an answer that nobody gives any more; and as long as the thread is there `/dev/fuse` is open, so that the
//! kernel does not end the connection either. Once such a process never ended, its programs could not even be killed, and
//! `umount` and `mount` hung without a word, as they asked the drive whether it lives.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::running::{Running, kill_hard};
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, is_mounted, loud, text};

/// Far more than any of it takes: what hangs does so for good.
const LIMIT: Duration = Duration::from_secs(60);

/// It takes a directory that both sides change just then: about every second kill.
const TRIES_MAX: usize = 12;

const NOT_SEEN: &str =
    "*** NOT SEEN: no kill left a process that hangs: this part of the story showed nothing";

/// Makes, renames and removes files in the directory `argv[1]`, until the drive is gone.
const PROGRAM_AT_WORK: &str = "
import os, sys
place, tag, n = sys.argv[1], sys.argv[2], 0
while True:
    n += 1
    try:
        path = f'{place}/{tag}{n % 30}'
        file = os.open(path + '.tmp', os.O_CREAT | os.O_WRONLY)
        os.write(file, b'x' * 500)
        os.close(file)
        os.rename(path + '.tmp', path)
        n % 5 or os.unlink(path)
    except OSError as error:
        if error.errno in (2, 107) and not os.path.isdir(place):
            break
";

/// What works in a drive, and is ended with the story however that goes: also where it hangs.
struct AtWork {
    mountpoint: PathBuf,
    programs: Vec<Child>,
}

impl AtWork {
    fn start(mountpoint: &Path, tag: &str, count: usize) -> AtWork {
        let place = mountpoint.join("t");
        let start = |index| {
            let tag = format!("{tag}{index}-");
            let mut command = Command::new("python3");
            command.args(["-c", PROGRAM_AT_WORK, text(&place), &tag]).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        AtWork { mountpoint: mountpoint.to_owned(), programs: (0..count).map(start).collect() }
    }

    fn have_ended(&mut self) -> bool {
        self.programs.iter_mut().all(|program| program.try_wait().unwrap().is_some())
    }

    fn kill(&mut self) {
        self.programs.iter_mut().for_each(|program| {
            let _ = program.kill();
        });
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.kill();
        let until = Instant::now() + Duration::from_secs(10);
        while !self.have_ended() {
            if Instant::now() > until {
                loud(&format!("the connection of {} is ended by the story", self.mountpoint.display()));
                abort(&self.mountpoint);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Ends the kernel's connection, by hand.
fn abort(mountpoint: &Path) {
    if let Some(control) = control_file(mountpoint) {
        let _ = fs::write(control, "1");
    }
    let _ = Command::new("umount").arg("-f").arg(mountpoint).stderr(Stdio::null()).status();
}

/// Where the kernel takes the word to end the connection behind a mountpoint, if that is mounted here.
fn control_file(mountpoint: &Path) -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_it = |line: &&str| line.split(' ').nth(4) == Some(text(mountpoint));
    let (_, minor) = table.lines().rfind(is_it)?.split(' ').nth(2)?.split_once(':')?;
    Some(Path::new("/sys/fs/fuse/connections").join(minor).join("abort")).filter(|file| file.exists())
}

/// The state of a thread, as `/proc` has it, and its name.
fn state(task: &Path) -> Option<(char, String)> {
    let line = fs::read_to_string(task.join("stat")).ok()?;
    let (start, after_name) = line.rsplit_once(')')?;
    Some((after_name.trim_start().chars().next()?, start.split_once('(')?.1.to_owned()))
}

/// Whether a killed process has a thread that the kernel does not let go of.
fn hangs(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let states: Vec<_> = tasks.filter_map(|task| state(&task.path())).collect();
    states.iter().any(|(state, _)| *state == 'Z') && states.iter().any(|(state, _)| *state == 'D')
}

/// The process that guards a mount.
fn guard_of(pid: u32) -> Option<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mark = format!("umount\0--guard-of\0{pid}\0");
    let is_it =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&mark));
    processes.into_iter().find(is_it)
}

/// Kills mounts of the drive at `b`, and their guards, until one hangs, and has `end` look at what is left of it.
fn kill_until_it_hangs(home: &Path, b: &Path, cache: &Path, end: impl FnOnce(&mut Running, &mut AtWork)) {
    for attempt in 1..=TRIES_MAX {
        let arguments = ["mount", "--home", text(home), "--directory", text(cache), text(b)];
        let mut mount = Running::start(&arguments, "the drive is");
        let mut programs = AtWork::start(b, &format!("b{attempt}-"), 4);
        thread::sleep(Duration::from_millis(1000 + 130 * attempt as u64));
        let pid = mount.pid();
        kill_hard(guard_of(pid).expect("it is guarded"));
        kill_hard(pid);
        let until = Instant::now() + LIMIT;
        // Twice: it may be on its way out.
        let mut looks = 0;
        while mount.is_running() && looks < 2 {
            assert!(Instant::now() < until, "process {pid} neither ends nor hangs");
            thread::sleep(Duration::from_millis(700));
            looks = if hangs(pid) { looks + 1 } else { 0 };
        }
        if looks == 2 {
            loud(&format!("kill {attempt} left what hangs"));
            end(&mut mount, &mut programs);
            return;
        }
        ended_within(LIMIT, Command::new(PROGRAM).args(["umount", text(b)]));
        eventually("the programs end", LIMIT, || programs.have_ended());
    }
    loud(NOT_SEEN);
}

#[test]
fn killed_mounts_let_go() {
    if !fuse_is_usable("killed_mounts_let_go") {
        return;
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root
        && fs::read_dir("/sys/fs/fuse/connections").map_or(true, |mut entries| entries.next().is_none())
    {
        loud("SKIPPED: killed_mounts_let_go: fusectl is not mounted, and only root can do without");
        return;
    }
    let place = Place::new("killed_mounts_let_go");
    let (home, a, b, cache) = (place.join("home"), place.join("a"), place.join("b"), place.join("cache"));
    let up = Running::up(&home, &a, 1);
    fs::create_dir(a.join("t")).unwrap();
    let others = AtWork::start(&a, "a", 2);

    // By itself.
    let mut has_hung = false;
    for attempt in 1..=TRIES_MAX {
        let mut mount = Running::start(
            &["mount", "--home", text(&home), "--directory", text(&cache), text(&b)],
            "the drive is",
        );
        let mut programs = AtWork::start(&b, &format!("g{attempt}-"), 4);
        thread::sleep(Duration::from_millis(1000 + 130 * attempt as u64));
        let guard = guard_of(mount.pid());
        kill_hard(mount.pid());
        assert!(mount.wait(LIMIT).is_some(), "the process ends");
        eventually("the programs end", LIMIT, || programs.have_ended());
        let guard = guard.expect("it is guarded");
        eventually("the guard ends", LIMIT, || !Path::new(&format!("/proc/{guard}")).exists());
        ended_within(LIMIT, Command::new(PROGRAM).args(["umount", text(&b)]));
        has_hung = mount.drain().contains("was killed and could not end");
        if has_hung {
            break;
        }
    }
    if !has_hung {
        loud(NOT_SEEN);
    }

    // By hand: `umount` says what was, and all that hung goes on.
    kill_until_it_hangs(&home, &b, &cache, |mount, programs| {
        let output = ended_within(LIMIT, Command::new(PROGRAM).args(["umount", text(&b)]));
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("was killed") && said.contains(&mount.pid().to_string()), "{said}");
        assert_eq!(output.status.code(), Some(1), "what it stored nobody knows: {said}");
        assert!(mount.wait(LIMIT).is_some(), "the process ends");
        eventually("the programs end", LIMIT, || programs.have_ended());
        assert!(!is_mounted(&b));
    });

    // The next mount takes its place.
    kill_until_it_hangs(&home, &b, &cache, |mount, programs| {
        let arguments = ["mount", "--home", text(&home), "--directory", text(&cache), text(&b)];
        let mut next = Running::start(&arguments, "the drive is");
        assert!(mount.wait(LIMIT).is_some(), "the process ends");
        assert!(next.drain().contains("was killed"), "{:?}", next.seen);
        programs.kill();
        eventually("the programs end", LIMIT, || programs.have_ended());
        fs::write(b.join("after"), "here").unwrap();
        assert_eq!(fs::read_to_string(a.join("after")).unwrap(), "here");
        assert!(next.stop().success());
        assert!(!is_mounted(&b));
    });
    drop(others);
    assert!(up.stop().success());
}
