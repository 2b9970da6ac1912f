//! Registers among whose members one lies, or whose writers do: it can stop or undo nothing that it could not sign.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::Identity;
use reactor::rpc::{CallContext, Payload, Service};

use crate::address::Address;
use crate::block::configuration::Membership;
use crate::block::deletion::OwnersWord;
use crate::block::mutable::{Genesis, Signed, SignedRecord};
use crate::block::proposal::{Proposal, Proposed};
use crate::block_store::RegisterAddress;
use crate::message::*;
use crate::paxos::{Ballot, ProposerId};
use crate::testing::{FakeNetwork, Mood};
use crate::{BlockStore, ReadError, Record, SwapError};

pub(crate) fn identity(number: u8) -> Rc<Identity> {
    Rc::new(Identity::from_seed(&[number; 32]))
}

pub(crate) fn ballot(round: u64) -> Ballot {
    Ballot { round, proposer: ProposerId([9; 16]), ..Ballot::ZERO }
}

/// A member that says of every ballot that a far higher one was promised, by its own word, and shows an old value under
/// a ballot that it made up.
struct Liar {
    own: Rc<Identity>,
    genesis: Signed<Genesis>,
    old: SignedRecord,
}

impl Liar {
    fn promise(&self) -> Signed<Proposal> {
        // As far ahead as honest members let anybody go, and then some.
        Proposal::prepare(&self.own, self.genesis.register(), ballot(u64::MAX))
    }

    fn view(&self) -> RegisterView {
        let accepted = Proposed::sign(&self.own, ballot(1 << 31), self.old.clone(), None);
        RegisterView {
            membership: self.genesis.clone().into(),
            promise: Some(self.promise()),
            accepted: Some(accepted),
            learned: None,
        }
    }
}

impl Storage for Liar {
    fn put_block(&self, _: &CallContext, _: PutBlockRequest, _: Payload) -> Result<(), Refusal> {
        Err(Refusal::Full)
    }

    fn get_block(&self, _: &CallContext, _: GetBlockRequest) -> Result<(GetBlockResponse, Payload), Refusal> {
        Err(Refusal::NotFound)
    }

    fn has_blocks(&self, _: &CallContext, addresses: Vec<Address>) -> Result<Vec<bool>, Refusal> {
        Ok(vec![true; addresses.len()])
    }

    fn suspect_block(&self, _: &CallContext, _: Address) -> Result<bool, Refusal> {
        Ok(false)
    }

    fn delete_blocks(
        &self,
        _: &CallContext,
        words: Vec<OwnersWord>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        Ok(vec![Ok(()); words.len()])
    }

    fn words(&self, _: &CallContext, keys: Vec<WordKey>) -> Result<Vec<Option<OwnersWord>>, Refusal> {
        Ok(vec![None; keys.len()])
    }

    fn list_blocks(&self, _: &CallContext, _: ListBlocksRequest) -> Result<ListBlocksResponse, Refusal> {
        Err(Refusal::NotFound)
    }

    fn prepare(&self, _: &CallContext, request: PrepareRequest) -> Result<Option<Proposed>, Refusal> {
        if request.proposal.ballot.round.is_multiple_of(2) {
            return Ok(self.view().accepted);
        }
        Err(Refusal::Conflict { promise: self.promise() })
    }

    fn accept(&self, _: &CallContext, _: AcceptRequest) -> Result<Ballot, Refusal> {
        Err(Refusal::Conflict { promise: self.promise() })
    }

    fn read_register(&self, _: &CallContext, _: RegisterAddress) -> Result<Option<RegisterView>, Refusal> {
        Ok(Some(self.view()))
    }

    fn retire(&self, _: &CallContext, _: Membership) -> Result<(), Refusal> {
        Ok(())
    }

    fn can_keep(&self, _: &CallContext, _: RegisterAddress) -> Result<(), Refusal> {
        Ok(())
    }

    fn digests(&self, _: &CallContext, _: DigestsRequest) -> Result<DigestsResponse, Refusal> {
        Ok(DigestsResponse { digests: vec![1; 256], mark: ViewMark::default() })
    }

    fn list_keys(&self, _: &CallContext, _: ListKeysRequest) -> Result<ListKeysResponse, Refusal> {
        let key = ListedKey { address: self.genesis.register().0, ballot: ballot(1 << 31) };
        Ok(ListKeysResponse { keys: vec![key], next: None })
    }

    fn hand_words(&self, _: &CallContext, _: Vec<OwnersWord>) -> Result<(), Refusal> {
        Err(Refusal::NotFound)
    }

    fn usage(&self, _: &CallContext) -> Result<NodeSpace, Refusal> {
        Err(Refusal::NotFound)
    }

    fn list_past(&self, _: &CallContext, _: RegisterAddress, _: u64) -> Result<Vec<PastEntry>, Refusal> {
        Err(Refusal::NotFound)
    }

