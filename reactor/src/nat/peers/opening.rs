//! When two peers connect to each other by TCP at the same moment, between which addresses, and how often. Pure.
//!
//! A router lets in what it takes for an answer, and so a connection that both sides begin at once: each one's first packet
//! opens its own router for the other's, whichever of the two arrives (RFC 5128, section 3.4; RFC 9293, section 3.5). Each
//! connects from the port of its own connection to a relay, since it is known how a router shows that one; one that shows all
//! the same port shows the peer no other. It saves those pairs whose network drops UDP.
//!
//! Whoever is about to try names its own addresses beside those for UDP, over the relay. Who hears that and has not named its own does so
//! at once; both begin when they have done both, and so no further apart than a packet takes over the relay. If a datagram has
//! come through by then, nothing is sent.
//!
//! What arrives before the other has begun is dropped by its router, and the connection waits; where it is refused, by a machine
//! that no router protects, it is tried again, and a listener takes what comes between two tries. Our own router is opened by
//! no packet of less reach, as it is for UDP (`paths.rs`): it would know the first connection's numbers then, and take what the
//! listener answers for another's.
//!
//! What a peer can make us do, since it names the addresses: in [`OPENED_EACH_MIN`] no more than [`TRIES_MAX`] connections to
//! each of [`TCP_CANDIDATES_MAX`] addresses, none of a port below [`PORT_MIN`], where services are.
//!
//! What it is not: a choice of who is client and server of what is said then, which ids decide and not who was faster.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::message::TCP_CANDIDATES_MAX;
use crate::nat::relay::Seat;

/// Naming and hearing are of one opening if they are no further apart: a round trip over the relay, and two that are lost.
const TOLD_FOR: Duration = Duration::from_secs(5);

/// Between two openings, whoever asks for them.
const OPENED_EACH_MIN: Duration = Duration::from_secs(10);

/// The pause behind one that we began, if nothing came of it; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// How long UDP is waited for: as long as happy eyeballs give the better address (RFC 8305).
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// How long one opening lasts, behind that.
pub(super) const LASTS: Duration = Duration::from_secs(8);

/// A connection is given so long: the kernel has sent its first packet again after 1 s, and it has crossed a slow line.
const TRY_LASTS: Duration = Duration::from_millis(2_500);

/// Behind a refusal. It doubles each time: the peer's machine refuses for the moment in which it begins another try.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
const REFUSED_PAUSE_MAX: Duration = Duration::from_millis(800);

/// Connections to one address in one opening.
const TRIES_MAX: u32 = 12;

/// No router lends ports below, and no kernel.
const PORT_MIN: u16 = 1_024;

/// Of one peer: what was named when, and when to begin.
#[derive(Default)]
pub(super) struct Opening {
    named: Vec<SocketAddr>,
    /// From where we have said that we connect.
    from: Option<SocketAddr>,
    heard_at: Option<Instant>,
    told_at: Option<Instant>,
    /// Ours are to be named in answer to the peer's.
    must_tell: bool,
    begun_at: Option<Instant>,
    begins: bool,
    /// When we may begin one ourselves, and how many came to nothing.
    next_at: Option<Instant>,
    count: u32,
}

fn is_within(at: Option<Instant>, duration: Duration, now: Instant) -> bool {
    at.is_some_and(|at| now < at + duration)
}

impl Opening {
    /// Whether our own addresses are named in the message that is sent now: we would connect `from` there.
    pub(super) fn tells(&mut self, from: SocketAddr, now: Instant) -> bool {
        // What was said before may have come too early.
        let again = is_within(self.told_at, TOLD_FOR, now);
        let is_due = self.next_at.is_none_or(|at| now >= at);
        if is_due {
            self.next_at = Some(now + (PAUSE_FIRST * (1 << self.count.min(7))).min(PAUSE_MAX));
            self.count += 1;
        }
        let tells = again || is_due || self.must_tell;
        self.must_tell = false;
        if tells {
            self.from = Some(from);
            self.told_at = self.told_at.filter(|_| again).or(Some(now));
        }
        self.begin(now);
        tells
    }

