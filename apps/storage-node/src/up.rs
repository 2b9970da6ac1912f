//! `up`: nodes on this machine and a drive on them, in one go.
//!
//! Node 1 lives in this process, together with the drive: what the drive stores on it crosses no socket. The others
//! are processes of their own, so that killing one is killing a node. All is undone in reverse at the end: the drive
//! is flushed and unmounted while every node still runs, then the children leave, then node 1.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use filesystem::volume::Volume;
use overlay::Node;

use crate::admitting::Admitting;
use crate::cache::{Cache, Plan, Usual};
use crate::children::{Supervised, describe_node};
use crate::cli::{ListenAt, NodeSays, Up};
use crate::client::{self, Client};
use crate::client_directory::{self, ClientDirectory};
use crate::copies;
use crate::drive::{self, Place};
use crate::errors::Failure;
use crate::home::Home;
use crate::identity::Member;
use crate::mountpoint;
use crate::network::{Network, Role};
use crate::node::{self, StorageNode};
use crate::nodes::Nodes;
use crate::output::say;
use crate::owner::OwnerAway;
use crate::process;
use crate::progress;
use crate::replacing::Replacing;
use crate::replacing_spaces::ReplacingSpaces;
use crate::retention;
use crate::run::{PREDECESSOR_LIMIT, RELAYS};
use crate::seen::Seen;
use crate::spaces::{self, Spaces};
use crate::stop::Stop;
use crate::volume::{self, Keep, Opening};

/// How long the nodes may take to find each other; on loopback it is milliseconds.
const MEET_LIMIT: Duration = Duration::from_secs(30);

/// A node of a large network knows its neighbours, and not everybody: it is never waited for more than one bucket's
/// worth of them.
const ENOUGH_NODES: usize = overlay::K;

