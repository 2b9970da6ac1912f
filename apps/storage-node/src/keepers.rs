//! `node`: which nodes keep the drive's root, and putting another in the place of one.
//!
//! The root is a register, and its owner alone says who keeps it: whoever runs this has the user's key. Nothing does it by
//! itself: that a node does not answer may be this machine's own doing. Not here: blocks, which the nodes copy
//! among themselves.

use std::rc::Rc;

use dht::keepers::Presence;
use dht::{ReadError, RegisterAddress};
use overlay::NodeId;

use crate::cli::{Node, NodeAction};
use crate::client::{self, Client, Settings};
use crate::errors::Failure;
use crate::network::Network;
use crate::output::{self, say};
use crate::process;
use crate::progress;
use crate::volume;

/// The fewest digits of an id that stand for it: nobody mistypes eight into those of another node.
const ID_DIGITS_MIN: usize = 8;

/// Runs the command.
///
/// # Errors
/// Those of the settings' files, what keeps the root from being read, `Failure::NoSuchNode`, or `Failure::NotMoved`.
pub(crate) fn node(options: &Node) -> Result<(), Failure> {
    let settings = client::settings(options.client())?;
    match &options.action {
        NodeAction::List { .. } => list(&settings),
        NodeAction::Replace { node, .. } => replace(&settings, node),
    }
}

fn list(settings: &Settings) -> Result<(), Failure> {
    let presence = with_root(settings, |store, register| store.presence(register).map_err(internal))?;
    output::print(&render(&settings.network, &presence))
}

fn replace(settings: &Settings, name: &str) -> Result<(), Failure> {
    let network = &settings.network;
    let (before, after) = with_root(settings, |store, register| {
        let before = store.membership(register).map_err(internal)?;
        let node = named(network, before.members(), name)?;
        if before.members() == [node] {
            // Its blocks are there alone too. And a drive that runs on it writes root and blocks into one log.
            return Err(Failure::NotMoved {
                keepers: volume::names(network, before.members()),
                reason:
                    "a network of one copy has everything on this node; move the node's directory instead"
                        .into(),
            });
        }
        let spinner = progress::spinner("moving the drive's root");
        let after = store.replace_members(register, &[node]);
        spinner.finish_and_clear();
        let after = after.map_err(|error| Failure::NotMoved {
            keepers: volume::names(network, before.members()),
            reason: error.to_string(),
        })?;
        Ok((before.members().to_vec(), after.members().to_vec()))
    })?;
    let names = volume::names(network, &after);
    match before == after {
        true => say(format_args!("nothing to do: {names} keep the drive's root")),
        false => say(format_args!("{names} keep the drive's root now")),
    }
    Ok(())
}

/// Opens the root as a client, for one thing. What was seen is written down at the end, the newest keepers with it.
fn with_root<T: Send>(
    settings: &Settings,
    work: impl FnOnce(&dht::Client<Rc<overlay::Node>>, &RegisterAddress) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let seen_directory = settings.seen_directory();
    process::run(|| {
        let client = Client::connect(settings)?;
        let opened = client.open_root(seen_directory.as_deref());
        let result = opened.and_then(|root| work(&root.store, &root.register));
        client.leave();
        result
    })
}

fn internal(error: ReadError) -> Failure {
    Failure::Internal(error.to_string())
}

/// The node that a number or the beginning of an id means.
fn named(network: &Network, keepers: &[NodeId], name: &str) -> Result<NodeId, Failure> {
    let unknown = || Failure::NoSuchNode { name: name.into() };
    // An id may have digits only, but is never as short.
    if name.len() < ID_DIGITS_MIN {
        let number = name.parse::<u16>().map_err(|_| unknown())?;
        let node = network.nodes.iter().find(|node| node.number == number);
        return node.map(|node| node.id()).ok_or_else(unknown);
    }
    let listed = network.nodes.iter().map(|node| node.id());
    let mut ids: Vec<NodeId> = listed.chain(keepers.iter().copied()).collect();
    ids.retain(|id| id.to_string().starts_with(&name.to_lowercase()));
    ids.sort();
    ids.dedup();
    // Two that begin alike: whoever means one of them says more of it.
    match ids[..] {
        [only] => Ok(only),
        _ => Err(unknown()),
    }
}

fn render(network: &Network, presence: &[(NodeId, Presence)]) -> String {
    let mut text = format!("{:<6}{:<12}the drive's root\n", "node", "id");
    let mut line = |number: Option<u16>, id: &NodeId| {
        let keeps = match presence.iter().find(|(keeper, _)| keeper == id) {
            Some((_, Presence::Keeps)) => "keeps it",
            Some((_, Presence::Lacks)) => "is to keep it, and has yet to be given it",
            Some((_, Presence::Away)) => "keeps it, and does not answer",
            None => "-",
        };
        let number = number.map_or("-".into(), |number| number.to_string());
        text += &format!("{number:<6}{:<12}{keeps}\n", &id.to_string()[..ID_DIGITS_MIN]);
    };
    network.nodes.iter().for_each(|node| line(Some(node.number), &node.id()));
    let is_listed = |id: &NodeId| network.nodes.iter().any(|node| node.id() == *id);
    presence.iter().filter(|(id, _)| !is_listed(id)).for_each(|(id, _)| line(None, id));
    let risk = presence.iter().filter(|(_, presence)| *presence != Presence::Keeps);
    let risk: Vec<NodeId> = risk.map(|(id, _)| *id).collect();
    if !risk.is_empty() {
        text += &format!(
            "at risk: without {} one death less is survived; what is gone for good is replaced by \
             `storage-node node replace`\n",
            volume::names(network, &risk)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Founding;
    use crate::network::NodeEntry;

    fn network() -> Network {
        let founding = Founding::new();
        let entry = |number| NodeEntry { number, public_key: founding.node_key().1, address: None };
        founding.network((1..=3).map(entry).collect())
    }

    #[test]
    fn a_node_is_named_by_its_number_or_by_enough_of_its_id() {
        let network = network();
        let second = network.nodes[1].id();
        let stranger = NodeId([0xab; 32]);
        let find = |name: &str| named(&network, &[stranger], name).ok();
        assert_eq!(find("2"), Some(second));
        assert_eq!(find(&second.to_string()), Some(second));
        assert_eq!(find("ABABABABAB"), Some(stranger));
        let twins = [NodeId([0xcd; 32]), NodeId([&[0xcd; 31][..], &[0]].concat().try_into().unwrap())];
        assert!(named(&network, &twins, "cdcdcdcd").is_err());
        for wrong in ["4", "abab", "", "node 2", "00000002"] {
            assert_eq!(find(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_list_says_what_is_at_risk() {
        let network = network();
        let (first, stranger) = (network.nodes[0].id(), NodeId([0xab; 32]));
        let text = render(&network, &[(first, Presence::Keeps), (stranger, Presence::Away)]);
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(text.contains("abababab") && text.contains("at risk"), "{text}");
        assert!(!render(&network, &[(first, Presence::Keeps)]).contains("at risk"));
    }
}
