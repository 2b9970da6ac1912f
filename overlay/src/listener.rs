//! Accepting connections from anybody, at bounded cost.
//!
//! A stranger costs one of [`HALF_OPEN_MAX`] places for at most [`HANDSHAKE_TIMEOUT`], within which it must prove a key
//! and show a passport; rustls bounds what it buffers meanwhile, and the hello has a bound of its own. When all places
//! are taken, newcomers are closed at once: the network's own nodes try again within seconds.
//!
//! Whichever way somebody comes, by TCP or by our id over a relay, the same is asked of it. Who comes by our id has proved its key
//! before, and that is what it is counted by; there are places of their own for those who come so, so that a relay, or a member
//! at it, keeps nobody out who comes by TCP. At a node that is a relay itself, clients of the relay come to the same port
//! (`relaying.rs`).

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use reactor::crypto::PublicKey;
use reactor::nat::peers::Peers as Carrier;
use reactor::nat::relay;
use reactor::net::tls::{self, TlsStream};
use reactor::net::{GateLimits, Guest, TcpListener, TcpStream, quic};

use crate::admission::{self, AdmissionError, Admitted, Visitor};
use crate::connections::PEER_CONNECTIONS_MAX;
use crate::invitation::Answer;
use crate::peers::Whereabouts;
use crate::reach;
use crate::session::Session;
use crate::state::State;

/// Connections that have not been admitted yet. Each costs a stack and some 40 KiB of TLS buffers.
pub(crate) const HALF_OPEN_MAX: usize = 256;
/// Of those, from one address: an attacker needs several to keep others out.
pub(crate) const HALF_OPEN_PER_ADDRESS_MAX: usize = 64;
/// Connections in all, those not admitted among them. Each costs a descriptor, four coroutines and TLS's buffers.
pub(crate) const INBOUND_MAX: usize = 2048;
/// The same, to the gate.
pub(crate) const LIMITS: GateLimits = GateLimits {
    connections: INBOUND_MAX,
    strangers: HALF_OPEN_MAX,
    strangers_per_address: HALF_OPEN_PER_ADDRESS_MAX,
    // A site's nodes may all come from one address.
    ..GateLimits::UNBOUNDED
};
/// Connections that have come by our id and have not been admitted yet.
pub(crate) const HALF_OPEN_BY_ID_MAX: usize = 128;
/// Of those, under one key: two processes that come at once, and come again. A relay can make keys up, and so keep out others
/// who come by our id; none who comes by TCP.
pub(crate) const HALF_OPEN_PER_KEY_MAX: usize = 4;
/// Connections by our id in all, those not admitted among them.
pub(crate) const INBOUND_BY_ID_MAX: usize = 1024;
/// The same, to their gate.
pub(crate) const LIMITS_BY_ID: GateLimits = GateLimits {
    connections: INBOUND_BY_ID_MAX,
    connections_per_address: PEER_CONNECTIONS_MAX,
    strangers: HALF_OPEN_BY_ID_MAX,
    strangers_per_address: HALF_OPEN_PER_KEY_MAX,
};
/// How long a stranger may take until it is admitted: two round trips, and some lost packets.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept, most often for want of descriptors: others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until terminated.
///
/// # Suspends
/// Always.
pub(crate) fn accept_loop(state: &Rc<State>, listener: &TcpListener) {
    loop {
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                reactor::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        // By a socket for both families those of IPv4 come under another name.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let Some(guest) = state.gate.knock(Some(address.ip())) else {
            tracing::debug!(%address, "turned away: too many connections");
            continue;
        };
        let state = state.clone();
        let served = reactor::Builder::new().spawn(move || serve(&state, stream, address, guest));
        if let Err(error) = served {
            tracing::warn!(%address, %error, "turned away");
        }
    }
}

/// Accepts those who seek us by our id, until terminated.
///
/// # Suspends
/// Always.
pub(crate) fn accept_by_id(state: &Rc<State>, carrier: &Rc<Carrier>) {
    loop {
        let connection = match carrier.accept_stranger() {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "nobody can come by our id any more");
                return;
            }
        };
        let Some(guest) = state.gate_by_id.knock_as(Some(connection.peer())) else {
            tracing::debug!("turned away, over a relay: too many connections");
            connection.close();
            continue;
        };
        let (state, whereabouts) = (state.clone(), reach::whereabouts(carrier, &connection));
        // What waits for a stranger does not keep the carrier.
        let carrier = Rc::downgrade(carrier);
        let serve = move || serve_by_id(&state, (&carrier, &connection), whereabouts, guest);
        if let Err(error) = reactor::Builder::new().spawn(serve) {
            tracing::warn!(%error, "turned away, over a relay");
        }
    }
}

