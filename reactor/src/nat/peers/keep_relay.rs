//! The connection to one relay: made again when it breaks, and asked meanwhile where we are.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::RelayAt;
use super::core::Core;
use crate::crypto::Identity;
use crate::nat::relay::{self, Event, Receiver};
use crate::nat::stun::{self, Timing};
use crate::net::quic::Lane;
use crate::{Backoff, now, scope, sleep};

/// The pause behind the first failure, before it is doubled.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// A relay that is back is found within so long.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A connection that lived so long was a good one: what comes after it is a first failure again.
const LIVED_WELL: Duration = Duration::from_secs(10);

/// How often we ask where we are: within the 30 s in which a router forgets what it lent us.
const ASK_EVERY: Duration = Duration::from_secs(25);

/// Keeps it, until terminated. `credential` is what it is shown; `seat` is who we are there, and in which of our seats; `socket`
/// is that of the endpoint: the share of STUN's answers, and its port.
pub(super) fn keep(
    core: &Core,
    number: usize,
    (relay, credential): (&RelayAt, &dyn Fn() -> Vec<u8>),
    seat: (&Rc<Identity>, u64),
    socket: (&Lane, u16),
) {
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    loop {
        match relay::connect_in(relay.address, relay.id.expected(), seat, &credential()) {
            Ok((sender, mut receiver)) => {
                let begun = now();
                let host = sender.local_addr().map(|address| SocketAddr::new(address.ip(), socket.1)).ok();
                core.set_relay(number, Some(sender));
                scope(|s| {
                    let asking = s.spawn(|| ask(core, number, relay, host, socket.0));
                    let error = take(core, number, &mut receiver);
                    tracing::debug!("the relay at {}: {error}", relay.address);
                    asking.terminate();
                });
                core.set_relay(number, None);
                if now() - begun >= LIVED_WELL {
                    backoff.reset();
                }
            }
            Err(error) => tracing::debug!("the relay at {}: {error}", relay.address),
        }
        backoff.wait();
    }
}

/// Takes what comes, until the connection breaks; why it did.
fn take(core: &Core, number: usize, receiver: &mut Receiver) -> std::io::Error {
    loop {
        match receiver.receive() {
            Ok(Event::Datagram { from, bytes }) => core.on_relayed(number, from, &bytes),
            Ok(Event::Absent(seat)) => core.on_absent(number, seat),
            Err(error) => return error,
        }
    }
}

/// Learns our addresses: that of the machine, by which it reaches the relay, and that which the relay sees.
fn ask(core: &Core, number: usize, relay: &RelayAt, host: Option<SocketAddr>, lane: &Lane) {
    let host = host.into_iter().filter(|host| !host.ip().is_loopback());
    let mut own: Vec<SocketAddr> = host.clone().collect();
    core.set_own(number, own.clone());
    loop {
        if let Ok(answer) = stun::ask(lane, relay.address, Timing::default()) {
            let mapped = SocketAddr::new(answer.mapped.ip().to_canonical(), answer.mapped.port());
            own = host.clone().chain([mapped]).collect();
            own.dedup();
            core.set_own(number, own.clone());
        }
        sleep(ASK_EVERY);
    }
}
