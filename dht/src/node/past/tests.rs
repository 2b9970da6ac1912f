//! Which values a keeper keeps, whatever a writer does.

use std::rc::Rc;

use bytes::Bytes;
use overlay::NodeId;
use reactor::crypto::Identity;
use reactor::sim::{self, SimConfig};

use super::turns::{PARTS, QUICK_MAX};
use super::*;
use crate::block::mutable::{Genesis, Signed};
use crate::block::proposal::Proposed;
use crate::message::AcceptRequest;
use crate::node::Gate;
use crate::paxos::{Ballot, ProposerId};
use crate::store::MemoryStore;

const DAY: u32 = 24 * 3600;
const NOW: u64 = 100 * 24 * 3600;

/// What is left of values that were accepted at `times`, in order, if each is kept as it is replaced.
fn kept_of(times: impl Iterator<Item = u64>, retention: impl Fn(u64) -> u32) -> Vec<u64> {
    let (mut kept, mut since) = (Vec::new(), None);
    for now in times {
        let slot = slot_seconds(retention(now));
        if let Some(since) = since.filter(|since| since / slot != now / slot) {
            kept.push(since);
            let gone = superfluous(&kept, now, retention(now));
            kept.retain(|time| !gone.contains(time));
        }
        since = Some(now);
    }
    kept.extend(since);
    kept
}

#[test]
fn what_was_the_newest_at_any_time_of_the_retention_is_there_to_the_slot() {
    for (retention, step) in [(DAY, 7), (7 * DAY, 60), (14 * DAY, 700), (14 * DAY, 5000)] {
        let first = NOW - 20 * u64::from(DAY);
        // It was shorter at first.
        let at = |now| if now < NOW - 2 * u64::from(retention) { retention / 2 } else { retention };
        let kept = kept_of((first..NOW).step_by(step), at);
        let (begin, slot) = (NOW - u64::from(retention), slot_seconds(retention));
        for moment in (begin..NOW).step_by(997) {
            let nearest = kept.iter().rev().find(|time| **time <= moment);
            let nearest = nearest.unwrap_or_else(|| panic!("nothing from before {moment}"));
            assert!(
                moment - nearest <= slot + step as u64,
                "{nearest} for {moment} of {retention} by {step}"
            );
        }
        assert!(kept.iter().all(|time| *time + slot + 2 * step as u64 > begin));
        assert!(kept.len() <= 1008 + 4, "{}", kept.len());
    }
}

/// What went wrong: who lengthened the retention after an attack had the nodes forget what was right before it.
#[test]
fn a_longer_retention_forgets_nothing_of_what_was_kept_under_the_shorter_one() {
    // As many as there may be, in slots of ten minutes that are within one of two hours.
    let of_slot = |slot: u64| (0..IN_SLOT_MAX as u64).map(move |number| NOW + 600 * slot + 10 * number);
    let times: Vec<u64> = (0..12).flat_map(of_slot).collect();
    for retention in [7, 30, 90] {
        assert!(superfluous(&times, NOW + 7200, retention * DAY).is_empty(), "{retention} days");
    }
}

#[test]
fn of_more_than_may_be_kept_those_go_first_that_are_neither_the_first_nor_the_last_of_a_slot() {
    let dense = (0..60).map(|number| NOW + 10 * number);
    let times: Vec<u64> = dense.chain((1..).map(|slot| NOW + 1000 * slot)).take(KEPT_MAX + 5).collect();
    let gone = superfluous(&times, NOW, 7 * DAY);
    assert_eq!(gone, times[IN_SLOT_MAX..IN_SLOT_MAX + 5]);
}

#[test]
fn what_is_kept_has_a_bound_however_the_clock_goes() {
    // As if it had been ahead for long.
    let times: Vec<u64> = (0..KEPT_MAX as u64 + 10).map(|number| NOW + number * 1000).collect();
    let gone = superfluous(&times, NOW, DAY);
    assert_eq!(gone, times[..10], "the oldest go");
    assert!(superfluous(&[], NOW, DAY).is_empty());
    assert!(superfluous(&[NOW + 5], NOW, DAY).is_empty(), "a clock was ahead");
}

struct Story {
    node: Rc<Node>,
    genesis: Signed<Genesis>,
    last: Option<SignedRecord>,
    round: u64,
}

const OWNER: u8 = 1;
const THIEF: u8 = 2;

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

impl Story {
    fn new(retention: u32) -> Story {
        let store = Rc::new(MemoryStore::new());
        let node = Node::new(NodeId([1; 32]), store, Gate::Open, 1);
        node.say_retention(retention);
        let writers = vec![identity(THIEF).public_key()];
        let genesis = Genesis::sign(&identity(OWNER), [5; 32], vec![NodeId([1; 32])], writers);
        Story { node, genesis, last: None, round: 0 }
    }

