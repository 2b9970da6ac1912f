//! A node that was away while blocks were deleted brings none of them back.

use std::rc::Rc;

use reactor::crypto::Identity;

use super::*;
use crate::BlockStore;
use crate::address::Address;
use crate::block::deletion::{Speaker, Verdict};
use crate::client::Client;
use crate::message::PutBlockRequest;
use crate::repair::Pace;
use crate::testing::{FakeNetwork, FakeOverlay, Mood};

const SALT: [u8; 32] = [7; 32];

struct Story {
    network: Rc<FakeNetwork>,
    owner: Rc<Identity>,
    client: Client<FakeOverlay>,
    addresses: Vec<Address>,
}

impl Story {
    /// A network with 60 blocks on it.
    fn new(nodes: usize) -> Story {
        let network = FakeNetwork::new(nodes, 3, 1);
        let owner = Rc::new(Identity::from_seed(&[1; 32]));
        let client = network.client_with(&owner, crate::owner_tag(&owner.public_key(), &SALT));
        let contents = (0..60u8).map(|number| Bytes::from(vec![number; 100])).collect();
        let mut addresses = network.put_long_ago(&client, contents);
        addresses.sort();
        Story { network, owner, client, addresses }
    }

    fn say(&self, count: usize, verdict: Verdict) -> u64 {
        let census = self.client.census(Duration::from_secs(60)).unwrap();
        let held = (0..=u8::MAX).flat_map(|first| self.client.list_held(&census, first).unwrap());
        let blocks: Vec<_> = held.filter(|(address, _)| self.addresses[..count].contains(address)).collect();
        let owner = self.owner.public_key();
        let speaker = Speaker { identity: &self.owner, owner, salt: SALT, grant: None };
        self.client.tell(&census, &blocks, &speaker, verdict).deleted
    }

    fn round(&self, index: usize) -> Report {
        let node = self.network.nodes[index].node();
        Repair::new(self.network.overlay_at(index), node, Pace::default()).round()
    }

    /// How many of the first 40 blocks, and of the others, a node has.
    fn counts(&self, index: usize) -> (usize, usize) {
        let node = self.network.nodes[index].node();
        let count =
            |addresses: &[Address]| addresses.iter().filter(|address| node.has_block(address)).count();
        (count(&self.addresses[..40]), count(&self.addresses[40..]))
    }
}

fn delete(retention_seconds: u32) -> Verdict {
    Verdict::Delete { put_before_seconds: 2000, retention_seconds }
}

#[test]
fn whoever_was_away_learns_it_before_anything_comes_back() {
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        reactor::run(move || {
            let story = Story::new(3);
            story.network.nodes[2].mood.set(Mood::Dead);
            assert_eq!(story.say(40, delete(0)), 40);
            story.network.restart(2);
            assert_eq!(story.counts(2), (40, 20));
            for index in order.into_iter().chain(order) {
                story.round(index);
            }
            for index in 0..3 {
                assert_eq!(story.counts(index), (0, 20), "node {index}");
            }
            assert_eq!(story.round(2), Report { compared: 2, ..Report::default() });
        });
    }
}

