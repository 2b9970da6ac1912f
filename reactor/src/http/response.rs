//! What a handler answers.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use http::StatusCode;

use super::headers::is_value;
use super::server::{BodyWriter, RequestBody, Upgraded};
use super::{BodyError, Headers, InvalidHeader, MultipartError, Refusal};

/// What a response consists of besides its head.
pub(super) enum Body {
    Empty,
    Static(&'static [u8]),
    Owned(Vec<u8>),
    Shared(Bytes),
    Stream { length: Option<u64>, reads_request: bool, write: Box<Stream> },
    Upgrade(Box<dyn FnOnce(Upgraded<'_>)>),
}

pub(super) type Stream = dyn FnOnce(&mut RequestBody<'_>, &mut BodyWriter<'_>) -> io::Result<()>;

/// A response, made by a handler and sent by the server.
///
/// `Content-Length`, `Transfer-Encoding`, `Date` and `Connection` are the server's business. Text, bytes, a status,
/// an `io::Error`, a [`super::Refusal`] and a `Result` of two such things turn into one, so handlers may return those and
/// use `?`.
///
/// # Examples
///
/// ```
/// use reactor::http::{Response, StatusCode};
///
/// let response = Response::text("not here").status(StatusCode::NOT_FOUND).header("Cache-Control", "no-store");
/// assert_eq!(response.status_code(), StatusCode::NOT_FOUND);
/// ```
pub struct Response {
    pub(super) status: StatusCode,
    pub(super) content_type: Option<Cow<'static, str>>,
    pub(super) headers: Headers,
    pub(super) body: Body,
    /// May be sent compressed if the client likes.
    pub(super) compress: bool,
    /// The streamed body is to be compressed.
    pub(super) gzip: bool,
    pub(super) close: bool,
}

impl Body {
    /// The body where it is there as a whole.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Body::Empty => Some(&[]),
            Body::Static(bytes) => Some(bytes),
            Body::Owned(bytes) => Some(bytes),
            Body::Shared(bytes) => Some(bytes),
            Body::Stream { .. } | Body::Upgrade(_) => None,
        }
    }
}

impl Response {
    fn new(content_type: Option<&'static str>, body: Body) -> Response {
        Response {
            status: StatusCode::OK,
            content_type: content_type.map(Cow::Borrowed),
            headers: Headers::new(),
            body,
            compress: false,
            gzip: false,
            close: false,
        }
    }

    /// No body; 204 No Content.
    pub fn empty() -> Response {
        Response::new(None, Body::Empty).status(StatusCode::NO_CONTENT)
    }

    /// A constant text of UTF-8. Nothing is allocated.
    pub fn text(text: &'static str) -> Response {
        Response::new(Some("text/plain; charset=utf-8"), Body::Static(text.as_bytes()))
    }

    /// A page.
    pub fn html(page: impl Into<String>) -> Response {
        Response::new(Some("text/html; charset=utf-8"), Body::Owned(page.into().into_bytes()))
    }

    /// JSON that is written out already. Its memory goes back to the connection: see [`super::Request::buffer`].
    pub fn json(json: impl Into<Vec<u8>>) -> Response {
        Response::new(Some("application/json"), Body::Owned(json.into()))
    }

    /// A value as JSON. One that JSON can't hold (a map whose keys are no text) is a logged 500.
    pub fn json_of(value: &impl serde::Serialize) -> Response {
        match serde_json::to_vec(value) {
            Ok(json) => Response::json(json),
            Err(error) => io::Error::from(error).into(),
        }
    }

    /// Bytes of no stated type; see [`Response::content_type`].
    pub fn bytes(bytes: impl Into<Bytes>) -> Response {
        Response::new(None, Body::Shared(bytes.into()))
    }

