//! Handing blocks over where somebody has no room, fails, or lies: copies are made elsewhere, and repair comes to an end.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use overlay::NodeId;
use reactor::crypto::Identity;
use reactor::rpc::Service;
use reactor::sim::{self, SimConfig};

use crate::message::{HasBlocks, PutBlock, Refusal, Words};
use crate::testing::{FakeNetwork, Mood, TAG, repair_of, zone_of};
use crate::{Address, BlockStore};

/// A network of four, what lies nearest to a block of its, and who follows.
fn four() -> (Rc<FakeNetwork>, Bytes, Address, Vec<usize>) {
    let network = FakeNetwork::new(4, 3, 1);
    let content = Bytes::from_static(b"of three");
    let address = Address::of(&TAG, &content);
    let mut nodes: Vec<usize> = (0..4).collect();
    nodes.sort_by_key(|index| network.nodes[*index].contact.id.distance(&NodeId(address.0)));
    (network, content, address, nodes)
}

/// A block stayed on two copies for as long as the disk of the third of its keepers was full.
#[test]
fn where_a_keeper_has_no_room_the_next_one_stands_in_and_repair_comes_to_an_end() {
    for has_zones in [false, true] {
        reactor::run(move || {
            let network = FakeNetwork::new(6, 3, 1);
            if has_zones {
                (0..6).for_each(|index| network.say_zone(index, &zone_of(index, 3)));
            }
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            network.nodes[2].mood.set(Mood::Dead);
            let contents = (0..60u32).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect();
            let addresses = client.put_many(contents).unwrap();
            reactor::sleep(Duration::from_millis(20));
            network.restart(2);
            network.nodes[2].memory.fail_after(Some(0));
            let repairs: Vec<_> = (0..6).map(|index| repair_of(&network, index)).collect();
            let rounds = || repairs.iter().map(|repair| repair.round()).collect::<Vec<_>>();
            (0..4).for_each(|_| drop(rounds()));
            let copies = |address: &Address| {
                network.nodes.iter().filter(|fake| fake.node().has_block(address)).count()
            };
            for address in &addresses {
                assert!(copies(address) >= 3, "{} copies of {address}", copies(address));
            }
            for (index, report) in rounds().iter().enumerate() {
                let is_full = index == 2;
                assert_eq!((report.handed_over, report.blocks, report.is_full), (0, 0, is_full), "{index}");
                assert!(is_full || report.missing == 0, "{index}: {report:?}");
            }
        });
    }
}

/// All keys were offered to all again in each round, for as long as it was so.
#[test]
fn where_nobody_has_room_for_what_a_keeper_has_none_for_nobody_is_asked_again_and_again() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        network.nodes[2].memory.fail_after(Some(0));
        client
            .put_many((0..40u32).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect())
            .unwrap();
        let repairs: Vec<_> = (0..3).map(|index| repair_of(&network, index)).collect();
        let rounds = || (0..2).for_each(|index| assert_eq!(repairs[index].round().missing, 0));
        (0..3).for_each(|_| rounds());
        let asked = network.calls_of("dht.has_blocks");
        assert!(asked > 0);
        rounds();
        assert_eq!(network.calls_of("dht.has_blocks"), asked);
    });
}

/// A spare that was away for one round was not asked again, and the block stayed on two copies.
#[test]
fn a_spare_that_fails_once_is_asked_again() {
    reactor::run(|| {
        let (network, content, address, nodes) = four();
        let node = |place: usize| network.nodes[nodes[place]].node();
        (0..2).for_each(|place| node(place).put_block(&address, &TAG, content.clone()).unwrap());
        network.nodes[nodes[2]].memory.fail_after(Some(0));
        network.nodes[nodes[3]].mood.set(Mood::Dead);
        let repairs: Vec<_> = (0..3).map(|place| repair_of(&network, nodes[place])).collect();
        let rounds = || repairs.iter().map(|repair| repair.round().missing).collect::<Vec<_>>();
        for _ in 0..4 {
            rounds();
        }
        assert!(rounds().iter().all(|missing| *missing > 0));
        network.nodes[nodes[3]].mood.set(Mood::Well);
        rounds();
        assert!(node(3).has_block(&address));
        assert_eq!(rounds()[..2], [0, 0]);
    });
}

