//! The reader and the writer of a connection, a coroutine each; the third, the housekeeper, is in `life.rs`.
//!
//! Each is a loop that reads like the protocol. They meet in [`Shared`] and nowhere else.
//!
//! What it is not: the rules. What is a frame, what goes first and what is too much is decided by `frame`,
//! `outbox` and `budget`.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::budget::{REASON_SIZE_BYTES_MAX, Weight};
use super::connection::CloseReason;
use super::frame::{FrameError, Header, PART_SIZE_BYTES_MAX, PREFACE, Priority, Side, Status};
use super::hello::{FEATURES, Hello, Wire};
use super::input::Input;
use super::metadata::{Block, MetadataError};
use super::outbox::{PAYLOADS_INTERLEAVED_MAX, Queue};
use super::serve::{Body, cancel, refuse, serve, serve_stream};
use super::shared::{Phase, Shared, Slot};
use super::window::Broken;
use super::{Reply, frame};
use crate::coroutine;
use crate::serialization;

/// The longest that the parts of a request may take to come, whatever its caller says: 4 MiB at 30 KB/s.
const ARRIVAL_MAX: Duration = Duration::from_secs(150);

const QUEUES: [Queue; 4] =
    [Queue::Small, Queue::Large(Priority::Normal), Queue::Large(Priority::High), Queue::Large(Priority::Low)];

/// A payload of which parts are still to come.
struct Partial {
    /// The request or response that it belongs to.
    header: Header,
    /// All but the payload.
    body: Body,
    payload: Vec<u8>,
    filled: usize,
    /// Nobody waits for it any more: its parts are passed over.
    unwanted: bool,
    /// When the parts of a request must have come.
    due: Instant,
}

type Partials = BTreeMap<(Side, u32), Partial>;

