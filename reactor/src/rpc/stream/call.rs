//! A call that streams, as its caller holds it.
//!
//! What it is not: the opening of it (`rpc/call.rs`), or its streams (`rpc/stream.rs`).

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Instant;

use super::{Over, Stream, StreamMethod, encode};
use crate::rpc::budget::Weight;
use crate::rpc::frame::{Header, Side};
use crate::rpc::outbox::Queue;
use crate::rpc::shared::{Shared, Slot};
use crate::rpc::window::{Broken, Stopped};
use crate::rpc::{CallError, Connection, Metadata, Reply, ReplyMetadata, tolerant};

/// Who is told what becomes of a call; dropped when it is over.
pub(in crate::rpc) trait Holder {
    /// The first item, or credit, of the callee has come.
    fn on_life(&self);
    /// The call is over, with this if it was not just given up; `has_lived` if the first was told.
    fn on_end(&mut self, reply: Option<&Reply>, has_lived: bool);
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
    /// Who is told what becomes of it.
    holders: Vec<Box<dyn Holder>>,
    /// Whether they were told that the callee lives.
    is_told: Cell<bool>,
    method: PhantomData<fn() -> M>,
}

impl<M: StreamMethod> StreamCall<M> {
    pub(in crate::rpc) fn new(
        connection: Connection,
        slot: Rc<Slot>,
        stream: Rc<Stream>,
        deadline: Instant,
        weight: Weight,
    ) -> StreamCall<M> {
        let is_told = Cell::new(false);
        let holders = Vec::new();
        StreamCall { connection, slot, stream, deadline, weight, holders, is_told, method: PhantomData }
    }

    /// Tells a holder what becomes of the call.
    pub(in crate::rpc) fn hold(&mut self, holder: Box<dyn Holder>) {
        self.holders.push(holder);
    }

    /// Tells the holders of the first that has come.
    fn tell_life(&self) {
        if self.stream.has_lived.get() && !self.is_told.replace(true) {
            self.holders.iter().for_each(|holder| holder.on_life());
        }
    }

    /// Tells the holders how the call has ended, once.
    fn tell_end(&mut self) {
        self.tell_life();
        for mut holder in std::mem::take(&mut self.holders) {
            holder.on_end(self.slot.answer.borrow().as_ref(), self.is_told.get());
        }
    }

    /// What the callee has answered with beside its response or error; nothing until that is there.
    pub fn metadata(&self) -> Metadata {
        self.slot.heard.as_ref().map(ReplyMetadata::get).unwrap_or_default()
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
            shared.end_stream(Side::Request, self.stream.call, Broken::Cancelled);
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
    /// If the encoded item is longer than [`ITEM_SIZE_BYTES_MAX`](crate::rpc::frame::ITEM_SIZE_BYTES_MAX): cut it, or use a payload.
    ///
    /// # Suspends
    /// While the window is full, until the deadline at the most.
    pub fn send(&self, item: &M::Up) -> Result<(), Stopped> {
        self.tell_life();
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
    /// [`CallError`] if the call failed, after the items that came before: those were not all. A lost connection
    /// ([`CallError::Closed`]) and a callee that gave up ([`CallError::Cancelled`]) are told apart; `finish` says the same.
    ///
    /// # Suspends
    /// Until there is one, until the deadline at the most.
    pub fn recv(&self) -> Result<Option<M::Down>, CallError<M::Error>> {
        let item = if self.stream.inbound.borrow().waiting_count() > 0 {
            self.stream.recv(self.shared())
        } else {
            self.in_time(|| self.stream.recv(self.shared())).unwrap_or(Err(Over::Cut(Broken::Cancelled)))
        };
        self.tell_life();
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
    pub fn finish(mut self) -> Result<M::Response, CallError<M::Error>> {
        self.end();
        self.stream.refuse(self.shared());
        let answered = || {
            while self.slot.answer.borrow().is_none() {
                self.stream.allowed.wait();
            }
        };
        let _ = self.in_time(answered);
        self.tell_end();
        let answer = self.slot.answer.take().unwrap_or(Reply::TimedOut);
        answer.decode::<M>().map(|(response, _)| response)
    }
}

impl<M: StreamMethod> Drop for StreamCall<M> {
    fn drop(&mut self) {
        // Before it is given up: that says nothing of the callee.
        self.tell_end();
        self.give_up(Reply::Cancelled);
        self.shared().allowance(self.weight).release(self.weight.bytes);
    }
}

impl<M: StreamMethod> fmt::Debug for StreamCall<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCall").field("method", &M::NAME).field("call", &self.stream.call).finish()
    }
}
