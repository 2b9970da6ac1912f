//! The settings of a client.

use super::proxy::{Proxies, Proxy, read_exceptions};
use super::{Client, ClientError, CookieJar, PoolLimits, RedirectPolicy, Retries, Timeouts};
use crate::http::{BodyLimits, HeadLimits, Headers, InvalidHeader};
use crate::net::tls;

/// How a client is to be; see [`Client::builder`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    pub(super) timeouts: Timeouts,
    pub(super) head_limits: HeadLimits,
    pub(super) body_limits: BodyLimits,
    pub(super) pool: PoolLimits,
    pub(super) redirects: RedirectPolicy,
    pub(super) retries: Retries,
    pub(super) proxies: Proxies,
    pub(super) tls: Option<tls::Client>,
    pub(super) gzip: bool,
    pub(super) default_headers: Headers,
    pub(super) cookies: Option<CookieJar>,
}

impl ClientBuilder {
    pub(super) fn new() -> ClientBuilder {
        ClientBuilder {
            timeouts: Timeouts::default(),
            head_limits: HeadLimits::default(),
            // Bodies are streamed; whoever gathers one names a limit to do so.
            body_limits: BodyLimits { size_bytes: u64::MAX, ..BodyLimits::default() },
            pool: PoolLimits::default(),
            redirects: RedirectPolicy::default(),
            retries: Retries::NONE,
            proxies: Proxies::default(),
            tls: None,
            gzip: true,
            default_headers: Headers::new(),
            cookies: None,
        }
    }

    /// How long each part of a call may take.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> ClientBuilder {
        self.timeouts = timeouts;
        self
    }

    /// How much of an answer's head is taken in.
    #[must_use]
    pub fn head_limits(mut self, limits: HeadLimits) -> ClientBuilder {
        self.head_limits = limits;
        self
    }

    /// How much of an answer's body is read, as it comes and as it is decoded. Without limit at first, since a body is
    /// never gathered without one.
    #[must_use]
    pub fn body_limits(mut self, limits: BodyLimits) -> ClientBuilder {
        self.body_limits = limits;
        self
    }

    /// How many connections are kept, and for how long.
    #[must_use]
    pub fn pool(mut self, limits: PoolLimits) -> ClientBuilder {
        self.pool = limits;
        self
    }

    /// Which redirects are followed.
    #[must_use]
    pub fn redirects(mut self, policy: RedirectPolicy) -> ClientBuilder {
        self.redirects = policy;
        self
    }

    /// How often a request is sent again that met a server which can't answer now; by default it is not. See [`Retries`]
    /// for which those are. All of it happens within [`Timeouts::total`], where there is one.
    #[must_use]
    pub fn retries(mut self, retries: Retries) -> ClientBuilder {
        self.retries = retries;
        self
    }

    /// Whom to trust, in place of the platform's roots. The protocol http/1.1 is offered in any case.
    #[must_use]
    pub fn tls(mut self, tls: tls::Client) -> ClientBuilder {
        self.tls = Some(tls);
        self
    }

    /// Sends this header field with each request that has none of that name, to whatever host: a key for one server does
    /// not belong here, if the client is used for others too.
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`].
    pub fn default_header(
        mut self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<ClientBuilder, InvalidHeader> {
        self.default_headers.push(name, value)?;
        Ok(self)
    }

    /// Keeps cookies that servers set, beginning with those in `jar`, and sends them back with requests that have no `Cookie`
    /// of their own. At first none are kept.
    #[must_use]
    pub fn cookies(mut self, jar: CookieJar) -> ClientBuilder {
        self.cookies = Some(jar);
        self
    }

    /// Whether to offer and decode gzip. On at first.
    #[must_use]
    pub fn gzip(mut self, gzip: bool) -> ClientBuilder {
        self.gzip = gzip;
        self
    }

    /// Sends all requests through this proxy (`http://user:password@host:port`), but for [`ClientBuilder::no_proxy`].
    ///
    /// # Errors
    ///
    /// `InvalidUrl` when it is no URL of an HTTP proxy.
    pub fn proxy(mut self, url: &str) -> Result<ClientBuilder, ClientError> {
        let proxy = Proxy::parse(url)?;
        (self.proxies.http, self.proxies.https) = (Some(proxy.clone()), Some(proxy));
        Ok(self)
    }

    /// Reaches these directly: hosts, domains with all below them, addresses, each with a port or without; between
    /// commas. `*` is everybody.
    #[must_use]
    pub fn no_proxy(mut self, hosts: &str) -> ClientBuilder {
        self.proxies.exceptions.extend(read_exceptions(hosts));
        self
    }

    /// Takes the proxies from `http_proxy`, `https_proxy` and `no_proxy` of the environment.
    ///
    /// # Errors
    ///
    /// `InvalidUrl` when one is no URL of an HTTP proxy.
    pub fn proxy_from_environment(mut self) -> Result<ClientBuilder, ClientError> {
        self.proxies = Proxies::from_variables(|name| std::env::var(name).ok())?;
        Ok(self)
    }

    /// The client.
    pub fn build(self) -> Client {
        Client::with(self)
    }
}
