//! A server shows what its coroutines are doing, stacks included, to whoever asks for the page that it was given for that; and
//! goes on with its work meanwhile.

mod http_support;

use std::time::Duration;

use http_support::{body, get, start, statuses, talk};
use reactor::http::{Method, Server, dump_page};
use reactor::{Builder, scope, sleep, spawn, yield_now};

#[inline(never)]
fn nap_at_the_desk() {
    sleep(Duration::from_secs(3600));
    std::hint::black_box(());
}

#[reactor::test]
fn the_page_names_each_coroutine_with_what_it_waits_for_and_where() {
    let napper = Builder::new().name("the napper").spawn(nap_at_the_desk).unwrap();
    let (_server, address) = start(Server::new().route(Method::GET, "/coroutines", dump_page));
    let answer = get(address, "/coroutines", "");
    assert_eq!(statuses(&answer), [200], "{answer}");
    assert!(answer.contains("Cache-Control: no-store"), "{answer}");
    let page = body(&answer);
    let line = page.lines().find(|line| line.contains("the napper"));
    assert!(line.is_some_and(|line| line.contains("waits for a time")), "{page}");
    assert!(page.contains("nap_at_the_desk"), "{page}");
    drop(napper);
}

#[reactor::test]
fn only_one_is_told_at_a_time_and_others_are_served_meanwhile() {
    let server = Server::new().route(Method::GET, "/coroutines", dump_page);
    let (_server, address) = start(server.route(Method::GET, "/", |_| "served"));
    let asking: Vec<_> = (0..8).map(|_| spawn(move || get(address, "/coroutines", ""))).collect();
    scope(|s| {
        s.spawn(|| assert!(get(address, "/", "").contains("served")));
        yield_now();
    });
    let mut told: Vec<u16> = asking.iter().flat_map(|asks| statuses(&asks.join().unwrap())).collect();
    told.sort_unstable();
    assert_eq!(told.len(), 8);
    assert!(told[0] == 200 && told.iter().all(|status| [200, 503].contains(status)), "{told:?}");
    // Nobody is left being told.
    assert_eq!(statuses(&get(address, "/coroutines", "")), [200]);
}

#[reactor::test]
fn a_browser_that_was_led_here_under_somebodys_name_is_shown_nothing() {
    let (_server, address) = start(Server::new().route(Method::GET, "/coroutines", dump_page));
    let ask = |host: &str| {
        talk(address, format!("GET /coroutines HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    let answer = ask(&format!("evil.example:{}", address.port()));
    assert_eq!(statuses(&answer), [421]);
    assert!(!body(&answer).contains("waits for"), "{answer}");
    assert_eq!(statuses(&ask(&format!("localhost:{}", address.port()))), [200]);
}
