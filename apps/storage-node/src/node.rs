//! One storage node in this process: its store, its place in the overlay, and what it does for others.
//!
//! Here the crates are joined: the store under the DHT's node, the node's methods in one RPC service, the service on
//! the overlay. The lock of the node's home is held for as long as the value lives.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dht::node::Gate;
use dht::repair::{Pace, Repair};
use dht::store::{DiskStore, Incarnation, Store, StoreError};
use overlay::{Config, StartError};
use overlay::{NodeId, Peers, Rights, Role as OverlayRole, Stops};
use reactor::JoinHandle;
use reactor::rpc::Service;

use crate::cli::{DiscoveryOption, MappingOption, NodeSays, Relaying};
use crate::clocks;
use crate::copies;
use crate::errors::Failure;
use crate::home::{Lock, NodeHome};
use crate::identity::Member;
use crate::network::{Hex, NodeSettings, Role, StoreEntry};
use crate::report::{CopySeen, Report, ReportMethod, ReportRefused};
use crate::shelf::Shelf;
use crate::volume::Keepers;

/// A running storage node.
pub(crate) struct StorageNode {
    number: u16,
    overlay: Rc<overlay::Node>,
    storage: Rc<dht::node::Node>,
    store: Rc<dyn Store>,
    /// Catches up with what it missed while it was down.
    repair: dht::repair::Running,
    /// What it keeps for the network's owner.
    shelf: Rc<Shelf>,
    catching_up: JoinHandle<()>,
    _lock: Lock,
}

impl StorageNode {
    /// Starts the node of `home` and joins it to the nodes at `known`, as far as they are up.
    ///
    /// A home that another process has is waited for, for as long as `patience` goes.
    /// If the remembered port is taken, another is used and remembered; a port that was asked for is a must. What it is to say
    /// of itself is remembered too.
    ///
    /// # Errors
    /// `Failure::Locked` if it runs already, `Failure::Twin` if a copy of its home does, `Failure::Copied` if it stopped for one, `Failure::Listen`, `Failure::Store`, or those of its files.
    ///
    /// # Suspends
    /// Until it serves.
    pub(crate) fn start(
        home: &NodeHome,
        listen: Option<SocketAddr>,
        says: &NodeSays,
        known: &[SocketAddr],
        patience: Duration,
        accept_copy: bool,
    ) -> Result<Self, Failure> {
        let lock = take_lock(home, patience)?;
        if accept_copy {
            copies::accept(home)?;
        }
        let network = home.network()?;
        let mut settings = home.settings()?;
        settings.take(says);
        let member = Member::load(&home.key_file(), Role::Node)?;
        let store = open_store(&home.store_directory(), settings.capacity_bytes)?;
        recognise(&mut settings, &store.incarnation());
        // Before anyone is served: what is forgotten stays known, however this run ends.
        home.save_settings(&settings)?;
        let own = member.identity.public_key();
        let peers = Peers::new();
        let replicas = usize::from(network.replicas);
        let gate = Gate::Passports(peers.clone());
        let storage = dht::node::Node::new(NodeId::of(&own), store.clone(), gate, replicas);
        if settings.has_forgotten {
            tracing::warn!(
                node = settings.number,
                "a store was lost: registers are learned from the other nodes"
            );
            storage.set_amnesiac();
        }

        let remembered: Vec<SocketAddr> = network
            .nodes
            .iter()
            .filter(|node| node.public_key.0 != *own.as_bytes())
            .filter_map(|node| node.address)
            .chain(network.relays.iter().map(|relay| relay.address))
            .collect();
        let mut ways: Vec<SocketAddr> = known.iter().copied().chain(remembered).collect();
        ways.retain(|address| *address != settings.listen);
        ways.sort();
        ways.dedup();

        let place: Rc<OnceCell<Weak<overlay::Node>>> = Rc::default();
        let listen_was_found = settings.listen_was_found && listen.is_none();
        let shelf = Shelf::open(home.keepsake_file(), network.owner_key());
        let join = |address| {
            let mut service = Service::new();
            storage.serve(&mut service);
            shelf.serve(&mut service, &peers);
            serve_reports(&mut service, &storage, &peers, settings.has_forgotten, &place);
            let config = Config {
                identity: (*member.identity).clone(),
                network: network.owner_key(),
                passport: member.passport.clone(),
                role: OverlayRole::Storage,
                listen: Some(address),
                bootstrap: ways.iter().copied().map(Into::into).collect(),
                contacts_file: Some(home.contacts_file()),
                revocations_file: Some(home.revocations_file()),
                renewals_file: Some(home.renewals_file()),
                statement: settings.statement(),
                record_file: Some(home.record_file()),
                peers: peers.clone(),
            };
            match listen_was_found {
                true => overlay::Node::start_unbound(config, service),
                false => overlay::Node::start(config, service),
            }
        };
        let overlay = match join(listen.unwrap_or(settings.listen)) {
            Err(StartError::Listen { address, source })
                if listen.is_none()
                    && address.port() != 0
                    && source.kind() == std::io::ErrorKind::AddrInUse =>
            {
                tracing::warn!(%address, "the port is taken: using another");
                join(SocketAddr::new(address.ip(), 0))
            }
            other => other,
        }
        .map_err(|error| match error {
            StartError::Listen { address, source } => Failure::Listen { address, source },
            StartError::Twin { address } => {
                Failure::Twin { number: Some(settings.number), address: Some(address) }
            }
            StartError::Stopped { address } => Failure::Copied { number: Some(settings.number), address },
            StartError::Record { path, source } => Failure::NodeRecord { path, source },
            other => Failure::Internal(other.to_string()),
        })?;
        let _ = place.set(Rc::downgrade(&overlay));
        overlay.set_founding_nodes(network.founding_nodes());
        let repair = Repair::new(overlay.clone(), storage.clone(), Pace::default()).start();
        let catching_up = shelf.catch_up(&overlay);
        let node = StorageNode {
            number: settings.number,
            overlay,
            storage,
            store,
            repair,
            shelf,
            catching_up,
            _lock: lock,
        };
        if (node.address(), listen_was_found) != (settings.listen, settings.listen_was_found) {
            home.save_settings(&NodeSettings { listen: node.address(), listen_was_found, ..settings })?;
        }
        Ok(node)
    }

