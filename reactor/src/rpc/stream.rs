//! Streams of items within a call, as handlers and callers hold them.
//!
//! A call that streams is one request, one response, and between them items in either direction or both, each under a
//! window of its own (`window.rs`). The callee's stream ends with its response; the caller's when the caller says so.
//! Either side may stop the other's stream and go on, and whoever gives the call up ends both.
//!
//! What it is not: a byte stream. Items are values of at most [`ITEM_SIZE_BYTES_MAX`] encoded bytes.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::budget::{Charge, Weight};
use super::frame::{Header, ITEM_SIZE_BYTES_MAX, Priority, Side};
use super::outbox::Queue;
use super::shared::{Shared, Slot};
use super::window::{Inbound, Outbound, Stopped, Taken};
use super::{CallError, Connection, Method, Reply, tolerant};
use crate::cell::RefCell;
use crate::coroutine;
use crate::serialization;
use crate::sync::Signal;

/// A method that streams, besides a request and a response.
pub trait StreamMethod: Method {
    /// What the caller streams; [`Never`](super::Never) if nothing.
    type Up: Serialize + DeserializeOwned;
    /// What the callee streams.
    type Down: Serialize + DeserializeOwned;
}

/// Why no more items come.
enum Over {
    /// The sender has said that it is through.
    Ended,
    /// The call is over: its answer says whether that was all.
    Cut,
}

/// One call's streams at one end.
pub(super) struct Stream {
    /// Which end this is.
    side: Side,
    call: u32,
    priority: Priority,
    inbound: RefCell<Inbound>,
    outbound: RefCell<Outbound>,
    arrived: Signal,
    allowed: Signal,
}

impl Stream {
    pub(super) fn new(side: Side, call: u32, priority: Priority) -> Rc<Stream> {
        Rc::new(Stream {
            side,
            call,
            priority,
            inbound: RefCell::default(),
            outbound: RefCell::default(),
            arrived: Signal::new(),
            allowed: Signal::new(),
        })
    }

    pub(super) fn on_item(&self, item: Vec<u8>) -> Result<(), super::frame::FrameError> {
        let taken = self.inbound.borrow_mut().on_item(self.call, item);
        self.arrived.notify_one();
        taken
    }

    /// The other end sends no more.
    pub(super) fn on_end(&self) {
        self.inbound.borrow_mut().on_end();
        self.arrived.notify_all();
    }

    pub(super) fn on_credit(&self, bytes: u32) -> Result<(), super::frame::FrameError> {
        let given = self.outbound.borrow_mut().on_credit(self.call, bytes);
        self.allowed.notify_all();
        given
    }

    /// The other end takes no more.
    pub(super) fn on_stop(&self, shared: &Shared) {
        self.outbound.borrow_mut().stop();
        self.allowed.notify_all();
        shared.drained.notify_all();
    }

    /// The call is over: what has come can still be taken.
    pub(super) fn on_over(&self, shared: &Shared) {
        self.inbound.borrow_mut().on_cut();
        self.arrived.notify_all();
        self.on_stop(shared);
    }

    fn send(&self, shared: &Shared, item: &[u8]) -> Result<(), Stopped> {
        let sending = coroutine::begin();
        loop {
            // Room first: should this be cut short where it waits, credit that it had taken would be gone. Nobody waits for
            // room on a stream that its other end does not take any more.
            shared.wait_for_room_while(Queue::Large(self.priority), || !self.outbound.borrow().is_stopped());
            if self.outbound.borrow_mut().admit(item.len())?.is_some() {
                break;
            }
            self.allowed.wait();
        }
        let header = Header::Item { side: self.side, call: self.call, size: item.len() as u32 };
        self.push(shared, header, item);
        sending.needed_no_wait();
        Ok(())
    }

    /// Queues a frame behind those of our side that came before.
    fn push(&self, shared: &Shared, header: Header, message: &[u8]) {
        shared.outbox.borrow_mut().push_item(
            self.side,
            self.call,
            header,
            message,
            self.priority,
            Charge::NONE,
        );
        shared.wake_writer();
    }

    /// The next item, or how there came to be none.
    fn recv(&self, shared: &Shared) -> Result<Vec<u8>, Over> {
        let taking = coroutine::begin();
        loop {
            let taken = self.inbound.borrow_mut().take();
            match taken {
                Taken::Item(item, credit) => {
                    if let Some(bytes) = credit {
                        let (side, call) = (self.side.other(), self.call);
                        shared.say_courtesy(Header::Credit { side, call, bytes });
                    }
                    taking.needed_no_wait();
                    return Ok(item);
                }
                Taken::Empty => self.arrived.wait(),
                Taken::Ended => return Err(Over::Ended),
                Taken::Cut => return Err(Over::Cut),
            }
        }
    }

