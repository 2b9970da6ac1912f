//! Requests answered without a kernel: bytes in, typed replies out, so that it runs where nothing can be mounted.

mod support;

use filesystem::Errno;
use filesystem::fuse::dispatch::{REPLY_BYTES_MAX, changes_nothing, dispatch, may_be_given_up};
use filesystem::fuse::reply::{Notification, Opened, Reply};
use filesystem::fuse::request::{Operation, Request, SetAttributesRequest};
use filesystem::operations::{Attributes, Inode, Operations};
use support::memory::MemoryFs;

fn ask(fs: &MemoryFs, inode: Inode, operation: Operation<'_>) -> Reply {
    dispatch(fs, &Request { unique: 2, inode, uid: 7, gid: 8, pid: 9, operation }).reply
}

fn entry(reply: Reply) -> Attributes {
    match reply {
        Reply::Entry(attributes, _) => attributes,
        other => panic!("{other:?} is no entry"),
    }
}

fn errno(reply: Reply) -> Errno {
    match reply {
        Reply::Error(errno) => errno,
        other => panic!("{other:?} is no error"),
    }
}

fn make_file(fs: &MemoryFs, name: &[u8]) -> Attributes {
    entry(ask(fs, Inode::ROOT, Operation::MakeNode { name, mode: 0o100_640, rdev: 0, umask: 0o077 }))
}

#[test]
fn a_missing_name_is_an_answer_and_a_wrong_parent_an_error() {
    let fs = MemoryFs::default();
    assert!(matches!(ask(&fs, Inode::ROOT, Operation::Lookup { name: b"no" }), Reply::NoEntry(_)));
    let file = make_file(&fs, b"file");
    assert_eq!(errno(ask(&fs, file.inode, Operation::Lookup { name: b"no" })), Errno::ENOTDIR);
}

#[test]
fn the_umask_is_ours_to_apply_and_the_caller_owns_what_it_makes() {
    let fs = MemoryFs::default();
    let file = make_file(&fs, b"file");
    assert_eq!((file.mode, file.uid, file.gid), (0o600, 7, 8));
}

#[test]
fn an_unlinked_node_goes_with_the_last_reference_that_a_reply_gave() {
    let fs = MemoryFs::default();
    let file = make_file(&fs, b"file");
    entry(ask(&fs, Inode::ROOT, Operation::Lookup { name: b"file" }));
    let listing = Operation::ReadDirectory { cookie: 0, size: 4096, with_attributes: true };
    assert!(matches!(ask(&fs, Inode::ROOT, listing), Reply::Buffer(_)));
    assert!(matches!(ask(&fs, Inode::ROOT, Operation::Unlink { name: b"file" }), Reply::Empty));
    assert!(matches!(ask(&fs, file.inode, Operation::Forget { count: 2 }), Reply::None));
    assert_eq!(fs.node_count(), 2, "a third reference is left: the listing's");
    assert!(matches!(ask(&fs, file.inode, Operation::Forget { count: 1 }), Reply::None));
    assert_eq!(fs.node_count(), 1);
}

#[test]
fn an_entry_that_did_not_fit_a_listing_is_not_counted() {
    let fs = MemoryFs::default();
    let file = make_file(&fs, b"file");
    // Room for `.` and `..` only.
    let listing = Operation::ReadDirectory { cookie: 0, size: 320, with_attributes: true };
    assert!(matches!(ask(&fs, Inode::ROOT, listing), Reply::Buffer(bytes) if bytes.len() == 320));
    ask(&fs, Inode::ROOT, Operation::Unlink { name: b"file" });
    ask(&fs, file.inode, Operation::Forget { count: 1 });
    assert_eq!(fs.node_count(), 1);
}

#[test]
fn sizes_that_the_kernel_asks_for_are_bounded() {
    let fs = MemoryFs::default();
    let file = make_file(&fs, b"file");
    let set = SetAttributesRequest {
        valid: 1 << 3,
        size: 1 << 40,
        mode: 0,
        uid: 0,
        gid: 0,
        atime: (0, 0),
        mtime: (0, 0),
    };
    assert!(matches!(ask(&fs, file.inode, Operation::SetAttributes(set)), Reply::Attributes(..)));
    let Reply::Content(content) = ask(&fs, file.inode, Operation::Read { offset: 5, size: u32::MAX }) else {
        panic!("no content")
    };
    assert_eq!(content.iter().map(|slice| slice.len()).sum::<usize>(), REPLY_BYTES_MAX as usize);
    let listing = Operation::ReadDirectory { cookie: 0, size: u32::MAX, with_attributes: false };
    assert!(matches!(ask(&fs, Inode::ROOT, listing), Reply::Buffer(bytes) if bytes.len() < 200));
}

#[test]
fn flags_nobody_knows_are_refused() {
    let fs = MemoryFs::default();
    let file = make_file(&fs, b"file");
    let rename = |flags| Operation::Rename { name: b"file", new_parent: Inode::ROOT, new_name: b"b", flags };
    assert_eq!(errno(ask(&fs, Inode::ROOT, rename(8))), Errno::EINVAL);
    let collapse = Operation::Allocate { offset: 0, length: 1, mode: 8 };
    assert_eq!(errno(ask(&fs, file.inode, collapse)), Errno::EOPNOTSUPP);
    assert_eq!(errno(ask(&fs, file.inode, Operation::Seek { offset: 0, whence: 2 })), Errno::EINVAL);
    let bad_time = SetAttributesRequest {
        valid: 1 << 5,
        size: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        atime: (0, 0),
        mtime: (0, 1_000_000_000),
    };
    assert_eq!(errno(ask(&fs, file.inode, Operation::SetAttributes(bad_time))), Errno::EINVAL);
    let directory = Operation::MakeNode { name: b"d", mode: 0o040_755, rdev: 0, umask: 0 };
    assert_eq!(errno(ask(&fs, Inode::ROOT, directory)), Errno::EINVAL);
}