    fn register(&self) -> RegisterAddress {
        self.genesis.register()
    }

    fn propose(&mut self, writer: u8, record: &SignedRecord) -> Result<(), Refusal> {
        self.round += 1;
        let ballot = Ballot { round: self.round, proposer: ProposerId([writer; 16]), ..Ballot::ZERO };
        let proposed = Proposed::sign(&identity(writer), ballot, record.clone(), None);
        let request = AcceptRequest { membership: self.genesis.clone().into(), proposed };
        self.node.accept(request).map(drop)
    }

    fn commit(&mut self, writer: u8, content: &'static [u8]) -> SignedRecord {
        let content = Bytes::from_static(content);
        let record =
            SignedRecord::sign(&identity(writer), self.register(), self.last.as_ref(), None, content);
        self.propose(writer, &record).unwrap();
        self.last = Some(record.clone());
        record
    }

    /// Without the newest one.
    fn past(&self) -> Vec<PastEntry> {
        let mut listed: Vec<PastEntry> = Vec::new();
        loop {
            let from = listed.iter().map(|entry| entry.since_seconds + 1).max().unwrap_or(0);
            let page = self.node.list_past(&self.register(), from).unwrap();
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        let newest = listed.pop().expect("what it has now is the last");
        let accepted = self.node.read_register(&self.register()).unwrap().and_then(|view| view.accepted);
        assert_eq!(accepted.map(|accepted| accepted.record.hash()), Some(newest.header_hash));
        listed
    }
}

/// Runs in virtual time.
fn simulated(story: impl FnOnce() + Send) {
    sim::run(1, SimConfig::default(), |_| story());
}

#[test]
fn a_thief_that_commits_without_end_pushes_nothing_out() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        story.commit(OWNER, b"first");
        reactor::sleep(std::time::Duration::from_secs(3600));
        let good = story.commit(OWNER, b"what was good");
        let before = good.header.version;
        for _ in 0..50 {
            (0..20).for_each(|_| drop(story.commit(THIEF, b"nothing")));
            reactor::sleep(std::time::Duration::from_secs(90));
        }
        let past = story.past();
        assert!(past.len() < 20, "{}", past.len());
        let entry = past.iter().find(|entry| entry.version == before).expect("it is there");
        assert_eq!((entry.header_hash, entry.writer), (good.hash(), identity(OWNER).public_key()));
        let read = story.node.read_past(&story.register(), entry.since_seconds).unwrap().unwrap();
        assert_eq!((&read, read.verify(&story.genesis, None)), (&good, Ok(())));
        // Until the retention is over.
        reactor::sleep(std::time::Duration::from_secs(8 * u64::from(DAY)));
        story.commit(THIEF, b"nothing");
        story.commit(OWNER, b"nothing");
        assert!(story.past().iter().all(|entry| entry.version != before));
    });
}

fn is_kept(past: &[PastEntry], record: &SignedRecord) -> bool {
    past.iter().any(|entry| entry.header_hash == record.hash())
}

#[test]
fn what_the_owner_did_right_before_an_attack_is_kept_with_the_first_of_that_although_the_thief_had_been_there()
 {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        // Well within a slot.
        reactor::sleep(std::time::Duration::from_secs(604 - now_seconds() % 601 + 30));
        story.commit(OWNER, b"first");
        // A mount enters, and answers what others do, as mounts do.
        story.commit(THIEF, b"here");
        let mut turns = Vec::new();
        for _ in 0..3 {
            reactor::sleep(std::time::Duration::from_secs(2));
            story.commit(OWNER, b"this");
            turns.push(story.commit(OWNER, b"and a snapshot"));
            turns.push(story.commit(THIEF, b"nothing"));
            story.commit(THIEF, b"nothing at all");
        }
        // Which his own mount takes for what the drive is.
        let spoiled = story.commit(OWNER, b"what a thief left");
        let past = story.past();
        assert!(turns.iter().all(|record| is_kept(&past, record)), "{past:?}");
        let place = |record: &SignedRecord| past.iter().position(|entry| entry.header_hash == record.hash());
        let places: Vec<usize> = turns.iter().filter_map(place).collect();
        assert!(places.is_sorted(), "{past:?}");
        // The last of the slot is one of his, and is placed after the attack.
        reactor::sleep(std::time::Duration::from_secs(1300));
        story.commit(OWNER, b"later");
        let past = story.past();
        assert!(is_kept(&past, &spoiled));
        let [.., attack, last] = &past[..] else { panic!("{past:?}") };
        assert_eq!(
            (attack.writer, last.writer),
            (identity(THIEF).public_key(), identity(OWNER).public_key())
        );
    });
}

