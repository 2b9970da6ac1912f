//! One request and the head of its answer, on one connection.
//!
//! A body that fits the socket's buffer is written with the head in one call. A longer one is written by a coroutine
//! beside the one that reads: a server that answers early, because it refuses the upload, is heard at once. And where the
//! caller reads the answer meanwhile, both go on for as long as they like.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::connection::Connection;
use super::request::Body;
use super::upload::{Kept, Sending, Upload, read_ahead};
use super::{ClientError, Phase, Timeouts};
use crate::cell::RefCell;
use crate::clock::now;
use crate::http::{HeadLimits, Input, ResponseHead};
use crate::net::Duplex;

/// Bodies up to here are written at once: they fit the least send buffer that kernels give by default.
const WHOLE_BYTES_MAX: usize = 16 << 10;

/// How long a server may take to say 100 before the body is sent all the same (RFC 9110, section 10.1.1, demands that
/// the wait be bounded; curl takes a second too).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Interim answers to one request; a server has use for a few (102 at intervals, 103).
const INTERIM_MAX: u32 = 32;

/// How long an answer may still take once the body could not be sent: it is on its way, or there is none.
const ANSWER_AFTER_BROKEN_UPLOAD: Duration = Duration::from_secs(2);

/// What came of an exchange.
pub(super) struct Answered {
    pub(super) head: ResponseHead,
    /// The body was sent whole, so that the connection may be used again.
    pub(super) is_sent: bool,
}

/// Why there is no answer.
pub(super) struct Unanswered {
    pub(super) error: ClientError,
    /// Not a byte of an answer came, as on a connection that the server has just closed.
    pub(super) is_silent: bool,
}

/// What is special about a request.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// The body is to wait for 100.
    pub(super) expects_continue: bool,
    /// The request asks for another protocol, so that 101 is an answer.
    pub(super) may_switch: bool,
}

/// Until when things may take, whatever each alone may.
#[derive(Clone, Copy)]
pub(super) struct Clock<'a> {
    pub(super) timeouts: &'a Timeouts,
    pub(super) deadline: Option<Instant>,
}

impl Clock<'_> {
    /// Runs `f` for no longer than `limit`, and not beyond the deadline of all. Suspends as `f` does.
    pub(super) fn bound<T>(
        &self,
        phase: Phase,
        limit: Duration,
        f: impl FnOnce() -> T,
    ) -> Result<T, ClientError> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now()));
        match left {
            Some(left) if left < limit => {
                crate::timeout(left, f).map_err(|_| ClientError::TimedOut(Phase::Total))
            }
            _ => crate::timeout(limit, f).map_err(|_| ClientError::TimedOut(phase)),
        }
    }
}

/// Sends `wire`, the head, and `body`, and reads the head of the answer. Suspends until it is there.
pub(super) fn exchange(
    connection: &mut Connection,
    wire: &[u8],
    body: &mut Body<'_>,
    options: Options,
    limits: &HeadLimits,
    clock: Clock<'_>,
) -> Result<Answered, Unanswered> {
    let (duplex, input) = connection.split();
    let mut reading =
        Reading { duplex, input, head: ResponseHead::new(), limits, interim_count: 0, is_silent: true };
    let result = reading.exchange(wire, body, options, clock);
    let Reading { head, is_silent, .. } = reading;
    match result {
        Ok(is_sent) => Ok(Answered { head, is_sent }),
        Err(error) => Err(Unanswered { error, is_silent }),
    }
}

