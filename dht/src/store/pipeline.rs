//! Between coroutines and the writer's thread: what is under way, the thread's loop, and the coroutine that takes its
//! reports.
//!
//! Reports come in the order of the writes, so what is under way is a plain queue.

use super::{
    StoreError, format,
    log::Log,
    pipes::{Pipes, ReportReceiver},
    scan::Listed,
    ticket::Completion,
    writer::{Epoch, Writer},
};
use reactor::cell::RefCell;
use reactor::sync::{Barrier, Semaphore};
use std::{
    cell::Cell,
    collections::VecDeque,
    rc::{Rc, Weak},
    time::Duration,
};

/// How many bytes may wait to be written before `enqueue` suspends: four full groups.
pub(crate) const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Those whose writes have just been reported mostly write again at once. Waiting for them lets all writers share one
/// group; without it they fall into two that take turns, each waiting through the other's sync, at half the rate. It
/// goes on while one more comes at least every so often, measured as this part of what the last sync took; never for
/// longer than that sync, and not at all once as many wait as did before.
const GATHER_PART: u32 = 4;
/// The longest wait for one more.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// How often it is looked whether all are there.
const GATHER_STEP: Duration = Duration::from_micros(20);

/// Writes that the writer has not reported on. Apart from `Log`, because tickets outlive a dropped store.
pub(crate) struct InFlight {
    pub(crate) writes: RefCell<VecDeque<Sent>>,
    /// How many failures have been reported.
    pub(crate) epoch: Cell<Epoch>,
    /// The last of them.
    pub(crate) failure: RefCell<Option<StoreError>>,
    /// Why nothing can be written at present.
    pub(crate) failed: RefCell<Option<StoreError>>,
    /// How much of the space that is kept back is given up.
    pub(crate) reserve_missing_bytes: Cell<u64>,
    /// Whether a write was refused for want of space since there last was enough.
    pub(crate) was_full: Cell<bool>,
    /// Room in the queue, in bytes.
    pub(crate) room: Semaphore,
    /// Bytes of all these writes.
    pub(crate) bytes: Cell<u64>,
    /// Opens when the writer has ended, or nobody hears of it any more.
    pub(crate) finished: Barrier,
}

pub(crate) struct Sent {
    pub(crate) listed: Listed,
    pub(crate) is_copy: bool,
    pub(crate) completion: Rc<Completion>,
}

impl Sent {
    pub(crate) fn bytes(&self) -> usize {
        format::record_bytes(self.listed.length)
    }
}

/// The writer's thread: writes group after group until the queue is closed and empty.
pub(crate) fn run_writer(mut writer: Writer, pipes: &impl Pipes) {
    let mut waiting = VecDeque::new();
    let (mut expected_count, mut sync_time) = (0, Duration::ZERO);
    loop {
        if waiting.is_empty() {
            match pipes.next() {
                Some(write) => waiting.push_back(write),
                None => break,
            }
        }
        // Bounded by the queue's room in bytes.
        pipes.take_all(&mut waiting);
        let grace = (sync_time / GATHER_PART).min(GATHER_MAX);
        let begun = reactor::now();
        let mut came = begun;
        while waiting.len() < expected_count
            && reactor::now() < (came + grace).min(begun + sync_time.max(grace))
        {
            pipes.pause(GATHER_STEP);
            let count = waiting.len();
            pipes.take_all(&mut waiting);
            if waiting.len() > count {
                came = reactor::now();
            }
        }
        let start = reactor::now();
        let report = writer.commit(&mut waiting);
        sync_time = reactor::now() - start;
        // Counted before the report goes out: those who hear of it may be back before we look again.
        expected_count = report.results.len() + waiting.len() + pipes.count();
        pipes.report(report);
        if waiting.is_empty() && pipes.count() == 0 {
            writer.mark();
        }
    }
    writer.finish();
}

/// The coroutine that moves the index on and completes tickets, until the writer has ended.
pub(crate) fn receive_reports(reports: &ReportReceiver, in_flight: &InFlight, weak: &Weak<Log>) {
    let _end = End(in_flight);
    while let Some(report) = reports.recv() {
        let log = weak.upgrade();
        in_flight.epoch.set(report.epoch);
        *in_flight.failed.borrow_mut() = report.failed;
        in_flight.reserve_missing_bytes.set(report.reserve_missing_bytes);
        if let Some(log) = &log {
            for (segment, file) in report.begun {
                log.index.borrow_mut().on_segment(segment);
                log.keep_file(segment, file);
            }
        }
        for result in report.results {
            let sent = in_flight.writes.borrow_mut().pop_front();
            let Some(sent) = sent else { continue };
            if let Some(log) = &log {
                log.on_result(&sent, result.as_ref().ok().copied());
            }
            if let Err(error) = &result {
                *in_flight.failure.borrow_mut() = Some(error.clone());
                in_flight.was_full.set(in_flight.was_full.get() || matches!(error, StoreError::Full));
                if let Some(log) = &log {
                    // A full disk may hold dead bytes.
                    log.compaction_wanted.notify_all();
                }
            }
            in_flight.complete(sent, result.map(|_| ()));
        }
        if let Some(log) = &log {
            log.want_compaction();
        }
    }
}

/// Nobody tells any more what becomes of writes: the writer is gone, or the run ends and this coroutine with it. After an
/// orderly end nothing is under way here. Whoever waits must be told all the same, for some may not be interrupted.
struct End<'a>(&'a InFlight);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.finished.open();
        while let Some(sent) = { self.0.writes.borrow_mut().pop_front() } {
            self.0.complete(sent, Err(StoreError::Closed));
        }
    }
}

impl InFlight {
    pub(crate) fn new() -> InFlight {
        InFlight {
            writes: RefCell::default(),
            epoch: Cell::default(),
            reserve_missing_bytes: Cell::new(0),
            was_full: Cell::new(false),
            failure: RefCell::default(),
            failed: RefCell::default(),
            room: Semaphore::new(QUEUE_BYTES_MAX),
            bytes: Cell::new(0),
            finished: Barrier::new(false),
        }
    }

    pub(crate) fn complete(&self, sent: Sent, result: Result<(), StoreError>) {
        let bytes = sent.bytes();
        self.bytes.set(self.bytes.get() - bytes as u64);
        self.room.release(bytes);
        sent.completion.complete(result);
    }
}