/// One that holds what it is not responsible for hands it over, and hears then that it is gone.
#[test]
fn a_stray_copy_is_not_handed_over() {
    reactor::run(|| {
        let story = Story::new(8);
        let stray = story.addresses.iter().take(40).map(|address| {
            let mut nodes: Vec<usize> = (0..8).collect();
            let distance =
                |index: &usize| story.network.nodes[*index].contact.id.distance(&overlay::NodeId(address.0));
            nodes.sort_by_key(distance);
            (nodes[7], *address)
        });
        let stray: Vec<(usize, Address)> = stray.collect();
        for (index, address) in &stray {
            let content = story.client.get(address, None).unwrap();
            let node = story.network.nodes[*index].node();
            let request = PutBlockRequest::new(*address, story.client.tag());
            node.put_block_of(&PutBlockRequest { put_seconds: Some(1000), ..request }, &content).unwrap();
        }
        // The one with most strays is away meanwhile.
        let away = (0..8).max_by_key(|index| stray.iter().filter(|(of, _)| of == index).count()).unwrap();
        story.network.nodes[away].mood.set(Mood::Dead);
        assert!(story.say(40, delete(0)) >= 30, "blocks with a quorum of others");
        story.network.restart(away);
        story.round(away);
        for index in (0..8).chain(0..8) {
            story.round(index);
        }
        for index in 0..8 {
            assert_eq!(story.counts(index).0, 0, "node {index}");
        }
        assert!(story.addresses[40..].iter().all(|address| story.client.get(address, None).is_ok()));
    });
}

#[test]
fn a_reprieve_reaches_whoever_heard_only_of_the_deletion() {
    reactor::run(|| {
        let story = Story::new(3);
        let census = story.client.census(Duration::from_secs(60)).unwrap();
        let held: Vec<_> =
            (0..=u8::MAX).flat_map(|first| story.client.list_held(&census, first).unwrap()).collect();
        assert_eq!(story.say(40, delete(3600)), 40);
        story.network.nodes[2].mood.set(Mood::Dead);
        reactor::sleep(Duration::from_millis(5));
        let owner = story.owner.public_key();
        let speaker = Speaker { identity: &story.owner, owner, salt: SALT, grant: None };
        assert_eq!(story.client.tell(&census, &held[..40], &speaker, Verdict::Keep).deleted, 40);
        story.network.restart(2);
        story.round(2);
        for index in 0..3 {
            assert_eq!(story.counts(index), (40, 20));
            let node = story.network.nodes[index].node();
            assert!(story.addresses.iter().all(|address| node.is_dead(address) == Ok(false)), "node {index}");
        }
    });
}

/// A word that only the one heard that missed a put must not wear down what the others have.
#[test]
fn what_was_put_again_reaches_whoever_has_a_tombstone() {
    for order in [[0, 1, 2], [2, 1, 0]] {
        reactor::run(move || {
            let story = Story::new(3);
            let contents: Vec<Bytes> = (0..60u8).map(|number| Bytes::from(vec![number; 100])).collect();
            story.network.nodes[2].mood.set(Mood::Dead);
            story.client.put_many(contents).unwrap();
            story.network.restart(2);
            let owner = story.owner.public_key();
            let speaker = Speaker { identity: &story.owner, owner, salt: SALT, grant: None };
            for address in &story.addresses {
                let said_ms =
                    reactor::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
                let node = story.network.nodes[2].node();
                node.hear(&speaker.say(*address, said_ms, delete(0))).unwrap();
            }
            assert_eq!(story.counts(2), (0, 0));
            for index in order.into_iter().chain(order) {
                story.round(index);
            }
            for index in 0..3 {
                assert_eq!(story.counts(index), (40, 20), "node {index}");
            }
        });
    }
}

/// Who owns nothing, and knows the names of blocks, keeps nobody from having them.
#[test]
fn a_strangers_word_does_not_stop_repair() {
    reactor::run(|| {
        let story = Story::new(3);
        let stranger = Identity::from_seed(&[9; 32]);
        let owner = stranger.public_key();
        let speaker = Speaker { identity: &stranger, owner, salt: SALT, grant: None };
        let emptied = story.network.nodes[2].node();
        for address in &story.addresses {
            story.network.nodes[2]
                .store
                .remove(&crate::store::Key::new(crate::store::Kind::BLOCK, address.0))
                .unwrap();
            let said_ms =
                reactor::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
            emptied.hear(&speaker.say(*address, said_ms, delete(0))).unwrap();
        }
        for index in [2, 0, 1] {
            story.round(index);
        }
        assert_eq!(story.counts(2), (40, 20));
    });
}
