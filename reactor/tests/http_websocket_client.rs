//! WebSockets that our client opens by URL: at Python's `websockets`, plain and over TLS, with headers and protocols, and
//! through a proxy's tunnel; and servers that open none.

mod certificates;
mod http_support;
mod loopback;
mod scripted;

use std::cell::Cell;
use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use certificates::Authority;
use http_support::{PATIENCE, have};
use reactor::http::client::{Client, ClientError, CookieJar};
use reactor::http::{Cookie, Method, Request, Response, Server, WebSocket, WebSocketLimits, websocket};
use reactor::net::{TcpStream, tls};
use reactor::run;

/// Tells what it was asked, and then sends back what comes.
const SERVER: &str = r#"
import asyncio, ssl, sys
from websockets.asyncio.server import serve
async def handler(ws):
    await ws.send(f"{ws.request.path} {ws.request.headers.get('X-Token')} {ws.subprotocol}")
    async for message in ws:
        await ws.send(message)
async def main(host, port, *certificate):
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    def choose(connection, offered):
        return next((one for one in offered if one in ("chat.v1", "chat.v2")), None)
    async with serve(handler, host, int(port), ssl=context, select_subprotocol=choose):
        await asyncio.get_running_loop().create_future()
asyncio.run(main(*sys.argv[1:]))
"#;

/// Python, ended when dropped.
struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_python(certificate: &[&str]) -> (Python, SocketAddr) {
    let address = loopback::own_place();
    let child = Command::new("python3")
        .args(["-c", SERVER, &address.ip().to_string(), &address.port().to_string()])
        .args(certificate)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let python = Python(child);
    reactor::timeout(PATIENCE, || {
        while TcpStream::connect(address).is_err() {
            reactor::sleep(std::time::Duration::from_millis(20));
        }
    })
    .expect("Python starts to listen");
    (python, address)
}

/// What the server was asked, and whether it echoes.
fn heard(socket: &WebSocket<'_>) -> String {
    let Some(reactor::http::Message::Text(asked)) = socket.recv().unwrap() else {
        panic!("the server tells what it was asked")
    };
    for size in [0, 1, 125, 126, 65_536, 300_000] {
        socket.send("x".repeat(size)).unwrap();
        assert_eq!(socket.recv().unwrap(), Some("x".repeat(size).into()));
    }
    asked
}

#[test]
fn pythons_server_hears_our_headers_and_chooses_among_our_protocols() {
    if !have("python3", &["-c", "import websockets.asyncio.server"]) {
        return;
    }
    run(|| {
        let (_python, address) = start_python(&[]);
        let client = Client::new();
        let url = format!("ws://{address}/chat?room=1");
        let socket = client.websocket(&url).header("X-Token", "secret").protocol("other").protocol("chat.v1");
        let socket = socket.connect().unwrap();
        assert_eq!(socket.subprotocol(), Some("chat.v1"));
        assert_eq!(heard(&socket), "/chat?room=1 secret chat.v1");
        socket.close().unwrap();
        let socket = client.websocket(&url).connect().unwrap();
        assert_eq!((socket.subprotocol(), heard(&socket)), (None, "/chat?room=1 None None".into()));
        let socket = client.websocket(&url).protocol("strange").connect().unwrap();
        assert_eq!((socket.subprotocol(), heard(&socket)), (None, "/chat?room=1 None None".into()));
    });
}

#[test]
fn pythons_server_is_reached_over_tls_and_through_a_proxys_tunnel() {
    if !have("python3", &["-c", "import websockets.asyncio.server"]) {
        return;
    }
    run(|| {
        let authority = Authority::new();
        let issued = authority.issue(&["far.test"]);
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
        std::fs::write(&chain, &issued.chain).unwrap();
        std::fs::write(&key, &issued.key).unwrap();
        let (_python, secure) = start_python(&[chain.to_str().unwrap(), key.to_str().unwrap()]);
        let (_python, plain) = start_python(&[]);
        let (proxy, tunnels) = proxy(move |target| match target {
            "far.test:443" => secure,
            "plain.test:80" => plain,
            _ => panic!("nobody asked for {target}"),
        });
        let trust = tls::Client::with_roots(authority.pem.as_bytes()).unwrap();
        let client = Client::builder().tls(trust).proxy(&proxy).unwrap().build();
        // Neither name can be looked up here: the proxy has to do that. A plain one goes in a tunnel, too.
        for (url, count) in [("wss://far.test/a", 1), ("ws://plain.test/a", 2), ("WS://plain.test/a", 3)] {
            let socket = client.websocket(url).connect().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(heard(&socket), "/a None None");
            assert_eq!(tunnels.get(), count, "each has one of its own");
            socket.close().unwrap();
        }
        assert_eq!(client.idle_connections(), 0);
        let untrusting =
            Client::builder().tls(tls::Client::with_roots(Authority::new().pem.as_bytes()).unwrap());
        let untrusting = untrusting.proxy(&proxy).unwrap().build();
        let error = untrusting.websocket("wss://far.test/a").connect().map(drop).unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    });
}

