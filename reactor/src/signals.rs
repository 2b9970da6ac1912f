//! SIGINT, SIGTERM and their like as something that a coroutine waits for.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::net::Descriptor;
use crate::select::{Selectable, Waiter, source::Source};

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
            Signal::Interrupt => SIGINT,
            Signal::Terminate => SIGTERM,
            Signal::HangUp => SIGHUP,
            Signal::User1 => SIGUSR1,
            Signal::User2 => SIGUSR2,
        }
    }
}

/// Signals that no longer do what they do by default, but wake a coroutine instead.
///
/// One socket pair for each kind: the handler writes a byte, so many of one kind may merge into one.
pub struct Signals {
    pipes: Vec<(Signal, Descriptor, SigId)>,
}

impl Signals {
    /// Takes the signals over until dropped. Never suspends.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`].
    pub fn new(signals: &[Signal]) -> io::Result<Signals> {
        let mut pipes = Vec::with_capacity(signals.len());
        for &signal in signals {
            let (reader, writer) = StdUnixStream::pair()?;
            let id = signal_hook::low_level::pipe::register(signal.number(), writer)?;
            pipes.push((signal, Descriptor::new(reader.into())?, id));
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
        loop {
            for (signal, descriptor, _) in &self.pipes {
                let taken = descriptor.try_read_with(|fd| {
                    let mut bytes = [0u8; 64];
                    rustix::io::read(fd, &mut bytes).map_err(io::Error::from)
                });
                if matches!(taken, Some(Ok(count)) if count > 0) {
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

    fn enroll(&self, waiter: &Waiter) {
        self.pipes.iter().for_each(|(_, pipe, _)| pipe.enroll(waiter));
    }

    fn withdraw(&self, waiter: &Waiter) {
        self.pipes.iter().for_each(|(_, pipe, _)| pipe.withdraw(waiter));
    }
}

impl Selectable for Signals {}

impl Drop for Signals {
    fn drop(&mut self) {
        for (_, _, id) in &self.pipes {
            signal_hook::low_level::unregister(*id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coroutine_waits_for_a_signal() {
        crate::run(|| {
            let signals = Signals::new(&[Signal::User1, Signal::User2]).unwrap();
            signal_hook::low_level::raise(SIGUSR2).unwrap();
            assert_eq!(signals.wait(), Signal::User2);
            signal_hook::low_level::raise(SIGUSR1).unwrap();
            assert_eq!(signals.wait(), Signal::User1);
        });
    }
}
