//! Registers whose members change: by their owner's word, whoever dies in the middle of it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use overlay::NodeId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reactor::cell::RefCell;
use reactor::crypto::Identity;

use crate::block::configuration::{Membership, Seal};
use crate::block::mutable::{Signed, SignedRecord};
use crate::block::proposal::{Proposal, Proposed};
use crate::message::{AcceptRequest, PrepareRequest, Refusal};
use crate::paxos::{Ballot, ProposerId};
use crate::repair::Repair;
use crate::store::{Key, Kind};
use crate::testing::{FakeNetwork, FakeNode, Mood, seed};
use crate::{BlockStore, MoveError, Record, SwapError};

fn identity(number: u8) -> Rc<Identity> {
    Rc::new(Identity::from_seed(&[number; 32]))
}

fn fake<'a>(network: &'a FakeNetwork, id: &NodeId) -> (usize, &'a FakeNode) {
    network.nodes.iter().enumerate().find(|(_, fake)| fake.contact.id == *id).unwrap()
}

/// What happens to a node that nobody will ever start again.
fn destroy(network: &FakeNetwork, id: &NodeId) {
    let (_, fake) = fake(network, id);
    fake.mood.set(Mood::Dead);
    fake.forgotten.set(true);
}

/// Members used to be those of the beginning for ever: once two of three had died, however long apart, nothing could be
/// written any more.
#[test]
fn all_first_members_die_one_after_another_and_whoever_was_away_finds_the_register() {
    reactor::run(|| {
        let network = FakeNetwork::new(8, 3, 1);
        let client = network.client(&identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let mut last = client.compare_and_swap(&register, None, Bytes::from_static(b"0")).unwrap();
        let away = network.client(&identity(1)).opened(&genesis);
        assert_eq!(away.read(&register).unwrap().as_ref(), Some(&last));
        for (number, member) in (1..).zip(&genesis.members) {
            destroy(&network, member);
            last = client.compare_and_swap(&register, Some(last.header_hash), vec![number].into()).unwrap();
            let membership = client.replace_members(&register, &[*member]).unwrap();
            assert_eq!((membership.epoch(), membership.members().len()), (u64::from(number), 3));
            assert_eq!(membership.index_of(member), None);
            assert_eq!(client.read(&register).unwrap().as_ref(), Some(&last));
            // Once is enough.
            assert_eq!(client.replace_members(&register, &[*member]).unwrap(), membership);
        }
        last = client.compare_and_swap(&register, Some(last.header_hash), Bytes::from_static(b"x")).unwrap();
        // One knew the first members only, and reads; another never opened it before, and writes.
        assert_eq!(away.read(&register).unwrap(), Some(last.clone()));
        assert_eq!(away.membership(&register), client.membership(&register));
        let fresh = network.client(&identity(1)).opened(&genesis);
        fresh.compare_and_swap(&register, Some(last.header_hash), Bytes::from_static(b"y")).unwrap();
        // Who remembers asks nobody.
        let remembers = network.client(&identity(1));
        remembers.open_register(fresh.membership(&register).unwrap()).unwrap();
        assert_eq!(remembers.read(&register).unwrap().unwrap().payload, "y");
    });
}

#[test]
fn only_the_owner_moves_a_register_and_only_to_nodes_that_are_there() {
    reactor::run(|| {
        let network = FakeNetwork::new(5, 3, 1);
        let owner = network.client(&identity(1));
        let writer = identity(2);
        let genesis = owner.create_register([1; 32], vec![writer.public_key()]).unwrap();
        let register = genesis.register();
        let from = Membership::from(genesis.clone());
        let next: Vec<NodeId> = network.nodes.iter().map(|fake| fake.contact.id).take(3).collect();
        assert_eq!(owner.move_register(&from, &next), Err(MoveError::Empty));
        let first = owner.compare_and_swap(&register, None, Bytes::from_static(b"mine")).unwrap();
        let stranger = network.client(&writer).opened(&genesis);
        assert_eq!(stranger.move_register(&from, &next), Err(MoveError::NotOwner));
        let absent = network.nodes.iter().find(|fake| genesis.index_of(&fake.contact.id).is_none()).unwrap();
        absent.mood.set(Mood::Dead);
        let members = [genesis.members[0], genesis.members[1], absent.contact.id];
        assert_eq!(owner.move_register(&from, &members), Err(MoveError::Away(absent.contact.id)));
        assert_eq!(owner.membership(&register).unwrap(), from);

        // Nor does a node take it over with its friends: what a writer, or the node, signs as configuration is refused, and
        // what the owner wanted is not what was chosen.
        let target = fake(&network, &genesis.members[0]).1.node();
        for (signer, wanted) in [(&writer, &writer), (&network.nodes[0].identity, &identity(1))] {
            let seal = Seal::sign(wanted, &from, vec![target.own()], first.header_hash, 0);
            let membership = from.followed_by(seal.chosen(signer));
            let record = target.read_register(&register).unwrap().unwrap().accepted.unwrap().record;
            let proposed = Proposed::sign(&writer, Ballot::first(1), record, None);
            let refused = target.accept(AcceptRequest { membership: membership.clone(), proposed });
            assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
            assert!(target.retire(&membership).is_err());
        }
        assert_eq!(stranger.read(&register).unwrap(), Some(first));
    });
}

#[test]
fn a_former_member_says_who_keeps_a_register_now_also_after_a_restart() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let client = network.client(&identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let payload = Bytes::from(vec![7; 40_000]);
        client.compare_and_swap(&register, None, payload).unwrap();
        let others = network.nodes.iter().map(|fake| fake.contact.id);
        let others: Vec<NodeId> = others.filter(|id| genesis.index_of(id).is_none()).collect();
        let moved = client.move_register(&genesis.clone().into(), &others).unwrap();
        reactor::sleep(Duration::from_millis(20));
        let old = Membership::from(genesis.clone());
        for member in &genesis.members {
            let (index, fake) = fake(&network, member);
            network.restart(index);
            let node = fake.node();
            let view = node.read_register(&register).unwrap().unwrap();
            assert_eq!(view.membership, moved);
            let ballot = Ballot { round: 99, proposer: ProposerId([1; 16]), ..Ballot::ZERO };
            let proposal = Proposal::prepare(&identity(1), register, ballot);
            let refused = node.prepare(PrepareRequest { membership: old.clone(), proposal, list: None });
            let configuration = moved.configuration.clone().unwrap();
            assert_eq!(refused, Err(Refusal::Moved { configuration }));
        }
        // Back again.
        let back = client.move_register(&moved, &genesis.members).unwrap();
        assert_eq!(back.epoch(), 2);
        let fresh = network.client(&identity(1)).opened(&genesis);
        assert_eq!(fresh.read(&register).unwrap().unwrap().payload.len(), 40_000);
    });
}

