//! Everyday programs on a drive of three nodes: what the README promises, each as a program and not as a call.
//!
//! Every step compares with the same step on the local file system, so that what is expected is never written down
//! here by hand. At the end the drive is mounted again, and all of it must still be there.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use common::running::Running;
use common::{Place, fuse_is_usable, has_program, loud, run, run_in, sources, text};

/// What a program does, on the local file system and on the drive.
type Step = fn(&Path, &Path);

#[test]
fn everyday_programs_find_a_drive_like_any_other() {
    if !fuse_is_usable("programs") {
        return;
    }
    let place = Place::new("programs");
    let (home, drive, local) = (place.join("home"), place.join("drive"), place.join("local"));
    fs::create_dir(&local).unwrap();
    sources::gather(&local.join("tree"), 300);
    let up = Running::up(&home, &drive, 3);
    let steps: &[(&str, Step)] = &[
        ("cp, tar, mv, rm", archives),
        ("git", git),
        ("cargo", cargo),
        ("rsync", rsync),
        ("links", links),
        ("sparse files and truncate", sparse),
        ("modes, owners and times", attributes),
        ("mmap", mmap),
        ("sqlite3", sqlite),
        ("df", df),
    ];
    for (name, step) in steps {
        let started = std::time::Instant::now();
        step(&local, &drive);
        loud(&format!("programs: {name}: {:.1} s", started.elapsed().as_secs_f32()));
    }
    let listing = |root: &Path| {
        let mut lines: Vec<String> = run_in(root, "find", &[".", "-printf", "%P %y %m %n %s %l\n"])
            .lines()
            .filter(|line| !line.contains(" d ")) // a directory's size is the file system's own affair
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let before = listing(&drive);
    assert!(up.stop().success());
    let up = Running::up(&home, &drive, 3);
    let after = listing(&drive);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after, "something changed between two mounts");
    }
    assert_eq!(before.len(), after.len());
    run("diff", &["-r", "--no-dereference", text(&local.join("tree")), text(&drive.join("tree"))]);
    run_in(&drive.join("clone"), "git", &["fsck", "--full"]);
    assert!(up.stop().success());
}

fn archives(local: &Path, drive: &Path) {
    run("cp", &["-a", text(&local.join("tree")), text(drive)]);
    run("diff", &["-r", "--no-dereference", text(&local.join("tree")), text(&drive.join("tree"))]);
    run_in(local, "tar", &["cf", "tree.tar", "tree"]);
    fs::create_dir(drive.join("unpacked")).unwrap();
    run_in(&drive.join("unpacked"), "tar", &["xpf", text(&local.join("tree.tar"))]);
    run("diff", &["-r", "--no-dereference", text(&local.join("tree")), text(&drive.join("unpacked/tree"))]);
    // A directory into another one, a file over another one, then all of it away.
    fs::create_dir_all(drive.join("elsewhere/deep")).unwrap();
    run_in(drive, "mv", &["unpacked/tree", "elsewhere/deep/moved"]);
    assert!(!drive.join("unpacked/tree").exists());
    run(
        "diff",
        &["-r", "--no-dereference", text(&local.join("tree")), text(&drive.join("elsewhere/deep/moved"))],
    );
    fs::write(drive.join("old"), "old").unwrap();
    fs::write(drive.join("new"), "new").unwrap();
    run_in(drive, "mv", &["new", "elsewhere/new"]);
    run_in(drive, "mv", &["-f", "elsewhere/new", "old"]);
    assert_eq!(fs::read_to_string(drive.join("old")).unwrap(), "new");
    run_in(drive, "rm", &["-rf", "elsewhere", "unpacked", "old"]);
    assert!(!drive.join("elsewhere").exists());
}

