//! How a coroutine starts.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use tracing::Span;

use super::{
    Coroutine, Cut, Forbids, JoinHandle, Outcome, Packet, Turns, current, frames, may_suspend, panic_message,
    spans, turns, with_current,
};
use crate::engine::{self, Fiber, Label, StackError};
use crate::run::Group;
use crate::scope::{Scope, ScopedJoinHandle};
use crate::{driver, watchdog};

/// Spawning was refused: there is no stack for the coroutine. Nothing of it is left, and others go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// The system gave no memory or no address space.
    Memory {
        /// Coroutines of this reactor that exist now.
        running: usize,
        /// What was asked for.
        stack_size_bytes: usize,
        /// The system's word.
        source: io::Error,
    },
    /// The process is near the kernel's limit of memory mappings. Kernels before Linux 6.13 need two for each stack.
    Mappings {
        /// Coroutines of this reactor that exist now.
        running: usize,
        /// The kernel's `vm.max_map_count`.
        max_map_count: usize,
    },
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::Memory { running, stack_size_bytes, source } => write!(
                f,
                "no stack of {} KiB beside those of {running} coroutines ({source}): end some, ask for less by \
                 `Builder::stack_size_bytes`, or raise what limits the process's memory (`ulimit -v`, its cgroup, \
                 `vm.overcommit_memory`)",
                stack_size_bytes / 1024
            ),
            SpawnError::Mappings { running, max_map_count } => write!(
                f,
                "{running} coroutines run already and each takes two memory mappings; raise `sysctl \
                 vm.max_map_count` (now {max_map_count}) to run more"
            ),
        }
    }
}

impl Error for SpawnError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SpawnError::Memory { source, .. } => Some(source),
            SpawnError::Mappings { .. } => None,
        }
    }
}

/// What a coroutine starts with.
pub(crate) struct Start {
    pub(crate) group: Rc<Group>,
    /// Its parent waits for it.
    pub(crate) is_scoped: bool,
    /// Those for whom a scope works wait no longer for its children.
    pub(crate) deadline: Option<Instant>,
}

/// A coroutine to be: it has its stack, which is all that may be refused, and nobody knows of it yet.
pub(crate) struct Prepared {
    fiber: Fiber,
    span: Option<Span>,
    discarded: bool,
}

impl Prepared {
    /// Starts the coroutine, which runs at once until it first suspends; when its turn comes, if the caller unwinds, for
    /// then it could not suspend. Its `body`'s end goes to `done`.
    ///
    /// Where it is discarded, or terminated before it starts, `body` is dropped without having run. Panics of `body`
    /// and of the destructors of what it captured are its outcome; what `done` panics with ends the run.
    pub(crate) fn start<T: 'static>(
        self,
        start: Start,
        body: impl FnOnce() -> T + 'static,
        done: impl FnOnce(Outcome<T>) + 'static,
    ) -> Rc<Coroutine> {
        // First what runs a subscriber's code.
        let span = self.span.or_else(spans::current);
        let spans_of_parent = if spans::are_possible() { spans::leave() } else { None };
        let child = Rc::new(Coroutine {
            fiber: self.fiber,
            scheduled: Cell::new(false),
            finished: Cell::new(false),
            has_no_body: Cell::new(false),
            cut_raised: Cell::new(false),
            cut: Cell::new(None),
            shield: Cell::new(None),
            group: start.group,
            slot: Cell::new(0),
            deadline: Cell::new(start.deadline),
            is_scoped: start.is_scoped,
            number: driver::next_number(),
            parent: with_current(|parent| parent.map_or(0, |parent| parent.number)),
            forbids: Forbids::default(),
            waits_for: Cell::new(None),
            posture: Cell::new(frames::Posture::Active),
            suspended_at_ns: Cell::new(0),
            rare: OnceCell::new(),
        });
        child.group.on_start(&child);
        watchdog::on_start(&child);
        let me = child.clone();
        let discarded = self.discarded;
        let life = move || {
            let discarded = discarded || me.cut.get().is_some();
            let span = span.map(Span::entered);
            let outcome = match discarded {
                false => me.run(body),
                // On its own stack too: what it captured may suspend as it is dropped, and its termination has queued it.
                true => {
                    me.has_no_body.set(true);
                    match me.run(|| drop(body)) {
                        Outcome::Panicked(payload) => Outcome::Panicked(payload),
                        _ => Outcome::Terminated,
                    }
                }
            };
            me.end(outcome, done);
            drop(span);
            turns::with(Turns::on_switch);
        };
        child.fiber.begin(move || frames::coroutine_begins(life));
        match child.parent {
            _ if !may_suspend() => child.wake(),
            0 => turns::with(|turns| child.resume(turns)),
            _ => turns::with(|turns| child.go_on(turns)),
        }
        spans::enter(spans_of_parent);
        child
    }
}

impl Coroutine {
    /// Runs its code, and drops what it kept for itself.
    fn run<T>(&self, body: impl FnOnce() -> T) -> Outcome<T> {
        let outcome = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(value) => {
                self.check_swallowed_at_end();
                Outcome::Returned(value)
            }
            Err(payload) => match payload.downcast::<Cut>() {
                Ok(_) => Outcome::Terminated,
                Err(payload) => Outcome::Panicked(payload),
            },
        };
        self.has_no_body.set(true);
        // Their destructors may suspend, even where it was terminated.
        self.drop_locals_after(outcome)
    }

    /// Gives its outcome to `done`, and ends it.
    fn end<T>(self: &Rc<Self>, outcome: Outcome<T>, done: impl FnOnce(Outcome<T>)) {
        // Destructors run here, of a result that nobody wants: they may suspend, and may panic, but not keep it from
        // its end.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| done(outcome)))
            && !payload.is::<Cut>()
        {
            self.group.fail(payload);
        }
        self.finish();
    }
}

