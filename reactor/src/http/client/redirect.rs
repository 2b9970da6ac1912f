//! Where a redirecting answer leads, and what may be taken along. Pure.
//!
//! What it is not: a memory of permanent redirects (301 and 308 are asked for anew each time).

use http::{Method, StatusCode};
use url::Url;

/// Which redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectPolicy {
    /// How many in a row; 0 gives redirecting answers to the caller.
    pub limit: u32,
    /// Whether one may lead from https to http: then somebody in between reads what TLS had hidden.
    pub may_leave_tls: bool,
}

impl Default for RedirectPolicy {
    /// 10 in a row (what curl's and browsers' users get along with), and never from https to http.
    fn default() -> RedirectPolicy {
        RedirectPolicy { limit: 10, may_leave_tls: false }
    }
}

/// The next request of a chain of redirects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to; with neither user name nor password.
    pub url: Url,
    /// What to ask there.
    pub method: Method,
    /// Whether the body goes along.
    pub keeps_body: bool,
    /// Whether it is the same scheme, host and port: only then do credentials go along.
    pub is_same_origin: bool,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// The `Location` is no URL, nor relative to one, or is longer than 8 KiB.
    #[error("the server redirects to what is no URL")]
    BadLocation,
    /// Neither http nor https.
    #[error("the server redirects to the scheme {0}, which is not followed")]
    Scheme(String),
    /// From https to http.
    #[error("the server redirects from https to http, where anybody could read along")]
    LeavesTls,
    /// One more than [`RedirectPolicy::limit`].
    #[error("the server redirects too many times")]
    TooMany,
    /// The body has to be sent again, and was a stream.
    #[error("the server redirects with the body, which was a stream and is used up")]
    BodyUsedUp,
}

/// A `Location` longer than a request line that servers must support (RFC 9112, section 3) leads nowhere.
const LOCATION_BYTES_MAX: usize = 8 << 10;

impl Redirect {
    /// What an answer of `status` with this `Location` to `method` at `url` asks for; `None` if it is no redirect.
    ///
    /// # Errors
    /// [`RedirectError`].
    ///
    /// # Source
    /// RFC 9110, section 15.4; that POST becomes GET on 301 and 302 is what all browsers do.
    pub fn read(
        status: StatusCode,
        location: Option<&[u8]>,
        method: &Method,
        url: &Url,
        policy: &RedirectPolicy,
    ) -> Result<Option<Redirect>, RedirectError> {
        let is_get_next = match status.as_u16() {
            301 | 302 => *method == Method::POST,
            303 => *method != Method::HEAD && *method != Method::GET,
            307 | 308 => false,
            _ => return Ok(None),
        };
        // Without it, the answer itself is all there is.
        let Some(location) = location else { return Ok(None) };
        if location.len() > LOCATION_BYTES_MAX {
            return Err(RedirectError::BadLocation);
        }
        let location = std::str::from_utf8(location).map_err(|_| RedirectError::BadLocation)?;
        let mut next = url.join(location).map_err(|_| RedirectError::BadLocation)?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(RedirectError::Scheme(next.scheme().chars().take(32).collect()));
        }
        if url.scheme() == "https" && next.scheme() == "http" && !policy.may_leave_tls {
            return Err(RedirectError::LeavesTls);
        }
        // A server must not choose the credentials that we show.
        let cleared = next.set_username("").and_then(|()| next.set_password(None));
        cleared.map_err(|()| RedirectError::BadLocation)?;
        // RFC 9110, section 10.2.2: the part that was asked for is looked for in what comes in its place.
        if next.fragment().is_none() {
            next.set_fragment(url.fragment());
        }
        let is_same_origin = next.origin() == url.origin();
        Ok(Some(Redirect {
            url: next,
            method: if is_get_next { Method::GET } else { method.clone() },
            keeps_body: !is_get_next && status != StatusCode::SEE_OTHER,
            is_same_origin,
        }))
    }
}