#[test]
fn a_former_member_that_was_away_is_told_by_another() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let (from, _, others) = made(&network);
        let [teller, _, away] = from.members()[..] else { panic!("three members") };
        fake(&network, &away).1.mood.set(Mood::Dead);
        let moved = network.client(&identity(1)).opened(&from.genesis).move_register(&from, &others).unwrap();
        reactor::sleep(Duration::from_millis(20));
        network.restart(fake(&network, &away).0);
        let view = || fake(&network, &away).1.node().read_register(&from.register()).unwrap().unwrap();
        assert_eq!(view().membership, from);
        let (index, fake) = fake(&network, &teller);
        let node = fake.node();
        Repair::new(network.overlay_at(index), node, Default::default()).round();
        assert_eq!(view().membership, moved);
    });
}

#[test]
fn a_node_that_lost_its_store_learns_of_a_move_before_it_votes() {
    reactor::run(|| {
        let network = FakeNetwork::new(5, 3, 1);
        let client = network.client(&identity(1));
        let genesis = client.create_register([1; 32], vec![]).unwrap();
        let register = genesis.register();
        let first = client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
        let [a, b, c] = genesis.members[..] else { panic!("three members") };
        let others = network.nodes.iter().map(|fake| fake.contact.id);
        let [d, e] = others.filter(|id| genesis.index_of(id).is_none()).collect::<Vec<_>>()[..] else {
            panic!("two others")
        };
        let moved = client.move_register(&genesis.clone().into(), &[c, d, e]).unwrap();
        reactor::sleep(Duration::from_millis(20));
        for id in [a, c] {
            let (index, fake) = fake(&network, &id);
            fake.store.remove(&Key::new(Kind::REGISTER, register.0)).unwrap();
            network.restart(index);
            fake.node().set_amnesiac();
        }
        let repair = |id: &NodeId| {
            let (index, fake) = fake(&network, id);
            let node = fake.node();
            (Repair::new(network.overlay_at(index), node.clone(), Default::default()), node)
        };
        // It was a member of both sets. Of the later one, one other is away: it can't know what it promised there.
        let (learner, node) = repair(&c);
        fake(&network, &e).1.mood.set(Mood::Dead);
        assert!(!learner.relearn(&genesis.clone().into()));
        assert!(matches!(node.read_register(&register), Err(Refusal::Amnesiac)));
        network.restart(fake(&network, &e).0);
        assert!(learner.relearn(&genesis.clone().into()));
        let view = node.read_register(&register).unwrap().unwrap();
        assert_eq!((view.membership, view.accepted.unwrap().record.to_record()), (moved.clone(), first));
        // The other one is none of the members any more, and learns that.
        destroy(&network, &b);
        let (learner, node) = repair(&a);
        assert!(learner.relearn(&genesis.clone().into()));
        assert_eq!(node.read_register(&register).unwrap().unwrap().membership, moved);
    });
}

