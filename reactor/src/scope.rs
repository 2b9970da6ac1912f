//! Children that borrow from their parent's stack and never outlive it.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;

use crate::cell::RefCell;
use crate::coroutine::{
    self, Builder, Coroutine, Cut, Outcome, Packet, Payload, SpawnError, Start, Terminated, What,
};
use crate::engine::{self, AbortOnUnwind};
use crate::run::Group;
use crate::select::{Selectable, source::Source};
use crate::sync::WaitList;

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
        let bomb = AbortOnUnwind("the wait for a scope's children");
        self.terminate_children();
        let wait = || {
            while self.running_count.get() > 0 {
                coroutine::park_on(CHILDREN);
            }
        };
        coroutine::in_any_case(|| coroutine::uninterruptible(wait));
        bomb.disarm();
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
    let call = coroutine::begin();
    let state = Rc::new(State {
        parent: coroutine::current(),
        cut: Cut::new(),
        children: RefCell::new(Vec::new()),
        running_count: Cell::new(0),
        failure: RefCell::new(None),
        body_ended: Cell::new(false),
    });
    let scope = Scope { state: state.clone(), scope: PhantomData, env: PhantomData };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    state.body_ended.set(true);
    let raised = state.parent.withdraw_cut(state.cut);
    if result.is_err() {
        state.end_children();
    } else {
        if raised {
            state.parent.note_swallowed("a scope's failure", "left the scope by itself");
        }
        match state.running_count.get() {
            0 => call.needed_no_wait(),
            _ => state.wait_for_children(),
        }
    }
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
    /// When there is no stack for it, as [`crate::spawn`] does; while the caller unwinds.
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
    /// [`SpawnError`] when there is no stack for it. `f` is dropped then.
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
        let prepared = builder.discarded(self.state.failure.borrow().is_some()).prepare(Location::caller())?;
        let packet = Packet::new(group.clone());
        let returned = packet.clone();
        let body: Box<dyn FnOnce() + 'scope> = Box::new(move || returned.keep(f()));
        let (ended, state) = (packet.clone(), self.state.clone());
        let done: Box<dyn FnOnce(Outcome<()>) + 'scope> = Box::new(move |outcome| {
            // Its joiners learn of its end. A result that nobody waits for goes here, on the child and before it counts
            // as ended: its destructor may use what it borrows.
            let failure = catch_unwind(AssertUnwindSafe(|| ended.settle_kept(outcome)));
            if let Ok(Some(payload)) | Err(payload) = failure
                && !payload.is::<Cut>()
            {
                state.on_failure(payload);
            }
            state.on_child_end();
        });
        // SAFETY: what `body` and `done` borrow lives for 'scope, which `scope` above does not leave before
        // `running_count` is zero, and a child is counted down by the last act of `done`: by then `body` has returned or
        // unwound or been dropped, its result has gone to a joiner or been dropped, and neither is used again. This holds
        // when `f` or a child panics (both are caught there) and when the parent is terminated (`wait_for_children` waits
        // on, uninterruptibly, and ends the process rather than unwind). Overflows end the process.
        let (body, done) = unsafe { (engine::erase_lifetime(body), erase_lifetime_of_done(done)) };
        self.state.running_count.set(self.state.running_count.get() + 1);
        let deadline = self.state.parent.deadline.get();
        let coroutine = prepared.start(Start { group, is_scoped: true, deadline }, body, done);
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

/// As [`engine::erase_lifetime`], for a child's end.
///
/// # Safety
///
/// As there.
unsafe fn erase_lifetime_of_done<'a>(
    done: Box<dyn FnOnce(Outcome<()>) + 'a>,
) -> Box<dyn FnOnce(Outcome<()>) + 'static> {
    type Done<'a> = Box<dyn FnOnce(Outcome<()>) + 'a>;
    // SAFETY: the types differ by lifetime only; the caller vouches for the rest.
    unsafe { std::mem::transmute::<Done<'a>, Done<'static>>(done) }
}

/// A child's handle. Dropping it changes nothing: the scope waits for the child all the same.
pub struct ScopedJoinHandle<'scope, T> {
    coroutine: Rc<Coroutine>,
    packet: Rc<Packet<T>>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the child's end and returns its result, once.
    ///
    /// # Errors
    ///
    /// [`Terminated`] if it was terminated, or if it panicked (which the scope itself then raises).
    ///
    /// # Panics
    ///
    /// When it has been joined already.
    ///
    /// # Suspends
    ///
    /// Until the child ends.
    pub fn join(&self) -> Result<T, Terminated> {
        match self.packet.take() {
            Outcome::Returned(value) => Ok(value),
            Outcome::Terminated | Outcome::Panicked(_) => Err(Terminated),
        }
    }

    /// Makes the call that the child waits in unwind, or else the next one that may suspend.
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
    pub fn terminate_and_wait(&self) -> Result<T, Terminated> {
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

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        self.packet.rows(row);
    }
}

impl<T> Selectable for ScopedJoinHandle<'_, T> {}
