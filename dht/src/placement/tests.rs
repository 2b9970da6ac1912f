//! Where copies lie, what moves when nodes come and go, and what a lie draws.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay::{NodeRecord, Statement};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use reactor::crypto::Identity;

use super::*;

const REPLICAS: usize = 3;

const GIB: u64 = 1 << 30;

/// A node that says this of itself; nothing, if that is nothing.
fn node(number: u32, zone: Option<u8>, capacity_bytes: Option<u64>) -> Contact {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let identity = Identity::from_seed(&seed);
    let contact = Contact::new(identity.public_key(), []);
    if zone.is_none() && capacity_bytes.is_none() {
        return contact;
    }
    let zone = zone.map(|zone| format!("zone-{zone}").parse().unwrap());
    let statement = Statement { zone, capacity_bytes, ..Statement::default() };
    contact.with_record(Arc::new(NodeRecord::sign(&identity, &identity.public_key(), 1, statement)))
}

fn key(random: &mut StdRng) -> NodeId {
    let mut key = [0; 32];
    random.fill_bytes(&mut key);
    NodeId(key)
}

fn nearest(key: &NodeId, nodes: &[Contact]) -> Vec<Contact> {
    let mut nearest = nodes.to_vec();
    nearest.sort_by_key(|contact| contact.id.distance(key));
    nearest.truncate(WIDTH);
    nearest
}

fn ids(key: &NodeId, nodes: &[Contact]) -> Vec<NodeId> {
    responsible(key, &nearest(key, nodes), REPLICAS).iter().map(|contact| contact.id).collect()
}

fn any_nodes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Contact>> {
    let said =
        (prop::option::of(0u8..4), prop::option::of(prop::sample::select(vec![1, 20, 256, 1000, 9000])));
    prop::collection::vec((any::<u16>(), said), count).prop_map(|said| {
        let mut nodes = Vec::new();
        for (index, (number, (zone, gib))) in said.into_iter().enumerate() {
            nodes.push(node(u32::from(number) << 8 | index as u32, zone, gib.map(|gib: u64| gib * GIB)));
        }
        nodes
    })
}

#[test]
fn where_nobody_says_anything_the_nearest_come_first() {
    let nodes: Vec<Contact> = (0..40).map(|number| node(number, None, None)).collect();
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..50 {
        let key = key(&mut random);
        let mut all = nodes.clone();
        all.sort_by_key(|contact| contact.id.distance(&key));
        assert_eq!(order(&key, &nodes), all);
        // Ids that are alike for longer than anybody's are.
        let alike = (0..4u8).map(|last| {
            let mut contact = nodes[usize::from(last)].clone();
            contact.id = NodeId([&key.0[..31], &[key.0[31] ^ (3 - last)]].concat().try_into().unwrap());
            contact
        });
        let alike: Vec<Contact> = alike.collect();
        let reversed: Vec<Contact> = alike.iter().rev().cloned().collect();
        assert_eq!(order(&key, &alike), reversed);
    }
}

#[test]
fn with_fewer_nodes_than_replicas_all_are_responsible() {
    assert!(responsible(&NodeId([9; 32]), &[], 3).is_empty());
    let own = NodeId([1; 32]);
    assert!(Neighbourhood::of(own).are_responsible(&[own], &NodeId([9; 32]), 3));
    assert!(Neighbourhood::of(own).are_responsible(&[own, NodeId([2; 32])], &NodeId([9; 32]), 3));
}

#[test]
fn those_who_keep_something_count_for_their_zones() {
    let nodes: Vec<Contact> =
        [0, 0, 0, 1, 2].iter().zip(0..).map(|(zone, n)| node(n, Some(*zone), None)).collect();
    let (kept, others) = nodes.split_first().unwrap();
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..20 {
        let next = order_beside(&key(&mut random), &[kept.into()], others);
        assert!(next[..2].iter().all(|contact| contact.zone() != kept.zone()), "{next:?}");
    }
}

/// Which part of all copies is on each node.
fn shares(nodes: &[Contact], keys: usize) -> BTreeMap<NodeId, f64> {
    let mut random = StdRng::seed_from_u64(7);
    let mut shares: BTreeMap<NodeId, f64> = nodes.iter().map(|node| (node.id, 0.0)).collect();
    for _ in 0..keys {
        for id in ids(&key(&mut random), nodes) {
            *shares.get_mut(&id).unwrap() += 1.0 / (keys * REPLICAS) as f64;
        }
    }
    shares
}

#[test]
fn a_node_takes_about_what_it_has_room_for_and_a_lie_draws_no_more_than_the_bound() {
    // Of many networks the mean: in any one of them ids lie unevenly, as they do without weights.
    let share_of_first = |bytes: Option<u64>| {
        let network = |from: u32| {
            let mut nodes: Vec<Contact> = (1..12).map(|n| node(from + n, None, Some(256 * GIB))).collect();
            nodes.push(node(from, None, bytes));
            shares(&nodes, 200)[&nodes[11].id]
        };
        (0..30).map(|number| network(number * 100)).sum::<f64>() / 30.0
    };
    // A node has at most one copy of a block.
    let most: f64 = 1.0 / REPLICAS as f64;
    for (gib, weight) in [(64, 0.25), (128, 0.5), (256, 1.0), (512, 2.0), (1024, 4.0)] {
        let share = share_of_first(Some(gib * GIB));
        let fair = f64::min(weight / (11.0 + weight), most);
        println!("{gib} GiB beside eleven of 256: {share:.3} of all copies, in proportion {fair:.3}");
        assert!((0.7..1.3).contains(&(share / fair)), "{gib} GiB: {share} instead of {fair}");
    }
    let bounded = share_of_first(Some(WEIGHT_MAX * WEIGHT_BYTES));
    assert_eq!(share_of_first(Some(u64::MAX)), bounded);
    assert_eq!(share_of_first(None), share_of_first(Some(256 * GIB)));
    println!("whoever claims everything has {bounded:.3} of all copies, of {most:.3} that one node can have");
    assert!(bounded <= most);
}

