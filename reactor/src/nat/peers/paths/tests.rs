//! The choice of a path, played through with a clock of our own.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
/// What a peer says that knows our addresses, and nothing besides.
const KNOWN: (bool, bool) = (true, false);
const SECOND: Duration = Duration::from_secs(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Paths, a clock, and who answers.
struct Play {
    paths: Paths,
    now: Instant,
    next: u64,
    sent: Vec<(Instant, Probe)>,
    rounds: Vec<Instant>,
}

impl Play {
    fn new() -> Play {
        Play { paths: Paths::default(), now: Instant::now(), next: 0, sent: Vec::new(), rounds: Vec::new() }
    }

    /// Goes on for `duration`; `answers` says after how long the ping comes back, if it does.
    fn pass(&mut self, duration: Duration, answers: impl Fn(&Probe) -> Option<Duration>) {
        let end = self.now + duration;
        let mut on_the_way: Vec<(Instant, Probe)> = Vec::new();
        loop {
            let now = self.now;
            self.paths.on_time(now);
            if self.paths.begin_round(now) {
                self.rounds.push(now);
            }
            let next = &mut self.next;
            let probes = self.paths.probes(now, || {
                *next += 1;
                *next
            });
            for probe in probes {
                self.sent.push((now, probe));
                let answer = answers(&probe).filter(|_| probe.hops.is_none());
                on_the_way.extend(answer.map(|round_trip| (now + round_trip, probe)));
            }
            on_the_way.sort_by_key(|(due, _)| *due);
            let pong = on_the_way.first().map(|(due, _)| *due);
            let due = self.paths.next_due().into_iter().chain(pong).min().unwrap_or(end).max(now);
            if due >= end {
                self.now = end;
                return;
            }
            self.now = due;
            if pong == Some(due) {
                let (_, probe) = on_the_way.remove(0);
                assert!(self.paths.on_pong(probe.to, probe.transaction, due));
                assert!(!self.paths.on_pong(probe.to, probe.transaction, due), "an answer counts once");
            }
        }
    }

    fn sent_to(&self, address: SocketAddr) -> usize {
        self.sent.iter().filter(|(_, probe)| probe.to == address).count()
    }
}

/// A peer that is reached directly.
fn direct(address: SocketAddr) -> Play {
    let mut play = Play::new();
    play.paths.on_candidates(&[address], KNOWN, play.now);
    play.pass(SECOND, |_| Some(20 * MS));
    assert_eq!(play.paths.route(), Some(address));
    play
}

#[test]
fn an_address_is_used_when_a_long_packet_has_come_back_and_not_before() {
    let (mut play, narrow) = (Play::new(), at("203.0.113.1:1"));
    play.paths.on_candidates(&[narrow], KNOWN, play.now);
    play.pass(20 * SECOND, |probe| (probe.padding == 0).then_some(20 * MS));
    assert_eq!(play.paths.route(), None, "only small ones pass");
    let wide = direct(at("203.0.113.1:1"));
    assert_eq!(wide.paths.round_trip(), Some(20 * MS));
    let long: Vec<usize> =
        wide.sent.iter().map(|(_, probe)| probe.padding).filter(|padding| *padding > 0).collect();
    assert_eq!(long, [FULL_BYTES - SMALL_BYTES], "and one long one was enough");
}

#[test]
fn answers_to_what_nobody_asked_or_from_elsewhere_choose_nothing() {
    let (mut play, address) = (Play::new(), at("203.0.113.1:1"));
    play.paths.on_candidates(&[address, at("203.0.113.2:2")], KNOWN, play.now);
    play.pass(100 * MS, |_| None);
    let (now, transaction) = (play.now, play.sent[0].1.transaction);
    assert!(!play.paths.on_pong(at("203.0.113.2:2"), transaction, now), "it was asked of another");
    assert!(!play.paths.on_pong(at("203.0.113.9:9"), transaction, now));
    assert!(!play.paths.on_pong(address, 999, now));
    assert_eq!(play.paths.route(), None);
}

#[test]
fn a_silent_address_is_left_within_seconds_and_taken_again_when_it_heals() {
    let address = at("203.0.113.1:1");
    let mut play = direct(address);
    // In use: it is asked each second, so the silence shows soon.
    play.paths.on_sent(play.now);
    let begun = play.now;
    while play.paths.route().is_some() {
        play.paths.on_sent(play.now);
        play.pass(100 * MS, |_| None);
    }
    assert!(play.now - begun <= PING_BUSY + SILENCE_MAX + 200 * MS);
    // And it is tried again at once, and in rounds that grow rarer.
    play.rounds.clear();
    play.pass(Duration::from_secs(600), |_| None);
    assert!((10..20).contains(&play.rounds.len()), "{}", play.rounds.len());
    let healed = play.now;
    while play.paths.route().is_none() {
        play.pass(100 * MS, |_| Some(20 * MS));
    }
    assert!(play.now - healed <= ROUND_MAX + SECOND);
}

#[test]
fn an_idle_address_costs_a_ping_in_a_while_and_some_loss_does_not_end_it() {
    let address = at("203.0.113.1:1");
    let mut play = direct(address);
    play.sent.clear();
    play.pass(Duration::from_secs(3_600), |_| Some(20 * MS));
    assert!((235..=242).contains(&play.sent.len()), "{}", play.sent.len());
    assert!(play.sent.iter().all(|(_, probe)| probe.padding == 0) && play.rounds.len() == 1);
    // Two of three are lost.
    play.pass(Duration::from_secs(3_600), |probe| (probe.transaction % 3 == 0).then_some(20 * MS));
    assert_eq!(play.paths.route(), Some(address));
}

#[test]
fn an_address_that_carries_nothing_is_left_though_it_answers_and_comes_back_later() {
    let address = at("203.0.113.1:1");
    let mut play = direct(address);
    let blocked_for = |play: &mut Play, block: u64| {
        play.paths.on_carries_nothing(play.now);
        play.paths.on_ping(address, play.now);
        play.pass(Duration::from_secs(block - 1), |_| Some(20 * MS));
        assert_eq!(play.paths.route(), None);
        // However rare the rounds are by then.
        play.pass(2 * SECOND, |_| Some(20 * MS));
        assert_eq!(play.paths.route(), Some(address));
    };
    for block in [30, 60, 120] {
        blocked_for(&mut play, block);
    }
    // It carries all for some time, and what went wrong before is not held against it.
    play.pass(CARRIES_WELL, |_| Some(20 * MS));
    blocked_for(&mut play, 30);
}

#[test]
fn the_local_network_is_preferred_and_a_little_faster_is_no_reason_to_change() {
    let [near, far, other] = ["192.168.1.2:1", "203.0.113.1:1", "203.0.113.2:1"].map(at);
    let slow_near = |probe: &Probe| Some(if probe.to == near { 40 * MS } else { 10 * MS });
    let mut play = Play::new();
    play.paths.on_candidates(&[far, near], KNOWN, play.now);
    play.pass(SECOND, slow_near);
    assert_eq!(play.paths.route(), Some(near));
    let mut play = direct(far);
    play.paths.on_candidates(&[far, other], KNOWN, play.now);
    play.pass(SECOND, |_| Some(15 * MS));
    assert_eq!(play.paths.route(), Some(far));
    play.pass(5 * SECOND, |_| Some(20 * MS));
    play.paths.on_candidates(&[far, other], KNOWN, play.now);
    play.pass(SECOND, |probe| Some(if probe.to == other { 5 * MS } else { 20 * MS }));
    assert_eq!(play.paths.route(), Some(other));
}

/// Both have IPv6 and a router that shows them the same port, and one of them has a tunnel in common besides.
#[test]
fn ipv6_is_preferred_to_what_a_router_lends_unless_it_is_a_long_way_round() {
    let [v4, v6] = ["203.0.113.1:1", "[2a00::1]:1"].map(at);
    let settled = |by_v4: u32, by_v6: u32| {
        let mut play = Play::new();
        play.paths.on_candidates(&[v4, v6], KNOWN, play.now);
        play.pass(2 * SECOND, |probe| Some(if probe.to == v6 { by_v6 * MS } else { by_v4 * MS }));
        play
    };
    assert_eq!(settled(20, 20).paths.route(), Some(v6));
    assert_eq!(settled(20, 45).paths.route(), Some(v6), "a little longer");
    assert_eq!(settled(20, 120).paths.route(), Some(v4));
    // What was chosen is not left for a little either.
    let mut play = settled(20, 20);
    for _ in 0..3 {
        play.pass(5 * SECOND, |_| Some(20 * MS));
        play.paths.on_candidates(&[v4, v6], KNOWN, play.now);
        play.pass(SECOND, |probe| Some(if probe.to == v6 { 20 * MS } else { 8 * MS }));
        assert_eq!(play.paths.route(), Some(v6));
    }
    // A private address that is a tunnel to somewhere, and one that is in the same room.
    let tunnel = at("10.8.0.2:1");
    for (by_tunnel, expected) in [(15, tunnel), (300, v6)] {
        let mut play = Play::new();
        play.paths.on_candidates(&[v4, tunnel, v6], KNOWN, play.now);
        play.pass(2 * SECOND, |probe| Some(if probe.to == tunnel { by_tunnel * MS } else { 20 * MS }));
        assert_eq!(play.paths.route(), Some(expected));
    }
}

/// Of the peer's interfaces some have addresses that look like a router's, and are not where its router is.
#[test]
fn a_port_is_searched_at_the_router_that_a_relay_sees_and_at_no_interface() {
    let router = at("203.0.113.9:1");
    let named = ["192.168.1.2:1", "203.0.113.9:1", "100.64.0.7:1", "198.51.100.2:1", "[2a00::1]:1"].map(at);
    let mut play = Play::new();
    play.paths.on_candidates(&named, KNOWN, play.now);
    assert_eq!(play.paths.searched(), Some(router));
    play.paths.on_candidates(&["100.64.0.7:1", "[2a00::1]:1"].map(at), KNOWN, play.now);
    assert_eq!(play.paths.searched(), None, "none lends ports");
}

/// Somebody names victims as often as they can, and has pings come from made-up places besides.
#[test]
fn what_a_peer_can_make_us_send_to_others_is_little() {
    let mut play = Play::new();
    let (begun, seconds) = (play.now, 60);
    let mut number = 0_u8;
    while play.now < begun + seconds * SECOND {
        number = number.wrapping_add(1);
        let named: Vec<SocketAddr> =
            (0..20).map(|host| SocketAddr::new([203, 0, 113, host].into(), 53)).collect();
        // Of both families by turns, so that each time others are forgotten.
        let of_v6 =
            |number| SocketAddr::new(std::net::Ipv6Addr::from_bits(0x2a_u128 << 120 | number).into(), 53);
        let named = if number.is_multiple_of(2) { (0..20).map(of_v6).collect() } else { named };
        play.paths.on_candidates(&named, KNOWN, play.now);
        play.paths.on_ping(SocketAddr::new([198, 51, 100, number].into(), 53), play.now);
        play.pass(100 * MS, |_| None);
    }
    assert!(play.sent.iter().all(|(_, probe)| probe.padding == 0), "long ones go to those who answered only");
    let to_named = play.sent_to(at("203.0.113.1:53"));
    assert!(to_named <= (seconds / 3 + 1) as usize * BURST_PINGS as usize, "{to_named}");
    let all = play.sent.len();
    assert!(all <= (seconds / 3 + 1) as usize * PROBES_MAX as usize, "{all}");
}

/// What is remembered of an address goes with its name, and must not be what bounds the pings.
#[test]
fn naming_others_each_time_makes_us_send_no_more() {
    let mut play = Play::new();
    let (begun, seconds) = (play.now, 30);
    let mut port = 0;
    while play.now < begun + seconds * SECOND {
        let named: Vec<SocketAddr> =
            (0..8).map(|nth| SocketAddr::new([203, 0, 113, 1].into(), port + nth)).collect();
        port = (port + 8) % 32_000;
        play.paths.on_candidates(&named, KNOWN, play.now);
        play.paths.on_ping(SocketAddr::new([198, 51, 100, 1].into(), port), play.now);
        play.pass(10 * MS, |_| None);
    }
    let all = play.sent.len();
    assert!(all <= (seconds / 3 + 1) as usize * PROBES_MAX as usize, "{all}");
    // And when it is honest again it is reached.
    let address = at("203.0.113.1:1");
    play.paths.on_candidates(&[address], KNOWN, play.now);
    play.pass(2 * BURST_GAP_MIN, |probe| (probe.to == address).then_some(20 * MS));
    assert_eq!(play.paths.route(), Some(address));
}

#[derive(Clone, Debug)]
enum Step {
    Candidates(Vec<u8>),
    Ping(u8),
    Pong(u8, u64),
    Sent,
    CarriesNothing,
    StartOver,
    Pass(u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::vec(0..30_u8, 0..10).prop_map(Step::Candidates),
        (0..30_u8).prop_map(Step::Ping),
        (0..30_u8, 0..100_u64).prop_map(|(from, transaction)| Step::Pong(from, transaction)),
        Just(Step::Sent),
        Just(Step::CarriesNothing),
        Just(Step::StartOver),
        (0..20_000_u64, any::<bool>()).prop_map(|(ms, answers)| Step::Pass(ms, answers)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_there_is_a_route_and_a_bound(steps in prop::collection::vec(step(), 0..60)) {
        let mut play = Play::new();
        let address = |host: u8| SocketAddr::new([203, 0, 113, host].into(), 1);
        for step in steps {
            let now = play.now;
            match step {
                Step::Candidates(hosts) => {
                    let named: Vec<SocketAddr> = hosts.into_iter().map(address).collect();
                    play.paths.on_candidates(&named, KNOWN, now);
                }
                Step::Ping(from) => play.paths.on_ping(address(from), now),
                Step::Pong(from, transaction) => { play.paths.on_pong(address(from), transaction, now); }
                Step::Sent => { play.paths.on_sent(now); }
                Step::CarriesNothing => play.paths.on_carries_nothing(now),
                Step::StartOver => play.paths.start_over(now),
                Step::Pass(ms, answers) => play.pass(Duration::from_millis(ms), |_| answers.then_some(30 * MS)),
            }
            prop_assert!(play.paths.known.len() <= KNOWN_MAX + 1);
            prop_assert!(play.paths.route().is_none_or(|chosen| play.paths.known.contains_key(&chosen)));
        }
    }
}

#[test]
fn a_search_is_wanted_when_two_rounds_were_in_vain_and_ever_more_rarely() {
    let mut play = Play::new();
    play.paths.on_candidates(&[at("192.168.1.2:1")], KNOWN, play.now);
    play.pass(ROUND_FIRST, |_| None);
    assert!(!play.paths.wants_search(play.now), "there is no router to search at");
    let (near, outside) = (at("192.168.1.2:1"), at("203.0.113.1:1"));
    let mut play = Play::new();
    play.paths.on_candidates(&[near, outside], KNOWN, play.now);
    play.pass(ROUND_AGAIN / 2, |_| None);
    assert!(!play.paths.wants_search(play.now), "the first round may do");
    play.pass(ROUND_AGAIN, |_| None);
    assert_eq!(play.paths.searched(), Some(outside));
    let mut wanted = Vec::new();
    let begun = play.now;
    while play.now < begun + Duration::from_secs(600) {
        if play.paths.wants_search(play.now) {
            wanted.push((play.now - begun).as_secs());
        }
        play.pass(SECOND, |_| None);
    }
    assert_eq!(wanted, [0, 30, 60, 90, 120, 180, 300, 540]);
    assert!(!play.paths.wants_search(play.now));
    play.paths.search_anew();
    assert!(play.paths.wants_search(play.now), "something has changed here");
    play.pass(ROUND_MAX, |probe| (probe.to == outside).then_some(20 * MS));
    assert_eq!((play.paths.route(), play.paths.searched()), (Some(outside), None));
    assert!(!play.paths.wants_search(play.now));
}

#[test]
fn pings_go_a_few_hops_only_until_the_peer_is_known_to_try() {
    let [near, outside] = ["192.168.1.2:1", "203.0.113.1:1"].map(at);
    let all_the_way = |play: &Play, to| -> Vec<Instant> {
        let sent = play.sent.iter().filter(|(_, probe)| probe.to == to && probe.hops.is_none());
        sent.map(|(at, _)| *at).collect()
    };
    // It has named its addresses, and does not know ours.
    let mut play = Play::new();
    let begun = play.now;
    play.paths.on_candidates(&[near, outside], (false, false), play.now);
    play.pass(60 * MS, |_| None);
    assert_eq!(play.sent_to(outside), 2, "its router is not open yet, and ours has to be");
    assert!(all_the_way(&play, outside).is_empty());
    assert_eq!(all_the_way(&play, near).len(), 2, "no router is on that way");
    // It says that it does: it has tried by then.
    play.paths.on_candidates(&[near, outside], KNOWN, play.now);
    play.pass(MS, |_| None);
    assert_eq!(all_the_way(&play, outside), [begun + 60 * MS]);
    // However long ago we have begun, with nothing to try yet: it names its addresses only now.
    let mut play = Play::new();
    play.pass(2 * HEAD_START, |_| None);
    play.paths.on_candidates(&[outside], (false, false), play.now);
    play.pass(HEAD_START - MS, |_| None);
    assert!(play.sent_to(outside) > 0 && all_the_way(&play, outside).is_empty());
    // And where nothing more is heard, in a while.
    let mut play = Play::new();
    let begun = play.now;
    play.paths.on_candidates(&[outside], (false, false), play.now);
    play.pass(SECOND, |_| None);
    assert_eq!(all_the_way(&play, outside).first(), Some(&(begun + HEAD_START)));
    // What comes from it says more than words.
    let mut play = Play::new();
    let begun = play.now;
    play.paths.on_candidates(&[outside], (false, false), play.now);
    play.pass(60 * MS, |_| None);
    play.paths.on_ping(at("203.0.113.1:2"), play.now);
    play.pass(MS, |_| None);
    assert_eq!(all_the_way(&play, outside), [begun + 60 * MS]);
}