/// Runs the command.
///
/// # Errors
/// What keeps the drive from being usable; what was started is stopped again.
pub(crate) fn up(options: &Up) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    // Before the lock, which a process that was killed and hangs still has.
    mountpoint::free_of_killed(&options.drive)?;
    let _lock = home.lock()?;
    let mountpoint = mountpoint::prepare(&options.drive)?;
    if home.path().starts_with(&mountpoint) {
        return Err(Failure::Mountpoint { path: mountpoint, reason: "the home is inside it".into() });
    }
    home.refuse_without_nodes()?;
    let (network, is_new) = home.open_or_found(options.nodes)?;
    if let Some(span) = options.retention {
        if !is_new {
            let reason = format!(
                "{} is the home of a network that is there already, and what it keeps for how long is not said at a start",
                home.path().display()
            );
            return Err(Failure::Retention { reason });
        }
        retention::say_first(&home, &network, span)?;
    }
    // Those that were not removed.
    let ours = ours(&home, &network)?;
    let nodes = if ours.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", ours.len()) };
    if is_new {
        say(format_args!(
            "made a new network of {nodes} in {} (it holds your keys: back it up)",
            home.path().display()
        ));
    } else {
        say(format_args!("found the network of {nodes} in {}", home.path().display()));
    }
    if let Some(away) = OwnerAway::of(&home, &network) {
        say(away.in_words());
    }
    let directory = ClientDirectory::take_in(home.path())?;
    let plan = Plan::make(home.path(), Some(directory.path()), options.cache, Usual::None)?;
    let (keep, accept_rollback) = (Keep::of(options.write_back), options.accept_rollback);
    let owners = options.owners.of_mount();
    let (allow_other, grace, when) = (options.allow_other, options.replace_after, options.relay.when);
    let (mapping, discovery) = (options.mapping, options.discovery);
    let (listen, says, accept_copy) = (options.listen, options.says.clone(), options.accept_copy);
    process::run(move || {
        let stop = Stop::on_signals()?;
        if let Some(listen) = listen {
            // What this machine does not have is not remembered, or every later start would fail; nor what was not looked at.
            match stop.unless_open(|| refuse_unless_free(&home, &ours, listen)) {
                Some(looked) => looked?,
                None => return Ok(()),
            }
        }
        home.settle_nodes(&ours, listen, &says)?;
        // A port that was asked for is taken, or none.
        let asked =
            |number| listen.filter(|listen| listen.has_port()).map(|listen| listen.of(number)).transpose();
        let cache = plan.open(&Member::load(&home.user_key_file(), Role::User)?);
        let first = start_first(&home, &network, &ours, asked(1)?, accept_copy)?;
        let relays = match first.as_ref().map_or(Ok(false), |first| first.relay(when)) {
            Ok(relays) => relays,
            Err(failure) => {
                first.into_iter().for_each(StorageNode::stop);
                return Err(failure);
            }
        };
        if let Some(first) = &first {
            first.map_ports(mapping);
            first.discover(discovery);
            client::renew_members(&home, &network, first.overlay());
        }
        let mut known = network.addresses();
        known.extend(first.as_ref().map(StorageNode::address));
        // The first is a process as well if it can't start in this one: there it is tried until it can.
        let start = |number: u16| {
            // It was looked whether there is one.
            let listen = asked(number).ok().flatten();
            // Each time that it is started from here: the owner has said it of this `up`, and not of its first minutes.
            let accept = accept_copy.then_some("--accept-copy");
            let options = [mapping.as_argument(), discovery.as_argument(), accept];
            Supervised::start(number, home.node(number), known.clone(), listen, options, &stop)
        };
        let others =
            ours.iter().filter(|number| first.as_ref().is_none_or(|first| first.number() != **number));
        let children: Vec<Supervised> = others.map(|number| start(*number)).collect();
        let of_copies = first.as_ref().map(|first| copies::watch(first, &stop));
        let opening = Opening {
            directory: &directory,
            seen_directory: Some(&client_directory::first(home.path())),
            keep,
            accept_rollback,
            cache: cache.as_deref(),
            is_removed: false,
        };
        let source = network.mark();
        let volume = stop.unless_open(|| prepare(&home, network, first.as_ref(), &children, &opening));
        let result = match volume {
            Some(Ok(Prepared { volume, seen, nodes, admitting, client, copies, spaces, store })) => {
                opening.cache.iter().for_each(|cache| cache.tell_of(&volume));
                let of_spaces = ReplacingSpaces::start(&home, &store, &nodes, grace);
                let what = "the drive's root".to_owned();
                let replacing = seen.as_ref().and_then(|seen| Replacing::start(seen, what, nodes, grace));
                let spaces = Some(spaces);
                let place = Place { mountpoint: &mountpoint, source, allow_other, owners, spaces };
                let result = drive::serve(volume, directory.path(), &place, &stop, || {
                    announce(&mountpoint, &copies);
                    if relays {
                        say(RELAYS);
                    }
                });
                replacing.into_iter().for_each(Replacing::stop);
                of_spaces.stop();
                drop(admitting);
                opening.cache.into_iter().for_each(Cache::close);
                drop(seen);
                client.into_iter().for_each(Client::leave);
                result
            }
            Some(Err(failure)) => Err(failure),
            None => Ok(()),
        };
        drop(of_copies);
        let copied = copied(first.as_ref(), &children);
        let spinner = progress::spinner("stopping the nodes");
        children.iter().for_each(Supervised::ask_to_stop);
        children.into_iter().for_each(Supervised::stopped);
        first.into_iter().for_each(StorageNode::stop);
        spinner.finish_and_clear();
        match (result, copied) {
            (result, None) => {
                if result.is_ok() {
                    say("everything is stored, and the nodes have stopped");
                }
                result
            }
            (result, Some(copied)) => {
                result.err().into_iter().for_each(|failure| say(format_args!("{failure}")));
                Err(copied)
            }
        }
    })
}

/// The numbers of the nodes that the network was made with, and that are still of it.
fn ours(home: &Home, network: &Network) -> Result<Vec<u16>, Failure> {
    let mut nodes = Nodes::first(network);
    nodes.strike_off(&home.revocations(network)?);
    Ok(nodes.present().filter_map(|node| node.number).collect())
}

