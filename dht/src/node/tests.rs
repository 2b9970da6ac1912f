//! What a node stores, and what it refuses.
use bytes::Bytes;

use reactor::crypto::Identity;

use super::*;
use crate::address::{BLOCK_SIZE_BYTES_MAX, GROUP_SIZE_BYTES, OwnerTag, SLICE_SIZE_BYTES, verify_range};
use crate::block::mutable::{AccessList, Genesis, Invalid, Signed, SignedRecord};
use crate::block::proposal::{Proposal, Proposed};
use crate::message::{AcceptRequest, PrepareRequest};
use crate::paxos::{Ballot, ProposerId};
use crate::store::MemoryStore;

const TAG: OwnerTag = OwnerTag([4; 32]);

fn node() -> Rc<Node> {
    Node::new(NodeId([1; 32]), Rc::new(MemoryStore::new()), Gate::Open, 3)
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, proposer: ProposerId([1; 16]), ..Ballot::ZERO }
}

struct Story {
    owner: Identity,
    genesis: Signed<Genesis>,
    first: SignedRecord,
}

fn story() -> Story {
    let owner = Identity::from_seed(&[1; 32]);
    let members = vec![NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])];
    let genesis = Genesis::sign(&owner, [5; 32], members, vec![]);
    let first = SignedRecord::sign(&owner, genesis.register(), None, None, Bytes::from_static(b"one"));
    Story { owner, genesis, first }
}

impl Story {
    fn prepare(&self, round: u64) -> PrepareRequest {
        self.prepare_by(&self.owner, round)
    }

    fn prepare_by(&self, writer: &Identity, round: u64) -> PrepareRequest {
        let proposal = Proposal::prepare(writer, self.genesis.register(), ballot(round));
        PrepareRequest { membership: self.genesis.clone().into(), proposal, list: None }
    }

    fn accept(&self, round: u64, record: &SignedRecord) -> AcceptRequest {
        self.accept_by(&self.owner, round, record)
    }

    fn accept_by(&self, writer: &Identity, round: u64, record: &SignedRecord) -> AcceptRequest {
        let proposed = Proposed::sign(writer, ballot(round), record.clone(), None);
        AcceptRequest { membership: self.genesis.clone().into(), proposed }
    }
}

#[test]
fn a_block_is_stored_only_under_its_own_name_and_served_with_its_proof() {
    reactor::run(|| {
        let node = node();
        let content = Bytes::from(vec![7; 3 * GROUP_SIZE_BYTES + 9]);
        let address = Address::of(&TAG, &content);
        assert_eq!(node.put_block(&Address([0; 32]), &TAG, content.clone()), Err(Refusal::Misnamed));
        assert_eq!(node.put_block(&address, &OwnerTag([0; 32]), content.clone()), Err(Refusal::Misnamed));
        node.put_block(&address, &TAG, content.clone()).unwrap();
        node.put_block(&address, &TAG, content.clone()).unwrap();
        assert_eq!(node.get_block(&address, None).unwrap(), content);
        assert_eq!(node.get_block(&address, Some(5..9)).unwrap(), content.slice(5..9));
        let range = 70_000..70_004;
        let (answer, slices) = node.serve_block(&address, Some(range.clone())).unwrap();
        assert_eq!(slices.len(), SLICE_SIZE_BYTES, "no more than has to be");
        assert!(verify_range(&address, &TAG, answer.length, &range, &slices, &answer.proof).is_ok());
        let length = content.len() as u32;
        assert_eq!(node.get_block(&address, Some(0..length + 1)), Err(Refusal::Outside { length }));
        assert_eq!(node.get_block(&Address([9; 32]), None), Err(Refusal::NotFound));
    });
}

#[test]
fn sizes_out_of_bounds_are_refused() {
    reactor::run(|| {
        let node = node();
        for size in [0, BLOCK_SIZE_BYTES_MAX + 1] {
            let content = Bytes::from(vec![0; size]);
            assert_eq!(node.put_block(&Address::of(&TAG, &content), &TAG, content), Err(Refusal::Size));
        }
    });
}

#[test]
fn a_damaged_block_is_dropped_and_put_on_the_list_for_repair() {
    reactor::run(|| {
        let node = node();
        let content = Bytes::from_static(b"intact");
        let address = Address::of(&TAG, &content);
        node.put_block(&address, &TAG, content.clone()).unwrap();
        assert_eq!(node.suspect_block(&address), Ok(false));
        let stored = node.store().get(&block_key(&address), None).unwrap().unwrap();
        let mut bad = stored.to_vec();
        bad[2] ^= 1;
        node.store().put(&block_key(&address), bad.into()).unwrap();
        assert_eq!(node.suspect_block(&address), Ok(true));
        assert!(!node.has_block(&address));
        assert_eq!(node.take_wanted().into_iter().collect::<Vec<_>>(), [address]);
    });
}

