//! What blocks are, byte by byte, and how they are checked. Pure.
//!
//! - [`configuration`]: who keeps a register, after those whom its genesis names.
//! - [`deletion`]: the owner's word that a block may go.
//! - `draft`: a record on its way to being signed, alone or with the proposal of it.
//! - [`immutable`]: how a content-addressed block lies in the local store.
//! - [`genesis`]: what creates a register, and is its identity.
//! - [`mutable`]: what a register's value is and who vouches for it.
//! - [`proposal`]: what a writer signs to take part in agreement.
//! - [`signed`]: how anything is signed.

pub mod configuration;
pub mod deletion;
pub(crate) mod draft;
pub mod genesis;
pub mod immutable;
pub mod mutable;
pub mod proposal;
pub mod signed;
