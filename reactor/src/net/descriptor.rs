//! A file descriptor that coroutines wait for: what all sockets here are made of.
//!
//! The poller is edge-triggered: it tells once that a descriptor *became* ready, and we remember it until a
//! call shows the contrary. A TCP stream's short read shows it as well as `EAGAIN` does, which saves one system call per
//! request; but not where urgent data is under way, at whose mark reads end. Other kinds end reads early for reasons of
//! their own (a terminal at each line, a packet pipe at each packet, a Unix socket where descriptors were attached), so
//! they are read until `EAGAIN`.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use super::{PeerWatch, Presence};
use crate::clock::{self, now};
use crate::coroutine::{self, begin, spend_bytes};
use crate::driver::{self, SourceKey, Told};
use crate::sync::{Place, WaitList};
use crate::timer::Timer;

/// What the poller has told of a descriptor.
#[derive(Default)]
pub(crate) struct Readiness {
    read: Direction,
    write: Direction,
    /// There has been urgent data.
    urgent: Cell<bool>,
}

#[derive(Default)]
struct Direction {
    ready: Cell<bool>,
    /// RDHUP, HUP or ERR was delivered: that edge will not come again, so the direction stays ready for good.
    stays_ready: Cell<bool>,
    waiters: WaitList,
}

impl Readiness {
    /// Takes the poller's word.
    pub(crate) fn on_told(&self, told: Told) {
        if told.is_urgent() {
            self.urgent.set(true);
        }
        if told.is_read_over() {
            self.read.stays_ready.set(true);
        }
        if told.is_write_over() {
            self.write.stays_ready.set(true);
        }
        if told.is_readable() || self.read.stays_ready.get() {
            self.read.on_ready();
        }
        if told.is_writable() || self.write.stays_ready.get() {
            self.write.on_ready();
        }
    }
}

impl PeerWatch for Readiness {
    fn presence(&self) -> Presence {
        match (self.read.stays_ready.get(), self.write.stays_ready.get()) {
            (_, true) => Presence::Gone,
            (true, false) => Presence::HalfClosed,
            (false, false) => Presence::Here,
        }
    }
}

impl Direction {
    fn on_ready(&self) {
        self.ready.set(true);
        self.waiters.notify_all();
    }

    fn clear(&self) {
        self.ready.set(self.stays_ready.get());
    }

    /// Waits until ready, or until `deadline`.
    #[inline]
    fn wait(&self, deadline: Option<Instant>) -> io::Result<()> {
        if self.ready.get() { Ok(()) } else { self.wait_until_ready(deadline) }
    }

    #[inline(never)]
    fn wait_until_ready(&self, deadline: Option<Instant>) -> io::Result<()> {
        if !coroutine::may_suspend() {
            return Err(io::Error::new(ErrorKind::WouldBlock, "a destructor may not wait while unwinding"));
        }
        let _timer = deadline.map(Timer::wake_at);
        let place = self.waiters.join(1);
        while !self.ready.get() {
            if deadline.is_some_and(|deadline| deadline <= now()) {
                return Err(io::Error::new(ErrorKind::TimedOut, "the deadline has passed"));
            }
            if place.is_told() {
                place.look_again();
            }
            coroutine::park_on(&"a descriptor");
        }
        Ok(())
    }
}

/// A non-blocking descriptor registered with the reactor. Closed on drop.
///
/// One coroutine may wait to read while another waits to write, and several may wait for the same.
pub struct Descriptor {
    fd: OwnedFd,
    key: SourceKey,
    readiness: Rc<Readiness>,
    read_deadline: Cell<Option<Instant>>,
    write_deadline: Cell<Option<Instant>>,
}

