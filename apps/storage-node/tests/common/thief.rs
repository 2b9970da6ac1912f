//! Somebody who has the files of another's home, and a program of his own: what he can do with them, he does.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dht::block::deletion::{DeletionGrant, Speaker, Verdict};
use dht::block::signed::Signed;
use dht::collect::{Census, Found, Tally};
use dht::{Address, BlockStore, Client};
use filesystem::access::{Root, RootSealer, open_root};
use overlay::contact::Introduction;
use overlay::message::{Introduce, Revoke};
use overlay::{Node, NodeRecord, Overlay, Revocations, Statement};
use reactor::crypto::Identity;

use super::keys::{as_user, drive, drive_tag, identity, network_of};

/// Long enough for a node that writes something down.
const CALL_LIMIT: Duration = Duration::from_secs(20);

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Has the newest root of the drive of `home` be what `change` makes of it, by the key of `thief`.
fn commit(client: &Client<Rc<Node>>, home: &Path, thief: &Identity, change: &dyn Fn(&mut Root)) {
    let register = drive(client, home);
    loop {
        let record = client.read(&register).unwrap().expect("the drive has a root");
        let mut root = open_root(&record.payload, record.version, &thief.sealing_key()).unwrap();
        (root.version, root.previous) = (record.version + 1, Some(record.header_hash));
        change(&mut root);
        let payload = RootSealer::new().seal(&root);
        match client.compare_and_swap(&register, Some(record.header_hash), payload) {
            Ok(_) => return,
            // Honest mounts are at work beside him.
            Err(dht::SwapError::Lost(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Whatever the nodes list.
fn listed(client: &Client<Rc<Node>>) -> (Census, Vec<(Address, Found)>) {
    let census = client.census(Duration::from_secs(300)).unwrap();
    let blocks = (0..=u8::MAX).flat_map(|first| client.list_held(&census, first).unwrap()).collect();
    (census, blocks)
}

/// Has the nodes be told by `speaker` that all blocks of the drive are to go at once.
fn delete_all(client: &Client<Rc<Node>>, speaker: &Speaker<'_>) -> (usize, Tally) {
    let (census, blocks) = listed(client);
    let verdict = Verdict::Delete { put_before_seconds: seconds_since_1970(), retention_seconds: 0 };
    (blocks.len(), client.tell(&census, &blocks, speaker, verdict))
}

/// With what is in the home `thief` of a writer, does to the drive of `home` all that a writer may, and tries what he may not:
/// empties it, with its snapshots, in `commit_count` commits, seals it to himself, and has all be deleted.
pub fn destroy_as_a_writer(home: &Path, thief: &Path, commit_count: u32) {
    let (key, (owner, salt)) = (identity(&thief.join("user.key")), drive_tag(home));
    as_user(home, thief, |client| {
        for _ in 0..commit_count {
            commit(client, home, &key, &|root| root.tree = None);
        }
        // By nobody's word but his own.
        let granted = DeletionGrant {
            owner,
            salt,
            writer: key.public_key(),
            until_seconds: seconds_since_1970() + 3600,
            retention_seconds_min: 0,
        };
        for grant in [None, Some(Signed::sign(&key, granted))] {
            let (listed, tally) = delete_all(client, &Speaker { identity: &key, owner, salt, grant });
            assert!(listed > 0 && tally.deleted == 0, "{tally:?} of {listed}");
        }
        // That nothing is to be kept.
        let list = Revocations::default().with_retention(&key, 0);
        for (node, _) in client.overlay().contacts() {
            let answer = client.overlay().call::<Revoke>(&node, &list, Bytes::new(), CALL_LIMIT);
            assert!(answer.is_err(), "{answer:?}");
        }
        commit(client, home, &key, &|root| root.charter.readers = vec![key.sealing_key().public()]);
    });
}

/// With the user's key of the home that made the network, has the nodes delete every block of the drive, at once and again.
pub fn delete_as_the_drives_owner(home: &Path) {
    let (key, (owner, salt)) = (identity(&home.join("user.key")), drive_tag(home));
    as_user(home, home, |client| {
        let speaker = Speaker { identity: &key, owner, salt, grant: None };
        let (listed, tally) = delete_all(client, &speaker);
        assert!(listed > 0 && tally.deleted + tally.young == listed as u64, "{tally:?} of {listed}");
        assert!(tally.deleted > 0, "{tally:?}");
    });
}

/// With the key that lies in the home of one of the nodes of `home`, says something newer in its name than what it says, so many times, as
/// no process that anybody knows of; each time when it has said its own again.
pub fn speak_in_the_name_of(home: &Path, node: &Path, times: usize) {
    let (key, network) = (identity(&node.join("node.key")), network_of(home));
    as_user(home, home, |client| {
        let overlay = client.overlay();
        let known = || overlay.contacts().into_iter().map(|(contact, _)| contact);
        let said = |contact: &overlay::Contact| contact.record().map_or(0, |record| record.version());
        let mut last = 0;
        for _ in 0..times {
            let is_newer =
                |contact: &overlay::Contact| contact.public_key == key.public_key() && said(contact) > last;
            let robbed = reactor::timeout(CALL_LIMIT, || {
                loop {
                    match known().find(is_newer) {
                        Some(robbed) => break robbed,
                        None => reactor::sleep(Duration::from_millis(20)),
                    }
                }
            });
            let robbed = robbed.expect("it says its own again");
            last = said(&robbed) + 1;
            let record = NodeRecord::sign(&key, &network, last, Statement::default());
            let (addresses, record) = ([].into_iter().collect(), Some(record.signed().clone()));
            let introduction = Introduction { public_key: key.public_key(), addresses, record };
            overlay.call::<Introduce>(&robbed, &introduction, Bytes::new(), CALL_LIMIT).unwrap();
        }
    });
}

/// By the key of a writer of the drive of `home`, has its root say no more where the groups of its owner are.
pub fn hide_the_groups(home: &Path, thief: &Path) {
    let key = identity(&thief.join("user.key"));
    let hide = |root: &mut Root| root.charter.extensions.retain(|extension| extension.kind != 4);
    as_user(home, thief, |client| commit(client, home, &key, &hide));
}

/// By the key of a writer of the drive of `home`, seals its root to him.
pub fn seal_the_drive(home: &Path, thief: &Path) {
    let key = identity(&thief.join("user.key"));
    as_user(home, thief, |client| {
        commit(client, home, &key, &|root| root.charter.readers = vec![key.sealing_key().public()]);
    });
}
