//! What all coroutines are doing, as a page: what [`crate::dump_on_signal`] writes to the log, for whoever may look.

use std::cell::Cell;
use std::net::IpAddr;

use http::StatusCode;

use super::{Request, Response};
use crate::dump;

thread_local! {
    /// Somebody is being told.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

struct Telling;

impl Drop for Telling {
    fn drop(&mut self) {
        TELLING.set(false);
    }
}

/// A handler that answers with what all coroutines of the server's reactor are doing, and with their stacks: text, what
/// SIGUSR2 writes to the log where [`crate::dump_on_signal`] was called.
///
/// It tells a program's inside, and each coroutine is resumed for some tens of microseconds: not for strangers. Give it a
/// server of its own that listens at 127.0.0.1, or a layer that asks who it is. Only one is told at a time; others are
/// answered with 503 meanwhile.
///
/// Whoever asks from this machine has to ask by an address, or for `localhost`; else 421 is the answer. A page of anybody's
/// may lead a browser on this machine to 127.0.0.1 under a name of its own (DNS rebinding), and read what comes.
///
/// # Suspends
///
/// While symbols are read from the program's file, on another thread.
///
/// # Examples
///
/// ```no_run
/// use reactor::http::{Method, Server, dump_page};
/// use reactor::net::TcpListener;
///
/// reactor::run(|| {
///     let inside = Server::new().route(Method::GET, "/coroutines", dump_page);
///     let _inside = inside.start(TcpListener::bind("127.0.0.1:9000")?);
///     // ... what the program does.
///     Ok::<_, std::io::Error>(())
/// });
/// ```
pub fn dump_page(request: &mut Request<'_>) -> Response {
    let is_local = request.peer().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    if is_local && !request.header("Host").is_none_or(is_address) {
        return Response::of_status(StatusCode::MISDIRECTED_REQUEST);
    }
    if TELLING.replace(true) {
        return Response::of_status(StatusCode::SERVICE_UNAVAILABLE).header("Retry-After", "1");
    }
    let _telling = Telling;
    let mut text = dump::report().join("\n\n");
    text.push('\n');
    Response::bytes(text).content_type("text/plain; charset=utf-8").header("Cache-Control", "no-store")
}

/// Whether a `Host` is this machine's by itself, whatever names are made to lead to.
fn is_address(host: &str) -> bool {
    let end = host.rfind(':').filter(|at| host[at + 1..].bytes().all(|byte| byte.is_ascii_digit()));
    let name = &host[..end.unwrap_or(host.len())];
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_cannot_be_led_here_by_anybody() {
        for host in ["127.0.0.1", "127.0.0.1:9000", "[::1]:9000", "[::1]", "localhost", "LocalHost:80"] {
            assert!(is_address(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9000", "127.0.0.1.evil.example:9000", "localhost.evil.example"]
        {
            assert!(!is_address(host), "{host}");
        }
    }
}
