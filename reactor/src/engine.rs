//! The stackful coroutines underneath: the only file that names `may`.
//!
//! `may` is asked for little: start a coroutine, park it, make it runnable, yield. *When* a coroutine runs is
//! decided by [`crate::driver`]: `may`'s own timers and timeouts resume coroutines on a second OS thread, which
//! would break the promise of one thread, and its sockets are not used at all.
//!
//! Not here: what a coroutine is to its users (names, results, termination), which is [`crate::coroutine`]'s.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::Once;

/// Words of stack that a coroutine gets unless its builder says otherwise: 128 KiB of address space.
///
/// Only touched pages take memory: two of them (the top one, and the bottom one where the generator keeps a
/// mark) for a shallow coroutine, and the address space itself one 16th of a page of the kernel's tables.
/// 128 KiB hold a TLS handshake of an unoptimised build.
/// The count is even: an odd one would make `may` touch, and report on, the whole stack.
const STACK_SIZE_WORDS: usize = 128 * 1024 / size_of::<usize>();

/// Stacks kept for reuse. A stack in the pool keeps the pages it ever touched, hence a small pool.
const POOLED_STACKS_MAX: usize = 256;

thread_local! {
    /// True on the one thread that runs coroutines, set before the first of them runs.
    static IS_REACTOR_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Carries a value that is not `Send` through `may`'s `Send` bound.
struct OneThread<T>(T);

// SAFETY: `may`'s bound guards against a coroutine that moves between worker threads. There is one worker
// (`set_workers(1)` in `configure`), coroutines start on it (`launch` asserts it, `start_driver` passes a
// `Send` closure), and every return from `park` and `yield_now` checks that we are still on it
// (`check_thread`). So the value never crosses a thread.
unsafe impl<T> Send for OneThread<T> {}

impl<T> OneThread<T> {
    /// Takes the value out; a method, so that closures capture the wrapper and not its field.
    fn into_inner(self) -> T {
        self.0
    }
}

/// A coroutine of the engine, to be made runnable again.
#[derive(Clone)]
pub(crate) struct Fiber(may::coroutine::Coroutine);

impl Fiber {
    /// Makes the fiber runnable; a fiber that is not parked will not suspend at its next park.
    pub(crate) fn unpark(&self) {
        self.0.unpark();
    }

    /// The size of its stack.
    pub(crate) fn stack_size_bytes(&self) -> usize {
        self.0.stack_size() * size_of::<usize>()
    }
}

fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        may::config()
            .set_workers(1)
            .set_pool_capacity(POOLED_STACKS_MAX)
            .set_stack_size(STACK_SIZE_WORDS)
            .set_worker_pin(false);
    });
}

/// Starts the worker thread and runs `body` on it as its first coroutine. Called once per process.
///
/// `on_stall` is called when the thread has nothing to run though `body` neither ended nor blocks in it: the
/// last runnable coroutine overflowed its stack, and so could not make anybody else runnable.
pub(crate) fn start_driver(body: impl FnOnce() + Send + 'static, on_stall: fn()) {
    configure();
    let start = move || {
        IS_REACTOR_THREAD.set(true);
        launch(None, move || watch_for_stalls(on_stall));
        body();
    };
    // SAFETY: `may` asks two things of the caller. (1) No use of thread-local storage that assumes a thread
    // per coroutine: ours is written around every switch (`coroutine::CURRENT`). (2) No stack overrun past the
    // guard page: frames larger than a page are probed by rustc.
    let handle = unsafe { may::coroutine::Builder::new().spawn(start) };
    drop(handle.expect("may's spawn has no failing path"));
}

/// Waits, on `may`'s own event loop, for events that are always there: that loop runs only when nothing else can.
///
/// The driver blocks in its own poller while everyone waits, which to `may` is a coroutine that runs.
fn watch_for_stalls(on_stall: fn()) {
    use may::io::WaitIo;
    use may::os::unix::net::UnixStream;
    use std::io::{Read, Write};

    let (mut watched, mut feeder) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => {
            tracing::warn!("no descriptors to watch for stalls with ({error}): a stack overflow may hang");
            return;
        }
    };
    loop {
        watched.wait_io();
        check_thread();
        on_stall();
        // The next edge for the next time. One byte in, one byte out: neither blocks.
        if feeder.write_all(&[0]).and_then(|()| watched.read_exact(&mut [0])).is_err() {
            return;
        }
        if feeder.write_all(&[0]).is_err() {
            return;
        }
    }
}

/// Runs `body` as a new coroutine at once, nested in the caller, until it first suspends or ends.
///
/// `body` must not unwind: whoever calls catches.
///
/// # Panics
///
/// When called off the reactor's thread.
pub(crate) fn launch(stack_size_bytes: Option<usize>, body: impl FnOnce() + 'static) {
    assert!(on_reactor_thread(), "coroutines are spawned from inside `reactor::run`");
    let body = OneThread(body);
    let mut builder = may::coroutine::Builder::new();
    if let Some(bytes) = stack_size_bytes {
        // Rounded to an even count of words: see STACK_SIZE_WORDS.
        builder = builder.stack_size((bytes / size_of::<usize>()).next_multiple_of(2));
    }
    // SAFETY: as in `start_driver`; that `body` may stay on this thread is `OneThread`'s invariant.
    let handle = unsafe { builder.spawn_local(move || body.into_inner()()) };
    drop(handle.expect("may's spawn has no failing path"));
}

/// The running fiber.
pub(crate) fn current() -> Fiber {
    Fiber(may::coroutine::current())
}

/// Suspends the running fiber until [`Fiber::unpark`], or returns at once if that came first.
pub(crate) fn park() {
    may::coroutine::park();
    check_thread();
}

/// Lets every other runnable fiber run first.
pub(crate) fn yield_now() {
    may::coroutine::yield_now();
    check_thread();
}

/// Whether the caller runs on the reactor's thread.
pub(crate) fn on_reactor_thread() -> bool {
    IS_REACTOR_THREAD.get()
}

fn check_thread() {
    if !on_reactor_thread() {
        // Nothing may run from here on, not even destructors: `Rc`s of this stack belong to the other thread.
        eprintln!("reactor: a coroutine was resumed on a foreign thread; this is a bug, aborting");
        std::process::abort();
    }
}

/// Forgets the lifetime of a coroutine's body.
///
/// # Safety
///
/// The caller keeps everything that `body` borrows alive until `body` has returned or has been dropped.
pub(crate) unsafe fn erase_lifetime<'a>(body: Box<dyn FnOnce() + 'a>) -> Box<dyn FnOnce() + 'static> {
    // SAFETY: the types differ by lifetime only; the caller vouches for the rest.
    unsafe { std::mem::transmute::<Box<dyn FnOnce() + 'a>, Box<dyn FnOnce() + 'static>>(body) }
}