#[test]
fn an_acceptor_remembers_across_a_restart() {
    reactor::run(|| {
        let story = story();
        let store: Rc<dyn Store> = Rc::new(MemoryStore::new());
        let node = Node::new(NodeId([1; 32]), store.clone(), Gate::Open, 3);
        assert_eq!(node.prepare(story.prepare(5)), Ok(None));
        assert_eq!(node.accept(story.accept(6, &story.first)), Ok(ballot(6)));
        let again = Node::new(NodeId([1; 32]), store, Gate::Open, 3);
        let refused = again.accept(story.accept(5, &story.first));
        let promise = story.accept(6, &story.first).proposed.proposal;
        assert_eq!(refused, Err(Refusal::Conflict { promise }));
        let view = again.read_register(&story.genesis.register()).unwrap().unwrap();
        assert_eq!(view.accepted.unwrap().record, story.first);
    });
}

#[test]
fn an_acceptor_that_may_have_forgotten_promises_neither_votes_nor_tells() {
    reactor::run(|| {
        let story = story();
        let store = Rc::new(MemoryStore::new());
        let node = Node::new(NodeId([1; 32]), store.clone(), Gate::Open, 3);
        let register = story.genesis.register();
        store.doubt(&Key::new(Kind::REGISTER, register.0));
        assert_eq!(node.prepare(story.prepare(5)), Err(Refusal::Damaged));
        assert_eq!(node.accept(story.accept(6, &story.first)), Err(Refusal::Damaged));
        assert!(matches!(node.read_register(&register), Err(Refusal::Damaged)));
        // It stays able to talk about all else.
        let asker = NodeId([2; 32]);
        let request = crate::message::DigestsRequest { family: crate::message::Family::Registers, asker };
        assert_eq!(node.digests(&request).unwrap(), [0; 256]);
    });
}

#[test]
fn strangers_and_forgeries_are_refused_before_anything_is_stored() {
    reactor::run(|| {
        let story = story();
        let node = node();
        let stranger = Identity::from_seed(&[9; 32]);
        let refused = node.prepare(story.prepare_by(&stranger, 1));
        assert!(matches!(refused, Err(Refusal::NotAllowed(_))), "{refused:?}");
        let refused = node.accept(story.accept_by(&stranger, 1, &story.first));
        assert_eq!(refused, Err(Refusal::Invalid(Invalid::NotAWriter)));
        let register = story.genesis.register();
        let forged = SignedRecord::sign(&stranger, register, None, None, Bytes::new());
        assert_eq!(node.accept(story.accept(1, &forged)), Err(Refusal::Invalid(Invalid::NotAWriter)));
        let members = vec![NodeId([8; 32])];
        let elsewhere = Genesis::sign(&story.owner, [5; 32], members, vec![]);
        let proposal = Proposal::prepare(&story.owner, elsewhere.register(), ballot(1));
        let refused = node.prepare(PrepareRequest {
            membership: elsewhere.into(),
            proposal: proposal.clone(),
            list: None,
        });
        assert_eq!(refused, Err(Refusal::NotAMember));
        let refused =
            node.prepare(PrepareRequest { membership: story.genesis.clone().into(), proposal, list: None });
        assert_eq!(refused, Err(Refusal::Invalid(Invalid::Proposal)));
        assert_eq!(node.store().usage().count, 0);
        node.accept(story.accept(1, &story.first)).unwrap();
    });
}

/// What one storage node used to need to undo anything: a record that was once signed, under a ballot of its own.
#[test]
fn an_old_record_comes_back_under_nobodys_ballot() {
    reactor::run(|| {
        let story = story();
        let node = node();
        let register = story.genesis.register();
        let mut records = vec![story.first.clone()];
        for number in 0..3u8 {
            let payload = Bytes::from(vec![number]);
            records.push(SignedRecord::sign(&story.owner, register, records.last(), None, payload));
        }
        let requests: Vec<_> =
            (1..).zip(&records).map(|(round, record)| story.accept(round, record)).collect();
        for request in &requests {
            node.accept(request.clone()).unwrap();
        }
        let malicious = Identity::from_seed(&[9; 32]);
        assert!(matches!(node.prepare(story.prepare_by(&malicious, 100)), Err(Refusal::NotAllowed(_))));
        let refused = node.accept(story.accept_by(&malicious, 100, &records[0]));
        assert_eq!(refused, Err(Refusal::Invalid(Invalid::NotAWriter)));
        // What was signed then, delivered again: too low by now.
        assert!(matches!(node.accept(requests[0].clone()), Err(Refusal::Conflict { .. })));
        // Not even by the owner's word.
        let refused = node.accept(story.accept(100, &records[0]));
        assert_eq!(refused, Err(Refusal::Invalid(Invalid::Chain)));
        let view = node.read_register(&register).unwrap().unwrap();
        assert_eq!(view.accepted.as_ref(), Some(&requests[3].proposed));
        assert_eq!(view.promise.as_ref(), Some(&requests[3].proposed.proposal));
    });
}

