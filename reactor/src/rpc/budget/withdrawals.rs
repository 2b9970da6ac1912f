//! How many calls a peer may call off before they are answered. Pure.
//!
//! What calls that are called off hold is bounded by the account; this bounds what they cost: a coroutine begun and
//! unwound for each, of which nothing comes. An honest caller calls off what took too long, and of several peers that it
//! asked all but the fastest.
//!
//! What it is not: a judgement of calls that cost their callee much. Those are for the service's interceptors.

use std::time::Instant;

/// What may be called off at once, and is allowed again in time. 10,000 pairs of request and cancel take some 100 ms of
/// a processor.
pub(super) const BURST_MAX: u64 = 10_000;

/// What is allowed anew in a second: some hundredth of a processor. (nghttp2 allows 33 resets a second and 1,000 at once;
/// here reads race several replicas, and all but one of the calls are called off.)
const PER_SECOND: u64 = 1_000;

/// What each call that is answered allows.
const PER_ANSWER: u64 = 10;

/// What a peer has left.
#[derive(Debug)]
pub(super) struct Withdrawals {
    left: u64,
    since: Option<Instant>,
}

impl Withdrawals {
    pub(super) const fn new() -> Withdrawals {
        Withdrawals { left: BURST_MAX, since: None }
    }

    /// A call has been answered.
    pub(super) fn on_answer(&mut self) {
        self.allow(PER_ANSWER);
    }

    /// A call that was not answered has been called off; false if that is one too many.
    pub(super) fn on_withdrawal(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let allowed = now.saturating_duration_since(since).as_millis() as u64 * PER_SECOND / 1_000;
        if allowed > 0 {
            self.since = Some(now);
            self.allow(allowed);
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_allowed
    }

    fn allow(&mut self, count: u64) {
        self.left = (self.left + count).min(BURST_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_calls_off_without_end_is_found_out_and_who_does_it_now_and_then_is_not() {
        let (mut peer, start) = (Withdrawals::new(), Instant::now());
        assert!((0..BURST_MAX).all(|_| peer.on_withdrawal(start)));
        assert!(!peer.on_withdrawal(start));
        assert!(
            (1..=100_000).all(|n| peer.on_withdrawal(start + Duration::from_millis(n))),
            "1,000 a second"
        );
        for _ in 0..BURST_MAX {
            peer.on_answer();
        }
        let later = start + Duration::from_millis(100_000);
        assert_eq!((0..2 * BURST_MAX).filter(|_| peer.on_withdrawal(later)).count() as u64, BURST_MAX);
    }
}
