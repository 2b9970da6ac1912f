//! A calculator that others call: a service defined once, its server, and its client.
//!
//! Without arguments both run here. `rpc_calculator serve 127.0.0.1:7100` and `rpc_calculator call 127.0.0.1:7100`
//! are two processes.

use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::net::{TcpListener, TcpStream};
use reactor::rpc::{CallContext, CallError, Config, Connection, Never, Server, ServerHandle, Service};
use reactor::signals::{Signal, Signals};

reactor::service! {
    /// Arithmetic.
    pub trait Calculator = "calculator" version 1, client CalculatorClient {
        /// The sum of two numbers.
        fn add(&self, a: i64, b: i64) -> Result<i64, Never> = 1 as Add, inline, idempotent;
        /// The quotient of two numbers, or why there is none.
        fn divide(&self, a: i64, b: i64) -> Result<i64, String> = 2 as Divide, inline, idempotent;
    }
}

struct Exact;

impl Calculator for Exact {
    fn add(&self, _call: &CallContext, a: i64, b: i64) -> Result<i64, Never> {
        Ok(a.saturating_add(b))
    }

    fn divide(&self, _call: &CallContext, a: i64, b: i64) -> Result<i64, String> {
        a.checked_div(b).ok_or_else(|| format!("{a} cannot be divided by {b}"))
    }
}

/// Serves at most so many clients as the default limits let in. Over TLS the closure would do the handshake.
fn serve(listener: TcpListener) -> ServerHandle {
    let mut service = Service::new();
    Rc::new(Exact).serve_on(&mut service);
    Server::new(Rc::new(service)).start(listener, |stream, _from| Ok(stream))
}

/// How long calls in hand may take at the end.
const DRAIN_TIME: Duration = Duration::from_secs(5);

type Failure = Box<dyn Error + Send + Sync>;

fn call(address: SocketAddr) -> Result<(), Failure> {
    let stream = TcpStream::connect(address)?;
    let calculator = CalculatorClient::new(Connection::start(stream, Service::none(), Config::default()));
    println!("40 + 2 = {}", calculator.add(40, 2)?);
    println!("84 / 2 = {}", calculator.divide(84, 2)?);
    match calculator.divide(1, 0) {
        Err(CallError::Remote(reason)) => println!("1 / 0: {reason}"),
        other => println!("1 / 0 = {}", other?),
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => reactor::run(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            let server = serve(listener);
            call(address)?;
            server.drain(DRAIN_TIME);
            Ok(())
        }),
        ["serve", address] => {
            let address: SocketAddr = address.parse()?;
            reactor::run(move || {
                let listener = TcpListener::bind(address)?;
                println!("rpc_calculator listens at {}", listener.local_addr()?);
                let signals = Signals::new(&[Signal::Interrupt, Signal::Terminate])?;
                let server = serve(listener);
                signals.wait();
                // What was asked before is answered.
                server.drain(DRAIN_TIME);
                Ok(())
            })
        }
        ["call", address] => {
            let address: SocketAddr = address.parse()?;
            reactor::run(move || call(address))
        }
        _ => Err("usage: rpc_calculator [serve ADDRESS | call ADDRESS]".into()),
    }
}
