//! Cookies that a client keeps and sends back (RFC 6265, sections 5.1 to 5.4), with what RFC 6265bis adds for safety. Pure:
//! takes the time as a value, and knows no connection.
//!
//! A cookie goes to the host that has set it, and nowhere else. Which domains are shared by hosts of one owner
//! (`example.org`) and which by strangers (`co.uk`, `github.io`) only a list tells that changes every week (the public
//! suffix list). This has none: cookies go to other hosts of a domain only where the client's owner has said
//! ([`CookieJar::share_within`]) that all hosts below it are of one owner; elsewhere a `Domain` that would widen a cookie
//! is taken as if it were not there. The crate `cookie_store`, which knows such lists, asks the clock itself, so that
//! a simulated client could not be repeated.
//!
//! From 6265bis: what comes without TLS sets no `Secure` cookie, nor changes one; names that begin with `__Host-` or
//! `__Secure-` mean what they say; nothing is kept for longer than 400 days. Not kept: cookies without a name, or with a
//! value that is not UTF-8.
//!
//! What it is not: a browser's. `SameSite` says nothing where there are no pages, nor `HttpOnly` where there are no
//! scripts. Nor does it outlive its process.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use url::Url;

/// The least that RFC 6265 section 6.1 asks for, and what browsers take: name and value together.
const COOKIE_BYTES_MAX: usize = 4096;

/// Attributes of a cookie that are longer are not looked at, as in browsers.
const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// Cookies of one host or domain, the least that the RFC asks for. The one that was used least recently gives way.
const COOKIES_PER_DOMAIN_MAX: usize = 50;

/// Cookies in all, and so some 5 MiB; browsers keep 3,000, for people.
const COOKIES_MAX: usize = 1_000;

/// The longest that one is kept (6265bis section 5.5).
const AGE_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// Cookies, and to whom they go; see [`super::ClientBuilder::cookies`].
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use reactor::http::client::CookieJar;
/// use url::Url;
///
/// let (mut jar, now) = (CookieJar::new(), SystemTime::now());
/// let url = Url::parse("https://example.org/account/login").unwrap();
/// jar.take(&url, b"session=1f; Path=/account; Max-Age=60; Secure", now);
/// assert_eq!(jar.header_for(&url, now).as_deref(), Some("session=1f"));
/// let elsewhere = Url::parse("https://example.org/accounts").unwrap();
/// assert_eq!(jar.header_for(&elsewhere, now), None);
/// assert_eq!(jar.header_for(&url, now + Duration::from_secs(60)), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct CookieJar {
    cookies: Vec<Stored>,
    shared: Vec<String>,
    /// Counts what happens, for an order that no clock gives.
    turn: u64,
}

#[derive(Clone, Debug)]
struct Stored {
    name: String,
    value: String,
    domain: String,
    /// It goes to this host alone, and not to those below.
    host_only: bool,
    path: String,
    secure: bool,
    /// `None`: as long as the jar.
    expires: Option<SystemTime>,
    created: u64,
    used: u64,
}

/// What a `Set-Cookie` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed<'a> {
    name: &'a str,
    value: &'a str,
    domain: Option<String>,
    path: Option<&'a str>,
    secure: bool,
    /// From `Max-Age`, else from `Expires`.
    expires: Option<SystemTime>,
}

impl CookieJar {
    /// An empty one, in which cookies are their hosts' alone.
    pub fn new() -> CookieJar {
        CookieJar::default()
    }

    /// Lets hosts below `domain`, and the one of that name, set cookies for each other, as their `Domain` says. All of them
    /// must be of one owner.
    #[must_use]
    pub fn share_within(mut self, domain: &str) -> CookieJar {
        self.shared.push(domain.trim_start_matches('.').to_ascii_lowercase());
        self
    }

