//! Which of our figures have moved between two records, by more than noise. Pure.
//!
//! The peers are the control: their code is the same in both records, so what *their* figures moved by is the machine's
//! doing. Ours is compared with what the middle one of them did, and has moved if it is further from that than any of them.
//! So two records of different machines can be compared too, with less to be seen.
//!
//! What it is not: a test of significance. A record holds medians, not rounds.

use crate::results::{Panel, Results};
use crate::statistics::median;

/// Below this a move is not told, however quiet the peers were: the placement of code alone does as much.
const LEAST_MOVE: f64 = 0.03;

/// And below this where there is no peer to tell the machine's share by.
const LEAST_MOVE_ALONE: f64 = 0.15;

/// What became of one figure of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// What was asked.
    pub panel: String,
    /// Of the figures.
    pub unit: String,
    /// The contender: `ours`, or a variant of it.
    pub name: String,
    /// Its figures.
    pub before: f64,
    /// See `before`.
    pub now: f64,
    /// By how much it has improved beside what the peers did: 0.1 is a tenth better, -0.1 a tenth worse.
    pub gain: f64,
    /// How far a peer got from the middle one, or the least that is told.
    pub noise: f64,
}

impl Moved {
    /// Whether that is more than noise.
    pub fn is_more_than_noise(&self) -> bool {
        self.gain.abs() > self.noise
    }
}

/// Compares all figures of ours that are in both records.
pub fn compare(before: &Results, now: &Results) -> Vec<Moved> {
    let pairs = now.panels.iter().filter_map(|panel| {
        let same = |other: &&Panel| other.title == panel.title && other.unit == panel.unit;
        before.panels.iter().find(same).map(|old| (old, panel))
    });
    pairs.flat_map(|(old, new)| compare_panels(old, new)).collect()
}

/// A contender's figures in both records, and the logarithm of what it gained.
struct Pair<'a> {
    name: &'a str,
    before: f64,
    now: f64,
    gain_ln: f64,
}

fn compare_panels(before: &Panel, now: &Panel) -> Vec<Moved> {
    let pairs: Vec<Pair<'_>> = now
        .bars
        .iter()
        .filter_map(|bar| {
            let old = before.bars.iter().find(|old| old.name == bar.name)?;
            let (before, now_value) = (old.value, bar.value);
            let usable = [before, now_value].iter().all(|value| value.is_finite() && *value > 0.0);
            let rise = (now_value / before).ln();
            let gain_ln = if now.more_is_better { rise } else { -rise };
            usable.then_some(Pair { name: &bar.name, before, now: now_value, gain_ln })
        })
        .collect();
    let (ours, peers): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| is_ours(pair.name));
    let middle = median(peers.iter().map(|peer| peer.gain_ln)).unwrap_or(0.0);
    let furthest = peers.iter().map(|peer| (peer.gain_ln - middle).abs()).fold(0.0, f64::max);
    let noise = match peers.len() {
        // One peer is its own middle, and tells nothing of how far they differ.
        0 | 1 => LEAST_MOVE_ALONE,
        _ => (furthest.exp() - 1.0).max(LEAST_MOVE),
    };
    let moved = |pair: Pair<'_>| Moved {
        panel: now.title.clone(),
        unit: now.unit.clone(),
        name: pair.name.to_string(),
        before: pair.before,
        now: pair.now,
        gain: (pair.gain_ln - middle).exp() - 1.0,
        noise,
    };
    ours.into_iter().map(moved).collect()
}

/// Ours is called so, or by a variant of it; of the drives it is called by how many nodes it has.
fn is_ours(name: &str) -> bool {
    name.starts_with("ours") || name.ends_with(" node") || name.ends_with(" nodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(more_is_better: bool, bars: &[(&str, f64)]) -> Results {
        let mut results = Results::new("a title", "some work".into(), "a command", 3);
        let bars = bars.iter().map(|&(name, value)| (name, Some(value)));
        results.panel("a panel".into(), "ns", more_is_better, None, bars);
        results
    }

    fn only(moved: Vec<Moved>) -> Moved {
        assert_eq!(moved.len(), 1, "{moved:?}");
        moved.into_iter().next().unwrap()
    }

    #[test]
    fn what_all_moved_by_is_the_machines_doing() {
        let before = record(false, &[("ours", 10.0), ("may", 20.0), ("tokio", 30.0)]);
        let now = record(false, &[("ours", 15.0), ("may", 30.0), ("tokio", 45.0)]);
        let moved = only(compare(&before, &now));
        assert!(!moved.is_more_than_noise() && moved.gain.abs() < 1e-9, "{moved:?}");
    }

    #[test]
    fn a_figure_that_moved_further_than_any_peer_is_told_with_its_direction() {
        let before = record(false, &[("ours", 10.0), ("may", 20.0), ("tokio", 30.0)]);
        let now = record(false, &[("ours", 12.0), ("may", 20.2), ("tokio", 29.8)]);
        let worse = only(compare(&before, &now));
        assert!(worse.is_more_than_noise() && worse.gain < -0.15, "{worse:?}");
        // More is better, and the same figures.
        let before = record(true, &[("ours", 10.0), ("may", 20.0), ("tokio", 30.0)]);
        let now = record(true, &[("ours", 12.0), ("may", 20.2), ("tokio", 29.8)]);
        let better = only(compare(&before, &now));
        assert!(better.is_more_than_noise() && better.gain > 0.15, "{better:?}");
    }

    #[test]
    fn peers_that_went_apart_hide_a_move() {
        let before = record(false, &[("ours", 10.0), ("may", 20.0), ("tokio", 30.0)]);
        let now = record(false, &[("ours", 12.0), ("may", 30.0), ("tokio", 29.0)]);
        assert!(!only(compare(&before, &now)).is_more_than_noise());
    }

    #[test]
    fn without_peers_only_a_large_move_is_told() {
        let before = record(false, &[("1 node", 10.0)]);
        assert!(!only(compare(&before, &record(false, &[("1 node", 11.0)]))).is_more_than_noise());
        assert!(only(compare(&before, &record(false, &[("1 node", 13.0)]))).is_more_than_noise());
    }

    #[test]
    fn what_is_in_one_record_only_or_is_no_number_is_passed_over() {
        let before = record(false, &[("ours", 0.0), ("ours, inline", 1.0)]);
        let now = record(false, &[("ours", 10.0), ("ours, new", 5.0)]);
        assert_eq!(compare(&before, &now), []);
    }
}
