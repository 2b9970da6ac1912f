//! A node that was away, and one whose disk lost something.

use std::time::Instant;

use bytes::Bytes;
use reactor::crypto::Identity;

use super::*;
use crate::BlockStore;
use crate::block::deletion::{Speaker, Verdict};
use crate::block::mutable::SignedRecord;
use crate::block::proposal::{Proposal, Proposed};
use crate::message::{AcceptRequest, PrepareRequest};
use crate::node::deletions::now_seconds;
use crate::owner_tag;
use crate::paxos::{Ballot, ProposerId};
use crate::testing::{FakeNetwork, FakeOverlay, Mood};

fn pace() -> Pace {
    Pace { period: Duration::from_millis(50), settle: Duration::from_millis(1), ..Pace::default() }
}

fn repair_of(network: &Rc<FakeNetwork>, index: usize) -> Repair<FakeOverlay> {
    Repair::new(network.overlay_at(index), network.nodes[index].node(), pace())
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited too long for: {what}");
        reactor::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_node_that_comes_back_catches_up_with_blocks_and_registers() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let geneses = [[1; 32], [2; 32]].map(|salt| client.create_register(salt, vec![]).unwrap());
        let [old, new] = [geneses[0].register(), geneses[1].register()];
        let mut last = client.compare_and_swap(&old, None, Bytes::from_static(b"before")).unwrap();
        network.nodes[1].mood.set(Mood::Dead);
        let contents: Vec<_> = (0..300u32).map(|i| Bytes::from(vec![i as u8; 100 + i as usize])).collect();
        client.put_many(contents).unwrap();
        for _ in 0..5 {
            last =
                client.compare_and_swap(&old, Some(last.header_hash), Bytes::from_static(b"after")).unwrap();
        }
        // Created while one of its members was away.
        let created = client.compare_and_swap(&new, None, Bytes::from_static(b"new")).unwrap();
        reactor::sleep(Duration::from_millis(5));
        network.restart(1);
        let store = &network.nodes[1].store;
        assert!(store.usage().count <= 1);
        let repair = repair_of(&network, 1);
        repair_of(&network, 0).round();
        repair_of(&network, 2).round();
        let report = repair.round();
        assert_eq!((report.compared, report.blocks, report.registers, report.missing), (2, 300, 2, 0));
        assert_eq!(store.usage().count, 302);
        assert_eq!(repair.round(), Report { compared: 2, ..Report::default() });
        // It can now make a quorum with a node that has everything, after the third is gone.
        network.nodes[0].mood.set(Mood::Dead);
        let reader = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let reader = reader.opened(&geneses[0]).opened(&geneses[1]);
        assert_eq!(reader.read(&old).unwrap().unwrap(), last);
        assert_eq!(reader.read(&new).unwrap().unwrap(), created);
    });
}

#[test]
fn a_damaged_block_is_fetched_again_without_being_asked_for() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let address = client.put(Bytes::from(vec![5; 50_000])).unwrap();
        wait_until("all replicas", || network.nodes.iter().all(|node| node.store.usage().count == 1));
        let repair = repair_of(&network, 2);
        let _running = repair.start();
        reactor::sleep(Duration::from_millis(5));
        let key = Key::new(Kind::BLOCK, address.0);
        let mut bad = network.nodes[2].store.get(&key, None).unwrap().unwrap().to_vec();
        bad[17] ^= 1;
        network.nodes[2].store.put(&key, bad.clone().into()).unwrap();
        assert_eq!(repair.scrub(), 1);
        wait_until("the block's return", || {
            network.nodes[2].store.get(&key, None).unwrap().is_some_and(|stored| stored[17] == 5)
        });
        // Found by a reader instead, who is served by another replica meanwhile.
        network.nodes[2].store.put(&key, bad.into()).unwrap();
        for other in [0, 1] {
            network.nodes[other].delay.set(Duration::from_millis(30));
        }
        for _ in 0..3 {
            assert_eq!(client.get(&address, None).unwrap()[17], 5);
        }
        wait_until("the block's return", || {
            network.nodes[2].store.get(&key, None).unwrap().is_some_and(|stored| stored[17] == 5)
        });
    });
}

