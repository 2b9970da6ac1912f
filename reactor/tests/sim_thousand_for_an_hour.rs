//! A thousand coroutines that wake every second for a virtual hour (every ten where the code is not optimised): what
//! that costs in real time is printed.

use std::time::{Duration, Instant};

use reactor::sim::{self, SimConfig};
use reactor::{sleep, spawn};

/// Seconds between two wake-ups of one coroutine.
const PERIOD: u64 = if cfg!(debug_assertions) { 10 } else { 1 };

#[test]
fn a_thousand_coroutines_live_through_a_virtual_hour() {
    let began = Instant::now();
    let wake_ups = sim::run(1, SimConfig::default(), |world| {
        let children: Vec<_> = (0..1000u64)
            .map(|n| {
                spawn(move || {
                    sleep(Duration::from_millis(n));
                    let mut count = 0u64;
                    for _ in 0..3590 / PERIOD {
                        sleep(Duration::from_secs(PERIOD));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let sum: u64 = children.into_iter().map(|child| child.join().unwrap()).sum();
        assert_eq!(world.elapsed(), Duration::from_millis(3_590_999));
        sum
    });
    assert_eq!(wake_ups, 1000 * (3590 / PERIOD));
    let took = began.elapsed();
    println!("{wake_ups} wake-ups in {took:?}: {:?} each", took / wake_ups as u32);
}
