//! Children that borrow from their parent's stack and never outlive it.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;

use crate::coroutine::{
    self, Builder, Coroutine, Cut, Ending, Outcome, Packet, Payload, SpawnError, Start, Terminated, What,
};
use crate::engine;
use crate::run::Group;
use crate::select::{Selectable, Waiter, source::Source};

/// What a parent waits for at its scope's end.
const CHILDREN: What = &"its children";

/// Where children are spawned; see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    state: Rc<State>,
    // Invariant in both, as in `std::thread::Scope`: neither may be shortened to sneak a borrow in.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

struct State {
    parent: Rc<Coroutine>,
    cut: Cut,
    children: RefCell<Vec<Rc<Coroutine>>>,
    running_count: Cell<usize>,
    failure: RefCell<Option<Payload>>,
    body_ended: Cell<bool>,
}

impl State {
    fn terminate_children(&self) {
        let children = self.children.borrow().clone();
        for child in children {
            child.terminate();
        }
    }

    fn on_failure(&self, payload: Payload) {
        if self.failure.borrow().is_some() {
            tracing::error!(
                coroutine = coroutine::label_of_current(),
                "it panicked in a scope that ends with an earlier panic: {}",
                coroutine::panic_message(&payload)
            );
            return;
        }
        *self.failure.borrow_mut() = Some(payload);
        self.terminate_children();
        if !self.body_ended.get() {
            self.parent.cut_to(self.cut);
        }
    }

    fn on_child_end(&self) {
        self.running_count.set(self.running_count.get() - 1);
        if self.running_count.get() == 0 {
            self.parent.wake();
        }
    }

    /// Waits for all children. A termination of the parent meanwhile is passed on to them.
    fn wait_for_children(&self) {
        while self.running_count.get() > 0 {
            if let Err(payload) = catch_unwind(|| coroutine::park_on(CHILDREN)) {
                self.end_children();
                resume_unwind(payload);
            }
        }
    }

    /// Terminates all children and waits for them, whatever happens to the parent meanwhile.
    fn end_children(&self) {
        self.terminate_children();
        coroutine::uninterruptible(|| {
            while self.running_count.get() > 0 {
                coroutine::park_on(CHILDREN);
            }
        });
    }
}

/// Marks that a coroutine's children may borrow from its stack: see `coroutine::settle_overflow`.
struct Open(Rc<Coroutine>);

impl Open {
    fn new(parent: &Rc<Coroutine>) -> Open {
        parent.open_scopes.set(parent.open_scopes.get() + 1);
        Open(parent.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_scopes.set(self.0.open_scopes.get() - 1);
    }
}

impl Ending for State {
    fn is_scoped(&self) -> bool {
        true
    }

