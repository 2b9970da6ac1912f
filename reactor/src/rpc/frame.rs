//! The bytes of RPC: frames of a fixed header, a block of metadata, a message and a part of a payload. Pure.
//!
//! A connection begins, in each direction, with [`PREFACE`]; then come frames. All integers are
//! little-endian, and the header is always 24 bytes:
//!
//! ```text
//! offset  size
//!      0     1  kind
//!      1     1  status of a response, priority of a request or opening, side of an item, credit or stop; else 0
//!      2     2  size of the metadata of a request, response or opening (from version 3 on), else 0
//!      4     4  call: chosen by the caller, unique among its calls in flight
//!      8     4  method of a request or opening, bytes of a credit, else 0
//!     12     4  message size
//!     16     4  payload size: of the whole payload in a request or response, of this part in a part
//!     20     4  timeout of a request or opening in milliseconds, else 0
//! ```
//!
//! Kinds 1 to 8 are version 1, and all that a peer of it may be sent (its requests have no priority). An end of
//! version 2 says so in its first frame, with a `Cancel` of the call [`ANNOUNCE`], which version 1 passes over; who
//! reads one there answers with a `Hello`, and whoever has read a `Hello` may send the kinds from 9 on. Kinds from
//! [`OPTIONAL_KIND_MIN`] are for later versions: their header says how many bytes follow, and who does not know
//! them passes over those.
//!
//! The metadata follows, if there is any ([`crate::rpc::metadata`]), then the message, then the payload. Version 3 has
//! nothing else that version 2 has not, and sends it to none that does not know it. A payload longer than [`PART_SIZE_BYTES_MAX`] is cut: the request or
//! response carries the first part, and parts of the same call follow, all full save the last. Frames of other
//! calls may come between them, which is how a small call overtakes a large one.
//!
//! A fixed header wastes a dozen bytes on a response and buys a decoder without states. What may not be zero
//! must be, and what must be zero is checked: garbage is found at its first header.
//!
//! What it is not: the pairing of answers with calls, and the meaning of messages.

mod error;
mod words;

pub use error::FrameError;
pub use words::{Priority, Side, Status};

use crate::rpc::metadata::BLOCK_SIZE_BYTES_MAX;
use crate::rpc::{MESSAGE_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};

/// What each side says first: the protocol and its version.
pub const PREFACE: [u8; 8] = *b"hyphrpc\x01";

/// The newest version that we speak.
pub const VERSION: u32 = 3;

/// The call that an end of version 2 or later cancels in its first frame. The low half is the version.
pub const ANNOUNCE: u32 = 0xffff_0000 | VERSION;

/// Frames of this kind and above may be passed over.
pub const OPTIONAL_KIND_MIN: u8 = 128;

/// The longest `Hello`: a few numbers today, and room for what later versions add.
pub const HELLO_SIZE_BYTES_MAX: usize = 4 << 10;

/// The longest item of a stream: a full part of bytes, and the few bytes that say so. Larger things are cut by who
/// sends them, or travel as payloads.
pub const ITEM_SIZE_BYTES_MAX: usize = PART_SIZE_BYTES_MAX + 64;

/// The size of every header.
pub const HEADER_SIZE_BYTES: usize = 24;

/// The longest part of a payload in one frame. At the 0.8 GB/s of TLS on one core, a small call waits some
/// 80 us behind one part; the header is a thousandth of a percent of it.
pub const PART_SIZE_BYTES_MAX: usize = 64 << 10;

