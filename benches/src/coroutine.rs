//! What a coroutine costs: the work that the Criterion bench and the comparison both run.
//!
//! Each function does something `count` times inside `reactor::run` and returns how long that took, starting the
//! reactor and warming up left out. The peers' program (`peers/src/bin/coroutine`) does the same in the same
//! words on may and on tokio.

pub mod memory;
mod timer;

use reactor::sync::{Mutex, Signal, channel};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Two coroutines yield to each other; the time of one switch.
    Switch,
    /// Two coroutines wake each other and park; the time from one to the other.
    ParkWake,
    /// One coroutine spawns another that does nothing, and joins it.
    SpawnJoin,
    /// Two coroutines pass a number back and forth over two channels of capacity 1; the time of one message.
    Channel,
    /// One coroutine locks a mutex that nobody else wants, and unlocks it.
    Mutex,
    /// Two coroutines hold a mutex in turn, each across a yield, so that each lock has to wait for the other.
    MutexHandoff,
    /// Arms a timer and cancels it, among 100,000 armed ones, while others fire.
    Timer,
    /// As [`Row::ParkWake`], but each waits with a timeout of 30 s.
    TimedWait,
    /// Resident memory of one coroutine that is parked.
    ParkedMemory,
}

impl Row {
    /// All rows, in the order of the table.
    pub const ALL: [Row; 9] = [
        Row::Switch,
        Row::ParkWake,
        Row::SpawnJoin,
        Row::Channel,
        Row::Mutex,
        Row::MutexHandoff,
        Row::Timer,
        Row::TimedWait,
        Row::ParkedMemory,
    ];

    /// Returns the name that stands in tables and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Row::Switch => "switch",
            Row::ParkWake => "park-wake",
            Row::SpawnJoin => "spawn-join",
            Row::Channel => "channel",
            Row::Mutex => "mutex",
            Row::MutexHandoff => "mutex-handoff",
            Row::Timer => "timer",
            Row::TimedWait => "timed-wait",
            Row::ParkedMemory => "parked-memory",
        }
    }

    /// Returns the row of this name.
    pub fn of_name(name: &str) -> Option<Row> {
        Row::ALL.into_iter().find(|row| row.name() == name)
    }

    /// Returns what its figure counts.
    pub fn unit(self) -> &'static str {
        match self {
            Row::ParkedMemory => "B",
            _ => "ns",
        }
    }

    /// Returns the most that this project allows itself, if it said so.
    pub fn goal(self) -> Option<f64> {
        match self {
            Row::Switch => Some(200.0),
            Row::SpawnJoin => Some(1000.0),
            Row::ParkedMemory => Some(8.5 * 1024.0),
            Row::Timer => Some(100.0),
            Row::ParkWake | Row::Channel | Row::Mutex | Row::MutexHandoff | Row::TimedWait => None,
        }
    }

    /// Runs the row `count` times and returns the figure of one, in its unit.
    ///
    /// # Panics
    /// Panics where /proc/self/smaps_rollup cannot be read, for the memory.
    pub fn measure(self, count: u64) -> f64 {
        if self == Row::ParkedMemory {
            return memory::bytes_per_parked(count);
        }
        self.time(count / 10 + 1);
        self.time(count).as_nanos() as f64 / count as f64
    }

    /// Returns how long `count` operations of this row take.
    ///
    /// # Panics
    /// Panics for [`Row::ParkedMemory`], which takes memory and no time.
    pub fn time(self, count: u64) -> Duration {
        match self {
            Row::Switch => reactor::run(move || switch(count)),
            Row::ParkWake => reactor::run(move || park_wake(count)),
            Row::SpawnJoin => reactor::run(move || spawn_join(count)),
            Row::Channel => reactor::run(move || channel_ping_pong(count)),
            Row::Mutex => reactor::run(move || mutex(count)),
            Row::MutexHandoff => reactor::run(move || mutex_handoff(count)),
            Row::Timer => reactor::run(move || timer::arm_and_cancel(count)),
            Row::TimedWait => reactor::run(move || timer::timed_wait(count)),
            Row::ParkedMemory => panic!("memory is not a time"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Two coroutines yield until there have been `count` switches.
fn switch(count: u64) -> Duration {
    let yields = count.div_ceil(2);
    let begin = Instant::now();
    reactor::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..yields).for_each(|_| reactor::yield_now()));
        }
    });
    begin.elapsed()
}

/// Two coroutines wake each other in turn, `count` wake-ups in all.
fn park_wake(count: u64) -> Duration {
    let turns = count.div_ceil(2);
    let (ping, pong) = (Signal::new(), Signal::new());
    let begin = Instant::now();
    reactor::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..turns {
                ping.wait();
                pong.notify_one();
            }
        });
        scope.spawn(|| {
            for _ in 0..turns {
                ping.notify_one();
                pong.wait();
            }
        });
    });
    begin.elapsed()
}

fn spawn_join(count: u64) -> Duration {
    let begin = Instant::now();
    for _ in 0..count {
        reactor::spawn(|| ()).join().expect("nobody terminates it");
    }
    begin.elapsed()
}

/// A number goes back and forth until there have been `count` messages.
fn channel_ping_pong(count: u64) -> Duration {
    let turns = count.div_ceil(2);
    let (ping_sender, ping_receiver) = channel(1);
    let (pong_sender, pong_receiver) = channel(1);
    let begin = Instant::now();
    let echo = reactor::spawn(move || {
        while let Ok(value) = ping_receiver.recv() {
            if pong_sender.send(value).is_err() {
                break;
            }
        }
    });
    for turn in 0..turns {
        ping_sender.send(turn).expect("the echo lives");
        assert_eq!(pong_receiver.recv().ok(), Some(turn));
    }
    let elapsed = begin.elapsed();
    drop(ping_sender);
    echo.join().expect("nobody terminates it");
    elapsed
}

fn mutex(count: u64) -> Duration {
    let mutex = Mutex::new(0u64);
    let begin = Instant::now();
    for _ in 0..count {
        *mutex.lock() += 1;
    }
    let elapsed = begin.elapsed();
    assert_eq!(mutex.into_inner(), count);
    elapsed
}

/// Two coroutines take turns with a mutex, `count` turns in all.
fn mutex_handoff(count: u64) -> Duration {
    let turns = count.div_ceil(2);
    let mutex = Mutex::new(0u64);
    let begin = Instant::now();
    reactor::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..turns {
                    let mut held = mutex.lock();
                    *held += 1;
                    // The other one comes to its lock now.
                    reactor::yield_now();
                }
            });
        }
    });
    begin.elapsed()
}

/// Spawns `count` coroutines that park, runs `look`, and lets them end.
fn with_parked<T: Send>(count: u64, look: impl FnOnce() -> T + Send) -> T {
    reactor::run(move || {
        let done = Rc::new(Signal::new());
        let parked: Vec<_> = (0..count)
            .map(|_| {
                let done = Rc::clone(&done);
                reactor::spawn(move || done.wait())
            })
            .collect();
        let seen = look();
        done.notify_all();
        parked.into_iter().for_each(|handle| handle.join().expect("nobody terminates it"));
        seen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_runs_and_has_a_name() {
        for row in Row::ALL {
            assert_eq!(Row::of_name(row.name()), Some(row));
            assert!(row.measure(10) >= 0.0, "{row}");
        }
    }
}
