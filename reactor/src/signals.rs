//! SIGINT, SIGTERM and their like as something that a coroutine waits for.

use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::coroutine::spend;
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
            Signal::Interrupt => SIGINT,
            Signal::Terminate => SIGTERM,
            Signal::HangUp => SIGHUP,
            Signal::User1 => SIGUSR1,
            Signal::User2 => SIGUSR2,
        }
    }
}

/// Signals that no longer do what they do by default, but wake a coroutine instead. Dropped, they do so again: Ctrl-C
/// ends the process.
///
/// One socket pair for each kind: the handler writes a byte, so many of one kind may merge into one. Several may take
/// the same signal, on several threads too: each is told.
pub struct Signals {
    pipes: Vec<(Signal, Descriptor, Taken)>,
}

/// A signal that is written to a pipe until this is dropped.
struct Taken {
    number: i32,
    id: SigId,
}

/// What the process knows of a signal that was ever taken.
struct Takers {
    count: usize,
    /// Nobody takes it now. The handler stays installed, and then does what the signal does by default.
    is_free: Arc<AtomicBool>,
}

static TAKERS: Mutex<BTreeMap<i32, Takers>> = Mutex::new(BTreeMap::new());

fn takers() -> MutexGuard<'static, BTreeMap<i32, Takers>> {
    TAKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Taken {
    fn new(number: i32, writer: StdUnixStream) -> io::Result<Taken> {
        let mut takers = takers();
        if let Entry::Vacant(unknown) = takers.entry(number) {
            let is_free = Arc::new(AtomicBool::new(true));
            // Ignored (as `nohup` has it) or somebody else's already: it stays theirs when we let go of it.
            if !is_in_use(number) {
                signal_hook::flag::register_conditional_default(number, is_free.clone())?;
            }
            unknown.insert(Takers { count: 0, is_free });
        }
        let id = signal_hook::low_level::pipe::register(number, writer)?;
        if let Some(takers) = takers.get_mut(&number) {
            takers.count += 1;
            takers.is_free.store(false, Ordering::SeqCst);
        }
        Ok(Taken { number, id })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.id);
        if let Some(takers) = takers().get_mut(&self.number) {
            takers.count -= 1;
            takers.is_free.store(takers.count == 0, Ordering::SeqCst);
        }
    }
}

/// Whether the signal does something else than by default, as far as the system tells.
fn is_in_use(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let masks = status.lines().filter_map(|line| {
        let mask = line.strip_prefix("SigIgn:").or_else(|| line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask) >> (number - 1) & 1 == 1
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
            let reader = Descriptor::new(reader.into())?;
            pipes.push((signal, reader, Taken::new(signal.number(), writer)?));
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
                    spend();
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
