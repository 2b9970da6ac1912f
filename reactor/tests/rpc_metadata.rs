//! Metadata: what a caller sends along comes to the handler and to whoever stands before it, what the handler says beside
//! its answer comes back, and a peer can neither send too much of it nor make two readers see two things.

use std::cell::Cell;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::net::{Duplex, Pipe, pipe};
use reactor::rpc::frame::{self, FrameError, HEADER_SIZE_BYTES, Header, PREFACE, Priority, Status};
use reactor::rpc::metadata::BLOCK_SIZE_BYTES_MAX;
use reactor::rpc::{
    CallContext, CallError, CallInfo, CallOptions, Caller, CloseReason, Config, Connection,
    METADATA_SIZE_BYTES_MAX, Metadata, Never, Payload, Reply, ReplyMetadata, Service, StreamSender, pair,
};

reactor::service! {
    trait Desk = "desk" version 1, client DeskClient {
        /// Answers with the request's id, and says who answered.
        fn ask(&self, fails: bool) -> Result<String, String> = 1 as Ask;
        /// The same on the connection's reader.
        fn ask_inline(&self) -> Result<String, String> = 2 as AskInline, inline;
        /// The same with a payload of many parts either way.
        fn carry(&self, load: Payload) -> Result<(String, Payload), String> = 3 as Carry, replies_up_to(1 << 20);
        /// The same, and streams.
        fn tell(&self, numbers: StreamSender<u32>) -> Result<String, String> = 4 as Tell;
        /// Never answers.
        fn hang(&self) -> Result<(), Never> = 6 as Hang;
        /// Answers with as much metadata as there may be.
        fn shout(&self) -> Result<(), Never> = 5 as Shout;
    }
}

struct Clerk;

impl Clerk {
    fn answer(call: &CallContext) -> String {
        call.answer_with("served-by", "clerk").unwrap();
        call.metadata.get_text("request-id").unwrap_or("none").to_owned()
    }
}

impl Desk for Clerk {
    fn ask(&self, call: &CallContext, fails: bool) -> Result<String, String> {
        reactor::yield_now();
        let id = Clerk::answer(call);
        if fails { Err(id) } else { Ok(id) }
    }

    fn ask_inline(&self, call: &CallContext) -> Result<String, String> {
        Ok(Clerk::answer(call))
    }

    fn carry(&self, call: &CallContext, load: Payload) -> Result<(String, Payload), String> {
        Ok((Clerk::answer(call), load))
    }

    fn tell(&self, call: &CallContext, numbers: StreamSender<u32>) -> Result<String, String> {
        (0..3).for_each(|number| _ = numbers.send(&number));
        Ok(Clerk::answer(call))
    }

    fn hang(&self, _: &CallContext) -> Result<(), Never> {
        reactor::sleep(Duration::MAX);
        Ok(())
    }

    fn shout(&self, call: &CallContext) -> Result<(), Never> {
        call.answer_with("a", vec![7; METADATA_SIZE_BYTES_MAX - 4]).unwrap();
        assert!(call.answer_with("b", "").is_err(), "it is full");
        Ok(())
    }
}

fn service() -> Service {
    let mut service = Service::new();
    Rc::new(Clerk).serve_on(&mut service);
    service
}

fn with_id(id: &str, heard: &ReplyMetadata) -> CallOptions {
    CallOptions::default().metadata(Metadata::new().with("request-id", id).unwrap()).hear(heard)
}

