//! How much of each object is still pointed to: records of the tree, and what a commit changes of them.
//!
//! An object is live as long as the tree points to a chunk in it. A commit knows every chunk that it drops and every one
//! that it points to anew, so it keeps the count in the same swap as all else. It cannot put all of it into the tree: the
//! nodes that it writes lie in objects whose names are not known before the nodes are. So a root carries the *changes* that
//! its tree's records do not have yet, and a later commit folds them in. Records and changes together are exact.
//!
//! Keys begin with the birth, so that what small commits touch, objects that are new, lies together.
//!
//! Whether an object may be deleted is not decided here. An older root, a snapshot, an open file that was removed elsewhere,
//! or a journal may point to what the newest tree does not; an object that is in the list is not dead whatever the sum is, as
//! the root before may have pointed to it; and a writer may have lied. The records say where to look: before anything is
//! deleted, a walk over all that is kept has to say the same, by address and whatever the birth.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::Pointer;

const VERSION: u8 = 1;

/// Names an object, the oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId {
    /// The register's version that its chunks were sealed for; 0: not known.
    pub birth: u64,
    /// Its address in the store.
    pub address: [u8; 32],
}

impl From<&Pointer> for ObjectId {
    fn from(pointer: &Pointer) -> ObjectId {
        ObjectId { birth: pointer.birth, address: pointer.address }
    }
}

impl ObjectId {
    /// Returns the next one, or `None` after the last.
    pub(super) fn successor(mut self) -> Option<ObjectId> {
        for byte in self.address.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return Some(self);
            }
        }
        Some(ObjectId { birth: self.birth.checked_add(1)?, ..self })
    }
}

/// What the tree says of an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectRecord {
    /// How many of its bytes are pointed to; those that two keys point to count twice. `None`: not known, for good; nobody
    /// may delete by it.
    pub live_bytes: Option<u64>,
    /// Where the last chunk ends that was ever pointed to. Behind it is nothing that anybody needs.
    pub end: u32,
    /// When it was found last that nothing of it is pointed to, in seconds since 1970; 0 if something is. Only a machine's
    /// clock says so.
    pub dead_seconds: i64,
    /// The same as a version of the register; 0 if something is pointed to.
    pub dead_version: u64,
    /// How the object is laid out. 0: chunks, and nothing that says where they are.
    pub layout: u8,
    /// What a later version knows of it: kept as it is.
    pub tail: Bytes,
}

const RECORD_SIZE: usize = 2 + 4 + 8 + 8 + 8;
/// Stands for `None`.
const LIVE_UNKNOWN: u64 = u64::MAX;

impl ObjectRecord {
    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[VERSION, self.layout]);
        out.extend_from_slice(&self.end.to_le_bytes());
        out.extend_from_slice(&self.live_bytes.unwrap_or(LIVE_UNKNOWN).to_le_bytes());
        out.extend_from_slice(&self.dead_seconds.to_le_bytes());
        out.extend_from_slice(&self.dead_version.to_le_bytes());
        out.extend_from_slice(&self.tail);
    }

    /// Reads a record.
    pub fn decode(bytes: &Bytes) -> Option<ObjectRecord> {
        let known = bytes.get(..RECORD_SIZE).filter(|known| known[0] == VERSION)?;
        Some(ObjectRecord {
            layout: known[1],
            end: u32::from_le_bytes(known[2..6].try_into().ok()?),
            live_bytes: Some(u64::from_le_bytes(known[6..14].try_into().ok()?))
                .filter(|live| *live != LIVE_UNKNOWN),
            dead_seconds: i64::from_le_bytes(known[14..22].try_into().ok()?),
            dead_version: u64::from_le_bytes(known[22..30].try_into().ok()?),
            tail: bytes.slice(RECORD_SIZE..),
        })
    }

    /// Returns the record with `change` in it, at `now_seconds` since 1970, for the register's version `version`.
    pub fn with(self, change: &ObjectChange, now_seconds: i64, version: u64) -> ObjectRecord {
        // Fewer than none: somebody did not count. Then nothing is known, and nothing will be deleted by it.
        let live_bytes = self.live_bytes.and_then(|live| live.checked_add_signed(change.live_bytes));
        // Also if it was dead before: a root in between may have pointed to it, and whoever reads that still does.
        let (dead_seconds, dead_version) = match live_bytes {
            Some(0) => (now_seconds.max(self.dead_seconds), version),
            _ => (0, 0),
        };
        ObjectRecord { live_bytes, dead_seconds, dead_version, end: self.end.max(change.end), ..self }
    }
}

/// What becomes of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ObjectChange {
    /// How many bytes more are pointed to.
    pub live_bytes: i64,
    /// See [`ObjectRecord::end`].
    pub end: u32,
}

/// What becomes of objects, and their records do not say yet. Cheap to clone: a commit changes one copy, and hands it on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectChanges(pub Rc<BTreeMap<ObjectId, ObjectChange>>);

/// A root with more of them is none: bounds what a reader allocates, and what a root takes of its register.
pub const OBJECT_CHANGE_COUNT_MAX: usize = 256;
const CHANGE_SIZE: usize = 32 + 6 + 4 + 8;

impl ObjectChanges {
    /// One more key or root points to a chunk.
    pub fn add(&mut self, pointer: &Pointer) {
        self.change(pointer, i64::from(pointer.length));
    }

    /// One less does.
    pub fn remove(&mut self, pointer: &Pointer) {
        self.change(pointer, -i64::from(pointer.length));
    }

