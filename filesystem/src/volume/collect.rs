//! What must not be deleted from the nodes: every object that a root in use reaches.
//!
//! Whoever collects garbage asks for the roots first, and deletes only what none of them reaches. What can't be known is
//! an error, and then nothing may be deleted: a root or a node that can't be read, or anything in the volume that this
//! version does not know, since it may point to objects.
//!
//! Not here: listing and deleting, and uploads that no root names yet, for which their age speaks.

use dht::{Address, ReadError};

use super::Volume;
use super::fetch::CachedNodes;
use crate::access::{Features, RootError, open_root};
use crate::errno::Errno;
use crate::format::Pointer;
use crate::tree::reachable::{Unreached, reachable_objects};

/// Why it is not known what may be deleted. Nothing may be, then.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The register can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The register has no value.
    #[error("the volume has no root")]
    Missing,
    /// The root can't be read.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The volume uses what this version does not know.
    #[error("the volume uses features that this version does not know: use the newer version that wrote it")]
    Newer,
    /// A tree can't be walked to its end.
    #[error(transparent)]
    Tree(#[from] Unreached<Errno>),
}

/// The roots that are in use.
#[derive(Debug, Clone)]
pub struct Roots {
    trees: Vec<Pointer>,
}

impl Volume {
    /// Finds the roots that are in use.
    ///
    /// # Errors
    ///
    /// [`CollectError`]: nothing may be deleted.
    ///
    /// # Suspends
    ///
    /// While the register is read.
    pub fn roots_in_use(&self) -> Result<Roots, CollectError> {
        let record = self.store.read(&self.keys.register)?.ok_or(CollectError::Missing)?;
        let root = open_root(&record.payload, record.version, &self.keys.secret)?;
        // A compatible feature or an extension need not be understood to read or write, but it may point to objects.
        let features = &root.charter.features;
        let unknown = features.unwritable() | (features.compatible & !Features::KNOWN.compatible);
        if unknown != 0 || !root.charter.extensions.is_empty() {
            return Err(CollectError::Newer);
        }
        Ok(Roots { trees: root.tree.into_iter().collect() })
    }

    /// Visits every object that one of `roots` reaches, some of them many times.
    ///
    /// # Errors
    ///
    /// [`CollectError`]: nothing may be deleted, for what was visited is not all.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn visit_reachable(
        &self,
        roots: &Roots,
        visit: &mut dyn FnMut(&Address),
    ) -> Result<(), CollectError> {
        for tree in &roots.trees {
            reachable_objects(tree, &CachedNodes(self), &mut |object| visit(&Address(*object)))?;
        }
        Ok(())
    }
}
