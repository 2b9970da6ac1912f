//! The bytes of each record, as they were when volumes began to be kept: what these tests say may not change any more.
//!
//! They were made by a program of its own from `docs/format.md`, not by the code that they test.

use bytes::Bytes;
use dht::HeaderHash;
use reactor::crypto::X25519Public;

use super::*;
use crate::access::{Charter, Extension, Features, Root};
use crate::chunk::{Binding, ChunkKind, seal_segments_into};
use crate::operations::{FileKind, Time};
use crate::tree::node::NodeWriter;

const POINTER_NEAR: &str = "\
    000000000100008000000178000001020304050609090909090909090909090909090909090909090909090909090909 \
    0909090908080808080808080808080808080808";
const POINTER_FAR: &str = "\
    010000000100008000000178000001020304050609090909090909090909090909090909090909090909090909090909 \
    090909090808080808080808080808080808080807070707070707070707070707070707070707070707070707070707 \
    07070707";
const POINTER_FRAME: &str = "\
    014000000100002800001027000001020304050609090909090909090909090909090909090909090909090909090909 \
    090909090a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0c0c0c0c0c0c0c0c0c0c0c0c \
    0c0c0c0c0707070707070707070707070707070707070707070707070707070707070707";
const INODE: &str = "\
    02010e00ed090000e8030000e90300000200000001080000100000002a000000a0860100000000000400000000000000 \
    010000000000000088776655443322110500000000000000ffffffffffffffff0100000000f153650000000002000000 \
    01f15365000000000300000000105e5f00000000ffc99a3b";
const ENTRY: &str = "080706050403020102";
const WRITER: &str = "0173657373696f6e31070000000000000000f153650000000073657373696f6e300900000000000000";
const ORPHAN: &str = "01887766554433221100f153650000000010ff536500000000";
const TRUNCATION: &str = "010300000000000000401f000000000000";
const OBJECT: &str = "010000800100008000000000000000000000000000000000000000000000";
const OBJECT_UNKNOWN: &str = "010000800100ffffffffffffffff00000000000000000000000000000000";
const SNAPSHOT: &str = "\
    010100000001000080000001780000010203040506090909090909090909090909090909090909090909090909090909 \
    090909090908080808080808080808080808080808070707070707070707070707070707070707070707070707070707 \
    07070707070f0000000000000000f1536500000000050000000106617574686f72066265666f7265";
const SESSION: &str = "\
    01887766554433221100f15365000000000200000000000000030000000000000002000000000000000e00000000000000 \
    010000000000000008616e6e406465736b0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";
/// Of an inode, an attribute, a name, an extent, a writer, an orphan, a truncation, an object, a snapshot, a
/// session.
const KEYS: [&str; 10] = [
    "000000000000000701",
    "000000000000000702757365722e636f6c6f7572",
    "0000000000000007030000000000abcdef6e616d65",
    "0000000000000007040000000000000201",
    "0000000000000000011122334455667788",
    "0000000000000000020000000000000007",
    "0000000000000000030000000000000007",
    "00000000000000000000000605040302010707070707070707070707070707070707070707070707070707070707070707",
    "0000000000000000041122334455667788",
    "0000000000000000071122334455667788",
];
const NODE: &str = "\
    0100020009007800000000000000000000070102010e00ed090000e8030000e90300000200000001080000100000002a \
    000000a0860100000000000400000000000000010000000000000088776655443322110500000000000000ffffffffff \
    ffffff0100000000f15365000000000200000001f15365000000000300000000105e5f00000000ffc99a3b1100060000 \
    0000000000000000070400000000000002010268656c6c6f";
const ROOT: &str = "\
    6879706861766f6c03000100000000000000020000000000000000000000000000000a0a0a0a0a0a0a0a0a0a0a0a0a0a \
    0a0a0f0000000000000010101010101010101010101010101010101010101010101010101010101010100b0000000000 \
    00000c000000050505050505050505050505050505050600000000000000070000000808080808080808080808080808 \
    08080808080808080808080808080808080806617574686f720100090909090909090909090909090909090909090909 \
    090909090909090909090964000100000001000080000001780000010203040506090909090909090909090909090909 \
    090909090909090909090909090909090908080808080808080808080808080808070707070707070707070707070707 \
    070707070707070707070707070707070701000707070707070707070707070707070707070707070707070707070707 \
    070707010203040506008001000080ffffffffffff8403050000006c61746572";

