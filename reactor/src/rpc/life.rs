//! A connection's life, as a state machine: it shakes hands, is ready, drains, leaves, and is closed.
//!
//! The housekeeper's coroutine runs it. A state's body is what the housekeeper does then: it looks after the peer's
//! heartbeat, or waits for what is still in flight. What others notice (the peer's hello, a wish to close, a broken
//! line) reaches it as events; silence, a peer that takes nothing, and too much time are its own findings. Calls never
//! pass through here: they look at [`Shared::phase`] only.
//!
//! What it is not: the teardown itself. That is done at once, by whoever finds the end first ([`Shared::close`]), and
//! may happen in a destructor; the machine then follows.

use std::rc::Rc;

use super::connection::CloseReason;
use super::frame::Header;
use super::progress::Pace;
use super::shared::{CLOSE_FLUSH_MAX, Phase, Shared};
use crate::coroutine;
use crate::fsm::{Machine, Trigger};
use crate::timer::Timer;

/// The peer's version is settled.
pub(super) const MET: &str = "hello, or a first frame of version 1";
/// One of the two ends wants no new calls.
pub(super) const DRAIN: &str = "drain";
/// We close: the goodbye is queued.
pub(super) const LEAVE: &str = "close";
/// The connection is torn down already.
pub(super) const LOST: &str = "the line is lost";

/// Lives until the connection is closed.
pub(super) fn live(shared: &Rc<Shared>) -> Result<(), CloseReason> {
    let mut machine = machine(shared);
    *shared.events.borrow_mut() = Some(machine.events());
    machine.run().map(drop)
}

/// States and transitions of a connection.
pub(super) fn machine(shared: &Rc<Shared>) -> Machine<'_, CloseReason> {
    let mut life = Machine::new("connection");
    let handshaking = life.state("handshaking", || watch(shared));
    let ready = life.state("ready", || watch(shared));
    let draining = life.state("draining", || {
        finish_calls(shared);
        Ok(())
    });
    let leaving = life.state("leaving", || {
        shared.begin_close();
        Ok(())
    });
    let closed = life.state("closed", || {
        shared.close(CloseReason::Local);
        Ok(())
    });
    life.transition(handshaking, ready, Trigger::event(MET));
    for state in [handshaking, ready] {
        life.transition(state, draining, Trigger::event(DRAIN));
        life.transition(state, closed, Trigger::error("silent or stuck", |reason| end(shared, reason)));
    }
    let find_dead = || {
        if let Err(reason) = watch(shared) {
            end(shared, &reason);
        }
    };
    life.transition(draining, closed, Trigger::when("silent or stuck", find_dead));
    life.transition(draining, leaving, Trigger::end());
    for state in [handshaking, ready, draining] {
        life.transition(state, leaving, Trigger::event(LEAVE));
    }
    life.transition(leaving, closed, Trigger::after(CLOSE_FLUSH_MAX));
    for state in [handshaking, ready, draining, leaving] {
        life.transition(state, closed, Trigger::event(LOST));
    }
    life
}

/// Keeps the reason for which the connection ends.
fn end(shared: &Shared, reason: &CloseReason) -> bool {
    shared.reason.borrow_mut().get_or_insert_with(|| reason.clone());
    true
}

/// Pings a silent peer, and finds out that one is dead or stuck.
///
/// # Errors
/// Then.
fn watch(shared: &Shared) -> Result<(), CloseReason> {
    let (ping_after, dead_after) = (shared.config.ping_after, shared.config.dead_after);
    let mut pinged_at = None;
    loop {
        let now = crate::now();
        let mut next = now + ping_after;
        let heard = shared.last_heard.get();
        if heard + dead_after <= now {
            return Err(CloseReason::Silent);
        }
        next = next.min(heard + dead_after);
        let waiting_bytes = shared.outbox.borrow().queued_bytes();
        match shared.line.pace(now, waiting_bytes, dead_after) {
            Pace::Good(until) => next = next.min(until.unwrap_or(next)),
            Pace::Stuck => return Err(CloseReason::Stuck),
        }
        let asked = pinged_at.is_some_and(|pinged| pinged > heard);
        if heard + ping_after <= now && !asked {
            pinged_at = Some(now);
            shared.say(Header::Ping);
        } else if !asked {
            next = next.min(heard + ping_after);
        }
        let _timer = Timer::wake_at(next);
        coroutine::park_on(&"a connection's events");
    }
}

/// Waits until nothing is in flight in either direction and all that was queued has left, or the time for it is over.
fn finish_calls(shared: &Shared) {
    let wait = || {
        while shared.is_busy() {
            shared.drained.wait();
        }
    };
    match shared.phase.get() {
        Phase::Draining(Some(until)) => {
            let _ = crate::timeout(until.saturating_duration_since(crate::now()), wait);
        }
        _ => wait(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{Config, Service};

    #[test]
    fn the_life_of_a_connection_is_drawn_as_it_is_run() {
        crate::run(|| {
            let (near, _far) = crate::net::pipe(1);
            let shared = Rc::new(Shared::new(near, Service::none(), Config::default()));
            let drawn = machine(&shared).mermaid();
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/rpc_connection.mermaid");
            if std::env::var_os("HYPHA_BLESS").is_some() {
                std::fs::write(path, &drawn).unwrap();
            }
            assert_eq!(drawn, std::fs::read_to_string(path).unwrap());
        });
    }
}
