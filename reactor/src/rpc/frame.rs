//! The bytes of RPC: frames of a fixed header, a message and a part of a payload. Pure.
//!
//! A connection begins, in each direction, with [`PREFACE`]; then come frames. All integers are
//! little-endian, and the header is always 24 bytes:
//!
//! ```text
//! offset  size
//!      0     1  kind
//!      1     1  status of a response, else 0
//!      2     2  0
//!      4     4  call: chosen by the caller, unique among its calls in flight
//!      8     4  method of a request, else 0
//!     12     4  message size
//!     16     4  payload size: of the whole payload in a request or response, of this part in a part
//!     20     4  timeout of a request in milliseconds, else 0
//! ```
//!
//! The message follows, then the payload. A payload longer than [`PART_SIZE_BYTES_MAX`] is cut: the request or
//! response carries the first part, and parts of the same call follow, all full save the last. Frames of other
//! calls may come between them, which is how a small call overtakes a large one.
//!
//! A fixed header wastes a dozen bytes on a response and buys a decoder without states. What may not be zero
//! must be, and what must be zero is checked: garbage is found at its first header.
//!
//! What it is not: the pairing of answers with calls, and the meaning of messages.

use crate::rpc::{MESSAGE_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};

/// What each side says first: the protocol and its version.
pub const PREFACE: [u8; 8] = *b"hyphrpc\x01";

/// The size of every header.
pub const HEADER_SIZE_BYTES: usize = 24;

/// The longest part of a payload in one frame. At the 0.8 GB/s of TLS on one core, a small call waits some
/// 80 us behind one part; the header is a thousandth of a percent of it.
pub const PART_SIZE_BYTES_MAX: usize = 64 << 10;

/// How a call ended, in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The message is the method's response.
    Response = 0,
    /// The message is the method's error.
    Error = 1,
    /// No handler for the method.
    UnknownMethod = 2,
    /// The request could not be read; the message says why, as text.
    Malformed = 3,
    /// The response exceeds the limits.
    TooLarge = 4,
    /// The handler was ended before it answered.
    Cancelled = 5,
    /// The handler panicked.
    Panicked = 6,
    /// Too much in flight; nothing was done.
    Overloaded = 7,
}

impl Status {
    const ALL: [Status; 8] = [
        Status::Response,
        Status::Error,
        Status::UnknownMethod,
        Status::Malformed,
        Status::TooLarge,
        Status::Cancelled,
        Status::Panicked,
        Status::Overloaded,
    ];
}

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
        /// The encoded request's size.
        message_size: u32,
        /// The whole payload's size.
        payload_size: u32,
    },
    /// Answers a request.
    Response {
        /// The caller's number.
        call: u32,
        /// How it ended.
        status: Status,
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
}

