//! Files made of what waits in journals.
//!
//! Names come from a tree that others write, too: nothing is written but below the directory that was given, no file over another,
//! and links are made last, so that no path leads through one. A file of which a part can't be had says so in its name and in
//! words, and has zeros there.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use filesystem::Errno;
use filesystem::operations::{FileKind, Time};
use filesystem::volume::{Left, LeftBehind, LeftPath};

use super::{Place, written_in_words};
use crate::errors::Failure;
use crate::output::{say, warn};

/// So much of a file is read at a time, where all of it is to be had.
const PIECE_BYTES: u64 = 1 << 20;

/// Refuses to write among other things.
///
/// # Errors
/// `Failure::Journal`, or those of the file system.
pub(super) fn refuse_unless_empty(into: &Path) -> Result<(), Failure> {
    match fs::read_dir(into) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::Journal {
                reason: format!("{} is not empty: give a new directory", into.display()),
            }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file(into, error)),
    }
}

/// Writes all that waits into a directory.
///
/// # Errors
/// `Failure::Journal` if something of it could not be had, with all the rest written; those of the file system.
///
/// # Suspends
/// While it is read.
pub(super) fn export(found: &[(Place, LeftBehind)], into: &Path) -> Result<(), Failure> {
    fs::create_dir_all(into).map_err(|error| Failure::file(into, error))?;
    let mut lacking = 0;
    for (place, left) in found {
        let directory = into.join(&place.target);
        let mut writing = Writing {
            left,
            directory: &directory,
            links: Vec::new(),
            directories: Vec::new(),
            problems: Vec::new(),
        };
        writing.all()?;
        say(format_args!(
            "{}: {} written to {}",
            place.name,
            written_in_words(&left.all),
            directory.display()
        ));
        if left.has_attributes() {
            say("  extended attributes are not written out");
        }
        if left.unread > 0 {
            writing
                .problems
                .push(format!("{} parts of this journal cannot be read: it is damaged", left.unread));
        }
        writing.problems.iter().for_each(|problem| warn(format_args!("  {problem}")));
        lacking += writing.problems.len();
    }
    File::open(into)
        .and_then(|directory| Ok(rustix::fs::syncfs(directory)?))
        .map_err(|error| Failure::file(into, error))?;
    match lacking {
        0 => Ok(()),
        count => Err(Failure::Journal {
            reason: format!(
                "{count} of these could not be had as a whole, or not be written; the lines above say which and why"
            ),
        }),
    }
}

struct Writing<'a> {
    left: &'a LeftBehind,
    directory: &'a Path,
    /// Symbolic links, made last.
    links: Vec<(PathBuf, PathBuf)>,
    /// With the modes that they get in the end.
    directories: Vec<(PathBuf, u32)>,
    problems: Vec<String>,
}

