//! What a long life brings a process: terminals that close, logs that nobody reads, signals out of curiosity, programs
//! that are replaced under it, nodes that do not come up. None of it may end the drive or lose a byte.
//!
//! Each of these once did: standard error that could not be written ended the committer, SIGHUP and SIGUSR2 killed the
//! drive, a node that failed to start kept the others from being used, and after an upgrade dead nodes stayed dead.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::running::{Running, START_LIMIT, kill_hard, signal};
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, is_mounted, text};
use rustix::process::Signal;

/// A debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

fn wait(child: &mut Child, what: &str) -> std::process::ExitStatus {
    let mut status = None;
    eventually(what, LIMIT, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The processes that serve the nodes of `home`, and are children of `parent`.
fn node_processes(parent: u32, home: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if line.contains(" run ")
            && line.contains(text(home))
            && status.contains(&format!("PPid:\t{parent}\n"))
        {
            found.push(pid);
        }
    }
    found
}

fn health(home: &Path) -> String {
    let status = ended_within(LIMIT, Command::new(PROGRAM).args(["status", "--json", "--home", text(home)]));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    status["health"].as_str().unwrap_or("nothing").to_owned()
}

#[test]
fn a_closed_terminal_is_an_orderly_end() {
    if !fuse_is_usable("a_closed_terminal_is_an_orderly_end") {
        return;
    }
    let place = Place::new("hang-up");
    let (home, drive) = (place.join("home"), place.join("drive"));
    // Where the tests run under `nohup` the signal is ignored, and what was ignored at a start stays so.
    let mut command = Command::new("env");
    command.args([
        "--default-signal=HUP",
        PROGRAM,
        "up",
        "--nodes",
        "3",
        "--home",
        text(&home),
        text(&drive),
    ]);
    let mut up = Running::start_with(&mut command, "the drive is");
    fs::write(drive.join("file"), "the last seconds").unwrap();
    signal(up.pid(), Signal::HUP);
    assert!(up.wait(LIMIT).is_some_and(|status| status.success()), "{}", up.drain());
    assert!(!is_mounted(&drive), "SIGHUP left the mount behind");
    let up = Running::up(&home, &drive, 3);
    assert_eq!(fs::read_to_string(drive.join("file")).unwrap(), "the last seconds");
    assert!(up.stop().success());
}

#[test]
fn a_dump_is_told_and_kills_nobody() {
    if !fuse_is_usable("a_dump_is_told_and_kills_nobody") {
        return;
    }
    let place = Place::new("dump");
    let (home, drive) = (place.join("home"), place.join("drive"));
    // From its first moments on.
    let mut starting = Command::new(PROGRAM)
        .args(["get", "x", "--home", text(&home)])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let mut up = Running::up(&home, &drive, 2);
    let node = up.node_pid(2).unwrap();
    for _ in 0..3 {
        signal(starting.id(), Signal::USR2);
        signal(up.pid(), Signal::USR2);
        signal(node, Signal::USR2);
    }
    assert!(up.wait_for("dump on SIGUSR2", START_LIMIT), "no dump: {}", up.drain());
    let log = home.join("nodes/2/log");
    eventually("the node's dump is in its log", LIMIT, || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("dump on SIGUSR2"))
    });
    let ended = wait(&mut starting, "get ends");
    assert!(ended.code().is_some(), "get was killed: {ended}");
    fs::write(drive.join("file"), "after").unwrap();
    // And while it ends.
    signal(up.pid(), Signal::TERM);
    signal(up.pid(), Signal::USR2);
    assert!(up.wait(LIMIT).is_some_and(|status| status.success()), "{}", up.drain());
}

#[test]
fn output_that_nobody_reads_stops_nothing() {
    if !fuse_is_usable("output_that_nobody_reads_stops_nothing") {
        return;
    }
    let place = Place::new("deaf");
    let (home, drive) = (place.join("home"), place.join("drive"));
    assert!(Running::up(&home, &drive, 3).stop().success());
    // Both streams end in pipes: that of standard output is closed once the drive is there, the other is never read
    // and full from the beginning.
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut up = Command::new(PROGRAM)
        .args(["up", "--home", text(&home), text(&drive)])
        .env("HYPHA_LOG", "debug")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("the drive is")));
    drop(lines);

    // A child's death is told to nobody, and yet it is started again.
    let before = node_processes(up.id(), &home);
    assert_eq!(before.len(), 2);
    before.iter().copied().for_each(kill_hard);
    eventually("the dead nodes are started again", LIMIT, || {
        let now = node_processes(up.id(), &home);
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });
    eventually("all is well again", LIMIT, || health(&home) == "healthy");
    // What is written is committed, although each commit has something to say.
    let mut file = fs::File::create(drive.join("file")).unwrap();
    std::io::Write::write_all(&mut file, b"kept").unwrap();
    file.sync_all().unwrap();
    drop(file);
    // The other stream breaks as well.
    drop(reader);
    fs::write(drive.join("more"), "kept too").unwrap();
    signal(up.id(), Signal::TERM);
    assert!(wait(&mut up, "up ends").success());
    let up = Running::up(&home, &drive, 3);
    assert_eq!(fs::read_to_string(drive.join("file")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(drive.join("more")).unwrap(), "kept too");
    assert!(up.stop().success());
}

