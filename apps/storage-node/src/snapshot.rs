//! `snapshot` and `snapshots`: taking one, deleting one, listing all.

use filesystem::calendar::Civil;
use filesystem::format::SnapshotOrigin;
use filesystem::volume::{Snapshot, SnapshotError, SnapshotPolicy};
use serde::Serialize;

use crate::at;
use crate::cli::{Kept, Snapshot as SnapshotOptions, Snapshots};
use crate::errand::with_volume;
use crate::errors::Failure;
use crate::output::{self, say};

/// One snapshot, as programs read it.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    /// RFC 3339, in UTC.
    taken: String,
    /// The same, since 1970.
    taken_seconds: i64,
    /// user@host
    author: String,
    /// The version of the drive that it shows.
    version: u64,
    /// Whether a policy took it, and will delete it.
    automatic: bool,
}

impl From<Snapshot> for Listed {
    fn from(Snapshot { record, .. }: Snapshot) -> Listed {
        Listed {
            name: record.name,
            taken: format!("{}Z", Civil::of(record.taken.seconds)).replacen(' ', "T", 1),
            taken_seconds: record.taken.seconds,
            author: record.author,
            version: record.version,
            automatic: record.origin == SnapshotOrigin::Policy,
        }
    }
}

/// Runs `snapshot`.
///
/// # Errors
/// `Failure::Snapshot`, or what keeps the volume from being opened.
pub(crate) fn snapshot(options: &SnapshotOptions) -> Result<(), Failure> {
    if let Some(name) = options.name.as_ref().filter(|name| at::is_time(name)) {
        let reason = "`--at` takes it for a time";
        return Err(SnapshotError::Name { name: name.clone(), reason }.into());
    }
    with_volume(&options.client, |_, volume| {
        if options.policy {
            let policy = volume.snapshot_policy().map_err(SnapshotError::from)?;
            say(in_words(policy.as_ref()));
        } else if let Some(Kept(policy)) = &options.keep {
            volume.set_snapshot_policy(policy.as_ref())?;
            say(in_words(policy.as_ref()));
        } else if let Some(name) = &options.delete {
            volume.delete_snapshot(name)?;
            say(format_args!("the snapshot {name} is deleted"));
        } else {
            let taken = volume.take_snapshot(options.name.as_deref(), SnapshotOrigin::Asked)?;
            let name = &taken.record.name;
            if options.name.as_ref().is_some_and(|asked| asked != name) {
                say("another mount has just given that name to a snapshot of its own");
            }
            say(format_args!("the snapshot {name} is taken"));
        }
        Ok(())
    })
}

fn in_words(policy: Option<&SnapshotPolicy>) -> String {
    match policy {
        Some(policy) => {
            format!("snapshots are taken automatically where the drive is mounted, and kept: {policy}")
        }
        None => {
            "no snapshots are taken automatically: `storage-node snapshot --keep 24h,7d,4w,12m` changes that"
                .into()
        }
    }
}

/// Runs `snapshots`.
///
/// # Errors
/// `Failure::Snapshot`, or what keeps the volume from being opened.
pub(crate) fn snapshots(options: &Snapshots) -> Result<(), Failure> {
    let listed = with_volume(&options.client, |_, volume| {
        let snapshots = volume.snapshots().map_err(SnapshotError::from)?;
        Ok(snapshots.into_iter().map(Listed::from).collect::<Vec<_>>())
    })?;
    if !options.json {
        return output::print(&table(&listed));
    }
    let text = serde_json::to_string_pretty(&serde_json::json!({ "snapshots": listed }))
        .map_err(|error| Failure::Internal(error.to_string()))?;
    output::print(&format!("{text}\n"))
}

/// The oldest first, so that the newest is next to the prompt.
fn table(listed: &[Listed]) -> String {
    if listed.is_empty() {
        return "there are no snapshots: `storage-node snapshot` takes one\n".into();
    }
    let width = listed.iter().map(|snapshot| snapshot.name.chars().count()).max().unwrap_or(0);
    let line = |snapshot: &Listed| {
        let Listed { name, taken, author, .. } = snapshot;
        let automatic = if snapshot.automatic { "  (automatic)" } else { "" };
        format!("{name:width$}  {taken}  by {author}{automatic}\n")
    };
    listed.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_line_for_each() {
        let listed = |name: &str, automatic| Listed {
            name: name.into(),
            taken: "2026-11-26T22:15:03Z".into(),
            taken_seconds: 1,
            author: "ann@host".into(),
            version: 2,
            automatic,
        };
        assert_eq!(
            table(&[listed("before", false), listed("Ünicode-2", true)]),
            "before     2026-11-26T22:15:03Z  by ann@host\n\
             Ünicode-2  2026-11-26T22:15:03Z  by ann@host  (automatic)\n"
        );
        assert!(table(&[]).contains("storage-node snapshot"));
    }
}
