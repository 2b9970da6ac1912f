//! What several of these tests need: the log of a piece of code, as text.

#![allow(dead_code, reason = "each test uses its part")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Collects what is written to it.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Returns what has been logged so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps other tests from setting the reactor thread's subscriber meanwhile.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `main` in the reactor, and returns what was logged on the reactor's thread meanwhile.
///
/// One at a time: all tests of a process share that thread, and its subscriber.
pub(crate) fn run_logged(main: impl FnOnce(&Log) + Send) -> String {
    let _alone = alone();
    let log = Log::default();
    let writer = log.clone();
    reactor::run(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(Mutex::new(writer))
            .finish();
        let _default = tracing::subscriber::set_default(subscriber);
        main(&log);
    });
    log.text()
}
