//! The server as its user runs it: lines come back, a disconnect harms nobody, Ctrl-C ends it cleanly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

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

    signal(&server, "-INT");
    assert!(server.0.wait().unwrap().success());
}

/// Lines that a client may still get back after Ctrl-C: what is done until the server looks for signals, which is 61 turns of
/// at most 64 lines each, and once more.
const LINES_AFTER_INTERRUPT_MAX: usize = 2 * 61 * 64;

const LINE: &[u8; 8] = b"1234567\n";

fn signal(server: &Server, name: &str) {
    let pid = server.0.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[test]
fn a_client_that_floods_it_and_reads_all_of_its_answers_does_not_keep_ctrl_c_from_ending_the_server() {
    let (mut server, address) = start();
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all(LINE).unwrap();
    client.read_exact(&mut [0; LINE.len()]).unwrap();
    // It finds both when it goes on: more lines than anybody waits for, and the signal.
    signal(&server, "-STOP");
    let state = format!("/proc/{}/stat", server.0.id());
    while !std::fs::read_to_string(&state).unwrap().contains(") T ") {
        thread::sleep(Duration::from_millis(1));
    }
    let lines = LINE.repeat(512);
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // A part of a line may be the last that there is room for: the next begins with its rest.
    while let Ok(count) = client.write(&lines[sent % LINE.len()..]) {
        sent += count;
    }
    assert!(sent / LINE.len() > 4 * LINES_AFTER_INTERRUPT_MAX, "there is room for {sent} bytes only");
    client.set_nonblocking(false).unwrap();
    signal(&server, "-INT");
    signal(&server, "-CONT");
    let mut writer = client.try_clone().unwrap();
    let floods = thread::spawn(move || while writer.write_all(&lines).is_ok() {});
    let (mut buffer, mut echoed) = (vec![0; 256 << 10], 0);
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        echoed += count / LINE.len();
        assert!(echoed <= LINES_AFTER_INTERRUPT_MAX, "it goes on: {echoed} lines after Ctrl-C");
    }
    assert!(server.0.wait().unwrap().success());
    floods.join().unwrap();
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
