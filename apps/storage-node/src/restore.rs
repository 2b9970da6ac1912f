//! `restore`: bringing back what a snapshot has.

use std::ffi::OsStr;

use filesystem::format::Shown;
use filesystem::operations::FileKind;
use filesystem::volume::{FileState, RestoreError, Restored, Snapshot, SnapshotError, Volume};

use crate::at;
use crate::cli::Restore;
use crate::errand::{Need, with_place};
use crate::errors::Failure;
use crate::name::Name;
use crate::output::say;
use crate::progress::{human_bytes, only_files_in_words};

/// Runs `restore`.
///
/// # Errors
/// `Failure::Restore`, `Failure::NothingToRestore`, `Failure::Snapshot`, or what keeps the volume from being opened.
pub(crate) fn restore(options: &Restore) -> Result<(), Failure> {
    let parse = |path: &OsStr| Name::of(path, &options.client);
    let name = parse(&options.path)?;
    let to = options.to.as_deref().map(parse).transpose()?;
    with_place(&options.client, &name, Need::Write, |volume, name| {
        let to = to.map(|to| beside(volume, name, &to)).transpose()?;
        let snapshot = match &options.at {
            Some(at) => at::find(volume, at)?,
            None => newest_other(volume, name, to.is_some())?,
        };
        let restored = volume.restore(&snapshot, name.path(), to.as_ref().map(Name::path));
        let Restored { path, file_count, size_bytes, aside } = restored.map_err(|error| match error {
            RestoreError::NoDirectory { path } if to.is_some() => Failure::NothingToRestore {
                reason: format!("{path:?}, where it is to be put, is no directory of the drive"),
                advice: "make it first, or give --to a place in a directory that there is",
            },
            error => error.into(),
        })?;
        let files = only_files_in_words(file_count);
        let size = human_bytes(size_bytes);
        let whole = |path: &[u8]| Shown::of([name.above(), path].concat());
        say(format_args!(
            "{} is there as the snapshot {} has {} ({files}, {size})",
            whole(&path),
            snapshot.record.name,
            name.whole()
        ));
        if let Some(aside) = aside {
            say(format_args!("what was there is kept as {}", whole(&aside)));
        }
        if path != to.as_ref().unwrap_or(name).path() {
            say("another mount has just put something at the place that was meant");
        }
        Ok(())
    })
}

/// Where something is to be put, within the volume that `name` is in.
pub(crate) fn beside(volume: &Volume, name: &Name, to: &Name) -> Result<Name, Failure> {
    let elsewhere = || Failure::Space {
        reason: format!(
            "{} lies in another volume than {}: a space and the drive share no content, and what is restored is not copied",
            to.shown(),
            name.whole()
        ),
        advice: "give --to a place beside it, or copy it out of `.snapshots` with `cp -a`",
    };
    let within = to.path().strip_prefix(name.above()).ok_or_else(elsewhere)?;
    let link = volume.link_on_the_way(within);
    match link.map_err(|errno| Failure::Value { name: to.whole(), reason: errno.to_string() })? {
        Some(_) => Err(elsewhere()),
        None => Name::below(name.above(), within).ok_or_else(elsewhere),
    }
}

/// Finds the newest snapshot that has what is called so, and has it otherwise than it is now; of a directory that is to be put
/// beside the present one, the newest that has it.
fn newest_other(volume: &Volume, name: &Name, is_beside: bool) -> Result<Snapshot, Failure> {
    let path = name.path();
    let now = volume.state_of(path, None)?;
    let is_directory = |state: &FileState| state.attributes.kind == FileKind::Directory;
    let is_there = now.as_ref().is_some_and(is_directory);
    if is_there && !is_beside {
        return Err(Failure::NothingToRestore {
            reason: format!("the directory {:?} is there, and no snapshot is named", name.shown()),
            advice: "say which with --at; `storage-node diff SNAPSHOT now DIR` shows what differs",
        });
    }
    let mut is_known = false;
    for snapshot in volume.snapshots().map_err(SnapshotError::from)?.into_iter().rev() {
        let Some(state) = volume.state_of(path, Some(&snapshot))? else { continue };
        is_known = true;
        let is_other = match &now {
            Some(now) if !is_there => !volume.is_one_content(now, &state)?,
            _ => true,
        };
        if is_other {
            return Ok(snapshot);
        }
    }
    if !is_known {
        return Err(Failure::NothingToRestore {
            reason: format!("no snapshot has {:?}", name.shown()),
            advice: "names are paths within the drive, and upper case matters; `storage-node snapshots` lists what is \
                     remembered, and `undelete` looks in what the nodes keep of the past as well",
        });
    }
    Err(Failure::NothingToRestore {
        reason: format!("{:?} is as it was: every snapshot that has it has the same content", name.shown()),
        advice: "to have its mode and times of then as well, say of which snapshot with --at",
    })
}
