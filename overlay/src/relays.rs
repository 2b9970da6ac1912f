//! Which relays a member keeps, and which of them it says it is found over. Pure.
//!
//! Everybody keeps the few that are nearest to its own id and answer: in a network with as many relays or fewer, all of them, so
//! that any two members have one in common; in a larger one each relay has its share of the members, and whoever wants somebody
//! goes to the relays that the other's record names. One that does not answer gives way to the next, and is tried again later,
//! beside those that do.
//!
//! What it is not: a measure of how fast they are.

use std::time::{Duration, Instant};

use reactor::crypto::PublicKey;

use crate::node_id::NodeId;
use crate::record::Relay;

/// Relays that are kept for being found: one may die, and another be out of reach from here. Each costs a connection, and some
/// 70 KB an hour.
pub(crate) const NEAREST_MAX: usize = 4;

/// How long a relay that is lost goes on being named: it is back by then, or others have to be told that it is not.
pub(crate) const FORGIVEN: Duration = Duration::from_secs(60);

/// How long one that never answered is tried before another is: three round trips, and some tries.
const TRIED_FOR: Duration = Duration::from_secs(10);

/// How long one that does not answer is passed over then.
const PASSED_OVER_FOR: Duration = Duration::from_secs(120);

/// How the connection to a relay stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// Nobody has tried it.
    Untried,
    /// It is being tried, since then.
    Tried(Instant),
    /// It is up.
    Up,
    /// It was, until then.
    Down(Instant),
    /// It did not answer: until then others are tried.
    Silent(Instant),
}

impl Line {
    /// How it stands when it is found to be up or not; or that it is not kept, by `None`.
    pub(crate) fn found(self, is_up: Option<bool>, now: Instant) -> Line {
        let silent = Line::Silent(now + PASSED_OVER_FOR);
        match (is_up, self) {
            (Some(true), _) => Line::Up,
            (_, Line::Silent(until)) if now < until => self,
            (Some(false), Line::Up) => Line::Down(now),
            (Some(false), Line::Down(since)) if now >= since + FORGIVEN => silent,
            (Some(false), Line::Tried(since)) if now >= since + TRIED_FOR => silent,
            (Some(false), Line::Untried | Line::Silent(_)) => Line::Tried(now),
            (Some(false), Line::Down(_) | Line::Tried(_)) => self,
            (None, _) => Line::Untried,
        }
    }
}

/// The relays that somebody at `own` keeps, of those that it knows: those that are up, the nearest first, and then those that
/// are to be tried, at most [`NEAREST_MAX`] of each.
pub(crate) fn to_be_kept(own: &NodeId, mut known: Vec<(Relay, Line)>) -> Vec<(Relay, Line)> {
    known.sort_by_key(|(relay, _)| NodeId::of(&relay.public_key).distance(own));
    let is_silent = |line: Line| matches!(line, Line::Silent(_));
    let up = known.iter().enumerate().filter(|(_, (_, line))| *line == Line::Up);
    let up: Vec<usize> = up.map(|(place, _)| place).take(NEAREST_MAX).collect();
    // Where enough are up, only who is nearer than the last of them could take a place.
    let before = up.get(NEAREST_MAX - 1).copied().unwrap_or(known.len());
    let tried = (0..before).filter(|place| known[*place].1 != Line::Up && !is_silent(known[*place].1));
    let mut places: Vec<usize> = up.iter().copied().chain(tried.take(NEAREST_MAX)).collect();
    // Where there are few, also those that do not answer: what is wrong may be our own line.
    let silent = (0..known.len()).filter(|place| is_silent(known[*place].1));
    places.extend(silent.take(NEAREST_MAX.saturating_sub(places.len())));
    places.into_iter().map(|place| known[place].clone()).collect()
}

