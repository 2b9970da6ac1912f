//! The way into the reactor for other OS threads: they submit work that runs as a coroutine, and wait for results.
//!
//! Values go in over [`crate::remote::channel`]; this is one such channel, of work, with a coroutine at its end that
//! spawns what comes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::time::Duration;

use crate::coroutine::{self, Builder, Cut, Payload, Terminated};
use crate::driver;
use crate::error::error_says;
use crate::remote;

/// Work that has been submitted and not yet been spawned: then `spawn` makes its thread wait. As much as the reactor
/// takes in at one go is enough, since it spawns faster than threads submit.
const PENDING_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// Submits work to the run that it was obtained in, from any thread.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// let answer = reactor::run(|| {
///     let handle = reactor::Handle::current();
///     let thread = std::thread::spawn(move || {
///         let task = handle.spawn(|| {
///             reactor::sleep(Duration::from_millis(1)); // a coroutine like any other
///             6 * 7
///         });
///         task.unwrap().wait()
///     });
///     reactor::offload(move || thread.join().unwrap())
/// });
/// assert_eq!(answer, Ok(42));
/// ```
#[derive(Clone)]
pub struct Handle {
    jobs: remote::Sender<Job>,
}

/// The run has ended, or will not take more: the work was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitError {
    /// The run has ended.
    Ended,
    /// 256 pieces of work wait already to be started.
    Full,
}

error_says!(SubmitError: |error, f| f.write_str(match error {
    SubmitError::Ended => "the run has ended",
    SubmitError::Full => "more work waits than the reactor takes on",
}));

/// Work under way, to a thread that waits for it. Dropped, the work goes on, and its panic ends nothing.
pub struct RemoteTask<T> {
    result: mpsc::Receiver<Result<T, Payload>>,
}

impl Handle {
    /// The handle of the run that the caller is a coroutine of. Never suspends.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`]; at the first call, when there is no stack for a coroutine.
    pub fn current() -> Handle {
        coroutine::current().group().handle(|| {
            let (jobs, inbox) = remote::channel::<Job>(PENDING_MAX);
            let dispatcher = Builder::new().name("work of other threads").span(tracing::Span::none());
            let spawned = dispatcher.spawn(move || {
                while let Some(job) = inbox.recv() {
                    // Refused for want of a stack: the job is dropped, and its thread learns of that.
                    if let Err(error) = Builder::new().name("another thread's work").spawn(job) {
                        tracing::error!("work of another thread was refused: {error}");
                    }
                }
            });
            match spawned {
                Ok(_detached) => Handle { jobs },
                Err(error) => panic!("{error}"),
            }
        })
    }

    /// Runs `f` as a coroutine, detached from all others; it ends with the run at the latest.
    ///
    /// Blocks the *thread* while more work waits to be started than the reactor takes on: not for coroutines.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Ended`]; `f` is dropped.
    ///
    /// # Panics
    ///
    /// On a reactor's thread, where all coroutines would wait.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<RemoteTask<T>, SubmitError> {
        assert!(!driver::is_here(), "a coroutine spawns with `reactor::spawn`, or `try_spawn`s here");
        let (job, task) = package(f);
        self.jobs.send(job).map_err(|_| SubmitError::Ended)?;
        Ok(task)
    }

    /// As [`Handle::spawn`], but never blocks: from any thread.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; `f` is dropped.
    pub fn try_spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<RemoteTask<T>, SubmitError> {
        let (job, task) = package(f);
        self.jobs.try_send(job).map_err(|error| match error {
            remote::TrySendError::Full(_) => SubmitError::Full,
            remote::TrySendError::Closed(_) => SubmitError::Ended,
        })?;
        Ok(task)
    }
}

fn package<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> (Job, RemoteTask<T>) {
    let (sender, result) = mpsc::sync_channel(1);
    let job = Box::new(move || match catch_unwind(AssertUnwindSafe(f)) {
        // Terminated with its run. The sender goes without a word, which tells the thread.
        Err(payload) if payload.is::<Cut>() => resume_unwind(payload),
        // There is room for one; nobody may listen any more.
        outcome => drop(sender.try_send(outcome)),
    });
    (job, RemoteTask { result })
}

impl<T> RemoteTask<T> {
    /// Waits for the result, blocking the *thread*: not for coroutines.
    ///
    /// # Errors
    ///
    /// [`Terminated`] if the run ended first, or had no stack for the work.
    ///
    /// # Panics
    ///
    /// With the work's own panic. On a reactor's thread.
    pub fn wait(self) -> Result<T, Terminated> {
        assert!(!driver::is_here(), "a coroutine that blocked its thread would hold up all others");
        settle(self.result.recv().map_err(|_| Terminated))
    }

    /// As [`RemoteTask::wait`], for `limit` at most: `None` when the time was over first.
    ///
    /// # Errors
    ///
    /// As [`RemoteTask::wait`].
    ///
    /// # Panics
    ///
    /// As [`RemoteTask::wait`].
    pub fn wait_timeout(&self, limit: Duration) -> Option<Result<T, Terminated>> {
        assert!(!driver::is_here(), "a coroutine that blocked its thread would hold up all others");
        match self.result.recv_timeout(limit) {
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            received => Some(settle(received.map_err(|_| Terminated))),
        }
    }

    /// The result if it is there, once. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`RemoteTask::wait`].
    ///
    /// # Panics
    ///
    /// With the work's own panic.
    pub fn poll(&self) -> Option<Result<T, Terminated>> {
        match self.result.try_recv() {
            Err(mpsc::TryRecvError::Empty) => None,
            received => Some(settle(received.map_err(|_| Terminated))),
        }
    }
}

fn settle<T>(received: Result<Result<T, Payload>, Terminated>) -> Result<T, Terminated> {
    match received? {
        Ok(value) => Ok(value),
        Err(payload) => resume_unwind(payload),
    }
}
