//! Parsers of the reactor: MessagePack values, sealed secrets, RPC frames.

use std::collections::BTreeMap;

use ::reactor::crypto::{Identity, PublicKey, Signature, key_file, seal};
use ::reactor::rpc::budget::{Budget, IN_HAND_BYTES_MAX, PEER_BYTES_MAX, Pool, Weight};
use ::reactor::rpc::frame::{self, Header, OPTIONAL_KIND_MIN, Priority, Side};
use ::reactor::rpc::hello::Wire;
use ::reactor::rpc::metadata::{Block, METADATA_SIZE_BYTES_MAX, Metadata};
use ::reactor::rpc::window::{Inbound, Outbound, Taken};
use ::reactor::serialization::{
    Content, EnvelopeError, Versioned, envelope_header, from_bytes, from_envelope, to_bytes, to_envelope,
    view,
};

use crate::Target;

/// What messages are made of, nested: numbers, texts, bytes, lists, maps, options, keys.
type Sample =
    (u64, Option<String>, Vec<(i32, PublicKey)>, BTreeMap<String, Vec<Option<bool>>>, Option<Signature>);

/// A type that contains itself through variants of one value, which the decoder does not count by itself.
#[derive(serde::Serialize, serde::Deserialize)]
enum Nested {
    Not(Box<Nested>),
    And(Vec<Nested>),
    Name(String),
}

/// MessagePack into values of every shape that our messages have.
pub const SERIALIZATION: Target = Target {
    name: "serialization",
    body: |data| {
        if let Ok(value) = from_bytes::<Sample>(data) {
            let again: Sample = from_bytes(&to_bytes(&value)).expect("what we encode decodes");
            assert_eq!(again, value);
        }
        // Types with no end of their own: only the decoder's bounds stop them.
        let _ = from_bytes::<Vec<Vec<Vec<u8>>>>(data);
        let _ = from_bytes::<BTreeMap<String, BTreeMap<String, String>>>(data);
        let _ = from_bytes::<String>(data);
        let _ = from_bytes::<Nested>(data);
        let _ = ::reactor::rpc::read_message::<Nested>(data);
    },
    seeds: || {
        let key = Identity::from_seed(&[7; 32]);
        let map = BTreeMap::from([("name".to_owned(), vec![Some(true), None])]);
        let sample: Sample =
            (1 << 40, Some("text".into()), vec![(-5, key.public_key())], map, Some(key.sign(b"m")));
        let deep = (0..40).fold(Nested::Name("x".into()), |inner, _| Nested::Not(Box::new(inner)));
        let nested = to_bytes(&Nested::And(vec![deep]));
        vec![to_bytes(&sample), to_bytes(&vec![vec![vec![1u8, 2, 3]]]), to_bytes("plain"), nested]
    },
};

/// Of the kind that programs store: three fields, of which an older version knew one.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Stored {
    name: String,
    #[serde(default)]
    numbers: Vec<Option<i64>>,
    #[serde(default)]
    content: bytes::Bytes,
}

impl Versioned for Stored {
    const TYPE_NAME: &'static str = "stored";
    const VERSION: u32 = 2;

    fn upgrade(_: u32, content: Content<'_>) -> Result<Stored, EnvelopeError> {
        content.decode()
    }
}

/// An envelope of any version, and the text that shows it or whatever else it is: bounded, whatever the bytes.
pub const ENVELOPE: Target = Target {
    name: "envelope",
    body: |data| {
        let shown = view(data).to_string();
        assert!(!shown.is_empty() && shown.len() <= 100 + 60 * data.len(), "{} bytes of text", shown.len());
        let _ = envelope_header(data);
        if let Ok(value) = from_envelope::<Stored>(data) {
            let again: Stored = from_envelope(&to_envelope(&value)).expect("what we encode decodes");
            assert_eq!(again, value);
        }
    },
    seeds: || {
        let content = bytes::Bytes::from_static(b"\x00\xff");
        let stored = Stored { name: "name".into(), numbers: vec![Some(-1), None, Some(i64::MAX)], content };
        let current = to_envelope(&stored);
        // The version stands right behind the name: 1 instead of 2, then a newer one.
        let with_version = |version| {
            let mut bytes = current.clone();
            bytes[4 + 1 + "stored".len()] = version;
            bytes
        };
        vec![current.clone(), with_version(1), with_version(3), to_bytes(&(1, "two", [3.5], None::<u8>))]
    },
};

/// A file with a secret under a password, as far as it is read without the password: its cost is bounded there.
pub const KEY_FILE: Target = Target {
    name: "key_file",
    body: |data| {
        if let Ok(cost) = key_file::cost(data) {
            let work = u64::from(cost.memory_kib) * u64::from(cost.passes);
            assert!(cost.memory_kib <= key_file::MEMORY_KIB_MAX && work <= key_file::WORK_KIB_MAX, "{cost}");
        }
    },
    seeds: || vec![::reactor::run(|| key_file::seal(b"secret", b"password", key_file::Cost::LOWEST))],
};

/// A secret sealed to a key: short, wrong, altered.
pub const SEALED: Target = Target {
    name: "sealed",
    body: |data| {
        let secret = Identity::from_seed(&[7; 32]).sealing_key();
        let _ = seal::open(&secret, data);
    },
    seeds: || {
        let secret = Identity::from_seed(&[7; 32]).sealing_key();
        vec![seal::seal_to(&secret.public(), b"the key of the root")]
    },
};

