//! Which port a router lends next that hands them out in sequence, and what two peers have told each other of that. Pure.
//!
//! Where both routers lend another port for each destination, no address that either could name leads to it: the port for the
//! other does not exist yet. But many such routers lend the one behind the last. So each side has some new sockets seen by its
//! relays, sees how far apart the ports are, and names to the other one port that is to be lent soon ([`Sequence::port_ahead`]).
//! Both then open [`SOCKETS`] sockets that send there (`prediction.rs`): each router lends that many, the named one among them
//! unless others behind it were lent too many meanwhile, and of the pairs one is named on both sides.
//!
//! What it is not: a way between routers one of which draws its ports. Each would be seen by the other at the one port of
//! 64,512 that was drawn for it, and by nobody else.
//!
//! # Source
//!
//! Ford, Srisuresh, Kegel 2005, "Peer-to-Peer Communication Across Network Address Translators", section 5.1 (of TCP); RFC 5128,
//! section 3.4. Neither has both sides aim at one port out of many sockets, which is what bears ports that went to others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// New sockets that are seen, to learn how ports are lent. Three differences: one may be another machine's doing.
pub(super) const SEEN: usize = 4;

/// Routers lend no ports below.
const PORT_MIN: u16 = 1_024;

/// Between two ports lent one after another, of a router that is said to lend them in sequence: what other machines behind it
/// take meanwhile is between. One that draws them keeps within that three times in a row once in 3 x 10^10 times.
const GAP_MAX: i32 = 16;

/// Sockets that each side opens towards the port that the other names.
pub(super) const SOCKETS: usize = 32;

/// The port that is named is that which as many are lent before: so many may go to others between looking and opening. Some
/// behind it are opened too, so that a packet which is lost costs nothing.
const AHEAD: usize = 24;

/// A guess is good for so long: two ways over the relay and what was to be looked at between, and less than others take ports in.
const FRESH: Duration = Duration::from_millis(1_500);

/// Between two guesses that a peer has us make. From the fifth on that brought no way it doubles, up to some 40 minutes: sooner
/// than whoever keeps to the pauses of its own searches asks again (`paths.rs`).
const ANSWERED_EACH_MIN: Duration = Duration::from_secs(5);
const ANSWERS_ALIKE: u32 = 4;

/// How a router lends ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    /// The one that was lent last.
    last: u16,
    /// From each to the next.
    step: i32,
}

impl Sequence {
    /// What sockets tell that were opened one after another: for each, where it was seen, if anybody has said so, and its own
    /// port. `None` unless all came from one address, by ports that go one way in small steps and are not the sockets' own.
    pub(super) fn of(seen: &[(Option<SocketAddr>, u16)]) -> Option<Sequence> {
        let known = seen.iter().enumerate().filter_map(|(at, (seen, own))| Some((at, (*seen)?, *own)));
        let known: Vec<(usize, SocketAddr, u16)> = known.collect();
        let (newest, at, _) = *known.last()?;
        if known.iter().any(|(_, seen, own)| seen.ip() != at.ip() || seen.port() == *own) {
            return None;
        }
        // For each two neighbours how far apart they are, and how many were lent between them at least.
        let apart = known.windows(2).map(|two| {
            let port = |at: usize| i32::from(two[at].1.port());
            (port(1) - port(0), (two[1].0 - two[0].0) as i32)
        });
        let steps: Vec<i32> = apart.map(|(apart, lent)| apart / lent).collect();
        let step = *steps.iter().min_by_key(|step| step.abs())?;
        let is_step = |other: &i32| other.signum() == step.signum() && other.abs() <= GAP_MAX;
        if step == 0 || !steps.iter().all(is_step) {
            return None;
        }
        let missed = (seen.len() - 1 - newest) as i32;
        let last = u16::try_from(i32::from(at.port()) + step * missed).ok()?;
        Some(Sequence { last, step })
    }

    /// The port that the peer is told; `None` where that is beyond the last, as nobody knows where the router begins anew.
    pub(super) fn port_ahead(self) -> Option<u16> {
        let port = i32::from(self.last) + self.step * (AHEAD as i32 + 1);
        u16::try_from(port).ok().filter(|port| *port >= PORT_MIN)
    }
}

/// Of one peer: what it named, and whether we are at it.
#[derive(Default)]
pub(super) struct Guesses {
    theirs: Option<(SocketAddr, Instant)>,
    /// Ours are being made.
    pub(super) is_at_it: bool,
    answered_at: Option<Instant>,
    /// How often that was since there was a way.
    answer_count: u32,
}

impl Guesses {
    /// The peer has named a port. Whether it waits for one of ours that is not under way.
    pub(super) fn on_named(&mut self, at: SocketAddr, is_answer: bool, now: Instant) -> bool {
        self.theirs = Some((at, now));
        let is_due = self.answered_at.is_none_or(|at| now >= at + self.pause());
        let answers = is_due && !is_answer && !self.is_at_it;
        if answers {
            self.answered_at = Some(now);
            self.answer_count = self.answer_count.saturating_add(1);
        }
        answers
    }

    fn pause(&self) -> Duration {
        ANSWERED_EACH_MIN * (1 << self.answer_count.saturating_sub(ANSWERS_ALIKE).min(9))
    }

    /// There is a way, or something has changed here: what was in vain is not counted any more.
    pub(super) fn start_over(&mut self) {
        self.answer_count = 0;
    }

