//! The simulated network behaves as the kernel's does, as far as a program can tell: connections are refused, reset
//! and ended, writers wait for readers, deadlines pass; and it has the faults that it is told to have.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::net::{TcpListener, TcpStream, UdpSocket};
use reactor::sim::{self, Host, Latency, Link, SimConfig, World};
use reactor::{now, sleep, spawn, timeout};

const MS: Duration = Duration::from_millis(1);

fn simulate<T: Send>(main: impl FnOnce(&World) -> T + Send) -> T {
    let config = SimConfig::default();
    sim::run(1, config, main)
}

/// Two machines, 10 ms apart.
fn two(world: &World) -> (Host, Host) {
    world.link_all(Link::new(Latency::Constant(10 * MS)));
    (world.host("a"), world.host("b"))
}

/// Runs `server` with each client that connects to port 80.
fn serve(host: &Host, server: impl Fn(TcpStream) + 'static) {
    let server = Rc::new(server);
    host.start(move || {
        let listener = TcpListener::bind("0.0.0.0:80").unwrap();
        loop {
            let (client, _) = listener.accept().unwrap();
            let server = server.clone();
            spawn(move || server(client));
        }
    });
}

fn port_80(host: &Host) -> SocketAddr {
    SocketAddr::new(host.address(), 80)
}

#[test]
fn a_request_and_its_answer_take_a_round_trip_each_way() {
    simulate(|world| {
        let (a, b) = two(world);
        serve(&b, |mut client| {
            let mut buffer = [0; 100];
            let count = client.read(&mut buffer).unwrap();
            client.write_all(&buffer[..count]).unwrap();
        });
        let client = a.start(move || {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), port_80(&b));
            let began = now();
            stream.write_all(b"hello").unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"hello");
            assert_eq!(now() - began, 20 * MS);
        });
        client.wait();
    });
}

#[test]
fn connecting_fails_as_it_does_in_life() {
    simulate(|world| {
        let (a, b) = two(world);
        let down = world.host("down");
        down.crash();
        let client = a.start(move || {
            let began = now();
            let refused = TcpStream::connect((b.address(), 80)).map(|_| ()).unwrap_err();
            assert_eq!((refused.kind(), now() - began), (ErrorKind::ConnectionRefused, 20 * MS));
            let nobody: SocketAddr = "192.168.7.7:80".parse().unwrap();
            let error = TcpStream::connect(nobody).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HostUnreachable);
            let began = now();
            let silent = TcpStream::connect((down.address(), 80)).map(|_| ()).unwrap_err();
            assert_eq!(silent.kind(), ErrorKind::TimedOut);
            assert!(now() - began > Duration::from_secs(60));
            let error = TcpStream::connect(("nobody", 80)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(timeout(50 * MS, || TcpStream::connect((down.address(), 80)).map(|_| ())).is_err());
            let _taken = TcpListener::bind("0.0.0.0:80").unwrap();
            let again = TcpListener::bind("0.0.0.0:80").map(|_| ()).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AddrInUse);
            let elsewhere = TcpListener::bind((b.address(), 80)).map(|_| ()).unwrap_err();
            assert_eq!(elsewhere.kind(), ErrorKind::AddrNotAvailable);
        });
        client.wait();
    });
}

#[test]
fn a_half_closed_connection_still_carries_the_other_direction() {
    simulate(|world| {
        let (a, b) = two(world);
        serve(&b, |mut client| {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            client.write_all(&all).unwrap();
        });
        a.start(move || {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            stream.write_all(b"all of it").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "all of it");
        })
        .wait();
    });
}

#[test]
fn a_writer_waits_for_its_reader_and_its_deadline() {
    simulate(|world| {
        let (a, b) = two(world);
        let read = Rc::new(Cell::new(0));
        let seen = read.clone();
        serve(&b, move |mut client| {
            sleep(Duration::from_secs(10));
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = client.read(&mut buffer) {
                assert!(buffer[..count].iter().all(|byte| *byte == 7));
                seen.set(seen.get() + count);
            }
        });
        a.start(|| {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            let began = now();
            stream.set_write_deadline(Some(now() + Duration::from_secs(1)));
            let mut sent = 0;
            let error = loop {
                match stream.write(&[7; 10_000]) {
                    Ok(count) => sent += count,
                    Err(error) => break error,
                }
            };
            assert_eq!((error.kind(), now() - began), (ErrorKind::TimedOut, Duration::from_secs(1)));
            assert_eq!(sent, 256 * 1024);
            stream.set_write_deadline(None);
            stream.write_all(&vec![7; 1 << 20]).unwrap();
            assert!(now() - began > Duration::from_secs(9));
        })
        .wait();
        sleep(Duration::from_secs(1));
        assert_eq!(read.get(), (1 << 20) + 256 * 1024);
    });
}

