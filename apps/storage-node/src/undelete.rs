//! `undelete`: bringing back what was removed, from the newest state that has it.
//!
//! States are the snapshots, what the nodes keep of the past (`past`), and what this home keeps of what rollbacks took the place of. They
//! are gone through from the newest version on, whichever kind each is. A snapshot's content is pointed to (`restore`); that of the past
//! is copied (`copying`): nodes keep it for the retention only, and what somebody had them delete of it only as long.
//!
//! Not here: which content of a file that is there is meant (`restore`), and having the whole be what it was (`rollback`).

mod copying;

use std::ffi::OsStr;
use std::rc::Rc;

use dht::past::{Past, Values};
use filesystem::access::open_root;
use filesystem::calendar::Civil;
use filesystem::format::Shown;
use filesystem::operations::FileKind;
use filesystem::volume::{Restored, Snapshot, SnapshotError, Volume};
use filesystem::{Errno, Options};

use crate::cli::Undelete;
use crate::client::{self, Client, Settings};
use crate::errand::{Need, with_client_at};
use crate::errors::Failure;
use crate::name::Name;
use crate::output::{self, say};
use crate::past::{self, Subject, Target, civil, id_of};
use crate::progress::{self, human_bytes, only_files_in_words};
use crate::replaced::{self, Replaced};
use crate::restore::beside;
use copying::Copied;