fn git(local: &Path, drive: &Path) {
    let repository = local.join("repository");
    let git = |directory: &Path, arguments: &[&str]| {
        let name = [
            "-c",
            "user.name=Somebody",
            "-c",
            "user.email=somebody@example.org",
            "-c",
            "init.defaultBranch=main",
        ];
        run_in(directory, "git", &[&name[..], arguments].concat())
    };
    run("cp", &["-a", text(&local.join("tree")), text(&repository)]);
    git(&repository, &["init", "-q"]);
    git(&repository, &["add", "-A", "-f"]);
    git(&repository, &["commit", "-qm", "everything"]);
    run_in(drive, "git", &["clone", "-q", text(&repository), "clone"]);
    let clone = drive.join("clone");
    assert_eq!(git(&clone, &["status", "--porcelain"]), "", "a fresh clone is not clean");
    fs::write(clone.join("added"), "x").unwrap();
    assert_eq!(git(&clone, &["status", "--porcelain"]), "?? added\n");
    git(&clone, &["add", "added"]);
    git(&clone, &["commit", "-qm", "one more"]);
    git(&clone, &["checkout", "-q", "-b", "side", "HEAD~1"]);
    assert!(!clone.join("added").exists());
    git(&clone, &["merge", "-q", "main"]);
    git(&clone, &["gc", "-q"]);
    git(&clone, &["fsck", "--full"]);
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
}

fn cargo(_: &Path, drive: &Path) {
    let package = drive.join("package");
    fs::create_dir_all(package.join("src")).unwrap();
    let manifest = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    fs::write(package.join("src/lib.rs"), "pub fn answer() -> u32 { 42 }\n").unwrap();
    fs::write(package.join("src/main.rs"), "fn main() { println!(\"{}\", tiny::answer()); }\n").unwrap();
    let build = || {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(["run", "--quiet", "--offline"]).current_dir(&package);
        // The outer cargo's settings must not send the build elsewhere.
        command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_TARGET_DIR");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(build(), "42\n");
    // Incremental: it lives by modification times.
    fs::write(package.join("src/lib.rs"), "pub fn answer() -> u32 { 43 }\n").unwrap();
    assert_eq!(build(), "43\n");
    fs::remove_dir_all(package.join("target")).unwrap();
}

fn rsync(local: &Path, drive: &Path) {
    if !has_program("rsync") {
        return loud("SKIPPED: programs: rsync is missing (apt install rsync)");
    }
    let source = format!("{}/", text(&local.join("tree")));
    let target = drive.join("synced");
    run("rsync", &["-aH", &source, text(&target)]);
    let changes = run("rsync", &["-aHi", "--delete", &source, text(&target)]);
    assert_eq!(changes, "", "a second rsync found differences");
    let changes = run("rsync", &["-aHic", "--delete", &source, text(&target)]);
    assert_eq!(changes, "", "checksums differ");
}

fn links(local: &Path, drive: &Path) {
    for root in [local, drive] {
        let root = root.join("links");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "content").unwrap();
        fs::hard_link(root.join("file"), root.join("hard")).unwrap();
        std::os::unix::fs::symlink("file", root.join("soft")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
        assert_eq!(fs::metadata(root.join("file")).unwrap().nlink(), 2);
        assert_eq!(
            fs::metadata(root.join("file")).unwrap().ino(),
            fs::metadata(root.join("hard")).unwrap().ino()
        );
        fs::write(root.join("hard"), "changed through the other name").unwrap();
        assert_eq!(fs::read_to_string(root.join("soft")).unwrap(), "changed through the other name");
        assert!(fs::metadata(root.join("dangling")).is_err());
        // An open file outlives its name.
        fs::write(root.join("gone"), "still here").unwrap();
        let open = fs::File::open(root.join("gone")).unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        let mut bytes = [0; 10];
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"still here");
        run_in(&root, "mkfifo", &["pipe"]);
    }
}