#[test]
fn closing_with_unread_bytes_resets_the_peer() {
    simulate(|world| {
        let (a, b) = two(world);
        serve(&b, |client| {
            sleep(100 * MS);
            drop(client);
        });
        a.start(|| {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            stream.write_all(b"nobody reads this").unwrap();
            assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
            assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(stream.shutdown(Shutdown::Both).unwrap_err().kind(), ErrorKind::NotConnected);
        })
        .wait();
    });
}

#[test]
fn a_lossy_link_delays_a_stream_and_never_disorders_it() {
    simulate(|world| {
        let (a, b) = two(world);
        world.link(&a, &b, Link::new(Latency::Uniform(MS, 20 * MS)).with_loss(0.2));
        let received = Rc::new(RefCell::new(Vec::new()));
        let inbox = received.clone();
        serve(&b, move |mut client| {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            *inbox.borrow_mut() = all;
        });
        a.start(|| {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            for n in 0..=255u8 {
                stream.write_all(&[n]).unwrap();
                sleep(MS);
            }
        })
        .wait();
        sleep(Duration::from_secs(60));
        assert_eq!(*received.borrow(), (0..=255).collect::<Vec<u8>>());
    });
}

#[test]
fn bandwidth_bounds_what_a_link_carries() {
    simulate(|world| {
        let (a, b) = two(world);
        world.link(&a, &b, Link::new(Latency::Constant(MS)).with_bandwidth(1_000_000));
        serve(&b, |mut client| {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            client.write_all(&[1]).unwrap();
        });
        a.start(|| {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            let began = now();
            stream.write_all(&vec![0; 1_000_000]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            let took = now() - began;
            assert!(took > Duration::from_secs(1) && took < Duration::from_millis(1020), "{took:?}");
        })
        .wait();
    });
}

#[test]
fn a_partition_holds_a_stream_up_until_it_heals() {
    simulate(|world| {
        let (a, b) = two(world);
        serve(&b, |mut client| {
            let mut buffer = [0; 10];
            while let Ok(count @ 1..) = client.read(&mut buffer) {
                client.write_all(&buffer[..count]).unwrap();
            }
        });
        let (world, b) = (world.clone(), b.clone());
        let here = a.clone();
        a.start(move || {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            world.partition(&here, &b);
            stream.write_all(b"x").unwrap();
            stream.set_read_deadline(Some(now() + Duration::from_secs(30)));
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
            world.heal(&here, &b);
            stream.set_read_deadline(None);
            stream.read_exact(&mut [0]).unwrap();
            assert!(world.elapsed() < Duration::from_secs(90), "tried again within a minute");

            world.partition_one_way(&b, &here);
            stream.write_all(b"y").unwrap();
            // The other side's answer is given up after a quarter of an hour; our own bytes have arrived.
            sleep(Duration::from_secs(2000));
            world.heal(&here, &b);
            stream.write_all(b"z").unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        })
        .wait();
    });
}

#[test]
fn a_reader_that_drains_its_window_while_the_way_back_is_cut_goes_on_when_that_has_healed() {
    simulate(|world| {
        let (a, b) = two(world);
        let size = 4 * world_window_bytes();
        let (there, healing) = (world.clone(), world.clone());
        let (from, to) = (a.clone(), b.clone());
        serve(&b, move |mut client| {
            let mut all = Vec::new();
            // Nothing is read before the way back is cut, so that no word of the room comes through.
            sleep(Duration::from_secs(1));
            client.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), size);
            client.write_all(b"k").unwrap();
        });
        let far = a.start(move || {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            there.partition_one_way(&to, &from);
            stream.write_all(&vec![7; size]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_exact(&mut [0]).unwrap();
        });
        sleep(Duration::from_secs(3));
        healing.heal(&a, &b);
        far.wait();
        assert!(healing.elapsed() < Duration::from_secs(60));
    });
}

