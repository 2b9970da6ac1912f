//! Small files that must never be half written: keys, passports, settings.
//!
//! Each is JSON in an envelope that names its kind and version, so that a wrong file or a newer program's file is
//! told apart from a damaged one. A write goes to a temporary file beside the target, is flushed, and is renamed
//! over it: a crash leaves the old file or the new one. Not for content: that lives in the nodes' stores.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::errors::Failure;

/// 4 MiB: what an owner's home knows of 64 spaces with 64 people each takes a third of it, a network of a thousand nodes a twentieth; and
/// a stray huge file must not fill the memory. Nothing larger is written, which could not be read again.
const FILE_SIZE_BYTES_MAX: u64 = 4 << 20;

/// A kind of settings file, with the version of its layout.
pub(crate) trait Kind: Serialize + DeserializeOwned {
    /// What stands in the file's `kind` field.
    const KIND: &'static str;
    /// Raised when an older program could misread the file.
    const VERSION: u32;
    /// Whether only its user may read it: one that others can read is refused.
    const SECRET: bool;
    /// Whether it is written so that only its user reads it.
    const PRIVATE: bool = Self::SECRET;
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    kind: &'static str,
    version: u32,
    #[serde(flatten)]
    content: &'a T,
}

#[derive(Deserialize)]
struct Envelope {
    kind: String,
    version: u32,
}

/// Writes `content` to `path`, atomically and durably.
///
/// # Errors
/// What the file system answered, with the path; or that it is more than [`load`] reads: what was there stays.
pub(crate) fn save<T: Kind>(path: &Path, content: &T) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(&Outgoing { kind: T::KIND, version: T::VERSION, content })
        .map_err(|error| Failure::damaged(path, error))?;
    text.push(b'\n');
    if text.len() as u64 > FILE_SIZE_BYTES_MAX {
        let error = io::Error::new(
            io::ErrorKind::FileTooLarge,
            "there is too much to remember in it, and it stays as it was: remove spaces, groups or members that are no more",
        );
        return Err(Failure::file(path, error));
    }
    write_atomically(path, &text, if T::PRIVATE { 0o600 } else { 0o644 })
        .map_err(|error| Failure::file(path, error))
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// `Failure::File` if it can't be read (`NotFound` included), `Failure::Damaged` if it is no such file,
/// `Failure::Newer` if a later program wrote it.
pub(crate) fn load<T: Kind>(path: &Path) -> Result<T, Failure> {
    let text = read_bounded(path)?;
    let envelope: Envelope = serde_json::from_slice(&text).map_err(|error| Failure::damaged(path, error))?;
    if envelope.kind != T::KIND {
        let found = envelope.kind.chars().take(40).collect::<String>();
        return Err(Failure::damaged(path, format!("it is a {found:?} file, not a {:?} file", T::KIND)));
    }
    if envelope.version > T::VERSION {
        return Err(Failure::Newer { path: path.into(), found: envelope.version, known: T::VERSION });
    }
    if T::SECRET {
        refuse_if_others_can_read(path)?;
    }
    serde_json::from_slice(&text).map_err(|error| Failure::damaged(path, error))
}

/// All bytes of a small file.
///
/// # Errors
/// `Failure::File`, or `Failure::Damaged` if it is no small one.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_SIZE_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(|error| Failure::file(path, error))?;
    if text.len() as u64 > FILE_SIZE_BYTES_MAX {
        return Err(Failure::damaged(path, "it is far larger than such a file can be"));
    }
    Ok(text)
}

/// As `ssh` does: a key that others can read is no longer a secret, and the user should know.
fn refuse_if_others_can_read(path: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(path).map_err(|error| Failure::file(path, error))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::KeyReadable { path: path.into(), mode: mode & 0o777 });
    }
    Ok(())
}

/// Replaces `path` by a file of these bytes and this mode, in one step.
///
/// # Errors
/// Those of the file system; the old file is then untouched.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = Path::new(&temporary);
    // A leftover of a crash with our process id may have any mode: begin afresh.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written
}

