//! Clocks that are wrong, and what comes of it: whose, by how much, and whom it keeps out.
//!
//! A passport is good for a time, by the clock of whoever looks at it; what an owner says is taken while it is fresh; and what is
//! deleted is deleted by when it was put. All allow for clocks that differ a little. Beyond that, nodes refuse members that are none
//! the less members, and a collector deletes nothing. Nobody knows which clock is right; said is how they differ.
//!
//! Not here: what hangs on a clock (`overlay::passport`, `dht::node`, `gc`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay::admission::Refusal;
use overlay::{Node, NodeId, PassportError, TurnedAway};

use crate::identity::Member;
use crate::network::Network;
use crate::nodes::Nodes;
use crate::progress::human_duration;

/// By how much clocks may be apart: the least of what is allowed for. Nodes whose clocks are further ahead refuse what is said now.
pub(crate) const DIFFERENCE_MAX: Duration = Duration::from_secs(300);

/// The time now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// By how many seconds the clock that showed `theirs_ms` is ahead of this machine's, which showed these times before it was asked and
/// after; less than none if it is behind.
pub(crate) fn ahead_s(theirs_ms: u64, before_ms: u64, after_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let (theirs, before, after) = (signed(theirs_ms), signed(before_ms), signed(after_ms));
    // Anywhere between the two it was asked.
    let ahead = if theirs > after { theirs - after } else { (theirs - before).min(0) };
    ahead / 1000
}

fn is_much(ahead_s: i64) -> bool {
    ahead_s.unsigned_abs() > DIFFERENCE_MAX.as_secs()
}

/// How the clocks of nodes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Differing {
    /// Not by much.
    Little,
    /// They agree, but for this machine's.
    FromThisMachines(i64),
    /// Among each other.
    AmongNodes,
}

/// How clocks differ that are so much ahead of this machine's.
pub(crate) fn differing(ahead_s: &[i64]) -> Differing {
    let (Some(least), Some(most)) = (ahead_s.iter().min(), ahead_s.iter().max()) else {
        return Differing::Little;
    };
    match is_much(most.saturating_sub(*least)) {
        true => Differing::AmongNodes,
        false if is_much(*least) || is_much(*most) => Differing::FromThisMachines(*least),
        false => Differing::Little,
    }
}

/// "2 h ahead of this machine's"; none if it is not by much.
pub(crate) fn in_words(ahead_s: i64) -> Option<String> {
    let side = if ahead_s > 0 { "ahead of" } else { "behind" };
    is_much(ahead_s).then(|| format!("{} {side} this machine's", human_duration(ahead_s.unsigned_abs())))
}

/// Why one side refused the other at the door, where it is for the time.
fn of_time(why: &TurnedAway) -> Option<&PassportError> {
    match why {
        TurnedAway::Us(Refusal::Passport(error)) | TurnedAway::Them(Refusal::Passport(error)) => {
            matches!(error, PassportError::Expired { .. } | PassportError::NotYetValid { .. })
                .then_some(error)
        }
        _ => None,
    }
}

/// Whom clocks keep out, in a sentence, if they do.
pub(crate) fn kept_out(overlay: &Node, user: &Member, network: &Network) -> Option<String> {
    let own = user.identity.public_key();
    let is_good = |now: SystemTime| overlay.passport().verify(&network.owner_key(), &own, now).is_ok();
    let turned: Vec<(NodeId, TurnedAway)> =
        overlay.peers().turned_away().into_iter().map(|(key, why)| (NodeId::of(&key), why)).collect();
    let nodes = Nodes::first(network);
    sentence(&turned, is_good(reactor::wall_clock()), |ids| nodes.names(ids))
}