    /// The peer names its addresses, and is about to connect from there; whether ours have to be named now.
    pub(super) fn on_named(&mut self, named: &[SocketAddr], now: Instant) -> bool {
        let named = named.iter().filter(|address| address.port() >= PORT_MIN).take(TCP_CANDIDATES_MAX);
        self.named = named.copied().collect();
        if self.named.is_empty() {
            return false;
        }
        self.heard_at = Some(now);
        self.must_tell =
            !is_within(self.told_at, TOLD_FOR, now) && !is_within(self.begun_at, OPENED_EACH_MIN, now);
        self.begin(now);
        self.must_tell
    }

    fn begin(&mut self, now: Instant) {
        let is_agreed = is_within(self.told_at, TOLD_FOR, now) && is_within(self.heard_at, TOLD_FOR, now);
        if is_agreed && !is_within(self.begun_at, OPENED_EACH_MIN, now) {
            self.begun_at = Some(now);
            self.begins = true;
        }
    }

    /// From where to connect and to what, if both have named theirs and nothing was begun since; once for each opening.
    pub(super) fn take_begun(&mut self) -> Option<(SocketAddr, Vec<SocketAddr>)> {
        let begins = std::mem::take(&mut self.begins);
        self.from.filter(|_| begins).map(|from| (from, self.named.clone()))
    }

    /// There is a way, or something has changed: pauses begin anew.
    pub(super) fn start_over(&mut self) {
        (self.next_at, self.count) = (None, 0);
    }
}

/// Whether we are the client of what is said over the connection, whoever was faster.
pub(super) fn is_client(own: Seat, peer: Seat) -> bool {
    own < peer
}

/// The tries of one address in one opening.
pub(super) struct Tries {
    begun_at: Instant,
    count: u32,
    refused: u32,
}

impl Tries {
    pub(super) fn new(now: Instant) -> Tries {
        Tries { begun_at: now, count: 0, refused: 0 }
    }

    /// How long the next one may take; `None` when it is over.
    pub(super) fn next(&mut self, now: Instant) -> Option<Duration> {
        let left = (self.begun_at + LASTS).saturating_duration_since(now);
        if self.count == TRIES_MAX || left.is_zero() {
            return None;
        }
        self.count += 1;
        Some(left.min(TRY_LASTS))
    }

