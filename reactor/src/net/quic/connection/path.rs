//! What a connection makes of the path that its datagrams take: how much it hands over ahead of it, that it may change, and
//! that there may be none.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Instant;

use super::super::config::SEND_WINDOW_BYTES;
use super::super::error::Lost;
use super::super::progress::waiting_since;
use super::super::routes::virtual_number;
use super::super::wire;
use super::{Connection, Inner};
use crate::clock::now;

/// A connection, to who may know of it and must not keep it.
pub(crate) struct WeakConnection(Weak<Inner>);

impl Connection {
    pub(crate) fn downgrade(&self) -> WeakConnection {
        WeakConnection(Rc::downgrade(&self.inner))
    }
}

impl WeakConnection {
    fn up(&self) -> Option<Rc<Inner>> {
        self.0.upgrade().filter(|inner| inner.lost.borrow().is_none())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up().is_some()
    }

    /// Its datagrams take a better way from now on: what was learnt of the old one is forgotten as soon as that is safe.
    pub(crate) fn on_better_path(&self) {
        if let Some(inner) = self.up() {
            inner.has_better_path.set(true);
            self.ping();
        }
    }

    /// Sends something that the peer has to acknowledge: what was lost is noticed by it, and sent again.
    pub(crate) fn ping(&self) {
        if let Some(inner) = self.up() {
            inner.proto.borrow_mut().ping();
            inner.touch();
        }
    }

    /// See [`waiting_since`].
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.up().and_then(|inner| waiting_since(inner.proto.borrow().congestion_state()))
    }
}

impl Inner {
    pub(in super::super) fn keep_unsent_below(self: &Rc<Self>, bytes: u32) {
        self.unsent_max.set(Some(self.unsent_max.get().map_or(bytes, |other| other.min(bytes))));
        self.bound_unsent();
    }

    /// Takes from writers what the path is thought to hold (its congestion window) and little more, so that what is urgent
    /// does not wait behind megabytes that have yet to leave.
    pub(super) fn bound_unsent(&self) {
        if let Some(unsent) = self.unsent_max.get() {
            let mut proto = self.proto.borrow_mut();
            let window = proto.congestion_state().window().saturating_add(unsent.into());
            proto.set_send_window(window.min(SEND_WINDOW_BYTES));
        }
    }

    /// Forgets the round trip, the window and the largest datagram of a path that is not in use any more. Not while nothing
    /// is acknowledged: quinn-proto doubles its patience with each try that was in vain, and from the third of a second
    /// that an unknown path begins with that soon is minutes.
    pub(super) fn adopt_path(&self) {
        if !self.has_better_path.get() {
            return;
        }
        let mut proto = self.proto.borrow_mut();
        let patience = 2 * proto.rtt();
        if waiting_since(proto.congestion_state()).is_none_or(|since| now() < since + patience) {
            proto.path_changed(now());
            self.has_better_path.set(false);
        }
    }

    /// A datagram could not be sent. What is dialled fails at once where there is no way to it; what stands, or has a
    /// relay to fall back on, may find its way again.
    pub(in super::super) fn on_send_error(self: &Rc<Self>, error: &io::Error) {
        let is_dialling = self.peer.get().is_none() && self.handshake_until.get().is_none();
        if is_dialling && !self.is_routed() && wire::is_no_way(error) && self.lost.borrow().is_none() {
            let reason = format!("there is no way to {}: {error}", self.proto.borrow().remote_address());
            self.fail(Lost::new(error.kind(), reason));
        }
    }

    /// Whether it listens to what comes from there. A peer that is reached by [`routes`](super::routes) has one address for
    /// good, and nobody else may speak for it: quinn-proto would take what somebody hands on under another's name, a relay
    /// or another client of one, for a move of the peer. Of moves between real addresses it is the judge.
    pub(in super::super) fn takes_from(&self, from: SocketAddr) -> bool {
        !(self.is_routed() || virtual_number(from.ip()).is_some()) || self.is_at(Some(from))
    }

    fn is_routed(&self) -> bool {
        self.is_at(None)
    }

    /// Whether its peer has that virtual address, or any.
    fn is_at(&self, address: Option<SocketAddr>) -> bool {
        let remote = self.proto.borrow().remote_address();
        address.map_or_else(|| virtual_number(remote.ip()).is_some(), |address| address == remote)
    }

    /// There is no way to the virtual address: what is still being dialled there fails.
    pub(in super::super) fn on_unreachable(self: &Rc<Self>, address: SocketAddr, reason: &str) {
        let is_dialling = self.peer.get().is_none() && self.handshake_until.get().is_none();
        if is_dialling && self.is_at(Some(address)) && self.lost.borrow().is_none() {
            self.fail(Lost::new(ErrorKind::NotFound, reason));
        }
    }
}
