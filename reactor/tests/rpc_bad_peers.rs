//! Peers that break the rules: noise, frames that lie, peers that fall silent, that stop reading, that ask for
//! more than they may. Each costs a bounded amount, ends with a reason that can be told, and harms nobody else.

use std::io::IoSlice;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::net::{Duplex, Pipe, pipe};
use reactor::rpc::frame::{self, FrameError, HEADER_SIZE_BYTES, Header, PREFACE, Priority, Status};
use reactor::rpc::{CallError, CloseReason, Config, Connection, Method, Service};

/// What a busy machine may take for what usually takes no time.
const PATIENCE: Duration = Duration::from_secs(60);

struct Echo;
impl Method for Echo {
    const ID: u32 = 1;
    const NAME: &'static str = "echo";
    type Request = u64;
    type Response = u64;
    type Error = ();
}

/// Answers with much more than it is asked with, on the reader and in a coroutine.
struct Amplify<const INLINE: bool>;
impl<const INLINE: bool> Method for Amplify<INLINE> {
    const ID: u32 = if INLINE { 3 } else { 4 };
    const NAME: &'static str = "amplify";
    const INLINE: bool = INLINE;
    const REPLY_SIZE_BYTES_MAX: usize = (2 << 20) + 16;
    type Request = ();
    type Response = ();
    type Error = ();
}

struct Hang;
impl Method for Hang {
    const ID: u32 = 2;
    const NAME: &'static str = "hang";
    type Request = ();
    type Response = ();
    type Error = ();
}

/// An honest end, and the raw other end of its stream.
fn victim(config: Config) -> (Connection, Pipe) {
    let mut service = Service::new();
    service.on::<Echo>(|_, number, payload| Ok((number, payload)));
    service.on::<Hang>(|_, (), _| {
        reactor::sleep(Duration::from_secs(3600));
        Ok(((), Bytes::new()))
    });
    let (near, far) = pipe(1 << 16);
    (Connection::start(near, Rc::new(service), config), far)
}

fn impatient() -> Config {
    Config {
        ping_after: Duration::from_millis(50),
        dead_after: Duration::from_millis(200),
        ..Config::default()
    }
}

fn say(peer: &Pipe, bytes: &[u8]) {
    let _ = peer.write_slices(&mut [IoSlice::new(bytes)]);
}

fn request(call: u32, method: u32, message: &[u8], payload_size: u32) -> Vec<u8> {
    let message_size = message.len() as u32;
    let priority = Priority::Normal;
    let header = Header::Request {
        call,
        method,
        timeout_ms: 10_000,
        metadata_size: 0,
        message_size,
        payload_size,
        priority,
    };
    [&header.encode()[..], message].concat()
}

/// Reads frames until `count` have come.
fn listen(peer: &Pipe, count: usize) -> Vec<Header> {
    // Behind the preface comes the announcement of the version.
    let (mut bytes, mut headers, mut at) = (Vec::new(), Vec::new(), PREFACE.len() + HEADER_SIZE_BYTES);
    while headers.len() < count {
        let mut buffer = [0; 4096];
        let read = peer.read_some(&mut buffer).unwrap();
        assert_ne!(read, 0, "only {headers:?} came");
        bytes.extend_from_slice(&buffer[..read]);
        while bytes.len() > at
            && let Some((frame, length)) = frame::decode(&bytes[at..]).unwrap()
        {
            headers.push(frame.header);
            at += length;
        }
    }
    headers
}

