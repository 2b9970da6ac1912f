//! How a coroutine starts.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use tracing::Span;

use super::{
    CURRENT, Coroutine, Cut, Ending, JoinHandle, Outcome, Packet, Wait, current, go_on, leave, panic_message,
    settle_overflow, spans, with_current,
};
use crate::run::Group;
use crate::scope::{Scope, ScopedJoinHandle};
use crate::{driver, engine, watchdog};

/// Spawning was refused: the process is near the kernel's limit of memory mappings.
#[derive(Debug, thiserror::Error)]
#[error(
    "{running} coroutines run already and each takes two memory mappings; raise `sysctl vm.max_map_count` \
     (now {max_map_count}) to run more"
)]
#[non_exhaustive]
pub struct SpawnError {
    /// Coroutines that exist now.
    pub running: usize,
    /// The kernel's `vm.max_map_count`.
    pub max_map_count: usize,
}

/// What a coroutine starts with.
pub(crate) struct Start {
    pub(crate) builder: Builder,
    pub(crate) spawned_at: &'static Location<'static>,
    pub(crate) group: Rc<Group>,
    pub(crate) ending: Rc<dyn Ending>,
    /// Those for whom a scope works wait no longer for its children.
    pub(crate) deadline: Option<Instant>,
}

/// Starts a coroutine whose body never unwinds past `done`. Runs it at once until it first suspends.
///
/// Where it is terminated before it starts, `body` is dropped here without having run.
pub(crate) fn start<T: 'static>(
    start: Start,
    body: impl FnOnce() -> T + 'static,
    done: impl FnOnce(Outcome<T>) + 'static,
) -> Result<Rc<Coroutine>, SpawnError> {
    driver::admit_coroutine()?;
    let child = Rc::new(Coroutine {
        fiber: OnceCell::new(),
        scheduled: Cell::new(false),
        finished: Cell::new(false),
        cut_raised: Cell::new(false),
        cut: Cell::new(None),
        uninterruptible_depth: Cell::new(0),
        group: start.group,
        slot: Cell::new(0),
        wait: Wait::default(),
        open_scopes: Cell::new(0),
        deadline: Cell::new(start.deadline),
        ending: Cell::new(Some(start.ending)),
        spawned_at: start.spawned_at,
        number: driver::next_number(),
        parent: with_current(|parent| parent.map_or(0, |parent| parent.number)),
        waits_for: Cell::new(None),
        suspended_at_ns: Cell::new(0),
        stack_top: Cell::new(0),
        rare: OnceCell::new(),
    });
    if let Some(name) = start.builder.name {
        child.set_name(&name);
    }
    child.group.on_start(&child);
    watchdog::on_start(&child);
    if start.builder.discarded || child.cut.get().is_some() {
        drop(body);
        done(Outcome::Terminated);
        child.finish();
        return Ok(child);
    }

    let span = start.builder.span.or_else(spans::current);
    let spans_of_parent = if spans::are_possible() { spans::leave() } else { None };
    let parent = CURRENT.take();
    let nested = driver::enter_nested();
    let me = child.clone();
    engine::launch(start.builder.stack_size_bytes, move || {
        let _ = me.fiber.set(engine::current());
        me.stack_top.set(std::ptr::from_ref(&me).addr());
        go_on(Some(me.clone()));
        let span = span.map(Span::entered);
        let outcome = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(value) => {
                me.check_swallowed_at_end();
                Outcome::Returned(value)
            }
            Err(payload) => match payload.downcast::<Cut>() {
                Ok(_) => Outcome::Terminated,
                Err(payload) => Outcome::Panicked(payload),
            },
        };
        // First what it kept, whose destructors may suspend, even where it was terminated; then its result,
        // which may be dropped here; then the end.
        done(me.drop_locals_after(outcome));
        drop(span);
        me.finish();
        CURRENT.set(None);
        leave(&me);
    });
    // Back from the child's first suspension, its end, or its overflow.
    settle_overflow();
    drop(nested);
    go_on(parent);
    spans::enter(spans_of_parent);
    Ok(child)
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
        self.unschedule();
        self.ending.take();
        self.group.on_finish(self);
        watchdog::on_finish(self.number);
        driver::note_finished();
    }
}

/// Starts a coroutine, which runs at once until it first suspends.
///
/// It ends with the enclosing [`crate::run`] at the latest. To let it borrow, see [`crate::scope`].
///
/// # Panics
///
/// Outside `run`. Near the kernel's limit of memory mappings, some 30,000 coroutines by default: a server that
/// starts one for each client calls [`try_spawn`], and refuses the client instead.
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
/// [`SpawnError`] near the kernel's limit of memory mappings. `f` is dropped then, and with it the connection
/// that it was to serve.
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
    /// The defaults: 128 KiB of stack, of which only touched pages take memory, and the place of the call that
    /// spawns it for a name.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Gives the coroutine a stack of this size; it is not pooled, so it costs an `mmap` at each spawn.
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

    /// Starts the coroutine, as [`spawn`] does.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] near the kernel's limit of memory mappings: some 30,000 coroutines by default.
    ///
    /// # Panics
    ///
    /// Outside `run`.
    #[track_caller]
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> Result<JoinHandle<T>, SpawnError> {
        let group = current().group().clone();
        let packet = Packet::new(group.clone());
        let ended = packet.clone();
        let of_start = Start {
            builder: self,
            spawned_at: Location::caller(),
            group,
            ending: packet.clone(),
            deadline: None,
        };
        let coroutine = start(of_start, f, move |outcome| ended.settle(outcome))?;
        Ok(JoinHandle { coroutine, packet })
    }

    /// Starts the coroutine as a child of `scope`, as [`Scope::spawn`] does.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] near the kernel's limit of memory mappings.
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