    fn read_past(
        &self,
        _: &CallContext,
        _: RegisterAddress,
        _: u64,
    ) -> Result<Option<SignedRecord>, Refusal> {
        Ok(Some(self.old.clone()))
    }

    fn retention(&self, _: &CallContext) -> Result<Retention, Refusal> {
        Err(Refusal::NotFound)
    }
}

/// A register with some versions, its first record, and its last value.
pub(crate) fn history(
    network: &Rc<FakeNetwork>,
    writers: Vec<reactor::crypto::PublicKey>,
) -> (Signed<Genesis>, SignedRecord, Record) {
    let owner = network.client(&identity(1));
    let genesis = owner.create_register([1; 32], writers).unwrap();
    let register = genesis.register();
    let mut last = owner.compare_and_swap(&register, None, Bytes::from_static(b"old")).unwrap();
    let mut views = network.nodes.iter().map(|fake| fake.node().read_register(&register).unwrap());
    let first = views.find_map(|view| view?.accepted).unwrap();
    for number in 0..5u8 {
        last = owner.compare_and_swap(&register, Some(last.header_hash), vec![number].into()).unwrap();
    }
    reactor::sleep(Duration::from_millis(5));
    (genesis, first.record, last)
}

#[test]
fn a_lying_member_neither_stops_a_register_nor_rolls_it_back() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let (genesis, old, mut last) = history(&network, vec![]);
        let register = genesis.register();
        let mut service = Service::new();
        let liar = Liar { own: network.nodes[0].identity.clone(), genesis: genesis.clone(), old };
        Rc::new(liar).serve_on(&mut service);
        network.replace_service(0, service);
        for number in 0..5u8 {
            let client = network.client(&identity(1)).opened(&genesis);
            assert_eq!(client.read(&register).unwrap(), Some(last.clone()));
            for step in 0..3 {
                let payload = Bytes::from(vec![number, step]);
                last = client.compare_and_swap(&register, Some(last.header_hash), payload).unwrap();
            }
        }
        // Nor does an honest member learn anything false from it.
        let honest = network.nodes[1].node();
        let repair = crate::repair::Repair::new(network.overlay_at(1), honest.clone(), Default::default());
        repair.round();
        let view = honest.read_register(&register).unwrap().unwrap();
        assert_eq!(view.accepted.unwrap().record.to_record(), last);
    });
}

#[test]
fn a_storage_node_undoes_nothing_at_honest_members() {
    reactor::run(|| {
        let network = FakeNetwork::new(4, 3, 1);
        let (genesis, old, last) = history(&network, vec![]);
        let register = genesis.register();
        // Members and others alike: none of them may write.
        for fake in &network.nodes {
            for target in &network.nodes {
                let node = target.node();
                let proposal = Proposal::prepare(&fake.identity, register, ballot(1000));
                assert!(
                    node.prepare(PrepareRequest { membership: genesis.clone().into(), proposal, list: None })
                        .is_err()
                );
                let proposed = Proposed::sign(&fake.identity, ballot(1000), old.clone(), None);
                assert!(node.accept(AcceptRequest { membership: genesis.clone().into(), proposed }).is_err());
            }
        }
        let fresh = network.client(&identity(1)).opened(&genesis);
        assert_eq!(fresh.read(&register).unwrap(), Some(last.clone()));
        fresh.compare_and_swap(&register, Some(last.header_hash), Bytes::new()).unwrap();
    });
}

#[test]
fn a_writer_that_says_two_things_at_once_is_found_out_and_readers_agree() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let dishonest = identity(5);
        let (genesis, _, last) = history(&network, vec![dishonest.public_key()]);
        let register = genesis.register();
        let nodes: Vec<_> = network.nodes.iter().map(|fake| fake.node()).collect();
        let before = nodes[1].read_register(&register).unwrap().unwrap().accepted.unwrap().record;
        assert_eq!(before.to_record(), last);
        let say = |what: &'static [u8]| {
            let record =
                SignedRecord::sign(&dishonest, register, Some(&before), None, Bytes::from_static(what));
            AcceptRequest {
                membership: genesis.clone().into(),
                proposed: Proposed::sign(&dishonest, ballot(500), record, None),
            }
        };
        nodes[0].accept(say(b"heads")).unwrap();
        nodes[1].accept(say(b"tails")).unwrap();
        let proof = nodes[1].accept(say(b"heads"));
        let accepted = say(b"tails").proposed.proposal;
        assert_eq!(proof, Err(Refusal::Equivocation { accepted }));
        let fresh = || network.client(&identity(1)).opened(&genesis);
        // While neither has a quorum and the third is away, nobody is told either of them.
        network.nodes[2].mood.set(Mood::Dead);
        match fresh().read(&register) {
            Err(ReadError::NoQuorum { reason, .. }) => assert!(reason.contains("two values"), "{reason}"),
            other => panic!("{other:?}"),
        }
        network.nodes[2].mood.set(Mood::Well);
        nodes[2].accept(say(b"tails")).unwrap();
        for _ in 0..4 {
            assert_eq!(fresh().read(&register).unwrap().unwrap().payload, "tails");
        }
    });
}

