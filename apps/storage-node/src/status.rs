//! `status`: which nodes answer, what they hold, and whether the network is healthy.
//!
//! It asks each node that the network's description lists, each that was let in since, as the nodes that answer tell, and each that
//! those know, over an ordinary client connection: what it shows is what a user can reach, not what a process table says. Whoever keeps
//! the drive's root and is none of these counts as one that does not answer. Whom the owner removed counts no more; and if that
//! leaves fewer nodes than copies, the missing ones count as dead. What a node says of itself is shown where somebody has heard
//! it, also of one that does not answer. The JSON's fields are only ever added to.

mod advice;
mod asking;
mod health;
mod overview;
mod render;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use overlay::message::Revoked;
use overlay::{Contact, How, Node, NodeId, Overlay};

use crate::cache::CacheStatus;
use crate::cli::Status;
use crate::client::{self, Client, Settings};
use crate::errors::Failure;
use crate::network::Network;
use crate::nodes::Nodes;
use crate::output;
use crate::owner::OwnerAway;
use crate::process;
use crate::remove::on_each;
use crate::volume;
use advice::advice;
use asking::reports_of_now;
use health::Health;
use overview::{CatchingUp, InOneZone, NodeStatus, Overview, overview, root_status};
use render::render;

/// A node that takes longer is as good as down for whoever waits for a file.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// Those of the settings' files; and `Failure::Unhealthy` once everything is printed, since a program that asks wants to
/// know by the exit status.
pub(crate) fn status(options: &Status) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let mut overview = process::run(|| ask(&settings))?;
    overview.cache = settings.clients.as_deref().and_then(CacheStatus::of);
    overview.owner_away = settings.home.as_ref().and_then(|home| OwnerAway::of(home, &settings.network));
    match options.json {
        true => output::print_json(&overview)?,
        false => output::print(&render(&overview))?,
    }
    let health = match overview.health {
        Health::Healthy => return Ok(()),
        Health::Degraded => "degraded",
        Health::Full => "full",
        Health::Down => "down",
    };
    Err(Failure::Unhealthy { health, advice: advice(&overview) })
}

fn ask(settings: &Settings) -> Result<Overview, Failure> {
    let network = &settings.network;
    let mut nodes = Nodes::of(settings)?;
    let mut keepers = volume::keepers(network, settings.seen_directory().as_deref())?;
    let client = match Client::connect(settings) {
        Ok(client) => client,
        Err(Failure::NoNode { reason }) => {
            let known = known(&nodes, &[]);
            let answers =
                known.into_iter().map(|(number, contact)| (number, contact, Err(reason.clone()))).collect();
            let mut overview = overview(network, answers, root_status(&keepers, &nodes));
            // Nobody who answers tells.
            overview.knows_all_nodes = false;
            return Ok(overview);
        }
        Err(other) => return Err(other),
    };
    let overlay = client.overlay();
    let met: Vec<Contact> = overlay.contacts().into_iter().map(|(contact, _)| contact).collect();
    let members = overlay.members();
    let knows_all_nodes = members.is_some();
    let contacts: Vec<Contact> = members.into_iter().flatten().chain(met).collect();
    // Where those stand that are away, who met them earlier knows.
    let remembered: Vec<Contact> = overlay.remembered();
    strike_off_removed(&mut nodes, network, overlay, &contacts);
    let mut known = known(&nodes, &contacts);
    for (_, contact) in &mut known {
        let record = remembered.iter().find(|old| old.id == contact.id).and_then(|old| old.record().cloned());
        *contact = record.into_iter().fold(contact.clone(), Contact::with_record);
    }
    let asked: Vec<Contact> = known.iter().map(|(_, contact)| contact.clone()).collect();
    let answers = known.into_iter().zip(reports_of_now(overlay, &asked));
    let answers = answers.map(|((number, contact), report)| (number, contact, report)).collect();
    let how = |contact: &Contact| Some((contact.id, overlay.peers().how(&contact.public_key)?));
    let reached: BTreeMap<NodeId, How> = asked.iter().filter_map(how).collect();
    keepers.follow(&client.block_store(), ANSWER_LIMIT);
    client.leave();
    let mut overview = overview(network, answers, root_status(&keepers, &nodes));
    overview.knows_all_nodes = knows_all_nodes;
    overview.older_than_seen = keepers.older();
    if overview.older_than_seen.is_some() {
        overview.health = Health::Down;
    }
    let has_copies = overview.nodes.iter().any(NodeStatus::has_a_copy);
    if (!knows_all_nodes || has_copies) && overview.health == Health::Healthy {
        overview.health = Health::Degraded;
    }
    for node in overview.nodes.iter_mut().filter(|node| node.answers) {
        node.reached = reached.get(&NodeId(node.id.0)).copied();
    }
    Ok(overview)
}

/// Whom the owner removed, the nodes know at once, and this home perhaps not.
fn strike_off_removed(nodes: &mut Nodes, network: &Network, overlay: &Node, contacts: &[Contact]) {
    let lists = on_each(overlay, contacts, |overlay, contact| {
        overlay.call::<Revoked>(contact, &(), Bytes::new(), ANSWER_LIMIT).ok()
    });
    for (list, _) in lists.into_iter().flatten().flatten() {
        if list.verify(&network.owner_key()).is_ok() {
            nodes.strike_off(&list);
        }
    }
}

/// The nodes of the description, those let in since, and those met, each once; where several know an address, the met one
/// counts. Whoever was removed is none of them.
fn known(nodes: &Nodes, met: &[Contact]) -> Vec<(Option<u16>, Contact)> {
    let mut known: BTreeMap<NodeId, (Option<u16>, Contact)> =
        nodes.present().map(|node| (node.id(), (node.number, node.contact()))).collect();
    for contact in met.iter().filter(|met| nodes.get(&met.id).is_none_or(|node| !node.is_removed)) {
        known.entry(contact.id).or_insert((None, contact.clone())).1 = contact.clone();
    }
    let mut known: Vec<_> = known.into_values().collect();
    known.sort_by_key(|(number, contact)| (number.unwrap_or(u16::MAX), contact.id));
    known
}
