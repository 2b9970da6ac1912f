//! A thousand coroutines that wake every second for a virtual hour: what that costs in real time is printed.

use std::time::{Duration, Instant};

use reactor::sim::{self, SimConfig};
use reactor::{sleep, spawn};

#[test]
fn a_thousand_coroutines_live_through_a_virtual_hour() {
    let began = Instant::now();
    let wake_ups = sim::run(1, SimConfig::default(), |world| {
        let children: Vec<_> = (0..1000u64)
            .map(|n| {
                spawn(move || {
                    sleep(Duration::from_millis(n));
                    let mut count = 0u64;
                    for _ in 0..3599 {
                        sleep(Duration::from_secs(1));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let sum: u64 = children.into_iter().map(|child| child.join().unwrap()).sum();
        assert!(world.elapsed() >= Duration::from_secs(3599) && world.elapsed() < Duration::from_secs(3601));
        sum
    });
    assert_eq!(wake_ups, 3_599_000);
    let took = began.elapsed();
    println!("{wake_ups} wake-ups in {took:?}: {:?} each", took / wake_ups as u32);
}
