//! Which of our own calls are in flight, so that answers find those who wait for them. Pure.
//!
//! What it is not: deadlines or waiting, or what the peer's calls cost us (`budget.rs`).

use std::collections::BTreeMap;

/// Our calls that the peer has not answered. `S` is where the answer goes.
#[derive(Debug)]
pub struct Outgoing<S> {
    next: u32,
    waiting: BTreeMap<u32, S>,
}

impl<S> Default for Outgoing<S> {
    fn default() -> Self {
        Outgoing { next: 0, waiting: BTreeMap::new() }
    }
}

impl<S> Outgoing<S> {
    /// Begins a call and returns its number, unique among those in flight.
    pub fn begin(&mut self, slot: S) -> u32 {
        // After 2^32 calls the numbers come round; one that is still in flight is passed over.
        while self.waiting.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let call = self.next;
        self.next = call.wrapping_add(1);
        self.waiting.insert(call, slot);
        call
    }

    /// Where the answer goes, if somebody waits for it.
    pub fn get(&self, call: u32) -> Option<&S> {
        self.waiting.get(&call)
    }

    /// Ends a call; `None` if it is no longer waited for.
    pub fn end(&mut self, call: u32) -> Option<S> {
        self.waiting.remove(&call)
    }

    /// Ends all, and gives their numbers too.
    pub fn end_all(&mut self) -> impl Iterator<Item = (u32, S)> + use<S> {
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// How many are waited for.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_flight_are_never_given_twice() {
        let mut calls = Outgoing { next: u32::MAX - 1, waiting: BTreeMap::new() };
        let first: Vec<u32> = (0..4).map(|slot| calls.begin(slot)).collect();
        assert_eq!(first, [u32::MAX - 1, u32::MAX, 0, 1]);
        calls.next = u32::MAX;
        assert_eq!(calls.begin(9), 2, "the numbers in flight are passed over");
        assert_eq!(calls.end(0), Some(2));
        assert_eq!(calls.end(0), None, "a second answer finds nobody");
        assert_eq!(calls.end_all().count(), 4);
        assert_eq!(calls.count(), 0);
    }
}
