//! The stackful coroutines underneath: a seam of few operations, and its two sides.
//!
//! A [`Fiber`] is code with a stack of its own. [`Fiber::resume`] runs it, nested in the caller, until it calls
//! [`suspend`] or ends; then the caller goes on. That is all that is asked of the crate underneath: *when* a
//! coroutine runs is decided by [`crate::driver`], which is an ordinary loop on the thread that called
//! [`crate::run`].
//!
//! | side | chosen by | what it is |
//! |---|---|---|
//! | `corosensei` | default | a switch of stacks in some twenty instructions, on stacks of our own (`stack`) |
//! | `may` | the feature `engine-may` | `may`'s coroutines, which hand the thread to each other |
//!
//! Both pass the same tests; what `may` cannot do is said in its file. Each crate is named by one file only.
//!
//! Not here: what a coroutine is to its users (names, results, termination), which is [`crate::coroutine`]'s.

#![allow(unsafe_code)]

#[cfg(not(feature = "engine-may"))]
mod corosensei;
#[cfg(feature = "engine-may")]
mod may;
mod overflow;
#[cfg(not(feature = "engine-may"))]
mod stack;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(not(feature = "engine-may"))]
pub(crate) use self::corosensei::{Fiber, host, suspend};
#[cfg(feature = "engine-may")]
pub(crate) use self::may::{Fiber, host, suspend};
pub(crate) use overflow::Label;

/// Code of a fiber, as a value of one size.
pub(crate) type Body = Box<dyn FnOnce()>;

/// Address space of a stack unless somebody says otherwise: 256 KiB.
///
/// Only touched pages take memory, one for a shallow coroutine. 256 KiB hold a TLS handshake of an unoptimised
/// build twice over, and a terabyte of address space would hold four million of them.
const STACK_SIZE_BYTES: usize = 256 * 1024;

/// The least that a stack may have: below, a panic's own frames would not fit.
const STACK_SIZE_BYTES_MIN: usize = 16 * 1024;

static DEFAULT_STACK_SIZE_BYTES: AtomicUsize = AtomicUsize::new(STACK_SIZE_BYTES);

/// Sets the stack size of all coroutines that are started from now on, in the whole process, unless their
/// [`Builder`](crate::Builder) says otherwise: 256 KiB if this is never called, and 16 KiB at the least.
///
/// A size is address space. Memory is taken page by page as a stack is used. Never suspends.
pub fn set_default_stack_size_bytes(size: usize) {
    DEFAULT_STACK_SIZE_BYTES.store(size, Ordering::Relaxed);
}

/// The size of the stack for a coroutine that asks for `wanted`.
pub(crate) fn stack_size_bytes(wanted: Option<usize>) -> usize {
    wanted.unwrap_or_else(|| DEFAULT_STACK_SIZE_BYTES.load(Ordering::Relaxed)).max(STACK_SIZE_BYTES_MIN)
}

/// Why there is no stack.
#[derive(Debug)]
pub(crate) enum StackError {
    /// The kernel gave no memory, or no address space.
    Memory(io::Error),
    /// Each stack takes memory mappings here, and the process is near the kernel's limit of them.
    Mappings { max_map_count: usize },
}

/// Ends the process if it is dropped: by code that unwinds where unwinding would leave somebody with a dangling borrow.
pub(crate) struct AbortOnUnwind(pub(crate) &'static str);

impl AbortOnUnwind {
    /// All went well.
    pub(crate) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        eprintln!("reactor: {} was left by a panic, and others rely on its end: aborting", self.0);
        std::process::abort();
    }
}

/// Forgets the lifetime of a coroutine's body.
///
/// # Safety
///
/// The caller keeps everything that `body` borrows alive until `body` has returned or has been dropped.
pub(crate) unsafe fn erase_lifetime<'a>(body: Box<dyn FnOnce() + 'a>) -> Body {
    // SAFETY: the types differ by lifetime only; the caller vouches for the rest.
    unsafe { std::mem::transmute::<Box<dyn FnOnce() + 'a>, Box<dyn FnOnce() + 'static>>(body) }
}
