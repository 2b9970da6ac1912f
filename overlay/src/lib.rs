//! A Kademlia overlay: which nodes are closest to a 256-bit key, and how to reach them.
//!
//! A [`Node`] is the real thing; the DHT sees no more of it than the [`Overlay`] trait. A [`Passport`] opens a closed
//! network to a key, and the book of [`Peers`] says what a caller may do.
//!
//! The layout is the paper's, arrows only downward:
//!
//! | file | is |
//! | --- | --- |
//! | `node` | what is started, used and stopped |
//! | `join`, `upkeep`, `listener`, `session` | flow: getting in, staying in, letting in, one connection's life |
//! | `state`, `connections`, `dial`, `served` | flow: what the coroutines share, reaching a peer, and what it may ask |
//! | `reach`, `relaying` | flow: reaching a peer by its id over relays, and being one |
//! | `revoking`, `renewing`, `stating`, `handing_over`, [`stranger`] | flow: cutting off who is no member any more, spreading what the owner signed and what we say of ourselves, asking to become a member |
//! | `members` | flow: which nodes the owner let in, there or not |
//! | [`lookup`], [`admission`] | flow over small traits: the iterative lookup, the exchange of passports |
//! | [`frontier`], [`routing_table`], [`k_bucket`], [`records`], `signers`, `introductions`, [`letterbox`], `relays` | pure: told the time and the answers, never asking |
//! | [`node_id`], [`contact`], [`peers`], `whereabouts`, [`message`] | what travels |
//! | [`passport`], [`renewal`], [`invitation`], [`ticket`], [`revocation`], [`keepsake`] | what the owner signs, and what that proves |
//! | [`record`] | what a node signs of itself, and how far that goes |
//!
//! ```
//! use overlay::{Bootstrap, Config, Node, NodeId, Overlay, Passport, Peers, Rights, Role};
//! use reactor::crypto::Identity;
//! use reactor::rpc::Service;
//!
//! reactor::run(|| {
//!     let owner = Identity::generate();
//!     let start = |bootstrap: Vec<Bootstrap>| {
//!         let identity = Identity::generate();
//!         let passport = Passport::issue(&owner, identity.public_key(), Rights::NODE, None);
//!         let config = Config {
//!             identity,
//!             network: owner.public_key(),
//!             passport,
//!             role: Role::Storage,
//!             listen: Some("127.0.0.1:0".parse().unwrap()),
//!             bootstrap,
//!             contacts_file: None,
//!             revocations_file: None,
//!             renewals_file: None,
//!             statement: Default::default(),
//!             record_file: None,
//!             peers: Peers::new(),
//!         };
//!         Node::start(config, Service::new()).unwrap()
//!     };
//!     let first = start(vec![]);
//!     let second = start(vec![first.listen_address().unwrap().into()]);
//!     let closest = second.closest(&NodeId([0; 32]), 3);
//!     assert_eq!(closest.len(), 2);
//! });
//! ```
//!
//! Source: P. Maymounkov, D. Mazieres, "Kademlia: a peer-to-peer information system based on the XOR metric", 2002.
//! Departures are named in the file they concern.
//!
//! What it is not: it stores nothing for anybody (that is the DHT's part), and it trusts no answer further than that a
//! contact named in it may be called.

#![forbid(unsafe_code)]

pub mod admission;
pub mod beacon;
mod connections;
pub mod contact;
pub mod contacts_file;
mod dial;
mod discovery;
mod files;
pub mod frontier;
mod handing_over;
mod heard;
mod introductions;
pub mod invitation;
mod join;
pub mod k_bucket;
pub mod keepsake;
pub mod letterbox;
pub mod life;
mod listener;
pub mod lookup;
mod members;
pub mod message;
mod node;
pub mod node_id;
mod obedience;
pub mod passport;
pub mod peers;
mod port_mapping;
mod reach;
pub mod record;
pub mod records;
mod relaying;
mod relays;
pub mod renewal;
mod renewing;
pub mod revocation;
mod revoking;
mod rights;
pub mod routing_table;
mod served;
mod session;
mod signers;
mod state;
mod stating;
pub mod stranger;
#[cfg(test)]
mod testing;
pub mod ticket;
mod twin;
mod upkeep;
pub mod watch;
mod ways;
mod whereabouts;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::rpc::{CallError, Method};

