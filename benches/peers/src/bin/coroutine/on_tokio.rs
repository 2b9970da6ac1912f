//! The rows on tokio's current-thread runtime, with and without its I/O driver.

use crate::Rows;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

/// A runtime of tokio's. A `LocalSet`, whose tasks need not be `Send`, as ours, would cost more.
pub(crate) struct Tokio(Runtime);

impl Tokio {
    pub(crate) fn new(with_io: bool, with_time: bool) -> Self {
        let mut builder = Builder::new_current_thread();
        if with_time {
            builder.enable_time();
        }
        if with_io {
            builder.enable_all();
        }
        Self(builder.build().expect("the runtime starts"))
    }

    /// Runs `future` as a task, as everything in a server is.
    fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.0.block_on(async { tokio::spawn(future).await.expect("it does not panic") })
    }
}

impl Rows for Tokio {
    fn switch(&self, count: u64) -> Duration {
        let yields = count.div_ceil(2);
        self.run(async move {
            let begin = Instant::now();
            let both = [(); 2].map(|()| {
                tokio::spawn(async move {
                    for _ in 0..yields {
                        yield_now().await;
                    }
                })
            });
            for task in both {
                task.await.expect("it does not panic");
            }
            begin.elapsed()
        })
    }

    fn park_wake(&self, count: u64) -> Duration {
        let turns = count.div_ceil(2);
        self.run(async move {
            let (ping, pong) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let begin = Instant::now();
            let other = tokio::spawn({
                let (ping, pong) = (ping.clone(), pong.clone());
                async move {
                    for _ in 0..turns {
                        ping.notified().await;
                        pong.notify_one();
                    }
                }
            });
            let one = tokio::spawn(async move {
                for _ in 0..turns {
                    ping.notify_one();
                    pong.notified().await;
                }
            });
            one.await.expect("it does not panic");
            other.await.expect("it does not panic");
            begin.elapsed()
        })
    }

    fn spawn_join(&self, count: u64) -> Duration {
        self.run(async move {
            let begin = Instant::now();
            for _ in 0..count {
                tokio::spawn(async {}).await.expect("it does not panic");
            }
            begin.elapsed()
        })
    }

    fn channel(&self, count: u64) -> Duration {
        let turns = count.div_ceil(2);
        self.run(async move {
            let (ping_sender, mut ping_receiver) = mpsc::channel(1);
            let (pong_sender, mut pong_receiver) = mpsc::channel(1);
            let begin = Instant::now();
            let echo = tokio::spawn(async move {
                while let Some(value) = ping_receiver.recv().await {
                    pong_sender.send(value).await.expect("the other end lives");
                }
            });
            for turn in 0..turns {
                ping_sender.send(turn).await.expect("the echo lives");
                assert_eq!(pong_receiver.recv().await, Some(turn));
            }
            let elapsed = begin.elapsed();
            drop(ping_sender);
            echo.await.expect("it does not panic");
            elapsed
        })
    }

    fn mutex(&self, count: u64) -> Duration {
        self.run(async move {
            let mutex = Mutex::new(0u64);
            let begin = Instant::now();
            for _ in 0..count {
                *mutex.lock().await += 1;
            }
            begin.elapsed()
        })
    }

    fn mutex_handoff(&self, count: u64) -> Duration {
        let turns = count.div_ceil(2);
        self.run(async move {
            let mutex = Arc::new(Mutex::new(0u64));
            let begin = Instant::now();
            let both = [(); 2].map(|()| {
                let mutex = mutex.clone();
                tokio::spawn(async move {
                    for _ in 0..turns {
                        let mut held = mutex.lock().await;
                        *held += 1;
                        yield_now().await;
                    }
                })
            });
            for task in both {
                task.await.expect("it does not panic");
            }
            begin.elapsed()
        })
    }

    fn timer(&self, count: u64) -> Option<Duration> {
        Some(self.run(arm_and_cancel(count)))
    }

    fn timed_wait(&self, count: u64) -> Option<Duration> {
        const LIMIT: Duration = Duration::from_secs(30);
        let turns = count.div_ceil(2);
        Some(self.run(async move {
            let (ping, pong) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let begin = Instant::now();
            let other = tokio::spawn({
                let (ping, pong) = (ping.clone(), pong.clone());
                async move {
                    for _ in 0..turns {
                        timeout(LIMIT, ping.notified()).await.expect("it comes");
                        pong.notify_one();
                    }
                }
            });
            let one = tokio::spawn(async move {
                for _ in 0..turns {
                    ping.notify_one();
                    timeout(LIMIT, pong.notified()).await.expect("it comes");
                }
            });
            one.await.expect("it does not panic");
            other.await.expect("it does not panic");
            begin.elapsed()
        }))
    }

    fn with_parked(&self, count: u64, look: fn() -> u64) -> u64 {
        self.run(async move {
            let done = Arc::new(Notify::new());
            let parked: Vec<_> = (0..count)
                .map(|_| {
                    let done = done.clone();
                    tokio::spawn(async move { done.notified().await })
                })
                .collect();
            // They start after us: some turns of the queue let each come to its wait.
            for _ in 0..count {
                yield_now().await;
            }
            let seen = look();
            done.notify_waiters();
            for task in parked {
                task.await.expect("it does not panic");
            }
            seen
        })
    }
}

/// As `arm_and_cancel` in `benches/src/coroutine/timer.rs`: among 100,000 armed, while a hundred sleep 1 ms each.
async fn arm_and_cancel(count: u64) -> Duration {
    let over = Arc::new(AtomicBool::new(false));
    let mut crowd: Vec<_> = (0..100_000u64)
        .map(|member| {
            Box::pin(sleep(Duration::from_secs(60) + Duration::from_nanos(scatter(member) % 60_000_000_000)))
        })
        .collect();
    for member in &mut crowd {
        arm(member.as_mut()).await;
    }
    let sleepers: Vec<_> = (0..100)
        .map(|_| {
            let over = over.clone();
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();

    let begin = Instant::now();
    for operation in 0..count {
        let limit = Duration::from_nanos(30_000_000_000 + scatter(operation) % 60_000_000_000);
        arm(pin!(sleep(limit))).await;
        if operation % 100 == 0 {
            yield_now().await;
        }
    }
    let elapsed = begin.elapsed();

    over.store(true, Ordering::Relaxed);
    for sleeper in sleepers {
        sleeper.await.expect("it does not panic");
    }
    elapsed
}

/// Polls `timer` once, which is what arms it.
async fn arm(mut timer: std::pin::Pin<&mut tokio::time::Sleep>) {
    std::future::poll_fn(|context| {
        assert!(timer.as_mut().poll(context).is_pending(), "it is far away");
        Poll::Ready(())
    })
    .await;
}

fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