    /// What the peer named last, once, unless that is long ago.
    pub(super) fn take(&mut self, now: Instant) -> Option<SocketAddr> {
        self.theirs.take().filter(|(_, at)| now < *at + FRESH).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: u16 = 5;

    fn at(port: u16) -> SocketAddr {
        ([203, 0, 113, 1], port).into()
    }

    /// What sockets tell that were seen at these ports, 0 for those that were not.
    fn of(ports: &[u16]) -> Option<(u16, i32)> {
        let seen: Vec<_> = ports.iter().map(|port| (Some(at(*port)).filter(|_| *port > 0), OWN)).collect();
        Sequence::of(&seen).map(|sequence| (sequence.last, sequence.step))
    }

    #[test]
    fn the_step_and_the_direction_are_seen_whatever_is_lost_or_lent_to_others() {
        assert_eq!(of(&[40_000, 40_001, 40_002, 40_003]), Some((40_003, 1)));
        assert_eq!(of(&[40_000, 39_998, 39_996, 39_994]), Some((39_994, -2)));
        assert_eq!(of(&[40_000, 40_001, 40_009, 40_010]), Some((40_010, 1)), "others took seven");
        assert_eq!(of(&[40_000, 0, 40_002, 0]), Some((40_003, 1)), "one more was lent, whatever it is");
        assert_eq!(of(&[40_000, 40_001]), Some((40_001, 1)));
    }

    #[test]
    fn ports_that_are_drawn_or_kept_or_too_few_are_no_sequence() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0, 0, 40_000, 0]), None, "one says nothing");
        assert_eq!(of(&[40_000, 40_001, 40_000, 40_001]), None, "there and back");
        assert_eq!(of(&[40_000, 40_000, 40_000, 40_000]), None, "one port for all");
        assert_eq!(of(&[40_000, 40_001, 51_234, 51_235]), None);
        assert_eq!(of(&[65_534, 65_535, 1_024, 1_025]), None, "it begins anew");
        let (seen, other) = (Some(at(40_000)), Some(([203, 0, 113, 2], 40_001).into()));
        assert_eq!(Sequence::of(&[(seen, OWN), (other, OWN)]), None, "a provider with many addresses");
        assert_eq!(Sequence::of(&[(seen, 40_000), (Some(at(40_001)), 40_001)]), None, "the sockets' own");
    }

    #[test]
    fn the_port_that_is_named_is_among_those_that_are_lent_next() {
        for (step, taken) in [(1, 0), (1, AHEAD), (-1, 5), (4, 3)] {
            let sequence = Sequence { last: 40_000, step };
            let lent = (1..=SOCKETS as i32).map(|nth| 40_000 + step * (taken as i32 + nth));
            let named = i32::from(sequence.port_ahead().unwrap());
            assert!(lent.into_iter().any(|port| port == named), "{taken} went to others");
        }
        assert_eq!(Sequence { last: 65_530, step: 1 }.port_ahead(), None);
        assert_eq!(Sequence { last: 1_030, step: -1 }.port_ahead(), None);
    }

    #[test]
    fn a_peer_is_answered_once_in_a_while_and_what_it_names_is_good_once_and_for_a_moment() {
        let (mut guesses, begun) = (Guesses::default(), Instant::now());
        assert!(guesses.on_named(at(1_025), false, begun));
        assert!(!guesses.on_named(at(1_026), false, begun + ANSWERED_EACH_MIN / 2));
        assert_eq!(guesses.take(begun + ANSWERED_EACH_MIN / 2), Some(at(1_026)));
        assert_eq!(guesses.take(begun + ANSWERED_EACH_MIN / 2), None);
        let later = begun + ANSWERED_EACH_MIN;
        assert!(!guesses.on_named(at(1_027), true, later), "it answers ours");
        assert_eq!(guesses.take(later + FRESH), None);
        guesses.is_at_it = true;
        assert!(!guesses.on_named(at(1_027), false, later), "it gets one anyway");
        guesses.is_at_it = false;
        assert!(guesses.on_named(at(1_027), false, later));
    }

    #[test]
    fn who_has_us_guess_in_vain_is_answered_ever_more_seldom() {
        let (mut guesses, begun) = (Guesses::default(), Instant::now());
        let mut answered = |from: u64, seconds: u64| {
            let each =
                |second: &u64| guesses.on_named(at(1_025), false, begun + Duration::from_secs(*second));
            (from..from + seconds).filter(each).count()
        };
        assert_eq!(answered(0, 20), 4);
        assert!(answered(20, 3_600) <= 10);
        guesses.start_over();
        assert!(guesses.on_named(at(1_025), false, begun + Duration::from_secs(10_000)));
        assert!(guesses.on_named(at(1_025), false, begun + Duration::from_secs(10_005)));
    }

    proptest! {
        #[test]
        fn whatever_is_seen_a_port_that_is_named_can_be_lent(
            ports in prop::collection::vec(prop::option::of(any::<u16>()), 0..6),
            near in prop::collection::vec(0..20_u16, 0..6), from: u16,
        ) {
            let near: Vec<_> = near.iter().map(|more| Some(from.wrapping_add(*more))).collect();
            for ports in [ports, near] {
                let seen: Vec<_> = ports.iter().map(|port| (port.map(at), OWN)).collect();
                let named = Sequence::of(&seen).and_then(Sequence::port_ahead);
                prop_assert!(named.is_none_or(|port| port >= PORT_MIN));
            }
        }
    }
}
