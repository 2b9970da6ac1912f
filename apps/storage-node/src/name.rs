//! A path within the drive, as people say it.
//!
//! The short way is the path within the drive, from wherever one stands. What a shell completes is the path through the
//! place where the drive is mounted: that is taken as well, where the table of mounts says that it is this drive, through symbolic
//! links too (`..` is taken out before these are followed); or where this user had it mounted last, if the path can't be meant otherwise.
//! What could be either is refused, also where that is not known, and how to say each is told. Of the drive itself only that is asked, and
//! not waited for: it may be away.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use filesystem::format::Shown;
use filesystem::fuse::mount_table::{self, MountEntry};

use crate::cli::ClientOptions;
use crate::client;
use crate::errors::Failure;
use crate::mountpoint;
use crate::network::Network;
use crate::outcome;
use crate::output;

/// How long a mounted drive is asked whether it has a name. Most are known on this machine.
const ASKED_FOR: Duration = Duration::from_secs(1);
/// As many symbolic links as the kernel follows.
const LINKS_MAX: usize = 40;

/// A path within the drive that is not the drive itself, or one within a space that is not the space itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    path: Vec<u8>,
    /// What leads to the space that it is within, with a slash at its end.
    above: Vec<u8>,
}

impl Name {
    /// Returns what `text` means to somebody whose drive `options` name: [`within`].
    ///
    /// # Errors
    /// `Failure::Name`, or those of the home.
    pub(crate) fn of(text: &OsStr, options: &ClientOptions) -> Result<Name, Failure> {
        let path = within(text, &client::settings(options)?.network)?;
        if path.is_empty() {
            return Err(Failure::Name { name: shown_of(text), reason: "it is the whole drive" });
        }
        Ok(Name { path, above: Vec::new() })
    }

    /// The path within the volume that `above` leads to; `None` if that is the volume itself.
    pub(crate) fn below(above: &[u8], path: &[u8]) -> Option<Name> {
        (!path.is_empty()).then(|| Name { path: path.into(), above: above.into() })
    }

    pub(crate) fn directories(&self) -> impl Iterator<Item = &[u8]> {
        let end = self.path.iter().rposition(|byte| *byte == b'/');
        end.into_iter().flat_map(|end| parts(&self.path[..end]))
    }

    pub(crate) fn last(&self) -> &[u8] {
        parts(&self.path).last().unwrap_or_default()
    }

    /// The path within its volume.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What leads to the space that it is within, with a slash at its end; nothing if it is in the drive itself.
    pub(crate) fn above(&self) -> &[u8] {
        &self.above
    }

    /// The path within its volume, as people see it.
    pub(crate) fn shown(&self) -> Shown {
        Shown::of(&self.path)
    }

