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

fn ids(key: &NodeId, nodes: &[Contact]) -> Vec<NodeId> {
    order(key, nodes).iter().take(REPLICAS).map(|contact| contact.id).collect()
}

fn around(own: &Contact, nodes: &[Contact]) -> Neighbourhood {
    Neighbourhood::new(own.id, nodes.iter().map(Candidate::from).collect(), is_everybody(nodes.len()))
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
        let few = &nodes[..WIDTH];
        all.retain(|contact| few.contains(contact));
        assert_eq!(order(&key, few), all);
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
    assert!(order(&NodeId([9; 32]), &[]).is_empty());
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

/// Nodes in these zones, one for each letter; `-` says none.
fn standing(zones: &str) -> Vec<Contact> {
    let zone = |letter: char| letter.is_ascii_lowercase().then_some(letter as u8);
    zones.chars().zip(0..).map(|(letter, number)| node(number, zone(letter), None)).collect()
}

#[test]
fn who_makes_up_a_zone_is_in_the_place_of_one_honest_copy_and_of_no_other() {
    for (zones, least, most) in [("aabbl", 1.0, 1.0), ("aaabbbcccl", 0.2, 0.75), ("aaabbbccc---", 0.02, 0.6)]
    {
        let nodes = standing(zones);
        let (liar, honest) = nodes.split_last().unwrap();
        let (mut random, mut held) = (StdRng::seed_from_u64(5), 0);
        for _ in 0..2000 {
            let key = key(&mut random);
            let (with, without) = (ids(&key, &nodes), ids(&key, honest));
            held += usize::from(with.contains(&liar.id));
            let displaced = without.iter().filter(|id| !with.contains(id)).count();
            assert!(displaced <= 1);
        }
        let share = f64::from(held as u32) / 2000.0;
        println!("{zones}: the last one has a copy of {share:.2} of all blocks");
        assert!((least..=most).contains(&share), "{zones}: {share}");
    }
}

#[test]
fn those_that_say_no_zone_share_what_one_zone_has() {
    let with_all = standing("aaabbbccca");
    let without = standing("aaabbbccc-");
    let of_last = |nodes: &[Contact]| shares(nodes, 2000)[&nodes[9].id];
    let two = standing("aaabbb----");
    println!(
        "{:.2} said, {:.2} unsaid, {:.2} as one of four",
        of_last(&with_all),
        of_last(&without),
        of_last(&two)
    );
    // Of four that say none each has its part of what that zone has, which is a third of all copies.
    assert!(of_last(&two) < 0.25);
}

#[test]
fn the_order_of_one_zone_alone_does_not_depend_on_what_it_is_called() {
    let (unsaid, said) = (standing("-----"), standing("aaaaa"));
    let mut random = StdRng::seed_from_u64(6);
    for _ in 0..50 {
        let key = key(&mut random);
        assert_eq!(ids(&key, &unsaid), ids(&key, &said));
    }
}

proptest! {
    #[test]
    fn copies_lie_in_as_many_zones_as_there_are(nodes in any_nodes(1..17), seed: u64) {
        let key = key(&mut StdRng::seed_from_u64(seed));
        let chosen = &order(&key, &nodes)[..REPLICAS.min(nodes.len())];
        let zones = |nodes: &[Contact]| {
            let zones: std::collections::BTreeSet<_> = nodes.iter().map(|node| node.zone().cloned()).collect();
            zones.len()
        };
        prop_assert_eq!(zones(chosen), REPLICAS.min(zones(&nodes)));
        prop_assert_eq!(around(&nodes[0], &nodes).has_zones(), zones(&nodes) > 1);
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

    #[test]
    fn in_a_large_network_the_nearest_keep_it_whatever_they_say(nodes in any_nodes(17..40), seed: u64) {
        let key = key(&mut StdRng::seed_from_u64(seed));
        let mut nearest = nodes.clone();
        nearest.sort_by_key(|contact| contact.id.distance(&key));
        prop_assert_eq!(order(&key, &nodes), nearest);
        let around = around(&nodes[0], &nodes);
        prop_assert!(!around.has_zones() && around.order(&key).is_none());
        let mut silent = nodes.clone();
        silent.iter_mut().for_each(|contact| *contact = Contact::new(contact.public_key, []));
        prop_assert_eq!(around.mark(), self::around(&silent[0], &silent).mark());
    }

    #[test]
    fn both_ways_of_asking_agree(nodes in any_nodes(1..40), seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let own = &nodes[random.random_range(0..nodes.len())];
        let around = around(own, &nodes);
        for _ in 0..10 {
            let key = key(&mut random);
            let chosen = ids(&key, &nodes);
            let ordered = around.order(&key).unwrap_or_else(|| chosen.clone());
            prop_assert_eq!(&ordered[..chosen.len()], &chosen[..]);
            for other in &nodes {
                let both = chosen.contains(&own.id) && chosen.contains(&other.id);
                prop_assert_eq!(around.are_responsible(&[own.id, other.id], &key, REPLICAS), both);
            }
        }
    }

    #[test]
    fn two_who_see_the_same_act_by_the_same_view_and_others_do_not(nodes in any_nodes(2..17), says in any_nodes(1..2)) {
        let mut other_way = nodes.clone();
        other_way.reverse();
        let mark = around(&nodes[0], &nodes).mark();
        prop_assert_eq!(mark, around(&nodes[1], &other_way).mark());
        prop_assert!(mark != around(&nodes[0], &nodes[..nodes.len() - 1]).mark());
        let mut changed = nodes.clone();
        changed[1] = says[0].clone();
        changed[1].id = nodes[1].id;
        let is_same = Candidate::from(&changed[1]) == Candidate::from(&nodes[1]);
        prop_assert_eq!(mark == around(&nodes[0], &changed).mark(), is_same);
        prop_assert_eq!(around(&nodes[0], &nodes).agrees_with(&around(&nodes[0], &changed)), is_same);
    }
}
