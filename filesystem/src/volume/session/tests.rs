//! The decision alone: several sessions over a register that is a variable.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The register: which version of the sessions is the newest.
#[derive(Clone, Default, PartialEq, Debug)]
struct Register {
    version: u64,
    present: Present,
}

/// One mount: what it stands on, and what it has under way.
#[derive(Debug)]
struct Mount {
    session: Session,
    version: u64,
    look: Option<(Instant, Register)>,
    commit: Option<(Instant, Option<Intent>)>,
}

impl Mount {
    fn new(id: u64, device: u64, register: &Register, now: Instant) -> Mount {
        let mut session = Session::new(id.to_le_bytes(), device, 0, true, (Label::default(), [0; 32]));
        session.announce(&[]);
        session.on_tree(register.present.clone(), now);
        Mount { session, version: register.version, look: None, commit: None }
    }

    /// Begins a look, or ends the one that is under way with what the register held when it began.
    fn look(&mut self, register: &Register, now: Instant) {
        match self.look.take() {
            None => self.look = Some((now, register.clone())),
            Some((begun, seen)) if seen.version <= self.version => self.session.on_look(begun),
            Some((_, seen)) => {
                self.version = seen.version;
                self.session.on_tree(seen.present, now);
            }
        }
    }

    /// Begins a commit of all that there is, or ends it: published on what it was made on, or lost to what is there.
    fn commit(&mut self, register: &mut Register, has_changes: bool, now: Instant) {
        self.commit_as(register, has_changes, true, now);
    }

    fn commit_as(&mut self, register: &mut Register, has_changes: bool, has_all: bool, now: Instant) {
        let Some((begun, intent)) = self.commit.take() else {
            self.session.on_commit();
            self.commit = Some((now, self.session.wants(now)));
            return;
        };
        if register.version != self.version {
            self.version = register.version;
            return self.session.on_tree(register.present.clone(), now);
        }
        let changes = intent.map_or_else(Changes::new, |intent| self.session.changes(&intent, has_all));
        self.session.on_committed(&changes, has_changes, begun, now);
        register.version += 1;
        self.version = register.version;
        register.present = self.session.present.clone();
        register.present.extend(&self.session.lost);
    }

    /// Commits until there is nothing to say, as a committer that nobody races with.
    fn settle(&mut self, register: &mut Register, now: Instant) {
        while self.session.wants(now).is_some() {
            self.commit(register, false, now);
            self.commit(register, false, now);
        }
    }

    fn take_over(&mut self, register: &Register, now: Instant) {
        self.look(register, now);
        self.look(register, now);
    }
}

/// Two mounts, the first alone when the second enters.
fn holder_and_newcomer() -> (Register, Mount, Mount, Instant) {
    let (mut register, now) = (Register::default(), Instant::now());
    let mut holder = Mount::new(1, 1, &register, now);
    holder.settle(&mut register, now);
    assert_eq!(holder.session.alone_for(now), Some(LEASE - MARGIN));
    let mut newcomer = Mount::new(2, 2, &register, now);
    newcomer.settle(&mut register, now);
    (register, holder, newcomer, now)
}

#[test]
fn a_lone_session_is_alone_at_once_and_as_long_as_it_looks() {
    let (mut register, now) = (Register::default(), Instant::now());
    let mut mount = Mount::new(1, 1, &register, now);
    assert!(!mount.session.is_settled(now));
    mount.settle(&mut register, now);
    for second in 1..100 {
        let now = now + second * SECOND;
        mount.take_over(&register, now);
        assert!(mount.session.is_settled(now));
        assert_eq!(mount.session.alone_for(now), Some(LEASE - MARGIN));
    }
    assert_eq!(mount.session.alone_for(now + 99 * SECOND + LEASE), None, "it did not look again");
    assert_eq!(register.version, 1, "and that took one commit");
}

