//! UDP, and Unix-domain sockets of both kinds, as far as they differ from TCP.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use reactor::net::{UdpSocket, UnixDatagram, UnixListener, UnixStream};
use reactor::{now, run, spawn};

#[test]
fn udp_datagrams_keep_their_bounds_and_name_their_sender() {
    run(|| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let echo = spawn(move || {
            let mut buffer = [0u8; 2048];
            for _ in 0..3 {
                let (count, from) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&buffer[..count], from).unwrap();
            }
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for text in ["one", "", "three"] {
            client.send_to(text.as_bytes(), address).unwrap();
            let mut buffer = [0u8; 2048];
            let (count, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..count], from), (text.as_bytes(), address));
        }
        echo.join().unwrap();
    });
}

#[test]
fn a_udp_read_gives_up_at_its_deadline_and_works_on() {
    run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_read_deadline(Some(now() + Duration::from_millis(3)));
        assert_eq!(socket.recv_from(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        socket.set_read_deadline(None);
        socket.send_to(b"to myself", address).unwrap();
        let mut buffer = [0u8; 64];
        assert_eq!(socket.recv_from(&mut buffer).unwrap().0, 9);
    });
}

#[test]
fn a_unix_listener_serves_its_clients_and_half_a_close_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    run(|| {
        let listener = UnixListener::bind(&path).unwrap();
        spawn(move || {
            while let Ok(client) = listener.accept() {
                spawn(move || {
                    let mut text = String::new();
                    let mut client = client;
                    client.read_to_string(&mut text).unwrap();
                    client.write_all(text.to_uppercase().as_bytes()).unwrap();
                });
            }
        });
        for _ in 0..3 {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"hello").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "HELLO");
        }
        assert_eq!(UnixListener::bind(&path).err().unwrap().kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn unix_datagrams_arrive_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    run(|| {
        let named = UnixDatagram::bind(&path).unwrap();
        let (near, far) = UnixDatagram::pair().unwrap();
        near.send(b"first").unwrap();
        near.send(b"second").unwrap();
        let mut buffer = [0u8; 64];
        assert_eq!(far.recv(&mut buffer).unwrap(), 5);
        assert_eq!(far.recv(&mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"second");
        let other = UnixDatagram::bind(directory.path().join("other")).unwrap();
        other.send_to(b"by path", &path).unwrap();
        assert_eq!(named.recv(&mut buffer).unwrap(), 7);
    });
}

#[test]
fn two_coroutines_that_read_one_connection_each_get_whole_lines_in_turn() {
    run(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let reader = Rc::new(reactor::sync::Mutex::new(BufReader::new(near)));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = reader.clone();
                spawn(move || {
                    let mut reader = reader.lock(); // held across the read, which suspends
                    reactor::read_until(&mut *reader, b'\n', 100).unwrap()
                })
            })
            .collect();
        far.write_all(b"one\ntwo\n").unwrap();
        let lines: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert_eq!(lines, [b"one\n", b"two\n"]);
    });
}
