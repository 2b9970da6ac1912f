//! SIGINT, SIGTERM and their like as something that a coroutine waits for.

mod handler;

use std::io;

use self::handler::Taker;
use crate::coroutine::begin;
use crate::net::Descriptor;
use crate::select::{Selectable, source::Source};
use crate::sync::WaitList;

/// A signal that a coroutine may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: the system, or `kill`, asks the process to end.
    Terminate,
    /// SIGHUP: the terminal went away, or a daemon should read its settings again.
    HangUp,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::HangUp => libc::SIGHUP,
            Signal::User1 => libc::SIGUSR1,
            Signal::User2 => libc::SIGUSR2,
        }
    }
}

/// Signals that no longer do what they did, but wake a coroutine instead. Dropped, they do so again: Ctrl-C
/// ends the process.
///
/// One socket pair for each kind: the handler writes a byte, so many of one kind may merge into one. Several may take
/// the same signal, 256 at most, on several threads too: each is told. The pairs stay open for whoever takes it next.
pub struct Signals {
    pipes: Vec<(Signal, Descriptor, Taker)>,
}

impl Signals {
    /// Takes the signals over until dropped. Never suspends.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors; `Unsupported` in a simulation.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`].
    pub fn new(signals: &[Signal]) -> io::Result<Signals> {
        if crate::clock::is_virtual() {
            // Before anything of the whole process is changed.
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a simulation has no signals"));
        }
        let mut pipes = Vec::with_capacity(signals.len());
        for &signal in signals {
            let (taker, reader) = Taker::new(signal.number())?;
            pipes.push((signal, Descriptor::new(reader.into())?, taker));
        }
        Ok(Signals { pipes })
    }

    /// Waits for the next signal.
    ///
    /// # Errors
    ///
    /// None in practice: the socket pairs stay open.
    ///
    /// # Suspends
    ///
    /// Until one arrives.
    pub fn wait(&self) -> Signal {
        let call = begin();
        loop {
            for (signal, descriptor, _) in &self.pipes {
                let taken = descriptor.try_read_with(|fd| {
                    let mut bytes = [0u8; 64];
                    rustix::io::read(fd, &mut bytes).map_err(io::Error::from)
                });
                if matches!(taken, Some(Ok(count)) if count > 0) {
                    call.needed_no_wait();
                    return *signal;
                }
            }
            let descriptors: Vec<&Descriptor> = self.pipes.iter().map(|(_, pipe, _)| pipe).collect();
            Descriptor::wait_any_readable(&descriptors);
        }
    }
}

/// Ready when a signal came.
impl Source for Signals {
    fn is_ready(&self) -> bool {
        self.pipes.iter().any(|(_, pipe, _)| pipe.is_ready())
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        self.pipes.iter().for_each(|(_, pipe, _)| pipe.rows(row));
    }
}

impl Selectable for Signals {}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
    }

    #[test]
    fn a_coroutine_waits_for_a_signal() {
        crate::run(|| {
            let signals = Signals::new(&[Signal::User1, Signal::User2]).unwrap();
            raise(rustix::process::Signal::USR2);
            assert_eq!(signals.wait(), Signal::User2);
            raise(rustix::process::Signal::USR1);
            assert_eq!(signals.wait(), Signal::User1);
        });
    }
}
