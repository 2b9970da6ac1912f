//! The rows on may's own scheduler: one worker, its default stacks.

use crate::Rows;
use may::coroutine::{self, JoinHandle};
use may::go;
use may::sync::Mutex;
use may::sync::mpsc::channel;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// may with one worker.
pub(crate) struct May;

impl May {
    pub(crate) fn new() -> Self {
        may::config().set_workers(1);
        Self
    }
}

/// Runs `f` as a coroutine and waits for it on this thread.
fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    go!(f).join().expect("it does not panic")
}

fn join(handle: JoinHandle<()>) {
    handle.join().expect("it does not panic");
}

impl Rows for May {
    fn switch(&self, count: u64) -> Duration {
        let yields = count.div_ceil(2);
        run(move || {
            let begin = Instant::now();
            let both = [(); 2].map(|()| go!(move || (0..yields).for_each(|_| coroutine::yield_now())));
            both.into_iter().for_each(join);
            begin.elapsed()
        })
    }

    fn park_wake(&self, count: u64) -> Duration {
        let turns = count.div_ceil(2);
        run(move || {
            let begin = Instant::now();
            let main = coroutine::current();
            let other = go!(move || {
                for _ in 0..turns {
                    coroutine::park();
                    main.unpark();
                }
            });
            // A wake-up that comes before its park is remembered.
            for _ in 0..turns {
                other.coroutine().unpark();
                coroutine::park();
            }
            join(other);
            begin.elapsed()
        })
    }

    fn spawn_join(&self, count: u64) -> Duration {
        run(move || {
            let begin = Instant::now();
            for _ in 0..count {
                join(go!(|| ()));
            }
            begin.elapsed()
        })
    }

    fn channel(&self, count: u64) -> Duration {
        let turns = count.div_ceil(2);
        run(move || {
            let (ping_sender, ping_receiver) = channel();
            let (pong_sender, pong_receiver) = channel();
            let begin = Instant::now();
            let echo = go!(move || {
                while let Ok(value) = ping_receiver.recv() {
                    pong_sender.send(value).expect("the other end lives");
                }
            });
            for turn in 0..turns {
                ping_sender.send(turn).expect("the echo lives");
                assert_eq!(pong_receiver.recv(), Ok(turn));
            }
            let elapsed = begin.elapsed();
            drop(ping_sender);
            join(echo);
            elapsed
        })
    }

    fn mutex(&self, count: u64) -> Duration {
        run(move || {
            let mutex = Mutex::new(0u64);
            let begin = Instant::now();
            for _ in 0..count {
                *mutex.lock().expect("nobody panics") += 1;
            }
            begin.elapsed()
        })
    }

    fn mutex_handoff(&self, count: u64) -> Duration {
        let turns = count.div_ceil(2);
        run(move || {
            let mutex = Arc::new(Mutex::new(0u64));
            let begin = Instant::now();
            let both = [(); 2].map(|()| {
                let mutex = mutex.clone();
                go!(move || {
                    for _ in 0..turns {
                        let mut held = mutex.lock().expect("nobody panics");
                        *held += 1;
                        coroutine::yield_now();
                    }
                })
            });
            both.into_iter().for_each(join);
            begin.elapsed()
        })
    }

    /// Its timers belong to a coroutine that waits: 100,000 of them would need 100,000 stacks.
    fn timer(&self, _: u64) -> Option<Duration> {
        None
    }

    fn timed_wait(&self, count: u64) -> Option<Duration> {
        const LIMIT: Duration = Duration::from_secs(30);
        let turns = count.div_ceil(2);
        Some(run(move || {
            let begin = Instant::now();
            let main = coroutine::current();
            let other = go!(move || {
                for _ in 0..turns {
                    coroutine::park_timeout(LIMIT);
                    main.unpark();
                }
            });
            for _ in 0..turns {
                other.coroutine().unpark();
                coroutine::park_timeout(LIMIT);
            }
            join(other);
            begin.elapsed()
        }))
    }

    fn with_parked(&self, count: u64, look: fn() -> u64) -> u64 {
        run(move || {
            let parked: Vec<_> = (0..count).map(|_| go!(coroutine::park)).collect();
            // They start after us: one turn of the queue lets each come to its park.
            coroutine::yield_now();
            coroutine::sleep(Duration::from_millis(100));
            let seen = look();
            parked.iter().for_each(|handle| handle.coroutine().unpark());
            parked.into_iter().for_each(join);
            seen
        })
    }
}
