//! How a directory becomes a mountpoint: by root with mount(2), and by everyone else with `fusermount3`.

use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as SystemErrno;
use rustix::mount::MountFlags;

use super::{KIND, MountError, MountOptions};
use crate::fuse::mount_table;

/// Mounts by mount(2), with a `/dev/fuse` of our own.
pub(super) fn as_root(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device =
        rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
            match errno {
                SystemErrno::NOENT | SystemErrno::NODEV | SystemErrno::NXIO => MountError::DeviceMissing,
                errno => {
                    MountError::Io { doing: "open", path: PathBuf::from("/dev/fuse"), source: errno.into() }
                }
            }
        })?;
    // Reads leave access times alone, and the mount says so.
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    let data = std::ffi::CString::new(data).expect("no zero byte in it");
    let source = mount_table::option_value(&options.fs_name);
    match rustix::mount::mount(source, mountpoint, KIND, flags, Some(data.as_c_str())) {
        Ok(()) => Ok(device),
        Err(SystemErrno::PERM | SystemErrno::ACCESS) => Err(MountError::NotPermitted {
            mountpoint: mountpoint.to_owned(),
            reason: "root has no right to mount here; in a container, start it with `--cap-add SYS_ADMIN`"
                .into(),
        }),
        Err(SystemErrno::NODEV) => Err(MountError::DeviceMissing),
        Err(errno) => {
            Err(MountError::Io { doing: "mount at", path: mountpoint.to_owned(), source: errno.into() })
        }
    }
}

/// Asks `fusermount3`, which passes the descriptor back over a socket.
pub(super) fn by_fusermount(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let io_error = |source| MountError::Io { doing: "mount at", path: mountpoint.to_owned(), source };
    let (ours, theirs) = UnixStream::pair().map_err(io_error)?;
    let mut list = format!(
        "nosuid,nodev,noatime,default_permissions,fsname={},subtype=hypha",
        mount_table::option_value(&options.fs_name)
    );
    if options.read_only {
        list.push_str(",ro");
    }
    if options.allow_other {
        list.push_str(",allow_other");
    }
    // Its end of the socket travels as standard input: no descriptor need be made inheritable for that.
    let child = Command::new("fusermount3")
        .args(["-o", &list, "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountError::FuseMissing),
        Err(error) => return Err(io_error(error)),
    };
    let device = receive_descriptor(&ours);
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // A few lines at most; bounded all the same.
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    let status = child.wait().map_err(io_error)?;
    match device {
        Ok(Some(device)) if status.success() => Ok(device),
        _ if !Path::new("/dev/fuse").exists() => Err(MountError::DeviceMissing),
        Err(error) if status.success() => Err(io_error(error)),
        _ => Err(MountError::NotPermitted {
            mountpoint: mountpoint.to_owned(),
            reason: match said.trim() {
                "" => format!("fusermount3 ended with {status}"),
                said => said.to_owned(),
            },
        }),
    }
}

/// Receives the one descriptor that fusermount3 sends, or `None` if it closes the socket without.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.next().and_then(|mut descriptors| descriptors.next()))
}
