//! The addresses that are in use, in as little memory as tells them apart.
//!
//! Sixteen bytes of each, sorted: two addresses that share those are one in 2^64 pairs, and then garbage stays. Objects
//! are visited once for each frame in them, so what gathers is sorted and thinned now and then. A set that is full says
//! so, and whoever fills it takes a smaller slice of the addresses instead.

use std::ops::Range;

use dht::Address;

/// Addresses in a set, with those that are in it twice: 64 MiB. Half as many objects are some 200 GiB where they are small,
/// and 2 TiB where they are full.
const ADDRESSES_MAX: usize = 1 << 22;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Marks {
    first_bytes: Range<usize>,
    addresses: Vec<u128>,
    /// Up to here they are sorted, each once.
    sorted: usize,
    is_full: bool,
    max: usize,
}

impl Marks {
    /// A set of those whose first byte is in a range.
    pub(super) fn new(first_bytes: Range<usize>) -> Marks {
        Marks { first_bytes, addresses: Vec::new(), sorted: 0, is_full: false, max: ADDRESSES_MAX }
    }

    /// Adds an address, if it is in the range.
    pub(super) fn add(&mut self, address: &Address) {
        let is_within = self.first_bytes.contains(&usize::from(address.0[0]));
        // The last frame of an object is followed by the next.
        if !is_within || self.addresses.last() == Some(&short(address)) {
            return;
        }
        // With a slice that can't be made smaller, it goes on beyond its size.
        if self.is_full && self.first_bytes.len() > 1 {
            return;
        }
        self.addresses.push(short(address));
        if self.addresses.len() >= self.max.max(2 * self.sorted) {
            self.thin();
            self.is_full = self.sorted > self.max / 2;
        }
    }

    /// Whether there is no room for more: what was added since may not be in it.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Makes it ready to be asked.
    pub(super) fn finish(mut self) -> Marks {
        self.thin();
        self
    }

    /// Whether an address was added. To be asked after [`Marks::finish`].
    pub(super) fn contains(&self, address: &Address) -> bool {
        debug_assert_eq!(self.sorted, self.addresses.len());
        self.addresses.binary_search(&short(address)).is_ok()
    }

    fn thin(&mut self) {
        self.addresses.sort_unstable();
        self.addresses.dedup();
        self.sorted = self.addresses.len();
    }
}

/// What the nodes held before the mark, or as much of it as one set takes.
#[derive(Debug)]
pub(super) struct Listed {
    marks: Marks,
    /// Of all addresses that begin with these, the nodes were asked.
    first_bytes: Box<[bool; 256]>,
}

impl Listed {
    /// All that they held.
    pub(super) fn all(marks: Marks) -> Listed {
        Listed { marks, first_bytes: Box::new([true; 256]) }
    }

    /// What of it fits into a set, of the addresses that begin with `begin` and those after them, around: from elsewhere each time, or what comes
    /// after what lives would never be looked at.
    pub(super) fn some<E, A: Iterator<Item = Address>>(
        mut marks: Marks,
        begin: u8,
        mut list: impl FnMut(u8) -> Result<A, E>,
    ) -> Result<Listed, E> {
        let mut first_bytes = Box::new([false; 256]);
        for step in 0..=u8::MAX {
            let first = begin.wrapping_add(step);
            list(first)?.for_each(|address| marks.add(&address));
            if marks.is_full() {
                break;
            }
            first_bytes[usize::from(first)] = true;
        }
        Ok(Listed { marks: marks.finish(), first_bytes })
    }

    /// Whether what begins so was listed.
    pub(super) fn has_looked_at(&self, first: u8) -> bool {
        self.first_bytes[usize::from(first)]
    }

    /// Whether an address was.
    pub(super) fn contains(&self, address: &Address) -> bool {
        self.marks.contains(address)
    }
}

fn short(address: &Address) -> u128 {
    let (words, _) = address.0.as_chunks::<16>();
    u128::from_be_bytes(words[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Address {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
        Address(bytes)
    }

    #[test]
    fn what_was_added_is_in_it_however_often_and_in_whichever_order() {
        let mut marks = Marks { max: 64, ..Marks::new(0..256) };
        for round in 0..50 {
            (0..30).for_each(|number| marks.add(&address((number * 7 + round) % 30)));
        }
        assert!(!marks.is_full());
        let marks = marks.finish();
        assert_eq!(marks.addresses.len(), 30);
        assert!((0..30).all(|number| marks.contains(&address(number))));
        assert!((30..60).all(|number| !marks.contains(&address(number))));
    }

    #[test]
    fn a_set_that_is_full_says_so_and_the_smallest_slice_takes_all() {
        let mut marks = Marks { max: 64, ..Marks::new(0..256) };
        (0..100).for_each(|number| marks.add(&address(number)));
        assert!(marks.is_full());
        let of_first_byte = |number: &u32| address(*number).0[0] == 7;
        let mut marks = Marks { max: 64, ..Marks::new(7..8) };
        (0..100_000).for_each(|number| marks.add(&address(number)));
        let marks = marks.finish();
        assert!((0..100_000).filter(of_first_byte).all(|number| marks.contains(&address(number))));
        assert!(marks.addresses.len() > 300);
    }

    #[test]
    fn where_all_that_is_held_is_too_much_for_one_set_each_address_has_its_turn() {
        let all: Vec<Address> = (0..10_000).map(address).collect();
        let of = |first: u8| all.iter().filter(move |address| address.0[0] == first).copied();
        let mut looked_at = [0; 256];
        for begin in 0..=u8::MAX {
            let marks = Marks { max: 4000, ..Marks::new(0..256) };
            let listed = Listed::some(marks, begin, |first| Ok::<_, ()>(of(first))).unwrap();
            for first in 0..=u8::MAX {
                let is_listed = of(first).all(|address| listed.contains(&address));
                assert!(!listed.has_looked_at(first) || is_listed, "from {begin}: {first}");
                looked_at[usize::from(first)] += usize::from(listed.has_looked_at(first));
            }
        }
        assert!(looked_at.iter().all(|times| (20..250).contains(times)), "{looked_at:?}");
    }
}