#[test]
fn a_newcomer_waits_until_the_holder_has_said_that_it_is_with_others() {
    let (mut register, mut holder, mut newcomer, now) = holder_and_newcomer();
    assert!(!newcomer.session.is_settled(now + SECOND));
    let now = now + SECOND;
    // A commit that began before it knew says nothing of what came after.
    holder.take_over(&register, now);
    assert_eq!(holder.session.alone_for(now), None, "from the moment that it knows");
    assert_eq!(holder.session.wants(now), Some(Intent::Share));
    newcomer.take_over(&register, now);
    assert!(!newcomer.session.is_settled(now));
    holder.settle(&mut register, now);
    newcomer.take_over(&register, now);
    assert!(newcomer.session.is_settled(now));
    assert_eq!(newcomer.session.alone_for(now), None);
}

#[test]
fn a_holder_that_was_killed_holds_nobody_up_for_longer_than_its_lease() {
    let (mut register, holder, mut newcomer, now) = holder_and_newcomer();
    drop(holder);
    assert_eq!(newcomer.session.wants(now + LEASE - SECOND), None);
    let now = now + LEASE;
    assert!(newcomer.session.is_settled(now));
    newcomer.settle(&mut register, now);
    assert_eq!(newcomer.session.alone_for(now), Some(LEASE - MARGIN));
    assert_eq!(register.present[&1].state, SessionState::Lost, "it may have something that nobody else has");
    assert_eq!(register.present.len(), 2);
}

#[test]
fn a_holder_that_nods_is_waited_for_and_one_that_stops_is_not() {
    let (_, _, mut newcomer, now) = holder_and_newcomer();
    for second in 0..60 {
        newcomer.session.on_heard(1u64.to_le_bytes(), now + second * SECOND);
        newcomer.session.on_heard(3u64.to_le_bytes(), now + second * SECOND + LEASE);
        assert!(!newcomer.session.is_settled(now + second * SECOND + LEASE - SECOND));
    }
    assert!(newcomer.session.is_settled(now + 59 * SECOND + LEASE));
}

#[test]
fn a_struck_holder_enters_again_and_is_not_settled_before_the_other_has_answered() {
    let (mut register, mut holder, mut newcomer, now) = holder_and_newcomer();
    let now = now + 3 * LEASE;
    newcomer.settle(&mut register, now);
    assert_eq!(holder.session.alone_for(now), None, "its time is over before it knows why");
    holder.take_over(&register, now);
    assert!(!holder.session.is_settled(now));
    holder.settle(&mut register, now);
    assert!(!holder.session.is_settled(now) && holder.session.mine().is_some());
    newcomer.take_over(&register, now);
    newcomer.settle(&mut register, now);
    holder.take_over(&register, now);
    assert!(holder.session.is_settled(now));
}

#[test]
fn who_stays_is_alone_again_when_the_other_has_left() {
    let (mut register, mut holder, mut newcomer, now) = holder_and_newcomer();
    holder.take_over(&register, now);
    holder.settle(&mut register, now);
    newcomer.take_over(&register, now);
    newcomer.session.leave();
    newcomer.settle(&mut register, now);
    assert_eq!(newcomer.session.wants(now), None);
    holder.take_over(&register, now);
    assert_eq!(holder.session.wants(now), Some(Intent::BeAlone));
    holder.settle(&mut register, now);
    assert_eq!(holder.session.alone_for(now), Some(LEASE - MARGIN));
}

#[test]
fn whoever_knows_that_the_one_before_it_is_over_takes_its_place_without_waiting() {
    let (mut register, now) = (Register::default(), Instant::now());
    Mount::new(1, 1, &register, now).settle(&mut register, now);
    let mut copied = Mount::new(3, 1, &register, now);
    copied.settle(&mut register.clone(), now);
    assert!(!copied.session.is_settled(now), "the other may live");
    let mut restarted = Mount::new(2, 1, &register, now);
    restarted.session.announce(&[1u64.to_le_bytes()]);
    restarted.settle(&mut register, now);
    assert!(restarted.session.is_settled(now));
    assert_eq!(restarted.session.alone_for(now), Some(LEASE - MARGIN));
}

