//! Days and hours of a moment, in UTC: for names that people read, and for "one a day".
//!
//! Days to dates and back after Howard Hinnant's `civil_from_days` and `days_from_civil`. No time zones: what several
//! machines write into one drive has to mean the same on each.

use std::fmt;

const DAY_SECONDS: i64 = 86_400;

/// A moment of the calendar, in UTC, to the second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Civil {
    /// The year; 0 is 1 BC.
    pub year: i64,
    /// From 1 on.
    pub month: u32,
    /// From 1 on.
    pub day: u32,
    /// From 0 on.
    pub hour: u32,
    /// From 0 on.
    pub minute: u32,
    /// From 0 on.
    pub second: u32,
}

impl Civil {
    /// Returns what the calendar says, `seconds` after the beginning of 1970.
    pub fn of(seconds: i64) -> Civil {
        let (days, rest) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS) as u32);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_index = (5 * day_of_year + 2) / 153;
        let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u32,
            day: (day_of_year - (153 * month_index + 2) / 5 + 1) as u32,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// Returns the seconds since the beginning of 1970; `None` if there is no such moment, or none within some 10^10 years.
    pub fn seconds(&self) -> Option<i64> {
        if !(1..=12).contains(&self.month) || self.year.abs() > 10_000_000_000 {
            return None;
        }
        let year = self.year - i64::from(self.month <= 2);
        let month_index = i64::from(if self.month > 2 { self.month - 3 } else { self.month + 9 });
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * month_index + 2) / 5 + i64::from(self.day) - 1;
        let days =
            era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
        let of_day = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let seconds = days * DAY_SECONDS + of_day;
        // The 31st of April, and the 25th hour, are no moments.
        (Civil::of(seconds) == *self).then_some(seconds)
    }
}

/// As people write it: `2026-11-26 22:15:03`.
impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn civil(year: i64, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Civil {
        Civil { year, month, day, hour, minute, second }
    }

    #[test]
    fn moments_are_as_the_calendar_has_them() {
        for (seconds, moment) in [
            (0, civil(1970, 1, 1, 0, 0, 0)),
            (-1, civil(1969, 12, 31, 23, 59, 59)),
            (951_827_696, civil(2000, 2, 29, 12, 34, 56)),
            (4_107_542_400, civil(2100, 3, 1, 0, 0, 0)),
        ] {
            assert_eq!(Civil::of(seconds), moment);
            assert_eq!(moment.seconds(), Some(seconds));
        }
        assert_eq!(Civil::of(951_827_696).to_string(), "2000-02-29 12:34:56");
    }

    #[test]
    fn what_the_calendar_does_not_have_is_no_moment() {
        for wrong in [
            civil(2026, 0, 1, 0, 0, 0),
            civil(2026, 13, 1, 0, 0, 0),
            civil(2026, 4, 31, 0, 0, 0),
            civil(2026, 2, 29, 0, 0, 0),
            civil(2026, 4, 0, 0, 0, 0),
            civil(2026, 4, 1, 24, 0, 0),
            civil(2026, 4, 1, 0, 60, 0),
            civil(i64::MAX, 4, 1, 0, 0, 0),
        ] {
            assert_eq!(wrong.seconds(), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_moment_is_its_seconds(seconds in -100_000_000_000i64..100_000_000_000) {
            prop_assert_eq!(Civil::of(seconds).seconds(), Some(seconds));
        }
    }
}
