//! `node`: which nodes keep the drive's root, and putting another in the place of one.
//!
//! The root is a register, and its owner alone says who keeps it: whoever runs this has the user's key. Not here: replacing by
//! itself one that is gone for good (`replacing`); doing without a node, blocks and all (`leaving`).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use dht::block::configuration::Membership;
use dht::keepers::Presence;
use dht::{BlockStore, ReadError};
use overlay::NodeId;
use serde::{Deserialize, Serialize};

use crate::cli::{Node, NodeAction};
use crate::client::{self, Client, Settings};
use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::keeping;
use crate::leaving;
use crate::network::Hex;
use crate::nodes::{ID_DIGITS_MIN, Listed, Nodes, Said, said_to};
use crate::output::{self, say};
use crate::past::staying::Stays;
use crate::process;
use crate::progress;
use crate::volume::Root;

/// Runs the command.
///
/// # Errors
/// Those of the settings' files, what keeps the root from being read, `Failure::NoSuchNode`, `Failure::NotMoved`, or
/// `Failure::Needed`.
pub(crate) fn node(options: &Node) -> Result<(), Failure> {
    let settings = client::settings(options.client())?;
    match &options.action {
        NodeAction::List { .. } => list(&settings),
        NodeAction::Replace { node, by, .. } => replace(&settings, node, by.as_deref()),
        NodeAction::Drain { node, .. } => leaving::drain(&settings, node),
        NodeAction::Remove { node, now, .. } => leaving::remove(&settings, node, *now),
    }
}

fn list(settings: &Settings) -> Result<(), Failure> {
    let nodes = Nodes::of(settings)?;
    let (presence, needed, said) = with_root_unread(settings, |root| {
        let (store, register) = (&root.store, &root.register);
        // Whoever reads it follows it to where it has moved. Where too few are left for that, they are shown all the same.
        if store.read(register).is_ok() {
            root.remember_keepers()?;
        }
        let needed = store.membership(register).map_err(internal)?.quorum().needed;
        Ok((store.presence(register).map_err(internal)?, needed, said_to(store.overlay())))
    })?;
    output::print(&render(&nodes, &presence, needed, &said))
}

fn replace(settings: &Settings, name: &str, by: Option<&str>) -> Result<(), Failure> {
    let nodes = Nodes::of(settings)?;
    let mut stood_down = StoodDown::read(settings)?;
    let node = with_roots(settings, |roots| {
        // Who came since, and this home has not heard of, may take over as well.
        let met = roots[0].store.overlay().contacts().into_iter().map(|(contact, _)| contact.id);
        let known: Vec<NodeId> = store_members(&roots[0])?.members().iter().copied().chain(met).collect();
        let node = nodes.named(&known, name)?;
        let by = match by {
            Some(by) => By::This(nodes.named(&known, by)?),
            None => By::Any { last: &stood_down.ids() },
        };
        let (mut result, mut stays) = (Ok(()), Stays::default());
        for root in roots {
            let what = &root.what;
            match move_root(root, &nodes, &node, by) {
                Ok(Moved::NotThere(names)) => say(format_args!("nothing to do: {names} keep {what}")),
                Ok(Moved::To { keepers, new }) => {
                    say(format_args!(
                        "{keepers} keep {what} now: {new} in the place of {}",
                        nodes.names(&[node])
                    ));
                    stays.wait(root, &nodes, &node);
                }
                Err(failure) => result = result.and(Err(failure)),
            }
        }
        stays.summary().into_iter().for_each(say);
        result.map(|()| node)
    })?;
    stood_down.add(settings, node)
}

/// Nodes that were replaced by hand: whoever moves the root off them does not want it back there with the next.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct StoodDown {
    nodes: Vec<Hex<[u8; 32]>>,
}

impl Kind for StoodDown {
    const KIND: &'static str = "hypha replaced";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

impl StoodDown {
    /// So many are remembered.
    const MAX: usize = 256;

