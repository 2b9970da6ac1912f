//! Bad input at every port and every store: a clear error or a closed connection, and nothing else.
//!
//! What could go wrong: a length field that sizes an allocation, a panic that takes a node down, a stranger let in, a
//! flipped bit on a disk that reaches a reader or stops a start, connections that pile up. Memory is weighed before
//! and after; the drive works throughout.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::random::Random;
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, loud, resident_bytes, run, sources, storage_node, text};

/// What all the bad connections together may cost a node.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

#[test]
fn strangers_and_garbage_at_every_port_change_nothing() {
    if !fuse_is_usable("bad_input: ports") {
        return;
    }
    let mut random = Random::announced("bad_input: ports");
    let place = Place::new("bad-input");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let mut up = Running::up(&home, &drive, 3);
    let ports = addresses(&home);
    assert_eq!(ports.len(), 3);
    let processes: Vec<u32> = (1..=3).map(|number| up.node_pid(number).unwrap_or(up.pid())).collect();
    fs::write(drive.join("kept"), "safe").unwrap();
    let before: Vec<u64> = processes.iter().map(|&pid| resident_bytes(pid).unwrap()).collect();

    for round in 0..120 {
        for &port in &ports {
            let Ok(mut stream) = TcpStream::connect(port) else {
                panic!("{port} takes no connections in round {round}")
            };
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            let bytes = garbage(&mut random);
            let _ = stream.write_all(&bytes);
            match random.below(3) {
                // Wait for the node's verdict: it must close, or say goodbye, and not stay open for ever.
                0 if round % 10 == 0 => {
                    let _ = stream.shutdown(Shutdown::Write);
                    let mut answer = Vec::new();
                    let ended = (&mut stream).take(1 << 20).read_to_end(&mut answer);
                    assert!(
                        !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
                        "{port} keeps a connection of garbage open"
                    );
                }
                1 => drop(stream.shutdown(Shutdown::Both)),
                _ => {}
            }
        }
    }
    // Connections that say nothing must not starve those that do.
    let silent: Vec<TcpStream> = ports
        .iter()
        .flat_map(|port| (0..100).map(move |_| TcpStream::connect(port)))
        .filter_map(Result::ok)
        .collect();
    let mut file = fs::File::create(drive.join("written meanwhile")).unwrap();
    file.write_all(b"works").unwrap();
    file.sync_all().unwrap();
    drop(silent);

    strangers(&place, &home, &ports);

    assert_eq!(fs::read_to_string(drive.join("kept")).unwrap(), "safe");
    eventually("all is well", Duration::from_secs(120), || {
        let status = storage_node(&["status", "--home", text(&home)]);
        String::from_utf8_lossy(&status.stdout).starts_with("healthy")
    });
    for (pid, before) in processes.iter().zip(before) {
        let after = resident_bytes(*pid).expect("the process lives on");
        loud(&format!("bad_input: process {pid}: {} MiB before, {} after", before >> 20, after >> 20));
        assert!(after < before + GROWTH_BYTES_MAX, "process {pid} grew from {before} to {after} bytes");
    }
    let said = up.drain();
    assert!(!said.contains("panicked") && !said.contains("starting it again"), "{said}");
    assert!(up.stop().success());
}

/// Random bytes, true starts of TLS and of our own frames with absurd lengths, and other protocols.
fn garbage(random: &mut Random) -> Vec<u8> {
    let length = random.below(5000) as usize;
    let noise = random.bytes(length);
    match random.below(6) {
        0 => noise,
        // A TLS record that promises the most and brings noise.
        1 => [&[0x16, 3, 1, 0xff, 0xff][..], &noise].concat(),
        // A client hello of 16 MiB.
        2 => [&[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff, 3, 3][..], &noise].concat(),
        3 => b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
        4 => [&b"hyphrpc\x01"[..], &[0xff; 24], &noise].concat(),
        _ => Vec::new(),
    }
}

