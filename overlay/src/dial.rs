//! Reaching a peer: TCP, the TLS handshake that proves its key, the exchange of passports; in one bounded time.
//!
//! A peer with several addresses is tried at all of them, each [`STAGGER`] after the one before, and the first that
//! admits us wins (after RFC 8305's "happy eyeballs"): one black-holed address must not cost its whole timeout.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::net::TcpStream;
use reactor::net::tls::{self, Expect, TlsStream};
use reactor::sync::Signal;

use crate::admission::{self, AdmissionError, Admitted, Credentials};

/// The longest a dial to one address takes: three round trips, and one lost packet's retransmission at each.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the first address is tried alone. RFC 8305 section 5: 250 ms.
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

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
    /// TLS failed: it is no node, or another one.
    #[error("{address} did not prove to be the expected node: {source}")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// How.
        source: io::Error,
    },
    /// The passports were exchanged to no avail.
    #[error("{address}: {source}")]
    Admission {
        /// Where.
        address: SocketAddr,
        /// How.
        source: AdmissionError,
    },
    /// Nothing came back.
    #[error("{address} did not answer within {DIAL_TIMEOUT:?}: it may be down, or behind a firewall")]
    TimedOut {
        /// Where.
        address: SocketAddr,
    },
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// An admitted stream to a peer.
pub(crate) struct Dialled {
    pub(crate) stream: TlsStream,
    pub(crate) admitted: Admitted,
}

/// Dials one address.
///
/// # Suspends
/// At most [`DIAL_TIMEOUT`].
pub(crate) fn dial_address(
    identity: &Rc<Identity>,
    ours: &Credentials,
    expected: Expect,
    address: SocketAddr,
) -> Result<Dialled, DialError> {
    let dial = || {
        let connect = |source| DialError::Connect { address, source };
        let stream = TcpStream::connect_one(address).map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let handshake = tls::connect(stream, identity, expected);
        let stream = handshake.map_err(|source| DialError::Handshake { address, source })?;
        let peer = stream.peer();
        let admitted = admission::dialler(&mut &stream, ours, peer, address);
        let admitted = admitted.map_err(|source| DialError::Admission { address, source })?;
        Ok(Dialled { stream, admitted })
    };
    reactor::timeout(DIAL_TIMEOUT, dial).unwrap_or(Err(DialError::TimedOut { address }))
}

/// Dials the addresses of one peer, the first ones first, and returns the first success or the last failure.
///
/// # Suspends
/// At most [`DIAL_TIMEOUT`] and a [`STAGGER`] per address.
pub(crate) fn dial_any(
    identity: &Rc<Identity>,
    ours: &Credentials,
    expected: Expect,
    addresses: &[SocketAddr],
) -> Result<Dialled, DialError> {
    if let [address] = addresses {
        return dial_address(identity, ours, expected, *address);
    }
    let outcome = RefCell::new((0, Err(DialError::NoAddress)));
    let ended = Signal::new();
    let (outcome_of, ended_of) = (&outcome, &ended);
    reactor::scope(|s| {
        let mut tries = Vec::new();
        let is_won = || outcome_of.borrow().1.is_ok();
        for (index, &address) in addresses.iter().enumerate() {
            tries.push(s.spawn(move || {
                let result = dial_address(identity, ours, expected, address);
                let mut outcome = outcome_of.borrow_mut();
                outcome.0 += 1;
                if outcome.1.is_err() {
                    outcome.1 = result;
                }
                drop(outcome);
                ended_of.notify_all();
            }));
            // The next address once this one failed, or is slow.
            let _ = reactor::timeout(STAGGER, || {
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
