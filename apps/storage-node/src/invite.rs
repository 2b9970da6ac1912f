//! `invite`: a ticket, on standard output and nowhere else.
//!
//! The ticket's secret is drawn, signed for, printed and forgotten: this home remembers the ticket's public key, so that it
//! knows how often the ticket was used, and can take it back. No node hears of a ticket before somebody comes with it.

use std::net::SocketAddr;
use std::time::SystemTime;

use overlay::contact::Introduction;
use overlay::invitation::{Invitation, InvitedAs};
use overlay::ticket::WAYS_MAX;
use overlay::{Contact, Revocations, Ticket, contacts_file};
use reactor::crypto::{Identity, PublicKey};

use crate::admitting;
use crate::cli::Invite;
use crate::errors::Failure;
use crate::home::Home;
use crate::identity;
use crate::network::{Network, VolumeEntry};
use crate::output;
use crate::qr;
use crate::roll::Roll;

/// Runs the command.
///
/// # Errors
/// `Failure::NotTheOwner`, `Failure::NoVolume` or `Failure::NoNode` if there is nothing to invite to, or those of the
/// home's files.
pub(crate) fn invite(options: &Invite) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    let network = home.network()?;
    let owner = identity::owner(&home)?;
    let role = InvitedAs::from(options.role);
    if role != InvitedAs::Node && !matches!(network.volume, VolumeEntry::Created { .. }) {
        return Err(Failure::NoVolume { reason: "there is no drive to invite to" });
    }
    let ways = ways_in(&home, &network);
    if ways.is_empty() {
        return Err(Failure::NoNode { reason: "the network has never been started".into() });
    }
    let is_local = ways.iter().flat_map(|way| &way.addresses).all(|address| address.ip().is_loopback());
    let expires = SystemTime::now().checked_add(options.expires.0);
    let expires = expires.ok_or(Failure::Ticket { reason: "it would never expire".into(), advice: None })?;
    let secret = Identity::generate();
    let invitation = Invitation::sign(&owner, secret.public_key(), role, options.uses, expires);
    // Before anybody can use it: its uses are counted from the first.
    Roll::change(&home, |roll| {
        roll.invited(&invitation, admitting::now());
        Ok(())
    })?;
    let ticket = Ticket::new(secret, invitation, ways).to_string();
    output::print(&format!("{ticket}\n"))?;
    if options.qr {
        output::warn(qr::render(&ticket)?);
    }
    let times = if options.uses == 1 { "once".into() } else { format!("{} times", options.uses) };
    output::warn(format_args!(
        "this lets in a {role}, {times}, within {}: send it as you would send a password\n\
         there: storage-node join -{}, and then the ticket: others on that machine see what is on a command line",
        options.expires,
        if role == InvitedAs::Node { "" } else { " ./drive" },
    ));
    if !home.owner_key_file().exists() {
        output::warn(
            "it is answered while `up` or `mount` of this home runs with --owner FILE, and not before",
        );
    }
    if is_local {
        output::warn(
            "the nodes listen on this machine only, and so does the ticket: for other machines, run \
             `up --listen IP` first",
        );
    }
    Ok(())
}

/// Relays of a ticket: one may be down, and two leave as many places for nodes that anybody may dial.
const RELAYS_TICKETED: usize = WAYS_MAX / 2;

/// Where a newcomer may knock: relays first, since whoever comes from behind a router can dial those and perhaps nobody else;
/// then a node of this home; then whoever was met, and those that the network began with, which may be gone for good. What
/// other machines may reach comes before what only this one can.
pub(crate) fn ways_in(home: &Home, network: &Network) -> Vec<Contact> {
    let removed = Revocations::load(&home.revocations_file(), &network.owner_key()).unwrap_or_default();
    let met = home.met().into_iter().filter_map(|met| Some((met.public_key, *met.addresses.first()?)));
    let began = network
        .nodes
        .iter()
        .filter_map(|node| Some((PublicKey::from_bytes(node.public_key.0), node.address?)));
    let mut known = Known { removed, ways: Vec::new() };
    known.add(relays_met(home, network).into_iter().chain(network.relays()), RELAYS_TICKETED);
    known.add(began.clone(), 1);
    known.add(met.chain(began), usize::MAX);
    known.ways.sort_by_key(|(_, address)| address.ip().is_loopback());
    known.ways.into_iter().map(|(key, address)| Contact::new(key, [address])).collect()
}

