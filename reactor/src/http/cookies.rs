//! Cookies (RFC 6265): read from a request, set by a response.
//!
//! A cookie that is set is closed by default: scripts don't see it, it travels over TLS alone, and not with what other
//! sites cause. Whoever wants less says so.
//!
//! What it is not: a jar for clients ([`super::client::CookieJar`] is), or sessions. A cookie's value is whatever its
//! browser sends: a session is found by a random token in it.

use std::fmt::Write as _;
use std::time::Duration;

use super::{InvalidHeader, Request, Response};

/// With which requests of other sites a cookie travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// With none.
    Strict,
    /// With links that somebody follows here.
    Lax,
    /// With all: it must be for TLS alone.
    None,
}

/// A cookie to be set; see [`Response::cookie`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::http::{Cookie, Response};
///
/// let token = "0c1d9f"; // random, and kept with the session
/// let cookie = Cookie::new("session", token).max_age(Duration::from_secs(3600));
/// let response = Response::text("welcome").cookie(cookie).unwrap();
/// let expected = "session=0c1d9f; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax";
/// assert_eq!(response.headers().get_str("Set-Cookie"), Some(expected));
/// ```
#[derive(Clone, Debug)]
pub struct Cookie {
    name: String,
    value: String,
    path: String,
    max_age: Option<Duration>,
    http_only: bool,
    secure: bool,
    same_site: SameSite,
}

impl Cookie {
    /// For all paths of this host, until the browser ends; neither for scripts nor without TLS, and with requests of
    /// other sites only where a link is followed.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Cookie {
        Cookie {
            name: name.into(),
            value: value.into(),
            path: "/".into(),
            max_age: None,
            http_only: true,
            secure: true,
            same_site: SameSite::Lax,
        }
    }

    /// A cookie that takes the one of that name away.
    pub fn removal(name: impl Into<String>) -> Cookie {
        Cookie::new(name, "").max_age(Duration::ZERO)
    }

    /// For paths below `path` alone.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Cookie {
        self.path = path.into();
        self
    }

    /// For so long, in whole seconds.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Cookie {
        self.max_age = Some(age);
        self
    }

    /// Scripts of the page see it too.
    #[must_use]
    pub fn for_scripts(mut self) -> Cookie {
        self.http_only = false;
        self
    }

    /// It travels without TLS too, for whoever listens on the line to read.
    #[must_use]
    pub fn without_tls(mut self) -> Cookie {
        self.secure = false;
        self
    }

    /// With which requests of other sites it travels.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Cookie {
        self.same_site = same_site;
        self
    }

    /// The value of `Set-Cookie`; `None` where something in it would end it early.
    fn to_field(&self) -> Option<String> {
        // RFC 6265, section 4.1.1.
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        let is_path = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && byte != b';';
        let is_sound = !self.name.is_empty()
            && self.name.bytes().all(is_token)
            && self.value.bytes().all(is_octet)
            && self.path.bytes().all(is_path);
        if !is_sound {
            return None;
        }
        let mut field = format!("{}={}; Path={}", self.name, self.value, self.path);
        if let Some(age) = self.max_age {
            let _ = write!(field, "; Max-Age={}", age.as_secs());
        }
        if self.http_only {
            field += "; HttpOnly";
        }
        if self.secure || self.same_site == SameSite::None {
            field += "; Secure";
        }
        let _ = write!(field, "; SameSite={:?}", self.same_site);
        Some(field)
    }
}

impl Request<'_> {
    /// The value of the first cookie of that name, as it was sent.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let fields = self.headers().get_all("Cookie").filter_map(|field| str::from_utf8(field).ok());
        fields.flat_map(|field| field.split(';')).find_map(|pair| value_of(pair, name))
    }
}

/// The value of a pair, if it is of that name.
fn value_of<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    let (known, value) = pair.split_once('=')?;
    let value = value.trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    (known.trim() == name).then_some(quoted.unwrap_or(value))
}

impl Response {
    /// Sets a cookie, beside others that are set.
    ///
    /// # Errors
    ///
    /// `InvalidHeader::Value` when its name, value or path holds what they may not (spaces, `;`, quotes, anything beyond
    /// ASCII): encode it first.
    pub fn cookie(self, cookie: Cookie) -> Result<Response, InvalidHeader> {
        let field = cookie.to_field().ok_or(InvalidHeader::Value)?;
        self.try_header("Set-Cookie", field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_says_what_it_is_for() {
        let shown = |cookie: Cookie| cookie.to_field().unwrap();
        assert_eq!(shown(Cookie::removal("a")), "a=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax");
        let open = Cookie::new("a", "b").for_scripts().without_tls().path("/x").same_site(SameSite::Strict);
        assert_eq!(shown(open), "a=b; Path=/x; SameSite=Strict");
        let everywhere = Cookie::new("a", "b").without_tls().same_site(SameSite::None);
        assert_eq!(
            shown(everywhere),
            "a=b; Path=/; HttpOnly; Secure; SameSite=None",
            "browsers refuse others"
        );
    }

    #[test]
    fn no_cookie_says_more_than_was_meant() {
        for (name, value, path) in [
            ("", "v", "/"),
            ("a b", "v", "/"),
            ("a", "v; Domain=evil", "/"),
            ("a", "v\r\nX: y", "/"),
            ("a", "ü", "/"),
            ("a", "v", "/; Domain=evil"),
        ] {
            assert!(Cookie::new(name, value).path(path).to_field().is_none(), "{name} {value} {path}");
        }
    }

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        assert_eq!(value_of(" session=1f", "session"), Some("1f"));
        assert_eq!(value_of("session=\"1f\"", "session"), Some("1f"));
        assert_eq!(value_of("xsession=1", "session"), None);
        assert_eq!(value_of("session", "session"), None);
    }
}