impl Coroutine {
    /// Drops what it kept for itself; a panic of that takes the place of `outcome`.
    fn drop_locals_after<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        if self.rare.get().is_none() {
            return outcome;
        }
        let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.drop_locals())) else { return outcome };
        if let Outcome::Panicked(earlier) = &outcome {
            let coroutine = self.label();
            tracing::error!(coroutine, "a local's destructor panicked after: {}", panic_message(earlier));
        }
        Outcome::Panicked(payload)
    }

    fn finish(&self) {
        self.finished.set(true);
        self.group.on_finish(self);
        watchdog::on_finish(self.number);
    }
}

/// Starts a coroutine, which runs at once until it first suspends. Where the caller is a destructor that runs while its
/// coroutine unwinds, it runs when its turn comes, so that it may suspend.
///
/// It ends with the enclosing [`crate::run`] at the latest. To let it borrow, see [`crate::scope`].
///
/// # Panics
///
/// Outside `run`. When there is no stack for it ([`SpawnError`]): a server that starts one for each client calls
/// [`try_spawn`], and refuses the client instead.
///
/// # Examples
///
/// ```
/// let sum = reactor::run(|| {
///     let left = reactor::spawn(|| 20);
///     let right = reactor::spawn(|| 22);
///     left.join().unwrap() + right.join().unwrap()
/// });
/// assert_eq!(sum, 42);
/// ```
#[track_caller]
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

/// As [`spawn`], for those who can do without: a server that turns clients away when it is full.
///
/// # Errors
///
/// [`SpawnError`] when there is no stack for it. `f` is dropped then, and with it the connection that it was to serve.
///
/// # Panics
///
/// Outside `run`.
#[track_caller]
pub fn try_spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> Result<JoinHandle<T>, SpawnError> {
    Builder::new().spawn(f)
}

/// Sets a coroutine up before it starts.
#[derive(Debug, Default, Clone)]
pub struct Builder {
    stack_size_bytes: Option<usize>,
    name: Option<Cow<'static, str>>,
    span: Option<Span>,
    /// It is terminated before it starts.
    discarded: bool,
}

impl Builder {
    /// The defaults: 256 KiB of stack, of which only touched pages take memory, and the place of the call that
    /// spawns it for a name.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Gives the coroutine a stack of this size, in whole pages and of 16 KiB at the least.
    ///
    /// An overflow ends the process, with a sentence that names the coroutine. For all coroutines at once see
    /// [`set_default_stack_size_bytes`](crate::set_default_stack_size_bytes).
    pub fn stack_size_bytes(mut self, size: usize) -> Builder {
        self.stack_size_bytes = Some(size);
        self
    }

    /// Names the coroutine, for logs and dumps; names need not be unique.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Lets the coroutine run in this `tracing` span, rather than in the one that its parent is in.
    ///
    /// A span follows its coroutine: it is exited when the coroutine suspends and entered again when it goes on, and
    /// so are those that its code enters. `Span::none()` gives a coroutine no span, as suits one that outlives what
    /// its parent is about.
    pub fn span(mut self, span: Span) -> Builder {
        self.span = Some(span);
        self
    }

    /// Lets it never start: its body is dropped.
    pub(crate) fn discarded(mut self, discarded: bool) -> Builder {
        self.discarded = discarded;
        self
    }

    /// Gets the coroutine its stack, for a call at `spawned_at`.
    pub(crate) fn prepare(self, spawned_at: &'static Location<'static>) -> Result<Prepared, SpawnError> {
        let stack_size_bytes = engine::stack_size_bytes(self.stack_size_bytes);
        let label = Label { name: self.name.map(|name| name.into_owned().into_boxed_str()), spawned_at };
        match Fiber::new(stack_size_bytes, label) {
            Ok(fiber) => Ok(Prepared { fiber, span: self.span, discarded: self.discarded }),
            Err(error) => {
                let running = with_current(|me| me.map_or(0, |me| me.group.len()));
                Err(match error {
                    StackError::Memory(source) => SpawnError::Memory { running, stack_size_bytes, source },
                    StackError::Mappings { max_map_count } => SpawnError::Mappings { running, max_map_count },
                })
            }
        }
    }

    /// Starts the coroutine, as [`spawn`] does.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] when there is no stack for it.
    ///
    /// # Panics
    ///
    /// Outside `run`.
    #[track_caller]
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> Result<JoinHandle<T>, SpawnError> {
        let group = current().group().clone();
        let prepared = self.prepare(Location::caller())?;
        let packet = Packet::new(group.clone());
        let ended = packet.clone();
        let start = Start { group, is_scoped: false, deadline: None };
        let coroutine = prepared.start(start, f, move |outcome| ended.settle(outcome));
        Ok(JoinHandle { coroutine, packet })
    }

    /// Starts the coroutine as a child of `scope`, as [`Scope::spawn`] does.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] when there is no stack for it.
    ///
    /// # Panics
    ///
    /// While the caller unwinds.
    #[track_caller]
    pub fn spawn_scoped<'scope, T: 'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: impl FnOnce() -> T + 'scope,
    ) -> Result<ScopedJoinHandle<'scope, T>, SpawnError> {
        scope.start(self, scope.group(), f)
    }
}