#[test]
fn a_list_of_writers_that_was_not_chosen_stops_nobody_who_is_on_it_and_keeps_out_who_is_not() {
    reactor::run(|| {
        let story = story();
        let register = story.genesis.register();
        let (stays, goes) = (Identity::from_seed(&[2; 32]), Identity::from_seed(&[3; 32]));
        let list = |serial, writers: &[&Identity]| {
            let writers = writers.iter().map(|writer| writer.public_key()).collect();
            Some(AccessList::sign(&story.owner, register, serial, writers))
        };
        let (both, one) = (list(1, &[&stays, &goes]), list(2, &[&stays]));
        let next = |writer: &Identity,
                    before: &SignedRecord,
                    access: &Option<Signed<AccessList>>,
                    payload| {
            SignedRecord::sign(writer, register, Some(before), access.clone(), Bytes::from_static(payload))
        };
        let shared = next(&story.owner, &story.first, &both, b"shared");
        // The owner took one off, and only this node has heard of it.
        let unheard = next(&story.owner, &shared, &one, b"unheard");
        let node = node();
        for (round, record) in (1..).zip([&story.first, &shared, &unheard]) {
            node.accept(story.accept(round, record)).unwrap();
        }
        // The others went on from the value before it.
        let (rival, intruding) =
            (next(&stays, &shared, &both, b"rival"), next(&goes, &shared, &both, b"intruding"));
        let refused = node.accept(story.accept_by(&goes, 4, &intruding));
        assert!(matches!(refused, Err(Refusal::NotAllowed(_))), "{refused:?}");
        // Nor by the hand of somebody who stays, and has yet to hear of the list.
        let refused = node.accept(story.accept_by(&stays, 4, &intruding));
        assert!(matches!(refused, Err(Refusal::NotAllowed(_))), "{refused:?}");
        // What those who stay write beside the list is taken, and kept under it.
        node.accept(story.accept_by(&stays, 4, &rival)).unwrap();
        let later = next(&stays, &rival, &both, b"later");
        node.accept(story.accept_by(&stays, 5, &later)).unwrap();
        let accepted = node.read_register(&register).unwrap().unwrap().accepted.unwrap();
        assert_eq!((&accepted.record, accepted.list()), (&later, one.as_ref()));
        assert_eq!(accepted.verify(&story.genesis, None), Ok(()));
        let after = next(&goes, &later, &both, b"after");
        for refused in [
            node.accept(story.accept_by(&goes, 6, &after)),
            node.accept(story.accept_by(&stays, 6, &after)),
            node.prepare(story.prepare_by(&goes, 6)).map(|_| ballot(6)),
        ] {
            assert!(matches!(refused, Err(Refusal::NotAllowed(_))), "{refused:?}");
        }
        // The list in his hand does not let him in either; but who has met it may say that the others went on from his value.
        let under = |writer: &Identity| {
            let mut request = story.accept_by(writer, 6, &after);
            request.proposed = request.proposed.under(one.as_ref());
            request
        };
        assert!(matches!(node.accept(under(&goes)), Err(Refusal::NotAllowed(_))));
        node.accept(under(&stays)).unwrap();
    });
}

#[test]
fn a_full_node_goes_on_with_the_registers_that_it_has_and_takes_no_more() {
    reactor::run(|| {
        let (story, store) = (story(), Rc::new(MemoryStore::new()));
        let node = Node::new(NodeId([1; 32]), store.clone(), Gate::Open, 3);
        node.accept(story.accept(1, &story.first)).unwrap();
        store.fill();
        let register = story.genesis.register();
        let next = SignedRecord::sign(&story.owner, register, Some(&story.first), None, Bytes::new());
        node.prepare(story.prepare(2)).unwrap();
        node.accept(story.accept(2, &next)).unwrap();
        let other = Genesis::sign(&story.owner, [6; 32], vec![NodeId([1; 32])], vec![]);
        let first = SignedRecord::sign(&story.owner, other.register(), None, None, Bytes::new());
        let other = Story { genesis: other, first, ..story };
        assert_eq!(node.prepare(other.prepare(1)), Err(Refusal::Full));
        assert_eq!(node.accept(other.accept(1, &other.first)), Err(Refusal::Full));
    });
}

