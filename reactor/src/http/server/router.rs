//! Which handler a path and a method go to.
//!
//! A tree of path segments: a fixed one goes before a `{name}`, and that before a `{*rest}`, whatever the order in
//! which they were added. A segment is percent-decoded before it is compared, and after the path was split: an
//! encoded slash is a character of a segment and never a separator.
//!
//! What it is not: a regular expression engine, or a place for what handlers have in common (`layers`).

use std::borrow::Cow;
use std::rc::Rc;

use http::Method;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::http::{Request, Response};

/// Answers a request.
pub(super) type Handler = Rc<dyn Fn(&mut Request<'_>) -> Response>;

/// The values of a pattern's names, as they stand in the path.
pub(in crate::http) type Params<'a> = SmallVec<[(&'a str, &'a str); 4]>;

/// More segments than a sane path has, and fewer than make a recursion deep.
const SEGMENTS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Router {
    root: Node,
}

#[derive(Default)]
struct Node {
    fixed: Vec<(String, Node)>,
    named: Option<(String, Box<Node>)>,
    rest: Option<(String, Methods)>,
    methods: Methods,
}

/// The handlers of one path.
#[derive(Default)]
pub(super) struct Methods(Vec<(Method, Handler)>);

impl Methods {
    /// The handler of a method; HEAD is served by GET's.
    pub(super) fn get(&self, method: &Method) -> Option<&Handler> {
        let find =
            |wanted: &Method| self.0.iter().find(|(method, _)| method == wanted).map(|(_, handler)| handler);
        find(method).or_else(|| if method == Method::HEAD { find(&Method::GET) } else { None })
    }

    /// What `Allow` says.
    pub(super) fn allow(&self) -> String {
        let mut names: Vec<&str> = self.0.iter().map(|(method, _)| method.as_str()).collect();
        if names.contains(&"GET") && !names.contains(&"HEAD") {
            names.push("HEAD");
        }
        if !names.contains(&"OPTIONS") {
            names.push("OPTIONS");
        }
        names.join(", ")
    }
}

impl Router {
    /// # Panics
    ///
    /// If the pattern does not begin with a slash, names one place in two ways, or is there already.
    pub(super) fn add(&mut self, method: Method, pattern: &str, handler: Handler) {
        let path = pattern.strip_prefix('/').unwrap_or_else(|| panic!("{pattern:?} must begin with a slash"));
        let mut node = &mut self.root;
        let segments: Vec<&str> = path.split('/').collect();
        assert!(segments.len() <= SEGMENTS_MAX, "{pattern:?} has too many segments");
        for (index, segment) in segments.iter().enumerate() {
            if let Some(name) = segment.strip_prefix("{*").and_then(|name| name.strip_suffix('}')) {
                assert!(index + 1 == segments.len(), "{pattern:?}: nothing can follow {segment}");
                let (_, methods) = node.rest.get_or_insert_with(|| (name.to_owned(), Methods::default()));
                return methods.add(method, pattern, handler);
            }
            node = match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => {
                    let (known, node) = node.named.get_or_insert_with(|| (name.to_owned(), Box::default()));
                    assert!(known == name, "{pattern:?}: another pattern calls {{{name}}} {{{known}}}");
                    node
                }
                None => {
                    let at = node.fixed.iter().position(|(fixed, _)| fixed == segment);
                    let at = at.unwrap_or_else(|| {
                        node.fixed.push(((*segment).to_owned(), Node::default()));
                        node.fixed.len() - 1
                    });
                    &mut node.fixed[at].1
                }
            };
        }
        node.methods.add(method, pattern, handler);
    }

    /// The handlers of `path`; its values go to `params`.
    pub(super) fn find<'a>(&'a self, path: &'a str, params: &mut Params<'a>) -> Option<&'a Methods> {
        self.root.find(path.strip_prefix('/')?, params, 0)
    }
}

impl Methods {
    fn add(&mut self, method: Method, pattern: &str, handler: Handler) {
        assert!(self.0.iter().all(|(known, _)| *known != method), "{method} {pattern} is there already");
        self.0.push((method, handler));
    }
}

impl Node {
    fn find<'a>(&'a self, path: &'a str, params: &mut Params<'a>, depth: usize) -> Option<&'a Methods> {
        if depth < SEGMENTS_MAX {
            let (segment, rest) = match memchr::memchr(b'/', path.as_bytes()) {
                Some(at) => (&path[..at], Some(&path[at + 1..])),
                None => (path, None),
            };
            let decoded: Cow<'_, [u8]> = match segment.contains('%') {
                true => percent_decode_str(segment).into(),
                false => segment.as_bytes().into(),
            };
            let go_on = |node: &'a Node, params: &mut Params<'a>| match rest {
                Some(rest) => node.find(rest, params, depth + 1),
                None => Some(&node.methods).filter(|methods| !methods.0.is_empty()),
            };
            let fixed = self.fixed.iter().find(|(fixed, _)| fixed.as_bytes() == &*decoded);
            if let Some(found) = fixed.and_then(|(_, node)| go_on(node, params)) {
                return Some(found);
            }
            if let (Some((name, node)), false) = (&self.named, segment.is_empty()) {
                params.push((name, segment));
                if let Some(found) = go_on(node, params) {
                    return Some(found);
                }
                params.pop();
            }
        }
        let (name, methods) = self.rest.as_ref()?;
        params.push((name, path));
        Some(methods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(patterns: &[&str]) -> Router {
        let mut router = Router::default();
        for pattern in patterns {
            router.add(Method::GET, pattern, Rc::new(|_| Response::empty()));
        }
        router
    }

    fn find(router: &Router, path: &str) -> Option<Vec<(String, String)>> {
        let mut params = Params::new();
        router.find(path, &mut params)?;
        Some(params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_most_fixed_pattern_wins_and_the_others_are_tried_after_it() {
        let router =
            router(&["/", "/users/{id}", "/users/me", "/users/{id}/posts/{post}", "/static/{*path}"]);
        let pairs = |pairs: &[(&str, &str)]| {
            Some(
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(find(&router, "/"), pairs(&[]));
        assert_eq!(find(&router, "/users/me"), pairs(&[]));
        assert_eq!(find(&router, "/users/m%65"), pairs(&[]));
        assert_eq!(find(&router, "/users/you"), pairs(&[("id", "you")]));
        assert_eq!(find(&router, "/users/me/posts/7"), pairs(&[("id", "me"), ("post", "7")]));
        assert_eq!(find(&router, "/users/a%2Fb"), pairs(&[("id", "a%2Fb")]));
        assert_eq!(find(&router, "/static/a/b//c"), pairs(&[("path", "a/b//c")]));
        for missing in ["", "/users", "/users/", "/users/a/b", "/user%73%2Fme", "//", "*"] {
            assert_eq!(find(&router, missing), None, "{missing}");
        }
        let deep = "/a".repeat(100_000);
        assert_eq!(find(&router, &deep), None);
    }

    #[test]
    fn allow_names_what_is_served() {
        let mut router = router(&["/a"]);
        router.add(Method::PUT, "/a", Rc::new(|_| Response::empty()));
        let mut params = Params::new();
        let methods = router.find("/a", &mut params).unwrap();
        assert_eq!(methods.allow(), "GET, PUT, HEAD, OPTIONS");
        assert!(methods.get(&Method::HEAD).is_some() && methods.get(&Method::POST).is_none());
    }

    #[test]
    #[should_panic(expected = "is there already")]
    fn a_route_can_not_be_added_twice() {
        router(&["/a/{b}", "/a/{b}"]);
    }
}
