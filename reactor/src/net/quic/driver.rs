//! The coroutine of an endpoint: receive what has come, call whose time has come, send what there is to send, wait.
//!
//! All of QUIC's work is done here, in one place and in batches. Who writes to a stream only fills it and says so; by the
//! time that this coroutine runs, others have written too, and one send carries it all.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use super::connection::Inner;
use super::endpoint::Shared;
use super::error::Lost;
use super::wire::{Buffers, Trouble, trouble};
use crate::clock::now;
use crate::coroutine::{pass, yield_now};
use crate::seldom::warn_seldom;
use crate::select::{at, select};
use crate::timer::sleep;

/// System calls that receive, before what came is answered: acknowledgements that wait for more make a peer wait.
const RECEIVES_MAX: usize = 4;

/// Sends of one connection before another has its turn: 640 datagrams.
const SENDS_MAX: usize = 20;

/// How long the endpoint rests when the kernel has no memory for it: others may give some back meanwhile.
const EXHAUSTED_REST: Duration = Duration::from_millis(20);

/// Runs until nobody uses the endpoint any more and its connections have ended.
pub(super) fn run(shared: &Rc<Shared>) {
    let _last = LastWords(shared);
    let mut buffers = Buffers::new();
    let mut scratch = Vec::new();
    loop {
        shared.told.set(false);
        for _ in 0..RECEIVES_MAX {
            match shared.wire.receive(&mut buffers, |received| shared.on_datagram(&received)) {
                // A flood is many such calls, and others have their turn in between.
                Ok(true) => pass(),
                Ok(false) => break,
                Err(error) if trouble(&error) == Trouble::OfAMoment => {
                    warn_seldom!("QUIC: nothing can be received at the moment: {error}");
                    sleep(EXHAUSTED_REST);
                    break;
                }
                Err(error) => {
                    return shared.fail(&Lost::new(error.kind(), format!("a QUIC socket: {error}")));
                }
            }
        }
        fire_timers(shared);
        send(shared, &mut scratch);
        if !shared.is_open.get() && shared.connections.borrow().is_empty() && Rc::strong_count(shared) == 1 {
            return;
        }
        if shared.told.get() {
            // Those who wrote have their turn, and may write more.
            yield_now();
        } else {
            wait(shared);
        }
    }
}

/// Until a datagram comes, somebody has work, or a timer is due.
fn wait(shared: &Shared) {
    let due = shared.timers.borrow().first().map(|(due, _)| *due);
    match due {
        Some(due) => select(&[shared.socket(), &shared.work, &at(due)]),
        None => select(&[shared.socket(), &shared.work]),
    };
}

fn fire_timers(shared: &Shared) {
    let now = now();
    loop {
        let first = shared.timers.borrow_mut().first().copied();
        let Some((due, number)) = first.filter(|(due, _)| *due <= now) else { return };
        shared.timers.borrow_mut().remove(&(due, number));
        let found = shared.connections.borrow().get(&number).cloned();
        if let Some(inner) = found {
            inner.on_timer(now);
        }
    }
}

/// Sends what is ready. Suspends while the socket is full.
fn send(shared: &Shared, scratch: &mut Vec<u8>) {
    loop {
        let answer = shared.answers.borrow_mut().pop();
        let Some((mut transmit, bytes)) = answer else { break };
        if shared.route(&mut transmit, &bytes) {
            // Lost like any other.
            let _ = shared.wire.send(&transmit, &bytes);
        }
    }
    // Whoever becomes dirty meanwhile waits for the next round, after what has come.
    let round = shared.dirty.take();
    for inner in round {
        inner.is_dirty.set(false);
        inner.on_events();
        let mut has_more = true;
        for _ in 0..SENDS_MAX {
            scratch.clear();
            let transmit = inner.proto.borrow_mut().poll_transmit(now(), inner.segments_max(), scratch);
            let Some(mut transmit) = transmit else {
                has_more = false;
                break;
            };
            if inner.may_send(transmit.size)
                && shared.route(&mut transmit, scratch)
                && let Err(error) = shared.wire.send(&transmit, &scratch[..transmit.size])
            {
                inner.on_send_error(&error);
            }
        }
        if has_more {
            inner.touch();
        }
        inner.after_sending();
    }
}

/// Says goodbye to all peers, without waiting: the run ends, or the coroutine was terminated.
struct LastWords<'a>(&'a Shared);

impl Drop for LastWords<'_> {
    fn drop(&mut self) {
        let all: Vec<Rc<Inner>> = self.0.connections.borrow().values().cloned().collect();
        for inner in all {
            let mut bytes = Vec::new();
            let mut proto = inner.proto.borrow_mut();
            proto.close(now(), 0_u32.into(), bytes::Bytes::new());
            let last = proto.poll_transmit(now(), 1, &mut bytes).filter(|last| inner.may_send(last.size));
            drop(proto);
            if let Some(mut transmit) = last
                && self.0.route(&mut transmit, &bytes)
            {
                self.0.wire.try_send(&transmit, &bytes[..transmit.size]);
            }
        }
        self.0.fail(&Lost::new(ErrorKind::NotConnected, "the endpoint has ended"));
    }
}