#[test]
fn how_much_moves_when_a_node_comes_and_when_it_says_something_else() {
    let zoned = |count: u32| -> Vec<Contact> {
        (0..count).map(|n| node(n, Some((n % 3) as u8), Some(u64::from(n % 4 + 1) * 128 * GIB))).collect()
    };
    for count in [4, 6, 9, 12, 15] {
        let (before, after) = (zoned(count), zoned(count + 1));
        let keys = 4000;
        let mut random = StdRng::seed_from_u64(3);
        let mut moved = 0;
        for _ in 0..keys {
            let key = key(&mut random);
            let (old, new) = (ids(&key, &before), ids(&key, &after));
            moved += new.iter().filter(|id| !old.contains(id)).count();
        }
        let share = shares(&after, keys)[&after[count as usize].id];
        let fraction = moved as f64 / (keys * REPLICAS) as f64;
        println!("node {} comes: {fraction:.3} of all copies move, and it has {share:.3}", count + 1);
    }
    // From one zone into three, what never moved before moves once.
    let together: Vec<Contact> = (0..9).map(|n| node(n, Some(0), None)).collect();
    let apart: Vec<Contact> = (0..9).map(|n| node(n, Some((n % 3) as u8), None)).collect();
    let mut random = StdRng::seed_from_u64(4);
    let mut moved = 0;
    for _ in 0..4000 {
        let key = key(&mut random);
        let old = ids(&key, &together);
        moved += ids(&key, &apart).iter().filter(|id| !old.contains(id)).count();
    }
    println!("nine nodes say that they are in three zones: {:.3} of all copies move", moved as f64 / 12000.0);
    assert!(moved > 0 && moved < 12000);
}

proptest! {
    #[test]
    fn copies_lie_in_as_many_zones_as_there_are(nodes in any_nodes(1..17), seed: u64) {
        let key = key(&mut StdRng::seed_from_u64(seed));
        let chosen = responsible(&key, &nodes, REPLICAS);
        let zones = |nodes: &[Contact]| {
            let zones: std::collections::BTreeSet<_> = nodes.iter().filter_map(Contact::zone).cloned().collect();
            zones.len() + nodes.iter().filter(|node| node.zone().is_none()).count()
        };
        prop_assert_eq!(chosen.len(), REPLICAS.min(nodes.len()));
        prop_assert_eq!(zones(&chosen), REPLICAS.min(zones(&nodes)));
    }

    /// The least that theory allows: a newcomer takes what becomes its own, and nothing else moves.
    #[test]
    fn whoever_comes_or_goes_moves_its_own_copies_and_no_others(nodes in any_nodes(2..17), seed: u64) {
        let (comes, before) = nodes.split_last().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let key = key(&mut random);
            let (old, new) = (ids(&key, before), ids(&key, &nodes));
            let gained: Vec<_> = new.iter().filter(|id| !old.contains(id)).collect();
            let lost = old.iter().filter(|id| !new.contains(id)).count();
            prop_assert!(gained.is_empty() || gained == [&comes.id]);
            prop_assert_eq!(lost, if before.len() < REPLICAS { 0 } else { gained.len() });
            prop_assert_eq!(!gained.is_empty(), new.contains(&comes.id));
        }
    }

    /// It goes, and comes as another: twice the least at most.
    #[test]
    fn who_says_another_zone_or_capacity_moves_two_copies_of_a_block_at_most(
        nodes in any_nodes(4..17),
        says in any_nodes(1..2),
        seed: u64,
    ) {
        let changed = says[0].clone();
        let mut after = nodes.clone();
        let id = after[0].id;
        after[0] = changed;
        after[0].id = id;
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let key = key(&mut random);
            let (old, new) = (ids(&key, &nodes), ids(&key, &after));
            prop_assert!(new.iter().filter(|other| !old.contains(other)).count() <= 2);
        }
    }

    /// In a network that no lookup shows whole, a newcomer also pushes one out of sight.
    #[test]
    fn in_a_large_network_a_newcomer_moves_two_copies_of_a_block_at_most(nodes in any_nodes(18..60), seed: u64) {
        let (_, before) = nodes.split_last().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let key = key(&mut random);
            let (old, new) = (ids(&key, before), ids(&key, &nodes));
            prop_assert!(new.iter().filter(|id| !old.contains(id)).count() <= 2);
        }
    }

    #[test]
    fn both_ways_of_asking_agree(nodes in any_nodes(1..40), seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let own = &nodes[random.random_range(0..nodes.len())];
        let around = Neighbourhood::new(own.id, &nodes);
        for _ in 0..10 {
            let key = key(&mut random);
            let chosen = ids(&key, &nodes);
            for other in &nodes {
                let both = chosen.contains(&own.id) && chosen.contains(&other.id);
                prop_assert_eq!(around.are_responsible(&[own.id, other.id], &key, REPLICAS), both);
            }
        }
    }
}
