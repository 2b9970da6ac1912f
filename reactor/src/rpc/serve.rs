//! Answering the peer's calls: each on a coroutine of its own, or on the reader's if it never waits.
//!
//! What it is not: the handlers themselves (`service.rs`), or who may call how much (`budget.rs`).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::budget::{Charge, REASON_SIZE_BYTES_MAX};
use super::connection::CloseReason;
use super::frame::{Header, Priority, Side};
use super::metadata::{Block, Metadata};
use super::outbox::Withdrawn;
use super::service::Ends;
use super::shared::Shared;
use super::stream::{Stream, Unreadable};
use super::window::Broken;
use super::{CallContext, Reply, ReplyMetadata};
use crate::coroutine::{self, Builder, Cut};
use crate::seldom::warn_seldom;

/// What has come of a request, behind its header.
#[derive(Default)]
pub(super) struct Body {
    pub(super) block: Block,
    pub(super) message: Vec<u8>,
    pub(super) payload: Bytes,
}

fn context(shared: &Shared, timeout_ms: u32, block: Block) -> (CallContext, Duration) {
    let timeout = Duration::from_millis(timeout_ms.into());
    let context = CallContext {
        peer: shared.peer,
        deadline: Some(crate::now() + timeout),
        connection: shared.handle.borrow().clone(),
        draining: shared.unusable.clone(),
        metadata: block.metadata,
        service: block.service,
        answer: ReplyMetadata::new(),
    };
    (context, timeout)
}

/// Runs a request's handler, at once and until it first suspends.
pub(super) fn serve(
    shared: &Rc<Shared>,
    header: Header,
    Body { block, message, payload }: Body,
) -> Result<(), CloseReason> {
    let Header::Request { call, method, timeout_ms, priority, .. } = header else { return Ok(()) };
    let (context, timeout) = context(shared, timeout_ms, block);
    if shared.service.is_inline(&context.service, method) {
        let mut answer = Answer::new(shared, call, priority, false);
        let run = || shared.service.dispatch(&context, method, &message, payload);
        let result = catch_unwind(AssertUnwindSafe(run));
        answer.set(&context, method, result);
        return Ok(());
    }
    let handler = shared.clone();
    let body = move || {
        let mut answer = Answer::new(&handler, call, priority, false);
        let run = || {
            coroutine::current().deadline.set(context.deadline);
            handler.service.dispatch(&context, method, &message, payload)
        };
        let result = catch_unwind(AssertUnwindSafe(|| crate::timeout(timeout, run)));
        answer.set(&context, method, result.map(|reply| reply.unwrap_or(Reply::Cancelled)));
    };
    start(shared, call, body)
}

/// Runs the handler of a call that streams.
pub(super) fn serve_stream(
    shared: &Rc<Shared>,
    header: Header,
    Body { block, message, .. }: Body,
) -> Result<(), CloseReason> {
    let Header::Open { call, method, timeout_ms, priority, .. } = header else { return Ok(()) };
    let (context, timeout) = context(shared, timeout_ms, block);
    let stream = Stream::new(Side::Response, call, priority);
    shared.streams.borrow_mut().insert((Side::Response, call), stream.clone());
    let handler = shared.clone();
    let body = move || {
        let mut answer = Answer::new(&handler, call, priority, true);
        let run = || {
            coroutine::current().deadline.set(context.deadline);
            let ends = || Ends { shared: handler.clone(), stream: stream.clone() };
            handler.service.dispatch_stream(&context, method, &message, &ends)
        };
        let result = catch_unwind(AssertUnwindSafe(|| crate::timeout(timeout, run)));
        answer.set(&context, method, result.map(|reply| reply.unwrap_or(Reply::Cancelled)));
    };
    start(shared, call, body)
}

fn start(shared: &Rc<Shared>, call: u32, body: impl FnOnce() + 'static) -> Result<(), CloseReason> {
    match Builder::new().spawn(body) {
        Ok(handler) => {
            let finished = shared.budget.borrow_mut().attach(call, handler);
            drop(finished);
            Ok(())
        }
        Err(error) => {
            warn_seldom!("a request was refused: {error}");
            shared.budget.borrow_mut().cancel(call);
            shared.end_stream(Side::Response, call, Broken::Answered);
            refuse(shared, call, Reply::Overloaded)
        }
    }
}

