//! Values to bytes and back: serde over MessagePack, the form of every message and stored record.
//!
//! Structs are written as arrays of their fields, in order and without names. So a field's name is free to
//! change, and its position is not: new fields go to the end, with `#[serde(default)]`, and old ones stay.
//! Byte strings are compact only through `serde_bytes` or `bytes::Bytes`; a bare `[u8; 32]` is an array of
//! 32 integers, half of them two bytes long.
//!
//! Decoding is where bytes from outside become values, so it is bounded: the input's length by
//! [`SIZE_BYTES_MAX`], its nesting by [`DEPTH_MAX`], and what a hostile length prefix can make it allocate
//! by the input's own size (`serde` caps what it reserves ahead). Bytes left over are an error: a message
//! says one thing only.
//!
//! Values that are *stored*, and meet later versions of the program, go into envelopes: [`Versioned`]. Any of either
//! kind shows as text through [`view()`].
//!
//! What it is not: a canonical form. Two encoders may write one value differently, so sign and hash the
//! bytes that were sent, never a value encoded again.

mod envelope;
pub mod golden;
mod scan;
mod view;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use envelope::{
    Content, EnvelopeError, Header, MAGIC, TYPE_NAME_BYTES_MAX, Versioned, envelope_header, from_envelope,
    to_envelope,
};
pub use view::view;

/// The longest input that is decoded: an RPC message's own limit is 1 MiB, and the largest stored record,
/// an encoded tree node, stays below 4 MiB.
pub const SIZE_BYTES_MAX: usize = 4 << 20;

/// How deep values may nest. Ours nest about eight deep. The decoder spends some 300 bytes to 1 KiB of
/// stack a level, and a coroutine has 256 KiB in all.
pub const DEPTH_MAX: usize = 48;

/// Encodes `value`.
///
/// # Panics
/// If the type cannot be written as MessagePack (a map or sequence of unknown length, or a `Serialize`
/// that fails): that is a bug of the type, not of the value.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    append(&mut bytes, value);
    bytes
}

/// Encodes `value` behind what `bytes` already holds: a frame's header, for one.
///
/// # Panics
/// As [`to_bytes`].
pub fn append<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) {
    if let Err(error) = rmp_serde::encode::write(bytes, value) {
        panic!("{} cannot be written as MessagePack: {error}", std::any::type_name::<T>());
    }
}

/// Decodes a value that fills `bytes` exactly.
///
/// # Errors
/// [`DecodeError`], with the byte position where one is known. The bytes are not worth keeping.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode(bytes, |decoder| T::deserialize(decoder))
}

/// The decoder of a value that fills the bytes; `read` says how it is read, and nothing of what bounds it.
pub(crate) fn decode<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Decoder<'_, '_>) -> Result<T, rmp_serde::decode::Error>,
) -> Result<T, DecodeError> {
    if bytes.len() > SIZE_BYTES_MAX {
        return Err(DecodeError::TooLong { length_bytes: bytes.len() });
    }
    // The decoder counts arrays and maps on its own, and not single-value variants of enums, through which a type may
    // contain itself. Each level takes two bytes at least, so short inputs need no look.
    if bytes.len() > 2 * DEPTH_MAX && scan::measure(bytes) == Err(scan::Fault::TooDeep) {
        return Err(DecodeError::TooDeep);
    }
    let mut rest = bytes;
    let mut decoder = rmp_serde::Deserializer::new(&mut rest);
    decoder.set_max_depth(DEPTH_MAX);
    let value = read(&mut decoder).map_err(|error| DecodeError::Invalid {
        type_name: std::any::type_name::<T>(),
        reason: error.to_string(),
    })?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing { extra_bytes: rest.len() });
    }
    Ok(value)
}

/// What values are read from.
pub(crate) type Decoder<'r, 'b> = rmp_serde::Deserializer<rmp_serde::decode::ReadReader<&'r mut &'b [u8]>>;

