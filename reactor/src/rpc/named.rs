//! A caller for one of several services that share a connection.
//!
//! The name travels with each call, before the metadata: some bytes a call, and no state at either end that could be out
//! of step. So it goes through whatever carries calls, over any number of connections.
//!
//! What it is not: a directory. A name that the peer does not know is [`CallError::UnknownService`].

use super::stream::{StreamCall, StreamMethod};
use super::{CallError, CallOptions, Caller, Method, Payload, ServiceName};

/// Calls the service of one name through another caller.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use reactor::rpc::{CallContext, CallError, Named, Never, Service, ServiceName, pair};
///
/// reactor::service! {
///     trait Greeter = "greeter" version 1, client GreeterClient {
///         fn greet(&self, name: String) -> Result<String, Never> = 1 as Greet;
///     }
/// }
///
/// struct Plain(&'static str);
/// impl Greeter for Plain {
///     fn greet(&self, _: &CallContext, name: String) -> Result<String, Never> {
///         Ok(format!("{} {name}", self.0))
///     }
/// }
///
/// reactor::run(|| {
///     let mut service = Service::new();
///     // Under its own name, and once more under another.
///     Rc::new(Plain("hello")).share_on(&mut service);
///     let mut other = Service::new();
///     Rc::new(Plain("servus")).serve_on(&mut other);
///     service.share(ServiceName::from_static("greeter.bavarian"), Rc::new(other));
///     let (near, _far) = pair(Service::none(), Rc::new(service));
///
///     assert_eq!(GreeterClient::by_name(near.clone()).greet("you".into()), Ok("hello you".to_owned()));
///     let named = |name| GreeterClient::new(Named::new(near.clone(), ServiceName::from_static(name)));
///     assert_eq!(named("greeter.bavarian").greet("you".into()), Ok("servus you".to_owned()));
///     assert_eq!(named("nobody").greet("you".into()), Err(CallError::UnknownService));
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Named<C> {
    caller: C,
    service: ServiceName,
}

impl<C: Caller> Named<C> {
    /// Calls `service` through `caller`.
    pub fn new(caller: C, service: ServiceName) -> Named<C> {
        Named { caller, service }
    }

    /// What it calls through.
    pub fn caller(&self) -> &C {
        &self.caller
    }

    /// The options with our name, unless they have one.
    fn named(&self, options: &CallOptions) -> CallOptions {
        let mut options = options.clone();
        if options.service.is_own() {
            options.service = self.service.clone();
        }
        options
    }
}

impl<C: Caller> Caller for Named<C> {
    fn call_with<M: Method>(
        &self,
        request: &M::Request,
        payload: Payload,
        options: &CallOptions,
    ) -> Result<(M::Response, Payload), CallError<M::Error>> {
        self.caller.call_with::<M>(request, payload, &self.named(options))
    }

    fn open_with<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>> {
        self.caller.open_with::<M>(request, &self.named(options))
    }

    fn is_ready(&self) -> bool {
        self.caller.is_ready()
    }
}
