//! What the coroutines of one connection share, and how it ends.
//!
//! Nothing in here waits while it is borrowed, and nothing that ends a connection waits at all: that is done by
//! destructors too, while their coroutine unwinds.
//!
//! What it is not: the flow (`flow.rs`), or what users hold (`connection.rs`).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::budget::{Budget, Charge, Class, REASON_SIZE_BYTES_MAX, Weight};
use super::calls::Outgoing;
use super::connection::{CloseReason, Config, Handle};
use super::frame::{Header, Priority, Side, Status};
use super::hello::{FEATURE_DENIALS, FEATURE_DRAINING, FEATURE_METADATA, Wire};
use super::line::Line;
use super::metadata::{Block, Metadata, ServiceName};
use super::outbox::{Outbox, Queue, Withdrawn};
use super::stream::Stream;
use super::window::Broken;
use super::{Reply, ReplyMetadata, Service, life};
use crate::cell::RefCell;
use crate::coroutine::{Coroutine, JoinHandle};
use crate::crypto::PublicKey;
use crate::fsm::Events;
use crate::net::{Draining, Duplex};
use crate::sync::{Barrier, Semaphore, Signal};

/// What may wait to be written before our calls and the items of streams wait themselves, for small frames and for
/// large ones each: four parts of each of the payloads that share the line, so that the writer never runs dry while
/// they wake. What the peer causes does not wait: it is charged before ([`Budget`]).
pub(super) const QUEUE_BYTES_MAX: usize = 1 << 20;

/// What the kernel is given ahead of what the line takes: one batch of the writer. The kernel would take
/// megabytes, and a small call would wait behind all of them where the line is slow.
const UNSENT_BYTES_MAX: u32 = 256 << 10;

/// How long `close` lets queued bytes leave before it cuts.
pub(super) const CLOSE_FLUSH_MAX: Duration = Duration::from_secs(1);

/// The place of the connection's life among its tasks.
const LIFE_TASK: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// What is in flight goes on, until the instant if there is one; nothing new begins.
    Draining(Option<Instant>),
    /// Queued bytes still leave.
    Leaving,
    Closed,
}

/// Where a caller waits for its answer.
pub(super) struct Slot {
    /// Whom to wake; a call that streams is told through its stream.
    pub(super) caller: Option<Rc<Coroutine>>,
    pub(super) answer: RefCell<Option<Reply>>,
    /// The longest reply that the method gives, and the caller takes.
    pub(super) reply_bytes_max: usize,
    /// Where the answer's metadata goes, if somebody wants it.
    pub(super) heard: Option<ReplyMetadata>,
}

