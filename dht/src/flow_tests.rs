//! Clients and nodes together, over calls that fail, hang and lie.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::sim::{self, SimConfig};

use crate::testing::{FakeNetwork, Mood, TAG, seed};
use crate::{Address, BlockStore, CreateError, GetError, PutError, ReadError, SwapError};

fn identity(number: u8) -> Rc<Identity> {
    Rc::new(Identity::from_seed(&[number; 32]))
}

fn block(number: usize, size: usize) -> Bytes {
    (0..size).map(|i| (i / 256 + i + number) as u8).collect::<Vec<_>>().into()
}

/// Where somebody dead is waited for, it is for a call's timeout, at each of twenty steps. The time is the simulator's, which
/// passes for those who wait, and for them alone.
const QUICK: Duration = Duration::from_secs(4);

/// Runs a story in time that is counted.
fn in_counted_time(story: impl FnOnce() + Send) {
    sim::run(1, SimConfig::default(), |_| story());
}

#[test]
fn blocks_survive_a_dead_node_and_nobody_waits_for_it() {
    in_counted_time(|| {
        for mood in [Mood::Dead, Mood::Hangs] {
            for forgotten in [false, true] {
                let network = FakeNetwork::new(3, 3, 1);
                let client = network.client(&identity(1));
                let before = client.put(block(0, 100_000)).unwrap();
                network.nodes[1].mood.set(mood);
                network.nodes[1].forgotten.set(forgotten);
                let began = reactor::now();
                for number in 1..20 {
                    let content = block(number, 40_000);
                    let address = client.put(content.clone()).unwrap();
                    assert_eq!(client.get(&address, None).unwrap(), content);
                    assert_eq!(
                        client.get(&address, Some(33_000..33_010)).unwrap(),
                        content.slice(33_000..33_010)
                    );
                    assert_eq!(client.get(&before, Some(0..1)).unwrap(), block(0, 100_000).slice(0..1));
                }
                let took = reactor::now() - began;
                assert!(took < QUICK, "{mood:?} {forgotten}: {took:?}");
            }
        }
    });
}

#[test]
fn without_a_quorum_a_put_says_so() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&identity(1));
        network.nodes[0].mood.set(Mood::Dead);
        network.nodes[2].mood.set(Mood::Dead);
        let refused = client.put(block(0, 10));
        assert!(matches!(refused, Err(PutError::NoQuorum { durable: 1, needed: 2, .. })), "{refused:?}");
    });
}

#[test]
fn a_spare_node_takes_the_place_of_a_dead_one() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let client = network.client(&identity(1));
        network.nodes[0].mood.set(Mood::Dead);
        network.nodes[1].mood.set(Mood::Dead);
        for number in 0..20 {
            let content = block(number, 1000);
            let address = client.put(content.clone()).unwrap();
            assert_eq!(client.get(&address, None).unwrap(), content);
        }
    });
}

#[test]
fn a_liar_is_found_out_and_another_replica_serves() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&identity(1));
        let content = block(3, 200_000);
        let address = client.put(content.clone()).unwrap();
        reactor::sleep(Duration::from_millis(5));
        for liar in 0..3 {
            network.nodes[liar].mood.set(Mood::Lies);
            assert_eq!(client.get(&address, None).unwrap(), content);
            assert_eq!(client.get(&address, Some(70_000..150_000)).unwrap(), content.slice(70_000..150_000));
            network.nodes[liar].mood.set(Mood::Well);
        }
        network.nodes.iter().for_each(|node| node.mood.set(Mood::Lies));
        assert_eq!(client.get(&address, None), Err(GetError::Corrupt { address, liars: 3 }));
        assert!(network.calls_of("dht.suspect_block") > 0);
    });
}

#[test]
fn what_nobody_has_is_not_found_and_what_is_beyond_the_end_is_out_of_range() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&identity(1));
        let missing = Address([5; 32]);
        assert_eq!(client.get(&missing, None), Err(GetError::NotFound(missing)));
        let address = client.put(block(0, 100)).unwrap();
        let beyond = client.get(&address, Some(90..101));
        assert_eq!(beyond, Err(GetError::OutOfRange { start: 90, end: 101, length: 100 }));
    });
}