/// Sends `wire`, the head, and `body`, and lets `read` have the answer, from its head on, while the body is being sent.
/// Suspends until `read` has returned, and the body is sent or given up.
pub(super) fn exchange_with<T>(
    mut connection: Connection,
    wire: &[u8],
    body: &mut Body<'_>,
    options: Options,
    limits: &HeadLimits,
    clock: Clock<'_>,
    read: impl FnOnce(ResponseHead, Connection, Rc<Sending>) -> T,
) -> Result<T, ClientError> {
    let stream = connection.share();
    let duplex = stream.duplex();
    let sending = Rc::new(Sending::default());
    let (head, is_wanted) = {
        let (duplex, input) = connection.split();
        let head = ResponseHead::new();
        let mut reading = Reading { duplex, input, head, limits, interim_count: 0, is_silent: true };
        reading.write(&mut [IoSlice::new(wire)], clock)?;
        let is_wanted = !options.expects_continue || body.is_empty() || reading.waits_for_continue(clock)?;
        (reading.head, is_wanted)
    };
    if !is_wanted {
        // The answer in place of 100 is all there is; the connection is of no more use.
        return Ok(read(head, connection, sending));
    }
    let upload = &Upload::new(duplex);
    let result = crate::scope(|s| {
        let writer = s.spawn(|| {
            sending.run(|| upload.write_body(body, clock));
            if matches!(*sending.failure.borrow(), Some(ClientError::Body { .. })) {
                // The server waits for what will not come, and so would whoever reads its answer.
                duplex.abort();
            }
        });
        let (head, answer) = {
            let (duplex, input) = connection.split();
            let mut reading = Reading { duplex, input, head, limits, interim_count: 0, is_silent: true };
            let answer = reading.head_while_sending(&sending, options.may_switch, clock);
            (reading.head, answer)
        };
        if let Err(error) = answer {
            writer.terminate();
            return Err(error);
        }
        let is_agreed = head.status().is_success();
        let result = read(head, connection, sending.clone());
        if is_agreed && sending.is_answer_read.get() {
            // It wants all of it.
            let _ = writer.join();
        } else if sending.ended.get().is_none() {
            writer.terminate();
            duplex.abort();
        }
        Ok((is_agreed, result))
    });
    sending.finish();
    match (result, sending.failure.take()) {
        (Ok((_, _)), Some(failure @ ClientError::Body { .. })) => Err(failure),
        (Ok((true, _)), Some(failure)) => Err(failure),
        (Ok((_, result)), _) => Ok(result),
        // Why the upload broke says more than that no answer followed.
        (Err(_), Some(failure)) => Err(failure),
        (Err(error), None) => Err(error),
    }
}

struct Reading<'a> {
    duplex: &'a dyn Duplex,
    input: &'a mut Input,
    head: ResponseHead,
    limits: &'a HeadLimits,
    interim_count: u32,
    is_silent: bool,
}

