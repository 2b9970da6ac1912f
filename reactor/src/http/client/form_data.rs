//! A form with files, put together and sent as it is read: `multipart/form-data` (RFC 7578).
//!
//! It is written as browsers write it, so that every server reads it: names in UTF-8 between quotes, where a quote and the
//! ends of lines are `%22`, `%0D` and `%0A`; no part in chunks or an encoding.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::BodyBytes;
use crate::fs::File;
use crate::http::InvalidHeader;
use crate::http::headers::is_value;

/// A form to be sent; see [`super::RequestBuilder::multipart`].
///
/// # Examples
///
/// ```no_run
/// use reactor::http::client::{Client, FormData};
///
/// reactor::run(|| {
///     let form = FormData::new().text("title", "my cat").file("photo", "cat.png").unwrap();
///     let answer = Client::new().post("https://example.org/photos").multipart(form).send().unwrap();
///     println!("{}", answer.status());
/// });
/// ```
pub struct FormData<'a> {
    boundary: String,
    pieces: VecDeque<Piece<'a>>,
    failure: Option<InvalidHeader>,
}

enum Piece<'a> {
    Bytes(Cow<'a, [u8]>),
    Reader { reader: Box<dyn Read + 'a>, left: Option<u64> },
}

impl<'a> FormData<'a> {
    /// A form without parts.
    pub fn new() -> FormData<'a> {
        let mut random = [0; 16];
        crate::random::fill(&mut random);
        // Unguessable, so that no part can hold it.
        let boundary = data_encoding::HEXLOWER.encode(&random);
        FormData { boundary, pieces: VecDeque::new(), failure: None }
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, name: &str, value: impl BodyBytes<'a>) -> FormData<'a> {
        self.begin(name, None, None);
        self.end(Piece::Bytes(value.into_body()))
    }

    /// Adds a file that is there as bytes.
    #[must_use]
    pub fn bytes(
        mut self,
        name: &str,
        file_name: &str,
        content_type: &str,
        bytes: impl BodyBytes<'a>,
    ) -> FormData<'a> {
        self.begin(name, Some(file_name), Some(content_type));
        self.end(Piece::Bytes(bytes.into_body()))
    }

    /// Adds a file that is read as it is sent: `length` bytes of it, or all if that is `None`. With one of no known length
    /// the form goes in chunks, which not every server takes.
    #[must_use]
    pub fn reader(
        mut self,
        name: &str,
        file_name: &str,
        content_type: &str,
        reader: impl Read + 'a,
        length: Option<u64>,
    ) -> FormData<'a> {
        self.begin(name, Some(file_name), Some(content_type));
        self.end(Piece::Reader { reader: Box::new(reader), left: length })
    }

    /// Adds the file at `path`, under its name there and with the type that its ending tells. It is read as it is sent, as
    /// long as it is now.
    ///
    /// # Errors
    ///
    /// Those of opening it; `InvalidInput` when its name is no text of UTF-8.
    ///
    /// # Suspends
    ///
    /// Until it is open.
    pub fn file(self, name: &str, path: impl AsRef<Path>) -> io::Result<FormData<'a>> {
        let path = path.as_ref();
        let file_name = path.file_name().and_then(|name| name.to_str());
        let file_name =
            file_name.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the file's name is no text"))?;
        let content_type = mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream");
        let file = File::open(path)?;
        let length = file.metadata()?.len_bytes;
        Ok(self.reader(name, file_name, content_type, file, Some(length)))
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// The whole, as it is sent; an error for a name or type that can't be.
    pub(super) fn into_body(mut self) -> Result<FormBody<'a>, InvalidHeader> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let end = format!("--{}--\r\n", self.boundary);
        self.pieces.push_back(Piece::Bytes(end.into_bytes().into()));
        if self.pieces.iter().any(|piece| matches!(piece, Piece::Reader { .. })) {
            let length = self.pieces.iter().map(Piece::length).sum();
            return Ok(FormBody::Stream(FormReader { pieces: self.pieces, at: 0 }, length));
        }
        let mut whole = Vec::new();
        for piece in &self.pieces {
            if let Piece::Bytes(bytes) = piece {
                whole.extend_from_slice(bytes);
            }
        }
        Ok(FormBody::Whole(whole))
    }

    fn begin(&mut self, name: &str, file_name: Option<&str>, content_type: Option<&str>) {
        let mut disposition = format!("form-data; name=\"{}\"", escape(name));
        if let Some(file_name) = file_name {
            disposition += &format!("; filename=\"{}\"", escape(file_name));
        }
        let mut head = format!("--{}\r\nContent-Disposition: {disposition}\r\n", self.boundary);
        if let Some(content_type) = content_type {
            head += &format!("Content-Type: {content_type}\r\n");
        }
        let is_sound =
            [Some(&*disposition), content_type].iter().flatten().all(|text| is_value(text.as_bytes()));
        if !is_sound {
            self.failure = Some(InvalidHeader::Value);
        }
        self.pieces.push_back(Piece::Bytes((head + "\r\n").into_bytes().into()));
    }

    fn end(mut self, piece: Piece<'a>) -> FormData<'a> {
        self.pieces.push_back(piece);
        self.pieces.push_back(Piece::Bytes(b"\r\n"[..].into()));
        self
    }
}

impl Default for FormData<'_> {
    fn default() -> Self {
        FormData::new()
    }
}

impl fmt::Debug for FormData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormData").field("boundary", &self.boundary).finish_non_exhaustive()
    }
}

/// As the HTML standard has it ("multipart/form-data encoding algorithm"): nothing else is escaped.
fn escape(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

/// What a form comes to.
pub(super) enum FormBody<'a> {
    /// All of it was there: it can be sent more than once.
    Whole(Vec<u8>),
    /// It is read as it is sent; its length, where it is known.
    Stream(FormReader<'a>, Option<u64>),
}

/// Reads a form as it goes on the wire.
pub(super) struct FormReader<'a> {
    pieces: VecDeque<Piece<'a>>,
    /// What has been read of the first piece, if that is bytes.
    at: usize,
}

impl Piece<'_> {
    fn length(&self) -> Option<u64> {
        match self {
            Piece::Bytes(bytes) => Some(bytes.len() as u64),
            Piece::Reader { left, .. } => *left,
        }
    }
}

impl Read for FormReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Short pieces together: what is sent in chunks is not one chunk for each line.
        let mut filled = 0;
        while filled < buffer.len()
            && let Some(piece) = self.pieces.front_mut()
        {
            let room = &mut buffer[filled..];
            let count = match piece {
                Piece::Bytes(bytes) => {
                    let count = (&bytes[self.at..]).read(room)?;
                    self.at += count;
                    count
                }
                // What there is leaves before a reader is waited for.
                Piece::Reader { .. } if filled > 0 => break,
                Piece::Reader { left: Some(0), .. } => 0,
                Piece::Reader { reader, left } => {
                    let want = left.map_or(room.len(), |left| left.min(room.len() as u64) as usize);
                    let count = reader.read(&mut room[..want])?;
                    match left {
                        Some(_) if count == 0 => {
                            let message = "a file of the form is shorter than stated";
                            return Err(io::Error::new(ErrorKind::UnexpectedEof, message));
                        }
                        Some(left) => *left -= count as u64,
                        None => {}
                    }
                    count
                }
            };
            filled += count;
            if count == 0 {
                self.pieces.pop_front();
                self.at = 0;
            }
        }
        Ok(filled)
    }
}