/// What the coroutines of one connection share.
pub(super) struct Shared {
    pub(super) stream: Box<dyn Duplex>,
    pub(super) service: Rc<Service>,
    pub(super) config: Config,
    pub(super) peer: Option<PublicKey>,
    pub(super) handle: RefCell<Weak<Handle>>,
    pub(super) outbox: RefCell<Outbox>,
    pub(super) drained: Signal,
    pub(super) outgoing: RefCell<Outgoing<Rc<Slot>>>,
    /// What the peer costs us, and its calls in flight.
    pub(super) budget: RefCell<Budget<JoinHandle<()>>>,
    /// What we may still cost the peer, in bytes of weight, by class.
    pub(super) allowances: [Semaphore; 4],
    /// The streams of calls in flight, by which end of the call is ours.
    pub(super) streams: RefCell<BTreeMap<(Side, u32), Rc<Stream>>>,
    /// What the peer speaks, and the gate that opens when that is settled.
    pub(super) wire: Cell<Wire>,
    pub(super) agreed: Barrier,
    pub(super) phase: Cell<Phase>,
    pub(super) reason: RefCell<Option<CloseReason>>,
    /// Begins when no new calls are taken, and when all is over.
    pub(super) unusable: Draining,
    pub(super) closed: Barrier,
    pub(super) last_heard: Cell<Instant>,
    pub(super) line: Line,
    /// The writer, while it has nothing to write.
    pub(super) idle_writer: RefCell<Option<Rc<Coroutine>>>,
    /// How the connection's life hears of what others do.
    pub(super) events: RefCell<Option<Events>>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

/// A reason as it is sent.
fn cut(reason: String) -> Vec<u8> {
    let end = reason.floor_char_boundary(REASON_SIZE_BYTES_MAX);
    reason[..end].into()
}

impl Slot {
    /// Gives the caller its answer.
    pub(super) fn fill(&self, answer: Reply) {
        *self.answer.borrow_mut() = Some(answer);
        if let Some(caller) = &self.caller {
            caller.wake();
        }
    }
}

impl Shared {
    pub(super) fn new(stream: impl Duplex, service: Rc<Service>, config: Config) -> Shared {
        stream.keep_unsent_below(UNSENT_BYTES_MAX);
        Shared {
            peer: stream.peer_key(),
            line: Line::new(&stream),
            stream: Box::new(stream),
            budget: RefCell::new(Budget::new(config.pool.clone())),
            service,
            config,
            handle: RefCell::default(),
            outbox: RefCell::new(Outbox::new()),
            drained: Signal::new(),
            outgoing: RefCell::default(),
            allowances: Class::ALL.map(|class| Semaphore::new(class.limit_bytes())),
            streams: RefCell::default(),
            wire: Cell::new(Wire::Unknown),
            agreed: Barrier::new(false),
            phase: Cell::new(Phase::Open),
            reason: RefCell::default(),
            unusable: Draining::new(),
            closed: Barrier::new(false),
            last_heard: Cell::new(crate::now()),
            idle_writer: RefCell::default(),
            events: RefCell::default(),
            tasks: RefCell::default(),
        }
    }

    /// Runs one of the connection's own coroutines; however it ends, the connection ends with it.
    pub(super) fn run_task(self: Rc<Self>, body: fn(&Rc<Shared>) -> Result<(), CloseReason>) {
        struct CloseAfter(Rc<Shared>, CloseReason);
        impl Drop for CloseAfter {
            fn drop(&mut self) {
                self.0.close(self.1.clone());
            }
        }
        let shared = self.clone();
        let task = crate::spawn(move || {
            let mut close_after = CloseAfter(shared.clone(), CloseReason::Local);
            if let Err(reason) = body(&shared) {
                close_after.1 = reason;
            }
        });
        if self.phase.get() == Phase::Closed {
            task.terminate();
        } else {
            self.tasks.borrow_mut().push(task);
        }
    }

    pub(super) fn wake_writer(&self) {
        let writer = self.idle_writer.take();
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    pub(super) fn has_room(&self, queue: Queue) -> bool {
        self.outbox.borrow().queued_bytes_of(queue) < QUEUE_BYTES_MAX || self.is_leaving()
    }

    /// Waits until there is room in the queue, or the connection is no longer open.
    pub(super) fn wait_for_room(&self, queue: Queue) {
        self.wait_for_room_while(queue, || true);
    }

    /// As [`Shared::wait_for_room`], for as long as `wanted` says so: whoever changes that wakes those who wait.
    pub(super) fn wait_for_room_while(&self, queue: Queue, wanted: impl Fn() -> bool) {
        while !self.has_room(queue) && wanted() {
            self.drained.wait();
        }
    }

    /// Queues a frame without a body, unless the connection is about to close.
    pub(super) fn say(&self, header: Header) {
        if !self.is_leaving() {
            self.outbox.borrow_mut().push(header);
            self.wake_writer();
        }
    }

    /// Queues a frame without a body that the peer has caused. One that causes many of these and reads none is cut off.
    pub(super) fn say_courtesy(&self, header: Header) {
        if self.is_leaving() {
            return;
        }
        let charge = self.budget.borrow_mut().courtesy(0);
        match charge {
            Some(charge) => {
                self.outbox.borrow_mut().push_courtesy(header, charge);
                self.wake_writer();
            }
            None => self.close(CloseReason::Stuck),
        }
    }

    /// Notes what the peer speaks.
    pub(super) fn settle(&self, wire: Wire) {
        self.wire.set(wire);
        if let Wire::Agreed { version, features } = wire {
            tracing::trace!(version, features, "agreed with the peer");
            self.agreed.open();
            self.post(life::MET);
        }
    }

    /// Tells the connection's life what has happened. Where its state declares no such event, that is old news.
    fn post(&self, event: &'static str) -> bool {
        self.events.borrow().as_ref().is_some_and(|events| events.post(event).is_ok())
    }

    /// Whether nothing but what is queued is sent any more, or nothing at all.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.phase.get(), Phase::Leaving | Phase::Closed)
    }

