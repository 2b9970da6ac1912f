//! Unwinding a piece of code at one of the places where that may happen to it: for tests.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::{Coroutine, Cut, current};

/// The places that are still to be passed, and the frame that is unwound to behind them.
#[derive(Default)]
pub(super) struct Countdown(Cell<Option<(u64, Cut)>>);

impl Coroutine {
    /// What stands in the place of a cut while places are counted here, if they are. Under a shield there are none.
    pub(super) fn counts(&self) -> Option<Cut> {
        let (_, frame) = self.rare.get()?.countdown.0.get()?;
        self.shield.get().is_none_or(|shield| frame > shield).then_some(Cut::COUNTED)
    }

    /// It is at a place where it would unwind.
    #[cold]
    pub(super) fn count_place(self: &Rc<Self>) {
        let countdown = &self.rare().countdown.0;
        match countdown.get() {
            None => self.cut.set(None),
            Some((0, frame)) => {
                countdown.set(None);
                self.cut.set(Some(frame));
                self.unwind_to(frame);
            }
            Some((left, frame)) => countdown.set(Some((left - 1, frame))),
        }
    }
}

/// Runs `f`, and unwinds it from the place with the number `place` (from 0) of those where a timeout's end or a termination
/// could unwind it: `None` then, as from a [`timeout`](crate::timeout) that has elapsed just there. Its value if it has fewer.
///
/// For tests of code that may be broken off and used again: for each number in turn, until it comes through, and each time
/// nothing may be lost that is not said. A place is the beginning of each call that may suspend, whether it has to or not, and
/// the beginning and the end of each suspension, of the coroutine that calls this: its children's do not count, nor what is
/// [`uninterruptible`](crate::uninterruptible).
///
/// # Panics
///
/// With `f`'s panic. Outside [`run`](crate::run).
///
/// # Suspends
///
/// As `f` does.
///
/// # Examples
///
/// ```
/// use reactor::suspension::break_off_at;
/// use reactor::sync::channel;
///
/// reactor::run(|| {
///     let (sender, receiver) = channel(1);
///     let producer = reactor::spawn(move || (0..10).for_each(|number| sender.send(number).unwrap()));
///     let mut received = Vec::new();
///     for place in 0.. {
///         let come_through = break_off_at(place, || {
///             while let Ok(number) = receiver.recv() {
///                 received.push(number);
///             }
///         });
///         if come_through.is_some() {
///             break;
///         }
///     }
///     assert_eq!(received, (0..10).collect::<Vec<_>>()); // wherever it was broken off
///     producer.join().unwrap();
/// });
/// ```
pub fn break_off_at<T>(place: u64, f: impl FnOnce() -> T) -> Option<T> {
    /// Ends the counting however `f` ends, and goes on with that of a frame outside.
    struct Counting(Rc<Coroutine>, Cut, Option<(u64, Cut)>);
    impl Drop for Counting {
        fn drop(&mut self) {
            let Counting(me, frame, outer) = self;
            me.rare().countdown.0.set(*outer);
            me.withdraw_cut(*frame);
            if me.cut.get().is_none_or(|cut| cut == Cut::COUNTED) {
                me.cut.set(me.counts());
            }
        }
    }
    let (me, frame) = (current(), Cut::new());
    let outer = me.rare().countdown.0.replace(Some((place, frame)));
    me.note_cut(Cut::COUNTED, false);
    let counting = Counting(me, frame, outer);
    let result = catch_unwind(AssertUnwindSafe(f));
    drop(counting);
    match result {
        Ok(value) => Some(value),
        Err(payload) if payload.downcast_ref::<Cut>() == Some(&frame) => None,
        Err(payload) => resume_unwind(payload),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{run, sleep, timeout, uninterruptible, yield_now};

    /// How many places `f` has.
    fn places(mut f: impl FnMut()) -> u64 {
        (0..).find(|place| break_off_at(*place, &mut f).is_some()).expect("it has an end")
    }

    #[test]
    fn each_place_is_unwound_from_once_and_those_under_a_shield_never() {
        run(|| {
            assert_eq!(places(|| {}), 0);
            assert_eq!(places(yield_now), 2, "before it suspends, and behind");
            let mut gone_on = 0;
            assert_eq!(
                places(|| {
                    yield_now();
                    gone_on += 1;
                    uninterruptible(|| (0..9).for_each(|_| yield_now()));
                    yield_now();
                    gone_on += 10;
                }),
                4
            );
            assert_eq!(gone_on, 3 + 10, "three times to the end of the first, and once to that of all");
            // Nothing of it is left.
            yield_now();
            assert!(timeout(Duration::from_secs(60), yield_now).is_ok());
        });
    }

    #[test]
    fn timeouts_inside_and_outside_and_terminations_go_before_it() {
        run(|| {
            let inside = || {
                assert!(timeout(Duration::ZERO, || sleep(Duration::from_secs(60))).is_err());
                yield_now();
            };
            assert!(places(inside) > 2, "those behind the timeout too");
            let outside = timeout(Duration::from_millis(1), || {
                break_off_at(u64::MAX, || sleep(Duration::from_secs(60)))
            });
            assert!(outside.is_err());
            let one_in_another = break_off_at(3, || {
                assert_eq!(break_off_at(0, yield_now), None);
                yield_now();
                yield_now();
                yield_now();
            });
            assert_eq!(one_in_another, None);
            let sleeper = crate::spawn(|| break_off_at(u64::MAX, || sleep(Duration::from_secs(60))));
            yield_now();
            assert!(sleeper.terminate_and_wait().is_err());
        });
    }
}
