//! Which of several peers is asked. Pure.
//!
//! Of two peers drawn at random the one with less in flight is taken: nearly as even as the least of all, and peers that
//! many clients choose among are not all found idle at the same moment. A peer that fails several times in a row is ejected
//! for a time, which doubles with each ejection. After it the peer is asked with one call: if that goes well it is among the
//! others again, and else it is out for longer.
//!
//! A peer that is ejected is still better than none: with all of them out, calls are spread over all as if none were, for
//! nothing tells those that are back from those that are not.
//!
//! A call whose time was over says nothing of a peer that has answered another since that call began, nor if the time was
//! so short that a sound peer may need more ([`EjectPolicy::time_min`]).
//!
//! What it is not: health checks. What is known of a peer is what its calls came to.
//!
//! # Source
//! Mitzenmacher 2001, "The Power of Two Choices in Randomized Load Balancing".

use std::time::{Duration, Instant};

use crate::Backoff;

/// When a peer is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectPolicy {
    /// After so many failures in a row: one or two may be the network's.
    pub failures_max: u32,
    /// How long at first; between half of it and all of it, at random.
    pub pause_first: Duration,
    /// How long at most.
    pub pause_max: Duration,
    /// A call whose time is over after less than this is no failure of the peer's. A client whose calls all have less time
    /// finds no dead peer by them, and wants less here.
    pub time_min: Duration,
}

impl Default for EjectPolicy {
    /// After three failures in a row, for 1 s at first and 60 s at most; calls of less than 100 ms don't count, in which
    /// an answer may not even cross a continent.
    fn default() -> EjectPolicy {
        EjectPolicy {
            failures_max: 3,
            pause_first: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
            time_min: Duration::from_millis(100),
        }
    }
}

/// What a call at a peer came to, as far as the peer is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has answered, with an error too.
    Answered,
    /// It has not, or was too busy.
    Failed,
    /// It had not when the call's time was over.
    TimedOut {
        /// When the call began.
        began: Instant,
    },
    /// It had not when another peer, asked later, had.
    Passed {
        /// When the call to this one began.
        began: Instant,
    },
    /// Nobody waited for it to the end.
    GivenUp,
}

#[derive(Clone, Debug)]
struct Peer {
    in_flight: usize,
    failures: u32,
    /// When it may be asked again; it stays until a call has gone well.
    out_until: Option<Instant>,
    /// When it has answered last.
    answered_at: Option<Instant>,
    backoff: Backoff,
}

impl Peer {
    fn is_silent_since(&self, began: Instant) -> bool {
        self.answered_at.is_none_or(|at| at <= began)
    }
}

/// What is known of some peers, by their index.
#[derive(Clone, Debug)]
pub struct Peers {
    policy: EjectPolicy,
    peers: Vec<Peer>,
}

impl Peers {
    /// So many peers of which nothing is known.
    pub fn new(count: usize, policy: EjectPolicy) -> Peers {
        let backoff = Backoff::new(policy.pause_first, policy.pause_max);
        let peer = Peer { in_flight: 0, failures: 0, out_until: None, answered_at: None, backoff };
        Peers { policy, peers: vec![peer; count] }
    }

    /// Chooses a peer for a call at `now` and counts the call; `None` if there are no peers.
    ///
    /// Taken are, in this order, those that are not out and ready (a connection is there) and not `tried` yet; the same if
    /// they were tried; those that are not ready, not `tried` before tried. If all are out, the same of all.
    pub fn pick(
        &mut self,
        now: Instant,
        is_ready: impl Fn(usize) -> bool,
        tried: &[usize],
        random: u64,
    ) -> Option<usize> {
        let mut some: Vec<usize> = (0..self.peers.len()).filter(|&at| self.is_fit(at, now)).collect();
        if some.is_empty() {
            some = (0..self.peers.len()).collect();
        }
        // Who can't be had as wished is taken as is.
        let narrow = |some: &mut Vec<usize>, wished: &dyn Fn(usize) -> bool| {
            if some.iter().any(|&at| wished(at)) {
                some.retain(|&at| wished(at));
            }
        };
        narrow(&mut some, &is_ready);
        narrow(&mut some, &|at| !tried.contains(&at));
        if some.is_empty() {
            return None;
        }
        let at = self.less_busy(&some, random);
        self.peers[at].in_flight += 1;
        Some(at)
    }