/// Several clients append to one register while two movers, which are cut off at any moment, send it from nodes to nodes over
/// a network that loses messages and restarts them.
#[test]
fn nothing_acknowledged_is_lost_or_applied_twice_while_a_register_is_moved() {
    let seed = seed();
    for round in 0..3 {
        reactor::run(move || moves_over_a_bad_network(seed.wrapping_add(round)));
    }
}

fn moves_over_a_bad_network(seed: u64) {
    let network = FakeNetwork::new(6, 3, seed);
    let owner = network.client(&identity(1));
    let genesis = owner.create_register([7; 32], vec![identity(2).public_key()]).unwrap();
    let register = genesis.register();
    owner.compare_and_swap(&register, None, Bytes::new()).unwrap();
    network.loss_percent.set(5);
    network.nodes.iter().for_each(|node| node.delay.set(Duration::from_micros(300)));
    let acknowledged = RefCell::new(Vec::<u8>::new());
    let doubtful = RefCell::new(Vec::<u8>::new());
    let (next, moves, done) = (Cell::new(1u8), Cell::new(0), Cell::new(false));
    let rng = RefCell::new(StdRng::seed_from_u64(seed));
    let writers_left = Cell::new(2);
    reactor::scope(|scope| {
        for who in [identity(1), identity(2)] {
            let (network, genesis) = (network.clone(), genesis.clone());
            let (acknowledged, doubtful, next) = (&acknowledged, &doubtful, &next);
            let (writers_left, done) = (&writers_left, &done);
            scope.spawn(move || {
                for _ in 0..14 {
                    // Each time somebody who knows the first members only.
                    let client = network.client(&who).opened(&genesis);
                    let floor = acknowledged.borrow().clone();
                    let Ok(Some(read)) = client.read(&register) else { continue };
                    for id in floor {
                        assert!(read.payload.contains(&id), "HYPHA_SEED={seed}: the read misses {id}");
                    }
                    let id = next.replace(next.get() + 1);
                    let mut value = read.payload.to_vec();
                    value.push(id);
                    match client.compare_and_swap(&register, Some(read.header_hash), value.into()) {
                        Ok(_) => acknowledged.borrow_mut().push(id),
                        Err(SwapError::Lost(_)) => {}
                        Err(_) => doubtful.borrow_mut().push(id),
                    }
                }
                writers_left.set(writers_left.get() - 1);
                done.set(writers_left.get() == 0);
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.get() {
                    let mover = network.client(&identity(1)).opened(&genesis);
                    let mut ids: Vec<NodeId> = network.nodes.iter().map(|fake| fake.contact.id).collect();
                    while ids.len() > 3 {
                        let out = rng.borrow_mut().random_range(0..ids.len());
                        ids.remove(out);
                    }
                    let cut_off = Duration::from_micros(rng.borrow_mut().random_range(500..40_000));
                    let moved = reactor::timeout(cut_off, || {
                        mover.read(&register).ok()?;
                        mover.move_register(&mover.membership(&register).ok()?, &ids).ok()
                    });
                    moves.set(moves.get() + usize::from(matches!(moved, Ok(Some(_)))));
                    reactor::sleep(Duration::from_millis(10));
                }
            });
        }
        scope.spawn(|| {
            while !done.get() {
                reactor::sleep(Duration::from_millis(15));
                let victim = rng.borrow_mut().random_range(0..network.nodes.len());
                network.nodes[victim].mood.set(Mood::Dead);
                reactor::sleep(Duration::from_millis(10));
                network.restart(victim);
            }
        });
    });
    network.loss_percent.set(0);
    let last = network.client(&identity(1)).opened(&genesis).read(&register).unwrap().unwrap();
    for id in acknowledged.borrow().iter() {
        let count = last.payload.iter().filter(|other| *other == id).count();
        assert_eq!(count, 1, "HYPHA_SEED={seed}: {id} was acknowledged and is there {count} times");
    }
    for id in last.payload.iter() {
        let known = acknowledged.borrow().contains(id) || doubtful.borrow().contains(id);
        assert!(known, "HYPHA_SEED={seed}: {id} was reported as lost, and is there");
    }
    let (acknowledged, doubtful) = (acknowledged.borrow().len(), doubtful.borrow().len());
    println!("seed {seed}: {acknowledged} acknowledged, {doubtful} doubtful, {} moves", moves.get());
    assert!(acknowledged >= 5, "HYPHA_SEED={seed}: nothing got done");
}

