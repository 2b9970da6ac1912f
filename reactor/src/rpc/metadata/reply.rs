//! Where the metadata of an answer is kept until somebody wants it: by a handler until it answers, by a caller until it
//! looks. Pure.
//!
//! What it is not: shared from the start. Most calls have none, and a place of its own for each would be an allocation for
//! nothing; the first clone moves what is there to where both see it.

use std::fmt;
use std::rc::Rc;

use super::{Metadata, MetadataError};
use crate::cell::RefCell;

/// A place for the metadata of an answer; clones are the same place.
///
/// A caller gives one with [`CallOptions::hear`](crate::rpc::CallOptions::hear) and looks into it when the call is over,
/// whether it failed or not.
#[derive(Default)]
pub struct ReplyMetadata(RefCell<Place>);

enum Place {
    Own(Metadata),
    Shared(Rc<RefCell<Metadata>>),
}

impl Default for Place {
    fn default() -> Place {
        Place::Own(Metadata::new())
    }
}

impl ReplyMetadata {
    /// An empty place.
    pub fn new() -> ReplyMetadata {
        ReplyMetadata::default()
    }

    /// What is there now.
    pub fn get(&self) -> Metadata {
        match &*self.0.borrow() {
            Place::Own(metadata) => metadata.clone(),
            Place::Shared(shared) => shared.borrow().clone(),
        }
    }

    /// Sets a key's value.
    ///
    /// # Errors
    /// As [`Metadata::set`].
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        match &mut *self.0.borrow_mut() {
            Place::Own(metadata) => metadata.set(key, value),
            Place::Shared(shared) => shared.borrow_mut().set(key, value),
        }
    }

    /// Puts other metadata in the place of what was there.
    pub(in crate::rpc) fn put(&self, other: Metadata) {
        match &mut *self.0.borrow_mut() {
            Place::Own(metadata) => *metadata = other,
            Place::Shared(shared) => *shared.borrow_mut() = other,
        }
    }
}

impl Clone for ReplyMetadata {
    fn clone(&self) -> ReplyMetadata {
        let mut place = self.0.borrow_mut();
        let shared = match &mut *place {
            Place::Own(metadata) => Rc::new(RefCell::new(std::mem::take(metadata))),
            Place::Shared(shared) => shared.clone(),
        };
        *place = Place::Shared(shared.clone());
        ReplyMetadata(RefCell::new(Place::Shared(shared)))
    }
}

impl fmt::Debug for ReplyMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
