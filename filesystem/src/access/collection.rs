//! The mark of a collection of garbage, in the root: which one is under way, and what it must leave alone.
//!
//! A collector puts it into a root, and every writer repeats it, as it does the rest of the charter. While it is there, a
//! commit that points to something which was stored before it says so: what has been brought back is *kept*. So the collector
//! need not see the roots in between; why that is enough is told in `docs/collection.md`.
//!
//! An extension of kind 1: `1, id 16, register version u64, is void u8, count u16`, and for each object that is kept the
//! first 8 bytes of its address. Once all have cleared the way the mark goes, and the root says for ever which collection
//! was *let through*: an extension of kind 2, `1, register version u64`. Nothing is deleted before it does. By that, whoever
//! goes on from another root knows whether there was a collection that he did not clear the way for.
//!
//! Whoever does not heed them must not write: a read-compatible flag says so. A version that encodes either in another
//! way takes a flag of its own.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::root::{Charter, Extension};
use super::{Features, groups, list};

const KIND: u16 = 1;
const KIND_LET_THROUGH: u16 = 2;
const VERSION: u8 = 1;
const HEAD_SIZE: usize = 1 + 16 + 8 + 1 + 2;
const KEPT_SIZE: usize = 8;

/// With more the collection is void: they take 8 KiB of a register's 64, and most collections need none.
pub(crate) const KEPT_COUNT_MAX: usize = 1024;

/// See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Collection {
    /// Random: tells one from the next.
    pub(crate) id: [u8; 16],
    /// The register's version that it began with.
    pub(crate) version: u64,
    /// More was brought back than can be said: nothing may be deleted by it.
    pub(crate) is_void: bool,
    /// What was brought back, by the beginning of its address.
    pub(crate) kept: BTreeSet<[u8; KEPT_SIZE]>,
}

impl Collection {
    pub(crate) fn new(id: [u8; 16], version: u64) -> Collection {
        Collection { id, version, is_void: false, kept: BTreeSet::new() }
    }

    /// Whether a chunk may have been stored before it began: its pointer was made for no later root.
    pub(crate) fn is_older(&self, birth: u64) -> bool {
        birth <= self.version
    }

    fn decode(value: &[u8]) -> Option<Collection> {
        let (head, rest) = value.split_first_chunk::<HEAD_SIZE>()?;
        let count = usize::from(u16::from_le_bytes([head[26], head[27]]));
        if head[0] != VERSION || count > KEPT_COUNT_MAX {
            return None;
        }
        let (kept, _) = rest.get(..count * KEPT_SIZE)?.as_chunks::<KEPT_SIZE>();
        Some(Collection {
            id: head[1..17].try_into().ok()?,
            version: u64::from_le_bytes(head[17..25].try_into().ok()?),
            is_void: head[25] != 0,
            kept: kept.iter().copied().collect(),
        })
    }

    fn encode(&self) -> Bytes {
        let mut value = vec![VERSION];
        value.extend_from_slice(&self.id);
        value.extend_from_slice(&self.version.to_le_bytes());
        value.push(u8::from(self.is_void));
        value.extend_from_slice(&(self.kept.len() as u16).to_le_bytes());
        self.kept.iter().for_each(|kept| value.extend_from_slice(kept));
        value.into()
    }
}

/// How an object is named among those that are kept.
pub(crate) fn short(address: &[u8; 32]) -> [u8; KEPT_SIZE] {
    let (words, _) = address.as_chunks::<KEPT_SIZE>();
    words[0]
}

fn let_through(value: &[u8]) -> Option<u64> {
    let version = value.strip_prefix(&[VERSION])?.first_chunk()?;
    Some(u64::from_le_bytes(*version))
}

impl Charter {
    /// The collection that is under way, or was when its collector was killed.
    pub(crate) fn collection(&self) -> Option<Collection> {
        let extension = self.extensions.iter().find(|extension| extension.kind == KIND)?;
        Collection::decode(&extension.value)
    }

    /// Puts another in its place, or none.
    pub(crate) fn set_collection(&mut self, collection: Option<&Collection>) {
        self.extensions.retain(|extension| extension.kind != KIND);
        if let Some(collection) = collection {
            self.extensions.push(Extension { kind: KIND, value: collection.encode() });
            self.features.read_compatible |= Features::COLLECTED;
        }
    }

    /// The last collection that was let through, by the version of the register that it began with; 0: there was none.
    pub(crate) fn let_through(&self) -> u64 {
        let extension = self.extensions.iter().find(|extension| extension.kind == KIND_LET_THROUGH);
        // What can't be read says that there was one, and of everything that there is.
        extension.map_or(0, |extension| let_through(&extension.value).unwrap_or(u64::MAX))
    }

