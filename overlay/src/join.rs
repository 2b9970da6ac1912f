//! Joining: reach anybody of the network, then look up our own position.
//!
//! That lookup asks the `K` nodes nearest to us, so it fills our table where it matters, and makes us known to exactly
//! those who have to know us: each of them admits us and enters us in its own table. All ways in are tried at once; as
//! soon as one has worked the others get a short grace, since one dead address must not delay a start.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::net::tls::Expect;
use reactor::sync::Signal;

use crate::admission::{AdmissionError, Refusal};
use crate::contact::Contact;
use crate::dial::{self, DIAL_TIMEOUT, DialError, Dialled};
use crate::k_bucket::K;
use crate::lookup::{Found, lookup};
use crate::passport::PassportError;
use crate::session::Session;
use crate::state::{Live, PING_TIMEOUT, State, Unreached};

/// How long the other ways in are waited for once one has worked: they make the first lookup more robust, no more.
const GRACE: Duration = Duration::from_millis(100);

/// A way into the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bootstrap {
    /// A node whose key is known: nobody else can pose as it.
    Contact(Contact),
    /// Whoever listens there, if it can show a passport of the network.
    Address(SocketAddr),
}

impl From<Contact> for Bootstrap {
    fn from(contact: Contact) -> Bootstrap {
        Bootstrap::Contact(contact)
    }
}

impl From<SocketAddr> for Bootstrap {
    fn from(address: SocketAddr) -> Bootstrap {
        Bootstrap::Address(address)
    }
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No way in was given.
    #[error("no address of a node of the network is known: give one")]
    NowhereToGo,
    /// Somebody was reached and refused us, and nobody else admitted us.
    #[error("the network refused us: {0}")]
    Refused(Refusal),
    /// Nobody was reached.
    #[error(
        "no node of the network can be reached, in any of {tried} ways: start one, or give another address"
    )]
    Unreachable {
        /// How many were tried.
        tried: usize,
    },
}

/// Enters the network through any of `ways`, and returns how many contacts are known then.
///
/// # Errors
/// If nobody admits us.
///
/// # Suspends
/// At most for a dial and a lookup.
pub(crate) fn join(state: &Rc<State>, ways: &[Bootstrap]) -> Result<usize, JoinError> {
    if ways.is_empty() {
        return Err(JoinError::NowhereToGo);
    }
    if state.peers.is_revoked(&state.credentials.own) {
        return Err(JoinError::Refused(Refusal::Passport(PassportError::Revoked { link: 0 })));
    }
    // Those relays that an earlier run has met are connected to beside the nodes: whom we want next may be reached over them only.
    state.reach.tend(state);
    let attempts = Rc::new(Attempts::default());
    for way in ways.iter().cloned() {
        spawn_attempt(state, &attempts, way);
    }
    attempts.wait(ways.len());
    if state.table.borrow().live_count() == 0 {
        return Err(match attempts.refusal.take() {
            Some(refusal) => JoinError::Refused(refusal),
            None => JoinError::Unreachable { tried: ways.len() },
        });
    }
    // Whom it finds may be reached over relays only, which whoever let us in has told us of.
    state.reach.tend(state);
    let found = look_up_ourselves(state);
    tracing::debug!(asked = found.asked_count, found = found.closest.len(), "joined");
    Ok(state.table.borrow().live_count())
}

/// Tries one way in, in the background.
pub(crate) fn try_way(state: &Rc<State>, way: Bootstrap) {
    spawn_attempt(state, &Rc::default(), way);
}

/// Looks up our own position, which makes our neighbours and us known to each other.
///
/// # Suspends
/// For the lookup.
pub(crate) fn look_up_ourselves(state: &Rc<State>) -> Found {
    let seeds = state.table.borrow().closest(&state.own_id, K);
    let found = lookup(&Live::of(state, K), state.own_id, state.own_id, K, seeds);
    if !found.closest.is_empty() {
        state.joined.set(true);
    }
    found
}

/// How the attempts at joining went so far.
#[derive(Default)]
struct Attempts {
    ended: RefCell<(usize, usize)>,
    refusal: RefCell<Option<Refusal>>,
    changed: Signal,
}

impl Attempts {
    fn note(&self, succeeded: bool) {
        let mut ended = self.ended.borrow_mut();
        ended.0 += 1;
        ended.1 += usize::from(succeeded);
        drop(ended);
        self.changed.notify_all();
    }

    /// Waits until all have ended, or one has succeeded and the grace is over.
    fn wait(&self, count: usize) {
        let wait_until = |is_over: &dyn Fn(usize, usize) -> bool| {
            loop {
                let (ended, succeeded) = *self.ended.borrow();
                if ended >= count || is_over(ended, succeeded) {
                    break;
                }
                self.changed.wait();
            }
        };
        let _ = reactor::timeout(DIAL_TIMEOUT + PING_TIMEOUT, || wait_until(&|_, succeeded| succeeded > 0));
        let _ = reactor::timeout(GRACE, || wait_until(&|_, _| false));
    }
}

/// Notes a failure unless told otherwise, so that a terminated attempt is counted too.
struct Attempt {
    attempts: Rc<Attempts>,
    succeeded: Cell<bool>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.attempts.note(self.succeeded.get());
    }
}

fn spawn_attempt(state: &Rc<State>, attempts: &Rc<Attempts>, way: Bootstrap) {
    let attempt = Attempt { attempts: attempts.clone(), succeeded: Cell::new(false) };
    let state = state.clone();
    // An attempt that can't be spawned is dropped, and so counted as failed.
    let _ = reactor::Builder::new().spawn(move || match &way {
        Bootstrap::Contact(contact) => {
            let result = state.connect(contact, true, DIAL_TIMEOUT);
            if let Err(Unreached::Failed(error)) = &result {
                note_refusal(&attempt.attempts, error);
            }
            attempt.succeeded.set(result.is_ok());
        }
        Bootstrap::Address(address) if state.credentials.addresses.contains(address) => {}
        Bootstrap::Address(address) => match dial::dial_address(&state, Expect::Any, *address) {
            Ok(Dialled { stream, admitted, whereabouts }) => {
                state.ways.borrow_mut().on_met(&way, admitted.contact.public_key);
                let session = Session::begin(&state, stream, admitted, whereabouts);
                attempt.succeeded.set(true);
                drop(attempt);
                session.watch();
            }
            Err(error) => {
                tracing::debug!(%error, "no way in");
                note_refusal(&attempt.attempts, &error);
            }
        },
    });
}

fn note_refusal(attempts: &Attempts, error: &DialError) {
    if let DialError::Admission {
        source: AdmissionError::Refused(refusal) | AdmissionError::Unwelcome(refusal),
        ..
    } = error
        && *refusal != Refusal::SameKey
    {
        attempts.refusal.borrow_mut().get_or_insert(refusal.clone());
    }
}
