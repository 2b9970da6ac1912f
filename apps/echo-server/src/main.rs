//! Sends every line back to the client that sent it: the reactor in twenty lines.
//!
//! One coroutine a client; each reads, then writes, then reads again. Ctrl-C ends them all, wherever they wait.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use reactor::net::{LineReader, TcpListener, TcpStream};
use reactor::signals::{Signal, Signals};

/// The longest line that is echoed: a client that never ends its line is cut off here.
const LINE_LIMIT_BYTES: usize = 1024 * 1024;

const USAGE: &str = "\
Sends every line back to the client that sent it.

Usage: echo-server [--listen ADDRESS:PORT]

  --listen ADDRESS:PORT  Where to listen [default: 127.0.0.1:7000]
  --help                 Print this
  --version              Print the version";

/// What the program was asked to do: by hand, since a parser of arguments would be more code than the reactor.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Serve(SocketAddr),
    Print(&'static str),
}

fn read_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 7000));
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        match (name, value) {
            ("--help" | "-h", None) => return Ok(Request::Print(USAGE)),
            ("--version" | "-V", None) => {
                return Ok(Request::Print(concat!("echo-server ", env!("CARGO_PKG_VERSION"))));
            }
            ("--listen", value) => {
                let value = value.or_else(|| arguments.next()).ok_or("--listen needs an ADDRESS:PORT")?;
                let address = value.parse();
                listen = address.map_err(|_| format!("{value} is no ADDRESS:PORT, as 127.0.0.1:7000 is"))?;
            }
            _ => return Err(format!("there is no {argument}")),
        }
    }
    Ok(Request::Serve(listen))
}

fn main() -> ExitCode {
    let listen = match read_arguments(std::env::args().skip(1)) {
        Ok(Request::Serve(listen)) => listen,
        Ok(Request::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("echo-server: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
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
            // Without memory for another stack a client is turned away, and the others are served on.
            let _ = reactor::try_spawn(move || serve(&client));
        }
    });
    signals.wait();
    Ok(())
}

fn serve(mut client: &TcpStream) -> io::Result<()> {
    let mut lines = LineReader::new(client, LINE_LIMIT_BYTES);
    while let Some(line) = lines.next_line()? {
        client.write_all(line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Request, String> {
        read_arguments(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn arguments_are_read_in_both_spellings_and_wrong_ones_refused() {
        let at = |address: &str| Ok(Request::Serve(address.parse().unwrap()));
        assert_eq!(read(&[]), at("127.0.0.1:7000"));
        assert_eq!(read(&["--listen", "[::1]:80"]), at("[::1]:80"));
        assert_eq!(read(&["--listen=0.0.0.0:1"]), at("0.0.0.0:1"));
        assert_eq!(read(&["--help"]), Ok(Request::Print(USAGE)));
        for wrong in [&["--listen"][..], &["--listen", "here"], &["--lisen", "[::1]:80"], &["[::1]:80"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