#[test]
fn a_writer_to_a_process_that_has_gone_learns_of_it_when_the_way_back_has_healed() {
    simulate(|world| {
        let (a, b) = two(world);
        serve(&b, drop);
        let (there, from, to) = (world.clone(), a.clone(), b.clone());
        let writing = a.start(move || {
            let mut stream = TcpStream::connect(("b", 80)).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it has closed");
            there.partition_one_way(&to, &from);
            stream.write_all(b"into nothing").unwrap();
            sleep(Duration::from_secs(3));
            there.heal(&from, &to);
            sleep(Duration::from_secs(30));
            // A kernel would have sent its bytes again, and met another reset.
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
        writing.wait();
    });
}

/// What a stream holds that nobody reads.
fn world_window_bytes() -> usize {
    SimConfig::default().tcp_window_bytes
}

#[test]
fn datagrams_are_lost_doubled_and_overtaken_as_told() {
    simulate(|world| {
        let (a, b) = two(world);
        let faulty =
            Link::new(Latency::Uniform(MS, 2 * MS)).with_loss(0.1).with_duplication(0.1).with_reordering(0.1);
        world.link(&a, &b, faulty);
        let received = Rc::new(RefCell::new(Vec::new()));
        let inbox = received.clone();
        b.start(move || {
            let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
            loop {
                let mut buffer = [0; 10];
                let (count, _) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(count, 4);
                inbox.borrow_mut().push(u32::from_le_bytes(buffer[..4].try_into().unwrap()));
            }
        });
        a.start(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let to: SocketAddr = reactor::net::resolve("b", 53).unwrap()[0];
            for n in 0..1000u32 {
                socket.send_to(&n.to_le_bytes(), to).unwrap();
                sleep(MS);
            }
            assert!(socket.send_to(&[0; 70_000], to).is_err(), "too long");
            socket.set_read_deadline(Some(now() + MS));
            assert_eq!(socket.recv_from(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        })
        .wait();
        sleep(Duration::from_secs(1));
        let received = received.borrow();
        let overtaken = received.windows(2).filter(|pair| pair[1] < pair[0]).count();
        let mut distinct = received.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let (lost, doubled) = (1000 - distinct.len(), received.len() - distinct.len());
        assert!((50..150).contains(&lost), "{lost} lost");
        assert!((50..150).contains(&doubled), "{doubled} doubled");
        assert!((50..300).contains(&overtaken), "{overtaken} overtaken");
    });
}

#[test]
fn what_only_a_kernel_has_fails_with_a_clear_error() {
    simulate(|_| {
        let error = reactor::net::UnixStream::pair().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("a simulation has no descriptors"));
    });
}

/// Says farewell to port 9 of an address when it is dropped, and down a stream.
struct Farewell(UdpSocket, SocketAddr, TcpStream);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.0.send_to(b"farewell", self.1);
        let _ = self.2.write(b"farewell");
    }
}

/// What a machine's peer hears when `end` ends the machine: datagrams, and how its read from the stream ends.
fn heard_of_an_end(end: impl Fn(&Host) + Send) -> (usize, Result<usize, ErrorKind>) {
    simulate(move |world| {
        let (a, b) = two(world);
        let heard = Rc::new((Cell::new(0), Cell::new(Ok(0))));
        let ears = heard.clone();
        b.start(move || {
            let (socket, datagrams) = (UdpSocket::bind("0.0.0.0:9").unwrap(), ears.clone());
            spawn(move || {
                while socket.recv_from(&mut [0; 100]).is_ok() {
                    datagrams.0.set(datagrams.0.get() + 1);
                }
            });
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_deadline(Some(now() + Duration::from_secs(10)));
            ears.1.set(stream.read(&mut [0; 100]).map_err(|error| error.kind()));
            sleep(Duration::from_secs(3600));
        });
        let to = SocketAddr::new(b.address(), 9);
        a.start(move || {
            let stream = TcpStream::connect(("b", 80)).unwrap();
            let _farewell = Farewell(UdpSocket::bind("0.0.0.0:0").unwrap(), to, stream);
            sleep(Duration::from_secs(3600));
        });
        sleep(Duration::from_secs(1));
        end(&a);
        sleep(Duration::from_secs(20));
        (heard.0.get(), heard.1.replace(Ok(0)))
    })
}

#[test]
fn a_crash_lets_no_destructor_reach_the_network_and_tells_no_peer() {
    assert_eq!(heard_of_an_end(Host::crash), (0, Err(ErrorKind::TimedOut)));
}

#[test]
fn a_killed_process_says_nothing_more_and_its_kernel_closes_its_connections() {
    assert_eq!(heard_of_an_end(Host::kill), (0, Ok(0)));
}