#[test]
fn who_may_only_read_gets_an_answer_although_the_members_disagree() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let (genesis, _, last) = history(&network, vec![]);
        let register = genesis.register();
        network.nodes[0].mood.set(Mood::Dead);
        let owner = network.client(&identity(1)).opened(&genesis);
        let newer = owner.compare_and_swap(&register, Some(last.header_hash), Bytes::new()).unwrap();
        // One of the two that have it is away; the other has missed it.
        network.restart(0);
        network.nodes[1].mood.set(Mood::Dead);
        let reader = network.client(&identity(7)).opened(&genesis);
        assert_eq!(reader.read(&register).unwrap(), Some(newer.clone()));
        let caught_up = network.nodes[0].node().read_register(&register).unwrap().unwrap();
        assert_eq!(caught_up.accepted.unwrap().record.to_record(), newer);
        let refused = reader.compare_and_swap(&register, Some(newer.header_hash), Bytes::new());
        assert!(matches!(refused, Err(SwapError::Refused(_))), "{refused:?}");
    });
}

/// Two of three members show one client one line of values, and another client another: so does a network that was restored
/// from a copy and written to since.
#[test]
fn a_newer_value_that_does_not_follow_what_was_seen_is_told() {
    reactor::run(|| {
        for ahead in [2, 7, 12] {
            let network = FakeNetwork::new(3, 3, 1);
            let (genesis, _, last) = history(&network, vec![]);
            let register = genesis.register();
            let key = crate::store::Key::new(crate::store::Kind::REGISTER, register.0);
            let copies: Vec<_> =
                network.nodes.iter().map(|fake| fake.store.get(&key, None).unwrap().unwrap()).collect();
            let seeing = network.client(&identity(1)).opened(&genesis);
            let seen = seeing
                .compare_and_swap(&register, Some(last.header_hash), Bytes::from_static(b"seen"))
                .unwrap();
            reactor::sleep(Duration::from_millis(5));
            for (index, copy) in copies.into_iter().enumerate() {
                network.nodes[index].store.put(&key, copy.into()).unwrap();
                network.restart(index);
            }
            let other = network.client(&identity(1)).opened(&genesis);
            let mut last = last;
            for number in 0..=ahead {
                let payload = Bytes::from(vec![number; 2]);
                last = other.compare_and_swap(&register, Some(last.header_hash), payload).unwrap();
            }
            let read = seeing.read(&register);
            if ahead < 12 {
                let told = ReadError::Forked { register, seen: seen.version, found: last.version };
                assert_eq!(read, Err(told.clone()));
                let swap = seeing.compare_and_swap(&register, Some(last.header_hash), Bytes::new());
                assert!(matches!(&swap, Err(SwapError::Read(error)) if *error == told), "{swap:?}");
            } else {
                // Further on than a value remembers nobody can tell.
                assert_eq!(read, Ok(Some(last)));
            }
        }
    });
}

#[test]
fn a_busy_writer_does_not_starve_another() {
    reactor::run(|| {
        let network = FakeNetwork::new(3, 3, 1);
        let (genesis, _, last) = history(&network, vec![]);
        let register = genesis.register();
        network.nodes.iter().for_each(|node| node.delay.set(Duration::from_millis(2)));
        let done = Cell::new(false);
        let swaps = Cell::new(0);
        reactor::scope(|scope| {
            scope.spawn(|| {
                let busy = network.client(&identity(1)).opened(&genesis);
                let mut last = last.clone();
                while !done.get() && swaps.get() < 2000 {
                    match busy.compare_and_swap(&register, Some(last.header_hash), Bytes::new()) {
                        Ok(record) => last = record,
                        Err(SwapError::Lost(Some(record))) => last = record,
                        Err(error) => panic!("{error}"),
                    }
                    swaps.set(swaps.get() + 1);
                }
            });
            scope.spawn(|| {
                let other = network.client(&identity(1)).opened(&genesis);
                for _ in 0..3 {
                    let mut seen = other.read(&register).unwrap();
                    loop {
                        let expected = seen.map(|record| record.header_hash);
                        match other.compare_and_swap(&register, expected, Bytes::from_static(b"other")) {
                            Ok(_) => break,
                            Err(SwapError::Lost(record)) => seen = record,
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                done.set(true);
            });
        });
        println!("the other had 3 turns while the busy one had {}", swaps.get());
        assert!(swaps.get() < 2000, "the other writer starved");
    });
}
