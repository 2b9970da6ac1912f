//! Who of a register's members is gone for good, as far as looking now and then can tell. Pure.
//!
//! That a member does not answer may be our own doing: a line that is down, a machine that slept. So its absence counts only
//! in looks at which a quorum of the *others* answered, which proves our line and leaves the register able to move; any
//! other look, and any longer time without one, begins the count anew for all. Two members that are away at once are
//! therefore never replaced: of three, the one that is left is no quorum, and nothing could be moved.
//!
//! Whoever replaced a member doubts its own view the more: two owners' machines, each cut off from another member, would
//! replace each other's choices for ever. So the grace doubles with each replacement, and halves again after a long time without
//! one.
//!
//! Not here: replacing them ([`crate::keepers`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overlay::NodeId;

use crate::keepers::Presence;

/// The grace doubles so often: from a quarter of an hour to four days and more.
const DOUBLINGS_MAX: u32 = 9;

/// Without a replacement in so many graces, as long as these are by then, the next is half as long.
const CALM_GRACES: u32 = 8;

/// Since when members have been away.
#[derive(Debug)]
pub struct Absence {
    grace: Duration,
    apart_max: Duration,
    since: BTreeMap<NodeId, Instant>,
    looked_at: Option<Instant>,
    replaced_count: u32,
    /// When the last one was replaced, or the grace was halved last.
    calm_since: Option<Instant>,
}

impl Absence {
    /// Nobody was looked at yet. A member is gone after `grace`; two looks that are more than `apart_max` apart say nothing of
    /// the time between.
    pub fn new(grace: Duration, apart_max: Duration) -> Absence {
        Absence {
            grace,
            apart_max,
            since: BTreeMap::new(),
            looked_at: None,
            replaced_count: 0,
            calm_since: None,
        }
    }

    /// Takes it who is there at `now`, of members a quorum of which is `needed`; returns who is gone.
    pub fn on_look(&mut self, presence: &[(NodeId, Presence)], needed: usize, now: Instant) -> Vec<NodeId> {
        let before = self.looked_at.replace(now);
        if before.is_some_and(|before| now.saturating_duration_since(before) > self.apart_max) {
            self.since.clear();
        }
        // Those who answer are others than who does not.
        if presence.iter().filter(|(_, presence)| *presence == Presence::Keeps).count() < needed {
            self.since.clear();
            return Vec::new();
        }
        let is_away = |presence: Presence| matches!(presence, Presence::Away | Presence::Broken);
        let away = || presence.iter().filter(|(_, presence)| is_away(*presence)).map(|(id, _)| *id);
        self.since.retain(|id, _| away().any(|away| away == *id));
        for id in away() {
            self.since.entry(id).or_insert(now);
        }
        let mut grace = self.grace.saturating_mul(1 << self.replaced_count);
        if let Some(calm_since) = self.calm_since
            && now.saturating_duration_since(calm_since) >= grace.saturating_mul(CALM_GRACES)
        {
            self.replaced_count = self.replaced_count.saturating_sub(1);
            self.calm_since = (self.replaced_count > 0).then_some(now);
            grace = self.grace.saturating_mul(1 << self.replaced_count);
        }
        let is_gone = |since: &Instant| now.saturating_duration_since(*since) >= grace;
        self.since.iter().filter(|(_, since)| is_gone(since)).map(|(id, _)| *id).collect()
    }

