//! How a request gets its answer: once, again where that is allowed, and on to where it is redirected.

use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;

use super::connection::{Connection, Server, Through};
use super::exchange::{Clock, Options, Unanswered, exchange, exchange_with};
use super::proxy::Proxy;
use super::redirect::{Redirect, RedirectError};
use super::request::{Form, Request};
use super::response::{Framed, decoder};
use super::retries::{Outcome, Retries};
use super::upload::Sending;
use super::{Client, ClientError, Phase, Response, Shared};
use crate::clock::now;
use crate::http::ResponseHead;

/// What of a request stays the same however often it is sent to one server.
struct Route<'c> {
    shared: &'c Rc<Shared>,
    server: Server,
    proxy: Option<(&'c Proxy, Through)>,
    is_tls: bool,
    /// Gzip was offered.
    gzip: bool,
    /// The request's head.
    wire: Vec<u8>,
    options: Options,
    deadline: Option<Instant>,
}

/// A connection that a request can go on.
struct Opened {
    connection: Connection,
    born: Instant,
    is_reused: bool,
}

impl Client {
    /// Sends, and follows redirects.
    pub(super) fn send(&self, mut request: Request<'_>) -> Result<Response, ClientError> {
        let deadline = request.total.map(|total| now() + total);
        let policy = self.shared.config.redirects;
        let mut followed_count = 0;
        loop {
            let response = self.send_persistently(&mut request, deadline)?;
            if policy.limit == 0 {
                return Ok(response);
            }
            let location = response.headers().get("Location");
            let next = Redirect::read(response.status(), location, &request.method, &request.url, &policy)?;
            let Some(next) = next else { return Ok(response) };
            // A WebSocket's fields are its opener's word to one server; browsers follow none at all.
            if request.is_tunnelled && !next.is_same_origin {
                return Ok(response);
            }
            if followed_count == policy.limit {
                return Err(RedirectError::TooMany.into());
            }
            followed_count += 1;
            if !next.keeps_body {
                request.drop_body();
            } else if !request.body.is_fresh() {
                return Err(RedirectError::BodyUsedUp.into());
            }
            if !next.is_same_origin {
                request.drop_credentials();
            }
            (request.url, request.method) = (next.url, next.method);
            response.drain();
        }
    }

    /// Sends to one server, and again as the policy has it.
    fn send_persistently(
        &self,
        request: &mut Request<'_>,
        deadline: Option<Instant>,
    ) -> Result<Response, ClientError> {
        let policy = self.shared.config.retries;
        if policy == Retries::NONE {
            return self.send_once(request, deadline);
        }
        let mut sent_count = 0;
        loop {
            let result = self.send_once(request, deadline);
            sent_count += 1;
            let (chance, wall) = (crate::random::number(), crate::wall_clock());
            let wait = policy.wait_after(sent_count, &request.method, Outcome::of(&result), chance, wall);
            let Some(wait) = wait.filter(|_| request.body.is_fresh()) else { return result };
            // The answer that there is says more than that the time was over.
            if deadline.is_some_and(|deadline| now().checked_add(wait).is_none_or(|at| at >= deadline)) {
                return result;
            }
            if let Ok(response) = result {
                response.drain();
            }
            crate::sleep(wait);
        }
    }

    /// Sends to one server, over a connection of the pool if there is one.
    fn send_once(
        &self,
        request: &mut Request<'_>,
        deadline: Option<Instant>,
    ) -> Result<Response, ClientError> {
        let route = self.route(request, deadline)?;
        let mut may_reuse = true;
        loop {
            let Opened { mut connection, born, is_reused } = route.open(request, may_reuse)?;
            let limits = &self.shared.config.head_limits;
            let answer = exchange(
                &mut connection,
                &route.wire,
                &mut request.body,
                route.options,
                limits,
                route.clock(),
            );
            match answer {
                Ok(answered) => {
                    return Ok(route.response(
                        request,
                        answered.head,
                        connection,
                        born,
                        answered.is_sent,
                        None,
                    ));
                }
                Err(Unanswered { error, is_silent }) => {
                    // The server closed it, as servers may, while the request was on its way (RFC 9112, section 9.3.1).
                    let was_stale = is_reused && is_silent && !matches!(error, ClientError::TimedOut(_));
                    if !(was_stale && request.method.is_idempotent() && request.body.is_fresh()) {
                        return Err(error);
                    }
                    may_reuse = false;
                }
            }
        }
    }

