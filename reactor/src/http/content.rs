//! Something that is served with a size, a version and parts: a file, or bytes in memory.
//!
//! It answers conditions first, then ranges, then sends the whole.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::conditional::{Condition, Validators, evaluate, range_applies};
use super::range::{Ranges, parse_ranges};
use super::{BodyWriter, Request, Response};
use crate::offload;

/// What is read from a file at once: one trip to another thread for each.
const READ_SIZE_BYTES: usize = 256 << 10;

/// Where the bytes are.
#[derive(Clone)]
enum Source {
    Memory(Bytes),
    File(Arc<OwnedFd>),
}

/// What a resource is, ready to be served in whole or in part.
///
/// # Examples
///
/// ```
/// use reactor::http::{Content, ETag, Method, Server};
///
/// let server = Server::new().route(Method::GET, "/logo", |request| {
///     Content::from_bytes("image/svg+xml", "<svg/>").etag(ETag::strong("v1").unwrap()).respond(request)
/// });
/// ```
pub struct Content {
    content_type: Cow<'static, str>,
    size: u64,
    validators: Validators,
    source: Source,
    compressible: bool,
    /// The coding that the bytes are in already.
    coding: Option<&'static str>,
    /// In other codings it is other bytes.
    varies: bool,
}

impl Content {
    /// Bytes in memory.
    pub fn from_bytes(content_type: impl Into<Cow<'static, str>>, bytes: impl Into<Bytes>) -> Content {
        let bytes = bytes.into();
        Content {
            content_type: content_type.into(),
            size: bytes.len() as u64,
            validators: Validators::default(),
            source: Source::Memory(bytes),
            compressible: false,
            coding: None,
            varies: false,
        }
    }

    /// A regular file of `size` bytes, open for reading.
    pub(super) fn from_file(content_type: impl Into<Cow<'static, str>>, file: OwnedFd, size: u64) -> Content {
        Content {
            content_type: content_type.into(),
            size,
            validators: Validators::default(),
            source: Source::File(Arc::new(file)),
            compressible: false,
            coding: None,
            varies: false,
        }
    }

    /// With a name for its version.
    pub fn etag(mut self, etag: super::ETag) -> Content {
        self.validators.etag = Some(etag);
        self
    }

    /// With the time of its last change.
    pub fn last_modified(mut self, time: std::time::SystemTime) -> Content {
        self.validators.last_modified = Some(time);
        self
    }

    /// May be sent compressed; see [`Response::compressible`].
    pub fn compressible(mut self, yes: bool) -> Content {
        self.compressible = yes;
        self
    }

    /// There are several of it, each in a coding of its own; this one is in `coding`, or in none.
    pub(super) fn one_of_several(mut self, coding: Option<&'static str>) -> Content {
        self.varies = true;
        self.coding = coding;
        // Not once more.
        self.compressible &= coding.is_none();
        self
    }

    /// Answers the request's conditions and ranges, and sends what it comes to.
    ///
    /// # Suspends
    ///
    /// Never; the response does, as it is sent.
    ///
    /// # Source
    ///
    /// RFC 9110 sections 13.2.2 and 14.
    pub fn respond(self, request: &Request<'_>) -> Response {
        let headers = request.headers();
        match evaluate(request.method(), headers, &self.validators) {
            Condition::Proceed => {}
            Condition::NotModified => return self.describe(Response::of_status(StatusCode::NOT_MODIFIED)),
            Condition::Failed => return self.describe(Response::of_status(StatusCode::PRECONDITION_FAILED)),
        }
        let ranges = if request.method() == Method::GET && range_applies(headers, &self.validators) {
            parse_ranges(headers, self.size)
        } else {
            Ranges::Whole
        };
        match ranges {
            Ranges::Unsatisfiable => {
                let response = Response::of_status(StatusCode::RANGE_NOT_SATISFIABLE);
                self.describe(response).header("Content-Range", format!("bytes */{}", self.size))
            }
            Ranges::Whole => self.whole(),
            Ranges::Parts(parts) => match &parts[..] {
                [part] => self.part(part.clone()),
                // The coding would seem to be that of the parts' container.
                _ if self.coding.is_some() => self.whole(),
                _ => self.parts(&parts),
            },
        }
    }

