//! The flow of a TLS connection, whoever proved what at its start.
//!
//! rustls does the protocol and never touches a socket: bytes go in, bytes come out. This file moves them.
//! Four things shape it:
//! - One coroutine reads while another writes. rustls's state sits in a `RefCell`, borrowed only between two
//!   waits: ciphertext leaves through [`Duplex::write_with`], whose closure does not suspend. A reader waits for what comes,
//!   and never for room to write.
//! - What was sealed is owed: the peer can read nothing that comes behind a hole. Where nobody writes whom it would go with,
//!   after a write or an end that was broken off, or behind a read that has to be answered, a coroutine of the stream's own
//!   brings it on its way (`flusher.rs`), whoever reads or does not.
//! - rustls reads 4 KiB at a time by itself. A read buffer of up to 256 KiB in front of it takes a system call
//!   per 256 KiB instead; it starts small and grows only where the peer sends that fast.
//! - A flush of many small messages is one record and one `send`: plaintext is gathered before it is sealed.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use rustls::{Connection, HandshakeKind};

use super::error::tls_error;
use super::flusher::Owner;
use super::{HANDSHAKE_TIMEOUT, Truncated};
use crate::coroutine::{begin, spend_bytes};
use crate::crypto::PublicKey;
use crate::net::{Duplex, PeerWatch, TcpStream, WriteOnce};

/// What a connection reads at once to begin with: a record, which is all that small calls need.
const READ_SIZE_BYTES_MIN: usize = 16 << 10;

/// What a busy connection reads at once: a system call per sixteen records.
const READ_SIZE_BYTES_MAX: usize = 256 << 10;

/// After so many reads in a row that a small buffer would have held, the large one is given back: a connection
/// that once moved a file should not cost 256 KiB for ever, and one that moves many should not allocate for each.
const SMALL_READS_MAX: u32 = 16;

/// How much plaintext is sealed before it is written out: one gathering `send` of up to 64 records' slices.
const SEALED_AHEAD_BYTES_MAX: usize = 512 << 10;

/// What sealing a byte, or opening one, takes of the thread's time, in bytes that the kernel copies meanwhile: 256 KiB take
/// some 300 us through TLS, and 60 us through a socket.
const CIPHER_COST: usize = 4;

/// A TLS connection whose handshake is done; `P` is what the peer proved in it: a key ([`PublicKey`], at both ends),
/// or, with [`ByCertificate`], at the client that the server goes by the name that was asked for.
///
/// One coroutine may read while another writes, and each direction ends apart ([`Duplex::end`] sends `close_notify`).
/// Dropping it closes the socket without a word, which the peer has to take for [`super::Truncated`].
pub struct TlsStream<S: Duplex = TcpStream, P: Proof = PublicKey> {
    inner: Owner<S>,
    peer: P,
}

/// A TLS connection with certificates.
pub type CertifiedStream<S = TcpStream> = TlsStream<S, ByCertificate>;

/// What a handshake may prove. Sealed: a key, or a certificate.
pub trait Proof: sealed::Proof {}

mod sealed {
    use crate::crypto::PublicKey;

    pub trait Proof: 'static {
        /// The bare key, where it is one.
        fn key(&self) -> Option<PublicKey>;
    }
}

impl sealed::Proof for PublicKey {
    fn key(&self) -> Option<PublicKey> {
        Some(*self)
    }
}

impl Proof for PublicKey {}

/// The server has shown a certificate for its name, and the client nothing.
#[derive(Clone, Copy, Debug)]
pub struct ByCertificate;

impl sealed::Proof for ByCertificate {
    fn key(&self) -> Option<PublicKey> {
        None
    }
}

impl Proof for ByCertificate {}

/// The version of the protocol that was agreed on; earlier ones are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 5246, with ephemeral keys and authenticated ciphers only.
    Tls12,
    /// RFC 8446.
    Tls13,
}

pub(super) struct State {
    pub(super) tls: Connection,
    /// Ciphertext that has been read: `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    read_size: usize,
    small_reads: u32,
}

