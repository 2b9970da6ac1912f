//! How far a request and its answer have come, and so what may be written next. Pure.
//!
//! A client may wait for `100 Continue` before it sends its body (RFC 9110 section 10.1.1). That is an interim answer, so
//! it has its place before the final head and nowhere else: inside a body it would be taken for data. Whoever writes or
//! reads asks here first.
//!
//! What it is not: the framing of bodies (`http/body.rs`), or how long anything may take (`patience.rs`).

use std::cell::Cell;

/// What is known of the request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coming {
    /// It comes, or there is none.
    Sure,
    /// The client waits for `100 Continue` before it sends it.
    Held,
    /// The client has its answer and was never told to go on: nobody knows whether it sends the body.
    Unknown,
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    coming: Cell<Coming>,
    /// The final head is written.
    answered: Cell<bool>,
}

impl Exchange {
    pub(super) fn new() -> Exchange {
        Exchange { coming: Cell::new(Coming::Sure), answered: Cell::new(false) }
    }

    /// The next request's head has come.
    pub(super) fn begin(&self, expects_continue: bool) {
        self.coming.set(if expects_continue { Coming::Held } else { Coming::Sure });
        self.answered.set(false);
    }

    /// The body is about to be read: whether the client must be told to go on now.
    pub(super) fn on_body_wanted(&self) -> bool {
        let tell = self.coming.get() == Coming::Held && !self.answered.get();
        if tell {
            self.coming.set(Coming::Sure);
        }
        tell
    }

    /// The final head is written.
    pub(super) fn on_head(&self) {
        self.answered.set(true);
        if self.coming.get() == Coming::Held {
            self.coming.set(Coming::Unknown);
        }
    }

    /// Whether the client still waits to be told to go on.
    pub(super) fn is_held(&self) -> bool {
        self.coming.get() == Coming::Held
    }

    /// Whether what is left of the body will come, so that the next request can be found behind it.
    pub(super) fn body_comes(&self) -> bool {
        self.coming.get() == Coming::Sure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_to_go_on_once_and_never_after_its_answer_has_begun() {
        let exchange = Exchange::new();
        for (expects, wanted_first, told, comes) in [
            // expects 100, the body is read before the head; told to go on, the body comes
            (true, true, true, true),
            (true, false, false, false),
            (false, true, false, true),
            (false, false, false, true),
        ] {
            exchange.begin(expects);
            assert_eq!(wanted_first && exchange.on_body_wanted(), told);
            exchange.on_head();
            assert!(!exchange.on_body_wanted(), "an interim answer would be taken for data");
            assert_eq!(exchange.body_comes(), comes);
        }
    }
}
