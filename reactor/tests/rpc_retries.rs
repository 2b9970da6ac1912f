//! Calls that are tried again, copied and spread over peers, in simulated time: what may have been done is not done twice
//! unless it may be, what fails is not asked much more than it was, the first answer wins and the others' peers are told.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::rpc::{
    Balanced, CallContext, CallError, CallInfo, CallOptions, Config, Connection, HedgePolicy, Never, Reply,
    ReplyMetadata, RetryPolicy, Retrying, Service, StreamSender, pair,
};
use reactor::sim::{self, SimConfig};

const MS: Duration = Duration::from_millis(1);

reactor::service! {
    trait Work = "work" version 1, client WorkClient {
        /// Counts, and says who did.
        fn add(&self) -> Result<u32, Never> = 1 as Add;
        /// Looks, which may be done twice.
        fn look(&self) -> Result<u32, String> = 2 as Look, idempotent;
        /// Says who answers until nobody listens.
        fn watch(&self, numbers: StreamSender<u32>) -> Result<(), Never> = 3 as Watch;
    }
}

/// A peer that is as it is told to be.
#[derive(Default)]
struct Peer {
    number: u32,
    /// How long it works at each call.
    slow: Cell<Duration>,
    /// So many calls find it with too much in hand.
    busy: Cell<u32>,
    refuses: Cell<bool>,
    asked: Cell<u32>,
    done: Cell<u32>,
    /// Calls that it has ended because they were called off, and when the last one was.
    called_off: Cell<u32>,
    called_off_at: Cell<Option<Instant>>,
}

/// Counts a call that ends before it is done.
struct Unless<'a>(&'a Peer, bool);

impl Drop for Unless<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.called_off.set(self.0.called_off.get() + 1);
            self.0.called_off_at.set(Some(reactor::now()));
        }
    }
}

impl Peer {
    fn work(&self, call: &CallContext) -> u32 {
        let mut done = Unless(self, false);
        reactor::sleep(self.slow.get());
        call.answer_with("peer", self.number.to_string()).unwrap();
        self.done.set(self.done.get() + 1);
        done.1 = true;
        self.number
    }
}

impl Work for Peer {
    fn add(&self, call: &CallContext) -> Result<u32, Never> {
        Ok(self.work(call))
    }
    fn look(&self, call: &CallContext) -> Result<u32, String> {
        let number = self.work(call);
        if self.refuses.get() { Err(format!("{number} refuses")) } else { Ok(number) }
    }
    fn watch(&self, _: &CallContext, numbers: StreamSender<u32>) -> Result<(), Never> {
        while numbers.send(&self.number).is_ok() {
            reactor::sleep(MS);
        }
        Ok(())
    }
}

struct Cluster {
    peers: Vec<Rc<Peer>>,
    near: Vec<Connection>,
    far: Vec<Connection>,
}

fn cluster(count: u32) -> Cluster {
    let mut cluster = Cluster { peers: Vec::new(), near: Vec::new(), far: Vec::new() };
    for number in 0..count {
        let peer = Rc::new(Peer { number, slow: Cell::new(MS), ..Peer::default() });
        let mut service = Service::new();
        peer.clone().serve_on(&mut service);
        let guard = peer.clone();
        service.around(move |_: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| {
            guard.asked.set(guard.asked.get() + 1);
            match guard.busy.get() {
                0 => next(),
                left => {
                    guard.busy.set(left - 1);
                    Reply::Overloaded
                }
            }
        });
        let (near, far) = pair(Service::none(), Rc::new(service));
        cluster.peers.push(peer);
        cluster.near.push(near);
        cluster.far.push(far);
    }
    cluster
}

impl Cluster {
    /// A client of all peers.
    fn client(&self, policy: RetryPolicy) -> WorkClient<Retrying<Balanced<Connection>>> {
        WorkClient::new(Retrying::new(Balanced::new(self.near.clone()), policy))
    }

    fn sum(&self, of: impl Fn(&Peer) -> u32) -> u32 {
        self.peers.iter().map(|peer| of(peer)).sum()
    }
}

