//! Which entry goes when there is no room: S3-FIFO, as plain data.
//!
//! Most of what is fetched is never asked for again before it would go. So what is new stands in a *small* queue with a
//! tenth of the room; at its end an entry that was used moves to the *main* queue, and one that was not goes, and only its
//! name is remembered. What comes back while its name is remembered goes to the main queue at once; there a used entry gets
//! another round. A scan of a large tree passes through the small queue and leaves the main one as it was.
//!
//! One departure from the paper: one use is enough to stay, not two, since the memory cache above has answered the first
//! repeats before any of them could be counted here.
//!
//! Source: Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm 1.
//!
//! Not here: files. Whoever asks for room is told one step at a time, and takes it on the disk before asking again.

use std::collections::{HashMap, HashSet, VecDeque};

/// The small queue's share of the room: the paper's tenth.
const SMALL_SHARE: u64 = 10;
/// Uses are counted to here: the paper's two bits.
const USES_MAX: u8 = 3;

/// Where an entry stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Queue {
    Small,
    Main,
    /// Not one in which anything waits for its turn: what is pinned never goes.
    Pinned,
}

/// What has to happen to one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It moved to the main queue.
    Promote(u64),
    /// It is gone from this queue.
    Evict(u64, Queue),
}

#[derive(Debug)]
struct Slot {
    queue: Queue,
    size: u64,
    uses: u8,
    /// What is remembered of it when it is gone.
    name: u64,
}

/// Entries by number, within a bound of bytes and one of their count.
#[derive(Debug)]
pub(super) struct S3Fifo {
    slots: HashMap<u64, Slot>,
    /// Numbers, the oldest first; some may have been removed.
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    small_bytes: u64,
    main_bytes: u64,
    pinned_bytes: u64,
    /// Names of those that went unused, the oldest first.
    gone: VecDeque<u64>,
    gone_names: HashSet<u64>,
    bytes_max: u64,
    count_max: usize,
}

impl S3Fifo {
    /// Nothing yet, and room for `bytes_max` in at most `count_max` entries.
    pub(super) fn new(bytes_max: u64, count_max: usize) -> S3Fifo {
        S3Fifo {
            slots: HashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_bytes: 0,
            main_bytes: 0,
            pinned_bytes: 0,
            gone: VecDeque::new(),
            gone_names: HashSet::new(),
            bytes_max,
            count_max,
        }
    }

    /// Returns what the entries take.
    pub(super) fn bytes(&self) -> u64 {
        self.small_bytes + self.main_bytes + self.pinned_bytes
    }

    /// Returns what pinned entries take.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// Whether there is room for one more entry of `size` bytes.
    pub(super) fn fits(&self, size: u64) -> bool {
        self.bytes() + size <= self.bytes_max && self.slots.len() < self.count_max
    }

    /// Puts an entry behind the others of a queue.
    pub(super) fn set_queue(&mut self, number: u64, queue: Queue) {
        let Some(slot) = self.slots.get_mut(&number) else { return };
        let (before, size) = (std::mem::replace(&mut slot.queue, queue), slot.size);
        *self.bytes_of(before) -= size;
        self.enqueue(number, queue, size);
    }

    /// Returns where an entry stands; `None` if it is not here.
    pub(super) fn queue(&self, number: u64) -> Option<Queue> {
        self.slots.get(&number).map(|slot| slot.queue)
    }

    /// Returns where a new entry of this name belongs.
    pub(super) fn place_of(&self, name: u64) -> Queue {
        if self.gone_names.contains(&name) { Queue::Main } else { Queue::Small }
    }

    /// Takes an entry in, behind the others of its queue. Nobody checks that there is room: see [`S3Fifo::make_room`].
    pub(super) fn insert(&mut self, number: u64, name: u64, size: u64, queue: Queue) {
        self.remove(number);
        self.slots.insert(number, Slot { queue, size, uses: 0, name });
        self.enqueue(number, queue, size);
    }

