//! A call of ours, from the request to its answer: its turn, its time, and what becomes of it when nobody waits.
//!
//! What it is not: the frames' order (`outbox.rs`), or the handler at the other end (`serve.rs`).

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::budget::{Charge, Weight};
use super::frame::{Header, Priority, Side};
use super::hello::{FEATURE_METADATA, FEATURE_PRIORITIES, FEATURE_STREAMS, Wire};
use super::interceptor::{self, CallInfo};
use super::metadata::{Block, Metadata};
use super::outbox::Outbox;
use super::shared::{Phase, Shared, Slot};
use super::stream::{Stream, StreamCall, StreamMethod};
use super::{
    CALL_TIME, CallError, CallOptions, Connection, Fate, Method, Reply, ReplyMetadata, is_request_allowed,
};
use crate::cell::RefCell;
use crate::coroutine::{self, Coroutine};
use crate::serialization;
use crate::timer::Timer;

/// The longest a call waits: what the header's milliseconds can say.
const TIMEOUT_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// The caller's time as an instant, no later than the deadline of the call that it serves itself, if it does.
pub(super) fn deadline_of(options: &CallOptions) -> Instant {
    deadline_after(options.timeout.unwrap_or(CALL_TIME))
}

fn deadline_after(time: Duration) -> Instant {
    let own = crate::now() + time.min(TIMEOUT_MAX);
    coroutine::current().deadline.get().map_or(own, |outer| own.min(outer))
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(crate::now())
}

/// What is left in the header's milliseconds, rounded up: a call may not arrive with no time at all.
fn timeout_ms(deadline: Instant) -> u32 {
    u32::try_from(until(deadline).as_millis() + 1).unwrap_or(u32::MAX)
}

/// Runs `f`, but no longer than until the deadline.
fn in_time<T>(deadline: Instant, f: impl FnOnce() -> T) -> Result<T, Reply> {
    crate::timeout(until(deadline), f).map_err(|_| Reply::TimedOut)
}

/// Runs `innermost` with the connection's interceptors around it.
fn intercepted<M: Method>(
    shared: &Shared,
    options: &CallOptions,
    deadline: Instant,
    request_bytes: usize,
    innermost: &mut dyn FnMut() -> Reply,
) -> Reply {
    let interceptors = &shared.config.interceptors.0;
    if interceptors.is_empty() {
        return innermost();
    }
    let (peer, deadline) = (shared.peer.as_ref(), Some(deadline));
    let (service, metadata) = (options.service.as_str(), &options.metadata);
    let info = CallInfo { method: M::ID, name: M::NAME, service, metadata, peer, deadline, request_bytes };
    interceptor::around(interceptors, &info, innermost)
}

/// Waits until it is settled what the peer speaks. One of version 1 says nothing unless it is asked.
fn meet(shared: &Shared, deadline: Instant) -> Result<(), Reply> {
    if !matches!(shared.wire.get(), Wire::Agreed { .. }) {
        shared.say(Header::Ping);
        in_time(deadline, || shared.agreed.wait())?;
    }
    match shared.phase.get() {
        Phase::Open => Ok(()),
        _ => Err(Reply::NotSent),
    }
}

/// What stands before the message: mostly nothing. A peer that can't read it is not asked at all, for what it would do
/// without may be something else.
fn block_of(shared: &Shared, options: &CallOptions, deadline: Instant) -> Result<Vec<u8>, Reply> {
    let block = Block::encode(&options.service, &options.metadata);
    if !block.is_empty() {
        meet(shared, deadline)?;
        if !shared.wire.get().has(FEATURE_METADATA) {
            return Err(Reply::Unsupported("metadata and no names of services"));
        }
    }
    Ok(block)
}

/// Where a call's answer goes.
fn slot_of<M: Method>(
    options: &CallOptions,
    caller: Option<Rc<Coroutine>>,
    heard: Option<ReplyMetadata>,
) -> Rc<Slot> {
    let allowed = options.reply_bytes_max.unwrap_or(usize::MAX);
    Rc::new(Slot {
        caller,
        answer: RefCell::new(None),
        reply_bytes_max: M::REPLY_SIZE_BYTES_MAX.min(allowed),
        heard,
    })
}

/// What an earlier call has left where this one's answer brings its metadata.
fn forget_metadata(options: &CallOptions) {
    if let Some(heard) = &options.reply_metadata {
        heard.put(Metadata::new());
    }
}

/// Calls `M` and waits for the answer.
pub(super) fn call<M: Method>(
    shared: &Shared,
    request: &M::Request,
    payload: Bytes,
    options: &CallOptions,
) -> Result<(M::Response, Bytes), CallError<M::Error>> {
    let message = serialization::to_bytes(request);
    if !is_request_allowed::<M>(message.len(), payload.len()) {
        return Err(CallError::RequestTooLarge);
    }
    forget_metadata(options);
    let deadline = deadline_of(options);
    let reply = if shared.config.interceptors.0.is_empty() {
        transact::<M>(shared, message, payload, deadline, options)
    } else {
        let request_bytes = message.len() + payload.len();
        intercepted::<M>(shared, options, deadline, request_bytes, &mut || {
            transact::<M>(shared, message.clone(), payload.clone(), deadline, options)
        })
    };
    reply.decode::<M>()
}

