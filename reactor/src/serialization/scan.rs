//! MessagePack taken apart into its tokens, without a type to expect and without recursion.
//!
//! Two need it: the check that a value nests no deeper than it may, before a decoder recurses into it, and the text
//! view of any value.
//!
//! # Source
//! The MessagePack specification (github.com/msgpack/msgpack, spec.md, 2017).

use super::DEPTH_MAX;

/// One step of a value. Elements of an array follow it; of a map, keys and values in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    /// Not checked to be UTF-8.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Array(u32),
    Map(u32),
    Extension(i8, &'a [u8]),
}

/// Why bytes are no MessagePack value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They end within a value, or claim more elements than there are bytes.
    Truncated,
    /// 0xc1, which stands for nothing.
    Reserved,
    /// Deeper than [`DEPTH_MAX`].
    TooDeep,
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Fault> {
    let (taken, left) = rest.split_at_checked(count).ok_or(Fault::Truncated)?;
    *rest = left;
    Ok(taken)
}

/// A big-endian number of `count` bytes, eight at most.
fn number(rest: &mut &[u8], count: usize) -> Result<u64, Fault> {
    Ok(take(rest, count)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn length(rest: &mut &[u8], count: usize) -> Result<usize, Fault> {
    usize::try_from(number(rest, count)?).map_err(|_| Fault::Truncated)
}

fn extension<'a>(rest: &mut &'a [u8], length: usize) -> Result<Token<'a>, Fault> {
    let kind = number(rest, 1)? as u8 as i8;
    Ok(Token::Extension(kind, take(rest, length)?))
}

/// Takes the next token off `rest`.
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Result<Token<'a>, Fault> {
    let marker = number(rest, 1)? as u8;
    let token = match marker {
        0x00..=0x7f => Token::Unsigned(marker.into()),
        0xe0..=0xff => Token::Signed((marker as i8).into()),
        0x80..=0x8f => Token::Map((marker & 0x0f).into()),
        0x90..=0x9f => Token::Array((marker & 0x0f).into()),
        0xa0..=0xbf => Token::Text(take(rest, usize::from(marker & 0x1f))?),
        0xc0 => Token::Nil,
        0xc1 => return Err(Fault::Reserved),
        0xc2 | 0xc3 => Token::Bool(marker == 0xc3),
        // Sizes of 1, 2 and 4 bytes.
        0xc4..=0xc6 => {
            let length = length(rest, 1 << (marker - 0xc4))?;
            Token::Bytes(take(rest, length)?)
        }
        0xc7..=0xc9 => {
            let length = length(rest, 1 << (marker - 0xc7))?;
            extension(rest, length)?
        }
        0xca => Token::F32(f32::from_bits(number(rest, 4)? as u32)),
        0xcb => Token::F64(f64::from_bits(number(rest, 8)?)),
        0xcc..=0xcf => Token::Unsigned(number(rest, 1 << (marker - 0xcc))?),
        0xd0..=0xd3 => {
            let count = 1 << (marker - 0xd0);
            // Moved up to the sign bit and back, so that the sign spreads.
            let unused_bits = 64 - 8 * count as u32;
            Token::Signed((number(rest, count)? << unused_bits) as i64 >> unused_bits)
        }
        0xd4..=0xd8 => extension(rest, 1 << (marker - 0xd4))?,
        0xd9..=0xdb => {
            let length = length(rest, 1 << (marker - 0xd9))?;
            Token::Text(take(rest, length)?)
        }
        0xdc | 0xdd => Token::Array(number(rest, 2 << (marker - 0xdc))? as u32),
        0xde | 0xdf => Token::Map(number(rest, 2 << (marker - 0xde))? as u32),
    };
    let elements = match token {
        Token::Array(count) => u64::from(count),
        Token::Map(count) => 2 * u64::from(count),
        _ => 0,
    };
    // Each takes a byte at least, so a longer claim is a lie.
    if elements > rest.len() as u64 { Err(Fault::Truncated) } else { Ok(token) }
}

