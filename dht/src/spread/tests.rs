//! Copies are made of all that has too few without a node, deleted or not, and nobody has them made of what is not so.

use std::collections::BTreeSet;
use std::rc::Rc;

use reactor::crypto::Identity;
use reactor::sim::{self, SimConfig};

use super::*;
use crate::block::deletion::Speaker;
use crate::testing::{FakeNetwork, Mood};

fn contents(count: u32) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(number.to_le_bytes().repeat(50))).collect()
}

#[test]
fn without_the_node_that_leaves_every_block_is_on_as_many_nodes_as_before() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let addresses = network.put_long_ago(&client, contents(60));
        let leaving = network.nodes[2].contact.id;
        let others: Vec<NodeId> =
            network.nodes.iter().map(|node| node.contact.id).filter(|id| *id != leaving).collect();
        let copies_without = |address: &Address| {
            let has = |node: &&crate::testing::FakeNode| node.node().has_block(address);
            network.nodes.iter().filter(|node| node.contact.id != leaving).filter(has).count()
        };
        assert!(addresses.iter().any(|address| copies_without(address) < 3));
        let spread = client.spread_without(&leaving, &others, |_| {}).unwrap();
        assert!(spread.blocks == 60 && spread.copied > 0, "{spread:?}");
        assert!(addresses.iter().all(|address| copies_without(address) >= 3));
        // Nothing is left to do, and it is gone without anybody noticing.
        assert_eq!(client.spread_without(&leaving, &others, |_| {}).unwrap().copied, 0);
        network.nodes[2].mood.set(Mood::Dead);
        let spread = client.spread_without(&leaving, &others, |_| {}).unwrap();
        assert_eq!(spread, Spread { blocks: 60, kept: 0, copied: 0, was_asked: false });
    });
}

#[test]
fn what_only_the_leaving_node_has_is_copied_and_what_nobody_takes_is_told() {
    reactor::run(|| {
        let network = FakeNetwork::new(4, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let content = Bytes::from_static(b"the only copy");
        let address = Address::of(&client.tag(), &content);
        let only = &network.nodes[0];
        only.node().put_block(&address, &client.tag(), content).unwrap();
        let broken = &network.nodes[3].memory;
        broken.fail_after(Some(0));
        let spread = || client.spread_without(&only.contact.id, &[], |_| {});
        let refused = spread();
        assert!(matches!(refused, Err(SpreadError::Thin { count: 1, .. })), "{refused:?}");
        broken.fail_after(None);
        assert_eq!(spread(), Ok(Spread { blocks: 1, kept: 0, copied: 1, was_asked: true }));
        assert!(network.nodes[1..].iter().all(|node| node.node().has_block(&address)));
    });
}

#[test]
fn a_node_is_not_done_without_while_another_is_silent_or_too_few_would_be_left() {
    reactor::run(|| {
        let network = FakeNetwork::new(4, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let id = |index: usize| network.nodes[index].contact.id;
        network.nodes[3].mood.set(Mood::Dead);
        let silent = client.spread_without(&id(0), &[id(1), id(2), id(3)], |_| {});
        assert_eq!(silent, Err(SpreadError::Silent(id(3))));
        let few = client.spread_without(&id(0), &[id(1), id(2)], |_| {});
        assert_eq!(few, Err(SpreadError::TooFew { staying: 2, copies: 3 }));
    });
}

#[test]
fn what_was_put_again_after_it_was_deleted_is_copied_as_young_as_it_is_and_a_refusal_is_no_copy() {
    reactor::run(|| {
        let network = FakeNetwork::new(4, 3, 1);
        let (owner, salt) = (Rc::new(Identity::from_seed(&[1; 32])), [2; 32]);
        let client = network.client_with(&owner, crate::owner_tag(&owner.public_key(), &salt));
        let content = Bytes::from_static(b"put again");
        let address = Address::of(&client.tag(), &content);
        let put = |index: usize, put_seconds| {
            let request = PutBlockRequest { put_seconds, ..PutBlockRequest::new(address, client.tag()) };
            network.nodes[index].node().put_block_of(&request, &content).unwrap();
        };
        put(0, Some(1000));
        put(1, Some(1000));
        // The first is away while the block is deleted. It answers before the one with the young copy does.
        let delete_without_the_first = |address: Address| {
            network.nodes[0].mood.set(Mood::Dead);
            let census = client.census(Duration::from_secs(60)).unwrap();
            let mut held = client.list_held(&census, address.0[0]).unwrap();
            held.retain(|other, _| *other == address);
            let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt, grant: None };
            let verdict = Verdict::Delete { put_before_seconds: 2000, retention_seconds: 0 };
            let held: Vec<_> = held.into_iter().collect();
            assert_eq!(client.tell(&census, &held, &speaker, verdict).deleted, 1);
            network.nodes[0].mood.set(Mood::Well);
        };
        delete_without_the_first(address);
        put(1, None);
        network.nodes[1].delay.set(Duration::from_millis(20));
        let leaving = network.nodes[1].contact.id;
        let spread = client.spread_without(&leaving, &[], |_| {});
        assert_eq!(spread, Ok(Spread { blocks: 1, kept: 0, copied: 1, was_asked: true }));
        assert!(network.nodes[2..].iter().all(|node| node.node().has_block(&address)));
        // And one that all others say is deleted has too few copies for as long as somebody has it.
        let content = Bytes::from_static(b"old");
        let address = Address::of(&client.tag(), &content);
        let request =
            PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, client.tag()) };
        for node in &network.nodes[..2] {
            node.node().put_block_of(&request, &content).unwrap();
        }
        delete_without_the_first(address);
        let spread = client.spread_without(&leaving, &[], |_| {});
        assert!(matches!(&spread, Err(SpreadError::Thin { count: 1, .. })), "{spread:?}");
    });
}

