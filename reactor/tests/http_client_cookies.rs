//! A client that keeps cookies logs in, stays so over redirects, and shows them to nobody else; one that was not told to
//! keeps none.

mod http_support;
mod scripted;

use std::time::{Duration, SystemTime};

use http_support::{have, run_well, start};
use reactor::http::client::{Client, CookieJar};
use reactor::http::{Cookie, Method, Request, Response, Server};
use reactor::run;

fn shop() -> Server {
    Server::new()
        .route(Method::GET, "/login", |_| {
            let session = Cookie::new("session", "1f").without_tls();
            let seen = Cookie::new("seen", "yes").without_tls().path("/account");
            Response::redirect("/account/page").unwrap().cookie(session).unwrap().cookie(seen).unwrap()
        })
        .route(Method::GET, "/logout", |_| {
            Response::empty().cookie(Cookie::removal("session").without_tls()).unwrap()
        })
        .route(Method::GET, "/{*path}", |request: &mut Request<'_>| {
            request.header("Cookie").unwrap_or("none").to_owned()
        })
}

#[test]
fn a_client_with_a_jar_stays_logged_in_until_it_is_logged_out() {
    run(|| {
        let (_server, address) = start(shop());
        let url = |path: &str| format!("http://{address}{path}");
        let client = Client::builder().cookies(CookieJar::new()).build();
        let get = |path: &str| client.get(&url(path)).send().unwrap().text(1_000).unwrap();
        assert_eq!(get("/x"), "none");
        assert_eq!(get("/login"), "seen=yes; session=1f", "the redirect carries what came with it");
        assert_eq!(get("/x"), "session=1f");
        let own = client.get(&url("/x")).header("Cookie", "mine=1").send().unwrap();
        assert_eq!(own.text(1_000).unwrap(), "mine=1");
        assert_eq!(get("/logout"), "");
        assert_eq!(get("/x"), "none");
        assert_eq!(client.with_cookies(|jar| jar.len()), Some(1));
        client.with_cookies(CookieJar::clear);
        assert_eq!(get("/account/page"), "none");
        // Nobody asked this one to.
        let forgetful = Client::new();
        assert_eq!(forgetful.get(&url("/login")).send().unwrap().text(1_000).unwrap(), "none");
    });
}

#[test]
fn cookies_stay_behind_when_a_redirect_leads_to_another_host() {
    run(|| {
        let (_server, address) = start(shop());
        let port = address.port();
        // The same server under another name.
        let leaving = scripted::answering(move |_| {
            format!(
                "HTTP/1.1 302 X\r\nLocation: http://localhost:{port}/x\r\nSet-Cookie: a=1\r\n\
                 Set-Cookie: b=2; Domain=localhost\r\nContent-Length: 0\r\n\r\n"
            )
            .into_bytes()
        });
        let client = Client::builder().cookies(CookieJar::new()).build();
        assert_eq!(client.get(&leaving.url).send().unwrap().text(1_000).unwrap(), "none");
        let kept = client.get(&format!("http://{address}/x")).send().unwrap().text(1_000).unwrap();
        assert_eq!(
            kept, "a=1",
            "what speaks for another host is not kept; ports are not told apart (RFC 6265, 8.5)"
        );
    });
}

/// Python's jar and ours, given the same fields, send the same back.
#[test]
fn our_jar_agrees_with_pythons() {
    if !have("python3", &["-c", "import http.cookiejar"]) {
        return;
    }
    let script = r#"
import http.cookiejar, sys, urllib.request, email.message
jar = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(rfc2965=False))
class Answer:
    def __init__(self, field):
        self.message = email.message.Message(); self.message["Set-Cookie"] = field
    def info(self): return self.message
lines = sys.argv[1].split("\n")
for line in lines:
    what, url, field = line.split("\t")
    request = urllib.request.Request(url)
    if what == "set": jar.extract_cookies(Answer(field), request)
    else:
        jar.add_cookie_header(request)
        print("; ".join(sorted((request.get_header("Cookie") or "none").split("; "))))
"#;
    let lines = [
        ("set", "http://www.shop.test/a/b", "plain=1"),
        ("set", "http://www.shop.test/a/b", "root=2; Path=/"),
        ("set", "http://www.shop.test/a/b", "wide=3; Domain=shop.test; Path=/"),
        ("set", "http://www.shop.test/a/b", "strange=4; Domain=other.test"),
        ("set", "https://www.shop.test/a/b", "secret=5; Secure; Path=/"),
        ("set", "http://www.shop.test/a/b", "over=6; Max-Age=0"),
        ("set", "http://www.shop.test/a/b", "old=7; Expires=Thu, 01 Jan 1970 00:00:10 GMT"),
        ("set", "http://www.shop.test/a/b", "new=8; Expires=Sun, 06-Nov-2033 08:49:37 GMT"),
        ("set", "http://www.shop.test/a/b", "root=9; Path=/"),
        ("ask", "http://www.shop.test/a/c", ""),
        ("ask", "https://www.shop.test/a/c", ""),
        ("ask", "http://www.shop.test/", ""),
        ("ask", "http://pay.shop.test/a/", ""),
        ("ask", "http://other.test/", ""),
        ("ask", "http://badshop.test/", ""),
    ];
    let mut jar = CookieJar::new().share_within("shop.test");
    let now = SystemTime::now();
    let mut ours = String::new();
    for (what, url, field) in lines {
        let url = url::Url::parse(url).unwrap();
        if what == "set" {
            jar.take(&url, field.as_bytes(), now);
            continue;
        }
        let sent = jar.header_for(&url, now + Duration::from_secs(1)).unwrap_or("none".into());
        let mut pairs: Vec<_> = sent.split("; ").collect();
        pairs.sort_unstable();
        ours += &(pairs.join("; ") + "\n");
    }
    let input: Vec<String> =
        lines.iter().map(|(what, url, field)| format!("{what}\t{url}\t{field}")).collect();
    let theirs = run(|| run_well("python3", &["-c", script, &input.join("\n")]));
    assert_eq!(ours, theirs);
    assert!(ours.starts_with("new=8; plain=1; root=9; wide=3\n"), "{ours}");
}
