//! Cross-origin resource sharing: which pages of other origins a browser lets read this server's answers.
//!
//! The server only says so; it is the browser that obeys. So this protects nobody from other programs, and no handler
//! from being run: a request that needs no preflight (a form's) has been answered when the browser withholds the answer.
//!
//! # Source
//!
//! The Fetch standard (fetch.spec.whatwg.org), section 3.3, "CORS protocol".

use std::time::Duration;

use http::{Method, StatusCode};

use super::server::Next;
use super::{Request, Response};

/// What pages of other origins may do; [`Cors::into_layer`] makes a layer for [`super::Server::layer`] of it.
///
/// # Examples
///
/// ```
/// use reactor::http::{Cors, Method, Server};
/// let cors = Cors::of(["https://app.example.org"]).methods(&[Method::GET, Method::PUT]).headers(&["Content-Type"]);
/// let server = Server::new().layer(cors.into_layer()).route(Method::GET, "/", |_| "hello");
/// ```
#[derive(Clone, Debug)]
pub struct Cors {
    /// `None` for all.
    origins: Option<Vec<String>>,
    methods: String,
    headers: String,
    exposed: String,
    with_credentials: bool,
    max_age: Duration,
}

impl Cors {
    /// For pages of any origin; never with their users' credentials.
    pub fn any() -> Cors {
        Cors {
            origins: None,
            methods: "GET, HEAD, POST".into(),
            headers: String::new(),
            exposed: String::new(),
            with_credentials: false,
            max_age: Duration::from_secs(600),
        }
    }

    /// For pages of these origins, each as a browser writes it: `https://app.example.org`, with the port where it is not
    /// the usual one, and no slash behind.
    ///
    /// # Panics
    ///
    /// If one can be no origin: it would never match.
    pub fn of(origins: impl IntoIterator<Item = impl Into<String>>) -> Cors {
        let origins: Vec<String> = origins.into_iter().map(Into::into).collect();
        for origin in &origins {
            let host = origin.split_once("://").map(|(_, host)| host);
            let is_one = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
            assert!(
                is_one && origin.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()),
                "{origin:?} is no origin, as https://app.example.org is"
            );
        }
        Cors { origins: Some(origins), ..Cors::any() }
    }

    /// The methods that are allowed beyond GET, HEAD and POST, which no browser asks for first.
    pub fn methods(mut self, methods: &[Method]) -> Cors {
        self.methods = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        self
    }

    /// The request's headers that are allowed beyond those that a form could send.
    ///
    /// # Panics
    ///
    /// If one can be no header's name.
    pub fn headers(mut self, names: &[&str]) -> Cors {
        self.headers = joined(names);
        self
    }

    /// The answer's headers that a page may read beyond the usual ones.
    ///
    /// # Panics
    ///
    /// If one can be no header's name.
    pub fn exposed(mut self, names: &[&str]) -> Cors {
        self.exposed = joined(names);
        self
    }

    /// Requests may carry their users' cookies and logins.
    ///
    /// # Panics
    ///
    /// For any origin: every page there is could read what a user may.
    pub fn with_credentials(mut self) -> Cors {
        assert!(self.origins.is_some(), "credentials for any origin: name the origins with `Cors::of`");
        self.with_credentials = true;
        self
    }

    /// How long a browser need not ask again before it sends such a request; ten minutes by default. In whole seconds.
    pub fn max_age(mut self, max_age: Duration) -> Cors {
        self.max_age = max_age;
        self
    }

    /// The layer. It belongs around the whole server: a browser's question (OPTIONS) is for no route of a group.
    pub fn into_layer(self) -> impl Fn(&mut Request<'_>, Next<'_>) -> Response + 'static {
        move |request, next| {
            let origin = request.header("Origin").map(str::to_owned);
            let asks = request.method() == Method::OPTIONS
                && request.headers().contains("Access-Control-Request-Method");
            let mut response = match (&origin, asks) {
                (Some(_), true) => Response::of_status(StatusCode::NO_CONTENT),
                _ => next.run(request),
            };
            // Where all may read it, also to who names none: a cache may give a page that answer later.
            let allowed = match &self.origins {
                None => Some("*"),
                Some(_) => origin.as_deref().filter(|origin| self.allows(origin)),
            };
            if let Some(allowed) = allowed {
                response = self.allow(response, allowed, asks && origin.is_some());
            }
            // Also where nothing is allowed: a cache must not give that answer to a page that may read it.
            if self.origins.is_some() {
                response = response.header("Vary", "Origin");
            }
            response
        }
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.as_ref().is_none_or(|origins| origins.iter().any(|known| known == origin))
    }

    fn allow(&self, mut response: Response, origin: &str, asks: bool) -> Response {
        response = response.header("Access-Control-Allow-Origin", origin);
        if self.with_credentials {
            response = response.header("Access-Control-Allow-Credentials", "true");
        }
        if !asks {
            return match self.exposed.as_str() {
                "" => response,
                names => response.header("Access-Control-Expose-Headers", names),
            };
        }
        response = response.header("Access-Control-Allow-Methods", &self.methods);
        if !self.headers.is_empty() {
            response = response.header("Access-Control-Allow-Headers", &self.headers);
        }
        response.header("Access-Control-Max-Age", self.max_age.as_secs().to_string())
    }
}

fn joined(names: &[&str]) -> String {
    for name in names {
        let is_one = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        assert!(is_one, "{name:?} is no header's name, as Content-Type is");
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_match_or_would_give_all_away_is_refused_at_once() {
        for wrong in ["https://a.example/", "a.example", "https://A.example", "https://", "*", "null"] {
            assert!(std::panic::catch_unwind(|| Cors::of([wrong])).is_err(), "{wrong}");
        }
        for wrong in ["", "X Total", "X-Total, Y", "X-Total:"] {
            assert!(std::panic::catch_unwind(|| Cors::any().headers(&[wrong])).is_err(), "{wrong}");
            assert!(std::panic::catch_unwind(|| Cors::any().exposed(&[wrong])).is_err(), "{wrong}");
        }
        assert!(std::panic::catch_unwind(|| Cors::any().with_credentials()).is_err());
        assert!(Cors::of(["http://localhost:3000"]).with_credentials().allows("http://localhost:3000"));
    }
}
