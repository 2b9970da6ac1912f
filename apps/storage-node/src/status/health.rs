//! What the answers of its nodes say about a network's health. Pure.
//!
//! Two things are told apart, what is written and what is there. A write needs a quorum of those that keep the drive's root, and as
//! many nodes for a block as make a quorum of its copies, whichever they are: while these take writes the network is not down. What is
//! there lies on a quorum at least, so as many nodes may be away as a quorum can do without; where more are, all copies of some of it
//! may be with them. Not so if they stand in one zone: of each block that lies in as many zones as it has copies, these have one copy.
//! That blocks do lie so is not inferred from who should have them: the nodes that are left say that they had caught up with those that
//! are away, which they say of nobody whose zone would take along a register, be it the root, a space's or another user's. And it is
//! never said of a network in which zones decide nothing, because it has more nodes than all know of each other.
//!
//! That what is there lies on as many nodes as it should is not inferred from their answering either: each says what it lacks, and with
//! whom it has compared. While one may lack something, or is of a release that does not say, nothing is called healthy.
//!
//! And a root whose quorum stands in one zone is named, while all is well: it goes with that zone.

use std::collections::BTreeMap;

use dht::PLACED_BY_ZONE_MAX;
use overlay::{NodeId, Zone};
use serde::Serialize;

use crate::report::OwnCopies;

/// How a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    Healthy,
    Degraded,
    /// Nothing that takes space can be written, and what is removed still is.
    Full,
    Down,
}

/// What is not there that a write needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Lack {
    /// Whether it is those that keep the drive's root, and not just any nodes.
    pub(super) of_root: bool,
    pub(super) needed: usize,
    pub(super) working: usize,
}

/// How it is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) health: Health,
    /// The zone that is away, if it is that which makes it so.
    pub(super) lost_zone: Option<Zone>,
    /// All copies of some of what is there may be with those that are away.
    pub(super) may_hide: bool,
    /// Why nothing can be written.
    pub(super) lack: Option<Lack>,
}

/// A node, as far as it matters here.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    pub(super) id: NodeId,
    pub(super) zone: Option<Zone>,
    /// It answers, and takes writes.
    pub(super) works: bool,
    /// It answers, and has room for what removes something only.
    pub(super) is_full: bool,
    /// With whom it had compared, and nothing was missing.
    pub(super) caught_up_with: Vec<NodeId>,
    /// What it says of its own copies; nothing if it does not answer, or is of an older release.
    pub(super) own: Option<OwnCopies>,
}

/// A node that may lack some of its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incomplete {
    pub(super) id: NodeId,
    /// How much it knows to lack; what it has not compared it does not know.
    pub(super) lacking: u64,
    /// Whether it says anything of it: an older release does not.
    pub(super) says: bool,
}

/// Comparisons that are older say nothing: rounds come each minute, if nothing keeps them from it.
const COMPARED_AGO_MAX_S: u64 = 300;

/// Those that answer and may not have all that they are to keep. A node whose disk was replaced a moment ago is one.
pub(super) fn incomplete(nodes: &[Witness], replicas: usize) -> Vec<Incomplete> {
    let may_lack = |node: &Witness, own: &OwnCopies| {
        let has_compared = |other: &NodeId| own.lacked_nothing_of.iter().any(|id| id.0 == other.0);
        let others = || nodes.iter().filter(|other| other.works && other.id != node.id);
        // In a larger network each knows those near it, among whom are all that keep some of the same as it does.
        let has_compared_enough = match nodes.len() <= PLACED_BY_ZONE_MAX {
            true => others().map(|other| &other.id).all(has_compared),
            false => own.lacked_nothing_of.len() + 1 >= replicas,
        };
        let has_to_compare = |other: &Witness| own.not_compared_with.iter().any(|id| id.0 == other.id.0);
        own.lacking > 0
            || !has_compared_enough
            || others().any(has_to_compare)
            || own.compared_s_ago.is_some_and(|ago| ago > COMPARED_AGO_MAX_S)
    };
    let found = |node: &Witness| match &node.own {
        Some(own) => {
            may_lack(node, own).then_some(Incomplete { id: node.id, lacking: own.lacking, says: true })
        }
        // Of one that does not answer there is a word already.
        None => (node.works || node.is_full).then_some(Incomplete { id: node.id, lacking: 0, says: false }),
    };
    nodes.iter().filter_map(found).collect()
}

/// Who keeps the drive's root, and how many of them a write needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct RootKeepers<'a> {
    pub(super) ids: &'a [NodeId],
    pub(super) needed: usize,
}

