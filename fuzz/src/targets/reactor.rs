//! Parsers of the reactor: MessagePack values, sealed secrets, RPC frames.

use std::collections::BTreeMap;

use ::reactor::crypto::{Identity, PublicKey, Signature, seal};
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
