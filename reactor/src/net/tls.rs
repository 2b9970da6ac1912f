//! TLS 1.3 between peers who know each other by key; see `raw_public_key.rs` for who is trusted.
//!
//! rustls does the protocol and never touches a socket: bytes go in, bytes come out. This file moves them.
//! Three things shape it:
//! - One coroutine reads while another writes. rustls's state sits in a `RefCell`, borrowed only between two
//!   waits: ciphertext leaves through [`Duplex::write_with`], whose closure does not suspend.
//! - rustls reads 4 KiB at a time by itself. A read buffer of up to 256 KiB in front of it takes a system call
//!   per 256 KiB instead; it starts small and grows only where the peer sends that fast.
//! - A flush of many small messages is one record and one `send`: plaintext is gathered before it is sealed.
//!
//! An end without `close_notify` is an error (`UnexpectedEof`), so a cut connection is never taken for a
//! finished one.
//!
//! What it is not: HTTPS. There are no certificates, no names, no resumption, and no earlier version.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConnection, Connection, ServerConnection};

use super::duplex::WriteOnce;
use super::raw_public_key::{client_config, decode_key, server_config};
use super::{Duplex, TcpStream};
use crate::crypto::{Identity, PublicKey};

/// How long a handshake may take: two round trips over the slowest of links (a second each, with loss), and
/// short enough that a silent client does not hold a descriptor for long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection reads at once to begin with: a record, which is all that small calls need.
const READ_SIZE_BYTES_MIN: usize = 16 << 10;

/// What a busy connection reads at once: a system call per sixteen records.
const READ_SIZE_BYTES_MAX: usize = 256 << 10;

/// After so many reads in a row that a small buffer would have held, the large one is given back: a connection
/// that once moved a file should not cost 256 KiB for ever, and one that moves many should not allocate for each.
const SMALL_READS_MAX: u32 = 16;

/// How much plaintext is sealed before it is written out: one gathering `send` of up to 64 records' slices.
const SEALED_AHEAD_BYTES_MAX: usize = 512 << 10;

/// Whom a client will talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The holder of this key.
    Key(PublicKey),
    /// The holder of a key with this SHA3-256, which is what a node's id is.
    Fingerprint([u8; 32]),
    /// Anyone; [`TlsStream::peer`] then tells whom. For a first contact of which only the address is known.
    Any,
}

/// A TLS connection whose handshake is done: both sides have proved their keys.
///
/// Dropping it closes the socket without a word; [`Duplex::end`] says goodbye first.
pub struct TlsStream<S: Duplex = TcpStream> {
    stream: S,
    state: RefCell<State>,
    /// A coroutine is writing records out, and will write whatever is added meanwhile.
    flushing: Cell<bool>,
    peer: PublicKey,
}

struct State {
    tls: Connection,
    /// Ciphertext that has been read: `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    read_size: usize,
    small_reads: u32,
}

/// Shakes hands as the client.
///
/// # Errors
/// `InvalidData` if the peer is not the one expected or does not speak our TLS; `TimedOut` after
/// [`HANDSHAKE_TIMEOUT`]; `UnexpectedEof` if the peer hangs up, as it does on a client that it can't read.
///
/// # Suspends
/// For a round trip.
pub fn connect<S: Duplex>(stream: S, identity: &Rc<Identity>, expect: Expect) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from("peer").expect("a constant that parses");
    let config = client_config(identity, expect).map_err(tls_error)?;
    let tls = ClientConnection::new(Arc::new(config), name).map_err(tls_error)?;
    shake_hands(stream, tls.into())
}

/// Shakes hands as the server; any client that proves a key is let in.
///
/// # Errors
/// As [`connect`].
///
/// # Suspends
/// For a round trip and a half.
pub fn accept<S: Duplex>(stream: S, identity: &Rc<Identity>) -> io::Result<TlsStream<S>> {
    let config = server_config(identity).map_err(tls_error)?;
    let tls = ServerConnection::new(Arc::new(config)).map_err(tls_error)?;
    shake_hands(stream, tls.into())
}

fn shake_hands<S: Duplex>(stream: S, mut tls: Connection) -> io::Result<TlsStream<S>> {
    tls.set_buffer_limit(Some(SEALED_AHEAD_BYTES_MAX));
    let state =
        State { tls, buffer: Vec::new(), start: 0, end: 0, read_size: READ_SIZE_BYTES_MIN, small_reads: 0 };
    let mut stream = TlsStream {
        stream,
        state: RefCell::new(state),
        flushing: Cell::new(false),
        peer: PublicKey::from_bytes([0; 32]),
    };
    crate::timeout(HANDSHAKE_TIMEOUT, || {
        loop {
            stream.flush()?;
            if !stream.state.borrow().tls.is_handshaking() {
                return Ok(());
            }
            let step = stream.state.borrow_mut().take_in();
            match step {
                Ok(true) => {}
                Ok(false) => stream.fill()?,
                Err(error) => return Err(stream.give_up(error)),
            }
        }
    })
    .map_err(|elapsed| io::Error::new(ErrorKind::TimedOut, format!("the TLS handshake: {elapsed}")))??;
    let key = stream.state.get_mut().tls.peer_certificates().and_then(|keys| keys.first().cloned());
    let key = key.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the peer showed no key"))?;
    stream.peer = decode_key(&key).map_err(tls_error)?;
    Ok(stream)
}

