//! Being a relay: members whose routers keep them apart talk through a node that has an address.
//!
//! It is the node's own port at which it relays, told apart by what TLS says is spoken inside, so that whoever opens that port
//! has opened all: TCP for its neighbours and for those whom it relays, and UDP of the same number, where these learn how their
//! routers show them. A client brings its passport, which is looked at as any other ([`Credentials`]), and again and again while
//! it is here; who is removed from the network is turned out at once. What it may cost is bounded in `reactor::nat::relay`: 1,024
//! clients, 128 MiB of what waits, 16 MiB a second of each member's, and 32 MiB a second of all.
//!
//! The relay passes on what it can't read, and learns who talks with whom, when, and how much.
//!
//! What it is not: a way in for strangers. They bring their letters to any node that they can dial (`stranger.rs`).
//!
//! [`Credentials`]: crate::admission::Credentials

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::nat::PeerId;
use reactor::nat::relay::RelayLimits;

use crate::passport::Passport;
use crate::peers::Role;
use crate::record::Relay;
use crate::state::State;
use crate::stating;

/// How often the passports of those who are here are looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why a node does not relay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Nobody could be told where to go.
    #[error("a relay needs the one address that others dial: give it with --listen")]
    NoAddress,
    /// Its own connection to itself, over which it is found, can't be.
    #[error("the socket for a relay's clients can't be had: {0}")]
    Socket(#[from] std::io::Error),
}

/// The relay that a node is.
pub(crate) struct Relaying {
    relay: reactor::nat::relay::Relay,
    described: Relay,
    /// What the clients have shown.
    shown: Rc<RefCell<BTreeMap<PeerId, Passport>>>,
    looked_at: Cell<Instant>,
}

impl Relaying {
    /// What others are told of it.
    pub(crate) fn described(&self) -> &Relay {
        &self.described
    }

    /// The one that serves clients.
    pub(crate) fn relay(&self) -> &reactor::nat::relay::Relay {
        &self.relay
    }

    /// Turns a member out that is one no more.
    pub(crate) fn dismiss(&self, key: &PublicKey) {
        self.relay.dismiss((*key).into());
    }

    /// Turns out those whose passports have ended since they came, if it is time for another look.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn look_at_clients(&self, state: &State) {
        let now = reactor::now();
        if now < self.looked_at.get() + LOOK_EVERY {
            return;
        }
        self.looked_at.set(now);
        let clients = self.relay.clients();
        let mut shown = self.shown.borrow_mut();
        // Who has shown something and left costs nothing any more.
        shown.retain(|client, _| clients.contains(client));
        for client in clients {
            if shown.get(&client).is_none_or(|passport| !state.credentials.still_opens(passport)) {
                tracing::info!("a client of our relay is no member any more");
                self.relay.dismiss(client);
            }
        }
    }

    /// Turns everybody out: nobody is served by a node that has stopped.
    ///
    /// # Suspends
    /// Never.
    pub(crate) fn end(&self) {
        self.relay.clients().into_iter().for_each(|client| self.relay.dismiss(client));
    }
}

/// Relays from now on.
///
/// # Errors
/// If others could not reach it.
///
/// # Suspends
/// Until our record says so, on disk.
pub(crate) fn begin(state: &Rc<State>) -> Result<(), RelayError> {
    let Some(&address) = state.credentials.addresses.first().filter(|own| !own.ip().is_unspecified()) else {
        return Err(RelayError::NoAddress);
    };
    if state.credentials.role != Role::Storage {
        return Err(RelayError::NoAddress);
    }
    let (weak, shown) = (Rc::downgrade(state), Rc::new(RefCell::default()));
    let notes = shown.clone();
    let admits = move |peer: PeerId, credential: &[u8]| is_member(&weak, &notes, peer, credential);
    let relay = reactor::nat::relay::Relay::new(&state.identity, admits, RelayLimits::default());
    let described = Relay { public_key: state.credentials.own, address };
    let (own, looked_at) = (described.clone(), Cell::new(reactor::now()));
    if state.relaying.set(Relaying { relay, described, shown, looked_at }).is_err() {
        return Ok(()); // It does already.
    }
    // It is a client of its own too: whoever is found over it only is called over it.
    state.reach.keep(state, std::slice::from_ref(&own), true, reactor::now())?;
    if !state.reach.answer_stun(address.port()) {
        tracing::warn!(
            port = address.port(),
            "the UDP port of a relay is taken by something else: members behind routers find no direct ways by it"
        );
    }
    stating::restate(state, |says| {
        // Others are sent there, whatever else it listens at.
        says.addresses.retain(|other| *other != address);
        says.addresses.insert(0, address);
        says.is_relay = true;
    });
    Ok(())
}

fn is_member(
    state: &Weak<State>,
    notes: &RefCell<BTreeMap<PeerId, Passport>>,
    peer: PeerId,
    credential: &[u8],
) -> bool {
    let Some(state) = state.upgrade().filter(|state| !state.stopping.get()) else { return false };
    let Ok(shown) = Passport::from_bytes(credential) else { return false };
    let is_member = may_use(&state, peer, &shown);
    if is_member {
        notes.borrow_mut().insert(peer, shown);
    }
    is_member
}

/// Whether who has proved to be `peer` may come in here by that passport, as a node or as a client.
fn may_use(state: &State, peer: PeerId, shown: &Passport) -> bool {
    let holder = shown.holder();
    let verdict = state.credentials.verdict(shown, &holder);
    PeerId::from(holder) == peer && verdict.is_ok_and(|(_, rights)| rights.read || rights.store)
}
