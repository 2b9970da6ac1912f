//! The client: requests as plain calls, over connections that are kept for the next one.
//!
//! ```no_run
//! use reactor::http::client::Client;
//!
//! reactor::run(|| {
//!     let client = Client::new();
//!     let response = client.get("https://example.org/").header("Accept", "text/html").send().unwrap();
//!     println!("{}: {}", response.status(), response.text(1 << 20).unwrap());
//! });
//! ```
//!
//! `cookie_jar.rs`, `pool.rs`, `redirect.rs`, `retries.rs` and `proxy.rs` decide, and are pure; `send.rs`, `connection.rs`,
//! `exchange.rs`, `upload.rs` and `response.rs` are the flow. A connection is used again only when the answer on it has been read to its end, so a caller who is terminated
//! in the middle of one, or drops it, costs a connection and confuses nobody.
//!
//! Cookies are kept only by a client that is given a [`CookieJar`].
//!
//! What it is not: a browser. There is no cache, no HTTP/2, and no authentication but basic and by token.

mod builder;
mod connection;
mod cookie_jar;
mod exchange;
mod form_data;
mod pool;
mod proxy;
mod redirect;
mod request;
mod response;
mod retries;
mod send;
mod upload;
#[cfg(feature = "websocket")]
mod websocket;

use std::cell::{Cell, OnceCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use url::Url;

use self::connection::{Connection, Server, Through};
use self::pool::Pool;
use self::proxy::Proxy;
use super::head::HeadError;
use super::{BodyLimits, Headers, InvalidHeader};
use crate::cell::RefCell;
use crate::clock::now;
use crate::net::tls;

pub use self::builder::ClientBuilder;
pub use self::cookie_jar::CookieJar;
pub use self::form_data::FormData;
pub use self::pool::PoolLimits;
pub use self::redirect::{Redirect, RedirectError, RedirectPolicy};
pub use self::request::{BodyBytes, RequestBuilder};
pub use self::response::Response;
pub use self::retries::Retries;
#[cfg(feature = "websocket")]
pub use self::websocket::WebSocketBuilder;

/// How long each part of a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Look-up, connection, the proxy's tunnel and TLS together.
    pub connect: Duration,
    /// From the request's end to the end of the answer's head.
    pub head: Duration,
    /// Without a byte of a body, of the request or the answer.
    pub idle: Duration,
    /// All of it, redirects and the answer's body included; `None` for as long as it moves.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    /// 10 s to connect (several lost packets), 30 s for an answer and between bytes, no limit in all.
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            total: None,
        }
    }
}

/// A part of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Until the connection stands.
    Connect,
    /// While the request is sent.
    Send,
    /// While the answer's head is awaited.
    Head,
    /// While the answer's body is read.
    Body,
    /// The call as a whole.
    Total,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No URL, not one of http or https, or one without a host.
    #[error("no URL to fetch: {0}")]
    InvalidUrl(String),
    /// A header field that must not be sent.
    #[error(transparent)]
    InvalidHeader(#[from] InvalidHeader),
    /// The server, or the proxy, can't be reached, or is not trusted.
    #[error("connecting to {server}: {source}")]
    Connect {
        /// Its name and port.
        server: String,
        /// What happened.
        source: io::Error,
    },
    /// The proxy answered this to the request for a tunnel.
    #[error("the proxy refused: {0}")]
    ProxyRefused(StatusCode),
    /// The connection broke.
    #[error("the connection broke ({phase:?}): {source}")]
    Io {
        /// When.
        phase: Phase,
        /// How.
        source: io::Error,
    },
    /// The caller's own body could not be read.
    #[error("reading the body to send: {source}")]
    Body {
        /// What its reader said.
        source: io::Error,
    },
    /// It took longer than the [`Timeouts`] allow.
    #[error("it took too long ({0:?})")]
    TimedOut(Phase),
    /// The server answers while it is sent to, takes nothing more until its answer is read, and has said more than is
    /// kept meanwhile. Such an answer is read while the body is sent: by [`RequestBuilder::exchange`].
    #[error(
        "the server waits for its answer to be read before it takes the rest of the body; no more than 4 MiB of an \
         answer are kept while the body is sent"
    )]
    AnswerTooFarAhead,
    /// The answer is not HTTP/1.1 as it should be.
    #[error("the answer: {0}")]
    Head(#[from] HeadError),
    /// More interim answers than any server has use for.
    #[error("the server sends one interim answer after another")]
    TooManyInterim,
    /// The server opens no WebSocket, or not as it was asked for.
    #[error("{reason}")]
    NoWebSocket {
        /// What it answered.
        status: StatusCode,
        /// In words.
        reason: String,
    },
    /// The server switches to a protocol that nobody asked for.
    #[error("the server switches protocols unasked")]
    UnwantedUpgrade,
    /// The server answered that it won't or can't ([`Response::error_for_status`]).
    #[error("{url} answered {status}")]
    Status {
        /// 400 or above.
        status: StatusCode,
        /// Who, after redirects.
        url: String,
    },
    /// A redirect that is not followed.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
}

