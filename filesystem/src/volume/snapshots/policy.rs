//! Which snapshots are taken by themselves, and which of those go again. Pure: it is told the time and what there is.
//!
//! A policy such as `24h,7d,4w,12m` keeps the last snapshot of each of the newest 24 hours, 7 days, 4 weeks and 12 months that
//! have one. The finest of its units says how often one is taken: once in each slot of the calendar, in UTC, under a name that
//! follows from the slot. So two machines that take one at once take the same, a clock that is put back takes none twice, and
//! one that jumps ahead makes nothing expire but the oldest of each unit: what goes is counted, and not measured in time.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::calendar::Civil;

/// Of each unit; all four together are fewer than a drive may have snapshots, which are 4096.
const COUNT_MAX: u32 = 999;
const HOUR_SECONDS: i64 = 3600;
const DAY_SECONDS: i64 = 24 * HOUR_SECONDS;
/// 1970 began on a Thursday, weeks begin on Mondays.
const MONDAY_SECONDS: i64 = 3 * DAY_SECONDS;

/// A length of time that the calendar counts by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Unit {
    Hour,
    Day,
    Week,
    Month,
}

/// With the letters that stand for them, the finest first.
const UNITS: [(Unit, char); 4] = [(Unit::Hour, 'h'), (Unit::Day, 'd'), (Unit::Week, 'w'), (Unit::Month, 'm')];

impl Unit {
    /// Returns when the slot began that `seconds` lies in, since 1970.
    fn begin(self, seconds: i64) -> i64 {
        let rounded = |size: i64, shift: i64| (seconds + shift).div_euclid(size) * size - shift;
        match self {
            Unit::Hour => rounded(HOUR_SECONDS, 0),
            Unit::Day => rounded(DAY_SECONDS, 0),
            Unit::Week => rounded(7 * DAY_SECONDS, MONDAY_SECONDS),
            Unit::Month => {
                let Civil { year, month, .. } = Civil::of(seconds);
                let first = Civil { year, month, day: 1, hour: 0, minute: 0, second: 0 };
                // Each month has a first.
                first.seconds().unwrap_or(seconds)
            }
        }
    }

    /// Names the slot that `seconds` lies in.
    fn name(self, seconds: i64) -> String {
        let Civil { year, month, day, hour, .. } = Civil::of(self.begin(seconds));
        match self {
            Unit::Hour => format!("hour-{year:04}-{month:02}-{day:02}T{hour:02}Z"),
            Unit::Day => format!("day-{year:04}-{month:02}-{day:02}"),
            Unit::Week => format!("week-{year:04}-{month:02}-{day:02}"),
            Unit::Month => format!("month-{year:04}-{month:02}"),
        }
    }
}

/// How many snapshots of which units are kept; see the file's header. It is written as `24h,7d,4w,12m`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotPolicy {
    /// The finest first, each once, none of them none.
    kept: Vec<(Unit, u32)>,
}

impl SnapshotPolicy {
    /// Returns the name of the snapshot that is to be taken at `now`, in seconds since 1970, and when its slot began; `None`
    /// if it is among `names`.
    pub(super) fn due(&self, now: i64, names: &BTreeSet<&str>) -> Option<(String, i64)> {
        let (unit, _) = self.kept.first()?;
        let name = unit.name(now);
        (!names.contains(name.as_str())).then(|| (name, unit.begin(now)))
    }

    /// Returns which of the snapshots that were taken then, in seconds since 1970, are not kept any more, by their place.
    pub(super) fn expired(&self, taken: &[i64]) -> Vec<usize> {
        let mut newest_first: Vec<usize> = (0..taken.len()).collect();
        newest_first.sort_by_key(|at| std::cmp::Reverse((taken[*at], *at)));
        let mut kept = BTreeSet::new();
        for (unit, count) in &self.kept {
            let mut slots = BTreeSet::new();
            for at in &newest_first {
                if slots.len() as u32 >= *count {
                    break;
                }
                if slots.insert(unit.begin(taken[*at])) {
                    kept.insert(*at);
                }
            }
        }
        (0..taken.len()).filter(|at| !kept.contains(at)).collect()
    }
}

impl FromStr for SnapshotPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<SnapshotPolicy, Self::Err> {
        const HOW: &str = "say it as in 24h,7d,4w,12m: how many hours, days, weeks and months";
        let mut kept = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (unit, letter) = UNITS.iter().find(|(_, letter)| part.ends_with(*letter)).ok_or(HOW)?;
            let number = &part[..part.len() - letter.len_utf8()];
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let count = number.parse().ok().filter(|count| is_number && (1..=COUNT_MAX).contains(count));
            kept.push((*unit, count.ok_or(HOW)?));
        }
        kept.sort();
        if kept.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err("it says one unit twice");
        }
        Ok(SnapshotPolicy { kept })
    }
}

