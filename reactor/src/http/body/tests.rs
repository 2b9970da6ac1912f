//! Bodies in pieces of every size, well-formed and not.

use super::*;
use proptest::prelude::*;

/// Decodes `bytes`, given in pieces that end at `cuts`; the data, and how much was left over.
fn decode(
    framing: Framing,
    limits: BodyLimits,
    bytes: &[u8],
    step: usize,
) -> Result<(Vec<u8>, usize, Headers), BodyError> {
    let mut decoder = BodyDecoder::new(framing, limits);
    let (mut data, mut at, mut end) = (Vec::new(), 0, 0);
    loop {
        match decoder.decode(&bytes[at..end])? {
            Part::Framing(count) => at += count,
            Part::Data(count) => {
                // Taken in two bites, as a reader with a small buffer would.
                let bite = count.div_ceil(2);
                data.extend_from_slice(&bytes[at..at + bite]);
                decoder.consume(bite);
                at += bite;
            }
            Part::NeedMore if end == bytes.len() => {
                decoder.on_end_of_stream()?;
            }
            Part::NeedMore => end = bytes.len().min(end + step),
            Part::End => return Ok((data, bytes.len() - at, decoder.trailers().clone())),
        }
    }
}

fn chunked(bytes: impl AsRef<[u8]>) -> Result<(Vec<u8>, usize, Headers), BodyError> {
    let (bytes, limits) = (bytes.as_ref(), BodyLimits::default());
    let whole = decode(Framing::Chunked, limits, bytes, bytes.len().max(1));
    assert_eq!(whole, decode(Framing::Chunked, limits, bytes, 1), "byte by byte");
    whole
}

#[test]
fn a_chunk_s_size_is_digits_and_nothing_else() {
    for good in
        ["5\r\nhello\r\n0\r\n\r\n", "0005\r\nhello\r\n000\r\n\r\n", "5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n"]
    {
        assert_eq!(chunked(good).unwrap().0, b"hello", "{good:?}");
    }
    for bad in [
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "g\r\n",
        ";a\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: other\r\n\r\n",
    ] {
        assert!(matches!(chunked(bad), Err(BodyError::Malformed(_))), "{bad:?}: {:?}", chunked(bad));
    }
    assert_eq!(chunked("FFFFFFFFFFFFFFFF\r\n").unwrap_err(), BodyError::TooLarge);
}

#[test]
fn what_follows_a_body_is_left_for_the_next_message() {
    let (data, left, trailers) = chunked("3\r\nabc\r\n0\r\nSum: 7\r\n\r\nGET /").unwrap();
    assert_eq!((&data[..], left, trailers.get("sum")), (&b"abc"[..], 5, Some(&b"7"[..])));
    let limits = BodyLimits::default();
    let (data, left, _) = decode(Framing::Length(3), limits, b"abcGET /", 2).unwrap();
    assert_eq!((&data[..], left), (&b"abc"[..], 5));
    assert_eq!(decode(Framing::UntilClose, limits, b"abcdef", 2).unwrap().0, b"abcdef");
    assert_eq!(decode(Framing::Empty, limits, b"GET /", 9).unwrap().1, 5);
}

#[test]
fn a_body_that_breaks_off_is_never_taken_for_a_whole_one() {
    let whole = b"5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(chunked(&whole[..end]).unwrap_err(), BodyError::Truncated, "{end}");
    }
    let cut = decode(Framing::Length(4), BodyLimits::default(), b"abc", 9);
    assert_eq!(cut.unwrap_err(), BodyError::Truncated);
}

#[test]
fn size_extensions_and_trailers_are_limited() {
    let limits = BodyLimits { size_bytes: 10, extensions_bytes: 100, trailers_bytes: 50 };
    let error = |framing, bytes: &str| decode(framing, limits, bytes.as_bytes(), 7).unwrap_err();
    assert_eq!(error(Framing::Length(11), ""), BodyError::TooLarge);
    assert_eq!(error(Framing::UntilClose, "12345678901"), BodyError::TooLarge);
    assert_eq!(error(Framing::Chunked, "6\r\n123456\r\n5\r\n"), BodyError::TooLarge);
    let long = "x".repeat(101);
    assert_eq!(error(Framing::Chunked, &format!("1;{long}")), BodyError::FramingTooLarge);
    let flood = format!("1;{}\r\na\r\n", &long[..40]).repeat(3);
    assert_eq!(error(Framing::Chunked, &flood), BodyError::FramingTooLarge);
    assert_eq!(error(Framing::Chunked, &format!("0\r\nA: {long}")), BodyError::FramingTooLarge);
    let many = "A: b\r\n".repeat(HEADERS_MAX + 1);
    assert!(
        decode(Framing::Chunked, BodyLimits::default(), format!("0\r\n{many}\r\n").as_bytes(), 9).is_err()
    );
}

proptest! {
    #[test]
    fn what_is_chunked_is_read_back_in_pieces_of_any_size(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
        step in 1_usize..400,
    ) {
        let mut wire = Vec::new();
        for piece in &pieces {
            write_chunk_size(&mut wire, piece.len());
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
        }
        let mut trailers = Headers::new();
        trailers.push("Sum", "1").unwrap();
        write_last_chunk(&mut wire, &trailers);
        wire.extend_from_slice(b"rest");
        let (data, left, read) = decode(Framing::Chunked, BodyLimits::default(), &wire, step).unwrap();
        prop_assert_eq!(data, pieces.concat());
        prop_assert_eq!((left, read), (4, trailers));
    }

    /// A second reading of the standard, over whole inputs and as plain as can be: it and the decoder agree on
    /// what is a body and on where it ends.
    #[test]
    fn two_readings_of_the_standard_agree(
        parts in proptest::collection::vec(prop_oneof![
            Just("1\r\na\r\n".to_owned()), Just("A;x=y\r\n0123456789\r\n".to_owned()), Just("0\r\n".to_owned()),
            Just("\r\n".to_owned()), Just("\n".to_owned()), Just("2\r\nab".to_owned()), Just("T: v\r\n".to_owned()),
            Just(" ".to_owned()), Just("1 \r\na\r\n".to_owned()), "[0-9a-f;\r\n]{0,4}",
        ], 0..8),
        step in 1_usize..20,
    ) {
        let wire = parts.concat();
        let ours = decode(Framing::Chunked, BodyLimits::default(), wire.as_bytes(), step);
        match (plain(&wire), ours) {
            (Some((data, left)), Ok(ours)) => {
                prop_assert_eq!(String::from_utf8(ours.0).unwrap(), data);
                prop_assert_eq!(ours.1, left);
            }
            (None, Err(_)) => {}
            (plain, ours) => prop_assert!(false, "{:?}: {:?} against {:?}", wire, plain, ours),
        }
    }
}

fn plain(mut wire: &str) -> Option<(String, usize)> {
    let mut data = String::new();
    loop {
        let (line, rest) = wire.split_once("\r\n")?;
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let hexadecimal = !size.is_empty() && size.len() <= 16 && size.chars().all(|c| c.is_ascii_hexdigit());
        if !hexadecimal || extension.contains(['\r', '\n']) {
            return None;
        }
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            wire = rest;
            break;
        }
        data.push_str(rest.get(..size)?);
        wire = rest.get(size..)?.strip_prefix("\r\n")?;
    }
    loop {
        let (line, rest) = wire.split_once("\r\n")?;
        wire = rest;
        if line.is_empty() {
            return Some((data, wire.len()));
        }
        let name = line.split_once(':')?.0;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) || line.contains(['\r', '\n'])
        {
            return None;
        }
    }
}
