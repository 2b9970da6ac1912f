//! The handler of the signals that the process takes over: it tells everybody who takes one, by a byte in a socket.
//!
//! It is installed when the first comes that takes a signal, and what was there before is put back when the last has
//! gone. In a handler little is allowed, and it may run on any thread at any time, also while somebody here takes or
//! gives back. So it only reads atomics and calls `send`. The sockets that it writes to are never closed: else it might
//! just have read the number of one that is another file's by now. Who takes the same signal next gets them again, and
//! at worst a byte of a signal that came in that moment.
//!
//! Not here: waiting ([`super`]).

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_int, sigaction};

/// The signals that can be taken over.
const NUMBERS: [c_int; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// Who may take the same signal at once: a program has a few that do, in as many reactors as it has threads. The handler
/// looks at each place.
const TAKERS_MAX: usize = 256;

/// Nobody has the place.
const NOBODY: c_int = -1;

/// Where the handler writes, for each signal.
static WRITERS: [[AtomicI32; TAKERS_MAX]; NUMBERS.len()] =
    [const { [const { AtomicI32::new(NOBODY) }; TAKERS_MAX] }; NUMBERS.len()];

static TAKEN: Mutex<[Taken; NUMBERS.len()]> =
    Mutex::new([const { Taken { places: Vec::new(), count: 0, before: None } }; NUMBERS.len()]);

/// What the process knows of a signal.
struct Taken {
    /// The ends of each place's socket, made when it is first needed: the handler's, and the reader's.
    places: Vec<(UnixStream, UnixStream)>,
    count: usize,
    /// What the signal did before the first came; kept when the last has gone, see [`Taker::new`].
    before: Option<sigaction>,
}

fn taken() -> MutexGuard<'static, [Taken; NUMBERS.len()]> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A signal that is taken until this is dropped.
pub(super) struct Taker {
    signal: usize,
    place: usize,
}

impl Taker {
    /// Takes the signal of that number; with it comes what is readable when it has come.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors, or too many take this signal.
    pub(super) fn new(number: c_int) -> io::Result<(Taker, UnixStream)> {
        let signal = NUMBERS.iter().position(|known| *known == number);
        let signal = signal.ok_or_else(|| io::Error::other("this signal can't be taken over"))?;
        let mut all = taken();
        let (taken, writers) = (&mut all[signal], &WRITERS[signal]);
        let place = writers.iter().position(|writer| writer.load(Ordering::SeqCst) == NOBODY);
        let place = place.ok_or_else(|| io::Error::other("too many take this signal at once"))?;
        // The first free place is one that is known, or the one behind these: no place behind them was ever given.
        if place == taken.places.len() {
            let (writer, reader) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            taken.places.push((writer, reader));
        }
        let (writer, reader) = &taken.places[place];
        let reader = reader.try_clone()?;
        // What was left unread is not for whoever comes now.
        while io::Read::read(&mut &reader, &mut [0; 64]).is_ok_and(|count| count > 0) {}
        // Before the handler is there: a signal that found nobody would be lost.
        writers[place].store(writer.as_raw_fd(), Ordering::SeqCst);
        if taken.count == 0 {
            let found = install(number).inspect_err(|_| writers[place].store(NOBODY, Ordering::SeqCst))?;
            // Who had put a handler above ours, and took it away when we were gone, has left ours there.
            if !is_ours(&found) {
                taken.before = Some(found);
            }
        }
        taken.count += 1;
        Ok((Taker { signal, place }, reader))
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let mut all = taken();
        let taken = &mut all[self.signal];
        taken.count -= 1;
        if taken.count == 0
            && let Some(before) = &taken.before
        {
            put_back(NUMBERS[self.signal], before);
        }
        // Only now: a signal in between is told to whoever goes, and is not lost to a handler that finds nobody.
        WRITERS[self.signal][self.place].store(NOBODY, Ordering::SeqCst);
    }
}

fn is_ours(action: &sigaction) -> bool {
    action.sa_sigaction == on_signal as *const () as usize
}

/// Installs the handler; what was there before.
fn install(number: c_int) -> io::Result<sigaction> {
    // SAFETY: `sigaction` is plain data for which zeros are valid: an empty mask, no flags. The handler has the signature
    // that an action without SA_SIGINFO asks for, lives as long as the process, and does only what a handler may. The mask
    // is ours to write, and `before` is valid for writing.
    unsafe {
        let mut action: sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        // On the thread's own stack for handlers, where it has one: a coroutine's may be nearly used up.
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        // One of ours at a time: that stack is small, and each signal that comes meanwhile would put some KiB on it.
        for other in NUMBERS {
            libc::sigaddset(&mut action.sa_mask, other);
        }
        let mut before = MaybeUninit::<sigaction>::zeroed();
        match sigaction(number, &action, before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Puts back what was there before, unless somebody has installed another handler since: that one may call ours, which
/// then does nothing.
fn put_back(number: c_int, before: &sigaction) {
    if present(number).is_some_and(|present| is_ours(&present)) {
        // SAFETY: `before` is what the kernel gave.
        unsafe { sigaction(number, before, ptr::null_mut()) };
    }
}

/// What the signal does now.
fn present(number: c_int) -> Option<sigaction> {
    let mut present = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: with no new action it only writes to `present`, which zeros are valid for.
    unsafe { (sigaction(number, ptr::null(), present.as_mut_ptr()) == 0).then(|| present.assume_init()) }
}

extern "C" fn on_signal(number: c_int) {
    let Some(signal) = NUMBERS.iter().position(|known| *known == number) else { return };
    // SAFETY: the address of the thread's own `errno`, always valid; the interrupted code must find it as it was.
    let errno = unsafe { *libc::__errno_location() };
    for writer in &WRITERS[signal] {
        let fd = writer.load(Ordering::SeqCst);
        if fd != NOBODY {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: one byte that lives for ever; fit for handlers. The descriptor is a socket of ours that is never
            // closed. One that is full has bytes that will be read.
            unsafe { libc::send(fd, [1_u8].as_ptr().cast(), 1, flags) };
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_one_is_handled_the_others_wait() {
        let (_taker, _reader) = Taker::new(libc::SIGUSR1).unwrap();
        let action = present(libc::SIGUSR1).unwrap();
        assert!(is_ours(&action));
        for other in NUMBERS {
            // SAFETY: the mask is what the kernel gave.
            assert_eq!(unsafe { libc::sigismember(&action.sa_mask, other) }, 1, "{other}");
        }
    }

    #[test]
    fn what_was_there_first_comes_back_though_ours_was_left_behind() {
        let number = libc::SIGHUP;
        let first = present(number).unwrap().sa_sigaction;
        let (taker, _reader) = Taker::new(number).unwrap();
        let ours = present(number).unwrap();
        // SAFETY: zeros are valid, and none of the actions has a handler but ours.
        unsafe {
            let mut other: sigaction = std::mem::zeroed();
            other.sa_sigaction = libc::SIG_IGN;
            assert_eq!(sigaction(number, &other, ptr::null_mut()), 0);
            drop(taker);
            assert_eq!(present(number).unwrap().sa_sigaction, libc::SIG_IGN, "it is another's");
            assert_eq!(sigaction(number, &ours, ptr::null_mut()), 0);
        }
        drop(Taker::new(number).unwrap());
        assert_eq!(present(number).unwrap().sa_sigaction, first);
    }
}