    /// Everybody has cleared the way for the collection that began with `version`: it is over for them, and what it found
    /// may be deleted once a root says so.
    pub(crate) fn let_collection_through(&mut self, version: u64) {
        self.set_collection(None);
        let version = self.let_through().max(version);
        self.extensions.retain(|extension| extension.kind != KIND_LET_THROUGH);
        let value = [&[VERSION][..], &version.to_le_bytes()].concat().into();
        self.extensions.push(Extension { kind: KIND_LET_THROUGH, value });
        self.features.read_compatible |= Features::COLLECTED;
    }

    /// Whether it has an extension that this version does not know.
    pub(crate) fn has_unknown_extension(&self) -> bool {
        let is_known = |extension: &Extension| match extension.kind {
            KIND => Collection::decode(&extension.value).is_some(),
            KIND_LET_THROUGH => let_through(&extension.value).is_some(),
            list::KIND => list::decode(&extension.value).is_some(),
            groups::KIND => groups::is_known(&extension.value),
            _ => false,
        };
        !self.extensions.iter().all(is_known)
    }

    /// Notes that these objects are pointed to anew, if a collection is under way.
    pub(crate) fn keep(&mut self, objects: &BTreeSet<[u8; KEPT_SIZE]>) {
        if objects.is_empty() {
            return;
        }
        let Some(mut collection) = self.collection().filter(|collection| !collection.is_void) else { return };
        collection.kept.extend(objects);
        if collection.kept.len() > KEPT_COUNT_MAX {
            collection.is_void = true;
            collection.kept.clear();
        }
        self.set_collection(Some(&collection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::root::example;

    #[test]
    fn what_is_kept_is_repeated_and_what_is_too_much_makes_it_void() {
        let mut charter = example(Vec::new()).charter;
        let other = charter.extensions.clone();
        charter.keep(&[[1; 8]].into());
        assert_eq!(charter.collection(), None, "there is none under way");
        charter.set_collection(Some(&Collection::new([7; 16], 42)));
        charter.keep(&[[1; 8], [2; 8]].into());
        charter.keep(&[[2; 8], [3; 8]].into());
        let collection = charter.collection().unwrap();
        assert_eq!((collection.id, collection.version, collection.is_void), ([7; 16], 42, false));
        assert_eq!(collection.kept, [[1; 8], [2; 8], [3; 8]].into());
        assert!(collection.is_older(0) && collection.is_older(42) && !collection.is_older(43));
        let many = (0..KEPT_COUNT_MAX as u64).map(|number| (number << 32).to_be_bytes()).collect();
        charter.keep(&many);
        assert!(charter.collection().unwrap().is_void, "{} and three", many.len());
        charter.set_collection(None);
        assert_eq!(charter.extensions, other, "what a later version added stays");
    }

    #[test]
    fn what_was_let_through_ends_the_mark_and_is_said_for_ever() {
        let mut charter = example(Vec::new()).charter;
        let others = charter.extensions.clone();
        assert_eq!(charter.let_through(), 0);
        for (version, newest) in [(7, 7), (42, 42), (9, 42)] {
            charter.set_collection(Some(&Collection::new([7; 16], version)));
            charter.let_collection_through(version);
            assert_eq!((charter.collection(), charter.let_through()), (None, newest));
            assert_eq!(charter.extensions.len(), others.len() + 1);
            assert_ne!(charter.features.read_compatible & Features::COLLECTED, 0);
        }
        charter.extensions = vec![Extension { kind: KIND_LET_THROUGH, value: Bytes::from_static(&[2; 9]) }];
        assert_eq!(charter.let_through(), u64::MAX, "of a later version");
        assert!(charter.has_unknown_extension());
    }

    #[test]
    fn any_bytes_are_one_or_none() {
        let whole = Collection { kept: [[1; 8], [2; 8]].into(), ..Collection::new([7; 16], 42) };
        let bytes = whole.encode();
        assert_eq!(Collection::decode(&bytes), Some(whole));
        for size in 0..bytes.len() {
            assert_eq!(Collection::decode(&bytes[..size]), None, "cut at {size}");
        }
        let mut long = bytes.to_vec();
        long[26..28].copy_from_slice(&u16::MAX.to_le_bytes());
        long.resize(1 << 20, 0);
        assert_eq!(Collection::decode(&long), None);
    }
}
