//! Servers that break the rules, by mistake or on purpose: the client refuses what could be read in two ways, gathers no
//! more than it was allowed, waits no longer than it was told, and never takes a part for the whole.

mod scripted;

use std::io::{BufReader, ErrorKind, Read, Write};
use std::time::Duration;

use reactor::http::client::{Client, ClientError, Phase, Timeouts};
use reactor::http::{BodyLimits, HeadError, HeadLimits};
use reactor::{run, sleep};
use scripted::{Server, ok, read_head, read_request, start};

/// Answers the first request of each connection with these bytes, and closes.
fn closing(answer: impl Into<Vec<u8>>) -> Server {
    let answer = answer.into();
    start(move |client, _| {
        if read_request(&mut BufReader::new(&client)).is_some() {
            let _ = (&client).write_all(&answer);
        }
    })
}

/// Sends `prefix` and then `piece` for ever.
fn endless(prefix: &'static str, piece: &'static str) -> Server {
    start(move |client, _| {
        let _ = read_request(&mut BufReader::new(&client));
        let mut sent = (&client).write_all(prefix.as_bytes());
        let piece = piece.repeat(4096 / piece.len());
        while sent.is_ok() {
            sent = (&client).write_all(piece.as_bytes());
        }
    })
}

fn fails(server: &Server) -> ClientError {
    Client::new().get(&server.url).send().map(drop).unwrap_err()
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_refused() {
    run(|| {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        ] {
            let error = fails(&closing(answer));
            assert!(matches!(error, ClientError::Head(HeadError::Malformed(_))), "{answer:?}: {error}");
        }
        assert!(matches!(
            fails(&closing("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n")),
            ClientError::Head(HeadError::Coding)
        ));
        for other in
            ["HTTP/2.0 200 OK\r\n\r\n", "hello\r\n\r\n", "SSH-2.0-OpenSSH_9.9\r\n", "\x16\x03\x01\x02"]
        {
            assert!(
                matches!(fails(&closing(other)), ClientError::Head(_) | ClientError::Io { .. }),
                "{other:?}"
            );
        }
        let error = fails(&closing("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"));
        assert!(matches!(error, ClientError::UnwantedUpgrade), "{error}");
    });
}

#[test]
fn a_head_without_end_is_refused_at_its_limit() {
    run(|| {
        for (prefix, piece) in [
            ("", "x"),
            ("HTTP/1.1 200 ", "O"),
            ("HTTP/1.1 200 OK\r\nX: ", "y"),
            ("HTTP/1.1 200 OK\r\n", "X-Many: a\r\n"),
        ] {
            let error = fails(&endless(prefix, piece));
            assert!(matches!(error, ClientError::Head(_)), "{prefix:?}: {error}");
        }
        let error = fails(&endless("", "HTTP/1.1 102 Processing\r\n\r\n"));
        assert!(matches!(error, ClientError::TooManyInterim), "{error}");
        let small = HeadLimits { head_bytes: 100, ..HeadLimits::default() };
        let client = Client::builder().head_limits(small).build();
        let server =
            closing(format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(100)));
        assert!(matches!(client.get(&server.url).send(), Err(ClientError::Head(HeadError::HeadTooLong))));
    });
}

#[test]
fn interim_answers_are_passed_over_until_the_one_that_counts() {
    run(|| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        let server = closing([interim.as_bytes(), &ok("at last")].concat());
        let response = Client::new().get(&server.url).send().unwrap();
        assert_eq!(response.headers().get("link"), None);
        assert_eq!(response.text(100).unwrap(), "at last");
    });
}

#[test]
fn a_body_that_ends_early_is_an_error_and_stays_one() {
    run(|| {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
        ] {
            let server = closing(answer);
            let mut response = Client::new().get(&server.url).send().unwrap();
            let mut text = String::new();
            let error = response.read_to_string(&mut text).unwrap_err();
            assert_eq!((error.kind(), &*text), (ErrorKind::UnexpectedEof, "hello"), "{answer:?}");
            assert!(response.read(&mut [0; 8]).is_err(), "asking again does not make it an end");
        }
        let error = fails(&closing("HTTP/1.1 200 OK\r\nContent-Le"));
        assert!(matches!(error, ClientError::Io { phase: Phase::Head, .. }), "{error}");
        assert!(matches!(fails(&closing("")), ClientError::Io { phase: Phase::Head, .. }));
    });
}

