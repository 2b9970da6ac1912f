//! UDP in a simulation: datagrams that get lost, come twice, and overtake each other.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use super::events::Event;
use super::host::{HostState, Process};
use super::router::{RouterState, Towards};
use super::trace::{What, format_time};
use super::world::Inner;
use crate::cell::RefCell;
use crate::select::source::Source;
use crate::sync::{WaitList, Waiters};

/// The largest datagram: 65,535 bytes less the headers of IPv4 and UDP.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Bytes of headers, which bandwidth is spent on too.
const HEADER_BYTES: usize = 28;

/// Room for datagrams that were not read yet: Linux's default (`net.core.rmem_default`). More are dropped.
const INBOX_BYTES_MAX: usize = 212_992;

/// A datagram that arrives.
pub(super) struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    host: Rc<HostState>,
    /// What lets it in, or does not, and says who gets it.
    router: Option<Rc<RouterState>>,
    bytes: Rc<[u8]>,
}

/// A bound port, as the machine's kernel keeps it.
pub(super) struct Bound {
    process: Rc<Process>,
    address: SocketAddr,
    peer: Cell<Option<SocketAddr>>,
    inbox: RefCell<VecDeque<(SocketAddr, Rc<[u8]>)>>,
    inbox_bytes: Cell<usize>,
    waiters: Waiters,
}

/// A UDP socket in a simulation.
pub(crate) struct UdpSocket {
    bound: Rc<Bound>,
    read_deadline: Cell<Option<Instant>>,
}

impl Bound {
    pub(super) fn is_of(&self, process: &Rc<Process>) -> bool {
        Rc::ptr_eq(&self.process, process)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    fn accepts(&self, datagram: &Datagram) -> bool {
        let bound = self.address.ip();
        (bound.is_unspecified() || bound == datagram.to.ip())
            && self.peer.get().is_none_or(|peer| peer == datagram.from)
            && self.inbox_bytes.get() + datagram.bytes.len() <= INBOX_BYTES_MAX
    }
}

impl Inner {
    pub(super) fn on_datagram(&self, mut datagram: Datagram) {
        if let Some(router) = datagram.router.take() {
            let Some((host, inside)) = router.enter(self, datagram.from, datagram.to) else {
                return self.tell(|| format!("a router drops a datagram for {}", datagram.to));
            };
            (datagram.host, datagram.to) = (host, inside);
        }
        let bound = datagram.host.is_up().then(|| datagram.host.bound(datagram.to.port())).flatten();
        let Some(bound) = bound.filter(|bound| bound.accepts(&datagram)) else { return };
        self.note(What::Arrive, u64::from(bound.port()), datagram.bytes.len() as u64);
        bound.inbox_bytes.set(bound.inbox_bytes.get() + datagram.bytes.len());
        bound.inbox.borrow_mut().push_back((datagram.from, datagram.bytes));
        bound.waiters.wake_all();
    }
}

impl UdpSocket {
    pub(crate) fn bind(process: &Rc<Process>, address: SocketAddr) -> io::Result<UdpSocket> {
        process.check_alive()?;
        let host = process.host();
        let address = host.bindable(address, |port| host.bound(port).is_some())?;
        let bound = Rc::new(Bound {
            process: process.clone(),
            address,
            peer: Cell::new(None),
            inbox: RefCell::default(),
            inbox_bytes: Cell::new(0),
            waiters: Waiters::new(&"a simulated socket"),
        });
        host.add_bound(address.port(), bound.clone());
        Ok(UdpSocket { bound, read_deadline: Cell::new(None) })
    }

    pub(crate) fn connect(&self, peer: SocketAddr) {
        self.bound.peer.set(Some(peer));
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.bound.peer.get() {
            Some(peer) => self.send_to(bytes, peer),
            None => Err(io::Error::from(rustix::io::Errno::DESTADDRREQ)),
        }
    }

