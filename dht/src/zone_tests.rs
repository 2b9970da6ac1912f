//! Copies in different zones, on nodes of different size: putting, reading, repairing, and what is said of it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay::{Contact, NodeId, NodeRecord, Statement};
use reactor::crypto::Identity;
use reactor::sim::{self, SimConfig};

use crate::block::deletion::{Speaker, Verdict};
use crate::message::PutBlockRequest;
use crate::node::deletions::now_seconds;
use crate::placement::{WIDTH, could_keep};
use crate::repair::{Repair, Report};
use crate::testing::{FakeNetwork, FakeNode, FakeOverlay, Mood, TAG, repair_of, zone_of};
use crate::{Address, BlockStore, Client, GetError, owner_tag};

/// The zones of those that have a block, each as often as it has it.
fn zones_of(network: &FakeNetwork, address: &Address, zones: usize) -> Vec<String> {
    let has = |index: &usize| network.nodes[*index].node().has_block(address);
    (0..network.nodes.len()).filter(has).map(|index| zone_of(index, zones)).collect()
}

#[test]
fn what_is_put_lies_in_different_zones_and_a_whole_zone_may_go() {
    for (count, zones) in [(5, 3), (12, 4), (16, 3)] {
        reactor::run(move || {
            let network = FakeNetwork::new(count, 3, 1);
            (0..count).for_each(|index| network.say_zone(index, &zone_of(index, zones)));
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            let contents = (0..60u32).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect();
            let addresses = client.put_many(contents).unwrap();
            let copies = || network.nodes.iter().map(|fake| fake.store.usage().count).sum::<u64>();
            while copies() < 3 * addresses.len() as u64 {
                reactor::sleep(Duration::from_millis(2));
            }
            for address in &addresses {
                let theirs: BTreeSet<_> = zones_of(&network, address, zones).into_iter().collect();
                assert_eq!(theirs.len(), 3, "of {count} nodes in {zones} zones");
            }
            let genesis = client.create_register([1; 32], vec![]).unwrap();
            let index_of =
                |id: &NodeId| network.nodes.iter().position(|node| node.contact.id == *id).unwrap();
            let mut keepers: Vec<_> = genesis.members.iter().map(|id| zone_of(index_of(id), zones)).collect();
            keepers.sort();
            keepers.dedup();
            assert_eq!(keepers.len(), 3);
            client.compare_and_swap(&genesis.register(), None, Bytes::from_static(b"1")).unwrap();
            // All of one zone die at once, and nobody knows yet.
            for gone in 0..zones {
                let of_zone = |index: &usize| index % zones == gone;
                (0..count).filter(of_zone).for_each(|index| network.nodes[index].mood.set(Mood::Dead));
                for address in &addresses {
                    client.get(address, None).unwrap();
                }
                assert_eq!(client.read(&genesis.register()).unwrap().unwrap().payload, "1");
                client.put(Bytes::from(vec![gone as u8; 9])).unwrap();
                (0..count).filter(of_zone).for_each(|index| network.nodes[index].mood.set(Mood::Well));
            }
        });
    }
}

