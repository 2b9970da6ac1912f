//! Which snapshot `--at` means: the one of that name, or the newest that was taken at or before that time.
//!
//! A time is UTC, as `snapshots` shows it, cut off where one likes: a day alone means all of it. A span means so long ago.

use std::rc::Rc;

use filesystem::calendar::Civil;
use filesystem::format::NOW;
use filesystem::operations::Time;
use filesystem::volume::{Snapshot, SnapshotError, Volume};

use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::gc::Span;
use crate::outcome::Outcome;

/// Finds the snapshot that `text` means.
///
/// # Errors
/// `Failure::Snapshot` if there is no such snapshot, or if they can't be read.
///
/// # Suspends
/// While nodes are asked.
pub(crate) fn find(volume: &Volume, text: &str) -> Result<Snapshot, Failure> {
    match (volume.snapshot_named(text), latest(text, Time::now().seconds)) {
        (Err(SnapshotError::Missing { .. }), Some(latest)) => {
            let snapshots = volume.snapshots().map_err(SnapshotError::from)?;
            let first = snapshots.iter().map(|snapshot| snapshot.record.taken.seconds).min();
            let until = Civil::of(latest);
            newest_until(snapshots, latest)
                .ok_or_else(|| Failure::NoneSoOld { until, first: first.map(Civil::of) })
        }
        (found, _) => Ok(found?),
    }
}

/// Finds the state that `text` means: as [`find`], or `None` for `now`, which is no snapshot's name.
///
/// # Errors
/// As [`find`].
///
/// # Suspends
/// While nodes are asked.
pub(crate) fn moment(volume: &Volume, text: &str) -> Result<Option<Snapshot>, Failure> {
    if text == NOW { Ok(None) } else { find(volume, text).map(Some) }
}

/// Returns the volume as it was at the snapshot that `text` means.
///
/// # Errors
/// As [`find`].
///
/// # Suspends
/// While nodes are asked.
pub(crate) fn view(volume: &Volume, text: &str) -> Result<Rc<Volume>, Failure> {
    let snapshot = find(volume, text)?;
    Ok(volume.view(&snapshot).map_err(SnapshotError::from)?)
}

/// Closes `volume`, whose changes are in `directory`, and returns the volume as it was at the snapshot that `text` means.
///
/// # Errors
/// As [`find`], or `Failure::NotStored`.
///
/// # Suspends
/// While nodes are asked.
pub(crate) fn leave_for(
    volume: &Volume,
    text: &str,
    directory: &ClientDirectory,
) -> Result<Rc<Volume>, Failure> {
    let view = view(volume, text);
    let closed = Outcome::of(volume.close(), directory.path()).into_result();
    let view = view?;
    closed.map(|()| view)
}

/// Whether `--at` takes `text` for a time, so that it can't be a snapshot's name.
pub(crate) fn is_time(text: &str) -> bool {
    last_second(text).is_some()
}

/// Returns the last second that `text` includes, since 1970; `None` if it is no time.
pub(crate) fn last_second(text: &str) -> Option<i64> {
    latest(text, Time::now().seconds)
}

/// Of several taken in that second, the last.
fn newest_until(snapshots: Vec<Snapshot>, latest: i64) -> Option<Snapshot> {
    let before = snapshots.into_iter().filter(|snapshot| snapshot.record.taken.seconds <= latest);
    before.max_by_key(|snapshot| (snapshot.record.taken, snapshot.record.version))
}

/// Returns the last second that `text` includes, since 1970; `None` if it is no time.
fn latest(text: &str, now: i64) -> Option<i64> {
    if let Ok(Span(span)) = text.parse::<Span>() {
        return now.checked_sub(i64::try_from(span.as_secs()).ok()?);
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (day, clock) = match text.split_once(['T', ' ', '_']) {
        Some((day, clock)) => (day, Some(clock)),
        None => (text, None),
    };
    let [year, month, day] = numbers(day, "-")?[..] else { return None };
    let clock = clock.map_or(Some(Vec::new()), |clock| numbers(clock, ":."))?;
    let (hour, minute, second) = match clock[..] {
        [] => (23, 59, 59),
        [hour, minute] => (hour, minute, 59),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    Civil { year: i64::from(year), month, day, hour, minute, second }.seconds()
}

fn numbers(text: &str, separators: &str) -> Option<Vec<u32>> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split(|character| separators.contains(character))
        .map(|part| if is_number(part) { part.parse().ok() } else { None })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_are_shown_cut_off_anywhere() {
        let at = |text| latest(text, 1_000_000);
        let moment = at("2026-11-22T13:59:59Z");
        assert_eq!(moment, Some(1_795_355_999));
        for same in ["2026-11-22 13:59:59", "2026-11-22T13.59.59Z", "2026-11-22_13:59", "2026-11-22 13.59"] {
            assert_eq!(at(same), moment, "{same}");
        }
        assert_eq!(at("2026-11-22"), Some(1_795_391_999), "all of the day");
        assert_eq!(at("2h"), Some(1_000_000 - 7200));
        for wrong in [
            "",
            "yesterday",
            "2026-11",
            "2026-02-30",
            "2026-11-22T25:00",
            "2026-11-22 1",
            "-1-1-1",
            "a-b-c",
            "1-+1-1",
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
