//! Whatever is read or written may be broken off at each of its suspensions, by a timeout that somebody has put around it, and
//! be gone on with: then nothing is missing, nothing comes twice, and nothing that cannot be made whole looks as if it were.
//!
//! Answers once got lost or were torn when a flush inside of an HTTP handler was broken off, and the next answer took their
//! place; TLS lost what it had decrypted; a walk said that a tree was empty. What they had in common: something was taken out
//! of its place before a call that may unwind. So everything here is broken off at its first place, its second, and so on.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::fs;
use reactor::http::{
    BodyWriter, Limits, Message, Method, Request, Response, Server, WebSocket, WebSocketLimits, websocket,
};
use reactor::net::tls::{self, Expect, TlsStream};
use reactor::net::{Duplex, LineReader, Pipe, UnixStream, pipe};
use reactor::suspension::break_off_at;
use reactor::sync::{Receiver, channel};
use reactor::{run, spawn, timeout, yield_now};

/// What should never take so long, even on a machine that is busy; a hang fails by it.
const PATIENCE: Duration = Duration::from_secs(100);

/// Does `f` again and again, and breaks it off one place further each time, until it comes through.
fn stubbornly<T>(mut f: impl FnMut() -> T) -> T {
    (0..).find_map(|place| break_off_at(place, &mut f)).expect("it has only so many places")
}

/// Bytes of which none looks like its neighbours.
fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|at| (((at + seed) * 2_654_435_761) >> 11) as u8).collect()
}

fn in_time<T>(f: impl FnOnce() -> T) -> T {
    timeout(PATIENCE, f).expect("it hangs")
}

fn write_all(stream: &dyn Duplex, bytes: &[u8]) {
    stream.write_slices(&mut [io::IoSlice::new(bytes)]).unwrap();
}

/// Reads so many bytes, in small pieces, each stubbornly.
fn read_stubbornly(stream: &dyn Duplex, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let mut buffer = [0; 97];
        let size = stubbornly(|| stream.read_some(&mut buffer)).unwrap();
        assert!(size > 0, "it ended after {} bytes", all.len());
        all.extend_from_slice(&buffer[..size]);
    }
    all
}

#[test]
fn streams_and_lines_lose_nothing() {
    run(|| {
        let data = bytes(20_000, 1);
        let text: String = (0..2_000).map(|number| format!("line {number}\n")).collect();
        let (near, far) = pipe(300);
        let (unix_near, unix_far) = UnixStream::pair().unwrap();
        let writing = spawn({
            let (data, text) = (data.clone(), text.clone());
            move || {
                for piece in data.chunks(1_000) {
                    write_all(&near, piece);
                    (&unix_near).write_all(piece).unwrap();
                    yield_now();
                }
                for piece in text.as_bytes().chunks(777) {
                    write_all(&near, piece);
                    yield_now();
                }
                near
            }
        });
        in_time(|| {
            assert!(read_stubbornly(&far, data.len()) == data);
            assert!(read_stubbornly(&unix_far, data.len()) == data);
            let mut lines = LineReader::new(&far, 100);
            let mut read = String::new();
            while read.len() < text.len() {
                let line = stubbornly(|| lines.next_line().unwrap().map(<[u8]>::to_vec)).unwrap();
                read.push_str(std::str::from_utf8(&line).unwrap());
            }
            assert!(read == text);
        });
        drop(writing.join().unwrap());
    });
}

/// Both ends of TLS over a stream that holds little.
fn tls_pair() -> (Rc<TlsStream<Pipe>>, Rc<TlsStream<Pipe>>) {
    let (client, server) = (Rc::new(Identity::generate()), Rc::new(Identity::generate()));
    let (near, far) = pipe(400);
    let key = server.public_key();
    let accepting = spawn(move || tls::accept(far, &server).unwrap());
    let near = tls::connect(near, &client, Expect::Key(key)).unwrap();
    (Rc::new(near), Rc::new(accepting.join().unwrap()))
}

/// Has a write broken off that the other end does not read: all of it is sealed, and hardly anything has left.
fn leave_half_written(stream: &TlsStream<Pipe>, data: &[u8]) {
    let written = timeout(Duration::from_millis(1), || write_all(stream, data));
    assert!(written.is_err());
}

