//! What overlay nodes say to each other once a connection is admitted: numbers 0x0100 to 0x01ff.
//!
//! The exchange of passports comes before any of these and is no method: see `admission.rs`.
//! Field order is the wire format (MessagePack arrays): only ever append.

pub use reactor::rpc::Never;
use serde::{Deserialize, Serialize};

use crate::contact::Contact;
use crate::node_id::NodeId;

reactor::service! {
    /// What a node does for any other.
    pub trait Neighbour = "overlay" version 1, client NeighbourClient {
        /// "Are you there?"
        fn ping(&self) -> Result<(), Never> = 0x0100 as Ping, inline, idempotent;
        /// "Whom do you know that is nearest to this?" Answered with at most `K` live contacts, without the asker.
        fn find_node(&self, request: FindNodeRequest) -> Result<FindNodeResponse, Never>
            = 0x0101 as FindNode, inline, idempotent;
        /// "I am leaving for good: forget me."
        fn leave(&self) -> Result<(), Never> = 0x0102 as Leave, inline, idempotent;
    }
}

/// The question of [`FindNode`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FindNodeRequest {
    /// The position asked for.
    pub target: NodeId,
}

/// The answer of [`FindNode`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FindNodeResponse {
    /// Nearest first. Candidates only: they prove themselves when they are called.
    pub contacts: Vec<Contact>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_released_schema_stays_as_it_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/overlay.txt");
        NeighbourClient::schema().compare_with_released(path).unwrap();
    }
}
