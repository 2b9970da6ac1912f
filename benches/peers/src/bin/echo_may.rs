//! The echo server on `may`'s own sockets and poller, as its documentation writes one.
//!
//! One worker, as ours has: what differs is who decides when a coroutine runs.

use may::net::{TcpListener, TcpStream};
use peers::{BUFFER_SIZE_BYTES, LINE_SIZE_BYTES_MAX, listen_address};
use std::io::{self, BufRead, BufReader, Write};

fn main() -> io::Result<()> {
    may::config().set_workers(1);
    let listener = TcpListener::bind(listen_address())?;
    let accept = may::go!(move || -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept()?;
            may::go!(move || serve(stream));
        }
    });
    accept.join().expect("the accepting coroutine never panics")
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(BUFFER_SIZE_BYTES, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') || line.len() > LINE_SIZE_BYTES_MAX {
            return Ok(());
        }
        writer.write_all(&line)?;
    }
}
