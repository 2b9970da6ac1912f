//! `history`: which versions of a file the snapshots hold, and what it is now.
//!
//! A version is a state of the content: a file that was renamed over, or made anew, begins another. What snapshots do not
//! have, nobody remembers.

use filesystem::calendar::Civil;
use filesystem::operations::FileKind;
use filesystem::volume::{FileState, Snapshot, SnapshotError, Volume};
use serde::Serialize;

use crate::cli::History;
use crate::errand::with_volume;
use crate::errors::Failure;
use crate::output;
use crate::progress::human_bytes;
use crate::values::Name;

/// A version of a file.
#[derive(Debug)]
struct Version {
    state: FileState,
    /// The snapshots that have it, the oldest first.
    snapshots: Vec<String>,
    /// Whether the drive has it now.
    is_current: bool,
}

/// The same, as programs read it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    size: u64,
    /// When the content was changed last: RFC 3339, in UTC.
    changed: String,
    /// The same, since 1970.
    changed_seconds: i64,
    snapshots: &'a [String],
    is_current: bool,
}

/// Runs `history`.
///
/// # Errors
/// `Failure::NoValue` if the file is nowhere, or what keeps the drive from being read.
pub(crate) fn history(options: &History) -> Result<(), Failure> {
    let name = Name::parse(&options.file)?;
    let versions = with_volume(&options.client, |_, volume| versions(volume, &name))?;
    if options.json {
        let shown: Vec<Shown<'_>> = versions.iter().map(Shown::from).collect();
        let text = serde_json::to_string_pretty(&serde_json::json!({ "versions": shown }))
            .map_err(|error| Failure::Internal(error.to_string()))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&versions.iter().map(line).collect::<String>())?;
    if let Some(last) = versions.last().filter(|_| !versions.iter().any(|version| version.is_current))
        && let Some(snapshot) = last.snapshots.last()
    {
        output::warn(format_args!(
            "it is not there now; `storage-node get --at {snapshot:?} {:?}` still has it",
            name.text()
        ));
    }
    Ok(())
}

fn versions(volume: &Volume, name: &Name) -> Result<Vec<Version>, Failure> {
    let path = name.text().as_bytes();
    let mut versions = Vec::new();
    let mut is_directory = false;
    // What is now is found out first: it may be asked of other mounts, and then there may be one more snapshot.
    let now = volume.state_of(path, None)?;
    let snapshots = volume.snapshots().map_err(SnapshotError::from)?;
    let mut take = |state: Option<FileState>, snapshot: Option<&Snapshot>| {
        let Some(state) = state else { return };
        match state.attributes.kind {
            FileKind::Regular => add(&mut versions, state, snapshot.map(|found| found.record.name.clone())),
            kind => is_directory |= kind == FileKind::Directory,
        }
    };
    for snapshot in &snapshots {
        take(volume.state_of(path, Some(snapshot))?, Some(snapshot));
    }
    take(now, None);
    match versions.is_empty() {
        false => Ok(versions),
        true if is_directory => Err(Failure::Value {
            name: name.text().into(),
            reason: "it is a directory: `storage-node diff` shows what changed in one".into(),
        }),
        true => Err(name.is_missing()),
    }
}

/// Adds a version as `snapshot` has it, or the drive now.
fn add(versions: &mut Vec<Version>, state: FileState, snapshot: Option<String>) {
    let at = versions.iter().position(|version| version.state.has_content_of(&state));
    let at = at.unwrap_or_else(|| {
        versions.push(Version { state, snapshots: Vec::new(), is_current: false });
        versions.len() - 1
    });
    versions[at].is_current |= snapshot.is_none();
    versions[at].snapshots.extend(snapshot);
}

impl<'a> From<&'a Version> for Shown<'a> {
    fn from(version: &'a Version) -> Shown<'a> {
        let changed = version.state.attributes.mtime.seconds;
        Shown {
            size: version.state.attributes.size,
            changed: format!("{}Z", Civil::of(changed)).replacen(' ', "T", 1),
            changed_seconds: changed,
            snapshots: &version.snapshots,
            is_current: version.is_current,
        }
    }
}

fn line(version: &Version) -> String {
    let Shown { size, changed, snapshots, is_current, .. } = Shown::from(version);
    let mut places = snapshots.to_vec();
    if is_current {
        places.push("now".into());
    }
    format!("{changed}  {:>9}  {}\n", human_bytes(size), places.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use filesystem::format::{ContentVersion, InodeRecord};
    use filesystem::operations::Time;

    #[test]
    fn snapshots_that_have_one_content_are_one_version() {
        let state = |counter| FileState {
            attributes: InodeRecord {
                size: counter * 1000,
                ..InodeRecord::new(FileKind::Regular, Time { seconds: 1_795_355_999, nanoseconds: 0 })
            }
            .attributes(7),
            content: ContentVersion { writer: 1, counter },
        };
        let mut versions = Vec::new();
        add(&mut versions, state(1), Some("a".into()));
        add(&mut versions, state(1), Some("b".into()));
        add(&mut versions, state(2), Some("c".into()));
        add(&mut versions, state(2), None);
        let lines: Vec<String> = versions.iter().map(line).collect();
        assert_eq!(
            lines,
            ["2026-11-22T13:59:59Z     1000 B  a, b\n", "2026-11-22T13:59:59Z    2.0 KiB  c, now\n"]
        );
    }
}
