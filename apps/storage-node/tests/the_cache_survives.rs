//! A mount that starts again finds on its disk what it had read: after an orderly end, after SIGKILL, and within its bound.
//!
//! Once there was a cache in memory only, and each start asked the nodes for everything. What the nodes gave is counted by
//! the nodes: no stop-watch is needed to tell a warm start from a cold one.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::random::Random;
use common::running::Running;
use common::{Place, detach, eventually, fuse_is_usable, storage_node, text};

/// `status` tells what a mount's cache did within some seconds; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);
const FILE_COUNT: usize = 60;
const BOUND_BYTES: u64 = 8 << 20;
const WORDS: &[u8] = b"nobody but the user reads this, and a thief of the disk is not the user";

/// A network of one node, in a process of its own.
struct Network {
    home: PathBuf,
    node: Option<Running>,
    _place: Place,
}

impl Network {
    /// With the files in its drive.
    fn with(files: &[Vec<u8>]) -> Network {
        let place = Place::new("cache");
        let (home, drive) = (place.join("home"), place.join("drive"));
        let up = Running::up(&home, &drive, 1);
        for (number, content) in files.iter().enumerate() {
            fs::write(drive.join(number.to_string()), content).unwrap();
        }
        assert!(up.stop().success());
        let node = Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
        Network { home, node: Some(node), _place: place }
    }

    fn mount(&self, more: &[&str]) -> (Running, PathBuf) {
        let drive = self.home.with_file_name("mounted");
        let arguments = [&["mount", "--home", text(&self.home), text(&drive)], more].concat();
        (Running::start(&arguments, "the drive is"), drive)
    }

    fn status(&self) -> serde_json::Value {
        let output = storage_node(&["status", "--json", "--home", text(&self.home)]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Blocks and ranges that the node has given.
    fn served(&self) -> u64 {
        self.status()["nodes"][0]["served"].as_u64().unwrap()
    }

    fn cache(&self) -> PathBuf {
        self.home.join("cache")
    }
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let of = |queue: &str| fs::read_dir(cache.join(queue)).unwrap().map(|entry| entry.unwrap().path());
    of("small").chain(of("main")).collect()
}

/// What it takes on the disk. Files may go while it is counted.
fn disk_bytes(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    let within = fs::read_dir(path).into_iter().flatten().flatten();
    own + within.map(|entry| disk_bytes(&entry.path())).sum::<u64>()
}

#[test]
fn a_restarted_mount_reads_from_its_disk_and_never_takes_more_than_its_bound() {
    if !fuse_is_usable("the_cache_survives") {
        return;
    }
    let mut random = Random::announced("the_cache_survives");
    let files: Vec<Vec<u8>> = (0..FILE_COUNT)
        .map(|_| {
            let length = 20_000 + random.below(40_000) as usize;
            [WORDS, &random.bytes(length)].concat()
        })
        .collect();
    let network = Network::with(&files);
    let read_all = |drive: &Path| {
        for (number, content) in files.iter().enumerate() {
            assert!(fs::read(drive.join(number.to_string())).unwrap() == *content, "file {number}");
        }
    };
    let given = |during: &dyn Fn()| {
        let before = network.served();
        during();
        network.served() - before
    };

    let cold = given(&|| {
        let (mount, drive) = network.mount(&[]);
        read_all(&drive);
        assert!(mount.stop().success());
    });
    assert!(cold >= 20, "cold: {cold}");
    let warm = given(&|| {
        let (mount, drive) = network.mount(&[]);
        read_all(&drive);
        eventually("hits in `status`", SOON, || {
            let cache = &network.status()["cache"];
            cache["hits"].as_u64().unwrap() >= 20 && cache["size_bytes"].as_u64().unwrap() > 1_000_000
        });
        // As a power cut would, but for the kernel's memory.
        mount.kill();
        detach(&drive);
    });
    // The tree's nodes that mounts write about themselves may be new.
    assert!(warm <= cold / 5, "cold: {cold}, warm: {warm}");
    let after_kill = given(&|| {
        let (mount, drive) = network.mount(&[]);
        read_all(&drive);
        assert!(mount.stop().success());
    });
    assert!(after_kill <= cold / 5, "cold: {cold}, after the kill: {after_kill}");

    // A thief finds what a node holds, and nobody can plant anything.
    let kept = entries(&network.cache());
    assert!(kept.len() >= 20);
    for path in kept {
        let mut bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(WORDS.len()).any(|window| window == WORDS), "{}", path.display());
        for at in (0..bytes.len()).step_by(1000) {
            bytes[at] ^= 1 << random.below(8);
        }
        fs::write(&path, bytes).unwrap();
    }
    let again = given(&|| {
        let (mount, drive) = network.mount(&[]);
        read_all(&drive);
        assert!(mount.stop().success());
    });
    assert!(again >= cold / 2, "cold: {cold}, flipped: {again}");

    // A copy that is larger than the bound.
    let (mount, drive) = network.mount(&["--cache", "8MiB"]);
    for number in 0..20 {
        let name = drive.join(format!("large {number}"));
        fs::write(&name, random.bytes(1_000_000)).unwrap();
        assert_eq!(fs::read(&name).unwrap().len(), 1_000_000);
        let taken = disk_bytes(&network.cache());
        assert!(taken <= BOUND_BYTES, "{taken}");
    }
    read_all(&drive);
    assert!(mount.stop().success());
    let taken = disk_bytes(&network.cache());
    assert!((BOUND_BYTES / 2..=BOUND_BYTES).contains(&taken), "{taken}");
    // It is remembered.
    let (mount, drive) = network.mount(&[]);
    read_all(&drive);
    eventually("the bound in `status`", SOON, || {
        let cache = &network.status()["cache"];
        cache["bound_bytes"] == BOUND_BYTES && cache["size_bytes"].as_u64().unwrap() <= BOUND_BYTES
    });
    assert!(mount.stop().success());
    let mut network = network;
    assert!(network.node.take().unwrap().stop().success());
}