/// Why bytes are not a value.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than anything we would have written.
    #[error("{length_bytes} bytes are more than the {SIZE_BYTES_MAX} a value may take: refuse the sender")]
    TooLong {
        /// How long the input was.
        length_bytes: usize,
    },
    /// Nested deeper than anything we would have written.
    #[error("the bytes nest deeper than the {DEPTH_MAX} levels a value may have: refuse the sender")]
    TooDeep,
    /// Not the encoding of this type: a newer peer's message, damage, or hostility.
    #[error("the bytes are no {type_name}: {reason}; check that both sides run compatible versions")]
    Invalid {
        /// The Rust type that was expected.
        type_name: &'static str,
        /// What the decoder met.
        reason: String,
    },
    /// A whole value, and then more.
    #[error("{extra_bytes} bytes follow the value: check that both sides run compatible versions")]
    Trailing {
        /// How many bytes were left over.
        extra_bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Named { name: String, content: Bytes, list: Vec<Option<u64>> },
        Pair(Box<(Shape, Shape)>),
        Map(BTreeMap<u16, String>),
    }

    #[test]
    fn a_value_reads_back_as_it_was() {
        let name = "ü".to_owned();
        let content = Bytes::from_static(b"\x00\xff");
        let named = Shape::Named { name, content, list: vec![None, Some(u64::MAX)] };
        let shape = Shape::Pair(Box::new((named, Shape::Point)));
        assert_eq!(from_bytes::<Shape>(&to_bytes(&shape)).unwrap(), shape);
        assert_eq!(from_bytes::<()>(&to_bytes(&())), Ok(()));
    }

    #[test]
    fn bytes_behind_a_value_are_an_error() {
        let mut bytes = to_bytes(&7u32);
        bytes.push(0);
        assert_eq!(from_bytes::<u32>(&bytes), Err(DecodeError::Trailing { extra_bytes: 1 }));
    }

    #[test]
    fn nesting_deeper_than_the_limit_is_refused_and_not_recursed_into() {
        let mut shape = Shape::Point;
        for _ in 0..1_000 {
            shape = Shape::Pair(Box::new((Shape::Point, shape)));
        }
        assert_eq!(from_bytes::<Shape>(&to_bytes(&shape)), Err(DecodeError::TooDeep));
    }

    #[test]
    fn a_type_that_contains_itself_through_variants_alone_is_bounded_too() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum Chain {
            End,
            Next(Box<Chain>),
        }
        let bytes =
            |links: usize| [[0x81, 0xa4, b'N', b'e', b'x', b't'].repeat(links), b"\xa3End".to_vec()].concat();
        assert!(from_bytes::<Chain>(&bytes(DEPTH_MAX)).is_ok());
        assert_eq!(from_bytes::<Chain>(&bytes(DEPTH_MAX + 1)), Err(DecodeError::TooDeep));
        // It would take the stack of any thread, were it recursed into.
        assert_eq!(from_bytes::<Chain>(&bytes(500_000)), Err(DecodeError::TooDeep));
    }

    #[test]
    fn a_length_prefix_that_lies_allocates_nothing_to_speak_of() {
        // An array of 2^32 - 1 elements, then nothing; and a byte string of 4 GiB.
        assert!(from_bytes::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(from_bytes::<Bytes>(&[0xc6, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(from_bytes::<String>(&[0xdb, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn an_oversized_input_is_refused_unread() {
        let bytes = vec![0xc0; SIZE_BYTES_MAX + 1];
        let refused = DecodeError::TooLong { length_bytes: SIZE_BYTES_MAX + 1 };
        assert_eq!(from_bytes::<()>(&bytes), Err(refused));
    }

    #[test]
    fn a_field_added_at_the_end_with_a_default_reads_old_messages() {
        #[derive(Serialize)]
        struct Old(u8, u8);
        #[derive(Debug, PartialEq, Deserialize)]
        struct New(u8, u8, #[serde(default)] Option<u8>);
        assert_eq!(from_bytes::<New>(&to_bytes(&Old(1, 2))), Ok(New(1, 2, None)));
    }

    proptest! {
        #[test]
        fn random_and_truncated_bytes_never_panic(bytes: Vec<u8>, cut: prop::sample::Index) {
            let _ = from_bytes::<Shape>(&bytes);
            let _ = from_bytes::<Vec<(String, Bytes)>>(&bytes);
            let whole = to_bytes(&Shape::Map(BTreeMap::from([(1, "one".into()), (2, "two".into())])));
            let cut = &whole[..cut.index(whole.len())];
            prop_assert!(from_bytes::<Shape>(cut).is_err());
        }
    }
}
