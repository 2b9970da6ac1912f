//! Fibers by the crate `may`: the only file that names it, and the engine's other side (the feature `engine-may`).
//!
//! `may` schedules coroutines by itself; here they hand the thread to each other. Whoever resumes a fiber makes it
//! runnable and parks, and the fiber that suspends does the same for whoever resumed it, so one of them is runnable at a
//! time and `may` has nothing to decide. Its timers, sockets and second thread are not used.
//!
//! What it cannot do, and `corosensei` can:
//!
//! - `run` on the calling thread: it waits while `may`'s one worker runs its coroutines. So there is one reactor a
//!   process, and a second `run` waits for the first to end.
//! - Stacks that are used again at no cost: each takes two memory mappings and keeps what it touched.
//! - Sanitizers: they are not told of a switch.
//!
//! A stack that cannot be had is found out by mapping as much first, since `may` itself would panic; what another
//! thread maps in between may still make it.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError, mpsc};

use may::coroutine;

use super::overflow::{self, HandlerStack, Label, Watched};
use super::{AbortOnUnwind, Body, StackError};

/// Stack of the coroutine that the driver's loop runs on.
const HOST_STACK_SIZE_BYTES: usize = 1024 * 1024;

/// Stacks that `may` keeps for reuse; each keeps the pages it ever touched.
const POOLED_STACKS_MAX: usize = 256;

/// Address space that is left when a stack is refused.
const ROOM_BYTES: usize = 1 << 20;

/// Memory mappings left to the rest of the program: each stack takes two.
const MAPPINGS_RESERVED: usize = 4096;

/// `vm.max_map_count` where it cannot be read: the kernel's default (Documentation/admin-guide/sysctl/vm.rst).
const MAX_MAP_COUNT_DEFAULT: usize = 65_530;

static FIBER_COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The fiber that runs, if one does: what [`suspend`] suspends.
    static RUNNING: RefCell<Option<Rc<Turn>>> = const { RefCell::new(None) };
    /// True on `may`'s worker. No destructor, so it can be asked at any time.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Carries a value that is not `Send` through `may`'s `Send` bound.
struct OneThread<T>(T);

// SAFETY: `may`'s bound guards against a coroutine that moves between worker threads. There is one worker
// (`configure`), fibers are begun on it (`Fiber::resume` asserts it), and every return from a park checks that we are
// still on it (`park_until`). So the value never crosses a thread.
unsafe impl<T> Send for OneThread<T> {}

impl<T> OneThread<T> {
    /// Takes the value out; a method, so that closures capture the wrapper and not its field.
    fn into_inner(self) -> T {
        self.0
    }
}

/// Whose turn it is, of a fiber and whoever resumes it.
struct Turn {
    is_fibers: Cell<bool>,
    ended: Cell<bool>,
    fiber: OnceCell<coroutine::Coroutine>,
    resumer: RefCell<Option<coroutine::Coroutine>>,
}

/// Code with a stack of its own.
pub(crate) struct Fiber {
    turn: Rc<Turn>,
    body: Cell<Option<Body>>,
    watched: Rc<Watched>,
}

impl Fiber {
    /// A fiber with room for a stack and without code. Where there is no room, nothing has happened.
    pub(crate) fn new(stack_size_bytes: usize, label: Label) -> Result<Fiber, StackError> {
        let max_map_count = max_map_count();
        if FIBER_COUNT.load(Ordering::Relaxed) >= max_map_count.saturating_sub(MAPPINGS_RESERVED) / 2 {
            return Err(StackError::Mappings { max_map_count });
        }
        try_mapping(stack_size_bytes).map_err(StackError::Memory)?;
        FIBER_COUNT.fetch_add(1, Ordering::Relaxed);
        let watched = Rc::new(Watched { label, stack_size_bytes, guard: Cell::new((0, 0)) });
        let turn = Rc::new(Turn {
            is_fibers: Cell::new(false),
            ended: Cell::new(false),
            fiber: OnceCell::new(),
            resumer: RefCell::new(None),
        });
        Ok(Fiber { turn, body: Cell::new(None), watched })
    }

    /// Gives the fiber its code, which runs at the first [`Fiber::resume`] and must not unwind.
    pub(crate) fn begin(&self, body: impl FnOnce() + 'static) {
        self.body.set(Some(Box::new(body)));
    }

    /// Runs the fiber until it suspends or ends.
    pub(crate) fn resume(&self) {
        assert!(
            IS_WORKER.get() && !self.turn.ended.get(),
            "only a fiber that is alive is resumed, on its thread"
        );
        let outer_watched = overflow::watch(&self.watched);
        let outer = RUNNING.replace(Some(self.turn.clone()));
        self.turn.resumer.replace(Some(coroutine::current()));
        self.turn.is_fibers.set(true);
        match self.body.take() {
            Some(body) => self.start(body),
            None => self.turn.fiber.get().expect("it has begun").unpark(),
        }
        park_until(|| !self.turn.is_fibers.get());
        drop(RUNNING.replace(outer));
        overflow::unwatch(outer_watched);
    }

