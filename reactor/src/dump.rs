//! What all coroutines are doing: as a value, and on a signal in the log.

mod report;
mod stack;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use crate::coroutine::{Builder, Coroutine};
use crate::signals::{Signal, Signals};
use crate::{remote, run};

pub use stack::Stack;

/// Coroutines whose stacks are told in one dump, those first that have lived longest. Asking one takes some tens of
/// microseconds, and leaves it two more pages of stack in memory.
const STACKS_MAX: usize = 1_000;

/// All coroutines of a reactor at one moment: see [`dump`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Dump {
    /// In the order they were spawned.
    pub coroutines: Vec<CoroutineDump>,
}

/// What is known of one coroutine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoroutineDump {
    /// Names it in this reactor: from 1, in the order of spawning, never used again.
    pub number: u64,
    /// Its name: see [`current_name`](crate::current_name).
    pub name: String,
    /// What it is doing.
    pub state: CoroutineState,
    /// It has been terminated, and has yet to unwind.
    pub is_terminated: bool,
    /// Where it was spawned: file and line.
    pub spawned_at: String,
    /// The number of the coroutine that spawned it, which may have ended.
    pub parent: Option<u64>,
    /// Its parent waits for it: it is a [`scope`](crate::scope)'s child.
    pub is_scoped: bool,
    /// Its stack's size.
    pub stack_size_bytes: usize,
    /// How much of its stack has been used at most, in whole pages: by it or, since stacks are used again, by an
    /// earlier one. `None` where the kernel does not tell (no `/proc`).
    pub stack_used_bytes: Option<usize>,
    /// The calls that it is in, where [`dump_with_stacks`] could ask it: not if it is starting a child, if it has less than
    /// 16 KiB of its stack left, or if there are more than a thousand before it.
    pub stack: Option<Stack>,
}

/// What a coroutine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CoroutineState {
    /// It runs: it asked for the dump.
    Running,
    /// It has started a child, which runs first.
    Spawning,
    /// It could go on, and others are before it.
    Runnable,
    /// It waits.
    Waiting {
        /// For what: "a channel's value", "a time".
        what: &'static str,
        /// For how long it has waited. The reactor looks at its clock only when it looks for events, so this may be
        /// too long, by the time that coroutines ran without a pause before that.
        waited: Duration,
    },
}

/// Tells of every coroutine of this thread's reactor what it is doing, and where it came from. Never suspends.
///
/// Costs a read of some hundred bytes from `/proc` for each, and nothing at all while it is not called.
///
/// # Panics
///
/// Outside [`crate::run`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// reactor::run(|| {
///     let sleeper = reactor::Builder::new().name("sleeper").spawn(|| reactor::sleep(Duration::from_secs(60)));
///     let dump = reactor::dump();
///     let entry = dump.coroutines.iter().find(|entry| entry.name == "sleeper").unwrap();
///     assert!(matches!(entry.state, reactor::CoroutineState::Waiting { what: "a time", .. }));
///     println!("{dump}"); // a line for each
///     drop(sleeper);
/// });
/// ```
pub fn dump() -> Dump {
    Dump { coroutines: in_order().iter().map(describe(Pages::open())).collect() }
}

/// As [`dump`], and tells of each coroutine the calls that it is in. Never suspends.
///
/// Each one that is suspended is resumed for a moment, inside its wait, to take its own backtrace, some tens of
/// microseconds; nothing that it waits for is disturbed. Of a thousand at most.
///
/// # Panics
///
/// Outside [`crate::run`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// fn naps() {
///     reactor::sleep(Duration::from_secs(60));
/// }
/// reactor::run(|| {
///     let _napper = reactor::Builder::new().name("napper").spawn(naps);
///     let dump = reactor::dump_with_stacks();
///     let entry = dump.coroutines.iter().find(|entry| entry.name == "napper").unwrap();
///     let stack = entry.stack.as_ref().unwrap().to_string();
///     assert!(stack.contains("naps") && stack.contains("sleep"), "{stack}");
/// });
/// ```
pub fn dump_with_stacks() -> Dump {
    let all = in_order();
    // First how much stack they have used: being asked takes some.
    let mut coroutines: Vec<_> = all.iter().map(describe(Pages::open())).collect();
    for (coroutine, entry) in all.iter().zip(&mut coroutines).take(STACKS_MAX) {
        entry.stack = coroutine.frames().map(Stack::new);
    }
    Dump { coroutines }
}

/// All coroutines in the order they were spawned.
fn in_order() -> Vec<Rc<Coroutine>> {
    let mut all = run::all_coroutines();
    assert!(!all.is_empty(), "this belongs inside `reactor::run`");
    all.sort_by_key(|coroutine| coroutine.number());
    all
}

