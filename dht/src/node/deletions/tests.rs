//! Whose word counts, and what a put and a deletion make of each other.

use std::rc::Rc;

use bytes::Bytes;
use overlay::NodeId;
use reactor::crypto::Identity;
use reactor::crypto::PublicKey;
use reactor::sim::{self, SimConfig};

use super::*;
use crate::block::deletion::{DeletionGrant, Speaker};
use crate::block::mutable::Signed;
use crate::message::PutBlockRequest;
use crate::node::Gate;
use crate::owner_tag;
use crate::placement::{Candidate, Neighbourhood};
use crate::store::{Config, DiskStore, MemoryStore, Store};

const SALT: [u8; 32] = [7; 32];

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

fn owner() -> PublicKey {
    identity(1).public_key()
}

fn tag() -> OwnerTag {
    owner_tag(&owner(), &SALT)
}

fn node_on(store: &Rc<dyn Store>) -> Rc<Node> {
    Node::new(NodeId([1; 32]), store.clone(), Gate::Open, 3)
}

fn node() -> Rc<Node> {
    node_on(&(Rc::new(MemoryStore::new()) as Rc<dyn Store>))
}

fn block(number: u8) -> (Address, Bytes) {
    let content = Bytes::from(vec![number; 1000]);
    (Address::of(&tag(), &content), content)
}

/// Puts a block that is as old as the node's clock allows.
fn put_long_ago(node: &Node, number: u8) -> (Address, Bytes) {
    let (address, content) = block(number);
    let request = PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, tag()) };
    node.put_block_of(&request, &content).unwrap();
    (address, content)
}

fn delete(retention_seconds: u32) -> Verdict {
    Verdict::Delete { put_before_seconds: 2000, retention_seconds }
}

/// A writer with the owner's grant.
fn granted(number: u8, retention_seconds_min: u32) -> (Identity, Signed<DeletionGrant>) {
    let writer = identity(number);
    let content = DeletionGrant {
        owner: owner(),
        salt: SALT,
        writer: writer.public_key(),
        until_seconds: now_seconds() + 1000,
        retention_seconds_min,
    };
    let grant = Signed::sign(&identity(1), content);
    (writer, grant)
}

fn said_by(signer: u8, address: Address, age_ms: u64, verdict: Verdict) -> OwnersWord {
    let identity = identity(signer);
    let speaker = Speaker { identity: &identity, owner: owner(), salt: SALT, grant: None };
    speaker.say(address, now_ms() - age_ms, verdict)
}

#[test]
fn a_block_goes_by_its_owners_word_and_stays_away() {
    reactor::run(|| {
        let node = node();
        let (address, content) = put_long_ago(&node, 1);
        let other = put_long_ago(&node, 2).0;
        node.hear(&said_by(1, address, 0, delete(0))).unwrap();
        assert!(!node.has_block(&address) && node.has_block(&other));
        assert_eq!(node.get_block(&address, None), Err(Refusal::NotFound));
        assert_eq!(hand_on(&node, address, &content), Err(Refusal::Deleted));
        node.hear(&said_by(1, address, 0, delete(0))).unwrap();
        // Whoever puts it now, has it.
        node.put_block(&address, &tag(), content.clone()).unwrap();
        node.remove_all_due().unwrap();
        assert_eq!(node.get_block(&address, None), Ok(content.clone()));
        assert_eq!(node.is_dead(&address), Ok(false));
        assert_eq!(node.list_blocks(&all_blocks()).unwrap().blocks.len(), 2);
    });
}

/// Another node hands on a copy from long ago.
fn hand_on(node: &Node, address: Address, content: &Bytes) -> Result<(), Refusal> {
    let request = PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, tag()) };
    node.put_block_of(&request, content)
}

fn all_blocks() -> ListBlocksRequest {
    ListBlocksRequest { tag: tag(), from: Address([0; 32]), to: Address([0xff; 32]), with_deleted: false }
}

#[test]
fn a_misnamed_put_takes_nothing_from_a_tombstone() {
    reactor::run(|| {
        let node = node();
        let (address, content) = put_long_ago(&node, 1);
        node.hear(&said_by(1, address, 0, delete(3600))).unwrap();
        for (tag, bytes) in [(OwnerTag([9; 32]), content.clone()), (tag(), Bytes::from_static(b"garbage"))] {
            assert_eq!(node.put_block(&address, &tag, bytes), Err(Refusal::Misnamed));
        }
        assert_eq!(node.is_dead(&address), Ok(true));
        assert_eq!(hand_on(&node, address, &content), Err(Refusal::Deleted));
    });
}

