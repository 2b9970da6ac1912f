//! A bounded channel from any thread to a coroutine: how results of other threads come home.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::coroutine::{begin, may_suspend};
use crate::driver::Port;
use crate::error::error_says;
use crate::select::{Selectable, source::Source};
use crate::sync::WaitList;

struct Shared<T> {
    state: Mutex<State<T>>,
    not_full: Condvar,
    port: Port,
    capacity: usize,
}

struct State<T> {
    queue: VecDeque<T>,
    sender_count: usize,
    receiver_alive: bool,
    /// The receiver found nothing and waits: the next sender must notify it.
    receiver_waits: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end for other threads.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The end for coroutines.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    waiters: Rc<WaitList>,
}

/// Why a value came back from [`Sender::try_send`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// `capacity` values wait already.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

error_says!(TrySendError<T>: |error, f| f.write_str(match error {
    TrySendError::Full(_) => "the channel is full",
    TrySendError::Closed(_) => "the receiver is gone",
}));

/// The receiver is gone; the value comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed<T>(pub T);

error_says!(Closed<T>: "the receiver is gone");

/// Makes a channel that holds up to `capacity` values. Never suspends.
///
/// # Panics
///
/// Outside [`crate::run`], or with a capacity of zero.
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel without room would never pass anything on");
    let waiters = Rc::new(WaitList::new());
    let state =
        State { queue: VecDeque::new(), sender_count: 1, receiver_alive: true, receiver_waits: false };
    let port = Port::open(waiters.clone());
    let shared = Arc::new(Shared { state: Mutex::new(state), not_full: Condvar::new(), port, capacity });
    (Sender { shared: shared.clone() }, Receiver { shared, waiters })
}

impl<T> Sender<T> {
    /// Passes `value` on, blocking the *thread* while the channel is full: not for coroutines.
    ///
    /// # Errors
    ///
    /// [`Closed`] with the value when the receiver is gone.
    ///
    /// # Panics
    ///
    /// With a full channel on the receiver's own thread, which would wait for itself.
    pub fn send(&self, value: T) -> Result<(), Closed<T>> {
        let mut state = self.shared.lock();
        if state.receiver_alive && state.queue.len() >= self.shared.capacity && self.shared.port.is_here() {
            drop(state);
            panic!(
                "a coroutine that waited here for room would keep the receiver from making it: `try_send`"
            );
        }
        while state.receiver_alive && state.queue.len() >= self.shared.capacity {
            state = self.shared.not_full.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.receiver_alive {
            return Err(Closed(value));
        }
        self.push(state, value);
        Ok(())
    }

    /// Passes `value` on if there is room. Never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the value when the channel is full or the receiver gone.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let state = self.shared.lock();
        if !state.receiver_alive {
            return Err(TrySendError::Closed(value));
        }
        if state.queue.len() >= self.shared.capacity {
            return Err(TrySendError::Full(value));
        }
        self.push(state, value);
        Ok(())
    }

    fn push(&self, mut state: MutexGuard<'_, State<T>>, value: T) {
        state.queue.push_back(value);
        let notify = std::mem::take(&mut state.receiver_waits);
        drop(state);
        if notify {
            self.shared.port.notify();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.lock().sender_count += 1;
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.sender_count -= 1;
        let notify = state.sender_count == 0 && std::mem::take(&mut state.receiver_waits);
        drop(state);
        if notify {
            self.shared.port.notify();
        }
    }
}

impl<T> Receiver<T> {
    /// The next value; `None` when all senders are gone and everything has been taken, or in place of waiting
    /// while the caller unwinds.
    ///
    /// # Suspends
    ///
    /// While there is nothing to take.
    pub fn recv(&self) -> Option<T> {
        let call = begin();
        loop {
            {
                let mut state = self.shared.lock();
                if let Some(value) = state.queue.pop_front() {
                    drop(state);
                    self.shared.not_full.notify_one();
                    call.needed_no_wait();
                    return Some(value);
                }
                if state.sender_count == 0 || !may_suspend() {
                    return None;
                }
                state.receiver_waits = true;
            }
            self.waiters.wait_on(&"another thread's value");
        }
    }

    /// A value that waits already, if there is one. Never suspends.
    pub fn try_recv(&self) -> Option<T> {
        let value = self.shared.lock().queue.pop_front();
        if value.is_some() {
            self.shared.not_full.notify_one();
        }
        value
    }
}

/// Ready when a value waits, or all senders are gone.
impl<T> Source for Receiver<T> {
    fn is_ready(&self) -> bool {
        let state = self.shared.lock();
        state.sender_count == 0 || !state.queue.is_empty()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(&self.waiters);
    }

    fn prepare(&self) {
        self.shared.lock().receiver_waits = true;
    }
}

impl<T> Selectable for Receiver<T> {}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.receiver_alive = false;
        let unread = std::mem::take(&mut state.queue);
        drop(state);
        self.shared.not_full.notify_all();
        self.shared.port.close();
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_other_threads_arrive_in_their_order() {
        crate::run(|| {
            let (sender, receiver) = channel(2);
            let thread = std::thread::spawn(move || {
                for n in 0..1000 {
                    sender.send(n).unwrap();
                }
            });
            for n in 0..1000 {
                assert_eq!(receiver.recv(), Some(n));
            }
            assert_eq!(receiver.recv(), None);
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_sender_learns_that_the_receiver_is_gone() {
        crate::run(|| {
            let (sender, receiver) = channel(1);
            drop(receiver);
            assert_eq!(sender.send(1), Err(Closed(1)));
        });
    }
}