/// A mover has had a quorum accept the seal of the last value, and dies.
fn seal_and_die(network: &FakeNetwork, owner: &Identity, from: &Membership, next: &[NodeId]) -> Signed<Seal> {
    let ballot = Ballot { round: 1000, proposer: ProposerId([9; 16]), ..Ballot::ZERO };
    let accept = |member: &NodeId| {
        let node = fake(network, member).1.node();
        let record = node.read_register(&from.register()).unwrap().unwrap().accepted.unwrap().record;
        let seal = Seal::sign(owner, from, next.to_vec(), record.hash(), 0);
        let proposed = Proposed::sign_with(owner, ballot, record, Some(seal.clone()), None);
        node.accept(AcceptRequest { membership: from.clone(), proposed }).unwrap();
        seal
    };
    let [first, second, ..] = from.members() else { panic!("three members") };
    assert_eq!(accept(first), accept(second));
    accept(first)
}

/// A register with a value, and the nodes that do not keep it.
fn made(network: &Rc<FakeNetwork>) -> (Membership, Record, Vec<NodeId>) {
    let client = network.client(&identity(1));
    let genesis = client.create_register([1; 32], vec![identity(2).public_key()]).unwrap();
    let first = client.compare_and_swap(&genesis.register(), None, Bytes::from_static(b"1")).unwrap();
    let all = network.nodes.iter().map(|fake| fake.contact.id);
    let others = all.filter(|id| genesis.index_of(id).is_none()).collect();
    (genesis.into(), first, others)
}

#[test]
fn a_seal_that_its_mover_did_not_live_to_see_through_is_seen_through_by_the_next() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let (from, first, others) = made(&network);
        let (genesis, register) = (from.genesis.clone(), from.register());
        seal_and_die(&network, &identity(1), &from, &others);
        // Who is not the owner waits; nothing is written behind the seal.
        let writer = network.client(&identity(2)).opened(&genesis);
        let (read, membership) = reactor::scope(|scope| {
            scope.spawn(|| {
                let swapped =
                    writer.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"2"));
                assert_eq!(swapped.unwrap().version, 2);
            });
            // The owner's next operation, whatever it is, goes on with the move.
            reactor::sleep(Duration::from_millis(100));
            let next = network.client(&identity(1)).opened(&genesis);
            let read = next.read(&register);
            (read, next.membership(&register).unwrap())
        });
        assert!(matches!(read, Ok(Some(_))), "{read:?}");
        assert_eq!((membership.epoch(), membership.members()), (1, &others[..]));
        let last = writer.read(&register).unwrap().unwrap();
        assert_eq!((last.version, &last.payload[..]), (2, &b"2"[..]));
    });
}

/// Who was told by a new member that is gone again knows where the register is, and nobody there has it.
#[test]
fn members_that_were_never_given_the_value_get_it_from_those_who_kept_it_before() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let (from, first, others) = made(&network);
        let seal = seal_and_die(&network, &identity(1), &from, &others);
        let next = from.followed_by(seal.chosen(&identity(1)));
        let client = network.client(&identity(1));
        let register = client.open_register(next).unwrap();
        assert_eq!(client.read(&register), Ok(Some(first.clone())));
        let second = client.compare_and_swap(&register, Some(first.header_hash), Bytes::new()).unwrap();
        // Those who kept it hear of it from whoever comes by, and let nobody write behind it.
        let late = network.client(&identity(1)).opened(&from.genesis);
        assert_eq!(late.read(&register), Ok(Some(second)));
    });
}