    fn file(settings: &Settings) -> Option<PathBuf> {
        settings.home.as_ref().map(|home| home.members_directory().join("replaced.json"))
    }

    fn read(settings: &Settings) -> Result<StoodDown, Failure> {
        let Some(file) = StoodDown::file(settings) else { return Ok(StoodDown::default()) };
        match files::load(&file) {
            Err(Failure::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(StoodDown::default())
            }
            other => other,
        }
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|id| NodeId(id.0)).collect()
    }

    fn add(&mut self, settings: &Settings, node: NodeId) -> Result<(), Failure> {
        let Some(file) = StoodDown::file(settings) else { return Ok(()) };
        self.nodes.retain(|id| id.0 != node.0);
        self.nodes.push(Hex(node.0));
        let surplus = self.nodes.len().saturating_sub(StoodDown::MAX);
        self.nodes.drain(..surplus);
        if let Some(directory) = file.parent() {
            files::private_directory(directory)?;
        }
        files::save(&file, self)
    }
}

fn store_members(root: &Root) -> Result<Membership, Failure> {
    root.store.membership(&root.register).map_err(internal)
}

/// Who keeps the root, in words.
pub(crate) enum Moved {
    /// The node did not keep it.
    NotThere(String),
    To {
        keepers: String,
        new: String,
    },
}

/// Who is to keep a root in the place of another.
#[derive(Clone, Copy)]
pub(crate) enum By<'a> {
    /// The nearest that can, and those that are `last` only if no other can.
    Any { last: &'a [NodeId] },
    /// This one.
    This(NodeId),
}

/// Has another node keep a root in the place of `node`, if that keeps it.
///
/// # Errors
/// `Failure::NotMoved`.
///
/// # Suspends
/// Until a majority of those who keep it then have it.
pub(crate) fn move_root(root: &Root, nodes: &Nodes, node: &NodeId, by: By<'_>) -> Result<Moved, Failure> {
    let Root { store, register, what, .. } = root;
    let before = store.membership(register).map_err(internal)?;
    let failed = |reason| Failure::NotMoved { keepers: nodes.names(before.members()), reason };
    if before.members() == [*node] {
        // Its blocks are there alone too. And a drive that runs on it writes root and blocks into one log.
        return Err(Failure::OneCopy { keeper: nodes.names(&[*node]) });
    }
    if let By::This(by) = by
        && before.members().contains(&by)
    {
        return Err(failed(format!("{} is one of them already, and keeps it once", nodes.names(&[by]))));
    }
    let spinner = progress::spinner(&format!("moving {what}"));
    let after = match by {
        By::Any { last } => store.replace_members_rather(register, &[*node], last),
        By::This(by) => store.replace_member_by(register, node, by),
    };
    spinner.finish_and_clear();
    let after = after.map_err(|error| failed(error.to_string()))?;
    let keepers = nodes.names(after.members());
    let new: Vec<NodeId> =
        after.members().iter().copied().filter(|member| !before.members().contains(member)).collect();
    Ok(match new[..] {
        [] => Moved::NotThere(keepers),
        _ => Moved::To { keepers, new: nodes.names(&new) },
    })
}

/// Opens the drive's root as a client, and after it those of its spaces, for one thing. What was seen is written down at the end,
/// the newest keepers with it. If a space's root can't be opened, what is done is done for the others, and it fails in the end.
pub(crate) fn with_roots<T: Send>(
    settings: &Settings,
    work: impl FnOnce(&[Root]) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let seen_directory = settings.seen_directory();
    process::run(|| {
        let client = Client::connect(settings)?;
        let opened = client.open_roots(settings.home.as_ref(), seen_directory.as_deref());
        let result = opened.and_then(|(roots, all)| {
            let result = work(&roots);
            // Also where that failed after others keep the root already.
            let kept = roots.iter().map(Root::remember_keepers).fold(Ok(()), Result::and);
            result.and_then(|result| kept.and(all).map(|()| result))
        });
        keeping::once(settings, client.overlay());
        client.leave();
        result
    })
}