/// Compares bytes with their golden form; blanks in that are layout.
fn is_golden(golden: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.replace(' ', ""));
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes.into()
}

fn pointer() -> Pointer {
    Pointer {
        address: [7; 32],
        offset: 0x1_0000,
        length: 0x8000,
        size: 0x7801,
        birth: 0x0605_0403_0201,
        key: [9; 32],
        tags: Tags::whole([8; 16]),
    }
}

/// To a frame of 10,000 bytes in three segments.
fn frame_pointer() -> Pointer {
    let mut tags = Tags::of_segments(0x2800);
    [10, 11, 12].into_iter().for_each(|byte| tags.push([byte; 16]));
    Pointer { length: 0x2800, size: 10_000, tags, ..pointer() }
}

fn inode() -> InodeRecord {
    let time = |seconds, nanoseconds| Time { seconds, nanoseconds };
    InodeRecord {
        kind: FileKind::Regular,
        mode: 0o4755,
        uid: 1000,
        gid: 1001,
        nlink: 2,
        rdev: 0x801,
        flags: 0x10,
        project: 42,
        size: 100_000,
        frames: 4,
        parent: 1,
        content: ContentVersion { writer: 0x1122_3344_5566_7788, counter: 5 },
        frame_exponent: 14,
        atime: time(-1, 1),
        mtime: time(1_700_000_000, 2),
        ctime: time(1_700_000_001, 3),
        btime: time(1_600_000_000, 999_999_999),
        tail: Bytes::new(),
    }
}

#[test]
fn pointers_are_as_they_were() {
    let near = encoded(|out| pointer().encode(true, out));
    let far = encoded(|out| pointer().encode(false, out));
    is_golden(POINTER_NEAR, &near);
    is_golden(POINTER_FAR, &far);
    assert_eq!(Pointer::decode(&near, &[7; 32]), Some(pointer()));
    assert_eq!(Pointer::decode(&far, &[0; 32]), Some(pointer()));
    let frame = encoded(|out| frame_pointer().encode(false, out));
    is_golden(POINTER_FRAME, &frame);
    assert_eq!(Pointer::decode(&frame, &[0; 32]), Some(frame_pointer()));
}

#[test]
fn a_frame_is_sealed_as_it_was() {
    let content: Vec<u8> = (0..5000).map(|at| (at * 7 + at / 256) as u8).collect();
    let binding = Binding { kind: ChunkKind::Frame, volume: VolumeId([8; 16]) };
    let mut sealed = Vec::new();
    let tags = seal_segments_into(&mut sealed, &binding, 0x0605_0403_0201, &content, &[9; 32]);
    assert_eq!(sealed.len(), 5120);
    is_golden("e6c46b313b1c11bc852caa4f24d24ac1", &sealed[..16]);
    is_golden("eae2c5c2d29146ac59f5c1b76a1659bc", &sealed[4096..4112]);
    is_golden("b804d9bca7fde5d0d18804de0d2b0a75", &sealed[5104..]);
    is_golden("14c047f816f8bacc19f7a5d521386cd6 765cd8ea4152f0c7c52b35d6d45be048", &tags.as_slice().concat());
}

