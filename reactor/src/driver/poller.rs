//! The kernel's poller: epoll, edge-triggered, and a bell that other threads ring to end its sleep.
//!
//! It tells *that* something became possible with a descriptor, under the key that the descriptor was added with, and
//! never what is possible now: who is told tries.
//!
//! Not here: whose keys they are ([`super`]), nor what is done about what was told ([`crate::net`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// Events taken from the kernel at once. More wait for the next call.
pub(super) const EVENTS_PER_POLL: usize = 1024;

/// The key of the poller's own bell. No descriptor has it.
const BELL: u64 = u64::MAX;

/// The longest sleep. The kernel counts in milliseconds of 31 bits, and who wakes a day early sleeps again.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What became possible with a descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Told(EventFlags);

impl Told {
    /// There is something to read: bytes, an end, an error.
    pub(crate) fn is_readable(self) -> bool {
        self.0.intersects(EventFlags::IN | EventFlags::PRI) || self.is_read_over()
    }

    /// There is urgent data.
    pub(crate) fn is_urgent(self) -> bool {
        self.0.contains(EventFlags::PRI)
    }

    /// There is room to write, or an error to learn of.
    pub(crate) fn is_writable(self) -> bool {
        self.0.contains(EventFlags::OUT) || self.is_write_over()
    }

    /// Nothing more will come after what is there. Told once.
    pub(crate) fn is_read_over(self) -> bool {
        self.0.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
    }

    /// Nothing more can be written. Told once.
    pub(crate) fn is_write_over(self) -> bool {
        self.0.intersects(EventFlags::HUP | EventFlags::ERR)
    }
}

/// Room for what the poller tells at once.
pub(super) struct Events(Vec<epoll::Event>);

impl Events {
    pub(super) fn new() -> Events {
        Events(Vec::with_capacity(EVENTS_PER_POLL))
    }

    /// How much was told, the bell included.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What was told of descriptors, by their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Told)> {
        self.0.iter().map(|event| (event.data.u64(), Told(event.flags))).filter(|(key, _)| *key != BELL)
    }
}

pub(super) struct Poller {
    epoll: OwnedFd,
}

/// Ends the poller's sleep, from any thread.
pub(super) struct Bell {
    eventfd: OwnedFd,
}

impl Bell {
    pub(super) fn ring(&self) -> io::Result<()> {
        // Never read: edge-triggered, each write tells anew, and the count would take centuries to reach its end.
        rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes())?;
        Ok(())
    }
}

impl Poller {
    /// A poller and its bell.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub(super) fn new() -> io::Result<(Poller, Bell)> {
        let poller = Poller { epoll: epoll::create(CreateFlags::CLOEXEC)? };
        let bell = Bell { eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? };
        epoll::add(&poller.epoll, &bell.eventfd, EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        Ok((poller, bell))
    }

    /// Tells of `fd` from now on, in both directions and of urgent data.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI;
        Ok(epoll::add(&self.epoll, fd.as_fd(), EventData::new_u64(key), all | EventFlags::ET)?)
    }

    /// Tells no more of `fd`.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        // Fails only if the kernel forgot the descriptor first, which is what we want.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until there is something to tell, for `limit` at the longest and until the next whole millisecond at the
    /// shortest; without one, for ever.
    ///
    /// # Errors
    ///
    /// `Interrupted` by a signal.
    pub(super) fn wait(&self, events: &mut Events, limit: Option<Duration>) -> io::Result<()> {
        events.0.clear();
        let limit = limit.map(|limit| Timespec::try_from(limit.min(SLEEP_MAX)).unwrap_or_default());
        epoll::wait(&self.epoll, spare_capacity(&mut events.0), limit.as_ref())?;
        Ok(())
    }
}