/// Sends a request when it is its turn, and waits for the reply.
fn transact<M: Method>(
    shared: &Shared,
    mut message: Vec<u8>,
    payload: Bytes,
    deadline: Instant,
    options: &CallOptions,
) -> Reply {
    let (priority, message_size) = (options.priority, message.len() as u32);
    let metadata_size = match block_of(shared, options, deadline) {
        Ok(block) if block.is_empty() => 0,
        Ok(block) => {
            message = [&block[..], &message].concat();
            block.len() as u16
        }
        Err(failure) => return failure,
    };
    let weight = Weight::of_call(message.len() + payload.len(), M::REPLY_SIZE_BYTES_MAX);
    let allowance = shared.allowance(weight);
    let _permit = match allowance.try_acquire_many(weight.bytes) {
        Some(permit) => permit,
        None => match in_time(deadline, || allowance.acquire_many(weight.bytes)) {
            Ok(permit) => permit,
            Err(late) => return late,
        },
    };
    let queue = Outbox::queue_of(message.len() + payload.len(), priority);
    if !shared.has_room(queue)
        && let Err(late) = in_time(deadline, || shared.wait_for_room(queue))
    {
        return late;
    }
    if shared.phase.get() != Phase::Open {
        return Reply::NotSent;
    }

    let slot = slot_of::<M>(options, Some(coroutine::current()), options.reply_metadata.clone());
    let call = shared.outgoing.borrow_mut().begin(slot.clone());
    let _in_flight = InFlight { shared, call };
    let header = Header::Request {
        call,
        method: M::ID,
        timeout_ms: timeout_ms(deadline),
        metadata_size,
        message_size,
        payload_size: payload.len() as u32,
        priority: if shared.wire.get().has(FEATURE_PRIORITIES) { priority } else { Priority::Normal },
    };
    shared.outbox.borrow_mut().push_call(header, message, payload, priority, Charge::NONE);
    shared.wake_writer();

    let _timer = Timer::wake_at(deadline);
    loop {
        coroutine::park_on(&"an RPC's answer");
        if let Some(answer) = slot.answer.take() {
            return answer;
        }
        if deadline <= crate::now() {
            return Reply::TimedOut;
        }
    }
}

/// A call of ours whose answer is waited for. Dropped without one (a timeout, a termination), it tells the
/// peer to stop.
struct InFlight<'a> {
    shared: &'a Shared,
    call: u32,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // Whoever answers, or closes the connection, ends it first.
        let waited_for = self.shared.outgoing.borrow_mut().end(self.call).is_some();
        if waited_for {
            self.shared.take_back(self.call);
            self.shared.on_call_ended();
        }
    }
}

/// Opens a call of `M`, which streams.
pub(super) fn open<M: StreamMethod>(
    connection: &Connection,
    request: &M::Request,
    options: &CallOptions,
) -> Result<StreamCall<M>, CallError<M::Error>> {
    let shared = connection.shared();
    let message = serialization::to_bytes(request);
    if !is_request_allowed::<M>(message.len(), 0) {
        return Err(CallError::RequestTooLarge);
    }
    forget_metadata(options);
    let deadline = deadline_after(options.timeout.unwrap_or(TIMEOUT_MAX));
    let begun_by = deadline_of(options);
    let mut opened = None;
    let reply = intercepted::<M>(shared, options, deadline, message.len(), &mut || {
        match begin::<M>(connection, &message, begun_by, deadline, options) {
            Ok(begun) => {
                // One that was opened before, by an interceptor that repeats, is given up with this.
                opened = Some(begun);
                Reply::Response(Vec::new(), Bytes::new())
            }
            Err(reply) => reply,
        }
    });
    match (opened, reply) {
        (Some(call), Reply::Response(..)) => Ok(call),
        // What an interceptor opens and then denies is given up here.
        (opened, reply) => match reply.decode::<M>() {
            // Whatever the interceptor says: this was sent, and may not be repeated as if it had not been.
            Err(error) if opened.is_some() && error.fate() == Fate::NotDone => Err(CallError::Cancelled),
            Err(error) => Err(error),
            Ok(_) => Err(CallError::Denied("an interceptor answered for the peer".to_owned())),
        },
    }
}

/// Waits until a stream may be opened, and opens it, for as long as until `deadline`.
fn begin<M: StreamMethod>(
    connection: &Connection,
    message: &[u8],
    begun_by: Instant,
    deadline: Instant,
    options: &CallOptions,
) -> Result<StreamCall<M>, Reply> {
    let (shared, priority) = (connection.shared(), options.priority);
    meet(shared, begun_by)?;
    let block = block_of(shared, options, begun_by)?;
    let (metadata_size, message_size) = (block.len() as u16, message.len() as u32);
    let message = [&block, message].concat();
    let weight = Weight::of_stream(message.len(), M::REPLY_SIZE_BYTES_MAX);
    let permit = in_time(begun_by, || shared.allowance(weight).acquire_many(weight.bytes))?;
    in_time(begun_by, || shared.wait_for_room(Outbox::queue_of(message.len(), priority)))?;
    if shared.phase.get() != Phase::Open {
        return Err(Reply::NotSent);
    }
    if !shared.wire.get().has(FEATURE_STREAMS) {
        return Err(Reply::UnknownMethod);
    }
    // The call gives it back when it is dropped.
    permit.forget();
    let slot = slot_of::<M>(options, None, Some(options.reply_metadata.clone().unwrap_or_default()));
    let call = shared.outgoing.borrow_mut().begin(slot.clone());
    let stream = Stream::new(Side::Request, call, priority);
    shared.streams.borrow_mut().insert((Side::Request, call), stream.clone());
    let timeout_ms = timeout_ms(deadline);
    let header = Header::Open { call, method: M::ID, timeout_ms, metadata_size, message_size, priority };
    shared.outbox.borrow_mut().push_open(header, &message, priority);
    shared.wake_writer();
    Ok(StreamCall::new(connection.clone(), slot, stream, deadline, weight))
}
