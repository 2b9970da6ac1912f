//! `history`: which versions of a file the snapshots hold, and what it is now.
//!
//! A version is a state of the content: a file that was renamed over, or made anew, begins another; one that was restored is
//! what it was restored from. What snapshots do not have, nobody remembers.

use filesystem::calendar::Civil;
use filesystem::operations::{Attributes, FileKind};
use filesystem::volume::{FileState, SnapshotError, Volume};
use serde::Serialize;

use crate::cli::History;
use crate::errand::{Need, with_place};
use crate::errors::Failure;
use crate::name::Name;
use crate::output;
use crate::progress::human_bytes;

/// A version of a file, as programs read it.
#[derive(Debug, Serialize)]
struct Version {
    size: u64,
    /// When the content was changed last: RFC 3339, in UTC.
    changed: String,
    /// The same, since 1970.
    changed_seconds: i64,
    /// The snapshots that have it, the oldest first.
    snapshots: Vec<String>,
    /// Whether the drive has it now.
    is_current: bool,
}

/// Runs `history`.
///
/// # Errors
/// `Failure::NoValue` if the file is nowhere, or what keeps the drive from being read.
pub(crate) fn history(options: &History) -> Result<(), Failure> {
    let name = Name::of(&options.file, &options.client)?;
    let versions = with_place(&options.client, &name, Need::Read, versions)?;
    if options.json {
        return output::print_json(&serde_json::json!({ "versions": versions }));
    }
    output::print(&versions.iter().map(line).collect::<String>())?;
    if let Some(last) = versions.last().filter(|_| !versions.iter().any(|version| version.is_current))
        && let Some(snapshot) = last.snapshots.last()
    {
        output::warn(format_args!(
            "it is not there now; `storage-node restore --at {snapshot:?} {:?}` brings it back",
            name.shown()
        ));
    }
    Ok(())
}

fn versions(volume: &Volume, name: &Name) -> Result<Vec<Version>, Failure> {
    let path = name.path();
    // What is now is found out first: it may be asked of other mounts, and then there may be one more snapshot.
    let now = volume.state_of(path, None)?;
    let mut states = Vec::new();
    for snapshot in volume.snapshots().map_err(SnapshotError::from)? {
        let state = volume.state_of(path, Some(&snapshot))?;
        states.extend(state.map(|state| (state, Some(snapshot.record.name))));
    }
    states.extend(now.map(|now| (now, None)));
    let last_kind = states.last().map(|(state, _)| state.attributes.kind);
    states.retain(|(state, _)| state.attributes.kind == FileKind::Regular);

    let (mut versions, mut first_states): (Vec<Version>, Vec<FileState>) = Default::default();
    for (state, snapshot) in states {
        let mut found = None;
        for (at, first) in first_states.iter().enumerate() {
            if volume.is_one_content(first, &state)? {
                found = Some(at);
                break;
            }
        }
        let at = found.unwrap_or_else(|| {
            versions.push(Version::new(&state.attributes));
            first_states.push(state);
            versions.len() - 1
        });
        versions[at].is_current |= snapshot.is_none();
        versions[at].snapshots.extend(snapshot);
    }
    match last_kind {
        _ if !versions.is_empty() => Ok(versions),
        None => Err(name.is_missing()),
        Some(FileKind::Directory) => {
            Err(name.is_no_file("it is a directory: `storage-node diff` shows what changed in one"))
        }
        Some(_) => Err(name.is_no_file("it is no file with content, which would have versions")),
    }
}

impl Version {
    fn new(attributes: &Attributes) -> Version {
        let changed_seconds = attributes.mtime.seconds;
        Version {
            size: attributes.size,
            changed: format!("{}Z", Civil::of(changed_seconds)).replacen(' ', "T", 1),
            changed_seconds,
            snapshots: Vec::new(),
            is_current: false,
        }
    }
}

fn line(version: &Version) -> String {
    let Version { size, changed, snapshots, is_current, .. } = version;
    let places = snapshots.iter().map(String::as_str).chain(is_current.then_some("now"));
    format!("{changed}  {:>9}  {}\n", human_bytes(*size), places.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use filesystem::format::InodeRecord;
    use filesystem::operations::Time;

    #[test]
    fn a_version_is_a_line() {
        let time = Time { seconds: 1_795_355_999, nanoseconds: 0 };
        let record = InodeRecord { size: 2048, ..InodeRecord::new(FileKind::Regular, time) };
        let snapshots = vec!["a".into(), "b c".into()];
        let then = Version { snapshots, ..Version::new(&record.attributes(7)) };
        assert_eq!(line(&then), "2026-11-22T13:59:59Z    2.0 KiB  a, b c\n");
        let now = Version { is_current: true, ..Version::new(&record.attributes(7)) };
        assert_eq!(line(&now), "2026-11-22T13:59:59Z    2.0 KiB  now\n");
    }
}
