//! The ways into the network that we were told or remembered, and which of them is worth another try.
//!
//! Whoever has met somebody of the network hears of the others through them, if they know the others. They may not: nodes
//! that start while a link between them is down meet those on their side of it, and each side is content with itself. When
//! the link is back nobody has a reason to look beyond. So whoever is not met is tried on, one way at a time and for as
//! long as we run; one connection between two such islands makes them one, for each asks its neighbours for news.
//!
//! A way that leads nowhere, as an address of years ago may, at which somebody else listens by now, is tried ever more rarely.
//!
//! Pure: it dials nothing.

use std::time::{Duration, Instant};

use reactor::crypto::PublicKey;

use crate::join::Bootstrap;

/// After the first try of a way, so long passes until the next; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_secs(10);

/// And no longer than this: who is back after years is met within the hour.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// The ways in, without end: what was given, and the last run's contacts.
#[derive(Default)]
pub(crate) struct Ways {
    ways: Vec<Way>,
    /// Where the search for one that is worth a try goes on, so that each has its turn.
    next: usize,
}

struct Way {
    bootstrap: Bootstrap,
    /// Who was met there last.
    led_to: Option<PublicKey>,
    /// How long to wait after the next try, and until when that is not due.
    pause: Duration,
    not_before: Option<Instant>,
}

impl Way {
    fn is_met(&mut self) {
        (self.pause, self.not_before) = (PAUSE_MIN, None);
    }
}

impl Ways {
    /// Adds those that are new.
    pub(crate) fn add(&mut self, ways: &[Bootstrap]) {
        for bootstrap in ways {
            if !self.ways.iter().any(|way| way.bootstrap == *bootstrap) {
                let led_to = match bootstrap {
                    Bootstrap::Contact(contact) => Some(contact.public_key),
                    Bootstrap::Address(_) => None,
                };
                let bootstrap = bootstrap.clone();
                self.ways.push(Way { bootstrap, led_to, pause: PAUSE_MIN, not_before: None });
            }
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Bootstrap> {
        self.ways.iter().map(|way| way.bootstrap.clone()).collect()
    }

    /// Notes that the holder of `key` was met at `bootstrap`.
    pub(crate) fn on_met(&mut self, bootstrap: &Bootstrap, key: PublicKey) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.bootstrap == *bootstrap) {
            way.led_to = Some(key);
            way.is_met();
        }
    }

    /// The next way that is due and leads to nobody whom we are in touch with, each in its turn.
    pub(crate) fn next_unmet(
        &mut self,
        now: Instant,
        is_in_touch: impl Fn(&PublicKey) -> bool,
    ) -> Option<Bootstrap> {
        let leads_on = |way: &&mut Way| way.led_to.as_ref().is_some_and(&is_in_touch);
        self.ways.iter_mut().filter(leads_on).for_each(Way::is_met);
        let count = self.ways.len();
        let is_due = |way: &Way| {
            !way.led_to.as_ref().is_some_and(&is_in_touch) && way.not_before.is_none_or(|at| at <= now)
        };
        let index =
            (0..count).map(|offset| (self.next + offset) % count).find(|index| is_due(&self.ways[*index]))?;
        self.next = index + 1;
        let way = &mut self.ways[index];
        way.not_before = now.checked_add(way.pause);
        way.pause = (way.pause * 2).min(PAUSE_MAX);
        Some(way.bootstrap.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_id::NodeId;
    use crate::testing::contact_at;

    fn address(port: u16) -> Bootstrap {
        Bootstrap::Address(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn whoever_is_not_met_has_a_turn_and_whoever_is_has_none() {
        let (one, two) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let known = Bootstrap::Contact(contact_at(NodeId([1; 32]), "127.0.0.1:1"));
        let mut ways = Ways::default();
        // Each look is later than any pause.
        let mut now = Instant::now();
        let mut turn = |ways: &mut Ways, met: &[PublicKey]| {
            now += PAUSE_MAX;
            ways.next_unmet(now, |key| met.contains(key))
        };
        assert_eq!(turn(&mut ways, &[]), None);
        ways.add(&[address(2), known.clone()]);
        ways.add(&[known.clone(), address(3)]);
        assert_eq!(ways.all(), [address(2), known.clone(), address(3)]);
        assert_eq!(turn(&mut ways, &[one]), Some(address(2)));
        assert_eq!(turn(&mut ways, &[one]), Some(address(3)));
        assert_eq!(turn(&mut ways, &[one]), Some(address(2)));
        ways.on_met(&address(2), two);
        assert_eq!(turn(&mut ways, &[one, two]), Some(address(3)));
        assert_eq!(turn(&mut ways, &[one, two]), Some(address(3)));
        assert_eq!(turn(&mut ways, &[two]), Some(known), "it is gone, and may be back");
        ways.on_met(&address(3), one);
        assert_eq!(turn(&mut ways, &[one, two]), None);
    }

    #[test]
    fn a_way_that_leads_nowhere_is_tried_ever_more_rarely_and_one_that_led_somewhere_at_once() {
        let start = Instant::now();
        let mut ways = Ways::default();
        ways.add(&[address(2)]);
        let tried = |ways: &mut Ways, seconds: std::ops::Range<u64>| {
            let at = |second| start + Duration::from_secs(second);
            seconds.filter(|second| ways.next_unmet(at(*second), |_| false).is_some()).count()
        };
        assert_eq!(tried(&mut ways, 0..3600), 9);
        assert_eq!(tried(&mut ways, 3600..36_000), 9);
        let key = PublicKey::from_bytes([1; 32]);
        ways.on_met(&address(2), key);
        assert_eq!(ways.next_unmet(start + Duration::from_secs(36_000), |known| *known == key), None);
        assert_eq!(tried(&mut ways, 36_001..36_011), 1, "it has just gone");
    }
}
