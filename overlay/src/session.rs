//! A connection's life, one coroutine each: admitted, entered in the books, watched until it closes, struck out.
//!
//! Dialled or accepted makes no difference once the peer is admitted. The table learns of a contact only here, because
//! only here a handshake has just proved its key. When a connection closes, its peer may be dead, restarting, or only
//! have dropped an idle connection: a ping over a new one tells, within milliseconds on a refused port.

use std::cell::Cell;
use std::rc::Rc;

use reactor::net::tls::{Expect, TlsStream};
use reactor::rpc::{CloseReason, Config, Connection};

use crate::admission::{AdmissionError, Admitted};
use crate::connections::Dial;
use crate::contact::{Addresses, Contact};
use crate::dial::{self, DialError};
use crate::k_bucket::Insert;
use crate::peers::Role;
use crate::renewing;
use crate::revoking;
use crate::state::State;
use crate::stating;

/// An admitted connection; struck from the books when dropped.
pub(crate) struct Session {
    state: Rc<State>,
    admitted: Admitted,
    connection: Connection,
}

impl Session {
    /// Starts RPC on the stream of an admitted peer, and enters it in the books.
    pub(crate) fn begin(state: &Rc<State>, stream: TlsStream, admitted: Admitted) -> Session {
        let key = admitted.contact.public_key;
        // Rights first: the peer's first call may be in the stream already.
        state.peers.enter(key, admitted.peer, admitted.passport.clone(), admitted.address);
        let connection = Connection::start(stream, state.service(), Config::default());
        // It may have been revoked since its passport was looked at.
        let is_member = state.peers.admit(&admitted.passport).is_ok();
        if state.stopping.get() || !is_member {
            connection.close();
        } else {
            state.pool.add(key, connection.clone(), reactor::now());
            let ours = state.peers.revocations().version();
            if admitted.revocations.is_some_and(|theirs| theirs < ours) {
                revoking::hand_over(state, connection.clone());
            }
            renewing::greet(state, &connection, &admitted);
            if let Some(newest) = admitted.contact.record().filter(|_| admitted.is_record_stale) {
                stating::remind(state, connection.clone(), newest.clone());
            }
        }
        if admitted.peer.role == Role::Storage && is_member {
            let insert = state.change_table(|table, now| table.on_seen(admitted.contact.clone(), now));
            if matches!(insert, Some(Insert::Added | Insert::Changed)) {
                tracing::info!(contact = %admitted.contact, "connected to a node");
            }
        }
        Session { state: state.clone(), admitted, connection }
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
        self.state.peers.leave(&self.admitted.contact.public_key);
        self.state.pool.sweep(&self.admitted.contact.public_key);
    }
}

/// Dials `contact` in a coroutine of its own, which reports to `dial` and then stays as the session.
pub(crate) fn spawn_dial(state: &Rc<State>, contact: Contact, addresses: Addresses, dial: Rc<Dial>) {
    let report =
        Report { state: state.clone(), contact, addresses, dial: dial.clone(), is_made: Cell::new(false) };
    let task = reactor::Builder::new().spawn(move || {
        let state = report.state.clone();
        let expected = Expect::Key(report.contact.public_key);
        match dial::dial_any(&state.identity, &state.credentials, expected, &report.addresses) {
            Ok(dialled) => {
                let session = Session::begin(&state, dialled.stream, dialled.admitted);
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
    addresses: Addresses,
    dial: Rc<Dial>,
    is_made: Cell<bool>,
}

impl Report {
    fn make(&self, result: Result<Connection, DialError>) {
        self.is_made.set(true);
        let result = result.map_err(|error| (error, self.addresses.clone()));
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