/// How the network of these nodes is.
pub(super) fn judge(nodes: &[Witness], root: RootKeepers<'_>, replicas: usize) -> Verdict {
    let working = nodes.iter().filter(|node| node.works).count();
    let of_root = nodes.iter().filter(|node| node.works && root.ids.contains(&node.id)).count();
    let lack = |of_root, needed, working| (working < needed).then_some(Lack { of_root, needed, working });
    if let Some(lack) = lack(true, root.needed, of_root).or(lack(false, needed_of(replicas), working)) {
        let is_there = |node: &&Witness| node.works || node.is_full;
        let there = nodes.iter().filter(is_there).count();
        let of_root = nodes.iter().filter(is_there).filter(|node| root.ids.contains(&node.id)).count();
        let would_do = of_root >= root.needed && there >= needed_of(replicas);
        let health = if would_do { Health::Full } else { Health::Down };
        return Verdict { health, lost_zone: None, may_hide: false, lack: Some(lack) };
    }
    // A block is on each of the nodes there are, if these are fewer than its copies.
    let down = nodes.len().max(replicas) - working;
    let health = if down == 0 { Health::Healthy } else { Health::Degraded };
    // With more nodes than replicas some blocks may live on just the dead ones: any quorum's worth of dead is too many.
    // What is on one that is full is there.
    let full = nodes.iter().filter(|node| node.is_full).count();
    let is_many = down - full > replicas - needed_of(replicas);
    let lost_zone = if is_many { lost_zone(nodes, replicas) } else { None };
    Verdict { health, may_hide: is_many && lost_zone.is_none(), lost_zone, lack: None }
}

/// The one zone that all who are away stand in, if the others can do without it.
fn lost_zone(nodes: &[Witness], replicas: usize) -> Option<Zone> {
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
    let can_do_without = nodes.len() <= PLACED_BY_ZONE_MAX
        && replicas > needed_of(replicas)
        && nodes.len() >= replicas
        && zones.len() >= replicas
        && working().all(has_caught_up);
    (is_one_zone && can_do_without).then_some(zone)
}

/// Where so many of those that keep the drive's root stand that nobody reads or writes without that zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RootInZone {
    /// `None`: they say no zone, while others do, and may stand anywhere together.
    pub(super) zone: Option<Zone>,
    /// How many of them.
    pub(super) count: usize,
    /// In whose place others should keep it, that are there and stand elsewhere.
    pub(super) to_replace: Vec<NodeId>,
}

/// The zone that the root would be gone with. With two zones that is one of them whatever is done, and it takes a third.
pub(super) fn root_in_zone(nodes: &[Witness], root: RootKeepers<'_>) -> Option<RootInZone> {
    let (all, needed) = (root.ids.len(), root.needed);
    // One that is alone is gone with itself.
    if all < 2 || nodes.iter().all(|node| node.zone.is_none()) {
        return None;
    }
    let zone_of = |id: &NodeId| nodes.iter().find(|node| node.id == *id).and_then(|node| node.zone.clone());
    let mut counts: BTreeMap<Option<Zone>, usize> = BTreeMap::new();
    root.ids.iter().for_each(|id| *counts.entry(zone_of(id)).or_default() += 1);
    let may_go = all - needed;
    let (zone, count) =
        counts.iter().map(|(zone, count)| (zone.clone(), *count)).max_by_key(|(_, count)| *count)?;
    if count <= may_go {
        return None;
    }
    let mut spares: Vec<&Witness> = nodes
        .iter()
        .filter(|node| node.works && node.zone != zone && !root.ids.contains(&node.id))
        .filter(|_| nodes.len() <= PLACED_BY_ZONE_MAX)
        .collect();
    let mut to_replace = Vec::new();
    let mut candidates = root.ids.iter().filter(|id| zone_of(id) == zone);
    for _ in may_go..count {
        // One where fewer stand than may go together; of all, any elsewhere is better than none.
        let room = |node: &&Witness| counts.get(&node.zone).copied().unwrap_or(0) < may_go;
        let is_first_of_all = to_replace.is_empty() && count == all && !spares.is_empty();
        let Some(place) = spares.iter().position(room).or(is_first_of_all.then_some(0)) else { break };
        *counts.entry(spares.remove(place).zone.clone()).or_default() += 1;
        to_replace.extend(candidates.next().copied());
    }
    Some(RootInZone { zone, count, to_replace })
}

