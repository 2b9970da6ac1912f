//! When a call is tried again, and when a second one is sent beside the first. Pure.
//!
//! Three rules, whatever a policy says:
//!
//! - A call that may have been done is repeated only if its method is declared idempotent; any call is repeated of which
//!   nothing was done ([`Fate`]). What the callee has answered, an error of the method too, is never asked again.
//! - A *hedge* is a copy of a call whose answer is slow. The first answer wins, and the others are called off. Copies are
//!   made only of calls to idempotent methods, for all of them may be done.
//! - Every try beyond a call's first, and every copy, is paid for from a [`RetryBudget`], into which each call puts a part
//!   of a try. So where everything fails, peers are asked a tenth more than they were, and not three times as much: repeats
//!   must not be what keeps an overloaded peer down.
//!
//! What it is not: the doing (`retrying.rs`), or the choice of a peer (`balance.rs`).
//!
//! # Source
//! Dean and Barroso 2013, "The Tail at Scale" (hedged requests); gRFC A6, "gRPC Retry Design" (throttling, what may be
//! repeated).

use std::time::{Duration, Instant};

use super::Fate;

/// How calls are repeated.
///
/// # Examples
/// ```
/// use reactor::rpc::{Fate, RetryPolicy};
/// let policy = RetryPolicy::default();
/// assert!(policy.repeats(Fate::NotDone, false));
/// assert!(!policy.repeats(Fate::Unknown, false), "it may have been done");
/// assert!(policy.repeats(Fate::Unknown, true));
/// assert!(!policy.repeats(Fate::Answered, true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a call is tried in all; with 1 never again. A hedge's copies are one try.
    pub tries_max: u32,
    /// The pause behind the first try, before it is doubled; between half of it and all of it, at random.
    pub pause_first: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// How long one try may take, if less than the call. Only worth something to idempotent methods: of another, a try that
    /// took too long is the call's end.
    pub try_time: Option<Duration>,
    /// When copies are sent, if they are.
    pub hedge: Option<HedgePolicy>,
    /// How many tries beyond the first, and copies, may be made for every hundred calls.
    pub extra_percent: u32,
    /// How many may be made at once, if calls have gone well before.
    pub extra_reserve: u32,
}

impl Default for RetryPolicy {
    /// Three tries, pauses from 20 ms (a failover is rarely faster) to 1 s, no hedge; ten extra tries for a hundred calls,
    /// and ten at once.
    fn default() -> RetryPolicy {
        RetryPolicy {
            tries_max: 3,
            pause_first: Duration::from_millis(20),
            pause_max: Duration::from_secs(1),
            try_time: None,
            hedge: None,
            extra_percent: 10,
            extra_reserve: 10,
        }
    }
}

impl RetryPolicy {
    /// The same policy with copies of idempotent calls, `copies_max` of them with the first, each `after` the one before.
    #[must_use]
    pub fn hedged(self, after: Duration, copies_max: u32) -> RetryPolicy {
        RetryPolicy { hedge: Some(HedgePolicy { after, copies_max }), ..self }
    }

    /// Whether a call that came to this is worth another try.
    pub fn repeats(&self, fate: Fate, idempotent: bool) -> bool {
        match fate {
            Fate::Answered => false,
            Fate::NotDone => true,
            Fate::Unknown => idempotent,
        }
    }
}

/// When a copy of a call is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgePolicy {
    /// How long after the copy before, if that has not answered. What 95 of 100 calls take is a good choice: then a
    /// twentieth more is asked, and the slowest twentieth is cut.
    pub after: Duration,
    /// How many there are, the call itself among them.
    pub copies_max: u32,
}

/// What a hundredth of a try counts.
const TRY_TOKENS: u64 = 100;

/// What may still be spent on tries beyond the first.
///
/// # Examples
/// ```
/// use reactor::rpc::{RetryBudget, RetryPolicy};
/// let mut budget = RetryBudget::new(&RetryPolicy { extra_percent: 10, extra_reserve: 1, ..RetryPolicy::default() });
/// assert!(budget.take());
/// assert!(!budget.take(), "the reserve is spent");
/// (0..10).for_each(|_| budget.on_call());
/// assert!(budget.take());
/// ```
#[derive(Clone, Debug)]
pub struct RetryBudget {
    tokens: u64,
    tokens_max: u64,
    tokens_per_call: u64,
}

