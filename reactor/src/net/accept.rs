//! Taking connections from a listening socket, come what may: the one loop for TCP and Unix.
//!
//! A server that is out of descriptors or memory must neither die of it nor spin: the connection stays in the
//! kernel's queue, and so the socket stays readable. It rests, and tries again when others may have ended.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

use super::Descriptor;
use crate::seldom::warn_seldom;
use crate::timer::sleep;

/// How long `accept` rests when the process is out of descriptors: some other connection may end meanwhile.
const EXHAUSTED_REST: Duration = Duration::from_millis(20);

/// Takes the next connection, and who made it. Suspends until there is one.
pub(super) fn accept(listener: &Descriptor) -> io::Result<(Descriptor, Option<SocketAddrAny>)> {
    loop {
        let accepted = listener.read_with(|fd| {
            Ok(match acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Err(Errno::AGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                accepted => accepted,
            })
        })?;
        let registered = match accepted {
            // Registering takes memory of the kernel's, and counts against a limit of its own.
            Ok((fd, address)) => Descriptor::from_nonblocking(fd).map(|descriptor| (descriptor, address)),
            Err(error) => Err(error.into()),
        };
        let error = match registered {
            Ok(accepted) => return Ok(accepted),
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            // Broke off while it waited (accept(2) names these for TCP).
            Some(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
                // A firewall's rule.
                | Errno::PERM,
            ) => {}
            Some(Errno::MFILE | Errno::NFILE) => {
                warn_seldom!("accept: {error}; raise `ulimit -n` to serve more clients at once");
                sleep(EXHAUSTED_REST);
            }
            Some(Errno::NOMEM | Errno::NOBUFS | Errno::NOSPC) => {
                warn_seldom!("accept: {error}; clients wait until the kernel has room");
                sleep(EXHAUSTED_REST);
            }
            _ => return Err(error),
        }
    }
}