    /// Sends to one server, once, and lets `read` have the answer while the body is sent.
    pub(super) fn exchange<T>(
        &self,
        mut request: Request<'_>,
        read: impl FnOnce(Response) -> T,
    ) -> Result<T, ClientError> {
        let route = self.route(&request, request.total.map(|total| now() + total))?;
        // A new one: on one that the server has just closed the body would be lost.
        let Opened { connection, born, .. } = route.open(&request, false)?;
        let limits = &self.shared.config.head_limits;
        let mut body = std::mem::replace(&mut request.body, super::request::Body::Empty);
        exchange_with(
            connection,
            &route.wire,
            &mut body,
            route.options,
            limits,
            route.clock(),
            |head, connection, sending| {
                read(route.response(&request, head, connection, born, true, Some(sending)))
            },
        )
    }

    fn route(&self, request: &Request<'_>, deadline: Option<Instant>) -> Result<Route<'_>, ClientError> {
        let shared = &self.shared;
        let config = &shared.config;
        let is_tls = request.url.scheme() == "https";
        let through = if is_tls || request.is_tunnelled { Through::Tunnel } else { Through::Asking };
        let proxy = config.proxies.choose(&request.url).map(|proxy| (proxy, through));
        let form = match proxy {
            Some((proxy, Through::Asking)) => {
                Form::Absolute { authorization: proxy.authorization.as_deref() }
            }
            _ => Form::Origin,
        };
        // Part of an encoded body can't be decoded, so none is asked for.
        let gzip =
            config.gzip && !request.headers.contains("Accept-Encoding") && !request.headers.contains("Range");
        let cookies = shared.cookies.as_ref();
        let cookies = cookies.and_then(|jar| jar.borrow_mut().header_for(&request.url, crate::wall_clock()));
        Ok(Route {
            shared,
            server: Server::new(&request.url, proxy.map(|(proxy, _)| proxy))?,
            proxy,
            is_tls,
            gzip,
            wire: request.write_head(form, gzip, cookies.as_deref())?,
            options: Options {
                expects_continue: request.expects_continue,
                may_switch: request.headers.contains("Upgrade"),
            },
            deadline,
        })
    }
}

impl Route<'_> {
    fn clock(&self) -> Clock<'_> {
        Clock { timeouts: &self.shared.config.timeouts, deadline: self.deadline }
    }

    fn open(&self, request: &Request<'_>, may_reuse: bool) -> Result<Opened, ClientError> {
        let pooled = match may_reuse && !request.is_tunnelled {
            true => self.shared.take(&self.server),
            false => None,
        };
        if let Some((connection, born)) = pooled {
            return Ok(Opened { connection, born, is_reused: true });
        }
        let clock = self.clock();
        let open = || self.shared.open(&request.url, self.proxy, self.is_tls);
        let connection = clock.bound(Phase::Connect, clock.timeouts.connect, open)??;
        Ok(Opened { connection, born: now(), is_reused: false })
    }

    /// The answer with this head, whose body is still on its connection.
    fn response(
        &self,
        request: &Request<'_>,
        head: ResponseHead,
        connection: Connection,
        born: Instant,
        is_sent: bool,
        sending: Option<Rc<Sending>>,
    ) -> Response {
        let (shared, method) = (self.shared, &request.method);
        if let Some(jar) = &shared.cookies {
            for field in head.headers().get_all("Set-Cookie") {
                jar.borrow_mut().take(&request.url, field, crate::wall_clock());
            }
        }
        let framed = Framed {
            connection: Some(connection),
            decoder: decoder(&head, method, &shared.config.body_limits),
            shared: shared.clone(),
            server: self.server.clone(),
            born,
            is_reusable: is_sent
                && head.keeps_alive(method)
                && head.status() != StatusCode::SWITCHING_PROTOCOLS
                && request.keeps_alive()
                && !request.is_tunnelled,
            sending,
            deadline: self.deadline,
        };
        Response::new(head, method, request.url.clone(), self.gzip, framed)
    }
}