    /// Keeps a cookie that the server of `url` sets by a header `Set-Cookie`, or forgets one; no cookie that it may not set.
    ///
    /// # Source
    ///
    /// RFC 6265 sections 5.2 and 5.3.
    pub fn take(&mut self, url: &Url, field: &[u8], now: SystemTime) {
        let Some(host) = url.host_str() else { return };
        let Some(parsed) = Parsed::parse(field, now) else { return };
        if !parsed.domain.as_deref().is_none_or(|domain| is_within(host, domain)) {
            return;
        }
        let is_shared = |domain: &String| self.shared.iter().any(|shared| is_within(domain, shared));
        let wide =
            parsed.domain.clone().filter(|domain| is_shared(domain) && host.parse::<IpAddr>().is_err());
        let is_tls = url.scheme() == "https";
        let path = parsed.path.unwrap_or(default_path(url.path()));
        let lower = parsed.name.to_ascii_lowercase();
        let is_host = lower.starts_with("__host-");
        let breaks_its_promise = (is_host || lower.starts_with("__secure-")) && !parsed.secure
            || is_host && (parsed.domain.is_some() || parsed.path != Some("/"));
        if breaks_its_promise || parsed.secure && !is_tls {
            return;
        }
        let host_only = wide.is_none();
        let domain = wide.unwrap_or_else(|| host.to_owned());
        // Whoever changes what is said without TLS shall not take the place of what was said with it.
        let hides = |old: &Stored| {
            old.secure
                && old.name == parsed.name
                && (is_within(&domain, &old.domain) || is_within(&old.domain, &domain))
                && path_matches(path, &old.path)
        };
        self.expire(now);
        if !is_tls && self.cookies.iter().any(hides) {
            return;
        }
        self.turn += 1;
        let mut created = self.turn;
        self.cookies.retain(|old| {
            let is_same = old.name == parsed.name
                && old.domain == domain
                && old.host_only == host_only
                && old.path == path;
            if is_same {
                created = old.created;
            }
            !is_same
        });
        if parsed.expires.is_some_and(|expires| expires <= now) {
            return;
        }
        let of_domain = self.cookies.iter().filter(|old| old.domain == domain).count();
        if of_domain >= COOKIES_PER_DOMAIN_MAX && !self.drop_oldest(is_tls, |old| old.domain == domain) {
            return;
        }
        if self.cookies.len() >= COOKIES_MAX && !self.drop_oldest(is_tls, |_| true) {
            return;
        }
        self.cookies.push(Stored {
            name: parsed.name.to_owned(),
            value: parsed.value.to_owned(),
            host_only,
            path: path.to_owned(),
            secure: parsed.secure,
            expires: parsed.expires,
            created,
            used: self.turn,
            domain,
        });
    }

