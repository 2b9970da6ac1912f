//! Bodies on their way up: of known length, in chunks with trailers, after a word of agreement, against a server that
//! refuses in the middle, and by one that answers while it reads.

mod scripted;

use std::cell::Cell;
use std::io::{BufReader, Read, Write};
use std::rc::Rc;

use reactor::http::Headers;
use reactor::http::client::{Client, ClientError};
use reactor::{run, sleep};
use scripted::{answering, ok, read_body, read_head, read_request, start};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8) as u8).collect()
}

/// Echoes the body, and says how it came.
fn echo() -> scripted::Server {
    answering(|request| {
        let how = request.header("transfer-encoding").or(request.header("content-length")).unwrap_or("none");
        let trailers: Vec<String> =
            request.trailers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nHow: {how}\r\nTrailers: {}\r\n\r\n",
            request.body.len(),
            trailers.join(",")
        );
        [head.as_bytes(), &request.body].concat()
    })
}

#[test]
fn bodies_of_every_kind_and_size_arrive_whole() {
    run(|| {
        let server = echo();
        let client = Client::new();
        for len in [0, 1, 16 << 10, (16 << 10) + 1, 64 << 10, 1_000_000] {
            let body = pattern(len);
            let response = client.post(&server.url).body(&body[..]).send().unwrap();
            assert_eq!(response.headers().get_str("how"), Some(&*len.to_string()));
            assert!(response.bytes(len).unwrap() == body, "{len} bytes at once");
            let mut reader = &body[..];
            let response = client.post(&server.url).stream(&mut reader, Some(len as u64)).send().unwrap();
            assert_eq!(response.headers().get_str("how"), Some(&*len.to_string()));
            assert!(response.bytes(len).unwrap() == body, "{len} bytes of a stream");
            let mut reader = &body[..];
            let response = client.put(&server.url).stream(&mut reader, None).send().unwrap();
            assert_eq!(response.headers().get_str("how"), Some("chunked"));
            assert!(response.bytes(len).unwrap() == body, "{len} bytes in chunks");
        }
        let how =
            |response: reactor::http::client::Response| response.headers().get_str("how").unwrap().to_owned();
        assert_eq!(how(client.post(&server.url).send().unwrap()), "0", "a POST without a body says so");
        assert_eq!(how(client.get(&server.url).send().unwrap()), "none", "and a GET has none to speak of");
        assert_eq!(server.connections.get(), 1);
    });
}

#[test]
fn trailers_are_made_once_the_body_has_been_read_and_follow_it() {
    run(|| {
        struct Summing<'a>(&'a [u8], &'a Cell<u32>);
        impl Read for Summing<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let count = self.0.read(buffer)?;
                self.1.set(
                    buffer[..count].iter().fold(self.1.get(), |sum, byte| sum.wrapping_add(u32::from(*byte))),
                );
                Ok(count)
            }
        }
        let server = echo();
        let body = pattern(200_000);
        let sum = Cell::new(0);
        let mut reader = Summing(&body, &sum);
        let trailers = || {
            let mut trailers = Headers::new();
            trailers.push("Sum", sum.get().to_string()).unwrap();
            trailers
        };
        let client = Client::new();
        let response = client.put(&server.url).stream(&mut reader, None).trailers(trailers).send().unwrap();
        let expected: u32 = body.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(response.headers().get_str("trailers"), Some(&*format!("sum={expected}")));
    });
}

