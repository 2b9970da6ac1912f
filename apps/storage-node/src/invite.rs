//! `invite`: a ticket, on standard output and nowhere else.
//!
//! The ticket's secret is drawn, signed for, printed and forgotten: this home remembers the ticket's public key, so that it
//! knows how often the ticket was used, and can take it back. No node hears of a ticket before somebody comes with it.

use std::net::SocketAddr;
use std::time::SystemTime;

use overlay::invitation::{Invitation, InvitedAs};
use overlay::{Contact, Ticket};
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
    let ways = ways_in(&network);
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

/// The nodes whose addresses are known, those that other machines may reach first.
fn ways_in(network: &Network) -> Vec<Contact> {
    let known = network.nodes.iter().filter_map(|node| Some((node.public_key.0, node.address?)));
    let mut known: Vec<([u8; 32], SocketAddr)> = known.collect();
    known.sort_by_key(|(_, address)| address.ip().is_loopback());
    known.into_iter().map(|(key, address)| Contact::new(PublicKey::from_bytes(key), [address])).collect()
}