#[test]
fn a_silent_session_is_asked_and_struck_out_and_a_live_one_answers() {
    let (mut register, mut holder, mut newcomer, mut now) = holder_and_newcomer();
    holder.take_over(&register, now);
    holder.settle(&mut register, now);
    newcomer.take_over(&register, now);
    now += ASK_AFTER;
    assert_eq!(newcomer.session.wants(now), None, "who does nothing needs not know");
    for is_there in [true, true, false] {
        newcomer.commit(&mut register, true, now);
        newcomer.commit(&mut register, true, now);
        assert_eq!(newcomer.session.wants(now), Some(Intent::Ask));
        newcomer.settle(&mut register, now);
        if is_there {
            holder.take_over(&register, now);
            assert_eq!(holder.session.wants(now), Some(Intent::Answer));
            holder.settle(&mut register, now);
            newcomer.take_over(&register, now);
            assert_eq!(newcomer.session.wants(now + SILENCE - SECOND), None);
            now += SILENCE.max(ASK_AFTER);
        }
    }
    assert_eq!(newcomer.session.wants(now + SILENCE - SECOND), None);
    now += SILENCE;
    newcomer.settle(&mut register, now);
    assert_eq!(newcomer.session.alone_for(now), Some(LEASE - MARGIN));
}

#[test]
fn one_that_is_lost_is_back_or_its_successor_is_before_its_record_goes() {
    for comes_back in [true, false] {
        let (mut register, mut holder, mut newcomer, now) = holder_and_newcomer();
        let now = now + LEASE;
        newcomer.settle(&mut register, now);
        assert_eq!(register.present[&1].state, SessionState::Lost);
        match comes_back {
            true => {
                holder.take_over(&register, now);
                holder.settle(&mut register, now);
                assert_eq!(register.present[&1].state, SessionState::Shared);
            }
            false => {
                let mut stranger = Mount::new(3, 1, &register, now);
                stranger.settle(&mut register, now);
                assert_eq!(register.present[&1].state, SessionState::Lost, "a copy of its directory");
                let mut successor = Mount::new(4, 1, &register, now);
                successor.session.announce(&[1u64.to_le_bytes()]);
                successor.settle(&mut register, now);
                assert_eq!(register.present.get(&1), None);
                assert_eq!(register.present[&3].state, SessionState::Lost, "of the same device");
            }
        }
    }
}

#[test]
fn a_predecessor_is_lost_until_what_it_left_is_published_and_stays_if_it_is_back() {
    for is_back in [false, true] {
        let (mut register, mut holder, _, now) = holder_and_newcomer();
        let mut successor = Mount::new(3, 1, &register, now);
        successor.session.announce(&[1u64.to_le_bytes()]);
        successor.session.on_tree(register.present.clone(), now);
        successor.commit_as(&mut register, false, false, now);
        successor.commit_as(&mut register, false, false, now);
        assert_eq!(register.present[&1].state, SessionState::Lost, "what it left is yet to be published");
        assert_eq!(successor.session.over(), [1u64.to_le_bytes()], "and to be noted until it is");
        if is_back {
            // An image of the disk was started elsewhere: the other lives.
            holder.take_over(&register, now);
            holder.settle(&mut register, now);
            successor.take_over(&register, now);
        }
        successor.settle(&mut register, now);
        successor.commit(&mut register, true, now);
        successor.commit(&mut register, true, now);
        assert_eq!(register.present.contains_key(&1), is_back);
        assert!(successor.session.over().is_empty());
    }
}

