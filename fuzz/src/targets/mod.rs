//! The targets, one file for each crate whose parsers they reach, and one for whole connections.

pub mod connections;
pub mod dht;
pub mod filesystem;
pub mod http;
pub mod http_client;
pub mod nat;
pub mod overlay;
pub mod reactor;

use crate::Target;

/// Every target of every crate.
pub const ALL: &[Target] = &[
    reactor::SERIALIZATION,
    reactor::ENVELOPE,
    reactor::KEY_FILE,
    reactor::SEALED,
    reactor::RPC_FRAME,
    connections::RPC_CONNECTION,
    connections::HTTP_CONNECTION,
    connections::HTTP_VALUES,
    http::HTTP_REQUEST,
    http::HTTP_RESPONSE,
    http::HTTP_CHUNKED,
    http::HTTP_MULTIPART,
    http_client::HTTP_REDIRECT,
    nat::OWN_ADDRESSES,
    nat::PEER_MESSAGE,
    nat::PORT_MAPPING,
    nat::UPNP,
    nat::RELAY,
    nat::STUN,
    overlay::PASSPORT,
    overlay::BEACON,
    overlay::CONTACT,
    overlay::RECORD,
    overlay::TICKET,
    overlay::LETTER,
    overlay::REVOCATIONS,
    overlay::RENEWALS,
    overlay::KEEPSAKE,
    dht::STORE_SEGMENT,
    dht::STORE_CHECKPOINT,
    dht::BLOCK,
    dht::REGISTER,
    dht::DELETION,
    filesystem::TREE_NODE,
    filesystem::CHUNK,
    filesystem::ROOT,
    filesystem::GROUPS,
    filesystem::FUSE_REQUEST,
];