/// What nodes say of themselves reaches each of them when it may: until then they put and look for blocks in different places.
#[test]
fn nodes_that_learn_late_where_others_stand_agree_in_the_end_and_nothing_is_missed_meanwhile() {
    for (count, zones) in [(5, 3), (12, 3), (16, 4)] {
        reactor::run(move || {
            let network = FakeNetwork::new(count, 3, 1);
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            let contents = |from: u32| -> Vec<Bytes> {
                (from..from + 20).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect()
            };
            let mut addresses = client.put_many(contents(0)).unwrap();
            reactor::sleep(Duration::from_millis(20));
            // They say where they are, and half of them hear it, and put and repair by it.
            (0..count).for_each(|index| network.say_zone(index, &zone_of(index, zones)));
            network.nodes.iter().step_by(2).for_each(|node| node.is_behind.set(true));
            let repairs: Vec<_> = (0..count).map(|index| repair_of(&network, index)).collect();
            let rounds = || repairs.iter().map(|repair| repair.round()).collect::<Vec<_>>();
            let user = Rc::new(Identity::from_seed(&[1; 32]));
            for (index, from) in [(0, 100), (1, 200)] {
                addresses.extend(network.client_at(index, &user).put_many(contents(from)).unwrap());
                rounds();
                for address in &addresses {
                    for reader in [network.client_at(0, &user), network.client_at(1, &user), client.clone()] {
                        reader.get(address, None).unwrap();
                    }
                }
            }
            network.nodes.iter().for_each(|node| node.is_behind.set(false));
            let mut rounds_needed = 0;
            let open =
                |report: &Report| report.missing + report.blocks + report.handed_over + report.unsettled;
            // A round in which nobody had anything to do may come before one in which somebody hears of it.
            let are_placed = || {
                addresses.iter().all(|address| {
                    client.links().placed(address.0, 3)[..3].iter().all(|contact| {
                        let node = network.nodes.iter().find(|node| node.contact.id == contact.id).unwrap();
                        node.node().has_block(address)
                    })
                })
            };
            while rounds().iter().any(|report| open(report) > 0) || !are_placed() {
                rounds_needed += 1;
                assert!(rounds_needed < 8, "repair does not come to an end");
            }
            println!("{count} nodes in {zones} zones agree after {rounds_needed} rounds");
            for address in &addresses {
                for contact in &client.links().placed(address.0, 3)[..3] {
                    let node = network.nodes.iter().find(|node| node.contact.id == contact.id).unwrap();
                    assert!(node.node().has_block(address), "{address} is not on {contact}");
                }
                let theirs: BTreeSet<_> = zones_of(&network, address, zones).into_iter().collect();
                assert!(theirs.len() >= 3, "{theirs:?}");
            }
            // Each knows that nothing would go with any zone but its own.
            assert!(network.nodes.iter().all(|node| node.node().caught_up_with().len() == count - 1));
        });
    }
}

/// `status` called a zone dispensable that held the only copies: a flag was set by whoever had compared by an older view.
#[test]
fn nobody_says_that_he_has_caught_up_with_one_who_sees_others_elsewhere() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        client
            .put_many((0..40u32).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect())
            .unwrap();
        reactor::sleep(Duration::from_millis(20));
        let repairs: Vec<_> = (0..6).map(|index| repair_of(&network, index)).collect();
        let rounds = || repairs.iter().map(Repair::round).collect::<Vec<_>>();
        rounds();
        (0..6).for_each(|index| network.say_zone(index, &zone_of(index, 3)));
        // The others' last rounds began before anybody said anything.
        let report = repairs[0].round();
        assert_eq!((report.unsettled, report.silent), (5, 0));
        assert!(network.nodes[0].node().caught_up_with().is_empty());
        for _ in 0..3 {
            rounds();
        }
        let caught_up = || network.nodes[0].node().caught_up_with();
        assert_eq!(caught_up().len(), 5);
        // Two die; whoever is silent, and then gone, has taken nothing along.
        network.nodes[3].mood.set(Mood::Dead);
        network.nodes[1].mood.set(Mood::Dead);
        assert_eq!(repairs[0].round().silent, 2);
        assert_eq!(caught_up().len(), 5);
        network.nodes[3].forgotten.set(true);
        assert_eq!(repairs[0].round().silent, 1);
        assert_eq!(caught_up().len(), 5);
        // What it is given while it is away from us, we do not know.
        network.nodes[3].forgotten.set(false);
        network.restart(3);
        assert_eq!(repairs[0].round().unsettled, 1);
        assert!(!caught_up().contains(&network.nodes[3].contact.id));
    });
}

