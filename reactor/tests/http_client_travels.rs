//! Requests that do not go straight to a plain server: over TLS, through a proxy, and after redirects; and what is told
//! to whom on the way.

mod certificates;
mod loopback;
mod scripted;

use std::io::{BufReader, ErrorKind, Read, Write};
use std::rc::Rc;

use certificates::Authority;
use reactor::cell::RefCell;
use reactor::http::client::{Client, ClientBuilder, ClientError, RedirectError, RedirectPolicy};
use reactor::net::{Duplex, TcpStream, tls};
use reactor::run;
use scripted::{Request, Server, answering, ok, read_head, read_request, start};

/// What a server was asked, in order.
type Log = Rc<RefCell<Vec<String>>>;

/// Notes each request's line and credentials.
fn note(log: &Log, request: &Request) {
    let show = |name: &str| request.header(name).map(|value| format!(" {name}={value}")).unwrap_or_default();
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let line = request.line.strip_suffix(" HTTP/1.1").unwrap();
    log.borrow_mut()
        .push(format!("{line}{}{} {body}", show("authorization"), show("cookie")).trim_end().to_owned());
}

fn redirect(status: u16, to: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nLocation: {to}\r\nContent-Length: 5\r\n\r\nmoved").into_bytes()
}

/// A TLS server for `names`, and how to trust it.
fn secure(names: &[&str], serve: impl Fn(tls::CertifiedStream) + Clone + 'static) -> (Server, ClientBuilder) {
    let authority = Authority::new();
    let server = tls::Server::new(&[authority.certificate(names)]).unwrap().alpn(&["http/1.1"]);
    let started = start(move |client, _| {
        if let Ok(stream) = server.accept(client) {
            serve(stream);
        }
    });
    let trust = tls::Client::with_roots(authority.pem.as_bytes()).unwrap();
    (started, Client::builder().tls(trust))
}

/// Answers requests over TLS with their lines and hosts.
fn telling(stream: tls::CertifiedStream) {
    let mut reader = BufReader::new(&stream);
    while let Some(request) = read_request(&mut reader) {
        let text = format!("{} for {}", request.line, request.header("host").unwrap());
        (&stream).write_all(&ok(text)).unwrap();
    }
}

#[test]
fn https_is_spoken_with_those_who_are_trusted_and_the_connection_is_kept() {
    run(|| {
        let (server, trusting) = secure(&["localhost", "127.0.0.1"], telling);
        let client = trusting.build();
        for host in ["localhost", "127.0.0.1", "localhost"] {
            let url = format!("https://{host}:{}/x", server.port);
            let text = client.get(&url).send().unwrap().text(100).unwrap();
            assert_eq!(text, format!("GET /x HTTP/1.1 for {host}:{}", server.port));
        }
        assert_eq!(server.connections.get(), 2, "one for each name");
        // 127.0.0.2 is the same machine, but not the one that the certificate is for.
        let error = client.get(&format!("https://127.0.0.2:{}/", server.port)).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
        let doubting = Client::new().get(&format!("https://localhost:{}/", server.port)).send().map(drop);
        assert!(matches!(doubting, Err(ClientError::Connect { .. })), "the platform knows no such authority");
        let error = client.get(&format!("http://localhost:{}/", server.port)).send().map(drop).unwrap_err();
        assert!(!matches!(error, ClientError::Connect { .. }), "http there is no https: {error}");
    });
}

