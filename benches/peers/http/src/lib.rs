//! What the HTTP peers share: their command line and what they answer.
//!
//! `/plaintext` is a fixed body, `/json` an object that is serialised anew for every request, both with their
//! content type and length; whatever else a server adds (`Date`, `Server`) is its own habit and stays.

use std::net::SocketAddr;
use std::process::exit;

/// The body of `/plaintext`.
pub const PLAINTEXT: &str = "Hello, World!";

/// The body of `/json`.
#[derive(serde::Serialize)]
pub struct Message {
    /// [`PLAINTEXT`].
    pub message: &'static str,
}

/// Returns the body of `/json`, serialised now.
pub fn json() -> Vec<u8> {
    serde_json::to_vec(&Message { message: PLAINTEXT }).expect("a string serialises")
}

/// Returns the address after `--listen`; ends the process with a message when there is none.
pub fn listen_address() -> SocketAddr {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next().map(|address| address.parse())) {
        (Some("--listen"), Some(Ok(address))) => address,
        _ => {
            eprintln!("usage: {} --listen ADDRESS:PORT", std::env::args().next().unwrap_or_default());
            exit(2)
        }
    }
}
