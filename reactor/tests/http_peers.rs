//! Our server and the programs that the world uses: curl, wrk, Python's requests, a browser, nginx in front.

mod http_support;
mod loopback;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_support::{PATIENCE, connect, get, have, read_until, run_well, start, statuses};
use reactor::http::{
    Event, Limits, Method, Request, Response, Server, ServerHandle, WebSocketLimits, events, websocket,
};
use reactor::net::TcpStream;

/// Everything that a peer below asks for.
fn everything() -> Server {
    Server::new()
        .route(Method::GET, "/", |_| "hello")
        .route(Method::POST, "/echo", |request: &mut Request<'_>| -> io::Result<Response> {
            Ok(request.read_body(32 << 20)?.into())
        })
        .route(Method::PUT, "/stream", |_| Response::exchange(|body, out| io::copy(body, out).map(drop)))
        .route(Method::GET, "/count", |_| {
            Response::stream(|out| {
                for number in 0..20_000 {
                    writeln!(out, "{number}")?;
                }
                out.trailer("Count", "20000").map_err(io::Error::other)
            })
        })
        .route(Method::GET, "/who", |request| {
            let forwarded = request.header("x-forwarded-for").unwrap_or("nobody");
            format!("{forwarded} {} {}", request.head().minor_version(), request.peer().is_some())
        })
        .route(Method::GET, "/moved", |_| Response::redirect("/").unwrap())
        .route(Method::GET, "/chat", |request| {
            websocket(request, WebSocketLimits::default(), |socket| {
                while let Some(message) = socket.recv()? {
                    socket.send(message)?;
                }
                Ok(())
            })
        })
        .route(Method::GET, "/events", |_| {
            events(|out| {
                for number in 0..3 {
                    out.send(
                        &Event::new(format!("line {number}\nsecond")).name("tick").id(number.to_string()),
                    )?;
                }
                // The page closes; it would connect again otherwise.
                while out.keep_alive().is_ok() {
                    reactor::sleep(Duration::from_millis(20));
                }
                Ok(())
            })
        })
        .route(Method::GET, "/page", |_| Response::html(PAGE))
}

const PAGE: &str = r#"<!doctype html><title>hypha</title><body><pre id=log></pre><script>
const log = text => document.getElementById("log").append(text + "\n");
(async () => {
    log(await (await fetch("/echo", { method: "POST", body: "posted" })).text());
    log((await (await fetch("/count")).text()).length);
    await new Promise(done => {
        const socket = new WebSocket(`ws://${location.host}/chat`);
        socket.onopen = () => socket.send("over the socket");
        socket.onmessage = event => { log(event.data); socket.close(1000); };
        socket.onclose = event => { log(`closed ${event.code} ${event.wasClean}`); done(); };
    });
    await new Promise(done => {
        const source = new EventSource("/events");
        source.addEventListener("tick", event => {
            log(`${event.lastEventId}: ${event.data.replace("\n", "/")}`);
            if (event.lastEventId === "2") { source.close(); done(); }
        });
    });
    // It tells the test itself: a browser that prints a page does not wait for its sockets.
    await fetch("/told", { method: "POST", body: document.getElementById("log").textContent });
})();
</script>"#;

