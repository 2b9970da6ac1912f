//! The coroutines that serve a session: whoever reads a request handles it.
//!
//! # Leader and followers
//!
//! Any request may have to wait (for a block from the network, say) and most don't, and which is which shows only
//! while it is handled. So nobody hands requests over. A few coroutines share one baton: whoever holds it reads a
//! request, puts the baton down, and handles the request in place. If that never suspended, nothing else can have
//! run, the baton still lies there, and the same coroutine picks it up and reads on: no switch, no queue, no spawn.
//! If it did suspend, another has taken the baton and reads meanwhile.
//!
//! Rejected: a coroutine per request (a spawn is 0.8 us), a queue between reader and workers (a switch per request,
//! and a copy of it), threads (a wake-up across processors costs 5 to 10 times the request itself).

use std::cell::Cell;
use std::rc::Rc;

use std::time::Duration;

use reactor::cell::RefCell;
use reactor::sync::Signal;
use reactor::{Scope, ScopedJoinHandle};

use super::abi::o_flags;
use super::dispatch::{Answer, changes_nothing, dispatch, may_be_given_up};
use super::parse::MalformedRequest;
use super::reply::{Notification, Reply};
use super::request::{Operation, Request};
use super::session::{End, REQUEST_BYTES_MAX, Session};
use super::signals;
use super::spin::Spin;
use crate::cache::NumberMap;
use crate::errno::Errno;
use crate::operations::{Inode, Operations};

/// Coroutines that handle requests at once. When all of them wait, requests wait in the kernel, INTERRUPT among them: so
/// there are many. Each has a buffer of which only touched pages take memory: one for most requests, 1 MiB for the
/// largest write, of which the kernel has 32 in the background at most.
const WORKERS_MAX: usize = 256;

/// Coroutines kept without work; each keeps its buffer, of which the touched pages take memory.
const IDLE_WORKERS_MAX: usize = 4;

/// Requests answered in a row before every other coroutine gets its turn: some 15 us of work. (A turn costs 0.2 us, and
/// while there are always requests the driver looks at sockets at every 61st turn only.)
const REQUESTS_PER_TURN: u32 = 2;

/// How often a program that got a harmless signal is looked at again: the kernel tells of the first signal only.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Answers requests until there will be no more.
pub(super) fn run(session: &Session, operations: &dyn Operations) -> End {
    reactor::scope(|scope| {
        let pool = Rc::new(Pool {
            session,
            operations,
            spin: Spin::new(),
            baton_taken: Cell::new(false),
            offered: Cell::new(false),
            followers: Signal::new(),
            idle_count: Cell::new(0),
            seats: RefCell::new(Vec::new()),
            mappable: RefCell::default(),
            end: RefCell::new(None),
            is_over: Cell::new(false),
            ended: Signal::new(),
        });
        let told = scope.spawn(|| session.tell_kernel(operations));
        pool.clone().add_worker(scope);
        while !pool.is_over.get() {
            pool.ended.wait();
        }
        told.terminate();
        pool.end.take().unwrap_or(End::Unmounted)
    })
}

/// What the coroutines of a session share.
struct Pool<'scope> {
    session: &'scope Session,
    operations: &'scope dyn Operations,
    spin: Spin,
    /// Somebody reads, or is about to.
    baton_taken: Cell<bool>,
    /// A follower has been woken and has not run yet.
    offered: Cell<bool>,
    followers: Signal,
    idle_count: Cell<usize>,
    seats: RefCell<Vec<Rc<Seat<'scope>>>>,
    /// How many descriptors each file has that it could be changed through `mmap` by.
    mappable: RefCell<NumberMap<u64, u32>>,
    end: RefCell<Option<End>>,
    is_over: Cell<bool>,
    ended: Signal,
}

