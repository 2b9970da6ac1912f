//! A server whose process can have no more coroutines turns clients away with 503, and goes on.
//!
//! In a file, and so a process, of its own, since the limit that it sets itself holds for all of it.

mod http_support;

use std::time::Duration;

use http_support::{start, statuses, talk};
use reactor::http::{Method, Server};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Address space: room for some thousand coroutines.
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;

#[test]
fn at_the_limit_of_coroutines_a_client_is_told_503_and_nobody_panics() {
    let limit = Rlimit { current: Some(ADDRESS_SPACE_BYTES), maximum: Some(ADDRESS_SPACE_BYTES) };
    setrlimit(Resource::As, limit).unwrap();
    reactor::run(|| {
        let (_server, address) = start(Server::new().route(Method::GET, "/", |_| "hello"));
        let mut parked = Vec::new();
        while let Ok(handle) = reactor::Builder::new().spawn(|| reactor::sleep(Duration::from_secs(3600))) {
            parked.push(handle);
        }
        let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        assert_eq!(statuses(&talk(address, "")), [503]);
        parked.drain(..).for_each(|handle| handle.terminate());
        while reactor::Builder::new().spawn(|| ()).is_err() {
            reactor::sleep(Duration::from_millis(1));
        }
        assert_eq!(statuses(&talk(address, request)), [200]);
    });
}