    /// Counts a use.
    pub(super) fn touch(&mut self, number: u64) {
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.uses = (slot.uses + 1).min(USES_MAX);
        }
    }

    /// Takes an entry out, whatever its use.
    pub(super) fn remove(&mut self, number: u64) {
        if let Some(slot) = self.slots.remove(&number) {
            *self.bytes_of(slot.queue) -= slot.size;
        }
    }

    /// Makes the next step towards room for one entry of `size` bytes; `None` once there is, or nothing is left to go.
    pub(super) fn make_room(&mut self, size: u64) -> Option<Step> {
        while !self.fits(size) {
            let is_full = self.small_bytes >= self.bytes_max / SMALL_SHARE || self.main_bytes == 0;
            if self.small_bytes > 0 && is_full {
                let number = self.small.pop_front()?;
                let Some(slot) = self.slots.get_mut(&number).filter(|slot| slot.queue == Queue::Small) else {
                    continue;
                };
                self.small_bytes -= slot.size;
                if slot.uses > 0 {
                    (slot.uses, slot.queue) = (0, Queue::Main);
                    let size = slot.size;
                    self.enqueue(number, Queue::Main, size);
                    return Some(Step::Promote(number));
                }
                let name = slot.name;
                self.slots.remove(&number);
                self.remember(name);
                return Some(Step::Evict(number, Queue::Small));
            }
            let number = self.main.pop_front()?;
            let Some(slot) = self.slots.get_mut(&number).filter(|slot| slot.queue == Queue::Main) else {
                continue;
            };
            if slot.uses > 0 {
                slot.uses -= 1;
                self.main.push_back(number);
                continue;
            }
            self.main_bytes -= slot.size;
            self.slots.remove(&number);
            return Some(Step::Evict(number, Queue::Main));
        }
        None
    }

    fn enqueue(&mut self, number: u64, queue: Queue, size: u64) {
        *self.bytes_of(queue) += size;
        match queue {
            Queue::Small => self.small.push_back(number),
            Queue::Main => self.main.push_back(number),
            Queue::Pinned => {}
        }
    }

    fn bytes_of(&mut self, queue: Queue) -> &mut u64 {
        match queue {
            Queue::Small => &mut self.small_bytes,
            Queue::Main => &mut self.main_bytes,
            Queue::Pinned => &mut self.pinned_bytes,
        }
    }

    /// As many names as there are entries: the paper has as many as the main queue holds, which is empty at first.
    fn remember(&mut self, name: u64) {
        if self.gone_names.insert(name) {
            self.gone.push_back(name);
        }
        while self.gone.len() > self.slots.len().max(1) {
            if let Some(oldest) = self.gone.pop_front() {
                self.gone_names.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// A cache of entries of one byte, whose number is their name.
    struct Simple(S3Fifo);

    impl Simple {
        fn new(room: u64) -> Simple {
            Simple(S3Fifo::new(room, usize::MAX))
        }

        /// Whether it was there; it is then.
        fn ask(&mut self, name: u64) -> bool {
            if self.0.queue(name).is_some() {
                self.0.touch(name);
                return true;
            }
            let queue = self.0.place_of(name);
            while self.0.make_room(1).is_some() {}
            self.0.insert(name, name, 1, queue);
            assert!(self.0.bytes() <= self.0.bytes_max);
            false
        }

        fn ask_all(&mut self, names: std::ops::Range<u64>) {
            for name in names {
                self.ask(name);
            }
        }
    }

    /// Least recently used, or with `moves` false first in, first out.
    struct Reference {
        order: VecDeque<u64>,
        room: usize,
        moves: bool,
    }

    impl Reference {
        fn ask(&mut self, name: u64) -> bool {
            let at = self.order.iter().position(|held| *held == name);
            match at {
                Some(at) if self.moves => {
                    self.order.remove(at);
                    self.order.push_back(name);
                }
                Some(_) => {}
                None => {
                    self.order.push_back(name);
                    if self.order.len() > self.room {
                        self.order.pop_front();
                    }
                }
            }
            at.is_some()
        }
    }

    /// Names as popular as words are (Zipf), and now and then a walk over files that nobody asks for again.
    fn trace() -> Vec<u64> {
        let mut random = StdRng::seed_from_u64(20_261_126);
        let mut trace = Vec::new();
        let mut fresh = 1_000_000;
        for _ in 0..200 {
            trace.extend((0..200).map(|_| 5_000f64.powf(random.random::<f64>()) as u64));
            trace.extend(fresh..fresh + 100);
            fresh += 100;
        }
        trace
    }

    #[test]
    fn more_is_found_than_with_lru_or_fifo_where_scans_pass_through() {
        let (mut ours, room) = (Simple::new(300), 300);
        let mut lru = Reference { order: VecDeque::new(), room, moves: true };
        let mut fifo = Reference { order: VecDeque::new(), room, moves: false };
        let (mut hits, mut lru_hits, mut fifo_hits) = (0, 0, 0);
        for name in trace() {
            hits += u32::from(ours.ask(name));
            lru_hits += u32::from(lru.ask(name));
            fifo_hits += u32::from(fifo.ask(name));
        }
        println!("s3-fifo {hits}, lru {lru_hits}, fifo {fifo_hits}");
        assert!(hits > lru_hits && lru_hits > fifo_hits);
    }

    #[test]
    fn what_was_used_stays_while_a_scan_goes_by() {
        let mut cache = Simple::new(100);
        cache.ask_all(0..50);
        (0..50).for_each(|name| assert!(cache.ask(name)));
        (1000..2000).for_each(|name| assert!(!cache.ask(name)));
        assert!((0..50).all(|name| cache.ask(name)));
        assert_eq!(cache.0.queue(0), Some(Queue::Main));
    }

    #[test]
    fn what_comes_back_soon_goes_to_the_main_queue() {
        let mut cache = Simple::new(10);
        cache.ask_all(0..11);
        assert_eq!(cache.0.queue(0), None);
        assert!(!cache.ask(0));
        assert_eq!(cache.0.queue(0), Some(Queue::Main));
    }

    #[test]
    fn what_is_never_used_again_leaves_the_main_queue_in_the_end() {
        let mut cache = Simple::new(10);
        cache.ask_all(0..11);
        assert!(!cache.ask(0));
        for name in 100..300 {
            cache.ask(name);
            // Back at once, and so into the main queue as well.
            cache.ask_all(name - 5..name);
        }
        assert_eq!(cache.0.queue(0), None);
    }

    #[test]
    fn what_is_pinned_never_goes_until_it_is_let_go() {
        let mut cache = Simple::new(10);
        cache.ask_all(0..10);
        cache.0.set_queue(3, Queue::Pinned);
        cache.ask_all(100..200);
        assert_eq!((cache.0.queue(3), cache.0.pinned_bytes(), cache.0.bytes()), (Some(Queue::Pinned), 1, 10));
        cache.0.set_queue(3, Queue::Main);
        cache.0.set_queue(3, Queue::Pinned);
        cache.0.set_queue(3, Queue::Main);
        while cache.0.make_room(10).is_some() {}
        assert_eq!((cache.0.queue(3), cache.0.bytes()), (None, 0));
        // Where all is pinned there is no room, and nothing to make it with.
        cache.0.insert(1, 1, 10, Queue::Pinned);
        assert_eq!((cache.0.make_room(1), cache.0.fits(1)), (None, false));
    }

    #[test]
    fn what_is_removed_leaves_no_bytes_behind_and_sizes_count() {
        let mut cache = S3Fifo::new(100, 4);
        for number in 0..4 {
            cache.insert(number, number, 20, Queue::Small);
        }
        cache.remove(1);
        assert_eq!(cache.bytes(), 60);
        assert_eq!(cache.make_room(40), None);
        assert_eq!(cache.make_room(41), Some(Step::Evict(0, Queue::Small)));
        cache.insert(7, 7, 20, Queue::Main);
        cache.insert(8, 8, 1, Queue::Small);
        // No room for a fifth, whatever its size.
        assert_eq!(cache.make_room(1), Some(Step::Evict(2, Queue::Small)));
        assert_eq!(cache.make_room(1000), Some(Step::Evict(3, Queue::Small)));
        while cache.make_room(1000).is_some() {}
        assert_eq!(cache.bytes(), 0);
    }
}