#[test]
fn metadata_goes_there_and_back_with_every_kind_of_call_and_with_errors_too() {
    reactor::run(|| {
        let (near, _far) = pair(Service::none(), Rc::new(service()));
        let desk = DeskClient::new(near);
        let heard = ReplyMetadata::new();
        let asked = |id: &str| desk.with(with_id(id, &heard));
        let served_by = || heard.get().get_text("served-by").map(str::to_owned);
        assert_eq!(asked("1").ask(false), Ok("1".to_owned()));
        assert_eq!(served_by().as_deref(), Some("clerk"));
        assert_eq!(desk.with(CallOptions::default().hear(&heard)).ask(false), Ok("none".to_owned()));
        assert_eq!(asked("2").ask(true), Err(CallError::Remote("2".to_owned())));
        assert_eq!(served_by().as_deref(), Some("clerk"), "beside an error");
        assert_eq!(asked("3").ask_inline(), Ok("3".to_owned()));
        let load = Payload::from(vec![9; 300_000]);
        assert_eq!(asked("4").carry(load.clone()), Ok(("4".to_owned(), load)));
        assert_eq!(served_by().as_deref(), Some("clerk"));
        let call = desk.tell().unwrap();
        assert_eq!(call.items().count(), 3);
        assert_eq!(call.metadata().get_text("served-by"), Some("clerk"), "without a place for it, too");
        drop(call);
        let call = asked("5").tell().unwrap();
        assert_eq!(call.items().collect::<Result<Vec<_>, _>>(), Ok(vec![0, 1, 2]));
        assert_eq!(call.metadata().get_text("served-by"), Some("clerk"));
        assert_eq!(call.finish(), Ok("5".to_owned()));
        assert_eq!(served_by().as_deref(), Some("clerk"));
        // A call without an answer leaves nothing of the one before.
        let late = CallOptions { timeout: Some(Duration::from_millis(1)), ..with_id("6", &heard) };
        assert_eq!(desk.with(late).hang(), Err(CallError::TimedOut));
        assert_eq!(served_by(), None);
        assert_eq!(desk.with(CallOptions::default().hear(&heard)).shout(), Ok(()));
        assert_eq!(heard.get().size_bytes(), METADATA_SIZE_BYTES_MAX);
    });
}

#[test]
fn who_stands_before_a_service_lets_in_by_a_token_and_the_caller_is_told() {
    reactor::run(|| {
        let mut service = service();
        let denied = Rc::new(Cell::new(0));
        let counted = denied.clone();
        service.around(move |call: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| {
            if call.metadata.get("token") == Some(b"secret") {
                return next();
            }
            counted.set(counted.get() + 1);
            Reply::Denied("a token is missing".to_owned())
        });
        let (near, _far) = pair(Service::none(), Rc::new(service));
        let desk = DeskClient::new(near);
        assert_eq!(desk.ask(false), Err(CallError::Denied("a token is missing".to_owned())));
        let token = Metadata::new().with("token", "secret").unwrap();
        assert_eq!(desk.with(CallOptions::default().metadata(token)).ask(false), Ok("none".to_owned()));
        assert_eq!(denied.get(), 1);
    });
}

/// What a peer gives for a reason is printed and logged by whoever asked it.
#[test]
fn a_reason_to_deny_is_a_part_of_a_line() {
    reactor::run(|| {
        let mut service = service();
        service.around(|_: &CallInfo<'_>, _: &mut dyn FnMut() -> Reply| {
            Reply::Denied("none\n\u{1b}[2Jhealthy: café\u{202e}".to_owned())
        });
        let (near, _far) = pair(Service::none(), Rc::new(service));
        let told = DeskClient::new(near).ask(false);
        assert_eq!(told, Err(CallError::Denied(r"none\n\u{1b}[2Jhealthy: café\u{202e}".to_owned())));
    });
}

/// An honest callee, and the raw other end of its stream.
fn victim() -> (Connection, Pipe) {
    let (near, far) = pipe(1 << 16);
    let victim = Connection::start(near, Rc::new(service()), Config::default());
    far.write_slices(&mut [IoSlice::new(&PREFACE)]).unwrap();
    (victim, far)
}

fn request(call: u32, block: &[u8]) -> Vec<u8> {
    let header = Header::Request {
        call,
        method: 2,
        timeout_ms: 10_000,
        metadata_size: block.len() as u16,
        message_size: 1,
        payload_size: 0,
        priority: Priority::Normal,
    };
    [&header.encode()[..], block, b"\xc0"].concat()
}

