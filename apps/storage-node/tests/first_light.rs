//! First light: three nodes, thousands of real files, one node killed in the middle, and nothing lost or seen.
//!
//! 1. `up --nodes 3`; a tree of real source files is copied into the drive; halfway one node process dies of SIGKILL.
//!    The copy must finish, and the drive must unmount.
//! 2. *Another* process mounts, with an empty cache, and is told of surviving nodes only; the killed one stays dead.
//!    `diff -r` must find no difference.
//! 3. No piece of the plaintext, file names included, may be found in any node's store, nor in what crossed the wire
//!    between the nodes, which tcpdump records where it may.
//!
//! `HYPHA_FILES` sets how many files.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::running::{Running, kill_hard, signal};
use common::{Place, eventually, fuse_is_usable, has_program, is_mounted, loud, run, sources, text};
use rustix::process::Signal;

/// What the issue asks for, and some.
const FILES: usize = 3_200;

#[test]
fn a_copied_tree_survives_a_killed_node_and_no_node_can_read_it() {
    if !fuse_is_usable("first_light") {
        return;
    }
    let place = Place::new("first-light");
    let (home, drive, source) = (place.join("home"), place.join("drive"), place.join("source"));
    let wanted = std::env::var("HYPHA_FILES").ok().and_then(|count| count.parse().ok()).unwrap_or(FILES);
    let count = sources::gather(&source, wanted);
    let marker = "a plain sentence that must never be seen outside of the drive: xylophones quarrel at dusk";
    fs::write(source.join("marker-name-7f3a9c.txt"), marker).unwrap();
    loud(&format!("first_light: {count} files"));

    let recorder = Recorder::start(&place.join("wire.pcap"));
    let mut up = Running::up(&home, &drive, 3);
    loud(&format!("first_light: drive usable after {:.1} s", up.ready_after.as_secs_f32()));
    let victim = up.node_pid(3).expect("up tells the processes of its nodes");

    // The copy, and the kill in the middle of it.
    let started = Instant::now();
    let mut copy = Command::new("cp").arg("-a").arg(&source).arg(drive.join("copy")).spawn().unwrap();
    let half = count / 2;
    let copied = drive.join("copy");
    while count_files(&copied, half) < half {
        assert!(copy.try_wait().unwrap().is_none_or(|status| status.success()), "cp failed before the kill");
        assert!(started.elapsed() < Duration::from_secs(300), "the copy does not get on");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_hard(victim);
    loud(&format!(
        "first_light: node 3 (process {victim}) killed after {:.1} s",
        started.elapsed().as_secs_f32()
    ));
    assert!(copy.wait().unwrap().success(), "cp failed after a node was killed");
    loud(&format!("first_light: copied in {:.1} s", started.elapsed().as_secs_f32()));
    run("diff", &["-r", "--no-dereference", text(&source), text(&copied)]);
    assert!(
        up.wait_for("node 3 was killed by signal 9", Duration::from_secs(10)),
        "up does not tell of the death"
    );
    let flushing = Instant::now();
    assert!(up.stop().success(), "up did not end cleanly");
    loud(&format!("first_light: unmounted and stopped in {:.1} s", flushing.elapsed().as_secs_f32()));
    assert!(!is_mounted(&drive));

    // Only nodes 1 and 2 come back, each by itself; another process mounts from them.
    let nodes: Vec<Running> = [1, 2]
        .map(|number| {
            let node = home.join(format!("nodes/{number}"));
            Running::start(&["run", "--home", text(&node)], "listening on")
        })
        .into();
    let address =
        nodes[1].seen.iter().find_map(|line| line.split("listening on ").nth(1)).unwrap().to_owned();
    let second = place.join("second-drive");
    let mount = Running::start(
        &[
            "mount",
            "--network",
            text(&home.join("network.json")),
            "--key",
            text(&home.join("user.key")),
            "--directory",
            text(&place.join("empty-cache")),
            "--node",
            &address,
            text(&second),
        ],
        "the drive is",
    );
    let comparing = Instant::now();
    run("diff", &["-r", "--no-dereference", text(&source), text(&second.join("copy"))]);
    loud(&format!("first_light: compared from two nodes in {:.1} s", comparing.elapsed().as_secs_f32()));
    same_attributes(&source, &second.join("copy"));
    assert!(mount.stop().success());
    for node in nodes {
        assert!(node.stop().success());
    }

    let needles = needles(&source, marker);
    let stores: Vec<PathBuf> = (1..=3).map(|number| home.join(format!("nodes/{number}"))).collect();
    for store in &stores {
        assert!(size_bytes(store) > 1_000_000, "{} holds nearly nothing", store.display());
        search(&needles, store, &place);
    }
    search(&needles, &home.join("client"), &place);
    if let Some(wire) = recorder.stop() {
        let bytes = fs::metadata(&wire).unwrap().len();
        assert!(bytes > 1_000_000, "the recorder saw only {bytes} bytes");
        loud(&format!("first_light: searched {} MiB of wire", bytes >> 20));
        search(&needles, &wire, &place);
    }
    // The search itself must be able to find something.
    assert!(grep(&needles, &source, &place), "the needles are not even in the source");
}

fn count_files(directory: &Path, enough: usize) -> usize {
    let mut count = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                _ => count += 1,
            }
            if count >= enough {
                return count;
            }
        }
    }
    count
}