#[test]
fn what_fewer_nodes_than_keep_a_block_lack_may_exist() {
    reactor::run(|| {
        for known in 0..3 {
            // The others are not known, as to somebody who was cut off.
            let network = FakeNetwork::new(known, 3, 1);
            let client = network.client(&identity(1));
            let missing = Address([5; 32]);
            let answer = client.get(&missing, None);
            assert!(matches!(answer, Err(GetError::Unreachable { .. })), "{known} are known: {answer:?}");
        }
    });
}

#[test]
fn the_same_writer_writes_again_in_one_round_trip() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        assert_eq!(client.read(&register), Ok(None));
        let mut last = client.compare_and_swap(&register, None, Bytes::from_static(b"0")).unwrap();
        let prepares = network.calls_of("dht.prepare");
        for number in 1..10 {
            last = client.compare_and_swap(&register, Some(last.header_hash), block(number, 10)).unwrap();
            assert_eq!(last.version, number as u64 + 1);
        }
        assert_eq!(network.calls_of("dht.prepare"), prepares, "each accept carries the next prepare");
        assert_eq!(network.client(&identity(1)).opened(&genesis).read(&register).unwrap().unwrap(), last);
    });
}

#[test]
fn a_register_is_kept_where_another_is_if_that_is_wished() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let client = network.client(&identity(1));
        let first = client.create_register([1; 32], vec![]).unwrap();
        let members = client.membership(&first.register()).unwrap().members().to_vec();
        for salt in 2..12 {
            let beside = client.create_register_on([salt; 32], vec![], members.clone()).unwrap();
            client.compare_and_swap(&beside.register(), None, Bytes::from_static(b"0")).unwrap();
            assert_eq!(client.membership(&beside.register()).unwrap().members(), members);
        }
        let too_few = client.create_register_on([12; 32], vec![], members[1..].to_vec());
        assert!(matches!(too_few, Err(CreateError::NotEnoughNodes { known: 2, needed: 3 })));
    });
}

#[test]
fn registers_survive_a_dead_node_and_nobody_waits_for_it() {
    in_counted_time(|| {
        for mood in [Mood::Dead, Mood::Hangs] {
            let network = FakeNetwork::new(3, 3, 1);
            let client = network.client(&identity(1));
            let genesis = client.create_register([1; 32], vec![identity(2).public_key()]).unwrap();
            let register = genesis.register();
            let mut last = client.compare_and_swap(&register, None, Bytes::from_static(b"first")).unwrap();
            network.nodes[2].mood.set(mood);
            let began = reactor::now();
            for number in 0..20 {
                let writer = if number % 2 == 0 {
                    client.clone()
                } else {
                    network.client(&identity(2)).opened(&genesis)
                };
                let read = writer.read(&register).unwrap().unwrap();
                assert_eq!(read, last);
                last = writer.compare_and_swap(&register, Some(read.header_hash), block(number, 50)).unwrap();
            }
            let took = reactor::now() - began;
            assert!(took < QUICK, "{mood:?}: {took:?}");
        }
    });
}

#[test]
fn a_lost_swap_shows_the_winner_and_changes_nothing() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let (one, two) = (network.client(&identity(1)), network.client(&identity(2)));
        let genesis = one.create_register([1; 32], vec![identity(2).public_key()]).unwrap();
        let register = genesis.register();
        let first = one.compare_and_swap(&register, None, Bytes::from_static(b"first")).unwrap();
        let two = two.opened(&genesis);
        let second =
            two.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"two")).unwrap();
        let lost = one.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"one"));
        assert_eq!(lost, Err(SwapError::Lost(Some(second.clone()))));
        assert_eq!(one.read(&register).unwrap().unwrap(), second);
        assert_eq!(second.writer, identity(2).public_key());
    });
}

