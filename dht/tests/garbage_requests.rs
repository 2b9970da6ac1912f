//! Every method of a node is called with random bytes, with damaged real requests, and with lists and sizes beyond their
//! bounds. The node answers each with an error, stores nothing, and goes on serving.

use std::rc::Rc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use dht::block::deletion::{Speaker, Verdict};
use dht::block::mutable::{Genesis, SignedRecord};
use dht::block::proposal::{Proposal, Proposed};
use dht::message::{
    Accept, AcceptRequest, DeleteBlocks, GetBlock, GetBlockRequest, HasBlocks, Prepare, PrepareRequest,
    PutBlock, PutBlockRequest, Refusal,
};
use dht::paxos::{Ballot, ProposerId};
use dht::store::{Key, Kind, MemoryStore, Store};
use dht::{Address, Gate, Node, OwnerTag};
use overlay::NodeId;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use reactor::crypto::Identity;
use reactor::rpc::{CallContext, CallError, Method, Reply, Service};
use reactor::serialization::{from_bytes, to_bytes};

const METHODS: [u32; 16] = [
    0x200, 0x202, 0x203, 0x204, 0x205, 0x210, 0x211, 0x212, 0x215, 0x216, 0x220, 0x221, 0x222, 0x223, 0x230,
    0x231,
];

fn seed() -> u64 {
    let given = std::env::var("HYPHA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from_le_bytes(reactor::crypto::random_bytes()));
    println!("HYPHA_SEED={seed}");
    seed
}

#[test]
fn garbage_is_answered_and_changes_nothing() {
    let seed = seed();
    reactor::run(move || story(seed));
}

fn story(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let owner = Identity::from_seed(&[1; 32]);
    let own = NodeId([1; 32]);
    let store: Rc<dyn Store> = Rc::new(MemoryStore::new());
    let node = Node::new(own, store.clone(), Gate::Open, 3);
    let mut service = Service::new();
    node.serve(&mut service);
    let mut context = CallContext::default();
    context.peer = Some(owner.public_key());

    let genesis = Genesis::sign(&owner, [5; 32], vec![own, NodeId([2; 32]), NodeId([3; 32])], vec![]);
    let register = genesis.register();
    let record = SignedRecord::sign(&owner, register, None, None, Bytes::from_static(b"payload"));
    let ballot = Ballot { round: 1, proposer: ProposerId([1; 16]), ..Ballot::ZERO };
    let prepare = |ballot| PrepareRequest {
        membership: genesis.clone().into(),
        proposal: Proposal::prepare(&owner, register, ballot),
        list: None,
    };
    let proposed = Proposed::sign(&owner, ballot, record, None);
    let content = Bytes::from(vec![3; 50_000]);
    let tag = OwnerTag([4; 32]);
    let address = Address::of(&tag, &content);
    let speaker = Speaker { identity: &owner, owner: owner.public_key(), salt: [6; 32], grant: None };
    let now_ms = reactor::wall_clock().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as u64;
    let verdict = Verdict::Delete { put_before_seconds: 5, retention_seconds: 0 };
    let word = speaker.say(address, now_ms, verdict);
    let real: Vec<(u32, Vec<u8>)> = vec![
        (PutBlock::ID, to_bytes(&PutBlockRequest::new(address, tag))),
        (DeleteBlocks::ID, to_bytes(&vec![word])),
        (GetBlock::ID, to_bytes(&GetBlockRequest { address, range: Some((1, 2)) })),
        (Prepare::ID, to_bytes(&prepare(ballot))),
        (
            Accept::ID,
            to_bytes(&AcceptRequest { membership: genesis.clone().into(), proposed: proposed.clone() }),
        ),
    ];

    let mut refused = 0;
    for _ in 0..4000 {
        let method = METHODS[rng.random_range(0..METHODS.len())];
        let mut request = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut request);
        match service.dispatch(&context, method, &request, Bytes::new()) {
            Reply::Malformed(_) | Reply::Error(_) => refused += 1,
            // An empty request or an unlucky address may be a good question with a short answer.
            Reply::Response(answer, _) => assert!(answer.len() < 10_000),
            other => panic!("{other:?} to {method:#x}"),
        }
    }
    assert!(refused > 2000, "{refused}");

    for _ in 0..4000 {
        let (method, request) = &real[rng.random_range(0..real.len())];
        let mut damaged = request.clone();
        let bit = rng.random_range(0..damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        if rng.random_bool(0.2) {
            damaged.truncate(rng.random_range(0..damaged.len()));
        }
        // What is not part of the name may be wrong, and the block is the block all the same.
        let is_whole = |put: PutBlockRequest| put.address == address && put.tag == tag;
        if *method == PutBlock::ID && from_bytes(&damaged).is_ok_and(is_whole) {
            continue;
        }
        let reply = service.dispatch(&context, *method, &damaged, content.clone());
        // Most of it is signed, and what is not names nothing. Nothing may pass.
        if *method == PutBlock::ID {
            assert!(!matches!(reply, Reply::Response(..)), "a damaged put was taken");
        }
    }
    let keys = store.keys(&Key::first(Kind::BLOCK), 10);
    let unproven = [Kind::BLOCK, Kind::TOMBSTONE, Kind::REPRIEVE];
    assert_eq!(keys.iter().filter(|key| unproven.contains(&key.kind)).count(), 0);
    if let Some(view) = node.read_register(&register).expect("a register")
        && let Some(accepted) = view.accepted
    {
        assert_eq!(accepted, proposed, "something unsigned was accepted");
    }

    let too_many = vec![address; 2049];
    let refused = service.call_local::<HasBlocks>(&context, &too_many, Bytes::new());
    assert!(matches!(refused, Err(CallError::Remote(Refusal::Bounds(_)))), "{refused:?}");
    let far = Ballot { round: u64::MAX, ..ballot };
    let refused = service.call_local::<Prepare>(&context, &prepare(far), Bytes::new());
    assert!(matches!(refused, Err(CallError::Remote(Refusal::Bounds(_)))), "{refused:?}");
    let large = Bytes::from(vec![0; 2 << 20]);
    let request = PutBlockRequest::new(Address::of(&tag, &large), tag);
    let refused = service.call_local::<PutBlock>(&context, &request, large);
    assert!(matches!(refused, Err(CallError::Remote(Refusal::Size))), "{refused:?}");

    service
        .call_local::<PutBlock>(&context, &PutBlockRequest::new(address, tag), content.clone())
        .expect("it serves");
    assert_eq!(node.get_block(&address, None).expect("a block"), content);
}
