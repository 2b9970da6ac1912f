//! Small networks whose blocks are listed, deleted and taken back.

use std::rc::Rc;

use reactor::crypto::Identity;
use reactor::rpc::Service;
use reactor::sim::{self, SimConfig};

use super::*;
use crate::message::HeldBlock;
use crate::testing::{FakeNetwork, FakeOverlay, Mood};
use crate::{BlockStore, owner_tag};

const SALT: [u8; 32] = [7; 32];

fn owner() -> Rc<Identity> {
    Rc::new(Identity::from_seed(&[1; 32]))
}

fn client_of(network: &Rc<FakeNetwork>) -> Client<FakeOverlay> {
    network.client_with(&owner(), owner_tag(&owner().public_key(), &SALT))
}

fn held(client: &Client<FakeOverlay>) -> Vec<(Address, Found)> {
    let census = client.census(Duration::from_secs(60)).unwrap();
    (0..=u8::MAX).flat_map(|first| client.list_held(&census, first).unwrap()).collect()
}

fn delete(client: &Client<FakeOverlay>, blocks: &[(Address, Found)], retention_seconds: u32) -> Tally {
    let owner = owner();
    let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt: SALT, grant: None };
    let verdict = Verdict::Delete { put_before_seconds: now_ms() / 1000, retention_seconds };
    client.tell(&client.census(Duration::from_secs(60)).unwrap(), blocks, &speaker, verdict)
}

fn contents(count: u32) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::from(vec![number as u8; 100 + number as usize])).collect()
}

#[test]
fn everything_of_one_tag_is_found_wherever_it_lies_and_can_be_deleted() {
    for (count, replicas) in [(1, 1), (3, 3), (24, 3)] {
        reactor::run(move || {
            let network = FakeNetwork::new(count, replicas, 1);
            let client = client_of(&network);
            let mut addresses = network.put_long_ago(&client, contents(100));
            network.client(&owner()).put(Bytes::from_static(b"under another tag")).unwrap();
            reactor::sleep(Duration::from_millis(20));
            let all = held(&client);
            addresses.sort();
            assert_eq!(all.iter().map(|(address, _)| *address).collect::<Vec<_>>(), addresses);
            assert!(all.iter().all(|(_, found)| found.holders.len() >= replicas));
            let tally = delete(&client, &all[..60], 0);
            assert_eq!((tally.deleted, tally.young, tally.unheard), (60, 0, 0));
            assert_eq!(held(&client), all[60..]);
            for node in &network.nodes {
                assert!(all[..60].iter().all(|(address, _)| !node.node().has_block(address)));
            }
        });
    }
}

#[test]
fn what_is_needed_after_all_is_taken_back_as_long_as_somebody_has_its_bytes() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let client = client_of(&network);
        network.put_long_ago(&client, contents(20));
        let all = held(&client);
        assert_eq!(delete(&client, &all[..10], 3600).deleted, 10);
        assert_eq!(delete(&client, &all[10..15], 0).deleted, 5);
        assert_eq!(held(&client), all[15..]);
        let (owner, census) = (owner(), client.census(Duration::from_secs(60)).unwrap());
        let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt: SALT, grant: None };
        reactor::sleep(Duration::from_millis(20));
        let needed = all[5..15].iter().map(|(address, _)| *address).collect();
        let back = client.take_back(&census, &needed, &speaker).unwrap();
        let there: BTreeSet<Address> = all[5..10].iter().map(|(address, _)| *address).collect();
        assert_eq!(back, there, "the others' bytes are gone");
        let listed: BTreeSet<Address> = held(&client).into_iter().map(|(address, _)| address).collect();
        let lives = all[5..10].iter().chain(&all[15..]).map(|(address, _)| *address).collect();
        assert_eq!(listed, lives);
    });
}

