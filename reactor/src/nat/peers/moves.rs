//! Notices that this machine has another address than the one from which its relays, and peers by TCP, are reached: what goes
//! there is dead, and everybody says so only after a while. So the connection is ended at once, made anew, and the addresses
//! that peers are told are found out again.
//!
//! What it is not: the same for a router that gets another address. That shows when a relay is asked where we are
//! (`keep_relay.rs`), or by silence.

use std::net::SocketAddr;
use std::time::Instant;

use super::core::Core;
use super::paths::Paths;
use crate::nat::relay::Sender;
use crate::net::{route_changes, source_towards};
use crate::now;

/// Looks whenever the kernel says that anything has changed, until it is terminated. `bound` is the address of the endpoint.
pub(super) fn watch(core: &Core, bound: SocketAddr) {
    let first = || core.learn_machine(bound);
    route_changes::watch(first, || {
        core.learn_machine(bound);
        core.look_where_we_are();
    });
}

impl Core {
    /// Ends what leaves from an address that is not ours any more, or not the one from which the way leads now.
    fn look_where_we_are(&self) {
        let relays = self.relays_up();
        let mut table = self.table.borrow_mut();
        let numbers = table.numbers();
        let lines = numbers.into_iter().filter_map(|number| Some(table.peer(number)?.line()?.sender.clone()));
        let lines: Vec<Sender> = lines.collect();
        let moved: Vec<&Sender> = relays.iter().chain(&lines).filter(|sender| has_moved(sender)).collect();
        if moved.is_empty() {
            return;
        }
        tracing::debug!("this machine has another address: {} connections are made anew", moved.len());
        drop(table);
        self.on_each(Paths::on_moved);
        // Whoever reads from them wakes, and makes them anew.
        moved.into_iter().for_each(Sender::close);
        self.tell();
    }

    /// Tells the paths of each peer of something, who are looked at then.
    pub(super) fn on_each(&self, tell: impl Fn(&mut Paths, Instant)) {
        let mut table = self.table.borrow_mut();
        for number in table.numbers() {
            if let Some(peer) = table.peer(number) {
                tell(&mut peer.paths, now());
                table.set_due(number, Some(now()));
            }
        }
    }
}

/// Whether packets to the other side would leave from another address than this connection's. Where there is no way at all
/// just now, nobody knows.
fn has_moved(sender: &Sender) -> bool {
    let (Ok(own), Ok(other)) = (sender.local_addr(), sender.peer_addr()) else { return false };
    source_towards(other).is_ok_and(|now| now != own.ip())
}