/// Something that may have it.
enum State<'a> {
    Snapshot(&'a Snapshot),
    Kept(&'a Past),
    Replaced(&'a Replaced),
}

impl State<'_> {
    fn version(&self) -> u64 {
        match self {
            State::Snapshot(snapshot) => snapshot.record.version,
            State::Kept(value) => value.version,
            State::Replaced(root) => root.version,
        }
    }

    fn in_words(&self) -> String {
        match self {
            State::Snapshot(snapshot) => {
                let taken = Civil::of(snapshot.record.taken.seconds);
                format!("the snapshot {}, taken {taken} (UTC)", Shown::of(&snapshot.record.name))
            }
            State::Kept(value) => {
                format!("the state {} that nodes keep, {}", id_of(&value.header_hash.0), past::when(value))
            }
            State::Replaced(root) => format!(
                "the state {} that a rollback took the place of {} (UTC)",
                id_of(&root.header_hash.0),
                civil(root.replaced_seconds)
            ),
        }
    }
}

/// What was brought back.
struct Undeleted {
    path: Vec<u8>,
    file_count: u64,
    size_bytes: u64,
    /// Spaces in it, and what a later version put there.
    left_out: Vec<Vec<u8>>,
}

/// Runs `undelete`.
///
/// # Errors
/// `Failure::NothingToRestore` if it is there, or nothing has it; `Failure::Restore`, or what keeps the volume from being opened.
pub(crate) fn undelete(options: &Undelete) -> Result<(), Failure> {
    let parse = |path: &OsStr| Name::of(path, &options.client);
    let name = parse(&options.path)?;
    let to = options.to.as_deref().map(parse).transpose()?;
    let settings = client::settings(&options.client)?;
    let path = name.path();
    with_client_at(&options.client, path, Need::Write, |client, volume, link, above, rest| {
        let name = Name::below(above, rest).ok_or_else(|| is_there(&name))?;
        let to = to.map(|to| beside(volume, &name, &to)).transpose()?;
        let subject = match link {
            None => Subject::Drive,
            Some(link) => {
                let path = String::from_utf8_lossy(above.strip_suffix(b"/").unwrap_or(above)).into_owned();
                Subject::Space { genesis: link.genesis().to_bytes(), path }
            }
        };
        if volume.state_of(name.path(), None)?.is_some() {
            return Err(is_there(&name));
        }
        look(client, &settings, volume, &subject, &name, to.as_ref())
    })
}

fn is_there(name: &Name) -> Failure {
    Failure::NothingToRestore {
        reason: format!("{:?} is there, and was not removed", name.whole()),
        advice: "`restore` brings back another content of it, and `history` lists those that snapshots have",
    }
}

fn look(
    client: &Client,
    settings: &Settings,
    volume: &Volume,
    subject: &Subject,
    name: &Name,
    to: Option<&Name>,
) -> Result<(), Failure> {
    let target = Target::open(subject, client, settings)?;
    let what = target.what();
    let snapshots = volume.snapshots().map_err(SnapshotError::from)?;
    // What snapshots have is had without the past, and that is said.
    let (values, not_known) = match target.store.past(&target.keys.register) {
        Ok(values) => (Some(values), None),
        Err(error) => (None, Some(past::unknown(&what, &error))),
    };
    values.iter().for_each(past::tell_left_out);
    let seen = settings.seen_directory();
    let replaced =
        seen.map(|seen| replaced::of(&seen, &target.keys.register)).transpose()?.unwrap_or_default();
    let kept = values.iter().flat_map(|Values { values, .. }| values);
    let mut states: Vec<State<'_>> = snapshots.iter().map(State::Snapshot).collect();
    states.extend(kept.map(State::Kept).chain(replaced.iter().map(State::Replaced)));
    // Of one version a snapshot is the better one: nothing has to be copied.
    states.sort_by_key(|state| (state.version(), matches!(state, State::Snapshot(_))));
    let spinner = progress::spinner("looking for the newest state that has it");
    let mut unread = Vec::new();
    let found = states.iter().rev().find_map(|state| match has(&target, volume, state, name) {
        Ok(Some(view)) => Some((state, view)),
        Ok(None) => None,
        Err(reason) => {
            unread.push((state, reason));
            None
        }
    });
    spinner.finish_and_clear();
    if let Some(words) = unread_in_words(&unread) {
        output::warn(words);
    }
    let Some((state, view)) = found else {
        if unread.iter().any(|(_, reason)| *reason == Unread::InASpace) {
            return Err(was_a_space(name));
        }
        return Err(not_known.unwrap_or_else(|| nowhere(name, &what, &states, unread.len())));
    };
    if let Some(failure) = not_known {
        output::warn(format_args!(
            "{failure}: only snapshots were looked at, and there may be something newer"
        ));
    }
    let versions: Vec<u64> = states.iter().map(State::version).collect();
    if let Some(words) = not_kept(state.version(), &versions) {
        output::warn(words);
    }
    let (state, view) =
        same_in_a_snapshot(volume, &states, name, view.as_deref()).map_or((state, view), |same| (same, None));
    let place = to.unwrap_or(name);
    let spinner = progress::spinner("bringing it back");
    let undeleted = match (state, view) {
        (State::Snapshot(snapshot), _) => {
            // With a place: what another mount has put there by now does not go aside.
            let restored = volume.restore(snapshot, name.path(), Some(place.path()))?;
            let Restored { path, file_count, size_bytes, .. } = restored;
            Ok(Undeleted { path, file_count, size_bytes, left_out: Vec::new() })
        }
        (_, Some(view)) => copying::copy(&*view, name.path(), volume, place.path()).map(
            |Copied { file_count, size_bytes, left_out }| {
                let path = place.path().to_vec();
                Undeleted { path, file_count, size_bytes, left_out }
            },
        ),
        (_, None) => Err(Failure::Internal("a state without a tree was chosen".into())),
    };
    spinner.finish_and_clear();
    let Undeleted { path, file_count, size_bytes, left_out } = undeleted?;
    say(format_args!(
        "{} is there again: from {} ({}, {})",
        Shown::of([name.above(), &path].concat()),
        state.in_words(),
        only_files_in_words(file_count),
        human_bytes(size_bytes)
    ));
    for path in left_out {
        output::warn(format_args!(
            "{} is not: it was a space, which `rollback` brings back, or what a newer version put there",
            Shown::of([name.above(), &path].concat())
        ));
    }
    Ok(())
}

/// The newest snapshot that has the very file that a state of the past has: nothing has to be copied then. What has the same number and the
/// same time of change is the same; of a directory that says nothing of what is in it.
fn same_in_a_snapshot<'a, 'b>(
    volume: &Volume,
    states: &'a [State<'b>],
    name: &Name,
    view: Option<&Volume>,
) -> Option<&'a State<'b>> {
    let file = copying::find(view?, name.path()).ok()?;
    if file.kind == FileKind::Directory {
        return None;
    }
    states.iter().rev().find(|state| match state {
        State::Snapshot(snapshot) => {
            let then = volume.state_of(name.path(), Some(snapshot));
            then.is_ok_and(|then| then.is_some_and(|then| then.attributes == file))
        }
        _ => false,
    })
}

/// Why it is not known whether a state has it.
#[derive(Debug, PartialEq, Eq)]
enum Unread {
    /// It was a space, or in one.
    InASpace,
    Failed(String),
}

impl Unread {
    fn of(error: impl ToString) -> Unread {
        Unread::Failed(error.to_string())
    }
}