impl Descriptor {
    /// Makes `fd` non-blocking and registers it. Never suspends.
    ///
    /// # Errors
    ///
    /// When the descriptor is of a kind that can't be polled (a regular file), or the kernel is out of memory.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`].
    pub fn new(fd: OwnedFd) -> io::Result<Descriptor> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Descriptor::from_nonblocking(fd)
    }

    /// Registers a descriptor that does not block already: one system call less.
    pub(crate) fn from_nonblocking(fd: OwnedFd) -> io::Result<Descriptor> {
        if clock::is_virtual() {
            let message =
                "a simulation has no descriptors, and so no Unix sockets, signals or child processes";
            return Err(io::Error::new(ErrorKind::Unsupported, message));
        }
        let readiness = Rc::new(Readiness::default());
        // Taken on trust: most descriptors can be written to at first, and the first write tells otherwise.
        readiness.write.ready.set(true);
        let key = driver::register(fd.as_fd(), readiness.clone())?;
        Ok(Descriptor { fd, key, readiness, read_deadline: Cell::new(None), write_deadline: Cell::new(None) })
    }

    /// Calls `f`, which must not block, and again whenever the descriptor has become readable, until it returns
    /// anything but `WouldBlock`.
    ///
    /// # Errors
    ///
    /// Those of `f`; `TimedOut` after the read deadline.
    ///
    /// # Suspends
    ///
    /// Until there is something to read.
    pub fn read_with<R>(&self, mut f: impl FnMut(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        let call = begin();
        loop {
            self.readiness.read.wait(self.read_deadline.get())?;
            if let Some(result) = self.try_read_with(&mut f) {
                call.needed_no_wait();
                return result;
            }
        }
    }

    /// Calls `f` once; `None` if it would have blocked. Never suspends.
    pub fn try_read_with<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> Option<io::Result<R>> {
        attempt(&self.readiness.read, self.fd.as_fd(), f)
    }

    /// As [`Descriptor::read_with`], for writing and the write deadline.
    ///
    /// # Errors
    ///
    /// Those of `f`; `TimedOut` after the write deadline.
    ///
    /// # Suspends
    ///
    /// Until there is room to write.
    pub fn write_with<R>(&self, mut f: impl FnMut(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        let call = begin();
        loop {
            self.readiness.write.wait(self.write_deadline.get())?;
            if let Some(result) = attempt(&self.readiness.write, self.fd.as_fd(), &mut f) {
                call.needed_no_wait();
                return result;
            }
        }
    }

    /// Reads from a TCP stream into a buffer: one `recv` where data is there.
    pub(crate) fn read_stream(
        &self,
        buffer_len: usize,
        mut f: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // Cleared within the attempt: `read_with` may let others run before it returns, and what becomes known meanwhile
        // must not be wiped, for no second edge would tell of it.
        self.read_with(|fd| {
            let count = f(fd)?;
            self.on_read(count, buffer_len);
            Ok(count)
        })
    }

    /// As [`Descriptor::read_stream`]; `None` if it would have to wait.
    ///
    /// # Suspends
    ///
    /// As all that succeed do, now and then.
    pub(crate) fn try_read_stream(
        &self,
        buffer_len: usize,
        f: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let call = begin();
        let result = self.try_read_with(|fd| {
            let count = f(fd)?;
            self.on_read(count, buffer_len);
            Ok(count)
        });
        match result {
            Some(_) => call.needed_no_wait(),
            None => call.over(),
        }
        result
    }

    #[inline]
    fn on_read(&self, count: usize, buffer_len: usize) {
        // One that gave less than it was asked for is drained: no need to read again to see EAGAIN.
        if count < buffer_len && count > 0 && !self.readiness.urgent.get() {
            self.readiness.read.clear();
        }
        spend_bytes(count);
    }

    /// Writes to a byte stream `len` bytes or fewer.
    pub(crate) fn write_stream(
        &self,
        len: usize,
        mut f: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // Within the attempt, as in `read_stream`.
        self.write_with(|fd| {
            let count = f(fd)?;
            if count < len {
                self.readiness.write.clear();
            }
            spend_bytes(count);
            Ok(count)
        })
    }

    /// Waits until the descriptor is readable, as far as is known.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the read deadline.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn wait_readable(&self) -> io::Result<()> {
        // What is then read counts.
        begin().over();
        self.readiness.read.wait(self.read_deadline.get())
    }

    /// Waits until one of `descriptors` is readable. Deadlines do not count here.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn wait_any_readable(descriptors: &[&Descriptor]) {
        begin().over();
        let is_any = || descriptors.iter().any(|descriptor| descriptor.readiness.read.ready.get());
        if is_any() {
            return;
        }
        let places: SmallVec<[_; 4]> =
            descriptors.iter().map(|descriptor| descriptor.readers().join(1)).collect();
        while !is_any() {
            places.iter().for_each(Place::look_again);
            coroutine::park_on(&"one of several descriptors");
        }
    }

    /// What the poller tells of the peer of a stream socket.
    pub(super) fn watch_peer(&self) -> Rc<dyn PeerWatch> {
        self.readiness.clone()
    }

    /// Whether the poller has told of something to read that no call has used up yet.
    pub(super) fn is_told_readable(&self) -> bool {
        self.readiness.read.ready.get()
    }

    /// The kernel says that there is nothing to read after all.
    pub(super) fn forget_readable(&self) {
        self.readiness.read.ready.set(false);
    }

    /// The row of those who wait for something to read.
    pub(super) fn readers(&self) -> &WaitList {
        &self.readiness.read.waiters
    }

    /// Until when reads may wait; `None` for ever. Holds for all coming calls.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.read_deadline.set(deadline);
    }

    /// Until when writes may wait; `None` for ever. Holds for all coming calls.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.write_deadline.set(deadline);
    }
}

fn attempt<R>(
    direction: &Direction,
    fd: BorrowedFd<'_>,
    f: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
) -> Option<io::Result<R>> {
    match f(fd) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            // Even where an error was told before: it has been taken, and waiting beats spinning.
            direction.ready.set(false);
            None
        }
        result => Some(result),
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        driver::deregister(self.fd.as_fd(), self.key);
    }
}
