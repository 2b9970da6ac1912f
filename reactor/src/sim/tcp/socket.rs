//! What programs hold: the simulated halves of [`crate::net::TcpStream`] and [`crate::net::TcpListener`].

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{End, Listening, Packet, Segment, State};
use crate::cell::RefCell;
use crate::net::{PeerWatch, Presence};
use crate::select::source::Source;
use crate::sim::host::Process;
use crate::sim::trace::What;
use crate::sim::world::Inner;
use crate::sync::{WaitList, Waiters};

/// After so long nobody has answered for an address that no machine has (Linux: three questions, one a second).
const NO_ROUTE_AFTER: Duration = Duration::from_secs(3);

/// A connection in a simulation.
pub(crate) struct TcpStream {
    end: Rc<End>,
    read_deadline: Cell<Option<Instant>>,
    write_deadline: Cell<Option<Instant>>,
}

/// A listening socket in a simulation.
pub(crate) struct TcpListener {
    state: Rc<Listening>,
}

fn crashed() -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, "the simulated process has crashed")
}

impl TcpListener {
    pub(crate) fn bind(process: &Rc<Process>, address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
        process.check_alive()?;
        let host = process.host();
        let address = host.bindable(address, |port| host.listens_at(port))?;
        let state = Rc::new(Listening {
            process: process.clone(),
            address,
            backlog: backlog.max(1) as usize,
            queue: RefCell::default(),
            waiters: Waiters::new(&"a simulated socket"),
        });
        host.add_listener(address.port(), state.clone());
        Ok(TcpListener { state })
    }

    pub(crate) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let end = self.state.waiters.wait(None, || {
            if !self.state.process.is_alive() {
                return Some(Err(crashed()));
            }
            self.state.queue.borrow_mut().pop_front().map(Ok)
        })??;
        let peer = end.peer;
        Ok((TcpStream::new(end), peer))
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.state.address
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let process = &self.state.process;
        if process.is_alive() {
            process.host().remove_listener(&self.state);
            process.world().stop_listening(&self.state);
        }
    }
}

impl TcpStream {
    fn new(end: Rc<End>) -> TcpStream {
        TcpStream { end, read_deadline: Cell::new(None), write_deadline: Cell::new(None) }
    }

    pub(crate) fn connect(process: &Rc<Process>, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_from(process, 0, address)
    }

    /// As `connect`, from that port, which others may have too; 0 for any.
    pub(crate) fn connect_from(
        process: &Rc<Process>,
        port: u16,
        address: SocketAddr,
    ) -> io::Result<TcpStream> {
        process.check_alive()?;
        let world = process.world();
        let reached = world.host_at(process, address.ip());
        let Some(peer_host) = reached.filter(|host| host.takes_from(process.host())) else {
            world.tell(|| format!("{} knows no way to {address}", process.host().name()));
            crate::sleep(NO_ROUTE_AFTER);
            return Err(io::Error::new(ErrorKind::HostUnreachable, "no machine has this address"));
        };
        let own: IpAddr =
            if address.ip().is_loopback() { address.ip() } else { process.host().address().into() };
        let address =
            if address.ip().is_unspecified() { SocketAddr::new(own, address.port()) } else { address };
        let port = if port == 0 { process.host().free_port(|_| false)? } else { port };
        let local = SocketAddr::new(own, port);
        let stream = TcpStream::new(world.add_end(process, local, address, &peer_host, 0));
        world.note(What::Connect, stream.end.number, u64::from(address.port()));
        world.leave(&stream.end, Packet::Syn, 0);
        let end = &stream.end;
        end.writers.wait(None, || (end.state.get() == State::Open || end.broken.get()).then_some(()))?;
        match end.error.take() {
            Some(error) => Err(error.into()),
            None if end.broken.get() => Err(crashed()),
            None => Ok(stream),
        }
    }

    fn world(&self) -> &Rc<Inner> {
        self.end.process.world()
    }

