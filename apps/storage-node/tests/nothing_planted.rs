//! Nobody else's file can be made ours to overwrite, nor ours be overwritten through somebody else's link.
//!
//! `put` and `get` once used a scratch directory of a name that anybody could foresee, took one that was there
//! already, and followed a link called `lock` in it: any user of the machine could have root's files overwritten.
//! Here every name that could be foreseen is planted beforehand, and the victim must not even come into being.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, loud, text};

/// How many process ids ahead are planted: the machine may start other programs meanwhile.
const PLANTED_COUNT: u32 = 3000;
/// Far longer than any of these commands takes.
const LIMIT: Duration = Duration::from_secs(60);
/// Nobody, on every Linux.
const NOBODY: u32 = 65534;

fn run_with_temporary(directory: &Path, arguments: &[&str]) -> Output {
    ended_within(LIMIT, Command::new(PROGRAM).args(arguments).env("TMPDIR", directory))
}

/// The process ids that come next.
fn next_pids() -> impl Iterator<Item = u32> {
    let child = Command::new("true").spawn().and_then(|mut child| child.wait().map(|_| child.id())).unwrap();
    child + 1..child + PLANTED_COUNT
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether this test may give files to another user.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn links_that_wait_under_every_foreseeable_name_lead_nowhere() {
    if !fuse_is_usable("links_that_wait_under_every_foreseeable_name_lead_nowhere") {
        return;
    }
    let place = Place::new("planted");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let (temporary, targets, victim) = (place.join("tmp"), place.join("targets"), place.join("victim"));
    fs::create_dir(&temporary).unwrap();
    fs::create_dir(&targets).unwrap();
    let up = Running::up(&home, &drive, 1);
    fs::write(place.join("source"), "a value").unwrap();

    let uid = fs::metadata(&temporary).unwrap().uid();
    for pid in next_pids() {
        let scratch = temporary.join(format!("hypha-{pid}-{uid}"));
        fs::create_dir(&scratch).unwrap();
        symlink(&victim, scratch.join("lock")).unwrap();
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            chown(&scratch, Some(NOBODY), None).unwrap();
        }
        symlink(&victim, targets.join(format!("value.{pid}.part"))).unwrap();
    }
    let source = place.join("source");
    let put = run_with_temporary(&temporary, &["put", "value", text(&source), "--home", text(&home)]);
    assert!(put.status.success(), "{}", said(&put));
    let target = targets.join("value");
    let get = run_with_temporary(&temporary, &["get", "value", text(&target), "--home", text(&home)]);
    assert!(get.status.success(), "{}", said(&get));
    assert_eq!(fs::read_to_string(&target).unwrap(), "a value");
    assert!(!victim.exists(), "a planted link was followed");
    let left = || fs::read_dir(&temporary).unwrap().count() as u32;
    assert_eq!(left(), PLANTED_COUNT - 1, "a scratch directory stayed behind");

    // What a killed command leaves goes with the next one.
    let mut killed = Command::new(PROGRAM);
    killed.args(["put", "value", "--home", text(&home)]).env("TMPDIR", &temporary).stdin(Stdio::piped());
    let mut killed = killed.spawn().unwrap();
    let uses_it = |entry: fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with(".hypha-scratch-")
            && entry.path().join("device.json").exists()
    };
    eventually("it uses its directory", LIMIT, || {
        fs::read_dir(&temporary).unwrap().any(|entry| uses_it(entry.unwrap()))
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    let get = run_with_temporary(&temporary, &["get", "value", text(&target), "--home", text(&home)]);
    assert!(get.status.success(), "{}", said(&get));
    assert_eq!(left(), PLANTED_COUNT - 1, "what a killed command left stays for good");
    assert!(up.stop().success());
}

#[test]
fn a_home_that_another_user_has_a_hand_in_is_refused() {
    if !fuse_is_usable("a_home_that_another_user_has_a_hand_in_is_refused") {
        return;
    }
    let place = Place::new("others-home");
    let (home, drive, victim) = (place.join("home"), place.join("drive"), place.join("victim"));
    fs::create_dir(&home).unwrap();
    let refused = |arguments: &[&str], reason: &str| {
        let output = run_with_temporary(&place.join(""), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} was not refused: {}", said(&output));
        let words = said(&output);
        assert!(words.contains(reason) && words.contains("try: "), "{arguments:?}: {words}");
    };
    let up: [&str; 4] = ["up", "--home", text(&home), text(&drive)];

    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
    refused(&up, "others may write to it");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&victim, home.join("lock")).unwrap();
    refused(&up, "it is a symbolic link");
    fs::remove_file(home.join("lock")).unwrap();
    if is_root() {
        chown(&home, Some(NOBODY), None).unwrap();
        refused(&up, "it belongs to user 65534");
        chown(&home, Some(rustix::process::geteuid().as_raw()), None).unwrap();
    } else {
        loud("SKIPPED: a home of another user: it takes root to make one");
    }

    // The directory of the cache as well, which may be anywhere.
    let running = Running::up(&home, &drive, 1);
    let cache: PathBuf = place.join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let other = place.join("other");
    refused(
        &["mount", "--home", text(&home), "--directory", text(&cache), text(&other)],
        "others may write to it",
    );
    assert!(!victim.exists(), "a planted link was followed");
    assert!(running.stop().success());
}
