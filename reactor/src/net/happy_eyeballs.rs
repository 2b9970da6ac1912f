//! Connecting to a name whose addresses may be many, of two families, and partly dead.
//!
//! Trying them one after another waits minutes for the first dead one; trying all at once is rude. RFC 8305 ("happy
//! eyeballs") starts one every 250 ms, or as soon as the one before has failed, families in turn and IPv6 first. The
//! first to connect wins and the others are broken off.
//!
//! [`Race`] decides, and is pure: it takes answers, failures and the time as values. [`connect`] is the flow: a
//! coroutine for each look-up and each attempt, in one scope.
//!
//! What it is not: a memory of which addresses worked (the section 4 history), or a NAT64 detector (section 7).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::resolve::{self, Family, no_such_name, with_port};
use super::{Destination, TcpStream};
use crate::cell::RefCell;
use crate::clock::now;
use crate::sync::Signal;

/// How long an IPv4 answer waits for the IPv6 one (RFC 8305, section 3).
pub const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// How long an attempt is given before the next one starts beside it (RFC 8305, section 5).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Attempts that are made at all: what a name server sends must not make us dial for ever.
const ATTEMPTS_MAX: usize = 16;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start an attempt at this address, and ask again.
    Attempt(SocketAddr),
    /// Ask again then, or when something has happened.
    WaitUntil(Instant),
    /// Ask again when something has happened.
    Wait,
    /// Nothing is left to try.
    GiveUp,
}

/// Which address to try when.
pub(super) struct Race {
    queues: [Queue; 2],
    /// The family of the last attempt, as an index.
    last: usize,
    started_count: usize,
    running_count: usize,
    /// When the next attempt may start beside those that run.
    next_at: Option<Instant>,
}

/// The addresses of one family.
#[derive(Default)]
struct Queue {
    addresses: VecDeque<SocketAddr>,
    answered_at: Option<Instant>,
}

const V6: usize = 0;
const V4: usize = 1;

impl Race {
    /// A race whose addresses are still being looked up.
    pub(super) fn new() -> Race {
        // As though an IPv4 address had been tried: the first is to be IPv6.
        Race { queues: Default::default(), last: V4, started_count: 0, running_count: 0, next_at: None }
    }

    /// A race among addresses that are known.
    pub(super) fn among(addresses: impl IntoIterator<Item = SocketAddr>, now: Instant) -> Race {
        let mut race = Race::new();
        let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
        race.on_answer(Family::V6, v6, now);
        race.on_answer(Family::V4, v4, now);
        race
    }

    /// The addresses of a family are known; perhaps there are none.
    pub(super) fn on_answer(
        &mut self,
        family: Family,
        addresses: impl IntoIterator<Item = SocketAddr>,
        now: Instant,
    ) {
        let queue = &mut self.queues[if family == Family::V6 { V6 } else { V4 }];
        queue.addresses.extend(addresses);
        queue.answered_at = Some(now);
    }

    /// One of the attempts has failed.
    pub(super) fn on_failure(&mut self) {
        self.running_count -= 1;
        // Section 5: no reason to wait for the delay any more.
        self.next_at = None;
    }

    /// What to do at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        if let Some(next_at) = self.next_at.filter(|next_at| now < *next_at) {
            return if self.has_address() { Step::WaitUntil(next_at) } else { self.idle() };
        }
        if self.started_count == 0
            && self.queues[V6].answered_at.is_none()
            && let Some(answered_at) = self.queues[V4].answered_at
            && !self.queues[V4].addresses.is_empty()
            && now < answered_at + RESOLUTION_DELAY
        {
            return Step::WaitUntil(answered_at + RESOLUTION_DELAY);
        }
        let other = 1 - self.last;
        let family = if self.queues[other].addresses.is_empty() { self.last } else { other };
        match self.queues[family].addresses.pop_front() {
            Some(address) if self.started_count < ATTEMPTS_MAX => {
                self.last = family;
                self.started_count += 1;
                self.running_count += 1;
                self.next_at = Some(now + ATTEMPT_DELAY);
                Step::Attempt(address)
            }
            _ => self.idle(),
        }
    }

    fn has_address(&self) -> bool {
        self.started_count < ATTEMPTS_MAX && self.queues.iter().any(|queue| !queue.addresses.is_empty())
    }

    fn idle(&self) -> Step {
        let answers_to_come = self.queues.iter().any(|queue| queue.answered_at.is_none());
        if self.running_count > 0 || (answers_to_come && self.started_count < ATTEMPTS_MAX) {
            Step::Wait
        } else {
            Step::GiveUp
        }
    }
}

/// What the coroutines of one race share.
struct Shared {
    race: RefCell<Race>,
    won: RefCell<Option<TcpStream>>,
    error: RefCell<Option<io::Error>>,
    changed: Signal,
}

/// Connects to whichever address of `destination` answers first. Suspends until then.
pub(super) fn connect(destination: &Destination<'_>) -> io::Result<TcpStream> {
    let (race, name) = match destination {
        Destination::Addresses(addresses) => match addresses[..] {
            [address] => return TcpStream::connect_one(address),
            _ => (Race::among(addresses.iter().copied(), now()), None),
        },
        Destination::Name(name, port) => (Race::new(), Some((&**name, *port))),
    };
    let shared = Shared {
        race: RefCell::new(race),
        won: RefCell::default(),
        error: RefCell::default(),
        changed: Signal::new(),
    };
    run_race(&shared, name);
    let (won, error) = (shared.won.take(), shared.error.take());
    won.ok_or_else(|| match (error, name) {
        (Some(error), _) => error,
        (None, Some((name, _))) => no_such_name(name),
        (None, None) => io::Error::new(io::ErrorKind::InvalidInput, "the list of addresses is empty"),
    })
}

