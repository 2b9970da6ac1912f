//! A writer is put out by a list that some members have and others do not: nothing that was chosen is lost over it, and he
//! undoes nothing. What may be left out, and what not, is reasoned in [`crate::register`].

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::Identity;

use crate::block::mutable::{AccessList, Genesis, Signed, SignedRecord};
use crate::block::proposal::Proposed;
use crate::liar_tests::{ballot, history, identity};
use crate::message::AcceptRequest;
use crate::testing::{FakeNetwork, FakeOverlay, Mood};
use crate::{BlockStore, Client, SwapError};

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
        let network = FakeNetwork::new(3, 3, 1);
        let (owner, stays, goes) = (identity(1), identity(5), identity(6));
        let (genesis, ..) = history(&network, vec![stays.public_key(), goes.public_key()]);
        let register = genesis.register();
        let shared = network.nodes[0].node.borrow().read_register(&register).unwrap().unwrap();
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
            self.network.nodes[index].node.borrow().accept(request).unwrap();
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