#[test]
fn who_is_not_on_the_list_may_read_and_not_write() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let owner = network.client(&identity(1));
        let genesis = owner.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = owner.compare_and_swap(&register, None, Bytes::from_static(b"mine")).unwrap();
        let stranger = network.client(&identity(9)).opened(&genesis);
        assert_eq!(stranger.read(&register).unwrap().unwrap(), first);
        let refused =
            stranger.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"theirs"));
        assert!(matches!(refused, Err(SwapError::Refused(_))), "{refused:?}");
        let unknown = crate::RegisterAddress([3; 32]);
        let other = stranger.compare_and_swap(&unknown, None, Bytes::new());
        assert_eq!(other, Err(SwapError::Read(ReadError::NotOpen(unknown))));
    });
}

/// Two non-members, or views that hold no member at all, used to be enough to "know" that a register does not exist,
/// and to create it a second time on other nodes.
#[test]
fn nodes_that_were_never_to_keep_a_register_say_nothing_about_it() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let owner = network.client(&identity(1));
        let genesis = owner.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = owner.compare_and_swap(&register, None, Bytes::from_static(b"my files")).unwrap();
        let members: Vec<_> =
            network.nodes.iter().filter(|node| genesis.index_of(&node.contact.id).is_some()).collect();
        for member in &members {
            member.mood.set(Mood::Dead);
            member.forgotten.set(true);
        }
        let fresh = network.client(&identity(1)).opened(&genesis);
        reactor::scope(|scope| {
            scope.spawn(|| {
                let read = fresh.read(&register);
                assert!(matches!(read, Err(ReadError::NoQuorum { needed: 2, .. })), "{read:?}");
            });
            scope.spawn(|| {
                let other = network.client(&identity(1)).opened(&genesis);
                let swapped = other.compare_and_swap(&register, None, Bytes::from_static(b"empty"));
                assert!(matches!(swapped, Err(SwapError::Read(ReadError::NoQuorum { .. }))), "{swapped:?}");
            });
        });
        for member in members {
            member.mood.set(Mood::Well);
            member.forgotten.set(false);
        }
        assert_eq!(fresh.read(&register).unwrap(), Some(first));
        // Nor does one that was made and has no value yet stop existing.
        let second = owner.create_register([2; 32], vec![]).unwrap().register();
        assert_eq!(owner.read(&second), Ok(None));
    });
}

#[test]
fn a_register_is_not_made_on_fewer_nodes_than_are_to_keep_it() {
    reactor::run(|| {
        let network = FakeNetwork::new(2, 3, 1);
        let refused = network.client(&identity(1)).create_register([1; 32], vec![]);
        assert_eq!(refused, Err(CreateError::NotEnoughNodes { known: 2, needed: 3 }));
    });
}

#[test]
fn a_rollback_of_the_nodes_is_noticed() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
        reactor::sleep(Duration::from_millis(5));
        let key = crate::store::Key::new(crate::store::Kind::REGISTER, register.0);
        let old: Vec<_> = network.nodes.iter().map(|n| n.store.get(&key, None).unwrap().unwrap()).collect();
        client.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"2")).unwrap();
        reactor::sleep(Duration::from_millis(5));
        for (index, (node, old)) in network.nodes.iter().zip(old).enumerate() {
            node.store.put(&key, old.into()).unwrap();
            network.restart(index);
        }
        assert_eq!(client.read(&register), Err(ReadError::RolledBack { register, seen: 2, found: 1 }));
        let fresh = network.client(&identity(1)).opened(&genesis);
        fresh.expect_at_least(&register, 2, first.header_hash).unwrap();
        assert!(matches!(fresh.read(&register), Err(ReadError::RolledBack { .. })));
    });
}

#[test]
fn what_a_writer_remembers_of_its_last_turn_is_no_rollback() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
        let other = network.client(&identity(1)).opened(&genesis);
        let second =
            other.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"2")).unwrap();
        // It has read the newer value, and swaps on top of the older all the same.
        assert_eq!(client.read(&register).unwrap().as_ref(), Some(&second));
        let swapped = client.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"3"));
        assert_eq!(swapped, Err(SwapError::Lost(Some(second))));
    });
}

