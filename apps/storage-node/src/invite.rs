//! `invite`: a ticket, on standard output and nowhere else.
//!
//! The ticket's secret is drawn, signed for, printed and forgotten: this home remembers the ticket's public key, so that it
//! knows how often the ticket was used, and can take it back. No node hears of a ticket before somebody comes with it.

use std::net::SocketAddr;
use std::time::SystemTime;

use overlay::invitation::{Invitation, InvitedAs};
use overlay::{Contact, Revocations, Ticket};
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
    if is_local {
        output::warn(
            "the nodes listen on this machine only, and so does the ticket: for other machines, run \
             `up --listen IP` first",
        );
    }
    Ok(())
}

/// The nodes whose addresses are known, those that other machines may reach first: those that were met, and then those that
/// the network began with, which may be gone for good.
fn ways_in(home: &Home, network: &Network) -> Vec<Contact> {
    let removed = Revocations::load(&home.revocations_file(), &network.owner_key()).unwrap_or_default();
    let met = home.met().into_iter().filter_map(|met| Some((met.public_key, *met.addresses.first()?)));
    let began = network
        .nodes
        .iter()
        .filter_map(|node| Some((PublicKey::from_bytes(node.public_key.0), node.address?)));
    let mut known: Vec<(PublicKey, SocketAddr)> = Vec::new();
    for (key, address) in met.chain(began) {
        if !removed.contains(&key) && known.iter().all(|(other, _)| *other != key) {
            known.push((key, address));
        }
    }
    known.sort_by_key(|(_, address)| address.ip().is_loopback());
    known.into_iter().map(|(key, address)| Contact::new(key, [address])).collect()
}

#[cfg(test)]
mod tests {
    use overlay::contact::Introduction;
    use overlay::contacts_file;

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
}
