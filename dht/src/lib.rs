//! Verified, replicated blocks on the overlay.
//!
//! Two kinds of block. An *immutable* block is named by the keyed BLAKE3 of its bytes ([`Address`]), so whoever
//! reads it can check it, whole or in part, and nobody need be trusted. A *mutable* block is a compare-and-swap
//! register ([`RegisterAddress`]) whose values are signed, form a chain of header hashes, and are agreed upon by
//! Paxos among the nodes its owner named at creation.
//!
//! The file system sees one trait, [`BlockStore`]. [`MemoryBlockStore`] is that trait over a hash map, for tests.
//!
//! This crate is not a cache and not a cipher: it is handed ciphertext, and what it is handed it keeps.

#![forbid(unsafe_code)]

pub mod address;
pub mod block;
pub mod block_store;
pub mod client;
mod links;
pub mod memory_block_store;
pub mod message;
pub mod node;
pub mod paxos;
pub mod register;
pub mod repair;
pub mod replicate;
pub mod store;

#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod testing;

pub use address::{Address, OwnerTag};
pub use block_store::{
    BlockStore, GetError, HeaderHash, PutError, ReadError, Record, RegisterAddress, SwapError, Usage,
};
pub use client::{Client, owner_tag};
pub use memory_block_store::MemoryBlockStore;
pub use node::{Gate, Node};
pub use reactor::crypto::PublicKey;
