//! quinn-proto alone: one connection with one stream, in a loop over a socket of the standard library's, and nothing around it.
//!
//! As sparing as it can be made by hand: a write fills the stream, and as soon as it can take no more, or is flushed, all is sent
//! that may be, by the kernel's segments; a read that finds nothing sends, receives by the kernel's batches, and waits.

use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, Event,
    ServerConfig, StreamId, TransportConfig, VarInt, WriteError,
};
use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::certificate::NAME;

/// As ours has them (`reactor/src/net/quic/config.rs` and `wire.rs`).
const STREAM_WINDOW_BYTES: u32 = 5 << 20;
const RECEIVE_WINDOW_BYTES: u32 = 8 << 20;
const SEND_WINDOW_BYTES: u64 = 8 << 20;
const KERNEL_BUFFER_BYTES: usize = 2 << 20;
const BUFFER_BYTES: usize = 64 << 10;
const BUFFER_COUNT: usize = 8;
const SEGMENTS_MAX: usize = 32;

/// Sends before what came meanwhile is looked at.
const SENDS_MAX: usize = 20;

/// Who waits longer for anything waits in vain.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection, with its one stream as soon as there is one.
pub(super) struct BareQuic {
    socket: UdpSocket,
    kernel: UdpSocketState,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    stream: Option<StreamId>,
    /// Where datagrams are received into, and made.
    buffers: Vec<u8>,
    scratch: Vec<u8>,
    /// Something is left that may be sent.
    has_more: bool,
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(RECEIVE_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    Arc::new(config)
}

impl BareQuic {
    fn bind(address: SocketAddr, server: Option<Arc<ServerConfig>>) -> io::Result<BareQuic> {
        let socket = UdpSocket::bind(address)?;
        let kernel = UdpSocketState::new((&socket).into())?;
        kernel.set_recv_buffer_size((&socket).into(), KERNEL_BUFFER_BYTES)?;
        kernel.set_send_buffer_size((&socket).into(), KERNEL_BUFFER_BYTES)?;
        let endpoint = Endpoint::new(Arc::default(), server, !kernel.may_fragment(), None);
        Ok(BareQuic {
            socket,
            kernel,
            endpoint,
            connection: None,
            stream: None,
            buffers: vec![0; BUFFER_BYTES * BUFFER_COUNT],
            scratch: Vec::new(),
            has_more: false,
        })
    }

    /// Binds a server's socket.
    pub(super) fn listen(address: SocketAddr, tls: rustls::ServerConfig) -> io::Result<BareQuic> {
        let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport());
        BareQuic::bind(address, Some(Arc::new(config)))
    }

    /// Waits for a client's connection, and its stream.
    pub(super) fn accept(mut self) -> io::Result<BareQuic> {
        while self.stream.is_none() {
            self.turn()?;
            let accepted = self.connection.as_mut().and_then(|(_, known)| known.streams().accept(Dir::Bi));
            self.stream = accepted;
        }
        Ok(self)
    }

