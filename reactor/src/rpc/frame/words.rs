//! The words of a header's second byte: how urgent a call is, whose stream it is, how it ended. Pure.
//!
//! What it is not: the layout (`frame.rs`).

/// What goes first when the line is busy. See [`crate::rpc::outbox`] for how they share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// What has no reason to be anything else.
    #[default]
    Normal = 0,
    /// Short, and somebody waits.
    High = 1,
    /// Bulk that may take its time.
    Low = 2,
}

impl Priority {
    /// In the order of their numbers.
    pub const ALL: [Priority; 3] = [Priority::Normal, Priority::High, Priority::Low];
}

/// Which side of a call something comes from: the two number spaces are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Side {
    /// From the caller.
    Request = 0,
    /// From the callee.
    Response = 1,
}

impl Side {
    pub(super) const ALL: [Side; 2] = [Side::Request, Side::Response];

    /// The side at the other end.
    pub fn other(self) -> Side {
        if self == Side::Request { Side::Response } else { Side::Request }
    }
}

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
    /// The response exceeds the limits; to a peer below version 3, the request too.
    TooLarge = 4,
    /// The handler was ended before it answered.
    Cancelled = 5,
    /// The handler panicked.
    Panicked = 6,
    /// Too much in flight; nothing was done.
    Overloaded = 7,
    /// An interceptor refused the caller; the message says why, as text. Version 2.
    Denied = 8,
    /// No service of the name that the request gives. Nothing was done. Version 3, as below.
    UnknownService = 9,
    /// The request is longer than the method, or the connection, takes. Nothing was done.
    RequestTooLarge = 10,
}

impl Status {
    pub(super) const ALL: [Status; 11] = [
        Status::Response,
        Status::Error,
        Status::UnknownMethod,
        Status::Malformed,
        Status::TooLarge,
        Status::Cancelled,
        Status::Panicked,
        Status::Overloaded,
        Status::Denied,
        Status::UnknownService,
        Status::RequestTooLarge,
    ];
}
