//! A copy of this home that serves while we do, and is the one that goes on: gone by at once, and said.
//!
//! Before it starts, a node looks where it last was (`StartError::Twin`); this is about copies that are found later
//! (`overlay::Twin`). The node promises nothing from that moment on, for what it promises is lost to the one that goes on; then
//! the process ends in order, with an exit status of its own, by which `up` knows not to start it again. Nor does any later start
//! serve (`StartError::Stopped`), before the owner says so.

use overlay::Stops;
use reactor::JoinHandle;

use crate::errors::Failure;
use crate::home::NodeHome;
use crate::node::StorageNode;
use crate::stop::{Reason, Stop};

/// Watches until it is dropped.
pub(crate) struct Watching {
    coroutine: JoinHandle<()>,
}

/// Has `stop` open when a copy of the node is found for which this one is to stop.
pub(crate) fn watch(node: &StorageNode, stop: &Stop) -> Watching {
    let (overlay, storage, stop) = (node.overlay().clone(), node.storage().clone(), stop.clone());
    let coroutine = reactor::spawn(move || {
        overlay.wait_until_twin_stops_us();
        storage.withdraw();
        stop.open(Reason::Copied);
    });
    Watching { coroutine }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.coroutine.terminate();
    }
}

/// Whether there is one.
///
/// # Errors
/// `Failure::Twin`.
pub(crate) fn refuse(node: &StorageNode) -> Result<(), Failure> {
    match node.overlay().twin().filter(|twin| twin.stops == Stops::We) {
        Some(twin) => Err(Failure::Twin { number: Some(node.number()), address: twin.address }),
        None => Ok(()),
    }
}

/// Has the next start of the node serve although a copy of it was found, or is found then: the owner said so. Only whoever has the lock
/// of the home may say it, since a node that runs writes the same file.
///
/// # Errors
/// If that can't be kept.
///
/// # Suspends
/// Until it is on disk.
pub(crate) fn accept(home: &NodeHome) -> Result<(), Failure> {
    let path = home.record_file();
    overlay::accept_copy(&path).map_err(|source| Failure::file(&path, source))
}
