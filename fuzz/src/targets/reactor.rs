//! Parsers of the reactor: MessagePack values, sealed secrets, RPC frames.

use std::collections::BTreeMap;

use ::reactor::crypto::{Identity, PublicKey, Signature, seal};
use ::reactor::rpc::frame::{self, Header};
use ::reactor::serialization::{from_bytes, to_bytes};

use crate::Target;

/// What messages are made of, nested: numbers, texts, bytes, lists, maps, options, keys.
type Sample =
    (u64, Option<String>, Vec<(i32, PublicKey)>, BTreeMap<String, Vec<Option<bool>>>, Option<Signature>);

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
    },
    seeds: || {
        let key = Identity::from_seed(&[7; 32]);
        let map = BTreeMap::from([("name".to_owned(), vec![Some(true), None])]);
        let sample: Sample =
            (1 << 40, Some("text".into()), vec![(-5, key.public_key())], map, Some(key.sign(b"m")));
        vec![to_bytes(&sample), to_bytes(&vec![vec![vec![1u8, 2, 3]]]), to_bytes("plain")]
    },
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

/// A stream of frames, as far as it goes; each header that decodes must encode to the same bytes.
pub const RPC_FRAME: Target = Target {
    name: "rpc_frame",
    body: |data| {
        let mut rest = data;
        while let Ok(Some((found, length))) = frame::decode(rest) {
            assert!(length >= frame::HEADER_SIZE_BYTES && length <= rest.len());
            assert_eq!(found.header.encode()[..], rest[..frame::HEADER_SIZE_BYTES]);
            rest = &rest[length..];
        }
    },
    seeds: || {
        let request =
            Header::Request { call: 1, method: 0x0200, timeout_ms: 1000, message_size: 5, payload_size: 9 };
        let part = Header::RequestPart { call: 1, size: 4 };
        let stream = [&request.encode()[..], b"hellopart1", &part.encode(), b"rest", &Header::Ping.encode()];
        vec![stream.concat(), Header::Cancel { call: 1 }.encode().to_vec(), Header::Goodbye.encode().to_vec()]
    },
};