impl State {
    /// Reads more at once next time if the buffer was filled, and less if it has been too large for long.
    fn adapt_read_size(&mut self) {
        self.small_reads = if self.end <= READ_SIZE_BYTES_MIN { self.small_reads + 1 } else { 0 };
        if self.end == self.read_size {
            self.read_size = (self.read_size * 4).min(READ_SIZE_BYTES_MAX);
            self.small_reads = 0;
        } else if self.small_reads >= SMALL_READS_MAX {
            self.read_size = READ_SIZE_BYTES_MIN;
            self.small_reads = 0;
        }
    }

    /// Feeds some of the ciphertext to rustls; false if there is none.
    fn take_in(&mut self) -> io::Result<bool> {
        if self.start == self.end {
            return Ok(false);
        }
        let mut ciphertext = &self.buffer[self.start..self.end];
        let count = self.tls.read_tls(&mut ciphertext)?;
        if count == 0 {
            // After close_notify rustls takes nothing more, and nothing more has a meaning.
            self.start = self.end;
            return Ok(false);
        }
        self.start += count;
        self.tls.process_new_packets().map_err(|error| {
            self.start = self.end;
            tls_error(error)
        })?;
        Ok(true)
    }

    /// Moves decrypted bytes into `out`; `WouldBlock` if more ciphertext is needed first.
    fn read_plaintext(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match self.tls.reader().read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self.take_in() {
                    Ok(true) => {}
                    Ok(false) if filled == 0 => return Err(ErrorKind::WouldBlock.into()),
                    Ok(false) => break,
                    // What came before the error is good; rustls reports the error again.
                    Err(_) if filled > 0 => break,
                    Err(error) => return Err(error),
                },
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl<S: Duplex> TlsStream<S> {
    /// The key that the peer proved to hold.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// The stream underneath; for its addresses, not its bytes.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Reads more ciphertext from the stream below, once all of what was there has been taken in.
    fn fill(&self) -> io::Result<()> {
        // Taken out, since the read suspends. Should it unwind, an empty buffer is lost and made anew.
        let (mut buffer, read_size) = {
            let mut state = self.state.borrow_mut();
            (std::mem::take(&mut state.buffer), state.read_size)
        };
        if buffer.len() > read_size {
            buffer = Vec::new();
        }
        buffer.resize(read_size, 0);
        let count = self.stream.read_some(&mut buffer);
        let mut state = self.state.borrow_mut();
        state.buffer = buffer;
        state.start = 0;
        state.end = *count.as_ref().unwrap_or(&0);
        state.adapt_read_size();
        if count? == 0 {
            state.tls.read_tls(&mut io::empty())?;
            if state.tls.is_handshaking() {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "the peer hung up in the TLS handshake: it does not accept us, or is no peer at all",
                ));
            }
        }
        Ok(())
    }

    /// Writes out all records that are ready.
    fn flush(&self) -> io::Result<()> {
        struct Flushing<'a>(&'a Cell<bool>);
        impl Drop for Flushing<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        self.flushing.set(true);
        let _flushing = Flushing(&self.flushing);
        while self.state.borrow().tls.wants_write() {
            let count = self.stream.write_with(&mut |writer| self.state.borrow_mut().tls.write_tls(writer));
            match count {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the peer why, as far as that does not take long, and returns the error.
    fn give_up(&self, error: io::Error) -> io::Error {
        // The alert is a few bytes: it fits into the socket, or the peer is not listening anyway.
        let _ = crate::timeout(Duration::from_millis(100), || self.flush());
        error
    }
}

impl<S: Duplex> Duplex for TlsStream<S> {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = self.state.borrow_mut().read_plaintext(buffer);
            // Answers to key updates, and alerts. If someone is writing, they go with that.
            if !self.flushing.get() && self.state.borrow().tls.wants_write() {
                match &result {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => {
                        return result.map_err(|error| self.give_up(error));
                    }
                    _ => self.flush()?,
                }
            }
            match result {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.fill()?,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(cut_off()),
                result => return result,
            }
        }
    }

    fn write_with(&self, write: &mut WriteOnce<'_>) -> io::Result<usize> {
        loop {
            // rustls takes nothing only if records wait already: write them out and ask again.
            let count = write(&mut self.state.borrow_mut().tls.writer());
            self.flush()?;
            match count {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                count => return count,
            }
        }
    }

    fn write_slices(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let count = self.state.borrow_mut().tls.writer().write_vectored(slices)?;
            self.flush()?;
            IoSlice::advance_slices(&mut slices, count);
        }
        Ok(())
    }

    fn end(&self) -> io::Result<()> {
        self.state.borrow_mut().tls.send_close_notify();
        self.flush()?;
        self.stream.end()
    }

    fn abort(&self) {
        self.stream.abort();
    }

    fn keep_unsent_below(&self, bytes: u32) {
        self.stream.keep_unsent_below(bytes);
    }

    fn peer_key(&self) -> Option<PublicKey> {
        Some(self.peer)
    }
}

impl<S: Duplex> Read for &TlsStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl<S: Duplex> Write for &TlsStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(&mut |writer| writer.write(bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(&mut |writer| writer.write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The stream below ended without `close_notify`.
fn cut_off() -> io::Error {
    io::Error::new(
        ErrorKind::UnexpectedEof,
        "the connection was cut: the peer crashed, or somebody in between cut it",
    )
}

/// rustls's error in the words of this layer.
fn tls_error(error: rustls::Error) -> io::Error {
    let reason = match &error {
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "the peer proved another key than the one that was dialled: its address is stale, or taken"
                .to_owned()
        }
        rustls::Error::InvalidMessage(_) => {
            format!("the peer does not speak our TLS ({error}): check the port")
        }
        _ => format!("TLS: {error}"),
    };
    io::Error::new(ErrorKind::InvalidData, reason)
}
