//! The frames of a suspended coroutine, as it tells them itself.
//!
//! Nobody else can: where its frames are is known to the machine only while it runs. So it is resumed, inside its wait
//! and for a moment, takes its own backtrace, and suspends again. Its wait goes on undisturbed: it has not been woken,
//! looks at nothing that it waits for, and is in the same rows as before. Whoever asks goes on where the answer comes.
//!
//! What it is not: a debugger. A coroutine that has started a child and lies below it on the chain of who resumed whom
//! can't be resumed, and has no answer.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::rc::Rc;

use super::{Coroutine, with_current};
use crate::engine;

/// Room that taking a backtrace may need: the unwinder's own frames, some 6 KiB here, twice over and more. A coroutine
/// that has less left is not asked, since an overflow would end the process.
const ROOM_BYTES: usize = 16 * 1024;

/// Whether a coroutine's code can be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Posture {
    /// It runs, or has resumed somebody who runs.
    Active,
    /// It is suspended.
    Suspended,
    /// It is suspended, and shall tell its frames when it is resumed.
    Asked,
}

thread_local! {
    static ANSWER: Cell<Option<Backtrace>> = const { Cell::new(None) };
}

/// Takes the caller's backtrace, whose frames begin below this function's: see [`crate::dump::Stack`].
#[inline(never)]
fn coroutine_tells_its_frames() -> Backtrace {
    let backtrace = Backtrace::force_capture();
    // Or the call above would be a jump, and this no frame.
    std::hint::black_box(());
    backtrace
}

/// Calls all of a coroutine's code, its end included: the last frame that is told of it.
#[inline(never)]
pub(super) fn coroutine_begins(life: impl FnOnce()) {
    life();
    // As above.
    std::hint::black_box(());
}

impl Coroutine {
    /// Its frames; `None` where it starts a child, or has too little stack left for telling them.
    pub(crate) fn frames(self: &Rc<Self>) -> Option<Backtrace> {
        if with_current(|me| me.is_some_and(|me| std::ptr::eq(&**self, me))) {
            return self.has_room().then(coroutine_tells_its_frames);
        }
        if self.posture.get() != Posture::Suspended {
            return None;
        }
        self.posture.set(Posture::Asked);
        self.fiber.resume();
        ANSWER.take()
    }

    /// Answers whoever has resumed it for that, until it is resumed to go on. Its name marks where those of its frames
    /// begin that are its own, as that of the function above does.
    #[cold]
    #[inline(never)]
    pub(super) fn coroutine_tells_its_frames_when_asked(&self) {
        while self.posture.get() == Posture::Asked {
            self.posture.set(Posture::Suspended);
            if self.has_room() {
                ANSWER.set(Some(coroutine_tells_its_frames()));
            }
            engine::suspend();
        }
    }

    /// Whether it, which runs, has stack enough left for taking a backtrace.
    fn has_room(&self) -> bool {
        let (here, size_bytes) = (0u8, self.stack_size_bytes());
        let left = std::ptr::from_ref(&here).addr().saturating_sub(self.stack_top() - size_bytes);
        // `may` knows a stack's top to a page or two. A sanitizer may keep variables elsewhere than on the stack, far away:
        // then nothing is known.
        (ROOM_BYTES..=size_bytes + ROOM_BYTES).contains(&left)
    }
}
