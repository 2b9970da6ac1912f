//! Files that a program has open, as other programs find them: copied whole, counted truly.
//!
//! Once the kernel held what had just been written, and the drive was asked about it: where is data, how many blocks? It
//! knew of none, so `cp`, `install` and `tar -S` made zeros of every log and database that was in use, with exit 0.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use common::random::Random;
use common::running::Running;
use common::{Place, fuse_is_usable, run, run_in, text};

const STORY: &str = "open_files_are_copied_whole";

#[test]
fn open_files_are_copied_whole() {
    if !fuse_is_usable(STORY) {
        return;
    }
    let place = Place::new(STORY);
    let drive = place.join("drive");
    let up = Running::up(&place.join("home"), &drive, 1);
    let mut random = Random::announced(STORY);

    // A log: a synced head, a fresh tail.
    let content = random.bytes(240_000);
    let mut log = OpenOptions::new().append(true).create(true).open(drive.join("log")).unwrap();
    log.write_all(&content[..120_000]).unwrap();
    log.sync_all().unwrap();
    log.write_all(&content[120_000..]).unwrap();
    copies(&place, &drive, "log", &content);
    let metadata = fs::metadata(drive.join("log")).unwrap();
    assert!(metadata.blocks() * 512 >= 240_000, "{} blocks", metadata.blocks());

    // A database: written here and there, with holes.
    let database = OpenOptions::new().write(true).create_new(true).open(drive.join("database")).unwrap();
    let mut content = vec![0; 3_000_000];
    for at in [0, 700_000, 2_990_000] {
        let page = random.bytes(4096);
        database.write_all_at(&page, at as u64).unwrap();
        content[at..at + 4096].copy_from_slice(&page);
    }
    database.set_len(3_000_000).unwrap();
    copies(&place, &drive, "database", &content);
    let metadata = fs::metadata(drive.join("database")).unwrap();
    assert!(metadata.blocks() > 0 && metadata.blocks() * 512 < 1_000_000, "{} blocks", metadata.blocks());

    // A map: pages that nobody has written back, in what is a hole to everybody else.
    fs::write(drive.join("map"), "").unwrap();
    OpenOptions::new().write(true).open(drive.join("map")).unwrap().set_len(1_000_000).unwrap();
    let mut mapper = std::process::Command::new("python3")
        .args(["-c", MAP, text(&drive.join("map"))])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(mapper.stdout.as_mut().unwrap(), &mut line).unwrap();
    let mut content = vec![0; 1_000_000];
    content[500_000..500_006].copy_from_slice(b"mapped");
    copies(&place, &drive, "map", &content);
    drop(mapper.stdin.take());
    assert!(mapper.wait().unwrap().success());

    drop((log, database));
    assert!(up.stop().success());
}

/// Changes six bytes through `mmap`, says so, and keeps the map until its input ends.
const MAP: &str = "
import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    pages = mmap.mmap(file.fileno(), 0)
    pages[500000:500006] = b'mapped'
    sys.stdout.write('mapped'); sys.stdout.flush()
    sys.stdin.read()
";

/// Every way to copy `name` gives `content`.
fn copies(place: &Place, drive: &Path, name: &str, content: &[u8]) {
    let from = drive.join(name);
    for (how, program, arguments) in [
        ("cp", "cp", &[][..]),
        ("cp-sparse", "cp", &["--sparse=always"][..]),
        ("install", "install", &["-m", "600"][..]),
    ] {
        for to in [place.join(&format!("{name}-{how}")), drive.join(format!("{name}-{how}"))] {
            let mut arguments = arguments.to_vec();
            arguments.extend([text(&from), text(&to)]);
            run(program, &arguments);
            assert!(fs::read(&to).unwrap() == content, "{how} of {name} to {}", to.display());
        }
    }
    let archive = place.join("archive.tar");
    run_in(drive, "tar", &["-Scf", text(&archive), name]);
    let unpacked = place.join("unpacked");
    fs::create_dir_all(&unpacked).unwrap();
    run_in(&unpacked, "tar", &["-xf", text(&archive)]);
    assert!(fs::read(unpacked.join(name)).unwrap() == content, "tar -S of {name}");
}