/// That states could not be looked at, in one line: a drive that somebody joined yesterday has a thousand that are not his to read.
fn unread_in_words(unread: &[(&State<'_>, Unread)]) -> Option<String> {
    let failed = |(state, reason): &(&State<'_>, Unread)| match reason {
        Unread::InASpace => None,
        Unread::Failed(reason) => Some((state.in_words(), reason.clone())),
    };
    // The newest comes first.
    let mut failed = unread.iter().filter_map(failed);
    let (state, reason) = failed.next()?;
    Some(match failed.count() {
        0 => format!("not looked at, so that there may be something newer: {state}: {reason}"),
        others => format!(
            "not looked at, so that there may be something newer: {} states, the newest of them {state}: {reason}",
            others + 1
        ),
    })
}

fn was_a_space(name: &Name) -> Failure {
    Failure::NothingToRestore {
        reason: format!(
            "{:?} was a space, or in one that is no more, and what that had is not in the drive's own past",
            name.whole()
        ),
        advice: "`past DIR` lists what nodes keep of a space, and `rollback DIR` brings back one that was removed",
    }
}

/// That what was brought back may have been changed before it was removed: of one `version` to the next that is there, those between are not
/// kept. Nodes keep the last of each thousandth of the retention.
fn not_kept(version: u64, versions: &[u64]) -> Option<String> {
    let next = versions.iter().filter(|other| **other > version).min()?;
    let (first, last) = (version + 1, next - 1);
    let which = match last.checked_sub(first)? {
        0 => format!("version {first}"),
        _ => format!("versions {first} to {last}"),
    };
    Some(format!(
        "that is the newest that is kept, of version {version}, and may not be what it was last: of {which}, which came then, no node that \
         answers keeps what they were"
    ))
}

/// The state's tree if it has what is called so; of a snapshot none is needed.
fn has(
    target: &Target,
    volume: &Volume,
    state: &State<'_>,
    name: &Name,
) -> Result<Option<Option<Rc<Volume>>>, Unread> {
    let (payload, version) = match state {
        State::Snapshot(snapshot) => {
            let found = volume.state_of(name.path(), Some(snapshot)).map_err(Unread::of)?;
            return Ok(found.map(|_| None));
        }
        State::Kept(value) => {
            let record = target.store.read_past(&target.keys.register, value);
            let record = record.map_err(Unread::of)?;
            (record.payload, record.version)
        }
        State::Replaced(root) => (root.payload.0.clone().into(), root.version),
    };
    let root = open_root(&payload, version, &target.keys.secret).map_err(Unread::of)?;
    let store = Rc::new(target.store.clone());
    let view = Volume::as_of(store, target.keys.clone(), &Options::default(), &root);
    let view = view.map_err(Unread::of)?;
    match copying::find(&*view, name.path()) {
        Ok(_) => Ok(Some(Some(view))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        // Of what is in a space the drive knows nothing.
        Err(Errno::EOPNOTSUPP) => Err(Unread::InASpace),
        Err(errno) => Err(Unread::of(errno)),
    }
}

fn nowhere(name: &Name, what: &str, states: &[State<'_>], unread: usize) -> Failure {
    let snapshots = states.iter().filter(|state| matches!(state, State::Snapshot(_))).count();
    let others = states.len() - snapshots;
    let oldest = states.iter().find_map(|state| match state {
        State::Kept(value) => Some(format!(", the oldest of them {}", past::when(value))),
        _ => None,
    });
    let unread = match unread {
        0 => String::new(),
        count => format!(" ({count} of them could not be looked at)"),
    };
    Failure::NothingToRestore {
        reason: format!(
            "nothing has {:?}: of {what} there are {snapshots} snapshots, and {others} states that nodes or this home keep{}{unread}",
            name.whole(),
            oldest.unwrap_or_default()
        ),
        advice: "names are paths within the drive, and upper case matters; `past` and `snapshots` list what there is",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_changed_since_is_not_said_to_be_the_last() {
        assert_eq!(not_kept(4, &[2, 4, 5, 9]), None);
        assert_eq!(not_kept(9, &[2, 4, 5, 9]), None, "nothing came after it");
        assert!(not_kept(2, &[2, 4, 5, 9]).unwrap().contains("of version 3, which came then"));
        assert!(not_kept(5, &[2, 4, 5, 5, 9]).unwrap().contains("of versions 6 to 8, which"));
    }
}