pub use contact::Contact;
pub use dial::{DialError, Place};
pub use join::{Bootstrap, JoinError};
pub use k_bucket::K;
pub use keepsake::Keepsake;
pub use life::Stops;
pub use node::{Config, Node, StartError};
pub use node_id::NodeId;
pub use passport::{Passport, PassportError, Rights};
pub use peers::{How, Peer, Peers, Role, TurnedAway};
pub use record::{NodeRecord, Statement, Zone};
pub use relaying::RelayError;
pub use renewal::Renewals;
pub use revocation::Revocations;
pub use stating::accept_copy;
pub use ticket::Ticket;
pub use twin::Twin;
pub use watch::{Changes, Watch};

/// What the layer above sees of the network, so that another overlay can be slotted in.
pub trait Overlay {
    /// Our own contact, or `None` for a client, which nobody can be responsible through.
    ///
    /// # Suspends
    /// Never.
    fn own(&self) -> Option<Contact>;

    /// The `count` live nodes nearest to `key`, nearest first, ourselves included if we store. Fewer if the network
    /// has fewer; none if nobody can be reached. A lookup finds [`CONTACTS_MAX`](message::CONTACTS_MAX) at most.
    ///
    /// # Suspends
    /// For a lookup; not at all where everyone is known.
    fn closest(&self, key: &NodeId, count: usize) -> Vec<Contact>;

    /// Whether there is nobody but those whom we know, so that [`closest`](Overlay::closest) asks nobody.
    ///
    /// # Suspends
    /// Never.
    fn knows_everyone(&self) -> bool;

    /// How many live nodes are known without asking anybody, ourselves included if we store: there are as many at least.
    ///
    /// # Suspends
    /// Never.
    fn known_count(&self) -> usize;

    /// All storage nodes of the network but ourselves, whether they can be reached or not: those that its owner let in, as far as those
    /// know that can be reached, and whom we met. Whoever was removed is none. `None` if nobody can be asked.
    ///
    /// # Suspends
    /// For a round trip or two, at most some seconds.
    fn members(&self) -> Option<Vec<Contact>>;

    /// Whether `contact` is thought alive: it has not failed to answer twice in a row. Nobody is asked: it is known of whoever
    /// was called or met lately.
    ///
    /// # Suspends
    /// Never.
    fn is_live(&self, contact: &Contact) -> bool;

    /// Whether the owner has removed this one from the network, as far as it has heard.
    ///
    /// # Suspends
    /// Never.
    fn is_removed(&self, contact: &Contact) -> bool;

    /// Whether any node but ourselves is thought alive.
    ///
    /// # Suspends
    /// Never.
    fn is_anybody_live(&self) -> bool;

    /// Finds out whether `contact` is alive, in the background: somebody waits for it longer than usual. What comes of it,
    /// [`is_live`](Overlay::is_live) says a moment later.
    ///
    /// # Suspends
    /// Never.
    fn doubt(&self, contact: &Contact);

    /// Calls a node other than ourselves, over a connection that is kept for the next call.
    ///
    /// # Errors
    /// `Closed` if it can't be reached; otherwise as the call itself fails. A failure also makes
    /// [`closest`](Overlay::closest) leave the node out once it is known to be dead.
    ///
    /// # Suspends
    /// Until the answer, at most for `timeout`.
    fn call<M: Method>(
        &self,
        contact: &Contact,
        request: &M::Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), CallError<M::Error>>;

    /// Something to wait on for changes of who is near: nodes that joined, died, came back or moved.
    ///
    /// # Suspends
    /// Never; [`Watch::wait`] does.
    fn watch(&self) -> Watch;
}

impl<O: Overlay + ?Sized> Overlay for Rc<O> {
    fn own(&self) -> Option<Contact> {
        O::own(self)
    }

    fn closest(&self, key: &NodeId, count: usize) -> Vec<Contact> {
        O::closest(self, key, count)
    }

    fn knows_everyone(&self) -> bool {
        O::knows_everyone(self)
    }

    fn known_count(&self) -> usize {
        O::known_count(self)
    }

    fn members(&self) -> Option<Vec<Contact>> {
        O::members(self)
    }

    fn is_live(&self, contact: &Contact) -> bool {
        O::is_live(self, contact)
    }

    fn is_removed(&self, contact: &Contact) -> bool {
        O::is_removed(self, contact)
    }

    fn is_anybody_live(&self) -> bool {
        O::is_anybody_live(self)
    }

    fn doubt(&self, contact: &Contact) {
        O::doubt(self, contact);
    }

    fn call<M: Method>(
        &self,
        contact: &Contact,
        request: &M::Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), CallError<M::Error>> {
        O::call::<M>(self, contact, request, payload, timeout)
    }

    fn watch(&self) -> Watch {
        O::watch(self)
    }
}
