//! Accepting connections from anybody, at bounded cost.
//!
//! A stranger costs one of [`HALF_OPEN_MAX`] places for at most [`HANDSHAKE_TIMEOUT`], within which it must prove a key
//! and show a passport; rustls bounds what it buffers meanwhile, and the hello has a bound of its own. When all places
//! are taken, newcomers are closed at once: the network's own nodes try again within seconds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use reactor::net::tls;
use reactor::net::{TcpListener, TcpStream};

use crate::admission::{self, AdmissionError};
use crate::session::Session;
use crate::state::State;

/// Connections that have not been admitted yet. Each costs a stack and some 40 KiB of TLS buffers.
pub(crate) const HALF_OPEN_MAX: usize = 256;
/// Of those, from one address: an attacker needs several to keep others out.
pub(crate) const HALF_OPEN_PER_ADDRESS_MAX: usize = 64;
/// Admitted connections. Each costs four coroutines, and the kernel's limit of memory mappings gives some 32,000.
pub(crate) const INBOUND_MAX: usize = 2048;
/// How long a stranger may take until it is admitted: two round trips, and some lost packets.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept, most often for want of descriptors: others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that have not been admitted yet, by the address they come from.
#[derive(Default)]
struct HalfOpen {
    by_address: RefCell<HashMap<IpAddr, usize>>,
    count: Cell<usize>,
}

/// A stranger's place among them.
struct Place {
    half_open: Rc<HalfOpen>,
    address: IpAddr,
}

impl HalfOpen {
    fn take_place(self: &Rc<HalfOpen>, address: IpAddr) -> Option<Place> {
        let mut by_address = self.by_address.borrow_mut();
        let here = by_address.get(&address).copied().unwrap_or(0);
        if self.count.get() >= HALF_OPEN_MAX || here >= HALF_OPEN_PER_ADDRESS_MAX {
            return None;
        }
        by_address.insert(address, here + 1);
        self.count.set(self.count.get() + 1);
        Some(Place { half_open: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.half_open.by_address.borrow_mut();
        if let Some(here) = by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                by_address.remove(&self.address);
            }
        }
        self.half_open.count.set(self.half_open.count.get() - 1);
    }
}

/// Counts an accepted connection while it lives.
struct Inbound(Rc<Cell<usize>>);

impl Drop for Inbound {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Accepts until terminated.
///
/// # Suspends
/// Always.
pub(crate) fn accept_loop(state: &Rc<State>, listener: &TcpListener) {
    let (half_open, inbound_count) = (Rc::new(HalfOpen::default()), Rc::new(Cell::new(0)));
    loop {
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                reactor::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let place = half_open.take_place(address.ip()).filter(|_| inbound_count.get() < INBOUND_MAX);
        let Some(place) = place else {
            tracing::debug!(%address, "turned away: too many connections");
            continue;
        };
        inbound_count.set(inbound_count.get() + 1);
        let (state, inbound) = (state.clone(), Inbound(inbound_count.clone()));
        let served = reactor::Builder::new().spawn(move || {
            let _inbound = inbound;
            serve(&state, stream, address, place);
        });
        if let Err(error) = served {
            tracing::warn!(%address, %error, "turned away");
        }
    }
}

fn serve(state: &Rc<State>, stream: TcpStream, address: SocketAddr, place: Place) {
    let admit = || -> Result<_, AdmissionError> {
        stream.set_nodelay(true)?;
        let stream = tls::accept(stream, &state.identity)?;
        let peer = stream.peer();
        let admitted = admission::acceptor(&mut &stream, &state.credentials, peer, address)?;
        Ok((stream, admitted))
    };
    let result = reactor::timeout(HANDSHAKE_TIMEOUT, admit);
    drop(place);
    match result {
        Ok(Ok((stream, admitted))) => Session::begin(state, stream, admitted).watch(),
        // Scanners and lost dialers are daily bread; only a peer with a wrong passport is somebody's mistake.
        Ok(Err(error @ AdmissionError::Unwelcome(_))) => tracing::warn!(%address, %error),
        Ok(Err(error)) => tracing::debug!(%address, %error, "not admitted"),
        Err(_) => tracing::debug!(%address, "not admitted: too slow"),
    }
}
