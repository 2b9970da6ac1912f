//! A connection's life: read a request, answer it, again.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::answered::Measured;
use super::router::{Handler, Methods, Params};
use super::send::{Terms, send, send_upgrade};
use super::wire::{BodySource, RequestBody, Upgraded, Vitals, Wire};
use super::{Shared, compress, layers};
use crate::coroutine::{self, Cut};
use crate::http::response::Body;
use crate::http::{BodyDecoder, BodyReader, Framing, HeadError, Input, Request, RequestHead, Response};
use crate::net::Duplex;

/// How long a client may go on sending after our last word, so that a reset does not take that word from it.
pub(in crate::http) const LINGER_TIME: Duration = Duration::from_secs(1);
/// And how much it may send.
pub(in crate::http) const LINGER_BYTES_MAX: usize = 1 << 20;

/// What becomes of the connection after a request.
enum Next {
    GoOn,
    /// Ends properly: the client may still be sending.
    Close,
    Upgrade(Box<dyn FnOnce(Upgraded<'_>)>),
}

/// Serves the client until it leaves, breaks the rules, or is given up. An error means that the connection broke.
pub(super) fn serve(
    shared: &Shared,
    vitals: &Rc<Vitals>,
    stream: &dyn Duplex,
    peer: Option<SocketAddr>,
) -> io::Result<()> {
    let wire = Wire::new(stream, shared, vitals, peer);
    let mut input = Input::new();
    let mut head = RequestHead::new();
    loop {
        let refused = match read_head(&wire, &mut input, &mut head)? {
            Incoming::Request => match attended(&wire, &mut input, &head)? {
                Next::GoOn => continue,
                Next::Close => None,
                Next::Upgrade(talk) => {
                    talk(Upgraded { stream, received: input.take() });
                    return Ok(());
                }
            },
            Incoming::Nothing => return Ok(()),
            Incoming::Refused(error) => {
                tracing::debug!("a request was refused: {error}");
                Some(error.status())
            }
            Incoming::Late => Some(StatusCode::REQUEST_TIMEOUT),
        };
        if let Some(status) = refused {
            let mut decoder = BodyDecoder::new(Framing::Empty, shared.limits.body);
            let mut body = RequestBody::new(&wire, &mut input, &mut decoder);
            send(&wire, &mut body, Response::of_status(status), Terms::new(&Method::GET, 1, false))?;
        }
        wire.flush()?;
        wire.end()?;
        linger(&wire);
        return Ok(());
    }
}

enum Incoming {
    Request,
    /// The client has left, or rested too long between two requests.
    Nothing,
    Refused(HeadError),
    /// The head took too long.
    Late,
}

fn read_head(wire: &Wire<'_>, input: &mut Input, head: &mut RequestHead) -> io::Result<Incoming> {
    let limits = &wire.shared.limits;
    let mut begun = false;
    loop {
        let call = coroutine::begin();
        match head.parse(input.bytes(), &limits.head) {
            Ok(Some(size)) => {
                input.consume(size);
                wire.vitals.idle.set(false);
                // A request that has come already is one more call that needs no wait.
                call.needed_no_wait();
                return Ok(Incoming::Request);
            }
            Ok(None) => {}
            Err(error) => return Ok(Incoming::Refused(error)),
        }
        let idle = input.bytes().is_empty();
        if idle {
            input.shrink();
            wire.vitals.idle.set(true);
            wire.vitals.reading.arm(limits.idle_time);
            if wire.shared.draining.has_begun() {
                wire.vitals.reading.arm(super::DRAIN_IDLE_TIME);
            }
        } else if !begun {
            begun = true;
            wire.vitals.idle.set(false);
            wire.vitals.reading.arm(limits.head_time);
        }
        match input.fill(Reading(wire)) {
            Ok(true) => {}
            // A client that leaves amid a head can't read an answer, or does not want one.
            Ok(false) => return Ok(Incoming::Nothing),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Ok(if idle { Incoming::Nothing } else { Incoming::Late });
            }
            Err(error) => return Err(error),
        }
    }
}

struct Reading<'a>(&'a Wire<'a>);

impl crate::http::Source for Reading<'_> {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_some(buffer)
    }
}

/// Answers a request, for as long as its client is there.
fn attended(wire: &Wire<'_>, input: &mut Input, head: &RequestHead) -> io::Result<Next> {
    let attendance = &wire.vitals.attendance;
    let measured = Measured::begin(wire);
    attendance.set_answering(true);
    let next = catch_unwind(AssertUnwindSafe(|| answer(wire, input, head)));
    attendance.set_answering(false);
    if let Some(measured) = measured {
        measured.tell(wire, head, matches!(next, Ok(Ok(_))));
    }
    match next {
        Ok(next) => next,
        Err(unwinding) if unwinding.downcast_ref() == Some(&attendance.leaving) => {
            coroutine::current().withdraw_cut(attendance.leaving);
            // The answers to earlier requests, should it be there after all.
            let _ = wire.flush();
            Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                format!("the client left before {} {} was answered", head.method(), head.path()),
            ))
        }
        Err(unwinding) => resume_unwind(unwinding),
    }
}