impl From<ClientError> for io::Error {
    fn from(error: ClientError) -> io::Error {
        let kind = match &error {
            ClientError::TimedOut(_) => io::ErrorKind::TimedOut,
            ClientError::InvalidUrl(_) | ClientError::InvalidHeader(_) => io::ErrorKind::InvalidInput,
            ClientError::Connect { source, .. } | ClientError::Io { source, .. } => source.kind(),
            ClientError::Head(_) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// A client of HTTP/1.1. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Rc<Shared>,
}

/// What clones of a client, and their answers, share.
pub(super) struct Shared {
    config: ClientBuilder,
    tls: OnceCell<tls::Client>,
    pool: RefCell<Pool<Server, Connection>>,
    cookies: Option<RefCell<CookieJar>>,
    is_reaped: Cell<bool>,
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Client {
    /// A client with the default settings: the platform's roots, gzip, 10 redirects, no proxy.
    pub fn new() -> Client {
        Client::builder().build()
    }

    /// A client with settings of one's own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    fn with(mut config: ClientBuilder) -> Client {
        let pool = RefCell::new(Pool::new(config.pool));
        let cookies = config.cookies.take().map(RefCell::new);
        let (tls, is_reaped) = (OnceCell::new(), Cell::new(false));
        Client { shared: Rc::new(Shared { config, tls, pool, cookies, is_reaped }) }
    }

    /// A request with any method. A user name and password in the URL become basic authentication.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder<'_> {
        RequestBuilder::new(self, method, url)
    }

    /// Asks for what is at `url`.
    pub fn get(&self, url: &str) -> RequestBuilder<'_> {
        self.request(Method::GET, url)
    }

    /// Asks for the head alone of what is at `url`.
    pub fn head(&self, url: &str) -> RequestBuilder<'_> {
        self.request(Method::HEAD, url)
    }

    /// Hands a body to what is at `url`. It is never tried twice.
    pub fn post(&self, url: &str) -> RequestBuilder<'_> {
        self.request(Method::POST, url)
    }

    /// Puts a body in the place of what is at `url`.
    pub fn put(&self, url: &str) -> RequestBuilder<'_> {
        self.request(Method::PUT, url)
    }

    /// Removes what is at `url`.
    pub fn delete(&self, url: &str) -> RequestBuilder<'_> {
        self.request(Method::DELETE, url)
    }

    /// How many connections wait for their next request.
    pub fn idle_connections(&self) -> usize {
        let mut pool = self.shared.pool.borrow_mut();
        pool.expire(now());
        pool.len()
    }

    /// Looks at the cookies that this client keeps, or changes them; `None` if it keeps none. `f` must not suspend.
    pub fn with_cookies<T>(&self, f: impl FnOnce(&mut CookieJar) -> T) -> Option<T> {
        self.shared.cookies.as_ref().map(|jar| f(&mut jar.borrow_mut()))
    }

    fn default_headers(&self) -> &Headers {
        &self.shared.config.default_headers
    }

    fn timeouts(&self) -> &Timeouts {
        &self.shared.config.timeouts
    }
}

impl Shared {
    fn timeouts(&self) -> &Timeouts {
        &self.config.timeouts
    }

    fn body_limits(&self) -> &BodyLimits {
        &self.config.body_limits
    }

    fn open(
        &self,
        url: &Url,
        proxy: Option<(&Proxy, Through)>,
        is_tls: bool,
    ) -> Result<Connection, ClientError> {
        let tls = if is_tls { Some(self.tls()?) } else { None };
        Connection::open(url, proxy, tls, &self.config.head_limits)
    }

    /// The trusted roots, read when they are first needed.
    fn tls(&self) -> Result<&tls::Client, ClientError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls);
        }
        let tls = match &self.config.tls {
            Some(tls) => tls.clone(),
            None => tls::Client::with_platform_roots()
                .map_err(|source| ClientError::Connect { server: "any server over TLS".into(), source })?,
        };
        Ok(self.tls.get_or_init(|| tls.alpn(&["http/1.1"])))
    }

    /// An idle connection that is still good.
    fn take(&self, server: &Server) -> Option<(Connection, Instant)> {
        loop {
            let taken = self.pool.borrow_mut().take(server, now());
            let (connection, born) = taken?;
            if connection.is_quiet() {
                return Some((connection, born));
            }
        }
    }

    /// Keeps a connection whose answer has been read. Never suspends.
    fn give_back(self: &Rc<Self>, server: Server, connection: Connection, born: Instant) {
        if !connection.is_quiet() {
            return;
        }
        self.pool.borrow_mut().put(server, connection, born, now());
        if !std::thread::panicking() && !self.is_reaped.replace(true) {
            self.reap();
        }
    }

    /// Closes idle connections in their time, also where no further request comes.
    fn reap(self: &Rc<Self>) {
        struct Ending(std::rc::Weak<Shared>);
        impl Drop for Ending {
            fn drop(&mut self) {
                if let Some(shared) = self.0.upgrade() {
                    shared.is_reaped.set(false);
                }
            }
        }
        let ending = Ending(Rc::downgrade(self));
        crate::spawn(move || {
            // It holds the client only between two waits, so as not to keep it alive.
            while let Some(due) = ending.0.upgrade().and_then(|shared| {
                let mut pool = shared.pool.borrow_mut();
                pool.expire(now());
                pool.next_expiry()
            }) {
                crate::sleep_until(due);
            }
        });
    }
}