/// Reads the next answer.
fn answer(peer: &Pipe, heard: &mut Vec<u8>) -> (Header, Vec<u8>) {
    loop {
        while let Some((found, length)) = frame::decode(heard).unwrap() {
            let (header, message) = (found.header, found.message.to_vec());
            heard.drain(..length);
            if let Header::Response { .. } = header {
                return (header, message);
            }
        }
        let mut buffer = [0; 4096];
        let count = peer.read_some(&mut buffer).unwrap();
        assert_ne!(count, 0, "it hung up");
        heard.extend_from_slice(&buffer[..count]);
        if heard.starts_with(&PREFACE) {
            heard.drain(..PREFACE.len());
        }
    }
}

#[test]
fn a_block_that_is_none_is_refused_by_name_and_harms_no_other_call() {
    reactor::run(|| {
        let (victim, peer) = victim();
        let cases: [(&[u8], &str); 4] = [
            (b"\x00\x01\x00\x00a\x01\x00\x00a", "has not the form"),
            (b"\x00\x05\x00\x00", "has not the form"),
            (b"\x00\x01\x00\x00A", "is no key"),
            (b"\x03\xff\xff\xff", "is no key"),
        ];
        let mut heard = Vec::new();
        for (call, (block, reason)) in (0..).zip(cases) {
            peer.write_slices(&mut [IoSlice::new(&request(call, block))]).unwrap();
            let (header, message) = answer(&peer, &mut heard);
            assert!(
                matches!(header, Header::Response { status: Status::Malformed, call: of, .. } if of == call),
                "{header:?}"
            );
            let said = String::from_utf8(message).unwrap();
            assert!(said.contains(reason), "{said}");
        }
        // A known key, whatever its value: the handler runs.
        peer.write_slices(&mut [IoSlice::new(&request(9, b"\x00\x0a\x01\x00request-idx"))]).unwrap();
        let (header, message) = answer(&peer, &mut heard);
        assert!(matches!(header, Header::Response { status: Status::Response, .. }), "{header:?}");
        assert_eq!(message, b"\xa1x");
        assert_eq!(victim.calls_in_flight(), (0, 0), "what was refused weighs nothing");
    });
}

#[test]
fn a_header_that_claims_more_metadata_than_there_may_be_ends_the_connection() {
    reactor::run(|| {
        let (victim, peer) = victim();
        let mut header = request(1, &vec![0; BLOCK_SIZE_BYTES_MAX])[..HEADER_SIZE_BYTES].to_vec();
        let size = BLOCK_SIZE_BYTES_MAX as u16 + 1;
        header[2..4].copy_from_slice(&size.to_le_bytes());
        peer.write_slices(&mut [IoSlice::new(&header)]).unwrap();
        let expected = FrameError::TooLarge { kind: 1, size_bytes: size.into() };
        assert_eq!(victim.wait_closed(), CloseReason::Protocol(expected));
    });
}

#[test]
fn a_peer_of_an_older_version_is_not_asked_without_what_the_call_needs() {
    reactor::run(|| {
        let (near, far) = pipe(1 << 16);
        let caller = Connection::start(near, Service::none(), Config::default());
        let asked = reactor::spawn(move || {
            let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
            // As an end of version 1: it says nothing of itself, and answers a ping.
            far.write_slices(&mut [IoSlice::new(&[&PREFACE[..], &Header::Pong.encode()].concat())]).unwrap();
            while let Ok(count @ 1..) = far.read_some(&mut buffer) {
                heard.extend_from_slice(&buffer[..count]);
            }
            heard
        });
        let desk = DeskClient::new(&caller);
        let refused = desk.with(with_id("1", &ReplyMetadata::new())).ask(false);
        assert!(matches!(refused, Err(CallError::Unsupported(_))), "{refused:?}");
        let refused = caller.open_with::<Tell>(&(), &with_id("1", &ReplyMetadata::new()));
        assert!(refused.is_err());
        caller.close();
        let heard = asked.join().unwrap();
        let mut rest = &heard[PREFACE.len()..];
        while let Some((found, length)) = frame::decode(rest).unwrap() {
            assert!(
                !matches!(found.header, Header::Request { .. } | Header::Open { .. }),
                "{:?}",
                found.header
            );
            rest = &rest[length..];
        }
        assert_eq!(Bytes::copy_from_slice(rest), Bytes::new());
    });
}
