//! Parsers of HTTP/1.1: heads, chunked bodies, forms with files.

use ::reactor::http::{
    BodyDecoder, BodyLimits, Framing, HeadLimits, Headers, MultipartDecoder, MultipartLimits, MultipartPiece,
    Part, RequestHead, ResponseHead, write_chunk_size, write_last_chunk,
};

use crate::Target;

/// A request's head, whole and in two pieces: the same answer, and nothing in it that would split a head of ours.
pub const HTTP_REQUEST: Target = Target {
    name: "http_request",
    body: |data| {
        let limits = HeadLimits::default();
        let mut head = RequestHead::new();
        let whole = head.parse(data, &limits);
        let mut again = RequestHead::new();
        let first = again.parse(&data[..data.len() / 2], &limits);
        if first == Ok(None) {
            // What can't be a head may be told later when it comes in pieces, never taken for one.
            let second = again.parse(data, &limits);
            assert!(
                second == whole || (whole.is_err() && second == Ok(None)),
                "{second:?}, and whole {whole:?}"
            );
        }
        if let Ok(Some(size)) = whole {
            assert!(size <= data.len() && data[..size].ends_with(b"\r\n"));
            assert!(!head.target().contains([' ', '\r', '\n']));
            assert!(head.authority().is_ascii() && head.path().is_ascii());
            let mut copy = Headers::new();
            for (name, value) in head.headers().iter() {
                if !matches!(&*name.to_ascii_lowercase(), "content-length" | "transfer-encoding") {
                    copy.push(name, value).expect("what was read may be written");
                }
            }
        }
    },
    seeds: || {
        vec![
            b"GET /a/b?c=d HTTP/1.1\r\nHost: example.org:80\r\nConnection: keep-alive, Upgrade\r\n\r\n"
                .to_vec(),
            b"\r\nPOST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n"
                .to_vec(),
            b"POST / HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nA:\r\n\r\n0\r\n\r\n".to_vec(),
            b"CONNECT h:1 HTTP/1.0\r\n\r\n".to_vec(),
            b"OPTIONS * HTTP/1.1\r\nhost:\r\n\r\n".to_vec(),
        ]
    },
};

/// A response's head.
pub const HTTP_RESPONSE: Target = Target {
    name: "http_response",
    body: |data| {
        let mut head = ResponseHead::new();
        if let Ok(Some(size)) = head.parse(data, &HeadLimits::default()) {
            assert!(size <= data.len());
            assert!(head.status().as_u16() < 600);
        }
    },
    seeds: || {
        vec![
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
            b"HTTP/1.1 404 \r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_vec(),
            b"HTTP/1.0 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_vec(),
        ]
    },
};

/// A chunked body, whole and byte by byte: the same data, the same end, the same verdict.
pub const HTTP_CHUNKED: Target = Target {
    name: "http_chunked",
    body: |data| {
        let whole = decode(data, data.len().max(1));
        assert_eq!(whole, decode(data, 1), "byte by byte");
    },
    seeds: || {
        let mut wire = Vec::new();
        write_chunk_size(&mut wire, 12);
        wire.extend_from_slice(b"hello, world\r\n5;name=\"value\"\r\nhello\r\n");
        let mut trailers = Headers::new();
        trailers.push("Checksum", "1234").expect("a constant that is right");
        write_last_chunk(&mut wire, &trailers);
        vec![wire, b"0\r\n\r\n".to_vec(), b"1\r\na\r\n0\r\nA: b\r\nC: d\r\n\r\nrest".to_vec()]
    },
};

fn decode(data: &[u8], step: usize) -> Option<(Vec<u8>, usize, usize)> {
    let limits = BodyLimits { size_bytes: 1 << 20, ..BodyLimits::default() };
    let mut decoder = BodyDecoder::new(Framing::Chunked, limits);
    let (mut out, mut at, mut end) = (Vec::new(), 0, 0);
    loop {
        match decoder.decode(&data[at..end]).ok()? {
            Part::Framing(count) => at += count,
            Part::Data(count) => {
                out.extend_from_slice(&data[at..at + count]);
                decoder.consume(count);
                at += count;
            }
            Part::NeedMore if end == data.len() => return None,
            Part::NeedMore => end = data.len().min(end + step),
            Part::End => return Some((out, at, decoder.trailers().len())),
        }
    }
}

/// A form with files, after its `Content-Type` and a line end: whole and byte by byte, the same parts. What a file is to be
/// called is one step of a path.
pub const HTTP_MULTIPART: Target = Target {
    name: "http_multipart",
    body: |data| {
        let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        let Ok(content_type) = std::str::from_utf8(&data[..line]) else { return };
        let form = &data[data.len().min(line + 1)..];
        let limits = MultipartLimits { parts: 20, head_bytes: 500, part_bytes: 1_000 };
        let Ok(decoder) = MultipartDecoder::new(content_type, limits) else { return };
        let whole = parts(decoder, form, form.len().max(1));
        let again = MultipartDecoder::new(content_type, limits).expect("it was one before");
        assert_eq!(whole, parts(again, form, 1), "byte by byte");
    },
    seeds: || {
        let part = "\r\nContent-Disposition: form-data; name=\"a\"; filename=\"..\\x/%22y\"\r\nContent-Type: a/b\r\n\r\n";
        vec![
            format!("multipart/form-data; boundary=b\n--b{part}data\r\n--\r\n--b{part}\r\n--b--\r\n").into_bytes(),
            format!("multipart/form-data; boundary=\"a b\"\npreamble\r\n--a b \t{part}1\r\n--a b--end").into_bytes(),
            b"Multipart/Form-Data;boundary=-\n---\r\ncontent-disposition:form-data;name=a;filename*=utf-8''%41\r\n\r\n\r\n-----"
                .to_vec(),
        ]
    },
};

/// The name of a field, that of its file, and its data.
type ReadPart = (String, Option<String>, Vec<u8>);

/// All parts of a form; `None` for what is none.
fn parts(mut decoder: MultipartDecoder, form: &[u8], step: usize) -> Option<Vec<ReadPart>> {
    let (mut at, mut end, mut parts) = (0, 0, Vec::new());
    loop {
        match decoder.decode(&form[at..end]).ok()? {
            MultipartPiece::Framing(count) | MultipartPiece::PartEnd(count) => at += count,
            MultipartPiece::Head(head, count) => {
                at += count;
                let file_name = head.file_name().map(str::to_owned);
                if let Some(name) = &file_name {
                    assert!(!name.contains(['/', '\\', '\0']) && name.len() <= 255 && !name.is_empty());
                    let is_margin = |character: char| character == '.' || character.is_whitespace();
                    assert!(!name.starts_with(is_margin) && !name.ends_with(is_margin));
                }
                parts.push((head.name().to_owned(), file_name, Vec::new()));
            }
            MultipartPiece::Data(count) => {
                let (_, _, data) = parts.last_mut().expect("data is a part's");
                data.extend_from_slice(&form[at..at + count]);
                decoder.consume(count);
                at += count;
            }
            MultipartPiece::NeedMore if end == form.len() => decoder.finish().ok()?,
            MultipartPiece::NeedMore => end = form.len().min(end + step),
            MultipartPiece::End => return Some(parts),
        }
    }
}
