//! Parsers of the file system: tree nodes and their parts, sealed chunks, requests of the kernel.

use ::bytes::Bytes;
use ::dht::RegisterAddress;
use ::dht::block::mutable::{Genesis, Signed};
use ::filesystem::access::groups::{GroupId, Groups, InGroup, Person};
use ::filesystem::access::list::AccessList;
use ::filesystem::access::{Charter, Extension, Features, Root, SpaceLink};
use ::filesystem::chunk::{self, Binding, ChunkKind};
use ::filesystem::format::{
    EntryRecord, InodeRecord, Key, ObjectChanges, ObjectRecord, Orphan, Piece, Pointer, SessionRecord,
    SnapshotRecord, Tags, Truncation, VolumeId, WriterRecord,
};
use ::filesystem::fuse::request::Request;
use ::filesystem::operations::Time;
use ::filesystem::tree::node::{Node, NodeWriter};
use ::overlay::NodeId;
use ::reactor::crypto::{Identity, X25519Public};

use crate::Target;

const POINTER: Pointer = Pointer {
    address: [1; 32],
    offset: 2,
    length: 64,
    size: 5,
    birth: 6,
    key: [7; 32],
    tags: Tags::whole([8; 16]),
};
const NODE: Binding = Binding { kind: ChunkKind::Node, volume: VolumeId([7; 16]) };

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
                let _ = InodeRecord::decode(&node.shared_value(index));
            }
            let _ = node.child_index(data);
        }
        let _ = Key::decode(&bytes);
        let _ = Pointer::decode(data, &home);
        if let Some(record) = InodeRecord::decode(&bytes) {
            let _ = record.attributes(1);
        }
        // What is read and not changed is written back as it was: a later version's parts too.
        if let Some(entry) = EntryRecord::decode(&bytes) {
            let mut written = Vec::new();
            entry.encode(&mut written);
            assert_eq!(written, data);
        }
        if let Some(object) = ObjectRecord::decode(&bytes) {
            let mut written = Vec::new();
            object.encode(&mut written);
            assert_eq!(written, data);
        }
        let _ = (WriterRecord::decode(data), Orphan::decode(data), Truncation::decode(data));
        let _ = (SessionRecord::decode(data), SnapshotRecord::decode(data));
    },
    seeds: || {
        let mut leaf = NodeWriter::new(0, 4096);
        for name in ["alpha", "beta", "gamma"] {
            leaf.push(name.as_bytes(), |value| value.extend_from_slice(b"some value"));
        }
        let mut inner = NodeWriter::new(1, 4096);
        inner.push(b"alpha", |value| POINTER.encode(true, value));
        inner.push(b"beta", |value| POINTER.encode(false, value));
        vec![leaf.finish(), inner.finish(), NodeWriter::new(0, 64).finish()]
    },
};

/// A root's body: whoever may write to the register wrote it, with another version perhaps.
pub const ROOT: Target = Target {
    name: "root",
    body: |data| {
        if let Ok(root) = Root::decode(data) {
            let mut written = Vec::new();
            root.encode(&mut written);
            assert_eq!(Root::decode(&written).as_ref(), Ok(&root));
            let owner = Identity::from_seed(&[1; 32]).public_key();
            let _ = root.charter.access_list(&owner, &RegisterAddress([2; 32]));
        }
        // What a name of another volume leads to is whoever may write the directory's to say.
        let owner = Identity::from_seed(&[1; 32]).public_key();
        if let Some(link) = SpaceLink::decode(data, &owner) {
            assert_eq!(SpaceLink::decode(&link.encode(), &owner), Some(link));
        }
    },
    seeds: || {
        let owner = Identity::from_seed(&[1; 32]);
        let list = Signed::sign(&owner, AccessList::new(RegisterAddress([2; 32]), "docs"));
        let genesis = Genesis::sign(&owner, [2; 32], vec![NodeId([3; 32])], Vec::new());
        let root = Root {
            charter: Charter {
                volume: VolumeId([1; 16]),
                created: Time { seconds: 2, nanoseconds: 3 },
                name_key: [4; 32],
                features: Features { compatible: 5, read_compatible: 6, incompatible: 0 },
                readers: vec![X25519Public::from_bytes([7; 32])],
                extensions: vec![
                    Extension { kind: 8, value: Bytes::from_static(b"later") },
                    Extension { kind: 3, value: list.to_bytes().into() },
                ],
            },
            version: 9,
            previous: None,
            tree: None,
            objects: {
                let mut objects = ObjectChanges::default();
                objects.add(&POINTER);
                objects
            },
            commit: [10; 16],
            time: Time { seconds: 11, nanoseconds: 12 },
            author: "author".into(),
        };
        let mut bytes = Vec::new();
        root.encode(&mut bytes);
        vec![bytes, SpaceLink::new(genesis).encode()]
    },
};

/// The groups of a drive's owner: what he wrote, as an older or a newer program of his may have.
pub const GROUPS: Target = Target {
    name: "groups",
    body: |data| {
        if let Some(groups) = Groups::decode(data) {
            assert_eq!(Groups::decode(&groups.encode()).as_ref(), Some(&groups));
            for group in groups.all() {
                let _ = (groups.people_of(group.id), groups.reached_by(group.id));
                let _ = groups.clone().add(group.id, &InGroup::Group(GroupId(group.id.0 ^ 1)));
                let _ = groups.clone().take_in(&groups);
            }
        }
    },
    seeds: || {
        let mut groups = Groups::default();
        for name in ["family", "kids", "club"] {
            let id = groups.create(name).expect("it is a name");
            let key = Identity::from_seed(&[1; 32]).public_key();
            let person = Person { key, sealing_key: [1; 32], may_write: true, name: "ann".into() };
            let _ = groups.add(id, &InGroup::Person(person));
            let first = groups.all()[0].id;
            let _ = groups.add(id, &InGroup::Group(first));
            let _ = groups.name(&RegisterAddress([2; 32]), "docs", &[id].into());
        }
        vec![groups.encode(), Groups::default().encode()]
    },
};

/// A sealed chunk: a node may return anything in its place.
pub const CHUNK: Target = Target {
    name: "chunk",
    body: |data| {
        let mut sealed = data.to_vec();
        let _ = chunk::open_in_place(&NODE, &mut sealed, &POINTER.into());
        // As if a pointer of these very bytes had led here, to all of it or to a part.
        if let Some(pointer) = Pointer::decode(data, &[3; 32]) {
            let end = pointer.size as usize;
            for piece in Piece::covering(&pointer, end / 2, end / 2 + 1).chain([pointer.into()]) {
                let _ = chunk::open_run(&NODE, Bytes::copy_from_slice(data), pointer.offset, &[piece]);
            }
        }
        let _ = chunk::open_with_nonce_in_place(&NODE, &mut data.to_vec(), &[5; 32], &[0; 12]);
    },
    seeds: || {
        let mut sealed = Vec::new();
        chunk::seal_with_nonce_into(&mut sealed, &NODE, b"content of a node", &[5; 32], &[0; 12]);
        let mut frame = Vec::new();
        let mut segments = Vec::new();
        let tags = chunk::seal_segments_into(&mut segments, &NODE, 6, &[5; 20_000], &[7; 32]);
        Pointer { length: segments.len() as u32, size: 20_000, tags, ..POINTER }.encode(false, &mut frame);
        vec![sealed, frame]
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
