//! When a long-running command should end: a signal, or the end of the process that started it.
//!
//! One gate that whoever has to end waits for, and a second one for the impatient: the first Ctrl-C asks for an orderly
//! end, the second for one that waits for nobody, the third ends the process where it stands. SIGTERM and SIGHUP only
//! ever ask for an orderly end: whoever sends them may send them to everybody, and more than once.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use reactor::net::Descriptor;
use reactor::signals::{Signal, Signals};
use reactor::sync::Barrier;

use crate::errors::Failure;
use crate::output;
use crate::process;

/// What a shell says of a program that Ctrl-C ended: 128 and the signal's number.
const INTERRUPTED: i32 = 130;

/// Why a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Ctrl-C, SIGTERM, or the terminal was closed.
    Signal,
    /// Standard input has ended: the process that started us is gone or wants us to go.
    InputEnded,
    /// Somebody unmounted the drive.
    Unmounted,
    /// The node is no member of the network any more.
    Removed,
    /// A copy of the home serves, for which this one is to stop.
    Copied,
}

/// A gate that opens once, for a reason.
#[derive(Clone)]
pub(crate) struct Stop {
    gate: Rc<Barrier>,
    reason: Rc<Cell<Option<Reason>>>,
    /// Opens when the end should wait for nobody.
    hurry: Rc<Barrier>,
}

impl Stop {
    fn new() -> Stop {
        Stop {
            gate: Rc::new(Barrier::new(false)),
            reason: Rc::default(),
            hurry: Rc::new(Barrier::new(false)),
        }
    }

    /// A gate that SIGINT, SIGTERM and SIGHUP open; SIGHUP is left alone if `nohup` said so.
    ///
    /// # Errors
    /// If signals can't be watched.
    pub(crate) fn on_signals() -> Result<Stop, Failure> {
        let mut kinds = vec![Signal::Interrupt, Signal::Terminate];
        if !process::ignores_hang_up() {
            kinds.push(Signal::HangUp);
        }
        let signals = watch(&kinds)?;
        let stop = Stop::new();
        let opener = stop.clone();
        reactor::spawn(move || {
            loop {
                let signal = signals.wait();
                if !opener.gate.is_open() {
                    opener.open(Reason::Signal);
                } else if signal == Signal::Interrupt && !opener.hurry.is_open() {
                    opener.hurry.open();
                } else if signal == Signal::Interrupt {
                    output::warn("ended at once, as Ctrl-C asked three times");
                    output::settle();
                    std::process::exit(INTERRUPTED);
                }
            }
        });
        Ok(stop)
    }

    /// A gate that only the end of standard input opens; it must be a pipe.
    ///
    /// For a process whose end is another's to decide. A system that shuts down sends its signals to all processes at
    /// once, and a node that left then would take its quorum away from the drive that is just being stored.
    ///
    /// # Errors
    /// If it can't be watched.
    pub(crate) fn on_input_end() -> Result<Stop, Failure> {
        let signals = watch(&[Signal::Interrupt, Signal::Terminate, Signal::HangUp])?;
        reactor::spawn(move || {
            loop {
                signals.wait();
            }
        });
        let failed = |source| Failure::Stream { what: "standard input", source };
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let input = Descriptor::new(input).map_err(failed)?;
        let stop = Stop::new();
        let opener = stop.clone();
        reactor::spawn(move || {
            let mut ignored = [0; 64];
            while let Ok(1..) = input.read_with(|fd| Ok(rustix::io::read(fd, &mut ignored)?)) {}
            opener.open(Reason::InputEnded);
        });
        Ok(stop)
    }

    /// Opens the gate; the first reason counts.
    pub(crate) fn open(&self, reason: Reason) {
        if self.reason.get().is_none() {
            self.reason.set(Some(reason));
        }
        self.gate.open();
    }

    /// Whether somebody was too impatient for an orderly end.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurry.is_open()
    }

    /// Waits until somebody is too impatient for an orderly end.
    ///
    /// # Suspends
    /// Until then, which is usually never.
    pub(crate) fn wait_hurry(&self) {
        self.hurry.wait();
    }

    /// Does `work`, unless the gate opens first: then the work is terminated, and there is no result.
    ///
    /// # Suspends
    /// Until either.
    pub(crate) fn unless_open<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let either = Barrier::new(false);
        reactor::scope(|scope| {
            let worker = scope.spawn(|| {
                let value = work();
                either.open();
                value
            });
            let watcher = scope.spawn(|| {
                self.gate.wait();
                either.open();
            });
            either.wait();
            if self.gate.is_open() {
                worker.terminate();
            }
            watcher.terminate();
            worker.join().ok()
        })
    }

    /// Waits until it is open.
    ///
    /// # Suspends
    /// Until then.
    pub(crate) fn wait(&self) -> Reason {
        self.gate.wait();
        self.reason.get().unwrap_or(Reason::Signal)
    }
}

fn watch(kinds: &[Signal]) -> Result<Signals, Failure> {
    Signals::new(kinds).map_err(|source| Failure::Stream { what: "signals", source })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_goes_on_until_the_gate_opens() {
        reactor::run(|| {
            let stop = Stop::new();
            assert_eq!(stop.unless_open(|| 7), Some(7));
            let opener = stop.clone();
            reactor::spawn(move || {
                reactor::sleep(Duration::from_millis(5));
                opener.open(Reason::Signal);
            });
            assert_eq!(stop.unless_open(|| reactor::sleep(Duration::from_secs(3600))), None);
            assert_eq!(stop.wait(), Reason::Signal);
        });
    }
}
