//! For how long a mapping is had, and when the router is asked for it again. Pure.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::Protocol;

/// For how long a mapping is asked for. RFC 6886 (section 3.3) recommends 7,200 s; half of it, since what a process leaves
/// behind that is killed lasts as long.
pub(super) const LIFETIME: Duration = Duration::from_secs(3_600);

/// What is granted for less is no use: it would be over whenever a packet of ours is lost.
pub(super) const LIFETIME_MIN: Duration = Duration::from_secs(30);

/// How soon after a renewal that failed it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// What a router grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) protocol: Protocol,
    pub(super) external: SocketAddrV4,
    /// `None` for one that lasts until it is deleted.
    pub(super) lifetime: Option<Duration>,
}

/// A mapping that is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) granted: Granted,
    /// When it is over.
    pub(super) until: Instant,
    /// When it is to be renewed.
    pub(super) renew_at: Instant,
}

impl Lease {
    /// What was granted to a question of `asked_at`, for no longer than anybody asks.
    pub(super) fn begun(granted: Granted, asked_at: Instant) -> Lease {
        let lifetime = granted.lifetime.unwrap_or(LIFETIME).min(LIFETIME);
        Lease { granted, until: asked_at + lifetime, renew_at: asked_at + lifetime / 2 }
    }

    /// The renewal was in vain: it is tried again, while there is time.
    pub(super) fn on_not_renewed(&mut self, now: Instant) {
        self.renew_at = now + AGAIN;
    }

    /// Whether it is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// When something is to be done next.
    pub(super) fn next_due(&self) -> Instant {
        self.renew_at.min(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(lifetime: Option<u64>) -> Granted {
        let external = "11.0.1.2:4701".parse().unwrap();
        Granted { protocol: Protocol::Pcp, external, lifetime: lifetime.map(Duration::from_secs) }
    }

    #[test]
    fn a_lease_is_renewed_at_half_its_life_and_over_at_its_end() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut lease = Lease::begun(granted(Some(600)), start);
        assert_eq!((lease.renew_at, lease.until), (after(300), after(600)));
        assert!(!lease.is_over(after(599)) && lease.is_over(after(600)));
        lease.on_not_renewed(after(300));
        assert_eq!(lease.next_due(), after(310));
        lease.on_not_renewed(after(595));
        assert_eq!(lease.next_due(), after(600));
    }

    #[test]
    fn nothing_is_believed_for_longer_than_was_asked() {
        let start = Instant::now();
        for lifetime in [Some(u64::from(u32::MAX)), None] {
            assert_eq!(Lease::begun(granted(lifetime), start).until, start + LIFETIME);
        }
    }
}
