//! `snapshot` and `snapshots`: taking one, deleting one, listing all.

mod unfinished;

use filesystem::calendar::Civil;
use filesystem::format::{Shown, SnapshotOrigin};
use filesystem::volume::{Snapshot, SnapshotError, SnapshotPolicy, Volume};
use serde::Serialize;

use crate::at;
use crate::cli::{Kept, Snapshot as SnapshotOptions, Snapshots};
use crate::client;
use crate::errand::{Need, with_place_or_all, with_spaces_too};
use crate::errors::Failure;
use crate::name::Name;
use crate::output::{self, say};
use unfinished::Begun;

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
    let of = options.of.as_deref();
    if options.policy || options.keep.is_some() {
        let need = if options.policy { Need::Read } else { Need::Write };
        // Each volume has a policy of its own.
        let path = of.map(|of| Name::of(of, &options.client)).transpose()?;
        let path = path.as_ref().map_or(&b""[..], Name::path);
        return with_place_or_all(&options.client, path, need, |volume, above, rest| {
            if !rest.is_empty() {
                return Err(is_no_space(rest));
            }
            let space = (!above.is_empty()).then_some(path);
            let policy = match &options.keep {
                Some(Kept(policy)) => {
                    volume.set_snapshot_policy(policy.as_ref())?;
                    policy.clone()
                }
                None => volume.snapshot_policy().map_err(SnapshotError::from)?,
            };
            say(in_words(space, policy.as_ref()));
            Ok(())
        });
    }
    // Of one volume it is one step.
    let named = options.delete.as_ref().or(options.name.as_ref()).filter(|_| of.is_none());
    let begun = named.map(|name| Begun { name: name.clone(), is_deletion: options.delete.is_some() });
    let base = client::settings(&options.client)?.clients;
    let begun = base.as_deref().zip(begun.as_ref());
    let was_begun =
        begun.map(|(base, begun)| unfinished::is_begun(base, begun)).transpose()?.unwrap_or(false);
    let begin = || begun.map_or(Ok(()), |(base, begun)| unfinished::begin(base, begun));
    let done = of_all(options, was_begun, &begin);
    // What failed for a space is done once more when it is said again; what was refused was never begun.
    let is_over = match &done {
        Ok(()) => true,
        Err(Failure::Snapshot(
            SnapshotError::Taken { .. } | SnapshotError::Missing { .. } | SnapshotError::Name { .. },
        )) => !was_begun,
        Err(_) => false,
    };
    if let Some((base, begun)) = begun.filter(|_| is_over) {
        unfinished::end(base, begun)?;
    }
    done
}

/// Takes or deletes one of the drive, once it is written down by `begin`, and then of each space in it; `goes_on` with the spaces where the
/// drive has it behind itself.
fn of_all(
    options: &SnapshotOptions,
    goes_on: bool,
    begin: &(dyn Fn() -> Result<(), Failure> + Sync),
) -> Result<(), Failure> {
    let mut failed = None;
    let each = |drive: &OfDrive, path: &str, volume: Result<&Volume, Failure>| {
        let path = Shown::of(path);
        let OfDrive { name, before } = drive;
        let done = volume.and_then(|volume| match &options.delete {
            Some(_) => Ok(volume.delete_snapshot(name)?),
            None => Ok(volume.take_snapshot(Some(name), SnapshotOrigin::Asked).map(drop)?),
        });
        match (done, before) {
            (Ok(()), _) if options.delete.is_some() => say(format_args!("of the space {path} as well")),
            (Ok(()), _) => {
                say(format_args!("of the space {path} as well: {path}/.snapshots/{}", Shown::of(name)));
            }
            (Err(Failure::Snapshot(SnapshotError::Missing { .. })), _) if options.delete.is_some() => {}
            // What is older than the drive's was taken for another reason.
            (
                Err(Failure::Snapshot(SnapshotError::Taken { taken, .. })),
                Some(SnapshotError::Taken { taken: of_drive, .. }),
            ) if taken >= *of_drive => say(format_args!("of the space {path} already")),
            (Err(failure), _) => {
                say(format_args!("not of the space {path}: {failure}"));
                if !matches!(failure, Failure::Reader { .. }) {
                    failed = Some(path);
                }
            }
        }
    };
    let of = options.of.as_deref();
    let work = |volume: &Volume| {
        begin()?;
        take_or_delete(options, volume, goes_on)
    };
    let done = with_spaces_too(&options.client, of, Need::Write, work, each)?;
    if let Some(path) = failed {
        return Err(Failure::Space {
            reason: format!("it is not of all spaces: not of {path}, for what is said above"),
            advice: "say it again, or `snapshot --of DIR`, which does it for one space",
        });
    }
    if let Some(before) = done.before {
        say(format_args!(
            "{before}: this was cut short before, and is done now for the spaces that were left"
        ));
    }
    Ok(())
}