/// Opens the root as a client, for one thing, though too few may be left that could tell its value.
pub(crate) fn with_root_unread<T: Send>(
    settings: &Settings,
    work: impl FnOnce(&Root) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let seen_directory = settings.seen_directory();
    process::run(|| {
        let client = Client::connect(settings)?;
        let result = client.root_unread(seen_directory.as_deref()).and_then(|root| work(&root));
        client.leave();
        result
    })
}

pub(crate) fn internal(error: ReadError) -> Failure {
    Failure::Internal(error.to_string())
}

fn render(
    nodes: &Nodes,
    presence: &[(NodeId, Presence)],
    needed: usize,
    said: &BTreeMap<NodeId, Said>,
) -> String {
    let mut text = format!("{:<6}{:<12}the drive's root\n", "node", "id");
    let mut line = |number: Option<u16>, id: &NodeId| {
        let keeps = match presence.iter().find(|(keeper, _)| keeper == id) {
            Some((_, Presence::Keeps)) => "keeps it",
            Some((_, Presence::Lacks)) => "is to keep it, and has yet to be given it",
            Some((_, Presence::Broken)) => "keeps it, and takes no writes: its store has failed",
            Some((_, Presence::Away)) => "keeps it, and does not answer",
            None => "-",
        };
        let number = number.map_or("-".into(), |number| number.to_string());
        let says = said.get(id).and_then(Said::in_words).map_or(String::new(), |words| format!(", {words}"));
        text += &format!("{number:<6}{:<12}{keeps}{says}\n", &id.to_string()[..ID_DIGITS_MIN]);
    };
    let mut shown: Vec<&Listed> = nodes.present().collect();
    shown.sort_by_key(|node| node.number.unwrap_or(u16::MAX));
    shown.iter().for_each(|node| line(node.number, &node.id()));
    // Whom this home never heard of, or removed in haste.
    let is_shown = |id: &NodeId| shown.iter().any(|node| node.id() == *id);
    let number_of = |id: &NodeId| nodes.get(id).and_then(|node| node.number);
    presence.iter().filter(|(id, _)| !is_shown(id)).for_each(|(id, _)| line(number_of(id), id));
    let risk = presence.iter().filter(|(_, presence)| *presence != Presence::Keeps);
    let risk: Vec<NodeId> = risk.map(|(id, _)| *id).collect();
    let left = presence.len() - risk.len();
    if left < needed {
        text += &format!(
            "{needed} of those that keep it must be there, and {left} {}: nothing can be read or written before that\n",
            if left == 1 { "is" } else { "are" }
        );
    } else if !risk.is_empty() {
        text += &format!(
            "at risk: without {} one death less is survived; what is gone for good is replaced by \
             `storage-node node replace`\n",
            nodes.names(&risk)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Founding;
    use crate::network::NodeEntry;

    #[test]
    fn the_list_says_what_is_at_risk() {
        let founding = Founding::new();
        let entry = |number| NodeEntry { number, public_key: founding.node_key().1, address: None };
        let nodes = Nodes::first(&founding.network((1..=3).map(entry).collect()));
        let (first, stranger) = (nodes.present().next().unwrap().id(), NodeId([0xab; 32]));
        let said = BTreeMap::new();
        let text = render(&nodes, &[(first, Presence::Keeps), (stranger, Presence::Away)], 1, &said);
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(text.contains("abababab") && text.contains("at risk"), "{text}");
        assert!(!render(&nodes, &[(first, Presence::Keeps)], 1, &said).contains("at risk"));
        let text = render(&nodes, &[(first, Presence::Keeps), (stranger, Presence::Away)], 2, &said);
        assert!(text.contains("2 of those that keep it must be there, and 1 is"), "{text}");
    }
}