/// A node went on saying that it had caught up while it fetched what it lacked, and when that had failed halfway.
#[test]
fn who_has_a_list_of_what_he_lacks_has_not_caught_up() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        (0..3).for_each(|index| network.say_zone(index, &zone_of(index, 3)));
        let repairs: Vec<_> = (0..3).map(|index| repair_of(&network, index)).collect();
        for _ in 0..3 {
            repairs.iter().for_each(|repair| {
                repair.round();
            });
        }
        let caught_up = || network.nodes[1].node().caught_up_with().contains(&network.nodes[0].contact.id);
        assert!(caught_up());
        // What the first is given now, the others cannot be given.
        for number in 0..10u8 {
            let content = Bytes::from(vec![number; 9]);
            let address = Address::of(&TAG, &content);
            network.nodes[0].node().put_block(&address, &TAG, content).unwrap();
        }
        network.nodes[2].mood.set(Mood::Dead);
        reactor::scope(|scope| {
            scope.spawn(|| {
                while network.calls_of("dht.get_block") == 0 {
                    reactor::yield_now();
                }
                assert!(!caught_up(), "it has the list in its hand");
                network.nodes[0].mood.set(Mood::Dead);
            });
            scope.spawn(|| {
                assert!(repairs[1].round().missing > 0);
            });
        });
        assert!(!caught_up());
        // Nor has one who does not hear what there is.
        network.nodes[0].mood.set(Mood::Well);
        assert_eq!(repairs[1].round().blocks, 10);
        repairs[0].round();
        repairs[1].round();
        assert!(caught_up());
    });
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

/// They were on three big nodes, which the sixteen nearest were no more once many had come.
#[test]
fn what_lay_where_there_was_room_is_found_when_many_have_come() {
    for (first, count) in [(16, 40), (16, 70)] {
        reactor::run(move || {
            let network = FakeNetwork::new(count, 3, 1);
            (0..3).for_each(|index| network.say_capacity(index, 4 << 40));
            (3..count).for_each(|index| network.say_capacity(index, 16 << 30));
            network.nodes[first..].iter().for_each(|node| node.forgotten.set(true));
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            let contents = (0..120u32).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect();
            let addresses = client.put_many(contents).unwrap();
            reactor::sleep(Duration::from_millis(20));
            network.nodes.iter().for_each(|node| node.forgotten.set(false));
            let reader = network.client(&Rc::new(Identity::from_seed(&[2; 32])));
            let (mut far, mut unknown) = (0, 0);
            for address in &addresses {
                let near = reader.links().closest(address.0, WIDTH);
                let has = |contact: &Contact| {
                    let fake = network.nodes.iter().find(|fake| fake.contact.id == contact.id).unwrap();
                    fake.node().has_block(address)
                };
                far += usize::from(!near.iter().any(has));
                match reader.get(address, None) {
                    Ok(_) => {}
                    // Beyond what a lookup finds nobody knows, and that is what is said.
                    Err(GetError::Unreachable { .. }) if count > 48 => unknown += 1,
                    Err(error) => panic!("{first} nodes became {count}: {error}"),
                }
            }
            println!(
                "{first} nodes became {count}: {far} of 120 blocks beyond the nearest 16, {unknown} beyond 48"
            );
            assert!(far > 0);
        });
    }
}

/// Of sixteen nodes, each put and each read asked all of the others first who there is.
#[test]
fn where_only_a_lookup_tells_who_there_is_it_is_not_made_for_each_block() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(16, 3, 1);
        (0..16).for_each(|index| network.say_zone(index, &zone_of(index, 4)));
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let contents = (0..50u32).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect();
        for address in client.put_many(contents).unwrap() {
            client.get(&address, None).unwrap();
        }
        assert!((1..=2).contains(&network.lookups.get()), "{} lookups", network.lookups.get());
        // Until somebody comes or goes.
        let before = network.lookups.get();
        network.changes.announce();
        client.put(Bytes::from_static(b"another")).unwrap();
        assert!(network.lookups.get() > before);
    });
}