/// What was done to the drive.
struct OfDrive {
    /// What the snapshot is called.
    name: String,
    /// That it had been done before, by a command that was cut short.
    before: Option<SnapshotError>,
}

fn take_or_delete(options: &SnapshotOptions, volume: &Volume, goes_on: bool) -> Result<OfDrive, Failure> {
    let behind_itself = |name: &String, before| Ok(OfDrive { name: name.clone(), before: Some(before) });
    if let Some(name) = &options.delete {
        return match volume.delete_snapshot(name) {
            Err(before @ SnapshotError::Missing { .. }) if goes_on => behind_itself(name, before),
            deleted => {
                deleted?;
                say(format_args!("the snapshot {name} is deleted"));
                Ok(OfDrive { name: name.clone(), before: None })
            }
        };
    }
    let taken = match (volume.take_snapshot(options.name.as_deref(), SnapshotOrigin::Asked), &options.name) {
        (Err(before @ SnapshotError::Taken { .. }), Some(name)) if goes_on => {
            return behind_itself(name, before);
        }
        (taken, _) => taken?,
    };
    let name = taken.record.name;
    if options.name.as_ref().is_some_and(|asked| *asked != name) {
        say("another mount has just given that name to a snapshot of its own");
    }
    say(format_args!("the snapshot {name} is taken"));
    Ok(OfDrive { name, before: None })
}

fn is_no_space(path: &[u8]) -> Failure {
    Failure::Space {
        reason: format!("{} is no space of its own", Shown::of(path)),
        advice: "snapshots are of the whole drive, or of a whole space",
    }
}

/// Of the drive, or of the space `of`.
fn in_words(of: Option<&[u8]>, policy: Option<&SnapshotPolicy>) -> String {
    let (of, option) = match of {
        None => (String::new(), String::new()),
        Some(path) => (format!("of the space {}: ", Shown::of(path)), format!(" --of {}", Shown::of(path))),
    };
    match policy {
        Some(policy) => {
            format!("{of}snapshots are taken automatically where the drive is mounted, and kept: {policy}")
        }
        None => format!(
            "{of}no snapshots are taken automatically: `storage-node snapshot{option} --keep 24h,7d,4w,12m` changes that"
        ),
    }
}

/// Runs `snapshots`.
///
/// # Errors
/// `Failure::Snapshot`, or what keeps the volume from being opened.
pub(crate) fn snapshots(options: &Snapshots) -> Result<(), Failure> {
    let of = options.of.as_deref().map(|of| Name::of(of, &options.client)).transpose()?;
    let path = of.as_ref().map_or(&b""[..], Name::path);
    let listed = with_place_or_all(&options.client, path, Need::Read, |volume, _, rest| {
        if !rest.is_empty() {
            return Err(is_no_space(path));
        }
        let snapshots = volume.snapshots().map_err(SnapshotError::from)?;
        Ok(snapshots.into_iter().map(Listed::from).collect::<Vec<_>>())
    })?;
    if !options.json {
        return output::print(&table(&listed));
    }
    output::print_json(&serde_json::json!({ "snapshots": listed }))
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