fn answer(wire: &Wire<'_>, input: &mut Input, head: &RequestHead) -> io::Result<Next> {
    let shared = wire.shared;
    let mut decoder = BodyDecoder::new(head.framing(), shared.limits.body);
    wire.begin_body(head.expects_continue());
    let mut request = Request {
        head,
        params: Params::new(),
        body: RequestBody::new(wire, &mut *input, &mut decoder),
        id: None,
    };
    let mut response = call_handler(shared, &mut request);

    if let Body::Upgrade(talk) = std::mem::replace(&mut response.body, Body::Empty).upgrade_or(&mut response)
    {
        if head.framing() == Framing::Empty && head.minor_version() == 1 {
            wire.status.set(Some(response.status));
            send_upgrade(wire, &response)?;
            return Ok(Next::Upgrade(talk));
        }
        response = Response::of_status(StatusCode::BAD_REQUEST).closing();
    }
    if response.status.is_informational() {
        // Not an answer: the client would wait for one for ever.
        tracing::error!("a handler answered {}", response.status);
        response = Response::of_status(StatusCode::INTERNAL_SERVER_ERROR).closing();
    }
    if response.compress {
        response = compress::negotiate(head, response);
    }
    let reads_request = matches!(response.body, Body::Stream { reads_request: true, .. });
    if reads_request {
        wire.ask_for_body();
    }
    // Whoever reads the body as it answers has not left the rest of it: that shows when it has answered.
    let is_lost = !reads_request && is_lost(wire, &request.body);
    let keep_alive = head.keeps_alive() && !shared.draining.has_begun() && !is_lost;
    let terms = Terms::new(head.method(), head.minor_version(), keep_alive);
    let keep_alive = send(wire, &mut request.body, response, terms)?;
    drop(request);
    let mut body_over =
        || decoder.is_at_end() || wire.exchange.body_comes() && skip_rest(wire, input, &mut decoder);
    Ok(if keep_alive && body_over() { Next::GoOn } else { Next::Close })
}

/// Whether more of the body was left unread than is worth reading.
fn is_lost(wire: &Wire<'_>, body: &RequestBody<'_>) -> bool {
    let remaining = body.remaining();
    remaining != Some(0)
        && (wire.exchange.is_held()
            || remaining.is_some_and(|left| left > wire.shared.limits.unread_body_bytes))
}

/// Reads what the handler left of the body; false if that is too much, or broken.
fn skip_rest(wire: &Wire<'_>, input: &mut Input, decoder: &mut BodyDecoder) -> bool {
    use io::BufRead as _;
    let mut reader = BodyReader::new(BodySource(wire), input, decoder);
    let mut left = wire.shared.limits.unread_body_bytes;
    loop {
        let count = match reader.fill_buf() {
            Ok([]) => return true,
            Ok(data) => data.len(),
            Err(_) => return false,
        };
        reader.consume(count);
        match left.checked_sub(count as u64) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
}

/// Runs the request's handler, and the layers around it; what goes wrong there becomes a response.
fn call_handler<'a>(shared: &'a Shared, request: &mut Request<'a>) -> Response {
    let found = find(shared, request);
    guarded(shared, || {
        layers::run(&shared.layers, request, &|request: &mut Request<'_>| found.answer(request))
    })
}

/// What there is for a request.
enum Found<'a> {
    Handler(&'a Handler),
    /// Nothing for its method, but for others.
    Others(&'a Methods),
    /// `OPTIONS *`: it asks for the server as a whole.
    Server,
    Nothing,
}

/// Finds its route, whose values the request is given.
fn find<'a>(shared: &'a Shared, request: &mut Request<'a>) -> Found<'a> {
    let head = request.head;
    // `http://host` has an empty path, which is `/`; and `*` to OPTIONS (RFC 9112 section 3.2).
    let path = match (head.path(), head.method()) {
        ("", &Method::OPTIONS) => "*",
        ("", method) if method != Method::CONNECT => "/",
        (path, _) => path,
    };
    match shared.router.find(path, &mut request.params) {
        Some(methods) => methods.get(head.method()).map_or(Found::Others(methods), Found::Handler),
        None if path == "*" && head.method() == Method::OPTIONS => Found::Server,
        None => shared.fallback.as_ref().map_or(Found::Nothing, Found::Handler),
    }
}

impl Found<'_> {
    fn answer(&self, request: &mut Request<'_>) -> Response {
        match self {
            Found::Handler(handler) => handler(request),
            Found::Others(methods) if request.method() == Method::OPTIONS => {
                Response::empty().header("Allow", methods.allow())
            }
            Found::Others(methods) => {
                Response::of_status(StatusCode::METHOD_NOT_ALLOWED).header("Allow", methods.allow())
            }
            Found::Server => Response::empty(),
            Found::Nothing => Response::of_status(StatusCode::NOT_FOUND),
        }
    }
}

fn guarded(shared: &Shared, handler: impl FnOnce() -> Response) -> Response {
    let run = || match shared.limits.handler_time {
        None => Ok(handler()),
        Some(limit) => crate::timeout(limit, handler),
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(response)) => response,
        Ok(Err(_elapsed)) => {
            tracing::warn!("a handler took longer than its limit");
            Response::of_status(StatusCode::SERVICE_UNAVAILABLE).closing()
        }
        Err(unwinding) if unwinding.is::<Cut>() => resume_unwind(unwinding),
        Err(_panic) => {
            tracing::error!("an HTTP handler panicked");
            Response::of_status(StatusCode::INTERNAL_SERVER_ERROR).closing()
        }
    }
}

/// Reads on for a moment after our end, and throws it away: a socket that is closed with unread bytes resets the
/// connection, and the client might lose our answer to it (RFC 9112 section 9.6).
fn linger(wire: &Wire<'_>) {
    wire.vitals.reading.arm(LINGER_TIME);
    let mut buffer = [0; 4096];
    let mut left = LINGER_BYTES_MAX;
    while let Ok(count) = wire.vitals.reading.wait(|| wire.stream.read_some(&mut buffer))
        && count > 0
        && left > count
    {
        left -= count;
    }
}

impl Body {
    /// Takes an upgrade out; any other body goes back where it was.
    fn upgrade_or(self, response: &mut Response) -> Body {
        match self {
            upgrade @ Body::Upgrade(_) => upgrade,
            other => {
                response.body = other;
                Body::Empty
            }
        }
    }
}
