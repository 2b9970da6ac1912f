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
    /// For questions to which silence is a likely answer, once it is known how long an answer takes: five tries, within
    /// 31 waits of at least 100 ms (RFC 8489 wants no less than the round trip, and loss comes in bursts of some ten
    /// milliseconds). One packet in ten lost each way hides an answer in three cases of ten thousand.
    pub fn after(round_trip: Duration) -> Timing {
        let first = (round_trip * 3 / 2).clamp(Duration::from_millis(100), Duration::from_millis(500));
        Timing { first, tries: 5, last: 16 }
    }

    /// The waits, one for each time that the request is sent.
    pub fn waits(self) -> impl Iterator<Item = Duration> {
        (1..=self.tries).map(move |number| {
            let doubled = 1_u32.checked_shl(number - 1).unwrap_or(u32::MAX);
            self.first.saturating_mul(if number == self.tries { self.last } else { doubled })
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
    }

    #[test]
    fn silence_is_believed_within_a_bounded_time() {
        for (round_trip_ms, given_up_ms) in [(0, 3_100), (200, 9_300), (60_000, 15_500)] {
            let timing = Timing::after(Duration::from_millis(round_trip_ms));
            assert_eq!(timing.waits().sum::<Duration>(), Duration::from_millis(given_up_ms));
        }
    }
}
