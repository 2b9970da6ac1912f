//! What can be set on sockets, both halves of a close, and vectored reads and writes.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use reactor::net::{
    BindOptions, Duplex, Keepalive, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream,
};
use reactor::{now, run, spawn};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
fn keepalive_is_off_until_set_and_reads_back() {
    run(|| {
        let (near, _far) = pair();
        assert_eq!(near.keepalive().unwrap(), None);
        let keepalive = Keepalive { idle: Duration::from_secs(7), ..Keepalive::default() };
        near.set_keepalive(Some(keepalive)).unwrap();
        assert_eq!(near.keepalive().unwrap(), Some(keepalive));
        near.set_keepalive(None).unwrap();
        assert_eq!(near.keepalive().unwrap(), None);
    });
}

#[test]
fn nagles_delay_is_off_at_both_ends_until_asked_for() {
    run(|| {
        let (near, far) = pair();
        assert!(near.nodelay().unwrap() && far.nodelay().unwrap());
        near.set_nodelay(false).unwrap();
        assert!(!near.nodelay().unwrap());
    });
}

#[test]
fn buffer_sizes_are_what_was_asked_for_at_least() {
    run(|| {
        let options = BindOptions { receive_buffer_bytes: Some(64 << 10), ..BindOptions::default() };
        let listener = TcpListener::bind_with("127.0.0.1:0", &options).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert!(far.receive_buffer_size().unwrap() >= 64 << 10, "accepted connections inherit it");
        near.set_send_buffer_size(32 << 10).unwrap();
        assert!((32 << 10..1 << 20).contains(&near.send_buffer_size().unwrap()));
        let udp = UdpSocket::bind_with("127.0.0.1:0", &options).unwrap();
        assert!(udp.receive_buffer_size().unwrap() >= 64 << 10);
        let (unix, _other) = UnixStream::pair().unwrap();
        unix.set_send_buffer_size(16 << 10).unwrap();
        assert!((16 << 10..1 << 20).contains(&unix.send_buffer_size().unwrap()));
    });
}

#[test]
fn a_port_is_shared_only_by_those_who_all_say_so() {
    run(|| {
        let shared = BindOptions { reuse_port: true, ..BindOptions::default() };
        let first = TcpListener::bind_with("127.0.0.1:0", &shared).unwrap();
        let address = first.local_addr().unwrap();
        let _second = TcpListener::bind_with(address, &shared).unwrap();
        assert_eq!(TcpListener::bind(address).map(drop).unwrap_err().kind(), ErrorKind::AddrInUse);
        let udp = UdpSocket::bind_with("127.0.0.1:0", &shared).unwrap();
        let _other = UdpSocket::bind_with(udp.local_addr().unwrap(), &shared).unwrap();
    });
}

#[test]
fn an_address_may_be_taken_again_right_after_its_connections_were_closed() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).unwrap();
        // Our side closes first, and so keeps the port in TIME_WAIT.
        drop(listener.accept().unwrap());
        assert_eq!((&near).read(&mut [0]).unwrap(), 0);
        drop((near, listener));
        TcpListener::bind(address).unwrap();
    });
}

#[test]
fn an_ipv6_listener_can_leave_ipv4_to_others() {
    run(|| {
        let options = BindOptions { only_v6: Some(true), ..BindOptions::default() };
        let v6 = TcpListener::bind_with("[::]:0", &options).unwrap();
        let port = v6.local_addr().unwrap().port();
        let v4 = TcpListener::bind(("0.0.0.0", port)).unwrap();
        let near = TcpStream::connect(("127.0.0.1", port)).unwrap();
        v4.accept().unwrap();
        drop(near);
    });
}

#[test]
fn the_kernel_tells_who_is_at_the_other_end_of_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    run(|| {
        let listener = UnixListener::bind(&path).unwrap();
        let near = UnixStream::connect(&path).unwrap();
        let far = listener.accept().unwrap();
        for credentials in [near.peer_credentials().unwrap(), far.peer_credentials().unwrap()] {
            assert_eq!(credentials.pid, std::process::id());
            assert_eq!(credentials.uid, rustix::process::geteuid().as_raw());
            assert_eq!(credentials.gid, rustix::process::getegid().as_raw());
        }
    });
}