/// Members of another network, and forged or missing passports, at each port.
fn strangers(place: &Place, home: &Path, ports: &[SocketAddr]) {
    // Another network of its own, made by the program itself.
    let other = place.join("other");
    let up = Running::up(&other, &place.join("other-drive"), 1);
    let their_key = text(&other.join("user.key")).to_owned();
    let mixed = place.join("mixed.key");
    // Their key file with our user's passport: a stolen passport without its key.
    let ours: serde_json::Value = serde_json::from_slice(&fs::read(home.join("user.key")).unwrap()).unwrap();
    let mut theirs: serde_json::Value = serde_json::from_slice(&fs::read(&their_key).unwrap()).unwrap();
    theirs["passport"] = ours["passport"].clone();
    write_key(&mixed, &theirs);
    // Our user's key with one bit of its passport's signature flipped.
    let forged = place.join("forged.key");
    let mut altered = ours.clone();
    let mut passport = ours["passport"].as_str().unwrap().to_owned();
    let last = passport.pop().unwrap();
    passport.push(if last == '0' { '1' } else { '0' });
    altered["passport"] = passport.into();
    write_key(&forged, &altered);

    let our_network = home.join("network.json");
    for port in ports {
        for key in [their_key.as_str(), text(&mixed), text(&forged)] {
            let put = storage_node(&[
                "put",
                "intruder",
                text(&our_network),
                "--network",
                text(&our_network),
                "--key",
                key,
                "--node",
                &port.to_string(),
            ]);
            let said = String::from_utf8_lossy(&put.stderr).into_owned();
            assert_eq!(put.status.code(), Some(1), "a stranger was let in at {port}: {said}");
            assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
        }
    }
    let get = storage_node(&["get", "intruder", "--home", text(home)]);
    assert!(!get.status.success(), "an intruder's value was stored");
    assert!(up.stop().success());
}

fn write_key(path: &Path, key: &serde_json::Value) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(key.to_string().as_bytes()).unwrap();
}

#[test]
fn flipped_bits_in_a_stored_block_are_noticed_and_read_around() {
    if !fuse_is_usable("bad_input: flipped bits") {
        return;
    }
    let mut random = Random::announced("bad_input: flipped bits");
    let place = Place::new("flipped-bits");
    let (home, drive, source) = (place.join("home"), place.join("drive"), place.join("source"));
    sources::gather(&source, 300);
    fs::write(source.join("large"), random.bytes(4 << 20)).unwrap();
    let up = Running::up(&home, &drive, 3);
    run("cp", &["-a", text(&source), text(&drive.join("copy"))]);
    assert!(up.stop().success());

    // Node 2's store rots: some bits in each of its larger files.
    let damaged = flip_bits(&home.join("nodes/2/store"), 200, &mut random);
    assert!(damaged > 0, "there was nothing to damage");
    loud(&format!("bad_input: flipped 200 bits in {damaged} files of node 2"));
    let mut up = Running::up(&home, &drive, 3);
    run("diff", &["-r", text(&source), text(&drive.join("copy"))]);
    // Writing goes on as well.
    let mut file = fs::File::create(drive.join("after")).unwrap();
    file.write_all(b"works").unwrap();
    file.sync_all().unwrap();
    drop(file);
    let said = up.drain();
    assert!(!said.contains("panicked"), "{said}");
    assert!(up.stop().success());

    // And with node 2 gone altogether, the other two have everything.
    fs::remove_dir_all(home.join("nodes/2/store")).unwrap();
    let started = Instant::now();
    let up = Running::up(&home, &drive, 3);
    run("diff", &["-r", text(&source), text(&drive.join("copy"))]);
    loud(&format!("bad_input: read around an empty node in {:.1} s", started.elapsed().as_secs_f32()));
    assert_eq!(fs::read_to_string(drive.join("after")).unwrap(), "works");
    assert!(up.stop().success());
}

fn flip_bits(directory: &Path, count: usize, random: &mut Random) -> usize {
    let files: Vec<(PathBuf, u64)> = run("find", &[text(directory), "-type", "f", "-size", "+16k"])
        .lines()
        .map(|line| (PathBuf::from(line), fs::metadata(line).unwrap().len()))
        .collect();
    for (path, length) in &files {
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        for _ in 0..count / files.len() {
            let (offset, mut byte) = (random.below(*length), [0]);
            file.read_exact_at(&mut byte, offset).unwrap();
            byte[0] ^= 1 << random.below(8);
            file.write_all_at(&byte, offset).unwrap();
        }
    }
    files.len()
}

fn addresses(home: &Path) -> Vec<SocketAddr> {
    let network: serde_json::Value =
        serde_json::from_slice(&fs::read(home.join("network.json")).unwrap()).unwrap();
    let nodes = network["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["address"].as_str().unwrap().parse().unwrap()).collect()
}
