//! The word at the end is true: "stored" when a quorum has everything, and otherwise what became of it.
//!
//! `umount` once waited for a process to end and then said that everything was stored, whatever that process knew; it
//! found the process by the environment, and without it waited for nobody. Two clients of one home destroyed each
//! other's journals. A container that had the drive in its mount namespace kept Ctrl-C and `umount` waiting for ever.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::random::Random;
use common::running::{Running, signal};
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, is_mounted, loud, text};
use rustix::process::Signal;

/// Twice the patience that a drive has with nodes that do not answer, and a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

/// `umount` from a session that shares nothing with the one that mounted.
fn umount(drive: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["umount", text(drive)]).env_remove("XDG_RUNTIME_DIR").env("HOME", "/nonexistent");
    ended_within(LIMIT, command.env("XDG_DATA_HOME", "/nonexistent"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn write_synced(path: &Path, content: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

/// Makes a network of three nodes, and runs each by itself: what is killed stays dead.
fn three_nodes(home: &Path, drive: &Path) -> Vec<Running> {
    assert!(Running::up(home, drive, 3).stop().success());
    (1..=3).map(|number| node(home, number)).collect()
}

fn node(home: &Path, number: u16) -> Running {
    Running::start(&["run", "--home", text(&home.join(format!("nodes/{number}")))], "listening on")
}

fn mount(home: &Path, drive: &Path) -> Running {
    Running::start(&["mount", "--home", text(home), text(drive)], "the drive is")
}

#[test]
fn umount_tells_what_no_quorum_took_and_the_next_start_puts_it_in() {
    if !fuse_is_usable("umount_tells_what_no_quorum_took_and_the_next_start_puts_it_in") {
        return;
    }
    let place = Place::new("quorum-lost");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let mut nodes = three_nodes(&home, &drive);
    let mut mounted = mount(&home, &drive);
    write_synced(&drive.join("before"), b"on a quorum");
    nodes.drain(1..).for_each(Running::kill);
    let mut file = fs::File::create(drive.join("after")).unwrap();
    file.write_all(b"on one node of three").unwrap();
    drop(file);

    // Who interrupts it, and says it again, waits for the same process: it used to be told that no drive was mounted there.
    let mut interrupted = Command::new(PROGRAM)
        .args(["umount", text(&drive)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it is unmounted", LIMIT, || !is_mounted(&drive));
    // Not by SIGINT: whoever runs this in the background may have that ignored.
    signal(interrupted.id(), Signal::TERM);
    interrupted.wait().unwrap();
    let output = umount(&drive);
    let words = said(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("not everything is on the nodes") && words.contains("in the journal of"),
        "{words}"
    );
    assert!(!words.contains("everything in it is stored"), "{words}");
    assert!(
        words.contains("is still storing") && words.contains("of 1 file;"),
        "it waited in silence: {words}"
    );
    assert!(!is_mounted(&drive));
    let status = mounted.wait(LIMIT).expect("it ends with its drive");
    assert_eq!(status.code(), Some(1), "{}", mounted.drain());
    let again = said(&umount(&drive));
    assert!(
        again.contains("no hypha drive is mounted") && again.contains("in the journal of"),
        "nor once it has ended: {again}"
    );

    nodes.extend([2, 3].map(|number| node(&home, number)));
    let mounted = mount(&home, &drive);
    assert_eq!(fs::read_to_string(drive.join("before")).unwrap(), "on a quorum");
    assert_eq!(fs::read_to_string(drive.join("after")).unwrap(), "on one node of three");
    let output = umount(&drive);
    assert!(
        output.status.success() && said(&output).contains("everything in it is stored"),
        "{}",
        said(&output)
    );
    drop(mounted);
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn ctrl_c_says_what_it_waits_for_and_the_second_one_leaves_it_in_the_journal() {
    if !fuse_is_usable("ctrl_c_says_what_it_waits_for_and_the_second_one_leaves_it_in_the_journal") {
        return;
    }
    let place = Place::new("impatient");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let mut nodes = three_nodes(&home, &drive);
    let mut mounted = mount(&home, &drive);
    nodes.drain(1..).for_each(Running::kill);
    let mut file = fs::File::create(drive.join("file")).unwrap();
    file.write_all(b"waits").unwrap();
    drop(file);
    signal(mounted.pid(), Signal::INT);
    assert!(mounted.wait_for("still storing", LIMIT), "{}", mounted.drain());
    let line = mounted.seen.last().unwrap().clone();
    assert!(line.contains(" B of ") && line.contains("Ctrl-C now leaves it in the journal"), "{line}");
    signal(mounted.pid(), Signal::INT);
    assert!(mounted.wait_for("in the journal of", LIMIT), "{}", mounted.drain());
    assert_eq!(mounted.wait(LIMIT).and_then(|status| status.code()), Some(1));
    nodes.extend([2, 3].map(|number| node(&home, number)));
    let mounted = mount(&home, &drive);
    assert_eq!(fs::read_to_string(drive.join("file")).unwrap(), "waits");
    assert!(mounted.stop().success());
}

#[test]
fn umount_waits_for_the_process_without_the_environments_help() {
    if !fuse_is_usable("umount_waits_for_the_process_without_the_environments_help") {
        return;
    }
    let place = Place::new("elsewhere");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 3);
    let bytes = Random::from_seed(3).bytes(30_000_000);
    fs::write(drive.join("large"), &bytes).unwrap();
    let output = umount(&drive);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("everything in it is stored"), "{}", said(&output));
    let state = fs::read_to_string(format!("/proc/{}/stat", up.pid())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "umount did not wait for the process: {state}");
    drop(up);
    let up = Running::up(&home, &drive, 3);
    assert!(fs::read(drive.join("large")).unwrap() == bytes);

    // A process that was killed says nothing, and nothing is said in its place.
    up.kill();
    let output = umount(&drive);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("is not known"), "{}", said(&output));
    assert!(!is_mounted(&drive));
}

#[test]
fn root_unmounts_a_users_drive_and_hears_how_it_went() {
    if !fuse_is_usable("root_unmounts_a_users_drive_and_hears_how_it_went") {
        return;
    }
    let everybodys =
        fs::metadata("/dev/fuse").is_ok_and(|device| device.permissions().mode() & 0o006 == 0o006);
    if !rustix::process::geteuid().is_root() || !everybodys {
        loud(
            "SKIPPED: root_unmounts_a_users_drive_and_hears_how_it_went: it takes root, and a /dev/fuse for everybody",
        );
        return;
    }
    const USER: u32 = 65534;
    let place = Place::new("users");
    fs::set_permissions(place.join(""), fs::Permissions::from_mode(0o755)).unwrap();
    let (user, program) = (place.join("user"), place.join("storage-node"));
    fs::create_dir(&user).unwrap();
    chown(&user, Some(USER), Some(USER)).unwrap();
    fs::copy(PROGRAM, &program).unwrap();
    let (home, drive) = (user.join("home"), user.join("drive"));
    let mut command = Command::new(&program);
    command.args(["up", "--home", text(&home), text(&drive)]).uid(USER).gid(USER).current_dir(&user);
    let up = Running::start_with(&mut command, "the drive is");
    let output = umount(&drive);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("everything in it is stored"), "{}", said(&output));
    drop(up);
}

/// A process with a mount namespace of its own, as a container is.
fn container(drive: &Path) -> Child {
    let child = Command::new("unshare").args(["-rm", "sleep", "600"]).stdout(Stdio::null()).spawn().unwrap();
    let table = format!("/proc/{}/mountinfo", child.id());
    let namespace = format!("/proc/{}/ns/mnt", child.id());
    eventually("the container has the drive", LIMIT, || {
        fs::read_link(&namespace).ok() != fs::read_link("/proc/self/ns/mnt").ok()
            && fs::read_to_string(&table).is_ok_and(|table| table.contains(text(drive)))
    });
    child
}

#[test]
fn a_container_that_has_the_drive_delays_nobody() {
    if !fuse_is_usable("a_container_that_has_the_drive_delays_nobody") {
        return;
    }
    let place = Place::new("namespaces");
    let (home, drive) = (place.join("home"), place.join("drive"));
    for by_umount in [false, true] {
        let mut up = Running::up(&home, &drive, 1);
        fs::write(drive.join(format!("by umount {by_umount}")), "kept").unwrap();
        let mut container = container(&drive);
        if by_umount {
            let output = umount(&drive);
            assert!(output.status.success(), "{}", said(&output));
        } else {
            signal(up.pid(), Signal::INT);
        }
        let ended = up.wait(LIMIT);
        let _ = container.kill();
        let _ = container.wait();
        assert!(ended.is_some_and(|status| status.success()), "{}", up.drain());
        let words = up.drain();
        assert!(words.contains("other mount namespaces still have the drive"), "{words}");
        assert!(words.contains(&format!("process {}", container.id())), "{words}");
    }
    let up = Running::up(&home, &drive, 1);
    for by_umount in [false, true] {
        assert_eq!(fs::read_to_string(drive.join(format!("by umount {by_umount}"))).unwrap(), "kept");
    }
    assert!(up.stop().success());
}

#[test]
fn up_and_mount_of_one_home_keep_their_journals_apart() {
    if !fuse_is_usable("up_and_mount_of_one_home_keep_their_journals_apart") {
        return;
    }
    let place = Place::new("side-by-side");
    let (home, drive, second) = (place.join("home"), place.join("drive"), place.join("second"));
    let mut names = Vec::new();
    for round in 0..3 {
        let up = Running::start(&["up", "--write-back", "--home", text(&home), text(&drive)], "the drive is");
        let beside =
            Running::start(&["mount", "--write-back", "--home", text(&home), text(&second)], "the drive is");
        for name in &names {
            assert_eq!(&fs::read_to_string(drive.join(name)).unwrap(), name, "round {round}");
            assert_eq!(&fs::read_to_string(second.join(name)).unwrap(), name, "round {round}");
        }
        // What one has open and removed is not the other's to reclaim.
        let open = format!("open {round}");
        write_synced(&drive.join(&open), open.as_bytes());
        let file = fs::File::open(drive.join(&open)).unwrap();
        fs::remove_file(drive.join(&open)).unwrap();
        for (directory, who) in [(&drive, "up"), (&second, "mount")] {
            let name = format!("{who} {round}");
            write_synced(&directory.join(&name), name.as_bytes());
            names.push(name);
        }
        assert_eq!(std::io::read_to_string(&file).unwrap(), open);
        drop(file);
        up.kill();
        beside.kill();
        let _ = umount(&second);
    }
    // One of them alone finds what both had.
    let up = Running::start(&["up", "--home", text(&home), text(&drive)], "the drive is");
    for name in &names {
        assert_eq!(&fs::read_to_string(drive.join(name)).unwrap(), name);
    }
    assert!(up.stop().success());
}
