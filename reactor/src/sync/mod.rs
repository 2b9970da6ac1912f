//! Ways for coroutines to wait for each other. All live on one thread: they need no atomics and no `Send`.
//!
//! Everything here wakes first come, first served, and survives the termination of a waiter at any point: a
//! wake-up that a terminated waiter had in hand goes to the next.

mod barrier;
mod channel;
mod mutex;
mod semaphore;
mod signal;
mod wait_list;

pub use barrier::Barrier;
pub use channel::{Receiver, RecvError, SendError, Sender, TrySendError, channel};
pub use mutex::{Mutex, MutexGuard};
pub use semaphore::{Permit, Semaphore};
pub use signal::Signal;
pub(crate) use wait_list::WaitList;
