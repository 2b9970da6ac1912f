//! Directories: what is in them, and in all below.

use std::collections::VecDeque;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::backend::Listing;
use super::{DirEntry, FileKind, disk};

/// Directories below the first that a walk descends into. Each takes a descriptor and a batch of entries while it is
/// open; trees made by people and programs are rarely deeper than thirty.
pub const WALK_DEPTH_MAX: usize = 128;

/// What is in a directory, in no order: an iterator that suspends now and then; see [`read_dir`].
pub struct ReadDir {
    listing: Box<dyn Listing>,
    batch: VecDeque<DirEntry>,
    ended: bool,
}

/// Lists a directory, without `.` and `..`. Entries come in batches, so a large directory takes little memory.
///
/// What is added or removed meanwhile may be seen or not. What a call was reading that was broken off comes with the next.
///
/// # Errors
///
/// `NotFound`, `NotADirectory`, `PermissionDenied`. The iterator's own errors are those of the disk; it ends after
/// one.
///
/// # Suspends
///
/// Until it is open; the iterator, each time that it has to fetch more.
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    Ok(ReadDir::new(disk().list(path.as_ref())?))
}

impl ReadDir {
    fn new(listing: Box<dyn Listing>) -> ReadDir {
        ReadDir { listing, batch: VecDeque::new(), ended: false }
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        if self.batch.is_empty() && !self.ended {
            match self.listing.next_batch() {
                Ok(batch) => self.batch = batch.into(),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            self.ended = self.batch.is_empty();
        }
        self.batch.pop_front().map(Ok)
    }
}

/// Something found by a [`Walk`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalkEntry {
    /// Its path: the walk's own, and the names below it.
    pub path: PathBuf,
    /// What it is; a symbolic link is just that, whatever it points to.
    pub kind: FileKind,
    /// How far below the walk's begin: 1 for what lies directly in it.
    pub depth: usize,
}

/// What could not be walked.
#[derive(Debug)]
#[non_exhaustive]
pub struct WalkError {
    /// The directory that could not be read.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

impl Error for WalkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl From<WalkError> for io::Error {
    fn from(error: WalkError) -> io::Error {
        io::Error::new(error.source.kind(), error)
    }
}

/// Everything below a directory, depth first; see [`walk`].
pub struct Walk {
    /// From the first directory to the one being read.
    open: Vec<Level>,
    /// The one that comes first, before it is opened.
    begin: Option<PathBuf>,
    /// A directory to descend into at the next call: its entry has been given out, or will be behind what is in it.
    descend: Option<WalkEntry>,
    contents_first: bool,
}

struct Level {
    path: PathBuf,
    entries: ReadDir,
    /// Given out when all below it was, where that is asked for.
    own_entry: Option<WalkEntry>,
}

/// Walks through everything below `path`, depth first; `path` itself is not given out.
///
/// Symbolic links are given out and never followed, and directories are opened from their parent's descriptor, so the
/// walk cannot be led out of the tree, not by a change under way either, nor go in circles. It takes memory for the
/// depth of the tree, not for its size. A directory that cannot be read gives an error, and the walk goes on behind
/// it; so does one that lies more than [`WALK_DEPTH_MAX`] deep.
///
/// A call that was broken off, by a timeout's end say, skips nothing: the next one goes on where it was.
///
/// # Suspends
///
/// The iterator does, each time that it has to fetch more.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let root = dir.path().to_owned();
/// reactor::run(|| {
///     reactor::fs::create_dir_all(root.join("a/b")).unwrap();
///     reactor::fs::write(root.join("a/b/file"), b"content").unwrap();
///     let found: Vec<_> = reactor::fs::walk(&root).map(|entry| entry.unwrap().path).collect();
///     assert_eq!(found, [root.join("a"), root.join("a/b"), root.join("a/b/file")]);
/// });
/// ```
pub fn walk(path: impl Into<PathBuf>) -> Walk {
    Walk { open: Vec::new(), begin: Some(path.into()), descend: None, contents_first: false }
}

impl Walk {
    /// Gives out a directory after what is in it, instead of before: for removing.
    pub fn contents_first(mut self, yes: bool) -> Walk {
        self.contents_first = yes;
        self
    }

    /// Leaves out what is in the directory that was given out last; nothing happens if it was no directory. Never
    /// suspends.
    pub fn skip_contents(&mut self) {
        // Else one that was not given out is there only if it could not be entered yet.
        if !self.contents_first {
            self.descend = None;
        }
    }

    /// Opens the first directory, if that is still to be done. Broken off, it is as if it had not been called.
    fn begin(&mut self) -> Result<(), WalkError> {
        let Some(path) = &self.begin else { return Ok(()) };
        let entries = read_dir(path);
        let Some(path) = self.begin.take() else { return Ok(()) };
        match entries {
            Ok(entries) => self.open.push(Level { path, entries, own_entry: None }),
            Err(source) => return Err(WalkError { path, source }),
        }
        Ok(())
    }

    /// Opens the directory that is to be descended into, if there is one. Broken off, it is as if it had not been called.
    fn descend(&mut self) -> Result<(), WalkError> {
        let Some(entry) = &self.descend else { return Ok(()) };
        let parent = self.open.last_mut().expect("a directory is entered from its parent");
        let listing = if entry.depth >= WALK_DEPTH_MAX {
            let message = format!("directories nest more than {WALK_DEPTH_MAX} deep");
            Err(io::Error::new(ErrorKind::QuotaExceeded, message))
        } else {
            let name: OsString = entry.path.file_name().expect("made from a name").to_owned();
            parent.entries.listing.open_child(&name)
        };
        let Some(entry) = self.descend.take() else { return Ok(()) };
        match listing {
            Ok(listing) => {
                let own_entry = self.contents_first.then(|| entry.clone());
                self.open.push(Level { path: entry.path, entries: ReadDir::new(listing), own_entry });
                Ok(())
            }
            Err(source) => Err(WalkError { path: entry.path, source }),
        }
    }

    fn step(&mut self) -> Result<Option<WalkEntry>, WalkError> {
        self.begin()?;
        loop {
            self.descend()?;
            let depth = self.open.len();
            let Some(level) = self.open.last_mut() else { return Ok(None) };
            match level.entries.next() {
                Some(Ok(DirEntry { name, kind })) => {
                    let entry = WalkEntry { path: level.path.join(name), kind, depth };
                    if kind == FileKind::Directory {
                        self.descend = Some(entry.clone());
                    }
                    if kind != FileKind::Directory || !self.contents_first {
                        return Ok(Some(entry));
                    }
                }
                Some(Err(source)) => return Err(WalkError { path: level.path.clone(), source }),
                None => {
                    if let Some(Level { own_entry: Some(entry), .. }) = self.open.pop() {
                        return Ok(Some(entry));
                    }
                }
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Result<WalkEntry, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
