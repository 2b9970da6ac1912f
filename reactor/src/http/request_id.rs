//! A name for each request, so that what several logs tell of it can be found again.

use std::rc::Rc;

use super::server::Next;
use super::{Request, Response};

/// The header that carries it, in both directions.
pub const REQUEST_ID: &str = "X-Request-Id";

/// The longest id that is taken from a client: those in use (UUIDs, trace ids) have 36 or fewer.
const ID_LEN_MAX: usize = 64;

/// A layer that gives each request an id, which [`Request::id`] tells from then on, inside of it, and the answer carries.
///
/// An id that came with the request is kept, if it is of 1 to 64 letters, digits, `-`, `_` and `.`: whoever asked, or a
/// proxy, logs it too. So it names a request, and proves nothing. What is logged inside is in a span `request` with it.
///
/// # Examples
///
/// ```
/// use reactor::http::{Method, Server, request_id};
/// let server = Server::new().layer(request_id).route(Method::GET, "/", |request| request.id().unwrap_or("-").to_owned());
/// ```
pub fn request_id(request: &mut Request<'_>, next: Next<'_>) -> Response {
    let id: Rc<str> = match request.header(REQUEST_ID) {
        Some(id) if is_fit(id) => id.into(),
        _ => format!("{:016x}", crate::random::number()).into(),
    };
    request.id = Some(id.clone());
    let span = tracing::info_span!("request", id = &*id);
    let response = span.in_scope(|| next.run(request));
    response.header(REQUEST_ID, id.as_bytes())
}

fn is_fit(id: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=ID_LEN_MAX).contains(&id.len()) && id.bytes().all(is_fit)
}
