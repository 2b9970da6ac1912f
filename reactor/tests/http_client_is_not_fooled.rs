//! Servers that mislead our client: by an answer that nobody asked for, by a body that never comes, by agreeing to an
//! upload that failed, by answering before they have read.

mod certificates;
mod scripted;

use std::io::{BufReader, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use certificates::Authority;
use reactor::http::client::{Client, ClientError, Timeouts};
use reactor::net::{TcpListener, tls};
use reactor::run;
use scripted::{ok, read_body, read_head, read_request, start};

#[test]
fn an_answer_too_many_inside_tls_is_not_taken_for_the_next_one() {
    run(|| {
        let authority = Authority::new();
        let server = tls::Server::new(&[authority.certificate(&["localhost"])]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        reactor::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let server = server.clone();
                reactor::spawn(move || {
                    let Ok(stream) = server.accept(client) else { return };
                    let mut reader = BufReader::new(&stream);
                    while let Some(request) = read_request(&mut reader) {
                        // The answer fills what a client reads at once, so that the rest of the record stays behind.
                        let answer = match &*request.line {
                            "GET /long HTTP/1.1" => [ok(vec![b'x'; 4096]), ok("poison")].concat(),
                            line => ok(line),
                        };
                        if (&stream).write_all(&answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let trust = tls::Client::with_roots(authority.pem.as_bytes()).unwrap();
        let client = Client::builder().tls(trust).build();
        let url = format!("https://localhost:{port}");
        for round in 0..20 {
            let long = client.get(&format!("{url}/long")).send().unwrap().bytes(1 << 20).unwrap();
            assert_eq!(long.len(), 4096);
            let line = client.get(&format!("{url}/{round}")).send().unwrap().text(1 << 20).unwrap();
            assert_eq!(line, format!("GET /{round} HTTP/1.1"));
        }
    });
}

#[test]
fn a_redirect_whose_body_never_comes_is_followed_all_the_same() {
    run(|| {
        let server = start(|client, number| {
            let mut reader = BufReader::new(&client);
            let Some(request) = read_request(&mut reader) else { return };
            let answer = match number {
                0 => b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 100\r\n\r\nnever".to_vec(),
                _ => ok(&request.line),
            };
            let _ = (&client).write_all(&answer);
            reactor::sleep(Duration::from_secs(3_600));
        });
        // With the idle limit that it would wait for, this test would take an hour.
        let timeouts = Timeouts { idle: Duration::from_secs(3_000), ..Timeouts::default() };
        let client = Client::builder().timeouts(timeouts).build();
        let response = client.get(&server.url).send().unwrap();
        assert_eq!(response.text(100).unwrap(), "GET /there HTTP/1.1");
    });
}

/// A body that breaks after so many bytes.
struct Breaking(usize);

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::Error::other("my disk is broken"));
        }
        let count = buffer.len().min(self.0);
        buffer[..count].fill(7);
        self.0 -= count;
        Ok(count)
    }
}

#[test]
fn an_upload_that_failed_is_a_failure_although_the_server_agreed_before() {
    run(|| {
        let server = start(|client, _| {
            let mut reader = BufReader::new(&client);
            let Some(mut request) = read_head(&mut reader) else { return };
            let _ = (&client).write_all(&ok("agreed"));
            let _ = read_body(&mut reader, &mut request);
        });
        let client = Client::new();
        let mut body = Breaking(200_000);
        let result = client.post(&server.url).stream(&mut body, Some(1 << 20)).send();
        match result {
            Err(ClientError::Body { source }) => assert_eq!(source.to_string(), "my disk is broken"),
            Err(other) => panic!("{other}"),
            Ok(response) => panic!("{}", response.status()),
        }
    });
}

#[test]
fn a_server_that_answers_as_it_reads_is_heard_out() {
    run(|| {
        let server = start(|client, _| {
            let mut reader = BufReader::new(&client);
            let Some(request) = read_head(&mut reader) else { return };
            let length: u64 = request.header("content-length").unwrap().parse().unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = (&client).write_all(head.as_bytes());
            let _ = std::io::copy(&mut reader.take(length), &mut &client);
        });
        let client = Client::new();
        // More than the sockets hold of it.
        let body: Rc<[u8]> = (0..3 << 20).map(|at: u32| (at ^ (at >> 8)) as u8).collect();
        let response = client.post(&server.url).body(&body[..]).send().unwrap();
        assert!(response.bytes(8 << 20).unwrap() == body[..]);
    });
}

#[test]
fn a_server_that_waits_for_its_answer_to_be_read_is_told_from_one_that_is_slow() {
    run(|| {
        let server = start(|client, _| {
            let mut reader = BufReader::new(&client);
            let Some(request) = read_head(&mut reader) else { return };
            let length: u64 = request.header("content-length").unwrap().parse().unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = (&client).write_all(head.as_bytes());
            let _ = std::io::copy(&mut reader.take(length), &mut &client);
        });
        // It is not the limit on silence that ends it.
        let hour = Duration::from_secs(3_600);
        let client =
            Client::builder().timeouts(Timeouts { idle: hour, head: hour, ..Timeouts::default() }).build();
        let body = vec![7; 64 << 20];
        let answer =
            reactor::timeout(Duration::from_secs(60), || client.post(&server.url).body(&body[..]).send());
        match answer.expect("each waits for the other") {
            Err(error @ ClientError::AnswerTooFarAhead) => {
                assert!(error.to_string().contains("4 MiB"), "{error}")
            }
            Err(other) => panic!("{other}"),
            Ok(response) => panic!("{}", response.status()),
        }
    });
}
