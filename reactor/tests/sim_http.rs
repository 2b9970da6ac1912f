//! The HTTP client and server, and the dialling beneath, in simulated worlds: callers give up at random points over a
//! network that loses packets, and whoever gets an answer gets the one to his own question.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::http::client::{Client, PoolLimits, Timeouts};
use reactor::http::{Method, Request, Response, Server};
use reactor::net::{ATTEMPT_DELAY, TcpListener, TcpStream};
use reactor::sim::{self, Host, Latency, Link, SimConfig, World};
use reactor::{now, random, sleep, spawn};

const MS: Duration = Duration::from_millis(1);

/// What the page of a number says: some are longer than a packet, some than the window.
fn page(number: u64) -> String {
    format!("page {number};").repeat(1 + (number * number % 4000) as usize)
}

fn serve(host: &Host) {
    host.start(|| {
        let listener = TcpListener::bind("0.0.0.0:80").unwrap();
        let answer = |request: &mut Request<'_>| -> Response {
            let number = request.param("number").unwrap_or_default().parse().unwrap();
            // Some answers take their time, so that a caller can be gone before they come.
            sleep(MS * random::below(40) as u32);
            page(number).into()
        };
        Server::new().route(Method::GET, "/{number}", answer).serve(listener).unwrap();
    });
}

/// Callers who share a client, and of whom many do not wait to the end. How many answers they got.
fn callers(world: &World) -> usize {
    world.link_all(Link::new(Latency::Uniform(MS, 20 * MS)).with_loss(0.02));
    let (near, far) = (world.host("near"), world.host("far"));
    serve(&far);
    let answered = Rc::new(Cell::new(0));
    let count = answered.clone();
    let calls = near.start(move || {
        let pool = PoolLimits { idle_per_server: 3, idle_age: 200 * MS, ..PoolLimits::default() };
        let client = Client::builder().pool(pool).timeouts(Timeouts::default()).build();
        let calls: Vec<_> = (0..12)
            .map(|_| {
                let (client, count) = (client.clone(), count.clone());
                spawn(move || {
                    for _ in 0..10 {
                        let number = random::below(1000);
                        let call = || {
                            let response = client.get(&format!("http://far/{number}")).send().unwrap();
                            response.text(1 << 20).unwrap()
                        };
                        if let Ok(text) = reactor::timeout(MS * (1 + random::below(400) as u32), call) {
                            assert!(text == page(number), "an answer to another question: {}", &text[..20]);
                            count.set(count.get() + 1);
                        }
                        sleep(MS * random::below(300) as u32);
                    }
                })
            })
            .collect();
        // Some are terminated wherever they happen to be.
        sleep(MS * 500);
        for call in calls.iter().step_by(4) {
            call.terminate();
        }
        for call in calls {
            let _ = call.join();
        }
    });
    calls.wait();
    answered.get()
}

#[test]
fn callers_who_give_up_at_any_point_never_leave_their_answers_to_others() {
    let seed: u64 = std::env::var("HYPHA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("HYPHA_SEED={seed}");
    for seed in seed..seed + 12 {
        let answered = sim::run(seed, SimConfig::default(), callers);
        assert!(answered >= 20, "seed {seed}: {answered} of 120 had an answer");
    }
}

#[test]
fn the_same_seed_gives_the_same_calls_event_by_event() {
    let run = |seed| {
        sim::run(seed, SimConfig::default(), |world| {
            let answered = callers(world);
            (answered, world.trace_hash(), world.elapsed())
        })
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).1, run(8).1);
}

#[test]
fn a_dead_address_costs_one_attempt_delay_and_not_a_moment_more() {
    sim::run(1, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        let (near, alive, dead) = (world.host("near"), world.host("alive"), world.host("dead"));
        world.partition(&near, &dead);
        let at = |host: &Host| SocketAddr::new(host.address(), 80);
        let (alive_at, dead_at) = (at(&alive), at(&dead));
        alive.start(|| {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            loop {
                listener.accept().unwrap();
            }
        });
        let dialling = near.start(move || {
            let begun = now();
            let stream = TcpStream::connect(vec![dead_at, dead_at, alive_at]).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), alive_at);
            assert_eq!(now() - begun, 2 * ATTEMPT_DELAY + 20 * MS);
            // Refused at once, it costs its round trip and no delay.
            let begun = now();
            let refused = SocketAddr::new(alive_at.ip(), 81);
            TcpStream::connect(vec![refused, alive_at]).unwrap();
            assert_eq!(now() - begun, 40 * MS);
        });
        dialling.wait();
    });
}

#[test]
fn a_world_with_many_idle_connections_comes_back_from_its_seed() {
    let run = || {
        sim::run(7, SimConfig::default(), |world| {
            world.link_all(Link::new(Latency::Uniform(MS, 20 * MS)));
            let near = world.host("near");
            let names: Vec<String> = (0..6).map(|number| format!("far{number}")).collect();
            names.iter().for_each(|name| serve(&world.host(name)));
            let calls = near.start(move || {
                let client = Client::builder().pool(PoolLimits::default()).build();
                for name in &names {
                    let response = client.get(&format!("http://{name}/1")).send().unwrap();
                    assert_eq!(response.text(1 << 20).unwrap(), page(1));
                }
                // Closes what is idle, all at one instant.
                drop(client);
                sleep(MS * 100);
            });
            calls.wait();
            world.trace_hash()
        })
    };
    let first = run();
    for _ in 0..10 {
        assert_eq!(run(), first, "something decides that is no part of the world");
    }
}