    /// Its number in the home that made it.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.overlay.listen_address().expect("a storage node listens")
    }

    /// Has it relay for the members of the network, if it is to; says whether it does.
    ///
    /// # Errors
    /// `Failure::Relay` if it can't.
    ///
    /// # Suspends
    /// Until its record says so.
    pub(crate) fn relay(&self, when: Relaying) -> Result<bool, Failure> {
        if !when.at(self.address().ip()) {
            return Ok(false);
        }
        match self.overlay.relay() {
            Ok(()) => Ok(true),
            // Nobody asked for it, and it serves as well without.
            Err(error) if when == Relaying::Auto => {
                tracing::warn!(%error, "this node does not relay");
                Ok(false)
            }
            Err(error) => Err(Failure::Relay { reason: error.to_string() }),
        }
    }

    /// Has members in this machine's network found, and this node by them, if that may be. Never suspends.
    pub(crate) fn discover(&self, discovery: DiscoveryOption) {
        if discovery.is_on() {
            self.overlay.discover();
        }
    }

    /// Has the router let members in, if it may be asked. Never suspends.
    pub(crate) fn map_ports(&self, mapping: MappingOption) {
        if mapping.is_on() {
            self.overlay.map_ports();
        }
    }

    /// Its place in the overlay.
    pub(crate) fn overlay(&self) -> &Rc<overlay::Node> {
        &self.overlay
    }

    /// What it does for others.
    pub(crate) fn storage(&self) -> &Rc<dht::node::Node> {
        &self.storage
    }

    /// What it keeps for the network's owner.
    pub(crate) fn shelf(&self) -> &Rc<Shelf> {
        &self.shelf
    }

    /// Waits until `count` nodes, itself among them, know each other; fewer will do as long as a quorum of the
    /// `keepers` of the volume's root is among them. Others, however many, know nothing of it.
    ///
    /// # Errors
    /// `Failure::NoNode` if too few have been met after `limit`.
    ///
    /// # Suspends
    /// Until then.
    pub(crate) fn wait_for_nodes(
        &self,
        count: usize,
        keepers: &Keepers,
        limit: Duration,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            let contacts = self.overlay.contacts();
            let mut live: Vec<NodeId> =
                contacts.iter().filter(|(_, is_live)| *is_live).map(|(contact, _)| contact.id).collect();
            live.push(self.storage.own());
            if live.len() >= count {
                return Ok(());
            }
            if started.elapsed() > limit {
                let (here, needed) = (keepers.count_among(&live), keepers.needed());
                if here >= needed {
                    tracing::warn!(live = live.len(), count, "going on with those nodes that are there");
                    return Ok(());
                }
                return Err(Failure::NoNode {
                    reason: format!(
                        "only {} of {count} have met after {limit:?}, and {needed} of {keepers} must be among them",
                        live.len()
                    ),
                });
            }
            reactor::sleep(Duration::from_millis(10));
        }
    }

    /// Stops serving, and closes the store with everything on disk.
    ///
    /// # Suspends
    /// Until then.
    pub(crate) fn stop(self) {
        drop(self.repair);
        self.catching_up.terminate();
        self.overlay.stop();
        if let Err(error) = self.store.close() {
            tracing::error!(node = self.number, %error, "the store was not closed cleanly; it will recover");
        }
    }
}

