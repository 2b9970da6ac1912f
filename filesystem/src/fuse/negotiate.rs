//! What we and the kernel agree on at INIT: pure.

use super::abi::{self, init_flags as flag};
use super::reply::Agreement;
use super::request::Init;

/// The largest write, and read: what 256 pages hold, the kernel's own limit (`fs.fuse.max_pages_limit`).
pub const WRITE_BYTES_MAX: u32 = 1 << 20;

/// [`WRITE_BYTES_MAX`] in pages of 4 KiB.
const PAGES_MAX: u16 = 256;

/// Requests that nobody waits for (read-ahead, write-back) and that may be under way at once: 32 of 1 MiB are as much
/// as write-back may hold in this process.
const BACKGROUND_MAX: u16 = 32;

/// What we want of whatever the kernel offers.
///
/// Not wanted, each for a reason: `ATOMIC_O_TRUNC` (an OPEN that is never sent would carry it); `POSIX_LOCKS` and
/// `FLOCK_LOCKS` (the kernel keeps locks itself, per mount); `POSIX_ACL` (nobody would obey them);
/// `AUTO_INVAL_DATA` and `EXPLICIT_INVAL_DATA` (we own size and times under the write-back cache); the `SPLICE`s
/// (our buffers are in memory anyway); `DONT_MASK` (the kernel knows umasks best); `SECURITY_CTX` (no labels).
const WANTED: u64 = flag::ASYNC_READ
    | flag::BIG_WRITES
    | flag::DO_READDIRPLUS
    | flag::READDIRPLUS_AUTO
    | flag::ASYNC_DIO
    | flag::WRITEBACK_CACHE
    | flag::NO_OPEN_SUPPORT
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
///
/// Without `write_back` every write is passed on at once. Under it the kernel alone knows the size and the times of what
/// it caches and takes no other word for them, so it must not be asked for where others write too.
pub fn negotiate(init: &Init, write_back: bool) -> Negotiation {
    let wanted = if write_back { WANTED } else { WANTED & !flag::WRITEBACK_CACHE };
    let agreement = Agreement {
        minor: init.minor.min(abi::KERNEL_MINOR_VERSION_MAX),
        flags: init.flags & wanted,
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
        let Negotiation::Agreed(agreement) = negotiate(&init(7, 31, flag::ASYNC_READ | 1 << 20), true) else {
            panic!("7.31 is served")
        };
        assert_eq!((agreement.minor, agreement.flags), (31, flag::ASYNC_READ));
        assert_eq!(u64::from(agreement.pages_max) * 4096, u64::from(agreement.write_bytes_max));
    }

    #[test]
    fn a_newer_minor_comes_down_to_ours_and_a_newer_major_asks_again() {
        let Negotiation::Agreed(agreement) = negotiate(&init(7, 99, u64::MAX), true) else {
            panic!("served")
        };
        assert_eq!((agreement.minor, agreement.flags), (abi::KERNEL_MINOR_VERSION_MAX, WANTED));
        assert!(matches!(negotiate(&init(8, 0, 0), true), Negotiation::AskAgain(_)));
    }

    #[test]
    fn where_others_write_too_the_kernel_writes_through() {
        let Negotiation::Agreed(agreement) = negotiate(&init(7, 40, u64::MAX), false) else {
            panic!("served")
        };
        assert_eq!(agreement.flags, WANTED & !flag::WRITEBACK_CACHE);
    }

    #[test]
    fn kernels_before_5_4_are_refused() {
        assert_eq!(negotiate(&init(7, 30, u64::MAX), true), Negotiation::TooOld);
        assert_eq!(negotiate(&init(6, 40, u64::MAX), true), Negotiation::TooOld);
    }
}