#[test]
fn one_without_a_journal_that_is_silent_is_gone_and_leaves_nothing_to_wait_for() {
    let (mut register, now) = (Register::default(), Instant::now());
    let mut command = Mount::new(1, 1, &register, now);
    command.session.has_journal = false;
    command.settle(&mut register, now);
    let mut newcomer = Mount::new(2, 2, &register, now);
    newcomer.settle(&mut register, now);
    newcomer.settle(&mut register, now + LEASE);
    assert_eq!(register.present.keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn one_that_is_lost_and_ends_in_order_leaves_no_record() {
    let (mut register, mut holder, mut newcomer, now) = holder_and_newcomer();
    newcomer.settle(&mut register, now + LEASE);
    assert_eq!(register.present[&1].state, SessionState::Lost);
    holder.session.leave();
    holder.take_over(&register, now + LEASE);
    holder.settle(&mut register, now + LEASE);
    assert_eq!(register.present.get(&1), None);
}

#[test]
fn a_collection_is_cleared_by_a_commit_of_all_and_not_by_one_that_only_enters() {
    let (mut register, now) = (Register::default(), Instant::now());
    let mut mount = Mount::new(1, 1, &register, now);
    mount.session.on_collection(5);
    assert_eq!(mount.session.wants(now), Some(Intent::Enter));
    mount.commit_as(&mut register, false, false, now);
    mount.commit_as(&mut register, false, false, now);
    assert_eq!(register.present[&1].cleared, 0);
    assert!(mount.session.is_to_clear(5));
    assert_eq!(mount.session.wants(now), Some(Intent::Answer));
    mount.settle(&mut register, now);
    assert_eq!(register.present[&1].cleared, 5);
    assert!(!mount.session.is_to_clear(5));
    assert_eq!(mount.session.standing(&register.present), Standing::Known);
    assert_eq!(mount.session.standing(&Present::new()), Standing::Absent);
    let put_back = Mount::new(1, 1, &register, now);
    assert_eq!(put_back.session.standing(&register.present), Standing::PutBack { cleared: 5 });
    assert_eq!(mount.session.alone_for(now), Some(LEASE - MARGIN), "which costs nobody the drive");
    mount.session.on_collection(0);
    assert_eq!(mount.session.wants(now), None);
    // A commit that has begun has not all that is needed.
    mount.commit(&mut register, true, now);
    mount.session.on_collection(9);
    mount.commit(&mut register, true, now);
    assert_eq!(register.present[&1].cleared, 5);
    mount.settle(&mut register, now);
    assert_eq!(register.present[&1].cleared, 9);
    // Whoever enters with all that it has need not be waited for.
    let mut newcomer = Mount::new(2, 2, &register, now);
    newcomer.session.on_collection(9);
    newcomer.settle(&mut register, now);
    assert_eq!(register.present[&2].cleared, 9);
}

#[test]
fn one_that_never_comes_back_is_forgotten_once_it_is_lost() {
    let (mut register, holder, mut newcomer, now) = holder_and_newcomer();
    drop(holder);
    newcomer.session.forget(&[1]);
    newcomer.settle(&mut register, now);
    assert_eq!(register.present[&1].state, SessionState::Alone, "it may be at work");
    let now = now + LEASE;
    newcomer.session.on_collection(9);
    newcomer.settle(&mut register, now);
    assert_eq!(register.present.keys().collect::<Vec<_>>(), [&2]);
    assert!(newcomer.session.has_forgotten());
    assert_eq!(register.present[&2].cleared, 9);
    assert_eq!(newcomer.session.alone_for(now), Some(LEASE - MARGIN));
}

#[test]
fn one_whose_user_may_not_write_any_more_goes_at_once_and_nobody_waits_out_its_lease() {
    let (mut register, now) = (Register::default(), Instant::now());
    let mut holder = Mount::new(1, 1, &register, now);
    holder.settle(&mut register, now);
    let mut newcomer = Mount::new(2, 2, &register, now);
    newcomer.session.shut_out(register.present.clone());
    assert!(!newcomer.session.has_forgotten());
    newcomer.settle(&mut register, now);
    assert!(newcomer.session.has_forgotten() && newcomer.session.is_settled(now));
    assert_eq!(register.present.keys().collect::<Vec<_>>(), [&2], "its own stays");
    // Should he be let in again, he finds out.
    assert_eq!(holder.session.standing(&register.present), Standing::Absent);
}

#[test]
fn one_that_says_something_since_it_was_seen_to_be_shut_out_stays() {
    let (mut register, now) = (Register::default(), Instant::now());
    let mut holder = Mount::new(1, 1, &register, now);
    holder.settle(&mut register, now);
    let seen = register.present.clone();
    // Let in again meanwhile, he has cleared the way.
    holder.session.on_collection(7);
    holder.settle(&mut register, now);
    assert_eq!(register.present[&1].cleared, 7);
    let mut newcomer = Mount::new(2, 2, &register, now);
    newcomer.session.shut_out(seen.clone());
    assert!(newcomer.session.has_forgotten());
    newcomer.settle(&mut register, now);
    assert!(register.present.contains_key(&1));
    // That somebody else struck it out is nothing that it said.
    let lost = SessionRecord { state: SessionState::Lost, ..seen[&1] };
    register.present.insert(1, lost);
    let mut newcomer = Mount::new(3, 3, &register, now);
    newcomer.session.shut_out(seen);
    newcomer.settle(&mut register, now);
    assert!(newcomer.session.has_forgotten() && !register.present.contains_key(&1));
}

#[test]
fn those_that_are_said_to_be_silent_are_asked_at_once_and_nobody_else_is_struck_out() {
    let (mut register, now) = (Register::default(), Instant::now());
    let mut mounts: Vec<Mount> = (1..=3).map(|id| Mount::new(id, id, &register, now)).collect();
    for _ in 0..3 {
        for mount in &mut mounts {
            mount.take_over(&register, now);
            mount.settle(&mut register, now);
        }
    }
    let mut helper = Mount::new(4, 4, &register, now);
    helper.settle(&mut register, now);
    helper.session.count_out(&[1, 2]);
    assert_eq!(helper.session.wants(now), Some(Intent::Ask));
    helper.settle(&mut register, now);
    mounts[1].take_over(&register, now);
    mounts[1].settle(&mut register, now);
    helper.take_over(&register, now);
    assert!(helper.session.has_answered(2) && !helper.session.has_answered(1));
    helper.settle(&mut register, now + SILENCE);
    let states: Vec<SessionState> = register.present.values().map(|record| record.state).collect();
    let (shared, lost) = (SessionState::Shared, SessionState::Lost);
    assert_eq!(states, [lost, shared, shared, shared], "the third was not asked about");
    assert_eq!(helper.session.present_of(&[1, 2]), [2]);
}

#[test]
fn a_look_that_began_before_a_newcomer_entered_leaves_nobody_alone() {
    let (register, mut holder, _, now) = holder_and_newcomer();
    let seen = [(1, register.present[&1])].into();
    holder.session.on_tree(seen, now + LEASE);
    assert_eq!(holder.session.alone_for(now + LEASE), None, "not even for a moment");
}

#[derive(Clone, Debug)]
enum Event {
    Look(usize),
    Commit(usize, bool),
    Leave(usize),
    /// Killed, and started again: on the same device, or on another.
    Restart(usize, bool),
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let mount = || 0usize..3;
    let event = prop_oneof![
        6 => mount().prop_map(Event::Look),
        6 => (mount(), any::<bool>()).prop_map(|(mount, changes)| Event::Commit(mount, changes)),
        1 => mount().prop_map(Event::Leave),
        1 => (mount(), any::<bool>()).prop_map(|(mount, same)| Event::Restart(mount, same)),
        3 => (0u64..4000).prop_map(Event::Pass),
        1 => (0u64..40_000).prop_map(Event::Pass),
    ];
    proptest::collection::vec(event, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nobody_relies_on_being_alone_while_another_is_served(events in events()) {
        let (mut register, mut now) = (Register::default(), Instant::now());
        let mut mounts: Vec<Mount> = (1..4).map(|id| Mount::new(id, id, &register, now)).collect();
        let mut next = 10;
        for event in events {
            match event {
                Event::Look(at) => mounts[at].look(&register, now),
                Event::Commit(at, has_changes) => mounts[at].commit(&mut register, has_changes, now),
                Event::Leave(at) => mounts[at].session.leave(),
                Event::Restart(at, is_same) => {
                    next += 1;
                    let device = if is_same { mounts[at].session.device } else { next };
                    mounts[at] = Mount::new(next, device, &register, now);
                }
                Event::Pass(milliseconds) => now += Duration::from_millis(milliseconds),
            }
            let alone: Vec<usize> =
                (0..3).filter(|at| mounts[*at].session.alone_for(now).is_some()).collect();
            prop_assert!(alone.len() <= 1, "{alone:?} of {mounts:?}");
            for (at, other) in mounts.iter().enumerate() {
                // One that does not know the newest root learns of it before it opens anything.
                let is_served = other.session.mine().is_some()
                    && other.session.phase != Phase::Leaving
                    && other.version == register.version
                    && other.session.is_settled(now);
                prop_assert!(!is_served || alone.iter().all(|lone| *lone == at), "{at} beside {alone:?} of {mounts:?}");
            }
        }
    }
}
