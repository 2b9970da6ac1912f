//! What a handler is given.

use std::borrow::Cow;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::rc::Rc;

use http::Method;
use percent_encoding::percent_decode_str;

use super::server::{Farewell, Params, RequestBody};
use super::{BodyError, Headers, RequestHead};
use crate::net::Draining;

/// A request: its head, which is all there, and its body, which is still coming.
pub struct Request<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) params: Params<'a>,
    pub(super) body: RequestBody<'a>,
    pub(super) id: Option<Rc<str>>,
}

impl<'a> Request<'a> {
    /// The method.
    pub fn method(&self) -> &'a Method {
        self.head.method()
    }

    /// The path as it was sent, percent-encoded, without the query.
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// What follows the `?`, as it was sent.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The first value of `name` in the query, decoded; `None` if there is none, or it is not UTF-8.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        let decode = |text: &'a str| -> Option<Cow<'a, str>> {
            if !text.contains(['%', '+']) {
                return Some(text.into());
            }
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned().into())
        };
        self.query()?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key)? == name).then(|| decode(value)).flatten()
        })
    }

    /// The value of `{name}` in the route's pattern, decoded; `None` if there is none, or it is not UTF-8.
    ///
    /// It may hold anything once decoded, slashes and dots among them: it is no file name.
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        percent_decode_str(self.raw_param(name)?).decode_utf8().ok()
    }

    /// The value of `{name}` in the route's pattern, as it was sent.
    pub fn raw_param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The header fields.
    pub fn headers(&self) -> &'a Headers {
        self.head.headers()
    }

    /// The first value of a header, where it is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.headers().get_str(name)
    }

    /// All that the head says.
    pub fn head(&self) -> &'a RequestHead {
        self.head
    }

    /// Who sent it, where the transport knows; behind a proxy that is the proxy.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.body.peer()
    }

    /// The name that the layer [`super::request_id()`] has given it; `None` without.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Tells when the server drains: it takes no more clients, and ends after a while whoever is still being answered. A
    /// handler that answers at length, or never ends by itself (events, a stream), looks at it, or selects on it, and
    /// comes to its end then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use reactor::http::{Event, Method, Server, events};
    ///
    /// let server = Server::new().route(Method::GET, "/ticks", |request| {
    ///     let draining = request.draining();
    ///     events(move |out| {
    ///         // Until a second has passed or the server drains, whichever comes first.
    ///         while reactor::select(&[&draining, &reactor::after(Duration::from_secs(1))]) == 1 {
    ///             out.send(&Event::new("tick"))?;
    ///         }
    ///         Ok(())
    ///     })
    /// });
    /// ```
    pub fn draining(&self) -> Draining {
        self.body.draining()
    }

    pub(super) fn farewell(&self) -> Farewell {
        self.body.farewell()
    }

    /// The body, to be read as it comes.
    pub fn body(&mut self) -> &mut RequestBody<'a> {
        &mut self.body
    }

    /// The whole body, of `limit_bytes` at the most.
    ///
    /// # Errors
    ///
    /// When it is larger, malformed or breaks off. Returned by the handler, these become 413, 400 or 408.
    ///
    /// # Suspends
    ///
    /// Until all of it is there.
    pub fn read_body(&mut self, limit_bytes: usize) -> io::Result<Vec<u8>> {
        let announced = self.body.remaining();
        if announced.is_some_and(|length| length > limit_bytes as u64) {
            return Err(BodyError::TooLarge.into());
        }
        let mut bytes = Vec::new();
        self.body.by_ref().take(limit_bytes as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit_bytes {
            return Err(BodyError::TooLarge.into());
        }
        Ok(bytes)
    }

    /// An empty buffer whose memory an earlier response of this connection used, to build a body in; given to
    /// [`super::Response::json`] or the like it is used again. So a busy connection allocates nothing.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.body.take_spare()
    }
}
