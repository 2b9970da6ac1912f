//! Who was revoked is dropped from the tables and refused by everybody, also by a node that was away meanwhile; and nobody
//! brings it back with an older list.

mod common;

use std::time::Duration;

use common::*;
use overlay::admission::Refusal;
use overlay::{Bootstrap, Config, JoinError, Node, PassportError, Revocations, StartError};
use reactor::rpc::Service;

const SOON: Duration = Duration::from_secs(30);

fn revoking(network: &Network, before: &Revocations, node: &Node) -> Revocations {
    before.with(&network.owner, [contact(node).public_key], reactor::wall_clock()).unwrap()
}

#[test]
fn a_revoked_node_is_out_of_every_table_and_its_connections_are_closed() {
    reactor::run(|| {
        let network = Network::new();
        let nodes = network.start(4);
        eventually("all are known", SOON, || nodes.iter().all(|node| live_count(node) == 3));
        // One node hears of it, and only from the owner.
        let list = revoking(&network, &Revocations::default(), &nodes[3]);
        assert!(nodes[0].revoke(revoking(&Network::new(), &Revocations::default(), &nodes[3])).is_err());
        assert_eq!(nodes[0].revoke(list.clone()), Ok(list.hash()));
        eventually("the others refuse it", SOON, || {
            let key = contact(&nodes[3]).public_key;
            nodes[..3].iter().all(|node| {
                node.contacts().len() == 2
                    && node.peers().is_revoked(&key)
                    && node.peers().get(&key).is_none()
            })
        });
        eventually("it is alone", SOON, || live_count(&nodes[3]) == 0);
        let refused = nodes[3].join(&[Bootstrap::Address(address(&nodes[1]))]);
        let revoked = Refusal::Passport(PassportError::Revoked { link: 0 });
        assert!(matches!(&refused, Err(JoinError::Refused(why)) if *why == revoked), "{refused:?}");

        // The list that was true before is no news, and neither is another of the same number.
        let second = revoking(&network, &list, &nodes[2]);
        assert_eq!(nodes[0].revoke(second.clone()), Ok(second.hash()));
        let rival = revoking(&network, &revoking(&network, &Revocations::default(), &nodes[1]), &nodes[0]);
        for older in [list, rival] {
            assert_eq!(nodes[0].revoke(older), Ok(second.hash()));
        }
        assert_eq!(nodes[0].peers().revocations(), second);
    });
}

#[test]
fn a_node_that_was_away_learns_it_from_the_first_it_meets_and_keeps_it() {
    reactor::run(|| {
        let network = Network::new();
        let nodes = network.start(2);
        let (_directory, path) = scratch_file("revoked");
        let away = network.storage(&[address(&nodes[0])]);
        let again = || Config {
            identity: away.identity.clone(),
            passport: away.passport.clone(),
            revocations_file: Some(path.clone()),
            ..network.storage(&[address(&nodes[0])])
        };
        start(again()).stop();
        let guest = start(network.client(&[address(&nodes[0])]));
        let list = revoking(&network, &Revocations::default(), &nodes[1]);
        nodes[0].revoke(list.clone()).unwrap();
        eventually("a client learns it too", SOON, || guest.peers().revocations() == list);

        let back = start(again());
        eventually("it learns the list", SOON, || back.peers().revocations() == list && path.exists());
        back.stop();
        // It knows before it meets anybody.
        let alone = start(Config { bootstrap: Vec::new(), ..again() });
        assert_eq!(alone.peers().revocations(), list);
        alone.stop();
        // A damaged list is no list of nobody.
        std::fs::write(&path, "nothing of ours").unwrap();
        let refused = Node::start(again(), Service::new()).err();
        assert!(matches!(refused, Some(StartError::Revocations { .. })), "{refused:?}");
    });
}
