//! What became of a request, once its answer has been handed over: for an access log, and for counting.
//!
//! A layer sees no body: a streamed one is written when all layers have returned, and may break off. This is told when
//! that is over, so that bytes and time are those of the whole answer.
//!
//! Not told of: what is no request (a malformed head, a handshake that failed), and what a connection says once another
//! protocol has taken it over.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::wire::Wire;
use crate::http::RequestHead;

/// What is told of each request: see [`super::Server::on_answer`].
pub(super) type OnAnswer = Rc<dyn Fn(&Answered<'_>)>;

/// A request, and what became of it.
///
/// As text it is a line for a log: `127.0.0.1:40112 "GET /hello" 200 118 0.412ms`, with `broken` at its end if not all of
/// the answer could be given.
#[non_exhaustive]
pub struct Answered<'a> {
    /// What was asked.
    pub head: &'a RequestHead,
    /// Who asked, where the transport knows; behind a proxy that is the proxy.
    pub peer: Option<SocketAddr>,
    /// What was answered; `None` if the client left before there was an answer.
    pub status: Option<StatusCode>,
    /// What the answer amounts to on the connection, its head included; some of it may still wait to be sent together
    /// with the next.
    pub answer_bytes: u64,
    /// From when the request's head had been read until its answer was handed over.
    pub took: Duration,
    /// The answer was given to its end. Else its body failed, or the client left.
    pub is_whole: bool,
}

impl Answered<'_> {
    /// The method.
    pub fn method(&self) -> &Method {
        self.head.method()
    }

    /// The path as it was sent, percent-encoded, without the query.
    pub fn path(&self) -> &str {
        self.head.path()
    }
}

impl fmt::Display for Answered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{peer}")?,
            None => f.write_str("-")?,
        }
        write!(f, " \"{} {}\" ", self.method(), self.path())?;
        match self.status {
            Some(status) => write!(f, "{}", status.as_u16())?,
            None => f.write_str("-")?,
        }
        write!(f, " {} {:.3}ms", self.answer_bytes, self.took.as_secs_f64() * 1e3)?;
        if self.is_whole { Ok(()) } else { f.write_str(" broken") }
    }
}

/// Measures one request, if anybody wants to know.
pub(super) struct Measured {
    begun: Instant,
    position: u64,
}

impl Measured {
    /// A request's head has been read.
    pub(super) fn begin(wire: &Wire<'_>) -> Option<Measured> {
        wire.shared.on_answer.as_ref()?;
        wire.status.set(None);
        Some(Measured { begun: crate::now(), position: wire.position() })
    }

    /// Its answer is over.
    pub(super) fn tell(self, wire: &Wire<'_>, head: &RequestHead, is_whole: bool) {
        let Some(on_answer) = &wire.shared.on_answer else { return };
        on_answer(&Answered {
            head,
            peer: wire.peer,
            status: wire.status.get(),
            answer_bytes: wire.position().saturating_sub(self.position),
            took: crate::now() - self.begun,
            is_whole,
        });
    }
}