impl Header {
    /// The header's bytes.
    ///
    /// # Panics
    /// In debug builds, if the header breaks a limit: the sender should have checked.
    pub fn encode(&self) -> [u8; HEADER_SIZE_BYTES] {
        let (kind, status, call, method, message, payload, timeout) = match *self {
            Header::Request { call, method, timeout_ms, message_size, payload_size } => {
                (1, 0, call, method, message_size, payload_size, timeout_ms)
            }
            Header::Response { call, status, message_size, payload_size } => {
                (2, status as u8, call, 0, message_size, payload_size, 0)
            }
            Header::RequestPart { call, size } => (3, 0, call, 0, 0, size, 0),
            Header::ResponsePart { call, size } => (4, 0, call, 0, 0, size, 0),
            Header::Cancel { call } => (5, 0, call, 0, 0, 0, 0),
            Header::Ping => (6, 0, 0, 0, 0, 0, 0),
            Header::Pong => (7, 0, 0, 0, 0, 0, 0),
            Header::Goodbye => (8, 0, 0, 0, 0, 0, 0),
        };
        let mut bytes = [0; HEADER_SIZE_BYTES];
        bytes[0] = kind;
        bytes[1] = status;
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
        let (call, method, message_size, payload_size, timeout_ms) =
            (word(4), word(8), word(12), word(16), word(20));

        // Which fields the kind may use, in the order of the header.
        let used = match kind {
            1 => [false, true, true, true, true, true],
            2 => [true, true, false, true, true, false],
            3 | 4 => [false, true, false, false, true, false],
            5 => [false, true, false, false, false, false],
            6..=8 => [false; 6],
            _ => return Err(FrameError::UnknownKind { kind }),
        };
        let fields = [status.into(), call, method, message_size, payload_size, timeout_ms];
        let stray = fields.iter().zip(used).any(|(&field, used)| !used && field != 0);
        if stray || bytes[2] != 0 || bytes[3] != 0 {
            return Err(FrameError::StrayField { kind });
        }
        let payload_max = if matches!(kind, 3 | 4) { PART_SIZE_BYTES_MAX } else { PAYLOAD_SIZE_BYTES_MAX };
        for (size, max) in [(message_size, MESSAGE_SIZE_BYTES_MAX), (payload_size, payload_max)] {
            if size as usize > max {
                return Err(FrameError::TooLarge { kind, size_bytes: size });
            }
        }
        Ok(match kind {
            1 => Header::Request { call, method, timeout_ms, message_size, payload_size },
            2 => {
                let status =
                    *Status::ALL.get(usize::from(status)).ok_or(FrameError::UnknownStatus { status })?;
                if status != Status::Response && payload_size != 0 {
                    return Err(FrameError::StrayField { kind });
                }
                Header::Response { call, status, message_size, payload_size }
            }
            3 if payload_size == 0 => return Err(FrameError::EmptyPart),
            3 => Header::RequestPart { call, size: payload_size },
            4 => Header::ResponsePart { call, size: payload_size },
            5 => Header::Cancel { call },
            6 => Header::Ping,
            7 => Header::Pong,
            _ => Header::Goodbye,
        })
    }

