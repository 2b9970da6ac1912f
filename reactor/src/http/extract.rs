//! What handlers take out of a request: typed values of its path and query, JSON, forms.
//!
//! Each call names what it wants and gives it, or a [`Refusal`] that tells the client what was wrong. Nothing is taken that
//! was not asked for, and bodies only up to a limit.

use std::str::FromStr;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::{Refusal, Request};

/// Values that one query or form may hold: more than any page's form has, and some 100 KiB of memory.
const PAIRS_MAX: usize = 1_000;

impl Request<'_> {
    /// The value of `{name}` in the route's pattern, as a `T`.
    ///
    /// # Errors
    ///
    /// 404 when it is none: there is nothing at such a path.
    pub fn param_as<T: FromStr>(&self, name: &str) -> Result<T, Refusal> {
        let value = self.param(name).and_then(|text| text.parse().ok());
        value.ok_or_else(|| StatusCode::NOT_FOUND.into())
    }

    /// The first value of `name` in the query, as a `T`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// 400 when there is one, and it is no `T`.
    pub fn query_as<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        self.query_pairs()?.get_as(name)
    }

    /// All values of the query, decoded.
    ///
    /// # Errors
    ///
    /// 400 when they are not UTF-8, or more than 1,000.
    pub fn query_pairs(&self) -> Result<Pairs, Refusal> {
        Pairs::parse(self.query().unwrap_or_default())
    }

    /// The body, which is a form of `application/x-www-form-urlencoded`, as browsers send it.
    ///
    /// # Errors
    ///
    /// 415 when it is of another type, 413 beyond `limit_bytes`, 400 when it is malformed.
    ///
    /// # Suspends
    ///
    /// Until all of it is there.
    pub fn form(&mut self, limit_bytes: usize) -> Result<Pairs, Refusal> {
        self.expect_type("a form", |kind| kind == "application/x-www-form-urlencoded")?;
        let body = self.read_body(limit_bytes)?;
        let text = str::from_utf8(&body).map_err(|_| malformed("the form is not text"))?;
        Pairs::parse(text)
    }

    /// The body, which is JSON, as a `T`.
    ///
    /// # Errors
    ///
    /// 415 when it is of another type, 413 beyond `limit_bytes`, 400 with the place when it is no JSON or no `T`.
    ///
    /// # Suspends
    ///
    /// Until all of it is there.
    ///
    /// # Examples
    ///
    /// ```
    /// use reactor::http::{Method, Refusal, Request, Response, Server};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order {
    ///     count: u32,
    /// }
    ///
    /// fn take_order(request: &mut Request<'_>) -> Result<Response, Refusal> {
    ///     let shop: u64 = request.param_as("shop")?;
    ///     let order: Order = request.json(64 << 10)?;
    ///     Ok(Response::json_of(&serde_json::json!({ "shop": shop, "ordered": order.count })))
    /// }
    /// let server = Server::new().route(Method::POST, "/shops/{shop}/orders", take_order);
    /// ```
    pub fn json<T: DeserializeOwned>(&mut self, limit_bytes: usize) -> Result<T, Refusal> {
        self.expect_type("JSON", |kind| kind == "application/json" || kind.ends_with("+json"))?;
        let body = self.read_body(limit_bytes)?;
        serde_json::from_slice(&body)
            .map_err(|error| malformed(&format!("the JSON is not as expected: {error}")))
    }

    pub(super) fn expect_type(&self, what: &str, is_it: impl Fn(&str) -> bool) -> Result<(), Refusal> {
        let stated = self.header("Content-Type").unwrap_or_default();
        let kind = stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match is_it(&kind) {
            true => Ok(()),
            false => Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("the body must be {what}, and Content-Type must say so"),
            )),
        }
    }
}

fn malformed(reason: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason)
}

/// Names with their values, in the order in which they were sent; names may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn parse(text: &str) -> Result<Pairs, Refusal> {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            let decoded = percent_decode_str(&spaced).decode_utf8();
            decoded
                .map(|text| text.into_owned())
                .map_err(|_| malformed("a name or value is not text of UTF-8"))
        };
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == PAIRS_MAX {
                return Err(malformed("there are more than 1,000 values"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Pairs(pairs))
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All values of that name.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The first value of that name as a `T`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// 400 when there is one, and it is no `T`.
    pub fn get_as<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let parsed = self.get(name).map(str::parse).transpose();
        parsed.map_err(|_| malformed(&format!("the value of {name:?} is not of the right kind")))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_once_and_keep_their_order() {
        let pairs = Pairs::parse("a=1&b=x+y&a=%26%3d&&c&%61=last&=").unwrap();
        let all: Vec<_> = pairs.iter().collect();
        assert_eq!(all, [("a", "1"), ("b", "x y"), ("a", "&="), ("c", ""), ("a", "last"), ("", "")]);
        assert_eq!(pairs.get_all("a").collect::<Vec<_>>(), ["1", "&=", "last"]);
        assert_eq!(pairs.get_as::<u32>("a").unwrap(), Some(1));
        assert_eq!(pairs.get_as::<u32>("missing").unwrap(), None);
        assert!(pairs.get_as::<u32>("b").is_err());
    }

    #[test]
    fn pairs_that_are_no_text_or_too_many_are_refused() {
        assert!(Pairs::parse("a=%ff").is_err());
        assert_eq!(Pairs::parse(&"a&".repeat(PAIRS_MAX)).unwrap().iter().count(), PAIRS_MAX);
        assert!(Pairs::parse(&"a&".repeat(PAIRS_MAX + 1)).is_err());
    }
}
