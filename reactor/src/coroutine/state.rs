//! What can be told of a coroutine from outside, for [`crate::dump`].

use std::time::Duration;

use super::{Coroutine, with_current};
use crate::dump::CoroutineState;

impl Coroutine {
    pub(crate) fn state(&self) -> CoroutineState {
        let is_current = with_current(|me| me.is_some_and(|me| std::ptr::eq(self, me)));
        if is_current {
            return CoroutineState::Running;
        }
        if self.scheduled.get() {
            return CoroutineState::Runnable;
        }
        match self.waits_for.get() {
            Some(what) => {
                let waited_ns = self.group.coarse_now_ns().saturating_sub(self.suspended_at_ns.get());
                CoroutineState::Waiting { what, waited: Duration::from_nanos(waited_ns) }
            }
            None => CoroutineState::Spawning,
        }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.has_termination()
    }

    pub(crate) fn parent(&self) -> Option<u64> {
        (self.parent != 0).then_some(self.parent)
    }

    pub(crate) fn is_scoped(&self) -> bool {
        self.is_scoped
    }

    pub(crate) fn stack_size_bytes(&self) -> usize {
        self.fiber.stack_size_bytes()
    }

    pub(crate) fn stack_top(&self) -> usize {
        self.fiber.stack_top()
    }
}
