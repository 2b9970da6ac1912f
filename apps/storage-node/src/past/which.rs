//! Which state of a volume is meant: by its name or a time, among those that nodes and this home keep.
//!
//! A time means what it was then, if that can be told. If it can't, as clocks were set or nodes contradict each other, the states are named that it
//! may have been, and whoever goes back chooses: one that is older than it need be takes away what was stored since.

use dht::ReadError;
use dht::past::{At, LeftOut, Of, Past, Values};
use filesystem::calendar::Civil;

use super::{SHOWN_DIGITS, civil};
use crate::at;
use crate::errors::Failure;
use crate::replaced::Replaced;

/// What is asked for.
#[derive(Debug)]
pub(crate) enum To<'a> {
    /// A state that nodes keep, or what it is now.
    Kept(&'a Past),
    /// One that this home keeps.
    Replaced(&'a Replaced),
}

/// As many digits of each state's name as tell it from the others.
pub(crate) struct Names(Vec<[u8; 32]>);

impl Names {
    /// Of all these.
    pub(crate) fn of(hashes: impl Iterator<Item = [u8; 32]>) -> Names {
        let mut hashes: Vec<[u8; 32]> = hashes.collect();
        hashes.sort_unstable();
        hashes.dedup();
        Names(hashes)
    }

    /// What one of them is called.
    pub(crate) fn id(&self, header_hash: &[u8; 32]) -> String {
        let place = self.0.partition_point(|other| other < header_hash);
        let neighbours = [place.checked_sub(1), Some(place), Some(place + 1)].into_iter().flatten();
        let others = neighbours.filter_map(|index| self.0.get(index)).filter(|other| *other != header_hash);
        let shared = |other: &[u8; 32]| other.iter().zip(header_hash).take_while(|(a, b)| a == b).count();
        let bytes = others.map(|other| shared(other) + 1).max().unwrap_or(0).max(SHOWN_DIGITS / 2);
        header_hash[..bytes.min(header_hash.len())].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whether it is what a state may be called.
pub(crate) fn is_name(text: &str) -> bool {
    let is_long = text.len() == SHOWN_DIGITS || !at::is_time(text);
    is_long && (SHOWN_DIGITS..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Finds the state of `what` that is meant.
///
/// # Errors
/// `Failure::Past` if there is none, or if it can't be told which one it is.
pub(crate) fn find<'a>(
    values: &'a Values,
    replaced: &'a [Replaced],
    text: &str,
    what: &str,
) -> Result<To<'a>, Failure> {
    let failed = |reason: String| Failure::Past { reason };
    if is_name(text) {
        let is_it = |header_hash: &[u8; 32]| {
            let name: String = header_hash.iter().map(|byte| format!("{byte:02x}")).collect();
            name.starts_with(&text.to_ascii_lowercase())
        };
        let found: Vec<&Past> = values.values.iter().filter(|value| is_it(&value.header_hash.0)).collect();
        let here = replaced.iter().find(|root| is_it(&root.header_hash.0));
        return match (&found[..], here) {
            ([one], _) => Ok(To::Kept(one)),
            ([], Some(root)) => Ok(To::Replaced(root)),
            ([], None) => Err(failed(format!(
                "neither a node that answers nor this home keeps a state {text} of {what}"
            ))),
            (several, _) => {
                let names = Names::of(several.iter().map(|value| value.header_hash.0));
                let named: Vec<String> = several.iter().map(|value| names.id(&value.header_hash.0)).collect();
                Err(failed(format!("several states of {what} begin with {text}: say {}", named.join(" or "))))
            }
        };
    }
    let latest = at::last_second(text)
        .ok_or_else(|| failed(format!("{text:?} is no state as `past` calls them, and no time")))?;
    let found = u64::try_from(latest).map_or(At::Nothing, |seconds| values.at(seconds));
    let then = Civil::of(latest);
    match found {
        At::Was(value) => Ok(To::Kept(value)),
        At::Nothing => Err(failed(format!("the nodes keep nothing of {what} from before {then} (UTC)"))),
        At::Between(least, most) => {
            let names = Names::of(values.values.iter().map(|value| value.header_hash.0));
            let name = |value: &Past| {
                format!("{} (version {}, {})", names.id(&value.header_hash.0), value.version, since(value))
            };
            let least = least.map_or_else(|| "what no node keeps".to_owned(), name);
            Err(failed(format!(
                "what {what} was at {then} (UTC) can't be told, for the clocks of the nodes disagree, or were set: it was {least}, or {}, \
                 or what came between. `past` lists them: give a name instead of a time",
                name(most)
            )))
        }
    }
}

/// Since when it was that, as far as that can be told.
pub(crate) fn since(value: &Past) -> String {
    let Past { perhaps_since_seconds: from, since_seconds: until, .. } = value;
    match from {
        from if from == until => format!("since {}", civil(*until)),
        0 => format!("since {} or before", civil(*until)),
        from => format!("since {} to {}", civil(*from), civil(*until)),
    }
}

/// When it was that, in words.
pub(crate) fn when(value: &Past) -> String {
    match value.perhaps_since_seconds == value.since_seconds {
        true => format!("at {} (UTC)", civil(value.since_seconds)),
        false => format!("{} (UTC)", since(value)),
    }
}

/// That no node shows a state any more that was found, and which one comes before it.
pub(crate) fn unread(values: &Values, value: &Past, error: &ReadError) -> Failure {
    let names = Names::of(values.values.iter().map(|value| value.header_hash.0));
    let name = |value: &Past| names.id(&value.header_hash.0);
    let before = values.values.iter().rev().find(|other| other.version < value.version);
    let before = before.map_or(String::new(), |before| {
        format!("; the one before it that is kept is {} (version {})", name(before), before.version)
    });
    Failure::Past { reason: format!("the state {} can't be had: {error}{before}", name(value)) }
}

/// The versions between `value` and the next one that is kept, in words: what it was then, nobody can tell.
pub(crate) fn not_kept(values: &Values, value: &Past) -> Option<String> {
    let later = values.values.iter().filter(|other| other.version > value.version);
    let next = later.min_by_key(|other| other.version)?;
    let (first, last) = (value.version + 1, next.version - 1);
    let which = match last.checked_sub(first)? {
        0 => format!("there was version {first}"),
        _ => format!("there were versions {first} to {last}"),
    };
    let is_newest = matches!(&values.newest, Ok(Some(newest)) if newest.header_hash == next.header_hash);
    let names = Names::of(values.values.iter().map(|value| value.header_hash.0));
    let is_next = match is_newest {
        true => "what it was until now".to_owned(),
        false => format!("{}, which `past` lists", names.id(&next.header_hash.0)),
    };
    Some(format!(
        "between that and the next state that is kept, version {} ({is_next}), {which}, which no node that answers keeps",
        next.version
    ))
}

/// Says whose word does not count.
pub(crate) fn tell_left_out(values: &Values) {
    for LeftOut { contact, of, reason } in &values.left_out {
        let what = match of {
            Of::All => format!("what the node {} says of the past does not count", contact.id),
            Of::Within { from_seconds, until_seconds } => format!(
                "some states that the node {} had between {} and {} are left out, for it did not list all",
                contact.id,
                civil(*from_seconds),
                civil(*until_seconds)
            ),
            Of::Lone(count) => format!(
                "{count} states that no node but {} shows are left out, for it did not show all in time",
                contact.id
            ),
        };
        crate::output::warn(format_args!("{what}: {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use dht::HeaderHash;
    use reactor::crypto::PublicKey;

    use super::*;

    /// Versions 1 to 5, the third of which may have been that from the time of the second to that of the fourth.
    fn values() -> Values {
        let value = |version: u64| {
            let mut value =
                Past::new(version, HeaderHash([version as u8; 32]), PublicKey::from_bytes([3; 32]));
            (value.perhaps_since_seconds, value.since_seconds) = (version * 1000, version * 1000);
            value
        };
        let mut values: Vec<Past> = (1..=5).map(value).collect();
        (values[2].perhaps_since_seconds, values[2].since_seconds) = (2000, 4000);
        Values { values, newest: Ok(None), answers: 3, left_out: Vec::new() }
    }

    fn version(values: &Values, text: &str) -> Result<u64, String> {
        match find(values, &[], text, "the drive") {
            Ok(To::Kept(value)) => Ok(value.version),
            Ok(To::Replaced(_)) => panic!("nothing was"),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn a_time_that_can_be_told_is_taken_and_of_another_the_states_are_named() {
        let values = values();
        assert_eq!(version(&values, "1970-01-01 00:16:40"), Ok(1));
        assert_eq!(version(&values, "1970-01-01 01:06:40"), Ok(4));
        assert_eq!(version(&values, "1h"), Ok(5));
        assert!(
            version(&values, "1970-01-01 00:16:39").unwrap_err().contains("nothing of the drive from before")
        );
        let said = version(&values, "1970-01-01 00:50:00").unwrap_err();
        assert!(
            said.contains("it was 02020202 (version 2, since 1970-01-01 00:33:20), or 03030303"),
            "{said}"
        );
    }

    #[test]
    fn what_is_not_kept_in_between_is_told_with_what_is_kept_after_it() {
        let mut values = values();
        assert_eq!(not_kept(&values, &values.values[1]), None);
        assert_eq!(not_kept(&values, &values.values[4]), None, "nothing came after it");
        values.values.remove(2);
        let said = not_kept(&values, &values.values[1]).unwrap();
        assert!(
            said.contains("version 4 (04040404, which `past` lists), there was version 3, which"),
            "{said}"
        );
        values.values.remove(2);
        let said = not_kept(&values, &values.values[1]).unwrap();
        assert!(
            said.contains("version 5 (05050505, which `past` lists), there were versions 3 to 4,"),
            "{said}"
        );
    }

    #[test]
    fn a_name_may_be_as_long_as_tells_it_from_others_that_begin_so() {
        let mut values = values();
        assert_eq!(version(&values, "03030303"), Ok(3));
        assert_eq!(version(&values, &"03".repeat(32)), Ok(3));
        assert!(version(&values, "06060606").unwrap_err().contains("neither a node"));
        // Somebody has tried until two began alike.
        values.values[4].header_hash.0[..6].fill(3);
        let said = version(&values, "03030303").unwrap_err();
        assert!(said.contains("say 03030303030303 or 03030303030305"), "{said}");
        assert_eq!(version(&values, "03030303030305"), Ok(5));
        let names = Names::of(values.values.iter().map(|value| value.header_hash.0));
        let named: Vec<String> = values.values.iter().map(|value| names.id(&value.header_hash.0)).collect();
        assert_eq!(named, ["01010101", "02020202", "03030303030303", "04040404", "03030303030305"]);
    }
}
