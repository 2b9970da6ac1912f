//! `restore`: bringing back what a snapshot has.

use filesystem::operations::FileKind;
use filesystem::volume::{FileState, Restored, Snapshot, SnapshotError, Volume};

use crate::at;
use crate::cli::Restore;
use crate::errand::with_volume;
use crate::errors::Failure;
use crate::name::Name;
use crate::output::say;
use crate::progress::human_bytes;

/// Runs `restore`.
///
/// # Errors
/// `Failure::Restore`, `Failure::NothingToRestore`, `Failure::Snapshot`, or what keeps the volume from being opened.
pub(crate) fn restore(options: &Restore) -> Result<(), Failure> {
    let parse = |path: &str| Name::of(path, &options.client);
    let name = parse(&options.path)?;
    let to = options.to.as_deref().map(parse).transpose()?;
    with_volume(&options.client, |_, volume| {
        let snapshot = match &options.at {
            Some(at) => at::find(volume, at)?,
            None => newest_other(volume, &name)?,
        };
        let Restored { path, file_count, size_bytes, aside } =
            volume.restore(&snapshot, name.text(), to.as_ref().map(Name::text))?;
        let files = if file_count == 1 { "1 file".into() } else { format!("{file_count} files") };
        let size = human_bytes(size_bytes);
        say(format_args!(
            "{path} is there as the snapshot {} has {} ({files}, {size})",
            snapshot.record.name,
            name.text()
        ));
        if let Some(aside) = aside {
            say(format_args!("what was there is kept as {aside}"));
        }
        if path != to.as_ref().unwrap_or(&name).text() {
            say("another mount has just put something at the place that was meant");
        }
        Ok(())
    })
}

/// Finds the newest snapshot that has what is called so, and has it otherwise than it is now.
fn newest_other(volume: &Volume, name: &Name) -> Result<Snapshot, Failure> {
    let path = name.text().as_bytes();
    let now = volume.state_of(path, None)?;
    let is_directory = |state: &FileState| state.attributes.kind == FileKind::Directory;
    if now.as_ref().is_some_and(is_directory) {
        return Err(Failure::NothingToRestore {
            reason: format!("the directory {:?} is there, and no snapshot is named", name.text()),
            advice: "say which with --at; `storage-node diff SNAPSHOT now DIR` shows what differs",
        });
    }
    let mut is_known = false;
    for snapshot in volume.snapshots().map_err(SnapshotError::from)?.into_iter().rev() {
        let Some(state) = volume.state_of(path, Some(&snapshot))? else { continue };
        is_known = true;
        let is_other = match &now {
            Some(now) => !volume.is_one_content(now, &state)?,
            None => true,
        };
        if is_other {
            return Ok(snapshot);
        }
    }
    if !is_known {
        return Err(Failure::NothingToRestore {
            reason: format!("no snapshot has {:?}", name.text()),
            advice: "names are paths within the drive, and upper case matters; `storage-node snapshots` lists what is \
                     remembered",
        });
    }
    Err(Failure::NothingToRestore {
        reason: format!("{:?} is what all snapshots have that have it", name.text()),
        advice: "to have its mode and times of then as well, say of which snapshot with --at",
    })
}
