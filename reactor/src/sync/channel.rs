//! A bounded queue between coroutines, with any number of them at either end.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::WaitList;
use crate::cell::RefCell;
use crate::coroutine::{begin, may_suspend};
use crate::error::error_says;
use crate::select::{Selectable, source::Source};

struct Shared<T> {
    queue: RefCell<VecDeque<T>>,
    capacity: usize,
    closed: Cell<bool>,
    sender_count: Cell<usize>,
    receiver_count: Cell<usize>,
    not_empty: WaitList,
    not_full: WaitList,
}

impl<T> Shared<T> {
    fn can_send(&self) -> bool {
        self.closed.get() || self.queue.borrow().len() < self.capacity
    }

    fn can_recv(&self) -> bool {
        self.closed.get() || !self.queue.borrow().is_empty()
    }

    fn close(&self) {
        self.closed.set(true);
        self.not_empty.notify_all();
        self.not_full.notify_all();
    }
}

/// The end that values go in at.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

/// The end that values come out at.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
}

/// The channel is closed; the value comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct SendError<T>(pub T);

error_says!(SendError<T>: "the channel is closed");

/// Why a value was not taken at once.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// `capacity` values wait already.
    Full(T),
    /// The channel is closed.
    Closed(T),
}

error_says!(TrySendError<T>: |error, f| f.write_str(match error {
    TrySendError::Full(_) => "the channel is full",
    TrySendError::Closed(_) => "the channel is closed",
}));

/// The channel is closed and everything in it has been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvError;

error_says!(RecvError: "the channel is closed and drained");

/// Makes a channel that holds up to `capacity` values; both ends may be cloned.
///
/// It closes when the last sender or the last receiver is dropped, or by hand. Values sent before that can
/// still be received. Senders and receivers are each served first come, first served.
///
/// # Panics
///
/// With a capacity of zero.
///
/// # Examples
///
/// ```
/// reactor::run(|| {
///     let (sender, receiver) = reactor::sync::channel(1);
///     let producer = reactor::spawn(move || (0..3).for_each(|n| sender.send(n).unwrap()));
///     let mut received = Vec::new();
///     while let Ok(n) = receiver.recv() {
///         received.push(n);
///     }
///     assert_eq!(received, [0, 1, 2]);
///     producer.join().unwrap();
/// });
/// ```
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel without room would never pass anything on");
    let shared = Rc::new(Shared {
        queue: RefCell::new(VecDeque::new()),
        capacity,
        closed: Cell::new(false),
        sender_count: Cell::new(1),
        receiver_count: Cell::new(1),
        not_empty: WaitList::new(),
        not_full: WaitList::new(),
    });
    (Sender { shared: shared.clone() }, Receiver { shared })
}

impl<T> Sender<T> {
    /// Puts `value` at the end of the queue.
    ///
    /// # Errors
    ///
    /// [`SendError`] with the value when the channel is closed, or in place of waiting while the caller unwinds.
    ///
    /// # Suspends
    ///
    /// While the channel is full.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let call = begin();
        let shared = &*self.shared;
        let mut woken = false;
        while !shared.can_send() && may_suspend() {
            shared.not_full.wait_turn(std::mem::replace(&mut woken, true), &"room in a channel");
        }
        let sent = self.try_send(value).map_err(|error| match error {
            TrySendError::Full(value) | TrySendError::Closed(value) => SendError(value),
        });
        call.needed_no_wait();
        sent
    }

    /// Puts `value` at the end of the queue if there is room. Never suspends.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the value when the channel is full or closed.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if self.shared.closed.get() {
            return Err(TrySendError::Closed(value));
        }
        if self.shared.queue.borrow().len() >= self.shared.capacity {
            return Err(TrySendError::Full(value));
        }
        self.shared.queue.borrow_mut().push_back(value);
        self.shared.not_empty.notify_one();
        Ok(())
    }

    /// Refuses further values; those inside can still be received. Never suspends.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Whether the channel is closed.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.get()
    }
}

