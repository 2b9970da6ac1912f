//! Sends every line back to the client that sent it: the reactor in twenty lines.
//!
//! One coroutine a client; each reads, then writes, then reads again. Ctrl-C ends them all, wherever they wait.

#![forbid(unsafe_code)]

use std::io::{self, BufReader, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use reactor::net::{TcpListener, TcpStream};
use reactor::signals::{Signal, Signals};

/// The longest line that is echoed: a client that never ends its line is cut off here.
const LINE_LIMIT_BYTES: usize = 1024 * 1024;

/// Sends every line back to the client that sent it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let listen = Arguments::parse().listen;
    match reactor::run(|| serve_until_interrupted(listen)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo-server: can't serve at {listen}: {error}; choose another with --listen");
            ExitCode::FAILURE
        }
    }
}

fn serve_until_interrupted(listen: SocketAddr) -> io::Result<()> {
    let signals = Signals::new(&[Signal::Interrupt, Signal::Terminate])?;
    let listener = TcpListener::bind(listen)?;
    println!("echo-server listens at {}", listener.local_addr()?);
    reactor::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            reactor::spawn(move || serve(&client));
        }
    });
    signals.wait();
    Ok(())
}

fn serve(mut client: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    loop {
        let line = reactor::read_until(&mut reader, b'\n', LINE_LIMIT_BYTES)?;
        if line.is_empty() {
            return Ok(());
        }
        client.write_all(&line)?;
    }
}