    pub(crate) fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send_as_far(bytes, to, false)
    }

    /// As `send_to`, through the router here and no further.
    pub(crate) fn send_near(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.send_as_far(bytes, to, true)
    }

    fn send_as_far(&self, bytes: &[u8], to: SocketAddr, is_near: bool) -> io::Result<usize> {
        let process = &self.bound.process;
        process.check_alive()?;
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(io::Error::from(rustix::io::Errno::MSGSIZE));
        }
        let (world, own) = (process.world(), process.host());
        let Some(towards) = world.towards(process, to.ip()) else {
            return Err(io::Error::new(ErrorKind::NetworkUnreachable, "no machine has this address"));
        };
        let source: IpAddr = match self.bound.address.ip() {
            _ if to.ip().is_loopback() => to.ip(),
            ip if ip.is_unspecified() => own.address().into(),
            ip => ip,
        };
        let from = SocketAddr::new(source, self.bound.port());
        world.note(What::Send, u64::from(from.port()), bytes.len() as u64);
        let is_within = matches!(&towards, Towards::Machine(host) if own.is_beside(host));
        let from = match own.router() {
            Some(router) if !is_within => router.leave(world, from, to),
            _ => from,
        };
        let (host, router) = match towards {
            Towards::Machine(host) => (host, None),
            Towards::Router(router) if !router.turns_round(own) => return Ok(bytes.len()),
            Towards::Router(router) => (router.machine_for(world, to), Some(router)),
            Towards::Nobody => return Ok(bytes.len()),
        };
        if is_near && !is_within {
            return Ok(bytes.len());
        }
        let is_blocked = own.index() != host.index() && !(own.passes_udp() && host.passes_udp());
        let times = match is_blocked {
            true => [None; 2],
            false => world.carry_datagram((own.index(), host.index()), bytes.len() + HEADER_BYTES),
        };
        world.tell(|| {
            let arrivals: Vec<String> =
                times.iter().flatten().map(|time| format_time(world.elapsed() + *time)).collect();
            let fate = if arrivals.is_empty() {
                "lost".to_owned()
            } else {
                "arrives at ".to_owned() + &arrivals.join(" and ")
            };
            format!("{} -> {}  datagram of {} bytes, {fate}", own.name(), host.name(), bytes.len())
        });
        let shared: Rc<[u8]> = bytes.into();
        for time in times.into_iter().flatten() {
            let (host, router) = (host.clone(), router.clone());
            let datagram = Datagram { from, to, host, router, bytes: shared.clone() };
            world.schedule(time, Event::Datagram(datagram));
        }
        Ok(bytes.len())
    }

    pub(crate) fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let bound = &self.bound;
        let (from, bytes) = bound.waiters.wait(self.read_deadline.get(), || {
            if let Err(error) = bound.process.check_alive() {
                return Some(Err(error));
            }
            bound.inbox.borrow_mut().pop_front().map(Ok)
        })??;
        bound.inbox_bytes.set(bound.inbox_bytes.get() - bytes.len());
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok((count, from))
    }

    /// As the kernel has it, one that is bound to all addresses and then connected has the one that its peer sees.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        let bound = self.bound.address;
        match self.bound.peer.get() {
            Some(peer) if bound.ip().is_unspecified() && peer.is_ipv4() => {
                let own = self.bound.process.host().address().into();
                SocketAddr::new(if peer.ip().is_loopback() { peer.ip() } else { own }, bound.port())
            }
            _ => bound,
        }
    }

    pub(crate) fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.read_deadline.set(deadline);
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        if self.bound.process.is_alive() {
            self.bound.process.host().remove_bound(&self.bound);
        }
    }
}

/// Ready when a datagram waits.
impl Source for UdpSocket {
    fn is_ready(&self) -> bool {
        self.bound.process.check_alive().is_err() || !self.bound.inbox.borrow().is_empty()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(self.bound.waiters.list());
    }
}
