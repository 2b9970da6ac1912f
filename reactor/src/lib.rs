//! Placeholder.

pub mod crypto;
pub mod rpc;
pub mod serialization;
