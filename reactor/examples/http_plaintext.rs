//! The smallest of servers, for measuring: `/plaintext` and `/json`, whole HTTP/1.1 around them.
//!
//! `cargo run --release --example http_plaintext -- 8080`, then `wrk http://127.0.0.1:8080/plaintext`.

use std::error::Error;
use std::io;

use reactor::http::{Method, Request, Response, Server};
use reactor::net::TcpListener;
use serde::Serialize;

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(8080), |port| port.parse::<u16>())?;
    let served: io::Result<()> = reactor::run(move || {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        println!("listening on http://{}", listener.local_addr()?);
        Server::new()
            .route(Method::GET, "/plaintext", |_| "Hello, World!")
            .route(Method::GET, "/json", json)
            .serve(listener)
    });
    Ok(served?)
}

#[derive(Serialize)]
struct Message {
    message: &'static str,
}

fn json(request: &mut Request<'_>) -> io::Result<Response> {
    // The memory of this connection's last response.
    let mut body = request.buffer();
    serde_json::to_writer(&mut body, &Message { message: "Hello, World!" })?;
    Ok(Response::json(body))
}
