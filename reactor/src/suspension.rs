//! What may not be held across a suspension, and a guard that says so.
//!
//! All coroutines of a reactor share one thread. While one is suspended the others run, on the same thread, and see
//! whatever it left there. Its own locals are its own; what belongs to the *thread* is everybody's. So these must not be
//! held across a call whose documentation says `# Suspends`:
//!
//! - **A guard of a `std::sync::Mutex` or `RwLock`** (or any lock of threads). Another coroutine that locks it blocks the
//!   whole thread, and with it the one that would unlock: a deadlock that no timeout ends. Take what is needed out of the
//!   lock, or use [`crate::sync::Mutex`], which suspends.
//! - **A borrow of a `RefCell`** that others use too, in a `thread_local!` or behind an `Rc`. Another coroutine that
//!   borrows it panics, far from the one that is to blame. End the borrow before the call: `let next =
//!   { queue.borrow_mut().pop() };`, or clone the `Rc` that the cell holds. That the call finds what it needs is no excuse: at
//!   the end of a turn it lets others run all the same, and it unwinds if its coroutine is to end. Mind the borrows that
//!   are not seen: what is borrowed in an argument is borrowed until the call has returned, as in `send(*level.borrow())`,
//!   what the head of a `match`, a `for`, an `if let` or a `while let` borrows lives to the end of its block, as in
//!   `while let Some(next) = queue.borrow_mut().pop() {`, and what `cell.borrow_mut().clear()` drops is dropped under the
//!   borrow. [`cell::RefCell`](crate::cell::RefCell) tells all of
//!   them in debug builds, at once and by name.
//! - **A scoped thread-local**: what crates like `scoped_tls` set for the length of a closure stays set while others run,
//!   and two coroutines that leave in another order than they came leave it pointing to a stack that is gone. Pass the
//!   value as an argument, or keep it in a [`Local`](crate::Local).
//! - **A default of the thread**: `tracing::subscriber::set_default` and its like. What others log meanwhile goes there.
//!   Spans are no such thing: those that are entered follow their coroutine.
//! - **A lock of standard output or input** (`stdout().lock()`), which is a lock of threads like the first.
//!
//! The compiler sees none of this, since a suspension is a call like any other. Of borrows debug builds tell. Where a section
//! must not suspend for another reason, [`forbid_suspend`] makes it a panic, in all builds, at the place:
//!
//! ```should_panic
//! reactor::run(|| {
//!     let _whole = reactor::suspension::forbid_suspend("the table is half moved");
//!     reactor::yield_now(); // panics: "this would suspend while the table is half moved"
//! });
//! ```
//!
//! # What is under way
//!
//! A call that suspends may also not return: a termination, or the end of a [`timeout`](crate::timeout) around it, unwinds it,
//! and whoever catches that goes on with what is left. The calls of this crate lose nothing then, or say so: what was not
//! given out comes with the next call, and a stream of which a piece has left in part is at its end. Code that is made of
//! them keeps that by one rule: *take last, or mark it torn*. What is taken out of its place (`take`, `pop`, `split_to`) is
//! taken behind the last call that may suspend, and never like this:
//!
//! ```no_run
//! # use std::io::Write;
//! # fn flush(pending: &std::cell::RefCell<Vec<u8>>, mut stream: &reactor::net::TcpStream) -> std::io::Result<()> {
//! let bytes = pending.take(); // a timeout's end drops them in the next line, and the next flush has a hole before it
//! stream.write_all(&bytes)
//! # }
//! ```
//!
//! [`break_off_at`] finds such places: it breaks off a piece of code wherever that can be, one place after another.
//!
//! # Destructors
//!
//! A destructor may suspend where its value is dropped in the ordinary course of things; a termination that is to be seen yet
//! unwinds it there as any other code, so what it must do in any case it does in [`uninterruptible`](crate::uninterruptible).
//! It may not while its coroutine *unwinds*, be it from a panic or because it was terminated: whether a thread unwinds is a
//! property of the thread, and
//! every other coroutine would seem to. There
//!
//! - reads, writes, sleeps, `offload` and waits for events fail or return at once, or do their work here and now;
//! - [`Mutex::lock`](crate::sync::Mutex::lock), [`RwLock`](crate::sync::RwLock)'s two and
//!   [`Semaphore::acquire`](crate::sync::Semaphore::acquire) have nothing to return. If they would have to wait they
//!   panic, and since the thread unwinds already that ends the process: with a sentence that names the coroutine and what it
//!   waited for.
//!
//! So clean-up that needs a lock tries, and gives what it can't do to somebody who can wait:
//!
//! ```
//! # use std::rc::Rc;
//! # use reactor::sync::Mutex;
//! struct Seat(u32, Rc<Mutex<Vec<u32>>>);
//! impl Drop for Seat {
//!     fn drop(&mut self) {
//!         if let Some(mut free) = self.1.try_lock() {
//!             return free.push(self.0);
//!         }
//!         let (number, free) = (self.0, self.1.clone());
//!         // An error means that there is no stack for it, or that the run has ended.
//!         let _ = reactor::try_spawn(move || free.lock().push(number));
//!     }
//! }
//! # reactor::run(|| {
//! #     let free = Rc::new(Mutex::new(Vec::new()));
//! #     let held = free.lock();
//! #     let seat = Seat(7, free.clone());
//! #     let child = reactor::spawn(move || { let _seat = seat; reactor::sleep(std::time::Duration::from_secs(60)) });
//! #     assert!(child.terminate_and_wait().is_err());
//! #     drop(held);
//! #     reactor::yield_now();
//! #     assert_eq!(*free.lock(), [7]);
//! # });
//! ```
//!
//! What it is not: a lock. Others do not run because nobody lets them.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::coroutine::{self, Coroutine};

