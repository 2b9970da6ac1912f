//! A request while it is put together, and the bytes that its head becomes.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Read;
use std::time::Duration;

use http::Method;
use url::Url;

use super::form_data::{FormBody, FormData};
use super::proxy::{authorization_of, basic};
use super::redirect::is_credential;
use super::{Client, ClientError, Response};
use crate::http::head::write_request_line;
use crate::http::headers::{Headers, write_field};

/// What a request carries.
pub(super) enum Body<'a> {
    Empty,
    Bytes(Cow<'a, [u8]>),
    Stream(Stream<'a>),
}

/// A body that is read while it is sent.
pub(super) struct Stream<'a> {
    pub(super) reader: Box<dyn Read + 'a>,
    /// Known, or sent in chunks.
    pub(super) length: Option<u64>,
    pub(super) trailers: Option<Box<dyn FnOnce() -> Headers + 'a>>,
    /// Some of it has been taken: it can't be sent again.
    pub(super) is_used: bool,
}

/// A request in the making; see [`Client`]. Mistakes are told by [`RequestBuilder::send`].
pub struct RequestBuilder<'a> {
    client: &'a Client,
    pub(super) request: Result<Request<'a>, ClientError>,
}

pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Headers,
    pub(super) body: Body<'a>,
    pub(super) expects_continue: bool,
    /// Through a proxy it goes in a tunnel, plain or not, and its connection is nobody else's.
    pub(super) is_tunnelled: bool,
    pub(super) total: Option<Duration>,
}

/// What [`RequestBuilder::body`] takes: text or bytes, borrowed or given away.
pub trait BodyBytes<'a> {
    /// As bytes.
    fn into_body(self) -> Cow<'a, [u8]>;
}

impl<'a> BodyBytes<'a> for &'a [u8] {
    fn into_body(self) -> Cow<'a, [u8]> {
        Cow::Borrowed(self)
    }
}

impl<'a, const N: usize> BodyBytes<'a> for &'a [u8; N] {
    fn into_body(self) -> Cow<'a, [u8]> {
        Cow::Borrowed(self)
    }
}

impl<'a> BodyBytes<'a> for &'a str {
    fn into_body(self) -> Cow<'a, [u8]> {
        Cow::Borrowed(self.as_bytes())
    }
}

impl<'a> BodyBytes<'a> for Vec<u8> {
    fn into_body(self) -> Cow<'a, [u8]> {
        Cow::Owned(self)
    }
}

impl<'a> BodyBytes<'a> for String {
    fn into_body(self) -> Cow<'a, [u8]> {
        Cow::Owned(self.into_bytes())
    }
}

impl<'a> RequestBuilder<'a> {
    pub(super) fn new(client: &'a Client, method: Method, url: &str) -> RequestBuilder<'a> {
        let total = client.timeouts().total;
        let request = Url::parse(url).map_err(|error| ClientError::InvalidUrl(format!("{url}: {error}")));
        let request = request.and_then(|mut url| {
            if !matches!(url.scheme(), "http" | "https") {
                return Err(ClientError::InvalidUrl(format!("{url} is neither http nor https")));
            }
            let mut headers = Headers::new();
            if let Some(authorization) = authorization_of(&url) {
                headers.push("Authorization", authorization)?;
                let _ = url.set_username("").and_then(|()| url.set_password(None));
            }
            let (body, expects_continue, is_tunnelled) = (Body::Empty, false, false);
            Ok(Request { method, url, headers, body, expects_continue, is_tunnelled, total })
        });
        RequestBuilder { client, request }
    }

    fn with(mut self, change: impl FnOnce(&mut Request<'a>) -> Result<(), ClientError>) -> Self {
        if let Ok(request) = &mut self.request
            && let Err(error) = change(request)
        {
            self.request = Err(error);
        }
        self
    }

    /// On a connection of its own, and through a proxy in a tunnel.
    #[cfg(feature = "websocket")]
    pub(super) fn tunnelled(self) -> Self {
        self.with(|request| {
            request.is_tunnelled = true;
            Ok(())
        })
    }

    /// Adds a header field. `Host` replaces the one from the URL; the length of the body is stated by the client.
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.with(|request| Ok(request.headers.push(name, value)?))
    }

    /// Proves who asks by user name and password (RFC 7617), in place of those in the URL. Only TLS hides them.
    #[must_use]
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        self.with(|request| {
            Ok(request.headers.set("Authorization", basic(user.as_bytes(), password.as_bytes()))?)
        })
    }

    /// Proves who asks by a token (RFC 6750). Only TLS hides it.
    #[must_use]
    pub fn bearer_auth(self, token: &str) -> Self {
        self.with(|request| Ok(request.headers.set("Authorization", format!("Bearer {token}"))?))
    }

