//! A path within the drive, as people say it.
//!
//! The short way is the path within the drive, from wherever one stands. What a shell completes is the path through the
//! place where the drive is mounted: that is taken as well, where the table of mounts says that it is this drive. Nothing
//! is asked of the drive itself, which may be away.

use std::env;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use filesystem::fuse::mount_table::{self, MountEntry};

use crate::cli::ClientOptions;
use crate::client;
use crate::errors::Failure;
use crate::mountpoint;
use crate::network::Network;

/// A path within the drive that is not the drive itself, or one within a space that is not the space itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    text: String,
    /// What leads to the space that it is within, with a slash at its end.
    above: String,
}

impl Name {
    /// Returns what `text` means to somebody whose drive `options` name: [`within`].
    ///
    /// # Errors
    /// `Failure::Name`, or those of the home.
    pub(crate) fn of(text: &str, options: &ClientOptions) -> Result<Name, Failure> {
        let path = within(text, &client::settings(options)?.network)?;
        if path.is_empty() {
            return Err(Failure::Name { name: text.into(), reason: "it is the whole drive" });
        }
        Ok(Name { text: path, above: String::new() })
    }

    /// The path `text` within the volume that `above` leads to; `None` if that is the volume itself.
    pub(crate) fn below(above: &str, text: &str) -> Option<Name> {
        (!text.is_empty()).then(|| Name { text: text.into(), above: above.into() })
    }

    pub(crate) fn directories(&self) -> impl Iterator<Item = &str> {
        self.text.rsplit_once('/').into_iter().flat_map(|(directories, _)| directories.split('/'))
    }

    pub(crate) fn last(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }

    /// The path within its volume.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What leads to the space that it is within, with a slash at its end; nothing if it is in the drive itself.
    pub(crate) fn above(&self) -> &str {
        &self.above
    }

    /// The path within the drive, as people say it.
    pub(crate) fn whole(&self) -> String {
        format!("{}{}", self.above, self.text)
    }

    /// That what has this name can't be used so.
    pub(crate) fn is_no_file(&self, reason: &str) -> Failure {
        Failure::Value { name: self.whole(), reason: reason.into() }
    }

    /// That nothing has this name.
    pub(crate) fn is_missing(&self) -> Failure {
        Failure::NoValue { name: self.whole() }
    }
}

/// Returns the path within the drive of `network` that `text` means, without slashes at its ends; the drive itself is the
/// empty one.
///
/// # Errors
/// `Failure::Name`: no path can be so, or it is of another drive, or of none.
pub(crate) fn within(text: &str, network: &Network) -> Result<String, Failure> {
    let bad = |reason| Failure::Name { name: text.into(), reason };
    let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let whole = without_dots(&directory.join(text));
    let mount = mount_table::covering(&whole).ok().flatten().filter(mountpoint::is_drive);
    let is_from_here = starts_with_dot(text);
    // Someone in the drive's directory says paths within the drive, and means those from its top.
    let is_through_the_mount = |mount: &MountEntry| {
        is_from_here
            || text.starts_with('/')
            || mount.mountpoint.starts_with(&directory) && mount.mountpoint != directory
    };
    match mount.filter(is_through_the_mount) {
        Some(mount) if mount.source == OsStr::new(&network.mark()) => {
            let rest = whole.strip_prefix(&mount.mountpoint).unwrap_or(Path::new(""));
            check(rest.to_str().ok_or_else(|| bad("it is no UTF-8"))?).map_err(bad)
        }
        Some(_) => Err(bad("it lies in a drive of another network: say whose with --home")),
        None if is_from_here => {
            Err(bad("it lies in no mounted drive: say the path within the drive, as `ls` shows it there"))
        }
        None => check(text).map_err(bad),
    }
}

fn starts_with_dot(text: &str) -> bool {
    matches!(Path::new(text).components().next(), Some(Component::CurDir | Component::ParentDir))
}

/// Takes `.` and `..` out without a look at the disk.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

fn check(text: &str) -> Result<String, &'static str> {
    let trimmed = text.trim_matches('/');
    if trimmed.is_empty() {
        return Ok(String::new());
    }
    if trimmed.split('/').next() == Some(".snapshots") {
        return Err(
            "what lies in .snapshots is looked at through the mounted drive: here, say the path without it, and --at which snapshot",
        );
    }
    for part in trimmed.split('/') {
        match part {
            "" => return Err("one of its parts is empty"),
            "." | ".." => return Err("`.` and `..` have no meaning in it"),
            _ if part.len() > filesystem::operations::NAME_SIZE_MAX => {
                return Err("a part is longer than 255 bytes");
            }
            _ if part.contains('\0') => return Err("it has a zero byte"),
            _ => {}
        }
    }
    Ok(trimmed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_without_surprises() {
        for same in ["/notes/today", "notes/today", "notes/today/"] {
            assert_eq!(check(same).unwrap(), "notes/today", "{same}");
        }
        assert_eq!(check("/").unwrap(), "", "the drive itself");
        for bad in ["a//b", "a/../b", "a/./b", "a\0b", ".snapshots/x"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&"x".repeat(256)).is_err());
        let name = Name { text: "a/b/c".into(), above: String::new() };
        assert_eq!((name.directories().collect::<Vec<_>>(), name.last()), (vec!["a", "b"], "c"));
        let below = Name::below("band/", "c").unwrap();
        assert_eq!((below.directories().count(), below.text(), &*below.whole()), (0, "c", "band/c"));
        assert_eq!(Name::below("band/", ""), None);
    }

    #[test]
    fn dots_go_without_a_look_at_the_disk() {
        assert_eq!(without_dots(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(without_dots(Path::new("/../a")), Path::new("/a"));
        assert!(starts_with_dot("./a") && starts_with_dot("../a") && starts_with_dot("."));
        assert!(!starts_with_dot("a/./b") && !starts_with_dot(".a") && !starts_with_dot("/a"));
    }
}
