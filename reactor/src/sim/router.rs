//! Routers: what stands between some machines and all others, as far as datagrams go.
//!
//! What it is not: TCP's translation. A connection leaves through a router under the machine's own address, and none comes in
//! but where the router is open. Nor are routers behind routers.

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use super::Host;
use super::choices::Kind;
use super::host::{HostState, Process};
use super::nat::{Nat, Table};
use super::trace::What;
use super::world::Inner;
use crate::cell::RefCell;

/// The addresses of the internet of a world; all that is not a machine's own.
const INTERNET: u8 = 11;

/// A router, to the test.
#[derive(Clone)]
pub struct Router {
    world: Rc<Inner>,
    state: Rc<RouterState>,
}

pub(crate) struct RouterState {
    number: u8,
    nat: Nat,
    table: RefCell<Table>,
    /// How often it was given another address.
    moves: Cell<u8>,
    /// The machines behind it, by their places in the world.
    machines: Vec<usize>,
}

/// Where a datagram comes to.
pub(super) enum Towards {
    /// A machine, with no router between.
    Machine(Rc<HostState>),
    /// A router, from outside or from within.
    Router(Rc<RouterState>),
    /// Nobody.
    Nobody,
}

impl RouterState {
    /// The address of the machine in that place behind it; 0 is its own.
    fn outside(&self, place: usize) -> Ipv4Addr {
        Ipv4Addr::new(INTERNET, self.number, self.moves.get(), place as u8 + 1)
    }

    fn address(&self) -> Ipv4Addr {
        self.outside(0)
    }

    /// Whether anybody outside may connect to the machines behind it by TCP.
    fn is_open(&self) -> bool {
        self.nat.is_open()
    }

    /// Whether what that machine sends there comes in: one behind it comes from within.
    pub(super) fn turns_round(&self, machine: &HostState) -> bool {
        self.nat.hairpin || !self.machines.contains(&machine.index())
    }

    /// The address that is seen outside of a datagram that leaves.
    pub(super) fn leave(&self, world: &Inner, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let draw = |count| world.choose(Kind::Router, count);
        self.table.borrow_mut().leave((from, to), self.address().into(), world.elapsed(), draw)
    }

    /// Which machine behind it gets a datagram that has come, and where.
    pub(super) fn enter(
        &self,
        world: &Inner,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<(Rc<HostState>, SocketAddr)> {
        let inside = self.table.borrow_mut().enter(from, to, world.elapsed())?;
        Some((self.machine_at(world, inside)?, inside))
    }

    fn machine_at(&self, world: &Inner, inside: SocketAddr) -> Option<Rc<HostState>> {
        let hosts = world.hosts.borrow();
        let machines = self.machines.iter().map(|index| &hosts[*index]);
        machines.clone().find(|host| IpAddr::V4(host.address()) == inside.ip()).cloned()
    }

    /// The machine by whose links a datagram travels that is sent there: who gets it, or any where nobody does.
    pub(super) fn machine_for(&self, world: &Inner, to: SocketAddr) -> Rc<HostState> {
        let stands_for = self.table.borrow().stands_for(to);
        let machine = stands_for.and_then(|inside| self.machine_at(world, inside));
        machine.unwrap_or_else(|| world.hosts.borrow()[self.machines[0]].clone())
    }

    /// Gives the machines their addresses, where they are those that the internet has for them.
    fn place(&self, world: &Inner) {
        if !self.nat.translates() {
            for (place, index) in self.machines.iter().enumerate() {
                world.hosts.borrow()[*index].set_address(self.outside(place));
            }
        }
    }
}

impl HostState {
    /// Whether no router is between it and another machine.
    pub(super) fn is_beside(&self, other: &HostState) -> bool {
        let both = (self.router(), other.router());
        self.index() == other.index() || matches!(both, (Some(own), Some(other)) if Rc::ptr_eq(&own, &other))
    }

    /// Whether it can be connected to by TCP from there.
    pub(super) fn takes_from(&self, other: &HostState) -> bool {
        self.is_beside(other) || self.router().is_none_or(|router| router.is_open())
    }
}

impl Inner {
    pub(super) fn add_router(self: &Rc<Self>, nat: Nat, behind: &[&Host]) -> Router {
        let mut routers = self.routers.borrow_mut();
        let number = u8::try_from(routers.len()).expect("a world has few routers");
        assert!(
            !behind.is_empty() && behind.len() < 250,
            "there are machines behind a router, and not too many"
        );
        let state = Rc::new(RouterState {
            number,
            nat,
            table: RefCell::new(Table::new(nat)),
            moves: Cell::new(0),
            machines: behind.iter().map(|host| host.index()).collect(),
        });
        routers.push(state.clone());
        drop(routers);
        for host in behind {
            self.hosts.borrow()[host.index()].set_router(state.clone());
        }
        state.place(self);
        Router { world: self.clone(), state }
    }

    /// Where a datagram for that address comes to; `None` if there is no way to such addresses.
    pub(super) fn towards(&self, process: &Process, ip: IpAddr) -> Option<Towards> {
        let is_its =
            |router: &&Rc<RouterState>| router.nat.translates() && ip == IpAddr::V4(router.address());
        if let Some(router) = self.routers.borrow().iter().find(is_its) {
            return Some(Towards::Router(router.clone()));
        }
        let Some(host) = self.host_at(process, ip) else {
            let is_of_the_internet = matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == INTERNET);
            return is_of_the_internet.then_some(Towards::Nobody);
        };
        if process.host().is_beside(&host) {
            return Some(Towards::Machine(host));
        }
        Some(match host.router() {
            None => Towards::Machine(host),
            Some(router) if router.nat.translates() => Towards::Nobody,
            Some(router) => Towards::Router(router),
        })
    }
}

impl Router {
    /// Its address outside.
    pub fn address(&self) -> IpAddr {
        self.state.address().into()
    }

    /// Everything that it remembers is forgotten, as when it is switched off for a moment.
    pub fn forget(&self) {
        self.state.table.borrow_mut().clear();
        self.note(0, "forgets what it has lent");
    }

    /// It has another address outside from now on, and so have the machines behind it where nothing is translated. What is under
    /// way to the earlier one is lost, and so is what is sent to them by TCP; what they send by it is refused.
    pub fn readdress(&self) {
        self.state.moves.set(self.state.moves.get().checked_add(1).expect("it moves a few times"));
        self.state.table.borrow_mut().clear();
        self.world.strand(|host| self.state.machines.contains(&host.index()));
        self.state.place(&self.world);
        self.note(1, "has another address");
    }

    fn note(&self, what: u64, words: &str) {
        self.world.note(What::Router, u64::from(self.state.number), what);
        self.world.tell(|| format!("router {} {words}", self.state.number));
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, nat) = (self.address(), self.state.nat);
        f.debug_struct("Router").field("address", &address).field("nat", &nat).finish()
    }
}
