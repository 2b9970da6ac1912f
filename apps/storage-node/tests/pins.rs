//! What is pinned is on this machine when no node answers, as new as others left it, whatever else was read meanwhile.
//!
//! A cache alone keeps what was read, until something else takes its place: a directory that nobody has opened yet would be
//! missing on the train.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use common::random::Random;
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};

const SOON: Duration = Duration::from_secs(120);
const BOUND_BYTES: u64 = 16 << 20;

fn disk_bytes(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    let within = fs::read_dir(path).into_iter().flatten().flatten();
    own + within.map(|entry| disk_bytes(&entry.path())).sum::<u64>()
}

#[test]
fn a_pinned_directory_is_kept_and_current_and_readable_without_any_node() {
    if !fuse_is_usable("pins") {
        return;
    }
    let mut random = Random::announced("pins");
    let place = Place::new("pins");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    fs::create_dir_all(drive.join("album/below")).unwrap();
    let names = ["album/0", "album/1", "album/below/2", "album/below/3", "album/tiny"];
    let mut contents: Vec<Vec<u8>> =
        (0..4).map(|_| random.bytes(300_000)).chain([b"tiny".to_vec()]).collect();
    for (name, content) in names.iter().zip(&contents) {
        fs::write(drive.join(name), content).unwrap();
    }
    fs::write(drive.join("other"), random.bytes(14_000_000)).unwrap();
    assert!(up.stop().success());
    let node = Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
    let mount = || {
        Running::start(&["mount", "--cache", "16MiB", "--home", text(&home), text(&drive)], "the drive is")
    };
    let mounted = mount();

    let said = |arguments: &[&str]| {
        let output = storage_node(&[arguments, &["--home", text(&home)]].concat());
        let words = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.success(), String::from_utf8(words).unwrap())
    };
    let (is_pinned, words) = said(&["pin", "other"]);
    assert!(!is_pinned && words.contains("nothing was pinned"), "{words}");
    let (is_pinned, words) = said(&["pin", "nowhere"]);
    assert!(!is_pinned && words.contains("nowhere cannot be pinned"), "{words}");
    let (is_pinned, words) = said(&["pin", "/album/"]);
    assert!(is_pinned && words.contains("5 files"), "{words}");
    let is_kept = |files: u64| {
        let (_, words) = said(&["pins", "--json"]);
        let pin = serde_json::from_str::<serde_json::Value>(&words).unwrap()["pins"][0].clone();
        pin["is_complete"] == true && pin["files"] == files
    };
    eventually("the directory is kept", SOON, || is_kept(5));

    // From elsewhere: a file more, and another content. Nobody reads either here.
    for (name, content) in [("album/0", random.bytes(200_000)), ("album/more", random.bytes(100_000))] {
        let file = place.join("value");
        fs::write(&file, &content).unwrap();
        assert!(said(&["put", name, text(&file)]).0);
        match name {
            "album/0" => contents[0] = content,
            _ => contents.push(content),
        }
    }
    eventually("what others changed is kept", SOON, || is_kept(6));

    // Much else passes through.
    fs::copy(drive.join("other"), drive.join("copy")).unwrap();
    assert!(mounted.stop().success());
    assert!(disk_bytes(&home.join("cache")) <= BOUND_BYTES);
    node.kill();

    let mounted = mount();
    for (name, content) in names.iter().chain(&["album/more"]).zip(&contents) {
        assert!(fs::read(drive.join(name)).unwrap() == *content, "{name}");
    }
    // In other pieces than those that it was fetched by, from the end on.
    let file = fs::File::open(drive.join("album/1")).unwrap();
    for offset in (0..contents[1].len()).step_by(70_000).rev() {
        let mut piece = vec![0; 20_000.min(contents[1].len() - offset)];
        file.read_exact_at(&mut piece, offset as u64).unwrap();
        assert!(piece == contents[1][offset..offset + piece.len()], "at {offset}");
    }
    assert_eq!(fs::read_dir(drive.join("album")).unwrap().count(), 5);
    assert!(said(&["unpin", "album"]).0);
    assert!(said(&["pins"]).1.contains("nothing is pinned"));
    assert!(!said(&["unpin", "album"]).0);
    assert!(mounted.stop().success());
}
