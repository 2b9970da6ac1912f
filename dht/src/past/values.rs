//! What nodes show of a register's values, put together: which there were, and since when each was the newest, as far as that can
//! be told.
//!
//! Each node says by its own clock when it accepted the values that it keeps. It keeps few, so of one that it does not show it says
//! when it had an earlier and a later one; a node whose clock was set says two things at once, and one whose clock is ahead of ours
//! says nothing. So what a node says of a value is a span of time. Of several spans that part is believed which lies in as many of them as agree at
//! all, if these are most: who is wrong alone, be it by a lie or by its clock, is outvoted where three speak. Clocks that are right differ
//! a little, so most may agree to within a minute as well; then it is somewhere in what these say. Where no such most agree,
//! nobody can tell which one is right, be it of two or of three, and it is said to be somewhere in all that is said.
//!
//! Not here: whether a value is what a writer signed.
//!
//! # Source
//! Marzullo 1984, *Maintaining the Time in a Distributed System*: the interval that most clocks share, as in NTP.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use overlay::{Contact, NodeId};
use reactor::crypto::PublicKey;

use crate::block_store::{HeaderHash, ReadError, Record};
use crate::message::PastEntry;

/// By how much clocks may differ that are right: those that are set by a server do by less than a second, and a value is accepted here
/// and there within seconds.
pub(super) const SKEW_MAX_SECONDS: u64 = 60;

/// What one node shows, the oldest first; last what it has now.
pub(super) type Shown = (Contact, Vec<PastEntry>);

/// A value that a register had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Its number.
    pub version: u64,
    /// What tells it from another of that number.
    pub header_hash: HeaderHash,
    /// Who signed it, as the nodes say: [`Client::read_past`](crate::Client::read_past) verifies it.
    pub writer: PublicKey,
    /// Since when it was the newest, at the latest, in seconds since 1970; no earlier than any of a lower version.
    pub since_seconds: u64,
    /// Since when it may have been that. Less than `since_seconds` if the nodes do not agree, or those that know of it have set their
    /// clocks; 0 if nobody can tell.
    pub perhaps_since_seconds: u64,
    /// Whether one node alone shows it, as what it has now, and the register has something else: maybe nobody chose it.
    pub(super) is_stray: bool,
    /// Which nodes show it, and under which time.
    pub(super) shown_by: Vec<(Contact, u64)>,
    /// How many of these only heard of it, and say neither that it was chosen nor when it was ([`PastEntry::is_proved`]).
    pub(super) heard_count: usize,
}

impl Past {
    /// One that no node shows, of which nobody says when it was.
    pub fn new(version: u64, header_hash: HeaderHash, writer: PublicKey) -> Past {
        Past {
            version,
            header_hash,
            writer,
            since_seconds: 0,
            perhaps_since_seconds: 0,
            is_stray: false,
            shown_by: Vec::new(),
            heard_count: 0,
        }
    }

    /// How many nodes say that it was the newest. One that keeps it by the word of another alone is none.
    pub fn node_count(&self) -> usize {
        self.shown_by.len() - self.heard_count
    }
}

/// What a register's values were, as [`Client::past`](crate::Client::past) returns it.
#[derive(Debug)]
pub struct Values {
    /// The oldest first; what the register is now is the last, whether a node shows it or not.
    pub values: Vec<Past>,
    /// What it is now.
    pub newest: Result<Option<Record>, ReadError>,
    /// How many nodes answered whose word counts.
    pub answers: usize,
    /// What nodes say that does not count.
    pub left_out: Vec<LeftOut>,
}

/// What a node says that does not count, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The node.
    pub contact: Contact,
    /// How much of what it says.
    pub of: Of,
    /// Why, in words.
    pub reason: String,
}

/// How much of what a node says does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// All: it showed what it does not have, or what nobody signed.
    All,
    /// So many values that no other node shows, and that it did not show in time.
    Lone(usize),
    /// Some of what it had between these times, in seconds since 1970, as its list did not come to the end.
    Within {
        /// Since when.
        from_seconds: u64,
        /// Until when.
        until_seconds: u64,
    },
}

