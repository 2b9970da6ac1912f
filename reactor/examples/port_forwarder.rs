//! Forwards each connection to another address, both ways at once.
//!
//! `cargo run --example port_forwarder -- 127.0.0.1:7001 127.0.0.1:7000`
//!
//! The end of one direction is passed on and leaves the other open, as `ssh` and `git` need it.

use std::io::{self, ErrorKind};
use std::net::Shutdown;

use reactor::net::{Duplex, TcpListener, TcpStream};

const BUFFER_SIZE_BYTES: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(target)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "usage: port_forwarder LISTEN TARGET"));
    };
    reactor::run(move || {
        let listener = TcpListener::bind(listen)?;
        println!("port_forwarder listens at {}", listener.local_addr()?);
        loop {
            let (client, from) = listener.accept()?;
            let target = target.clone();
            let begun = reactor::try_spawn(move || {
                if let Err(error) = forward(&client, target) {
                    eprintln!("{from}: {error}");
                }
            });
            if let Err(error) = begun {
                eprintln!("{from} was turned away: {error}");
            }
        }
    })
}

fn forward(client: &TcpStream, target: String) -> io::Result<()> {
    let server = &TcpStream::connect(target)?;
    // Both borrow the two sockets; the scope ends when both directions have ended.
    reactor::scope(|s| {
        let upward = s.spawn(|| copy(client, server));
        let downward = copy(server, client);
        upward.join().map_err(io::Error::other)?.and(downward)
    })
}

/// Copies until `from` ends, then ends `to` as well. If either breaks, both do: the other direction must not wait on.
fn copy(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    copy_until_the_end(from, to).inspect_err(|_| {
        from.abort();
        to.abort();
    })
}

fn copy_until_the_end(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE_BYTES];
    loop {
        let count = from.read_some(&mut buffer)?;
        if count == 0 {
            return to.shutdown(Shutdown::Write);
        }
        io::Write::write_all(&mut &*to, &buffer[..count])?;
    }
}