    /// How many bytes of message follow the header.
    pub fn message_size(&self) -> usize {
        match *self {
            Header::Request { message_size, .. } | Header::Response { message_size, .. } => {
                message_size as usize
            }
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
    let Some((message, rest)) = rest.split_at_checked(header.message_size()) else { return Ok(None) };
    let Some((part, rest)) = rest.split_at_checked(header.part_size()) else { return Ok(None) };
    Ok(Some((Frame { header, message, part }, bytes.len() - rest.len())))
}

/// Bytes that are no frame. The peer speaks something else, or means harm.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream does not begin as ours do.
    #[error("the peer does not speak this version of our RPC: check the port, and both versions")]
    BadPreface,
    /// No such kind.
    #[error("{kind} is no kind of frame")]
    UnknownKind {
        /// The first byte.
        kind: u8,
    },
    /// No such status.
    #[error("{status} is no status of a response")]
    UnknownStatus {
        /// The second byte.
        status: u8,
    },
    /// A field that must be zero is not.
    #[error("a frame of kind {kind} has a field set that it does not use")]
    StrayField {
        /// The frame's kind.
        kind: u8,
    },
    /// A size beyond the limits.
    #[error("a frame of kind {kind} claims {size_bytes} bytes, more than any may have")]
    TooLarge {
        /// The frame's kind.
        kind: u8,
        /// What it claims.
        size_bytes: u32,
    },
    /// A part of a request that carries nothing.
    #[error("a part of a request is empty")]
    EmptyPart,
    /// A part that belongs to no payload under way, or is longer than what is missing.
    #[error("a part of a payload for call {call} that does not fit")]
    StrayPart {
        /// The call it names.
        call: u32,
    },
    /// More payloads interleaved than a sender may.
    #[error("more than {max} payloads at once")]
    TooManyParts {
        /// The limit.
        max: usize,
    },
    /// A request under a number that is in use.
    #[error("call {call} was begun twice")]
    DuplicateCall {
        /// The number.
        call: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = Header> {
        let message = 0..=MESSAGE_SIZE_BYTES_MAX as u32;
        let payload = 0..=PAYLOAD_SIZE_BYTES_MAX as u32;
        let part = 1..=PART_SIZE_BYTES_MAX as u32;
        prop_oneof![
            (any::<u32>(), any::<u32>(), any::<u32>(), message.clone(), payload.clone()).prop_map(
                |(call, method, timeout_ms, message_size, payload_size)| Header::Request {
                    call,
                    method,
                    timeout_ms,
                    message_size,
                    payload_size
                }
            ),
            (any::<u32>(), message.clone(), payload).prop_map(|(call, message_size, payload_size)| {
                Header::Response { call, status: Status::Response, message_size, payload_size }
            }),
            (any::<u32>(), 1..8usize, message).prop_map(|(call, status, message_size)| Header::Response {
                call,
                status: Status::ALL[status],
                message_size,
                payload_size: 0
            }),
            (any::<u32>(), part.clone()).prop_map(|(call, size)| Header::RequestPart { call, size }),
            (any::<u32>(), 0..=PART_SIZE_BYTES_MAX as u32)
                .prop_map(|(call, size)| Header::ResponsePart { call, size }),
            any::<u32>().prop_map(|call| Header::Cancel { call }),
            Just(Header::Ping),
            Just(Header::Pong),
            Just(Header::Goodbye),
        ]
    }

    #[test]
    fn the_layout_is_as_documented() {
        let header = Header::Request {
            call: 0x0403_0201,
            method: 0x0807_0605,
            timeout_ms: 0x100f_0e0d,
            message_size: 0x000b_0a09,
            payload_size: 0x000e_0d0c,
        };
        let expected = [1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 12, 13, 14, 0, 13, 14, 15, 16];
        assert_eq!(header.encode(), expected);
        assert_eq!(Status::ALL.map(|status| status as u8), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn sizes_just_above_the_limits_are_refused() {
        let limits =
            [(1, 12, MESSAGE_SIZE_BYTES_MAX), (2, 16, PAYLOAD_SIZE_BYTES_MAX), (4, 16, PART_SIZE_BYTES_MAX)];
        for (kind, at, max) in limits {
            let mut bytes = [0; HEADER_SIZE_BYTES];
            bytes[0] = kind;
            bytes[at..at + 4].copy_from_slice(&(max as u32).to_le_bytes());
            assert!(Header::decode(&bytes).is_ok());
            bytes[at..at + 4].copy_from_slice(&(max as u32 + 1).to_le_bytes());
            let refused = FrameError::TooLarge { kind, size_bytes: max as u32 + 1 };
            assert_eq!(Header::decode(&bytes), Err(refused));
        }
    }

    #[test]
    fn text_of_another_protocol_is_no_frame() {
        assert!(decode(b"GET / HTTP/1.1\r\nHost: example\r\n").is_err());
        assert!(decode(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3").is_err());
        assert!(decode(&[0x16; 64]).is_err());
    }

    proptest! {
        #[test]
        fn a_header_reads_back_as_it_was(header in any_header()) {
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(bytes: [u8; HEADER_SIZE_BYTES], kind in 0u8..10, holes: u32) {
            // Random bytes never pass, so some are zeroed and the kind is a likely one.
            let mut bytes = bytes;
            bytes[0] = kind;
            for (at, byte) in bytes.iter_mut().enumerate().skip(1) {
                if holes & (1 << at) != 0 { *byte = 0; }
            }
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_frame_that_is_cut_is_waited_for(
            header in any_header(), fill: u8, cut: prop::sample::Index, extra in 0usize..40,
        ) {
            let body = header.message_size() + header.part_size();
            let mut bytes = header.encode().to_vec();
            bytes.resize(HEADER_SIZE_BYTES + body, fill);
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), Ok(None));
            let whole = bytes.len();
            bytes.resize(whole + extra, 0xee);
            let (frame, length) = decode(&bytes).unwrap().unwrap();
            prop_assert_eq!((frame.header, length), (header, whole));
            prop_assert_eq!((frame.message.len(), frame.part.len()), (header.message_size(), header.part_size()));
        }
    }
}
