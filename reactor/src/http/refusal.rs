//! Why a handler can't do what it was asked, as an answer to the client.
//!
//! What is taken out of a request (a number in its path, a JSON body) may not be there, or not be what it should. Such a
//! call gives a [`Refusal`], which a handler passes on with `?`, as it does with an `io::Error`.
//!
//! What it is not: for a handler's own failures. Those are `io::Error`s, or panics, and the client learns nothing of them.

use std::fmt;
use std::io;

use http::StatusCode;

use super::Response;

/// A request that was refused, and the reason in words for its sender.
#[derive(Debug)]
pub struct Refusal(Kind);

#[derive(Debug)]
enum Kind {
    Told {
        status: StatusCode,
        reason: String,
    },
    /// The body could not be read, or something of the handler's own failed.
    Io(io::Error),
}

impl Refusal {
    /// Refuses with `status`; `reason` is shown to whoever asked, so it holds nothing that is not theirs to know.
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Refusal {
        Refusal(Kind::Told { status, reason: reason.into() })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Told { reason, .. } => f.write_str(reason),
            Kind::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal(Kind::Io(error))
    }
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Refusal {
        Refusal::new(status, status.canonical_reason().unwrap_or_default())
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        match refusal.0 {
            // The reason may repeat what was sent: no browser shall take it for a page.
            Kind::Told { status, reason } => {
                Response::from(reason).status(status).header("X-Content-Type-Options", "nosniff")
            }
            Kind::Io(error) => error.into(),
        }
    }
}
