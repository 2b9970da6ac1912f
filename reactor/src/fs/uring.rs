//! io_uring: reads, writes, syncs and opens that the kernel does while coroutines run.
//!
//! Each reactor has one ring, from the first use until its run ends. A call puts a request into the ring's submission
//! queue and parks. Each turn of the driver hands all new requests to the kernel at once and wakes those
//! whose completion has come ([`turn`]); an eventfd, which the poller watches, ends the driver's sleep when one comes.
//!
//! **Memory.** The kernel reads and writes by address, at a time of its choosing. So what it may touch (a buffer, a
//! path, a descriptor) is *moved into* the ring's table of operations and comes out when the completion does. A
//! coroutine that is terminated unwinds at once: it asks for its operation's cancellation and goes; the buffer stays
//! in the table until the kernel has said that it is done, whichever way.
//!
//! This is the one file of `fs` with unsafe code. What must hold, each named again where it is used:
//!
//! 1. *Owned*: an address given to the kernel points into an [`Operation`] in the table, or into the heap memory that
//!    it owns; entries are boxed, so they stay where they are when the table grows.
//! 2. *Untouched*: nobody reads or writes an operation's buffer until it is taken out of the table.
//! 3. *Last*: an operation is taken out of the table only by its own completion, which the kernel posts after its
//!    last access.
//! 4. *For ever*: a ring whose table is not empty is leaked, table and all, so no request outlives them.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};
use slab::Slab;
use smallvec::SmallVec;

use super::backend::Durable;
use super::kernel::check_may_suspend;
use crate::cell::RefCell;
use crate::driver;
use crate::sync::{Semaphore, WaitList};

/// Operations under way at once; more wait their turn. A disk's own queue is shorter (an NVMe drive is at its best
/// with some tens), and each may hold a buffer of a megabyte.
const OPERATIONS_MAX: usize = 128;

/// Each operation may be followed by one request to cancel it.
const SUBMISSIONS_MAX: u32 = 2 * OPERATIONS_MAX as u32;

/// What a request to cancel is known by; no operation has this key.
const CANCEL: u64 = u64::MAX;

/// The most that the kernel moves at once (`MAX_RW_COUNT`); a request's length has 32 bits.
const LEN_MAX: usize = 0x7fff_f000;

/// What an operation lets the kernel use.
enum Held {
    Path(CString),
    ReadBuffer(Vec<u8>),
    WriteBuffer(Bytes),
    Nothing,
}

/// An entry of the table.
struct Operation {
    held: Held,
    /// Open as long as the kernel may use its number.
    _fd: Option<Arc<OwnedFd>>,
    completion: Rc<Completion>,
}

#[derive(Default)]
struct Completion {
    outcome: RefCell<Option<io::Result<Outcome>>>,
    waiters: WaitList,
}

/// What a completed operation gives. Dropped unseen if its coroutine is gone: then a file that was opened is closed.
enum Outcome {
    Opened(OwnedFd),
    Read(Vec<u8>),
    Count(usize),
}

struct State {
    uring: IoUring,
    /// Boxed: see *Owned*.
    #[allow(clippy::vec_box)]
    operations: Slab<Box<Operation>>,
    /// The submission queue holds requests that the kernel has not been told of.
    unsubmitted: bool,
}

/// Waits, of a millisecond each, for the operations that are left when a run ends: cancelled ones, mostly. What takes
/// longer is left to the kernel, with its buffer.
const END_WAITS_MAX: u32 = 200;

/// A reactor's ring.
pub(super) struct Ring {
    /// Dropped only with an empty table: *For ever*.
    state: ManuallyDrop<RefCell<State>>,
    /// Given back by completions, not by callers: see [`Ring::reap`].
    places: Semaphore,
    eventfd: OwnedFd,
}

thread_local! {
    static RING: RefCell<Option<Rc<Ring>>> = const { RefCell::new(None) };
}

/// Submits what is new and wakes whose operation is complete. The driver calls it at each look; never suspends.
pub(crate) fn turn() {
    if let Some(ring) = Ring::existing() {
        ring.turn();
    }
}

