//! Which changes are durable, and where: the one place that knows.
//!
//! Every change has a number. Two watermarks follow the newest: *journaled*, up to which the local journal holds every
//! change, and *committed*, up to which a quorum of the nodes does. Each moves only when the write that made it so has
//! succeeded; what the journal lacks is looked at, written, and only then struck off. So whoever waits for a number waits
//! for a fact: a write that failed, or that still runs for another caller, can never be taken for one that succeeded.
//! What the journal holds outlives the process; *kept*, which is never ahead of it, is what a power cut leaves of that.
//!
//! Not here: waiting, writing, and the changes themselves. This is plain data, told what happened.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::errno::Errno;
use crate::format::Key;

/// The store does not take what is to be committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trouble {
    /// The last try's error.
    pub(crate) errno: Errno,
    /// When the first of the tries that failed in a row did.
    pub(crate) since: Instant,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Durability {
    newest: u64,
    /// The newest that was a change, and not drawn.
    newest_change: u64,
    journaled: u64,
    kept: u64,
    /// The journal may hold changes up to here: a write of it has begun.
    journaling: u64,
    committed: u64,
    /// Somebody wants everything up to here committed.
    wanted: u64,
    /// What the journal lacks, if there is one: each key with the number of its newest change.
    lacking: Option<BTreeMap<Key, u64>>,
    /// A change is durable once the journal keeps it.
    write_back: bool,
    trouble: Option<Trouble>,
    /// Counts what the store took: tells slow from stuck.
    successes: u64,
}

impl Durability {
    /// Nothing has changed yet. Where it `journals` there is a journal; with `write_back` a change is durable once a power cut
    /// leaves it there, otherwise it only outlives the process.
    pub(crate) fn new(journals: bool, write_back: bool) -> Durability {
        Durability {
            newest: 0,
            newest_change: 0,
            journaled: 0,
            kept: 0,
            journaling: 0,
            committed: 0,
            wanted: 0,
            lacking: journals.then(BTreeMap::new),
            write_back,
            trouble: None,
            successes: 0,
        }
    }

    /// Takes note of a change of `key`, and returns its number.
    pub(crate) fn on_change(&mut self, key: &Key) -> u64 {
        self.newest += 1;
        self.newest_change = self.newest;
        if let Some(lacking) = &mut self.lacking {
            match lacking.get_mut(key) {
                Some(number) => *number = self.newest,
                None => drop(lacking.insert(key.clone(), self.newest)),
            }
        }
        self.newest
    }

    /// The journal holds every change up to `through`: all that [`Durability::lacking`] named when it was `newest`. If
    /// `durably`, all that is in it is on the disk.
    pub(crate) fn on_journaled(&mut self, through: u64, durably: bool) {
        self.journaled = self.journaled.max(through);
        if durably {
            self.kept = self.kept.max(through);
        }
        self.strike_off(through);
    }

    /// A quorum holds every change up to `through`.
    pub(crate) fn on_committed(&mut self, through: u64) {
        self.committed = self.committed.max(through);
        self.strike_off(through);
    }

    fn strike_off(&mut self, through: u64) {
        if let Some(lacking) = &mut self.lacking {
            lacking.retain(|_, number| *number > through);
        }
    }

    /// The store took something. Returns the trouble that this ends.
    pub(crate) fn on_stored(&mut self) -> Option<Trouble> {
        self.successes += 1;
        self.trouble.take()
    }

    /// The store did not take something. Returns whether the trouble is new, or another than before.
    pub(crate) fn on_failed(&mut self, errno: Errno, now: Instant) -> bool {
        let is_new = self.trouble.is_none_or(|trouble| trouble.errno != errno);
        let since = self.trouble.map_or(now, |trouble| trouble.since);
        self.trouble = Some(Trouble { errno, since });
        is_new
    }

    /// Wants everything up to `number` committed. Returns whether that is news.
    pub(crate) fn want(&mut self, number: u64) -> bool {
        let is_new = number > self.wanted;
        self.wanted = self.wanted.max(number);
        is_new
    }

    /// Whether something that is wanted is not committed.
    pub(crate) fn wants_commit(&self) -> bool {
        self.wanted.min(self.newest) > self.committed
    }

    /// Whether every change up to `number` is as durable as was promised.
    pub(crate) fn is_durable(&self, number: u64) -> bool {
        self.is_committed(number) || (self.write_back && self.kept >= self.last_change(number))
    }

