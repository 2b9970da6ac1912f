//! What a router remembers of the datagrams that went through it: which outside port it has lent to whom, and who is let in.
//! Pure: it is told the time, and draws nothing by itself.
//!
//! It is Linux's way of doing it (`conntrack`): each conversation of a port inside with somebody outside has a time of its own,
//! and whatever goes through, in either direction, begins it anew.
//!
//! # Source
//!
//! RFC 4787, sections 4 and 5, whose words these are.

use std::collections::BTreeMap;
use std::iter::successors;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Ports that are lent.
const PORTS: RangeInclusive<u16> = 1_024..=u16::MAX;

/// Entries from which on those are looked for that count no more.
const CLEANED_FROM: usize = 64;

/// Which address a machine behind a router is seen at outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Its own, which is one of the internet then: there is nothing, or a firewall.
    Untranslated,
    /// The router's, and a port that is the same for everybody; the machine's own where that is free.
    EndpointIndependent,
    /// The router's, and a port that is drawn anew for each address and port outside.
    AddressAndPortDependent,
    /// The router's, and for each address and port outside the port that is `step` further than the last that it lent to anybody.
    InSequence {
        /// How far: backwards where it is negative.
        step: i16,
    },
}

/// Who is let in, once something has gone out from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody; and where nothing is translated, from the start.
    EndpointIndependent,
    /// Whoever is at an address that was sent to.
    AddressDependent,
    /// Whoever is at an address and port that was sent to.
    AddressAndPortDependent,
}

/// What a router does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// What it shows of those behind it.
    pub mapping: Mapping,
    /// Whom it lets in.
    pub filtering: Filtering,
    /// How long it remembers what is not used.
    pub timeout: Duration,
    /// Whether those behind it reach each other at its outside address.
    pub hairpin: bool,
}

impl Nat {
    /// One that does so, forgets after 20 s as impatient ones do, and turns nothing round.
    pub fn new(mapping: Mapping, filtering: Filtering) -> Nat {
        Nat { mapping, filtering, timeout: Duration::from_secs(20), hairpin: false }
    }

    /// Whether whoever sends to a machine behind it comes there.
    pub(super) fn is_open(&self) -> bool {
        (self.mapping, self.filtering) == (Mapping::Untranslated, Filtering::EndpointIndependent)
    }

    pub(super) fn translates(&self) -> bool {
        self.mapping != Mapping::Untranslated
    }
}

/// The port that is `step` further, from the end of those that are lent round to their start.
fn stepped(port: u16, step: i16) -> u16 {
    let (start, count) = (i32::from(*PORTS.start()), i32::from(PORTS.end() - PORTS.start()) + 1);
    let beyond = (i32::from(port) - start + i32::from(step)).rem_euclid(count);
    (start + beyond) as u16
}

/// Who inside, and towards whom outside where each has another address.
type For = (SocketAddr, Option<SocketAddr>);

/// An address outside that stands for one inside.
struct Lent {
    to: For,
    used_at: Duration,
    /// With whom it was used outside, and when last.
    with: BTreeMap<SocketAddr, Duration>,
}

/// What one router remembers.
pub(super) struct Table {
    nat: Nat,
    lent: BTreeMap<SocketAddr, Lent>,
    standing: BTreeMap<For, SocketAddr>,
    /// The last port that was lent.
    last: Option<u16>,
    cleaned_from: usize,
}

impl Table {
    pub(super) fn new(nat: Nat) -> Table {
        Table {
            nat,
            lent: BTreeMap::new(),
            standing: BTreeMap::new(),
            last: None,
            cleaned_from: CLEANED_FROM,
        }
    }

    /// Everything is forgotten.
    pub(super) fn clear(&mut self) {
        *self = Table::new(self.nat);
    }

    /// A datagram goes out `from` inside; the address that `to` sees. `own` is the router's outside, and `draw` gives a number
    /// below that it is given.
    pub(super) fn leave(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        own: IpAddr,
        now: Duration,
        draw: impl FnOnce(u32) -> u32,
    ) -> SocketAddr {
        let key = match self.nat.mapping {
            Mapping::Untranslated | Mapping::EndpointIndependent => (from, None),
            Mapping::AddressAndPortDependent | Mapping::InSequence { .. } => (from, Some(to)),
        };
        let is_its = |outside: &SocketAddr| self.is_lent(*outside, now) && self.lent[outside].to == key;
        let standing = self.standing.get(&key).copied().filter(is_its);
        let outside = standing.unwrap_or_else(|| self.lend(key, own, now, draw));
        if let Some(lent) = self.lent.get_mut(&outside) {
            lent.used_at = now;
            lent.with.insert(to, now);
        }
        outside
    }

