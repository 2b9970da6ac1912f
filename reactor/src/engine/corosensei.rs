//! Fibers by the crate `corosensei`: the only file that names it.
//!
//! It switches stacks, and nothing else. The stacks are ours ([`Stack`]): allocating one can fail, and is done before
//! anything else of a coroutine is. A fiber stays on its thread, which no type here is `Send` past.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::ptr;

use corosensei::{Coroutine, CoroutineResult, Yielder, stack};

use super::overflow::{self, Label, Watched};
use super::stack::Stack;
use super::{AbortOnUnwind, StackError};

/// The largest body, by what it captures, that lies on its own stack: half a page is left for its calls.
const BODY_SIZE_MAX: usize = 1024;

type Inner = Coroutine<(), (), (), Stack>;
type Yield = Yielder<(), ()>;

// SAFETY: a `Stack` has a guard below its usable bytes, which are page-aligned at both ends and more than the crate's
// minimum (`stack::Stack::new` rounds up, and `super::stack_size_bytes` has a floor above it).
unsafe impl stack::Stack for Stack {
    fn base(&self) -> NonZeroUsize {
        self.top()
    }

    fn limit(&self) -> NonZeroUsize {
        self.limit()
    }
}

thread_local! {
    /// What the running fiber suspends by; null while none runs.
    static YIELDER: Cell<*const Yield> = const { Cell::new(ptr::null()) };
}

/// Code with a stack of its own.
pub(crate) struct Fiber {
    state: RefCell<State>,
    yielder: Cell<*const Yield>,
    watched: Watched,
    /// The last address of its stack.
    stack_top: usize,
}

enum State {
    /// It has a stack, and no code yet.
    Idle(Stack),
    Alive(Inner),
    Ended,
}

impl Fiber {
    /// A fiber with a stack and without code. Where there is no stack, nothing has happened.
    pub(crate) fn new(stack_size_bytes: usize, label: Label) -> Result<Fiber, StackError> {
        let stack = Stack::new(stack_size_bytes)?;
        let watched = Watched {
            label,
            stack_size_bytes: stack.size_bytes(),
            guard: Cell::new((stack.limit().get(), stack.bottom())),
        };
        let stack_top = stack.top().get() - 1;
        let state = RefCell::new(State::Idle(stack));
        Ok(Fiber { state, yielder: Cell::new(ptr::null()), watched, stack_top })
    }

    /// Gives the fiber its code, which runs at the first [`Fiber::resume`] and must not unwind.
    pub(crate) fn begin(&self, body: impl FnOnce() + 'static) {
        // It lies on the fiber's own stack, where it costs no memory of its own, unless it is too large for that.
        if size_of_val(&body) <= BODY_SIZE_MAX {
            self.begin_on_stack(body)
        } else {
            self.begin_on_stack(Box::new(body))
        }
    }

    fn begin_on_stack(&self, body: impl FnOnce() + 'static) {
        let mut state = self.state.borrow_mut();
        let State::Idle(stack) = std::mem::replace(&mut *state, State::Ended) else {
            unreachable!("a fiber begins once")
        };
        *state = State::Alive(Coroutine::with_stack(stack, move |yielder: &Yield, ()| {
            YIELDER.set(ptr::from_ref(yielder));
            let bomb = AbortOnUnwind("a coroutine's last code");
            body();
            bomb.disarm();
        }));
    }

    /// Runs the fiber until it suspends or ends; then its stack goes back.
    ///
    /// Inlined: see [`suspend`].
    #[inline(always)]
    pub(crate) fn resume(&self) {
        // Borrowed meanwhile: nobody can resume it twice.
        let mut state = self.state.borrow_mut();
        let State::Alive(inner) = &mut *state else { unreachable!("only a fiber that is alive is resumed") };
        let outer_watched = overflow::watch(&self.watched);
        let outer_yielder = YIELDER.replace(self.yielder.get());
        let result = inner.resume(());
        let yielder = YIELDER.replace(outer_yielder);
        overflow::unwatch(outer_watched);
        match result {
            CoroutineResult::Yield(()) => self.yielder.set(yielder),
            CoroutineResult::Return(()) => {
                if let State::Alive(inner) = std::mem::replace(&mut *state, State::Ended) {
                    drop(inner.into_stack());
                }
            }
        }
    }

    /// What it is called.
    pub(crate) fn label(&self) -> &Label {
        &self.watched.label
    }

    /// The size of its stack.
    pub(crate) fn stack_size_bytes(&self) -> usize {
        self.watched.stack_size_bytes
    }

    /// An address in the topmost page of its stack.
    pub(crate) fn stack_top(&self) -> usize {
        self.stack_top
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        if let State::Alive(inner) = &*self.state.borrow()
            && inner.started()
        {
            // Its frames may be borrowed from, and unwinding them from here would be out of its turn.
            eprintln!("reactor: a suspended coroutine was let go of; this is a bug, aborting");
            std::process::abort();
        }
    }
}

/// Suspends the running fiber: whoever resumed it goes on, until it is resumed again.
///
/// Inlined, and so is all around it on both sides of the switch. The processor foretells where a `ret` goes by the calls
/// that it has seen, and has seen those of the stack that is left: each frame between the switch and who waits is one `ret`
/// foretold wrongly, and so is one of the other side's.
#[inline(always)]
pub(crate) fn suspend() {
    let yielder = YIELDER.get();
    assert!(!yielder.is_null(), "only a fiber can be suspended");
    // SAFETY: it is the running fiber's, and lies at the bottom of that fiber's stack until it ends: the fiber's own code
    // or `Fiber::resume` set it as the fiber went on, and `Fiber::resume` replaces it as soon as the fiber is left.
    unsafe { (*yielder).suspend(()) };
}

/// Calls `main` where fibers can be resumed: here.
pub(crate) fn host(main: Box<dyn FnOnce() + Send + '_>) {
    let _handler_stack = overflow::guard_thread();
    main();
}