/// One worker, as INTERRUPT finds it.
#[derive(Default)]
struct Seat<'scope> {
    /// The request it handles, if that may be given up; 0 if not.
    request: Cell<u64>,
    /// The thread that waits for it.
    pid: Cell<u32>,
    /// The request only looks: it is given up at the session's end.
    looks: Cell<bool>,
    /// The request is given up: its program dies.
    interrupted: Cell<bool>,
    handle: RefCell<Option<ScopedJoinHandle<'scope, ()>>>,
}

impl<'scope> Pool<'scope> {
    fn add_worker<'env>(self: Rc<Self>, scope: &'scope Scope<'scope, 'env>) {
        let seat = Rc::new(Seat::default());
        self.seats.borrow_mut().push(seat.clone());
        let place = Place { pool: self, seat: seat.clone() };
        let handle = scope.spawn(move || place.work(scope));
        *seat.handle.borrow_mut() = Some(handle);
    }

    /// Waits for the baton; false if this worker is not needed any more.
    fn take_baton(&self) -> bool {
        loop {
            if self.is_over.get() {
                return false;
            }
            if !self.baton_taken.replace(true) {
                return true;
            }
            if self.idle_count.get() >= IDLE_WORKERS_MAX {
                return false;
            }
            self.idle_count.set(self.idle_count.get() + 1);
            self.followers.wait();
            self.idle_count.set(self.idle_count.get() - 1);
            self.offered.set(false);
        }
    }

    /// Puts the baton down. A follower is made runnable once, however many requests go by before it gets to run; if
    /// the leader is back to reading by then, it finds the baton taken and waits again.
    fn put_baton(&self) {
        self.baton_taken.set(false);
        if !self.offered.get() && self.followers.notify_one() {
            self.offered.set(true);
        }
    }

    /// A signal came for the program that waits for the request named `unique`. If it dies of it, its request ends.
    fn interrupt(&self, unique: u64) {
        loop {
            {
                let seats = self.seats.borrow();
                let Some(seat) = seats.iter().find(|seat| seat.request.get() == unique) else {
                    return; // Answered already, or not to be given up.
                };
                if signals::is_dying(seat.pid.get()) {
                    if let Some(handle) = &*seat.handle.borrow() {
                        seat.interrupted.set(true);
                        handle.terminate();
                    }
                    return;
                }
            }
            if self.is_over.get() {
                return;
            }
            reactor::sleep(SIGNAL_INTERVAL);
        }
    }

    /// Counts the descriptors by which a file's pages can be changed without a word to us.
    fn count_mappable(&self, inode: Inode, flags: u32, is_open: bool) {
        if flags & o_flags::ACCESS_MODE != o_flags::READ_WRITE {
            return;
        }
        let mut mappable = self.mappable.borrow_mut();
        let count = mappable.entry(inode.0).or_default();
        *count = if is_open { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            mappable.remove(&inode.0);
        }
    }

    fn finish(&self, end: End) {
        self.session.note_end();
        // Nobody waits for reads any more. Changes run to their end.
        for seat in self.seats.borrow().iter().filter(|seat| seat.request.get() != 0 && seat.looks.get()) {
            if let Some(handle) = &*seat.handle.borrow() {
                handle.terminate();
            }
        }
        self.end.borrow_mut().get_or_insert(end);
        self.is_over.set(true);
        self.followers.notify_all();
        self.ended.notify_all();
    }
}

/// A worker's place in the pool, which it leaves however it ends.
struct Place<'scope> {
    pool: Rc<Pool<'scope>>,
    seat: Rc<Seat<'scope>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pool.seats.borrow_mut().retain(|seat| !Rc::ptr_eq(seat, &self.seat));
    }
}

