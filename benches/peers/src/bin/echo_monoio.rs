//! The echo server on monoio: io_uring where the kernel has it, else its epoll driver.
//!
//! monoio has no `read_until` that gives its buffer back without a copy, so the loop over the owned buffer is
//! written out, which is also its cheapest form: the line is written back from the buffer it was read into.

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use peers::{BUFFER_SIZE_BYTES, LINE_SIZE_BYTES_MAX, listen_address};
use std::io;

fn main() -> io::Result<()> {
    let address = listen_address();
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().with_entries(4096).build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(address)?;
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input: Vec<u8> = Vec::with_capacity(BUFFER_SIZE_BYTES);
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let (count, buffer) = stream.read(input).await;
        input = buffer;
        if count? == 0 {
            return Ok(());
        }
        // The usual case: exactly one whole line, and nothing left over from before.
        if pending.is_empty() && input.last() == Some(&b'\n') {
            let (written, buffer) = stream.write_all(input).await;
            written?;
            input = buffer;
        } else {
            pending.extend_from_slice(&input);
            if let Some(end) = pending.iter().rposition(|&byte| byte == b'\n') {
                let rest = pending.split_off(end + 1);
                let (written, _) = stream.write_all(pending).await;
                written?;
                pending = rest;
            }
            if pending.len() > LINE_SIZE_BYTES_MAX {
                return Ok(());
            }
        }
        input.clear();
    }
}
