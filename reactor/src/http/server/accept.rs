//! Where clients come from, and those who are turned away at the door.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{Shared, start_connection};
use crate::net::{Duplex, TcpListener, TcpStream, UnixListener, UnixStream};

/// What a client is told that there is no room for. It names no reason that would help an attacker to measure.
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// After the word to stop, a client that is in the kernel's queue is taken within this time.
const SWEEP_TIME: Duration = Duration::from_millis(5);

/// Something that takes connections.
pub trait Listen: 'static {
    /// A connection that was taken and is not yet ready: its TLS handshake, say, is still to come.
    type Incoming: 'static;
    /// A connection that is ready.
    type Stream: Duplex;

    /// Takes the next connection.
    ///
    /// # Errors
    ///
    /// Those of the socket; the server ends with them.
    ///
    /// # Suspends
    ///
    /// Until a client connects.
    fn accept(&self) -> io::Result<(Self::Incoming, Option<SocketAddr>)>;

    /// Makes a connection ready, on a coroutine of its own.
    ///
    /// # Errors
    ///
    /// The connection's alone.
    ///
    /// # Suspends
    ///
    /// For a handshake, which must bound its time itself.
    fn open(&self, incoming: Self::Incoming) -> io::Result<Self::Stream>;

    /// Turns a client away, with `response` if it can be sent at once. Never suspends.
    fn refuse(&self, incoming: Self::Incoming, response: &[u8]) {
        let _ = (incoming, response);
    }
}

impl Listen for TcpListener {
    type Incoming = TcpStream;
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        TcpListener::accept(self).map(|(stream, peer)| (stream, Some(peer)))
    }

    fn open(&self, incoming: TcpStream) -> io::Result<TcpStream> {
        Ok(incoming)
    }

    fn refuse(&self, incoming: TcpStream, response: &[u8]) {
        write_once(&incoming, response);
    }
}

impl Listen for UnixListener {
    type Incoming = UnixStream;
    type Stream = UnixStream;

    fn accept(&self) -> io::Result<(UnixStream, Option<SocketAddr>)> {
        UnixListener::accept(self).map(|stream| (stream, None))
    }

    fn open(&self, incoming: UnixStream) -> io::Result<UnixStream> {
        Ok(incoming)
    }

    fn refuse(&self, incoming: UnixStream, response: &[u8]) {
        write_once(&incoming, response);
    }
}

/// What fits into a fresh socket's buffer; nothing if it does not.
fn write_once(stream: &impl Duplex, response: &[u8]) {
    let _ = stream.write_with(&mut |writer| match writer.write(response) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    });
    let _ = stream.end();
}

/// A listener whose connections shake hands first: TLS over TCP, say.
pub struct Secured<L, F> {
    listener: L,
    handshake: F,
}

impl<L, F> Secured<L, F> {
    /// Calls `handshake` with each connection of `listener`.
    pub fn new(listener: L, handshake: F) -> Secured<L, F> {
        Secured { listener, handshake }
    }
}

impl<L: Listen, S: Duplex, F: Fn(L::Stream) -> io::Result<S> + 'static> Listen for Secured<L, F> {
    type Incoming = L::Incoming;
    type Stream = S;

    fn accept(&self) -> io::Result<(L::Incoming, Option<SocketAddr>)> {
        self.listener.accept()
    }

    fn open(&self, incoming: L::Incoming) -> io::Result<S> {
        (self.handshake)(self.listener.open(incoming)?)
    }
}

/// Accepts until the server drains, and then whoever is in the queue.
pub(super) fn run<L: Listen>(shared: &Rc<Shared>, listener: &Rc<L>) -> io::Result<()> {
    while !shared.draining.has_begun() {
        match shared.accepting.wait(|| listener.accept()) {
            Ok((incoming, peer)) => admit(shared, listener, incoming, peer),
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            Err(error) => {
                tracing::error!("an HTTP server no longer accepts: {error}");
                return Err(error);
            }
        }
    }
    while let Ok(Ok((incoming, peer))) = crate::timeout(SWEEP_TIME, || listener.accept()) {
        admit(shared, listener, incoming, peer);
    }
    Ok(())
}

fn admit<L: Listen>(shared: &Rc<Shared>, listener: &Rc<L>, incoming: L::Incoming, peer: Option<SocketAddr>) {
    let Some(guest) = shared.gate.knock(peer.map(|peer| peer.ip())) else {
        return listener.refuse(incoming, REFUSAL);
    };
    let opener = listener.clone();
    // Shared with the coroutine, so that it is still here if there can be none.
    let slot = Rc::new(std::cell::Cell::new(Some(incoming)));
    let taken = slot.clone();
    let open = move || opener.open(taken.take().ok_or(ErrorKind::NotFound)?);
    if !start_connection(shared, peer, guest, open)
        && let Some(incoming) = slot.take()
    {
        listener.refuse(incoming, REFUSAL);
    }
}
