//! Hearing that this machine's addresses or routes have changed, as the kernel tells by netlink.
//!
//! What changed is not read: whoever cares looks for itself at the little that it relies on, and is right whatever the message
//! said.
//!
//! What it is not: a list of interfaces, nor a guess whether the network is any good.

use std::io;

use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::Descriptor;
use crate::{sim, sleep};

/// Addresses and routes, of IPv4 and IPv6 (`RTMGRP_*` in Linux's `rtnetlink.h`).
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// An address is taken away before another is given: so long it is waited for what follows.
const SETTLES: Duration = Duration::from_millis(200);

/// Calls `look` whenever the kernel says that anything has changed, until it is terminated; not at all where it does not say so.
/// What changes from before it calls `first` on is heard of.
///
/// # Suspends
/// Until then.
pub(crate) fn watch(first: impl FnOnce(), look: impl Fn()) {
    let changes = RouteChanges::open();
    first();
    let changes = match changes {
        Ok(changes) => changes,
        Err(error) => return tracing::debug!("changes of the network are not heard of: {error}"),
    };
    while changes.wait().is_ok() {
        sleep(SETTLES);
        look();
    }
}

/// The changes of this machine's addresses and routes.
struct RouteChanges(Descriptor);

impl RouteChanges {
    /// From now on.
    ///
    /// # Errors
    /// `Unsupported` in a simulation, where they are what they are; where the kernel gives no such socket.
    ///
    /// # Suspends
    /// Never.
    fn open() -> io::Result<RouteChanges> {
        if sim::here().is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // Protocol 0 of the family is that of routes and addresses (`NETLINK_ROUTE`).
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(RouteChanges(Descriptor::from_nonblocking(socket)?))
    }

    /// Waits for one, and takes all that are there.
    ///
    /// # Errors
    /// None in practice.
    ///
    /// # Suspends
    /// Until there is one.
    fn wait(&self) -> io::Result<()> {
        // A part of a message is enough, and where they came too fast to be kept (`ENOBUFS`) there were some too.
        let take = |fd: std::os::fd::BorrowedFd<'_>| match recv(fd, &mut [0_u8; 64], RecvFlags::empty()) {
            Err(rustix::io::Errno::NOBUFS) => Ok(()),
            taken => taken.map(drop).map_err(io::Error::from),
        };
        self.0.read_with(take)?;
        while let Some(taken) = self.0.try_read_with(take) {
            taken?;
        }
        Ok(())
    }
}