impl<'scope> Place<'scope> {
    fn work<'env>(self, scope: &'scope Scope<'scope, 'env>) {
        let pool = &self.pool;
        let mut buffer = Vec::new();
        while pool.take_baton() {
            if buffer.is_empty() {
                // Zeroed by the kernel, page by page, as requests touch it.
                buffer = vec![0; REQUEST_BYTES_MAX];
            }
            if pool.idle_count.get() == 0 && pool.seats.borrow().len() < WORKERS_MAX {
                pool.clone().add_worker(scope);
            }
            let mut in_a_row = 0;
            loop {
                match pool.session.receive(&mut buffer, &pool.spin) {
                    Ok(size) => {
                        pool.put_baton();
                        self.handle(&buffer[..size]);
                        if self.seat.interrupted.get() {
                            // Its handling did not see that it was given up. It must not be seen where this one reads for all:
                            // with the baton in its hand, which nobody would have any more.
                            if !pool.baton_taken.get() && pool.idle_count.get() == 0 {
                                pool.clone().add_worker(scope);
                            }
                            return;
                        }
                    }
                    Err(end) => return pool.finish(end),
                }
                if pool.baton_taken.replace(true) {
                    // Another took it while the handling was suspended.
                    break;
                }
                in_a_row += 1;
                if in_a_row % REQUESTS_PER_TURN == 0 {
                    reactor::yield_now();
                }
            }
        }
    }

    fn handle(&self, bytes: &[u8]) {
        let pool = &*self.pool;
        let request = match Request::parse(bytes) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!("{error}");
                if let MalformedRequest::Body { unique, .. } = error {
                    pool.session.send(unique, &Reply::Error(Errno::EIO));
                }
                return;
            }
        };
        match request.operation {
            Operation::Interrupt { unique } => return pool.interrupt(unique),
            Operation::Destroy => return pool.session.send(request.unique, &Reply::Empty),
            _ => {}
        }
        let mut debt = Debt { place: self, unique: Some(request.unique) };
        self.seat.pid.set(request.pid);
        self.seat.looks.set(changes_nothing(&request.operation));
        if may_be_given_up(&request.operation) {
            self.seat.request.set(request.unique);
        }
        let answer = self.answer(&request);
        self.seat.request.set(0);
        debt.unique = None;
        pool.session.send(request.unique, &answer.reply);
        if let Some(stale) = answer.after {
            pool.session.tell(stale);
        }
    }

    /// Has the request dispatched, and the kernel's caches told what goes with it.
    fn answer(&self, request: &Request<'_>) -> Answer {
        let pool = &*self.pool;
        match request.operation {
            // Pages that a program changed through `mmap` are data too, and the kernel has yet to tell of them.
            Operation::Seek { .. } if pool.mappable.borrow().contains_key(&request.inode.0) => {
                pool.session.tell_now(&Notification::Inode(request.inode));
            }
            Operation::Release { flags } => pool.count_mappable(request.inode, flags, false),
            _ => {}
        }
        let mut answer = dispatch(pool.operations, request);
        match (&answer.reply, request.operation) {
            (Reply::Opened(_), Operation::Open { flags }) => {
                pool.count_mappable(request.inode, flags, true);
                // Others' changes are known here, and on their way to the kernel: this file's must be there first.
                if pool.operations.has_invalidations() || !pool.session.has_told_all() {
                    answer.before = Some(Notification::Inode(request.inode));
                }
            }
            (
                Reply::Created(attributes, ..),
                Operation::Create { flags, .. } | Operation::CreateUnnamed { flags, .. },
            ) => {
                pool.count_mappable(attributes.inode, flags, true);
            }
            _ => {}
        }
        if let Some(stale) = &answer.before {
            pool.session.tell_now(stale);
        }
        answer
    }
}

/// An answer that is owed: given with an error if the handling unwinds, lest a program wait for ever.
struct Debt<'a, 'scope> {
    place: &'a Place<'scope>,
    unique: Option<u64>,
}

impl Drop for Debt<'_, '_> {
    fn drop(&mut self) {
        let Some(unique) = self.unique else { return };
        let errno = if self.place.seat.interrupted.get() { Errno::EINTR } else { Errno::EIO };
        self.place.pool.session.send(unique, &Reply::Error(errno));
    }
}
