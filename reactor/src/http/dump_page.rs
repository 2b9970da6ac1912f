//! What all coroutines are doing, as a page: what [`crate::dump_on_signal`] writes to the log, for whoever may look.

use std::cell::Cell;

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
pub fn dump_page(_request: &mut Request<'_>) -> Response {
    if TELLING.replace(true) {
        return Response::of_status(StatusCode::SERVICE_UNAVAILABLE).header("Retry-After", "1");
    }
    let _telling = Telling;
    let mut text = dump::report().join("\n\n");
    text.push('\n');
    Response::bytes(text).content_type("text/plain; charset=utf-8").header("Cache-Control", "no-store")
}