    fn on_overflow(&self, payload: Payload) {
        self.on_failure(payload);
        self.on_child_end();
    }
}

/// Runs `f`, which may spawn children that borrow from here, and returns when `f` and all of them have ended.
///
/// The first child that panics terminates its siblings and `f`'s own blocking call; the panic is raised here.
/// Panics that follow are logged with their messages.
/// When `f` itself unwinds, or its coroutine is terminated, the children are terminated first.
///
/// # Panics
///
/// With the first panic of `f` or of a child. Outside [`crate::run`].
///
/// # Suspends
///
/// Until all children have ended.
///
/// # Examples
///
/// ```
/// reactor::run(|| {
///     let words = ["one", "two"];
///     let lengths = reactor::scope(|s| {
///         let children = words.map(|word| s.spawn(move || word.len()));
///         children.map(|child| child.join().unwrap())
///     });
///     assert_eq!(lengths, [3, 3]);
/// });
/// ```
pub fn scope<'env, R>(f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
    let state = Rc::new(State {
        parent: coroutine::current(),
        cut: Cut::new(),
        children: RefCell::new(Vec::new()),
        running_count: Cell::new(0),
        failure: RefCell::new(None),
        body_ended: Cell::new(false),
    });
    let scope = Scope { state: state.clone(), scope: PhantomData, env: PhantomData };
    let open = Open::new(&state.parent);
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    state.body_ended.set(true);
    let raised = state.parent.withdraw_cut(state.cut);
    if result.is_err() {
        state.end_children();
    } else {
        if raised {
            state.parent.note_swallowed("a scope's failure", "left the scope by itself");
        }
        state.wait_for_children();
    }
    drop(open);
    match (state.failure.take(), result) {
        (Some(failure), _) => resume_unwind(failure),
        (None, Err(payload)) => resume_unwind(payload),
        (None, Ok(value)) => value,
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Starts a child, which runs at once until it first suspends.
    ///
    /// In a scope that fails already the child is discarded: `f` is dropped and never runs.
    ///
    /// # Panics
    ///
    /// Near the kernel's limit of memory mappings, as [`crate::spawn`] does; while the caller unwinds.
    #[track_caller]
    pub fn spawn<T: 'scope>(&'scope self, f: impl FnOnce() -> T + 'scope) -> ScopedJoinHandle<'scope, T> {
        match Builder::new().spawn_scoped(self, f) {
            Ok(handle) => handle,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`Scope::spawn`], for those who can do without.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] near the kernel's limit of memory mappings. `f` is dropped then.
    ///
    /// # Panics
    ///
    /// While the caller unwinds.
    #[track_caller]
    pub fn try_spawn<T: 'scope>(
        &'scope self,
        f: impl FnOnce() -> T + 'scope,
    ) -> Result<ScopedJoinHandle<'scope, T>, SpawnError> {
        Builder::new().spawn_scoped(self, f)
    }

    /// Terminates all children that run now; further ones may be started. Never suspends.
    pub fn terminate_children(&self) {
        self.state.terminate_children();
    }

    pub(crate) fn group(&self) -> Rc<Group> {
        self.state.parent.group().clone()
    }

    /// As [`Scope::spawn`], with the child in another group than its parent's.
    pub(crate) fn spawn_in<T: 'scope>(
        &'scope self,
        group: Rc<Group>,
        stack_size_bytes: usize,
        f: impl FnOnce() -> T + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        let builder = Builder::new().name("main").stack_size_bytes(stack_size_bytes);
        self.start(builder, group, f).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a child that `builder` describes, in `group`.
    #[track_caller]
    pub(crate) fn start<T: 'scope>(
        &'scope self,
        builder: Builder,
        group: Rc<Group>,
        f: impl FnOnce() -> T + 'scope,
    ) -> Result<ScopedJoinHandle<'scope, T>, SpawnError> {
        assert!(coroutine::may_suspend(), "a scope can't spawn while its coroutine unwinds");
        let packet = Packet::new(group.clone());
        // However `f` ends, run or not, its joiners learn of it before the child counts as ended.
        let ended = Ended(packet.clone());
        let body: Box<dyn FnOnce() + 'scope> = Box::new(move || {
            let ended = ended;
            ended.0.fill(Outcome::Returned(f()));
        });
        // SAFETY: what `body` borrows lives for 'scope, which `scope` above does not leave before
        // `running_count` is zero, and a child is counted down only once its body has returned or unwound, and
        // so been dropped. This holds when `f` or a child panics (both are caught there) and when the parent
        // is terminated (`wait_for_children` waits on, uninterruptibly). A child whose stack overflows is
        // counted down without unwinding: its frames are never run nor dropped. A parent whose stack overflows
        // inside a scope ends the process before any child runs again (`coroutine::settle_overflow`).
        let body = unsafe { engine::erase_lifetime(body) };
        let state = self.state.clone();
        state.running_count.set(state.running_count.get() + 1);
        let ended = state.clone();
        let failed = state.failure.borrow().is_some();
        let builder = builder.discarded(failed);
        let deadline = state.parent.deadline.get();
        let start = Start { builder, spawned_at: Location::caller(), group, ending: state, deadline };
        let started = coroutine::start(start, body, move |outcome| {
            if let Outcome::Panicked(payload) = outcome {
                ended.on_failure(payload);
            }
            ended.on_child_end();
        });
        let coroutine = started.inspect_err(|_| {
            self.state.running_count.set(self.state.running_count.get() - 1);
        })?;
        if !coroutine.is_finished() {
            let mut children = self.state.children.borrow_mut();
            // Swept once the ended ones outnumber the rest, so that spawning stays cheap on average.
            if children.len() > 2 * self.state.running_count.get() + 16 {
                children.retain(|child| !child.is_finished());
            }
            children.push(coroutine.clone());
            drop(children);
            // It may be what failed: then its siblings are told, and so is it.
            if self.state.failure.borrow().is_some() {
                coroutine.terminate();
            }
        }
        Ok(ScopedJoinHandle { coroutine, packet, scope: PhantomData })
    }
}

/// Tells the joiners of a child that returned nothing, when the child's body is left or discarded.
struct Ended<T>(Rc<Packet<T>>);

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        self.0.fill_if_empty(Outcome::Terminated);
    }
}

/// A child's handle. Dropping it changes nothing: the scope waits for the child all the same.
pub struct ScopedJoinHandle<'scope, T> {
    coroutine: Rc<Coroutine>,
    packet: Rc<Packet<T>>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the child's end and returns its result.
    ///
    /// # Errors
    ///
    /// [`Terminated`] if it was terminated, or if it panicked (which the scope itself then raises).
    ///
    /// # Suspends
    ///
    /// Until the child ends.
    pub fn join(self) -> Result<T, Terminated> {
        match self.packet.take() {
            Outcome::Returned(value) => Ok(value),
            Outcome::Terminated | Outcome::Panicked(_) => Err(Terminated),
        }
    }

    /// Makes the child's current or next blocking call unwind.
    pub fn terminate(&self) {
        self.coroutine.terminate();
    }

    /// Terminates the child and waits until it has ended, its destructors run.
    ///
    /// # Errors
    ///
    /// As [`ScopedJoinHandle::join`].
    ///
    /// # Suspends
    ///
    /// Until the child ends.
    pub fn terminate_and_wait(self) -> Result<T, Terminated> {
        self.terminate();
        self.join()
    }

    /// The child's name: see [`current_name`](crate::current_name).
    pub fn name(&self) -> String {
        self.coroutine.label()
    }

    /// Whether the child has ended.
    pub fn is_finished(&self) -> bool {
        self.coroutine.is_finished()
    }
}

/// Ready when the child has ended.
impl<T> Source for ScopedJoinHandle<'_, T> {
    fn is_ready(&self) -> bool {
        self.packet.is_ready()
    }

    fn enroll(&self, waiter: &Waiter) {
        self.packet.enroll(waiter);
    }

    fn withdraw(&self, waiter: &Waiter) {
        self.packet.withdraw(waiter);
    }
}

impl<T> Selectable for ScopedJoinHandle<'_, T> {}
