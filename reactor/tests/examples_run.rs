//! Each program of `examples/` run as its reader would: as a process, talked to over its socket.
//!
//! An example that only compiles teaches what nobody has tried.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reactor::http::{Message, Method, Response, Server, WebSocket, WebSocketLimits};

/// A running example, killed on drop.
struct Example {
    process: Child,
    address: String,
}

impl Example {
    /// Starts it at a free port and waits for the line that ends with its address.
    fn start(name: &str, arguments: &[&str]) -> Example {
        let mut process =
            command(name).args(arguments).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
                panic!("{name}: {error}; `cargo test -p reactor` builds the examples")
            });
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(address.contains(':'), "{name} began with {line:?}");
        Example { process, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        // A hang becomes a failure that says where.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `cargo test` puts examples beside the directory of the tests' executables.
fn command(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    Command::new(tests.parent().unwrap().parent().unwrap().join("examples").join(name))
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

#[test]
fn echo_sends_every_line_back() {
    let echo = Example::start("echo", &["127.0.0.1:0"]);
    let mut client = echo.connect();
    client.write_all(b"one\ntwo\n").unwrap();
    let mut reader = BufReader::new(client);
    assert_eq!((line(&mut reader), line(&mut reader)), ("one\n".into(), "two\n".into()));
}

#[test]
fn chat_tells_everyone_but_the_one_who_spoke() {
    let chat = Example::start("chat", &["127.0.0.1:0"]);
    let mut ada = chat.connect();
    ada.write_all(b"Ada\n").unwrap();
    let mut ada_reads = BufReader::new(ada.try_clone().unwrap());
    let mut bob = chat.connect();
    bob.write_all(b"Bob\n").unwrap();
    assert_eq!(line(&mut ada_reads), "* Bob is here\n");
    ada.write_all(b"hello\n").unwrap();
    assert_eq!(line(&mut BufReader::new(&bob)), "Ada: hello\n");
    bob.shutdown(Shutdown::Both).unwrap();
    assert_eq!(line(&mut ada_reads), "* Bob has left\n");
}

#[test]
fn port_forwarder_passes_bytes_and_ends_both_ways() {
    let echo = Example::start("echo", &["127.0.0.1:0"]);
    let forwarder = Example::start("port_forwarder", &["127.0.0.1:0", &echo.address]);
    let mut client = forwarder.connect();
    let text = "a line that crosses two programs\n".repeat(10_000);
    let writer = std::thread::spawn({
        let (mut client, text) = (client.try_clone().unwrap(), text.clone());
        move || {
            client.write_all(text.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut back = String::new();
    client.read_to_string(&mut back).unwrap();
    writer.join().unwrap();
    assert_eq!(back, text);
}

#[test]
fn fsm_dialogue_takes_an_order_and_draws_itself() {
    let dialogue = Example::start("fsm_dialogue", &["127.0.0.1:0"]);
    let mut guest = dialogue.connect();
    let mut hears = BufReader::new(guest.try_clone().unwrap());
    for (heard, said) in [
        ("Tea or coffee?\n", "cake\n"),
        ("There is tea, and there is coffee.\n", ""),
        ("Tea or coffee?\n", "tea\n"),
        ("One tea. Is that right?\n", "no\n"),
        ("Tea or coffee?\n", "coffee\n"),
        ("One coffee. Is that right?\n", "yes\n"),
        ("Here is your coffee.\n", ""),
        ("", ""),
    ] {
        assert_eq!(line(&mut hears), heard);
        guest.write_all(said.as_bytes()).unwrap();
    }
    let drawn = command("fsm_dialogue").arg("--diagram").output().unwrap().stdout;
    let drawn = String::from_utf8(drawn).unwrap();
    assert!(drawn.starts_with("stateDiagram-v2"), "{drawn}");
    assert!(drawn.contains("confirming --> asking : error refused"), "{drawn}");
}

#[test]
fn http_proxy_forwards_requests_and_tunnels() {
    let server = Example::start("http_plaintext", &["0"]);
    let server = server.address.trim_start_matches("http://");
    let proxy = Example::start("http_proxy", &["127.0.0.1:0"]);
    let ask = |request: String| {
        let mut client = proxy.connect();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    };
    let plain =
        ask(format!("GET http://{server}/json HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"));
    assert!(
        plain.starts_with("HTTP/1.1 200 OK\r\n") && plain.ends_with("{\"message\":\"Hello, World!\"}"),
        "{plain}"
    );
    let inside = format!("GET /plaintext HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    let tunnelled = ask(format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n{inside}"));
    let (established, answer) = tunnelled.split_once("\r\n\r\n").unwrap();
    assert!(established.starts_with("HTTP/1.1 200 OK\r\n"), "{tunnelled}");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("Hello, World!"), "{tunnelled}");
    let nobody = ask("CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned());
    assert!(nobody.starts_with("HTTP/1.1 502 "), "{nobody}");
}

#[test]
fn crawler_finds_every_page_of_a_site_once() {
    let (address_sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        reactor::run(move || {
            let listener = reactor::net::TcpListener::bind("127.0.0.1:0").unwrap();
            address_sender.send(listener.local_addr().unwrap()).unwrap();
            let page = |links: &'static str| move |_: &mut reactor::http::Request<'_>| Response::html(links);
            Server::new()
                .route(
                    Method::GET,
                    "/",
                    page(r#"<a href="/a"> <a href="b#top"> <a href="http://other.invalid/">"#),
                )
                .route(Method::GET, "/a", page(r#"<a href="/"> <a href="/b"> <a href="/lost">"#))
                .route(Method::GET, "/b", page(r#"<a href="/a#end">"#))
                .serve(listener)
        })
    });
    let site = format!("http://{}/", address.recv().unwrap());
    let output = command("crawler").arg(&site).output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = listing.lines().collect();
    lines.sort_unstable();
    let expected = [
        format!("200 {site}"),
        format!("200 {site}a"),
        format!("200 {site}b"),
        "4 pages".into(),
        format!("404 {site}lost"),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn rpc_calculator_is_called_in_its_own_process_and_from_another() {
    let expected = "40 + 2 = 42\n84 / 2 = 42\n1 / 0: 1 cannot be divided by 0\n";
    let alone = command("rpc_calculator").output().unwrap();
    assert_eq!(String::from_utf8(alone.stdout).unwrap(), expected);

    let server = Example::start("rpc_calculator", &["serve", "127.0.0.1:0"]);
    let called = command("rpc_calculator").args(["call", &server.address]).output().unwrap();
    assert_eq!(String::from_utf8(called.stdout).unwrap(), expected);
}

#[test]
fn notes_are_everybodys_own_and_the_service_ends_in_order() {
    let mut notes = Example::start("notes", &["127.0.0.1:0"]);
    // One request a connection: the answer is what comes until its end.
    let ask = |method: &str, path: &str, cookie: &str, body: &str| {
        let mut client = notes.connect();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: notes\r\nConnection: close\r\nCookie: {cookie}\r\n");
        let body = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        client.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let cookie =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("set-cookie: ").map(str::to_owned));
        let cookie = cookie.map(|cookie| cookie.split(';').next().unwrap().to_owned());
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned(), cookie)
    };
    let (status, _, ada) = ask("POST", "/session", "", r#"{"name": "Ada"}"#);
    assert_eq!(status, "201");
    let (ada, bob) = (ada.unwrap(), ask("POST", "/session", "", r#"{"name": "Bob"}"#).2.unwrap());
    assert_ne!(ada, bob);
    for text in ["milk", "bread"] {
        assert_eq!(ask("POST", "/notes", &ada, &format!(r#"{{"text": "{text}"}}"#)).0, "201");
    }
    assert_eq!(ask("GET", "/notes", &ada, "").1, r#"[{"text":"milk"},{"text":"bread"}]"#);
    assert_eq!(ask("GET", "/notes", &bob, "").1, "[]");
    assert_eq!(ask("DELETE", "/notes/0", &ada, "").0, "204");
    assert_eq!(ask("GET", "/notes", &ada, "").1, r#"[{"text":"bread"}]"#);
    // What is wrong is told by the status.
    for (method, path, cookie, body, status) in [
        ("GET", "/notes", "session=guessed", "", "401"),
        ("POST", "/session", "", r#"{"name": " "}"#, "422"),
        ("POST", "/session", "", "{", "400"),
        ("DELETE", "/notes/7", &ada[..], "", "404"),
        ("PUT", "/notes", &ada[..], "", "405"),
    ] {
        assert_eq!(ask(method, path, cookie, body).0, status, "{method} {path}");
    }
    let pid = notes.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(notes.process.wait().unwrap().success(), "an orderly end");
}

#[test]
fn websocket_chat_tells_everyone_who_comes_speaks_and_leaves() {
    let chat = Example::start("websocket_chat", &["127.0.0.1:0"]);
    let address: std::net::SocketAddr = chat.address.parse().unwrap();
    reactor::run(move || {
        let join = || {
            let stream = reactor::net::TcpStream::connect_one(address).unwrap();
            WebSocket::connect(stream, "localhost", "/chat", WebSocketLimits::default()).unwrap()
        };
        let hear = |socket: &WebSocket<'_>| {
            let heard = reactor::timeout(Duration::from_secs(20), || socket.recv()).unwrap();
            match heard.unwrap() {
                Some(Message::Text(text)) => text,
                other => panic!("heard {other:?}"),
            }
        };
        let ada = join();
        assert_eq!(hear(&ada), "guest 1 is here");
        let bob = join();
        assert_eq!((hear(&ada), hear(&bob)), ("guest 2 is here".into(), "guest 2 is here".into()));
        bob.send("hello").unwrap();
        assert_eq!((hear(&ada), hear(&bob)), ("guest 2: hello".into(), "guest 2: hello".into()));
        bob.close().unwrap();
        assert_eq!(hear(&ada), "guest 2 has left");
    });
}

#[test]
fn peer_calls_another_by_its_id_through_a_relay_and_finds_the_direct_way() {
    let start = |arguments: &[&str]| {
        let mut process = command("peer").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        // It says more later: its end of the pipe stays open.
        let said = line(&mut BufReader::new(process.stdout.as_mut().unwrap()));
        let words: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
        (Example { process, address: words.last().unwrap().clone() }, words)
    };
    let (relay, words) = start(&["relay", "127.0.0.1:0"]);
    let (_listener, heard) = start(&["listen", &relay.address, &words[1]]);
    let called = command("peer").args(["call", &relay.address, &words[1], &heard[2], "60"]).output().unwrap();
    let said = String::from_utf8(called.stdout).unwrap();
    assert!(said.contains("first answer after") && said.contains("direct to 127.0.0.1:"), "{said:?}");
}
