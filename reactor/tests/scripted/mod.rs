//! An HTTP server whose every byte a test decides.
#![allow(dead_code)] // each story uses some of it

use std::cell::Cell;
use std::io::{BufReader, Read, Write};
use std::rc::Rc;

use reactor::net::{TcpListener, TcpStream};

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) port: u16,
    /// Connections so far.
    pub(crate) connections: Rc<Cell<usize>>,
}

/// A request as it came.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) line: String,
    /// In lower case, with their values.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Gives each connection, with its number, to a coroutine that runs `serve`.
pub(crate) fn start(serve: impl Fn(TcpStream, usize) + Clone + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Rc::new(Cell::new(0));
    let counted = connections.clone();
    reactor::spawn(move || {
        loop {
            let (client, _) = listener.accept().unwrap();
            let number = counted.get();
            counted.set(number + 1);
            let serve = serve.clone();
            reactor::spawn(move || serve(client, number));
        }
    });
    Server { url: format!("http://127.0.0.1:{port}"), port, connections }
}

/// As [`start`], where each request is answered with the bytes that `answer` gives.
pub(crate) fn answering(answer: impl Fn(&Request) -> Vec<u8> + Clone + 'static) -> Server {
    start(move |client, _| {
        let mut reader = BufReader::new(&client);
        while let Some(request) = read_request(&mut reader) {
            if (&client).write_all(&answer(&request)).is_err() {
                return;
            }
        }
    })
}

/// An answer of known length.
pub(crate) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// Reads a head; `None` at the end of the stream.
pub(crate) fn read_head(reader: &mut BufReader<impl Read>) -> Option<Request> {
    let line = read_line(reader)?;
    Some(Request { line, headers: read_fields(reader)?, ..Request::default() })
}

/// Reads a whole request; `None` at the end of the stream.
pub(crate) fn read_request(reader: &mut BufReader<impl Read>) -> Option<Request> {
    let mut request = read_head(reader)?;
    read_body(reader, &mut request)?;
    Some(request)
}

pub(crate) fn read_body(reader: &mut BufReader<impl Read>, request: &mut Request) -> Option<()> {
    if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&read_line(reader)?, 16).unwrap();
            if size == 0 {
                request.trailers = read_fields(reader)?;
                return Some(());
            }
            let start = request.body.len();
            request.body.resize(start + size, 0);
            reader.read_exact(&mut request.body[start..]).ok()?;
            assert_eq!(read_line(reader)?, "");
        }
    }
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()
}

fn read_line(reader: &mut BufReader<impl Read>) -> Option<String> {
    let line = reactor::read_until(reader, b'\n', 64 << 10).ok().filter(|line| !line.is_empty())?;
    let line = String::from_utf8(line).unwrap();
    Some(line.strip_suffix("\r\n").expect("a whole line").to_owned())
}

fn read_fields(reader: &mut BufReader<impl Read>) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Some(fields);
        }
        let (name, value) = line.split_once(": ").expect("a field");
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}
