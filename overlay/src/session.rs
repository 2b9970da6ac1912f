//! A connection's life, one coroutine each: admitted, entered in the books, watched until it closes, struck out.
//!
//! Dialled or accepted makes no difference once the peer is admitted. The table learns of a contact only here, because
//! only here a handshake has just proved its key. When a connection closes, its peer may be dead, restarting, or only
//! have dropped an idle connection: a ping over a new one tells, within milliseconds on a refused port.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use reactor::crypto::PublicKey;
use reactor::net::Duplex;
use reactor::rpc::{CloseReason, Config, Connection};

use crate::admission::{AdmissionError, Admitted};
use crate::connections::Dial;
use crate::contact::Contact;
use crate::dial::{self, DialError, Dialled, Places};
use crate::k_bucket::Insert;
use crate::message::Ping;
use crate::peers::{Role, Visit, Whereabouts};
use crate::renewing;
use crate::revoking;
use crate::state::{PING_TIMEOUT, State};
use crate::stating;

/// An admitted connection; struck from the books when dropped.
pub(crate) struct Session {
    state: Rc<State>,
    admitted: Admitted,
    connection: Connection,
    visit: Visit,
}

impl Session {
    /// Starts RPC on the stream of an admitted peer, and enters it in the books.
    pub(crate) fn begin(
        state: &Rc<State>,
        stream: impl Duplex,
        mut admitted: Admitted,
        whereabouts: Whereabouts,
    ) -> Session {
        let key = admitted.contact.public_key;
        let is_by_id = matches!(whereabouts, Whereabouts::ById(_));
        if is_by_id {
            admitted.contact = state.also_where_it_was(admitted.contact);
        }
        let earlier = state.peers.direct_visit(&key).zip(state.pool.newest(&key));
        // Rights first: the peer's first call may be in the stream already.
        let visit = state.peers.enter(key, admitted.peer, admitted.passport.clone(), whereabouts);
        let connection = Connection::start(stream, state.service(), Config::default());
        // It may have been revoked since its passport was looked at.
        let is_member = state.peers.admit(&admitted.passport).is_ok();
        if state.stopping.get() || !is_member {
            connection.close();
        } else {
            state.pool.add(key, connection.clone(), reactor::now());
            if let Some((direct, tcp)) = earlier.filter(|_| is_by_id) {
                prefer_if_it_lives(state, key, direct, tcp);
            }
            let ours = state.peers.revocations().version();
            if admitted.revocations.is_some_and(|theirs| theirs < ours) {
                revoking::hand_over(state, connection.clone());
            }
            renewing::greet(state, &connection, &admitted);
            if let Some(newest) = admitted.contact.record().filter(|_| admitted.is_record_stale) {
                stating::remind(state, connection.clone(), newest.clone());
            } else if let Some(said) = admitted.contact.record() {
                stating::show_itself(state, said, true);
            }
        }
        if admitted.peer.role == Role::Storage && is_member {
            let insert = state.change_table(|table, now| table.on_seen(admitted.contact.clone(), now));
            if matches!(insert, Some(Insert::Added | Insert::Changed)) {
                tracing::info!(contact = %admitted.contact, "connected to a node");
            }
        }
        Session { state: state.clone(), admitted, connection, visit }
    }

    /// The connection.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits until the connection closes, then finds out whether the peer is gone.
    ///
    /// # Suspends
    /// Until it closes.
    pub(crate) fn watch(self) {
        let reason = self.connection.wait_closed();
        let (state, contact) = (self.state.clone(), self.admitted.contact.clone());
        drop(self);
        tracing::debug!(%contact, %reason, "a connection ended");
        if reason == CloseReason::Local {
            return;
        }
        let is_known = state.table.borrow().get(&contact.id).is_some_and(|entry| entry.is_live());
        if is_known && !state.pool.is_connected(&contact.public_key) {
            state.probe(&contact);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.close();
        self.state.peers.leave(&self.admitted.contact.public_key, self.visit);
        self.state.pool.sweep(&self.admitted.contact.public_key);
    }
}

/// A peer that is connected by TCP has come by our id as well: if both have dialled at once, calls go on over TCP, which carries
/// more for less. If the peer has moved, TCP is dead and does not know it yet.
fn prefer_if_it_lives(state: &Rc<State>, key: PublicKey, visit: Visit, tcp: Connection) {
    let state = state.clone();
    // At the limit of coroutines the newest takes the calls, as ever.
    let _ = reactor::Builder::new().spawn(move || {
        if tcp.call::<Ping>(&(), Bytes::new(), PING_TIMEOUT).is_ok() {
            state.pool.prefer(&key, &tcp);
            state.peers.prefer(&key, visit);
        }
    });
}

/// Dials `contact` in a coroutine of its own, which reports to `dial` and then stays as the session.
pub(crate) fn spawn_dial(state: &Rc<State>, contact: Contact, places: Places, dial: Rc<Dial>) {
    let report =
        Report { state: state.clone(), contact, places, dial: dial.clone(), is_made: Cell::new(false) };
    let task = reactor::Builder::new().spawn(move || {
        let state = report.state.clone();
        match dial::dial_any(&state, &report.contact.public_key, &report.places) {
            Ok(Dialled { stream, admitted, whereabouts }) => {
                let session = Session::begin(&state, stream, admitted, whereabouts);
                report.make(Ok(session.connection().clone()));
                drop(report);
                session.watch();
            }
            Err(error) => {
                if let DialError::Admission { source: AdmissionError::Refused(_), .. } = &error {
                    // Nothing gets better by itself here: somebody has to look at a passport.
                    tracing::warn!(contact = %report.contact, %error);
                }
                if !state.pool.is_connected(&report.contact.public_key) {
                    state.change_table(|table, now| table.on_failed(&report.contact.id, now));
                }
                report.make(Err(error));
            }
        }
    });
    // If it could not be spawned, the closure has been dropped, and its report says so.
    if let Ok(task) = task {
        dial.set_task(task);
    }
}

/// Tells those who wait for a dial how it ended, even if its coroutine is terminated.
struct Report {
    state: Rc<State>,
    contact: Contact,
    places: Places,
    dial: Rc<Dial>,
    is_made: Cell<bool>,
}

impl Report {
    fn make(&self, result: Result<Connection, DialError>) {
        self.is_made.set(true);
        let result = result.map_err(|error| (error, self.places.clone()));
        self.state.pool.on_dialled(&self.contact.public_key, &self.dial, result, reactor::now());
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.is_made.get() {
            self.make(Err(DialError::Stopping));
        }
    }
}
