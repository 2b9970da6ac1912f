//! Machines of a world, and the processes that run on them.

use std::net::Ipv4Addr;
use std::rc::Rc;

use super::world::Inner;

/// A machine.
pub(crate) struct HostState {
    name: String,
    address: Ipv4Addr,
}

/// A program that runs on a machine: a group of coroutines.
pub(crate) struct Process {
    number: u32,
    world: Rc<Inner>,
    host: Rc<HostState>,
}

impl HostState {
    pub(super) fn new(name: &str, index: usize) -> HostState {
        let [.., high, low] = (index as u32 + 1).to_be_bytes();
        HostState { name: name.to_owned(), address: Ipv4Addr::new(10, 0, high, low) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Process {
    pub(super) fn new(number: u32, world: Rc<Inner>, host: Rc<HostState>) -> Process {
        Process { number, world, host }
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
}
