//! What a register was moves with its keepers, one after the other, and nobody makes others keep what was not, or less.
//!
//! What went wrong: it stayed on those who had kept it then, so whoever moved house node by node had no way back any more.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use overlay::NodeId;
use reactor::crypto::Identity;
use reactor::sim::{self, SimConfig};

use crate::block::mutable::SignedRecord;
use crate::client::Client;
use crate::message::PastEntry;
use crate::past::{At, Values};
use crate::repair::Running;
use crate::store::{Key, Kind, Store};
use crate::testing::{FakeNetwork, FakeNode, FakeOverlay, Mood, repair_of};
use crate::{BlockStore, Record, RegisterAddress};

const DAY: u32 = 24 * 3600;

/// Six nodes, all of which repair, and a register on three of them that had six values, an hour each.
struct World {
    network: Rc<FakeNetwork>,
    client: Client<FakeOverlay>,
    register: RegisterAddress,
    values: Vec<Record>,
    repairs: Vec<Running>,
}

impl World {
    fn new() -> World {
        let network = FakeNetwork::new(6, 3, 1);
        network.nodes.iter().for_each(|fake| fake.node().say_retention(7 * DAY));
        let repairs = (0..6).map(|index| repair_of(&network, index).start()).collect();
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let register = client.create_register([1; 32], vec![]).unwrap().register();
        let mut world = World { network, client, register, values: Vec::new(), repairs };
        for number in 0..6 {
            world.write(number);
            reactor::sleep(Duration::from_secs(3600));
        }
        world
    }

    fn write(&mut self, number: u8) {
        let expected = self.values.last().map(|last| last.header_hash);
        let written = self.client.compare_and_swap(&self.register, expected, vec![number].into()).unwrap();
        self.values.push(written);
    }

    fn members(&self) -> Vec<NodeId> {
        self.client.membership(&self.register).unwrap().members().to_vec()
    }

    fn node(&self, id: &NodeId) -> &FakeNode {
        self.network.nodes.iter().find(|fake| fake.contact.id == *id).unwrap()
    }

    fn hashes(values: &Values) -> Vec<[u8; 32]> {
        values.values.iter().map(|value| value.header_hash.0).collect()
    }

    /// All values are there, on three nodes each, under their times, and are read.
    fn all_is_there(&self) {
        let past = self.client.past(&self.register).unwrap();
        let written: Vec<_> = self.values.iter().map(|value| value.header_hash.0).collect();
        assert_eq!(World::hashes(&past), written);
        for (value, record) in past.values.iter().zip(&self.values) {
            assert!(value.node_count() >= 3, "{value:?}");
            assert_eq!(self.client.read_past(&self.register, value).as_ref(), Ok(record));
            assert_eq!(past.at(value.since_seconds + 1800), At::Was(value));
        }
    }
}

#[test]
fn what_a_register_was_is_there_after_each_of_its_keepers_was_replaced() {
    sim::run(1, SimConfig::default(), |_| {
        let mut world = World::new();
        for id in world.members() {
            world.client.replace_members(&world.register, &[id]).unwrap();
            let staying = world.client.past_without(&world.register, &id).unwrap();
            assert_eq!((staying.count, staying.thin), (5, vec![]));
            world.node(&id).mood.set(Mood::Dead);
            world.node(&id).forgotten.set(true);
            reactor::sleep(Duration::from_secs(600));
        }
        world.all_is_there();
        // As long as it would have been, and no longer. Some half an hour has gone by since the six.
        world.repairs.clear();
        reactor::sleep(Duration::from_secs(u64::from(7 * DAY) - 6 * 3600));
        let node = world.node(&world.members()[0]).node();
        let first = |count: usize| {
            node.forget_past().unwrap();
            let listed = node.list_past(&world.register, 0).unwrap();
            assert_eq!(listed[0].header_hash, world.values[count].header_hash);
        };
        first(0);
        reactor::sleep(Duration::from_secs(3600));
        first(1);
        reactor::sleep(Duration::from_secs(2 * 3600));
        first(3);
    });
}

#[test]
fn a_keeper_that_lost_its_disk_learns_from_the_others_what_the_register_was() {
    sim::run(1, SimConfig::default(), |_| {
        let mut world = World::new();
        let id = world.members()[0];
        let index = world.network.nodes.iter().position(|fake| fake.contact.id == id).unwrap();
        let memory = world.network.nodes[index].memory.clone();
        for kind in [Kind::REGISTER, Kind::PAST, Kind::NOTE, Kind::LEARNED_PAST] {
            memory.keys(&Key::first(kind), usize::MAX).iter().filter(|key| key.kind == kind).for_each(
                |key| {
                    memory.remove(key).unwrap();
                },
            );
        }
        world.network.restart(index);
        world.network.nodes[index].node().set_amnesiac();
        world.network.nodes[index].node().say_retention(7 * DAY);
        world.repairs.push(repair_of(&world.network, index).start());
        reactor::sleep(Duration::from_secs(600));
        world.all_is_there();
    });
}