#[test]
fn in_a_network_of_one_nothing_is_called() {
    reactor::run(|| {
        let network = FakeNetwork::new(1, 1, 1);
        let client = network.client_at(0, &identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let contents: Vec<_> = (0..20).map(|number| block(number, 70_000)).collect();
        let blocks: Vec<_> =
            contents.iter().map(|content| (Address::of(&TAG, content), content.clone())).collect();
        let first = client.publish(blocks.clone(), &register, None, Bytes::from_static(b"root")).unwrap();
        let second =
            client.publish(blocks.clone(), &register, Some(first.header_hash), Bytes::new()).unwrap();
        assert_eq!((second.version, client.read(&register).unwrap().unwrap()), (2, second));
        for (address, content) in &blocks {
            assert_eq!(client.get(address, None).unwrap(), content);
            assert_eq!(client.get(address, Some(5..50_000)).unwrap(), content.slice(5..50_000));
        }
        assert_eq!(client.usage().unwrap().block_count, 21);
        assert!(network.calls.borrow().is_empty());
        // Others can read from it, whole and in part, though it has hashed nothing for them.
        let elsewhere = network.client(&identity(1));
        for (address, content) in &blocks {
            assert_eq!(elsewhere.get(address, None).unwrap(), content);
            assert_eq!(elsewhere.get(address, Some(40_000..50_000)).unwrap(), content.slice(40_000..50_000));
        }
    });
}

#[test]
fn a_block_under_a_false_name_is_refused_wherever_it_leaves_the_process() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let false_name = Address([0; 32]);
        for client in [network.client(&identity(1)), network.client_at(0, &identity(1))] {
            assert_eq!(client.put_named(&false_name, block(1, 5)), Err(PutError::Misnamed(false_name)));
            client.put_named(&Address::of(&TAG, &block(1, 5)), block(1, 5)).unwrap();
        }
        assert!(network.nodes.iter().all(|node| node.store.usage().count <= 1));
    });
}

#[test]
fn a_client_beside_a_node_uses_it_and_the_others() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client_at(0, &identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let contents: Vec<_> = (0..50).map(|number| block(number, 5000)).collect();
        let addresses = client.put_many(contents.clone()).unwrap();
        let blocks = addresses.iter().copied().zip(contents).collect();
        let first = client.publish(blocks, &register, None, Bytes::from_static(b"root")).unwrap();
        reactor::sleep(Duration::from_millis(20));
        for node in &network.nodes {
            assert_eq!(node.store.usage().count, 51);
        }
        assert_eq!(network.client(&identity(1)).opened(&genesis).read(&register).unwrap().unwrap(), first);
        assert_eq!(network.calls_of("dht.get_block"), 0);
    });
}

#[test]
fn one_full_disk_of_three_is_no_obstacle_and_two_are_an_error_that_says_so() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client(&identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let mut last = client.compare_and_swap(&register, None, Bytes::new()).unwrap();
        network.nodes[0].memory.fail_after(Some(0));
        let address = client.put(block(1, 1000)).unwrap();
        last = client.compare_and_swap(&register, Some(last.header_hash), Bytes::from_static(b"1")).unwrap();
        network.nodes[1].memory.fail_after(Some(0));
        assert!(matches!(client.put(block(2, 1000)), Err(PutError::Full { .. })));
        assert_eq!(client.get(&address, None).unwrap(), block(1, 1000));
        assert_eq!(client.read(&register).unwrap().unwrap(), last);
        for node in &network.nodes {
            node.memory.fail_after(None);
        }
        client.put(block(2, 1000)).unwrap();
        client.compare_and_swap(&register, Some(last.header_hash), Bytes::from_static(b"2")).unwrap();
    });
}

