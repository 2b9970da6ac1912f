//! Accepting connections from anybody, at bounded cost.
//!
//! A stranger costs one of [`HALF_OPEN_MAX`] places for at most [`HANDSHAKE_TIMEOUT`], within which it must prove a key
//! and show a passport; rustls bounds what it buffers meanwhile, and the hello has a bound of its own. When all places
//! are taken, newcomers are closed at once: the network's own nodes try again within seconds.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::net::tls;
use reactor::net::{TcpListener, TcpStream};

use crate::admission::{self, AdmissionError};
use crate::session::Session;
use crate::state::State;

/// Connections that have not been admitted yet. Each costs a stack and some 40 KiB of TLS buffers.
pub(crate) const HALF_OPEN_MAX: usize = 128;
/// Admitted connections. Each costs four coroutines, and the kernel's limit of memory mappings gives some 32,000.
pub(crate) const INBOUND_MAX: usize = 2048;
/// How long a stranger may take until it is admitted: two round trips, and some lost packets.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept, most often for want of descriptors: others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Counts something while it lives.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(count: &Rc<Cell<usize>>, limit: usize) -> Option<Place> {
        (count.get() < limit).then(|| {
            count.set(count.get() + 1);
            Place(count.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Accepts until terminated.
///
/// # Suspends
/// Always.
pub(crate) fn accept_loop(state: &Rc<State>, listener: &TcpListener) {
    let (half_open, inbound) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    loop {
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                reactor::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let (Some(handshake), Some(place)) =
            (Place::take(&half_open, HALF_OPEN_MAX), Place::take(&inbound, INBOUND_MAX))
        else {
            tracing::debug!(%address, "turned away: too many connections");
            continue;
        };
        let state = state.clone();
        let served = reactor::Builder::new().spawn(move || {
            let _place = place;
            serve(&state, stream, address, handshake);
        });
        if let Err(error) = served {
            tracing::warn!(%address, %error, "turned away");
        }
    }
}

fn serve(state: &Rc<State>, stream: TcpStream, address: SocketAddr, handshake: Place) {
    let admit = || -> Result<_, AdmissionError> {
        stream.set_nodelay(true)?;
        let stream = tls::accept(stream, &state.identity)?;
        let peer = stream.peer();
        let admitted = admission::acceptor(&mut &stream, &state.credentials, peer, address)?;
        Ok((stream, admitted))
    };
    let result = reactor::timeout(HANDSHAKE_TIMEOUT, admit);
    drop(handshake);
    match result {
        Ok(Ok((stream, admitted))) => Session::begin(state, stream, admitted).watch(),
        // Scanners and lost dialers are daily bread; only a peer with a wrong passport is somebody's mistake.
        Ok(Err(error @ AdmissionError::Unwelcome(_))) => tracing::warn!(%address, %error),
        Ok(Err(error)) => tracing::debug!(%address, %error, "not admitted"),
        Err(_) => tracing::debug!(%address, "not admitted: too slow"),
    }
}
