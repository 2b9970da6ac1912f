//! A server whose process can have no more coroutines turns clients away with 503, and goes on.
//!
//! In a file, and so a process, of its own: other tests could not spawn meanwhile.

mod http_support;

use std::time::Duration;

use http_support::{start, statuses, talk};
use reactor::http::{Method, Server};

#[test]
fn at_the_limit_of_coroutines_a_client_is_told_503_and_nobody_panics() {
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
