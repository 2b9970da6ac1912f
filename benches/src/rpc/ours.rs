//! Our server and our caller, with the command line of the peers' programs.

use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{Duplex, TcpListener, TcpStream};
use reactor::rpc::{CallContext, Config, Connection, Never, Payload, Service};
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

reactor::service! {
    /// Returns what it gets.
    pub trait Echo = "bench.echo" version 1, client EchoClient {
        /// In a coroutine of its own, as a handler that may suspend needs.
        fn echo(&self, data: Payload) -> Result<((), Payload), Never> = 1 as EchoMethod;
        /// On the connection's reader, as a handler that never suspends may.
        fn echo_inline(&self, data: Payload) -> Result<((), Payload), Never> = 2 as EchoInlineMethod, inline;
        /// As `echo`, for payloads beyond what a call that says nothing may return.
        fn echo_large(&self, data: Payload) -> Result<((), Payload), Never>
            = 3 as EchoLargeMethod, replies_up_to((1 << 20) + 16);
        /// As `echo_inline`, for those.
        fn echo_large_inline(&self, data: Payload) -> Result<((), Payload), Never>
            = 4 as EchoLargeInlineMethod, inline, replies_up_to((1 << 20) + 16);
    }
}

struct Mirror;

impl Echo for Mirror {
    fn echo(&self, _call: &CallContext, data: Payload) -> Result<((), Payload), Never> {
        Ok(((), data))
    }

    fn echo_inline(&self, _call: &CallContext, data: Payload) -> Result<((), Payload), Never> {
        Ok(((), data))
    }

    fn echo_large(&self, _call: &CallContext, data: Payload) -> Result<((), Payload), Never> {
        Ok(((), data))
    }

    fn echo_large_inline(&self, _call: &CallContext, data: Payload) -> Result<((), Payload), Never> {
        Ok(((), data))
    }
}

/// What a caller does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Calls that wait at once.
    pub in_flight: usize,
    /// Bytes there, and back again.
    pub size_bytes: usize,
    /// How long is measured, after a quarter of it to warm up.
    pub duration: Duration,
    /// Whether to call the method whose handler runs on the connection's reader.
    pub inline: bool,
}

/// Does what `words` say if they are `serve ADDRESS [encrypted]` or
/// `call ADDRESS IN_FLIGHT SIZE SECONDS plain|encrypted task|inline`, and returns whether they were.
///
/// # Panics
/// Panics where the address cannot be had, or the server does not answer: it is measured, not used.
pub fn run_as_end(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    match words[..] {
        ["serve", at, ref rest @ ..] => {
            let (address, encrypted) = (address(at), rest == ["encrypted"]);
            reactor::run(move || serve(address, encrypted));
        }
        ["call", at, in_flight, size_bytes, seconds, cipher, handler] => {
            let load = Load {
                in_flight: in_flight.parse().expect("a number"),
                size_bytes: size_bytes.parse().expect("a number"),
                duration: Duration::from_secs_f64(seconds.parse().expect("seconds")),
                inline: handler == "inline",
            };
            let (address, encrypted) = (address(at), cipher == "encrypted");
            reactor::run(move || call(address, encrypted, load));
        }
        _ => return false,
    }
    true
}

/// What is served: an echo.
pub fn service() -> Service {
    let mut service = Service::new();
    Rc::new(Mirror).serve_on(&mut service);
    service
}

fn serve(address: SocketAddr, encrypted: bool) {
    let listener = TcpListener::bind(address).expect("the address is free");
    let identity = Rc::new(Identity::generate());
    let service = Rc::new(service());
    loop {
        let (stream, _) = listener.accept().expect("the listener works");
        let (identity, service) = (identity.clone(), service.clone());
        reactor::spawn(move || {
            let stream: Box<dyn Duplex> = match encrypted {
                false => Box::new(stream),
                true => match tls::accept(stream, &identity) {
                    Ok(stream) => Box::new(stream),
                    // Somebody only looked whether we listen.
                    Err(_) => return,
                },
            };
            Connection::start(stream, service, Config::default()).wait_closed();
        });
    }
}

fn call(address: SocketAddr, encrypted: bool, load: Load) {
    let stream = TcpStream::connect(address).expect("the server listens");
    let stream: Box<dyn Duplex> = match encrypted {
        false => Box::new(stream),
        true => {
            let identity = Rc::new(Identity::generate());
            Box::new(tls::connect(stream, &identity, Expect::Any).expect("the server speaks TLS"))
        }
    };
    call_over(Connection::start(stream, Service::none(), Config::default()), load)
}

/// Calls as the load says, prints when it begins and what came of it, and ends the process.
///
/// # Panics
/// Where the server does not answer.
pub fn call_over(connection: Connection, load: Load) {
    let client = EchoClient::new(connection);
    let data = Payload::from(vec![7; load.size_bytes]);
    let one = || {
        let answer = match (load.inline, load.size_bytes > 64 << 10) {
            (false, false) => client.echo(data.clone()),
            (true, false) => client.echo_inline(data.clone()),
            (false, true) => client.echo_large(data.clone()),
            (true, true) => client.echo_large_inline(data.clone()),
        };
        assert_eq!(answer.expect("the server echoes").1.len(), load.size_bytes);
    };
    one();
    let calls = Cell::new(0u64);
    reactor::scope(|scope| {
        for _ in 0..load.in_flight {
            scope.spawn(|| {
                loop {
                    one();
                    calls.set(calls.get() + 1);
                }
            });
        }
        reactor::sleep(load.duration / 4);
        println!("begin");
        let (begin, cpu, count) = (Instant::now(), processor_time(), calls.get());
        reactor::sleep(load.duration);
        let (elapsed, cpu) = (begin.elapsed(), processor_time() - cpu);
        println!("end {} {} {}", calls.get() - count, elapsed.as_secs_f64(), cpu.as_secs_f64());
        io::stdout().flush().expect("somebody reads");
        std::process::exit(0);
    });
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("it is not negative")
}
