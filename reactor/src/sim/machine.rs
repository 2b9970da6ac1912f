//! Machines to the test: it starts processes on them, kills these, cuts the power, and cuts the wires.

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::MAIN_STACK_SIZE_BYTES;
use super::disk::Damage;
use super::files::DiskFaults;
use super::host::{HostState, Process};
use super::trace::What;
use super::world::Inner;
use crate::coroutine::{self, Builder, Outcome, Start};
use crate::run::Group;

/// A simulated machine: an address, a disk, and processes.
#[derive(Clone)]
pub struct Host {
    world: Rc<Inner>,
    state: Rc<HostState>,
}

/// A process that was started with [`Host::start`].
#[derive(Clone)]
pub struct Running {
    group: Rc<Group>,
}

impl Host {
    pub(super) fn new(world: &Rc<Inner>, state: Rc<HostState>) -> Host {
        Host { world: world.clone(), state }
    }

    pub(super) fn index(&self) -> usize {
        self.state.index()
    }

    /// Its name, which other machines may connect to.
    pub fn name(&self) -> &str {
        self.state.name()
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.state.address().into()
    }

    /// Starts a process that runs `main` at once, until it first suspends; powers the machine up if need be.
    ///
    /// The process ends when `main` returns: as with [`crate::run`], what still runs in it is terminated then.
    /// All that it starts belongs to it. A panic of it fails the simulation.
    ///
    /// # Panics
    ///
    /// When there is no stack for it, as [`crate::spawn`] does.
    #[track_caller]
    pub fn start(&self, main: impl FnOnce() + 'static) -> Running {
        let builder = Builder::new().name(self.name().to_owned()).stack_size_bytes(MAIN_STACK_SIZE_BYTES);
        let prepared = builder.prepare(Location::caller()).unwrap_or_else(|error| panic!("{error}"));
        self.state.set_up(true);
        self.world.note(What::Start, self.state.index() as u64, 0);
        self.world.tell(|| format!("{} starts", self.name()));
        let group = self.world.new_group(&self.state);
        let (of_main, world) = (group.clone(), self.world.clone());
        let body = move || {
            let result = catch_unwind(AssertUnwindSafe(main));
            of_main.drain();
            if let Err(payload) = result {
                resume_unwind(payload);
            }
        };
        let start = Start { group: group.clone(), is_scoped: false, deadline: None };
        prepared.start(start, body, move |outcome| {
            if let Outcome::Panicked(payload) = outcome {
                world.fail(payload);
            }
        });
        Running { group }
    }

    /// Cuts the power: all processes end in this instant, peers hear nothing, and the disk keeps what was synced
    /// and of the rest what chance has it.
    ///
    /// Destructors run, but reach neither network nor disk. The machine stays silent until the next
    /// [`Host::start`]; from then on it resets connections that it does not know.
    ///
    /// # Suspends
    ///
    /// Until all have unwound; not when called from a process of this machine, which unwinds at its next
    /// blocking call.
    pub fn crash(&self) {
        self.world.note(What::Crash, self.state.index() as u64, 0);
        self.state.set_up(false);
        let groups = self.groups();
        for (_, process) in &groups {
            process.set_lost_power();
        }
        self.world.on_power_cut(&self.state);
        let damage = self.state.drive().crash(&self.world);
        self.world.tell(|| {
            let Damage { lost_writes, torn_writes, lost_names } = damage;
            format!(
                "{} crashes: {lost_writes} unsynced writes lost, {torn_writes} torn, {lost_names} changes of \
                 names lost",
                self.name()
            )
        });
        end_all(&groups);
    }

    /// Has the machine's network drop every datagram that leaves it or is for it, as some offices' do, or no more. TCP passes.
    pub fn block_udp(&self, is_blocked: bool) {
        self.state.set_passes_udp(!is_blocked);
        self.world.note(What::Link, self.state.index() as u64, 2 | u64::from(is_blocked));
        let word = if is_blocked { "passes no UDP" } else { "passes UDP" };
        self.world.tell(|| format!("the network of {} {word}", self.name()));
    }

    /// Sets what goes wrong with its disk from now on.
    pub fn set_disk_faults(&self, faults: DiskFaults) {
        self.state.drive().set_faults(faults);
    }

    /// Cuts the power, as [`Host::crash`] does, at the change of its disk that comes after `count` others: a file made,
    /// written, synced, renamed or removed. What a write or a change of names was doing may be there after all, or in part;
    /// a sync has not made anything durable. Nothing restarts the machine: see [`Host::is_up`].
    pub fn crash_at_disk_change(&self, count: u32) {
        self.state.drive().crash_at_change(Some(count));
    }

    /// Whether it has power: it has from the start, and again after [`Host::start`].
    pub fn is_up(&self) -> bool {
        self.state.is_up()
    }

    /// Sets its wall clock ahead of the others' from now on, or behind them; what measures time does not notice.
    pub fn set_clock(&self, off_by: Duration, behind: bool) {
        self.world.note(What::Clock, self.state.index() as u64, off_by.as_millis() as u64);
        self.world.tell(|| {
            let word = if behind { "behind" } else { "ahead" };
            format!("the clock of {} is {} s {word}", self.name(), off_by.as_secs())
        });
        self.state.set_clock_jump((off_by, behind));
    }

    /// Kills all processes, as SIGKILL does: the kernel goes on, closes their connections (with a reset where
    /// something was left unread), and keeps what they wrote to files.
    ///
    /// # Suspends
    ///
    /// As [`Host::crash`].
    pub fn kill(&self) {
        self.world.note(What::Crash, self.state.index() as u64, 1);
        self.world.tell(|| format!("the processes of {} are killed", self.name()));
        let groups = self.groups();
        for (_, process) in &groups {
            self.world.on_kill(process);
            process.set_dead();
        }
        end_all(&groups);
    }

    fn groups(&self) -> Vec<(Rc<Group>, Rc<Process>)> {
        let groups = self.world.groups.borrow();
        let of_here = groups.iter().filter_map(|group| {
            let process = group.process().filter(|process| Rc::ptr_eq(process.host(), &self.state))?;
            Some((group.clone(), process.clone()))
        });
        of_here.collect()
    }
}

fn end_all(groups: &[(Rc<Group>, Rc<Process>)]) {
    for (group, _) in groups {
        group.close();
    }
    let me = coroutine::current();
    for (group, _) in groups {
        if !Rc::ptr_eq(group, me.group()) {
            group.wait_for_end();
        }
    }
}

impl Running {
    /// Waits for its end.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn wait(&self) {
        self.group.wait_for_end();
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        !self.group.is_empty()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.name()).field("address", &self.address()).finish()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("is_running", &self.is_running()).finish()
    }
}
