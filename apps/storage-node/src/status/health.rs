//! What the answers of its nodes say about a network's health. Pure.
//!
//! A quorum has every block that was acknowledged, so as many nodes may be away as a quorum can do without. More may be away
//! if they stand in one zone: of each block that lies in as many zones as it has copies, these have one copy. That blocks do lie
//! so is not inferred from who should have them: the nodes that are left say that they had caught up with those that are away, which
//! they say of nobody whose zone would take along a register, be it the root, a space's or another user's. And it is never said of a network in which zones
//! decide nothing, because it has more nodes than all know of each other.

use dht::PLACED_BY_ZONE_MAX;
use overlay::{NodeId, Zone};
use serde::Serialize;

/// How a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    Healthy,
    Degraded,
    Down,
}

/// A node, as far as it matters here.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    pub(super) id: NodeId,
    pub(super) zone: Option<Zone>,
    /// It answers, and takes writes.
    pub(super) works: bool,
    /// With whom it had compared, and nothing was missing.
    pub(super) caught_up_with: Vec<NodeId>,
}

/// How the network of these nodes is, whose root `keepers` keep; and the zone that is away, if it is that which makes it so.
pub(super) fn judge(nodes: &[Witness], keepers: &[NodeId], replicas: usize) -> (Health, Option<Zone>) {
    let working = nodes.iter().filter(|node| node.works).count();
    // A block is on each of the nodes there are, if these are fewer than its copies.
    let down = nodes.len().max(replicas) - working;
    // With more nodes than replicas some blocks may live on just the dead ones: any quorum's worth of dead is too many.
    let tolerated = replicas - needed_of(replicas);
    match down {
        0 => (Health::Healthy, None),
        _ if down <= tolerated => (Health::Degraded, None),
        _ => match lost_zone(nodes, keepers, replicas) {
            Some(zone) => (Health::Degraded, Some(zone)),
            None => (Health::Down, None),
        },
    }
}

/// The one zone that all who are away stand in, if the others can do without it.
fn lost_zone(nodes: &[Witness], keepers: &[NodeId], replicas: usize) -> Option<Zone> {
    let zone = nodes.iter().find(|node| !node.works)?.zone.clone()?;
    let working = || nodes.iter().filter(|node| node.works);
    let has_caught_up = |node: &Witness| {
        nodes.iter().filter(|other| !other.works).all(|away| node.caught_up_with.contains(&away.id))
    };
    // Those that say none count as one zone together, as they do where copies are placed.
    let mut zones: Vec<Option<&Zone>> = nodes.iter().map(|node| node.zone.as_ref()).collect();
    zones.sort();
    zones.dedup();
    let is_one_zone = nodes.iter().all(|node| node.works || node.zone.as_ref() == Some(&zone));
    let working_keepers = working().filter(|node| keepers.contains(&node.id)).count();
    let can_do_without = nodes.len() <= PLACED_BY_ZONE_MAX
        && replicas > needed_of(replicas)
        && nodes.len() >= replicas
        && zones.len() >= replicas
        && working().count() >= needed_of(replicas)
        && working_keepers >= needed_of(keepers.len())
        && working().all(has_caught_up);
    (is_one_zone && can_do_without).then_some(zone)
}

/// How many of so many make a quorum.
fn needed_of(count: usize) -> usize {
    count / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A letter for each node: its zone, `-` for none; a capital is one that is away.
    fn nodes(zones: &str) -> Vec<Witness> {
        let witness = |(number, letter): (u8, char)| Witness {
            id: NodeId([number; 32]),
            zone: letter.to_ascii_lowercase().to_string().parse().ok().filter(|_| letter != '-'),
            works: !letter.is_ascii_uppercase(),
            caught_up_with: (0..20).map(|number| NodeId([number; 32])).collect(),
        };
        (0..).zip(zones.chars()).map(witness).collect()
    }

    fn keepers(numbers: &[u8]) -> Vec<NodeId> {
        numbers.iter().map(|number| NodeId([*number; 32])).collect()
    }

    #[test]
    fn one_zone_of_as_many_as_there_are_copies_may_go_and_no_other_node() {
        let zone = |name: &str| Some(name.parse::<Zone>().unwrap());
        let root = keepers(&[0, 3, 4]);
        assert_eq!(judge(&nodes("aaabc"), &root, 3), (Health::Healthy, None));
        assert_eq!(judge(&nodes("Aaabc"), &root, 3), (Health::Degraded, None));
        assert_eq!(judge(&nodes("AAAbc"), &root, 3), (Health::Degraded, zone("a")));
        assert_eq!(judge(&nodes("AAabc"), &root, 3), (Health::Degraded, zone("a")));
        for too_many in ["AAABc", "AaaBc", "aaaBC"] {
            assert_eq!(judge(&nodes(too_many), &root, 3).0, Health::Down, "{too_many}");
        }
        // Where one stands that says nothing, nobody knows; it works.
        assert_eq!(judge(&nodes("AAabc-"), &root, 3), (Health::Degraded, zone("a")));
        // They count as one zone together, and no copies are in two of them for that.
        assert_eq!(judge(&nodes("AAab--"), &keepers(&[2, 3, 4]), 3), (Health::Degraded, zone("a")));
        assert_eq!(judge(&nodes("AAa---"), &keepers(&[2, 3, 4]), 3).0, Health::Down);
        // Two zones can't take three copies, nor one copy the loss of any.
        assert_eq!(judge(&nodes("AAabbb"), &keepers(&[2, 3, 4]), 3).0, Health::Down);
        assert_eq!(judge(&nodes("AAbc"), &keepers(&[2]), 1).0, Health::Down);
    }

    #[test]
    fn a_zone_that_has_most_keepers_of_the_root_or_what_the_others_may_lack_is_missed() {
        assert_eq!(judge(&nodes("AAAbc"), &keepers(&[0, 1, 4]), 3).0, Health::Down);
        let mut behind = nodes("AAAbc");
        behind[4].caught_up_with.remove(1);
        assert_eq!(judge(&behind, &keepers(&[0, 3, 4]), 3).0, Health::Down);
    }

    /// In a larger network the copies of a tenth of all blocks may be in one zone, with nobody having missed anything.
    #[test]
    fn no_zone_is_dispensable_where_zones_do_not_decide_who_keeps_what() {
        let root = keepers(&[0, 14, 15]);
        assert_eq!(judge(&nodes("AAAAAAAAAAAAAAbc"), &root, 3).0, Health::Degraded);
        assert_eq!(judge(&nodes("AAAAAAAAAAAAAAbca"), &root, 3).0, Health::Down);
        assert_eq!(judge(&nodes("AAAAAAAAAAAAAAbcc"), &root, 3).0, Health::Down);
    }
}
