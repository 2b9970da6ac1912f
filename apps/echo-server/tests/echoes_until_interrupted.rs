//! The server as its user runs it: lines come back, a disconnect harms nobody, Ctrl-C ends it cleanly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (Server, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_echo-server"))
        .args(["--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    (Server(child), address)
}

#[test]
fn lines_come_back_to_each_client_and_ctrl_c_ends_the_server() {
    let (mut server, address) = start();
    let mut clients: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        // In pieces, and two lines at once: framing is by the newline and nothing else.
        client.write_all(format!("client {n} ").as_bytes()).unwrap();
        client.write_all(b"says hello\nand more\n").unwrap();
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let mut reader = BufReader::new(&*client);
        let mut text = String::new();
        reader.read_line(&mut text).unwrap();
        reader.read_line(&mut text).unwrap();
        assert_eq!(text, format!("client {n} says hello\nand more\n"));
    }
    // One breaks off in the middle of a line; the rest is echoed as it is, and then the stream ends.
    let mut half = clients.pop().unwrap();
    half.write_all(b"half a line").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    half.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "half a line");

    let pid = server.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn a_line_without_end_is_cut_off_and_others_are_served_on() {
    let (_server, address) = start();
    let mut endless = TcpStream::connect(&address).unwrap();
    // Refused at the limit: the write fails once the server has closed the connection.
    while endless.write_all(&[b'a'; 4096]).is_ok() {}
    let mut polite = TcpStream::connect(&address).unwrap();
    polite.write_all(b"still there?\n").unwrap();
    let mut answer = String::new();
    BufReader::new(polite).read_line(&mut answer).unwrap();
    assert_eq!(answer, "still there?\n");
}

#[test]
fn a_taken_port_is_named_in_the_error() {
    let (_server, address) = start();
    let second =
        Command::new(env!("CARGO_BIN_EXE_echo-server")).args(["--listen", &address]).output().unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(error.contains(&address), "{error}");
}