impl fmt::Display for SnapshotPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (unit, count)) in self.kept.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let letter = UNITS.iter().find(|(other, _)| other == unit).map_or(' ', |(_, letter)| *letter);
            write!(f, "{comma}{count}{letter}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(text: &str) -> SnapshotPolicy {
        text.parse().unwrap()
    }

    fn at(day: u32, hour: u32, minute: u32) -> i64 {
        Civil { year: 2026, month: 11, day, hour, minute, second: 0 }.seconds().unwrap()
    }

    #[test]
    fn a_policy_is_read_and_written_as_people_do() {
        assert_eq!(policy("12m, 4w,7d,24h").to_string(), "24h,7d,4w,12m");
        assert_eq!(policy("3d").to_string(), "3d");
        for wrong in ["", "h", "0h", "24", "24h,", "24h,3h", "-1d", "+1d", "5y", "1000h", "é", "1.5d"] {
            assert!(wrong.parse::<SnapshotPolicy>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn one_is_due_in_each_slot_of_the_finest_unit() {
        let due = |text: &str, now| policy(text).due(now, &BTreeSet::new()).unwrap();
        // The 27th is a Friday.
        let now = at(27, 2, 59);
        assert_eq!(due("24h,7d", now), ("hour-2026-11-27T02Z".into(), at(27, 2, 0)));
        assert_eq!(due("7d,4w", now), ("day-2026-11-27".into(), at(27, 0, 0)));
        assert_eq!(due("4w", now), ("week-2026-11-23".into(), at(23, 0, 0)));
        assert_eq!(due("4w", at(23, 0, 0)).0, "week-2026-11-23");
        assert_eq!(due("4w", at(22, 23, 59)).0, "week-2026-11-16");
        assert_eq!(due("12m", now), ("month-2026-11".into(), at(1, 0, 0)));
        assert_eq!(due("24h", -1).0, "hour-1969-12-31T23Z");
        let taken = BTreeSet::from(["hour-2026-11-27T02Z"]);
        assert_eq!(policy("24h").due(now, &taken), None);
        // A clock that was put back an hour and is right again.
        assert!(policy("24h").due(now - 3600, &taken).is_some());
        assert_eq!(policy("24h").due(now + 30, &taken), None);
    }

    #[test]
    fn the_last_of_each_slot_is_kept() {
        let taken = [at(25, 9, 0), at(26, 9, 0), at(26, 21, 0), at(27, 1, 0), at(27, 2, 0)];
        assert_eq!(policy("2h").expired(&taken), [0, 1, 2]);
        assert_eq!(policy("2h,2d").expired(&taken), [0, 1]);
        assert_eq!(policy("1h,3d").expired(&taken), [1, 3]);
        assert_eq!(policy("1w").expired(&taken), [0, 1, 2, 3]);
        assert_eq!(policy("9h").expired(&taken), [0; 0]);
        assert_eq!(policy("9h").expired(&[]), [0; 0]);
    }

    #[test]
    fn time_that_passes_without_snapshots_takes_none_away() {
        let taken: Vec<i64> = (0..24).map(|hour| at(1, hour, 0)).collect();
        assert_eq!(policy("24h").expired(&taken), [0; 0]);
        // A clock that is a century ahead for a moment costs one.
        let ahead: Vec<i64> = taken.iter().copied().chain([at(1, 0, 0) + 100 * 365 * DAY_SECONDS]).collect();
        assert_eq!(policy("24h").expired(&ahead), [0]);
    }

    proptest! {
        #[test]
        fn the_newest_stays_and_no_unit_keeps_more_than_it_says(
            taken in proptest::collection::vec(-10_000_000_000i64..10_000_000_000, 1..60),
            hours in 1u32..5,
            months in 1u32..5,
        ) {
            let policy = policy(&format!("{hours}h,{months}m"));
            let expired = policy.expired(&taken);
            let newest = taken.iter().max().unwrap();
            let kept: Vec<i64> = (0..taken.len()).filter(|at| !expired.contains(at)).map(|at| taken[at]).collect();
            prop_assert!(kept.contains(newest));
            prop_assert!(kept.len() as u32 <= hours + months);
            // What is kept is kept again.
            prop_assert_eq!(policy.expired(&kept), Vec::<usize>::new());
        }
    }
}
