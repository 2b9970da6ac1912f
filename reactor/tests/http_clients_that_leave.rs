//! Nobody works for a client that has left: its handler is terminated, whether it waits, streams, or has children; and one
//! that has only said all it wanted to say gets its answer.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use reactor::http::{Limits, Method, Request, Response, Server, ServerHandle};
use reactor::net::{TcpListener, TcpStream};
use reactor::sim::World;
use reactor::sleep;
use reactor::sync::{Barrier, Signal};

const FOREVER: Duration = Duration::from_secs(3600);
/// No server needs so long to see it, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits { half_closed_time: Some(Duration::from_millis(200)), ..Limits::default() }
}

/// Tells that a handler has begun, and, by its destructor, that it has ended.
struct Working(Rc<Barrier>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A handler that waits for ever, in one of several ways, is ended when its client leaves.
fn handlers_end_with_their_clients() {
    let (begun, children) = (Rc::new(Signal::new()), Rc::new(Cell::new(0)));
    for way in ["waits", "streams", "has children", "finishes its work"] {
        let ended = Rc::new(Barrier::new(false));
        let (at_work, start, left) = (ended.clone(), begun.clone(), children.clone());
        let handler = move |_: &mut Request<'_>| -> Response {
            let working = Working(at_work.clone());
            start.notify_one();
            match way {
                "waits" => sleep(FOREVER),
                "has children" => {
                    left.set(2);
                    reactor::scope(|s| {
                        for _ in 0..2 {
                            s.spawn(|| {
                                let _end = scopeguard(|| left.set(left.get() - 1));
                                sleep(FOREVER);
                            });
                        }
                    });
                }
                "finishes its work" => {
                    reactor::uninterruptible(|| sleep(Duration::from_secs(1)));
                    left.set(17);
                    sleep(FOREVER);
                }
                _ => {
                    return Response::stream(move |out| {
                        let _working = working;
                        out.write_all(b"something, and then nothing more")?;
                        out.flush()?;
                        sleep(FOREVER);
                        Ok(())
                    });
                }
            }
            drop(working);
            Response::empty()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new().limits(limits()).route(Method::GET, "/", handler).start(listener);
        let mut client = TcpStream::connect_one(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        begun.wait();
        drop(client);
        reactor::timeout(PATIENCE, || ended.wait())
            .unwrap_or_else(|_| panic!("a handler that {way} goes on"));
        match way {
            "has children" => assert_eq!(children.get(), 0, "they have ended with it"),
            "finishes its work" => assert_eq!(children.get(), 17, "what must not be interrupted is not"),
            _ => {}
        }
        let gone = || {
            while server.connection_count() > 0 {
                sleep(Duration::from_millis(5));
            }
        };
        assert!(reactor::timeout(PATIENCE, gone).is_ok(), "its connection is left over: {way}");
    }
}

fn scopeguard(end: impl FnMut()) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(end)
}

#[reactor::test]
fn handlers_end_with_their_clients_on_loopback() {
    handlers_end_with_their_clients();
}

#[reactor::test(seeds = 0..10)]
fn handlers_end_with_their_clients_in_the_simulator(_: &World) {
    handlers_end_with_their_clients();
}

fn serve(
    limits: Limits,
    handler: impl for<'r> Fn(&mut Request<'r>) -> Response + 'static,
) -> (ServerHandle, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new().limits(limits).route(Method::GET, "/{what}", handler).start(listener);
    (server, TcpStream::connect_one(address).unwrap())
}

/// Without any setting: its client resets the connection, since it leaves something unread.
fn a_broken_connection_ends_its_handler() {
    let (begun, ended) = (Rc::new(Signal::new()), Rc::new(Barrier::new(false)));
    let (start, at_work) = (begun.clone(), ended.clone());
    let handler = move |request: &mut Request<'_>| {
        if request.param("what").unwrap() == "slow" {
            let _working = Working(at_work.clone());
            start.notify_one();
            sleep(FOREVER);
        }
        Response::text("an answer")
    };
    let (_server, mut client) = serve(Limits::default(), handler);
    client.write_all(b"GET /quick HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    client.read_exact(&mut [0]).unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    begun.wait();
    drop(client);
    assert!(reactor::timeout(PATIENCE, || ended.wait()).is_ok(), "the handler goes on");
}

#[reactor::test]
fn a_broken_connection_ends_its_handler_on_loopback() {
    a_broken_connection_ends_its_handler();
}

#[reactor::test(seeds = 0..10)]
fn a_broken_connection_ends_its_handler_in_the_simulator() {
    a_broken_connection_ends_its_handler();
}

const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";

#[reactor::test(seeds = 0..5)]
fn a_client_that_has_said_all_gets_its_answer_however_long_that_takes() {
    let slow = |_: &mut Request<'_>| {
        sleep(Duration::from_secs(600));
        Response::text("at last")
    };
    let (_server, mut client) = serve(Limits::default(), slow);
    client.write_all(REQUEST.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("at last"), "{answer}");
}

#[reactor::test(seeds = 0..5)]
fn a_half_closed_client_that_reads_slowly_gets_all_of_it() {
    let large = |_: &mut Request<'_>| Response::bytes(vec![7; 1 << 20]);
    let (_server, mut client) = serve(limits(), large);
    client.write_all(REQUEST.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (mut count, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        sleep(Duration::from_secs(1));
        match client.read(&mut buffer).unwrap() {
            0 => break,
            read => count += read,
        }
    }
    assert!(count > 1 << 20, "{count} bytes");
}

#[reactor::test(seeds = 0..5)]
fn what_is_answered_reaches_a_client_that_is_given_up() {
    let handler = |request: &mut Request<'_>| {
        if request.param("what").unwrap() == "slow" {
            sleep(FOREVER);
        }
        Response::text("an answer")
    };
    let (_server, mut client) = serve(limits(), handler);
    client.write_all(format!("{REQUEST}{}", REQUEST.replace("/x", "/slow")).as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("an answer").count(), 1, "{answer}");
}

#[reactor::test(seeds = 0..10)]
fn a_client_that_has_said_all_gets_its_answers_in_their_time(_: &World) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let slowly = |_: &mut Request<'_>| {
        sleep(Duration::from_millis(90));
        Response::stream(|out| {
            for _ in 0..5 {
                out.write_all(b"slow")?;
                out.flush()?;
                sleep(Duration::from_millis(90));
            }
            Ok(())
        })
    };
    let server = Server::new().limits(limits()).route(Method::GET, "/", slowly).start(listener);
    let mut client = TcpStream::connect_one(address).unwrap();
    // Each takes longer than is waited for a piece of it.
    client.write_all("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5).as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    assert_eq!((answers.matches("200 OK").count(), answers.matches("slow").count()), (5, 25), "{answers}");
    server.stop();
}
