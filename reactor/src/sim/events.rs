//! What is going to happen in a world, in the order of its time; at one instant in the order it was arranged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tcp::TcpEvent;
use super::udp::Datagram;
use crate::timer::Action;

/// Something that happens at an instant.
pub(super) enum Event {
    /// A timer of a coroutine.
    Timer(Action),
    /// A segment leaves or arrives.
    Tcp(TcpEvent),
    /// The end of this number learns that its peer is not there.
    TcpRefused(u64),
    /// A datagram arrives.
    Datagram(Datagram),
}

/// Names an event that has yet to happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct EventKey {
    due: Duration,
    number: u64,
}

/// The events to come.
#[derive(Default)]
pub(super) struct Events {
    queue: BTreeMap<EventKey, Event>,
    next_number: u64,
}

impl Events {
    pub(super) fn push(&mut self, due: Duration, event: Event) -> EventKey {
        let key = EventKey { due, number: self.next_number };
        self.next_number += 1;
        self.queue.insert(key, event);
        key
    }

    pub(super) fn remove(&mut self, key: EventKey) -> Option<Event> {
        self.queue.remove(&key)
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|(key, _)| key.due)
    }

    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Event> {
        let entry = self.queue.first_entry()?;
        (entry.key().due <= now).then(|| entry.remove())
    }
}
