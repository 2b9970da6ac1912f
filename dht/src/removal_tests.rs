//! A writer is put out by a list that some members have and others do not: nothing that was chosen is lost over it, and he
//! undoes nothing. What may be left out, and what not, is reasoned in [`crate::register`].

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use overlay::NodeId;
use reactor::crypto::{Identity, PublicKey};

use crate::block::mutable::{AccessList, Genesis, Signed, SignedRecord};
use crate::block::proposal::{Proposal, Proposed};
use crate::liar_tests::{ballot, history, identity};
use crate::message::{AcceptRequest, PrepareRequest};
use crate::paxos::Ballot;
use crate::store::{Key, Kind};
use crate::testing::{FakeNetwork, FakeOverlay, Mood};
use crate::{BlockStore, Client, Record, SwapError};

/// A register whose owner puts out one of two writers at the last two of its members, while that one has a rival of that value
/// accepted at the first, which was cut off, under a ballot of his own.
struct Removal {
    network: Rc<FakeNetwork>,
    genesis: Signed<Genesis>,
    stays: Rc<Identity>,
    goes: Rc<Identity>,
    /// What follows what both know; the first is that itself.
    values: Vec<SignedRecord>,
}

impl Removal {
    fn new() -> Removal {
        Removal::on(FakeNetwork::new(3, 3, 1))
    }

    fn on(network: Rc<FakeNetwork>) -> Removal {
        let (owner, stays, goes) = (identity(1), identity(5), identity(6));
        let (genesis, ..) = history(&network, vec![stays.public_key(), goes.public_key()]);
        let register = genesis.register();
        let index_of = |id| network.nodes.iter().position(|fake| fake.contact.id == id);
        let member = &network.nodes[index_of(genesis.members[0]).unwrap()];
        let shared = member.node().read_register(&register).unwrap().unwrap();
        let shared = shared.accepted.unwrap().record;
        let list = AccessList::sign(&owner, register, 1, vec![stays.public_key()]);
        let removal =
            SignedRecord::sign(&owner, register, Some(&shared), Some(list), Bytes::from_static(b"removal"));
        let rival = SignedRecord::sign(&goes, register, Some(&shared), None, Bytes::from_static(b"rival"));
        Removal { network, genesis, stays, goes, values: vec![shared, removal, rival] }
    }

    fn have_accepted(&self, members: &[usize], writer: &Identity, round: u64, value: usize) {
        let proposed = Proposed::sign(writer, ballot(round), self.values[value].clone(), None);
        for &index in members {
            let request =
                AcceptRequest { membership: self.genesis.clone().into(), proposed: proposed.clone() };
            self.network.nodes[index].node().accept(request).unwrap();
        }
    }

    fn client(&self, who: &Rc<Identity>) -> Client<FakeOverlay> {
        self.network.client(who).opened(&self.genesis)
    }

    fn read(&self, who: &Rc<Identity>) -> Bytes {
        self.client(who).read(&self.genesis.register()).unwrap().unwrap().payload
    }

    /// Nobody's list is older than the removal's, and the one who goes changes nothing.
    fn is_in_force(&self) {
        let register = self.genesis.register();
        let owner = self.client(&identity(1));
        let before = owner.read(&register).unwrap().unwrap();
        assert_eq!(owner.writers(&register).unwrap(), [self.stays.public_key()]);
        let swap = self.client(&self.goes).compare_and_swap(
            &register,
            Some(before.header_hash),
            Bytes::from_static(b"by who was put out"),
        );
        assert!(swap.is_err(), "{swap:?}");
        let stays = self.client(&self.stays);
        stays.compare_and_swap(&register, Some(before.header_hash), Bytes::from_static(b"on")).unwrap();
        assert_eq!(owner.read(&register).unwrap().unwrap().payload, "on");
        assert_eq!(owner.writers(&register).unwrap(), [self.stays.public_key()]);
    }
}

