//! Peers of different versions: what the first release said, byte for byte, is replayed to today's code.
//!
//! `golden/rpc_v1_caller.bin` and `golden/rpc_v1_callee.bin` are the two directions of one conversation between two
//! ends of version 1, recorded with its own code before there was a version 2. They are never written again, nor are those
//! of version 2.

use std::io::{self, IoSlice, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::net::{Duplex, Pipe, WriteOnce, pipe};
use reactor::rpc::{
    CallError, CallOptions, CloseReason, Config, Connection, Metadata, Method, Priority, Service,
};

macro_rules! method {
    ($name:ident, $id:literal, $request:ty, $response:ty, $error:ty) => {
        struct $name;
        impl Method for $name {
            const ID: u32 = $id;
            const NAME: &'static str = stringify!($name);
            type Request = $request;
            type Response = $response;
            type Error = $error;
        }
    };
}

method!(Echo, 1, u64, u64, ());
method!(Panic, 2, (), (), ());
method!(Refuse, 3, String, (), String);
method!(Unknown, 4, (), (), ());
method!(Wait, 5, (), (), ());
method!(OtherEcho, 1, String, u64, ());
method!(Sum, 6, (u64, u64), u64, ());

fn service() -> Rc<Service> {
    let mut service = Service::new();
    service
        .on::<Echo>(|_, number, payload| Ok((number, payload)))
        .on::<Panic>(|_, (), _| panic!("this panic is part of a test"))
        .on::<Refuse>(|_, reason, _| Err(reason))
        .on::<Wait>(|_, (), _| {
            reactor::sleep(Duration::from_secs(3600));
            Ok(((), Bytes::new()))
        });
    service.on::<Sum>(|_, (a, b), _| Ok((a + b, Bytes::new())));
    Rc::new(service)
}

/// An end that notes what is written to it.
struct Recorded(Pipe, Rc<RefCell<Vec<u8>>>);

impl Duplex for Recorded {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_some(buffer)
    }

    fn write_with(&self, write: &mut WriteOnce<'_>) -> io::Result<usize> {
        self.0.write_with(&mut |writer| write(&mut Noting(writer, &self.1)))
    }

    fn end(&self) -> io::Result<()> {
        self.0.end()
    }

    fn abort(&self) {
        self.0.abort();
    }
}

/// Notes what the writer below it takes.
struct Noting<'a>(&'a mut dyn Write, &'a RefCell<Vec<u8>>);

impl Write for Noting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1.borrow_mut().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The calls of the conversation: every frame of version 1 occurs in it.
fn converse(caller: &Connection) {
    let patience = Duration::from_secs(60);
    let none = Bytes::new();
    assert_eq!(caller.call::<Echo>(&7, none.clone(), patience), Ok((7, none.clone())));
    let payload = Bytes::from_static(b"beside the message");
    assert_eq!(caller.call::<Echo>(&(1 << 40), payload.clone(), patience), Ok((1 << 40, payload)));
    let large = Bytes::from(vec![9; 66_000]);
    assert_eq!(caller.call::<Echo>(&2, large.clone(), patience), Ok((2, large)));
    assert_eq!(
        caller.call::<Refuse>(&"no".into(), none.clone(), patience),
        Err(CallError::Remote("no".into()))
    );
    assert_eq!(caller.call::<Panic>(&(), none.clone(), patience), Err(CallError::Panicked));
    assert_eq!(caller.call::<Unknown>(&(), none.clone(), patience), Err(CallError::UnknownMethod));
    let malformed = caller.call::<OtherEcho>(&"x".into(), none.clone(), patience);
    assert!(matches!(malformed, Err(CallError::Malformed(_))));
    assert_eq!(caller.call::<Wait>(&(), none.clone(), Duration::from_millis(1)), Err(CallError::TimedOut));
    assert_eq!(caller.call::<Echo>(&3, none.clone(), patience), Ok((3, none)));
    // Long enough for a ping and its pong.
    reactor::sleep(Duration::from_millis(60));
    caller.close();
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The frames of version 1 by its own rules, and whatever else there is.
fn frames_of_version_1(bytes: &[u8]) -> (Vec<&[u8]>, Vec<&[u8]>) {
    let mut rest = bytes.strip_prefix(b"hyphrpc\x01").expect("the preface of version 1");
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        let (kind, message, payload) = (rest[0], word(12), word(16).min(64 << 10));
        let (frame, behind) = rest.split_at(24 + message + payload);
        let stray = match kind {
            1 => rest[1] != 0,
            2 => rest[1] > 7 || word(8) != 0 || word(20) != 0,
            3..=8 => rest[1] != 0 || word(8) != 0 || word(20) != 0 || message != 0,
            _ => true,
        };
        if stray {
            unknown.push(frame)
        } else {
            known.push(frame)
        }
        rest = behind;
    }
    (known, unknown)
}

