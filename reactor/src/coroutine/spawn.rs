//! How a coroutine starts.

use std::cell::{Cell, OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::{
    CURRENT, Coroutine, Cut, Ending, JoinHandle, Outcome, Packet, Wait, current, go_on, leave,
    settle_overflow,
};
use crate::run::Group;
use crate::{driver, engine};

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

/// Starts a coroutine whose body never unwinds past `done`. Runs it at once until it first suspends.
pub(crate) fn start<T: 'static>(
    stack_size_bytes: Option<usize>,
    group: Rc<Group>,
    ending: Rc<dyn Ending>,
    body: impl FnOnce() -> T + 'static,
    done: impl FnOnce(Outcome<T>) + 'static,
) -> Result<Rc<Coroutine>, SpawnError> {
    driver::admit_coroutine()?;
    let child = Rc::new(Coroutine {
        fiber: OnceCell::new(),
        scheduled: Cell::new(false),
        finished: Cell::new(false),
        cut: Cell::new(None),
        uninterruptible_depth: Cell::new(0),
        group,
        slot: Cell::new(0),
        wait: Wait::default(),
        open_scopes: Cell::new(0),
        ending: RefCell::new(Some(ending)),
    });
    child.group.on_start(&child);

    let parent = CURRENT.take();
    let nested = driver::enter_nested();
    let me = child.clone();
    engine::launch(stack_size_bytes, move || {
        let _ = me.fiber.set(engine::current());
        go_on(Some(me.clone()));
        let outcome = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(value) => Outcome::Returned(value),
            Err(payload) => match payload.downcast::<Cut>() {
                Ok(_) => Outcome::Terminated,
                Err(payload) => Outcome::Panicked(payload),
            },
        };
        // First the result, which may be dropped here and whose destructor may suspend; then the end.
        done(outcome);
        me.finished.set(true);
        me.unschedule();
        me.ending.take();
        me.group.on_finish(&me);
        driver::note_finished();
        leave(&me);
    });
    // Back from the child's first suspension, its end, or its overflow.
    settle_overflow();
    drop(nested);
    go_on(parent);
    Ok(child)
}

/// Starts a coroutine, which runs at once until it first suspends.
///
/// It ends with the enclosing [`crate::run`] at the latest. To let it borrow, see [`crate::scope`].
///
/// # Panics
///
/// Outside `run`, or where [`Builder::spawn`] fails.
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
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

/// Sets a coroutine up before it starts.
#[derive(Debug, Default, Clone)]
pub struct Builder {
    stack_size_bytes: Option<usize>,
}

impl Builder {
    /// The defaults: 128 KiB of stack, of which only touched pages take memory.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Gives the coroutine a stack of this size; it is not pooled, so it costs an `mmap` at each spawn.
    pub fn stack_size_bytes(mut self, size: usize) -> Builder {
        self.stack_size_bytes = Some(size);
        self
    }

    /// Starts the coroutine.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] near the kernel's limit of memory mappings: some 30,000 coroutines by default.
    ///
    /// # Panics
    ///
    /// Outside `run`.
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> Result<JoinHandle<T>, SpawnError> {
        let group = current().group().clone();
        let packet = Packet::new(group.clone());
        let ended = packet.clone();
        let coroutine =
            start(self.stack_size_bytes, group, packet.clone(), f, move |outcome| ended.settle(outcome))?;
        Ok(JoinHandle { coroutine, packet })
    }
}