/// Over which of those that are kept we say that we are found; `None` if nothing is to be changed about that, since none is up
/// over which it could be told.
pub(crate) fn to_be_named(kept: &[(Relay, Line)]) -> Option<Vec<PublicKey>> {
    // One that is down is silent when it is forgiven no more.
    let named = kept.iter().filter(|(_, line)| matches!(line, Line::Up | Line::Down(_)));
    let is_up = kept.iter().any(|(_, line)| *line == Line::Up);
    is_up.then(|| named.map(|(relay, _)| relay.public_key).take(NEAREST_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::crypto::Identity;

    const OWN: NodeId = NodeId([7; 32]);

    fn relay(number: u8) -> Relay {
        let public_key = Identity::from_seed(&[number; 32]).public_key();
        Relay { public_key, address: ([127, 0, 0, 1], 1).into() }
    }

    /// Relays, nearest first.
    fn relays(count: u8) -> Vec<Relay> {
        let mut relays: Vec<Relay> = (0..count).map(relay).collect();
        relays.sort_by_key(|relay| NodeId::of(&relay.public_key).distance(&OWN));
        relays
    }

    fn kept(relays: &[Relay], lines: &[Line]) -> Vec<usize> {
        let known = relays.iter().cloned().zip(lines.iter().copied());
        // The order in which they are known says nothing.
        let kept = to_be_kept(&OWN, known.rev().collect());
        let place = |kept: &Relay| relays.iter().position(|relay| relay == kept).unwrap();
        kept.iter().map(|(relay, _)| place(relay)).collect()
    }

    #[test]
    fn the_nearest_are_kept_and_where_there_are_few_all_of_them() {
        assert_eq!(kept(&relays(9), &[Line::Untried; 9]), [0, 1, 2, 3]);
        assert_eq!(kept(&relays(9), &[Line::Up; 9]), [0, 1, 2, 3]);
        let two = |own| {
            let known = relays(2).into_iter().map(|relay| (relay, Line::Untried)).collect();
            let mut keys: Vec<PublicKey> =
                to_be_kept(own, known).iter().map(|kept| kept.0.public_key).collect();
            keys.sort();
            keys
        };
        assert_eq!(two(&OWN), two(&NodeId([200; 32])));
    }

    #[test]
    fn who_does_not_answer_gives_way_and_takes_nobodys_place_when_it_is_tried_again() {
        let now = Instant::now();
        let (up, silent, untried) = (Line::Up, Line::Silent(now), Line::Untried);
        // The four nearest are dead: the next are tried.
        let lines = [silent, silent, silent, silent, untried, untried, untried];
        assert_eq!(kept(&relays(7), &lines), [4, 5, 6, 0]);
        let lines = [silent, silent, silent, silent, up, up, up];
        assert_eq!(kept(&relays(7), &lines), [4, 5, 6, 0]);
        // When their time comes they are tried beside those that are up, and not if they could take no place.
        let lines = [silent, untried, untried, up, up, up, up, untried];
        assert_eq!(kept(&relays(8), &lines), [3, 4, 5, 6, 1, 2]);
        // Where none answers all few are tried on.
        assert_eq!(kept(&relays(2), &[silent, silent]), [0, 1]);
    }

    #[test]
    fn a_line_tells_how_long_it_may_be_tried_and_is_forgiven() {
        let begin = Instant::now();
        let tried = Line::Untried.found(Some(false), begin);
        assert_eq!(tried, Line::Tried(begin));
        assert_eq!(tried.found(Some(false), begin + TRIED_FOR / 2), tried);
        let late = begin + TRIED_FOR;
        let silent = tried.found(Some(false), late);
        assert_eq!(silent, Line::Silent(late + PASSED_OVER_FOR));
        // Kept or not, it is passed over until then; if it comes up it is up.
        assert_eq!(silent.found(Some(false), late), silent);
        assert_eq!(silent.found(None, late), silent);
        assert_eq!(silent.found(None, late + PASSED_OVER_FOR), Line::Untried);
        assert_eq!(silent.found(Some(false), late + PASSED_OVER_FOR), Line::Tried(late + PASSED_OVER_FOR));
        assert_eq!(silent.found(Some(true), late), Line::Up);
        let down = Line::Up.found(Some(false), begin);
        assert_eq!(down.found(Some(false), begin + FORGIVEN / 2), Line::Down(begin));
        assert!(matches!(down.found(Some(false), begin + FORGIVEN), Line::Silent(_)));
        assert_eq!(Line::Up.found(None, begin), Line::Untried);
    }

    #[test]
    fn a_relay_is_named_while_it_is_up_and_a_while_longer_and_not_before() {
        let (relays, now) = (relays(2), Instant::now());
        let named = |lines: [Line; 2]| {
            to_be_named(&relays.iter().cloned().zip(lines).collect::<Vec<_>>()).map(|named| named.len())
        };
        assert_eq!(named([Line::Untried, Line::Tried(now)]), None);
        assert_eq!(named([Line::Up, Line::Tried(now)]), Some(1));
        assert_eq!(named([Line::Up, Line::Down(now)]), Some(2));
        assert_eq!(named([Line::Up, Line::Silent(now)]), Some(1));
        assert_eq!(named([Line::Down(now), Line::Down(now)]), None, "nobody could be told");
    }
}