/// What a register was at some time.
#[derive(Debug, PartialEq, Eq)]
pub enum At<'a> {
    /// This.
    Was(&'a Past),
    /// At least the first, if there is one, and at most the second: by the clocks of the nodes it can't be told.
    Between(Option<&'a Past>, &'a Past),
    /// Nothing from before then is kept.
    Nothing,
}

impl Values {
    /// Which of the values that are kept was the newest at a time, in seconds since 1970.
    pub fn at(&self, seconds: u64) -> At<'_> {
        let latest = |since: fn(&Past) -> u64| {
            let is_before = |value: &&Past| !value.is_stray && since(value) <= seconds;
            let values = self.values.iter().filter(is_before);
            values.max_by_key(|value| (value.version, value.node_count()))
        };
        let certain = latest(|value| value.since_seconds);
        let Some(possible) = latest(|value| value.perhaps_since_seconds) else { return At::Nothing };
        if certain != Some(possible) {
            return At::Between(certain, possible);
        }
        // Of one number there is one that was chosen: as many show the one as the other.
        let is_rival = |value: &&Past| {
            value.version == possible.version
                && value.node_count() == possible.node_count()
                && value.header_hash != possible.header_hash
        };
        match self.values.iter().find(is_rival) {
            Some(rival) => At::Between(Some(rival), possible),
            None => At::Was(possible),
        }
    }
}

/// Which entries no other node shows, by their place in the list of each.
pub(super) fn lone(shown: &[Shown]) -> Vec<Vec<usize>> {
    // Whoever names another writer shows something else.
    let what = |entry: &PastEntry| (entry.version, entry.header_hash.0, *entry.writer.as_bytes());
    let mut nodes: BTreeMap<_, BTreeSet<NodeId>> = BTreeMap::new();
    for (node, entries) in shown {
        for entry in entries {
            nodes.entry(what(entry)).or_default().insert(node.id);
        }
    }
    let is_lone = |entry: &PastEntry| nodes[&what(entry)].len() == 1;
    let of_one = |(_, entries): &Shown| -> Vec<usize> {
        (0..entries.len()).filter(|index| is_lone(&entries[*index])).collect()
    };
    shown.iter().map(of_one).collect()
}

/// Puts together what nodes show at `now_seconds`, the oldest first; `newest` is what the register was before they were asked.
pub(super) fn together(shown: &[Shown], newest: Option<&Record>, now_seconds: u64) -> Vec<Past> {
    let mut values: BTreeMap<(u64, [u8; 32]), Past> = BTreeMap::new();
    if let Some(Record { version, header_hash, writer, .. }) = newest {
        values.insert((*version, header_hash.0), Past::new(*version, *header_hash, *writer));
    }
    for (node, entries) in shown {
        // Of what a node shows twice, what it says itself counts.
        let (said, heard): (Vec<_>, Vec<_>) =
            entries.iter().enumerate().partition(|(_, entry)| !entry.is_proved);
        for (index, entry) in said.into_iter().chain(heard) {
            let PastEntry { since_seconds, version, header_hash, writer, is_proved } = entry;
            // What came meanwhile is no past, nor is what was never chosen.
            let is_past = newest.is_none_or(|now| *version < now.version || *header_hash == now.header_hash);
            if !is_past {
                continue;
            }
            let value = values.entry((*version, header_hash.0));
            let value = value.or_insert_with(|| Past::new(*version, *header_hash, *writer));
            if value.shown_by.last().is_none_or(|(last, _)| last.id != node.id) {
                value.is_stray = value.shown_by.is_empty()
                    && index + 1 == entries.len()
                    && newest.is_some_and(|newest| newest.header_hash != *header_hash);
                value.shown_by.push((node.clone(), *since_seconds));
                value.heard_count += usize::from(*is_proved);
            }
        }
    }
    let mut values: Vec<Past> = values.into_values().collect();
    let versions: Vec<u64> = values.iter().map(|value| value.version).collect();
    let spans = spans(shown, &versions, now_seconds);
    for (value, (from, until)) in values.iter_mut().zip(spans) {
        (value.perhaps_since_seconds, value.since_seconds) = (from, until);
    }
    values
}