/// A drive that nobody touched for longer than the retention, then many commits in one go: what it was before is the way back.
struct Burst {
    world: World,
    /// Since when it was what it was before.
    since: u64,
    /// The last but one of the burst, which nobody keeps.
    unlisted: SignedRecord,
}

impl Burst {
    fn new() -> Burst {
        let mut world = World::new();
        // Nothing of this is about what runs meanwhile.
        world.repairs.clear();
        reactor::sleep(Duration::from_secs(u64::from(9 * DAY)));
        (10..14).for_each(|number| world.write(number));
        let listed = world.node(&world.members()[2]).node().list_past(&world.register, 0).unwrap();
        let now = listed.last().unwrap().since_seconds;
        let record = world.node(&world.members()[2]).node().read_past(&world.register, now).unwrap();
        world.write(14);
        reactor::sleep(Duration::from_secs(3600));
        world.write(15);
        let listed = world.node(&world.members()[2]).node().list_past(&world.register, 0).unwrap();
        let is_it = |entry: &&PastEntry| entry.header_hash == world.values[5].header_hash;
        let since = listed.iter().find(is_it).expect("it is listed").since_seconds;
        let repairs = (0..6).map(|index| repair_of(&world.network, index).start()).collect();
        world.repairs = repairs;
        Burst { world, since, unlisted: record.unwrap() }
    }

    /// Those that keep it, the ones first that have what it is now.
    fn keepers(&self) -> [NodeId; 3] {
        let mut members = self.world.members();
        let newest = self.world.values.last().unwrap().header_hash;
        members.sort_by_key(|id| {
            let listed = self.world.node(id).node().list_past(&self.world.register, 0).unwrap();
            listed.last().is_none_or(|last| last.header_hash != newest)
        });
        members.try_into().unwrap()
    }

    /// Who comes in the place of `leaving` has what it was before the burst, also after it has forgotten what is over.
    fn has_what_was_before(&self, leaving: &NodeId) {
        let (world, before) = (&self.world, self.world.members());
        world.client.replace_members(&world.register, &[*leaving]).unwrap();
        reactor::sleep(Duration::from_secs(60));
        let new = world.members().into_iter().find(|id| !before.contains(id)).unwrap();
        let node = world.node(&new).node();
        let has = |index: usize| {
            let listed = node.list_past(&world.register, 0).unwrap();
            listed.iter().any(|entry| entry.header_hash == world.values[index].header_hash)
        };
        assert!(has(5) && has(10));
        node.forget_past().unwrap();
        assert!(has(5) && has(10), "{:?}", node.list_past(&world.register, 0));
        assert!(!has(4), "it was over before");
    }
}

#[test]
fn one_that_says_of_what_it_alone_shows_that_it_came_early_has_nobody_forget_what_was_before() {
    sim::run(1, SimConfig::default(), |_| {
        let burst = Burst::new();
        let [liar, honest, third] = burst.keepers();
        let liar = burst.world.node(&liar).node();
        liar.put_past(&burst.world.register, burst.since + 1, burst.unlisted.clone());
        burst.has_what_was_before(&third);
        burst.has_what_was_before(&honest);
    });
}

#[test]
fn one_of_two_that_says_of_what_both_show_that_it_came_early_has_nobody_forget_what_was_before() {
    sim::run(1, SimConfig::default(), |_| {
        let burst = Burst::new();
        let ([liar, honest, third], world) = (burst.keepers(), &burst.world);
        let liar = world.node(&liar).node();
        let listed = liar.list_past(&world.register, 0).unwrap();
        let is_it = |entry: &&PastEntry| entry.header_hash == world.values[10].header_hash;
        let since = listed.iter().find(is_it).unwrap().since_seconds;
        let record = liar.read_past(&world.register, since).unwrap().unwrap();
        liar.forget_one(&world.register, since);
        liar.put_past(&world.register, burst.since + 1, record);
        // Gone for good: two are left.
        world.node(&third).mood.set(Mood::Dead);
        world.node(&third).forgotten.set(true);
        burst.has_what_was_before(&third);
        burst.has_what_was_before(&honest);
    });
}

