//! From the bytes that `/dev/fuse` hands out to a typed [`Request`]: pure, bounded, and never panicking.
//!
//! The kernel is trusted with our process's life, so why be strict? Because the same bytes could come from a kernel
//! that knows more than we do, because a wrong offset here would corrupt files silently, and because a pure parser
//! costs nothing to fuzz. Nothing is copied but the fixed numbers; names and payloads borrow from the request's buffer.
//!
//! It does not judge: whether an inode exists, a mode makes sense or a name is too long is for the operations.

use zerocopy::FromBytes;

use super::abi::{self, InHeader, o_flags, opcode};
use super::request::{Forgets, Init, Operation, Request, SetAttributesRequest};
use crate::operations::Inode;

/// The longest name we let through, far above `NAME_SIZE_MAX`, whose own error (`ENAMETOOLONG`) the operations give.
pub const NAME_SIZE_LIMIT: usize = 4096;

/// Where a WRITE's payload starts in the request.
#[cfg(test)]
pub(super) const WRITE_PAYLOAD_OFFSET: usize = size_of::<InHeader>() + size_of::<abi::WriteIn>();

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedRequest {
    /// Not even a header: whom to answer is unknown.
    #[error("a request of {len} bytes is shorter than its header: answer none")]
    NoHeader {
        /// What was read.
        len: usize,
    },
    /// The header is there, but what it announces is not: answer `unique` with an error.
    #[error(
        "request {unique} (opcode {opcode}) is malformed: {what}; is the kernel newer than this program?"
    )]
    Body {
        /// Whom to answer.
        unique: u64,
        /// What was asked.
        opcode: u32,
        /// What is wrong.
        what: &'static str,
    },
}