/// Shakes hands, and learns from rustls what the peer has proved. Suspends for a round trip or two.
pub(super) fn shake_hands<S: Duplex, P: Proof>(
    stream: S,
    mut tls: Connection,
    prove: impl FnOnce(&Connection) -> io::Result<P>,
) -> io::Result<TlsStream<S, P>> {
    tls.set_buffer_limit(Some(SEALED_AHEAD_BYTES_MAX));
    let state =
        State { tls, buffer: Vec::new(), start: 0, end: 0, read_size: READ_SIZE_BYTES_MIN, small_reads: 0 };
    // Nothing is proved yet; nobody sees the stream before it is.
    let half = TlsStream { inner: Owner::new(stream, state), peer: ByCertificate };
    crate::timeout(HANDSHAKE_TIMEOUT, || {
        loop {
            half.inner.flush()?;
            if !half.inner.state.borrow().tls.is_handshaking() {
                return Ok(());
            }
            let step = half.inner.state.borrow_mut().take_in();
            match step {
                Ok(true) => {}
                Ok(false) => half.fill()?,
                Err(error) => return Err(half.give_up(error)),
            }
        }
    })
    .map_err(|elapsed| io::Error::new(ErrorKind::TimedOut, format!("the TLS handshake: {elapsed}")))??;
    let peer = prove(&half.inner.state.borrow().tls)?;
    Ok(TlsStream { inner: half.inner, peer })
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

impl<S: Duplex> TlsStream<S, PublicKey> {
    /// The key that the peer proved to hold.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }
}

impl<S: Duplex, P: Proof> TlsStream<S, P> {
    /// The stream underneath; for its addresses, not its bytes.
    pub fn get_ref(&self) -> &S {
        &self.inner.stream
    }

    /// The protocol inside that both sides chose (ALPN, RFC 7301), if they did.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.inner.state.borrow().tls.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// The version that both sides chose.
    pub fn version(&self) -> Version {
        match self.inner.state.borrow().tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => Version::Tls12,
            _ => Version::Tls13,
        }
    }

    /// Whether the handshake was short: it took up an earlier session, whose certificate was checked then.
    pub fn is_resumed(&self) -> bool {
        self.inner.state.borrow().tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// At a server, the name that the client asked for (SNI, RFC 6066), if it did.
    pub fn server_name(&self) -> Option<String> {
        match &self.inner.state.borrow().tls {
            Connection::Server(tls) => tls.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        }
    }

    /// Whether everything that has been read of the stream below was taken, and the peer has neither ended nor said more:
    /// what the socket itself holds is for [`TlsStream::get_ref`] to tell. Never suspends.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut state = self.inner.state.borrow_mut();
        // A ticket for the next session, say, is nothing that anybody reads.
        while matches!(state.take_in(), Ok(true)) {}
        let all_taken = state.start == state.end;
        let plain = state.tls.process_new_packets();
        all_taken && plain.is_ok_and(|io| io.plaintext_bytes_to_read() == 0 && !io.peer_has_closed())
    }

    /// Reads more ciphertext from the stream below, once all of what was there has been taken in.
    fn fill(&self) -> io::Result<()> {
        // Taken out, since the read suspends. Should it unwind, an empty buffer is lost and made anew.
        let (mut buffer, read_size) = {
            let mut state = self.inner.state.borrow_mut();
            (std::mem::take(&mut state.buffer), state.read_size)
        };
        if buffer.len() > read_size {
            buffer = Vec::new();
        }
        buffer.resize(read_size, 0);
        let count = self.inner.stream.read_some(&mut buffer);
        let mut state = self.inner.state.borrow_mut();
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

    fn check_open(&self) -> io::Result<()> {
        match self.inner.has_ended() {
            true => Err(io::Error::new(ErrorKind::BrokenPipe, "this direction was ended")),
            false => Ok(()),
        }
    }

    /// Tells the peer why, as far as that does not take long, and returns the error.
    fn give_up(&self, error: io::Error) -> io::Error {
        // The alert is a few bytes: it fits into the socket, or the peer is not listening anyway.
        let _ = crate::timeout(Duration::from_millis(100), || self.inner.flush());
        error
    }
}

impl<S: Duplex, P: Proof> Duplex for TlsStream<S, P> {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let call = begin();
            let result = self.inner.state.borrow_mut().read_plaintext(buffer);
            match result {
                // It has been taken: nothing here may wait for anything any more.
                Ok(count) => {
                    // What had come already is to be had without a wait below.
                    spend_bytes(count * CIPHER_COST);
                    call.needed_no_wait();
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    let error =
                        if error.kind() == ErrorKind::UnexpectedEof { Truncated.into() } else { error };
                    // An alert, which says why.
                    return Err(if self.inner.owes() { self.give_up(error) } else { error });
                }
            }
            // A reader never waits for room: the peer may wait for us to read, before it does.
            self.inner.see_off();
            self.fill()?;
        }
    }

    fn write_with(&self, write: &mut WriteOnce<'_>) -> io::Result<usize> {
        // Before it takes anything; the flushes count.
        let call = begin();
        self.check_open()?;
        call.over();
        loop {
            // rustls takes nothing only if records wait already: write them out and ask again.
            let was_full = self.inner.state.borrow().tls.wants_write();
            let count = write(&mut self.inner.state.borrow_mut().tls.writer());
            spend_bytes(*count.as_ref().unwrap_or(&0) * CIPHER_COST);
            self.inner.flush()?;
            match count {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Records of a write that was broken off waited, and took all the room: they have left now.
                Ok(0) if was_full => {}
                count => return count,
            }
        }
    }

    fn write_slices(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let call = begin();
        self.check_open()?;
        call.over();
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let count = self.inner.state.borrow_mut().tls.writer().write_vectored(slices)?;
            spend_bytes(count * CIPHER_COST);
            self.inner.flush()?;
            IoSlice::advance_slices(&mut slices, count);
        }
        Ok(())
    }

    fn end(&self) -> io::Result<()> {
        let _call = begin();
        self.inner.say_end();
        self.inner.flush()
    }

    fn abort(&self) {
        self.inner.stream.abort();
    }

    fn keep_unsent_below(&self, bytes: u32) {
        self.inner.stream.keep_unsent_below(bytes);
    }

    fn taken_bytes(&self) -> Option<Rc<Cell<u64>>> {
        Some(self.inner.taken.clone())
    }

    fn peer_key(&self) -> Option<PublicKey> {
        self.peer.key()
    }

    fn watch_peer(&self) -> Option<Rc<dyn PeerWatch>> {
        self.inner.stream.watch_peer()
    }
}

impl<S: Duplex, P: Proof> Read for &TlsStream<S, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl<S: Duplex, P: Proof> Write for &TlsStream<S, P> {
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

impl<S: Duplex, P: Proof> Read for TlsStream<S, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }
}

impl<S: Duplex, P: Proof> Write for TlsStream<S, P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