#[test]
fn who_takes_turns_with_the_owner_without_end_pushes_nothing_out_and_has_a_bound() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        let good = story.commit(OWNER, b"what was good");
        let mut last = Vec::new();
        for _ in 0..500 {
            reactor::sleep(std::time::Duration::from_secs(3));
            story.commit(THIEF, b"nothing");
            last.push((now_seconds(), story.commit(OWNER, b"a snapshot")));
        }
        let (end, _) = last[last.len() - 1];
        story.commit(THIEF, b"the attack");
        let past = story.past();
        assert!(is_kept(&past, &good));
        let youngest = last.iter().rev().find(|(_, record)| is_kept(&past, record)).map(|(at, _)| end - at);
        assert!(youngest.is_some_and(|age| age <= 80), "{youngest:?}");
        // A thousand turns in some two and a half slots.
        let bound = 2 * (QUICK_MAX as usize + PARTS as usize) + 3;
        assert!(past.len() <= 4 * bound && past.len() > 2 * PARTS as usize, "{}", past.len());
        // Whatever is kept of one of them is followed by what the other did, or by the end of a slot.
        let slot = |entry: &PastEntry| entry.since_seconds / slot_seconds(7 * DAY);
        let firsts: Vec<u64> = past.iter().map(slot).collect();
        for one in firsts {
            let writers = past.iter().filter(|entry| slot(entry) == one).map(|entry| entry.writer);
            let writers: std::collections::BTreeSet<_> = writers.map(|key| *key.as_bytes()).collect();
            assert_eq!(writers.len(), 2, "in the slot {one}");
        }
    });
}

#[test]
fn of_each_writer_the_first_turn_in_a_slot_is_kept_whoever_else_took_turns() {
    simulated(|| {
        let others = [OWNER, 3, 4];
        let writers = [THIEF, 3, 4].map(|number| identity(number).public_key()).to_vec();
        let mut story = Story::new(7 * DAY);
        story.genesis = Genesis::sign(&identity(OWNER), [5; 32], vec![NodeId([1; 32])], writers);
        reactor::sleep(std::time::Duration::from_secs(604 - now_seconds() % 601 + 30));
        for turn in 0..60 {
            story.commit(others[turn % 3], b"work");
        }
        let before = story.commit(3, b"the last that is good");
        let first = story.commit(THIEF, b"the attack");
        let next = story.commit(4, b"and on");
        let past = story.past();
        assert!(is_kept(&past, &before) && is_kept(&past, &first), "{past:?}");
        assert!(!is_kept(&past, &next));
        assert!(past.len() <= IN_SLOT_MAX);
    });
}

#[test]
fn who_pads_what_he_writes_has_little_of_it_kept_and_what_was_before_it_all_the_same() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        reactor::sleep(std::time::Duration::from_secs(604 - now_seconds() % 601 + 30));
        static PADDED: [u8; 60_000] = [7; 60_000];
        let mut good = Vec::new();
        for _ in 0..3 {
            good.push(story.commit(OWNER, b"good"));
            story.commit(THIEF, &PADDED);
        }
        let past = story.past();
        assert!(good.iter().all(|record| is_kept(&past, record)), "{past:?}");
        let thiefs = past.iter().filter(|entry| entry.writer == identity(THIEF).public_key()).count();
        assert_eq!(thiefs, 1, "{past:?}");
    });
}

#[test]
fn a_rival_of_the_newest_value_and_one_that_follows_nothing_take_no_other_away() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        let first = story.commit(OWNER, b"first");
        let good = story.commit(OWNER, b"what was good");
        let thief = identity(THIEF);
        let rival =
            SignedRecord::sign(&thief, story.register(), Some(&first), None, Bytes::from_static(b"no"));
        story.propose(THIEF, &rival).unwrap();
        assert!(story.past().iter().any(|entry| entry.header_hash == good.hash()));
    });
}

#[test]
fn the_newest_value_is_listed_last_with_the_time_since_which_it_is_that() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        let first = story.commit(OWNER, b"first");
        reactor::sleep(std::time::Duration::from_secs(3600));
        let second = story.commit(OWNER, b"second");
        reactor::sleep(std::time::Duration::from_secs(3600));
        let listed = story.node.list_past(&story.register(), 0).unwrap();
        let [before, now] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((before.header_hash, now.header_hash), (first.hash(), second.hash()));
        assert_eq!(now.since_seconds - before.since_seconds, 3600);
        let read = |since| story.node.read_past(&story.register(), since).unwrap();
        assert_eq!(read(now.since_seconds), Some(second));
        assert_eq!(story.node.list_past(&story.register(), now.since_seconds).unwrap(), listed[1..]);
        assert_eq!(story.node.list_past(&story.register(), now.since_seconds + 1).unwrap(), []);
    });
}

