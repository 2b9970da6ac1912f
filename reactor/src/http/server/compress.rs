//! Compression of responses, as far as the client and the content are for it. Only `gzip`: everyone has it.
//!
//! Nothing is compressed that its handler has not called compressible, and a part of a resource never is: its range
//! counts the bytes of the original.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;

use crate::http::response::Body;
use crate::http::{Headers, RequestHead, Response};
use crate::offload;

/// Below this a packet is saved at best, and its head is the larger part.
const SIZE_BYTES_MIN: usize = 256;

/// Larger bodies are compressed on another thread: 64 KiB take about a millisecond here.
const HERE_BYTES_MAX: usize = 64 << 10;

/// Level 5: nearly the size of the default, in half its time.
const LEVEL: u32 = 5;

/// Compresses the response if the client takes that, and says what it depended on.
///
/// Suspends while a large body is compressed elsewhere.
pub(super) fn negotiate(head: &RequestHead, mut response: Response) -> Response {
    let headers = &mut response.headers;
    if response.status != StatusCode::OK || headers.contains("content-encoding") {
        return response;
    }
    if !headers.has_token("vary", "accept-encoding") && headers.push("Vary", "Accept-Encoding").is_err() {
        return response;
    }
    if !accepts_gzip(head.headers()) {
        return response;
    }
    response.body = match response.body {
        Body::Stream { length: None | Some(SIZE_MIN..), reads_request, write } => {
            response.gzip = true;
            Body::Stream { length: None, reads_request, write }
        }
        body => match body.bytes() {
            Some(bytes) if bytes.len() >= SIZE_BYTES_MIN => Body::Owned(compress(body)),
            _ => {
                response.body = body;
                return response;
            }
        },
    };
    // The same content, and not the same bytes: no range of these fits to those.
    let weak = headers.get_str("etag").filter(|etag| !etag.starts_with("W/")).map(|etag| format!("W/{etag}"));
    if let Some(weak) = weak {
        let _ = headers.set("ETag", weak);
    }
    let _ = headers.set("Accept-Ranges", "none");
    let _ = headers.push("Content-Encoding", "gzip");
    response
}

const SIZE_MIN: u64 = SIZE_BYTES_MIN as u64;

fn compress(body: Body) -> Vec<u8> {
    let squeeze = |bytes: &[u8]| {
        let mut encoder = encoder();
        // Writing to memory does not fail.
        let _ = encoder.write_all(bytes);
        encoder.finish().unwrap_or_default()
    };
    match body {
        Body::Owned(bytes) if bytes.len() > HERE_BYTES_MAX => offload(move || squeeze(&bytes)),
        Body::Shared(bytes) if bytes.len() > HERE_BYTES_MAX => offload(move || squeeze(&bytes)),
        Body::Static(bytes) if bytes.len() > HERE_BYTES_MAX => offload(move || squeeze(bytes)),
        body => squeeze(body.bytes().unwrap_or_default()),
    }
}

fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::new(LEVEL))
}

/// Compresses what is streamed.
pub(super) struct Squeezer(GzEncoder<Vec<u8>>);

impl Squeezer {
    pub(super) fn new() -> Squeezer {
        Squeezer(encoder())
    }

    /// Takes `bytes` in; what has come out of it goes to `out`.
    pub(super) fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.0.write_all(bytes)?;
        out.append(self.0.get_mut());
        Ok(())
    }

    /// Makes all that was taken in readable.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.0.flush()?;
        out.append(self.0.get_mut());
        Ok(())
    }

    /// The end.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.0.try_finish()?;
        out.append(self.0.get_mut());
        Ok(())
    }
}

fn accepts_gzip(headers: &Headers) -> bool {
    accepts_coding(headers, &["gzip", "x-gzip"])
}

/// Whether the client prefers a coding, of one of these names, to nothing, by the weights that it gives (RFC 9110
/// section 12.5.3).
pub(in crate::http) fn accepts_coding(headers: &Headers, names: &[&str]) -> bool {
    let (mut coding, mut identity, mut any) = (None, None, None);
    for element in headers.list("accept-encoding") {
        let Ok(element) = std::str::from_utf8(element) else { continue };
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let Some(weight) = weight.map_or(Some(1000), parse_weight) else { continue };
        if names.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            coding = Some(weight);
        } else if name.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else if name == "*" {
            any = Some(weight);
        }
    }
    let coding = coding.or(any).unwrap_or(0);
    // What is not named is acceptable, and less so than what is.
    coding > 0 && coding >= identity.unwrap_or(1)
}

/// A weight in thousandths: `0`, `0.5`, `1.000`.
fn parse_weight(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse::<u32>().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_only_to_those_who_prefer_it_to_nothing() {
        for (value, expected) in [
            ("gzip", true),
            ("GZIP", true),
            ("deflate, gzip;q=0.5, br", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("identity;q=0.5, gzip;q=0.4", false),
            ("identity;q=0, gzip;q=0.001", true),
            ("br", false),
            ("gzip;q=2", false),
            ("gzip;q=x", false),
            ("", false),
        ] {
            let mut headers = Headers::new();
            headers.push("Accept-Encoding", value).unwrap();
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
        assert!(!accepts_gzip(&Headers::new()));
        let mut headers = Headers::new();
        headers.push("Accept-Encoding", "gzip;q=0, br").unwrap();
        assert!(accepts_coding(&headers, &["br"]) && !accepts_coding(&headers, &["zstd"]));
    }
}