/// A seal used to be laid on what a prepare showed, chosen or not: a member that took it could follow nobody any more.
#[test]
fn a_move_that_was_cut_off_beside_another_writer_wedges_no_member() {
    reactor::run(|| {
        let network = FakeNetwork::new(5, 3, 1);
        let (from, first, others) = made(&network);
        let register = from.register();
        let [a, b, c] = from.members()[..] else { panic!("three members") };
        let at = |id: &NodeId| fake(&network, id).1;
        // A writer's second value reaches one member only.
        let record = at(&a).node().read_register(&register).unwrap().unwrap().accepted.unwrap().record;
        let lost =
            SignedRecord::sign(&identity(2), register, Some(&record), None, Bytes::from_static(b"lost"));
        let ballot = Ballot { round: 500, proposer: ProposerId([9; 16]), ..Ballot::ZERO };
        let proposed = Proposed::sign(&identity(2), ballot, lost, None);
        at(&a).node().accept(AcceptRequest { membership: from.clone(), proposed }).unwrap();
        // A mover meets it there, and is cut off: its first proposal is the last thing that it says, to that member.
        at(&c).mood.set(Mood::Dead);
        at(&b).memory.fail_after(Some(1));
        let mover = network.client(&identity(1)).opened(&from.genesis);
        let next = [a, b, others[0]];
        let cut_off = reactor::timeout(Duration::from_millis(300), || mover.move_register(&from, &next));
        assert!(!matches!(cut_off, Ok(Ok(_))), "{cut_off:?}");
        at(&b).memory.fail_after(None);
        network.restart(fake(&network, &c).0);
        // Others go on without it. Then one of them dies, and it is needed.
        at(&a).mood.set(Mood::Dead);
        let other = network.client(&identity(1)).opened(&from.genesis);
        let last = other.compare_and_swap(&register, Some(first.header_hash), Bytes::from_static(b"kept"));
        let last = last.unwrap();
        network.restart(fake(&network, &a).0);
        at(&b).mood.set(Mood::Dead);
        let fresh = network.client(&identity(1)).opened(&from.genesis);
        assert_eq!(fresh.read(&register), Ok(Some(last.clone())));
        fresh.compare_and_swap(&register, Some(last.header_hash), Bytes::new()).unwrap();
    });
}

/// The owner signs who keeps a register before they have it, and a member that lies could tell everybody at once.
#[test]
fn who_is_told_too_soon_that_others_keep_a_register_still_has_it() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let (from, first, others) = made(&network);
        let seal = seal_and_die(&network, &identity(1), &from, &others);
        let next = from.followed_by(seal.chosen(&identity(1)));
        for member in from.members() {
            let node = fake(&network, member).1.node();
            node.retire(&next).unwrap();
        }
        // One of the next is gone as well.
        destroy(&network, &others[0]);
        let client = network.client(&identity(1)).opened(&from.genesis);
        assert_eq!(client.read(&from.register()), Ok(Some(first.clone())));
        client.compare_and_swap(&from.register(), Some(first.header_hash), Bytes::new()).unwrap();
    });
}

/// What was said to be moved used to be so on one node: the mover died, and the next one took its word for it.
#[test]
fn a_move_is_done_once_a_quorum_has_the_value_whoever_began_it() {
    reactor::run(|| {
        let network = FakeNetwork::new(6, 3, 1);
        let (from, first, others) = made(&network);
        let [a, b, c] = from.members()[..] else { panic!("three members") };
        let next = [a, c, others[0]];
        let seal = seal_and_die(&network, &identity(1), &from, &next);
        let moved = from.followed_by(seal.chosen(&identity(1)));
        let node = |id: &NodeId| fake(&network, id).1.node();
        let record = node(&a).read_register(&from.register()).unwrap().unwrap().accepted.unwrap().record;
        let proposed = Proposed::sign(&identity(1), Ballot::first(1), record, None);
        node(&others[0]).accept(AcceptRequest { membership: moved.clone(), proposed }).unwrap();

        let client = network.client(&identity(1)).opened(&from.genesis);
        assert_eq!(client.replace_members(&from.register(), &[b]), Ok(moved));
        // He takes it away, as told; and the one that had it first breaks.
        destroy(&network, &b);
        destroy(&network, &others[0]);
        let fresh = network.client(&identity(1)).opened(&from.genesis);
        assert_eq!(fresh.read(&from.register()), Ok(Some(first)));
    });
}