impl Writing<'_> {
    fn all(&mut self) -> Result<(), Failure> {
        fs::create_dir_all(self.directory).map_err(|error| Failure::file(self.directory, error))?;
        for one in &self.left.all {
            let written = self.one(one);
            self.go_on(written)?;
        }
        for (path, to) in std::mem::take(&mut self.links) {
            let linked = symlink(&to, &path).or_else(|error| self.is_taken(error, &path));
            self.go_on(linked)?;
        }
        for (path, mode) in self.directories.iter().rev() {
            let permissions = Permissions::from_mode(mode & 0o777 | 0o700);
            fs::set_permissions(path, permissions).map_err(|error| Failure::file(path, error))?;
        }
        Ok(())
    }

    /// What can't be written of one file is said, and the others are; unless the disk is what fails.
    fn go_on(&mut self, written: Result<(), Failure>) -> Result<(), Failure> {
        match written {
            Err(Failure::File { path, source }) if source.raw_os_error() != Some(Errno::EIO.0) => {
                self.problems.push(format!("{}: {source}", path.display()));
                Ok(())
            }
            other => other,
        }
    }

    fn one(&mut self, one: &Left) -> Result<(), Failure> {
        let paths = match one.paths.is_empty() {
            true => {
                let name = format!("unnamed-{:016x}", one.inode.0);
                self.problems.push(format!("{name}: what it was called is not on this machine"));
                vec![self.directory.join(name)]
            }
            false => one.paths.iter().map(|path| self.place_of(path)).collect(),
        };
        let mut first: Option<PathBuf> = None;
        for path in paths {
            if path == self.directory {
                continue;
            }
            if !self.make_above(&path)? {
                continue;
            }
            match (one.kind, &first) {
                (FileKind::Directory, _) => match self.make_directory(&path)? {
                    true => {
                        if one.is_renamed {
                            say(format_args!(
                                "  {}: it was only renamed: what was in it before does not wait, is on the nodes, and is not written out",
                                path.display()
                            ));
                        }
                        self.directories.push((path.clone(), one.mode));
                    }
                    false => continue,
                },
                (FileKind::Symlink, _) => match self.left.read_symlink(one.inode) {
                    Ok(to) => self.links.push((path.clone(), OsStr::from_bytes(&to).into())),
                    Err(errno) => self
                        .problems
                        .push(format!("{}: where it leads is not known: {errno}", path.display())),
                },
                (FileKind::Regular, Some(first)) => {
                    fs::hard_link(first, &path).or_else(|error| self.is_taken(error, &path))?;
                }
                (FileKind::Regular, None) => first = self.file(one, path)?,
                (kind, _) => self
                    .problems
                    .push(format!("{}: it is a {kind:?}, which is not written out", path.display())),
            }
        }
        Ok(())
    }

    /// Where something goes.
    fn place_of(&mut self, path: &LeftPath) -> PathBuf {
        let names: PathBuf = path.names.iter().map(|name| OsStr::from_bytes(name)).collect();
        if path.is_whole {
            return self.directory.join(names);
        }
        self.problems.push(format!("{}: in which directory it was is not on this machine", names.display()));
        self.directory.join("somewhere").join(names)
    }

    /// Makes the directories above `path`; says whether they are there.
    fn make_above(&mut self, path: &Path) -> Result<bool, Failure> {
        let above = path.parent().unwrap_or(self.directory);
        let mut at = self.directory.to_owned();
        for name in above.strip_prefix(self.directory).unwrap_or(Path::new("")) {
            at.push(name);
            if !self.make_directory(&at)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes a directory, if it is not there; says whether it is.
    fn make_directory(&mut self, path: &Path) -> Result<bool, Failure> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let is_one = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
                if !is_one {
                    self.problems
                        .push(format!("{}: something else of that name waits as well", path.display()));
                }
                Ok(is_one)
            }
            Err(error) => Err(Failure::file(path, error)),
        }
    }

    /// That something of a name is there already is told, and no more.
    fn is_taken(&mut self, error: io::Error, path: &Path) -> Result<(), Failure> {
        if error.kind() != ErrorKind::AlreadyExists {
            return Err(Failure::file(path, error));
        }
        self.problems.push(format!("{}: something else of that name waits as well", path.display()));
        Ok(())
    }

    /// Writes a file's content; returns where it is, if it is whole.
    fn file(&mut self, one: &Left, path: PathBuf) -> Result<Option<PathBuf>, Failure> {
        let failed = |error| Failure::file(&path, error);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) => return self.is_taken(error, &path).map(|()| None),
        };
        let written = self.content(one, &file).and_then(|missing| {
            file.set_len(one.size_bytes)?;
            file.set_permissions(Permissions::from_mode(one.mode & 0o777))?;
            file.set_modified(system_time(one.modified))?;
            Ok(missing)
        });
        if one.is_certain && written.as_ref().is_ok_and(Vec::is_empty) {
            return Ok(Some(path));
        }
        let mut name = path.clone().into_os_string();
        name.push(".incomplete");
        let is_free = fs::symlink_metadata(&name).is_err();
        let place = if is_free { PathBuf::from(name) } else { path.clone() };
        if is_free {
            fs::rename(&path, &place).map_err(failed)?;
        }
        // A part of it is there, and called so.
        let missing = written.map_err(failed)?;
        if !one.is_certain {
            self.problems
                .push(format!("{}: what of it was cut off before is not known here", place.display()));
        }
        if missing.is_empty() {
            return Ok(None);
        }
        let ranges =
            missing.iter().map(|range| format!("{} to {}", range.start, range.end - 1)).collect::<Vec<_>>();
        self.problems.push(format!(
            "{}: of {} bytes, bytes {} are missing",
            place.display(),
            one.size_bytes,
            ranges.join(", ")
        ));
        Ok(None)
    }

    /// Writes what is to be had of a file; returns what is not.
    fn content(&self, one: &Left, file: &File) -> io::Result<Vec<Range<u64>>> {
        let mut missing: Vec<Range<u64>> = Vec::new();
        let mut offset = 0;
        // Of a piece that is not there as a whole, the parts that its content is stored in are tried one by one.
        let mut parts_until = 0;
        while offset < one.size_bytes {
            let step = if offset < parts_until { one.frame_size_bytes } else { PIECE_BYTES };
            let size = step.min(one.size_bytes - offset);
            match self.piece(one, offset, size) {
                Ok(bytes) => {
                    // Holes stay holes.
                    if bytes.iter().any(|byte| *byte != 0) {
                        file.write_all_at(&bytes, offset)?;
                    }
                }
                Err(_) if step == PIECE_BYTES && PIECE_BYTES > one.frame_size_bytes => {
                    parts_until = offset + size;
                    continue;
                }
                Err(_) => match missing.last_mut() {
                    Some(last) if last.end == offset => last.end = offset + size,
                    _ => missing.push(offset..offset + size),
                },
            }
            offset += size;
        }
        Ok(missing)
    }

    fn piece(&self, one: &Left, offset: u64, size: u64) -> Result<Vec<u8>, Errno> {
        let bytes = self.left.read(one.inode, offset, size as u32)?.concat();
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(Errno::EIO) }
    }
}

fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole =
        if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    let with_rest = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanoseconds.into())));
    with_rest.unwrap_or(UNIX_EPOCH)
}
