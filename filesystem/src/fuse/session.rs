//! One connection to the kernel: INIT, then requests and replies, until the file system is unmounted.
//!
//! Not here: which coroutine answers what (`pool`), what a request means (`dispatch`), how a file system is mounted
//! (`mount`). No second thread answers requests; the one that writes notifications is in `notify`.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use reactor::net::Descriptor;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno as SystemErrno;

use super::negotiate::{Negotiation, WRITE_BYTES_MAX, negotiate};
use super::notify::Notifier;
use super::parse::MalformedRequest;
use super::pool;
use super::reply::{Notification, Reply};
use super::request::{Init, Operation, Request};
use super::spin::Spin;
use crate::errno::Errno;
use crate::operations::{Invalidation, Operations};

/// What a read of the device may return: the largest write and its header, for which the kernel wants a page.
pub(super) const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX as usize + 4096;

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
}

/// A connection to the kernel: an opened `/dev/fuse` that is mounted somewhere.
pub struct Session {
    device: Descriptor,
    /// Started when there is something to tell.
    notifier: OnceCell<Notifier>,
    /// The kernel has let go.
    has_ended: Cell<bool>,
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
        Ok(Session {
            device: Descriptor::new(device)?,
            notifier: OnceCell::new(),
            has_ended: Cell::new(false),
        })
    }

    /// Answers the kernel until the file system is unmounted. What it was given is durable once the volume is closed, and
    /// that alone says whether it is.
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
        match pool::run(self, operations) {
            End::Unmounted => Ok(()),
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

    /// Whether there will be no more requests; those that are under way may still be answered.
    pub fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    pub(super) fn note_end(&self) {
        self.has_ended.set(true);
    }

    /// Passes on what other writers changed, until there's no more to tell.
    pub(super) fn tell_kernel(&self, operations: &dyn Operations) {
        while let Some(invalidation) = operations.next_invalidation() {
            self.tell(match invalidation {
                Invalidation::Inode(inode) => Notification::Inode(inode),
                Invalidation::Entry(parent, name) => Notification::Entry(parent, name.to_vec()),
            });
        }
    }

    /// Has the kernel told, soon and in order.
    ///
    /// # Suspends
    ///
    /// While the queue is full.
    pub(super) fn tell(&self, notification: Notification) {
        match self.notifier() {
            Ok(notifier) => notifier.notify(notification),
            Err(error) => {
                tracing::error!("changes by others will show late: no thread to tell the kernel: {error}");
            }
        }
    }

    /// Whether the kernel has taken all that [`tell`](Session::tell) was given.
    pub(super) fn has_told_all(&self) -> bool {
        self.notifier.get().is_none_or(Notifier::is_idle)
    }

    /// Returns the thread that tells the kernel what of its caches is stale, started if need be.
    ///
    /// # Errors
    ///
    /// If neither a descriptor nor a thread can be had.
    pub fn notifier(&self) -> io::Result<&Notifier> {
        if self.notifier.get().is_none() {
            let started = Notifier::start(self.device.as_fd().try_clone_to_owned()?)?;
            // Nothing has run meanwhile: we have not suspended.
            let _ = self.notifier.set(started);
        }
        self.notifier.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Has the kernel forget something, before anything else is answered. Pages that wait for a request of ours are waited
    /// for, and pages changed through `mmap` are written back, by requests that others handle.
    ///
    /// # Suspends
    ///
    /// Until the kernel has.
    pub(super) fn tell_now(&self, notification: &Notification) {
        let Ok(device) = self.device.as_fd().try_clone_to_owned() else { return };
        let message = notification.to_bytes();
        if let Err(error) = reactor::offload(move || rustix::io::write(device, &message)) {
            // Most often ENOENT: it has nothing of it.
            tracing::trace!("{notification:?}: {error}");
        }
    }

    /// Reads the next request, after spinning for a while where that pays.
    ///
    /// ECONNABORTED is no abort yet: the kernel says it of every request that is being read while it lets go, the last
    /// RELEASE before an ordinary unmount among them (`fuse_dev_do_read` in fs/fuse/dev.c). Once it has let go for good
    /// (POLLERR) there are no requests any more, and what a read says then is its word on how it ended.
    pub(super) fn receive(&self, buffer: &mut [u8], spin: &Spin) -> Result<usize, End> {
        let waiting_since = spin.is_allowed().then(Instant::now);
        let mut is_over = false;
        loop {
            let read = self.device.try_read_with(|device| Ok(rustix::io::read(device, &mut *buffer)?));
            if let Some(Err(error)) = &read
                && SystemErrno::from_io_error(error) == Some(SystemErrno::CONNABORTED)
                && !is_over
            {
                is_over = self.polls_over().map_err(End::Failed)?;
                reactor::yield_now();
                continue;
            }
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

    /// Whether the kernel has let go for good.
    fn polls_over(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => Ok(fds[0].revents().contains(PollFlags::ERR)),
            Err(SystemErrno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a reply. Never suspends: the kernel takes replies at once.
    pub(super) fn send(&self, unique: u64, reply: &Reply) {
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
pub(super) enum End {
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