/// A proxy that knows tunnels alone, its URL, and how many it has opened.
fn proxy(find: impl Fn(&str) -> SocketAddr + Clone + 'static) -> (String, Rc<Cell<usize>>) {
    let tunnels = Rc::new(Cell::new(0));
    let count = tunnels.clone();
    let server = scripted::start(move |client, _| {
        let Some(request) = scripted::read_request(&mut BufReader::new(&client)) else { return };
        let target = request.line.strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
        let far = TcpStream::connect(find(target.expect("a tunnel is asked for"))).unwrap();
        count.set(count.get() + 1);
        (&client).write_all(b"HTTP/1.1 200 Go ahead\r\n\r\n").unwrap();
        reactor::scope(|s| {
            s.spawn(|| pass(&client, &far));
            pass(&far, &client);
        });
    });
    (server.url, tunnels)
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn our_server_chooses_a_protocol_and_knows_its_client_by_a_cookie() {
    run(|| {
        let server = Server::new()
            .route(Method::GET, "/login", |_| {
                Response::text("in").cookie(Cookie::new("session", "1f").without_tls()).unwrap()
            })
            .route(Method::GET, "/chat", |request: &mut Request<'_>| {
                let who = request.cookie("session").unwrap_or("nobody").to_owned();
                let protocol = request.websocket_protocol(&["v1", "v2"]);
                let response =
                    websocket(request, WebSocketLimits::default(), move |socket| socket.send(&*who));
                match protocol {
                    Some(protocol) => response.header("Sec-WebSocket-Protocol", protocol),
                    None => response,
                }
            });
        let (_server, address) = http_support::start(server);
        let client = Client::builder().cookies(CookieJar::new()).build();
        let url = format!("ws://{address}/chat");
        let first = client.websocket(&url).protocol("v3").protocol("v2").protocol("v1").connect().unwrap();
        assert_eq!((first.subprotocol(), first.recv().unwrap()), (Some("v2"), Some("nobody".into())));
        client.get(&format!("http://{address}/login")).send().unwrap().text(100).unwrap();
        let second = client.websocket(&url).connect().unwrap();
        assert_eq!((second.subprotocol(), second.recv().unwrap()), (None, Some("1f".into())));
    });
}

#[test]
fn what_opens_no_websocket_is_told_and_what_is_none_is_not_asked() {
    run(|| {
        let server = scripted::answering(|_| scripted::ok("a page"));
        let client = Client::new();
        let url = server.url.replace("http", "ws");
        let error = client.websocket(&url).connect().map(drop).unwrap_err();
        assert!(matches!(&error, ClientError::NoWebSocket { status, .. } if *status == 200), "{error}");
        let with_path = format!("{}/chat?token=x", server.url);
        for bad in [server.url.as_str(), &with_path, "ftp://h/", "ws", " ws://h/", ""] {
            let error = client.websocket(bad).connect().map(drop).unwrap_err();
            assert!(matches!(&error, ClientError::InvalidUrl(_)), "{bad}: {error}");
        }
        for bad in ["", "a b", "a,b"] {
            let error = client.websocket(&url).protocol(bad).connect().map(drop).unwrap_err();
            assert!(matches!(&error, ClientError::InvalidHeader(_)), "{bad}: {error}");
        }
        assert_eq!(server.connections.get(), 1);
    });
}

#[test]
fn a_redirect_to_another_server_takes_no_token_there() {
    run(|| {
        let elsewhere = scripted::answering(|_| scripted::ok("told"));
        let location = format!("{}/chat", elsewhere.url);
        let server = scripted::answering(move |_| {
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
        });
        let client = Client::new();
        let url = server.url.replace("http", "ws");
        let socket = client.websocket(&url).protocol("token.of.mine").header("X-Token", "secret").connect();
        let error = socket.map(drop).unwrap_err();
        assert!(matches!(&error, ClientError::NoWebSocket { status, .. } if *status == 302), "{error}");
        assert_eq!((server.connections.get(), elsewhere.connections.get()), (1, 0));
        let error = client.websocket("http://h/chat").connect().map(drop).unwrap_err();
        assert!(error.to_string().contains("http://h/chat"), "it does not say what was asked for: {error}");
    });
}