/// A frame's header: everything but the bytes of message and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Asks for a method.
    Request {
        /// The caller's number for this call.
        call: u32,
        /// Which method.
        method: u32,
        /// How long the caller waits.
        timeout_ms: u32,
        /// The size of the block of metadata.
        metadata_size: u16,
        /// The encoded request's size.
        message_size: u32,
        /// The whole payload's size.
        payload_size: u32,
        /// What it and its response rank as; `Normal` to a peer of version 1.
        priority: Priority,
    },
    /// Answers a request.
    Response {
        /// The caller's number.
        call: u32,
        /// How it ended.
        status: Status,
        /// The size of the block of metadata.
        metadata_size: u16,
        /// The encoded response's, error's or reason's size.
        message_size: u32,
        /// The whole payload's size; 0 unless the status is `Response`.
        payload_size: u32,
    },
    /// The next part of a request's payload.
    RequestPart {
        /// The caller's number.
        call: u32,
        /// The part's size.
        size: u32,
    },
    /// The next part of a response's payload; an empty one abandons it.
    ResponsePart {
        /// The caller's number.
        call: u32,
        /// The part's size, or 0: the rest will not come.
        size: u32,
    },
    /// The caller no longer waits. No part of the request follows.
    Cancel {
        /// The caller's number.
        call: u32,
    },
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
    /// The sender is about to close, and starts no more calls.
    Goodbye,
    /// Asks for a method that streams. Version 2, as all below.
    Open {
        /// The caller's number for this call.
        call: u32,
        /// Which method.
        method: u32,
        /// How long the caller waits.
        timeout_ms: u32,
        /// The size of the block of metadata.
        metadata_size: u16,
        /// The encoded request's size.
        message_size: u32,
        /// What all of it ranks as.
        priority: Priority,
    },
    /// An item of a stream.
    Item {
        /// Who sends it.
        side: Side,
        /// The caller's number.
        call: u32,
        /// The encoded item's size.
        size: u32,
    },
    /// The caller's stream has ended. The callee's ends with the response.
    End {
        /// The caller's number.
        call: u32,
    },
    /// The receiver of a stream has room for more.
    Credit {
        /// Who may send.
        side: Side,
        /// The caller's number.
        call: u32,
        /// How much more, headers of the items included.
        bytes: u32,
    },
    /// The receiver of a stream wants no more of it; the call goes on.
    Stop {
        /// Who shall stop sending.
        side: Side,
        /// The caller's number.
        call: u32,
    },
    /// The sender takes no new calls, and closes when those in flight are done.
    Drain,
    /// Which version and features the sender speaks: the message.
    Hello {
        /// The encoded [`Hello`](crate::rpc::hello::Hello)'s size.
        message_size: u32,
    },
    /// Something of a later version that may be passed over.
    Optional {
        /// Its kind.
        kind: u8,
        /// How many bytes follow.
        message_size: u32,
    },
}