/// Whoever emptied one node after the other had no block left of what the drive was within the retention.
#[test]
fn what_was_deleted_and_is_kept_yet_is_copied_with_the_word_and_goes_when_it_would_have() {
    const DAY: u64 = 24 * 3600;
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(6, 3, 1);
        let (owner, salt) = (Rc::new(Identity::from_seed(&[1; 32])), [2; 32]);
        let client = network.client_with(&owner, crate::owner_tag(&owner.public_key(), &salt));
        network.nodes.iter().for_each(|fake| fake.node().say_retention(7 * DAY as u32));
        let addresses = client.put_many(contents(20)).unwrap();
        reactor::sleep(Duration::from_secs(DAY));
        let census = client.census(Duration::from_secs(60)).unwrap();
        let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt, grant: None };
        let now = crate::node::deletions::now_seconds();
        let verdict = Verdict::Delete { put_before_seconds: now, retention_seconds: 0 };
        for address in &addresses {
            let mut held = client.list_held(&census, address.0[0]).unwrap();
            held.retain(|other, _| other == address);
            let held: Vec<_> = held.into_iter().collect();
            assert_eq!(client.tell(&census, &held, &speaker, verdict).deleted, 1);
        }
        reactor::sleep(Duration::from_secs(DAY));
        // The first three go, one after the other, and with them all who had them first if it so happens.
        for leaving in 0..3 {
            let id = network.nodes[leaving].contact.id;
            let spread = client.spread_without(&id, &[], |_| {}).unwrap();
            assert_eq!((spread.blocks, spread.kept), (0, 20), "{spread:?}");
            network.nodes[leaving].mood.set(Mood::Dead);
            network.nodes[leaving].forgotten.set(true);
        }
        let left = &network.nodes[3..];
        for address in &addresses {
            assert!(left.iter().all(|fake| fake.node().is_dead(address) == Ok(true)));
            assert!(left.iter().all(|fake| fake.node().get_block(address, None).is_ok()));
        }
        // The owner has it back; what he leaves goes when its time is over, a day after those that heard it first at the most.
        let census = client.census(Duration::from_secs(60)).unwrap();
        let back: BTreeSet<Address> = addresses[..5].iter().copied().collect();
        assert_eq!(client.take_back(&census, &back, &speaker).unwrap(), back);
        reactor::sleep(Duration::from_secs(5 * DAY));
        let held = || {
            left.iter().for_each(|fake| fake.node().remove_all_due().unwrap());
            let has = |address: &&Address| left.iter().all(|fake| fake.node().has_block(address));
            addresses.iter().filter(has).count()
        };
        assert_eq!(held(), 20);
        reactor::sleep(Duration::from_secs(2 * DAY));
        assert_eq!(held(), 5);
    });
}

