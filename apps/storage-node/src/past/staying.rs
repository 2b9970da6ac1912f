//! That what the drive was stays when a node goes: waited for, and said where it is not so.
//!
//! Not here: how those who keep a root learn what it was (`dht`).

use std::collections::BTreeMap;

use dht::past::Staying;
use overlay::NodeId;

use super::civil;
use crate::nodes::Nodes;
use crate::output;
use crate::progress;
use crate::volume::Root;

/// What is known of that, of several roots.
#[derive(Debug, Default)]
pub(crate) struct Stays {
    /// How many states the others have, all of those that there are.
    count: usize,
    /// Something was told that they have not, or that it is not known.
    is_told: bool,
}

impl Stays {
    /// Waits until those who keep `root` have what it was, as far as they will without `node`, and says of what that is not so.
    ///
    /// # Suspends
    /// Until then.
    pub(crate) fn wait(&mut self, root: &Root, nodes: &Nodes, node: &NodeId) {
        let what = &root.what;
        let spinner = progress::spinner(&format!("having the others keep what {what} was before"));
        let staying = root.store.past_without(&root.register, node);
        spinner.finish_and_clear();
        match staying {
            Ok(staying) => {
                self.count += staying.count;
                for words in in_words(&staying) {
                    self.is_told = true;
                    output::warn(format_args!(
                        "what {what} was before: without {} {words}; `storage-node past` lists what there is",
                        nodes.names(&[*node])
                    ));
                }
            }
            Err(error) => {
                self.is_told = true;
                output::warn(format_args!(
                    "whether the others keep what {what} was before is not known: {error}"
                ));
            }
        }
    }

    /// What to say in the end, if there was anything before.
    pub(crate) fn summary(&self) -> Option<String> {
        match self.count {
            _ if self.is_told => None,
            0 => None,
            1 => Some("what it was before (1 state) they keep as well".into()),
            count => Some(format!("what it was before ({count} states) they keep as well")),
        }
    }
}

/// Of how many states there are how few copies, the fewest first.
fn in_words(staying: &Staying) -> Vec<String> {
    let mut thin: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
    for one in &staying.thin {
        let (count, since) = thin.entry(one.copies).or_insert((0, one.since_seconds));
        (*count, *since) = (*count + 1, one.since_seconds.min(*since));
    }
    let in_words = |(copies, (count, since)): (usize, (usize, u64))| {
        let (states, are) =
            if count == 1 { ("1 state".into(), "is") } else { (format!("{count} states"), "are") };
        let since = civil(since);
        match copies {
            0 => format!("{states} since {since} (UTC) {are} on no node any more"),
            1 => format!("{states} since {since} (UTC) {are} on 1 node only"),
            copies => format!("{states} since {since} (UTC) {are} on {copies} nodes only"),
        }
    };
    thin.into_iter().map(in_words).collect()
}