/// In every order in which the members can answer: the first two make a quorum.
fn in_every_order(story: impl Fn(&Removal)) {
    for slow in 0..3 {
        let removal = Removal::new();
        removal.network.nodes[slow].delay.set(Duration::from_millis(60));
        story(&removal);
    }
}

#[test]
fn a_removal_that_was_chosen_is_not_undone_by_the_hand_of_a_writer_that_is_behind() {
    reactor::run(|| {
        in_every_order(|removal| {
            removal.have_accepted(&[1, 2], &identity(1), 100, 1);
            removal.have_accepted(&[0], &removal.goes, 500, 2);
            let stays = removal.client(&removal.stays);
            let shared = removal.values[0].hash();
            let swap = stays.compare_and_swap(
                &removal.genesis.register(),
                Some(shared),
                Bytes::from_static(b"behind"),
            );
            assert!(
                matches!(&swap, Err(SwapError::Lost(Some(record))) if record.payload == "removal"),
                "{swap:?}"
            );
            for who in [&identity(1), &removal.stays, &identity(9)] {
                assert_eq!(removal.read(who), "removal");
            }
            removal.is_in_force();
        });
    });
}

#[test]
fn an_old_value_that_is_brought_up_again_by_who_was_put_out_undoes_nothing_either() {
    reactor::run(|| {
        in_every_order(|removal| {
            removal.have_accepted(&[1, 2], &identity(1), 100, 1);
            // The owner's own, from before: honest, but for the ballot.
            removal.have_accepted(&[0], &removal.goes, 500, 0);
            assert_eq!(removal.read(&removal.stays), "removal");
            removal.is_in_force();
        });
    });
}

#[test]
fn a_removal_that_reached_one_member_only_stops_neither_that_one_nor_the_others() {
    reactor::run(|| {
        // With all there, and with each of the three away, whatever the two that went on had chosen last.
        for away in [None, Some(0), Some(1)] {
            for value in [0, 2] {
                let removal = Removal::new();
                removal.have_accepted(&[2], &identity(1), 100, 1);
                removal.have_accepted(&[0, 1], &removal.goes, 500, value);
                if let Some(away) = away {
                    removal.network.nodes[away].mood.set(Mood::Dead);
                }
                // It was chosen, so it stays, though who wrote it is put out.
                assert_eq!(removal.read(&removal.stays), removal.values[value].payload);
                removal.client(&identity(1)).read(&removal.genesis.register()).unwrap();
                if away.is_some() {
                    removal.is_in_force();
                }
            }
        }
    });
}

#[test]
fn what_was_chosen_stays_though_a_value_that_followed_it_is_left_out() {
    reactor::run(|| {
        for slow in [None, Some(0), Some(1), Some(2)] {
            let mut removal = Removal::new();
            let (register, rival) = (removal.genesis.register(), removal.values[2].clone());
            let next = Bytes::from_static(b"what followed");
            removal.values.push(SignedRecord::sign(&removal.goes, register, Some(&rival), None, next));
            removal.have_accepted(&[2], &identity(1), 100, 1);
            // Acknowledged; and then its writer was cut off from all but one.
            removal.have_accepted(&[0, 1], &removal.goes, 500, 2);
            removal.have_accepted(&[0], &removal.goes, 501, 3);
            if let Some(slow) = slow {
                removal.network.nodes[slow].delay.set(Duration::from_millis(60));
            }
            let read = removal.client(&removal.stays).read(&register).unwrap().unwrap();
            let follows = read.version == rival.to_record().version + 1 && read.payload == "what followed";
            assert!(read == rival.to_record() || follows, "{slow:?}: {read:?}");
            for who in [&identity(1), &removal.stays, &identity(9)] {
                let later = removal.client(who).read(&register).unwrap().unwrap();
                assert!(later == read || later.version > read.version, "{slow:?}: {later:?}");
            }
        }
    });
}

/// As far ahead of what members have as these let anybody's value be.
const VERSION_AHEAD: u64 = 1 << 32;