/// Whoever said so of all that he was given was given all of it again in each round.
#[test]
fn who_calls_a_block_deleted_and_shows_no_word_for_it_is_given_it_once() {
    reactor::run(|| {
        let (network, content, address, nodes) = four();
        let node = |place: usize| network.nodes[nodes[place]].node();
        node(3).put_block(&address, &TAG, content).unwrap();
        let mut service = Service::new();
        service.on::<HasBlocks>(|_, asked, _| Ok((vec![false; asked.len()], Bytes::new())));
        service.on::<PutBlock>(|_, _, _| Err(Refusal::Deleted));
        service.on::<Words>(|_, asked, _| Ok((vec![None; asked.len()], Bytes::new())));
        network.replace_service(nodes[0], service);
        let repair = repair_of(&network, nodes[3]);
        let report = repair.round();
        assert_eq!((report.handed_over, report.missing), (2, 0));
        let given = network.calls_of("dht.put_block");
        for _ in 0..3 {
            assert_eq!(repair.round().missing, 0);
        }
        assert_eq!(network.calls_of("dht.put_block"), given);
        assert!(!node(3).view().has_handed_over, "one copy is lacking");
        assert!((1..3).all(|place| node(place).has_block(&address)));
    });
}

/// Nodes called a zone dispensable that had been given blocks for others since, and had yet to give them to those.
#[test]
fn nobody_has_caught_up_with_one_who_holds_for_others_what_they_lack() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        (0..6).for_each(|index| network.say_zone(index, &zone_of(index, 3)));
        let repairs: Vec<_> = (0..6).map(|index| repair_of(&network, index)).collect();
        for _ in 0..3 {
            repairs.iter().for_each(|repair| {
                repair.round();
            });
        }
        let first = network.nodes[0].node();
        let caught_up = || network.nodes[1].node().caught_up_with().contains(&network.nodes[0].contact.id);
        assert!(first.view().has_handed_over && caught_up());
        // Its own are no matter: whoever is to have them too is told by the digests.
        let block = |is_own: bool| {
            let contents = (0..200u32).map(|number| Bytes::from(number.to_le_bytes().to_vec()));
            let is_such =
                |content: &Bytes| first.is_responsible(&NodeId(Address::of(&TAG, content).0)) == is_own;
            contents.into_iter().find(is_such).unwrap()
        };
        for (is_own, has_handed_over) in [(true, true), (false, false)] {
            let content = block(is_own);
            first.put_block(&Address::of(&TAG, &content), &TAG, content).unwrap();
            assert_eq!(first.view().has_handed_over, has_handed_over);
        }
        assert!(repairs[1].round().unsettled > 0);
        assert!(!caught_up());
        repairs[0].round();
        repairs[1].round();
        assert!(caught_up());
    });
}

/// A zone was called dispensable that two of the three stood in who kept somebody's register.
#[test]
fn nobody_has_caught_up_with_a_node_whose_zone_would_take_a_register_along() {
    reactor::run(|| {
        let network = FakeNetwork::new(5, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let register = client.create_register([1; 32], vec![]).unwrap().register();
        client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
        let members = client.membership(&register).unwrap().members().to_vec();
        let place = |id: &NodeId| network.nodes.iter().position(|fake| fake.contact.id == *id).unwrap();
        let others: Vec<usize> =
            (0..5).filter(|index| !members.iter().any(|id| place(id) == *index)).collect();
        members.iter().for_each(|id| network.say_zone(place(id), "cellar"));
        others.iter().zip(["attic", "shed"]).for_each(|(index, zone)| network.say_zone(*index, zone));
        let repairs: Vec<_> = (0..5).map(|index| repair_of(&network, index)).collect();
        let caught_up = || {
            for _ in 0..3 {
                repairs.iter().for_each(|repair| {
                    repair.round();
                });
            }
            let with = network.nodes[others[0]].node().caught_up_with();
            members.iter().filter(|member| with.contains(member)).count()
        };
        assert_eq!(caught_up(), 0, "all of it is in the cellar");
        client.replace_members(&register, &members[..1]).unwrap();
        assert_eq!(caught_up(), 1, "two of three are");
        client.replace_members(&register, &members[..2]).unwrap();
        assert_eq!(caught_up(), 3);
    });
}

/// Where there was room for a small block and none for a large one, all was offered anew after each of both.
#[test]
fn who_has_room_for_a_small_block_only_is_full_all_the_time() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        network.nodes[2].memory.fail_above(Some(1000));
        let repairs: Vec<_> = (0..2).map(|index| repair_of(&network, index)).collect();
        let mut asked = Vec::new();
        for turn in 0..8 {
            for length in [100, 2000] {
                client.put(Bytes::from(vec![1; length])).unwrap();
                reactor::sleep(Duration::from_secs(1));
                assert!(repairs.iter().all(|repair| repair.round().missing == 0), "{turn}");
            }
            asked.push(network.calls_of("dht.has_blocks"));
        }
        assert!(asked[2] > 0 && asked[2..].iter().all(|count| *count == asked[2]), "{asked:?}");
        assert!(network.nodes[2].node().view().is_full);
    });
}