    /// Takes no more; the other end is told, unless it has ended.
    fn refuse(&self, shared: &Shared) {
        if self.inbound.borrow_mut().refuse() {
            shared.say_courtesy(Header::Stop { side: self.side.other(), call: self.call });
        }
        self.arrived.notify_all();
    }
}

fn encode<T: Serialize>(item: &T) -> Vec<u8> {
    let bytes = serialization::to_bytes(item);
    let (size, name) = (bytes.len(), std::any::type_name::<T>());
    assert!(
        size <= ITEM_SIZE_BYTES_MAX,
        "an item {name} of a stream takes {size} bytes, more than {ITEM_SIZE_BYTES_MAX}"
    );
    bytes
}

/// A handler's end of the stream to its caller. It ends with the handler's return.
pub struct StreamSender<T> {
    shared: Rc<Shared>,
    stream: Rc<Stream>,
    items: PhantomData<fn(T)>,
}

/// A handler's end of the stream from its caller. Dropping it tells the caller to stop.
pub struct StreamReceiver<T> {
    shared: Rc<Shared>,
    stream: Rc<Stream>,
    items: PhantomData<fn() -> T>,
}

impl<T: Serialize> StreamSender<T> {
    pub(super) fn new(shared: Rc<Shared>, stream: Rc<Stream>) -> StreamSender<T> {
        StreamSender { shared, stream, items: PhantomData }
    }

    /// Sends an item.
    ///
    /// # Errors
    /// [`Stopped`] if the caller takes no more.
    ///
    /// # Panics
    /// If the encoded item is longer than [`ITEM_SIZE_BYTES_MAX`]: cut it, or use a payload.
    ///
    /// # Suspends
    /// While the window is full.
    pub fn send(&self, item: &T) -> Result<(), Stopped> {
        self.stream.send(&self.shared, &encode(item))
    }
}

impl<T: DeserializeOwned> StreamReceiver<T> {
    pub(super) fn new(shared: Rc<Shared>, stream: Rc<Stream>) -> StreamReceiver<T> {
        StreamReceiver { shared, stream, items: PhantomData }
    }

    /// The next item; `None` when the caller has ended its stream, and only then. If the call is over before that, whoever
    /// receives is terminated, as the handler is: half of a stream is not taken for the whole.
    ///
    /// # Panics
    /// Unwinds the handler if the item cannot be read as a `T`, which the caller is told; and whoever is
    /// [`uninterruptible`](crate::uninterruptible) when the call is over.
    ///
    /// # Suspends
    /// Until there is one.
    pub fn recv(&self) -> Option<T> {
        let unreadable = match self.stream.recv(&self.shared) {
            Ok(item) => match tolerant::from_bytes(&item) {
                Ok(item) => return Some(item),
                Err(error) => error.to_string(),
            },
            Err(Over::Ended) => return None,
            Err(Over::Cut) => {
                crate::coroutine::current().terminate();
                // Does not return where that may unwind.
                crate::yield_now();
                "the call ended before its stream did".to_owned()
            }
        };
        std::panic::resume_unwind(Box::new(Unreadable(unreadable)))
    }
}

/// What a handler is unwound with when its caller's item cannot be read: an answer, not a bug of the handler.
pub(super) struct Unreadable(pub(super) String);

impl<T: DeserializeOwned> Iterator for StreamReceiver<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.recv()
    }
}

impl<T> Drop for StreamReceiver<T> {
    fn drop(&mut self) {
        self.stream.refuse(&self.shared);
    }
}

/// A caller's end of a call that streams. Dropping it before [`StreamCall::finish`] gives the call up: the handler is
/// ended.
///
/// `send` and `recv` take turns in one coroutine, or run in two.
pub struct StreamCall<M: StreamMethod> {
    connection: Connection,
    slot: Rc<Slot>,
    stream: Rc<Stream>,
    deadline: Instant,
    /// What it takes of our allowance at the peer.
    weight: Weight,
    method: PhantomData<fn() -> M>,
}

impl<M: StreamMethod> StreamCall<M> {
    pub(super) fn new(
        connection: Connection,
        slot: Rc<Slot>,
        stream: Rc<Stream>,
        deadline: Instant,
        weight: Weight,
    ) -> StreamCall<M> {
        StreamCall { connection, slot, stream, deadline, weight, method: PhantomData }
    }

    fn shared(&self) -> &Rc<Shared> {
        self.connection.shared()
    }

    /// Runs `f` until the deadline; then the call is given up.
    fn in_time<T>(&self, f: impl FnOnce() -> T) -> Option<T> {
        let left = self.deadline.saturating_duration_since(crate::now());
        let done = crate::timeout(left, f).ok();
        if done.is_none() {
            self.give_up(Reply::TimedOut);
        }
        done
    }

