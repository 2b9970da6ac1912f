//! What attackers send: requests that two servers would split differently, and clients that take without giving.
//!
//! The smuggling cases are those that are public: the classes of CL.TE, TE.CL and TE.TE and the obfuscations of
//! Linhart et al. 2005 and Kettle 2019, and llhttp's list of what must not be accepted. In each a second request is
//! hidden in the body of a first; it must never be answered.

mod http_support;

use std::io::{Read, Write};
use std::time::Duration;

use http_support::{connect, read_until, start, statuses, talk};
use reactor::http::{Limits, Method, Request, Response, Server};

fn server() -> Server {
    Server::new()
        .route(Method::POST, "/", |request: &mut Request<'_>| -> std::io::Result<Response> {
            Ok(request.read_body(1 << 20)?.into())
        })
        .route(Method::GET, "/smuggled", |_| "smuggled")
        .route(Method::GET, "/", |_| "fine")
}

#[test]
fn no_request_is_smuggled() {
    reactor::run(|| {
        let (_server, address) = start(server());
        let hidden = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut heads: Vec<String> = Vec::new();
        // CL.TE and TE.CL: both at once, in either order.
        heads.push("Content-Length: 6\r\nTransfer-Encoding: chunked".into());
        heads.push("Transfer-Encoding: chunked\r\nContent-Length: 6".into());
        // TE.TE: one of two servers is to overlook the coding.
        for coding in [
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding:\x0bchunked",
            "Transfer-Encoding: \x0cchunked",
            "Transfer-Encoding: chunked\x00",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: 'chunked'",
            "Transfer-Encoding: chunk",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: cow",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding\r\n: chunked",
            " Transfer-Encoding: chunked",
            "\tTransfer-Encoding: chunked",
            "X: y\r\n\tTransfer-Encoding: chunked",
            "X: y\rTransfer-Encoding: chunked",
            "X: y\nTransfer-Encoding: chunked",
            "X: y\r\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r",
            "Transfer_Encoding: chunked\r\nTransfer-Encoding: ",
            "Transfer-Encoding\u{a0}: chunked",
        ] {
            heads.push(coding.into());
            heads.push(format!("Content-Length: 4\r\n{coding}"));
        }
        // CL.CL and lengths that are none.
        for length in [
            "Content-Length: 4\r\nContent-Length: 100",
            "Content-Length: 4\r\nContent-Length: 4",
            "Content-Length: 4, 4",
            "Content-Length: +4",
            "Content-Length: -4",
            "Content-Length: 4x",
            "Content-Length: 0x4",
            "Content-Length: 4 4",
            "Content-Length: 4.0",
            "Content-Length: 1e1",
            "Content-Length: ",
            "Content-Length : 4",
            "Content-Length\r\n: 4",
            "Content-Length:\r\n 4",
            "Content-Length: 99999999999999999999999",
            "X: y\n\rContent-Length: 4",
        ] {
            heads.push(length.into());
        }
        for head in &heads {
            for body in [format!("0\r\n\r\n{hidden}"), format!("5c\r\n{hidden}\r\n0\r\n\r\n")] {
                let answers = talk(address, format!("POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n{body}"));
                let codes = statuses(&answers);
                assert!(codes.len() == 1 && matches!(codes[0], 400 | 413 | 501), "{head:?}: {answers:?}");
                assert!(!answers.contains("\r\nsmuggled"), "{head:?}");
            }
        }
    });
}