/// Who has come by TCP.
enum Visit {
    /// Somebody who is served.
    Member(TlsStream<TcpStream>, Box<Admitted>),
    /// A stranger, who has its answer.
    Stranger,
    /// A client of the relay that we are.
    Relayed(TlsStream<TcpStream>),
}

fn serve(state: &Rc<State>, stream: TcpStream, address: SocketAddr, mut guest: Guest) {
    let admit = || -> Result<_, AdmissionError> {
        stream.set_nodelay(true)?;
        let protocols = [tls::PROTOCOL, relay::PROTOCOL];
        let spoken = if state.relaying.get().is_some() { &protocols[..] } else { &protocols[..1] };
        let stream = tls::accept_speaking(stream, &state.identity, spoken)?;
        if stream.alpn().as_deref() == Some(relay::PROTOCOL.as_bytes()) {
            return Ok(Visit::Relayed(stream));
        }
        let peer = stream.peer();
        let admitted = let_in(state, &mut &stream, peer, Some(address))?;
        Ok(admitted.map_or(Visit::Stranger, |admitted| Visit::Member(stream, admitted)))
    };
    let result = reactor::timeout(HANDSHAKE_TIMEOUT, admit);
    match result {
        Ok(Ok(Visit::Stranger)) => tracing::debug!(%address, "a stranger brought a letter"),
        Ok(Ok(Visit::Member(stream, admitted))) => {
            guest.admit();
            Session::begin(state, stream, *admitted, Whereabouts::At(address)).watch();
        }
        Ok(Ok(Visit::Relayed(stream))) => {
            let Some(relaying) = state.relaying.get() else { return };
            if let Err(error) = relaying.relay().attend(stream, guest) {
                tracing::debug!(%address, %error, "a client of the relay has left");
            }
        }
        Ok(Err(error)) => tell_refusal(&address, &error),
        Err(_) => tracing::debug!(%address, "not admitted: too slow"),
    }
}

fn serve_by_id(
    state: &Rc<State>,
    (carrier, connection): (&Weak<Carrier>, &quic::Connection),
    whereabouts: Whereabouts,
    mut guest: Guest<PublicKey>,
) {
    let admit = || -> Result<_, AdmissionError> {
        let stream = connection.accept()?;
        let admitted = let_in(state, &mut &stream, connection.peer(), None)?;
        Ok(admitted.map(|admitted| (stream, admitted)))
    };
    match reactor::timeout(HANDSHAKE_TIMEOUT, admit) {
        Ok(Ok(None)) => tracing::debug!("a stranger brought a letter over a relay"),
        Ok(Ok(Some((stream, admitted)))) => {
            guest.admit();
            // Members alone are told where we are, and have us send to where they say that they are.
            if let Some(carrier) = carrier.upgrade() {
                carrier.admit(connection);
            }
            Session::begin(state, stream, *admitted, whereabouts).watch();
        }
        Ok(Err(error)) => tell_refusal(&"over a relay", &error),
        Err(_) => tracing::debug!("not admitted, over a relay: too slow"),
    }
}

/// Exchanges passports, and answers a stranger; a member that has been admitted.
fn let_in(
    state: &Rc<State>,
    stream: &mut (impl Read + Write),
    peer: PublicKey,
    address: Option<SocketAddr>,
) -> Result<Option<Box<Admitted>>, AdmissionError> {
    match admission::acceptor(stream, &state.credentials, peer, address)? {
        Visitor::Member(admitted) => Ok(Some(admitted)),
        Visitor::Stranger(letter) => {
            let reply = state.letterbox.borrow_mut().bring(*letter, reactor::now());
            let answer = match reply {
                Ok(None) => Answer::Waiting,
                Ok(Some(reply)) => Answer::Replied(reply),
                Err(why) => Answer::Declined(why),
            };
            admission::answer(stream, &answer)?;
            Ok(None)
        }
    }
}

fn tell_refusal(from: &dyn std::fmt::Display, error: &AdmissionError) {
    match error {
        // Scanners and lost dialers are daily bread; only a peer with a wrong passport is somebody's mistake.
        AdmissionError::Unwelcome(_) => tracing::warn!(%from, %error),
        _ => tracing::debug!(%from, %error, "not admitted"),
    }
}
