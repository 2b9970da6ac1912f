//! The HTTP server and client, the production code, in the simulator: the same test body that runs on loopback, and a
//! network that loses packets and a server that is killed, the same way each time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use reactor::http::client::Client;
use reactor::http::{Method, Response, Server};
use reactor::net::TcpListener;
use reactor::sim::{self, Latency, Link, SimConfig, World};
use reactor::{sleep, spawn, timeout};

fn server() -> Server {
    Server::new()
        .route(Method::GET, "/hello/{name}", |request| -> Response {
            format!("hello, {}", request.param("name").unwrap_or_default()).into()
        })
        .route(Method::POST, "/length", |request| -> std::io::Result<Response> {
            Ok(request.read_body(1 << 20)?.len().to_string().into())
        })
}

/// The body that both worlds run.
fn requests_are_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = server().start(listener);
    let client = Client::new();
    reactor::scope(|s| {
        for n in 0..10usize {
            let client = &client;
            s.spawn(move || {
                let answer = client.get(&format!("http://{address}/hello/{n}")).send().unwrap();
                assert_eq!(answer.text(1000).unwrap(), format!("hello, {n}"));
                let answer =
                    client.post(&format!("http://{address}/length")).body(vec![0; n * 10_000]).send();
                assert_eq!(answer.unwrap().text(1000).unwrap(), (n * 10_000).to_string());
            });
        }
    });
    let missing = client.get(&format!("http://{address}/nothing")).send().unwrap();
    assert_eq!(missing.status().as_u16(), 404);
    server.drain(Duration::from_secs(1));
}

#[reactor::test]
fn requests_are_answered_on_loopback() {
    requests_are_answered();
}

#[reactor::test(seeds = 0..20)]
fn requests_are_answered_in_the_simulator() {
    requests_are_answered();
}

fn a_server_that_is_killed_now_and_then(world: &World) -> (u64, u32) {
    world.link_all(
        Link::new(Latency::Uniform(Duration::from_millis(1), Duration::from_millis(20))).with_loss(0.03),
    );
    let host = world.host("server");
    let start = {
        let host = host.clone();
        move || {
            host.start(|| {
                let _server = server().start(TcpListener::bind("0.0.0.0:80").unwrap());
                sleep(Duration::from_secs(1_000_000));
            });
        }
    };
    start();
    let answered = Rc::new(Cell::new(0));
    let counted = answered.clone();
    world.host("client").start(move || {
        let client = Rc::new(Client::new());
        for _ in 0..3 {
            let (client, counted) = (client.clone(), counted.clone());
            spawn(move || {
                loop {
                    let answer =
                        timeout(Duration::from_secs(3), || client.get("http://server/hello/you").send());
                    if let Ok(Ok(answer)) = answer
                        && let Ok(text) = answer.text(1000)
                    {
                        assert_eq!(text, "hello, you");
                        counted.set(counted.get() + 1);
                    }
                    sleep(Duration::from_millis(reactor::random::below(100)));
                }
            });
        }
        sleep(Duration::from_secs(1_000_000));
    });
    for _ in 0..3 {
        sleep(Duration::from_millis(u64::from(world.choose(5000))));
        host.kill();
        sleep(Duration::from_millis(u64::from(world.choose(2000))));
        start();
    }
    sleep(Duration::from_secs(5));
    (world.trace_hash(), answered.get())
}

#[test]
fn a_client_lives_through_a_server_that_is_killed_the_same_way_each_time() {
    let run = |seed| sim::run(seed, SimConfig::default(), a_server_that_is_killed_now_and_then);
    let first = run(1);
    assert!(first.1 > 50, "{} answers", first.1);
    assert_eq!(run(1), first);
    assert_ne!(run(2).0, first.0);
}