#[test]
fn an_older_caller_gets_the_same_answers_byte_for_byte() {
    reactor::run(|| {
        let (near, far) = pipe(1 << 20);
        let said = Rc::new(RefCell::default());
        let callee = Connection::start(Recorded(near, Rc::clone(&said)), service(), Config::default());
        let asked = std::fs::read(golden("rpc_v1_caller.bin")).unwrap();
        let recorded = std::fs::read(golden("rpc_v1_callee.bin")).unwrap();
        let (expected, none) = frames_of_version_1(&recorded);
        // The goodbye at the end waits for the answers.
        let (questions, goodbye) = asked.split_at(asked.len() - 24);
        far.write_slices(&mut [IoSlice::new(questions)]).unwrap();
        let start = std::time::Instant::now();
        while said.borrow().len() < recorded.len() + 24 && start.elapsed() < Duration::from_secs(60) {
            reactor::sleep(Duration::from_millis(1));
        }
        far.write_slices(&mut [IoSlice::new(goodbye)]).unwrap();
        assert_eq!(callee.wait_closed(), CloseReason::Remote);
        let said = said.borrow();
        let (mut now, unknown) = frames_of_version_1(&said);
        assert!(none.is_empty() && unknown.is_empty(), "an older peer would hang up: {unknown:?}");
        // The announcement: to version 1 a cancel of a call that is not there.
        assert_eq!(now.remove(0)[..8], [5, 0, 0, 0, 3, 0, 0xff, 0xff]);
        // All calls came at once, so those that take longer answer later; and the one that was given up does not.
        now.sort_unstable();
        let mut expected = expected;
        expected.sort_unstable();
        assert!(now == expected, "{} frames now, {} then", now.len(), expected.len());
    });
}

#[test]
fn an_older_callee_is_asked_in_its_own_words() {
    reactor::run(|| {
        // The recorded answers are there before the questions: those name the same calls, so they fit.
        let (near, far) = pipe(1 << 20);
        let said = Rc::new(RefCell::default());
        let recorded = std::fs::read(golden("rpc_v1_callee.bin")).unwrap();
        let caller = Connection::start(Recorded(near, Rc::clone(&said)), Service::none(), Config::default());
        // One answer for each question, as soon as that has come.
        let asked = said.clone();
        let answers = reactor::spawn(move || {
            let (frames, _) = frames_of_version_1(&recorded);
            far.write_slices(&mut [IoSlice::new(b"hyphrpc\x01")]).unwrap();
            for frame in frames {
                let call = &frame[4..8];
                let is_asked = || {
                    let said = asked.borrow();
                    frames_of_version_1(&said).0.iter().any(|asked| asked[0] == 1 && &asked[4..8] == call)
                };
                while frame[0] <= 4 && !is_asked() {
                    reactor::sleep(Duration::from_millis(1));
                }
                far.write_slices(&mut [IoSlice::new(frame)]).unwrap();
            }
            far
        });
        converse(&caller);
        drop(answers.join().unwrap());
        let said = said.borrow();
        let (_, unknown) = frames_of_version_1(&said);
        assert!(unknown.is_empty(), "an older peer would hang up: {unknown:?}");
    });
}

