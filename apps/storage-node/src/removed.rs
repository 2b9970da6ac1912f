//! Being removed from the network: said once, and gone by.
//!
//! That it is so is the owner's word, which a node shows when it refuses who was removed (`overlay::admission`): nobody else
//! can make a process believe it, and a process that only reaches nobody goes on trying.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use filesystem::calendar::Civil;
use overlay::Node;
use reactor::JoinHandle;

use crate::admitting::seconds;
use crate::errors::Failure;

/// How often it is looked. Whoever is cut off dials again, and hears why.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a user who was removed hears.
pub(crate) const USER: &str = "you were";
/// What a node does.
pub(crate) const NODE: &str = "this node was";

/// Whether a process acts for somebody who was removed.
///
/// # Errors
/// `Failure::Removed`.
pub(crate) fn refuse(overlay: &Node, who: &'static str) -> Result<(), Failure> {
    match overlay.removed() {
        Some(since) => Err(failure(who, since)),
        None => Ok(()),
    }
}

fn failure(who: &'static str, since: SystemTime) -> Failure {
    Failure::Removed { who, since: Civil::of(seconds(since) as i64) }
}

/// Looks until it is dropped.
pub(crate) struct Watching {
    coroutine: JoinHandle<()>,
}

/// Calls `then` once, with what is to be said, when who this process acts for is removed, or at once if it was.
pub(crate) fn watch(overlay: &Rc<Node>, who: &'static str, then: impl FnOnce(Failure) + 'static) -> Watching {
    let overlay = overlay.clone();
    let coroutine = reactor::spawn(move || {
        let since = loop {
            match overlay.removed() {
                Some(since) => break since,
                None => reactor::sleep(INTERVAL),
            }
        };
        then(failure(who, since));
    });
    Watching { coroutine }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.coroutine.terminate();
    }
}