pub(crate) fn take_lock(home: &NodeHome, patience: Duration) -> Result<Lock, Failure> {
    let until = Instant::now() + patience;
    loop {
        match home.lock() {
            Err(Failure::Locked { .. }) if Instant::now() < until => {
                reactor::sleep(Duration::from_millis(20))
            }
            other => return other,
        }
    }
}

fn open_store(path: &Path, capacity_bytes: Option<u64>) -> Result<Rc<dyn Store>, Failure> {
    match DiskStore::open(dht::store::Config { capacity_bytes, ..dht::store::Config::new(path) }) {
        Ok(store) => Ok(Rc::new(store)),
        Err(StoreError::Full) => Err(Failure::DiskFull { place: format!("the store {}", path.display()) }),
        Err(error) => Err(Failure::Store { path: path.into(), reason: error.to_string() }),
    }
}

/// Compares the store with the one that the node had last, and remembers it.
fn recognise(settings: &mut NodeSettings, found: &Incarnation) {
    let had = settings.store.as_ref();
    let earlier = had.map(|had| Incarnation { id: had.id.0, opened_count: had.opened_count });
    if let Some(earlier) = earlier.filter(|earlier| !found.follows(earlier)) {
        settings.has_forgotten = true;
        tracing::error!(
            node = settings.number,
            had = %earlier,
            %found,
            "this is not the store that the node had: it was replaced, or put back from a copy, and what the node had \
             promised is gone; put the right one back if there is one"
        );
    }
    settings.store = Some(StoreEntry { id: Hex(found.id), opened_count: found.opened_count });
}

/// Answers `status`. Whoever may read may ask.
fn serve_reports(
    service: &mut Service,
    storage: &Rc<dht::node::Node>,
    peers: &Peers,
    has_forgotten: bool,
    place: &Rc<OnceCell<Weak<overlay::Node>>>,
) {
    let (storage, peers, place) = (storage.clone(), peers.clone(), place.clone());
    let started = Instant::now();
    let needed = Rights { read: true, ..Rights::default() };
    service.on::<ReportMethod>(move |context, (), _| {
        peers.check(context.peer.as_ref(), needed).map_err(|error| ReportRefused(error.to_string()))?;
        // Whoever wants to know how it is now asks once more.
        storage.compare_soon();
        let usage = storage.usage();
        let report = Report {
            version: env!("CARGO_PKG_VERSION").into(),
            process: std::process::id(),
            uptime_s: started.elapsed().as_secs(),
            blocks: usage.block_count,
            served: storage.served_count(),
            used_bytes: usage.used_bytes,
            total_bytes: usage.total_bytes,
            peers: peers.count() as u32,
            failure: storage.store().failure().map(|error| error.to_string()),
            damaged_count: storage.store().usage().damaged_count,
            has_forgotten,
            caught_up_with: storage.caught_up_with().iter().map(|id| Hex(id.0)).collect(),
            own_copies: Some(storage.own_copies().into()),
            retention_seconds: storage.retention().map(|(seconds, _)| seconds).ok(),
            kept_deleted_bytes: storage.held_bytes(),
            clock_ms: Some(clocks::now_ms()),
            clock_ahead_s: None,
            copy: place.get().and_then(Weak::upgrade).and_then(|overlay| overlay.twin()).map(|twin| {
                CopySeen {
                    address: twin.address,
                    found_s_ago: twin.found.elapsed().unwrap_or_default().as_secs(),
                    goes_on: twin.stops == Stops::Nobody,
                    is_lawless: twin.is_lawless,
                }
            }),
        };
        Ok((report, Bytes::new()))
    });
}
