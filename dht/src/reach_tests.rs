//! What a client says of who can be reached, without asking anybody.

use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use reactor::crypto::Identity;

use crate::testing::{FakeNetwork, Mood};
use crate::{BlockStore, Reach};

#[test]
fn a_register_is_in_reach_while_a_quorum_of_its_own_members_is() {
    reactor::run(|| {
        let network = FakeNetwork::new(5, 3, 1);
        let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
        let genesis = client.create_register([7; 32], Vec::new()).unwrap();
        let register = genesis.register();
        client.compare_and_swap(&register, None, Bytes::from_static(b"value")).unwrap();
        let members: Vec<_> =
            network.nodes.iter().filter(|fake| genesis.members.contains(&fake.contact.id)).collect();
        assert_eq!((members.len(), client.reach(&register)), (3, Reach::Quorum));
        members[0].mood.set(Mood::Dead);
        assert_eq!(client.reach(&register), Reach::Quorum);
        members[1].mood.set(Mood::Dead);
        assert_eq!(client.reach(&register), Reach::Some, "two of three are gone, and others live");
        network.nodes.iter().for_each(|fake| fake.mood.set(Mood::Dead));
        assert_eq!(client.reach(&register), Reach::Nobody);
        members[1].mood.set(Mood::Well);
        members[2].mood.set(Mood::Well);
        assert_eq!(client.reach(&register), Reach::Quorum, "nobody was asked");
    });
}

#[test]
fn a_node_reaches_itself() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = network.client_at(0, &Rc::new(Identity::from_seed(&[1; 32])));
        let register = client.create_register([7; 32], Vec::new()).unwrap().register();
        client.compare_and_swap(&register, None, Bytes::from_static(b"value")).unwrap();
        network.nodes[1..].iter().for_each(|fake| fake.mood.set(Mood::Dead));
        assert_eq!(client.reach(&register), Reach::Some);
        network.nodes[2].mood.set(Mood::Well);
        assert_eq!(client.reach(&register), Reach::Quorum);
        client.doubt(&register);
        let others: BTreeSet<_> = network.nodes[1..].iter().map(|fake| fake.contact.id).collect();
        assert_eq!(*network.doubted.borrow(), others, "nobody doubts itself");
    });
}