#[test]
fn a_stream_or_a_priority_asked_of_an_older_peer_is_answered_here() {
    reactor::run(|| {
        let (near, far) = pipe(1 << 20);
        let said = Rc::new(RefCell::default());
        let caller = Connection::start(Recorded(near, Rc::clone(&said)), Service::none(), Config::default());
        far.write_slices(&mut [IoSlice::new(b"hyphrpc\x01")]).unwrap();
        reactor::spawn(move || {
            // As an end of version 1 that is asked nothing but a ping.
            reactor::sleep(Duration::from_millis(5));
            let mut pong = [0; 24];
            pong[0] = 7;
            far.write_slices(&mut [IoSlice::new(&pong)]).unwrap();
            reactor::sleep(Duration::from_secs(60));
        });
        let flow = FlowClient::new(caller.clone());
        assert_eq!(flow.flow().unwrap_err(), CallError::UnknownMethod);
        let high = CallOptions::timeout(Duration::from_millis(5)).priority(Priority::High);
        assert_eq!(flow.with(high).echo(7), Err(CallError::TimedOut));
        let said = said.borrow();
        let (frames, unknown) = frames_of_version_1(&said);
        assert!(unknown.is_empty() && frames.iter().any(|frame| frame[0] == 1), "{unknown:?}");
    });
}

reactor::service! {
    trait Flow = "flow" version 1, client FlowClient {
        fn echo(&self, number: u64) -> Result<u64, ()> = 1 as FlowEcho;
        fn flow(&self, numbers: StreamSender<u64>) -> Result<(), ()> = 9 as Flowing;
    }
}

#[test]
fn a_newer_peer_is_understood_as_far_as_we_go() {
    reactor::run(|| {
        let (near, far) = pipe(1 << 20);
        let callee = Connection::start(near, service(), Config::default());
        let frame = |kind: u8, call: u32, method: u32, message: &[u8]| {
            let words = [call, method, message.len() as u32, 0, if kind == 1 { 60_000 } else { 0 }];
            let words: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            [&[kind, 0, 0, 0][..], &words, message].concat()
        };
        // It announces version 7, says hello with fields we do not know, sends a frame of a kind we do not know, calls
        // a method we do not know, and one that we know with a field more.
        let mut strange = frame(200, u32::MAX, 77, b"whatever this may be");
        strange[1] = 0xff;
        let hello = reactor::serialization::to_bytes(&(7u32, u64::MAX, "unknown", [1, 2, 3]));
        let said = [
            b"hyphrpc\x01".to_vec(),
            frame(5, 0xffff_0007, 0, b""),
            frame(16, 0, 0, &hello),
            strange,
            frame(1, 0, 12345, b"\xc0"),
            frame(1, 1, Sum::ID, &reactor::serialization::to_bytes(&(2, 3, "a later field"))),
        ];
        far.write_slices(&mut [IoSlice::new(&said.concat())]).unwrap();
        let mut heard = Vec::new();
        let expected = [
            (5, 0, 0xffff_0003u32),
            (16, 0, 0),
            // Unknown is 2.
            (2, 2, 0),
            (2, 0, 1),
        ];
        let heads = |heard: &[u8]| {
            let (mut rest, mut heads) = (&heard[8..], Vec::new());
            while let Ok(Some((frame, length))) = reactor::rpc::frame::decode(rest) {
                heads.push((rest[0], rest[1], u32::from_le_bytes(rest[4..8].try_into().unwrap())));
                if heads.len() == 4 {
                    assert_eq!(reactor::serialization::from_bytes::<u64>(frame.message), Ok(5));
                }
                rest = &rest[length..];
            }
            heads
        };
        while heard.len() < 8 || heads(&heard).len() < expected.len() {
            let mut buffer = [0; 4096];
            let count = far.read_some(&mut buffer).unwrap();
            assert!(count > 0, "it hung up: {:?}", callee.close_reason());
            heard.extend_from_slice(&buffer[..count]);
        }
        let mut heads = heads(&heard);
        heads.sort_unstable();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(heads, expected);
        assert!(!callee.is_closed());
    });
}

