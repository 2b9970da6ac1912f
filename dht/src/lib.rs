//! Verified, replicated blocks on the overlay.
//!
//! Two kinds of block. An *immutable* block is named by the keyed BLAKE3 of its bytes ([`Address`]), so whoever
//! reads it can check it, whole or in part, and nobody need be trusted. A *mutable* block is a compare-and-swap
//! register ([`RegisterAddress`]) whose values are signed, form a chain of header hashes, and are agreed upon by
//! Paxos among the nodes that its owner named, at creation or since.
//!
//! The file system sees one trait, [`BlockStore`]; [`Client`] is that trait over the overlay, and
//! [`MemoryBlockStore`] over a hash map, for tests:
//!
//! ```
//! use bytes::Bytes;
//! use dht::{Address, BlockStore, MemoryBlockStore, SwapError};
//!
//! let store = MemoryBlockStore::new();
//! let leaf = Bytes::from_static(b"ciphertext");
//! let address = Address::of(&store.tag(), &leaf);
//!
//! // Blocks first, then the register's new value, which names them; whoever sees it finds the blocks.
//! let register = store.new_register([7; 32]);
//! let root = Bytes::copy_from_slice(&address.0);
//! let first = store.publish(vec![(address, leaf.clone())], &register, None, root)?;
//! assert_eq!(store.get(&address, Some(0..6)).unwrap(), "cipher");
//!
//! // Who did not see the latest value does not replace it, and is shown it instead.
//! let lost = store.compare_and_swap(&register, None, Bytes::new());
//! assert_eq!(lost, Err(SwapError::Lost(Some(first))));
//! # Ok::<(), SwapError>(())
//! ```
//!
//! | file | is |
//! | --- | --- |
//! | `client` | flow: the block store that lives on the overlay |
//! | `replicate`, `register`, `repair`, `links` | flow: putting and reading blocks; rounds and retries; catching up; who answers how fast |
//! | `keepers` | flow: putting other nodes in the place of a register's members that are gone |
//! | `spread` | flow: enough copies of each block without a node that is to go |
//! | `collect` | flow: what all nodes hold of an owner's blocks, and having them deleted |
//! | `past` | flow: what a register's values were, as the nodes keep them, and for how long they keep what is deleted |
//! | `node` | a storage node: what it stores for others, and what it refuses |
//! | `message` | what travels between them |
//! | `absence`, `address`, `block`, `paxos`, `placement` | pure: who is gone, names and proofs, what is signed, agreement, who keeps what |
//! | `store` | the local store: one log on one disk |
//!
//! What holds: nothing is acknowledged before a quorum has it on disk; nothing is stored, nor handed to a reader,
//! that does not verify; chosen values of a register form one chain, and no read is older than any swap acknowledged
//! before it began; a dead or hanging node makes nobody wait for it.
//!
//! A block goes by its owner's signed word, and by nothing else; a node that was away learns of it before it could bring
//! the block back.
//!
//! Who keeps a register changes by its owner's word only; nodes deliver that word, and can't make it.
//!
//! This crate is not a cache and not a cipher: it is handed ciphertext, and what it is handed it keeps.

#![forbid(unsafe_code)]

pub mod absence;
mod acks;
pub mod address;
pub mod agreement;
pub mod block;
pub mod block_store;
pub mod client;
pub mod collect;
pub mod keepers;
mod links;
pub mod memory_block_store;
pub mod message;
pub mod node;
pub mod past;
pub mod paxos;
mod placement;
pub mod register;
pub mod repair;
pub mod replicate;
pub mod space;
pub mod spread;
pub mod store;

#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod liar_tests;
#[cfg(test)]
mod moving_tests;
#[cfg(test)]
mod past_moves_tests;
#[cfg(test)]
mod reach_tests;
#[cfg(test)]
mod removal_tests;
#[cfg(test)]
mod slow_zone_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod zone_tests;

pub use address::{Address, OwnerTag, owner_tag};
pub use block_store::{
    BlockStore, CreateError, GetError, HeaderHash, Outage, PutError, Reach, ReadError, Record,
    RegisterAddress, SwapError, Usage,
};
pub use client::Client;
pub use memory_block_store::MemoryBlockStore;
pub use node::{Gate, Node};
pub use placement::WIDTH as PLACED_BY_ZONE_MAX;
pub use reactor::crypto::PublicKey;
pub use register::MoveError;
