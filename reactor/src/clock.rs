//! The time that coroutines see: the system's, or in a simulation ([`crate::sim`]) the world's.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

use crate::sim;

/// A time of a simulated world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Virtual {
    /// The world's instant.
    pub(crate) now: Instant,
    /// What has passed since the world began.
    pub(crate) elapsed: Duration,
}

/// What the wall clocks of a simulation show when it begins: 2030-01-01 00:00 UTC, in seconds since 1970.
const VIRTUAL_EPOCH_SECONDS: u64 = 1_893_456_000;

thread_local! {
    /// Set while the code of a simulated coroutine runs, and only then: so the question costs others one load.
    static VIRTUAL: Cell<Option<Virtual>> = const { Cell::new(None) };
}

/// The present instant, monotonic. Never suspends.
///
/// Code that decides by time takes it from here, or better as an argument, and not from the system: so it can
/// run under another clock.
#[inline]
pub fn now() -> Instant {
    match VIRTUAL.get() {
        None => Instant::now(),
        Some(time) => time.now,
    }
}

/// How long this machine has slept since it was started, in whole seconds: time that [`now`] does not count. In a simulation nobody
/// sleeps. Never suspends.
///
/// By `now` goes who waits for others: while the machine slept it heard nobody, which says nothing of them. What others decide
/// meanwhile, as that a lease is over, and what people are told of a span of time, counts the sleep: `now() + slept()`.
pub fn slept() -> Duration {
    if is_virtual() {
        return Duration::ZERO;
    }
    let nanoseconds = |clock| {
        let time = rustix::time::clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    let boot = nanoseconds(rustix::time::ClockId::Boottime);
    let slept = boot - nanoseconds(rustix::time::ClockId::Monotonic);
    // The two cannot be read at once: a moment between them is no sleep.
    Duration::from_secs(u64::try_from((slept + 500_000_000) / 1_000_000_000).unwrap_or(0))
}

/// What stands for "for ever" where a time has to be named: no process runs so long, and it can be added to any instant.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The instant `duration` from now, or one that never comes where there is none so late.
pub(crate) fn deadline_after(duration: Duration) -> Instant {
    let now = now();
    now.checked_add(duration).unwrap_or_else(|| now + FOR_EVER)
}

/// What the calendar on the wall shows: for expiry dates and headers, not for measuring. Never suspends.
pub fn wall_clock() -> SystemTime {
    if is_virtual() { virtual_wall_clock() } else { SystemTime::now() }
}

/// The calendar as the kernel stamps files with it, some milliseconds coarse: a stamp that is to be compared with those
/// of local files comes from here, for [`wall_clock`] runs ahead of them. Never suspends.
pub fn file_clock() -> SystemTime {
    if is_virtual() {
        return virtual_wall_clock();
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let since = Duration::new(now.tv_sec.unsigned_abs(), 0);
    let second = match now.tv_sec {
        0.. => SystemTime::UNIX_EPOCH + since,
        _ => SystemTime::UNIX_EPOCH - since,
    };
    // The nanoseconds count upward from the second, before 1970 too.
    second + Duration::from_nanos(now.tv_nsec.unsigned_abs())
}

fn virtual_wall_clock() -> SystemTime {
    let elapsed = VIRTUAL.get().map_or(Duration::ZERO, |time| time.elapsed);
    let shown = SystemTime::UNIX_EPOCH + Duration::from_secs(VIRTUAL_EPOCH_SECONDS) + elapsed;
    match sim::here().map(|process| process.clock_jump()) {
        Some((jump, true)) => shown - jump,
        Some((jump, false)) => shown + jump,
        None => shown,
    }
}

/// Whether the code that runs is a simulated coroutine's.
#[inline]
pub(crate) fn is_virtual() -> bool {
    VIRTUAL.get().is_some()
}

pub(crate) fn set_virtual(time: Option<Virtual>) {
    VIRTUAL.set(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_slept_does_not_grow_while_it_is_awake() {
        let before = slept();
        std::thread::sleep(Duration::from_millis(20));
        // Rounded; and whoever suspends this machine just now is forgiven.
        assert!(slept() <= before + Duration::from_secs(1));
    }

    #[test]
    fn the_clock_that_stamps_files_is_at_most_a_few_milliseconds_behind_the_wall_clock() {
        let (before, stamp) = (wall_clock(), file_clock());
        // A tick is 10 ms at the most; a clock set back in between is no fault of ours.
        assert!(stamp + Duration::from_secs(1) > before);
        assert!(stamp <= wall_clock() + Duration::from_secs(1));
    }
}
