//! `put` and `get`: single values by name, for those without FUSE.
//!
//! A value is a file of the drive, so that it can be put here and read there through a mount, and one format, one set
//! of keys and one garbage is kept. A put writes a file without a name, which takes the name's place when the nodes hold
//! all of it: whoever gets the name sees the old value or the new one, whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use filesystem::operations::{
    Credentials, FileKind, Inode, Operations, RenameFlags, SetAttributes, XattrMode,
};
use filesystem::{Attributes, Errno};
use indicatif::ProgressBar;
use reactor::crypto::random_bytes;
use tempfile::NamedTempFile;

use crate::at;
use crate::cli::{Get, Put};
use crate::errand::{Need, with_place};
use crate::errors::Failure;
use crate::files;
use crate::name::Name;
use crate::output;
use crate::progress;

/// 1 MiB: what the kernel's largest FUSE request carries, so what the volume is made for.
const PIECE_SIZE_BYTES: usize = 1 << 20;

/// Runs `put`.
///
/// # Errors
/// `Failure::Name` or what keeps the value from being stored.
pub(crate) fn put(options: &Put) -> Result<(), Failure> {
    let name = Name::of(&options.name, &options.client)?;
    let (input, size) = source(options.file.as_deref())?;
    let size = with_place(&options.client, &name, Need::Write, |volume, name| {
        let bar = progress::bytes("putting", size);
        let stored = write_value(volume, name, input, &bar);
        bar.finish_and_clear();
        stored
    })?;
    output::warn(format_args!("{} is stored ({})", name.shown(), progress::human_bytes(size)));
    Ok(())
}

/// Runs `get`.
///
/// # Errors
/// `Failure::NoValue` or what keeps the value from being read.
pub(crate) fn get(options: &Get) -> Result<(), Failure> {
    let name = Name::of(&options.name, &options.client)?;
    let sink = Sink::open(options.file.as_deref())?;
    with_place(&options.client, &name, Need::Read, |volume, name| {
        let past = options.at.as_deref().map(|at| at::view(volume, at)).transpose()?;
        let volume = past.as_deref().unwrap_or(volume);
        let attributes = find(volume, name)?;
        let bar = progress::bytes("getting", Some(attributes.size));
        let sink = read_value(volume, name, &attributes, sink, &bar);
        bar.finish_and_clear();
        reactor::offload(|| sink?.finish())
    })
}

/// What `errno` says of `name`.
fn failure(name: &Name, errno: Errno) -> Failure {
    match errno {
        Errno::ENOENT => name.is_missing(),
        Errno::ENOSPC => Failure::DiskFull { place: "the nodes cannot take more".into() },
        Errno::EISDIR => name.is_no_file(
            "it is a directory: `put` writes one file, and no file takes the place of a directory",
        ),
        other => Failure::Value { name: name.whole(), reason: other.to_string() },
    }
}

fn find(volume: &dyn Operations, name: &Name) -> Result<Attributes, Failure> {
    let failed = |errno| failure(name, errno);
    let mut parent = Inode::ROOT;
    for directory in name.directories() {
        parent = volume.lookup(parent, directory).map_err(failed)?.inode;
    }
    let attributes = volume.lookup(parent, name.last()).map_err(failed)?;
    match attributes.kind {
        FileKind::Regular => Ok(attributes),
        FileKind::Directory => Err(name
            .is_no_file("it is a directory: `get` takes one file; `restore` and a mounted drive take all")),
        _ => Err(name.is_no_file("it is no file with content")),
    }
}

/// Stores what `input` gives, and returns its size.
fn write_value(
    volume: &dyn Operations,
    name: &Name,
    input: impl Read + Send + 'static,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let failed = |errno| failure(name, errno);
    let credentials = credentials();
    let mut parent = Inode::ROOT;
    for directory in name.directories() {
        parent = match volume.lookup(parent, directory) {
            Err(Errno::ENOENT) => volume.make_directory(parent, directory, 0o777, &credentials),
            other => other,
        }
        .map_err(failed)?
        .inode;
    }
    // Without a name until it is whole: what a killed `put` leaves is an orphan, which the mounts reclaim.
    let file = volume.make_unnamed(parent, 0o666, &credentials).map_err(failed)?.inode;
    volume.remember(file);
    let written = (|| {
        let size = copy_in(volume, name, file, input, bar)?;
        keep_attributes(volume, parent, name, file).map_err(failed)?;
        volume.sync(Some(file), false).map_err(failed)?;
        take_name(volume, parent, name, file).map_err(failed)?;
        volume.sync(None, false).map_err(failed)?;
        Ok(size)
    })();
    volume.forget(file, 1);
    written
}

/// Gives a new value what its predecessor had besides content: mode, owner, and extended attributes.
fn keep_attributes(volume: &dyn Operations, parent: Inode, name: &Name, file: Inode) -> Result<(), Errno> {
    let before = match volume.lookup(parent, name.last()) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    match before.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR),
        // A link, a pipe or a device is replaced as `cp --remove-destination` does.
        _ => return Ok(()),
    }
    for attribute in volume.list_xattr(before.inode)? {
        let value = volume.get_xattr(before.inode, &attribute)?;
        volume.set_xattr(file, &attribute, &value, XattrMode::Set)?;
    }
    let changes = SetAttributes {
        mode: Some(before.mode & 0o7777),
        uid: Some(before.uid),
        gid: Some(before.gid),
        ..SetAttributes::default()
    };
    volume.set_attributes(file, &changes).map(drop)
}

