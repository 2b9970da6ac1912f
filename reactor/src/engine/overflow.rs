//! A stack that overflows ends the process, with a sentence that says whose it was and what to do.
//!
//! As `std` does for threads, and for the same reason: the frames can't be unwound from where they stopped, and can't
//! be abandoned, since others may borrow from them. So all that is left is to say so. A stack ends in a guard that
//! nobody may touch; the kernel's signal for the touch arrives here, on a stack of its own.
//!
//! What runs in the handler must be safe to call from a signal handler: it reads memory that the interrupted code does
//! not write (the [`Watched`] of a fiber that runs), formats into a buffer on its stack, and calls `write` and `abort`.
//! Any other fault goes on to the action that was there before ours: `std`'s, which tells of a thread's overflow, or
//! that of a crash reporter.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::panic::Location;
use std::ptr;
use std::sync::OnceLock;

use libc::{c_int, c_void, sigaction, siginfo_t};

/// The signals of a touched guard: Linux sends the first, others (macOS) the second.
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Stack of the handler, where a thread has none yet. `std`'s threads do. The kernel's own frame takes up to 11 KiB
/// (AVX-512 and AMX registers), ours some 2.
const HANDLER_STACK_SIZE_BYTES: usize = 64 * 1024;

/// Bytes of the message; a longer one is cut.
const MESSAGE_SIZE_MAX: usize = 1024;

/// What a coroutine is called, where a signal handler can read it: never changed once its coroutine runs.
pub(crate) struct Label {
    pub(crate) name: Option<Box<str>>,
    pub(crate) spawned_at: &'static Location<'static>,
}

/// A fiber's stack as the handler needs to know it.
pub(super) struct Watched {
    pub(super) label: Label,
    pub(super) stack_size_bytes: usize,
    /// Addresses that are touched only by an overflow: from, and up to.
    pub(super) guard: Cell<(usize, usize)>,
}

thread_local! {
    /// The fiber that runs on this thread, null for none. No destructor, so that a handler may read it at any time.
    static RUNNING: Cell<*const Watched> = const { Cell::new(ptr::null()) };
}

/// Marks that `watched` runs from now on; returns who ran, for [`unwatch`].
#[inline]
pub(super) fn watch(watched: &Watched) -> *const Watched {
    RUNNING.replace(ptr::from_ref(watched))
}

/// Marks that who ran before runs again.
#[inline]
pub(super) fn unwatch(outer: *const Watched) {
    RUNNING.set(outer);
}

/// What faults did before, per entry of `SIGNALS`.
static PREVIOUS: OnceLock<[sigaction; 2]> = OnceLock::new();

/// Sees to overflows on this thread until the result is dropped, and installs the handler at the first call.
pub(super) fn guard_thread() -> HandlerStack {
    PREVIOUS.get_or_init(|| {
        // SAFETY: `sigaction` is plain data for which zeros are valid.
        let mut previous: [sigaction; 2] = unsafe { std::mem::zeroed() };
        for (signal, previous) in SIGNALS.into_iter().zip(&mut previous) {
            // SAFETY: `previous` is valid for writing; with no new action the call only reads.
            unsafe { sigaction(signal, ptr::null(), previous) };
        }
        previous
    });
    static INSTALL: std::sync::Once = std::sync::Once::new();
    INSTALL.call_once(|| {
        for signal in SIGNALS {
            // SAFETY: zeros are valid, as above. The handler has the signature that SA_SIGINFO asks for, lives as long as
            // the process, and does only what a signal handler may.
            unsafe {
                let mut action: sigaction = std::mem::zeroed();
                action.sa_sigaction = on_fault as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                sigaction(signal, &action, ptr::null_mut());
            }
        }
    });
    HandlerStack::ensure()
}

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid `info` to a handler with SA_SIGINFO; these signals carry an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let running = RUNNING.get();
    // SAFETY: not null only between `watch` and `unwatch` on this thread, while the fiber's owner keeps it alive. The
    // interrupted code is that fiber's, which does not write its own `Watched`.
    if let Some(running) = unsafe { running.as_ref() } {
        let (from, to) = running.guard.get();
        if (from..to).contains(&address) {
            tell(running);
            // SAFETY: no conditions; fit for signal handlers.
            unsafe { libc::abort() };
        }
    }
    pass_on(signal, info, context);
}

fn tell(overflowed: &Watched) {
    let mut message = Message { bytes: [0; MESSAGE_SIZE_MAX], len: 0 };
    let Label { name, spawned_at } = &overflowed.label;
    // A message that is cut is better than none.
    let _ = write!(
        message,
        "\nreactor: the coroutine {} (spawned at {}:{}) has overflowed its stack of {} KiB: give it a larger one by \
         `Builder::stack_size_bytes`, or all of them by `reactor::set_default_stack_size_bytes`\n",
        name.as_deref().unwrap_or("without a name"),
        spawned_at.file(),
        spawned_at.line(),
        overflowed.stack_size_bytes / 1024,
    );
    // SAFETY: the bytes are valid for reading; fit for signal handlers.
    unsafe { libc::write(libc::STDERR_FILENO, message.bytes.as_ptr().cast(), message.len) };
}

/// Text in a buffer of fixed size: formatting into it neither allocates nor locks.
struct Message {
    bytes: [u8; MESSAGE_SIZE_MAX],
    len: usize,
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Lets the action that was there before ours have the fault.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let index = usize::from(signal != SIGNALS[0]);
    let previous = PREVIOUS.get().map(|previous| &previous[index]);
    let handler = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The instruction faults again on return, and then ends the process as it would have without us.
        // SAFETY: zeros are a valid action, that of SIG_DFL.
        unsafe { sigaction(signal, &std::mem::zeroed(), ptr::null_mut()) };
    } else if previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0) {
        // SAFETY: a handler installed with SA_SIGINFO has this signature.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: a handler installed without SA_SIGINFO has this one.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
    }
}

/// This thread's stack for signal handlers, ours where it had none: an overflowing stack has no room for one.
pub(super) struct HandlerStack {
    ours: Option<*mut c_void>,
}

impl HandlerStack {
    fn ensure() -> HandlerStack {
        // SAFETY: `stack_t` is plain data, for which zeros are valid, and is valid for writing; the mapping is fresh, of
        // the size that is said, and stays until `drop` has told the kernel to forget it.
        unsafe {
            let mut present: libc::stack_t = std::mem::zeroed();
            if libc::sigaltstack(ptr::null(), &mut present) != 0 || present.ss_flags & libc::SS_DISABLE == 0 {
                return HandlerStack { ours: None };
            }
            let (access, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
            );
            let mapped = libc::mmap(ptr::null_mut(), HANDLER_STACK_SIZE_BYTES, access, flags, -1, 0);
            if mapped == libc::MAP_FAILED {
                // An overflow then dies of its signal, without the sentence.
                return HandlerStack { ours: None };
            }
            let ours = libc::stack_t { ss_sp: mapped, ss_flags: 0, ss_size: HANDLER_STACK_SIZE_BYTES };
            libc::sigaltstack(&ours, ptr::null_mut());
            HandlerStack { ours: Some(mapped) }
        }
    }
}

impl Drop for HandlerStack {
    fn drop(&mut self) {
        if let Some(mapped) = self.ours {
            // SAFETY: the mapping is ours, and once the kernel has been told nobody uses it.
            unsafe {
                let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
                if libc::sigaltstack(&none, ptr::null_mut()) == 0 {
                    libc::munmap(mapped, HANDLER_STACK_SIZE_BYTES);
                }
            }
        }
    }
}
