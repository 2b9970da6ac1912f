//! What bytes can be instead of frames.

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
    /// No such status, priority or side.
    #[error("{status} is no status, priority or side of a frame of its kind")]
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
    /// More of a stream than its receiver has room for, or more room than a window has.
    #[error("the stream of call {call} leaves its window")]
    WindowExceeded {
        /// The call.
        call: u32,
    },
    /// A hello that cannot be read, or a second one.
    #[error("the peer's hello makes no sense")]
    BadHello,
}