/// The ways in so far, each with one address.
struct Known {
    removed: Revocations,
    ways: Vec<(PublicKey, SocketAddr)>,
}

impl Known {
    /// Adds at most `count_max` of those that are members and not among the ways yet.
    fn add(&mut self, ways: impl Iterator<Item = (PublicKey, SocketAddr)>, count_max: usize) {
        let before = self.ways.len();
        for (key, address) in ways {
            let is_new = !self.removed.contains(&key) && self.ways.iter().all(|(other, _)| *other != key);
            if is_new && self.ways.len() - before < count_max {
                self.ways.push((key, address));
            }
        }
    }
}

/// The relays that this home's drive and nodes have met, by their own word.
fn relays_met(home: &Home, network: &Network) -> Vec<(PublicKey, SocketAddr)> {
    let nodes = network.nodes.iter().map(|node| home.node(node.number).contacts_file());
    let files = std::iter::once(home.contacts_file()).chain(nodes);
    // Without them a ticket names the nodes of this home.
    let contacts = files.flat_map(|file| contacts_file::load(&file).unwrap_or_default().contacts);
    let mut met = Vec::new();
    for Introduction { public_key, record, .. } in contacts {
        let said = record.and_then(|said| said.verify(&public_key, &network.owner_key()).ok());
        met.extend(said.and_then(|said| Some((public_key, said.as_relay()?.address))));
    }
    met
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use overlay::record::{NodeRecord, Statement};

    use super::*;

    #[test]
    fn a_ticket_names_who_was_met_though_the_first_nodes_are_gone_and_never_who_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let (mut network, _) = home.open_or_found(Some(3)).unwrap();
        let owner = identity::owner(&home).unwrap();
        network.nodes.iter_mut().for_each(|node| node.address = None);
        assert!(ways_in(&home, &network).is_empty());
        let met = |number: u8, address: [u8; 4]| {
            let key = Identity::from_seed(&[number; 32]).public_key();
            Contact::new(key, [SocketAddr::from((address, 4000))])
        };
        let (here, removed, there) = (met(1, [127, 0, 0, 1]), met(2, [10, 0, 0, 2]), met(3, [10, 0, 0, 3]));
        let all: Vec<Introduction> = [&here, &removed, &there].map(Introduction::from).into();
        contacts_file::save(&home.contacts_file(), &all).unwrap();
        let list = Revocations::default().with(&owner, [removed.public_key], SystemTime::now()).unwrap();
        list.save(&home.revocations_file()).unwrap();
        let keys: Vec<PublicKey> = ways_in(&home, &network).iter().map(|way| way.public_key).collect();
        assert_eq!(keys, [there.public_key, here.public_key]);
    }

    #[test]
    fn a_ticket_names_two_relays_first_and_however_many_there_are_a_node_of_this_home() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let (mut network, _) = home.open_or_found(Some(1)).unwrap();
        network.nodes[0].address = Some(([10, 0, 0, 99], 4000).into());
        let own = PublicKey::from_bytes(network.nodes[0].public_key.0);
        let relay = |number: u8| {
            let identity = Identity::from_seed(&[number; 32]);
            let addresses = [SocketAddr::from(([10, 0, 0, number], 4000))];
            let said = Statement {
                addresses: addresses.into_iter().collect(),
                is_relay: true,
                ..Statement::default()
            };
            let record = NodeRecord::sign(&identity, &network.owner_key(), 1, said);
            Contact::new(identity.public_key(), addresses).with_record(Arc::new(record))
        };
        let relays: Vec<Contact> = (1..=5).map(relay).collect();
        let all: Vec<Introduction> = relays.iter().map(Introduction::from).collect();
        contacts_file::save(&home.contacts_file(), &all).unwrap();
        let keys: Vec<PublicKey> = ways_in(&home, &network).iter().map(|way| way.public_key).collect();
        assert_eq!(keys[..3], [relays[0].public_key, relays[1].public_key, own]);
    }
}
