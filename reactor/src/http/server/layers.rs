//! Layers: code around handlers, for what many of them have in common (a log, a login, a limit, an id).
//!
//! A layer is a function that is given the request and what comes [`Next`]. It may answer by itself, change the answer, or
//! do something before and after. The first that was added is the outermost.
//!
//! A [`Group`] has layers for its own routes. They go with the handlers, and not by what a path looks like: there is no
//! second way to write a path that leads around them.
//!
//! What it is not: a place in which bodies are seen. A streamed body is written when all layers have returned.

use std::rc::Rc;

use http::Method;

use super::router::Handler;
use crate::http::{Request, Response};

/// Code around handlers.
pub(super) type Layer = Rc<dyn Fn(&mut Request<'_>, Next<'_>) -> Response>;

/// What is inside of all layers.
type End<'n> = dyn Fn(&mut Request<'_>) -> Response + 'n;

/// What a layer is around: further layers, and the handler.
pub struct Next<'n> {
    layers: &'n [Layer],
    end: &'n End<'n>,
}

impl Next<'_> {
    /// Lets it answer.
    ///
    /// # Suspends
    ///
    /// As the handler does.
    pub fn run(self, request: &mut Request<'_>) -> Response {
        run(self.layers, request, self.end)
    }
}

/// Answers by `end`, through `layers`.
pub(super) fn run(layers: &[Layer], request: &mut Request<'_>, end: &End<'_>) -> Response {
    match layers.split_first() {
        Some((first, layers)) => first(request, Next { layers, end }),
        None => end(request),
    }
}

/// A layer of a user's function.
pub(super) fn layer<R: Into<Response>>(
    function: impl Fn(&mut Request<'_>, Next<'_>) -> R + 'static,
) -> Layer {
    Rc::new(move |request: &mut Request<'_>, next: Next<'_>| function(request, next).into())
}

/// Routes that have something in common: the beginning of their paths, and layers; see [`super::Server::group`].
///
/// # Examples
///
/// ```
/// use reactor::http::{Group, Method, Next, Request, Response, Server, StatusCode};
///
/// fn with_token(request: &mut Request<'_>, next: Next<'_>) -> Response {
///     match request.header("Authorization") {
///         Some(token) if reactor::crypto::equal(token, "Bearer 2f7e") => next.run(request),
///         _ => StatusCode::UNAUTHORIZED.into(),
///     }
/// }
/// let admin = Group::new("/admin").layer(with_token).route(Method::GET, "/users", |_| "nobody yet");
/// let server = Server::new().route(Method::GET, "/", |_| "hello").group(admin);
/// ```
pub struct Group {
    prefix: String,
    layers: Vec<Layer>,
    routes: Vec<(Method, String, Handler)>,
}

impl Group {
    /// Routes whose patterns begin with `prefix`: `/admin`, or nothing.
    pub fn new(prefix: impl Into<String>) -> Group {
        Group { prefix: prefix.into(), layers: Vec::new(), routes: Vec::new() }
    }

    /// Puts a layer around all routes of the group, whenever they were added; inside of those before it.
    pub fn layer<R: Into<Response>>(
        mut self,
        function: impl Fn(&mut Request<'_>, Next<'_>) -> R + 'static,
    ) -> Group {
        self.layers.push(layer(function));
        self
    }

    /// As [`super::Server::route`], for the rest of a pattern.
    pub fn route<R: Into<Response>>(
        mut self,
        method: Method,
        pattern: &str,
        handler: impl for<'r> Fn(&mut Request<'r>) -> R + 'static,
    ) -> Group {
        let handler = Rc::new(move |request: &mut Request<'_>| handler(request).into());
        self.routes.push((method, format!("{}{pattern}", self.prefix), handler));
        self
    }

    /// Its routes, each with its layers around it.
    pub(super) fn into_routes(self) -> impl Iterator<Item = (Method, String, Handler)> {
        let layers: Rc<[Layer]> = self.layers.into();
        self.routes.into_iter().map(move |(method, pattern, handler)| {
            let layers = layers.clone();
            let layered: Handler = Rc::new(move |request: &mut Request<'_>| run(&layers, request, &*handler));
            (method, pattern, layered)
        })
    }
}