#[test]
fn what_the_kernel_can_do_itself_is_not_implemented_here() {
    let fs = MemoryFs::default();
    for operation in [Operation::OpenDirectory, Operation::Other { opcode: 47 }] {
        assert_eq!(errno(ask(&fs, Inode::ROOT, operation)), Errno::ENOSYS);
    }
    assert_eq!(errno(ask(&fs, Inode::ROOT, Operation::Ioctl)), Errno(25), "ENOTTY");
}

#[test]
fn attributes_tell_their_size_and_refuse_a_small_buffer() {
    let fs = MemoryFs::default();
    let set = Operation::SetXattr { name: b"user.a", value: b"12345", flags: 0 };
    assert!(matches!(ask(&fs, Inode::ROOT, set), Reply::Empty));
    let get = |size| ask(&fs, Inode::ROOT, Operation::GetXattr { name: b"user.a", size });
    assert!(matches!(get(0), Reply::XattrSize(5)));
    assert!(matches!(get(5), Reply::Buffer(value) if value == b"12345"));
    assert_eq!(errno(get(4)), Errno::ERANGE);
    let list = ask(&fs, Inode::ROOT, Operation::ListXattr { size: 100 });
    assert!(matches!(list, Reply::Buffer(names) if names == b"user.a\0"));
    // The kernel takes any other error for one of the access check that it asks for.
    let acl = Operation::GetXattr { name: b"system.posix_acl_access", size: 100 };
    assert_eq!(errno(ask(&fs, Inode::ROOT, acl)), Errno::ENODATA);
}

#[test]
fn a_close_is_told_of_where_something_may_have_been_written() {
    let fs = MemoryFs::default();
    let make = Operation::Create { name: b"file", mode: 0o100_600, umask: 0, flags: 0o101 };
    let Reply::Created(file, _, Opened { flush: true }) = ask(&fs, Inode::ROOT, make) else {
        panic!("not created for writing")
    };
    assert_eq!(file.mode, 0o600);
    let open = |flags| ask(&fs, file.inode, Operation::Open { flags });
    assert!(matches!(open(0), Reply::Opened(Opened { flush: false })), "for reading");
    assert!(matches!(open(2), Reply::Opened(Opened { flush: true })), "for both");
    assert!(matches!(ask(&fs, file.inode, Operation::Flush), Reply::Empty));
    assert_eq!(fs.flush_count.get(), 1);
    // Somebody else was faster.
    let again =
        |flags| ask(&fs, Inode::ROOT, Operation::Create { name: b"file", mode: 0o100_600, umask: 0, flags });
    assert!(matches!(again(0o101), Reply::Created(same, ..) if same.inode == file.inode));
    assert_eq!(errno(again(0o301)), Errno::EEXIST, "O_EXCL");
}

#[test]
fn an_append_goes_to_the_end_that_the_server_knows_and_the_kernel_is_told() {
    let fs = MemoryFs::default();
    let file = make_file(&fs, b"file");
    let write = |offset, append| {
        let operation =
            Operation::Write { offset, data: b"12345", clear_set_ids: false, append, direct: false };
        let request = Request { unique: 2, inode: file.inode, uid: 7, gid: 8, pid: 9, operation };
        let answer = dispatch(&fs, &request);
        assert!(matches!(answer.reply, Reply::Written(5)));
        answer.after
    };
    assert_eq!(write(0, false), None);
    assert_eq!(write(5, true), None, "where the kernel believed the end to be");
    assert_eq!(write(5, true), Some(Notification::Inode(file.inode)), "not where it believed it to be");
    assert_eq!(fs.attributes(file.inode).unwrap().size, 15);
}

#[test]
fn the_pages_under_a_direct_write_are_dropped_before_it_is_answered() {
    let fs = MemoryFs::default();
    let file = make_file(&fs, b"file");
    let operation =
        Operation::Write { offset: 3, data: b"12345", clear_set_ids: false, append: false, direct: true };
    let request = Request { unique: 2, inode: file.inode, uid: 7, gid: 8, pid: 9, operation };
    assert_eq!(dispatch(&fs, &request).before, Some(Notification::Content(file.inode, 3, 5)));
}

#[test]
fn a_dying_program_is_let_go_but_no_sync_is_cut_off() {
    let write = Operation::Write { offset: 0, data: b"", clear_set_ids: false, append: false, direct: false };
    assert!(may_be_given_up(&Operation::Read { offset: 0, size: 1 }));
    assert!(may_be_given_up(&write));
    assert!(!may_be_given_up(&Operation::Sync { data_only: true }));
    assert!(changes_nothing(&Operation::Lookup { name: b"a" }));
    assert!(!changes_nothing(&Operation::Unlink { name: b"a" }));
    // The trait's default: nobody else writes.
    assert_eq!(MemoryFs::default().next_invalidation(), None);
}