/// Runs `story` with some seeds, each of which is named when it fails.
fn simulated(story: impl Fn() + Send + Sync) {
    for seed in 0..10 {
        println!("seed {seed}");
        sim::run(seed, SimConfig::default(), |_| story());
    }
}

#[test]
fn what_was_not_done_is_asked_again_and_what_may_have_been_is_not() {
    simulated(|| {
        let cluster = cluster(1);
        let (peer, client) = (&cluster.peers[0], cluster.client(RetryPolicy::default()));
        peer.busy.set(2);
        assert_eq!(client.add(), Ok(0));
        assert_eq!((peer.asked.get(), peer.done.get()), (3, 1));
        peer.busy.set(3);
        assert_eq!(client.add(), Err(CallError::Overloaded), "three tries are all");
        // Not answered in time: perhaps it was done.
        peer.slow.set(60 * MS);
        peer.asked.set(0);
        let policy = RetryPolicy { try_time: Some(50 * MS), ..RetryPolicy::default() };
        let hasty = cluster.client(policy);
        assert_eq!(hasty.add(), Err(CallError::TimedOut));
        assert_eq!(peer.asked.get(), 1);
        assert_eq!(hasty.look(), Err(CallError::TimedOut));
        assert_eq!(peer.asked.get(), 1 + 3, "it may be done twice");
        // What the method itself says is an answer.
        peer.slow.set(MS);
        peer.refuses.set(true);
        assert_eq!(hasty.look(), Err(CallError::Remote("0 refuses".to_owned())));
        assert_eq!(peer.asked.get(), 1 + 3 + 1);
    });
}

#[test]
fn pauses_grow_and_no_try_begins_that_the_call_has_no_time_for() {
    simulated(|| {
        let cluster = cluster(1);
        let policy = RetryPolicy { tries_max: 9, pause_first: 100 * MS, ..RetryPolicy::default() };
        let client = cluster.client(policy);
        cluster.peers[0].busy.set(3);
        let began = reactor::now();
        assert_eq!(client.add(), Ok(0));
        let took = reactor::now() - began;
        // 100, 200 and 400 ms, each at least by half.
        assert!(took >= 350 * MS && took <= 750 * MS, "{took:?}");
        cluster.peers[0].busy.set(u32::MAX);
        let began = reactor::now();
        let result = client.with(CallOptions::timeout(1_000 * MS)).add();
        assert_eq!(
            result,
            Err(CallError::Overloaded),
            "what the last try came to, and not that time ran out"
        );
        assert!(reactor::now() - began < 1_000 * MS);
    });
}

#[test]
fn where_everything_fails_peers_are_asked_a_tenth_more_and_no_more() {
    simulated(|| {
        let cluster = cluster(3);
        let client = cluster.client(RetryPolicy::default());
        cluster.peers.iter().for_each(|peer| peer.busy.set(u32::MAX));
        for _ in 0..500 {
            assert_eq!(client.look(), Err(CallError::Overloaded));
        }
        let asked = cluster.sum(|peer| peer.asked.get());
        assert!((550..=560).contains(&asked), "{asked} for 500 calls");
    });
}

#[test]
fn the_first_answer_wins_and_the_slow_peer_is_told_that_nobody_waits() {
    simulated(|| {
        let cluster = cluster(2);
        cluster.peers[0].slow.set(10_000 * MS);
        let policy = RetryPolicy { extra_reserve: 100, ..RetryPolicy::default() }.hedged(50 * MS, 2);
        let client = cluster.client(policy);
        for _ in 0..10 {
            let (began, heard) = (reactor::now(), ReplyMetadata::new());
            let options = CallOptions::default().hear(&heard);
            assert_eq!(client.with(options).look(), Ok(1));
            assert_eq!(heard.get().get_text("peer"), Some("1"), "what the winner says beside");
            let took = reactor::now() - began;
            assert!(took < 55 * MS, "{took:?}");
        }
        // Whoever was called off has ended its work by now, and has not done it.
        reactor::sleep(5 * MS);
        let slow = &cluster.peers[0];
        assert_eq!((slow.done.get(), slow.called_off.get()), (0, slow.asked.get()));
        assert!(slow.asked.get() > 0 && slow.called_off_at.get().is_some());
        assert_eq!(cluster.near[0].calls_in_flight(), (0, 0));
        assert_eq!(cluster.far[0].calls_in_flight(), (0, 0));
    });
}

