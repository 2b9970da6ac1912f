//! A node's log: appended to over all its lives, and never larger than two files of a stated size.
//!
//! Why a node died is in what it said before; a log that is emptied when it is started again has just that no more.
//! The process that writes a log also turns it over, for `up`, which opened it, would have to be asked. Standard error
//! itself is led to the new file, so that what the runtime says in its last moment is in it too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// 1 MiB: ten thousand lines, which is weeks of a healthy node; and as much again of what was before.
const LOG_SIZE_BYTES_MAX: u64 = 1 << 20;

/// Opens the log at `path` for appending, made if missing, turned over if it is full.
///
/// # Errors
/// Those of the file system.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() >= LOG_SIZE_BYTES_MAX) {
        fs::rename(path, older(path))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// How much a log holds by now.
pub(crate) fn length_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The last lines of a log that were written after it was `from` bytes long.
pub(crate) fn end(path: &Path, from: u64) -> Option<String> {
    const END_SIZE_BYTES: u64 = 2000;
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // Shorter than it was: turned over meanwhile.
    let from = if from > length { 0 } else { from };
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(END_SIZE_BYTES)))).ok()?;
    let mut text = Vec::new();
    file.take(END_SIZE_BYTES).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn older(path: &Path) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    older.into()
}

/// A log that is this process's standard error, and how much more of it there may be.
pub(crate) struct Bounded {
    path: PathBuf,
    room_bytes: u64,
}

impl Bounded {
    /// The log at `path`, if that is what standard error is.
    pub(crate) fn standard_error(path: PathBuf) -> Option<Bounded> {
        let named = fs::metadata(&path).ok()?;
        let ours = rustix::fs::fstat(rustix::stdio::stderr()).ok()?;
        let is_it = (named.dev(), named.ino()) == (ours.st_dev, ours.st_ino);
        is_it.then(|| Bounded { path, room_bytes: LOG_SIZE_BYTES_MAX.saturating_sub(named.len()) })
    }

    /// Makes room for `count` more bytes; `false` if there can be none, and they should be dropped.
    pub(crate) fn has_room(&mut self, count: usize) -> bool {
        let count = count as u64;
        if count > self.room_bytes {
            if self.turn_over().is_err() {
                return false;
            }
            self.room_bytes = LOG_SIZE_BYTES_MAX;
        }
        self.room_bytes = self.room_bytes.saturating_sub(count);
        true
    }

    fn turn_over(&self) -> io::Result<()> {
        fs::rename(&self.path, older(&self.path))?;
        let file = open(&self.path)?;
        Ok(rustix::stdio::dup2_stderr(file)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_full_log_is_kept_beside_the_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        open(&path).unwrap().write_all(b"first life\n").unwrap();
        open(&path).unwrap().write_all(b"second life\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first life\nsecond life\n");
        File::create(&path).unwrap().set_len(LOG_SIZE_BYTES_MAX).unwrap();
        open(&path).unwrap().write_all(b"third life\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third life\n");
        assert_eq!(length_bytes(&older(&path)), LOG_SIZE_BYTES_MAX);
    }

    #[test]
    fn the_end_of_a_log_is_of_this_life_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        open(&path).unwrap().write_all(b"first life\n").unwrap();
        let from = length_bytes(&path);
        assert_eq!(end(&path, from), None);
        open(&path).unwrap().write_all(b"second life\n").unwrap();
        assert_eq!(end(&path, from).as_deref(), Some("second life"));
        assert_eq!(end(&path, 1000).as_deref(), Some("first life\nsecond life"));
        open(&path).unwrap().write_all(&[b'x'; 5000]).unwrap();
        assert_eq!(end(&path, from).unwrap().len(), 2000);
    }
}