    /// The value of `Cookie` for a request to `url`; `None` without any cookie for it.
    ///
    /// # Source
    ///
    /// RFC 6265 section 5.4.
    pub fn header_for(&mut self, url: &Url, now: SystemTime) -> Option<String> {
        let host = url.host_str()?;
        let is_tls = url.scheme() == "https";
        self.expire(now);
        self.turn += 1;
        let turn = self.turn;
        let mut chosen: Vec<&Stored> = Vec::new();
        for cookie in &mut self.cookies {
            let is_hosts = match cookie.host_only {
                true => cookie.domain == host,
                false => is_within(host, &cookie.domain),
            };
            if is_hosts && path_matches(url.path(), &cookie.path) && (is_tls || !cookie.secure) {
                cookie.used = turn;
                chosen.push(cookie);
            }
        }
        // The most special first, and of those the oldest.
        chosen.sort_by_key(|cookie| (usize::MAX - cookie.path.len(), cookie.created));
        let pairs: Vec<String> =
            chosen.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Forgets all cookies.
    pub fn clear(&mut self) {
        self.cookies.clear();
    }

    /// How many there are, some of which may be over.
    pub fn len(&self) -> usize {
        self.cookies.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cookies.is_empty()
    }

    fn expire(&mut self, now: SystemTime) {
        self.cookies.retain(|cookie| cookie.expires.is_none_or(|expires| now < expires));
    }

    /// Makes room among those; false if there is none to be made. Who is not `Secure` gives way first, and nobody who is to what came
    /// without TLS (RFC 6265bis section 5.7): or whoever is on the line could push one out, and put its own in its place.
    fn drop_oldest(&mut self, is_tls: bool, of: impl Fn(&Stored) -> bool) -> bool {
        let may_go = |cookie: &Stored| of(cookie) && (is_tls || !cookie.secure);
        let those = self.cookies.iter().enumerate().filter(|(_, cookie)| may_go(cookie));
        let oldest = those.min_by_key(|(_, cookie)| (cookie.secure, cookie.used, cookie.created));
        let Some((at, _)) = oldest else { return false };
        self.cookies.remove(at);
        true
    }
}

impl<'a> Parsed<'a> {
    /// Section 5.2; `None` where the whole is to be ignored.
    fn parse(field: &'a [u8], now: SystemTime) -> Option<Parsed<'a>> {
        let text = str::from_utf8(field).ok()?;
        let mut parts = text.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (trim(name), trim(value));
        let is_sound = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control());
        if name.is_empty()
            || name.len() + value.len() > COOKIE_BYTES_MAX
            || !is_sound(name)
            || !is_sound(value)
        {
            return None;
        }
        let mut parsed = Parsed { name, value, ..Parsed::default() };
        let mut has_age = false;
        for attribute in parts {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let (key, value) = (trim(key), trim(value));
            if value.len() > ATTRIBUTE_BYTES_MAX {
                continue;
            }
            // Of several the last one counts.
            match &*key.to_ascii_lowercase() {
                "domain" => {
                    let domain = value.strip_prefix('.').unwrap_or(value);
                    parsed.domain = (!domain.is_empty()).then(|| domain.to_ascii_lowercase());
                }
                "path" => parsed.path = value.starts_with('/').then_some(value),
                "secure" => parsed.secure = true,
                "max-age" => {
                    if let Some(age) = parse_max_age(value) {
                        has_age = true;
                        parsed.expires = Some(now + age.min(AGE_MAX));
                    }
                }
                "expires" if !has_age => {
                    if let Some(at) = parse_date(value) {
                        parsed.expires = Some(at.min(now + AGE_MAX));
                    }
                }
                _ => {}
            }
        }
        Some(parsed)
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Section 5.2.2; what is below one second is over at once.
fn parse_max_age(value: &str) -> Option<Duration> {
    let (negative, digits) = match value.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // A number that no clock holds is a long time.
    Some(if negative { Duration::ZERO } else { Duration::from_secs(digits.parse().unwrap_or(u64::MAX)) })
}

/// Section 5.1.1: dates as servers have ever written them, in any order of their parts. One before 1970 is 1970.
fn parse_date(text: &str) -> Option<SystemTime> {
    let is_delimiter = |byte: char| matches!(byte, '\t' | '\x20'..='/' | ';'..='@' | '['..='`' | '{'..='~');
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        if time.is_none()
            && let Some(found) = parse_time(token)
        {
            time = Some(found);
        } else if day.is_none()
            && let Some(found) = leading_number(token, 1, 2)
        {
            day = Some(found);
        } else if month.is_none()
            && let Some(found) = parse_month(token)
        {
            month = Some(found);
        } else if year.is_none()
            && let Some(found) = leading_number(token, 2, 4)
        {
            year = Some(found);
        }
    }
    let ((hour, minute, second), day, month, mut year) = (time?, day?, month?, year?);
    year += match year {
        0..=69 => 2000,
        70..=99 => 1900,
        _ => 0,
    };
    if !(1..=31).contains(&day) || year < 1601 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// So many digits at the beginning of a token, and after them none.
fn leading_number(token: &str, least: usize, most: usize) -> Option<i64> {
    let digits = token.bytes().take_while(u8::is_ascii_digit).count();
    (least..=most).contains(&digits).then(|| token[..digits].parse().ok())?
}

fn parse_time(token: &str) -> Option<(i64, i64, i64)> {
    let mut parts = token.splitn(3, ':');
    let mut part = || parts.next();
    let (hour, minute, second) = (part()?, part()?, part()?);
    let whole =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| leading_number(text, 1, 2))?;
    Some((whole(hour)?, whole(minute)?, leading_number(second, 1, 2)?))
}

fn parse_month(token: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let name = token.get(..3)?.to_ascii_lowercase();
    (1..).zip(MONTHS).find(|(_, month)| **month == *name).map(|(number, _)| number)
}

/// By the Gregorian calendar: years begin in March, so that the day that is sometimes there is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// Whether `host` is `domain`, or below it (section 5.1.3). An address has nothing below it.
fn is_within(host: &str, domain: &str) -> bool {
    match host.strip_suffix(domain) {
        Some("") => true,
        Some(above) => above.ends_with('.') && host.parse::<IpAddr>().is_err(),
        None => false,
    }
}

/// Section 5.1.4.
fn path_matches(path: &str, cookie: &str) -> bool {
    path.strip_prefix(cookie)
        .is_some_and(|rest| rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'))
}

/// The path up to its last slash, which only the root keeps.
fn default_path(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

#[cfg(test)]
mod tests;
