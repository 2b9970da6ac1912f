//! The two queues between the store and its writer: writes go one way, reports the other.
//!
//! Where the disk makes a thread wait, the writer is a thread, and both queues cross threads. On a simulated disk it
//! is a coroutine like all others, in virtual time. The writer's loop is the same.

use super::{
    device::Waiting,
    format::RECORD_HEADER_BYTES,
    pipeline::{QUEUE_BYTES_MAX, run_writer},
    writer::{Report, Write, Writer},
};
use crossbeam::channel;
use reactor::cell::RefCell;
use reactor::{remote, sync};
use std::{collections::VecDeque, io, time::Duration};

/// Reports that may wait for the reactor's thread.
const REPORTS_MAX: usize = 64;
/// Writes that may wait for the writer: more than have room by their bytes.
const WRITES_MAX: usize = QUEUE_BYTES_MAX / RECORD_HEADER_BYTES + 1;

/// The writer's ends.
pub(crate) trait Pipes {
    /// The next write, waited for; `None` when the queue is closed and empty.
    fn next(&self) -> Option<Write>;
    /// Takes all writes that are there.
    fn take_all(&self, writes: &mut VecDeque<Write>);
    /// How many writes are there.
    fn count(&self) -> usize;
    /// Tells what became of writes. When nobody listens any more, what was handed over is still written.
    fn report(&self, report: Report);
    /// Lets some time pass.
    fn pause(&self, duration: Duration);
}

/// The store's end for writes.
pub(crate) enum WriteSender {
    ToThread(channel::Sender<Write>),
    ToCoroutine(sync::Sender<Write>),
}

/// The store's end for reports.
pub(crate) enum ReportReceiver {
    FromThread(remote::Receiver<Report>),
    FromCoroutine(sync::Receiver<Report>),
}

impl WriteSender {
    /// Hands a write over; whether the writer is there. Never suspends.
    pub(crate) fn send(&self, write: Write) -> bool {
        match self {
            WriteSender::ToThread(queue) => queue.send(write).is_ok(),
            WriteSender::ToCoroutine(queue) => queue.try_send(write).is_ok(),
        }
    }
}

impl ReportReceiver {
    /// The next report; `None` when the writer has ended.
    ///
    /// # Suspends
    ///
    /// Until there is one.
    pub(crate) fn recv(&self) -> Option<Report> {
        match self {
            ReportReceiver::FromThread(reports) => reports.recv(),
            ReportReceiver::FromCoroutine(reports) => reports.recv().ok(),
        }
    }
}

struct OfThread {
    writes: channel::Receiver<Write>,
    reports: remote::Sender<Report>,
}

impl Pipes for OfThread {
    fn next(&self) -> Option<Write> {
        self.writes.recv().ok()
    }

    fn take_all(&self, writes: &mut VecDeque<Write>) {
        writes.extend(self.writes.try_iter());
    }

    fn count(&self) -> usize {
        self.writes.len()
    }

    fn report(&self, report: Report) {
        let _ = self.reports.send(report);
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

struct OfCoroutine {
    writes: sync::Receiver<Write>,
    /// Taken from the channel to be counted.
    counted: RefCell<VecDeque<Write>>,
    reports: sync::Sender<Report>,
}

impl Pipes for OfCoroutine {
    fn next(&self) -> Option<Write> {
        let counted = self.counted.borrow_mut().pop_front();
        counted.or_else(|| self.writes.recv().ok())
    }

    fn take_all(&self, writes: &mut VecDeque<Write>) {
        self.count();
        writes.append(&mut self.counted.borrow_mut());
    }

    fn count(&self) -> usize {
        let mut counted = self.counted.borrow_mut();
        counted.extend(std::iter::from_fn(|| self.writes.try_recv()));
        counted.len()
    }

    fn report(&self, report: Report) {
        let _ = self.reports.send(report);
    }

    fn pause(&self, duration: Duration) {
        reactor::sleep(duration);
    }
}

/// Starts the writer where `waiting` says.
pub(crate) fn start(waiting: Waiting, writer: Writer) -> io::Result<(WriteSender, ReportReceiver)> {
    match waiting {
        Waiting::Thread => {
            let (queue, writes) = channel::unbounded();
            let (reports, received) = remote::channel(REPORTS_MAX);
            let pipes = OfThread { writes, reports };
            std::thread::Builder::new().name("store".into()).spawn(move || run_writer(writer, &pipes))?;
            Ok((WriteSender::ToThread(queue), ReportReceiver::FromThread(received)))
        }
        Waiting::Coroutine => {
            let (queue, writes) = sync::channel(WRITES_MAX);
            let (reports, received) = sync::channel(REPORTS_MAX);
            let pipes = OfCoroutine { writes, counted: RefCell::default(), reports };
            reactor::spawn(move || run_writer(writer, &pipes));
            Ok((WriteSender::ToCoroutine(queue), ReportReceiver::FromCoroutine(received)))
        }
    }
}