fn size_bytes(directory: &Path) -> u64 {
    let du = run("du", &["-sb", text(directory)]);
    du.split_whitespace().next().unwrap().parse().unwrap()
}

/// Modes, owners, sizes, times and link targets, as `find` prints them.
fn same_attributes(left: &Path, right: &Path) {
    let list = |directory: &Path| {
        let format = "%P %y %m %U %G %s %T@ %l\n";
        let all = common::run_in(
            directory,
            "find",
            &[".", "-mindepth", "1", "-not", "-type", "d", "-printf", format],
        );
        let mut lines: Vec<String> = all.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (left, right) = (list(left), list(right));
    let differing: Vec<_> = left.iter().zip(&right).filter(|(left, right)| left != right).take(5).collect();
    assert!(left.len() == right.len() && differing.is_empty(), "attributes differ: {differing:#?}");
}

/// File names and lines of the source that are long enough not to occur by chance.
fn needles(source: &Path, marker: &str) -> Vec<String> {
    let mut needles = vec![marker.to_owned(), "marker-name-7f3a9c".to_owned()];
    let mut directories = vec![source.to_owned()];
    while let Some(directory) = directories.pop() {
        let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for (index, path) in paths.into_iter().enumerate() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.len() >= 14 && needles.len() < 300 {
                needles.push(name);
            }
            if path.is_dir() {
                directories.push(path);
            } else if index % 7 == 0
                && needles.len() < 600
                && let Ok(text) = fs::read_to_string(&path)
                && let Some(line) = text.lines().find(|line| line.len() > 50 && line.is_ascii())
            {
                needles.push(line.trim().chars().take(40).collect());
            }
        }
    }
    assert!(needles.len() > 100, "too few needles: {}", needles.len());
    needles
}

fn grep(needles: &[String], place_to_search: &Path, place: &Place) -> bool {
    let list = place.join("needles");
    fs::write(&list, needles.join("\n")).unwrap();
    let output = Command::new("grep")
        .args(["-r", "-a", "-F", "-o", "-m", "3", "-f", text(&list), text(place_to_search)])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    match output.status.code() {
        Some(1) => false,
        Some(0) => true,
        _ => panic!("grep: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn search(needles: &[String], place_to_search: &Path, place: &Place) {
    assert!(!grep(needles, place_to_search, place), "plaintext in {}", place_to_search.display());
}

/// tcpdump on the loopback, where it is installed and allowed.
struct Recorder {
    child: Option<Child>,
    file: PathBuf,
}

impl Recorder {
    fn start(file: &Path) -> Recorder {
        let mut recorder = Recorder { child: None, file: file.to_owned() };
        if !has_program("tcpdump") {
            loud("SKIPPED: first_light's look at the wire: tcpdump is missing (apt install tcpdump)");
            return recorder;
        }
        // -B: a buffer that a busy machine does not overrun. -Z: no change of user, who could not write here.
        let child = Command::new("tcpdump")
            .args(["-i", "lo", "-s", "0", "-U", "-B", "65536", "-Z", "root", "-w", text(file), "tcp"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(mut child) => {
                let begun = Instant::now();
                while !file.exists() && begun.elapsed() < Duration::from_secs(5) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                if file.exists() && child.try_wait().unwrap().is_none() {
                    recorder.child = Some(child);
                } else {
                    let _ = child.kill();
                    let _ = child.wait();
                    loud(
                        "SKIPPED: first_light's look at the wire: tcpdump may not record here (it takes root)",
                    );
                }
            }
            Err(error) => loud(&format!("SKIPPED: first_light's look at the wire: tcpdump: {error}")),
        }
        let _ = std::io::stderr().flush();
        recorder
    }

    fn stop(mut self) -> Option<PathBuf> {
        let mut child = self.child.take()?;
        signal(child.id(), Signal::INT);
        eventually("tcpdump ends", Duration::from_secs(20), || child.try_wait().unwrap().is_some());
        Some(self.file.clone())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