/// A mount took a block for gone whose three keepers were at a site that was cut off, and stored nothing any more. Then it was known
/// for an hour only who had been met, and by nobody who came later; and any two that were away kept anybody from saying it of any block.
#[test]
fn that_a_block_is_nowhere_is_not_said_while_somebody_is_away_who_could_have_it() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(10, 3, 1);
        let user = Rc::new(Identity::from_seed(&[1; 32]));
        let client = network.client(&user);
        let address = client.put(Bytes::from_static(b"theirs")).unwrap();
        reactor::sleep(Duration::from_secs(1));
        let has = |node: &&FakeNode| node.node().has_block(&address);
        let keepers: Vec<&FakeNode> = network.nodes.iter().filter(has).collect();
        let go = |node: &FakeNode, is_away: bool| {
            node.mood.set(if is_away { Mood::Dead } else { Mood::Well });
            node.forgotten.set(is_away);
        };
        let is_unknown = |client: &Client<FakeOverlay>, address: &Address| match client.get(address, None) {
            Err(GetError::Unreachable { reason, .. }) => {
                assert!(reason.contains("is away"), "{reason}");
                true
            }
            Err(GetError::NotFound(_)) => false,
            other => panic!("{other:?}"),
        };
        keepers.iter().for_each(|keeper| go(keeper, true));
        // However long that is, and whoever asks: one that has never met them as well.
        assert!(is_unknown(&client, &address));
        reactor::sleep(Duration::from_secs(30 * 24 * 3600));
        assert!(is_unknown(&client, &address) && is_unknown(&network.client(&user), &address));
        // Two of them back: the third could have what these lack.
        let lacking: Vec<Address> =
            (0..200u32).map(|number| Address::of(&TAG, &number.to_le_bytes())).collect();
        let responsible = |address: &Address| {
            let mut nodes: Vec<&FakeNode> = network.nodes.iter().collect();
            nodes.sort_by_key(|node| node.contact.id.distance(&NodeId(address.0)));
            nodes[..3].iter().map(|node| node.contact.id).collect::<Vec<_>>()
        };
        keepers[1..].iter().for_each(|keeper| go(keeper, false));
        let away = keepers[0].contact.id;
        for address in &lacking {
            assert_eq!(is_unknown(&client, address), responsible(address).contains(&away), "{address}");
        }
        // Two that are away, and could have none of it, are in nobody's way.
        let others = |address: &Address| {
            let far = |node: &&FakeNode| !responsible(address).contains(&node.contact.id);
            network.nodes.iter().filter(far).take(2).collect::<Vec<_>>()
        };
        go(keepers[0], false);
        for address in &lacking[..20] {
            others(address).into_iter().for_each(|node| go(node, true));
            assert!(!is_unknown(&client, address));
            others(address).into_iter().for_each(|node| go(node, false));
        }
        // Who was removed has nothing; who was never let in neither.
        go(keepers[0], true);
        let of_away = lacking.iter().find(|address| responsible(address).contains(&away)).unwrap();
        keepers[0].is_removed.set(true);
        assert!(!is_unknown(&client, of_away));
        keepers[0].is_removed.set(false);
        keepers[0].is_unborn.set(true);
        assert!(!is_unknown(&network.client(&user), of_away));
    });
}

/// Of a node that nobody has heard of its zone, and others stand in zones: it may be the first of another one for every block.
#[test]
fn who_was_never_heard_of_could_have_anything_where_others_say_where_they_stand() {
    let contact = |number: u8, zone: Option<&str>| {
        let identity = Identity::from_seed(&[number; 32]);
        let contact = Contact::new(identity.public_key(), []);
        let said = zone.map(|zone| Statement { zone: Some(zone.parse().unwrap()), ..Statement::default() });
        let sign = |said| NodeRecord::sign(&identity, &identity.public_key(), 1, said);
        said.map(sign).into_iter().fold(contact, |contact, record| contact.with_record(Arc::new(record)))
    };
    let in_sight: Vec<Contact> = (0..6).map(|number| contact(number, Some("here"))).collect();
    let keys: Vec<NodeId> = (0..60u8).map(|number| NodeId([number.wrapping_mul(4); 32])).collect();
    let count = |away: Contact| {
        let could = |key: &&NodeId| !could_keep(key, &in_sight, std::slice::from_ref(&away), 3).is_empty();
        keys.iter().filter(could).count()
    };
    assert_eq!(count(contact(9, None)), 60);
    assert_eq!(
        count(contact(9, Some("elsewhere"))),
        60,
        "of another zone it is one of the first three for all"
    );
    let of_same = count(contact(9, Some("here")));
    assert!((1..60).contains(&of_same), "{of_same}");
}