    /// The path within the drive, as people say it.
    pub(crate) fn whole(&self) -> Shown {
        Shown::of([&*self.above, &*self.path].concat())
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

/// A path within the drive at which there is a space, or is to be one. What is called otherwise than by text is no space: its owner's
/// list says in text where he put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpaceName(String);

impl SpaceName {
    /// As [`Name::of`].
    ///
    /// # Errors
    /// As [`Name::of`].
    pub(crate) fn of(text: &OsStr, options: &ClientOptions) -> Result<SpaceName, Failure> {
        let path = Name::of(text, options)?.path;
        let reason = "it is no UTF-8, and the path of a space has to be";
        String::from_utf8(path).map(SpaceName).map_err(|_| Failure::Name { name: shown_of(text), reason })
    }

    /// The path.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpaceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown::of(&self.0).fmt(formatter)
    }
}

/// Something that was said on the command line, as people see it.
pub(crate) fn shown_of(text: &OsStr) -> Shown {
    Shown::of(text.as_bytes())
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

/// Returns the path within the drive of `network` that `text` means, without slashes at its ends; the drive itself is the
/// empty one.
///
/// # Errors
/// `Failure::Name`: no path can be so, or it is of another drive, or of none, or may be either of two.
pub(crate) fn within(text: &OsStr, network: &Network) -> Result<Vec<u8>, Failure> {
    let bad = |reason| Failure::Name { name: shown_of(text), reason };
    let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let whole = up_to_a_drive(&without_dots(&directory.join(text)));
    let mount = mount_table::covering(&whole).ok().flatten().filter(mountpoint::is_drive);
    let is_from_here = starts_with_dot(text);
    let is_said_in_full = is_from_here || Path::new(text).is_absolute();
    // Someone in the drive's directory says paths within the drive, and means those from its top.
    let is_through_the_mount =
        |mount: &MountEntry| is_said_in_full || !directory.starts_with(&mount.mountpoint);
    let rest_of = |mountpoint: &Path| {
        let rest = whole.strip_prefix(mountpoint).unwrap_or(Path::new(""));
        check(rest.as_os_str().as_bytes()).map_err(bad)
    };
    match mount.filter(is_through_the_mount) {
        Some(mount) if mount.source == OsStr::new(&network.mark()) => {
            let first = Path::new(text).components().next();
            let there =
                first.filter(|_| !is_said_in_full).map(|first| is_there(mount.mountpoint.join(first)));
            match there {
                Some(Some(true)) => Err(bad(
                    "it may be through the place where the drive is mounted, or begin in the drive, which has that name too: say ./PATH for \
                     the former, and /PATH for the latter",
                )),
                Some(None) => Err(bad(
                    "it may be through the place where the drive is mounted, or begin in the drive, which does not answer whether it has \
                     that name too: say ./PATH for the former, and /PATH for the latter",
                )),
                Some(Some(false)) | None => rest_of(&mount.mountpoint),
            }
        }
        Some(_) => Err(bad("it lies in a drive of another network: say whose with --home")),
        None => {
            let last = whole.ancestors().find(|place| outcome::last_drive_at(place) == Some(network.mark()));
            // As above, of the place where it was.
            match last.filter(|place| is_said_in_full || !directory.starts_with(place)) {
                Some(mountpoint) if is_said_in_full => rest_of(mountpoint),
                // Through a mount that is there it would be that; without one it is what it says.
                Some(mountpoint) => {
                    output::warn(format_args!(
                        "{} is looked for as a path from the drive's top, since no drive is mounted at {} now: for the one through there \
                         say ./PATH",
                        shown_of(text),
                        mountpoint.display()
                    ));
                    check(text.as_bytes()).map_err(bad)
                }
                None if is_from_here => Err(bad(
                    "it lies in no mounted drive: say the path within the drive, as `ls` shows it there",
                )),
                None => {
                    if is_of_this_machine(Path::new(text)) {
                        output::warn(format_args!(
                            "{} is looked for as a path from the drive's top, since no drive is mounted on the way there, as far as is known",
                            shown_of(text)
                        ));
                    }
                    check(text.as_bytes()).map_err(bad)
                }
            }
        }
    }
}

/// Whether a path in full may be meant as one of this machine: what it is in is a directory here, other than the root, which begins all
/// paths of drives as well.
fn is_of_this_machine(path: &Path) -> bool {
    let above = path.parent().filter(|above| path.is_absolute() && above.parent().is_some());
    above.is_some_and(|above| is_there(above.join(".")) != Some(false))
}

/// Whether there is something; `None` if that is not known soon.
fn is_there(path: PathBuf) -> Option<bool> {
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || sender.send(fs::symlink_metadata(path).map(drop).map_err(|error| error.kind())));
    match answer.recv_timeout(ASKED_FOR).ok()? {
        Ok(()) => Some(true),
        Err(ErrorKind::NotFound | ErrorKind::NotADirectory) => Some(false),
        Err(_) => None,
    }
}

/// Follows the symbolic links on the way to a drive, and asks nothing of what lies in one.
fn up_to_a_drive(path: &Path) -> PathBuf {
    let mut left: Vec<PathBuf> = vec![path.into()];
    let mut found = PathBuf::new();
    let mut links = 0;
    while let Some(part) = left.pop() {
        let mut components = part.components();
        let Some(component) = components.next() else { continue };
        left.push(components.as_path().into());
        match component {
            Component::ParentDir => drop(found.pop()),
            Component::CurDir => {}
            other => {
                let next = found.join(other);
                match fs::read_link(&next) {
                    Ok(target) if links < LINKS_MAX => {
                        links += 1;
                        left.push(target);
                        continue;
                    }
                    _ => found = next,
                }
                if mountpoint::drive_at(&found).is_some() {
                    break;
                }
            }
        }
    }
    found.extend(left.into_iter().rev());
    found
}

fn starts_with_dot(text: &OsStr) -> bool {
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

fn check(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let is_slash = |byte: &u8| *byte == b'/';
    let Some(start) = text.iter().position(|byte| !is_slash(byte)) else { return Ok(Vec::new()) };
    let end = text.iter().rposition(|byte| !is_slash(byte)).map_or(text.len(), |last| last + 1);
    let trimmed = &text[start..end];
    if parts(trimmed).next() == Some(b".snapshots") {
        return Err(
            "what lies in .snapshots is looked at through the mounted drive: here, say the path without it, and --at which snapshot",
        );
    }
    for part in parts(trimmed) {
        match part {
            b"" => return Err("one of its parts is empty"),
            b"." | b".." => return Err("`.` and `..` have no meaning in it"),
            _ if part.len() > filesystem::operations::NAME_SIZE_MAX => {
                return Err("a part is longer than 255 bytes");
            }
            _ if part.contains(&0) => return Err("it has a zero byte"),
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
            assert_eq!(check(same.as_bytes()).unwrap(), b"notes/today", "{same}");
        }
        assert_eq!(check(b"/").unwrap(), b"", "the drive itself");
        assert_eq!(check(b"caf\xe9/").unwrap(), b"caf\xe9", "names are bytes");
        for bad in ["a//b", "a/../b", "a/./b", "a\0b", ".snapshots/x"] {
            assert!(check(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(check("x".repeat(256).as_bytes()).is_err());
        let name = Name { path: b"a/b/c".into(), above: Vec::new() };
        assert_eq!(name.directories().collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(name.last(), b"c");
        let below = Name::below(b"band/", b"c\n\xe9").unwrap();
        assert_eq!(
            (below.directories().count(), below.last(), below.path()),
            (0, &b"c\n\xe9"[..], &b"c\n\xe9"[..])
        );
        assert_eq!((below.whole().as_str(), below.shown().as_str()), ("band/c\\n\\xe9", "c\\n\\xe9"));
        assert_eq!(Name::below(b"band/", b""), None);
    }

    #[test]
    fn only_what_is_surely_not_there_is_not_there() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("round", at("round")).unwrap();
        let said = ["file", "none", "file/x", "round/x"].map(|name| is_there(at(name)));
        assert_eq!(said, [Some(true), Some(false), Some(false), None]);
        let is_here = |name: &str| is_of_this_machine(&at(name));
        assert!(is_here("new") && !is_here("none/new") && !is_here("file/new"));
        assert!(!is_of_this_machine(Path::new("/notes")) && !is_of_this_machine(Path::new("notes/today")));
    }

    #[test]
    fn links_on_the_way_are_followed() {
        let place = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(place.path()).unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, top.join(name)).unwrap();
        link("a/b", "to b");
        link("../to b", "a/again");
        link("round", "round");
        for (said, found) in [("to b/c/d", "a/b/c/d"), ("a/again", "a/b"), ("nothing/x", "nothing/x")] {
            assert_eq!(up_to_a_drive(&top.join(said)), top.join(found), "{said}");
        }
        assert_eq!(up_to_a_drive(&top.join("round/x")).file_name(), Some(OsStr::new("x")), "and it ends");
    }

    #[test]
    fn dots_go_without_a_look_at_the_disk() {
        assert_eq!(without_dots(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(without_dots(Path::new("/../a")), Path::new("/a"));
        let starts_with_dot = |text: &str| starts_with_dot(text.as_ref());
        assert!(starts_with_dot("./a") && starts_with_dot("../a") && starts_with_dot("."));
        assert!(!starts_with_dot("a/./b") && !starts_with_dot(".a") && !starts_with_dot("/a"));
    }
}