    /// Connects, and opens the stream.
    pub(super) fn connect(address: SocketAddr, tls: rustls::ClientConfig) -> io::Result<BareQuic> {
        let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport());
        let mut this = BareQuic::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None)?;
        let begun = this.endpoint.connect(Instant::now(), config, address, NAME);
        this.connection = Some(begun.map_err(io::Error::other)?);
        while this.stream.is_none() {
            this.turn()?;
            let connection = &mut this.connection.as_mut().expect("it was just begun").1;
            this.stream = if connection.is_handshaking() { None } else { connection.streams().open(Dir::Bi) };
        }
        Ok(this)
    }

    /// Sends what may be sent, takes what has come, and waits for something to come if nothing has.
    fn turn(&mut self) -> io::Result<()> {
        self.transmit()?;
        if !self.receive()? && !self.has_more {
            let due = self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
            let wait = due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()));
            self.wait(PollFlags::IN, wait)?;
            self.receive()?;
        }
        let Some((handle, connection)) = &mut self.connection else { return Ok(()) };
        let now = Instant::now();
        if connection.poll_timeout().is_some_and(|due| due <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            if let Event::ConnectionLost { reason } = event {
                return Err(io::Error::new(ErrorKind::ConnectionAborted, reason));
            }
        }
        Ok(())
    }

    fn wait(&self, events: PollFlags, wait: Duration) -> io::Result<()> {
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.socket, events)], Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn transmit(&mut self) -> io::Result<()> {
        self.has_more = false;
        let segments = self.kernel.max_gso_segments().clamp(1, SEGMENTS_MAX);
        for _ in 0..SENDS_MAX {
            let Some((_, connection)) = &mut self.connection else { return Ok(()) };
            self.scratch.clear();
            let Some(transmit) = connection.poll_transmit(Instant::now(), segments, &mut self.scratch) else {
                return Ok(());
            };
            self.send(&transmit)?;
        }
        self.has_more = true;
        Ok(())
    }

    /// Sends what the scratch holds.
    fn send(&self, transmit: &quinn_proto::Transmit) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &self.scratch[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        loop {
            match self.kernel.send((&self.socket).into(), &transmit) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT, PATIENCE)?,
                sent => return sent,
            }
        }
    }

    /// Takes one system call's worth; whether anything had come.
    fn receive(&mut self) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BUFFER_COUNT];
        let mut parts = self.buffers.chunks_exact_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; BUFFER_COUNT] =
            std::array::from_fn(|_| IoSliceMut::new(parts.next().expect("as many parts as buffers")));
        let count = match self.kernel.recv((&self.socket).into(), &mut slices, &mut metas) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        for (meta, at) in metas[..count].iter().zip((0..).step_by(BUFFER_BYTES)) {
            let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            let mut rest = at..at + meta.len;
            while !rest.is_empty() {
                let end = rest.end.min(rest.start + meta.stride.max(1));
                let bytes = BytesMut::from(&self.buffers[rest.start..end]);
                rest.start = end;
                self.scratch.clear();
                let event = self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, bytes, &mut self.scratch);
                self.on_event(event, now)?;
            }
        }
        Ok(true)
    }

    fn on_event(&mut self, event: Option<DatagramEvent>, now: Instant) -> io::Result<()> {
        match event {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) if self.connection.is_none() => {
                let accepted = self.endpoint.accept(incoming, now, &mut self.scratch, None);
                self.connection = Some(accepted.map_err(|error| io::Error::other(error.cause))?);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.endpoint.ignore(incoming),
            Some(DatagramEvent::Response(transmit)) => self.send(&transmit)?,
            None => {}
        }
        Ok(())
    }

    fn parts(&mut self) -> (&mut Connection, StreamId) {
        let connection = self.connection.as_mut().expect("nobody has one before it is connected");
        (&mut connection.1, self.stream.expect("nor before it has its stream"))
    }
}

impl Read for BareQuic {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (connection, id) = self.parts();
            let mut stream = connection.recv_stream(id);
            let mut chunks = stream.read(true).map_err(io::Error::other)?;
            let (mut size, mut is_ended) = (0, false);
            while size < buffer.len() {
                match chunks.next(buffer.len() - size) {
                    Ok(Some(chunk)) => {
                        let bytes: Bytes = chunk.bytes;
                        buffer[size..size + bytes.len()].copy_from_slice(&bytes);
                        size += bytes.len();
                    }
                    Ok(None) => {
                        is_ended = true;
                        break;
                    }
                    // It is read again when more has come.
                    Err(_) => break,
                }
            }
            // The peer's credit leaves with whatever is sent next.
            let _ = chunks.finalize();
            if size > 0 || is_ended {
                return Ok(size);
            }
            self.turn()?;
        }
    }
}

impl Write for BareQuic {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let (connection, id) = self.parts();
            match connection.send_stream(id).write(bytes) {
                Ok(count) => return Ok(count),
                Err(WriteError::Blocked) => self.turn()?,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Sends as much as may be sent now, and waits for nothing.
    fn flush(&mut self) -> io::Result<()> {
        self.transmit()
    }
}