#[test]
fn a_body_waits_for_the_servers_word_and_stays_here_if_it_is_refused() {
    run(|| {
        let bodies = Rc::new(Cell::new(0));
        let count = bodies.clone();
        let server = start(move |client, _| {
            let mut reader = BufReader::new(&client);
            while let Some(mut request) = read_head(&mut reader) {
                assert_eq!(request.header("expect"), Some("100-continue"));
                if request.line.starts_with("PUT /refused") {
                    (&client).write_all(b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\n\r\nno!").unwrap();
                    // Whatever comes now, a body or another request, must not.
                    assert_eq!(reader.read(&mut [0]).unwrap_or(0), 0);
                    return;
                }
                if request.line.starts_with("PUT /agreed") {
                    (&client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                }
                read_body(&mut reader, &mut request).unwrap();
                count.set(count.get() + request.body.len());
                (&client).write_all(&ok("done")).unwrap();
            }
        });
        let client = Client::new();
        let put = |path: &str, body: &[u8]| {
            let response =
                client.put(&format!("{}{path}", server.url)).body(body).expect_continue().send().unwrap();
            (response.status().as_u16(), response.text(100).unwrap())
        };
        for len in [5, 100_000] {
            let body = pattern(len);
            assert_eq!(put("/refused", &body), (413, "no!".into()));
            assert_eq!(bodies.take(), 0);
            assert_eq!(put("/agreed", &body), (200, "done".into()));
            assert_eq!(bodies.take(), len);
        }
        // A server that knows nothing of it gets the body after a while.
        assert_eq!(put("/silent", b"hello"), (200, "done".into()));
    });
}

#[test]
fn a_server_that_refuses_in_the_middle_of_a_long_body_is_heard() {
    run(|| {
        for closes in [false, true] {
            let server = start(move |client, _| {
                let mut reader = BufReader::new(&client);
                read_head(&mut reader);
                reader.read_exact(&mut [0; 100_000]).unwrap();
                (&client).write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nforbidden").unwrap();
                if !closes {
                    // It reads no more, and does not close either: only hearing it ends this.
                    sleep(std::time::Duration::from_secs(60));
                }
                let _ = client.shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
            });
            let client = Client::new();
            let mut body = std::io::repeat(7);
            let response = client.put(&server.url).stream(&mut body, None).send().unwrap();
            assert_eq!(response.status(), 403);
            assert_eq!(response.text(100).unwrap(), "forbidden");
            assert_eq!(client.idle_connections(), 0, "half a request is on it");
        }
    });
}

#[test]
fn an_answer_that_agrees_while_the_body_is_sent_waits_for_its_end() {
    run(|| {
        let server = start(|client, _| {
            let mut reader = BufReader::new(&client);
            let mut request = read_head(&mut reader).unwrap();
            (&client).write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            read_body(&mut reader, &mut request).unwrap();
            let len = request.body.len().to_string();
            write!(&mut &client, "{:x}\r\n{len}\r\n0\r\n\r\n", len.len()).unwrap();
            read_request(&mut reader);
        });
        let client = Client::new();
        let body = pattern(3_000_000);
        let response = client.post(&server.url).body(body).send().unwrap();
        assert_eq!(response.text(100).unwrap(), "3000000");
        assert_eq!(client.idle_connections(), 1);
    });
}

#[test]
fn a_reader_that_fails_or_stops_short_fails_the_request_and_not_the_next_one() {
    run(|| {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("the disk is gone"))
            }
        }
        let server = echo();
        let client = Client::new();
        let error = client.put(&server.url).stream(&mut Failing, None).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Body { .. }) && error.to_string().contains("disk"), "{error}");
        let mut short = &b"short"[..];
        let error = client.put(&server.url).stream(&mut short, Some(6)).send().map(drop).unwrap_err();
        assert!(error.to_string().contains("shorter than stated"), "{error}");
        assert_eq!(client.idle_connections(), 0);
        let mut long = &b"long enough"[..];
        let response = client.put(&server.url).stream(&mut long, Some(4)).send().unwrap();
        assert_eq!(response.text(100).unwrap(), "long");
    });
}

/// More than what all buffers between a client and a server on loopback hold, and than what a client keeps of an answer.
const LONG_BYTES: usize = 48 << 20;

