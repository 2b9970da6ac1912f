//! A `RefCell` that coroutines share: std's, which in debug builds tells of a borrow that is held across a suspension.
//!
//! While a coroutine suspends, others run. One that borrows the same cell then panics, far from the one that is to blame,
//! and only if both meet: a call that need not wait seldom lets others run, but at the end of a turn it does, and it unwinds
//! if its coroutine has been terminated. So a borrow that is held over a call "that never waits in practice" is a panic that
//! waits for a busy day.
//!
//! In debug builds each coroutine knows which of its borrows live, and where they were made. Any call that may suspend, whether
//! it has to or not, is a panic then that names the place of the borrow (`tests/borrows_end_before_calls.rs` has it panic):
//!
//! ```no_run
//! use std::rc::Rc;
//! use reactor::cell::RefCell;
//!
//! reactor::run(|| {
//!     let (sender, receiver) = reactor::sync::channel(8);
//!     let queue = Rc::new(RefCell::new(vec![1, 2, 3]));
//!     for number in queue.borrow().iter() {
//!         let _ = sender.send(*number); // panics, though there is room in the channel
//!     }
//! #   drop(receiver);
//! });
//! ```
//!
//! What to do instead: take the value out, clone the `Rc` that the cell holds, or end the borrow before the call, as the page
//! [`suspension`](crate::suspension) says, with what else may not be held. Where a section's calls are known to find what they
//! need, [`forbid_suspend`](crate::suspension::forbid_suspend) makes them neither yield nor unwind, and borrows may be held
//! over them.
//!
//! A guard counts for the coroutine that borrowed, wherever it is moved to, and for ever if it is leaked. Outside of coroutines
//! nothing is counted, nor is anything complained of while a coroutine unwinds: its calls do not suspend then. Calls that
//! never suspend (`try_send`, `spawn`, ...) may be made under a borrow, though what is spawned runs at once, and may meet it.
//!
//! One panic at a time is slow going in a large program. With the environment variable `HYPHA_BORROWS=FILE` each is written there
//! instead, once, with its backtrace, and the program goes on.
//!
//! With `debug_assertions` off these *are* std's types, and cost what those cost. With them on they have all stable methods of
//! std's but one, `try_borrow_unguarded`, which is unsafe, and gives a borrow that nobody could count.
//!
//! std's own is for what this is made of, which is the switch of coroutines and what tells who runs, and for the locks of
//! [`sync`](crate::sync), whose guards are made to be held. Elsewhere clippy refuses it (`clippy.toml`).
//!
//! What it is not: a lock. What is to be held across a suspension is in a [`sync::Mutex`](crate::sync::Mutex).

#[cfg(debug_assertions)]
#[expect(clippy::disallowed_types, reason = "it is made of it")]
mod counted;

#[cfg(debug_assertions)]
pub use counted::{Ref, RefCell, RefMut};
#[cfg(not(debug_assertions))]
pub use std::cell::{Ref, RefCell, RefMut};
