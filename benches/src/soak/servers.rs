//! The servers of the soak: echo by lines, RPC plain and encrypted, HTTP; each on every loopback address.

use crate::random::{Random, mix};
use reactor::crypto::Identity;
use reactor::http::{self, Method, Request, Response, ServerHandle};
use reactor::net::tls;
use reactor::net::{TcpListener, TcpStream};
use reactor::rpc::{CallContext, Config, Connection, Never, Payload, Service};
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

reactor::service! {
    /// Returns what it gets.
    pub trait Work = "soak.work" version 1, client WorkClient {
        /// On the connection's reader.
        fn echo(&self, data: Payload) -> Result<((), Payload), Never>
            = 1 as WorkEcho, inline, replies_up_to((256 << 10) + 16);
        /// Half-way through it sleeps, so that there is something to cancel.
        fn slow(&self, sleep_us: u64, data: Payload) -> Result<((), Payload), Never>
            = 2 as WorkSlow, replies_up_to((256 << 10) + 16);
        /// Fails on purpose: the caller must be told.
        fn panics(&self) -> Result<(), Never> = 3 as WorkPanics;
    }
}

struct Worker;

impl Work for Worker {
    fn echo(&self, _call: &CallContext, data: Payload) -> Result<((), Payload), Never> {
        Ok(((), data))
    }

    fn slow(&self, _call: &CallContext, sleep_us: u64, data: Payload) -> Result<((), Payload), Never> {
        reactor::sleep(Duration::from_micros(sleep_us));
        Ok(((), data))
    }

    fn panics(&self, _call: &CallContext) -> Result<(), Never> {
        // Not `panic!`, whose message on every call would bury the table.
        std::panic::resume_unwind(Box::new("as it was asked to"))
    }
}

/// What `GET /hello` answers.
pub const HELLO: &str = "Hello, soak!";

/// The longest line of the echo server.
pub const LINE_SIZE_BYTES_MAX: usize = 64 << 10;

/// The longest body that the HTTP server takes.
pub const HTTP_BODY_SIZE_BYTES_MAX: usize = 256 << 10;

/// Where the servers listen.
pub struct Ports {
    echo: u16,
    rpc: u16,
    encrypted_rpc: u16,
    http: u16,
    /// Its server ends when this is dropped.
    _http_server: ServerHandle,
}

impl Ports {
    /// Returns an address of the echo server. Each of 250 has its own ports to come from, so that connections which
    /// wait out their end (TIME_WAIT) do not run out of them.
    pub fn echo(&self, random: &Random) -> SocketAddr {
        somewhere(self.echo, random)
    }

    /// Returns an address of the RPC server.
    pub fn rpc(&self, random: &Random) -> SocketAddr {
        somewhere(self.rpc, random)
    }

    /// Returns an address of the HTTP server.
    pub fn http(&self, random: &Random) -> SocketAddr {
        somewhere(self.http, random)
    }

    /// Returns an address of the RPC server that speaks TLS.
    pub fn encrypted_rpc(&self, random: &Random) -> SocketAddr {
        somewhere(self.encrypted_rpc, random)
    }
}

fn somewhere(port: u16, random: &Random) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, 1 + random.below(250) as u8), port).into()
}

/// Starts all servers.
///
/// # Errors
/// Fails when no port is free.
pub fn start() -> io::Result<Ports> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let http = listener.local_addr()?.port();
    let http_server = http::Server::new()
        .route(Method::GET, "/hello", |_| HELLO)
        .route(Method::POST, "/echo", |request: &mut Request<'_>| {
            let body = request.read_body(HTTP_BODY_SIZE_BYTES_MAX)?;
            io::Result::Ok(Response::bytes(body))
        })
        .start(listener);
    let mut service = Service::new();
    Rc::new(Worker).serve_on(&mut service);
    let service = Rc::new(service);
    let identity = Rc::new(Identity::generate());
    let plain = service.clone();
    Ok(Ports {
        http,
        _http_server: http_server,
        echo: listen(|stream| {
            // A client that resets its connection is what this is all about.
            let _ = echo(&stream);
        })?,
        rpc: listen(move |stream| {
            Connection::start(stream, plain.clone(), Config::default()).wait_closed();
        })?,
        encrypted_rpc: listen(move |stream| {
            if let Ok(stream) = tls::accept(stream, &identity) {
                Connection::start(stream, service.clone(), Config::default()).wait_closed();
            }
        })?,
    })
}

/// Serves each connection in a coroutine of its own, for ever, and returns the port.
fn listen(serve: impl Fn(TcpStream) + 'static) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    let serve = Rc::new(serve);
    reactor::spawn(move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let serve = serve.clone();
                    reactor::spawn(move || serve(stream));
                }
                // It was reset before we came to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => panic!("accept: {error}"),
            }
        }
    });
    Ok(port)
}

fn echo(mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let line = reactor::read_until(&mut reader, b'\n', LINE_SIZE_BYTES_MAX)?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        stream.write_all(&line)?;
    }
}

/// Returns `size` bytes that differ from those of another `number`, without a newline among them.
pub fn filling(number: u64, size: usize) -> Vec<u8> {
    let byte =
        |index: usize| b'a' + (mix(number ^ (index as u64 / 64)).wrapping_add(index as u64) % 26) as u8;
    (0..size).map(byte).collect()
}