/// Has the name mean `file` from now on, in one step.
fn take_name(volume: &dyn Operations, parent: Inode, name: &Name, file: Inode) -> Result<(), Errno> {
    match volume.link(file, parent, name.last()) {
        Err(Errno::EEXIST) => {}
        other => return other.map(drop),
    }
    // Only a rename replaces; both are in one commit.
    let temporary = format!(".put-{}", data_encoding::HEXLOWER.encode(&random_bytes::<8>()));
    volume.link(file, parent, temporary.as_bytes())?;
    let renamed = volume.rename(parent, temporary.as_bytes(), parent, name.last(), RenameFlags::default());
    if renamed.is_err() {
        let _ = volume.unlink(parent, temporary.as_bytes());
    }
    renamed
}

fn copy_in(
    volume: &dyn Operations,
    name: &Name,
    file: Inode,
    mut input: impl Read + Send + 'static,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let mut offset = 0;
    let mut buffer = Vec::new();
    loop {
        // Reading may block, on a pipe for ever: not on the reactor's thread.
        let piece;
        (input, piece) = reactor::offload(move || {
            buffer.clear();
            let read = (&mut input).take(PIECE_SIZE_BYTES as u64).read_to_end(&mut buffer);
            (input, read.map(|_| buffer))
        });
        let piece = piece.map_err(|source| Failure::Stream { what: "reading the value", source })?;
        if piece.is_empty() {
            return Ok(offset);
        }
        volume.write(file, offset, &piece, false).map_err(|errno| failure(name, errno))?;
        offset += piece.len() as u64;
        bar.inc(piece.len() as u64);
        buffer = piece;
    }
}

fn read_value(
    volume: &dyn Operations,
    name: &Name,
    attributes: &Attributes,
    mut sink: Sink,
    bar: &ProgressBar,
) -> Result<Sink, Failure> {
    let mut offset = 0;
    while offset < attributes.size {
        let pieces = volume
            .read(attributes.inode, offset, PIECE_SIZE_BYTES as u32)
            .map_err(|errno| failure(name, errno))?;
        let count: usize = pieces.iter().map(|piece| piece.len()).sum();
        if count == 0 {
            break; // it has been cut meanwhile
        }
        sink = reactor::offload(move || {
            for piece in &pieces {
                sink.write_all(piece)?;
            }
            Ok(sink)
        })
        .map_err(unwritten)?;
        offset += count as u64;
        bar.inc(count as u64);
    }
    Ok(sink)
}

fn unwritten(source: io::Error) -> Failure {
    match source.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Stream { what: "writing the value", source },
    }
}

/// Where a value goes: standard output, or a file that appears only once it is whole.
enum Sink {
    Output(io::Stdout),
    /// A device, a pipe or a socket's like: written to, never replaced.
    Special(File),
    /// Takes the name's place once it is whole.
    File {
        file: NamedTempFile,
        path: PathBuf,
    },
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Sink, Failure> {
        let Some(path) = path else { return Ok(Sink::Output(io::stdout())) };
        // What a link means is replaced, and not the link.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.into());
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            let file = OpenOptions::new().write(true).open(path);
            return file.map(Sink::Special).map_err(|error| Failure::file(path, error));
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // A name that nobody could foresee: in a directory such as /tmp, a link may be waiting under any other.
        let file = tempfile::Builder::new()
            .prefix(".get-")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(|error| Failure::file(path, error))?;
        Ok(Sink::File { file, path: path.into() })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Output(output) => output.write_all(bytes),
            Sink::Special(file) => file.write_all(bytes),
            Sink::File { file, .. } => file.write_all(bytes),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Sink::Output(mut output) => output.flush().map_err(unwritten),
            Sink::Special(_) => Ok(()),
            Sink::File { file, path } => file
                .as_file()
                .sync_all()
                .and_then(|()| file.persist(&path).map(drop).map_err(|failed| failed.error))
                .map_err(|error| Failure::file(&path, error)),
        }
    }
}

fn source(file: Option<&Path>) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    let Some(path) = file else { return Ok((Box::new(io::stdin()), None)) };
    let file = File::open(path).map_err(|error| Failure::file(path, error))?;
    let metadata = file.metadata().map_err(|error| Failure::file(path, error))?;
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

fn credentials() -> Credentials {
    Credentials {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        umask: files::umask(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        let mut sink = Sink::open(Some(&path)).unwrap();
        sink.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(sink);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut sink = Sink::open(Some(&path)).unwrap();
        sink.write_all(b"whole").unwrap();
        sink.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_is_written_to_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("value"), directory.path().join("link"));
        std::fs::write(&path, "before").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut sink = Sink::open(Some(&link)).unwrap();
        sink.write_all(b"after").unwrap();
        sink.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"after");
        // A link to a device, so that a failure of this test harms no device.
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert!(matches!(Sink::open(Some(&link)).unwrap(), Sink::Special(_)));
        assert!(Sink::open(Some(directory.path())).is_err(), "a directory");
    }
}