/// How the one who goes leaves a member behind that was cut off: with a value far ahead of all others, under a ballot as far
/// ahead as it lets anybody go, and with a promise beyond that.
impl Removal {
    fn lay_trap(&self, member: usize, far: bool) {
        let register = self.genesis.register();
        self.network.nodes[member].mood.set(Mood::Well);
        let node = self.network.nodes[member].node();
        let membership = || self.genesis.clone().into();
        let record = match far {
            false => self.values[2].clone(),
            true => {
                let mut record = self.values[2].clone();
                let mut header = (*record.header).clone();
                header.version = VERSION_AHEAD;
                record.header = Signed::sign(&self.goes, header);
                record
            }
        };
        let proposed = Proposed::sign(&self.goes, ballot(1 << 31), record, None);
        node.accept(AcceptRequest { membership: membership(), proposed }).unwrap();
        let proposal = Proposal::prepare(&self.goes, register, ballot(1 << 32));
        node.prepare(PrepareRequest { membership: membership(), proposal, list: None }).unwrap();
    }

    /// The owner puts out the one who goes, while a member is cut off.
    fn put_out(&self, cut_off: usize) -> Record {
        let register = self.genesis.register();
        self.network.nodes[cut_off].mood.set(Mood::Dead);
        let owner = self.client(&identity(1));
        let before = owner.read(&register).unwrap().unwrap();
        let goes = self.goes.public_key();
        let change = |writers: &mut Vec<PublicKey>| writers.retain(|writer| *writer != goes);
        let payload = Bytes::from_static(b"out");
        owner.swap_with_writers(&register, Some(before.header_hash), &payload, &change).unwrap()
    }
}

/// With a member that missed the removal, and another one away, all that was written since was replaced; and a ballot or a
/// version far ahead kept it out of everything for good.
#[test]
fn who_was_put_out_undoes_nothing_by_a_member_that_was_cut_off_though_another_is_away() {
    reactor::run(|| {
        for far in [false, true] {
            // What others wrote since: nothing, a value, and more than a value remembers.
            for writes in [0, 1, 12] {
                let removal = Removal::new();
                let register = removal.genesis.register();
                let mut last = removal.put_out(0);
                let stays = removal.client(&removal.stays);
                for number in 0..writes {
                    let payload = Bytes::from(vec![number; 3]);
                    let expected = stays.read(&register).unwrap().unwrap();
                    last = stays.compare_and_swap(&register, Some(expected.header_hash), payload).unwrap();
                }
                removal.lay_trap(0, far);
                removal.network.nodes[2].mood.set(Mood::Dead);
                // A writer, the owner, and somebody who may only read: each may be the first to come.
                for first in [&removal.stays, &identity(1), &identity(9)] {
                    let read = removal.client(first).read(&register).unwrap().unwrap();
                    assert_eq!(read, last, "far: {far}, {writes} writes");
                }
                removal.is_in_force();
                // And the member takes its part again.
                let view = removal.network.nodes[0].node().read_register(&register).unwrap().unwrap();
                assert_eq!(view.accepted.unwrap().record.payload, "on");
            }
        }
    });
}

#[test]
fn a_member_in_such_a_trap_is_freed_by_the_next_write_and_by_a_move() {
    reactor::run(|| {
        for moves in [false, true] {
            let network = FakeNetwork::new(4, 3, 1);
            let removal = Removal::on(network.clone());
            let register = removal.genesis.register();
            let index_of =
                |id: &NodeId| network.nodes.iter().position(|fake| fake.contact.id == *id).unwrap();
            let members: Vec<usize> = removal.genesis.members.iter().map(index_of).collect();
            let out = removal.put_out(members[0]);
            removal.lay_trap(members[0], true);
            let owner = removal.client(&identity(1));
            if moves {
                owner.replace_members(&register, &[removal.genesis.members[1]]).unwrap();
            }
            owner.compare_and_swap(&register, Some(out.header_hash), Bytes::from_static(b"next")).unwrap();
            reactor::sleep(Duration::from_millis(20));
            let view = network.nodes[members[0]].node().read_register(&register).unwrap().unwrap();
            assert_eq!(view.accepted.unwrap().record.payload, "next", "moves: {moves}");
            assert_eq!(view.membership.epoch(), u64::from(moves));
        }
    });
}

