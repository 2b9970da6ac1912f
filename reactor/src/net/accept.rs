//! Taking connections from a listening socket, come what may: the one loop for TCP and Unix.
//!
//! A server that is out of descriptors or memory must neither die of it nor spin: the connection stays in the
//! kernel's queue, and so the socket stays readable. It rests, and tries again when others may have ended.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

use super::Descriptor;
use crate::clock::now;
use crate::timer::sleep;

/// How long `accept` rests when the process is out of descriptors: some other connection may end meanwhile.
const EXHAUSTED_REST: Duration = Duration::from_millis(20);

/// How often trouble is a warning and not a detail: it may last, and is met fifty times a second.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Whether a warning is due at `now`, when the last one was at `told_at`; if so, this is the last one.
fn is_due(told_at: &Cell<Option<Instant>>, now: Instant) -> bool {
    let is_due = told_at.get().is_none_or(|told_at| now >= told_at + WARN_EVERY);
    if is_due {
        told_at.set(Some(now));
    }
    is_due
}

/// What there is too little of.
#[derive(Clone, Copy)]
enum Short {
    Descriptors,
    Memory,
}

/// Tells of it; as a warning now and then, for all listeners of the thread together, and for each kind of trouble.
fn warn(short: Short, error: &io::Error) {
    thread_local! { static TOLD_AT: [Cell<Option<Instant>>; 2] = const { [const { Cell::new(None) }; 2] }; }
    let advice = match short {
        Short::Descriptors => "raise `ulimit -n` to serve more clients at once",
        Short::Memory => "clients wait until the kernel has room",
    };
    if TOLD_AT.with(|told_at| is_due(&told_at[short as usize], now())) {
        tracing::warn!("accept: {error}; {advice}");
    } else {
        tracing::debug!("accept: {error}; {advice}");
    }
}

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
                warn(Short::Descriptors, &error);
                sleep(EXHAUSTED_REST);
            }
            Some(Errno::NOMEM | Errno::NOBUFS | Errno::NOSPC) => {
                warn(Short::Memory, &error);
                sleep(EXHAUSTED_REST);
            }
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_that_lasts_is_told_now_and_then() {
        let (told_at, start) = (Cell::new(None), Instant::now());
        let told = (0..1_500).filter(|n| is_due(&told_at, start + EXHAUSTED_REST * *n)).count();
        assert_eq!(told, 3, "in half a minute");
    }
}