impl RetryBudget {
    /// The budget of a policy, full.
    pub fn new(policy: &RetryPolicy) -> RetryBudget {
        let tokens_max = u64::from(policy.extra_reserve) * TRY_TOKENS;
        RetryBudget { tokens: tokens_max, tokens_max, tokens_per_call: policy.extra_percent.into() }
    }

    /// A call begins, whatever becomes of it.
    pub fn on_call(&mut self) {
        self.tokens = (self.tokens + self.tokens_per_call).min(self.tokens_max);
    }

    /// Takes a try; false if there is none left.
    pub fn take(&mut self) -> bool {
        match self.tokens.checked_sub(TRY_TOKENS) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// What is to be done about the copies of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send one more.
    Send,
    /// Wait for what comes, until the instant if there is one.
    Wait(Option<Instant>),
    /// All have failed, and no more are sent.
    Fail,
}

/// The copies of one call.
#[derive(Clone, Debug)]
pub struct Copies {
    policy: HedgePolicy,
    sent: u32,
    running: u32,
    next_at: Instant,
}

impl Copies {
    /// None yet, at `now`.
    pub fn new(policy: HedgePolicy, now: Instant) -> Copies {
        let copies_max = policy.copies_max.max(1);
        Copies { policy: HedgePolicy { copies_max, ..policy }, sent: 0, running: 0, next_at: now }
    }

    /// What is to be done at `now`. A copy that fails is followed by the next at once: there is nothing to wait for.
    pub fn next(&self, now: Instant) -> Step {
        match (self.sent < self.policy.copies_max, self.running) {
            (true, 0) => Step::Send,
            (true, _) if self.next_at <= now => Step::Send,
            (true, _) => Step::Wait(Some(self.next_at)),
            (false, 0) => Step::Fail,
            (false, _) => Step::Wait(None),
        }
    }

    /// Whether the next one is the call itself, which costs nothing extra.
    pub fn is_first(&self) -> bool {
        self.sent == 0
    }

    /// One was sent at `now`.
    pub fn on_sent(&mut self, now: Instant) {
        self.sent += 1;
        self.running += 1;
        self.next_at = now + self.policy.after;
    }

    /// One has failed.
    pub fn on_failed(&mut self) {
        self.running -= 1;
    }

    /// No more can be afforded.
    pub fn stop(&mut self) {
        self.policy.copies_max = self.sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(50);

    fn copies(copies_max: u32) -> (Copies, Instant) {
        let now = Instant::now();
        (Copies::new(HedgePolicy { after: AFTER, copies_max }, now), now)
    }

    #[test]
    fn a_copy_follows_when_its_time_has_come_and_not_before() {
        let (mut copies, start) = copies(3);
        assert!(copies.is_first() && copies.next(start) == Step::Send);
        copies.on_sent(start);
        assert_eq!(copies.next(start), Step::Wait(Some(start + AFTER)));
        assert_eq!(copies.next(start + AFTER), Step::Send);
        copies.on_sent(start + AFTER);
        copies.on_sent(start + 2 * AFTER);
        assert_eq!(copies.next(start + 9 * AFTER), Step::Wait(None), "three are all");
    }

    #[test]
    fn a_copy_that_failed_is_followed_at_once_and_the_last_ones_failure_is_the_calls() {
        let (mut copies, start) = copies(2);
        copies.on_sent(start);
        copies.on_failed();
        assert_eq!(copies.next(start), Step::Send);
        copies.on_sent(start);
        assert_eq!(copies.next(start), Step::Wait(None));
        copies.on_failed();
        assert_eq!(copies.next(start), Step::Fail);
    }

    #[test]
    fn what_cannot_be_afforded_is_not_sent_and_no_policy_sends_nothing() {
        let (mut copies, start) = copies(0);
        assert_eq!(copies.next(start), Step::Send, "the call itself is made");
        copies.on_sent(start);
        copies.stop();
        assert_eq!(copies.next(start + AFTER), Step::Wait(None));
    }

    #[test]
    fn where_everything_fails_a_tenth_more_is_asked_and_no_more() {
        let policy = RetryPolicy::default();
        let mut budget = RetryBudget::new(&policy);
        let mut extra = 0;
        for _ in 0..1_000 {
            budget.on_call();
            extra += (1..policy.tries_max).take_while(|_| budget.take()).count();
        }
        assert!((100..=100 + 10).contains(&extra), "{extra} extra tries for 1,000 calls");
    }
}