#[test]
fn a_body_that_ends_with_a_tls_connection_must_end_with_close_notify() {
    run(|| {
        for proper in [true, false] {
            let (server, trusting) = secure(&["localhost"], move |stream| {
                read_head(&mut BufReader::new(&stream)).unwrap();
                (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\nall there is").unwrap();
                if proper {
                    stream.end().unwrap();
                }
            });
            let response =
                trusting.build().get(&format!("https://localhost:{}/", server.port)).send().unwrap();
            match (proper, response.text(100)) {
                (true, text) => assert_eq!(text.unwrap(), "all there is"),
                (false, text) => {
                    let error = text.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                    assert!(tls::Truncated::is_cause_of(&error), "{error}");
                }
            }
        }
    });
}

#[test]
fn redirects_are_followed_with_the_method_and_body_that_each_status_says() {
    run(|| {
        let log = Log::default();
        let noting = log.clone();
        let server = answering(move |request| {
            note(&noting, request);
            let path = request.line.split(' ').nth(1).unwrap();
            match path.strip_prefix("/to/").and_then(|status| status.parse().ok()) {
                Some(status) => redirect(status, "../here?q"),
                None => ok(path),
            }
        });
        let client = Client::new();
        for (status, expected) in [
            (301, "GET /here?q"),
            (302, "GET /here?q"),
            (303, "GET /here?q"),
            (307, "POST /here?q body"),
            (308, "POST /here?q body"),
        ] {
            let url = format!("{}/to/{status}#part", server.url);
            let response =
                client.post(&url).header("Content-Type", "text/plain").body("body").send().unwrap();
            assert_eq!(response.url(), format!("{}/here?q", server.url).as_str().to_owned() + "#part");
            assert_eq!(response.text(100).unwrap(), "/here?q");
            assert_eq!(log.take(), [format!("POST /to/{status} body"), expected.to_owned()]);
        }
        assert_eq!(server.connections.get(), 1, "the answers in between were read off");
        let mut body = &b"used up"[..];
        let used_up = client.post(&format!("{}/to/307", server.url)).stream(&mut body, None).send().map(drop);
        assert!(matches!(used_up, Err(ClientError::Redirect(RedirectError::BodyUsedUp))));
        let plain =
            Client::builder().redirects(RedirectPolicy { limit: 0, ..RedirectPolicy::default() }).build();
        assert_eq!(plain.get(&format!("{}/to/302", server.url)).send().unwrap().status(), 302);
    });
}

#[test]
fn a_chain_of_redirects_ends_at_the_limit() {
    run(|| {
        let server = answering(|request| {
            let count: u32 = request.line.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            if count == 0 { ok("home") } else { redirect(302, &(count - 1).to_string()) }
        });
        let client = Client::new();
        let text = client.get(&format!("{}/10", server.url)).send().unwrap().text(100).unwrap();
        assert_eq!(text, "home");
        let error = client.get(&format!("{}/11", server.url)).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Redirect(RedirectError::TooMany)), "{error}");
    });
}

#[test]
fn credentials_go_to_their_own_server_and_to_nobody_else() {
    run(|| {
        let (log, foreign_log) = (Log::default(), Log::default());
        let noting = foreign_log.clone();
        let foreign = answering(move |request| {
            note(&noting, request);
            ok("foreign")
        });
        let (noting, away) = (log.clone(), format!("{}/away", foreign.url));
        let home = answering(move |request| {
            note(&noting, request);
            if request.line.starts_with("GET /near") { redirect(302, "/here") } else { redirect(302, &away) }
        });
        let client = Client::new();
        let url = home.url.replace("http://", "http://me:pass@") + "/near";
        let text = client.get(&url).header("Cookie", "a=b").send().unwrap().text(100).unwrap();
        assert_eq!(text, "foreign");
        let secret = "authorization=Basic bWU6cGFzcw== cookie=a=b";
        assert_eq!(log.take(), [format!("GET /near {secret}"), format!("GET /here {secret}")]);
        assert_eq!(foreign_log.take(), ["GET /away"]);
        client.get(&home.url).basic_auth("you", "word").send().unwrap();
        assert_eq!(log.take(), ["GET / authorization=Basic eW91OndvcmQ="]);
    });
}

#[test]
fn a_redirect_from_https_to_http_is_refused_unless_allowed() {
    run(|| {
        let plain = answering(|_| ok("anybody can read this"));
        let target = plain.url.clone();
        let (server, trusting) = secure(&["localhost"], move |stream| {
            while read_request(&mut BufReader::new(&stream)).is_some() {
                (&stream).write_all(&redirect(302, &target)).unwrap();
            }
        });
        let url = format!("https://localhost:{}/", server.port);
        let error = trusting.clone().build().get(&url).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Redirect(RedirectError::LeavesTls)), "{error}");
        assert_eq!(plain.connections.get(), 0);
        let daring = RedirectPolicy { may_leave_tls: true, ..RedirectPolicy::default() };
        let response = trusting.redirects(daring).build().get(&url).send().unwrap();
        assert_eq!(response.text(100).unwrap(), "anybody can read this");
    });
}