#[test]
fn a_reader_delivers_a_writers_proposal_again_and_makes_no_register() {
    use crate::message::Accept;
    use overlay::{Passport, Peer, Role};
    reactor::run(|| {
        let (story, peers) = (story(), Peers::new());
        let node = Node::new(NodeId([1; 32]), Rc::new(MemoryStore::new()), Gate::Passports(peers.clone()), 3);
        let mut service = Service::new();
        node.serve(&mut service);
        let reader = Identity::from_seed(&[2; 32]).public_key();
        let passport = Passport::issue(&story.owner, reader, Rights::READER, None);
        let peer = Peer { role: Role::Client, rights: Rights::READER, expires: None };
        peers.enter(reader, peer, passport, std::net::SocketAddr::from(([127, 0, 0, 1], 50_000)));
        let mut context = CallContext::default();
        context.peer = Some(reader);
        let deliver =
            |request: &AcceptRequest| service.call_local::<Accept>(&context, request, Bytes::new()).map(drop);
        let first = story.accept(1, &story.first);
        assert!(deliver(&first).is_err(), "the node does not have the register");
        node.accept(first).unwrap();
        let register = story.genesis.register();
        let second = SignedRecord::sign(&story.owner, register, Some(&story.first), None, Bytes::new());
        assert!(deliver(&story.accept(2, &second)).is_ok());
    });
}

#[test]
fn digests_differ_in_the_range_of_what_one_node_lacks() {
    reactor::run(|| {
        let (a, b) = (node(), Node::new(NodeId([2; 32]), Rc::new(MemoryStore::new()), Gate::Open, 3));
        let blocks: Vec<_> = (0..500u32).map(|i| Bytes::from(i.to_le_bytes().to_vec())).collect();
        for (index, block) in blocks.iter().enumerate() {
            let address = Address::of(&TAG, block);
            a.put_block(&address, &TAG, block.clone()).unwrap();
            if index != 123 {
                b.put_block(&address, &TAG, block.clone()).unwrap();
            }
        }
        let request = |asker: &Rc<Node>| crate::message::DigestsRequest {
            family: crate::message::Family::Blocks,
            asker: asker.own(),
        };
        let (of_a, of_b) = (a.digests(&request(&b)).unwrap(), b.digests(&request(&a)).unwrap());
        let different: Vec<_> = (0..256).filter(|&i| of_a[i] != of_b[i]).collect();
        let lacking = Address::of(&TAG, &blocks[123]);
        assert_eq!(different, [lacking.0[0] as usize]);
    });
}

#[test]
fn the_passport_decides_who_may_do_what() {
    use crate::message::{GetBlock, GetBlockRequest, HandWords, PutBlock, PutBlockRequest};
    use overlay::{Passport, Peer, Role};
    use reactor::rpc::CallError;
    reactor::run(|| {
        let peers = Peers::new();
        let node = Node::new(NodeId([1; 32]), Rc::new(MemoryStore::new()), Gate::Passports(peers.clone()), 3);
        let mut service = Service::new();
        node.serve(&mut service);
        let content = Bytes::from_static(b"content");
        let address = Address::of(&TAG, &content);
        let key = |number| Identity::from_seed(&[number; 32]).public_key();
        let rights = |read, write| Rights { store: false, read, write, invite: false };
        for (number, rights) in [(1, rights(true, false)), (2, rights(false, true)), (4, Rights::NODE)] {
            let passport = Passport::issue(&Identity::from_seed(&[9; 32]), key(number), rights, None);
            let peer = Peer { role: Role::Client, rights, expires: None };
            peers.enter(key(number), peer, passport, std::net::SocketAddr::from(([127, 0, 0, 1], 50_000)));
        }
        let refused_put = |number| {
            let mut context = CallContext::default();
            context.peer = Some(key(number));
            let request = PutBlockRequest::new(address, TAG);
            let answer = service.call_local::<PutBlock>(&context, &request, content.clone());
            matches!(answer, Err(CallError::Remote(Refusal::NotAllowed(_))))
        };
        let refused_get = |number| {
            let mut context = CallContext::default();
            context.peer = Some(key(number));
            let request = GetBlockRequest { address, range: None };
            let answer = service.call_local::<GetBlock>(&context, &request, Bytes::new());
            matches!(answer, Err(CallError::Remote(Refusal::NotAllowed(_))))
        };
        // Only nodes: who speaks for himself has his words looked at by the clock.
        let refused_words = |number| {
            let mut context = CallContext::default();
            context.peer = Some(key(number));
            let answer = service.call_local::<HandWords>(&context, &Vec::new(), Bytes::new());
            matches!(answer, Err(CallError::Remote(Refusal::NotAllowed(_))))
        };
        assert_eq!([1, 2, 3, 4].map(refused_put), [true, false, true, false]);
        assert_eq!([1, 2, 3, 4].map(refused_get), [false, true, true, false]);
        assert_eq!([1, 2, 3, 4].map(refused_words), [true, true, true, false]);
    });
}