/// Whoever keeps the register anew knows of no list, and nobody of the new members could say that it is in force.
#[test]
fn who_was_put_out_before_a_move_undoes_nothing_by_a_new_member_that_was_given_nothing_yet() {
    reactor::run(|| {
        for far in [false, true] {
            let network = FakeNetwork::new(4, 3, 1);
            let removal = Removal::on(network.clone());
            let register = removal.genesis.register();
            let index_of =
                |id: &NodeId| network.nodes.iter().position(|fake| fake.contact.id == *id).unwrap();
            let out = removal.put_out(index_of(&removal.genesis.members[0]));
            let owner = removal.client(&identity(1));
            let moved = owner.replace_members(&register, &[removal.genesis.members[0]]).unwrap();
            let is_new = |id: &&NodeId| removal.genesis.index_of(id).is_none();
            let new = index_of(moved.members().iter().find(is_new).unwrap());
            reactor::sleep(Duration::from_millis(20));
            // As if the mover's message to it were on its way still, and his is not.
            network.nodes[new].store.remove(&Key::new(Kind::REGISTER, register.0)).unwrap();
            network.restart(new);
            let mut record = removal.values[2].clone();
            let mut header = (*record.header).clone();
            header.version = if far { u64::MAX - 1 } else { out.version + 1 };
            record.header = Signed::sign(&removal.goes, header);
            let ballot = Ballot { epoch: 1, ..ballot(1000) };
            let proposed = Proposed::sign(&removal.goes, ballot, record, None);
            let taken =
                network.nodes[new].node().accept(AcceptRequest { membership: moved.clone(), proposed });
            let other = moved.members().iter().map(index_of).find(|index| *index != new).unwrap();
            network.nodes[other].mood.set(Mood::Dead);
            for first in [&removal.stays, &identity(1), &identity(9)] {
                let read = removal.client(first).read(&register).unwrap().unwrap();
                assert_eq!(read, out, "far: {far}, taken: {taken:?}");
            }
            removal.is_in_force();
        }
    });
}

/// Who hears of the removal only after it has met such a promise went above it, and was refused by the others for that until it
/// was started again.
#[test]
fn a_writer_that_meets_such_a_promise_first_is_not_sent_where_nobody_follows() {
    reactor::run(|| {
        let removal = Removal::new();
        let register = removal.genesis.register();
        let last = removal.put_out(0);
        removal.lay_trap(0, false);
        // Further ahead than anybody lets anybody go in one step.
        let node = removal.network.nodes[0].node();
        let proposal = Proposal::prepare(&removal.goes, register, ballot(2 << 32));
        let membership = removal.genesis.clone().into();
        node.prepare(PrepareRequest { membership, proposal, list: None }).unwrap();
        (1..3).for_each(|index| removal.network.nodes[index].delay.set(Duration::from_millis(60)));
        let stays = removal.client(&removal.stays);
        let swap =
            stays.compare_and_swap(&register, Some(last.header_hash), Bytes::from_static(b"on")).unwrap();
        assert_eq!(swap.version, last.version + 1);
        assert_eq!(removal.read(&identity(1)), "on");
    });
}

#[test]
fn a_removal_is_in_force_at_once_though_who_goes_has_driven_the_rounds_up() {
    reactor::run(|| {
        let removal = Removal::new();
        removal.have_accepted(&[0, 1, 2], &removal.goes, 1 << 21, 2);
        removal.put_out(0);
        let node = removal.network.nodes[1].node();
        let view = node.read_register(&removal.genesis.register()).unwrap().unwrap();
        assert!(view.accepted.unwrap().proposal.puts_its_list_in_force());
    });
}