#[test]
fn in_a_larger_network_nodes_fetch_only_what_is_theirs() {
    reactor::run(|| {
        let network = FakeNetwork::new(8, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        network.nodes[4].mood.set(Mood::Dead);
        let addresses =
            client.put_many((0..200u32).map(|i| Bytes::from(i.to_le_bytes().to_vec())).collect()).unwrap();
        reactor::sleep(Duration::from_millis(20));
        network.restart(4);
        for index in 0..8 {
            repair_of(&network, index).round();
        }
        let report = repair_of(&network, 4).round();
        assert_eq!(report.missing, 0);
        let id = network.nodes[4].contact.id;
        for address in addresses {
            let key = NodeId(address.0);
            let mut order: Vec<_> = network.nodes.iter().map(|node| node.contact.id.distance(&key)).collect();
            order.sort();
            let theirs = order[..3].contains(&id.distance(&key));
            assert_eq!(network.nodes[4].node().has_block(&address), theirs);
        }
    });
}

/// Nodes that are there from the start, and others that come all at once.
fn grown(first: usize, count: usize) -> (Rc<FakeNetwork>, Vec<Address>) {
    let network = FakeNetwork::new(count, 3, 1);
    network.nodes[first..].iter().for_each(|node| node.forgotten.set(true));
    let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
    let contents = (0..120u32).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect();
    let addresses = client.put_many(contents).unwrap();
    reactor::sleep(Duration::from_millis(20));
    network.nodes.iter().for_each(|node| node.forgotten.set(false));
    (network, addresses)
}

/// The holders of a block stop being responsible all at once, and used to keep it to themselves for ever.
#[test]
fn nothing_is_stranded_when_many_nodes_join_at_once() {
    for (first, count) in [(3, 12), (3, 23), (3, 43), (10, 40)] {
        reactor::run(move || {
            let (network, addresses) = grown(first, count);
            let repairs: Vec<_> = (0..count).map(|index| repair_of(&network, index)).collect();
            let handed: usize = repairs.iter().map(|repair| repair.round().handed_over).sum();
            let again: usize = repairs.iter().map(|repair| repair.round().handed_over).sum();
            println!("{first} nodes became {count}: {handed} copies were handed over");
            assert_eq!(again, 0);
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            for address in addresses {
                let key = NodeId(address.0);
                let mut nodes: Vec<_> = network.nodes.iter().collect();
                nodes.sort_by_key(|node| node.contact.id.distance(&key));
                let has = |node: &&crate::testing::FakeNode| node.node().has_block(&address);
                assert!(nodes[..3].iter().all(has), "{first} + {}: {address} is stranded", count - first);
                client.get(&address, None).unwrap();
            }
        });
    }
}

#[test]
fn a_reader_looks_further_and_tells_those_responsible() {
    reactor::run(|| {
        let network = FakeNetwork::new(12, 3, 1);
        let content = Bytes::from_static(b"far away");
        let address = Address::of(&crate::testing::TAG, &content);
        let mut nodes: Vec<_> = network.nodes.iter().collect();
        nodes.sort_by_key(|node| node.contact.id.distance(&NodeId(address.0)));
        nodes[11].node().put_block(&address, &crate::testing::TAG, content.clone()).unwrap();
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        assert_eq!(client.get(&address, None).unwrap(), content);
        wait_until("those responsible want it", || {
            nodes[..3].iter().all(|node| node.node().take_wanted().contains(&address))
        });
    });
}

#[test]
fn a_full_node_fetches_one_block_and_not_its_whole_deficit_from_everybody() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        network.nodes[2].mood.set(Mood::Dead);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let contents = (0..50u32).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect();
        client.put_many(contents).unwrap();
        reactor::sleep(Duration::from_millis(20));
        network.restart(2);
        network.nodes[2].memory.fail_after(Some(0));
        let report = repair_of(&network, 2).round();
        assert!(report.is_full && report.missing >= 50, "{report:?}");
        let fetched = network.calls_of("dht.get_block");
        assert!(fetched <= FETCHES_AT_ONCE, "{fetched} downloads into a full store");
        network.nodes[2].memory.fail_after(None);
        let report = repair_of(&network, 2).round();
        assert_eq!((report.blocks, report.missing, report.is_full), (50, 0, false));
    });
}

/// A new disk under an old name used to vote as if it had never promised anything.
#[test]
fn a_node_that_lost_its_store_votes_once_it_has_learned_from_enough_others() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
        reactor::sleep(Duration::from_millis(5));
        // Node 2 misses the second value, and node 1, which has it, loses its disk.
        network.nodes[2].mood.set(Mood::Dead);
        let second =
            client.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"2")).unwrap();
        reactor::sleep(Duration::from_millis(5));
        network.restart(2);
        let key = Key::new(Kind::REGISTER, register.0);
        network.nodes[1].store.remove(&key).unwrap();
        network.restart(1);
        network.nodes[1].node().set_amnesiac();
        let node = network.nodes[1].node();
        assert!(matches!(node.read_register(&register), Err(Refusal::Amnesiac)));

        // With the one other that knows away, it can't tell, and nobody reads the first value again.
        network.nodes[0].mood.set(Mood::Dead);
        let repair = repair_of(&network, 1);
        assert!(!repair.relearn(&genesis.clone().into()));
        assert!(matches!(node.read_register(&register), Err(Refusal::Amnesiac)));

        network.nodes[0].mood.set(Mood::Well);
        let report = repair.round();
        assert_eq!((report.registers, report.missing), (1, 0));
        let view = node.read_register(&register).unwrap().unwrap();
        assert_eq!(view.accepted.unwrap().record.to_record(), second);
        assert!(view.promise.is_some());
        // Now it is as good as any: with node 0 gone for good, it makes a quorum with the one that lagged.
        network.nodes[0].mood.set(Mood::Dead);
        let reader = network.client(&Rc::new(Identity::from_seed(&[1; 32]))).opened(&genesis);
        assert_eq!(reader.read(&register).unwrap(), Some(second));
    });
}

