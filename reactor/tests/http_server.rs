//! A server of ours and a client that is a socket: what goes over the wire, byte by byte.

mod http_support;

use std::io::{self, BufRead, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use http_support::{connect, read_all, read_until, start, statuses, talk};
use reactor::http::{Limits, Method, Request, Response, Server, StatusCode};
use reactor::net::TcpStream;

fn echo() -> Server {
    Server::new()
        .route(Method::GET, "/", |_| "hello")
        .route(Method::GET, "/hello/{name}", |request| format!("hello, {}", request.param("name").unwrap()))
        .route(Method::POST, "/echo", |request: &mut Request<'_>| -> io::Result<Response> {
            Ok(request.read_body(1 << 20)?.into())
        })
        .route(Method::POST, "/unread", |_| "unread")
        .route(Method::GET, "/panic", |_| -> Response { panic!("as a handler may") })
}

#[test]
fn a_connection_serves_one_request_after_another() {
    reactor::run(|| {
        let (_server, address) = start(echo());
        let mut stream = connect(address);
        for name in ["a", "b%20c", "d"] {
            write!(stream, "GET /hello/{name} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let answer = read_until(&mut stream, "hello, ");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{answer}");
            assert!(!answer.contains("Connection:"), "{answer}");
        }
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let answer = read_all(&mut stream);
        assert!(
            answer.contains("\r\nConnection: close\r\n") && answer.ends_with("\r\n\r\nhello"),
            "{answer}"
        );
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    reactor::run(|| {
        let (_server, address) = start(echo());
        let mut requests = String::new();
        for number in 0..500 {
            requests += &format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n<{number:03}>");
        }
        requests += "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let answers = talk(address, requests);
        assert_eq!(statuses(&answers), [200; 501]);
        let numbers: Vec<usize> = answers.split('<').skip(1).map(|text| text[..3].parse().unwrap()).collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    });
}

#[test]
fn a_client_of_http_1_0_is_served_and_let_go() {
    reactor::run(|| {
        let (_server, address) = start(echo().route(Method::GET, "/stream", |_| {
            Response::stream(|out| {
                out.write_all(b"one")?;
                out.flush()?;
                out.write_all(b"two")
            })
        }));
        let answer = talk(address, "GET / HTTP/1.0\r\n\r\n");
        assert!(answer.contains("Connection: close") && answer.ends_with("hello"), "{answer}");
        let answer = talk(address, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert!(answer.ends_with("\r\n\r\nonetwo") && !answer.contains("chunked"), "{answer}");
        let mut stream = connect(address);
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
            assert!(read_until(&mut stream, "hello").contains("Connection: keep-alive"));
        }
    });
}

#[test]
fn head_has_the_length_and_no_body_and_options_tells_the_methods() {
    reactor::run(|| {
        let (_server, address) = start(echo());
        let close = "Host: h\r\nConnection: close\r\n\r\n";
        let answer = talk(address, format!("HEAD / HTTP/1.1\r\n{close}"));
        assert!(answer.contains("Content-Length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        let answer = talk(address, format!("OPTIONS / HTTP/1.1\r\n{close}"));
        assert!(answer.contains("204 ") && answer.contains("Allow: GET, HEAD, OPTIONS\r\n"), "{answer}");
        let answer = talk(address, format!("DELETE /echo HTTP/1.1\r\n{close}"));
        assert!(answer.contains("405 ") && answer.contains("Allow: POST, OPTIONS\r\n"), "{answer}");
        let answer = talk(address, format!("OPTIONS * HTTP/1.1\r\n{close}"));
        assert!(answer.contains("204 ") && !answer.contains("Content-Length"), "{answer}");
        assert_eq!(statuses(&talk(address, format!("GET /nowhere HTTP/1.1\r\n{close}"))), [404]);
        assert_eq!(statuses(&talk(address, format!("CONNECT h:1 HTTP/1.1\r\n{close}"))), [404]);
    });
}

#[test]
fn a_client_that_expects_100_continue_is_told_to_when_the_handler_reads() {
    reactor::run(|| {
        let (_server, address) = start(echo());
        let mut stream = connect(address);
        let head = "Host: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        write!(stream, "POST /echo HTTP/1.1\r\n{head}").unwrap();
        assert_eq!(read_until(&mut stream, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"bytes").unwrap();
        assert!(read_until(&mut stream, "bytes").starts_with("HTTP/1.1 200 OK"));
        // A handler that does not read answers at once, and nobody knows whether the body will come.
        write!(stream, "POST /unread HTTP/1.1\r\n{head}").unwrap();
        let answer = read_all(&mut stream);
        assert_eq!(statuses(&answer), [200]);
        assert!(answer.contains("Connection: close"), "{answer}");
    });
}

#[test]
fn an_unread_body_is_skipped_if_it_is_short_and_ends_the_connection_if_it_is_long() {
    reactor::run(|| {
        let (_server, address) = start(echo());
        let next = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let short = format!("POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345{next}");
        assert_eq!(statuses(&talk(address, short)), [200, 200]);
        let chunked = "POST /unread HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let short = format!("{chunked}3\r\nabc\r\n0\r\n\r\n{next}");
        assert_eq!(statuses(&talk(address, short)), [200, 200]);
        let long = "POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";
        let answer = talk(address, long);
        assert_eq!(statuses(&answer), [200]);
        assert!(answer.contains("Connection: close"), "{answer}");
    });
}

#[test]
fn bodies_stream_both_ways_at_once_with_trailers() {
    reactor::run(|| {
        let server = Server::new().route(Method::POST, "/shout", |_| {
            Response::exchange(|body, out| {
                let mut length = 0;
                loop {
                    let data = body.fill_buf()?.to_ascii_uppercase();
                    if data.is_empty() {
                        break;
                    }
                    body.consume(data.len());
                    length += data.len();
                    out.write_all(&data)?;
                    out.flush()?;
                }
                let sum = body.trailers().get_str("Sum").unwrap_or("none").to_owned();
                out.trailer("Length", length.to_string()).map_err(io::Error::other)?;
                out.trailer("Their-Sum", sum).map_err(io::Error::other)
            })
        });
        let (_server, address) = start(server);
        let mut stream = connect(address);
        stream.write_all(b"POST /shout HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for word in ["one", "two", "three"] {
            write!(stream, "{:x}\r\n{word}\r\n", word.len()).unwrap();
            // Each comes back before the next is sent.
            read_until(&mut stream, &format!("{:x}\r\n{}\r\n", word.len(), word.to_uppercase()));
        }
        stream.write_all(b"0\r\nSum: 7\r\n\r\n").unwrap();
        read_until(&mut stream, "0\r\nLength: 11\r\nTheir-Sum: 7\r\n\r\n");
    });
}

#[test]
fn a_handler_that_panics_is_a_500_and_the_server_goes_on() {
    reactor::run(|| {
        let (_server, address) = start(echo());
        for _ in 0..3 {
            assert_eq!(statuses(&talk(address, "GET /panic HTTP/1.1\r\nHost: h\r\n\r\n")), [500]);
        }
        assert_eq!(statuses(&talk(address, "GET / HTTP/1.0\r\n\r\n")), [200]);
    });
}

#[test]
fn a_stream_that_fails_is_cut_off_and_never_looks_whole() {
    reactor::run(|| {
        let server = Server::new()
            .route(Method::GET, "/chunked", |_| {
                Response::stream(|out| {
                    out.write_all(&[b'x'; 100_000])?;
                    Err(io::Error::other("the source broke"))
                })
            })
            .route(Method::GET, "/short", |_| Response::stream_of_length(10, |out| out.write_all(b"short")));
        let (_server, address) = start(server);
        for path in ["/chunked", "/short"] {
            let mut stream = connect(address);
            write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let mut all = Vec::new();
            // A reset is as good an end as any: nobody can take it for the whole.
            let _ = stream.read_to_end(&mut all);
            assert!(!all.ends_with(b"0\r\n\r\n"));
        }
    });
}

#[test]
fn every_limit_has_its_status() {
    reactor::run(|| {
        let mut limits = Limits { handler_time: Some(Duration::from_millis(50)), ..Limits::default() };
        limits.body.size_bytes = 100;
        let server = echo()
            .route(Method::GET, "/slow", |_| {
                reactor::sleep(Duration::from_secs(60));
                "slow"
            })
            .limits(limits);
        let (_server, address) = start(server);
        let long = "x".repeat(40_000);
        for (request, status) in [
            (format!("GET /{long} HTTP/1.1\r\n"), 414),
            (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"), 431),
            (format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(120)), 431),
            ("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n".to_owned(), 413),
            ("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n70\r\n".to_owned(), 413),
            ("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(), 400),
            ("GET / HTTP/3.0\r\nHost: h\r\n\r\n".to_owned(), 505),
            ("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 501),
            ("POST /echo HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n".to_owned(), 417),
            ("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 503),
        ] {
            let answer = talk(address, &request);
            assert_eq!(statuses(&answer), [status], "{:?}", &request[..request.len().min(80)]);
            assert!(answer.contains("Connection: close"), "{answer}");
        }
    });
}

#[test]
fn time_is_limited_for_head_body_and_rest() {
    reactor::run(|| {
        let short = Duration::from_millis(100);
        let limits = Limits {
            idle_time: short,
            head_time: short,
            body_time: short,
            write_time: short,
            ..Limits::default()
        };
        let (server, address) = start(echo().limits(limits));
        assert_eq!(talk(address, ""), "", "an idle connection is let go");
        assert_eq!(statuses(&talk(address, "GET / HTTP/1.1\r\nHo")), [408]);
        let partial = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf";
        assert_eq!(statuses(&talk(address, partial)), [408]);
        // One that trickles its head gets no more time than one that stops.
        let mut slow = connect(address);
        for byte in "GET / HTTP/1.1\r\nHost: h\r\nX: ".bytes().chain(std::iter::repeat_n(b'x', 200)) {
            if slow.write_all(&[byte]).is_err() {
                break;
            }
            reactor::sleep(Duration::from_millis(5));
        }
        let mut answer = [0; 12];
        let _ = slow.read(&mut answer);
        drop(slow);
        while server.connection_count() > 0 {
            reactor::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn clients_beyond_the_limit_of_connections_are_told_503() {
    reactor::run(|| {
        let (server, address) = start(echo().limits(Limits { connections: 2, ..Limits::default() }));
        let mut first = connect(address);
        let second = connect(address);
        while server.connection_count() < 2 {
            reactor::yield_now();
        }
        assert_eq!(statuses(&talk(address, "")), [503]);
        drop(second);
        while server.connection_count() > 1 {
            reactor::sleep(Duration::from_millis(1));
        }
        assert_eq!(statuses(&talk(address, "GET / HTTP/1.0\r\n\r\n")), [200]);
        first.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(statuses(&read_all(&mut first)), [200]);
    });
}

#[test]
fn draining_answers_every_request_that_came() {
    reactor::run(|| {
        let answered = Rc::new(std::cell::Cell::new(0));
        let server = Server::new().route(Method::GET, "/", |_| {
            reactor::sleep(Duration::from_millis(20));
            "done"
        });
        let (server, address) = start(server);
        let mut clients = Vec::new();
        for number in 0..20 {
            let answered = answered.clone();
            clients.push(reactor::spawn(move || {
                let mut stream = connect(address);
                // Each asks again and again, until it is told that the connection ends.
                loop {
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
                    let answer = read_until(&mut stream, "done");
                    answered.set(answered.get() + 1);
                    if answer.contains("Connection: close") {
                        return;
                    }
                    reactor::sleep(Duration::from_millis(number));
                }
            }));
        }
        reactor::sleep(Duration::from_millis(100));
        // One that rests is let go; one that has just connected is served.
        let mut resting = connect(address);
        let mut late = connect(address);
        late.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(server.drain(Duration::from_secs(20)), 0, "none had to be ended");
        assert!(read_all(&mut late).ends_with("done"));
        assert_eq!(read_all(&mut resting), "");
        for client in clients {
            client.join().unwrap();
        }
        assert!(answered.get() >= 20);
        assert!(TcpStream::connect(address).is_err());
    });
}

#[test]
fn draining_ends_what_is_not_over_in_time() {
    reactor::run(|| {
        let server = Server::new().route(Method::GET, "/", |_| {
            reactor::sleep(Duration::from_secs(600));
            StatusCode::OK
        });
        let (server, address) = start(server);
        let mut stream = connect(address);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        reactor::sleep(Duration::from_millis(20));
        assert_eq!(server.drain(Duration::from_millis(50)), 1);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    });
}