#[test]
fn a_replaced_program_starts_its_nodes_again() {
    if !fuse_is_usable("a_replaced_program_starts_its_nodes_again") {
        return;
    }
    let place = Place::new("upgrade");
    let (home, drive, program) = (place.join("home"), place.join("drive"), place.join("storage-node"));
    fs::copy(PROGRAM, &program).unwrap();
    let mut up = Running::start_as(
        &program,
        &["up", "--nodes", "3", "--home", text(&home), text(&drive)],
        "the drive is",
    );
    // As a package manager does: another file under the same name.
    fs::write(place.join("new"), "#!/bin/false\n").unwrap();
    fs::rename(place.join("new"), &program).unwrap();
    kill_hard(up.node_pid(2).unwrap());
    assert!(up.wait_for("node 2 was killed by signal 9", LIMIT));
    assert!(up.wait_for("  node 2 ", LIMIT), "node 2 was not started again: {}", up.drain());
    eventually("all is well again", LIMIT, || health(&home) == "healthy");
    assert!(up.stop().success());
}

#[test]
fn a_node_that_does_not_start_stops_nobody_else() {
    if !fuse_is_usable("a_node_that_does_not_start_stops_nobody_else") {
        return;
    }
    let place = Place::new("lame-node");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 3);
    fs::write(drive.join("file"), "from three").unwrap();
    assert!(up.stop().success());
    // The one that would be in the drive's own process, and one of the others.
    for number in [1, 3] {
        let (key, away) = (home.join(format!("nodes/{number}/node.key")), place.join("key"));
        fs::rename(&key, &away).unwrap();
        let mut up = Running::start(&["up", "--home", text(&home), text(&drive)], "the drive is");
        let said = up.seen.join("\n");
        assert!(
            said.contains(&format!("node {number} did not start")) && said.contains("node.key"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(drive.join("file")).unwrap(), "from three");
        fs::write(drive.join(format!("without {number}")), "from two").unwrap();
        assert_eq!(health(&home), "degraded");
        // It comes as soon as it can.
        fs::rename(&away, &key).unwrap();
        assert!(up.wait_for(&format!("  node {number} "), LIMIT), "it was not tried again: {}", up.drain());
        eventually("all is well again", LIMIT, || health(&home) == "healthy");
        assert!(up.stop().success());
    }
    let up = Running::up(&home, &drive, 3);
    for number in [1, 3] {
        assert_eq!(fs::read_to_string(drive.join(format!("without {number}"))).unwrap(), "from two");
    }
    assert!(up.stop().success());
}

#[test]
fn a_low_limit_of_open_files_and_a_home_that_cannot_be_written_are_answered() {
    if !fuse_is_usable("a_low_limit_of_open_files_and_a_home_that_cannot_be_written_are_answered") {
        return;
    }
    let place = Place::new("limits");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -S -n 20; exec \"$@\"", "sh", PROGRAM]);
    let up = Running::start_with(
        shell.args(["up", "--nodes", "3", "--home", text(&home), text(&drive)]),
        "the drive is",
    );
    fs::write(drive.join("file"), "with a low limit").unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", up.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
    let soft: u64 = files.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 20, "the soft limit was left as it was: {files}");
    assert!(up.stop().success());
    // A home on a disk that is mounted read-only: refused with a reason and a step, and nothing is left mounted.
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && exec \"$2\" up --home \"$1\" \"$3\"";
    let output = ended_within(
        LIMIT,
        Command::new("unshare").args(["-rm", "sh", "-c", script, "sh", text(&home), PROGRAM, text(&drive)]),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("read-only file system") && said.contains("try: "), "{said}");
}

#[test]
fn a_log_outlives_the_node_that_wrote_it_and_is_bounded() {
    if !fuse_is_usable("a_log_outlives_the_node_that_wrote_it_and_is_bounded") {
        return;
    }
    let place = Place::new("log");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let mut command = Command::new(PROGRAM);
    command.args(["up", "--nodes", "2", "--home", text(&home), text(&drive)]).env("HYPHA_LOG", "trace");
    command.process_group(0);
    let mut up = Running::start_with(&mut command, "the drive is");
    let log = home.join("nodes/2/log");
    eventually("the node says something", LIMIT, || fs::metadata(&log).is_ok_and(|log| log.len() > 0));
    let first_words: String = fs::read_to_string(&log).unwrap().lines().next().unwrap().to_owned();
    kill_hard(up.node_pid(2).unwrap());
    assert!(up.wait_for("  node 2 ", LIMIT));
    assert!(fs::read_to_string(&log).unwrap().starts_with(&first_words), "the log was emptied");
    assert!(up.stop().success());

    // It is nearly full, and the node has more to say.
    let mut text_before = fs::read(&log).unwrap();
    text_before.resize((1 << 20) - 500, b'.');
    fs::write(&log, &text_before).unwrap();
    let up = Running::start_with(&mut command, "the drive is");
    let older = home.join("nodes/2/log.1");
    eventually("the log is turned over", LIMIT, || older.exists());
    assert!(fs::read_to_string(&older).unwrap().starts_with(&first_words), "what was in it is gone");
    eventually("the node goes on in the new one", LIMIT, || {
        fs::metadata(&log).is_ok_and(|log| log.len() > 0)
    });
    for file in [&log, &older] {
        assert!(
            fs::metadata(file).map_or(0, |file| file.len()) <= 1 << 20,
            "{} has no bound",
            file.display()
        );
    }
    assert!(up.stop().success());
}