#[test]
fn a_node_that_lost_its_store_takes_part_in_a_register_that_is_new() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        network.nodes[1].node().set_amnesiac();
        network.nodes[2].mood.set(Mood::Dead);
        let repair = repair_of(&network, 1);
        let _running = repair.start();
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        reactor::scope(|scope| {
            scope.spawn(|| {
                let made = client.compare_and_swap(&genesis.register(), None, Bytes::from_static(b"1"));
                assert_eq!(made.unwrap().version, 1);
            });
            scope.spawn(|| {
                // Alone with node 0 it can't know; once the third is back, it can.
                reactor::sleep(Duration::from_millis(200));
                network.restart(2);
            });
        });
    });
}

/// They were on the three that there were, which the sixteen nearest were no more once many had come.
#[test]
fn what_was_put_before_many_came_is_found_around_those_that_should_have_it() {
    for count in [43, 70] {
        reactor::run(move || {
            let (network, addresses) = grown(3, count);
            let reader = network.client(&Rc::new(Identity::from_seed(&[2; 32])));
            let (mut far, mut unknown) = (0, 0);
            for address in &addresses {
                let near = reader.links().closest(address.0, 16);
                far += usize::from(
                    !near
                        .iter()
                        .any(|contact| network.nodes[..3].iter().any(|fake| fake.contact.id == contact.id)),
                );
                match reader.get(address, None) {
                    Ok(_) => {}
                    // Beyond what a lookup finds nobody knows, and that is what is said.
                    Err(GetError::Unreachable { .. }) if count > 48 => unknown += 1,
                    Err(error) => panic!("3 nodes became {count}: {error}"),
                }
            }
            println!(
                "3 nodes became {count}: {far} of 120 blocks beyond the nearest 16, {unknown} beyond 48"
            );
            assert!(far > 0);
        });
    }
}

/// What had been taken back stayed deleted where that had not been heard, and counted as handed over.
#[test]
fn what_an_owner_said_of_a_block_is_handed_over_before_the_block() {
    reactor::run(|| {
        let network = FakeNetwork::new(4, 3, 1);
        let (owner, salt) = (Identity::from_seed(&[1; 32]), [7; 32]);
        let tag = owner_tag(&owner.public_key(), &salt);
        let content = Bytes::from_static(b"needed after all");
        let address = Address::of(&tag, &content);
        let mut nodes: Vec<usize> = (0..4).collect();
        nodes.sort_by_key(|index| network.nodes[*index].contact.id.distance(&NodeId(address.0)));
        let node = |place: usize| network.nodes[nodes[place]].node();
        let request = PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, tag) };
        let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt, grant: None };
        let gone = Verdict::Delete { put_before_seconds: 2000, retention_seconds: 3600 };
        for place in [0, 3] {
            node(place).put_block_of(&request, &content).unwrap();
            node(place).hear(&speaker.say(address, now_seconds() * 1000, gone)).unwrap();
        }
        // The one that keeps it no more heard the last word.
        node(3).hear(&speaker.say(address, now_seconds() * 1000 + 1, Verdict::Keep)).unwrap();
        assert!(node(0).is_dead(&address).unwrap() && !node(3).is_dead(&address).unwrap());
        let report = repair_of(&network, nodes[3]).round();
        assert_eq!((report.handed_over, report.missing), (3, 0));
        assert!(
            (0..3).all(|place| node(place).has_block(&address) && !node(place).is_dead(&address).unwrap())
        );
    });
}

