//! Connections are used again when that is safe, and never when it is not: after a body left unread, after the user was
//! terminated in the middle of one, or when the server has closed in the meantime.

mod scripted;

use std::cell::Cell;
use std::io::{BufReader, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use reactor::http::client::{Client, ClientError, PoolLimits, Retries};
use reactor::{run, sleep, spawn};
use scripted::{answering, ok, read_head, read_request, start};

fn get(client: &Client, url: &str) -> String {
    client.get(url).send().unwrap().text(1 << 20).unwrap()
}

#[test]
fn one_connection_serves_request_after_request_once_each_body_is_read() {
    run(|| {
        let server = answering(|request| {
            match &*request.line {
            "GET /chunked HTTP/1.1" => {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nSum: 5\r\n\r\n"
                    .to_vec()
            }
            "HEAD /head HTTP/1.1" => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
            "DELETE /none HTTP/1.1" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            line => ok(line),
        }
        });
        let client = Client::new();
        assert_eq!(get(&client, &format!("{}/a?b#c", server.url)), "GET /a?b HTTP/1.1");
        let mut response = client.get(&format!("{}/chunked", server.url)).send().unwrap();
        let mut text = String::new();
        response.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, response.trailers().get("sum")), ("abcde", Some(&b"5"[..])));
        let head = client.head(&format!("{}/head", server.url)).send().unwrap();
        assert_eq!(head.headers().get_str("content-length"), Some("1000"));
        assert_eq!(head.text(10).unwrap(), "");
        assert_eq!(client.delete(&format!("{}/none", server.url)).send().unwrap().status(), 204);
        assert_eq!(get(&client.clone(), &server.url), "GET / HTTP/1.1");
        assert_eq!((server.connections.get(), client.idle_connections()), (1, 1));
    });
}

#[test]
fn calls_at_once_have_connections_of_their_own_which_wait_for_later_ones() {
    run(|| {
        let server = answering(|request| ok(&request.line));
        let limits = PoolLimits { idle_per_server: 3, ..PoolLimits::default() };
        let client = Client::builder().pool(limits).build();
        reactor::scope(|s| {
            for _ in 0..5 {
                s.spawn(|| get(&client, &server.url));
            }
        });
        assert_eq!((server.connections.get(), client.idle_connections()), (5, 3));
        for _ in 0..5 {
            get(&client, &server.url);
        }
        assert_eq!(server.connections.get(), 5);
    });
}

#[test]
fn a_connection_whose_body_was_left_unread_is_closed() {
    run(|| {
        let server = answering(|_| ok("a body that nobody reads to its end"));
        let client = Client::new();
        let mut response = client.get(&server.url).send().unwrap();
        response.read_exact(&mut [0; 5]).unwrap();
        drop(response);
        drop(client.get(&server.url).send().unwrap());
        assert_eq!(client.idle_connections(), 0);
        assert_eq!(get(&client, &server.url).len(), 35);
        assert_eq!((server.connections.get(), client.idle_connections()), (3, 1));
    });
}

#[test]
fn a_connection_whose_user_was_terminated_in_mid_body_is_not_used_again() {
    run(|| {
        // The first connection stops in the middle of a body, and goes on with a poisoned one later.
        let server = start(|client, number| {
            let mut reader = BufReader::new(&client);
            while read_request(&mut reader).is_some() {
                if number == 0 {
                    (&client).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").unwrap();
                    sleep(Duration::from_millis(50));
                    let _ = (&client).write_all(b"67890HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
                } else {
                    (&client).write_all(&ok("good")).unwrap();
                }
            }
        });
        let client = Client::new();
        let (reading, url) = (client.clone(), server.url.clone());
        let user = spawn(move || get(&reading, &url));
        while server.connections.get() == 0 {
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(10));
        user.terminate();
        assert!(user.join().is_err());
        assert_eq!(client.idle_connections(), 0);
        for _ in 0..3 {
            assert_eq!(get(&client, &server.url), "good");
            sleep(Duration::from_millis(30));
        }
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn a_caller_terminated_while_waiting_for_the_head_or_cut_by_a_timeout_leaves_no_trace() {
    run(|| {
        let server = start(|client, number| {
            let mut reader = BufReader::new(&client);
            while read_request(&mut reader).is_some() {
                if number < 2 {
                    sleep(Duration::from_millis(30));
                }
                let _ = (&client).write_all(&ok(number.to_string()));
            }
        });
        let client = Client::new();
        let (waiting, url) = (client.clone(), server.url.clone());
        let user = spawn(move || get(&waiting, &url));
        sleep(Duration::from_millis(10));
        user.terminate();
        assert!(reactor::timeout(Duration::from_millis(5), || get(&client, &server.url)).is_err());
        assert_eq!(client.idle_connections(), 0);
        assert_eq!(get(&client, &server.url), "2");
    });
}

#[test]
fn bytes_that_nobody_asked_for_spoil_an_idle_connection() {
    run(|| {
        let server = start(|client, number| {
            let mut reader = BufReader::new(&client);
            while read_request(&mut reader).is_some() {
                (&client).write_all(&ok(number.to_string())).unwrap();
                if number == 0 {
                    sleep(Duration::from_millis(10));
                    (&client).write_all(&ok("an answer to nothing")).unwrap();
                }
            }
        });
        let client = Client::new();
        assert_eq!(get(&client, &server.url), "0");
        sleep(Duration::from_millis(30));
        assert_eq!(get(&client, &server.url), "1");
        // Those that come together with the answer spoil it as well.
        let server = answering(|_| [ok("good"), ok("and more")].concat());
        for _ in 0..3 {
            assert_eq!(get(&client, &server.url), "good");
        }
        assert_eq!(server.connections.get(), 3);
    });
}

#[test]
fn a_connection_that_the_server_closed_in_the_meantime_is_replaced_unseen() {
    run(|| {
        // Each serves one request, says nothing of closing, and closes.
        let server = start(|client, number| {
            read_request(&mut BufReader::new(&client)).unwrap();
            (&client).write_all(&ok(number.to_string())).unwrap();
        });
        let client = Client::new();
        for round in 0..4 {
            assert_eq!(get(&client, &server.url), round.to_string());
            sleep(Duration::from_millis(5));
        }
        // A POST as well: it is seen to be closed before anything is sent.
        let response = client.post(&server.url).body("x").send().unwrap();
        assert_eq!(response.text(10).unwrap(), "4");
    });
}

#[test]
fn an_idempotent_request_that_meets_a_dying_connection_is_tried_again_and_no_other() {
    run(|| {
        // It looks alive until the second request comes, and then closes without a word.
        let server = start(|client, number| {
            let mut reader = BufReader::new(&client);
            read_request(&mut reader).unwrap();
            (&client).write_all(&ok(number.to_string())).unwrap();
            read_head(&mut reader);
        });
        let client = Client::new();
        assert_eq!(get(&client, &server.url), "0");
        assert_eq!(get(&client, &server.url), "1", "a second try on a new connection");
        let response = client.put(&server.url).body("x").send().unwrap();
        assert_eq!(response.text(10).unwrap(), "2", "PUT says the same twice");
        let error = client.post(&server.url).body("x").send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Io { .. }), "POST may have been done already: {error}");
        assert_eq!(get(&client, &server.url), "3");
        let mut body = &b"x"[..];
        let error = client.put(&server.url).stream(&mut body, Some(1)).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Io { .. }), "a stream can't be sent twice: {error}");
        // On a fresh connection there is no second try: the server means it.
        let rude = start(|client, _| {
            read_head(&mut BufReader::new(&client));
        });
        assert!(client.get(&rude.url).send().is_err());
        assert_eq!(rude.connections.get(), 1);
    });
}

