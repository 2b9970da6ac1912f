//! WebSockets by URL: over the client's TLS and proxies, with headers and protocols of the caller's.
//!
//! The request for one is a request like any other, until its answer: see [`super::RequestBuilder`]. What differs is that
//! it has a connection of its own, and goes through a proxy in a tunnel, plain ones too (RFC 6455 section 4.1), since
//! proxies are not known to pass an upgrade on.

use std::time::Duration;

use http::{Method, StatusCode};

use super::{Client, ClientError, RequestBuilder};
use crate::http::websocket::Handshake;
use crate::http::{InvalidHeader, WebSocket, WebSocketLimits};

/// A WebSocket that is to be opened; see [`Client::websocket`]. Mistakes are told by [`WebSocketBuilder::connect`].
pub struct WebSocketBuilder<'a> {
    request: RequestBuilder<'a>,
    protocols: Vec<String>,
    limits: WebSocketLimits,
}

impl Client {
    /// A WebSocket at `ws://...` or `wss://...`, the latter over TLS.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use reactor::http::client::Client;
    ///
    /// reactor::run(|| {
    ///     let client = Client::new();
    ///     let socket = client.websocket("wss://example.org/chat").protocol("chat.v2").bearer_auth("secret").connect();
    ///     let socket = socket.unwrap();
    ///     socket.send("hello").unwrap();
    ///     println!("{:?}", socket.recv().unwrap());
    /// });
    /// ```
    pub fn websocket(&self, url: &str) -> WebSocketBuilder<'_> {
        let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
        let plain = match &*scheme.to_ascii_lowercase() {
            "ws" => format!("http:{rest}"),
            "wss" => format!("https:{rest}"),
            // Without a scheme it is no URL, whatever else is in it.
            _ => String::new(),
        };
        let mut request = RequestBuilder::new(self, Method::GET, &plain).tunnelled();
        if plain.is_empty() {
            request.request =
                Err(ClientError::InvalidUrl(format!("{url}: a WebSocket's begins with ws: or wss:")));
        }
        WebSocketBuilder { request, protocols: Vec::new(), limits: WebSocketLimits::default() }
    }
}

impl WebSocketBuilder<'_> {
    /// Adds a header field to the request: `Origin`, say, or a cookie.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Proves who asks by a token (RFC 6750). Only TLS hides it.
    #[must_use]
    pub fn bearer_auth(mut self, token: &str) -> Self {
        self.request = self.request.bearer_auth(token);
        self
    }

    /// Offers a protocol above the WebSocket, after those before it. Which one the server has chosen, if any,
    /// [`WebSocket::subprotocol`] tells.
    #[must_use]
    pub fn protocol(mut self, name: &str) -> Self {
        self.protocols.push(name.to_owned());
        self
    }

    /// With other limits.
    #[must_use]
    pub fn limits(mut self, limits: WebSocketLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How long the handshake may take in all; in place of the client's [`super::Timeouts::total`].
    #[must_use]
    pub fn timeout(mut self, total: Duration) -> Self {
        self.request = self.request.timeout(total);
        self
    }

    /// Opens it. Redirects are followed to the same scheme, host and port, and nowhere else: what is asked for by
    /// [`WebSocketBuilder::protocol`] and [`WebSocketBuilder::header`] often holds a token.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoWebSocket`] when the server answers otherwise; any other [`ClientError`].
    ///
    /// # Suspends
    ///
    /// Until the server has agreed, within the client's [`super::Timeouts`].
    pub fn connect(self) -> Result<WebSocket<'static>, ClientError> {
        // A protocol's name is a token (RFC 6455 section 4.1): two in one would be two for the server.
        let is_token = |name: &String| !name.is_empty() && name.bytes().all(crate::http::headers::is_token);
        if !self.protocols.iter().all(is_token) {
            return Err(InvalidHeader::Value.into());
        }
        let handshake = Handshake::new(self.protocols);
        let mut request = self.request;
        for (name, value) in handshake.fields() {
            request = request.header(name, value);
        }
        let response = request.send()?;
        let status = response.status();
        let refused = |reason| ClientError::NoWebSocket { status, reason };
        let subprotocol = handshake.read_answer(status, response.headers()).map_err(refused)?;
        let (stream, received) =
            response.into_upgraded().ok_or_else(|| refused("it is no upgrade".into()))?;
        debug_assert_eq!(status, StatusCode::SWITCHING_PROTOCOLS, "else it is no agreement");
        Ok(WebSocket::client(stream, received, subprotocol, self.limits))
    }
}