/// It used to vote for what it had learned, though it had promised somebody else never to: who read that was told something that
/// was gone a moment later.
#[test]
fn what_a_node_learned_again_is_read_by_nobody_before_it_is_chosen() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let owner = Rc::new(Identity::from_seed(&[1; 32]));
        let client = network.client(&owner);
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
        reactor::sleep(Duration::from_millis(20));
        let node = |index: usize| network.nodes[index].node();
        let [elsewhere, forgetful, other] = [0, 1, 2];
        let record = |payload| {
            let view = node(elsewhere).read_register(&register).unwrap().unwrap();
            let first = view.accepted.unwrap().record;
            SignedRecord::sign(&owner, register, Some(&first), None, Bytes::from_static(payload))
        };
        let ballot = |round, proposer| Ballot { epoch: 0, round, proposer: ProposerId([proposer; 16]) };
        let accept = |index: usize, ballot, record: &SignedRecord| {
            let proposed = Proposed::sign(&owner, ballot, record.clone(), None);
            node(index).accept(AcceptRequest { membership: genesis.clone().into(), proposed })
        };
        // Two prepare, the later one at a quorum of which one loses what it knew; the earlier one's value is at the third.
        for (round, members) in [(50, [forgetful, other]), (90, [elsewhere, forgetful])] {
            for index in members {
                let proposal = Proposal::prepare(&owner, register, ballot(round, round as u8));
                let membership = genesis.clone().into();
                node(index).prepare(PrepareRequest { membership, proposal, list: None }).unwrap();
            }
        }
        let (learned, counted) = (record(b"learned"), record(b"counted"));
        accept(other, ballot(50, 50), &learned).unwrap();
        network.nodes[forgetful].store.remove(&Key::new(Kind::REGISTER, register.0)).unwrap();
        network.restart(forgetful);
        node(forgetful).set_amnesiac();
        assert!(repair_of(&network, forgetful).relearn(&genesis.clone().into()));

        let vote = accept(forgetful, ballot(50, 50), &learned);
        network.nodes[elsewhere].mood.set(Mood::Dead);
        let read = network.client(&owner).opened(&genesis).read(&register).unwrap().unwrap();
        assert_eq!(read.version, first.version + 1);
        network.nodes[elsewhere].mood.set(Mood::Well);
        let taken = [elsewhere, forgetful].map(|index| accept(index, ballot(90, 90), &counted));
        let later = network.client(&owner).opened(&genesis).read(&register).unwrap().unwrap();
        assert_eq!(later, read, "it was read before: {taken:?}");
        // Nor did it let anybody else have it chosen.
        assert!(matches!(vote, Err(Refusal::Conflict { .. })), "{vote:?}");
    });
}

#[test]
fn who_only_reads_is_served_by_nodes_that_all_had_to_learn_it_again() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
        reactor::sleep(Duration::from_millis(20));
        network.nodes[2].mood.set(Mood::Dead);
        let second =
            client.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"2")).unwrap();
        network.nodes[2].mood.set(Mood::Well);
        for index in 0..3 {
            let fake = &network.nodes[index];
            fake.store.remove(&Key::new(Kind::REGISTER, register.0)).unwrap();
            network.restart(index);
            fake.node().set_amnesiac();
            assert!(repair_of(&network, index).relearn(&genesis.clone().into()));
            let node = fake.node();
            let learned = node.read_register(&register).unwrap().unwrap().learned;
            assert!(learned.is_some(), "one other at most has accepted it");
            repair_of(&network, 2).round();
        }
        let reader = network.client(&Rc::new(Identity::from_seed(&[9; 32]))).opened(&genesis);
        assert_eq!(reader.read(&register).unwrap(), Some(second));
    });
}

/// It was no matter to anybody that this node did not take it, and with nothing missing all was called well, in a quiet drive for good.
#[test]
fn a_register_that_a_dangling_promise_keeps_from_being_taken_is_lacking_until_somebody_writes() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let owner = Rc::new(Identity::from_seed(&[1; 32]));
        let client = network.client(&owner);
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
        reactor::sleep(Duration::from_millis(20));
        network.nodes[2].mood.set(Mood::Dead);
        let second =
            client.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"2")).unwrap();
        network.nodes[2].mood.set(Mood::Well);
        let node = network.nodes[2].node();
        // Somebody prepares here, and is gone.
        let ballot = Ballot { epoch: 0, round: 50, proposer: ProposerId([50; 16]) };
        let proposal = Proposal::prepare(&owner, register, ballot);
        let membership = genesis.clone().into();
        node.prepare(PrepareRequest { membership, proposal, list: None }).unwrap();

        let repair = repair_of(&network, 2);
        for _ in 0..2 {
            let report = repair.round();
            assert_eq!((report.compared, report.registers, report.missing), (2, 0, 2), "of two that have it");
            let own = node.own_copies();
            assert_eq!((own.lacking, own.lacked_nothing_of.len()), (1, 0));
        }
        let client = network.client(&owner).opened(&genesis);
        client.compare_and_swap(&register, Some(second.header_hash), Bytes::from_static(b"3")).unwrap();
        reactor::sleep(Duration::from_millis(20));
        assert_eq!(repair.round().missing, 0);
        let own = node.own_copies();
        assert_eq!((own.lacking, own.lacked_nothing_of.len()), (0, 2));
    });
}
