//! What handlers are spared: taking a request apart, telling its sender what was wrong, and what they have in common.

mod http_support;

use std::io::{self, Write};
use std::rc::Rc;

use http_support::{get, start, statuses, talk};
use reactor::cell::RefCell;
use reactor::http::client::{Client, ClientError};
use reactor::http::{
    Answered, Cookie, Cors, Group, Method, Next, Refusal, Request, Response, Server, StatusCode, request_id,
};
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

#[reactor::test]
fn each_request_is_told_of_when_all_of_its_answer_was_given_or_it_broke_off() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let tell = {
        let told = told.clone();
        move |answered: &Answered<'_>| {
            let line = answered.to_string();
            assert!(line.contains(&format!("\"GET {}\" ", answered.path())), "{line}");
            assert_eq!(line.ends_with(" broken"), !answered.is_whole, "{line}");
            told.borrow_mut().push((answered.status, answered.answer_bytes, answered.is_whole));
        }
    };
    let in_pieces = |_: &mut Request<'_>| {
        Response::stream(|body| (0..3).try_for_each(|_| body.write_all(b"piece").and_then(|()| body.flush())))
    };
    let breaks = |_: &mut Request<'_>| {
        Response::stream(|body| {
            body.write_all(b"piece")?;
            body.flush()?;
            Err(io::Error::other("this failure is part of a test"))
        })
    };
    let fails =
        |_: &mut Request<'_>| Response::stream(|_| Err(io::Error::other("this failure is part of a test")));
    let server = Server::new().on_answer(tell).route(Method::GET, "/fails", fails).route(
        Method::GET,
        "/",
        |_| "hello",
    );
    let server = server.route(Method::GET, "/pieces", in_pieces).route(Method::GET, "/breaks", breaks);
    let (_server, address) = start(server);
    for (target, status) in [("/", 200), ("/pieces", 200), ("/missing", 404)] {
        let answer = get(address, target, "");
        let expected = (StatusCode::from_u16(status).ok(), answer.len() as u64, true);
        assert_eq!(told.borrow_mut().pop(), Some(expected), "{answer}");
    }
    // Nothing of it has left, so that its client is told what is the matter: another status than the handler's.
    get(address, "/fails", "");
    let (status, _, is_whole) = told.borrow_mut().pop().unwrap();
    assert_eq!((status, is_whole), (Some(StatusCode::INTERNAL_SERVER_ERROR), true));
    get(address, "/breaks", "");
    let (status, _, is_whole) = told.borrow_mut().pop().unwrap();
    assert_eq!((status, is_whole), (Some(StatusCode::OK), false));
    // Two in one packet leave together, and are told of apart.
    let both = talk(
        address,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /pieces HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(statuses(&both), [200, 200]);
    let told = told.borrow();
    assert!(told.iter().all(|(_, bytes, is_whole)| *bytes > 50 && *is_whole), "{told:?}");
    assert_eq!((told.len(), told.iter().map(|(_, bytes, _)| bytes).sum::<u64>()), (2, both.len() as u64));
}

#[reactor::test]
fn requests_have_names_that_their_senders_may_choose() {
    let server = Server::new().layer(request_id);
    let (_server, address) =
        start(server.route(Method::GET, "/", |request| request.id().unwrap_or("none").to_owned()));
    let answer = get(address, "/", "X-Request-Id: of-a.proxy_7\r\n");
    assert!(
        answer.contains("X-Request-Id: of-a.proxy_7\r\n") && answer.ends_with("\r\n\r\nof-a.proxy_7"),
        "{answer}"
    );
    let mut own = Vec::new();
    for unfit in
        ["", "X-Request-Id: \r\n", "X-Request-Id: a b\r\n", &format!("X-Request-Id: {}\r\n", "x".repeat(65))]
    {
        let answer = get(address, "/", unfit);
        let id = http_support::body(&answer).to_owned();
        assert!(id.len() == 16 && answer.contains(&format!("X-Request-Id: {id}\r\n")), "{answer}");
        own.push(id);
    }
    own.sort();
    own.dedup();
    assert_eq!(own.len(), 4, "each has its own");
}

#[reactor::test]
fn a_browser_learns_what_pages_of_other_origins_may_do() {
    let cors = Cors::of(["https://app.example"]).methods(&[Method::PUT]).headers(&["X-Team"]);
    let cors = cors.exposed(&["X-Total"]).with_credentials();
    let server = Server::new().layer(cors.into_layer()).route(Method::GET, "/", |_| "hello");
    let (_server, address) =
        start(server.route(Method::PUT, "/", |_| -> Response { panic!("nobody asked for it") }));
    let ask = |origin: &str| {
        talk(
            address,
            format!(
                "OPTIONS / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nOrigin: {origin}\r\n\
                 Access-Control-Request-Method: PUT\r\n\r\n"
            ),
        )
    };
    let allowed = ask("https://app.example");
    assert_eq!(statuses(&allowed), [204]);
    for field in [
        "Origin: https://app.example",
        "Methods: PUT",
        "Headers: X-Team",
        "Credentials: true",
        "Max-Age: 600",
    ] {
        let (name, value) = field.split_once(": ").unwrap();
        let name = if name == "Max-Age" { name.to_owned() } else { format!("Allow-{name}") };
        assert!(allowed.contains(&format!("Access-Control-{name}: {value}\r\n")), "{field}: {allowed}");
    }
    for other in ["https://app.example.evil", "http://app.example", "https://app.example:8443", "null"] {
        let refused = ask(other);
        assert!(
            !refused.contains("Access-Control-Allow") && refused.contains("Vary: Origin\r\n"),
            "{refused}"
        );
    }
    let read = get(address, "/", "Origin: https://app.example\r\n");
    assert!(read.contains("Access-Control-Allow-Origin: https://app.example\r\n"), "{read}");
    assert!(read.contains("Access-Control-Expose-Headers: X-Total\r\n") && read.ends_with("hello"), "{read}");
    assert!(!get(address, "/", "").contains("Access-Control"), "no browser's page asks");

    let (_server, address) =
        start(Server::new().layer(Cors::any().into_layer()).route(Method::GET, "/", |_| "hello"));
    // Who names no origin gets the same: a cache may give the answer to a page that does.
    for origin in ["Origin: null\r\n", ""] {
        let read = get(address, "/", origin);
        assert!(read.contains("Access-Control-Allow-Origin: *\r\n") && !read.contains("Vary"), "{read}");
    }
}

#[reactor::test]
fn a_handler_that_never_ends_by_itself_hears_that_the_server_drains() {
    let (server, address) = start(Server::new().route(Method::GET, "/news", |request| {
        let draining = request.draining();
        reactor::http::events(move |out| {
            out.send(&reactor::http::Event::new("hello"))?;
            draining.wait();
            out.send(&reactor::http::Event::new("goodbye"))
        })
    }));
    let mut client = http_support::connect(address);
    client.write_all(b"GET /news HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    http_support::read_until(&mut client, "data: hello");
    let minute = std::time::Duration::from_secs(60);
    let left = reactor::timeout(minute, || server.drain(10 * minute));
    assert_eq!(left, Ok(0), "its time has to be over first");
    http_support::read_until(&mut client, "data: goodbye");
}