#[test]
fn a_copy_that_is_handed_on_makes_none_older_and_none_younger() {
    reactor::run(|| {
        let node = node();
        let (address, content) = block(1);
        node.put_block(&address, &tag(), content.clone()).unwrap();
        let put_seconds = node.held(&address).unwrap().unwrap().put_seconds;
        hand_on(&node, address, &content).unwrap();
        assert_eq!(node.held(&address).unwrap().unwrap().put_seconds, put_seconds);
        let (old, content) = put_long_ago(&node, 2);
        hand_on(&node, old, &content).unwrap();
        assert_eq!(node.held(&old).unwrap().unwrap().put_seconds, 1000);
        node.put_block(&old, &tag(), content).unwrap();
        assert!(
            node.held(&old).unwrap().unwrap().put_seconds >= put_seconds,
            "a client relies on it from now on"
        );
    });
}

#[test]
fn the_owners_word_holds_over_a_writers_whatever_the_clocks_say() {
    reactor::run(|| {
        let node = node();
        let (address, content) = put_long_ago(&node, 1);
        let (writer, grant) = granted(2, 0);
        let speaker = Speaker { identity: &writer, owner: owner(), salt: SALT, grant: Some(grant) };
        let ahead = speaker.say(address, now_ms() + CLOCK_AHEAD_MS + 5000, delete(3600));
        assert_eq!(node.hear(&ahead), Err(Invalid::Time.into()));
        node.hear(&speaker.say(address, now_ms() + CLOCK_AHEAD_MS - 5000, delete(3600))).unwrap();
        assert_eq!(node.is_dead(&address), Ok(true));
        node.hear(&said_by(1, address, 0, Verdict::Keep)).unwrap();
        assert_eq!(node.is_dead(&address), Ok(false));
        let again = speaker.say(address, now_ms() + CLOCK_AHEAD_MS - 4000, delete(0));
        assert_eq!(node.hear(&again), Err(Refusal::Superseded));
        assert_eq!(node.get_block(&address, None), Ok(content));
    });
}

#[test]
fn nobody_speaks_of_blocks_that_are_none_of_the_nodes_concern() {
    reactor::run(|| {
        let node = node();
        let (address, _) = block(1);
        let near = (0..4u8)
            .map(|last| Candidate::unknown(NodeId([&address.0[..31], &[last]].concat().try_into().unwrap())));
        node.set_neighbourhood(Neighbourhood::new(node.own(), near.collect(), true));
        assert_eq!(node.hear(&said_by(1, address, 0, delete(0))), Err(Refusal::NotFound));
    });
}

#[test]
fn strangers_and_owners_of_other_blocks_are_refused() {
    reactor::run(|| {
        let node = node();
        let (address, _) = put_long_ago(&node, 1);
        assert_eq!(node.hear(&said_by(2, address, 0, delete(0))), Err(Invalid::NotGranted.into()));
        let stranger = identity(2);
        for salt in [SALT, [8; 32]] {
            let (identity, owner) = (&stranger, stranger.public_key());
            let word = Speaker { identity, owner, salt, grant: None }.say(address, now_ms(), delete(0));
            assert_eq!(node.hear(&word), Err(Invalid::NotGranted.into()));
        }
        let late = said_by(1, address, CLOCK_BEHIND_MS + 5000, delete(0));
        assert_eq!(node.hear(&late), Err(Invalid::Time.into()));
        assert!(node.has_block(&address) && node.is_dead(&address) == Ok(false));
    });
}

#[test]
fn a_writer_deletes_by_the_owners_grant() {
    reactor::run(|| {
        let node = node();
        let (address, _) = put_long_ago(&node, 1);
        let (writer, grant) = granted(2, 3600);
        let speaker = Speaker { identity: &writer, owner: owner(), salt: SALT, grant: Some(grant) };
        let hasty = speaker.say(address, now_ms(), delete(0));
        assert_eq!(node.hear(&hasty), Err(Invalid::Retention.into()));
        node.hear(&speaker.say(address, now_ms(), delete(3600))).unwrap();
        assert_eq!(node.is_dead(&address), Ok(true));
        // The owner alone takes it back, while the bytes are there.
        let back = speaker.say(address, now_ms() + 1, Verdict::Keep);
        assert_eq!(node.hear(&back), Err(Invalid::NotGranted.into()));
        let owner = identity(1);
        let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt: SALT, grant: None };
        node.hear(&speaker.say(address, now_ms() + 1000, Verdict::Keep)).unwrap();
        assert_eq!(node.is_dead(&address), Ok(false));
    });
}

