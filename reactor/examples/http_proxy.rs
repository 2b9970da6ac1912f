//! A forwarding proxy: plain requests are sent on, `CONNECT` becomes a tunnel.
//!
//! `cargo run --example http_proxy -- 127.0.0.1:7003`, then `curl --proxy http://127.0.0.1:7003 http://example.org/`.
//!
//! Bodies flow through in both directions and are never held as a whole. The proxy forwards for whoever reaches it:
//! let it listen where only you do.

use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use reactor::http::client::{Client, RedirectPolicy};
use reactor::http::{Headers, Method, Request, Response, Server, StatusCode, Upgraded};
use reactor::net::{Duplex, TcpListener, TcpStream};

const BUFFER_SIZE_BYTES: usize = 64 * 1024;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// What concerns one connection only, and not what lies behind it (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "expect",
];

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7003".to_owned());
    reactor::run(move || {
        let listener = TcpListener::bind(address)?;
        println!("http_proxy listens at {}", listener.local_addr()?);
        // A proxy passes redirects and compressed bodies on as they are.
        let client =
            Client::builder().redirects(RedirectPolicy { limit: 0, may_leave_tls: false }).gzip(false);
        let client = Rc::new(client.build());
        Server::new()
            .fallback(move |request| match request.method() {
                &Method::CONNECT => tunnel(request),
                _ => forward(&client, request),
            })
            .serve(listener)
    })
}

/// The fields that go along: neither those of this connection nor those that it names as its own.
fn end_to_end(headers: &Headers) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().filter(|(name, _)| {
        let is_ours = HOP_BY_HOP.iter().any(|hop| hop.eq_ignore_ascii_case(name));
        let is_proxys = name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("proxy-"));
        !is_ours && !is_proxys && !headers.has_token("connection", name)
    })
}

fn forward(client: &Client, request: &mut Request<'_>) -> io::Result<Response> {
    let url = request.head().target().to_owned();
    if !url.starts_with("http://") {
        return Ok(Response::of_status(StatusCode::BAD_REQUEST).closing());
    }
    let mut onward = client.request(request.method().clone(), &url);
    for (name, value) in end_to_end(request.headers()) {
        onward = onward.header(name, value);
    }
    let length = request.body().remaining();
    if length != Some(0) {
        onward = onward.stream(request.body(), length);
    }
    let mut answer = match onward.send() {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("{url}: {error}");
            return Ok(Response::of_status(StatusCode::BAD_GATEWAY));
        }
    };
    let mut headers = Headers::new();
    for (name, value) in end_to_end(answer.headers()) {
        headers.push(name, value).map_err(io::Error::other)?;
    }
    let status = answer.status();
    let length = answer.headers().get_str("content-length").and_then(|length| length.parse().ok());
    let mut copy = move |out: &mut dyn Write| io::copy(&mut answer, out).map(drop);
    let mut response = match length {
        Some(length) => Response::stream_of_length(length, move |out| copy(out)),
        None => Response::stream(move |out| copy(out)),
    };
    for (name, value) in headers.iter() {
        response = response.try_header(name, value).map_err(io::Error::other)?;
    }
    Ok(response.status(status))
}

fn tunnel(request: &Request<'_>) -> io::Result<Response> {
    let target = request.head().target().to_owned();
    let server = match reactor::timeout(CONNECT_TIME_MAX, || TcpStream::connect(target)) {
        Ok(Ok(server)) => server,
        Ok(Err(_)) => return Ok(Response::of_status(StatusCode::BAD_GATEWAY)),
        Err(_elapsed) => return Ok(Response::of_status(StatusCode::GATEWAY_TIMEOUT)),
    };
    Ok(Response::tunnel(move |client: Upgraded<'_>| {
        if (&server).write_all(&client.received).is_err() {
            return;
        }
        reactor::scope(|s| {
            s.spawn(|| copy(client.stream, &server));
            copy(&server, client.stream);
        });
    }))
}

/// Copies until `from` ends, then ends `to`. What breaks on one side is broken off on the other.
fn copy(from: &dyn Duplex, to: &dyn Duplex) {
    let mut buffer = vec![0; BUFFER_SIZE_BYTES];
    let result = loop {
        match from.read_some(&mut buffer) {
            Ok(0) => break to.end(),
            Ok(count) => match to.write_slices(&mut [io::IoSlice::new(&buffer[..count])]) {
                Ok(()) => {}
                Err(error) => break Err(error),
            },
            Err(error) => break Err(error),
        }
    };
    if result.is_err() {
        from.abort();
        to.abort();
    }
}
