//! Reaching a peer: a connection, the handshake that proves its key, the exchange of passports; in one bounded time.
//!
//! A peer with several addresses is tried at all of them, each [`STAGGER`] after the one before, and the first that
//! admits us wins (after RFC 8305's "happy eyeballs"): one black-holed address must not cost its whole timeout. Right behind
//! the first address it is sought by its id, over relays (`reach.rs`): TCP carries more for less, so that it wins wherever it
//! leads to the peer at once, and nobody waits for an address behind somebody's router.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::net::tls::{self, Expect};
use reactor::net::{Duplex, TcpStream, is_of_the_internet};
use reactor::sync::Signal;

use crate::admission::{self, AdmissionError, Admitted};
use crate::contact::{Addresses, Contact};
use crate::peers::Whereabouts;
use crate::state::State;

/// The longest one try takes: three round trips, and one lost packet's retransmission at each.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the first address is tried alone. RFC 8305 section 5: 250 ms.
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// And so long where that is of no use but in a network of its own, which is mostly another one than ours, and drops what is sent there.
/// Whoever is in ours has answered, or is seconds away: by its id it takes two round trips over a relay, by TCP three that are shorter.
const STAGGER_NEAR: Duration = Duration::from_millis(100);

/// Addresses and relays at which somebody was sought in vain, of each.
const REMEMBERED_MAX: usize = 16;

/// Which way somebody was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At this address.
    At(SocketAddr),
    /// By its id, over relays.
    ById,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::At(address) => address.fmt(f),
            Place::ById => f.write_str("over a relay"),
        }
    }
}

/// Why a peer could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No address of it is known.
    #[error("no address of the peer is known: it may be a client, which can only call")]
    NoAddress,
    /// TCP failed.
    #[error("{address} can't be reached: {source}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// How.
        source: io::Error,
    },
    /// No relay led to it.
    #[error("no relay leads to it: {0}")]
    Relayed(io::Error),
    /// TLS failed: it is no node, or another one.
    #[error("{address} did not prove to be the expected node: {source}")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// How.
        source: io::Error,
    },
    /// The passports were exchanged to no avail.
    #[error("{place}: {source}")]
    Admission {
        /// Where.
        place: Place,
        /// How.
        source: AdmissionError,
    },
    /// Nothing came back.
    #[error("{place}: no answer within {DIAL_TIMEOUT:?}: it may be down, or behind a firewall")]
    TimedOut {
        /// Where.
        place: Place,
    },
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// Where a peer may be found.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Places {
    /// Where it may be dialled, the most promising first.
    pub(crate) addresses: Addresses,
    /// Over which relays it is found by its id; none if it says none.
    pub(crate) relays: Vec<PublicKey>,
    /// Whether it says that it is one.
    pub(crate) is_relay: bool,
}

impl Places {
    /// Where `contact` is thought to be.
    pub(crate) fn of(contact: &Contact) -> Places {
        let is_relay = contact.as_relay().is_some();
        Places { addresses: contact.addresses.clone(), relays: contact.relays().to_vec(), is_relay }
    }

    /// These and `others`, as far as there is room.
    pub(crate) fn with(mut self, others: Places) -> Places {
        let addresses = others.addresses.into_iter().filter(|other| !self.addresses.contains(other));
        let addresses: Addresses = addresses.collect();
        self.addresses.extend(addresses);
        self.addresses.truncate(REMEMBERED_MAX);
        let relays = others.relays.into_iter().filter(|other| !self.relays.contains(other));
        let relays: Vec<PublicKey> = relays.collect();
        self.relays.extend(relays);
        self.relays.truncate(REMEMBERED_MAX);
        self
    }

    /// Whether all of them are among `others`.
    pub(crate) fn are_among(&self, others: &Places) -> bool {
        self.addresses.iter().all(|address| others.addresses.contains(address))
            && self.relays.iter().all(|relay| others.relays.contains(relay))
    }
}

/// An admitted stream to a peer.
pub(crate) struct Dialled {
    pub(crate) stream: Box<dyn Duplex>,
    pub(crate) admitted: Admitted,
    pub(crate) whereabouts: Whereabouts,
}

