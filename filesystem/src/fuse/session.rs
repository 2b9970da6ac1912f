//! One connection to the kernel: INIT, then read, answer, read, answer, until the file system is unmounted.
//!
//! # Leader and followers
//!
//! Any request may have to wait (for a block from the network, say) and most don't, and which is which shows only
//! while it is handled. So nobody hands requests over. A few coroutines share one baton: whoever holds it reads a
//! request, puts the baton down, and handles the request in place. If that never suspended, nothing else can have
//! run, the baton still lies there, and the same coroutine picks it up and reads on: no switch, no queue, no spawn.
//! If it did suspend, another has taken the baton and reads meanwhile.
//!
//! Rejected: a coroutine per request (a spawn is 0.8 us), a queue between reader and workers (a switch per request,
//! and a copy of it), threads (a wake-up across processors costs 5 to 10 times the request itself).
//!
//! # What is not here
//!
//! What a request means (`dispatch`), how a file system is mounted (`mount`). No second thread answers requests; the
//! one that writes notifications is in `notify`.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use reactor::net::Descriptor;
use reactor::sync::Signal;
use reactor::{Scope, ScopedJoinHandle};
use rustix::io::Errno as SystemErrno;

use super::dispatch::{dispatch, is_interruptible};
use super::negotiate::{Negotiation, WRITE_BYTES_MAX, negotiate};
use super::notify::Notifier;
use super::reply::{Notification, Reply};
use super::request::{Init, MalformedRequest, Operation, Request};
use super::spin::Spin;
use crate::errno::Errno;
use crate::operations::{Invalidation, Operations};

/// What a read of the device may return: the largest write and its header, for which the kernel wants a page.
const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX as usize + 4096;

/// Coroutines that handle requests at once. When all of them wait, requests wait in the kernel.
const WORKERS_MAX: usize = 64;

/// Coroutines kept without work; each keeps its buffer, of which the touched pages take memory.
const IDLE_WORKERS_MAX: usize = 4;

/// Requests answered in a row before every other coroutine gets its turn: some 30 us of work.
const REQUESTS_PER_TURN: u32 = 4;