#[test]
fn nobody_has_a_block_deleted_by_handing_on_what_was_deleted_once() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(4, 3, 1);
        let (owner, salt) = (Rc::new(Identity::from_seed(&[1; 32])), [2; 32]);
        let tag = crate::owner_tag(&owner.public_key(), &salt);
        let content = Bytes::from_static(b"lives");
        let address = Address::of(&tag, &content);
        let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt, grant: None };
        let said_ms = crate::node::deletions::now_seconds() * 1000;
        let verdict = Verdict::Delete { put_before_seconds: said_ms / 1000, retention_seconds: 3600 };
        let word = speaker.say(address, said_ms, verdict);
        let request = PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, tag) };
        let [first, second, ..] = &network.nodes[..] else { panic!("there are four") };
        let (first, second) = (first.node(), second.node());
        // It is there, and lives.
        first.put_block_of(&request, &content).unwrap();
        let hand_on =
            |node: &crate::node::Node, content: &Bytes, word| node.keep_deleted(&request, word, content);
        assert_eq!(hand_on(&first, &content, &word), Err(Refusal::Superseded));
        assert_eq!(first.is_dead(&address), Ok(false));
        // It is not there, and its owner has taken back what he said.
        second.put_block_of(&request, &content).unwrap();
        second.hear(&speaker.say(address, said_ms + 1, Verdict::Keep)).unwrap();
        second.store().remove(&crate::store::Key::new(crate::store::Kind::BLOCK, address.0)).unwrap();
        assert_eq!(hand_on(&second, &content, &word), Err(Refusal::Superseded));
        // Nor is a word kept for bytes that are another's.
        let third = network.nodes[2].node();
        assert_eq!(hand_on(&third, &Bytes::from_static(b"other"), &word), Err(Refusal::Misnamed));
        third.put_block_of(&request, &content).unwrap();
        assert_eq!(third.is_dead(&address), Ok(false));
    });
}

/// The time of what was deleted goes with it: what the one that takes it promises now may be less.
#[test]
fn what_was_deleted_under_a_longer_retention_is_kept_for_that_where_it_is_handed_on_to() {
    const DAY: u64 = 24 * 3600;
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(4, 3, 1);
        let (owner, salt) = (Rc::new(Identity::from_seed(&[1; 32])), [2; 32]);
        let client = network.client_with(&owner, crate::owner_tag(&owner.public_key(), &salt));
        let (first, others) = network.nodes.split_first().unwrap();
        first.node().say_retention(7 * DAY as u32);
        others.iter().for_each(|fake| fake.node().say_retention(DAY as u32));
        let content = Bytes::from_static(b"what the drive was");
        let address = Address::of(&client.tag(), &content);
        let request =
            PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, client.tag()) };
        first.node().put_block_of(&request, &content).unwrap();
        let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt, grant: None };
        let now = crate::node::deletions::now_seconds();
        let verdict = Verdict::Delete { put_before_seconds: now, retention_seconds: 0 };
        first.node().hear(&speaker.say(address, now * 1000, verdict)).unwrap();
        reactor::sleep(Duration::from_secs(3 * DAY));
        let spread = client.spread_without(&first.contact.id, &[], |_| {}).unwrap();
        assert_eq!((spread.kept, spread.copied), (1, 1));
        reactor::sleep(Duration::from_secs(4 * DAY - 3600));
        for fake in others {
            fake.node().remove_all_due().unwrap();
            assert_eq!(fake.node().is_dead(&address), Ok(true));
        }
        reactor::sleep(Duration::from_secs(DAY + 7200));
        for fake in others {
            fake.node().remove_all_due().unwrap();
            assert!(!fake.node().has_block(&address), "nor longer, but for the day that a word may be old");
        }
    });
}

