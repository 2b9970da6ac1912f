//! What the stories about HTTP share: a raw client, and real programs as peers.

#![allow(dead_code, reason = "each story uses a part of it")]

#[path = "../skipped/mod.rs"]
mod skipped;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use reactor::http::{Server, ServerHandle};
use reactor::net::{TcpListener, TcpStream};

/// No answer takes that long, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Serves at a free port.
pub(crate) fn start(server: Server) -> (ServerHandle, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (server.start(listener), address)
}

/// Connects.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

/// Sends `request`, and reads to the end of the connection.
pub(crate) fn talk(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_ref()).unwrap();
    read_all(&mut stream)
}

/// Asks for `target` with `fields` (each with its line end), on a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str, fields: &str) -> String {
    talk(address, format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n"))
}

/// Reads to the end of the connection, which the server must bring about.
pub(crate) fn read_all(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = reactor::timeout(PATIENCE, || stream.read_to_end(&mut all));
    let text = String::from_utf8_lossy(&all).into_owned();
    read.unwrap_or_else(|_| panic!("the server does not end the connection after {text:?}")).unwrap();
    text
}

/// Reads until `end` has come.
pub(crate) fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    reactor::timeout(PATIENCE, || {
        while !String::from_utf8_lossy(&all).contains(end) {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the connection ended after {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..count]);
        }
    })
    .unwrap_or_else(|_| panic!("{end:?} does not come"));
    String::from_utf8_lossy(&all).into_owned()
}

/// The statuses of all responses in `answers`.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| {
            answer.get(..3).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answers:?}"))
        })
        .collect()
}

/// The body of the only response in `answer`.
pub(crate) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?} has no end of its head")).1
}

/// Whether `program` can be started; says loudly what is skipped if not.
pub(crate) fn have(program: &str, arguments: &[&str]) -> bool {
    let there = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !there {
        let arguments = arguments.join(" ");
        skipped::skipped(&format!("{program} {arguments} does not run here, so nothing is shown against it"));
    }
    there
}

/// Runs a program to its end, while the server serves.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    // Proxies of this machine's are not for our own servers.
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    reactor::offload(move || command.output()).unwrap()
}

/// As [`run`]; it must succeed. What it printed.
pub(crate) fn run_well(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}