/// Dials one address.
///
/// # Suspends
/// At most [`DIAL_TIMEOUT`].
pub(crate) fn dial_address(
    state: &State,
    expected: Expect,
    address: SocketAddr,
) -> Result<Dialled, DialError> {
    let dial = || {
        let connect = |source| DialError::Connect { address, source };
        let stream = TcpStream::connect_one(address).map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let handshake = tls::connect(stream, &state.identity, expected);
        let stream = handshake.map_err(|source| DialError::Handshake { address, source })?;
        let peer = stream.peer();
        let admitted = admission::dialler(&mut &stream, &state.credentials, peer, address);
        let admitted =
            admitted.map_err(|source| DialError::Admission { place: Place::At(address), source })?;
        Ok(Dialled { stream: Box::new(stream), admitted, whereabouts: Whereabouts::At(address) })
    };
    let place = Place::At(address);
    reactor::timeout(DIAL_TIMEOUT, dial).unwrap_or(Err(DialError::TimedOut { place }))
}

/// Seeks a peer by its id, over relays.
///
/// # Suspends
/// At most [`DIAL_TIMEOUT`].
fn dial_by_id(state: &Rc<State>, key: &PublicKey, places: &Places) -> Result<Dialled, DialError> {
    let dial = || {
        let (stream, whereabouts) = state.reach.dial(state, key, places).map_err(DialError::Relayed)?;
        let admitted = admission::dialler(&mut &stream, &state.credentials, *key, None::<SocketAddr>);
        let admitted = admitted.map_err(|source| DialError::Admission { place: Place::ById, source })?;
        Ok(Dialled { stream: Box::new(stream), admitted, whereabouts })
    };
    reactor::timeout(DIAL_TIMEOUT, dial).unwrap_or(Err(DialError::TimedOut { place: Place::ById }))
}

/// Tries all places where the holder of `key` may be, the first ones first, and returns the first success, or why there is
/// none: a refusal, if anybody refused us, else the last failure.
///
/// # Suspends
/// At most [`DIAL_TIMEOUT`] and a [`STAGGER`] per address.
pub(crate) fn dial_any(state: &Rc<State>, key: &PublicKey, places: &Places) -> Result<Dialled, DialError> {
    let mut tried: Vec<Place> = places.addresses.iter().copied().map(Place::At).collect();
    if state.reach.may_lead_to(key, places) {
        tried.insert(tried.len().min(1), Place::ById);
    }
    let dial = |place: Place| match place {
        Place::At(address) => dial_address(state, Expect::Key(*key), address),
        Place::ById => dial_by_id(state, key, places),
    };
    if let [place] = tried[..] {
        return dial(place);
    }
    let outcome = RefCell::new((0, Err(DialError::NoAddress)));
    let ended = Signal::new();
    let (outcome_of, ended_of, dial_of) = (&outcome, &ended, &dial);
    reactor::scope(|s| {
        let mut tries = Vec::new();
        let is_won = || outcome_of.borrow().1.is_ok();
        for (index, &place) in tried.iter().enumerate() {
            tries.push(s.spawn(move || {
                let result = dial_of(place);
                let mut outcome = outcome_of.borrow_mut();
                outcome.0 += 1;
                // That we are refused says more than that nobody is at another place.
                let is_refused = matches!(outcome.1, Err(DialError::Admission { .. }));
                if outcome.1.is_err() && (result.is_ok() || !is_refused) {
                    outcome.1 = result;
                }
                drop(outcome);
                ended_of.notify_all();
            }));
            // The next place once this one failed, or is slow.
            let is_near = matches!(place, Place::At(at) if !is_of_the_internet(at.ip()));
            let is_id_next = tried.get(index + 1) == Some(&Place::ById);
            let stagger = if is_near && is_id_next { STAGGER_NEAR } else { STAGGER };
            let _ = reactor::timeout(stagger, || {
                while outcome_of.borrow().0 <= index && !is_won() {
                    ended_of.wait();
                }
            });
            if is_won() {
                break;
            }
        }
        while !is_won() && outcome_of.borrow().0 < tries.len() {
            ended_of.wait();
        }
        for attempt in tries.iter().filter(|attempt| !attempt.is_finished()) {
            attempt.terminate();
        }
    });
    outcome.into_inner().1
}