#[test]
fn tls_gives_out_all_that_it_has_decrypted_also_where_a_write_was_broken_off() {
    run(|| {
        let (near, far) = tls_pair();
        let (ours, theirs) = (bytes(50_000, 2), bytes(20_000, 3));
        leave_half_written(&near, &ours);
        let writing = spawn({
            let (far, theirs) = (far.clone(), theirs.clone());
            move || {
                for piece in theirs.chunks(1_000) {
                    write_all(&*far, piece);
                    yield_now();
                }
            }
        });
        in_time(|| assert!(read_stubbornly(&*near, theirs.len()) == theirs, "there is a hole"));
        writing.join().unwrap();
        // What was sealed when the write was broken off comes, once, and in order.
        let ending = spawn(move || near.end().unwrap());
        in_time(|| assert!(read_stubbornly(&*far, ours.len()) == ours));
        ending.join().unwrap();
    });
}

#[test]
fn two_ends_of_tls_whose_writes_were_broken_off_do_not_wait_for_each_other_to_read() {
    run(|| {
        let (near, far) = tls_pair();
        let (ours, theirs) = (bytes(50_000, 4), bytes(60_000, 5));
        leave_half_written(&near, &ours);
        leave_half_written(&far, &theirs);
        let (done, both) = channel(2);
        for (stream, data) in [(near, theirs), (far, ours)] {
            let done = done.clone();
            spawn(move || {
                done.send(read_stubbornly(&*stream, data.len()) == data).unwrap();
                // It goes on reading, so that what it owes goes on leaving.
                stream.read_some(&mut [0])
            });
        }
        in_time(|| assert_eq!([both.recv(), both.recv()], [Ok(true); 2]));
    });
}

/// Streams that are given to a server one by one, as if they came from a socket.
struct Given(Receiver<Pipe>);

impl reactor::http::Listen for Given {
    type Incoming = Pipe;
    type Stream = Pipe;

    fn accept(&self) -> io::Result<(Pipe, Option<SocketAddr>)> {
        let next = self.0.recv().map_err(|_| io::ErrorKind::NotConnected)?;
        Ok((next, None))
    }

    fn open(&self, incoming: Pipe) -> io::Result<Pipe> {
        Ok(incoming)
    }
}

/// What a server says to `requests` on one connection, of which the client reads nothing before it has sent them all, and then
/// `more` in between.
fn ask(server: Server, requests: &str, more: &str) -> String {
    let (sender, receiver) = channel(1);
    let (near, far) = pipe(1_000);
    assert!(sender.send(far).is_ok());
    let server = server.start(Given(receiver));
    let near = Rc::new(near);
    write_all(&*near, requests.as_bytes());
    // Whatever the handlers do without the client, they have done by then; if not, less is tried.
    (0..200).for_each(|_| yield_now());
    let sending = spawn({
        let (near, more) = (near.clone(), more.to_owned());
        // It may have been given up by the server.
        move || drop(near.write_slices(&mut [io::IoSlice::new(more.as_bytes())]))
    });
    let mut all = Vec::new();
    in_time(|| {
        let mut buffer = [0; 64];
        // A connection that was broken off ends as well.
        while let Ok(count @ 1..) = near.read_some(&mut buffer) {
            all.extend_from_slice(&buffer[..count]);
        }
    });
    sending.terminate();
    server.stop();
    String::from_utf8(all).unwrap()
}

/// Splits off an answer with a length; `None` if it is not whole.
fn next_answer<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let (head, body) = rest.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "no head where one must be: {head:.40}");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let (body, behind) = body.split_at_checked(length.parse().unwrap())?;
    *rest = behind;
    Some(body)
}

#[test]
fn an_answer_that_waits_for_its_client_is_not_lost_to_the_timeout_of_the_next_handler() {
    run(|| {
        let (long, mut come_through, mut torn_count) = ("b".repeat(3_000), false, 0);
        for place in 0..200 {
            let broken_off = Rc::new(Cell::new(false));
            let note = broken_off.clone();
            let answer = long.clone();
            let server = Server::new().route(Method::GET, "/b", move |_| answer.clone()).route(
                Method::POST,
                "/c",
                move |request: &mut Request<'_>| -> Response {
                    let mut buffer = [0; 10];
                    // The answer to /b leaves before this waits for its client.
                    let read = break_off_at(place, || request.body().read_exact(&mut buffer));
                    note.set(read.is_none());
                    // Until the client has sent the rest, or has gone.
                    let rest = request.read_body(100).map(|rest| rest.len());
                    format!("c {} {}", read.is_none(), rest.is_ok()).into()
                },
            );
            let requests = "GET /b HTTP/1.1\r\nHost: h\r\n\r\n\
                            POST /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 10\r\n\r\n01234";
            let said = ask(server, requests, "56789");
            let mut rest = &said[..];
            match next_answer(&mut rest) {
                Some(first) => assert_eq!(first, long, "place {place}: an answer to another question"),
                None => torn_count += 1,
            }
            if rest.len() < said.len() {
                assert_eq!(next_answer(&mut rest), Some(&*format!("c {} true", broken_off.get())), "{place}");
                assert_eq!(rest, "", "{place}");
            }
            if !broken_off.get() {
                come_through = rest.len() < said.len();
                break;
            }
        }
        assert!(come_through && torn_count > 0, "{torn_count} were torn");
    });
}