#[test]
fn what_is_put_again_lives_and_a_moment_ago_is_too_young() {
    reactor::run(|| {
        for retention_seconds in [0, 3600] {
            let network = FakeNetwork::new(6, 3, 1);
            let client = client_of(&network);
            network.put_long_ago(&client, contents(20));
            let all = held(&client);
            assert_eq!(delete(&client, &all[..10], retention_seconds).deleted, 10);
            client.put_many(contents(20)).unwrap();
            reactor::sleep(Duration::from_millis(20));
            assert_eq!(held(&client).len(), 20, "each lives again");
            assert_eq!(delete(&client, &held(&client), 0).young, 20);
            for content in contents(20) {
                let address = Address::of(&client.tag(), &content);
                assert_eq!(client.get(&address, None), Ok(content));
            }
        }
    });
}

#[test]
fn with_too_many_nodes_silent_nothing_is_known() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let client = client_of(&network);
        network.nodes[0].mood.set(Mood::Dead);
        let census = client.census(Duration::from_secs(60)).unwrap();
        assert_eq!((census.node_count(), census.silent_count()), (2, 1));
        network.nodes[1].mood.set(Mood::Dead);
        assert!(matches!(
            client.census(Duration::from_secs(60)),
            Err(CensusError::Silent { silent: 2, known: 3, .. })
        ));
        assert!(client.list_held(&census, 0).is_err());
    });
}

/// Lists blocks that nobody put, without end.
struct Endless;

impl Endless {
    fn serve(self) -> Service {
        let mut service = Service::new();
        let answer = |request: ListBlocksRequest| {
            let mut next = request.from;
            let last = next.0.last_chunk_mut::<8>().expect("an address is longer");
            *last = (u64::from_be_bytes(*last) + 1).to_be_bytes();
            let is_asked = request.from <= request.to;
            let held =
                HeldBlock { address: next, length: 1, put_seconds: 0, is_deleted: false, kept_seconds: 0 };
            let blocks = if is_asked { vec![held] } else { vec![] };
            let next = is_asked.then_some(next);
            Ok::<_, Refusal>(ListBlocksResponse { blocks, next, now_seconds: now_ms() / 1000 })
        };
        service.on::<ListBlocks>(move |_, request, _| answer(request).map(|page| (page, Bytes::new())));
        service
    }
}

/// A network of three that has some blocks, in whose second place another service answers, and what they are called.
fn network_with_a_second_that(answers: Service) -> (Rc<FakeNetwork>, Client<FakeOverlay>, Vec<Address>) {
    let network = FakeNetwork::new(3, 3, 1);
    let client = client_of(&network);
    let mut addresses = network.put_long_ago(&client, contents(20));
    addresses.sort();
    reactor::sleep(Duration::from_millis(20));
    network.replace_service(1, answers);
    (network, client, addresses)
}

#[test]
fn a_node_whose_list_has_no_end_is_done_without() {
    sim::run(1, SimConfig::default(), |_| {
        let (network, client, addresses) = network_with_a_second_that(Endless.serve());
        let census = client.census(Duration::from_secs(60)).unwrap();
        assert_eq!((census.node_count(), census.silent_count()), (3, 0));
        let held = (0..=u8::MAX).flat_map(|first| client.list_held(&census, first).unwrap().into_keys());
        assert_eq!(held.collect::<Vec<_>>(), addresses);
        assert_eq!((census.node_count(), census.silent_count()), (2, 1));
        // Not if another one is silent already.
        network.nodes[0].mood.set(Mood::Dead);
        let census = client.census(Duration::from_secs(60)).unwrap();
        assert!(matches!(client.list_held(&census, 0), Err(CensusError::Silent { silent: 2, known: 3, .. })));
    });
}

/// Has each list wait as long as one may be waited for, page by page.
struct Slow;

impl Slow {
    /// Fewer than a list may take, with [`Slow::PAUSE`] before each.
    const PAGES: u64 = 20;
    const PAUSE: Duration = Duration::from_secs(29);

