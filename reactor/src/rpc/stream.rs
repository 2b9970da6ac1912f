//! Streams of items within a call, as handlers and callers hold them.
//!
//! A call that streams is one request, one response, and between them items in either direction or both, each under a
//! window of its own (`window.rs`). The callee's stream ends with its response; the caller's when the caller says so.
//! Either side may stop the other's stream and go on, and whoever gives the call up ends both.
//!
//! The handler's ends are here, the caller's in `stream/call.rs`.
//!
//! What it is not: a byte stream. Items are values of at most [`ITEM_SIZE_BYTES_MAX`] encoded bytes.

mod call;

pub(super) use call::Holder;
pub use call::StreamCall;

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::budget::Charge;
use super::frame::{Header, ITEM_SIZE_BYTES_MAX, Priority, Side};
use super::outbox::Queue;
use super::shared::Shared;
use super::window::{Broken, Inbound, Outbound, Stopped, Taken};
use super::{Method, tolerant};
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
    Cut(Broken),
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
    /// Whether anything has come of the other end.
    has_lived: Cell<bool>,
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
            has_lived: Cell::new(false),
        })
    }

    pub(super) fn on_item(&self, item: Vec<u8>) -> Result<(), super::frame::FrameError> {
        self.has_lived.set(true);
        let taken = self.inbound.borrow_mut().on_item(self.call, item);
        self.arrived.notify_one();
        taken
    }

    /// The other end sends no more.
    pub(super) fn on_end(&self) {
        self.has_lived.set(true);
        self.inbound.borrow_mut().on_end();
        self.arrived.notify_all();
    }

    pub(super) fn on_credit(&self, bytes: u32) -> Result<(), super::frame::FrameError> {
        self.has_lived.set(true);
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
    pub(super) fn on_over(&self, shared: &Shared, why: Broken) {
        self.inbound.borrow_mut().on_cut(why);
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
                Taken::Cut(why) => return Err(Over::Cut(why)),
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

    /// The next item; `Ok(None)` when the caller has ended its stream, and only then.
    ///
    /// The handler itself is terminated when its caller gives up or is lost, and mostly unwinds before it sees that as a
    /// value; it is seen by whoever receives in another coroutine, or is [`uninterruptible`](crate::uninterruptible).
    ///
    /// # Errors
    /// [`Broken`], behind the items that came before: that was not all.
    ///
    /// # Panics
    /// Unwinds the handler if the item cannot be read as a `T`, which the caller is told.
    ///
    /// # Suspends
    /// Until there is one.
    pub fn recv(&self) -> Result<Option<T>, Broken> {
        match self.stream.recv(&self.shared) {
            Ok(item) => match tolerant::from_bytes(&item) {
                Ok(item) => Ok(Some(item)),
                Err(error) => unwind(error.to_string()),
            },
            Err(Over::Ended) => Ok(None),
            Err(Over::Cut(why)) => Err(why),
        }
    }
}

/// Ends the handler for what its caller has sent.
fn unwind(reason: String) -> ! {
    std::panic::resume_unwind(Box::new(Unreadable(reason)))
}

/// What a handler is unwound with when its caller's item cannot be read: an answer, not a bug of the handler.
pub(super) struct Unreadable(pub(super) String);

/// The items until the caller has ended its stream, and only then. If the call is over before that, whoever iterates is
/// terminated: half of a stream is not taken for the whole. Who wants to know of it calls [`StreamReceiver::recv`].
///
/// # Panics
/// As `recv`; and unwinds whoever is [`uninterruptible`](crate::uninterruptible) when the call is over.
impl<T: DeserializeOwned> Iterator for StreamReceiver<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.recv().unwrap_or_else(|broken| {
            crate::coroutine::current().terminate();
            // Does not return where that may unwind.
            crate::yield_now();
            unwind(broken.to_string())
        })
    }
}

impl<T> Drop for StreamReceiver<T> {
    fn drop(&mut self) {
        self.stream.refuse(&self.shared);
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