    /// The last one has failed before its time; how long to wait.
    pub(super) fn on_failed(&mut self) -> Duration {
        self.refused += 1;
        (REFUSED_PAUSE * (1 << (self.refused - 1).min(7))).min(REFUSED_PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::PeerId;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const SIDES: [&str; 2] = ["203.0.113.1:5000", "203.0.113.2:5000"];

    /// Two peers, and what one says to the other arrives after `way`, unless it is lost.
    struct Play {
        now: Instant,
        sides: [Opening; 2],
        under_way: Vec<(Instant, usize, Vec<SocketAddr>)>,
        begun: [Vec<Instant>; 2],
    }

    impl Play {
        fn new() -> Play {
            Play {
                now: Instant::now(),
                sides: Default::default(),
                under_way: Vec::new(),
                begun: Default::default(),
            }
        }

        /// A round of that side's.
        fn round(&mut self, side: usize, way: Option<Duration>) {
            let own = at(SIDES[side]);
            let named = if self.sides[side].tells(own, self.now) { vec![own] } else { vec![] };
            self.under_way.extend(way.map(|way| (self.now + way, 1 - side, named)));
            self.look();
        }

        fn look(&mut self) {
            for side in 0..2 {
                if let Some(begun) = self.sides[side].take_begun() {
                    assert_eq!(begun, (at(SIDES[side]), vec![at(SIDES[1 - side])]));
                    self.begun[side].push(self.now);
                }
            }
        }

        /// What is under way arrives, and is answered where it has to be, which takes as long.
        fn arrive(&mut self, way: Duration) {
            while !self.under_way.is_empty() {
                self.under_way.sort_by_key(|(due, ..)| *due);
                let (due, side, named) = self.under_way.remove(0);
                self.now = self.now.max(due);
                if self.sides[side].on_named(&named, self.now) {
                    self.round(side, Some(way));
                }
                self.look();
            }
        }
    }

    #[test]
    fn both_begin_when_each_has_named_and_heard_and_no_further_apart_than_a_packet_takes() {
        let (mut play, way) = (Play::new(), 40 * MS);
        let begun = play.now;
        // The second knows nothing of it yet, and is about to have its own round.
        play.round(0, Some(way));
        play.arrive(way);
        assert_eq!(play.begun[1], [begun + way]);
        assert_eq!(play.begun[0], [begun + 2 * way]);
        // At the same moment.
        let mut play = Play::new();
        play.round(0, Some(way));
        play.round(1, Some(way));
        play.arrive(way);
        assert_eq!(play.begun, [[begun_of(&play)], [begun_of(&play)]]);
    }

    fn begun_of(play: &Play) -> Instant {
        play.begun[0][0]
    }

    #[test]
    fn what_was_said_too_early_is_said_again_in_the_next_round() {
        let (mut play, way) = (Play::new(), 40 * MS);
        play.round(0, None);
        play.now += 100 * MS;
        play.round(1, Some(way));
        play.arrive(way);
        assert_eq!((play.begun[0].len(), play.begun[1].len()), (1, 0));
        play.now += 500 * MS;
        play.round(0, Some(way));
        play.arrive(way);
        assert_eq!((play.begun[0].len(), play.begun[1].len()), (1, 1));
    }

    #[test]
    fn openings_that_come_to_nothing_grow_rarer_and_whoever_begins_the_other_follows() {
        let (mut play, way) = (Play::new(), 40 * MS);
        let begun = play.now;
        while play.now < begun + 2_000 * SECOND {
            play.round(0, Some(way));
            play.arrive(way);
            play.now += 7 * SECOND;
            play.round(1, Some(way));
            play.arrive(way);
            play.now += 13 * SECOND;
        }
        let [one, other] = &play.begun;
        assert_eq!(one.len(), other.len());
        assert!((4..=14).contains(&one.len()), "{}", one.len());
        assert!(one.iter().zip(other).all(|(one, other)| one.max(other) < &(*one.min(other) + SECOND)));
        play.sides.iter_mut().for_each(Opening::start_over);
        let before = play.begun[0].len();
        play.round(0, Some(way));
        play.arrive(way);
        assert_eq!(play.begun[0].len(), before + 1, "something has changed");
    }

    #[test]
    fn however_often_a_peer_names_addresses_little_is_opened_and_nothing_at_a_services_port() {
        let (mut opening, begun, mut count) = (Opening::default(), Instant::now(), 0);
        let named: Vec<SocketAddr> =
            (0..20).map(|port| SocketAddr::new([203, 0, 113, 1].into(), 1_014 + port)).collect();
        for tenth in 0..600 {
            let now = begun + tenth * 100 * MS;
            if opening.on_named(&named, now) {
                assert!(opening.tells(at("192.0.2.1:5000"), now));
            }
            if let Some((_, towards)) = opening.take_begun() {
                assert_eq!(towards.len(), TCP_CANDIDATES_MAX);
                assert!(towards.iter().all(|address| address.port() >= PORT_MIN));
                count += 1;
            }
        }
        assert_eq!(count, 6);
        assert!(!opening.on_named(&[at("203.0.113.1:22")], begun + 100 * SECOND));
    }

    #[test]
    fn refusals_make_the_next_tries_rarer_and_who_is_silent_is_tried_a_few_times() {
        let begun = Instant::now();
        let (mut tries, mut now, mut pauses) = (Tries::new(begun), begun, Vec::new());
        while tries.next(now).is_some() {
            let pause = tries.on_failed();
            now += pause;
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 800, 800, 800, 800, 800, 800, 800]);
        let (mut tries, mut now, mut count) = (Tries::new(begun), begun, 0);
        while let Some(lasts) = tries.next(now) {
            (now, count) = (now + lasts, count + 1);
        }
        assert_eq!((count, now), (4, begun + LASTS));
    }

    #[test]
    fn of_two_seats_one_is_the_client_whoever_asks() {
        let seat = |peer, number| Seat { peer: PeerId([peer; 32]), number };
        for (one, other) in [(seat(1, 0), seat(2, 0)), (seat(1, 0), seat(1, 7)), (seat(2, 9), seat(1, 0))] {
            assert_ne!(is_client(one, other), is_client(other, one));
        }
    }
}
