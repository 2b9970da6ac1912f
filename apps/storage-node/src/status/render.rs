//! What `status` found, for somebody who reads it.

use std::fmt::Write;

use overlay::How;

use super::health::Lack;
use super::{CatchingUp, Health, InOneZone, NodeStatus, Overview};
use crate::clocks::{self, Differing};
use crate::progress::{human_bytes, human_duration};
use crate::report::Report;
use crate::volume::Older;

/// Of so many nodes the names are told in a sentence.
const NAMED_MAX: usize = 8;

/// The overview as a table.
pub(super) fn render(overview: &Overview) -> String {
    let answering = overview.nodes.iter().filter(|node| node.answers).count();
    let words = in_words(overview);
    let mut text = format!(
        "{words}\n{answering} of {} nodes, {} of each block\n\n",
        overview.nodes.len(),
        if overview.replicas == 1 { "1 copy".into() } else { format!("{} copies", overview.replicas) }
    );
    let _ = writeln!(text, "{:<6}{:<24}{:<10}{:>10}{:>12}  up", "node", "address", "id", "blocks", "bytes");
    for node in &overview.nodes {
        let number = node.number.map_or("-".into(), |number| number.to_string());
        let address = match (node.reached, node.address) {
            // Where it listens is of no use to whom it is behind a router.
            (Some(how @ (How::Punched | How::PunchedTcp | How::Relayed)), _) => how.to_string(),
            (_, Some(address)) => address.to_string(),
            (_, None) => "-".into(),
        };
        let id = &node.id.to_string()[..8];
        let _ = match (&node.report, &node.error) {
            (Some(report), _) => writeln!(
                text,
                "{number:<6}{address:<24}{id:<10}{:>10}{:>12}  {}",
                report.blocks,
                human_bytes(report.used_bytes),
                human_duration(report.uptime_s)
            ),
            (None, error) => {
                writeln!(
                    text,
                    "{number:<6}{address:<24}{id:<10}does not answer: {}",
                    error.as_deref().unwrap_or("?")
                )
            }
        };
        if let Some(says) = node.says.in_words() {
            let _ = writeln!(text, "      {says}");
        }
        if let Some(words) = clock(node) {
            let _ = writeln!(text, "      its clock is {words}");
        }
        if let Some(fault) = node.report.as_ref().and_then(Report::fault) {
            let _ = writeln!(text, "      {fault}");
        }
    }
    let moved = match overview.root.moved_count {
        0 => "since it was made".into(),
        1 => "since it was moved".into(),
        count => format!("since it was moved, {count} times by now"),
    };
    if !overview.root.keepers.is_empty() {
        let _ = writeln!(text, "\nthe drive's root is kept by {}, {moved}", overview.root.names);
    }
    if let Some(in_one_zone) = &overview.root.in_one_zone {
        let _ = writeln!(text, "{}", of_one_zone(in_one_zone, overview.root.keepers.len()));
    }
    match clocks::differing(&overview.clocks_ahead_s()) {
        Differing::FromThisMachines(ahead_s) => {
            let words = clocks::in_words(ahead_s).unwrap_or_else(|| "off".into());
            let _ = writeln!(
                text,
                "\nthe clocks of all nodes that answer are {words}: one or the other is wrong, and while they differ, passports and `gc` may be refused"
            );
        }
        // Else it is what was said first.
        Differing::AmongNodes if !overview.is_for_clocks_only => {
            let whose = differing(&overview.nodes);
            let _ =
                writeln!(text, "\nclocks differ, and nodes may refuse members and what `gc` says: {whose}");
        }
        Differing::AmongNodes | Differing::Little => {}
    }
    if !overview.knows_all_nodes {
        let _ = writeln!(text, "\nno node says which nodes the network's owner let in: there may be others");
    }
    if overview.kept_deleted_bytes > 0 {
        let kept = human_bytes(overview.kept_deleted_bytes);
        let _ = writeln!(
            text,
            "\nof what was deleted the nodes keep {kept} yet, all copies counted: `storage-node retention` says for how long"
        );
    }
    if let Some(cache) = &overview.cache {
        let _ = writeln!(text, "\n{cache}");
    }
    if let Some(away) = &overview.owner_away {
        let _ = writeln!(text, "\n{}", away.in_words());
    }
    text
}

