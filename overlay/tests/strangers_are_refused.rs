//! A passport of another network, an expired one, a forged one, or one without the needed right opens nothing, and the
//! refused side learns why. Nor does a node follow a peer that can't show a passport of its own network.

mod common;

use std::time::{Duration, SystemTime};

use common::*;
use overlay::admission::Refusal;
use overlay::{Bootstrap, Config, JoinError, Node, Passport, PassportError, Rights, StartError};
use reactor::crypto::Identity;
use reactor::rpc::Service;

fn refusal(result: Result<usize, JoinError>) -> Refusal {
    match result {
        Err(JoinError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn another_network_is_refused_with_a_reason() {
    reactor::run(|| {
        let (network, other) = (Network::new(), Network::new());
        let node = start(network.storage(&[]));
        let stranger = start(other.storage(&[address(&node)]));
        let why = refusal(stranger.join(&[Bootstrap::Address(address(&node))]));
        assert!(matches!(why, Refusal::Passport(PassportError::WrongNetwork { .. })), "{why}");
        assert!(why.to_string().contains("check which network you join"), "{why}");
        assert_eq!((node.contacts().len(), stranger.contacts().len()), (0, 0));
        assert_eq!((node.peers().count(), stranger.peers().count()), (0, 0));
        // The other way round as well: it is the dialled side that is the stranger.
        let why = refusal(node.join(&[Bootstrap::Address(address(&stranger))]));
        assert!(matches!(why, Refusal::Passport(PassportError::WrongNetwork { .. })), "{why}");
    });
}

#[test]
fn our_own_bad_passport_is_found_before_anybody_sees_it() {
    reactor::run(|| {
        let network = Network::new();
        let year = Duration::from_secs(365 * 86_400);
        let start = |passport: &dyn Fn(&Identity) -> Passport| {
            let config = network.storage(&[]);
            let passport = passport(&config.identity);
            Node::start(Config { passport, ..config }, Service::new()).err().map(|error| match error {
                StartError::Passport(why) => why,
                other => panic!("{other}"),
            })
        };
        let issue = |holder: &Identity, rights, expires| {
            Passport::issue(&network.owner, holder.public_key(), rights, expires)
        };
        // One that has expired may have been renewed: whoever is met knows.
        assert_eq!(start(&|holder| issue(holder, Rights::NODE, Some(SystemTime::now() - year))), None);
        let client = start(&|holder| issue(holder, Rights::CLIENT, None));
        assert!(matches!(client, Some(PassportError::MissingRight { .. })));
        let stolen = start(&|_| issue(&Identity::generate(), Rights::NODE, None));
        assert!(matches!(stolen, Some(PassportError::WrongHolder { .. })));
        assert_eq!(start(&|holder| issue(holder, Rights::NODE, Some(SystemTime::now() + year))), None);
    });
}

#[test]
fn a_passport_without_the_right_to_read_opens_nothing() {
    reactor::run(|| {
        let network = Network::new();
        let node = start(network.storage(&[]));
        let config = network.client(&[address(&node)]);
        let inviter = Rights { invite: true, ..Rights::default() };
        let passport = Passport::issue(&network.owner, config.identity.public_key(), inviter, None);
        let client = start(Config { passport, ..config });
        let why = refusal(client.join(&[Bootstrap::Address(address(&node))]));
        assert!(matches!(why, Refusal::Passport(PassportError::MissingRight { .. })), "{why}");
    });
}

#[test]
fn the_key_of_a_contact_must_be_proven() {
    reactor::run(|| {
        let network = Network::new();
        let node = start(network.storage(&[]));
        // Right address, wrong key: somebody else lives there now.
        let posed = overlay::Contact::new(Identity::generate().public_key(), [address(&node)]);
        let client = start(network.client(&[]));
        let result = client.join(&[Bootstrap::Contact(posed)]);
        assert!(matches!(result, Err(JoinError::Unreachable { tried: 1 })), "{result:?}");
        assert!(client.contacts().is_empty());
        assert_eq!(client.join(&[Bootstrap::Contact(contact(&node))]).unwrap(), 1);
    });
}

#[test]
fn a_node_that_dials_itself_shrugs() {
    reactor::run(|| {
        let network = Network::new();
        let node = start(network.storage(&[]));
        let result = node.join(&[Bootstrap::Address(address(&node))]);
        assert!(matches!(result, Err(JoinError::Unreachable { .. })), "{result:?}");
        assert!(node.contacts().is_empty());
    });
}
