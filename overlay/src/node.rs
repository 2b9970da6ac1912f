//! The real overlay node: a listener, connections to others, and the upkeep of what it knows of them.
//!
//! A `Node` is started, used through [`Overlay`], and stopped. Its background coroutines share the node's state and
//! end with it: [`Node::stop`] waits for that, dropping the node only begins it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::{Identity, PublicKey};
use reactor::nat::mapping::{Mapping, Port, Why};
use reactor::net::{BindOptions, TcpListener};
use reactor::rpc::{CallError, Method, Service};

use crate::admission::Credentials;
use crate::contact::Contact;
use crate::contacts_file;
use crate::discovery;
use crate::invitation::{Letter, Reply};
use crate::join::{self, Bootstrap, JoinError};
use crate::k_bucket::{FAILURES_TO_EVICT, K};
use crate::life::Life;
use crate::listener;
use crate::lookup::{Found, lookup};
use crate::members;
use crate::message::{CONTACTS_MAX, RenewRefused, RevokeRefused};
use crate::node_id::NodeId;
use crate::passport::{Passport, PassportError};
use crate::peers::{Peers, Role};
use crate::port_mapping;
use crate::record::{NodeRecord, Statement};
use crate::records::Records;
use crate::relaying::{self, RelayError, Relaying};
use crate::renewal::Renewals;
use crate::renewing;
use crate::revocation::Revocations;
use crate::revoking;
use crate::state::{Live, State};
use crate::stating::{self, Last};
use crate::twin::{self, Twin};
use crate::upkeep::{self, Upkeep};
use crate::watch::Watch;
use crate::{Overlay, Rights};

/// What a node is started with.
pub struct Config {
    /// Our key pair.
    pub identity: Identity,
    /// The network's owner, whose signature opens it.
    pub network: PublicKey,
    /// What lets us in.
    pub passport: Passport,
    /// Whether we hold blocks for others.
    pub role: Role,
    /// Where to listen; port 0 takes a free one. A client listens nowhere.
    pub listen: Option<SocketAddr>,
    /// Ways into the network; empty for its first node.
    pub bootstrap: Vec<Bootstrap>,
    /// Where contacts are remembered between runs.
    pub contacts_file: Option<PathBuf>,
    /// Where the list of the revoked is; a client reads it, a storage node keeps the newest there.
    pub revocations_file: Option<PathBuf>,
    /// Where renewed passports are kept: everybody's by a storage node, its own by a client.
    pub renewals_file: Option<PathBuf>,
    /// What a storage node says of itself; where it listens is added.
    pub statement: Statement,
    /// Where that is kept, so that what the next run says is newer.
    pub record_file: Option<PathBuf>,
    /// The book of connected peers, which the service's handlers ask for their callers' rights.
    pub peers: Peers,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address is not ours, or taken.
    #[error("can't listen at {address}: {source}; choose another address or port")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// How it failed.
        source: io::Error,
    },
    /// Another process serves with this node's key.
    #[error("another process serves with this node's key at {address}: stop one of them")]
    Twin {
        /// Where.
        address: SocketAddr,
    },
    /// This node had stopped because another process serves with its key, and nobody has said since that it is to go on
    /// ([`accept_copy`](crate::accept_copy)).
    #[error("another process was found that serves with this node's key, and this one stopped for it")]
    Stopped {
        /// Where the other said that it was.
        address: Option<SocketAddr>,
    },
    /// It is not known what this node said last, nor whether it had stopped because another process serves with its key.
    #[error(
        "what this node said of itself last, {}, can't be read: {source}; restore it, or remove it if no other process has this \
         node's key", path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// A storage node must be reachable.
    #[error("a storage node needs an address to listen at, so that others can reach it")]
    NoListenAddress,
    /// Who was revoked is not known.
    #[error(
        "the list of the revoked, {}, can't be read: {source}; restore it, or remove it and start this node while \
         others run that have it", path.display()
    )]
    Revocations {
        /// The list.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Our own passport would be refused everywhere.
    #[error("our own passport is no good: {0}")]
    Passport(#[from] PassportError),
}

/// Listens there. All addresses of IPv6 are those of both families, however this machine is set up; those of IPv4 are no others:
/// whoever asks for them may have a firewall for them alone.
fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let options = BindOptions { only_v6: Some(false), ..BindOptions::default() };
    TcpListener::bind_with(address, &options)
}

