//! The rows on tokio's current-thread runtime, with and without its I/O driver.

use crate::Rows;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc};
use tokio::task::yield_now;

/// A runtime of tokio's. A `LocalSet`, whose tasks need not be `Send`, as ours, would cost more.
pub(crate) struct Tokio(Runtime);

impl Tokio {
    pub(crate) fn new(with_io: bool) -> Self {
        let mut builder = Builder::new_current_thread();
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