/// How the network is, in a sentence.
fn in_words(overview: &Overview) -> String {
    if let Some(Older { seen, found }) = overview.older_than_seen {
        return format!(
            "down: the nodes hold version {found} of the drive, and this machine has seen version {seen}, which that does not follow: they were \
             restored from an older copy, or copies of them answer, and what was stored since is not there"
        );
    }
    if let Some(zone) = &overview.lost_zone {
        return format!(
            "degraded: all that is away is in zone {zone}; the others had caught up with it, but for what was stored while they could \
             not be reached, and no further node may die"
        );
    }
    let away =
        overview.nodes.iter().filter(|node| !node.report.as_ref().is_some_and(Report::takes_writes)).count();
    match (overview.health, overview.lack) {
        (Health::Healthy, _) => match overview.compared_s_ago {
            Some(ago) => format!(
                "healthy: every node answers, and takes writes; none lacked anything when they compared, at most {} ago",
                human_duration(ago)
            ),
            None => "healthy: every node answers, and takes writes".into(),
        },
        (Health::Degraded, _) if !overview.knows_all_nodes && away == 0 => {
            "degraded: every node that is known answers, and none says which others there are".into()
        }
        (Health::Degraded, _) if away == 0 && overview.nodes.iter().any(NodeStatus::has_a_thief) => {
            "degraded: every node answers, and somebody else signs with the key of one: what is stored with it may be missing"
                .into()
        }
        (Health::Degraded, _) if away == 0 && overview.nodes.iter().any(NodeStatus::is_two) => {
            "degraded: every node answers, and two processes serve with the key of one: what is stored with either may be missing with the other, \
             until one of them is stopped"
                .into()
        }
        (Health::Degraded, _) if away == 0 && overview.nodes.iter().any(NodeStatus::has_a_copy) => {
            "degraded: every node answers, and a copy of a node's home has served beside it: what was stored with the copy may be missing"
                .into()
        }
        (Health::Degraded, _) if overview.is_for_clocks_only => format!(
            "degraded: every node answers, and takes writes; but clocks differ, and nodes may refuse members and what `gc` says: {}",
            differing(&overview.nodes)
        ),
        (Health::Degraded, _) if away == 0 && !overview.catching_up.is_empty() => format!(
            "degraded: every node answers, and takes writes; but {}: until then no node may die, nor be stopped or replaced",
            catching_up(&overview.catching_up)
        ),
        (Health::Degraded, _) if !overview.may_hide && !overview.catching_up.is_empty() => format!(
            "degraded: what is written is stored; but {away} node{} away, or take{} no writes, and {}: until then of some of what is stored \
             the only copy within reach may be on one node",
            if away == 1 { " is" } else { "s are" },
            if away == 1 { "s" } else { "" },
            catching_up(&overview.catching_up)
        ),
        (Health::Degraded, _) if overview.may_hide => format!(
            "degraded: what is written is stored; but {away} node{} away, or take{} no writes, and all copies of some of what is stored may \
             be there: it cannot be read until they are back",
            if away == 1 { " is" } else { "s are" },
            if away == 1 { "s" } else { "" },
        ),
        (Health::Degraded, _) if away > 0 && overview.nodes.iter().all(|node| node.report.is_some()) => format!(
            "degraded: every node answers, all can be read, and what is written is stored; but {away} take{} no writes, and no further \
             node may die",
            if away == 1 { "s" } else { "" },
        ),
        (Health::Degraded, _) if overview.nodes.len() < usize::from(overview.replicas) => {
            "degraded: everything works, there are fewer nodes than copies, and no further node may die"
                .into()
        }
        (Health::Degraded, _) => "degraded: everything works, and no further node may die".into(),
        (Health::Full, _) => {
            "full: too few nodes have room, and nothing is written that takes any; all can be read, and what removes files or snapshots is \
             stored (`gc` gives their space back)"
                .into()
        }
        (Health::Down, Some(Lack { of_root: true, needed, working })) => {
            let keepers = overview.root.keepers.len();
            format!(
                "down: of the {keepers} node{} the drive's root {needed} must answer and take writes, and {working} do{}: nothing can be \
                 written, and nothing is read but what a cache has",
                if keepers == 1 { " that keeps" } else { "s that keep" },
                if working == 1 { "es" } else { "" },
            )
        }
        (Health::Down, Some(Lack { needed, working, .. })) => format!(
            "down: each block has to go to {needed} nodes, and {working} answer{} and take{} writes: nothing can be written, and \
             perhaps not all be read",
            if working == 1 { "s" } else { "" },
            if working == 1 { "s" } else { "" },
        ),
        (Health::Down, None) => "down: too few nodes answer and take writes: nothing can be written".into(),
    }
}

/// By how much a node's clock is off, if it is by much.
fn clock(node: &NodeStatus) -> Option<String> {
    clocks::in_words(node.report.as_ref()?.clock_ahead_s?)
}

/// Whose clocks differ: those that are far from this machine's, or else those that are furthest from each other.
fn differing(nodes: &[NodeStatus]) -> String {
    let of = |node: &NodeStatus| Some((name(node), node.report.as_ref()?.clock_ahead_s?));
    let all: Vec<(String, i64)> = nodes.iter().filter_map(of).collect();
    let far = all.iter().filter_map(|(name, ahead_s)| {
        Some(format!("that of node {name} is {}", clocks::in_words(*ahead_s)?))
    });
    let far: Vec<String> = far.collect();
    let by_clock = |(_, ahead_s): &&(String, i64)| *ahead_s;
    match (all.iter().min_by_key(by_clock), all.iter().max_by_key(by_clock)) {
        (Some((behind, least)), Some((ahead, most))) if far.is_empty() => format!(
            "that of node {ahead} is {} ahead of that of node {behind}",
            human_duration(most.saturating_sub(*least).unsigned_abs())
        ),
        _ => far.join(", "),
    }
}