#[test]
fn within_the_retention_a_block_is_read_and_can_be_taken_back() {
    reactor::run(|| {
        let node = node();
        let (address, content) = put_long_ago(&node, 1);
        node.hear(&said_by(1, address, 500, delete(3600))).unwrap();
        node.remove_all_due().unwrap();
        assert_eq!(node.get_block(&address, None).unwrap(), content);
        assert_eq!(hand_on(&node, address, &content), Err(Refusal::Deleted));
        node.hear(&said_by(1, address, 400, Verdict::Keep)).unwrap();
        assert_eq!(node.is_dead(&address), Ok(false));
        // What was said before that means nothing any more.
        assert_eq!(node.hear(&said_by(1, address, 500, delete(0))), Err(Refusal::Superseded));
        assert!(node.has_block(&address));
    });
}

#[test]
fn what_was_put_since_stays() {
    reactor::run(|| {
        let node = node();
        let (address, content) = put_long_ago(&node, 1);
        // Somebody relies on it again.
        node.put_block(&address, &tag(), content.clone()).unwrap();
        let refused = node.hear(&said_by(1, address, 0, delete(0)));
        assert!(
            matches!(refused, Err(Refusal::TooYoung { put_seconds }) if put_seconds > 2000),
            "{refused:?}"
        );
        assert_eq!(node.get_block(&address, None).unwrap(), content);
    });
}

#[test]
fn a_word_of_somebody_who_owns_nothing_keeps_no_block_out() {
    reactor::run(|| {
        let node = node();
        let (address, content) = block(1);
        let stranger = identity(2);
        let speaker = Speaker { identity: &stranger, owner: stranger.public_key(), salt: SALT, grant: None };
        node.hear(&speaker.say(address, now_ms(), delete(0))).unwrap();
        node.put_block(&address, &tag(), content.clone()).unwrap();
        assert_eq!(node.get_block(&address, None).unwrap(), content);
        assert_eq!(node.is_dead(&address), Ok(false));
    });
}

#[test]
fn a_put_and_a_deletion_at_once_never_lose_what_was_acknowledged() {
    for delay in 0..60 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_path_buf();
        reactor::run(move || {
            let store: Rc<dyn Store> = Rc::new(DiskStore::open(Config::new(&path)).unwrap());
            let node = node_on(&store);
            let (address, content) = put_long_ago(&node, 1);
            let yields = |count| (0..count).for_each(|_| reactor::yield_now());
            let (mut put, mut deleted) = (None, None);
            reactor::scope(|scope| {
                scope.spawn(|| {
                    yields(delay % 10 * 3);
                    put = Some(node.put_block(&address, &tag(), content.clone()));
                });
                scope.spawn(|| {
                    yields(delay / 10 * 3);
                    deleted = Some(node.hear(&said_by(1, address, 0, delete(0))));
                });
            });
            node.remove_all_due().unwrap();
            let (put, deleted) = (put.unwrap(), deleted.unwrap());
            put.unwrap();
            assert_eq!(node.get_block(&address, None).as_ref(), Ok(&content), "{delay}: {deleted:?}");
            assert!(matches!(deleted, Ok(()) | Err(Refusal::TooYoung { .. })), "{delay}: {deleted:?}");
            store.close().unwrap();
        });
    }
}

#[test]
fn a_crash_between_the_tombstone_and_the_removal_is_made_good_at_the_next_start() {
    reactor::run(|| {
        let store: Rc<dyn Store> = Rc::new(MemoryStore::new());
        let first = node_on(&store);
        let (address, _) = put_long_ago(&first, 1);
        let told = Told { received_seconds: 5, kept_seconds: 0, word: said_by(1, address, 0, delete(0)) };
        store.put(&word_key(&address, &tag()).in_kind(Kind::TOMBSTONE), to_envelope(&told).into()).unwrap();
        // And one between a reprieve and the removal of the tombstone.
        let (kept, content) = put_long_ago(&first, 2);
        for (key, age_ms, verdict) in [
            (word_key(&kept, &tag()).in_kind(Kind::TOMBSTONE), 9, delete(0)),
            (word_key(&kept, &tag()).in_kind(Kind::REPRIEVE), 3, Verdict::Keep),
        ] {
            let told = Told { received_seconds: 5, kept_seconds: 0, word: said_by(1, kept, age_ms, verdict) };
            store.put(&key, to_envelope(&told).into()).unwrap();
        }
        let again = node_on(&store);
        again.find_due().unwrap();
        again.remove_all_due().unwrap();
        assert!(!again.has_block(&address));
        assert_eq!(again.get_block(&kept, None).unwrap(), content);
        assert_eq!(again.is_dead(&kept), Ok(false));
    });
}