/// A proxy that tunnels to any port of this machine, and answers plain requests itself. `me:pass` may use it.
fn proxy(log: &Log) -> Server {
    let log = log.clone();
    start(move |client, _| {
        let mut reader = BufReader::new(&client);
        while let Some(request) = read_request(&mut reader) {
            log.borrow_mut().push(request.line.clone());
            if request.header("proxy-authorization") != Some("Basic bWU6cGFzcw==") {
                (&client).write_all(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n").unwrap();
                continue;
            }
            let target = request.line.split(' ').nth(1).unwrap().to_owned();
            if !request.line.starts_with("CONNECT ") {
                (&client).write_all(&ok(format!("proxied {}", request.header("host").unwrap()))).unwrap();
                continue;
            }
            let port: u16 = target.rsplit_once(':').unwrap().1.parse().unwrap();
            let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
            (&client).write_all(b"HTTP/1.1 200 Go ahead\r\nX: y\r\n\r\n").unwrap();
            return tunnel(&client, &far);
        }
    })
}

fn tunnel(near: &TcpStream, far: &TcpStream) {
    fn copy(from: &TcpStream, to: &TcpStream) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = Read::read(&mut &*from, &mut buffer) {
            if Write::write_all(&mut &*to, &buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    }
    reactor::scope(|s| {
        s.spawn(|| copy(near, far));
        copy(far, near);
    });
}

#[test]
fn a_proxy_is_asked_for_plain_pages_by_their_whole_url_and_for_a_tunnel_to_the_others() {
    run(|| {
        let log = Log::default();
        let proxy = proxy(&log);
        let (server, trusting) = secure(&["far.test"], telling);
        let via = format!("http://me:pass@127.0.0.1:{}", proxy.port);
        let client = trusting.clone().proxy(&via).unwrap().no_proxy("direct.test, 127.0.0.1").build();
        // Neither name can be looked up here: the proxy has to do that.
        for _ in 0..2 {
            let text = client.get("http://plain.test/a?b#c").send().unwrap().text(100).unwrap();
            assert_eq!(text, "proxied plain.test");
            let url = format!("https://far.test:{}/x", server.port);
            let text = client.get(&url).send().unwrap().text(100).unwrap();
            assert_eq!(text, format!("GET /x HTTP/1.1 for far.test:{}", server.port));
        }
        let lines = [
            "GET http://plain.test/a?b HTTP/1.1".to_owned(),
            format!("CONNECT far.test:{} HTTP/1.1", server.port),
        ];
        assert_eq!(log.take(), [&lines[0], &lines[1], &lines[0]].map(String::clone), "the tunnel is kept");
        let direct = answering(|request| ok(&request.line));
        assert_eq!(client.get(&direct.url).send().unwrap().text(100).unwrap(), "GET / HTTP/1.1");
        assert_eq!(log.take(), [""; 0]);
        // Credentials of the proxy are the proxy's.
        let stranger = trusting.proxy(&via.replace("pass", "guess")).unwrap().build();
        let error = stranger.get(&format!("https://far.test:{}/", server.port)).send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::ProxyRefused(status) if status == 407), "{error}");
        assert_eq!(stranger.get("http://plain.test/").send().unwrap().status(), 407);
    });
}

#[test]
fn a_proxy_that_answers_nonsense_or_speaks_for_the_server_is_refused() {
    run(|| {
        for answer in
            ["HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03", "HTTP/1.1 502 No\r\n\r\n", "nonsense\r\n\r\n", ""]
        {
            let proxy = start(move |client, _| {
                read_head(&mut BufReader::new(&client));
                (&client).write_all(answer.as_bytes()).unwrap();
            });
            let client = Client::builder().proxy(&proxy.url).unwrap().build();
            let error = client.get("https://far.test/").send().map(drop).unwrap_err();
            assert!(!matches!(error, ClientError::Connect { .. }), "{answer:?}: {error}");
        }
        let unreachable = loopback::own_place();
        let client = Client::builder().proxy(&unreachable.to_string()).unwrap().build();
        let error = client.get("http://far.test/").send().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    });
}

#[test]
fn an_answer_of_101_hands_the_connection_over_with_what_was_read_ahead() {
    run(|| {
        let server = start(|client, _| {
            let request = read_head(&mut BufReader::new(&client)).unwrap();
            assert_eq!(request.header("upgrade"), Some("echo"));
            let answer =
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nahead";
            (&client).write_all(answer).unwrap();
            let mut buffer = [0; 100];
            while let Ok(count @ 1..) = (&client).read(&mut buffer) {
                (&client).write_all(&buffer[..count]).unwrap();
            }
        });
        let client = Client::new();
        let request = client.get(&server.url).header("Upgrade", "echo").header("Connection", "upgrade");
        let response = request.send().unwrap();
        assert_eq!(response.status(), 101);
        let (stream, ahead) = response.into_upgraded().unwrap();
        assert_eq!(ahead, b"ahead");
        stream.write_slices(&mut [std::io::IoSlice::new(b"hello")]).unwrap();
        let mut buffer = [0; 100];
        let count = stream.read_some(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"hello");
        assert_eq!(client.idle_connections(), 0);
        let plain = answering(|_| ok("x"));
        assert!(client.get(&plain.url).send().unwrap().into_upgraded().is_none());
    });
}
