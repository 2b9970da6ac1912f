//! The copy-on-write B+tree: [`node`] is its bytes, [`cursor`] finds keys, [`commit`] merges sorted changes,
//! [`difference`] tells two trees apart, [`reachable`] tells which objects a tree needs.
//!
//! All of it is pure but for one trait, [`Nodes`], through which a commit asks for nodes. Lookups never ask: they work on
//! what is in memory and say which node they miss, so that a file operation stays one indivisible step.

pub mod commit;
pub mod cursor;
pub mod difference;
pub mod node;
pub mod reachable;

use std::rc::Rc;

use crate::format::Pointer;
use node::Node;

/// Where nodes come from.
pub trait Nodes {
    /// Why a node could not be had.
    type Error;

    /// Returns the nodes at `pointers`, in their order.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched, all at once.
    fn fetch(&self, pointers: &[Pointer]) -> Result<Vec<Rc<Node>>, Self::Error>;
}