/// How many of so many make a quorum.
fn needed_of(count: usize) -> usize {
    count / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Hex;

    /// A letter for each node: its zone, `-` for none; a capital is one that is away, and so is `_`, which says no zone; `!` is full.
    fn nodes(zones: &str) -> Vec<Witness> {
        let witness = |(number, letter): (u8, char)| Witness {
            id: NodeId([number; 32]),
            zone: letter
                .to_ascii_lowercase()
                .to_string()
                .parse()
                .ok()
                .filter(|_| letter.is_ascii_alphabetic()),
            works: !letter.is_ascii_uppercase() && !matches!(letter, '_' | '!'),
            is_full: letter == '!',
            caught_up_with: (0..20).map(|number| NodeId([number; 32])).collect(),
            own: Some(compared(0, 0..20)),
        };
        (0..).zip(zones.chars()).map(witness).collect()
    }

    fn compared(lacking: u64, with: std::ops::Range<u8>) -> OwnCopies {
        let lacked_nothing_of = with.map(|number| Hex([number; 32])).collect();
        OwnCopies {
            lacking,
            lacked_nothing_of,
            not_compared_with: Vec::new(),
            compared_s_ago: Some(59),
            compared_ms_ago: Some(59_000),
        }
    }

    /// Three disks were replaced one after the other, each as soon as `status` said healthy, and everything was lost.
    #[test]
    fn one_that_lacks_something_or_has_not_compared_with_all_who_answer_may_be_incomplete() {
        let told = |own: Option<OwnCopies>, zones: &str| {
            let mut nodes = nodes(zones);
            nodes[1].own = own;
            incomplete(&nodes, 3).iter().map(|found| (found.id.0[0], found.lacking)).collect::<Vec<_>>()
        };
        assert_eq!(told(Some(compared(0, 0..3)), "---"), []);
        assert_eq!(told(Some(compared(0, 0..0)), "---"), [(1, 0)], "its disk was replaced just now");
        assert_eq!(told(Some(compared(0, 0..2)), "---"), [(1, 0)], "the third may have what it lacks");
        assert_eq!(told(Some(compared(0, 0..2)), "--_"), [], "nobody can compare with it");
        assert_eq!(told(Some(compared(7, 0..3)), "---"), [(1, 7)]);
        let long_ago = OwnCopies { compared_s_ago: Some(301), ..compared(0, 0..3) };
        assert_eq!(told(Some(long_ago), "---"), [(1, 0)]);
        assert_eq!(told(None, "---"), [(1, 0)], "an older release says nothing");
        assert_eq!(told(None, "-_-"), [], "nor does one that is away, of which that is said");
        let many = "-".repeat(17);
        assert_eq!(told(Some(compared(0, 5..7)), &many), []);
        assert_eq!(told(Some(compared(0, 5..6)), &many), [(1, 0)]);
        let near = |number: u8| OwnCopies { not_compared_with: vec![Hex([number; 32])], ..compared(0, 5..7) };
        assert_eq!(told(Some(near(9)), &many), [(1, 0)], "one that is near may have what it lacks");
        assert_eq!(told(Some(near(16)), &format!("{}_", "-".repeat(16))), [], "it is away");
        assert_eq!(told(Some(OwnCopies { compared_s_ago: None, ..compared(0, 0..0) }), "_-"), [], "alone");
    }

    fn keepers(numbers: &[u8]) -> Vec<NodeId> {
        numbers.iter().map(|number| NodeId([*number; 32])).collect()
    }

    fn verdict(zones: &str, root: &[u8], replicas: usize) -> Verdict {
        judged(&nodes(zones), root, replicas)
    }

    fn judged(nodes: &[Witness], root: &[u8], replicas: usize) -> Verdict {
        let ids = keepers(root);
        let needed = if ids.is_empty() { 0 } else { needed_of(ids.len()) };
        judge(nodes, RootKeepers { ids: &ids, needed }, replicas)
    }

    fn zone(name: &str) -> Option<Zone> {
        Some(name.parse::<Zone>().unwrap())
    }

    #[test]
    fn one_zone_of_as_many_as_there_are_copies_may_go_and_no_other_node() {
        let told = |zones: &str, root: &[u8]| {
            let Verdict { health, lost_zone, .. } = verdict(zones, root, 3);
            (health, lost_zone)
        };
        let root = [0, 3, 4];
        assert_eq!(told("aaabc", &root), (Health::Healthy, None));
        assert_eq!(told("Aaabc", &root), (Health::Degraded, None));
        assert_eq!(told("AAAbc", &root), (Health::Degraded, zone("a")));
        assert_eq!(told("AAabc", &root), (Health::Degraded, zone("a")));
        for too_many in ["AAABc", "AaaBc", "aaaBC"] {
            assert_eq!(told(too_many, &root).0, Health::Down, "{too_many}");
        }
        // Where one stands that says nothing, nobody knows; it works.
        assert_eq!(told("AAabc-", &root), (Health::Degraded, zone("a")));
        // They count as one zone together, and no copies are in two of them for that.
        assert_eq!(told("AAab--", &[2, 3, 4]), (Health::Degraded, zone("a")));
        let may_hide = |zones: &str, root: &[u8], replicas| verdict(zones, root, replicas).may_hide;
        assert!(!may_hide("AAab--", &[2, 3, 4], 3) && may_hide("AAa---", &[2, 3, 4], 3));
        // Two zones can't take three copies, nor one copy the loss of any.
        assert!(may_hide("AAabbb", &[2, 3, 4], 3) && may_hide("AAbc", &[2], 1));
    }

    #[test]
    fn a_zone_that_has_most_keepers_of_the_root_or_what_the_others_may_lack_is_missed() {
        assert_eq!(verdict("AAAbc", &[0, 1, 4], 3).health, Health::Down);
        let mut behind = nodes("AAAbc");
        behind[4].caught_up_with.remove(1);
        assert!(judged(&behind, &[0, 3, 4], 3).may_hide);
    }

    /// In a larger network the copies of a tenth of all blocks may be in one zone, with nobody having missed anything.
    #[test]
    fn no_zone_is_dispensable_where_zones_do_not_decide_who_keeps_what() {
        let may_hide = |zones: &str| verdict(zones, &[0, 14, 15], 3).may_hide;
        assert!(
            !may_hide("AAAAAAAAAAAAAAbc") && may_hide("AAAAAAAAAAAAAAbca") && may_hide("AAAAAAAAAAAAAAbcc")
        );
    }

    /// Two of four away: it was called down, "cannot be written", while every write succeeded.
    #[test]
    fn whether_it_can_be_written_follows_what_a_write_needs() {
        let told = |zones: &str, root: &[u8]| {
            let Verdict { health, may_hide, lack, .. } = verdict(zones, root, 3);
            (health, may_hide, lack)
        };
        assert_eq!(told("--__", &[0, 1, 2]), (Health::Degraded, true, None));
        let lack = |of_root, needed, working| Some(Lack { of_root, needed, working });
        assert_eq!(told("-__-", &[0, 1, 2]), (Health::Down, false, lack(true, 2, 1)));
        assert_eq!(told("-___", &[]), (Health::Down, false, lack(false, 2, 1)));
        // A hundred may be away, if the right ones are there.
        assert_eq!(told(&format!("---{}", "_".repeat(13)), &[0, 1, 2]), (Health::Degraded, true, None));
    }

    /// Removals succeeded, while it was said that nothing could be written.
    #[test]
    fn full_nodes_are_there_for_removals() {
        let health = |zones: &str, root: &[u8]| verdict(zones, root, 3).health;
        assert_eq!(health("!!!", &[0, 1, 2]), Health::Full);
        assert_eq!(health("!!_", &[0, 1, 2]), Health::Full);
        assert_eq!(health("-!!", &[0, 1, 2]), Health::Full);
        assert_eq!(health("--!", &[0, 1, 2]), Health::Degraded);
        // Nor is anything hidden on them: it was said of five, two of them full, that some of it could not be read.
        let may_hide = |zones: &str| verdict(zones, &[0, 1, 2], 3).may_hide;
        assert!(!may_hide("---!!") && !may_hide("---!_") && may_hide("---!__"));
        assert_eq!(health("!__", &[0, 1, 2]), Health::Down);
        assert_eq!(health("!!__-", &[2, 3, 4]), Health::Down, "those that keep the root are away");
    }

    #[test]
    fn a_root_that_would_go_with_one_zone_is_named_with_who_is_to_be_replaced() {
        let told = |zones: &str, root: &[u8]| {
            let ids = keepers(root);
            let found = root_in_zone(&nodes(zones), RootKeepers { ids: &ids, needed: needed_of(ids.len()) });
            found.map(|RootInZone { zone, count, to_replace }| {
                (zone, count, to_replace.iter().map(|id| id.0[0]).collect::<Vec<_>>())
            })
        };
        assert_eq!(told("aaabc", &[0, 1, 2]), Some((zone("a"), 3, vec![0, 1])));
        assert_eq!(told("aaabc", &[0, 1, 3]), Some((zone("a"), 2, vec![0])));
        assert_eq!(told("aaabc", &[0, 3, 4]), None);
        assert_eq!(told("-----", &[0, 1, 2]), None, "nobody says a zone");
        assert_eq!(told("a----", &[1, 2, 3]), Some((None, 3, vec![1])), "they may stand anywhere together");
        // With two zones one of them has a quorum whatever is done: it takes a third.
        assert_eq!(told("aaabb", &[0, 1, 2]), Some((zone("a"), 3, vec![0])));
        assert_eq!(told("aaabb", &[0, 1, 3]), Some((zone("a"), 2, vec![])));
        assert_eq!(told("---a", &[0, 1, 3]), Some((None, 2, vec![])));
        // Nobody is there to take it.
        assert_eq!(told("aaaB", &[0, 1, 2]), Some((zone("a"), 3, vec![])));
        assert_eq!(told("ab", &[0]), None, "one copy is where it is");
    }
}
