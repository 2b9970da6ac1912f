//! Accepting connections from anybody, at bounded cost.
//!
//! A stranger costs one of [`HALF_OPEN_MAX`] places for at most [`HANDSHAKE_TIMEOUT`], within which it must prove a key
//! and show a passport; rustls bounds what it buffers meanwhile, and the hello has a bound of its own. When all places
//! are taken, newcomers are closed at once: the network's own nodes try again within seconds.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::net::tls;
use reactor::net::{Gate, GateLimits, Guest, TcpListener, TcpStream};

use crate::admission::{self, AdmissionError, Visitor};
use crate::invitation::Answer;
use crate::session::Session;
use crate::state::State;

/// Connections that have not been admitted yet. Each costs a stack and some 40 KiB of TLS buffers.
pub(crate) const HALF_OPEN_MAX: usize = 256;
/// Of those, from one address: an attacker needs several to keep others out.
pub(crate) const HALF_OPEN_PER_ADDRESS_MAX: usize = 64;
/// Connections in all, those not admitted among them. Each costs four coroutines, and the kernel's limit of memory mappings gives some 32,000.
pub(crate) const INBOUND_MAX: usize = 2048;
/// How long a stranger may take until it is admitted: two round trips, and some lost packets.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept, most often for want of descriptors: others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until terminated.
///
/// # Suspends
/// Always.
pub(crate) fn accept_loop(state: &Rc<State>, listener: &TcpListener) {
    let gate = Gate::new(GateLimits {
        connections: INBOUND_MAX,
        strangers: HALF_OPEN_MAX,
        strangers_per_address: HALF_OPEN_PER_ADDRESS_MAX,
        // A site's nodes may all come from one address.
        ..GateLimits::UNBOUNDED
    });
    loop {
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                reactor::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let Some(guest) = gate.knock(Some(address.ip())) else {
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

fn serve(state: &Rc<State>, stream: TcpStream, address: SocketAddr, mut guest: Guest) {
    let admit = || -> Result<_, AdmissionError> {
        stream.set_nodelay(true)?;
        let stream = tls::accept(stream, &state.identity)?;
        let peer = stream.peer();
        match admission::acceptor(&mut &stream, &state.credentials, peer, address)? {
            Visitor::Member(admitted) => Ok(Some((stream, *admitted))),
            Visitor::Stranger(letter) => {
                let reply = state.letterbox.borrow_mut().bring(*letter, reactor::now());
                let answer = match reply {
                    Ok(None) => Answer::Waiting,
                    Ok(Some(reply)) => Answer::Replied(reply),
                    Err(why) => Answer::Declined(why),
                };
                admission::answer(&mut &stream, &answer)?;
                Ok(None)
            }
        }
    };
    let result = reactor::timeout(HANDSHAKE_TIMEOUT, admit);
    match result {
        Ok(Ok(None)) => tracing::debug!(%address, "a stranger brought a letter"),
        Ok(Ok(Some((stream, admitted)))) => {
            guest.admit();
            Session::begin(state, stream, admitted).watch();
        }
        // Scanners and lost dialers are daily bread; only a peer with a wrong passport is somebody's mistake.
        Ok(Err(error @ AdmissionError::Unwelcome(_))) => tracing::warn!(%address, %error),
        Ok(Err(error)) => tracing::debug!(%address, %error, "not admitted"),
        Err(_) => tracing::debug!(%address, "not admitted: too slow"),
    }
}
