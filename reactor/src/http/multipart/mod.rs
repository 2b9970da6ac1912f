//! Forms with files: `multipart/form-data`, RFC 7578 over RFC 2046, read part by part as it comes.
//!
//! A form may be larger than memory, and nothing of it is gathered unasked: [`Multipart`] gives one part after the other,
//! which is read, gathered up to a limit that its reader names, or saved. `decoder.rs` and `head.rs` decide, and are pure;
//! `reader.rs` is the flow.
//!
//! Strict where two readers could see different forms: a boundary is followed by the line's end or by two dashes, a part
//! has one `Content-Disposition` with one `name`, lines end in CR LF. What browsers write in names in place of quotes and
//! line ends (`%22`, `%0D`, `%0A`) is read as they meant it.
//!
//! What it is not: mail. No nested parts, and no part in a transfer encoding (base64, quoted-printable), which RFC 7578
//! has given up: such a form is refused, not misread.

mod decoder;
mod head;
mod parameters;
mod reader;

use std::io;

use http::StatusCode;

pub use self::decoder::{MultipartDecoder, MultipartPiece};
pub use self::head::PartHead;
pub use self::reader::{FormPart, Multipart};

/// How much of a form is taken in before it is refused. All of it together is within the server's limit for bodies
/// ([`super::Limits::body`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultipartLimits {
    /// Parts, read or passed over.
    pub parts: usize,
    /// Bytes of one part's head; and of what stands before the first boundary.
    pub head_bytes: usize,
    /// Bytes of one part's data, whatever its reader would take.
    pub part_bytes: u64,
}

impl Default for MultipartLimits {
    /// 1,000 parts (as of a form's values elsewhere), 8 KiB for a head (a file's name and type are some 200 bytes), and no
    /// limit to a part but that of the body.
    fn default() -> MultipartLimits {
        MultipartLimits { parts: 1_000, head_bytes: 8 << 10, part_bytes: u64::MAX }
    }
}

/// What is wrong with a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultipartError {
    /// It does not follow RFC 7578, or does in a way that others may read differently.
    #[error("the form is malformed: {0}")]
    Malformed(&'static str),
    /// A part's head is longer than [`MultipartLimits::head_bytes`], or has too many fields.
    #[error("the head of a part is too large")]
    HeadTooLarge,
    /// There are more than [`MultipartLimits::parts`].
    #[error("the form has too many parts")]
    TooManyParts,
    /// A part is longer than [`MultipartLimits::part_bytes`], or than its reader takes.
    #[error("a part of the form is too large")]
    PartTooLarge,
    /// It ends before its last boundary.
    #[error("the form ends within a part")]
    Truncated,
}

impl MultipartError {
    /// What a server answers.
    pub fn status(self) -> StatusCode {
        match self {
            MultipartError::Malformed(_) | MultipartError::Truncated => StatusCode::BAD_REQUEST,
            MultipartError::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            MultipartError::TooManyParts | MultipartError::PartTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

impl From<MultipartError> for io::Error {
    fn from(error: MultipartError) -> io::Error {
        let kind = match error {
            MultipartError::Truncated => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