/// A small generator of pseudo-random bytes; the seed is printed, and HYPHA_SEED replays it.
struct Random(u64);
impl Random {
    fn new() -> Random {
        let seed = match std::env::var("HYPHA_SEED") {
            Ok(seed) => seed.parse().expect("HYPHA_SEED is a number"),
            Err(_) => u64::from_le_bytes(reactor::crypto::random_bytes()),
        };
        println!("HYPHA_SEED={seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn another_protocol_is_named_as_such() {
    reactor::run(|| {
        let (victim, peer) = victim(Config::default());
        say(&peer, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(victim.wait_closed(), CloseReason::Protocol(FrameError::BadPreface));
        assert_eq!(victim.call::<Echo>(&1, Bytes::new(), Duration::from_secs(1)), Err(CallError::NotSent));
    });
}

#[test]
fn frames_that_lie_close_the_connection_with_the_reason() {
    let part = |call, size: u32| {
        let header = Header::RequestPart { call, size };
        [&header.encode()[..], &vec![0; size as usize]].concat()
    };
    let mut oversized = Header::Ping.encode();
    oversized[0] = 1;
    oversized[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let five_at_once: Vec<u8> =
        (0..5).flat_map(|call| [request(call, 1, b"\x00", 100_000), vec![0; 64 << 10]].concat()).collect();
    let cases: Vec<(Vec<u8>, FrameError)> = vec![
        (vec![0; 24], FrameError::UnknownKind { kind: 0 }),
        (oversized.to_vec(), FrameError::TooLarge { kind: 1, size_bytes: u32::MAX }),
        (part(7, 10), FrameError::StrayPart { call: 7 }),
        (
            [request(7, 1, b"\x00", 70_000), vec![0; 64 << 10], part(7, 4465)].concat(),
            FrameError::StrayPart { call: 7 },
        ),
        (
            [request(7, 2, b"\xc0", 0), request(7, 2, b"\xc0", 0)].concat(),
            FrameError::DuplicateCall { call: 7 },
        ),
        (five_at_once, FrameError::TooManyParts { max: 4 }),
        (Header::ResponsePart { call: 3, size: 0 }.encode().to_vec(), FrameError::StrayPart { call: 3 }),
    ];
    reactor::run(move || {
        for (bytes, expected) in cases {
            let (victim, peer) = victim(Config::default());
            say(&peer, &PREFACE);
            say(&peer, &bytes);
            assert_eq!(victim.wait_closed(), CloseReason::Protocol(expected));
        }
    });
}

#[test]
fn random_bytes_and_damaged_frames_never_harm_the_process() {
    let mut random = Random::new();
    reactor::run(move || {
        for round in 0..300 {
            let (victim, peer) = victim(impatient());
            let mut bytes: Vec<u8> = if round % 2 == 0 {
                (0..random.next() % 300).map(|_| random.next() as u8).collect()
            } else {
                let valid = [
                    request(1, 1, b"\x2a", 5),
                    b"12345".to_vec(),
                    request(2, 9, b"", 0),
                    Header::Cancel { call: 1 }.encode().to_vec(),
                    Header::Ping.encode().to_vec(),
                    request(3, 1, b"\xc1\xc1", 0),
                ];
                let mut bytes = valid.concat();
                let at = random.next() as usize % bytes.len();
                bytes[at] ^= 1 << (random.next() % 8);
                bytes.truncate(bytes.len() - random.next() as usize % 40);
                bytes
            };
            if !random.next().is_multiple_of(8) {
                bytes = [&PREFACE[..], &bytes].concat();
            }
            say(&peer, &bytes);
            peer.end().unwrap();
            let closed = reactor::timeout(PATIENCE, || victim.wait_closed());
            assert!(closed.is_ok(), "it goes on");
        }
    });
}

#[test]
fn a_silent_peer_is_asked_once_and_then_buried() {
    reactor::run(|| {
        let (victim, peer) = victim(impatient());
        say(&peer, &PREFACE);
        let start = Instant::now();
        assert_eq!(listen(&peer, 1), [Header::Ping]);
        assert!(start.elapsed() >= Duration::from_millis(45));
        assert_eq!(victim.wait_closed(), CloseReason::Silent);
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
    });
}

#[test]
fn a_quiet_but_living_peer_stays() {
    reactor::run(|| {
        let (near, far) = pipe(1 << 16);
        let near = Connection::start(near, Service::none(), impatient());
        let far = Connection::start(far, Service::none(), impatient());
        reactor::sleep(Duration::from_millis(700));
        assert!(!near.is_closed() && !far.is_closed());
    });
}

#[test]
fn a_peer_that_stops_reading_is_found_out_although_it_still_speaks() {
    reactor::run(|| {
        let (victim, peer) = victim(impatient());
        say(&peer, &PREFACE);
        let caller = victim.clone();
        let stuck = reactor::spawn(move || {
            caller.call::<Echo>(&1, Bytes::from(vec![0; 1 << 20]), Duration::from_secs(60))
        });
        // It never reads, but pings on and on.
        reactor::spawn(move || {
            loop {
                say(&peer, &Header::Ping.encode());
                reactor::sleep(Duration::from_millis(10));
            }
        });
        assert_eq!(victim.wait_closed(), CloseReason::Stuck);
        assert_eq!(stuck.join().unwrap(), Err(CallError::Closed));
    });
}

#[test]
fn callers_wait_when_the_peer_reads_slowly_and_the_queue_stays_bounded() {
    reactor::run(|| {
        let (victim, peer) = victim(Config::default());
        say(&peer, &PREFACE);
        let begun = std::cell::Cell::new(0);
        reactor::scope(|s| {
            let calls: Vec<_> = (0..100)
                .map(|_| {
                    s.spawn(|| {
                        let payload = Bytes::from(vec![0; 256 << 10]);
                        let result = victim.call::<Echo>(&1, payload, Duration::from_millis(300));
                        begun.set(begun.get() + 1);
                        result
                    })
                })
                .collect();
            reactor::sleep(Duration::from_millis(100));
            // Five fill the queue of 1 MiB; the others have not begun.
            assert!(victim.calls_in_flight().0 <= 8, "{:?}", victim.calls_in_flight());
            for call in calls {
                assert_eq!(call.join().unwrap(), Err(CallError::TimedOut));
            }
        });
        assert!(!victim.is_closed());
    });
}

#[test]
fn a_caller_that_ignores_the_limit_is_told_so_and_the_rest_still_works() {
    reactor::run(|| {
        let (victim, peer) = victim(Config::default());
        say(&peer, &PREFACE);
        for call in 0..300 {
            say(&peer, &request(call, 2, b"\xc0", 0));
        }
        let refused = listen(&peer, 44);
        for header in refused {
            assert!(
                matches!(header, Header::Response { status: Status::Overloaded, call: 256.., .. }),
                "{header:?}"
            );
        }
        assert_eq!(victim.calls_in_flight(), (0, 256));
        say(&peer, &Header::Cancel { call: 5 }.encode());
        say(&peer, &request(1_000, 1, b"\x2a", 0));
        // The preface has been read above; what comes now is the one answer.
        let mut answer = [0; 25];
        let mut filled = 0;
        while filled < answer.len() {
            filled += peer.read_some(&mut answer[filled..]).unwrap();
        }
        let (frame, _) = frame::decode(&answer).unwrap().unwrap();
        assert!(matches!(frame.header, Header::Response { status: Status::Response, call: 1_000, .. }));
        assert_eq!(frame.message, [0x2a]);
    });
}

#[test]
fn a_peer_that_floods_and_never_reads_is_cut_off_before_it_costs_much() {
    reactor::run(|| {
        let (victim, peer) = victim(Config::default());
        say(&peer, &PREFACE);
        let start = Instant::now();
        let hundred: Vec<u8> = (0..100).flat_map(|_| request(0, 2, b"\xc0", 0)).collect();
        let mut sent_bytes = 0;
        for round in 0u32.. {
            let mut requests = hundred.clone();
            for (at, call) in requests.chunks_mut(25).zip(round * 100..) {
                at[4..8].copy_from_slice(&call.to_le_bytes());
            }
            sent_bytes += requests.len();
            if peer.write_slices(&mut [IoSlice::new(&requests)]).is_err() {
                break;
            }
            assert!(sent_bytes < 8 << 20, "it is still listened to");
        }
        assert_eq!(victim.wait_closed(), CloseReason::Stuck);
        assert!(start.elapsed() < PATIENCE);
    });
}

/// What the process has in memory.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says so");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

#[test]
fn a_peer_that_asks_for_much_and_never_reads_holds_no_more_than_its_budget() {
    reactor::run(|| {
        for method in [Amplify::<true>::ID, Amplify::<false>::ID] {
            let mut service = Service::new();
            let reply = || Ok(((), Bytes::from(vec![7; 2 << 20])));
            service.on::<Amplify<true>>(move |_, (), _| reply());
            service.on::<Amplify<false>>(move |_, (), _| reply());
            let (near, peer) = pipe(1 << 16);
            let victim = Connection::start(near, Rc::new(service), Config::default());
            say(&peer, &PREFACE);
            let before = resident_bytes();
            // With an account of calls alone, 256 of them would hold 512 MiB.
            for call in 0..2_000 {
                say(&peer, &request(call, method, b"\xc0", 0));
                reactor::yield_now();
            }
            let grown = resident_bytes().saturating_sub(before);
            let bound = reactor::rpc::budget::PEER_BYTES_MAX;
            assert!(grown < bound, "{} MiB of the {} it may hold", grown >> 20, bound >> 20);
            assert!(!victim.is_closed(), "refusals are all it was given since");
        }
    });
}

#[test]
fn requests_that_are_cancelled_at_once_are_bounded_by_the_handlers_that_have_not_ended() {
    reactor::run(|| {
        let mut service = Service::new();
        let begun = Rc::new(std::cell::Cell::new(0));
        let counted = begun.clone();
        // As handlers do whose work cannot be broken off.
        service.on::<Hang>(move |_, (), _| {
            counted.set(counted.get() + 1);
            reactor::uninterruptible(|| reactor::sleep(Duration::from_secs(3)));
            Ok(((), Bytes::new()))
        });
        let (near, peer) = pipe(1 << 16);
        let victim = Connection::start(near, Rc::new(service), Config::default());
        say(&peer, &PREFACE);
        for call in 0..3_000 {
            let both = [request(call, Hang::ID, b"\xc0", 0), Header::Cancel { call }.encode().to_vec()];
            say(&peer, &both.concat());
        }
        assert!(begun.get() <= 512, "{} handlers are under way", begun.get());
        assert!(!victim.is_closed());
    });
}

#[test]
fn a_peer_that_only_asks_and_calls_off_is_cut_off_and_one_that_does_so_now_and_then_is_not() {
    reactor::run(|| {
        let (victim, peer) = victim(Config::default());
        say(&peer, &PREFACE);
        let pair =
            |call| [request(call, Hang::ID, b"\xc0", 0), Header::Cancel { call }.encode().to_vec()].concat();
        for call in 0..5_000 {
            say(&peer, &pair(call));
        }
        reactor::yield_now();
        assert!(!victim.is_closed(), "as who has asked many peers does when the first has answered");
        let more =
            (5_000..200_000).take_while(|&call| peer.write_slices(&mut [IoSlice::new(&pair(call))]).is_ok());
        let more = more.count();
        assert_eq!(victim.close_reason(), Some(CloseReason::Fickle), "after {more} more");
    });
}

#[test]
fn a_stream_that_is_opened_again_under_another_priority_hangs_nobody() {
    reactor::run(|| {
        let (victim, peer) = victim(Config::default());
        say(&peer, &PREFACE);
        let open = |priority| Header::Open {
            call: 5,
            method: 99,
            timeout_ms: 1_000,
            metadata_size: 0,
            message_size: 0,
            priority,
        };
        let cancel = Header::Cancel { call: 5 };
        // All in one turn of the reader, before anything is written.
        let frames = [open(Priority::Normal), cancel, open(Priority::Low), cancel, open(Priority::High)];
        say(&peer, &frames.map(|frame| frame.encode()).concat());
        say(&peer, &request(6, 1, b"\x2a", 0));
        let answered = listen(&peer, 2);
        assert!(
            answered.iter().any(|header| matches!(header, Header::Response { call: 6, .. })),
            "{answered:?}"
        );
        assert!(!victim.is_closed());
    });
}

#[test]
fn streams_that_are_opened_and_cancelled_by_one_who_does_not_read_come_to_an_end() {
    reactor::run(|| {
        let (victim, peer) = victim(Config::default());
        say(&peer, &PREFACE);
        // Fills the line, so that nothing leaves any more.
        for call in 0..300 {
            say(&peer, &[request(call, 1, b"\x2a", 60_000), vec![0; 60_000]].concat());
        }
        let before = resident_bytes();
        for call in 1_000..300_000 {
            let open = Header::Open {
                call,
                method: 99,
                timeout_ms: 1_000,
                metadata_size: 0,
                message_size: 0,
                priority: Priority::Normal,
            };
            let pair = [open.encode(), Header::Cancel { call }.encode()].concat();
            if peer.write_slices(&mut [IoSlice::new(&pair)]).is_err() {
                break;
            }
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{} MiB for streams of which none is open", grown >> 20);
        drop(victim);
    });
}

#[test]
fn a_close_lets_its_answers_leave_although_a_large_request_is_arriving() {
    reactor::run(|| {
        let (victim, peer) = victim(Config::default());
        say(&peer, &PREFACE);
        let answer = vec![0; 60_000];
        for call in 0..20 {
            say(&peer, &[request(call, 1, b"\x2a", 60_000), answer.clone()].concat());
        }
        // Answers wait in the line; now half of a large request comes, and we close.
        reactor::sleep(Duration::from_millis(50));
        victim.close();
        say(&peer, &[request(100, 1, b"\x2a", 100_000), vec![0; 64 << 10]].concat());
        let rest = Header::RequestPart { call: 100, size: 100_000 - (64 << 10) };
        say(&peer, &[&rest.encode()[..], &vec![0; 100_000 - (64 << 10)]].concat());
        let headers = listen(&peer, 21);
        let answers = headers.iter().filter(|header| matches!(header, Header::Response { .. })).count();
        assert!(answers == 20 && headers.last() == Some(&Header::Goodbye), "{headers:?}");
    });
}
