//! Timers that mostly do not fire, as in a server whose every wait has a limit.
//!
//! 100,000 stay armed meanwhile, a minute away and more. A hundred sleepers of 1 ms come and go: where arming and
//! cancelling takes 100 ns, one firing to a hundred operations.

use reactor::sync::Signal;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Timers armed all the time, in as many coroutines, each with as many one inside the other.
const CROWD_COROUTINES: u64 = 2_000;
const CROWD_TIMERS_EACH: u64 = 50;

/// Who fires meanwhile, each once a millisecond.
const SLEEPERS: usize = 100;

/// Operations between two looks at what else wants to run, here and in the peers.
const OPERATIONS_PER_YIELD: u64 = 100;

/// Arms a timer and cancels it, `count` times.
pub(super) fn arm_and_cancel(count: u64) -> Duration {
    let done = Rc::new(Signal::new());
    let over = Rc::new(Cell::new(false));
    let crowd = (0..CROWD_COROUTINES).map(|member| {
        let done = Rc::clone(&done);
        reactor::spawn(move || nest(member, CROWD_TIMERS_EACH, &done))
    });
    let crowd: Vec<_> = crowd.collect();
    let sleepers = (0..SLEEPERS).map(|_| {
        let over = Rc::clone(&over);
        reactor::spawn(move || {
            while !over.get() {
                reactor::sleep(Duration::from_millis(1));
            }
        })
    });
    let sleepers: Vec<_> = sleepers.collect();

    let begin = Instant::now();
    for operation in 0..count {
        let limit = Duration::from_nanos(30_000_000_000 + scatter(operation) % 60_000_000_000);
        reactor::timeout(limit, || ()).expect("it takes no time");
        if operation % OPERATIONS_PER_YIELD == 0 {
            reactor::yield_now();
        }
    }
    let elapsed = begin.elapsed();

    over.set(true);
    done.notify_all();
    crowd.into_iter().chain(sleepers).for_each(|handle| handle.join().expect("nobody terminates it"));
    elapsed
}

/// Waits for `done` within `depth` timeouts, one inside the other.
fn nest(member: u64, depth: u64, done: &Signal) {
    if depth == 0 {
        return done.wait();
    }
    let scattered = scatter(member * CROWD_TIMERS_EACH + depth);
    let limit = Duration::from_secs(60) + Duration::from_nanos(scattered % 60_000_000_000);
    reactor::timeout(limit, || nest(member, depth - 1, done)).expect("it is over before");
}

/// Spreads numbers evenly (Steele, Lea & Flood 2014: the mixing of SplitMix64).
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Two coroutines wake each other in turn, `count` wake-ups in all, each waited for with a timeout.
pub(super) fn timed_wait(count: u64) -> Duration {
    const LIMIT: Duration = Duration::from_secs(30);
    let turns = count.div_ceil(2);
    let (ping, pong) = (Signal::new(), Signal::new());
    let begin = Instant::now();
    reactor::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..turns {
                reactor::timeout(LIMIT, || ping.wait()).expect("it comes");
                pong.notify_one();
            }
        });
        scope.spawn(|| {
            for _ in 0..turns {
                ping.notify_one();
                reactor::timeout(LIMIT, || pong.wait()).expect("it comes");
            }
        });
    });
    begin.elapsed()
}
