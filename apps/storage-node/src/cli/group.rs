//! The command line of groups.

use clap::{Args, Subcommand};

use super::membership::a_name;
use super::{HOME_TWICE, HomeOption, one_of};

const GROUP_EXAMPLES: &str = "\
Examples:
  storage-node group create family
  storage-node group add family bob@desk carol@laptop     by name, or by the first digits of an id, as `members` shows them
  storage-node group create everybody
  storage-node group add everybody family dave@box        a group in a group
  storage-node share ./drive/photos --read everybody --write family
  storage-node group remove family carol@laptop           off every space that names family, or everybody
  storage-node group list

A space that is shared with a group is shared with whoever is in it. `add` and `remove` have the list of each such space say so before
they end; each space gets a new key then, so that who was removed reads nothing that is written from then on. What of that can't be done
is said, with the spaces that it can't be done for: the same command again goes on with it, and so does `up` or `mount` of this home. Who
is in a group only the owner's homes know; who is on a space's list sees there by which group somebody is.";

/// Options of `group`.
#[derive(Debug, Args)]
#[command(after_help = GROUP_EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Group {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: GroupAction,
    #[command(flatten)]
    before: HomeOption,
}

/// What `group` does.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupAction {
    /// Make a group with nobody in it
    Create {
        /// What it is called: no member has that name
        #[arg(value_name = "NAME", value_parser = a_name)]
        name: String,
        #[command(flatten)]
        home: HomeOption,
    },
    /// Put members or groups into a group
    Add {
        /// The group
        #[arg(value_name = "NAME")]
        name: String,
        /// Members, by their names or the first digits of their ids, and groups
        #[arg(value_name = "WHO", required = true)]
        who: Vec<String>,
        #[command(flatten)]
        home: HomeOption,
    },
    /// Take members or groups out of a group, and off each space that they are on by it alone
    Remove {
        /// The group
        #[arg(value_name = "NAME")]
        name: String,
        /// Members, by their names or the first digits of their ids, and groups
        #[arg(value_name = "WHO", required = true)]
        who: Vec<String>,
        #[command(flatten)]
        home: HomeOption,
    },
    /// Show who is in which group, and which spaces name it
    List {
        #[command(flatten)]
        home: HomeOption,
    },
    /// Put groups together that two copies of this home made, or make lost ones anew of what this home knows
    Restore {
        /// Although the nodes that had them are lost: what was changed since this home looked last is lost with them, but who is off a
        /// list by then is in no group again; the lists of all its spaces are read before
        #[arg(long)]
        anew: bool,
        #[command(flatten)]
        home: HomeOption,
    },
    /// Delete a group that no space and no other group names
    Delete {
        /// The group
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        home: HomeOption,
    },
}

impl Group {
    /// Whose groups.
    pub(crate) fn home(&self) -> &HomeOption {
        match &self.action {
            GroupAction::Create { home, .. }
            | GroupAction::Add { home, .. }
            | GroupAction::Remove { home, .. }
            | GroupAction::List { home }
            | GroupAction::Restore { home, .. }
            | GroupAction::Delete { home, .. } => home,
        }
    }

    /// Has what stood before the verb stand after it.
    pub(super) fn settle(&mut self) -> Result<(), &'static str> {
        let before = self.before.home.clone();
        one_of(&mut self.home_mut().home, before, HOME_TWICE)
    }

    pub(super) fn home_mut(&mut self) -> &mut HomeOption {
        match &mut self.action {
            GroupAction::Create { home, .. }
            | GroupAction::Add { home, .. }
            | GroupAction::Remove { home, .. }
            | GroupAction::List { home }
            | GroupAction::Restore { home, .. }
            | GroupAction::Delete { home, .. } => home,
        }
    }
}
