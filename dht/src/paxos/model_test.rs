//! The model of [`super::model`], driven twice: by random walks over many operations, and exhaustively over few.

use std::collections::{HashSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{Action, Fault, Message, Operation, Request, World};
use super::model_client::Phase;

fn seed() -> u64 {
    std::env::var("HYPHA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        now.as_micros() as u64
    })
}

/// What a walk came to.
struct Walked {
    acknowledged: usize,
    moved: usize,
    trapped: usize,
}

fn random_walk(seed: u64, fault: Fault) -> Result<Walked, String> {
    walk(seed, fault, false)
}

/// With `removal`, a writer is put out and let in again, and one member at a time is cut off for long.
fn walk(seed: u64, fault: Fault, removal: bool) -> Result<Walked, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = if removal { 3 } else { [1, 3, 3, 5][rng.random_range(0..4)] };
    let first: Vec<usize> = (0..count).collect();
    // Others that the register can be moved to: some of them, none of them, fewer, the first again.
    let sets: [&[usize]; 4] = match fault {
        // One member who knows of the next set, and whom everybody asks first.
        Fault::VotesBehind => [&[0], &[0, 1, 2], &[0], &[0, 1, 2]],
        Fault::SealsUnchosen => [&[0, 1, 2], &[0, 1, 2], &[0, 1, 2], &[0, 1, 3]],
        _ => [&first, &[1, 2, 5], &[5, 6, 7], &first],
    };
    let moves = match (removal, fault) {
        (true, Fault::NoFirstList) => 0.1,
        (true, _) => [0.0, 0.1][rng.random_range(0..2)],
        (false, _) if rng.random_bool(0.7) => 0.15,
        (false, _) => 0.0,
    };
    // One member at a time is cut off, so that it may miss a list of writers.
    let lists = if removal || rng.random_bool(0.5) { 0.3 } else { 0.0 };
    let (mut cut_off, turn, trap) = if removal { (Some(2), 0.005, 0.3) } else { (None, 0.02, 0.05) };
    let mut id = 0;
    let scripts: Vec<Vec<Operation>> = (0..rng.random_range(2..5))
        .map(|client| {
            (0..8)
                .map(|_| {
                    id += 1;
                    match rng.random::<f64>() {
                        chance if chance < moves => Operation::Move(rng.random_range(0..sets.len() as u8)),
                        chance if client == 0 && chance < moves + lists => Operation::Lists(id),
                        chance if chance < 0.45 => Operation::Read,
                        _ => Operation::Write(id),
                    }
                })
                .collect()
        })
        .collect();
    // One who may only read, beside those who do both.
    let scripts: Vec<Vec<Operation>> = scripts.into_iter().chain([vec![Operation::Read; 8]]).collect();
    let scripts: Vec<&[Operation]> = scripts.iter().map(|script| &script[..]).collect();
    let mut world = World::new(&sets, &scripts, 60);
    for _ in 0..1500 {
        let clients = world.clients.len();
        let chosen = if rng.random_bool(0.15) {
            let actions = world.actions();
            let waiting: Vec<_> = actions.into_iter().filter(|a| !matches!(a, Action::Deliver(_))).collect();
            if waiting.is_empty() { continue } else { waiting[rng.random_range(0..waiting.len())].clone() }
        } else if world.network.is_empty() {
            Action::Begin(rng.random_range(0..clients))
        } else {
            let message = world.network.iter().nth(rng.random_range(0..world.network.len())).unwrap().clone();
            if rng.random_bool(0.8) {
                world.network.remove(&message);
            }
            let (Message::Request { acceptor, .. } | Message::Answer { acceptor, .. }) = &message;
            if rng.random_bool(0.1) || cut_off == Some(*acceptor) {
                continue;
            }
            Action::Deliver(message)
        };
        if lists > 0.0 && rng.random_bool(turn) {
            cut_off = Some(rng.random_range(0..world.acceptors.len() + 1));
        }
        let acceptors = 0..world.acceptors.len();
        if lists > 0.0
            && let Some(index) = acceptors.into_iter().find(|index| world.may_trap(*index, fault).is_some())
            && rng.random_bool(trap)
        {
            world.apply(&Action::Trap(index), fault)?;
        }
        if let Action::Begin(client) = chosen {
            let client = &world.clients[client];
            if client.script.is_empty() || client.attempts_left == 0 || client.phase != Phase::Idle {
                continue;
            }
        }
        world.apply(&chosen, fault)?;
        if fault == Fault::VotesBehind {
            // Of those who are to be given the value, one is: the rest of the messages is lost.
            world.network.retain(|message| {
                !matches!(message, Message::Request { acceptor: 1.., request: Request::Accept(ballot, ..), .. }
                    if ballot.round == 0)
            });
        }
        if moves > 0.0 && rng.random_bool(0.002) {
            world.apply(&Action::Crash(rng.random_range(0..clients)), fault)?;
        }
        if matches!(fault, Fault::None | Fault::VotesForLearned) && rng.random_bool(0.01) {
            world.apply(&Action::Relearn(rng.random_range(0..world.acceptors.len())), fault)?;
        }
        if fault == Fault::ForgetfulAcceptor && rng.random_bool(0.02) {
            world.apply(&Action::Forget(0), fault)?;
        }
    }
    let epoch = world.clients.iter().map(|client| client.epoch).max();
    Ok(Walked {
        acknowledged: world.acknowledged.len(),
        moved: epoch.unwrap_or(0) as usize,
        trapped: world.traps.into(),
    })
}

