//! The thread that tells the kernel what of its caches is stale.
//!
//! Why a thread: the kernel takes a notification only once it holds the pages in question, and one of them may be
//! locked by a read that the reactor's thread has yet to answer. On that thread it would wait for ever.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::time::Duration;

use super::reply::Notification;

/// Notifications that may wait; more make the caller wait.
const QUEUE_MAX: usize = 1024;

/// How long a caller waits before it looks at a full queue again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Tells the kernel what is stale; the thread behind it ends with the last clone.
#[derive(Debug, Clone)]
pub struct Notifier {
    queue: SyncSender<Notification>,
    /// How many are queued, or being written.
    waiting: Arc<AtomicU64>,
}

impl Notifier {
    pub(super) fn start(device: OwnedFd) -> io::Result<Notifier> {
        let (queue, notifications) = mpsc::sync_channel::<Notification>(QUEUE_MAX);
        let waiting = Arc::new(AtomicU64::new(0));
        let left = waiting.clone();
        std::thread::Builder::new().name("fuse-notify".into()).spawn(move || {
            let mut file = File::from(device);
            for notification in notifications {
                // Every error means that there is nothing to forget: the inode isn't cached, or all is unmounted.
                if let Err(error) = file.write_all(&notification.to_bytes()) {
                    tracing::trace!("notification {notification:?}: {error}");
                }
                left.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok(Notifier { queue, waiting })
    }

    /// Whether the kernel has been told everything.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Queues a notification.
    ///
    /// # Suspends
    ///
    /// While the queue is full.
    pub fn notify(&self, mut notification: Notification) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        loop {
            match self.queue.try_send(notification) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => {
                    notification = back;
                    reactor::sleep(FULL_PAUSE);
                }
            }
        }
    }
}
