//! What the peers' programs share: their command line, and the size of their buffers.
//!
//! Every echo server here does the same work: accept, set `TCP_NODELAY`, and per connection read until a newline
//! into a buffer of the connection's own, write that line back, over and over until the client leaves.
//! Nothing here is part of the project; nothing of the project may depend on it.

use std::net::SocketAddr;
use std::process::exit;

/// The capacity of a connection's read buffer, the same for every server: a 4 KiB message fits, with room to spare,
/// so that none needs two reads where another needs one. 8 KiB is also what `std::io::BufReader` takes.
pub const BUFFER_SIZE_BYTES: usize = 8192;

/// The longest line that a server accepts before it gives the connection up.
pub const LINE_SIZE_BYTES_MAX: usize = 1 << 20;

/// Returns the address after `--listen`, which every echo server here takes and nothing else.
///
/// Ends the process with a message when there is none, or it is no address.
pub fn listen_address() -> SocketAddr {
    let usage = || -> ! {
        eprintln!("usage: {} --listen ADDRESS:PORT", std::env::args().next().unwrap_or_default());
        exit(2)
    };
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("--listen"), Some(address), None) => address.parse().unwrap_or_else(|_| usage()),
        _ => usage(),
    }
}
