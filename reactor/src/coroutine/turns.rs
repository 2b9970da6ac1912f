//! What changes hands at each switch: who runs, who runs next, and what is counted meanwhile.
//!
//! All of it is one value of the thread, in one place. Each `thread_local!` of another module is a call to be asked for,
//! and a switch asks for all of these: one apart for each made it a third slower.
//!
//! Not here: when coroutines run ([`crate::driver`]), how stacks are switched ([`crate::engine`]).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use super::Coroutine;
use super::budget::BUDGET;

pub(crate) struct Turns {
    /// The coroutine whose code runs, or `None` while the driver or nobody does.
    current: Cell<Option<Rc<Coroutine>>>,
    /// Those that may go on, in the order in which they will.
    ready: RefCell<VecDeque<Rc<Coroutine>>>,
    /// What is left of the running coroutine's budget.
    pub(super) budget: Cell<u32>,
    /// Suspensions and ends since the last look at the poller.
    switch_count: Cell<u32>,
    /// The time of the last look at the poller, in nanoseconds since the start of the run.
    now_ns: Cell<u64>,
    /// There is a watchdog, which is told who runs.
    is_watched: Cell<bool>,
}

thread_local! {
    // Without a destructor, whose state each access would have to ask for: while no reactor runs, it holds nothing.
    static TURNS: ManuallyDrop<Turns> = const {
        ManuallyDrop::new(Turns {
            current: Cell::new(None),
            ready: RefCell::new(VecDeque::new()),
            budget: Cell::new(BUDGET),
            switch_count: Cell::new(0),
            now_ns: Cell::new(0),
            is_watched: Cell::new(false),
        })
    };
}

/// Shows `look` the thread's turns. Whoever has them at hand passes them on.
#[inline(always)]
pub(crate) fn with<R>(look: impl FnOnce(&Turns) -> R) -> R {
    TURNS.with(|turns| look(turns))
}

impl Turns {
    /// The running coroutine.
    #[inline(always)]
    pub(super) fn current(&self) -> Option<Rc<Coroutine>> {
        let me = self.current.take();
        self.current.set(me.clone());
        me
    }

    /// Shows `look` the running coroutine, if one runs. `look` must not suspend nor unwind.
    #[inline(always)]
    pub(super) fn with_current<R>(&self, look: impl FnOnce(Option<&Coroutine>) -> R) -> R {
        let me = self.current.take();
        let result = look(me.as_deref());
        self.current.set(me);
        result
    }

    /// Lets another be the one that runs; who was.
    #[inline(always)]
    pub(super) fn replace_current(&self, next: Option<Rc<Coroutine>>) -> Option<Rc<Coroutine>> {
        self.current.replace(next)
    }

    /// Puts a coroutine, which is not there yet, at the end of those that may go on.
    #[inline(always)]
    pub(super) fn push(&self, coroutine: Rc<Coroutine>) {
        self.ready.borrow_mut().push_back(coroutine);
    }

    /// Takes the first of those that may go on.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<Rc<Coroutine>> {
        self.ready.borrow_mut().pop_front()
    }

    /// How many may go on.
    pub(crate) fn ready_count(&self) -> usize {
        self.ready.borrow().len()
    }

    /// The run has ended: who is left has ended, woken though it was.
    pub(crate) fn end(&self) {
        let left = self.ready.take();
        drop(left);
    }

    /// A coroutine is about to suspend or to end; the time, which is that of the last look at the poller: the clock itself
    /// would cost more than the switch does.
    #[inline(always)]
    pub(super) fn on_switch(&self) -> u64 {
        self.switch_count.set(self.switch_count.get() + 1);
        self.now_ns.get()
    }

    /// Suspensions and ends since [`Turns::restart_count`].
    #[inline(always)]
    pub(crate) fn switch_count(&self) -> u32 {
        self.switch_count.get()
    }

    pub(crate) fn restart_count(&self) {
        self.switch_count.set(0);
    }

    /// The poller has been looked at.
    pub(crate) fn set_now_ns(&self, now_ns: u64) {
        self.now_ns.set(now_ns);
    }

    #[inline(always)]
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched.get()
    }

    /// Whether a watchdog is told who runs.
    pub(crate) fn set_watched(&self, is_watched: bool) {
        self.is_watched.set(is_watched);
    }
}
