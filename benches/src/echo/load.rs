//! The load generator: plain epoll on a thread pinned to a processor of its own.
//!
//! Every connection has one request in flight: it sends its message, waits for the whole reply, compares it, and
//! sends again. One `recv` and one `send` a request and a shared `epoll_wait`: about the least that a client can
//! do, yet also about what a good server does, so that either may be the slower one. The generator's own
//! processor time is reported beside the server's for that reason: where it nears 100 %, requests per second are
//! the generator's limit, and only the server's processor time per request tells servers apart.

use crate::process;
use crate::statistics::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What is asked of a server.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Workload {
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// The size of a message, its newline included.
    pub size_bytes: usize,
    /// How long the load runs before anything is measured.
    pub warm_up: Duration,
    /// How long it is measured.
    pub duration: Duration,
}

/// What came of it.
pub struct Outcome {
    /// Requests answered while measured.
    pub requests: u64,
    /// How long was measured.
    pub elapsed: Duration,
    /// From sending a request until its whole reply is here, in nanoseconds.
    pub latencies: Histogram,
    /// Processor time of the server's threads meanwhile.
    pub server_cpu: Duration,
    /// Processor time of the generator meanwhile.
    pub generator_cpu: Duration,
}

struct Connection {
    stream: TcpStream,
    message: Vec<u8>,
    received: usize,
    sent_at: Instant,
}

/// A set of connections to a server, ready for load.
pub struct Generator {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Where replies are read; one for all, since each is compared at once.
    buffer: Vec<u8>,
}

impl Generator {
    /// Connects, and has each connection echo once.
    ///
    /// # Errors
    /// Fails when a connection does, or a reply is wrong.
    pub fn connect(address: SocketAddr, workload: &Workload) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(workload.connections);
        for index in 0..workload.connections {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            let message = message(index, workload.size_bytes);
            let mut reply = vec![0; message.len()];
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(&message)?;
            stream.read_exact(&mut reply)?;
            if reply != message {
                return Err(io::Error::other("a reply differs from its request"));
            }
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
            connections.push(Connection { stream, message, received: 0, sent_at: Instant::now() });
        }
        Ok(Self { epoll, connections, buffer: vec![0; workload.size_bytes.max(4096)] })
    }

    /// Runs the load and measures it; `server_id` is the process whose processor time is read.
    ///
    /// # Errors
    /// Fails when the server goes away or sends something else than it got.
    pub fn run(&mut self, workload: &Workload, server_id: u32) -> io::Result<Outcome> {
        for connection in &mut self.connections {
            connection.send(Instant::now())?;
        }
        let mut outcome = self.run_for(workload.warm_up, server_id)?;
        if !workload.duration.is_zero() {
            outcome = self.run_for(workload.duration, server_id)?;
        }
        self.drain()?;
        Ok(outcome)
    }

    fn run_for(&mut self, duration: Duration, server_id: u32) -> io::Result<Outcome> {
        let own_id = std::process::id();
        let (server_before, own_before) = (process::threads_cpu(server_id)?, process::threads_cpu(own_id)?);
        let mut latencies = Histogram::default();
        let begin = Instant::now();
        let end = begin + duration;
        while Instant::now() < end {
            self.round(true, |latency| latencies.record(latency.as_nanos() as u64))?;
        }
        let elapsed = begin.elapsed();
        Ok(Outcome {
            requests: latencies.total(),
            elapsed,
            latencies,
            server_cpu: process::threads_cpu(server_id)?.saturating_sub(server_before),
            generator_cpu: process::threads_cpu(own_id)?.saturating_sub(own_before),
        })
    }

    /// Takes the replies that are still due, so that the connections can be used again.
    fn drain(&mut self) -> io::Result<()> {
        let mut due = self.connections.len();
        while due > 0 {
            self.round(false, |_| due -= 1)?;
        }
        Ok(())
    }

    /// Waits for replies, gives the latency of each whole one to `on_reply`, and sends again if `go_on`.
    fn round(&mut self, go_on: bool, mut on_reply: impl FnMut(Duration)) -> io::Result<()> {
        const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
        let mut events = Vec::with_capacity(self.connections.len());
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&PATIENCE))?;
        if events.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no reply for 10 s: the server is stuck"));
        }
        for event in events {
            let connection = &mut self.connections[event.data.u64() as usize];
            if connection.receive(&mut self.buffer)? {
                let now = Instant::now();
                on_reply(now - connection.sent_at);
                if go_on {
                    connection.send(now)?;
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self, now: Instant) -> io::Result<()> {
        self.sent_at = now;
        self.received = 0;
        // One request in flight always fits the socket's buffers: this neither blocks nor splits.
        match self.stream.write(&self.message)? {
            count if count == self.message.len() => Ok(()),
            _ => Err(io::Error::other("the socket took a part of a message: choose a smaller size")),
        }
    }

    /// Reads once; whether the reply is whole.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let count = match self.stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            result => result?,
        };
        let expected = &self.message[self.received..];
        if count == 0 || count > expected.len() || buffer[..count] != expected[..count] {
            return Err(io::Error::other("the server closed, or sent other bytes than it got"));
        }
        self.received += count;
        Ok(self.received == self.message.len())
    }
}

/// Returns the message of connection `index`: its number, filling, a newline; no two connections have the same.
fn message(index: usize, size_bytes: usize) -> Vec<u8> {
    let mut message = format!("{index}:").into_bytes();
    message.extend((0..size_bytes).map(|position| b'a' + ((position + index) % 26) as u8));
    message.truncate(size_bytes.max(2) - 1);
    message.push(b'\n');
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    #[test]
    fn a_message_has_its_size_and_one_newline_at_its_end() {
        for size_bytes in [2, 64, 4096] {
            let message = message(123, size_bytes);
            assert_eq!(message.len(), size_bytes);
            assert_eq!(message.iter().position(|&byte| byte == b'\n'), Some(size_bytes - 1));
        }
    }

    #[test]
    fn the_generator_measures_a_server_of_threads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let mut writer = stream.unwrap();
                    let mut reader = BufReader::new(writer.try_clone().unwrap());
                    let mut line = Vec::new();
                    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                        writer.write_all(&line).unwrap();
                        line.clear();
                    }
                });
            }
        });
        super::super::verify::verify(address).unwrap();
        let short = Duration::from_millis(20);
        let workload = Workload { connections: 4, size_bytes: 64, warm_up: short, duration: short };
        let mut generator = Generator::connect(address, &workload).unwrap();
        let outcome = generator.run(&workload, std::process::id()).unwrap();
        assert!(outcome.requests > 0);
        assert_eq!(outcome.requests, outcome.latencies.total());
        assert!(outcome.elapsed >= short);
    }
}