/// Refuses to start while another process has our key, or after one had for which we stopped.
fn refuse_beside(identity: &Identity, last: &Last, addresses: &[SocketAddr]) -> Result<(), StartError> {
    let known = last.said.iter().chain(&last.copy);
    let said = known.flat_map(|known| known.statement().addresses.iter().copied());
    let mut elsewhere: Vec<SocketAddr> = said.filter(|said| !addresses.contains(said)).collect();
    elsewhere.sort();
    elsewhere.dedup();
    // Before anything is said: what is on disk still says where it is.
    if let Some(address) = twin::find(identity, &elsewhere) {
        return Err(StartError::Twin { address });
    }
    let address = last.copy.as_ref().and_then(|copy| copy.statement().addresses.first().copied());
    if last.has_stopped { Err(StartError::Stopped { address }) } else { Ok(()) }
}

/// A running overlay node.
pub struct Node {
    state: Rc<State>,
    contacts_file: Option<PathBuf>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Starts a node that answers the methods of `service` (the overlay adds its own), and tries to join.
    ///
    /// That nobody can be reached yet is no error: the node goes on trying, and others may join through it.
    /// [`Node::join`] tells more.
    ///
    /// # Errors
    /// If it can't listen, or its own passport is no good.
    ///
    /// # Suspends
    /// For the first attempt at joining: some round trips, at most some seconds.
    pub fn start(config: Config, service: Service) -> Result<Rc<Node>, StartError> {
        Node::start_bound(config, service, true)
    }

    /// As [`Node::start`], where nobody has said at which address to listen, and `config` has one that was found: who seeks us by
    /// our id is let in at every other address of this machine too, by UDP at the port of the same number.
    ///
    /// # Errors
    /// As [`Node::start`].
    ///
    /// # Suspends
    /// As [`Node::start`].
    pub fn start_unbound(config: Config, service: Service) -> Result<Rc<Node>, StartError> {
        Node::start_bound(config, service, false)
    }

    fn start_bound(config: Config, service: Service, is_bound: bool) -> Result<Rc<Node>, StartError> {
        let Config { identity, network, passport, role, listen, bootstrap, contacts_file, .. } = config;
        let Config { revocations_file, renewals_file, record_file, mut statement, peers, .. } = config;
        let own = identity.public_key();
        if let Some(path) = &revocations_file {
            revoking::load(path, &network, &peers)
                .map_err(|source| StartError::Revocations { path: path.clone(), source })?;
        }
        let renewals = Renewals::new();
        if let Some(path) = &renewals_file {
            renewing::load(path, &network, &peers, &renewals);
        }
        let passport = renewals.newest(&passport, reactor::wall_clock());
        let rights = match passport.verify(&network, &own, reactor::wall_clock()) {
            // Whoever has a newer one gives it to us: that is found out at the door.
            Err(PassportError::Expired { .. }) => passport.rights(),
            other => other?,
        };
        let needed = Rights { store: role == Role::Storage, ..Rights::default() };
        if !rights.include(needed) {
            return Err(PassportError::MissingRight { has: rights, needed }.into());
        }
        let listener = match (role, listen) {
            (Role::Client, _) => None,
            (Role::Storage, None) => return Err(StartError::NoListenAddress),
            (Role::Storage, Some(address)) => {
                let listen = |source| StartError::Listen { address, source };
                let listener = listen_at(address).map_err(listen)?;
                let port = listener.local_addr().map_err(listen)?.port();
                Some((listener, SocketAddr::new(address.ip(), port)))
            }
        };
        let addresses: Vec<SocketAddr> = listener.iter().map(|(_, address)| *address).collect();
        let records = Records::new(network);
        let mut last = Last::default();
        if role == Role::Storage {
            last = stating::last(&own, &network, record_file.as_ref()).map_err(|source| {
                StartError::Record { path: record_file.clone().unwrap_or_default(), source }
            })?;
        }
        let said_last = last.said.as_ref().and_then(NodeRecord::life);
        let life = Life::begin(Identity::generate(), said_last, last.is_accepted, reactor::now());
        if role == Role::Storage {
            if last.is_accepted {
                tracing::warn!("this node serves though another process may have its key: its owner said so");
            } else {
                refuse_beside(&identity, &last, &addresses)?;
            }
            statement.addresses.extend(addresses.iter().copied());
            let record_file = record_file.as_ref();
            records.set_own(stating::first(&identity, &network, record_file, &last, &life, statement));
        }
        let credentials = Credentials { network, own, passport, role, addresses, peers, renewals, records };
        let kept = revocations_file.filter(|_| role == Role::Storage);
        let state = State::new(identity, credentials, kept, renewals_file, record_file, life, service);
        if !is_bound {
            state.reach.unbind();
        }
        let node = Rc::new(Node { state, contacts_file, tasks: RefCell::new(Vec::new()) });
        if let Some((listener, address)) = listener {
            tracing::info!(id = ?node.state.own_id, %address, "listening");
            let state = node.state.clone();
            node.spawn(move || listener::accept_loop(&state, &listener));
        }
        // A client that is given no way in is told later where to go, and may ask what is remembered.
        let is_told_later = role == Role::Client && bootstrap.is_empty();
        let ways = if is_told_later { bootstrap } else { node.ways_in(bootstrap) };
        if !ways.is_empty()
            && let Err(error) = node.join(&ways)
        {
            tracing::warn!(%error, "not joined yet: trying on");
        }
        let mut upkeep = Upkeep::new(&node.state, node.contacts_file.clone());
        node.spawn(move || upkeep.run());
        Ok(node)
    }

