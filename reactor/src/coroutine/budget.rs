//! How many calls of a coroutine in a row may succeed without suspending, before one of them yields all the same.
//!
//! A call that may suspend mostly need not: the value is there, the socket is ready, the lock is free. A loop of such
//! calls would hold the thread for as long as things stay ready, which a fast peer or a cached file can bring about. So
//! each of them spends one of a budget when it has *succeeded*, or failed, and the one that spends the last lets the others run
//! before it returns. Spent afterwards, and without an eye to terminations, for which the next call looks as it begins
//! ([`super::call`]): what has been taken is not lost, and the call that takes what [`crate::select`] found still does so
//! before anybody else can.
//!
//! The budget is that of a turn: what a coroutine does, and what those do that it starts meanwhile and that run nested in
//! it. Calls that move bytes spend more, for those take time too. So nobody holds the thread for longer than
//! [`BUDGET`] calls and [`BUDGET`] times [`BYTES_OF_A_CALL`] take, whatever is ready: but for what it computes itself,
//! which is for [`crate::offload`].

use std::time::Duration;

use super::{current, may_suspend, turns, with_current};
use crate::timer::Timer;

/// Calls between two turns. At a microsecond each (a read of a socket) they hold the others up by an eighth of a
/// millisecond; the yield's cost, spread over them, is nothing.
pub(super) const BUDGET: u32 = 128;

/// Bytes that count as a call: the kernel copies as many in some microseconds, and so a turn moves 2 MiB.
const BYTES_OF_A_CALL: usize = 16 << 10;

/// A call moves so many bytes, and spends for them beside what it spends as a call.
#[inline]
pub(crate) fn spend_bytes(count: usize) {
    let calls = u32::try_from(count / BYTES_OF_A_CALL).unwrap_or(u32::MAX);
    if calls > 0 {
        turns::with(|turns| turns.budget.set(turns.budget.get().saturating_sub(calls)));
    }
}

/// What the calls of a turn take in a simulation, where computing takes no time: a microsecond each.
const TIME_OF_A_TURN: Duration = Duration::from_micros(BUDGET as u64);

/// A call that may suspend has succeeded without having to, or failed.
///
/// # Suspends
///
/// When many have: until those who are runnable have had their turn. Neither in a destructor that runs while its
/// coroutine unwinds, nor outside of coroutines.
#[inline]
pub(super) fn spend() {
    let has_left = turns::with(|turns| match turns.budget.get() {
        0 => false,
        left => {
            turns.budget.set(left - 1);
            true
        }
    });
    if !has_left {
        yield_in_passing();
    }
}

#[cold]
fn yield_in_passing() {
    if may_suspend() && with_current(|me| me.is_some_and(|me| !me.is_in_section())) {
        let me = current();
        if me.group().process().is_some() {
            // Or its world's time would stand still for as long as it finds things ready, and no timeout would ever end.
            let _timer = Timer::wake_at(crate::clock::deadline_after(TIME_OF_A_TURN));
            me.let_time_pass();
        } else {
            me.let_others_run();
        }
    }
}
