//! Snapshots through the command line, beside drives that are in use: what was closed before is in them, whoever closed it.
//!
//! What would hurt: a snapshot that was acknowledged and is gone after a kill, one that lacks what was closed before, and
//! one whose blocks are taken for garbage.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::running::{Running, kill_hard};
use common::{PROGRAM, Place, detach, eventually, fuse_is_usable, run, run_in, storage_node, text};

const SOON: Duration = Duration::from_secs(90);

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command of that home, which has to succeed.
fn done(home: &Path, arguments: &[&str]) -> String {
    let output = storage_node(&[arguments, &["--home", text(home)]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", printed(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command of that home, which has to say why it fails, and what to do.
fn refused(home: &Path, arguments: &[&str], cause: &str) {
    let output = storage_node(&[arguments, &["--home", text(home)]].concat());
    let said = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains(cause), "{arguments:?}: {said}");
}

fn names(home: &Path) -> Vec<String> {
    let listed: serde_json::Value = serde_json::from_str(&done(home, &["snapshots", "--json"])).unwrap();
    let snapshots = listed["snapshots"].as_array().unwrap();
    snapshots.iter().map(|snapshot| snapshot["name"].as_str().unwrap().to_owned()).collect()
}

/// The number of blocks that are garbage.
fn garbage(home: &Path) -> u64 {
    let said = done(home, &["gc", "--dry-run", "--grace", "2s"]);
    let line = said.lines().find(|line| line.contains("garbage")).unwrap();
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
}

#[test]
fn snapshots_are_taken_beside_drives_and_outlive_a_kill() {
    if !fuse_is_usable("snapshots_are_taken_beside_drives_and_outlive_a_kill") {
        return;
    }
    let place = Place::new("snapshots");
    let (home, a, b) = (place.join("home"), place.join("a"), place.join("b"));
    let up = Running::up(&home, &a, 1);
    let mount = Running::start(
        &["mount", "--home", text(&home), "--directory", text(&place.join("cache")), text(&b)],
        "the drive is",
    );
    assert_eq!(names(&home), [""; 0]);
    let content: Vec<u8> = (0..3_000_000u32).map(|index| (index * 7 % 251) as u8).collect();
    fs::write(a.join("file"), &content).unwrap();
    fs::write(b.join("other"), "of the other mount").unwrap();
    let said = done(&home, &["snapshot", "before"]);
    assert!(said.contains("before"), "{said}");
    refused(&home, &["snapshot", "before"], "there is a snapshot \"before\" already");
    refused(&home, &["snapshot", "a/b"], "it has a slash");
    refused(&home, &["snapshot", "--delete", "nothing"], "there is no snapshot \"nothing\"");
    done(&home, &["snapshot"]);
    let listed = names(&home);
    assert_eq!((listed.len(), listed[0].as_str()), (2, "before"));
    done(&home, &["snapshot", "--delete", &listed[1]]);

    // What was, shown in the drive that goes on.
    fs::set_permissions(a.join("other"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(a.join("other"), "changed").unwrap();
    fs::remove_file(b.join("file")).unwrap();
    File::open(&b).unwrap().sync_all().unwrap();
    done(&home, &["snapshot", "after"]);
    for drive in [&a, &b] {
        let then = drive.join(".snapshots/before");
        assert!(fs::read(then.join("file")).unwrap() == content);
        assert_eq!(fs::read_to_string(then.join("other")).unwrap(), "of the other mount");
        eventually("the drive itself shows what is", SOON, || {
            run_in(drive, "ls", &["-A"]).lines().collect::<Vec<_>>() == ["other"]
        });
        // Listed as soon as it is taken, whatever the kernel has listed before.
        assert_eq!(run_in(drive, "ls", &[".snapshots"]).lines().collect::<Vec<_>>(), ["after", "before"]);
        done(&home, &["snapshot", "just now"]);
        let listed = run_in(drive, "ls", &[".snapshots"]);
        assert_eq!(listed.lines().collect::<Vec<_>>(), ["after", "before", "just now"]);
        done(&home, &["snapshot", "--delete", "just now"]);
        assert_eq!(run_in(drive, "ls", &[".snapshots"]).lines().collect::<Vec<_>>(), ["after", "before"]);
        let write = OpenOptions::new().write(true).open(then.join("other"));
        assert_eq!(write.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(fs::write(then.join("new"), "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(fs::remove_file(then.join("file")).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        let copy = place.join("copy");
        run("cp", &["-a", text(&then), text(&copy)]);
        run("diff", &["-r", text(&then), text(&copy)]);
        let (was, copied) =
            (fs::metadata(then.join("other")).unwrap(), fs::metadata(copy.join("other")).unwrap());
        assert_eq!((was.mode(), was.mtime_nsec()), (copied.mode(), copied.mtime_nsec()));
        assert_ne!(was.mode(), fs::metadata(drive.join("other")).unwrap().mode());
        fs::remove_dir_all(copy).unwrap();
    }
    let then = place.join("then");
    let past =
        Running::start(&["mount", "--home", text(&home), "--at", "before", text(&then)], "the drive is");
    assert!(fs::read(then.join("file")).unwrap() == content);
    assert_eq!(fs::write(then.join("new"), "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(!then.join(".snapshots").exists());
    assert!(past.stop().success());
    let mountpoint = text(&then);
    refused(
        &home,
        &["mount", "--at", "1999-12-31", mountpoint],
        "no snapshot was taken by 1999-12-31 23:59:59 UTC: the first is of ",
    );

    // By the command line, too.
    assert_eq!(done(&home, &["get", "--at", "before", "other"]), "of the other mount");
    assert_eq!(done(&home, &["get", "other"]), "changed");
    let versions = done(&home, &["history", "other"]);
    let lines: Vec<&str> = versions.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].ends_with("  before") && lines[1].ends_with("  after, now"),
        "{versions}"
    );
    let gone = storage_node(&["history", "file", "--home", text(&home)]);
    assert!(gone.status.success() && printed(&gone).contains("2.9 MiB  before\n"), "{}", printed(&gone));
    assert!(printed(&gone).contains("restore --at \"before\" \"file\""), "{}", printed(&gone));
    let base = place.join("");
    // As a shell completes it, too, and from within the drive.
    for (directory, path) in [(&*base, "./a/other"), (&*base, "b/other"), (&*a, "./other"), (&*b, "other")] {
        let command = ["get", "--home", text(&home), path];
        let got = Command::new(PROGRAM).args(command).current_dir(directory).output().unwrap();
        assert_eq!(printed(&got), "changed", "{path} in {}", directory.display());
    }
    assert_eq!(done(&home, &["get", text(&a.join("other"))]), "changed");
    // Through a link; and what may be meant in two ways is not guessed.
    symlink(&a, place.join("link")).unwrap();
    let said_in = |directory: &Path, path: &str| {
        let command = ["get", "--home", text(&home), path];
        Command::new(PROGRAM).args(command).current_dir(directory).output().unwrap()
    };
    for path in ["link/other", "./link/other", text(&place.join("link/other"))] {
        assert_eq!(printed(&said_in(&base, path)), "changed", "{path}");
    }
    fs::create_dir(a.join("b")).unwrap();
    fs::write(a.join("b/other"), "within").unwrap();
    eventually("it shows", SOON, || b.join("b").exists());
    let two_ways = printed(&said_in(&base, "b/other"));
    assert!(two_ways.contains("say ./PATH") && two_ways.contains("/PATH for the latter"), "{two_ways}");
    assert_eq!(printed(&said_in(&base, "./b/other")), "changed");
    assert_eq!(printed(&said_in(&base, "/b/other")), "within");
    fs::remove_dir_all(a.join("b")).unwrap();
    refused(&home, &["get", "./other"], "it lies in no mounted drive");
    refused(&home, &["get", text(&a)], "it is the whole drive");
    refused(&home, &["snapshot", "3d"], "`--at` takes it for a time");
    refused(&home, &["history", "never"], "there is nothing named \"never\"");
    let changes = "removed     file  (2.9 MiB)\nchanged     other  (18 B -> 7 B)\n";
    assert_eq!(done(&home, &["diff", "before", "now"]), changes);
    assert_eq!(done(&home, &["diff", "after", "now"]), "");
    assert_eq!(
        done(&home, &["diff", "before", "after", "other"]),
        changes.lines().last().unwrap().to_owned() + "\n"
    );
    let listed: serde_json::Value =
        serde_json::from_str(&done(&home, &["diff", "now", "before", "--json"])).unwrap();
    assert_eq!(
        (&listed["changes"][0]["change"], &listed["changes"][0]["after"]["size"]),
        (&"added".into(), &content.len().into())
    );
    refused(&home, &["diff", "before", "never"], "there is no snapshot \"never\"");
    refused(&home, &["diff", "before", "now", "never"], "there is nothing named \"never\"");
    refused(&home, &["snapshot", "now"], "it means the drive as it is");

    // What was removed comes back beside what is there, on drives that are mounted.
    let said = done(&home, &["restore", "file"]);
    assert!(said.contains("file is there as the snapshot before has file (1 file, 2.9 MiB)"), "{said}");
    refused(&home, &["restore", "file"], "\"file\" is as it was: every snapshot");
    let said = done(&home, &["restore", "--at", "before", "other"]);
    let aside = said.lines().last().unwrap().strip_prefix("what was there is kept as ").unwrap().to_owned();
    done(&home, &["restore", "--at", "before", "other", "--to", "other of then"]);
    refused(&home, &["restore", "other", "--to", "file"], "there is something at \"file\" already");
    refused(
        &home,
        &["restore", "other", "--to", "no/place"],
        "\"no\", where it is to be put, is no directory",
    );
    refused(&home, &["restore", "never"], "no snapshot has \"never\"");
    refused(&home, &["restore", "--at", "after", "file"], "the snapshot \"after\" has no \"file\"");
    for drive in [&a, &b] {
        // A kernel may believe for a second what a name was.
        eventually("what was restored is there", SOON, || {
            fs::read(drive.join("file")).is_ok_and(|found| found == content)
                && fs::read(drive.join("other")).is_ok_and(|found| found == b"of the other mount")
        });
        assert_eq!(fs::read_to_string(drive.join(&aside)).unwrap(), "changed");
        assert_eq!(fs::read_to_string(drive.join("other of then")).unwrap(), "of the other mount");
        assert_eq!(fs::metadata(drive.join("other of then")).unwrap().mode() & 0o777, 0o644);
    }
    let versions = done(&home, &["history", "file"]);
    assert!(versions.lines().count() == 1 && versions.ends_with("  before, now\n"), "{versions}");
    fs::remove_file(a.join("file")).unwrap();
    fs::remove_file(b.join(&aside)).unwrap();
    [&a, &b].into_iter().for_each(|drive| File::open(drive).unwrap().sync_all().unwrap());

    // What only the snapshot has is no garbage.
    let kept = garbage(&home);
    done(&home, &["snapshot", "--delete", "before"]);
    eventually("what the snapshot alone had is garbage", SOON, || garbage(&home) >= kept + 2);
    eventually("both mounts have heard of it", SOON, || {
        [&a, &b].iter().all(|drive| !drive.join(".snapshots/before").exists())
    });
    assert_eq!(run_in(&a, "ls", &[".snapshots"]).trim(), "after");

    // Killed at once, with all that was running: it was acknowledged, so it is there.
    done(&home, &["snapshot", "last"]);
    done(&home, &["restore", "other", "--at", "last", "--to", "restored last"]);
    kill_hard(up.pid());
    kill_hard(mount.pid());
    drop((up, mount));
    [&a, &b].into_iter().for_each(|drive| detach(drive));
    let node = Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
    assert_eq!(names(&home), ["after", "last"]);
    assert_eq!(done(&home, &["get", "restored last"]), "of the other mount");
    // Where it was mounted last says whose drive it was; what may be meant in two ways is what it says, and that is told.
    for path in ["./a/restored last", "./link/restored last", text(&a.join("restored last"))] {
        assert_eq!(printed(&said_in(&base, path)), "of the other mount", "{path}");
    }
    // Also for who stands there.
    for path in [text(&a.join("restored last")), "./restored last", "restored last"] {
        assert_eq!(printed(&said_in(&a, path)), "of the other mount", "{path}");
    }
    let as_it_says = printed(&said_in(&base, "a/restored last"));
    assert!(
        as_it_says.contains("no drive is mounted at") && as_it_says.contains("say ./PATH"),
        "{as_it_says}"
    );
    assert!(as_it_says.contains("there is nothing named \"a/restored last\""), "{as_it_says}");

    // On another machine two small files are enough.
    let (network, key) = (home.join("network.json"), home.join("user.key"));
    let elsewhere = std::process::Command::new(PROGRAM)
        .args(["snapshots", "--network", text(&network), "--key", text(&key)])
        .env("XDG_DATA_HOME", place.join("elsewhere"))
        .output()
        .unwrap();
    assert!(elsewhere.status.success(), "{}", printed(&elsewhere));
    assert_eq!(printed(&elsewhere).lines().count(), 2, "{}", printed(&elsewhere));

    // A drive has a policy from wherever it is given, and whoever has it mounted goes by it.
    assert!(done(&home, &["snapshot", "--policy"]).contains("no snapshots are taken automatically"));
    done(&home, &["snapshot", "--keep", "7d,24h"]);
    let again = Running::start(&["mount", "--home", text(&home), text(&b)], "the drive is");
    fs::write(b.join("other"), "changed again").unwrap();
    let is_automatic = |name: &String| name.starts_with("hour-2");
    eventually("a snapshot is taken automatically", SOON, || names(&home).iter().any(is_automatic));
    assert!(done(&home, &["snapshots"]).contains("  (automatic)\n"));
    assert!(done(&home, &["snapshot", "--policy"]).ends_with("kept: 24h,7d\n"));
    assert!(again.stop().success());
    assert!(node.stop().success());
}
