//! Machines of a world, and the processes that run on them.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::files::Drive;
use super::router::RouterState;
use super::tcp::Listening;
use super::udp::Bound;
use super::world::Inner;
use crate::cell::RefCell;
use crate::net::Resolver;

/// Ports that are handed out, as Linux does it (`net.ipv4.ip_local_port_range`).
const FREE_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// A machine.
pub(crate) struct HostState {
    index: usize,
    name: String,
    address: Cell<Ipv4Addr>,
    /// What stands between it and those who are not behind the same.
    router: OnceCell<Rc<RouterState>>,
    up: Cell<bool>,
    passes_udp: Cell<bool>,
    last_port: Cell<u16>,
    listeners: RefCell<BTreeMap<u16, Rc<Listening>>>,
    bound: RefCell<BTreeMap<u16, Rc<Bound>>>,
    drive: Drive,
    /// How far its wall clock is off, and whether it is behind.
    clock_jump: Cell<(Duration, bool)>,
}

/// A program that runs on a machine: a group of coroutines.
pub(crate) struct Process {
    number: u32,
    world: Rc<Inner>,
    host: Rc<HostState>,
    alive: Cell<bool>,
    lost_power: Cell<bool>,
    resolver: OnceCell<Rc<Resolver>>,
}

impl HostState {
    pub(super) fn new(name: &str, index: usize) -> HostState {
        // 10.0.0.1 and on; 10.0.1.0 follows 10.0.0.255.
        let [_, second, third, last] = (index as u32 + 1).to_be_bytes();
        HostState {
            index,
            name: name.to_owned(),
            address: Cell::new(Ipv4Addr::new(10, second, third, last)),
            router: OnceCell::new(),
            up: Cell::new(true),
            passes_udp: Cell::new(true),
            last_port: Cell::new(*FREE_PORTS.end()),
            listeners: RefCell::default(),
            bound: RefCell::default(),
            drive: Drive::new(),
            clock_jump: Cell::new((Duration::ZERO, false)),
        }
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address.get()
    }

    pub(super) fn set_address(&self, address: Ipv4Addr) {
        self.address.set(address);
    }

    pub(super) fn router(&self) -> Option<Rc<RouterState>> {
        self.router.get().cloned()
    }

    pub(super) fn set_router(&self, router: Rc<RouterState>) {
        assert!(self.router.set(router).is_ok(), "{} is behind a router already", self.name);
    }

    pub(super) fn drive(&self) -> &Drive {
        &self.drive
    }

    pub(super) fn set_clock_jump(&self, jump: (Duration, bool)) {
        self.clock_jump.set(jump);
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.get()
    }

    pub(super) fn passes_udp(&self) -> bool {
        self.passes_udp.get()
    }

    pub(super) fn set_passes_udp(&self, passes: bool) {
        self.passes_udp.set(passes);
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.set(up);
    }

    /// The address to bind when asked for `address`; a port of 0 is replaced.
    pub(super) fn bindable(
        &self,
        address: SocketAddr,
        is_taken: impl Fn(u16) -> bool,
    ) -> io::Result<SocketAddr> {
        let ip = address.ip();
        if !ip.is_unspecified() && !ip.is_loopback() && ip != IpAddr::V4(self.address()) {
            return Err(io::Error::new(ErrorKind::AddrNotAvailable, "another machine has this address"));
        }
        match address.port() {
            0 => Ok(SocketAddr::new(ip, self.free_port(is_taken)?)),
            port if is_taken(port) => Err(ErrorKind::AddrInUse.into()),
            _ => Ok(address),
        }
    }

    /// A port that is not taken.
    pub(super) fn free_port(&self, is_taken: impl Fn(u16) -> bool) -> io::Result<u16> {
        for _ in FREE_PORTS {
            let last = self.last_port.get();
            let port = if FREE_PORTS.contains(&(last + 1)) { last + 1 } else { *FREE_PORTS.start() };
            self.last_port.set(port);
            if !is_taken(port) {
                return Ok(port);
            }
        }
        Err(io::Error::new(ErrorKind::AddrInUse, "all ports are taken"))
    }

