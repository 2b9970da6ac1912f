//! `diff`: what differs between two snapshots, or between one and what the drive holds now.

use data_encoding::HEXLOWER;
use filesystem::Errno;
use filesystem::calendar::Civil;
use filesystem::format::Shown;
use filesystem::operations::FileKind;
use filesystem::volume::{PathChange, PathState, Snapshot, Volume};
use serde::Serialize;

use crate::at;
use crate::cli::Diff;
use crate::client;
use crate::errand::{Need, with_place_or_all, with_spaces_too};
use crate::errors::Failure;
use crate::name::within;
use crate::output;
use crate::progress::human_bytes;

/// A path as one of the two states has it, as programs read it.
#[derive(Debug, Serialize)]
struct ShownState {
    /// As far as it is text.
    path: String,
    /// All of it, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    /// As people see it.
    #[serde(skip)]
    shown: Shown,
    kind: &'static str,
    size: u64,
}

impl From<&PathState> for ShownState {
    fn from(state: &PathState) -> ShownState {
        let kind = match state.kind {
            FileKind::Regular => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            _ => "other",
        };
        let path_hex = std::str::from_utf8(&state.path).is_err().then(|| HEXLOWER.encode(&state.path));
        let path = String::from_utf8_lossy(&state.path).into_owned();
        ShownState { path, path_hex, shown: Shown::of(&state.path), kind, size: state.size }
    }
}

/// What became of a path, as programs read it.
#[derive(Debug, Serialize)]
struct ShownChange {
    change: &'static str,
    before: Option<ShownState>,
    after: Option<ShownState>,
    content_changed: bool,
    attributes_changed: bool,
}

impl From<&PathChange> for ShownChange {
    fn from(change: &PathChange) -> ShownChange {
        ShownChange {
            change: match change {
                PathChange { before: None, .. } => "added",
                PathChange { after: None, .. } => "removed",
                change if change.is_renamed => "renamed",
                change if change.is_content_changed => "changed",
                _ => "attributes",
            },
            before: change.before.as_ref().map(ShownState::from),
            after: change.after.as_ref().map(ShownState::from),
            content_changed: change.is_content_changed,
            attributes_changed: change.are_attributes_changed,
        }
    }
}

/// Runs `diff`. Spaces are volumes of their own, with snapshots of their own: those that have both states are compared as well, and of the
/// others it is said that they were not.
///
/// # Errors
/// `Failure::Snapshot` if one of the two is not there, `Failure::NoValue` if neither has the directory, or what keeps the
/// drive from being read.
pub(crate) fn diff(options: &Diff) -> Result<(), Failure> {
    let network = client::settings(&options.client)?.network;
    let below = options.below.as_deref().map(|path| within(path, &network)).transpose()?;
    // The drive itself has all of it.
    let below = below.filter(|below| !below.is_empty());
    let path = below.as_deref().unwrap_or_default();
    let is_wanted = |path: &[u8]| below.as_ref().is_none_or(|below| is_below(path, below));
    let (mut of_spaces, mut left_out) = (Vec::new(), Vec::new());
    let of_drive = |volume: &Volume| {
        let errno = |errno: Errno| Failure::Value { name: Shown::of(path), reason: errno.to_string() };
        match volume.link_on_the_way(path).map_err(errno)? {
            Some(_) => Ok(None),
            None => {
                let moments = moments(volume, options)?;
                Ok(Some((changes(volume, &moments, b"", path)?, moments)))
            }
        }
    };
    let each = |drive: &Option<(Vec<PathChange>, Moments)>, space: &str, volume: Result<&Volume, Failure>| {
        let Some((_, of_drive)) = drive.as_ref().filter(|_| is_wanted(space.as_bytes())) else { return };
        let above = [space.as_bytes(), b"/"].concat();
        let compared = volume.and_then(|volume| {
            let moments = moments(volume, options)?;
            for (of_drive, of_space) in of_drive.iter().zip(&moments) {
                check_time(of_drive.as_ref(), of_space.as_ref(), [&options.before, &options.after])?;
            }
            changes(volume, &moments, &above, b"")
        });
        match compared {
            Ok(changes) => of_spaces.extend(changes),
            Err(failure) => left_out.push((space.to_owned(), failure.to_string())),
        }
    };
    let of_drive = with_spaces_too(&options.client, None, Need::Read, of_drive, each)?;
    let mut changes = match of_drive {
        Some((changes, _)) => changes,
        None => with_place_or_all(&options.client, path, Need::Read, |volume, above, within| {
            changes(volume, &moments(volume, options)?, above, within)
        })?,
    };
    changes.extend(of_spaces);
    let has_wanted =
        |change: &&PathChange| change.before.iter().chain(&change.after).any(|state| is_wanted(&state.path));
    let shown: Vec<ShownChange> = changes.iter().filter(has_wanted).map(ShownChange::from).collect();
    if options.json {
        let left_out =
            left_out.iter().map(|(space, reason)| serde_json::json!({ "space": space, "reason": reason }));
        let left_out: Vec<serde_json::Value> = left_out.collect();
        return output::print_json(&serde_json::json!({ "changes": shown, "not_compared": left_out }));
    }
    output::print(&shown.iter().map(line).collect::<String>())?;
    for (space, reason) in left_out {
        output::warn(format_args!("the space {} was not compared: {reason}", Shown::of(space)));
    }
    Ok(())
}