#[test]
fn a_body_that_was_broken_off_as_it_was_written_does_not_look_whole() {
    run(|| {
        let pieces: Vec<String> =
            (0..8).map(|number| format!("<{number}{}>", "x".repeat([20_000, 9_000][number % 2]))).collect();
        let whole = pieces.concat();
        // What is broken off: the writing of a large piece, or the sending of one that has gathered.
        for (at, is_flush) in [(2, false), (3, true)] {
            let (mut come_through, mut torn_count) = (false, 0);
            for place in 0..500 {
                let broken_off = Rc::new(Cell::new(false));
                let (note, pieces) = (broken_off.clone(), pieces.clone());
                let server = Server::new().route(Method::GET, "/", move |_| {
                    let (note, pieces) = (note.clone(), pieces.clone());
                    // Broken off once, and then tried once more.
                    let attempt = move |is_meant: bool, act: &mut dyn FnMut() -> io::Result<()>| {
                        break_off_at(if is_meant { place } else { u64::MAX }, &mut *act).unwrap_or_else(
                            || {
                                note.set(true);
                                act()
                            },
                        )
                    };
                    Response::stream(move |out: &mut BodyWriter<'_>| {
                        for (number, piece) in pieces.iter().enumerate() {
                            attempt(number == at && !is_flush, &mut || {
                                assert_eq!(out.write(piece.as_bytes())?, piece.len());
                                Ok(())
                            })?;
                            attempt(number == at && is_flush, &mut || out.flush())?;
                        }
                        Ok(())
                    })
                });
                let said = ask(server, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "");
                let is_whole = said.ends_with("\r\n0\r\n\r\n");
                if is_whole {
                    let (_, body) = said.split_once("\r\n\r\n").unwrap();
                    assert!(unchunked(body) == whole, "place {place}: something else than was written");
                } else {
                    torn_count += 1;
                }
                if !broken_off.get() {
                    come_through = is_whole;
                    break;
                }
            }
            assert!(come_through && torn_count > 0, "{torn_count} were torn");
        }
    });
}

/// A chunked body's data.
fn unchunked(mut body: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        if size == 0 {
            return data;
        }
        data.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").expect("a chunk's end");
    }
}

#[test]
fn a_request_is_read_whole() {
    run(|| {
        let body: String = (0..3_000).map(|number| format!("{number},")).collect();
        let taken = Rc::new(RefCell::new(String::new()));
        let note = taken.clone();
        let read = move |request: &mut Request<'_>| -> &'static str {
            loop {
                let mut buffer = [0; 100];
                match stubbornly(|| request.body().read(&mut buffer).unwrap()) {
                    0 => return "all",
                    count => note.borrow_mut().push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
                }
            }
        };
        let head = format!("Host: h\r\nConnection: close\r\nContent-Length: {}", body.len());
        let server = Server::new().route(Method::POST, "/", read);
        let said = ask(server, &format!("POST / HTTP/1.1\r\n{head}\r\n\r\n"), &body);
        assert!(*taken.borrow() == body);
        assert_eq!(next_answer(&mut &said[..]), Some("all"));
    });
}

#[test]
fn a_handlers_shield_holds_for_its_end_and_not_for_the_time_of_its_client() {
    run(|| {
        let copy = |request: &mut Request<'_>| -> String {
            let copied = reactor::uninterruptible(|| io::copy(request.body(), &mut io::sink()));
            copied.map_or_else(|error| format!("{:?}", error.kind()), |count| count.to_string())
        };
        let limits = Limits { body_time: Duration::from_millis(50), ..Limits::default() };
        let server = Server::new().route(Method::POST, "/", copy).limits(limits);
        let said = ask(server, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1234", "");
        assert_eq!(next_answer(&mut &said[..]), Some("TimedOut"));
    });
}

/// A client's frame whose mask changes nothing.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