    /// Whether a quorum holds every change up to `number`.
    pub(crate) fn is_committed(&self, number: u64) -> bool {
        self.committed >= number
    }

    /// Gives a number to what changes nothing by itself: another try at a commit, which a root has to tell apart.
    pub(crate) fn draw(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// The number of the newest change.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The number up to which a quorum holds every change.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// A group with every change up to `through` is about to be written to the journal.
    pub(crate) fn on_journaling(&mut self, through: u64) {
        self.journaling = self.journaling.max(through);
    }

    /// Whether the journal may hold what is not committed: then whatever takes that back has to be told too.
    pub(crate) fn may_be_journaled(&self) -> bool {
        self.write_back || self.journaling > self.committed
    }

    /// Whether the journal, or a quorum, has every change up to `number`, if only until a power cut.
    pub(crate) fn is_noted(&self, number: u64) -> bool {
        self.is_committed(number) || self.journaled >= self.last_change(number)
    }

    /// Whether the journal, or a quorum, has every change up to `number`, also after a power cut.
    pub(crate) fn is_kept(&self, number: u64) -> bool {
        self.is_committed(number) || self.kept >= self.last_change(number)
    }

    /// No number above it, up to `number`, is a change: they were drawn.
    fn last_change(&self, number: u64) -> u64 {
        number.min(self.newest_change)
    }

    /// Whether a power cut leaves something of the journal that no quorum has.
    pub(crate) fn keeps_more(&self) -> bool {
        self.kept > self.committed
    }

    /// The number of the newest change that was made.
    pub(crate) fn newest_change(&self) -> u64 {
        self.newest_change
    }

    /// Whether the journal lacks the newest change of any of these keys; without a journal it lacks all.
    pub(crate) fn lacks(&self, keys: RangeInclusive<Key>) -> bool {
        self.lacking.as_ref().is_none_or(|lacking| lacking.range(keys).next().is_some())
    }

    /// The keys whose newest change the journal lacks.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = &Key> {
        self.lacking.iter().flatten().map(|(key, _)| key)
    }

    /// Why the store takes nothing now, if so.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// For how long the store has taken nothing.
    pub(crate) fn trouble_age(&self, now: Instant) -> Option<Duration> {
        self.trouble.map(|trouble| now.saturating_duration_since(trouble.since))
    }

