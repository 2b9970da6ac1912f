//! A visit to the HTTP server, byte by byte: keep-alive, pipelining, bodies, nonsense, and leaving in the middle.
//!
//! By hand and not by a client library, since a library would not say half of a request.

use super::super::fate::Counts;
use super::super::servers::{HELLO, HTTP_BODY_SIZE_BYTES_MAX, Ports, filling};
use super::reset;
use crate::random::Random;
use reactor::net::TcpStream;
use std::io::{self, BufReader, Read, Write};

/// The longest line of a head that our server writes.
const HEAD_LINE_SIZE_BYTES_MAX: usize = 4096;

/// Some requests on one connection, and then away, in one way or another.
pub(super) fn visit(counts: &Counts, ports: &Ports, random: &Random) {
    let mut stream = TcpStream::connect(ports.http(random)).expect("the server listens");
    for _ in 0..random.below(8) {
        match random.below(3) {
            0 => {
                let count = 1 + random.below(8) as usize;
                let request = "GET /hello HTTP/1.1\r\nHost: soak\r\n\r\n";
                stream.write_all(request.repeat(count).as_bytes()).expect("the server reads");
                let mut reader = BufReader::new(&stream);
                for _ in 0..count {
                    let (status, body) = response(&mut reader).expect("the server answers");
                    assert!(status == 200 && body == HELLO.as_bytes(), "{status} {body:?}");
                }
            }
            _ => {
                let size = random.below(1 << random.below(19)) as usize;
                let body = filling(random.next(), size.min(HTTP_BODY_SIZE_BYTES_MAX));
                write!(stream, "POST /echo HTTP/1.1\r\nHost: soak\r\nContent-Length: {}\r\n\r\n", body.len())
                    .expect("the server reads");
                stream.write_all(&body).expect("the server reads");
                let (status, echoed) = response(&mut BufReader::new(&stream)).expect("the server answers");
                assert!(status == 200 && echoed == body, "the body differs from what was sent ({status})");
            }
        }
        if random.one_in(8) {
            reactor::sleep(random.time_below_ms(5));
        }
    }
    match random.below(5) {
        0 => drop(stream.write_all(b"GET /hel")),
        1 => drop(
            stream.write_all(b"POST /echo HTTP/1.1\r\nHost: soak\r\nContent-Length: 1000\r\n\r\nnot yet"),
        ),
        2 => {
            stream.write_all(b"GET \x01 nonsense\r\n\r\n").expect("the server reads");
            let (status, _) = response(&mut BufReader::new(&stream)).expect("the server says no");
            assert!((400..500).contains(&status), "nonsense was answered with {status}");
        }
        3 => reset(counts, &stream),
        _ => {}
    }
}

/// Reads a response with a length: its status and body.
fn response(reader: &mut BufReader<&TcpStream>) -> io::Result<(u16, Vec<u8>)> {
    let mut line = || -> io::Result<String> {
        let line = reactor::read_until(reader, b'\n', HEAD_LINE_SIZE_BYTES_MAX)?;
        match line.is_empty() {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(String::from_utf8_lossy(&line).trim_end().to_lowercase()),
        }
    };
    let wrong = || io::Error::other("the server's head is wrong");
    let status = line()?.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
    let mut length = 0;
    loop {
        let field = line()?;
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| wrong())?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status, body))
}
