//! `/proc/self/mountinfo`: what is mounted where, told without touching any of the file systems.
//!
//! That matters: a `stat` of a mountpoint asks the file system behind it, which may be dead, or may be this very
//! process, whose only thread would then wait for itself.
//!
//! # Source
//!
//! proc_pid_mountinfo(5).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The device number, `major:minor`, as `/sys/class/bdi` names it.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The type, such as `fuse.hypha`.
    pub kind: String,
    /// What was given as its source.
    pub source: OsString,
    /// Who mounted it, where FUSE tells.
    pub user: Option<u32>,
}

/// Returns the mount that is visible at exactly `mountpoint` (absolute, without symlinks), if there is one.
///
/// # Errors
///
/// If `/proc` is not mounted.
pub fn find(mountpoint: &Path) -> io::Result<Option<MountEntry>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(find_in(&table, mountpoint))
}

/// Returns the mount in which `path` (absolute, without symlinks) lies, if `/proc` knows one.
///
/// # Errors
///
/// If `/proc` is not mounted.
pub fn covering(path: &Path) -> io::Result<Option<MountEntry>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(path.ancestors().find_map(|mountpoint| find_in(&table, mountpoint)))
}

/// Returns how many mounts of a type lie on each other at `mountpoint` (absolute, without symlinks).
///
/// # Errors
///
/// If `/proc` is not mounted.
pub fn count(mountpoint: &Path, kind: &str) -> io::Result<usize> {
    let table = fs::read("/proc/self/mountinfo")?;
    let entries = table.split(|&byte| byte == b'\n').filter_map(parse);
    Ok(entries.filter(|entry| entry.mountpoint == mountpoint && entry.kind == kind).count())
}

/// Returns where the process `/proc/N` sees the file system with this device number; `None` if nowhere, or if we may not
/// know. The path is for that process.
pub fn place_in(process: &Path, device: &str) -> Option<PathBuf> {
    let table = fs::read(process.join("mountinfo")).ok()?;
    let mut lines = table.split(|&byte| byte == b'\n').filter_map(parse);
    lines.find(|entry| entry.device == device).map(|entry| entry.mountpoint)
}

/// Later mounts cover earlier ones.
fn find_in(table: &[u8], mountpoint: &Path) -> Option<MountEntry> {
    table.split(|&byte| byte == b'\n').rev().filter_map(parse).find(|entry| entry.mountpoint == mountpoint)
}

/// Parses one line: `36 35 98:0 /root /mountpoint options [optional fields] - type source options`.
fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let mountpoint = PathBuf::from(unescape(fields.nth(1)?));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8(rest.next()?.to_vec()).ok()?;
    let source = unescape(rest.next()?);
    let options = rest.next().unwrap_or_default();
    let user = options.split(|&byte| byte == b',').find_map(|option| option.strip_prefix(b"user_id="));
    let user = user.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Some(MountEntry { device, mountpoint, kind, source, user })
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

/// Returns `path` without symlinks, touching its last component only where `touch_last` allows it.
///
/// # Errors
///
/// If a directory on the way can't be read.
pub fn absolute(path: &Path, touch_last: bool) -> io::Result<PathBuf> {
    if touch_last {
        return fs::canonicalize(path);
    }
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => Ok(path),
    }
}

/// Returns a name that may stand in a mount option, where commas and backslashes mean something.
pub(crate) fn option_value(value: &str) -> String {
    let allowed = |c: char| !c.is_control() && c != ',' && c != '\\' && c != ' ';
    OsStr::from_bytes(value.as_bytes())
        .to_string_lossy()
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw - ext4 /dev/root rw\n\
        40 22 0:35 / /mnt/a\\040drive rw,nosuid shared:5 master:1 - fuse.hypha my\\054volume rw,user_id=0\n\
        41 40 0:36 / /mnt/a\\040drive rw - tmpfs none rw\n";

    #[test]
    fn the_last_mount_at_a_place_is_the_visible_one() {
        let entry = find_in(TABLE, Path::new("/mnt/a drive")).unwrap();
        assert_eq!((entry.kind.as_str(), entry.device.as_str()), ("tmpfs", "0:36"));
        let below = &TABLE[..TABLE.len() - 45];
        let entry = find_in(below, Path::new("/mnt/a drive")).unwrap();
        assert_eq!((entry.kind.as_str(), entry.source.to_str()), ("fuse.hypha", Some("my,volume")));
        assert_eq!(entry.user, Some(0));
        assert_eq!(find_in(TABLE, Path::new("/mnt")), None);
    }

    #[test]
    fn lines_that_make_no_sense_are_skipped() {
        assert_eq!(find_in(b"\n1 2\n1 2 3 4 5 6 7\n\xff\xff", Path::new("/")), None);
        assert_eq!(unescape(b"\\9\\04"), "\\9\\04");
    }

    #[test]
    fn a_volume_name_cannot_smuggle_in_a_mount_option() {
        assert_eq!(option_value("mine,allow_other dev\\"), "mine_allow_other_dev_");
    }

    #[test]
    fn the_root_is_always_mounted() {
        assert!(find(Path::new("/")).unwrap().is_some());
    }
}
