//! Parsers of the file system: tree nodes and their parts, sealed chunks, requests of the kernel.

use ::bytes::Bytes;
use ::filesystem::chunk::{self, ChunkKind};
use ::filesystem::format::{InodeRecord, Key, Pointer};
use ::filesystem::fuse::request::Request;
use ::filesystem::tree::node::{Node, NodeWriter};

use crate::Target;

/// A tree node, and all that is read from one.
pub const TREE_NODE: Target = Target {
    name: "tree_node",
    body: |data| {
        let home = [3; 32];
        let bytes = Bytes::copy_from_slice(data);
        if let Ok(node) = Node::decode(bytes.clone(), home) {
            for index in 0..node.len() {
                let _ = (node.key(index), node.value(index), node.child(index));
                let _ = node.search(node.key(index));
                let _ = Key::decode(&node.shared_key(index));
                let _ = InodeRecord::decode(node.value(index));
            }
            let _ = node.child_index(data);
        }
        let _ = Key::decode(&bytes);
        let _ = Pointer::decode(data, &home);
        let _ = InodeRecord::decode(data);
    },
    seeds: || {
        let mut leaf = NodeWriter::new(0, 4096);
        for name in ["alpha", "beta", "gamma"] {
            leaf.push(name.as_bytes(), |value| value.extend_from_slice(b"some value"));
        }
        vec![leaf.finish(), NodeWriter::new(0, 64).finish()]
    },
};

/// A sealed chunk: a node may return anything in its place.
pub const CHUNK: Target = Target {
    name: "chunk",
    body: |data| {
        let mut sealed = data.to_vec();
        let _ = chunk::open_in_place(ChunkKind::Node, &mut sealed, &[5; 32]);
    },
    seeds: || {
        let mut sealed = Vec::new();
        chunk::seal_into(&mut sealed, ChunkKind::Node, b"content of a node", &[5; 32]);
        vec![sealed]
    },
};

/// A request as the kernel would send it; the length in the header is made right, or little else would be reached.
pub const FUSE_REQUEST: Target = Target {
    name: "fuse_request",
    body: |data| {
        let _ = Request::parse(data);
        let mut request = data.to_vec();
        if let Some(length) = request.first_chunk_mut::<4>() {
            *length = (data.len() as u32).to_ne_bytes();
            let _ = Request::parse(&request);
        }
    },
    seeds: || {
        // Every operation code there is, with a body long enough for any, and names behind it.
        (1u32..=53)
            .map(|operation| {
                let body = [&[0u8; 80][..], b"a name\0another name\0"].concat();
                let header = [40 + body.len() as u32, operation, 7, 0, 1, 0, 1000, 1000, 4711, 0];
                let header = header.iter().flat_map(|field| field.to_ne_bytes());
                header.chain(body).collect()
            })
            .collect()
    },
};