    pub(super) fn listens_at(&self, port: u16) -> bool {
        self.listeners.borrow().contains_key(&port)
    }

    /// Who takes clients that ask for `address`.
    pub(super) fn listening(&self, address: SocketAddr) -> Option<Rc<Listening>> {
        self.listeners.borrow().get(&address.port()).filter(|listening| listening.takes(address)).cloned()
    }

    pub(super) fn add_listener(&self, port: u16, listening: Rc<Listening>) {
        self.listeners.borrow_mut().insert(port, listening);
    }

    pub(super) fn remove_listener(&self, listening: &Rc<Listening>) {
        self.listeners.borrow_mut().remove(&listening.port());
    }

    pub(super) fn take_listeners(&self, process: &Rc<Process>) -> Vec<Rc<Listening>> {
        let mut listeners = self.listeners.borrow_mut();
        let taken: Vec<_> =
            listeners.values().filter(|listening| listening.is_of(process)).cloned().collect();
        listeners.retain(|_, listening| !listening.is_of(process));
        self.bound.borrow_mut().retain(|_, bound| !bound.is_of(process));
        taken
    }

    pub(super) fn bound(&self, port: u16) -> Option<Rc<Bound>> {
        self.bound.borrow().get(&port).cloned()
    }

    pub(super) fn add_bound(&self, port: u16, bound: Rc<Bound>) {
        self.bound.borrow_mut().insert(port, bound);
    }

    pub(super) fn remove_bound(&self, bound: &Rc<Bound>) {
        self.bound.borrow_mut().remove(&bound.port());
    }

    /// Nobody listens here any more.
    pub(super) fn close_all(&self) {
        let listeners = self.listeners.take();
        let bound = self.bound.take();
        drop((listeners, bound));
    }
}

impl Process {
    pub(super) fn new(number: u32, world: Rc<Inner>, host: Rc<HostState>) -> Process {
        Process {
            number,
            world,
            host,
            alive: Cell::new(true),
            lost_power: Cell::new(false),
            resolver: OnceCell::new(),
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn world(&self) -> &Rc<Inner> {
        &self.world
    }

    pub(super) fn host(&self) -> &Rc<HostState> {
        &self.host
    }

    /// How far its machine's wall clock is off, and whether it is behind.
    pub(crate) fn clock_jump(&self) -> (Duration, bool) {
        self.host.clock_jump.get()
    }

    /// Not crashed: what it does still counts.
    pub(super) fn is_alive(&self) -> bool {
        self.alive.get()
    }

    pub(super) fn set_dead(&self) {
        self.alive.set(false);
    }

    pub(super) fn set_lost_power(&self) {
        self.set_dead();
        self.lost_power.set(true);
    }

    /// It ended with its machine, whose kernel closed nothing.
    pub(super) fn lost_power(&self) -> bool {
        self.lost_power.get()
    }

    pub(super) fn check_alive(&self) -> io::Result<()> {
        if self.alive.get() {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::ConnectionAborted, "the simulated process has crashed"))
    }

    /// Its own cache of names: one of another world would show that world's answers.
    pub(crate) fn resolver(&self) -> &Rc<Resolver> {
        self.resolver.get_or_init(|| Rc::new(Resolver::new(ask_the_world)))
    }
}

/// Names are those of machines, and `localhost`.
fn ask_the_world(name: &str, family: crate::net::Family) -> Result<Vec<SocketAddr>, String> {
    let Some(process) = super::here() else { return Ok(Vec::new()) };
    let address = match name {
        _ if family == crate::net::Family::V6 => None,
        "localhost" => Some(Ipv4Addr::LOCALHOST),
        name => process.world.host_named(name).map(|host| host.address()),
    };
    Ok(address.map(|address| SocketAddr::new(address.into(), 0)).into_iter().collect())
}
