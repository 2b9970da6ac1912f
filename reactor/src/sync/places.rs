//! The places of a row of waiters, the first of them without an allocation.
//!
//! Most rows never have two waiters, and there are two rows for each socket: what one waiter needs lies in the row itself,
//! beside what whoever tells it looks at anyway.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// The key of the place that lies in the row; those of the others are one more than the slab's.
const FIRST: usize = 0;

pub(super) struct Places<T> {
    first: Option<T>,
    more: Slab<T>,
}

impl<T> Places<T> {
    pub(super) const fn new() -> Places<T> {
        Places { first: None, more: Slab::new() }
    }

    /// Adds a place; its key is nobody else's until it is removed, and never `usize::MAX`.
    #[inline]
    pub(super) fn insert(&mut self, place: T) -> usize {
        if self.first.is_none() {
            self.first = Some(place);
            return FIRST;
        }
        self.more.insert(place) + 1
    }

    #[inline]
    pub(super) fn get(&self, key: usize) -> Option<&T> {
        if key == FIRST { self.first.as_ref() } else { self.more.get(key - 1) }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        if key == FIRST { self.first.as_mut() } else { self.more.get_mut(key - 1) }
    }

    /// # Panics
    ///
    /// If there is no such place.
    #[inline]
    pub(super) fn remove(&mut self, key: usize) -> T {
        if key == FIRST { self.first.take().expect(NO_PLACE) } else { self.more.remove(key - 1) }
    }
}

const NO_PLACE: &str = "a place is there until its waiter leaves";

impl<T> Index<usize> for Places<T> {
    type Output = T;

    #[inline]
    fn index(&self, key: usize) -> &T {
        self.get(key).expect(NO_PLACE)
    }
}

impl<T> IndexMut<usize> for Places<T> {
    #[inline]
    fn index_mut(&mut self, key: usize) -> &mut T {
        self.get_mut(key).expect(NO_PLACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_by_its_key_whoever_comes_and_leaves() {
        let (mut places, mut model, mut state) = (Places::new(), Vec::new(), 1_u64);
        for number in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if model.len() < 5 && state >> 63 == 0 {
                let key = places.insert(number);
                assert!(model.iter().all(|(other, _)| *other != key));
                model.push((key, number));
            } else if !model.is_empty() {
                let (key, number) = model.swap_remove((state >> 33) as usize % model.len());
                assert_eq!(places.remove(key), number);
                assert_eq!(places.get(key), None);
            }
            assert!(model.iter().all(|(key, number)| places[*key] == *number));
            assert_eq!(places.get(usize::MAX), None);
        }
    }
}