#[test]
fn records_are_as_they_were() {
    let bytes = encoded(|out| inode().encode(out));
    is_golden(INODE, &bytes);
    assert_eq!(InodeRecord::decode(&bytes), Some(inode()));

    let entry = EntryRecord::new(0x0102_0304_0506_0708, FileKind::Directory);
    let bytes = encoded(|out| entry.encode(out));
    is_golden(ENTRY, &bytes);
    assert_eq!(EntryRecord::decode(&bytes), Some(entry));

    let writer = WriterRecord {
        session: *b"session1",
        delta: 7,
        committed_seconds: 1_700_000_000,
        journal_session: *b"session0",
        journal_delta: 9,
    };
    let bytes = encoded(|out| writer.encode(out));
    is_golden(WRITER, &bytes);
    assert_eq!(WriterRecord::decode(&bytes), Some(writer));

    let orphan =
        Orphan { device: 0x1122_3344_5566_7788, since_seconds: 1_700_000_000, lease_seconds: 1_700_003_600 };
    let bytes = encoded(|out| orphan.encode(out));
    is_golden(ORPHAN, &bytes);
    assert_eq!(Orphan::decode(&bytes), Some(orphan));

    let truncation = Truncation { from: 3, to: 8000 };
    let bytes = encoded(|out| truncation.encode(out));
    is_golden(TRUNCATION, &bytes);
    assert_eq!(Truncation::decode(&bytes), Some(truncation));

    let known = ObjectRecord { live_bytes: Some(0x8000), end: 0x1_8000, ..ObjectRecord::default() };
    let unknown = ObjectRecord { live_bytes: None, ..known.clone() };
    for (golden, record) in [(OBJECT, known), (OBJECT_UNKNOWN, unknown)] {
        let bytes = encoded(|out| record.encode(out));
        is_golden(golden, &bytes);
        assert_eq!(ObjectRecord::decode(&bytes), Some(record));
    }

    let snapshot = SnapshotRecord {
        tree: pointer(),
        version: 15,
        taken: Time { seconds: 1_700_000_000, nanoseconds: 5 },
        origin: SnapshotOrigin::Policy,
        author: "author".into(),
        name: "before".into(),
    };
    let bytes = encoded(|out| snapshot.encode(out));
    is_golden(SNAPSHOT, &bytes);
    assert_eq!(SnapshotRecord::decode(&bytes), Some(snapshot));

    let session = SessionRecord {
        device: 0x1122_3344_5566_7788,
        since_seconds: 1_700_000_000,
        state: SessionState::Alone,
        asks: 3,
        heard: 2,
        cleared: 14,
        has_journal: true,
        label: Label::new("ann@desk"),
        member: [15; 32],
    };
    let bytes = encoded(|out| session.encode(out));
    is_golden(SESSION, &bytes);
    assert_eq!(SessionRecord::decode(&bytes), Some(session));
}

#[test]
fn keys_are_as_they_were() {
    let keys = [
        Key::Inode(7),
        Key::Xattr(7, Bytes::from_static(b"user.colour")),
        Key::Entry(7, 0xab_cdef, Bytes::from_static(b"name")),
        Key::Extent(7, 513),
        Key::Writer(0x1122_3344_5566_7788),
        Key::Orphan(7),
        Key::Truncation(7),
        Key::Object(ObjectId::from(&pointer())),
        Key::Snapshot(0x1122_3344_5566_7788),
        Key::Session(0x1122_3344_5566_7788),
    ];
    for (golden, key) in KEYS.iter().zip(keys) {
        let bytes = Bytes::copy_from_slice(&key.encode());
        is_golden(golden, &bytes);
        assert_eq!(Key::decode(&bytes), Some(key));
    }
}

#[test]
fn nodes_are_as_they_were() {
    let mut writer = NodeWriter::new(0, 0);
    writer.push(&Key::Inode(7).encode(), |out| inode().encode(out));
    writer.push(&Key::Extent(7, 513).encode(), |out| out.extend_from_slice(b"\x02hello"));
    is_golden(NODE, &writer.finish());
}

#[test]
fn roots_are_as_they_were() {
    let mut objects = ObjectChanges::default();
    objects.remove(&pointer());
    let root = Root {
        charter: Charter {
            volume: VolumeId([10; 16]),
            created: Time { seconds: 11, nanoseconds: 12 },
            name_key: [8; 32],
            features: Features { compatible: 1, read_compatible: 2, incompatible: 0 },
            readers: vec![X25519Public::from_bytes([9; 32])],
            extensions: vec![Extension { kind: 900, value: Bytes::from_static(b"later") }],
        },
        version: 15,
        previous: Some(HeaderHash([16; 32])),
        tree: Some(pointer()),
        objects,
        commit: [5; 16],
        time: Time { seconds: 6, nanoseconds: 7 },
        author: "author".into(),
    };
    let bytes = encoded(|out| root.encode(out));
    is_golden(ROOT, &bytes);
    assert_eq!(Root::decode(&bytes), Ok(root));
}
