//! What the jar takes, and what it gives to whom.

use super::*;

const NOW: SystemTime = UNIX_EPOCH;

fn now() -> SystemTime {
    NOW + Duration::from_secs(1_800_000_000)
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// What goes to `to` after the server of `from` has set these.
fn sent(jar: &CookieJar, from: &str, fields: &[&str], to: &str) -> Option<String> {
    let mut jar = jar.clone();
    for field in fields {
        jar.take(&url(from), field.as_bytes(), now());
    }
    jar.header_for(&url(to), now())
}

fn alone(from: &str, field: &str, to: &str) -> Option<String> {
    sent(&CookieJar::new(), from, &[field], to)
}

#[test]
fn a_cookie_goes_to_its_host_alone_unless_its_domain_is_shared() {
    let home = "http://www.example.org/";
    let below = "http://a.www.example.org/";
    for field in ["a=1", "a=1; Domain=example.org", "a=1; domain=.EXAMPLE.org", "a=1; Domain=www.example.org"]
    {
        assert_eq!(alone(home, field, home).as_deref(), Some("a=1"), "{field}");
        assert_eq!(alone(home, field, "http://other.example.org/"), None, "{field}");
        assert_eq!(alone(home, field, below), None, "{field}");
    }
    for field in ["a=1; Domain=other.example.org", "a=1; Domain=ample.org", "a=1; Domain=a.www.example.org"] {
        assert_eq!(alone(home, field, home), None, "it may not speak for {field}");
    }
    let jar = CookieJar::new().share_within("example.org");
    let shared = |field: &str, to: &str| sent(&jar, home, &[field], to).is_some();
    assert!(shared("a=1; Domain=example.org", "http://other.example.org/"));
    assert!(shared("a=1; Domain=www.example.org", below));
    assert!(!shared("a=1", below), "it asked for its host alone");
    assert!(!shared("a=1; Domain=example.org", "http://badexample.org/"));
    assert!(!shared("a=1; Domain=org", "http://other.example.org/"), "beyond what is shared");
    assert_eq!(sent(&jar, "http://example.com/", &["a=1; Domain=org"], home), None);
    let local = CookieJar::new().share_within("0.0.1");
    assert_eq!(sent(&local, "http://127.0.0.1/", &["a=1; Domain=0.0.1"], "http://10.0.0.1/"), None);
}

#[test]
fn a_cookie_goes_to_paths_below_its_own_and_the_most_special_first() {
    let jar = CookieJar::new();
    let from = "http://h/dir/page";
    let fields = ["root=1; Path=/", "deep=2; Path=/dir/sub", "own=3", "own2=4; Path=relative"];
    let to = |path: &str| sent(&jar, from, &fields, &format!("http://h{path}"));
    assert_eq!(to("/dir/sub/x").as_deref(), Some("deep=2; own=3; own2=4; root=1"));
    assert_eq!(to("/dir").as_deref(), Some("own=3; own2=4; root=1"));
    assert_eq!(to("/directory").as_deref(), Some("root=1"));
    assert_eq!(to("/dir/subway").as_deref(), Some("own=3; own2=4; root=1"));
}

#[test]
fn what_is_for_tls_alone_is_neither_sent_nor_set_nor_changed_without() {
    let (plain, secure) = ("http://h/", "https://h/");
    assert_eq!(alone(secure, "a=1; Secure", plain), None);
    assert_eq!(alone(secure, "a=1; Secure", secure).as_deref(), Some("a=1"));
    assert_eq!(alone(plain, "a=1; Secure", secure), None);
    assert_eq!(alone(plain, "a=1", secure).as_deref(), Some("a=1"));
    let mut jar = CookieJar::new();
    jar.take(&url(secure), b"a=1; Secure; Path=/x", now());
    jar.take(&url(plain), b"a=2; Path=/x/y", now());
    jar.take(&url(plain), b"a=; Max-Age=0; Path=/x", now());
    assert_eq!(jar.header_for(&url("https://h/x/y"), now()).as_deref(), Some("a=1"));
}

#[test]
fn names_that_promise_something_are_held_to_it() {
    let secure = "https://h.test/";
    for (field, is_kept) in [
        ("__Host-a=1; Secure; Path=/", true),
        ("__host-a=1; Secure", false),
        ("__Host-a=1; Path=/", false),
        ("__Host-a=1; Secure; Path=/; Domain=h.test", false),
        ("__Secure-a=1; Secure", true),
        ("__secure-a=1", false),
    ] {
        assert_eq!(alone(secure, field, secure).is_some(), is_kept, "{field}");
    }
}

#[test]
fn a_cookie_is_over_when_it_says_so_and_after_400_days_at_the_latest() {
    let u = url("http://h/");
    let lasts = |field: &str| {
        let mut jar = CookieJar::new();
        jar.take(&u, field.as_bytes(), now());
        let expires = jar.cookies.first()?.expires;
        Some(expires.map(|at| at.duration_since(now()).unwrap().as_secs()))
    };
    assert_eq!(lasts("a=1"), Some(None));
    assert_eq!(lasts("a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"), Some(Some(60)));
    assert_eq!(lasts("a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60"), Some(Some(60)));
    assert_eq!(lasts("a=1; Max-Age=99999999999999999999"), Some(Some(AGE_MAX.as_secs())));
    assert_eq!(lasts("a=1; Expires=Fri, 31 Dec 9999 23:59:59 GMT"), Some(Some(AGE_MAX.as_secs())));
    assert_eq!((lasts("a=1; Max-Age=0"), lasts("a=1; Max-Age=-5")), (None, None));
    assert_eq!(lasts("a=1; Max-Age=soon; Expires=whenever"), Some(None));
    let mut jar = CookieJar::new();
    jar.take(&u, b"a=1; Max-Age=60", now());
    assert!(jar.header_for(&u, now() + Duration::from_secs(59)).is_some());
    assert!(jar.header_for(&u, now() + Duration::from_secs(60)).is_none());
    jar.take(&u, b"a=1", now());
    jar.take(&u, b"a=2", now());
    assert_eq!(jar.header_for(&u, now()).as_deref(), Some("a=2"));
    jar.take(&u, b"a=; Max-Age=0", now());
    assert!(jar.is_empty());
}

#[test]
fn dates_are_read_as_servers_have_ever_written_them() {
    for text in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "6 november 1994 8:49:37",
    ] {
        assert_eq!(parse_date(text), Some(UNIX_EPOCH + Duration::from_secs(784_111_777)), "{text}");
    }
    let leap = parse_date("29 Feb 2024 00:00:00").unwrap();
    assert_eq!(leap, httpdate::parse_http_date("Thu, 29 Feb 2024 00:00:00 GMT").unwrap());
    assert_eq!(parse_date("1 Jan 1650 00:00:00"), Some(UNIX_EPOCH));
    for bad in ["", "1994", "32 Nov 1994 08:49:37", "6 Nov 1600 08:49:37", "6 Nov 1994 24:00:00", "6 Nov 94"]
    {
        assert_eq!(parse_date(bad), None, "{bad}");
    }
}