impl Header {
    /// The header's bytes.
    ///
    /// # Panics
    /// In debug builds, if the header breaks a limit: the sender should have checked.
    pub fn encode(&self) -> [u8; HEADER_SIZE_BYTES] {
        let (kind, status, call, method, message, payload, timeout) = match *self {
            Header::Request { call, method, timeout_ms, message_size, payload_size, priority, .. } => {
                (1, priority as u8, call, method, message_size, payload_size, timeout_ms)
            }
            Header::Response { call, status, message_size, payload_size, .. } => {
                (2, status as u8, call, 0, message_size, payload_size, 0)
            }
            Header::RequestPart { call, size } => (3, 0, call, 0, 0, size, 0),
            Header::ResponsePart { call, size } => (4, 0, call, 0, 0, size, 0),
            Header::Cancel { call } => (5, 0, call, 0, 0, 0, 0),
            Header::Ping => (6, 0, 0, 0, 0, 0, 0),
            Header::Pong => (7, 0, 0, 0, 0, 0, 0),
            Header::Goodbye => (8, 0, 0, 0, 0, 0, 0),
            Header::Open { call, method, timeout_ms, message_size, priority, .. } => {
                (9, priority as u8, call, method, message_size, 0, timeout_ms)
            }
            Header::Item { side, call, size } => (10, side as u8, call, 0, size, 0, 0),
            Header::End { call } => (11, 0, call, 0, 0, 0, 0),
            Header::Credit { side, call, bytes } => (12, side as u8, call, bytes, 0, 0, 0),
            Header::Stop { side, call } => (13, side as u8, call, 0, 0, 0, 0),
            Header::Drain => (14, 0, 0, 0, 0, 0, 0),
            Header::Hello { message_size } => (16, 0, 0, 0, message_size, 0, 0),
            Header::Optional { kind, message_size } => (kind, 0, 0, 0, message_size, 0, 0),
        };
        let mut bytes = [0; HEADER_SIZE_BYTES];
        bytes[0] = kind;
        bytes[1] = status;
        bytes[2..4].copy_from_slice(&(self.metadata_size() as u16).to_le_bytes());
        for (at, word) in [call, method, message, payload, timeout].into_iter().enumerate() {
            bytes[4 + 4 * at..8 + 4 * at].copy_from_slice(&word.to_le_bytes());
        }
        debug_assert_eq!(Header::decode(&bytes), Ok(*self));
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`]: what follows can't be made sense of either, so close the connection.
    pub fn decode(bytes: &[u8; HEADER_SIZE_BYTES]) -> Result<Header, FrameError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (kind, status) = (bytes[0], bytes[1]);
        let metadata_size = u16::from_le_bytes([bytes[2], bytes[3]]);
        let (call, method, message_size, payload_size, timeout_ms) =
            (word(4), word(8), word(12), word(16), word(20));

        if kind >= OPTIONAL_KIND_MIN {
            // What its other fields mean is not ours to judge.
            return match message_size as usize {
                size if size <= MESSAGE_SIZE_BYTES_MAX => Ok(Header::Optional { kind, message_size }),
                _ => Err(FrameError::TooLarge { kind, size_bytes: message_size }),
            };
        }
        // Which fields the kind may use, in the order of the header.
        let used = match kind {
            1 => [true, true, true, true, true, true],
            2 => [true, true, false, true, true, false],
            3 | 4 => [false, true, false, false, true, false],
            5 | 11 => [false, true, false, false, false, false],
            6..=8 | 14 => [false; 6],
            9 => [true, true, true, true, false, true],
            10 => [true, true, false, true, false, false],
            12 => [true, true, true, false, false, false],
            13 => [true, true, false, false, false, false],
            16 => [false, false, false, true, false, false],
            _ => return Err(FrameError::UnknownKind { kind }),
        };
        let fields = [status.into(), call, method, message_size, payload_size, timeout_ms];
        let stray = fields.iter().zip(used).any(|(&field, used)| !used && field != 0);
        if stray || (metadata_size != 0 && !matches!(kind, 1 | 2 | 9)) {
            return Err(FrameError::StrayField { kind });
        }
        let message_max = match kind {
            10 => ITEM_SIZE_BYTES_MAX,
            16 => HELLO_SIZE_BYTES_MAX,
            _ => MESSAGE_SIZE_BYTES_MAX,
        };
        let payload_max = if matches!(kind, 3 | 4) { PART_SIZE_BYTES_MAX } else { PAYLOAD_SIZE_BYTES_MAX };
        let sizes = [
            (metadata_size.into(), BLOCK_SIZE_BYTES_MAX),
            (message_size, message_max),
            (payload_size, payload_max),
        ];
        for (size, max) in sizes {
            if size as usize > max {
                return Err(FrameError::TooLarge { kind, size_bytes: size });
            }
        }
        let unknown = FrameError::UnknownStatus { status };
        let priority = || Priority::ALL.get(usize::from(status)).copied().ok_or(unknown);
        let side = || Side::ALL.get(usize::from(status)).copied().ok_or(unknown);
        Ok(match kind {
            1 => Header::Request {
                call,
                method,
                timeout_ms,
                metadata_size,
                message_size,
                payload_size,
                priority: priority()?,
            },
            2 => {
                let status = *Status::ALL.get(usize::from(status)).ok_or(unknown)?;
                if status != Status::Response && payload_size != 0 {
                    return Err(FrameError::StrayField { kind });
                }
                Header::Response { call, status, metadata_size, message_size, payload_size }
            }
            3 if payload_size == 0 => return Err(FrameError::EmptyPart),
            3 => Header::RequestPart { call, size: payload_size },
            4 => Header::ResponsePart { call, size: payload_size },
            5 => Header::Cancel { call },
            6 => Header::Ping,
            7 => Header::Pong,
            8 => Header::Goodbye,
            9 => {
                Header::Open { call, method, timeout_ms, metadata_size, message_size, priority: priority()? }
            }
            10 => Header::Item { side: side()?, call, size: message_size },
            11 => Header::End { call },
            12 => Header::Credit { side: side()?, call, bytes: method },
            13 => Header::Stop { side: side()?, call },
            14 => Header::Drain,
            _ => Header::Hello { message_size },
        })
    }

    /// How many bytes of metadata follow the header.
    pub fn metadata_size(&self) -> usize {
        match *self {
            Header::Request { metadata_size, .. }
            | Header::Response { metadata_size, .. }
            | Header::Open { metadata_size, .. } => metadata_size.into(),
            _ => 0,
        }
    }

    /// How many bytes of message follow those.
    pub fn message_size(&self) -> usize {
        match *self {
            Header::Request { message_size, .. }
            | Header::Response { message_size, .. }
            | Header::Open { message_size, .. }
            | Header::Hello { message_size }
            | Header::Optional { message_size, .. }
            | Header::Item { size: message_size, .. } => message_size as usize,
            _ => 0,
        }
    }

    /// How many bytes of payload follow the message in this frame.
    pub fn part_size(&self) -> usize {
        match *self {
            Header::Request { payload_size, .. } | Header::Response { payload_size, .. } => {
                (payload_size as usize).min(PART_SIZE_BYTES_MAX)
            }
            Header::RequestPart { size, .. } | Header::ResponsePart { size, .. } => size as usize,
            _ => 0,
        }
    }
}

/// A whole frame in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// The metadata's bytes.
    pub metadata: &'a [u8],
    /// The message's bytes.
    pub message: &'a [u8],
    /// This frame's part of the payload.
    pub part: &'a [u8],
}

/// Reads the frame at the start of `bytes`, and how long it is; `None` if it is not all there yet.
///
/// # Errors
/// [`FrameError`] as soon as the header shows it.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE_BYTES>() else { return Ok(None) };
    let header = Header::decode(header)?;
    let Some((metadata, rest)) = rest.split_at_checked(header.metadata_size()) else { return Ok(None) };
    let Some((message, rest)) = rest.split_at_checked(header.message_size()) else { return Ok(None) };
    let Some((part, rest)) = rest.split_at_checked(header.part_size()) else { return Ok(None) };
    Ok(Some((Frame { header, metadata, message, part }, bytes.len() - rest.len())))
}

#[cfg(test)]
mod tests;