    /// A call at a peer has ended, at `now`.
    pub fn on_end(&mut self, at: usize, end: End, now: Instant, random: u64) {
        let failures_max = self.policy.failures_max.max(1);
        let Some(peer) = self.peers.get_mut(at) else { return };
        peer.in_flight = peer.in_flight.saturating_sub(1);
        let has_failed = match end {
            End::GivenUp => false,
            End::Answered => {
                self.on_answer(at, now);
                return;
            }
            End::Failed => true,
            End::TimedOut { began } => now - began >= self.policy.time_min && peer.is_silent_since(began),
            End::Passed { began } => peer.is_silent_since(began),
        };
        if has_failed {
            peer.failures = peer.failures.saturating_add(1);
            // Calls that were on their way when it was ejected say nothing new.
            let is_out = peer.out_until.is_some_and(|until| until > now);
            if !is_out && (peer.failures >= failures_max || peer.out_until.is_some()) {
                peer.out_until = Some(now + peer.backoff.next_delay(random));
            }
        }
    }

    /// A peer has shown at `now` that it works, in a call that may go on.
    pub fn on_answer(&mut self, at: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(at) else { return };
        (peer.failures, peer.out_until, peer.answered_at) = (0, None, Some(now));
        peer.backoff.reset();
    }

    /// How many calls a peer has in flight.
    pub fn in_flight(&self, at: usize) -> usize {
        self.peers[at].in_flight
    }