    /// What a read gives now; `None` if it would wait.
    fn try_read(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let end = &self.end;
        if !end.process.is_alive() {
            return Some(Err(crashed()));
        }
        if buffer.is_empty() {
            return Some(Ok(0));
        }
        let count = end.inbox.borrow_mut().read(buffer).unwrap_or(0);
        if count > 0 {
            if !end.broken.get() {
                self.world().leave_once(end, Packet::Credit(count), 0);
            }
            return Some(Ok(count));
        }
        if let Some(error) = end.error.take() {
            return Some(Err(error.into()));
        }
        (end.in_ended.get() || end.broken.get()).then_some(Ok(0))
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.end.readers.wait(self.read_deadline.get(), || self.try_read(buffer))?
    }

    /// Reads into the first of `buffers` that has room.
    pub(crate) fn read_vectored(&self, buffers: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        match buffers.iter_mut().find(|buffer| !buffer.is_empty()) {
            Some(buffer) => self.read(buffer),
            None => Ok(0),
        }
    }

    /// Calls `write` with a writer that never waits, and again when there is room.
    pub(crate) fn write_with(
        &self,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.end.writers.wait(self.write_deadline.get(), || match write(&mut Writer(&self.end)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            result => Some(result),
        })?
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let end = &self.end;
        if !end.process.is_alive() {
            return Err(crashed());
        }
        if end.broken.get() || end.state.get() != State::Open {
            return Err(ErrorKind::NotConnected.into());
        }
        if how != Shutdown::Write {
            end.in_ended.set(true);
        }
        if how != Shutdown::Read {
            self.world().send_end(end);
        }
        end.wake();
        Ok(())
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        if self.end.broken.get() { Err(ErrorKind::NotConnected.into()) } else { Ok(self.end.peer) }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.end.local
    }

    /// Whether there is nothing to read: no bytes, no end, no error.
    pub(crate) fn is_quiet(&self) -> bool {
        let end = &self.end;
        end.inbox.borrow().is_empty() && !end.in_ended.get() && !end.broken.get() && end.error.get().is_none()
    }

    pub(crate) fn watch_peer(&self) -> Rc<dyn PeerWatch> {
        self.end.clone()
    }

    pub(crate) fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.read_deadline.set(deadline);
    }

    pub(crate) fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.write_deadline.set(deadline);
    }
}

impl PeerWatch for End {
    fn presence(&self) -> Presence {
        match (self.broken.get(), self.in_ended.get()) {
            (true, _) => Presence::Gone,
            (false, true) => Presence::HalfClosed,
            (false, false) => Presence::Here,
        }
    }
}

/// Writes as far as there is room, and says so when there is none.
struct Writer<'a>(&'a Rc<End>);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let end = self.0;
        if !end.process.is_alive() {
            return Err(crashed());
        }
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        if end.broken.get() || end.out_ended.get() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let world = end.process.world();
        let mut room = world.config.tcp_window_bytes.saturating_sub(end.outstanding_bytes.get());
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return Ok(0);
        }
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::with_capacity(wanted.min(room));
        for slice in slices {
            let taken = slice.len().min(room);
            bytes.extend_from_slice(&slice[..taken]);
            room -= taken;
        }
        let count = bytes.len();
        end.outstanding_bytes.set(end.outstanding_bytes.get() + count);
        world.send_segment(end, Segment::Bytes(bytes));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        if self.end.process.is_alive() {
            self.world().close(&self.end);
        }
    }
}

/// Ready when a connection waits to be accepted.
impl Source for TcpListener {
    fn is_ready(&self) -> bool {
        !self.state.process.is_alive() || !self.state.queue.borrow().is_empty()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(self.state.waiters.list());
    }
}

/// Ready when there is something to read, be it the end or an error.
impl Source for TcpStream {
    fn is_ready(&self) -> bool {
        let end = &self.end;
        !end.process.is_alive()
            || !end.inbox.borrow().is_empty()
            || end.error.get().is_some()
            || end.in_ended.get()
            || end.broken.get()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(self.end.readers.list());
    }
}