/// What went wrong: that somebody refused it counted as a copy.
#[test]
fn what_its_owner_took_back_is_copied_living_from_the_one_that_missed_that() {
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(4, 3, 1);
        let (owner, salt) = (Rc::new(Identity::from_seed(&[1; 32])), [2; 32]);
        let client = network.client_with(&owner, crate::owner_tag(&owner.public_key(), &salt));
        network.nodes.iter().for_each(|fake| fake.node().say_retention(3600));
        let (first, others) = network.nodes.split_first().unwrap();
        let content = Bytes::from_static(b"it is to live");
        let address = Address::of(&client.tag(), &content);
        let request =
            PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, client.tag()) };
        let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt, grant: None };
        let now = crate::node::deletions::now_seconds();
        let verdict = Verdict::Delete { put_before_seconds: now, retention_seconds: 0 };
        first.node().put_block_of(&request, &content).unwrap();
        first.node().hear(&speaker.say(address, now * 1000, verdict)).unwrap();
        for fake in others {
            fake.node().put_block_of(&request, &content).unwrap();
            fake.node().hear(&speaker.say(address, now * 1000 + 1, Verdict::Keep)).unwrap();
            fake.node()
                .store()
                .remove(&crate::store::Key::new(crate::store::Kind::BLOCK, address.0))
                .unwrap();
        }
        let spread = client.spread_without(&first.contact.id, &[], |_| {}).unwrap();
        assert_eq!((spread.kept, spread.copied), (1, 1));
        for fake in others {
            assert!(fake.node().has_block(&address) && fake.node().is_dead(&address) == Ok(false));
        }
    });
}

/// What went wrong: one that heard of a deletion late kept the block for longer than all others, who refused it; whoever knew nothing
/// of it was given it as one that lives, and nobody could be taken away.
#[test]
fn what_somebody_who_heard_of_it_late_keeps_for_longer_lives_nowhere_again_and_keeps_no_node_from_going() {
    const DAY: u64 = 24 * 3600;
    sim::run(1, SimConfig::default(), |_| {
        let network = FakeNetwork::new(4, 3, 1);
        let (owner, salt) = (Rc::new(Identity::from_seed(&[1; 32])), [2; 32]);
        let client = network.client_with(&owner, crate::owner_tag(&owner.public_key(), &salt));
        network.nodes.iter().for_each(|fake| fake.node().say_retention(7 * DAY as u32));
        let [late, told @ .., untold] = &network.nodes[..] else { panic!("there are four") };
        let content = Bytes::from_static(b"gone for good");
        let address = Address::of(&client.tag(), &content);
        let request =
            PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, client.tag()) };
        let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt, grant: None };
        let now = crate::node::deletions::now_seconds();
        let verdict = Verdict::Delete { put_before_seconds: now, retention_seconds: 0 };
        let word = speaker.say(address, now * 1000, verdict);
        late.node().put_block_of(&request, &content).unwrap();
        for fake in told {
            fake.node().put_block_of(&request, &content).unwrap();
            fake.node().hear(&word).unwrap();
        }
        reactor::sleep(Duration::from_secs(5 * DAY));
        late.node().learn(&word).unwrap();
        reactor::sleep(Duration::from_secs(4 * DAY));
        network.nodes.iter().for_each(|fake| fake.node().remove_all_due().unwrap());
        assert_eq!(late.node().is_dead(&address), Ok(true));
        let spread = client.spread_without(&late.contact.id, &[], |_| {});
        assert_eq!(spread, Ok(Spread { blocks: 0, kept: 1, copied: 0, was_asked: true }));
        assert!(told.iter().chain([untold]).all(|fake| !fake.node().has_block(&address)));
    });
}