    /// Ends the call here and at the peer; `reply` is what [`StreamCall::finish`] then tells.
    fn give_up(&self, reply: Reply) {
        let shared = self.shared();
        if shared.outgoing.borrow_mut().end(self.stream.call).is_some() {
            self.slot.answer.borrow_mut().get_or_insert(reply);
            shared.end_stream(Side::Request, self.stream.call);
            shared.take_back(self.stream.call);
            shared.on_call_ended();
        }
    }

    /// Sends an item.
    ///
    /// # Errors
    /// [`Stopped`] if the callee takes no more, or the call is over: [`StreamCall::finish`] says why.
    ///
    /// # Panics
    /// If the encoded item is longer than [`ITEM_SIZE_BYTES_MAX`]: cut it, or use a payload.
    ///
    /// # Suspends
    /// While the window is full, until the deadline at the most.
    pub fn send(&self, item: &M::Up) -> Result<(), Stopped> {
        let item = encode(item);
        let at_once = self.stream.outbound.borrow().has_credit(item.len())
            && self.shared().has_room(Queue::Large(self.stream.priority));
        if at_once {
            return self.stream.send(self.shared(), &item);
        }
        self.in_time(|| self.stream.send(self.shared(), &item)).unwrap_or(Err(Stopped))
    }

    /// Ends our stream: the callee's receiver ends after what was sent. Never suspends.
    pub fn end(&self) {
        let mut outbound = self.stream.outbound.borrow_mut();
        if !outbound.is_stopped() {
            outbound.stop();
            drop(outbound);
            self.stream.allowed.notify_all();
            self.shared().drained.notify_all();
            self.stream.push(self.shared(), Header::End { call: self.stream.call }, &[]);
        }
    }

    /// The next item; `Ok(None)` when the callee has sent all and answered. [`StreamCall::finish`] then has the response.
    ///
    /// # Errors
    /// [`CallError`] if the call failed, after the items that came before: those were not all. `finish` says the same.
    ///
    /// # Suspends
    /// Until there is one, until the deadline at the most.
    pub fn recv(&self) -> Result<Option<M::Down>, CallError<M::Error>> {
        let item = if self.stream.inbound.borrow().waiting_count() > 0 {
            self.stream.recv(self.shared())
        } else {
            self.in_time(|| self.stream.recv(self.shared())).unwrap_or(Err(Over::Cut))
        };
        let Ok(item) = item else { return self.failure().map_or(Ok(None), Err) };
        match tolerant::from_bytes(&item) {
            Ok(item) => Ok(Some(item)),
            Err(error) => {
                let reason = format!("an item of {}: {error}", M::NAME);
                self.give_up(Reply::Malformed(reason.clone()));
                // Also if the callee is content.
                *self.slot.answer.borrow_mut() = Some(Reply::Malformed(reason.clone()));
                Err(CallError::Malformed(reason))
            }
        }
    }

    /// All items that are left, and behind them the call's failure, if it fails.
    pub fn items(&self) -> impl Iterator<Item = Result<M::Down, CallError<M::Error>>> + '_ {
        let mut failed = false;
        std::iter::from_fn(move || {
            let item = if failed { None } else { self.recv().transpose() };
            failed = matches!(item, Some(Err(_)));
            item
        })
    }

    /// How the call has failed, if it has; the answer stays for [`StreamCall::finish`].
    fn failure(&self) -> Option<CallError<M::Error>> {
        match &*self.slot.answer.borrow() {
            Some(Reply::Response(..)) => None,
            Some(failed) => failed.clone().decode::<M>().err(),
            // Whoever ends a call's streams has left an answer.
            None => Some(CallError::Closed),
        }
    }

    /// Ends our stream, takes no more of the callee's, and waits for the response.
    ///
    /// # Errors
    /// [`CallError`] says who must act.
    ///
    /// # Suspends
    /// Until the response is there, until the deadline at the most.
    pub fn finish(self) -> Result<M::Response, CallError<M::Error>> {
        self.end();
        self.stream.refuse(self.shared());
        let answered = || {
            while self.slot.answer.borrow().is_none() {
                self.stream.allowed.wait();
            }
        };
        let _ = self.in_time(answered);
        let answer = self.slot.answer.take().unwrap_or(Reply::TimedOut);
        answer.decode::<M>().map(|(response, _)| response)
    }
}

impl<M: StreamMethod> Drop for StreamCall<M> {
    fn drop(&mut self) {
        self.give_up(Reply::Cancelled);
        self.shared().allowance(self.weight).release(self.weight.bytes);
    }
}

impl<M: StreamMethod> fmt::Debug for StreamCall<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCall").field("method", &M::NAME).field("call", &self.stream.call).finish()
    }
}

impl<T> fmt::Debug for StreamSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSender").field("call", &self.stream.call).finish()
    }
}

impl<T> fmt::Debug for StreamReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReceiver").field("call", &self.stream.call).finish()
    }
}