fn sparse(local: &Path, drive: &Path) {
    for root in [local, drive] {
        let path = root.join("sparse");
        run_in(root, "truncate", &["-s", "3G", "sparse"]);
        let file = fs::OpenOptions::new().write(true).read(true).open(&path).unwrap();
        file.write_all_at(b"far out", 2 << 30).unwrap();
        file.write_all_at(b"edge", (1 << 20) - 2).unwrap();
        file.sync_all().unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 3 << 30);
        assert!(
            metadata.blocks() * 512 < 10 << 20,
            "{} is not sparse: {} blocks",
            path.display(),
            metadata.blocks()
        );
        let mut bytes = [1; 16];
        file.read_exact_at(&mut bytes, (2 << 30) - 8).unwrap();
        assert_eq!(&bytes, b"\0\0\0\0\0\0\0\0far out\0");
        file.set_len((1 << 20) + 1).unwrap();
        file.set_len(2 << 20).unwrap();
        file.read_exact_at(&mut bytes, (1 << 20) - 4).unwrap();
        assert_eq!(&bytes, b"\0\0ed\x67\0\0\0\0\0\0\0\0\0\0\0", "what was cut off must read as zeros");
    }
    run("cmp", &[text(&local.join("sparse")), text(&drive.join("sparse"))]);
    run("cp", &["--sparse=always", text(&local.join("sparse")), text(&drive.join("sparse copy"))]);
    run("cmp", &[text(&local.join("sparse")), text(&drive.join("sparse copy"))]);
}

fn attributes(local: &Path, drive: &Path) {
    for root in [local, drive] {
        let path = root.join("attributes");
        fs::write(&path, "x").unwrap();
        for mode in [0o600, 0o4755, 0o1777, 0o444, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
                mode,
                "{}",
                root.display()
            );
        }
        run_in(root, "touch", &["-d", "2001-02-03 04:05:06.123456789 UTC", "attributes"]);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (981_173_106, 123_456_789));
        run_in(root, "touch", &["-a", "-d", "1960-01-01 UTC", "attributes"]);
        assert_eq!(fs::metadata(&path).unwrap().atime(), -315_619_200);
        let before = fs::metadata(&path).unwrap().mtime();
        fs::write(&path, "newer").unwrap();
        assert!(fs::metadata(&path).unwrap().mtime() > before);
        if rustix::process::geteuid().is_root() {
            run_in(root, "chown", &["1234:5678", "attributes"]);
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678));
        } else {
            loud("SKIPPED: programs: chown takes root");
        }
    }
}

fn mmap(local: &Path, drive: &Path) {
    if !has_program("python3") {
        return loud("SKIPPED: programs: mmap's test is written in Python (apt install python3)");
    }
    let program = r#"
import mmap, os, sys
path = sys.argv[1]
with open(path, "wb") as f:
    f.write(os.urandom(300_000))
with open(path, "r+b") as f:
    with mmap.mmap(f.fileno(), 0) as m:
        assert m[:100] == open(path, "rb").read(100)
        m[0:5] = b"first"
        m[100_000:100_006] = b"middle"
        m[-4:] = b"last"
        m.flush()
    os.fsync(f.fileno())
data = open(path, "rb").read()
assert data[:5] == b"first" and data[100_000:100_006] == b"middle" and data[-4:] == b"last" and len(data) == 300_000
# A plain write must be seen through a mapping.
with open(path, "r+b", buffering=0) as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
    f.seek(7); f.write(b"written")
    assert m[7:14] == b"written", m[7:14]
"#;
    for root in [local, drive] {
        run("python3", &["-c", program, text(&root.join("mapped"))]);
    }
}

fn sqlite(local: &Path, drive: &Path) {
    if !has_program("sqlite3") {
        return loud("SKIPPED: programs: sqlite3 is missing (apt install sqlite3)");
    }
    let statements = "create table t(a integer primary key, b text); insert into t(b) values ('one'), ('two'); \
        begin; insert into t(b) select b || a from t; commit; pragma integrity_check; select count(*), group_concat(b) from t;";
    let answers = [local, drive].map(|root| run_in(root, "sqlite3", &["data.db", statements]));
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].contains("ok"));
}

fn df(_: &Path, drive: &Path) {
    let kib = |column: &str| -> u64 {
        let printed = run("df", &["--block-size=1K", &format!("--output={column}"), text(drive)]);
        printed.lines().last().unwrap().trim().parse().unwrap()
    };
    let (size, used, free) = (kib("size"), kib("used"), kib("avail"));
    assert!(size > 0 && free > 0 && used <= size && free <= size, "size {size}, used {used}, free {free}");
}