#[test]
fn no_server_fills_the_jar_or_pushes_out_what_is_in_use() {
    let mut jar = CookieJar::new();
    let (u, other) = (url("http://h/"), url("http://other/"));
    jar.take(&other, b"kept=1", now());
    jar.take(&u, b"used=1", now());
    for number in 0..COOKIES_PER_DOMAIN_MAX * 2 {
        assert_eq!(jar.header_for(&u, now()).as_deref(), Some("used=1"));
        jar.take(&u, format!("c{number}=1; Path=/elsewhere").as_bytes(), now());
    }
    assert_eq!(jar.len(), COOKIES_PER_DOMAIN_MAX + 1);
    assert!(jar.header_for(&other, now()).is_some());
    for number in 0..COOKIES_MAX * 2 {
        jar.take(&url(&format!("http://h{number}/")), b"a=1", now());
    }
    assert_eq!(jar.len(), COOKIES_MAX);
    let before = jar.len();
    jar.take(&u, format!("big={}", "x".repeat(COOKIE_BYTES_MAX)).as_bytes(), now());
    for bad in [&b"novalue"[..], b"=1", b"a=\xff", b"a=1\x01", b""] {
        jar.take(&url("http://new/"), bad, now());
    }
    assert_eq!(jar.len(), before);
}

#[test]
fn what_comes_without_tls_pushes_out_none_that_came_with_it() {
    let mut jar = CookieJar::new();
    let (plain, sealed) = (url("http://h/"), url("https://h/"));
    jar.take(&sealed, b"sid=mine; Secure", now());
    for number in 0..COOKIES_PER_DOMAIN_MAX * 2 {
        jar.take(&plain, format!("c{number}=1; Path=/elsewhere").as_bytes(), now());
    }
    jar.take(&plain, b"sid=theirs", now());
    assert_eq!(jar.header_for(&sealed, now()).as_deref(), Some("sid=mine"));
    // Where all are, nothing else finds room.
    for number in 0..COOKIES_PER_DOMAIN_MAX {
        jar.take(&sealed, format!("s{number}=1; Secure; Path=/elsewhere").as_bytes(), now());
    }
    jar.take(&plain, b"late=1", now());
    assert_eq!(jar.header_for(&plain, now()), None);
    assert_eq!(jar.len(), COOKIES_PER_DOMAIN_MAX);
}

proptest::proptest! {
    /// Whatever a server says, what is sent back is one field's value, and only to its own host.
    #[test]
    fn no_cookie_breaks_out_of_its_field_or_its_host(
        fields in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80), 0..10),
        plain in proptest::collection::vec("[a-c]=[ -~]{0,9}(; (domain|path|expires|max-age|secure)(=[ -~]{0,12})?){0,3}", 0..10),
    ) {
        let mut jar = CookieJar::new().share_within("shared.test");
        let home = url("https://home.test/a/b");
        for field in fields.iter().map(Vec::as_slice).chain(plain.iter().map(|text| text.as_bytes())) {
            jar.take(&home, field, now());
        }
        if let Some(value) = jar.header_for(&home, now()) {
            assert!(crate::http::headers::is_value(value.as_bytes()), "{value:?}");
        }
        for elsewhere in ["https://test/", "https://shared.test/", "https://a.home.test/a/b", "https://x.test/a/b"] {
            assert_eq!(jar.header_for(&url(elsewhere), now()), None);
        }
    }
}