    fn lend(&mut self, to: For, own: IpAddr, now: Duration, draw: impl FnOnce(u32) -> u32) -> SocketAddr {
        if self.standing.len() >= self.cleaned_from {
            let oldest = now.saturating_sub(self.nat.timeout);
            self.lent.retain(|_, lent| lent.used_at > oldest);
            self.standing = self.lent.iter().map(|(outside, lent)| (lent.to, *outside)).collect();
            self.cleaned_from = CLEANED_FROM.max(2 * self.standing.len());
        }
        let (from, at) = (to.0, |port| SocketAddr::new(own, port));
        let outside = match self.nat.mapping {
            Mapping::Untranslated => from,
            Mapping::EndpointIndependent if !self.is_lent(at(from.port()), now) => at(from.port()),
            _ => {
                let count = u32::from(PORTS.end() - PORTS.start()) + 1;
                let (first, step) = match (self.nat.mapping, self.last) {
                    (Mapping::InSequence { step }, Some(last)) => (stepped(last, step), step),
                    _ => (PORTS.start() + draw(count) as u16, 1),
                };
                let following = successors(Some(first), |port| Some(stepped(*port, step)));
                // Where none is free the first is taken from whoever has it.
                let mut those = following.take(count as usize).map(at);
                those.find(|outside| !self.is_lent(*outside, now)).unwrap_or(at(first))
            }
        };
        self.last = Some(outside.port());
        self.lent.insert(outside, Lent { to, used_at: now, with: BTreeMap::new() });
        self.standing.insert(to, outside);
        outside
    }

    fn is_lent(&self, outside: SocketAddr, now: Duration) -> bool {
        self.lent.get(&outside).is_some_and(|lent| now < lent.used_at + self.nat.timeout)
    }