    fn change(&mut self, pointer: &Pointer, bytes: i64) {
        // An object that comes and goes stays in the list: its record says that it is dead.
        let change = Rc::make_mut(&mut self.0).entry(pointer.into()).or_default();
        change.live_bytes = change.live_bytes.saturating_add(bytes);
        change.end = change.end.max(pointer.offset.saturating_add(pointer.length));
    }

    /// Writes them as they lie in a root: their count, and each.
    ///
    /// # Panics
    ///
    /// If there are more than [`OBJECT_CHANGE_COUNT_MAX`]: whoever makes a root folds them first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(
            self.0.len() <= OBJECT_CHANGE_COUNT_MAX,
            "changes of objects are folded before a root is made"
        );
        out.extend_from_slice(&(self.0.len() as u16).to_le_bytes());
        for (object, change) in &*self.0 {
            out.extend_from_slice(&object.address);
            out.extend_from_slice(&object.birth.to_le_bytes()[..6]);
            out.extend_from_slice(&change.end.to_le_bytes());
            out.extend_from_slice(&change.live_bytes.to_le_bytes());
        }
    }

    /// Reads them from the front of `bytes`, and returns what follows.
    pub fn decode(bytes: &[u8]) -> Option<(ObjectChanges, &[u8])> {
        let (count, rest) = bytes.split_first_chunk::<2>()?;
        let count = usize::from(u16::from_le_bytes(*count));
        if count > OBJECT_CHANGE_COUNT_MAX {
            return None;
        }
        let (changes, rest) = rest.split_at_checked(count * CHANGE_SIZE)?;
        let mut read = BTreeMap::new();
        for change in changes.chunks_exact(CHANGE_SIZE) {
            let mut birth = [0; 8];
            birth[..6].copy_from_slice(&change[32..38]);
            let object =
                ObjectId { birth: u64::from_le_bytes(birth), address: change[..32].try_into().ok()? };
            let end = u32::from_le_bytes(change[38..42].try_into().ok()?);
            let live_bytes = i64::from_le_bytes(change[42..50].try_into().ok()?);
            // Twice the same object would be counted once.
            if read.insert(object, ObjectChange { live_bytes, end }).is_some() {
                return None;
            }
        }
        Some((ObjectChanges(Rc::new(read)), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_what_a_later_version_added_survive() {
        let record = ObjectRecord {
            live_bytes: Some(70_000),
            end: 90_000,
            dead_seconds: 3,
            dead_version: 4,
            layout: 1,
            tail: Bytes::from_static(b"of a later version"),
        };
        for record in [record.clone(), ObjectRecord { live_bytes: None, ..record }] {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(ObjectRecord::decode(&bytes.clone().into()), Some(record));
            assert_eq!(ObjectRecord::decode(&Bytes::copy_from_slice(&bytes[..29])), None);
        }
    }

    #[test]
    fn an_object_dies_with_its_last_chunk_and_may_live_again() {
        let [first, second] = [Pointer::example([1; 32], 0, 128), Pointer::example([1; 32], 128, 64)];
        let folded = |record: ObjectRecord, now, pointers: &[(&Pointer, bool)]| {
            let mut changes = ObjectChanges::default();
            for (pointer, more) in pointers {
                if *more { changes.add(pointer) } else { changes.remove(pointer) }
            }
            record.with(&changes.0[&ObjectId::from(&first)], now, now as u64 + 100)
        };
        let new = ObjectRecord { live_bytes: Some(0), ..ObjectRecord::default() };
        let record = folded(new, 5, &[(&first, true), (&second, true)]);
        assert_eq!((record.live_bytes, record.end, record.dead_seconds), (Some(192), 192, 0));
        let record = folded(record, 6, &[(&second, false), (&first, false)]);
        assert_eq!((record.live_bytes, record.end), (Some(0), 192));
        assert_eq!((record.dead_seconds, record.dead_version), (6, 106));
        let record = folded(record, 7, &[(&first, true), (&first, false)]);
        assert_eq!(record.dead_seconds, 7, "a root in between pointed to it");
        let record = folded(record, 2, &[(&first, true), (&first, false)]);
        assert_eq!((record.dead_seconds, record.dead_version), (7, 102), "not even by a clock that is wrong");
        let record = folded(record, 8, &[(&first, true), (&first, true)]);
        assert_eq!((record.live_bytes, record.dead_seconds), (Some(256), 0));
        let record = folded(record, 9, &[(&first, false), (&first, false), (&second, false)]);
        assert_eq!((record.live_bytes, record.dead_seconds), (None, 0), "somebody did not count");
        assert_eq!(folded(record, 10, &[(&first, true)]).live_bytes, None, "and never will have");
    }

    #[test]
    fn changes_survive_a_root_and_are_bounded() {
        let mut changes = ObjectChanges::default();
        for number in 0..OBJECT_CHANGE_COUNT_MAX as u16 {
            let mut address = [0; 32];
            address[..2].copy_from_slice(&number.to_be_bytes());
            changes.remove(&Pointer::example(address, 10, 128));
        }
        let mut bytes = Vec::new();
        changes.encode(&mut bytes);
        bytes.extend_from_slice(b"rest");
        assert_eq!(ObjectChanges::decode(&bytes), Some((changes, &b"rest"[..])));
        assert_eq!(ObjectChanges::decode(&bytes[..bytes.len() - 5]), None);
        assert_eq!(ObjectChanges::decode(&[0xff; 64]), None);
    }
}
