//! What stands around calls, on either side: who may, how long it took, what is written down.
//!
//! An interceptor is called on the coroutine of the call and runs it by calling `next`, so it is sequential code with
//! the call in its middle. It sees a call as bytes and sizes; its types are the business of the service.
//!
//! What it is not: a place to change what is asked or answered.

use std::rc::Rc;
use std::time::Instant;

use super::{Metadata, Reply};
use crate::crypto::PublicKey;

/// What is known of a call before it runs.
#[derive(Clone, Debug)]
pub struct CallInfo<'a> {
    /// The method's number.
    pub method: u32,
    /// Its name.
    pub name: &'static str,
    /// The service that the caller names; empty for the connection's own.
    pub service: &'a str,
    /// What the caller sends along.
    pub metadata: &'a Metadata,
    /// The key that the other end proved to hold.
    pub peer: Option<&'a PublicKey>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The request's size, payload included and metadata not.
    pub request_bytes: usize,
}

/// Stands around calls: of a service with [`Service::around`](super::Service::around), of a client with
/// [`Config::around`](super::Config::around).
///
/// Closures of the same form are interceptors too:
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use reactor::rpc::{CallInfo, Reply, Service};
///
/// let count = Rc::new(Cell::new(0));
/// let counted = count.clone();
/// let mut service = Service::new();
/// service.around(move |_call: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| {
///     counted.set(counted.get() + 1);
///     next()
/// });
/// ```
pub trait Interceptor {
    /// Runs the call with `next`, and returns what it came to; or does not run it and says why, with
    /// [`Reply::Denied`]. Calling `next` again repeats the call.
    ///
    /// # Suspends
    /// As `next` does.
    fn around(&self, call: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply) -> Reply;
}

impl<F: Fn(&CallInfo<'_>, &mut dyn FnMut() -> Reply) -> Reply> Interceptor for F {
    fn around(&self, call: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply) -> Reply {
        self(call, next)
    }
}

/// Runs `innermost` with all of `interceptors` around it, the first outermost.
pub(super) fn around(
    interceptors: &[Rc<dyn Interceptor>],
    call: &CallInfo<'_>,
    innermost: &mut dyn FnMut() -> Reply,
) -> Reply {
    match interceptors.split_first() {
        None => innermost(),
        Some((first, rest)) => first.around(call, &mut || around(rest, call, innermost)),
    }
}
