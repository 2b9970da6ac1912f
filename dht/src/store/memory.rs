//! A store in memory: the same promises as the disk's but durability. For tests, and for a cache that may be lost.
//!
//! It can be told to refuse writes, now or after a countdown, so that callers' error paths can be tested.

use super::{
    Damage, Gather, Incarnation, Key, PutOptions, Store, StoreError, Ticket, Usage, VALUE_LENGTH_MAX_BYTES,
    device::DeviceId, ticket::Completion,
};
use bytes::Bytes;
use reactor::cell::RefCell;
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    rc::Rc,
};

/// A [`Store`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    values: RefCell<BTreeMap<Key, (Bytes, u32)>>,
    damaged: RefCell<BTreeSet<Key>>,
    suspect: RefCell<BTreeSet<Key>>,
    incarnation: RefCell<Option<Incarnation>>,
    writes_left: Cell<Option<u64>>,
    has_reserve_only: Cell<bool>,
    length_max: Cell<Option<usize>>,
    /// Writes that never end, once it hangs.
    hanging: RefCell<Option<Vec<Rc<Completion>>>>,
    closed: Cell<bool>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// From the `count`-th write on, every write fails with [`StoreError::Full`]; `None` lifts that.
    pub fn fail_after(&self, count: Option<u64>) {
        self.writes_left.set(count);
    }

    /// Has no room for values of more bytes than this; `None` lifts that.
    pub fn fail_above(&self, length_bytes: Option<usize>) {
        self.length_max.set(length_bytes);
    }

    /// Has room for nothing more but what may use the space that is kept back.
    pub fn fill(&self) {
        self.has_reserve_only.set(true);
    }

    /// Takes every write from now on, and is never done with it, as a disk that is stuck.
    pub fn hang(&self) {
        self.hanging.borrow_mut().get_or_insert_default();
    }

    /// Makes the stored value of `key` unreadable, as a flipped bit on disk would.
    pub fn damage(&self, key: &Key) {
        if self.values.borrow().contains_key(key) {
            self.damaged.borrow_mut().insert(*key);
        }
    }

    /// Puts `key` in doubt, as the loss of a record whose key is unknown would.
    pub fn doubt(&self, key: &Key) {
        self.suspect.borrow_mut().insert(*key);
    }

    fn admit(&self) -> Result<(), StoreError> {
        if self.closed.get() {
            return Err(StoreError::Closed);
        }
        match self.writes_left.get() {
            Some(0) => Err(StoreError::Full),
            left => {
                self.writes_left.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

fn damage(key: &Key) -> Damage {
    Damage { key: Some(*key), segment: 0, offset_bytes: 0, length_bytes: 0, sequence_max: 0 }
}

impl Store for MemoryStore {
    fn enqueue_with(&self, key: &Key, value: Gather, options: PutOptions) -> Result<Ticket, StoreError> {
        let length = value.length_bytes();
        if length > VALUE_LENGTH_MAX_BYTES {
            return Err(StoreError::TooLarge {
                length_bytes: length as u64,
                limit_bytes: VALUE_LENGTH_MAX_BYTES as u64,
            });
        }
        let is_too_long = self.length_max.get().is_some_and(|most| value.length_bytes() > most);
        if is_too_long || self.has_reserve_only.get() && !options.may_use_reserve {
            return Err(StoreError::Full);
        }
        if let Some(hanging) = &mut *self.hanging.borrow_mut() {
            let (ticket, completion) = Ticket::new();
            hanging.push(completion);
            return Ok(ticket);
        }
        Ok(Ticket::ready(self.admit().map(|()| {
            self.damaged.borrow_mut().remove(key);
            self.suspect.borrow_mut().remove(key);
            self.values.borrow_mut().insert(*key, (value.to_bytes(), options.owner));
        })))
    }

    fn enqueue_remove(&self, key: &Key) -> Result<Ticket, StoreError> {
        Ok(Ticket::ready(self.admit().map(|()| {
            self.damaged.borrow_mut().remove(key);
            self.values.borrow_mut().remove(key);
        })))
    }

    fn get(&self, key: &Key, range: Option<Range<u32>>) -> Result<Option<Bytes>, StoreError> {
        if self.closed.get() {
            return Err(StoreError::Closed);
        }
        if self.damaged.borrow().contains(key) {
            return Err(StoreError::Damaged(damage(key)));
        }
        Ok(self.values.borrow().get(key).map(|(value, _)| match range {
            None => value.clone(),
            Some(range) => Gather::from(value.clone()).slice(range.start as usize..range.end as usize),
        }))
    }

    fn length(&self, key: &Key) -> Option<u32> {
        if self.damaged.borrow().contains(key) {
            return None;
        }
        self.values.borrow().get(key).map(|(value, _)| value.len() as u32)
    }

    fn stored(&self, key: &Key) -> Option<Ticket> {
        self.contains(key).then(|| Ticket::ready(Ok(())))
    }

    fn keys(&self, from: &Key, count_max: usize) -> Vec<Key> {
        let damaged = self.damaged.borrow();
        let values = self.values.borrow();
        values
            .range(from..)
            .map(|(key, _)| *key)
            .filter(|key| !damaged.contains(key))
            .take(count_max)
            .collect()
    }

    fn damaged(&self) -> Vec<Damage> {
        self.damaged.borrow().iter().map(damage).collect()
    }

    fn owner(&self, key: &Key) -> Option<u32> {
        self.values.borrow().get(key).map(|(_, owner)| *owner)
    }

    fn incarnation(&self) -> Incarnation {
        *self.incarnation.borrow_mut().get_or_insert_with(Incarnation::new)
    }

    fn is_suspect(&self, key: &Key) -> bool {
        self.suspect.borrow().contains(key)
    }

    fn failure(&self) -> Option<StoreError> {
        None
    }

    fn usage(&self) -> Usage {
        let damaged_count = self.damaged.borrow().len() as u64;
        let values = self.values.borrow();
        let value_bytes = values.values().map(|(value, _)| value.len() as u64).sum();
        let is_full = self.writes_left.get() == Some(0);
        Usage {
            count: values.len() as u64 - damaged_count,
            value_bytes,
            disk_bytes: value_bytes,
            total_bytes: if is_full { value_bytes } else { u64::MAX },
            damaged_count,
            device: DeviceId::default(),
            device_free_bytes: u64::MAX,
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        self.closed.set(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    fn key(last: u8) -> Key {
        let mut address = [0; 32];
        address[31] = last;
        Key::new(Kind::BLOCK, address)
    }

    #[test]
    fn what_is_put_is_read_back_in_whole_and_in_part() {
        let store = MemoryStore::new();
        store.put(&key(1), Bytes::from("hello").into()).unwrap();
        assert_eq!(store.get(&key(1), None).unwrap().unwrap(), "hello");
        assert_eq!(store.get(&key(1), Some(1..3)).unwrap().unwrap(), "el");
        assert_eq!(store.get(&key(1), Some(4..9)).unwrap().unwrap(), "o");
        assert_eq!(store.get(&key(2), None).unwrap(), None);
    }

    #[test]
    fn keys_are_listed_in_order_and_in_pages() {
        let store = MemoryStore::new();
        [5, 1, 3].iter().for_each(|&n| store.put(&key(n), Gather::default()).unwrap());
        let first = store.keys(&Key::first(Kind::BLOCK), 2);
        assert_eq!(first, [key(1), key(3)]);
        assert_eq!(store.keys(&first[1].next().unwrap(), 2), [key(5)]);
    }

    #[test]
    fn a_countdown_refuses_writes_and_keeps_the_old_value() {
        let store = MemoryStore::new();
        store.fail_after(Some(1));
        store.put(&key(1), Bytes::from("old").into()).unwrap();
        assert!(matches!(store.put(&key(1), Bytes::from("new").into()), Err(StoreError::Full)));
        assert_eq!(store.get(&key(1), None).unwrap().unwrap(), "old");
        store.fail_after(None);
        store.put(&key(1), Bytes::from("new").into()).unwrap();
    }

    #[test]
    fn damage_is_told_and_healed_by_a_put() {
        let store = MemoryStore::new();
        store.put(&key(1), Bytes::from("value").into()).unwrap();
        store.damage(&key(1));
        assert!(matches!(store.get(&key(1), None), Err(StoreError::Damaged(_))));
        assert!(!store.contains(&key(1)) && store.keys(&key(0), 9).is_empty());
        store.put(&key(1), Bytes::from("value").into()).unwrap();
        assert!(store.damaged().is_empty() && store.contains(&key(1)));
    }
}