fn sentence(
    turned: &[(NodeId, TurnedAway)],
    is_good_here: bool,
    names: impl Fn(&[NodeId]) -> String,
) -> Option<String> {
    let ids = |test: &dyn Fn(&TurnedAway) -> bool| -> Vec<NodeId> {
        let mut ids: Vec<NodeId> =
            turned.iter().filter(|(_, why)| of_time(why).is_some() && test(why)).map(|(id, _)| *id).collect();
        ids.sort();
        ids
    };
    let refuse_us = ids(&|why| matches!(why, TurnedAway::Us(_)));
    // One that is over may be just that: it was not renewed.
    let is_early = |why: &TurnedAway| matches!(of_time(why), Some(PassportError::NotYetValid { .. }));
    let refused_here = ids(&|why| matches!(why, TurnedAway::Them(_)) && is_early(why));
    let mut said = Vec::new();
    if !refuse_us.is_empty() {
        let s = if refuse_us.len() == 1 { "s" } else { "" };
        let here = match is_good_here {
            true => ", and by this machine's it is good: the clocks differ",
            // It may be so.
            false => ", and by this machine's as well",
        };
        said.push(format!(
            "{} answer{s} and refuse{s} this user: by the clock there his passport is not valid yet, or has expired{here}",
            names(&refuse_us)
        ));
    }
    if !refused_here.is_empty() {
        said.push(format!(
            "{} answer{}, and by this machine's clock the passport shown there is not valid yet",
            names(&refused_here),
            if refused_here.len() == 1 { "s" } else { "" },
        ));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_no_delay_explains() {
        assert_eq!(ahead_s(10_000, 9_000, 11_000), 0);
        assert_eq!(ahead_s(7_211_500, 9_000, 11_000), 7200);
        assert_eq!(ahead_s(1_000, 34_560_001_000, 34_560_002_000), -34_560_000);
        assert_eq!(ahead_s(u64::MAX, 0, 0), i64::MAX / 1000);
        assert_eq!(in_words(-300), None);
        assert_eq!(in_words(-34_560_000).unwrap(), "400 days behind this machine's");
        assert_eq!(in_words(7200).unwrap(), "2 h ahead of this machine's");
    }

    #[test]
    fn it_is_told_whether_nodes_differ_or_this_machine() {
        assert_eq!(differing(&[]), Differing::Little);
        assert_eq!(differing(&[0, -100, 200]), Differing::Little);
        assert_eq!(differing(&[-7200, -7100]), Differing::FromThisMachines(-7200));
        assert_eq!(differing(&[0, 7200]), Differing::AmongNodes);
        assert_eq!(differing(&[i64::MIN, i64::MAX]), Differing::AmongNodes);
    }

    #[test]
    fn who_is_kept_out_by_a_clock_is_told_that_and_not_who_is_for_another_reason() {
        let names = |ids: &[NodeId]| format!("{} nodes", ids.len());
        let id = |number| NodeId([number; 32]);
        let over = || Refusal::Passport(PassportError::Expired { link: 0 });
        let early = || Refusal::Passport(PassportError::NotYetValid { link: 0 });
        let forged = Refusal::Passport(PassportError::Forged { link: 0 });
        let us = [
            (id(2), TurnedAway::Us(over())),
            (id(1), TurnedAway::Us(early())),
            (id(3), TurnedAway::Us(forged)),
        ];
        let said = sentence(&us, true, names).unwrap();
        assert!(said.starts_with("2 nodes answer and refuse this user"), "{said}");
        assert!(said.ends_with("it is good: the clocks differ"), "{said}");
        let said = sentence(&us, false, names).unwrap();
        assert!(said.ends_with("by this machine's as well"), "it may be over: {said}");
        let them = [(id(2), TurnedAway::Them(early()))];
        assert!(
            sentence(&them, false, names)
                .unwrap()
                .contains("by this machine's clock the passport shown there")
        );
        let over = [(id(2), TurnedAway::Them(over()))];
        assert_eq!(sentence(&over, true, names), None, "it may be over");
        assert_eq!(sentence(&us[2..], true, names), None);
    }
}