    /// With the fields that 200, 206 and 304 share.
    fn describe(&self, mut response: Response) -> Response {
        if let Some(etag) = &self.validators.etag {
            response = response.header("ETag", etag.to_string());
        }
        if let Some(time) = self.validators.last_modified {
            response = response.header("Last-Modified", httpdate::fmt_http_date(time));
        }
        if self.compressible || self.varies {
            // A 304 must vary as the 200 would have.
            response = response.header("Vary", "Accept-Encoding");
        }
        response.header("Accept-Ranges", "bytes")
    }

    /// With the coding that the bytes are in.
    fn coded(&self, response: Response) -> Response {
        match self.coding {
            Some(coding) => response.header("Content-Encoding", coding),
            None => response,
        }
    }

    fn whole(self) -> Response {
        let response = self.slice(0..self.size);
        let response = self.coded(self.describe(response)).content_type(self.content_type);
        if self.compressible { response.compressible() } else { response }
    }

    fn part(self, part: Range<u64>) -> Response {
        let response = self.slice(part.clone()).status(StatusCode::PARTIAL_CONTENT);
        self.coded(self.describe(response))
            .header("Content-Range", content_range(&part, self.size))
            .content_type(self.content_type)
    }

    /// `multipart/byteranges` (RFC 9110 section 14.6).
    fn parts(self, parts: &[Range<u64>]) -> Response {
        let mut random = [0; 16];
        crate::random::fill(&mut random);
        // Unguessable, so that no content can hold it.
        let boundary = data_encoding::HEXLOWER.encode(&random);
        let heads: Vec<(String, Range<u64>)> = parts
            .iter()
            .map(|part| {
                let range = content_range(part, self.size);
                let head = format!(
                    "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {range}\r\n\r\n",
                    self.content_type
                );
                (head, part.clone())
            })
            .collect();
        let end = format!("\r\n--{boundary}--\r\n");
        let length = heads.iter().map(|(head, part)| head.len() as u64 + part.end - part.start).sum::<u64>();
        let source = Rc::new(self.source.clone());
        let response = Response::stream_of_length(length + end.len() as u64, move |out| {
            for (head, part) in &heads {
                out.write_all(head.as_bytes())?;
                source.copy(part.clone(), out)?;
            }
            out.write_all(end.as_bytes())
        });
        self.describe(response.status(StatusCode::PARTIAL_CONTENT))
            .content_type(format!("multipart/byteranges; boundary={boundary}"))
    }

    fn slice(&self, part: Range<u64>) -> Response {
        match &self.source {
            Source::Memory(bytes) => Response::bytes(bytes.slice(part.start as usize..part.end as usize)),
            Source::File(_) => {
                let source = self.source.clone();
                Response::stream_of_length(part.end - part.start, move |out| source.copy(part, out))
            }
        }
    }
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

impl Source {
    fn copy(&self, part: Range<u64>, out: &mut BodyWriter<'_>) -> io::Result<()> {
        let file = match self {
            Source::Memory(bytes) => return out.write_all(&bytes[part.start as usize..part.end as usize]),
            Source::File(file) => file,
        };
        let mut at = part.start;
        while at < part.end {
            let size = (part.end - at).min(READ_SIZE_BYTES as u64) as usize;
            let file = file.clone();
            let data = offload(move || -> io::Result<Vec<u8>> {
                let mut data = vec![0; size];
                let count = rustix::io::pread(&*file, &mut data, at)?;
                data.truncate(count);
                Ok(data)
            })?;
            if data.is_empty() {
                // Nothing can be told any more but that the body is not whole.
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "a file became shorter as it was sent"));
            }
            out.write_all(&data)?;
            at += data.len() as u64;
        }
        Ok(())
    }
}
