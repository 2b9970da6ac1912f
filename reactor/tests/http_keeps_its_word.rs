//! What clients of our server were told wrongly, or not at all: interim answers inside of bodies, faults of a handler's
//! told as their own, answers that were ready and never left, servers that were ended and answered still.

mod http_support;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use http_support::{body, connect, get, read_all, read_until, start, statuses, talk};
use reactor::http::{Files, Limits, Method, Request, Response, Server, StatusCode};
use reactor::net::TcpStream;

#[test]
fn a_client_is_told_to_go_on_before_its_answer_begins_and_never_within() {
    reactor::run(|| {
        let (_server, address) = start(Server::new().route(Method::POST, "/mirror", |_| {
            Response::exchange(|request, out| {
                out.write_all(b"hello")?;
                out.flush()?;
                io::copy(request, out).map(drop)
            })
        }));
        let mut stream = connect(address);
        let head = "POST /mirror HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n";
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
        let began = read_until(&mut stream, "hello\r\n");
        assert!(began.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{began}");
        stream.write_all(b"abc").unwrap();
        assert_eq!(read_all(&mut stream), "3\r\nabc\r\n0\r\n\r\n");
    });
}

#[test]
fn a_handlers_own_failure_is_a_500_whatever_its_kind() {
    reactor::run(|| {
        let (_server, address) = start(
            Server::new()
                .route(Method::POST, "/pay", |_| -> io::Result<Response> {
                    reactor::timeout(Duration::from_millis(1), || reactor::sleep(Duration::from_secs(60)))?;
                    Ok(Response::empty())
                })
                .route(Method::GET, "/page", |_| -> io::Result<Response> {
                    Ok(std::fs::read("/no/such/file")?.into())
                })
                .route(Method::POST, "/echo", |request: &mut Request<'_>| -> io::Result<Response> {
                    Ok(request.read_body(3)?.into())
                }),
        );
        let answers = talk(
            address,
            "POST /pay HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nGET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(statuses(&answers), [500, 500], "a client that is told 408 pays twice: {answers}");
        let answer = talk(address, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nlong");
        assert_eq!(statuses(&answer), [413], "its own faults it is told");
    });
}

#[test]
fn a_client_that_is_too_slow_is_told_so_and_not_while_the_handler_works() {
    reactor::run(|| {
        let limits = Limits { body_time: Duration::from_millis(300), ..Limits::default() };
        let (_server, address) = start(Server::new().limits(limits).route(
            Method::POST,
            "/slow",
            |request: &mut Request<'_>| -> io::Result<Response> {
                let mut first = [0; 1];
                request.body().read_exact(&mut first)?;
                // Longer than the client has.
                reactor::sleep(Duration::from_millis(1_000));
                Ok(request.read_body(100)?.into())
            },
        ));
        let head = "POST /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";
        let mut stream = connect(address);
        stream.write_all(format!("{head}ab").as_bytes()).unwrap();
        // The rest is there when the handler asks for it, or soon.
        reactor::sleep(Duration::from_millis(900));
        stream.write_all(b"cd").unwrap();
        let answer = read_all(&mut stream);
        assert_eq!((statuses(&answer), body(&answer)), (vec![200], "bcd"));
        let answer = talk(address, format!("{head}ab"));
        assert_eq!(statuses(&answer), [408]);
    });
}

#[test]
fn an_answer_that_was_ready_leaves_although_the_next_one_fails() {
    reactor::run(|| {
        let fails = |panics: bool| {
            move |_: &mut Request<'_>| {
                Response::stream(move |out| {
                    out.write_all(b"a beginning that has not left")?;
                    assert!(!panics, "as a writer may");
                    Err(io::Error::new(ErrorKind::NotFound, "my own failure"))
                })
            }
        };
        let (_server, address) = start(
            Server::new()
                .route(Method::POST, "/buy", |_| "bought")
                .route(Method::GET, "/fail", fails(false))
                .route(Method::GET, "/panic", fails(true))
                .route(Method::GET, "/late", |_| {
                    Response::stream(|out| {
                        out.write_all(b"begun")?;
                        out.flush()?;
                        Err(io::Error::other("my own failure"))
                    })
                }),
        );
        for failing in ["/fail", "/panic"] {
            let buy = "POST /buy HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
            let answers = talk(address, format!("{buy}GET {failing} HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert_eq!(statuses(&answers), [200, 500], "{answers}");
            assert!(answers.contains("bought") && !answers.contains("a beginning"), "{answers}");
        }
        let answer = talk(address, "GET /late HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(
            answer.contains("begun") && !answer.ends_with("0\r\n\r\n"),
            "it is seen to be broken: {answer}"
        );
    });
}

#[test]
fn a_server_whose_waiter_was_ended_listens_no_longer() {
    reactor::run(|| {
        let listener = reactor::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = || Server::new().route(Method::GET, "/", |_| "served").serve(listener);
        assert!(reactor::timeout(Duration::from_millis(20), serving).is_err());
        // Its coroutine ends when it next runs.
        for _ in 0..100 {
            reactor::yield_now();
        }
        let error = TcpStream::connect(address).err().expect("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn statuses_and_headers_of_a_handler_say_what_they_say() {
    reactor::run(|| {
        let (_server, address) = start(
            Server::new()
                .route(Method::GET, "/", |_| "root")
                .route(Method::GET, "/conflict", |_| StatusCode::CONFLICT)
                .route(Method::GET, "/json", |_| {
                    Response::text("{}")
                        .header("content-type", "application/json")
                        .header("Connection", "Close")
                }),
        );
        let mut stream = connect(address);
        for _ in 0..2 {
            stream.write_all(b"GET /conflict HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let answer = read_until(&mut stream, "\r\n\r\nConflict");
            assert!(!answer.contains("Connection: close"), "the connection is good: {answer}");
        }
        let answer = talk(address, "GET /json HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(answer.matches("Content-Type").count(), 1, "{answer}");
        assert_eq!(answer.matches("Connection").count(), 1, "{answer}");
        assert!(answer.contains("Content-Type: application/json\r\n"), "{answer}");
        let answer = talk(address, "GET http://h HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(body(&answer), "root", "an empty path is `/`");
        let answer = talk(address, "OPTIONS http://h HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(statuses(&answer), [204]);
    });
}

#[test]
fn a_file_of_any_time_is_served_and_no_browser_guesses_its_type() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let old = std::time::UNIX_EPOCH - Duration::from_secs(1);
        let far = std::time::UNIX_EPOCH + Duration::from_secs(300_000_000_000);
        for (name, time) in [("old.txt", old), ("far.txt", far)] {
            let file = std::fs::File::create(directory.path().join(name)).unwrap();
            file.set_modified(time).unwrap();
        }
        let files = Files::new(directory.path()).unwrap();
        let server =
            Server::new().route(Method::GET, "/{*path}", move |request| files.serve(request, "path"));
        let (_server, address) = start(server);
        for name in ["/old.txt", "/far.txt"] {
            let answer = get(address, name, "");
            assert_eq!(statuses(&answer), [200], "{answer}");
            assert!(!answer.contains("Last-Modified") || name == "/far.txt", "{answer}");
            assert!(answer.contains("X-Content-Type-Options: nosniff\r\n"), "{answer}");
        }
    });
}

#[test]
fn one_address_cannot_take_the_places_of_all_others() {
    reactor::run(|| {
        let limits = Limits { connections: 100, connections_per_address: 3, ..Limits::default() };
        let served = Rc::new(Cell::new(0));
        let counted = served.clone();
        let (_server, address) = start(Server::new().limits(limits).route(Method::GET, "/", move |_| {
            counted.set(counted.get() + 1);
            "served"
        }));
        let greedy: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
        let mut more = connect(address);
        assert_eq!(statuses(&read_all(&mut more)), [503]);
        drop(greedy);
        // Their places are free when the server has seen them go.
        let served_again = (0..1_000).any(|_| {
            reactor::sleep(Duration::from_millis(5));
            let mut stream = connect(address);
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
        });
        assert!(served_again && served.get() > 0);
    });
}