    /// Adds a value to the URL's query.
    #[must_use]
    pub fn query(self, name: &str, value: impl Display) -> Self {
        self.with(|request| {
            request.url.query_pairs_mut().append_pair(name, &value.to_string());
            Ok(())
        })
    }

    /// Sends a value as JSON. One that JSON can't hold (a map whose keys are no text) is a `ClientError::Body`.
    #[must_use]
    pub fn json(self, value: &impl serde::Serialize) -> Self {
        self.with(|request| {
            let json =
                serde_json::to_vec(value).map_err(|error| ClientError::Body { source: error.into() })?;
            request.headers.set("Content-Type", "application/json")?;
            request.body = Body::Bytes(json.into());
            Ok(())
        })
    }

    /// Sends names with values as a form, as browsers do (`application/x-www-form-urlencoded`).
    #[must_use]
    pub fn form(self, pairs: &[(&str, &str)]) -> Self {
        self.with(|request| {
            let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
            request.headers.set("Content-Type", "application/x-www-form-urlencoded")?;
            request.body = Body::Bytes(form.into_bytes().into());
            Ok(())
        })
    }

    /// Sends these bytes as the body.
    ///
    /// The answer can be read when all of it is sent. Of a server that answers while it is still reading, 4 MiB are kept
    /// meanwhile; one that has more to say, and takes nothing of the body until that is read, is
    /// [`ClientError::AnswerTooFarAhead`], unless it is read meanwhile: [`RequestBuilder::exchange`].
    #[must_use]
    pub fn body(self, bytes: impl BodyBytes<'a>) -> Self {
        let bytes = bytes.into_body();
        self.with(|request| {
            request.body = Body::Bytes(bytes);
            Ok(())
        })
    }

    /// Sends what `reader` gives as the body, as it comes: `length` bytes of it, or all, in chunks, if that is `None`.
    ///
    /// It can be sent once only, so it is neither tried again nor redirected with. The answer can be read when all of it is
    /// sent: see [`RequestBuilder::body`].
    #[must_use]
    pub fn stream(self, reader: &'a mut dyn Read, length: Option<u64>) -> Self {
        self.with(|request| {
            request.body = Body::stream(reader, length);
            Ok(())
        })
    }

    /// Sends a form with files (`multipart/form-data`), as it is read.
    ///
    /// One whose parts are all there as bytes can be sent again, for redirects and retries; one that reads a file can't.
    #[must_use]
    pub fn multipart(self, form: FormData<'a>) -> Self {
        self.with(|request| {
            request.headers.set("Content-Type", form.content_type())?;
            request.body = match form.into_body()? {
                FormBody::Whole(bytes) => Body::Bytes(bytes.into()),
                FormBody::Stream(reader, length) => Body::stream(reader, length),
            };
            Ok(())
        })
    }

    /// Asks for fields to send after a body in chunks, once that has been read: a checksum, say. After
    /// [`RequestBuilder::stream`] without a length, or of no effect.
    #[must_use]
    pub fn trailers(self, trailers: impl FnOnce() -> Headers + 'a) -> Self {
        self.with(|request| {
            if let Body::Stream(stream) = &mut request.body {
                stream.trailers = Some(Box::new(trailers));
            }
            Ok(())
        })
    }

    /// Asks the server whether it wants the body before it is sent (`Expect: 100-continue`), and sends it anyway after
    /// a second without an answer.
    #[must_use]
    pub fn expect_continue(self) -> Self {
        self.with(|request| {
            request.expects_continue = true;
            Ok(())
        })
    }

    /// How long all of it may take, to the last byte of the answer's body; in place of the client's
    /// [`super::Timeouts::total`].
    #[must_use]
    pub fn timeout(self, total: Duration) -> Self {
        self.with(|request| {
            request.total = Some(total);
            Ok(())
        })
    }

    /// Sends the request, follows redirects, and returns the answer when its head is there.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; an answer with a status of 400 and above is none, until [`Response::error_for_status`].
    ///
    /// # Suspends
    ///
    /// Until then, within the [`super::Timeouts`].
    pub fn send(self) -> Result<Response, ClientError> {
        let (client, request) = self.finish()?;
        client.send(request)
    }