#[test]
fn what_may_not_be_done_twice_is_never_copied_and_quick_answers_cost_no_copy() {
    simulated(|| {
        let cluster = cluster(3);
        let policy = RetryPolicy::default().hedged(50 * MS, 3);
        let client = cluster.client(policy);
        for _ in 0..20 {
            client.look().unwrap();
        }
        assert_eq!(cluster.sum(|peer| peer.asked.get()), 20, "all were quick");
        cluster.peers.iter().for_each(|peer| peer.slow.set(1_000 * MS));
        client.add().unwrap();
        assert_eq!(cluster.sum(|peer| peer.done.get()), 21);
        assert_eq!(cluster.sum(|peer| peer.called_off.get()), 0);
        // Copies of one call go to one peer each.
        client.look().unwrap();
        assert!(cluster.peers.iter().all(|peer| peer.asked.get() > 0));
        reactor::sleep(5 * MS);
        assert_eq!(cluster.sum(|peer| peer.called_off.get()), 2);
    });
}

#[test]
fn a_copy_that_fails_is_followed_at_once_and_copies_are_paid_for_as_tries_are() {
    simulated(|| {
        let cluster = cluster(2);
        let hedge = Some(HedgePolicy { after: 1_000 * MS, copies_max: 2 });
        let policy = RetryPolicy { hedge, extra_reserve: 1, extra_percent: 0, ..RetryPolicy::default() };
        let client = cluster.client(policy);
        cluster.peers.iter().for_each(|peer| peer.busy.set(1));
        cluster.peers[1].busy.set(0);
        let mut took = Vec::new();
        // One of two calls at the most goes to the busy one first.
        while cluster.peers[0].asked.get() == 0 {
            let began = reactor::now();
            assert_eq!(client.look(), Ok(1));
            took.push(reactor::now() - began);
        }
        assert!(took.iter().all(|took| *took < 10 * MS), "{took:?}");
        // The budget is spent.
        cluster.peers.iter().for_each(|peer| peer.busy.set(u32::MAX));
        let asked = cluster.sum(|peer| peer.asked.get());
        assert_eq!(client.look(), Err(CallError::Overloaded));
        assert_eq!(cluster.sum(|peer| peer.asked.get()), asked + 1);
    });
}

#[test]
fn calls_go_around_a_peer_that_fails_and_come_back_to_it() {
    simulated(|| {
        let cluster = cluster(3);
        let balanced = Balanced::new(cluster.near.clone());
        let client = WorkClient::new(balanced.clone());
        cluster.peers[0].busy.set(u32::MAX);
        let failures = (0..200).filter(|_| client.look().is_err()).count();
        // Three until it is ejected, and one each time that it is looked at again.
        assert!((3..=4).contains(&failures), "{failures} failed");
        assert!(balanced.states()[0].is_ejected && !balanced.states()[1].is_ejected);
        cluster.peers[0].busy.set(0);
        reactor::sleep(60_000 * MS);
        let done = cluster.peers[0].done.get();
        for _ in 0..100 {
            client.look().unwrap();
        }
        assert!(cluster.peers[0].done.get() - done > 10, "it is among the others again");
    });
}

#[test]
fn a_peer_with_much_in_hand_is_asked_less_and_one_that_is_gone_not_at_all() {
    simulated(|| {
        let cluster = cluster(3);
        let balanced = Balanced::new(cluster.near.clone());
        let client = WorkClient::new(balanced.clone());
        cluster.peers[0].slow.set(100 * MS);
        reactor::scope(|s| {
            for _ in 0..300 {
                s.spawn(|| client.look().unwrap());
                reactor::sleep(MS);
            }
        });
        let shares: Vec<u32> = cluster.peers.iter().map(|peer| peer.done.get()).collect();
        assert!(shares[0] * 4 < shares[1] && shares[0] * 4 < shares[2], "{shares:?}");
        // A stream counts as long as it lasts.
        let streams: Vec<_> = (0..3).map(|_| client.watch().unwrap()).collect();
        for stream in &streams {
            assert!(stream.recv().unwrap().is_some());
        }
        assert_eq!(balanced.states().iter().map(|state| state.in_flight).sum::<usize>(), 3);
        drop(streams);
        assert_eq!(balanced.states().iter().map(|state| state.in_flight).sum::<usize>(), 0);
        cluster.far[1].close();
        reactor::sleep(MS);
        assert!(!balanced.states()[1].is_ready);
        for _ in 0..50 {
            assert_ne!(client.look(), Ok(1));
        }
    });
}