pub use crate::coroutine::break_off_at;

/// While it lives, a suspension of the coroutine that made it is a panic; see [`forbid_suspend`].
#[must_use = "what it forbids is allowed again when it is dropped"]
pub struct ForbidSuspend {
    coroutine: Rc<Coroutine>,
    before: Option<&'static str>,
    /// It belongs to its coroutine, and so to this thread.
    here: PhantomData<*const ()>,
}

/// Forbids the running coroutine to suspend until the guard is dropped. `why` completes "this would suspend while ...".
///
/// Calls that may suspend, and need not, go through, also where the coroutine has been terminated; so a borrow of a
/// [`RefCell`](crate::cell::RefCell) may be held over them. Guards nest; other coroutines are not affected, those started under the
/// guard among them.
///
/// # Panics
///
/// Outside [`crate::run`]. While the guard lives, whatever has to wait panics.
///
/// # Suspends
///
/// Never.
pub fn forbid_suspend(why: &'static str) -> ForbidSuspend {
    let coroutine = coroutine::current();
    let before = coroutine.forbid(Some(why));
    ForbidSuspend { coroutine, before, here: PhantomData }
}

impl Drop for ForbidSuspend {
    fn drop(&mut self) {
        self.coroutine.forbid(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_need_not_wait_goes_through_and_what_must_is_a_panic_with_the_reason() {
        crate::run(|| {
            let (sender, receiver) = crate::sync::channel(1000);
            let child = {
                let _whole = forbid_suspend("the outer thing is held");
                let inner = forbid_suspend("the inner thing is held");
                drop(inner);
                // More than a turn's worth: who succeeds yields in passing, and not here.
                for number in 0..500 {
                    sender.send(number).unwrap();
                }
                // Another coroutine may do as it likes.
                crate::spawn(|| crate::sleep(Duration::from_millis(1)))
            };
            assert!(child.join().is_ok());
            let waits = crate::catch_panic(|| {
                let _whole = forbid_suspend("the outer thing is held");
                crate::sleep(Duration::from_millis(1));
            });
            let message = waits.unwrap_err();
            let message = message.downcast_ref::<String>().expect("a message");
            assert!(message.contains("this would suspend while the outer thing is held"), "{message}");
            // It is over with its guard.
            crate::sleep(Duration::from_millis(1));
            assert_eq!(receiver.recv(), Ok(0));
        });
    }
}
