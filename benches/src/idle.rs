//! Connections that do nothing: what each costs the server, and what they cost the one that does something.
//!
//! The servers are those of [`crate::echo`], and so is the rule of fairness: each connection has a buffer of 8 KiB
//! (ours gives it back before it waits) and has echoed one line before it falls idle, as a client that has been served
//! and may come back. What is read is the server's own memory (resident pages and page tables); the kernel's socket
//! buffers are the same for all and are not in it.

use crate::process::{Program, threads_cpu};
use crate::statistics::Histogram;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Connections to one of the loopback addresses: well below the 28,000 ports that a client has for each.
const CONNECTIONS_PER_ADDRESS: usize = 10_000;

/// What a server did with `count` idle connections.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Memory for each of them; none of them, none of it.
    pub bytes_each: Option<f64>,
    /// Of the active connection: the median.
    pub p50_us: f64,
    /// What 99 % of its requests did not exceed.
    pub p99_us: f64,
    /// Processor time of the server for one of its requests.
    pub server_us: f64,
}

/// Connects `count` times to the server at `port`, lets all echo once, and then has one go on.
///
/// # Errors
/// Fails when a connection does.
pub fn measure(server: &Program, port: u16, count: usize, requests: u64) -> io::Result<Outcome> {
    let address = |index: usize| {
        let host = 1 + index / CONNECTIONS_PER_ADDRESS;
        SocketAddr::from((Ipv4Addr::new(127, 0, 0, host as u8), port))
    };
    let mut active = Client::connect(address(0))?;
    let before = resident_bytes(server.id())?;
    let mut idle = Vec::with_capacity(count);
    for index in 0..count {
        idle.push(Client::connect(address(index)).map_err(|error| {
            io::Error::new(error.kind(), format!("connection {index} of {count}: {error}"))
        })?);
    }
    // Whatever the server still has to do for the last of them.
    std::thread::sleep(Duration::from_millis(300));
    let grown = resident_bytes(server.id())?.saturating_sub(before);
    let mut latencies = Histogram::default();
    for _ in 0..requests / 10 {
        active.ask()?;
    }
    let cpu = threads_cpu(server.id())?;
    for _ in 0..requests {
        let begin = Instant::now();
        active.ask()?;
        latencies.record(begin.elapsed().as_nanos() as u64);
    }
    let cpu = threads_cpu(server.id())?.saturating_sub(cpu);
    for client in &mut idle[..count.min(10)] {
        // They are idle, not forgotten.
        client.ask()?;
    }
    Ok(Outcome {
        bytes_each: (count > 0).then(|| grown as f64 / count as f64),
        p50_us: latencies.quantile(0.5) as f64 / 1e3,
        p99_us: latencies.quantile(0.99) as f64 / 1e3,
        server_us: cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
    })
}

struct Client(TcpStream);

const LINE: &[u8; 64] = &{
    let mut line = [b'x'; 64];
    line[63] = b'\n';
    line
};

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut client = Self(stream);
        client.ask()?;
        Ok(client)
    }

    fn ask(&mut self) -> io::Result<()> {
        let mut reply = [0; LINE.len()];
        self.0.write_all(LINE)?;
        self.0.read_exact(&mut reply)?;
        match &reply == LINE {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::InvalidData, "the reply differs from its request")),
        }
    }
}

/// Returns the resident memory of a process and its page tables.
fn resident_bytes(process_id: u32) -> io::Result<u64> {
    let field = |file: &str, name: &str| -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{process_id}/{file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or(ErrorKind::InvalidData)?;
        let kibibytes: u64 =
            line.trim().trim_end_matches("kB").trim().parse().map_err(|_| ErrorKind::InvalidData)?;
        Ok(kibibytes * 1024)
    };
    Ok(field("smaps_rollup", "Rss:")? + field("status", "VmPTE:")?)
}