    /// Whether a call is in flight, or anything waits to be written.
    pub(super) fn is_busy(&self) -> bool {
        let in_flight = self.outgoing.borrow().count() + self.budget.borrow().count();
        in_flight > 0 || !self.outbox.borrow().is_empty() || self.line.is_busy()
    }

    /// A call is over: perhaps the last one that a drain waits for.
    pub(super) fn on_call_ended(&self) {
        if let Phase::Draining(_) = self.phase.get() {
            self.drained.notify_all();
        }
    }

    /// Begins no more calls in either direction; closes when those in flight are done, or at the instant.
    pub(super) fn begin_drain(&self, until: Option<Instant>, reason: CloseReason) {
        if self.phase.get() != Phase::Open {
            return;
        }
        if self.wire.get().has(FEATURE_DRAINING) {
            self.say(Header::Drain);
        }
        self.phase.set(Phase::Draining(until));
        self.reason.borrow_mut().get_or_insert(reason);
        self.unusable.begin();
        self.let_callers_go();
        self.drained.notify_all();
        if !self.post(life::DRAIN) {
            // It has not begun, or has already ended: nothing can be in flight.
            self.begin_close();
        }
    }

    /// Callers that wait for their turn need wait no more. This is done three times at most, and stays below what the
    /// count can hold.
    fn let_callers_go(&self) {
        for allowance in &self.allowances {
            allowance.release(usize::MAX / 8);
        }
    }

    /// What of our allowance at the peer is for calls of this weight.
    pub(super) fn allowance(&self, weight: Weight) -> &Semaphore {
        &self.allowances[weight.class as usize]
    }

