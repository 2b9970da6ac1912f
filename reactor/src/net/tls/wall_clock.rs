//! The time by which certificates are judged and tickets grow old: a simulated world's, inside of one.
//!
//! rustls would ask the system, and a world of 2030 would judge by the day on which it is run: its run would not come
//! back, and break when the test's certificate has expired.

use std::time::UNIX_EPOCH;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// What [`crate::wall_clock`] shows on the thread that asks.
#[derive(Debug)]
pub(super) struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        crate::wall_clock().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}
