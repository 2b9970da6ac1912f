//! Which of the values that others tell of a register a node takes over, and under which times. Pure.
//!
//! A value is its writer's word, and a thief may be a writer: one node with him could show what nobody chose, under any time. So a
//! value counts that so many show that one of them at least tells the truth, as whoever writes relies on that as well: two of those who
//! keep it three times. What such a one has taken over from others counts as its own, for it took that by the same rule. What
//! fewer show counts if it is proved to come before one that counts, by the hashes that this remembers; whoever took it over for
//! that says so, and is no further witness: else two would be there of what one made up, as soon as anybody has learned it.
//!
//! **When it was.** Where so many say it that the liars among them are in the minority, the one in the middle lies between what two
//! say who tell the truth. Of fewer the latest is taken, if they differ by no more than clocks may; else nobody can tell, and the
//! value is kept under the first time and under the last. So it goes no sooner than it should, and later only if somebody lies or
//! was away: by one retention, since nothing counts as from after now. The first of two times ends nothing that was before, here or
//! where it is kept. What is proved by its successor is from right before that, as far as anybody knows: its one witness could have it
//! end what was there for long.

use std::collections::{BTreeMap, BTreeSet};

use overlay::NodeId;

use super::values::SKEW_MAX_SECONDS;
use crate::block_store::HeaderHash;
use crate::message::PastEntry;

/// A value that may be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) version: u64,
    pub(crate) header_hash: HeaderHash,
    /// Under which times, in order: one, or two.
    pub(crate) times: Vec<u64>,
    /// Which nodes show it, and under which time.
    pub(crate) shown_by: Vec<(NodeId, u64)>,
    /// Enough show it. Otherwise it has to be proved.
    pub(crate) is_agreed: bool,
}

/// Who shows a value, under which time, and whether it was only proved to him.
type Claim = (NodeId, u64, bool);

/// What `shown` by some nodes comes to at `now_seconds`, the oldest version first, if there is one that tells the truth among each
/// `needed` of them.
pub(crate) fn agreed(shown: &[(NodeId, Vec<PastEntry>)], needed: usize, now_seconds: u64) -> Vec<Told> {
    let mut claims: BTreeMap<(u64, HeaderHash), Vec<Claim>> = BTreeMap::new();
    for (node, entries) in shown {
        let mut seen = BTreeSet::new();
        let (said, heard): (Vec<_>, Vec<_>) = entries.iter().rev().partition(|entry| !entry.is_proved);
        for PastEntry { since_seconds, version, header_hash, is_proved, .. } in said.into_iter().chain(heard)
        {
            // Of one that it shows twice, what it says itself, and when it had it at the latest: it may have the earlier time from one
            // that lies.
            if seen.insert((*version, *header_hash)) {
                let claims = claims.entry((*version, *header_hash)).or_default();
                claims.push((*node, *since_seconds, *is_proved));
            }
        }
    }
    let told = claims.into_iter().map(|((version, header_hash), claims)| {
        let witnesses = claims.iter().filter(|(.., is_proved)| !is_proved).count();
        let counts = |is_proved: bool| !is_proved || witnesses == 0;
        let said = claims.iter().filter(|(.., is_proved)| counts(*is_proved));
        let mut said: Vec<u64> = said.map(|(_, since, _)| (*since).min(now_seconds)).collect();
        said.sort_unstable();
        let (first, last) = (said[0], said[said.len() - 1]);
        let times = if said.len() >= 2 * needed - 1 {
            vec![said[said.len() / 2]]
        } else if last - first <= SKEW_MAX_SECONDS {
            vec![last]
        } else {
            vec![first, last]
        };
        let is_agreed = witnesses >= needed;
        let shown_by = claims.into_iter().map(|(node, since, _)| (node, since)).collect();
        Told { version, header_hash, times, shown_by, is_agreed }
    });
    told.collect()
}

/// Those of what is [`agreed`] on that are older than the retention, which began at `begin_seconds`, by their places: what counts that came
/// after them came before that.
pub(crate) fn over(told: &[Told], begin_seconds: u64) -> BTreeSet<usize> {
    let (mut over, mut next) = (BTreeSet::new(), None::<u64>);
    for (index, value) in told.iter().enumerate().rev() {
        if next.is_some_and(|next| next < begin_seconds) {
            over.insert(index);
        }
        if value.is_agreed {
            next = value.times.last().copied();
        }
    }
    over
}