    /// Tells the peer that a call of ours is given up, and takes back what has not left of it.
    pub(super) fn take_back(&self, call: u32) {
        if self.is_leaving() {
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        match outbox.withdraw(Side::Request, call).0 {
            Withdrawn::Unsent => {}
            Withdrawn::Partly | Withdrawn::Left => outbox.push_cancel(call),
        }
        drop(outbox);
        self.drained.notify_all();
        self.wake_writer();
    }

    /// The streams of a call, while it is in flight: `side` is ours.
    pub(super) fn stream_of(&self, side: Side, call: u32) -> Option<Rc<Stream>> {
        self.streams.borrow().get(&(side, call)).cloned()
    }

    /// Ends the streams of a call, if it has any: `side` is ours.
    pub(super) fn end_stream(&self, side: Side, call: u32, why: Broken) -> bool {
        let stream = self.streams.borrow_mut().remove(&(side, call));
        if let Some(stream) = &stream {
            stream.on_over(self, why);
        }
        stream.is_some()
    }

    /// Queues the answer to a call of the peer, with metadata if the peer can read it; one that streams answers behind its items. What the call is charged is
    /// given back when that has left.
    pub(super) fn answer(
        &self,
        call: u32,
        reply: Reply,
        metadata: &Metadata,
        (priority, streams): (Priority, bool),
        charge: Charge,
    ) {
        let knows_metadata = self.wire.get().has(FEATURE_METADATA);
        let (status, message, payload) = match reply {
            Reply::Response(message, payload) => (Status::Response, message, payload),
            Reply::Error(message) => (Status::Error, message, Bytes::new()),
            Reply::Malformed(reason) => (Status::Malformed, cut(reason), Bytes::new()),
            Reply::UnknownMethod => (Status::UnknownMethod, Vec::new(), Bytes::new()),
            Reply::TooLarge => (Status::TooLarge, Vec::new(), Bytes::new()),
            Reply::Denied(reason) if self.wire.get().has(FEATURE_DENIALS) => {
                (Status::Denied, cut(reason), Bytes::new())
            }
            Reply::RequestTooLarge if knows_metadata => (Status::RequestTooLarge, Vec::new(), Bytes::new()),
            Reply::RequestTooLarge => (Status::TooLarge, Vec::new(), Bytes::new()),
            Reply::UnknownService if knows_metadata => (Status::UnknownService, Vec::new(), Bytes::new()),
            Reply::UnknownService => (Status::UnknownMethod, Vec::new(), Bytes::new()),
            Reply::Cancelled
            | Reply::NotSent
            | Reply::Unsupported(_)
            | Reply::Closed
            | Reply::TimedOut
            | Reply::Denied(_) => (Status::Cancelled, Vec::new(), Bytes::new()),
            Reply::Panicked => (Status::Panicked, Vec::new(), Bytes::new()),
            Reply::Overloaded => (Status::Overloaded, Vec::new(), Bytes::new()),
        };
        let (message_size, payload_size) = (message.len() as u32, payload.len() as u32);
        let (mut message, mut metadata_size) = (message, 0);
        if !metadata.is_empty() && knows_metadata {
            let block = Block::encode(&ServiceName::default(), metadata);
            metadata_size = block.len() as u16;
            message = [block, message].concat();
        }
        let header = Header::Response { call, status, metadata_size, message_size, payload_size };
        let mut outbox = self.outbox.borrow_mut();
        match streams {
            true => outbox.push_item(Side::Response, call, header, &message, priority, charge),
            false => outbox.push_call(header, message, payload, priority, charge),
        }
        drop(outbox);
        self.wake_writer();
    }

    /// Refuses new calls, lets queued bytes leave, then closes.
    pub(super) fn begin_close(&self) {
        if self.is_leaving() {
            return;
        }
        self.phase.set(Phase::Leaving);
        self.reason.borrow_mut().get_or_insert(CloseReason::Local);
        self.end_calls(&|call| self.outbox.borrow_mut().withdraw_unsent(call));
        // The writer says goodbye when all that is queued has left.
        self.wake_writer();
        self.post(life::LEAVE);
    }

    /// Ends everything at once; the first reason stays.
    pub(super) fn close(&self, reason: CloseReason) {
        if self.phase.replace(Phase::Closed) == Phase::Closed {
            return;
        }
        self.reason.borrow_mut().get_or_insert(reason);
        let (charge, is_unsent) = self.outbox.borrow_mut().abandon();
        self.budget.borrow_mut().give_back(charge);
        self.end_calls(&is_unsent);
        self.stream.abort();
        let tasks = self.tasks.take();
        let follows = self.post(life::LOST);
        for (at, task) in tasks.into_iter().enumerate() {
            // The housekeeper follows its machine to the end.
            if at != LIFE_TASK || !follows {
                task.terminate();
            }
        }
        self.closed.open();
    }

    /// Ends all calls in both directions; `is_unsent` tells of one of ours whether anything of it has left or will.
    fn end_calls(&self, is_unsent: &dyn Fn(u32) -> bool) {
        let (waiting, running) =
            (self.outgoing.borrow_mut().end_all(), self.budget.borrow_mut().cancel_all());
        let streams = self.streams.take();
        for (call, slot) in waiting {
            slot.fill(if is_unsent(call) { Reply::NotSent } else { Reply::Closed });
        }
        for stream in streams.values() {
            stream.on_over(self, Broken::Lost);
        }
        for handler in running {
            handler.terminate();
        }
        // Whoever waits for its turn or for room wakes, and finds the connection closed.
        self.let_callers_go();
        self.agreed.open();
        self.unusable.begin();
        self.drained.notify_all();
    }
}