/// Why a session ended otherwise than by an unmount.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The kernel's protocol is older than ours.
    #[error("the kernel's FUSE protocol is {major}.{minor}, but 7.31 is needed: use Linux 5.4 or newer")]
    KernelTooOld {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// The connection was aborted (`umount -f`, or through /sys/fs/fuse/connections).
    #[error("the connection to the kernel was aborted: unmount what is left of it and mount again")]
    Aborted,
    /// The device failed.
    #[error("/dev/fuse failed: {0}")]
    Device(#[source] io::Error),
    /// All is answered and unmounted, but the last flush failed.
    #[error("the file system is unmounted, but its last changes could not be made durable: {0}")]
    Flush(#[source] Errno),
}

/// A connection to the kernel: an opened `/dev/fuse` that is mounted somewhere.
pub struct Session {
    device: Descriptor,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Takes over a mounted `/dev/fuse`.
    ///
    /// # Errors
    ///
    /// If the descriptor can't be polled.
    pub fn new(device: OwnedFd) -> io::Result<Session> {
        Ok(Session { device: Descriptor::new(device)? })
    }

    /// Answers the kernel until the file system is unmounted, then makes everything durable.
    ///
    /// Never touch the mounted files from the reactor's thread: it would wait for an answer that only it can give.
    /// Use another thread (`reactor::offload`) or another process.
    ///
    /// # Errors
    ///
    /// See [`SessionError`].
    ///
    /// # Panics
    ///
    /// With the panic of an operation; its request is answered with `EIO` first.
    ///
    /// # Suspends
    ///
    /// Until the end.
    pub fn serve(&self, operations: &dyn Operations, on_ready: impl FnOnce()) -> Result<(), SessionError> {
        if !self.begin()? {
            return Ok(());
        }
        on_ready();
        let end = self.run(operations);
        let flushed = operations.sync(None, false).map_err(SessionError::Flush);
        match end {
            End::Unmounted => flushed,
            End::Aborted => Err(SessionError::Aborted),
            End::Failed(error) => Err(SessionError::Device(error)),
        }
    }

    /// Negotiates; false if the file system was unmounted before it began.
    fn begin(&self) -> Result<bool, SessionError> {
        let mut buffer = vec![0; REQUEST_BYTES_MAX];
        loop {
            let size = match self.receive(&mut buffer, &Spin::never()) {
                Ok(size) => size,
                Err(End::Unmounted) => return Ok(false),
                Err(End::Aborted) => return Err(SessionError::Aborted),
                Err(End::Failed(error)) => return Err(SessionError::Device(error)),
            };
            match Request::parse(&buffer[..size]) {
                Ok(Request { unique, operation: Operation::Init(init), .. }) => {
                    if self.agree(unique, &init)? {
                        return Ok(true);
                    }
                }
                // Anything else before INIT is nonsense.
                Ok(Request { unique, .. }) | Err(MalformedRequest::Body { unique, .. }) => {
                    self.send(unique, &Reply::Error(Errno::EIO));
                }
                Err(MalformedRequest::NoHeader { .. }) => {}
            }
        }
    }

    fn agree(&self, unique: u64, init: &Init) -> Result<bool, SessionError> {
        match negotiate(init) {
            Negotiation::Agreed(agreement) => {
                self.send(unique, &Reply::Init(agreement));
                tracing::debug!(
                    "FUSE 7.{} agreed, flags {:#x} of {:#x}",
                    agreement.minor,
                    agreement.flags,
                    init.flags
                );
                Ok(true)
            }
            Negotiation::AskAgain(agreement) => {
                self.send(unique, &Reply::Init(agreement));
                Ok(false)
            }
            Negotiation::TooOld => {
                self.send(unique, &Reply::Error(Errno(SystemErrno::PROTO.raw_os_error())));
                Err(SessionError::KernelTooOld { major: init.major, minor: init.minor })
            }
        }
    }

    fn run(&self, operations: &dyn Operations) -> End {
        reactor::scope(|scope| {
            let pool = Rc::new(Pool {
                session: self,
                operations,
                spin: Spin::new(),
                baton_taken: Cell::new(false),
                offered: Cell::new(false),
                followers: Signal::new(),
                idle_count: Cell::new(0),
                seats: RefCell::new(Vec::new()),
                end: RefCell::new(None),
                ended: Signal::new(),
            });
            let told = scope.spawn(|| self.tell_kernel(operations));
            pool.clone().add_worker(scope);
            while pool.end.borrow().is_none() {
                pool.ended.wait();
            }
            told.terminate();
            pool.end.take().unwrap_or(End::Unmounted)
        })
    }

    /// Passes on what other writers changed, until there's no more to tell.
    fn tell_kernel(&self, operations: &dyn Operations) {
        let mut notifier = None;
        while let Some(invalidation) = operations.next_invalidation() {
            let notification = match invalidation {
                Invalidation::Inode(inode) => Notification::Inode(inode),
                Invalidation::Entry(parent, name) => Notification::Entry(parent, name.to_vec()),
            };
            if notifier.is_none() {
                match self.notifier() {
                    Ok(new) => notifier = Some(new),
                    Err(error) => {
                        tracing::error!(
                            "changes by others will show late: no thread to tell the kernel: {error}"
                        );
                        return;
                    }
                }
            }
            if let Some(notifier) = &notifier {
                notifier.notify(notification);
            }
        }
    }

    /// Starts a thread that tells the kernel what of its caches is stale.
    ///
    /// # Errors
    ///
    /// If neither a descriptor nor a thread can be had.
    pub fn notifier(&self) -> io::Result<Notifier> {
        Notifier::start(self.device.as_fd().try_clone_to_owned()?)
    }

    /// Reads the next request, after spinning for a while where that pays.
    fn receive(&self, buffer: &mut [u8], spin: &Spin) -> Result<usize, End> {
        let waiting_since = spin.is_allowed().then(Instant::now);
        loop {
            let read = self.device.try_read_with(|device| Ok(rustix::io::read(device, &mut *buffer)?));
            match (read, waiting_since) {
                (Some(read), _) => {
                    if let Some(size) = settle(read)? {
                        if let Some(since) = waiting_since {
                            spin.learn(since.elapsed());
                        }
                        return Ok(size);
                    }
                }
                // Others first: spinning must cost nobody a turn.
                (None, Some(since)) if since.elapsed() < spin.limit() => reactor::yield_now(),
                (None, _) => self.device.wait_readable().map_err(End::Failed)?,
            }
        }
    }

    /// Writes a reply. Never suspends: the kernel takes replies at once.
    fn send(&self, unique: u64, reply: &Reply) {
        let write = |slices: &[io::IoSlice<'_>]| rustix::io::writev(&self.device, slices);
        match reply.slices(unique, write) {
            None | Some(Ok(_)) => {}
            // Nobody waits for it any more: the request was aborted, or the file system unmounted.
            Some(Err(SystemErrno::NOENT | SystemErrno::NODEV | SystemErrno::CONNABORTED)) => {}
            Some(Err(error)) => {
                tracing::error!("the kernel refused the reply to request {unique}: {error}");
                // The program behind the request would wait for ever.
                if !matches!(reply, Reply::Error(_)) {
                    self.send(unique, &Reply::Error(Errno::EIO));
                }
            }
        }
    }
}

/// How a session came to its end.
#[derive(Debug)]
enum End {
    Unmounted,
    Aborted,
    Failed(io::Error),
}

/// A size, or nothing if the read is to be tried again.
fn settle(read: io::Result<usize>) -> Result<Option<usize>, End> {
    let error = match read {
        Ok(size) => return Ok(Some(size)),
        Err(error) => error,
    };
    match SystemErrno::from_io_error(&error) {
        // ENOENT: the request was interrupted before it could be copied.
        Some(SystemErrno::INTR | SystemErrno::NOENT) => Ok(None),
        Some(SystemErrno::NODEV) => Err(End::Unmounted),
        Some(SystemErrno::CONNABORTED) => Err(End::Aborted),
        _ => Err(End::Failed(error)),
    }
}

/// What the coroutines of a session share.
struct Pool<'scope> {
    session: &'scope Session,
    operations: &'scope dyn Operations,
    spin: Spin,
    /// Somebody reads, or is about to.
    baton_taken: Cell<bool>,
    /// A follower has been woken and has not run yet.
    offered: Cell<bool>,
    followers: Signal,
    idle_count: Cell<usize>,
    seats: RefCell<Vec<Rc<Seat<'scope>>>>,
    end: RefCell<Option<End>>,
    ended: Signal,
}

/// One worker, as INTERRUPT finds it.
#[derive(Default)]
struct Seat<'scope> {
    /// The request it handles, if that may be interrupted; 0 if not.
    interruptible: Cell<u64>,
    interrupted: Cell<bool>,
    handle: RefCell<Option<ScopedJoinHandle<'scope, ()>>>,
}

impl<'scope> Pool<'scope> {
    fn add_worker<'env>(self: Rc<Self>, scope: &'scope Scope<'scope, 'env>) {
        let seat = Rc::new(Seat::default());
        self.seats.borrow_mut().push(seat.clone());
        let place = Place { pool: self, seat: seat.clone() };
        let handle = scope.spawn(move || place.work(scope));
        *seat.handle.borrow_mut() = Some(handle);
    }

    /// Waits for the baton; false if this worker is not needed any more.
    fn take_baton(&self) -> bool {
        loop {
            if self.end.borrow().is_some() {
                return false;
            }
            if !self.baton_taken.replace(true) {
                return true;
            }
            if self.idle_count.get() >= IDLE_WORKERS_MAX {
                return false;
            }
            self.idle_count.set(self.idle_count.get() + 1);
            self.followers.wait();
            self.idle_count.set(self.idle_count.get() - 1);
            self.offered.set(false);
        }
    }

    /// Puts the baton down. A follower is made runnable once, however many requests go by before it gets to run; if
    /// the leader is back to reading by then, it finds the baton taken and waits again.
    fn put_baton(&self) {
        self.baton_taken.set(false);
        if !self.offered.get() && self.followers.notify_one() {
            self.offered.set(true);
        }
    }

    /// The request named `unique` is not wanted any more.
    fn interrupt(&self, unique: u64) {
        let seats = self.seats.borrow();
        let Some(seat) = seats.iter().find(|seat| seat.interruptible.get() == unique) else {
            // Answered already, or not to be interrupted.
            return;
        };
        if let Some(handle) = &*seat.handle.borrow() {
            seat.interrupted.set(true);
            handle.terminate();
        }
    }

    fn finish(&self, end: End) {
        // Nobody waits for reads any more. Changes run to their end.
        for seat in self.seats.borrow().iter().filter(|seat| seat.interruptible.get() != 0) {
            if let Some(handle) = &*seat.handle.borrow() {
                handle.terminate();
            }
        }
        self.end.borrow_mut().get_or_insert(end);
        self.followers.notify_all();
        self.ended.notify_all();
    }
}