/// Refuses to have the nodes that are here listen where none could. Those of an earlier run that are about to leave are waited
/// for.
fn refuse_unless_free(home: &Home, ours: &[u16], listen: ListenAt) -> Result<(), Failure> {
    for number in ours {
        let (node, address) = (home.node(*number), listen.of(*number)?);
        if !node.is_here() {
            continue; // Moved to another machine.
        }
        let _lock = listen.has_port().then(|| node::take_lock(&node, PREDECESSOR_LIMIT)).transpose()?;
        TcpListener::bind(address).map_err(|source| Failure::Listen { address, source })?;
    }
    Ok(())
}

/// That a copy of the home serves, if one was found.
fn copied(first: Option<&StorageNode>, children: &[Supervised]) -> Option<Failure> {
    let of_child = children.iter().find(|child| child.was_copied_as_it_served());
    let of_child = of_child.map(|child| Failure::Twin { number: Some(child.number()), address: None });
    first.and_then(|first| copies::refuse(first).err()).or(of_child)
}

/// Starts node 1 in this process. `None` if it can't be, and others may do without it, or if it was removed.
fn start_first(
    home: &Home,
    network: &Network,
    ours: &[u16],
    listen: Option<SocketAddr>,
    accept_copy: bool,
) -> Result<Option<StorageNode>, Failure> {
    if !ours.contains(&1) {
        return Ok(None);
    }
    let (says, known) = (NodeSays::default(), network.addresses());
    match StorageNode::start(&home.node(1), listen, &says, &known, Duration::ZERO, accept_copy) {
        Ok(node) => Ok(Some(node)),
        Err(failure) if network.nodes.len() == 1 => Err(failure),
        // What is begun with a copy of the home is lost to the one or the other.
        Err(failure @ (Failure::Twin { .. } | Failure::Copied { .. })) => Err(failure),
        Err(failure) => {
            say(format_args!("node 1 did not start: {failure}; going on without it, and trying it again"));
            Ok(None)
        }
    }
}

/// What the drive needs.
struct Prepared {
    volume: Rc<Volume>,
    seen: Option<Seen>,
    nodes: Nodes,
    admitting: Option<Admitting>,
    /// How the nodes are reached where none is in this process.
    client: Option<Client>,
    copies: String,
    spaces: Rc<Spaces>,
    store: dht::Client<Rc<Node>>,
}

/// Waits until every node that can start is up, and the volume is open.
fn prepare(
    home: &Home,
    mut network: Network,
    first: Option<&StorageNode>,
    children: &[Supervised],
    opening: &Opening<'_>,
) -> Result<Prepared, Failure> {
    let spinner = progress::spinner("starting the nodes");
    let mut addresses = BTreeMap::new();
    let (mut lines, mut missing) = (Vec::new(), Vec::new());
    if let Some(first) = first {
        addresses.insert(1, first.address());
        lines.push(format!("  node 1  {}  in this process", first.address()));
    }
    for child in children {
        match child.wait_ready() {
            Ok((address, pid)) => {
                addresses.insert(child.number(), address);
                lines.push(describe_node(child.number(), address, pid));
            }
            Err(failure) => {
                missing.push(child.number());
                let how = if child.is_copied() { "" } else { ", and trying it again" };
                say(format_args!("{failure}\ngoing on without it{how}"));
            }
        }
    }
    remember(home, &mut network, &addresses)?;
    lines.into_iter().for_each(say);
    spinner.set_message("opening the volume");
    let user = Member::load(&home.user_key_file(), Role::User)?;
    let (client, overlay, storage) = match first {
        Some(first) => {
            let enough = addresses.len().min(ENOUGH_NODES);
            let keepers = volume::keepers(&network, Some(&client_directory::first(home.path())))?;
            first.wait_for_nodes(enough, &keepers, MEET_LIMIT)?;
            (None, first.overlay().clone(), Some(first.storage().clone()))
        }
        None => {
            let client = Client::connect(&client::Settings::of_home(home, network.clone()))?;
            let overlay = client.overlay().clone();
            (Some(client), overlay, None)
        }
    };
    let store = client::block_store(overlay.clone(), storage, &network, &user);
    volume::found(&store, home, &mut network, &user)?;
    let (volume, seen) = volume::open(&store, &network, &user, opening)?;
    volume::put_in_what_is_left(&store, &network, &user, home.path(), &overlay);
    let spaces = Rc::new(Spaces {
        overlay: overlay.clone(),
        local: first.map(|first| first.storage().clone()),
        network: network.clone(),
        user: user.clone(),
        directory: opening.directory.path().to_owned(),
        seen_directory: opening.seen_directory.map(Path::to_owned),
        keep: opening.keep,
        accept_rollback: opening.accept_rollback,
        // Its nodes are on this disk.
        cache: None,
        state: spaces::State::default(),
    });
    let shelf = first.map(|first| first.shelf().clone());
    let admitting = Admitting::start(home, &network, &overlay, &store, shelf)?;
    let nodes = Nodes::of_home(home, &network)?;
    let copies = copies(&network, &missing, nodes.present().count() > addresses.len() + missing.len());
    spinner.finish_and_clear();
    Ok(Prepared { volume, seen, nodes, admitting, client, copies, spaces, store })
}

