//! A server of RPC before strangers, greedy clients, and its own end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{GateLimits, TcpListener, TcpStream};
use reactor::rpc::{
    CallError, CloseReason, Config, Connection, Method, Pool, Server, ServerHandle, ServerLimits, Service,
};

const PATIENCE: Duration = Duration::from_secs(30);

struct Wait;
impl Method for Wait {
    const ID: u32 = 1;
    const NAME: &'static str = "wait";
    type Request = u64;
    type Response = ();
    type Error = ();
}

fn service() -> Rc<Service> {
    let mut service = Service::new();
    service.on::<Wait>(|_, ms, _| {
        reactor::sleep(Duration::from_millis(ms));
        Ok(((), Bytes::new()))
    });
    Rc::new(service)
}

fn eventually(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "it never happened");
        reactor::sleep(Duration::from_millis(1));
    }
}

/// A server whose clients prove a key, its address, and how a client comes in.
fn serve(limits: ServerLimits) -> (ServerHandle, impl Fn() -> std::io::Result<Connection>) {
    let identity = Rc::new(Identity::generate());
    let key = identity.public_key();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handshake = move |stream, _| tls::accept(stream, &identity);
    let server = Server::new(service()).limits(limits).start(listener, handshake);
    let dial = move || {
        let own = Rc::new(Identity::generate());
        let stream = tls::connect(TcpStream::connect(address)?, &own, Expect::Key(key))?;
        Ok(Connection::start(stream, Service::none(), Config::default()))
    };
    (server, dial)
}

fn call(connection: &Connection, ms: u64) -> Result<(), CallError<()>> {
    connection.call::<Wait>(&ms, Bytes::new(), PATIENCE).map(drop)
}

#[test]
fn strangers_cannot_keep_out_those_who_are_known_nor_stay() {
    reactor::run(|| {
        let gate = GateLimits { strangers: 4, strangers_per_address: 4, ..ServerLimits::default().gate };
        let limits = ServerLimits { gate, handshake_time: Duration::from_millis(300) };
        let (server, dial) = serve(limits);
        let known = dial().unwrap();
        assert_eq!(call(&known, 0), Ok(()));
        let address = server.local_address().expect("it listens");
        let silent: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        eventually(|| server.connection_count() == 5);
        assert!(dial().is_err(), "no place is left for one more stranger");
        assert_eq!(call(&known, 0), Ok(()), "and those inside are served");
        eventually(|| server.connection_count() == 1);
        assert_eq!(call(&dial().unwrap(), 0), Ok(()), "who says nothing has to leave");
        drop(silent);
    });
}

#[test]
fn a_drain_lets_calls_finish_and_takes_nobody_new() {
    reactor::run(|| {
        let (server, dial) = serve(ServerLimits::default());
        let connections: Vec<Connection> = (0..3).map(|_| dial().unwrap()).collect();
        let done = Cell::new(0);
        reactor::scope(|s| {
            for connection in &connections {
                assert_eq!(call(connection, 0), Ok(()));
                let done = &done;
                s.spawn(move || {
                    assert_eq!(call(connection, 100), Ok(()));
                    done.set(done.get() + 1);
                });
            }
            eventually(|| connections.iter().all(|connection| connection.calls_in_flight().0 == 1));
            // They have left, and begun, before the word that nothing more may.
            reactor::sleep(Duration::from_millis(20));
            server.drain(PATIENCE);
        });
        assert_eq!(done.get(), 3);
        assert!(dial().is_err());
        for connection in &connections {
            assert_eq!(connection.wait_closed(), CloseReason::Remote);
        }
        assert_eq!(server.connection_count(), 0);
    });
}

#[test]
fn what_never_ends_by_itself_hears_that_the_server_drains() {
    reactor::run(|| {
        let mut service = Service::new();
        service.on::<Wait>(|context, _, _| {
            context.draining().wait();
            Ok(((), Bytes::new()))
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(Rc::new(service)).start(listener, |stream, _| Ok(stream));
        let stream = TcpStream::connect(address).unwrap();
        let connection = Connection::start(stream, Service::none(), Config::default());
        let caller = connection.clone();
        let called = reactor::spawn(move || caller.call::<Wait>(&0, Bytes::new(), 2 * PATIENCE).map(drop));
        eventually(|| server.connection_count() == 1 && connection.calls_in_flight().0 == 1);
        reactor::sleep(Duration::from_millis(20));
        assert!(
            reactor::timeout(PATIENCE, || server.drain(2 * PATIENCE)).is_ok(),
            "it waits for its time to be over"
        );
        assert_eq!(called.join().unwrap(), Ok(()));
    });
}

#[test]
fn what_all_clients_hold_together_is_bounded_and_each_has_its_share() {
    reactor::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Eight calls more than each client's own share of 32.
        let config = Config { pool: Pool::new(1 << 20), ..Config::default() };
        let _server = Server::new(service()).config(config).start(listener, |stream, _| Ok(stream));
        let dial = || {
            let stream = TcpStream::connect(address).unwrap();
            Connection::start(stream, Service::none(), Config::default())
        };
        let (greedy, modest) = (dial(), dial());
        let overloaded = Cell::new(0);
        reactor::scope(|s| {
            let calls: Vec<_> = (0..80)
                .map(|_| {
                    s.spawn(|| {
                        if call(&greedy, 3_600_000) == Err(CallError::Overloaded) {
                            overloaded.set(overloaded.get() + 1);
                        }
                    })
                })
                .collect();
            eventually(|| overloaded.get() == 80 - 40);
            assert_eq!(call(&modest, 0), Ok(()));
            calls.iter().for_each(|call| call.terminate());
        });
    });
}