impl<T> Receiver<T> {
    /// Takes the value at the head of the queue.
    ///
    /// # Errors
    ///
    /// [`RecvError`] when the channel is closed and drained, or in place of waiting while the caller unwinds.
    ///
    /// # Suspends
    ///
    /// While the channel is empty and open.
    pub fn recv(&self) -> Result<T, RecvError> {
        let call = begin();
        let shared = &*self.shared;
        let mut woken = false;
        loop {
            if let Some(value) = self.try_recv() {
                call.needed_no_wait();
                return Ok(value);
            }
            if shared.closed.get() || !may_suspend() {
                return Err(RecvError);
            }
            shared.not_empty.wait_turn(std::mem::replace(&mut woken, true), &"a channel's value");
        }
    }

    /// Takes all values that are in the queue now, and so makes room for as many senders. Never suspends.
    ///
    /// After [`Receiver::close`] these are the last.
    pub fn drain(&self) -> impl Iterator<Item = T> + use<T> {
        let values = self.shared.queue.take();
        for _ in 0..values.len() {
            self.shared.not_full.notify_one();
        }
        values.into_iter()
    }

    /// Takes the value at the head of the queue if there is one. Never suspends.
    pub fn try_recv(&self) -> Option<T> {
        let value = self.shared.queue.borrow_mut().pop_front();
        if value.is_some() {
            self.shared.not_full.notify_one();
        }
        value
    }

    /// Refuses further values; those inside can still be received. Never suspends.
    pub fn close(&self) {
        self.shared.close();
    }
}

/// Ready when there is room, or the channel is closed.
impl<T> Source for Sender<T> {
    fn is_ready(&self) -> bool {
        self.shared.can_send()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(&self.shared.not_full);
    }
}

/// Ready when a value waits, or the channel is closed.
impl<T> Source for Receiver<T> {
    fn is_ready(&self) -> bool {
        self.shared.can_recv()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(&self.shared.not_empty);
    }
}

impl<T> Selectable for Sender<T> {}

impl<T> Selectable for Receiver<T> {}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.sender_count.set(self.shared.sender_count.get() + 1);
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receiver_count.set(self.shared.receiver_count.get() + 1);
        Receiver { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.sender_count.set(self.shared.sender_count.get() - 1);
        if self.shared.sender_count.get() == 0 {
            self.shared.close();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_count.set(self.shared.receiver_count.get() - 1);
        if self.shared.receiver_count.get() == 0 {
            self.shared.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_meant_for_a_terminated_receiver_reaches_the_next() {
        crate::run(|| {
            let (sender, receiver) = channel(4);
            let recv = |receiver: &Receiver<u8>| {
                let receiver = receiver.clone();
                crate::spawn(move || receiver.recv())
            };
            let (first, second) = (recv(&receiver), recv(&receiver));
            sender.send(7).unwrap();
            first.terminate();
            assert!(first.join().is_err());
            assert_eq!(second.join(), Ok(Ok(7)));
        });
    }

    #[test]
    fn draining_takes_all_there_is_and_lets_as_many_senders_go_on() {
        crate::run(|| {
            let (sender, receiver) = channel(2);
            let senders: Vec<_> = (0..5)
                .map(|n| {
                    let sender = sender.clone();
                    crate::spawn(move || sender.send(n))
                })
                .collect();
            assert_eq!(receiver.drain().collect::<Vec<_>>(), [0, 1]);
            crate::yield_now();
            receiver.close();
            assert_eq!(receiver.drain().collect::<Vec<_>>(), [2, 3]);
            assert_eq!(receiver.recv(), Err(RecvError));
            let sent: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap().is_ok()).collect();
            assert_eq!(sent, [true, true, true, true, false]);
        });
    }

    #[test]
    fn a_closed_channel_is_drained_before_it_ends() {
        crate::run(|| {
            let (sender, receiver) = channel(4);
            sender.send(1).unwrap();
            sender.close();
            assert_eq!(sender.send(2), Err(SendError(2)));
            assert_eq!(receiver.recv(), Ok(1));
            assert_eq!(receiver.recv(), Err(RecvError));
        });
    }
}