#[cfg(test)]
mod tests {
    use reactor::crypto::Identity;

    use super::*;

    fn entry(version: u64, hash: u8, since_seconds: u64) -> PastEntry {
        let writer = Identity::from_seed(&[1; 32]).public_key();
        PastEntry { since_seconds, version, header_hash: HeaderHash([hash; 32]), writer, is_proved: false }
    }

    fn node(number: u8, entries: &[(u64, u8, u64)]) -> (NodeId, Vec<PastEntry>) {
        let entries = entries.iter().map(|(version, hash, since)| entry(*version, *hash, *since));
        (NodeId([number; 32]), entries.collect())
    }

    fn times(told: &[Told], version: u64) -> Vec<u64> {
        told.iter().find(|value| value.version == version).unwrap().times.clone()
    }

    #[test]
    fn what_one_of_three_shows_alone_does_not_count_and_its_times_move_nobody_elses() {
        let honest = [(1, 1, 1000), (2, 2, 2000), (3, 3, 3000)];
        let liar = [(1, 1, 0), (2, 9, 2000), (2, 2, 9000), (3, 3, u64::MAX)];
        let told = agreed(&[node(1, &honest), node(2, &honest), node(3, &liar)], 2, 5000);
        let planted: Vec<_> =
            told.iter().filter(|value| !value.is_agreed).map(|value| value.version).collect();
        assert_eq!((planted, told.len()), (vec![2], 4));
        for (version, _, since) in honest {
            assert_eq!(times(&told, version), [since]);
        }
    }

    #[test]
    fn of_two_that_contradict_each_other_neither_has_a_value_forgotten_sooner_or_kept_from_after_now() {
        let told =
            agreed(&[node(1, &[(1, 1, 1000), (2, 2, 2000)]), node(2, &[(1, 1, 7), (2, 2, 9999)])], 2, 5000);
        assert_eq!((times(&told, 1), times(&told, 2)), (vec![7, 1000], vec![2000, 5000]));
        let told = agreed(&[node(1, &[(1, 1, 1000)]), node(2, &[(1, 1, 1010)])], 2, 5000);
        assert_eq!(times(&told, 1), [1010], "clocks differ");
    }

    #[test]
    fn who_took_something_over_only_as_it_was_proved_is_no_witness_of_it_nor_of_when_it_was() {
        let (liar, mut learners) =
            (node(1, &[(1, 1, 7)]), [node(2, &[(1, 1, 2000)]), node(3, &[(1, 1, 2000)])]);
        learners.iter_mut().for_each(|(_, entries)| entries[0].is_proved = true);
        let [first, second] = learners;
        let told = agreed(&[liar.clone(), first.clone(), second.clone()], 2, 5000);
        assert_eq!((told[0].is_agreed, told[0].shown_by.len(), &told[0].times[..]), (false, 3, &[7][..]));
        let told = agreed(&[first, second], 2, 5000);
        assert!(!told[0].is_agreed);
        let told = agreed(&[liar, node(4, &[(1, 1, 7)])], 2, 5000);
        assert!(told[0].is_agreed);
    }

    #[test]
    fn who_heard_of_what_it_accepted_itself_is_a_witness_of_it() {
        let mut twice = node(2, &[(1, 1, 2000), (1, 1, 3000)]);
        twice.1[1].is_proved = true;
        let told = agreed(&[node(1, &[(1, 1, 2000)]), twice], 2, 5000);
        assert!(told[0].is_agreed && told[0].times == [2000], "{told:?}");
    }

    #[test]
    fn one_that_has_learned_two_times_says_the_later_one() {
        let two = node(1, &[(1, 1, 1000), (2, 2, 1001), (2, 2, 3000)]);
        let told = agreed(&[two, node(2, &[(2, 2, 1001)]), node(3, &[(2, 2, 3000)])], 2, 5000);
        assert_eq!(times(&told, 2), [3000]);
    }

    #[test]
    fn what_was_replaced_before_the_retention_began_is_not_taken_over() {
        let all = [(1, 1, 1000), (2, 2, 2000), (3, 3, 3000)];
        let told = agreed(&[node(1, &all), node(2, &all)], 2, 5000);
        assert_eq!(over(&told, 2000), BTreeSet::new());
        assert_eq!(over(&told, 2001), BTreeSet::from([0]));
        assert_eq!(over(&told, 4000), BTreeSet::from([0, 1]), "the newest was that then");
    }
}