    /// Sends the request, and calls `read` with its answer as soon as the answer's head is there, while the body is still
    /// being sent: for servers that answer as they read, whose answer may be larger than what anybody keeps of it, and for
    /// those whose word is to be heard before all is sent.
    ///
    /// `read` may take as long as it likes. When it returns, an answer that agrees (2xx) and has been read to its end waits
    /// for the rest of the body to be sent; in any other case what is not sent yet is broken off, and the connection with
    /// it. There are neither redirects nor repetitions: the body can be sent once only.
    ///
    /// # Errors
    ///
    /// [`ClientError`] without an answer; and after one that agreed, when the body could not be sent whole: then it was not
    /// the answer to all of it, and what `read` has returned is lost. What fails in reading is told to `read`.
    ///
    /// # Suspends
    ///
    /// Until `read` has returned, and the body is sent. Without a byte in either direction for [`super::Timeouts::idle`]
    /// that direction fails.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::io::copy;
    /// use reactor::http::client::Client;
    ///
    /// reactor::run(|| {
    ///     let client = Client::new();
    ///     let mut zeros = std::io::Read::take(std::io::repeat(0), 10 << 30);
    ///     let upload = client.put("https://example.org/echo").stream(&mut zeros, None);
    ///     let echoed = upload.exchange(|mut answer| copy(&mut answer, &mut std::io::sink()));
    ///     println!("{} bytes came back", echoed.unwrap().unwrap());
    /// });
    /// ```
    pub fn exchange<T>(self, read: impl FnOnce(Response) -> T) -> Result<T, ClientError> {
        let (client, request) = self.finish()?;
        client.exchange(request, read)
    }

    /// With what the client adds to every request.
    fn finish(self) -> Result<(&'a Client, Request<'a>), ClientError> {
        let mut request = self.request?;
        for (name, value) in self.client.default_headers().iter() {
            if !request.headers.contains(name) {
                request.headers.push(name, value)?;
            }
        }
        Ok((self.client, request))
    }
}

impl<'a> Body<'a> {
    fn stream(reader: impl Read + 'a, length: Option<u64>) -> Body<'a> {
        Body::Stream(Stream { reader: Box::new(reader), length, trailers: None, is_used: false })
    }

    /// Whether it can be sent once more.
    pub(super) fn is_fresh(&self) -> bool {
        !matches!(self, Body::Stream(stream) if stream.is_used)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Body::Empty)
    }
}

/// How the target is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form<'a> {
    /// Path and query: to the server, or through a tunnel.
    Origin,
    /// The whole URL: to a proxy, with what it wants to see.
    Absolute { authorization: Option<&'a str> },
}

impl Request<'_> {
    /// Forgets what may not be shown to another origin.
    pub(super) fn drop_credentials(&mut self) {
        self.retain(|name| !is_credential(name) && !name.eq_ignore_ascii_case("host"));
    }

    /// Forgets the body, and what describes it (RFC 9110, section 15.4).
    pub(super) fn drop_body(&mut self) {
        self.body = Body::Empty;
        self.expects_continue = false;
        self.retain(|name| !name.to_ascii_lowercase().starts_with("content-"));
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let mut kept = Headers::new();
        for (name, value) in self.headers.iter().filter(|(name, _)| keep(name)) {
            // It was good enough before.
            let _ = kept.push(name, value);
        }
        self.headers = kept;
    }

    /// Whether the connection may serve another request after this one.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.headers.has_token("Connection", "close")
    }

    /// The head's bytes. `accepts_gzip` if the client decodes it; `cookies` for where the request has none of its own.
    pub(super) fn write_head(
        &self,
        form: Form<'_>,
        accepts_gzip: bool,
        cookies: Option<&str>,
    ) -> Result<Vec<u8>, ClientError> {
        let mut out = Vec::with_capacity(256);
        let target = match form {
            Form::Origin => &self.url[url::Position::BeforePath..url::Position::AfterQuery],
            Form::Absolute { .. } => &self.url[..url::Position::AfterQuery],
        };
        write_request_line(&mut out, &self.method, target)?;
        if !self.headers.contains("Host") {
            // With the port only where it is not the scheme's own: so the URL keeps it.
            let host = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
            write_field(&mut out, "Host", host.as_bytes());
        }
        self.headers.write(&mut out);
        if let Some(cookies) = cookies
            && !self.headers.contains("Cookie")
        {
            write_field(&mut out, "Cookie", cookies.as_bytes());
        }
        if let Form::Absolute { authorization: Some(authorization) } = form {
            write_field(&mut out, "Proxy-Authorization", authorization.as_bytes());
        }
        if !self.headers.contains("User-Agent") {
            write_field(
                &mut out,
                "User-Agent",
                concat!("hypha-reactor/", env!("CARGO_PKG_VERSION")).as_bytes(),
            );
        }
        if accepts_gzip {
            write_field(&mut out, "Accept-Encoding", b"gzip");
        }
        let length = match &self.body {
            // These mean something by their body: without one, they say so (RFC 9110, section 8.6).
            Body::Empty => matches!(self.method, Method::POST | Method::PUT | Method::PATCH).then_some(0),
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Stream(Stream { length, .. }) => {
                if length.is_none() {
                    write_field(&mut out, "Transfer-Encoding", b"chunked");
                }
                *length
            }
        };
        if let Some(length) = length {
            write_field(&mut out, "Content-Length", length.to_string().as_bytes());
        }
        if self.expects_continue && !self.body.is_empty() {
            write_field(&mut out, "Expect", b"100-continue");
        }
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }
}
