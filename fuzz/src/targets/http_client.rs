//! What a server may tell our HTTP client beside heads and bodies: where to go next.

use ::reactor::http::client::{Redirect, RedirectPolicy};
use ::reactor::http::{Method, StatusCode};
use url::Url;

use crate::Target;

/// A `Location`, to a POST over TLS: wherever it leads, never out of TLS, never with credentials of the server's choice,
/// and never with ours to another origin.
pub const HTTP_REDIRECT: Target = Target {
    name: "http_redirect",
    body: |data| {
        let Some((status, location)) = data.split_first() else { return };
        let from = Url::parse("https://home.test:8443/a/b?c#d").expect("a constant that parses");
        let status = [301_u16, 302, 303, 307, 308][usize::from(status % 5)];
        let status = StatusCode::from_u16(status).expect("a constant that is right");
        let policy = RedirectPolicy::default();
        let Ok(next) = Redirect::read(status, Some(location), &Method::POST, &from, &policy) else { return };
        let next = next.expect("each of these redirects");
        assert_eq!(next.url.scheme(), "https");
        assert!(next.url.username().is_empty() && next.url.password().is_none());
        assert!(next.url.host_str().is_some_and(|host| !host.is_empty()));
        let at_home = next.url.host_str() == from.host_str() && next.url.port() == from.port();
        assert_eq!(next.is_same_origin, at_home);
        assert_eq!(next.keeps_body, next.method == Method::POST);
        // The request line that it becomes is one word.
        let target = &next.url[url::Position::BeforePath..url::Position::AfterQuery];
        assert!(
            target.starts_with('/') && target.bytes().all(|byte| matches!(byte, 0x21..=0x7e)),
            "{target}"
        );
    },
    seeds: || {
        [
            "https://away.test/x",
            "../y?z#w",
            "//me:pass@home.test:8443/",
            "?q",
            "http://home.test/",
            "https://[::1]:1/",
        ]
        .iter()
        .zip(0_u8..)
        .map(|(location, status)| [&[status][..], location.as_bytes()].concat())
        .collect()
    },
};