#[test]
fn in_a_network_of_one_a_full_disk_keeps_the_old_value() {
    reactor::run(|| {
        let network = FakeNetwork::new(1, 1, 1);
        let client = network.client_at(0, &identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = client.compare_and_swap(&register, None, Bytes::new()).unwrap();
        for room in 0..3 {
            network.nodes[0].memory.fail_after(Some(room));
            let blocks: Vec<_> = (0..3).map(|number| block(number + 10 * room as usize, 1000)).collect();
            let blocks = blocks.into_iter().map(|content| (Address::of(&TAG, &content), content)).collect();
            let refused =
                client.publish(blocks, &register, Some(first.header_hash), Bytes::from_static(b"new"));
            // Whichever write met the full disk: a block's, the promise's or the value's.
            let full = matches!(refused, Err(SwapError::Put(PutError::Full { .. }) | SwapError::Full));
            assert!(full, "room for {room}: {refused:?}");
            assert_eq!(client.read(&register).unwrap().unwrap(), first);
        }
        network.nodes[0].memory.fail_after(Some(3));
        let refused = client.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"new"));
        assert!(refused.is_ok(), "{refused:?}");
    });
}

/// Several clients append to one register over a network that loses messages, while nodes restart. Whatever was
/// acknowledged must be in every later value, once.
#[test]
fn nothing_acknowledged_is_lost_or_applied_twice_over_a_bad_network() {
    let seed = seed();
    for round in 0..4 {
        reactor::run(move || bad_network(seed.wrapping_add(round)));
    }
}

fn bad_network(seed: u64) {
    let network = FakeNetwork::new(3, 3, seed);
    let identities: Vec<_> = (1..4).map(identity).collect();
    let owner = network.client(&identities[0]);
    let keys = identities.iter().map(|identity| identity.public_key()).collect();
    let genesis = owner.create_register([7; 32], keys).unwrap();
    let register = genesis.register();
    owner.compare_and_swap(&register, None, Bytes::new()).unwrap();
    network.loss_percent.set(8);
    for node in &network.nodes {
        node.delay.set(Duration::from_micros(300));
    }
    let acknowledged = RefCell::new(Vec::<u8>::new());
    let doubtful = RefCell::new(Vec::<u8>::new());
    let next = Cell::new(1u8);
    let done = Cell::new(false);
    reactor::scope(|scope| {
        for identity in &identities {
            scope.spawn(|| {
                let client = network.client(identity).opened(&genesis);
                for _ in 0..12 {
                    let floor = acknowledged.borrow().clone();
                    let Ok(Some(read)) = client.read(&register) else { continue };
                    for id in floor {
                        assert!(read.payload.contains(&id), "HYPHA_SEED={seed}: the read misses {id}");
                    }
                    let id = next.replace(next.get() + 1);
                    let mut value = read.payload.to_vec();
                    value.push(id);
                    match client.compare_and_swap(&register, Some(read.header_hash), value.into()) {
                        Ok(_) => acknowledged.borrow_mut().push(id),
                        Err(SwapError::Lost(_)) => {}
                        Err(_) => doubtful.borrow_mut().push(id),
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut rng = StdRng::seed_from_u64(seed);
            while !done.get() && next.get() < 36 {
                reactor::sleep(Duration::from_millis(15));
                let victim = rng.random_range(0..3);
                network.nodes[victim].mood.set(Mood::Dead);
                reactor::sleep(Duration::from_millis(10));
                network.restart(victim);
            }
        });
    });
    done.set(true);
    network.loss_percent.set(0);
    let last = owner.read(&register).unwrap().unwrap();
    for id in acknowledged.borrow().iter() {
        let count = last.payload.iter().filter(|other| *other == id).count();
        assert_eq!(count, 1, "HYPHA_SEED={seed}: {id} was acknowledged and is there {count} times");
    }
    for id in last.payload.iter() {
        let known = acknowledged.borrow().contains(id) || doubtful.borrow().contains(id);
        assert!(known, "HYPHA_SEED={seed}: {id} was reported as lost, and is there");
    }
    println!(
        "seed {seed}: {} acknowledged, {} doubtful",
        acknowledged.borrow().len(),
        doubtful.borrow().len()
    );
    assert!(acknowledged.borrow().len() >= 5, "HYPHA_SEED={seed}: nothing got done");
}
