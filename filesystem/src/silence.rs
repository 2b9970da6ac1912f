//! Whether the nodes that keep the drive's root are silent: pure state, told of looks, answers and questions without one.
//!
//! A node that is being restarted is silent for some seconds, and whoever reads then had better wait. A machine without its
//! network is silent for hours, and nobody should wait at each file for what cannot come. So silence becomes *offline* once it
//! has lasted: nobody waits for anything to be stored any more. Once it has lasted longer than a restart, nobody waits for what
//! he reads either: one question is let through now and then, and the rest are answered at once.
//!
//! Silence is one of two things: too few can be reached, at each look for as long; or all can be reached, and none has
//! answered anything, which nodes do whose disks hang. Whoever answers or takes something ends either.

use std::time::{Duration, Instant};

/// Silence that is longer is no hiccup of a line: what is written goes to the journal.
pub(crate) const AWAY_AFTER: Duration = Duration::from_secs(5);
/// Silence that is longer is no restart, of a node or of the machine that it is on: what is read is refused.
pub(crate) const RESTART_MAX: Duration = Duration::from_secs(30);
/// How often one reader finds out whether it is over; the register is asked every second besides.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// Since when too few could be reached, at each look.
    lacking_since: Option<Instant>,
    /// Since when no question was answered by anybody.
    unanswered_since: Option<Instant>,
    /// Since when it is so, once it is offline.
    offline_since: Option<Instant>,
    probed: Option<Instant>,
    /// It was offline from the beginning.
    was_without: bool,
}

impl Silence {
    /// Since when it was silent, if it is offline.
    pub(crate) fn offline_since(&self) -> Option<Instant> {
        self.offline_since
    }

    /// A quorum of those that keep the root answered. Returns since when it was offline, if it was.
    pub(crate) fn on_answer(&mut self) -> Option<Instant> {
        std::mem::take(self).offline_since
    }

    /// Somebody took something. That ends no offline: those that keep the root may be others.
    pub(crate) fn on_taken(&mut self) {
        (self.lacking_since, self.unanswered_since) = (None, None);
    }

    /// Somebody looked who can be reached, and asked nobody. Says whether it is offline from now on.
    pub(crate) fn on_look(&mut self, is_quorum: bool, now: Instant) -> bool {
        if is_quorum {
            self.lacking_since = None;
            return false;
        }
        let since = *self.lacking_since.get_or_insert(now);
        self.lasts(since, now)
    }

    /// A question had no answer, from anybody. Says whether it is offline from now on.
    pub(crate) fn on_unanswered(&mut self, now: Instant) -> bool {
        let since = *self.unanswered_since.get_or_insert(now);
        self.lasts(since, now)
    }

    fn lasts(&mut self, since: Instant, now: Instant) -> bool {
        let becomes = self.offline_since.is_none() && now.saturating_duration_since(since) >= AWAY_AFTER;
        if becomes {
            self.offline_since = Some(since);
        }
        becomes
    }

    /// It is known to be offline: the drive was opened without the nodes.
    pub(crate) fn on_opened_without(&mut self, now: Instant) {
        self.offline_since.get_or_insert(now);
        self.was_without = true;
    }

    /// Whether it has been offline for longer than a restart takes, or from the beginning.
    pub(crate) fn is_long(&self, now: Instant) -> bool {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= RESTART_MAX;
        self.offline_since.is_some_and(|since| self.was_without || is_old(since))
    }

    /// Whether a question may go to the nodes: now and then, if it has been offline for long.
    pub(crate) fn may_ask(&mut self, now: Instant) -> bool {
        let is_long = self.is_long(now);
        let is_due = self.probed.is_none_or(|probed| now.saturating_duration_since(probed) >= PROBE_INTERVAL);
        if is_long && is_due {
            self.probed = Some(now);
        }
        !is_long || is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_reached_at_any_look_for_a_while_is_offline_until_an_answer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::default();
        assert!(!silence.on_look(false, at(0)) && !silence.on_look(false, at(4)));
        assert_eq!(silence.on_answer(), None);
        assert!(!silence.on_look(false, at(10)) && silence.may_ask(at(11)) && silence.may_ask(at(11)));
        assert!(silence.on_look(false, at(15)) && !silence.on_look(false, at(16)));
        assert_eq!(silence.offline_since(), Some(at(10)));
        assert!(silence.may_ask(at(16)) && silence.may_ask(at(17)), "it may be a restart");
        assert!(silence.may_ask(at(40)) && !silence.may_ask(at(41)) && silence.may_ask(at(42)));
        silence.on_taken();
        assert!(!silence.on_look(true, at(43)));
        assert_eq!(silence.on_answer(), Some(at(10)), "only the root's keepers end it");
        assert!(silence.offline_since().is_none() && silence.may_ask(at(43)) && silence.may_ask(at(43)));
        silence.on_opened_without(at(50));
        assert_eq!(silence.offline_since(), Some(at(50)));
        assert!(silence.is_long(at(50)) && silence.may_ask(at(50)) && !silence.may_ask(at(51)));
    }

    #[test]
    fn who_is_reached_again_in_between_is_not_silent() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for is_taken in [false, true] {
            let mut silence = Silence::default();
            for moment in [0, 4, 8, 12] {
                assert!(!silence.on_look(false, at(moment)) && !silence.on_look(false, at(moment + 3)));
                match is_taken {
                    true => silence.on_taken(),
                    false => assert!(!silence.on_look(true, at(moment + 3))),
                }
            }
        }
    }

    #[test]
    fn nodes_that_can_be_reached_and_never_answer_are_silent() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::default();
        assert!(!silence.on_unanswered(at(20)) && !silence.on_look(true, at(30)));
        assert!(silence.on_unanswered(at(40)));
        assert_eq!(silence.offline_since(), Some(at(20)));
        silence.on_answer();
        assert!(!silence.on_unanswered(at(50)));
        silence.on_taken();
        assert!(!silence.on_unanswered(at(60)), "they took something in between");
    }
}
