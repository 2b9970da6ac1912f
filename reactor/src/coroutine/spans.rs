//! `tracing` spans that follow their coroutine.
//!
//! A subscriber keeps the spans that are entered as a stack *of the thread*, which all coroutines share. So whoever
//! suspends exits the spans that it is in, innermost first, and enters them again when it goes on. They are asked
//! of the subscriber (`current_span`), hence it does not matter how they were entered: `#[instrument]`, a guard, or
//! `in_scope`. Each span stays alive meanwhile, since whoever entered it holds it on the suspended stack.
//!
//! Without a subscriber this is one load per switch. With one that does not tell its current span (`tracing`'s own
//! trait lets it, `tracing-subscriber`'s registry does) spans are left as they are.

use smallvec::SmallVec;
use tracing::{Dispatch, Span, dispatcher, span};

/// The spans that a suspended coroutine is in, innermost first.
pub(super) type Left = Option<Box<Spans>>;

pub(super) struct Spans {
    dispatch: Dispatch,
    ids: SmallVec<[span::Id; 4]>,
}

/// Whether there is a subscriber, and so may be spans.
#[inline]
pub(super) fn are_possible() -> bool {
    dispatcher::has_been_set()
}

/// Exits all spans that the thread is in.
#[cold]
pub(super) fn leave() -> Left {
    // Out of the closure: inside, a subscriber that itself asks for the default would get none.
    let dispatch = dispatcher::get_default(Dispatch::clone);
    let mut ids = SmallVec::new();
    while let Some(id) = dispatch.current_span().id().cloned() {
        dispatch.exit(&id);
        ids.push(id);
    }
    if ids.is_empty() { None } else { Some(Box::new(Spans { dispatch, ids })) }
}

/// Enters the spans again that `leave` exited.
#[inline]
pub(super) fn enter(left: Left) {
    if let Some(spans) = left {
        spans.ids.iter().rev().for_each(|id| spans.dispatch.enter(id));
    }
}

/// The innermost span of the running coroutine, for a child to be in.
pub(super) fn current() -> Option<Span> {
    are_possible().then(Span::current).filter(|span| !span.is_none())
}