/// Writes what is queued, until the connection closes.
pub(super) fn write(shared: &Rc<Shared>) -> Result<(), CloseReason> {
    let mut said_goodbye = false;
    loop {
        if shared.outbox.borrow().is_empty() {
            if shared.is_leaving() && !std::mem::replace(&mut said_goodbye, true) {
                // The peer stops reading at it, so it is queued when everything else has left.
                shared.outbox.borrow_mut().push(Header::Goodbye);
                continue;
            }
            if shared.is_leaving() {
                shared.stream.end()?;
                // The peer hangs up when it has read our goodbye; a socket closed earlier, with bytes of its own
                // still unread, would take back what we sent last. The housekeeper sees to it that this ends.
                loop {
                    coroutine::park_on(&"a peer to hang up");
                }
            }
            // Idle means parked right here: a wake-up while a write is under way would only disturb it.
            *shared.idle_writer.borrow_mut() = Some(coroutine::current());
            coroutine::park_on(&"something to send");
            continue;
        }
        let mut batch = shared.outbox.borrow_mut().next_batch();
        shared.budget.borrow_mut().give_back(batch.charge.take());
        shared.line.on_waiting();
        let mut slices: smallvec::SmallVec<[IoSlice<'_>; 16]> = batch.slices().map(IoSlice::new).collect();
        shared.line.write(&*shared.stream, &mut slices)?;
        drop(slices);
        shared.outbox.borrow_mut().recycle(batch);
        if shared.outbox.borrow().is_empty() {
            shared.line.on_rest();
        }
        if shared.phase.get() != Phase::Open || QUEUES.into_iter().any(|queue| shared.has_room(queue)) {
            shared.drained.notify_all();
        }
    }
}

/// Reads frames and acts on them, until the peer closes or breaks the rules.
pub(super) fn read(shared: &Rc<Shared>) -> Result<(), CloseReason> {
    let mut input = Input::new(&*shared.stream, &shared.last_heard);
    let mut partials = Partials::new();
    match input.array()? {
        Some(PREFACE) => {}
        Some(_) => return Err(FrameError::BadPreface.into()),
        None => return Err(CloseReason::Remote),
    }
    loop {
        // A frame that is in the buffer already counts as a call that need not wait: a peer that sends faster than we work
        // must not keep every other connection waiting.
        coroutine::pass();
        let Some(header) = input.array()? else { return Err(CloseReason::Remote) };
        let header = Header::decode(&header)?;
        if shared.wire.get() == Wire::Unknown {
            meet(shared, header);
        }
        drop_late(shared, &mut partials);
        match header {
            Header::Request { call, message_size, .. } => {
                let block = take_block(&mut input, header)?;
                let admitted = admit(shared, header, call, block)?;
                // Nothing is held that was not charged.
                let message = take_if(&mut input, admitted.is_some(), message_size as usize)?;
                let unwanted = admitted.is_none();
                let body = Body { block: admitted.unwrap_or_default(), message, payload: Bytes::new() };
                let whole = receive_first(&mut input, &mut partials, header, body, unwanted)?;
                if let Some(body) = whole
                    && shared.budget.borrow().is_arriving(call)
                {
                    serve(shared, header, body)?;
                }
            }
            Header::Response { call, message_size, .. } => {
                let block = take_block(&mut input, header)?;
                let wanted = wanted(shared, header, call, block);
                let message = take_if(&mut input, wanted.is_some(), message_size as usize)?;
                let unwanted = wanted.is_none();
                let body = Body { block: wanted.unwrap_or_default(), message, payload: Bytes::new() };
                if let Some(body) = receive_first(&mut input, &mut partials, header, body, unwanted)? {
                    deliver(shared, header, body);
                }
            }
            // Of a call that was given up meanwhile, by its caller or by our own end, nothing begins.
            Header::RequestPart { call, size } => {
                let done = receive_part(&mut input, &mut partials, (Side::Request, call), size as usize)?;
                if let Some((header, body)) = done
                    && shared.budget.borrow().is_arriving(call)
                {
                    serve(shared, header, body)?;
                }
            }
            Header::ResponsePart { call, size: 0 } => {
                partials.remove(&(Side::Response, call)).ok_or(FrameError::StrayPart { call })?;
            }
            Header::ResponsePart { call, size } => {
                let done = receive_part(&mut input, &mut partials, (Side::Response, call), size as usize)?;
                if let Some((header, body)) = done {
                    deliver(shared, header, body);
                }
            }
            Header::Cancel { call } => {
                partials.remove(&(Side::Request, call));
                cancel(shared, call)?;
            }
            Header::Ping => {
                // A peer that asks but does not listen gets no more answers than fit.
                let charge = shared.budget.borrow_mut().courtesy(0);
                if let Some(charge) = charge {
                    shared.outbox.borrow_mut().push_courtesy(Header::Pong, charge);
                    shared.wake_writer();
                }
            }
            Header::Pong => {}
            Header::Open { call, message_size, .. } => {
                let block = take_block(&mut input, header)?;
                let admitted = admit(shared, header, call, block)?;
                let message = take_if(&mut input, admitted.is_some(), message_size as usize)?;
                // The connection may have begun to leave while the message came.
                if let Some(block) = admitted
                    && shared.budget.borrow().is_arriving(call)
                {
                    serve_stream(shared, header, Body { block, message, payload: Bytes::new() })?;
                }
            }
            Header::Item { side, call, size } => {
                // Looked up behind the read, which may have waited: whoever it was for may have given up, or be done.
                let item = input.take(size as usize)?;
                if let Some(stream) = shared.stream_of(side.other(), call) {
                    stream.on_item(item)?;
                }
            }
            Header::End { call } => {
                if let Some(stream) = shared.stream_of(Side::Response, call) {
                    stream.on_end();
                }
            }
            Header::Credit { side, call, bytes } => {
                if let Some(stream) = shared.stream_of(side, call) {
                    stream.on_credit(bytes)?;
                }
            }
            Header::Stop { side, call } => {
                if let Some(stream) = shared.stream_of(side, call) {
                    stream.on_stop(shared);
                }
            }
            Header::Hello { message_size } => {
                let message = input.take(message_size as usize)?;
                shared.settle(shared.wire.get().on_hello(&message)?);
            }
            Header::Drain => shared.begin_drain(None, CloseReason::Remote),
            Header::Optional { kind, message_size } => {
                tracing::debug!(kind, "a frame of a later version is passed over");
                input.skip(message_size as usize)?;
            }
            Header::Goodbye => return Err(CloseReason::Remote),
        }
    }
}

/// The next bytes, or nothing in their place if nobody wants them.
fn take_if(input: &mut Input<'_>, wanted: bool, size: usize) -> std::io::Result<Vec<u8>> {
    match wanted {
        true => input.take(size),
        false => input.skip(size).map(|()| Vec::new()),
    }
}

/// The block of metadata behind a header, which says that it is short.
fn take_block(input: &mut Input<'_>, header: Header) -> std::io::Result<Result<Block, MetadataError>> {
    match header.metadata_size() {
        0 => Ok(Ok(Block::default())),
        size => Ok(Block::decode(&input.take(size)?)),
    }
}

/// Charges a call that begins, before anything of its message is held; or refuses it, and gives nothing.
fn admit(
    shared: &Shared,
    header: Header,
    call: u32,
    block: Result<Block, MetadataError>,
) -> Result<Option<Block>, CloseReason> {
    let (method, size, streams) = match header {
        Header::Request { method, message_size, payload_size, .. } => {
            (method, message_size as usize + payload_size as usize, false)
        }
        Header::Open { method, message_size, .. } => (method, message_size as usize, true),
        _ => unreachable!("only requests and openings begin a call"),
    };
    // Once we are leaving goodbye is on its way, and nothing else is said.
    if shared.is_leaving() {
        return Ok(None);
    }
    let refusal = match block {
        // Who drains does nothing new, and says that nothing was done.
        _ if shared.phase.get() != Phase::Open => Reply::Overloaded,
        Err(error) => Reply::Malformed(error.to_string()),
        Ok(block) => match shared.service.sizes_of(&block.service, method) {
            None => Reply::UnknownService,
            Some(sizes) if size > sizes.request_bytes_max.unwrap_or(shared.config.request_bytes_max) => {
                Reply::RequestTooLarge
            }
            Some(sizes) => {
                let request_bytes = header.metadata_size() + size;
                let weight = match streams {
                    false => Weight::of_call(request_bytes, sizes.reply_bytes_max),
                    true => Weight::of_stream(request_bytes, sizes.reply_bytes_max),
                };
                if shared.budget.borrow_mut().admit(call, weight)? {
                    return Ok(Some(block));
                }
                Reply::Overloaded
            }
        },
    };
    refuse(shared, call, refusal)?;
    Ok(None)
}

/// Gives up requests whose parts do not come within their time: what they reserve is others' too. Who sends nothing at
/// all is found by its silence, so it is enough to look when something comes.
fn drop_late(shared: &Shared, partials: &mut Partials) {
    if partials.is_empty() {
        return;
    }
    let now = crate::now();
    for ((side, call), partial) in partials {
        if *side == Side::Request && !partial.unwanted && partial.due <= now {
            // The parts that still come are passed over.
            (partial.unwanted, partial.body, partial.payload) = (true, Body::default(), Vec::new());
            let handler = shared.budget.borrow_mut().cancel(*call);
            debug_assert!(handler.is_none(), "its handler cannot have begun");
        }
    }
}

/// Learns from a peer's first frame which version it speaks, and introduces us to a later one.
fn meet(shared: &Shared, first: Header) {
    let wire = match first {
        Header::Cancel { call } => Wire::on_first_cancel(call),
        _ => Wire::FIRST,
    };
    shared.settle(wire);
    if wire == Wire::Announced {
        let message = serialization::to_bytes(&Hello { version: frame::VERSION, features: FEATURES });
        let header = Header::Hello { message_size: message.len() as u32 };
        shared.outbox.borrow_mut().push_with(header, &message);
        shared.wake_writer();
    }
}

/// Takes the part of a payload that comes with its request or response; gives both back if that is all.
fn receive_first(
    input: &mut Input<'_>,
    partials: &mut Partials,
    header: Header,
    mut body: Body,
    unwanted: bool,
) -> Result<Option<Body>, CloseReason> {
    let (side, call, size) = match header {
        Header::Request { call, payload_size, .. } => (Side::Request, call, payload_size as usize),
        Header::Response { call, payload_size, .. } => (Side::Response, call, payload_size as usize),
        _ => unreachable!("only requests and responses begin a payload"),
    };
    if size <= PART_SIZE_BYTES_MAX {
        if unwanted {
            input.skip(size)?;
            return Ok(None);
        }
        if size > 0 {
            body.payload = Bytes::from(input.take(size)?);
        }
        return Ok(Some(body));
    }
    if partials.len() >= PAYLOADS_INTERLEAVED_MAX {
        return Err(FrameError::TooManyParts { max: PAYLOADS_INTERLEAVED_MAX }.into());
    }
    if partials.contains_key(&(side, call)) {
        return Err(FrameError::DuplicateCall { call }.into());
    }
    // At most PAYLOAD_SIZE_BYTES_MAX, as the header was checked, and zeroed lazily by the allocator.
    let payload = if unwanted { Vec::new() } else { vec![0; size] };
    let timeout = match header {
        Header::Request { timeout_ms, .. } => Duration::from_millis(timeout_ms.into()).min(ARRIVAL_MAX),
        _ => ARRIVAL_MAX,
    };
    let due = crate::now() + timeout;
    let mut partial = Partial { header, body, payload, filled: 0, unwanted, due };
    partial.receive(input, PART_SIZE_BYTES_MAX)?;
    partials.insert((side, call), partial);
    Ok(None)
}

/// Takes a later part; gives request or response back if it was the last.
fn receive_part(
    input: &mut Input<'_>,
    partials: &mut Partials,
    key: (Side, u32),
    size: usize,
) -> Result<Option<(Header, Body)>, CloseReason> {
    let stray = FrameError::StrayPart { call: key.1 };
    let partial = partials.get_mut(&key).ok_or(stray)?;
    if size != partial.missing().min(PART_SIZE_BYTES_MAX) {
        return Err(stray.into());
    }
    partial.receive(input, size)?;
    if partial.missing() > 0 {
        return Ok(None);
    }
    let Partial { header, mut body, payload, unwanted, .. } = partials.remove(&key).ok_or(stray)?;
    body.payload = payload.into();
    Ok((!unwanted).then_some((header, body)))
}

impl Partial {
    fn missing(&self) -> usize {
        match self.header {
            Header::Request { payload_size, .. } | Header::Response { payload_size, .. } => {
                payload_size as usize - self.filled
            }
            _ => 0,
        }
    }

    fn receive(&mut self, input: &mut Input<'_>, size: usize) -> Result<(), CloseReason> {
        if self.unwanted {
            input.skip(size)?;
        } else {
            input.fill(&mut self.payload[self.filled..self.filled + size])?;
        }
        self.filled += size;
        Ok(())
    }
}

/// What stands before a response that somebody waits for, if that is no longer than its method says, and its caller takes:
/// one that is fails its call before anything of it is held, as does metadata that cannot be read.
fn wanted(shared: &Shared, header: Header, call: u32, block: Result<Block, MetadataError>) -> Option<Block> {
    let Header::Response { status, message_size, payload_size, .. } = header else { return None };
    let max = shared.outgoing.borrow().get(call).map(|slot| slot.reply_bytes_max)?;
    let max = match status {
        Status::Response | Status::Error => max,
        // Any call may be answered with a reason.
        _ => REASON_SIZE_BYTES_MAX,
    };
    let failure = match block {
        _ if message_size as usize + payload_size as usize > max => Reply::TooLarge,
        Ok(block) => return Some(block),
        Err(error) => Reply::Malformed(error.to_string()),
    };
    let slot = shared.outgoing.borrow_mut().end(call);
    finish(shared, call, slot, failure);
    None
}

/// Gives a response to whoever waits for it; if nobody does, they have given up.
fn deliver(shared: &Shared, header: Header, Body { block, message, payload }: Body) {
    let Header::Response { call, status, .. } = header else { return };
    let slot = shared.outgoing.borrow_mut().end(call);
    if let Some(heard) = slot.as_ref().and_then(|slot| slot.heard.as_ref()) {
        heard.put(block.metadata);
    }
    let reply = match status {
        Status::Response => Reply::Response(message, payload),
        Status::Error => Reply::Error(message),
        Status::Malformed => Reply::Malformed(in_words(&message)),
        Status::UnknownMethod => Reply::UnknownMethod,
        Status::TooLarge => Reply::TooLarge,
        Status::Cancelled => Reply::Cancelled,
        Status::Panicked => Reply::Panicked,
        Status::Overloaded => Reply::Overloaded,
        Status::Denied => Reply::Denied(in_words(&message)),
        Status::UnknownService => Reply::UnknownService,
        Status::RequestTooLarge => Reply::RequestTooLarge,
    };
    finish(shared, call, slot, reply);
}

/// A peer's reason, as a part of a line of whoever prints or logs it: no end of a line, nothing that a terminal obeys.
fn in_words(reason: &[u8]) -> String {
    // Marks of direction make what stands behind them look like something else.
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    let mut words = String::with_capacity(reason.len());
    for c in String::from_utf8_lossy(reason).chars() {
        match is_obeyed(c) {
            true => words.extend(c.escape_default()),
            false => words.push(c),
        }
    }
    words
}

/// Ends a call of ours with its answer.
fn finish(shared: &Shared, call: u32, slot: Option<Rc<Slot>>, reply: Reply) {
    let Some(slot) = slot else { return };
    slot.fill(reply);
    shared.end_stream(Side::Request, call, Broken::Answered);
    shared.on_call_ended();
}