#[test]
fn who_commits_in_the_second_of_anothers_commit_takes_it_away_neither_then_nor_when_the_slot_ends() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        let good = story.commit(OWNER, b"what was good");
        let bad = story.commit(THIEF, b"nothing");
        reactor::sleep(std::time::Duration::from_secs(3600));
        story.commit(OWNER, b"later");
        let past = story.past();
        let hashes: Vec<_> = past.iter().map(|entry| entry.header_hash).collect();
        assert_eq!(hashes, [good.hash(), bad.hash()]);
        for (entry, record) in past.iter().zip([good, bad]) {
            assert_eq!(story.node.read_past(&story.register(), entry.since_seconds).unwrap(), Some(record));
        }
    });
}

#[test]
fn what_cannot_be_read_hides_nothing_that_came_after_it() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        let register = story.register();
        let begin = now_seconds();
        for number in 0..2 * PAST_LISTED_MAX as u64 {
            story
                .node
                .store
                .put(&key(&register, begin + number), Bytes::from_static(b"not one").into())
                .unwrap();
        }
        reactor::sleep(std::time::Duration::from_secs(DAY.into()));
        let newest = story.commit(OWNER, b"newest");
        let listed = story.node.list_past(&register, 0).unwrap();
        assert_eq!(listed.iter().map(|entry| entry.header_hash).collect::<Vec<_>>(), [newest.hash()]);
    });
}

#[test]
fn a_clock_that_was_set_back_hides_not_what_it_is_now() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        let register = story.register();
        let ahead = story.commit(OWNER, b"by a clock that was ahead");
        story.node.put_past(&register, now_seconds() + 10_000, ahead);
        let newest = story.commit(OWNER, b"newest");
        let listed = story.node.list_past(&register, 0).unwrap();
        let [before, now] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!(now.header_hash, newest.hash());
        assert!(now.since_seconds < before.since_seconds);
        assert_eq!(story.node.list_past(&register, before.since_seconds + 1).unwrap(), []);
    });
}

#[test]
fn nobody_uses_up_the_numbers_of_values() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        let good = story.commit(OWNER, b"what was good");
        let mut header = (*good.header).clone();
        (header.version, header.previous) = (u64::MAX - 1, Some(good.hash()));
        header.writer = identity(THIEF).public_key();
        let last = SignedRecord { header: Signed::sign(&identity(THIEF), header), ..good };
        assert!(matches!(story.propose(THIEF, &last), Err(Refusal::Bounds(_))));
        story.commit(OWNER, b"and so on");
    });
}

#[test]
fn without_a_retention_nothing_is_kept() {
    simulated(|| {
        let mut story = Story::new(0);
        story.commit(OWNER, b"first");
        reactor::sleep(std::time::Duration::from_secs(3600));
        story.commit(OWNER, b"second");
        assert_eq!(story.past(), []);
    });
}

#[test]
fn what_is_over_goes_also_where_nothing_is_accepted_any_more() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        for _ in 0..5 {
            story.commit(OWNER, b"something");
            reactor::sleep(std::time::Duration::from_secs(u64::from(DAY)));
        }
        let all = story.past();
        story.node.forget_past().unwrap();
        assert_eq!((all.len(), story.past()), (4, all.clone()));
        // The second was the newest until the third came, seven days ago but for some seconds.
        reactor::sleep(std::time::Duration::from_secs(4 * u64::from(DAY) - 60));
        story.node.forget_past().unwrap();
        assert_eq!(story.past(), all[1..]);
        reactor::sleep(std::time::Duration::from_secs(30 * u64::from(DAY)));
        story.node.forget_past().unwrap();
        assert_eq!(story.past(), all[3..]);
    });
}

/// What went wrong: from then on it told others, as a witness, a time that nobody had said.
#[test]
fn what_was_only_heard_of_moves_to_when_it_was_as_soon_as_enough_say_so() {
    simulated(|| {
        let mut story = Story::new(7 * DAY);
        let heard = story.commit(OWNER, b"heard of");
        let times = |agreed: &[u64]| {
            let story = Story::new(7 * DAY);
            let (node, register) = (&story.node, story.register());
            let second = node.learn_past(&register, NOW + 1799, NOW + 1799, &heard, true).unwrap();
            let last = node.agree_on_past(&register, second, agreed).unwrap();
            let listed = node.list_past(&register, 0).unwrap();
            assert!(listed.iter().all(|entry| !entry.is_proved && entry.header_hash == heard.hash()));
            assert_eq!(listed.last().map(|entry| entry.since_seconds), Some(last));
            listed.iter().map(|entry| entry.since_seconds).collect::<Vec<_>>()
        };
        for agreed in [&[NOW][..], &[NOW, NOW + 900], &[NOW, NOW + 1799], &[NOW + 1799]] {
            assert_eq!(times(agreed), agreed);
        }
    });
}
