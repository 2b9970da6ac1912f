//! Ways for coroutines to wait for each other. All live on one thread: they need no atomics and no `Send`.
//!
//! Everything here wakes first come, first served, and survives the termination of a waiter at any point: a
//! wake-up that a terminated waiter had in hand goes to the next. Waking is not running: who is woken first runs
//! first, after the waker has suspended.
//!
//! In a destructor that runs while its coroutine unwinds nothing may wait. Calls that can say so do, at once: a
//! channel or a watch as if it were closed, a [`Signal`] and a [`Barrier`] by returning. Locks can't, since their
//! access is their result: a destructor tries (`try_lock`), for `lock` would panic where it had to wait.

mod barrier;
mod channel;
#[expect(clippy::disallowed_types, reason = "its guards are made to be held across a suspension")]
mod mutex;
mod once_cell;
mod places;
#[expect(clippy::disallowed_types, reason = "its guards are made to be held across a suspension")]
mod rwlock;
mod semaphore;
mod signal;
mod wait_list;
mod waiters;
mod watch;

pub use barrier::Barrier;
pub use channel::{Receiver, RecvError, SendError, Sender, TrySendError, channel};
pub use mutex::{Mutex, MutexGuard};
pub use once_cell::{Once, OnceCell};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::{Permit, Semaphore};
pub use signal::Signal;
pub(crate) use wait_list::{Place, Told, WaitList};
pub(crate) use waiters::Waiters;
pub use watch::{Watch, Watcher, watch};