/// Lets go of the ring: the run ends, and with it all who waited for operations.
pub(super) fn end() {
    let Some(ring) = RING.with(RefCell::take) else { return };
    for _ in 0..END_WAITS_MAX {
        ring.turn();
        if ring.in_flight() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    tracing::warn!("{} operations on files outlive their run", ring.in_flight());
}

impl Ring {
    /// The thread's ring, if it has been made.
    pub(super) fn existing() -> Option<Rc<Ring>> {
        RING.with(|ring| ring.borrow().clone())
    }

    /// The thread's ring, made at the first call.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: it is too old, was told to (`kernel.io_uring_disabled`), a filter of system calls
    /// forbids it, or memory that may be locked is short.
    pub(super) fn get() -> io::Result<Rc<Ring>> {
        if let Some(ring) = Ring::existing() {
            return Ok(ring);
        }
        let uring = IoUring::builder().dontfork().build(SUBMISSIONS_MAX)?;
        let unsupported = |what| io::Error::new(io::ErrorKind::Unsupported, what);
        if !uring.params().is_feature_nodrop() {
            return Err(unsupported("the kernel's io_uring may lose completions"));
        }
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        let needed = [
            opcode::OpenAt::CODE,
            opcode::Read::CODE,
            opcode::Write::CODE,
            opcode::Fsync::CODE,
            opcode::AsyncCancel::CODE,
        ];
        if !needed.into_iter().all(|code| probe.is_supported(code)) {
            return Err(unsupported("the kernel's io_uring lacks an operation"));
        }
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        // Its events end the driver's sleep, which is all they have to do. Never read: the poller is
        // edge-triggered, and the count would take centuries to reach its end.
        driver::register(eventfd.as_fd(), Rc::default())?;
        let state = State { uring, operations: Slab::with_capacity(OPERATIONS_MAX), unsubmitted: false };
        let places = Semaphore::new(OPERATIONS_MAX);
        let ring = Rc::new(Ring { state: ManuallyDrop::new(RefCell::new(state)), places, eventfd });
        RING.with(|kept| kept.replace(Some(ring.clone())));
        Ok(ring)
    }

    fn turn(&self) {
        self.submit();
        self.reap();
    }

    /// Operations that hold memory: the kernel may use it.
    pub(super) fn in_flight(&self) -> usize {
        self.state.borrow().operations.len()
    }

    pub(super) fn open(self: &Rc<Self>, path: CString, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let outcome = self.run(Held::Path(path), None, |held| {
            let Held::Path(path) = held else { unreachable!("the path was just given") };
            opcode::OpenAt::new(types::Fd(rustix::fs::CWD.as_raw_fd()), path.as_ptr())
                .flags(flags.bits() as i32)
                .mode(mode.bits())
                .build()
        })?;
        match outcome {
            Outcome::Opened(fd) => Ok(fd),
            _ => unreachable!("opening gives a descriptor"),
        }
    }

    pub(super) fn read(self: &Rc<Self>, fd: Arc<OwnedFd>, len: usize, offset: u64) -> io::Result<Vec<u8>> {
        let number = types::Fd(fd.as_raw_fd());
        let buffer = Vec::with_capacity(len.min(LEN_MAX));
        let outcome = self.run(Held::ReadBuffer(buffer), Some(fd), |held| {
            let Held::ReadBuffer(buffer) = held else { unreachable!("the buffer was just given") };
            // The capacity, which may exceed what was asked for, is not used beyond it.
            let len = len.min(LEN_MAX) as u32;
            opcode::Read::new(number, buffer.as_mut_ptr(), len).offset(offset).build()
        })?;
        match outcome {
            Outcome::Read(bytes) => Ok(bytes),
            _ => unreachable!("reading gives bytes"),
        }
    }

    pub(super) fn write(self: &Rc<Self>, fd: Arc<OwnedFd>, bytes: Bytes, offset: u64) -> io::Result<usize> {
        let number = types::Fd(fd.as_raw_fd());
        let outcome = self.run(Held::WriteBuffer(bytes), Some(fd), |held| {
            let Held::WriteBuffer(bytes) = held else { unreachable!("the buffer was just given") };
            opcode::Write::new(number, bytes.as_ptr(), bytes.len().min(LEN_MAX) as u32).offset(offset).build()
        })?;
        match outcome {
            Outcome::Count(count) => Ok(count),
            _ => unreachable!("writing gives a count"),
        }
    }

    pub(super) fn sync(self: &Rc<Self>, fd: Arc<OwnedFd>, what: Durable) -> io::Result<()> {
        let number = types::Fd(fd.as_raw_fd());
        let flags = match what {
            Durable::Data => types::FsyncFlags::DATASYNC,
            Durable::All => types::FsyncFlags::empty(),
        };
        self.run(Held::Nothing, Some(fd), |_| opcode::Fsync::new(number).flags(flags).build())?;
        Ok(())
    }

    /// Enters an operation into the table, queues its request and waits for its completion.
    ///
    /// `request` may use the address of `held` and of what it owns, and nothing else by address.
    fn run(
        self: &Rc<Self>,
        held: Held,
        fd: Option<Arc<OwnedFd>>,
        request: impl FnOnce(&mut Held) -> squeue::Entry,
    ) -> io::Result<Outcome> {
        check_may_suspend()?;
        self.places.acquire().forget();
        let completion = Rc::new(Completion::default());
        let key = {
            let mut state = self.state.borrow_mut();
            let operation = Box::new(Operation { held, _fd: fd, completion: completion.clone() });
            let key = state.operations.insert(operation);
            // From its final place: *Owned*.
            let request = request(&mut state.operations[key].held).user_data(key as u64);
            if !state.push(&request) {
                state.operations.remove(key);
                self.places.release(1);
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            key
        };
        let wait = Wait { ring: self.clone(), key, completion };
        loop {
            if let Some(outcome) = wait.completion.outcome.borrow_mut().take() {
                return outcome;
            }
            wait.completion.waiters.wait_on(&"a file");
        }
    }

    /// Hands new requests to the kernel.
    fn submit(&self) {
        let mut state = self.state.borrow_mut();
        if !state.unsubmitted {
            return;
        }
        match state.uring.submit() {
            Ok(_) if state.uring.submission().is_empty() => state.unsubmitted = false,
            // The kernel is short of memory or was interrupted: again at the next turn, which this makes come.
            result => {
                if let Err(error) = result {
                    tracing::debug!("io_uring took no requests for now: {error}");
                }
                let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
            }
        }
    }

    /// Takes completed operations out of the table and wakes their coroutines.
    fn reap(&self) {
        let mut ended: SmallVec<[(Box<Operation>, i32); 16]> = SmallVec::new();
        {
            let mut state = self.state.borrow_mut();
            let State { uring, operations, .. } = &mut *state;
            for entry in uring.completion() {
                if entry.user_data() != CANCEL {
                    // *Last*: this is the operation's own completion.
                    ended.push((operations.remove(entry.user_data() as usize), entry.result()));
                }
            }
        }
        // Outside of the borrow: a buffer's destructor may be anyone's code.
        for (operation, result) in ended {
            self.places.release(1);
            let Operation { held, completion, .. } = *operation;
            *completion.outcome.borrow_mut() = Some(outcome(held, result));
            completion.waiters.notify_all();
        }
    }
}

impl State {
    /// Queues a request whose addresses keep *Owned*; whether there was room. There is, for every operation in the
    /// table and one cancellation of each, unless the kernel has been too short of memory to take any.
    fn push(&mut self, request: &squeue::Entry) -> bool {
        self.unsubmitted = true;
        // SAFETY: what the request points to is valid for as long as the kernel may use it. Operations keep *Owned*
        // (`Ring::run` builds the request from the entry in the table) until *Last* (`Ring::reap`), and *For ever*
        // (`Ring::drop`). Requests to cancel point to nothing.
        unsafe { self.uring.submission().push(request) }.is_ok()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Requests to cancel may still be under way: they point to nothing.
        if self.in_flight() == 0 {
            // SAFETY: dropped here and nowhere else, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.state) };
        }
    }
}

/// What an operation's result means.
fn outcome(held: Held, result: i32) -> io::Result<Outcome> {
    let count = match usize::try_from(result) {
        Ok(count) => count,
        Err(_) => return Err(io::Error::from_raw_os_error(-result)),
    };
    Ok(match held {
        // SAFETY: the kernel gave this number to us with this completion, and nobody else has seen it.
        Held::Path(_) => Outcome::Opened(unsafe { OwnedFd::from_raw_fd(result) }),
        Held::ReadBuffer(mut buffer) => {
            assert!(count <= buffer.capacity(), "the kernel read more than it was asked to");
            // SAFETY: the buffer has that capacity, which `Ring::read` gave it and nobody changed since
            // (*Untouched*), and the kernel has written its first `count` bytes, as its result says, for good
            // (*Last*).
            unsafe { buffer.set_len(count) };
            Outcome::Read(buffer)
        }
        Held::WriteBuffer(_) | Held::Nothing => Outcome::Count(count),
    })
}

/// A coroutine's interest in its operation.
struct Wait {
    ring: Rc<Ring>,
    key: usize,
    completion: Rc<Completion>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.ring.state.borrow_mut();
        // Still in the table, and the same one: only then is there anything to cancel.
        let found = state.operations.get(self.key);
        if found.is_some_and(|operation| Rc::ptr_eq(&operation.completion, &self.completion)) {
            // Without room it goes on to its end by itself.
            state.push(&opcode::AsyncCancel::new(self.key as u64).build().user_data(CANCEL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Duration;

    /// Not the position of anything: the kernel reads a pipe as it comes.
    const STREAM: u64 = u64::MAX;

    fn with_ring(story: impl FnOnce(&Rc<Ring>) + Send) {
        crate::run(|| match Ring::get() {
            Ok(ring) => story(&ring),
            Err(error) => eprintln!("SKIPPED: the kernel refuses io_uring: {error}"),
        });
    }

    #[test]
    fn a_buffer_outlives_its_terminated_coroutine_until_the_kernel_lets_go() {
        with_ring(|ring| {
            let (mut reader, mut writer) = std::io::pipe().unwrap();
            let fd = Arc::new(OwnedFd::from(reader.try_clone().unwrap()));
            let uses = Arc::downgrade(&fd);
            let of_reader = ring.clone();
            let waiting = crate::spawn(move || of_reader.read(fd, 100, STREAM));
            crate::sleep(Duration::from_millis(1));
            assert_eq!(uses.strong_count(), 1, "the kernel waits for the pipe");
            waiting.terminate();
            assert!(waiting.join().is_err());
            // The coroutine is gone; the descriptor, and with it the buffer, is in the table for another turn.
            assert_eq!(uses.strong_count(), 1);
            while uses.strong_count() > 0 {
                crate::sleep(Duration::from_millis(1));
            }
            // The cancelled read took nothing.
            writer.write_all(b"x").unwrap();
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x");
        });
    }

    #[test]
    fn an_operation_that_completes_as_its_coroutine_is_terminated_is_dropped_once() {
        with_ring(|ring| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let fd = Arc::new(OwnedFd::from(reader));
            for _ in 0..100 {
                let (fd, ring) = (fd.clone(), ring.clone());
                let waiting = crate::spawn(move || ring.read(fd, 1, STREAM));
                crate::yield_now();
                writer.write_all(b"x").unwrap();
                waiting.terminate();
                let _ = waiting.join();
            }
            while Arc::strong_count(&fd) > 1 {
                crate::sleep(Duration::from_millis(1));
            }
        });
    }

    #[test]
    fn more_operations_than_places_all_complete_in_turn() {
        with_ring(|ring| {
            let file = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
            crate::scope(|s| {
                for n in 0..1000u64 {
                    let file = file.clone();
                    s.spawn(move || {
                        let bytes = Bytes::copy_from_slice(&n.to_le_bytes());
                        assert_eq!(ring.write(file.clone(), bytes, n * 8).unwrap(), 8);
                        assert_eq!(ring.read(file, 8, n * 8).unwrap(), n.to_le_bytes());
                    });
                }
            });
        });
    }
}