/// From now on, until the end of [`crate::run`], SIGUSR2 writes a dump with stacks to the log. Never suspends.
///
/// By a coroutine, so a coroutine that holds the thread holds this up too: that is for [`crate::watchdog`] to tell.
///
/// # Errors
///
/// When the process is out of descriptors.
///
/// # Panics
///
/// Outside [`crate::run`]; near the limit of coroutines.
pub fn dump_on_signal() -> io::Result<()> {
    let signals = Signals::new(&[Signal::User2])?;
    let dumper = Builder::new().name("dump on SIGUSR2").spawn(move || {
        loop {
            signals.wait();
            for event in report() {
                tracing::info!("{event}");
            }
        }
    });
    dumper.map(drop).map_err(io::Error::other)
}

/// A dump with stacks as text: first a line for each coroutine, then the stacks. Suspends while it is written.
pub(crate) fn report() -> Vec<String> {
    report_of(dump_with_stacks())
}

/// Writes the dump out, on a thread of its own: symbols are read from the program's file. Not by `offload`, since its
/// threads may be what everybody waits for. Without stacks where no thread can be had.
///
/// A panic that tells its backtrace meanwhile waits for that thread, since the standard library reads symbols for one at
/// a time.
fn report_of(mut dump: Dump) -> Vec<String> {
    let (sender, receiver) = remote::channel(1);
    let copy = dump.clone();
    let writer = std::thread::Builder::new().name("dump".into());
    let writing = writer.spawn(move || {
        // Nobody listens if the run has ended.
        let _ = sender.try_send(report::write(copy));
    });
    writing.ok().and_then(|_| receiver.recv()).unwrap_or_else(|| {
        dump.coroutines.iter_mut().for_each(|entry| entry.stack = None);
        report::write(dump)
    })
}

fn describe(pages: Option<Pages>) -> impl Fn(&Rc<Coroutine>) -> CoroutineDump {
    move |coroutine| describe_one(coroutine, pages.as_ref())
}

fn describe_one(coroutine: &Coroutine, pages: Option<&Pages>) -> CoroutineDump {
    let stack_size_bytes = coroutine.stack_size_bytes();
    CoroutineDump {
        stack: None,
        number: coroutine.number(),
        name: coroutine.label(),
        state: coroutine.state(),
        is_terminated: coroutine.is_terminated(),
        spawned_at: coroutine.place(),
        parent: coroutine.parent(),
        is_scoped: coroutine.is_scoped(),
        stack_size_bytes,
        stack_used_bytes: pages.and_then(|pages| pages.touched(coroutine.stack_top(), stack_size_bytes)),
    }
}

impl fmt::Display for CoroutineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoroutineState::Running => f.write_str("runs"),
            CoroutineState::Spawning => f.write_str("starts a child"),
            CoroutineState::Runnable => f.write_str("is runnable"),
            CoroutineState::Waiting { what, waited } => {
                write!(f, "waits for {what}, {:.3} s", waited.as_secs_f64())
            }
        }
    }
}

impl fmt::Display for CoroutineDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} {}", self.number, self.name, self.state)?;
        if self.is_terminated {
            f.write_str(" (terminated)")?;
        }
        if self.name != self.spawned_at {
            write!(f, "; spawned at {}", self.spawned_at)?;
        }
        if let Some(parent) = self.parent {
            write!(f, "; {} #{parent}", if self.is_scoped { "in a scope of" } else { "by" })?;
        }
        match self.stack_used_bytes {
            Some(used) => write!(f, "; stack {} of {} KiB", used / 1024, self.stack_size_bytes / 1024),
            None => write!(f, "; stack of {} KiB", self.stack_size_bytes / 1024),
        }?;
        self.stack.as_ref().map_or(Ok(()), |stack| write!(f, "\n{stack}"))
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} coroutines", self.coroutines.len())?;
        self.coroutines.iter().try_for_each(|entry| write!(f, "\n  {entry}"))
    }
}

/// The kernel's word on which pages of the process exist (`Documentation/admin-guide/mm/pagemap.rst`).
struct Pages {
    pagemap: File,
    page_size_bytes: usize,
}

/// A page's entry has this bit where it is in memory or, the other, in swap space.
const PAGE_EXISTS: u64 = 1 << 63 | 1 << 62;

impl Pages {
    fn open() -> Option<Pages> {
        let pagemap = File::open("/proc/self/pagemap").ok()?;
        Some(Pages { pagemap, page_size_bytes: rustix::param::page_size() })
    }

    /// Bytes of the stack around `top`, which grows down, that have ever been touched without a gap.
    fn touched(&self, top: usize, stack_size_bytes: usize) -> Option<usize> {
        let page_count = stack_size_bytes / self.page_size_bytes;
        let top_page = top / self.page_size_bytes;
        let bottom_page = (top_page + 1).checked_sub(page_count)?;
        let mut entries = vec![0; page_count * size_of::<u64>()];
        self.pagemap.read_exact_at(&mut entries, (bottom_page * size_of::<u64>()) as u64).ok()?;
        let exists =
            |entry: &[u8]| entry.try_into().is_ok_and(|entry| u64::from_ne_bytes(entry) & PAGE_EXISTS != 0);
        let touched = entries.chunks_exact(size_of::<u64>()).rev().take_while(|entry| exists(entry)).count();
        Some(touched * self.page_size_bytes)
    }
}
