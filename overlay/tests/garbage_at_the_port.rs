//! Port scanners, broken programs and liars at a node's port: their connections are closed, in bounded time and in
//! bounded number, and the node's own network notices nothing.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::*;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use reactor::crypto::Identity;
use reactor::net::TcpStream;
use reactor::net::tls::{self, Expect};

/// Reads until the other side closes; panics if it does not in `limit`.
fn closed_within(limit: Duration, mut stream: impl Read) -> Duration {
    let began = Instant::now();
    let read = reactor::timeout(limit, || {
        let mut buffer = [0; 1024];
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    });
    assert!(read.is_ok(), "still open after {limit:?}");
    began.elapsed()
}

#[test]
fn garbage_is_closed_and_the_network_goes_on() {
    let seed = seed();
    reactor::run(move || {
        let mut random = StdRng::seed_from_u64(seed);
        let network = Network::new();
        let nodes = network.start(2);
        for _ in 0..50 {
            let mut stream = TcpStream::connect_one(address(&nodes[0])).unwrap();
            let mut bytes = vec![0; random.random_range(1..70_000)];
            random.fill_bytes(&mut bytes);
            // As far as so many bytes of a TLS record's header, some look right.
            let plausible = random.random_range(0..=5).min(bytes.len());
            bytes[..plausible].copy_from_slice(&[22, 3, 1, 2, 0][..plausible]);
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            closed_within(Duration::from_secs(8), &stream);
        }
        let third = start(network.storage(&[address(&nodes[0])]));
        assert_eq!(live_count(&third), 2);
    });
}

#[test]
fn garbage_inside_tls_is_closed_too() {
    let seed = seed();
    reactor::run(move || {
        let mut random = StdRng::seed_from_u64(seed);
        let network = Network::new();
        let node = start(network.storage(&[]));
        let stranger = std::rc::Rc::new(Identity::generate());
        for round in 0..30 {
            let stream = TcpStream::connect_one(address(&node)).unwrap();
            let stream = tls::connect(stream, &stranger, Expect::Any).unwrap();
            let mut bytes = vec![0; random.random_range(2..20_000)];
            random.fill_bytes(&mut bytes);
            if round % 2 == 0 {
                // A length within the bound, so that the body is read.
                bytes[..2].copy_from_slice(&(random.random_range(0..2000u16)).to_be_bytes());
            }
            let _ = (&stream).write_all(&bytes);
            closed_within(Duration::from_secs(8), &stream);
        }
        assert_eq!(node.peers().count(), 0);
        start(network.storage(&[address(&node)]));
        assert_eq!(live_count(&node), 1);
    });
}

/// The memory this process occupies, in MiB; 0 where that can't be read.
fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<usize>().ok());
    kib.unwrap_or(0) / 1024
}

#[test]
fn a_flood_takes_bounded_memory() {
    reactor::run(|| {
        let network = Network::new();
        let node = start(network.storage(&[]));
        let before = resident_mib();
        // Each promises a TLS record of the largest size and sends half of it; a thousand are held open.
        let mut record = vec![0; 8192];
        record[..5].copy_from_slice(&[22, 3, 1, 0x40, 0]);
        let flood: Vec<TcpStream> = (0..1000)
            .filter_map(|_| {
                let mut stream = TcpStream::connect_one(address(&node)).ok()?;
                let _ = stream.write_all(&record);
                Some(stream)
            })
            .collect();
        let grown = resident_mib().saturating_sub(before);
        println!("{} half-open connections: {grown} MiB more", flood.len());
        assert!(grown < 64, "{grown} MiB for strangers");
        drop(flood);
        eventually("there are places again", Duration::from_secs(10), || {
            network_member_joins(&network, &node)
        });
    });
}

/// Whether a new member gets in now.
fn network_member_joins(network: &Network, node: &overlay::Node) -> bool {
    live_count(&start(network.storage(&[address(node)]))) == 1
}

#[test]
fn the_silent_are_closed_after_a_while_and_cannot_crowd_out_others_for_longer() {
    reactor::run(|| {
        let network = Network::new();
        let node = start(network.storage(&[]));
        let silent: Vec<TcpStream> =
            (0..300).map(|_| TcpStream::connect_one(address(&node)).unwrap()).collect();
        let began = Instant::now();
        for stream in &silent {
            closed_within(Duration::from_secs(8), stream);
        }
        println!("300 silent connections were closed within {:?}", began.elapsed());
        start(network.storage(&[address(&node)]));
        assert_eq!(live_count(&node), 1);
    });
}
