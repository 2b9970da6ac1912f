//! What overlay nodes say to each other once a connection is admitted: numbers 0x0100 to 0x01ff.
//!
//! The exchange of passports comes before any of these and is no method: see `admission.rs`.
//! Field order is the wire format (MessagePack arrays): only ever append.

pub use reactor::rpc::Never;
use serde::{Deserialize, Serialize};

use crate::contact::Introduction;
use crate::invitation::{Letter, Reply};
use crate::k_bucket::K;
use crate::node_id::NodeId;
use crate::passport::{Passport, PassportError};
use crate::peers::Sighting;
use crate::record::{RecordError, SignedRecord};
use crate::renewal::RENEWALS_MAX;
use crate::revocation::{Revocations, RevocationsError};

reactor::service! {
    /// What a node does for any other.
    pub trait Neighbour = "overlay" version 1, client NeighbourClient {
        /// "Are you there?"
        fn ping(&self) -> Result<(), Never> = 0x0100 as Ping, inline, idempotent;
        /// "Whom do you know that is nearest to this?" Answered with live contacts, without the asker.
        fn find_node(&self, request: FindNodeRequest) -> Result<FindNodeResponse, Never>
            = 0x0101 as FindNode, inline, idempotent;
        /// "I am leaving for good: forget me."
        fn leave(&self) -> Result<(), Never> = 0x0102 as Leave, inline, idempotent;
        /// "These are members no more." Answered once the list, or a newer one, is kept for good; tells the hash of that.
        fn revoke(&self, newer: Revocations) -> Result<[u8; 32], RevokeRefused> = 0x0103 as Revoke, idempotent;
        /// "Whose list of the revoked have you?"
        fn revoked(&self) -> Result<Revocations, Never> = 0x0104 as Revoked, inline, idempotent;
        /// "Which strangers wait for the owner's reply?"
        fn letters(&self) -> Result<Vec<Letter>, NotAMember> = 0x0105 as Letters, inline, idempotent;
        /// "The owner replied." Says whether the letter is still here.
        fn reply(&self, reply: Reply) -> Result<bool, NotAMember> = 0x0106 as Replied, inline, idempotent;
        /// "Who is with you, and who was?"
        fn sightings(&self) -> Result<Vec<Sighting>, NotAMember> = 0x0107 as Sightings, inline, idempotent;
        /// "The owner renewed these passports." Answered once they are kept for good.
        fn renew(&self, passports: Vec<Passport>) -> Result<(), RenewRefused> = 0x0108 as Renew, idempotent;
        /// "This is what this node says of itself now." Answered with what is known here, if that is newer.
        fn introduce(&self, node: Introduction) -> Result<Option<SignedRecord>, RecordError>
            = 0x0109 as Introduce, idempotent;
        /// "Which storage nodes did the owner let in since the network was made?" Answered with what he signed for them last.
        fn enrolled(&self) -> Result<Vec<Passport>, NotAMember>
            = 0x010a as Enrolled, idempotent, replies_up_to(ENROLLED_REPLY_BYTES_MAX);
    }
}

/// The longest answer to [`Enrolled`]: as many passports as are kept, of some 220 bytes each.
pub const ENROLLED_REPLY_BYTES_MAX: usize = RENEWALS_MAX * 300;

/// Why a list of the revoked is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RevokeRefused {
    /// It is not the owner's.
    #[error(transparent)]
    List(RevocationsError),
    /// It can't be kept: it is in force, and would be forgotten.
    #[error("the list is in force, and could not be written to the node's disk: {0}")]
    NotKept(String),
}

/// Why renewed passports are not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RenewRefused {
    /// One of them is not the owner's own.
    #[error("one of the renewed passports is not what the network's owner signed")]
    NotTheOwners,
    /// There is no room for them.
    #[error("no more than {RENEWALS_MAX} members can have a passport that ends: remove some")]
    TooMany,
    /// They can't be kept: they are in force, and would be forgotten.
    #[error("the passports are in force, and could not be written to the node's disk: {0}")]
    NotKept(String),
}

/// The caller may not know that: its passport does not give the right to read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error(transparent)]
pub struct NotAMember(pub PassportError);

/// The question of [`FindNode`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FindNodeRequest {
    /// The position asked for.
    pub target: NodeId,
    /// How many are asked for: at least `K` are told, at most [`CONTACTS_MAX`].
    #[serde(default)]
    pub count: u16,
}

/// Contacts in one answer: what a reader asks at most before it says that a block is nowhere. Of a kilobyte at most each, they fit
/// into a reply.
pub const CONTACTS_MAX: usize = 3 * K;

impl FindNodeRequest {
    /// Asks for the `count` nearest to `target`.
    pub fn new(target: NodeId, count: usize) -> FindNodeRequest {
        FindNodeRequest { target, count: count.min(CONTACTS_MAX) as u16 }
    }

    /// How many contacts an answer has at most.
    pub fn contacts_max(&self) -> usize {
        usize::from(self.count).clamp(K, CONTACTS_MAX)
    }
}

/// The answer of [`FindNode`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FindNodeResponse {
    /// Nearest first. Candidates only: they prove themselves when they are called.
    pub contacts: Vec<Introduction>,
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