/// Before and after, as the volume has them: `None` is now.
type Moments = [Option<Snapshot>; 2];

fn moments(volume: &Volume, options: &Diff) -> Result<Moments, Failure> {
    Ok([at::moment(volume, &options.before)?, at::moment(volume, &options.after)?])
}

/// Refuses a space's snapshot that was asked for by name, and is not of the time that the drive's of that name is of.
fn check_time(
    of_drive: Option<&Snapshot>,
    of_space: Option<&Snapshot>,
    asked: [&String; 2],
) -> Result<(), Failure> {
    let (Some(of_drive), Some(of_space)) = (of_drive, of_space) else { return Ok(()) };
    let is_by_name = asked.contains(&&of_space.record.name) && of_space.record.name == of_drive.record.name;
    if !is_by_name || of_space.record.is_along_with(&of_drive.record) {
        return Ok(());
    }
    Err(Failure::Space {
        reason: format!(
            "its snapshot {} was not taken with the drive's of that name, but at {} (UTC)",
            Shown::of(&of_space.record.name),
            Civil::of(of_space.record.taken.seconds)
        ),
        advice: "`diff` of the space alone compares its own",
    })
}

/// What differs in one volume, to which `above` leads; that something in it has the name `within` is made sure of.
fn changes(
    volume: &Volume,
    [before, after]: &Moments,
    above: &[u8],
    within: &[u8],
) -> Result<Vec<PathChange>, Failure> {
    if !within.is_empty() {
        let is_there = volume.state_of(within, before.as_ref())?.is_some()
            || volume.state_of(within, after.as_ref())?.is_some();
        if !is_there {
            return Err(Failure::NoValue { name: Shown::of([above, within].concat()) });
        }
    }
    let mut changes = volume.changes_between(before.as_ref(), after.as_ref())?;
    for state in changes.iter_mut().flat_map(|change| change.before.iter_mut().chain(&mut change.after)) {
        state.path = [above, &state.path].concat().into();
    }
    Ok(changes)
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The change, the path, and in brackets the size, if it is a file's.
fn line(shown: &ShownChange) -> String {
    let name = |state: &ShownState| {
        let slash = if state.kind == "directory" { "/" } else { "" };
        format!("{}{slash}", state.shown)
    };
    let size = |state: &ShownState| (state.kind == "file").then(|| human_bytes(state.size));
    let (names, sizes) = match (&shown.before, &shown.after) {
        (Some(before), Some(after)) => {
            let sizes = match (size(before), size(after)) {
                (Some(before), Some(after)) if shown.content_changed => Some(format!("{before} -> {after}")),
                (before, after) => after.or(before),
            };
            match before.shown == after.shown {
                true => (name(after), sizes),
                false => (format!("{} -> {}", name(before), name(after)), sizes),
            }
        }
        (before, after) => {
            let state = after.as_ref().or(before.as_ref());
            (state.map(name).unwrap_or_default(), state.and_then(size))
        }
    };
    let sizes = sizes.map(|sizes| format!("  ({sizes})")).unwrap_or_default();
    format!("{:10}  {names}{sizes}\n", shown.change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(path: &str, kind: FileKind, size: u64) -> Option<PathState> {
        Some(PathState { path: path.as_bytes().to_vec().into(), kind, size })
    }

    #[test]
    fn a_change_is_a_line() {
        let file = |path, size| state(path, FileKind::Regular, size);
        let same = PathChange {
            before: file("notes/today", 1024),
            after: file("notes/today", 1024),
            is_content_changed: false,
            are_attributes_changed: true,
            is_renamed: false,
        };
        let content =
            PathChange { after: file("notes/today", 2048), is_content_changed: true, ..same.clone() };
        let moved = PathChange { after: file("b", 1024), is_renamed: true, ..same.clone() };
        let removed = PathChange { after: None, ..same.clone() };
        let added = PathChange {
            before: None,
            after: state("new\u{1b}[31m", FileKind::Directory, 0),
            ..same.clone()
        };
        let lines: Vec<String> = [same, content, moved, removed, added]
            .iter()
            .map(|change| line(&ShownChange::from(change)))
            .collect();
        assert_eq!(
            lines,
            [
                "attributes  notes/today  (1.0 KiB)\n",
                "changed     notes/today  (1.0 KiB -> 2.0 KiB)\n",
                "renamed     notes/today -> b  (1.0 KiB)\n",
                "removed     notes/today  (1.0 KiB)\n",
                "added       new\\x1b[31m/\n",
            ]
        );
    }

    #[test]
    fn a_directory_has_what_lies_in_it_and_itself() {
        assert!(is_below(b"a/b", b"a") && is_below(b"a", b"a"));
        assert!(!is_below(b"ab", b"a") && !is_below(b"", b"a"));
    }
}
