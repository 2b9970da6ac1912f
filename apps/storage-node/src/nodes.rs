//! The network's storage nodes, as this home knows them: those it was made with, and those let in since.
//!
//! Each has a number, which no other ever gets; a machine that joined numbers only those of the network's beginning, since
//! who came later stands in the owner's roll. One that was removed stays known by its number, and counts no more.
//!
//! Not here: who of them answers (`status`).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use overlay::invitation::InvitedAs;
use overlay::{Contact, NodeId, Revocations, Zone};
use reactor::crypto::PublicKey;
use serde::Serialize;

use crate::client::Settings;
use crate::errors::Failure;
use crate::home::Home;
use crate::network::Network;
use crate::progress::human_bytes;
use crate::roll::Roll;

/// The fewest digits of an id that stand for it: nobody mistypes eight into those of another node.
pub(crate) const ID_DIGITS_MIN: usize = 8;

/// A storage node.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) number: Option<u16>,
    pub(crate) key: PublicKey,
    /// Where it listened last, if that is known.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) is_removed: bool,
}

impl Listed {
    /// Its id.
    pub(crate) fn id(&self) -> NodeId {
        NodeId::of(&self.key)
    }

    /// How to reach it, as far as it is known.
    pub(crate) fn contact(&self) -> Contact {
        Contact::new(self.key, self.address)
    }
}

/// What a node says of itself, as far as it was heard.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Said {
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<Zone>,
    /// What it takes at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_bytes: Option<u64>,
    /// Which release it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
}

impl Said {
    /// What is known of it.
    pub(crate) fn of(contact: &Contact) -> Said {
        let release = contact.record().map(|record| record.statement().release.clone());
        Said {
            zone: contact.zone().cloned(),
            capacity_bytes: contact.capacity_bytes(),
            release: release.filter(|release| !release.is_empty()),
        }
    }

