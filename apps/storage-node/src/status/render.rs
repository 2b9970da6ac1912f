//! What `status` found, for somebody who reads it.

use std::fmt::Write;

use overlay::How;

use super::{Health, Overview};
use crate::progress::{human_bytes, human_duration};
use crate::report::Report;

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
    if let Some(zone) = &overview.lost_zone {
        return format!(
            "degraded: all that is away is in zone {zone}; the others had caught up with it, but for what was stored while they could \
             not be reached, and no further node may die"
        );
    }
    let words = match overview.health {
        Health::Healthy => "healthy: every node answers, and takes writes",
        Health::Degraded if overview.nodes.len() < usize::from(overview.replicas) => {
            "degraded: everything works, there are fewer nodes than copies, and no further node may die"
        }
        Health::Degraded => "degraded: everything works, and no further node may die",
        Health::Down => {
            "down: so few nodes answer and take writes that some of it cannot be written, and perhaps not be read"
        }
    };
    words.into()
}