#[test]
fn one_that_lies_has_nobody_keep_what_was_not_and_nobody_keep_less() {
    sim::run(1, SimConfig::default(), |_| {
        let world = World::new();
        let members = world.members();
        let (liar, owner) = (world.node(&members[1]).node(), Identity::from_seed(&[1; 32]));
        // It has what a writer signed and nobody chose, for each of them, and shows what it was given under other times.
        for entry in liar.list_past(&world.register, 0).unwrap() {
            let record = liar.read_past(&world.register, entry.since_seconds).unwrap().unwrap();
            liar.forget_one(&world.register, entry.since_seconds);
            liar.put_past(&world.register, entry.since_seconds - 40 * u64::from(DAY), record.clone());
            let planted = Bytes::from_static(b"planted");
            let record = SignedRecord::sign(&owner, world.register, Some(&record), None, planted);
            liar.put_past(&world.register, entry.since_seconds + 10, record);
        }
        world.client.replace_members(&world.register, &[members[0]]).unwrap();
        reactor::sleep(Duration::from_secs(600));
        let new = world.members().into_iter().find(|id| !members.contains(id)).unwrap();
        let node = world.node(&new).node();
        let listed = node.list_past(&world.register, 0).unwrap();
        let honest = world.node(&members[2]).node().list_past(&world.register, 0).unwrap();
        assert_eq!(listed, honest);
    });
}

/// A slot may end for one of them a moment before it does for the others; and what fewer show than count is told.
#[test]
fn what_one_shows_alone_is_taken_over_if_what_came_after_it_proves_it_and_is_told_otherwise() {
    sim::run(1, SimConfig::default(), |_| {
        let mut world = World::new();
        // Far from what is kept of before, and from what comes after.
        let lone = world.values[2].clone();
        (10..30).for_each(|number| world.write(number));
        reactor::sleep(Duration::from_secs(3600));
        world.write(40);
        reactor::sleep(Duration::from_secs(3600));
        let members = world.members();
        let hidden = world.values[3].clone();
        for id in &members[1..] {
            let node = world.node(id).node();
            for entry in node.list_past(&world.register, 0).unwrap() {
                if [lone.header_hash, hidden.header_hash].contains(&entry.header_hash) {
                    node.forget_one(&world.register, entry.since_seconds);
                }
            }
        }
        // Nobody else remembers the one that came right before what was written in one go, nor the next: as the hashes go, both come
        // before the one that all keep.
        world.client.replace_members(&world.register, &[members[1]]).unwrap();
        let staying = world.client.past_without(&world.register, &members[1]).unwrap();
        assert!(staying.thin.is_empty(), "{staying:?}");

        // One that is no ancestor of anything that is kept by all.
        let first = world.node(&members[0]).node();
        let stray = first.list_past(&world.register, 0).unwrap()[0].clone();
        let record = first.read_past(&world.register, stray.since_seconds).unwrap().unwrap();
        let other = SignedRecord::sign(
            &Identity::from_seed(&[1; 32]),
            world.register,
            Some(&record),
            None,
            Bytes::from_static(b"never chosen"),
        );
        first.put_past(&world.register, stray.since_seconds + 700, other);
        let now = world.members();
        let gone = now.iter().find(|id| **id != members[0]).unwrap();
        world.client.replace_members(&world.register, &[*gone]).unwrap();
        let staying = world.client.past_without(&world.register, gone).unwrap();
        let copies: Vec<usize> = staying.thin.iter().map(|thin| thin.copies).collect();
        assert_eq!(copies, [1], "{staying:?}");
    });
}

#[test]
fn a_node_that_says_it_keeps_nothing_has_nobody_think_that_nothing_is_to_be_kept() {
    sim::run(1, SimConfig::default(), |_| {
        let mut world = World::new();
        world.repairs.clear();
        let members = world.members();
        for id in &members[1..] {
            let node = world.node(id).node();
            for entry in node.list_past(&world.register, 0).unwrap() {
                if entry.header_hash == world.values[2].header_hash {
                    node.forget_one(&world.register, entry.since_seconds);
                }
            }
        }
        let other = |fake: &FakeNode| !members.contains(&fake.contact.id);
        let index = world.network.nodes.iter().position(other).unwrap();
        for key in world.network.nodes[index].memory.keys(&Key::first(Kind::NOTE), usize::MAX) {
            world.network.nodes[index].memory.remove(&key).unwrap();
        }
        world.network.restart(index);
        world.network.nodes[index].node().say_retention(0);
        assert!(world.client.retentions().0.iter().any(|said| said.seconds == 0));
        let staying = world.client.past_without(&world.register, &members[0]).unwrap();
        assert_eq!(staying.count, 5);
        assert!(staying.thin.iter().any(|thin| thin.copies == 0), "{staying:?}");
    });
}