    /// Whether a peer is left out at `now`.
    pub fn is_ejected(&self, at: usize, now: Instant) -> bool {
        self.peers[at].out_until.is_some_and(|until| until > now)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// Whether it takes calls: one that was out takes one, which shows what it is worth.
    fn is_fit(&self, at: usize, now: Instant) -> bool {
        let peer = &self.peers[at];
        peer.out_until.is_none_or(|until| until <= now && peer.in_flight == 0)
    }

    /// The less busy of two of `some`, which are not none.
    fn less_busy(&self, some: &[usize], random: u64) -> usize {
        let (high, low) = ((random >> 32) as usize, random as u32 as usize);
        let first = some[high % some.len()];
        if some.len() == 1 {
            return first;
        }
        // The second is another one.
        let second = some[(high % some.len() + 1 + low % (some.len() - 1)) % some.len()];
        if self.peers[second].in_flight < self.peers[first].in_flight { second } else { first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: fn(usize) -> bool = |_| true;

    /// SplitMix64 (Steele, Lea and Flood 2014).
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn the_less_busy_of_two_is_taken_and_all_are_taken_evenly() {
        let now = Instant::now();
        let mut peers = Peers::new(4, EjectPolicy::default());
        let mut random = 7;
        for _ in 0..4_000 {
            peers.pick(now, ANY, &[], next(&mut random)).unwrap();
        }
        for at in 0..4 {
            assert!((990..=1_010).contains(&peers.in_flight(at)), "{}", peers.in_flight(at));
        }
    }

    #[test]
    fn who_fails_in_a_row_is_left_out_and_comes_back_with_one_call() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut peers = Peers::new(2, EjectPolicy::default());
        for _ in 0..3 {
            peers.on_end(0, End::Failed, start, u64::MAX);
        }
        assert!(peers.is_ejected(0, start) && !peers.is_ejected(1, start));
        let picks: Vec<_> = (0..9).map(|random| peers.pick(start, ANY, &[], random << 32)).collect();
        assert!(picks.iter().all(|&picked| picked == Some(1)), "{picks:?}");
        // Its time is over: one call, and no second one before that has ended.
        let later = start + second;
        assert_eq!(peers.pick(later, ANY, &[], 0), Some(0));
        assert_eq!(peers.pick(later, ANY, &[], 0), Some(1));
        // One failure is enough now, and it is out for twice as long.
        peers.on_end(0, End::Failed, later, u64::MAX);
        assert!(peers.is_ejected(0, later + second) && !peers.is_ejected(0, later + 2 * second));
        assert_eq!(peers.pick(later + 2 * second, ANY, &[], 0), Some(0));
        peers.on_end(0, End::Answered, later + 2 * second, 0);
        peers.on_end(0, End::Failed, later + 2 * second, 0);
        assert!(!peers.is_ejected(0, later + 2 * second), "it is as good as the others again");
    }

    #[test]
    fn calls_that_were_on_their_way_eject_nobody_for_longer() {
        let start = Instant::now();
        let mut peers = Peers::new(2, EjectPolicy::default());
        for _ in 0..50 {
            peers.on_end(0, End::Failed, start, u64::MAX);
        }
        assert!(!peers.is_ejected(0, start + Duration::from_secs(1)));
    }

    #[test]
    fn others_are_asked_before_who_was_tried_or_is_not_there() {
        let now = Instant::now();
        let mut peers = Peers::new(3, EjectPolicy::default());
        for random in 0..30 {
            assert_eq!(peers.pick(now, ANY, &[0, 2], random << 32), Some(1));
            assert_eq!(peers.pick(now, |at| at == 2, &[2], random << 32), Some(2), "rather than wait");
        }
        assert!(peers.pick(now, |_| false, &[], 5).is_some());
        assert_eq!(Peers::new(0, EjectPolicy::default()).pick(now, ANY, &[], 5), None);
    }

    #[test]
    fn short_times_and_calls_beside_answered_ones_eject_nobody_and_silence_does() {
        let (start, ms) = (Instant::now(), Duration::from_millis(1));
        let mut peers = Peers::new(3, EjectPolicy::default());
        let (short, later) = (start + 99 * ms, start + 100 * ms);
        for _ in 0..9 {
            peers.on_end(0, End::TimedOut { began: start }, short, u64::MAX);
        }
        assert!(!peers.is_ejected(0, short), "it had no time");
        peers.on_answer(1, start + ms);
        for _ in 0..9 {
            peers.on_end(1, End::TimedOut { began: start }, later, u64::MAX);
            peers.on_end(1, End::Passed { began: start }, later, u64::MAX);
        }
        assert!(!peers.is_ejected(1, later), "it has answered in that time");
        for _ in 0..3 {
            peers.on_end(0, End::TimedOut { began: start }, later, u64::MAX);
            peers.on_end(2, End::Passed { began: start }, start + ms, u64::MAX);
        }
        assert!(peers.is_ejected(0, later) && peers.is_ejected(2, later));
    }

    #[test]
    fn a_sign_of_life_within_a_call_brings_a_peer_back() {
        let start = Instant::now();
        let mut peers = Peers::new(1, EjectPolicy::default());
        for _ in 0..3 {
            peers.on_end(0, End::Failed, start, u64::MAX);
        }
        assert_eq!(peers.pick(start, ANY, &[], 0), Some(0));
        peers.on_answer(0, start);
        assert!(!peers.is_ejected(0, start));
        assert_eq!(peers.in_flight(0), 1);
    }

    proptest! {
        #[test]
        fn with_all_out_a_calls_tries_go_to_all_and_calls_are_spread(count in 2usize..7, seed: u64, due: bool) {
            let (start, mut random) = (Instant::now(), seed);
            let mut peers = Peers::new(count, EjectPolicy::default());
            for at in 0..count {
                for _ in 0..3 {
                    peers.on_end(at, End::Failed, start, next(&mut random));
                }
            }
            // Either all are out, or all are due and have the one call each that shows what they are worth.
            let now = if due { start + Duration::from_secs(1) } else { start };
            let mut tried = Vec::new();
            for _ in 0..count {
                let at = peers.pick(now, ANY, &tried, next(&mut random)).unwrap();
                prop_assert!(!tried.contains(&at), "{at} again, after {tried:?}");
                tried.push(at);
            }
            for _ in 0..100 * count {
                peers.pick(now, ANY, &[], next(&mut random));
            }
            let counts: Vec<usize> = (0..count).map(|at| peers.in_flight(at)).collect();
            prop_assert!(counts.iter().all(|in_flight| (80..=120).contains(in_flight)), "{counts:?}");
            // Who is not there is asked after who is.
            prop_assert_eq!(peers.pick(now, |at| at == 1, &[1], seed), Some(1));
        }

        #[test]
        fn whatever_becomes_of_calls_somebody_is_asked_and_nothing_is_counted_twice(
            count in 1usize..6, steps: Vec<(u64, u8, u8)>,
        ) {
            let mut peers = Peers::new(count, EjectPolicy::default());
            let began = Instant::now();
            let (mut now, mut running) = (began, Vec::new());
            for (random, kind, ms) in steps {
                now += Duration::from_millis(u64::from(ms) * 10);
                if kind % 4 == 0 || running.is_empty() {
                    running.push(peers.pick(now, |at| random >> at & 1 == 0, &[], random).unwrap());
                } else {
                    let at = running.swap_remove(random as usize % running.len());
                    let ends =
                        [End::Answered, End::Failed, End::GivenUp, End::TimedOut { began }, End::Passed { began }];
                    let end = ends[usize::from(kind) % ends.len()];
                    peers.on_end(at, end, now, random);
                }
                let counted: usize = (0..count).map(|at| peers.in_flight(at)).sum();
                prop_assert_eq!(counted, running.len());
            }
        }
    }
}
