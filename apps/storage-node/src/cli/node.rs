//! The options of `node`.

use clap::{Args, Subcommand};

use super::ClientOptions;

const NODE_EXAMPLES: &str = "\
Examples:
  storage-node node list           which nodes keep the drive's root, and which of them are there
  storage-node node replace 2      node 2 is gone for good, or is to go: another one keeps the root in its place

The drive's root is kept by as many nodes as each block is on, and a majority of them must be there. A node that is gone for
good is replaced, so that the next one may die as well. It takes a node that does not keep the root yet.

This moves the root and nothing else. The other nodes copy the blocks of a node once it is gone: one that still runs is left
running until it has been replaced, and the next one is not taken away before that copying is over (`status` shows how
many blocks each node has).";

/// Options of `node`.
#[derive(Debug, Args)]
#[command(after_help = NODE_EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Node {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: NodeAction,
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
        #[command(flatten)]
        client: ClientOptions,
    },
}

impl Node {
    /// How its process finds the network.
    pub(crate) fn client(&self) -> &ClientOptions {
        match &self.action {
            NodeAction::List { client } | NodeAction::Replace { client, .. } => client,
        }
    }

    pub(super) fn client_mut(&mut self) -> &mut ClientOptions {
        match &mut self.action {
            NodeAction::List { client } | NodeAction::Replace { client, .. } => client,
        }
    }
}
