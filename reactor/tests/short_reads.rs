//! A read that gives less than it was asked for does not always mean that nothing is left.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use reactor::net::{TcpListener, TcpStream};
use reactor::process::PipeReader;
use reactor::{run, sleep, timeout};
use rustix::net::{SendFlags, send};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_terminal_gives_line_by_line_all_that_was_typed_ahead() {
    run(|| {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let terminal = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
        rustix::io::write(&controller, b"one\ntwo\nthree\n").unwrap();
        let mut reader = BufReader::new(PipeReader::new(terminal).unwrap());
        for expected in ["one\n", "two\n", "three\n"] {
            let mut line = String::new();
            let read = timeout(LONG, || reader.read_line(&mut line));
            assert!(matches!(read, Ok(Ok(_))), "{expected:?} never came");
            assert_eq!(line, expected);
        }
    });
}

#[test]
fn what_lies_behind_an_urgent_byte_is_read_without_waiting_for_more() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        client.write_all(b"before").unwrap();
        send(client.as_fd(), b"!", SendFlags::OOB).unwrap();
        client.write_all(b"behind").unwrap();
        sleep(Duration::from_millis(5)); // most of the time all of it has come by then; it may also come later
        let mut all = Vec::new();
        let read = timeout(LONG, || {
            while all.len() < 12 {
                let mut buffer = [0; 100];
                let count = served.read(&mut buffer).unwrap();
                all.extend_from_slice(&buffer[..count]);
            }
        });
        assert!(read.is_ok(), "only {:?} came", String::from_utf8_lossy(&all));
        assert_eq!(all, b"beforebehind");
    });
}

#[test]
fn a_pipe_of_packets_is_read_packet_by_packet() {
    run(|| {
        let flags = rustix::pipe::PipeFlags::DIRECT | rustix::pipe::PipeFlags::CLOEXEC;
        let (reader, writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe_with(flags).unwrap();
        ["one", "two"]
            .iter()
            .for_each(|packet| assert_eq!(rustix::io::write(&writer, packet.as_bytes()), Ok(3)));
        let mut reader = PipeReader::new(reader).unwrap();
        for expected in [b"one", b"two"] {
            let mut buffer = [0; 100];
            let read = timeout(LONG, || reader.read(&mut buffer));
            assert!(matches!(read, Ok(Ok(3))), "{read:?}");
            assert_eq!(&buffer[..3], expected);
        }
    });
}
