//! What a stored value is called: a kind and an address of 32 bytes.
//!
//! Why a kind beside the address: blocks, registers and the node's own notes live in one log, and each family wants
//! to be listed by itself. Kinds order first, so that a family is one key range.
//! It is not the DHT's `Address`, which is made from content or from a key: the store never asks where one came from.

use std::fmt;

/// A family of stored values.
///
/// A number rather than an enum: what is on disk may be newer than this program, and unknown kinds are kept as they
/// are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// Immutable blocks, by content address.
    pub const BLOCK: Kind = Kind(1);
    /// Consensus registers: small records, overwritten often.
    pub const REGISTER: Kind = Kind(2);
    /// What a node notes for itself (its epoch, repair positions, ...).
    pub const NOTE: Kind = Kind(3);
    /// Signed deletions: that a block is gone by its owner's word.
    pub const TOMBSTONE: Kind = Kind(4);
    /// Deletions taken back: that a block stays by its owner's word.
    pub const REPRIEVE: Kind = Kind(5);
    /// What registers' values were, by register and time.
    pub const PAST: Kind = Kind(6);
    /// The same, as other nodes tell it.
    pub const LEARNED_PAST: Kind = Kind(7);
}

/// The name of one stored value. Keys order by kind, then by address as a big-endian number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The family.
    pub kind: Kind,
    /// The name within the family.
    pub address: [u8; 32],
}

impl Key {
    /// The key of `kind` at `address`.
    pub const fn new(kind: Kind, address: [u8; 32]) -> Key {
        Key { kind, address }
    }

    /// The least key of a kind: where a listing of the kind begins.
    pub const fn first(kind: Kind) -> Key {
        Key { kind, address: [0; 32] }
    }

    /// The greatest key of a kind.
    pub const fn last(kind: Kind) -> Key {
        Key { kind, address: [0xff; 32] }
    }

    /// The key right after this one, whatever its kind; `None` after the very last.
    pub fn next(&self) -> Option<Key> {
        let mut next = *self;
        for byte in next.address.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Some(next);
            }
        }
        next.kind.0.checked_add(1).map(|kind| Key::first(Kind(kind)))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.kind.0)?;
        self.address.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_one_range_of_keys() {
        let block = Key::new(Kind::BLOCK, [7; 32]);
        assert!(Key::first(Kind::BLOCK) < block && block < Key::last(Kind::BLOCK));
        assert!(Key::last(Kind::BLOCK) < Key::first(Kind::REGISTER));
    }

    #[test]
    fn the_next_key_carries_over_into_the_next_kind() {
        assert_eq!(Key::last(Kind(1)).next(), Some(Key::first(Kind(2))));
        assert_eq!(Key::last(Kind(255)).next(), None);
        let mut address = [0; 32];
        address[31] = 0xff;
        let next = Key::new(Kind(1), address).next().unwrap();
        assert_eq!((next.address[30], next.address[31]), (1, 0));
    }

    #[test]
    fn a_key_prints_its_kind_and_its_whole_address() {
        let key = Key::new(Kind::REGISTER, [0xab; 32]);
        assert_eq!(key.to_string(), format!("2/{}", "ab".repeat(32)));
    }
}
