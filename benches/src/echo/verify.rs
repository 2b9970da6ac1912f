//! Does it really echo? Asked of every server before it is measured.
//!
//! A server that wrote back whatever it read, without looking for the newline, would win the benchmark by doing
//! less; so would one that served one client at a time. Each question here is a way to cheat, or to be wrong.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long nothing must come after half a line.
const SILENCE: Duration = Duration::from_millis(30);
/// How long a reply may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the server at `address` for whole lines, half lines, many lines at once and a long one.
///
/// # Errors
/// Fails with what the server did wrong.
pub fn verify(address: SocketAddr) -> io::Result<()> {
    let mut half = connect(address)?;
    half.write_all(b"hel")?;
    half.set_read_timeout(Some(SILENCE))?;
    match half.read(&mut [0; 16]) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Ok(0) => return wrong("it closes a connection after half a line"),
        Ok(_) => return wrong("it replies before the newline"),
        Err(error) => return Err(error),
    }
    half.set_read_timeout(Some(PATIENCE))?;

    let mut other = connect(address)?;
    let line = b"another client is served while the first line is incomplete\n";
    exchange(&mut other, line, line)?;
    exchange(&mut half, b"lo\n", b"hello\n")?;
    exchange(&mut other, b"one\n\ntwo\nthree\n", b"one\n\ntwo\nthree\n")?;

    // Longer than any buffer at the start, shorter than the longest line that ours takes (64 KiB).
    let mut long = vec![b'x'; 60_000];
    long.push(b'\n');
    exchange(&mut other, &long, &long)?;

    other.write_all(b"no newline")?;
    other.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    other.read_to_end(&mut rest)?;
    if !rest.is_empty() && rest != b"no newline" {
        return wrong("it sends something else at the end");
    }
    Ok(())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends `message` and expects `reply`.
fn exchange(stream: &mut TcpStream, message: &[u8], reply: &[u8]) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut received = vec![0; reply.len()];
    // A message that the sockets cannot hold is written while its reply is read.
    std::thread::scope(|scope| {
        let written = scope.spawn(|| writer.write_all(message));
        stream.read_exact(&mut received)?;
        written.join().expect("writing does not panic")
    })?;
    match received == reply {
        true => Ok(()),
        false => wrong("it sends back other bytes than it got"),
    }
}

fn wrong<T>(what: &str) -> io::Result<T> {
    Err(io::Error::other(format!("this is no echo server: {what}")))
}