/// Makes a directory, and its parents, that only this user can enter; or makes sure that the one that is there
/// already is this user's, and that nobody else can put anything into it.
///
/// # Errors
/// `Failure::Untrusted` if somebody else has a hand in it, or those of the file system, with the path.
pub(crate) fn private_directory(path: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::file(path, error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let metadata = fs::metadata(path).map_err(failed)?;
    refuse_if_anothers(path, &metadata)?;
    let mode = metadata.permissions().mode() & 0o7777;
    // To read its names is no harm: what is secret in it has a mode of its own.
    if mode & 0o022 != 0 {
        let reason = format!("others may write to it (mode {mode:o})");
        return Err(Failure::Untrusted { path: path.into(), reason });
    }
    Ok(())
}

/// Opens a file of this user's for reading and writing, made if missing. Where somebody else could have been first,
/// a link to one of the user's other files must not be followed.
///
/// # Errors
/// `Failure::Untrusted` if it is a link, another user's, or no file; or those of the file system, with the path.
pub(crate) fn open_own(path: &Path) -> Result<File, Failure> {
    let untrusted = |reason: &str| Failure::Untrusted { path: path.into(), reason: reason.into() };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path);
    let file = match opened {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            return Err(untrusted("it is a symbolic link"));
        }
        other => other.map_err(|error| Failure::file(path, error))?,
    };
    let metadata = file.metadata().map_err(|error| Failure::file(path, error))?;
    refuse_if_anothers(path, &metadata)?;
    if !metadata.is_file() {
        return Err(untrusted("it is not an ordinary file"));
    }
    Ok(file)
}

fn refuse_if_anothers(path: &Path, metadata: &fs::Metadata) -> Result<(), Failure> {
    if metadata.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(Failure::Untrusted { path: path.into(), reason: format!("it belongs to user {}", metadata.uid()) })
}

/// This process's umask, which the kernel only tells by changing it or in `/proc`.
pub(crate) fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // 022 is what nearly every system starts with.
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        count: u32,
    }

    impl Kind for Sample {
        const KIND: &'static str = "sample";
        const VERSION: u32 = 2;
        const SECRET: bool = true;
    }

    #[test]
    fn a_saved_file_loads_again_and_only_its_owner_can_read_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sample.json");
        save(&path, &Sample { count: 7 }).unwrap();
        save(&path, &Sample { count: 8 }).unwrap();
        assert_eq!(load::<Sample>(&path).unwrap(), Sample { count: 8 });
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "a temporary file stayed behind");
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Long {
            text: String,
        }
        impl Kind for Long {
            const KIND: &'static str = "long";
            const VERSION: u32 = 1;
            const SECRET: bool = false;
        }
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("long.json");
        let of = |bytes: u64| Long { text: "x".repeat(bytes as usize) };
        save(&path, &of(FILE_SIZE_BYTES_MAX - 200)).unwrap();
        assert!(matches!(save(&path, &of(FILE_SIZE_BYTES_MAX)), Err(Failure::File { .. })));
        assert_eq!(load::<Long>(&path).unwrap(), of(FILE_SIZE_BYTES_MAX - 200));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sample.json");
        save(&path, &Sample { count: 7 }).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load::<Sample>(&path), Err(Failure::KeyReadable { mode: 0o644, .. })));
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_trusted() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        private_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        private_directory(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        private_directory(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(private_directory(&path), Err(Failure::Untrusted { .. })));
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(matches!(private_directory(&path), Err(Failure::Untrusted { .. })));
        }
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (victim, link) = (directory.path().join("victim"), directory.path().join("lock"));
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(matches!(open_own(&link), Err(Failure::Untrusted { .. })));
        assert!(!victim.exists(), "what the link points at was made");
        open_own(&victim).unwrap();
    }

    #[test]
    fn a_newer_a_foreign_and_a_damaged_file_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sample.json");
        let write = |text: &str| write_atomically(&path, text.as_bytes(), 0o600).unwrap();
        write(r#"{"kind":"sample","version":3,"count":1}"#);
        assert!(matches!(load::<Sample>(&path), Err(Failure::Newer { found: 3, known: 2, .. })));
        write(r#"{"kind":"other","version":2,"count":1}"#);
        assert!(matches!(load::<Sample>(&path), Err(Failure::Damaged { .. })));
        write(r#"{"kind":"sample","version":2,"cou"#);
        assert!(matches!(load::<Sample>(&path), Err(Failure::Damaged { .. })));
        write(&" ".repeat(2 << 20));
        assert!(matches!(load::<Sample>(&path), Err(Failure::Damaged { .. })));
    }
}