#[test]
fn words_are_forgotten_when_they_mean_nothing_any_more() {
    reactor::run(|| {
        let store: Rc<dyn Store> = Rc::new(MemoryStore::new());
        let node = node_on(&store);
        for (number, age_ms) in [(1, LIFETIME_SECONDS * 1000 + 5000), (2, LIFETIME_SECONDS * 1000 - 60_000)] {
            let address = block(number).0;
            let told =
                Told { received_seconds: 5, kept_seconds: 0, word: said_by(1, address, age_ms, delete(0)) };
            store
                .put(&word_key(&address, &tag()).in_kind(Kind::TOMBSTONE), to_envelope(&told).into())
                .unwrap();
        }
        node.forget_old_words().unwrap();
        let has = |number| node.has_word(Family::Deletions, &word_key(&block(number).0, &tag()));
        assert_eq!([1, 2].map(has), [false, true]);
        let old = said_by(1, block(3).0, LIFETIME_SECONDS * 1000 + 5000, delete(0));
        assert_eq!(node.learn(&old), Err(Invalid::Time.into()));
    });
}

#[test]
fn blocks_are_listed_by_their_tag_in_pages_without_the_deleted() {
    reactor::run(|| {
        let node = node();
        let mut expected: Vec<Address> = (0..100u8).map(|number| put_long_ago(&node, number).0).collect();
        let foreign = Bytes::from_static(b"of another");
        let other = OwnerTag([9; 32]);
        node.put_block(&Address::of(&other, &foreign), &other, foreign.clone()).unwrap();
        let gone = expected.remove(50);
        node.hear(&said_by(1, gone, 0, delete(3600))).unwrap();
        expected.sort();
        let (mut listed, mut from) = (Vec::new(), Some(Address([0; 32])));
        while let Some(start) = from {
            let request =
                ListBlocksRequest { tag: tag(), from: start, to: Address([0xff; 32]), with_deleted: false };
            let page = node.list_blocks(&request).unwrap();
            assert!(page.blocks.iter().all(|held| (held.length, held.put_seconds) == (1000, 1000)));
            listed.extend(page.blocks.iter().map(|held| held.address));
            from = page.next;
        }
        assert_eq!(listed, expected);
        let half =
            ListBlocksRequest { tag: tag(), from: expected[10], to: expected[20], with_deleted: false };
        assert_eq!(node.list_blocks(&half).unwrap().blocks.len(), 11);
    });
}

#[test]
fn whoever_has_a_block_deleted_its_bytes_stay_for_the_retention_and_the_owner_takes_it_back() {
    sim::run(1, SimConfig::default(), |_| {
        let day = 24 * 3600;
        let store = Rc::new(MemoryStore::new()) as Rc<dyn Store>;
        let node = node_on(&store);
        node.say_retention(7 * day);
        let (gone, content) = put_long_ago(&node, 1);
        let (needed, _) = put_long_ago(&node, 2);
        let told = put_long_ago(&node, 3).0;
        reactor::sleep(Duration::from_secs(3600));
        // The worst that a thief of the owner's key can say: at once, a day ago, and again.
        for age_ms in [CLOCK_BEHIND_MS - 1000, 0] {
            for address in [gone, needed] {
                node.hear(&said_by(1, address, age_ms, delete(0))).unwrap();
            }
        }
        assert_eq!(node.held_bytes(), 2 * content.len() as u64);
        // And what another node passes on, that was said long ago.
        node.learn(&said_by(1, told, 30 * u64::from(day) * 1000, delete(0))).unwrap();
        // That the owner says another retention since changes nothing of it.
        node.say_retention(0);
        node.look_at_retention().unwrap();
        reactor::sleep(Duration::from_secs(u64::from(7 * day) - 60));
        node.remove_all_due().unwrap();
        // Also after a restart.
        let node = node_on(&store);
        node.find_due().unwrap();
        node.remove_all_due().unwrap();
        for address in [gone, needed, told] {
            assert!(node.is_dead(&address) == Ok(true) && node.get_block(&address, None).is_ok());
        }
        node.hear(&said_by(1, needed, 0, Verdict::Keep)).unwrap();
        assert_eq!(node.held_bytes(), 2 * content.len() as u64);
        reactor::sleep(Duration::from_secs(120));
        node.remove_all_due().unwrap();
        assert!(!node.has_block(&gone) && !node.has_block(&told) && node.held_bytes() == 0);
        assert!(node.has_block(&needed) && node.is_dead(&needed) == Ok(false));
        // The shorter one is in force by now.
        node.hear(&said_by(1, needed, 0, delete(0))).unwrap();
        assert!(!node.has_block(&needed));
    });
}
