//! What the stories share: a closed network whose nodes live on loopback in this process.

// Each story uses its part of this.
#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use overlay::{Bootstrap, Config, Contact, Node, Overlay, Passport, Peers, Rights, Role};
use reactor::crypto::Identity;
use reactor::rpc::Service;
use reactor::sim::{self, SimConfig};

/// A closed network.
pub struct Network {
    pub owner: Identity,
}

impl Network {
    pub fn new() -> Network {
        Network { owner: Identity::generate() }
    }

    /// A storage node's start, listening at a free port, with a passport of the network.
    pub fn storage(&self, bootstrap: &[SocketAddr]) -> Config {
        let identity = Identity::generate();
        let passport = Passport::issue(&self.owner, identity.public_key(), Rights::NODE, None);
        Config {
            identity,
            network: self.owner.public_key(),
            passport,
            role: Role::Storage,
            listen: Some(loopback()),
            bootstrap: bootstrap.iter().copied().map(Bootstrap::Address).collect(),
            contacts_file: None,
            revocations_file: None,
            renewals_file: None,
            statement: Default::default(),
            record_file: None,
            peers: Peers::new(),
        }
    }

    /// A client's start.
    pub fn client(&self, bootstrap: &[SocketAddr]) -> Config {
        let config = self.storage(bootstrap);
        let passport = Passport::issue(&self.owner, config.identity.public_key(), Rights::CLIENT, None);
        Config { passport, role: Role::Client, listen: None, ..config }
    }

    /// Starts `count` nodes, each joining through the first.
    pub fn start(&self, count: usize) -> Vec<Rc<Node>> {
        let mut nodes = vec![start(self.storage(&[]))];
        let first = address(&nodes[0]);
        nodes.extend((1..count).map(|_| start(self.storage(&[first]))));
        nodes
    }
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub fn start(config: Config) -> Rc<Node> {
    Node::start(config, Service::new()).expect("the node starts")
}

pub fn address(node: &Node) -> SocketAddr {
    node.listen_address().expect("a storage node listens")
}

pub fn contact(node: &Node) -> Contact {
    node.own().expect("a storage node has a contact")
}

/// How many contacts `node` thinks alive.
pub fn live_count(node: &Node) -> usize {
    node.contacts().iter().filter(|(_, is_live)| *is_live).count()
}

/// The ids that `node` finds closest to `target`.
pub fn closest(node: &Node, target: &overlay::NodeId, count: usize) -> Vec<overlay::NodeId> {
    node.closest(target, count).iter().map(|contact| contact.id).collect()
}

/// The ids of `nodes` closest to `target`, by looking at all of them.
pub fn brute_force(nodes: &[Rc<Node>], target: &overlay::NodeId, count: usize) -> Vec<overlay::NodeId> {
    let mut ids: Vec<_> = nodes.iter().map(|node| node.id()).collect();
    ids.sort_by_key(|id| id.distance(target));
    ids.truncate(count);
    ids
}

/// As [`Time::eventually`], over loopback.
pub fn eventually(what: &str, limit: Duration, condition: impl FnMut() -> bool) -> Duration {
    Time::Real.eventually(what, limit, condition)
}

/// Runs a story twice: over loopback, and in the simulator. What it may take is judged in the simulator alone, where time
/// passes only for whoever waits: a busy machine takes as long as it takes.
pub fn in_both_times(story: impl Fn(Time) + Send + Sync) {
    reactor::run(|| story(Time::Real));
    in_counted_time(story);
}

/// Runs a story in the simulator alone: one of many nodes, of which a smaller one tells the same over loopback.
pub fn in_counted_time(story: impl FnOnce(Time) + Send) {
    sim::run(1, SimConfig::default(), |_| story(Time::Counted));
}

/// Which time a story runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Time {
    Real,
    Counted,
}

/// What a machine that does ten other things may take for what usually takes no time.
const BUSY: Duration = Duration::from_secs(90);

impl Time {
    /// Waits until `condition` holds; panics with `what` if it does not within `limit`. Returns how long it took.
    pub fn eventually(self, what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
        let limit = if self == Time::Real { limit.max(BUSY) } else { limit };
        let began = reactor::now();
        while !condition() {
            assert!(reactor::now() - began < limit, "not within {limit:?}: {what}");
            reactor::sleep(Duration::from_millis(10));
        }
        reactor::now() - began
    }

    /// Does `work`, which must wait for less than `limit` in all. Returns what it returns, and how long it took.
    pub fn within<T>(self, limit: Duration, what: &str, work: impl FnOnce() -> T) -> (T, Duration) {
        let began = reactor::now();
        let done = work();
        let took = reactor::now() - began;
        assert!(self == Time::Real || took < limit, "{what} takes {took:?}, not less than {limit:?}");
        (done, took)
    }
}

/// A file in a directory of its own that ends with the value.
pub fn scratch_file(name: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(name);
    (directory, path)
}

/// The seed of a randomised story: from HYPHA_SEED, else the clock; printed, so that a failure can be replayed.
pub fn seed() -> u64 {
    let given = std::env::var("HYPHA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_nanos() as u64)
    });
    println!("replay with HYPHA_SEED={seed}");
    seed
}
