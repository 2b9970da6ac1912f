//! How fast calls are: one at a time, 64 at a time, and with payloads of 1 MiB, over TCP and over TLS.
//!
//! With no argument both ends live in this process and share its one thread, so the times are the CPU's of both
//! sides together. `rpc_speed serve 127.0.0.1:7100` and `rpc_speed call 127.0.0.1:7100` measure two processes.

use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{Duplex, TcpListener, TcpStream};
use reactor::rpc::{Config, Connection, Method, Service};

struct Echo;
impl Method for Echo {
    const ID: u32 = 1;
    const NAME: &'static str = "echo";
    /// What is sent at most, and a message; 31 of these may be in flight.
    const REPLY_SIZE_BYTES_MAX: usize = (1 << 20) + 16;
    type Request = ();
    type Response = ();
    type Error = ();
}

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => reactor::run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            let address = listener.local_addr().expect("it is bound");
            reactor::spawn(move || serve(&listener));
            call(address);
        }),
        ["serve", address] => {
            let address: SocketAddr = address.parse()?;
            reactor::run(move || serve(&TcpListener::bind(address).expect("the port is free")));
        }
        ["call", address] => {
            let address: SocketAddr = address.parse()?;
            reactor::run(move || call(address));
        }
        _ => return Err("usage: rpc_speed [serve ADDRESS | call ADDRESS]".into()),
    }
    Ok(())
}

/// Takes plain and encrypted connections in turn, as `call` makes them.
fn serve(listener: &TcpListener) {
    let identity = Rc::new(Identity::generate());
    for encrypted in [false, true].into_iter().cycle() {
        let (stream, _) = listener.accept().expect("the listener works");
        let identity = identity.clone();
        reactor::spawn(move || {
            let mut service = Service::new();
            service.on::<Echo>(|_, (), payload| Ok(((), payload)));
            let start = |stream: Box<dyn Duplex>| {
                Connection::start(stream, Rc::new(service), Config::default()).wait_closed()
            };
            match encrypted {
                false => start(Box::new(stream)),
                true => start(Box::new(tls::accept(stream, &identity).expect("the client speaks TLS"))),
            }
        });
    }
}

fn call(address: SocketAddr) {
    let identity = Rc::new(Identity::generate());
    let connect = || TcpStream::connect(address).expect("the server listens");
    let plain = Connection::start(connect(), Service::none(), Config::default());
    measure("TCP", &plain);

    let start = Instant::now();
    let stream = tls::connect(connect(), &identity, Expect::Any).expect("the server speaks TLS");
    println!("TLS handshake: {} us", start.elapsed().as_micros());
    let encrypted = Connection::start(stream, Service::none(), Config::default());
    measure("TLS", &encrypted);
}

fn measure(name: &str, connection: &Connection) {
    let small = Bytes::from(vec![7; 64]);
    let one = |payload: &Bytes| {
        connection.call::<Echo>(&(), payload.clone(), PATIENCE).expect("the server echoes");
    };
    let timed = |what: &str, count: u32, run: &dyn Fn()| {
        let (start, cpu) = (Instant::now(), cpu_time());
        run();
        let (wall, cpu) = (start.elapsed() / count, (cpu_time() - cpu) / count);
        println!("{name}, {what}: {:.2} us, of it {:.2} us CPU here", us(wall), us(cpu));
        wall
    };
    (0..2_000).for_each(|_| one(&small));
    timed("64 B, one at a time", 50_000, &|| (0..50_000).for_each(|_| one(&small)));
    timed("64 B, 64 at a time", 256_000, &|| {
        reactor::scope(|s| {
            for _ in 0..64 {
                s.spawn(|| (0..4_000).for_each(|_| one(&small)));
            }
        });
    });
    for (size, count) in [(64 << 10, 4_000u32), (1 << 20, 400)] {
        let large = Bytes::from(vec![7; size]);
        let wall = timed(&format!("{} KiB each way, 4 at a time", size >> 10), count, &|| {
            reactor::scope(|s| {
                for _ in 0..4 {
                    s.spawn(|| (0..count / 4).for_each(|_| one(&large)));
                }
            });
        });
        println!("{name}: {:.2} GB/s in each direction", size as f64 / wall.as_secs_f64() / 1e9);
    }
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The CPU time of this process, in the kernel's steps of 10 ms.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux tells");
    // The second field, in parentheses, may hold spaces; user and system time are the 12th and 13th after it.
    let fields = text.rsplit(')').next().into_iter().flat_map(str::split_whitespace);
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}