#[test]
fn a_chunked_body_that_two_servers_would_end_differently_is_refused() {
    reactor::run(|| {
        let (_server, address) = start(server());
        let hidden = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
        for body in [
            "0\n\r\n",
            "0\r\n\n",
            "0 \r\n\r\n",
            " 0\r\n\r\n",
            "0x0\r\n\r\n",
            "+0\r\n\r\n",
            "-0\r\n\r\n",
            "0;a\nb\r\n\r\n",
            "0;\x00\r\n\r\n",
            "00000000000000000\r\n\r\n",
            "1\r\naX0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "\r\n0\r\n\r\n",
            "g\r\n\r\n",
            "100000000000000000\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\nX y\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "1;a\r\rb\r\nx\r\n0\r\n\r\n",
            "2\r\n\r\n\n0\r\n\r\n",
        ] {
            let request =
                format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}{hidden}");
            let answers = talk(address, request);
            let codes = statuses(&answers);
            assert_eq!(codes, [400], "{body:?}: {answers:?}");
        }
    });
}

#[test]
fn a_request_line_or_header_that_is_no_http_is_refused() {
    reactor::run(|| {
        let (_server, address) = start(server());
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
            "GET / a HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n: empty\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA\x01: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\x01\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n",
            "GET /a\x00b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /#fragment HTTP/1.1\r\nHost: h\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let codes = statuses(&talk(address, request));
            assert!(codes == [400] || codes == [505], "{request:?}: {codes:?}");
        }
    });
}

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

#[test]
fn clients_that_trickle_and_readers_that_never_read_leave_memory_flat() {
    reactor::run(|| {
        let short = Duration::from_millis(500);
        let limits = Limits { head_time: short, body_time: short, write_time: short, ..Limits::default() };
        let server = server()
            .route(Method::GET, "/endless", |_| {
                Response::stream(|out| {
                    loop {
                        out.write_all(&[b'x'; 10_000])?;
                    }
                })
            })
            .limits(limits);
        let (server, address) = start(server);
        let attack = || {
            let mut clients = Vec::new();
            for number in 0..60 {
                let mut stream = connect(address);
                let opening: &[u8] = match number % 4 {
                    // A head, a body, a chunk that never ends; and one that asks and never reads.
                    0 => b"GET / HTTP/1.1\r\nHost: h\r\nX: ",
                    1 => b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n",
                    2 => b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
                    _ => b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n",
                };
                stream.write_all(opening).unwrap();
                clients.push((number, stream));
            }
            // Each but the readers goes on with a byte now and then, until the server has had enough.
            let mut rounds = 0;
            while server.connection_count() > 0 {
                for (number, stream) in &mut clients {
                    if *number % 4 != 3 {
                        let _ = stream.write_all(b"x");
                    }
                }
                reactor::sleep(Duration::from_millis(20));
                rounds += 1;
                assert!(rounds < 3_000, "{} connections are never given up", server.connection_count());
            }
        };
        // The first round brings allocator and stacks to their size.
        attack();
        attack();
        let before = resident_bytes();
        for _ in 0..4 {
            attack();
        }
        let grown = resident_bytes().saturating_sub(before);
        // 240 attackers; a leak of a connection's buffers would be 64 KiB each.
        assert!(grown < 4 << 20, "grown by {grown} bytes");
        let mut stream = connect(address);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(read_until(&mut stream, "fine").contains("200 OK"), "the server serves on");
    });
}

#[test]
fn a_pipeline_that_is_never_read_is_not_buffered_without_bound() {
    reactor::run(|| {
        let limits = Limits { write_time: Duration::from_millis(500), ..Limits::default() };
        let server = Server::new().route(Method::GET, "/", |_| "x".repeat(10_000)).limits(limits);
        let (server, address) = start(server);
        let mut stream = connect(address);
        let requests = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
        let before = resident_bytes();
        // Until the server no longer reads, since nobody reads its answers.
        let flood =
            reactor::timeout(
                Duration::from_secs(30),
                || {
                    while stream.write_all(requests.as_bytes()).is_ok() {}
                },
            );
        assert!(flood.is_ok(), "the server gives it up");
        assert!(resident_bytes().saturating_sub(before) < 16 << 20);
        while server.connection_count() > 0 {
            reactor::sleep(Duration::from_millis(10));
        }
        let _ = stream.read(&mut [0]);
    });
}
