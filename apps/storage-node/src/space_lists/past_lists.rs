//! Which list of a space is its newest, where its newest root does not open here: as far as the values tell that nodes keep of before.
//!
//! A list comes into a root by a value that the owner wrote, with some copy of his home. So this home knows the newest one if it can read
//! all that the space was since the newest one that it knows. It rarely can: nodes keep one value of each stretch of time. In what is not
//! kept another copy may have taken somebody off. A writer is on the register's own list as well, which nobody but the owner changes; a
//! reader is on the owner's alone. So where the newest is not known for sure, *nobody comes back as a reader*: it is told, and the owner
//! lets them in again.
//!
//! No list has a higher number than the version of the value that it came with first: each takes one at least. So the version of the next
//! value is a number that no list has had.

use std::collections::BTreeSet;

use dht::block::mutable::{Genesis, Signed};
use dht::past::Values;
use dht::{ReadError, Record};
use filesystem::access::list::{AccessList, Found};
use filesystem::access::{Root, open_root};
use reactor::crypto::PublicKey;

use super::{Turn, keys, read_roll};
use crate::errors::Failure;
use crate::roll::Roll;
use crate::sharing::Sharer;

/// What is known of the list in one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    version: u64,
    /// The number of the owner's list in it, if it opens and has one.
    number: Option<u64>,
    /// It may have a list that was new: the owner wrote it, and it does not open here.
    may_have: bool,
}

impl Shown {
    /// Of a value that was read, with the list in it.
    fn of(record: &Record, owner: &PublicKey, opens: bool, list: Option<&AccessList>) -> Shown {
        Shown {
            version: record.version,
            number: list.map(|list| list.number),
            may_have: record.writer == *owner && !opens,
        }
    }
}

/// Takes over the newest list that `past` and the values after it say, and returns up to which version it is known that there is no
/// newer one; none if it is not known.
///
/// # Errors
/// Those of the home's files.
///
/// # Suspends
/// While they are read.
pub(crate) fn learn_past(
    sharer: &Sharer<'_>,
    _: &Turn,
    genesis: &Signed<Genesis>,
    past: &Root,
    values: &Values,
) -> Result<Option<u64>, Failure> {
    let keys = keys(sharer, genesis)?;
    let list_of = |root: &Root| match root.charter.access_list(&genesis.owner, &keys.register) {
        Found::List(list) => Some((*list).clone()),
        Found::Nothing | Found::Forged => None,
    };
    let of_past = list_of(past);
    let number = of_past.as_ref().map(|list| list.number);
    let mut shown = vec![Shown { version: past.version, number, may_have: false }];
    let mut newest = of_past;
    for value in values.values.iter().filter(|value| value.version > past.version) {
        let record: Result<Record, ReadError> = match &values.newest {
            Ok(Some(now)) if now.header_hash == value.header_hash => Ok(now.clone()),
            _ => sharer.store.read_past(&keys.register, value),
        };
        let Ok(record) = record else { continue };
        let root = open_root(&record.payload, record.version, &keys.secret).ok();
        let list = root.as_ref().and_then(list_of);
        shown.push(Shown::of(&record, &genesis.owner, root.is_some(), list.as_ref()));
        if list.as_ref().map(|list| list.number) > newest.as_ref().map(|list| list.number) {
            newest = list;
        }
    }
    let bytes = genesis.to_bytes();
    let entry = read_roll(sharer)?.0.spaces.into_iter().find(|space| space.genesis.0 == bytes);
    if let Some(list) = newest {
        Roll::change(sharer.home, |roll| {
            roll.learn(genesis, &list);
            Ok(())
        })?;
    }
    let now = values.newest.as_ref().ok().and_then(Option::as_ref).map(|now| now.version);
    let known = entry.map_or(0, |entry| entry.number);
    Ok(now.filter(|now| is_newest_known(&shown, past.version, *now, known)))
}

/// Whether no list came between the newest one that is known, which the roll says under the number `known` or one of `shown` has, and
/// the version `now`; `past` is the lowest version that was looked at.
fn is_newest_known(shown: &[Shown], past: u64, now: u64, known: u64) -> bool {
    let highest = shown.iter().filter_map(|shown| shown.number).max().filter(|highest| *highest >= known);
    let first =
        |number| shown.iter().filter(|shown| shown.number == Some(number)).map(|shown| shown.version).min();
    // A list that the roll alone knows came before all of these, or in what is missing of them.
    let since = highest.and_then(first).unwrap_or(past);
    let read: BTreeSet<u64> =
        shown.iter().filter(|shown| !shown.may_have).map(|shown| shown.version).collect();
    read.range(since + 1..).filter(|version| **version <= now).count() as u64 == now.saturating_sub(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values by their versions, and the numbers of the lists in them; 0 for one that a writer sealed.
    fn shown(values: &[(u64, u64)]) -> Vec<Shown> {
        let shown = |(version, number): &(u64, u64)| Shown {
            version: *version,
            number: (*number > 0).then_some(*number),
            may_have: false,
        };
        values.iter().map(shown).collect()
    }

    #[test]
    fn the_newest_list_is_known_only_if_all_is_that_was_there_since() {
        let sealed = shown(&[(5, 7), (6, 7), (7, 8), (8, 8), (9, 0)]);
        assert!(is_newest_known(&sealed, 5, 9, 7) && is_newest_known(&sealed, 5, 9, 8));
        // What came before the list that is known need not be there.
        assert!(is_newest_known(&shown(&[(1, 2), (7, 8), (8, 8), (9, 0)]), 1, 9, 7));
        for missing in [7, 8] {
            let rest: Vec<Shown> = sealed.iter().copied().filter(|shown| shown.version != missing).collect();
            // Version 8 tells of list 8, and not whether there was another in version 7 before; in 8 there may have been one after.
            assert_eq!(is_newest_known(&rest, 5, 9, 7), missing == 7, "{missing}");
        }
        // A value that came after the last one that was looked at.
        assert!(!is_newest_known(&sealed, 5, 10, 7));
        // A list that this home alone knows of, and all is there: it came before.
        assert!(is_newest_known(&sealed, 5, 9, 12));
        assert!(!is_newest_known(&shown(&[(5, 7), (7, 8), (8, 8), (9, 0)]), 5, 9, 12));
    }

    #[test]
    fn an_old_list_that_a_writer_put_back_does_not_pass_for_the_newest() {
        // List 9 came with version 7, which is not kept; a writer put list 8 back then.
        assert!(!is_newest_known(&shown(&[(5, 8), (6, 8), (8, 8), (9, 0)]), 5, 9, 8));
        // It is kept, and what stands there now is not asked.
        assert!(is_newest_known(&shown(&[(5, 8), (7, 9), (8, 8), (9, 0)]), 5, 9, 8));
    }

    #[test]
    fn what_the_owner_wrote_and_does_not_open_may_have_a_list() {
        let mut values = shown(&[(5, 8), (6, 8), (7, 0), (8, 0)]);
        assert!(is_newest_known(&values, 5, 8, 8));
        values[2].may_have = true;
        assert!(!is_newest_known(&values, 5, 8, 8));
    }

    #[test]
    fn a_writers_far_version_is_counted_and_not_walked() {
        assert!(!is_newest_known(&shown(&[(5, 8), (u64::MAX, 0)]), 5, u64::MAX, 8));
    }
}
