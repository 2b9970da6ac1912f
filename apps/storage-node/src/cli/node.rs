//! The options of `node`.

use clap::{Args, Subcommand};

use super::ClientOptions;

const NODE_EXAMPLES: &str = "\
Examples:
  storage-node node list           which nodes keep the drive's root, and which of them are there
  storage-node node replace 2      node 2 is gone for good: another one keeps the root in its place
  storage-node node replace 2 --by 5
                                   the same, and node 5 does
  storage-node node drain 4        what node 4 has, others get as well
  storage-node node remove 4       drain it, and refuse it for ever: then it counts no more, and may be switched off

The drive's root is kept by as many nodes as each block is on, and a majority of them must be there. A node that is gone for
good is replaced, so that the next one may die as well. It takes a node that does not keep the root yet; without --by one that was
not replaced by this home before, if there is one. So the root moves to other nodes altogether by replacing one after the other.

`replace` moves the root and nothing else. `drain` and `remove` see to the blocks, too: each is copied until as many of the
other nodes have it as there are copies, and they are asked whether they do. They succeed only if that is so; after Ctrl-C,
or with the nodes back, the same command goes on. While a node is drained it still takes new blocks: `remove` ends that.
A node that is gone, disk and all, is removed in the same way.

What the drive was within the retention (`past`, `rollback`) lies with those that keep the root, and moves with it: the three
commands wait until the others have it, and say what they can't have, as of a state that one node alone shows.

With three nodes, `replace`, `drain` and `remove` need a fourth one first: `storage-node invite --role node` here, and `join`
with the ticket on the other machine.";

/// Options of `node`.
#[derive(Debug, Args)]
#[command(after_help = NODE_EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Node {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: NodeAction,
    #[command(flatten)]
    before: ClientOptions,
}

/// What `node` does.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeAction {
    /// Show which nodes keep the drive's root, and which of them are there
    List {
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Have another node keep the drive's root in the place of one
    Replace {
        /// Its number, or the first 8 or more digits of its id
        #[arg(value_name = "NODE")]
        node: String,
        /// Which node takes over, likewise; else the nearest that can, and rather none that was replaced before
        #[arg(long, value_name = "NODE")]
        by: Option<String>,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Have other nodes get all that one has
    Drain {
        /// Its number, or the first 8 or more digits of its id
        #[arg(value_name = "NODE")]
        node: String,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Turn a node out, once the others have all that it has
    Remove {
        /// Its number, or the first 8 or more digits of its id
        #[arg(value_name = "NODE")]
        node: String,
        /// At once, though what only it has is lost
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
}

impl Node {
    /// How its process finds the network.
    pub(crate) fn client(&self) -> &ClientOptions {
        match &self.action {
            NodeAction::List { client }
            | NodeAction::Replace { client, .. }
            | NodeAction::Drain { client, .. }
            | NodeAction::Remove { client, .. } => client,
        }
    }

    /// Has what stood before the verb stand after it.
    pub(super) fn settle(&mut self) -> Result<(), &'static str> {
        let before = self.before.clone();
        self.client_mut().take(before)
    }

    pub(super) fn client_mut(&mut self) -> &mut ClientOptions {
        match &mut self.action {
            NodeAction::List { client }
            | NodeAction::Replace { client, .. }
            | NodeAction::Drain { client, .. }
            | NodeAction::Remove { client, .. } => client,
        }
    }
}
