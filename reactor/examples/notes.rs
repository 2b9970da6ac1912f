//! A JSON service with sessions, a log of what it answered, and an orderly end: everybody's own notes.
//!
//! `cargo run --example notes -- 127.0.0.1:7003`, then
//!
//! ```sh
//! curl -c jar -H 'Content-Type: application/json' -d '{"name": "Ada"}' http://127.0.0.1:7003/session
//! curl -b jar -H 'Content-Type: application/json' -d '{"text": "buy milk"}' http://127.0.0.1:7003/notes
//! curl -b jar http://127.0.0.1:7003/notes
//! ```
//!
//! Handlers are functions of a request; what they keep is a plain `RefCell`, since all of them run on one thread.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::http::{Cookie, Method, Refusal, Request, Response, Server, StatusCode};
use reactor::net::TcpListener;
use reactor::signals::{Signal, Signals};
use serde::{Deserialize, Serialize};

const BODY_LIMIT_BYTES: usize = 16 << 10;
const SESSIONS_MAX: usize = 1_000;
const NOTES_MAX: usize = 100;

/// How long requests in hand may take at the end.
const DRAIN_TIME: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Login {
    name: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct Note {
    text: String,
}

struct Session {
    name: String,
    notes: Vec<Note>,
}

/// All sessions, by the random token that is in each one's cookie.
#[derive(Default)]
struct Sessions(RefCell<HashMap<String, Session>>);

impl Sessions {
    fn begin(&self, request: &mut Request<'_>) -> Result<Response, Refusal> {
        let login: Login = request.json(BODY_LIMIT_BYTES)?;
        if login.name.trim().is_empty() {
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "a name must not be empty"));
        }
        let mut sessions = self.0.borrow_mut();
        if sessions.len() >= SESSIONS_MAX {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many are here: come back later"));
        }
        let mut token = [0; 16];
        reactor::random::fill(&mut token);
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        // Behind TLS the cookie would be for TLS alone, which is what it is unless one says so.
        let cookie = Cookie::new("session", &token).without_tls();
        let welcome = Response::json_of(&format!("welcome, {}", login.name)).status(StatusCode::CREATED);
        sessions.insert(token, Session { name: login.name, notes: Vec::new() });
        Ok(welcome.cookie(cookie).expect("hexadecimal digits go into a cookie"))
    }

    /// Runs `f` on the session that the request's cookie names.
    fn with<T>(
        &self,
        request: &Request<'_>,
        f: impl FnOnce(&mut Session) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut sessions = self.0.borrow_mut();
        let session = request.cookie("session").and_then(|token| sessions.get_mut(token));
        f(session.ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "POST /session first"))?)
    }

    fn list(&self, request: &Request<'_>) -> Result<Response, Refusal> {
        self.with(request, |session| Ok(Response::json_of(&session.notes)))
    }

    fn add(&self, request: &mut Request<'_>) -> Result<Response, Refusal> {
        // Before the body is read, and while no session is borrowed: reading suspends.
        self.with(request, |_| Ok(()))?;
        let note: Note = request.json(BODY_LIMIT_BYTES)?;
        self.with(request, |session| {
            if session.notes.len() >= NOTES_MAX {
                let reason = format!("{}, {NOTES_MAX} notes are enough", session.name);
                return Err(Refusal::new(StatusCode::CONFLICT, reason));
            }
            session.notes.push(note);
            Ok(Response::json_of(&session.notes.len()).status(StatusCode::CREATED))
        })
    }

    fn remove(&self, request: &Request<'_>) -> Result<Response, Refusal> {
        let index: usize = request.param_as("index")?;
        self.with(request, |session| {
            if index >= session.notes.len() {
                return Err(StatusCode::NOT_FOUND.into());
            }
            session.notes.remove(index);
            Ok(Response::of_status(StatusCode::NO_CONTENT))
        })
    }
}

#[reactor::main]
fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7003".to_owned());
    let signals = Signals::new(&[Signal::Interrupt, Signal::Terminate])?;
    let listener = TcpListener::bind(address)?;
    println!("notes listens at {}", listener.local_addr()?);
    let sessions = Rc::new(Sessions::default());
    let [beginning, listing, adding, removing] = std::array::from_fn(|_| sessions.clone());
    let server = Server::new()
        .route(Method::POST, "/session", move |request| beginning.begin(request))
        .route(Method::GET, "/notes", move |request| listing.list(request))
        .route(Method::POST, "/notes", move |request| adding.add(request))
        .route(Method::DELETE, "/notes/{index}", move |request| removing.remove(request))
        .on_answer(|answered| eprintln!("{answered}"))
        .start(listener);
    signals.wait();
    // Nobody new comes in; who is being answered still is.
    let left = server.drain(DRAIN_TIME);
    eprintln!("{left} connections were cut short");
    Ok(())
}