/// A worker's place in the pool, which it leaves however it ends.
struct Place<'scope> {
    pool: Rc<Pool<'scope>>,
    seat: Rc<Seat<'scope>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pool.seats.borrow_mut().retain(|seat| !Rc::ptr_eq(seat, &self.seat));
    }
}

impl<'scope> Place<'scope> {
    fn work<'env>(self, scope: &'scope Scope<'scope, 'env>) {
        let pool = &self.pool;
        let mut buffer = Vec::new();
        while pool.take_baton() {
            if buffer.is_empty() {
                // Zeroed by the kernel, page by page, as requests touch it.
                buffer = vec![0; REQUEST_BYTES_MAX];
            }
            if pool.idle_count.get() == 0 && pool.seats.borrow().len() < WORKERS_MAX {
                pool.clone().add_worker(scope);
            }
            let mut in_a_row = 0;
            loop {
                match pool.session.receive(&mut buffer, &pool.spin) {
                    Ok(size) => {
                        pool.put_baton();
                        self.handle(&buffer[..size]);
                    }
                    Err(end) => return pool.finish(end),
                }
                if pool.baton_taken.replace(true) {
                    // Another took it while the handling was suspended.
                    break;
                }
                in_a_row += 1;
                if in_a_row % REQUESTS_PER_TURN == 0 {
                    reactor::yield_now();
                }
            }
        }
    }

    fn handle(&self, bytes: &[u8]) {
        let pool = &*self.pool;
        let request = match Request::parse(bytes) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!("{error}");
                if let MalformedRequest::Body { unique, .. } = error {
                    pool.session.send(unique, &Reply::Error(Errno::EIO));
                }
                return;
            }
        };
        match request.operation {
            Operation::Interrupt { unique } => return pool.interrupt(unique),
            Operation::Destroy => return pool.session.send(request.unique, &Reply::Empty),
            _ => {}
        }
        let mut debt = Debt { place: self, unique: Some(request.unique) };
        if is_interruptible(&request.operation) {
            self.seat.interruptible.set(request.unique);
        }
        let reply = dispatch(pool.operations, &request);
        self.seat.interruptible.set(0);
        debt.unique = None;
        pool.session.send(request.unique, &reply);
    }
}

/// An answer that is owed: given with an error if the handling unwinds, lest a program wait for ever.
struct Debt<'a, 'scope> {
    place: &'a Place<'scope>,
    unique: Option<u64>,
}

impl Drop for Debt<'_, '_> {
    fn drop(&mut self) {
        let Some(unique) = self.unique else { return };
        let errno = if self.place.seat.interrupted.get() { Errno::EINTR } else { Errno::EIO };
        self.place.pool.session.send(unique, &Reply::Error(errno));
    }
}