fn announce(mountpoint: &Path, copies: &str) {
    say(format_args!("the drive is {}  ({copies})", mountpoint.display()));
    say(format_args!(
        "Ctrl-C here, or `storage-node umount {}` elsewhere, stores everything, unmounts and stops the nodes;\n\
         the same command brings the files back",
        mountpoint.display()
    ));
}

/// Writes down where nodes listen, if that has changed.
fn remember(
    home: &Home,
    network: &mut Network,
    addresses: &BTreeMap<u16, SocketAddr>,
) -> Result<(), Failure> {
    let mut is_changed = false;
    for node in &mut network.nodes {
        let Some(&address) = addresses.get(&node.number) else { continue };
        if let Some(before) = node.address
            && before.ip() == address.ip()
            && before != address
        {
            say(format_args!(
                "  (port {} is taken by something else: node {} has moved)",
                before.port(),
                node.number
            ));
        }
        is_changed |= node.address.replace(address) != Some(address);
    }
    if is_changed { home.save_network(network) } else { Ok(()) }
}

/// What may be said of a network some of whose nodes may be missing, or run elsewhere.
fn copies(network: &Network, missing: &[u16], others_joined: bool) -> String {
    let copies = network.replicas;
    match (copies, missing) {
        (1, []) => {
            "1 copy of each block; a network that is made with --nodes 3 survives the death of a node".into()
        }
        (1, _) => "1 copy of each block; what a node has that is not there can't be read".into(),
        (_, [_, ..]) => {
            let missing: Vec<String> = missing.iter().map(u16::to_string).collect();
            let missing = missing.join(", ");
            format!(
                "{copies} copies of each block; not there: node {missing}; `storage-node status` says more"
            )
        }
        // With fewer nodes than copies, some have been removed.
        _ if others_joined || network.nodes.len() < usize::from(copies) => {
            format!("{copies} copies of each block; `storage-node status` says whether a node may die")
        }
        (2, _) => "2 copies of each block; reading survives the death of a node, writing takes both".into(),
        _ => format!("{copies} copies of each block; any one node may die"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_fewer_nodes_than_copies_no_death_is_promised_to_be_survived() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let (mut network, _) = home.open_or_found(Some(3)).unwrap();
        assert!(copies(&network, &[], false).contains("any one node may die"));
        network.nodes.pop();
        assert!(copies(&network, &[], false).contains("`storage-node status`"));
    }

    #[test]
    fn a_changed_address_is_written_down_in_every_nodes_home() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let (mut network, _) = home.open_or_found(Some(2)).unwrap();
        let addresses: BTreeMap<u16, SocketAddr> =
            [(1, "127.0.0.1:1001".parse().unwrap()), (2, "127.0.0.1:1002".parse().unwrap())].into();
        let expected: Vec<SocketAddr> = addresses.values().copied().collect();
        remember(&home, &mut network, &addresses).unwrap();
        assert_eq!(home.network().unwrap().addresses(), expected);
        assert_eq!(home.node(2).network().unwrap().addresses(), expected);
        // A node that did not start keeps the one it had.
        let moved = [(2, "127.0.0.1:1003".parse().unwrap())].into();
        remember(&home, &mut network, &moved).unwrap();
        assert_eq!(home.network().unwrap().addresses(), [expected[0], moved[&2]]);
    }
}
