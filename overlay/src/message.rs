//! What overlay nodes say to each other once a connection is admitted: numbers 0x0100 to 0x01ff.
//!
//! The exchange of passports comes before any of these and is no method: see `admission.rs`.
//! Field order is the wire format (MessagePack arrays): only ever append.

use std::convert::Infallible;
use std::fmt;

use reactor::rpc::Method;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::contact::Contact;
use crate::node_id::NodeId;

/// "Are you there?"
pub struct Ping;

impl Method for Ping {
    const ID: u32 = 0x0100;
    const NAME: &'static str = "overlay.ping";
    type Request = ();
    type Response = ();
    type Error = Never;
}

/// "Whom do you know that is nearest to this?" Answered with at most `K` live contacts, without the asker.
pub struct FindNode;

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

impl Method for FindNode {
    const ID: u32 = 0x0101;
    const NAME: &'static str = "overlay.find_node";
    type Request = FindNodeRequest;
    type Response = FindNodeResponse;
    type Error = Never;
}

/// "I am leaving for good: forget me."
pub struct Leave;

impl Method for Leave {
    const ID: u32 = 0x0102;
    const NAME: &'static str = "overlay.leave";
    type Request = ();
    type Response = ();
    type Error = Never;
}

/// The error of a method that refuses nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Never(Infallible);

impl fmt::Debug for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl Serialize for Never {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match self.0 {}
    }
}

impl<'de> Deserialize<'de> for Never {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Never, D::Error> {
        Err(serde::de::Error::custom("this method has no error of its own"))
    }
}
