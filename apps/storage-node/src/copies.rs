//! A copy of this home that serves while we do, and has for longer: gone by at once, and said.
//!
//! Before it starts, a node looks where it last was (`StartError::Twin`); this is about copies that are found later
//! (`overlay::Twin`). The node promises nothing from that moment on, for what it promises is lost to the one that goes on; then
//! the process ends in order, with an exit status of its own, by which `up` knows not to start it again.

use reactor::JoinHandle;

use crate::errors::Failure;
use crate::node::StorageNode;
use crate::stop::{Reason, Stop};

/// Watches until it is dropped.
pub(crate) struct Watching {
    coroutine: JoinHandle<()>,
}

/// Has `stop` open when a copy of the node is found that has served for longer.
pub(crate) fn watch(node: &StorageNode, stop: &Stop) -> Watching {
    let (overlay, storage, stop) = (node.overlay().clone(), node.storage().clone(), stop.clone());
    let coroutine = reactor::spawn(move || {
        overlay.wait_for_elder_twin();
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
    match node.overlay().twin().filter(|twin| twin.is_elder) {
        Some(twin) => Err(Failure::Twin { number: Some(node.number()), address: twin.address }),
        None => Ok(()),
    }
}