/// What a handler came to; its panic is logged here, and is an error at the caller.
fn caught(shared: &Shared, context: &CallContext, method: u32, result: std::thread::Result<Reply>) -> Reply {
    let sizes = shared.service.sizes_of(&context.service, method);
    let reply_bytes_max = sizes.map_or(0, |sizes| sizes.reply_bytes_max);
    match result {
        // An interceptor may have answered in the handler's place.
        Ok(reply) if reply.size_bytes() > reply_bytes_max.max(REASON_SIZE_BYTES_MAX) => Reply::TooLarge,
        Ok(reply) => reply,
        Err(unwinding) if unwinding.is::<Cut>() => resume_unwind(unwinding),
        Err(panic) => match panic.downcast::<Unreadable>() {
            Ok(unreadable) => Reply::Malformed(format!("an item of a stream: {}", unreadable.0)),
            Err(_) => {
                let method = shared.service.name_in(&context.service, method);
                tracing::error!(method, "an RPC handler panicked");
                Reply::Panicked
            }
        },
    }
}

/// Answers a request when its handler ends, however it ends: unless the caller has called it off.
struct Answer<'a> {
    shared: &'a Shared,
    call: u32,
    priority: Priority,
    streams: bool,
    reply: Reply,
    metadata: Metadata,
}

impl<'a> Answer<'a> {
    fn new(shared: &'a Shared, call: u32, priority: Priority, streams: bool) -> Answer<'a> {
        Answer { shared, call, priority, streams, reply: Reply::Cancelled, metadata: Metadata::new() }
    }

    /// Notes what the handler came to, and what it says beside.
    fn set(&mut self, context: &CallContext, method: u32, result: std::thread::Result<Reply>) {
        self.reply = caught(self.shared, context, method, result);
        self.metadata = context.answer.get();
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let still_wanted = self.shared.budget.borrow_mut().end(self.call);
        if self.streams {
            self.shared.end_stream(Side::Response, self.call, Broken::Answered);
        }
        if let Some(charge) = still_wanted {
            let reply = std::mem::replace(&mut self.reply, Reply::Cancelled);
            self.shared.answer(self.call, reply, &self.metadata, (self.priority, self.streams), charge);
        }
        self.shared.on_call_ended();
    }
}

/// Answers without having done anything. A peer that causes many of these and reads none is cut off.
pub(super) fn refuse(shared: &Shared, call: u32, reply: Reply) -> Result<(), CloseReason> {
    let charge: Charge = shared.budget.borrow_mut().courtesy(reply.size_bytes()).ok_or(CloseReason::Stuck)?;
    // Of a call that streams too: there are no items that it would have to follow.
    shared.answer(call, reply, &Metadata::new(), (Priority::Normal, false), charge);
    Ok(())
}

/// The caller gave up: ends the handler, and calls the response back as far as it has not left.
///
/// # Errors
/// When it gives up too much.
pub(super) fn cancel(shared: &Shared, call: u32) -> Result<(), CloseReason> {
    if !shared.budget.borrow_mut().may_withdraw(call, crate::now()) {
        return Err(CloseReason::Fickle);
    }
    let running = shared.budget.borrow_mut().cancel(call);
    if let Some(handler) = running {
        handler.terminate();
    }
    shared.end_stream(Side::Response, call, Broken::Cancelled);
    let (withdrawn, charge) = shared.outbox.borrow_mut().withdraw(Side::Response, call);
    shared.budget.borrow_mut().give_back(charge);
    if withdrawn == Withdrawn::Partly {
        shared.say_courtesy(Header::ResponsePart { call, size: 0 });
    }
    if withdrawn != Withdrawn::Left {
        shared.drained.notify_all();
    }
    shared.on_call_ended();
    Ok(())
}