#[test]
fn an_echo_larger_than_all_buffers_is_read_while_the_body_is_sent() {
    use reactor::http::{BodyLimits, Limits, Method, Response, Server};
    run(|| {
        let listener = reactor::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let body = BodyLimits { size_bytes: u64::MAX, ..BodyLimits::default() };
        let _server = Server::new()
            .limits(Limits { body, ..Limits::default() })
            .route(Method::PUT, "/", |_| Response::exchange(|body, out| std::io::copy(body, out).map(drop)))
            .start(listener);
        let client = Client::new();
        let piece = pattern(1 << 20);
        for (length, kept) in [(Some(LONG_BYTES as u64), 1), (None, 2)] {
            let mut long = Cycle(&piece, 0).take(LONG_BYTES as u64);
            let read = client.put(&url).stream(&mut long, length).exchange(|mut answer| {
                assert_eq!(answer.status(), 200);
                let (mut buffer, mut at) = (vec![0; 100_000], 0);
                loop {
                    let count = answer.read(&mut buffer).unwrap();
                    if count == 0 {
                        return at;
                    }
                    for byte in &buffer[..count] {
                        assert!(*byte == piece[at % piece.len()], "at {at}");
                        at += 1;
                    }
                }
            });
            assert_eq!(read.unwrap(), LONG_BYTES);
            assert_eq!(client.idle_connections(), kept, "both ended well, and the connection serves on");
        }
    });
}

/// The same bytes for ever.
struct Cycle<'a>(&'a [u8], usize);

impl Read for Cycle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = (&self.0[self.1..]).read(buffer)?;
        self.1 = (self.1 + count) % self.0.len();
        Ok(count)
    }
}

#[test]
fn an_early_answer_is_read_at_once_and_what_it_means_for_the_body_is_done() {
    run(|| {
        let taken = Rc::new(Cell::new(0));
        let count = taken.clone();
        let server = start(move |client, _| {
            let mut reader = BufReader::new(&client);
            let mut request = read_head(&mut reader).unwrap();
            if request.line.starts_with("PUT /refused") {
                (&client).write_all(b"HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\n\r\nno!").unwrap();
                // It reads no more, and does not close either.
                sleep(std::time::Duration::from_secs(60));
            }
            (&client).write_all(&ok("early")).unwrap();
            if read_body(&mut reader, &mut request).is_some() {
                count.set(request.body.len());
            }
        });
        let client = Client::new();
        let url = |path: &str| format!("{}{path}", server.url);
        let mut endless = std::io::repeat(7);
        let refused = client.put(&url("/refused")).stream(&mut endless, None);
        let told = refused.exchange(|answer| (answer.status().as_u16(), answer.text(100).unwrap()));
        assert_eq!(told.unwrap(), (413, "no!".into()));

        let body = pattern(5_000_000);
        let told = client.put(&url("/agreed")).body(&body[..]).exchange(|answer| answer.text(100).unwrap());
        assert_eq!(told.unwrap(), "early");
        while taken.get() == 0 {
            sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(taken.get(), body.len(), "what was agreed to is sent whole");

        // Whoever does not read the answer to its end wants no more of it.
        let mut endless = std::io::repeat(7);
        client.put(&url("/agreed")).stream(&mut endless, None).exchange(drop).unwrap();
    });
}

#[test]
fn a_body_that_fails_fails_its_exchange_whatever_was_agreed_to() {
    /// Fails once the answer has begun.
    struct Failing(Rc<Cell<bool>>);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if !self.0.get() {
                sleep(std::time::Duration::from_millis(1));
                return Ok(1.min(buffer.len()));
            }
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    run(|| {
        let server = start(|client, _| {
            let mut reader = BufReader::new(&client);
            read_head(&mut reader).unwrap();
            let _ = (&client).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nbeginning");
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        });
        let client = Client::new();
        let begun = Rc::new(Cell::new(false));
        let mut failing = Failing(begun.clone());
        let mut read = None;
        let upload = client.put(&server.url).stream(&mut failing, None);
        let error = upload.exchange(|answer| {
            begun.set(true);
            read = Some(answer.bytes(100).map_err(|error| error.kind()));
        });
        assert!(matches!(error, Err(ClientError::Body { .. })), "{error:?}");
        assert!(matches!(read, Some(Err(_))), "nor does the answer look whole: {read:?}");
    });
}
