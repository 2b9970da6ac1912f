//! Attributes in a merge, and the time in a conflict name. Pure.

use crate::format::InodeRecord;
use crate::operations::Time;

/// Merges two changes of one record: what we changed is ours, the rest theirs.
pub(super) fn merge_records(
    ours: &InodeRecord,
    base: &InodeRecord,
    theirs: &InodeRecord,
    wrote: bool,
) -> InodeRecord {
    fn choose<T: PartialEq>(ours: T, base: T, theirs: T) -> T {
        if ours == base { theirs } else { ours }
    }
    InodeRecord {
        kind: theirs.kind,
        flags: choose(ours.flags, base.flags, theirs.flags),
        project: choose(ours.project, base.project, theirs.project),
        content: theirs.content,
        frame_exponent: theirs.frame_exponent,
        btime: theirs.btime,
        tail: theirs.tail.clone(),
        mode: choose(ours.mode, base.mode, theirs.mode),
        uid: choose(ours.uid, base.uid, theirs.uid),
        gid: choose(ours.gid, base.gid, theirs.gid),
        nlink: theirs.nlink,
        rdev: theirs.rdev,
        size: if ours.size == base.size && !wrote {
            theirs.size
        } else if theirs.size == base.size && theirs.mtime == base.mtime {
            ours.size
        } else {
            // Both changed it: no byte that either wrote may lie beyond the end.
            ours.size.max(theirs.size)
        },
        frames: theirs.frames,
        parent: choose(ours.parent, base.parent, theirs.parent),
        atime: ours.atime.max(theirs.atime),
        mtime: choose(ours.mtime, base.mtime, theirs.mtime),
        ctime: ours.ctime.max(theirs.ctime),
    }
}

/// Writes a time as people do, in UTC; days to dates after Howard Hinnant's `civil_from_days`.
pub(super) fn civil(time: Time) -> String {
    let (days, seconds) = (time.seconds.div_euclid(86_400), time.seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}.{:02}.{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do() {
        let at = |seconds| civil(Time { seconds, nanoseconds: 0 });
        assert_eq!(at(0), "1970-01-01 00.00.00");
        assert_eq!(at(951_827_696), "2000-02-29 12.34.56");
        assert_eq!(at(1_795_355_999), "2026-11-22 13.59.59");
    }
}