/// What a server's WebSocket hears of a client that sends these frames and then nothing more. `hear` calls `recv`.
fn heard_by_websocket(
    frames: Vec<u8>,
    hear: impl Fn(&WebSocket<'_>, &mut dyn FnMut(io::Result<Option<Message>>)) + 'static,
) -> Vec<Result<Option<Message>, io::ErrorKind>> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (note, hear) = (heard.clone(), Rc::new(hear));
    let server = Server::new().route(Method::GET, "/", move |request| {
        let (note, hear) = (note.clone(), hear.clone());
        websocket(request, WebSocketLimits::default(), move |socket| {
            hear(socket, &mut |message| note.borrow_mut().push(message.map_err(|error| error.kind())));
            Err(io::ErrorKind::InvalidData.into())
        })
    });
    let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let (sender, receiver) = channel(1);
    let (near, far) = pipe(300);
    assert!(sender.send(far).is_ok());
    let server = server.start(Given(receiver));
    let near = Rc::new(near);
    let sending = spawn({
        let near = near.clone();
        move || {
            write_all(&*near, request.as_bytes());
            // It is broken off before it has read all of it.
            let _ = near.write_slices(&mut [io::IoSlice::new(&frames)]);
            let _ = near.end();
        }
    });
    in_time(|| {
        while let Ok(1..) = near.read_some(&mut [0; 64]) {
            yield_now();
        }
        sending.join().unwrap();
    });
    server.stop();
    heard.take()
}

#[test]
fn a_websocket_gives_out_each_message_once() {
    run(|| {
        let texts: Vec<_> = (0..50).map(|number| format!("message {number}")).collect();
        let frames = texts.iter().flat_map(|text| frame(1, text.as_bytes())).collect();
        let heard = heard_by_websocket(frames, |socket, heard| {
            (0..50).for_each(|_| heard(stubbornly(|| socket.recv())));
        });
        assert!(heard == texts.into_iter().map(|text| Ok(Some(Message::Text(text)))).collect::<Vec<_>>());
    });
}

#[test]
fn a_websocket_gives_out_nothing_behind_a_message_that_it_had_to_refuse() {
    run(|| {
        for place in 0..40 {
            // Its pong has to leave as what is no UTF-8 is refused, and that is broken off.
            let frames = [frame(1, b"first"), frame(9, b"ping"), frame(1, b"\xff"), frame(1, b"behind it")];
            let heard = heard_by_websocket(frames.concat(), move |socket, heard| {
                heard(socket.recv());
                if let Some(message) = break_off_at(place, || socket.recv()) {
                    heard(message);
                }
                (0..4).for_each(|_| heard(socket.recv()));
            });
            assert_eq!(heard[0], Ok(Some("first".into())));
            assert!(heard[1..].iter().all(Result::is_err), "place {place}: {:?}", &heard[1..]);
        }
    });
}

#[test]
fn a_walk_and_a_listing_skip_nothing() {
    run(|| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for at in ["a/b/c", "a/d", "e"] {
            std::fs::create_dir_all(root.join(at)).unwrap();
            (0..5).for_each(|number| std::fs::write(root.join(at).join(number.to_string()), "").unwrap());
        }
        // More than is listed at once.
        std::fs::create_dir(root.join("many")).unwrap();
        (0..600).for_each(|number| std::fs::write(root.join("many").join(number.to_string()), "").unwrap());
        in_time(|| {
            for contents_first in [false, true] {
                let walk = || fs::walk(root).contents_first(contents_first);
                let expected: Vec<_> = walk().map(|entry| entry.unwrap().path).collect();
                assert_eq!(expected.len(), 600 + 6 + 15);
                let (mut broken_off, mut found) = (walk(), Vec::new());
                while let Some(entry) = stubbornly(|| broken_off.next()) {
                    found.push(entry.unwrap().path);
                }
                assert!(found == expected, "{} of {} were found", found.len(), expected.len());
            }
            let mut listing = fs::read_dir(root.join("many")).unwrap();
            let mut count = 0;
            while let Some(entry) = stubbornly(|| listing.next()) {
                entry.unwrap();
                count += 1;
            }
            assert_eq!(count, 600);
        });
    });
}

#[test]
fn a_generators_panic_is_not_taken_for_its_end() {
    run(|| {
        for place in 0..20 {
            let mut numbers = reactor::generator(|yielder| {
                yielder.give(1);
                panic!("no more");
            });
            assert_eq!(numbers.next(), Some(1));
            let failure = reactor::catch_panic(|| match break_off_at(place, || numbers.next()) {
                Some(next) => next,
                None => numbers.next(),
            });
            let failure = failure.expect_err("it looks as if there were no more numbers");
            assert_eq!(failure.downcast_ref::<&str>(), Some(&"no more"), "place {place}");
        }
    });
}

#[test]
fn channels_lose_and_repeat_nothing_at_either_end() {
    run(|| {
        let (sender, receiver) = channel(2);
        let sending = spawn(move || (0..50).for_each(|number| stubbornly(|| sender.send(number)).unwrap()));
        let received: Vec<i32> = std::iter::from_fn(|| stubbornly(|| receiver.recv().ok())).collect();
        assert_eq!(received, (0..50).collect::<Vec<_>>());
        sending.join().unwrap();
    });
}