/// Whether a header field is for one origin alone.
pub(super) fn is_credential(name: &str) -> bool {
    ["authorization", "cookie", "proxy-authorization"].iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, method: Method, location: &str) -> Result<Option<Redirect>, RedirectError> {
        let url = Url::parse("https://a.test/x/y?q").unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        Redirect::read(status, Some(location.as_bytes()), &method, &url, &RedirectPolicy::default())
    }

    #[test]
    fn each_status_keeps_or_drops_method_and_body_as_the_standard_says() {
        for (status, method, next, keeps_body) in [
            (301, Method::GET, Method::GET, true),
            (301, Method::POST, Method::GET, false),
            (301, Method::PUT, Method::PUT, true),
            (302, Method::POST, Method::GET, false),
            (302, Method::HEAD, Method::HEAD, true),
            (303, Method::POST, Method::GET, false),
            (303, Method::PUT, Method::GET, false),
            (303, Method::HEAD, Method::HEAD, false),
            (307, Method::POST, Method::POST, true),
            (308, Method::DELETE, Method::DELETE, true),
        ] {
            let redirect = read(status, method.clone(), "/").unwrap().unwrap();
            assert_eq!((redirect.method, redirect.keeps_body), (next, keeps_body), "{status} to {method}");
        }
        for status in [200, 300, 304, 305, 306, 399, 404] {
            assert_eq!(read(status, Method::GET, "/"), Ok(None), "{status}");
        }
    }

    #[test]
    fn a_location_may_be_relative_in_every_way() {
        for (location, expected) in [
            ("z", "https://a.test/x/z"),
            ("../../z", "https://a.test/z"),
            ("?r", "https://a.test/x/y?r"),
            ("//b.test/z", "https://b.test/z"),
            ("https://b.test", "https://b.test/"),
        ] {
            assert_eq!(read(302, Method::GET, location).unwrap().unwrap().url.as_str(), expected);
        }
    }

    #[test]
    fn credentials_stay_with_their_scheme_host_and_port() {
        let is_same = |location| read(302, Method::GET, location).unwrap().unwrap().is_same_origin;
        assert!(is_same("/z") && is_same("https://a.test:443/z"));
        for other in ["https://b.test/", "https://a.test:444/", "https://sub.a.test/"] {
            assert!(!is_same(other), "{other}");
        }
        let redirect = read(302, Method::GET, "https://me:secret@a.test/").unwrap().unwrap();
        assert_eq!(redirect.url.as_str(), "https://a.test/", "nor does the server choose them");
        assert!(is_credential("AUTHORIZATION") && is_credential("Cookie") && !is_credential("Accept"));
    }

    #[test]
    fn a_redirect_never_leaves_tls_or_the_web_unless_told_to() {
        assert_eq!(read(302, Method::GET, "http://a.test/"), Err(RedirectError::LeavesTls));
        for location in ["file:///etc/passwd", "javascript:alert(1)", "ftp://a.test/"] {
            assert!(matches!(read(302, Method::GET, location), Err(RedirectError::Scheme(_))), "{location}");
        }
        assert_eq!(read(302, Method::GET, "https://[::"), Err(RedirectError::BadLocation));
        assert_eq!(read(302, Method::GET, &"a".repeat(9000)), Err(RedirectError::BadLocation));
        let policy = RedirectPolicy { may_leave_tls: true, ..RedirectPolicy::default() };
        let url = Url::parse("https://a.test/").unwrap();
        let read = Redirect::read(StatusCode::FOUND, Some(b"http://a.test/"), &Method::GET, &url, &policy);
        assert!(!read.unwrap().unwrap().is_same_origin, "credentials stay behind all the same");
    }

    proptest::proptest! {
        #[test]
        fn wherever_a_location_leads_it_is_never_out_of_tls_nor_with_credentials(
            location in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
            known in 0..6_usize,
        ) {
            let beginnings: [&[u8]; 6] = [b"", b"https://", b"//a.test:443/", b"http://", b"//me:secret@", b"../"];
            let location = [beginnings[known], &location[..]].concat();
            let url = Url::parse("https://a.test/x/y?q").unwrap();
            let policy = RedirectPolicy::default();
            if let Ok(next) = Redirect::read(StatusCode::FOUND, Some(&location), &Method::GET, &url, &policy) {
                let next = next.unwrap().url;
                assert_eq!(next.scheme(), "https");
                assert!(next.username().is_empty() && next.password().is_none() && next.has_host());
                let target = &next[url::Position::BeforePath..url::Position::AfterQuery];
                let is_one_word = target.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
                assert!(target.starts_with('/') && is_one_word, "{target}");
            }
        }
    }
}