    fn serve(self) -> Service {
        let mut service = Service::new();
        service.on::<ListBlocks>(move |_, request: ListBlocksRequest, _| {
            let mut next = request.from;
            let last = next.0.last_chunk_mut::<8>().expect("an address is longer");
            let page = u64::from_be_bytes(*last) + 1;
            *last = page.to_be_bytes();
            let is_asked = request.from <= request.to;
            if is_asked {
                reactor::sleep(Slow::PAUSE);
            }
            let next = (is_asked && page < Slow::PAGES).then_some(next);
            let page = ListBlocksResponse { blocks: vec![], next, now_seconds: now_ms() / 1000 };
            Ok::<_, Refusal>((page, Bytes::new()))
        });
        service
    }
}

#[test]
fn a_node_that_is_slow_with_each_list_is_done_without_and_not_waited_for_each_time() {
    sim::run(1, SimConfig::default(), |_| {
        let (_network, client, addresses) = network_with_a_second_that(Slow.serve());
        let census = client.census(Duration::from_secs(60)).unwrap();
        let began = reactor::now();
        let held = (0..=u8::MAX).flat_map(|first| client.list_held(&census, first).unwrap().into_keys());
        assert_eq!(held.collect::<Vec<_>>(), addresses);
        assert_eq!((census.node_count(), census.silent_count()), (2, 1));
        let took = reactor::now().saturating_duration_since(began);
        assert!(took < WAIT_LIMIT + 3 * Slow::PAUSE, "{took:?}, in simulated time");
    });
}

#[test]
fn whoever_is_as_slow_as_the_others_is_waited_for_and_one_liar_moves_no_limit() {
    let minutes =
        |all: &[u64]| all.iter().map(|minutes| Duration::from_secs(60 * minutes)).collect::<Vec<_>>();
    // All are slow: the drive is large.
    assert!((0..3).all(|number| may_be_waited_for(&minutes(&[300, 200, 400]), number, None)));
    assert!(may_be_waited_for(&minutes(&[30, 0, 0]), 0, None));
    assert!(!may_be_waited_for(&minutes(&[31, 0, 0]), 0, None));
    assert!(!may_be_waited_for(&minutes(&[31, 0, 500]), 0, None), "by the faster of the two others");
    // Two over lines of one slowness, and one in this process: nobody is gone by that.
    assert!(may_be_waited_for(&minutes(&[200, 0, 200]), 0, Some(1)));
    assert!(!may_be_waited_for(&minutes(&[200, 0, 10]), 0, Some(1)));
    // Nobody to go by.
    assert!(may_be_waited_for(&minutes(&[5000]), 0, None));
}

/// Two of three were done without together, and that was called silence: a drive whose nodes are far away was never collected.
#[test]
fn no_more_nodes_are_done_without_for_being_slow_than_may_be_silent() {
    let contact = |number: u8| {
        let key = reactor::crypto::Identity::from_seed(&[number; 32]).public_key();
        overlay::Contact::new(key, [])
    };
    let census = |silent: usize, silent_max: usize| Census {
        nodes: (0..5).map(contact).collect(),
        silent,
        silent_max,
        fallen_out: RefCell::default(),
        waited: RefCell::new(vec![Duration::ZERO; 5]),
        let_go: RefCell::default(),
        local: None,
    };
    let hours = Duration::from_secs(5 * 3600);
    // In one slice, before it is noted that the first has fallen out.
    let one = census(0, 1);
    assert!(!one.wait_on(3, hours));
    assert!(one.wait_on(4, hours), "slow is better than never");
    one.fallen_out.borrow_mut().insert(3, "slow".into());
    assert!(one.wait_on(4, hours), "and it is counted once");
    let two = census(0, 2);
    assert!(!two.wait_on(3, hours) && !two.wait_on(4, hours));
    for nobody in [census(0, 0), census(1, 1)] {
        assert!(nobody.wait_on(3, hours));
    }
}