fn name(node: &NodeStatus) -> String {
    node.number.map_or_else(|| node.id.to_string()[..8].to_owned(), |number| number.to_string())
}

/// Which nodes have what to do yet.
fn catching_up(nodes: &[CatchingUp]) -> String {
    let those = |test: fn(&CatchingUp) -> bool| {
        let names: Vec<&str> = nodes.iter().filter(|node| test(node)).map(|node| &*node.node).collect();
        named(&names).map(|words| (words, names.len() == 1))
    };
    let mut said: Vec<String> = nodes
        .iter()
        .filter(|node| node.lacking > 0)
        .take(NAMED_MAX)
        // It finds them as it compares, range by range: there may be more.
        .map(|CatchingUp { node, lacking, .. }| {
            format!("node {node} lacks {lacking} of its copies or more, and has yet to get them")
        })
        .collect();
    let lacking = nodes.iter().filter(|node| node.lacking > 0).count();
    if lacking > NAMED_MAX {
        said.push(format!("{} more lack some of theirs", lacking - NAMED_MAX));
    }
    said.extend(those(|node| node.does_not_say).map(|(nodes, is_one)| match is_one {
        true => format!("{nodes} is of an older release, and does not say what it lacks"),
        false => format!("{nodes} are of an older release, and do not say what they lack"),
    }));
    said.extend(those(|node| node.lacking == 0 && !node.does_not_say).map(|(nodes, is_one)| match is_one {
        true => format!("{nodes} has yet to compare what it has with the others"),
        false => format!("{nodes} have yet to compare what they have with the others"),
    }));
    said.join(", ")
}

/// Nodes by their names, or how many they are beyond those that are told.
fn named(names: &[&str]) -> Option<String> {
    let (shown, rest) = names.split_at(names.len().min(NAMED_MAX));
    let rest = (!rest.is_empty()).then(|| format!("{} more", rest.len()));
    let shown: Vec<&str> = shown.iter().copied().chain(rest.as_deref()).collect();
    let (last, first) = shown.split_last()?;
    Some(match first {
        [] => format!("node {last}"),
        first => format!("nodes {} and {last}", first.join(", ")),
    })
}

/// That the root would be gone with a zone, and what to do.
fn of_one_zone(InOneZone { zone, keeper_count, to_replace }: &InOneZone, keepers: usize) -> String {
    let place = match zone {
        Some(zone) => format!("stand in zone {zone}"),
        None => "say no zone, while others do, and so may stand in one place".into(),
    };
    let who = match *keeper_count == keepers {
        true => "all of them".into(),
        false => format!("{keeper_count} of them"),
    };
    let advice = match &to_replace[..] {
        [] => "start a node elsewhere, where none of them stands (`run --zone`), and have it take the place of one of them (`storage-node node replace`)".into(),
        some => {
            let commands: Vec<String> = some.iter().map(|name| format!("`storage-node node replace {name}`")).collect();
            format!("{}, in the home that made the network, has others elsewhere keep it", commands.join(" and then "))
        }
    };
    format!(
        "{who} {place}: while that is away nothing can be read or written, and if it is lost, so is the drive's root, and with it the \
         drive; {advice}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: u16, lacking: u64, does_not_say: bool) -> CatchingUp {
        CatchingUp { node: name.to_string(), lacking, does_not_say }
    }

    #[test]
    fn nodes_of_which_the_same_is_said_are_named_together() {
        let waits = |names: std::ops::RangeInclusive<u16>| -> Vec<CatchingUp> {
            names.map(|name| node(name, 0, false)).collect()
        };
        assert_eq!(catching_up(&waits(2..=2)), "node 2 has yet to compare what it has with the others");
        assert_eq!(
            catching_up(&waits(1..=3)),
            "nodes 1, 2 and 3 have yet to compare what they have with the others"
        );
        let many = catching_up(&waits(1..=30));
        assert!(many.starts_with("nodes 1, 2, 3, 4, 5, 6, 7, 8 and 22 more have yet"), "{many}");
        let mixed =
            [node(1, 0, false), node(2, 7, false), node(3, 0, true), node(4, 1, false), node(5, 0, true)];
        assert_eq!(
            catching_up(&mixed),
            "node 2 lacks 7 of its copies or more, and has yet to get them, node 4 lacks 1 of its copies or more, and has yet to get them, \
             nodes 3 and 5 are of an older release, and do not say what they lack, node 1 has yet to compare what it has with the others"
        );
    }
}