#[test]
fn idle_connections_are_closed_in_their_time_also_when_no_request_comes() {
    run(|| {
        let ended = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = ended.clone();
        let server = start(move |client, _| {
            let mut reader = BufReader::new(&client);
            while read_request(&mut reader).is_some() {
                (&client).write_all(&ok("x")).unwrap();
            }
            count.set(count.get() + 1);
        });
        let limits = PoolLimits { idle_age: Duration::from_millis(20), ..PoolLimits::default() };
        let client = Client::builder().pool(limits).build();
        for round in 1..4 {
            get(&client, &server.url);
            while ended.get() < round {
                sleep(Duration::from_millis(5));
            }
            assert_eq!(server.connections.get(), round);
        }
    });
}

#[test]
fn a_connection_is_not_kept_where_either_side_says_so() {
    run(|| {
        let server = answering(|request| match &*request.line {
            "GET /close HTTP/1.1" => {
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx".to_vec()
            }
            "GET /old HTTP/1.1" => b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx".to_vec(),
            "GET /kept HTTP/1.1" => {
                b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx".to_vec()
            }
            _ => ok("x"),
        });
        let client = Client::new();
        for path in ["close", "old"] {
            get(&client, &format!("{}/{path}", server.url));
            assert_eq!(client.idle_connections(), 0, "{path}");
        }
        client.get(&server.url).header("Connection", "close").send().unwrap().text(10).unwrap();
        assert_eq!(client.idle_connections(), 0);
        get(&client, &format!("{}/kept", server.url));
        assert_eq!(client.idle_connections(), 1);
    });
}

#[test]
fn a_server_that_can_not_answer_now_is_asked_again_and_nothing_is_done_twice() {
    run(|| {
        let asked = Rc::new(Cell::new(0));
        let counting = asked.clone();
        let server = answering(move |_| {
            counting.set(counting.get() + 1);
            match counting.get() % 3 {
                0 => ok("there"),
                _ => b"HTTP/1.1 503 X\r\nRetry-After: 0\r\nContent-Length: 5\r\n\r\nlater".to_vec(),
            }
        });
        let client = || Client::builder();
        let again =
            client().retries(Retries { first_wait: Duration::from_millis(1), ..Retries::times(2) }).build();
        assert_eq!(get(&again, &server.url), "there");
        assert_eq!((asked.get(), server.connections.get()), (3, 1), "over the same connection");
        assert_eq!(again.post(&server.url).body("x").send().unwrap().text(10).unwrap(), "later");
        assert_eq!(get(&client().build(), &server.url), "later", "nobody wished for more");
        assert_eq!((get(&again, &server.url).as_str(), asked.get()), ("there", 6));
        // A body that can be read once only.
        let streamed = again.put(&server.url).stream(&mut &b"x"[..], None).send().unwrap();
        assert_eq!((streamed.text(10).unwrap().as_str(), asked.get()), ("later", 7));
        assert_eq!(again.put(&server.url).body("x").send().unwrap().text(10).unwrap(), "there");
        // Two are not enough for three refusals, and the last is told.
        let once =
            client().retries(Retries { first_wait: Duration::from_millis(1), ..Retries::times(1) }).build();
        assert_eq!((get(&once, &server.url).as_str(), asked.get()), ("later", 11));
    });
}
