//! What a relay decides: who has a slot, what waits for whom, and what is dropped. Pure.
//!
//! Each client has a slot with a queue of what is for it. Where a queue is full the newest is dropped, as a router does:
//! what is ahead arrives in its order, and QUIC inside takes the loss for what it is, a path that is full. Everything is
//! counted against the peer who caused it, in all of its seats together: it may send so many bytes a second, and hold half of
//! a queue, so that one who floods a peer does not keep others from it; and some of the memory is each client's own, so that
//! those who read nothing do not keep others from each other.
//!
//! What it is not: a judgement of who may register ([`Admission`](super::Admission)), or of what is inside a datagram.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::frame::{Frame, Refusal};
use super::seat::Seat;
use crate::nat::PeerId;

/// What a relay gives at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Clients at once. The default is 1,024: each costs two coroutines and 40 KB, its queue apart.
    pub clients: usize,
    /// Bytes that wait for one client. The default of 256 KiB is 100 ms of 20 Mbit/s.
    pub queue_bytes: usize,
    /// Bytes that wait for all of them. The default is 64 MiB. An equal part of as much again, 64 KiB by default, is each
    /// client's own, whatever waits for others: so twice as many at most.
    pub memory_bytes: usize,
    /// Bytes that one peer may send in a second, in the long run. The default is 16 MiB.
    pub bytes_per_second: u64,
    /// Bytes that one peer may send at once. The default is 2 MiB.
    pub burst_bytes: u64,
    /// Bytes that all peers together may send in a second, in the long run, and at once. The default is 32 MiB: what a relay
    /// does beside, and its line, are to have the rest.
    pub bytes_per_second_in_all: u64,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota {
            clients: 1_024,
            queue_bytes: 256 << 10,
            memory_bytes: 64 << 20,
            bytes_per_second: 16 << 20,
            burst_bytes: 2 << 20,
            bytes_per_second_in_all: 32 << 20,
        }
    }
}

/// What a datagram in a queue costs beside its bytes, so that empty ones are bounded too.
const QUEUED_OVERHEAD_BYTES: usize = 100;

/// Seats of one peer: as many processes of one key as are at work on a busy machine, and no way to take all there are.
pub(super) const SEATS_EACH_MAX: usize = 64;

/// One of a client's registrations: the newest one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    seat: Seat,
    serial: u64,
}

