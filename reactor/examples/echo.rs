//! Sends every line back: one loop that accepts, one loop a client.
//!
//! `cargo run --example echo -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`.

use std::io::{self, Write};

use reactor::net::{LineReader, TcpListener, TcpStream};

/// The longest line that is echoed: a client that never ends its line is cut off here.
const LINE_LIMIT_BYTES: usize = 64 * 1024;

#[reactor::main]
fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("echo listens at {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept()?;
        // The handle is dropped: the client's coroutine goes on by itself until the client leaves. Where there is no memory
        // for another, this client is turned away and the others are served on.
        if let Err(error) = reactor::try_spawn(move || serve(&client)) {
            eprintln!("a client was turned away: {error}");
        }
    }
}

fn serve(mut client: &TcpStream) -> io::Result<()> {
    let mut lines = LineReader::new(client, LINE_LIMIT_BYTES);
    while let Some(line) = lines.next_line()? {
        client.write_all(line)?;
    }
    Ok(())
}
