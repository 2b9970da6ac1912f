//! What we and the kernel agree on at INIT: pure.

use super::abi::{self, init_flags as flag};
use super::reply::Agreement;
use super::request::Init;

/// The largest write, and read: what 256 pages hold, the kernel's own limit (`fs.fuse.max_pages_limit`).
pub const WRITE_BYTES_MAX: u32 = 1 << 20;

/// [`WRITE_BYTES_MAX`] in pages of 4 KiB.
const PAGES_MAX: u16 = 256;

/// Requests that nobody waits for (read-ahead, pages changed through `mmap`) and that may be under way at once: 32 of
/// 1 MiB are as much as they may hold in this process.
const BACKGROUND_MAX: u16 = 32;

/// What we want of whatever the kernel offers.
///
/// Not wanted, each for a reason:
///
/// - `WRITEBACK_CACHE`. Under it the kernel alone knows a file's size, times and newest bytes, and takes no other word
///   for them. Then another mount's changes are never seen, `lseek` finds holes where data waits to be written, a close
///   and a full disk have nothing to tell, two clocks stamp one file, and none of it can be taken back while mounted. So
///   every write is passed on at once; pages still serve reads, and 1 MiB travels in one request.
/// - `NO_OPEN_SUPPORT`: an open looks for others' changes, and a close stores ours (see [`Sharing`]).
/// - `ATOMIC_O_TRUNC`: `O_TRUNC` comes as a SETATTR of its own, which is one thing less that an open can be.
/// - `AUTO_INVAL_DATA` would drop a file's pages after each write of our own; `EXPLICIT_INVAL_DATA` would show zeros where
///   another mount appended, between the new size and our notification. Without either a changed size drops them.
/// - `POSIX_LOCKS`, `FLOCK_LOCKS` (the kernel keeps locks itself, per mount); the `SPLICE`s (our buffers are in memory
///   anyway); `SECURITY_CTX` (no labels).
///
/// [`Sharing`]: crate::operations::Sharing
const WANTED: u64 = flag::ASYNC_READ
    | flag::EXPORT_SUPPORT
    | flag::DONT_MASK
    | flag::POSIX_ACL
    | flag::BIG_WRITES
    | flag::DO_READDIRPLUS
    | flag::READDIRPLUS_AUTO
    | flag::ASYNC_DIO
    | flag::PARALLEL_DIROPS
    | flag::ABORT_ERROR
    | flag::MAX_PAGES
    | flag::CACHE_SYMLINKS
    | flag::NO_OPENDIR_SUPPORT
    | flag::HANDLE_KILLPRIV_V2
    | flag::INIT_EXT;

/// How to go on after an INIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negotiation {
    /// Answer this; the session has begun.
    Agreed(Agreement),
    /// The kernel speaks a newer major version: answer with ours, and it will ask again.
    AskAgain(Agreement),
    /// The kernel is older than Linux 5.4: there is no common ground.
    TooOld,
}

/// Decides what to answer to `init`.
pub fn negotiate(init: &Init) -> Negotiation {
    let agreement = Agreement {
        minor: init.minor.min(abi::KERNEL_MINOR_VERSION_MAX),
        flags: init.flags & WANTED,
        readahead_bytes_max: init.readahead_bytes_max.max(WRITE_BYTES_MAX),
        write_bytes_max: WRITE_BYTES_MAX,
        pages_max: PAGES_MAX,
        background_max: BACKGROUND_MAX,
    };
    match (init.major, init.minor) {
        (major, _) if major > abi::KERNEL_VERSION => {
            Negotiation::AskAgain(Agreement { minor: abi::KERNEL_MINOR_VERSION_MAX, ..agreement })
        }
        (abi::KERNEL_VERSION, minor) if minor >= abi::KERNEL_MINOR_VERSION_MIN => {
            Negotiation::Agreed(agreement)
        }
        _ => Negotiation::TooOld,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(major: u32, minor: u32, flags: u64) -> Init {
        Init { major, minor, readahead_bytes_max: 128 << 10, flags }
    }

    #[test]
    fn nothing_is_agreed_that_the_kernel_does_not_offer() {
        let Negotiation::Agreed(agreement) = negotiate(&init(7, 31, flag::ASYNC_READ | 1 << 9)) else {
            panic!("7.31 is served")
        };
        assert_eq!((agreement.minor, agreement.flags), (31, flag::ASYNC_READ));
        assert_eq!(u64::from(agreement.pages_max) * 4096, u64::from(agreement.write_bytes_max));
    }

    #[test]
    fn a_newer_minor_comes_down_to_ours_and_a_newer_major_asks_again() {
        let Negotiation::Agreed(agreement) = negotiate(&init(7, 99, u64::MAX)) else { panic!("served") };
        assert_eq!((agreement.minor, agreement.flags), (abi::KERNEL_MINOR_VERSION_MAX, WANTED));
        assert!(matches!(negotiate(&init(8, 0, 0)), Negotiation::AskAgain(_)));
    }

    #[test]
    fn the_kernel_never_gathers_writes() {
        let write_back_cache = 1 << 16;
        let Negotiation::Agreed(agreement) = negotiate(&init(7, 40, u64::MAX)) else { panic!("served") };
        assert_eq!(agreement.flags & write_back_cache, 0);
    }

    #[test]
    fn kernels_before_5_4_are_refused() {
        assert_eq!(negotiate(&init(7, 30, u64::MAX)), Negotiation::TooOld);
        assert_eq!(negotiate(&init(6, 40, u64::MAX)), Negotiation::TooOld);
    }
}