#[test]
fn the_words_of_version_3_stay_as_they_were_released() {
    reactor::run(|| {
        let (near, far) = pipe(1 << 20);
        let (said, answered) = (Rc::new(RefCell::default()), Rc::new(RefCell::default()));
        let caller = Connection::start(Recorded(near, Rc::clone(&said)), Service::none(), Config::default());
        let mut service = Service::new();
        service.on_stream::<Flowing>(|call, (), _, numbers| {
            call.answer_with("served-by", "b").unwrap();
            (0..3).for_each(|number| _ = numbers.send(&number));
            Ok(())
        });
        let callee =
            Connection::start(Recorded(far, Rc::clone(&answered)), Rc::new(service), Config::default());
        let metadata = Metadata::new().with("request-id", "a").unwrap();
        let client = FlowClient::new(caller.clone()).with(CallOptions::default().metadata(metadata));
        let call = client.flow().unwrap();
        assert_eq!(call.metadata(), Metadata::new(), "nothing is answered yet");
        assert_eq!(call.items().collect::<Result<Vec<_>, _>>(), Ok(vec![0, 1, 2]));
        assert_eq!(call.finish(), Ok(()));
        caller.close();
        callee.wait_closed();
        for (name, now) in [("rpc_v3_caller.bin", said), ("rpc_v3_callee.bin", answered)] {
            // The caller's time is in it, and differs by milliseconds.
            let mut now: Vec<u8> = now.borrow().clone();
            let open = now.windows(12).position(|head| head[0] == 9 && head[8..12] == [9, 0, 0, 0]);
            if let Some(open) = open {
                now[open + 20..open + 24].fill(0);
            }
            if std::env::var_os("HYPHA_BLESS").is_some() {
                std::fs::write(golden(name), &now).unwrap();
            }
            assert_eq!(now, std::fs::read(golden(name)).unwrap(), "{name}");
        }
    });
}

#[test]
fn a_peer_of_version_2_is_answered_in_its_own_words() {
    reactor::run(|| {
        let (near, far) = pipe(1 << 20);
        let said = Rc::new(RefCell::default());
        let mut service = Service::new();
        service.on_stream::<Flowing>(|call, (), _, numbers| {
            // It gets none of this.
            call.answer_with("served-by", "b").unwrap();
            (0..3).for_each(|number| _ = numbers.send(&number));
            Ok(())
        });
        let callee = Connection::start(Recorded(near, Rc::clone(&said)), Rc::new(service), Config::default());
        let mut asked = std::fs::read(golden("rpc_v2_caller.bin")).unwrap();
        let recorded = std::fs::read(golden("rpc_v2_callee.bin")).unwrap();
        // Its time was taken out of the record: a minute.
        let open = asked.windows(12).position(|head| head[0] == 9 && head[8..12] == [9, 0, 0, 0]).unwrap();
        asked[open + 20..open + 24].copy_from_slice(&60_000u32.to_le_bytes());
        // The goodbye at the end waits for the answers.
        let (questions, goodbye) = asked.split_at(asked.len() - 24);
        far.write_slices(&mut [IoSlice::new(questions)]).unwrap();
        let start = std::time::Instant::now();
        while said.borrow().len() < recorded.len() && start.elapsed() < Duration::from_secs(60) {
            reactor::sleep(Duration::from_millis(1));
        }
        far.write_slices(&mut [IoSlice::new(goodbye)]).unwrap();
        assert_eq!(callee.wait_closed(), CloseReason::Remote);
        // All is as it was but the announcement and the hello, which tell of version 3.
        let (mut now, mut expected) = (said.borrow().clone(), recorded);
        for bytes in [&mut now, &mut expected] {
            bytes[12] = 0;
            let hello = bytes.windows(2).position(|head| head == [0x92, 2] || head == [0x92, 3]).unwrap();
            bytes[hello + 1..hello + 3].fill(0);
        }
        let body = |bytes: &[u8]| {
            let (mut rest, mut frames) = (&bytes[8..], Vec::new());
            while let Ok(Some((_, length))) = reactor::rpc::frame::decode(rest) {
                frames.push(rest[..length].to_vec());
                rest = &rest[length..];
            }
            assert!(rest.is_empty());
            frames.sort_unstable();
            frames
        };
        assert_eq!(body(&now), body(&expected));
    });
}