/// What a receiver and a sender of a stream do with a frame: their windows hold whatever comes.
fn follow((inbound, outbound): &mut (Inbound, Outbound), found: frame::Frame<'_>) {
    match found.header {
        Header::Item { call, .. } => {
            let _ = inbound.on_item(call, found.message.to_vec());
            if call % 2 == 0 {
                assert_ne!(inbound.take(), Taken::Ended);
            }
        }
        // Who leaves the window is cut off, so what comes after is another's.
        Header::Credit { call, bytes, .. } if outbound.on_credit(call, bytes).is_err() => {
            *outbound = Outbound::default();
        }
        Header::Hello { .. } => _ = Wire::Announced.on_hello(found.message),
        Header::Cancel { call } => _ = Wire::on_first_cancel(call),
        _ => {}
    }
    assert!(inbound.waiting_bytes() <= ::reactor::rpc::window::STREAM_WINDOW_BYTES);
}

/// What a callee does with a frame that begins or ends a call: its account holds whatever comes. Handlers of calls with
/// an even number end at once; the replies of every fourth leave, and the others wait.
fn charge(budget: &mut Budget<u32>, header: Header) {
    let request_bytes = header.metadata_size() + header.message_size();
    let admitted = match header {
        Header::Request { call, method, .. } => {
            let weight = Weight::of_call(request_bytes + header.part_size(), method as usize % (8 << 20));
            budget.admit(call, weight).map(|admitted| admitted.then_some(call))
        }
        Header::Open { call, method, .. } => {
            let weight = Weight::of_stream(request_bytes, method as usize % (1 << 20));
            budget.admit(call, weight).map(|admitted| admitted.then_some(call))
        }
        Header::Cancel { call } => {
            let _ = budget.cancel(call);
            Ok(None)
        }
        Header::Ping => {
            let _ = budget.courtesy(0);
            Ok(None)
        }
        _ => Ok(None),
    };
    if let Ok(Some(call)) = admitted {
        assert_eq!(budget.attach(call, call), None);
        let reply = (call % 2 == 0).then(|| budget.end(call).expect("nobody has cancelled it"));
        reply.filter(|_| call % 4 == 0).into_iter().for_each(|reply| budget.give_back(reply));
    }
    assert!(budget.charged_bytes() + IN_HAND_BYTES_MAX <= PEER_BYTES_MAX);
}

/// A stream of frames, as far as it goes; each header that decodes must encode to the same bytes.
pub const RPC_FRAME: Target = Target {
    name: "rpc_frame",
    body: |data| {
        let mut rest = data;
        let mut streams = (Inbound::default(), Outbound::default());
        let mut budget = Budget::new(Pool::new(1 << 30));
        while let Ok(Some((found, length))) = frame::decode(rest) {
            assert!(length >= frame::HEADER_SIZE_BYTES && length <= rest.len());
            // What a later version has in its other fields is not kept.
            if rest[0] < OPTIONAL_KIND_MIN {
                assert_eq!(found.header.encode()[..], rest[..frame::HEADER_SIZE_BYTES]);
            }
            // A block has one form, and says no more than it may.
            if let Ok(block) = Block::decode(found.metadata) {
                assert_eq!(Block::encode(&block.service, &block.metadata), found.metadata);
                assert!(block.metadata.size_bytes() <= METADATA_SIZE_BYTES_MAX);
                let mut again = Metadata::new();
                for (key, value) in block.metadata.iter() {
                    again.set(key, value).expect("what was read can be written");
                }
                assert_eq!(again, block.metadata);
            }
            charge(&mut budget, found.header);
            follow(&mut streams, found);
            rest = &rest[length..];
        }
    },
    seeds: || {
        let priority = Priority::High;
        let (method, timeout_ms) = (0x0200, 1000);
        let request = Header::Request {
            call: 1,
            method,
            timeout_ms,
            metadata_size: 0,
            message_size: 5,
            payload_size: 9,
            priority,
        };
        let metadata = Metadata::new().with("id", "7").and_then(|metadata| metadata.with("token", b"\xff"));
        let block =
            Block::encode(&::reactor::rpc::ServiceName::from_static("log"), &metadata.expect("it is short"));
        let metadata_size = block.len() as u16;
        let named = Header::Request {
            call: 3,
            method,
            timeout_ms,
            metadata_size,
            message_size: 1,
            payload_size: 0,
            priority,
        };
        let open = Header::Open { call: 2, method, timeout_ms, metadata_size: 0, message_size: 1, priority };
        let item = Header::Item { side: Side::Response, call: 2, size: 3 };
        let credit = Header::Credit { side: Side::Request, call: 2, bytes: 100 };
        let stop = Header::Stop { side: Side::Request, call: 2 };
        let hello = Header::Hello { message_size: 3 };
        let later = Header::Optional { kind: 200, message_size: 2 };
        let streaming = [
            &open.encode()[..],
            b"\xc0",
            &item.encode(),
            b"abc",
            &credit.encode(),
            &stop.encode(),
            &Header::End { call: 2 }.encode(),
            &hello.encode(),
            b"\x92\x02\x07",
            &later.encode(),
            b"??",
        ];
        let part = Header::RequestPart { call: 1, size: 4 };
        let stream = [&request.encode()[..], b"hellopart1", &part.encode(), b"rest", &Header::Ping.encode()];
        vec![
            stream.concat(),
            streaming.concat(),
            [&named.encode()[..], &block, b"\xc0"].concat(),
            Header::Cancel { call: 1 }.encode().to_vec(),
            Header::Goodbye.encode().to_vec(),
        ]
    },
};