impl Ticket {
    /// Which seat it is for.
    pub(super) fn seat(self) -> Seat {
        self.seat
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits for whom it is for.
    Queued,
    /// Nobody has that seat.
    Absent,
    /// The sender has sent too much, or all have.
    OverQuota,
    /// Too much waits for whom it is for, of this sender or of all.
    QueueFull,
    /// Too much waits for everybody, and whom it is for has its share.
    MemoryFull,
    /// The sender has registered anew since.
    Stale,
}

/// See the module.
pub(super) struct Switch {
    quota: Quota,
    slots: BTreeMap<Seat, Slot>,
    peers: BTreeMap<PeerId, Standing>,
    /// What all of them may still send; none before anybody came.
    in_all: Option<Allowance>,
    memory_bytes: usize,
    next_serial: u64,
}

/// What a peer with any seat has used, and how many it has.
struct Standing {
    allowance: Allowance,
    seats: usize,
}

struct Slot {
    serial: u64,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// Of these, by who sent them, from whichever seat.
    bytes_by_sender: BTreeMap<PeerId, usize>,
}

struct Queued {
    from: Seat,
    bytes: Box<[u8]>,
}

impl Queued {
    fn weight(&self) -> usize {
        weight(self.bytes.len())
    }
}

fn weight(bytes: usize) -> usize {
    QUEUED_OVERHEAD_BYTES + bytes
}

/// What may still be sent: it grows with time, up to a bound.
struct Allowance {
    bytes: u64,
    at: Instant,
}

impl Allowance {
    /// Takes so much of it, if it is there. It grows by `per_second`, to `most`.
    fn take(&mut self, bytes: u64, per_second: u64, most: u64, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_micros() * u128::from(per_second) / 1_000_000;
        // The rest of a byte that is not earned yet stays in the time.
        if earned > 0 {
            let earned = u64::try_from(earned).unwrap_or(u64::MAX);
            self.bytes = self.bytes.saturating_add(earned).min(most);
            self.at = now;
        }
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

impl Switch {
    /// A relay without clients.
    pub(super) fn new(quota: Quota) -> Switch {
        let (slots, peers) = (BTreeMap::new(), BTreeMap::new());
        Switch { quota, slots, peers, in_all: None, memory_bytes: 0, next_serial: 0 }
    }

    /// Gives a client its slot. One that had the seat already keeps what waits there, and its earlier ticket is worth nothing.
    ///
    /// # Errors
    /// [`Refusal::Full`], also for a peer with [`SEATS_EACH_MAX`] seats.
    pub(super) fn register(&mut self, seat: Seat, now: Instant) -> Result<Ticket, Refusal> {
        let is_new = !self.slots.contains_key(&seat);
        let has_many = self.peers.get(&seat.peer).is_some_and(|peer| peer.seats >= SEATS_EACH_MAX);
        if is_new && (has_many || self.slots.len() >= self.quota.clients) {
            return Err(Refusal::Full);
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        if is_new {
            // The allowance of a peer who is here stays as it is: who is over it would register anew.
            let allowance = Allowance { bytes: self.quota.burst_bytes, at: now };
            self.peers.entry(seat.peer).or_insert(Standing { allowance, seats: 0 }).seats += 1;
        }
        let slot = self.slots.entry(seat).or_insert_with(|| Slot {
            serial,
            queue: VecDeque::new(),
            queue_bytes: 0,
            bytes_by_sender: BTreeMap::new(),
        });
        slot.serial = serial;
        Ok(Ticket { seat, serial })
    }

    /// Takes the slot back, unless it has been given anew.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        if self.is_current(ticket) {
            self.free(ticket.seat);
        }
    }

    /// Takes all slots of a peer back; whose they were.
    pub(super) fn dismiss(&mut self, peer: PeerId) -> Vec<Seat> {
        let all = Seat { peer, number: 0 }..=Seat { peer, number: u64::MAX };
        let seats: Vec<Seat> = self.slots.range(all).map(|(seat, _)| *seat).collect();
        seats.iter().for_each(|seat| self.free(*seat));
        seats
    }

    fn free(&mut self, seat: Seat) {
        let Some(slot) = self.slots.remove(&seat) else { return };
        self.memory_bytes -= slot.queue_bytes;
        if let Some(peer) = self.peers.get_mut(&seat.peer) {
            peer.seats -= 1;
            if peer.seats == 0 {
                self.peers.remove(&seat.peer);
            }
        }
    }

    /// Whether the ticket is the client's newest.
    pub(super) fn is_current(&self, ticket: Ticket) -> bool {
        self.slots.get(&ticket.seat).is_some_and(|slot| slot.serial == ticket.serial)
    }

    /// A client sends `bytes` to another, or to itself.
    pub(super) fn on_datagram(&mut self, from: Ticket, to: Seat, bytes: &[u8], now: Instant) -> Fate {
        if !self.is_current(from) {
            return Fate::Stale;
        }
        let sender = from.seat.peer;
        let weight = weight(bytes.len());
        // Also for what goes nowhere: it was read, and is answered. Who has used up its own takes nothing from all.
        let (own, all) = (&self.quota, self.quota.bytes_per_second_in_all);
        let is_allowed = self.peers.get_mut(&sender).is_some_and(|peer| {
            peer.allowance.take(weight as u64, own.bytes_per_second, own.burst_bytes, now)
        });
        let in_all = self.in_all.get_or_insert(Allowance { bytes: all, at: now });
        if !is_allowed || !in_all.take(weight as u64, all, all, now) {
            return Fate::OverQuota;
        }
        let Some(slot) = self.slots.get_mut(&to) else { return Fate::Absent };
        let of_sender = slot.bytes_by_sender.get(&sender).copied().unwrap_or_default();
        if slot.queue_bytes + weight > self.quota.queue_bytes
            || of_sender + weight > self.quota.queue_bytes / 2
        {
            return Fate::QueueFull;
        }
        // Those who read nothing fill the memory in seconds; they must not stop the relay for everybody.
        let share = self.quota.memory_bytes / self.quota.clients.max(1);
        if self.memory_bytes + weight > self.quota.memory_bytes && slot.queue_bytes + weight > share {
            return Fate::MemoryFull;
        }
        slot.queue.push_back(Queued { from: from.seat, bytes: bytes.into() });
        slot.queue_bytes += weight;
        slot.bytes_by_sender.insert(sender, of_sender + weight);
        self.memory_bytes += weight;
        Fate::Queued
    }

    /// Appends what waits for a client to `out`, as frames, until that is `size` bytes long or longer.
    pub(super) fn take(&mut self, ticket: Ticket, size: usize, out: &mut Vec<u8>) {
        let Some(slot) = self.slots.get_mut(&ticket.seat).filter(|slot| slot.serial == ticket.serial) else {
            return;
        };
        while out.len() < size {
            let Some(queued) = slot.queue.pop_front() else { return };
            let weight = queued.weight();
            slot.queue_bytes -= weight;
            self.memory_bytes -= weight;
            if let Some(of_sender) = slot.bytes_by_sender.get_mut(&queued.from.peer) {
                *of_sender -= weight;
                if *of_sender == 0 {
                    slot.bytes_by_sender.remove(&queued.from.peer);
                }
            }
            Frame::Datagram { seat: queued.from, bytes: &queued.bytes }.encode(out);
        }
    }

    /// Peers with any slot.
    pub(super) fn clients(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    /// Clients that have a slot.
    pub(super) fn client_count(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests;