#[test]
fn a_chunk_that_is_malformed_or_a_trailer_that_is_none_is_refused() {
    run(|| {
        for chunks in [
            "x\r\n",
            "5\r\nhello!!",
            "-5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "fffffffffffffffff\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
        ] {
            let server = closing(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
            let client = Client::new();
            let error = client.get(&server.url).send().unwrap().bytes(1000).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{chunks:?}: {error}");
            assert_eq!(client.idle_connections(), 0);
        }
    });
}

#[test]
fn a_body_without_end_is_read_to_the_limit_and_no_further() {
    run(|| {
        for (prefix, piece) in [
            ("HTTP/1.1 200 OK\r\n\r\n", "x"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "x"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "4\r\nabcd\r\n"),
        ] {
            let server = endless(prefix, piece);
            let error = Client::new().get(&server.url).send().unwrap().bytes(100_000).unwrap_err();
            assert!(error.to_string().contains("longer than 100000 bytes"), "{error}");
            let limits = BodyLimits { size_bytes: 50_000, ..BodyLimits::default() };
            let client = Client::builder().body_limits(limits).build();
            let mut taken = Vec::new();
            let error = client.get(&server.url).send().unwrap().read_to_end(&mut taken).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(taken.len() <= 50_000);
        }
        let server =
            endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1;aaaaaaaaaaaaaaa\r\nx\r\n");
        let error = Client::new().get(&server.url).send().unwrap().bytes(1 << 20).unwrap_err();
        assert!(error.to_string().contains("framing"), "{error}");
    });
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn encoded(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_few_bytes_that_decode_to_very_many_are_stopped_at_the_limit() {
    run(|| {
        let bomb = gzip(&vec![0; 50 << 20]);
        assert!(bomb.len() < 100_000);
        let server = closing(encoded(&bomb));
        let error = Client::new().get(&server.url).send().unwrap().bytes(1 << 20).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
        let limits = BodyLimits { size_bytes: 2 << 20, ..BodyLimits::default() };
        let client = Client::builder().body_limits(limits).build();
        let response = client.get(&server.url).send().unwrap();
        let mut taken = 0;
        let error = read_counting(response, &mut taken);
        assert!(error.to_string().contains("when it is decoded"), "{error}");
        assert!(taken <= 2 << 20);
    });
}

fn read_counting(mut response: reactor::http::client::Response, taken: &mut usize) -> std::io::Error {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match response.read(&mut buffer) {
            Ok(0) => panic!("the end was reached"),
            Ok(count) => *taken += count,
            Err(error) => return error,
        }
    }
}

#[test]
fn gzip_that_is_cut_or_damaged_is_an_error() {
    run(|| {
        let whole = gzip("text ".repeat(10_000).as_bytes());
        let fetch =
            |body: &[u8]| Client::new().get(&closing(encoded(body)).url).send().unwrap().bytes(1 << 20);
        assert_eq!(fetch(&whole).unwrap().len(), 50_000);
        for cut in [1, 9, 10, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
            assert!(fetch(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in [0, 1, whole.len() / 2, whole.len() - 5] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            assert!(fetch(&damaged).is_err(), "damaged at {at}");
        }
    });
}

#[test]
fn each_phase_has_a_timeout_and_says_which_it_was() {
    run(|| {
        let short = Duration::from_millis(30);
        let client = |change: fn(&mut Timeouts, Duration)| {
            let mut timeouts = Timeouts::default();
            change(&mut timeouts, short);
            Client::builder().timeouts(timeouts).build()
        };
        let silent = start(|client, _| {
            read_head(&mut BufReader::new(&client));
            sleep(Duration::from_secs(60));
        });
        let error = client(|t, short| t.head = short).get(&silent.url).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::TimedOut(Phase::Head)), "{error}");
        // A head that trickles does not hold it up either.
        let slow = start(|client, _| {
            read_head(&mut BufReader::new(&client));
            for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
                if (&client).write_all(&[*byte]).is_err() {
                    return;
                }
                sleep(Duration::from_millis(2));
            }
        });
        let error = client(|t, short| t.head = short).get(&slow.url).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::TimedOut(Phase::Head)), "{error}");
        let stalling = start(|client, _| {
            read_head(&mut BufReader::new(&client));
            (&client).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
            sleep(Duration::from_secs(60));
        });
        let error =
            client(|t, short| t.idle = short).get(&stalling.url).send().unwrap().bytes(100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("Body"), "{error}");
        let dripping = start(|client, _| {
            read_head(&mut BufReader::new(&client));
            let mut sent = (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while sent.is_ok() {
                sleep(Duration::from_millis(3));
                sent = (&client).write_all(b"x");
            }
        });
        // Time enough for the head, however busy the other tests of this file keep the thread.
        let response = client(|t, short| t.total = Some(20 * short)).get(&dripping.url).send().unwrap();
        let error = response.bytes(10_000).unwrap_err();
        assert!(error.to_string().contains("Total"), "{error}");
        let error = Client::new().get(&silent.url).timeout(short).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::TimedOut(Phase::Total)), "{error}");
        // A server that takes no more of the body than its buffers hold.
        let mut body = std::io::repeat(7);
        let error = client(|t, short| t.idle = short).put(&silent.url).stream(&mut body, None).send();
        let error = error.map(drop).unwrap_err();
        assert!(matches!(error, ClientError::TimedOut(Phase::Send)), "{error}");
    });
}

#[test]
fn what_cannot_be_sent_safely_is_not_sent() {
    run(|| {
        let server = closing(ok("x"));
        let client = Client::new();
        for (name, value) in [("X", "a\r\nY: b"), ("X\r\nY", "a"), ("", "a"), ("X", "a\0"), ("X ", "a")] {
            let error = client.get(&server.url).header(name, value).send().map(drop).unwrap_err();
            assert!(matches!(error, ClientError::InvalidHeader(_)), "{name:?}: {value:?}");
        }
        for name in ["Content-Length", "transfer-encoding"] {
            assert!(
                client.get(&server.url).header(name, "1").send().is_err(),
                "{name} is the client's to state"
            );
        }
        for url in ["ftp://a.test/", "/relative", "http://", "http://a b/", "file:///etc/passwd", ""] {
            let error = client.get(url).send().map(drop).unwrap_err();
            assert!(matches!(error, ClientError::InvalidUrl(_)), "{url:?}: {error}");
        }
        assert_eq!(server.connections.get(), 0);
    });
}