    /// Where it stands and what it takes, if it says that.
    pub(crate) fn in_words(&self) -> Option<String> {
        let zone = self.zone.as_ref().map(|zone| format!("in zone {zone}"));
        let capacity = self.capacity_bytes.map(|bytes| format!("takes {} at most", human_bytes(bytes)));
        let words: Vec<String> = zone.into_iter().chain(capacity).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// What each node says of itself, as far as this process has heard it, or an earlier one had.
///
/// # Suspends
/// While what was heard earlier is read.
pub(crate) fn said_to(overlay: &overlay::Node) -> BTreeMap<NodeId, Said> {
    let met = overlay.contacts().into_iter().map(|(contact, _)| contact);
    overlay.remembered().into_iter().chain(met).map(|contact| (contact.id, Said::of(&contact))).collect()
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Nodes(Vec<Listed>);

impl Nodes {
    /// Those that this home knows. Blocks.
    ///
    /// # Errors
    /// Those of the home's files.
    pub(crate) fn of(settings: &Settings) -> Result<Nodes, Failure> {
        match &settings.home {
            Some(home) => Nodes::of_home(home, &settings.network),
            None => Ok(Nodes::first(&settings.network)),
        }
    }

    /// Those that a home knows. Blocks.
    ///
    /// # Errors
    /// As [`Nodes::of`].
    pub(crate) fn of_home(home: &Home, network: &Network) -> Result<Nodes, Failure> {
        let mut nodes = Nodes::first(network);
        let joined = Roll::read(home)?.members;
        let joined = joined.iter().filter(|member| member.role == InvitedAs::Node).map(|member| Listed {
            number: member.number,
            key: member.public_key(),
            address: None,
            is_removed: false,
        });
        nodes.0.extend(joined);
        nodes.strike_off(&home.revocations(network)?);
        Ok(nodes)
    }

    /// Those that the network was made with.
    pub(crate) fn first(network: &Network) -> Nodes {
        let nodes = network.nodes.iter().map(|node| Listed {
            number: Some(node.number),
            key: PublicKey::from_bytes(node.public_key.0),
            address: node.address,
            is_removed: false,
        });
        Nodes(nodes.collect())
    }

    /// Those on the list count no more.
    pub(crate) fn strike_off(&mut self, revoked: &Revocations) {
        self.0.iter_mut().for_each(|node| node.is_removed |= revoked.contains(&node.key));
    }

    /// Those that were not removed.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Listed> {
        self.0.iter().filter(|node| !node.is_removed)
    }

    /// The node with this id, removed or not.
    pub(crate) fn get(&self, id: &NodeId) -> Option<&Listed> {
        self.0.iter().find(|node| node.id() == *id)
    }

    /// Nodes by their numbers, or by their ids where they have none here: "nodes 1, 4 and 6".
    pub(crate) fn names(&self, ids: &[NodeId]) -> String {
        let number_of = |id: &NodeId| self.get(id).and_then(|node| node.number);
        let mut nodes: Vec<_> = ids.iter().map(|id| (number_of(id).unwrap_or(u16::MAX), id)).collect();
        nodes.sort();
        let name = |(_, id): &(u16, &NodeId)| match number_of(id) {
            Some(number) => number.to_string(),
            None => id.to_string()[..ID_DIGITS_MIN].to_owned(),
        };
        match &nodes.iter().map(name).collect::<Vec<_>>()[..] {
            [] => "no node".into(),
            [only] => format!("node {only}"),
            [first @ .., last] => format!("nodes {} and {last}", first.join(", ")),
        }
    }

    /// The node that a number or the beginning of an id means; `others` are known by their ids only.
    ///
    /// # Errors
    /// `Failure::NoSuchNode`, or `Failure::SeveralNodes`.
    pub(crate) fn named(&self, others: &[NodeId], name: &str) -> Result<NodeId, Failure> {
        let unknown = || Failure::NoSuchNode { name: name.into() };
        // An id may have digits only, but is never as short.
        if name.len() < ID_DIGITS_MIN {
            let number = name.parse::<u16>().map_err(|_| unknown())?;
            let node = self.0.iter().find(|node| node.number == Some(number));
            return node.map(Listed::id).ok_or_else(unknown);
        }
        let mut ids: Vec<NodeId> = self.0.iter().map(Listed::id).chain(others.iter().copied()).collect();
        ids.retain(|id| id.to_string().starts_with(&name.to_lowercase()));
        ids.sort();
        ids.dedup();
        // Two that begin alike: whoever means one of them says more of it.
        match ids[..] {
            [only] => Ok(only),
            [] => Err(unknown()),
            _ => {
                let ids = ids.iter().map(NodeId::to_string).collect();
                Err(Failure::SeveralNodes { name: name.into(), ids })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Founding;
    use crate::network::{Hex, NodeEntry};
    use crate::roll::LetIn;

    fn nodes() -> Nodes {
        let founding = Founding::new();
        let entry = |number| NodeEntry { number, public_key: founding.node_key().1, address: None };
        Nodes::first(&founding.network((1..=3).map(entry).collect()))
    }

    #[test]
    fn a_node_is_named_by_its_number_or_by_enough_of_its_id() {
        let nodes = nodes();
        let second = nodes.0[1].id();
        let stranger = NodeId([0xab; 32]);
        let find = |name: &str| nodes.named(&[stranger], name).ok();
        assert_eq!(find("2"), Some(second));
        assert_eq!(find(&second.to_string()), Some(second));
        assert_eq!(find("ABABABABAB"), Some(stranger));
        let twins = [NodeId([0xcd; 32]), NodeId([&[0xcd; 31][..], &[0]].concat().try_into().unwrap())];
        assert!(matches!(nodes.named(&twins, "cdcdcdcd"), Err(Failure::SeveralNodes { .. })));
        assert!(matches!(nodes.named(&twins, "cececece"), Err(Failure::NoSuchNode { .. })));
        for wrong in ["4", "abab", "", "node 2", "00000002"] {
            assert_eq!(find(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn who_joined_has_the_number_that_the_owners_roll_gives_it() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let (network, _) = home.open_or_found(Some(2)).unwrap();
        let joins = |key: u8, role, number| LetIn {
            key: Hex([key; 32]),
            sealing_key: Hex([key; 32]),
            name: "ann@laptop".into(),
            role,
            since: 1,
            ticket: Hex([7; 32]),
            number,
            may_be_on_drive: false,
            passport: None,
        };
        Roll::change(&home, |roll| {
            roll.members = vec![joins(1, InvitedAs::Node, Some(3)), joins(2, InvitedAs::Writer, None)];
            Ok(())
        })
        .unwrap();
        let nodes = Nodes::of_home(&home, &network).unwrap();
        let numbers: Vec<_> = nodes.present().filter_map(|node| node.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(nodes.named(&[], "3").ok(), Some(NodeId::of(&PublicKey::from_bytes([1; 32]))));
    }

    #[test]
    fn who_was_removed_keeps_its_number_and_counts_no_more() {
        let mut nodes = nodes();
        let (second, owner) = (nodes.0[1].clone(), reactor::crypto::Identity::from_seed(&[1; 32]));
        let revoked = Revocations::default().with(&owner, [second.key], std::time::SystemTime::now());
        nodes.strike_off(&revoked.unwrap());
        let numbers: Vec<_> = nodes.present().filter_map(|node| node.number).collect();
        assert_eq!(numbers, [1, 3]);
        assert_eq!(nodes.named(&[], "2").ok(), Some(second.id()));
        assert_eq!(
            nodes.names(&[second.id(), nodes.0[0].id(), NodeId([0xab; 32])]),
            "nodes 1, 2 and abababab"
        );
    }
}
