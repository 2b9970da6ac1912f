//! What to do about what `status` found: about that, and nothing else.

use super::{Health, NodeStatus, Overview};
use crate::clocks::{self, Differing};
use crate::report::Report;

/// What whoever runs the network does next.
pub(super) fn advice(overview: &Overview) -> String {
    if overview.older_than_seen.is_some() {
        return "start the nodes that have the newer state, or restore a newer copy".into();
    }
    let is =
        |test: fn(&Report) -> bool| overview.nodes.iter().filter_map(|node| node.report.as_ref()).any(test);
    let mut steps: Vec<&str> = Vec::new();
    if overview.nodes.iter().any(|node| !node.answers) {
        steps.push(
            "start the nodes that do not answer (`up` does, or `run` for each); in the place of one that is gone for good, let another join \
             (`invite --role node`), then `node replace` the one that is gone",
        );
    }
    if is(|report| report.failure.is_some()) {
        steps.push("see to the disks of nodes that take no writes");
    }
    if is(Report::takes_removals) {
        steps.push("make room on full disks: `gc` gives back what was removed");
    }
    if overview.nodes.iter().any(NodeStatus::has_a_thief) {
        steps.push(
            "in the place of the node whose key somebody else has, let a new one join (`invite --role node`), then `remove` it",
        );
    } else if overview.nodes.iter().any(NodeStatus::has_a_copy) {
        steps.push("see that no copy of a home runs, and that what was written last is there");
    }
    if clocks::differing(&overview.clocks_ahead_s()) == Differing::AmongNodes {
        steps.push("compare the clocks (`date -u` on each machine), and set those that are wrong");
    }
    if overview.catching_up.iter().any(|node| node.does_not_say) {
        steps.push("start the nodes that do not say what they lack with this release");
    }
    if overview.catching_up.iter().any(|node| !node.does_not_say) {
        steps.push(
            "leave the nodes running, which compare each minute and fetch what they lack, and say it again",
        );
    }
    if overview.nodes.len() < usize::from(overview.replicas) {
        steps.push("let another node join (`invite --role node`)");
    }
    if steps.is_empty() && !overview.knows_all_nodes {
        steps.push("start a node that was let in since the network was made, or those of `up`: they know which others there are");
    }
    match (&steps[..], overview.health) {
        ([], Health::Down) => "start the nodes that keep the drive's root: `node list` names them".into(),
        ([], _) => "say it again in a minute".into(),
        (steps, _) => steps.join("; "),
    }
}
