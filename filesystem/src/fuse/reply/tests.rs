//! Replies alone: what the kernel reads out of the bytes that it is given.

use bytes::Bytes;
use zerocopy::FromBytes;

use super::*;
use crate::operations::FileKind;

fn attributes() -> Attributes {
    let time = Time { seconds: -1, nanoseconds: 5 };
    Attributes {
        inode: Inode(42),
        kind: FileKind::Regular,
        mode: 0o640,
        uid: 1,
        gid: 2,
        nlink: 3,
        size: 4,
        blocks_512: 8,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        rdev: 0,
    }
}

fn written(reply: &Reply) -> (abi::OutHeader, Vec<u8>) {
    let bytes = reply.slices(9, |slices| slices.iter().map(|slice| slice.to_vec()).collect::<Vec<_>>());
    let bytes = bytes.unwrap().concat();
    let (header, body) = abi::OutHeader::read_from_prefix(&bytes).unwrap();
    assert_eq!((header.len as usize, header.unique), (bytes.len(), 9));
    (header, body.to_vec())
}

#[test]
fn an_error_is_a_negated_number_and_nothing_else() {
    let (header, body) = written(&Reply::Error(Errno::ENOENT));
    assert_eq!((header.error, body.len()), (-2, 0));
    assert!(Reply::None.slices(1, |_| ()).is_none());
}

#[test]
fn an_entry_carries_mode_times_and_timeouts() {
    let (_, body) = written(&Reply::Entry(attributes(), 3600));
    let entry = abi::EntryOut::read_from_bytes(&body).unwrap();
    assert_eq!((entry.nodeid, entry.attr.mode, entry.attr_valid), (42, 0o100_640, 3600));
    assert_eq!((entry.attr.mtime, entry.attr.mtimensec), (u64::MAX, 5));
    let (_, body) = written(&Reply::NoEntry(Sharing::WithOthers));
    let entry = abi::EntryOut::read_from_bytes(&body).unwrap();
    assert_eq!((entry.nodeid, entry.entry_valid), (0, 0));
}

#[test]
fn a_creation_is_an_entry_and_an_open_file() {
    let (_, body) = written(&Reply::Created(attributes(), Sharing::WithOthers, Opened { flush: true }));
    let (entry, rest) = abi::EntryOut::read_from_prefix(&body).unwrap();
    let open = abi::OpenOut::read_from_bytes(rest).unwrap();
    assert_eq!((entry.nodeid, open.open_flags), (42, open_flags::KEEP_CACHE));
    let (_, body) = written(&Reply::Opened(Opened { flush: false }));
    let open = abi::OpenOut::read_from_bytes(&body).unwrap();
    assert_eq!(open.open_flags, open_flags::KEEP_CACHE | open_flags::NOFLUSH);
}

#[test]
fn content_is_written_from_the_slices_it_came_in() {
    let content =
        ReadBytes::from_iter([Bytes::from_static(b"one "), Bytes::new(), Bytes::from_static(b"two")]);
    let reply = Reply::Content(content.clone());
    let same = reply.slices(1, |slices| slices.len() == 3 && slices[1].as_ptr() == content[0].as_ptr());
    assert_eq!(same, Some(true));
    assert_eq!(written(&reply).1, b"one two");
    let many = ReadBytes::from_iter((0..3000).map(|_| Bytes::from_static(b"x")));
    assert_eq!(written(&Reply::Content(many)).1.len(), 3000);
}

#[test]
fn a_listing_stops_before_it_is_too_large_and_is_aligned() {
    let entry = DirectoryEntry {
        name: Bytes::from_static(b"four"),
        inode: Inode(42),
        kind: FileKind::Regular,
        cookie: 77,
        attributes: Some(attributes()),
    };
    for (with_attributes, record) in [(false, 32), (true, 160)] {
        let mut packer = DirectoryPacker::new(3 * record + record / 2, with_attributes, Sharing::Alone);
        assert_eq!(DirectoryPacker::count_max(3 * record + record / 2, with_attributes), 3);
        assert_eq!((0..10).filter(|_| packer.push(&entry)).count(), 3);
        let (_, body) = written(&packer.finish());
        assert_eq!(body.len(), 3 * record);
        let dirent = abi::Dirent::read_from_prefix(&body[record - 32..]).unwrap().0;
        assert_eq!((dirent.ino, dirent.off, dirent.namelen, dirent.r#type), (42, 77, 4, 8));
        assert_eq!(&body[record - 8..record - 4], b"four");
    }
}

#[test]
fn a_notification_has_no_unique_and_a_name_ends_with_nul() {
    let bytes = Notification::Entry(Inode(1), b"name".to_vec()).to_bytes();
    let (header, body) = abi::OutHeader::read_from_prefix(&bytes).unwrap();
    assert_eq!((header.unique, header.error, header.len), (0, 3, 37));
    assert_eq!(&body[16..], b"name\0");
    assert_eq!(Notification::Inode(Inode(1)).to_bytes().len(), 40);
}