/// Checks that one value stands at the begin of `bytes` and nests no deeper than [`DEPTH_MAX`]; how long it is.
///
/// In time linear in the bytes, and in no memory but the stack's.
pub(super) fn measure(bytes: &[u8]) -> Result<usize, Fault> {
    let mut rest = bytes;
    // Elements still to come at each level.
    let mut open = [0u64; DEPTH_MAX];
    let mut depth = 0;
    loop {
        let elements = match next(&mut rest)? {
            Token::Array(count) => u64::from(count),
            Token::Map(count) => 2 * u64::from(count),
            _ => 0,
        };
        if elements > 0 {
            *open.get_mut(depth).ok_or(Fault::TooDeep)? = elements;
            depth += 1;
            continue;
        }
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return Ok(bytes.len() - rest.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(mut bytes: &[u8]) -> Vec<Token<'_>> {
        let mut tokens = Vec::new();
        while !bytes.is_empty() {
            tokens.push(next(&mut bytes).unwrap());
        }
        tokens
    }

    #[test]
    fn every_form_of_the_specification_is_read() {
        use Token::*;
        let cases: &[(&[u8], Token<'_>)] = &[
            (&[0x7f], Unsigned(127)),
            (&[0xe0], Signed(-32)),
            (&[0xcc, 200], Unsigned(200)),
            (&[0xcd, 1, 0], Unsigned(256)),
            (&[0xce, 1, 0, 0, 0], Unsigned(1 << 24)),
            (&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255], Unsigned(u64::MAX)),
            (&[0xd0, 0x80], Signed(-128)),
            (&[0xd1, 0xff, 0xfe], Signed(-2)),
            (&[0xd2, 0x80, 0, 0, 0], Signed(i32::MIN as i64)),
            (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], Signed(i64::MIN)),
            (&[0xca, 0x3f, 0x80, 0, 0], F32(1.0)),
            (&[0xcb, 0xc0, 0, 0, 0, 0, 0, 0, 0], F64(-2.0)),
            (&[0xc0], Nil),
            (&[0xc2], Bool(false)),
            (&[0xc3], Bool(true)),
            (&[0xa2, b'h', b'i'], Text(b"hi")),
            (&[0xd9, 1, b'x'], Text(b"x")),
            (&[0xda, 0, 1, b'x'], Text(b"x")),
            (&[0xdb, 0, 0, 0, 1, b'x'], Text(b"x")),
            (&[0xc4, 1, 9], Bytes(&[9])),
            (&[0xc5, 0, 1, 9], Bytes(&[9])),
            (&[0xc6, 0, 0, 0, 1, 9], Bytes(&[9])),
            (&[0xd4, 5, 9], Extension(5, &[9])),
            (&[0xd5, 0xff, 9, 8], Extension(-1, &[9, 8])),
            (&[0xc7, 0, 3], Extension(3, &[])),
            (&[0xc8, 0, 1, 3, 9], Extension(3, &[9])),
            (&[0xc9, 0, 0, 0, 1, 3, 9], Extension(3, &[9])),
            (&[0x90], Array(0)),
            (&[0xdc, 0, 0], Array(0)),
            (&[0xdd, 0, 0, 0, 0], Array(0)),
            (&[0x80], Map(0)),
            (&[0xde, 0, 0], Map(0)),
            (&[0xdf, 0, 0, 0, 0], Map(0)),
        ];
        for (bytes, token) in cases {
            assert_eq!(tokens(bytes), [*token], "{bytes:x?}");
            assert_eq!(measure(bytes), Ok(bytes.len()));
            for cut in 0..bytes.len() {
                assert_eq!(measure(&bytes[..cut]), Err(Fault::Truncated));
            }
        }
        assert_eq!(measure(&[0xc1]), Err(Fault::Reserved));
        assert_eq!(measure(&[0xd8; 18]), Ok(18), "sixteen bytes of extension");
    }

    #[test]
    fn depth_counts_what_is_open_and_not_what_was() {
        let nested = |levels: usize| [vec![0x91; levels - 1], vec![0x90]].concat();
        // An empty array opens nothing, so the innermost is free.
        assert_eq!(measure(&nested(DEPTH_MAX + 1)), Ok(DEPTH_MAX + 1));
        assert_eq!(measure(&nested(DEPTH_MAX + 2)), Err(Fault::TooDeep));
        let side_by_side = [vec![0xdc, 3, 0xe8], [0x91, 0x91, 0x00].repeat(1000)].concat();
        assert_eq!(measure(&side_by_side), Ok(side_by_side.len()));
    }

    proptest! {
        #[test]
        fn what_is_encoded_measures_as_long_as_it_is(value: Vec<(u64, Option<String>, Vec<i32>, f64)>, tail: Vec<u8>) {
            let mut bytes = super::super::to_bytes(&value);
            let length = bytes.len();
            bytes.extend(tail);
            prop_assert_eq!(measure(&bytes), Ok(length));
        }
    }
}
