//! Puts while nodes of another zone are slow: who is waited for, and for how long.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::Identity;
use reactor::sim::{self, SimConfig};

use crate::testing::{FakeNetwork, FakeOverlay, Mood};
use crate::{Address, BlockStore, Client};

fn content(number: u32) -> Bytes {
    Bytes::from(number.to_le_bytes().to_vec())
}

/// How long it takes to put a block.
fn time_to_put(client: &Client<FakeOverlay>, number: u32) -> Duration {
    let before = reactor::now();
    client.put(content(number)).unwrap();
    reactor::now() - before
}

/// A quorum was two nodes of one cellar as soon as the others were slow; with the cellar, what had been synced was gone.
#[test]
fn a_put_is_done_when_another_zone_has_it_and_not_before_though_that_is_slower() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(7, 3, 1);
        // The writer is in the cellar, with four nodes beside it.
        let zones = ["cellar", "cellar", "cellar", "cellar", "cellar", "attic", "shed"];
        (0..7).for_each(|index| network.say_zone(index, zones[index]));
        let slow = Duration::from_millis(1800);
        network.nodes[5..].iter().for_each(|fake| fake.delay.set(slow));
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let is_elsewhere =
            |address: &Address| network.nodes[5..].iter().any(|fake| fake.node().has_block(address));
        for address in client.put_many((0..24).map(content).collect()).unwrap() {
            assert!(is_elsewhere(&address));
        }
        // With more blocks on their way to them than anybody is left to keep.
        reactor::scope(|scope| {
            for number in 100..160 {
                let (client, is_elsewhere) = (client.clone(), &is_elsewhere);
                scope.spawn(move || {
                    let address = client.put(content(number)).unwrap();
                    assert!(is_elsewhere(&address));
                });
            }
        });
        // With nobody else there, it is kept where it can be.
        network.nodes[5..].iter().for_each(|fake| fake.mood.set(Mood::Dead));
        let address = client.put(Bytes::from_static(b"alone")).unwrap();
        assert!(!is_elsewhere(&address));
        client.get(&address, None).unwrap();
    });
}

/// Any member could have all others wait 14 s for each block, in a network in which nobody had ever said a zone.
#[test]
fn who_makes_up_a_zone_and_takes_each_block_late_holds_up_a_few_puts_and_then_none() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(6, 3, 1);
        network.say_zone(5, "made-up");
        let late = Duration::from_secs(14);
        network.nodes[5].delay.set(late);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let long = Duration::from_secs(1);
        let held_up =
            |from: u32| (from..from + 40).filter(|number| time_to_put(&client, *number) > long).count();
        assert_eq!(held_up(0), 1);
        assert_eq!(held_up(100), 0, "it has taken none in time since");
        // Nor does it hold up many for long that are under way at once.
        let other = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let before = reactor::now();
        other.put_many((200..400).map(content).collect()).unwrap();
        assert!(reactor::now() - before < Duration::from_secs(4), "{:?}", reactor::now() - before);
        // Who takes one in time is waited for again, and is late once more.
        reactor::sleep(2 * late);
        network.nodes[5].delay.set(Duration::ZERO);
        client.put(content(500)).unwrap();
        reactor::sleep(long);
        network.nodes[5].delay.set(late);
        assert_eq!(held_up(600), 1);
    });
}

/// As the network of a cellar whose line is slow: it is a zone as any other.
#[test]
fn a_zone_that_is_only_a_little_slower_is_waited_for_each_time() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(6, 3, 1);
        network.say_zone(5, "attic");
        // Slower than anybody would be granted, were the others quick.
        for (of_others, of_attic) in [(0, 1900), (1000, 3800), (3000, 11_000)] {
            network.nodes[..5].iter().for_each(|fake| fake.delay.set(Duration::from_millis(of_others)));
            network.nodes[5].delay.set(Duration::from_millis(of_attic));
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            for number in 0..20 {
                let address = client.put(content(number + of_others as u32)).unwrap();
                assert!(network.nodes[5].node().has_block(&address), "others take {of_others} ms");
            }
        }
    });
}

/// The node of the writer's own process was called without any bound.
#[test]
fn a_disk_of_our_own_that_is_stuck_holds_up_no_put_that_the_others_have() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(5, 3, 1);
        network.say_zone(0, "home");
        (1..5).for_each(|index| network.say_zone(index, "centre"));
        network.nodes[0].memory.hang();
        let client = network.client_at(0, &Rc::new(Identity::from_seed(&[1; 32])));
        let took: Vec<Duration> = (0..10).map(|number| time_to_put(&client, number)).collect();
        assert!(took[0] < Duration::from_secs(15), "{took:?}");
        assert!(took[1..].iter().all(|took| took.is_zero()), "{took:?}");
    });
}

/// It had been well for hours, and what was put first lay in one zone.
#[test]
fn who_failed_once_is_waited_for_again_when_a_minute_has_passed() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(6, 3, 1);
        network.say_zone(5, "attic");
        network.nodes[5].delay.set(Duration::from_millis(500));
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        network.nodes[5].mood.set(Mood::Dead);
        client.put(content(1)).unwrap();
        network.nodes[5].mood.set(Mood::Well);
        reactor::sleep(Duration::from_secs(61));
        let address = client.put(content(2)).unwrap();
        assert!(network.nodes[5].node().has_block(&address));
    });
}
