//! When a long-running command should end: a signal, or the end of the process that started it.
//!
//! One gate that whoever has to end waits for. A second signal, while the end is under way, is not ours: the default
//! action is what an impatient user wants, so it is restored by dropping the watcher when the gate has opened.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::rc::Rc;

use reactor::net::Descriptor;
use reactor::signals::{Signal, Signals};
use reactor::sync::Barrier;

use crate::errors::Failure;

/// Why a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Ctrl-C or SIGTERM.
    Signal,
    /// Standard input has ended: the process that started us is gone or wants us to go.
    InputEnded,
    /// Somebody unmounted the drive.
    Unmounted,
}

/// A gate that opens once, for a reason.
#[derive(Clone)]
pub(crate) struct Stop {
    gate: Rc<Barrier>,
    reason: Rc<Cell<Option<Reason>>>,
}

impl Stop {
    /// A gate that SIGINT and SIGTERM open.
    ///
    /// # Errors
    /// If signals can't be watched.
    pub(crate) fn on_signals() -> Result<Stop, Failure> {
        let signals = Signals::new(&[Signal::Interrupt, Signal::Terminate])
            .map_err(|source| Failure::Stream { what: "signals", source })?;
        let stop = Stop { gate: Rc::new(Barrier::new(false)), reason: Rc::default() };
        let opener = stop.clone();
        reactor::spawn(move || {
            signals.wait();
            opener.open(Reason::Signal);
        });
        Ok(stop)
    }

    /// Has the end of standard input open the gate too; it must be a pipe.
    ///
    /// # Errors
    /// If it can't be watched.
    pub(crate) fn on_input_end(&self) -> Result<(), Failure> {
        let failed = |source| Failure::Stream { what: "standard input", source };
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let input = Descriptor::new(input).map_err(failed)?;
        let opener = self.clone();
        reactor::spawn(move || {
            let mut ignored = [0; 64];
            while let Ok(1..) = input.read_with(|fd| Ok(rustix::io::read(fd, &mut ignored)?)) {}
            opener.open(Reason::InputEnded);
        });
        Ok(())
    }

    /// Opens the gate; the first reason counts.
    pub(crate) fn open(&self, reason: Reason) {
        if self.reason.get().is_none() {
            self.reason.set(Some(reason));
        }
        self.gate.open();
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

/// Prints a line for the user. A terminal that is gone is no reason to fail, let alone to panic as `println!` does.
pub(crate) fn say(line: impl Display) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_goes_on_until_the_gate_opens() {
        reactor::run(|| {
            let stop = Stop { gate: Rc::new(Barrier::new(false)), reason: Rc::default() };
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