    /// A body of any length that `write` writes piece by piece.
    ///
    /// It leaves as it is written: in chunks, or to the end of the connection for a client of HTTP/1.0. An error of
    /// `write` breaks the connection off, so that the client does not take what came for the whole; while nothing of
    /// it has left, the client is told as a handler's error would be.
    pub fn stream(write: impl FnOnce(&mut BodyWriter<'_>) -> io::Result<()> + 'static) -> Response {
        let write = Box::new(move |_: &mut RequestBody<'_>, out: &mut BodyWriter<'_>| write(out));
        Response::new(None, Body::Stream { length: None, reads_request: false, write })
    }

    /// As [`Response::stream`], where the length is known: `write` must write so much and no more.
    pub fn stream_of_length(
        length: u64,
        write: impl FnOnce(&mut BodyWriter<'_>) -> io::Result<()> + 'static,
    ) -> Response {
        let write = Box::new(move |_: &mut RequestBody<'_>, out: &mut BodyWriter<'_>| write(out));
        Response::new(None, Body::Stream { length: Some(length), reads_request: false, write })
    }

    /// As [`Response::stream`], with the request's body at hand: both flow at once, neither is held as a whole.
    pub fn exchange(
        write: impl FnOnce(&mut RequestBody<'_>, &mut BodyWriter<'_>) -> io::Result<()> + 'static,
    ) -> Response {
        Response::new(None, Body::Stream { length: None, reads_request: true, write: Box::new(write) })
    }

    /// 101 Switching Protocols: when it has been sent, `talk` has the connection, which ends with it.
    ///
    /// # Panics
    ///
    /// If `protocol` is not a header's value.
    pub fn upgrade(protocol: &str, talk: impl FnOnce(Upgraded<'_>) + 'static) -> Response {
        Response::new(None, Body::Upgrade(Box::new(talk)))
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("Connection", "Upgrade")
            .header("Upgrade", protocol)
    }

    /// 200 to a `CONNECT`: when it has been sent, `talk` has the connection, which ends with it
    /// (RFC 9110 section 9.3.6).
    pub fn tunnel(talk: impl FnOnce(Upgraded<'_>) + 'static) -> Response {
        Response::new(None, Body::Upgrade(Box::new(talk)))
    }

    /// Sends the client elsewhere with 302 Found.
    ///
    /// # Errors
    ///
    /// If `location` is not a header's value.
    pub fn redirect(location: &str) -> Result<Response, InvalidHeader> {
        Response::new(None, Body::Empty).status(StatusCode::FOUND).try_header("Location", location)
    }

    /// A status with its name as a text.
    pub fn of_status(status: StatusCode) -> Response {
        let text = status.canonical_reason().unwrap_or_default();
        if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Response::new(None, Body::Empty).status(status);
        }
        Response::text(text).status(status)
    }

    /// With another status.
    pub fn status(mut self, status: StatusCode) -> Response {
        self.status = status;
        self
    }

    /// With another content type.
    ///
    /// # Panics
    ///
    /// If it is not a header's value.
    pub fn content_type(mut self, content_type: impl Into<Cow<'static, str>>) -> Response {
        let content_type = content_type.into();
        assert!(is_value(content_type.as_bytes()), "{content_type:?} is no header's value");
        self.content_type = Some(content_type);
        self
    }

    /// With one more header field, which you know to be well-formed. `Content-Type` replaces the one there was, and
    /// `Connection: close` ends the connection as [`Response::closing`] does.
    ///
    /// # Panics
    ///
    /// On [`InvalidHeader`]: a handler that puts a client's bytes here unchecked answers 500, and injects nothing.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Response {
        self.try_header(name, value).unwrap_or_else(|error| panic!("{name:?}: {error}"))
    }

    /// With one more header field.
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`], for a value that a client may have had a hand in.
    pub fn try_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Response, InvalidHeader> {
        if name.eq_ignore_ascii_case("content-type") {
            let value = std::str::from_utf8(value.as_ref()).ok().filter(|text| is_value(text.as_bytes()));
            self.content_type = Some(Cow::Owned(value.ok_or(InvalidHeader::Value)?.to_owned()));
        } else if name.eq_ignore_ascii_case("connection") && value.as_ref().eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else {
            self.headers.push(name, value)?;
        }
        Ok(self)
    }

    /// May be sent compressed to clients that accept it.
    ///
    /// Do not say so of a page that holds both a secret and something that a stranger chose (a search term, say):
    /// the length of the compressed page would tell how much of the secret was guessed (the BREACH attack).
    pub fn compressible(mut self) -> Response {
        self.compress = true;
        self
    }

    /// The connection ends after it.
    pub fn closing(mut self) -> Response {
        self.close = true;
        self
    }

    /// The status.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The header fields that were added.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
}

impl From<StatusCode> for Response {
    fn from(status: StatusCode) -> Response {
        Response::of_status(status)
    }
}

impl From<&'static str> for Response {
    fn from(text: &'static str) -> Response {
        Response::text(text)
    }
}

impl From<String> for Response {
    fn from(text: String) -> Response {
        Response::new(Some("text/plain; charset=utf-8"), Body::Owned(text.into_bytes()))
    }
}

impl From<Vec<u8>> for Response {
    fn from(bytes: Vec<u8>) -> Response {
        Response::new(Some("application/octet-stream"), Body::Owned(bytes))
    }
}

impl From<io::Error> for Response {
    /// A fault of the request's body becomes its status, and anything else, whatever its kind, is the handler's own and a
    /// logged 500: a client that is told 408 may ask again, and 404 that there is no such thing.
    fn from(error: io::Error) -> Response {
        let inner = error.get_ref();
        if let Some(body) = inner.and_then(|inner| inner.downcast_ref::<BodyError>()) {
            // Nobody knows where the client's next request begins.
            Response::of_status(body.status()).closing()
        } else if let Some(form) = inner.and_then(|inner| inner.downcast_ref::<MultipartError>()) {
            Refusal::new(form.status(), form.to_string()).into()
        } else {
            tracing::error!("a handler failed: {error}");
            Response::of_status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

impl<T: Into<Response>, E: Into<Response>> From<Result<T, E>> for Response {
    fn from(result: Result<T, E>) -> Response {
        result.map_or_else(Into::into, Into::into)
    }
}