    /// A datagram has come `from` outside for an address outside; who gets it, if anybody does.
    pub(super) fn enter(&mut self, from: SocketAddr, to: SocketAddr, now: Duration) -> Option<SocketAddr> {
        if self.nat.is_open() {
            return Some(to);
        }
        if !self.is_lent(to, now) {
            return None;
        }
        let timeout = self.nat.timeout;
        let lent = self.lent.get_mut(&to)?;
        let is_recent = |at: &Duration| now < *at + timeout;
        let is_let_in = match self.nat.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => {
                let of_it = SocketAddr::new(from.ip(), 0)..=SocketAddr::new(from.ip(), u16::MAX);
                lent.with.range(of_it).any(|(_, at)| is_recent(at))
            }
            Filtering::AddressAndPortDependent => lent.with.get(&from).is_some_and(is_recent),
        };
        if !is_let_in {
            return None;
        }
        lent.used_at = now;
        lent.with.insert(from, now);
        Some(lent.to.0)
    }

    /// Who inside an address outside stands for, or did.
    pub(super) fn stands_for(&self, outside: SocketAddr) -> Option<SocketAddr> {
        if self.nat.is_open() { Some(outside) } else { self.lent.get(&outside).map(|lent| lent.to.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn own() -> IpAddr {
        "11.0.0.1".parse().unwrap()
    }

    /// One from which port 9 of the machine inside has sent to port 1 of 12.0.0.1, and what that saw.
    fn used(mapping: Mapping, filtering: Filtering) -> (Table, SocketAddr) {
        let mut table = Table::new(Nat::new(mapping, filtering));
        let seen = table.leave((at("10.0.0.2:9"), at("12.0.0.1:1")), own(), Duration::ZERO, |_| 500);
        (table, seen)
    }

    #[test]
    fn everybody_sees_the_same_port_or_each_another_and_nobody_one_that_is_anothers() {
        use Filtering::AddressAndPortDependent as Answers;
        let (mut table, seen) = used(Mapping::EndpointIndependent, Answers);
        assert_eq!(seen, at("11.0.0.1:9"), "its own port, where that is free");
        let mut leave = |from, to| table.leave((at(from), at(to)), own(), SECOND, |count| 500.min(count - 1));
        assert_eq!(leave("10.0.0.2:9", "12.0.0.1:2"), seen);
        assert_eq!(leave("10.0.0.2:9", "12.0.0.2:1"), seen);
        assert_eq!(leave("10.0.0.3:9", "12.0.0.1:1"), at("11.0.0.1:1524"), "that one is lent");
        let (mut table, seen) = used(Mapping::AddressAndPortDependent, Answers);
        let mut leave = |to| table.leave((at("10.0.0.2:9"), at(to)), own(), SECOND, |_| 500);
        assert_eq!((seen, leave("12.0.0.1:1")), (at("11.0.0.1:1524"), seen));
        assert_eq!((leave("12.0.0.1:2"), leave("12.0.0.2:1")), (at("11.0.0.1:1525"), at("11.0.0.1:1526")));
        let (_, seen) = used(Mapping::Untranslated, Answers);
        assert_eq!(seen, at("10.0.0.2:9"));
    }

    #[test]
    fn ports_in_sequence_are_a_step_apart_whoever_asks_for_them_and_go_round_at_the_end() {
        let lent = |step, first: u32| {
            let nat = Nat::new(Mapping::InSequence { step }, Filtering::AddressAndPortDependent);
            let mut table = Table::new(nat);
            let mut leave = |from, to| {
                table.leave((at(from), at(to)), own(), SECOND, |_| first - u32::from(*PORTS.start())).port()
            };
            let first = leave("10.0.0.2:9", "12.0.0.1:1");
            let others = [leave("10.0.0.2:9", "12.0.0.1:2"), leave("10.0.0.3:8", "12.0.0.2:1")];
            assert_eq!(leave("10.0.0.2:9", "12.0.0.1:1"), first, "it has one");
            [first, others[0], others[1]]
        };
        assert_eq!(lent(1, 40_000), [40_000, 40_001, 40_002]);
        assert_eq!(lent(-3, 40_000), [40_000, 39_997, 39_994]);
        assert_eq!(lent(1, 65_535), [65_535, 1_024, 1_025]);
        assert_eq!(lent(-2, 1_025), [1_025, 65_535, 65_533]);
    }

    #[test]
    fn those_are_let_in_whom_the_filter_names() {
        use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let let_in = |mapping, filtering| {
            let (mut table, seen) = used(mapping, filtering);
            let mut enters = |from| table.enter(at(from), seen, SECOND).is_some();
            // Whoever gets in counts as spoken with, so the strangest comes last.
            (enters("12.0.0.1:1"), enters("12.0.0.1:2"), enters("12.0.0.2:1"))
        };
        for mapping in [Mapping::Untranslated, Mapping::EndpointIndependent, Mapping::AddressAndPortDependent]
        {
            assert_eq!(let_in(mapping, EndpointIndependent), (true, true, true));
            assert_eq!(let_in(mapping, AddressDependent), (true, true, false));
            assert_eq!(let_in(mapping, AddressAndPortDependent), (true, false, false));
        }
        let mut open = Table::new(Nat::new(Mapping::Untranslated, EndpointIndependent));
        assert_eq!(open.enter(at("12.0.0.1:1"), at("11.0.0.5:9"), SECOND), Some(at("11.0.0.5:9")));
        let mut closed = Table::new(Nat::new(Mapping::EndpointIndependent, EndpointIndependent));
        assert_eq!(closed.enter(at("12.0.0.1:1"), at("11.0.0.1:9"), SECOND), None, "it is nobody's");
    }

    #[test]
    fn what_is_used_in_either_direction_lasts_and_what_is_not_is_forgotten() {
        let timeout = 20 * SECOND;
        let (mut table, seen) = used(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
        let friend = at("12.0.0.1:1");
        let mut now = Duration::ZERO;
        for step in 0..10 {
            now += timeout - SECOND;
            if step % 2 == 0 {
                assert_eq!(table.enter(friend, seen, now), Some(at("10.0.0.2:9")));
            } else {
                assert_eq!(table.leave((at("10.0.0.2:9"), friend), own(), now, |_| 0), seen);
            }
        }
        // Another conversation keeps the port, and not this one.
        table.leave((at("10.0.0.2:9"), at("12.0.0.2:1")), own(), now + SECOND, |_| 0);
        assert_eq!(table.enter(friend, seen, now + timeout), None);
        assert!(table.enter(at("12.0.0.2:1"), seen, now + timeout).is_some());
        table.clear();
        assert_eq!(table.enter(at("12.0.0.2:1"), seen, now + timeout), None);
        assert_eq!(table.stands_for(seen), None);
    }

    #[test]
    fn what_counts_no_more_is_let_go_of() {
        let mut table =
            Table::new(Nat::new(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent));
        for minute in 0..1_000_u16 {
            let to = SocketAddr::new(own(), minute);
            table.leave((at("10.0.0.2:9"), to), own(), 60 * SECOND * u32::from(minute), |_| 0);
        }
        // The one port is lent a thousand times, and to the last of them now.
        assert!(table.lent.len() <= CLEANED_FROM && table.standing.len() <= CLEANED_FROM);
        let last = 60 * SECOND * 999;
        let mut leave =
            |to, now| table.leave((at("10.0.0.2:9"), SocketAddr::new(own(), to)), own(), now, |_| 0);
        assert_ne!(leave(998, last), leave(999, last), "it stands for the last only");
    }
}