#[test]
fn after_half_a_close_the_other_half_carries_on_in_either_direction() {
    run(|| {
        for closer in 0..2 {
            let (near, far) = pair();
            let ends = [near, far];
            let (closing, open) = (&ends[closer], &ends[1 - closer]);
            let mut closing = closing;
            closing.write_all(b"all I have to say").unwrap();
            closing.shutdown(Shutdown::Write).unwrap();
            assert_eq!(closing.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
            let mut open = open;
            let mut text = String::new();
            open.read_to_string(&mut text).unwrap();
            assert_eq!(text, "all I have to say");
            // Long after its peer's end was read, it still writes.
            let answer = vec![7; 1 << 20];
            reactor::scope(|s| {
                s.spawn(|| {
                    open.write_all(&answer).unwrap();
                    open.shutdown(Shutdown::Write).unwrap();
                });
                let mut read = Vec::new();
                closing.read_to_end(&mut read).unwrap();
                assert!(read == answer);
            });
        }
    });
}

#[test]
fn closing_the_reading_half_wakes_the_reader_and_leaves_the_writing_half() {
    run(|| {
        let (near, far) = pair();
        reactor::scope(|s| {
            let reader = s.spawn(|| (&near).read(&mut [0; 8]));
            near.shutdown(Shutdown::Read).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 0);
        });
        (&near).write_all(b"still").unwrap();
        let mut buffer = [0; 5];
        (&far).read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"still");
    });
}

#[test]
fn vectored_reads_and_writes_move_several_buffers_in_one_call() {
    run(|| {
        let (near, far) = pair();
        let count = (&near).write_vectored(&[b"one" as &[u8], b"", b"twothree"].map(IoSlice::new)).unwrap();
        assert_eq!(count, 11);
        let (mut a, mut b, mut c) = ([0; 3], [0; 3], [0; 100]);
        let mut slices = [&mut a[..], &mut b[..], &mut c[..]].map(IoSliceMut::new);
        assert_eq!((&far).read_vectored(&mut slices).unwrap(), 11);
        assert_eq!((&a, &b, &c[..5]), (b"one", b"two", &b"three"[..]));
        // More slices, and more bytes, than the kernel takes at once.
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|n| vec![n as u8; 500]).collect();
        reactor::scope(|s| {
            s.spawn(|| {
                let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
                near.write_slices(&mut slices).unwrap();
                near.end().unwrap();
            });
            let mut all = Vec::new();
            (&far).read_to_end(&mut all).unwrap();
            assert!(all == parts.concat());
        });
    });
}

#[test]
fn a_connected_udp_socket_hears_its_peer_alone_and_learns_of_its_absence() {
    run(|| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(client.send(b"to whom?").is_err(), "not connected yet");
        client.connect(server.local_addr().unwrap()).unwrap();
        stranger.send_to(b"psst", client.local_addr().unwrap()).unwrap();
        client.send(b"hello").unwrap();
        let mut buffer = [0; 64];
        let (count, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from), (&b"hello"[..], client.local_addr().unwrap()));
        server.send_to(b"welcome", from).unwrap();
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"welcome");
        drop(server);
        client.send(b"still there?").unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn unix_datagrams_name_their_sender_and_can_be_answered() {
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = (directory.path().join("here"), directory.path().join("there"));
    run(|| {
        let server = UnixDatagram::bind(&there).unwrap();
        let client = UnixDatagram::bind(&here).unwrap();
        let asking = spawn(move || {
            client.connect(&there).unwrap();
            client.send(b"question").unwrap();
            let mut buffer = [0; 64];
            let count = client.recv(&mut buffer).unwrap();
            buffer[..count].to_vec()
        });
        let mut buffer = [0; 64];
        let (count, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from.as_deref()), (&b"question"[..], Some(&*here)));
        server.send_to(b"answer", from.unwrap()).unwrap();
        assert_eq!(asking.join().unwrap(), b"answer");
        let nameless = UnixDatagram::unbound().unwrap();
        nameless.send_to(b"?", directory.path().join("there")).unwrap();
        assert_eq!(server.recv_from(&mut buffer).unwrap(), (1, None));
        server.set_read_deadline(Some(now() + Duration::from_millis(3)));
        assert_eq!(server.recv(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}