/// Visits the states reachable within the scripts, shortest runs first, each message lost or delivered once (the random
/// walks repeat some). At most `states_max`, which keeps a test at seconds. Returns how many there are, or the shortest run that breaks an
/// invariant.
fn explore(start: World, fault: Fault, states_max: usize) -> Result<usize, (Vec<String>, String)> {
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([(start.clone(), None::<usize>)]);
    let mut trail: Vec<(Option<usize>, String)> = Vec::new();
    seen.insert(start);
    while let Some((world, at)) = queue.pop_front() {
        for action in world.actions() {
            let mut next = world.clone();
            if let Action::Deliver(message) = &action {
                next.network.remove(message);
            }
            let outcome = next.apply(&action, fault);
            next.tidy();
            if let Err(broken) = outcome {
                let mut steps = vec![format!("{action:?}")];
                let mut cursor = at;
                while let Some(index) = cursor {
                    steps.push(trail[index].1.clone());
                    cursor = trail[index].0;
                }
                steps.reverse();
                return Err((steps, broken));
            }
            if seen.len() < states_max && seen.insert(next.clone()) {
                trail.push((at, format!("{action:?}")));
                queue.push_back((next, Some(trail.len() - 1)));
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn random_networks_never_fork_a_register_nor_lose_a_write_nor_serve_an_old_one() {
    let first = seed();
    println!("HYPHA_SEED={first}");
    let (mut acknowledged, mut moved) = (0, 0);
    for seed in first..first.saturating_add(100) {
        let done =
            random_walk(seed, Fault::None).unwrap_or_else(|broken| panic!("HYPHA_SEED={seed}: {broken}"));
        acknowledged += done.acknowledged;
        moved += done.moved;
    }
    println!("{acknowledged} writes acknowledged, {moved} moves");
    assert!(acknowledged > 100 && moved > 50, "the walks got little done: {acknowledged}, {moved}");
}

#[test]
fn the_checker_notices_an_acceptor_that_forgets() {
    assert!((0..300).any(|seed| random_walk(seed, Fault::ForgetfulAcceptor).is_err()));
}

#[test]
fn a_writer_and_a_reader_are_safe_in_every_order() {
    use Operation::{Read, Write};
    let world = World::new(&[&[0, 1, 2]], &[&[Write(1)], &[Read]], 1);
    let states =
        explore(world, Fault::None, 40_000).unwrap_or_else(|(steps, broken)| panic!("{broken}: {steps:#?}"));
    println!("{states} states{}", if states < 40_000 { ", which are all" } else { "" });
}

#[test]
fn leaving_out_the_reads_write_back_is_found_out() {
    use Operation::{Read, Write};
    let mut world = World::new(&[&[0, 1, 2]], &[&[Write(1)], &[Read, Read]], 2);
    // The writer tries once: what breaks without the write-back is a write that is never completed.
    world.clients[0].attempts_left = 1;
    let (steps, broken) =
        explore(world, Fault::NoWriteBack, 300_000).expect_err("a read that goes back in time");
    println!("{broken} after {} steps: {steps:#?}", steps.len());
    assert!(broken.contains("acknowledged before it began"));
}

#[test]
fn leaving_out_the_seal_is_found_out() {
    let broken = (0..300).find_map(|seed| random_walk(seed, Fault::NoSeal).err());
    println!("{}", broken.expect("a move that nobody in the old epoch is told of"));
}

#[test]
fn a_seal_on_what_is_not_known_to_be_chosen_is_found_out() {
    let broken = (0..1000).find_map(|seed| random_walk(seed, Fault::SealsUnchosen).err());
    println!("{}", broken.expect("a member that can follow nobody any more"));
}

#[test]
fn a_member_that_votes_before_it_was_given_the_value_is_found_out() {
    let broken = (0..300).find_map(|seed| random_walk(seed, Fault::VotesBehind).err());
    println!("{}", broken.expect("an epoch that begins with nothing"));
}

/// Counted as two members', it made the owner leave out what the third, who had not answered, had accepted too.
const A_PROMISE_COMES_TWICE: u64 = 1_795_853_040_065_317;

#[test]
fn who_was_put_out_undoes_nothing_through_members_that_were_cut_off() {
    let first = seed();
    println!("HYPHA_SEED={first}");
    // In which walks a trap can be laid is chance: in some of these it can.
    let mut trapped = 0;
    for seed in (0..60).chain([A_PROMISE_COMES_TWICE]).chain(first..first.saturating_add(30)) {
        let done =
            walk(seed, Fault::None, true).unwrap_or_else(|broken| panic!("HYPHA_SEED={seed}: {broken}"));
        trapped += done.trapped;
    }
    println!("{trapped} traps");
    assert!(trapped > 0, "no trap was laid");
}

#[test]
fn not_heeding_that_a_list_is_in_force_is_found_out() {
    let broken = (0..1000).find_map(|seed| Some((seed, walk(seed, Fault::NoForce, true).err()?)));
    println!("{:?}", broken.expect("a member that missed a removal undoes what was written since"));
}

#[test]
fn not_heeding_which_list_an_epoch_began_with_is_found_out() {
    let broken = (0..1000).find_map(|seed| Some((seed, walk(seed, Fault::NoFirstList, true).err()?)));
    println!("{:?}", broken.expect("a new member undoes what was written since the move"));
}

#[test]
fn a_vote_for_what_was_only_learned_is_found_out() {
    let broken = (500..1500).find_map(|seed| Some((seed, random_walk(seed, Fault::VotesForLearned).err()?)));
    let (seed, broken) = broken.expect("a member that breaks what it promised before it lost its disk");
    println!("{seed}: {broken}");
    assert!(random_walk(seed, Fault::None).is_ok(), "it was that, and nothing else");
}

#[test]
fn two_movers_and_a_writer_meet_in_many_orders() {
    use Operation::{Move, Write};
    let scripts: [&[Operation]; 3] = [&[Write(1)], &[Move(1)], &[Move(2)]];
    let world = World::new(&[&[0], &[1], &[2]], &scripts, 2);
    let states =
        explore(world, Fault::None, 30_000).unwrap_or_else(|(steps, broken)| panic!("{broken}: {steps:#?}"));
    println!("{states} states{}", if states < 30_000 { ", which are all" } else { "" });
}