#[test]
fn curl_gets_posts_pipes_and_keeps_the_connection() {
    if !have("curl", &["--version"]) {
        return;
    }
    reactor::run(|| {
        let (_server, address) = start(everything());
        let url = |path: &str| format!("http://{address}{path}");
        let curl = |arguments: &[&str]| run_well("curl", &[&["-sS", "--fail"], arguments].concat());
        assert_eq!(curl(&[&url("/")]), "hello");
        assert_eq!(curl(&["--http1.0", &url("/")]), "hello");
        assert_eq!(curl(&["-L", &url("/moved")]), "hello");
        // Three on one connection, which curl's count of connects shows.
        let connects = curl(&["-o", "/dev/null", "-w", "%{num_connects} ", &url("/"), &url("/"), &url("/")]);
        assert!(connects.ends_with("1 0 0 ") || connects.trim_end().ends_with('0'), "{connects}");

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("body");
        let content: String = (0..300_000).map(|number| format!("{number} ")).collect();
        std::fs::write(&file, &content).unwrap();
        let from_file = format!("@{}", file.display());
        // Large: curl expects 100 Continue first. Chunked. Streamed through, both directions at once.
        assert!(curl(&["--data-binary", &from_file, &url("/echo")]) == content);
        let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &from_file, &url("/echo")];
        assert!(curl(&chunked) == content);
        assert!(curl(&["-T", file.to_str().unwrap(), &url("/stream")]) == content);
        let counted = curl(&["--raw", "-i", &url("/count")]);
        assert!(
            counted.contains("Transfer-Encoding: chunked") && counted.ends_with("0\r\nCount: 20000\r\n\r\n")
        );
        let options = curl(&["-i", "-X", "OPTIONS", &url("/echo")]);
        assert!(options.contains("Allow: POST, OPTIONS"), "{options}");
        let head = curl(&["-I", &url("/")]);
        assert!(head.contains("Content-Length: 5"), "{head}");
        let missing = run_well("curl", &["-sS", "-o", "/dev/null", "-w", "%{http_code}", &url("/none")]);
        assert_eq!(missing, "404");
    });
}

#[test]
fn python_requests_uses_sessions_streams_and_large_bodies() {
    if !have("python3", &["-c", "import requests"]) {
        return;
    }
    let script = r#"
import requests, sys
url = sys.argv[1]
s = requests.Session(); s.trust_env = False
for _ in range(20): assert s.get(url + "/").text == "hello"
body = b"0123456789" * 300000
assert s.post(url + "/echo", data=body).content == body
assert s.post(url + "/echo", data=iter([b"one", b"two" * 10000, b"three"])).content == b"one" + b"two" * 10000 + b"three"
assert s.put(url + "/stream", data=iter([b"x" * 1000] * 500)).content == b"x" * 500000
lines = sum(1 for _ in s.get(url + "/count", stream=True).iter_lines()); assert lines == 20000, lines
assert s.get(url + "/moved").history[0].status_code == 302
assert s.delete(url + "/").headers["Allow"] == "GET, HEAD, OPTIONS"
assert s.head(url + "/").headers["Content-Length"] == "5"
print("fine")
"#;
    reactor::run(move || {
        let (_server, address) = start(everything());
        assert_eq!(run_well("python3", &["-c", script, &format!("http://{address}")]), "fine\n");
    });
}

