//! The same bytes to our server and to nginx: which requests are taken, which refused, and where we differ, why.
//!
//! Two servers behind each other that read the same bytes differently can be played against each other. So each difference
//! here is one that was looked at: on our side it is strictness, or a request that nobody can read in two ways. nginx reads
//! the whole body before it answers, as our handler does, and passes the request on.
//!
//! The table is printed by `cargo test -p reactor --test http_beside_nginx -- --nocapture`.

mod http_support;
mod loopback;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use http_support::{PATIENCE, connect, have, start, statuses};
use reactor::http::{Request, Response, Server};
use reactor::net::TcpStream;

/// What follows each request on its connection: it is answered only where the one before was taken, and its end found.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// What they are, and their bytes.
#[rustfmt::skip]
const REQUESTS: &[(&str, &[u8])] = &[
    ("plain", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("lf only", b"GET / HTTP/1.1\nHost: h\n\n"),
    ("lf one field", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\n\r\n"),
    ("cr in value", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n"),
    ("nul in value", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\x00c\r\n\r\n"),
    ("ctl in value", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\x01c\r\n\r\n"),
    ("8bit value", b"GET / HTTP/1.1\r\nHost: h\r\nA: \xe9\r\n\r\n"),
    ("empty line first", b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("two empty lines", b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("lf first", b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no host", b"GET / HTTP/1.1\r\n\r\n"),
    ("no host 1.0", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: h\r\nHost: g\r\n\r\n"),
    ("same host twice", b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
    ("empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("bad host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("host with slash", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("host with user", b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
    ("space before colon", b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n"),
    ("space before name", b"GET / HTTP/1.1\r\nHost: h\r\n A: b\r\n\r\n"),
    ("folded", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n"),
    ("no colon", b"GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n"),
    ("empty name", b"GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n"),
    ("bad name", b"GET / HTTP/1.1\r\nHost: h\r\nA(b: c\r\n\r\n"),
    ("underscore name", b"GET / HTTP/1.1\r\nHost: h\r\nA_b: c\r\n\r\n"),
    ("no space value", b"GET / HTTP/1.1\r\nHost: h\r\nA:b\r\n\r\n"),
    ("lower method", b"get / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("unknown method", b"FROB / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("bad method", b"G@T / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("space in target", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("tab in line", b"GET\x09/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("http/0.9", b"GET /\r\n"),
    ("http/1.2", b"GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
    ("http/2.0", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
    ("http/1.01", b"GET / HTTP/1.01\r\nHost: h\r\n\r\n"),
    ("lower http", b"GET / http/1.1\r\nHost: h\r\n\r\n"),
    ("trailing space line", b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
    ("absolute", b"GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("absolute other host", b"GET http://g/a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("relative target", b"GET a HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("star get", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("fragment", b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("8bit target", b"GET /\xe9 HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("bad percent", b"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("percent nul", b"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("dots", b"GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("dots out", b"GET /../b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
    ("length get", b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
    ("length plus", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc"),
    ("length minus", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -3\r\n\r\nabc"),
    ("length hex", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x3\r\n\r\nabc"),
    ("length empty", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n"),
    ("length list same", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc"),
    ("length twice same", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ("length twice other", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    ("length zeros", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0003\r\n\r\nabc"),
    ("length space", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3 \r\n\r\nabc"),
    ("length inner space", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1 3\r\n\r\nabc"),
    ("length huge", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\nabc"),
    ("chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked case", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked and length", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("gzip, chunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunked, identity", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("identity", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("xchunked", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n"),
    ("te vtab", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("te empty", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n"),
    ("chunked 1.0", b"POST / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunk ext", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n"),
    ("chunk ext lf", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n"),
    ("chunk size lf", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"),
    ("chunk end lf", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"),
    ("chunk space", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n"),
    ("chunk space before", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n"),
    ("chunk 0x", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    ("chunk minus", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n"),
    ("chunk longer", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"),
    ("chunk huge", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ("chunk zeros", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n003\r\nabc\r\n000\r\n\r\n"),
    ("trailer", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"),
    ("trailer length", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n"),
    ("trailer bad", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA b\r\n\r\n"),
    ("expect", b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"),
    ("expect other", b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-maybe\r\nContent-Length: 3\r\n\r\nabc"),
    ("connection close list", b"GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, close\r\n\r\n"),
    ("close 1.0", b"GET / HTTP/1.0\r\nHost: h\r\n\r\n"),
    ("upgrade h2c", b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    ("connect", b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
    ("trace", b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("options star", b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
];

/// Where we differ, and why.
#[rustfmt::skip]
const DIFFERENCES: &[(&str, &str)] = &[
    ("lf only", "a bare line feed ends no line: whoever takes it sees other fields than whoever does not"),
    ("lf one field", "as above"),
    ("lf first", "as above; empty lines before a request are passed over if they are CR LF"),
    ("ctl in value", "RFC 9110 section 5.5: no control characters in a value"),
    ("empty host", "RFC 9112 section 3.2 has it: a target without an authority"),
    ("host with user", "RFC 9110 section 4.2.4: no user in an authority, which may hide the host"),
    ("no colon", "a line of a head without a colon is no field; nginx passes over it"),
    ("bad name", "RFC 9110 section 5.1: a name is a token; nginx passes over the field"),
    ("lower method", "methods are tokens, of any case (RFC 9110 section 9.1): the handler sees one that it does not know"),
    ("two spaces", "one space between the parts of the request line (RFC 9112 section 3)"),
    ("trailing space line", "as above"),
    ("http/0.9", "HTTP/0.9 is not spoken"),
    ("http/1.2", "there is none"),
    ("http/1.01", "a version has two digits (RFC 9112 section 2.3)"),
    ("fragment", "a target has no fragment (RFC 9112 section 3.2)"),
    ("8bit target", "a target is ASCII"),
    ("bad percent", "the path is the handler's to decode, and what is no escape stands for itself"),
    ("percent nul", "as above: `param` may hold anything once decoded, and `Files` answers 404"),
    ("dots out", "the path is not changed, and nothing of it leads out of the directory of `Files`"),
    ("chunk ext lf", "a bare line feed ends no line"),
    ("chunk size lf", "as above"),
    ("chunk end lf", "as above"),
    ("chunk space", "no space after a chunk's size (RFC 9112 section 7.1)"),
    ("trailer length", "a trailer that would change the framing; nginx passes over all trailers"),
    ("trailer bad", "trailers are fields; nginx passes over whatever stands there"),
    ("expect other", "RFC 9110 section 10.1.1: 417 to what is not known"),
    ("connect", "the handler decides, and may open a tunnel"),
    ("trace", "the handler decides; without one it is 404 or 405"),
    ("options star", "RFC 9110 section 9.3.7: the server as a whole is asked"),
];

/// What became of a request, and of the one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Both are answered.
    Taken,
    /// It is answered, and the connection ends.
    TakenAsTheLast,
    Refused,
    /// Ended without an answer, or with something that is none.
    Strange,
}

fn fate(address: SocketAddr, request: &[u8]) -> Fate {
    let mut stream = connect(address);
    let _ = stream.write_all(&[request, NEXT].concat());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answers = Vec::new();
    // A reset after the answer says no more than an end.
    let _ = reactor::timeout(PATIENCE, || stream.read_to_end(&mut answers)).expect("the connection ends");
    let answers = String::from_utf8_lossy(&answers);
    let finals: Vec<u16> = statuses(&answers).into_iter().filter(|status| *status >= 200).collect();
    match finals[..] {
        [200..=299, 200] => Fate::Taken,
        [200] => Fate::TakenAsTheLast,
        [first, ..] if first >= 400 => Fate::Refused,
        _ => Fate::Strange,
    }
}

/// nginx, ended when dropped.
struct Nginx {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts nginx, which reads requests whole and answers 200.
fn start_nginx() -> (Nginx, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let address = loopback::own_place();
    let root = directory.path().display();
    let configuration = format!(
        "daemon off; master_process off; worker_processes 1; pid {root}/pid; error_log {root}/error crit;
         events {{ worker_connections 256; }}
         http {{
           access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
           fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
           server {{
             listen {address};
             location / {{
               proxy_pass http://unix:{root}/socket; proxy_http_version 1.1; proxy_ignore_client_abort on;
             }}
           }}
           server {{ listen unix:{root}/socket; location / {{ return 200 ok; }} }}
         }}"
    );
    let path = directory.path().join("nginx.conf");
    std::fs::write(&path, configuration).unwrap();
    let child = Command::new("nginx")
        .arg("-c")
        .arg(&path)
        .arg("-p")
        .arg(directory.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let nginx = Nginx { process: child, _directory: directory };
    reactor::timeout(PATIENCE, || {
        while TcpStream::connect(address).is_err() {
            reactor::sleep(std::time::Duration::from_millis(20));
        }
    })
    .expect("nginx starts to listen");
    (nginx, address)
}

#[test]
fn we_take_and_refuse_what_nginx_does_or_there_is_a_reason() {
    if !have("nginx", &["-v"]) {
        return;
    }
    reactor::run(|| {
        let server = Server::new().fallback(|request: &mut Request<'_>| -> io::Result<Response> {
            io::copy(request.body(), &mut io::sink())?;
            Ok("ok".into())
        });
        let (_server, ours) = start(server);
        let (_nginx, theirs) = start_nginx();
        let mut wrong = Vec::new();
        for (name, request) in REQUESTS {
            let (ours, theirs) = (fate(ours, request), fate(theirs, request));
            let reason = DIFFERENCES.iter().find(|(known, _)| known == name).map(|(_, reason)| *reason);
            println!("| {name} | {ours:?} | {theirs:?} | {} |", reason.unwrap_or_default());
            if (ours != theirs) != reason.is_some() {
                wrong.push(format!("{name}: {ours:?}, nginx {theirs:?}"));
            }
        }
        assert!(wrong.is_empty(), "differences without a reason, or reasons without one: {wrong:#?}");
        let unknown = DIFFERENCES.iter().find(|(name, _)| REQUESTS.iter().all(|(known, _)| known != name));
        assert_eq!(unknown, None, "a reason for no request");
    });
}