    /// How many things the store took: while this grows, waiting is worth it.
    pub(crate) fn successes(&self) -> u64 {
        self.successes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(durability: &mut Durability, inode: u64) -> u64 {
        durability.on_change(&Key::Inode(inode))
    }

    #[test]
    fn a_write_that_failed_or_still_runs_makes_nothing_durable() {
        let mut durability = Durability::new(true, true);
        let first = change(&mut durability, 1);
        // A large group is being written, and fails: nobody told us of a success.
        assert_eq!(durability.lacking().count(), 1);
        assert!(!durability.is_durable(first));
        let second = change(&mut durability, 2);
        assert_eq!(durability.lacking().count(), 2, "the next group has both");
        durability.on_journaled(second, true);
        assert!(durability.is_durable(first) && durability.is_durable(second));
        assert!(!durability.is_committed(first));
    }

    #[test]
    fn a_key_that_changed_while_it_was_written_is_lacking_still() {
        let mut durability = Durability::new(true, true);
        let written = change(&mut durability, 1);
        let newer = change(&mut durability, 1);
        durability.on_journaled(written, true);
        assert!(durability.is_durable(written) && !durability.is_durable(newer));
        assert_eq!(durability.lacking().count(), 1);
        durability.on_committed(newer);
        assert_eq!(durability.lacking().count(), 0);
    }

    #[test]
    fn without_write_back_only_the_quorum_counts() {
        let mut durability = Durability::new(false, false);
        let number = change(&mut durability, 1);
        durability.on_journaled(number, true);
        assert!(!durability.is_durable(number));
        assert!(!durability.wants_commit());
        assert!(durability.want(number) && durability.wants_commit());
        durability.on_committed(number);
        assert!(durability.is_durable(number) && !durability.wants_commit());
    }

    #[test]
    fn what_is_only_noted_is_not_durable() {
        let mut durability = Durability::new(true, false);
        let number = change(&mut durability, 1);
        assert!(!durability.is_noted(number));
        durability.on_journaled(number, false);
        assert!(durability.is_noted(number) && !durability.is_durable(number));
    }

    #[test]
    fn what_a_power_cut_would_take_is_not_kept_until_the_disk_has_it() {
        let mut durability = Durability::new(true, false);
        let number = change(&mut durability, 1);
        let keys = || Key::Inode(1)..=Key::Inode(1);
        assert!(durability.lacks(keys()) && !durability.lacks(Key::Inode(2)..=Key::Inode(9)));
        durability.on_journaled(number, false);
        assert!(!durability.lacks(keys()) && !durability.is_kept(number));
        durability.on_journaled(number, true);
        let drawn = durability.draw();
        assert!(durability.is_kept(drawn) && durability.newest_change() == number, "that is no change");
        let newer = change(&mut durability, 1);
        assert!(!durability.is_kept(newer) && durability.lacks(keys()));
        durability.on_committed(newer);
        assert!(durability.is_kept(newer) && !durability.lacks(keys()));
        let mut journals_nothing = Durability::new(false, false);
        change(&mut journals_nothing, 1);
        assert!(journals_nothing.lacks(keys()));
    }

    #[test]
    fn trouble_begins_once_and_ends_with_the_first_success() {
        let (mut durability, now) = (Durability::new(false, false), Instant::now());
        assert!(durability.on_failed(Errno::ETIMEDOUT, now));
        assert!(!durability.on_failed(Errno::ETIMEDOUT, now + Duration::from_secs(5)));
        assert_eq!(durability.trouble_age(now + Duration::from_secs(9)), Some(Duration::from_secs(9)));
        assert!(durability.on_failed(Errno::ENOSPC, now + Duration::from_secs(9)), "another reason is news");
        assert_eq!(durability.on_stored().map(|trouble| trouble.since), Some(now));
        assert_eq!(durability.on_stored(), None);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Change(u64),
        /// A group is taken down, and is durable after this many more events, or never.
        Journal(Option<usize>),
        Commit(Option<usize>),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let end = || proptest::option::of(0usize..4);
        let event = prop_oneof![
            3 => (0u64..5).prop_map(Event::Change),
            1 => end().prop_map(Event::Journal),
            1 => end().prop_map(Event::Commit),
        ];
        proptest::collection::vec(event, 1..60)
    }

    proptest! {
        #[test]
        fn what_is_called_durable_was_written_by_a_write_that_succeeded(
            events in events(), write_back: bool,
        ) {
            let mut durability = Durability::new(write_back, write_back);
            // The model: by change its key; what each medium really holds, by key the newest number.
            let mut changes: Vec<u64> = Vec::new();
            let mut media: [BTreeMap<u64, u64>; 2] = [BTreeMap::new(), BTreeMap::new()];
            let mut running: Vec<(usize, usize, BTreeMap<u64, u64>, u64)> = Vec::new();
            for (at, event) in events.iter().enumerate() {
                match event {
                    Event::Change(inode) => {
                        prop_assert_eq!(change(&mut durability, *inode), changes.len() as u64 + 1);
                        changes.push(*inode);
                    }
                    Event::Journal(end) | Event::Commit(end) => {
                        let medium = usize::from(matches!(event, Event::Commit(_)));
                        let newest = |inode: u64| changes.iter().rposition(|key| *key == inode);
                        let all = || (0..5).filter_map(|i| Some((i, newest(i)? as u64 + 1)));
                        let group = match medium == 0 && write_back {
                            // Only what is said to be lacking is written.
                            true => durability.lacking().filter_map(|key| match key {
                                Key::Inode(inode) => Some((*inode, newest(*inode)? as u64 + 1)),
                                _ => None,
                            }).collect(),
                            false => all().collect(),
                        };
                        if let Some(end) = end {
                            running.push((at + end, medium, group, durability.newest()));
                        }
                    }
                }
                // One journal write at a time, as under its turn; so they end in order.
                let (ended, rest) = running.into_iter().partition(|(end, ..)| *end <= at);
                running = rest;
                for (_, medium, group, through) in ended {
                    for (inode, number) in group {
                        let held = media[medium].entry(inode).or_default();
                        *held = (*held).max(number);
                    }
                    match medium {
                        0 => durability.on_journaled(through, true),
                        _ => durability.on_committed(through),
                    }
                }
                for number in 1..=changes.len() as u64 {
                    if durability.is_durable(number) {
                        let inode = changes[number as usize - 1];
                        let held = |medium: usize| media[medium].get(&inode).copied().unwrap_or(0);
                        prop_assert!(
                            held(1) >= number || (write_back && held(0) >= number),
                            "change {} of {} is said to be durable", number, inode
                        );
                    }
                }
            }
        }
    }
}
