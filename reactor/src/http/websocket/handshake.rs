//! The handshake of a WebSocket, on both sides (RFC 6455 section 4): what is asked, and what is an agreement. Pure.

use data_encoding::BASE64;
use http::{Method, StatusCode};
use tungstenite::handshake::derive_accept_key;

use super::WebSocketLimits;
use crate::http::{Headers, Request, Response};

/// What a client asks for, which it holds the answer against.
pub(in crate::http) struct Handshake {
    key: String,
    protocols: Vec<String>,
}

impl Handshake {
    /// One of its own, with the protocols above the WebSocket that the client speaks.
    pub(in crate::http) fn new(protocols: Vec<String>) -> Handshake {
        let mut key = [0; 16];
        crate::random::fill(&mut key);
        Handshake { key: BASE64.encode(&key), protocols }
    }

    /// The fields that ask for it.
    pub(in crate::http) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("Connection", "Upgrade".to_owned()),
            ("Upgrade", "websocket".to_owned()),
            ("Sec-WebSocket-Version", "13".to_owned()),
            ("Sec-WebSocket-Key", self.key.clone()),
        ];
        if !self.protocols.is_empty() {
            fields.push(("Sec-WebSocket-Protocol", self.protocols.join(", ")));
        }
        fields
    }

    /// The protocol that the server has chosen, if any; an error if this is no agreement.
    pub(in crate::http) fn read_answer(
        &self,
        status: StatusCode,
        headers: &Headers,
    ) -> Result<Option<String>, String> {
        let accept = derive_accept_key(self.key.as_bytes());
        let is_accepted = status == StatusCode::SWITCHING_PROTOCOLS
            && headers.has_token("upgrade", "websocket")
            && headers.has_token("connection", "upgrade")
            && headers.get("sec-websocket-accept") == Some(accept.as_bytes());
        if !is_accepted {
            return Err(format!("the server answers {status} and opens no WebSocket"));
        }
        if headers.contains("sec-websocket-extensions") {
            return Err("the server uses an extension that it was not offered".to_owned());
        }
        let mut chosen = headers.get_all("sec-websocket-protocol");
        match (chosen.next(), chosen.next()) {
            (None, _) => Ok(None),
            (Some(one), None) => {
                let offered = self.protocols.iter().find(|offered| offered.as_bytes() == one).cloned();
                offered
                    .map(Some)
                    .ok_or_else(|| "the server chose a protocol that it was not offered".to_owned())
            }
            _ => Err("the server chose several protocols".to_owned()),
        }
    }
}

impl Request<'_> {
    /// Which of the protocols that a WebSocket's client offers is among `known`: the client's first choice. A handler
    /// that takes it says so, by `.header("Sec-WebSocket-Protocol", ...)` to what [`super::websocket()`] gives.
    pub fn websocket_protocol<'p>(&self, known: &[&'p str]) -> Option<&'p str> {
        let mut offered = self.headers().list("Sec-WebSocket-Protocol");
        offered.find_map(|offered| known.iter().find(|known| known.as_bytes() == offered).copied())
    }
}

/// The client's key, or what to answer instead (RFC 6455 section 4.2.1).
pub(super) fn check_request<'a>(
    request: &Request<'a>,
    limits: &WebSocketLimits,
) -> Result<&'a [u8], Response> {
    let headers = request.headers();
    let bad = || Response::of_status(StatusCode::BAD_REQUEST);
    if request.method() != Method::GET || request.head().minor_version() != 1 {
        return Err(bad());
    }
    if !headers.has_token("upgrade", "websocket") || !headers.has_token("connection", "upgrade") {
        return Err(Response::of_status(StatusCode::UPGRADE_REQUIRED).header("Upgrade", "websocket"));
    }
    if headers.get("sec-websocket-version") != Some(b"13") {
        let response = Response::of_status(StatusCode::UPGRADE_REQUIRED).header("Upgrade", "websocket");
        return Err(response.header("Sec-WebSocket-Version", "13"));
    }
    let mut keys = headers.get_all("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(bad()) };
    if BASE64.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err(bad());
    }
    if let Some(origin) = headers.get("origin")
        && !limits.any_origin
    {
        let host = std::str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
        if host.is_none_or(|(_, host)| !host.eq_ignore_ascii_case(request.head().authority())) {
            return Err(Response::of_status(StatusCode::FORBIDDEN));
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agreement_to_what_was_asked_opens_it() {
        let asked = Handshake::new(vec!["b".into(), "a".into()]);
        let read = |status: u16, changes: &[(&str, &str)]| {
            let accept = derive_accept_key(asked.key.as_bytes());
            let mut headers = Headers::new();
            for (name, value) in [
                ("Connection", "keep-alive, Upgrade"),
                ("Upgrade", "WebSocket"),
                ("Sec-WebSocket-Accept", &*accept),
            ] {
                headers.push(name, value).unwrap();
            }
            for (name, value) in changes {
                headers.set(name, value).unwrap();
            }
            asked.read_answer(StatusCode::from_u16(status).unwrap(), &headers)
        };
        assert_eq!(read(101, &[]), Ok(None));
        assert_eq!(read(101, &[("Sec-WebSocket-Protocol", "a")]), Ok(Some("a".into())));
        assert!(read(200, &[]).is_err());
        for wrong in [
            ("Connection", "close"),
            ("Upgrade", "h2c"),
            ("Sec-WebSocket-Accept", "c3R1cGlk"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ("Sec-WebSocket-Protocol", "c"),
            ("Sec-WebSocket-Protocol", "a, b"),
        ] {
            assert!(read(101, &[wrong]).is_err(), "{wrong:?}");
        }
    }
}