impl<'a> Request<'a> {
    /// Reads one request, which is all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`MalformedRequest`]: answer `EIO` to its `unique`, if it has one, and go on.
    pub fn parse(bytes: &'a [u8]) -> Result<Request<'a>, MalformedRequest> {
        let Ok((header, body)) = InHeader::read_from_prefix(bytes) else {
            return Err(MalformedRequest::NoHeader { len: bytes.len() });
        };
        let malformed = |what| MalformedRequest::Body { unique: header.unique, opcode: header.opcode, what };
        if header.len as usize != bytes.len() {
            return Err(malformed("its length is not that of what was read"));
        }
        let body = body
            .len()
            .checked_sub(usize::from(header.total_extlen) * 8)
            .map(|size| &body[..size])
            .ok_or_else(|| malformed("its extensions are longer than itself"))?;
        let operation = Body { rest: body }.operation(&header).map_err(malformed)?;
        Ok(Request {
            unique: header.unique,
            inode: Inode(header.nodeid),
            uid: header.uid,
            gid: header.gid,
            pid: header.pid,
            operation,
        })
    }
}

/// What follows the header, eaten from the front.
struct Body<'a> {
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn take<T: FromBytes>(&mut self) -> Result<T, &'static str> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| "its arguments are cut off")?;
        self.rest = rest;
        Ok(value)
    }

    fn bytes(&mut self, size: u32) -> Result<&'a [u8], &'static str> {
        let (bytes, rest) =
            self.rest.split_at_checked(size as usize).ok_or("its payload is shorter than it says")?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A string up to its NUL.
    fn string(&mut self) -> Result<&'a [u8], &'static str> {
        let searched = &self.rest[..self.rest.len().min(NAME_SIZE_LIMIT + 1)];
        let end = searched.iter().position(|&byte| byte == 0).ok_or("a name has no end")?;
        let (string, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Ok(string)
    }

    /// A single component of a path.
    fn name(&mut self) -> Result<&'a [u8], &'static str> {
        let name = self.string()?;
        match name {
            [] => Err("a name is empty"),
            name if name.contains(&b'/') => Err("a name has a slash in it"),
            name => Ok(name),
        }
    }

    fn operation(&mut self, header: &InHeader) -> Result<Operation<'a>, &'static str> {
        Ok(match header.opcode {
            opcode::LOOKUP => Operation::Lookup { name: self.name()? },
            opcode::FORGET => Operation::Forget { count: self.take::<abi::ForgetIn>()?.nlookup },
            opcode::BATCH_FORGET => {
                let batch: abi::BatchForgetIn = self.take()?;
                let size = batch
                    .count
                    .checked_mul(size_of::<abi::ForgetOne>() as u32)
                    .ok_or("it forgets more than fits")?;
                Operation::BatchForget(Forgets { rest: self.bytes(size)? })
            }
            opcode::GETATTR => {
                self.take::<abi::GetattrIn>()?;
                Operation::Attributes
            }
            opcode::SETATTR => {
                let set: abi::SetattrIn = self.take()?;
                Operation::SetAttributes(SetAttributesRequest {
                    valid: set.valid,
                    size: set.size,
                    mode: set.mode,
                    uid: set.uid,
                    gid: set.gid,
                    // The kernel carries its signed seconds in unsigned fields.
                    atime: (set.atime.cast_signed(), set.atimensec),
                    mtime: (set.mtime.cast_signed(), set.mtimensec),
                })
            }
            opcode::READLINK => Operation::ReadSymlink,
            opcode::SYMLINK => {
                let name = self.name()?;
                Operation::MakeSymlink { name, target: self.string()? }
            }
            opcode::MKNOD => {
                let make: abi::MknodIn = self.take()?;
                let name = self.name()?;
                Operation::MakeNode { name, mode: make.mode, rdev: make.rdev, umask: make.umask }
            }
            opcode::MKDIR => {
                let make: abi::MkdirIn = self.take()?;
                Operation::MakeDirectory { name: self.name()?, mode: make.mode, umask: make.umask }
            }
            opcode::UNLINK => Operation::Unlink { name: self.name()? },
            opcode::RMDIR => Operation::RemoveDirectory { name: self.name()? },
            opcode::RENAME => {
                let rename: abi::RenameIn = self.take()?;
                self.rename(rename.newdir, 0)?
            }
            opcode::RENAME2 => {
                let rename: abi::Rename2In = self.take()?;
                self.rename(rename.newdir, rename.flags)?
            }
            opcode::LINK => {
                let link: abi::LinkIn = self.take()?;
                Operation::Link { inode: Inode(link.oldnodeid), new_name: self.name()? }
            }
            opcode::OPEN => Operation::Open { flags: self.take::<abi::OpenIn>()?.flags },
            opcode::OPENDIR => Operation::OpenDirectory,
            opcode::CREATE => {
                let create: abi::CreateIn = self.take()?;
                Operation::Create {
                    name: self.name()?,
                    mode: create.mode,
                    umask: create.umask,
                    flags: create.flags,
                }
            }
            opcode::STATX => Operation::Statx,
            opcode::TMPFILE => {
                // A name follows, which means nothing.
                let create: abi::CreateIn = self.take()?;
                Operation::CreateUnnamed { mode: create.mode, umask: create.umask, flags: create.flags }
            }
            opcode::READ => {
                let read: abi::ReadIn = self.take()?;
                Operation::Read { offset: read.offset, size: read.size }
            }
            opcode::WRITE => {
                let write: abi::WriteIn = self.take()?;
                // What the page cache writes back later was appended to nothing, whatever descriptor it goes by.
                let by_a_program = write.write_flags & abi::WRITE_CACHE == 0;
                Operation::Write {
                    offset: write.offset,
                    data: self.bytes(write.size)?,
                    clear_set_ids: write.write_flags & abi::WRITE_KILL_SUIDGID != 0,
                    append: by_a_program && write.flags & o_flags::APPEND != 0,
                    direct: by_a_program && write.flags & o_flags::DIRECT != 0,
                }
            }
            opcode::STATFS => Operation::Statistics,
            opcode::RELEASE => Operation::Release { flags: self.take::<abi::ReleaseIn>()?.flags },
            opcode::RELEASEDIR => Operation::ReleaseDirectory,
            opcode::FLUSH => Operation::Flush,
            opcode::FSYNC => Operation::Sync { data_only: self.data_only()? },
            opcode::FSYNCDIR => Operation::SyncDirectory { data_only: self.data_only()? },
            opcode::SYNCFS => Operation::SyncFileSystem,
            opcode::SETXATTR => {
                let set: abi::SetxattrIn = self.take()?;
                let name = self.string()?;
                Operation::SetXattr { name, value: self.bytes(set.size)?, flags: set.flags }
            }
            opcode::GETXATTR => {
                let get: abi::GetxattrIn = self.take()?;
                Operation::GetXattr { name: self.string()?, size: get.size }
            }
            opcode::LISTXATTR => Operation::ListXattr { size: self.take::<abi::GetxattrIn>()?.size },
            opcode::REMOVEXATTR => Operation::RemoveXattr { name: self.string()? },
            opcode::INIT => self.init()?,
            opcode::READDIR | opcode::READDIRPLUS => {
                let read: abi::ReadIn = self.take()?;
                Operation::ReadDirectory {
                    cookie: read.offset,
                    size: read.size,
                    with_attributes: header.opcode == opcode::READDIRPLUS,
                }
            }
            opcode::ACCESS => Operation::Access { mask: self.take::<abi::AccessIn>()?.mask },
            opcode::INTERRUPT => Operation::Interrupt { unique: self.take::<abi::InterruptIn>()?.unique },
            opcode::IOCTL => Operation::Ioctl,
            opcode::DESTROY => Operation::Destroy,
            opcode::FALLOCATE => {
                let allocate: abi::FallocateIn = self.take()?;
                Operation::Allocate { offset: allocate.offset, length: allocate.length, mode: allocate.mode }
            }
            opcode::LSEEK => {
                let seek: abi::LseekIn = self.take()?;
                Operation::Seek { offset: seek.offset, whence: seek.whence }
            }
            opcode => Operation::Other { opcode },
        })
    }

    fn rename(&mut self, new_parent: u64, flags: u32) -> Result<Operation<'a>, &'static str> {
        let name = self.name()?;
        Ok(Operation::Rename { name, new_parent: Inode(new_parent), new_name: self.name()?, flags })
    }

    fn data_only(&mut self) -> Result<bool, &'static str> {
        Ok(self.take::<abi::FsyncIn>()?.fsync_flags & abi::FSYNC_FDATASYNC != 0)
    }

    fn init(&mut self) -> Result<Operation<'a>, &'static str> {
        if self.rest.len() < abi::INIT_IN_COMPAT_SIZE {
            return Err("its arguments are cut off");
        }
        let mut padded = [0; size_of::<abi::InitIn>()];
        let known = self.rest.len().min(padded.len());
        padded[..known].copy_from_slice(&self.rest[..known]);
        let init = abi::InitIn::read_from_bytes(&padded).map_err(|_| "its arguments are cut off")?;
        let mut flags = u64::from(init.flags);
        if flags & abi::init_flags::INIT_EXT != 0 {
            flags |= u64::from(init.flags2) << 32;
        }
        Ok(Operation::Init(Init {
            major: init.major,
            minor: init.minor,
            readahead_bytes_max: init.max_readahead,
            flags,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn message(opcode: u32, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let header = InHeader {
            len: (size_of::<InHeader>() + body.len()) as u32,
            opcode,
            unique: 7,
            nodeid: 3,
            uid: 1000,
            gid: 100,
            pid: 1,
            total_extlen: 0,
            padding: 0,
        };
        [header.as_bytes(), &body].concat()
    }

    fn operation(bytes: &[u8]) -> Operation<'_> {
        let request = Request::parse(bytes).unwrap();
        assert_eq!((request.unique, request.inode, request.uid, request.gid), (7, Inode(3), 1000, 100));
        request.operation
    }

    #[test]
    fn a_lookup_borrows_its_name_from_the_buffer() {
        let bytes = message(opcode::LOOKUP, &[b"a name\0"]);
        assert_eq!(operation(&bytes), Operation::Lookup { name: b"a name" });
    }

    #[test]
    fn a_write_finds_its_payload_behind_the_fixed_part() {
        let fixed = abi::WriteIn {
            fh: 0,
            offset: 1 << 40,
            size: 5,
            write_flags: abi::WRITE_KILL_SUIDGID,
            lock_owner: 0,
            flags: o_flags::APPEND,
            padding: 0,
        };
        let bytes = message(opcode::WRITE, &[fixed.as_bytes(), b"bytes"]);
        assert_eq!(&bytes[WRITE_PAYLOAD_OFFSET..], b"bytes");
        let mut expected = Operation::Write {
            offset: 1 << 40,
            data: b"bytes",
            clear_set_ids: true,
            append: true,
            direct: false,
        };
        assert_eq!(operation(&bytes), expected);
        let later = abi::WriteIn { write_flags: fixed.write_flags | abi::WRITE_CACHE, ..fixed };
        let bytes = message(opcode::WRITE, &[later.as_bytes(), b"bytes"]);
        if let Operation::Write { append, .. } = &mut expected {
            *append = false;
        }
        assert_eq!(operation(&bytes), expected, "written back from the page cache");
        let short = message(opcode::WRITE, &[fixed.as_bytes(), b"byte"]);
        assert!(matches!(Request::parse(&short), Err(MalformedRequest::Body { unique: 7, .. })));
    }

    #[test]
    fn a_rename_has_two_names_and_rename2_has_flags() {
        let old = message(opcode::RENAME, &[abi::RenameIn { newdir: 9 }.as_bytes(), b"a\0b\0"]);
        let expected = Operation::Rename { name: b"a", new_parent: Inode(9), new_name: b"b", flags: 0 };
        assert_eq!(operation(&old), expected);
        let fixed = abi::Rename2In { newdir: 9, flags: 2, padding: 0 };
        let new = message(opcode::RENAME2, &[fixed.as_bytes(), b"a\0b\0"]);
        let expected = Operation::Rename { name: b"a", new_parent: Inode(9), new_name: b"b", flags: 2 };
        assert_eq!(operation(&new), expected);
    }

    #[test]
    fn a_batch_of_forgets_yields_as_many_as_it_announces() {
        let batch = abi::BatchForgetIn { count: 2, dummy: 0 };
        let one = abi::ForgetOne { nodeid: 5, nlookup: 1 };
        let two = abi::ForgetOne { nodeid: 6, nlookup: 2 };
        let bytes =
            message(opcode::BATCH_FORGET, &[batch.as_bytes(), one.as_bytes(), two.as_bytes(), b"rest"]);
        let Operation::BatchForget(forgets) = operation(&bytes) else { panic!("no batch") };
        assert_eq!(forgets.collect::<Vec<_>>(), [(Inode(5), 1), (Inode(6), 2)]);
        let lying = abi::BatchForgetIn { count: u32::MAX, dummy: 0 };
        assert!(Request::parse(&message(opcode::BATCH_FORGET, &[lying.as_bytes()])).is_err());
    }

    #[test]
    fn an_old_kernels_short_init_is_understood() {
        let mut init = abi::InitIn {
            major: 7,
            minor: 31,
            max_readahead: 1 << 17,
            flags: abi::init_flags::ASYNC_READ as u32,
            flags2: 1,
            unused: [0; 11],
        };
        let bytes = message(opcode::INIT, &[&init.as_bytes()[..abi::INIT_IN_COMPAT_SIZE]]);
        let expected =
            Init { major: 7, minor: 31, readahead_bytes_max: 1 << 17, flags: abi::init_flags::ASYNC_READ };
        assert_eq!(operation(&bytes), Operation::Init(expected));
        init.flags |= abi::init_flags::INIT_EXT as u32;
        let bytes = message(opcode::INIT, &[init.as_bytes()]);
        let Operation::Init(init) = operation(&bytes) else { panic!("no init") };
        assert_eq!(init.flags, abi::init_flags::ASYNC_READ | abi::init_flags::INIT_EXT | 1 << 32);
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for name in [&b"\0"[..], b"a/b\0", b"no end"] {
            assert!(Request::parse(&message(opcode::LOOKUP, &[name])).is_err(), "{name:?}");
        }
        let endless = vec![b'x'; NAME_SIZE_LIMIT + 2];
        assert!(Request::parse(&message(opcode::UNLINK, &[&endless, b"\0"])).is_err());
    }

    #[test]
    fn an_unknown_opcode_is_a_request_that_can_be_answered() {
        assert_eq!(operation(&message(4711, &[b"whatever"])), Operation::Other { opcode: 4711 });
    }

    #[test]
    fn a_length_that_lies_is_refused_and_extensions_are_cut_off() {
        let mut bytes = message(opcode::LOOKUP, &[b"name\0\0\0\0", b"8 bytes."]);
        bytes[36] = 1; // total_extlen
        assert_eq!(operation(&bytes), Operation::Lookup { name: b"name" });
        bytes[36] = 200;
        assert!(Request::parse(&bytes).is_err());
        bytes.pop();
        assert!(Request::parse(&bytes).is_err());
        assert_eq!(Request::parse(&[1, 2, 3]), Err(MalformedRequest::NoHeader { len: 3 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            opcode in 0u32..64, body in proptest::collection::vec(any::<u8>(), 0..200), extensions in 0u16..4,
        ) {
            let mut bytes = message(opcode, &[&body]);
            bytes[36..38].copy_from_slice(&extensions.to_ne_bytes());
            if let Ok(Request { operation: Operation::BatchForget(forgets), .. }) = Request::parse(&bytes) {
                prop_assert!(forgets.count() * 16 <= body.len());
            }
            let _ = Request::parse(&body);
        }
    }
}
