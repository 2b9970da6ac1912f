//! What handlers are spared: taking a request apart, telling its sender what was wrong, and what they have in common.

mod http_support;

use std::cell::RefCell;
use std::rc::Rc;

use http_support::{get, start, talk};
use reactor::http::client::{Client, ClientError};
use reactor::http::{Cookie, Group, Method, Next, Refusal, Request, Response, Server, StatusCode};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    item: String,
    count: u32,
}

fn take_order(request: &mut Request<'_>) -> Result<Response, Refusal> {
    let shop: u16 = request.param_as("shop")?;
    let urgent = request.query_as::<bool>("urgent")?.unwrap_or(false);
    let order: Order = request.json(1 << 10)?;
    if order.count == 0 {
        return Err(Refusal::new(StatusCode::CONFLICT, "nothing is ordered"));
    }
    Ok(Response::json_of(&(shop, urgent, order)).status(StatusCode::CREATED))
}

fn post(address: std::net::SocketAddr, target: &str, kind: &str, body: &str) -> String {
    talk(
        address,
        format!(
            "POST {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

#[reactor::test]
fn json_and_typed_values_are_taken_or_their_sender_is_told() {
    let (_server, address) = start(Server::new().route(Method::POST, "/shops/{shop}/orders", take_order));
    let good = r#"{"item":"tea","count":2}"#;
    let json = "application/json; charset=utf-8";
    let answer = post(address, "/shops/7/orders?urgent=true", json, good);
    assert!(answer.starts_with("HTTP/1.1 201") && answer.contains("application/json"), "{answer}");
    assert!(answer.ends_with(r#"[7,true,{"item":"tea","count":2}]"#), "{answer}");
    for (target, kind, body, status, told) in [
        ("/shops/x/orders", json, good, "404", "Not Found"),
        ("/shops/70000/orders", json, good, "404", "Not Found"),
        ("/shops/7/orders?urgent=maybe", json, good, "400", "\"urgent\""),
        ("/shops/7/orders?urgent=%ff", json, good, "400", "UTF-8"),
        ("/shops/7/orders", "text/plain", good, "415", "must be JSON"),
        ("/shops/7/orders", json, r#"{"item":"tea""#, "400", "line 1 column 13"),
        ("/shops/7/orders", json, r#"{"item":"tea","count":-1}"#, "400", "u32"),
        ("/shops/7/orders", json, r#"{"item":"tea","count":0}"#, "409", "nothing is ordered"),
        ("/shops/7/orders", json, &format!(r#"{{"item":"{}"}}"#, "x".repeat(2_000)), "413", ""),
    ] {
        let answer = post(address, target, kind, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(told),
            "{target}: {answer}"
        );
    }
}

#[reactor::test]
fn forms_and_cookies_make_a_session() {
    fn log_in(request: &mut Request<'_>) -> Result<Response, Refusal> {
        let form = request.form(1 << 10)?;
        match (form.get("name"), form.get("password")) {
            (Some(name), Some(password)) if reactor::crypto::equal(password, "p&ss word") => {
                let cookie = Cookie::new("session", format!("of-{name}"));
                Response::text("welcome").cookie(cookie).map_err(|_| StatusCode::BAD_REQUEST.into())
            }
            _ => Err(StatusCode::FORBIDDEN.into()),
        }
    }
    let who = |request: &mut Request<'_>| match request.cookie("session") {
        Some(session) => Ok(format!("session {session}")),
        None => Err(StatusCode::UNAUTHORIZED),
    };
    let (_server, address) =
        start(Server::new().route(Method::POST, "/login", log_in).route(Method::GET, "/", who));
    let form = "application/x-www-form-urlencoded";
    let answer = post(address, "/login", form, "name=eve&password=p%26ss+word");
    assert!(
        answer.contains("Set-Cookie: session=of-eve; Path=/; HttpOnly; Secure; SameSite=Lax"),
        "{answer}"
    );
    assert!(post(address, "/login", form, "name=eve&password=guess").starts_with("HTTP/1.1 403"));
    assert!(post(address, "/login", form, "name=a%3b&password=p%26ss+word").starts_with("HTTP/1.1 400"));
    assert!(get(address, "/", "Cookie: other=1; session=of-eve\r\n").ends_with("session of-eve"));
    assert!(get(address, "/", "Cookie: xsession=1\r\n").starts_with("HTTP/1.1 401"));
}

#[reactor::test]
fn layers_are_around_all_answers_and_groups_have_their_own() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = {
        let seen = seen.clone();
        move |request: &mut Request<'_>, next: Next<'_>| {
            let response = next.run(request);
            seen.borrow_mut().push(format!("{} {}", request.path(), response.status_code().as_u16()));
            response.header("X-Request-Id", "17")
        }
    };
    fn with_token(request: &mut Request<'_>, next: Next<'_>) -> Result<Response, StatusCode> {
        match request.header("Authorization") {
            Some("Bearer 1") => Ok(next.run(request)),
            _ => Err(StatusCode::UNAUTHORIZED),
        }
    }
    let admin = Group::new("/admin")
        .route(Method::GET, "/users/{id}", |request| request.param("id").unwrap().into_owned())
        .layer(with_token)
        .route(Method::GET, "/panic", |_| -> Response { panic!("this panic is part of a test") });
    let server = Server::new().layer(log).route(Method::GET, "/", |_| "open").group(admin);
    let (_server, address) = start(server);
    let token = "Authorization: Bearer 1\r\n";
    for (target, fields, status) in [
        ("/", "", "200"),
        ("/missing", "", "404"),
        ("/admin/users/5", "", "401"),
        // However the path is written, the layer goes with the handler.
        ("/%61dmin/users/5", "", "401"),
        ("/admin/users/5", token, "200"),
        ("/admin/panic", token, "500"),
    ] {
        let answer = get(address, target, fields);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {answer}");
        assert_eq!(answer.contains("X-Request-Id: 17"), status != "500", "{target}: {answer}");
    }
    let seen = seen.borrow();
    assert_eq!(
        *seen,
        ["/ 200", "/missing 404", "/admin/users/5 401", "/%61dmin/users/5 401", "/admin/users/5 200"]
    );
}

#[reactor::test]
fn a_client_sends_and_takes_values() {
    let echo = |request: &mut Request<'_>| -> Result<Response, Refusal> {
        let query = request.query_pairs()?;
        let fields = ["Authorization", "X-Team", "User-Agent"]
            .map(|name| request.header(name).unwrap_or("-").to_owned());
        let order: Order = request.json(1 << 10)?;
        Ok(Response::json_of(&(query.get("q"), query.get_as::<u32>("page")?, fields, order)))
    };
    let form = |request: &mut Request<'_>| -> Result<Response, Refusal> {
        Ok(request.form(1 << 10)?.get("a&b").unwrap_or_default().to_owned().into())
    };
    let (_server, address) =
        start(Server::new().route(Method::POST, "/", echo).route(Method::POST, "/form", form));
    let url = format!("http://{address}/?q=one");
    let client = Client::builder().default_header("X-Team", "blue").unwrap();
    let client = client.default_header("User-Agent", "a test").unwrap().build();
    let order = Order { item: "tea & milk".into(), count: 3 };
    let answer =
        client.post(&url).query("page", 4).bearer_auth("t0").header("User-Agent", "own").json(&order);
    let (q, page, fields, order): (String, u32, [String; 3], Order) =
        answer.send().unwrap().error_for_status().unwrap().json(1 << 10).unwrap();
    assert_eq!((q.as_str(), page, order.item.as_str(), order.count), ("one", 4, "tea & milk", 3));
    assert_eq!(fields, ["Bearer t0", "blue", "own"]);
    let sent = client.post(&format!("http://{address}/form")).form(&[("x", "1"), ("a&b", "c=d e")]).send();
    assert_eq!(sent.unwrap().text(100).unwrap(), "c=d e");
    let refused = client.get(&url).send().unwrap().error_for_status();
    assert!(matches!(refused, Err(ClientError::Status { status: StatusCode::METHOD_NOT_ALLOWED, .. })));
    let no_json = client.post(&format!("http://{address}/form")).form(&[]).send().unwrap().json::<u32>(100);
    assert_eq!(no_json.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}