impl Reading<'_> {
    /// Whether the body was sent whole.
    fn exchange(
        &mut self,
        wire: &[u8],
        body: &mut Body<'_>,
        Options { expects_continue, may_switch }: Options,
        clock: Clock<'_>,
    ) -> Result<bool, ClientError> {
        let (is_short, whole): (bool, &[u8]) = match &*body {
            Body::Empty => (true, &[]),
            Body::Bytes(bytes) if bytes.len() <= WHOLE_BYTES_MAX => (true, bytes),
            _ => (false, &[]),
        };
        if expects_continue && !body.is_empty() {
            self.write(&mut [IoSlice::new(wire)], clock)?;
            if !self.waits_for_continue(clock)? {
                return Ok(false);
            }
            if is_short {
                self.write(&mut [IoSlice::new(whole)], clock)?;
            }
        } else {
            let sent = self.write(&mut [IoSlice::new(wire), IoSlice::new(whole)], clock);
            if let Err(error) = sent {
                // It may have answered before it closed.
                let answer =
                    clock.bound(Phase::Head, ANSWER_AFTER_BROKEN_UPLOAD, || self.final_head(may_switch));
                return if matches!(answer, Ok(Ok(()))) { Ok(false) } else { Err(error) };
            }
        }
        if is_short {
            clock.bound(Phase::Head, clock.timeouts.head, || self.final_head(may_switch))??;
            return Ok(true);
        }
        self.send_while_reading(body, may_switch, clock)
    }

    fn write(&self, slices: &mut [IoSlice<'_>], clock: Clock<'_>) -> Result<(), ClientError> {
        clock
            .bound(Phase::Send, clock.timeouts.idle, || self.duplex.write_slices(slices))?
            .map_err(|source| ClientError::Io { phase: Phase::Send, source })
    }

    /// Writes `body` in a coroutine while this one waits for the answer.
    fn send_while_reading(
        &mut self,
        body: &mut Body<'_>,
        may_switch: bool,
        clock: Clock<'_>,
    ) -> Result<bool, ClientError> {
        let duplex = self.duplex;
        let sending = Sending::default();
        let broken_off: RefCell<Option<io::Error>> = RefCell::new(None);
        let stalled = Cell::new(false);
        let upload = &Upload::new(duplex);
        let answer = crate::scope(|s| {
            let writer = s.spawn(|| sending.run(|| upload.write_body(body, clock)));
            let answer = self.head_while_sending(&sending, may_switch, clock);
            // A refusal is heard even where the body was not to its end; an agreement wants all of it.
            match &answer {
                Ok(()) if self.head.status().is_success() => {
                    // A server that answers as it reads must not wait for us to read, and we for it.
                    let ahead = s.spawn(|| match read_ahead(self.input, duplex) {
                        Ok(Kept::All) => {}
                        Ok(Kept::NoMore) => {
                            upload.wait_for_stall();
                            stalled.set(true);
                            // The writer wakes, and ends.
                            duplex.abort();
                        }
                        Err(error) => *broken_off.borrow_mut() = Some(error),
                    });
                    let _ = writer.join();
                    ahead.terminate();
                }
                _ => writer.terminate(),
            }
            answer
        });
        if stalled.get() {
            return Err(ClientError::AnswerTooFarAhead);
        }
        let is_sent = sending.is_sent();
        match (answer, sending.failure.into_inner()) {
            // It is told once, and would look like the answer's end if it were asked for again.
            (Ok(()), None) if broken_off.borrow().is_some() => {
                let source = broken_off.take().expect("just looked at");
                Err(ClientError::Io { phase: Phase::Body, source })
            }
            // Nobody was sent what the caller could not give, and who agreed before it had all did not agree to that.
            (Ok(()), Some(failure @ ClientError::Body { .. })) => Err(failure),
            (Ok(()), Some(failure)) if self.head.status().is_success() => Err(failure),
            (Ok(()), _) => Ok(is_sent),
            // Why the upload broke says more than that no answer followed.
            (Err(_), Some(failure)) => Err(failure),
            (Err(error), None) => Err(error),
        }
    }

    /// Waits for the answer's head while another coroutine sends the body.
    fn head_while_sending(
        &mut self,
        sending: &Sending,
        may_switch: bool,
        clock: Clock<'_>,
    ) -> Result<(), ClientError> {
        loop {
            // While the body is under way the server need not answer; the writer has limits of its own.
            let limit = match sending.ended.get() {
                None => clock.timeouts.idle,
                Some(at) => {
                    let broken = sending.failure.borrow().is_some();
                    let limit = if broken { ANSWER_AFTER_BROKEN_UPLOAD } else { clock.timeouts.head };
                    (at + limit).saturating_duration_since(now())
                }
            };
            let was_ended = sending.ended.get().is_some();
            match clock.bound(Phase::Head, limit, || self.final_head(may_switch)) {
                Err(ClientError::TimedOut(Phase::Head)) if !was_ended => {}
                Err(error) => return Err(error),
                Ok(answer) => return answer,
            }
        }
    }

    /// Waits for the server's word, but not for long: whether to send the body. If not, the answer is there.
    fn waits_for_continue(&mut self, clock: Clock<'_>) -> Result<bool, ClientError> {
        match clock.bound(Phase::Head, CONTINUE_WAIT, || self.is_told_to_continue()) {
            // An answer in place of 100: the body is not wanted, and must not be sent.
            Ok(Ok(wanted)) => Ok(wanted),
            Err(ClientError::TimedOut(Phase::Head)) => Ok(true),
            Ok(Err(error)) | Err(error) => Err(error),
        }
    }

    /// Reads heads until 100, or until one that answers.
    fn is_told_to_continue(&mut self) -> Result<bool, ClientError> {
        loop {
            match self.next_head()? {
                StatusCode::CONTINUE => return Ok(true),
                status if !status.is_informational() => return Ok(false),
                StatusCode::SWITCHING_PROTOCOLS => return Err(ClientError::UnwantedUpgrade),
                _ => {}
            }
        }
    }

    /// Reads heads until the one that answers.
    fn final_head(&mut self, may_switch: bool) -> Result<(), ClientError> {
        loop {
            match self.next_head()? {
                StatusCode::SWITCHING_PROTOCOLS if may_switch => return Ok(()),
                StatusCode::SWITCHING_PROTOCOLS => return Err(ClientError::UnwantedUpgrade),
                status if !status.is_informational() => return Ok(()),
                _ => {}
            }
        }
    }

    /// Reads one head; can be interrupted at any point, and called again.
    fn next_head(&mut self) -> Result<StatusCode, ClientError> {
        loop {
            if let Some(size) = self.head.parse(self.input.bytes(), self.limits)? {
                self.input.consume(size);
                self.interim_count += 1;
                if self.interim_count > INTERIM_MAX {
                    return Err(ClientError::TooManyInterim);
                }
                return Ok(self.head.status());
            }
            let more = self.input.fill(self.duplex).and_then(|more| match more {
                true => Ok(()),
                false => {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed without an answer"))
                }
            });
            self.is_silent = self.is_silent && self.input.bytes().is_empty();
            more.map_err(|source| ClientError::Io { phase: Phase::Head, source })?;
        }
    }
}