    /// Joins the network through any of `ways`; returns how many live contacts are known then. The ways are
    /// remembered; those that lead to nobody yet are tried again for as long as we run, all at once while nobody
    /// can be reached.
    ///
    /// # Errors
    /// Why nobody admitted us.
    ///
    /// # Suspends
    /// At most some seconds.
    pub fn join(&self, ways: &[Bootstrap]) -> Result<usize, JoinError> {
        self.state.ways.borrow_mut().add(ways);
        join::join(&self.state, ways)
    }

    /// Our position.
    pub fn id(&self) -> NodeId {
        self.state.own_id
    }

    /// Where we listen, if we do.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.state.credentials.addresses.first().copied()
    }

    /// With which nodes the network was made; who came since, the owner's passports tell. They count as
    /// [`members`](Overlay::members) though nobody has met them.
    pub fn set_founding_nodes(&self, nodes: impl IntoIterator<Item = PublicKey>) {
        self.state.members.set_founding(nodes.into_iter().collect());
    }

    /// Every contact we know, with whether it is thought alive.
    pub fn contacts(&self) -> Vec<(Contact, bool)> {
        let table = self.state.table.borrow();
        table.entries().map(|entry| (entry.contact.clone(), entry.is_live())).collect()
    }

    /// Relays for the members of the network from now on, at the address where we listen, and says so in our record.
    ///
    /// # Errors
    /// If others could not reach us there.
    ///
    /// # Suspends
    /// Until that is on disk.
    pub fn relay(&self) -> Result<(), RelayError> {
        relaying::begin(&self.state)
    }

    /// Looks for members in this machine's own networks, from now on and until we stop, and is found there: by packets to a group,
    /// which strangers don't understand. A node that listens to this machine only does neither.
    ///
    /// # Suspends
    /// Never.
    pub fn discover(&self) {
        let own = &self.state.credentials.addresses;
        if !own.is_empty() && own.iter().all(|own| own.ip().is_loopback()) {
            return;
        }
        let state = self.state.clone();
        self.spawn(move || discovery::run(&state));
    }

    /// Waits until somebody is met, for as long as `limit`; whether somebody is. For who looks for members in its own networks, and
    /// has no other way to one.
    ///
    /// # Suspends
    /// Until then.
    pub fn wait_for_anybody(&self, limit: Duration) -> bool {
        let mut watch = self.watch();
        let is_anybody_live = || self.is_anybody_live();
        let _ = reactor::timeout(limit, || {
            while !is_anybody_live() {
                watch.wait();
            }
        });
        is_anybody_live()
    }

    /// Has the router before this machine let members in, from now on and until we stop: to where we listen, which our record
    /// says then, and to where we are reached by our id. Nothing is asked of it by who listens to this machine only and
    /// knows of no relay elsewhere.
    ///
    /// # Suspends
    /// Never.
    pub fn map_ports(&self) {
        let state = self.state.clone();
        self.spawn(move || port_mapping::run(&state));
    }

    /// Which ports of ours the router maps, and to where, or why not; empty for who asks none, or has no port to be mapped.
    ///
    /// # Suspends
    /// Never.
    pub fn ports_mapped(&self) -> Vec<(Port, Result<Mapping, Why>)> {
        self.state.port_mapping.report()
    }

    /// The connected peers and their rights.
    pub fn peers(&self) -> &Peers {
        &self.state.peers
    }

    /// The letters of strangers that wait here for the owner's reply.
    pub fn letters(&self) -> Vec<Letter> {
        self.state.letterbox.borrow().waiting(reactor::now())
    }

    /// Keeps the owner's reply for the stranger who brought the letter; says whether that is here.
    pub fn reply(&self, reply: &Reply) -> bool {
        self.state.letterbox.borrow_mut().reply(reply, &self.state.credentials.network)
    }

    /// Takes a newer list of the revoked, cuts those off who are on it, and hands it to everybody who is connected.
    /// Returns the hash of the list that is in force then.
    ///
    /// # Errors
    /// If it is not the owner's, or can't be kept.
    ///
    /// # Suspends
    /// Until it is on disk, where it is kept there.
    pub fn revoke(&self, newer: Revocations) -> Result<[u8; 32], RevokeRefused> {
        revoking::take(&self.state, newer)
    }

    /// When we were removed from the network, if the owner says so: a peer that only refuses us proves nothing.
    pub fn removed(&self) -> Option<SystemTime> {
        self.state.peers.revoked_since(&self.state.credentials.own)
    }

    /// Takes passports that the owner renewed, and hands them to every node that is connected now or later.
    ///
    /// # Errors
    /// If one is not the owner's own, or they can't be kept.
    ///
    /// # Suspends
    /// Until they are on disk, where they are kept there.
    pub fn renew(&self, passports: Vec<Passport>) -> Result<(), RenewRefused> {
        renewing::take(&self.state, passports)
    }

    /// The newest passport that we have.
    pub fn passport(&self) -> Passport {
        self.state.credentials.renewals.newest(&self.state.credentials.passport, reactor::wall_clock())
    }

    /// What we say of ourselves; `None` for a client.
    pub fn record(&self) -> Option<Arc<NodeRecord>> {
        self.state.credentials.records.own()
    }

    /// Changes what we say of ourselves, and tells everybody who is connected; who is met later hears it then. If `change`
    /// changes nothing, nothing is done; nor for a client.
    ///
    /// # Suspends
    /// Until it is on disk.
    pub fn restate(&self, change: impl FnOnce(&mut Statement)) {
        stating::restate(&self.state, change);
    }

    /// Another process that was found to have our key, if one was; one that we are to stop for rather than others.
    pub fn twin(&self) -> Option<Twin> {
        self.state.twins.last()
    }

    /// Waits until another process is found that has our key, and that we are to stop for. Then stop: what is promised from here
    /// on it knows nothing of.
    ///
    /// # Suspends
    /// Until then, which is usually never.
    pub fn wait_until_twin_stops_us(&self) -> Twin {
        self.state.twins.wait_until_to_stop()
    }

    /// Whether somebody answered a lookup of our position, so that our neighbours know us.
    pub fn has_joined(&self) -> bool {
        self.state.joined.get()
    }

    /// Looks up the `count` nodes nearest to `target` in the network, at most [`CONTACTS_MAX`], whatever the table says; for those
    /// who want to know what it costs. Ourselves are not included.
    ///
    /// # Suspends
    /// For the lookup.
    pub fn lookup(&self, target: &NodeId, count: usize) -> Found {
        let count = count.min(CONTACTS_MAX);
        let seeds = self.state.table.borrow().closest(target, count.max(K));
        let found = lookup(&Live::of(&self.state, count), self.state.own_id, *target, count, seeds);
        self.state.change_table(|table, now| table.on_looked_up(target, now));
        found
    }

    /// Pings a contact now; returns whether it answered.
    ///
    /// # Suspends
    /// At most two seconds.
    pub fn ping(&self, contact: &Contact) -> bool {
        self.state.ping(contact)
    }

    /// Leaves the network for good: tells the contacts to forget us, then stops.
    ///
    /// # Suspends
    /// At most a second, and as [`stop`](Node::stop).
    pub fn leave(&self) {
        upkeep::say_goodbye(&self.state);
        self.stop();
    }

    /// Saves the contacts, closes the listener and every connection. Calls fail from then on.
    ///
    /// # Suspends
    /// Until the listener is closed and the contacts are durable; with connections over relays a second longer at most.
    pub fn stop(&self) {
        if let Some(path) = &self.contacts_file
            && !self.state.stopping.get()
        {
            upkeep::save_contacts(&self.state, path);
        }
        self.state.twins.finish();
        self.begin_stop();
        for task in self.tasks.take() {
            let _ = task.join();
        }
        stating::finish(&self.state);
        self.state.port_mapping.close();
        self.state.reach.close();
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &Rc<State> {
        &self.state
    }

    fn begin_stop(&self) {
        self.state.stopping.set(true);
        for task in self.tasks.borrow().iter() {
            task.terminate();
        }
        self.state.pool.close_all();
        self.state.reach.begin_stop();
        self.state.relaying.get().into_iter().for_each(Relaying::end);
    }

    fn spawn(&self, task: impl FnOnce() + 'static) {
        let task = reactor::spawn(task);
        self.tasks.borrow_mut().push(task);
    }

    /// The configured ways in, and those of the contacts file.
    fn ways_in(&self, mut ways: Vec<Bootstrap>) -> Vec<Bootstrap> {
        ways.extend(self.remembered().into_iter().map(Bootstrap::Contact));
        ways
    }

    /// The contacts that were saved when the network was last reached, by this run or an earlier one.
    ///
    /// # Suspends
    /// While the file is read.
    pub fn remembered(&self) -> Vec<Contact> {
        let Some(path) = self.contacts_file.clone() else { return Vec::new() };
        let shown = path.display().to_string();
        match reactor::offload(move || contacts_file::load(&path)) {
            Ok(loaded) => {
                for damage in &loaded.damage {
                    tracing::warn!(
                        path = shown,
                        damage,
                        "the contacts file is damaged; the rest of it is used"
                    );
                }
                let met = loaded.contacts.iter().map(|saved| self.state.meet(saved));
                met.filter(|contact| contact.id != self.state.own_id).collect()
            }
            Err(error) => {
                tracing::warn!(path = shown, %error, "the contacts file can't be read; going on without");
                Vec::new()
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

impl Overlay for Node {
    fn own(&self) -> Option<Contact> {
        let Credentials { own, role, addresses, records, .. } = &self.state.credentials;
        let own = (*role == Role::Storage).then(|| Contact::new(*own, addresses.iter().copied()))?;
        Some(records.own().into_iter().fold(own, Contact::with_record))
    }

    fn closest(&self, key: &NodeId, count: usize) -> Vec<Contact> {
        let known = self.knows_everyone().then(|| self.state.table.borrow().closest(key, count));
        let mut closest = match known {
            Some(closest) if !closest.is_empty() => closest,
            // Those who answered have told what they say of themselves since they were named.
            _ => self.lookup(key, count).closest.iter().map(|found| self.state.newest(found)).collect(),
        };
        if let Some(own) = self.own() {
            let distance = own.id.distance(key);
            let index = closest.partition_point(|contact| contact.id.distance(key) < distance);
            closest.insert(index, own);
            closest.truncate(count);
        }
        closest
    }

    fn knows_everyone(&self) -> bool {
        self.state.table.borrow().holds_everyone() && self.state.joined.get()
    }

    fn known_count(&self) -> usize {
        let is_one = self.state.credentials.role == Role::Storage;
        self.state.table.borrow().live_count() + usize::from(is_one)
    }

    fn members(&self) -> Option<Vec<Contact>> {
        members::members(&self.state)
    }

    fn is_live(&self, contact: &Contact) -> bool {
        match self.state.table.borrow().get(&contact.id) {
            // One lost ping may be our own hiccup; the next comes within a second.
            Some(entry) => entry.failures < FAILURES_TO_EVICT,
            // In a large network the table need not hold whom we are connected to.
            None => self.state.pool.is_connected(&contact.public_key),
        }
    }

    fn is_removed(&self, contact: &Contact) -> bool {
        self.state.peers.is_revoked(&contact.public_key)
    }

    fn is_anybody_live(&self) -> bool {
        self.state.table.borrow().live_count() > 0
    }

    fn doubt(&self, contact: &Contact) {
        self.state.probe(contact);
    }

    fn call<M: Method>(
        &self,
        contact: &Contact,
        request: &M::Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), CallError<M::Error>> {
        self.state.call::<M>(contact, request, payload, timeout)
    }

    fn watch(&self) -> Watch {
        self.state.changes.watch()
    }
}
