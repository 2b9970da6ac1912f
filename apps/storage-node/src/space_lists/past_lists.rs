//! Which list of a space is its newest, where its newest root does not open here: as far as the values tell that nodes keep of before.
//!
//! A list comes into a root by a value that the owner wrote, with some copy of his home; a writer can only put an older one back. So this
//! home knows the newest one if it can read a value of the owner's with the newest one that it knows, and all that the space was since. It
//! rarely can: nodes keep one value of each stretch of time. In what is not kept another copy may have taken somebody off. (A mount of the
//! owner's that has seen a newer list signs no older one, see [`filesystem::volume`]; one that begins with an older one may, for the
//! minute until what the roll says is said.) What was before the state that is gone back to may have a newer list too: all of that is
//! looked at. A writer is on the register's own list as well, which nobody but the owner changes; a
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
    /// The owner wrote it.
    is_owners: bool,
    /// It may have a list that was new: the owner wrote it, and it does not open here.
    may_have: bool,
}

impl Shown {
    /// Of a value that was read, with the list in it.
    fn of(record: &Record, owner: &PublicKey, opens: bool, list: Option<&AccessList>) -> Shown {
        Shown {
            version: record.version,
            number: list.map(|list| list.number),
            is_owners: record.writer == *owner,
            may_have: record.writer == *owner && !opens,
        }
    }
}

/// Takes over the newest list that all kept values say, and returns up to which version it is known that there is no
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
    let mut shown = vec![Shown { version: past.version, number, is_owners: false, may_have: false }];
    let mut newest = of_past;
    for value in &values.values {
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
    let known = entry.map_or(0, |entry| entry.number);
    let (before, since): (Vec<Shown>, Vec<Shown>) =
        shown.into_iter().partition(|shown| shown.version < past.version);
    let known = before.iter().filter_map(|shown| shown.number).fold(known, u64::max);
    let now = values.newest.as_ref().ok().and_then(Option::as_ref).map(|now| now.version);
    Ok(now.filter(|now| is_newest_known(&since, *now, known)))
}

/// Whether no list came between the newest one that is known, which the roll or what was before says under the number `known` or one of
/// `shown` has, and the version `now`.
fn is_newest_known(shown: &[Shown], now: u64, known: u64) -> bool {
    let highest = shown.iter().filter_map(|shown| shown.number).max().filter(|highest| *highest >= known);
    // What a writer wrote with it says nothing: there may have been a newer one before. Nor is it known when a list came that the roll
    // alone knows.
    let is_its = |shown: &&Shown| shown.is_owners && shown.number == highest;
    let first = shown.iter().filter(is_its).map(|shown| shown.version).min();
    let Some(since) = highest.and(first) else { return false };
    let read: BTreeSet<u64> =
        shown.iter().filter(|shown| !shown.may_have).map(|shown| shown.version).collect();
    read.range(since + 1..).filter(|version| **version <= now).count() as u64 == now.saturating_sub(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values by their versions, and the numbers of the lists in them, 0 for one that a writer sealed. The owner wrote what comes first with
    /// its list.
    fn shown(values: &[(u64, u64)]) -> Vec<Shown> {
        let mut known = 0;
        let shown = |(version, number): &(u64, u64)| {
            let is_owners = *number > known;
            known = known.max(*number);
            Shown { version: *version, number: (*number > 0).then_some(*number), is_owners, may_have: false }
        };
        values.iter().map(shown).collect()
    }

    #[test]
    fn the_newest_list_is_known_only_if_all_is_that_was_there_since() {
        let sealed = shown(&[(5, 7), (6, 7), (7, 8), (8, 8), (9, 0)]);
        assert!(is_newest_known(&sealed, 9, 7) && is_newest_known(&sealed, 9, 8));
        // What came before the list that is known need not be there.
        assert!(is_newest_known(&shown(&[(1, 2), (7, 8), (8, 8), (9, 0)]), 9, 7));
        let missing = |version| -> Vec<Shown> {
            sealed.iter().copied().filter(|shown| shown.version != version).collect()
        };
        // A writer's version 8 tells of list 8, and not whether there was another in version 7; in 8 there may have been one after.
        assert!(!is_newest_known(&missing(7), 9, 7) && !is_newest_known(&missing(8), 9, 7));
        // A value that came after the last one that was looked at.
        assert!(!is_newest_known(&sealed, 10, 7));
        // A list that this home alone knows of came in what is not there, or in what nobody can tell.
        assert!(!is_newest_known(&sealed, 9, 12));
    }

    #[test]
    fn an_old_list_that_a_writer_put_back_does_not_pass_for_the_newest() {
        // List 9 came with version 7, which is not kept; a writer put list 8 back then.
        assert!(!is_newest_known(&shown(&[(5, 8), (6, 8), (8, 8), (9, 0)]), 9, 8));
        // It is kept, and what stands there now is not asked.
        assert!(is_newest_known(&shown(&[(5, 8), (7, 9), (8, 8), (9, 0)]), 9, 8));
        // List 9 came before what is gone back to, and all since then is a writer's.
        let mut putting_back = shown(&[(20, 8), (21, 0)]);
        putting_back[0].is_owners = false;
        assert!(!is_newest_known(&putting_back, 21, 8));
        let mut by_a_gap = shown(&[(5, 7), (8, 8), (9, 0)]);
        by_a_gap[1].is_owners = false;
        assert!(!is_newest_known(&by_a_gap, 9, 7));
    }

    #[test]
    fn what_the_owner_wrote_and_does_not_open_may_have_a_list() {
        let mut values = shown(&[(5, 8), (6, 8), (7, 0), (8, 0)]);
        assert!(is_newest_known(&values, 8, 8));
        values[2].may_have = true;
        assert!(!is_newest_known(&values, 8, 8));
    }

    #[test]
    fn a_writers_far_version_is_counted_and_not_walked() {
        assert!(!is_newest_known(&shown(&[(5, 8), (u64::MAX, 0)]), u64::MAX, 8));
    }
}
