//! Which requests are sent once more, and when. Pure: it is told what happened, and says how long to wait.
//!
//! Only what may safely be done twice: an idempotent method (RFC 9110 section 9.2.2), or a request of which nothing has
//! left since no server was reached. Only answers that say "not now": 429, 502, 503 and 504. A server that says when to
//! come back (`Retry-After`) is obeyed, or not asked again if that is too late.
//!
//! Not here: the one repetition over a pooled connection that the server had just closed, which needs no policy.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};

use super::{ClientError, Response};

/// How often a request is sent again, and after how long a time; never by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Repetitions after the first time.
    pub count_max: u32,
    /// The first wait; each one after it is twice as long. Half of it is chance, so that clients who failed together do
    /// not come back together.
    pub first_wait: Duration,
    /// The longest wait. A server that asks for a longer one is not asked again: its answer is returned.
    pub wait_max: Duration,
}

impl Retries {
    /// No repetition.
    pub const NONE: Retries = Retries::times(0);

    /// So many, after 200 ms, 400 ms, and so on, up to 10 s.
    pub const fn times(count_max: u32) -> Retries {
        Retries { count_max, first_wait: Duration::from_millis(200), wait_max: Duration::from_secs(10) }
    }
}

/// What came of sending a request.
pub(super) enum Outcome<'a> {
    Answered { status: StatusCode, retry_after: Option<&'a str> },
    Failed(&'a ClientError),
}

impl<'a> Outcome<'a> {
    pub(super) fn of(result: &'a Result<Response, ClientError>) -> Outcome<'a> {
        match result {
            Ok(response) => {
                let retry_after = response.headers().get_str("Retry-After");
                Outcome::Answered { status: response.status(), retry_after }
            }
            Err(error) => Outcome::Failed(error),
        }
    }
}

impl Retries {
    /// How long to wait before the request is sent again, after `sent_count` times; `None` not to. `chance` is a random
    /// number, `wall` the time by which dates are meant.
    pub(super) fn wait_after(
        &self,
        sent_count: u32,
        method: &Method,
        outcome: Outcome<'_>,
        chance: u64,
        wall: SystemTime,
    ) -> Option<Duration> {
        if sent_count > self.count_max {
            return None;
        }
        let own = self.own_wait(sent_count, chance);
        match outcome {
            Outcome::Answered { status, retry_after } => {
                let is_passing = matches!(status.as_u16(), 429 | 502 | 503 | 504);
                if !(is_passing && method.is_idempotent()) {
                    return None;
                }
                let asked = retry_after.and_then(|value| parse_retry_after(value, wall));
                let wait = asked.map_or(own, |asked| asked.max(own));
                (wait <= self.wait_max).then_some(wait)
            }
            // Nothing has left.
            Outcome::Failed(ClientError::Connect { .. }) => Some(own),
            Outcome::Failed(ClientError::Io { .. }) => method.is_idempotent().then_some(own),
            Outcome::Failed(_) => None,
        }
    }

    fn own_wait(&self, sent_count: u32, chance: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(sent_count.saturating_sub(1));
        let full = self.first_wait.saturating_mul(doubled).min(self.wait_max);
        full / 2 + (full / 2).mul_f64(chance as f64 / u64::MAX as f64)
    }
}

/// Seconds, or a date (RFC 9110 section 10.2.3); `None` if it is neither.
fn parse_retry_after(value: &str, wall: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that no clock holds is a long time.
        return (!value.is_empty()).then(|| Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(wall).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::time::UNIX_EPOCH;

    fn answered(status: u16, retry_after: Option<&str>) -> Outcome<'_> {
        Outcome::Answered { status: StatusCode::from_u16(status).unwrap(), retry_after }
    }

    const RETRIES: Retries = Retries::times(3);

    fn after(sent_count: u32, method: Method, outcome: Outcome<'_>) -> Option<u128> {
        let wait = RETRIES.wait_after(sent_count, &method, outcome, u64::MAX, UNIX_EPOCH);
        wait.map(|wait| wait.as_millis())
    }

    #[test]
    fn only_what_passes_is_tried_again_and_only_where_twice_does_no_harm() {
        for status in [429, 502, 503, 504] {
            assert_eq!(after(1, Method::GET, answered(status, None)), Some(200));
            assert_eq!(after(1, Method::PUT, answered(status, None)), Some(200));
            assert_eq!(after(1, Method::POST, answered(status, None)), None);
        }
        for status in [200, 304, 400, 404, 500, 501] {
            assert_eq!(after(1, Method::GET, answered(status, None)), None, "{status}");
        }
        let error = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let unreached = ClientError::Connect { server: "a".into(), source: error() };
        assert_eq!(after(1, Method::POST, Outcome::Failed(&unreached)), Some(200));
        let broken = ClientError::Io { phase: super::super::Phase::Head, source: error() };
        assert_eq!(after(1, Method::POST, Outcome::Failed(&broken)), None);
        assert_eq!(after(1, Method::DELETE, Outcome::Failed(&broken)), Some(200));
        let late = ClientError::TimedOut(super::super::Phase::Head);
        assert_eq!(after(1, Method::GET, Outcome::Failed(&late)), None);
    }

    #[test]
    fn waits_double_up_to_their_limit_and_half_of_each_is_chance() {
        let waits: Vec<_> = (1..=4).map(|n| after(n, Method::GET, answered(503, None))).collect();
        assert_eq!(waits, [Some(200), Some(400), Some(800), None]);
        assert_eq!(RETRIES.own_wait(1, 0), Duration::from_millis(100));
        assert_eq!(RETRIES.own_wait(40, u64::MAX), RETRIES.wait_max);
        assert_eq!(Retries::NONE.wait_after(1, &Method::GET, answered(503, None), 0, UNIX_EPOCH), None);
    }

    #[test]
    fn a_server_is_not_asked_before_it_wants_to_be_nor_at_all_where_that_is_late() {
        let asked = |value| after(1, Method::GET, answered(503, Some(value)));
        assert_eq!(
            (asked("2"), asked("0"), asked("10"), asked("11")),
            (Some(2000), Some(200), Some(10_000), None)
        );
        assert_eq!(asked("99999999999999999999999"), None);
        assert_eq!(
            (asked(""), asked("soon"), asked("-1")),
            (Some(200), Some(200), Some(200)),
            "no word at all"
        );
        assert_eq!(asked("Thu, 01 Jan 1970 00:00:05 GMT"), Some(5000));
        assert_eq!(asked("Wed, 31 Dec 1969 00:00:00 GMT"), Some(200), "over, or a date that can't be read");
    }
}
