//! When a request is sent again, and when it is given up.

use std::time::Duration;

/// How long to wait for an answer after each time that a request was sent. The wait doubles each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The first wait: the round trip time, or above.
    pub first: Duration,
    /// How often the request is sent.
    pub tries: u32,
    /// The last wait, counted in first waits.
    pub last: u32,
}

/// RFC 8489, section 6.2.1: sent at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s, given up at 39.5 s.
impl Default for Timing {
    fn default() -> Timing {
        Timing { first: Duration::from_millis(500), tries: 7, last: 16 }
    }
}

impl Timing {
    /// For questions to which silence is a likely answer, once it is known how long an answer takes: five tries within 19
    /// first waits. One packet in ten lost each way hides an answer in three cases of ten thousand.
    ///
    /// The first wait is half above the round trip, so that nothing is sent twice that was on its way; RFC 8489's floor of
    /// 500 ms is for who knows nothing yet. At least 100 ms, since loss comes in bursts of some ten; and at most 1.5 s.
    pub fn after(round_trip: Duration) -> Timing {
        let first = round_trip.saturating_add(round_trip / 2);
        Timing {
            first: first.clamp(Duration::from_millis(100), Duration::from_millis(1500)),
            tries: 5,
            last: 4,
        }
    }

    /// The waits, one for each time that the request is sent: at least one, and none of them nothing.
    pub fn waits(self) -> impl Iterator<Item = Duration> {
        let tries = self.tries.max(1);
        (1..=tries).map(move |number| {
            let doubled = 1_u32.checked_shl(number - 1).unwrap_or(u32::MAX);
            self.first.saturating_mul(if number == tries { self.last.max(1) } else { doubled })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_example_of_when_a_request_is_sent() {
        let mut at = Duration::ZERO;
        let mut sent = Vec::new();
        for wait in Timing::default().waits() {
            sent.push(at.as_millis());
            at += wait;
        }
        assert_eq!(sent, [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
        assert_eq!(at, Duration::from_millis(39_500));
    }

    #[test]
    fn a_hundred_tries_do_not_overflow() {
        let timing = Timing { first: Duration::MAX, tries: 100, last: 1 };
        assert_eq!(timing.waits().count(), 100);
        assert_eq!(Timing::after(Duration::MAX).first, Duration::from_millis(1500));
    }

    #[test]
    fn no_timing_asks_nobody_or_listens_to_nothing() {
        let first = Duration::from_millis(5);
        assert_eq!(Timing { first, tries: 0, last: 0 }.waits().collect::<Vec<_>>(), [first]);
    }

    #[test]
    fn silence_is_believed_within_a_bounded_time() {
        for (round_trip_ms, given_up_ms) in [(0, 1_900), (200, 5_700), (700, 19_950), (60_000, 28_500)] {
            let timing = Timing::after(Duration::from_millis(round_trip_ms));
            assert_eq!(timing.waits().sum::<Duration>(), Duration::from_millis(given_up_ms));
        }
    }
}