    /// Members were replaced at `now`, by our word.
    pub fn on_replaced(&mut self, now: Instant) {
        self.replaced_count = (self.replaced_count + 1).min(DOUBLINGS_MAX);
        self.calm_since = Some(now);
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    struct World {
        absence: Absence,
        start: Instant,
    }

    impl World {
        fn new() -> World {
            World { absence: Absence::new(GRACE, Duration::from_secs(20)), start: Instant::now() }
        }

        /// Looks at three members at a second; in `seen`, k keeps the register, l lacks it, b has a broken store, a is away.
        fn look(&mut self, second: u64, seen: &str) -> String {
            let presence: Vec<(NodeId, Presence)> = (1..)
                .zip(seen.chars())
                .map(|(number, letter)| {
                    let presence = match letter {
                        'k' => Presence::Keeps,
                        'l' => Presence::Lacks,
                        'b' => Presence::Broken,
                        _ => Presence::Away,
                    };
                    (NodeId([number; 32]), presence)
                })
                .collect();
            let gone = self.absence.on_look(&presence, 2, self.start + Duration::from_secs(second));
            gone.iter().map(|id| id.0[0].to_string()).collect()
        }

        /// Looks every ten seconds, from one second up to another; returns who was ever gone.
        fn looks(&mut self, seconds: std::ops::Range<u64>, seen: &str) -> String {
            seconds.step_by(10).map(|second| self.look(second, seen)).collect()
        }
    }

    #[test]
    fn a_member_is_gone_once_it_was_away_for_the_whole_grace_without_a_break() {
        let mut world = World::new();
        assert_eq!(world.looks(0..60, "kka"), "");
        assert_eq!(world.look(60, "kka"), "3");
        assert_eq!(world.look(70, "kkk"), "");
        assert_eq!(world.looks(80..140, "kka"), "");
        assert_eq!(world.look(140, "kka"), "3");
        // One that lacks the register is there, and gets it.
        assert_eq!(world.looks(150..300, "kkl"), "");
    }

    #[test]
    fn our_own_line_that_is_down_is_nobodys_absence() {
        let mut world = World::new();
        assert_eq!(world.looks(0..600, "aaa"), "");
        // It is back, and the members are reached one after another: none of them was away.
        assert_eq!(world.look(600, "aak"), "");
        assert_eq!(world.look(610, "akk"), "");
        assert_eq!(world.look(620, "kkk"), "");
        // Nor does a long time with two of them away count for the one that comes back later.
        assert_eq!(world.looks(630..1200, "kaa"), "");
        assert_eq!(world.looks(1200..1260, "kka"), "");
        assert_eq!(world.look(1260, "kka"), "3");
        // A look in the middle at which our line was down begins the count anew.
        assert_eq!(world.look(1270, "kkk"), "");
        assert_eq!(world.looks(1280..1330, "kka"), "");
        assert_eq!(world.look(1330, "aaa"), "");
        assert_eq!(world.looks(1340..1400, "kka"), "");
        assert_eq!(world.look(1400, "kka"), "3");
    }

    #[test]
    fn time_at_which_nobody_looked_does_not_count() {
        let mut world = World::new();
        assert_eq!(world.look(0, "kka"), "");
        assert_eq!(world.look(21, "kka"), "");
        assert_eq!(world.look(80, "kka"), "");
        assert_eq!(world.looks(90..140, "kka"), "");
        assert_eq!(world.look(140, "kka"), "3");
    }

    #[test]
    fn whoever_replaced_a_member_waits_twice_as_long_for_the_next() {
        let mut world = World::new();
        assert_eq!(world.looks(0..60, "kka"), "");
        assert_eq!(world.look(60, "kka"), "3");
        world.absence.on_replaced(world.start + Duration::from_secs(60));
        assert_eq!(world.looks(70..190, "kak"), "");
        assert_eq!(world.look(190, "kak"), "2");
        // For a long time nobody is away: then once more as at the beginning.
        assert_eq!(world.looks(200..1200, "kkk"), "");
        assert_eq!(world.looks(1200..1260, "akk"), "");
        assert_eq!(world.look(1260, "akk"), "1");
    }

    #[test]
    fn one_whose_store_failed_is_as_good_as_away_though_it_answers() {
        let mut world = World::new();
        assert_eq!(world.looks(0..60, "kkb"), "");
        assert_eq!(world.look(60, "kkb"), "3");
    }
}
