//! Spans of time as people write them: `90s`, `15m`, `24h`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const UNITS: [(char, u64); 4] = [('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

/// A span of time, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Span, Self::Err> {
        const HOW: &str = "say it as in 90s, 15m, 24h or 7d";
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit)).ok_or(HOW)?;
        let number: u64 = text[..text.len() - 1].parse().map_err(|_| HOW)?;
        Ok(Span(Duration::from_secs(number.checked_mul(unit.1).ok_or("that is too long")?)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let fits = |unit: &&(char, u64)| seconds >= unit.1 && seconds.is_multiple_of(unit.1);
        let (unit, size) = UNITS.iter().find(fits).unwrap_or(&('s', 1));
        write!(f, "{}{unit}", seconds / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown_in_the_unit_that_fits() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))));
        }
        assert_eq!(Span(Duration::from_secs(86_400)).to_string(), "1d");
        assert_eq!(Span(Duration::from_secs(5400)).to_string(), "90m");
        assert_eq!(Span(Duration::ZERO).to_string(), "0s");
        for wrong in ["", "5", "s", "5w", "-5s", "5 s", "99999999999999999999d", "9999999999999999999d", "é"]
        {
            assert!(wrong.parse::<Span>().is_err(), "{wrong:?}");
        }
    }
}
