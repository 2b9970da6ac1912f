//! What a node says of itself reaches those who are connected and those who come later, survives restarts, and is never
//! taken back: a node that moved, said something else, or forgot what it had said is known under its newest word.

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use overlay::contact::Introduction;
use overlay::message::Introduce;
use overlay::record::RecordError;
use overlay::{Config, Contact, Node, NodeRecord, Overlay, Statement};
use reactor::crypto::Identity;
use reactor::rpc::CallError;
use reactor::serialization::to_bytes;

const SOON: Duration = Duration::from_secs(30);

/// What `node` knows of another.
fn known(node: &Node, of: &overlay::NodeId) -> Option<Contact> {
    node.contacts().into_iter().map(|(contact, _)| contact).find(|contact| contact.id == *of)
}

fn version(node: &Node) -> u64 {
    node.record().unwrap().version()
}

/// One that can be started again, as itself.
struct Member {
    network: Network,
    config: Config,
    file: PathBuf,
}

impl Member {
    fn start(&self, zone: &str, bootstrap: &[std::net::SocketAddr]) -> std::rc::Rc<Node> {
        let statement = Statement { zone: Some(zone.parse().unwrap()), ..Statement::default() };
        start(Config {
            identity: self.config.identity.clone(),
            passport: self.config.passport.clone(),
            record_file: Some(self.file.clone()),
            statement,
            ..self.network.storage(bootstrap)
        })
    }
}

#[test]
fn the_newest_word_of_a_node_is_what_everybody_knows() {
    reactor::run(|| {
        let network = Network::new();
        let (_directory, file) = scratch_file("record");
        let (_second, saved) = scratch_file("contacts");
        let nodes = network.start(2);
        let bootstrap = [address(&nodes[0])];
        let config = network.storage(&[]);
        let member = Member { network, config, file };
        let node = member.start("cellar", &bootstrap);
        let id = node.id();
        let observer =
            start(Config { contacts_file: Some(saved.clone()), ..member.network.client(&bootstrap) });
        let everybody = || nodes.iter().chain([&observer]);
        let all_know = |what: &str, node: &Node| {
            let newest = node.record();
            let is_known = || {
                everybody()
                    .all(|other| known(other, &id).is_some_and(|known| known.record() == newest.as_ref()))
            };
            eventually(what, SOON, is_known);
        };
        all_know("what it says at first", &node);
        assert_eq!(known(&observer, &id).unwrap().zone().map(ToString::to_string).as_deref(), Some("cellar"));

        // That is for itself to tell: others, and clients, tell it nobody.
        let third = Introduction::from(&known(&nodes[0], &id).unwrap());
        for teller in [&nodes[0], &observer] {
            let answer = teller.call::<Introduce>(&contact(&nodes[1]), &third, Bytes::new(), SOON);
            assert!(matches!(answer, Err(CallError::Remote(RecordError::NotItsAffair))), "{answer:?}");
        }

        // It says something else, and that again, which is nothing new.
        let relay = Identity::generate().public_key();
        let first = version(&node);
        node.restate(|says| says.relays = vec![relay]);
        assert!(version(&node) > first);
        all_know("what it says now", &node);
        assert_eq!(known(&nodes[1], &id).unwrap().relays(), std::slice::from_ref(&relay));
        let second = version(&node);
        node.restate(|says| says.relays = vec![relay]);
        assert_eq!(version(&node), second);

        // It moves: another port, another zone; and it knows only one of the others.
        let old = node.listen_address().unwrap();
        node.stop();
        let node = member.start("attic", &bootstrap);
        assert!(version(&node) > second && node.listen_address() != Some(old));
        all_know("where it is now", &node);
        let is_found = |other: &Node| {
            let found = other.closest(&id, 1).remove(0);
            found.id == id && found.addresses.first().copied() == node.listen_address() && other.ping(&found)
        };
        eventually("it is found there", SOON, || everybody().all(|other| is_found(other)));

        // A clock that was ahead and is right again, and a home that was put back: others know better, and say so.
        let third = version(&node);
        let ahead = third + 1_000_000_000_000;
        let said = NodeRecord::sign(
            &member.config.identity,
            &member.network.owner.public_key(),
            ahead,
            node.record().unwrap().statement().clone(),
        );
        node.stop();
        fs::write(&member.file, to_bytes(&(Some(said.signed()), None::<()>, false))).unwrap();
        let node = member.start("loft", &bootstrap);
        assert_eq!(version(&node), ahead + 1, "what was signed last is on disk");
        all_know("what it says from ahead", &node);
        node.stop();
        fs::remove_file(&member.file).unwrap();
        let node = member.start("shed", &bootstrap);
        eventually("it is reminded", SOON, || version(&node) > ahead + 1);
        all_know("what it says after that", &node);
        assert_eq!(known(&observer, &id).unwrap().zone().map(ToString::to_string).as_deref(), Some("shed"));
        node.stop();
        fs::write(&member.file, to_bytes(&(Some("of another release"), None::<()>, false))).unwrap();
        let before = version(&node);
        let node = member.start("shed", &bootstrap);
        eventually("it is reminded again", SOON, || version(&node) > before);
        all_know("what it says in the end", &node);

        // Who was away remembers it with what it said.
        observer.stop();
        let late = start(Config { contacts_file: Some(saved), ..member.network.client(&[]) });
        let remembered = late.remembered().into_iter().find(|contact| contact.id == id).unwrap();
        assert_eq!(remembered.record(), node.record().as_ref());
    });
}