/// Since when a value of each of `versions`, in order, was the newest: at the earliest, and at the latest.
fn spans(shown: &[Shown], versions: &[u64], now_seconds: u64) -> Vec<(u64, u64)> {
    let speaks = |(_, entries): &&Shown| !entries.is_empty();
    let said: Vec<Vec<(u64, u64)>> =
        shown.iter().filter(speaks).map(|(_, entries)| said_by(entries, versions, now_seconds)).collect();
    let of_all = |index: usize| common(said.iter().map(|said| said[index])).unwrap_or((0, now_seconds));
    let mut spans: Vec<(u64, u64)> = (0..versions.len()).map(of_all).collect();
    // For one value more nodes may contradict each other than for the next: an earlier one is no later for that.
    for index in 1..spans.len() {
        spans[index].1 = spans[index].1.max(spans[index - 1].1);
    }
    for index in (1..spans.len()).rev() {
        spans[index - 1].0 = spans[index - 1].0.min(spans[index].0);
    }
    spans
}

/// What one node says of each version: between when it had an earlier one, or this, and when it had a later one, or this. If that is
/// no span, its clock was set, and it was somewhen between.
fn said_by(entries: &[PastEntry], versions: &[u64], now_seconds: u64) -> Vec<(u64, u64)> {
    // Of what it only heard of it does not know when that was: it keeps it under the last second before what came after.
    let is_over = |entry: &&PastEntry| entry.since_seconds <= now_seconds && !entry.is_proved;
    let mut times: Vec<(u64, u64)> =
        entries.iter().filter(is_over).map(|entry| (entry.version, entry.since_seconds)).collect();
    times.sort_unstable();
    let (mut reached, mut next) = (0, 0);
    let mut said: Vec<(u64, u64)> = Vec::with_capacity(versions.len());
    for version in versions {
        while let Some((_, since)) = times.get(next).filter(|(of, _)| of <= version) {
            (reached, next) = (reached.max(*since), next + 1);
        }
        said.push((reached, now_seconds));
    }
    let mut bound = now_seconds;
    for (version, said) in versions.iter().zip(&mut said).rev() {
        while let Some((_, since)) = times.pop_if(|(of, _)| *of >= *version) {
            bound = bound.min(since);
        }
        *said = (said.0.min(bound), said.0.max(bound));
    }
    said
}

/// The span that lies in as many of `spans` as agree, if these are more than half; else what is in all of those that agree but for the
/// difference between clocks, if these are; else what is in any of them. `None` if there are none.
fn common(spans: impl Iterator<Item = (u64, u64)>) -> Option<(u64, u64)> {
    let spans: Vec<(u64, u64)> = spans.collect();
    let is_most = |count: usize| 2 * count > spans.len();
    let (exact, count) = densest(&spans)?;
    if is_most(count) {
        return Some((*exact.start(), *exact.end()));
    }
    let half = SKEW_MAX_SECONDS / 2;
    let widened: Vec<(u64, u64)> =
        spans.iter().map(|(from, until)| (from.saturating_sub(half), until.saturating_add(half))).collect();
    let (near, count) = densest(&widened)?;
    let agrees =
        |(from, until): &(u64, u64)| !is_most(count) || (from <= near.end() && until >= near.start());
    let agreeing = || spans.iter().zip(&widened).filter(|(_, widened)| agrees(widened)).map(|(span, _)| span);
    Some((agreeing().map(|span| span.0).min()?, agreeing().map(|span| span.1).max()?))
}

/// From the first to the last moment that lies in as many of `spans` as any does, and in how many that is.
fn densest(spans: &[(u64, u64)]) -> Option<(RangeInclusive<u64>, usize)> {
    let (mut from, mut until): (Vec<u64>, Vec<u64>) = spans.iter().copied().unzip();
    from.sort_unstable();
    until.sort_unstable();
    let begun = |moment: u64| from.partition_point(|from| *from <= moment);
    let count = |moment: u64| begun(moment) - until.partition_point(|until| *until < moment);
    // The count grows where a span begins, and falls after one ends.
    let most = from.iter().map(|from| count(*from)).max()?;
    let first = *from.iter().find(|from| count(**from) == most)?;
    let last = *until.iter().rev().find(|until| count(**until) == most)?;
    Some((first..=last, most))
}

#[cfg(test)]
mod tests;
