//! Whether any node answers: pure state, told of answers and silences.
//!
//! A node that is being restarted is silent for some seconds, and whoever reads then had better wait. A machine without its
//! network is silent for hours, and nobody should wait at each file for what cannot come. So silence becomes *offline* once it
//! has lasted; from then on one question is let through now and then, and the rest are answered at once.

use std::time::{Duration, Instant};

/// Silence that is longer is no restart.
const OFFLINE_AFTER: Duration = Duration::from_secs(5);
/// How often one reader finds out whether it is over; the register is asked every second besides.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Reach {
    silent_since: Option<Instant>,
    is_offline: bool,
    probed: Option<Instant>,
}

impl Reach {
    /// Since when no node has answered, if that is long enough to be called offline.
    pub(super) fn offline_since(&self) -> Option<Instant> {
        self.silent_since.filter(|_| self.is_offline)
    }

    /// A node answered, whatever it said. Returns since when it was offline, if it was.
    pub(super) fn on_answer(&mut self) -> Option<Instant> {
        let since = self.offline_since();
        *self = Reach::default();
        since
    }

    /// Nobody answered. Says whether it is offline from now on.
    pub(super) fn on_silence(&mut self, now: Instant) -> bool {
        let since = *self.silent_since.get_or_insert(now);
        let becomes = !self.is_offline && now.saturating_duration_since(since) >= OFFLINE_AFTER;
        self.is_offline |= becomes;
        becomes
    }

    /// It is known to be offline: the drive was opened without the nodes.
    pub(super) fn on_opened_without(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
        self.is_offline = true;
    }

    /// Whether a question may go to the nodes: always, unless offline.
    pub(super) fn may_ask(&mut self, now: Instant) -> bool {
        let is_due = self.probed.is_none_or(|probed| now.saturating_duration_since(probed) >= PROBE_INTERVAL);
        if self.is_offline && is_due {
            self.probed = Some(now);
        }
        !self.is_offline || is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_becomes_offline_and_one_answer_ends_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reach = Reach::default();
        assert!(!reach.on_silence(at(0)) && !reach.on_silence(at(4)));
        assert_eq!(reach.on_answer(), None);
        assert!(!reach.on_silence(at(10)) && reach.may_ask(at(11)) && reach.may_ask(at(11)));
        assert!(reach.on_silence(at(15)) && !reach.on_silence(at(16)));
        assert_eq!(reach.offline_since(), Some(at(10)));
        assert!(reach.may_ask(at(16)) && !reach.may_ask(at(17)) && reach.may_ask(at(18)));
        assert_eq!(reach.on_answer(), Some(at(10)));
        assert!(reach.offline_since().is_none() && reach.may_ask(at(18)) && reach.may_ask(at(18)));
        reach.on_opened_without(at(20));
        assert_eq!(reach.offline_since(), Some(at(20)));
    }
}
