//! Whether the client is still there while its request is answered.
//!
//! A handler reads nothing more from its connection and so does not learn that nobody waits for its answer any more. The
//! housekeeper asks the line at each tick, without reading from it, and unwinds the connection's coroutine where the client
//! has left: the handler is terminated as coroutines are, its destructors run, and its children go with it.
//!
//! A client that has ended its own direction may be gone, or may only have said all that it wanted to say (a half-closed
//! connection): TCP does not tell which until something is written. So it is waited for, however long its answer takes,
//! unless the server's owner knows better ([`super::Limits::half_closed_time`]); and then too while anything moves.
//!
//! What it is not: for connections that were taken over (WebSockets), which read and so learn it by themselves.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::cell::RefCell;
use crate::coroutine::Cut;
use crate::net::{PeerWatch, Presence};

/// One connection's client, as far as it is known.
pub(super) struct Attendance {
    /// To the bottom of the connection. Older than all other frames there, and so it wins over them.
    pub(super) leaving: Cut,
    line: RefCell<Option<Rc<dyn PeerWatch>>>,
    answering: Cell<bool>,
    /// When the client was first seen to have ended its direction, while this request was answered.
    half_closed_at_ms: Cell<Option<u64>>,
}

impl Attendance {
    pub(super) fn new() -> Attendance {
        Attendance {
            leaving: Cut::new(),
            line: RefCell::new(None),
            answering: Cell::new(false),
            half_closed_at_ms: Cell::new(None),
        }
    }

    /// The line has been opened.
    pub(super) fn follow(&self, line: Option<Rc<dyn PeerWatch>>) {
        *self.line.borrow_mut() = line;
    }

    /// A request's answer is begun, or over.
    pub(super) fn set_answering(&self, answering: bool) {
        self.answering.set(answering);
        self.half_closed_at_ms.set(None);
    }

    /// Something of the request has been read, or of the answer been taken: were the client gone, the line would soon be
    /// broken.
    pub(super) fn on_progress(&self) {
        self.half_closed_at_ms.set(None);
    }

    /// Whether a client has left whose request is being answered; called at every tick, of which this one is at `now_ms`.
    /// `is_waiting`: the connection waits for the client, which is bounded already.
    pub(super) fn has_left(&self, now_ms: u64, is_waiting: bool, half_closed_time: Option<Duration>) -> bool {
        if !self.answering.get() {
            return false;
        }
        match self.line.borrow().as_ref().map(|line| line.presence()) {
            None | Some(Presence::Here) => false,
            Some(Presence::Gone) => true,
            Some(Presence::HalfClosed) if is_waiting => {
                self.on_progress();
                false
            }
            Some(Presence::HalfClosed) => {
                let Some(limit) = half_closed_time else { return false };
                let since_ms = self.half_closed_at_ms.get().unwrap_or(now_ms);
                self.half_closed_at_ms.set(Some(since_ms));
                u128::from(now_ms - since_ms) >= limit.as_millis()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Line(Cell<Presence>);

    impl PeerWatch for Line {
        fn presence(&self) -> Presence {
            self.0.get()
        }
    }

    #[test]
    fn a_client_has_left_when_the_line_is_gone_or_half_closed_for_the_time_of_one_answer() {
        let line = Rc::new(Line(Cell::new(Presence::Here)));
        let attendance = Attendance::new();
        attendance.follow(Some(line.clone()));
        let limit = Some(Duration::from_millis(100));
        assert!(!attendance.has_left(0, false, limit), "nothing is asked");
        attendance.set_answering(true);
        assert!(!attendance.has_left(10, false, limit));
        line.0.set(Presence::HalfClosed);
        assert!(!attendance.has_left(20, false, limit) && !attendance.has_left(119, false, limit));
        assert!(attendance.has_left(120, false, limit));
        attendance.set_answering(true);
        assert!(!attendance.has_left(130, false, limit), "the next request has a time of its own");
        attendance.on_progress();
        assert!(
            !attendance.has_left(230, false, limit) && attendance.has_left(330, false, limit),
            "and so has each piece"
        );
        assert!(!attendance.has_left(330, false, None), "it may wait for an answer as long as that takes");
        assert!(
            !attendance.has_left(330, true, limit) && !attendance.has_left(331, false, limit),
            "it reads slowly"
        );
        line.0.set(Presence::Gone);
        attendance.on_progress();
        assert!(attendance.has_left(331, false, limit));
        attendance.set_answering(false);
        assert!(!attendance.has_left(332, false, limit), "it is the next read that tells");
        attendance.follow(None);
        attendance.set_answering(true);
        assert!(!attendance.has_left(333, false, limit), "a line that tells nothing");
    }
}