#[test]
fn a_caller_that_gives_up_ends_all_copies() {
    simulated(|| {
        let cluster = cluster(3);
        cluster.peers.iter().for_each(|peer| peer.slow.set(10_000 * MS));
        let client = cluster.client(RetryPolicy::default().hedged(10 * MS, 3));
        assert!(reactor::timeout(100 * MS, || client.look()).is_err());
        reactor::sleep(5 * MS);
        assert_eq!(cluster.sum(|peer| peer.called_off.get()), 3);
        // The call's own time, too, however many copies there are.
        let began = reactor::now();
        assert_eq!(client.with(CallOptions::timeout(100 * MS)).look(), Err(CallError::TimedOut));
        assert!(reactor::now() - began <= 101 * MS);
    });
}

#[test]
fn streams_tell_of_their_peers_as_calls_do() {
    simulated(|| {
        let cluster = cluster(2);
        let balanced = Balanced::new(cluster.near.clone());
        let client = WorkClient::new(balanced.clone());
        cluster.peers[0].busy.set(u32::MAX);
        let failures = (0..100).filter(|_| client.watch().unwrap().finish().is_err()).count();
        assert!((3..=4).contains(&failures), "{failures} failed");
        // It is looked at with one stream, and comes back when that has brought an item, not when it ends.
        cluster.peers[0].busy.set(0);
        reactor::sleep(60_000 * MS);
        let streams: Vec<_> = (0..20).map(|_| client.watch().unwrap()).collect();
        assert_eq!(balanced.states()[0].in_flight, 1);
        streams.iter().for_each(|stream| assert!(stream.recv().unwrap().is_some()));
        let more: Vec<_> = (0..20).map(|_| client.watch().unwrap()).collect();
        assert!(balanced.states()[0].in_flight > 10, "{:?}", balanced.states());
        drop((streams, more));
        assert_eq!(balanced.states().iter().map(|state| state.in_flight).sum::<usize>(), 0);
    });
}

#[test]
fn a_peer_that_swallows_calls_is_left_out_though_copies_are_answered() {
    simulated(|| {
        let cluster = cluster(2);
        cluster.peers[0].slow.set(10_000 * MS);
        let policy = RetryPolicy { extra_reserve: 100, ..RetryPolicy::default() }.hedged(50 * MS, 2);
        let client = cluster.client(policy);
        for _ in 0..100 {
            assert_eq!(client.look(), Ok(1));
        }
        let asked = cluster.peers[0].asked.get();
        assert!((1..=4).contains(&asked), "{asked} of 100 calls went there");
    });
}

#[test]
fn an_opening_that_was_sent_is_not_repeated_whatever_an_interceptor_says_behind_it() {
    for reply in [Reply::Closed, Reply::TimedOut, Reply::Cancelled, Reply::NotSent, Reply::Overloaded] {
        sim::run(1, SimConfig::default(), |_| {
            let peer = Rc::new(Peer { slow: Cell::new(MS), ..Peer::default() });
            let mut service = Service::new();
            peer.clone().serve_on(&mut service);
            let (opened, said) = (Rc::new(Cell::new(0)), reply.clone());
            let count = opened.clone();
            let config =
                Config::default().around(move |_: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| {
                    count.set(count.get() + 1);
                    next();
                    said.clone()
                });
            let (near, far) = reactor::net::pipe(1 << 16);
            let _far = Connection::start(far, Rc::new(service), Config::default());
            let near = Connection::start(near, Service::none(), config);
            let client = WorkClient::new(Retrying::new(near, RetryPolicy::default()));
            assert!(client.watch().is_err());
            assert_eq!(opened.get(), 1, "{reply:?}");
        });
    }
}