fn run_race(shared: &Shared, name: Option<(&str, u16)>) {
    let is_won = || shared.won.borrow().is_some();
    crate::scope(|s| {
        let mut children = Vec::new();
        if let Some((name, port)) = name {
            for family in [Family::V6, Family::V4] {
                children.push(s.spawn(move || look_up(shared, name, port, family)));
            }
        }
        while !is_won() {
            let step = shared.race.borrow_mut().next(now());
            match step {
                Step::Attempt(address) => children.push(s.spawn(move || attempt(shared, address))),
                Step::WaitUntil(due) => {
                    let _ = crate::timeout(due.saturating_duration_since(now()), || shared.changed.wait());
                }
                Step::Wait => shared.changed.wait(),
                Step::GiveUp => break,
            }
        }
        // The losers' sockets close as they unwind.
        for child in children {
            child.terminate();
        }
    });
}

fn look_up(shared: &Shared, name: &str, port: u16, family: Family) {
    let answer = resolve::system().lookup(name, family);
    let addresses = answer.unwrap_or_else(|failure| {
        shared.error.borrow_mut().get_or_insert(failure.into());
        [].into()
    });
    shared.race.borrow_mut().on_answer(family, with_port(&addresses, port), now());
    shared.changed.notify_all();
}

fn attempt(shared: &Shared, address: SocketAddr) {
    match TcpStream::connect_one(address) {
        Ok(stream) => {
            shared.won.borrow_mut().get_or_insert(stream);
        }
        Err(error) => {
            // An attempt's failure tells more than that one family has no addresses; the first one's most of all.
            let mut first = shared.error.borrow_mut();
            let error = io::Error::new(error.kind(), format!("connecting to {address}: {error}"));
            if first.as_ref().is_none_or(|error| error.kind() == io::ErrorKind::Other) {
                *first = Some(error);
            }
            shared.race.borrow_mut().on_failure();
        }
    }
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80))
    }

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 80))
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn families_take_turns_and_ipv6_is_first() {
        let mut now = Instant::now();
        let mut race = Race::among([v4(1), v4(2), v6(1), v4(3), v6(2)], now);
        for expected in [v6(1), v4(1), v6(2), v4(2), v4(3)] {
            assert_eq!(race.next(now), Step::Attempt(expected));
            now += ATTEMPT_DELAY;
        }
        assert_eq!(race.next(now), Step::Wait, "all of them may still connect");
    }

    #[test]
    fn the_next_attempt_waits_its_delay_or_for_a_failure() {
        let start = Instant::now();
        let mut race = Race::among([v6(1), v6(2), v6(3)], start);
        assert_eq!(race.next(start), Step::Attempt(v6(1)));
        assert_eq!(race.next(start + ms(249)), Step::WaitUntil(start + ms(250)));
        assert_eq!(race.next(start + ms(250)), Step::Attempt(v6(2)));
        race.on_failure();
        assert_eq!(race.next(start + ms(251)), Step::Attempt(v6(3)), "at once after a failure");
        race.on_failure();
        assert_eq!(race.next(start + ms(252)), Step::Wait);
        race.on_failure();
        assert_eq!(race.next(start + ms(253)), Step::GiveUp);
    }

    #[test]
    fn an_ipv4_answer_waits_fifty_milliseconds_for_the_ipv6_one() {
        let start = Instant::now();
        let mut race = Race::new();
        assert_eq!(race.next(start), Step::Wait);
        race.on_answer(Family::V4, [v4(1)], start);
        assert_eq!(race.next(start + ms(10)), Step::WaitUntil(start + ms(50)));
        assert_eq!(race.next(start + ms(50)), Step::Attempt(v4(1)));
        // It comes late, and its turn is next.
        race.on_answer(Family::V6, [v6(1)], start + ms(60));
        assert_eq!(race.next(start + ms(60)), Step::WaitUntil(start + ms(300)));
        assert_eq!(race.next(start + ms(300)), Step::Attempt(v6(1)));
    }

    #[test]
    fn an_ipv6_answer_in_time_goes_first_and_an_empty_one_ends_the_wait() {
        let start = Instant::now();
        let mut race = Race::new();
        race.on_answer(Family::V4, [v4(1)], start);
        race.on_answer(Family::V6, [v6(1)], start + ms(20));
        assert_eq!(race.next(start + ms(20)), Step::Attempt(v6(1)));
        let mut race = Race::new();
        race.on_answer(Family::V4, [v4(1)], start);
        race.on_answer(Family::V6, [], start + ms(20));
        assert_eq!(race.next(start + ms(20)), Step::Attempt(v4(1)));
    }

    #[test]
    fn no_address_in_either_family_gives_up() {
        let start = Instant::now();
        let mut race = Race::new();
        race.on_answer(Family::V6, [], start);
        assert_eq!(race.next(start), Step::Wait);
        race.on_answer(Family::V4, [], start);
        assert_eq!(race.next(start), Step::GiveUp);
    }

    #[test]
    fn a_name_server_cannot_make_us_dial_for_ever() {
        let mut now = Instant::now();
        let mut race = Race::among((0..200).map(v4), now);
        let mut attempts = 0;
        while let Step::Attempt(_) = race.next(now) {
            attempts += 1;
            now += ATTEMPT_DELAY;
        }
        assert_eq!(attempts, ATTEMPTS_MAX);
    }
}