    fn start(&self, body: Body) {
        let (turn, watched) = (self.turn.clone(), self.watched.clone());
        let code = OneThread(move || {
            let _ = turn.fiber.set(coroutine::current());
            let top = ptr::from_ref(&turn).addr();
            // Its guard is the page below its stack, whose top is a page or less above here.
            let page = rustix::param::page_size();
            let bottom = (top & !(page - 1)).saturating_sub(watched.stack_size_bytes);
            watched.guard.set((bottom - 2 * page, bottom + 2 * page));
            let bomb = AbortOnUnwind("a coroutine's last code");
            body();
            bomb.disarm();
            turn.ended.set(true);
            turn.is_fibers.set(false);
            let resumer = turn.resumer.take();
            drop((turn, watched));
            resumer.expect("whoever resumed it waits").unpark();
        });
        // The count is even: with an odd one `may` touches, and reports on, the whole stack.
        let stack_size_words = (self.watched.stack_size_bytes / size_of::<usize>()).next_multiple_of(2);
        let builder = coroutine::Builder::new().stack_size(stack_size_words);
        // SAFETY: `may` asks two things of the caller. (1) No use of thread-local storage that assumes a thread
        // per coroutine: ours is written around every switch (`resume`, and `crate::coroutine`). (2) No stack overrun
        // past the guard page: frames larger than a page are probed by rustc. That `body` may stay on this thread is
        // `OneThread`'s invariant.
        let handle = unsafe { builder.spawn(move || code.into_inner()()) };
        drop(handle.expect("may's spawn has no failing path"));
    }

    /// What it is called.
    pub(crate) fn label(&self) -> &Label {
        &self.watched.label
    }

    /// The size of its stack.
    pub(crate) fn stack_size_bytes(&self) -> usize {
        self.watched.stack_size_bytes
    }

    /// An address in the topmost pages of its stack, once it has run.
    pub(crate) fn stack_top(&self) -> usize {
        let page = rustix::param::page_size();
        (self.watched.guard.get().1 + self.watched.stack_size_bytes).saturating_sub(2 * page)
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        FIBER_COUNT.fetch_sub(1, Ordering::Relaxed);
        if self.turn.fiber.get().is_some() && !self.turn.ended.get() {
            // Its frames may be borrowed from, and nobody could ever resume it.
            eprintln!("reactor: a suspended coroutine was let go of; this is a bug, aborting");
            std::process::abort();
        }
    }
}

/// Suspends the running fiber: whoever resumed it goes on, until it is resumed again.
pub(crate) fn suspend() {
    let turn = RUNNING.with_borrow(Clone::clone).expect("only a fiber can be suspended");
    turn.is_fibers.set(false);
    turn.resumer.take().expect("whoever resumed it waits").unpark();
    park_until(|| turn.is_fibers.get());
}

fn park_until(is_over: impl Fn() -> bool) {
    while !is_over() {
        coroutine::park();
        if !IS_WORKER.get() {
            // Nothing may run from here on, not even destructors: `Rc`s of this stack belong to the other thread.
            eprintln!("reactor: a coroutine was resumed on a foreign thread; this is a bug, aborting");
            std::process::abort();
        }
    }
}

/// Calls `main` where fibers can be resumed: in a coroutine on `may`'s worker, for which the caller waits.
pub(crate) fn host(main: Box<dyn FnOnce() + Send + '_>) {
    static ONE: Mutex<()> = Mutex::new(());
    configure();
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ended, end) = mpsc::sync_channel::<std::thread::Result<()>>(1);
    // SAFETY: the types differ by lifetime only. `main` has been called and is gone when its end arrives below, or when
    // the sender is dropped with the closure that holds both.
    let main = unsafe {
        std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Box<dyn FnOnce() + Send + 'static>>(main)
    };
    let start = move || {
        IS_WORKER.set(true);
        thread_local! { static HANDLER_STACK: HandlerStack = overflow::guard_thread(); }
        HANDLER_STACK.with(|_| ());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(main));
        let _ = ended.send(result);
    };
    let builder = coroutine::Builder::new().stack_size(HOST_STACK_SIZE_BYTES / size_of::<usize>());
    // SAFETY: as in `Fiber::start`; what the closure captures is `Send`.
    let handle = unsafe { builder.spawn(start) };
    drop(handle.expect("may's spawn has no failing path"));
    match end.recv() {
        Ok(Ok(())) => {}
        Ok(Err(payload)) => std::panic::resume_unwind(payload),
        Err(_) => unreachable!("the host says how it ended"),
    }
}

fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let config = may::config();
        config.set_workers(1).set_pool_capacity(POOLED_STACKS_MAX).set_worker_pin(false);
    });
}

/// Whether as much address space could be had as a stack takes, and some more: `may` adds two pages to each, and what it notes of a
/// coroutine is on the heap. Where just the stack fits it panics, on its worker, and nobody goes on.
fn try_mapping(stack_size_bytes: usize) -> io::Result<()> {
    let size_bytes = stack_size_bytes.saturating_add(ROOM_BYTES);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping at an address of the kernel's choosing touches nobody's memory.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), size_bytes, access, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is ours, and nobody has seen it.
    unsafe { libc::munmap(mapped, size_bytes) };
    Ok(())
}

fn max_map_count() -> usize {
    static READ: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *READ.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        text.trim().parse().unwrap_or(MAX_MAP_COUNT_DEFAULT)
    })
}
