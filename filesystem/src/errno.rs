//! The error numbers that file operations answer with.
//!
//! The kernel's callers understand numbers and nothing else, so the finer errors of the layers below (a quorum that
//! cannot be reached, a block that does not verify) end here, each mapped in one place and logged where it is mapped.
//! This is no general error type: what opens or creates a volume returns `OpenError`.

use std::fmt;

/// A Linux error number, as `errno` holds it: always positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno($number);)*

            /// Returns the symbol, such as `ENOENT`, if it is one this crate uses.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($number => Some(stringify!($name)),)* _ => None }
            }

            fn text(self) -> &'static str {
                match self.0 { $($number => $text,)* _ => "error" }
            }
        }

        #[cfg(test)]
        const ALL: &[(Errno, rustix::io::Errno)] = &[$((Errno::$name, tests::rustix_number(stringify!($name))),)*];
    };
}

numbers! {
    /// The operation is not permitted.
    EPERM = 1, "operation not permitted";
    /// No such name, or the inode is gone.
    ENOENT = 2, "no such file or directory";
    /// The waiting call was interrupted.
    EINTR = 4, "interrupted";
    /// The store failed, or what it holds does not verify.
    EIO = 5, "input/output error";
    /// No data or hole at or after the offset.
    ENXIO = 6, "no such data";
    /// Try again.
    EAGAIN = 11, "try again";
    /// Permission denied.
    EACCES = 13, "permission denied";
    /// Busy.
    EBUSY = 16, "busy";
    /// The name is taken.
    EEXIST = 17, "file exists";
    /// A link across two volumes.
    EXDEV = 18, "cross-volume link";
    /// Not a directory.
    ENOTDIR = 20, "not a directory";
    /// Is a directory.
    EISDIR = 21, "is a directory";
    /// An argument makes no sense.
    EINVAL = 22, "invalid argument";
    /// Too many are open already.
    ENFILE = 23, "too many spaces";
    /// Past the greatest file size.
    EFBIG = 27, "file too large";
    /// The store is full.
    ENOSPC = 28, "no space left";
    /// The volume is mounted for reading only.
    EROFS = 30, "read-only volume";
    /// Too many hard links.
    EMLINK = 31, "too many links";
    /// A result does not fit the buffer.
    ERANGE = 34, "result too large";
    /// A name of more than 255 bytes, or a symlink's target of more than 4,095.
    ENAMETOOLONG = 36, "name too long";
    /// Not implemented.
    ENOSYS = 38, "not implemented";
    /// The directory is not empty.
    ENOTEMPTY = 39, "directory not empty";
    /// No such extended attribute.
    ENODATA = 61, "no such attribute";
    /// Extended attribute or its list too large.
    E2BIG = 7, "too large";
    /// Not supported here.
    EOPNOTSUPP = 95, "not supported";
    /// What the name led to is another file now.
    ESTALE = 116, "stale file handle";
    /// This user is no member any more, of the network or of a space: nothing of it will be stored.
    EKEYREVOKED = 128, "nothing is taken from this user any more";
    /// It is not on this machine, and no node that could have it can be reached.
    EHOSTUNREACH = 113, "not on this machine, and no node can be reached";
    /// The store did not answer for long; nothing is lost by it.
    ETIMEDOUT = 110, "timed out";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.text()),
            None => write!(f, "error number {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const fn rustix_number(name: &str) -> rustix::io::Errno {
        use rustix::io::Errno as E;
        match name.as_bytes() {
            b"EPERM" => E::PERM,
            b"ENOENT" => E::NOENT,
            b"EINTR" => E::INTR,
            b"EIO" => E::IO,
            b"ENXIO" => E::NXIO,
            b"EAGAIN" => E::AGAIN,
            b"EACCES" => E::ACCESS,
            b"EBUSY" => E::BUSY,
            b"EEXIST" => E::EXIST,
            b"EXDEV" => E::XDEV,
            b"ENOTDIR" => E::NOTDIR,
            b"EISDIR" => E::ISDIR,
            b"EINVAL" => E::INVAL,
            b"ENFILE" => E::NFILE,
            b"EFBIG" => E::FBIG,
            b"ENOSPC" => E::NOSPC,
            b"EROFS" => E::ROFS,
            b"EMLINK" => E::MLINK,
            b"ERANGE" => E::RANGE,
            b"ENAMETOOLONG" => E::NAMETOOLONG,
            b"ENOSYS" => E::NOSYS,
            b"ENOTEMPTY" => E::NOTEMPTY,
            b"ENODATA" => E::NODATA,
            b"E2BIG" => E::TOOBIG,
            b"EOPNOTSUPP" => E::OPNOTSUPP,
            b"ESTALE" => E::STALE,
            b"EKEYREVOKED" => E::KEYREVOKED,
            b"EHOSTUNREACH" => E::HOSTUNREACH,
            b"ETIMEDOUT" => E::TIMEDOUT,
            _ => panic!("a number without a check"),
        }
    }

    #[test]
    fn the_numbers_are_the_kernels() {
        for (ours, kernels) in ALL {
            assert_eq!(ours.0, kernels.raw_os_error(), "{ours:?}");
        }
    }

    #[test]
    fn a_number_prints_its_symbol() {
        assert_eq!(Errno::ENOENT.to_string(), "no such file or directory (ENOENT)");
        assert_eq!(Errno(4000).to_string(), "error number 4000");
    }
}