#[test]
fn wrk_finds_no_error_with_many_connections() {
    if !have("sh", &["-c", "command -v wrk"]) {
        return;
    }
    reactor::run(|| {
        let (server, address) = start(everything());
        let report = run_well("wrk", &["-t1", "-c64", "-d1s", &format!("http://{address}/")]);
        assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
        assert!(report.contains("requests in"), "{report}");
        while server.connection_count() > 0 {
            reactor::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn a_page_in_a_browser_fetches_talks_and_listens() {
    if !have("chromium", &["--version"]) {
        return;
    }
    reactor::run(|| {
        let (told, page) = reactor::sync::channel(1);
        let server = everything().route(Method::POST, "/told", move |request| -> io::Result<Response> {
            let text = String::from_utf8_lossy(&request.read_body(4096)?).into_owned();
            told.send(text).map_err(io::Error::other)?;
            Ok(Response::empty())
        });
        let (_server, address) = start(server);
        let profile = tempfile::tempdir().unwrap();
        // Killed when dropped, with all the processes it starts.
        let _browser = reactor::process::Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-proxy-server",
                // Else it leaves as soon as the page is loaded, whatever the page still does.
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("http://{address}/page"))
            .stdin(reactor::process::Stdio::Null)
            .stdout(reactor::process::Stdio::Null)
            .stderr(reactor::process::Stdio::Null)
            .own_group()
            .spawn()
            .unwrap();
        let told = reactor::timeout(PATIENCE, || page.recv()).expect("the page tells in time").unwrap();
        let expected = "posted\n108890\nover the socket\nclosed 1000 true\n\
                        0: line 0/second\n1: line 1/second\n2: line 2/second\n";
        assert_eq!(told, expected);
    });
}

/// nginx, ended when dropped.
struct Nginx {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts nginx before `upstream`, at a place of its own.
fn start_nginx(upstream: SocketAddr) -> (Nginx, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let address = loopback::own_place();
    let root = directory.path().display();
    let configuration = format!(
        "daemon off; master_process off; worker_processes 1; pid {root}/pid; error_log {root}/error warn;
         events {{ worker_connections 256; }}
         http {{
           access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
           fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
           client_max_body_size 64m;
           upstream ours {{ server {upstream}; keepalive 8; }}
           map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
           server {{
             listen {address};
             location / {{
               proxy_pass http://ours; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
               proxy_set_header Connection $connection_upgrade; proxy_set_header Upgrade $http_upgrade;
               proxy_set_header Host {address}; proxy_set_header X-Forwarded-For $remote_addr;
             }}
           }}
         }}"
    );
    let path = directory.path().join("nginx.conf");
    std::fs::write(&path, configuration).unwrap();
    let child = Command::new("nginx")
        .arg("-c")
        .arg(&path)
        .arg("-p")
        .arg(directory.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let nginx = Nginx { process: child, _directory: directory };
    reactor::timeout(PATIENCE, || {
        while TcpStream::connect(address).is_err() {
            reactor::sleep(Duration::from_millis(20));
        }
    })
    .expect("nginx starts to listen");
    (nginx, address)
}

#[test]
fn nginx_in_front_keeps_its_connections_to_us() {
    if !have("nginx", &["-v"]) || !have("curl", &["--version"]) {
        return;
    }
    reactor::run(|| {
        let (server, upstream) = start(everything());
        let (_nginx, address) = start_nginx(upstream);
        let url = |path: &str| format!("http://{address}{path}");
        for _ in 0..30 {
            assert_eq!(statuses(&get(address, "/", "")), [200]);
        }
        assert!(
            server.connection_count() <= 8,
            "{} connections for one at a time",
            server.connection_count()
        );
        assert_eq!(run_well("curl", &["-sS", &url("/who")]), "127.0.0.1 1 true");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("body");
        std::fs::write(&file, vec![b'n'; 3_000_000]).unwrap();
        let sent = run_well("curl", &["-sS", "--fail", "-T", file.to_str().unwrap(), &url("/stream")]);
        assert_eq!(sent.len(), 3_000_000);
        assert_eq!(run_well("curl", &["-sS", "--fail", &url("/count")]).lines().count(), 20_000);
        // An upgrade goes through, too.
        let socket = reactor::http::WebSocket::connect(
            connect(address),
            &address.to_string(),
            "/chat",
            WebSocketLimits::default(),
        )
        .unwrap();
        socket.send("through nginx").unwrap();
        assert_eq!(socket.recv().unwrap(), Some("through nginx".into()));
        socket.close().unwrap();
    });
}

#[test]
fn nginx_in_front_loses_no_request_when_we_drain() {
    if !have("nginx", &["-v"]) {
        return;
    }
    reactor::run(|| {
        let server = Server::new().route(Method::GET, "/", |_| {
            reactor::sleep(Duration::from_millis(100));
            "done"
        });
        let (server, upstream): (ServerHandle, _) = start(server.limits(Limits::default()));
        let (_nginx, address) = start_nginx(upstream);
        let clients: Vec<_> = (0..10)
            .map(|_| {
                reactor::spawn(move || {
                    let mut stream = connect(address);
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
                    read_until(&mut stream, "done")
                })
            })
            .collect();
        while server.connection_count() < 10 {
            reactor::sleep(Duration::from_millis(1));
        }
        assert_eq!(server.drain(PATIENCE), 0);
        for client in clients {
            assert_eq!(statuses(&client.join().unwrap()), [200]);
        }
    });
}
