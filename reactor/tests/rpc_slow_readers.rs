//! Peers that read slowly. What counts is what the line takes: one that reads all the time is kept, however long a write
//! to it lasts; one that takes a little now and then, so that what it has asked for is held for ever, is cut off. Once the
//! age of a write was measured instead, which did the contrary of both.

use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{Duplex, pipe};
use reactor::rpc::frame::{Header, PREFACE, Priority};
use reactor::rpc::{CloseReason, Config, Connection, Method, Service};

/// A small answer.
struct Small;
impl Method for Small {
    const ID: u32 = 1;
    const NAME: &'static str = "small";
    type Request = ();
    type Response = ();
    type Error = ();
}

const SMALL_BYTES: usize = 3 << 10;

/// A large one.
struct Large;
impl Method for Large {
    const ID: u32 = 2;
    const NAME: &'static str = "large";
    const REPLY_SIZE_BYTES_MAX: usize = LARGE_BYTES + 16;
    type Request = ();
    type Response = ();
    type Error = ();
}

const LARGE_BYTES: usize = 2 << 20;

/// Large answers that a peer may have in flight.
const LARGE_CALLS: u32 = 15;

fn serve(stream: impl Duplex) -> Connection {
    let mut service = Service::new();
    service.on::<Small>(|_, (), _| Ok(((), Bytes::from(vec![7; SMALL_BYTES]))));
    service.on::<Large>(|_, (), _| Ok(((), Bytes::from(vec![7; LARGE_BYTES]))));
    Connection::start(stream, Rc::new(service), Config::default())
}

fn say(peer: &dyn Duplex, bytes: &[u8]) {
    peer.write_slices(&mut [IoSlice::new(bytes)]).unwrap();
}

fn ask(peer: &dyn Duplex, call: u32, method: u32) {
    let priority = Priority::Normal;
    let header = Header::Request {
        call,
        method,
        timeout_ms: u32::MAX,
        metadata_size: 0,
        message_size: 1,
        payload_size: 0,
        priority,
    };
    say(peer, &[&header.encode()[..], b"\xc0"].concat());
}

/// Reads what comes, so much a second and no more, and says that it lives, until `enough` bytes or the end have come.
fn read_slowly(
    peer: &dyn Duplex,
    bytes_per_second: usize,
    enough: usize,
    mut on_bytes: impl FnMut(usize),
) -> usize {
    let mut all = 0;
    while all < enough {
        let mut buffer = vec![0; bytes_per_second.min(enough - all)];
        match peer.read_some(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => all += count,
        }
        on_bytes(all);
        let ping = Header::Ping.encode();
        if peer.write_slices(&mut [IoSlice::new(&ping)]).is_err() {
            break;
        }
        reactor::sleep(Duration::from_secs(1));
    }
    all
}

/// A megabyte in one batch of the writer, at 8 KiB a second: two minutes.
fn a_slow_reader_gets_all(victim: &Connection, peer: &dyn Duplex) {
    say(peer, &PREFACE);
    let calls = 256;
    (0..calls).for_each(|call| ask(peer, call, Small::ID));
    let expected = calls as usize * SMALL_BYTES;
    let begun = reactor::now();
    let read = read_slowly(peer, 8 << 10, expected, |_| ());
    assert_eq!(read, expected, "{:?} after {:?}", victim.close_reason(), reactor::now() - begun);
    assert!(reactor::now() - begun > Duration::from_secs(60), "it was slow");
    assert!(!victim.is_closed());
}

#[reactor::test(seeds = 0..1)]
fn a_peer_that_reads_slowly_all_the_time_is_kept() {
    let (near, peer) = pipe(16 << 10);
    a_slow_reader_gets_all(&serve(near), &peer);
}

#[reactor::test(seeds = 0..1)]
fn so_is_one_that_reads_slowly_through_tls_which_takes_much_at_once() {
    let (near, far) = pipe(16 << 10);
    let (server, client) = (Rc::new(Identity::generate()), Rc::new(Identity::generate()));
    let key = server.public_key();
    let accepted = reactor::spawn(move || tls::accept(near, &server).unwrap());
    let peer = tls::connect(far, &client, Expect::Key(key)).unwrap();
    a_slow_reader_gets_all(&serve(accepted.join().unwrap()), &peer);
}

#[reactor::test(seeds = 0..1)]
fn a_peer_that_takes_a_little_and_asks_for_more_does_not_hold_it_for_ever() {
    let (near, peer) = pipe(64 << 10);
    let victim = serve(near);
    say(&peer, &PREFACE);
    (0..LARGE_CALLS).for_each(|call| ask(&peer, call, Large::ID));
    let hour = Duration::from_secs(3600);
    let reading = reactor::spawn(move || {
        let mut asked = LARGE_CALLS;
        read_slowly(&peer, 24 << 10, usize::MAX, |all| {
            // As soon as one can have arrived it asks for the next, so that as much is held as before.
            while (asked - LARGE_CALLS) as usize * LARGE_BYTES < all.saturating_sub(4 * LARGE_BYTES) {
                ask(&peer, asked, Large::ID);
                asked += 1;
            }
        })
    });
    let reason = reactor::timeout(hour, || victim.wait_closed());
    assert_eq!(reason, Ok(CloseReason::Stuck), "it has held {} MiB all the time", LARGE_CALLS * 2);
    reading.join().unwrap();
}
