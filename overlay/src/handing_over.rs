//! Handing something to a peer in the background, until it has it or is gone.
//!
//! One that was stopped, or whose disk is full, may be awake or have room later: it is asked again, ever more rarely. What a
//! peer did not take before the connection ended it is given when the two meet again.

use std::rc::Rc;
use std::time::Duration;

use reactor::rpc::Connection;

use crate::state::State;

/// The first pause before a peer is asked again; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest: nodes are to refuse the revoked within a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Calls `give` until it succeeds, the connection is closed or the node stops; `what` is for the log.
pub(crate) fn until_taken(
    state: &Rc<State>,
    connection: Connection,
    what: &'static str,
    mut give: impl FnMut(&Connection) -> Result<(), String> + 'static,
) {
    let state = state.clone();
    // At the limit of coroutines nothing is handed over now; when the two meet again it is.
    let spawned = reactor::Builder::new().spawn(move || {
        let mut pause = PAUSE_MIN;
        while !state.stopping.get() && !connection.is_closed() {
            match give(&connection) {
                Ok(()) => return,
                Err(error) => tracing::debug!(error, what, "a peer did not take it"),
            }
            reactor::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, what, "a peer is not given it before it is met again");
    }
}
